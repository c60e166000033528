//! The scripts of the VPS, run here by `sh` in a temporary directory: only systemd is a stand-in.

#![cfg(test)]

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;
use ua_tests::systemd::{self, SYSTEMCTL};

/// Scripts as they are sent: with the parts that they share.
macro_rules! parts {
    ($($part:literal),+) => {
        concat!(
            include_str!("../../ua-common/remote/lying.sh"),
            "\n",
            include_str!("../../ua-common/remote/ledger.sh"),
            "\n",
            include_str!("../../ua-common/remote/env.sh"),
            "\n",
            include_str!("../../ua-common/remote/unit_log.sh"),
            "\n",
            $(include_str!(concat!("../remote/", $part, ".sh")), "\n"),+
        )
    };
}

const SCRIPTS: [(&str, &str); 13] = [
    ("survey", parts!("survey")),
    ("begin", parts!("record", "begin")),
    ("close", parts!("record", "close")),
    ("history", parts!("history")),
    ("launch", parts!("launch")),
    ("confirm", parts!("newest", "record", "confirm")),
    ("unlock", parts!("unlock")),
    ("drift", parts!("drift")),
    ("follow", parts!("follow")),
    ("activate", parts!("newest", "prove", "workers", "record", "activate")),
    ("now", parts!("prove", "workers", "now")),
    ("ops", parts!("ops")),
    ("smoked", parts!("record", "smoked")),
];

fn script(name: &str) -> &'static str {
    SCRIPTS.iter().find(|(known, _)| *known == name).unwrap().1
}

/// Answers 200 with what the app's `answer` file says, 404 where there is none.
const CURL: &str = r#"#!/bin/sh
for arg in "$@"; do
    [ "$before" != --output ] || body=$arg
    before=$arg
done
echo "$*" >>"$ROOT/curl.calls"
if [ "$(wc -l <"$ROOT/curl.calls")" -le "$(cat "$ROOT/curl.late" 2>/dev/null || echo 0)" ]; then
    printf 000
    exit 28
fi
if [ -e "$ROOT/app/answer" ]; then cat "$ROOT/app/answer" >"$body"; printf 200; else printf 404; fi
"#;

struct Vps {
    root: TempDir,
    orders: Vec<String>,
    deploys: u32,
    /// Lines of the manifest for what is not sent.
    rest: String,
    /// The plan has not seen what others changed.
    no_drift: bool,
    /// The next activation is killed: what it leaves is not read.
    killed: bool,
}

impl Drop for Vps {
    fn drop(&mut self) {
        systemd::end_units(self.root.path());
    }
}

impl Vps {
    fn new() -> Self {
        let root = TempDir::new().unwrap();
        let vps = Self {
            root,
            orders: Vec::new(),
            deploys: 0,
            rest: String::new(),
            no_drift: false,
            killed: false,
        };
        for dir in ["state", "app", "units"] {
            fs::create_dir(vps.path(dir)).unwrap();
        }
        fs::set_permissions(vps.path("app"), fs::Permissions::from_mode(0o755)).unwrap();
        systemd::install(vps.root.path());
        fs::write(vps.path("bin/curl"), CURL).unwrap();
        fs::set_permissions(vps.path("bin/curl"), fs::Permissions::from_mode(0o755)).unwrap();
        vps
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    fn app(&self, path: &str) -> PathBuf {
        self.path("app").join(path)
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.app(path)).unwrap_or_else(|error| format!("{path}: {error}"))
    }

    fn write(&self, path: &str, text: &str) {
        fs::create_dir_all(self.app(path).parent().unwrap()).unwrap();
        fs::write(self.app(path), text).unwrap();
    }

    fn calls(&self, program: &str) -> String {
        fs::read_to_string(self.path(&format!("{program}.calls"))).unwrap()
    }

    /// Runs a script as the transport sends it.
    /// A script as it is sent, but for where this test has `/run` and what the kernel tells.
    fn script(&self, name: &str) -> String {
        let mut text = script(name).replace("/run/ua-deploy/", &format!("{}/", self.path("run").display()));
        for (real, ours) in
            [("/proc/self/cgroup", "cgroup"), ("/proc/meminfo", "meminfo"), ("/sys/fs/cgroup", "groups")]
        {
            let ours = self.path(ours);
            if ours.exists() {
                text = text.replace(real, &ours.display().to_string());
            }
        }
        text
    }

    fn sh(&self, name: &str, args: &[&str]) -> Output {
        self.sh_text(name, &self.script(name), args)
    }

    /// Runs this text as a script called `name`.
    fn sh_text(&self, name: &str, text: &str, args: &[&str]) -> Output {
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", self.path("bin").display());
        Command::new("sh")
            .args(["-c", text, name])
            .args(args)
            .env_clear()
            .env("PATH", path)
            .env("ROOT", self.root.path())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    fn state(&self) -> String {
        self.path("state").display().to_string()
    }

    fn order(&mut self, line: &str) -> &mut Self {
        self.orders.push(line.to_owned());
        self
    }

    /// Uploads `files` (path, text; a text that begins with `->` is a link, with `#!` a program) and activates them.
    fn deploy(&mut self, files: &[(&str, &str)]) -> (String, Record) {
        self.deploys += 1;
        let id = format!("2026010{}T000000Z-c", self.deploys);
        let commit = format!("commit{}", self.deploys);
        let begun = self.sh(
            "begin",
            &[&self.state(), &id, &commit, &format!("{{\"id\":\"{id}\",\"commit\":\"{commit}\"}}")],
        );
        assert!(begun.status.success(), "{begun:?}");
        let manifest = self.upload(&commit, files);
        let release = self.path("state/releases").join(&id);
        let group = String::from_utf8(Command::new("id").arg("-gn").output().unwrap().stdout).unwrap();
        let user = String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout).unwrap();
        // The first line of a key counts.
        let mut orders = self.orders.clone();
        // As the plan would have it, where a test does not say otherwise: all is sent, built, and started anew.
        if !orders.iter().any(|order| order.starts_with("upload\t")) {
            orders.extend(files.iter().map(|(path, _)| format!("upload\t{path}")));
        }
        if !self.no_drift {
            orders.extend(self.drift().lines().map(|path| format!("drift\t{path}")));
        }
        let all = |orders: &[String], of: &str, key: &str| -> Vec<String> {
            let lines = orders.iter().filter_map(|order| order.strip_prefix(of));
            lines.map(|rest| format!("{key}\t{}", rest.split('\t').next().unwrap())).collect()
        };
        if !orders.iter().any(|order| order.starts_with("make\t")) {
            let known = self.built();
            let wanted = |step: &String| !known.contains(step);
            let steps = orders.iter().filter(|order| order.starts_with("step\t")).filter(|step| wanted(step));
            let steps: Vec<String> = steps.cloned().collect();
            orders.extend(all(&steps, "step\t", "make"));
        }
        if !orders.iter().any(|order| order.starts_with("restart\t")) {
            orders.push("restart\tapp.service".to_owned());
            orders.extend(all(&self.orders, "unit\t", "restart"));
        }
        orders.extend([
            format!("commit\t{commit}"),
            format!("app\t{}", self.path("app").display()),
            format!("user\t{}", user.trim()),
            format!("group\t{}", group.trim()),
            "modes\tDu=rwx,Dgo=rx,Fu=rwX,Fgo=rX".to_owned(),
            "build_path\t/usr/bin:/bin".to_owned(),
            "start_within\t2".to_owned(),
            "stable\t0".to_owned(),
            "keep\t10".to_owned(),
            format!("unit_dir\t{}", self.path("units").display()),
            format!("pushed\t{}", self.last_push()),
            "unit\tapp.service".to_owned(),
        ]);
        fs::write(release.join("orders"), orders.join("\n") + "\n").unwrap();
        fs::write(release.join("manifest"), manifest + &self.rest).unwrap();
        fs::write(release.join("activate"), self.script("activate")).unwrap();
        self.activate(&id, "forward")
    }

    /// What `push` leaves behind: the files, and a line of the ledger.
    fn push(&self, id: &str, files: &[(&str, &str)]) {
        let manifest = self.upload(&format!("push-{id}"), files);
        let lines = manifest.lines().map(|line| serde_json::json!(line).to_string());
        let paths = lines.collect::<Vec<_>>().join(",");
        let ledger = self.path("state/ledger.jsonl");
        let before = fs::read_to_string(&ledger).unwrap_or_default();
        fs::write(ledger, format!("{before}{{\"id\":\"{id}\",\"paths\":[{paths}]}}\n")).unwrap();
        for (path, text) in files {
            self.write(path, text);
        }
    }

    fn last_push(&self) -> String {
        let text = fs::read_to_string(self.path("state/ledger.jsonl")).unwrap_or_default();
        let last = text.lines().last().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        last.map_or_else(String::new, |line| line["id"].as_str().unwrap().to_owned())
    }

    /// Ids of the pushes that are not settled.
    fn open_pushes(&self) -> Vec<String> {
        let (state, app) = (self.state(), self.path("app").display().to_string());
        let args = [state.as_str(), &app, "root", "root", ".env", "/usr/bin:/bin", "other"];
        let text = String::from_utf8(self.sh("survey", &args).stdout).unwrap();
        let lines = text.lines().filter_map(|line| line.strip_prefix("pushed\t"));
        let id = |line| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].as_str().unwrap().to_owned()
        };
        lines.map(id).collect()
    }

    /// The release that serves.
    fn served(&self) -> Option<PathBuf> {
        let mut dirs: Vec<PathBuf> =
            fs::read_dir(self.path("state/releases")).ok()?.map(|entry| entry.unwrap().path()).collect();
        dirs.sort();
        dirs.into_iter().rfind(|dir| dir.join("served").exists())
    }

    fn drift(&self) -> String {
        let Some(served) = self.served() else { return String::new() };
        let id = served.file_name().unwrap().to_str().unwrap().to_owned();
        let text = String::from_utf8(self.sh("drift", &[&self.state(), &id]).stdout).unwrap();
        let path = |line: &&str| !line.starts_with("pushed\t{\"id\":") && !line.starts_with("unit\t");
        text.lines().filter(path).map(|line| format!("{line}\n")).collect()
    }

    /// Build steps that need not run again: what they made is there.
    fn built(&self) -> Vec<String> {
        let Some(served) = self.served() else { return Vec::new() };
        let dirs = fs::read_dir(self.path("state/releases")).unwrap().map(|entry| entry.unwrap().path());
        if dirs.filter(|dir| *dir > served).any(|dir| dir.join("switched").exists()) {
            return Vec::new();
        }
        let orders = fs::read_to_string(served.join("orders")).unwrap_or_default();
        let there = |step: &str| {
            let outputs = orders.lines().filter_map(|line| line.strip_prefix("output\t"));
            let mut own = outputs.filter_map(|line| line.split_once('\t')).filter(|(name, _)| *name == step);
            own.all(|(_, output)| self.app(output).exists())
        };
        let steps = orders.lines().filter(|line| line.starts_with("step\t"));
        steps.filter(|step| there(step.split('\t').nth(1).unwrap())).map(str::to_owned).collect()
    }

    fn activate(&self, id: &str, verb: &str) -> (String, Record) {
        let output = self.sh("activate", &[&self.state(), id, verb]);
        let release = self.path("state/releases").join(id);
        let log = fs::read_to_string(release.join("log")).unwrap();
        let record: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(release.join("record.json")).unwrap()).unwrap();
        let checks = fs::read_to_string(release.join("checks")).unwrap_or_default();
        assert!(self.killed || output.status.code().is_some(), "{output:?}");
        let record = Record { code: output.status.code().unwrap_or(-1), record, checks, log };
        (id.to_owned(), record)
    }

    fn upload(&self, commit: &str, files: &[(&str, &str)]) -> String {
        let tree = self.path("state/incoming").join(commit).join("tree");
        let mut manifest = String::new();
        for (path, text) in files {
            let file = tree.join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            if let Some(target) = text.strip_prefix("->") {
                symlink(target, &file).unwrap();
                manifest.push_str(&format!("l\t{target}\t{path}\n"));
                continue;
            }
            fs::write(&file, text).unwrap();
            let (kind, mode) = if text.starts_with("#!") { ('x', 0o700) } else { ('f', 0o600) };
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            let digest =
                String::from_utf8(Command::new("sha256sum").arg(&file).output().unwrap().stdout).unwrap();
            let digest = digest.trim_start_matches('\\');
            manifest.push_str(&format!("{kind}\t{}\t{path}\n", &digest[..64]));
        }
        manifest
    }
}

struct Record {
    code: i32,
    record: serde_json::Value,
    checks: String,
    log: String,
}

impl Record {
    fn is(&self, verdict: &str, code: i32) -> &Self {
        assert_eq!(
            (self.record["verdict"].as_str(), self.code),
            (Some(verdict), code),
            "{}\n{}",
            self.log,
            self.checks
        );
        assert_eq!(self.record["exit_code"], code);
        self
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn p26_every_script_is_plain_sh() {
    for (name, text) in SCRIPTS {
        for shell in ["dash", "bash --posix", "busybox sh"] {
            let mut words = shell.split(' ');
            let program = words.next().unwrap();
            if Command::new(program).arg("--help").output().is_err() {
                continue;
            }
            let output = Command::new(program).args(words).args(["-n", "-c", text]).output().unwrap();
            assert!(output.status.success(), "{name} under {shell}: {output:?}");
        }
        for word in ["pipefail", "[[ ", "local ", "<<<", "$RANDOM"] {
            assert!(!text.contains(word), "{name} has `{word}`, which dash does not know");
        }
    }
    let shellcheck = Command::new("shellcheck").arg("--version").output();
    if shellcheck.is_ok() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("remote");
        let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        let output = Command::new("shellcheck").args(["-s", "sh"]).args(files).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}

#[test]
fn a_first_deploy_puts_every_kind_of_path_in_place() {
    let mut vps = Vps::new();
    vps.order("directory\tlogs");
    let files = [
        ("version", "1"),
        ("src/a b's.py", "a"),
        ("src/-x", "dash"),
        ("bin/run.sh", "#!/bin/sh\n"),
        ("link", "->src/-x"),
        ("back\\slash", "b"),
        ("#comment", "c"),
        (";comment", "d"),
    ];
    let (id, done) = vps.deploy(&files);
    done.is("unconfirmed", 0);
    // What its client does next, and no trouble: only the record says what it is if that does not come.
    let last = format!("== release {id} serves; to be confirmed over a fresh connection");
    assert_eq!(done.log.lines().last(), Some(last.as_str()));
    assert_eq!(
        (vps.read("src/a b's.py"), vps.read("link"), vps.read("back\\slash")),
        ("a".into(), "dash".into(), "b".into())
    );
    assert_eq!((vps.read("#comment"), vps.read(";comment")), ("c".into(), "d".into()));
    assert_eq!(
        (mode(&vps.app("bin/run.sh")), mode(&vps.app("version")), mode(&vps.app("src"))),
        (0o755, 0o644, 0o755)
    );
    assert!(vps.app("logs").is_dir());
    // Private, and nothing of the upload is left.
    assert_eq!(mode(&vps.path("state")), 0o700);
    assert_eq!(mode(&vps.path("state/releases").join(&id).join("log")), 0o600);
    assert_eq!(fs::read_dir(vps.path("state/incoming")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(vps.path("state/build")).unwrap().count(), 0);
    let history = String::from_utf8(vps.sh("history", &[&vps.state()]).stdout).unwrap();
    assert!(history.starts_with("{\"id\":") && history.contains("\"verdict\":\"begun\""), "{history}");
    assert!(history.ends_with("}\n") && history.contains("\"verdict\":\"unconfirmed\""), "{history}");
}

#[test]
fn unusual_path_survives_switch_and_restore() {
    let names =
        ["-rf", "end ", " start", "docs /-n", "docs /end ", "a\\nb\\c", "it's \"so\" [1]*", "caf\u{e9}"];
    let mut vps = Vps::new();
    let mut first = vec![("version", "1")];
    first.extend(names.map(|name| (name, "first")));
    vps.deploy(&first).1.is("unconfirmed", 0);
    assert_eq!(vps.drift(), "");
    // Each other one changes, the rest is gone.
    let mut second = vec![("version", "2")];
    second.extend(names.iter().step_by(2).map(|name| (*name, "second")));
    let (id, done) = vps.deploy(&second);
    done.is("unconfirmed", 0);
    for (nth, name) in names.iter().enumerate() {
        let there = nth % 2 == 0;
        assert_eq!(vps.app(name).exists(), there, "{name}");
        assert!(!there || vps.read(name) == "second", "{name}");
    }
    vps.activate(&id, "restore").1.is("rolled-back", 33);
    for name in names {
        assert_eq!(vps.read(name), "first", "{name}");
    }
    assert_eq!(vps.drift(), "");
}

#[test]
fn log_shows_a_command_as_it_is() {
    let mut vps = Vps::new();
    vps.order(
        r"step\tone\t.\td1\t20\tits profile\tprintf 'a\nb\c' >out; exit 3".replace("\\t", "\t").as_str(),
    );
    let (_, done) = vps.deploy(&[("version", "1")]);
    assert!(done.log.contains(r"== build one: printf 'a\nb\c' >out; exit 3"), "{}", done.log);
}

#[test]
fn p14_modes_of_the_laptop_never_reach_the_app() {
    let mut vps = Vps::new();
    // The upload is private to root, down to its own top directory.
    vps.deploy(&[("version", "1"), ("src/a.py", "a")]).1.is("unconfirmed", 0);
    assert_eq!(
        (mode(&vps.app("")), mode(&vps.app("src")), mode(&vps.app("src/a.py"))),
        (0o755, 0o755, 0o644)
    );
    // What an operator set on the directory itself stays, forth and back.
    fs::set_permissions(vps.app(""), fs::Permissions::from_mode(0o750)).unwrap();
    vps.deploy(&[("version", "2"), ("src/a.py", "b"), ("#odd", "")]).1.is("unconfirmed", 0);
    assert_eq!(mode(&vps.app("")), 0o750);
    fs::write(vps.path("broken"), "3\n").unwrap();
    vps.deploy(&[("version", "3")]).1.is("rolled-back", 33);
    assert_eq!(
        (mode(&vps.app("")), mode(&vps.app("src")), mode(&vps.app("src/a.py"))),
        (0o750, 0o755, 0o644)
    );
}

#[test]
fn p06_an_upload_that_is_not_the_commit_changes_nothing() {
    for spoil in ["changed", "extra", "missing", "link", "program"] {
        let mut vps = Vps::new();
        vps.write("version", "0");
        vps.deploys = 1;
        let (id, commit) = ("20260102T000000Z-c", "commit2");
        vps.sh("begin", &[&vps.state(), id, commit, "{\"id\":\"x\"}"]);
        let manifest = vps.upload(commit, &[("version", "1"), ("link", "->version")]);
        let tree = vps.path("state/incoming/commit2/tree");
        match spoil {
            "changed" => fs::write(tree.join("version"), "evil").unwrap(),
            "extra" => fs::write(tree.join("more"), "evil").unwrap(),
            "missing" => fs::remove_file(tree.join("version")).unwrap(),
            "program" => {
                fs::set_permissions(tree.join("version"), fs::Permissions::from_mode(0o755)).unwrap();
            }
            _ => {
                fs::remove_file(tree.join("link")).unwrap();
                symlink("/etc/passwd", tree.join("link")).unwrap();
            }
        }
        let release = vps.path("state/releases").join(id);
        fs::write(release.join("manifest"), manifest).unwrap();
        fs::write(release.join("orders"), format!("commit\t{commit}\napp\t{}\n", vps.path("app").display()))
            .unwrap();
        vps.activate(id, "forward").1.is("failed", 32);
        assert_eq!(vps.read("version"), "0", "{spoil}");
        assert_eq!(vps.calls("systemctl"), "", "{spoil}");
    }
}

#[test]
fn p44_the_build_sees_the_profile_s_path_and_nothing_of_its_caller() {
    let mut vps = Vps::new();
    vps.order("step\tone\tsub\td1\t20\tits profile\tenv >\"$PWD/out\"; echo $((1 + 1)) >>out; pwd >>out")
        .order("output\tone\tsub/out");
    vps.deploy(&[("version", "1"), ("sub/x", "")]).1.is("unconfirmed", 0);
    let calls = vps.calls("systemd-run");
    assert!(calls.contains("--setenv=PATH=/usr/bin:/bin "), "{calls}");
    assert!(
        calls.contains("--property=NoNewPrivileges=yes") && calls.contains("--property=RuntimeMaxSec="),
        "{calls}"
    );
    // systemd expands `$` in arguments, so it is doubled on the way there.
    assert!(calls.contains("$$PWD") && calls.contains("$$((1 + 1))"), "{calls}");
    assert!(!vps.read("sub/out").contains("ROOT="), "{}", vps.read("sub/out"));
}

#[test]
fn p16_a_red_build_leaves_everything_as_it_was() {
    let mut vps = Vps::new();
    vps.deploy(&[("version", "1"), ("src/a.py", "a")]).1.is("unconfirmed", 0);
    let restarts = fs::read_to_string(vps.path("restarts")).unwrap();
    vps.order("step\tone\t.\td1\t20\tits profile\techo building; exit 3");
    let (id, done) = vps.deploy(&[("version", "2"), ("src/a.py", "b")]);
    done.is("failed", 1);
    assert!(done.log.contains("building") && done.checks.contains("fail\tbuild"), "{}", done.log);
    assert_eq!(done.record["serving"], "old");
    assert_eq!((vps.read("version"), vps.read("src/a.py")), ("1".into(), "a".into()));
    assert_eq!(fs::read_to_string(vps.path("restarts")).unwrap(), restarts);
    assert!(!vps.path("state/releases").join(id).join("switched").exists());
}

#[test]
fn a_build_without_its_output_is_red() {
    let mut vps = Vps::new();
    vps.order("step\tone\t.\td1\t20\tits profile\ttrue").order("output\tone\tout");
    let (_, done) = vps.deploy(&[("version", "1")]);
    assert!(done.is("failed", 1).checks.contains("the build made no out"));
}

#[test]
fn build_step_that_takes_too_long_is_told() {
    let mut vps = Vps::new();
    vps.order("step\tone\t.\td1\t30\tits profile\ttrue")
        .order("step\ttwo\t.\td1\t1\t`deploy.build_timeout`\tsleep 20")
        .order("step\tthree\t.\td1\t30\tits profile\ttrue");
    let (_, done) = vps.deploy(&[("version", "1")]);
    let told = "fail\tbuild\t";
    assert!(done.is("failed", 1).checks.contains(told), "{}", done.checks);
    assert!(
        done.checks.contains("build step two did not end within 1 s (`deploy.build_timeout`)"),
        "{}",
        done.checks
    );
    let calls = vps.calls("systemd-run");
    let limits: Vec<&str> =
        calls.split_whitespace().filter_map(|word| word.strip_prefix("--property=RuntimeMaxSec=")).collect();
    assert_eq!(limits, ["30", "1"], "each step has a limit of its own, and none comes after a failed one");
}

/// Makes the kernel tell this of a step's memory, in control groups as Debian 12 has them (`unified`) or in a group of the
/// hierarchy of memory. During the step it kills `kills` processes.
fn memory(vps: &Vps, group: Option<&str>, kills: u32, peak: Option<u64>, limit: &str) {
    let step = "/system.slice/ua-deploy-build-web-ui-1.service";
    let (cgroup, dir, files) = match group {
        None => {
            (format!("0::{step}\n"), format!("groups{step}"), ["memory.events", "memory.peak", "memory.max"])
        }
        Some(group) => (
            format!("9:name=systemd:{step}\n4:memory:{group}\n0::{step}\n"),
            format!("groups/memory{group}"),
            ["memory.oom_control", "memory.max_usage_in_bytes", "memory.limit_in_bytes"],
        ),
    };
    fs::create_dir_all(vps.path(&dir)).unwrap();
    fs::write(vps.path("cgroup"), cgroup).unwrap();
    fs::write(vps.path("meminfo"), "MemTotal:        4194304 kB\nMemFree: 1 kB\n").unwrap();
    let events = |kills: u32| format!("low 0\nhigh 7\noom 9\noom_kill {kills}\noom_group_kill 0\n");
    // A group that is not the step's own has a history.
    let before = if group == Some("/") { 5 } else { 0 };
    let counter = vps.path(&dir).join(files[0]);
    fs::write(&counter, events(before)).unwrap();
    let told = format!("cat >'{}' <<'END'\n{}END\n", counter.display(), events(before + kills));
    fs::write(vps.path("kernel"), told).unwrap();
    if let Some(peak) = peak {
        fs::write(vps.path(&dir).join(files[1]), format!("{peak}\n")).unwrap();
    }
    fs::write(vps.path(&dir).join(files[2]), format!("{limit}\n")).unwrap();
}

#[test]
fn build_step_killed_for_memory_is_told() {
    // What systemd says of it, if not what follows from its exit code.
    let failed = |memory: &dyn Fn(&Vps), result: Option<(&str, &str)>, code: u32| {
        let mut vps = Vps::new();
        memory(&vps);
        if let Some((result, status)) = result {
            fs::write(vps.path("result"), result).unwrap();
            fs::write(vps.path("status"), status).unwrap();
        }
        vps.order(&format!("step\tweb-ui\t.\td1\t30\tits profile\texit {code}"));
        let (_, done) = vps.deploy(&[("version", "1")]);
        done.is("failed", 1);
        let detail = done.record["detail"].as_str().unwrap().to_owned();
        detail.strip_prefix("build step web-ui ").unwrap().to_owned()
    };
    let peak = Some(3_328_599_654);
    let killed = "was killed for memory (oom-kill): its peak was 3.1 GiB, the machine has 4.0 GiB";
    let own = "/system.slice/ua-deploy-build-web-ui-1.service";
    let (unified, old) = ((None, "max"), (Some(own), "9223372036854771712"));
    for (group, limit) in [unified, old] {
        let of = move |kills| move |vps: &Vps| memory(vps, group, kills, peak, limit);
        // As systemd 252 tells it where the kernel killed a child, and where only the kernel knows.
        assert_eq!(failed(&of(1), Some(("oom-kill", "TERM")), 1), killed);
        assert_eq!(failed(&of(1), None, 137), killed);
        assert_eq!(failed(&of(2), None, 1), killed);
        let not = "failed with code 134: its peak was 3.1 GiB, the machine has 4.0 GiB";
        assert_eq!(failed(&of(0), None, 134), not);
        assert_eq!(failed(&of(0), None, 1), "failed with code 1");
        assert_eq!(
            failed(&of(0), Some(("signal", "KILL")), 255),
            "was ended by signal KILL: its peak was 3.1 GiB, the machine has 4.0 GiB"
        );
    }
    // A kernel before 5.19 does not note the peak, and the operator may limit builds.
    let bare = |vps: &Vps| memory(vps, None, 1, None, "max");
    assert_eq!(failed(&bare, None, 1), "was killed for memory (oom-kill): the machine has 4.0 GiB");
    let limited = |vps: &Vps| memory(vps, None, 1, Some(67_108_864), "67108864");
    assert_eq!(
        failed(&limited, None, 1),
        "was killed for memory (oom-kill): its peak was 64 MiB, its limit is 64 MiB, the machine has 4.0 GiB"
    );
    // In a group of all the machine the peak is none of the step's, nor is who was killed before.
    let shared = |kills| move |vps: &Vps| memory(vps, Some("/"), kills, peak, "9223372036854771712");
    assert_eq!(failed(&shared(1), None, 1), "was killed for memory (oom-kill): the machine has 4.0 GiB");
    assert_eq!(failed(&shared(0), None, 1), "failed with code 1");
}

#[test]
fn unchanged_inputs_are_not_built_again() {
    let mut vps = Vps::new();
    vps.order("step\tone\t.\td1\t20\tits profile\techo $$ >out").order("output\tone\tout");
    vps.deploy(&[("version", "1")]).1.is("unconfirmed", 0);
    let built = vps.read("out");
    vps.deploy(&[("version", "2")]).1.is("unconfirmed", 0);
    assert_eq!(vps.read("out"), built);
    // What is missing on the server is built again, whatever the inputs say.
    fs::remove_file(vps.app("out")).unwrap();
    vps.deploy(&[("version", "3")]).1.is("unconfirmed", 0);
    assert!(vps.app("out").exists());
    vps.orders[0] = "step\tone\t.\td2\t20\tits profile\techo $$ >out".to_owned();
    let before = vps.read("out");
    vps.deploy(&[("version", "4")]).1.is("unconfirmed", 0);
    assert_ne!(vps.read("out"), before);
}

#[test]
fn what_a_cut_off_release_built_is_not_trusted() {
    let mut vps = Vps::new();
    vps.order("step\tone\t.\td1\t20\tits profile\techo good >out").order("output\tone\tout");
    vps.deploy(&[("version", "1")]).1.is("unconfirmed", 0);
    vps.orders[0] = "step\tone\t.\td2\t20\tits profile\techo cut off >out".to_owned();
    let (second, _) = vps.deploy(&[("version", "2"), ("only-in-2.py", "x")]);
    // As if the machine had lost power before anything was proved.
    fs::remove_file(vps.path("state/releases").join(&second).join("served")).unwrap();
    vps.orders[0] = "step\tone\t.\td1\t20\tits profile\techo good >out".to_owned();
    vps.deploy(&[("version", "3")]).1.is("unconfirmed", 0);
    assert_eq!(vps.read("out"), "good\n");
    assert!(!vps.app("only-in-2.py").exists());
}

#[test]
fn p12_files_that_the_server_writes_are_kept() {
    let mut vps = Vps::new();
    vps.order("preserve\tmemory.md");
    vps.deploy(&[("version", "1"), ("memory.md", "new")]).1.is("unconfirmed", 0);
    assert_eq!(vps.read("memory.md"), "new");
    // Untouched by the server: the next commit's text replaces it.
    vps.deploy(&[("version", "2"), ("memory.md", "newer")]).1.is("unconfirmed", 0);
    assert_eq!(vps.read("memory.md"), "newer");
    vps.write("memory.md", "the server's own");
    let (_, done) = vps.deploy(&[("version", "3"), ("memory.md", "newest")]);
    assert!(done.is("unconfirmed", 0).checks.contains("pass\tswitch.kept"), "{}", done.checks);
    assert_eq!(vps.read("memory.md"), "the server's own");
}

#[test]
fn p12_a_tree_that_no_deploy_of_ours_made_keeps_its_memory_too() {
    let mut vps = Vps::new();
    vps.order("preserve\tmemory.md");
    vps.write("memory.md", "from the old script's days");
    vps.deploy(&[("version", "1"), ("memory.md", "new")]).1.is("unconfirmed", 0);
    assert_eq!(vps.read("memory.md"), "from the old script's days");
}

#[test]
fn p13_removed_modules_go_and_what_others_put_there_stays() {
    let mut vps = Vps::new();
    vps.write("notes/own.txt", "mine");
    vps.deploy(&[("version", "1"), ("pkg/old.py", "o"), ("pkg/edited.py", "e"), ("lone/only.py", "l")])
        .1
        .is("unconfirmed", 0);
    vps.write("pkg/edited.py", "by hand");
    vps.write("lone/__pycache__/only.pyc", "c");
    vps.write("pkg/made.txt", "by the app");
    let (id, done) = vps.deploy(&[("version", "2")]);
    assert!(done.is("unconfirmed", 0).checks.contains("warn\tswitch.left"), "{}", done.checks);
    assert!(!vps.app("pkg/old.py").exists() && !vps.app("lone").exists());
    assert_eq!(
        (vps.read("pkg/edited.py"), vps.read("pkg/made.txt"), vps.read("notes/own.txt")),
        ("by hand".into(), "by the app".into(), "mine".into())
    );
    let backup = vps.path("state/releases").join(id).join("backup/tree");
    assert_eq!(fs::read_to_string(backup.join("pkg/old.py")).unwrap(), "o");
}

#[test]
fn p19_p20_what_fails_after_the_switch_is_put_back_whole() {
    let mut vps = Vps::new();
    vps.order("step\tone\t.\td1\t20\tits profile\tmkdir -p out && cp version out/built")
        .order("output\tone\tout");
    vps.order("preserve\tmemory.md").order("template\tworker@.service\tworker@.service");
    let first = [
        ("version", "1"),
        ("pkg/old.py", "o"),
        ("same.py", "s"),
        ("memory.md", "m"),
        ("worker@.service", "[Unit]\n"),
    ];
    vps.deploy(&first).1.is("unconfirmed", 0);
    assert_eq!(fs::read_to_string(vps.path("units/worker@.service")).unwrap(), "[Unit]\n");
    vps.orders[0] = "step\tone\t.\td2\t20\tits profile\tmkdir -p out && cp version out/built".to_owned();
    fs::write(vps.path("broken"), "2\n").unwrap();
    let (_, done) = vps.deploy(&[
        ("version", "2"),
        ("new/deep/a.py", "n"),
        ("same.py", "s"),
        ("worker@.service", "[Unit]\n# 2\n"),
        ("memory.md", "m2"),
    ]);
    done.is("rolled-back", 33);
    assert_eq!(done.record["serving"], "old");
    assert!(done.log.contains("app.service said last:\njournal of "), "{}", done.log);
    assert_eq!(
        (vps.read("version"), vps.read("pkg/old.py"), vps.read("out/built")),
        ("1".into(), "o".into(), "1".into())
    );
    assert_eq!(vps.read("memory.md"), "m");
    assert!(!vps.app("new").exists());
    assert_eq!(fs::read_to_string(vps.path("units/worker@.service")).unwrap(), "[Unit]\n");
    // The old release counts as the one that serves.
    fs::write(vps.path("broken"), "").unwrap();
    vps.deploy(&[("version", "3"), ("worker@.service", "[Unit]\n")]).1.is("unconfirmed", 0);
    assert!(!vps.app("pkg/old.py").exists());
}

#[test]
fn a_release_that_cannot_be_taken_back_is_broken() {
    let mut vps = Vps::new();
    fs::write(vps.path("broken"), "1\n").unwrap();
    let (_, done) = vps.deploy(&[("version", "1")]);
    done.is("broken", 34);
    assert_eq!(done.record["serving"], "unknown");
    assert!(done.checks.contains("none of its units ran before either"), "{}", done.checks);
}

#[test]
fn a_client_can_have_a_good_release_taken_back() {
    let mut vps = Vps::new();
    vps.deploy(&[("version", "1")]).1.is("unconfirmed", 0);
    let (second, _) = vps.deploy(&[("version", "2")]);
    vps.activate(&second, "restore").1.is("rolled-back", 33);
    assert_eq!(vps.read("version"), "1");
    // Only the newest one: an older one would take a newer one's files away.
    let (third, _) = vps.deploy(&[("version", "3")]);
    vps.deploy(&[("version", "4")]).1.is("unconfirmed", 0);
    let (_, refused) = vps.activate(&third, "restore");
    assert_eq!((refused.code, refused.record["verdict"].as_str()), (1, Some("unconfirmed")));
    assert_eq!(vps.read("version"), "4");
}

#[test]
fn a_release_that_nobody_confirms_stands_or_is_taken_back_as_was_asked() {
    let mut vps = Vps::new();
    let confirm = |vps: &Vps, id: &str| vps.sh("confirm", &[&vps.state(), id, "op@laptop \"x\" \\"]);
    let record = |vps: &Vps, id: &str| -> serde_json::Value {
        let path = vps.path("state/releases").join(id).join("record.json");
        serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
    };
    let (first, done) = vps.deploy(&[("version", "1")]);
    done.is("unconfirmed", 0);
    assert!(!vps.calls("systemd-run").contains("ua-deploy-confirm"), "nobody asked for that");
    assert!(confirm(&vps, &first).status.success());
    assert_eq!(record(&vps, &first)["verdict"], "ok");
    assert_eq!(record(&vps, &first)["detail"], format!("release {first} serves, confirmed by op@laptop x "));
    let history = fs::read_to_string(vps.path("state/history.jsonl")).unwrap();
    assert!(history.ends_with("}\n") && history.contains(r#""verdict":"ok""#), "{history}");
    assert!(confirm(&vps, &first).status.success(), "twice is as good as once");

    vps.order("confirm\t90");
    let (second, done) = vps.deploy(&[("version", "2")]);
    done.is("unconfirmed", 0);
    let timer = format!("--unit=ua-deploy-confirm-{second} --on-active=90");
    assert!(vps.calls("systemd-run").contains(&timer), "{}", vps.calls("systemd-run"));
    vps.activate(&second, "expire").1.is("rolled-back", 33);
    assert_eq!(vps.read("version"), "1");
    assert!(!confirm(&vps, &second).status.success(), "what was taken back does not serve");

    let (overtaken, _) = vps.deploy(&[("version", "3")]);
    let (last, _) = vps.deploy(&[("version", "4")]);
    assert!(!confirm(&vps, &overtaken).status.success(), "an older one cannot be confirmed any more");
    assert!(confirm(&vps, &last).status.success());
    // Timers that come too late: what is confirmed stays, and so does what came after.
    vps.activate(&last, "expire");
    vps.activate(&overtaken, "expire");
    assert_eq!((vps.read("version").as_str(), &record(&vps, &last)["verdict"]), ("4", &"ok".into()));
    // One that has to wait for its turn takes back all the same, whole.
    let (waits, _) = vps.deploy(&[("version", "5")]);
    let work = vps.path("run").join(&waits);
    let held =
        format!("flock '{}/lock' sh -c 'mkdir -p {1}; sleep 1; rm -rf {1}'", vps.state(), work.display());
    let mut holder = Command::new("sh").args(["-c", &held]).spawn().unwrap();
    // It has the lock once this is there.
    while !work.exists() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let (_, done) = vps.activate(&waits, "expire");
    assert_eq!(done.is("rolled-back", 33).record["step"], "confirm");
    holder.wait().unwrap();
    assert!(!work.exists());
    // What nobody can take back later must not be left standing now.
    fs::write(vps.path("bin/systemd-run"), "#!/bin/sh\nexit 1\n").unwrap();
    vps.deploy(&[("version", "6")]).1.is("rolled-back", 33);
    assert_eq!(vps.read("version"), "4");
}

#[test]
fn a_plan_that_another_deploy_overtook_is_void() {
    let mut vps = Vps::new();
    vps.order("after\t-:");
    let (first, done) = vps.deploy(&[("version", "1")]);
    done.is("unconfirmed", 0);
    let (_, done) = vps.deploy(&[("version", "2")]);
    done.is("failed", 30);
    assert!(
        done.checks.contains(&format!(
            "{first} serves now and {first} was put in place last, but this deploy was planned upon -:"
        )),
        "{}",
        done.checks
    );
    assert_eq!(vps.read("version"), "1");
    vps.orders = vec![format!("after\t{first}:{first}")];
    vps.deploy(&[("version", "3")]).1.is("unconfirmed", 0);
}

#[test]
fn drift_is_what_others_changed_and_not_what_the_server_writes() {
    let mut vps = Vps::new();
    vps.order("preserve\tmemory.md").order("unit\tsecond.service");
    let files = [
        ("version", "1"),
        ("a b.py", "a"),
        ("gone.py", "g"),
        ("memory.md", "m"),
        ("link", "->version"),
        ("l2", "->a"),
    ];
    let (id, _) = vps.deploy(&files);
    let units = "unit\tsecond.service\tactive\nunit\tapp.service\tactive\n".to_owned();
    let drift = |vps: &Vps| {
        let output = vps.sh("drift", &[&vps.state(), &id]);
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        text.strip_suffix(&units).unwrap_or_else(|| panic!("{text}")).to_owned()
    };
    assert_eq!(drift(&vps), "");
    vps.write("memory.md", "the server wrote");
    vps.write("a b.py", "hot fix");
    vps.write("new.py", "not ours");
    fs::remove_file(vps.app("gone.py")).unwrap();
    fs::remove_file(vps.app("l2")).unwrap();
    // Opening it would wait for ever.
    assert!(Command::new("mkfifo").arg(vps.app("gone.py")).status().unwrap().success());
    assert_eq!(drift(&vps), "gone.py\nl2\na b.py\n");
    // Units may be down, which the files do not show.
    fs::remove_file(vps.path("start.second.service")).unwrap();
    let told = String::from_utf8(vps.sh("drift", &[&vps.state(), &id]).stdout).unwrap();
    assert!(told.ends_with("unit\tsecond.service\tinactive\nunit\tapp.service\tactive\n"), "{told}");
    // What cannot be compared is not without a difference.
    fs::remove_file(vps.path("state/releases").join(&id).join("orders")).unwrap();
    let output = vps.sh("drift", &[&vps.state(), &id]);
    assert_eq!((output.status.code(), output.stdout), (Some(1), Vec::new()));
    assert!(String::from_utf8_lossy(&output.stderr).contains("has no lists any more"), "{:?}", output.stderr);
}

#[test]
fn a_deploy_settles_what_was_pushed_and_one_that_is_taken_back_does_not() {
    let mut vps = Vps::new();
    vps.order("preserve\tmemory.md");
    let files = [("version", "1"), ("a.py", "a"), ("memory.md", "m")];
    vps.deploy(&files).1.is("unconfirmed", 0);
    assert!(vps.open_pushes().is_empty());
    vps.push(
        "p1",
        &[("a.py", "pushed"), ("sub/extra.py", "extra"), ("memory.md", "pushed"), ("edited.py", "e")],
    );
    vps.push("p2", &[("a.py", "pushed again")]);
    vps.write("edited.py", "edited on the server since");
    assert_eq!(vps.open_pushes(), ["p1", "p2"]);

    // One that fails puts back what was pushed, and it is still named.
    fs::write(vps.path("broken"), "2\n").unwrap();
    let (_, record) = vps.deploy(&[("version", "2"), ("a.py", "b"), ("memory.md", "m")]);
    record.is("rolled-back", 33);
    assert_eq!((vps.read("a.py").as_str(), vps.read("sub/extra.py").as_str()), ("pushed again", "extra"));
    assert_eq!((vps.read("memory.md").as_str(), vps.open_pushes().len()), ("pushed", 2));

    // One that serves settles it: what it has is overwritten, what it has not is gone, unless somebody changed it.
    let (_, record) = vps.deploy(&[("version", "3"), ("a.py", "c"), ("memory.md", "m")]);
    record.is("unconfirmed", 0);
    assert_eq!((vps.read("a.py").as_str(), vps.read("memory.md").as_str()), ("c", "m"));
    assert!(!vps.app("sub").exists() && vps.read("edited.py") == "edited on the server since");
    assert!(record.checks.contains("switch.left") && vps.open_pushes().is_empty(), "{}", record.checks);
    vps.push("p3", &[("a.py", "pushed")]);
    assert_eq!(vps.open_pushes(), ["p3"]);

    // Taken back afterwards, it has settled nothing.
    let (later, record) = vps.deploy(&[("version", "4"), ("a.py", "d"), ("memory.md", "m")]);
    record.is("unconfirmed", 0);
    assert!(vps.open_pushes().is_empty());
    vps.activate(&later, "restore").1.is("rolled-back", 33);
    assert_eq!((vps.read("a.py").as_str(), vps.open_pushes()), ("pushed", vec!["p3".to_owned()]));
}

#[test]
fn a_push_that_came_after_the_plan_makes_it_void() {
    let mut vps = Vps::new();
    vps.deploy(&[("version", "1")]).1.is("unconfirmed", 0);
    vps.order("pushed\t");
    vps.push("p1", &[("extra.py", "extra")]);
    let (_, record) = vps.deploy(&[("version", "2")]);
    record.is("failed", 30);
    assert!(record.checks.contains("push p1 came after this deploy was planned"), "{}", record.checks);
    assert_eq!((vps.read("version").as_str(), vps.read("extra.py").as_str()), ("1", "extra"));
}

#[test]
fn p21_the_lock_names_its_holder() {
    let mut vps = Vps::new();
    vps.deploy(&[("version", "1")]).1.is("unconfirmed", 0);
    let mut holder = Command::new("flock")
        .arg(vps.path("state/lock"))
        .args(["sh", "-c", "echo held; read wait"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut held = [0; 5];
    std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut held).unwrap();
    fs::write(vps.path("state/lock"), "ua-deploy forward X, since Y\n").unwrap();
    let begun = vps.sh("begin", &[&vps.state(), "20260109T000000Z-c", "c", "{}"]);
    assert_eq!(begun.status.code(), Some(30));
    assert_eq!(String::from_utf8_lossy(&begun.stdout), "ua-deploy forward X, since Y\n");
    assert!(!vps.path("state/releases/20260109T000000Z-c").exists());
    drop(holder.stdin.take());
    holder.wait().unwrap();
}

#[test]
fn p31_every_process_must_run_the_commit() {
    let mut vps = Vps::new();
    vps.order("version\tapi\tapp.service\tversion\thttp://127.0.0.1:1/version\tmust\t2")
        .order("health\tapi\t200\thttp://127.0.0.1:1/\tapp.service\t2");
    vps.deploy(&[("version", "1"), ("answer", r#"{"build":"x","version":"commit1"}"#)])
        .1
        .is("unconfirmed", 0);
    assert!(vps.calls("curl").contains("--max-time 5 "), "p28: {}", vps.calls("curl"));
    // The commit stands in the answer, but not where the version does.
    let (_, done) = vps.deploy(&[("version", "2"), ("answer", r#"{"build":"commit2","version":"commit1"}"#)]);
    done.is("rolled-back", 33);
    assert!(done.checks.contains("api runs commit1, not commit2"), "{}", done.checks);
}

/// A VPS with a worker, `worker.service`, whose database has the columns that the real one needs for this.
fn with_worker() -> Vps {
    let mut vps = Vps::new();
    sql(
        &vps,
        "PRAGMA journal_mode = WAL;
         CREATE TABLE vp_sessions (vp_id PRIMARY KEY, status, lease_owner, updated_at, expires, renewed);
         CREATE TABLE vp_missions (mission_id PRIMARY KEY, vp_id, status, worker_id, updated_at);",
    );
    // Each process of the worker writes a name of its own, and takes the lease, which makes it active.
    let starts = "
        sqlite3 -cmd '.timeout 5000' \"$ROOT/vp.db\" \"SELECT count(*) FROM vp_missions WHERE status = 'running'\" >>\"$ROOT/interrupted\"
        says=\"REPLACE INTO vp_sessions VALUES ('vp.a', 'active', 'vp.a.worker.$(wc -l <\"$ROOT/restarts\")', datetime('now'), datetime('now', '120 seconds'), datetime('now'))\"
        says=$(cat \"$ROOT/says.$(cat \"$ROOT/app/version\")\" 2>/dev/null || echo \"$says\")
        until sqlite3 -cmd '.timeout 5000' \"$ROOT/vp.db\" \"$says\"; do sleep 0.1; done \
            >/dev/null 2>&1 7<&- 9<&- &\n";
    let text = SYSTEMCTL.replace(
        "[ ! -e \"$ROOT/app/on-restart\" ]",
        &format!("case $* in *worker.service*) {starts} ;; esac\n        [ ! -e \"$ROOT/app/on-restart\" ]"),
    );
    fs::write(vps.path("bin/systemctl"), text).unwrap();
    let database = format!("workers_database\t{}", vps.path("vp.db").display());
    for order in [
        "unit\tworker.service",
        &database,
        "workers_sessions\tvp_sessions\tvp_id\tstatus\tlease_owner",
        "workers_ready\tidle,active",
        "workers_lease\texpires\trenewed",
        "workers_missions\tvp_missions\tmission_id\tstatus\tworker_id",
        "workers_busy\trunning",
        "session\tvp.a\tworker.service\t2",
    ] {
        vps.order(order);
    }
    vps
}

fn sql(vps: &Vps, sql: &str) -> String {
    let done = Command::new("sqlite3")
        .args(["-cmd", ".timeout 5000"])
        .arg(vps.path("vp.db"))
        .arg(sql)
        .output()
        .unwrap();
    assert!(done.status.success(), "{done:?}");
    String::from_utf8(done.stdout).unwrap().trim().to_owned()
}

impl Vps {
    fn patience(&mut self, seconds: u32) {
        self.orders.retain(|order| !order.starts_with("drain_timeout"));
        self.order(&format!("drain_timeout\t{seconds}"));
    }

    /// The worker claims a mission; all times are of long ago.
    fn claim(&self, mission: &str, worker: &str) {
        sql(
            self,
            &format!(
                "INSERT INTO vp_missions VALUES ('{mission}', 'vp.a', 'running', '{worker}', datetime('now', '-1 hour'))"
            ),
        );
    }

    /// What the worker calls itself.
    fn owner(&self) -> String {
        sql(self, "SELECT lease_owner FROM vp_sessions")
    }

    /// How many missions were running at each restart of the worker.
    fn interrupted(&self) -> String {
        fs::read_to_string(self.path("interrupted")).unwrap_or_default().replace('\n', "")
    }

    /// Ends all missions once the log of the next deploy says that they are waited for.
    fn end_missions_when_waited_for(&self) -> std::thread::JoinHandle<()> {
        let id = format!("2026010{}T000000Z-c", self.deploys + 1);
        let (database, log) = (self.path("vp.db"), self.path("state/releases").join(id).join("log"));
        std::thread::spawn(move || {
            while !fs::read_to_string(&log).is_ok_and(|log| log.contains("== waiting for vp.a")) {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            let end = "UPDATE vp_missions SET status = 'completed'";
            let end = Command::new("sqlite3").args(["-cmd", ".timeout 5000"]).arg(database).arg(end).status();
            assert!(end.unwrap().success());
        })
    }

    /// Files beside the database.
    fn beside_the_database(&self) -> Vec<String> {
        let names = fs::read_dir(self.root.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let names = names.map(|name| name.to_string_lossy().into_owned());
        let mut names: Vec<String> = names.filter(|name| name.starts_with("vp.db")).collect();
        names.sort();
        names
    }
}

#[test]
fn p36_running_mission_delays_restart() {
    let mut vps = with_worker();
    vps.patience(2);
    vps.deploy(&[("version", "1")]).1.is("unconfirmed", 0);
    // An idle worker is `active`. One with a mission may be called `idle`, and nothing renews its rows.
    vps.claim("m1", &vps.owner());
    sql(&vps, "UPDATE vp_sessions SET status = 'idle', updated_at = datetime('now', '-1 hour')");
    let (_, done) = vps.deploy(&[("version", "2")]);
    assert!(
        done.is("failed", 31).checks.contains("still busy after 2 s: vp.a (mission m1)"),
        "{}",
        done.checks
    );
    assert_eq!((vps.read("version").as_str(), vps.interrupted().as_str()), ("1", "0"));
    vps.patience(60);
    let end = vps.end_missions_when_waited_for();
    let (_, done) = vps.deploy(&[("version", "3")]);
    end.join().unwrap();
    assert!(done.is("unconfirmed", 0).checks.contains("pass\tdrain"), "{}", done.checks);
    assert_eq!(vps.interrupted(), "00");
}

#[test]
fn p36_expired_lease_of_live_worker_delays_restart() {
    let mut vps = with_worker();
    vps.patience(1);
    vps.deploy(&[("version", "1")]).1.is("unconfirmed", 0);
    // Another process ended the mission in the table, and the worker is still at it.
    vps.claim("m1", &vps.owner());
    sql(&vps, "UPDATE vp_missions SET status = 'failed'");
    let iso = |offset: &str| format!("strftime('%Y-%m-%dT%H:%M:%f+00:00', 'now', '{offset}')");
    let lease = |expires, renewed| {
        format!("UPDATE vp_sessions SET expires = {}, renewed = {}", iso(expires), iso(renewed))
    };
    std::thread::sleep(std::time::Duration::from_millis(3100));
    sql(&vps, &lease("-1 seconds", "-2 seconds"));
    let (_, done) = vps.deploy(&[("version", "2")]);
    let said = "still busy after 1 s: vp.a (has not renewed its lease for ";
    assert!(done.is("failed", 31).checks.contains(said), "{}", done.checks);
    // A lease of the process before says nothing of the one that starts.
    sql(&vps, &lease("-1 hours", "-2 hours"));
    vps.deploy(&[("version", "3")]).1.is("unconfirmed", 0);
    sql(&vps, &lease("60 seconds", "-2 seconds"));
    vps.deploy(&[("version", "4")]).1.is("unconfirmed", 0);
}

#[test]
fn p36_mission_of_dead_worker_delays_nothing() {
    let mut vps = with_worker();
    vps.patience(1);
    vps.deploy(&[("version", "1")]).1.is("unconfirmed", 0);
    vps.claim("m0", "vp.a.worker.of.before");
    vps.deploy(&[("version", "2")]).1.is("unconfirmed", 0);
    // The same where its session still names it, but its unit has no process any more.
    vps.claim("m1", &vps.owner());
    let pid = fs::read_to_string(vps.path("pid.worker.service")).unwrap();
    assert!(Command::new("kill").arg(pid.trim()).status().unwrap().success());
    fs::remove_file(vps.path("pid.worker.service")).unwrap();
    vps.deploy(&[("version", "3")]).1.is("unconfirmed", 0);
}

#[test]
fn p36_unreadable_missions_delay_restart() {
    let mut vps = with_worker();
    vps.patience(1);
    vps.deploy(&[("version", "1")]).1.is("unconfirmed", 0);
    sql(&vps, "DROP TABLE vp_missions");
    let (_, done) = vps.deploy(&[("version", "2")]);
    let said = "still busy after 1 s: vp.a (its missions could not be read: ";
    assert!(done.is("failed", 31).checks.contains(said), "{}", done.checks);
    assert!(done.checks.contains("no such table: vp_missions"), "{}", done.checks);
}

#[test]
fn p36_forced_restart_names_the_mission() {
    let mut vps = with_worker();
    vps.patience(0);
    vps.deploy(&[("version", "1")]).1.is("unconfirmed", 0);
    vps.claim("m1", &vps.owner());
    let (_, done) = vps.deploy(&[("version", "2")]);
    assert!(done.is("unconfirmed", 0).checks.contains("warn\tdrain"), "{}", done.checks);
    assert!(done.checks.contains("as was asked: vp.a (mission m1)"), "{}", done.checks);
}

/// Has the worker claim a mission after the deploy saw it free, and before it is restarted.
fn claims_late(vps: &mut Vps) {
    vps.order("watchdog\twatchdog.timer");
    let text = fs::read_to_string(vps.path("bin/systemctl")).unwrap();
    let claim = "
    stop)
        sqlite3 -cmd '.timeout 5000' \"$ROOT/vp.db\" \"INSERT INTO vp_missions
            SELECT 'late', vp_id, 'running', lease_owner, '' FROM vp_sessions
            WHERE NOT EXISTS (SELECT 1 FROM vp_missions)\"
        ;;
    show)";
    fs::write(vps.path("bin/systemctl"), text.replacen("\n    show)", claim, 1)).unwrap();
}

#[test]
fn p36_mission_claimed_after_drain_is_not_killed() {
    let mut vps = with_worker();
    vps.patience(60);
    vps.deploy(&[("version", "1")]).1.is("unconfirmed", 0);
    claims_late(&mut vps);
    let end = vps.end_missions_when_waited_for();
    vps.deploy(&[("version", "2")]).1.is("unconfirmed", 0);
    end.join().unwrap();
    assert_eq!((vps.read("version").as_str(), vps.interrupted().as_str()), ("2", "00"));
}

#[test]
fn p36_mission_claimed_late_ends_the_release() {
    let mut vps = with_worker();
    vps.patience(1);
    vps.deploy(&[("version", "1")]).1.is("unconfirmed", 0);
    claims_late(&mut vps);
    let owner = vps.owner();
    let (_, done) = vps.deploy(&[("version", "2")]);
    assert!(done.is("rolled-back", 33).checks.contains("still busy after 1 s: vp.a (mission late)"));
    // The worker was not touched, and goes on with its mission.
    assert_eq!((vps.read("version").as_str(), vps.interrupted().as_str()), ("1", "0"));
    assert_eq!(vps.owner(), owner);
}

#[test]
fn workers_database_gains_no_files() {
    let mut vps = with_worker();
    vps.patience(2);
    vps.deploy(&[("version", "1")]).1.is("unconfirmed", 0);
    assert_eq!(vps.beside_the_database(), ["vp.db"]);
    vps.claim("m1", &vps.owner());
    assert_eq!(vps.beside_the_database(), ["vp.db"]);
    vps.deploy(&[("version", "2")]).1.is("failed", 31);
    assert_eq!(vps.beside_the_database(), ["vp.db"], "read while nobody has it open");
    // A process was killed with it open: what it wrote last stands in its log alone.
    let script = "import os, sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute(\"UPDATE vp_missions SET mission_id = 'm2'\")
os.kill(os.getpid(), 9)";
    let killed = Command::new("python3").args(["-c", script]).arg(vps.path("vp.db")).status().unwrap();
    assert!(!killed.success());
    fs::remove_file(vps.path("vp.db-shm")).unwrap();
    let log = fs::read(vps.path("vp.db-wal")).unwrap();
    let (_, done) = vps.deploy(&[("version", "3")]);
    assert!(done.is("failed", 31).checks.contains("vp.a (mission m2)"), "{}", done.checks);
    assert_eq!(vps.beside_the_database(), ["vp.db", "vp.db-wal"]);
    assert_eq!(fs::read(vps.path("vp.db-wal")).unwrap(), log);
}

#[test]
fn p23_p33_every_unit_that_fails_is_told_with_what_it_said() {
    let mut vps = Vps::new();
    vps.order("unit\tsecond.service").order("unit\tthird.service");
    vps.deploy(&[("version", "1")]).1.is("unconfirmed", 0);
    fs::write(vps.path("broken"), "2\n").unwrap();
    let (_, done) = vps.deploy(&[("version", "2")]);
    done.is("rolled-back", 33);
    for unit in ["app", "second", "third"] {
        let told = format!("{unit}.service said last:\njournal of ");
        assert!(done.log.contains(&told), "{unit}: {}", done.log);
        assert!(done.checks.contains(&format!("{unit} (activating/x)")), "{unit}: {}", done.checks);
    }
}

#[test]
fn only_the_unit_that_is_not_healthy_is_told_with_what_it_said() {
    let mut vps = Vps::new();
    vps.order("unit\tsecond.service").order("unit\tsilent.service");
    for (name, unit) in [("api", "second"), ("web", "silent"), ("app", "app")] {
        vps.order(&format!(
            "version\t{name}\t{unit}.service\tversion\thttp://127.0.0.1:1/{name}/version\tmust\t2"
        ));
    }
    // The second release runs, but for the health of two units, and of one that is of no unit.
    let curl = r#"#!/bin/sh
for arg in "$@"; do
    [ "$before" != --output ] || body=$arg
    before=$arg
done
version=$(cat "$ROOT/app/version")
printf '{"version":"commit%s"}' "$version" >"$body"
case $version:$* in
    2:*/ill) printf 500 ;;
    *) printf 200 ;;
esac
"#;
    fs::write(vps.path("bin/curl"), curl).unwrap();
    for (name, path) in [("api", "ill"), ("web", "ill"), ("other", "ill"), ("app", "well")] {
        let unit = match name {
            "api" => "second.service",
            "web" => "silent.service",
            "app" => "app.service",
            _ => "-",
        };
        vps.order(&format!("health\t{name}\t200\thttp://127.0.0.1:1/{name}/{path}\t{unit}\t2"));
    }
    let journal = "#!/bin/sh\ncase $* in *silent*) ;; *) echo \"journal of $*\" ;; esac\n";
    fs::write(vps.path("bin/journalctl"), journal).unwrap();
    vps.deploy(&[("version", "1")]).1.is("unconfirmed", 0);
    let (_, done) = vps.deploy(&[("version", "2")]);
    assert!(done.is("rolled-back", 33).checks.contains("other answers 500 at"), "{}", done.checks);
    let told = |line: &&str| line.contains("said last") || line.contains("journal of");
    let lines: Vec<&str> = done.log.lines().filter(told).collect();
    assert_eq!(lines.len(), 2, "{}", done.log);
    assert_eq!(lines[0], "second.service said last:");
    assert!(lines[1].contains("--unit=second.service"), "{lines:?}");
}

#[test]
fn p25_an_answer_that_comes_late_is_asked_for_again() {
    let mut vps = Vps::new();
    vps.order("health\tapi\t200\thttp://127.0.0.1:1/\tapp.service\t2");
    fs::write(vps.path("curl.late"), "2\n").unwrap();
    vps.deploy(&[("version", "1"), ("answer", "{}")]).1.is("unconfirmed", 0);
    let asked = vps.calls("curl").lines().filter(|line| !line.contains("/before/")).count();
    assert_eq!(asked, 2, "{}", vps.calls("curl"));
}

#[test]
fn p29_an_answer_of_before_is_not_taken_for_one_of_now() {
    let mut vps = Vps::new();
    vps.order("version\tapi\tapp.service\tversion\thttp://127.0.0.1:1/version\tmust\t2");
    vps.deploy(&[("version", "1"), ("answer", r#"{"version":"commit1"}"#)]).1.is("unconfirmed", 0);
    // Where nobody answers any more, nothing of an earlier answer is left to be read.
    let (_, done) = vps.deploy(&[("version", "2")]);
    done.is("rolled-back", 33);
    assert!(done.checks.contains("api runs an unknown version, not commit2"), "{}", done.checks);
}

#[test]
fn version_endpoint_is_held_to_its_duty() {
    for (duty, answer, verdict, code) in [
        ("must", r#"{"version":"commit2"}"#, "unconfirmed", 0),
        ("must", r#"{"version":"commit1"}"#, "rolled-back", 33),
        ("must", r#"{"version":null}"#, "rolled-back", 33),
        ("silent", r#"{"version":null}"#, "unconfirmed", 0),
        ("silent", r#"{"version":"commit1"}"#, "rolled-back", 33),
        ("any", r#"{"version":null}"#, "unconfirmed", 0),
        ("any", r#"{"version":"commit1"}"#, "unconfirmed", 0),
    ] {
        let mut vps = Vps::new();
        vps.order(&format!("version\tapi\tapp.service\tversion\thttp://127.0.0.1:1/version\t{duty}\t1"));
        vps.deploy(&[("version", "1"), ("answer", r#"{"version":"commit1"}"#)]).1.is("unconfirmed", 0);
        let (_, done) = vps.deploy(&[("version", "2"), ("answer", answer)]);
        done.is(verdict, code);
        let other = "warn\tversions";
        let told = done.checks.contains(other) && done.checks.contains("api runs commit1, not commit2");
        assert_eq!(told, duty == "any" && answer.contains("commit1"), "{duty} {answer}: {}", done.checks);
    }
}

#[test]
fn health_has_its_own_limit() {
    let mut vps = Vps::new();
    vps.order("health\tapi\t200\thttp://127.0.0.1:1/\tapp.service\t20");
    vps.order("health\tweb\t200\thttp://127.0.0.1:1/\tapp.service\t20");
    // Longer than the two seconds that a unit may take to come up.
    let slow = "(sleep 4; echo '{}' >\"$ROOT/app/answer\") >/dev/null 2>&1 7<&- 9<&- &\n";
    vps.deploy(&[("version", "1"), ("on-restart", slow)]).1.is("unconfirmed", 0);
    fs::remove_file(vps.app("answer")).unwrap();
    vps.orders.retain(|order| !order.starts_with("health\tapi"));
    vps.order("health\tapi\t200\thttp://127.0.0.1:1/\tapp.service\t1");
    let (_, done) = vps.deploy(&[("version", "2"), ("on-restart", "")]);
    assert!(
        done.checks.contains("fail\thealth") && done.checks.contains("api answers 404"),
        "{}",
        done.checks
    );
}

#[test]
fn process_that_ends_again_is_not_waited_for() {
    let mut vps = Vps::new();
    vps.order("health\tapi\t200\thttp://127.0.0.1:1/\tapp.service\t60");
    vps.deploy(&[("version", "1"), ("answer", "{}"), ("on-restart", "")]).1.is("unconfirmed", 0);
    // It comes up, and ends in the middle of its imports.
    let ends = "case $(cat \"$ROOT/app/version\") in 2) (sleep 2; echo 1 >\"$ROOT/crashed\") >/dev/null 2>&1 7<&- 9<&- & ;; *) rm -f \"$ROOT/crashed\" ;; esac\n";
    let counted = "NRestarts=$(cat \"$ROOT/crashed\" 2>/dev/null || echo 0)";
    let text = fs::read_to_string(vps.path("bin/systemctl")).unwrap();
    let text = text.replace("NRestarts=0\\n' \\", "NRestarts=%s\\n' \\").replace(
        "\"$(cat \"$ROOT/pid.$unit\" 2>/dev/null || echo 0)\"",
        &format!(
            "\"$(cat \"$ROOT/pid.$unit\" 2>/dev/null || echo 0)\" \"{}\"",
            &counted["NRestarts=".len()..]
        ),
    );
    fs::write(vps.path("bin/systemctl"), text).unwrap();
    fs::remove_file(vps.app("answer")).unwrap();
    let start = std::time::Instant::now();
    vps.rest = String::new();
    let (_, done) = vps.deploy(&[("version", "2"), ("on-restart", ends)]);
    assert!(done.checks.contains("app ended again after it was up"), "{}\n{}", done.log, done.checks);
    assert!(start.elapsed().as_secs() < 50, "{:?}", start.elapsed());
}

#[test]
fn process_with_old_file_open_is_not_the_release() {
    let mut vps = Vps::new();
    vps.order("output\tone\tbuilt");
    fs::create_dir(vps.app("logs")).unwrap();
    fs::create_dir(vps.app("built")).unwrap();
    for file in ["logs/today", "built/lib.so"] {
        vps.write(file, "old");
    }
    vps.deploy(&[("version", "1"), ("module", "1")]).1.is("unconfirmed", 0);
    let fresh = |file: &str| format!("echo new >\"$ROOT/new\" && mv \"$ROOT/new\" \"$ROOT/app/{file}\"\n");
    for (held, replaced, right) in [
        // A log that was rotated, and a file that is as it was put there.
        (vps.app("logs/today"), fresh("logs/today"), true),
        (vps.app("module"), String::new(), true),
        (vps.app("module"), fresh("module"), false),
        (vps.app("built/lib.so"), fresh("built/lib.so"), false),
        (vps.path("state/releases/20260101T000000Z-c/record.json"), String::new(), false),
    ] {
        fs::write(vps.path("holds"), held.display().to_string()).unwrap();
        // Drift that the plan saw.
        let (_, done) = vps.deploy(&[("version", "2"), ("module", "2"), ("on-restart", &replaced)]);
        let told = done.checks.contains("has open what is not there any more: ");
        assert_eq!(told, !right, "{}: {}\n{}", held.display(), done.checks, done.log);
        fs::remove_file(vps.path("holds")).unwrap();
        fs::write(vps.app("module"), "2").unwrap();
    }
}

#[test]
fn way_back_is_judged_by_what_was_before() {
    let mut vps = with_worker();
    vps.patience(1);
    vps.order("health\tapi\t200\thttp://127.0.0.1:1/\tapp.service\t1");
    vps.deploy(&[("version", "1"), ("answer", "{}")]).1.is("unconfirmed", 0);
    // Both went bad since, and stay so.
    let text = fs::read_to_string(vps.path("bin/systemctl")).unwrap();
    fs::write(vps.path("bin/systemctl"), text.replace("'vp.a', 'active'", "'vp.a', 'degraded'")).unwrap();
    sql(&vps, "UPDATE vp_sessions SET status = 'degraded'");
    fs::remove_file(vps.app("answer")).unwrap();
    fs::write(vps.path("broken"), "2\n").unwrap();
    let (_, done) = vps.deploy(&[("version", "2")]);
    assert!(done.is("rolled-back", 33).checks.contains("warn\trestore.before"), "{}", done.checks);
    for what in ["api answers 404", "vp.a is degraded"] {
        assert!(done.checks.contains(what), "{what}: {}", done.checks);
    }
}

#[test]
fn fault_of_untouched_unit_is_no_fault_of_release() {
    let mut vps = Vps::new();
    vps.order("unit\tother.service").order("health\tother\t200\thttp://127.0.0.1:1/\tother.service\t1");
    vps.deploy(&[("version", "1"), ("answer", "{}")]).1.is("unconfirmed", 0);
    fs::remove_file(vps.app("answer")).unwrap();
    vps.order("restart\tapp.service");
    let (_, done) = vps.deploy(&[("version", "2")]);
    let said = "as before this deploy, which did not restart it: other answers 404";
    assert!(done.is("unconfirmed", 0).checks.contains(said), "{}", done.checks);
    // What it does restart has to be right.
    vps.orders.retain(|order| !order.starts_with("restart"));
    let (_, done) = vps.deploy(&[("version", "3")]);
    assert!(done.is("rolled-back", 33).checks.contains("other answers 404"), "{}", done.checks);
}

#[test]
fn p37_root_runs_nothing_that_the_owner_can_write() {
    let mut vps = Vps::new();
    vps.order("step\tone\t.\td1\t20\tits profile\ttouch out").order("output\tone\tout");
    let (id, done) = vps.deploy(&[("version", "1"), ("on-restart", "")]);
    done.is("unconfirmed", 0);
    let calls = vps.calls("systemd-run");
    // The build is the owner's, and can become nobody else.
    assert!(
        calls.contains("--property=User=") && calls.contains("--property=NoNewPrivileges=yes"),
        "{calls}"
    );
    // What root runs lies where nobody else can write.
    for path in ["state", "state/releases"] {
        assert_eq!(mode(&vps.path(path)), 0o700, "{path}");
    }
    for file in ["log", "record.json", "orders", "manifest"] {
        let mode = mode(&vps.path("state/releases").join(&id).join(file));
        assert_eq!(mode & 0o022, 0, "{file}: {mode:o}");
    }
}

/// Whatever a deploy needs and does not find is exit 31 with the command; it fetches nothing by itself, and changes no
/// lock file.
#[test]
fn p49_p50_nothing_is_installed() {
    for (name, text) in SCRIPTS {
        for word in ["apt", "pip ", "npm ", "uv ", "wget", "git "] {
            let code = text.lines().filter(|line| !line.trim_start().starts_with('#'));
            assert!(!code.clone().any(|line| line.contains(word)), "{name} has `{word}`");
        }
    }
    let profile = include_str!("../../ua-common/profiles/universal-agent.toml");
    let runs: Vec<&str> = profile.lines().filter(|line| line.starts_with("run = ")).collect();
    assert_eq!(
        runs,
        ["run = \"uv sync --frozen\"", "run = \"npm ci --no-audit --no-fund && npm run build\""]
    );
}

#[test]
fn p32_session_row_of_old_process_is_not_ready() {
    let mut vps = with_worker();
    vps.patience(1);
    vps.deploy(&[("version", "1")]).1.is("unconfirmed", 0);
    for (writes, said) in [
        // The dispatcher wrote to the row, but not the new process.
        (
            "UPDATE vp_sessions SET status = 'idle', updated_at = datetime('now')",
            "has not said anything since its restart",
        ),
        ("UPDATE vp_sessions SET lease_owner = NULL", "has not said anything since its restart"),
        ("UPDATE vp_sessions SET lease_owner = 'new', status = 'degraded'", "is degraded"),
        ("DELETE FROM vp_sessions", "has no row"),
    ] {
        // The release that is put back has a good worker again.
        fs::write(vps.path("says.2"), writes).unwrap();
        let (_, done) = vps.deploy(&[("version", "2")]);
        assert!(
            done.is("rolled-back", 33).checks.contains(&format!("vp.a {said}")),
            "{writes}: {}",
            done.checks
        );
    }
}

#[test]
fn p40_no_link_leads_root_out_of_the_app() {
    let mut vps = Vps::new();
    vps.order("step\tone\t.\td1\t20\tits profile\tmkdir -p web/out && echo new >web/out/x")
        .order("output\tone\tweb/out");
    let outside = vps.path("outside");
    fs::create_dir_all(outside.join("out")).unwrap();
    for file in ["a.py", "old.py"] {
        fs::write(outside.join(file), "theirs").unwrap();
    }
    vps.deploy(&[("version", "1"), ("src/old.py", "theirs"), ("lib/old.py", "theirs"), ("web/w", "w")])
        .1
        .is("unconfirmed", 0);
    let untouched = |record: &Record| {
        for file in ["a.py", "old.py"] {
            assert_eq!(fs::read_to_string(outside.join(file)).unwrap(), "theirs", "{}", record.log);
        }
        assert!(!outside.join("out/x").exists() && !outside.join("w").exists(), "{}", record.log);
    };
    // The service user puts links where directories were: one that the next commit has, one that it lacks, and one
    // that only the build makes.
    for dir in ["src", "lib", "web"] {
        fs::remove_dir_all(vps.app(dir)).unwrap();
        symlink(&outside, vps.app(dir)).unwrap();
    }
    vps.orders[0] = vps.orders[0].replace("d1", "d2");
    let (_, done) = vps.deploy(&[("version", "2"), ("src/a.py", "ours"), ("web/w", "w2")]);
    untouched(done.is("unconfirmed", 0));
    assert_eq!((vps.read("src/a.py"), vps.read("web/out/x")), ("ours".into(), "new\n".into()));
    symlink(&outside, vps.app("cache")).unwrap();
    vps.order("step\ttwo\t.\td1\t20\tits profile\tmkdir -p cache/out && echo new >cache/out/x")
        .order("output\ttwo\tcache/out");
    let (_, done) = vps.deploy(&[("version", "3"), ("src/a.py", "ours")]);
    untouched(done.is("rolled-back", 33));
    assert_eq!(vps.read("version"), "2");
}

#[test]
fn p40_a_link_that_a_build_makes_is_not_followed_either() {
    let outside_of = |vps: &Vps| {
        fs::create_dir_all(vps.path("outside/out")).unwrap();
        fs::write(vps.path("outside/out/x"), "theirs").unwrap();
        vps.path("outside")
    };
    for (output, step) in [("web/out", "rm -rf web && ln -s {} web"), ("out", "ln -s {}/out out")] {
        let mut vps = Vps::new();
        let outside = outside_of(&vps);
        vps.deploy(&[("version", "1"), ("web/w", "w")]).1.is("unconfirmed", 0);
        let step = step.replace("{}", &outside.display().to_string());
        vps.order(&format!("step\tone\t.\td1\t20\tits profile\t{step}"))
            .order(&format!("output\tone\t{output}"));
        let (_, done) = vps.deploy(&[("version", "2"), ("web/w", "w")]);
        assert!(done.is("failed", 1).checks.contains("put a link in its way"), "{}", done.checks);
        assert_eq!(fs::read_to_string(outside.join("out/x")).unwrap(), "theirs", "{}", done.log);
        assert_eq!(vps.read("version"), "1");
    }
}

#[test]
fn an_output_that_could_not_be_moved_is_not_lost_on_the_way_back() {
    let mut vps = Vps::new();
    vps.order("step\tone\t.\td1\t20\tits profile\techo one >out").order("output\tone\tout");
    vps.deploy(&[("version", "1")]).1.is("unconfirmed", 0);
    let mv = "#!/bin/sh\ncase \"$*\" in *backup/outputs/*) exit 1 ;; esac\nexec /usr/bin/mv \"$@\"\n";
    fs::write(vps.path("bin/mv"), mv).unwrap();
    fs::set_permissions(vps.path("bin/mv"), fs::Permissions::from_mode(0o755)).unwrap();
    vps.orders[0] = "step\tone\t.\td2\t20\tits profile\techo two >out".to_owned();
    vps.deploy(&[("version", "2")]).1.is("rolled-back", 33);
    assert_eq!((vps.read("out"), vps.read("version")), ("one\n".into(), "1".into()));
}

#[test]
fn the_watchdog_is_held_off_on_the_way_back_too() {
    let mut vps = Vps::new();
    vps.order("watchdog\tdog.timer");
    vps.deploy(&[("version", "1")]).1.is("unconfirmed", 0);
    let (second, _) = vps.deploy(&[("version", "2")]);
    let stops = |vps: &Vps| vps.calls("systemctl").matches("stop dog.timer").count();
    let before = stops(&vps);
    vps.activate(&second, "restore").1.is("rolled-back", 33);
    assert_eq!(stops(&vps), before + 1);
}

#[test]
fn an_empty_answer_of_systemd_is_not_the_end_of_a_unit() {
    let mut vps = Vps::new();
    let (id, _) = vps.deploy(&[("version", "1")]);
    let systemctl = r#"#!/bin/sh
echo x >>"$ROOT/asked"
case $(wc -l <"$ROOT/asked") in
    1) echo active ;;
    2 | 3) exit 1 ;;
    4) echo late >>"$ROOT/state/releases/ID/log"; echo active ;;
    *) echo inactive ;;
esac
"#;
    fs::write(vps.path("bin/systemctl"), systemctl.replace("ID", &id)).unwrap();
    let told = String::from_utf8(vps.sh("follow", &[&vps.state(), &id, "forward"]).stdout).unwrap();
    assert!(told.contains("l late\n") && told.contains("\nr {"), "{told}");
}

#[test]
fn what_was_written_before_anybody_listened_is_told_as_of_the_past() {
    let mut vps = Vps::new();
    let (id, done) = vps.deploy(&[("version", "1")]);
    let follow = |vps: &Vps, verb: &str| {
        let told = String::from_utf8(vps.sh("follow", &[&vps.state(), &id, verb]).stdout).unwrap();
        let log = |line: &&str| ["l ", "o ", "a "].iter().any(|kind| line.starts_with(kind));
        told.lines().filter(log).map(str::to_owned).collect::<Vec<_>>()
    };
    let of = |kind: &str| done.log.lines().map(|line| format!("{kind} {line}")).collect::<Vec<_>>();
    assert_eq!(follow(&vps, "forward"), of("l"));
    assert_eq!(follow(&vps, "any"), of("o"));
    // One that is still at it: the rest of its log comes as it is written.
    let systemctl = r#"#!/bin/sh
echo x >>"$ROOT/asked"
case $*:$(wc -l <"$ROOT/asked") in
    *restore* | *confirm*) echo inactive ;;
    *:[1-4]) echo active ;;
    *:5) echo '== next' >>"$ROOT/state/releases/ID/log"; echo active ;;
    *) echo inactive ;;
esac
"#;
    fs::write(vps.path("bin/systemctl"), systemctl.replace("ID", &id)).unwrap();
    fs::write(vps.path("state/releases").join(&id).join("log"), "== building\nmade\n").unwrap();
    assert_eq!(follow(&vps, "any"), ["o == building", "o made", "a building", "l == next"]);
}

#[test]
fn old_releases_are_pruned_but_never_the_one_that_serves() {
    let releases = |vps: &Vps| {
        let mut names: Vec<String> = fs::read_dir(vps.path("state/releases"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy()[7..8].to_owned())
            .collect();
        names.sort();
        names.concat()
    };
    let mut vps = Vps::new();
    vps.order("keep\t2");
    vps.deploy(&[("version", "1")]).1.is("unconfirmed", 0);
    fs::write(vps.path("broken"), "2\n3\n4\n").unwrap();
    for version in ["2", "3", "4"] {
        vps.deploy(&[("version", version)]).1.is("rolled-back", 33);
    }
    assert_eq!(releases(&vps), "134");
    vps.deploy(&[("version", "5")]).1.is("unconfirmed", 0);
    assert_eq!(releases(&vps), "45");
}

#[test]
fn p45_a_quote_in_an_argument_is_no_command() {
    let vps = Vps::new();
    let marker = vps.path("pwned");
    let evil = format!("/opt/x'; touch {0}; '$(touch {0})`touch {0}`\"; touch {0}; \"", marker.display());
    let user = format!("ua;touch {}", marker.display());
    let args = [
        evil.as_str(),
        &evil,
        &user,
        &user,
        &evil,
        &evil,
        &evil,
        "program",
        &evil,
        "template",
        &evil,
        "step",
        &evil,
        "output",
        &evil,
        "unit",
        &evil,
        "key",
        &evil,
        "secret",
        &evil,
    ];
    vps.sh("survey", &args);
    vps.sh("history", &[&evil]);
    assert!(!marker.exists());
}

#[test]
fn p48_the_survey_hands_lines_over_as_they_are_and_secrets_not_at_all() {
    let vps = Vps::new();
    vps.write(".env", "UA_OPS_TOKEN=\"hunter2 three\"\r\nexport MODE='db pull'\r\nMODE_OTHER=1\n#MODE=0\nOTHER=secret\nUA_EMPTY=\"\"\n");
    let app = vps.path("app").display().to_string();
    let args = [
        &vps.state(),
        &app,
        "root",
        "root",
        ".env",
        "/usr/bin:/bin",
        "digest",
        "key",
        "MODE",
        "secret",
        "UA_OPS_TOKEN",
        "secret",
        "UA_EMPTY",
        "program",
        "sh",
        "program",
        "no-such-program",
        "tool",
        "awk",
    ];
    let text = String::from_utf8(vps.sh("survey", &args).stdout).unwrap();
    assert!(!text.contains("hunter2") && !text.contains("secret") && !text.contains("MODE_OTHER"), "{text}");
    for line in [
        "line\tUA_OPS_TOKEN=\"xxxxxxx xxxxx\"\r\n",
        "line\texport MODE='db pull'\r\n",
        "line\tUA_EMPTY=\"\"\n",
        "user\tyes\n",
        "app\tdir\n",
        "program\tno-such-program\t\n",
    ] {
        assert!(text.contains(line), "{line:?} in\n{text}");
    }
    let found = text.lines().find(|line| line.starts_with("program\tsh\t")).unwrap();
    assert!(found.ends_with("/bin/sh"), "{found}");
    // Nothing was made.
    assert_eq!(fs::read_dir(vps.path("state")).unwrap().count(), 0);
}

/// The survey's answer about the version of `programs`, which lie in a directory that everybody can read.
fn versions(vps: &Vps, user: &str, programs: &[(&str, &str)]) -> String {
    let dir = TempDir::with_prefix("ua-versions").unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for (name, text) in programs {
        fs::write(dir.path().join(name), format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let (state, app) = (vps.state(), vps.path("app").display().to_string());
    let path = format!("{}:/usr/bin:/bin", dir.path().display());
    let mut args = vec![state.as_str(), &app, user, "root", ".env", &path, "digest"];
    args.extend(programs.iter().flat_map(|(name, _)| ["version", name]));
    // Less patience than on a VPS.
    let script =
        vps.script("survey").replace("as_owner 10 ", "as_owner 1 ").replace("timeout 15 ", "timeout 5 ");
    let output = vps.sh_text("survey", &script, &args);
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().filter(|line| line.starts_with("version\t")).map(|line| format!("{line}\n")).collect()
}

#[test]
fn survey_version_answer_is_bounded() {
    let vps = Vps::new();
    let started = std::time::Instant::now();
    let text = versions(
        &vps,
        "root",
        &[
            ("good", "[ \"$*\" = --version ] && echo v20.20.2"),
            ("spoken", "echo 'warn\t1' >&2; echo 'two 2.0\nlines'; exit 7"),
            ("silent", ""),
            ("endless", "exec yes 1234567890"),
            ("slow", "echo 'v1.2 soon'; exec sleep 60"),
            ("daemon", "echo v3.4; sleep 60 & exit 0"),
        ],
    );
    let one = |name: &str| text.lines().find(|line| line.starts_with(&format!("version\t{name}\t"))).unwrap();
    assert_eq!(one("good"), "version\tgood\t000\tv20.20.2 ");
    assert_eq!(one("spoken"), "version\tspoken\t007\twarn 1 two 2.0 lines ");
    assert_eq!(one("silent"), "version\tsilent\t000\t");
    assert!(one("endless").starts_with("version\tendless\t"), "{text}");
    assert!(one("endless").len() < 450, "{text}");
    assert_eq!(one("slow"), "version\tslow\t124\tv1.2 soon ");
    assert!(one("daemon").starts_with("version\tdaemon\t"), "{text}");
    assert!(started.elapsed().as_secs() < 20, "they are asked at once, and not waited for");
}

#[test]
fn survey_asks_versions_as_the_owner() {
    if !ua_tests::is_root() {
        return ua_tests::skip("only root can run a program as another user");
    }
    let vps = Vps::new();
    // The real one.
    fs::remove_file(vps.path("bin/runuser")).unwrap();
    let text = versions(&vps, "nobody", &[("who", "echo \"$(id -un) $HOME ${ROOT-unset} $PWD 1.0\"")]);
    let home = Command::new("sh").args(["-c", "getent passwd nobody | cut -d : -f 6"]).output().unwrap();
    let home = String::from_utf8(home.stdout).unwrap();
    assert_eq!(text, format!("version\twho\t000\tnobody {} unset / 1.0 \n", home.trim()));
    // Without that user nothing is run.
    assert_eq!(versions(&vps, "no-such-user", &[("who", "echo 1.0")]), "");
}

/// The fields of `running`, as the release that serves left them.
fn running(vps: &Vps) -> String {
    fs::read_to_string(vps.served().unwrap().join("running")).unwrap()
}

#[test]
fn p36_a_unit_that_was_not_restarted_may_say_any_commit_that_is_the_same_for_it() {
    let mut vps = Vps::new();
    vps.order("unit\tweb.service")
        .order("version\tweb\tweb.service\tversion\thttp://127.0.0.1:1/version\tmust\t2");
    vps.deploy(&[("version", "1"), ("answer", r#"{"version":"commit1"}"#)]).1.is("unconfirmed", 0);
    assert_eq!(running(&vps), "web.service\tcommit1\napp.service\tcommit1\n");
    vps.order("restart\tapp.service");
    let (_, done) = vps.deploy(&[("version", "2"), ("answer", r#"{"version":"commit1"}"#)]);
    done.is("unconfirmed", 0);
    assert!(done.checks.contains("1 of 2 units was restarted, and runs in one process"), "{}", done.checks);
    assert_eq!(running(&vps), "web.service\tcommit1,commit2\napp.service\tcommit2\n");
    // It was restarted by somebody in between, and so runs the later one: that is as good.
    let (_, done) = vps.deploy(&[("version", "3"), ("answer", r#"{"version":"commit2"}"#)]);
    done.is("unconfirmed", 0);
    // One that was started from something else is not what was planned.
    let (_, done) = vps.deploy(&[("version", "4"), ("answer", r#"{"version":"commit9"}"#)]);
    assert!(done.is("rolled-back", 33).checks.contains("web runs commit9, not commit4"), "{}", done.checks);
    // Restarted now, only the new one is right.
    vps.order("restart\tweb.service");
    let (_, done) = vps.deploy(&[("version", "5"), ("answer", r#"{"version":"commit2"}"#)]);
    assert!(done.is("rolled-back", 33).checks.contains("web runs commit2, not commit5"), "{}", done.checks);
    let calls = vps.calls("systemctl");
    let restarts: Vec<&str> = calls.lines().filter(|call| call.starts_with("restart")).collect();
    assert_eq!(restarts[1..4], ["restart --no-block app.service"; 3]);
}

#[test]
fn only_what_is_sent_is_looked_for_in_the_upload_and_the_rest_in_the_app() {
    let mut vps = Vps::new();
    vps.deploy(&[("version", "1"), ("same.py", "s"), ("run.sh", "#!/bin/sh\n")]).1.is("unconfirmed", 0);
    let sum = |text: &str| {
        let file = vps.path("sum");
        fs::write(&file, text).unwrap();
        let sum = Command::new("sha256sum").arg(&file).output().unwrap().stdout;
        String::from_utf8(sum).unwrap()[..64].to_owned()
    };
    let rest = format!("f\t{}\tsame.py\nx\t{}\trun.sh\n", sum("s"), sum("#!/bin/sh\n"));
    vps.order("upload\tversion")
        .order("step\tone\t.\td1\t20\tits profile\tcat version same.py >out; ./run.sh && test ! -w .git");
    vps.order("output\tone\tout");
    vps.rest = rest;
    let (_, done) = vps.deploy(&[("version", "2")]);
    assert!(
        done.is("unconfirmed", 0).checks.contains("1 of 3 paths was sent, and has the content"),
        "{}",
        done.checks
    );
    // The build had all of it.
    assert_eq!(
        (vps.read("out"), vps.read("same.py"), mode(&vps.app("run.sh"))),
        ("2s".into(), "s".into(), 0o755)
    );
    // What is not as it was when this was planned stops it, before the build or after it.
    for (step, check) in [("d2", "changed since this deploy was planned"), ("d1", "changed on the VPS since")]
    {
        vps.no_drift = true;
        vps.write("same.py", "hot fix");
        vps.orders[1] = vps.orders[1].replace("d1", step);
        let (_, done) = vps.deploy(&[("version", "3")]);
        assert!(done.is("failed", 30).checks.contains(check), "{step}: {}", done.checks);
        assert_eq!((vps.read("version"), vps.read("same.py")), ("2".into(), "hot fix".into()));
        vps.orders[1] = vps.orders[1].replace("d2", "d1");
    }
    // Where the plan has seen it, it is told and overwritten.
    vps.no_drift = false;
    vps.rest =
        vps.rest.lines().filter(|line| !line.ends_with("same.py")).map(|line| format!("{line}\n")).collect();
    vps.order("upload\tsame.py");
    vps.deploy(&[("version", "3"), ("same.py", "s")]).1.is("unconfirmed", 0);
    assert_eq!(vps.read("same.py"), "s");
}

#[test]
fn p31_a_process_from_elsewhere_or_from_before_is_not_the_release() {
    let mut vps = Vps::new();
    vps.deploy(&[("version", "1")]).1.is("unconfirmed", 0);
    // It starts where an older checkout lies.
    fs::create_dir(vps.path("old-checkout")).unwrap();
    fs::write(vps.path("elsewhere"), vps.path("old-checkout").display().to_string()).unwrap();
    let (_, done) = vps.deploy(&[("version", "2")]);
    let said = format!("runs in {}", vps.path("old-checkout").display());
    assert!(done.is("rolled-back", 33).checks.contains(&said), "{}", done.checks);
    fs::remove_file(vps.path("elsewhere")).unwrap();
    // systemd says that it started anew, but the process is the old one.
    vps.deploy(&[("version", "3")]).1.is("unconfirmed", 0);
    fs::write(vps.path("old-process"), "").unwrap();
    std::thread::sleep(std::time::Duration::from_millis(150));
    let (_, done) = vps.deploy(&[("version", "4")]);
    assert!(done.is("rolled-back", 33).checks.contains("is older than the restart"), "{}", done.checks);
}

#[test]
fn main_process_that_ended_is_not_called_foreign() {
    let mut vps = Vps::new();
    vps.deploy(&[("version", "1")]).1.is("unconfirmed", 0);
    let kill = "kill -9 $(cat \"$ROOT/pid.app.service\")\n";
    let (_, done) = vps.deploy(&[("version", "2"), ("on-restart", kill)]);
    let checks = &done.is("rolled-back", 33).checks;
    assert!(checks.contains("these units did not come up: app (process "), "{checks}");
    assert!(checks.contains(" ended again)") && !checks.contains("not this release"), "{checks}");
    assert!(done.log.contains("app.service said last:"), "{}", done.log);
}

/// Ends an activation at a word of its log, as a kill at that moment would, and has it recovered.
fn cut_off(vps: &mut Vps, at: &str, files: &[(&str, &str)]) -> (String, Record) {
    let script = vps.path("bin/date");
    let stop = format!(
        "#!/bin/sh\ncase $(tail -n 1 \"$ROOT/state/releases/$ID/log\" 2>/dev/null) in\n    '== {at}') rm -f \"$0\"; kill -9 $PPID ;;\nesac\nexec /bin/date \"$@\"\n"
    );
    let id = format!("2026010{}T000000Z-c", vps.deploys + 1);
    fs::write(&script, stop.replace("$ID", &id)).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    vps.killed = true;
    vps.deploy(files);
    vps.killed = false;
    assert!(!script.exists(), "{at} never came");
    vps.activate(&id, "recover")
}

#[test]
fn p19_p22_wherever_it_is_cut_off_one_release_is_there_whole() {
    for (at, step, verdict, code) in [
        ("verifying the upload", "verify", "failed", 1),
        ("building", "build", "failed", 1),
        ("waiting for busy workers", "drain", "failed", 1),
        ("switching", "switch", "failed", 1),
        ("restarting", "restart", "rolled-back", 33),
        ("waiting for the units", "units", "rolled-back", 33),
        ("asking for health, versions and sessions", "health", "rolled-back", 33),
    ] {
        let mut vps = Vps::new();
        vps.order("step\tone\t.\td1\t20\tits profile\tmkdir -p out && cp version out/built")
            .order("output\tone\tout");
        vps.order("template\tworker@.service\tworker@.service").order("watchdog\tdog.timer");
        let old = [("version", "1"), ("old.py", "o"), ("worker@.service", "[Unit]\n")];
        vps.deploy(&old).1.is("unconfirmed", 0);
        vps.orders[0] = vps.orders[0].replace("d1", "d2");
        let new = [("version", "2"), ("new/a.py", "n"), ("worker@.service", "[Unit]\n# 2\n")];
        let (id, done) = cut_off(&mut vps, at, &new);
        done.is(verdict, code);
        assert_eq!((&done.record["serving"], &done.record["step"]), (&"old".into(), &step.into()), "{at}");
        assert_eq!(
            (vps.read("version"), vps.read("old.py"), vps.read("out/built")),
            ("1".into(), "o".into(), "1".into()),
            "{at}"
        );
        assert!(!vps.app("new").exists(), "{at}");
        assert_eq!(fs::read_to_string(vps.path("units/worker@.service")).unwrap(), "[Unit]\n", "{at}");
        for left in ["pending", "build/x", "incoming/commit2"] {
            let left = vps.path("state").join(left.replace("/x", &format!("/{id}")));
            assert!(!left.exists(), "{at}: {}", left.display());
        }
        // Once is enough, and the next one goes through.
        let told = done.log.len();
        assert_eq!(vps.activate(&id, "recover").1.log.len(), told, "{at}");
        vps.deploy(&new).1.is("unconfirmed", 0);
        assert_eq!((vps.read("version"), vps.read("out/built")), ("2".into(), "2".into()), "{at}");
    }
}

#[test]
fn a_recovery_that_is_cut_off_itself_is_recovered() {
    let mut vps = Vps::new();
    vps.order("step\tone\t.\td1\t20\tits profile\tmkdir -p out && cp version out/built")
        .order("output\tone\tout");
    vps.deploy(&[("version", "1"), ("old.py", "o")]).1.is("unconfirmed", 0);
    vps.orders[0] = vps.orders[0].replace("d1", "d2");
    fs::write(vps.path("broken"), "2\n").unwrap();
    let new = [("version", "2"), ("new/a.py", "n")];
    let (_, done) = cut_off(&mut vps, "restarting what was there before", &new);
    done.is("rolled-back", 33);
    assert_eq!((vps.read("version"), vps.read("out/built")), ("1".into(), "1".into()));
    assert!(!vps.app("new").exists());
}

#[test]
fn a_deadline_outlives_a_reboot() {
    let mut vps = Vps::new();
    vps.deploy(&[("version", "1")]).1.is("unconfirmed", 0);
    vps.order("confirm\t90");
    let (id, _) = vps.deploy(&[("version", "2")]);
    assert_eq!(fs::read_to_string(vps.path("state/pending")).unwrap(), format!("{id}\n"));
    // The timer runs: nothing is to be done.
    fs::write(vps.path(&format!("active.ua-deploy-confirm-{id}.timer")), "active\n").unwrap();
    let before = vps.calls("systemd-run");
    vps.activate(&id, "recover");
    assert_eq!(vps.calls("systemd-run"), before);
    // It was lost, and there is time left.
    fs::remove_file(vps.path(&format!("active.ua-deploy-confirm-{id}.timer"))).unwrap();
    vps.activate(&id, "recover");
    assert_eq!(vps.calls("systemd-run").matches("--on-active=").count(), 2, "{}", vps.calls("systemd-run"));
    assert_eq!(vps.read("version"), "2");
    // Or there is none.
    fs::write(vps.path("state/releases").join(&id).join("deadline"), "1\n").unwrap();
    vps.activate(&id, "recover").1.is("rolled-back", 33);
    assert_eq!(vps.read("version"), "1");
    assert!(!vps.path("state/pending").exists());
}

#[test]
fn a_line_of_the_history_that_was_cut_short_takes_no_other_with_it() {
    let mut vps = Vps::new();
    vps.deploy(&[("version", "1")]).1.is("unconfirmed", 0);
    let history = vps.path("state/history.jsonl");
    let mut text = fs::read_to_string(&history).unwrap();
    text.push_str("{\"id\":\"2026");
    fs::write(&history, text).unwrap();
    vps.deploy(&[("version", "2")]).1.is("unconfirmed", 0);
    let text = fs::read_to_string(&history).unwrap();
    let broken: Vec<&str> =
        text.lines().filter(|line| serde_json::from_str::<serde_json::Value>(line).is_err()).collect();
    assert_eq!(broken, ["{\"id\":\"2026"]);
    let (id, _) = vps.deploy(&[("version", "3")]);
    assert!(vps.sh("smoked", &[&vps.state(), &id, "warn"]).status.success());
    assert!(vps.sh("smoked", &[&vps.state(), &id, "pass"]).status.success());
    let record = fs::read_to_string(vps.path("state/releases").join(&id).join("record.json")).unwrap();
    let record: serde_json::Value = serde_json::from_str(&record).unwrap();
    assert_eq!((&record["public"], &record["verdict"]), (&"pass".into(), &"unconfirmed".into()));
    assert!(record["seconds"].is_u64(), "{record}");
    let begun = vps.sh("begin", &[&vps.state(), "20260108T000000Z-c", "c8", "{\"id\":\"8\"}", ""]);
    assert!(begun.status.success());
    let fields = "\"verdict\":\"failed\",\"exit_code\":32";
    assert!(vps.sh("close", &[&vps.state(), "20260108T000000Z-c", fields]).status.success());
    let last = fs::read_to_string(&history).unwrap();
    let last: serde_json::Value = serde_json::from_str(last.lines().last().unwrap()).unwrap();
    assert_eq!((&last["verdict"], &last["whois"]), (&"failed".into(), &"".into()));
}

#[test]
fn what_serves_is_proved_without_touching_it() {
    let mut vps = Vps::new();
    vps.order("version\tapi\tapp.service\tversion\thttp://127.0.0.1:1/version\tmust\t2");
    vps.order("health\tapi\t200\thttp://127.0.0.1:1/\tapp.service\t2");
    let (id, _) = vps.deploy(&[("version", "1"), ("answer", r#"{"version":"commit1"}"#)]);
    let orders = fs::read_to_string(vps.path("state/releases").join(&id).join("orders")).unwrap();
    let now = |vps: &Vps| {
        let output = vps.sh("now", &[&vps.state(), &id, &orders]);
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    assert_eq!(now(&vps), (Some(0), "api 200; api runs commit1\n".to_owned()));
    vps.write("answer", r#"{"version":"x"}"#);
    assert_eq!(now(&vps), (Some(1), "api runs x, not commit1\n".to_owned()));
    fs::write(vps.path("broken"), "1\n").unwrap();
    assert_eq!(now(&vps).1, "api runs x, not commit1; app.service is activating/x\n");
    assert_eq!(fs::read_dir(vps.path("state/releases")).unwrap().count(), 1);
}

#[test]
fn the_survey_tells_what_of_the_last_release_still_holds() {
    let mut vps = Vps::new();
    vps.write(".env", "A=1\nexport B=secret\nC=3\n");
    vps.order("env_file\t.env")
        .order("step\tone\t.\td1\t20\tits profile\ttouch out")
        .order("output\tone\tout");
    let (id, _) = vps.deploy(&[("version", "1"), ("a.py", "a"), ("b\\c", "b"), ("run.sh", "#!/bin/sh\n")]);
    let app = vps.path("app").display().to_string();
    let survey = |vps: &Vps, digest: &str, more: &[&str]| {
        let state = vps.state();
        let mut args = vec![state.as_str(), &app, "root", "root", ".env", "/usr/bin:/bin", digest];
        args.extend(more);
        String::from_utf8(vps.sh("survey", &args).stdout).unwrap()
    };
    let has = |text: &str, line: &str| text.lines().any(|it| it == line);
    let text = survey(&vps, "other", &["unit", "app.service", "step", "one=d1", "output", "one=out"]);
    for line in [
        format!("served\t{id}").as_str(),
        &format!("newest\t{id}"),
        "known\tyes",
        "built\tone\td1",
        "runs\tapp.service\tcommit1",
    ] {
        assert!(has(&text, line), "{line:?} in\n{text}");
    }
    assert!(text.contains("\nput\tx\t") && text.contains("\tb\\c\n"), "{text}");
    assert!(text.contains("\nunit\tapp.service\tloaded\tactive\tx\t0\t"), "{text}");
    assert!(!text.contains("drift") && !text.contains("env_key") && !text.contains("size"), "{text}");
    // The list is not sent where both have the same.
    let manifest = vps.path("state/releases").join(&id).join("manifest");
    let digest = Command::new("sha256sum").arg(manifest).output().unwrap().stdout;
    let same = survey(&vps, &String::from_utf8(digest).unwrap()[..64], &[]);
    assert!(has(&same, "same\tyes") && !same.contains("put\t"), "{same}");
    // Somebody was there.
    vps.write("b\\c", "hot fix");
    fs::set_permissions(vps.app("run.sh"), fs::Permissions::from_mode(0o644)).unwrap();
    fs::remove_file(vps.app("out")).unwrap();
    vps.write(".env", "A=1\nB=changed\nD=4\n");
    let text = survey(&vps, "other", &["step", "one=d2", "output", "one=version"]);
    for line in
        ["drift\tb\\c", "drift\trun.sh", "env_key\tchanged\tB", "env_key\tremoved\tC", "env_key\tadded\tD"]
    {
        assert!(has(&text, line), "{line:?} in\n{text}");
    }
    assert!(!has(&text, "drift\tversion") && !text.contains("built") && !text.contains("secret"), "{text}");
    assert!(text.contains("size\tone\t"), "{text}");
    assert!(!fs::read_to_string(vps.served().unwrap().join("env")).unwrap().contains("secret"));
    // A later one that was cut off leaves nothing sure.
    fs::write(vps.path("broken"), "2\n").unwrap();
    fs::write(vps.path("bin/mv"), "#!/bin/sh\nexit 1\n").unwrap();
    let late = vps.path("state/releases/20260102T000000Z-c");
    fs::create_dir(&late).unwrap();
    fs::write(late.join("switched"), "").unwrap();
    let text = survey(&vps, "other", &[]);
    assert!(has(&text, "newest\t20260102T000000Z-c") && !has(&text, "known\tyes"), "{text}");
}

#[test]
fn p43_the_ops_token_goes_to_curl_by_its_stdin() {
    let vps = Vps::new();
    let curl = "#!/bin/sh\necho \"$*\" >>\"$ROOT/curl.calls\"\ncat >>\"$ROOT/curl.heard\"\necho 200\n";
    fs::write(vps.path("bin/curl"), curl).unwrap();
    let ops = |vps: &Vps, env: &str, command: &str| {
        vps.write(".env", env);
        let file = vps.app(".env").display().to_string();
        let app = vps.path("app").display().to_string();
        let args = [&file, "UA_OPS_TOKEN", "https://x/", &app, "root", "/usr/bin:/bin", command];
        let output = vps.sh("ops", &args);
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    for env in [
        "UA_OPS_TOKEN=hunter2",
        "X_UA_OPS_TOKEN=no\nUA_OPS_TOKEN=old\nexport UA_OPS_TOKEN='hunter2'\r\n",
        " UA_OPS_TOKEN = \"hunter2\"\n#UA_OPS_TOKEN=no\n",
    ] {
        assert_eq!(ops(&vps, env, ""), (0, "200\n".to_owned()), "{env}");
    }
    // A command goes before the file.
    let said = "echo OTHER=1; echo UA_OPS_TOKEN=hunter2";
    assert_eq!(ops(&vps, "UA_OPS_TOKEN=old\n", said), (0, "200\n".to_owned()));
    let heard = fs::read_to_string(vps.path("curl.heard")).unwrap();
    assert_eq!(heard, "x-ua-ops-token: hunter2\n".repeat(4));
    assert!(!vps.calls("curl").contains("hunter2"), "{}", vps.calls("curl"));
    assert_eq!(ops(&vps, "OTHER=1\n", "").0, 3);
    assert_eq!(ops(&vps, "OTHER=1\n", "echo OTHER=2").0, 3);
    // Nobody knows the token then: the one of the file may be an old one.
    let said = "echo 'vault is down for hunter2' >&2; exit 5";
    assert_eq!(ops(&vps, "UA_OPS_TOKEN=hunter2\n", said), (4, "5\tvault is down for ***\n".to_owned()));
    assert_eq!(fs::read_to_string(vps.path("curl.heard")).unwrap(), heard);
}

/// Replaces a program by a script that acts once, on behalf of who calls it.
fn once(vps: &Vps, program: &str, script: &str) {
    let path = vps.path("bin").join(program);
    fs::write(&path, format!("#!/bin/sh\n{script}\nexec /usr/bin/{program} \"$@\"\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_file_may_become_a_directory_and_a_directory_a_file_or_a_link() {
    let mut vps = Vps::new();
    vps.deploy(&[("version", "1"), ("a", "x"), ("b/x.py", "x"), ("c/x.py", "x")]).1.is("unconfirmed", 0);
    let files = [("version", "2"), ("a/y.py", "y"), ("b", "y"), ("c", "->b")];
    vps.deploy(&files).1.is("unconfirmed", 0);
    assert_eq!((vps.read("a/y.py"), vps.read("b"), vps.read("c")), ("y".into(), "y".into(), "y".into()));
    // And back again.
    fs::write(vps.path("broken"), "3\n").unwrap();
    vps.deploy(&[("version", "3"), ("a", "x"), ("b/x.py", "x"), ("c/x.py", "x")]).1.is("rolled-back", 33);
    assert_eq!((vps.read("a/y.py"), vps.read("b"), vps.read("c")), ("y".into(), "y".into(), "y".into()));
}

#[test]
fn what_was_changed_elsewhere_meanwhile_is_no_reason_to_leave_a_bad_release_standing() {
    let mut vps = Vps::new();
    vps.deploy(&[("version", "1"), ("same.py", "s")]).1.is("unconfirmed", 0);
    vps.order("upload\tversion");
    vps.rest = vps.upload("scratch", &[("same.py", "s")]);
    let (second, _) = vps.deploy(&[("version", "2")]);
    vps.write("same.py", "by hand, after the switch");
    vps.activate(&second, "restore").1.is("rolled-back", 33);
    assert_eq!((vps.read("version"), vps.read("same.py")), ("1".into(), "by hand, after the switch".into()));
}

/// Where the app is on another file system rsync copies what it replaces into the backup.
#[test]
fn half_a_copy_in_the_backup_does_not_replace_the_whole_file() {
    let mut vps = Vps::new();
    vps.deploy(&[("version", "1"), ("big.py", "old and whole")]).1.is("unconfirmed", 0);
    let killed = "case $* in *--backup-dir=*)
        for arg in \"$@\"; do case $arg in --backup-dir=*) dir=${arg#*=} ;; esac; done
        printf 'old a' >\"$dir/big.py\"; rm -f \"$0\"; kill -9 $PPID; exit 1 ;; esac";
    once(&vps, "rsync", killed);
    vps.killed = true;
    let (id, _) = vps.deploy(&[("version", "2"), ("big.py", "new")]);
    vps.activate(&id, "recover").1.is("rolled-back", 33);
    assert_eq!(vps.read("big.py"), "old and whole");
}

#[test]
fn a_switch_that_had_not_begun_needs_nothing_put_back() {
    let mut vps = Vps::new();
    vps.deploy(&[("version", "1")]).1.is("unconfirmed", 0);
    once(&vps, "chown", "rm -f \"$0\"; kill -9 $PPID");
    vps.killed = true;
    let (id, _) = vps.deploy(&[("version", "2")]);
    vps.activate(&id, "recover").1.is("rolled-back", 33);
}

#[test]
fn a_directory_that_somebody_replaced_by_a_link_is_seen() {
    let mut vps = Vps::new();
    vps.deploy(&[("version", "1"), ("docs/a.md", "a"), ("docs/b.md", "b")]).1.is("unconfirmed", 0);
    // The operator moved it to the bigger disk.
    fs::rename(vps.app("docs"), vps.path("bigdisk")).unwrap();
    symlink(vps.path("bigdisk"), vps.app("docs")).unwrap();
    assert_eq!(vps.drift(), "docs/a.md\ndocs/b.md\n");
    vps.order("upload\tversion").order("upload\tdocs/a.md");
    vps.rest = vps.upload("scratch", &[("docs/b.md", "b")]);
    let (_, done) = vps.deploy(&[("version", "2"), ("docs/a.md", "a2")]);
    assert!(done.is("failed", 30).checks.contains("docs/b.md"), "{}", done.checks);
    vps.orders.clear();
    vps.rest.clear();
    vps.deploy(&[("version", "2"), ("docs/a.md", "a2"), ("docs/b.md", "b")]).1.is("unconfirmed", 0);
    assert_eq!((vps.read("docs/a.md"), vps.read("docs/b.md")), ("a2".into(), "b".into()));
    assert_eq!(fs::read_to_string(vps.path("bigdisk/a.md")).unwrap(), "a");
}

#[test]
fn a_recovery_waits_for_its_turn_and_comes_before_the_next_deploy() {
    let kill = "case $(tail -n 1 \"$ROOT/state/releases/20260102T000000Z-c/log\" 2>/dev/null) in
        '== restarting') rm -f \"$0\"; kill -9 $PPID ;; esac";
    let cut = || {
        let mut vps = Vps::new();
        vps.deploy(&[("version", "1")]).1.is("unconfirmed", 0);
        once(&vps, "date", kill);
        vps.killed = true;
        let (id, _) = vps.deploy(&[("version", "2"), ("new.py", "n")]);
        vps.killed = false;
        (vps, id)
    };
    // Somebody has the lock for longer than anybody else would wait.
    let (vps, id) = cut();
    let mut holder = Command::new("flock").arg(vps.path("state/lock")).args(["sleep", "6"]).spawn().unwrap();
    while Command::new("flock")
        .args(["--nonblock"])
        .arg(vps.path("state/lock"))
        .arg("true")
        .status()
        .unwrap()
        .success()
    {}
    vps.activate(&id, "recover").1.is("rolled-back", 33);
    holder.wait().unwrap();
    assert_eq!(vps.read("version"), "1");
    // The next deploy finds it as it was left, and is bad itself.
    let (mut vps, _) = cut();
    fs::write(vps.path("broken"), "3\n").unwrap();
    vps.deploy(&[("version", "3")]).1.is("rolled-back", 33);
    assert_eq!(vps.read("version"), "1");
    assert!(!vps.app("new.py").exists() && !vps.path("state/pending").exists());
    // While the machine goes down nothing can be started, and nothing is given up.
    let (vps, id) = cut();
    let down = "case $1 in restart) exit 1 ;; is-system-running) echo stopping; exit 1 ;; esac\ncase $1 in\n";
    fs::write(vps.path("bin/systemctl"), SYSTEMCTL.replacen("case $1 in\n", down, 1)).unwrap();
    vps.activate(&id, "recover");
    assert!(vps.path("state/pending").exists());
    fs::write(vps.path("bin/systemctl"), SYSTEMCTL).unwrap();
    vps.activate(&id, "recover").1.is("rolled-back", 33);
}

#[test]
fn a_deadline_is_not_forgotten_for_a_later_release_that_failed() {
    let mut vps = Vps::new();
    vps.deploy(&[("version", "1")]).1.is("unconfirmed", 0);
    vps.order("confirm\t90");
    let (second, _) = vps.deploy(&[("version", "2")]);
    vps.orders.pop();
    fs::write(vps.path("broken"), "3\n").unwrap();
    vps.deploy(&[("version", "3")]).1.is("rolled-back", 33);
    assert_eq!(fs::read_to_string(vps.path("state/pending")).unwrap(), format!("{second}\n"));
    // Nor because the list could not be written anew.
    once(&vps, "grep", "case $* in *-vxF*/pending) exit 2 ;; esac");
    vps.deploy(&[("version", "3")]).1.is("rolled-back", 33);
    assert!(fs::read_to_string(vps.path("state/pending")).unwrap().contains(&second));
}

/// Has units answer with what they were started from; `down.UNIT` does not run, nor does new.service without its program.
fn real_units(vps: &Vps) {
    let started = "echo \"$started\" >\"$ROOT/start.$unit\"";
    let answers = "; cp \"$ROOT/app/answer\" \"$ROOT/runs.$unit\" 2>/dev/null; rm -f \"$ROOT/down.$unit\"";
    let text = SYSTEMCTL.replace(started, &format!("{started}{answers}")).replace(
        "if grep -qx",
        "[ ! -e \"$ROOT/down.$unit\" ] || state=failed
            [ \"$unit\" != new.service ] || [ -e \"$ROOT/app/new.py\" ] || state=failed
            if grep -qx",
    );
    fs::write(vps.path("bin/systemctl"), text).unwrap();
    let curl = CURL.replace(
        "if [ -e \"$ROOT/app/answer\" ]; then cat \"$ROOT/app/answer\"",
        "file=$ROOT/runs.${arg##*/}\nif [ -e \"$file\" ]; then cat \"$file\"",
    );
    fs::write(vps.path("bin/curl"), curl).unwrap();
}

#[test]
fn the_way_back_restarts_whatever_started_since_and_judges_by_what_was_there_before() {
    let answer = |commit: &str| format!("{{\"version\":\"{commit}\"}}");
    let world = || {
        let mut vps = Vps::new();
        real_units(&vps);
        vps.order("unit\tgateway.service")
            .order("version\tgateway\tgateway.service\tversion\thttp://127.0.0.1/gateway.service");
        vps.deploy(&[("version", "1"), ("answer", &answer("commit1"))]).1.is("unconfirmed", 0);
        vps.order("restart\tapp.service");
        vps
    };
    // A unit that the release did not restart crashed, and was started again from its tree.
    let mut vps = world();
    let (second, _) = vps.deploy(&[("version", "2"), ("answer", &answer("commit2"))]);
    let path = format!("{}:/usr/bin:/bin", vps.path("bin").display());
    let restart = Command::new(vps.path("bin/systemctl"))
        .args(["restart", "gateway.service"])
        .env("PATH", path)
        .env("ROOT", vps.root.path())
        .status();
    assert!(restart.unwrap().success());
    vps.activate(&second, "restore").1.is("rolled-back", 33);
    // A later release was put back before this one is.
    let mut vps = world();
    let (second, _) = vps.deploy(&[("version", "2"), ("answer", &answer("commit2"))]);
    vps.orders.pop();
    fs::write(vps.path("broken"), "3\n").unwrap();
    vps.deploy(&[("version", "3"), ("answer", &answer("commit3"))]).1.is("rolled-back", 33);
    vps.activate(&second, "expire").1.is("rolled-back", 33);
    assert_eq!(vps.read("version"), "1");
    // One that died after the plan stops the deploy before anything is touched.
    let mut vps = world();
    fs::write(vps.path("down.gateway.service"), "").unwrap();
    let (_, done) = vps.deploy(&[("version", "2"), ("answer", "")]);
    assert!(done.is("failed", 30).checks.contains("gateway.service is failed"), "{}", done.checks);
    // What the release brought along is gone with it, and is not waited for.
    let mut vps = world();
    vps.orders.pop();
    vps.order("unit\tnew.service");
    fs::write(vps.path("broken"), "2\n").unwrap();
    let files = [("version", "2"), ("new.py", "n"), ("answer", &answer("commit2"))];
    vps.deploy(&files).1.is("rolled-back", 33);
    assert!(vps.calls("systemctl").contains("stop new.service"), "{}", vps.calls("systemctl"));
}

#[test]
fn an_optional_unit_that_was_started_after_the_plan_stops_a_deploy_that_would_pass_it_by() {
    let mut vps = Vps::new();
    vps.order("idle\tcsi.service");
    vps.deploy(&[("version", "1")]).1.is("unconfirmed", 0);
    fs::write(vps.path("active.csi.service"), "active\n").unwrap();
    let (_, done) = vps.deploy(&[("version", "2")]);
    assert!(done.is("failed", 30).checks.contains("csi.service is active"), "{}", done.checks);
    assert_eq!(vps.read("version"), "1");
    // One that is not up either way is none of this deploy's business.
    fs::write(vps.path("active.csi.service"), "failed\n").unwrap();
    vps.deploy(&[("version", "2")]).1.is("unconfirmed", 0);
}

#[test]
fn the_way_back_goes_on_with_a_unit_that_ran_though_the_release_before_did_not_know_it() {
    let mut vps = Vps::new();
    vps.deploy(&[("version", "1")]).1.is("unconfirmed", 0);
    // It was stopped at the time of that deploy, and runs by now.
    fs::write(vps.path("start.csi.service"), "1\n").unwrap();
    vps.order("unit\tcsi.service");
    fs::write(vps.path("broken"), "2\n").unwrap();
    vps.deploy(&[("version", "2")]).1.is("rolled-back", 33);
    let calls = vps.calls("systemctl");
    assert!(!calls.contains("stop csi.service"), "{calls}");
    let restarts: Vec<&str> = calls.lines().filter(|call| call.starts_with("restart ")).collect();
    assert!(restarts.last().unwrap().contains("csi.service"), "{calls}");
}

#[test]
fn values_that_changed_after_the_plan_stop_a_deploy_that_would_leave_units_with_the_old_ones() {
    let mut vps = Vps::new();
    vps.order("env_file\t.env").order("unit\tgateway.service");
    vps.write(".env", "A=\"x\ny\"\n");
    vps.deploy(&[("version", "1")]).1.is("unconfirmed", 0);
    vps.order("restart\tapp.service");
    // A comment is no value, but a line that a value goes on with is one.
    vps.write(".env", "# note\nA=\"x\ny\"\n");
    vps.deploy(&[("version", "2")]).1.is("unconfirmed", 0);
    vps.write(".env", "A=\"x\nz\"\n");
    let (_, done) = vps.deploy(&[("version", "3")]);
    assert!(done.is("failed", 30).checks.contains(".env changed since"), "{}", done.checks);
    assert_eq!(vps.read("version"), "2");
}

#[test]
fn env_command_change_is_told_and_restarts() {
    let mut vps = Vps::new();
    vps.order("env_file\t.env").order("unit\tgateway.service").order("env_command\tcat ../vault");
    vps.write(".env", "A=1\n");
    fs::write(vps.path("vault"), "TOKEN=hunter2\nMODE=one\n").unwrap();
    vps.deploy(&[("version", "1")]).1.is("unconfirmed", 0);
    let app = vps.path("app").display().to_string();
    let survey = |vps: &Vps| {
        let state = vps.state();
        let args = [
            &state,
            &app,
            "root",
            "root",
            ".env",
            "/usr/bin:/bin",
            "digest",
            "secret",
            "TOKEN",
            "env_command",
            "cat ../vault",
        ];
        let text = String::from_utf8(vps.sh("survey", &args).stdout).unwrap();
        assert!(!text.contains("hunter"), "{text}");
        text
    };
    let text = survey(&vps);
    assert!(!text.contains("env_key") && text.contains("line\tTOKEN=xxxxxxx\n"), "{text}");
    fs::write(vps.path("vault"), "TOKEN=hunter3\nMODE=one\nNEW=1\n").unwrap();
    let text = survey(&vps);
    let keys: Vec<&str> = text.lines().filter(|line| line.starts_with("env_key")).collect();
    assert_eq!(keys, ["env_key\tadded\tNEW", "env_key\tchanged\tTOKEN"]);
    // A plan that would leave units with the old values is void.
    vps.order("restart\tapp.service");
    let (_, done) = vps.deploy(&[("version", "2")]);
    assert!(done.is("failed", 30).checks.contains("values of `env.command` or "), "{}", done.checks);
    // Where the command fails nobody knows what changed, and no unit that needs it would come up.
    vps.orders[2] = "env_command\tcat ../vault; sed s/TOKEN=/no,/ ../vault >&2; exit 9".to_owned();
    let (_, done) = vps.deploy(&[("version", "2")]);
    let told = "`env.command` failed (code 9): no,*** / MODE=*** / NEW=***";
    assert!(done.is("failed", 31).checks.contains(told), "{}", done.checks);
    assert_eq!(vps.read("version"), "1");
    let down =
        [&vps.state(), &app, "root", "root", ".env", "/usr/bin:/bin", "digest", "env_command", "exit 9"];
    let text = String::from_utf8(vps.sh("survey", &down).stdout).unwrap();
    assert!(text.contains("env_failed\t9\t\n") && !text.contains("env_key"), "{text}");
    // No value lies anywhere of ours.
    let found = Command::new("grep").args(["-rlE", "hunter[23]"]).arg(vps.path("state")).output().unwrap();
    assert_eq!((found.status.code(), found.stdout), (Some(1), Vec::new()));
}

#[test]
fn env_command_runs_as_the_owner_and_not_for_ever() {
    if !ua_tests::is_root() {
        return ua_tests::skip("only root can run a program as another user");
    }
    let vps = Vps::new();
    fs::remove_file(vps.path("bin/runuser")).unwrap();
    fs::set_permissions(vps.root.path(), fs::Permissions::from_mode(0o755)).unwrap();
    vps.write(".env", "A=1\n");
    let (state, app) = (vps.state(), vps.path("app").display().to_string());
    let survey = |command: &str| {
        let args = [
            &state,
            &app,
            "nobody",
            "root",
            ".env",
            "/usr/bin:/bin",
            "digest",
            "key",
            "WHO",
            "env_command",
            command,
        ];
        let script =
            vps.script("survey").replace("as_owner 30 ", "as_owner 1 ").replace("timeout 40 ", "timeout 5 ");
        let started = std::time::Instant::now();
        let output = vps.sh_text("survey", &script.replace("timeout 45 ", "timeout 6 "), &args);
        assert!(started.elapsed().as_secs() < 20, "it took {:?}", started.elapsed());
        String::from_utf8(output.stdout).unwrap()
    };
    let text = survey("echo \"WHO=$(id -un) $PATH ${ROOT-unset} $(pwd)\"");
    assert!(text.contains(&format!("line\tWHO=nobody /usr/bin:/bin unset {app}\n")), "{text}");
    let text = survey("sleep 60");
    assert!(text.contains("env_failed\t124\t\n"), "{text}");
    assert!(
        survey("echo WHO=me; sleep 60 & exit 0").contains("uid\t0"),
        "what it leaves behind is not waited for"
    );
    assert!(survey("exec yes WHO=me").contains("env_failed\t"));
    assert!(survey("yes no >&2").contains("env_failed\t"));
}

#[test]
fn a_tailscaled_that_does_not_answer_is_not_waited_for() {
    let mut vps = Vps::new();
    let asleep = vps.path("bin/tailscale");
    fs::write(&asleep, "#!/bin/sh\nexec sleep 60\n").unwrap();
    fs::set_permissions(&asleep, fs::Permissions::from_mode(0o755)).unwrap();
    let start = std::time::Instant::now();
    vps.deploy(&[("version", "1")]).1.is("unconfirmed", 0);
    assert!(start.elapsed().as_secs() < 50, "{:?}", start.elapsed());
}

#[test]
fn only_a_deploy_that_never_came_to_its_activation_is_closed() {
    let mut vps = Vps::new();
    let (id, _) = vps.deploy(&[("version", "1")]);
    let closed = vps.sh("close", &[&vps.state(), &id, "\"verdict\":\"failed\""]);
    assert!(closed.status.success());
    let record = fs::read_to_string(vps.path("state/releases").join(&id).join("record.json")).unwrap();
    assert!(record.contains("\"verdict\":\"unconfirmed\""), "{record}");
}

/// Has units of a broken release crash each time that somebody looks, and those of a good one `slow` times.
fn crashing(vps: &Vps, slow: u32, state: &str) {
    let broken = "then state=activating; fi";
    let counts = format!(
        "then state={state}; fi
            n=$(cat \"$ROOT/crashes\" 2>/dev/null || echo 0)
            [ ! -e \"$ROOT/crashes\" ] || [ \"$n\" -ge {slow} ] || state={state}
            [ $state = active ] || echo $((n + 1)) >\"$ROOT/crashes\""
    );
    let text = SYSTEMCTL
        .replace(broken, &counts)
        .replace("SubState=x\\n", "SubState=%s\\n")
        .replace("NRestarts=0\\n'", "NRestarts=%s\\nResult=start-limit-hit\\n'")
        .replace(
            "\"$unit\" \"$state\" \"$(cat \"$ROOT/pid",
            "\"$unit\" \"$state\" \"$state\" \"$(cat \"$ROOT/pid",
        )
        .replace(
            "2>/dev/null || echo 0)\"\n            printf 'ExecMain",
            "2>/dev/null || echo 0)\" \"$n\"\n            printf 'ExecMain",
        );
    fs::write(vps.path("bin/systemctl"), text).unwrap();
}

#[test]
fn a_unit_that_crashes_again_and_again_is_not_waited_for_to_the_end() {
    let mut vps = Vps::new();
    vps.order("start_within\t60");
    vps.deploy(&[("version", "1")]).1.is("unconfirmed", 0);
    // The one that comes back has its trouble as well, but there is nothing better to go to.
    crashing(&vps, 20, "activating");
    fs::write(vps.path("broken"), "2\n").unwrap();
    let start = std::time::Instant::now();
    let (_, done) = vps.deploy(&[("version", "2")]);
    assert!(start.elapsed().as_secs() < 30, "{:?}", start.elapsed());
    let said = "nobody waits any longer for app (systemd started it again 5 times in ";
    assert!(done.is("rolled-back", 33).checks.contains(said), "{}", done.checks);
    // A good one gets as many tries as it needs, as long as it does not fail to be up for that long.
    let mut vps = Vps::new();
    vps.order("start_within\t60").order("stable\t2");
    vps.deploy(&[("version", "1")]).1.is("unconfirmed", 0);
    crashing(&vps, 8, "activating");
    fs::write(vps.path("crashes"), "0\n").unwrap();
    vps.deploy(&[("version", "2")]).1.is("unconfirmed", 0);
}

#[test]
fn a_unit_that_systemd_gave_up_is_not_waited_for() {
    let mut vps = Vps::new();
    vps.order("start_within\t60");
    vps.deploy(&[("version", "1")]).1.is("unconfirmed", 0);
    crashing(&vps, 0, "failed");
    fs::write(vps.path("broken"), "2\n").unwrap();
    let start = std::time::Instant::now();
    let (_, done) = vps.deploy(&[("version", "2")]);
    assert!(start.elapsed().as_secs() < 30, "{:?}", start.elapsed());
    let said = "nobody waits any longer for app (systemd gave it up: start-limit-hit)";
    assert!(done.is("rolled-back", 33).checks.contains(said), "{}", done.checks);
}

/// Has units of a broken release fail before they have a process, and those of a good one wait for their start, which is a
/// job of systemd's, for so many looks.
fn without_process(vps: &Vps, looks: u32, state: &str, result: &str) {
    let broken = "if grep -qx \"$(cat \"$ROOT/app/version\" 2>/dev/null)\" \"$ROOT/broken\"; then";
    let waits = format!(
        "n=$(cat \"$ROOT/looks\" 2>/dev/null || echo 0) job=''
            [ \"$n\" -eq 0 ] || {{ state=inactive job=7; echo $((n - 1)) >\"$ROOT/looks\"; }}
            {broken} state={state}; elif false; then"
    );
    let text = SYSTEMCTL
        .replace(broken, &waits)
        .replace("NRestarts=0\\n'", &format!("NRestarts=0\\nResult={result}\\nJob=%s\\n'"))
        .replace(
            "|| echo 0)\"\n            printf 'ExecMain",
            "|| echo 0)\" \"$job\"\n            printf 'ExecMain",
        )
        .replace(
            "echo \"$started\" >",
            &format!(
                "echo {looks} >\"$ROOT/looks\"
                    grep -qx \"$(cat \"$ROOT/app/version\")\" \"$ROOT/broken\" || echo \"$started\" >"
            ),
        );
    fs::write(vps.path("bin/systemctl"), text).unwrap();
}

#[test]
fn a_unit_that_never_has_a_process_is_not_waited_for() {
    for (state, result, told) in [
        ("failed", "resources", "resources"),
        ("failed", "exit-code", "exit-code"),
        ("inactive", "exec-condition", "exec-condition"),
        ("inactive", "success", "inactive"),
    ] {
        let mut vps = Vps::new();
        vps.order("start_within\t60");
        vps.deploy(&[("version", "1")]).1.is("unconfirmed", 0);
        without_process(&vps, 0, state, result);
        fs::write(vps.path("broken"), "2\n").unwrap();
        let start = std::time::Instant::now();
        let (_, done) = vps.deploy(&[("version", "2")]);
        assert!(start.elapsed().as_secs() < 30, "{:?}", start.elapsed());
        let said = format!("nobody waits any longer for app (systemd gave it up: {told})");
        assert!(done.is("rolled-back", 33).checks.contains(&said), "{}", done.checks);
    }
}

#[test]
fn a_unit_whose_restart_is_still_a_job_is_waited_for() {
    let mut vps = Vps::new();
    vps.order("start_within\t60");
    vps.deploy(&[("version", "1")]).1.is("unconfirmed", 0);
    without_process(&vps, 15, "failed", "success");
    vps.deploy(&[("version", "2")]).1.is("unconfirmed", 0);
    assert_eq!(fs::read_to_string(vps.path("looks")).unwrap(), "0\n");
}

#[test]
fn a_way_in_that_went_by_itself_does_not_make_the_old_release_a_broken_one() {
    let mut vps = Vps::new();
    let tailscale = "#!/bin/sh\n[ ! -e \"$ROOT/asleep\" ] || exit 1\n[ \"$1\" != ip ] || echo 100.64.0.2\n";
    fs::write(vps.path("bin/tailscale"), tailscale).unwrap();
    fs::set_permissions(vps.path("bin/tailscale"), fs::Permissions::from_mode(0o755)).unwrap();
    vps.deploy(&[("version", "1")]).1.is("unconfirmed", 0);
    // tailscaled ends while the units restart, and does not come back.
    let (_, done) = vps.deploy(&[("version", "2"), ("on-restart", "touch \"$ROOT/asleep\"\n")]);
    done.is("rolled-back", 33);
    assert!(done.checks.contains("fail\thealth"), "{}", done.checks);
    assert!(done.checks.contains("warn\taccess") && done.checks.contains("pass\trestore"), "{}", done.checks);
    assert_eq!(vps.read("version"), "1");
    let detail = done.record["detail"].as_str().unwrap();
    assert!(detail.contains("not right on the VPS: no longer reached by the tailnet"), "{detail}");
    assert!(detail.ends_with("still not reached by the tailnet, as it was before this deploy"), "{detail}");
    // It came back meanwhile: then there is nothing to tell.
    fs::remove_file(vps.path("asleep")).unwrap();
    let wakes = "[ -e \"$ROOT/asleep\" ] && rm \"$ROOT/asleep\" || touch \"$ROOT/asleep\"\n";
    vps.write("on-restart", wakes);
    let (_, done) = vps.deploy(&[("version", "3"), ("on-restart", wakes)]);
    assert!(!done.is("rolled-back", 33).checks.contains("access"), "{}", done.checks);
}

#[test]
fn the_history_says_at_which_step_the_deploy_is_that_holds_the_lock() {
    let mut vps = Vps::new();
    let (id, _) = vps.deploy(&[("version", "1")]);
    let said = || String::from_utf8(vps.sh("history", &[&vps.state()]).stdout).unwrap();
    assert!(said().starts_with("{\"id\":"), "{}", said());
    fs::write(vps.path("state/lock"), format!("ua-deploy forward {id} by op@laptop, since T\n")).unwrap();
    fs::write(vps.path("state/releases").join(&id).join("step"), "build\n").unwrap();
    let lock = vps.path("state/lock").display().to_string();
    let held = ["sh", "-c", "echo held; exec sleep 60"];
    let mut holder = Command::new("flock");
    let mut holder = holder.args(["--no-fork", &lock]).args(held).stdout(Stdio::piped()).spawn().unwrap();
    let mut word = [0; 5];
    holder.stdout.take().unwrap().read_exact(&mut word).unwrap();
    let busy = format!("busy\tua-deploy forward {id} by op@laptop, since T\nstep\tbuild\n{{\"id\":");
    let told = said();
    // A push is at no step of a deploy.
    fs::write(&lock, "ua-vpsctl push 1 by op@laptop, since T\n").unwrap();
    let push = said();
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert!(told.starts_with(&busy), "{told}");
    assert!(push.starts_with("busy\tua-vpsctl push 1 by op@laptop, since T\n{"), "{push}");
}

#[test]
fn failed_unit_is_shown_with_its_log_file() {
    let mut vps = Vps::new();
    fs::write(vps.path("unit.log"), "of the process before\n").unwrap();
    // As systemd 252 answers, with the kind and without the path.
    let kinds = "#!/bin/sh\ncase $* in
        *StandardOutput*) printf 'StandardOutput=append\\nStandardError=inherit\\n' && exit ;;
        cat*) printf '[Service]\\nStandardOutput=append:%s/unit.log\\n' \"$ROOT\" && exit ;;
        esac\n";
    fs::write(vps.path("bin/systemctl"), format!("{kinds}{SYSTEMCTL}")).unwrap();
    vps.order("start_within\t1").deploy(&[("version", "1")]).1.is("unconfirmed", 0);
    fs::write(vps.path("broken"), "2\n").unwrap();
    let ends = "printf 'Traceback\\nImportError: no such module\\n' >>\"$ROOT/unit.log\"\n";
    let (_, done) = vps.deploy(&[("version", "2"), ("on-restart", ends)]);
    let log = &done.is("rolled-back", 33).log;
    let file = vps.path("unit.log").display().to_string();
    let said =
        format!("app.service said last:\n(in {file})\nTraceback\nImportError: no such module\njournal of");
    assert!(log.contains(&said), "{log}");
}
