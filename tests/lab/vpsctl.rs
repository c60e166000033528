//! `ua-vpsctl` on the real tailnet: real units, a real journal, real permissions.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;
use xtask::cmd::Output;
use xtask::lab::{Lab, OPERATOR};

use crate::Scenario;
use crate::deploy_first::App;

pub(crate) fn trials() -> Vec<(&'static str, Scenario)> {
    vec![("p62_p63_units_are_seen_and_restarted_and_secrets_kept_in_order", units as Scenario)]
}

fn vpsctl(lab: &Lab, args: &[&str], code: i32) -> Result<Output> {
    let typed = [&["ua-vpsctl"], args].concat();
    let output = lab.laptop().command(&typed).user(OPERATOR).timeout(Duration::from_mins(2)).output()?;
    ensure!(output.code == code, "`{}` ended with {}, not {code}: {output:?}", typed.join(" "), output.code);
    Ok(output)
}

fn rows(lab: &Lab, code: i32) -> Result<Vec<Value>> {
    let said: Value = serde_json::from_str(&vpsctl(lab, &["status", "--json"], code)?.stdout)?;
    Ok(said["data"]["rows"].as_array().cloned().unwrap_or_default())
}

fn units(lab: &Lab) -> Result<()> {
    let app = App::fresh_here(lab)?;
    let commit = {
        app.deploy(&["--staging", "off"], &[])?.exit(0)?;
        app.head()?
    };
    let seen = rows(lab, 0)?;
    ensure!(seen.len() == 6, "{seen:?}");
    ensure!(seen.iter().all(|row| row["active"] == "active" && row["commit"] == commit.as_str()), "{seen:?}");

    // One unit, by a part of its name: a new process, and the others keep theirs.
    let before = app.processes()?;
    let said = vpsctl(lab, &["restart", "webui"], 0)?;
    ensure!(said.stdout.contains("universal-agent-webui: process "), "{said:?}");
    let after = app.processes()?;
    let changed = before.lines().zip(after.lines()).filter(|(before, after)| before != after).count();
    ensure!(changed == 1, "{before}\n{after}");

    // One that does not come up is said, with what it wrote, and ends with 1.
    let unit = "universal-agent-telegram.service";
    let drop_in = format!("/run/systemd/system/{unit}.d");
    let broken = format!(
        "mkdir -p {drop_in} && printf '[Service]\\nExecStart=\\nExecStart=/bin/false\\n' >{drop_in}/x.conf && systemctl daemon-reload"
    );
    lab.vps().sh(&broken)?;
    let said = lab
        .laptop()
        .command(&["ua-vpsctl", "restart", "telegram"])
        .user(OPERATOR)
        .env("UA_DEPLOY_READY_TIMEOUT", "3")
        .timeout(Duration::from_mins(1))
        .output()?;
    ensure!(said.code == 1 && said.stdout.contains("telegram did not come up"), "{said:?}");
    let seen = rows(lab, 1)?;
    ensure!(seen.iter().filter(|row| row["active"] == "active").count() == 5, "{seen:?}");
    lab.vps().sh(&format!("rm -r {drop_in} && systemctl daemon-reload"))?;
    vpsctl(lab, &["restart", "all"], 0)?;

    // The journal, filtered; what matches nothing is no error.
    let said = vpsctl(lab, &["logs", "telegram", "-n", "50"], 0)?;
    ensure!(said.stdout.contains("universal-agent-telegram"), "{said:?}");
    let said = vpsctl(lab, &["logs", "telegram", "--grep", "no such words at all"], 0)?;
    ensure!(said.stdout.is_empty(), "{said:?}");
    // Followed until it is interrupted, and nothing is left reading there.
    let follow = "ua-vpsctl logs all -f -n 1 >/dev/null & sleep 3; kill -INT $!; wait $!; echo code $?";
    let said = lab.laptop().command(&["bash", "-c", &format!("set -m; {follow}")]).user(OPERATOR).output()?;
    ensure!(said.stdout.contains("code 0"), "{said:?}");
    let left = "for n in 1 2 3 4 5 6 7 8; do pgrep -x journalctl >/dev/null || exit 0; sleep 1; done; pgrep -ax journalctl";
    let left = lab.vps().command(&["sh", "-c", left]).read()?;
    ensure!(left.is_empty(), "{left}");

    // Owner and mode of what holds secrets.
    lab.vps().sh("chown ua:ua /opt/universal_agent/.env && chmod 666 /opt/universal_agent/.env")?;
    let said = vpsctl(lab, &["fix-perms", "--dry-run"], 0)?;
    ensure!(said.stdout.contains("would make `.env` root:ua 640; it is ua:ua 666"), "{said:?}");
    let said = vpsctl(lab, &["fix-perms"], 0)?;
    ensure!(said.stdout.contains("`.env` was ua:ua 666, is root:ua 640"), "{said:?}");
    let mode = lab.vps().sh("stat -c '%U:%G %a' /opt/universal_agent/.env")?.stdout;
    ensure!(mode == "root:ua 640\n", "{mode}");
    // A link in its place would have root change somebody else's file.
    let link = "cd /opt/universal_agent && mv .env env.real && ln -s /etc/shadow .env";
    lab.vps().sh(link)?;
    let said = vpsctl(lab, &["fix-perms"], 1)?;
    ensure!(said.stdout.contains("is a link or no file, and is left alone"), "{said:?}");
    let mode =
        lab.vps().sh("stat -c '%U:%G %a' /etc/shadow; cd /opt/universal_agent && mv env.real .env")?.stdout;
    ensure!(mode == "root:shadow 640\n", "{mode}");
    let said = vpsctl(lab, &["read", ".env"], 1)?;
    ensure!(said.stdout.is_empty() && said.stderr.contains("UA_VP_DISPATCH_MODE=…"), "{said:?}");
    ensure!(!said.stderr.contains("db_pull"), "{said:?}");
    Ok(())
}
