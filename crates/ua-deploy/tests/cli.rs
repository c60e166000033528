//! The binary by itself: what it refuses before anything is contacted. Everything that needs a VPS is tested in the lab.

#![cfg(test)]

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output};

use ua_tests::Place;

const BIN: &str = env!("CARGO_BIN_EXE_ua-deploy");

/// A peer that the tailnet does not have: the run ends before any name is looked up.
const NOBODY: (&str, &str) = ("UA_VPS_HOST", "root@srv1360710");

/// A place whose working directory is a clean clone of an app, and whose `tailscale` replays `scenario`.
fn place(scenario: &str) -> Place {
    let place = Place::new();
    place.tailscale(scenario);
    place.file("cwd/scripts/x.sh", "#!/bin/sh\n");
    place.file("cwd/deployment/systemd/universal-agent-vp-worker@.service", "[Unit]\n");
    place.file("cwd/.gitignore", "/ua.toml\n/profile.toml\n");
    git(&place, &["init", "--quiet", "--initial-branch=main", "--template="]);
    git(&place, &["add", "--all"]);
    git(&place, &["commit", "--quiet", "--message", "x"]);
    place
}

fn git(place: &Place, args: &[&str]) {
    let names = ["-c", "user.name=Universal Agent", "-c", "user.email=ua@localhost"];
    let git = Command::new("git")
        .args(names)
        .args(args)
        .current_dir(place.cwd())
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .status();
    assert!(git.unwrap().success());
}

fn run(place: &Place, args: &[&str], env: &[(&str, &str)]) -> Output {
    place.run(BIN).args(args).envs(env.iter().copied()).output().unwrap()
}

/// Insists on exit 2 before tailscale was asked; gives stderr.
fn refused(place: &Place, args: &[&str], env: &[(&str, &str)]) -> String {
    let output = run(place, args, env);
    let shown = place.shown(&output);
    assert_eq!(output.status.code(), Some(2), "{args:?} {env:?}\n{shown}");
    assert!(output.stdout.is_empty(), "{shown}");
    assert_eq!(place.tailscale_calls(), [""; 0], "something was contacted: {shown}");
    shown.split_once("--- stderr\n").unwrap().1.trim_end().to_owned()
}

#[test]
fn p01_help_and_typos_deploy_nothing() {
    let place = place("healthy");
    for args in [["--help"].as_slice(), &["run", "--help"], &["history", "--help"], &["--version"]] {
        let output = run(&place, args, &[]);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        if args.contains(&"--help") {
            assert!(String::from_utf8_lossy(&output.stdout).contains("Examples:"), "{args:?}");
        }
    }
    for args in
        [["--hlep"].as_slice(), &["rnu"], &["--dry-rnu"], &["run", "extra"], &["--dry-run", "history"]]
    {
        refused(&place, args, &[]);
    }
    assert_eq!(place.tailscale_calls(), [""; 0]);
}

#[test]
fn p06_a_dirty_tree_is_refused_with_what_is_dirty() {
    let place = place("peer-offline");
    place.file("cwd/notes.txt", "not committed");
    place.file("cwd/scripts/x.sh", "#!/bin/sh\nedited\n");
    let said = refused(&place, &["run"], &[]);
    assert!(said.contains(" M scripts/x.sh") && said.contains("?? notes.txt"), "{said}");
    let hint = said.lines().last().unwrap();
    for way in ["git commit", "git stash", "ua-deploy --allow-dirty"] {
        assert!(hint.starts_with("hint: ") && hint.contains(way), "{said}");
    }
    // A plan only looks: it is made of the commit, and says what that lacks and what a deploy says to it.
    for (args, hinted) in [
        (&["plan"][..], true),
        (&["--dry-run"], true),
        (&["--allow-dirty"], false),
        (&["plan", "--allow-dirty"], false),
    ] {
        let output = run(&place, &[args, &["--json"]].concat(), &[NOBODY]);
        assert_eq!(output.status.code(), Some(12), "{}", place.shown(&output));
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let check = &report["checks"][1];
        assert_eq!((&check["id"], &check["verdict"]), (&"source.dirty".into(), &"warn".into()), "{args:?}");
        assert!(check["detail"].as_str().unwrap().contains("?? notes.txt"), "{check}");
        assert_eq!(
            check["hint"].as_str().is_some_and(|hint| hint.contains("--allow-dirty")),
            hinted,
            "{args:?}"
        );
    }
}

#[test]
fn flags_may_stand_before_the_verb_that_takes_them() {
    let place = place("healthy");
    let nobody = NOBODY.1;
    for args in [
        &["--json", "status"][..],
        &["-v", "plan"],
        &["--color", "always", "plan"],
        &["--break-glass", "--preflight-timeout", "2", "history"],
        &["--dry-run", "rollback"],
        &["--dry-run", "plan"],
        &["--ref", "HEAD", "run"],
        &["--staging", "off", "attach"],
    ] {
        let output = run(&place, args, &[NOBODY]);
        assert_eq!(output.status.code(), Some(12), "{args:?}\n{}", place.shown(&output));
        let json = output.stdout.starts_with(b"{");
        assert_eq!(json, args.contains(&"--json"), "{}", place.shown(&output));
    }
    // The place decides nothing: it is the same setting, and where both are typed the nearer one counts.
    for args in [&["--host", nobody, "status"][..], &["--host", "root@x", "status", "--host", nobody]] {
        let output = run(&place, args, &[]);
        assert_eq!(output.status.code(), Some(12), "{args:?}\n{}", place.shown(&output));
        assert!(place.shown(&output).contains("srv1360710"), "{}", place.shown(&output));
    }
    let place = self::place("healthy");
    let said = refused(&place, &["--ref", "no-such-branch", "plan"], &[]);
    assert!(said.contains("`no-such-branch` is not a commit of"), "{said}");
    let other = place.home().display().to_string();
    let said = refused(&place, &["--repo", &other, "run"], &[]);
    assert!(said.contains("is not a git repository"), "{said}");
}

#[test]
fn a_flag_that_means_nothing_to_a_verb_is_refused_before_it_as_well() {
    let place = place("healthy");
    for (args, flag, verb) in [
        (&["--dry-run", "history"][..], "--dry-run", "history"),
        (&["--ref", "HEAD", "status"], "--ref", "status"),
        (&["--allow-dirty", "rollback"], "--allow-dirty", "rollback"),
        (&["--force-restart", "unlock", "x"], "--force-restart", "unlock"),
        (&["--build-timeout", "5", "status"], "--build-timeout", "status"),
    ] {
        let said = refused(&place, args, &[]);
        assert!(said.contains(&format!("`{flag}` means nothing to `ua-deploy {verb}`")), "{said}");
        assert!(said.contains(&format!("hint: ua-deploy {verb} --help")), "{said}");
    }
}

#[test]
fn what_a_killed_run_left_of_the_commit_is_removed_by_the_next() {
    let place = place("healthy");
    let runs = place.home().join(".local/state/ua/run");
    let left = || {
        // Nothing of it is put where it would stay.
        let output = run(&place, &[], &[NOBODY, ("TMPDIR", "/nowhere")]);
        assert_eq!(output.status.code(), Some(12), "{}", place.shown(&output));
        std::fs::read_dir(&runs).unwrap().count()
    };
    assert_eq!(left(), 0);
    assert_eq!(std::fs::metadata(&runs).unwrap().permissions().mode() & 0o077, 0);
    std::fs::create_dir_all(runs.join("rdead/tree")).unwrap();
    assert_eq!(left(), 0);
}

#[test]
fn an_unreachable_vps_ends_the_run_with_its_own_code() {
    let place = place("healthy");
    let output = run(&place, &[], &[NOBODY]);
    assert_eq!(output.status.code(), Some(12), "{}", place.shown(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains("hint: "), "{}", place.shown(&output));
}

#[test]
fn p45_a_quote_in_a_setting_is_refused() {
    let place = place("healthy");
    let marker = place.home().join("pwned");
    for value in
        [format!("/opt/x'; touch {}; '", marker.display()), "/opt/a b".to_owned(), "/opt/a:b".to_owned()]
    {
        let said = refused(&place, &["--dry-run"], &[("UA_VPS_APP_DIR", &value)]);
        assert!(said.contains("deploy.app_dir") && said.contains("UA_VPS_APP_DIR"), "{said}");
    }
    for value in ["/etc", "/var/lib/ua-deploy", "/var/lib/ua-deploy/releases", "/"] {
        refused(&place, &["--dry-run", "--app-dir", value], &[]);
    }
    assert!(!marker.exists());
}

#[test]
fn what_is_not_a_commit_is_refused() {
    let place = place("healthy");
    for rev in ["no-such-branch", "--all", "", "HEAD:scripts"] {
        let rev = format!("--ref={rev}");
        let said = refused(&place, &[&rev], &[]);
        assert!(said.contains("is not a commit of"), "{said}");
    }
    let said = refused(&place, &["--repo", place.home().to_str().unwrap()], &[]);
    assert!(said.contains("is not a git repository"), "{said}");
}

#[test]
fn a_profile_is_read_strictly() {
    let place = place("healthy");
    let said = refused(&place, &["--profile", "missing.toml"], &[]);
    assert!(said.contains("cannot read the profile"), "{said}");
    let text = include_str!("../../ua-common/profiles/universal-agent.toml")
        .replace("stable_seconds", "stabel_seconds");
    place.file("cwd/profile.toml", text);
    let said = refused(&place, &["--profile", "profile.toml"], &[]);
    assert!(said.contains("profile.toml:") && said.contains("unknown field `stabel_seconds`"), "{said}");
    let text = include_str!("../../ua-common/profiles/universal-agent.toml");
    for (from, to) in [
        ("units = [\"universal-agent-webui\"]", "units = [\"no-such-unit\"]"),
        ("units = [\"csi-ingester\"]", "units = [\"no-such-unit\"]"),
        ("unit = \"universal-agent-api\"", "unit = \"no-such-unit\""),
        ("unit = \"universal-agent-vp-worker@\"", "unit = \"no-such-unit@\""),
    ] {
        place.file("cwd/profile.toml", text.replace(from, to));
        let said = refused(&place, &["--profile", "profile.toml"], &[]);
        assert!(said.contains("`no-such-unit") && said.contains("is not one of `units.names`"), "{said}");
    }
}

#[test]
fn a_list_and_a_report_cannot_both_be_wanted() {
    let place = place("healthy");
    refused(&place, &["history", "--format", "json", "--json"], &[]);
    // Before the verb as well.
    let output = run(&place, &["--json", "history", "--format", "json"], &[]);
    assert_eq!(output.status.code(), Some(2), "{}", place.shown(&output));
    assert_eq!(place.tailscale_calls(), [""; 0]);
}
