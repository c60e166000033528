//! The sample app as a git repository: `tests/app/tree` committed, edits on top of it, and its places in the lab.
//!
//! Every commit is reproducible: same tree, same edits, same ids.

use std::env;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use duct::Expression;
use fs_err::os::unix::fs::symlink;

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
const GREETING: &str = "export const GREETING = ";
const NOTES: &str = "src/universal_agent/notes.py";
const NOTE: &str = "NOTE = ";
const OUTPUTS: &str = "web-ui/outputs.mjs";
/// One file in here per [`Edit::Release`].
const RELEASES: &str = "docs/releases";
const RETIRED: &str = "src/universal_agent/retired.py";
const WORKER_TEMPLATE: &str = "deployment/systemd/universal-agent-vp-worker@.service";
const SHAPE: &str = "src/universal_agent/shape.py";

/// Databases that are tracked in February.
const DATABASES: [&str; 3] = [
    "Memory_System/ua_shared_workspace/memory/session_vector_index.sqlite",
    "src/universal_agent/Memory_System_Data/agent_core.db",
    "src/universal_agent/Memory_System_Data/chroma_db/chroma.sqlite3",
];
/// A submodule without a `.gitmodules`, tracked in February.
const GITLINK: &str = "test-remotion-project";
/// Files and directories that the server writes; tracked in February, untracked in August.
const WRITTEN_BY_THE_SERVER: [&str; 3] = [
    "Memory_System/ua_shared_workspace/MEMORY.md",
    "Memory_System/ua_shared_workspace/memory",
    "src/universal_agent/prompt_assets/capabilities.last_good.md",
];
/// Name of a file that is tracked in August: a piece of a program, with newlines.
const ODD_NAME: &str = "{r.status_code})\n    short=(text or )[:80]\n    print(short,";

/// Paths that the script of February hands over to the app's user.
const FEB_OWNED: &str = ".claude deployment scripts src web-ui webhook_transforms pyproject.toml uv.lock .gitignore \
                         Memory_System AGENT_RUN_WORKSPACES artifacts logs";

/// The app at one of two times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// February 2026.
    Feb,
    /// August 2026.
    Aug,
}

/// Notes that the processes of a commit log at their start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notes {
    /// Note of each Python service.
    pub python: String,
    /// Note of the web UI: its title.
    pub web: String,
}

/// A change that [`commit_edit`] puts on top of what is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// `npm run build` fails: a page imports a module that does not exist.
    RedBuild,
    /// The API starts and answers 500 on its health path.
    ApiBroken,
    /// The API exits as soon as it starts, for ever.
    ApiCrash,
    /// The Telegram bot, which has no health path, exits half a second after each start: `active` in between.
    CrashLoop,
    /// The API is healthy for eight seconds after each start, then exits: later than a quick look would see.
    LateCrash,
    /// The API takes connections and never answers.
    ApiHangs,
    /// The gateway of [`Shape::Aug`] reports another commit.
    WrongVersion,
    /// The gateway starts to listen after this many seconds.
    SlowGateway(u32),
    /// The imports of a VP worker fail after this many seconds.
    LateWorkerCrash(u32),
    /// The web UI build writes another 20 000 files and 300 MB.
    BigOutputs,
    /// The repository stops tracking files that the server writes.
    StopTracking,
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
            Self::WrongVersion => "Report another commit at the gateway",
            Self::SlowGateway(_) => "Start the gateway slowly",
            Self::LateWorkerCrash(_) => "Fail a VP worker's imports after a while",
            Self::BigOutputs => "Write large build outputs",
            Self::StopTracking => "Stop tracking files of the server",
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
                set_line(repo, FAULTS, "CRASH_AFTER_SECONDS", "CRASH_AFTER_SECONDS = {\"telegram\": 0.5}")?;
            }
            Self::LateCrash => {
                set_line(repo, FAULTS, "CRASH_AFTER_SECONDS", "CRASH_AFTER_SECONDS = {\"api\": 8.0}")?;
            }
            Self::ApiHangs => set_line(repo, FAULTS, "HANGS", "HANGS = frozenset({\"api\"})")?,
            Self::WrongVersion => {
                set_line(repo, FAULTS, "TOLD_COMMIT", &format!("TOLD_COMMIT = \"{}\"", "0".repeat(40)))?;
            }
            Self::SlowGateway(seconds) => {
                let slow = format!("START_SECONDS = {{\"gateway\": {seconds}}}");
                set_line(repo, FAULTS, "START_SECONDS", &slow)?;
            }
            Self::LateWorkerCrash(seconds) => {
                let late =
                    format!("IMPORT_FAILS_AFTER_SECONDS = {{\"vp-worker@vp.coder.primary\": {seconds}}}");
                set_line(repo, FAULTS, "IMPORT_FAILS_AFTER_SECONDS", &late)?;
            }
            Self::BigOutputs => {
                set_line(repo, OUTPUTS, "export const FILES", "export const FILES = 20000;")?;
                set_line(repo, OUTPUTS, "export const MEGABYTES", "export const MEGABYTES = 300;")?;
            }
            Self::StopTracking => stop_tracking(repo)?,
            Self::PortTaken => set_line(repo, FAULTS, "PORTS", "PORTS = {\"api\": 8002}")?,
            Self::BadUnitFile => set_line(repo, WORKER_TEMPLATE, "ExecStart=", "ExecStart=")?,
            Self::Harmless(text) => set_line(repo, NOTES, NOTE, &format!("{NOTE}{text:?}"))?,
            Self::WebTitle(text) => set_line(repo, HOME_PAGE, GREETING, &format!("{GREETING}{text:?};"))?,
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
                for path in [FAULTS, HOME_PAGE, OUTPUTS, WORKER_TEMPLATE] {
                    fs_err::copy(source_of(repo, path)?, repo.join(path))?;
                }
            }
            Self::Write(path, content) => write(&repo.join(path), content)?,
        }
        Ok(())
    }
}

/// Returns the directory of the sample app: `tree/` is the repository's content, `august/` replaces files of it in the
/// shape of August, `server/` is installed on the VPS.
pub fn source_dir() -> Utf8PathBuf {
    Utf8Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/app")
}

/// Makes the app's repository in `dest`, which must not exist or be empty; returns the commit's id.
pub fn make_repo(dest: &Utf8Path, shape: Shape) -> anyhow::Result<String> {
    fs_err::create_dir_all(dest)?;
    ensure!(fs_err::read_dir(dest)?.next().is_none(), "`{dest}` is not empty");
    copy_tree(&source_dir().join("tree"), dest)?;
    add_odd_entries(dest)?;
    // An empty template: no hooks of this machine.
    git(dest, 0, &["init", "--quiet", "--initial-branch=main", "--template="]).run()?;
    match shape {
        Shape::Feb => add_feb_only_entries(dest)?,
        Shape::Aug => {
            copy_tree(&source_dir().join("august"), dest)?;
            add_templates(dest)?;
            stop_tracking(dest)?;
            write(&dest.join(ODD_NAME), "")?;
        }
    }
    commit(dest, 0, "Universal Agent")
}

/// Returns the notes that processes of this commit log.
pub fn notes(repo: &Utf8Path, commit: &str) -> anyhow::Result<Notes> {
    let value = |path: &str, start: &str| -> anyhow::Result<String> {
        let text = git(repo, 0, &["show", &format!("{commit}:{path}")]).read()?;
        let line = text.lines().find_map(|line| line.strip_prefix(start));
        let line = line.with_context(|| format!("no `{start}` in `{path}` of {commit}"))?;
        Ok(serde_json::from_str(line.trim_end_matches(';'))?)
    };
    Ok(Notes { python: value(NOTES, NOTE)?, web: value(HOME_PAGE, GREETING)? })
}

/// Adds entries with unusual names and kinds.
fn add_odd_entries(repo: &Utf8Path) -> anyhow::Result<()> {
    write(&repo.join(".claude/skills/report/SKILL.md"), "Write a report.\n")?;
    fs_err::create_dir_all(repo.join(".agent/skills"))?;
    symlink("../../.claude/skills/report", repo.join(".agent/skills/report"))?;
    write(&repo.join("IMG_5042 (2).PNG"), "no picture")?;
    write(&repo.join("web-ui/app/api/dashboard/gateway/[...path]/README.md"), "A route of the dashboard.\n")
}

/// Adds databases and a submodule entry.
fn add_feb_only_entries(repo: &Utf8Path) -> anyhow::Result<()> {
    for path in DATABASES {
        write(&repo.join(path), "SQLite format 3\0")?;
    }
    // An empty directory is a submodule that was not fetched.
    fs_err::create_dir(repo.join(GITLINK))?;
    let entry = format!("160000,{},{GITLINK}", "7".repeat(40));
    Ok(git(repo, 0, &["update-index", "--add", "--cacheinfo", &entry]).run().map(drop)?)
}

/// Adds unit templates with placeholders: in August they are part of the repository.
fn add_templates(repo: &Utf8Path) -> anyhow::Result<()> {
    let templates = repo.join("deployment/systemd/templates");
    fs_err::create_dir_all(&templates)?;
    for entry in source_dir().join("server").read_dir_utf8()? {
        let entry = entry?;
        if entry.path().extension() == Some("template") {
            fs_err::copy(entry.path(), templates.join(entry.file_name()))?;
        }
    }
    Ok(())
}

fn stop_tracking(repo: &Utf8Path) -> anyhow::Result<()> {
    for path in WRITTEN_BY_THE_SERVER {
        let path = repo.join(path);
        if path.is_dir() { fs_err::remove_dir_all(&path) } else { fs_err::remove_file(&path) }?;
    }
    Ok(())
}

/// Returns the original of a file in the shape of this repository.
fn source_of(repo: &Utf8Path, path: &str) -> anyhow::Result<Utf8PathBuf> {
    let own = source_dir().join("august").join(path);
    let august = fs_err::read_to_string(repo.join(SHAPE))?.contains("AUGUST = True");
    Ok(if august && own.exists() { own } else { source_dir().join("tree").join(path) })
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
pub fn clear(lab: &Lab, shape: Shape) -> anyhow::Result<()> {
    let script = "
        systemctl stop 'universal-agent-*' 2>/dev/null || true
        rm -rf /opt/universal_agent /var/lib/ua-deploy /var/lib/universal-agent /etc/systemd/system/universal-agent-*
        rm -rf /etc/ua-secrets /usr/local/bin/ua-secrets
        systemctl reset-failed
        tailscale serve reset
        sh /root/provision/provision.sh /root/provision 10.99.0.12 \"$@\"
    ";
    let august: &[&str] = if shape == Shape::Aug { &["--august"] } else { &[] };
    lab.vps().command(&[&["sh", "-ec", script, "sh"], august].concat()).timeout(CLEARING).run()
}

/// Directories and files of the VPS that make a deployed app, in the words of a shell.
const DEPLOYED: &str = "/opt/universal_agent /var/lib/ua-deploy /var/lib/universal-agent /etc/systemd/system";
const UNITS: &str = "universal-agent-gateway universal-agent-api universal-agent-webui universal-agent-telegram \
                     universal-agent-vp-worker@vp.general.primary universal-agent-vp-worker@vp.coder.primary";

/// Keeps a copy of the app that is deployed on the VPS, under a name. Its units restart.
pub fn save(lab: &Lab, name: &str) -> anyhow::Result<()> {
    let script = format!(
        "systemctl stop 'universal-agent-*'
         rm -rf \"/var/lib/lab/$1\"
         mkdir -p \"/var/lib/lab/$1\"
         rsync -aHR {DEPLOYED} \"/var/lib/lab/$1/\"
         systemctl start {UNITS}"
    );
    lab.vps().command(&["sh", "-ec", &script, "sh", name]).timeout(CLEARING).run()
}

/// Brings a saved app back instead of whatever is there, and starts its units.
pub fn restore(lab: &Lab, name: &str) -> anyhow::Result<()> {
    let script = format!(
        "systemctl stop 'universal-agent-*' 'ua-deploy-*' 2>/dev/null || true
         cd \"/var/lib/lab/$1\"
         for path in {DEPLOYED}; do rsync -aH --delete \".$path/\" \"$path/\"; done
         systemctl daemon-reload
         systemctl reset-failed
         systemctl start {UNITS}"
    );
    lab.vps().command(&["sh", "-ec", &script, "sh", name]).timeout(CLEARING).run()
}

/// Puts `~/app` of the laptop in place as the app's own scripts do, with the build in place. In February root copies the
/// sources with the laptop's owner and hands some of them over; in August the app's directory is a working tree of git.
pub fn deploy_by_old_way(lab: &Lab, shape: Shape) -> anyhow::Result<()> {
    let (left_out, owned) = match shape {
        Shape::Feb => ("--exclude=./.git", FEB_OWNED),
        Shape::Aug => ("", "."),
    };
    let pack = format!("tar {left_out} --mode=u=rwX,go=rX -C app -cf - . | base64");
    let sources = lab.laptop().command(&["sh", "-ec", &pack]).user(OPERATOR).read()?;
    let script = "
        cd /opt/universal_agent
        base64 -d | tar -xf -
        chown ua:ua .
        chown -R ua:ua $1
        runuser -u ua -- sh -ec 'uv sync --quiet; cd web-ui; npm install --silent; npm run --silent build'
        install -m 0644 deployment/systemd/universal-agent-vp-worker@.service /etc/systemd/system/
        systemctl daemon-reload
        for vp in general coder; do systemctl enable --quiet universal-agent-vp-worker@vp.$vp.primary; done
        systemctl restart universal-agent-gateway universal-agent-api universal-agent-webui universal-agent-telegram \
            universal-agent-vp-worker@vp.general.primary universal-agent-vp-worker@vp.coder.primary
    ";
    let install = lab.vps().command(&["sh", "-ec", script, "sh", owned]);
    install.stdin(sources).timeout(Duration::from_mins(3)).run()
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

/// Writes a file, making its directory if need be.
fn write(path: &Utf8Path, content: &str) -> anyhow::Result<()> {
    if let Some(parent) = path.parent() {
        fs_err::create_dir_all(parent)?;
    }
    Ok(fs_err::write(path, content)?)
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
        repo_of(Shape::Feb)
    }

    fn repo_of(shape: Shape) -> Repo {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(dir.path().join("app")).unwrap();
        let first = make_repo(&path, shape).unwrap();
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
            "scripts/start_vp_worker.sh",
            "webhook_transforms/video.py",
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
    fn each_edit_changes_its_own_file_only() {
        for (edit, changed) in [
            (Edit::RedBuild, HOME_PAGE),
            (Edit::ApiBroken, FAULTS),
            (Edit::ApiCrash, FAULTS),
            (Edit::CrashLoop, FAULTS),
            (Edit::LateCrash, FAULTS),
            (Edit::ApiHangs, FAULTS),
            (Edit::WrongVersion, FAULTS),
            (Edit::SlowGateway(30), FAULTS),
            (Edit::LateWorkerCrash(12), FAULTS),
            (Edit::BigOutputs, OUTPUTS),
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
            Edit::SlowGateway(30),
            Edit::LateWorkerCrash(12),
            Edit::BigOutputs,
            Edit::PortTaken,
            Edit::BadUnitFile,
            Edit::Repair,
        ] {
            commit_edit(&repo.path, &edit).unwrap();
        }
        assert_eq!(repo.git(&["diff", "--name-only", &repo.first, "HEAD"]), "");
    }

    #[test]
    fn repair_keeps_the_shape() {
        let repo = repo_of(Shape::Aug);
        commit_edit(&repo.path, &Edit::BadUnitFile).unwrap();
        commit_edit(&repo.path, &Edit::Repair).unwrap();
        assert_eq!(repo.git(&["diff", "--name-only", &repo.first, "HEAD"]), "");
    }

    #[test]
    fn feb_tracks_databases_and_gitlink() {
        let files = repo().git(&["ls-files", "--stage"]);
        for path in DATABASES.iter().chain(&WRITTEN_BY_THE_SERVER[..1]) {
            assert!(files.lines().any(|line| line.ends_with(&format!("\t{path}"))), "{path} in\n{files}");
        }
        assert!(files.lines().any(|line| line.starts_with("160000 ") && line.ends_with(GITLINK)), "{files}");
        assert!(files.lines().any(|line| line.starts_with("120000 ")), "{files}");
        assert!(files.contains("IMG_5042 (2).PNG") && files.contains("[...path]"), "{files}");
    }

    #[test]
    fn aug_tree_differs_from_feb() {
        let repo = repo_of(Shape::Aug);
        let files = repo.git(&["ls-files", "-z"]);
        let files: Vec<&str> = files.split('\0').collect();
        assert!(files.contains(&ODD_NAME) && files.contains(&WORKER_TEMPLATE), "{files:?}");
        assert!(files.contains(&"deployment/systemd/templates/universal-agent-gateway.service.template"));
        for gone in DATABASES.iter().chain(&WRITTEN_BY_THE_SERVER).chain(&[GITLINK]) {
            assert!(!files.iter().any(|path| path.starts_with(gone)), "{gone} in {files:?}");
        }
        assert!(repo.git(&["show", &format!("HEAD:{SHAPE}")]).contains("AUGUST = True"));
        assert!(repo.git(&["show", &format!("HEAD:{WORKER_TEMPLATE}")]).contains("KillMode=mixed"));
    }

    #[test]
    fn stop_tracking_removes_server_files() {
        let repo = repo();
        commit_edit(&repo.path, &Edit::StopTracking).unwrap();
        let gone = repo.git(&["diff", "--name-only", "--diff-filter=D", &repo.first, "HEAD"]);
        for path in gone.lines() {
            assert!(WRITTEN_BY_THE_SERVER.iter().any(|written| path.starts_with(written)), "{path}");
        }
        assert_eq!(gone.lines().count(), 5, "{gone}");
    }

    #[test]
    fn notes_read_from_commit() {
        let repo = repo();
        commit_edit(&repo.path, &Edit::Harmless("it's \"x\"".into())).unwrap();
        commit_edit(&repo.path, &Edit::WebTitle("Grün".into())).unwrap();
        let first = Notes { python: "first".into(), web: "Universal Agent".into() };
        assert_eq!(notes(&repo.path, &repo.first).unwrap(), first);
        let last = Notes { python: "it's \"x\"".into(), web: "Grün".into() };
        assert_eq!(notes(&repo.path, "HEAD").unwrap(), last);
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
        make_repo(&repo.path, Shape::Feb).unwrap_err();
    }
}
