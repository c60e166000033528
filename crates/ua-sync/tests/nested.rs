//! Missions of workers: workspaces in a directory of workspaces, each with an id of two parts.
#![cfg(test)]
#![allow(clippy::unwrap_used, reason = "tests panic")]

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::PathBuf;
use std::process::Command;

use common::{Vps, exits, tree};

const CODER: &str = "vp_coder_primary_external";

fn mission(name: &str) -> String {
    format!("{CODER}/{name}")
}

fn write(path: PathBuf, content: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn read(path: PathBuf) -> String {
    fs::read_to_string(path).unwrap()
}

/// What of a directory of workspaces was mirrored while it was one workspace, by a version that wrote indexes.
fn as_one_workspace(vps: &Vps) {
    vps.ends(&["once", "--nested", ""], 0);
    assert!(vps.manifest().contains(&format!("{CODER}|plain_")), "{}", vps.manifest());
}

#[test]
fn missions_are_mirrored_one_by_one() {
    let vps = Vps::new();
    vps.ended("session_1", 600);
    vps.ended("run_2", 600);
    vps.ended(&mission("m1"), 600);
    vps.ended("vp_general_primary_external/two words [*]", 600);
    vps.write(&mission("running/work_products/part"), "half", 600);
    vps.write(&mission("running/run.log"), "idle for ten minutes", 600);
    vps.ended(&mission("young"), 5);
    vps.write(&mission("loose.txt"), "no mission", 600);
    vps.ended(&mission(".hidden"), 600);
    let logins = vps.sshd.logins();
    let (out, _) = vps.ends(&["once"], 0);
    assert!(out.contains("copied 4, unchanged 0, running 2, failed 0"), "{out}");
    assert_eq!(vps.sshd.logins(), logins + 1);
    for id in ["session_1", "run_2", &mission("m1"), "vp_general_primary_external/two words [*]"] {
        assert_eq!(tree(&vps.mirror(id)), tree(&vps.remote(id)), "{id}");
        assert!(vps.manifest().lines().any(|line| line.starts_with(&format!("{id}|"))), "{id}");
    }
    let names = |path: &str| {
        let entries = fs::read_dir(vps.mirror(path)).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(names(CODER), ["m1"]);
    let all = [".ua-mirror.json", "run_2", "session_1", CODER, "vp_general_primary_external"];
    assert_eq!(names(""), all);
    // Nothing is staged any more, and nothing is done twice.
    assert_eq!(tree(&vps.state("incoming")).iter().filter(|(path, _)| path.contains("vp_")).count(), 0);
    let (out, _) = vps.ends(&["once"], 0);
    assert!(out.contains("copied 0, unchanged 4, running 2, failed 0"), "{out}");
    let (out, _) = vps.ends(&["list", "--format", "tsv"], 0);
    for (id, state) in
        [("running", "running"), ("young", "too-young"), ("loose.txt", "not-a-directory"), ("m1", "synced")]
    {
        assert!(out.contains(&format!("{}\t{state}\t", mission(id))), "{id}: {out}");
    }
    assert!(!out.contains(".hidden") && !out.contains(&format!("{CODER}\t")), "{out}");
    // It ends, and only it comes.
    vps.marker(&mission("running"), 300, "failed");
    let inode = fs::metadata(vps.mirror(&mission("m1/run.log"))).unwrap().ino();
    let (out, _) = vps.ends(&["once"], 0);
    assert!(out.contains("copied 1, unchanged 4, running 1"), "{out}");
    assert_eq!(tree(&vps.mirror(&mission("running"))), tree(&vps.remote(&mission("running"))));
    assert_eq!(fs::metadata(vps.mirror(&mission("m1/run.log"))).unwrap().ino(), inode);
}

#[test]
fn marker_of_an_inner_directory_counts() {
    let vps = Vps::new();
    // As the worker of August leaves it: the work is in a directory of the mission's name in that of the mission.
    vps.write(&mission("m1/SOUL.md"), "soul", 600);
    vps.ended(&mission("m1/m1"), 600);
    vps.write(&mission("m2/SOUL.md"), "soul", 600);
    vps.write(&mission("m2/m2/run.log"), "idle", 600);
    vps.ended(&mission("m3/other"), 600);
    let (out, _) = vps.ends(&["once"], 0);
    assert!(out.contains("copied 1, unchanged 0, running 2, failed 0"), "{out}");
    assert_eq!(tree(&vps.mirror(&mission("m1"))), tree(&vps.remote(&mission("m1"))));
    // It is seen to have ended again.
    vps.write(&mission("m1/m1/more"), "more", 300);
    vps.marker(&mission("m1/m1"), 300, "completed");
    let (out, _) = vps.ends(&["once"], 0);
    assert!(out.contains("copied 1, unchanged 0, running 2"), "{out}");
    assert_eq!(read(vps.mirror(&mission("m1/m1/more"))), "more");
    vps.date(&vps.remote(&mission("m1/m1")), 300);
    let (out, _) = vps.ends(&["prune", "--allow-remote-delete"], 0);
    assert!(out.contains("deleted 1"), "{out}");
}

#[test]
fn states_and_prefixes_are_settings() {
    let vps = Vps::new();
    vps.ended("run_1", 600);
    vps.marker("run_1", 600, "dispatch_interrupted");
    vps.write("run_2/out.txt", "no marker, so it runs", 600);
    vps.ended("run_3", 600);
    vps.marker("run_3", 600, "paused");
    let (out, _) = vps.ends(&["once"], 0);
    assert!(out.contains("copied 1, unchanged 0, running 2, failed 0"), "{out}");
    assert!(vps.manifest().contains("_dispatch_interrupted"), "{}", vps.manifest());
    let (out, _) = vps.ends(&["once", "--ready-states", "completed,paused"], 0);
    assert!(out.contains("copied 1, unchanged 0, running 2"), "{out}");
    // What was recorded under other settings is no foreign line.
    let (out, _) = vps.ends(&["once"], 0);
    assert!(out.contains("unchanged 1, running 2") && !out.contains("sync.manifest"), "{out}");
    let (out, _) = vps.ends(&["once", "--ready-session-prefix", "session_"], 0);
    assert!(vps.mirror("run_2").exists(), "{out}");
    for (flag, value) in
        [("--ready-states", ""), ("--ready-states", "Done"), ("--nested", "*"), ("--nested", "a/b")]
    {
        let logins = vps.sshd.logins();
        let (_, err) = vps.ends(&["once", flag, value], 2);
        assert!(err.contains(flag) && vps.sshd.logins() == logins, "{err}");
    }
}

#[test]
fn nested_ids_are_typed_and_read_from_stdin() {
    let vps = Vps::new();
    for name in ["m1", "m2", "m3"] {
        vps.ended(&mission(name), 600);
    }
    vps.write(&mission("running/f"), "x", 600);
    vps.ends(&["pull", &mission("m1")], 0);
    assert!(vps.mirror(&mission("m1")).is_dir() && !vps.mirror(&mission("m2")).exists());
    vps.ends(&["once", "--session-id", &mission("m2")], 0);
    let (ids, _) = vps.ends(&["list", "--pending", "--format", "ids"], 0);
    assert_eq!(ids, format!("{}\n", mission("m3")));
    let output = vps.command(&["pull", "-"]).write_stdin(ids).output().unwrap();
    exits(&output, 0);
    assert!(vps.mirror(&mission("m3")).is_dir());
    let (_, err) = vps.ends(&["pull", &mission("running")], 50);
    assert!(
        err.contains(&format!("hint: ua-sync pull --ignore-ready-marker {}", mission("running"))),
        "{err}"
    );
    vps.ends(&["pull", "--ignore-ready-marker", &mission("running")], 0);
    assert_eq!(read(vps.mirror(&mission("running/f"))), "x");
    for id in ["m1", "vp_coder_external/m1"] {
        let (_, err) = vps.ends(&["pull", id], 1);
        assert!(err.contains("the nearest are") && err.contains(&mission("m1")), "{err}");
    }
    let logins = vps.sshd.logins();
    for id in
        [CODER, "session_1/x", "vp_a_external/..", "vp_a_external/m/n", "../vp_a_external", "vp_a_external/"]
    {
        let (_, err) = vps.ends(&["pull", id], 2);
        assert!(err.contains("is not the id of a workspace"), "{id}: {err}");
    }
    assert_eq!(vps.sshd.logins(), logins);
    let status: serde_json::Value = serde_json::from_str(&vps.ends(&["status", "--json"], 0).0).unwrap();
    assert_eq!((&status["ready_total_count"], &status["synced_ready_count"]), (&3.into(), &3.into()));
    assert!(status["latest_ready_workspace_id"].as_str().unwrap().starts_with(CODER), "{status}");
    assert_eq!(status["ready_session_prefix"], "session_,tg_,run_");
}

#[test]
fn mirror_of_one_workspace_goes_on_as_many() {
    let vps = Vps::new();
    for name in ["same", "later", "changed_here", "vanished"] {
        vps.ended(&mission(name), 4000);
    }
    vps.write(&mission("loose.txt"), "no mission", 4000);
    as_one_workspace(&vps);
    let manifest = vps.manifest();
    // Something went on there, and something here.
    vps.write(&mission("later/work_products/report.md"), "a longer report", 3000);
    fs::remove_file(vps.remote(&mission("later/run.log"))).unwrap();
    vps.marker(&mission("later"), 3000, "completed");
    fs::remove_dir_all(vps.remote(&mission("vanished"))).unwrap();
    write(vps.mirror(&mission("changed_here/run.log")), "my own words");
    write(vps.mirror(&mission("later/mine.txt")), "mine");
    write(vps.mirror(&mission("notes/mine.txt")), "mine, beside the missions");
    let inode = |path: &str| fs::metadata(vps.mirror(&mission(path))).unwrap().ino();
    let before = ["same/run.log", "loose.txt"].map(inode);
    let (out, _) = vps.ends(&["status"], 0);
    assert!(out.contains("behind: 0 of 3 ready workspaces") && out.contains("1 mirror-only"), "{out}");
    let (out, _) = vps.ends(&["once"], 0);
    assert!(out.contains("copied 2, unchanged 1, running 0, failed 0"), "{out}");
    assert!(!out.contains("sync.manifest"), "{out}");
    assert_eq!(["same/run.log", "loose.txt"].map(inode), before);
    // What was mirrored and is gone there is gone here, and not somebody's own.
    assert!(!vps.mirror(&mission("later/run.log")).exists());
    assert_eq!(read(vps.mirror(&mission("later/work_products/report.md"))), "a longer report");
    assert_eq!(read(vps.mirror(&mission("later/mine.txt"))), "mine");
    assert_eq!(read(vps.mirror(&mission("notes/mine.txt"))), "mine, beside the missions");
    let aside: Vec<String> = tree(&vps.state("replaced")).into_iter().map(|(_, text)| text).collect();
    assert_eq!(aside.iter().filter(|text| *text != "directory").collect::<Vec<_>>(), ["my own words"]);
    assert_eq!(read(vps.mirror(&mission("vanished/run.log"))), "line\n".repeat(20));
    assert!(vps.manifest().starts_with(&manifest), "{}", vps.manifest());
    let (out, _) = vps.ends(&["list", "--format", "tsv"], 0);
    assert!(out.contains(&format!("{}\tmirror-only", mission("vanished"))), "{out}");
    assert!(!out.contains(&format!("{CODER}\t")) && !out.contains("notes"), "{out}");
    let (out, _) = vps.ends(&["once"], 0);
    assert!(out.contains("copied 0, unchanged 3"), "{out}");
    // Another run of a mission that is only here puts the old copy aside.
    vps.ended(&mission("vanished"), 600);
    vps.write(&mission("vanished/run.log"), "another run", 600);
    vps.ends(&["once"], 0);
    assert!(tree(&vps.state("replaced")).iter().any(|(path, _)| path.contains("vanished")));
}

#[test]
fn mirror_of_the_old_script_is_adopted_or_conflict() {
    let vps = Vps::new();
    for name in ["same", "other"] {
        vps.ended(&mission(name), 4000);
    }
    fs::create_dir_all(vps.mirror("")).unwrap();
    let copied = Command::new("cp").arg("-a").arg(vps.remote(CODER)).arg(vps.mirror(CODER)).status();
    assert!(copied.unwrap().success());
    write(vps.state("synced_workspaces.txt"), &format!("{CODER}\n"));
    write(vps.mirror(&mission("other/mine.txt")), "mine");
    let before = tree(&vps.mirror(&mission("other")));
    let inode = fs::metadata(vps.mirror(&mission("same/run.log"))).unwrap().ino();
    let (out, err) = vps.ends(&["once"], 50);
    assert!(out.contains("copied 0, unchanged 1, running 0, failed 1"), "{out}");
    let ending = format!("1 of 2 mirrored; failed: {}", mission("other"));
    assert!(err.trim_end().ends_with(&ending), "{err}");
    assert_eq!(fs::metadata(vps.mirror(&mission("same/run.log"))).unwrap().ino(), inode);
    assert_eq!(tree(&vps.mirror(&mission("other"))), before);
    assert!(vps.manifest().starts_with(&format!("{CODER}\n{}|", mission("same"))), "{}", vps.manifest());
    // What the hint says helps.
    let here = vps.mirror(&mission("other"));
    assert!(
        err.contains(&format!("mv {0} {0}.mine && ua-sync pull {1}", here.display(), mission("other"))),
        "{err}"
    );
    fs::rename(&here, vps.mirror(&mission("other.mine"))).unwrap();
    vps.ends(&["pull", &mission("other")], 0);
    assert_eq!(tree(&vps.mirror(&mission("other.mine"))), before);
}

#[test]
fn link_in_place_of_a_directory_is_a_conflict() {
    let vps = Vps::new();
    vps.ended(&mission("m1"), 600);
    vps.ended("vp_general_primary_external/m1", 600);
    let own = vps.root().join("own");
    write(own.join("m1/precious.txt"), "precious");
    fs::create_dir_all(vps.mirror("")).unwrap();
    symlink(&own, vps.mirror(CODER)).unwrap();
    write(vps.mirror("vp_general_primary_external"), "a file of mine");
    let before = tree(&own);
    let (out, _) = vps.ends(&["once"], 50);
    assert!(out.contains("copied 0, unchanged 0, running 0, failed 2"), "{out}");
    assert!(out.contains("the mirror has a file or a link of the name of its directory"), "{out}");
    assert_eq!(tree(&own), before);
    assert_eq!(read(vps.mirror("vp_general_primary_external")), "a file of mine");
    // On the VPS it is no directory of workspaces either.
    fs::remove_file(vps.mirror(CODER)).unwrap();
    fs::rename(vps.remote(CODER), vps.remote("elsewhere")).unwrap();
    symlink("elsewhere", vps.remote(CODER)).unwrap();
    let (out, _) = vps.ends(&["list", "--format", "tsv"], 0);
    assert!(out.contains(&format!("{CODER}\tnot-a-directory")), "{out}");
}

#[test]
fn prune_deletes_missions_never_their_directory() {
    let vps = Vps::new();
    vps.ended("session_1", 900);
    for name in ["m1", "m2", "damaged"] {
        vps.ended(&mission(name), 900);
    }
    vps.write(&mission("running/f"), "x", 900);
    vps.ends(&["once"], 0);
    fs::remove_file(vps.mirror(&mission("damaged/run.log"))).unwrap();
    let (_, err) = vps.ends(&["prune", "--allow-remote-delete", CODER], 2);
    assert!(err.contains("is not the id of a workspace"), "{err}");
    let (out, _) = vps.ends(&["prune", "--allow-remote-delete"], 0);
    assert!(out.contains("deleted 3, kept 2"), "{out}");
    let left: Vec<String> = tree(&vps.remote(""))
        .into_iter()
        .map(|(path, _)| path)
        .filter(|path| path.matches('/').count() < 2)
        .collect();
    assert_eq!(left, [CODER.to_owned(), mission("damaged"), mission("running")]);
    assert!(vps.mirror(&mission("m1/run.log")).exists());
    // The last one leaves its directory behind.
    fs::remove_dir_all(vps.remote(&mission("running"))).unwrap();
    vps.ends(&["once"], 0);
    let (out, _) = vps.ends(&["prune", "--allow-remote-delete", &mission("damaged")], 0);
    assert!(out.contains("deleted 1, kept 0"), "{out}");
    assert_eq!(tree(&vps.remote("")), [(CODER.to_owned(), "directory".to_owned())]);
    let (out, _) = vps.ends(&["once"], 0);
    assert!(out.contains("copied 0"), "{out}");
}

#[test]
fn missing_directory_is_no_wish_to_delete() {
    let vps = Vps::new();
    for id in [&mission("m1"), &mission("m2"), "vp_general_primary_external/m3"] {
        vps.ended(id, 900);
    }
    vps.ends(&["once"], 0);
    fs::remove_dir_all(vps.mirror("vp_general_primary_external")).unwrap();
    fs::remove_dir_all(vps.mirror(&mission("m1"))).unwrap();
    let (out, _) = vps.ends(&["prune", "--local-missing", "--allow-remote-delete"], 0);
    assert!(out.contains("deleted 1, kept 1"), "{out}");
    assert!(
        out.contains("its directory `vp_general_primary_external` is missing in the mirror, too"),
        "{out}"
    );
    assert!(vps.remote("vp_general_primary_external/m3").exists());
    assert!(vps.remote(&mission("m2")).exists() && !vps.remote(&mission("m1")).exists());
    vps.ends(&["once"], 0);
    assert!(vps.mirror("vp_general_primary_external/m3").is_dir());
}

#[test]
fn mission_of_a_cut_off_deletion_comes_back() {
    let vps = Vps::new();
    for id in ["session_1", &mission("m1"), &mission("m2")] {
        vps.ended(id, 900);
    }
    vps.ends(&["once"], 0);
    for (id, trash) in [("session_1", ".ua-prune.aaaaaa"), (&mission("m1"), &mission(".ua-prune.bbbbbb"))] {
        fs::create_dir_all(vps.remote(trash).join(".dead")).unwrap();
        let name = id.rsplit('/').next().unwrap();
        fs::rename(vps.remote(id), vps.remote(trash).join(name)).unwrap();
    }
    // What is called so elsewhere is somebody's.
    write(vps.remote("session_2/.ua-prune.cccccc/m9/f"), "x");
    vps.ends(&["prune", "--allow-remote-delete", &mission("m2")], 0);
    for id in ["session_1", &mission("m1")] {
        assert!(vps.remote(id).join("run.log").exists(), "{id}");
    }
    assert!(!vps.remote(&mission("m2")).exists() && !vps.remote(&mission(".ua-prune.bbbbbb")).exists());
    assert!(vps.remote("session_2/.ua-prune.cccccc/m9/f").exists());
}

#[test]
fn prune_script_refuses_what_is_no_workspace() {
    let root = tempfile::tempdir().unwrap();
    let ws = root.path().join("ws");
    for path in ["vp_a_external/m/f", "session_1/sub/f", ".hidden/f", "vp_a_external/.hidden/f"] {
        write(ws.join(path), "x");
    }
    write(root.path().join("outside/f"), "x");
    write(root.path().join("vp_b_external/m/f"), "x");
    symlink("../vp_b_external", ws.join("vp_b_external")).unwrap();
    let before = tree(root.path());
    let awk = include_str!("../remote/listing.awk");
    for id in [
        "vp_a_external",
        "session_1/sub",
        "../outside",
        "vp_a_external/../session_1",
        "vp_a_external/..",
        "vp_a_external/m/.",
        "vp_a_external/m/",
        "vp_a_external/",
        "vp_a_external/.hidden",
        "vp_b_external/m",
        "./session_1",
        "/vp_a_external/m",
        ".hidden",
        ".",
        "",
        "/",
    ] {
        // As if it were what it was: with the record that it has.
        let record = Command::new("sh")
            .args(["-c", "cd \"$1\" && find \"./$2\" -printf 'R %d %y %s %T@ %f\\0' | awk -v base=1 -v anonymous=yes -v now=9e9 -v marker=m -v database=no \"$3\" | tr '\\000' '\\n' | sed -n 's/^W //p'", "sh"])
            .args([ws.to_str().unwrap(), id, awk])
            .output()
            .unwrap();
        let record = String::from_utf8(record.stdout).unwrap();
        let output = Command::new("sh")
            .args(["-c", include_str!("../remote/prune.sh"), "sh"])
            .args([
                ws.to_str().unwrap(),
                "m",
                "no",
                "9e9",
                "vp_[^/]*_external",
                awk,
                id,
                record.trim_end_matches('\n'),
            ])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(!said.contains("deleted") && !said.contains("changed"), "{id}: {}", ua_tests::shown(&output));
        assert_eq!(tree(root.path()), before, "{id}");
    }
}

#[test]
fn many_missions_cost_few_programs() {
    let vps = Vps::new();
    for number in 0..150 {
        vps.ended(&mission(&format!("m{number:03}")), 900);
    }
    vps.ended("session_1", 900);
    let log = vps.root().join("rsync.log");
    let count = format!("#!/bin/sh\necho \"$$\" >>'{}'\nexec /usr/bin/rsync \"$@\"\n", log.display());
    vps.place.program("rsync", &count);
    let runs = || fs::read_to_string(&log).unwrap_or_default().lines().count();
    let logins = vps.sshd.logins();
    let (out, _) = vps.ends(&["once", "--no-artifacts"], 0);
    assert!(out.contains("copied 151"), "{out}");
    assert_eq!((runs(), vps.sshd.logins()), (1, logins + 1));
    let (out, _) = vps.ends(&["prune", "--allow-remote-delete", "--max-delete", "151"], 0);
    assert!(out.contains("deleted 151"), "{out}");
    assert_eq!((runs(), vps.sshd.logins()), (2, logins + 2));
}

#[test]
fn shell_completes_ids_of_missions() {
    let place = ua_tests::Place::new();
    place.program("ua-sync", &format!("#!/bin/sh\nexec '{}' \"$@\"\n", common::BIN));
    let mirror = place.home().join("mirror");
    for id in
        ["session_1", "vp_a_external/m1", "vp_a_external/m2", "vp_a_external/.hidden", "vp_a_archive/m1"]
    {
        fs::create_dir_all(mirror.join(id)).unwrap();
    }
    write(mirror.join("vp_a_external/loose.txt"), "");
    place.file("home/.config/ua/ua.toml", format!("[sync]\nlocal_dir = \"{}\"\n", mirror.display()));
    let script = r#"source <(UA_COMPLETE=bash ua-sync)
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
        _clap_complete_ua_sync ua-sync "${@: -1}" "${@: -2:1}"
        printf '%s\n' "${COMPREPLY[@]}""#;
    let offered = |line: &[&str]| {
        let output = place.run("bash").args(["--norc", "-c", script, "bash"]).args(line).output().unwrap();
        exits(&output, 0).0
    };
    let all = "vp_a_external/m2\nvp_a_external/m1\nvp_a_archive\n";
    assert_eq!(offered(&["ua-sync", "pull", "vp"]), all);
    assert_eq!(
        offered(&["ua-sync", "once", "--session-id", "vp_a_e"]),
        "vp_a_external/m2\nvp_a_external/m1\n"
    );
}
