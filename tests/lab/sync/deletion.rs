//! Deleting on the VPS what the mirror holds: what is proved goes, and in doubt nothing does.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use xtask::lab::Lab;

use super::{MARKER, MIRROR, REMOTE, Site, Way, in_both};
use crate::Scenario;
use crate::deploy_first::Deployed as Said;

pub(super) fn trials() -> Vec<(&'static str, Scenario)> {
    vec![
        ("p102_p103_p106_what_changed_since_it_was_copied_is_not_deleted", changed as Scenario),
        ("more_than_the_limit_are_refused_and_a_dry_run_deletes_nothing", limit),
        ("a_mirror_of_the_old_script_has_to_be_adopted_first", adopt),
        ("p106_deletion_after_a_copy_leaves_what_was_not_copied", after_sync),
    ]
}

/// A workspace that is old enough to go.
fn old(id: &str) -> Value {
    json!({ "id": id, "age": 900 })
}

/// The workspaces on the VPS.
fn there(lab: &Lab) -> Result<Vec<String>> {
    Ok(lab.vps().command(&["ls", "-A", REMOTE]).read()?.lines().map(str::to_owned).collect())
}

/// Why a workspace was kept.
fn kept<'a>(said: &'a Said, id: &str) -> Result<&'a str> {
    let kept = &said.reports[0]["data"]["prune"]["kept"];
    kept[id].as_str().with_context(|| format!("`{id}` was not kept: {kept}"))
}

/// Puts a program before the real one on the VPS.
fn before(lab: &Lab, program: &str, script: &str) -> Result<()> {
    let put = "cat >\"/usr/local/bin/$0\" && chmod 755 \"/usr/local/bin/$0\"";
    lab.vps().command(&["sh", "-ec", put, program]).stdin(format!("#!/bin/sh\n{script}\n")).run()
}

fn changed(lab: &Lab) -> Result<()> {
    in_both(lab, |site| {
        let ids = [
            "session_goes",
            "session_resumed",
            "session_reused",
            "session_written",
            "session_backdated",
            "session_database",
            "session_linked",
            "session_between",
            "session_late",
            "cron_goes",
        ];
        site.make(&ids.map(old))?;
        site.run(&["once"])?.exit(0)?;
        site.mirrors(&ids)?;
        let held = site.mirror()?;
        // A second turn has begun; another run has ended; a file was written now, or says that it was not.
        site.make(&[json!({ "id": "session_reused", "age": 800, "run": 1 })])?;
        let change = "
            cd \"$0\"
            rm session_resumed/sync_ready.json; : >session_resumed/run.log
            echo more >>session_written/work_products/more
            cp -a session_backdated/run.log session_backdated/work_products/more
            touch -r session_backdated/run.log session_backdated/work_products
            cp -a session_database/run.log session_database/runtime_state.db
            touch -r session_database/run.log session_database
            ln -s /etc/hostname session_linked/link
            touch -h -r session_linked/run.log session_linked/link session_linked";
        site.lab.vps().command(&["sh", "-ec", change, REMOTE]).user("ua").run()?;
        // These change after everything was listed and compared, before and while they are deleted.
        let between = format!("/usr/bin/rsync \"$@\"; code=$?; echo more >>{REMOTE}/session_between/run.log");
        before(site.lab, "rsync", &format!("{between}; exit $code"))?;
        let late = "case \"$*\" in *' ./session_late '*) echo more >>./session_late/run.log ;; esac";
        before(site.lab, "mv", &format!("{late}; exec /usr/bin/mv \"$@\""))?;
        let vps = site.vps()?;

        let said = site.run(&["prune", "--allow-remote-delete"])?;
        said.exit(0)?.says("prune", "pass", "deleted 2, kept 8")?;
        ensure!(said.reports[0]["data"]["prune"]["deleted"] == json!(["cron_goes", "session_goes"]));
        for (id, why) in [
            ("session_resumed", "running: it has no marker"),
            ("session_reused", "pending, not synced"),
            ("session_written", "it was written "),
            ("session_backdated", "the VPS has something of it that the mirror has not"),
            ("session_database", "the VPS has something of it that the mirror has not"),
            ("session_linked", "it has links or special files that are not mirrored"),
            ("session_between", "on the VPS: changed"),
            ("session_late", "on the VPS: changed"),
        ] {
            ensure!(kept(&said, id)?.contains(why), "{id} was kept: {}", kept(&said, id)?);
        }
        let mut left: Vec<&str> = ids.into_iter().filter(|id| !id.ends_with("_goes")).collect();
        left.sort_unstable();
        ensure!(there(site.lab)? == left, "{:?}", there(site.lab)?);
        // Of what stays nothing is lost, and all of it is in its place.
        let of_files = |text: &str| -> Vec<String> {
            let stays = |line: &&str| line.contains(" f ") && !line.contains("_goes/");
            let still = |line: &&str| !line.contains("_between/run.log") && !line.contains("_late/run.log");
            text.lines().filter(stays).filter(still).map(str::to_owned).collect()
        };
        let (before, after) = (of_files(&vps), of_files(&site.vps()?));
        ensure!(before == after, "{before:#?} and {after:#?}");
        site.untouched(&held)?;
        // Gone there is not gone here, and not pending either.
        site.clear_programs()?;
        let again = site.run(&["once"])?;
        again.exit(0)?;
        ensure!(again.reports[0]["data"]["workspaces"]["mirror_only"] == 2, "{}", again.reports[0]);
        Ok(())
    })
}

fn limit(lab: &Lab) -> Result<()> {
    let site = Site::fresh(lab, Way::Defaults)?;
    let ids: Vec<String> = (0..23).map(|number| format!("session_{number:02}")).collect();
    site.make(&ids.iter().map(|id| old(id)).collect::<Vec<_>>())?;
    site.run(&["once"])?.exit(0)?;
    let vps = site.vps()?;
    for (args, code, words) in [
        (&["prune"][..], 51, "nothing is deleted on the VPS without --allow-remote-delete"),
        (&["prune", "--dry-run", "--max-delete", "30"], 0, "23 would be deleted, 0 kept"),
        (&["prune", "--allow-remote-delete"], 51, "23 workspaces would be deleted, and the limit is 20"),
        (&["prune", "--allow-remote-delete", "--max-delete", "22"], 51, "the limit is 22"),
        (&["prune", "--allow-remote-delete", "--max-delete", "0", "session_01"], 51, "the limit is 0"),
        (&["watch", "--allow-remote-delete"], 2, "is not taken by `watch`"),
        (&["timer", "on", "--allow-remote-delete"], 2, "is not taken by `timer`"),
    ] {
        let said = site.typed(args).output()?;
        ensure!(said.code == code, "{args:?}: {said:?}");
        ensure!(said.stdout.contains(words) || said.stderr.contains(words), "{args:?}: {said:?}");
        ensure!(site.vps()? == vps, "{args:?} changed something on the VPS");
    }
    // The named one alone, and then as many as were said.
    site.run(&["prune", "--allow-remote-delete", "session_01"])?.exit(0)?;
    ensure!(there(lab)?.len() == 22 && !there(lab)?.contains(&ids[1]), "{:?}", there(lab)?);
    let said = site.run(&["prune", "--allow-remote-delete", "--max-delete", "22"])?;
    said.exit(0)?.says("prune", "pass", "deleted 22, kept 0")?;
    ensure!(there(lab)?.is_empty(), "{:?}", there(lab)?);
    Ok(())
}

fn adopt(lab: &Lab) -> Result<()> {
    let site = Site::fresh(lab, Way::Defaults)?;
    let ids = ["session_1", "session_2", "cron_3"];
    site.make(&ids.map(old))?;
    site.run(&["once"])?.exit(0)?;
    // As the old script left it: workspaces and a manifest.
    let strip = format!(
        "rm {mirror}/{MARKER}
         find {state} -mindepth 1 ! -name synced_workspaces.txt -delete
         sed -i 's/^\\(cron_3\\)|.*/\\1/' {state}/synced_workspaces.txt",
        mirror = site.at(MIRROR),
        state = site.at(super::STATE)
    );
    lab.laptop().command(&["sh", "-ec", &strip]).run()?;
    let (vps, mirror) = (site.vps()?, site.mirror()?);
    site.run(&["prune", "--allow-remote-delete"])?.exit(51)?;
    ensure!(site.vps()? == vps, "something was deleted on the VPS");
    // What is not the mirror is not adopted, nor is what holds something else.
    site.run(&["adopt", "--local-dir", "/home/op/mirror-empty"])?.exit(51)?;
    site.run(&["adopt", "--dry-run"])?.exit(0)?.says("mirror.adopt", "pass", "3 of 3 copies are proved")?;
    ensure!(site.mirror()? == mirror, "a dry run changed something");
    site.run(&["adopt"])?.exit(0)?.says("mirror.adopt", "pass", "3 of 3 copies are proved")?;
    ensure!(site.exists(&format!("{}/{MARKER}", site.at(MIRROR)))?, "no marker");
    // Nothing is copied again, and then it is a mirror like any other.
    let start = site.received()?;
    site.run(&["once", "--no-artifacts"])?.exit(0)?.says(
        "sync.workspaces",
        "pass",
        "copied 0, unchanged 3",
    )?;
    ensure!(site.received()? - start < 100_000, "{} bytes came", site.received()? - start);
    site.mirrors(&ids)?;
    site.run(&["prune", "--allow-remote-delete"])?.exit(0)?.says("prune", "pass", "deleted 3, kept 0")?;
    ensure!(there(lab)?.is_empty(), "{:?}", there(lab)?);
    Ok(())
}

fn after_sync(lab: &Lab) -> Result<()> {
    let site = Site::fresh(lab, Way::Keys)?;
    site.make(&[old("session_before")])?;
    site.run(&["once"])?.exit(0)?;
    site.make(&[old("session_goes"), old("session_database"), json!({ "id": "session_young", "age": 100 })])?;
    let database = "cd \"$0\" && cp -a session_database/run.log session_database/runtime_state.db-wal
        touch -r session_database/run.log session_database";
    lab.vps().command(&["sh", "-ec", database, REMOTE]).user("ua").run()?;
    let deleting = ["once", "--delete-remote-after-sync", "--allow-remote-delete"];
    let said = site.typed(&deleting[..2]).output()?;
    ensure!(said.code == 51 && site.vps()?.contains("session_goes"), "{said:?}");
    let said = site.run(&deleting)?;
    said.exit(0)?.says("sync.workspaces", "pass", "copied 3, unchanged 1")?;
    said.says("prune", "pass", "deleted 1, kept 2")?;
    ensure!(kept(&said, "session_database")?.contains("the mirror has not"), "{}", said.reports[0]);
    ensure!(kept(&said, "session_young")?.contains("it was written "), "{}", said.reports[0]);
    // What this run did not copy is not its business.
    let left = ["session_before", "session_database", "session_young"];
    ensure!(there(lab)? == left, "{:?}", there(lab)?);

    // Asked for in so many words, the database comes, too, and then all of it may go.
    let database = "--include-runtime-db";
    site.run(&["once", "--no-skip-synced", database])?.exit(0)?;
    let said = site.run(&["prune", "--allow-remote-delete", database, "session_database"])?;
    said.exit(0)?.says("prune.deleted", "pass", "session_database")?;
    ensure!(site.mirror()?.contains("session_database/runtime_state.db-wal"), "{}", site.mirror()?);
    Ok(())
}
