//! The binary by itself: what it refuses before anything is contacted, and what it says of a machine without a usable
//! tailscale. Everything that needs a peer is tested in the lab.
#![allow(clippy::unwrap_used, reason = "tests panic")]

use std::os::unix::ffi::OsStringExt;

use ua_tests::{Place, mode};

const BIN: &str = env!("CARGO_BIN_EXE_ua-preflight");

/// Runs in a place whose `tailscale` is healthy, and insists that it was never called.
fn refused(place: &Place, args: &[&str], env: &[(&str, &str)]) -> String {
    place.tailscale("healthy");
    let output = place.run(BIN).args(args).envs(env.iter().copied()).output().unwrap();
    assert_eq!(place.tailscale_calls(), [""; 0], "tailscale was asked before the input was judged");
    assert!(output.stdout.is_empty(), "stdout is data only: {}", place.shown(&output));
    assert_eq!(output.status.code(), Some(2), "{}", place.shown(&output));
    place.shown(&output).split_once("--- stderr\n").unwrap().1.trim_end().to_owned()
}

#[test]
fn p01_help_and_typos_check_nothing() {
    let place = Place::new();
    place.tailscale("healthy");
    for args in [["--help"].as_slice(), &["--version"], &["--hlep"], &["--dry-run"]] {
        let output = place.run(BIN).args(args).output().unwrap();
        let wanted = if args[0] == "--help" || args[0] == "--version" { 0 } else { 2 };
        assert_eq!(output.status.code(), Some(wanted), "{args:?}");
    }
    assert_eq!(place.tailscale_calls(), [""; 0]);
}

#[test]
fn p03_an_unknown_mode_word_is_an_error_and_required_is_never_skipped_in_silence() {
    let place = Place::new();
    let said = refused(&place, &[], &[("UA_TAILNET_PREFLIGHT", "requird")]);
    insta::assert_snapshot!(said, @"error: UA_TAILNET_PREFLIGHT: `requird` is not one of `auto`, `always` (= 1, true, yes, on, force, required), `never` (= 0, false, no, off, disabled) (setting `preflight.mode`)");
    let output = place
        .run(BIN)
        .env("UA_TAILNET_PREFLIGHT", "required")
        .env("UA_SKIP_TAILNET_PREFLIGHT", "1")
        .output()
        .unwrap();
    insta::assert_snapshot!(place.shown(&output), @"
    exit: 2
    --- stdout
    FAIL preflight  preflight.mode = always (UA_TAILNET_PREFLIGHT) and preflight.skip = true (UA_SKIP_TAILNET_PREFLIGHT) contradict each other: a preflight that is always made cannot be skipped
    vps: FAIL root@srv1360701.taildcc090.ts.net: exit 2 (usage)
    --- stderr
    error: preflight: preflight.mode = always (UA_TAILNET_PREFLIGHT) and preflight.skip = true (UA_SKIP_TAILNET_PREFLIGHT) contradict each other: a preflight that is always made cannot be skipped
    hint: ua-preflight --preflight auto
    ");
    assert_eq!(place.tailscale_calls(), [""; 0]);
}

#[test]
fn p05_errors_go_to_stderr() {
    let place = Place::new();
    let output = place.run(BIN).arg("--host").arg("nobody").output().unwrap();
    assert!(output.stdout.is_empty());
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("error: "));
    // A report is data and stays on stdout; the error in it is said on stderr all the same.
    place.tailscale("daemon-stopped");
    let output = place.run(BIN).output().unwrap();
    assert!(
        String::from_utf8_lossy(&output.stderr).starts_with("error: tailscale.daemon: "),
        "{}",
        place.shown(&output)
    );
}

#[test]
fn p47_a_host_that_begins_with_a_dash_is_no_option() {
    let place = Place::new();
    for args in
        [["--host", "-oProxyCommand=reboot"].as_slice(), &["--host=-x"], &["--host", "root@-oProxyCommand=x"]]
    {
        let said = refused(&place, args, &[]);
        assert!(said.contains("--host: `") && said.contains("begins with `-`"), "{said}");
    }
    let said = refused(&place, &[], &[("UA_VPS_HOST", "-oProxyCommand=reboot")]);
    insta::assert_snapshot!(said, @"error: UA_VPS_HOST: `-oProxyCommand=reboot` is not `user@name` with a MagicDNS name (setting `host.vps`): it begins with `-`, which programs take for an option");
}

#[test]
fn bad_input_names_where_it_came_from_and_contacts_nothing() {
    let place = Place::new();
    let flags: &[&[&str]] = &[
        &["--no-such-flag"],
        &["--host", ""],
        &["srv1360701.taildcc090.ts.net"],
        &["root@a\nb"],
        &["root@a", "--host", "root@b"],
        &["--wait", "soon"],
    ];
    let variables = [
        ("UA_TAILNET_PREFLIGHT_TIMEOUT", "3x"),
        ("UA_TAILNET_PREFLIGHT_TIMEOUT", "0"),
        ("UA_SSH_KEYS_PORT", "70000"),
        ("UA_BREAK_GLASS", "perhaps"),
        ("UA_CONFIG", "missing.toml"),
    ];
    let mut said: Vec<String> = flags.iter().map(|args| refused(&place, args, &[])).collect();
    said.extend(variables.iter().map(|variable| refused(&place, &[], &[*variable])));
    let said: Vec<&str> = said.iter().filter_map(|said| said.lines().next()).collect();
    insta::assert_snapshot!(said.join("\n"));
}

#[test]
fn a_variable_that_is_not_text_is_named() {
    let place = Place::new();
    place.tailscale("healthy");
    let value = std::ffi::OsString::from_vec(vec![b'a', 0xff]);
    let output = place.run(BIN).env("UA_VPS_HOST", value).output().unwrap();
    insta::assert_snapshot!(place.shown(&output), @"
    exit: 2
    --- stdout
    --- stderr
    error: UA_VPS_HOST: `a�` is not UTF-8 text
    ");
    assert_eq!(place.tailscale_calls(), [""; 0]);
}

#[test]
fn a_project_file_is_judged_before_it_is_believed() {
    let place = Place::new();
    let mut said = Vec::new();
    for text in [
        "[host]\nvsp = \"root@x.y\"\n",
        "[host]\nvps = \n",
        "[host]\nvps = \"root@x.y\"\n[preflight]\ntimeout = \"soon\"\n",
        "[preflight]\nmode = \"requird\"\n",
        "[ssh]\nkey = \"/tmp/k\"\n",
        "[host]\nbreak_glass = true\n",
        "[ops]\ngateway_url = \"https://x\"\n",
        "vps = 1\n",
        "[preflight]\ntimeout = { a = 1 }\n",
    ] {
        place.file("cwd/ua.toml", text);
        said.push(refused(&place, &[], &[]));
    }
    place.file("cwd/ua.toml", "[preflight]\ntimeout = 5\n");
    mode(&place.cwd().join("ua.toml"), 0o666);
    said.push(refused(&place, &[], &[]));
    std::fs::remove_file(place.cwd().join("ua.toml")).unwrap();
    std::fs::create_dir(place.cwd().join("ua.toml")).unwrap();
    said.push(refused(&place, &[], &[]));
    insta::assert_snapshot!(said.join("\n").replace(&place.cwd().display().to_string(), "[CWD]"));
}

#[test]
fn a_file_of_somebody_else_is_not_trusted() {
    if !ua_tests::is_root() {
        return ua_tests::skip("only root can give a file away");
    }
    let place = Place::new();
    let file = place.file("cwd/ua.toml", "[preflight]\ntimeout = 5\n");
    std::os::unix::fs::chown(&file, Some(12_345), None).unwrap();
    let said = refused(&place, &[], &[]);
    assert!(said.contains("user id 12345 owns it, neither you (0) nor root"), "{said}");
    assert!(said.contains("hint: sudo chown 0 "), "{said}");
}

#[test]
fn a_project_file_in_the_mirror_is_not_trusted() {
    let place = Place::new();
    let mirror = "cwd/AGENT_RUN_WORKSPACES/remote_vps_workspaces/session_1";
    place.file(&format!("{mirror}/ua.toml"), "[preflight]\nmode = \"never\"\n");
    std::fs::create_dir(place.cwd().join(".git")).unwrap();
    place.tailscale("healthy");
    let inside = place.cwd().join("AGENT_RUN_WORKSPACES/remote_vps_workspaces/session_1");
    let output = place.run(BIN).current_dir(inside).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", place.shown(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains("it lies in the mirror"));
}

#[test]
fn policy_is_judged_by_the_tailnet_and_its_hint_is_the_exact_replacement() {
    let place = Place::new();
    place.tailscale("healthy");
    let run = |args: &[&str], env: &[(&str, &str)]| {
        let output = place.run(BIN).args(args).envs(env.iter().copied()).output().unwrap();
        place
            .shown(&output)
            .lines()
            .filter(|line| !line.contains("tailscale."))
            .collect::<Vec<_>>()
            .join("\n")
    };
    let said = [
        run(&["root@100.64.0.2"], &[]),
        run(&[], &[("UA_VPS_HOST", "root@100.64.0.2")]),
        run(&[], &[("UA_VPS_HOST", "root@203.0.113.7")]),
        run(&["root@srv1360701.other.ts.net"], &[]),
        run(&["--host", "root@100.example.com"], &[]),
        run(&["root@srv1360710"], &[]),
        run(&["root@srv1360710.taildcc090.ts.net"], &[]),
    ];
    insta::assert_snapshot!(said.join("\n\n"));
}

#[test]
fn p54_membership_is_the_tailnets_own_word_not_a_glob() {
    let place = Place::new();
    place.tailscale("healthy");
    // A name that looks like an address, and one that looks like a tailnet's: both are strangers.
    for (host, code) in [("root@100.example.com", 14), ("root@x.tail99999.ts.net", 14)] {
        let output = place.run(BIN).arg(host).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", place.shown(&output));
    }
    assert!(place.tailscale_calls().iter().all(|call| call == "status --json"), "nobody was pinged");
}

#[test]
fn skipping_is_visible_and_still_judges_the_form() {
    let place = Place::new();
    place.tailscale("healthy");
    let output = place.run(BIN).args(["--preflight", "off"]).output().unwrap();
    insta::assert_snapshot!(place.shown(&output), @"
    exit: 0
    --- stdout
    warn preflight    the tailnet is not checked, by --preflight
    ok   host.policy  `srv1360701.taildcc090.ts.net` has the form that is asked for
    vps: warn root@srv1360701.taildcc090.ts.net
    --- stderr
    ");
    for host in ["root@100.64.0.2", "root@srv1360701"] {
        let output = place.run(BIN).args(["--skip-preflight", host]).output().unwrap();
        assert_eq!(output.status.code(), Some(14), "{}", place.shown(&output));
    }
    assert_eq!(place.tailscale_calls(), [""; 0]);
}

#[test]
fn break_glass_warns_and_skips_what_is_outside() {
    let place = Place::new();
    place.tailscale("healthy");
    let output = place.run(BIN).args(["--break-glass", "root@203.0.113.7"]).output().unwrap();
    let shown = place.shown(&output).replace(&place.cwd().parent().unwrap().display().to_string(), "[ROOT]");
    insta::assert_snapshot!(shown.lines().filter(|line| !line.contains("tailscale.")).collect::<Vec<_>>().join("\n"), @"
    exit: 0
    --- stdout
    warn host.break_glass     break-glass is on (--break-glass): any target is allowed
    warn host.policy          `203.0.113.7` is not in the tailnet; allowed by break-glass
    skip peer.reachable       a target outside the tailnet is not asked for a pong
    vps: warn root@203.0.113.7
    --- stderr
    ");
}

#[test]
fn break_glass_goes_around_a_tailscaled_that_is_down() {
    let place = Place::new();
    for (scenario, first) in [("daemon-stopped", "warn tailscale.daemon"), ("down", "warn tailscale.state")] {
        place.tailscale(scenario);
        let output = place.run(BIN).args(["--break-glass", "root@203.0.113.7"]).output().unwrap();
        let shown = place.shown(&output);
        assert_eq!(output.status.code(), Some(0), "{shown}");
        assert!(shown.contains(first) && shown.contains("warn host.policy"), "{shown}");
        // What may be a node of the tailnet is not spoken to past it.
        for target in ["root@100.64.0.2", "root@vps.example.com"] {
            let output = place.run(BIN).args(["--break-glass", target]).output().unwrap();
            assert_eq!(output.status.code(), Some(11), "{}", place.shown(&output));
        }
        let always = ["--break-glass", "--preflight", "always", "root@203.0.113.7"];
        let output = place.run(BIN).args(always).output().unwrap();
        assert_eq!(output.status.code(), Some(11), "{}", place.shown(&output));
    }
    place.tailscale("daemon-stopped");
    let without = place.run(BIN).arg("root@203.0.113.7").output().unwrap();
    assert_eq!(without.status.code(), Some(11), "{}", place.shown(&without));
}

#[test]
fn a_machine_without_tailscale() {
    let place = Place::new();
    let output = place.run(BIN).env("PATH", place.cwd()).output().unwrap();
    insta::assert_snapshot!(place.shown(&output), @"
    exit: 10
    --- stdout
    FAIL tailscale.installed  there is no `tailscale` command on this machine
    vps: FAIL root@srv1360701.taildcc090.ts.net: exit 10 (tailscale-missing)
    --- stderr
    error: tailscale.installed: there is no `tailscale` command on this machine
    hint: sudo apt-get install tailscale
    ");
}

#[test]
fn a_daemon_that_has_only_just_started_is_asked_again() {
    let place = Place::new();
    place.tailscale_in_turn("just-started", 3, "healthy");
    // A name that nobody has ends the run right after the state was judged.
    let output = place.run(BIN).arg("root@srv1360710").output().unwrap();
    assert_eq!(output.status.code(), Some(12), "{}", place.shown(&output));
    assert_eq!(place.tailscale_calls().len(), 4);
    // One that never comes up is given up.
    place.tailscale("just-started");
    let output = place.run(BIN).args(["--preflight-timeout", "300ms"]).output().unwrap();
    assert_eq!(output.status.code(), Some(11), "{}", place.shown(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains("hint: ua-preflight --wait 1m"));
}

#[test]
fn a_slow_daemon_is_bounded_and_its_program_is_ended() {
    let place = Place::new();
    place.program("tailscale", "#!/bin/sh\nsleep 600 & echo $! >\"$HOME/pid\"; wait\n");
    let start = std::time::Instant::now();
    let output = place.run(BIN).env("UA_TAILNET_PREFLIGHT_TIMEOUT", "300ms").output().unwrap();
    assert_eq!(output.status.code(), Some(11), "{}", place.shown(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains("tailscaled did not answer within 0.3 s"));
    assert!(start.elapsed() < std::time::Duration::from_secs(20));
    let pid = std::fs::read_to_string(place.home().join("pid")).unwrap();
    // A dead process that nobody has asked after yet has no command line any more.
    let line = std::fs::read(format!("/proc/{}/cmdline", pid.trim())).unwrap_or_default();
    assert!(line.is_empty(), "the sleeping grandchild lives on");
}

#[test]
fn json_is_one_object_and_quiet_is_quiet() {
    let place = Place::new();
    place.tailscale("daemon-stopped");
    let output = place.run(BIN).arg("--json").output().unwrap();
    let lines: Vec<&str> = std::str::from_utf8(&output.stdout).unwrap().lines().collect();
    assert_eq!(lines.len(), 1);
    assert!(lines[0].starts_with(r#"{"schema":"ua.report/1","tool":"ua-preflight""#), "{}", lines[0]);
    assert!(lines[0].contains(r#""lane":"vps""#) && lines[0].contains(r#""exit_code":11"#));
    let output = place.run(BIN).arg("-q").output().unwrap();
    assert!(output.stdout.is_empty() && !output.stderr.is_empty());
}

#[test]
fn a_closed_stdout_does_not_change_the_verdict() {
    let place = Place::new();
    place.tailscale("daemon-stopped");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut child = std::process::Command::new(BIN);
    child.env_clear().env("HOME", place.home()).current_dir(place.cwd()).stdout(writer);
    child.env("PATH", format!("{}:/usr/bin:/bin", place.cwd().parent().unwrap().join("bin").display()));
    assert_eq!(child.output().unwrap().status.code(), Some(11));
    // A full disk is not a reader that saw enough.
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let output = child.args(["--preflight", "never"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot write to stdout"));
}
