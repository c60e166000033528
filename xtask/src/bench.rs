//! Performance: ratios against what cannot be avoided, in one run.

mod deploy;
mod sync;
mod wire;

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};
use camino::Utf8Path;
use fs_err as fs;
use serde::Deserialize;
use serde_json::json;

use crate::lab::{self, Lab, Node, OPERATOR, SshPolicy};
use crate::ui::{self, Progress};
use crate::verify;

/// Times one job.
const TIMER: &str = include_str!("bench.py");

#[derive(Deserialize)]
struct Row {
    /// Sorted.
    seconds: Vec<f64>,
    codes: Vec<i32>,
    /// The most memory of any process.
    peak_kib: u64,
}

type Rows = BTreeMap<String, Row>;

impl Row {
    /// The value that `share` of the runs do not exceed.
    fn quantile(&self, share: f64) -> f64 {
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let index = ((self.seconds.len() as f64 * share).ceil() as usize).saturating_sub(1);
        self.seconds.get(index).copied().unwrap_or(f64::INFINITY)
    }
}

/// One line of the result.
struct Measure {
    what: String,
    value: f64,
    limit: f64,
    unit: &'static str,
}

impl Measure {
    fn new(what: impl Into<String>, value: f64, limit: f64, unit: &'static str) -> Self {
        Self { what: what.into(), value, limit, unit }
    }
}

/// `cargo xtask bench preflight`.
pub fn preflight(progress: &Progress) -> Result<()> {
    bench(&["ua-preflight"], measure_preflight, progress)
}

/// `cargo xtask bench ssh`.
pub fn ssh(progress: &Progress) -> Result<()> {
    bench(&["ua-preflight", "ua-ssh-auth", "ua-staging", "ua-vpsctl"], measure_ssh, progress)
}

/// `cargo xtask bench deploy`.
pub fn deploy(progress: &Progress) -> Result<()> {
    bench(&["ua-deploy"], deploy::measure, progress)
}

/// `cargo xtask bench sync`; `old` is the script that it replaces, or its directory.
pub fn sync(old: Option<&Utf8Path>, progress: &Progress) -> Result<()> {
    verify::build_release("ua-sync")?;
    judge(&sync::measure(old, progress)?)
}

/// Measures tools as they are shipped.
fn bench(tools: &[&str], measure: fn(&Lab) -> Result<Vec<Measure>>, progress: &Progress) -> Result<()> {
    tools.iter().try_for_each(|tool| verify::build_release(tool))?;
    judge(&in_lab(progress, measure)?)
}

/// Measures in a lab that has the tools as they are shipped, and takes it down unless it was up.
fn in_lab(progress: &Progress, measure: impl FnOnce(&Lab) -> Result<Vec<Measure>>) -> Result<Vec<Measure>> {
    let kept = Lab::attach().is_ok();
    let lab = Lab::up(progress)?;
    lab.install_tools(&lab::tools("release")?)?;
    let measured = measure(&lab);
    if !kept {
        Lab::down()?;
    }
    measured
}

/// Stands before the real ssh on the `PATH` and writes down what it is called with.
const COUNTER: &str = "#!/bin/sh\necho \"$*\" >>/tmp/ua-bench/calls\nexec /usr/bin/ssh \"$@\"\n";

/// What the verbs cost: `(verb, connections, execs)`, in mode `tailscale_ssh`.
const COSTS: [(&[&str], usize, usize); 15] = [
    (&["ua-preflight", "--ssh"], 0, 0),
    (&["ua-ssh-auth", "show"], 0, 0),
    (&["ua-ssh-auth", "args"], 0, 0),
    (&["ua-ssh-auth", "known-hosts"], 0, 0),
    (&["ua-ssh-auth", "status"], 0, 0),
    (&["ua-ssh-auth", "check"], 1, 1),
    (&["ua-ssh-auth", "canary"], 2, 10),
    (&["ua-staging", "url"], 0, 0),
    (&["ua-staging", "verify"], 1, 1),
    (&["ua-vpsctl", "status"], 1, 1),
    (&["ua-vpsctl", "logs", "all"], 1, 1),
    (&["ua-vpsctl", "doctor"], 1, 1),
    (&["ua-vpsctl", "fix-perms", "--dry-run"], 1, 1),
    (&["ua-vpsctl", "read", "/etc/hostname"], 1, 2),
    (&["ua-vpsctl", "browse", "/etc"], 1, 2),
];

fn measure_ssh(lab: &Lab) -> Result<Vec<Measure>> {
    lab.set_ssh_policy(SshPolicy::Accept)?;
    lab.set_tailscale_ssh(true)?;
    let on_laptop = |argv: &[&str]| lab.laptop().command(argv).user(OPERATOR);
    for (verb, connections, execs) in COSTS {
        let counted = "mkdir -p /tmp/ua-bench && cat >/tmp/ua-bench/ssh && chmod 0755 /tmp/ua-bench/ssh && rm -f /tmp/ua-bench/calls";
        on_laptop(&["sh", "-ec", counted]).stdin(COUNTER).run()?;
        // What a verb finds is not what is measured here: nothing is staged, so that its exit code may be any.
        on_laptop(verb)
            .env("PATH", "/tmp/ua-bench:/opt/ua/bin:/usr/local/bin:/usr/bin:/bin")
            .env("UA_SSH_AUTH_MODE", "tailscale_ssh")
            .timeout(std::time::Duration::from_mins(2))
            .output()?;
        let calls = on_laptop(&["sh", "-c", "cat /tmp/ua-bench/calls 2>/dev/null || true"]).read()?;
        let calls: Vec<&str> = calls.lines().filter(|call| !call.ends_with("-V")).collect();
        let shared = calls.iter().filter(|call| call.contains("ProxyCommand=false")).count();
        let masters = calls.iter().filter(|call| call.contains(" -M -N ")).count();
        let alone = calls.len() - shared - masters;
        let found = (masters + alone, shared + alone);
        ui::data(format!("{}: {} connections, {} execs", verb.join(" "), found.0, found.1));
        ensure!(
            found == (connections, execs),
            "{verb:?} is said to cost {connections} and {execs}: {calls:#?}"
        );
    }

    let args = |mode: &str| {
        let args = ["ua-ssh-auth", "args", "--auth-mode", mode, "--keys-port", "2222"];
        anyhow::Ok(on_laptop(&args).read()?.trim().to_owned())
    };
    let (keys, tailscale_ssh) = (args("keys")?, args("tailscale_ssh")?);
    let target = "root@srv1360701.taildcc090.ts.net";
    let rows = time_as(
        lab,
        OPERATOR,
        40,
        &json!({
            "bare keys": [["ssh", keys, target, "true"]],
            "check keys": [["ua-ssh-auth", "check", "--mode", "keys", "--keys-port", "2222"]],
            "bare tailscale_ssh": [["ssh", tailscale_ssh, target, "true"]],
            "check tailscale_ssh": [["ua-ssh-auth", "check", "--mode", "tailscale_ssh"]],
        }),
    )?;
    let ratio = |mode: &str| {
        let (bare, check) = (&rows[&format!("bare {mode}")], &rows[&format!("check {mode}")]);
        ensure!(bare.codes == [0] && check.codes == [0], "{mode}: {:?} {:?}", bare.codes, check.codes);
        let (bare, check) = (bare.quantile(0.5), check.quantile(0.5));
        ui::data(format!("{mode}: ssh … true {:.1} ms, check {:.1} ms (medians)", bare * 1e3, check * 1e3));
        Ok(check / bare)
    };
    Ok(vec![
        Measure::new("check / ssh … true, keys, medians", ratio("keys")?, 1.2, "x"),
        Measure::new("check / ssh … true, tailscale_ssh, medians", ratio("tailscale_ssh")?, 1.2, "x"),
    ])
}

fn measure_preflight(lab: &Lab) -> Result<Vec<Measure>> {
    let ip = Node::Vps.tailnet_address().context("the VPS is on the tailnet")?;
    let status = json!(["tailscale", "status", "--json"]);
    let ping = json!(["tailscale", "ping", "--c=1", ip]);
    let healthy = time(
        lab,
        60,
        &json!({
            "floor": [status, ping],
            "preflight": [["ua-preflight"]],
            "help": [["ua-preflight", "--help"]],
        }),
    )?;
    ensure!(healthy["preflight"].codes == [0], "the preflight failed: {:?}", healthy["preflight"].codes);
    lab.stop_tailscaled(Node::Vps)?;
    let offline = time(lab, 3, &json!({ "preflight": [["ua-preflight"]] }));
    lab.start_tailscaled(Node::Vps)?;
    let offline = offline?;
    ensure!(offline["preflight"].codes == [12], "offline is not 12: {:?}", offline["preflight"].codes);
    let binary = fs::metadata(lab::tools("release")?.join("ua-preflight"))?.len();
    #[allow(clippy::cast_precision_loss, reason = "a file of less than 2^52 bytes")]
    let mib = binary as f64 / f64::from(1 << 20);
    let (floor, ours) = (healthy["floor"].quantile(0.95), healthy["preflight"].quantile(0.95));
    ui::data(format!(
        "floor: status --json + one pong  median {:.1} ms  p95 {:.1} ms\nua-preflight                     median {:.1} ms  p95 {:.1} ms",
        healthy["floor"].quantile(0.5) * 1e3,
        floor * 1e3,
        healthy["preflight"].quantile(0.5) * 1e3,
        ours * 1e3
    ));
    Ok(vec![
        Measure::new("healthy preflight p95 / (status --json + one pong) p95", ours / floor, 1.3, "x"),
        Measure::new("offline peer reported, slowest", offline["preflight"].quantile(1.0), 3.0, "s"),
        Measure::new("--help, median", healthy["help"].quantile(0.5) * 1e3, 5.0, "ms"),
        Measure::new("binary", mib, 5.0, "MiB"),
    ])
}

fn time(lab: &Lab, runs: u32, rows: &serde_json::Value) -> Result<Rows> {
    time_as(lab, "root", runs, rows)
}

fn time_as(lab: &Lab, user: &str, runs: u32, rows: &serde_json::Value) -> Result<Rows> {
    let job = json!({ "runs": runs, "rows": rows }).to_string();
    let out = lab
        .laptop()
        .command(&["python3", "-c", TIMER])
        .user(user)
        .stdin(job)
        .timeout(std::time::Duration::from_mins(5))
        .read()?;
    serde_json::from_str(&out).context("the timer prints JSON")
}

fn judge(measures: &[Measure]) -> Result<()> {
    let mut broken = Vec::new();
    for Measure { what, value, limit, unit } in measures {
        let within = value <= limit;
        ui::data(format!(
            "{} {what}: {value:.2} {unit} (at most {limit} {unit})",
            if within { "ok  " } else { "FAIL" }
        ));
        if !within {
            broken.push(what.as_str());
        }
    }
    if broken.is_empty() { Ok(()) } else { bail!("over the limit: {}", broken.join(", ")) }
}
