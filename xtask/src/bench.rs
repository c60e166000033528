//! Performance, measured in the lab: ratios against what cannot be avoided, in one run.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};
use fs_err as fs;
use serde::Deserialize;
use serde_json::json;

use crate::lab::{self, Lab, Node};
use crate::ui::{self, Progress};
use crate::verify;

/// Times one job on the laptop.
const TIMER: &str = include_str!("bench.py");

#[derive(Deserialize)]
struct Row {
    /// Sorted.
    seconds: Vec<f64>,
    codes: Vec<i32>,
}

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
    what: &'static str,
    value: f64,
    limit: f64,
    unit: &'static str,
}

/// `cargo xtask bench preflight`.
pub fn preflight(progress: &Progress) -> Result<()> {
    verify::build_release("ua-preflight")?;
    let kept = Lab::attach().is_ok();
    let lab = Lab::up(progress)?;
    lab.install_tools(&lab::tools("release")?)?;
    let measured = measure_preflight(&lab);
    if !kept {
        Lab::down()?;
    }
    judge(&measured?)
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
        Measure {
            what: "healthy preflight p95 / (status --json + one pong) p95",
            value: ours / floor,
            limit: 1.3,
            unit: "x",
        },
        Measure {
            what: "offline peer reported, slowest",
            value: offline["preflight"].quantile(1.0),
            limit: 3.0,
            unit: "s",
        },
        Measure {
            what: "--help, median",
            value: healthy["help"].quantile(0.5) * 1e3,
            limit: 5.0,
            unit: "ms",
        },
        Measure { what: "binary", value: mib, limit: 5.0, unit: "MiB" },
    ])
}

fn time(lab: &Lab, runs: u32, rows: &serde_json::Value) -> Result<BTreeMap<String, Row>> {
    let job = json!({ "runs": runs, "rows": rows }).to_string();
    let out = lab
        .laptop()
        .command(&["python3", "-c", TIMER])
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
            broken.push(*what);
        }
    }
    if broken.is_empty() { Ok(()) } else { bail!("over the limit: {}", broken.join(", ")) }
}
