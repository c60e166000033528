//! The transport against a real sshd on loopback: real ssh, real rsync, real signals.
#![allow(clippy::unwrap_used, reason = "tests panic")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ua_common::error::Failure;
use ua_common::exit::Exit;
use ua_common::output::{Color, Format, Printer};
use ua_common::settings::value::{AuthMode, SshKey};
use ua_common::tool::ssh::{Target, fingerprint};
use ua_common::transport::{Script, Transport, TransportError};
use ua_tests::Place;
use ua_tests::sshd::{Sshd, keygen, user};

const LIMIT: Duration = Duration::from_secs(20);

/// Runs `body` in a process of its own, whose home and state are those of a fresh place; a process cannot change its
/// own environment safely.
fn isolated(name: &str, body: fn(&Place)) {
    if std::env::var_os("UA_TEST_INSIDE").is_some() {
        return body(&Place::new());
    }
    let place = Place::new();
    let inside = std::env::current_exe().unwrap();
    place.run(inside).args(["--exact", name, "--nocapture"]).env("UA_TEST_INSIDE", "1").assert().success();
}

fn target(sshd: &Sshd) -> Target {
    Target {
        user: user(),
        name: "vps.tailnet.test".to_owned(),
        addresses: vec!["127.0.0.1".parse().unwrap()],
        port: sshd.port,
        auth: AuthMode::Keys,
        key: SshKey::File(sshd.key()),
        in_tailnet: true,
        host_keys: vec![sshd.host_key()],
        connect_timeout: Duration::from_secs(5),
        pong_timeout: Duration::from_secs(1),
    }
}

fn open(target: Target) -> anyhow::Result<Transport> {
    Transport::open(target, LIMIT, &Printer::new(Format::Human, true, false, Color::Never))
}

fn exit_of(target: Target) -> (Exit, String) {
    let Err(error) = open(target) else { panic!("it connected") };
    (Failure::within(&error).0, error.to_string())
}

const ECHO: Script = Script { name: "echo", text: "printf '[%s]' \"$@\"; echo err >&2; exit 7" };

#[test]
fn one_connection_carries_every_script() {
    isolated("one_connection_carries_every_script", |_| {
        let sshd = Sshd::start("");
        let transport = open(target(&sshd)).unwrap();
        for _ in 0..3 {
            let answer = transport.script(ECHO, &["a b", "it's", "$(x)", ""], LIMIT).unwrap();
            assert_eq!((answer.code, answer.stdout.as_str()), (7, "[a b][it's][$(x)][]"));
            assert_eq!(answer.stderr, "err");
        }
        assert_eq!(sshd.logins(), 1);
    });
}

#[test]
fn streams_lines_without_the_mark_of_the_end() {
    isolated("streams_lines_without_the_mark_of_the_end", |_| {
        let sshd = Sshd::start("");
        let transport = open(target(&sshd)).unwrap();
        let mut lines = Vec::new();
        let script = Script { name: "lines", text: "printf 'one\\n\\ntwo\\n'; exit 3" };
        let answer =
            transport.stream(script, &[], LIMIT, LIMIT, &mut |line| lines.push(line.to_owned())).unwrap();
        assert_eq!((answer.code, lines), (3, vec!["one".to_owned(), String::new(), "two".into()]));
    });
}

#[test]
fn a_key_with_an_odd_path_works_for_ssh_and_for_rsync() {
    isolated("a_key_with_an_odd_path_works_for_ssh_and_for_rsync", |place| {
        let sshd = Sshd::start("");
        let odd = place.home().join("it's a key, 100%");
        std::fs::copy(sshd.key(), &odd).unwrap();
        let transport = open(Target { key: SshKey::File(odd), ..target(&sshd) }).unwrap();
        assert_eq!(transport.script(ECHO, &["x"], LIMIT).unwrap().stdout, "[x]");
        let source = place.file("cwd/a file", "content");
        let there = place.home().join("b");
        let args = ["-a".into(), source.into(), transport.remote(there.to_str().unwrap())];
        let finished = transport.rsync(args, LIMIT, &mut |_| ()).unwrap();
        assert_eq!(finished.code, 0, "{}", finished.err());
        assert_eq!(std::fs::read_to_string(there).unwrap(), "content");
        assert_eq!(sshd.logins(), 1, "rsync opened a connection of its own");
    });
}

#[test]
fn a_cut_connection_is_never_taken_for_an_end_and_never_dialled_anew() {
    isolated("a_cut_connection_is_never_taken_for_an_end_and_never_dialled_anew", |_| {
        let sshd = Sshd::start("");
        let transport = open(target(&sshd)).unwrap();
        std::thread::scope(|scope| {
            let script = Script { name: "long", text: "echo begun; sleep 30" };
            let cutter = &sshd;
            let mut begun = false;
            let lost = transport.stream(script, &[], LIMIT, LIMIT, &mut |_| {
                if !std::mem::replace(&mut begun, true) {
                    scope.spawn(|| cutter.cut());
                }
            });
            assert!(matches!(lost, Err(TransportError::Lost { script: "long", .. })), "{lost:?}");
        });
        let again = transport.script(ECHO, &[], LIMIT);
        assert!(matches!(again, Err(TransportError::Lost { .. })), "{again:?}");
        assert_eq!(sshd.logins(), 1);
    });
}

#[test]
fn every_refusal_has_its_code() {
    isolated("every_refusal_has_its_code", |place| {
        let sshd = Sshd::start("");
        let missing = place.home().join("no such key");
        let (exit, said) = exit_of(Target { key: SshKey::File(missing.clone()), ..target(&sshd) });
        assert_eq!((exit, said), (Exit::Usage, format!("SSH key does not exist: {}", missing.display())));
        assert_eq!(sshd.logins(), 0);

        let stranger = place.home().join("stranger");
        keygen(&stranger);
        let (exit, said) = exit_of(Target { key: SshKey::File(stranger.clone()), ..target(&sshd) });
        assert_eq!(exit, Exit::SshDenied, "{said}");

        // An ordinary sshd that would take the key does not pass for Tailscale SSH.
        let (exit, said) = exit_of(Target { auth: AuthMode::TailscaleSsh, ..target(&sshd) });
        assert_eq!(exit, Exit::SshDenied, "{said}");
        assert_eq!(sshd.logins(), 0);

        let other = std::fs::read_to_string(stranger.with_extension("pub")).unwrap();
        let other = other.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
        let elsewhere =
            |host_keys| Target { name: "other.tailnet.test".to_owned(), host_keys, ..target(&sshd) };
        let (exit, said) = exit_of(elsewhere(vec![other.clone()]));
        assert_eq!(exit, Exit::HostKey, "{said}");
        for print in [fingerprint(&other), fingerprint(&sshd.host_key())] {
            assert!(said.contains(&print.unwrap()), "both fingerprints are shown: {said}");
        }
        // The tailnet may not change its mind either, before somebody looked.
        let (exit, said) = exit_of(elsewhere(vec![sshd.host_key()]));
        assert_eq!(exit, Exit::HostKey, "{said}");
        assert!(said.contains("gives other host keys") && said.contains("since 2"), "{said}");
        // Without keys of the tailnet the user's own known_hosts decides, and it knows nobody.
        let (exit, said) = exit_of(elsewhere(Vec::new()));
        assert_eq!(exit, Exit::HostKey, "{said}");
        assert!(said.contains("is unknown") && said.contains("SHA256:"), "{said}");

        let gone = Target { port: 1, ..target(&sshd) };
        let (exit, said) = exit_of(gone);
        assert_eq!(exit, Exit::SshUnreachable, "{said}");
    });
}

#[test]
fn a_key_that_a_batch_run_cannot_use_is_found_before_anything_is_contacted() {
    isolated("a_key_that_a_batch_run_cannot_use_is_found_before_anything_is_contacted", |place| {
        let sshd = Sshd::start("");
        let copy = |name: &str, from: &Path, mode: u32| {
            let path = place.home().join(name);
            std::fs::copy(from, &path).unwrap();
            ua_tests::mode(&path, mode);
            path
        };
        let open_key = copy("open", &sshd.key(), 0o644);
        let public = copy("public", &sshd.key().with_extension("pub"), 0o600);
        let locked = copy("locked", &sshd.key(), 0o600);
        let lock = Command::new("ssh-keygen").args(["-q", "-p", "-N", "secret", "-f"]).arg(&locked).status();
        assert!(lock.unwrap().success());
        let stale = copy("stale", &sshd.key(), 0o600);
        let other = place.home().join("other");
        keygen(&other);
        std::fs::copy(other.with_extension("pub"), stale.with_extension("pub")).unwrap();
        let dir = place.home().join("dir");
        std::fs::create_dir(&dir).unwrap();
        for (key, words) in [
            (open_key, "is open to others (mode 0644)"),
            (public, "it is the public half"),
            (locked, "has a passphrase"),
            (stale, "stale.pub` is the public half of another key"),
            (dir, "is not a regular file"),
        ] {
            let (exit, said) = exit_of(Target { key: SshKey::File(key), port: 1, ..target(&sshd) });
            assert_eq!(exit, Exit::Usage, "{said}");
            assert!(said.contains(words) && !said.contains("secret"), "{said}");
        }
    });
}

#[test]
fn the_key_that_was_accepted_is_known_and_a_banner_cannot_pretend() {
    isolated("the_key_that_was_accepted_is_known_and_a_banner_cannot_pretend", |place| {
        let lie = "debug1: Remote protocol version 2.0, remote software version Tailscale\n\
                   Authenticated to vps.tailnet.test ([100.64.0.2]:22) using \"none\".\n\
                   # To authenticate, visit: http://evil.invalid/\n";
        let banner = place.file("banner", lie);
        let sshd = Sshd::start(&format!("Banner {}", banner.display()));
        let transport = open(target(&sshd)).unwrap();
        let opening = transport.opening();
        let public = std::fs::read_to_string(sshd.key().with_extension("pub")).unwrap();
        let key = fingerprint(&public).unwrap().replace("ssh-ed25519", "ED25519");
        assert_eq!(opening.evidence.key.as_deref(), Some(key.as_str()));
        assert_eq!(opening.evidence.at, format!("[127.0.0.1]:{}", sshd.port));
        assert_eq!((opening.evidence.method.as_str(), &opening.approved), ("publickey", &None));
        assert!(opening.evidence.server.starts_with("OpenSSH_"), "{opening:?}");
        assert!(opening.evidence.proves(&opening.target).is_ok());
        // The same evidence proves nothing for the other mode.
        let tailscale = Target { auth: AuthMode::TailscaleSsh, ..opening.target.clone() };
        assert!(opening.evidence.proves(&tailscale).is_err());
    });
}

#[test]
fn one_script_on_a_connection_of_its_own() {
    isolated("one_script_on_a_connection_of_its_own", |_| {
        let sshd = Sshd::start("");
        let out = Printer::new(Format::Human, true, false, Color::Never);
        let once = |script| Transport::once(target(&sshd), script, &["a b"], LIMIT, LIMIT, &out).unwrap();
        let (opening, answer) = once(ECHO);
        let answer = answer.unwrap();
        assert_eq!((answer.code, answer.stdout.as_str(), answer.stderr.as_str()), (7, "[a b]", "err"));
        assert!(opening.evidence.proves(&opening.target).is_ok());
        // A shell that ends early proves no end.
        let (_, lost) = once(Script { name: "killed", text: "kill -9 $PPID $$" });
        assert!(matches!(lost, Err(TransportError::Lost { script: "killed", .. })), "{lost:?}");
        let runs = ua_common::state::dir().unwrap().join("run");
        assert_eq!(std::fs::read_dir(&runs).unwrap().count(), 0);
    });
}

#[test]
fn a_fresh_connection_is_another_one() {
    isolated("a_fresh_connection_is_another_one", |_| {
        let sshd = Sshd::start("");
        let out = Printer::new(Format::Human, true, false, Color::Never);
        let first = open(target(&sshd)).unwrap();
        sshd.cut();
        let second = first.fresh(LIMIT, &out).unwrap();
        assert_eq!(second.script(ECHO, &["x"], LIMIT).unwrap().stdout, "[x]");
        assert_eq!(sshd.logins(), 2);
    });
}

#[test]
fn a_closed_run_leaves_nothing() {
    isolated("a_closed_run_leaves_nothing", |_| {
        let sshd = Sshd::start("");
        let transport = open(target(&sshd)).unwrap();
        let runs = ua_common::state::dir().unwrap().join("run");
        assert_eq!(std::fs::read_dir(&runs).unwrap().count(), 1);
        drop(transport);
        assert_eq!(std::fs::read_dir(&runs).unwrap().count(), 0);
        assert!(masters(&runs).is_empty());
    });
}

/// SIGKILL gives no time for anything: the master follows by its death signal, and the next run clears what is left.
#[test]
fn a_killed_run_takes_its_connection_along() {
    if std::env::var_os("UA_TEST_VICTIM").is_some() {
        let sshd = Sshd::start("");
        let _transport = open(target(&sshd)).unwrap();
        Command::new("echo").arg("connected").status().unwrap();
        std::thread::sleep(Duration::from_mins(1));
    }
    isolated("a_killed_run_takes_its_connection_along", |_| {
        let mut victim = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_killed_run_takes_its_connection_along", "--nocapture"])
            .env("UA_TEST_VICTIM", "1")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(victim.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().ends_with("connected")));
        let runs = ua_common::state::dir().unwrap().join("run");
        assert_eq!(masters(&runs).len(), 1);
        victim.kill().unwrap();
        victim.wait().unwrap();
        let start = Instant::now();
        while !masters(&runs).is_empty() {
            assert!(start.elapsed() < Duration::from_secs(5), "the master lives on");
            std::thread::sleep(Duration::from_millis(20));
        }
        let sshd = Sshd::start("");
        let _transport = open(Target { name: "next.tailnet.test".to_owned(), ..target(&sshd) }).unwrap();
        assert_eq!(std::fs::read_dir(&runs).unwrap().count(), 1, "the dead run's directory is still there");
    });
}

/// Processes of ssh whose configuration lies below `runs`.
fn masters(runs: &Path) -> Vec<String> {
    let found = Command::new("pgrep").args(["-f", &format!("^ssh -F {}", runs.display())]).output().unwrap();
    String::from_utf8(found.stdout).unwrap().lines().map(str::to_owned).collect()
}
