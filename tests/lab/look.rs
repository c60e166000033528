//! Which release a VPS has in place, and which one its processes run: the files against the commit's, and the note that
//! each process logged at its start against the commit's note.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use camino::Utf8Path;
use serde::Deserialize;
use serde_json::json;
use xtask::app::{self, Notes};
use xtask::lab::Lab;

/// Script that inspects the VPS, run on the VPS.
const SCRIPT: &str = include_str!("look.py");
/// The one service that is no Python.
const WEB: &str = "webui";

/// The state of a VPS, compared with some commits.
#[derive(Debug)]
pub(crate) struct Look {
    seen: Seen,
    commits: Vec<(String, Notes)>,
}

/// Output of [`SCRIPT`].
#[derive(Debug, Deserialize)]
struct Seen {
    /// Note of each service's process.
    notes: BTreeMap<String, String>,
    /// For each commit the paths that differ from it.
    unlike: BTreeMap<String, Vec<String>>,
    strays: Vec<String>,
    down: Vec<String>,
    watchdog: String,
}

impl Look {
    /// Inspects the VPS once; `repo` has the commits.
    pub(crate) fn take(lab: &Lab, repo: &Utf8Path, commits: &[&str]) -> Result<Self> {
        let mut trees = serde_json::Map::new();
        let mut known = Vec::new();
        for commit in commits {
            let tree =
                Command::new("git").args(["-C", repo.as_str(), "ls-tree", "-r", "-z", commit]).output()?;
            ensure!(tree.status.success(), "`{repo}` has no commit {commit}");
            trees.insert((*commit).to_owned(), String::from_utf8(tree.stdout)?.into());
            known.push(((*commit).to_owned(), app::notes(repo, commit)?));
        }
        let ask = lab.vps().command(&["python3", "-c", SCRIPT]).stdin(json!(trees).to_string());
        let text = ask.read()?;
        let seen = serde_json::from_str(&text).with_context(|| format!("unexpected output: {text}"))?;
        Ok(Self { seen, commits: known })
    }

    /// The commit that every process runs, if there is one.
    pub(crate) fn serving(&self) -> Option<String> {
        let running = || self.commits.iter().filter(|(_, notes)| self.wrong_notes(notes).is_empty());
        let in_place = running().find(|(commit, _)| self.seen.unlike[commit].is_empty());
        in_place.or_else(|| running().next()).map(|(commit, _)| commit.clone())
    }

    /// Notes of all processes, for a message.
    pub(crate) fn notes(&self) -> &BTreeMap<String, String> {
        &self.seen.notes
    }

    /// Every difference from a VPS on which this commit serves.
    pub(crate) fn differs_from(&self, commit: &str) -> Vec<String> {
        let mut wrong = self.seen.down.clone();
        match self.commits.iter().find(|(known, _)| known == commit) {
            Some((_, notes)) => wrong.extend(self.wrong_notes(notes)),
            None => wrong.push(format!("{commit} was not compared")),
        }
        match self.seen.unlike.get(commit) {
            Some(paths) if !paths.is_empty() => {
                wrong.push(format!("differs from {commit}: {}", paths.join(", ")));
            }
            _ => {}
        }
        wrong
    }

    /// Temporary files of a deploy.
    pub(crate) fn strays(&self) -> &[String] {
        &self.seen.strays
    }

    /// State of the watchdog's timer.
    pub(crate) fn watchdog(&self) -> &str {
        &self.seen.watchdog
    }

    fn wrong_notes(&self, notes: &Notes) -> Vec<String> {
        let right = |service: &str| if service == WEB { &notes.web } else { &notes.python };
        let wrong = self.seen.notes.iter().filter(|(service, note)| *note != right(service));
        wrong.map(|(service, note)| format!("{service} runs `{note}`, not `{}`", right(service))).collect()
    }
}
