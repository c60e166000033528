//! `ua-vpsctl` on the real tailnet: real units, a real journal, real permissions.

mod cuts;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use xtask::app::Edit;
use xtask::cmd::Output;
use xtask::lab::{Lab, Node, OPERATOR};

use crate::Scenario;
use crate::deploy_first::{App, QUICK};

const WATCHDOG: &str = "universal-agent-service-watchdog.timer";

pub(crate) fn trials() -> Vec<(&'static str, Scenario)> {
    let mut trials = vec![
        ("p62_p63_units_are_seen_and_restarted_and_secrets_kept_in_order", units as Scenario),
        ("p61_p62_a_push_lands_as_itself_is_planned_for_and_settled_by_a_deploy", pushes),
        ("doctor_tells_a_healthy_vps_from_one_that_is_not", doctor),
        ("an_optional_unit_is_one_of_the_units_where_it_runs", optional),
        ("logs_read_the_files_of_units", log_files),
        ("doctor_finds_what_is_active_and_dead", dead),
    ];
    trials.extend(cuts::trials());
    trials
}

fn vpsctl(lab: &Lab, args: &[&str], code: i32) -> Result<Output> {
    let typed = [&["ua-vpsctl"], args].concat();
    let output = lab.laptop().command(&typed).user(OPERATOR).timeout(Duration::from_mins(2)).output()?;
    ensure!(output.code == code, "`{}` ended with {}, not {code}: {output:?}", typed.join(" "), output.code);
    Ok(output)
}

/// The same in the app's repository, with less patience; gives the report.
fn report(lab: &Lab, args: &[&str], code: i32) -> Result<Value> {
    let typed = [&["ua-vpsctl"], args, &["--json"]].concat();
    let command = lab.laptop().command(&typed).user(OPERATOR).dir("/home/op/app");
    let output = command.env("UA_DEPLOY_PROFILE", QUICK).timeout(Duration::from_mins(2)).output()?;
    ensure!(output.code == code, "`{}` ended with {}, not {code}: {output:?}", typed.join(" "), output.code);
    Ok(serde_json::from_str(&output.stdout)?)
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

fn pushes(lab: &Lab) -> Result<()> {
    let app = App::fresh_here(lab)?;
    app.deploy(&["--staging", "off"], &[])?.exit(0)?;
    let first = app.head()?;
    let (laptop, vps) = (lab.laptop(), lab.vps());
    // Another trial may have left it enabled, and a fresh app has it stopped, which `doctor` rightly minds.
    vps.command(&["systemctl", "disable", "--now", WATCHDOG]).run()?;
    let edit = |script: &str| laptop.command(&["sh", "-ec", script]).user(OPERATOR).dir("/home/op/app").run();
    edit(
        "echo '# pushed' >>src/universal_agent/notes.py
        mkdir src/universal_agent/fresh && echo 'X = 1' >src/universal_agent/fresh/extra.py
        echo secret >src/universal_agent/server.key",
    )?;
    // Nothing is put in place by looking.
    let before = app.traces()?;
    let looked = report(lab, &["push", "src", "--dry-run", "--restart"], 0)?;
    let left_out = looked["data"]["left_out"].to_string();
    ensure!(left_out.contains("capabilities.last_good.md (is written by the server"), "{looked}");
    ensure!(looked["data"]["replaced"] == serde_json::json!(["src/universal_agent/notes.py"]), "{looked}");
    ensure!(app.traces()? == before, "a dry run left traces");

    // A directory lands as itself, under the owner of the profile, and what reads it is restarted.
    let processes = app.processes()?;
    let pushed = report(lab, &["push", "src", "--restart"], 0)?;
    ensure!(pushed["data"]["new"] == serde_json::json!(["src/universal_agent/fresh/extra.py"]), "{pushed}");
    ensure!(pushed["data"]["left_out"].to_string().contains("server.key (may hold secrets"), "{pushed}");
    let there = "cd /opt/universal_agent && tail -n 1 src/universal_agent/notes.py && [ ! -e src/src ] &&
        [ ! -e src/universal_agent/server.key ] && stat -c '%U:%G %a' src/universal_agent/fresh \
            src/universal_agent/fresh/extra.py src/universal_agent/notes.py . && stat -c '%U %a' /var/lib/ua-deploy/ledger.jsonl &&
        ls /var/lib/ua-deploy/incoming";
    let there = vps.sh(there)?.stdout;
    let own = "ua:ua 755\nua:ua 644\nua:ua 644\nua:ua 755\n";
    ensure!(there == format!("# pushed\n{own}root 600\n"), "{there}");
    let (was, is) = (processes, app.processes()?);
    let kept =
        was.lines().zip(is.lines()).filter(|(was, is)| was == is && was.starts_with("MainPID=")).count();
    ensure!(kept == 1, "only the web UI goes on: {was}\n{is}");
    // What runs it is told, and so is what goes on with the old code where nothing is restarted.
    let marks = |lab: &Lab| -> Result<Vec<(bool, bool)>> {
        let marked = |row: &Value| (row["pushed"] == true, row["commit"] == first.as_str());
        Ok(rows(lab, 0)?.iter().map(marked).collect())
    };
    let seen = marks(lab)?;
    ensure!(seen.iter().filter(|it| it.0).count() == 5 && seen.iter().all(|it| it.1), "{seen:?}");
    edit("echo '// pushed' >>web-ui/app/page.mjs")?;
    let stale = report(lab, &["push", "web-ui/app/page.mjs"], 0)?;
    let hint = stale["checks"].as_array().into_iter().flatten().find(|check| check["id"] == "push.restart");
    ensure!(hint.is_some_and(|it| it["hint"] == "ua-vpsctl restart universal-agent-webui"), "{stale}");
    ensure!(marks(lab)?.iter().filter(|it| it.0).count() == 5, "the web UI was started before");
    let again = report(lab, &["push", "src"], 0)?;
    ensure!(
        again["data"].get("id").is_none() && again["checks"].to_string().contains("nothing to do"),
        "{again}"
    );

    // What a link leads to is not written.
    vps.sh("mkdir /root/target && ln -s /root/target /opt/universal_agent/src/linked")?;
    edit("mkdir src/linked && echo x >src/linked/x.py")?;
    let refused = report(lab, &["push", "src/linked"], 1)?;
    ensure!(refused["checks"].to_string().contains("in the way on the VPS, and left alone"), "{refused}");
    vps.sh("rmdir /root/target && rm /opt/universal_agent/src/linked")?;

    // The plan names it, and a deploy that is taken back does not settle it.
    app.edit(&Edit::ApiBroken)?;
    let said = app.run(&["plan"], &["--staging", "off"], &[])?;
    said.exit(0)?;
    let id = pushed["data"]["id"].as_str().unwrap_or_default();
    let lines = said.reports[0]["data"]["plan"].to_string();
    ensure!(lines.contains(&format!("settle push {id} (")), "{lines}");
    ensure!(lines.contains("take away, unless changed since, src/universal_agent/fresh/extra.py"), "{lines}");
    let said = app.run(&["status"], &[], &[])?;
    ensure!(said.reports[0]["data"]["pushed"][0]["id"] == id, "{:?}", said.reports);
    app.deploy(&["--staging", "off"], &[("UA_DEPLOY_READY_TIMEOUT", "8")])?.exit(33)?;
    let ledger = |code: i32| -> Result<Value> {
        let report = report(lab, &["doctor", "--staging", "off"], code)?;
        let checks = report["checks"].as_array().cloned().unwrap_or_default();
        Ok(checks.into_iter().find(|check| check["id"] == "ledger").unwrap_or_default())
    };
    let open = ledger(0)?;
    ensure!(open["verdict"] == "warn" && open["detail"].to_string().contains("fresh/extra.py"), "{open}");
    let there = vps.sh("tail -n 1 /opt/universal_agent/src/universal_agent/notes.py")?.stdout;
    ensure!(there == "# pushed\n", "{there}");

    // One that serves settles it.
    let commit = app.edit(&Edit::Repair)?;
    app.deploy(&["--staging", "off"], &[])?.exit(0)?;
    app.serves(&commit)?;
    let there = "cd /opt/universal_agent/src/universal_agent && [ ! -e fresh ] && ! grep -q pushed notes.py";
    vps.sh(there)?;
    ensure!(ledger(0)?["verdict"] == "pass", "the ledger still names something");
    let said = app.run(&["plan"], &["--staging", "off"], &[])?;
    said.exit(0)?;
    ensure!(said.reports[0]["data"]["pushed"].as_array().is_none_or(Vec::is_empty), "{:?}", said.reports);
    Ok(())
}

fn doctor(lab: &Lab) -> Result<()> {
    App::deployed(lab)?;
    // As the app's installer does: the timer counts from the last run of its service.
    let start = "systemctl enable --now \"$0\" && systemctl start \"${0%.timer}.service\"";
    lab.vps().command(&["sh", "-ec", start, WATCHDOG]).run()?;
    let checks = |code: i32| -> Result<Vec<(String, String, String)>> {
        let report = report(lab, &["doctor"], code)?;
        let text = |check: &Value, key: &str| check[key].as_str().unwrap_or_default().to_owned();
        let all = report["checks"].as_array().cloned().unwrap_or_default();
        Ok(all.iter().map(|it| (text(it, "id"), text(it, "verdict"), text(it, "detail"))).collect())
    };
    let well = checks(0)?;
    let of = |checks: &[(String, String, String)], id: &str| -> Vec<String> {
        checks.iter().filter(|check| check.0 == id).map(|check| check.1.clone()).collect()
    };
    for id in
        ["units", "release", "env.file", "env.keys", "clock", "serve", "deploy.last", "ledger", "watchdog"]
    {
        ensure!(of(&well, id) == ["pass"], "{id}: {well:?}");
    }
    // The app's own watchdog is run by root and belongs to the app's user.
    ensure!(of(&well, "watchdog.script") == ["warn"], "{well:?}");
    ensure!(of(&well, "watchdog.environment") == ["warn"], "{well:?}");
    // What is proposed is a remedy.
    let hints = |id: &str| -> Result<Vec<String>> {
        let report = report(lab, &["doctor"], 0)?;
        let checks = report["checks"].as_array().cloned().unwrap_or_default();
        let of = checks.iter().filter(|check| check["id"] == id);
        Ok(of.map(|check| check["hint"].as_str().unwrap_or_default().to_owned()).collect())
    };
    for id in ["watchdog.script", "watchdog.environment"] {
        let hint = hints(id)?.concat();
        let typed =
            lab.laptop().command(&["sh", "-ec", &hint]).user(OPERATOR).dir("/home/op/app").output()?;
        ensure!(typed.success(), "{hint}: {typed:?}");
        ensure!(hints(id)?.is_empty(), "{hint} did not close it");
    }
    let starts = "systemctl start universal-agent-service-watchdog.service
        rm -r /etc/systemd/system/universal-agent-service-watchdog.service.d /etc/default/universal-agent-service-watchdog
        rm /usr/local/sbin/vps_service_watchdog.sh && systemctl daemon-reload";
    lab.vps().command(&["sh", "-ec", starts]).run()?;

    lab.vps().sh("cd /opt/universal_agent && chmod 666 .env && sed -i /UA_VP_DISPATCH_MODE/d .env
        systemctl stop universal-agent-service-watchdog.timer universal-agent-telegram
        tailscale serve reset")?;
    let ill = checks(1)?;
    for (id, verdict) in [
        ("unit", "fail"),
        ("env.file", "fail"),
        ("env.keys", "fail"),
        ("serve", "warn"),
        ("watchdog", "fail"),
    ] {
        ensure!(of(&ill, id) == [verdict], "{id}: {ill:?}");
    }
    ensure!(ill.iter().all(|check| !check.2.contains("db_pull")), "a value was told: {ill:?}");
    // For a person, with what to do.
    let said = vpsctl(lab, &["doctor"], 1)?;
    for words in ["ua-vpsctl fix-perms", "ua-vpsctl logs universal-agent-telegram -n 50", "ua-staging ensure"]
    {
        ensure!(said.stdout.contains(words) || said.stderr.contains(words), "{words}: {said:?}");
    }
    lab.vps().command(&["systemctl", "disable", "--now", WATCHDOG]).run()
}

const CSI_ENV: &str = "CSI_Ingester/development/deployment/systemd/csi-ingester.env";
const CSI_APP: &str = "CSI_Ingester/development/app.py";

fn optional(lab: &Lab) -> Result<()> {
    let app = App::fresh_here(lab)?;
    let done = ingester(lab, &app);
    // No other trial has such a unit.
    let away = "systemctl disable --now csi-ingester 2>/dev/null || true
        rm -f /etc/systemd/system/csi-ingester.service && systemctl daemon-reload
        systemctl reset-failed csi-ingester 2>/dev/null || true";
    done.and(lab.vps().sh(away).map(drop))
}

/// The checks of one id, verdict and words.
fn told(report: &Value, id: &str) -> Vec<String> {
    let checks = report["checks"].as_array().into_iter().flatten().filter(|check| check["id"] == id);
    checks.map(|it| format!("{} {}", it["verdict"], it["detail"]).replace('"', "")).collect()
}

fn ingester(lab: &Lab, app: &App<'_>) -> Result<()> {
    let vps = lab.vps();
    app.deploy(&["--staging", "off"], &[])?.exit(0)?;
    vps.command(&["systemctl", "disable", "--now", WATCHDOG]).run()?;
    let plan = || -> Result<Value> {
        let said = app.run(&["plan"], &["--staging", "off"], &[])?;
        said.exit(0)?;
        Ok(said.reports[0].clone())
    };
    let running = || -> Result<String> {
        let pid = vps.command(&["systemctl", "show", "-p", "MainPID", "--value", "csi-ingester"]).read()?;
        Ok(pid.trim().to_owned())
    };
    let doctor = |code: i32| report(lab, &["doctor", "--staging", "off"], code);

    // Where there is none nobody speaks of it, unless it is named.
    ensure!(rows(lab, 0)?.len() == 6 && told(&plan()?, "units.optional").is_empty());
    ensure!(told(&doctor(0)?, "secret.file").is_empty());
    let said = vpsctl(lab, &["status", "csi-ingester"], 1)?;
    ensure!(said.stderr.contains("csi-ingester is not-found"), "{said:?}");

    // Stopped it is left alone, visibly.
    let install = format!(
        "cd /opt/universal_agent && runuser -u ua -- mkdir -p $(dirname {CSI_ENV}) && echo CSI_TOKEN=hunter2 >{CSI_ENV}
        chown ua:ua {CSI_ENV} && chmod 644 {CSI_ENV}
        printf '%s\n' '[Service]' User=ua WorkingDirectory=/opt/universal_agent \
            EnvironmentFile=/opt/universal_agent/{CSI_ENV} 'ExecStart=/bin/sleep infinity' >/etc/systemd/system/csi-ingester.service
        systemctl daemon-reload"
    );
    vps.sh(&install)?;
    ensure!(rows(lab, 0)?.len() == 7);
    let stopped = "skip `csi-ingester` is stopped, and left as it is";
    ensure!(told(&plan()?, "units.optional") == [stopped]);
    let said = report(lab, &["restart", "all"], 0)?;
    ensure!(
        told(&said, "restart")
            .contains(&"skip csi-ingester is optional, and stopped (inactive, loaded)".to_owned()),
        "{said}"
    );
    ensure!(told(&said, "restart").len() == 7 && running()? == "0", "{said}");

    // By its name it is started, and from then on looked at.
    let said = report(lab, &["restart", "csi-ingester"], 0)?;
    ensure!(told(&said, "restart").len() == 1 && running()? != "0", "{said}");
    let open = doctor(31)?;
    let path = format!("/opt/universal_agent/{CSI_ENV}");
    ensure!(told(&open, "secret.file") == [format!("fail `{path}` is ua:ua 644, not 600")], "{open}");
    ensure!(told(&open, "units") == ["pass all 7 run"], "{open}");
    let said = vpsctl(lab, &["read", CSI_ENV], 1)?;
    ensure!(said.stderr.contains("CSI_TOKEN=…") && !said.stderr.contains("hunter2"), "{said:?}");
    vpsctl(lab, &["fix-perms"], 0)?;
    let mode = vps.sh(&format!("stat -c '%U:%G %a' {path}"))?.stdout;
    ensure!(mode == "ua:ua 600\n", "{mode}");
    ensure!(told(&doctor(0)?, "secret.file") == [format!("pass `{path}` is ua:ua 600")]);

    // The release before did not know it: it goes on all the same where the next one is taken back.
    app.edit(&Edit::ApiBroken)?;
    app.deploy(&["--staging", "off"], &[("UA_DEPLOY_READY_TIMEOUT", "8")])?.exit(33)?;
    ensure!(running()? != "0", "a release that was taken back took it along");

    // A change of its own restarts it; one of the others does not.
    app.edit(&Edit::Repair)?;
    app.deploy(&["--staging", "off"], &[])?.exit(0)?;
    app.edit(&Edit::Write(CSI_APP.into(), "X = 1\n".to_owned()))?;
    let planned = plan()?["data"]["changes"]["restarts"].clone();
    let why = format!("{CSI_APP} changed");
    ensure!(planned == serde_json::json!([{"what": "csi-ingester.service", "why": why}]), "{planned}");
    let (before, others) = (running()?, app.processes()?);
    app.deploy(&["--staging", "off"], &[])?.exit(0)?;
    let after = running()?;
    ensure!(after != before && after != "0" && app.processes()? == others, "{before} {after}");
    app.edit(&Edit::Harmless("other".to_owned()))?;
    app.deploy(&["--staging", "off"], &[])?.exit(0)?;
    ensure!(running()? == after && app.processes()? != others, "it was restarted by what it does not read");

    // A push restarts it as well, in the exec that puts the file in place.
    let others = app.processes()?;
    let counter = "echo '# pushed' >>\"$0\"; mkdir -p /tmp/count && rm -f /tmp/count/calls
        printf '#!/bin/sh\necho \"$*\" >>/tmp/count/calls\nexec /usr/bin/ssh \"$@\"\n' >/tmp/count/ssh && chmod 755 /tmp/count/ssh";
    let laptop = lab.laptop();
    laptop.command(&["sh", "-ec", counter, CSI_APP]).user(OPERATOR).dir("/home/op/app").run()?;
    let push = "PATH=/tmp/count:$PATH exec ua-vpsctl push \"$0\" --restart --json";
    let push = laptop.command(&["sh", "-ec", push, CSI_APP]).user(OPERATOR).dir("/home/op/app");
    let pushed: Value = serde_json::from_str(&push.env("UA_DEPLOY_PROFILE", QUICK).read()?)?;
    ensure!(told(&pushed, "restart").len() == 1, "{pushed}");
    ensure!(running()? != after && app.processes()? == others, "{pushed}");
    let calls = "cat /tmp/count/calls; rm -r /tmp/count; git checkout --quiet .";
    let calls = laptop.command(&["sh", "-ec", calls]).user(OPERATOR).dir("/home/op/app").read()?;
    let of = |what: &str| calls.lines().filter(|call| call.contains(what)).count();
    ensure!((of(" -M -N "), of("ProxyCommand=false")) == (1, 2), "a push costs two execs: {calls}");

    // Stopped again, it is no unit that the profile lost.
    vps.command(&["systemctl", "stop", "csi-ingester"]).run()?;
    let planned = plan().context("with a unit that was stopped since")?;
    ensure!(
        told(&planned, "units.optional") == [stopped] && told(&planned, "units.left").is_empty(),
        "{planned}"
    );
    Ok(())
}

const WORKER: &str = "universal-agent-vp-worker@vp.coder.primary.service";
const WORKER_LOG: &str = "/opt/universal_agent/logs/vp-worker-vp.coder.primary.log";

fn log_files(lab: &Lab) -> Result<()> {
    let app = App::fresh_here(lab)?;
    let vps = lab.vps();
    let run = |script: &str| vps.command(&["sh", "-ec", script]).run();
    app.deploy(&["--staging", "off"], &[])?.exit(0)?;
    let logs = |args: &[&str]| vpsctl(lab, &[&["logs", "vp.coder.primary"], args].concat(), 0);

    // What it wrote, by times and patterns.
    let lines = "2026-02-21 22:18:44,900 INFO x started\n2026-02-21 22:18:45,123 ERROR x failed\nTraceback\n";
    run(&format!("printf '{lines}' | tee {WORKER_LOG} >/dev/null"))?;
    let said = logs(&["--since", "2026-02-21 22:18:45", "--grep", "failed|trace"])?;
    // What the journal has is later.
    ensure!(said.stdout.starts_with("2026-02-21 22:18:45,123 ERROR x failed\nTraceback\n"), "{said:?}");
    let said = logs(&["-n", "1"])?;
    ensure!(said.stderr.contains("showing the last line; more: -n 1000"), "{said:?}");

    // How it ended is what systemd says, in its place among the lines.
    run(&format!(
        "systemctl kill -s KILL {WORKER} && sleep 3 && date '+%F %T,000 INFO x later' >>{WORKER_LOG}"
    ))?;
    let said = logs(&["--since", "1m"])?;
    let at = |words: &str| said.stdout.find(words).with_context(|| format!("no {words}: {said:?}"));
    ensure!(at("Main process exited, code=killed")? < at(" INFO x later")?, "{said:?}");

    // Of several units each line names its own.
    let both = report(lab, &["logs", "vp.coder.primary", "gateway", "-n", "5"], 0)?;
    let named = |line: &Value| {
        let line = line.as_str().unwrap_or_default();
        ["vp.coder.primary | ", "gateway          | "].iter().any(|name| line.starts_with(name))
    };
    let lines = both["data"]["lines"].as_array().cloned().unwrap_or_default();
    ensure!(lines.len() == 5 && lines.iter().all(named), "{both}");
    ensure!(both["data"]["cut"] == true && both["data"]["files"][0]["path"] == WORKER_LOG, "{both}");

    // Followed over a rotation; then nothing is left there.
    let follow = "ua-vpsctl logs vp.coder.primary -f -n 1 >/tmp/followed & sleep 6; kill -INT $!; wait $!; echo code $?";
    let command = lab.laptop().command(&["bash", "-c", &format!("set -m; {follow}")]).user(OPERATOR);
    let said = std::thread::scope(|scope| -> Result<Output> {
        let follower = scope.spawn(|| command.output());
        std::thread::sleep(Duration::from_secs(3));
        run(&format!(
            "mv {WORKER_LOG} {WORKER_LOG}.1 && echo before >>{WORKER_LOG}.1 && echo after >{WORKER_LOG}"
        ))?;
        follower.join().map_err(|_| anyhow::anyhow!("the follower panicked"))?
    })?;
    ensure!(said.stdout.contains("code 0"), "{said:?}");
    let followed = lab.laptop().command(&["cat", "/tmp/followed"]).read()?;
    let at = |line: &str| followed.find(line).with_context(|| format!("no {line}: {followed}"));
    ensure!(at("\nbefore\n")? < at("\nafter\n")?, "{followed}");
    let left = "for n in 1 2 3 4 5 6 7 8; do pgrep -x 'journalctl|tail' >/dev/null || exit 0; sleep 1; done; pgrep -ax 'journalctl|tail'";
    let left = vps.command(&["sh", "-c", left]).read()?;
    ensure!(left.is_empty(), "{left}");

    // The app's user can put a link there: root does not read by it.
    let link =
        format!("runuser -u ua -- sh -c 'mv {WORKER_LOG} {WORKER_LOG}.2 && ln -s /etc/shadow {WORKER_LOG}'");
    run(&link)?;
    let said = logs(&["-n", "50"])?;
    ensure!(!said.stdout.contains("root:"), "{said:?}");
    ensure!(said.stderr.contains("is a link or no plain file, and is not read"), "{said:?}");
    run(&format!("runuser -u ua -- rm {WORKER_LOG}"))?;

    // A deploy that it breaks has its last words.
    app.edit(&Edit::WorkerCrash)?;
    app.deploy(&["--staging", "off"], &[("UA_DEPLOY_READY_TIMEOUT", "8")])?.exit(33)?;
    let log = vps.sh("cat \"$(ls -d /var/lib/ua-deploy/releases/* | tail -n 1)/log\"")?.stdout;
    let said = format!("{WORKER} said last:\n(in {WORKER_LOG})\n");
    let words = log.split_once(&said).with_context(|| format!("no {said}: {log}"))?.1;
    ensure!(words.lines().next().is_some_and(|line| !line.contains("systemd")), "{log}");
    Ok(())
}

fn dead(lab: &Lab) -> Result<()> {
    let app = App::fresh(lab)?;
    let done = found(lab, &app);
    let away = "systemctl kill -s CONT universal-agent-gateway 2>/dev/null || true
        systemctl stop universal-agent-lost.timer 2>/dev/null || true
        rm -f /etc/systemd/system/universal-agent-lost.* /etc/nginx/sites-enabled/wild.conf
        systemctl daemon-reload && tailscale serve reset && systemctl restart nginx";
    done.and(lab.vps().sh(away).map(drop))
}

fn found(lab: &Lab, app: &App<'_>) -> Result<()> {
    let vps = lab.vps();
    let run = |script: &str| vps.command(&["sh", "-ec", script]).run();
    app.good()?;
    vps.command(&["systemctl", "disable", "--now", WATCHDOG]).run()?;
    let seen = |verb: &[&str], code: i32| -> Result<Value> {
        let typed = [&["ua-vpsctl"], verb, &["--json"]].concat();
        let command = lab.laptop().command(&typed).user(OPERATOR).dir("/home/op/app");
        let command = command.env("UA_DEPLOY_PROFILE", QUICK).env("UA_DEPLOY_READY_TIMEOUT", "2");
        let output = command.timeout(Duration::from_mins(1)).output()?;
        ensure!(output.code == code, "{typed:?} ended with {}, not {code}: {output:?}", output.code);
        Ok(serde_json::from_str(&output.stdout)?)
    };
    let doctor = |code: i32| seen(&["doctor"], code);

    // Well.
    let well = doctor(0)?;
    for id in ["health", "serve.listener", "funnel"] {
        ensure!(told(&well, id).len() == 1 && told(&well, id)[0].starts_with("pass "), "{id}: {well}");
    }

    // A unit that hangs is active.
    vps.command(&["systemctl", "kill", "-s", "STOP", "universal-agent-gateway"]).run()?;
    let hangs = seen(&["status"], 1)?;
    let row = hangs["data"]["rows"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|row| row["unit"] == "universal-agent-gateway.service");
    let row = row.context("a row of the gateway")?;
    ensure!(row["active"] == "active" && row["health"][0]["healthy"] == false, "{row}");
    ensure!(told(&hangs, "health")[0].contains("does not answer within 5 s"), "{hangs}");
    ensure!(
        told(&doctor(1)?, "health")[0].starts_with("fail universal-agent-gateway is active for "),
        "{hangs}"
    );
    vps.command(&["systemctl", "kill", "-s", "CONT", "universal-agent-gateway"]).run()?;
    ensure!(told(&seen(&["status"], 0)?, "health")[0].starts_with("pass "));

    // A timer without the start that it counts from; the hint gives it one.
    let lost = "cd /etc/systemd/system && printf '[Timer]\nOnUnitActiveSec=1h\n' >universal-agent-lost.timer
        printf '[Service]\nType=oneshot\nExecStart=/bin/true\n' >universal-agent-lost.service
        systemctl daemon-reload && systemctl start universal-agent-lost.timer && systemctl is-active universal-agent-lost.timer";
    run(lost)?;
    let said = doctor(1)?;
    ensure!(
        told(&said, "timer") == ["fail `universal-agent-lost.timer` is active, but will not elapse again"],
        "{said}"
    );
    let checks = said["checks"].as_array().into_iter().flatten().find(|check| check["id"] == "timer");
    let hint = checks.and_then(|check| check["hint"].as_str()).context("a hint")?.to_owned();
    lab.laptop().command(&["sh", "-ec", &hint]).user(OPERATOR).dir("/home/op/app").run()?;
    ensure!(told(&doctor(0)?, "timer") == ["pass 1 timer goes on"], "{hint} did not help");

    // Funnel, on a port that is none of ours.
    let served = vps.command(&["tailscale", "serve", "status", "--json"]).read()?;
    let mut open: Value = serde_json::from_str(&served)?;
    let name = Node::Vps.magic_dns_name();
    open["AllowFunnel"] = serde_json::json!({format!("{name}:10000"): true});
    vps.command(&["tailscale", "serve", "set-raw"]).stdin(open.to_string()).run()?;
    let said = doctor(0)?;
    ensure!(told(&said, "funnel")[0].starts_with("warn Funnel opens port 10000 of"), "{said}");

    // What listens on every address at a port of a route can do so only while tailscaled does not.
    let wild = "printf 'server { listen 8443; return 404; }\n' >/etc/nginx/sites-enabled/wild.conf";
    let both = vps.sh(&format!("{wild} && systemctl restart nginx"))?;
    ensure!(!both.success(), "nginx and tailscaled share a port");
    run("tailscale serve reset && systemctl reset-failed nginx && systemctl restart nginx")?;
    let said = doctor(42)?;
    ensure!(
        told(&said, "serve.listener")[0].starts_with("fail nginx listens on every address at port 8443"),
        "{said}"
    );
    run("rm /etc/nginx/sites-enabled/wild.conf && systemctl restart nginx")?;

    // As if a release had restarted the units that left them alone.
    run("cd \"$(ls -d /var/lib/ua-deploy/releases/* | tail -n 1)\" && touch switched running")?;
    let said = seen(&["status"], 0)?;
    ensure!(told(&said, "unit.outdated").len() == 6, "{said}");
    ensure!(
        seen(&["restart", "webui"], 0).is_ok() && told(&seen(&["status"], 0)?, "unit.outdated").len() == 5
    );
    Ok(())
}
