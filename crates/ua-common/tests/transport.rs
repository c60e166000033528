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
use ua_common::tool::ssh::Target;
use ua_common::transport::{Script, Transport, TransportError};
use ua_tests::Place;
use ua_tests::sshd::{Sshd, keygen};

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
        user: "root".to_owned(),
        name: "vps.tailnet.test".to_owned(),
        addresses: vec!["127.0.0.1".parse().unwrap()],
        port: sshd.port,
        auth: AuthMode::Keys,
        key: SshKey::File(sshd.key()),
        in_tailnet: true,
        host_keys: vec![sshd.host_key()],
        connect_timeout: Duration::from_secs(5),
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
        let (exit, said) = exit_of(Target { host_keys: vec![other], ..target(&sshd) });
        assert_eq!(exit, Exit::HostKey, "{said}");
        // Without keys of the tailnet the user's own known_hosts decides, and it knows nobody.
        let (exit, said) = exit_of(Target { host_keys: Vec::new(), ..target(&sshd) });
        assert_eq!(exit, Exit::HostKey, "{said}");

        let gone = Target { port: 1, ..target(&sshd) };
        let (exit, said) = exit_of(gone);
        assert_eq!(exit, Exit::SshUnreachable, "{said}");
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
        let _transport = open(target(&sshd)).unwrap();
        assert_eq!(std::fs::read_dir(&runs).unwrap().count(), 1, "the dead run's directory is still there");
    });
}

/// Processes of ssh whose configuration lies below `runs`.
fn masters(runs: &Path) -> Vec<String> {
    let found = Command::new("pgrep").args(["-f", &format!("^ssh -F {}", runs.display())]).output().unwrap();
    String::from_utf8(found.stdout).unwrap().lines().map(str::to_owned).collect()
}
