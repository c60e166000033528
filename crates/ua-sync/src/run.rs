//! One run of the mirror: look, compare, copy what is missing, prove it, write it down.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::resume_unwind;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::json;
use ua_common::error::Failure;
use ua_common::exit::Exit;
use ua_common::interrupt;
use ua_common::output::{Printer, bytes, printable};
use ua_common::report::{Check, Report};
use ua_common::run::RunError;
use ua_common::state;
use ua_common::transport::Transport;

use crate::artifacts;
use crate::config::Config;
use crate::id;
use crate::listing::{self, Listing, Wanted};
use crate::manifest::Manifest;
use crate::mirror::{Binding, Local, MARKER, Mirror, local};
use crate::plan::{self, Row, State};
use crate::progress::Progress;
use crate::prune::{self, Prune};
use crate::ready::{self, Policy, Readiness};
use crate::staging::{Keep, Staged, Staging};
use crate::threads::on_all;
use crate::transfer::{Look, Source};

/// Longest that one listing may take.
pub const LISTING: Duration = Duration::from_mins(10);
/// How often a workspace is copied again while it changes.
const ROUNDS: usize = 3;
/// Most that is copied before it is put in place, in bytes and in workspaces. What a broken line costs is bounded by it.
const BATCH: (u64, usize) = (1 << 30, 2000);

/// What is asked of a run beyond the settings.
#[derive(Clone, Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "independent flags of the command line")]
pub struct Options {
    /// Only these; nothing is all that are ready.
    pub ids: Option<Vec<String>>,
    /// Whatever their markers say.
    pub force: bool,
    /// Compare every byte of what is there already.
    pub recheck: bool,
    /// Copy databases, too.
    pub database: bool,
    /// Keep what vanished on the VPS.
    pub keep_deleted: bool,
    /// Print what would be done.
    pub dry_run: bool,
    /// What is deleted on the VPS afterwards.
    pub delete: prune::Delete,
}

/// What is at both ends, and how it compares.
pub struct View {
    /// The VPS.
    pub listing: Listing,
    /// The mirror.
    pub local: Local,
    /// Each workspace.
    pub rows: Vec<Row>,
}

/// What the last run left to be known.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Last {
    /// Workspaces that could not be copied, and why.
    pub failed: BTreeMap<String, String>,
}

impl Last {
    /// Reads it; what cannot be read is not known.
    pub fn read(config: &Config) -> Self {
        let text = std::fs::read_to_string(config.state.join("last.json")).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    fn write(&self, config: &Config) -> Result<(), Failure> {
        serde_json::to_string_pretty(self)
            .map_err(std::io::Error::from)
            .and_then(|text| state::write(&config.state.join("last.json"), text + "\n", 0o644))
            .map_err(local("cannot write down how the run went"))
    }
}

/// Looks at both ends at the same time.
pub fn look(
    config: &Config,
    transport: &Transport,
    mirror: &Mirror,
    manifest: &Manifest,
    options: &Options,
    limit: Duration,
    out: &Printer,
) -> Result<View, Failure> {
    let wanted = Wanted::of(&config.settings, options.database);
    let _waiting = out.waiting("listing the workspaces");
    let (listing, local) = std::thread::scope(|scope| {
        let here = scope.spawn(|| mirror.look());
        // ssh is run from this thread, which lives on.
        let listing = listing::list(transport, &wanted, &[], limit);
        let here = here.join().unwrap_or_else(|_| Err(Failure::new(Exit::Failed, "a thread panicked")));
        (listing, here)
    });
    let (listing, local) = (listing?, local?);
    let policy = Policy::of(&config.settings);
    let failed = Last::read(config).failed;
    let force = plan::Options { force: options.force };
    let mut rows = plan::compare(&listing, manifest, &local, &failed, &policy, force);
    for row in rows.iter_mut().filter(|row| row.unrecorded) {
        unrecorded(row, mirror, options.database);
    }
    Ok(View { listing, local, rows })
}

/// A directory here that nobody recorded: it may be the very same, or somebody's own.
fn unrecorded(row: &mut Row, mirror: &Mirror, database: bool) {
    let Some(listed) = &row.listed else { return };
    let why = match mirror.sum(&row.id, database) {
        Ok(here) if (here.files, here.bytes) == (listed.sum.files, listed.sum.bytes) => return,
        Ok(_) => CONFLICT.to_owned(),
        Err(error) => format!("{CONFLICT}, and which cannot be looked at: {error}"),
    };
    (row.state, row.why) = (State::Conflict, why);
}

const CONFLICT: &str = "the mirror has another directory of that name, which nobody recorded";

/// How a run goes on and how it ended.
pub struct Run<'a> {
    config: &'a Config,
    options: &'a Options,
    transport: &'a Transport,
    mirror: &'a Mirror,
    out: &'a Printer,
    /// Copied and recorded.
    pub copied: Vec<String>,
    /// Recorded without a copy: the mirror had it.
    pub proved: Vec<String>,
    /// Changed while they were copied, so that they are not ready any more.
    pub resumed: Vec<String>,
    /// Not copied, and why.
    pub failed: BTreeMap<String, String>,
    /// What of a workspace is not mirrored: links that lead out of it, devices, fifos, sockets.
    left_out: BTreeMap<String, usize>,
    /// Local changes that were put aside.
    aside: BTreeMap<String, usize>,
    /// Old copies that could not be removed.
    left: usize,
}

/// What of the rows a run is about.
pub fn select(rows: Vec<Row>, ids: Option<&[String]>) -> Result<Vec<Row>, Failure> {
    let Some(ids) = ids else { return Ok(rows) };
    known(&rows, ids)?;
    let ids: BTreeSet<&String> = ids.iter().collect();
    Ok(rows.into_iter().filter(|row| ids.contains(&row.id)).collect())
}

/// Refuses names that are no workspace's.
pub fn known(rows: &[Row], ids: &[String]) -> Result<(), Failure> {
    let all: BTreeSet<&str> = rows.iter().map(|row| row.id.as_str()).collect();
    for id in ids {
        if !all.contains(id.as_str()) {
            let near = id::nearest(id, rows.iter().map(|row| row.id.as_str()));
            let near: Vec<String> = near.iter().map(|id| format!("`{id}`")).collect();
            let near = if near.is_empty() {
                String::new()
            } else {
                format!("; the nearest are {}", near.join(", "))
            };
            let message = format!("there is no workspace `{}`{near}", printable(id));
            return Err(Failure::new(Exit::Failed, message).hint("ua-sync list"));
        }
    }
    Ok(())
}

/// Copies what is missing and says how it went. The caller holds the lock.
pub fn run(
    config: &Config,
    options: &Options,
    transport: &Transport,
    mirror: &Mirror,
    out: &Printer,
    report: &mut Report,
) -> Result<(), Failure> {
    let start = Instant::now();
    let mut manifest = Manifest::read(&config.manifest)
        .map_err(local(format!("cannot read the manifest `{}`", config.manifest.display())))?;
    let fresh = manifest.ids().next().is_none() && (!mirror.root.exists() || mirror.is_empty());
    let staging = if options.dry_run {
        None
    } else {
        let (staging, recovered) = Staging::open(mirror)?;
        let runs = recovered.iter().map(|(id, signature)| (id.as_str(), signature.as_str()));
        manifest.record(runs).map_err(local("cannot write the manifest"))?;
        Some(staging)
    };
    let view = look(config, transport, mirror, &manifest, options, LISTING, out)?;
    let View { listing, local: here, rows } = view;
    let mut rows = select(rows, options.ids.as_deref())?;
    if !manifest.foreign.is_empty() {
        let detail = format!(
            "{} lines of `{}` are not of the mirror and were kept, such as `{}`",
            manifest.foreign.len(),
            config.manifest.display(),
            printable(&manifest.foreign[0])
        );
        report.push(Check::warn("sync.manifest", detail));
    }
    if here.copies.is_empty() && manifest.ids().next().is_some() {
        let detail = format!(
            "the mirror `{}` is empty, though the manifest is not; is it mounted?",
            mirror.root.display()
        );
        report.push(Check::warn("sync.mirror", detail));
    }
    for row in rows.iter_mut().filter(|row| options.recheck && row.state == State::Synced) {
        row.state = State::Unproved;
    }
    let mut candidates = if options.delete.local_missing { prune::missing(&mut rows) } else { Vec::new() };
    let mut run = Run {
        config,
        options,
        transport,
        mirror,
        out,
        copied: Vec::new(),
        proved: Vec::new(),
        resumed: Vec::new(),
        failed: BTreeMap::new(),
        left_out: BTreeMap::new(),
        aside: BTreeMap::new(),
        left: 0,
    };
    let Some(staging) = staging else {
        run.tell_plan(&rows, &candidates, report);
        return Ok(());
    };
    let host = &transport.opening().target.name;
    let source = Binding::new(host, &config.settings.sync_remote_dir.value.0, &config.manifest);
    if fresh {
        mirror.bind(&source)?;
    }
    let other = match mirror.binding() {
        Ok(bound) => bound.is_some_and(|bound| bound != source),
        Err(_) => true,
    };
    if other {
        let detail = format!(
            "the marker of `{}` does not name `{host}:{}` and this manifest: is it the mirror of something else? what is replaced in it is put aside",
            mirror.root.display(),
            source.remote_dir
        );
        report
            .push(Check::warn("sync.mirror", detail).hint(format!("cat {}/{MARKER}", mirror.root.display())));
    }
    // A copy of a run that the VPS has no more must outlive another run of the same name.
    for row in rows.iter().filter(|row| row.state == State::MirrorOnly || (other && row.state.is_wanted())) {
        mirror.only_here(&row.id).map_err(local("cannot write down that a copy is the only one"))?;
    }
    let copied = run.copy_all(&staging, &listing, &mut rows, &mut manifest);
    let kept: Vec<&str> = run.failed.keys().map(String::as_str).collect();
    if copied.is_ok() {
        staging.clear(&kept).map_err(local("cannot clear the staging place"))?;
    }
    run.remember(&rows)?;
    run.tell(&rows, start, report);
    copied?;
    artifacts::step(config, transport, &listing, out, report)?;
    if options.delete.after_sync {
        candidates.extend(run.copied.iter().cloned());
    }
    if !options.delete.any() {
        return Ok(());
    }
    if !run.failed.is_empty() {
        report.push(Check::skip("prune", "nothing is deleted on the VPS while a copy fails"));
        return Ok(());
    }
    let prune = Prune { config, options, transport, mirror, manifest: &manifest, out };
    prune.delete(Some(&candidates), report)
}

impl Run<'_> {
    /// What would be done, a line each.
    fn tell_plan(&self, rows: &[Row], gone: &[String], report: &mut Report) {
        let mut lines = Vec::new();
        for row in rows.iter().filter(|row| row.state.is_wanted()) {
            let verb = if row.unrecorded || row.state == State::Unproved { "compare" } else { "copy" };
            let (files, bytes) = row.listed.as_ref().map_or((0, 0), |it| (it.sum.files, it.sum.bytes));
            let why = if row.why.is_empty() { String::new() } else { format!(": {}", row.why) };
            lines.push(format!("{verb} {}: {files} files, {bytes} bytes{why}", row.id));
        }
        lines.extend(
            gone.iter().map(|id| format!("delete {id} on the VPS: the mirror does not have it any more")),
        );
        if !self.out.is_json() {
            for line in &lines {
                self.out.would(line);
            }
        }
        report.data.insert("plan".to_owned(), json!(lines));
        report.push(Check::pass("sync.plan", format!("{} to do; nothing was changed", lines.len())));
        Self::troubles(rows, report);
    }

    fn copy_all(
        &mut self,
        staging: &Staging<'_>,
        listing: &Listing,
        rows: &mut [Row],
        manifest: &mut Manifest,
    ) -> Result<(), Failure> {
        let source = Source {
            transport: self.transport,
            root: &self.config.settings.sync_remote_dir.value.0,
            idle: self.config.settings.transfer_idle_timeout.0,
            banner: listing.banner,
        };
        self.settle(&source, rows)?;
        let ours = |id: &String| self.options.ids.as_ref().is_none_or(|ids| ids.contains(id));
        let stuck = staging.stuck.iter().filter(|(id, _)| ours(id));
        self.failed.extend(stuck.map(|(id, why)| (id.clone(), why.clone())));
        let wanted = rows.iter().filter(|row| row.state.is_wanted() && !staging.stuck.contains_key(&row.id));
        let mut wanted: Vec<&Row> = wanted.collect();
        self.room(staging, &mut wanted)?;
        if wanted.is_empty() {
            return Ok(());
        }
        let bytes = |row: &Row| row.listed.as_ref().map_or(0, |listed| listed.sum.bytes);
        let all = total(wanted.iter().map(|row| bytes(row)));
        let nested = &self.config.settings.sync_nested.value;
        let progress = Progress::new(self.out, wanted.len(), all, nested);
        for batch in batches(&wanted) {
            self.copy_batch(&source, staging, batch, manifest, &progress)?;
        }
        Ok(())
    }

    /// Directories here that nobody recorded count as copied if they are the very same, byte by byte.
    fn settle(&self, source: &Source<'_>, rows: &mut [Row]) -> Result<(), Failure> {
        let open = |row: &Row| row.unrecorded && row.state.is_wanted();
        let ids: Vec<&str> = rows.iter().filter(|row| open(row)).map(|row| row.id.as_str()).collect();
        if ids.is_empty() {
            return Ok(());
        }
        let differing = source.differing(&ids, &self.mirror.root, self.options.database)?;
        for row in rows.iter_mut().filter(|row| open(row)) {
            if differing.contains_key(&row.id) {
                row.state = State::Conflict;
                CONFLICT.clone_into(&mut row.why);
            }
        }
        Ok(())
    }

    /// Takes out what there is no room for: it fails, and the rest comes. If nothing fits, nothing is copied.
    fn room(&mut self, staging: &Staging<'_>, wanted: &mut Vec<&Row>) -> Result<(), Failure> {
        let mut room = staging.room().map_err(local("cannot see how much room there is"))?;
        let mut left = BTreeMap::new();
        wanted.retain(|row| {
            // Of what is here already only the difference comes, which nobody knows yet.
            let here = self.mirror.root.join(&row.id).exists();
            let needed = row.listed.as_ref().filter(|_| !here).map_or(0, |listed| listed.sum.bytes);
            let fits = needed <= room;
            if fits {
                room -= needed;
            } else {
                let why = format!("no room: it has {}, and {} are left", bytes(needed), bytes(room));
                left.insert(row.id.clone(), why);
            }
            fits
        });
        if !left.is_empty() && wanted.is_empty() {
            let mirror = self.mirror.root.display();
            let message = format!(
                "no room for the copies in `{mirror}`, where {} are left; nothing was copied",
                bytes(room)
            );
            return Err(Failure::new(Exit::Transfer, message).hint(format!("df -h {mirror}")));
        }
        self.failed.extend(left);
        Ok(())
    }

    /// Copies some workspaces, each with its signature, compares what came with what the VPS has then, and puts those in
    /// place that are equal.
    fn copy_batch<'r>(
        &mut self,
        source: &Source<'_>,
        staging: &Staging<'_>,
        batch: Vec<(&'r str, String)>,
        manifest: &mut Manifest,
        progress: &Progress<'_>,
    ) -> Result<(), Failure> {
        let look = if self.options.recheck { Look::Content } else { Look::Quick };
        let wanted = Wanted::of(&self.config.settings, self.options.database);
        let mut open = batch;
        let mut proved: Vec<(&str, String)> = Vec::new();
        for round in 1..=ROUNDS {
            if open.is_empty() {
                break;
            }
            let ids: Vec<&str> = open.iter().map(|(id, _)| *id).collect();
            // What it takes to get there is over before the copy is.
            let then = listing::ahead(self.transport, &wanted, &ids, LISTING)?;
            let complaint =
                source.copy(&ids, staging, self.options.database, look, &mut |line| progress.line(line))?;
            let database = self.options.database;
            let (listing, staged) = std::thread::scope(|scope| {
                let here = scope.spawn(|| on_all(&open, |(id, run)| staging.prepare(id, run, database)));
                let listing = then.list();
                (listing, here.join().unwrap_or_else(|panic| resume_unwind(panic)))
            });
            let listing = listing?;
            let mut again: Vec<(&'r str, String, String)> = Vec::new();
            let mut equal: Vec<(&'r str, String)> = Vec::new();
            for ((id, signature), staged) in open.into_iter().zip(staged) {
                match self.judge(staging, &listing, id, &signature, staged) {
                    Judged::Equal => equal.push((id, signature)),
                    Judged::Open(why) => self.not_ready(id, &why),
                    Judged::Differs { now, why } => again.push((id, now, why)),
                }
            }
            // A complaint that no difference explains may be about anything.
            if let Some(said) = complaint.as_ref().filter(|_| again.is_empty()) {
                again = equal.drain(..).map(|(id, signature)| (id, signature, said.clone())).collect();
            }
            proved.append(&mut equal);
            if round == ROUNDS {
                for (id, _, why) in again {
                    let said = complaint.as_ref().map_or(String::new(), |said| format!(" ({said})"));
                    self.failed.insert(id.to_owned(), format!("{why}{said}"));
                }
                break;
            }
            open = again.into_iter().map(|(id, signature, _)| (id, signature)).collect();
        }
        self.put(staging, &proved, manifest)
    }

    /// Is what was staged as the run of this signature what the VPS has?
    fn judge(
        &mut self,
        staging: &Staging<'_>,
        listing: &Listing,
        id: &str,
        signature: &str,
        staged: std::io::Result<Option<Staged>>,
    ) -> Judged {
        let Some(listed) = listing.get(id) else {
            return Judged::Open("it vanished on the VPS".to_owned());
        };
        let readiness = if self.options.force {
            Readiness::Ready(ready::unmarked(listed))
        } else {
            ready::judge(listed, &Policy::of(&self.config.settings), listing.now)
        };
        let now = match readiness {
            Readiness::Ready(ready) => ready.signature,
            Readiness::Running(why) | Readiness::TooYoung(why) | Readiness::BadMarker(why) => {
                return Judged::Open(why);
            }
        };
        let why = match staged {
            Ok(Some(_)) if now != signature => "its marker changed while it was copied".to_owned(),
            Ok(Some(staged)) if staged.sum == listed.sum && listed.unreadable == 0 => {
                match staging.announce(id) {
                    Ok(()) => {
                        let others = usize::try_from(listed.others).unwrap_or(usize::MAX);
                        let left_out = others.saturating_sub(staged.links);
                        if left_out > 0 {
                            self.left_out.insert(id.to_owned(), left_out);
                        }
                        return Judged::Equal;
                    }
                    Err(error) => format!("it cannot be written down: {error}"),
                }
            }
            Ok(Some(staged)) => {
                let (came, there) = (staged.sum, listed.sum);
                format!(
                    "the copy is not what the VPS has, which may still change: {} of {} files, {} of {} bytes",
                    came.files, there.files, came.bytes, there.bytes
                )
            }
            Ok(None) => "nothing of it came".to_owned(),
            Err(error) => format!("its copy cannot be looked at: {error}"),
        };
        Judged::Differs { now, why }
    }

    fn not_ready(&mut self, id: &str, why: &str) {
        self.out.detail(&format!("{id} was not ready any more when it was copied: {why}"));
        self.resumed.push(id.to_owned());
    }

    fn put(
        &mut self,
        staging: &Staging<'_>,
        proved: &[(&str, String)],
        manifest: &mut Manifest,
    ) -> Result<(), Failure> {
        if interrupt::requested() {
            return Err(RunError::Interrupted { program: "ua-sync".to_owned() }.into());
        }
        if proved.is_empty() {
            return Ok(());
        }
        // Before anything is in place, so that no cut leaves workspaces without theirs.
        artifacts::owe(self.config).map_err(local("cannot write down that the artifacts are owed"))?;
        // What is announced must outlive a loss of power once something is moved.
        staging.sync().map_err(local("cannot have the copies written to disk"))?;
        let keep = Keep { database: self.options.database, deleted: self.options.keep_deleted };
        let mut done: Vec<(&str, &str)> = Vec::new();
        for ((id, signature), put) in proved.iter().zip(on_all(proved, |(id, _)| staging.put(id, keep))) {
            match put {
                Ok(put) => {
                    if put.aside > 0 {
                        self.aside.insert((*id).to_owned(), put.aside);
                    }
                    self.left += usize::from(put.left);
                    done.push((id, signature));
                    let list = if put.copied { &mut self.copied } else { &mut self.proved };
                    list.push((*id).to_owned());
                }
                Err(error) => {
                    self.failed.insert((*id).to_owned(), format!("it cannot be put in place: {error}"));
                }
            }
        }
        // What is recorded must outlive a loss of power.
        staging.sync().map_err(local("cannot have the copies written to disk"))?;
        manifest.record(done).map_err(local("cannot write the manifest"))
    }

    /// For the next run and for `list`: what failed and still fails.
    fn remember(&self, rows: &[Row]) -> Result<(), Failure> {
        let mut last = Last::read(self.config);
        let whole = self.options.ids.is_none();
        last.failed.retain(|id, _| !whole && !rows.iter().any(|row| row.id == *id));
        last.failed.extend(self.failed.clone());
        last.write(self.config)
    }

    fn count(rows: &[Row], states: &[State]) -> usize {
        rows.iter().filter(|row| states.contains(&row.state)).count()
    }

    /// Says how it went.
    fn tell(&self, rows: &[Row], start: Instant, report: &mut Report) {
        let chosen = self.options.ids.is_some();
        let unchanged = Self::count(rows, &[State::Synced]) + self.proved.len();
        let mut failed = self.failed.clone();
        for row in rows.iter().filter(|row| {
            matches!(row.state, State::Conflict | State::Unreadable)
                || (chosen && !row.state.is_held() && !row.state.is_wanted())
        }) {
            failed.insert(row.id.clone(), format!("{}: {}", row.state.word(), row.why));
        }
        for id in self.resumed.iter().filter(|_| chosen) {
            failed.insert(id.clone(), "running: it was resumed while it was copied".to_owned());
        }
        // Who names a workspace wants it, so that one which runs has failed.
        let running = Self::count(rows, &[State::Running, State::TooYoung]) + self.resumed.len();
        let running = if chosen { 0 } else { running };
        let summary = format!(
            "copied {}, unchanged {unchanged}, running {running}, failed {}",
            self.copied.len(),
            failed.len()
        );
        let check = if failed.is_empty() {
            Check::pass("sync.workspaces", summary)
        } else {
            Check::fail("sync.workspaces", Exit::Partial, summary).hint("ua-sync list --failed")
        };
        report.push(check.since(start));
        for (id, why) in &failed {
            let check = Check::fail("sync.failed", Exit::Partial, format!("{}: {why}", printable(id)));
            let state = rows.iter().find(|row| row.id == *id).map(|row| row.state);
            // One example is enough where nobody asked for any.
            let hinted = !chosen && report.checks.iter().any(|check| check.id == "sync.failed");
            report.push(match state.filter(|_| !hinted).and_then(|state| self.way_out(id, state)) {
                Some(hint) => check.hint(hint),
                None => check,
            });
        }
        for (id, left) in &self.left_out {
            let detail = format!(
                "{}: {} not mirrored: links that lead out of it, devices, fifos or sockets",
                printable(id),
                counted(*left, "thing in it is", "things in it are")
            );
            report.push(Check::warn("sync.left_out", detail));
        }
        for (id, aside) in &self.aside {
            let detail = format!(
                "{}: {} now in `{}`",
                printable(id),
                counted(*aside, "file that was changed here is", "files that were changed here are"),
                self.mirror.replaced().join(id).display()
            );
            report.push(Check::warn("sync.replaced", detail));
        }
        if self.left > 0 {
            let detail = format!(
                "{} old copies could not be removed and were put away: they are somebody else's",
                self.left
            );
            report.push(Check::warn("sync.left", detail));
        }
        let unclear = |row: &&Row| {
            matches!(row.state, State::UnsupportedName | State::BadMarker) && !failed.contains_key(&row.id)
        };
        for row in rows.iter().filter(unclear) {
            let detail = format!("`{}` is not mirrored: {}", printable(&row.id), row.why);
            report.push(Check::warn("sync.trouble", detail));
        }
        if !failed.is_empty() {
            let mirrored = unchanged + self.copied.len();
            let names: Vec<&str> = failed.keys().map(String::as_str).collect();
            let words =
                format!("{mirrored} of {} mirrored; failed: {}", mirrored + failed.len(), names.join(", "));
            report.data.insert("summary".to_owned(), words.into());
        }
        let others = Self::count(rows, &[State::MirrorOnly]);
        report.data.insert(
            "workspaces".to_owned(),
            json!({
                "copied": self.copied,
                "unchanged": unchanged,
                "running": running,
                "mirror_only": others,
                "failed": failed,
            }),
        );
    }

    /// What a person has to look at, though nothing was tried.
    fn troubles(rows: &[Row], report: &mut Report) {
        for row in rows.iter().filter(|row| row.state.is_trouble() || row.state == State::UnsupportedName) {
            let detail = format!("{}: {}: {}", printable(&row.id), row.state.word(), row.why);
            report.push(Check::warn("sync.trouble", detail));
        }
    }

    /// What gets a named workspace here that a run leaves alone.
    fn way_out(&self, id: &str, state: State) -> Option<String> {
        let (id, here) = (printable(id), self.mirror.root.join(id));
        match state {
            State::Running | State::TooYoung | State::BadMarker => {
                Some(format!("ua-sync pull --ignore-ready-marker {id}"))
            }
            State::Conflict => Some(format!("mv {0} {0}.mine && ua-sync pull {id}", here.display())),
            State::MirrorOnly => Some(format!("ls {}", here.display())),
            _ => None,
        }
    }
}

/// So many of something.
pub(crate) fn counted(count: usize, one: &str, more: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { more })
}

/// What comparing a staged copy with the VPS says.
enum Judged {
    /// It is the same.
    Equal,
    /// It is not ready any more.
    Open(String),
    /// It is not the same, and why; now it is the run of this signature.
    Differs { now: String, why: String },
}

/// Sparse files may be as large as a number can be.
fn total(bytes: impl IntoIterator<Item = u64>) -> u64 {
    bytes.into_iter().fold(0, u64::saturating_add)
}

/// Portions of bounded size, each workspace with its signature; one that is larger by itself is a portion of its own.
fn batches<'a>(rows: &[&'a Row]) -> Vec<Vec<(&'a str, String)>> {
    let mut batches: Vec<Vec<(&str, String)>> = Vec::new();
    let mut bytes = 0;
    for row in rows {
        let (Some(listed), Some(ready)) = (&row.listed, &row.ready) else { continue };
        let one = (row.id.as_str(), ready.signature.clone());
        let fits = total([bytes, listed.sum.bytes]) <= BATCH.0;
        match batches.last_mut() {
            Some(batch) if fits && batch.len() < BATCH.1 => batch.push(one),
            _ => {
                bytes = 0;
                batches.push(vec![one]);
            }
        }
        bytes = total([bytes, listed.sum.bytes]);
    }
    batches
}
