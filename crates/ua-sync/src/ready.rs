//! Is a workspace ready to be mirrored? A pure function of what was listed and of the clock of the VPS.

use ua_common::settings::Settings;
use ua_common::settings::value::Patterns;

use crate::id;
use crate::listing::{Entry, Kind, Listed};
use crate::marker::{self, Marker};

/// A marker that is dated later than this after now, in seconds, is taken for wrong and not for young.
const AHEAD: f64 = 86_400.0;

/// What makes a workspace ready.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Are gated ids judged by their marker?
    pub require_marker: bool,
    /// Ids that are gated begin with one of these; without any, all are.
    pub prefixes: Vec<String>,
    /// States in a marker that end a run.
    pub states: Vec<String>,
    /// Directories that hold workspaces. What is in one is gated whatever its name.
    pub nested: Patterns,
    /// How long a run must have ended, in seconds.
    pub min_age: f64,
}

impl Policy {
    /// As the settings say.
    pub fn of(settings: &Settings) -> Self {
        Self {
            require_marker: settings.sync_require_ready_marker.value,
            prefixes: settings.sync_ready_prefixes.0.clone(),
            states: settings.sync_ready_states.0.clone(),
            nested: settings.sync_nested.value.clone(),
            min_age: settings.sync_ready_min_age.as_secs_f64(),
        }
    }

    /// Does its marker decide about a workspace?
    pub fn gates(&self, id: &str) -> bool {
        self.require_marker
            && (id::container(id).is_some()
                || self.prefixes.is_empty()
                || self.prefixes.iter().any(|prefix| id.starts_with(prefix)))
    }
}

/// Whether a workspace is ready.
#[derive(Clone, Debug, PartialEq)]
pub enum Readiness {
    /// It is.
    Ready(Ready),
    /// It is being worked in, in words.
    Running(String),
    /// It ended, but only just, in words.
    TooYoung(String),
    /// Its marker cannot be read, in words.
    BadMarker(String),
}

/// What was ready.
#[derive(Clone, Debug, PartialEq)]
pub struct Ready {
    /// What the manifest records of it: another run has another signature.
    pub signature: String,
    /// When it ended, in seconds since 1970. Nothing for ids whose marker does not decide.
    pub epoch: Option<f64>,
}

/// Judges one workspace at `now`, by the clock of the VPS.
///
/// | gated | marker | `run.log` | what is newest | → |
/// |---|---|---|---|---|
/// | yes | ended, a moment ago | – | – | too young |
/// | yes | ended, long ago | – | – | ready: `<epoch>_<state>` |
/// | yes | ended, days ahead of now | – | – | bad marker |
/// | yes | not ready, not ended, no time | – | – | running |
/// | yes | no JSON, too large, no file | – | – | bad marker |
/// | yes, in a directory of workspaces | none | – | – | running |
/// | yes | none | none, or empty | – | running |
/// | yes | none | written a moment ago | – | too young |
/// | yes | none | idle | – | ready: `legacy_<mtime>_runlog` |
/// | no | – | – | of a moment ago | too young |
/// | no | – | – | older | ready: `plain_<newest mtime>` |
///
/// A mission of a worker gets its marker when it ends and never before, so a log that is idle does not stand for one: the
/// worker may think. "A moment" is the minimum age. Times of files that lie ahead of now say nothing about when they were written.
pub fn judge(listed: &Listed, policy: &Policy, now: f64) -> Readiness {
    if !policy.gates(&listed.id) {
        return plain(listed, policy.min_age, now);
    }
    match &listed.marker {
        Entry::File { .. } => match &listed.marker_bytes {
            Some(bytes) => marked(&marker::read(bytes, &policy.states), policy.min_age, now),
            None => Readiness::BadMarker(format!("its marker has more than {} KiB", marker::LONGEST >> 10)),
        },
        Entry::Other(kind) => Readiness::BadMarker(format!("its marker is {}", kind.words())),
        Entry::None if id::container(&listed.id).is_some() => {
            Readiness::Running("it has no marker".to_owned())
        }
        Entry::None => legacy(&listed.run_log, policy.min_age, now),
    }
}

/// By what is newest in it, whatever its marker says.
pub fn plain(listed: &Listed, min_age: f64, now: f64) -> Readiness {
    match young(now - listed.active, min_age) {
        Some(words) => Readiness::TooYoung(format!("its newest file is {words} old")),
        None => Readiness::Ready(unmarked(listed)),
    }
}

/// What is recorded of a workspace that no marker speaks for.
pub fn unmarked(listed: &Listed) -> Ready {
    Ready { signature: format!("plain_{}", listed.newest), epoch: None }
}

fn marked(marker: &Marker, min_age: f64, now: f64) -> Readiness {
    match marker {
        Marker::Bad(why) => Readiness::BadMarker(format!("its marker cannot be read: {why}")),
        Marker::Open(why) => Readiness::Running(why.clone()),
        Marker::Ended { epoch, at, .. } if at - now > AHEAD => {
            Readiness::BadMarker(format!("its marker is dated {epoch}, days ahead of now"))
        }
        Marker::Ended { epoch, at, state } => {
            if let Some(words) = young(now - at, min_age) {
                return Readiness::TooYoung(format!("its run ended {words} ago, {state}"));
            }
            Readiness::Ready(Ready { signature: format!("{epoch}_{state}"), epoch: Some(*at) })
        }
    }
}

fn legacy(run_log: &Entry, min_age: f64, now: f64) -> Readiness {
    match run_log {
        Entry::File { size, mtime } if *size > 0 => {
            let at = mtime.parse().unwrap_or(now);
            if let Some(words) = young(now - at, min_age) {
                return Readiness::TooYoung(format!("its run.log is {words} old"));
            }
            let seconds = mtime.split('.').next().unwrap_or_default();
            // Only times of markers are epochs of runs.
            Readiness::Ready(Ready { signature: format!("legacy_{seconds}_runlog"), epoch: None })
        }
        Entry::Other(kind @ (Kind::Link | Kind::Other)) => {
            Readiness::Running(format!("it has no marker, and its run.log is {}", kind.words()))
        }
        Entry::File { .. } => Readiness::Running("it has no marker, and its run.log is empty".to_owned()),
        _ => Readiness::Running("it has no marker and no run.log".to_owned()),
    }
}

/// An age in words if it is below the minimum.
fn young(age: f64, min_age: f64) -> Option<String> {
    (age < min_age).then(|| format!("{:.0} s", age.max(0.0)))
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::listing::Sum;

    /// The clock of the VPS. Whole, so that ages are exact.
    pub(crate) const NOW: f64 = 1_771_650_000.0;
    const MIN_AGE: i64 = 45;

    /// What a marker may be; ages in seconds.
    #[derive(Clone, Copy, Debug)]
    pub(crate) enum Mark {
        None,
        Ended(i64, &'static str),
        /// The same, by the second of the two times.
        Updated(i64, &'static str),
        NotReady(i64),
        State(&'static str),
        Timeless,
        Garbled(&'static str),
        Huge,
        Kind(Kind),
    }

    #[derive(Clone, Copy, Debug)]
    pub(crate) enum Log {
        None,
        Empty(i64),
        Written(i64),
        Kind(Kind),
    }

    pub(crate) fn time(age: i64) -> i64 {
        1_771_650_000 - age
    }

    pub(crate) fn listed(id: &str, mark: Mark, log: Log, age: i64) -> Listed {
        let text = match mark {
            Mark::Ended(age, state) => {
                format!(r#"{{"ready":true,"state":"{state}","completed_at_epoch":{}}}"#, time(age))
            }
            Mark::Updated(age, state) => format!(
                r#"{{"updated_at_epoch":{},"completed_at_epoch":null,"ready":true,"state":"{state}"}}"#,
                time(age)
            ),
            Mark::NotReady(age) => {
                format!(r#"{{"ready":false,"state":"completed","completed_at_epoch":{}}}"#, time(age))
            }
            Mark::State(state) => {
                format!(r#"{{"ready":true,"state":{state},"completed_at_epoch":{}}}"#, time(900))
            }
            Mark::Timeless => r#"{"ready":true,"state":"completed"}"#.to_owned(),
            Mark::Garbled(text) => text.to_owned(),
            Mark::None | Mark::Huge | Mark::Kind(_) => String::new(),
        };
        let file = |size, age| Entry::File { size, mtime: format!("{}.0000000000", time(age)) };
        let marker = match mark {
            Mark::None => Entry::None,
            Mark::Kind(kind) => Entry::Other(kind),
            _ => file(300, 0),
        };
        let marker_bytes =
            (!matches!(mark, Mark::None | Mark::Huge | Mark::Kind(_))).then(|| text.into_bytes());
        let run_log = match log {
            Log::None => Entry::None,
            Log::Empty(age) => file(0, age),
            Log::Written(age) => file(9, age),
            Log::Kind(kind) => Entry::Other(kind),
        };
        Listed {
            id: id.to_owned(),
            kind: Kind::Directory,
            newest: format!("{}.0000000000", time(age)),
            active: NOW - f64::from(i32::try_from(age.max(0)).unwrap()),
            sum: Sum { files: 1, bytes: 9, times: 9, latest: 9 },
            excluded: 0,
            others: 0,
            unreadable: 0,
            marker,
            inner: false,
            marker_bytes,
            run_log,
            record: String::new(),
        }
    }

    /// What comes of it, by its word, and what it is recorded as.
    fn verdict(readiness: &Readiness) -> (&'static str, String) {
        match readiness {
            Readiness::Ready(ready) => ("ready", ready.signature.clone()),
            Readiness::Running(_) => ("running", String::new()),
            Readiness::TooYoung(_) => ("young", String::new()),
            Readiness::BadMarker(_) => ("bad", String::new()),
        }
    }

    /// The table, row by row; the first that fits counts.
    #[allow(clippy::match_same_arms, reason = "the rows of a table")]
    fn oracle(gated: bool, nested: bool, mark: Mark, log: Log, age: i64) -> (&'static str, String) {
        const DAY: i64 = 86_400;
        let none = String::new;
        match (gated, mark, log) {
            (false, ..) if age < MIN_AGE => ("young", none()),
            (false, ..) => ("ready", format!("plain_{}.0000000000", time(age))),
            (_, Mark::Garbled(_) | Mark::Huge | Mark::Kind(_), _) => ("bad", none()),
            (_, Mark::NotReady(_) | Mark::State(_) | Mark::Timeless, _) => ("running", none()),
            (_, Mark::Ended(age, _) | Mark::Updated(age, _), _) if age < -DAY => ("bad", none()),
            (_, Mark::Ended(age, _) | Mark::Updated(age, _), _) if age < MIN_AGE => ("young", none()),
            (_, Mark::Ended(age, state) | Mark::Updated(age, state), _) => {
                ("ready", format!("{}_{state}", time(age)))
            }
            (_, Mark::None, _) if nested => ("running", none()),
            (_, Mark::None, Log::Written(age)) if age >= MIN_AGE => {
                ("ready", format!("legacy_{}_runlog", time(age)))
            }
            (_, Mark::None, Log::Written(_)) => ("young", none()),
            (_, Mark::None, _) => ("running", none()),
        }
    }

    fn ages() -> impl Strategy<Value = i64> {
        prop_oneof![
            prop::sample::select(vec![-86_401, -86_400, -86_399, -1, 0, 1, 44, 45, 46, 900, 1_771_649_999]),
            -200_000..200_000_i64,
        ]
    }

    /// States that end a run.
    pub(crate) const ENDING: [&str; 3] = ["completed", "timed_out", "dispatch_interrupted"];

    pub(crate) fn policy(prefixes: &[&str]) -> Policy {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        Policy {
            require_marker: true,
            prefixes: owned(prefixes),
            states: owned(&ENDING),
            nested: Patterns(owned(&["vp_*_external"])),
            min_age: 45.0,
        }
    }

    pub(crate) fn marks() -> impl Strategy<Value = Mark> {
        let state = || prop::sample::select(ENDING.to_vec());
        let kinds = vec![Kind::Directory, Kind::Link, Kind::Other];
        let garbled = ["", "{", "[]", "null", "{\"ready\":true,\"ready\":true}", "\u{feff}{}"];
        let states =
            ["\"running\"", "\"cancelled\"", "\"Completed\"", "\"\"", "null", "7", "[\"completed\"]"];
        prop_oneof![
            Just(Mark::None),
            (ages(), state()).prop_map(|(age, state)| Mark::Ended(age, state)),
            (ages(), state()).prop_map(|(age, state)| Mark::Updated(age, state)),
            ages().prop_map(Mark::NotReady),
            prop::sample::select(states.to_vec()).prop_map(Mark::State),
            Just(Mark::Timeless),
            prop::sample::select(garbled.to_vec()).prop_map(Mark::Garbled),
            Just(Mark::Huge),
            prop::sample::select(kinds).prop_map(Mark::Kind),
        ]
    }

    pub(crate) fn logs() -> impl Strategy<Value = Log> {
        let kinds = vec![Kind::Directory, Kind::Link, Kind::Other];
        prop_oneof![
            Just(Log::None),
            ages().prop_map(Log::Empty),
            ages().prop_map(Log::Written),
            prop::sample::select(kinds).prop_map(Log::Kind),
        ]
    }

    proptest! {
        #[test]
        fn a_workspace_is_ready_by_the_table(
            (id, prefixes, require, gated) in prop::sample::select(vec![
                ("session_1", vec!["session_", "tg_"], true, true),
                ("tg_1", vec!["session_", "tg_"], true, true),
                ("xtg_1", vec!["session_", "tg_"], true, false),
                ("cron_1", vec!["session_"], true, false),
                ("cron_1", vec![], true, true),
                ("session_1", vec!["session_"], false, false),
                ("cron_1", vec![], false, false),
                ("vp_x_external/m", vec!["session_"], true, true),
                ("vp_x_external/m", vec![], true, true),
                ("vp_x_external/m", vec!["session_"], false, false),
            ]),
            mark in marks(),
            log in logs(),
            age in ages(),
        ) {
            let policy = Policy { require_marker: require, ..policy(&prefixes) };
            let listed = listed(id, mark, log, age);
            let nested = id.contains('/');
            prop_assert_eq!(verdict(&judge(&listed, &policy, NOW)), oracle(gated, nested, mark, log, age));
            // Nothing that was judged once is judged otherwise because time goes by, but for what was too young.
            if let Readiness::Ready(ready) = judge(&listed, &policy, NOW) {
                let later = judge(&listed, &policy, NOW + 1e6);
                prop_assert_eq!(later, Readiness::Ready(ready));
            }
        }
    }
}
