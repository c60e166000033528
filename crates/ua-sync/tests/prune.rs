//! Deletion on the VPS: only what was asked for, is proved, and has not changed.
#![cfg(test)]
#![allow(clippy::unwrap_used, reason = "tests panic")]

mod common;

use std::fs;
use std::process::Command;

use common::{Vps, tree};

fn mirrored(ids: &[&str]) -> Vps {
    let vps = Vps::new();
    for id in ids {
        vps.ended(id, 900);
    }
    vps.ends(&["once"], 0);
    vps
}

fn there(vps: &Vps) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(vps.remote(""))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn deletion_is_refused_unless_it_is_asked_for_in_so_many_words() {
    let vps = mirrored(&["session_1"]);
    for args in [&["prune"][..], &["once", "--delete-remote-after-sync"]] {
        let logins = vps.sshd.logins();
        let (_, err) = vps.ends(args, 51);
        assert!(err.contains("--allow-remote-delete"), "{err}");
        assert_eq!(vps.sshd.logins(), logins, "nobody is contacted");
    }
    for verb in [&["watch"][..], &["pull"], &["timer", "on"]] {
        let (_, err) = vps.ends(&[verb, &["--allow-remote-delete"]].concat(), 2);
        assert!(err.contains("`--allow-remote-delete` is not taken by"), "{err}");
    }
    let (out, _) = vps.ends(&["prune", "--dry-run"], 0);
    assert!(out.contains("would delete session_1: the mirror holds it, proved"), "{out}");
    assert_eq!(there(&vps), ["session_1"]);
}

#[test]
fn what_the_mirror_holds_proved_goes_and_what_is_in_doubt_stays() {
    let ids =
        ["session_gone", "session_young", "session_resumed", "session_written", "session_damaged", "cron_1"];
    let vps = mirrored(&ids);
    // Mirrored, and then not what it was any more.
    vps.marker("session_resumed", 900, "failed");
    vps.write("session_written/late.txt", "late", 800);
    vps.write("session_young/sub/f", "x", 1);
    fs::remove_file(vps.mirror("session_damaged/run.log")).unwrap();
    vps.write("session_new/f", "never copied", 900);
    let (out, _) = vps.ends(&["prune", "--allow-remote-delete"], 0);
    assert!(out.contains("deleted 2, kept 5"), "{out}");
    assert_eq!(
        there(&vps),
        ["session_damaged", "session_new", "session_resumed", "session_written", "session_young"]
    );
    assert!(vps.mirror("session_gone/run.log").exists() && vps.mirror("cron_1").exists());
    let (out, _) = vps.ends(&["once"], 0);
    assert!(out.contains("failed 0"), "{out}");
    assert!(vps.mirror("session_gone/run.log").exists());
}

#[test]
fn p106_what_was_never_copied_keeps_its_workspace() {
    let vps = mirrored(&[]);
    vps.ended("session_database", 900);
    vps.write("session_database/runtime_state.db", "never copied", 900);
    vps.ended("session_link", 900);
    std::os::unix::fs::symlink("/etc/passwd", vps.remote("session_link/link")).unwrap();
    let link = vps.remote("session_link/link");
    assert!(Command::new("touch").args(["-h", "-d", "15 minutes ago"]).arg(link).status().unwrap().success());
    vps.date(&vps.remote("session_link"), 900);
    vps.ended("session_plain", 900);
    let (out, _) = vps.ends(&["once", "--delete-remote-after-sync", "--allow-remote-delete"], 0);
    let differs = "session_database: the VPS has something of it that the mirror has not: `runtime_state.db`";
    assert!(out.contains(differs), "{out}");
    assert!(out.contains("session_link: it has links or special files that are not mirrored"), "{out}");
    assert_eq!(there(&vps), ["session_database", "session_link"]);
    // What was written after the copy is never deleted with it: the bytes differ though size and time do not.
    let vps = mirrored(&["session_1"]);
    let path = vps.remote("session_1/run.log");
    let time = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, "LINE\n".repeat(20)).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
    let (out, err) = vps.ends(&["prune", "--allow-remote-delete"], 0);
    assert!(out.contains("the mirror has not: `run.log`"), "{out}");
    assert!(err.contains("hint: ua-sync pull --no-skip-synced session_1\n"), "{err}");
    assert_eq!(there(&vps), ["session_1"]);
    // And this helps.
    vps.ends(&["pull", "--no-skip-synced", "session_1"], 0);
    vps.ends(&["prune", "--allow-remote-delete"], 0);
    assert!(there(&vps).is_empty());
}

#[test]
fn p102_a_session_that_was_resumed_is_not_deleted_while_it_runs() {
    let vps = mirrored(&["session_1"]);
    let marker = fs::read_to_string(vps.remote("session_1/sync_ready.json")).unwrap();
    vps.write("session_1/sync_ready.json", marker.replace("true", "false"), 900);
    fs::remove_dir_all(vps.mirror("session_1")).unwrap();
    let args = ["once", "--prune-remote-when-local-missing", "--allow-remote-delete"];
    vps.ends(&args, 0);
    assert_eq!(there(&vps), ["session_1"]);
}

#[test]
fn p103_an_id_that_was_used_again_is_not_deleted_for_its_old_run() {
    let vps = mirrored(&[]);
    vps.write("cron_1/out", "first", 900);
    vps.ends(&["once"], 0);
    fs::remove_dir_all(vps.mirror("cron_1")).unwrap();
    vps.write("cron_1/out", "second", 800);
    vps.ends(&["once", "--prune-remote-when-local-missing", "--allow-remote-delete"], 0);
    assert_eq!(there(&vps), ["cron_1"]);
    assert_eq!(fs::read_to_string(vps.mirror("cron_1/out")).unwrap(), "second");
}

#[test]
fn p104_age_is_that_of_the_newest_thing_in_it_and_times_ahead_are_no_age() {
    let vps = mirrored(&["session_1", "session_2"]);
    for id in ["session_1", "session_2"] {
        fs::remove_dir_all(vps.mirror(id)).unwrap();
    }
    vps.write("session_1/deep/er/f", "just now", 20);
    vps.date(&vps.remote("session_1"), 90_000);
    fs::File::open(vps.remote("session_2/work_products"))
        .unwrap()
        .set_modified(std::time::SystemTime::now() + std::time::Duration::from_hours(1))
        .unwrap();
    let (out, _) = vps.ends(&["prune", "--local-missing", "--allow-remote-delete"], 0);
    assert!(out.contains("deleted 0"), "{out}");
    assert_eq!(there(&vps), ["session_1", "session_2"]);
}

#[test]
fn p101_without_its_marker_a_mirror_deletes_nothing() {
    let vps = mirrored(&["session_1", "session_2"]);
    // As if it was not mounted, then as if another one was.
    let (mirror, away) = (vps.mirror(""), vps.root().join("away"));
    fs::rename(&mirror, &away).unwrap();
    let args = ["once", "--prune-remote-when-local-missing", "--allow-remote-delete", "--max-delete", "99"];
    let (_, err) = vps.ends(&args, 51);
    assert!(err.contains("has no marker"), "{err}");
    vps.ends(&["prune", "--local-missing", "--allow-remote-delete"], 51);
    assert_eq!(there(&vps), ["session_1", "session_2"]);
    fs::remove_dir_all(&mirror).unwrap();
    fs::rename(&away, &mirror).unwrap();
    let other = vps.state("other.txt");
    fs::copy(vps.state("synced_workspaces.txt"), &other).unwrap();
    let (_, err) =
        vps.ends(&["prune", "--allow-remote-delete", "--manifest-file", other.to_str().unwrap()], 51);
    assert!(err.contains("is bound to"), "{err}");
    assert_eq!(there(&vps), ["session_1", "session_2"]);
    // What the operator removed from the mirror goes, when that is asked for.
    fs::remove_dir_all(vps.mirror("session_1")).unwrap();
    vps.ends(&args, 0);
    assert_eq!(there(&vps), ["session_2"]);
}

#[test]
fn more_than_the_limit_are_not_deleted_at_all() {
    let ids: Vec<String> = (0..21).map(|n| format!("session_{n:02}")).collect();
    let vps = mirrored(&ids.iter().map(String::as_str).collect::<Vec<_>>());
    let (_, err) = vps.ends(&["prune", "--allow-remote-delete"], 51);
    assert!(err.contains("21 workspaces would be deleted, and the limit is 20; none was"), "{err}");
    let (out, _) = vps.ends(&["prune", "--dry-run"], 0);
    assert!(out.matches("would delete ").count() == 21 && out.contains("needs --max-delete 21"), "{out}");
    assert_eq!(there(&vps).len(), 21);
    vps.ends(&["prune", "--allow-remote-delete", "--max-delete", "2", "session_00", "session_01"], 0);
    assert_eq!(there(&vps).len(), 19);
    let before = tree(&vps.mirror(""));
    vps.ends(&["prune", "--allow-remote-delete", "--max-delete", "19"], 0);
    assert_eq!((there(&vps).len(), tree(&vps.mirror(""))), (0, before));
}

#[test]
fn an_old_mirror_is_adopted_once_a_copy_is_proved() {
    let vps = mirrored(&["session_1", "session_2"]);
    fs::remove_file(vps.mirror(".ua-mirror.json")).unwrap();
    vps.ends(&["prune", "--allow-remote-delete"], 51);
    vps.ends(&["adopt", "--dry-run"], 0);
    assert!(!vps.mirror(".ua-mirror.json").exists());
    let (out, _) = vps.ends(&["adopt"], 0);
    assert!(out.contains("2 of 2 copies are proved"), "{out}");
    vps.ends(&["prune", "--allow-remote-delete"], 0);
    assert!(there(&vps).is_empty());
    fs::remove_file(vps.mirror(".ua-mirror.json")).unwrap();
    let (_, err) = vps.ends(&["adopt"], 51);
    assert!(err.contains("not shown to be its mirror"), "{err}");
}

#[test]
fn what_a_deletion_that_was_cut_off_had_moved_away_comes_back() {
    let vps = mirrored(&["session_1", "session_2"]);
    let trash = vps.remote(".ua-prune.abcdef");
    fs::create_dir(&trash).unwrap();
    fs::rename(vps.remote("session_1"), trash.join("session_1")).unwrap();
    fs::create_dir(trash.join(".dead")).unwrap();
    fs::write(trash.join(".dead/half"), "").unwrap();
    vps.ends(&["prune", "--allow-remote-delete", "session_2"], 0);
    assert_eq!(there(&vps), ["session_1"]);
}

#[test]
fn p129_a_deletion_costs_one_connection_however_many_go() {
    let ids: Vec<String> = (0..10).map(|n| format!("session_{n}")).collect();
    let vps = mirrored(&ids.iter().map(String::as_str).collect::<Vec<_>>());
    let logins = vps.sshd.logins();
    vps.ends(&["prune", "--allow-remote-delete"], 0);
    assert_eq!((there(&vps).len(), vps.sshd.logins()), (0, logins + 1));
}
