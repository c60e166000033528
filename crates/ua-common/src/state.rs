//! Our private directory on the operator's machine, and what of it belongs to one run.

use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

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

/// Puts a file in place as a whole: a reader sees the old text or the new one, and so does the next run after a crash.
pub fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;
    let dir = path.parent().unwrap_or(Path::new("/"));
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(text.as_bytes())?;
    file.as_file().set_permissions(std::fs::Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    std::fs::File::open(dir)?.sync_all()
}

/// A directory for this run alone. Gone when dropped; after a kill the next run removes it.
#[derive(Debug)]
pub struct RunDir(PathBuf);

impl RunDir {
    /// Makes it, after removing those whose owner is dead.
    pub fn new() -> anyhow::Result<Self> {
        let all = dir()?.join("run");
        private(&all)?;
        sweep(&all);
        let owner = Owner::me().context("cannot read /proc/self/stat")?;
        // A process may open several, one after the other or at once.
        for serial in 0..1000 {
            let path = all.join(format!("{}-{}-{serial}", owner.pid, owner.start));
            match std::fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error).with_context(|| format!("cannot make `{}`", path.display())),
            }
        }
        bail!("`{}` is full of directories of this process", all.display())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        // What cannot be removed now is swept by the next run.
        let _swept_later = std::fs::remove_dir_all(&self.0);
    }
}

/// A process told apart from a later one of the same number.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Owner {
    pid: u32,
    /// Clock ticks since boot (field 22 of `/proc/PID/stat`).
    start: u64,
}

impl Owner {
    fn me() -> io::Result<Self> {
        Self::alive(std::process::id())
    }

    fn alive(pid: u32) -> io::Result<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name in parentheses may hold anything, so count from its end.
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        let ticks = fields.split_ascii_whitespace().nth(19).and_then(|ticks| ticks.parse().ok());
        ticks.map(|start| Self { pid, start }).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    fn of(name: &str) -> Option<Self> {
        let mut parts = name.split('-');
        Some(Self { pid: parts.next()?.parse().ok()?, start: parts.next()?.parse().ok()? })
    }
}

/// Removes the directories of dead runs, judged by whether their process lives, never by age.
fn sweep(all: &Path) {
    let Ok(entries) = std::fs::read_dir(all) else { return };
    for entry in entries.flatten() {
        let owner = entry.file_name().to_str().and_then(Owner::of);
        let dead = owner.is_some_and(|owner| Owner::alive(owner.pid).map_or(true, |alive| alive != owner));
        if dead {
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
        let me = Owner::me().unwrap();
        let living = all.path().join(format!("{}-{}-0", me.pid, me.start));
        let reused = all.path().join(format!("{}-{}-0", me.pid, me.start + 1));
        let foreign = all.path().join("notes");
        for dir in [&living, &reused, &foreign] {
            std::fs::create_dir(dir).unwrap();
        }
        sweep(all.path());
        assert!(living.exists() && !reused.exists() && foreign.exists());
    }
}
