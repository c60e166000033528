//! `status` and `restart`: how the units are, and bringing them up anew.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use ua_common::app;
use ua_common::error::Failure;
use ua_common::exit::Exit;
use ua_common::output::{self, Record, Records, printable};
use ua_common::report::{Check, Report};
use ua_common::transport::Script;

use crate::session::{STATE, Session, busy};

const UNITS: Script = Script {
    name: "units",
    text: concat!(include_str!("../remote/seen.sh"), "\n", include_str!("../remote/units.sh")),
};
const RESTART: Script = Script { name: "restart", text: include_str!("../remote/restart.sh") };
const LIMIT: Duration = Duration::from_secs(30);

/// One unit as it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Its whole name.
    pub id: String,
    /// `loaded`, or why not.
    pub load: String,
    /// `active`, `failed`, …
    pub active: String,
    /// `running`, `dead`, …
    pub sub: String,
    /// How often systemd restarted it by itself.
    pub restarts: u64,
    /// For how many seconds it is in this state.
    pub seconds: u64,
    /// Bytes, where they are counted.
    pub memory: Option<u64>,
    /// The main process, or 0.
    pub pid: u64,
    /// The commit that it was started from, if a deploy did that.
    pub commit: Option<String>,
}

impl Unit {
    /// Does it run?
    pub fn is_up(&self) -> bool {
        self.active == "active"
    }
}

/// What a look at the units tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// In the order of the profile.
    pub units: Vec<Unit>,
    /// The release that serves.
    pub served: Option<String>,
    /// Who deploys at this moment.
    pub busy: Option<String>,
}

/// Looks at units.
pub fn look(session: &Session<'_>, units: &[String]) -> Result<Seen, Failure> {
    let mut args = vec![STATE];
    args.extend(units.iter().map(String::as_str));
    let _waiting = session.context.out.waiting("asking for the units");
    Ok(parse(&session.ask(UNITS, &args, LIMIT)?.stdout))
}

/// Reads what `seen.sh` prints.
pub fn parse(text: &str) -> Seen {
    let mut seen = Seen::default();
    let mut runs: BTreeMap<&str, &str> = BTreeMap::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        match fields[..] {
            ["unit", id, load, active, sub, restarts, seconds, memory, pid] => seen.units.push(Unit {
                id: id.to_owned(),
                load: load.to_owned(),
                active: active.to_owned(),
                sub: sub.to_owned(),
                restarts: restarts.parse().unwrap_or_default(),
                seconds: seconds.parse().unwrap_or_default(),
                // The largest number is systemd's word for "not counted".
                memory: memory.parse().ok().filter(|bytes| *bytes != u64::MAX),
                pid: pid.parse().unwrap_or_default(),
                commit: None,
            }),
            ["runs", unit, commits] => drop(runs.insert(unit, commits)),
            ["served", release] => seen.served = Some(release.to_owned()),
            ["busy", holder] => seen.busy = Some(printable(holder)),
            _ => {}
        }
    }
    for unit in &mut seen.units {
        let commits = runs.get(unit.id.as_str()).and_then(|commits| commits.rsplit(',').next());
        unit.commit = commits.map(str::to_owned);
    }
    seen
}

/// The table of units.
pub fn records(seen: &Seen) -> Records<7> {
    let row = |unit: &Unit| Record {
        id: unit.id.clone(),
        cells: [
            unit.id.trim_end_matches(".service").to_owned(),
            format!("{}/{}", unit.active, unit.sub),
            age(unit.seconds),
            unit.restarts.to_string(),
            unit.memory.map_or_else(|| "-".to_owned(), output::bytes),
            if unit.pid == 0 { "-".to_owned() } else { unit.pid.to_string() },
            unit.commit.as_deref().map_or_else(|| "-".to_owned(), |commit| commit.chars().take(12).collect()),
        ],
        json: json!({
            "unit": unit.id,
            "load": unit.load,
            "active": unit.active,
            "sub": unit.sub,
            "seconds": unit.seconds,
            "restarts": unit.restarts,
            "memory": unit.memory,
            "pid": unit.pid,
            "commit": unit.commit,
        }),
    };
    let head = ["UNIT", "STATE", "SINCE", "RESTARTS", "MEMORY", "PID", "RELEASE"];
    Records { head, rows: seen.units.iter().map(row).collect() }
}

/// `3 d 4 h`: the two largest parts.
pub fn age(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

/// What is wrong with them, a check each.
pub fn judge(seen: &Seen, report: &mut Report) {
    for unit in &seen.units {
        let id = unit.id.trim_end_matches(".service");
        if unit.load != "loaded" {
            report.push(
                Check::fail("unit", Exit::Failed, format!("{id} is {}", unit.load)).hint("ua-deploy plan"),
            );
        } else if !unit.is_up() {
            let detail = format!("{id} is {}/{} for {}", unit.active, unit.sub, age(unit.seconds));
            report.push(Check::fail("unit", Exit::Failed, detail).hint(format!("ua-vpsctl logs {id} -n 50")));
        }
    }
    if seen.units.iter().all(|unit| unit.is_up() && unit.load == "loaded") {
        report.push(Check::pass("units", format!("all {} run", seen.units.len())));
    }
    if let Some(release) = &seen.served {
        report.push(Check::pass("release", format!("`{release}` serves")));
    }
    if let Some(holder) = &seen.busy {
        report.push(Check::warn("lock", app::busy(holder)).hint("ua-deploy status"));
    }
}

/// Restarts units; each has to run in one new process for as long as the profile wants.
pub fn restart(session: &Session<'_>, units: &[String], report: &mut Report) -> Result<(), Failure> {
    let context = session.context;
    let stable = u64::from(session.profile.units.stable_seconds);
    let ready = context.settings.deploy_ready_timeout.0.as_secs().max(1);
    let (stable_words, ready_words) = (stable.to_string(), ready.to_string());
    let mut args = vec![STATE, &stable_words, &ready_words];
    args.extend(units.iter().map(String::as_str));
    let bar = context.out.spinner(format!("restarting {}", units.join(", ")));
    let mut lines: Vec<String> = Vec::new();
    // systemd itself may take a while to end the old processes.
    let limit = Duration::from_secs(ready + stable) + Duration::from_mins(3);
    let answer =
        session.transport.stream(RESTART, &args, Duration::from_mins(2), limit, &mut |line| match line
            .strip_prefix("== ")
        {
            Some(words) => bar.set_message(printable(words)),
            None => lines.push(line.to_owned()),
        })?;
    bar.finish_and_clear();
    if answer.code == 30 {
        return Err(busy(&lines.join(" ")));
    }
    let mut told = 0;
    for line in &lines {
        let fields: Vec<&str> = line.split('\t').collect();
        let [verdict, unit, words] = fields[..] else { continue };
        told += 1;
        let name = unit.trim_end_matches(".service");
        report.push(if verdict == "up" {
            Check::pass("restart", format!("{name}: {words}"))
        } else {
            let hint = format!("ua-vpsctl logs {name} -n 50");
            Check::fail("restart", Exit::Failed, format!("{name} did not come up: {words}")).hint(hint)
        });
    }
    for line in answer.stderr.lines() {
        context.out.child(line);
    }
    if told != units.len() {
        let message = format!("the restart ended with code {} before all units were judged", answer.code);
        return Err(Failure::new(Exit::Failed, message).hint("ua-vpsctl status"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read_with_what_they_run() {
        let text = "unit\ta.service\tloaded\tactive\trunning\t2\t100000\t18446744073709551615\t42\n\
            unit\tb.service\tnot-found\tinactive\tdead\t0\t5\t1048576\t0\nserved\tr1\nruns\ta.service\tc0,c1\nbusy\top@laptop\n";
        let seen = parse(text);
        assert_eq!(seen.units[0].commit.as_deref(), Some("c1"));
        assert_eq!((seen.units[0].memory, seen.units[1].memory), (None, Some(1_048_576)));
        assert_eq!((seen.served.as_deref(), seen.busy.as_deref()), (Some("r1"), Some("op@laptop")));
        let lines = records(&seen).lines("tsv");
        assert_eq!(lines[0], "a\tactive/running\t1 d 3 h\t2\t-\t42\tc1");
    }
}
