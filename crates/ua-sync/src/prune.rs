//! Deleting on the VPS what the mirror holds, proved. In doubt nothing is deleted.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use ua_common::error::{Fact, Failure};
use ua_common::exit::Exit;
use ua_common::output::{Printer, printable};
use ua_common::report::{Check, Report};
use ua_common::transport::{Script, Transport};

use crate::config::Config;
use crate::id;
use crate::listing::{RECORDS, Wanted};
use crate::manifest::Manifest;
use crate::marker;
use crate::mirror::{Binding, MARKER, Mirror, is_database, local};
use crate::plan::{Row, State};
use crate::run::{self, LISTING, Options, View};
use crate::transfer::Source;
use crate::tree::Thing;

const PRUNE: Script = Script { name: "prune", text: include_str!("../remote/prune.sh") };

/// How many workspaces a run deletes at most, unless it is told another number.
pub const MOST: usize = 20;
/// How many are deleted by one exec.
const AT_ONCE: usize = 200;
/// Longest that one exec may take.
const LIMIT: Duration = Duration::from_mins(10);

/// What may be deleted on the VPS.
#[derive(Clone, Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "independent flags of the command line")]
pub struct Delete {
    /// What this run copied.
    pub after_sync: bool,
    /// What was recorded, and somebody has removed from the mirror since.
    pub local_missing: bool,
    /// What the mirror holds.
    pub held: bool,
    /// Was deletion allowed in so many words?
    pub allowed: bool,
    /// At most so many.
    pub most: Option<usize>,
}

impl Delete {
    /// Is anything to be deleted at all?
    pub fn any(&self) -> bool {
        self.after_sync || self.local_missing || self.held
    }

    /// Deletion is never a default.
    pub fn permitted(&self) -> Result<(), PruneError> {
        if self.any() && !self.allowed { Err(PruneError::Unasked) } else { Ok(()) }
    }
}

/// Why nothing was deleted.
#[derive(Debug, thiserror::Error)]
pub enum PruneError {
    /// Nobody allowed it.
    #[error("nothing is deleted on the VPS without --allow-remote-delete")]
    Unasked,
    /// The mirror has no marker: it may be another one, or not mounted.
    #[error("the mirror `{}` has no marker `{MARKER}`, so nothing proves that it is the mirror", .0.display())]
    Unmarked(std::path::PathBuf),
    /// It is the mirror of something else.
    #[error("the mirror `{}` is bound to {found}, not to {wanted}", .root.display())]
    Other {
        /// The mirror.
        root: std::path::PathBuf,
        /// What its marker says.
        found: String,
        /// What the settings say.
        wanted: String,
    },
    /// More than the limit.
    #[error("{found} workspaces would be deleted, and the limit is {most}; none was")]
    TooMany {
        /// How many.
        found: usize,
        /// The limit.
        most: usize,
    },
    /// The script failed.
    #[error("the deletion ended with code {code}: {said}")]
    Script {
        /// Its code.
        code: i32,
        /// What it said.
        said: String,
    },
}

impl Fact for PruneError {
    fn exit(&self) -> Exit {
        match self {
            Self::Script { code: 30, .. } => Exit::Busy,
            Self::Script { .. } => Exit::Failed,
            _ => Exit::Refused,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Unasked => Some("ua-sync prune --dry-run  # see what it would delete".to_owned()),
            Self::Unmarked(_) => {
                Some("is it mounted? then, for a mirror of the old script: ua-sync adopt".to_owned())
            }
            Self::Other { .. } => {
                Some("ua-sync adopt  # if it is to be the mirror of this VPS from now on".to_owned())
            }
            Self::TooMany { found, .. } => Some(format!("ua-sync prune --dry-run --max-delete {found}")),
            Self::Script { .. } => None,
        }
    }
}

/// Takes out of a run what was recorded and is not in the mirror any more; gives these ids.
pub fn missing(rows: &mut Vec<Row>) -> Vec<String> {
    let ids = rows.iter().filter(|row| row.missing).map(|row| row.id.clone()).collect();
    rows.retain(|row| !row.missing);
    ids
}

/// A workspace that stays on the VPS.
struct Kept {
    id: String,
    why: String,
    hint: Option<String>,
}

impl Kept {
    /// The mirror lacks something of it.
    fn differs(id: &str, path: &str) -> Self {
        let database = if is_database(Path::new(path)) { " --include-runtime-db" } else { "" };
        Self {
            id: id.to_owned(),
            why: format!("the VPS has something of it that the mirror has not: `{path}`"),
            hint: Some(format!("ua-sync pull --no-skip-synced{database} {}", printable(id))),
        }
    }
}

/// What deletion works with.
pub struct Prune<'a> {
    /// The places.
    pub config: &'a Config,
    /// What was asked.
    pub options: &'a Options,
    /// The connection.
    pub transport: &'a Transport,
    /// The mirror.
    pub mirror: &'a Mirror,
    /// What it holds.
    pub manifest: &'a Manifest,
    /// Where to print.
    pub out: &'a Printer,
}

impl Prune<'_> {
    /// Deletes what of these workspaces may go; says of every other one why not. Without a list, which is not the same
    /// as an empty one, all that are of the wanted kind are looked at.
    pub fn delete(&self, ids: Option<&[String]>, report: &mut Report) -> Result<(), Failure> {
        let delete = &self.options.delete;
        if !self.options.dry_run {
            delete.permitted()?;
        }
        self.bound()?;
        let view = run::look(
            self.config,
            self.transport,
            self.mirror,
            self.manifest,
            self.options,
            LISTING,
            self.out,
        )?;
        run::known(&view.rows, ids.unwrap_or_default())?;
        let (mut rows, mut kept) = (Vec::new(), Vec::new());
        for row in &view.rows {
            let asked = match ids {
                Some(ids) => ids.contains(&row.id),
                // What is gone there is nothing to speak of, unless it was named.
                None => (delete.held && row.listed.is_some()) || (delete.local_missing && row.missing),
            };
            match self.may_go(row, &view) {
                _ if !asked => {}
                Ok(()) => rows.push(row),
                Err(why) => kept.push(Kept { id: row.id.clone(), why, hint: None }),
            }
        }
        let held: Vec<&str> = rows.iter().filter(|row| !row.missing).map(|row| row.id.as_str()).collect();
        if !held.is_empty() {
            let _waiting = self.out.waiting("comparing the copies with the VPS, byte by byte");
            let differing = self.source(&view).differing(&held, &self.mirror.root, true)?;
            rows.retain(|row| {
                let differs = differing.get(&row.id);
                kept.extend(differs.map(|path| Kept::differs(&row.id, path)));
                differs.is_none()
            });
        }
        let most = delete.most.unwrap_or(MOST);
        if rows.len() > most && self.options.dry_run {
            let detail = format!(
                "more than the limit of {most}: a run that deletes needs --max-delete {}",
                rows.len()
            );
            report.push(Check::warn("prune.limit", detail));
        } else if rows.len() > most {
            return Err(PruneError::TooMany { found: rows.len(), most }.into());
        }
        let mut deleted: Vec<String> = Vec::new();
        if self.options.dry_run {
            for row in &rows {
                let why = if row.missing {
                    "it was removed from the mirror, so this is perhaps the last copy"
                } else {
                    "the mirror holds it, proved"
                };
                if !self.out.is_json() {
                    self.out.would(&format!("delete {}: {why}", row.id));
                }
            }
        } else {
            for part in rows.chunks(AT_ONCE) {
                self.remove(part, &view, &mut deleted, &mut kept)?;
            }
        }
        for id in &deleted {
            report.push(Check::pass("prune.deleted", format!("{id} is gone from the VPS")));
        }
        for Kept { id, why, hint } in &kept {
            let detail = format!("{}: {why}", printable(id));
            // Who names one wants it gone.
            let named = ids.is_some_and(|ids| ids.contains(id)) && delete.held;
            let check = if named {
                Check::fail("prune.kept", Exit::Refused, detail)
            } else {
                Check::skip("prune.kept", detail)
            };
            report.push(match hint {
                Some(hint) => check.hint(hint),
                None => check,
            });
        }
        let summary = if self.options.dry_run {
            format!("{} would be deleted, {} kept; nothing was changed", rows.len(), kept.len())
        } else {
            format!("deleted {}, kept {}", deleted.len(), kept.len())
        };
        report.push(Check::pass("prune", summary));
        let would: Vec<&str> = rows.iter().map(|row| row.id.as_str()).collect();
        let kept: serde_json::Map<String, serde_json::Value> =
            kept.into_iter().map(|kept| (kept.id, kept.why.into())).collect();
        report.data.insert("prune".to_owned(), json!({"chosen": would, "deleted": deleted, "kept": kept}));
        Ok(())
    }

    fn source(&self, view: &View) -> Source<'_> {
        Source {
            transport: self.transport,
            root: &self.config.settings.sync_remote_dir.value.0,
            idle: self.config.settings.transfer_idle_timeout.0,
            banner: view.listing.banner,
        }
    }

    /// Is the mirror the one that belongs to this VPS, this directory and this manifest?
    fn bound(&self) -> Result<(), Failure> {
        let root = &self.mirror.root;
        let Some(found) = self.mirror.binding()? else {
            return Err(PruneError::Unmarked(root.clone()).into());
        };
        let host = &self.transport.opening().target.name;
        let wanted = Binding::new(host, &self.config.settings.sync_remote_dir.value.0, &self.config.manifest);
        if found == wanted {
            return Ok(());
        }
        let words = |binding: &Binding| {
            format!("`{}:{}` by `{}`", binding.host, binding.remote_dir, binding.manifest.display())
        };
        Err(PruneError::Other { root: root.clone(), found: words(&found), wanted: words(&wanted) }.into())
    }

    /// Why a workspace must stay, as far as that is seen without comparing contents.
    fn may_go(&self, row: &Row, view: &View) -> Result<(), String> {
        let (Some(listed), Some(ready)) = (&row.listed, &row.ready) else {
            return Err(format!("{}: {}", row.state.word(), row.why));
        };
        let delete = &self.options.delete;
        let gone = row.missing && delete.local_missing;
        if !gone && !delete.held && !delete.after_sync {
            return Err("it was not removed from the mirror".to_owned());
        }
        if row.state != State::Synced && !gone {
            return Err(format!("{}, not synced: {}", row.state.word(), row.why));
        }
        let settings = &self.config.settings;
        let age = view.listing.now - ready.epoch.unwrap_or(0.0).max(listed.active);
        if age < settings.sync_prune_min_age.as_secs_f64() {
            return Err(format!("it was written {age:.0} s ago"));
        }
        // A time that lies ahead says nothing about its age.
        if marker::seconds(&listed.newest).is_none_or(|newest| newest > view.listing.now) {
            return Err("its newest time lies ahead of now".to_owned());
        }
        if gone {
            // Without its directory nothing says that it was this workspace that somebody removed.
            return match id::container(&row.id).filter(|it| !view.local.containers.contains(*it)) {
                Some(container) => Err(format!("its directory `{container}` is missing in the mirror, too")),
                None => Ok(()),
            };
        }
        let index = self.mirror.index(&row.id).ok_or("nobody wrote down what was copied of it")?.1;
        let links = index.0.values().filter(|thing| matches!(thing, Thing::Link(_))).count();
        if u64::try_from(links).ok() != Some(listed.others) {
            return Err("it has links or special files that are not mirrored".to_owned());
        }
        Ok(())
    }

    fn remove(
        &self,
        rows: &[&Row],
        view: &View,
        deleted: &mut Vec<String>,
        kept: &mut Vec<Kept>,
    ) -> Result<(), Failure> {
        let wanted = Wanted::of(&self.config.settings, self.options.database);
        let database = if wanted.database { "yes" } else { "no" };
        let nested = wanted.nested.regex();
        let mut args = vec![wanted.root, wanted.marker, database, &view.listing.clock, &nested, RECORDS];
        for row in rows {
            let record = row.listed.as_ref().map_or("", |listed| listed.record.as_str());
            args.extend([row.id.as_str(), record]);
        }
        let _waiting = self.out.waiting("deleting on the VPS");
        let answer = self.transport.script(PRUNE, &args, LIMIT)?;
        for line in answer.stdout.lines() {
            match line.split_once(' ') {
                Some(("deleted", id)) => {
                    self.mirror
                        .only_here(id)
                        .map_err(local("cannot write down that a copy is the only one"))?;
                    deleted.push(id.to_owned());
                }
                Some((word, id)) => {
                    kept.push(Kept { id: id.to_owned(), why: format!("on the VPS: {word}"), hint: None });
                }
                None => {}
            }
        }
        if answer.code != 0 {
            return Err(PruneError::Script { code: answer.code, said: answer.stderr }.into());
        }
        Ok(())
    }
}

/// Proves an old mirror: at least one of its copies is, byte by byte, what the VPS has.
pub fn adopt(
    config: &Config,
    options: &Options,
    transport: &Transport,
    mirror: &Mirror,
    manifest: &Manifest,
    out: &Printer,
    report: &mut Report,
) -> Result<(), Failure> {
    let root: &Path = &mirror.root;
    let view = run::look(config, transport, mirror, manifest, options, LISTING, out)?;
    let held: Vec<&str> =
        view.rows.iter().filter(|row| row.state.is_held()).map(|row| row.id.as_str()).collect();
    let source = Source {
        transport,
        root: &config.settings.sync_remote_dir.value.0,
        idle: config.settings.transfer_idle_timeout.0,
        banner: view.listing.banner,
    };
    let differing = if held.is_empty() { BTreeMap::new() } else { source.differing(&held, root, false)? };
    let proved = held.len() - differing.len();
    if proved == 0 {
        let of = match held.len() {
            0 => "the VPS has none of the workspaces that are recorded".to_owned(),
            held => format!("none of the {held} recorded workspaces that are here is what the VPS has"),
        };
        let detail = format!("{of}: `{}` is not shown to be its mirror", root.display());
        report.push(Check::fail("mirror.adopt", Exit::Refused, detail).hint("ua-sync once"));
        return Ok(());
    }
    let host = &transport.opening().target.name;
    if !options.dry_run {
        mirror.bind(&Binding::new(host, &config.settings.sync_remote_dir.value.0, &config.manifest))?;
    }
    let is = if options.dry_run { "would be" } else { "is" };
    let detail =
        format!("`{}` {is} bound to `{host}`: {proved} of {} copies are proved", root.display(), held.len());
    report.push(Check::pass("mirror.adopt", detail));
    for (id, path) in &differing {
        let detail = format!("{id}: `{path}` is not what the VPS has");
        report.push(Check::warn("mirror.unproved", detail).hint(format!("ua-sync pull {id}")));
    }
    Ok(())
}
