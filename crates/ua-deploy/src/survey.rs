//! What the VPS looks like before anything is changed: one exec that only reads.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ua_common::env_contract::{self, CommandFailure};
use ua_common::env_file::{self, Assignment};
use ua_common::error::Failure;
use ua_common::exit::Exit;
use ua_common::ledger::Push;
use ua_common::output::printable;
use ua_common::transport::{Script, Transport};

use crate::history::{self, Record};
use crate::orders;
use crate::release::Release;
use ua_common::profile::Profile;
use ua_common::tool::systemd;

const SURVEY: Script = Script {
    name: "survey",
    text: concat!(
        include_str!("../../ua-common/remote/lying.sh"),
        "\n",
        include_str!("../../ua-common/remote/ledger.sh"),
        "\n",
        include_str!("../../ua-common/remote/env.sh"),
        "\n",
        include_str!("../remote/survey.sh")
    ),
};
const LIMIT: Duration = Duration::from_mins(2);

/// The VPS as it was seen at one moment.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Who we are there.
    pub uid: String,
    /// What the app's directory is: `dir`, `link`, `other` or `missing`.
    pub app: String,
    /// Does the app's user exist?
    pub user: bool,
    /// Does its group?
    pub group: bool,
    /// Program → where it is, if it is.
    pub programs: BTreeMap<String, Option<String>>,
    /// Program of which the profile asks for a version → the answer to `--version`.
    pub versions: BTreeMap<String, VersionAnswer>,
    /// The same as `programs` for those that root needs.
    pub tools: BTreeMap<String, Option<String>>,
    /// How each unit is.
    pub units: BTreeMap<String, Unit>,
    /// Unit file of the commit → digest of what is installed under its name; empty if nothing is.
    pub installed: BTreeMap<String, String>,
    /// `user:group` and mode of `.env`; nothing if it is not there.
    pub env_file: Option<(String, String)>,
    /// The lines of `.env`, and of what `env.command` printed, that the contract speaks of.
    pub env: Vec<Assignment>,
    /// Why the command printed none.
    pub env_failure: Option<CommandFailure>,
    /// What each endpoint that tells a commit answered, by its name in the profile.
    pub endpoints: BTreeMap<String, Told>,
    /// Room where we need it.
    pub free: Vec<Free>,
    /// The newest release that was proved to run.
    pub served: Option<String>,
    /// The newest one of which the app's directory holds something; another than `served` if it was cut off or broken.
    pub newest: Option<String>,
    /// What the release that serves left there, if nothing came after it.
    pub known: Option<Known>,
    /// Build step whose inputs changed → KiB of what it made last.
    pub sizes: BTreeMap<String, u64>,
    /// What was pushed beside the deploys, and no release that serves has settled.
    pub pushes: Vec<Push>,
    /// The last push of all.
    pub last_push: String,
    /// Who holds the lock.
    pub holder: Option<String>,
    /// Every deploy, oldest first.
    pub history: Vec<Record>,
}

/// Answer of a program to `--version`, which it gave the app's owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionAnswer {
    /// Its exit code; 124 where it was ended.
    pub code: String,
    /// Beginning of its output, as one line.
    pub output: String,
}

/// A unit, as systemd shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unit {
    /// `loaded`, `not-found` …
    pub load: String,
    /// `active`, `failed` …
    pub active: String,
    /// How often systemd started it again by itself.
    pub restarts: u64,
    /// For how many seconds it has been in this state.
    pub age: u64,
    /// Seconds that systemd gives it to start and to stop; nothing where it has no limit.
    pub limits: [Option<u64>; 2],
    /// Paths of the app that its unit file names, as relative paths: what it runs, where, and with which environment.
    pub inputs: BTreeSet<String>,
    /// Its environment files that changed after it was started, without the one that the profile names.
    pub stale: BTreeSet<String>,
}

impl Unit {
    /// Is it up, so that an optional one takes part?
    pub fn runs(&self) -> bool {
        self.load == "loaded" && self.active == "active"
    }

    /// Does systemd know anything of it?
    pub fn is_there(&self) -> bool {
        !matches!((self.load.as_str(), self.active.as_str()), ("", _) | ("not-found", "inactive"))
    }
}

/// Answer of an endpoint that tells a commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// HTTP status; `000` where nothing answered.
    pub status: String,
    /// The commit, where it told one.
    pub commit: Option<String>,
}

impl Told {
    /// Did something answer, and not say the commit?
    pub fn lacks_the_commit(&self) -> bool {
        self.status != "000" && self.commit.is_none()
    }
}

/// Free room under a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Free {
    /// The directory.
    pub dir: String,
    /// KiB.
    pub kib: u64,
    /// Which file system it is on.
    pub device: String,
}

/// What a release put there, built and started.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Path → `KIND<TAB>DIGEST-OR-TARGET`; nothing if all of it is as in the manifest that was asked about.
    pub put: Option<BTreeMap<String, String>>,
    /// What of it is not so any more.
    pub drift: BTreeSet<String>,
    /// Build step → digest of its inputs, where what it made is still there.
    pub built: BTreeMap<String, String>,
    /// Unit → commits that it may say it runs.
    pub runs: BTreeMap<String, String>,
    /// Keys of `.env` that were added, changed or removed since, in words.
    pub env_keys: Vec<String>,
}

impl Facts {
    /// The deploy that serves, as far as the records know.
    pub fn serving(&self) -> Option<&Record> {
        history::serving(&self.history)
    }
}

/// Looks.
pub fn survey(
    transport: &Transport,
    state: &str,
    app: &str,
    profile: &Profile,
    release: &Release,
) -> Result<Facts, Failure> {
    let args = arguments(state, app, profile, release);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let answer = transport.script(SURVEY, &args, LIMIT)?;
    if answer.code != 0 {
        let text = format!("the VPS could not be looked at (code {}): {}", answer.code, answer.stderr);
        return Err(Failure::new(Exit::Failed, text));
    }
    Ok(parse(profile, &answer.stdout))
}

/// What the script is asked.
fn arguments(state: &str, app: &str, profile: &Profile, release: &Release) -> Vec<String> {
    let mut args = vec![
        state.to_owned(),
        app.to_owned(),
        profile.owner.user.to_string(),
        profile.owner.group.to_string(),
        profile.env.file.to_string(),
        profile.build.path.to_string(),
        release.manifest_digest(),
    ];
    let mut ask = |what: &str, name: &str| args.extend([what.to_owned(), name.to_owned()]);
    for (name, at_least) in profile.programs() {
        ask("program", name);
        if at_least.is_some() {
            ask("version", name);
        }
    }
    profile.tools().iter().for_each(|name| ask("tool", name));
    profile.all_units().iter().for_each(|name| ask("unit", name));
    profile.template_names().for_each(|(_, name)| ask("template", name));
    for step in &profile.build.steps {
        ask("step", &format!("{}={}", &*step.name, orders::digest(profile, release, step)));
        step.outputs.iter().for_each(|output| ask("output", &format!("{}={output}", &*step.name)));
    }
    // No value leaves the VPS.
    let [shapes, words] = env_contract::question(&profile.env.keys);
    ask("secret", &shapes);
    ask("word", &words);
    if let Some(command) = &profile.env.command {
        ask("env_command", command);
    }
    if let Some(key) = profile.workers.as_ref().and_then(|workers| workers.database_key.as_ref()) {
        ask("key", key);
    }
    for version in &profile.versions {
        ask("endpoint", &format!("{}={}", &*version.name, &*version.url));
    }
    args
}

/// Reads `WHAT<TAB>FIELDS…` lines.
fn parse(profile: &Profile, text: &str) -> Facts {
    let mut facts = Facts::default();
    let mut env = String::new();
    let mut lines = String::new();
    let (mut known, mut same, mut put, mut left) = (false, false, BTreeMap::new(), Known::default());
    for line in text.split('\n') {
        let (what, rest) = line.split_once('\t').unwrap_or((line, ""));
        let (name, value) = rest.split_once('\t').unwrap_or((rest, ""));
        let found = || (name.to_owned(), (!value.is_empty()).then(|| value.to_owned()));
        match what {
            "uid" => rest.clone_into(&mut facts.uid),
            "app" => rest.clone_into(&mut facts.app),
            "user" => facts.user = rest == "yes",
            "group" => facts.group = rest == "yes",
            "program" => drop(facts.programs.insert(found().0, found().1)),
            "version" => {
                let (code, output) = value.split_once('\t').unwrap_or((value, ""));
                let answer = VersionAnswer { code: code.to_owned(), output: printable(output.trim()) };
                facts.versions.insert(name.to_owned(), answer);
            }
            "tool" => drop(facts.tools.insert(found().0, found().1)),
            "unit" => drop(facts.units.insert(name.to_owned(), unit(value))),
            "input" => drop(facts.units.entry(name.to_owned()).or_default().inputs.insert(value.to_owned())),
            "stale" => drop(facts.units.entry(name.to_owned()).or_default().stale.insert(value.to_owned())),
            "endpoint" => drop(facts.endpoints.insert(name.to_owned(), told(profile, name, value))),
            "installed" => drop(facts.installed.insert(name.to_owned(), value.to_owned())),
            "env" => facts.env_file = Some((name.to_owned(), value.to_owned())),
            "env_failed" => facts.env_failure = Some(CommandFailure::parse(rest)),
            "line" => {
                env.push_str(rest);
                env.push('\n');
            }
            "free" => {
                let (kib, device) = value.split_once('\t').unwrap_or((value, ""));
                let (dir, device) = (name.to_owned(), device.to_owned());
                facts.free.push(Free { dir, kib: kib.parse().unwrap_or(0), device });
            }
            "size" => *facts.sizes.entry(name.to_owned()).or_default() += value.parse().unwrap_or(0),
            "served" => facts.served = Some(rest.to_owned()),
            "newest" => facts.newest = (!rest.is_empty()).then(|| rest.to_owned()),
            "known" => known = true,
            "same" => same = true,
            "put" => {
                if let Some((what, path)) = value.split_once('\t') {
                    put.insert(path.to_owned(), format!("{name}\t{what}"));
                }
            }
            "drift" => drop(left.drift.insert(rest.to_owned())),
            "built" => drop(left.built.insert(name.to_owned(), value.to_owned())),
            "runs" => drop(left.runs.insert(name.to_owned(), value.to_owned())),
            "env_key" => left.env_keys.push(format!("{value} {name}")),
            "pushed" => facts.pushes.extend(Push::read(rest)),
            "last_push" => rest.clone_into(&mut facts.last_push),
            "busy" => facts.holder = Some(rest.to_owned()),
            "history" => {
                lines.push_str(rest);
                lines.push('\n');
            }
            _ => {}
        }
    }
    left.put = (!same).then_some(put);
    facts.known = known.then_some(left);
    facts.env = env_file::assignments(&env);
    facts.history = history::fold(&lines);
    facts
}

/// Reads `LOAD<TAB>ACTIVE<TAB>SUB<TAB>RESTARTS<TAB>AGE<TAB>START-LIMIT<TAB>STOP-LIMIT`.
fn unit(fields: &str) -> Unit {
    let mut fields = fields.split('\t');
    let mut next = || fields.next().unwrap_or_default();
    let (load, active, _sub) = (next().to_owned(), next().to_owned(), next());
    let (restarts, age) = (next().parse().unwrap_or(0), next().parse().unwrap_or(0));
    let limits = [systemd::seconds(next()), systemd::seconds(next())];
    Unit { load, active, restarts, age, limits, ..Unit::default() }
}

/// Reads `STATUS<TAB>BODY` of an endpoint.
fn told(profile: &Profile, name: &str, answer: &str) -> Told {
    let (status, body) = answer.split_once('\t').unwrap_or((answer, ""));
    let field = profile.versions.iter().find(|version| *version.name == *name).map(|version| &*version.field);
    let body: Option<serde_json::Value> = serde_json::from_str(body).ok();
    let commit = field.and_then(|field| body.as_ref()?.get(field)?.as_str().map(printable));
    Told { status: status.to_owned(), commit: commit.filter(|commit| !commit.is_empty()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn optional_units_are_asked_about_as_well() {
        let args = arguments("/s", "/a", &Profile::built_in().unwrap(), &Release::of(&[("a", "1")]));
        let mut units = args.windows(2).filter(|pair| pair[0] == "unit").map(|pair| pair[1].as_str());
        assert_eq!((units.clone().count(), units.next_back()), (7, Some("csi-ingester.service")));
    }

    #[test]
    fn unit_facts_of_systemd_are_read() {
        let profile = Profile::built_in().unwrap();
        let worker = "universal-agent-vp-worker@vp.coder.primary.service";
        let text = format!(
            "unit\t{worker}\tloaded\tactive\trunning\t1\t60\t1min 30s\t30min\n\
             unit\tother.service\tloaded\tactive\trunning\t0\t60\tinfinity\tinfinity\n\
             input\t{worker}\tscripts/start_vp_worker.sh\nstale\t{worker}\tworker.env\n"
        );
        let facts = parse(&profile, &text);
        let unit = &facts.units[worker];
        assert_eq!((unit.active.as_str(), unit.restarts, unit.limits), ("active", 1, [Some(90), Some(1800)]));
        assert_eq!(unit.inputs, ["scripts/start_vp_worker.sh".to_owned()].into());
        assert_eq!(unit.stale, ["worker.env".to_owned()].into());
        assert_eq!(facts.units["other.service"].limits, [None, None]);
    }

    #[test]
    fn version_answer_without_the_field_tells_nothing() {
        let profile = Profile::named("universal-agent-2026-08").unwrap();
        for (answer, status, commit) in [
            ("200\t{\"commit_sha\":\"abc\"}", "200", Some("abc")),
            ("200\t{\"commit_sha\":null}", "200", None),
            ("200\t{\"commit_sha\":\"\"}", "200", None),
            ("404\t{\"detail\":\"Not Found\"}", "404", None),
            ("000\t", "000", None),
            ("200\tnot JSON", "200", None),
        ] {
            let facts = parse(&profile, &format!("endpoint\tgateway\t{answer}\n"));
            let told = &facts.endpoints["gateway"];
            assert_eq!((told.status.as_str(), told.commit.as_deref()), (status, commit), "{answer}");
        }
    }
}
