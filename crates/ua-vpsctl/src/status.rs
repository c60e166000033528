//! `status` and `restart`: how the units are, and bringing them up anew.

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use ua_common::app;
use ua_common::error::Failure;
use ua_common::exit::Exit;
use ua_common::ledger::Push;
use ua_common::output::{self, Record, Records, listed, printable};
use ua_common::profile::{self, Profile};
use ua_common::report::{Check, Report};
use ua_common::settings::Sourced;
use ua_common::settings::value::{Base, Limit, StatusSet, Value as _};
use ua_common::transport::{Answer, Script};

use crate::runs::{self, Origin};
use crate::session::{STATE, Session, busy};
use crate::units::Chosen;

const UNITS: Script = Script {
    name: "units",
    text: concat!(
        include_str!("../../ua-common/remote/ledger.sh"),
        "\n",
        include_str!("../remote/seen.sh"),
        "\n",
        include_str!("../remote/units.sh")
    ),
};
const RESTART: Script = Script {
    name: "restart",
    text: concat!(
        include_str!("../../ua-common/remote/unit_log.sh"),
        "\n",
        include_str!("../remote/restarting.sh"),
        "\n",
        include_str!("../remote/restart.sh")
    ),
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
    /// The commit that its process was started from, where that is known.
    pub commit: Option<String>,
    /// The commits that are the same for it: of each release since one restarted it, oldest first.
    pub same: Vec<String>,
    /// Was its process started from something that was pushed since the last deploy?
    pub pushed: bool,
    /// The release or push that changed what its process had read by then.
    pub outdated: Option<String>,
}

impl Unit {
    /// Does it run?
    pub fn is_up(&self) -> bool {
        self.active == "active"
    }

    /// Was it stopped, or not started? That is fine for one that is optional.
    fn is_stopped(&self) -> bool {
        self.active == "inactive" && matches!(self.load.as_str(), "loaded" | "masked")
    }

    /// What its process runs, in a word.
    fn release(&self, deployed: bool) -> String {
        match &self.commit {
            Some(commit) => {
                let commit: String = commit.chars().take(12).collect();
                if self.pushed { format!("{commit}+pushed") } else { commit }
            }
            None if self.outdated.is_some() => "older".to_owned(),
            None if self.pid > 0 && deployed => "?".to_owned(),
            None => "-".to_owned(),
        }
    }
}

/// An answer to a health check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// The name of the check.
    pub name: String,
    /// The unit that answers, in full, where that is known.
    pub unit: Option<String>,
    /// What was asked.
    pub url: String,
    /// Healthy statuses, in words.
    pub wanted: String,
    /// The status; nothing without an answer.
    pub status: Option<u16>,
    /// Is it a healthy one?
    pub healthy: bool,
    /// curl's exit code.
    pub code: u8,
    /// How long it may take after a start, by the profile.
    pub within: Option<profile::Limit>,
}

impl Health {
    /// Reads an answer: the status, 000 without one, and curl's exit code.
    fn parse(check: &profile::Health, profile: &Profile, status: &str, code: &str) -> Self {
        let status = status.parse().ok().filter(|status| *status > 0);
        let base = Base { dir: Path::new("/"), home: None };
        let wanted = StatusSet::parse_text(&check.status, &base);
        Self {
            name: check.name.to_string(),
            unit: unit_of(check, profile),
            url: check.url.to_string(),
            wanted: check.status.to_string(),
            healthy: wanted.is_ok_and(|wanted| status.is_some_and(|status| wanted.contains(status))),
            status,
            code: code.parse().unwrap_or_default(),
            within: check.within,
        }
    }

    /// Could it be asked at all?
    fn is_asked(&self) -> bool {
        self.code != 127
    }

    /// The answer in a word.
    fn word(&self) -> String {
        match self.status {
            _ if self.healthy => "ok".to_owned(),
            _ if !self.is_asked() => "?".to_owned(),
            Some(status) => status.to_string(),
            None => "no answer".to_owned(),
        }
    }

    /// What is wrong with the answer.
    fn words(&self) -> String {
        let url = &self.url;
        match (self.status, self.code) {
            (Some(status), _) => format!("{url} answers {status}, not {}", self.wanted),
            (None, 28) => format!("{url} does not answer within 5 s"),
            (None, 7) => format!("nothing listens at {url}"),
            (None, code) => format!("{url} does not answer (curl {code})"),
        }
    }

    fn json(&self) -> serde_json::Value {
        json!({"name": self.name, "url": self.url, "status": self.status, "healthy": self.healthy})
    }
}

/// What a look at the units tells.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    /// In the order of the profile.
    pub units: Vec<Unit>,
    /// The version of a systemd that does not tell exactly when a process was started.
    pub inexact: Option<String>,
    /// The newest release that was proved to run; nothing if `doubt` came after it.
    pub served: Option<String>,
    /// A release that was put in place last, and neither proved nor taken back.
    pub doubt: Option<String>,
    /// Is another release being put in place?
    pub deploying: bool,
    /// What was pushed, and no deploy has settled.
    pub pushes: Vec<Push>,
    /// Who deploys at this moment.
    pub busy: Option<String>,
    /// What the health checks were answered, in the order of the profile.
    pub health: Vec<Health>,
}

impl Seen {
    /// Was anything ever put in place?
    pub fn deployed(&self) -> bool {
        self.served.is_some() || self.doubt.is_some() || self.deploying
    }

    /// The answers of a unit that runs.
    fn health_of<'a>(&'a self, unit: &'a Unit) -> impl Iterator<Item = &'a Health> {
        self.health.iter().filter(|it| unit.is_up() && it.unit.as_ref() == Some(&unit.id))
    }
}

/// The unit that answers a health check, in full, where that is known: a profile need not say it if the check has the unit's
/// short name.
fn unit_of(health: &profile::Health, profile: &Profile) -> Option<String> {
    let named = || profile.all_units().into_iter().find(|unit| profile.short(unit) == Some(&health.name));
    health.unit.as_deref().map(profile::full).or_else(named)
}

/// The health checks of units and of none, as `seen.sh` takes them.
pub fn health_checks(profile: &Profile, units: &[Chosen]) -> String {
    let asked = profile.health.iter().filter(|health| {
        unit_of(health, profile).is_none_or(|unit| units.iter().any(|chosen| chosen.unit == unit))
    });
    asked.map(|health| format!("{}\t{}\n", health.name, health.url)).collect()
}

/// Looks at units.
pub fn look(session: &Session<'_>, units: &[Chosen]) -> Result<Seen, Failure> {
    let health = health_checks(session.profile, units);
    let units: Vec<String> = units.iter().map(Chosen::arg).collect();
    let mut args = vec![STATE, &health];
    args.extend(units.iter().map(String::as_str));
    let _waiting = session.context.out.waiting("asking for the units");
    Ok(parse(&session.ask(UNITS, &args, LIMIT)?.stdout, session.profile))
}

/// Reads what `seen.sh` prints.
pub fn parse(text: &str, profile: &Profile) -> Seen {
    let mut seen = Seen::default();
    let mut records = runs::Records::default();
    let mut starts = Vec::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        // A time that is not told lies after everything.
        let seconds = |text: &str| text.parse().unwrap_or(f64::INFINITY);
        match fields[..] {
            ["unit", id, load, active, sub, restarts, age, memory, pid, start] => {
                starts.push(runs::time(start));
                seen.units.push(Unit {
                    id: id.to_owned(),
                    load: load.to_owned(),
                    active: active.to_owned(),
                    sub: sub.to_owned(),
                    restarts: restarts.parse().unwrap_or_default(),
                    seconds: age.parse().unwrap_or_default(),
                    // The largest number is systemd's word for "not counted".
                    memory: memory.parse().ok().filter(|bytes| *bytes != u64::MAX),
                    pid: pid.parse().unwrap_or_default(),
                    commit: None,
                    same: Vec::new(),
                    pushed: false,
                    outdated: None,
                });
            }
            ["runs", unit, commits] => {
                drop(records.runs.insert(unit, commits.split(',').collect()));
            }
            ["release", id, switched, running] => {
                records.proved.push((id, [switched, running].map(seconds)));
            }
            ["health", name, status, code] => {
                let check = profile.health.iter().find(|check| *check.name == *name);
                seen.health.extend(check.map(|check| Health::parse(check, profile, status, code)));
            }
            ["systemd", version] => seen.inexact = Some(printable(version)),
            ["open", release] => records.open.push(release),
            ["served", release] => seen.served = Some(release.to_owned()),
            ["pushed", ..] => seen.pushes.extend(Push::read(line.split_once('\t').map_or("", |it| it.1))),
            ["busy", holder] => {
                seen.busy = Some(printable(holder));
                // Since ever, if it does not say.
                records.holder = Some((holder, 0.0));
            }
            ["locked", since] => {
                records.holder = records.holder.map(|(who, _)| (who, since.parse().unwrap_or_default()));
            }
            _ => {}
        }
    }
    seen.doubt = records.doubt().map(str::to_owned);
    seen.deploying = records.deploying();
    if seen.doubt.is_some() {
        seen.served = None;
    }
    for (unit, start) in seen.units.iter_mut().zip(starts) {
        let same = records.runs.get(unit.id.as_str()).filter(|_| seen.doubt.is_none());
        unit.same = same.into_iter().flatten().map(|commit| (*commit).to_owned()).collect();
        let Some(start) = start.filter(|_| unit.pid > 0) else { continue };
        unit.pushed = runs::is_pushed(profile, &seen.pushes, &unit.id, start);
        let missed = runs::missed(profile, &seen.pushes, &unit.id, start);
        unit.outdated = missed.map(|push| format!("push `{}`", printable(&push.id)));
        match records.origin(&unit.id, start) {
            Origin::Commit(commit) => unit.commit = Some(commit.to_owned()),
            Origin::Before(release) => unit.outdated = Some(format!("release `{release}`")),
            Origin::Unknown => {}
        }
    }
    seen.health.sort_by_key(|it| profile.health.iter().position(|health| *health.name == it.name));
    seen
}

/// The table of units.
pub fn records(seen: &Seen) -> Records<8> {
    let deployed = seen.deployed();
    let health = |unit: &Unit| {
        // Of several answers the one that is wrong.
        let answers = || seen.health_of(unit);
        let told = answers().find(|health| !health.healthy).or_else(|| answers().next());
        told.map_or_else(|| "-".to_owned(), Health::word)
    };
    let row = |unit: &Unit| Record {
        id: unit.id.clone(),
        cells: [
            unit.id.trim_end_matches(".service").to_owned(),
            format!("{}/{}", unit.active, unit.sub),
            health(unit),
            age(unit.seconds),
            unit.restarts.to_string(),
            unit.memory.map_or_else(|| "-".to_owned(), output::bytes),
            if unit.pid == 0 { "-".to_owned() } else { unit.pid.to_string() },
            unit.release(deployed),
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
            "same_for_it": unit.same,
            "pushed": unit.pushed,
            "outdated": unit.outdated,
            "health": seen.health_of(unit).map(Health::json).collect::<Vec<_>>(),
        }),
    };
    let head = ["UNIT", "STATE", "HEALTH", "SINCE", "RESTARTS", "MEMORY", "PID", "RELEASE"];
    Records { head, rows: seen.units.iter().map(row).collect() }
}

/// `1 path`, `2 paths`.
pub fn counted(count: usize, one: &str, more: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { more })
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

/// What is wrong with them, a check each. At least `asked` of them have to be told of: silence is no pass.
pub fn judge(seen: &Seen, asked: usize, profile: &Profile, ready: &Sourced<Limit>, report: &mut Report) {
    let untold = asked.saturating_sub(seen.units.len());
    if untold > 0 {
        let detail = format!("systemd of the VPS told nothing of {untold} of the {asked} units");
        report.push(Check::fail("unit", Exit::Failed, detail).hint("ua-vpsctl run -- systemctl --version"));
    }
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
            // Where nothing was ever deployed the journal has nothing to tell.
            let hint = if unit.is_stopped() && seen.deployed() {
                format!("ua-vpsctl restart {id}  # what it said last: ua-vpsctl logs {id} -n 50")
            } else if seen.deployed() {
                format!("ua-vpsctl logs {id} -n 50")
            } else {
                "ua-deploy plan".to_owned()
            };
            report.push(Check::fail("unit", Exit::Failed, detail).hint(hint));
        }
    }
    if untold == 0 && !rest.is_empty() && rest.iter().all(|unit| unit.is_up() && unit.load == "loaded") {
        let others = !stopped.is_empty();
        let detail = match (rest.len(), others) {
            (1, false) => "the unit runs".to_owned(),
            (1, true) => "the other one runs".to_owned(),
            (count, others) => format!("all {count}{} run", if others { " others" } else { "" }),
        };
        report.push(Check::pass("units", detail));
    }
    judge_health(seen, ready, report);
    for unit in &seen.units {
        let id = unit.id.trim_end_matches(".service");
        if let Some(change) = &unit.outdated {
            let detail = format!("{id} was started before {change}, which changed what it reads");
            report.push(Check::warn("unit.outdated", detail).hint(format!("ua-vpsctl restart {id}")));
        }
    }
    if let Some(version) = seen.inexact.as_ref().filter(|_| seen.deployed()) {
        let detail = format!(
            "systemd {version} of the VPS does not tell exactly when a process was started, so nobody knows which release it runs; 248 does"
        );
        let hint = "upgrade the VPS: Debian 12 and Ubuntu 22.04 have a newer systemd";
        report.push(Check::warn("systemd", detail).hint(hint));
    }
    if let Some(release) = &seen.doubt {
        let detail =
            format!("nobody knows: `{release}` was put in place last, and neither proved nor taken back");
        report.push(Check::warn("release", detail).hint("ua-deploy status"));
    } else if let Some(release) = seen.served.as_ref().filter(|_| !seen.deploying) {
        report.push(Check::pass("release", format!("`{release}` was put in place last, and proved")));
    }
    if let Some(holder) = &seen.busy {
        report.push(Check::warn("lock", app::busy(holder)).hint("ua-deploy status"));
    }
}

/// Judges the answers. A unit that was started a short time ago may need it.
fn judge_health(seen: &Seen, ready: &Sourced<Limit>, report: &mut Report) {
    let id = "health";
    let unit_of = |health: &Health| seen.units.iter().find(|unit| health.unit.as_ref() == Some(&unit.id));
    // That a unit is down is told by then.
    let (judged, _): (Vec<_>, Vec<_>) =
        seen.health.iter().partition(|health| unit_of(health).is_none_or(Unit::is_up));
    if judged.iter().any(|health| !health.is_asked()) {
        let detail = "the VPS has no curl, so nothing was asked whether it answers";
        report.push(Check::warn(id, detail).hint("ua-vpsctl run -- apt-get install -y curl"));
        return;
    }
    let well = judged.iter().filter(|health| health.healthy).count();
    for health in judged.iter().filter(|health| !health.healthy) {
        let unit = unit_of(health);
        let name = unit.map_or(health.name.as_str(), |unit| unit.id.trim_end_matches(".service"));
        let words = health.words();
        report.push(match unit {
            Some(unit) if unit.seconds < profile::within(ready, health.within) => {
                let detail = format!("{name} is active for {}, and {words}", age(unit.seconds));
                Check::warn(id, detail).hint("ua-vpsctl status  # again: it may need its time")
            }
            Some(unit) => {
                let detail = format!("{name} is active for {}, but {words}", age(unit.seconds));
                Check::fail(id, Exit::Failed, detail).hint(format!("ua-vpsctl logs {name} -n 50"))
            }
            None => Check::fail(id, Exit::Failed, format!("{name}: {words}")).hint("ua-vpsctl status"),
        });
    }
    if well > 0 && well == judged.len() {
        let names: Vec<String> = judged.iter().map(|health| health.name.clone()).collect();
        report.push(Check::pass(id, format!("healthy: {}", listed(&names))));
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
        let ready = &session.context.settings.deploy_ready_timeout;
        let ready = profile::within(ready, session.profile.units.start_within);
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
            [verdict @ ("up" | "down" | "absent" | "stopped" | "none"), unit, words] => {
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
                "absent" => Check::fail("restart", Exit::Failed, format!("the VPS has no unit `{name}`"))
                    .hint("ua-vpsctl status"),
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

    fn ready() -> Sourced<Limit> {
        let base = Base { dir: Path::new("/"), home: None };
        let origin = ua_common::settings::Origin::Default;
        Sourced { value: Limit::parse_text("60", &base).unwrap(), origin }
    }

    const START: &str = "Thu 1970-01-01 00:01:40.000000 UTC";

    fn seen(more: &str) -> Seen {
        let text = format!(
            "unit\ta.service\tloaded\tactive\trunning\t2\t100000\t18446744073709551615\t42\t{START}\n\
             unit\tb.service\tnot-found\tinactive\tdead\t0\t5\t1048576\t0\t\n{more}"
        );
        parse(&text, &Profile::built_in().unwrap())
    }

    #[test]
    fn silence_about_a_unit_is_no_pass() {
        let profile = Profile::built_in().unwrap();
        let up = "unit\ta.service\tloaded\tactive\trunning\t0\t60\t1\t42\t\n";
        for (text, asked, exit) in [(up, 1, Exit::Ok), (up, 2, Exit::Failed), ("", 6, Exit::Failed)] {
            let mut report = Report::new("ua-vpsctl", ua_common::report::Lane::Vps, "root@vps");
            judge(&parse(text, &profile), asked, &profile, &ready(), &mut report);
            assert_eq!(report.exit(), exit, "{:?}", report.checks);
            let pass = report.checks.iter().any(|check| check.id == "units");
            assert_eq!(pass, exit == Exit::Ok, "{:?}", report.checks);
        }
    }

    #[test]
    fn units_are_read_with_what_they_run() {
        let two = "release\tr0\t50.5\t51.5\nrelease\tr1\t200.5\t201.5\nserved\tr1\nruns\ta.service\tc0,c1\n";
        let said = seen(two);
        assert_eq!(said.units[0].commit.as_deref(), Some("c0"), "the one it was started from");
        assert_eq!((said.units[0].memory, said.units[1].memory), (None, Some(1_048_576)));
        assert_eq!((said.served.as_deref(), said.busy.as_deref()), (Some("r1"), None));
        let row = &records(&said).rows[0].json;
        assert_eq!((&row["commit"], &row["same_for_it"]), (&"c0".into(), &json!(["c0", "c1"])));
        let shown = |more: &str| {
            let lines = records(&seen(&format!("{two}{more}"))).lines("tsv");
            lines[0].rsplit('\t').next().unwrap().to_owned()
        };
        assert_eq!(records(&said).lines("tsv")[0], "a\tactive/running\t-\t1 d 3 h\t2\t-\t42\tc0");
        // A unit that nobody named reads everything.
        let pushed = |placed: &str| {
            format!(
                "pushed\t{{\"id\":\"p\",\"at\":\"T\",\"who\":\"w\",\"commit\":\"c\",\"dirty\":false,\"placed\":{placed},\"paths\":[\"f\\ta\\tx\"]}}\n"
            )
        };
        assert_eq!(
            (shown(&pushed("99.5")), shown(&pushed("100.5"))),
            ("c0+pushed".to_owned(), "c0".to_owned())
        );
        // Started by the deploy that is under way.
        let busy = "open\tr2\nbusy\tua-deploy forward r2 by op@laptop\nlocked\t";
        assert_eq!(
            (shown(&format!("{busy}99.5\n")), shown(&format!("{busy}100.5\n"))),
            ("?".to_owned(), "c0".to_owned())
        );
        // Nothing was ever deployed.
        assert_eq!(records(&seen("")).lines("tsv")[0].rsplit('\t').next(), Some("-"));
    }

    #[test]
    fn what_a_broken_release_left_is_nobody_s() {
        let said = seen("release\tr0\t50.5\t51.5\nserved\tr0\nruns\ta.service\tc0\nopen\tr1\n");
        assert_eq!(records(&said).lines("tsv")[0].rsplit('\t').next(), Some("?"));
        let mut report = Report::new("ua-vpsctl", ua_common::report::Lane::Vps, "x");
        judge(&said, said.units.len(), &Profile::built_in().unwrap(), &ready(), &mut report);
        let release = report.checks.iter().find(|check| check.id == "release").unwrap();
        assert_eq!((said.served, release.hint.as_deref()), (None, Some("ua-deploy status")));
        assert!(release.detail.contains("nobody knows: `r1`"), "{release:?}");
    }

    #[test]
    fn of_a_systemd_that_tells_no_exact_starts_nobody_knows_what_runs() {
        let told = |more: &str| {
            let text = format!(
                "{more}unit\ta.service\tloaded\tactive\trunning\t0\t60\t1\t42\tThu 2026-11-26 11:15:14 CET\n\
                 release\tr0\t50.5\t51.5\nserved\tr0\nruns\ta.service\tc0\n"
            );
            let profile = Profile::built_in().unwrap();
            let seen = parse(&text, &profile);
            let mut report = Report::new("ua-vpsctl", ua_common::report::Lane::Vps, "x");
            judge(&seen, 1, &profile, &ready(), &mut report);
            let release = records(&seen).lines("tsv")[0].rsplit('\t').next().unwrap().to_owned();
            (release, report)
        };
        let (release, report) = told("systemd\t247\n");
        let check = report.checks.iter().find(|check| check.id == "systemd").unwrap();
        assert_eq!((release.as_str(), report.exit(), check.hint.is_some()), ("?", Exit::Ok, true));
        assert!(check.detail.starts_with("systemd 247 of the VPS does not tell exactly"), "{check:?}");
        let (release, report) = told("");
        assert!(release == "?" && report.checks.iter().all(|check| check.id != "systemd"), "{report:?}");
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
    fn where_nothing_was_deployed_the_next_command_is_a_deploy() {
        let profile = Profile::built_in().unwrap();
        let hints = |active: &str, more: &str| -> Vec<String> {
            let mut report = Report::new("ua-vpsctl", ua_common::report::Lane::Vps, "x");
            let text = format!("unit\ta.service\tloaded\t{active}\tdead\t0\t9\t0\t0\t\n{more}");
            judge(&parse(&text, &profile), 0, &profile, &ready(), &mut report);
            report.checks.into_iter().filter_map(|check| check.hint).collect()
        };
        assert_eq!(hints("inactive", ""), ["ua-deploy plan"]);
        assert_eq!(hints("failed", "served\tr1\n"), ["ua-vpsctl logs a -n 50"]);
        let stopped = "ua-vpsctl restart a  # what it said last: ua-vpsctl logs a -n 50";
        assert_eq!(hints("inactive", "served\tr1\n"), [stopped]);
    }

    #[test]
    fn only_an_optional_unit_may_be_stopped() {
        let profile = Profile::built_in().unwrap();
        let gateway = "universal-agent-gateway.service\tloaded\tactive\trunning\t0\t9\t0\t42";
        let judged = |other: &str| {
            let mut report = Report::new("ua-vpsctl", ua_common::report::Lane::Vps, "x");
            let text = format!("unit\t{gateway}\t\nunit\t{other}\t0\t90\t0\t0\t\n");
            judge(&parse(&text, &profile), 0, &profile, &ready(), &mut report);
            let said: Vec<String> =
                report.checks.iter().map(|it| format!("{:?} {}", it.verdict, it.detail)).collect();
            (said.join("; "), report.exit().code())
        };
        let all = |rest: &str| (rest.to_owned(), 0);
        assert_eq!(judged("csi-ingester.service\tloaded\tactive\trunning"), all("Pass all 2 run"));
        let mut alone = Report::new("ua-vpsctl", ua_common::report::Lane::Vps, "x");
        judge(&parse(&format!("unit\t{gateway}\t\n"), &profile), 1, &profile, &ready(), &mut alone);
        assert_eq!(alone.checks[0].detail, "the unit runs");
        for load in ["loaded", "masked"] {
            let stopped = "Warn csi-ingester is optional, and stopped for 1 min; Pass the other one runs";
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

    #[test]
    fn hanging_unit_is_unhealthy_once_it_had_its_time() {
        let profile = Profile::built_in().unwrap();
        let told = |seconds: u32, active: &str, answer: &str| {
            let unit = "universal-agent-gateway.service";
            let text = format!(
                "unit\t{unit}\tloaded\t{active}\trunning\t0\t{seconds}\t1\t42\t\nhealth\tgateway\t{answer}\n"
            );
            let seen = parse(&text, &profile);
            let mut report = Report::new("ua-vpsctl", ua_common::report::Lane::Vps, "x");
            judge(&seen, 1, &profile, &ready(), &mut report);
            let check = report.checks.into_iter().find(|check| check.id == "health");
            let cell = records(&seen).lines("tsv")[0].split('\t').nth(2).unwrap().to_owned();
            (cell, check.map(|check| format!("{:?} {}", check.verdict, check.detail)).unwrap_or_default())
        };
        let url = "http://127.0.0.1:8002/api/v1/health";
        let fail = |cell: &str, words: &str| {
            (cell.to_owned(), format!("Fail universal-agent-gateway is active for 2 min, but {words}"))
        };
        assert_eq!(told(120, "active", "200\t0"), ("ok".to_owned(), "Pass healthy: gateway".to_owned()));
        assert_eq!(told(120, "active", "503\t0"), fail("503", &format!("{url} answers 503, not 200")));
        assert_eq!(
            told(120, "active", "000\t28"),
            fail("no answer", &format!("{url} does not answer within 5 s"))
        );
        assert_eq!(told(120, "active", "000\t7"), fail("no answer", &format!("nothing listens at {url}")));
        let (cell, said) = told(9, "active", "000\t7");
        assert!(
            cell == "no answer" && said.starts_with("Warn universal-agent-gateway is active for 9 s"),
            "{said}"
        );
        // What is down is told as that.
        assert_eq!(told(120, "failed", "000\t7"), ("-".to_owned(), String::new()));
        let (cell, said) = told(120, "active", "\t127");
        assert!(cell == "?" && said.starts_with("Warn the VPS has no curl"), "{said}");
    }

    #[test]
    fn only_chosen_units_are_asked() {
        let profile = Profile::built_in().unwrap();
        let chosen = |unit: &str| vec![Chosen { unit: unit.to_owned(), if_there: false }];
        assert_eq!(
            health_checks(&profile, &chosen("universal-agent-api.service")),
            "api\thttp://127.0.0.1:8001/api/health\n"
        );
        assert_eq!(health_checks(&profile, &chosen("universal-agent-telegram.service")), "");
        assert_eq!(health_checks(&profile, &crate::units::of(&profile, |_| true)).lines().count(), 3);
    }

    #[test]
    fn unit_with_old_code_is_told_with_its_change() {
        let told = |more: &str| {
            let seen = seen(more);
            let mut report = Report::new("ua-vpsctl", ua_common::report::Lane::Vps, "x");
            judge(&seen, 2, &Profile::built_in().unwrap(), &ready(), &mut report);
            let check = report.checks.into_iter().find(|check| check.id == "unit.outdated");
            let cell = records(&seen).lines("tsv")[0].rsplit('\t').next().unwrap().to_owned();
            (cell, check.map(|check| check.detail).unwrap_or_default())
        };
        // Started at 100.
        let release =
            |runs: &str| told(&format!("release\tr1\t200.5\t201.5\nserved\tr1\nruns\ta.service\t{runs}\n"));
        let said = "a was started before release `r1`, which changed what it reads";
        assert_eq!(release("c1"), ("older".to_owned(), said.to_owned()));
        assert_eq!(release("c0,c1"), ("c0".to_owned(), String::new()));
        let push = "pushed\t{\"id\":\"p1\",\"at\":\"T\",\"who\":\"w\",\"commit\":\"c\",\"dirty\":false,\"placed\":150.5,\"paths\":[\"f\\ta\\tx\"]}\n";
        let served = "release\tr0\t50.5\t51.5\nserved\tr0\nruns\ta.service\tc0\n";
        let said = "a was started before push `p1`, which changed what it reads";
        assert_eq!(told(&format!("{served}{push}")), ("c0".to_owned(), said.to_owned()));
    }
}
