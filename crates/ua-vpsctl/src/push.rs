//! `push`: files of the working tree, put in place beside the deploys. What is pushed stands in the drift ledger of the VPS
//! until a deploy settles it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use ua_common::app;
use ua_common::error::Failure;
use ua_common::exit::Exit;
use ua_common::glob;
use ua_common::ledger::Push;
use ua_common::output::{self, listed, printable};
use ua_common::profile::{Profile, exclude_line};
use ua_common::report::{Check, Report};
use ua_common::run::RunError;
use ua_common::tool::git::{Name, Repo};
use ua_common::tool::rsync;
use ua_common::transport::{Script, TransportError};

use crate::session::{STATE, Session, finished};
use crate::status::{self, Restart, counted};
use crate::units::{self, Chosen};

const PUSH: Script = Script {
    name: "push",
    text: concat!(
        include_str!("../../ua-common/remote/lying.sh"),
        "\n",
        include_str!("../../ua-common/remote/ledger.sh"),
        "\n",
        include_str!("../../ua-common/remote/unit_log.sh"),
        "\n",
        include_str!("../remote/restarting.sh"),
        "\n",
        include_str!("../remote/push.sh")
    ),
};
const LIMIT: Duration = Duration::from_mins(10);

/// A path that is pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Item {
    /// `f` a file, `x` a program, `l` a link.
    kind: char,
    /// SHA-256, or where the link leads.
    what: String,
    /// In the repository and in the app.
    path: String,
    /// Taken only because that was insisted on.
    sensitive: bool,
}

/// Everything that is pushed, as it lies here.
#[derive(Debug)]
pub struct Parcel {
    top: PathBuf,
    commit: String,
    items: Vec<Item>,
    /// Paths that are not as in the commit.
    dirty: Vec<String>,
    /// Paths below those that were named, and why they stay here.
    left_out: Vec<String>,
    bytes: u64,
}

/// Why a path stays here.
#[derive(Clone, Copy, Debug)]
enum Stays {
    /// Unless it is insisted on.
    Sensitive(&'static str),
    /// In any case.
    Always(&'static str),
}

impl Stays {
    fn why(self) -> String {
        match self {
            Self::Sensitive(why) => format!("{why}, and goes only with --force-sensitive"),
            Self::Always(why) => why.to_owned(),
        }
    }
}

/// A refusal, before anybody was contacted.
fn refuse(path: &str, why: &str) -> Failure {
    Failure::new(Exit::Usage, format!("`{}` {why}", path.escape_debug()))
}

/// What a path would be if it were relative to the working directory: a path that is there, from the repository's top.
fn meant(top: &Path, cwd: &Path, typed: &str) -> Option<String> {
    let mut path = PathBuf::new();
    for part in cwd.join(typed).components() {
        match part {
            Component::ParentDir => drop(path.pop()),
            Component::CurDir => {}
            part => path.push(part),
        }
    }
    path.symlink_metadata().ok()?;
    let path = path.strip_prefix(top).ok()?.to_str()?;
    inside(path).ok().filter(|meant| *meant != typed).map(str::to_owned)
}

/// The command with the path that was meant, for one that is typed as it stands in the working directory.
fn from_the_top(failure: Failure, top: &Path, cwd: &Path, typed: &str) -> Failure {
    let Some(path) = meant(top, cwd, typed) else { return failure };
    let path = shlex::try_quote(&path).map_or_else(|_| path.clone(), Into::into);
    failure.hint(format!("ua-vpsctl push {path}  # paths are relative to `{}`", top.display()))
}

/// A path of the repository as it is typed, without what means nothing.
fn inside(typed: &str) -> Result<&str, Failure> {
    let path = typed.strip_prefix("./").unwrap_or(typed);
    let path = path.strip_suffix('/').unwrap_or(path);
    let plain = path.split('/').all(|part| !matches!(part, "" | "." | ".." | ".git"));
    if plain && !path.chars().any(char::is_control) {
        return Ok(path);
    }
    Err(refuse(typed, "is not a path inside the repository, relative to its top").hint(PATHS))
}

/// How to find one that is.
const PATHS: &str = "git ls-files --full-name | head  # such paths; ua-deploy ships all of it";

/// Takes together what these paths mean.
pub fn gather(
    repo: &Repo,
    profile: &Profile,
    cwd: &Path,
    typed: &[String],
    force: bool,
) -> Result<Parcel, Failure> {
    let commit = repo.commit("HEAD")?;
    let top = repo.top().to_path_buf();
    let mut parcel =
        Parcel { top, commit, items: Vec::new(), dirty: Vec::new(), left_out: Vec::new(), bytes: 0 };
    let mut ignored = BTreeSet::new();
    // Whether it was named itself.
    let mut found: BTreeMap<Name, bool> = BTreeMap::new();
    for typed in typed {
        let path = inside(typed).map_err(|failure| from_the_top(failure, &parcel.top, cwd, typed))?;
        let linked = Path::new(path).ancestors().skip(1).find(|parent| parcel.top.join(parent).is_symlink());
        if let Some(link) = linked.filter(|parent| *parent != Path::new("")) {
            return Err(refuse(path, &format!("lies behind the symbolic link `{}`", link.display())));
        }
        let Ok(meta) = parcel.top.join(path).symlink_metadata() else {
            let failure = refuse(path, &format!("does not exist in `{}`", parcel.top.display()));
            let failure = failure.hint(if repo.files(path)?.is_empty() {
                PATHS
            } else {
                "a push takes nothing away; to deploy a deletion: ua-deploy"
            });
            return Err(from_the_top(failure, &parcel.top, cwd, typed));
        };
        let whole = meta.is_dir() && !force;
        let hidden = repo.ignored(path, whole)?;
        for name in repo.files(path)?.into_iter().chain(hidden.iter().cloned()) {
            let itself = name.text.trim_end_matches('/') == path;
            *found.entry(name).or_default() |= itself;
        }
        ignored.extend(hidden);
    }
    let names: Vec<&str> = found.keys().map(|name| name.text.as_str()).collect();
    let rewritten = repo.rewritten(&names)?;
    for (name, named) in found {
        let hidden = ignored.contains(&name);
        let taken = if rewritten.contains(&name.text) {
            Err(Stays::Always("is written by git for each commit"))
        } else if !named && glob::any(&profile.source.preserve, &name.text) {
            Err(Stays::Always("is written by the server, and goes only if it is named itself"))
        } else {
            parcel.take(profile, &name, hidden, force)?
        };
        match taken {
            Ok(()) => {}
            Err(stays) if named => {
                let hint = match stays {
                    Stays::Sensitive(_) => {
                        format!("ua-vpsctl push --force-sensitive {name}  # if it has to be")
                    }
                    Stays::Always(_) => "ua-deploy plan".to_owned(),
                };
                return Err(refuse(&name.text, &stays.why()).hint(hint));
            }
            Err(stays) => parcel.left_out.push(format!("{name} ({})", stays.why())),
        }
    }
    if parcel.items.is_empty() {
        let why = if parcel.left_out.is_empty() {
            "nothing lies there".to_owned()
        } else {
            format!("left out: {}", listed(&parcel.left_out))
        };
        return Err(Failure::new(Exit::Usage, format!("there is nothing to push: {why}")));
    }
    let uncommitted = repo.uncommitted()?;
    let uncommitted: BTreeSet<&str> = uncommitted.iter().filter_map(|entry| entry.get(3..)).collect();
    let ignored: BTreeSet<&str> = ignored.iter().map(|name| name.text.as_str()).collect();
    let other =
        |item: &&Item| uncommitted.contains(item.path.as_str()) || ignored.contains(item.path.as_str());
    parcel.dirty = parcel.items.iter().filter(other).map(|item| item.path.clone()).collect();
    Ok(parcel)
}

impl Parcel {
    /// Takes one path along, or says why it stays here.
    fn take(
        &mut self,
        profile: &Profile,
        name: &Name,
        ignored: bool,
        force: bool,
    ) -> Result<Result<(), Stays>, Failure> {
        let (oddity, name) = (name.oddity(), name.text.as_str());
        let sensitive = profile.is_secret(name) || ignored;
        // A directory is meant by what is in it.
        let within = if name.ends_with('/') { format!("{name}x") } else { name.to_owned() };
        if glob::any(&profile.source.exclude, &within) {
            return Ok(Err(Stays::Always("is made on the server, by the profile")));
        }
        if sensitive && !force {
            let why = if ignored { "is ignored by git" } else { "may hold secrets" };
            return Ok(Err(Stays::Sensitive(why)));
        }
        if let Some(oddity) = oddity {
            return Err(refuse(name, oddity).hint(exclude_line([name])));
        }
        let file = self.top.join(name);
        let Ok(meta) = file.symlink_metadata() else {
            return Ok(Err(Stays::Always("was deleted here; a push takes nothing away")));
        };
        if meta.is_dir() {
            return Ok(Err(Stays::Always("is a repository of its own")));
        }
        let read = |error: std::io::Error| refuse(name, &format!("cannot be read: {error}"));
        let (kind, what) = if meta.is_symlink() {
            let target = file.read_link().map_err(read)?.to_string_lossy().into_owned();
            if !stays(name, &target) {
                return Ok(Err(Stays::Always("is a link that leads out of the repository")));
            }
            ('l', target)
        } else if meta.is_file() {
            self.bytes += meta.len();
            (if meta.permissions().mode() & 0o111 == 0 { 'f' } else { 'x' }, digest(&file).map_err(read)?)
        } else {
            return Ok(Err(Stays::Always("is neither a file nor a link")));
        };
        self.items.push(Item { kind, what, path: name.to_owned(), sensitive });
        Ok(Ok(()))
    }

    /// The units that the profile maps these paths to.
    fn units(&self, profile: &Profile) -> Vec<Chosen> {
        let paths: Vec<&str> = self.items.iter().map(|item| item.path.as_str()).collect();
        units::of(profile, |unit| reads(profile, unit, &paths))
    }

    fn manifest(&self) -> String {
        self.items.iter().map(|item| format!("{}\t{}\t{}\n", item.kind, item.what, item.path)).collect()
    }

    /// What has not the owner and the mode of the rest: the profile's own secrets, and what nobody but the app shall read.
    fn special(&self, profile: &Profile) -> String {
        let line = |item: &Item| {
            if item.path == *profile.env.file {
                return format!("{}\t{}\t{}\n", &*profile.env.owner, &*profile.env.mode, item.path);
            }
            if let Some(secret) = profile.secrets.iter().find(|it| item.path == *it.file) {
                let owner = secret.owner.as_deref().map_or_else(|| owner(profile), str::to_owned);
                return format!("{owner}\t{}\t{}\n", &*secret.mode, item.path);
            }
            let mode = if item.kind == 'x' { "700" } else { "600" };
            format!("{}\t{mode}\t{}\n", owner(profile), item.path)
        };
        self.items.iter().filter(|item| item.sensitive && item.kind != 'l').map(line).collect()
    }

    /// What is known of it before the VPS is asked.
    pub fn describe(&self, profile: &Profile, report: &mut Report) {
        let size = output::bytes(self.bytes);
        report.push(Check::pass(
            "push.source",
            format!(
                "{}, {size}, on top of commit {}",
                counted(self.items.len(), "path", "paths"),
                self.commit
            ),
        ));
        if !self.dirty.is_empty() {
            let detail = format!("not as in that commit: {}", listed(&self.dirty));
            report.push(Check::warn("push.dirty", detail));
        }
        if !self.left_out.is_empty() {
            report.push(Check::warn("push.left-out", format!("left out: {}", listed(&self.left_out))));
        }
        let builds = profile.build.steps.iter();
        let builds = builds.filter(|step| self.items.iter().any(|item| glob::any(&step.inputs, &item.path)));
        let builds: Vec<String> = builds.map(|step| step.name.to_string()).collect();
        if !builds.is_empty() {
            let detail = format!("a push builds nothing: what {} made stays as it is", listed(&builds));
            report.push(Check::warn("push.build", detail).hint("ua-deploy  # builds it"));
        }
        let installed = |path: &str| self.items.iter().any(|item| item.path == path);
        for (path, _) in profile.template_names().filter(|(path, _)| installed(path)) {
            let detail = format!("a push installs no unit file: systemd goes on with its own copy of {path}");
            report.push(Check::warn("push.unit-file", detail).hint("ua-deploy  # installs it"));
        }
    }
}

fn owner(profile: &Profile) -> String {
    format!("{}:{}", &*profile.owner.user, &*profile.owner.group)
}

/// Does a unit read one of these paths?
fn reads(profile: &Profile, unit: &str, paths: &[&str]) -> bool {
    paths.iter().any(|path| profile.restarts(unit, path))
}

/// What goes on with the old code: of the units that run, those that read a path that is other now.
fn stale(profile: &Profile, running: &[String], changed: &[&str], dry_run: bool) -> Option<Check> {
    let stale = running.iter().filter(|unit| reads(profile, unit, changed));
    let stale: Vec<&str> = stale.map(|unit| unit.trim_end_matches(".service")).collect();
    if stale.is_empty() {
        return None;
    }
    let still = if dry_run { "would go on" } else { "go on" };
    let detail =
        format!("these units read what was pushed, and {still} with the old code: {}", stale.join(", "));
    Some(Check::warn("push.restart", detail).hint(format!("ua-vpsctl restart {}", stale.join(" "))))
}

/// Does a link at `path` lead to something in the repository?
fn stays(path: &str, target: &str) -> bool {
    let mut depth = path.split('/').count() - 1;
    !target.starts_with('/')
        && !target.chars().any(char::is_control)
        && target.split('/').all(|part| match part {
            ".." => depth.checked_sub(1).is_some_and(|up| {
                depth = up;
                true
            }),
            "" | "." => true,
            _ => {
                depth += 1;
                true
            }
        })
}

fn digest(file: &Path) -> std::io::Result<String> {
    let mut input = std::fs::File::open(file)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 128 * 1024];
    loop {
        let length = input.read(&mut buffer)?;
        if length == 0 {
            return Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect());
        }
        hash.update(&buffer[..length]);
    }
}

/// Uploads the parcel, has it put in place, and with `restart` the units that read it restarted; with `dry_run` only says
/// what that would change.
pub fn push(
    session: &Session<'_>,
    parcel: &Parcel,
    dry_run: bool,
    restart: bool,
    report: &mut Report,
) -> Result<(), Failure> {
    let context = session.context;
    let app = app::dir(&context.settings)?;
    let now = Timestamp::now();
    let entry = Push {
        // The same commit may be pushed upon twice within a second.
        id: format!("{}-{}", now.strftime("%Y%m%dT%H%M%S.%3fZ"), parcel.commit.get(..12).unwrap_or_default()),
        at: now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        who: context.around.who(),
        commit: parcel.commit.clone(),
        dirty: !parcel.dirty.is_empty(),
        ..Push::default()
    };
    if !dry_run {
        upload(session, parcel, &entry.id)?;
    }
    let units = parcel.units(session.profile);
    let mut restarting = Restart::new(session, &units);
    let (head, manifest, special) = (entry.head(), parcel.manifest(), parcel.special(session.profile));
    let dry = if dry_run { "yes" } else { "no" };
    let (owner, modes) = (owner(session.profile), &session.profile.owner.modes);
    let words = if restart && !units.is_empty() {
        restarting.args()
    } else {
        std::iter::once("look".to_owned()).chain(units.iter().map(|it| it.unit.clone())).collect()
    };
    let mut args = vec![dry, STATE, app, &entry.id, &entry.who, &owner, modes, &head, &manifest, &special];
    args.extend(words.iter().map(String::as_str));
    let bar = context.out.spinner(if dry_run { "comparing" } else { "putting it in place" });
    let limit = LIMIT + restarting.limit();
    let answer = session.transport.stream(PUSH, &args, LIMIT, limit, &mut |line| {
        if let Some(words) = restarting.hear(line) {
            bar.set_message(words);
        }
    });
    bar.finish_and_clear();
    let answer = answer.map_err(|error| if dry_run { error.into() } else { unheard(error, &entry.id) })?;
    if !restarting.is_judged() {
        finished(PUSH, &answer, &restarting.lines().join(" "))?;
    }
    let seen = |word: &str| -> Vec<String> {
        let lines = restarting.lines().iter().filter_map(|line| line.split_once('\t'));
        let mut paths: Vec<String> =
            lines.filter(|(seen, _)| *seen == word).map(|(_, path)| path.to_owned()).collect();
        paths.sort_unstable();
        paths
    };
    let (new, other, same) = (seen("new"), seen("other"), seen("same"));
    if dry_run && !context.out.is_json() {
        for path in &new {
            context.out.would(&format!("put {path} there"));
        }
        for path in &other {
            context.out.would(&format!("replace {path}"));
        }
    }
    let counts = [(new.len(), "new"), (other.len(), "replaced"), (same.len(), "the same already")];
    let counts: Vec<String> = counts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| format!("{count} {word}"))
        .collect();
    let counts = counts.join(", ");
    let done = if dry_run {
        "nothing was changed".to_owned()
    } else if new.is_empty() && other.is_empty() {
        "nothing to do".to_owned()
    } else {
        report.data.insert("id".to_owned(), json!(entry.id));
        format!("in the ledger as `{}`", entry.id)
    };
    report.push(Check::pass("push", format!("below `{app}`: {counts}; {done}")));
    report.data.extend([
        ("commit".to_owned(), json!(entry.commit)),
        ("dirty".to_owned(), json!(parcel.dirty)),
        ("left_out".to_owned(), json!(parcel.left_out)),
        ("new".to_owned(), json!(new)),
        ("replaced".to_owned(), json!(other)),
        ("same".to_owned(), json!(same)),
    ]);
    if !restart {
        let changed: Vec<&str> = new.iter().chain(&other).map(String::as_str).collect();
        report.checks.extend(stale(session.profile, &seen("runs"), &changed, dry_run));
        return Ok(());
    }
    if units.is_empty() {
        report.push(Check::pass("restart", "no unit reads these paths, by the profile"));
    } else if dry_run {
        report.push(Check::pass("restart", format!("would restart {}", status::list(&units))));
    } else {
        restarting.tell(session, &answer, report)?;
    }
    Ok(())
}

/// The VPS has all that it needs, and goes on without us.
fn unheard(error: TransportError, id: &str) -> Failure {
    let failure = Failure::from(error);
    let message = format!(
        "{failure}; the VPS may go on with push `{id}`, and the ledger names whatever is put in place"
    );
    Failure::new(failure.exit, message)
        .hint("ua-deploy status  # once there is a way; the same push again does what is left of it")
}

/// Brings the files into a place of their own beside the app.
fn upload(session: &Session<'_>, parcel: &Parcel, id: &str) -> Result<(), Failure> {
    let settings = &session.context.settings;
    let list = session.transport.scratch().join("push");
    // rsync takes what begins with `#` or `;` for a comment, even between NULs.
    let names: String = parcel.items.iter().map(|item| format!("./{}\0", item.path)).collect();
    std::fs::write(&list, names)
        .map_err(|error| Failure::new(Exit::Failed, format!("cannot write `{}`: {error}", list.display())))?;
    let idle = settings.transfer_idle_timeout.0;
    let mut args = rsync::upload(&settings.deploy_app_dir.0, idle);
    args.extend(["--mkpath".into(), "--from0".into()]);
    args.push(format!("--files-from={}", list.display()).into());
    let mut from = parcel.top.clone().into_os_string();
    from.push("/");
    args.push(from);
    args.push(session.transport.remote(&format!("{STATE}/incoming/push-{id}/tree/")));
    let _waiting =
        session.context.out.waiting(format!("uploading {}", counted(parcel.items.len(), "file", "files")));
    let why = match session.transport.rsync(args, idle, &mut |_| {}) {
        Ok(finished) if finished.code == 0 => return Ok(()),
        Ok(finished) => {
            let said = printable(finished.err().trim());
            format!("{} (rsync {}): {said}", rsync::meaning(finished.code), finished.code)
        }
        Err(error @ TransportError::Run(RunError::Timeout { .. })) => error.to_string(),
        Err(error) => return Err(error.into()),
    };
    let message = format!("the upload failed, and nothing was put in place: {why}");
    Err(Failure::new(Exit::Transfer, message).hint("ua-vpsctl doctor"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p62_a_pushed_secret_gets_the_owner_and_mode_of_the_profile() {
        let csi = "CSI_Ingester/development/deployment/systemd/csi-ingester.env";
        let item =
            |path: &str, sensitive| Item { kind: 'f', what: String::new(), path: path.to_owned(), sensitive };
        let parcel = Parcel {
            top: PathBuf::new(),
            commit: String::new(),
            items: vec![item(".env", true), item(csi, true), item("a.key", true), item("a.py", false)],
            dirty: Vec::new(),
            left_out: Vec::new(),
            bytes: 0,
        };
        let mut profile = Profile::built_in().unwrap();
        profile.secrets[0].mode = "640".to_owned().try_into().unwrap();
        let rest = "ua:ua\t600\ta.key\n";
        let special = |owner: &str| format!("root:ua\t640\t.env\n{owner}\t640\t{csi}\n{rest}");
        assert_eq!(parcel.special(&profile), special("ua:ua"));
        profile.secrets[0].owner = Some("root:ua".to_owned().try_into().unwrap());
        assert_eq!(parcel.special(&profile), special("root:ua"));
        // Who reads `.env`, or what the profile does not know, is every unit.
        let units: Vec<String> = parcel.units(&profile).iter().map(Chosen::arg).collect();
        assert_eq!((units.len(), units[6].as_str()), (7, "?csi-ingester.service"));
    }

    #[test]
    fn what_runs_and_reads_what_changed_goes_on_with_the_old_code() {
        let profile = Profile::built_in().unwrap();
        let running = ["universal-agent-api", "universal-agent-webui"].map(|unit| format!("{unit}.service"));
        let warned = |changed: &[&str], dry_run| stale(&profile, &running, changed, dry_run);
        let check = warned(&["src/universal_agent/api.py", "docs/a.md"], false).unwrap();
        assert_eq!((check.id.as_ref(), check.exit), ("push.restart", Exit::Ok));
        assert!(check.detail.ends_with("go on with the old code: universal-agent-api"), "{check:?}");
        assert_eq!(check.hint.as_deref(), Some("ua-vpsctl restart universal-agent-api"));
        let check = warned(&["src/universal_agent/api.py", "web-ui/app/x.mjs"], true).unwrap();
        assert_eq!(
            check.hint.as_deref(),
            Some("ua-vpsctl restart universal-agent-api universal-agent-webui")
        );
        // What is the same already, and what nobody reads.
        assert!(warned(&[], false).is_none() && warned(&["docs/a.md"], false).is_none());
    }

    #[test]
    fn odd_path_is_pushed_only_if_excluded() {
        use std::os::unix::ffi::OsStrExt as _;
        let dir = tempfile::tempdir().unwrap();
        let git = |args: &[&str]| {
            let git = ua_common::run::Cmd::new("git", LIMIT).arg("-C").arg(dir.path());
            let git = git.args(["-c", "user.name=op", "-c", "user.email=op@localhost"]);
            assert_eq!(git.args(args.iter().copied()).output().unwrap().code, 0);
        };
        git(&["init", "--quiet", "--template="]);
        git(&["commit", "--quiet", "--allow-empty", "--message", "x"]);
        std::fs::create_dir(dir.path().join("src")).unwrap();
        std::fs::write(dir.path().join("src/-a b.py"), "x").unwrap();
        let repo = Repo::open(dir.path()).unwrap();
        let mut profile = Profile::built_in().unwrap();
        let push = |profile: &Profile| gather(&repo, profile, dir.path(), &["src".to_owned()], false);
        for (name, why, pattern) in [
            (&b"src/x\ny"[..], "`src/x\\ny` has a control character in its name", "src/x?y"),
            (b"src/caf\xe9", "`src/caf\u{fffd}` is not UTF-8 text", "src/caf?"),
        ] {
            std::fs::write(dir.path().join(std::ffi::OsStr::from_bytes(name)), "x").unwrap();
            let failure = push(&profile).unwrap_err();
            assert_eq!((failure.exit, failure.to_string().as_str()), (Exit::Usage, why));
            assert!(
                format!("{failure:?}").contains(&format!("exclude = [\\\"{pattern}\\\"]")),
                "{failure:?}"
            );
            profile.source.exclude.push(glob::Pattern::try_from(pattern.to_owned()).unwrap());
            let parcel = push(&profile).unwrap();
            let paths: Vec<&str> = parcel.items.iter().map(|item| item.path.as_str()).collect();
            assert_eq!(paths, ["src/-a b.py"]);
        }
        assert!(push(&profile).unwrap().left_out.iter().all(|path| !path.contains('\n')));
    }

    #[test]
    fn p62_no_path_leads_out_of_the_repository() {
        for path in
            ["../x", "/etc/passwd", "", ".", "./", "a/../../b", "a//b", ".git/config", "a/.git/x", "a\nb"]
        {
            assert_eq!(inside(path).unwrap_err().exit, Exit::Usage, "{path}");
        }
        assert_eq!(inside("./src/").unwrap(), "src");
        for (path, target, fine) in [
            ("a/b", "../c", true),
            ("a/b", "../../c", false),
            ("a", "../a", false),
            ("a", "/etc/passwd", false),
            ("a/b", "c/../../d", true),
            ("a/b", "c/../../../d", false),
        ] {
            assert_eq!(stays(path, target), fine, "{path} -> {target}");
        }
    }
}
