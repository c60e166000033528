//! `ua-preflight` in every situation of a tailnet that an operator meets: exit code, and one snapshot of both streams.

use std::time::Duration;

use anyhow::{Result, ensure};
use xtask::cmd::Output;
use xtask::lab::{Lab, Node};

use crate::Scenario;

/// A situation: how it comes about, what is typed in it, and what `$?` must be.
struct Situation {
    name: &'static str,
    arrange: Scenario,
    typed: &'static [&'static str],
    code: i32,
}

const VPS: &str = "root@srv1360701.taildcc090.ts.net";

macro_rules! situations {
    ($($name:ident: $arrange:expr, $typed:expr => $code:expr;)+) => {
        vec![$((stringify!($name), (|lab| {
            judge(lab, &Situation { name: stringify!($name), arrange: $arrange, typed: &$typed, code: $code })
        }) as Scenario)),+]
    };
}

/// Every scenario of this module.
pub fn trials() -> Vec<(&'static str, Scenario)> {
    let mut trials = situations! {
        healthy_direct: |_| Ok(()), [] => 0;
        p55_healthy_relayed: Lab::force_relay, [] => 0;
        daemon_stopped: |lab| lab.stop_tailscaled(Node::Laptop), [] => 11;
        tailscale_down: |lab| lab.tailscale_down(Node::Laptop), [] => 11;
        logged_out: |lab| lab.log_out(Node::Laptop), [] => 11;
        peer_stopped: |lab| lab.stop_tailscaled(Node::Vps), [] => 12;
        peer_link_cut: |lab| lab.cut_link(Node::Vps), [] => 12;
        peer_expired: |lab| lab.expire(Node::Vps), [] => 12;
        peer_renamed: |lab| lab.rename(Node::Vps, "vps-2"), [] => 12;
        own_key_expired: |lab| lab.expire(Node::Laptop), [] => 11;
        dns_broken: |lab| lab.break_dns(Node::Laptop), [] => 13;
        accept_dns_off: |lab| lab.set_accept_dns(Node::Laptop, false), [] => 13;
        ip_target: |_| Ok(()), ["root@100.64.0.2"] => 14;
        short_name: |_| Ok(()), ["root@srv1360701"] => 0;
        unknown_peer: |_| Ok(()), ["root@srv1360710"] => 12;
        other_tailnet: |_| Ok(()), ["root@srv1360701.tail99999.ts.net"] => 14;
        this_very_machine: |_| Ok(()), ["root@laptop"] => 0;
        break_glass_to_a_peer: |_| Ok(()), ["--break-glass", "root@100.64.0.2"] => 0;
        slow_daemon: freeze_tailscaled, [] => 11;
        ssh_to_a_real_sshd: |_| Ok(()), ["--ssh"] => 0;
        ssh_where_tailscale_ssh_holds_the_port: |lab| lab.set_tailscale_ssh(true), ["--ssh"] => 0;
        ssh_on_the_second_port: |lab| lab.set_tailscale_ssh(true), ["--ssh", "--keys-port", "2222"] => 0;
        ssh_tailscale_mode_needs_tailscale_ssh: |_| Ok(()), ["--ssh", "--auth-mode", "tailscale_ssh"] => 21;
        ssh_nobody_answers: |_| Ok(()), ["--ssh", "--keys-port", "2223"] => 20;
    };
    trials.extend([
        ("tailscale_missing", tailscale_missing as Scenario),
        ("just_started", just_started),
        ("p56_an_offline_peer_is_reported_soon_and_with_the_reason", p56),
        ("waits_for_the_peer", waits_for_the_peer),
        ("a_wait_for_a_name_that_nobody_has_ends_at_once", no_wait_for_a_typo),
        ("gate_is_silent_when_all_is_well", gate),
        ("an_ordinary_user_may_ask", ordinary_user),
        ("an_unreadable_file_is_named_and_nobody_is_asked", unreadable),
        ("interrupted", interrupted),
    ]);
    trials
}

fn judge(lab: &Lab, situation: &Situation) -> Result<()> {
    (situation.arrange)(lab)?;
    let output = preflight(lab, situation.typed)?;
    let thawed = lab.laptop().sh("pkill -CONT tailscaled || true")?;
    ensure!(thawed.success(), "cannot wake tailscaled up");
    snapshot(situation.name, &output);
    ensure!(output.code == situation.code, "exit {} where {} is right", output.code, situation.code);
    // Every failing check has a next command.
    ensure!((output.code == 0) || output.stderr.contains("hint: "), "no hint:\n{}", output.stderr);
    Ok(())
}

fn preflight(lab: &Lab, typed: &[&str]) -> Result<Output> {
    let argv: Vec<&str> = ["ua-preflight"].iter().chain(typed).copied().collect();
    lab.laptop().exec(&argv)
}

/// One snapshot of the code and both streams, without what differs from run to run.
fn snapshot(name: &str, output: &Output) {
    let shown = format!("exit: {}\n--- stdout\n{}--- stderr\n{}", output.code, output.stdout, output.stderr);
    insta::with_settings!({
        filters => vec![
            (r"in \d+(\.\d+)?m?s", "in [TIME]"),
            (r"10\.99\.0\.12:\d+", "[VPS]:[PORT]"),
            (r"version \d\S+", "version [VERSION]"),
            (r"in \d+ days? \(\d{4}-\d\d-\d\d\)", "in [DAYS] ([DATE])"),
            (r"\(\d{4}-\d\d-\d\d\)", "([DATE])"),
            (r"SSH-2\.0-OpenSSH_[^`]*", "SSH-2.0-OpenSSH_[VERSION]"),
        ],
        prepend_module_to_snapshot => false,
        omit_expression => true,
    }, {
        insta::assert_snapshot!(format!("preflight_{name}"), shown);
    });
}

/// A daemon that hangs: it is there, its socket takes connections, and nothing answers.
fn freeze_tailscaled(lab: &Lab) -> Result<()> {
    lab.laptop().command(&["pkill", "-STOP", "tailscaled"]).run()
}

fn tailscale_missing(lab: &Lab) -> Result<()> {
    let output = lab.laptop().command(&["/opt/ua/bin/ua-preflight"]).env("PATH", "/opt/ua/bin").output()?;
    snapshot("tailscale_missing", &output);
    ensure!(output.code == 10, "exit {}", output.code);
    Ok(())
}

/// A daemon that has only just started knows nothing yet, which is no failure.
fn just_started(lab: &Lab) -> Result<()> {
    let mut output = lab.laptop().sh("systemctl restart tailscaled && exec ua-preflight")?;
    ensure!(output.code == 0, "exit {}: {}{}", output.code, output.stdout, output.stderr);
    ensure!(output.stdout.contains("ok   peer.reachable"), "no pong: {}", output.stdout);
    // What it warns of in its first second differs from run to run, and by which path the pong comes.
    let early = ["tailnet.health", "peer.reachable", "peer.path", "vps: "];
    let settled = |line: &&str| !early.iter().any(|early| line.contains(early));
    output.stderr.clear();
    output.stdout = output.stdout.lines().filter(settled).map(|line| format!("{line}\n")).collect();
    snapshot("just_started", &output);
    Ok(())
}

/// Root reads everything, so this needs an ordinary user.
fn unreadable(lab: &Lab) -> Result<()> {
    let script = "mkdir -p .config/ua && : >.config/ua/ua.toml && chmod 000 .config/ua/ua.toml; ua-preflight; code=$?; \
                  rm -f .config/ua/ua.toml; exit $code";
    let output = lab.laptop().command(&["sh", "-c", script]).user(xtask::lab::OPERATOR).output()?;
    snapshot("an_unreadable_file", &output);
    ensure!(output.code == 2, "exit {}", output.code);
    Ok(())
}

fn p56(lab: &Lab) -> Result<()> {
    lab.stop_tailscaled(Node::Vps)?;
    let output = preflight(lab, &["--json"])?;
    let report: serde_json::Value = serde_json::from_str(&output.stdout)?;
    ensure!(report["exit_code"] == 12, "{report}");
    let took = report["duration_ms"].as_u64().unwrap_or(u64::MAX);
    ensure!(took < 10_000, "it was silent for {took} ms");
    let reason =
        report["checks"].as_array().into_iter().flatten().find(|check| check["id"] == "peer.reachable");
    let detail = reason.map(|check| check["detail"].to_string()).unwrap_or_default();
    ensure!(detail.contains("no reply") && detail.contains("100.64.0.2"), "no reason in {report}");
    Ok(())
}

fn waits_for_the_peer(lab: &Lab) -> Result<()> {
    lab.stop_tailscaled(Node::Vps)?;
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| preflight(lab, &["--wait", "50s", "--json"]));
        // It must have seen the peer away at least once, which takes it three tries.
        lab.vps().sh("sleep 4")?;
        lab.start_tailscaled(Node::Vps)?;
        let output = waiting.join().map_err(|_| anyhow::anyhow!("the waiting thread panicked"))??;
        ensure!(output.code == 0, "exit {}: {}", output.code, output.stdout);
        let report: serde_json::Value = serde_json::from_str(&output.stdout)?;
        ensure!(report["duration_ms"].as_u64() > Some(3_000), "it did not wait: {report}");
        Ok(())
    })
}

fn no_wait_for_a_typo(lab: &Lab) -> Result<()> {
    let output = lab
        .laptop()
        .command(&["ua-preflight", "--wait", "50s", "root@srv1360710"])
        .timeout(Duration::from_secs(20))
        .output()?;
    ensure!(output.code == 12 && output.stderr.contains(VPS), "{output:?}");
    Ok(())
}

fn gate(lab: &Lab) -> Result<()> {
    let output = lab.laptop().sh("ua-preflight -q && echo went on")?;
    ensure!((output.stdout.as_str(), output.stderr.as_str()) == ("went on\n", ""), "{output:?}");
    lab.stop_tailscaled(Node::Laptop)?;
    let output = lab.laptop().sh("ua-preflight -q && echo went on")?;
    ensure!(output.stdout.is_empty() && output.stderr.starts_with("error: tailscale.daemon: "), "{output:?}");
    Ok(())
}

fn ordinary_user(lab: &Lab) -> Result<()> {
    let output = lab.laptop().command(&["ua-preflight"]).user(xtask::lab::OPERATOR).output()?;
    ensure!(output.code == 0, "{output:?}");
    Ok(())
}

/// Ctrl-C in the middle ends it with 130, and its children with it.
fn interrupted(lab: &Lab) -> Result<()> {
    lab.stop_tailscaled(Node::Vps)?;
    let script = "ua-preflight --preflight-timeout 30 & pid=$!; sleep 1; kill -TERM $pid; wait $pid; code=$?; \
                  ! pgrep -x tailscale >/dev/null && exit $code";
    let output = lab.laptop().sh(script)?;
    ensure!(output.code == 130, "{output:?}");
    Ok(())
}
