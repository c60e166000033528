//! The sample app as a git repository: `tests/app/tree` committed, edits on top of it, and its places in the lab.
//!
//! Every commit is reproducible: same tree, same edits, same ids.

use std::env;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use duct::Expression;

use crate::lab::{Lab, OPERATOR};

/// Files that act on the repository they lie in carry this prefix in ours instead of their dot.
const DOT_PREFIX: &str = "dot-";
const IDENTITY: (&str, &str) = ("Universal Agent", "ua@localhost");
/// 2026-01-01; each commit is a minute after its parent, so that history has an order.
const FIRST_COMMIT_EPOCH: u64 = 1_767_225_600;

/// Removing the releases of a large app from a disk that is none of memory takes minutes.
const CLEARING: Duration = Duration::from_mins(10);

const FAULTS: &str = "src/universal_agent/faults.py";
const HOME_PAGE: &str = "web-ui/app/page.mjs";
const NOTES: &str = "src/universal_agent/notes.py";
/// One file in here per [`Edit::Release`].
const RELEASES: &str = "docs/releases";
const RETIRED: &str = "src/universal_agent/retired.py";
const WORKER_TEMPLATE: &str = "deployment/systemd/universal-agent-vp-worker@.service";

/// A change that [`commit_edit`] puts on top of what is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// `npm run build` fails: a page imports a module that does not exist.
    RedBuild,
    /// The API starts and answers 500 on its health path.
    ApiBroken,
    /// The API exits as soon as it starts, for ever.
    ApiCrash,
    /// The Telegram bot, which has no health path, exits two seconds after each start: `active` in between.
    CrashLoop,
    /// The API is healthy for eight seconds after each start, then exits: later than a quick look would see.
    LateCrash,
    /// The API takes connections and never answers.
    ApiHangs,
    /// The gateway tells that it runs another commit.
    WrongVersion,
    /// The API wants the gateway's port: whichever starts second finds it taken.
    PortTaken,
    /// systemd refuses the workers' unit template: it names no program.
    BadUnitFile,
    /// A VP worker exits as soon as it starts; its session row stays from before.
    WorkerCrash,
    /// A module nobody imports gets this text.
    Harmless(String),
    /// The web UI's home page gets this title; nothing else changes.
    WebTitle(String),
    /// The unit template of the VP workers gets this description.
    WorkerTemplate(String),
    /// A source module is removed.
    RemoveModule,
    /// Everything that a deploy treats differently changes to this text, so that every build step and every unit has a
    /// part: a source, a page, the workers' unit template; one file comes, and the one of the last such edit goes.
    Release(String),
    /// Everything that a fault edit changed is as in the tree again.
    Repair,
    /// This file, by its path in the repository, gets this content; missing directories are made.
    Write(Utf8PathBuf, String),
}

impl Edit {
    fn subject(&self) -> &'static str {
        match self {
            Self::RedBuild => "Import a page part that is not there",
            Self::ApiBroken => "Answer 500 on the API's health path",
            Self::ApiCrash => "Crash the API at its start",
            Self::CrashLoop => "Crash the Telegram bot after its start",
            Self::LateCrash => "Crash the API eight seconds after its start",
            Self::ApiHangs => "Never answer at the API",
            Self::WrongVersion => "Tell another commit at the gateway",
            Self::PortTaken => "Start the API at the gateway's port",
            Self::BadUnitFile => "Name no program in the workers' unit template",
            Self::WorkerCrash => "Crash a VP worker at its start",
            Self::Harmless(_) => "Change a note",
            Self::WebTitle(_) => "Change the web UI's title",
            Self::WorkerTemplate(_) => "Change the workers' unit template",
            Self::RemoveModule => "Remove a retired module",
            Self::Release(_) => "Change a bit of everything",
            Self::Repair => "Remove planted faults",
            Self::Write(..) => "Write a file",
        }
    }

    fn apply(&self, repo: &Utf8Path) -> anyhow::Result<()> {
        match self {
            Self::RedBuild => {
                let page = fs_err::read_to_string(repo.join(HOME_PAGE))?;
                fs_err::write(repo.join(HOME_PAGE), format!("import \"./missing-part.mjs\";\n{page}"))?;
            }
            Self::ApiBroken => set_line(repo, FAULTS, "API_HEALTH_STATUS", "API_HEALTH_STATUS = 500")?,
            Self::ApiCrash => {
                set_line(repo, FAULTS, "CRASH_AT_START", "CRASH_AT_START = frozenset({\"api\"})")?;
            }
            Self::WorkerCrash => set_line(
                repo,
                FAULTS,
                "CRASH_AT_START",
                "CRASH_AT_START = frozenset({\"vp-worker@vp.coder.primary\"})",
            )?,
            Self::CrashLoop => {
                set_line(repo, FAULTS, "CRASH_AFTER_SECONDS", "CRASH_AFTER_SECONDS = {\"telegram\": 2.0}")?;
            }
            Self::LateCrash => {
                set_line(repo, FAULTS, "CRASH_AFTER_SECONDS", "CRASH_AFTER_SECONDS = {\"api\": 8.0}")?;
            }
            Self::ApiHangs => set_line(repo, FAULTS, "HANGS", "HANGS = frozenset({\"api\"})")?,
            Self::WrongVersion => {
                let told = format!("TOLD_VERSIONS = {{\"gateway\": \"{}\"}}", "0".repeat(40));
                set_line(repo, FAULTS, "TOLD_VERSIONS", &told)?;
            }
            Self::PortTaken => set_line(repo, FAULTS, "PORTS", "PORTS = {\"api\": 8002}")?,
            Self::BadUnitFile => set_line(repo, WORKER_TEMPLATE, "ExecStart=", "ExecStart=")?,
            Self::Harmless(text) => set_line(repo, NOTES, "NOTE", &format!("NOTE = {text:?}"))?,
            Self::WebTitle(text) => {
                set_line(repo, HOME_PAGE, "const GREETING", &format!("const GREETING = {text:?};"))?;
            }
            Self::WorkerTemplate(text) => {
                set_line(repo, WORKER_TEMPLATE, "Description=", &format!("Description={text} (%i)"))?;
            }
            Self::Release(text) => {
                for edit in [Self::Harmless, Self::WebTitle, Self::WorkerTemplate] {
                    edit(text.clone()).apply(repo)?;
                }
                let releases = repo.join(RELEASES);
                if releases.exists() {
                    fs_err::remove_dir_all(&releases)?;
                }
                Self::Write(format!("{RELEASES}/{text}.md").into(), format!("{text}\n")).apply(repo)?;
            }
            Self::RemoveModule => fs_err::remove_file(repo.join(RETIRED))?,
            Self::Repair => {
                for path in [FAULTS, HOME_PAGE, WORKER_TEMPLATE] {
                    fs_err::copy(source_dir().join("tree").join(path), repo.join(path))?;
                }
            }
            Self::Write(path, content) => {
                let path = repo.join(path);
                if let Some(parent) = path.parent() {
                    fs_err::create_dir_all(parent)?;
                }
                fs_err::write(path, content)?;
            }
        }
        Ok(())
    }
}

/// Where the sample app lies in this checkout: `tree/` is the repository's content, `server/` what the VPS has.
pub fn source_dir() -> Utf8PathBuf {
    Utf8Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/app")
}

/// Makes the app's repository in `dest`, which must not exist or be empty; returns the commit's id.
pub fn make_repo(dest: &Utf8Path) -> anyhow::Result<String> {
    fs_err::create_dir_all(dest)?;
    ensure!(fs_err::read_dir(dest)?.next().is_none(), "`{dest}` is not empty");
    copy_tree(&source_dir().join("tree"), dest)?;
    // An empty template: no hooks of this machine.
    git(dest, 0, &["init", "--quiet", "--initial-branch=main", "--template="]).run()?;
    commit(dest, 0, "Universal Agent")
}

/// Commits `edit` on top of `repo`'s checked-out branch; returns the commit's id. An edit that changes nothing
/// is an error, and so is anything uncommitted before it.
pub fn commit_edit(repo: &Utf8Path, edit: &Edit) -> anyhow::Result<String> {
    let dirty = uncommitted(repo)?;
    ensure!(dirty.is_empty(), "`{repo}` has uncommitted changes:\n{dirty}");
    edit.apply(repo).with_context(|| format!("failed to apply {edit:?} in `{repo}`"))?;
    ensure!(!uncommitted(repo)?.is_empty(), "{edit:?} changes nothing in `{repo}`");
    let age = git(repo, 0, &["rev-list", "--count", "HEAD"]).read()?.parse()?;
    commit(repo, age, edit.subject())
}

/// Makes the VPS one on which nothing was ever deployed.
pub fn clear(lab: &Lab) -> anyhow::Result<()> {
    let script = "
        systemctl stop 'universal-agent-*' 2>/dev/null || true
        rm -rf /opt/universal_agent /var/lib/ua-deploy /var/lib/universal-agent
        rm -f /etc/systemd/system/universal-agent-*
        systemctl reset-failed
        tailscale serve reset
        sh /root/provision/provision.sh /root/provision 10.99.0.12
    ";
    lab.vps().command(&["sh", "-ec", script]).timeout(CLEARING).run()
}

/// Copies the repository to `~/app` on the laptop, where only its owner may look into it (p14).
pub fn bring(lab: &Lab, repo: &Utf8Path) -> anyhow::Result<()> {
    let tar = duct::cmd!("tar", "-C", repo.as_str(), "-cf", "-", ".").stdout_capture().run()?;
    let unpack = "umask 077; rm -rf app && mkdir app && tar -C app -xf - && chmod 0700 app";
    lab.laptop().command(&["sh", "-ec", unpack]).user(OPERATOR).stdin(tar.stdout).run()
}

fn uncommitted(repo: &Utf8Path) -> anyhow::Result<String> {
    Ok(git(repo, 0, &["status", "--porcelain"]).read()?)
}

fn commit(repo: &Utf8Path, age: u64, subject: &str) -> anyhow::Result<String> {
    git(repo, age, &["add", "--all"]).run()?;
    git(repo, age, &["commit", "--quiet", "--message", subject]).run()?;
    Ok(git(repo, age, &["rev-parse", "HEAD"]).read()?)
}

/// Git with nothing of this machine's configuration or of the caller's environment: a hook may have set
/// `GIT_DIR` to our own repository.
pub(crate) fn git(repo: &Utf8Path, age: u64, args: &[&str]) -> Expression {
    let date = format!("@{} +0000", FIRST_COMMIT_EPOCH + 60 * age);
    let (name, email) = IDENTITY;
    let environment = [
        ("PATH", env::var("PATH").unwrap_or_default()),
        ("LC_ALL", "C".into()),
        ("GIT_CONFIG_GLOBAL", "/dev/null".into()),
        ("GIT_CONFIG_NOSYSTEM", "1".into()),
        ("GIT_AUTHOR_NAME", name.into()),
        ("GIT_AUTHOR_EMAIL", email.into()),
        ("GIT_AUTHOR_DATE", date.clone()),
        ("GIT_COMMITTER_NAME", name.into()),
        ("GIT_COMMITTER_EMAIL", email.into()),
        ("GIT_COMMITTER_DATE", date),
    ];
    duct::cmd("git", args).dir(repo).full_env(environment)
}

/// Copies files with their modes; `dot-x` becomes `.x`.
fn copy_tree(from: &Utf8Path, to: &Utf8Path) -> anyhow::Result<()> {
    for entry in from.read_dir_utf8()? {
        let entry = entry?;
        let name = entry.file_name();
        // What running the tree in place leaves behind is not part of it.
        if matches!(name, "__pycache__" | ".venv" | ".next" | "node_modules") {
            continue;
        }
        let name = name.strip_prefix(DOT_PREFIX).map_or_else(|| name.to_owned(), |rest| format!(".{rest}"));
        let target = to.join(name);
        if entry.file_type()?.is_dir() {
            fs_err::create_dir_all(&target)?;
            copy_tree(entry.path(), &target)?;
        } else {
            fs_err::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

/// Replaces the one line of `path` that begins with `start`.
fn set_line(repo: &Utf8Path, path: &str, start: &str, line: &str) -> anyhow::Result<()> {
    let file = repo.join(path);
    let text = fs_err::read_to_string(&file)?;
    let found = text.lines().filter(|old| old.starts_with(start)).count();
    ensure!(found == 1, "`{path}` has {found} lines that begin with `{start}`");
    let lines: Vec<_> = text.lines().map(|old| if old.starts_with(start) { line } else { old }).collect();
    Ok(fs_err::write(&file, lines.join("\n") + "\n")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Repo {
        path: Utf8PathBuf,
        first: String,
        _dir: tempfile::TempDir,
    }

    fn repo() -> Repo {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(dir.path().join("app")).unwrap();
        let first = make_repo(&path).unwrap();
        Repo { path, first, _dir: dir }
    }

    impl Repo {
        fn git(&self, args: &[&str]) -> String {
            git(&self.path, 0, args).read().unwrap()
        }
    }

    #[test]
    fn same_tree_and_edits_give_the_same_commits() {
        let (a, b) = (repo(), repo());
        assert_eq!(a.first, b.first);
        let edit = Edit::Harmless("x".into());
        assert_eq!(commit_edit(&a.path, &edit).unwrap(), commit_edit(&b.path, &edit).unwrap());
    }

    #[test]
    fn commits_are_in_order_and_by_the_product() {
        let repo = repo();
        commit_edit(&repo.path, &Edit::RedBuild).unwrap();
        assert_eq!(
            repo.git(&["log", "--format=%ae %ce %at %s"]),
            "ua@localhost ua@localhost 1767225660 Import a page part that is not there\n\
             ua@localhost ua@localhost 1767225600 Universal Agent"
        );
    }

    #[test]
    fn everything_of_the_tree_is_tracked_and_dots_are_dots() {
        let repo = repo();
        let files = repo.git(&["ls-files", "--stage"]);
        for path in [
            ".gitignore",
            ".gitattributes",
            "src/universal_agent/artifacts/__init__.py",
            "src/universal_agent/tools/tmp/__init__.py",
            "src/universal_agent/prompt_assets/capabilities.last_good.md",
            WORKER_TEMPLATE,
        ] {
            assert!(files.lines().any(|line| line.ends_with(&format!("\t{path}"))), "{path} in\n{files}");
        }
        assert!(!files.contains(DOT_PREFIX), "{files}");
        assert!(files.lines().any(|l| l.starts_with("100755") && l.ends_with("vps_service_watchdog.sh")));
        // Nothing left behind as ignored or untracked.
        assert_eq!(repo.git(&["status", "--porcelain", "--ignored"]), "");
    }

    #[test]
    fn an_archive_knows_its_commit() {
        let repo = repo();
        let second = commit_edit(&repo.path, &Edit::Harmless("second".into())).unwrap();
        for commit in [&repo.first, &second] {
            let archive = git(&repo.path, 0, &["archive", commit, "src/universal_agent/_release.txt"]);
            let text = archive.pipe(duct::cmd!("tar", "--extract", "--to-stdout")).read().unwrap();
            assert_eq!(&text, commit);
        }
    }

    #[test]
    fn each_edit_changes_its_own_file_only() {
        for (edit, changed) in [
            (Edit::RedBuild, HOME_PAGE),
            (Edit::ApiBroken, FAULTS),
            (Edit::ApiCrash, FAULTS),
            (Edit::CrashLoop, FAULTS),
            (Edit::LateCrash, FAULTS),
            (Edit::ApiHangs, FAULTS),
            (Edit::WrongVersion, FAULTS),
            (Edit::PortTaken, FAULTS),
            (Edit::BadUnitFile, WORKER_TEMPLATE),
            (Edit::WorkerCrash, FAULTS),
            (Edit::Harmless("it's \"x\"".into()), NOTES),
            (Edit::WebTitle("New".into()), HOME_PAGE),
            (Edit::WorkerTemplate("New".into()), WORKER_TEMPLATE),
            (Edit::RemoveModule, RETIRED),
            (Edit::Write("docs/new.md".into(), "new\n".into()), "docs/new.md"),
        ] {
            let repo = repo();
            let id = commit_edit(&repo.path, &edit).unwrap();
            assert_eq!(repo.git(&["diff", "--name-only", &repo.first, &id]), changed, "{edit:?}");
        }
    }

    #[test]
    fn repair_takes_faults_back() {
        let repo = repo();
        for edit in [
            Edit::RedBuild,
            Edit::ApiBroken,
            Edit::ApiCrash,
            Edit::CrashLoop,
            Edit::LateCrash,
            Edit::ApiHangs,
            Edit::WrongVersion,
            Edit::PortTaken,
            Edit::BadUnitFile,
            Edit::Repair,
        ] {
            commit_edit(&repo.path, &edit).unwrap();
        }
        assert_eq!(repo.git(&["diff", "--name-only", &repo.first, "HEAD"]), "");
    }

    #[test]
    fn a_release_changes_a_bit_of_everything() {
        let repo = repo();
        commit_edit(&repo.path, &Edit::Release("one".into())).unwrap();
        commit_edit(&repo.path, &Edit::Release("two".into())).unwrap();
        let changed = repo.git(&["diff", "--no-renames", "--name-status", "HEAD~1", "HEAD"]);
        let expected = format!(
            "M\t{WORKER_TEMPLATE}\nD\t{RELEASES}/one.md\nA\t{RELEASES}/two.md\nM\t{NOTES}\nM\t{HOME_PAGE}"
        );
        assert_eq!(changed, expected);
    }

    #[test]
    fn nothing_to_change_is_an_error() {
        let repo = repo();
        commit_edit(&repo.path, &Edit::ApiBroken).unwrap();
        let error = commit_edit(&repo.path, &Edit::ApiBroken).unwrap_err().to_string();
        assert!(error.contains("changes nothing"), "{error}");
    }

    #[test]
    fn uncommitted_work_is_not_swept_in() {
        let repo = repo();
        fs_err::write(repo.path.join("stray"), "").unwrap();
        let error = commit_edit(&repo.path, &Edit::ApiBroken).unwrap_err().to_string();
        assert!(error.contains("stray"), "{error}");
    }

    #[test]
    fn a_filled_directory_is_left_alone() {
        let repo = repo();
        make_repo(&repo.path).unwrap_err();
    }
}
