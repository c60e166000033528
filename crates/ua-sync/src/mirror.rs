//! The mirror on this machine: what it holds, what of that is as it was put there, and the marker that proves which
//! mirror it is.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use ua_common::error::{Fact, Failure};
use ua_common::exit::Exit;
use ua_common::settings::value::Patterns;
use ua_common::state;

use crate::id::{self, Name};
use crate::threads::on_all;
use crate::tree::{Thing, Tree};

/// The one file of ours in the mirror.
pub const MARKER: &str = ".ua-mirror.json";

/// Why the mirror cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// It is not a directory.
    #[error("the mirror `{}` is not a directory", .0.display())]
    NoDirectory(PathBuf),
    /// It is a link that leads nowhere.
    #[error("the mirror `{}` is a link to `{}`, where there is nothing", .0.display(), .1.display())]
    Dangling(PathBuf, PathBuf),
    /// The system did not let us.
    #[error("{what}: {why}")]
    Local {
        /// What was tried, with the path.
        what: String,
        /// What the system said.
        why: io::Error,
    },
}

impl Fact for MirrorError {
    fn exit(&self) -> Exit {
        match self {
            Self::NoDirectory(_) | Self::Dangling(..) => Exit::Usage,
            Self::Local { .. } => Exit::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NoDirectory(path) => Some(format!("ls -ld {}", path.display())),
            Self::Dangling(_, target) => Some(format!("mkdir -p {}  # or mount it", target.display())),
            Self::Local { .. } => None,
        }
    }
}

/// Words for an error of the system.
pub(crate) fn local(what: impl Into<String>) -> impl FnOnce(io::Error) -> Failure {
    let what = what.into();
    |why| MirrorError::Local { what, why }.into()
}

/// What binds a mirror to what it mirrors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// `ua.mirror/1`.
    pub schema: String,
    /// Name of the VPS on the tailnet.
    pub host: String,
    /// The workspaces there.
    pub remote_dir: String,
    /// The manifest of the mirror.
    pub manifest: PathBuf,
}

impl Binding {
    /// Binds to these.
    pub fn new(host: &str, remote_dir: &str, manifest: &Path) -> Self {
        let manifest = manifest.canonicalize().unwrap_or_else(|_| manifest.to_path_buf());
        Self {
            schema: "ua.mirror/1".to_owned(),
            host: host.to_owned(),
            remote_dir: remote_dir.to_owned(),
            manifest,
        }
    }
}

/// What the mirror has under the name of a workspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Copy {
    /// A directory of which nobody wrote down what was put there.
    Unindexed,
    /// A copy as it was put there, of the run with this signature.
    Whole(String),
    /// A copy that is not as it was put there, and what is wrong.
    Damaged(String),
    /// A file or a link.
    NoDirectory,
}

/// What is here.
#[derive(Clone, Debug, Default)]
pub struct Local {
    /// By id of the workspace. What has the name of a directory of workspaces and is none is here, too.
    pub copies: BTreeMap<String, Copy>,
    /// Those that we put there, or were about to when a run was cut off.
    pub ours: BTreeSet<String>,
    /// Directories of workspaces.
    pub containers: BTreeSet<String>,
}

/// The mirror and where its state is kept.
#[derive(Clone, Debug)]
pub struct Mirror {
    /// Its root, links resolved. It need not be there.
    pub root: PathBuf,
    state: PathBuf,
    key: String,
    nested: Patterns,
}

/// What was put into a workspace, and for which run.
type Index = (String, Tree);

impl Mirror {
    /// The mirror at `dir`, in which these names are directories of workspaces. Nothing is made.
    pub fn at(dir: &Path, state: &Path, nested: &Patterns) -> Result<Self, MirrorError> {
        let root = match dir.canonicalize() {
            Ok(root) if root.is_dir() => root,
            Ok(_) => return Err(MirrorError::NoDirectory(dir.to_path_buf())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => match std::fs::read_link(dir) {
                Ok(target) => return Err(MirrorError::Dangling(dir.to_path_buf(), target)),
                Err(_) => dir.to_path_buf(),
            },
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                return Err(MirrorError::NoDirectory(dir.to_path_buf()));
            }
            Err(why) => {
                return Err(MirrorError::Local { what: format!("cannot look at `{}`", dir.display()), why });
            }
        };
        let digest = Sha256::digest(root.as_os_str().as_encoded_bytes());
        let key = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { root, state: state.to_path_buf(), key, nested: nested.clone() })
    }

    /// Makes it and the folders of its state.
    pub fn make(&self) -> Result<(), Failure> {
        for dir in [&self.root, &self.indexes(), &self.journals()] {
            fs_err::create_dir_all(dir).map_err(local("cannot make a folder"))?;
        }
        Ok(())
    }

    /// Where its state is kept.
    pub(crate) fn state(&self) -> &Path {
        &self.state
    }

    /// Where copies are staged if that is on the mirror's file system.
    pub(crate) fn incoming(&self) -> PathBuf {
        self.state.join("incoming").join(&self.key)
    }

    /// What was put into each workspace.
    pub(crate) fn indexes(&self) -> PathBuf {
        self.state.join("index").join(&self.key)
    }

    /// What is about to be put into a workspace; while it is there, the workspace may be half exchanged.
    pub(crate) fn journals(&self) -> PathBuf {
        self.state.join("staged").join(&self.key)
    }

    /// The same for what is not proved yet, and of which nothing is in place.
    pub(crate) fn drafts(&self) -> PathBuf {
        self.state.join("drafts").join(&self.key)
    }

    /// Where local work goes that would be in the way.
    pub(crate) fn replaced(&self) -> PathBuf {
        self.state.join("replaced")
    }

    fn last(&self, id: &str) -> PathBuf {
        self.state.join("last-copies").join(&self.key).join(id::file_name(id))
    }

    fn index_of(&self, id: &str) -> PathBuf {
        self.indexes().join(id::file_name(id))
    }

    /// From now on the copy here counts as the only one: the VPS does not have that run any more.
    pub(crate) fn only_here(&self, id: &str) -> io::Result<()> {
        let mark = self.last(id);
        if mark.exists() {
            return Ok(());
        }
        fs_err::create_dir_all(mark.parent().unwrap_or(&mark))?;
        fs_err::write(mark, "")
    }

    /// Is the copy here perhaps the only one?
    pub(crate) fn is_only_here(&self, id: &str) -> bool {
        self.last(id).exists()
    }

    /// The VPS has the run that is here.
    pub(crate) fn not_only_here(&self, id: &str) -> io::Result<()> {
        match fs_err::remove_file(self.last(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// What was put into a workspace and for which run, if that is known.
    pub(crate) fn index(&self, id: &str) -> Option<Index> {
        Tree::parse(&std::fs::read(self.index_of(id)).ok()?)
    }

    /// What was put into each workspace of a directory that was mirrored as one workspace, where that was the last time.
    fn split(&self, container: &str) -> BTreeMap<String, Index> {
        let Some((signature, Tree(things))) = self.index(container) else { return BTreeMap::new() };
        let written = |id: &str| std::fs::metadata(self.index_of(id)).and_then(|meta| meta.modified()).ok();
        let then = written(container);
        let mut split: BTreeMap<String, Index> = BTreeMap::new();
        for (path, thing) in things {
            let mut parts = path.components();
            let Some(name) = parts.next().and_then(|name| name.as_os_str().to_str()) else { continue };
            let id = format!("{container}/{name}");
            let rest = parts.as_path();
            // A file beside the workspaces belongs to none.
            if id::judge(&id) != Name::Workspace || (rest.as_os_str().is_empty() && thing != Thing::Directory)
            {
                continue;
            }
            let (_, Tree(its)) = split.entry(id).or_insert_with(|| (signature.clone(), Tree::default()));
            if !rest.as_os_str().is_empty() {
                its.insert(rest.to_path_buf(), thing);
            }
        }
        split.retain(|id, _| written(id) < then);
        split
    }

    /// Directories of workspaces of which an index says what was put there when each was one workspace.
    fn unsplit(&self) -> io::Result<Vec<String>> {
        let mut found = names(&self.indexes())?;
        found.retain(|name| self.nested.matches(name) && id::judge(name) == Name::Workspace);
        Ok(found)
    }

    /// Makes of the index of a directory of workspaces one for each workspace in it, so that a mirror in which it was one
    /// workspace goes on. May be cut off anywhere: the old index goes last.
    pub(crate) fn split_indexes(&self) -> io::Result<()> {
        for container in self.unsplit()? {
            let only_here = self.is_only_here(&container);
            for (id, (signature, tree)) in self.split(&container) {
                if only_here {
                    self.only_here(&id)?;
                }
                state::write(&self.index_of(&id), tree.bytes(&signature, 0), 0o644)?;
            }
            self.not_only_here(&container)?;
            fs_err::remove_file(self.index_of(&container))?;
        }
        Ok(())
    }

    /// Where a workspace is in the mirror. The directory of workspaces that it is in is made, and is no link to elsewhere.
    pub(crate) fn place(&self, id: &str) -> io::Result<PathBuf> {
        if let Some(container) = id::container(id) {
            let at = self.root.join(container);
            // Another workspace of the same directory may be on its way, too.
            match std::fs::create_dir(&at) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ if Thing::at(&at)? == Some(Thing::Directory) => {}
                _ => {
                    let why = format!("`{}` is no directory", at.display());
                    return Err(io::Error::new(io::ErrorKind::NotADirectory, why));
                }
            }
        }
        Ok(self.root.join(id))
    }

    /// What is here. Every file that was put here is looked at.
    pub fn look(&self) -> Result<Local, Failure> {
        let cannot = || local(format!("cannot look into the mirror `{}`", self.root.display()));
        let mut ours = BTreeSet::new();
        for dir in [self.indexes(), self.journals()] {
            ours.extend(names(&dir).map_err(cannot())?.iter().map(|name| id::of_file_name(name)));
        }
        let mut split = BTreeMap::new();
        for container in self.unsplit().map_err(cannot())? {
            split.extend(self.split(&container));
        }
        ours.extend(split.keys().cloned());
        let mut here = Vec::new();
        let mut containers = BTreeSet::new();
        for name in names(&self.root).map_err(cannot())? {
            let at = self.root.join(&name);
            if self.nested.matches(&name) && Thing::at(&at).map_err(cannot())? == Some(Thing::Directory) {
                here.extend(names(&at).map_err(cannot())?.into_iter().map(|leaf| format!("{name}/{leaf}")));
                containers.insert(name);
            } else {
                here.push(name);
            }
        }
        here.retain(|id| id::judge(id) == Name::Workspace);
        let copies = on_all(&here, |id| Ok((id.clone(), self.copy(id, split.get(id))?)));
        let copies = copies.into_iter().collect::<io::Result<_>>().map_err(cannot())?;
        Ok(Local { copies, ours, containers })
    }

    fn copy(&self, id: &str, split: Option<&Index>) -> io::Result<Copy> {
        let at = self.root.join(id);
        if Thing::at(&at)? != Some(Thing::Directory) {
            return Ok(Copy::NoDirectory);
        }
        let own = if split.is_none() { self.index(id) } else { None };
        Ok(match split.or(own.as_ref()) {
            None => Copy::Unindexed,
            Some((signature, tree)) => match tree.damage(&at) {
                Ok(None) => Copy::Whole(signature.clone()),
                Ok(Some(path)) => Copy::Damaged(format!("`{}` is not as it was copied", path.display())),
                Err(error) => Copy::Damaged(format!("it cannot be looked at: {error}")),
            },
        })
    }

    /// How much content a directory of the mirror holds, as the listing of the VPS counts it.
    pub fn sum(&self, id: &str, database: bool) -> io::Result<crate::listing::Sum> {
        let mut tree = Tree::walk(&self.root.join(id))?;
        if !database {
            tree.0.retain(|path, _| !is_database(path));
        }
        Ok(tree.sum())
    }

    /// What its marker binds it to; nothing without one.
    pub fn binding(&self) -> Result<Option<Binding>, Failure> {
        let path = self.root.join(MARKER);
        let text = match fs_err::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text.map_err(local("cannot read the marker of the mirror"))?,
        };
        let garbled = |error| {
            Failure::new(Exit::Refused, format!("the marker `{}` is garbled: {error}", path.display()))
                .hint("ua-sync adopt")
        };
        serde_json::from_str(&text).map(Some).map_err(garbled)
    }

    /// Writes its marker.
    pub fn bind(&self, binding: &Binding) -> Result<(), Failure> {
        // A path that is no text cannot stand in it, and half a marker would prove nothing.
        serde_json::to_string_pretty(binding)
            .map_err(io::Error::from)
            .and_then(|text| state::write(&self.root.join(MARKER), text + "\n", 0o644))
            .map_err(local(format!("cannot write the marker of the mirror `{}`", self.root.display())))
    }

    /// Is there nothing in it, but for what a run of ours that got no further has left?
    pub fn is_empty(&self) -> bool {
        let ours = |entry: std::fs::DirEntry| {
            let name = entry.file_name();
            name.as_encoded_bytes().starts_with(b".ua-") && name != MARKER
        };
        std::fs::read_dir(&self.root).is_ok_and(|mut entries| entries.all(|entry| entry.is_ok_and(ours)))
    }
}

/// The names in a directory; none if it is not there. A name that is no text is no id.
fn names(dir: &Path) -> io::Result<Vec<String>> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry?.file_name().into_string().ok());
    }
    Ok(names)
}

/// Is it one of the databases of a running session, which are left out?
pub fn is_database(path: &Path) -> bool {
    let name = path.file_name().and_then(std::ffi::OsStr::to_str);
    name.is_some_and(|name| DATABASES.contains(&name))
}

/// Names of the databases of a running session.
pub const DATABASES: [&str; 3] = ["runtime_state.db", "runtime_state.db-shm", "runtime_state.db-wal"];

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    #[test]
    fn a_marker_that_cannot_be_written_down_is_an_error_and_no_marker() {
        let dir = tempfile::tempdir().unwrap();
        let mirror = Mirror::at(dir.path(), &dir.path().join("state"), &Patterns::default()).unwrap();
        let odd = Path::new(std::ffi::OsStr::from_bytes(b"/odd\xff"));
        assert!(mirror.bind(&Binding::new("vps", "/ws", odd)).is_err());
        assert!(!dir.path().join(MARKER).exists());
        let plain = Binding::new("vps", "/ws", Path::new("/manifest"));
        mirror.bind(&plain).unwrap();
        assert_eq!(mirror.binding().unwrap(), Some(plain));
    }
}
