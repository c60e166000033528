//! How a copy gets into the mirror: staged beside it, whole, and exchanged in one step. Whatever instant a run is cut
//! off at, a reader sees the old copy or the new one, nothing local is lost, and the next run goes on.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::fs::{AtFlags, CWD, RenameFlags, Timespec, Timestamps};
use ua_common::error::Failure;

use crate::mirror::{Mirror, is_database, local};
use crate::tree::{Thing, Tree};

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
    /// What will be in the mirror.
    pub tree: Tree,
    /// Links that lead out of the workspace: not taken.
    pub left_out: usize,
}

/// The place where copies wait, on the mirror's file system.
pub struct Staging<'a> {
    mirror: &'a Mirror,
    dir: PathBuf,
}

/// How a copy came into the mirror.
#[derive(Clone, Copy, Debug)]
pub struct Put {
    /// Was anything moved? Else all of it was there.
    pub copied: bool,
    /// Files that were changed here, and are put aside now.
    pub aside: usize,
}

/// A workspace that a run which was cut off had already put in place.
pub type Recovered = (String, String);

impl<'a> Staging<'a> {
    /// Finds or makes the place, and brings in order what an earlier run left. Only the holder of the lock may.
    pub fn open(mirror: &'a Mirror) -> Result<(Self, Vec<Recovered>), Failure> {
        mirror.make()?;
        let name = mirror.root.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let beside = mirror.root.with_file_name(format!(".{name}.incoming"));
        // Where the mirror is a mount point, only its inside is on its file system.
        let places = [mirror.incoming(), beside, mirror.root.join(".ua-incoming")];
        let mut why = None;
        for dir in places {
            match fits(&dir, &mirror.root) {
                Ok(()) => {
                    let staging = Self { mirror, dir };
                    for folder in [staging.stage(), staging.old(), staging.partial()] {
                        fs_err::create_dir_all(folder).map_err(local("cannot make a folder"))?;
                    }
                    let recovered = staging.recover().map_err(local("cannot bring the mirror in order"))?;
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

    fn journal(&self, id: &str) -> PathBuf {
        self.mirror.journals().join(id)
    }

    /// Looks at what was staged of a workspace, and takes out what must not come along. Nothing if there is nothing.
    pub fn look(&self, id: &str) -> io::Result<Option<Staged>> {
        let dir = self.stage().join(id);
        if Thing::at(&dir)? != Some(Thing::Directory) {
            return Ok(None);
        }
        let mut tree = Tree::walk(&dir)?;
        let mut unwanted = tree.escaping();
        let left_out = unwanted.len();
        unwanted.extend(tree.0.iter().filter(|it| *it.1 == Thing::Other).map(|it| it.0.clone()));
        for path in unwanted {
            let parent = dir.join(path.parent().unwrap_or(Path::new("")));
            let times = times(&parent)?;
            fs_err::remove_file(dir.join(&path))?;
            set_times(&parent, &times)?;
            tree.0.remove(&path);
        }
        Ok(Some(Staged { tree, left_out }))
    }

    /// Writes down what is about to be put in place, for the run that comes after one that is cut off.
    pub fn announce(&self, id: &str, signature: &str, staged: &Tree) -> io::Result<()> {
        // Unlike a record it need not outlive a loss of power: one that is not whole is none.
        fs_err::write(self.journal(id), staged.bytes(signature))
    }

    /// Puts an announced copy in place of what is there. Local additions stay; local changes to files of ours are put
    /// aside.
    pub fn put(&self, id: &str, keep: Keep) -> io::Result<Put> {
        let (from, to) = (self.stage().join(id), self.mirror.root.join(id));
        let announced = Tree::parse(&fs_err::read(self.journal(id))?);
        let (_, new) = announced.ok_or_else(|| io::Error::other("it was not announced"))?;
        let old = self.mirror.index(id).map(|(_, tree)| tree);
        let vanished = || old.as_ref().is_some_and(|old| old.0.keys().any(|path| !new.0.contains_key(path)));
        let mut put = Put { copied: true, aside: 0 };
        match Thing::at(&to)? {
            None => rename(&from, &to, RenameFlags::NOREPLACE)?,
            // All of it is there already.
            Some(Thing::Directory) if !vanished() && is_linked(&new, &from, &to)? => {
                remove(&from)?;
                put.copied = false;
            }
            Some(Thing::Directory) => {
                carry(&to, &from, old.as_ref(), &new, keep)?;
                let gone = self.old().join(id);
                remove(&gone)?;
                exchange(&from, &to, &gone)?;
                put.aside = self.retire(id, old.as_ref(), &new, keep)?;
            }
            Some(_) => return Err(io::ErrorKind::NotADirectory.into()),
        }
        fs_err::rename(self.journal(id), self.mirror.indexes().join(id))?;
        Ok(put)
    }

    /// Removes an old copy, after what came to it late was carried over and what was changed in it was put aside.
    fn retire(&self, id: &str, old: Option<&Tree>, new: &Tree, keep: Keep) -> io::Result<usize> {
        let (gone, to) = (self.old().join(id), self.mirror.root.join(id));
        carry(&gone, &to, old, new, keep)?;
        let mut aside = 0;
        let stamp = Timestamp::now().strftime("%Y%m%dT%H%M%S%3fZ").to_string();
        for (path, thing) in &Tree::walk(&gone)?.0 {
            // Without an index, what has the name of something of the VPS is the VPS's.
            let ours = old.map_or(new.0.contains_key(path), |old| old.0.get(path) == Some(thing));
            let same = new.0.get(path) == Some(thing);
            if *thing == Thing::Directory || ours || same || same_file(&gone.join(path), &to.join(path))? {
                continue;
            }
            let away = self.mirror.replaced().join(id).join(&stamp).join(path);
            fs_err::create_dir_all(away.parent().unwrap_or(&away))?;
            shift(&gone.join(path), &away)?;
            aside += 1;
        }
        remove(&gone)?;
        Ok(aside)
    }

    /// Ends what an earlier run began. A journal that is whole says that its copy was proved.
    fn recover(&self) -> io::Result<Vec<Recovered>> {
        let mut recovered = Vec::new();
        for entry in fs_err::read_dir(self.mirror.journals())? {
            let journal = entry?.path();
            let id = journal.file_name().and_then(|name| name.to_str()).map(str::to_owned);
            let written = Tree::parse(&fs_err::read(&journal)?);
            match (id, written) {
                (Some(id), Some((signature, new))) => {
                    if self.finish(&id, &new)? {
                        recovered.push((id, signature));
                    }
                }
                // It was being written, so nothing had been moved.
                _ => fs_err::remove_file(&journal)?,
            }
        }
        Ok(recovered)
    }

    /// Ends the exchange of one workspace, or takes it back. Is the new copy in place, as it was proved?
    fn finish(&self, id: &str, new: &Tree) -> io::Result<bool> {
        let is_dir = |path: &Path| Ok::<_, io::Error>(Thing::at(path)? == Some(Thing::Directory));
        let (to, stage, gone) = (self.mirror.root.join(id), self.stage().join(id), self.old().join(id));
        let exchanged = !(is_dir(&stage)? && new.damage(&stage)?.is_none());
        if !exchanged || !is_dir(&to)? {
            // Where a file system cannot exchange in one step, there is an instant without any copy.
            if Thing::at(&to)?.is_none() && is_dir(&gone)? {
                fs_err::rename(&gone, &to)?;
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
        fs_err::rename(self.journal(id), self.mirror.indexes().join(id))?;
        Ok(new.damage(&to)?.is_none())
    }

    /// Removes what is staged, but of these workspaces, with which the next run goes on.
    pub fn clear(&self, keep: &[&str]) -> io::Result<()> {
        for entry in fs_err::read_dir(self.stage())? {
            let entry = entry?;
            if !keep.iter().any(|id| *entry.file_name() == **id) {
                remove(&entry.path())?;
            }
        }
        if keep.is_empty() {
            remove(&self.partial())?;
        }
        Ok(())
    }

    /// Has everything on the mirror's file system written to disk.
    pub fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(fs_err::File::open(&self.mirror.root)?)?)
    }

    /// Room for copies, in bytes.
    pub fn room(&self) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(&self.dir)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

/// Takes what is only here over into a new copy, as links to the same files.
fn carry(from: &Path, to: &Path, old: Option<&Tree>, new: &Tree, keep: Keep) -> io::Result<()> {
    let mut touched: BTreeMap<PathBuf, Timestamps> = BTreeMap::new();
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
            let meta = fs_err::symlink_metadata(from.join(path))?;
            fs_err::set_permissions(&at, meta.permissions())?;
            touched.insert(at, times(&from.join(path))?);
        } else {
            fs_err::hard_link(from.join(path), &at)?;
        }
    }
    for (dir, times) in touched.iter().rev() {
        set_times(dir, times)?;
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
            fs_err::rename(from, to)
        }
        Err(error) => Err(error),
    }
}

/// Is all of a staged copy linked from what is there already? Equal sizes and times alone would not show other bytes.
fn is_linked(new: &Tree, from: &Path, to: &Path) -> io::Result<bool> {
    for (path, thing) in &new.0 {
        let file = matches!(thing, Thing::File { .. });
        if file && !same_file(&from.join(path), &to.join(path))? {
            return Ok(false);
        }
    }
    Ok(new.damage(to)?.is_none())
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
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => match fs::read_link(from) {
            Ok(target) => Ok(std::os::unix::fs::symlink(target, to)?),
            Err(_) => fs_err::copy(from, to).map(drop),
        },
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
    let removed = fs::remove_dir_all(path);
    if !matches!(&removed, Err(error) if error.kind() == io::ErrorKind::PermissionDenied) {
        return removed;
    }
    open_up(path)?;
    fs_err::remove_dir_all(path)
}

fn open_up(dir: &Path) -> io::Result<()> {
    fs_err::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
    for entry in fs_err::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_up(&entry.path())?;
        }
    }
    Ok(())
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
