//! Trials that fail once and pass when they run alone.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result};
use camino::{Utf8Path, Utf8PathBuf};
use xtask::lab::{self, Lab, Node};
use xtask::ui;

use crate::in_ci;

/// Flaky trials that do not fail CI, each with the reason.
const KNOWN: &str = include_str!("flaky.toml");

/// Flaky trials of this run.
pub struct Flaky {
    /// Reason by name.
    known: BTreeMap<String, String>,
    seen: Mutex<Vec<String>>,
}

impl Flaky {
    pub fn load() -> Result<Self> {
        let known = toml::from_str(KNOWN).context("flaky.toml is a table of names and reasons")?;
        Ok(Self { known, seen: Mutex::default() })
    }

    /// Notes a trial that failed with `error` and then passed. In CI this is an error unless the trial is known.
    pub fn add(&self, name: &str, kept: &Utf8Path, error: &str) -> Result<(), String> {
        let known = self.known.get(name);
        let reason = known.map_or_else(String::new, |reason| format!(" (known: {reason})"));
        let line =
            format!("flaky: {name} failed once and passed by itself{reason}; what it left: {kept}\n{error}");
        if in_ci() && known.is_none() {
            return Err(line);
        }
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        Ok(())
    }

    /// Prints them.
    pub fn tell(&self) {
        for line in self.seen.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            ui::note(line);
        }
    }
}

/// Keeps the error of a failed trial, the journals of its lab and the logs of its deploys. Returns their directory.
pub fn keep(lab: &Lab, name: &str, run: &str, error: &str) -> Result<Utf8PathBuf, String> {
    let dir = || -> Result<Utf8PathBuf> {
        let dir = lab::target()?.join("lab-failures").join(name.replace("::", "-"));
        fs_err::create_dir_all(dir.join(run))?;
        fs_err::write(dir.join(run).join("error"), error)?;
        Ok(dir)
    };
    let dir = dir().map_err(|error| format!("what is left of the trial cannot be kept: {error:#}"))?;
    let logs = "tail -n 400 /var/lib/ua-deploy/releases/*/log 2>/dev/null";
    for (node, script, file) in [
        (Node::Vps, "journalctl --no-pager --lines=3000", "vps.journal"),
        (Node::Laptop, "journalctl --no-pager --lines=3000", "laptop.journal"),
        (Node::Vps, logs, "deploy.logs"),
    ] {
        // A machine that is off has nothing to tell.
        let text = lab.node(node).sh(script).map_or_else(|error| format!("{error:#}"), |done| done.stdout);
        fs_err::write(dir.join(run).join(file), text).map_err(|error| error.to_string())?;
    }
    Ok(dir)
}
