//! How it is called: by people, scripts, the app's API server and timers; and what they are told when it fails.
#![cfg(test)]
#![allow(clippy::unwrap_used, reason = "tests panic")]

mod common;

use std::fs;
use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Vps, exits, tree};
use serde_json::Value;

/// The keys that the API server has always read.
const KEYS: [&str; 18] = [
    "ok",
    "sync_state",
    "pending_ready_count",
    "ready_total_count",
    "synced_ready_count",
    "latest_ready_remote_epoch",
    "latest_ready_local_epoch",
    "latest_ready_signature",
    "latest_ready_workspace_id",
    "lag_seconds",
    "require_ready_marker",
    "ready_marker_filename",
    "ready_session_prefix",
    "manifest_file",
    "remote_host",
    "remote_dir",
    "local_dir",
    "generated_at_epoch",
];

/// The only line of stdout, as JSON.
#[track_caller]
fn object(stdout: &str) -> Value {
    assert_eq!(stdout.lines().count(), 1, "{stdout}");
    serde_json::from_str(stdout).unwrap_or_else(|error| panic!("{error}: {stdout}"))
}

fn shims() -> std::path::PathBuf {
    ua_tests::fixtures().join("../../shims")
}

#[test]
fn the_status_object_has_the_old_keys_with_the_old_meanings() {
    let vps = Vps::new();
    vps.ended("session_1", 900);
    vps.ended("session_2", 600);
    vps.write("cron_1/f", "x", 600);
    vps.write("session_running/run.log", "", 600);
    for args in
        [&["status", "--json"][..], &["--status-json"], &["--once", "--status-json", "--session-id", "x"]]
    {
        let status = object(&vps.ends(args, 0).0);
        for key in KEYS {
            assert!(status.get(key).is_some(), "{key}: {status}");
        }
        let said = |key: &str| status[key].clone();
        assert_eq!((said("ok"), said("sync_state")), (true.into(), "behind".into()));
        assert_eq!(
            (said("pending_ready_count"), said("ready_total_count"), said("synced_ready_count")),
            (3.into(), 3.into(), 0.into())
        );
        assert_eq!(said("latest_ready_workspace_id"), "session_2");
        assert!(status["latest_ready_remote_epoch"].is_f64() && status["generated_at_epoch"].is_i64());
        assert_eq!((said("latest_ready_local_epoch"), said("lag_seconds")), (Value::Null, Value::Null));
        assert_eq!(said("require_ready_marker"), true);
        assert_eq!(said("ready_session_prefix"), "session_,tg_,run_");
        assert_eq!(
            (said("ready_marker_filename"), said("remote_host")),
            ("sync_ready.json".into(), "root@127.0.0.1".into())
        );
        assert_eq!(
            (&status["report"]["lane"], &status["report"]["data"]["mirror"]),
            (&"vps".into(), &true.into())
        );
    }
    vps.ends(&["once", "--session-id", "session_1"], 0);
    let status = object(&vps.ends(&["status", "--json"], 0).0);
    let lag = status["lag_seconds"].as_f64().unwrap();
    assert!((lag - 300.0).abs() < 2.0, "{status}");
    vps.ends(&["once"], 0);
    let status = object(&vps.ends(&["status", "--json"], 0).0);
    assert_eq!((&status["sync_state"], &status["lag_seconds"]), (&"in_sync".into(), &0.0.into()));
    assert_eq!(status["latest_ready_local_epoch"], status["latest_ready_remote_epoch"]);
}

#[test]
fn p112_status_is_never_in_sync_by_mistake() {
    let vps = Vps::new();
    vps.ended("session_1", 900);
    vps.ended("session_2", 600);
    vps.ends(&["once"], 0);
    // The mirror is gone.
    fs::rename(vps.mirror(""), vps.root().join("away")).unwrap();
    let status = object(&vps.ends(&["status", "--json"], 0).0);
    assert_eq!((&status["sync_state"], &status["pending_ready_count"]), (&"behind".into(), &2.into()));
    fs::rename(vps.root().join("away"), vps.mirror("")).unwrap();
    // An older one is missing while the newest is there.
    fs::remove_dir_all(vps.mirror("session_1")).unwrap();
    let status = object(&vps.ends(&["status", "--json"], 0).0);
    assert_eq!(status["sync_state"], "behind");
    assert!((status["lag_seconds"].as_f64().unwrap() - 300.0).abs() < 2.0, "{status}");
    // Nothing can be seen.
    fs::remove_dir_all(vps.remote("")).unwrap();
    let status = object(&vps.ends(&["status", "--json"], 1).0);
    assert_eq!((&status["ok"], &status["sync_state"]), (&false.into(), &"unknown".into()));
}

#[test]
fn the_status_object_is_printed_under_every_failure() {
    let vps = Vps::new();
    let missing = vps.root().join("no such key");
    for (args, env, code) in [
        (&["--status-json", "--ssh-key", missing.to_str().unwrap()][..], ("A", "b"), 2),
        (&["--status-json", "--no-such-flag"], ("A", "b"), 2),
        (&["--status-json", "--host"], ("A", "b"), 2),
        (&["status", "--json"], ("UA_REMOTE_SYNC_INTERVAL_SEC", "soon"), 2),
        (&["status", "--json"], ("UA_SSH_KEYS_PORT", "1"), 20),
        (&["status", "--json"], ("UA_BREAK_GLASS", "0"), 14),
        (&["status", "--json"], ("UA_REMOTE_WORKSPACES_DIR", "/no/such/dir"), 1),
        (&["status", "--json"], ("UA_REPO_DIR", "/no/such/dir"), 2),
    ] {
        let output = vps.command(args).env(env.0, env.1).output().unwrap();
        let (out, err) = exits(&output, code);
        let status = object(&out);
        assert_eq!((&status["ok"], &status["pending_ready_count"]), (&false.into(), &0.into()), "{args:?}");
        assert!(!status["error"].as_str().unwrap().is_empty() && !err.is_empty(), "{args:?}: {out}{err}");
    }
}

#[test]
fn the_old_words_for_a_missing_key_come_before_anything_is_contacted() {
    let vps = Vps::new();
    let missing = vps.root().join("no such key");
    let words = format!("SSH key does not exist: {}", missing.display());
    for args in [&["--once"][..], &["pull", "session_1"], &["--status-json"], &["timer", "on"]] {
        let args = [args, &["--ssh-key", missing.to_str().unwrap()]].concat();
        let (_, err) = vps.ends(&args, 2);
        assert!(err.contains(&words), "{err}");
    }
    assert_eq!(vps.sshd.logins(), 0);
}

/// As the app's API server does it.
const CALLER: &str = r#"
import json, subprocess, sys
shims, key, host, id = sys.argv[1:5]
def call(*argv):
    done = subprocess.run(argv, capture_output=True, text=True, timeout=90, check=False)
    return done.returncode, done.stdout, done.stderr
code, out, err = call(f"{shims}/sync_remote_workspaces.sh", "--status-json", "--host", host, "--ssh-key", key)
assert code == 0, (code, out, err)
assert json.loads(out.strip().splitlines()[-1])["sync_state"] == "behind", out
code, out, err = call(f"{shims}/pull_remote_workspaces_now.sh", id, "--host", host, "--ssh-key", key)
assert code == 0, (code, out, err)
code, out, err = call(f"{shims}/sync_remote_workspaces.sh", "--once", "--host", host, "--ssh-key", key, "--ssh-port", "")
assert code == 0, (code, out, err)
code, out, err = call(f"{shims}/sync_remote_workspaces.sh", "--status-json", "--host", host, "--ssh-key", key)
assert json.loads(out.strip().splitlines()[-1])["sync_state"] == "in_sync", out
code, out, err = call(f"{shims}/pull_remote_workspaces_now.sh", "../..", "--host", host, "--ssh-key", key)
assert code == 2 and "../.." in err, (code, out, err)
print("done")
"#;

#[test]
fn the_shims_serve_a_python_caller() {
    let vps = Vps::new();
    vps.ended("session_1", 600);
    vps.ended("session_2", 600);
    let mut command = vps.command(&[]);
    let key = vps.place.home().join(".ssh/id_ed25519");
    let envs: Vec<_> =
        command.get_envs().map(|(name, value)| (name.to_owned(), value.map(ToOwned::to_owned))).collect();
    command = assert_cmd::Command::new("python3");
    for (name, value) in envs {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let output = command
        .env("UA_BIN_DIR", std::path::Path::new(common::BIN).parent().unwrap())
        .args(["-c", CALLER, shims().to_str().unwrap(), key.to_str().unwrap(), "root@127.0.0.1", "session_1"])
        .current_dir(vps.place.cwd())
        .output()
        .unwrap();
    let (out, _) = exits(&output, 0);
    assert_eq!(out.trim(), "done");
    assert_eq!(tree(&vps.mirror("session_2")), tree(&vps.remote("session_2")));
}

#[test]
fn a_shim_without_its_tool_falls_back_to_the_old_script_or_says_so() {
    let place = ua_tests::Place::new();
    let shim =
        place.file("cwd/scripts/sync_remote_workspaces.sh", fs::read(shims().join("shim.sh")).unwrap());
    ua_tests::mode(&shim, 0o755);
    let (_, err) = exits(&place.run(&shim).output().unwrap(), 127);
    assert!(err.contains("there is no ua-sync"), "{err}");
    let old = place
        .file("cwd/scripts/sync_remote_workspaces.old.sh", "#!/bin/sh\necho old \"$@\" \"$UA_REPO_DIR\"\n");
    ua_tests::mode(&old, 0o755);
    let (out, _) = exits(&place.run(&shim).arg("--once").output().unwrap(), 0);
    assert_eq!(out.trim(), format!("old --once {}", place.cwd().canonicalize().unwrap().display()));
}

#[test]
fn p113_a_mistyped_id_is_an_error_with_near_names() {
    let vps = Vps::new();
    vps.ended("session_20260221_abc", 600);
    for args in [&["pull", "session_20260221_abd"][..], &["--once", "--session-id", "session_20260221_abd"]] {
        let (_, err) = vps.ends(args, 1);
        assert!(err.contains("the nearest are `session_20260221_abc`"), "{err}");
    }
    // One that is there and not ready is named with its state, and the others come.
    vps.write("session_running/run.log", "", 600);
    let (_, err) = vps.ends(&["pull", "session_running", "session_20260221_abc"], 50);
    assert!(err.contains("session_running: running: it has no marker"), "{err}");
    assert!(vps.mirror("session_20260221_abc").exists());
    let (out, err) = vps.ends(&["pull", "session_running"], 50);
    assert!(out.contains("copied 0, unchanged 0, running 0, failed 1"), "{out}");
    assert!(err.contains("hint: ua-sync pull --ignore-ready-marker session_running\n"), "{err}");
    let (_, err) = vps.ends(&["pull", "--ignore-ready-marker", "session_running"], 0);
    assert!(err.contains("note: copied session_running\n"), "{err}");
    assert!(vps.mirror("session_running").exists());
}

#[test]
fn pull_reads_what_list_prints() {
    let vps = Vps::new();
    for id in ["session_1", "session_two words", "session_3"] {
        vps.ended(id, 600);
    }
    for flags in [&["-0"][..], &[]] {
        let (ids, _) = vps.ends(&[&["list", "--pending", "--format", "ids"], flags].concat(), 0);
        let output = vps.command(&["pull", "-", "--dry-run"]).write_stdin(ids).output().unwrap();
        let (out, _) = exits(&output, 0);
        assert_eq!(out.matches("would copy").count(), 3, "{out}");
    }
    // Nothing on stdin is nothing to do, not everything.
    let output = vps.command(&["pull", "-"]).write_stdin("").output().unwrap();
    exits(&output, 0);
    assert!(!vps.mirror("session_1").exists());
    let (out, _) = vps.ends(&["list", "--format", "json"], 0);
    let rows: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(rows.iter().all(|row| row["state"] == "pending" && row["files"] == 3), "{out}");
    let (out, _) = vps.ends(&["list", "--format", "tsv"], 0);
    let fields: Vec<&str> = out.lines().next().unwrap().split('\t').collect();
    assert_eq!(fields.len(), 6, "{fields:?}");
    assert!(
        fields[2].ends_with('Z') && fields[2].contains('T') && fields[4].parse::<u64>().is_ok(),
        "{fields:?}"
    );
    vps.ends(&["list", "--format", "json", "--json"], 2);
    let (out, _) = vps.ends(&["list", "--since", "1h", "--format", "ids"], 0);
    assert_eq!(out.lines().count(), 3);
    let (out, _) = vps.ends(&["list", "--since", "5m", "--format", "ids"], 0);
    assert_eq!(out, "");
    vps.ends(&["list", "--since", "yesterday"], 2);
}

#[test]
fn a_list_fits_the_terminal_and_its_ids_are_whole() {
    let vps = Vps::new();
    let long = format!("session_{}", "x".repeat(50));
    for id in ["session_20260221_101500_ab12", "session_2", &long] {
        vps.ended(id, 900);
    }
    let seen = ua_tests::terminal::run(&vps.command(&["list"]), 80);
    assert_eq!((seen.code, seen.wider_than(80)), (Some(0), Vec::new()), "{}", seen.raw);
    for id in ["session_20260221_101500_ab12", "session_2", &long] {
        assert!(seen.lines().iter().any(|line| line.split(' ').next() == Some(id)), "{}", seen.raw);
    }
    let (whole, _) = vps.ends(&["list"], 0);
    assert_eq!(whole.lines().count(), 4, "a line each: {whole}");
    assert!(whole.lines().all(|line| line.len() > 80), "{whole}");
}

#[test]
fn p105_bad_ids_are_refused_before_anything_is_contacted() {
    let vps = Vps::new();
    for id in ["..", "/etc", "a/b", "-x", "--host=root@evil", "a|b", ".git", "remote_vps_workspaces", "a\nb"]
    {
        for args in [
            &["pull", "--", id][..],
            &["pull", id],
            &["--once", "--session-id", id],
            &["prune", "--dry-run", "--", id],
        ] {
            let output = vps.run(args);
            assert_eq!(output.status.code(), Some(2), "{args:?}: {}", vps.shown(&output));
        }
    }
    vps.ends(&["once", "--session-id", ""], 2);
    vps.ends(&["pull", ""], 2);
    vps.ends(&["pull", "-h"], 0);
    assert_eq!(vps.sshd.logins(), 0);
}

#[test]
fn p133_every_flag_that_lacks_its_value_is_refused() {
    let vps = Vps::new();
    let flags = [
        "--host",
        "--remote-dir",
        "--local-dir",
        "--remote-artifacts-dir",
        "--local-artifacts-dir",
        "--manifest-file",
        "--interval",
        "--ssh-port",
        "--ssh-auth-mode",
        "--ssh-key",
        "--session-id",
        "--prune-min-age-seconds",
        "--gateway-url",
        "--ops-token",
        "--remote-toggle-path",
        "--ready-marker-name",
        "--ready-min-age-seconds",
        "--ready-session-prefix",
    ];
    for flag in flags {
        let (_, err) = vps.ends(&["--once", flag], 2);
        assert!(!err.is_empty(), "{flag}");
    }
    // A flag in the place of an id is no id.
    vps.ends(&["--session-id", "--once"], 2);
    assert_eq!(vps.sshd.logins(), 0);
}

#[test]
fn bad_values_are_named_with_where_they_stand() {
    let vps = Vps::new();
    for (args, words) in [
        (&["once", "--interval", "0"][..], "--interval: `0` is not"),
        (&["once", "--remote-dir", "relative"], "--remote-dir: `relative` is not"),
        (&["once", "--ready-marker-name", "a/b"], "--ready-marker-name: `a/b` is not"),
        (&["once", "--ready-min-age-seconds", "soon"], "--ready-min-age-seconds: `soon` is not"),
        (&["once", "--wait=soon"], "--wait: `soon` is not"),
        (&["once", "--max-delete", "many"], "invalid value 'many'"),
        (&["once", "--require-ready-marker", "--ignore-ready-marker"], "cannot be used with"),
        (&["ocne"], "unrecognized subcommand"),
    ] {
        let (_, err) = vps.ends(args, 2);
        assert!(err.contains(words), "{args:?}: {err}");
    }
    assert_eq!(vps.sshd.logins(), 0);
}

#[test]
fn p109_a_dead_or_refusing_vps_is_a_failure() {
    let vps = Vps::new();
    vps.ended("session_1", 600);
    let output = vps.command(&["once"]).env("UA_SSH_KEYS_PORT", "1").output().unwrap();
    exits(&output, 20);
    let other = vps.place.home().join("other");
    ua_tests::sshd::keygen(&other);
    vps.ends(&["once", "--ssh-key", other.to_str().unwrap()], 21);
    vps.ends(&["once", "--remote-dir", "/no/such/dir"], 1);
    assert!(!vps.mirror("session_1").exists());
}

#[test]
fn p111_a_vps_without_rsync_or_with_a_greeting_is_told_apart() {
    let programs = tempfile::tempdir().unwrap();
    let own = |name: &str| std::os::unix::fs::symlink(format!("/usr/bin/{name}"), programs.path().join(name));
    for name in ["sh", "bash", "env", "date", "find", "awk", "tar"] {
        own(name).unwrap();
    }
    let vps = Vps::with_sshd(&format!("SetEnv PATH={}", programs.path().display()));
    vps.ended("session_1", 600);
    let (_, err) = vps.ends(&["once"], 1);
    assert!(err.contains("there is no program gzip on the VPS"), "{err}");
    own("gzip").unwrap();
    let (_, err) = vps.ends(&["once"], 32);
    assert!(err.contains("sudo apt-get install rsync  # on the VPS"), "{err}");
    assert!(!vps.mirror("session_1").exists());
    let greeting =
        Vps::with_sshd("ForceCommand echo Welcome to the VPS; exec sh -c \"$SSH_ORIGINAL_COMMAND\"");
    greeting.ended("session_1", 600);
    let status = object(&greeting.ends(&["status", "--json"], 0).0);
    assert_eq!(status["ready_total_count"], 1);
    let (_, err) = greeting.ends(&["once"], 32);
    assert!(err.contains("its start-up files must be silent"), "{err}");
    assert!(!greeting.mirror("session_1").exists());
}

#[test]
fn p126_one_run_at_a_time_and_the_loser_names_the_holder() {
    let vps = Vps::new();
    vps.ended("session_1", 600);
    // A run that has the lock for a while: its rsync waits.
    let go = vps.root().join("go");
    vps.place.program(
        "rsync",
        &format!(
            "#!/bin/sh\nwhile [ ! -e '{}' ]; do sleep 0.05; done\nexec /usr/bin/rsync \"$@\"\n",
            go.display()
        ),
    );
    std::thread::scope(|scope| {
        let first = scope.spawn(|| vps.run(&["once"]));
        let lock = vps.state("synced_workspaces.txt.lock");
        let start = Instant::now();
        while fs::read_to_string(&lock).unwrap_or_default().is_empty() {
            assert!(start.elapsed() < Duration::from_secs(20));
            std::thread::sleep(Duration::from_millis(20));
        }
        let (_, err) = vps.ends(&["once"], 30);
        assert!(err.contains("another run has the mirror") && err.contains("ua-sync once by "), "{err}");
        // Not even with a manifest of its own.
        let other = vps.state("other.txt");
        vps.ends(&["once", "--manifest-file", other.to_str().unwrap()], 30);
        vps.ends(&["pull", "session_1", "--wait=0"], 30);
        let waiting = scope.spawn(|| vps.run(&["once", "--wait"]));
        std::thread::sleep(Duration::from_millis(300));
        fs::write(&go, "").unwrap();
        exits(&first.join().unwrap(), 0);
        exits(&waiting.join().unwrap(), 0);
    });
    assert_eq!(tree(&vps.mirror("session_1")), tree(&vps.remote("session_1")));
}

#[test]
fn p128_a_caller_that_is_killed_leaves_nothing_running() {
    let vps = Vps::new();
    vps.write("session_1/big.bin", common::noise(1 << 20), 600);
    vps.marker("session_1", 600, "completed");
    // Slow enough to be met in the middle.
    let command = vps.command(&["once"]);
    vps.place.program("rsync", "#!/bin/sh\nexec /usr/bin/rsync --bwlimit=20 \"$@\"\n");
    let mut child = spawn(&command).spawn().unwrap();
    let start = Instant::now();
    while running(&vps) < 3 {
        assert!(start.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    // Nobody holds the caller's pipes open.
    let mut rest = String::new();
    child.stdout.take().unwrap().read_to_string(&mut rest).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut rest).unwrap();
    child.wait().unwrap();
    let start = Instant::now();
    while running(&vps) > 0 {
        assert!(start.elapsed() < Duration::from_secs(5), "{} processes are left", running(&vps));
        std::thread::sleep(Duration::from_millis(20));
    }
    vps.place.program("rsync", "#!/bin/sh\nexec /usr/bin/rsync \"$@\"\n");
    vps.ends(&["once"], 0);
    assert_eq!(tree(&vps.mirror("session_1")), tree(&vps.remote("session_1")));
}

fn spawn(command: &assert_cmd::Command) -> Command {
    let mut child = Command::new(command.get_program());
    child
        .args(command.get_args())
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    child.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    child.current_dir(command.get_current_dir().unwrap());
    child
}

/// Processes on this side that have the test's directory in their arguments: the tool, ssh and rsync.
fn running(vps: &Vps) -> usize {
    let pattern = format!("^(ssh|rsync|/usr/bin/(ssh|rsync)).*{}", vps.root().display());
    let listed = Command::new("pgrep").args(["-f", "--count", &pattern]).output().unwrap();
    String::from_utf8(listed.stdout).unwrap().trim().parse().unwrap()
}

#[test]
fn p130_watch_prints_a_line_for_a_change_and_ends_at_once_on_sigterm() {
    let vps = Vps::new();
    vps.ended("session_1", 600);
    vps.write("session_running/run.log", "", 600);
    let mut child = spawn(&vps.command(&["watch", "--interval", "0.2"])).spawn().unwrap();
    let wait = |id: &str| {
        let start = Instant::now();
        while !vps.mirror(id).exists() {
            assert!(start.elapsed() < Duration::from_secs(20), "{id}");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    wait("session_1");
    // Several runs with nothing new.
    std::thread::sleep(Duration::from_secs(2));
    vps.ended("session_2", 600);
    wait("session_2");
    std::thread::sleep(Duration::from_millis(1500));
    let start = Instant::now();
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    let status = child.wait().unwrap();
    assert!(start.elapsed() < Duration::from_secs(5));
    assert_eq!(status.code(), Some(0));
    let mut err = String::new();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    let lines: Vec<&str> = err.lines().filter(|line| line.starts_with("note:")).collect();
    assert_eq!(lines.len(), 3, "{err}");
    assert_eq!(lines[0], "note: looks every 200ms, a line for each change; Ctrl-C ends it");
    assert!(lines[1].ends_with("copied 1: session_1") && lines[2].ends_with("copied 1: session_2"), "{err}");
}

#[test]
fn watch_says_once_that_the_vps_is_away() {
    let vps = Vps::new();
    let command = {
        let mut command = vps.command(&["watch", "--interval", "0.2"]);
        command.env("UA_SSH_KEYS_PORT", "1");
        command
    };
    let mut child = spawn(&command).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(3));
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let mut err = String::new();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    assert_eq!(err.matches("next try in").count(), 1, "{err}");
}

#[test]
fn p110_the_toggle_is_off_by_default_and_nothing_is_copied_without_its_word() {
    let vps = Vps::new();
    vps.ended("session_1", 600);
    // No token: nobody can be asked.
    let (_, err) = vps.ends(&["once", "--respect-remote-toggle"], 1);
    assert!(err.contains("there is no UA_OPS_TOKEN"), "{err}");
    // No answer.
    let args = ["once", "--respect-remote-toggle", "--gateway-url", "https://127.0.0.1:1"];
    let output = vps.command(&args).env("UA_OPS_TOKEN", "secret").output().unwrap();
    exits(&output, 1);
    // Without encryption it is not even asked.
    let args = ["once", "--respect-remote-toggle", "--gateway-url", "http://127.0.0.1:1"];
    let output = vps.command(&args).env("UA_OPS_TOKEN", "secret").output().unwrap();
    let (out, err) = exits(&output, 2);
    assert!(!out.contains("secret") && !err.contains("secret"));
    assert_eq!(vps.sshd.logins(), 0);
    assert!(!vps.mirror("session_1").exists());
}

#[test]
fn p131_the_token_is_taken_from_an_old_flag_with_a_warning_and_never_by_a_timer() {
    let vps = Vps::new();
    let (_, err) = vps.ends(&["--once", "--ops-token", "hunter2"], 0);
    assert!(err.contains("set UA_OPS_TOKEN instead") && !err.contains("hunter2"), "{err}");
    let (_, err) = vps.ends(&["timer", "on", "--ops-token", "hunter2"], 2);
    assert!(!err.contains("hunter2"), "{err}");
    let (out, _) = vps.ends(&["timer", "on", "--dry-run", "--interval", "10m", "--no-artifacts"], 0);
    assert!(out.contains("\"--no-artifacts\"") || out.contains(" --no-artifacts"), "{out}");
    assert!(out.contains("--respect-remote-toggle") && out.contains("--remote-dir"), "{out}");
}

#[test]
fn p135_keys_and_ports_of_the_mirror_go_before_those_of_all_tools() {
    let vps = Vps::new();
    vps.ended("session_1", 600);
    let run = |envs: &[(&str, &str)]| {
        let mut command = vps.command(&["once"]);
        command.env("UA_VPS_SSH_KEY", "/no/such/key").env("UA_SSH_KEYS_PORT", "1");
        command.envs(envs.iter().copied()).output().unwrap()
    };
    let (key, port) = (vps.place.home().join(".ssh/id_ed25519"), vps.sshd.port.to_string());
    exits(&run(&[]), 2);
    exits(&run(&[("UA_REMOTE_SSH_KEY", key.to_str().unwrap()), ("UA_REMOTE_SSH_PORT", &port)]), 0);
    assert!(vps.mirror("session_1").exists());
}

#[test]
fn a_closed_stdout_does_not_stop_the_work() {
    let vps = Vps::new();
    vps.ended("session_1", 600);
    let mut command = spawn(&vps.command(&["once"]));
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(vps.mirror("session_1").exists());
}

#[test]
fn help_asks_nobody() {
    let place = ua_tests::Place::new();
    for args in
        [&["--help"][..], &["once", "--help"], &["timer", "on", "--help"], &["--version"], &["help", "pull"]]
    {
        let output = place.run(common::BIN).args(args).output().unwrap();
        exits(&output, 0);
    }
    let (out, _) = exits(&place.run(common::BIN).args(["once", "--help"]).output().unwrap(), 0);
    assert!(out.contains("Examples:"), "{out}");
}
