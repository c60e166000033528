//! `git`: which commit, what is left out of it, and its content as it was committed.
//!
//! Only plumbing is run, with everything switched off that a repository's configuration could make it execute.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::Fact;
use crate::exit::Exit;
use crate::run::{Cmd, Finished, RunError, which};

/// Questions; a large repository on a slow disk included.
const ASK: Duration = Duration::from_mins(2);
/// Writing out a whole commit.
const ARCHIVE: Duration = Duration::from_mins(10);

/// Variables by which a caller's git (a hook, a rebase) would point ours at another repository.
const FOREIGN: [&str; 9] = [
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_NAMESPACE",
    "GIT_CONFIG_PARAMETERS",
    "GIT_CONFIG_COUNT",
];

/// What must not run or rewrite anything while we read.
const QUIET: [&str; 5] = [
    "core.fsmonitor=false",
    "core.hooksPath=/dev/null",
    "core.autocrlf=false",
    "core.eol=lf",
    "submodule.recurse=false",
];

/// Why a repository gives no answer. Nothing was contacted.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// No such program.
    #[error("there is no `git` command on this machine")]
    Missing,
    /// Not a repository, or one that git will not read.
    #[error("`{}` is not a git repository that can be read: {said}", .dir.display())]
    Repository {
        /// The directory.
        dir: PathBuf,
        /// What git said.
        said: String,
    },
    /// No such commit.
    #[error("`{rev}` is not a commit of `{}`", .dir.display())]
    Revision {
        /// The directory.
        dir: PathBuf,
        /// As it was asked.
        rev: String,
    },
    /// A command failed.
    #[error("`git {verb}` failed in `{}`: {said}", .dir.display())]
    Failed {
        /// The directory.
        dir: PathBuf,
        /// What was run.
        verb: &'static str,
        /// What git said.
        said: String,
    },
    /// git could not be run.
    #[error(transparent)]
    Run(#[from] RunError),
}

impl Fact for GitError {
    fn exit(&self) -> Exit {
        match self {
            Self::Run(error) => error.exit(),
            _ => Exit::Usage,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Missing => Some("sudo apt-get install git".to_owned()),
            Self::Repository { .. } => {
                Some("ua-deploy --repo DIR  # the directory of the app's repository".to_owned())
            }
            Self::Revision { dir, .. } => Some(format!("git -C {} log --oneline -5", dir.display())),
            Self::Failed { .. } | Self::Run(_) => None,
        }
    }
}

/// What kind of thing a path of a commit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file.
    File,
    /// A file that may be executed.
    Program,
    /// A symbolic link.
    Link,
    /// A commit of another repository (submodule), which no archive contains.
    Gitlink,
}

/// One path of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// Its name.
    pub name: Name,
}

/// Name of a path, relative to the repository's top.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// The name as text, with U+FFFD for what is none.
    pub text: String,
    /// Is the name UTF-8, so that the text is the name itself?
    pub is_text: bool,
}

impl Name {
    fn read(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self { text: text.to_owned(), is_text: true },
            Err(_) => Self { text: String::from_utf8_lossy(bytes).into_owned(), is_text: false },
        }
    }

    /// Says why lists that have a path a line cannot hold the name; nothing if they can.
    pub fn oddity(&self) -> Option<&'static str> {
        if !self.is_text {
            Some("is not UTF-8 text")
        } else if self.text.chars().any(char::is_control) {
            Some("has a control character in its name")
        } else {
            None
        }
    }
}

impl std::fmt::Display for Name {
    /// Writes the name in one line.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.oddity().is_none() { f.write_str(&self.text) } else { self.text.escape_debug().fmt(f) }
    }
}

/// What leads from one commit to another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Between {
    /// Commits that the second one has and the first one has not, newest first: short id and subject.
    pub commits: Vec<String>,
    /// Paths that only the second one has.
    pub added: Vec<String>,
    /// Paths that differ.
    pub changed: Vec<String>,
    /// Paths that only the first one has.
    pub deleted: Vec<String>,
}

/// A repository.
#[derive(Clone, Debug)]
pub struct Repo {
    top: PathBuf,
}

impl Repo {
    /// The repository whose top is, or contains, `dir`.
    pub fn open(dir: &Path) -> Result<Self, GitError> {
        if which("git").is_none() {
            return Err(GitError::Missing);
        }
        let asked = Self { top: dir.to_path_buf() };
        let finished = asked.git(&["rev-parse", "--show-toplevel"], ASK).output()?;
        if finished.code != 0 {
            return Err(GitError::Repository { dir: dir.to_path_buf(), said: finished.err() });
        }
        // A directory's name may end in a blank.
        let top = finished.stdout.strip_suffix(b"\n").unwrap_or(&finished.stdout);
        Ok(Self { top: PathBuf::from(OsStr::from_bytes(top)) })
    }

    /// Its working tree.
    pub fn top(&self) -> &Path {
        &self.top
    }

    fn git(&self, args: &[&str], limit: Duration) -> Cmd {
        let mut cmd = Cmd::new("env", limit);
        for name in FOREIGN {
            cmd = cmd.args(["-u", name]);
        }
        // Locks would fail a `git` that the operator runs beside us; a prompt would hang.
        cmd = cmd
            .args(["GIT_OPTIONAL_LOCKS=0", "GIT_TERMINAL_PROMPT=0", "LC_ALL=C", "git", "-C"])
            .arg(&self.top);
        for setting in QUIET {
            cmd = cmd.args(["-c", setting]);
        }
        cmd.args(args.iter().copied())
    }

    fn run(&self, verb: &'static str, args: &[&str], limit: Duration) -> Result<Finished, GitError> {
        let finished = self.git(args, limit).output()?;
        if finished.code == 0 {
            return Ok(finished);
        }
        Err(GitError::Failed { dir: self.top.clone(), verb, said: finished.err() })
    }

    /// What leads from one commit to another.
    pub fn between(&self, from: &str, to: &str) -> Result<Between, GitError> {
        let (from, to) = (self.commit(from)?, self.commit(to)?);
        let range = format!("{from}..{to}");
        let log = ["log", "--no-color", "--no-decorate", "--max-count=1000", "--format=%h %s", &range, "--"];
        let log = self.run("log", &log, ASK)?;
        let diff = ["diff-tree", "-r", "-z", "--no-renames", "--name-status", &from, &to, "--"];
        let diff = self.run("diff-tree", &diff, ASK)?;
        let mut between =
            Between { commits: log.out().lines().map(str::to_owned).collect(), ..Between::default() };
        let text = String::from_utf8_lossy(&diff.stdout).into_owned();
        let mut fields = text.split('\0');
        while let (Some(status), Some(path)) = (fields.next(), fields.next()) {
            match status {
                "A" => between.added.push(path.to_owned()),
                "D" => between.deleted.push(path.to_owned()),
                _ => between.changed.push(path.to_owned()),
            }
        }
        Ok(between)
    }

    /// The full id of the commit that `rev` names.
    pub fn commit(&self, rev: &str) -> Result<String, GitError> {
        let unknown = || GitError::Revision { dir: self.top.clone(), rev: rev.to_owned() };
        // git would take it for an option.
        if rev.starts_with('-') || rev.is_empty() {
            return Err(unknown());
        }
        let name = format!("{rev}^{{commit}}");
        let finished = self.git(&["rev-parse", "--verify", "--quiet", &name], ASK).output()?;
        if finished.code == 0 { Ok(finished.out()) } else { Err(unknown()) }
    }

    /// The branch that is checked out; nothing where HEAD is detached.
    pub fn branch(&self) -> Result<Option<String>, GitError> {
        let finished = self.git(&["symbolic-ref", "--short", "--quiet", "HEAD"], ASK).output()?;
        Ok((finished.code == 0).then(|| finished.out()))
    }

    /// Returns paths whose content differs from HEAD, and untracked ones, in one line each with git's two letters before it.
    pub fn uncommitted(&self) -> Result<Vec<String>, GitError> {
        let args = [
            "status",
            "--porcelain=v1",
            "-z",
            "--untracked-files=all",
            "--ignore-submodules=dirty",
            "--no-renames",
        ];
        let finished = self.run("status", &args, ASK)?;
        Ok(names(&finished.stdout).iter().map(ToString::to_string).collect())
    }

    /// What lies at or below `path` in the working tree: what is tracked, even where it was deleted, and what is new and not
    /// ignored. A repository within this one is one path that ends with `/`.
    pub fn files(&self, path: &str) -> Result<Vec<Name>, GitError> {
        self.ls_files(&["--cached", "--others", "--exclude-standard"], path)
    }

    /// What is ignored there; a directory of nothing else is one path that ends with `/`, if `whole`.
    pub fn ignored(&self, path: &str, whole: bool) -> Result<Vec<Name>, GitError> {
        let options = ["--others", "--ignored", "--exclude-standard", "--directory"];
        self.ls_files(if whole { &options } else { &options[..3] }, path)
    }

    fn ls_files(&self, options: &[&str], path: &str) -> Result<Vec<Name>, GitError> {
        let args = [&["--literal-pathspecs", "ls-files", "-z"], options, &["--", path]].concat();
        Ok(names(&self.run("ls-files", &args, ASK)?.stdout))
    }

    /// Which of these paths are not shipped as they are in the working tree: attributes `export-subst`, `export-ignore`.
    pub fn rewritten(&self, all: &[&str]) -> Result<BTreeSet<String>, GitError> {
        let args = ["check-attr", "-z", "--stdin", "export-subst", "export-ignore"];
        let finished = self.git(&args, ASK).stdin(all.join("\0")).output()?;
        if finished.code != 0 {
            return Err(GitError::Failed { dir: self.top.clone(), verb: "check-attr", said: finished.err() });
        }
        let fields = names(&finished.stdout);
        let set = fields.chunks_exact(3).filter(|fields| fields[2].text == "set");
        Ok(set.map(|fields| fields[0].text.clone()).collect())
    }

    /// Every path of `commit`, links and submodules too.
    pub fn entries(&self, commit: &str) -> Result<Vec<Entry>, GitError> {
        let finished = self.run("ls-tree", &["ls-tree", "-r", "-z", "--full-tree", commit], ASK)?;
        Ok(finished.stdout.split(|byte| *byte == 0).filter_map(entry).collect())
    }

    /// Writes the content of `commit` as a tar file, with its attributes (`export-subst`) honoured.
    pub fn archive(&self, commit: &str, file: &Path) -> Result<(), GitError> {
        let output = format!("--output={}", file.display());
        self.run("archive", &["archive", "--format=tar", &output, commit], ARCHIVE).map(drop)
    }
}

/// Splits what git separates by NUL.
fn names(bytes: &[u8]) -> Vec<Name> {
    bytes.split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(Name::read).collect()
}

/// Reads `MODE TYPE ID<TAB>PATH`.
fn entry(line: &[u8]) -> Option<Entry> {
    let tab = line.iter().position(|byte| *byte == b'\t')?;
    let kind = match line[..tab].split(|byte| *byte == b' ').next()? {
        b"100755" => Kind::Program,
        b"120000" => Kind::Link,
        b"160000" => Kind::Gitlink,
        _ => Kind::File,
    };
    Some(Entry { kind, name: Name::read(&line[tab + 1..]) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_entries() {
        let link = entry(b"120000 blob 5d41402abc4b2a76b9719d911017c592ae4ae4a7\ta b/c\td").unwrap();
        assert_eq!((link.kind, link.name.text.as_str(), link.name.is_text), (Kind::Link, "a b/c\td", true));
        assert_eq!(entry(b"160000 commit 00\tlib").unwrap().kind, Kind::Gitlink);
        assert_eq!(entry(b"100755 blob 00\tx").unwrap().kind, Kind::Program);
        assert_eq!(entry(b""), None);
    }

    #[test]
    fn odd_name_is_told_in_one_line() {
        let name = |bytes: &[u8]| {
            let name = Name::read(bytes);
            (name.to_string(), name.oddity())
        };
        let control = Some("has a control character in its name");
        assert_eq!(name(b"a\nb\tc"), ("a\\nb\\tc".to_owned(), control));
        assert_eq!(name(b"del\x7f"), ("del\\u{7f}".to_owned(), control));
        assert_eq!(name(b"caf\xe9"), ("caf\u{fffd}".to_owned(), Some("is not UTF-8 text")));
        // None of these needs a line of its own.
        for plain in
            ["caf\u{e9}", "replaced \u{fffd}", "-rf", "end ", " start", "back\\slash", "it's", "\"q\""]
        {
            assert_eq!(name(plain.as_bytes()), (plain.to_owned(), None));
        }
    }

    #[test]
    fn repository_name_may_end_in_a_blank() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["repo ", "repo\n"] {
            let top = dir.path().canonicalize().unwrap().join(name);
            let init = Cmd::new("git", ASK).args(["init", "--quiet", "--template="]).arg(&top);
            assert_eq!(init.output().unwrap().code, 0);
            assert_eq!(Repo::open(&top).unwrap().top(), top);
        }
    }

    #[test]
    fn an_option_is_no_revision() {
        let repo = Repo { top: PathBuf::from("/") };
        assert!(matches!(repo.commit("--all"), Err(GitError::Revision { .. })));
    }
}
