//! `status` and `restart`: how the units are, and bringing them up anew.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use ua_common::app;
use ua_common::error::Failure;
use ua_common::exit::Exit;
use ua_common::output::{self, Record, Records, listed, printable};
use ua_common::profile::Profile;
use ua_common::report::{Check, Report};
use ua_common::transport::{Answer, Script};

use crate::session::{STATE, Session, busy};
use crate::units::Chosen;

const UNITS: Script = Script {
    name: "units",
    text: concat!(include_str!("../remote/seen.sh"), "\n", include_str!("../remote/units.sh")),
};
const RESTART: Script = Script {
    name: "restart",
    text: concat!(include_str!("../remote/restarting.sh"), "\n", include_str!("../remote/restart.sh")),
};
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

    /// Did somebody stop it, which is fine for one that is optional?
    fn is_stopped(&self) -> bool {
        self.active == "inactive" && matches!(self.load.as_str(), "loaded" | "masked")
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
pub fn look(session: &Session<'_>, units: &[Chosen]) -> Result<Seen, Failure> {
    let units: Vec<String> = units.iter().map(Chosen::arg).collect();
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
pub fn judge(seen: &Seen, profile: &Profile, report: &mut Report) {
    let optional = profile.optional_units();
    let (stopped, rest): (Vec<&Unit>, Vec<&Unit>) =
        seen.units.iter().partition(|unit| optional.contains(&unit.id) && unit.is_stopped());
    for unit in &stopped {
        let id = unit.id.trim_end_matches(".service");
        let detail = format!("{id} is optional, and stopped for {}", age(unit.seconds));
        report.push(Check::warn("unit", detail).hint(format!("ua-vpsctl restart {id}  # if it is to run")));
    }
    for unit in &rest {
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
    if !rest.is_empty() && rest.iter().all(|unit| unit.is_up() && unit.load == "loaded") {
        let others = if stopped.is_empty() { "" } else { " others" };
        report.push(Check::pass("units", format!("all {}{others} run", rest.len())));
    }
    if let Some(release) = &seen.served {
        report.push(Check::pass("release", format!("`{release}` serves")));
    }
    if let Some(holder) = &seen.busy {
        report.push(Check::warn("lock", app::busy(holder)).hint("ua-deploy status"));
    }
}

/// A restart, as a script is asked for it and as it answers line by line. Each unit has to run in one new process for as
/// long as the profile wants.
pub struct Restart<'a> {
    units: &'a [Chosen],
    stable: u64,
    ready: u64,
    /// How a unit is now, its name, and more words.
    verdicts: Vec<[String; 3]>,
    lines: Vec<String>,
}

impl<'a> Restart<'a> {
    /// Of these units.
    pub fn new(session: &Session<'_>, units: &'a [Chosen]) -> Self {
        let stable = u64::from(session.profile.units.stable_seconds);
        let ready = session.context.settings.deploy_ready_timeout.0.as_secs().max(1);
        Self { units, stable, ready, verdicts: Vec::new(), lines: Vec::new() }
    }

    /// What `restart_units` is asked.
    pub fn args(&self) -> Vec<String> {
        let words = [self.stable.to_string(), self.ready.to_string()];
        words.into_iter().chain(self.units.iter().map(Chosen::arg)).collect()
    }

    /// systemd itself may take a while to end the old processes.
    pub fn limit(&self) -> Duration {
        Duration::from_secs(self.ready + self.stable) + Duration::from_mins(3)
    }

    /// Takes a line of stdout, and gives what is waited for if it says that.
    pub fn hear(&mut self, line: &str) -> Option<String> {
        if let Some(words) = line.strip_prefix("== ") {
            return Some(printable(words));
        }
        let fields: Vec<&str> = line.split('\t').collect();
        match fields[..] {
            [verdict @ ("up" | "down" | "stopped" | "none"), unit, words] => {
                self.verdicts.push([verdict, unit, words].map(str::to_owned));
            }
            _ => self.lines.push(line.to_owned()),
        }
        None
    }

    /// The other lines.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// Did it come to a judgement? A code other than 0 is that, then.
    pub fn is_judged(&self) -> bool {
        !self.verdicts.is_empty()
    }

    /// Shows what those that are down said, and judges each unit.
    pub fn tell(self, session: &Session<'_>, answer: &Answer, report: &mut Report) -> Result<(), Failure> {
        for line in answer.stderr.lines() {
            session.context.out.child(line);
        }
        self.judge(answer.code, report)
    }

    fn judge(&self, code: i32, report: &mut Report) -> Result<(), Failure> {
        for [verdict, unit, words] in &self.verdicts {
            let name = unit.trim_end_matches(".service");
            report.push(match verdict.as_str() {
                "up" => Check::pass("restart", format!("{name}: {words}")),
                "down" => {
                    let hint = format!("ua-vpsctl logs {name} -n 50");
                    Check::fail("restart", Exit::Failed, format!("{name} did not come up: {words}"))
                        .hint(hint)
                }
                "stopped" => Check::skip("restart", format!("{name} is optional, and stopped ({words})")),
                // Not every VPS has it.
                _ => continue,
            });
        }
        if self.is_judged() && self.verdicts.iter().all(|[verdict, ..]| verdict == "none") {
            let names: Vec<String> = self.verdicts.iter().map(|[_, unit, _]| unit.clone()).collect();
            report.push(Check::skip("restart", format!("the VPS has no {}", listed(&names))));
        }
        if self.verdicts.len() != self.units.len() {
            let message = format!("the restart ended with code {code} before all units were judged");
            return Err(Failure::new(Exit::Failed, message).hint("ua-vpsctl status"));
        }
        Ok(())
    }
}

/// Units, as a person reads them.
pub fn list(units: &[Chosen]) -> String {
    units.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Restarts units.
pub fn restart(session: &Session<'_>, units: &[Chosen], report: &mut Report) -> Result<(), Failure> {
    let mut restart = Restart::new(session, units);
    let words = restart.args();
    let mut args = vec![STATE];
    args.extend(words.iter().map(String::as_str));
    let bar = session.context.out.spinner(format!("restarting {}", list(units)));
    let limit = restart.limit();
    let answer = session.transport.stream(RESTART, &args, Duration::from_mins(2), limit, &mut |line| {
        if let Some(words) = restart.hear(line) {
            bar.set_message(words);
        }
    })?;
    bar.finish_and_clear();
    if answer.code == 30 {
        return Err(busy(&restart.lines().join(" ")));
    }
    restart.tell(session, &answer, report)
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

    #[test]
    fn a_restart_is_told_unit_by_unit_and_whole() {
        let chosen = |unit: &str| Chosen { unit: unit.to_owned(), if_there: true };
        let told = |lines: &[&str], units: &[&str]| {
            let units: Vec<Chosen> = units.iter().map(|unit| chosen(unit)).collect();
            let mut restart =
                Restart { units: &units, stable: 1, ready: 1, verdicts: Vec::new(), lines: Vec::new() };
            for line in lines {
                let _waited_for = restart.hear(line);
            }
            let mut report = Report::new("ua-vpsctl", ua_common::report::Lane::Vps, "x");
            let whole = restart.judge(1, &mut report).is_ok();
            let said: Vec<String> =
                report.checks.iter().map(|it| format!("{:?} {}", it.verdict, it.detail)).collect();
            (said.join("; "), whole)
        };
        let (up, down) = ("up\ta.service\tprocess 1 for 9 s", "down\tb.service\tfailed");
        let (stopped, none) =
            ("stopped\tc.service\tinactive, loaded", "none\td.service\tinactive, not-found");
        let four = ["a.service", "b.service", "c.service", "d.service"];
        let said = "Skip c is optional, and stopped (inactive, loaded); Pass a: process 1 for 9 s; Fail b did not come up: failed";
        assert_eq!(told(&["== waiting", stopped, none, up, down], &four), (said.to_owned(), true));
        assert_eq!(told(&[none], &four[3..]), ("Skip the VPS has no d.service".to_owned(), true));
        assert!(!told(&[up], &four[..2]).1);
        assert_eq!(told(&[], &four), (String::new(), false));
    }

    #[test]
    fn only_an_optional_unit_may_be_stopped() {
        let profile = Profile::built_in().unwrap();
        let gateway = "universal-agent-gateway.service\tloaded\tactive\trunning\t0\t9\t0\t42";
        let judged = |other: &str| {
            let mut report = Report::new("ua-vpsctl", ua_common::report::Lane::Vps, "x");
            judge(&parse(&format!("unit\t{gateway}\nunit\t{other}\t0\t90\t0\t0\n")), &profile, &mut report);
            let said: Vec<String> =
                report.checks.iter().map(|it| format!("{:?} {}", it.verdict, it.detail)).collect();
            (said.join("; "), report.exit().code())
        };
        let all = |rest: &str| (rest.to_owned(), 0);
        assert_eq!(judged("csi-ingester.service\tloaded\tactive\trunning"), all("Pass all 2 run"));
        for load in ["loaded", "masked"] {
            let stopped = "Warn csi-ingester is optional, and stopped for 1 min; Pass all 1 others run";
            assert_eq!(judged(&format!("csi-ingester.service\t{load}\tinactive\tdead")), all(stopped));
        }
        for wrong in [
            "csi-ingester.service\tloaded\tfailed\tfailed",
            "csi-ingester.service\tloaded\tactivating\tauto-restart",
            "csi-ingester.service\tnot-found\tinactive\tdead",
            "csi-ingester.service\tnot-found\tactive\trunning",
            "csi-ingester.service\tbad-setting\tinactive\tdead",
            "universal-agent-api.service\tloaded\tinactive\tdead",
        ] {
            assert_eq!(judged(wrong).1, 1, "{wrong}");
        }
    }
}
