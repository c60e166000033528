//! Any git repository as the app's: whether its commit is complete, and a copy of it for the laptop.

use anyhow::ensure;
use camino::{Utf8Path, Utf8PathBuf};
use duct::Expression;
use fs_err as fs;

use crate::app::git;
use crate::cmd::Cmd;

/// How many files an error names.
const NAMED: usize = 10;

/// Resolves the path of a repository whose `HEAD` is complete.
pub fn parse(text: &str) -> Result<Utf8PathBuf, String> {
    let repo = Utf8Path::new(text).canonicalize_utf8().map_err(|error| error.to_string())?;
    let absent = absent_files(&repo).map_err(|error| format!("{error:#}"))?;
    let Some(count) = Some(absent.len()).filter(|&count| count > 0) else { return Ok(repo) };
    let names = absent.iter().take(NAMED).map(|path| format!("{path:?}")).collect::<Vec<_>>().join(", ");
    let more = if count > NAMED { format!(" and {} more", count - NAMED) } else { String::new() };
    Err(format!("the repository lacks the content of {count} files of its HEAD: {names}{more}"))
}

/// Returns the files of `HEAD` whose content the repository does not have, as a snapshot without large files leaves
/// them out. What a submodule entry names is never content of the repository.
fn absent_files(repo: &Utf8Path) -> anyhow::Result<Vec<String>> {
    // A name may contain a newline.
    let listed = read(&git(repo, 0, &["ls-tree", "-r", "-z", "--full-tree", "HEAD"]))?;
    let files: Vec<(&str, &str)> = listed.split('\0').filter_map(blob).collect();
    let ids: String = files.iter().map(|(id, _)| format!("{id}\n")).collect();
    let ask = git(repo, 0, &["cat-file", "--batch-check=%(objectname)"]).stdin_bytes(ids);
    // A partial clone would otherwise ask its remote.
    let known = read(&ask.env("GIT_NO_LAZY_FETCH", "1"))?;
    let absent: Vec<&str> = known.lines().filter_map(|line| line.strip_suffix(" missing")).collect();
    Ok(files.into_iter().filter(|(id, _)| absent.contains(id)).map(|(_, path)| path.to_owned()).collect())
}

/// Returns the output of git, as text; its stderr is the error.
fn read(git: &Expression) -> anyhow::Result<String> {
    let output = git.stdout_capture().stderr_capture().unchecked().run()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The id and path in an entry of `git ls-tree` that is a file.
fn blob(entry: &str) -> Option<(&str, &str)> {
    let (about, path) = entry.split_once('\t')?;
    let mut about = about.split(' ').skip(1);
    (about.next() == Some("blob")).then_some((about.next()?, path))
}

/// Makes a repository in `dest` with the branches and the `HEAD` of `repo`, and all objects that `repo` has: an
/// earlier commit need not be complete, for which `git clone` alone would fail. Uncommitted files stay behind.
pub fn copy(repo: &Utf8Path, dest: &Utf8Path) -> anyhow::Result<()> {
    fs::create_dir_all(dest)?;
    let run = |args: &[&str]| git(dest, 0, args).stdout_null().run().map(drop);
    run(&["clone", "--quiet", "--bare", "--shared", "--template=", repo.as_str(), ".git"])?;
    run(&["config", "core.bare", "false"])?;
    run(&["remote", "remove", "origin"])?;
    let objects = dest.join(".git/objects");
    for source in borrowed(&git(dest, 0, &["count-objects", "-v"]).read()?) {
        Cmd::new(["cp", "--recursive", "--no-target-directory", source, objects.as_str()]).run()?;
    }
    fs::remove_file(objects.join("info/alternates"))?;
    run(&["reset", "--quiet", "--hard"])?;
    Ok(())
}

/// The object directories that a repository borrows from, in the output of `git count-objects -v`.
fn borrowed(counted: &str) -> impl Iterator<Item = &str> {
    counted.lines().filter_map(|line| line.strip_prefix("alternate: "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::{Edit, commit_edit, make_repo};

    const PLAIN: &str = "docs/plain";
    const ODD: &str = "docs/two\nlines";

    struct Sandbox {
        repo: Utf8PathBuf,
        dir: Utf8PathBuf,
        _temp: tempfile::TempDir,
    }

    impl Sandbox {
        fn new() -> Self {
            let temp = tempfile::tempdir().unwrap();
            let dir = Utf8Path::from_path(temp.path()).unwrap().canonicalize_utf8().unwrap();
            let repo = dir.join("app");
            make_repo(&repo, crate::app::Shape::Feb).unwrap();
            Self { repo, dir, _temp: temp }
        }

        fn write(&self, path: &str, text: &str) {
            commit_edit(&self.repo, &Edit::Write(path.into(), text.into())).unwrap();
        }

        /// Takes the content of a file out of the repository, as a snapshot does that lacks it.
        fn lose(&self, revision: &str) {
            let id = run(&self.repo, &["rev-parse", revision]);
            let (start, rest) = id.split_at(2);
            fs::remove_file(self.repo.join(".git/objects").join(start).join(rest)).unwrap();
        }
    }

    fn run(repo: &Utf8Path, args: &[&str]) -> String {
        git(repo, 0, args).read().unwrap()
    }

    #[test]
    fn complete_repository_is_accepted() {
        let sandbox = Sandbox::new();
        sandbox.write(ODD, "odd\n");
        assert_eq!(parse(sandbox.repo.as_str()), Ok(sandbox.repo.clone()));
    }

    #[test]
    fn absent_blobs_are_named() {
        let sandbox = Sandbox::new();
        for (path, text) in [(PLAIN, "plain\n"), (ODD, "odd\n"), ("docs/kept", "kept\n")] {
            sandbox.write(path, text);
        }
        sandbox.lose(&format!("HEAD:{PLAIN}"));
        sandbox.lose(&format!("HEAD:{ODD}"));
        let error = parse(sandbox.repo.as_str()).unwrap_err();
        let names = r#""docs/plain", "docs/two\nlines""#;
        assert_eq!(error, format!("the repository lacks the content of 2 files of its HEAD: {names}"));
    }

    #[test]
    fn many_absent_blobs_are_counted() {
        let sandbox = Sandbox::new();
        for number in 0..12 {
            sandbox.write(&format!("docs/{number}"), &format!("{number}\n"));
        }
        for number in 0..12 {
            sandbox.lose(&format!("HEAD:docs/{number}"));
        }
        let error = parse(sandbox.repo.as_str()).unwrap_err();
        assert!(error.contains("12 files") && error.ends_with(" and 2 more"), "{error}");
    }

    #[test]
    fn submodule_entry_is_not_absent_content() {
        let sandbox = Sandbox::new();
        let entry = format!("160000,{},elsewhere", "1".repeat(40));
        run(&sandbox.repo, &["update-index", "--add", "--cacheinfo", &entry]);
        run(&sandbox.repo, &["commit", "--quiet", "--message", "Add a submodule entry"]);
        parse(sandbox.repo.as_str()).unwrap();
    }

    #[test]
    fn directory_without_commit_is_refused() {
        let sandbox = Sandbox::new();
        parse(sandbox.dir.join("missing").as_str()).unwrap_err();
        let empty = sandbox.dir.join("empty");
        fs::create_dir(&empty).unwrap();
        let error = parse(empty.as_str()).unwrap_err();
        assert!(error.contains("not a git repository"), "{error}");
        run(&empty, &["init", "--quiet", "--template="]);
        parse(empty.as_str()).unwrap_err();
    }

    #[test]
    fn copy_has_all_branches_and_no_stray_files() {
        let sandbox = Sandbox::new();
        run(&sandbox.repo, &["branch", "older"]);
        sandbox.write(PLAIN, "plain\n");
        fs::write(sandbox.repo.join("stray"), "").unwrap();
        let dest = sandbox.dir.join("copy");
        copy(&sandbox.repo, &dest).unwrap();
        let branches = ["for-each-ref", "--format=%(objectname) %(refname) %(HEAD)"];
        assert_eq!(run(&dest, &branches), run(&sandbox.repo, &branches));
        assert_eq!(run(&dest, &["status", "--porcelain"]), "");
        assert!(dest.join(PLAIN).exists() && !dest.join("stray").exists());
        // It must work where the original is out of reach.
        fs::remove_dir_all(&sandbox.repo).unwrap();
        run(&dest, &["fsck", "--no-progress"]);
        assert_eq!(run(&dest, &["remote"]), "");
    }

    #[test]
    fn copy_of_incomplete_history_works() {
        let sandbox = Sandbox::new();
        sandbox.write(PLAIN, "old\n");
        sandbox.write(PLAIN, "new\n");
        sandbox.lose(&format!("HEAD~1:{PLAIN}"));
        let repo = parse(sandbox.repo.as_str()).unwrap();
        let dest = sandbox.dir.join("copy");
        copy(&repo, &dest).unwrap();
        assert_eq!(fs::read_to_string(dest.join(PLAIN)).unwrap(), "new\n");
    }

    #[test]
    fn copy_of_borrowed_objects_borrows_nothing() {
        let sandbox = Sandbox::new();
        let borrower = sandbox.dir.join("borrower");
        let clone = ["clone", "--quiet", "--shared", sandbox.repo.as_str(), borrower.as_str()];
        run(&sandbox.dir, &clone);
        let dest = sandbox.dir.join("copy");
        copy(&borrower, &dest).unwrap();
        assert!(!dest.join(".git/objects/info/alternates").exists());
        fs::remove_dir_all(&sandbox.repo).unwrap();
        fs::remove_dir_all(&borrower).unwrap();
        run(&dest, &["fsck", "--no-progress"]);
    }
}
