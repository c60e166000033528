//! The scripts of the VPS, run here by `sh` in a temporary directory.
#![cfg(test)]
#![allow(clippy::unwrap_used, reason = "tests panic")]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

const PUSH: &str = concat!(
    include_str!("../../ua-common/remote/lying.sh"),
    "\n",
    include_str!("../../ua-common/remote/ledger.sh"),
    "\n",
    include_str!("../../ua-common/remote/unit_log.sh"),
    "\n",
    include_str!("../remote/restarting.sh"),
    "\n",
    include_str!("../remote/push.sh")
);

const RESTART: &str = concat!(
    include_str!("../../ua-common/remote/unit_log.sh"),
    "\n",
    include_str!("../remote/restarting.sh"),
    "\n",
    include_str!("../remote/restart.sh")
);

const UNITS: &str = concat!(
    include_str!("../../ua-common/remote/ledger.sh"),
    "\n",
    include_str!("../remote/seen.sh"),
    "\n",
    include_str!("../remote/units.sh")
);

const LOGS: &str =
    concat!(include_str!("../../ua-common/remote/unit_log.sh"), "\n", include_str!("../remote/logs.sh"));

const PERMS: &str = include_str!("../remote/perms.sh");

const DOCTOR: &str = concat!(
    include_str!("../../ua-common/remote/ledger.sh"),
    "\n",
    include_str!("../remote/seen.sh"),
    "\n",
    include_str!("../../ua-common/remote/env.sh"),
    "\n",
    include_str!("../../ua-staging/remote/look.sh"),
    "\n",
    include_str!("../remote/doctor.sh")
);

/// systemd, as far as `doctor` asks it.
const SYSTEMCTL: &str = r#"#!/bin/sh
case $* in
    is-enabled*) echo enabled ;;
    is-active*) echo active ;;
    *property=User*) cat "$ROOT/user" 2>/dev/null ;;
    *property=EnvironmentFiles*)
        printf '%s (ignore_errors=yes)\n' "$ROOT/app/.env" "$ROOT/app/none.d/x y.env" "$ROOT/app/*.conf" /etc/passwd "$ROOT/app/link.env"
        ;;
    *NextElapse*) cat "$ROOT/timers" ;;
    *property=ExecStart*) echo "{ path=$ROOT/app/watch.sh ; argv[]=$ROOT/app/watch.sh /etc/x ; ignore_errors=no }" ;;
    *) printf 'Id=a.service\nLoadState=loaded\nActiveState=active\nSubState=running\nMainPID=42\n' ;;
esac
"#;

/// Timers as systemd 252 shows them: only after boot and elapsed, without the start that it counts from, running, with a date
/// in the past, with one to come, and after boot and not yet elapsed.
const TIMERS: &str = "\
Unit=a-boot.service
TimersMonotonic={ OnBootUSec=1s ; next_elapse=8min 26.582104s }
NextElapseUSecRealtime=
NextElapseUSecMonotonic=infinity
Id=a-boot.timer
ActiveState=active
SubState=elapsed

Unit=a-lost.service
TimersMonotonic={ OnUnitActiveUSec=5min ; next_elapse=0 }
TimersMonotonic={ OnBootUSec=1s ; next_elapse=8min 26.582104s }
NextElapseUSecRealtime=
NextElapseUSecMonotonic=infinity
Id=a-lost.timer
ActiveState=active
SubState=elapsed

Unit=a-busy.service
TimersMonotonic={ OnUnitInactiveUSec=5s ; next_elapse=0 }
NextElapseUSecRealtime=
NextElapseUSecMonotonic=infinity
Id=a-busy.timer
ActiveState=active
SubState=running

Unit=a-past.service
TimersCalendar={ OnCalendar=2020-01-01 00:00:00 ; next_elapse=(null) }
NextElapseUSecRealtime=
NextElapseUSecMonotonic=infinity
Id=a-past.timer
ActiveState=active
SubState=elapsed

Unit=a-minute.service
TimersCalendar={ OnCalendar=*-*-* *:*:00 ; next_elapse=Sun 2026-11-29 18:21:00 UTC }
NextElapseUSecRealtime=Sun 2026-11-29 18:21:00 UTC
NextElapseUSecMonotonic=0
Id=a-minute.timer
ActiveState=active
SubState=waiting

Unit=a-hour.service
TimersMonotonic={ OnBootUSec=1h ; next_elapse=1h 8min 25.582104s }
NextElapseUSecRealtime=
NextElapseUSecMonotonic=1h 8min 25.582104s
Id=a-hour.timer
ActiveState=active
SubState=waiting
";

/// Sockets as `ss -Hltnp` lists them, the last one of another network namespace's program.
const SOCKETS: &str = "\
LISTEN 0      128       0.0.0.0:22    0.0.0.0:* users:((\"sshd\",pid=72,fd=5))
LISTEN 0      4096   100.64.0.2:8080  0.0.0.0:* users:((\"tailscaled\",pid=59,fd=23))
LISTEN 0      511    10.99.0.12:443   0.0.0.0:* users:((\"nginx\",pid=224,fd=13),(\"nginx\",pid=223,fd=13))
LISTEN 0      511       0.0.0.0:8080  0.0.0.0:* users:((\"nginx\",pid=431,fd=6),(\"nginx\",pid=430,fd=6))
LISTEN 0      128          [::]:22       [::]:* users:((\"sshd\",pid=72,fd=6))
LISTEN 0      511             *:9000        *:*
";

/// systemd, as far as a restart asks it: `units/NAME` holds LOAD ACTIVE INVOCATION START of a unit that there is. One whose
/// name begins with `bad` does not come up. What lay where when it was asked to restart is written down.
const UNITS_OF: &str = r#"#!/bin/sh
field() { cut -d ' ' -f "$1" "$ROOT/units/$unit" 2>/dev/null; }
now() { cut -d . -f 1 /proc/uptime; }
case $1 in
    --version) printf 'systemd %s (%s)\n+PAM\n' "$(cat "$ROOT/systemd" 2>/dev/null || echo 252)" 1 ;;
    restart)
        shift 2
        flock --nonblock "$ROOT/state/lock" true && lock=free || lock=held
        echo "$* lock=$lock app=$(cat "$ROOT/app/a.py") ledger=$(wc -l <"$ROOT/state/ledger.jsonl")" >>"$ROOT/restarts"
        for unit in "$@"; do
            case $unit in
                gone*) ;;
                bad*) echo "loaded failed $$ 0" >"$ROOT/units/$unit" ;;
                *) echo "loaded active $$ $(now)" >"$ROOT/units/$unit" ;;
            esac
        done
        ;;
    show)
        property=${2#--property=}
        if [ "$3" = --value ]; then
            unit=$5
            case $property in
                LoadState) field 1 | grep . || echo not-found ;;
                ActiveState) field 2 | grep . || echo inactive ;;
                InvocationID) field 3 ;;
                MainPID) echo 42 ;;
                ExecMainStartTimestampMonotonic) echo "$(($(field 4) * 1000000))" ;;
                NRestarts) echo 0 ;;
            esac
            exit
        fi
        if [ "$3" = -- ]; then
            unit=$4
            n=$(cat "$ROOT/looks" 2>/dev/null || echo 0)
            [ "$n" -eq 0 ] || echo "$((n - 1))" >"$ROOT/looks"
            echo "LoadState=$(field 1 | grep . || echo not-found)"
            echo "ActiveState=$(field 2)"
            [ "$n" -eq 0 ] && echo Job= || echo Job=7
            [ "$n" -ne 1 ] || echo "loaded active $$ $(now)" >"$ROOT/units/$unit"
            exit
        fi
        # What all of them are asked for, in UTC. Before 247 there is no such option, and 247 does not heed it.
        shift 2
        case $1,$(cat "$ROOT/systemd" 2>/dev/null || echo 252) in
            --timestamp=us+utc,25?) start='Sat 2026-02-21 10:15:00.123456 UTC' && shift ;;
            --*,* | *,25?) exit 1 ;;
            *) start='Sat 2026-02-21 11:15:00 CET' ;;
        esac
        for unit in "$@"; do
            printf 'Id=%s\nLoadState=%s\nActiveState=%s\nMainPID=42\nExecMainStartTimestamp=%s\n\n' "$unit" "$(field 1 | grep . || echo not-found)" \
                "$(field 2 | grep . || echo inactive)" "$start"
        done
        ;;
esac
"#;

/// systemd, as far as it is asked where units write: `units/NAME` is the unit's files, and both streams go to files of the same
/// kind. It tells the kind and no path, as 252 does.
const WRITES: &str = r#"#!/bin/sh
for unit in "$@"; do :; done
case $1 in
    show)
        kind=$(sed -n 's/^StandardOutput *= *\([a-z]*\).*/\1/p' "$ROOT/units/$unit" 2>/dev/null | tail -n 1)
        printf 'StandardOutput=%s\nStandardError=inherit\n' "${kind:-inherit}"
        ;;
    cat) cat "$ROOT/units/$unit" ;;
esac
"#;

struct Vps {
    root: TempDir,
    owner: String,
}

impl Vps {
    fn new() -> Self {
        let root = TempDir::new().unwrap();
        for dir in ["app", "state/incoming", "bin"] {
            fs::create_dir_all(root.path().join(dir)).unwrap();
        }
        fs::set_permissions(root.path().join("app"), fs::Permissions::from_mode(0o750)).unwrap();
        let name = |flag: &str| Command::new("id").arg(flag).output().unwrap().stdout;
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().trim().to_owned();
        let owner = format!("{}:{}", text(name("-un")), text(name("-gn")));
        Self { root, owner }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    fn app(&self, path: &str) -> PathBuf {
        self.path("app").join(path)
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.app(path)).unwrap()
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Puts a program in the way of a true one.
    fn program(&self, name: &str, text: &str) {
        self.write(&format!("bin/{name}"), text);
        fs::set_permissions(self.path(&format!("bin/{name}")), fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Uploads files (a text that begins with `->` is a link, with `#!` a program), and gives their manifest.
    fn upload(&self, id: &str, files: &[(&str, &str)]) -> String {
        let line = |(path, text): &(&str, &str)| {
            let file = format!("state/incoming/push-{id}/tree/{path}");
            if let Some(target) = text.strip_prefix("->") {
                fs::create_dir_all(self.path(&file).parent().unwrap()).unwrap();
                symlink(target, self.path(&file)).unwrap();
                return format!("l\t{target}\t{path}\n");
            }
            self.write(&file, text);
            let (kind, mode) = if text.starts_with("#!") { ('x', 0o700) } else { ('f', 0o600) };
            fs::set_permissions(self.path(&file), fs::Permissions::from_mode(mode)).unwrap();
            let digest = Command::new("sha256sum").stdin(fs::File::open(self.path(&file)).unwrap()).output();
            format!("{kind}\t{}\t{path}\n", &String::from_utf8(digest.unwrap().stdout).unwrap()[..64])
        };
        files.iter().map(line).collect()
    }

    fn place(&self, dry: &str, id: &str, manifest: &str, special: &str) -> Output {
        self.place_and_restart(dry, id, manifest, special, &["look"])
    }

    fn place_and_restart(
        &self,
        dry: &str,
        id: &str,
        manifest: &str,
        special: &str,
        restart: &[&str],
    ) -> Output {
        let [state, app] = ["state", "app"].map(|dir| self.path(dir).display().to_string());
        let head = format!("{{\"id\":\"{id}\",\"dirty\":false,");
        Command::new("sh")
            .args(["-c", PUSH, "push", dry, &state, &app, id, "op@laptop"])
            .args([&self.owner, "Du=rwx,Dgo=rx,Fu=rwX,Fgo=rX", &head, manifest, special])
            .args(restart)
            .env("PATH", format!("{}:/usr/bin:/bin", self.path("bin").display()))
            .env("ROOT", self.root.path())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// Runs another script.
    fn sh(&self, script: &str, args: &[&str]) -> Output {
        Command::new("sh")
            .args(["-c", script, "script"])
            .args(args)
            .env("PATH", format!("{}:/usr/bin:/bin", self.path("bin").display()))
            .env("ROOT", self.root.path())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// Gives it a systemd with these units, and how each is: LOAD ACTIVE.
    fn units(&self, units: &[(&str, &str)]) {
        self.program("systemctl", UNITS_OF);
        self.program("journalctl", "#!/bin/sh\necho \"journal of $*\"\n");
        self.write("state/ledger.jsonl", "");
        for (unit, is) in units {
            self.write(&format!("units/{unit}"), &format!("{is} old 0\n"));
        }
    }

    fn restarts(&self) -> String {
        fs::read_to_string(self.path("restarts")).unwrap_or_default()
    }

    /// A push that succeeds; gives what it says, in order.
    #[track_caller]
    fn push(&self, id: &str, files: &[(&str, &str)]) -> Vec<String> {
        let output = self.place("no", id, &self.upload(id, files), "");
        assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0), "{output:?}");
        let mut lines: Vec<String> =
            String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }

    /// A push that is refused: gives what it says, and insists that nothing of it is left but for the ledger.
    #[track_caller]
    fn refused(&self, id: &str, manifest: &str, code: i32) -> String {
        let output = self.place("no", id, manifest, "");
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert_eq!(fs::read_dir(self.path("state/incoming")).unwrap().count(), 0);
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    }

    fn ledger(&self) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(self.path("state/ledger.jsonl")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn mode(&self, path: &str) -> u32 {
        self.app(path).symlink_metadata().unwrap().mode() & 0o7777
    }
}

#[test]
fn p61_a_directory_lands_as_itself_and_each_file_at_its_own_path() {
    let vps = Vps::new();
    vps.write("app/src/tools/a.py", "old");
    vps.write("app/src/tools/kept.py", "kept");
    let files = [
        ("src/tools/a.py", "new"),
        ("src/tools/deep/b c.py", "b"),
        ("src/tools/run", "#!/bin/sh\n"),
        ("src/tools/\"odd\\", "o"),
        ("#top", "t"),
        ("src/tools/link", "->a.py"),
    ];
    let said = vps.push("p1", &files);
    assert_eq!(said.len(), 6, "{said:?}");
    assert!(
        said.contains(&"other\tsrc/tools/a.py".to_owned()) && said.contains(&"new\t#top".to_owned()),
        "{said:?}"
    );
    assert!(!vps.app("src/tools/tools").exists() && !vps.app("tools").exists());
    for (path, text) in &files[..5] {
        assert_eq!(vps.read(path), *text, "{path}");
    }
    assert_eq!(vps.read("src/tools/kept.py"), "kept");
    assert_eq!(fs::read_link(vps.app("src/tools/link")).unwrap(), PathBuf::from("a.py"));
    assert_eq!((vps.mode("src/tools/run"), vps.mode("src/tools/a.py"), vps.mode("")), (0o755, 0o644, 0o750));
    // The ledger names what changed, and only root reads it.
    let ledger = vps.ledger();
    assert_eq!((ledger.len(), ledger[0]["paths"].as_array().unwrap().len()), (1, 6));
    assert_eq!(fs::metadata(vps.path("state/ledger.jsonl")).unwrap().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(vps.path("state/incoming")).unwrap().count(), 0);
    // The same again is nothing.
    assert!(vps.push("p2", &files).iter().all(|line| line.starts_with("same\t")));
    assert_eq!(vps.ledger().len(), 1);
    let said = vps.push("p3", &[("src/tools/a.py", "newer"), ("#top", "t")]);
    assert_eq!(said, ["other\tsrc/tools/a.py", "same\t#top"]);
    assert_eq!(vps.ledger()[1]["paths"].as_array().unwrap().len(), 1);
}

#[test]
fn p62_owner_and_mode_are_the_profile_s_and_those_of_secrets_their_own() {
    let vps = Vps::new();
    // Somebody else of this machine; only root can give a file away.
    let root = vps.owner.starts_with("root:");
    let daemon = if root { "daemon:daemon".to_owned() } else { vps.owner.clone() };
    let vps = Vps { owner: daemon, ..vps };
    let manifest = vps.upload("p1", &[("a/b.py", "b"), (".env", "A=1"), ("key.pem", "k")]);
    let special = format!(
        "{0}\t640\t.env\n{1}\t600\tkey.pem\n",
        if root { "root:daemon" } else { &vps.owner },
        vps.owner
    );
    let output = vps.place("no", "p1", &manifest, &special);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!((vps.mode("a/b.py"), vps.mode(".env"), vps.mode("key.pem")), (0o644, 0o640, 0o600));
    if root {
        let owner = |path: &str| fs::metadata(vps.app(path)).unwrap().uid();
        assert_eq!((owner("a"), owner("a/b.py"), owner(".env"), owner("")), (1, 1, 0, 0));
    }
}

#[test]
fn p62_nothing_in_the_way_is_followed_or_removed() {
    let vps = Vps::new();
    fs::create_dir(vps.path("outside")).unwrap();
    symlink(vps.path("outside"), vps.app("linked")).unwrap();
    vps.write("app/file", "f");
    vps.write("app/dir/x", "x");
    symlink(vps.path("outside/target"), vps.app("link")).unwrap();
    for path in ["linked/a.py", "file/a.py", "dir"] {
        let manifest = vps.upload("p1", &[(path, "new"), ("fine.py", "fine")]);
        let said = vps.refused("p1", &manifest, 1);
        assert!(said.contains("in the way on the VPS, and left alone"), "{path}: {said}");
    }
    assert!(!vps.app("fine.py").exists() && vps.ledger().is_empty());
    assert_eq!((vps.read("file").as_str(), vps.read("dir/x").as_str()), ("f", "x"));
    // A link at the very path is replaced, and not written through.
    vps.push("p2", &[("link", "new")]);
    assert!(vps.app("link").symlink_metadata().unwrap().is_file());
    assert_eq!(fs::read_dir(vps.path("outside")).unwrap().count(), 0);
    // The app itself is no link.
    fs::rename(vps.path("app"), vps.path("true")).unwrap();
    symlink(vps.path("true"), vps.path("app")).unwrap();
    let manifest = vps.upload("p3", &[("a.py", "a")]);
    assert!(vps.refused("p3", &manifest, 1).contains("is not a directory"));
}

#[test]
fn an_upload_that_is_not_what_was_read_changes_nothing() {
    let vps = Vps::new();
    let manifest = vps.upload("p1", &[("a.py", "a")]);
    vps.write("state/incoming/push-p1/tree/a.py", "changed meanwhile");
    assert!(vps.refused("p1", &manifest, 32).contains("a file changed meanwhile"));
    let manifest = vps.upload("p2", &[("a.py", "a")]);
    vps.write("state/incoming/push-p2/tree/extra", "");
    vps.refused("p2", &manifest, 32);
    vps.refused("p3", &manifest, 32);
    assert!(!vps.app("a.py").exists() && vps.ledger().is_empty());
}

#[test]
fn a_push_that_is_killed_leaves_rather_too_much_in_the_ledger() {
    let vps = Vps::new();
    vps.write("app/a.py", "old");
    let wait = "#!/bin/sh\ncase $* in *files-from*) ;; *) exec /usr/bin/rsync \"$@\" ;; esac\n\
        : >\"$ROOT/there\"\nkill -KILL $PPID\nexec sleep 1\n";
    vps.program("rsync", wait);
    let manifest = vps.upload("p1", &[("a.py", "new")]);
    assert_eq!(vps.place("no", "p1", &manifest, "").status.code(), None);
    assert!(vps.path("there").exists());
    assert_eq!((vps.read("a.py").as_str(), vps.ledger().len()), ("old", 1));
    // Without a ledger nothing is put in place.
    fs::remove_file(vps.path("bin/rsync")).unwrap();
    vps.program("sync", "#!/bin/sh\nexit 1\n");
    let manifest = vps.upload("p2", &[("a.py", "new")]);
    // What the killed one left holds the lock for a moment, which is waited for.
    let output = vps.place("no", "p2", &manifest, "");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(vps.read("a.py"), "old");
    // A line that was cut short takes no other with it.
    fs::remove_file(vps.path("bin/sync")).unwrap();
    fs::write(vps.path("state/ledger.jsonl"), "{\"id\":\"cut").unwrap();
    vps.push("p3", &[("a.py", "new")]);
    let text = fs::read_to_string(vps.path("state/ledger.jsonl")).unwrap();
    assert!(text.starts_with("{\"id\":\"cut\n{\"id\":\"p3\","), "{text}");
}

#[test]
fn p21_a_push_waits_for_no_deploy_and_names_the_holder() {
    let vps = Vps::new();
    let manifest = vps.upload("p1", &[("a.py", "a")]);
    let mut holder = Command::new("flock")
        .arg(vps.path("state/lock"))
        .args(["sh", "-c", "echo held; read wait"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut held = [0; 5];
    std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut held).unwrap();
    fs::write(vps.path("state/lock"), "ua-deploy forward X by op@laptop, since Y\n").unwrap();
    assert_eq!(vps.place("yes", "p1", &manifest, "").status.code(), Some(30));
    assert_eq!(vps.refused("p1", &manifest, 30), "ua-deploy forward X by op@laptop, since Y\n");
    assert!(!vps.app("a.py").exists());
    drop(holder.stdin.take());
    holder.wait().unwrap();
    vps.push("p2", &[("a.py", "a")]);
    let left = fs::read_to_string(vps.path("state/lock")).unwrap();
    assert!(left.starts_with("ua-vpsctl push p2 by op@laptop, since "), "{left}");
}

#[test]
fn a_dry_run_only_looks() {
    let vps = Vps::new();
    vps.write("app/a.py", "old");
    let manifest = vps.upload("p1", &[("a.py", "new"), ("b.py", "b")]);
    fs::remove_dir_all(vps.path("state")).unwrap();
    let output = vps.place("yes", "p1", &manifest, "");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("other\ta.py\n") && said.contains("new\tb.py\n"), "{said}");
    assert_eq!(vps.read("a.py"), "old");
    assert!(!vps.path("state").exists() && !vps.app("b.py").exists());
}

#[test]
fn p65_the_doctor_tells_names_and_never_values() {
    let vps = Vps::new();
    vps.program("systemctl", SYSTEMCTL);
    vps.write("timers", TIMERS);
    vps.program("ss", &format!("#!/bin/sh\ncat <<'X'\n{SOCKETS}X\n"));
    vps.program("curl", "#!/bin/sh\nprintf 503\n");
    vps.program("runuser", "#!/bin/sh\nshift 3\nexec \"$@\"\n");
    vps.program(
        "tailscale",
        "#!/bin/sh\n[ \"$1\" = status ] && printf '{\\n\"node\": 1}' || printf '{\\n}'\n",
    );
    vps.write("app/.env", "# note\nA=hunter2\r\nexport B='hunter2'\nA=again\n");
    fs::set_permissions(vps.app(".env"), fs::Permissions::from_mode(0o640)).unwrap();
    vps.write("app/watch.sh", "");
    vps.write("app/a.conf", "");
    vps.write("app/b c.conf", "");
    vps.write("theirs/env", "");
    fs::set_permissions(vps.path("theirs"), fs::Permissions::from_mode(0o757)).unwrap();
    symlink("../theirs/env", vps.app("link.env")).unwrap();
    vps.write("app/x/csi.env", "KEY=hunter2\n");
    fs::set_permissions(vps.app("x/csi.env"), fs::Permissions::from_mode(0o644)).unwrap();
    symlink("x", vps.app("linked")).unwrap();
    vps.push("p1", &[("a.py", "a")]);
    vps.write("state/history.jsonl", "{\"id\":\"r1\"}\n");
    let look_by = |vps: &Vps, command: &str| {
        let [state, app] = ["state", "app"].map(|dir| vps.path(dir).display().to_string());
        let output = Command::new("sh")
            .args(["-c", DOCTOR, "doctor", &state, &app, "root", ".env", "B C", "A=db,again", "watch.timer"])
            .args(["x/csi.env\nx/none.env\nlinked/csi.env\n", "/usr/bin:/bin", command])
            .args(["gateway\thttp://127.0.0.1:1/x\n", "a-*.timer", "a.service"])
            .env("PATH", format!("{}:/usr/bin:/bin", vps.path("bin").display()))
            .env("ROOT", vps.root.path())
            .output()
            .unwrap();
        assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let look = |vps: &Vps| look_by(vps, "");
    let text = look(&vps);
    let me = &vps.owner;
    let others = |user: &str| if user == "root" { String::new() } else { user.to_owned() };
    let user = others(me.split(':').next().unwrap());
    let script = vps.app("watch.sh").display().to_string();
    for line in [
        format!("env\t{me}\t640\treadable"),
        format!("secret\tx/csi.env\t{me}\t644"),
        "secret\tlinked/csi.env\todd".to_owned(),
        "line\tA=\u{1}\r".trim_end().to_owned(),
        "line\texport B='xxxxxxx'".to_owned(),
        "line\tA=again".to_owned(),
        "watchdog\tenabled\tactive".to_owned(),
        format!("command\t{script} /etc/x"),
        format!("rootruns\t{script}\t{user}"),
        format!("rootreads\t{}\t{user}", vps.app(".env").display()),
        format!("rootreads\t{}\t{user}", vps.app("none.d/x y.env").display()),
        format!("rootreads\t{}\t{user}", vps.app("a.conf").display()),
        format!("rootreads\t{}\t{user}", vps.app("b c.conf").display()),
        "rootreads\t/etc/passwd\t".to_owned(),
        "history\t{\"id\":\"r1\"}".to_owned(),
        "health\tgateway\t503\t0".to_owned(),
        "timer\ta-boot.timer\tactive\telapsed\tnone\tonce\ta-boot.service".to_owned(),
        "timer\ta-lost.timer\tactive\telapsed\tnone\trepeats\ta-lost.service".to_owned(),
        "timer\ta-busy.timer\tactive\trunning\tnone\trepeats\ta-busy.service".to_owned(),
        "timer\ta-past.timer\tactive\telapsed\tnone\tdates\ta-past.service".to_owned(),
        "timer\ta-minute.timer\tactive\twaiting\tnext\tdates\ta-minute.service".to_owned(),
        "timer\ta-hour.timer\tactive\twaiting\tnext\tonce\ta-hour.service".to_owned(),
        "listeners\t22 sshd\t8080 nginx\t9000 ?".to_owned(),
    ] {
        assert!(text.lines().any(|it| it == line), "{line:?} in\n{text}");
    }
    for start in [
        "began\t",
        "ended\t",
        "unit\ta.service\tloaded\tactive\t",
        "memory\t",
        "room\t",
        "pushed\t{\"id\":\"p1\"",
        "serve\t{\"serve\":",
    ] {
        assert!(text.lines().any(|line| line.starts_with(start)), "{start:?} in\n{text}");
    }
    assert!(!text.contains("hunter2") && !text.contains("none.env"), "{text}");
    // What a command prints is told as the file is, and goes before it.
    let text = look_by(&vps, "echo C=hunter2; echo A=hunter2");
    assert!(
        text.contains("line\tC=xxxxxxx\n")
            && text.lines().rfind(|line| line.starts_with("line\tA=")) == Some("line\tA=\u{1}"),
        "{text}"
    );
    assert!(!text.contains("hunter2"), "{text}");
    let text = look_by(&vps, "echo for hunter2 >&2; exit 6");
    assert!(text.contains("env_failed\t6\tfor ***\n") && !text.contains("hunter2"), "{text}");
    // Whoever can write it, or what it lies in, can have root run something else.
    if user.is_empty() {
        for (path, mode, who) in
            [("watch.sh", 0o757, "everybody"), ("", 0o757, "everybody"), ("watch.sh", 0o755, "")]
        {
            fs::set_permissions(vps.app(path), fs::Permissions::from_mode(mode)).unwrap();
            let line = format!("rootruns\t{script}\t{who}");
            assert!(look(&vps).lines().any(|it| it == line), "{line}");
            fs::set_permissions(vps.app(path), fs::Permissions::from_mode(0o755)).unwrap();
        }
        // What root reads as well: the file itself, the one that a link leads to, and where one can be made.
        let reads = |path: &str, who: &str| {
            let line = format!("rootreads\t{}\t{who}", vps.app(path).display());
            assert!(look(&vps).lines().any(|it| it == line), "{line}");
        };
        fs::set_permissions(vps.app(".env"), fs::Permissions::from_mode(0o642)).unwrap();
        reads(".env", "everybody");
        fs::set_permissions(vps.app(".env"), fs::Permissions::from_mode(0o640)).unwrap();
        reads("link.env", "everybody");
        std::os::unix::fs::chown(vps.app(""), Some(1), None).unwrap();
        assert!(look(&vps).contains(&format!("rootruns\t{script}\tdaemon\n")));
        reads(".env", "daemon");
        reads("none.d/x y.env", "daemon");
    }
    // What somebody else runs makes nobody root.
    for (user, judged) in [("root\n", true), ("ua\n", false)] {
        vps.write("user", user);
        let text = look(&vps);
        assert_eq!(
            (text.contains("\nrootruns\t"), text.contains("\nrootreads\t")),
            (judged, judged),
            "{text}"
        );
    }
    // A link is not followed, and a tailscaled that is silent is no answer.
    fs::rename(vps.app(".env"), vps.app("true")).unwrap();
    symlink("true", vps.app(".env")).unwrap();
    vps.program("tailscale", "#!/bin/sh\nexit 1\n");
    let text = look(&vps);
    assert!(text.contains("\nenv\todd\n") && !text.contains("line\t") && !text.contains("serve\t"), "{text}");
}

fn lines(output: &Output) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().filter(|line| !line.starts_with("== ")).map(str::to_owned).collect()
}

#[test]
fn an_optional_unit_is_seen_only_where_it_is() {
    let vps = Vps::new();
    vps.units(&[("a.service", "loaded active"), ("off.service", "loaded inactive")]);
    let state = vps.path("state").display().to_string();
    let seen = |units: &[&str]| {
        let output = vps.sh(UNITS, &[&[state.as_str(), ""], units].concat());
        assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0), "{output:?}");
        let lines = lines(&output);
        lines
            .iter()
            .map(|line| line.split('\t').skip(1).take(3).collect::<Vec<_>>().join(" "))
            .collect::<Vec<_>>()
    };
    let there = ["a.service loaded active", "off.service loaded inactive"];
    assert_eq!(seen(&["a.service", "?off.service", "?none.service"]), there);
    assert_eq!(seen(&["none.service"]), ["none.service not-found inactive"]);
}

#[test]
fn units_of_an_old_systemd_are_told_and_that_it_is_one() {
    let vps = Vps::new();
    vps.units(&[("a.service", "loaded active")]);
    let state = vps.path("state").display().to_string();
    let seen = || lines(&vps.sh(UNITS, &[&state, "", "a.service"])).join("\n");
    let exact = seen();
    assert!(exact.starts_with("unit\ta.service\tloaded\tactive\t"), "{exact}");
    assert!(exact.ends_with("\t42\tSat 2026-02-21 10:15:00.123456 UTC"), "{exact}");
    for old in ["247", "241"] {
        vps.write("systemd", old);
        let rough = seen();
        assert!(rough.starts_with(&format!("systemd\t{old}\nunit\ta.service\tloaded\tactive\t")), "{rough}");
        assert!(rough.ends_with("\t42\tSat 2026-02-21 11:15:00 CET"), "{rough}");
    }
}

#[test]
fn what_the_releases_say_of_the_units_is_told_with_its_times() {
    let vps = Vps::new();
    vps.units(&[("a.service", "loaded active")]);
    let state = vps.path("state").display().to_string();
    let seen = || {
        let output = vps.sh(UNITS, &[&state, "", "a.service"]);
        assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0), "{output:?}");
        lines(&output)
    };
    let unit = seen().remove(0);
    assert!(unit.ends_with("\t42\tSat 2026-02-21 10:15:00.123456 UTC"), "{unit}");
    assert_eq!(seen().len(), 1, "nothing was deployed");
    for (file, second) in [
        ("r1/switched", 10),
        ("r1/running", 11),
        ("r1/served", 12),
        ("r2/switched", 20),
        ("r2/running", 21),
        ("r2/served", 22),
        // Taken back, and one that failed before its switch.
        ("r3/running", 31),
        ("r4/log", 40),
    ] {
        vps.write(&format!("state/releases/{file}"), "");
        let at = std::time::UNIX_EPOCH + std::time::Duration::from_millis(second * 1000 + 250);
        fs::File::options()
            .write(true)
            .open(vps.path(&format!("state/releases/{file}")))
            .unwrap()
            .set_modified(at)
            .unwrap();
    }
    let text = "a.service\tc1,c2\n";
    let running = vps.path("state/releases/r2/running");
    let when = fs::metadata(&running).unwrap().modified().unwrap();
    fs::write(&running, text).unwrap();
    fs::File::options().write(true).open(&running).unwrap().set_modified(when).unwrap();
    let known = [
        "release\tr1\t10.250000\t11.250000",
        "release\tr2\t20.250000\t21.250000",
        "served\tr2",
        "runs\ta.service\tc1,c2",
    ];
    assert_eq!(seen()[1..], known);
    // One that is broken, or under way, and a push.
    vps.write("state/releases/r5/switched", "");
    vps.push("p1", &[("a.py", "a")]);
    let said = seen();
    assert_eq!(said[5], "open\tr5", "{said:?}");
    assert!(said[6].starts_with("pushed\t{\"id\":\"p1\",\"dirty\":false,\"placed\":1"), "{said:?}");
    // Nothing was ever proved.
    for release in ["r1", "r2"] {
        fs::remove_file(vps.path(&format!("state/releases/{release}/served"))).unwrap();
    }
    assert_eq!(seen()[1..4], ["open\tr1", "open\tr2", "open\tr5"]);
}

#[test]
fn p63_a_restart_leaves_alone_what_is_optional_and_stopped_or_not_there() {
    let vps = Vps::new();
    let units = ["a.service", "off.service", "crashed.service", "bad.service"];
    vps.units(&[
        (units[0], "loaded active"),
        (units[1], "loaded inactive"),
        (units[2], "loaded failed"),
        (units[3], "loaded active"),
    ]);
    let state = vps.path("state").display().to_string();
    let restart = |units: &[&str]| vps.sh(RESTART, &[&[state.as_str(), "0", "1"], units].concat());
    let done = restart(&["?off.service", "a.service", "?none.service", "?crashed.service"]);
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    assert_eq!(
        lines(&done).iter().map(|line| line.split("\tprocess").next().unwrap()).collect::<Vec<_>>(),
        [
            "stopped\toff.service\tinactive, loaded",
            "none\tnone.service\tinactive, not-found",
            "up\ta.service",
            "up\tcrashed.service"
        ]
    );
    assert!(vps.restarts().starts_with("a.service crashed.service lock=free"), "{}", vps.restarts());
    // Nothing is left to do.
    let done = restart(&["?off.service", "?none.service"]);
    assert_eq!((done.status.code(), lines(&done).len()), (Some(0), 2), "{done:?}");
    assert_eq!(vps.restarts().lines().count(), 1);
    // Whoever names it means it.
    assert_eq!(restart(&["off.service"]).status.code(), Some(0));
    let done = restart(&["gone.service"]);
    assert_eq!((done.status.code(), lines(&done)), (Some(1), vec!["absent\tgone.service\t".to_owned()]));
    let done = restart(&["bad.service", "a.service"]);
    assert_eq!(done.status.code(), Some(1));
    assert!(lines(&done)[0].starts_with("down\tbad.service\tfailed"), "{done:?}");
    assert!(String::from_utf8_lossy(&done.stderr).contains("--unit=bad.service"), "{done:?}");
}

#[test]
fn a_restart_waits_for_no_unit_about_which_systemd_does_nothing_more() {
    let vps = Vps::new();
    vps.units(&[("bad.service", "loaded active"), ("a.service", "loaded active")]);
    let state = vps.path("state").display().to_string();
    let start = std::time::Instant::now();
    let done = vps.sh(RESTART, &[&state, "5", "60", "bad.service", "a.service"]);
    // The other one has its time to prove itself.
    assert!(start.elapsed().as_secs() < 30, "{:?}", start.elapsed());
    assert_eq!(done.status.code(), Some(1));
    let said = lines(&done);
    assert!(
        said[0].starts_with("down\tbad.service\tfailed") && said[1].starts_with("up\ta.service"),
        "{done:?}"
    );
    let waits = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(waits.contains("== waiting for a.service\n"), "{waits}");
    // What is still a job is waited for, however it looks meanwhile.
    vps.write("looks", "2");
    let done = vps.sh(RESTART, &[&state, "0", "60", "bad.service"]);
    assert_eq!((done.status.code(), lines(&done).len()), (Some(0), 1), "{done:?}");
}

#[test]
fn a_push_restarts_what_reads_it_once_all_is_in_place_and_nothing_where_it_is_not() {
    let vps = Vps::new();
    vps.units(&[
        ("a.service", "loaded active"),
        ("off.service", "loaded inactive"),
        ("bad.service", "loaded active"),
    ]);
    vps.write("app/a.py", "old");
    let push = |id: &str, text: &str, restart: &[&str]| {
        let manifest = vps.upload(id, &[("a.py", text)]);
        vps.place_and_restart("no", id, &manifest, "", &[&["0", "1"], restart].concat())
    };
    let done = push("p1", "new", &["a.service", "?off.service", "?none.service"]);
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    let said = lines(&done);
    assert_eq!((said.len(), said[0].as_str()), (4, "other\ta.py"), "{said:?}");
    assert!(said[3].starts_with("up\ta.service\tprocess 42"), "{said:?}");
    assert_eq!(vps.restarts(), "a.service lock=held app=new ledger=1\n");
    // The same again: who asks for a restart gets it.
    assert_eq!(lines(&push("p2", "new", &["a.service"]))[0], "same\ta.py");
    assert_eq!((vps.restarts().lines().count(), vps.ledger().len()), (2, 1));
    // One that does not come up is said, and what was pushed stays.
    let done = push("p3", "newer", &["bad.service"]);
    assert_eq!((done.status.code(), vps.read("a.py").as_str()), (Some(1), "newer"), "{done:?}");
    assert!(lines(&done)[1].starts_with("down\tbad.service"), "{done:?}");
    // Only looked at, the lock held by another, half in place, or not in the ledger: nothing is restarted.
    let before = vps.restarts();
    let manifest = vps.upload("p4", &[("a.py", "newest")]);
    assert_eq!(
        vps.place_and_restart("yes", "p4", &manifest, "", &["0", "1", "a.service"]).status.code(),
        Some(0)
    );
    vps.program("rsync", "#!/bin/sh\ncase $* in *files-from*) exit 23 ;; esac\nexec /usr/bin/rsync \"$@\"\n");
    let done = push("p5", "newest", &["a.service"]);
    assert_eq!((done.status.code(), lines(&done).len()), (Some(1), 0), "{done:?}");
    assert!(String::from_utf8_lossy(&done.stderr).contains("the ledger names all of push p5"), "{done:?}");
    vps.program("sync", "#!/bin/sh\nexit 1\n");
    assert_eq!(push("p6", "newest", &["a.service"]).status.code(), Some(1));
    assert_eq!(vps.restarts(), before);
    assert_eq!(
        fs::read_dir(vps.path("state/incoming")).unwrap().count(),
        1,
        "only the one that was looked at"
    );
}

#[test]
fn what_the_journal_does_not_understand_is_no_answer() {
    let vps = Vps::new();
    let journal = "#!/bin/sh\ncase $* in *--since=bad*) echo 'Failed to parse timestamp: bad' >&2; exit 1 ;; esac\n\
        case $* in *--grep=none*) exit 1 ;; esac\necho line\n";
    vps.program("journalctl", journal);
    vps.program("systemctl", WRITES);
    let logs = |since: &str, pattern: &str| {
        let done = vps.sh(LOGS, &["no", "5", since, pattern, "a.service"]);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (done.status.code(), text(&done.stdout).split_once('\n').unwrap().1.to_owned(), text(&done.stderr))
    };
    let said = |code, out: &str, err: &str| (Some(code), out.to_owned(), err.to_owned());
    assert_eq!(logs("-1h", "x"), said(0, "line\nend\n", ""));
    assert_eq!(logs("", "none"), said(0, "end\n", ""));
    for pattern in ["", "x"] {
        assert_eq!(logs("bad", pattern), said(1, "", "Failed to parse timestamp: bad\n"));
    }
}

#[test]
fn a_push_that_restarts_nothing_says_what_runs_of_its_readers() {
    let vps = Vps::new();
    vps.units(&[("a.service", "loaded active"), ("off.service", "loaded inactive")]);
    let manifest = vps.upload("p1", &[("a.py", "new")]);
    for dry in ["yes", "no"] {
        let look = ["look", "a.service", "off.service", "none.service"];
        let done = vps.place_and_restart(dry, "p1", &manifest, "", &look);
        assert_eq!(
            (done.status.code(), lines(&done)),
            (Some(0), vec!["new\ta.py".to_owned(), "runs\ta.service".to_owned()])
        );
    }
    assert_eq!(vps.restarts(), "");
}

#[test]
fn a_push_whose_client_is_gone_while_a_unit_is_waited_for_leaves_nothing() {
    let vps = Vps::new();
    vps.units(&[("bad.service", "loaded active")]);
    // Its start is a job for a long time.
    vps.write("looks", "1000");
    let manifest = vps.upload("p1", &[("a.py", "new")]);
    let [state, app] = ["state", "app"].map(|dir| vps.path(dir).display().to_string());
    let mut push = Command::new("sh")
        .args(["-c", PUSH, "push", "no", &state, &app, "p1", "op@laptop", &vps.owner])
        .args(["Du=rwx,Dgo=rx,Fu=rwX,Fgo=rX", "{\"id\":\"p1\",", &manifest, "", "0", "60", "bad.service"])
        .env("PATH", format!("{}:/usr/bin:/bin", vps.path("bin").display()))
        .env("ROOT", vps.root.path())
        .env("TMPDIR", vps.path("bin"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = std::io::BufRead::lines(std::io::BufReader::new(push.stdout.take().unwrap()));
    assert!(said.any(|line| line.unwrap().starts_with("== waiting")));
    drop(said);
    let start = std::time::Instant::now();
    assert_eq!(push.wait().unwrap().code(), Some(1));
    assert!(start.elapsed().as_secs() < 30);
    assert_eq!(fs::read_dir(vps.path("state/incoming")).unwrap().count(), 0);
    assert!(fs::read_dir(vps.path("bin")).unwrap().all(|it| !it.unwrap().path().is_dir()));
    assert_eq!(vps.read("a.py"), "new");
}

#[test]
fn files_with_secrets_are_mended_where_they_are_and_no_link_is_followed() {
    let vps = Vps::new();
    let me = vps.owner.clone();
    for path in ["app/.env", "app/x/csi.env", "outside/csi.env", "outside/own"] {
        vps.write(path, "KEY=1\n");
        fs::set_permissions(vps.path(path), fs::Permissions::from_mode(0o644)).unwrap();
    }
    symlink(vps.path("outside"), vps.app("linked")).unwrap();
    symlink(vps.path("outside/own"), vps.app("link.env")).unwrap();
    fs::create_dir(vps.app("dir.env")).unwrap();
    let app = vps.path("app").display().to_string();
    let files = [
        [".env", me.as_str(), "640"],
        ["x/csi.env", "", "600"],
        ["none.env", "", "600"],
        ["linked/csi.env", "", "600"],
        ["link.env", "", "600"],
        ["dir.env", "", "600"],
    ];
    let fix = |dry: &str, files: &[[&str; 3]]| {
        let args: Vec<&str> = [dry, &app].into_iter().chain(files.iter().flatten().copied()).collect();
        let output = vps.sh(PERMS, &args);
        assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0), "{output:?}");
        lines(&output)
    };
    let others = ["none\tnone.env", "odd\tlinked/csi.env", "odd\tlink.env", "odd\tdir.env"];
    let was = [format!("was\t.env\t{me}\t644"), format!("was\tx/csi.env\t{me}\t644")];
    assert_eq!(fix("yes", &files), [&was[..], &others.map(str::to_owned)].concat());
    assert_eq!((vps.mode(".env"), vps.mode("x/csi.env")), (0o644, 0o644));
    let now = [format!("now\t.env\t{me}\t640"), format!("now\tx/csi.env\t{me}\t600")];
    let mended = [was[0].clone(), now[0].clone(), was[1].clone(), now[1].clone()];
    assert_eq!(fix("no", &files), [&mended[..], &others.map(str::to_owned)].concat());
    assert_eq!((vps.mode(".env"), vps.mode("x/csi.env")), (0o640, 0o600));
    let outside = |name: &str| fs::metadata(vps.path("outside").join(name)).unwrap().mode() & 0o777;
    assert_eq!((outside("csi.env"), outside("own")), (0o644, 0o644));
    // Somebody puts a link in its place once it was looked at.
    vps.program(
        "stat",
        "#!/bin/sh\n/usr/bin/stat \"$@\"\nln -sfn \"$ROOT/outside/own\" \"$ROOT/app/x/csi.env\"\n",
    );
    fix("no", &[["x/csi.env", "", "604"]]);
    assert_eq!((vps.app("x/csi.env").is_symlink(), outside("own")), (true, 0o644));
    // Or a moment before it is opened.
    fs::remove_file(vps.path("bin/stat")).unwrap();
    fs::remove_file(vps.app("x/csi.env")).unwrap();
    vps.write("app/x/csi.env", "KEY=1\n");
    let swap = "case $* in -e*) ln -sfn \"$ROOT/outside/own\" \"$ROOT/app/x/csi.env\" ;; esac";
    vps.program("readlink", &format!("#!/bin/sh\n/usr/bin/readlink \"$@\"\n{swap}\n"));
    assert_eq!(fix("no", &[["x/csi.env", "", "604"]]), ["odd\tx/csi.env"]);
    assert_eq!((vps.app("x/csi.env").is_symlink(), outside("own")), (true, 0o644));
}

#[test]
fn a_directory_that_is_there_stays_as_it_is_and_a_new_one_is_the_profile_s() {
    let vps = Vps::new();
    vps.write("app/private/.key", "old");
    vps.write("app/shared/in/a.py", "old");
    let set =
        |path: &str, mode| fs::set_permissions(vps.app(path), fs::Permissions::from_mode(mode)).unwrap();
    set("private", 0o700);
    set("shared", 0o2775);
    let files =
        [("#top", "t"), ("private/.key", "new"), ("shared/in/a.py", "new"), ("shared/in/new/b.py", "b")];
    vps.push("p1", &files);
    let modes = ["", "private", "shared", "shared/in/new"].map(|path| vps.mode(path));
    // On some systems what is made in a directory of a group is the group's as well.
    assert_eq!((modes[0], modes[1], modes[2], modes[3] & 0o777), (0o750, 0o700, 0o2775, 0o755));
    assert_eq!(vps.read("private/.key"), "new");
}

#[test]
fn what_a_killed_push_was_writing_lies_in_no_directory_of_the_app() {
    let vps = Vps::new();
    vps.write("app/src/big", "old");
    // Slow enough to be killed in the middle of the file, with all that it started.
    let slow = "#!/bin/sh\ncase $* in *files-from*) ;; *) exec /usr/bin/rsync \"$@\" ;; esac\n\
        setsid /usr/bin/rsync --bwlimit=100 \"$@\" &\n\
        while kill -0 $! && ! find \"$ROOT\" -name '*big.??????' -size +0 | grep -q .; do sleep 0.01; done\n\
        kill -KILL \"-$!\"\nkill -KILL $PPID\n";
    vps.program("rsync", slow);
    let big = "new ".repeat(500_000);
    let files = [("src/big", big.as_str())];
    let manifest = vps.upload("p1", &files);
    assert_eq!(vps.place("no", "p1", &manifest, "").status.code(), None);
    assert_eq!((vps.read("src/big").as_str(), vps.ledger().len()), ("old", 1));
    assert_eq!(fs::read_dir(vps.app("src")).unwrap().count(), 1);
    fs::remove_file(vps.path("bin/rsync")).unwrap();
    assert_eq!(vps.push("p2", &files), ["other\tsrc/big"]);
    // What it had is nobody's, and may be a secret.
    assert_eq!(fs::read_dir(vps.path("state/incoming")).unwrap().count(), 0);
}

#[test]
fn a_push_that_nobody_hears_puts_everything_in_place_and_lets_the_lock_go() {
    let vps = Vps::new();
    // More than a pipe holds.
    let names: Vec<String> = (100..500).map(|number| format!("src/{}/{number}", "long".repeat(45))).collect();
    let files: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "new")).collect();
    let manifest = vps.upload("p1", &files);
    let [state, app] = ["state", "app"].map(|dir| vps.path(dir).display().to_string());
    let mut push = Command::new("sh")
        .args(["-c", PUSH, "push", "no", &state, &app, "p1", "op@laptop", &vps.owner])
        .args(["Du=rwx,Dgo=rx,Fu=rwX,Fgo=rX", "{\"id\":\"p1\",", &manifest, "", "look"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let last = vps.app(&names[399]);
    let start = std::time::Instant::now();
    let free =
        || Command::new("flock").args(["--nonblock", &format!("{state}/lock"), "true"]).status().unwrap();
    while !(last.exists() && free().success()) {
        assert!(start.elapsed().as_secs() < 30, "{}", last.exists());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert_eq!(vps.ledger()[0]["paths"].as_array().unwrap().len(), 400);
    assert!(push.try_wait().unwrap().is_none());
    drop(push.stdout.take());
    push.wait().unwrap();
    assert_eq!(fs::read_dir(vps.path("state/incoming")).unwrap().count(), 0);
}

#[test]
fn what_is_read_is_the_file_that_was_judged_and_no_link_that_took_its_place() {
    let vps = Vps::new();
    vps.write("app/log", "one\ntwo\n");
    vps.write("outside", "secret\n");
    let log = vps.app("log").display().to_string();
    let read = |lines: &str| vps.sh(include_str!("../remote/read.sh"), &[&log, lines]);
    assert_eq!(String::from_utf8(read("").stdout).unwrap(), "one\ntwo\n");
    assert_eq!(String::from_utf8(read("1").stdout).unwrap(), "two\n");
    // Somebody puts a link in its place once it was looked at.
    vps.program(
        "readlink",
        "#!/bin/sh\n/usr/bin/readlink \"$@\"\nln -sfn \"$ROOT/outside\" \"$ROOT/app/log\"\n",
    );
    assert_eq!(String::from_utf8(read("").stdout).unwrap(), "one\ntwo\n");
    let output = read("");
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{output:?}");
}

#[test]
fn a_link_among_the_workspaces_is_no_workspace() {
    let vps = Vps::new();
    vps.write("outside/secret", "s");
    vps.write("app/session_1/run.log", "line\n");
    symlink(vps.path("outside"), vps.app("session_2")).unwrap();
    let root = vps.path("app").display().to_string();
    let inspect = |id: &str| vps.sh(include_str!("../remote/inspect.sh"), &[&root, id]);
    assert!(String::from_utf8(inspect("session_1").stdout).unwrap().ends_with("== run.log\nline\n"));
    let output = inspect("session_2");
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{output:?}");
}

#[test]
fn the_kind_of_a_file_is_told_in_the_same_words_in_every_language() {
    let vps = Vps::new();
    vps.write("app/a", "a");
    let german =
        "#!/bin/sh\n[ \"$LC_ALL\" = C ] && exec /usr/bin/stat \"$@\"\nprintf 'reguläre Datei\\n1\\n1\\n'\n";
    vps.program("stat", german);
    let app = vps.path("app").display().to_string();
    let output = vps.sh(include_str!("../remote/find.sh"), &[&app, "a"]);
    assert!(String::from_utf8(output.stdout).unwrap().contains("\nregular file\n"));
}

/// A VPS with a unit that writes to `app/logs/w-x.log`, which holds this.
fn with_log(text: &str) -> Vps {
    let vps = Vps::new();
    vps.program("systemctl", WRITES);
    vps.program("journalctl", "#!/bin/sh\necho '{}'\n");
    let path = vps.app("logs").display().to_string();
    vps.write("units/w@x.service", &format!("[Service]\nStandardOutput=append:{path}/w-%i.log\n"));
    vps.write("units/plain.service", "[Service]\nUser=ua\n");
    vps.write("app/logs/w-x.log", text);
    vps
}

/// What `logs.sh` says, without the times of files and zones.
fn logs_of(vps: &Vps, lines: &str, since: &str, pattern: &str) -> String {
    let output = vps.sh(LOGS, &["no", lines, since, pattern, "w@x.service", "plain.service"]);
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter(|line| !line.starts_with(['z', 'f', '{'])).collect::<Vec<_>>().join("\n")
}

const WORKER: &str = "2026-02-21 22:18:44,900 INFO a.b Started\nTraceback:\n  File x\n\
    2026-02-21 22:18:45,123 ERROR a.b failed\nmore Words\n[2026-02-21T22:18:46Z] end\n";

#[test]
fn logs_of_a_unit_come_from_its_file() {
    let vps = with_log(WORKER);
    let output = vps.sh(LOGS, &["no", "5", "", "", "w@x.service", "plain.service"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let file = vps.app("logs/w-x.log").display().to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("zone\t+") || lines[0].starts_with("zone\t-"), "{text}");
    assert!(lines[1].starts_with("file\t1\tw@x.service\t1") && lines[1].ends_with(&file), "{text}");
    assert_eq!((lines[2], lines[3]), ("{}", "1\t2026-02-21 22:18:44,900 INFO a.b Started"), "{text}");
    // One more than is asked for, so that it is known that there are more.
    assert_eq!(logs_of(&vps, "1", "", ""), "1\tmore Words\n1\t[2026-02-21T22:18:46Z] end\nend");
    // As journalctl reads a pattern.
    assert_eq!(logs_of(&vps, "9", "", "words|^traceb"), "1\tTraceback:\n1\tmore Words\nend");
    assert_eq!(logs_of(&vps, "9", "", "WORDS"), "end");
}

#[test]
fn since_of_a_file_begins_at_its_first_time() {
    let vps = with_log(WORKER);
    let all = logs_of(&vps, "9", "2026-02-21 22:18:44", "");
    assert_eq!(all.lines().count(), 7, "{all}");
    // What has no time is of the line before it.
    let later = logs_of(&vps, "9", "2026-02-21 22:18:45", "");
    assert!(later.starts_with("1\t2026-02-21 22:18:45,123 ERROR") && later.contains("more Words"), "{later}");
    assert_eq!(logs_of(&vps, "9", "2026-02-21 22:18:45 UTC", "end"), "1\t[2026-02-21T22:18:46Z] end\nend");
    assert_eq!(logs_of(&vps, "9", "2026-02-21 22:18:47", ""), "end");
    // A file without times has no answer to it, which is told.
    let vps = with_log("one\ntwo\n");
    assert_eq!(logs_of(&vps, "1", "-1h", ""), "untimed\t1\n1\tone\n1\ttwo\nend");
}

#[test]
fn hostile_link_is_not_read_as_a_log() {
    let vps = with_log("mine\n");
    vps.write("secrets/w-x.log", "hunter2\n");
    let (log, secret) = (vps.app("logs/w-x.log"), vps.path("secrets/w-x.log"));
    let said = |words: &str| {
        for (since, pattern) in [("", ""), ("-1h", ""), ("", "h")] {
            let output = vps.sh(LOGS, &["no", "5", since, pattern, "w@x.service"]);
            let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
            assert!(text.contains(words) && !text.contains("hunter2"), "{text}");
        }
        let mut follow = Command::new("timeout");
        let follow = follow.args(["3", "sh", "-c", LOGS, "logs", "yes", "5", "", "", "w@x.service"]);
        let path = format!("{}:/usr/bin:/bin", vps.path("bin").display());
        let output = follow.env("PATH", path).env("ROOT", vps.root.path()).output().unwrap();
        assert!(!String::from_utf8_lossy(&output.stdout).contains("hunter2"), "{output:?}");
        let restart = format!("{RESTART}\nunit_words w@x.service 5 cat");
        let output = vps.sh(&restart.replace("main \"$@\"", ""), &[]);
        assert!(!String::from_utf8_lossy(&output.stdout).contains("hunter2"), "{output:?}");
    };
    said("\tnone\t".replace("none", "1").trim_start());
    fs::remove_file(&log).unwrap();
    said("\tnone\t");
    symlink(&secret, &log).unwrap();
    said("\tlink\t");
    fs::remove_file(&log).unwrap();
    fs::hard_link(&secret, &log).unwrap();
    said("\tlink\t");
    fs::remove_dir_all(vps.app("logs")).unwrap();
    symlink(vps.path("secrets"), vps.app("logs")).unwrap();
    said("\tlink\t");
    // A link takes its place once it was looked at.
    fs::remove_file(vps.app("logs")).unwrap();
    let swap = "#!/bin/sh\n/usr/bin/stat \"$@\"\n[ $3 = %h ] ||
        ln -sfn \"$ROOT/secrets/w-x.log\" \"$ROOT/app/logs/w-x.log\"\n";
    vps.program("stat", swap);
    vps.write("app/logs/w-x.log", "mine\n");
    let output = vps.sh(LOGS, &["no", "5", "", "", "w@x.service"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("file\t1\tw@x.service\t1") && !text.contains("hunter2"), "{text}");
}

#[test]
fn followed_file_may_be_rotated() {
    use std::io::{BufRead as _, Write as _};
    let vps = with_log("old\n");
    vps.program("journalctl", "#!/bin/sh\ncase $* in *--follow*) exec sleep 60 ;; esac\n");
    let mut follow = Command::new("timeout")
        .args(["60", "sh", "-c", LOGS, "logs", "yes", "0", "", "", "w@x.service"])
        .env("PATH", format!("{}:/usr/bin:/bin", vps.path("bin").display()))
        .env("ROOT", vps.root.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufReader::new(follow.stdout.take().unwrap()).lines();
    let log = vps.app("logs/w-x.log");
    let append = |path: &PathBuf, text: &str| {
        fs::File::options().append(true).create(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
    };
    assert!(lines.by_ref().take(2).all(|line| line.is_ok()));
    let mut next = |wanted: &str| assert_eq!(lines.next().unwrap().unwrap(), wanted);
    next("1\told");
    next("end");
    append(&log, "one\n");
    next("1\tone");
    fs::rename(&log, vps.app("logs/w-x.log.1")).unwrap();
    append(&vps.app("logs/w-x.log.1"), "late\n");
    append(&log, "two\n");
    next("1\tlate");
    next("1\ttwo");
    // Emptied in its place.
    fs::File::options().write(true).truncate(true).open(&log).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1500));
    append(&log, "three\n");
    next("1\tthree");
    let kill = Command::new("kill").arg(follow.id().to_string()).status().unwrap();
    assert!(kill.success() && !follow.wait().unwrap().success());
    // What it started ends as well.
    assert!(lines.next().is_none());
}

#[test]
fn unit_that_does_not_come_up_shows_its_file() {
    let vps = Vps::new();
    vps.units(&[("bad.service", "loaded active")]);
    let log = vps.app("bad.log").display().to_string();
    vps.write("app/bad.log", "ImportError\n");
    let kinds = format!(
        "#!/bin/sh\ncase $* in
        *StandardOutput*) printf 'StandardOutput=file\\nStandardError=inherit\\n' && exit ;;
        cat*) printf '[Service]\\nStandardOutput=file:{log}\\n' && exit ;;
        esac\n"
    );
    vps.program("systemctl", &format!("{kinds}{UNITS_OF}"));
    let state = vps.path("state").display().to_string();
    let done = vps.sh(RESTART, &[&state, "0", "1", "bad.service"]);
    let said = String::from_utf8(done.stderr).unwrap();
    assert!(said.contains(&format!("(in {log})\nImportError\njournal of")), "{said}");
}

#[test]
fn log_path_is_told_with_its_specifiers() {
    let vps = Vps::new();
    vps.program("systemctl", WRITES);
    let told = |unit: &str, text: &str| {
        vps.write(&format!("units/{unit}"), text);
        let script = concat!(include_str!("../../ua-common/remote/unit_log.sh"), "\nunit_log_files \"$1\"");
        let output = vps.sh(script, &[unit]);
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    let file = |path: &str| (0, format!("{path}\n"));
    let unit = "w@vp.general.primary.service";
    let real = "# /etc/systemd/system/w@.service\n[Service]\nStandardOutput=append:/opt/app/logs/w-%i.log\n\
        StandardError=append:/opt/app/logs/w-%i.log\n\n[Install]\nWantedBy=multi-user.target\n";
    assert_eq!(told(unit, real), file("/opt/app/logs/w-vp.general.primary.log"));
    let other = "[Service]\nStandardOutput = truncate:/a b//./%p_%N_%n-100%%.log \n";
    let path = "/a b/w_w@vp.general.primary_w@vp.general.primary.service-100%.log";
    assert_eq!(told(unit, other), file(path));
    // The last drop-in counts; of other sections, comments and what systemd ignores nothing does.
    let drop_ins = "[Service]\nStandardOutput=file:/first\n# /etc/x.conf\n[Service]\n#StandardOutput=file:/no\n\
        StandardOutput=\\\nfile:%L/second\nStandardOutput=file:relative\n[X]\nStandardOutput=file:/no\n";
    assert_eq!(told("a.service", drop_ins), file("/var/log/second"));
    assert_eq!(told("a.service", "[Service]\nStandardOutput=journal\n"), (0, String::new()));
    assert_eq!(told("a.service", "[Service]\nStandardOutput=file:/x-%b\n"), (1, String::new()));
}

#[test]
fn health_of_all_units_is_asked_at_once() {
    let vps = Vps::new();
    vps.units(&[("a.service", "loaded active")]);
    let curl = "#!/bin/sh\nfor url in \"$@\"; do :; done\ncase $url in
        */hangs) sleep 1 && printf 000 && exit 28 ;;
        *) printf 200 ;;
        esac\n";
    vps.program("curl", curl);
    let state = vps.path("state").display().to_string();
    let urls = (0..8).map(|n| format!("h{n}\thttp://127.0.0.1:1/hangs\n")).collect::<String>();
    let start = std::time::Instant::now();
    let output = vps.sh(UNITS, &[&state, &format!("{urls}well\thttp://127.0.0.1:1/well\n"), "a.service"]);
    assert!(start.elapsed().as_secs() < 6, "{:?}", start.elapsed());
    let lines = lines(&output);
    let of = |line: &str| lines.iter().filter(|it| *it == line).count();
    assert_eq!((of("health\twell\t200\t0"), of("health\th7\t000\t28"), lines.len()), (1, 1, 10), "{lines:?}");
    // Without curl that is what is told.
    vps.program("curl", "#!/bin/sh\nexit 127\n");
    let output = vps.sh(UNITS, &[&state, "well\thttp://127.0.0.1:1/well\n", "a.service"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("health\twell\t\t127\n"), "{output:?}");
}
