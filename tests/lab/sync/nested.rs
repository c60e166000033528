//! Missions of workers: each is mirrored and deleted by itself, and a mirror from before that goes on.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use xtask::lab::{Lab, Node};

use super::{MIRROR, REMOTE, STATE, Site, WORKSPACES, Way, ended, in_both, same};
use crate::Scenario;

const CODER: &str = "vp_coder_primary_external";
const GENERAL: &str = "vp_general_primary_external";

pub(super) fn trials() -> Vec<(&'static str, Scenario)> {
    vec![
        ("missions_are_mirrored_and_pruned_alone", missions as Scenario),
        ("mirror_of_one_workspace_goes_on_as_missions", goes_on),
    ]
}

fn coder(name: &str) -> String {
    format!("{CODER}/{name}")
}

/// A mission that ended fifteen minutes ago.
fn old(id: &str) -> Value {
    json!({ "id": id, "age": 900 })
}

/// The mirror holds these missions as the VPS has them.
fn holds(site: &Site<'_>, ids: &[String]) -> Result<()> {
    let look = |node: Node, dir: &str| {
        let mut words = vec!["python3", "-c", WORKSPACES, "tree", "content", dir];
        words.extend(ids.iter().map(String::as_str));
        site.lab.node(node).command(&words).read()
    };
    same(&look(Node::Vps, REMOTE)?, &look(Node::Laptop, &site.at(MIRROR))?)
}

/// What is in a directory, by name.
fn names(lab: &Lab, node: Node, dir: &str) -> Result<Vec<String>> {
    Ok(lab.node(node).command(&["ls", "-A", dir]).read()?.lines().map(str::to_owned).collect())
}

fn missions(lab: &Lab) -> Result<()> {
    in_both(lab, |site| {
        let ids = [coder("vp-mission-1"), coder("vp-mission-2"), format!("{GENERAL}/vp-mission-3")];
        site.make(&[
            ended("run_1"),
            old(&ids[0]),
            // As a worker of August 2026 leaves it.
            json!({ "id": ids[1], "age": 900, "inner": true, "state": "failed" }),
            json!({ "id": ids[2], "age": 900, "state": "cancelled" }),
            json!({ "id": coder("vp-mission-runs"), "age": 900, "state": null }),
            json!({ "id": "run_2", "age": 900, "state": "dispatch_interrupted" }),
        ])?;
        let running = coder("vp-mission-runs");
        let (container, mission) = (site.at(&format!("{MIRROR}/{CODER}")), format!("{REMOTE}/{running}"));
        let connections = site.connections()?;
        // It writes all the while, and its log was idle for long.
        let work = "while :; do echo more >>\"$0/work_products/log\"; sleep 0.05; done";
        let worker = site
            .lab
            .vps()
            .command(&["sh", "-c", &format!("({work}) >/dev/null 2>&1 & echo $!"), &mission])
            .user("ua");
        let worker = worker.read()?;
        let said = site.run(&["once"]);
        site.lab.vps().command(&["kill", worker.trim()]).run()?;
        let said = said?;
        said.exit(0)?.says("sync.workspaces", "pass", "copied 5, unchanged 0, running 1, failed 0")?;
        ensure!(site.connections()? == connections + 1, "{} connections", site.connections()? - connections);
        holds(site, &[&ids[..], &["run_1".to_owned(), "run_2".to_owned()]].concat())?;
        let mirrored = names(site.lab, Node::Laptop, &container)?;
        ensure!(mirrored == ["vp-mission-1", "vp-mission-2"], "{mirrored:?}");
        let rows = site.run(&["list"])?;
        let rows = rows.reports[0]["data"]["rows"].as_array().context("no rows")?.clone();
        let state = |id: &str| rows.iter().find(|row| row["id"] == id).map(|row| row["state"].clone());
        ensure!(state(&running) == Some("running".into()) && state(CODER).is_none(), "{rows:#?}");
        ensure!(state(&ids[1]) == Some("synced".into()), "{rows:#?}");

        // It ends, and comes by its id. A directory of missions is not the id of one.
        site.make(&[old(&running)])?;
        site.run(&["pull", &running])?.exit(0)?;
        holds(site, std::slice::from_ref(&running))?;
        site.run(&["pull", CODER])?.exit(2)?;
        site.run(&["prune", "--allow-remote-delete", CODER])?.exit(2)?;
        let said = site.run(&["prune", "--allow-remote-delete", &ids[0], &ids[1]])?;
        said.exit(0)?.says("prune", "pass", "deleted 2, kept 0")?;
        let left = names(site.lab, Node::Vps, &format!("{REMOTE}/{CODER}"))?;
        ensure!(left == ["vp-mission-runs"], "{left:?}");
        let said = site.run(&["prune", "--allow-remote-delete"])?;
        said.exit(0)?.says("prune", "pass", "deleted 4, kept 0")?;
        let left = names(site.lab, Node::Vps, REMOTE)?;
        ensure!(left == [CODER, GENERAL], "{left:?}");
        let mirrored = names(site.lab, Node::Laptop, &container)?;
        ensure!(mirrored == ["vp-mission-1", "vp-mission-2", "vp-mission-runs"], "{mirrored:?}");
        Ok(())
    })
}

fn goes_on(lab: &Lab) -> Result<()> {
    for of_the_script in [false, true] {
        let site = Site::fresh(lab, Way::Defaults)?;
        let ids: Vec<String> = (0..221).map(|number| coder(&format!("vp-mission-{number:03}"))).collect();
        let rows: Vec<Value> =
            ids.iter().map(|id| json!({ "id": id, "age": 900, "files": 6, "bytes": 60_000 })).collect();
        site.make(&rows)?;
        lab.vps().command(&["touch", "-d", "15 minutes ago", &format!("{REMOTE}/{CODER}")]).run()?;
        site.run(&["once", "--no-artifacts", "--nested", ""])?.exit(0)?.says(
            "sync.workspaces",
            "pass",
            "copied 1,",
        )?;
        if of_the_script {
            let strip = format!(
                "find {state} -mindepth 1 ! -name synced_workspaces.txt -delete
                 echo {CODER} >{state}/synced_workspaces.txt",
                state = site.at(STATE)
            );
            lab.laptop().command(&["sh", "-ec", &strip]).run()?;
        }
        let manifest = lab.laptop().command(&["cat", &site.at(&format!("{STATE}/synced_workspaces.txt"))]);
        let before = manifest.read()?;
        let mirror = site.at(&format!("{MIRROR}/{CODER}"));
        let files = || lab.laptop().command(&["find", &mirror, "-type", "f", "-printf", "%i %P\\n"]).read();
        let (inodes, start, connections) = (files()?, site.received()?, site.connections()?);
        let said = site.run(&["once", "--no-artifacts"])?;
        said.exit(0)?.says("sync.workspaces", "pass", "copied 0, unchanged 221, running 0, failed 0")?;
        let came = site.received()? - start;
        ensure!(came < 1_500_000, "{came} bytes came for what is here");
        ensure!(site.connections()? == connections + 1, "more than one connection");
        same(&inodes, &files()?).context("a file was copied again")?;
        let after = manifest.read()?;
        ensure!(after.starts_with(&before), "the manifest was rewritten: {before}");
        ensure!(after.lines().count() == before.lines().count() + 221, "{after}");
        let status = site.status(0)?;
        ensure!(status["sync_state"] == "in_sync" && status["ready_total_count"] == 221, "{status}");
        holds(&site, &ids)?;
        // From now on one that ends comes alone.
        site.make(&[json!({ "id": ids[7], "age": 600, "files": 6, "bytes": 60_000, "run": 1 })])?;
        site.run(&["once"])?.exit(0)?.says("sync.workspaces", "pass", "copied 1, unchanged 220")?;
        holds(&site, &ids)?;
    }
    Ok(())
}
