//! The timer of the operator's own systemd, and the app's toggle, asked at its public name.

use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use xtask::app;
use xtask::cmd::{Cmd, Output};
use xtask::lab::{Lab, Node, OPERATOR};

use super::{MIRROR, REMOTE, Site, Way, ended, running, until};
use crate::Scenario;
use crate::deploy_first::Deployed as Said;

pub(super) fn trials() -> Vec<(&'static str, Scenario)> {
    vec![
        ("p117_p136_the_timer_runs_with_exactly_the_settings_it_was_turned_on_with", timer as Scenario),
        ("p131_a_unit_that_holds_the_token_is_told_and_replaced", old_unit),
        ("p132_the_toggle_is_asked_at_the_public_name", toggle),
        ("the_timer_obeys_the_toggle", obeys),
    ]
}

const NAME: &str = "ua-remote-workspace-sync";
const UNITS: &str = "/home/op/.config/systemd/user";
const TOKEN: &str = "lab-token-5f2c";
/// What the app's gateway answers with.
const TOGGLE: &str = "/var/lib/universal-agent/remote_sync.json";

/// No timer of the operator's is left when this is dropped.
struct Timers<'a>(&'a Site<'a>);

impl<'a> Timers<'a> {
    fn none(site: &'a Site<'a>) -> Result<Self> {
        let timers = Self(site);
        timers.clear()?;
        Ok(timers)
    }

    fn clear(&self) -> Result<()> {
        let clear = format!(
            "systemctl --user disable --quiet --now {NAME}.timer; systemctl --user stop {NAME}.service
             rm -rf {UNITS} .local/state/ua/timer.toml
             systemctl --user daemon-reload; systemctl --user reset-failed; true"
        );
        self.0.lab.laptop().command(&["sh", "-c", &clear]).user(OPERATOR).run()
    }

    fn run(&self, args: &[&str]) -> Result<Said> {
        self.0.run(&[&["timer"], args].concat())
    }

    /// What `status` says of it, as data.
    fn status(&self) -> Result<Value> {
        Ok(self.run(&["status"])?.exit(0)?.reports[0]["data"].clone())
    }

    /// Waits until a run has ended with this code.
    fn ended(&self, code: i32) -> Result<()> {
        until(&format!("a run ends with {code}"), || {
            // Some other one may be under way.
            Ok(self.status()?["last_exit_code"] == code)
        })
        .with_context(|| self.log().unwrap_or_default())
    }

    /// Waits until a run says this; the journal has it a moment later.
    fn says(&self, words: &str) -> Result<()> {
        until(&format!("a run says `{words}`"), || Ok(self.log()?.contains(words)))
    }

    fn log(&self) -> Result<String> {
        let log = ["journalctl", "--user", "-q", "-o", "cat", "-n", "30", "-u", NAME];
        self.0.lab.laptop().command(&log).user(OPERATOR).read()
    }

    fn systemctl(&self, args: &[&str]) -> Result<Output> {
        self.0.lab.laptop().command(&[&["systemctl", "--user"], args].concat()).user(OPERATOR).output()
    }
}

impl Drop for Timers<'_> {
    fn drop(&mut self) {
        // The next trial that needs it says so if this failed.
        let _ = self.clear();
    }
}

fn timer(lab: &Lab) -> Result<()> {
    let site = Site::fresh(lab, Way::Defaults)?;
    let timers = Timers::none(&site)?;
    let mirror = "/home/op/mirror 100% of %h \"it's\" $HOME";
    site.make(&[
        ended("run_1"),
        running("run_2"),
        running("x y_3"),
        json!({ "id": "session_4", "age": 600, "state": null, "log": "" }),
    ])?;
    let on = ["on", "--interval", "2s", "--local-dir", mirror, "--no-artifacts", "--ignore-remote-toggle"];
    let prefixes = ["--ready-session-prefix", "run_,x y_"];
    let said = timers.run(&[&on[..], &prefixes, &["--dry-run"]].concat())?;
    said.exit(0)?.says("timer.plan", "pass", "nothing was changed")?;
    ensure!(!site.exists(UNITS)?, "a dry run left units");
    let said = timers.run(&[&on[..], &prefixes].concat())?;
    said.exit(0)?.says("timer.state", "pass", "is on, 2s after each run")?;

    // A real run, which reads its settings exactly as they were typed.
    let arrives = |id: &str| {
        until(&format!("`{id}` comes"), || site.exists(&format!("{mirror}/{id}")))
            .with_context(|| timers.log().unwrap_or_default())
    };
    arrives("run_1")?;
    timers.ended(0)?;
    site.copies(REMOTE, &["run_1", "session_4"], mirror)?;
    ensure!(!site.exists(&site.at(MIRROR))?, "it went to the default place");
    let status = timers.status()?;
    ensure!(status["on"] == true && status["ours"] == true && status["last_result"] == "success", "{status}");
    ensure!(status["next_run"].is_string() || status["running"] == true, "{status}");
    let command = status["exec_start"].clone();
    for words in ["--local-dir /home/op/mirror 100% of %h \"it's\" $$HOME ", "run_,x y_", "once --repo"] {
        ensure!(command.as_str().is_some_and(|command| command.contains(words)), "{command}");
    }
    let token = ["sh", "-c", &format!("stat -c %a {UNITS}/{NAME}.*; cat {UNITS}/{NAME}.*")];
    let units = lab.laptop().command(&token).read()?;
    ensure!(units.starts_with("644\n644\n") && !units.contains("OnCalendar"), "{units}");

    // Off and on again with the same settings.
    timers.run(&["toggle"])?.exit(0)?.says("timer.state", "pass", "is off")?;
    ensure!(timers.status()?["on"] == false, "{}", timers.status()?);
    site.make(&[ended("run_5")])?;
    thread::sleep(Duration::from_secs(4));
    ensure!(!site.exists(&format!("{mirror}/run_5"))?, "something still runs");
    timers.run(&["toggle"])?.exit(0)?.says("timer.state", "pass", "is on, 2s after each run")?;
    ensure!(timers.status()?["exec_start"] == command, "{} was {command}", timers.status()?);
    arrives("run_5")?;

    // p110: what fails ends with its own code. A run of the timer's and one of a person's do not meet.
    lab.stop_tailscaled(Node::Vps)?;
    let offline = timers.ended(12);
    lab.start_tailscaled(Node::Vps)?;
    offline?;
    timers.run(&["status"])?.exit(0)?.says("timer.last_run", "warn", "exit code 12 (peer-unreachable)")?;
    timers.ended(0)?;

    timers.run(&["off"])?.exit(0)?.says("timer.state", "pass", "is off")?;
    let left = lab.laptop().command(&["sh", "-c", &format!("find {UNITS} ! -type d")]).read()?;
    ensure!(left.is_empty(), "{left}");
    let listed = timers.systemctl(&["list-unit-files", "--no-legend", &format!("{NAME}*")])?;
    ensure!(listed.stdout.is_empty(), "{listed:?}");
    timers.run(&["off"])?.exit(0)?.says("timer.state", "pass", "was off").map(drop)
}

/// As the old installer wrote them.
const OLD_UNITS: &str = "
mkdir -p .config/systemd/user && cd .config/systemd/user && umask 022
cat >ua-remote-workspace-sync.service <<END
[Unit]
Description=Universal Agent remote workspace sync
After=network-online.target

[Service]
Type=oneshot
WorkingDirectory=/home/op/agent
ExecStart=/bin/true /home/op/agent/scripts/sync_remote_workspaces.sh --once --ops-token lab-token-5f2c --ready-session-prefix session_\\\\,tg_
END
cat >ua-remote-workspace-sync.timer <<END
[Timer]
OnBootSec=1h
OnUnitActiveSec=1h
Persistent=true

[Install]
WantedBy=timers.target
END
systemctl --user daemon-reload && systemctl --user enable --quiet --now ua-remote-workspace-sync.timer
";

fn old_unit(lab: &Lab) -> Result<()> {
    let site = Site::fresh(lab, Way::Defaults)?;
    let timers = Timers::none(&site)?;
    lab.laptop().command(&["sh", "-ec", OLD_UNITS]).user(OPERATOR).run()?;
    let said = timers.run(&["status"])?;
    said.exit(0)?.says("timer.unit", "warn", "was not made by ua-sync")?;
    said.says("timer.token", "warn", "holds the ops token")?;
    let shown = |said: &Said| format!("{:?}{:?}", said.output, said.reports);
    ensure!(!shown(&said).contains(TOKEN), "the token is told: {}", shown(&said));
    let said = site.typed(&["timer", "on", "--ops-token", TOKEN]).output()?;
    ensure!(said.code == 2 && !said.stderr.contains(TOKEN), "{said:?}");

    // Nothing is copied: nobody gave it a token, and the toggle is respected.
    site.make(&[ended("session_1")])?;
    let said = timers.run(&["on", "--interval", "2s"])?;
    said.exit(0)?.says("timer.unit", "warn", "it was replaced")?;
    said.says("timer.token", "warn", "held the ops token")?.says("timer.state", "pass", "is on")?;
    ensure!(!shown(&said).contains(TOKEN), "the token is told: {}", shown(&said));
    let grep = format!("grep -rl {TOKEN} {UNITS} /home/op/.local/state/ua || true");
    let left = lab.laptop().command(&["sh", "-c", &grep]).read()?;
    ensure!(left.is_empty(), "the token lies in {left}");
    let said = timers.run(&["status"])?;
    said.exit(0)?;
    ensure!(said.check("timer.token").is_err() && said.check("timer.unit").is_err(), "{:?}", said.reports);
    timers.ended(1)?;
    timers.says("there is no UA_OPS_TOKEN")?;
    ensure!(!site.exists(&format!("{}/session_1", site.at(MIRROR)))?, "it was copied");

    timers.run(&["on", "--interval", "2s", "--ignore-remote-toggle"])?.exit(0)?;
    timers.ended(0)?;
    site.mirrors(&["session_1"])
}

/// The app's gateway, behind the VPS's own nginx and certificate.
struct Gateway<'a>(&'a Lab);

/// Answers everything with this status.
const BROKEN: &str = "
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(int(sys.argv[1]))
        self.end_headers()
        self.wfile.write(b'{\"enabled\": true}')
http.server.HTTPServer(('127.0.0.1', 8002), Handler).serve_forever()
";

impl<'a> Gateway<'a> {
    fn start(lab: &'a Lab) -> Result<Self> {
        let source = app::source_dir().join("tree/src");
        let there = lab.vps().path("/root/gateway")?;
        Cmd::new(["rm", "-rf", there.as_str()]).run()?;
        Cmd::new(["cp", "-R", source.as_str(), there.as_str()]).run()?;
        let gateway = Self(lab);
        let token = format!("--setenv=UA_OPS_TOKEN={TOKEN}");
        gateway.serve(
            &[
                "--setenv=PYTHONPATH=/root/gateway",
                "--setenv=UA_RUNTIME_DB_PATH=/root/gateway/own.db",
                "--setenv=UA_VP_DB_PATH=/root/gateway/vp.db",
                &token,
            ],
            &["-m", "universal_agent.gateway_server"],
        )?;
        Ok(gateway)
    }

    fn serve(&self, options: &[&str], python: &[&str]) -> Result<()> {
        let vps = self.0.vps();
        vps.sh("systemctl stop 'universal-agent-*' 'lab-backend-*'")?;
        let unit = ["systemd-run", "--quiet", "--collect", "--unit=lab-backend-8002"];
        vps.command(&[&unit[..], options, &["python3"], python].concat()).run()?;
        let answers = "until curl -s -o /dev/null http://127.0.0.1:8002/; do sleep 0.05; done";
        vps.command(&["sh", "-c", answers]).run()
    }

    /// What it says of the toggle from now on.
    fn says(&self, text: &str) -> Result<()> {
        let write = ["sh", "-ec", "cat >\"$0.new\" && mv \"$0.new\" \"$0\"", TOGGLE];
        self.0.vps().command(&write).stdin(text).run()
    }
}

impl Drop for Gateway<'_> {
    fn drop(&mut self) {
        let _ = self.0.vps().sh(&format!("systemctl stop 'lab-backend-*'; rm -rf /root/gateway {TOGGLE}"));
    }
}

fn toggle(lab: &Lab) -> Result<()> {
    let site = Site::fresh(lab, Way::Defaults)?;
    let gateway = Gateway::start(lab)?;
    site.make(&[ended("session_1")])?;
    let with = |token: &str, args: &[&str]| {
        let args = [&["once", "--respect-remote-toggle", "--json"], args].concat();
        Said::read(site.typed(&args).env("UA_OPS_TOKEN", token).output()?)
    };
    let nothing = |said: &Said| {
        ensure!(said.check("ssh").is_err(), "the VPS was contacted: {:?}", said.reports);
        ensure!(!site.exists(&format!("{}/session_1", site.at(MIRROR)))?, "it was copied");
        Ok(())
    };
    for (text, why) in [
        ("{\"enabled\": false}", "it is off"),
        ("{\"enabled\": null}", "it is not set"),
        ("{}", "it is not set"),
        ("{\"enabled\": false, \"x\": {\"enabled\": true}}", "it is off"),
        ("{\"x\": {\"enabled\": true}}", "it is not set"),
        ("{\"enabled\": \"true\"}", "neither true nor false"),
        ("enabled", "no JSON object"),
    ] {
        gateway.says(text)?;
        let said = with(TOKEN, &[])?;
        said.exit(0)?.says("sync.toggle", "skip", why).with_context(|| text.to_owned())?;
        ensure!(said.reports[0]["verdict"] == "skip", "{}", said.reports[0]);
        nothing(&said)?;
    }
    gateway.says("{\"enabled\": true}")?;
    // Nobody without the token, nobody by another name than that of the certificate, and nobody in the clear.
    for (token, args, code, why) in [
        ("another", &[][..], 1, "refuses the token with status 401"),
        ("", &[], 1, "there is no UA_OPS_TOKEN"),
        (TOKEN, &["--gateway-url", "https://10.99.0.12"], 1, "does not answer"),
        (TOKEN, &["--gateway-url", "http://api.clearspringcg.com"], 2, "over https only"),
        (TOKEN, &["--remote-toggle-path", "/api/v1/nothing"], 1, "answers 404"),
    ] {
        let said = with(token, args)?;
        said.exit(code)?.says("sync.toggle", "fail", why)?;
        ensure!(!format!("{:?}", said.output).contains(TOKEN), "the token is told: {:?}", said.output);
        nothing(&said)?;
    }
    with(TOKEN, &[])?.exit(0)?.says("sync.workspaces", "pass", "copied 1")?;
    site.mirrors(&["session_1"])?;

    site.make(&[ended("session_2")])?;
    for status in ["500", "204", "302"] {
        gateway.serve(&[], &["-c", BROKEN, status])?;
        with(TOKEN, &[])?.exit(1)?.says("sync.toggle", "fail", &format!("answers {status}"))?;
    }
    lab.vps().sh("systemctl stop lab-backend-8002")?;
    with(TOKEN, &[])?.exit(1)?.says("sync.toggle", "fail", "answers 502")?;
    site.mirrors(&["session_1"])?;
    // Where it is not to be asked, nobody is.
    site.run(&["once"])?.exit(0)?;
    site.mirrors(&["session_1", "session_2"])
}

fn obeys(lab: &Lab) -> Result<()> {
    let site = Site::fresh(lab, Way::Defaults)?;
    let timers = Timers::none(&site)?;
    let gateway = Gateway::start(lab)?;
    gateway.says("{\"enabled\": false}")?;
    let env = ["sh", "-ec", "umask 077; cat >.env"];
    site.command(&env).stdin(format!("UA_OPS_TOKEN={TOKEN}\n")).run()?;
    site.make(&[ended("session_1")])?;
    timers.run(&["on", "--interval", "2s"])?.exit(0)?;
    timers.ended(0)?;
    timers.says("it is off")?;
    ensure!(!site.exists(&format!("{}/session_1", site.at(MIRROR)))?, "it was copied");
    gateway.says("{\"enabled\": true}")?;
    until("it is copied", || site.exists(&format!("{}/session_1", site.at(MIRROR))))
        .with_context(|| timers.log().unwrap_or_default())?;
    timers.ended(0)?;
    timers.run(&["off"])?.exit(0)?;
    site.mirrors(&["session_1"])?;
    let told = format!("{}{}", timers.log()?, timers.status()?);
    ensure!(!told.contains(TOKEN), "the token is told: {told}");
    Ok(())
}
