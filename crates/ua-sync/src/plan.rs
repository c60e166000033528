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
    // A directory of workspaces that is listed itself is one that does not show what it holds.
    let is_hidden = |id: &str| id::container(id).is_some_and(|container| listing.get(container).is_some());
    for id in local.copies.keys().filter(|id| listing.get(id).is_none() && !is_hidden(id)) {
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
    if policy.nested.matches(id) {
        let why = "it is a directory of workspaces that cannot be read on the VPS".to_owned();
        return with(State::Unreadable, why, None);
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
    let container = id::container(id);
    if copy == Some(&Copy::NoDirectory) || container.is_some_and(|it| local.copies.contains_key(it)) {
        let what = if copy.is_some() { "that name" } else { "the name of its directory" };
        let why = format!("the mirror has a file or a link of {what}");
        return with(State::Conflict, why, Some(ready));
    }
    let held = manifest.holds(id, &ready.signature);
    let as_it_stands = ready::unmarked(listed).signature;
    let (state, why) = match copy {
        Some(_) if !known => (State::Pending, "the mirror has a directory of that name".to_owned()),
        // An index of an earlier run tells more than a line of the manifest.
        Some(Copy::Whole(signature)) if held && *signature == ready.signature => {
            return with(State::Synced, String::new(), Some(ready));
        }
        // Copied whatever its marker said, and nothing was written there since.
        Some(Copy::Whole(signature)) if *signature == as_it_stands && manifest.holds(id, signature) => {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ready::tests::{Log, Mark, NOW, listed, logs, marks, policy, time};

    /// Names of any kind, in no order.
    const NAMES: [&str; 14] = [
        "session_1",
        "vp_1_external/m",
        "vp_1_external/n n",
        "vp_2_external/a|b",
        "vp_2_external/file",
        "tg_2",
        "session_3",
        "cron_4",
        "größe_5",
        "it's $(x)",
        "a|b",
        "-x",
        "new\nline",
        "x\u{fffd}",
    ];

    /// What is known of one name at either end.
    #[derive(Clone, Debug)]
    struct One {
        name: &'static str,
        listed: Option<(Mark, Log, i64, Kind, u64)>,
        /// Lines of the manifest, by what they say of the run that is ready.
        lines: Vec<&'static str>,
        copy: Option<&'static str>,
        ours: bool,
        failed: bool,
    }

    fn one(name: &'static str) -> impl Strategy<Value = One> {
        let kinds =
            vec![Kind::Directory, Kind::Directory, Kind::Directory, Kind::File, Kind::Link, Kind::Other];
        let mark = prop_oneof![Just(Mark::Ended(900, "completed")), marks()];
        let age = prop::sample::select(vec![0, 44, 45, 900]);
        let unreadable = prop::sample::select(vec![0, 0, 0, 2]);
        let listed = prop::option::of((mark, logs(), age, prop::sample::select(kinds), unreadable));
        let lines =
            prop::collection::vec(prop::sample::select(vec!["", "this", "as it stands", "other"]), 0..3);
        let copies = vec![
            "whole",
            "whole",
            "whole as it stands",
            "whole of another",
            "unindexed",
            "damaged",
            "no directory",
        ];
        let copy = prop::option::of(prop::sample::select(copies));
        (listed, lines, copy, any::<bool>(), any::<bool>()).prop_map(
            move |(listed, mut lines, copy, ours, failed)| {
                // Others do not stand alone on a line.
                lines.retain(|line| !line.is_empty() || name.is_ascii() && !name.contains([' ', '/']));
                One { name, listed, lines, copy, ours, failed }
            },
        )
    }

    proptest! {
        #[test]
        fn every_name_has_its_row_and_every_row_its_reason(
            mut ones in Vec::from(NAMES.map(one)),
            force in any::<bool>(),
            container in prop::sample::select(vec!["directory", "directory", "link"]),
            hidden in prop::sample::select(vec![false, false, false, true]),
        ) {
            let policy = policy(&["session_", "tg_"]);
            let mut listing =
                Listing { now: NOW, clock: String::new(), artifacts: false, entries: Vec::new(), banner: false };
            let (mut here, mut failed, mut text) = (Local::default(), BTreeMap::new(), String::new());
            // What the first directory of workspaces is here, and whether the VPS lets us look into it.
            let in_first = |one: &One| id::container(one.name) == Some("vp_1_external");
            for one in ones.iter_mut().filter(|one| in_first(one)) {
                one.copy = one.copy.filter(|_| container == "directory");
                one.listed = one.listed.filter(|_| !hidden);
            }
            if container == "link" {
                here.copies.insert("vp_1_external".to_owned(), Copy::NoDirectory);
            }
            if hidden {
                listing.entries.push(Listed { unreadable: 1, ..listed("vp_1_external", Mark::None, Log::None, 900) });
            }
            // What each is ready as, by another way than the plan's.
            let mut signatures = BTreeMap::new();
            for one in &ones {
                let mut signature = "1_completed".to_owned();
                let mut plain = "plain_1.0000000000".to_owned();
                if let Some((mark, log, age, kind, unreadable)) = one.listed {
                    let mut entry = listed(one.name, mark, log, age);
                    (entry.kind, entry.unreadable) = (kind, unreadable);
                    plain = format!("plain_{}.0000000000", time(age));
                    match ready::judge(&entry, &policy, NOW) {
                        _ if force => signature = plain.clone(),
                        Readiness::Ready(ready) => signature = ready.signature,
                        _ => {}
                    }
                    if force || matches!(ready::judge(&entry, &policy, NOW), Readiness::Ready(_)) {
                        signatures.insert(one.name, signature.clone());
                    }
                    listing.entries.push(entry);
                }
                for line in &one.lines {
                    text += &match *line {
                        "" => format!("{}\n", one.name),
                        "this" => format!("{}|{signature}\n", one.name),
                        "as it stands" => format!("{}|{plain}\n", one.name),
                        _ => format!("{}|2_failed\n", one.name),
                    };
                }
                let copy = one.copy.map(|copy| match copy {
                    "whole" => Copy::Whole(signature.clone()),
                    "whole as it stands" => Copy::Whole(plain.clone()),
                    "whole of another" => Copy::Whole("2_failed".to_owned()),
                    "unindexed" => Copy::Unindexed,
                    "damaged" => Copy::Damaged("it is damaged".to_owned()),
                    _ => Copy::NoDirectory,
                });
                // Only names of workspaces are looked at in the mirror.
                if let (Some(copy), Name::Workspace) = (copy, id::judge(one.name)) {
                    here.copies.insert(one.name.to_owned(), copy);
                }
                if one.ours {
                    here.ours.insert(one.name.to_owned());
                }
                if one.failed {
                    failed.insert(one.name.to_owned(), "it failed".to_owned());
                }
            }
            listing.entries.sort_by(|a, b| a.id.cmp(&b.id));
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("manifest"), &text).unwrap();
            let manifest = Manifest::read(&dir.path().join("manifest")).unwrap();
            let rows = compare(&listing, &manifest, &here, &failed, &policy, Options { force });

            prop_assert!(rows.windows(2).all(|pair| pair[0].id < pair[1].id), "each once, in order");
            for one in &ones {
                let row = rows.iter().find(|row| row.id == one.name);
                let copy = here.copies.get(one.name);
                let supported = id::judge(one.name) == Name::Workspace;
                let known = supported && (!one.lines.is_empty() || one.ours);
                let Some((_, _, _, kind, unreadable)) = one.listed else {
                    // What the VPS does not have is told if it is the mirror's, and never wanted.
                    let state = row.map(|row| row.state);
                    let told = copy.is_some() && known && !(hidden && in_first(one));
                    prop_assert_eq!(state, told.then_some(State::MirrorOnly), "{:?}", one);
                    prop_assert!(row.is_none_or(|row| row.ready.is_none() && !row.missing && !row.unrecorded));
                    continue;
                };
                let row = row.unwrap();
                let ready = supported && kind == Kind::Directory && signatures.contains_key(one.name);
                let unmarked = ready && signatures[one.name].starts_with("plain_");
                let says = |word: &str| one.lines.contains(&word);
                let bare = !one.lines.is_empty() && one.lines.iter().all(|line| line.is_empty());
                let held = ready && (says("this") || unmarked && (bare || says("as it stands")));
                let stands = says("as it stands") || bare || unmarked && says("this");
                let whole = held && (one.copy == Some("whole") || unmarked && one.copy == Some("whole as it stands"))
                    || stands && one.copy == Some("whole as it stands");
                let mirrored = ready && unreadable == 0;
                let blocked = in_first(one) && container == "link";
                let usable = mirrored && copy != Some(&Copy::NoDirectory) && !blocked;
                prop_assert_eq!(row.ready.is_some(), ready, "{:?}", row);
                prop_assert_eq!(
                    row.state == State::Synced,
                    usable && whole,
                    "{:?} of {:?}", row, one
                );
                prop_assert_eq!(
                    row.state == State::Unproved,
                    usable && held && one.copy == Some("unindexed"),
                    "{:?} of {:?}", row, one
                );
                prop_assert_eq!(row.state.is_wanted(), usable && row.state != State::Synced, "{:?}", row);
                prop_assert_eq!(row.state == State::Conflict, mirrored && !usable, "{:?}", row);
                prop_assert_eq!(row.state == State::Unreadable, ready && unreadable > 0, "{:?}", row);
                prop_assert_eq!(row.unrecorded, usable && copy.is_some() && !known, "{:?} of {:?}", row, one);
                prop_assert_eq!(row.missing, usable && copy.is_none() && held, "{:?} of {:?}", row, one);
                prop_assert_eq!(
                    row.state == State::FailedCopy,
                    one.failed && row.state.is_wanted() && row.state != State::Unproved,
                    "{:?}", row
                );
                prop_assert_eq!(row.state == State::UnsupportedName, !supported, "{:?}", row);
                prop_assert_eq!(row.state == State::NotADirectory, supported && kind != Kind::Directory, "{:?}", row);
            }
            let names = ones.iter().filter(|one| one.listed.is_some()).count();
            let only = rows.iter().filter(|row| row.state == State::MirrorOnly).count();
            let unread = rows.iter().filter(|row| row.id == "vp_1_external" && row.state == State::Unreadable).count();
            prop_assert_eq!(unread, usize::from(hidden));
            prop_assert_eq!(rows.len(), names + only + unread, "no other rows");
        }
    }
}
