//! The binary by itself: a VPS on loopback whose app is a directory of the test, and whose systemd answers what was seen.
#![cfg(test)]
#![allow(clippy::unwrap_used, reason = "tests panic")]

use std::fs;
use std::path::PathBuf;
use std::process::Output;

use serde_json::Value;
use ua_tests::Place;
use ua_tests::sshd::Sshd;

const BIN: &str = env!("CARGO_BIN_EXE_ua-vpsctl");

struct Vps {
    place: Place,
    sshd: Sshd,
}

impl Vps {
    fn new() -> Self {
        let (place, sshd) = (Place::new(), Sshd::start(""));
        place.vps_by_address(&sshd);
        let vps = Self { place, sshd };
        fs::create_dir_all(vps.app("")).unwrap();
        vps
    }

    fn app(&self, path: &str) -> PathBuf {
        self.place.cwd().parent().unwrap().join("vps/app").join(path)
    }

    fn write(&self, path: &str, text: &str) {
        fs::create_dir_all(self.app(path).parent().unwrap()).unwrap();
        fs::write(self.app(path), text).unwrap();
    }

    fn command(&self, args: &[&str]) -> assert_cmd::Command {
        let mut command = self.place.run_with_vps(BIN, &self.sshd);
        command
            .args(args)
            .env("UA_VPS_APP_DIR", self.app(""))
            .env("UA_REMOTE_WORKSPACES_DIR", self.app("AGENT_RUN_WORKSPACES"));
        command
    }

    /// Makes the working directory the app's repository, with these files committed.
    fn repo(&self, files: &[(&str, &str)]) {
        for (path, text) in files.iter().chain(&[("scripts/x.sh", "#!/bin/sh\n")]) {
            self.place.file(&format!("cwd/{path}"), text);
        }
        self.git(&["init", "--quiet", "--initial-branch=main", "--template="]);
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--message", "x"]);
    }

    fn git(&self, args: &[&str]) {
        let names = ["-c", "user.name=Universal Agent", "-c", "user.email=ua@localhost"];
        let git = std::process::Command::new("git")
            .args(names)
            .args(args)
            .current_dir(self.place.cwd())
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .status();
        assert!(git.unwrap().success());
    }

    /// The report of a push that only looks.
    #[track_caller]
    fn would_push(&self, args: &[&str]) -> Value {
        let (out, _) = self.ends(&[&["push", "--dry-run", "--json"], args].concat(), 0);
        serde_json::from_str(&out).unwrap()
    }

    /// Runs it, and sees that it ends with this code; gives stdout and stderr.
    #[track_caller]
    fn ends(&self, args: &[&str], code: i32) -> (String, String) {
        exits(&self.command(args).output().unwrap(), code)
    }
}

#[track_caller]
fn exits(output: &Output, code: i32) -> (String, String) {
    assert_eq!(output.status.code(), Some(code), "{}", ua_tests::shown(output));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn p66_help_and_typos_contact_nobody() {
    let vps = Vps::new();
    for (args, code) in [
        (&["--help"][..], 0),
        (&["restart", "--help"], 0),
        (&["help"], 0),
        (&["restrat", "all"], 2),
        (&["restart"], 2),
        (&["restart", "nginx"], 2),
        (&["logs", "gateway; reboot"], 2),
        (&["run"], 2),
        (&["run-file", "/no/such/file"], 2),
        (&["inspect", "../x"], 2),
        (&["inspect", "-x"], 2),
        (&["read"], 2),
        (&["read", ""], 2),
        (&["push"], 2),
        (&["push", "../x"], 2),
        (&["settings"], 0),
    ] {
        let output = vps.command(args).env("UA_VPS_SSH_KEY", "/no/such/key").output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", ua_tests::shown(&output));
    }
    assert_eq!(vps.sshd.logins(), 0);
}

#[test]
fn settings_tell_who_decided() {
    let vps = Vps::new();
    let (out, _) = vps.ends(&["settings", "--format", "tsv", "--host", "root@127.0.0.2"], 0);
    assert!(out.contains("host.vps\troot@127.0.0.2\t--host\n"), "{out}");
    assert!(
        out.contains("\tUA_BREAK_GLASS\n") && out.contains("deploy.keep_releases\t10\tdefault\n"),
        "{out}"
    );
    // What is derived is told, as far as it is known here.
    let key = "sync.host\troot@127.0.0.2\tderived\n";
    assert!(out.contains(key) && out.contains("repo.dir\t-\tdefault\n"), "{out}");
    assert!(out.contains("sync.local_dir\t-\tdefault\n"), "{out}");
    vps.repo(&[]);
    let top = vps.place.cwd().canonicalize().unwrap();
    let mut command = vps.command(&["settings", "--format", "tsv"]);
    let output = command.env("UA_REMOTE_SYNC_STATE_DIR", "/state").current_dir(top.join("scripts")).output();
    let (out, _) = exits(&output.unwrap(), 0);
    let top = top.display();
    for line in [
        format!("repo.dir\t{top}\tderived"),
        format!("sync.local_dir\t{top}/AGENT_RUN_WORKSPACES/remote_vps_workspaces\tderived"),
        format!(
            "sync.manifest_file\t{top}/AGENT_RUN_WORKSPACES/remote_vps_sync_state/synced_workspaces.txt\tderived"
        ),
        "sync.state_dir\t/state\tUA_REMOTE_SYNC_STATE_DIR".to_owned(),
    ] {
        assert!(out.lines().any(|it| it == line), "{line} in\n{out}");
    }
    let (out, _) = vps.ends(&["settings", "--json"], 0);
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (&report["lane"], report["data"]["rows"].as_array().unwrap().len() > 50),
        (&"local".into(), true)
    );
}

#[test]
fn p64_what_is_run_is_words_and_its_code_is_ours() {
    let vps = Vps::new();
    let odd = ["a b", "it's", "$(touch /tmp/no)", "-x", "", "two\nlines", "back\\", "*", "~"];
    let (out, _) = vps.ends(&[&["run", "--", "printf", "[%s]"], &odd[..]].concat(), 0);
    assert_eq!(out, odd.iter().map(|word| format!("[{word}]")).collect::<String>());
    vps.ends(&["run", "--", "sh", "-c", "exit 77"], 77);
    vps.ends(&["run", "--shell", "exit 41"], 41);
    let (out, _) = vps.ends(&["run", "--shell", "printf 'a\\nb\\n' | wc -l"], 0);
    assert_eq!(out.trim(), "2");
    let output = vps.command(&["run", "--", "cat"]).write_stdin("through\0it").output().unwrap();
    assert_eq!(exits(&output, 0).0, "through\0it");
    // What could not be run at all is 255, and the report has the true code.
    let output = vps.command(&["run", "--json", "--", "true"]).env("UA_SSH_KEYS_PORT", "1").output().unwrap();
    let (out, _) = exits(&output, 255);
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["exit_code"], 20);
}

#[test]
fn with_json_stdout_is_one_report_and_nothing_else() {
    let vps = Vps::new();
    let report = |args: &[&str], stdin: &'static str, code: i32| -> Value {
        let output = vps.command(args).write_stdin(stdin).output().unwrap();
        let (out, err) = exits(&output, code);
        assert_eq!((out.lines().count(), err.is_empty()), (1, code != 2), "{out}{err}");
        serde_json::from_str(&out).unwrap()
    };
    let said = report(&["run", "--json", "--shell", "cat; printf 'b\\377' >&2; exit 77"], "a\n", 77);
    assert_eq!((&said["exit_code"], &said["data"]["code"]), (&0.into(), &77.into()));
    let data = &said["data"];
    assert_eq!((&data["stdout"], &data["stderr"]), (&"a\n".into(), &"b\u{fffd}".into()));
    assert_eq!((&data["stdout_cut"], &data["stderr_cut"]), (&false.into(), &false.into()));
    let said = report(&["run", "--json", "--shell", "head -c 2000000 /dev/zero | tr '\\0' x"], "", 0);
    assert_eq!(said["data"]["stdout"].as_str().map(str::len), Some(1 << 20));
    assert_eq!(said["data"]["stdout_cut"], true);
    let file = vps.place.file("cwd/check.sh", "echo \"$1\"; exit 3\n");
    let said = report(&["run-file", "--json", file.to_str().unwrap(), "--", "a b"], "", 3);
    assert_eq!((&said["data"]["stdout"], &said["data"]["code"]), (&"a b\n".into(), &3.into()));
    // There is no journal here, or one without lines; followed there would be no end.
    let output = vps.command(&["logs", "gateway", "--json", "-n", "1"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let said: Value = serde_json::from_str(&text).unwrap();
    assert!(said["data"]["lines"].is_array() || said["verdict"] == "fail", "{said}");
    let logins = vps.sshd.logins();
    let said = report(&["logs", "gateway", "-f", "--json"], "", 2);
    assert!(said["checks"][0]["detail"].as_str().unwrap().contains("never ends"), "{said}");
    assert_eq!(vps.sshd.logins(), logins);
}

#[test]
fn what_is_not_found_is_named_as_it_was_typed() {
    let vps = Vps::new();
    let (out, err) = vps.ends(&["run", "uptime; id"], 127);
    assert!(out.is_empty() && err.contains("sh: ") && err.contains("uptime; id: not found"), "{err}");
    assert!(err.contains("hint: ua-vpsctl run --shell 'uptime; id'"), "{err}");
    let (out, err) = vps.ends(&["run", "uptiem"], 127);
    assert!(out.is_empty() && !err.contains("--shell") && !err.contains('='), "{err}");
    // Nothing of how it travels is seen by what is run.
    let (out, _) = vps.ends(&["run", "--shell", "echo \"$0 $# [$*]\""], 0);
    assert_eq!(out, "sh 0 []\n");
}

#[test]
fn a_script_of_this_machine_runs_there_with_its_arguments_and_leaves_nothing() {
    let vps = Vps::new();
    let file = vps.place.file("cwd/check.sh", "#!/bin/sh\necho \"$0 [$1] [$2]\"\ncat\nexit 5\n");
    let args = ["run-file", file.to_str().unwrap(), "--", "a b", "-v"];
    let (out, _) = exits(&vps.command(&args).write_stdin("in").output().unwrap(), 5);
    assert!(out.contains(" [a b] [-v]") && out.ends_with("in"), "{out}");
    let place = out.split(' ').next().unwrap();
    assert!(place.starts_with("/tmp/ua-run.") && !PathBuf::from(place).exists(), "{out}");
    // Without a first line that names its interpreter it is sh.
    let file = vps.place.file("cwd/plain", "echo plain\n");
    assert_eq!(vps.ends(&["run-file", file.to_str().unwrap()], 0).0, "plain\n");
}

#[test]
fn p65_a_missing_path_fails_on_stderr_and_secrets_are_not_shown() {
    let vps = Vps::new();
    let csi = "CSI_Ingester/development/deployment/systemd/csi-ingester.env";
    vps.write(csi, "CSI_TOKEN=hunter2\n");
    let (out, err) = vps.ends(&["read", csi], 1);
    assert!(
        out.is_empty() && err.contains("its keys: CSI_TOKEN=…") && !err.contains("hunter2"),
        "{out}{err}"
    );
    vps.write(".env", "UA_OPS_TOKEN=hunter2\nexport OTHER='x'\n# note\n");
    vps.write("logs/a.log", "one\ntwo\nthree\n");
    std::os::unix::fs::symlink("../.env", vps.app("logs/innocent")).unwrap();
    let (out, err) = vps.ends(&["read", "logs/none.log"], 1);
    assert!(out.is_empty() && err.contains("there is no "), "{out}{err}");
    assert_eq!(vps.ends(&["read", "logs/a.log"], 0).0, "one\ntwo\nthree\n");
    assert_eq!(vps.ends(&["read", "logs/a.log", "--tail", "1"], 0).0, "three\n");
    // The old spelling.
    assert_eq!(vps.ends(&["read", "logs/a.log", "2"], 0).0, "two\nthree\n");
    for path in [".env", "logs/innocent", "./logs/../.env", vps.app(".env").to_str().unwrap()] {
        let (out, err) = vps.ends(&["read", path], 1);
        assert!(!format!("{out}{err}").contains("hunter2"), "{path}: {out}{err}");
        assert!(err.contains("its keys: OTHER=…, UA_OPS_TOKEN=…"), "{path}: {err}");
    }
    // A file without keys, though a line of it looks like one.
    vps.write("own.pem", "-----BEGIN KEY-----\nabc+/\nhunter2=\n");
    for path in ["own.pem", "/etc/shadow"] {
        let (_, err) = vps.ends(&["read", path], 1);
        assert!(
            err.contains("is not shown") && !err.contains("its keys") && !err.contains("hunter2"),
            "{err}"
        );
    }
    let (_, err) = vps.ends(&["read", "logs/a.log", "--tail", "x"], 2);
    assert!(err.contains("a whole number is wanted, such as 50"), "{err}");
    let (_, err) = vps.ends(&["read", "logs"], 1);
    assert!(err.contains("is a directory and no file"), "{err}");
    // A path is data there.
    vps.ends(&["read", "$(touch pwned)"], 1);
    vps.ends(&["browse", "-la"], 2);
    assert!(!vps.app("pwned").exists());
}

#[test]
fn directories_and_sessions_are_listed_whatever_their_names() {
    let vps = Vps::new();
    for name in ["plain.txt", "two words", "new\nline", "größe"] {
        vps.write(&format!("dir/{name}"), "x");
    }
    let (out, _) = vps.ends(&["browse", "dir", "--format", "ids", "-0"], 0);
    let mut names: Vec<&str> = out.split_terminator('\0').collect();
    names.sort_unstable();
    assert_eq!(names, ["größe", "new\nline", "plain.txt", "two words"]);
    for (id, products) in [("session_1", 2), ("session_2", 0), ("cron 3", 1)] {
        vps.write(&format!("AGENT_RUN_WORKSPACES/{id}/run.log"), "line\n");
        for n in 0..products {
            vps.write(&format!("AGENT_RUN_WORKSPACES/{id}/work_products/{n}.md"), "x");
        }
    }
    let (out, _) = vps.ends(&["sessions", "--format", "json"], 0);
    let rows: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |id: &str| rows.iter().find(|row| row["id"] == id).unwrap();
    assert_eq!((&of("session_1")["files"], &of("session_1")["work_products"]), (&3.into(), &2.into()));
    assert_eq!(of("cron 3")["work_products"], 1);
    let (out, _) = vps.ends(&["sessions", "session_", "--format", "ids"], 0);
    assert_eq!(out.lines().count(), 2, "{out}");
    let (out, _) = vps.ends(&["inspect", "session_1"], 0);
    assert!(
        out.contains("== newest\n") && out.contains("== products\n") && out.contains("== run.log\nline\n"),
        "{out}"
    );
    let (_, err) = vps.ends(&["inspect", "session_9"], 1);
    assert!(err.contains("there is no workspace session_9"), "{err}");
}

#[test]
fn missions_of_workers_are_sessions() {
    let vps = Vps::new();
    let coder = "AGENT_RUN_WORKSPACES/vp_coder_primary_external";
    for mission in ["vp-mission-1", "vp-mission-2"] {
        vps.write(&format!("{coder}/{mission}/run.log"), "done\n");
    }
    vps.write("AGENT_RUN_WORKSPACES/session_1/sub/run.log", "line\n");
    let (out, _) = vps.ends(&["sessions", "--format", "ids"], 0);
    let mut ids: Vec<&str> = out.lines().collect();
    ids.sort_unstable();
    let missions = ["vp-mission-1", "vp-mission-2"].map(|it| format!("vp_coder_primary_external/{it}"));
    assert_eq!(ids, ["session_1", &missions[0], &missions[1]]);
    let (out, _) = vps.ends(&["inspect", &missions[0]], 0);
    assert!(out.contains("== run.log\ndone\n"), "{out}");
    // A link in the place of the directory above leads elsewhere.
    vps.write("elsewhere/secret/run.log", "secret\n");
    std::os::unix::fs::symlink(vps.app("elsewhere"), vps.app("AGENT_RUN_WORKSPACES/vp_x_external")).unwrap();
    let (out, _) = vps.ends(&["inspect", "vp_x_external/secret"], 1);
    assert!(!out.contains("secret\n"), "{out}");
    for odd in ["session_1/sub", "vp_x_external/", "vp_x_external/../x", "vp_x_external/a/b", "../x"] {
        vps.ends(&["inspect", odd], 2);
    }
}

#[test]
fn one_connection_for_each_verb() {
    let vps = Vps::new();
    vps.write("a.txt", "x");
    for args in [&["read", "a.txt"][..], &["browse"], &["run", "--", "true"]] {
        let logins = vps.sshd.logins();
        vps.ends(args, 0);
        assert_eq!(vps.sshd.logins(), logins + 1, "{args:?}");
    }
}

#[test]
fn p61_a_directory_is_compared_with_the_directory_of_the_same_path() {
    let vps = Vps::new();
    let ignore = "*.log\n/cache/\n";
    vps.repo(&[
        ("src/a.py", "a"),
        ("src/sub/b.py", "b"),
        ("src/c.py", "c"),
        (".gitignore", ignore),
        ("top.txt", "t"),
        ("Memory_System/ua_shared_workspace/MEMORY.md", "m"),
    ]);
    vps.write("src/a.py", "other");
    vps.write("src/c.py", "c");
    vps.place.file("cwd/src/new.py", "untracked");
    vps.place.file("cwd/src/x.log", "ignored");
    let report = vps.would_push(&["./src/"]);
    let data = &report["data"];
    assert_eq!(data["new"], serde_json::json!(["src/new.py", "src/sub/b.py"]), "{report}");
    assert_eq!(
        (&data["replaced"][0], &data["same"][0]),
        (&"src/a.py".into(), &"src/c.py".into()),
        "{report}"
    );
    assert_eq!(data["dirty"], serde_json::json!(["src/new.py"]));
    assert!(data["left_out"][0].as_str().unwrap().starts_with("src/x.log (is ignored by git"), "{report}");
    assert!(data.get("id").is_none() && !vps.app("src/new.py").exists());
    // Several at once, one of them twice; one connection.
    let logins = vps.sshd.logins();
    let report = vps.would_push(&["src", "src/a.py", "top.txt", "--restart"]);
    assert_eq!(
        (vps.sshd.logins(), report["data"]["new"].as_array().unwrap().len()),
        (logins + 1, 3),
        "{report}"
    );
    let restart = |report: &Value| {
        let last = report["checks"].as_array().unwrap().last().unwrap()["detail"].clone();
        assert!(
            last.as_str().unwrap().starts_with("would restart universal-agent-gateway.service, "),
            "{last}"
        );
        last.to_string()
    };
    // Nothing of the profile says what reads `top.txt`.
    assert!(restart(&report).contains("webui"));
    let report = vps.would_push(&["src", "--restart"]);
    assert!(!restart(&report).contains("webui"), "by the profile: {report}");
    // What the server writes goes only if it is named itself.
    let memory = "Memory_System/ua_shared_workspace/MEMORY.md";
    let report = vps.would_push(&["Memory_System", "top.txt"]);
    assert!(report["data"]["left_out"][0].as_str().unwrap().contains("is written by the server"), "{report}");
    assert_eq!(vps.would_push(&[memory])["data"]["new"][0], memory);
    let (out, _) = vps.ends(&["push", "--dry-run", "top.txt"], 0);
    assert!(out.starts_with("would put top.txt there\n"), "{out}");
}

#[test]
fn p62_what_must_not_be_pushed_is_refused_before_anybody_is_asked() {
    let vps = Vps::new();
    vps.repo(&[
        ("src/a.py", "a"),
        ("src/key.pem", "k"),
        ("src/gone.py", "g"),
        ("src/stamp.txt", "$Format:%H$"),
        (".gitattributes", "stamp.txt export-subst\n"),
        (".gitignore", "*.log\n.env\n/cache/\n"),
    ]);
    for (path, text) in
        [(".env", "UA_OPS_TOKEN=hunter2"), ("cache/x", "x"), ("x.log", "x"), (".venv/lib/x", "x")]
    {
        vps.place.file(&format!("cwd/{path}"), text);
    }
    fs::remove_file(vps.place.cwd().join("src/gone.py")).unwrap();
    for (link, target) in [("src/out", "/etc/passwd"), ("linked", "/etc")] {
        std::os::unix::fs::symlink(target, vps.place.cwd().join(link)).unwrap();
    }
    for (path, why) in [
        ("../x", "is not a path inside the repository"),
        ("/etc/passwd", "is not a path inside the repository"),
        ("src/../../x", "is not a path inside the repository"),
        (".", "is not a path inside the repository"),
        (".git/config", "is not a path inside the repository"),
        ("none.py", "does not exist in"),
        ("src/gone.py", "does not exist in"),
        ("linked/passwd", "lies behind the symbolic link"),
        ("src/out", "leads out of the repository"),
        (".env", "with --force-sensitive"),
        ("src/key.pem", "with --force-sensitive"),
        ("x.log", "with --force-sensitive"),
        ("cache", "with --force-sensitive"),
        ("cache/x", "with --force-sensitive"),
        (".venv/lib/x", "is made on the server"),
        ("src/stamp.txt", "is written by git for each commit"),
    ] {
        let (out, err) = vps.ends(&["push", path], 2);
        assert!(err.contains(why) && !format!("{out}{err}").contains("hunter2"), "{path}: {out}{err}");
    }
    vps.ends(&["push"], 2);
    vps.ends(&["push", "src", "src/key.pem"], 2);
    vps.ends(&["push", "--force-sensitive", "../x"], 2);
    let output = vps.command(&["push", "src/a.py"]).env("UA_VPS_APP_DIR", "/etc").output().unwrap();
    assert!(exits(&output, 2).1.contains("is not a directory of the app's own"));
    vps.ends(&["push", "--force-sensitive", ".venv"], 2);
    vps.ends(&["push", "src/a.py", "--repo", vps.place.home().to_str().unwrap()], 2);
    assert_eq!(vps.sshd.logins(), 0);
    // Beside what may go they are left out; by force they go.
    let report = vps.would_push(&["src"]);
    assert_eq!(report["data"]["new"], serde_json::json!(["src/a.py"]), "{report}");
    assert_eq!(report["data"]["left_out"].as_array().unwrap().len(), 4, "{report}");
    let report = vps.would_push(&["--force-sensitive", "src", ".env", "cache"]);
    let new = serde_json::json!([".env", "cache/x", "src/a.py", "src/key.pem"]);
    assert_eq!(report["data"]["new"], new, "{report}");
    // In the way there.
    fs::create_dir_all(vps.app("src/a.py")).unwrap();
    let (out, err) = vps.ends(&["push", "--dry-run", "src/a.py"], 1);
    assert!(format!("{out}{err}").contains("in the way on the VPS, and left alone"), "{out}{err}");
}

#[test]
fn a_path_of_the_working_directory_is_told_as_it_has_to_be_typed() {
    let vps = Vps::new();
    vps.repo(&[("src/app/x.py", "x"), ("top.txt", "t")]);
    let top = vps.place.cwd().canonicalize().unwrap();
    let hint = |dir: &str, typed: &str| {
        let mut command = vps.command(&["push", typed]);
        let (_, err) = exits(&command.current_dir(top.join(dir)).output().unwrap(), 2);
        err.lines().find_map(|line| line.strip_prefix("hint: ")).unwrap_or_default().to_owned()
    };
    let meant = |path: &str| format!("ua-vpsctl push {path}  # paths are relative to `{}`", top.display());
    for (dir, typed, path) in [
        ("src", "app/x.py", "src/app/x.py"),
        ("src/app", "./x.py", "src/app/x.py"),
        ("src/app", "../../top.txt", "top.txt"),
        ("src", ".", "src"),
    ] {
        assert_eq!(hint(dir, typed), meant(path), "{dir}: {typed}");
    }
    // What is nowhere, or outside.
    assert!(hint("src", "none.py").starts_with("git ls-files"));
    fs::remove_file(top.join("top.txt")).unwrap();
    assert!(hint("", "top.txt").starts_with("a push takes nothing away"));
    assert!(hint("src", "../../..").starts_with("git ls-files"));
    assert_eq!(vps.sshd.logins(), 0);
}

#[test]
fn p67_nothing_is_ever_asked_at_a_prompt() {
    let vps = Vps::new();
    vps.repo(&[("a.txt", "a")]);
    // A key with a passphrase would have ssh ask for it.
    let key = vps.place.home().join(".ssh/id_ed25519");
    let locked = ["-q", "-p", "-P", "", "-N", "a passphrase", "-f"];
    assert!(
        std::process::Command::new("ssh-keygen").args(locked).arg(key).output().unwrap().status.success()
    );
    for args in [&["push", "a.txt"][..], &["restart", "all"], &["status"]] {
        let start = std::time::Instant::now();
        let output = vps.command(args).output().unwrap();
        assert!(matches!(output.status.code(), Some(2 | 20..=23)), "{args:?}: {}", ua_tests::shown(&output));
        assert!(start.elapsed() < std::time::Duration::from_secs(20), "{args:?}");
    }
    assert_eq!(vps.sshd.logins(), 0);
}

#[test]
fn the_shim_takes_the_old_words_and_finds_the_repository_by_its_own_path() {
    let vps = Vps::new();
    vps.repo(&[("src/a.py", "a")]);
    vps.write("logs/a.log", "one\ntwo\nthree\n");
    let shim = fs::read(ua_tests::fixtures().join("../../shims/vpsctl.sh")).unwrap();
    let shim = vps.place.file("cwd/scripts/vpsctl.sh", shim);
    ua_tests::mode(&shim, 0o755);
    let run = |args: &[&str], code: i32| {
        let mut command = vps.place.run_with_vps(&shim, &vps.sshd);
        let bin = PathBuf::from(BIN);
        command.args(args).env("UA_BIN_DIR", bin.parent().unwrap()).env("UA_VPS_APP_DIR", vps.app(""));
        exits(&command.current_dir("/").output().unwrap(), code)
    };
    assert_eq!(run(&["read", "logs/a.log", "1"], 0).0, "three\n");
    let (out, _) = run(&["push", "--dry-run", "src"], 0);
    assert!(out.starts_with("would put src/a.py there\n"), "{out}");
    assert!(run(&["help"], 0).0.contains("Everyday verbs"));
    // The unit goes by its true name.
    assert!(
        run(&["restart", "csi", "--dry-run"], 0).0.contains("would restart csi-ingester.service; nothing")
    );
}

#[test]
fn what_runs_there_ends_when_we_are_asked_to_end() {
    let vps = Vps::new();
    let mut command = vps.place.run_with_vps("timeout", &vps.sshd);
    command.args(["--foreground", "--kill-after=20", "1", BIN, "run", "--", "sleep", "60"]);
    assert_eq!(command.output().unwrap().status.code(), Some(124), "137 is SIGKILL");
}

#[test]
fn a_terminal_sees_what_was_asked_for_and_nothing_that_drives_it() {
    let vps = Vps::new();
    vps.write("logs/x.log", "a\u{1b}[2Jb\n");
    // One that does not say how wide it is, too.
    for columns in [80, 0] {
        let seen = ua_tests::terminal::run(&vps.command(&["read", "logs/x.log"]), columns);
        assert!(seen.code == Some(0) && seen.raw.starts_with("a\\u{1b}[2Jb\n"), "{:?}", seen.raw);
    }
    let line = "read -r words; echo said $words; exit 3";
    let seen = ua_tests::terminal::typed(&vps.command(&["run", "--shell", line]), 80, "what was typed\n");
    assert!(seen.lines().iter().any(|line| line == "said what was typed"), "{:?}", seen.raw);
    assert_eq!(seen.code, Some(3), "{:?}", seen.raw);
    assert!(!seen.raw.contains("closed"), "ssh has nothing to say: {:?}", seen.raw);
}

#[test]
fn logs_are_read_from_journal_and_file() {
    let place = Place::new();
    let root = place.cwd().parent().unwrap().join("vps");
    let bin = root.join("bin");
    let sshd = Sshd::start(&format!("SetEnv PATH={}:/usr/bin:/bin ROOT={}", bin.display(), root.display()));
    place.vps_by_address(&sshd);
    let vps = Vps { place, sshd };
    let worker = "universal-agent-vp-worker@vp.general.primary.service";
    vps.write(
        "logs/w.log",
        "2026-02-21 22:18:44,900 INFO started\nTraceback\n2026-02-21 22:18:46,1 INFO again\n",
    );
    let systemctl = r#"case $*:$1 in
        *vp-worker*:show) printf 'StandardOutput=append\nStandardError=append\n' ;;
        *:show) printf 'StandardOutput=journal\nStandardError=inherit\n' ;;
        *:cat) printf '[Service]\nStandardOutput=append:%s/app/logs/w.log\nStandardError=append:%s/app/logs/w.log\n' "$ROOT" "$ROOT" ;;
    esac"#;
    let api = r#"{"__CURSOR":"c","__REALTIME_TIMESTAMP":"1771712325000000","_HOSTNAME":"srv","_PID":"7","_COMM":"uv","_SYSTEMD_UNIT":"universal-agent-api.service","MESSAGE":"hello"}"#;
    for (name, text) in [
        ("systemctl", systemctl.to_owned()),
        ("journalctl", format!("echo '{api}'")),
        // The VPS's time is UTC.
        ("date", "TZ=UTC exec /usr/bin/date \"$@\"".to_owned()),
    ] {
        let path = bin.join(name);
        fs::create_dir_all(&bin).unwrap();
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        ua_tests::mode(&path, 0o755);
    }
    let (out, err) = vps.ends(&["logs", "vp.general.primary", "api", "-n", "3"], 0);
    let lines = [
        "vp.general.primary | Traceback",
        "api                | 2026-02-21T22:18:45+0000 srv uv[7]: hello",
        "vp.general.primary | 2026-02-21 22:18:46,1 INFO again",
    ];
    assert_eq!(out.lines().collect::<Vec<_>>(), lines);
    assert!(err.contains("note: showing the last 3 lines; more: -n 1000"), "{err}");
    let (_, err) = vps.ends(&["logs", "vp.general.primary", "-n", "9"], 0);
    assert!(!err.contains("showing"), "{err}");
    let (out, _) = vps.ends(&["logs", "vp.general.primary", "api", "-n", "3", "--json"], 0);
    let data = serde_json::from_str::<Value>(&out).unwrap()["data"].clone();
    assert_eq!((&data["cut"], &data["limit"]), (&true.into(), &3.into()));
    assert_eq!(data["lines"], serde_json::json!(lines));
    let path = vps.app("logs/w.log").display().to_string();
    assert_eq!(data["files"], serde_json::json!([{"unit": worker, "path": path}]));
}
