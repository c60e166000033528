//! `list`: every workspace and how it stands.

use jiff::Timestamp;
use serde_json::{Value, json};
use ua_common::output::{Record, Records};
use ua_common::settings::value::{Base, Value as _};

use crate::plan::{Row, State};

/// Which rows are wanted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filter {
    /// Ready, and not in the mirror as they should be.
    pub pending: bool,
    /// Somebody has to look.
    pub failed: bool,
    /// In the mirror.
    pub synced: bool,
    /// Ended, or written to, since then: seconds since 1970.
    pub since: Option<f64>,
}

impl Filter {
    /// Is this row wanted? Several states are any of them.
    pub fn takes(&self, row: &Row) -> bool {
        let any = !self.pending && !self.failed && !self.synced;
        let state = any
            || (self.pending && row.state.is_behind())
            || (self.failed && row.state.is_trouble())
            || (self.synced && row.state.is_held());
        state && self.since.is_none_or(|since| at(row).is_some_and(|at| at >= since))
    }
}

/// When a run of it ended, else when something in it was written.
fn at(row: &Row) -> Option<f64> {
    let epoch = row.ready.as_ref().and_then(|ready| ready.epoch);
    epoch.or_else(|| row.listed.as_ref()?.newest.parse().ok())
}

/// A time as it is typed: `24h` ago, or a day, or a time.
pub fn since(text: &str, now: Timestamp) -> Result<f64, String> {
    let base = Base { dir: std::path::Path::new("/"), home: None };
    if let Ok(ago) = std::time::Duration::parse_text(text, &base) {
        return Ok(now.as_duration().as_secs_f64() - ago.as_secs_f64());
    }
    let time = text.parse::<Timestamp>().or_else(|_| format!("{text}T00:00:00Z").parse::<Timestamp>());
    time.map(|time| time.as_duration().as_secs_f64())
        .map_err(|_| "not a duration such as 24h, a day such as 2026-02-21, or a time".to_owned())
}

/// The rows for a person, or with times and sizes for a program.
pub fn records<'a>(rows: impl Iterator<Item = &'a Row>, raw: bool) -> Records<6> {
    let record = |row: &Row| Record { id: row.id.clone(), cells: cells(row, raw), json: json(row) };
    let rows = rows.map(record).collect();
    Records { head: ["ID", "STATE", "TIME", "FILES", "SIZE", "WHY"], rows }
}

fn cells(row: &Row, raw: bool) -> [String; 6] {
    let sum = row.listed.as_ref().filter(|listed| listed.kind == crate::listing::Kind::Directory);
    let none = || "-".to_owned();
    [
        row.id.clone(),
        row.state.word().to_owned(),
        at(row).map_or_else(none, |at| moment(at, raw)),
        sum.map_or_else(none, |listed| listed.sum.files.to_string()),
        sum.map_or_else(none, |listed| {
            if raw { listed.sum.bytes.to_string() } else { ua_common::output::bytes(listed.sum.bytes) }
        }),
        row.why.clone(),
    ]
}

/// As a row of the report and of `--format json`.
pub fn json(row: &Row) -> Value {
    let sum = row.listed.as_ref().map(|listed| listed.sum);
    json!({
        "id": row.id,
        "state": row.state.word(),
        "why": row.why,
        "ended_at": row.ready.as_ref().and_then(|ready| ready.epoch),
        "signature": row.ready.as_ref().map(|ready| &ready.signature),
        "files": sum.map(|sum| sum.files),
        "bytes": sum.map(|sum| sum.bytes),
        "in_mirror": row.state.is_held() || row.state == State::MirrorOnly,
    })
}

fn moment(at: f64, raw: bool) -> String {
    let at = std::time::Duration::try_from_secs_f64(at).ok().and_then(|at| i64::try_from(at.as_secs()).ok());
    let at = at.and_then(|at| Timestamp::from_second(at).ok());
    at.map_or_else(
        || "?".to_owned(),
        |at| at.strftime(if raw { "%Y-%m-%dT%H:%M:%SZ" } else { "%Y-%m-%d %H:%M:%SZ" }).to_string(),
    )
}
