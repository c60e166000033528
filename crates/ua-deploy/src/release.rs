//! What is shipped: the content of exactly one commit, laid out in a private directory, with a manifest of it.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fs_err as fs;
use sha2::{Digest as _, Sha256};
use ua_common::error::{Fact, Failure};
use ua_common::exit::Exit;
use ua_common::glob;
use ua_common::output::listed;
use ua_common::run::Cmd;
use ua_common::tool::git::{Entry, Kind, Name, Repo};

use ua_common::profile::{Profile, exclude_line};

/// What a path of the release is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A file with this SHA-256.
    File(String),
    /// A file that may be executed.
    Program(String),
    /// A symbolic link to this.
    Link(String),
}

/// One line of the manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// What it is.
    pub what: What,
    /// Relative to the app's directory.
    pub path: String,
}

impl std::fmt::Display for What {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (kind, what) = match self {
            Self::File(digest) => ('f', digest),
            Self::Program(digest) => ('x', digest),
            Self::Link(target) => ('l', target),
        };
        write!(f, "{kind}\t{what}")
    }
}

impl std::fmt::Display for Item {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\t{}", self.what, self.path)
    }
}

/// A path of the commit that is not shipped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Relative to the repository's top.
    pub path: String,
    /// Why.
    pub why: &'static str,
}

/// What to do about a working tree that is not the commit.
pub const CLEAN: &str =
    "ship them: git commit; or put them aside: git stash; or leave them out: ua-deploy --allow-dirty";

/// Why a commit cannot be shipped. Nothing was contacted.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// The working tree is not the commit.
    #[error("`{}` is not what HEAD says: {}", .top.display(), listed(.paths))]
    Dirty {
        /// The repository.
        top: PathBuf,
        /// What differs.
        paths: Vec<String>,
    },
    /// Paths that a line-oriented manifest cannot hold.
    #[error("{}", odd_paths(.paths))]
    OddPaths {
        /// The paths, and why not.
        paths: Vec<(Name, &'static str)>,
    },
    /// `deploy.include` names what must not be shipped.
    #[error("`{}` of deploy.include {why}", .path.escape_debug())]
    Include {
        /// The path.
        path: String,
        /// Why not.
        why: &'static str,
    },
    /// A unit file that the profile installs is not there.
    #[error("commit {commit} has no `{path}`, which the profile installs as a unit file")]
    NoTemplate {
        /// The commit.
        commit: String,
        /// The path.
        path: String,
    },
    /// Nothing left to ship.
    #[error("commit {commit} has nothing to ship")]
    Empty {
        /// The commit.
        commit: String,
    },
}

impl Fact for ReleaseError {
    fn exit(&self) -> Exit {
        Exit::Usage
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Dirty { .. } => Some(CLEAN.to_owned()),
            Self::OddPaths { paths } => Some(exclude_line(paths.iter().map(|(name, _)| name.text.as_str()))),
            Self::Include { .. } => Some("env UA_DEPLOY_INCLUDE= ua-deploy --dry-run".to_owned()),
            Self::NoTemplate { .. } | Self::Empty { .. } => None,
        }
    }
}

fn odd_paths(paths: &[(Name, &'static str)]) -> String {
    let shown: Vec<String> = paths.iter().map(|(name, why)| format!("`{name}` {why}")).collect();
    match shown.as_slice() {
        [one] => one.clone(),
        all => format!("{} paths cannot be shipped: {}", all.len(), listed(all)),
    }
}

/// A commit, ready to be uploaded.
#[derive(Debug)]
pub struct Release {
    /// Where it is laid out.
    dir: PathBuf,
    /// Its full id.
    pub commit: String,
    /// What is checked out, if it is a branch.
    pub branch: Option<String>,
    /// Every file and link, by path.
    pub items: Vec<Item>,
    /// What of the commit is left out.
    pub skipped: Vec<Skipped>,
    /// What of the working tree is not in the commit.
    pub left_out: Vec<String>,
    /// Size of all files.
    pub bytes: u64,
}

/// What to do with a working tree that is not the commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dirty {
    /// Refuse.
    Refuse,
    /// Ship the commit without it.
    LeaveOut,
}

impl Release {
    /// Takes `rev` of the repository out of git, into a directory that nobody else sees.
    pub fn take(
        repo: &Repo,
        rev: &str,
        dirty: Dirty,
        include: &[String],
        profile: &Profile,
        dir: &Path,
    ) -> anyhow::Result<Self> {
        let commit = repo.commit(rev).map_err(Failure::from)?;
        let left_out = repo.uncommitted().map_err(Failure::from)?;
        if dirty == Dirty::Refuse && !left_out.is_empty() {
            let top = repo.top().to_path_buf();
            return Err(Failure::from(ReleaseError::Dirty { top, paths: left_out }).into());
        }
        let entries = repo.entries(&commit).map_err(Failure::from)?;
        let (kept, mut skipped) = sort_out(entries, profile)?;

        let tree = dir.join("tree");
        fs::create_dir(&tree)?;
        extract(repo, &commit, dir, &tree)?;
        let (mut items, mut odd) = (Vec::new(), Vec::new());
        let mut bytes = 0;
        for Entry { kind, name } in kept {
            let path = name.text.clone();
            let file = tree.join(&path);
            if fs::symlink_metadata(&file).is_err() {
                skipped.push(Skipped { path, why: "marked export-ignore" });
                continue;
            }
            let what = match kind {
                Kind::Link => match link_target(&file)? {
                    Ok(target) => What::Link(target),
                    Err(why) => {
                        odd.push((name, why));
                        continue;
                    }
                },
                Kind::Program => What::Program(digest(&file, 0o755, &mut bytes)?),
                Kind::File | Kind::Gitlink => What::File(digest(&file, 0o644, &mut bytes)?),
            };
            items.push(Item { what, path });
        }
        if !odd.is_empty() {
            return Err(Failure::from(ReleaseError::OddPaths { paths: odd }).into());
        }
        for path in include {
            add(repo.top(), path, &tree, profile, &mut items, &mut bytes)?;
        }
        items.sort_by(|a, b| a.path.cmp(&b.path));
        items.dedup_by(|a, b| a.path == b.path);
        if items.is_empty() {
            return Err(Failure::from(ReleaseError::Empty { commit }).into());
        }
        if let Some((path, _)) =
            profile.template_names().find(|(path, _)| items.iter().all(|it| it.path != ***path))
        {
            return Err(Failure::from(ReleaseError::NoTemplate { commit, path: path.to_string() }).into());
        }
        remove_unlisted(&tree, &items)?;
        // Another commit than the one that is checked out is of no branch that we know.
        let checked_out = repo.commit("HEAD").map_err(Failure::from)? == commit;
        let branch = if checked_out { repo.branch().map_err(Failure::from)? } else { None };
        Ok(Self { dir: dir.to_owned(), commit, branch, items, skipped, left_out, bytes })
    }

    /// One that only a manifest tells of.
    #[cfg(test)]
    pub fn of(paths: &[(&str, &str)]) -> Self {
        let item = |(path, digest): &(&str, &str)| Item {
            what: What::File((*digest).to_owned()),
            path: (*path).to_owned(),
        };
        Self {
            dir: PathBuf::new(),
            commit: "new".to_owned(),
            branch: None,
            items: paths.iter().map(item).collect(),
            skipped: Vec::new(),
            left_out: Vec::new(),
            bytes: 0,
        }
    }

    /// The directory to upload.
    pub fn tree(&self) -> PathBuf {
        self.dir.join("tree")
    }

    /// The manifest, a line per file or link.
    pub fn manifest(&self) -> String {
        self.items.iter().map(|item| format!("{item}\n")).collect()
    }

    /// The digest of the manifest.
    pub fn manifest_digest(&self) -> String {
        hex(&Sha256::digest(self.manifest()))
    }

    /// Size of these paths, in bytes.
    pub fn size_of(&self, paths: &BTreeSet<String>) -> u64 {
        let tree = self.tree();
        paths
            .iter()
            .filter_map(|path| fs::symlink_metadata(tree.join(path)).ok())
            .map(|meta| meta.len())
            .sum()
    }

    /// Leaves only these paths in the directory to upload.
    pub fn keep_only(&self, paths: &BTreeSet<String>) -> anyhow::Result<()> {
        let tree = self.tree();
        sweep(&tree, &paths.iter().map(|path| tree.join(path)).collect()).map(drop)
    }

    /// One digest over everything that `patterns` mean, and over `how` it is used: it changes if any of it does.
    pub fn digest_of(&self, patterns: &[glob::Pattern], how: &str) -> String {
        let mut hash = Sha256::new();
        hash.update(format!("{how}\n"));
        for item in self.items.iter().filter(|item| glob::any(patterns, &item.path)) {
            hash.update(format!("{item}\n"));
        }
        hex(&hash.finalize())
    }
}

/// Which entries are shipped, and why the others are not.
fn sort_out(entries: Vec<Entry>, profile: &Profile) -> Result<(Vec<Entry>, Vec<Skipped>), Failure> {
    let (mut kept, mut skipped, mut odd) = (Vec::new(), Vec::new(), Vec::new());
    for entry in entries {
        let path = entry.name.text.as_str();
        let why = if entry.kind == Kind::Gitlink {
            "a submodule (gitlink)"
        } else if profile.is_secret(path) {
            "looks like a secret"
        } else if glob::any(&profile.source.exclude, path) {
            "excluded by the profile"
        } else {
            match entry.name.oddity() {
                // Only what is shipped needs a plain name.
                Some(why) => odd.push((entry.name, why)),
                None => kept.push(entry),
            }
            continue;
        };
        skipped.push(Skipped { path: entry.name.to_string(), why });
    }
    if odd.is_empty() { Ok((kept, skipped)) } else { Err(ReleaseError::OddPaths { paths: odd }.into()) }
}

/// Lays the commit out, by git's own archive: only the commit, whatever lies beside it.
fn extract(repo: &Repo, commit: &str, dir: &Path, tree: &Path) -> anyhow::Result<()> {
    let archive = dir.join("commit.tar");
    repo.archive(commit, &archive).map_err(Failure::from)?;
    let tar = Cmd::new("tar", Duration::from_mins(10))
        .args(["--extract", "--file"])
        .arg(&archive)
        .arg("--directory");
    let finished = tar.arg(tree).output().map_err(Failure::from)?;
    anyhow::ensure!(finished.code == 0, "`tar` could not lay out commit {commit}: {}", finished.err());
    fs::remove_file(archive)?;
    Ok(())
}

/// Returns where a link leads, or why a manifest cannot hold that.
fn link_target(file: &Path) -> anyhow::Result<Result<String, &'static str>> {
    let target = fs::read_link(file)?.into_os_string().into_string();
    Ok(match target {
        Ok(target) if target.chars().any(char::is_control) => Err("leads to a name with a control character"),
        Ok(target) => Ok(target),
        Err(_) => Err("leads to a name that is not UTF-8 text"),
    })
}

/// The digest of a file, whose mode is made what git says.
fn digest(file: &Path, mode: u32, bytes: &mut u64) -> anyhow::Result<String> {
    fs::set_permissions(file, std::fs::Permissions::from_mode(mode))?;
    let mut input = fs::File::open(file)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 128 * 1024];
    loop {
        let length = input.read(&mut buffer)?;
        if length == 0 {
            return Ok(hex(&hash.finalize()));
        }
        hash.update(&buffer[..length]);
        *bytes += length as u64;
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Adds a path of `deploy.include`, a directory with all below it.
fn add(
    top: &Path,
    path: &str,
    tree: &Path,
    profile: &Profile,
    items: &mut Vec<Item>,
    bytes: &mut u64,
) -> anyhow::Result<()> {
    let refuse =
        |why| anyhow::Error::from(Failure::from(ReleaseError::Include { path: path.to_owned(), why }));
    let path = path.trim_end_matches('/');
    if path.split('/').any(|part| matches!(part, "" | "." | ".." | ".git")) {
        return Err(refuse("is not a path inside the repository"));
    }
    if path.chars().any(char::is_control) {
        return Err(refuse("has a control character in its name"));
    }
    if profile.is_secret(path) {
        return Err(refuse("looks like a secret"));
    }
    // Behind a link lies what belongs to somebody else.
    let parents = Path::new(path).ancestors().skip(1).filter(|parent| *parent != Path::new(""));
    let linked = |parent: &Path| [top, tree].iter().any(|root| root.join(parent).is_symlink());
    if parents.into_iter().any(linked) {
        return Err(refuse("lies behind a symbolic link"));
    }
    let from = top.join(path);
    let Ok(meta) = fs::symlink_metadata(&from) else { return Err(refuse("does not exist")) };
    if meta.is_dir() {
        let mut names = Vec::new();
        for entry in fs::read_dir(&from)? {
            let name = entry?.file_name().into_string();
            names.push(name.map_err(|_| refuse("has something below it whose name is not UTF-8 text"))?);
        }
        names.sort_unstable();
        return names
            .iter()
            .try_for_each(|name| add(top, &format!("{path}/{name}"), tree, profile, items, bytes));
    }
    if !meta.is_file() {
        return Err(refuse("is neither a file nor a directory"));
    }
    let to = tree.join(path);
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    if fs::symlink_metadata(&to).is_ok() {
        fs::remove_file(&to)?;
    }
    fs::copy(&from, &to)?;
    let program = meta.permissions().mode() & 0o111 != 0;
    let what = if program {
        What::Program(digest(&to, 0o755, bytes)?)
    } else {
        What::File(digest(&to, 0o644, bytes)?)
    };
    // What the working tree has goes before what the commit has.
    items.retain(|item| item.path != path);
    items.push(Item { what, path: path.to_owned() });
    Ok(())
}

/// Takes out of the tree what is not in the manifest: skipped paths, and directories that they leave empty.
fn remove_unlisted(tree: &Path, items: &[Item]) -> anyhow::Result<()> {
    let listed: BTreeSet<PathBuf> = items.iter().map(|item| tree.join(&item.path)).collect();
    sweep(tree, &listed).map(drop)
}

/// Is anything left in `dir`?
fn sweep(dir: &Path, listed: &BTreeSet<PathBuf>) -> anyhow::Result<bool> {
    let mut left = false;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            if sweep(&path, listed)? {
                left = true;
            } else {
                fs::remove_dir(&path)?;
            }
        } else if listed.contains(&path) {
            left = true;
        } else {
            fs::remove_file(&path)?;
        }
    }
    Ok(left)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    use tempfile::TempDir;

    use super::*;

    /// A repository with everything in it that must not travel.
    struct Checkout {
        dir: TempDir,
        /// Where it is laid out, each time in a directory of its own.
        out: TempDir,
    }

    impl Checkout {
        fn new() -> Self {
            let checkout = Self { dir: TempDir::new().unwrap(), out: TempDir::new().unwrap() };
            checkout.git(&["init", "--quiet", "--initial-branch=main", "--template="]);
            checkout.write("deployment/systemd/universal-agent-vp-worker@.service", "[Unit]\n");
            checkout.write("src/universal_agent/artifacts/__init__.py", "");
            checkout.write("src/universal_agent/tools/tmp/__init__.py", "");
            checkout.write("app.py", "committed\n");
            checkout.write(".gitignore", "/ignored\n");
            checkout.commit();
            checkout
        }

        fn git(&self, args: &[&str]) {
            let git = Cmd::new("git", Duration::from_secs(20)).args(["-C"]).arg(self.dir.path());
            let git = git.args(["-c", "user.name=Universal Agent", "-c", "user.email=ua@localhost"]);
            let finished = git.args(args.iter().copied()).output().unwrap();
            assert_eq!(finished.code, 0, "{}", finished.err());
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn commit(&self) {
            self.git(&["add", "--all", "--force"]);
            self.git(&["commit", "--quiet", "--message", "x"]);
        }

        fn take(&self, dirty: Dirty, include: &[&str]) -> anyhow::Result<Release> {
            self.take_rev("HEAD", dirty, include)
        }

        fn take_rev(&self, rev: &str, dirty: Dirty, include: &[&str]) -> anyhow::Result<Release> {
            let repo = Repo::open(self.dir.path()).unwrap();
            let include: Vec<String> = include.iter().map(|path| (*path).to_owned()).collect();
            let out = TempDir::new_in(self.out.path()).unwrap().keep();
            Release::take(&repo, rev, dirty, &include, &Profile::built_in().unwrap(), &out)
        }

        fn take_by(&self, profile: &Profile) -> anyhow::Result<Release> {
            let repo = Repo::open(self.dir.path()).unwrap();
            let out = TempDir::new_in(self.out.path()).unwrap().keep();
            Release::take(&repo, "HEAD", Dirty::Refuse, &[], profile, &out)
        }
    }

    fn paths(release: &Release) -> Vec<&str> {
        release.items.iter().map(|item| item.path.as_str()).collect()
    }

    /// What really lies in the directory that is uploaded.
    fn tree(release: &Release) -> Vec<String> {
        let find = Cmd::new("find", Duration::from_secs(20))
            .arg(release.tree())
            .args(["!", "-type", "d", "-printf", "%P\n"]);
        let mut paths: Vec<String> = find.output().unwrap().out().lines().map(str::to_owned).collect();
        paths.sort();
        paths
    }

    #[test]
    fn p06_only_the_commit_is_shipped() {
        let checkout = Checkout::new();
        checkout.write("app.py", "edited\n");
        checkout.write("staged.py", "staged\n");
        checkout.git(&["add", "staged.py"]);
        checkout.write("untracked.py", "untracked\n");
        checkout.write("ignored", "ignored\n");
        let error = checkout.take(Dirty::Refuse, &[]).unwrap_err();
        let (exit, hint) = Failure::within(&error);
        assert_eq!(exit, Exit::Usage);
        assert!(hint.unwrap().contains("--allow-dirty"));
        let said = error.to_string();
        for path in [" M app.py", "A  staged.py", "?? untracked.py"] {
            assert!(said.contains(path), "{said}");
        }
        assert!(!said.contains("ignored"), "{said}");
        let release = checkout.take(Dirty::LeaveOut, &[]).unwrap();
        assert_eq!(fs::read_to_string(release.tree().join("app.py")).unwrap(), "committed\n");
        assert_eq!(tree(&release), paths(&release));
        assert!(
            !tree(&release)
                .iter()
                .any(|path| path.contains("staged") || path.contains("untracked") || path == "ignored")
        );
        assert_eq!(release.left_out.len(), 3);
    }

    #[test]
    fn p08_secrets_and_databases_stay_even_if_committed() {
        let checkout = Checkout::new();
        let secrets = [
            ".env",
            ".env.local",
            "web-ui/.env.production",
            "deep/er/server.key",
            "state.db",
            "id_ed25519",
            "csi.env",
        ];
        for path in secrets {
            checkout.write(path, "x");
        }
        checkout.write(".env.example", "X=");
        checkout.commit();
        let release = checkout.take(Dirty::Refuse, &[]).unwrap();
        for path in secrets {
            assert!(!tree(&release).iter().any(|shipped| shipped == path), "{path}");
            assert!(
                release.skipped.iter().any(|it| it.path == path && it.why == "looks like a secret"),
                "{path}"
            );
        }
        assert!(paths(&release).contains(&".env.example"));
    }

    #[test]
    fn p09_a_worktree_s_git_file_stays() {
        let checkout = Checkout::new();
        let worktree = checkout.dir.path().join("ignored");
        checkout.git(&["worktree", "add", "--quiet", worktree.to_str().unwrap(), "-b", "other"]);
        assert!(worktree.join(".git").is_file());
        let repo = Repo::open(&worktree).unwrap();
        let (profile, out) = (Profile::built_in().unwrap(), checkout.out.path());
        let release = Release::take(&repo, "HEAD", Dirty::Refuse, &[], &profile, out).unwrap();
        assert!(!tree(&release).iter().any(|path| path.starts_with(".git/") || path == ".git"));
        assert_eq!(release.branch.as_deref(), Some("other"));
    }

    #[test]
    fn p10_packages_named_like_runtime_directories_are_shipped() {
        let checkout = Checkout::new();
        checkout.write("artifacts/made-by-a-run.txt", "x");
        checkout.write("tmp/scratch", "x");
        checkout.commit();
        let release = checkout.take(Dirty::Refuse, &[]).unwrap();
        let shipped = tree(&release);
        assert!(shipped.iter().any(|path| path == "src/universal_agent/artifacts/__init__.py"));
        assert!(shipped.iter().any(|path| path == "src/universal_agent/tools/tmp/__init__.py"));
        assert!(!shipped.iter().any(|path| path.starts_with("artifacts/") || path.starts_with("tmp/")));
    }

    #[test]
    fn p11_what_was_built_on_the_laptop_stays_there() {
        let checkout = Checkout::new();
        // Even if somebody committed it.
        let built = ["web-ui/node_modules/left-pad/index.js", "web-ui/.next/BUILD_ID", ".venv/bin/python"];
        for path in built {
            checkout.write(path, "x");
        }
        checkout.commit();
        checkout.write("web-ui/node_modules/late.js", "x");
        let release = checkout.take(Dirty::LeaveOut, &[]).unwrap();
        for path in built {
            assert!(!tree(&release).iter().any(|shipped| shipped == path), "{path}");
        }
        assert!(!tree(&release).iter().any(|path| path.ends_with("late.js")));
    }

    #[test]
    fn modes_links_and_the_commit_s_own_id() {
        let checkout = Checkout::new();
        checkout.write("run.sh", "#!/bin/sh\n");
        checkout.write("_release.txt", "$Format:%H$\n");
        checkout.write(".gitattributes", "_release.txt export-subst\nprivate.txt export-ignore\n");
        checkout.write("private.txt", "x");
        std::os::unix::fs::symlink("app.py", checkout.dir.path().join("link")).unwrap();
        fs::set_permissions(checkout.dir.path().join("run.sh"), std::fs::Permissions::from_mode(0o700))
            .unwrap();
        checkout.commit();
        let release = checkout.take(Dirty::Refuse, &[]).unwrap();
        let item = |path: &str| &release.items.iter().find(|item| item.path == path).unwrap().what;
        assert!(matches!(item("run.sh"), What::Program(_)) && matches!(item("app.py"), What::File(_)));
        assert_eq!(item("link"), &What::Link("app.py".to_owned()));
        let text = fs::read_to_string(release.tree().join("_release.txt")).unwrap();
        assert_eq!(text.trim(), release.commit);
        assert_eq!(
            release.skipped,
            [Skipped { path: "private.txt".to_owned(), why: "marked export-ignore" }]
        );
        let line = format!("f\t{}\tapp.py", sha256sum("committed\n"));
        assert!(release.manifest().lines().any(|it| it == line), "{line} in\n{}", release.manifest());
    }

    fn sha256sum(text: &str) -> String {
        Cmd::new("sha256sum", Duration::from_secs(5)).stdin(text).output().unwrap().out()[..64].to_owned()
    }

    #[test]
    fn included_paths_travel_and_secrets_among_them_do_not() {
        let checkout = Checkout::new();
        checkout.write("ignored/built.txt", "made here");
        checkout.write("ignored/sub/more.txt", "too");
        let release = checkout.take(Dirty::Refuse, &["ignored/"]).unwrap();
        assert!(paths(&release).contains(&"ignored/sub/more.txt") && tree(&release) == paths(&release));
        checkout.write("ignored/.env", "X=1");
        // A directory that is tracked as a link leads to somebody's own files.
        let own = TempDir::new().unwrap();
        fs::write(own.path().join("own.txt"), "precious").unwrap();
        std::os::unix::fs::symlink(own.path(), checkout.dir.path().join("data")).unwrap();
        checkout.git(&["add", "data"]);
        checkout.git(&["commit", "--quiet", "--message", "link"]);
        let error = checkout.take(Dirty::Refuse, &["data/own.txt"]).unwrap_err();
        assert_eq!(Failure::within(&error).0, Exit::Usage, "{error}");
        assert_eq!(fs::read_to_string(own.path().join("own.txt")).unwrap(), "precious");
        for wrong in ["ignored", "../x", ".git/config", "/etc/passwd", "nowhere"] {
            let error = checkout.take(Dirty::Refuse, &[wrong]).unwrap_err();
            assert_eq!(Failure::within(&error).0, Exit::Usage, "{wrong}: {error}");
        }
    }

    /// The profile with what a hint proposes.
    fn profile_with(hint: &str) -> Profile {
        let mut profile = Profile::built_in().unwrap();
        let line: toml::Table = toml::from_str(hint).unwrap();
        let patterns = line["exclude"].as_array().unwrap().iter();
        let patterns = patterns.map(|it| glob::Pattern::try_from(it.as_str().unwrap().to_owned()).unwrap());
        profile.source.exclude.extend(patterns);
        profile
    }

    #[test]
    fn odd_path_is_refused_with_its_exclusion() {
        let checkout = Checkout::new();
        // As the real app has one, and what git lists quoted otherwise.
        let names: [&[u8]; 5] = [
            b"{r.status_code})\n        txt=(r.text or )[:240]\n        print(txt.replace(n,",
            b"docs/tab\there",
            b"docs/\"del\"\x7f\\",
            b"caf\xe9.md",
            b"src/line\r",
        ];
        for name in names {
            let path = checkout.dir.path().join(OsStr::from_bytes(name));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        std::os::unix::fs::symlink("a\nb", checkout.dir.path().join("docs/link")).unwrap();
        std::os::unix::fs::symlink(OsStr::from_bytes(b"caf\xe9"), checkout.dir.path().join("docs/latin"))
            .unwrap();
        checkout.commit();
        let refused = |profile: &Profile| {
            let error = checkout.take_by(profile).unwrap_err();
            let (exit, hint) = Failure::within(&error);
            assert_eq!(exit, Exit::Usage, "{error}");
            (error.to_string(), hint.unwrap().to_owned())
        };
        let (said, hint) = refused(&Profile::built_in().unwrap());
        assert!(said.starts_with("5 paths cannot be shipped: ") && !said.contains('\n'), "{said}");
        for shown in [
            "`docs/tab\\there` has a control character in its name",
            "`caf\u{fffd}.md` is not UTF-8 text",
            "`{r.status_code})\\n        txt=(r.text or )[:240]\\n        print(txt.replace(n,` has a control",
        ] {
            assert!(said.contains(shown), "{shown} in {said}");
        }
        assert!(
            hint.starts_with("exclude = [")
                && hint.ends_with("  # in [source] of the profile, beside what is there")
        );
        let profile = profile_with(&hint);
        // Links are odd by where they lead.
        let (said, hint) = refused(&profile);
        assert!(said.contains("`docs/link` leads to a name with a control character"), "{said}");
        assert!(said.contains("`docs/latin` leads to a name that is not UTF-8 text"), "{said}");
        let mut all = profile_with(&hint);
        all.source.exclude.extend(profile.source.exclude);
        let release = checkout.take_by(&all).unwrap();
        assert_eq!(tree(&release), paths(&release), "nothing odd is left in what is uploaded");
        let skipped: Vec<&str> = release.skipped.iter().map(|it| it.path.as_str()).collect();
        assert_eq!(skipped.len(), 7, "{skipped:?}");
        assert!(skipped.contains(&"docs/tab\\there") && !skipped.concat().contains('\n'), "{skipped:?}");
        // One alone is told as it is.
        let (said, hint) = refused(&profile_with("exclude = ['docs/**', 'caf*', 'src/line?']"));
        assert!(
            said.starts_with("`{r.status_code})\\n ")
                && said.ends_with("has a control character in its name"),
            "{said}"
        );
        assert_eq!(
            hint.split("  # ").next().unwrap(),
            "exclude = [\"{r.status_code})?        txt=(r.text or )[:240]?        print(txt.replace(n,\"]"
        );
    }

    #[test]
    fn unusual_path_is_shipped() {
        let checkout = Checkout::new();
        let names = [
            "-rf",
            "docs/end ",
            " start",
            "back\\slash",
            "it's \"so\" [1]*",
            "caf\u{e9}",
            "#x",
            "a;b",
            "\u{fffd}",
        ];
        for name in names {
            checkout.write(name, "x");
        }
        checkout.commit();
        let release = checkout.take(Dirty::Refuse, &[]).unwrap();
        for name in names {
            assert!(paths(&release).contains(&name), "{name}");
        }
        assert_eq!(tree(&release), paths(&release));
    }

    #[test]
    fn odd_included_path_is_refused() {
        let checkout = Checkout::new();
        for (name, why) in [
            (&b"ignored/a\nb"[..], "`ignored/a\\nb` of deploy.include has a control character in its name"),
            (
                b"ignored/caf\xe9",
                "`ignored` of deploy.include has something below it whose name is not UTF-8 text",
            ),
        ] {
            let path = checkout.dir.path().join(OsStr::from_bytes(name));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "x").unwrap();
            let error = checkout.take(Dirty::Refuse, &["ignored"]).unwrap_err();
            assert_eq!((Failure::within(&error).0, error.to_string().as_str()), (Exit::Usage, why));
            fs::remove_file(path).unwrap();
        }
    }

    #[test]
    fn a_commit_without_its_unit_file_is_refused_here() {
        let checkout = Checkout::new();
        checkout.git(&["rm", "-r", "--quiet", "deployment"]);
        checkout.commit();
        assert_eq!(Failure::within(&checkout.take(Dirty::Refuse, &[]).unwrap_err()).0, Exit::Usage);
    }

    #[test]
    fn inputs_change_their_digest_and_nothing_else_does() {
        let checkout = Checkout::new();
        let digest = |checkout: &Checkout| {
            let release = checkout.take(Dirty::Refuse, &[]).unwrap();
            let patterns = [glob::Pattern::try_from("web-ui/**".to_owned()).unwrap()];
            assert_ne!(release.digest_of(&patterns, "npm ci"), release.digest_of(&patterns, "npm install"));
            release.digest_of(&patterns, "npm ci")
        };
        let empty = digest(&checkout);
        checkout.write("app.py", "other\n");
        checkout.commit();
        assert_eq!(digest(&checkout), empty);
        checkout.write("web-ui/page", "x");
        checkout.commit();
        assert_ne!(digest(&checkout), empty);
        let repo = Repo::open(checkout.dir.path()).unwrap();
        let older = checkout.take_rev("HEAD~1", Dirty::Refuse, &[]).unwrap();
        assert_eq!((older.branch, older.commit), (None, repo.commit("HEAD~1").unwrap()));
    }
}
