//! The ledger: one line for every canary and every switch, and what they add up to.
//!
//! It is only ever appended to. Lines that are not ours, or that a crash cut short, are kept, counted and not believed.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use ua_common::error::Fact;
use ua_common::exit::Exit;
use ua_common::report::Verdict;
use ua_common::settings::Settings;

/// What the lines follow.
pub const SCHEMA: &str = "ua.ssh-auth/1";

/// Clocks of one machine may be corrected by this much without anybody having set them back.
const CLOCK_SLACK: SignedDuration = SignedDuration::from_secs(120);

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// [`SCHEMA`].
    pub schema: String,
    /// When it ended.
    pub at: Timestamp,
    /// `user@name` of the VPS.
    pub target: String,
    /// Who was at work, as `user@machine`.
    pub who: String,
    /// What it was.
    #[serde(flatten)]
    pub event: Event,
}

/// What a line tells of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A canary.
    Canary {
        /// `skip` where Tailscale SSH was not to be judged: no tailnet, or no VPS on it.
        verdict: Outcome,
        /// Exit code of the run.
        exit_code: u8,
        /// How long it took, in milliseconds.
        duration_ms: u64,
        /// Versions of what took part.
        versions: Versions,
        /// Its steps.
        steps: Vec<Step>,
    },
    /// A switch to Tailscale SSH.
    Cutover {
        /// What the user's file said before; nothing if it did not say.
        from: Option<String>,
    },
    /// A switch back to keys.
    Rollback {
        /// What the user's file said before.
        from: Option<String>,
    },
}

/// How a canary ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Every step was right.
    Pass,
    /// One was not.
    Fail,
    /// Nothing could be tried.
    Skip,
}

/// Versions of what took part in a canary; empty where it did not come to that.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// This tool.
    pub ua: String,
    /// tailscaled on this machine.
    pub tailscale: String,
    /// ssh on this machine.
    pub ssh: String,
    /// What the server called itself.
    pub server: String,
}

/// One step of a canary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Its check's id.
    pub id: String,
    /// `pass`, `warn`, `fail` or `skip`.
    pub verdict: String,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
}

/// Why the ledger cannot be used. Found before anything is contacted.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} the ledger `{}`", .path.display())]
pub struct LedgerError {
    doing: &'static str,
    path: PathBuf,
    source: std::io::Error,
}

impl Fact for LedgerError {
    fn exit(&self) -> Exit {
        Exit::Usage
    }

    fn hint(&self) -> Option<String> {
        Some(format!("ls -ld {0} {0}/ssh-auth.jsonl", self.path.parent().unwrap_or(&self.path).display()))
    }
}

/// What a ledger holds.
#[derive(Clone, Debug, Default)]
pub struct Read {
    /// Its lines, in order.
    pub entries: Vec<Entry>,
    /// Numbers, from 1, of lines that are not ours.
    pub foreign: Vec<usize>,
}

/// The ledger's file.
#[derive(Clone, Debug)]
pub struct Ledger {
    path: PathBuf,
}

impl Ledger {
    /// The one below our state directory.
    pub fn below(state: &Path) -> Self {
        Self { path: state.join("ssh-auth.jsonl") }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads it; a missing one is empty.
    pub fn read(&self) -> Result<Read, LedgerError> {
        self.regular("read")?;
        match std::fs::read(&self.path) {
            Ok(bytes) => Ok(parse(&String::from_utf8_lossy(&bytes))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Read::default()),
            Err(source) => Err(self.failed("read", source)),
        }
    }

    /// Opens it for a line that is yet to come, so that a ledger nobody can write is known before the work.
    pub fn open(&self) -> Result<Pen, LedgerError> {
        self.regular("write")?;
        let mut options = std::fs::OpenOptions::new();
        let file = options.read(true).append(true).create(true).mode(0o600).open(&self.path);
        Ok(Pen { file: file.map_err(|source| self.failed("write", source))?, ledger: self.clone() })
    }

    /// Anything else than a file could keep us waiting for ever.
    fn regular(&self, doing: &'static str) -> Result<(), LedgerError> {
        match std::fs::metadata(&self.path) {
            Ok(meta) if !meta.is_file() => {
                Err(self.failed(doing, std::io::Error::other("not a regular file")))
            }
            _ => Ok(()),
        }
    }

    fn failed(&self, doing: &'static str, source: std::io::Error) -> LedgerError {
        LedgerError { doing, path: self.path.clone(), source }
    }
}

/// A ledger that is open for writing.
pub struct Pen {
    file: File,
    ledger: Ledger,
}

impl Pen {
    /// Waits for its turn, but not for ever.
    pub fn locked(self) -> Result<Self, LedgerError> {
        match ua_common::state::lock(&self.file) {
            Ok(()) => Ok(self),
            Err(source) => Err(self.ledger.failed("write", source)),
        }
    }

    /// Appends a line and sees it on the disk. A line that a crash cut short keeps its place above it.
    pub fn append(&mut self, entry: &Entry) -> Result<(), LedgerError> {
        self.write(entry).map_err(|source| self.ledger.failed("write", source))
    }

    fn write(&mut self, entry: &Entry) -> std::io::Result<()> {
        let length = self.file.seek(SeekFrom::End(0))?;
        let mut line = serde_json::to_string(entry)?;
        if length > 0 {
            let mut last = [0];
            self.file.seek(SeekFrom::End(-1))?;
            self.file.read_exact(&mut last)?;
            if last != *b"\n" {
                line.insert(0, '\n');
            }
        }
        line.push('\n');
        if let Err(error) = self.file.write_all(line.as_bytes()).and_then(|()| self.file.sync_all()) {
            // Half a line is no line.
            self.file.set_len(length)?;
            return Err(error);
        }
        Ok(())
    }
}

fn parse(text: &str) -> Read {
    let mut read = Read::default();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        match serde_json::from_str::<Entry>(line) {
            Ok(entry) if entry.schema == SCHEMA => read.entries.push(entry),
            _ => read.foreign.push(index + 1),
        }
    }
    read
}

/// When a cut-over is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The window, in days, which the evidence must span.
    pub days: u32,
    /// Canaries that must have passed in the window.
    pub runs: u32,
    /// How old the last of them may be.
    pub max_age: Duration,
}

impl Rule {
    /// The rule of the settings.
    pub fn of(settings: &Settings) -> Self {
        Self {
            days: settings.ssh_canary_days.0,
            runs: settings.ssh_canary_runs.0,
            max_age: settings.ssh_canary_max_age.0,
        }
    }
}

/// What the ledger says about one target at one time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Canaries that passed within the window.
    pub passed: u32,
    /// Canaries that failed within the window.
    pub failed: u32,
    /// Canaries within the window that had nothing to judge.
    pub skipped: u32,
    /// The first canary of all that was judged.
    pub first: Option<Timestamp>,
    /// The last that passed.
    pub last: Option<Timestamp>,
    /// The longest time within the window without a judged canary, in seconds.
    pub longest_gap_s: i64,
    /// What the rule still lacks; empty: it holds.
    pub missing: Vec<Missing>,
}

/// One part of the rule that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// Id of the check that says so.
    pub id: &'static str,
    /// In words.
    pub detail: String,
}

impl Rule {
    /// Adds up what the ledger says about one target. Pure.
    ///
    /// The rule holds if the first judged canary is at least `days` old, and within the last `days` at least `runs`
    /// passed, none failed, and the last that passed is at most `max_age` old. A line from the future means that the
    /// clock was set back, so that no time in the ledger can be trusted until that time has come.
    pub fn judge(&self, entries: &[Entry], is_target: &dyn Fn(&str) -> bool, now: Timestamp) -> Summary {
        let canaries: Vec<(Timestamp, Outcome)> = entries
            .iter()
            .filter(|entry| is_target(&entry.target))
            .filter_map(|entry| match &entry.event {
                Event::Canary { verdict, .. } => Some((entry.at, *verdict)),
                _ => None,
            })
            .collect();
        let window = SignedDuration::from_hours(i64::from(self.days) * 24);
        let within = |at: &Timestamp| now.duration_since(*at) <= window;
        let count = |wanted: Outcome| {
            let found = canaries.iter().filter(|(at, outcome)| *outcome == wanted && within(at)).count();
            u32::try_from(found).unwrap_or(u32::MAX)
        };
        let mut judged: Vec<Timestamp> =
            canaries.iter().filter(|(_, outcome)| *outcome != Outcome::Skip).map(|(at, _)| *at).collect();
        judged.sort_unstable();
        let last = canaries.iter().filter(|(_, outcome)| *outcome == Outcome::Pass).map(|(at, _)| *at).max();
        let (passed, failed, skipped) = (count(Outcome::Pass), count(Outcome::Fail), count(Outcome::Skip));

        let mut missing = Vec::new();
        let mut lacks = |id, detail| missing.push(Missing { id, detail });
        match judged.first() {
            None => lacks("rule.days", "there has been no canary yet".to_owned()),
            Some(first) if now.duration_since(*first) < window => {
                lacks(
                    "rule.days",
                    format!("the first canary was at {first}, {} days ago", days(now, *first)),
                );
            }
            Some(_) => {}
        }
        if passed < self.runs {
            lacks(
                "rule.runs",
                format!("canaries that passed in the last {} days: {passed}, not {}", self.days, self.runs),
            );
        }
        if failed > 0 {
            lacks("rule.failures", format!("canaries that failed in the last {} days: {failed}", self.days));
        }
        let fresh = |last: Timestamp| now.duration_since(last).unsigned_abs() <= self.max_age;
        if let Some(last) = last.filter(|last| !fresh(*last)) {
            lacks("rule.age", format!("the last canary that passed was at {last}"));
        }
        let future =
            entries.iter().map(|entry| entry.at).max().filter(|at| at.duration_since(now) > CLOCK_SLACK);
        if let Some(at) = future {
            lacks(
                "rule.clock",
                format!("the ledger has a line of {at}, so the clock was set back since: it is {now} now"),
            );
        }

        let begin = now - window;
        let inside = judged.iter().copied().filter(|at| *at >= begin && *at <= now);
        let marks: Vec<Timestamp> = std::iter::once(begin).chain(inside).chain([now]).collect();
        let longest_gap_s =
            marks.windows(2).map(|pair| pair[1].duration_since(pair[0]).as_secs()).max().unwrap_or(0);
        Summary { passed, failed, skipped, first: judged.first().copied(), last, longest_gap_s, missing }
    }
}

fn days(now: Timestamp, then: Timestamp) -> String {
    format!("{:.1}", now.duration_since(then).as_secs_f64() / 86_400.0)
}

impl Entry {
    /// A line of now.
    pub fn now(target: String, who: String, event: Event) -> Self {
        // The ledger is read by people too: whole seconds.
        let at = Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default();
        Self { schema: SCHEMA.to_owned(), at, target, who, event }
    }
}

impl Step {
    /// The step that a check reports.
    pub fn of(check: &ua_common::report::Check) -> Self {
        let verdict = match check.verdict {
            Verdict::Pass => "pass",
            Verdict::Warn => "warn",
            Verdict::Fail => "fail",
            Verdict::Skip => "skip",
        };
        Self { id: check.id.to_string(), verdict: verdict.to_owned(), duration_ms: check.duration_ms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: &str = "root@vps.tailnet.test";
    const RULE: Rule = Rule { days: 7, runs: 20, max_age: Duration::from_hours(24) };

    fn now() -> Timestamp {
        "2026-03-01T12:00:00Z".parse().unwrap()
    }

    fn canary(hours_ago: i64, verdict: Outcome) -> Entry {
        let (versions, steps) = (Versions::default(), Vec::new());
        let event = Event::Canary { verdict, exit_code: 0, duration_ms: 1, versions, steps };
        let at = now() - SignedDuration::from_hours(hours_ago);
        Entry { at, ..Entry::now(TARGET.to_owned(), "op@laptop".to_owned(), event) }
    }

    /// Every eight hours for `days`, the last one two hours ago.
    fn steady(days: i64) -> Vec<Entry> {
        (0..=days * 3).rev().map(|n| canary(2 + n * 8, Outcome::Pass)).collect()
    }

    fn missing(entries: &[Entry]) -> Vec<&'static str> {
        RULE.judge(entries, &|target| target == TARGET, now())
            .missing
            .iter()
            .map(|missing| missing.id)
            .collect()
    }

    #[test]
    fn the_rule() {
        assert_eq!(missing(&[]), ["rule.days", "rule.runs"]);
        assert_eq!(missing(&steady(7)), [""; 0]);
        assert_eq!(missing(&steady(6)), ["rule.days", "rule.runs"]);
        assert_eq!(missing(&[steady(7), vec![canary(1, Outcome::Fail)]].concat()), ["rule.failures"]);
        assert_eq!(missing(&[steady(7), vec![canary(1, Outcome::Skip)]].concat()), [""; 0]);
        // A failure that left the window is forgiven; it still shows since when there is evidence.
        assert_eq!(missing(&[vec![canary(200, Outcome::Fail)], steady(7)].concat()), [""; 0]);
        let many_today: Vec<Entry> = (0..30).map(|_| canary(1, Outcome::Pass)).collect();
        assert_eq!(missing(&many_today), ["rule.days"]);
        let quiet_since: Vec<Entry> =
            steady(9).into_iter().filter(|e| e.at < now() - SignedDuration::from_hours(25)).collect();
        assert_eq!(missing(&quiet_since), ["rule.runs", "rule.age"]);
        assert_eq!(missing(&[steady(7), vec![canary(-1, Outcome::Pass)]].concat()), ["rule.clock"]);
    }

    #[test]
    fn another_target_proves_nothing() {
        let other: Vec<Entry> =
            steady(7).into_iter().map(|entry| Entry { target: "root@other".to_owned(), ..entry }).collect();
        assert_eq!(missing(&other), ["rule.days", "rule.runs"]);
    }

    #[test]
    fn the_longest_gap_counts_the_ends_of_the_window() {
        let gap =
            |entries: &[Entry]| RULE.judge(entries, &|target| target == TARGET, now()).longest_gap_s / 3600;
        assert_eq!(gap(&[]), 7 * 24);
        assert_eq!(gap(&steady(7)), 8);
        assert_eq!(gap(&[canary(100, Outcome::Pass), canary(30, Outcome::Fail)]), 70);
    }

    #[test]
    fn a_cut_line_and_foreign_lines_are_kept_and_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::below(dir.path());
        let (first, second) = (canary(2, Outcome::Pass), canary(1, Outcome::Fail));
        ledger.open().unwrap().locked().unwrap().append(&first).unwrap();
        let whole = std::fs::read_to_string(ledger.path()).unwrap();
        let cut = format!("{whole}not ours\n{}", &whole[..whole.len() / 2]);
        std::fs::write(ledger.path(), &cut).unwrap();
        ledger.open().unwrap().locked().unwrap().append(&second).unwrap();
        let text = std::fs::read_to_string(ledger.path()).unwrap();
        assert!(text.starts_with(&format!("{cut}\n{{")) && text.ends_with("}\n"), "{text}");
        let read = ledger.read().unwrap();
        assert_eq!((read.entries, read.foreign), (vec![first, second], vec![2, 3]));
    }

    #[test]
    fn many_writers_never_mix_their_lines() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::below(dir.path());
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    (0..20).for_each(|_| {
                        ledger.open().unwrap().locked().unwrap().append(&canary(1, Outcome::Pass)).unwrap();
                    });
                });
            }
        });
        let read = ledger.read().unwrap();
        assert_eq!((read.entries.len(), read.foreign.len()), (160, 0));
    }
}
