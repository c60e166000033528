//! What could lose data, lie or get stuck, each as it was found.
#![cfg(test)]
#![allow(clippy::unwrap_used, reason = "tests panic")]

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;

use common::{Vps, exits, tree};

/// Writes other content of the same length under the same time.
fn corrupt(path: &Path) {
    let time = fs::metadata(path).unwrap().modified().unwrap();
    let length = fs::read(path).unwrap().len();
    fs::write(path, vec![b'#'; length]).unwrap();
    fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

/// A VPS whose workspaces are old enough to be deleted, and mirrored.
fn mirrored(ids: &[&str]) -> Vps {
    let vps = Vps::new();
    for id in ids {
        vps.ended(id, 4000);
    }
    vps.ends(&["once"], 0);
    vps
}

#[test]
fn nothing_named_on_stdin_is_not_everything() {
    let vps = mirrored(&["session_1", "session_2"]);
    let output = vps.command(&["prune", "--allow-remote-delete", "-"]).write_stdin("").output().unwrap();
    let (out, _) = exits(&output, 0);
    assert!(out.contains("deleted 0, kept 0"), "{out}");
    assert!(vps.remote("session_1").exists() && vps.remote("session_2").exists());
}

#[test]
fn pruning_what_is_missing_here_spares_what_is_held() {
    let vps = mirrored(&["session_1", "session_2", "session_3"]);
    fs::remove_dir_all(vps.mirror("session_1")).unwrap();
    let (out, _) = vps.ends(&["prune", "--local-missing", "--allow-remote-delete", "session_2"], 0);
    assert!(out.contains("deleted 0, kept 1"), "{out}");
    let (out, _) = vps.ends(&["prune", "--local-missing", "--dry-run"], 0);
    assert!(out.contains("1 would be deleted"), "{out}");
    let (out, _) = vps.ends(&["prune", "--local-missing", "--allow-remote-delete"], 0);
    assert!(out.contains("deleted 1, kept 0"), "{out}");
    assert!(!vps.remote("session_1").exists());
    assert!(vps.remote("session_2").exists() && vps.remote("session_3").exists());
}

#[test]
fn pruning_what_nobody_knows_is_an_error() {
    let vps = mirrored(&["session_1"]);
    let (_, err) = vps.ends(&["prune", "--allow-remote-delete", "session_2"], 1);
    assert!(err.contains("there is no workspace `session_2`"), "{err}");
    assert!(vps.remote("session_1").exists());
}

#[test]
fn comparing_every_byte_repairs_what_only_its_bytes_betray() {
    let vps = mirrored(&["session_1"]);
    let report = vps.mirror("session_1/work_products/report.md");
    corrupt(&report);
    let (out, _) = vps.ends(&["once"], 0);
    assert!(out.contains("copied 0, unchanged 1"), "{out}");
    let (out, _) = vps.ends(&["once", "--no-skip-synced"], 0);
    assert_eq!(tree(&vps.mirror("session_1")), tree(&vps.remote("session_1")));
    assert!(out.contains("copied 1, unchanged 0"), "{out}");
    let (out, _) = vps.ends(&["once", "--no-skip-synced"], 0);
    assert!(out.contains("copied 0, unchanged 1"), "{out}");
}

#[test]
fn a_database_that_was_left_in_the_stage_is_in_nobodys_way() {
    let vps = Vps::new();
    vps.ended("session_1", 600);
    vps.write("session_1/runtime_state.db", "live", 600);
    vps.marker("session_1", 600, "completed");
    let stage = stage(&vps, "session_1");
    fs::create_dir_all(&stage).unwrap();
    fs::write(stage.join("runtime_state.db"), "of an earlier run").unwrap();
    let (out, _) = vps.ends(&["once"], 0);
    assert!(out.contains("copied 1"), "{out}");
    assert!(!vps.mirror("session_1/runtime_state.db").exists());
}

/// Where a workspace is staged; a run of its own makes the place.
fn stage(vps: &Vps, id: &str) -> std::path::PathBuf {
    vps.run(&["once", "--session-id", "nothing"]);
    let incoming = fs::read_dir(vps.state("incoming")).unwrap().next().unwrap().unwrap().path();
    incoming.join("stage").join(id)
}

#[test]
fn odd_times_and_sizes_on_the_vps_stop_nothing() {
    let vps = Vps::new();
    vps.ended("session_1", 600);
    for (id, time) in [("old_1", "@-1000000"), ("old_2", "@-1000000000"), ("far_3", "@4000000000")] {
        vps.write(&format!("{id}/f"), "content", 600);
        if id != "old_1" {
            vps.write(&format!("{id}/g"), "content", 600);
        }
        let touched = Command::new("touch").args(["-d", time]).arg(vps.remote(id).join("f")).status();
        assert!(touched.unwrap().success());
    }
    let (out, _) = vps.ends(&["once"], 0);
    assert!(out.contains("copied 4, unchanged 0, running 0, failed 0"), "{out}");
    for id in ["old_1", "old_2", "far_3"] {
        let time = |path: std::path::PathBuf| fs::metadata(path.join("f")).unwrap().modified().unwrap();
        assert_eq!(time(vps.mirror(id)), time(vps.remote(id)), "{id}");
    }
    let (out, _) = vps.ends(&["once"], 0);
    assert!(out.contains("copied 0, unchanged 4"), "{out}");
}

#[test]
fn a_sparse_file_on_the_vps_is_no_sum_that_breaks_the_listing() {
    let vps = Vps::new();
    vps.ended("session_1", 600);
    let Ok(sparse) = tempfile::tempdir_in("/dev/shm") else { return };
    for (id, name) in [("huge_1", "a"), ("huge_1", "b")] {
        let file = fs::File::create(sparse.path().join(name)).unwrap();
        if file.set_len(u64::MAX >> 1).is_err() {
            return;
        }
        vps.write(&format!("{id}/x"), "", 600);
    }
    let remote = sparse.path().to_str().unwrap();
    fs::create_dir(sparse.path().join("huge_1")).unwrap();
    for name in ["a", "b"] {
        fs::rename(sparse.path().join(name), sparse.path().join("huge_1").join(name)).unwrap();
    }
    let (out, _) = vps.ends(&["list", "--ignore-ready-marker", "--remote-dir", remote], 0);
    assert!(out.contains("huge_1"), "{out}");
}

/// Hands a place to a user who is not root, and runs the binary as that one.
fn as_nobody(vps: &Vps, args: &[&str]) -> std::process::Output {
    let own = [vps.place.home(), vps.place.cwd()];
    let owned = Command::new("chown").arg("-R").arg("65534:65534").args(own).status();
    assert!(owned.unwrap().success());
    run_as_nobody(vps, args)
}

fn run_as_nobody(vps: &Vps, args: &[&str]) -> std::process::Output {
    let root = Command::new("chown").arg("65534").arg(vps.root()).status();
    assert!(root.unwrap().success());
    let typed = vps.command(args);
    let mut command = Command::new("setpriv");
    // Where it was built may be nobody else's business.
    let binary = vps.root().join("ua-sync");
    if !binary.exists() {
        fs::copy(common::BIN, &binary).unwrap();
    }
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]).arg(binary);
    command.args(args).env_clear().current_dir(vps.place.cwd());
    for (name, value) in typed.get_envs() {
        value.map(|value| command.env(name, value));
    }
    command.output().unwrap()
}

#[test]
fn old_copies_of_another_user_are_in_nobodys_way() {
    if !ua_tests::is_root() {
        return ua_tests::skip("only root can run a program as another user");
    }
    let vps = Vps::new();
    for id in ["session_1", "session_2", "session_3"] {
        vps.ended(id, 900);
        vps.write(&format!("{id}/sub/f"), "content", 900);
        vps.marker(id, 900, "completed");
    }
    vps.write("plain_4/f", "content", 900);
    let (out, _) = exits(&as_nobody(&vps, &["once"]), 0);
    assert!(out.contains("copied 4"), "{out}");
    // As a run of root left them: one that may be looked at, one that may not, and one that nobody recorded.
    let chown = |path: &str, mode: &str| {
        assert!(Command::new("chown").args(["-R", "0:0"]).arg(vps.mirror(path)).status().unwrap().success());
        assert!(Command::new("chmod").arg(mode).arg(vps.mirror(path)).status().unwrap().success());
    };
    chown("session_1/sub", "755");
    chown("session_2/sub", "700");
    fs::create_dir(vps.mirror("plain_5")).unwrap();
    chown("plain_5", "700");
    vps.write("plain_5/f", "content", 900);
    for id in ["session_1", "session_2", "session_3"] {
        vps.write(&format!("{id}/sub/f"), "of the second turn", 500);
        vps.marker(id, 500, "completed");
    }
    let (out, _) = exits(&run_as_nobody(&vps, &["once"]), 50);
    assert!(out.contains("copied 2, unchanged 1, running 0, failed 2"), "{out}");
    assert!(
        out.contains("plain_5: conflict") && out.contains("session_2: it cannot be put in place"),
        "{out}"
    );
    assert!(out.contains("1 old copies could not be removed"), "{out}");
    assert_eq!(tree(&vps.mirror("session_1")), tree(&vps.remote("session_1")));
    assert_eq!(tree(&vps.mirror("session_3")), tree(&vps.remote("session_3")));
    // Nor are they the next time, and once their owner has looked after them all is well.
    let (out, _) = exits(&run_as_nobody(&vps, &["once"]), 50);
    assert!(out.contains("copied 0, unchanged 3, running 0, failed 2"), "{out}");
    fs::remove_dir(vps.mirror("plain_5")).unwrap();
    let (out, _) = exits(&as_nobody(&vps, &["once"]), 0);
    assert!(out.contains("copied 2, unchanged 3, running 0, failed 0"), "{out}");
    for id in ["session_1", "session_2", "session_3", "plain_4", "plain_5"] {
        assert_eq!(tree(&vps.mirror(id)), tree(&vps.remote(id)), "{id}");
    }
}

#[test]
fn what_is_read_only_here_is_carried_over() {
    if !ua_tests::is_root() {
        return ua_tests::skip("only root can run a program as another user");
    }
    let vps = Vps::new();
    vps.ended("session_1", 900);
    exits(&as_nobody(&vps, &["once"]), 0);
    fs::create_dir(vps.mirror("session_1/own")).unwrap();
    fs::write(vps.mirror("session_1/own/note.txt"), "mine").unwrap();
    fs::set_permissions(vps.mirror("session_1/own"), fs::Permissions::from_mode(0o555)).unwrap();
    for age in [500, 400] {
        vps.write("session_1/work_products/report.md", format!("later, {age}"), age);
        vps.marker("session_1", age, "completed");
        let (out, _) = exits(&as_nobody(&vps, &["once"]), 0);
        assert!(out.contains("copied 1"), "{out}");
        let own = vps.mirror("session_1/own");
        assert_eq!(fs::read_to_string(own.join("note.txt")).unwrap(), "mine");
        assert_eq!(fs::metadata(own).unwrap().mode() & 0o777, 0o555);
    }
}

#[test]
fn a_first_run_that_gets_no_further_leaves_a_mirror_that_is_bound_by_the_next() {
    let vps = Vps::new();
    vps.ended("session_1", 4000);
    vps.ends(&["once", "--remote-dir", "/nowhere"], 1);
    fs::create_dir_all(vps.mirror(".ua-incoming/stage")).unwrap();
    vps.ends(&["once"], 0);
    assert!(vps.mirror(".ua-mirror.json").exists());
    vps.ends(&["prune", "--allow-remote-delete"], 0);
    assert!(!vps.remote("session_1").exists());
}

#[test]
fn a_mirror_that_cannot_be_locked_is_locked_by_its_manifest() {
    let vps = Vps::new();
    vps.ended("session_1", 600);
    let typed = vps.command(&["once"]);
    let mut command = Command::new("strace");
    // As NFS answers for a directory.
    command.args(["-qq", "-o/dev/null", "-etrace=flock", "-P"]).arg(vps.mirror(""));
    command.args(["-einject=flock:error=EBADF", common::BIN, "once"]);
    command.env_clear().current_dir(vps.place.cwd());
    for (name, value) in typed.get_envs() {
        value.map(|value| command.env(name, value));
    }
    fs::create_dir_all(vps.mirror("")).unwrap();
    let Ok(output) = command.output() else {
        return ua_tests::skip("`strace` is not installed");
    };
    let (out, _) = exits(&output, 0);
    assert!(out.contains("copied 1"), "{out}");
}

#[test]
fn what_looks_like_a_cut_off_deletion_on_the_vps_is_taken_by_its_whole_name() {
    let vps = mirrored(&["session_1", "session_2"]);
    fs::create_dir(vps.remote(".ua-prune.x\nsession_2")).unwrap();
    fs::create_dir_all(vps.remote(".ua-prune.y/session_3/.dead")).unwrap();
    let before = tree(&vps.remote("session_2"));
    let (out, _) = vps.ends(&["prune", "--allow-remote-delete", "session_1"], 0);
    assert!(out.contains("deleted 1"), "{out}");
    assert_eq!(tree(&vps.remote("session_2")), before);
    assert!(vps.remote("session_3/.dead").exists() && !vps.remote(".ua-prune.y").exists());
}
