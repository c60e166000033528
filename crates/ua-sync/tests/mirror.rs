//! Copying: what comes, what stays, and what is never lost.
#![cfg(test)]
#![allow(clippy::unwrap_used, reason = "tests panic")]

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{Vps, tree};

fn write(path: std::path::PathBuf, content: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn read(path: std::path::PathBuf) -> String {
    fs::read_to_string(path).unwrap()
}

/// Copies a workspace as the old script did: with all its times.
fn as_the_old_script(vps: &Vps, id: &str) {
    fs::create_dir_all(vps.mirror("")).unwrap();
    let copied = Command::new("cp").arg("-a").arg(vps.remote(id)).arg(vps.mirror(id)).status();
    assert!(copied.unwrap().success());
}

#[test]
fn p127_what_is_ready_comes_whole_over_one_connection_and_only_once() {
    let vps = Vps::new();
    vps.ended("session_1", 600);
    vps.ended("tg_2", 600);
    vps.write("cron_3/out.txt", "plain", 600);
    vps.ended("session_young", 5);
    vps.write("session_running/run.log", "", 600);
    let (out, _) = vps.ends(&["once"], 0);
    assert!(out.contains("copied 3, unchanged 0, running 2, failed 0"), "{out}");
    for id in ["session_1", "tg_2", "cron_3"] {
        assert_eq!(tree(&vps.mirror(id)), tree(&vps.remote(id)), "{id}");
    }
    assert!(!vps.mirror("session_young").exists() && !vps.mirror("session_running").exists());
    let logins = vps.sshd.logins();
    let (out, _) = vps.ends(&["once"], 0);
    assert!(out.contains("copied 0, unchanged 3, running 2, failed 0"), "{out}");
    assert_eq!(vps.sshd.logins(), logins + 1);
    assert_eq!(vps.manifest().lines().count(), 3);
    // Nothing of ours is left where readers look, but the marker of the mirror.
    let mut names: Vec<_> =
        fs::read_dir(vps.mirror("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, [".ua-mirror.json", "cron_3", "session_1", "tg_2"]);
}

#[test]
fn p116_any_name_is_mirrored_or_listed() {
    let vps = Vps::new();
    let odd =
        ["session_two words", "cron größe", "cron it's $(touch x) \"q\"", "#x", ";y", "[a]*?", "back\\slash"];
    for id in odd {
        vps.ended(id, 600);
        vps.write(&format!("{id}/-x"), "dash", 600);
        vps.write(&format!("{id}/new\nline"), "break", 600);
    }
    for id in ["-dash", "a|b", "new\nline"] {
        vps.ended(id, 600);
    }
    let (out, _) = vps.ends(&["once"], 0);
    assert!(out.contains("copied 7"), "{out}");
    for id in odd {
        assert_eq!(tree(&vps.mirror(id)), tree(&vps.remote(id)), "{id}");
    }
    let (out, _) = vps.ends(&["list", "--format", "tsv"], 0);
    assert_eq!(out.matches("\tunsupported-name\t").count(), 3, "{out}");
    assert_eq!(out.matches("\tsynced\t").count(), 7, "{out}");
    let (out, _) = vps.ends(&["list", "--synced", "--format", "ids", "-0"], 0);
    let mut ids: Vec<&str> = out.split_terminator('\0').collect();
    ids.sort_unstable();
    let mut expected = odd;
    expected.sort_unstable();
    assert_eq!(ids, expected);
}

#[test]
fn p118_a_plain_workspace_is_not_copied_while_it_changes_and_again_when_it_has() {
    let vps = Vps::new();
    vps.write("cron_1/out.txt", "first", 10);
    vps.ends(&["once"], 0);
    assert!(!vps.mirror("cron_1").exists());
    vps.write("cron_1/out.txt", "first", 600);
    vps.ends(&["once"], 0);
    assert_eq!(read(vps.mirror("cron_1/out.txt")), "first");
    vps.write("cron_1/out.txt", "second", 300);
    vps.ends(&["once"], 0);
    assert_eq!(read(vps.mirror("cron_1/out.txt")), "second");
}

#[test]
fn p107_what_is_only_here_stays_when_a_workspace_comes_again() {
    let vps = Vps::new();
    vps.ended("session_1", 900);
    vps.write("session_1/old.txt", "old", 900);
    vps.ends(&["once"], 0);
    write(vps.mirror("session_1/my/notes.md"), "mine");
    write(vps.mirror("session_1/work_products/mine.md"), "mine too");
    write(vps.mirror("session_1/runtime_state.db"), "local database");
    // A second turn: something is changed, something is new, something is gone, and something is in the way.
    write(vps.mirror("session_1/new.txt"), "mine, where the VPS is about to have one");
    fs::remove_file(vps.remote("session_1/old.txt")).unwrap();
    vps.write("session_1/new.txt", "of the VPS", 300);
    vps.write("session_1/runtime_state.db", "remote database", 300);
    vps.marker("session_1", 300, "completed");
    let (out, _) = vps.ends(&["once"], 0);
    assert!(out.contains("copied 1"), "{out}");
    assert_eq!(read(vps.mirror("session_1/my/notes.md")), "mine");
    assert_eq!(read(vps.mirror("session_1/work_products/mine.md")), "mine too");
    assert_eq!(read(vps.mirror("session_1/runtime_state.db")), "local database");
    assert_eq!(read(vps.mirror("session_1/new.txt")), "of the VPS");
    assert!(!vps.mirror("session_1/old.txt").exists());
    // What was in the way is put aside, and that is said.
    let aside = tree(&vps.state("replaced"));
    assert!(aside.iter().any(|(_, text)| text == "mine, where the VPS is about to have one"), "{aside:?}");
    assert!(out.contains("file that was changed here"), "{out}");
    // Nothing is left to do.
    let (out, _) = vps.ends(&["once"], 0);
    assert!(out.contains("copied 0, unchanged 1"), "{out}");
}

#[test]
fn the_only_copy_of_a_run_outlives_another_run_of_the_same_name() {
    let vps = Vps::new();
    vps.ended("session_pruned", 900);
    vps.ended("session_vanished", 900);
    vps.ends(&["once"], 0);
    vps.ends(&["prune", "--allow-remote-delete", "session_pruned"], 0);
    fs::remove_dir_all(vps.remote("session_vanished")).unwrap();
    vps.ends(&["once"], 0);
    for id in ["session_pruned", "session_vanished"] {
        vps.write(&format!("{id}/work_products/report.md"), "another run", 600);
        vps.marker(id, 600, "failed");
    }
    let (out, _) = vps.ends(&["once"], 0);
    assert!(out.contains("copied 2") && out.contains("are now in"), "{out}");
    let aside: Vec<String> = tree(&vps.state("replaced")).into_iter().map(|(_, text)| text).collect();
    for id in ["session_pruned", "session_vanished"] {
        assert_eq!(read(vps.mirror(&format!("{id}/work_products/report.md"))), "another run");
        assert!(aside.contains(&format!("report of {id}")), "{aside:?}");
    }
    // A second turn of a run that the VPS still has replaces its copy, as ever.
    fs::remove_dir_all(vps.state("replaced")).unwrap();
    vps.write("session_pruned/work_products/report.md", "second turn", 300);
    vps.marker("session_pruned", 300, "completed");
    vps.ends(&["once"], 0);
    assert!(!vps.state("replaced").exists());
}

#[test]
fn a_mirror_that_is_bound_to_something_else_is_told_and_loses_nothing() {
    let vps = Vps::new();
    vps.ended("session_1", 900);
    vps.ends(&["once"], 0);
    let other = vps.root().join("vps/other");
    assert!(Command::new("cp").arg("-a").arg(vps.remote("")).arg(&other).status().unwrap().success());
    write(other.join("session_1/work_products/report.md"), "of another place");
    write(
        other.join("session_1/sync_ready.json"),
        r#"{"state":"completed","ready":true,"completed_at_epoch":1771650000}"#,
    );
    let (out, _) = vps.ends(&["once", "--remote-dir", other.to_str().unwrap()], 0);
    assert!(out.contains("is it the mirror of something else?"), "{out}");
    let aside: Vec<String> = tree(&vps.state("replaced")).into_iter().map(|(_, text)| text).collect();
    assert!(aside.contains(&"report of session_1".to_owned()), "{aside:?}");
}

#[test]
fn a_clock_that_is_an_hour_off_decides_nothing() {
    for ahead in [3600, -3600] {
        let programs = tempfile::tempdir().unwrap();
        let vps = Vps::with_clock(ahead, programs.path());
        vps.ended("session_ended", 600);
        vps.ended("session_young", 5);
        vps.write("tg_plain/run.log", "old enough", 600);
        vps.write("tg_young/run.log", "written to", 5);
        let (out, _) = vps.ends(&["once"], 0);
        assert!(out.contains("copied 2, unchanged 0, running 2, failed 0"), "{ahead}: {out}");
        let (out, _) = vps.ends(&["list", "--format", "tsv"], 0);
        let states: Vec<&str> = out.lines().map(|line| line.split('\t').nth(1).unwrap()).collect();
        assert_eq!(states, ["synced", "too-young", "synced", "too-young"], "{ahead}: {out}");
        let (out, _) = vps.ends(&["once"], 0);
        assert!(out.contains("copied 0, unchanged 2"), "{ahead}: {out}");
        let (out, _) = vps.ends(&["prune", "--dry-run"], 0);
        assert!(out.contains("2 would be deleted, 2 kept"), "{ahead}: {out}");
    }
}

#[test]
fn no_delete_keeps_what_vanished_on_the_vps() {
    let vps = Vps::new();
    vps.ended("session_1", 900);
    vps.write("session_1/old.txt", "old", 900);
    vps.ends(&["once"], 0);
    fs::remove_file(vps.remote("session_1/old.txt")).unwrap();
    vps.marker("session_1", 300, "failed");
    vps.ends(&["once", "--no-delete"], 0);
    assert_eq!(read(vps.mirror("session_1/old.txt")), "old");
}

#[test]
fn databases_come_only_when_they_are_asked_for() {
    let vps = Vps::new();
    vps.ended("session_1", 900);
    vps.write("session_1/runtime_state.db", "database", 900);
    vps.ends(&["once"], 0);
    assert!(!vps.mirror("session_1/runtime_state.db").exists());
    vps.ends(&["once", "--include-runtime-db", "--no-skip-synced"], 0);
    assert_eq!(read(vps.mirror("session_1/runtime_state.db")), "database");
}

#[test]
fn p108_a_link_under_the_name_of_a_workspace_is_not_followed() {
    let vps = Vps::new();
    vps.ended("session_1", 600);
    let own = vps.root().join("own");
    write(own.join("precious.txt"), "precious");
    fs::create_dir_all(vps.mirror("")).unwrap();
    symlink(&own, vps.mirror("session_1")).unwrap();
    let (_, err) = vps.ends(&["once"], 50);
    assert!(err.trim_end().ends_with("0 of 1 mirrored; failed: session_1"), "{err}");
    assert_eq!(tree(&own), [("precious.txt".to_owned(), "precious".to_owned())]);
}

#[test]
fn a_directory_that_nobody_recorded_is_a_conflict_unless_it_is_the_same() {
    let vps = Vps::new();
    vps.ended("session_same", 600);
    vps.ended("session_other", 600);
    vps.ended("session_same_size", 600);
    for id in ["session_same", "session_other", "session_same_size"] {
        as_the_old_script(&vps, id);
    }
    write(vps.mirror("session_other/mine.txt"), "mine");
    write(vps.mirror("session_same_size/work_products/report.md"), "REPORT of session_same_size");
    let (before, same_size) = (tree(&vps.mirror("session_other")), tree(&vps.mirror("session_same_size")));
    let (out, err) = vps.ends(&["once"], 50);
    assert!(out.contains("copied 0, unchanged 1, running 0, failed 2"), "{out}");
    assert!(err.trim_end().ends_with("1 of 3 mirrored; failed: session_other, session_same_size"), "{err}");
    assert_eq!(tree(&vps.mirror("session_other")), before);
    assert_eq!(tree(&vps.mirror("session_same_size")), same_size);
    assert!(vps.manifest().contains("session_same|") && !vps.manifest().contains("session_other"));
    // What the hint says helps, and loses nothing.
    let hints: Vec<&str> = err.lines().filter_map(|line| line.strip_prefix("hint: mv ")).collect();
    let other = vps.mirror("session_other");
    let wanted = format!("{0} {0}.mine && ua-sync pull session_other", other.display());
    assert_eq!(hints, [wanted]);
    fs::rename(&other, vps.mirror("session_other.mine")).unwrap();
    vps.ends(&["pull", "session_other"], 0);
    assert_eq!(tree(&vps.mirror("session_other.mine")), before);
}

#[test]
fn what_vanished_on_the_vps_stays_and_an_empty_root_deletes_nothing() {
    let vps = Vps::new();
    vps.ended("session_1", 600);
    vps.ended("session_2", 600);
    vps.ends(&["once"], 0);
    let before = tree(&vps.mirror(""));
    fs::remove_dir_all(vps.remote("session_1")).unwrap();
    vps.ends(&["once"], 0);
    let (out, _) = vps.ends(&["list", "--format", "tsv"], 0);
    assert!(out.contains("session_1\tmirror-only"), "{out}");
    fs::remove_dir_all(vps.remote("session_2")).unwrap();
    vps.ends(&["once"], 0);
    fs::remove_dir(vps.remote("")).unwrap();
    let (_, err) = vps.ends(&["once"], 1);
    assert!(err.contains("there is no directory"), "{err}");
    assert_eq!(tree(&vps.mirror("")), before);
}

#[test]
fn p119_damage_is_noticed_and_repaired_and_local_work_is_put_aside() {
    let vps = Vps::new();
    for id in ["session_changed", "session_short", "session_gone", "session_lost"] {
        vps.ended(id, 600);
    }
    vps.ends(&["once"], 0);
    write(vps.mirror("session_changed/work_products/report.md"), "my own words");
    fs::File::options().write(true).open(vps.mirror("session_short/run.log")).unwrap().set_len(3).unwrap();
    fs::remove_file(vps.mirror("session_lost/run.log")).unwrap();
    fs::remove_dir_all(vps.mirror("session_gone")).unwrap();
    let (out, _) = vps.ends(&["list", "--pending", "--format", "tsv"], 0);
    assert_eq!(out.matches("\tdamaged\t").count(), 4, "{out}");
    let (out, _) = vps.ends(&["status"], 0);
    assert!(out.contains("behind: 0 of 4"), "{out}");
    vps.ends(&["once"], 0);
    for id in ["session_changed", "session_short", "session_gone", "session_lost"] {
        assert_eq!(tree(&vps.mirror(id)), tree(&vps.remote(id)), "{id}");
    }
    let aside = tree(&vps.state("replaced"));
    assert!(aside.iter().any(|(_, text)| text == "my own words"), "{aside:?}");
    // Same size, same time, other bytes: only a look at every byte finds that.
    let path = vps.mirror("session_lost/work_products/report.md");
    let time = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, "REPORT of session_lost").unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
    vps.ends(&["once", "--no-skip-synced"], 0);
    assert_eq!(tree(&vps.mirror("session_lost")), tree(&vps.remote("session_lost")));
}

#[test]
fn p125_a_file_that_grows_is_reported_and_never_recorded() {
    let vps = Vps::new();
    vps.ended("session_1", 600);
    vps.ended("session_2", 600);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            use std::io::Write as _;
            let mut file = fs::File::options().append(true).open(vps.remote("session_1/run.log")).unwrap();
            while !over.load(Ordering::Relaxed) {
                file.write_all(b"more\n").unwrap();
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let output = vps.run(&["once"]);
        over.store(true, Ordering::Relaxed);
        let (_, err) = common::exits(&output, 50);
        assert!(err.trim_end().ends_with("1 of 2 mirrored; failed: session_1"), "{err}");
    });
    assert!(!vps.mirror("session_1").exists());
    assert!(!vps.manifest().contains("session_1"), "{}", vps.manifest());
    let (out, _) = vps.ends(&["list", "--failed", "--format", "tsv"], 0);
    assert!(out.contains("session_1\tfailed-copy"), "{out}");
    vps.ends(&["once"], 0);
    assert_eq!(tree(&vps.mirror("session_1")), tree(&vps.remote("session_1")));
}

#[test]
fn p138_a_hostile_source_has_no_power_here() {
    let vps = Vps::new();
    vps.ended("session_1", 600);
    vps.ended("session_2", 600);
    let at = |path: &str| vps.remote(&format!("session_1/{path}"));
    vps.write("session_1/tool", "#!/bin/sh\n", 600);
    fs::set_permissions(at("tool"), fs::Permissions::from_mode(0o6777)).unwrap();
    fs::create_dir(at("open")).unwrap();
    fs::set_permissions(at("open"), fs::Permissions::from_mode(0o3777)).unwrap();
    assert!(Command::new("mkfifo").arg(at("fifo")).status().unwrap().success());
    symlink("/etc/passwd", at("absolute")).unwrap();
    symlink("../../../outside", at("climbing")).unwrap();
    symlink("../session_2/run.log", at("sibling")).unwrap();
    symlink("run.log", at("inside")).unwrap();
    symlink("..", at("open/up")).unwrap();
    symlink("open/up/../session_2", at("sly")).unwrap();
    if rustix_root() {
        std::os::unix::fs::chown(at("tool"), Some(12_345), Some(12_345)).unwrap();
    }
    vps.date(&at("open"), 600);
    vps.date(&at(""), 600);
    let (out, _) = vps.ends(&["once"], 0);
    assert!(out.contains("copied 2"), "{out}");
    assert!(
        out.contains("session_1: 5 things in it are not mirrored: links that lead out of it, devices"),
        "{out}"
    );
    let mode = |path: &str| fs::symlink_metadata(vps.mirror(path)).unwrap().mode() & 0o7777;
    assert_eq!(mode("session_1/tool"), 0o755);
    assert_eq!(mode("session_1/open"), 0o755);
    assert_eq!(
        fs::metadata(vps.mirror("session_1/tool")).unwrap().uid(),
        fs::metadata(vps.mirror("")).unwrap().uid()
    );
    for left_out in ["fifo", "absolute", "climbing", "sibling", "sly"] {
        let path = vps.mirror(&format!("session_1/{left_out}"));
        assert!(fs::symlink_metadata(&path).is_err(), "{left_out}");
    }
    assert_eq!(fs::read_link(vps.mirror("session_1/inside")).unwrap().to_str(), Some("run.log"));
    let (out, _) = vps.ends(&["once"], 0);
    assert!(out.contains("unchanged 2"), "{out}");
}

fn rustix_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

#[test]
fn a_mirror_of_the_old_script_goes_on_without_copying_again() {
    let vps = Vps::new();
    for id in ["session_1", "session_2"] {
        vps.ended(id, 900);
    }
    vps.write("cron_3/out", "plain", 900);
    for id in ["session_1", "session_2", "cron_3"] {
        as_the_old_script(&vps, id);
    }
    write(vps.mirror("session_1/mine.txt"), "mine");
    let signature = |id: &str| {
        let marker = read(vps.remote(&format!("{id}/sync_ready.json")));
        let (_, epoch) = marker.rsplit_once(':').unwrap();
        format!("{id}|{}_completed\n", epoch.trim_end_matches('}'))
    };
    let manifest = format!("{}{}cron_3\n# a foreign line", signature("session_1"), signature("session_2"));
    write(vps.state("synced_workspaces.txt"), &manifest);
    let inode = |path: &str| fs::metadata(vps.mirror(path)).unwrap().ino();
    let before = ["session_1/run.log", "session_2/run.log", "cron_3/out"].map(inode);
    let (out, _) = vps.ends(&["status"], 0);
    assert!(out.contains("in sync: 3 of 3"), "{out}");
    let (out, _) = vps.ends(&["once"], 0);
    assert!(out.contains("copied 0, unchanged 3"), "{out}");
    assert!(out.contains("are not of the mirror and were kept, such as `# a foreign line`"), "{out}");
    assert_eq!(["session_1/run.log", "session_2/run.log", "cron_3/out"].map(inode), before);
    assert_eq!(read(vps.mirror("session_1/mine.txt")), "mine");
    assert!(vps.manifest().starts_with(&manifest), "{}", vps.manifest());
    // From now on local damage is noticed there, too.
    fs::remove_file(vps.mirror("cron_3/out")).unwrap();
    vps.ends(&["once"], 0);
    assert_eq!(read(vps.mirror("cron_3/out")), "plain");
}

#[test]
fn the_mirror_may_be_a_link_and_its_state_elsewhere() {
    let vps = Vps::new();
    vps.ended("session_1", 600);
    let disk = vps.root().join("disk");
    fs::create_dir(&disk).unwrap();
    let link = vps.root().join("link to the mirror");
    symlink(&disk, &link).unwrap();
    let args = ["once", "--local-dir", link.to_str().unwrap(), "--state-dir", "/dev/shm/ua-sync-test-state"];
    vps.ends(&args, 0);
    assert_eq!(tree(&disk.join("session_1")), tree(&vps.remote("session_1")));
    fs::remove_dir_all("/dev/shm/ua-sync-test-state").unwrap();
    fs::remove_dir_all(&disk).unwrap();
    let (_, err) = vps.ends(&args, 2);
    assert!(err.contains("is a link to"), "{err}");
    fs::write(&disk, "").unwrap();
    let (_, err) = vps.ends(&args, 2);
    assert!(err.contains("is not a directory"), "{err}");
}

#[test]
fn artifacts_come_by_a_step_of_their_own_and_nothing_is_deleted_there() {
    let vps = Vps::new();
    let there = vps.root().join("vps/artifacts");
    let here = vps.place.cwd().join("artifacts/remote_vps_artifacts");
    write(there.join("deep/a.pdf"), "a");
    write(there.join("remote_vps_artifacts/x"), "never");
    write(here.join("mine.txt"), "mine");
    vps.ended("session_1", 600);
    vps.ends(&["once"], 0);
    assert_eq!(read(here.join("deep/a.pdf")), "a");
    assert!(!here.join("remote_vps_artifacts").exists());
    // Nothing was copied, so they are not looked at.
    write(there.join("b.pdf"), "b");
    let (out, _) = vps.ends(&["once"], 0);
    assert!(out.contains("skip sync.artifacts"), "{out}");
    fs::remove_file(there.join("deep/a.pdf")).unwrap();
    vps.ended("session_2", 600);
    vps.ends(&["once"], 0);
    assert_eq!(read(here.join("b.pdf")), "b");
    assert_eq!(
        (read(here.join("deep/a.pdf")), read(here.join("mine.txt"))),
        ("a".to_owned(), "mine".to_owned())
    );
}

#[test]
fn an_artifact_that_was_changed_here_is_put_aside_and_one_that_was_not_is_not() {
    let vps = Vps::new();
    let there = vps.root().join("vps/artifacts");
    let here = vps.place.cwd().join("artifacts/remote_vps_artifacts");
    for name in ["mine.md", "theirs.md"] {
        write(there.join("deep").join(name), "first");
    }
    vps.ended("session_1", 600);
    vps.ends(&["once"], 0);
    write(here.join("deep/mine.md"), "my own words");
    for name in ["mine.md", "theirs.md"] {
        write(there.join("deep").join(name), "the second edition");
    }
    vps.ended("session_2", 600);
    let (out, _) = vps.ends(&["once"], 0);
    assert!(out.contains("1 file that was changed here"), "{out}");
    assert_eq!(read(here.join("deep/mine.md")), "the second edition");
    let aside: Vec<String> =
        tree(&vps.state("replaced/artifacts")).into_iter().map(|(_, text)| text).collect();
    assert_eq!(aside.iter().filter(|text| *text != "directory").collect::<Vec<_>>(), ["my own words"]);
}

#[test]
fn p114_artifacts_that_failed_are_tried_again_though_nothing_was_copied() {
    let vps = Vps::new();
    let there = vps.root().join("vps/artifacts");
    write(there.join("a.pdf"), "a");
    // What is in the way here makes their step fail, and theirs alone.
    write(vps.place.cwd().join("artifacts/remote_vps_artifacts"), "a file");
    vps.ended("session_1", 600);
    let output = vps.run(&["once"]);
    assert_ne!(output.status.code(), Some(0), "{}", vps.shown(&output));
    assert!(vps.mirror("session_1").is_dir());
    fs::remove_file(vps.place.cwd().join("artifacts/remote_vps_artifacts")).unwrap();
    let (out, _) = vps.ends(&["once"], 0);
    assert!(out.contains("copied 0, unchanged 1"), "{out}");
    assert_eq!(read(vps.place.cwd().join("artifacts/remote_vps_artifacts/a.pdf")), "a");
}

#[test]
fn p115_a_one_turns_artifacts_on() {
    let vps = Vps::new();
    write(vps.root().join("vps/artifacts/a.pdf"), "a");
    let here = vps.place.cwd().join("artifacts/remote_vps_artifacts/a.pdf");
    for (word, there) in [("0", false), ("1", true)] {
        let output = vps.command(&["once"]).env("UA_REMOTE_SYNC_INCLUDE_ARTIFACTS", word).output().unwrap();
        common::exits(&output, 0);
        assert_eq!(here.exists(), there, "{word}");
    }
    vps.ends(&["once", "--no-artifacts"], 0);
}

#[test]
fn a_dry_run_tells_and_changes_nothing() {
    let vps = Vps::new();
    vps.ended("session_1", 600);
    let before = (tree(&vps.place.cwd()), tree(&vps.remote("")));
    let (out, _) = vps.ends(&["once", "--dry-run"], 0);
    assert!(out.starts_with("would copy session_1: 3 files, "), "{out}");
    assert_eq!((tree(&vps.place.cwd()), tree(&vps.remote(""))), before);
}

#[test]
fn p124_a_reader_never_sees_half_a_workspace() {
    let vps = Vps::new();
    vps.write("session_1/a_big.bin", common::noise(300_000), 600);
    vps.write("session_1/z_big.bin", common::noise(300_000), 600);
    vps.marker("session_1", 600, "completed");
    vps.place.program("rsync", "#!/bin/sh\nexec /usr/bin/rsync --bwlimit=200 \"$@\"\n");
    std::thread::scope(|scope| {
        let run = scope.spawn(|| vps.run(&["once"]));
        let mut looks = 0;
        while !run.is_finished() {
            if vps.mirror("session_1").exists() {
                assert_eq!(tree(&vps.mirror("session_1")), tree(&vps.remote("session_1")));
            }
            looks += 1;
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(looks > 100, "{looks}");
        common::exits(&run.join().unwrap(), 0);
    });
}

#[test]
fn p139_room_is_seen_to_first_and_a_run_sums_up() {
    let vps = Vps::new();
    vps.ended("session_1", 600);
    vps.ended("session_2", 600);
    // More than any disk of a test has, without any bytes in it.
    let huge = vps.remote("session_2/huge.bin");
    fs::File::create(&huge).unwrap().set_len(15 << 40).unwrap();
    vps.date(&huge, 600);
    let (_, err) = vps.ends(&["pull", "session_2"], 32);
    assert!(err.contains("no room for the copies") && err.contains("nothing was copied"), "{err}");
    // It does not keep the others from coming.
    let (out, err) = vps.ends(&["once"], 50);
    assert!(out.contains("copied 1, unchanged 0, running 0, failed 1"), "{out}");
    assert!(err.contains("session_2: no room") && !vps.mirror("session_2").exists(), "{err}");
}
