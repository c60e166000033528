//! How a copy gets into the mirror: staged beside it, whole, and exchanged in one step. Whatever instant a run is cut
//! off at, a reader sees the old copy or the new one, nothing local is lost, and the next run goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, BufRead as _, BufReader};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::fs::{AtFlags, CWD, RenameFlags, Timespec, Timestamps};
use ua_common::error::Failure;
use ua_common::state::UNFINISHED;

use crate::id;
use crate::listing::Sum;
use crate::mirror::{Mirror, is_database, local};
use crate::tree::{self, Thing, Tree};

/// What is kept of an old copy beside what was never the VPS's.
#[derive(Clone, Copy, Debug)]
pub struct Keep {
    /// Databases are copied, so that old ones give way.
    pub database: bool,
    /// What vanished on the VPS stays.
    pub deleted: bool,
}

/// A workspace that was staged.
#[derive(Debug)]
pub struct Staged {
    /// How much will be in the mirror.
    pub sum: Sum,
    /// Links that will be in it: those that stay inside the workspace.
    pub links: usize,
}

/// The place where copies wait, on the mirror's file system.
pub struct Staging<'a> {
    mirror: &'a Mirror,
    dir: PathBuf,
    /// What an earlier run began and this one could not end, and why. It must be left alone.
    pub stuck: BTreeMap<String, String>,
}

/// How a copy came into the mirror.
#[derive(Clone, Copy, Debug)]
pub struct Put {
    /// Was anything moved? Else all of it was there.
    pub copied: bool,
    /// Files that were changed here, and are put aside now.
    pub aside: usize,
    /// Could the old copy not be removed? Then it is put away.
    pub left: bool,
}

/// A workspace that a run which was cut off had already put in place.
pub type Recovered = (String, String);

impl<'a> Staging<'a> {
    /// Finds or makes the place, and brings in order what an earlier run left. Only the holder of the lock may.
    pub fn open(mirror: &'a Mirror) -> Result<(Self, Vec<Recovered>), Failure> {
        mirror.make()?;
        for dir in [&mirror.root, mirror.state(), &mirror.indexes()] {
            sweep(dir).map_err(local("cannot remove what a run before left"))?;
        }
        let name = mirror.root.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let beside = mirror.root.with_file_name(format!(".{name}.incoming"));
        // Where the mirror is a mount point, only its inside is on its file system.
        let places = [mirror.incoming(), beside, mirror.root.join(".ua-incoming")];
        let mut why = None;
        for dir in places {
            match fits(&dir, &mirror.root) {
                Ok(()) => {
                    let mut staging = Self { mirror, dir, stuck: BTreeMap::new() };
                    remove(&mirror.drafts()).map_err(local("cannot remove what a run before left"))?;
                    for folder in [staging.stage(), staging.old(), staging.partial(), mirror.drafts()] {
                        fs_err::create_dir_all(folder).map_err(local("cannot make a folder"))?;
                    }
                    let recovered = staging.recover().map_err(local("cannot bring the mirror in order"))?;
                    // What was recovered may have been a directory of workspaces as one.
                    mirror.split_indexes().map_err(local("cannot divide what was written down"))?;
                    return Ok((staging, recovered));
                }
                Err(error) => why = Some(error),
            }
        }
        let why = why.unwrap_or_else(|| io::Error::other("no place"));
        Err(local(format!("cannot stage copies for the mirror `{}`", mirror.root.display()))(why))
    }

    /// The mirror that copies wait for.
    pub fn mirror(&self) -> &Mirror {
        self.mirror
    }

    /// Where rsync copies to.
    pub fn stage(&self) -> PathBuf {
        self.dir.join("stage")
    }

    /// Where rsync keeps files that it could not finish.
    pub fn partial(&self) -> PathBuf {
        self.dir.join("partial")
    }

    fn old(&self) -> PathBuf {
        self.dir.join("old")
    }

    /// Where the copy that was in the mirror waits to be removed.
    fn gone(&self, id: &str) -> PathBuf {
        self.old().join(id::file_name(id))
    }

    fn journal(&self, id: &str) -> PathBuf {
        self.mirror.journals().join(id::file_name(id))
    }

    fn draft(&self, id: &str) -> PathBuf {
        self.mirror.drafts().join(id::file_name(id))
    }

    /// What was put in place is what the index says from now on.
    fn settle(&self, id: &str) -> io::Result<()> {
        fs_err::rename(self.journal(id), self.mirror.indexes().join(id::file_name(id)))
    }

    /// Looks at what was staged of a workspace, takes out what must not come along, and writes down what that is, to be
    /// announced once it is proved to be the run of this signature. Nothing if there is nothing.
    pub fn prepare(&self, id: &str, signature: &str, database: bool) -> io::Result<Option<Staged>> {
        let dir = self.stage().join(id);
        if Thing::at(&dir)? != Some(Thing::Directory) {
            return Ok(None);
        }
        let mut tree = Tree::walk(&dir)?;
        let mut unwanted = tree.escaping();
        // What rsync is told to leave out it leaves in the stage, where an earlier run may have had other orders.
        let excluded = |path: &Path, thing: &Thing| {
            *thing == Thing::Other || (!database && *thing != Thing::Directory && is_database(path))
        };
        unwanted.extend(tree.0.iter().filter(|it| excluded(it.0, it.1)).map(|it| it.0.clone()));
        unwanted.sort_unstable();
        unwanted.dedup();
        for path in unwanted {
            let parent = dir.join(path.parent().unwrap_or(Path::new("")));
            let times = times(&parent)?;
            fs_err::remove_file(dir.join(&path))?;
            set_times(&parent, &times)?;
            tree.0.remove(&path);
        }
        let inode = fs_err::symlink_metadata(&dir)?.ino();
        fs_err::write(self.draft(id), tree.bytes(signature, inode))?;
        let links = tree.0.values().filter(|thing| matches!(thing, Thing::Link(_))).count();
        Ok(Some(Staged { sum: tree.sum(), links }))
    }

    /// What was prepared is proved, and about to be put in place: the run that comes after one that is cut off ends that.
    pub fn announce(&self, id: &str) -> io::Result<()> {
        fs_err::rename(self.draft(id), self.journal(id))
    }

    /// Puts an announced copy in place of what is there. Local additions stay; local changes to files of ours are put
    /// aside.
    pub fn put(&self, id: &str, keep: Keep) -> io::Result<Put> {
        let (from, to) = (self.stage().join(id), self.mirror.place(id)?);
        let announced = Tree::parse(&fs_err::read(self.journal(id))?);
        let (_, new) = announced.ok_or_else(|| io::Error::other("it was not announced"))?;
        let old = self.mirror.index(id).map(|(_, tree)| tree);
        let vanished = || old.as_ref().is_some_and(|old| old.0.keys().any(|path| !new.0.contains_key(path)));
        let mut put = Put { copied: true, aside: 0, left: false };
        match Thing::at(&to)? {
            None => rename(&from, &to, RenameFlags::NOREPLACE)?,
            // All of it is there already.
            Some(Thing::Directory)
                if !vanished() && new.damage(&to)?.is_none() && equal(&from, &to, &new)? =>
            {
                remove(&from)?;
                put.copied = false;
            }
            Some(Thing::Directory) => {
                carry(&to, &from, old.as_ref(), &new, keep)?;
                let gone = self.gone(id);
                remove(&gone)?;
                exchange(&from, &to, &gone)?;
                (put.aside, put.left) = self.retire(id, old.as_ref(), &new, keep)?;
            }
            Some(_) => return Err(io::ErrorKind::NotADirectory.into()),
        }
        self.settle(id)?;
        self.mirror.not_only_here(id)?;
        Ok(put)
    }

    /// Removes an old copy, after what came to it late was carried over and what was changed in it was put aside. Gives
    /// how much that was, and whether the copy could not be removed.
    fn retire(&self, id: &str, old: Option<&Tree>, new: &Tree, keep: Keep) -> io::Result<(usize, bool)> {
        let (gone, to) = (self.gone(id), self.mirror.root.join(id));
        carry(&gone, &to, old, new, keep)?;
        let mut aside = 0;
        let only = self.mirror.is_only_here(id);
        let stamp = Timestamp::now().strftime("%Y%m%dT%H%M%S%3fZ").to_string();
        let put_aside = unused(&self.mirror.replaced().join(id), &stamp);
        for (path, thing) in &Tree::walk(&gone)?.0 {
            // What came from the VPS and is there no more may be nowhere else; without an index nobody knows what did.
            let ours = !only && old.is_some_and(|old| old.0.get(path) == Some(thing));
            let same = new.0.get(path) == Some(thing);
            // Where there are no hard links, it was carried over as a copy.
            let carried = || Ok::<_, io::Error>(Thing::at(&to.join(path))?.as_ref() == Some(thing));
            if *thing == Thing::Directory
                || ours
                || same
                || same_file(&gone.join(path), &to.join(path))?
                || (!new.0.contains_key(path) && carried()?)
            {
                continue;
            }
            let away = put_aside.join(path);
            fs_err::create_dir_all(away.parent().unwrap_or(&away))?;
            shift(&gone.join(path), &away)?;
            aside += 1;
        }
        match remove(&gone) {
            // Somebody else's, which another user's run had put there. The new copy is in place all the same.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                fs_err::rename(&gone, unused(&self.old(), &format!("{LEFT}{stamp}")))?;
                Ok((aside, true))
            }
            removed => removed.map(|()| (aside, false)),
        }
    }

    /// Ends what an earlier run began. A journal that is whole says that its copy was proved. What cannot be ended is
    /// in nobody else's way.
    fn recover(&mut self) -> io::Result<Vec<Recovered>> {
        let mut recovered = Vec::new();
        for entry in fs_err::read_dir(self.mirror.journals())? {
            let journal = entry?.path();
            let id = journal.file_name().and_then(|name| name.to_str()).map(id::of_file_name);
            let bytes = fs_err::read(&journal)?;
            match (id, Tree::parse(&bytes)) {
                (Some(id), Some((signature, new))) => match self.finish(&id, tree::inode(&bytes), &new) {
                    Ok(true) => recovered.push((id, signature)),
                    Ok(false) => {}
                    Err(error) => drop(self.stuck.insert(id, format!("an earlier copy got stuck: {error}"))),
                },
                // It was being written, so nothing had been moved.
                _ => fs_err::remove_file(&journal)?,
            }
        }
        for entry in fs_err::read_dir(self.old())? {
            let entry = entry?;
            match entry.file_name().to_str() {
                // Perhaps its owner is back.
                Some(name) if name.starts_with(LEFT) => drop(remove(&entry.path())),
                Some(name) => {
                    let id = id::of_file_name(name);
                    if !self.stuck.contains_key(&id)
                        && let Err(error) = self.unclaimed(&id)
                    {
                        self.stuck.insert(id, format!("an earlier copy got stuck: {error}"));
                    }
                }
                None => {}
            }
        }
        Ok(recovered)
    }

    /// An old copy that no journal speaks of, or not any more: where a file system cannot exchange in one step, there is
    /// an instant without any copy in the mirror. Whatever happened, nothing local is lost.
    fn unclaimed(&self, id: &str) -> io::Result<()> {
        let (to, gone) = (self.mirror.place(id)?, self.gone(id));
        if Thing::at(&to)?.is_none() {
            return rename(&gone, &to, RenameFlags::NOREPLACE);
        }
        let old = self.mirror.index(id).map_or_else(Tree::default, |(_, tree)| tree);
        let keep = Keep { database: false, deleted: false };
        self.retire(id, Some(&old), &Tree::walk(&to)?, keep).map(drop)
    }

    /// Ends the exchange of one workspace, or takes it back. Is the new copy in place, as it was proved?
    fn finish(&self, id: &str, inode: Option<u64>, new: &Tree) -> io::Result<bool> {
        let is_dir = |path: &Path| Ok::<_, io::Error>(Thing::at(path)? == Some(Thing::Directory));
        let (to, stage, gone) = (self.mirror.place(id)?, self.stage().join(id), self.gone(id));
        // What is in it says little: the old copy may have all of the new one and more, and a file that both share may
        // have been changed. Only where the file system numbers directories anew it has to do.
        let exchanged = if inode.is_some() && number(&to)? == inode {
            true
        } else if inode.is_some() && number(&stage)? == inode {
            false
        } else {
            !(is_dir(&stage)? && new.damage(&stage)?.is_none())
                || (is_dir(&to)? && new.damage(&to)?.is_none())
        };
        if !exchanged || !is_dir(&to)? {
            if !exchanged && is_dir(&stage)? {
                strip(&stage, new)?;
            }
            fs_err::remove_file(self.journal(id))?;
            return Ok(false);
        }
        let old = self.mirror.index(id).map(|(_, tree)| tree);
        if is_dir(&stage)? {
            remove(&gone)?;
            fs_err::rename(&stage, &gone)?;
        }
        if is_dir(&gone)? {
            // What that run wanted to keep beyond what is local, it had carried over before.
            self.retire(id, old.as_ref(), new, Keep { database: false, deleted: false })?;
        }
        self.settle(id)?;
        Ok(new.damage(&to)?.is_none())
    }

    /// Removes what is staged, but of these workspaces, with which the next run goes on.
    pub fn clear(&self, keep: &[&str]) -> io::Result<()> {
        let keep: BTreeSet<&str> =
            keep.iter().copied().chain(self.stuck.keys().map(String::as_str)).collect();
        let containers: BTreeSet<&str> = keep.iter().filter_map(|id| id::container(id)).collect();
        for entry in fs_err::read_dir(self.stage())? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_str().unwrap_or_default();
            if containers.contains(name) {
                for entry in fs_err::read_dir(entry.path())? {
                    let entry = entry?;
                    let id = entry.file_name().to_str().map(|leaf| format!("{name}/{leaf}"));
                    if !id.is_some_and(|id| keep.contains(id.as_str())) {
                        remove(&entry.path())?;
                    }
                }
            } else if !keep.contains(name) {
                remove(&entry.path())?;
            }
        }
        if keep.is_empty() {
            remove(&self.partial())?;
        }
        Ok(())
    }

    /// Has everything on the file systems of the mirror and of its state written to disk.
    pub fn sync(&self) -> io::Result<()> {
        let (root, journals) = (&self.mirror.root, self.mirror.journals());
        rustix::fs::syncfs(fs_err::File::open(root)?)?;
        if fs_err::metadata(root)?.dev() != fs_err::metadata(&journals)?.dev() {
            rustix::fs::syncfs(fs_err::File::open(&journals)?)?;
        }
        Ok(())
    }

    /// Room for copies, in bytes.
    pub fn room(&self) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(&self.dir)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

/// What old copies are named that could not be removed.
const LEFT: &str = ".left.";

/// The number of what lies there.
fn number(path: &Path) -> io::Result<Option<u64>> {
    match fs::symlink_metadata(path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        meta => Ok(Some(meta?.ino())),
    }
}

/// Takes out of a staged copy what was carried over into it.
fn strip(stage: &Path, new: &Tree) -> io::Result<()> {
    for path in Tree::walk(stage)?.0.keys().filter(|path| !new.0.contains_key(*path)) {
        remove(&stage.join(path))?;
    }
    Ok(())
}

/// Do the files of two copies have the same content? Where they are the same files, nothing is read.
fn equal(a: &Path, b: &Path, tree: &Tree) -> io::Result<bool> {
    for (path, _) in tree.0.iter().filter(|(_, thing)| matches!(thing, Thing::File { .. })) {
        let (a, b) = (a.join(path), b.join(path));
        if !same_file(&a, &b)? && !same_content(&a, &b)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn same_content(a: &Path, b: &Path) -> io::Result<bool> {
    let open = |path: &Path| Ok::<_, io::Error>(BufReader::new(fs_err::File::open(path)?));
    let (mut a, mut b) = (open(a)?, open(b)?);
    loop {
        let (left, right) = (a.fill_buf()?, b.fill_buf()?);
        let length = left.len().min(right.len());
        if left[..length] != right[..length] || left.is_empty() != right.is_empty() {
            return Ok(false);
        }
        if length == 0 {
            return Ok(true);
        }
        a.consume(length);
        b.consume(length);
    }
}

/// Takes what is only here over into a new copy, as links to the same files.
fn carry(from: &Path, to: &Path, old: Option<&Tree>, new: &Tree, keep: Keep) -> io::Result<()> {
    let mut touched: BTreeMap<PathBuf, Timestamps> = BTreeMap::new();
    let mut modes = Vec::new();
    for (path, thing) in &Tree::walk(from)?.0 {
        if new.0.contains_key(path) || !is_local(path, old, keep) {
            continue;
        }
        let at = to.join(path);
        let parent = at.parent().unwrap_or(to).to_path_buf();
        // In the way is something of the VPS; then it is put aside with what was changed.
        if Thing::at(&at)?.is_some() || Thing::at(&parent)? != Some(Thing::Directory) {
            continue;
        }
        if !touched.contains_key(&parent) {
            touched.insert(parent.clone(), times(&parent)?);
        }
        if *thing == Thing::Directory {
            fs_err::create_dir(&at)?;
            modes.push((at.clone(), fs_err::symlink_metadata(from.join(path))?.permissions()));
            touched.insert(at, times(&from.join(path))?);
        } else {
            link(&from.join(path), &at)?;
        }
    }
    // Only now, so that a directory which forbids it can be filled.
    for (dir, mode) in modes {
        fs_err::set_permissions(dir, mode)?;
    }
    for (dir, times) in touched.iter().rev() {
        set_times(dir, times)?;
    }
    Ok(())
}

/// Makes `to` the same file as `from`, or like it where that cannot be.
fn link(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        // It was there a moment ago.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(_) => duplicate(from, to),
        linked => linked,
    }
}

/// Copies a file or link, with its time. Of anything else there is nothing to copy.
fn duplicate(from: &Path, to: &Path) -> io::Result<()> {
    match Thing::at(from)? {
        Some(Thing::Link(target)) => std::os::unix::fs::symlink(target, to)?,
        Some(Thing::File { .. }) => drop(fs_err::copy(from, to)?),
        _ => return Ok(()),
    }
    set_times(to, &times(from)?)
}

/// Removes files that a run which was killed had not finished writing.
fn sweep(dir: &Path) -> io::Result<()> {
    for entry in fs_err::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Was it never the VPS's, or is it to be kept all the same?
fn is_local(path: &Path, old: Option<&Tree>, keep: Keep) -> bool {
    keep.deleted || !old.is_some_and(|old| old.0.contains_key(path)) || (!keep.database && is_database(path))
}

/// Can a directory be moved from `dir` into `root` in one step? Makes `dir`.
fn fits(dir: &Path, root: &Path) -> io::Result<()> {
    fs_err::create_dir_all(dir)?;
    let (probe, there) = (dir.join(".probe"), root.join(".ua-probe"));
    for left in [&probe, &there] {
        remove(left)?;
    }
    fs_err::create_dir(&probe)?;
    let moved = fs_err::rename(&probe, &there);
    let clean = remove(&probe).and(remove(&there));
    // A place that cannot be used is not left behind; one that holds something is.
    if moved.is_err() {
        let _in_use = fs::remove_dir(dir);
    }
    moved.and(clean)
}

fn rename(from: &Path, to: &Path, flags: RenameFlags) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, flags) {
        // The file system does not know these.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) if flags == RenameFlags::NOREPLACE => {
            if Thing::at(to)?.is_some() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            fs_err::rename(from, to)
        }
        renamed => Ok(renamed?),
    }
}

/// `from` comes to `to`, and what was there to `gone`, without an instant at which there is nothing.
fn exchange(from: &Path, to: &Path, gone: &Path) -> io::Result<()> {
    match rename(from, to, RenameFlags::EXCHANGE) {
        Ok(()) => fs_err::rename(from, gone),
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => {
            fs_err::rename(to, gone)?;
            fs_err::rename(from, to).inspect_err(|_| drop(fs::rename(gone, to)))
        }
        Err(error) => Err(error),
    }
}

fn same_file(a: &Path, b: &Path) -> io::Result<bool> {
    let identity = |path: &Path| match fs::symlink_metadata(path) {
        Ok(meta) => Ok(Some((meta.dev(), meta.ino()))),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(error),
    };
    Ok(identity(a)?.is_some_and(|a| identity(b).is_ok_and(|b| b == Some(a))))
}

/// Moves a file or link, to another file system if need be.
fn shift(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => duplicate(from, to),
        moved => moved,
    }
}

/// Removes whatever there is; directories that forbid it are opened first.
fn remove(path: &Path) -> io::Result<()> {
    let kind = match fs::symlink_metadata(path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(());
        }
        meta => meta?.file_type(),
    };
    if !kind.is_dir() {
        return fs_err::remove_file(path);
    }
    // It holds a directory open at each depth; where that is too deep, or forbidden, one after the other goes.
    fs::remove_dir_all(path).or_else(|_| {
        open_up(path)?;
        for (at, thing) in Tree::walk(path)?.0.iter().rev() {
            let at = path.join(at);
            if *thing == Thing::Directory { fs_err::remove_dir(at)? } else { fs_err::remove_file(at)? }
        }
        fs_err::remove_dir(path)
    })
}

fn open_up(dir: &Path) -> io::Result<()> {
    let mut open = vec![dir.to_path_buf()];
    while let Some(dir) = open.pop() {
        fs_err::set_permissions(&dir, fs::Permissions::from_mode(0o700))?;
        for entry in fs_err::read_dir(&dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                open.push(entry.path());
            }
        }
    }
    Ok(())
}

/// What is not there yet, should a clock have been set back.
fn unused(dir: &Path, name: &str) -> PathBuf {
    let mut at = dir.join(name);
    for more in 1.. {
        if fs::symlink_metadata(&at).is_err() {
            break;
        }
        at = dir.join(format!("{name}-{more}"));
    }
    at
}

fn times(path: &Path) -> io::Result<Timestamps> {
    let meta = fs_err::symlink_metadata(path)?;
    let spec = |tv_sec, tv_nsec| Timespec { tv_sec, tv_nsec };
    Ok(Timestamps {
        last_access: spec(meta.atime(), meta.atime_nsec()),
        last_modification: spec(meta.mtime(), meta.mtime_nsec()),
    })
}

fn set_times(path: &Path, times: &Timestamps) -> io::Result<()> {
    Ok(rustix::fs::utimensat(CWD, path, times, AtFlags::SYMLINK_NOFOLLOW)?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::os::unix::fs::symlink;
    use std::process::{Command, Stdio};

    use ua_common::settings::value::Patterns;

    use super::*;

    const FLAT: &str = "session_1";
    const NESTED: &str = "vp_a_external/m1";
    /// What is somebody's own begins with this.
    const MINE: &str = "mine: ";
    /// What a workspace was dated by the VPS.
    const OLD: u64 = 1_700_000_000;
    const NEW: u64 = 1_700_009_000;

    /// A file with content and time; a directory where the path ends with `/`; a link where the content is `-> …`.
    type Planted = (&'static str, &'static str, u64);

    /// One exchange: what was copied before, what has become of that here, what comes now.
    struct Case {
        name: &'static str,
        id: &'static str,
        old: Option<&'static [Planted]>,
        indexed: bool,
        here: fn(&Path),
        new: &'static [Planted],
        keep: Keep,
    }

    const KEEP: Keep = Keep { database: false, deleted: false };

    /// Every way in which an old copy and a new one may differ, each with something of somebody's own.
    fn cases() -> Vec<Case> {
        let old: &[Planted] = &[
            ("same", "not changed", OLD),
            ("changed", "first turn", OLD),
            ("edited", "of the VPS", OLD),
            ("gone", "was removed there", OLD),
            ("gone_edited", "was removed there, and changed here", OLD),
            ("sub/", "", OLD),
            ("sub/deep/", "", OLD),
            ("sub/deep/f", "deep", OLD),
            ("left/", "", OLD),
            ("left/f", "in a directory that was removed there", OLD),
            ("l", "-> same", OLD),
        ];
        let new: &[Planted] = &[
            ("same", "not changed", OLD),
            ("changed", "second turn", NEW),
            ("edited", "of the VPS, too", NEW),
            ("sub/", "", NEW),
            ("sub/deep/", "", OLD),
            ("sub/deep/f", "deep", OLD),
            ("sub/new", "new", NEW),
            ("l", "-> changed", NEW),
        ];
        let busy = |root: &Path| {
            mine(root, "edited");
            mine(root, "gone_edited");
            mine(root, "note.txt");
            mine(root, "sub/deep/note.txt");
            mine(root, "left/note.txt");
            mine(root, "own/dir/note.txt");
            fs::create_dir(root.join("own/empty")).unwrap();
            symlink("/etc/hostname", root.join("own/link")).unwrap();
            mine(root, "runtime_state.db");
        };
        let fewer: &[Planted] = &[("same", "not changed", OLD)];
        let flipped: &[Planted] = &[
            ("same/", "", NEW),
            ("same/f", "a directory where a file was", NEW),
            ("sub", "a file where a directory was", NEW),
            ("left", "-> sub", NEW),
            ("note.txt/", "", NEW),
            ("note.txt/f", "where somebody has a file", NEW),
            ("own", "where somebody has a directory", NEW),
        ];
        let case = |name, old, here, new| Case { name, id: FLAT, old, indexed: true, here, new, keep: KEEP };
        let nested = |name, old, here, new| Case { id: NESTED, ..case(name, old, here, new) };
        vec![
            case("a second turn", Some(old), busy, new),
            // All that is new is in the old copy: what is in a copy does not say which it is.
            case("only removed there", Some(old), busy, fewer),
            case("kinds change", Some(old), busy, flipped),
            case("kinds change back", Some(flipped), |root| mine(root, "same/note.txt"), old),
            case("nothing there yet", None, |_| {}, new),
            case("it is there already", Some(new), |root| mine(root, "note.txt"), new),
            Case { indexed: false, ..case("of the old script", Some(old), |root| mine(root, "note"), new) },
            Case { keep: Keep { deleted: true, ..KEEP }, ..case("removed stays", Some(old), busy, new) },
            Case { keep: Keep { database: true, ..KEEP }, ..case("databases", Some(DB), busy, DB_NEW) },
            case("databases stay", Some(DB), |root| mine(root, "note.txt"), new),
            case("read-only", Some(old), read_only, new),
            nested("a second turn of a mission", Some(old), busy, new),
            nested("only removed there in a mission", Some(old), busy, fewer),
            nested("nothing there yet, nor its directory", None, |_| {}, new),
            Case {
                indexed: false,
                ..nested("mission of the old script", Some(old), |root| mine(root, "note"), new)
            },
        ]
    }

    /// The cases that the user of the test can run.
    fn runnable() -> Vec<Case> {
        let mut cases = cases();
        if !ua_tests::is_root() {
            ua_tests::skip("only root can move a directory that it may not write");
            cases.retain(|case| case.name != "read-only");
        }
        cases
    }

    const DB: &[Planted] = &[("runtime_state.db", "of the VPS", OLD), ("f", "f", OLD)];
    const DB_NEW: &[Planted] = &[("runtime_state.db", "of the VPS, later", NEW), ("f", "f", OLD)];

    fn read_only(root: &Path) {
        mine(root, "own/note.txt");
        mine(root, "sub/note.txt");
        for dir in ["own", "sub/deep", "sub", ""] {
            fs::set_permissions(root.join(dir), fs::Permissions::from_mode(0o555)).unwrap();
        }
    }

    fn mine(root: &Path, path: &str) {
        let at = root.join(path);
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        // Some write a file anew, as most editors do, and some write into it.
        if path.len().is_multiple_of(2) && at.exists() {
            fs::remove_file(&at).unwrap();
        }
        fs::write(at, format!("{MINE}{path}")).unwrap();
    }

    fn date(path: &Path, seconds: u64) {
        let times = Timestamps {
            last_access: Timespec { tv_sec: i64::try_from(seconds).unwrap(), tv_nsec: 0 },
            last_modification: Timespec { tv_sec: i64::try_from(seconds).unwrap(), tv_nsec: 123 },
        };
        set_times(path, &times).unwrap();
    }

    /// As rsync leaves it: a file that `there` has already is the same file.
    fn plant(root: &Path, things: &[Planted], there: Option<&Path>) {
        remove(root).unwrap();
        fs::create_dir_all(root).unwrap();
        for (path, content, time) in things {
            let at = root.join(path.trim_end_matches('/'));
            if path.ends_with('/') {
                fs::create_dir(&at).unwrap();
            } else if let Some(target) = content.strip_prefix("-> ") {
                symlink(target, &at).unwrap();
                date(&at, *time);
            } else {
                fs::write(&at, content).unwrap();
                date(&at, *time);
                let known = there.map(|there| there.join(path));
                if let Some(known) =
                    known.filter(|known| Thing::at(known).unwrap() == Thing::at(&at).unwrap())
                {
                    fs::remove_file(&at).unwrap();
                    fs::hard_link(known, at).unwrap();
                }
            }
        }
        for (path, _, time) in things.iter().rev().filter(|(path, ..)| path.ends_with('/')) {
            date(&root.join(path.trim_end_matches('/')), *time);
        }
        date(root, NEW);
    }

    fn nested() -> Patterns {
        Patterns(vec!["vp_*_external".to_owned()])
    }

    struct Place(tempfile::TempDir);

    impl Place {
        fn of(case: &Case) -> Self {
            let place = Self(tempfile::tempdir().unwrap());
            let mirror = place.mirror();
            Staging::open(&mirror).unwrap();
            let to = mirror.root.join(case.id);
            if let Some(old) = case.old {
                plant(&to, old, None);
                if case.indexed {
                    let tree = Tree::walk(&to).unwrap();
                    fs::write(mirror.indexes().join(id::file_name(case.id)), tree.bytes("1_completed", 0))
                        .unwrap();
                }
            }
            if to.exists() {
                (case.here)(&to);
            }
            place
        }

        fn mirror(&self) -> Mirror {
            Mirror::at(&self.0.path().join("mirror"), &self.0.path().join("state"), &nested()).unwrap()
        }

        fn plant(&self, case: &Case) {
            let mirror = self.mirror();
            let (staging, _) = Staging::open(&mirror).unwrap();
            plant(&staging.stage().join(case.id), case.new, Some(&mirror.root.join(case.id)));
        }

        /// What is somebody's own, anywhere, by its content.
        fn owned(&self) -> BTreeSet<String> {
            let mut owned = BTreeSet::new();
            for place in [self.0.path().join("mirror"), self.mirror().replaced()] {
                let Ok(tree) = Tree::walk(&place) else { continue };
                for path in tree.0.keys() {
                    let text = fs::read_link(place.join(path)).map_or_else(
                        |_| fs::read_to_string(place.join(path)).unwrap_or_default(),
                        |to| format!("{MINE}{}", to.display()),
                    );
                    owned.extend(text.starts_with(MINE).then_some(text));
                }
            }
            // Links of the VPS are no one's own.
            owned.retain(|text| !["same", "changed", "sub"].iter().any(|to| *text == format!("{MINE}{to}")));
            owned
        }
    }

    /// What one run does with a workspace once it has been copied to the stage.
    fn put(staging: &Staging<'_>, case: &Case) -> Put {
        staging.prepare(case.id, "2_completed", case.keep.database).unwrap().unwrap();
        staging.announce(case.id).unwrap();
        staging.put(case.id, case.keep).unwrap()
    }

    /// The mirror has the new copy and what is somebody's own, and nothing of the way there is left.
    fn in_order(place: &Place, case: &Case, owned: &BTreeSet<String>, when: &str) {
        let mirror = place.mirror();
        let (root, what) = (mirror.root.join(case.id), format!("{}, {when}", case.name));
        assert_eq!(place.owned(), *owned, "{what}");
        let fresh = tempfile::tempdir().unwrap();
        plant(fresh.path(), case.new, None);
        let (new, is) = (Tree::walk(fresh.path()).unwrap(), Tree::walk(&root).unwrap());
        assert_eq!(new.damage(&root).unwrap(), None, "{what}");
        assert_eq!(mirror.index(case.id), Some(("2_completed".to_owned(), new.clone())), "{what}");
        for (path, thing) in is.0.iter().filter(|(path, _)| !new.0.contains_key(*path)) {
            let here = root.join(path);
            let own = match thing {
                Thing::Directory => {
                    !case.old.is_some_and(|old| old.iter().any(|it| Path::new(it.0) == *path))
                }
                Thing::Link(to) => to == Path::new("/etc/hostname"),
                _ => fs::read_to_string(here).unwrap().starts_with(MINE),
            };
            let kept = case.keep.deleted || !case.indexed || (!case.keep.database && is_database(path));
            assert!(own || kept, "{what}: `{}` should not be there", path.display());
        }
        for (path, _) in new.0.iter().filter(|(_, thing)| **thing == Thing::Directory) {
            let time = |root: &Path| fs::metadata(root.join(path)).unwrap().modified().unwrap();
            assert_eq!(time(&root), time(fresh.path()), "{what}: `{}`", path.display());
        }
        let (staging, recovered) = Staging::open(&mirror).unwrap();
        assert_eq!(recovered, [], "{what}");
        for dir in [staging.stage(), staging.old(), mirror.journals(), mirror.root.clone()] {
            let container = id::container(case.id).map(Path::new);
            let mut left = Tree::walk(&dir).unwrap();
            let copies = dir == mirror.root;
            left.0.retain(|path, _| {
                Some(path.as_path()) != container && !(copies && path.starts_with(case.id))
            });
            assert!(left.0.is_empty(), "{what}: {left:?} is left in {}", dir.display());
        }
        staging.clear(&[]).unwrap();
        assert_eq!(Tree::walk(&staging.stage()).unwrap().0.len(), 0, "{what}");
    }

    /// A run comes after one that was cut off: whatever it finds, it ends with the mirror in order.
    fn goes_on(place: &Place, case: &Case, owned: &BTreeSet<String>, when: &str) {
        let mirror = place.mirror();
        let (staging, recovered) = Staging::open(&mirror).unwrap();
        let what = format!("{}, {when}", case.name);
        assert!(staging.stuck.is_empty(), "{what}: {:?}", staging.stuck);
        assert_eq!(place.owned(), *owned, "{what}: after the recovery");
        let index = mirror.index(case.id).map(|(signature, _)| signature);
        assert!(recovered.is_empty() || index.as_deref() == Some("2_completed"), "{what}");
        plant(&staging.stage().join(case.id), case.new, Some(&mirror.root.join(case.id)));
        put(&staging, case);
        in_order(place, case, owned, when);
    }

    #[test]
    fn a_copy_comes_into_the_mirror_and_nothing_of_anybodys_own_is_lost() {
        for case in runnable() {
            let place = Place::of(&case);
            let owned = place.owned();
            place.plant(&case);
            let mirror = place.mirror();
            put(&Staging::open(&mirror).unwrap().0, &case);
            in_order(&place, &case, &owned, "at once");
            goes_on(&place, &Case { here: |_| {}, ..case }, &owned, "again");
        }
    }

    /// Each state that a run which is cut off leaves, made by hand, whatever the order of the calls may be.
    #[test]
    fn whatever_a_run_leaves_the_next_one_goes_on() {
        type Cut = fn(&Staging<'_>, &Tree, &Case);
        fn carried(staging: &Staging<'_>, new: &Tree, case: &Case) {
            let to = staging.mirror.place(case.id).unwrap();
            let old = staging.mirror.index(case.id).map(|(_, tree)| tree);
            if to.exists() {
                carry(&to, &staging.stage().join(case.id), old.as_ref(), new, case.keep).unwrap();
            }
        }
        fn exchanged(staging: &Staging<'_>, new: &Tree, case: &Case) {
            carried(staging, new, case);
            let (from, to) = (staging.stage().join(case.id), staging.mirror.place(case.id).unwrap());
            let flags = if to.exists() { RenameFlags::EXCHANGE } else { RenameFlags::NOREPLACE };
            rename(&from, &to, flags).unwrap();
        }
        fn moved(staging: &Staging<'_>, new: &Tree, case: &Case) {
            exchanged(staging, new, case);
            if staging.stage().join(case.id).exists() {
                fs::rename(staging.stage().join(case.id), staging.gone(case.id)).unwrap();
            }
        }
        fn without_exchange(staging: &Staging<'_>, new: &Tree, case: &Case) {
            carried(staging, new, case);
            if staging.mirror.place(case.id).unwrap().exists() {
                fs::rename(staging.mirror.place(case.id).unwrap(), staging.gone(case.id)).unwrap();
            }
        }
        let cuts: [(&str, Cut); 10] = [
            ("announced", |_, _, _| {}),
            ("half announced", |staging, _, case| {
                let journal = fs::read(staging.journal(case.id)).unwrap();
                fs::write(staging.journal(case.id), &journal[..journal.len() / 2]).unwrap();
            }),
            ("carried", carried),
            ("exchanged", exchanged),
            ("moved", moved),
            ("moved, and the journal was lost with the power", |staging, new, case| {
                moved(staging, new, case);
                fs::write(staging.journal(case.id), "").unwrap();
            }),
            ("moved, and numbered anew", |staging, new, case| {
                moved(staging, new, case);
                fs::write(staging.journal(case.id), new.bytes("2_completed", 0)).unwrap();
            }),
            ("exchanged, and numbered anew", |staging, new, case| {
                exchanged(staging, new, case);
                fs::write(staging.journal(case.id), new.bytes("2_completed", 0)).unwrap();
            }),
            ("without an exchange, nothing there", without_exchange),
            ("retired", |staging, new, case| {
                let old = staging.mirror.index(case.id).map(|(_, tree)| tree);
                moved(staging, new, case);
                if staging.gone(case.id).exists() {
                    staging.retire(case.id, old.as_ref(), new, case.keep).unwrap();
                }
            }),
        ];
        for case in runnable() {
            for (when, cut) in cuts {
                let place = Place::of(&case);
                let mut owned = place.owned();
                place.plant(&case);
                let mirror = place.mirror();
                let (staging, _) = Staging::open(&mirror).unwrap();
                staging.prepare(case.id, "2_completed", case.keep.database).unwrap().unwrap();
                staging.announce(case.id).unwrap();
                let (_, staged) = Tree::parse(&fs::read(staging.journal(case.id)).unwrap()).unwrap();
                cut(&staging, &staged, &case);
                // Somebody goes on with the old copy, wherever it is by now, until it is gone.
                let copies =
                    [staging.gone(case.id), staging.stage().join(case.id), mirror.root.join(case.id)];
                let numbers: Vec<_> = copies.iter().map(|copy| number(copy).unwrap()).collect();
                let exchanged = numbers[0].is_none() && when.starts_with("exchanged");
                let busy = if numbers[0].is_some() {
                    0
                } else if exchanged {
                    1
                } else {
                    2
                };
                if numbers[busy].is_some() && case.old.is_some() && when != "retired" {
                    fs::set_permissions(&copies[busy], fs::Permissions::from_mode(0o755)).unwrap();
                    mine(&copies[busy], "late.txt");
                    owned.insert(format!("{MINE}late.txt"));
                }
                goes_on(&place, &case, &owned, when);
                if owned.contains("mine: late.txt") {
                    assert!(mirror.root.join(case.id).join("late.txt").exists(), "{}, {when}", case.name);
                }
            }
        }
    }

    /// A file that both copies share is changed after the new one was announced: that says nothing about which is which.
    #[test]
    fn a_shared_file_that_is_changed_does_not_turn_the_copies_round() {
        let case = cases().swap_remove(0);
        let place = Place::of(&case);
        place.plant(&case);
        let mirror = place.mirror();
        let (staging, _) = Staging::open(&mirror).unwrap();
        staging.prepare(case.id, "2_completed", false).unwrap().unwrap();
        staging.announce(case.id).unwrap();
        fs::write(mirror.root.join(case.id).join("same"), format!("{MINE}into the file")).unwrap();
        let owned = place.owned();
        assert!(Staging::open(&mirror).unwrap().1.is_empty());
        assert_eq!(fs::read_to_string(mirror.root.join(case.id).join("gone")).unwrap(), "was removed there");
        assert_eq!(mirror.index(case.id).unwrap().0, "1_completed");
        goes_on(&place, &case, &owned, "changed");
    }

    #[test]
    fn what_cannot_be_ended_is_in_nobody_elses_way() {
        let case = cases().swap_remove(0);
        let place = Place::of(&case);
        place.plant(&case);
        let mirror = place.mirror();
        let (staging, _) = Staging::open(&mirror).unwrap();
        staging.prepare(case.id, "2_completed", false).unwrap().unwrap();
        staging.announce(case.id).unwrap();
        // What was changed here cannot be put aside.
        fs::create_dir_all(mirror.replaced().parent().unwrap()).unwrap();
        fs::write(mirror.replaced(), "in the way").unwrap();
        let owned: BTreeSet<String> = Place::of(&case).owned();
        staging.put(case.id, KEEP).unwrap_err();
        let (staging, recovered) = Staging::open(&mirror).unwrap();
        assert_eq!((recovered.len(), staging.stuck.len()), (0, 1));
        staging.clear(&[]).unwrap();
        fs::remove_file(mirror.replaced()).unwrap();
        let (_, recovered) = Staging::open(&mirror).unwrap();
        assert_eq!(recovered, [(case.id.to_owned(), "2_completed".to_owned())]);
        in_order(&place, &case, &owned, "stuck");
    }

    #[test]
    fn what_was_put_aside_stays_whatever_the_clock_says() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["t", "t-1", "t-2"] {
            assert_eq!(unused(dir.path(), "t"), dir.path().join(name));
            fs::create_dir(dir.path().join(name)).unwrap();
        }
    }

    #[test]
    fn clear_keeps_what_failed_alone() {
        let dir = tempfile::tempdir().unwrap();
        let mirror = Mirror::at(&dir.path().join("mirror"), &dir.path().join("state"), &nested()).unwrap();
        let (staging, _) = Staging::open(&mirror).unwrap();
        for id in ["session_1", "session_2", "vp_a_external/m1", "vp_a_external/m2", "vp_b_external/m1"] {
            fs::create_dir_all(staging.stage().join(id).join("sub")).unwrap();
        }
        fs::write(staging.stage().join("vp_a_external/loose"), "").unwrap();
        let left = || {
            let tree = Tree::walk(&staging.stage()).unwrap();
            tree.0.into_keys().map(|path| path.display().to_string()).collect::<Vec<_>>()
        };
        staging.clear(&["session_2", "vp_a_external/m1"]).unwrap();
        let kept =
            ["session_2", "session_2/sub", "vp_a_external", "vp_a_external/m1", "vp_a_external/m1/sub"];
        assert_eq!(left(), kept);
        assert!(staging.partial().exists());
        staging.clear(&[]).unwrap();
        assert!(left().is_empty() && !staging.partial().exists());
    }

    #[test]
    fn index_of_one_workspace_is_split_once() {
        let dir = tempfile::tempdir().unwrap();
        let mirror = Mirror::at(&dir.path().join("mirror"), &dir.path().join("state"), &nested()).unwrap();
        mirror.make().unwrap();
        let file = |size| Thing::File { size, seconds: 1, nanos: 2 };
        let tree = |things: &[(&str, Thing)]| {
            Tree(things.iter().map(|(path, thing)| (PathBuf::from(path), thing.clone())).collect())
        };
        let whole = tree(&[
            ("loose", file(1)),
            ("link", Thing::Link("m1".into())),
            (".hidden", Thing::Directory),
            (".hidden/f", file(1)),
            ("empty", Thing::Directory),
            ("m1", Thing::Directory),
            ("m1/a", Thing::Directory),
            ("m1/a/f", file(3)),
            ("m1.more", Thing::Directory),
            ("m1.more/f", file(4)),
        ]);
        let own = tree(&[("f", file(5))]);
        let write = |id: &str, tree: &Tree, signature: &str| {
            fs::write(mirror.indexes().join(id::file_name(id)), tree.bytes(signature, 7)).unwrap();
        };
        write("vp_a_external", &whole, "plain_1");
        // What has come since, and what had come before.
        write("vp_a_external/m1.more", &own, "9_completed");
        write("vp_a_external/m1", &own, "9_completed");
        for (id, seconds) in [("vp_a_external|m1", 1), ("vp_a_external", 2), ("vp_a_external|m1.more", 3)] {
            let file = fs::File::options().write(true).open(mirror.indexes().join(id)).unwrap();
            file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds)).unwrap();
        }
        write("vp_a_external_archive", &whole, "plain_1");
        mirror.only_here("vp_a_external").unwrap();
        drop(Staging::open(&mirror).unwrap());
        let m1 = tree(&[("a", Thing::Directory), ("a/f", file(3))]);
        assert_eq!(mirror.index("vp_a_external/m1"), Some(("plain_1".to_owned(), m1)));
        assert_eq!(mirror.index("vp_a_external/m1.more"), Some(("9_completed".to_owned(), own)));
        assert_eq!(mirror.index("vp_a_external/empty"), Some(("plain_1".to_owned(), Tree::default())));
        assert_eq!(mirror.index("vp_a_external_archive"), Some(("plain_1".to_owned(), whole)));
        assert_eq!(mirror.index("vp_a_external"), None);
        assert!(mirror.is_only_here("vp_a_external/m1") && !mirror.is_only_here("vp_a_external"));
        let names = fs::read_dir(mirror.indexes()).unwrap().count();
        assert_eq!(names, 4);
    }

    #[test]
    fn a_tree_that_is_deeper_than_files_may_be_open_is_removed() {
        if let Some(deep) = std::env::var_os("UA_TEST_DEEP") {
            return remove(Path::new(&deep)).unwrap();
        }
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a").join("d/".repeat(300))).unwrap();
        fs::write(dir.path().join("a/d/d/f"), "").unwrap();
        let test = "staging::tests::a_tree_that_is_deeper_than_files_may_be_open_is_removed";
        let status = Command::new("sh")
            .args(["-c", "ulimit -n 100; exec \"$@\"", "sh"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", test])
            .env("UA_TEST_DEEP", dir.path().join("a"))
            .stdout(Stdio::null())
            .status();
        assert!(status.unwrap().success() && !dir.path().join("a").exists());
    }

    #[test]
    fn content_that_times_do_not_betray_is_compared() {
        let case = cases().swap_remove(5);
        let place = Place::of(&case);
        let spoilt = place.mirror().root.join(case.id).join("sub/deep/f");
        fs::write(&spoilt, "d##p").unwrap();
        date(&spoilt, OLD);
        let owned = place.owned();
        let mirror = place.mirror();
        let (staging, _) = Staging::open(&mirror).unwrap();
        // As a transfer that compares every byte leaves it.
        plant(&staging.stage().join(case.id), case.new, None);
        assert!(put(&staging, &case).copied);
        assert_eq!(fs::read_to_string(&spoilt).unwrap(), "deep");
        plant(&staging.stage().join(case.id), case.new, None);
        assert!(!put(&staging, &case).copied);
        in_order(&place, &case, &owned, "spoilt");
    }

    /// Not a test of its own: the run that [`every_call_may_be_the_last`] cuts off.
    #[test]
    #[ignore = "it is run by another test"]
    fn a_run_that_is_cut_off() {
        let Ok(dir) = std::env::var("UA_TEST_STAGING") else { return };
        let case = &cases()[std::env::var("UA_TEST_CASE").unwrap().parse::<usize>().unwrap()];
        let dir = Path::new(&dir);
        let mirror = Mirror::at(&dir.join("mirror"), &dir.join("state"), &nested()).unwrap();
        let (staging, _) = Staging::open(&mirror).unwrap();
        // A run that was cut off before may have come to its end in this one's recovery.
        if staging.stage().join(case.id).exists() {
            put(&staging, case);
        }
    }

    /// Calls that change what is on the disk.
    const CALLS: [&str; 13] = [
        "rename",
        "renameat",
        "renameat2",
        "link",
        "linkat",
        "unlink",
        "unlinkat",
        "rmdir",
        "mkdir",
        "chmod",
        "utimensat",
        "fchmodat",
        "symlinkat",
    ];

    /// Runs [`a_run_that_is_cut_off`] until the call is made for the `nth` time. Did it come to its end before?
    fn cut_off(place: &Place, case: usize, call: &str, nth: usize, faults: &[&str]) -> bool {
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-o", "/dev/null"]);
        command.args(["-e", &format!("trace={}", CALLS.join(","))]);
        command.args(faults.iter().flat_map(|fault| ["-e".to_owned(), format!("inject={fault}")]));
        command
            .args(["-e", &format!("inject={call}:signal=KILL:when={nth}")])
            .arg(std::env::current_exe().unwrap());
        command.args(["--exact", "staging::tests::a_run_that_is_cut_off", "--ignored", "--test-threads=1"]);
        command.env("UA_TEST_STAGING", place.0.path()).env("UA_TEST_CASE", case.to_string());
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        assert!(status.success() || status.code().is_none(), "{call} {nth}: {status}");
        status.success()
    }

    fn sweep(number: usize, faults: &[&str]) -> usize {
        let case = &cases()[number];
        let mut cuts = 0;
        for call in
            CALLS.iter().filter(|call| !faults.iter().any(|fault| fault.starts_with(&format!("{call}:"))))
        {
            for nth in 1.. {
                let place = Place::of(case);
                let owned = place.owned();
                let before = Tree::walk(&place.mirror().root.join(case.id)).ok();
                place.plant(case);
                let ended = cut_off(&place, number, call, nth, faults);
                let when = format!("cut off at {call} {nth}, {faults:?}");
                let is = Tree::walk(&place.mirror().root.join(case.id)).ok();
                if faults.is_empty() && is != before {
                    let fresh = tempfile::tempdir().unwrap();
                    plant(fresh.path(), case.new, None);
                    let new = Tree::walk(fresh.path()).unwrap();
                    assert_eq!(
                        new.damage(&place.mirror().root.join(case.id)).unwrap(),
                        None,
                        "{}, {when}",
                        case.name
                    );
                }
                // Often enough the run that comes after it is cut off, too.
                if nth % 3 == 0 {
                    cut_off(&place, number, call, nth / 3, faults);
                }
                goes_on(&place, case, &owned, &when);
                if ended {
                    break;
                }
                cuts += 1;
            }
        }
        cuts
    }

    #[test]
    fn every_call_may_be_the_last() {
        if Command::new("strace").arg("--version").stdout(Stdio::null()).status().is_err() {
            return ua_tests::skip("`strace` is not installed");
        }
        // All of them take a minute.
        let all = std::env::var_os("UA_SYNC_ALL_CUTS").is_some();
        let chosen: Vec<usize> = if all { (0..cases().len()).collect() } else { vec![0, 12, 13] };
        let cuts: usize = chosen.iter().map(|case| sweep(*case, &[])).sum();
        assert!(cuts > 50, "{cuts}");
        // File systems that do not know how to exchange, nor hard links.
        sweep(0, &["renameat2:error=EINVAL", "linkat:error=EPERM"]);
        if all {
            for case in [0, 1, 4, 11, 13] {
                sweep(case, &["renameat2:error=EINVAL"]);
            }
        }
    }
}
