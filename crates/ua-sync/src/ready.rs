//! Is a workspace ready to be mirrored? A pure function of what was listed and of the clock of the VPS.

use ua_common::settings::Settings;

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
    /// How long a run must have ended, in seconds.
    pub min_age: f64,
}

impl Policy {
    /// As the settings say.
    pub fn of(settings: &Settings) -> Self {
        Self {
            require_marker: settings.sync_require_ready_marker.value,
            prefixes: settings.sync_ready_prefixes.0.clone(),
            min_age: settings.sync_ready_min_age.as_secs_f64(),
        }
    }

    /// Does its marker decide about a workspace?
    pub fn gates(&self, id: &str) -> bool {
        self.require_marker
            && (self.prefixes.is_empty() || self.prefixes.iter().any(|prefix| id.starts_with(prefix)))
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
/// | yes | none | none, or empty | – | running |
/// | yes | none | written a moment ago | – | too young |
/// | yes | none | idle | – | ready: `legacy_<mtime>_runlog` |
/// | no | – | – | of a moment ago | too young |
/// | no | – | – | older | ready: `plain_<newest mtime>` |
///
/// "A moment" is the minimum age. Times of files that lie ahead of now say nothing about when they were written.
pub fn judge(listed: &Listed, policy: &Policy, now: f64) -> Readiness {
    if !policy.gates(&listed.id) {
        return plain(listed, policy.min_age, now);
    }
    match &listed.marker {
        Entry::File { .. } => match &listed.marker_bytes {
            Some(bytes) => marked(&marker::read(bytes), policy.min_age, now),
            None => Readiness::BadMarker(format!("its marker has more than {} KiB", marker::LONGEST >> 10)),
        },
        Entry::Other(kind) => Readiness::BadMarker(format!("its marker is {}", kind.words())),
        Entry::None => legacy(&listed.run_log, policy.min_age, now),
    }
}

/// By what is newest in it, whatever its marker says.
pub fn plain(listed: &Listed, min_age: f64, now: f64) -> Readiness {
    match young(now - listed.active, min_age) {
        Some(words) => Readiness::TooYoung(format!("its newest file is {words}")),
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
        _ => Readiness::Running("it has no marker, and its run.log is empty".to_owned()),
    }
}

/// An age in words if it is below the minimum.
fn young(age: f64, min_age: f64) -> Option<String> {
    (age < min_age).then(|| format!("{:.0} s", age.max(0.0)))
}
