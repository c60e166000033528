//! The first true deploy: from a clean clone on the laptop to an app that is live on the VPS, and every way in which
//! that must end with the old release untouched or back.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use serde_json::Value;
use xtask::app::{self, Edit, Shape, commit_edit, make_repo};
use xtask::cmd::Output;
use xtask::lab::{Control, Lab, Node, OPERATOR};

use crate::look::Look;
use crate::{Scenario, is_report};

pub(crate) const UI: &str = "https://srv1360701.taildcc090.ts.net/";
pub(crate) const API: &str = "https://srv1360701.taildcc090.ts.net:8443/api/health";

/// The built-in profile, but with less patience: what a scenario does not turn upon it need not wait for.
pub(crate) const QUICK: &str = "/home/op/quick.toml";
const PROFILE: &str = include_str!("../../crates/ua-common/profiles/universal-agent.toml");
/// The same of August.
const AUGUST: &str = include_str!("../../crates/ua-common/profiles/universal-agent-2026-08.toml");

/// Every scenario of this module.
pub fn trials() -> Vec<(&'static str, Scenario)> {
    vec![
        ("a_first_deploy_is_live", live as Scenario),
        ("p01_a_dry_run_changes_nothing", dry_run),
        ("a_second_deploy_builds_and_moves_only_what_changed", second),
        ("peer_offline_changes_nothing", offline),
        ("a_red_build_leaves_the_old_release_serving", red_build),
        ("p18_the_contract_is_checked_before_anything_changes", contract),
        ("staging_that_cannot_be_set_up_is_found_before_the_switch", staging_taken),
        ("unhealthy_staging_is_a_warning_or_the_end_of_the_release", staging_unhealthy),
        ("p27_p31_a_release_that_answers_500_is_taken_back", api_broken),
        ("p30_active_between_two_crashes_is_not_up", crash_loop),
        ("a_worker_that_does_not_start_ends_the_release", worker_crash),
        ("a_worker_that_never_has_a_process_is_not_waited_for", worker_without_process),
        ("p26_p44_p46_odd_surroundings_of_both_ends", odd_surroundings),
        (
            "p21_p22_an_interrupted_client_leaves_the_vps_to_finish_and_the_next_one_waits_its_turn",
            interrupted,
        ),
        ("p22_a_dropped_connection_leaves_the_vps_to_finish", dropped),
        ("an_upload_that_stalls_is_gone_on_with", stalled),
        ("a_killed_activation_is_told_from_a_finished_one", killed),
        ("a_full_disk_is_found_before_anything_changes", full_disk),
        ("a_release_that_nobody_confirms_is_taken_back_if_that_was_asked", unconfirmed),
        ("p07_status_knows_what_serves_and_what_was_changed_since", knows),
        ("p36_a_mission_is_not_killed_by_a_deploy", mission),
        ("a_rollback_is_a_deploy_of_what_served_before", rolled_back),
        ("unlock_ends_only_the_holder_and_only_by_force", unlocked),
        ("state_of_the_old_script_is_taken_over", old_script),
        ("august_shape_deploys", august),
        ("stale_git_commit_is_a_warning", stale_git),
    ]
}

/// Labs, by number, and names of the saved states that they have.
static SAVED: Mutex<BTreeSet<(usize, &str)>> = Mutex::new(BTreeSet::new());

/// The app's repository: kept on the host, brought to the laptop after every commit.
pub(crate) struct App<'a> {
    lab: &'a Lab,
    repo: Utf8PathBuf,
    dir: tempfile::TempDir,
}

impl<'a> App<'a> {
    /// A VPS on which nothing was ever deployed, under the control server that hands out certificates.
    pub(crate) fn fresh(lab: &'a Lab) -> Result<Self> {
        lab.use_control(Control::Https)?;
        Self::fresh_here(lab)
    }

    /// A VPS on which nothing was ever deployed, under the control server that there is.
    pub(crate) fn fresh_here(lab: &'a Lab) -> Result<Self> {
        Self::fresh_in(lab, Shape::Feb)
    }

    /// A VPS without any deploy, for the app in this shape, under the current control server.
    pub(crate) fn fresh_in(lab: &'a Lab, shape: Shape) -> Result<Self> {
        app::clear(lab, shape)?;
        Self::with_repo(lab, shape)
    }

    /// The app's repository with its first commit, on the laptop.
    fn with_repo(lab: &'a Lab, shape: Shape) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let repo = Utf8PathBuf::try_from(dir.path().join("app"))?;
        make_repo(&repo, shape)?;
        let built_in = if shape == Shape::Aug { AUGUST } else { PROFILE };
        let profile = built_in.replace("stable_seconds = 10", "stable_seconds = 1");
        ensure!(profile != built_in, "the profile waits for another time than 10 s");
        lab.laptop().command(&["sh", "-c", "cat >\"$0\"", QUICK]).user(OPERATOR).stdin(profile).run()?;
        app::bring(lab, &repo)?;
        Ok(Self { lab, repo, dir })
    }

    /// A VPS on which the first commit is live, under the control server that hands out certificates.
    pub(crate) fn deployed(lab: &'a Lab) -> Result<Self> {
        lab.use_control(Control::Https)?;
        Self::deployed_in(lab, "https")
    }

    /// A VPS on which the first commit is live, under the current control server.
    pub(crate) fn deployed_here(lab: &'a Lab) -> Result<Self> {
        Self::deployed_in(lab, "here")
    }

    /// Deploys once on each lab, and brings that state back whenever it is asked for again.
    fn deployed_in(lab: &'a Lab, name: &'static str) -> Result<Self> {
        let known = (lab.number(), name);
        if SAVED.lock().unwrap_or_else(PoisonError::into_inner).contains(&known) {
            let app = Self::with_repo(lab, Shape::Feb)?;
            app::restore(lab, name)?;
            if name == "https" {
                lab.laptop().command(&["ua-staging", "ensure", "--quiet"]).user(OPERATOR).run()?;
            }
            app.serves(&app.head()?)?;
            return Ok(app);
        }
        let app = Self::fresh_here(lab)?;
        app.good()?;
        app::save(lab, name)?;
        SAVED.lock().unwrap_or_else(PoisonError::into_inner).insert(known);
        app.serves(&app.head()?)?;
        Ok(app)
    }

    /// What outlives a scenario.
    pub(crate) fn part(self) -> (Utf8PathBuf, tempfile::TempDir) {
        (self.repo, self.dir)
    }

    /// Goes on with what [`App::part`] gave.
    pub(crate) fn resume(lab: &'a Lab, (repo, dir): (Utf8PathBuf, tempfile::TempDir)) -> Self {
        Self { lab, repo, dir }
    }

    pub(crate) fn repo(&self) -> &Utf8Path {
        &self.repo
    }

    pub(crate) fn edit(&self, edit: &Edit) -> Result<String> {
        let commit = commit_edit(&self.repo, edit)?;
        app::bring(self.lab, &self.repo)?;
        Ok(commit)
    }

    pub(crate) fn head(&self) -> Result<String> {
        let head = Command::new("git").args(["-C", self.repo.as_str(), "rev-parse", "HEAD"]).output()?;
        Ok(String::from_utf8(head.stdout)?.trim().to_owned())
    }

    pub(crate) fn deploy(&self, args: &[&str], env: &[(&str, &str)]) -> Result<Deployed> {
        self.run(&["run"], args, env)
    }

    pub(crate) fn run(&self, verb: &[&str], args: &[&str], env: &[(&str, &str)]) -> Result<Deployed> {
        let typed: Vec<&str> =
            ["ua-deploy"].iter().chain(verb).chain(&["--json"]).chain(args).copied().collect();
        let mut command = self.lab.laptop().command(&typed).user(OPERATOR).dir("/home/op/app");
        command = command.env("UA_DEPLOY_PROFILE", QUICK);
        for (name, value) in env {
            command = command.env(name, value);
        }
        Deployed::read(command.timeout(Duration::from_mins(3)).output()?)
    }

    /// A deploy that must succeed; gives its commit.
    pub(crate) fn good(&self) -> Result<String> {
        self.deploy(&[], &[])?.exit(0)?;
        let commit = self.head()?;
        self.serves(&commit)?;
        Ok(commit)
    }

    /// Checks that this commit is in place, and that every process runs it.
    pub(crate) fn serves(&self, commit: &str) -> Result<()> {
        let begun = Instant::now();
        loop {
            let wrong = Look::take(self.lab, &self.repo, &[commit])?.differs_from(commit);
            if wrong.is_empty() {
                break;
            }
            // A log line may come a moment after its process.
            ensure!(
                begun.elapsed() < Duration::from_secs(30),
                "{commit} does not serve: {}",
                wrong.join("; ")
            );
            std::thread::sleep(Duration::from_millis(300));
        }
        self.lab.vps().command(&["curl", "-sf", "http://127.0.0.1:8001/api/health"]).run()
    }

    /// Processes of all services: a service that was not restarted keeps its own.
    pub(crate) fn processes(&self) -> Result<String> {
        self.lab.vps().command(&["systemctl", "show", "-p", "Id,MainPID", "universal-agent-*.service"]).read()
    }

    /// Everything on the VPS that a deploy could touch.
    pub(crate) fn traces(&self) -> Result<String> {
        let look = "
            find /opt/universal_agent -path '*/AGENT_RUN_WORKSPACES' -prune -o -printf '%p %y %u:%g %m %s\\n' | sort
            ls -d /var/lib/ua-deploy/releases/* /var/lib/ua-deploy 2>/dev/null
            ls /etc/systemd/system
            tailscale serve status --json";
        self.lab.vps().command(&["sh", "-c", look]).read()
    }

    pub(crate) fn history(&self) -> Result<Vec<Value>> {
        let list =
            self.lab.laptop().command(&["ua-deploy", "history", "--format", "json"]).user(OPERATOR).read()?;
        list.lines().map(|line| serde_json::from_str(line).context("a row of the history")).collect()
    }
}

/// What a deploy said.
pub(crate) struct Deployed {
    pub(crate) output: Output,
    pub(crate) reports: Vec<Value>,
}

impl Deployed {
    pub(crate) fn read(output: Output) -> Result<Self> {
        let reports = output.stdout.lines().map(serde_json::from_str).collect::<Result<Vec<_>, _>>();
        let reports = reports.with_context(|| format!("not reports: {output:?}"))?;
        reports.iter().try_for_each(is_report)?;
        Ok(Self { output, reports })
    }

    pub(crate) fn exit(&self, code: i32) -> Result<&Self> {
        let shown = || serde_json::to_string_pretty(&self.reports).unwrap_or_default();
        ensure!(
            self.output.code == code,
            "exit {}, not {code}:\n{}\n{}",
            self.output.code,
            shown(),
            self.output.stderr
        );
        Ok(self)
    }

    /// The verdict and detail of a check of the VPS's report.
    pub(crate) fn check(&self, id: &str) -> Result<(String, String)> {
        let all = self.reports.iter().filter_map(|report| report["checks"].as_array()).flatten();
        let found = all
            .into_iter()
            .find(|check| check["id"] == id)
            .with_context(|| format!("no `{id}` in {:?}", self.reports))?;
        Ok((
            found["verdict"].as_str().unwrap_or_default().into(),
            found["detail"].as_str().unwrap_or_default().into(),
        ))
    }

    pub(crate) fn says(&self, id: &str, verdict: &str, words: &str) -> Result<&Self> {
        let (is, detail) = self.check(id)?;
        ensure!(is == verdict && detail.contains(words), "`{id}` is {is}: {detail}");
        Ok(self)
    }

    pub(crate) fn serving(&self, what: &str) -> Result<&Self> {
        ensure!(self.reports[0]["data"]["serving"] == what, "{}", self.reports[0]["data"]);
        Ok(self)
    }
}

/// The status of a URL, asked from a node; 0 where nobody answers.
pub(crate) fn status(lab: &Lab, node: Node, url: &str) -> Result<String> {
    let ask = ["curl", "-s", "-o", "/dev/null", "-m", "5", "-w", "%{http_code}", url];
    Ok(lab.node(node).exec(&ask)?.stdout)
}

fn live(lab: &Lab) -> Result<()> {
    let app = App::fresh(lab)?;
    lab.vps()
        .command(&["sh", "/root/provision/provision.sh", "/root/provision", "10.99.0.12", "--watchdog"])
        .run()?;
    // The profile that is built in, with all its patience.
    let done = app.deploy(&[], &[("UA_DEPLOY_PROFILE", "")])?;
    done.exit(0)?.serving("new")?;
    ensure!(done.reports.len() == 2, "one report per lane: {:?}", done.reports);
    ensure!(done.reports[0]["lane"] == "vps" && done.reports[1]["lane"] == "public", "{:?}", done.reports);
    app.serves(&app.head()?)?;
    for (node, url, right) in [
        (Node::Laptop, UI, "200"),
        (Node::Laptop, API, "200"),
        (Node::Outsider, "https://app.clearspringcg.com/", "200"),
        (Node::Outsider, "https://api.clearspringcg.com/api/v1/health", "200"),
        // Private: not by name, not by address.
        (Node::Outsider, UI, "000"),
        (Node::Outsider, "https://10.99.0.12:8443/api/health", "000"),
        (Node::Outsider, "http://10.99.0.12:3000/", "000"),
    ] {
        let code = status(lab, node, url)?;
        ensure!(code == right, "{url} answers {code} to {}", node.name());
    }
    // p14: the service's directory is the service's, whatever the checkout's mode.
    let modes = "stat -c '%U:%G %a' /opt/universal_agent /opt/universal_agent/src /opt/universal_agent/.env /var/lib/ua-deploy";
    let modes = lab.vps().sh(modes)?.stdout;
    ensure!(modes == "ua:ua 755\nua:ua 755\nroot:ua 640\nroot:root 700\n", "{modes}");
    // Nothing of ours stays in the app's directory, and nobody's program was installed.
    let strays = lab
        .vps()
        .sh("find /opt/universal_agent -name '*.ua-*' -o -name '.~tmp~' -o -name '.rsync-partial'")?
        .stdout;
    ensure!(strays.is_empty(), "{strays}");
    // The watchdog was held off and is back.
    let look = Look::take(lab, app.repo(), &[&app.head()?])?;
    ensure!(look.watchdog() == "active", "the watchdog's timer is {}", look.watchdog());
    let history = app.history()?;
    ensure!(
        history.len() == 1 && history[0]["verdict"] == "ok" && history[0]["who"] == "op@laptop",
        "{history:?}"
    );
    ensure!(history[0]["break_glass"] == false && history[0]["branch"] == "main", "{history:?}");
    Ok(())
}

fn dry_run(lab: &Lab) -> Result<()> {
    let app = App::fresh(lab)?;
    let before = app.traces()?;
    let done = app.deploy(&["--dry-run"], &[])?;
    done.exit(0)?.says("plan", "pass", "nothing was changed")?;
    let plan = done.reports[0]["data"]["plan"].to_string();
    for words in
        ["uv sync --frozen", "universal-agent-telegram", "serve http://127.0.0.1:8001 on https port 8443"]
    {
        ensure!(plan.contains(words), "no {words} in {plan}");
    }
    ensure!(app.traces()? == before, "a dry run left traces");
    // Nor does one of the very commit that serves, though there is something to mend beside it.
    app.good()?;
    lab.vps().command(&["tailscale", "serve", "reset"]).run()?;
    let before = app.traces()?;
    for verb in [&["plan"][..], &["run", "--dry-run"]] {
        let done = app.run(verb, &[], &[])?;
        done.exit(0)?.says("deploy", "pass", "nothing to do")?.says("plan", "pass", "nothing was changed")?;
        ensure!(done.reports.len() == 1, "the public side was asked: {:?}", done.reports);
        let data = &done.reports[0]["data"];
        ensure!(data["changes"]["restarts"] == serde_json::json!([]), "{data}");
        for words in ["restart nothing", "serve http://127.0.0.1:8001 on https port 8443"] {
            ensure!(data["plan"].to_string().contains(words), "no {words} in {data}");
        }
        ensure!(app.traces()? == before, "{verb:?} left traces");
    }
    Ok(())
}

fn second(lab: &Lab) -> Result<()> {
    let app = App::deployed(lab)?;
    // The server wrote to two tracked files by now.
    let memory = lab.vps().sh("cat /opt/universal_agent/Memory_System/ua_shared_workspace/MEMORY.md")?.stdout;
    ensure!(memory.contains("gateway started"), "{memory}");
    app.edit(&Edit::RemoveModule)?;
    let done = app.deploy(&[], &[])?;
    done.exit(0)?.says("build", "pass", "python (unchanged) web-ui (unchanged)")?;
    done.says("switch.kept", "pass", "MEMORY.md")?.says("switch", "pass", "1 taken away")?;
    app.serves(&app.head()?)?;
    let kept = lab.vps().sh("cat /opt/universal_agent/Memory_System/ua_shared_workspace/MEMORY.md")?.stdout;
    ensure!(kept.starts_with(memory.trim_end()), "p12: the memory was overwritten: {kept}");
    let gone = lab.vps().sh("test ! -e /opt/universal_agent/src/universal_agent/retired.py")?;
    ensure!(gone.success(), "p13: a removed module is still importable");
    app.edit(&Edit::WebTitle("Second".to_owned()))?;
    app.deploy(&["--break-glass"], &[])?.exit(0)?.says("build", "pass", "python (unchanged) web-ui")?;
    let page = lab.laptop().command(&["curl", "-sf", UI]).read()?;
    ensure!(page.contains("Second"), "p24: the UI is stale: {page}");
    let history = app.history()?;
    ensure!(history[1]["break_glass"] == false && history[2]["break_glass"] == true, "{history:?}");
    Ok(())
}

fn offline(lab: &Lab) -> Result<()> {
    let app = App::fresh(lab)?;
    let before = app.traces()?;
    lab.stop_tailscaled(Node::Vps)?;
    let done = app.deploy(&[], &[])?;
    lab.start_tailscaled(Node::Vps)?;
    done.exit(12)?.says("peer.reachable", "fail", "no pong")?;
    ensure!(app.traces()? == before, "something was changed");
    Ok(())
}

fn red_build(lab: &Lab) -> Result<()> {
    let app = App::deployed(lab)?;
    let commit = app.head()?;
    let processes = app.processes()?;
    app.edit(&Edit::RedBuild)?;
    let done = app.deploy(&[], &[])?;
    done.exit(1)?.serving("old")?.says("build", "fail", "web-ui")?.says(
        "deploy",
        "fail",
        "the old release serves as before",
    )?;
    // The person sees why.
    ensure!(done.output.stderr.contains("missing-part.mjs"), "{}", done.output.stderr);
    ensure!(app.processes()? == processes, "p16: a service was restarted");
    app.serves(&commit)?;
    let history = app.history()?;
    ensure!(history[1]["verdict"] == "failed" && history[1]["step"] == "build", "{history:?}");
    Ok(())
}

fn contract(lab: &Lab) -> Result<()> {
    let app = App::fresh(lab)?;
    let before = app.traces()?;
    let env = "/opt/universal_agent/.env";
    let set = |text: &str| lab.vps().command(&["sh", "-c", "cat >\"$0\"", env]).stdin(text).run();
    let good = lab.vps().command(&["cat", env]).read()?;
    set(&good.replace("vp.coder.primary", "vp.other").replace("=db_pull", "=push"))?;
    let done = app.deploy(&[], &[])?;
    done.exit(31)?.says("contract.env", "fail", "UA_VP_DISPATCH_MODE is not `db_pull`")?;
    done.says("contract.env", "fail", "UA_VP_ENABLED_IDS does not list vp.coder.primary")?;
    let secret = good.lines().find_map(|line| line.strip_prefix("UA_OPS_TOKEN=")).context("a token")?;
    ensure!(!format!("{:?}", done.output).contains(secret), "a secret was told");
    // p48: quotes and CRLF are read as systemd reads them.
    set(&good
        .replace("=db_pull\n", "=\"db_pull\"\r\n")
        .replace("UA_VP_ENABLED_IDS=vp", "export UA_VP_ENABLED_IDS=\"vp")
        .replace("coder.primary\n", "coder.primary\"\n"))?;
    app.deploy(&["--dry-run"], &[])?.exit(0)?.says("contract.env", "warn", "UA_VP_ENABLED_IDS")?;
    set(&good)?;
    lab.vps().sh("mv /usr/local/bin/uv /usr/local/bin/uv.away")?;
    let done = app.deploy(&[], &[])?;
    lab.vps().sh("mv /usr/local/bin/uv.away /usr/local/bin/uv")?;
    done.exit(31)?.says("contract.programs", "fail", "`uv`")?;
    ensure!(
        done.output.stderr.contains("hint: ssh root@srv1360701.taildcc090.ts.net 'curl"),
        "{}",
        done.output.stderr
    );
    ensure!(app.traces()? == before, "something was changed");
    Ok(())
}

fn staging_taken(lab: &Lab) -> Result<()> {
    let app = App::fresh(lab)?;
    lab.vps().command(&["tailscale", "serve", "--bg", "--https=8443", "http://127.0.0.1:9999"]).run()?;
    let before = app.traces()?;
    let required = &["--staging", "required"];
    app.deploy(required, &[])?.exit(42)?.says("staging.routes", "fail", "http://127.0.0.1:9999")?;
    // A plan is shown whatever is in the way.
    for (args, code, verdict) in [(&required[..], 42, "fail"), (&[], 0, "warn")] {
        let done = app.run(&["plan"], args, &[])?;
        done.exit(code)?.says("staging.routes", verdict, "http://127.0.0.1:9999")?;
        done.says("staging.other", "skip", "the ui route is left as it is, neither set nor asked")?;
        let data = &done.says("plan", "pass", "nothing was changed")?.reports[0]["data"];
        ensure!(data["plan"].to_string().contains("uv sync --frozen"), "{data}");
        ensure!(!data["plan"].to_string().contains("staging"), "{data}");
    }
    ensure!(app.traces()? == before, "something was changed");
    lab.use_control(Control::Headscale)?;
    lab.vps().command(&["tailscale", "serve", "reset"]).run()?;
    app.deploy(required, &[])?.exit(40)?.says("staging.routes", "fail", "not enabled")?;
    let untouched = lab.vps().sh("test ! -e /var/lib/ua-deploy")?;
    ensure!(untouched.success(), "something was changed");
    // Where nobody insists on staging, production does not wait for it.
    let done = app.deploy(&[], &[])?;
    done.exit(0)?.serving("new")?.says("staging.routes", "warn", "not enabled")?;
    ensure!(done.output.stderr.contains("--staging off"), "{}", done.output.stderr);
    app.serves(&app.head()?)?;
    // Plain http inside the tailnet needs no certificate.
    app.deploy(&["--scheme", "http"], &[])?.exit(0)?.says(
        "staging.api",
        "pass",
        "http://srv1360701.taildcc090.ts.net:8443",
    )?;
    lab.vps().command(&["tailscale", "serve", "reset"]).run()
}

fn staging_unhealthy(lab: &Lab) -> Result<()> {
    let app = App::deployed(lab)?;
    let first = app.head()?;
    let second = app.edit(&Edit::Harmless("two".to_owned()))?;
    let unhealthy =
        [("UA_TAILNET_STAGING_API_HEALTH_PATH", "/nowhere"), ("UA_TAILNET_STAGING_HEALTH_MAX_ATTEMPTS", "1")];
    let done = app.deploy(&["--staging", "required"], &unhealthy)?;
    done.exit(33)?.serving("old")?;
    ensure!(done.reports[0]["data"]["cause"]["exit_code"] == 41, "{}", done.reports[0]["data"]);
    app.serves(&first)?;
    let history = app.history()?;
    ensure!(history[1]["verdict"] == "rolled-back", "{history:?}");
    app.deploy(&[], &unhealthy)?.exit(0)?.says("staging.api", "warn", "404")?;
    app.serves(&second)
}

/// Deploys a fault on top of a good release; the good one must be back.
fn taken_back(lab: &Lab, fault: &Edit, step: &str, words: &str) -> Result<()> {
    let app = App::deployed(lab)?;
    let commit = app.head()?;
    app.edit(fault)?;
    let done = app.deploy(&["--ready-timeout", "15"], &[])?;
    done.exit(33)?.serving("old")?.says(step, "fail", words)?.says("restore", "pass", "serves again")?;
    app.serves(&commit)?;
    let code = status(lab, Node::Laptop, API)?;
    ensure!(code == "200", "{API} answers {code}");
    // And the next good one goes through.
    app.edit(&Edit::Repair)?;
    app.good().map(drop)
}

fn api_broken(lab: &Lab) -> Result<()> {
    taken_back(lab, &Edit::ApiBroken, "health", "api answers 500")
}

fn crash_loop(lab: &Lab) -> Result<()> {
    taken_back(lab, &Edit::CrashLoop, "units", "universal-agent-telegram")
}

fn worker_crash(lab: &Lab) -> Result<()> {
    taken_back(lab, &Edit::WorkerCrash, "units", "universal-agent-vp-worker@vp.coder.primary (")
}

fn worker_without_process(lab: &Lab) -> Result<()> {
    let template = "deployment/systemd/universal-agent-vp-worker@.service";
    let as_it_is = include_str!("../app/tree/deployment/systemd/universal-agent-vp-worker@.service");
    // What it has to read first is not there, and systemd does not try again.
    let fault = as_it_is
        .replace("EnvironmentFile=-/opt/universal_agent/.env", "EnvironmentFile=/opt/universal_agent/nowhere")
        .replace("Restart=always", "Restart=no");
    ensure!(fault != as_it_is, "the template has other words");
    let said = "(systemd gave it up: resources)";
    taken_back(lab, &Edit::Write(template.into(), fault), "units", said)
}

/// Root's login shell is dash, the key's path has a space and a quote, the laptop's PATH has both and more.
fn odd_surroundings(lab: &Lab) -> Result<()> {
    let app = App::fresh(lab)?;
    lab.vps().command(&["usermod", "--shell", "/usr/bin/dash", "root"]).run()?;
    let copy = "mkdir -p \"$HOME/o'dd dir\" && cp -p .ssh/id_ed25519 \"$HOME/o'dd dir/my key\"";
    lab.laptop().command(&["sh", "-ec", copy]).user(OPERATOR).run()?;
    let path = "/opt/ua/bin:/usr/local/bin:/usr/bin:/bin:/home/op/$(touch pwned)/a b/';touch pwned;'";
    let done = app.deploy(&["--ssh-key", "/home/op/o'dd dir/my key"], &[("PATH", path)]);
    lab.vps().command(&["usermod", "--shell", "/bin/bash", "root"]).run()?;
    done?.exit(0)?;
    app.serves(&app.head()?)?;
    let pwned = lab.vps().sh("find / -xdev -name pwned")?.stdout;
    ensure!(pwned.is_empty(), "{pwned}");
    let seen = lab.vps().sh("grep -r 'touch pwned' /var/lib/ua-deploy /opt/universal_agent")?;
    ensure!(!seen.success(), "p44: the laptop's PATH travelled: {}", seen.stdout);
    Ok(())
}

fn interrupted(lab: &Lab) -> Result<()> {
    let app = App::fresh(lab)?;
    let script = "ua-deploy & pid=$!
        for _ in $(seq 100); do
            ssh -o BatchMode=yes root@srv1360701.taildcc090.ts.net systemctl is-active -q 'ua-deploy-forward-*' && break
            sleep 0.2
        done
        ua-deploy; echo second $?
        kill -INT $pid; wait $pid; echo first $?";
    let both = lab
        .laptop()
        .command(&["sh", "-c", script])
        .user(OPERATOR)
        .dir("/home/op/app")
        .timeout(Duration::from_mins(2))
        .output()?;
    ensure!(both.stdout.contains("second 30\n"), "{both:?}");
    ensure!(both.stdout.contains("first 130\n"), "{both:?}");
    ensure!(
        both.stderr.contains("another deploy is being activated: ua-deploy forward 20"),
        "{}",
        both.stderr
    );
    // Whoever leaves a deploy is told last how to come back to it.
    let last = both.stderr.lines().last().unwrap_or_default();
    ensure!(last.starts_with("hint: ua-deploy attach 20"), "{}", both.stderr);
    ensure!(both.stderr.contains("goes on on the VPS by itself"), "{}", both.stderr);
    // A busy run is no deploy: there is one record.
    finished(&app)
}

/// Waits until an activation runs on the VPS.
fn activating(lab: &Lab) -> Result<()> {
    lab.vps()
        .command(&["sh", "-c", "until systemctl is-active -q 'ua-deploy-forward-*'; do sleep 0.1; done"])
        .timeout(Duration::from_mins(1))
        .run()
}

/// Attaches to the one deploy there is: the VPS finishes it, and whoever attaches ends it as its client would have.
fn finished(app: &App<'_>) -> Result<()> {
    let attached = app.run(&["attach"], &[], &[])?;
    attached.exit(0)?.says("confirm", "pass", "over a fresh connection")?;
    ensure!(attached.output.stdout.contains("\"lane\":\"public\""), "{}", attached.output.stdout);
    let history = app.history()?;
    ensure!(history.len() == 1 && history[0]["verdict"] == "ok", "{history:?}");
    app.serves(&app.head()?)?;
    // Again it only says how that ended.
    app.run(&["attach"], &[], &[])?.exit(0).map(drop)
}

fn dropped(lab: &Lab) -> Result<()> {
    let app = App::fresh(lab)?;
    let done = std::thread::scope(|scope| {
        let deploy = scope.spawn(|| app.deploy(&[], &[]));
        activating(lab)?;
        lab.vps().sh("pkill -KILL -f '^sshd: root'")?;
        deploy.join().map_err(|_| anyhow::anyhow!("the deploying thread panicked"))?
    })?;
    done.exit(20)?.serving("unknown")?.says("activate", "fail", "the VPS goes on with it")?;
    ensure!(done.output.stderr.contains("hint: ua-deploy attach"), "{}", done.output.stderr);
    finished(&app)
}

fn stalled(lab: &Lab) -> Result<()> {
    let app = App::deployed(lab)?;
    let commit = app.head()?;
    // Nothing that compresses, so that there is time to stop it.
    let noise = Command::new("openssl").args(["rand", "-base64", "60000000"]).output()?.stdout;
    app.edit(&Edit::Write("docs/noise.txt".into(), String::from_utf8(noise)?))?;
    let done = std::thread::scope(|scope| {
        let deploy = scope.spawn(|| app.deploy(&["--idle-timeout", "4"], &[]));
        let stop = "until pkill -STOP -f '^rsync --server'; do sleep 0.02; done";
        lab.vps().command(&["sh", "-c", stop]).timeout(Duration::from_mins(1)).run()?;
        deploy.join().map_err(|_| anyhow::anyhow!("the deploying thread panicked"))?
    })?;
    lab.vps().sh("pkill -KILL -f '^rsync --server'")?;
    done.exit(32)?.serving("old")?.says("transfer", "fail", "the upload failed")?;
    app.serves(&commit)?;
    let history = app.history()?;
    ensure!(history[1]["verdict"] == "failed" && history[1]["step"] == "transfer", "{history:?}");
    app.good().map(drop)
}

fn killed(lab: &Lab) -> Result<()> {
    let app = App::deployed(lab)?;
    let commit = app.head()?;
    app.edit(&Edit::WebTitle("Never".to_owned()))?;
    let done = std::thread::scope(|scope| {
        let deploy = scope.spawn(|| app.deploy(&[], &[]));
        lab.vps()
            .command(&["sh", "-c", "until systemctl is-active -q 'ua-deploy-build-*'; do sleep 0.05; done"])
            .timeout(Duration::from_mins(1))
            .run()?;
        lab.vps().sh("systemctl kill --signal=KILL 'ua-deploy-forward-*'")?;
        deploy.join().map_err(|_| anyhow::anyhow!("the deploying thread panicked"))?
    })?;
    done.exit(1)?.serving("old")?.says("deploy", "fail", "failed at step `build`")?;
    done.says("build", "fail", "cut off before the switch")?;
    let left =
        "for _ in $(seq 50); do systemctl is-active -q 'ua-deploy-*' || exit 0; sleep 0.1; done; exit 1";
    ensure!(lab.vps().sh(left)?.success(), "the build outlived its deploy");
    app.serves(&commit)?;
    // Nothing is in the way of the next one.
    app.good().map(drop)
}

fn full_disk(lab: &Lab) -> Result<()> {
    let app = App::fresh(lab)?;
    let before = app.traces()?;
    lab.fill_disk(Node::Vps, 100 * 1024)?;
    let done = app.deploy(&[], &[])?;
    lab.free_disk(Node::Vps)?;
    done.exit(31)?.says("contract.space", "fail", "a deploy needs 51")?;
    ensure!(app.traces()? == before, "something was changed");
    Ok(())
}

fn unconfirmed(lab: &Lab) -> Result<()> {
    let app = App::deployed(lab)?;
    let commit = app.head()?;
    app.edit(&Edit::WebTitle("Silent".to_owned()))?;
    // Its client is killed as soon as the VPS is at work.
    let script = "UA_DEPLOY_REQUIRE_CONFIRM=5 ua-deploy -q & pid=$!
        for _ in $(seq 200); do
            ssh -o BatchMode=yes root@srv1360701.taildcc090.ts.net systemctl is-active -q 'ua-deploy-forward-*' && break
            sleep 0.2
        done
        kill -KILL $pid";
    lab.laptop()
        .command(&["sh", "-c", script])
        .user(OPERATOR)
        .dir("/home/op/app")
        .timeout(Duration::from_mins(2))
        .run()?;
    let back = "until grep -q rolled-back /var/lib/ua-deploy/history.jsonl; do sleep 0.2; done";
    lab.vps().command(&["sh", "-c", back]).timeout(Duration::from_mins(2)).run()?;
    app.serves(&commit)?;
    let history = app.history()?;
    let last = history.last().context("a history")?;
    let detail = last["detail"].as_str().unwrap_or_default();
    ensure!(last["verdict"] == "rolled-back" && detail.contains("nobody confirmed it within 5 s"), "{last}");
    // Whoever attaches is told so by the same exit code.
    app.run(&["attach"], &[], &[])?.exit(33)?;
    // A client that confirms in time keeps its release: nothing is left that could take it back.
    app.deploy(&[], &[("UA_DEPLOY_REQUIRE_CONFIRM", "5m")])?.exit(0)?;
    let armed = lab.vps().sh("systemctl list-units --all --no-legend 'ua-deploy-confirm-*'")?.stdout;
    ensure!(armed.is_empty(), "{armed}");
    app.serves(&app.head()?)
}

fn knows(lab: &Lab) -> Result<()> {
    let app = App::fresh(lab)?;
    let status = || app.run(&["status"], &[], &[]);
    status()?.exit(0)?.says("serving", "warn", "nothing was deployed yet")?;
    let nothing = lab.laptop().command(&["ua-deploy", "history"]).user(OPERATOR).output()?;
    ensure!(nothing.stdout.is_empty() && nothing.stderr.contains("nothing was deployed yet"), "{nothing:?}");
    let commit = app.good()?;
    let said = status()?;
    said.exit(0)?.says("serving", "pass", &commit)?.says("units", "pass", "units are active")?;
    said.says("drift", "pass", "as the release put it")?;
    lab.vps().sh("systemctl stop universal-agent-api")?;
    status()?.exit(1)?.says("units", "fail", "universal-agent-api is inactive")?;
    lab.vps().sh("systemctl start universal-agent-api")?;
    lab.vps().sh("echo '# hot fix' >>/opt/universal_agent/src/universal_agent/__init__.py")?;
    status()?.exit(0)?.says("drift", "warn", "src/universal_agent/__init__.py")?;
    // It is overwritten by the next one, and can be found again.
    let done = app.deploy(&[], &[])?;
    let (_, told) =
        done.exit(0)?.says("drift", "warn", "is kept in /var/lib/ua-deploy/releases/")?.check("drift")?;
    let backup = told.split_whitespace().find(|word| word.starts_with("/var/lib/")).context("a directory")?;
    let file = format!("{backup}/src/universal_agent/__init__.py");
    ensure!(lab.vps().command(&["cat", &file]).read()?.contains("# hot fix"), "{told}");
    let unknown = app.run(&["attach", "20200101"], &[], &[])?;
    unknown.exit(1)?.says("history", "fail", "there is no deploy `20200101`").map(drop)
}

/// Missions of the coder's worker.
struct Missions<'a>(&'a Lab);

impl Missions<'_> {
    const VP: &'static str = "vp.coder.primary";
    const DATABASE: &'static str = "/opt/universal_agent/AGENT_RUN_WORKSPACES/vp_state.db";

    /// Queues a mission of this many seconds and returns its id.
    fn queue(&self, seconds: &str) -> Result<String> {
        let queue = [".venv/bin/python", "scripts/queue_mission.py", Self::VP, seconds];
        let queue = self.0.vps().command(&queue).user("ua").dir("/opt/universal_agent");
        Ok(queue.read()?.trim().to_owned())
    }

    /// Runs one statement as the owner of the database.
    fn sql(&self, statement: &str) -> Result<String> {
        let sqlite = self.0.vps().command(&["sqlite3", Self::DATABASE, statement]).user("ua");
        Ok(sqlite.read()?.trim().to_owned())
    }

    fn status(&self, id: &str) -> Result<String> {
        self.sql(&format!("SELECT status FROM vp_missions WHERE mission_id = '{id}'"))
    }

    fn started(&self, id: &str) -> Result<()> {
        let begun = Instant::now();
        while self.status(id)? != "running" {
            ensure!(begun.elapsed() < Duration::from_secs(20), "the worker did not claim {id}");
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    }
}

fn mission(lab: &Lab) -> Result<()> {
    let app = App::deployed(lab)?;
    app.edit(&Edit::Harmless("Patient".to_owned()))?;
    let missions = Missions(lab);
    let long = missions.queue("90")?;
    missions.started(&long)?;
    // The dispatcher overwrites the session of a busy worker.
    let next = missions.queue("0")?;
    let session = missions.sql("SELECT status FROM vp_sessions WHERE vp_id = 'vp.coder.primary'")?;
    ensure!(session == "idle", "the session is {session}");
    let done = app.deploy(&["--drain-timeout", "2"], &[])?;
    done.exit(31)?.serving("old")?.says("drain", "fail", Missions::VP)?;
    ensure!(missions.status(&long)? == "running", "the mission was disturbed");
    // With consent the mission is killed; its row says nothing about that.
    app.deploy(&["--force-restart"], &[])?.exit(0)?.says("drain", "warn", Missions::VP)?;
    ensure!(missions.status(&long)? == "running", "{}", missions.status(&long)?);
    app.edit(&Edit::Harmless("Not waiting for the dead".to_owned()))?;
    app.deploy(&["--drain-timeout", "10"], &[])?.exit(0)?.says("drain", "pass", "")?;
    // Otherwise the next worker claims it again.
    missions.sql("UPDATE vp_missions SET status = 'failed' WHERE status = 'running'")?;
    ensure!(missions.status(&next)? == "completed", "{}", missions.status(&next)?);
    let short = missions.queue("20")?;
    missions.started(&short)?;
    // A change that the workers do not read does not wait for them.
    app.edit(&Edit::WebTitle("Impatient".to_owned()))?;
    let done = app.deploy(&["--drain-timeout", "1"], &[])?;
    done.exit(0)?.says("units", "pass", "1 of 6 units was restarted")?;
    ensure!(missions.status(&short)? == "running", "{}", missions.status(&short)?);
    app.edit(&Edit::Harmless("More patient".to_owned()))?;
    app.deploy(&[], &[])?.exit(0)?.says("drain", "pass", "")?;
    ensure!(missions.status(&short)? == "completed", "{}", missions.status(&short)?);
    app.serves(&app.head()?)
}

fn rolled_back(lab: &Lab) -> Result<()> {
    let app = App::deployed(lab)?;
    let first = app.head()?;
    app.edit(&Edit::WebTitle("Regretted".to_owned()))?;
    let plan = app.run(&["plan"], &[], &[])?;
    plan.exit(0)?.says("plan", "pass", "nothing was changed")?;
    let data = &plan.reports[0]["data"];
    ensure!(data["since"]["commits"].as_array().is_some_and(|commits| commits.len() == 1), "{data}");
    ensure!(data["since"]["changed"].to_string().contains("web-ui/"), "{data}");
    let lines = data["plan"].to_string();
    ensure!(
        lines.contains("restart universal-agent-webui: web-ui/app/page.mjs changed, which its unit names")
            && lines.contains("bring 1 commit\"")
            && lines.contains("leave gateway, api, ")
            && lines.contains("leave build python alone")
            && lines.contains("build web-ui, because its inputs changed"),
        "{lines}"
    );
    let second = app.good()?;
    let plan = app.run(&["rollback"], &["--dry-run"], &[])?;
    let data = &plan.exit(0)?.reports[0]["data"];
    ensure!(data["plan"].to_string().contains("take back 1 commit\""), "{data}");
    ensure!(data["since"]["taken_back"].to_string().contains("Change the web UI's title"), "{data}");
    app.serves(&second)?;
    app.run(&["rollback"], &[], &[])?.exit(0)?;
    app.serves(&first)?;
    let history = app.history()?;
    let (left, last) = (&history[1]["id"], history.last().context("a history")?);
    ensure!(last["rollback_from"] == *left && last["verdict"] == "ok", "{last}");
    // What was left is marked bad: there is nothing older to go to, and nothing is done.
    let refused = app.run(&["rollback"], &[], &[])?;
    refused.exit(1)?;
    ensure!(refused.output.stdout.contains("no older release"), "{:?}", refused.output);
    app.serves(&first)?;
    // It may go out again, but not without a word.
    app.run(&["plan"], &[], &[])?.exit(0)?.says("source.bad", "warn", "op@laptop rolled back from it")?;
    ensure!(app.history()?[1]["bad"]["id"] == last["id"], "{:?}", app.history()?);
    app.good().map(drop)
}

fn unlocked(lab: &Lab) -> Result<()> {
    let app = App::deployed(lab)?;
    app.edit(&Edit::WebTitle("Stuck".to_owned()))?;
    let done = std::thread::scope(|scope| {
        let deploy = scope.spawn(|| app.deploy(&[], &[]));
        activating(lab)?;
        let id = app.history()?[1]["id"].as_str().context("an id")?.to_owned();
        app.run(&["status"], &[], &[])?.exit(0)?.says("lock", "warn", &id)?;
        let row = app.history()?[1].clone();
        ensure!(row["verdict"] == "activating" && row["under_way"].is_string(), "{row}");
        let busy = app.run(&["rollback"], &[], &[])?;
        busy.exit(30)?.says("lock", "fail", &id)?;
        ensure!(busy.output.stderr.contains(&format!("hint: ua-deploy attach {id}\n")), "{:?}", busy.output);
        app.run(&["unlock", "20200101T000000Z-x"], &["--force"], &[])?.exit(30)?;
        app.run(&["unlock", &id], &[], &[])?.exit(30)?.says("lock", "fail", "is alive")?;
        app.run(&["unlock", &id], &["--force"], &[])?.exit(0)?;
        app.run(&["unlock", &id], &[], &[])?.exit(0)?.says("lock", "pass", "` ended as ")?;
        deploy.join().map_err(|_| anyhow::anyhow!("the deploying thread panicked"))?
    })?;
    ensure!([1, 33].contains(&done.output.code), "{:?}", done.output);
    app.good().map(drop)
}

fn old_script(lab: &Lab) -> Result<()> {
    let app = App::fresh(lab)?;
    app::deploy_by_old_way(lab, Shape::Feb)?;
    let first = app.head()?;
    app.serves(&first)?;
    // The very commit that runs already, then a change.
    app.good()?;
    app.edit(&Edit::Harmless("After the old script".to_owned()))?;
    let done = app.deploy(&[], &[])?;
    done.exit(0)?.says("build", "pass", "python (unchanged) web-ui (unchanged)")?;
    app.serves(&app.head()?)
}

/// The app of August, as its own scripts leave it: with a `.git` in the app's directory.
fn august_site(lab: &Lab) -> Result<App<'_>> {
    lab.use_control(Control::Https)?;
    let app = App::fresh_in(lab, Shape::Aug)?;
    app::deploy_by_old_way(lab, Shape::Aug)?;
    app.serves(&app.head()?)?;
    Ok(app)
}

/// Deploys with the built-in profile of August, unchanged: its command runs the app's own loader of secrets.
fn august_good(app: &App<'_>) -> Result<Deployed> {
    let done = app.deploy(&[], &[("UA_DEPLOY_PROFILE", "universal-agent-2026-08")])?;
    done.exit(0)?.says("contract.env", "pass", "")?.says("staging.ui", "pass", "/dashboard answers 200")?;
    app.serves(&app.head()?)?;
    Ok(done)
}

/// The commit that the gateway of August reports.
fn august_commit(lab: &Lab) -> Result<Value> {
    let told = lab.vps().command(&["curl", "-sf", "http://127.0.0.1:8002/api/v1/version"]).read()?;
    let told: Value = serde_json::from_str(&told)?;
    Ok(told["commit_sha"].clone())
}

fn august(lab: &Lab) -> Result<()> {
    let app = august_site(lab)?;
    august_good(&app)?;
    for (url, right) in [(UI, "307"), ("https://srv1360701.taildcc090.ts.net/dashboard", "200")] {
        let code = status(lab, Node::Laptop, url)?;
        ensure!(code == right, "{url} answers {code}");
    }
    let env = lab.vps().sh("stat -c '%U:%G %a' /opt/universal_agent/.env")?.stdout;
    ensure!(env == "ua:ua 600\n", "{env}");
    let told = august_commit(lab)?;
    ensure!(told == app.head()?, "the gateway reports {told}");
    // A deploy brings no `.git`.
    lab.vps().command(&["rm", "-rf", "/opt/universal_agent/.git"]).run()?;
    app.edit(&Edit::Release("August".to_owned()))?;
    august_good(&app)?;
    let told = august_commit(lab)?;
    ensure!(told.is_null(), "a directory without .git has the commit {told}");
    Ok(())
}

/// A deploy does not move the `.git` of the old way on, and the gateway goes on to report its commit.
fn stale_git(lab: &Lab) -> Result<()> {
    let app = august_site(lab)?;
    let first = app.head()?;
    august_good(&app)?;
    app.edit(&Edit::Release("August".to_owned()))?;
    august_good(&app)?.says("versions", "warn", "gateway runs")?;
    let told = august_commit(lab)?;
    ensure!(told == first, "the gateway reports {told}");
    Ok(())
}
