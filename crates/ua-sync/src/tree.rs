//! What lies in a directory, as it was put there: the index of a mirrored workspace, and how to compare with it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use crate::listing::Sum;

/// One thing in a workspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Thing {
    /// A directory.
    Directory,
    /// A regular file.
    File {
        /// In bytes.
        size: u64,
        /// When it was written: seconds since 1970.
        seconds: i64,
        /// And nanoseconds.
        nanos: i64,
    },
    /// A symbolic link, and where it leads.
    Link(PathBuf),
    /// A device, a fifo, a socket: never put there by us.
    Other,
}

/// Everything below a directory, by path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree(pub BTreeMap<PathBuf, Thing>);

impl Thing {
    /// What lies at `path`; nothing if there is nothing.
    pub fn at(path: &Path) -> io::Result<Option<Self>> {
        let meta = match std::fs::symlink_metadata(path) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            meta => meta?,
        };
        Self::of(path, &meta).map(Some)
    }

    fn of(path: &Path, meta: &std::fs::Metadata) -> io::Result<Self> {
        let kind = meta.file_type();
        Ok(if kind.is_dir() {
            Self::Directory
        } else if kind.is_file() {
            Self::File { size: meta.size(), seconds: meta.mtime(), nanos: meta.mtime_nsec() }
        } else if kind.is_symlink() {
            Self::Link(std::fs::read_link(path)?)
        } else {
            Self::Other
        })
    }
}

impl Tree {
    /// Walks a directory. Links are not followed.
    pub fn walk(root: &Path) -> io::Result<Self> {
        let mut tree = Self::default();
        let mut open = vec![PathBuf::new()];
        while let Some(dir) = open.pop() {
            for entry in fs_err::read_dir(root.join(&dir))? {
                let entry = entry?;
                let path = dir.join(entry.file_name());
                let thing = Thing::of(&entry.path(), &entry.metadata()?)?;
                if thing == Thing::Directory {
                    open.push(path.clone());
                }
                tree.0.insert(path, thing);
            }
        }
        Ok(tree)
    }

    /// How much content it holds.
    pub fn sum(&self) -> Sum {
        let mut sum = Sum::default();
        for thing in self.0.values() {
            if let Thing::File { size, seconds, .. } = thing {
                sum.files += 1;
                sum.bytes += size;
                // As in `listing.awk`.
                if (0..10_000_000_000).contains(seconds) {
                    sum.times += u64::try_from(*seconds).unwrap_or_default();
                }
            }
        }
        sum
    }

    /// The first thing of it that is not below `root` as it should be. More than what is listed may be there.
    pub fn damage(&self, root: &Path) -> io::Result<Option<PathBuf>> {
        for (path, thing) in &self.0 {
            if Thing::at(&root.join(path))?.as_ref() != Some(thing) {
                return Ok(Some(path.clone()));
            }
        }
        Ok(None)
    }

    /// Links that lead out of the tree, whatever is there: absolute ones, and those that climb above its root at any
    /// step, links on their way included.
    pub fn escaping(&self) -> Vec<PathBuf> {
        let links = self.0.iter().filter(|(_, thing)| matches!(thing, Thing::Link(_)));
        links.filter(|(path, _)| self.escapes(path)).map(|(path, _)| path.clone()).collect()
    }

    fn escapes(&self, link: &Path) -> bool {
        // What is still to be walked, last first; where we are.
        let mut ahead: Vec<PathBuf> = link.components().rev().map(|part| part.as_os_str().into()).collect();
        let mut at = PathBuf::new();
        let mut links = 0;
        while let Some(part) = ahead.pop() {
            match part.components().next() {
                Some(Component::ParentDir) if !at.pop() => return true,
                Some(Component::RootDir | Component::Prefix(_)) => return true,
                Some(Component::Normal(name)) => {
                    at.push(name);
                    if let Some(Thing::Link(target)) = self.0.get(&at) {
                        links += 1;
                        // As many as the system follows; a loop leads nowhere.
                        if links > 40 {
                            return false;
                        }
                        at.pop();
                        ahead.extend(target.components().rev().map(|part| PathBuf::from(part.as_os_str())));
                    }
                }
                _ => {}
            }
        }
        false
    }

    /// As text that [`Tree::parse`] reads; `inode` is that of the directory itself.
    pub fn bytes(&self, signature: &str, inode: u64) -> Vec<u8> {
        let mut bytes = format!("{HEAD}{inode} {signature}\0").into_bytes();
        for (path, thing) in &self.0 {
            let head = match thing {
                Thing::Directory => "d".to_owned(),
                Thing::File { size, seconds, nanos } => format!("f {size} {seconds} {nanos}"),
                Thing::Link(_) => "l".to_owned(),
                Thing::Other => continue,
            };
            bytes.extend_from_slice(head.as_bytes());
            bytes.push(0);
            bytes.extend_from_slice(path.as_os_str().as_bytes());
            bytes.push(0);
            if let Thing::Link(target) = thing {
                bytes.extend_from_slice(target.as_os_str().as_bytes());
                bytes.push(0);
            }
        }
        bytes.extend_from_slice(END);
        bytes
    }

    /// The tree and the signature of an index; nothing if it is not whole.
    pub fn parse(bytes: &[u8]) -> Option<(String, Self)> {
        let body = bytes.strip_prefix(HEAD.as_bytes())?.strip_suffix(END)?;
        let mut fields = body.split(|byte| *byte == 0);
        let signature = std::str::from_utf8(fields.next()?).ok()?.split_once(' ')?.1.to_owned();
        let mut tree = Self::default();
        let path = |field: &[u8]| PathBuf::from(OsStr::from_bytes(field));
        while let Some(head) = fields.next() {
            // Behind the last separator.
            if head.is_empty() {
                break;
            }
            let at = path(fields.next()?);
            let mut words = std::str::from_utf8(head).ok()?.split(' ');
            let thing = match words.next()? {
                "d" => Thing::Directory,
                "l" => Thing::Link(path(fields.next()?)),
                "f" => Thing::File {
                    size: words.next()?.parse().ok()?,
                    seconds: words.next()?.parse().ok()?,
                    nanos: words.next()?.parse().ok()?,
                },
                _ => return None,
            };
            tree.0.insert(at, thing);
        }
        Some((signature, tree))
    }
}

/// Which directory an index is about, as long as its file system numbers directories the same.
pub fn inode(bytes: &[u8]) -> Option<u64> {
    let words = bytes.strip_prefix(HEAD.as_bytes())?;
    let end = words.iter().position(|byte| *byte == b' ')?;
    std::str::from_utf8(&words[..end]).ok()?.parse().ok()
}

const HEAD: &str = "ua-index-1 ";
const END: &[u8] = b"end";

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(things: &[(&str, Thing)]) -> Tree {
        Tree(things.iter().map(|(path, thing)| (PathBuf::from(path), thing.clone())).collect())
    }

    fn link(target: &str) -> Thing {
        Thing::Link(PathBuf::from(target))
    }

    #[test]
    fn p138_links_that_lead_out_by_any_way_are_found() {
        let tree = tree(&[
            ("p", Thing::Directory),
            ("p/q", Thing::Directory),
            ("p/q/up", link("..")),
            ("inside", link("p/q/../q")),
            ("self", link(".")),
            ("loop", link("loop")),
            ("dangling", link("p/nothing")),
            ("absolute", link("/etc/passwd")),
            ("sibling", link("../other/x")),
            // Counted by its words it stays inside.
            ("sly", link("p/q/up/../../secret")),
            ("through", link("sibling/more")),
        ]);
        let mut found: Vec<String> = tree.escaping().iter().map(|path| path.display().to_string()).collect();
        found.sort();
        assert_eq!(found, ["absolute", "sibling", "sly", "through"]);
    }

    #[test]
    fn an_index_is_read_back_whole_or_not_at_all() {
        let file = Thing::File { size: 3, seconds: -5, nanos: 123_456_789 };
        let name: PathBuf = OsStr::from_bytes(b"odd\n\xff name").into();
        let mut tree = tree(&[("a", Thing::Directory), ("a/f", file.clone()), ("l", link("a/f"))]);
        tree.0.insert(name, file);
        let bytes = tree.bytes("1_completed", 42);
        assert_eq!(inode(&bytes), Some(42));
        assert_eq!(Tree::parse(&bytes), Some(("1_completed".to_owned(), tree)));
        for cut in 0..bytes.len() {
            assert_eq!(Tree::parse(&bytes[..cut]), None, "cut at {cut}");
        }
    }

    #[test]
    fn damage_is_anything_that_is_not_as_it_was_put_there() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        std::fs::create_dir(at("sub")).unwrap();
        std::fs::write(at("sub/f"), "abc").unwrap();
        std::os::unix::fs::symlink("sub", at("l")).unwrap();
        let tree = Tree::walk(dir.path()).unwrap();
        assert_eq!(tree.damage(dir.path()).unwrap(), None);
        std::fs::write(at("mine"), "more is no damage").unwrap();
        assert_eq!(tree.damage(dir.path()).unwrap(), None);
        std::fs::write(at("sub/f"), "abcd").unwrap();
        assert_eq!(tree.damage(dir.path()).unwrap(), Some("sub/f".into()));
        std::fs::remove_file(at("l")).unwrap();
        assert_eq!(tree.damage(dir.path()).unwrap(), Some("l".into()));
    }
}
