//! Runs that are cut off: by the line, by the VPS, by a signal. A reader of the mirror sees whole workspaces all the
//! while, and the next run goes on.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use xtask::app::{self, Shape};
use xtask::lab::{Lab, Node, OPERATOR};
use xtask::ui;

use super::{MIRROR, STATE, Site, WORKSPACES, Way, ended, in_both, joined, sized, until};
use crate::Scenario;
use crate::faults::splitmix;

/// Kills of one run each.
const KILLS: u32 = 20;
const DEFAULT_SEED: u64 = 1;
/// Where the reader of the mirror leaves word.
const READER: &str = "/tmp/reader";

/// Workspaces of a transfer that is cut, of so many bytes each.
const LARGE: [&str; 8] =
    ["session_1", "session_2", "session_3", "session_4", "session_5", "session_6", "session_7", "session_8"];
const BYTES: u64 = 2_000_000;
/// A transfer is cut when so many have come.
const CUT_AT: u64 = 5_000_000;
/// The limit that the transfer is given, in seconds, and how long it may take to notice.
const IDLE: u64 = 4;
const NOTICE: Duration = Duration::from_secs(IDLE + 6);

pub(super) fn trials() -> Vec<(&'static str, Scenario)> {
    vec![
        ("p111_the_link_is_cut_in_a_transfer", link as Scenario),
        ("p111_the_vps_is_rebooted_in_a_transfer", reboot),
        ("p124_p128_a_reader_sees_whole_workspaces_while_runs_are_killed", killed),
    ]
}

fn link(lab: &Lab) -> Result<()> {
    in_both(lab, |site| cut(site, |lab| lab.cut_link(Node::Vps), |lab| lab.restore_link(Node::Vps)))
}

fn reboot(lab: &Lab) -> Result<()> {
    // Units that start with the VPS write among the workspaces.
    app::clear(lab, Shape::Feb)?;
    in_both(lab, |site| {
        // Its end is awaited, and so is its return.
        cut(site, |lab| lab.reboot(Node::Vps), |lab| lab.restore_link(Node::Vps))
    })
}

/// A transfer is cut in the middle, and then there is a way again.
fn cut(
    site: &Site<'_>,
    cut: impl FnOnce(&Lab) -> Result<()>,
    mend: impl FnOnce(&Lab) -> Result<()>,
) -> Result<()> {
    site.make(&[ended("session_1"), ended("tg_old")])?;
    site.run(&["once"])?.exit(0)?;
    let before = site.mirror()?;
    site.make(&LARGE.map(|id| sized(id, 4, BYTES)))?;
    let there = site.vps()?;
    site.slow(24)?;
    let (said, took, staged) = thread::scope(|scope| {
        let run = scope.spawn(|| {
            let said = site.run(&["once", "--idle-timeout", &IDLE.to_string()])?;
            anyhow::Ok((said, Instant::now()))
        });
        site.wait_staged(CUT_AT)?;
        let cut_at = Instant::now();
        let done = cut(site.lab);
        let (said, ended_at) = joined(run)?;
        let staged = site.staged()?.1;
        done.and_then(|()| mend(site.lab))?;
        anyhow::Ok((said, ended_at.duration_since(cut_at), staged))
    })?;
    let code = said.output.code;
    ensure!(code == 32 || code == 20, "exit {code}: {:?}", said.output);
    ensure!(took < NOTICE, "it took {took:?} to end");
    ensure!(said.output.stderr.contains("error: "), "{:?}", said.output);
    site.nothing_runs()?;
    site.untouched(&before)?;
    ensure!(site.vps()? == there, "the VPS was touched");
    ensure!(staged >= CUT_AT, "only {staged} bytes were kept");

    site.quick()?;
    let start = site.received()?;
    site.run(&["once"])?.exit(0)?.says("sync.workspaces", "pass", "copied 8, unchanged 1")?;
    let came = site.received()? - start;
    site.mirrors(&[&LARGE[..], &["tg_old"]].concat())?;
    let all = BYTES * u64::try_from(LARGE.len())?;
    // Not even a file that was half there comes again as a whole.
    ensure!(came < all - staged + all / 16, "{came} bytes came, though {staged} of {all} were staged");
    ensure!(site.staged()?.0.is_empty(), "something is still staged");
    site.run(&["once"])?.exit(0)?.says("sync.workspaces", "pass", "copied 0, unchanged 9").map(drop)
}

/// A number from 0 to below this one.
fn below(bound: u64, state: &mut u64) -> u64 {
    splitmix(state) % bound
}

fn seed() -> Result<u64> {
    match std::env::var("UA_SYNC_SEED") {
        Ok(seed) if !seed.is_empty() => {
            seed.parse().with_context(|| format!("UA_SYNC_SEED is `{seed}`, no whole number"))
        }
        _ => Ok(DEFAULT_SEED),
    }
}

/// Reads the mirror all the while that something is done, as the operator; what it saw.
fn read<T>(site: &Site<'_>, act: impl FnOnce() -> Result<T>) -> Result<(T, Value)> {
    let laptop = site.lab.laptop();
    laptop.command(&["sh", "-c", "rm -f \"$0\".*", READER]).run()?;
    let mirror = site.at(MIRROR);
    let words = ["python3", "-c", WORKSPACES, "whole", &mirror, READER];
    let reader = laptop.command(&words).user(OPERATOR).timeout(Duration::from_mins(5));
    let (done, seen) = thread::scope(|scope| {
        let reader = scope.spawn(|| reader.read());
        let ready = laptop.path(format!("{READER}.ready"))?;
        let done = until("somebody reads", || Ok(ready.exists())).and_then(|()| act());
        laptop.command(&["touch", &format!("{READER}.stop")]).run()?;
        anyhow::Ok((done, joined(reader)))
    })?;
    Ok((done?, serde_json::from_str(&seen?)?))
}

fn killed(lab: &Lab) -> Result<()> {
    let seed = seed()?;
    ui::note(format!("sync: {KILLS} kills, UA_SYNC_SEED={seed}"));
    let mut random = seed;
    let site = Site::fresh(lab, Way::Keys)?;
    let mut ids: Vec<String> = (0..16).map(|number| format!("session_{number}")).collect();
    let run_of = |id: &str, run: u32| {
        // Each run ended at another time, and all of them long ago.
        json!({ "id": id, "age": 5000 - run, "files": 12, "bytes": 240_000, "run": run })
    };
    site.make(&ids.iter().map(|id| run_of(id, 0)).collect::<Vec<_>>())?;
    let begun = Instant::now();
    site.run(&["once"])?.exit(0)?;
    let whole = begun.elapsed();

    let (ended_by_itself, reader) = read(&site, || {
        let mut ended_by_itself = 0;
        for round in 1..=KILLS {
            let way = if round % 2 == 0 { Way::Keys } else { Way::TailscaleSsh };
            let mut changed: Vec<Value> = Vec::new();
            for _ in 0..6 {
                let at = usize::try_from(below(u64::try_from(ids.len())?, &mut random))?;
                changed.push(run_of(&ids[at], round));
            }
            if round % 4 == 0 {
                ids.push(format!("session_new_{round}"));
                changed.extend(ids.last().map(|id| run_of(id, round)));
            }
            site.make(&changed)?;
            let there = site.vps()?;
            let after = whole.mul_f64(f64::from(u32::try_from(below(1000, &mut random))?) / 1000.0);
            ended_by_itself += u32::from(kill(&site, way, after).with_context(|| format!("round {round}"))?);
            ensure!(site.vps()? == there, "round {round}: the VPS was touched");
        }
        Ok(ended_by_itself)
    })?;
    ensure!(reader["bad"] == json!([]), "a reader saw what is not whole: {reader}");
    ensure!(reader["looks"].as_u64().is_some_and(|looks| looks > 500), "nobody read much: {reader}");
    ensure!(ended_by_itself < KILLS / 2, "{ended_by_itself} runs were not killed at all");

    site.run(&["once"])?.exit(0)?;
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    site.mirrors(&ids)?;
    ensure!(site.staged()?.0.is_empty(), "something is still staged");
    let said = format!("copied 0, unchanged {}, running 0, failed 0", ids.len());
    site.run(&["once"])?.exit(0)?.says("sync.workspaces", "pass", &said)?;
    // Nothing of ours but the marker is in the mirror, and no journal is open.
    let left = format!("ls -A {} | grep '^[.]'; ls -A {}/staged/*", site.at(MIRROR), site.at(STATE));
    let left = lab.laptop().command(&["sh", "-c", &left]).read()?;
    ensure!(left == format!("{}\n", super::MARKER), "{left}");
    Ok(())
}

/// Kills a run after some time, and sees that everything of it ends. Had it ended by itself?
fn kill(site: &Site<'_>, way: Way, after: Duration) -> Result<bool> {
    let delay = after.as_secs_f64().to_string();
    let words = ["python3", "-c", WORKSPACES, "kill", &delay, "once"];
    let said: Value = serde_json::from_str(&site.command_by(way, &words).read()?)?;
    ensure!(said["code"] == 0 || said["code"] == -9, "{said}");
    ensure!(said["left"] == "" && said["locked"] == json!([]), "{said}");
    ensure!(said["took"].as_f64().is_some_and(|took| took < 5.0), "{said}");
    Ok(said["code"] == 0)
}
