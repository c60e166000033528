//! The runbooks, followed to the letter. A block marked `sh` is typed by the operator in the app's repository and must end
//! with 0, or with the code that stands behind it (`sh exit=33`); one marked `sh vps` is typed by root on the VPS's
//! console. Any other block is only for reading. What happens in the world meanwhile stands in comments that a reader
//! does not see (`<!-- lab: release -->`).

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use xtask::app::Edit;
use xtask::lab::{self, Lab, Node, OPERATOR};

use crate::Scenario;
use crate::deploy_first::{App, QUICK};

/// Where an operator has the shims.
const SHIMS: &str = "/usr/share/ua-tools/shims";
/// Workspaces whose runs have ended, one that runs, and one of an old age.
const WORKSPACES: &str = include_str!("sync/workspaces.py");

pub(crate) fn trials() -> Vec<(&'static str, Scenario)> {
    vec![
        ("daily_operations", |lab| follow(lab, "20_daily_operations.md")),
        ("deployment", |lab| follow(lab, "27_deployment.md")),
        ("running_the_agent", |lab| follow(lab, "46_running_the_agent.md")),
        ("ssh_cut_over_and_break_glass", |lab| follow(lab, "ssh_cutover_and_break_glass.md")),
        ("incident_tailnet_down", |lab| follow(lab, "incident_tailnet_down.md")),
        ("incident_broken_release", |lab| follow(lab, "incident_broken_release.md")),
        ("migration", |lab| follow(lab, "migration.md")),
        ("every_runbook_is_followed", |_| {
            let mut found = Vec::new();
            for entry in lab::checkout()?.join("runbooks").read_dir_utf8()? {
                found.push(entry?.file_name().to_owned());
            }
            ensure!(found.len() == 7, "{found:?}: is there a trial for each?");
            Ok(())
        }),
    ]
}

/// A part of a runbook.
#[derive(Debug)]
enum Step {
    /// Something happens.
    World(String),
    /// Somebody types something, on the VPS's console or not, which ends with a code.
    Typed { vps: bool, code: i32, text: String },
}

fn read(text: &str) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(words) = line.trim().strip_prefix("<!-- lab: ").and_then(|rest| rest.strip_suffix(" -->"))
        {
            steps.push(Step::World(words.to_owned()));
        }
        let Some(kind) = line.trim_start().strip_prefix("```") else { continue };
        let block: Vec<&str> = lines.by_ref().take_while(|line| line.trim_start() != "```").collect();
        let mut words = kind.split(' ');
        if words.next() != Some("sh") {
            continue;
        }
        let mut step = (false, 0);
        for word in words {
            match word.strip_prefix("exit=") {
                Some(code) => step.1 = code.parse().with_context(|| format!("`{line}`"))?,
                None if word == "vps" => step.0 = true,
                None => bail!("`{line}`: what is `{word}`?"),
            }
        }
        steps.push(Step::Typed { vps: step.0, code: step.1, text: block.join("\n") });
    }
    Ok(steps)
}

fn follow(lab: &Lab, name: &str) -> Result<()> {
    let path = lab::checkout()?.join("runbooks").join(name);
    let steps = read(&std::fs::read_to_string(&path).context(path.to_string())?)?;
    ensure!(steps.iter().any(|step| matches!(step, Step::Typed { .. })), "nothing is typed in {name}");
    let mut world = World { lab, app: App::fresh_here(lab)? };
    // A deploy that was cut off before may have held it off for good, which `doctor` tells.
    lab.vps()
        .command(&["systemctl", "disable", "--quiet", "--now", "universal-agent-service-watchdog.timer"])
        .run()?;
    let mut typed = 0;
    for step in &steps {
        match step {
            Step::World(what) => world.turns(what).with_context(|| format!("{name}: {what}"))?,
            Step::Typed { vps, code, text } => {
                typed += 1;
                world.types(*vps, *code, text).with_context(|| format!("{name}, block {typed}:\n{text}"))?;
            }
        }
    }
    Ok(())
}

struct World<'a> {
    lab: &'a Lab,
    app: App<'a>,
}

impl World<'_> {
    fn types(&self, vps: bool, code: i32, text: &str) -> Result<()> {
        let script = ["bash", "-euo", "pipefail", "-c", text];
        let limit = Duration::from_mins(3);
        let output = if vps {
            self.lab.vps().command(&script).timeout(limit).output()?
        } else {
            let typed = self.lab.laptop().command(&script).user(OPERATOR).dir("/home/op/app");
            // Without certificates there is no need of another control server, which takes time.
            let typed = typed.env("UA_TAILNET_STAGING_SCHEME", "http").env("UA_DEPLOY_PROFILE", QUICK);
            let typed = typed.env("PUBLIC_ADDRESS", "10.99.0.12").env("UA_DEPLOY_READY_TIMEOUT", "15");
            typed.timeout(limit).output()?
        };
        ensure!(
            output.code == code,
            "exit {}, not {code}\n{}\n{}",
            output.code,
            output.stdout,
            output.stderr
        );
        Ok(())
    }

    fn turns(&mut self, what: &str) -> Result<()> {
        let lab = self.lab;
        match what {
            "deployed" => self.app.deploy(&[], &[("UA_TAILNET_STAGING_SCHEME", "http")])?.exit(0).map(drop),
            "release" => self.app.edit(&Edit::Release(format!("release {}", self.app.head()?))).map(drop),
            "bad-release" => self.app.edit(&Edit::ApiBroken).map(drop),
            "mended" => self.app.edit(&Edit::Repair).map(drop),
            "workspaces" => {
                let ids = ["session_20260221_101500_ab12", "session_20260222_090000_cd34"];
                let asked = ids.map(|id| format!("{{\"id\":\"{id}\",\"age\":900}}\n")).concat();
                let root = "/opt/universal_agent/AGENT_RUN_WORKSPACES";
                lab.vps().command(&["install", "-d", "-o", "ua", "-g", "ua", root]).run()?;
                let make = ["python3", "-c", WORKSPACES, "make", root];
                lab.vps().command(&make).user("ua").stdin(asked).run()
            }
            "tailscaled-of-the-vps-dies" => lab.stop_tailscaled(Node::Vps),
            "tailscale-ssh" => lab.set_tailscale_ssh(true),
            "a-week-of-canaries" => {
                let week = "f=~/.local/state/ua/ssh-auth.jsonl; last=$(tail -n 1 $f); : >$f
                    for hours in 190 $(seq 160 -8 8) 1; do
                        at=$(date -u -d \"$hours hours ago\" +%FT%TZ)
                        printf '%s\\n' \"$last\" | sed \"s/\\\"at\\\":\\\"[^\\\"]*/\\\"at\\\":\\\"$at/\" >>$f
                    done";
                lab.laptop().command(&["bash", "-ec", week]).user(OPERATOR).run()
            }
            "shims" => {
                let into = lab.laptop().path(SHIMS)?;
                std::fs::create_dir_all(&into)?;
                let from = lab::checkout()?.join("shims");
                xtask::cmd::Cmd::new(["cp", "-R", "-T", from.as_str(), into.as_str()]).run()
            }
            other => bail!("nobody knows how `{other}` comes about"),
        }
    }
}
