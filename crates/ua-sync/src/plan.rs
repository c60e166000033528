//! What becomes of each workspace: a pure comparison of what the VPS has with what is here.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::id::{self, Name};
use crate::listing::{Kind, Listed, Listing};
use crate::manifest::Manifest;
use crate::mirror::{Copy, Local};
use crate::ready::{self, Policy, Readiness, Ready};

/// How a workspace stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// The mirror has it, as it was copied.
    Synced,
    /// The mirror has it from the old script, and nobody has compared it since.
    Unproved,
    /// It is ready, and the mirror does not have it yet.
    Pending,
    /// Its last copy failed.
    FailedCopy,
    /// The mirror had it, and it is not as it was copied.
    Damaged,
    /// Somebody works in it.
    Running,
    /// It ended, but only just.
    TooYoung,
    /// Its ready marker cannot be read.
    BadMarker,
    /// The mirror has something else of that name, which nobody recorded.
    Conflict,
    /// The VPS does not let us read all of it.
    Unreadable,
    /// Its name cannot be mirrored.
    UnsupportedName,
    /// It is a file or a link among the workspaces.
    NotADirectory,
    /// The mirror has it, the VPS does not any more.
    MirrorOnly,
}

impl State {
    /// As it is shown and typed.
    pub fn word(self) -> &'static str {
        match self {
            Self::Synced => "synced",
            Self::Unproved => "unproved",
            Self::Pending => "pending",
            Self::FailedCopy => "failed-copy",
            Self::Damaged => "damaged",
            Self::Running => "running",
            Self::TooYoung => "too-young",
            Self::BadMarker => "bad-marker",
            Self::Conflict => "conflict",
            Self::Unreadable => "unreadable",
            Self::UnsupportedName => "unsupported-name",
            Self::NotADirectory => "not-a-directory",
            Self::MirrorOnly => "mirror-only",
        }
    }

    /// Is it ready, and not in the mirror as it should be?
    pub fn is_behind(self) -> bool {
        matches!(self, Self::Pending | Self::FailedCopy | Self::Damaged)
    }

    /// Does the mirror have it?
    pub fn is_held(self) -> bool {
        matches!(self, Self::Synced | Self::Unproved)
    }

    /// Is it to be copied, or at least compared?
    pub fn is_wanted(self) -> bool {
        self.is_behind() || self == Self::Unproved
    }

    /// Does a person have to do something about it?
    pub fn is_trouble(self) -> bool {
        matches!(self, Self::FailedCopy | Self::Conflict | Self::Unreadable | Self::BadMarker)
    }
}

/// One workspace.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its name.
    pub id: String,
    /// How it stands.
    pub state: State,
    /// Why, where the state does not say it all.
    pub why: String,
    /// What it is ready as.
    pub ready: Option<Ready>,
    /// As the VPS has it.
    pub listed: Option<Listed>,
    /// Is there a directory of that name here that nobody recorded?
    pub unrecorded: bool,
    /// Was it recorded, and is nothing of that name here any more?
    pub missing: bool,
}

/// What is asked of a comparison beyond the settings.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Whatever its marker says, a workspace is ready.
    pub force: bool,
}

/// Everything, by name.
pub fn compare(
    listing: &Listing,
    manifest: &Manifest,
    local: &Local,
    failed: &BTreeMap<String, String>,
    policy: &Policy,
    options: Options,
) -> Vec<Row> {
    let mut rows: Vec<Row> = listing
        .entries
        .iter()
        .map(|listed| row(listed, listing.now, manifest, local, failed, policy, options))
        .collect();
    let there = |id: &str| listing.entries.binary_search_by(|entry| entry.id.as_str().cmp(id)).is_ok();
    for id in local.copies.keys().filter(|id| !there(id)) {
        if manifest.knows(id) || local.ours.contains(id) {
            rows.push(Row {
                id: id.clone(),
                state: State::MirrorOnly,
                why: "the VPS does not have it any more".to_owned(),
                ready: None,
                listed: None,
                unrecorded: false,
                missing: false,
            });
        }
    }
    rows.sort_by(|a, b| a.id.cmp(&b.id));
    rows
}

fn row(
    listed: &Listed,
    now: f64,
    manifest: &Manifest,
    local: &Local,
    failed: &BTreeMap<String, String>,
    policy: &Policy,
    options: Options,
) -> Row {
    let id = &listed.id;
    let with = |state, why: String, ready| Row {
        id: id.clone(),
        state,
        why,
        ready,
        listed: Some(listed.clone()),
        unrecorded: false,
        missing: false,
    };
    if let Name::Unsupported(why) = id::judge(id) {
        return with(State::UnsupportedName, why.to_owned(), None);
    }
    if listed.kind != Kind::Directory {
        return with(State::NotADirectory, format!("it is {}", listed.kind.words()), None);
    }
    let readiness = if options.force {
        Readiness::Ready(ready::unmarked(listed))
    } else {
        ready::judge(listed, policy, now)
    };
    let ready = match readiness {
        Readiness::Ready(ready) => ready,
        Readiness::Running(why) => return with(State::Running, why, None),
        Readiness::TooYoung(why) => return with(State::TooYoung, why, None),
        Readiness::BadMarker(why) => return with(State::BadMarker, why, None),
    };
    if listed.unreadable > 0 {
        let why = format!("{} of its directories cannot be read on the VPS", listed.unreadable);
        return with(State::Unreadable, why, Some(ready));
    }
    let known = manifest.knows(id) || local.ours.contains(id);
    let copy = local.copies.get(id);
    if copy == Some(&Copy::NoDirectory) {
        let why = "the mirror has a file or a link of that name".to_owned();
        return with(State::Conflict, why, Some(ready));
    }
    let held = manifest.holds(id, &ready.signature);
    let (state, why) = match copy {
        Some(_) if !known => (State::Pending, "the mirror has a directory of that name".to_owned()),
        // An index of an earlier run tells more than a line of the manifest.
        Some(Copy::Whole(signature)) if held && *signature == ready.signature => {
            return with(State::Synced, String::new(), Some(ready));
        }
        Some(Copy::Unindexed) if held => (State::Unproved, "it is from the old script".to_owned()),
        Some(Copy::Damaged(what)) if held => (State::Damaged, what.clone()),
        None if held => (State::Damaged, "the mirror does not have it any more".to_owned()),
        _ => (State::Pending, String::new()),
    };
    let unrecorded = copy.is_some() && !known;
    let row = match failed.get(id) {
        Some(why) if state != State::Unproved => with(State::FailedCopy, why.clone(), Some(ready)),
        _ => with(state, why, Some(ready)),
    };
    Row { unrecorded, missing: copy.is_none() && held, ..row }
}
