//! What a deploy believes of the app's processes: how long they may take, when one of them is lost, and what counts as
//! wrong before it began.

use anyhow::{Result, ensure};
use xtask::app::Edit;
use xtask::lab::Lab;

use crate::Scenario;
use crate::deploy_first::App;

/// Every scenario of this module.
pub fn trials() -> Vec<(&'static str, Scenario)> {
    vec![
        ("slow_gateway_gets_its_own_limit", slow_gateway as Scenario),
        ("worker_lost_after_slow_imports_ends_release", lost_worker),
        ("way_back_tolerates_what_was_red_before", red_before),
        ("paths_of_unit_files_restart_their_units", inputs),
        ("late_mission_is_not_killed", late_mission),
        ("mission_ended_by_gateway_is_not_killed", disowned_mission),
    ]
}

/// Longer than `deploy.ready_timeout` is set here, and within what the profile allows the gateway.
fn slow_gateway(lab: &Lab) -> Result<()> {
    let app = App::fresh_here(lab)?;
    let first = app.good()?;
    app.edit(&Edit::SlowGateway(25))?;
    // What the operator types wins over the profile.
    let done = app.deploy(&["--ready-timeout", "10"], &[])?;
    done.exit(33)?.says("health", "fail", "gateway answers nothing at http://127.0.0.1:8002/")?;
    app.serves(&first)?;
    let done = app.deploy(&[], &[])?;
    done.exit(0)?.says("health", "pass", "gateway 200")?;
    app.serves(&app.head()?)
}

/// The process lives longer than a unit has to be stable, and ends before it wrote its row.
fn lost_worker(lab: &Lab) -> Result<()> {
    let app = App::fresh_here(lab)?;
    let first = app.good()?;
    app.edit(&Edit::LateWorkerCrash(8))?;
    let done = app.deploy(&[], &[])?;
    done.exit(33)?.serving("old")?.says("health", "fail", "vp.coder.primary ended again after it was up")?;
    app.serves(&first)
}

/// The API was made to answer 500 by hand, and the next release is bad by something else.
fn red_before(lab: &Lab) -> Result<()> {
    let app = App::fresh_here(lab)?;
    app.good()?;
    let by_hand = "
        sed -i 's/^API_HEALTH_STATUS = .*/API_HEALTH_STATUS = 500/' /opt/universal_agent/src/universal_agent/faults.py
        systemctl restart universal-agent-api
        until [ \"$(curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:8001/api/health)\" = 500 ]; do sleep 0.2; done";
    lab.vps().command(&["sh", "-ec", by_hand]).run()?;
    // The fault lies in the path that was changed by hand, so the API is red in the new release as well.
    app.edit(&Edit::ApiBroken)?;
    let done = app.deploy(&["--ready-timeout", "10"], &[])?;
    done.exit(33)?.says("restore.before", "warn", "api answers 500")?;
    // A change that the API does not read is not held up by it.
    app.edit(&Edit::Repair)?;
    app.good().map(drop)
}

/// What a unit's own file names is an input of it, and a path that nothing names is one of all.
fn inputs(lab: &Lab) -> Result<()> {
    let app = App::fresh_here(lab)?;
    app.good()?;
    let restarts = |path: &str| -> Result<Vec<(String, String)>> {
        app.edit(&Edit::Write(path.into(), "#!/bin/sh\n".to_owned()))?;
        let plan = app.run(&["plan"], &[], &[])?;
        let rows = plan.exit(0)?.reports[0]["data"]["changes"]["restarts"].as_array().cloned();
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        Ok(rows.unwrap_or_default().iter().map(|row| (text(&row["what"]), text(&row["why"]))).collect())
    };
    let read = restarts("docs/read.me")?;
    ensure!(read.is_empty(), "{read:?}");
    let webui = restarts("web-ui/unread.txt")?;
    ensure!(webui.len() == 1 && webui[0].1.ends_with("changed, which its unit names"), "{webui:?}");
    let all = restarts("prompts/system.txt")?;
    let why = "the profile does not say which unit reads that";
    ensure!(all.len() == 6 && all.iter().filter(|(_, it)| it.contains(why)).count() == 5, "{all:?}");
    Ok(())
}

/// A mission that a worker claims between the look before the switch and its own restart.
fn late_mission(lab: &Lab) -> Result<()> {
    let app = App::fresh_here(lab)?;
    app.good()?;
    app.edit(&Edit::Harmless("In time".to_owned()))?;
    // Queued in the moment in which the deploy takes the sources into place, by whatever comes first in the switch.
    let hook = "
        cat >/usr/local/sbin/chown <<'END'
#!/bin/sh
if [ ! -e /run/queued ]; then
    touch /run/queued
    cd /opt/universal_agent
    runuser -u ua -- python3 scripts/queue_mission.py vp.coder.primary 20 >/dev/null
    until [ \"$(runuser -u ua -- sqlite3 AGENT_RUN_WORKSPACES/vp_state.db \"SELECT count(*) FROM vp_missions WHERE status = 'running'\")\" = 1 ]; do
        sleep 0.1
    done
fi
exec /usr/bin/chown \"$@\"
END
        chmod 0755 /usr/local/sbin/chown
        rm -f /run/queued";
    lab.vps().command(&["sh", "-ec", hook]).run()?;
    let done = app.deploy(&[], &[]);
    lab.vps().command(&["rm", "-f", "/usr/local/sbin/chown", "/run/queued"]).run()?;
    let done = done?;
    done.exit(0)?.says("drain", "pass", "no worker that is restarted has a mission")?;
    let rows = "runuser -u ua -- sqlite3 /opt/universal_agent/AGENT_RUN_WORKSPACES/vp_state.db 'SELECT status FROM vp_missions'";
    let rows = lab.vps().command(&["sh", "-c", rows]).read()?;
    ensure!(rows.trim() == "completed", "the mission is {rows}");
    app.serves(&app.head()?)
}

/// A gateway that starts marks a mission as failed whose claim has expired, and the worker goes on with it.
fn disowned_mission(lab: &Lab) -> Result<()> {
    let app = App::fresh_here(lab)?;
    lab.vps().command(&["sh", "-ec", "echo UA_VP_LEASE_TTL_SECONDS=15 >>/opt/universal_agent/.env"]).run()?;
    app.good()?;
    let by_hand = "
        cd /opt/universal_agent
        status() { runuser -u ua -- sqlite3 AGENT_RUN_WORKSPACES/vp_state.db 'SELECT status FROM vp_missions'; }
        runuser -u ua -- python3 scripts/queue_mission.py vp.coder.primary 45 >/dev/null
        until [ \"$(status)\" = running ]; do sleep 0.2; done
        sleep 16
        systemctl restart universal-agent-gateway
        until [ \"$(status)\" = failed ]; do sleep 0.2; done";
    lab.vps().command(&["sh", "-ec", by_hand]).run()?;
    app.edit(&Edit::Harmless("Not yet".to_owned()))?;
    let done = app.deploy(&[], &[])?;
    done.exit(0)?.says("drain", "pass", "no worker that is restarted has a mission")?;
    ensure!(done.output.stderr.contains("has not renewed its lease for"), "{}", done.output.stderr);
    // The worker writes its result over the gateway's.
    let rows = "runuser -u ua -- sqlite3 /opt/universal_agent/AGENT_RUN_WORKSPACES/vp_state.db 'SELECT status FROM vp_missions'";
    let rows = lab.vps().command(&["sh", "-c", rows]).read()?;
    ensure!(rows.trim() == "completed", "the mission is {rows}");
    app.serves(&app.head()?)
}
