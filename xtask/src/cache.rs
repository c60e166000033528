//! A cache that clean clones share: each entry is a directory named by a hash of what it is made from.
//!
//! An entry is built under a lock in a temporary directory and renamed in, so it is either whole or not there.

use std::env;

use anyhow::{Context as _, Result};
use camino::{Utf8Path, Utf8PathBuf};
use fs_err as fs;
use rustix::fs::{FlockOperation, flock};
use sha2::{Digest as _, Sha256};

use crate::setup::set_mode;
use crate::ui::Progress;

/// The cache directory of this user.
#[derive(Debug, Clone)]
pub struct Cache {
    root: Utf8PathBuf,
}

impl Cache {
    /// Opens `${XDG_CACHE_HOME:-~/.cache}/ua-lab`, and makes it if need be.
    pub fn open() -> Result<Self> {
        let set = |name| env::var(name).ok().filter(|value| !value.is_empty()).map(Utf8PathBuf::from);
        let base = set("XDG_CACHE_HOME")
            .or_else(|| set("HOME").map(|home| home.join(".cache")))
            .context("neither XDG_CACHE_HOME nor HOME is set")?;
        Self::at(base.join("ua-lab"))
    }

    fn at(root: Utf8PathBuf) -> Result<Self> {
        fs::create_dir_all(&root)?;
        Ok(Self { root })
    }

    /// The directory all entries lie in.
    pub fn root(&self) -> &Utf8Path {
        &self.root
    }

    /// The entry `name` for these inputs; if it is not there, `build` fills a new directory with it, which is shown
    /// as `label`.
    pub fn entry(
        &self,
        name: &str,
        inputs: &[&[u8]],
        progress: &Progress,
        label: &str,
        build: impl FnOnce(&Utf8Path) -> Result<()>,
    ) -> Result<Utf8PathBuf> {
        let entry = self.root.join(format!("{name}-{}", fingerprint(inputs)));
        if entry.exists() {
            return Ok(entry);
        }
        let _lock = self.lock(name, progress)?;
        if entry.exists() {
            return Ok(entry);
        }
        let step = progress.step(label);
        let building = self.root.join(format!("{name}.building"));
        // What a killed build left; nobody else builds it now, for we hold the lock.
        if building.exists() {
            fs::remove_dir_all(&building)?;
        }
        fs::create_dir(&building)?;
        set_mode(&building, 0o755)?;
        build(&building).with_context(|| format!("failed to build `{entry}`"))?;
        fs::rename(&building, &entry)?;
        step.done();
        Ok(entry)
    }

    /// Waits until no other process builds `name`, and keeps others from it.
    pub(crate) fn lock(&self, name: &str, progress: &Progress) -> Result<fs::File> {
        let lock = fs::File::create(self.root.join(format!("{name}.lock")))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            let step = progress.step(format!("wait for another checkout that makes `{name}`"));
            flock(&lock, FlockOperation::LockExclusive).with_context(|| format!("cannot lock `{name}`"))?;
            step.done();
        }
        Ok(lock)
    }
}

/// A short hash of `inputs`, each with its length, so that moving a byte from one to the next changes it.
pub fn fingerprint(inputs: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for input in inputs {
        hash.update(input.len().to_le_bytes());
        hash.update(input);
    }
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    fn cache() -> (tempfile::TempDir, Cache) {
        let dir = tempfile::tempdir().unwrap();
        let root = Utf8Path::from_path(dir.path()).unwrap().join("cache");
        (dir, Cache::at(root).unwrap())
    }

    #[test]
    fn an_entry_is_built_once_and_again_when_an_input_changes() {
        let (_dir, cache) = cache();
        let take = |inputs: &[&[u8]]| {
            let mut built = false;
            let path = cache.entry("thing", inputs, &Progress::quiet(), "a thing", |dir| {
                built = true;
                Ok(fs::write(dir.join("file"), "x")?)
            });
            (path.unwrap(), built)
        };
        let (first, built) = take(&[b"a", b"bc"]);
        assert!(built && first.join("file").exists());
        assert_eq!(take(&[b"a", b"bc"]), (first.clone(), false));
        let (other, built) = take(&[b"ab", b"c"]);
        assert!(built && other != first);
    }

    #[test]
    fn a_failed_build_leaves_no_entry_and_the_next_one_starts_empty() {
        let (_dir, cache) = cache();
        let failed = cache.entry("thing", &[], &Progress::quiet(), "a thing", |dir| {
            fs::write(dir.join("half"), "x")?;
            bail!("no luck")
        });
        assert!(failed.is_err());
        let path = cache.entry("thing", &[], &Progress::quiet(), "a thing", |_| Ok(())).unwrap();
        assert!(!path.join("half").exists());
    }
}
