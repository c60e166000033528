//! Our private directory on the operator's machine, and what of it belongs to one run.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::error::Failure;
use crate::exit::Exit;

/// `$XDG_STATE_HOME/ua`, made 0700 if it is not there; refused if somebody else could have written it.
pub fn dir() -> anyhow::Result<PathBuf> {
    use etcetera::BaseStrategy;
    let base = etcetera::base_strategy::Xdg::new().map_err(|_| {
        Failure::new(Exit::Usage, "cannot keep state while HOME is unset").hint("export HOME=…")
    })?;
    let dir = base.state_dir().unwrap_or_else(|| base.home_dir().join(".local/state")).join("ua");
    private(&dir)?;
    Ok(dir)
}

/// Makes a directory below our state with mode 0700, or makes sure that it is ours alone.
pub fn private(dir: &Path) -> anyhow::Result<()> {
    let refuse = |message: String| {
        Failure::new(Exit::Usage, message).hint("export XDG_STATE_HOME=/a/directory/of/yours")
    };
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|error| refuse(format!("cannot make `{}`: {error}", dir.display())))?;
    let meta =
        std::fs::symlink_metadata(dir).with_context(|| format!("cannot look at `{}`", dir.display()))?;
    if !meta.is_dir() || meta.uid() != rustix::process::geteuid().as_raw() || meta.mode() & 0o022 != 0 {
        let message = format!("`{}` is not a directory that only you can write", dir.display());
        return Err(refuse(message).into());
    }
    Ok(())
}

/// How the names of files begin that are being written: one that is left was not finished.
pub const UNFINISHED: &str = ".ua-write-";

/// Puts a file in place as a whole: a reader sees the old content or the new one, and so does the next run after a crash.
pub fn write(path: &Path, content: impl AsRef<[u8]>, mode: u32) -> io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;
    let dir = path.parent().unwrap_or(Path::new("/"));
    let mut file = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(dir)?;
    file.write_all(content.as_ref())?;
    file.as_file().set_permissions(std::fs::Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    File::open(dir)?.sync_all()
}

/// How long a lock of ours is waited for: whoever holds one only reads and writes a small file.
const LOCKED: Duration = Duration::from_secs(5);

/// Takes a lock, or says that somebody does not let it go.
pub fn lock(file: &File) -> io::Result<()> {
    let start = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if start.elapsed() > LOCKED => {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "another process has it locked"));
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// A directory for this run alone. Gone when dropped; after a kill the next run removes it.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    // Whoever lives holds it locked, which the system ends with the process, in whatever namespace that is.
    _alive: File,
}

/// What their names begin with.
const PREFIX: &str = "r";

impl RunDir {
    /// Makes it, after removing those whose owner is dead.
    pub fn new() -> anyhow::Result<Self> {
        let all = dir()?.join("run");
        private(&all)?;
        sweep(&all);
        let failed = |error: io::Error| {
            let message = format!("cannot make a directory in `{}`: {error}", all.display());
            Failure::new(Exit::Usage, message).hint(format!("df -h {}", all.display()))
        };
        loop {
            let path = tempfile::Builder::new().prefix(PREFIX).tempdir_in(&all).map_err(failed)?.keep();
            let alive = File::open(&path).map_err(failed)?;
            // A sweep of another run may have had it in between.
            if alive.try_lock().is_ok() && path.exists() {
                return Ok(Self { path, _alive: alive });
            }
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        // What cannot be removed now is swept by the next run.
        let _swept_later = std::fs::remove_dir_all(&self.path);
    }
}

/// Removes the directories of dead runs, judged by whether somebody holds them, never by age.
fn sweep(all: &Path) {
    let Ok(entries) = std::fs::read_dir(all) else { return };
    for entry in entries.flatten() {
        let ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        let dead = || File::open(entry.path()).is_ok_and(|dir| dir.try_lock().is_ok());
        if ours && entry.file_type().is_ok_and(|kind| kind.is_dir()) && dead() {
            // Another run may be sweeping too.
            let _swept = std::fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sweeps_the_dead_and_spares_the_living() {
        let all = tempfile::tempdir().unwrap();
        let at = |name: &str| all.path().join(name);
        for dir in ["rliving", "rdead", "notes"] {
            std::fs::create_dir(at(dir)).unwrap();
        }
        let alive = File::open(at("rliving")).unwrap();
        alive.try_lock().unwrap();
        sweep(all.path());
        assert!(at("rliving").exists() && !at("rdead").exists() && at("notes").exists());
        drop(alive);
        sweep(all.path());
        assert!(!at("rliving").exists());
    }

    #[test]
    fn a_lock_is_not_waited_for_for_ever() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let holder = file.reopen().unwrap();
        holder.try_lock().unwrap();
        let start = Instant::now();
        assert_eq!(lock(file.as_file()).unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(start.elapsed() < LOCKED * 2);
        drop(holder);
        lock(file.as_file()).unwrap();
    }
}
