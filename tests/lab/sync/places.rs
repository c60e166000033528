//! Mirrors on file systems of their own: unmounted, full, and apart from where their state is kept.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use xtask::lab::{Lab, OPERATOR};

use super::{MARKER, MIRROR, REMOTE, STATE, Site, Way, ended, sized};
use crate::Scenario;

pub(super) fn trials() -> Vec<(&'static str, Scenario)> {
    vec![
        ("p101_an_unmounted_mirror_deletes_nothing", unmounted as Scenario),
        ("a_mirror_on_another_file_system_than_its_state", elsewhere),
        ("p139_a_full_disk_leaves_no_half_workspace", full),
    ]
}

/// A file system of the operator's own of this size at `path`, which can be mounted elsewhere and keeps what it holds.
fn disk(lab: &Lab, path: &str, size: &str) -> Result<()> {
    let options = format!("size={size},mode=0755,uid=1000,gid=1000");
    lab.laptop().command(&["mkdir", "-p", path]).user("root").run()?;
    lab.laptop().command(&["mount", "-t", "tmpfs", "-o", &options, "tmpfs", path]).run()
}

/// Workspaces that may be pruned.
fn old(id: &str) -> serde_json::Value {
    json!({ "id": id, "age": 900 })
}

fn unmounted(lab: &Lab) -> Result<()> {
    let site = Site::fresh(lab, Way::Defaults)?;
    let mirror = site.at(MIRROR);
    lab.laptop().command(&["mkdir", "-p", &mirror]).user(OPERATOR).run()?;
    disk(lab, "/run/mirror", "64m")?;
    let mount = || lab.laptop().command(&["mount", "--bind", "/run/mirror", &mirror]).run();
    mount()?;
    let ids = ["session_1", "session_2", "tg_3"];
    site.make(&ids.map(old))?;
    site.run(&["once"])?.exit(0)?;
    site.mirrors(&ids)?;
    let (held, there) = (site.mirror()?, site.vps()?);

    lab.laptop().command(&["umount", &mirror]).run()?;
    let missing = ["once", "--prune-remote-when-local-missing", "--allow-remote-delete"];
    for args in [
        &["prune", "--allow-remote-delete"][..],
        &["prune", "--allow-remote-delete", "session_1"],
        &["prune", "--allow-remote-delete", "--local-missing"],
        &missing,
    ] {
        let said = site.run(args)?;
        said.exit(51)?;
        let why = format!("has no marker `{MARKER}`");
        ensure!(said.output.stderr.contains(&why), "{args:?}: {:?}", said.output);
        ensure!(said.output.stderr.contains("is it mounted?"), "{args:?}: {:?}", said.output);
        ensure!(site.vps()? == there, "{args:?} changed something on the VPS");
    }
    let said = site.run(&["once", "--dry-run"])?;
    said.exit(0)?.says("sync.plan", "pass", "3 to do")?;
    // Nor is any other directory the mirror, and this one not of any other.
    let other = site.run(&["prune", "--allow-remote-delete", "--local-dir", "/home/op/mirror-other"])?;
    other.exit(51)?;
    mount()?;
    ensure!(site.mirror()? == held, "what was unmounted is not what it was");
    let manifest = ["--manifest-file", "/home/op/mirror-manifest.txt"];
    site.run(&[&["prune", "--allow-remote-delete"], &manifest[..]].concat())?.exit(51)?;
    let elsewhere = ["--remote-dir", "/opt/universal_agent/logs"];
    site.run(&[&["prune", "--allow-remote-delete"], &elsewhere[..]].concat())?.exit(51)?;
    ensure!(site.vps()? == there, "something was deleted on the VPS");

    // Mounted again it is the mirror: what somebody removed from it goes, and nothing else.
    site.run(&["once"])?.exit(0)?.says("sync.workspaces", "pass", "copied 0, unchanged 3")?;
    lab.laptop().command(&["rm", "-r", &format!("{mirror}/session_2")]).run()?;
    site.run(&missing)?.exit(0)?.says("prune.deleted", "pass", "session_2")?;
    ensure!(there.contains("session_2") && !site.vps()?.contains("session_2"), "it is still there");
    site.mirrors(&["session_1", "tg_3"])?;
    let said = site.run(&["prune", "--allow-remote-delete"])?;
    said.exit(0)?.says("prune", "pass", "deleted 2, kept 0")?;
    let left = lab.vps().command(&["ls", "-A", REMOTE]).read()?;
    ensure!(left.is_empty(), "{left}");
    site.run(&["once"])?.exit(0)?.says("sync.workspaces", "pass", "copied 0")?;
    ensure!(site.mirror()?.contains("session_1"), "what vanished on the VPS vanished here");
    Ok(())
}

fn elsewhere(lab: &Lab) -> Result<()> {
    let site = Site::fresh(lab, Way::Defaults)?;
    let ids = ["session_1", "session_2"];
    disk(lab, "/home/op/mirror-disk", "64m")?;
    // The mirror is all of that file system, and then a folder in it.
    for (dir, staging) in [
        ("/home/op/mirror-disk", "/home/op/mirror-disk/.ua-incoming"),
        ("/home/op/mirror-disk/deep/folder", "/home/op/mirror-disk/deep/.folder.incoming"),
    ] {
        let args = ["once", "--local-dir", dir, "--manifest-file", &format!("{dir}.txt")];
        site.make(&ids.map(ended))?;
        site.run(&args)?.exit(0)?.says("sync.workspaces", "pass", "copied 2, unchanged 0")?;
        site.copies(REMOTE, &ids, dir)?;
        ensure!(site.exists(staging)?, "it was staged elsewhere than in `{staging}`");
        // A second run of one of them is exchanged, whatever lies there beside it.
        site.make(&[json!({ "id": "session_1", "age": 500, "run": 1 })])?;
        site.run(&args)?.exit(0)?.says("sync.workspaces", "pass", "copied 1, unchanged 1")?;
        site.copies(REMOTE, &ids, dir)?;
        let files = format!("find {staging} ! -type d");
        let files = lab.laptop().command(&["sh", "-c", &files]).read()?;
        ensure!(files.is_empty(), "{files}");
        ensure!(!site.exists(&site.at(&format!("{STATE}/incoming/stage")))?, "staged beside the state");
        lab.laptop().command(&["find", dir, "-mindepth", "1", "-delete"]).run()?;
    }
    Ok(())
}

fn full(lab: &Lab) -> Result<()> {
    let site = Site::fresh(lab, Way::Defaults)?;
    let mirror = site.at(MIRROR);
    disk(lab, &mirror, "8m")?;
    let resize = |size: &str| {
        let option = format!("remount,size={size}");
        lab.laptop().command(&["mount", "-o", &option, &mirror]).run()
    };
    site.make(&[ended("session_old")])?;
    site.run(&["once", "--no-artifacts"])?.exit(0)?;
    let before = site.mirror()?;

    // What cannot fit is seen before anything comes.
    site.make(&[sized("session_large", 4, 20_000_000)])?;
    let start = site.received()?;
    let said = site.run(&["once", "--no-artifacts"])?;
    said.exit(32)?;
    ensure!(said.output.stderr.contains("no room for the copies"), "{:?}", said.output);
    ensure!(site.received()? - start < 100_000, "{} bytes came", site.received()? - start);
    site.untouched(&before)?;

    // What takes more room than it holds is not: each of these files takes a page.
    site.make(&[sized("session_large", 5, 100_000), sized("tg_many", 3000, 300_000)])?;
    let said = site.run(&["once", "--no-artifacts"])?;
    said.exit(32)?;
    ensure!(said.output.stderr.contains("No space left on device"), "{:?}", said.output);
    let whole = format!("ls -A {mirror} | grep -v '^[.]'");
    let whole = lab.laptop().command(&["sh", "-c", &whole]).read()?;
    ensure!(whole == "session_old\n", "{whole}");
    site.copies(REMOTE, &["session_old"], &mirror)?;
    let status = site.status(0)?;
    ensure!(status["sync_state"] == "behind" && status["pending_ready_count"] == 2, "{status}");

    resize("64m")?;
    let said = site.typed(&["once", "--no-artifacts", "--json"]).timeout(Duration::from_mins(1)).output()?;
    ensure!(said.code == 0, "{said:?}");
    site.mirrors(&["session_old", "session_large", "tg_many"])?;
    ensure!(site.status(0)?["sync_state"] == "in_sync", "{}", site.status(0)?);
    Ok(())
}
