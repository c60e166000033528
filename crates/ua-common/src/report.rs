//! The report: what was checked or done, and the one verdict of the one lane it speaks for.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Serialize;

use crate::exit::{self, Exit};

/// The source of truth of a run. Conclusions of one lane never speak for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Lane {
    /// This machine's runtime.
    Local,
    /// The VPS over the tailnet.
    Vps,
    /// The public domains.
    Public,
}

impl std::fmt::Display for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Local => "local",
            Self::Vps => "vps",
            Self::Public => "public",
        })
    }
}

/// Outcome of one check or of a whole report. Declared from good to bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Not looked at, and why.
    Skip,
    /// Observed to be right.
    Pass,
    /// Probably fine, which is not a pass.
    Warn,
    /// Observed to be wrong.
    Fail,
}

/// One observation.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// Stable dotted name, such as `peer.reachable`.
    pub id: Cow<'static, str>,
    /// What was observed.
    pub verdict: Verdict,
    /// The observation in words.
    pub detail: String,
    /// The next command, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// How long the observation took.
    pub duration_ms: u64,
    /// What the run's exit code becomes if this check fails.
    #[serde(skip)]
    pub exit: Exit,
    /// The stage that it is one observation of.
    #[serde(skip)]
    pub stage: Option<&'static str>,
}

impl Check {
    fn new(id: impl Into<Cow<'static, str>>, verdict: Verdict, exit: Exit, detail: String) -> Self {
        Self { id: id.into(), verdict, detail, hint: None, duration_ms: 0, exit, stage: None }
    }

    /// Observed to be right.
    pub fn pass(id: impl Into<Cow<'static, str>>, detail: impl Into<String>) -> Self {
        Self::new(id, Verdict::Pass, Exit::Ok, detail.into())
    }

    /// Works, but a person should know.
    pub fn warn(id: impl Into<Cow<'static, str>>, detail: impl Into<String>) -> Self {
        Self::new(id, Verdict::Warn, Exit::Ok, detail.into())
    }

    /// Observed to be wrong; the run ends with `exit`.
    pub fn fail(id: impl Into<Cow<'static, str>>, exit: Exit, detail: impl Into<String>) -> Self {
        Self::new(id, Verdict::Fail, exit, detail.into())
    }

    /// Not looked at; `detail` says why.
    pub fn skip(id: impl Into<Cow<'static, str>>, detail: impl Into<String>) -> Self {
        Self::new(id, Verdict::Skip, Exit::Ok, detail.into())
    }

    /// A failed check from an error that knows its code and hint.
    pub fn failure(id: impl Into<Cow<'static, str>>, failure: impl Into<crate::error::Failure>) -> Self {
        let failure = failure.into();
        let check = Self::fail(id, failure.exit, failure.to_string());
        Self { hint: failure.hint, ..check }
    }

    /// A failed check from an error on its way to the top, which may know its code and hint.
    pub fn error(id: impl Into<Cow<'static, str>>, error: &anyhow::Error) -> Self {
        let (exit, hint) = crate::error::Failure::within(error);
        Self { hint: hint.map(str::to_owned), ..Self::fail(id, exit, format!("{error:#}")) }
    }

    /// Adds the next command.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds how long it took since `start`.
    #[must_use]
    pub fn since(self, start: Instant) -> Self {
        self.took(start.elapsed())
    }

    /// Adds how long it took.
    #[must_use]
    pub fn took(mut self, duration: Duration) -> Self {
        self.duration_ms = millis(duration);
        self
    }
}

/// Whole milliseconds, saturating.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Everything a run has to say about exactly one lane.
#[derive(Clone, Debug)]
pub struct Report {
    tool: &'static str,
    lane: Lane,
    target: String,
    started_at: Timestamp,
    started: Instant,
    /// What was observed, in order.
    pub checks: Vec<Check>,
    /// What is particular to the tool.
    pub data: serde_json::Map<String, serde_json::Value>,
}

impl Report {
    /// An empty report; its clock starts now.
    pub fn new(tool: &'static str, lane: Lane, target: impl Into<String>) -> Self {
        Self {
            tool,
            lane,
            target: target.into(),
            started_at: Timestamp::now(),
            started: Instant::now(),
            checks: Vec::new(),
            data: serde_json::Map::new(),
        }
    }

    /// The lane it speaks for.
    pub fn lane(&self) -> Lane {
        self.lane
    }

    /// What it speaks about, such as `root@host`.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Adds an observation; says whether the run may go on.
    pub fn push(&mut self, check: Check) -> bool {
        let go_on = check.verdict != Verdict::Fail;
        self.checks.push(check);
        go_on
    }

    /// Adds the observations of one stage, such as the preflight. For a person those that are right are one line.
    pub fn stage(&mut self, name: &'static str, checks: impl IntoIterator<Item = Check>) {
        self.checks.extend(checks.into_iter().map(|check| Check { stage: Some(name), ..check }));
    }

    /// The checks as a person wants to see them: what one stage found to be right is one line.
    pub fn brief(&self) -> Vec<Cow<'_, Check>> {
        let mut brief = Vec::new();
        for checks in self.checks.chunk_by(|a, b| a.stage.is_some() && a.stage == b.stage) {
            let right = |check: &&Check| check.verdict == Verdict::Pass;
            let passed = checks.iter().filter(right).count();
            match checks[0].stage.filter(|_| passed > 1) {
                Some(stage) => {
                    let line = Check::pass(stage, format!("{passed} checks passed (-v shows them)"));
                    brief.push(Cow::Owned(line));
                    brief.extend(checks.iter().filter(|check| !right(check)).map(Cow::Borrowed));
                }
                None => brief.extend(checks.iter().map(Cow::Borrowed)),
            }
        }
        brief
    }

    /// The worst of the checks; `skip` only if nothing at all was looked at.
    pub fn verdict(&self) -> Verdict {
        self.checks.iter().map(|check| check.verdict).max().unwrap_or(Verdict::Skip)
    }

    /// The first failing check, which decides the exit code.
    pub fn first_failure(&self) -> Option<&Check> {
        self.checks.iter().find(|check| check.verdict == Verdict::Fail)
    }

    /// The exit code that this report alone would give. A failing check never gives 0.
    pub fn exit(&self) -> Exit {
        match self.first_failure().map(|check| check.exit) {
            Some(Exit::Ok) => Exit::Failed,
            Some(exit) => exit,
            None => Exit::Ok,
        }
    }

    /// The report as one JSON object (schema `ua.report/1`).
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "schema": "ua.report/1",
            "tool": self.tool,
            "version": env!("CARGO_PKG_VERSION"),
            "lane": self.lane,
            "target": self.target,
            "verdict": self.verdict(),
            "exit_code": self.exit().code(),
            "started_at": self.started_at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            "duration_ms": millis(self.started.elapsed()),
            "checks": self.checks,
            "data": self.data,
        })
    }
}

/// The exit code of a run with several reports: the first failing lane in the order local, vps, public.
pub fn exit_of(reports: &[Report]) -> Exit {
    let mut failing: Vec<&Report> = reports.iter().filter(|report| report.exit() != Exit::Ok).collect();
    failing.sort_by_key(|report| report.lane);
    failing.first().map_or(Exit::Ok, |report| report.exit())
}

/// The JSON Schema of what [`Report::to_json`] makes (`docs/report.schema.json`).
pub fn schema() -> serde_json::Value {
    let text = serde_json::json!({"type": "string"});
    let milliseconds = serde_json::json!({"type": "integer", "minimum": 0});
    let verdicts = serde_json::json!({"enum": [Verdict::Pass, Verdict::Warn, Verdict::Fail, Verdict::Skip]});
    let codes: Vec<u8> = exit::TABLE.iter().map(|row| row.code).collect();
    serde_json::json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "What a run says about exactly one lane; `--json` prints one a line",
        "type": "object",
        "additionalProperties": false,
        "required": [
            "schema", "tool", "version", "lane", "target", "verdict", "exit_code", "started_at", "duration_ms", "checks",
            "data",
        ],
        "properties": {
            "schema": {"const": "ua.report/1"},
            "tool": {"type": "string", "pattern": "^ua-[a-z-]+$"},
            "version": text,
            "lane": {
                "description": "the source of truth: this machine, the VPS over the tailnet, or the public domains",
                "enum": [Lane::Local, Lane::Vps, Lane::Public],
            },
            "target": {"description": "whom it speaks about; empty where the run ended before that was known", "type": "string"},
            "verdict": {"description": "the worst of the checks", "$ref": "#/$defs/verdict"},
            "exit_code": {
                "description": "what the first failing check means (exit-codes.md); the process ends with that of the first failing lane: local, vps, public",
                "enum": codes,
            },
            "started_at": {"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$"},
            "duration_ms": milliseconds,
            "checks": {"type": "array", "items": {"$ref": "#/$defs/check"}},
            "data": {"description": "what is particular to the tool", "type": "object"},
        },
        "$defs": {
            "verdict": verdicts,
            "check": {
                "type": "object",
                "additionalProperties": false,
                "required": ["id", "verdict", "detail", "duration_ms"],
                "properties": {
                    "id": {"description": "a stable name", "type": "string", "pattern": "^[a-z]"},
                    "verdict": {"$ref": "#/$defs/verdict"},
                    "detail": {"description": "what was observed, for a person", "type": "string"},
                    "hint": {"description": "the next command, where there is one", "type": "string"},
                    "duration_ms": milliseconds,
                },
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_failing_lane_gives_the_code() {
        let mut public = Report::new("t", Lane::Public, "x");
        public.push(Check::fail("public.app", Exit::PublicSmoke, "500"));
        let mut vps = Report::new("t", Lane::Vps, "x");
        vps.push(Check::warn("a", "b"));
        assert_eq!(exit_of(&[public.clone(), vps.clone()]), Exit::PublicSmoke);
        vps.push(Check::fail("staging", Exit::StagingUnhealthy, "502"));
        assert_eq!(exit_of(&[public, vps]), Exit::StagingUnhealthy);
    }

    #[test]
    fn of_a_stage_a_person_sees_one_line_and_what_is_not_right() {
        let mut report = Report::new("t", Lane::Vps, "x");
        report.push(Check::pass("source", ""));
        let preflight =
            [Check::pass("a", ""), Check::warn("b", ""), Check::pass("c", ""), Check::pass("d", "")];
        report.stage("preflight", preflight);
        report.stage("contract", [Check::pass("e", ""), Check::pass("f", "")]);
        report.push(Check::pass("ssh", ""));
        let ids =
            |report: &Report| report.brief().iter().map(|check| check.id.to_string()).collect::<Vec<_>>();
        assert_eq!(ids(&report), ["source", "preflight", "b", "contract", "ssh"]);
        assert!(report.brief()[1].detail.starts_with("3 checks"));
        assert_eq!(report.checks.len(), 8, "a program gets all of them");

        let mut one = Report::new("t", Lane::Vps, "x");
        one.stage("preflight", [Check::pass("a", ""), Check::fail("b", Exit::Dns, "")]);
        assert_eq!(ids(&one), ["a", "b"]);
    }

    #[test]
    fn a_failing_check_never_gives_0() {
        let mut report = Report::new("t", Lane::Vps, "x");
        report.push(Check::fail("a", Exit::Ok, "wrong"));
        assert_eq!(report.exit(), Exit::Failed);
        assert_eq!(exit_of(&[report]), Exit::Failed);
    }

    #[test]
    fn a_warning_is_not_a_pass_and_nothing_is_a_skip() {
        let mut report = Report::new("t", Lane::Vps, "x");
        assert_eq!(report.verdict(), Verdict::Skip);
        report.push(Check::pass("a", ""));
        report.push(Check::warn("b", ""));
        report.push(Check::skip("c", ""));
        assert_eq!((report.verdict(), report.exit()), (Verdict::Warn, Exit::Ok));
    }
}
