//! What the VPS looks like before anything is changed: one exec that only reads.

use std::collections::BTreeMap;
use std::time::Duration;

use ua_common::env_file::{self, Assignment};
use ua_common::error::Failure;
use ua_common::exit::Exit;
use ua_common::transport::{Script, Transport};

use crate::history::{self, Record};
use crate::profile::{Profile, Rule};

const SURVEY: Script = Script { name: "survey", text: include_str!("../remote/survey.sh") };
const LIMIT: Duration = Duration::from_mins(1);

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
    /// The same for those that root needs.
    pub tools: BTreeMap<String, Option<String>>,
    /// Unit → systemd's `LoadState`.
    pub units: BTreeMap<String, String>,
    /// `user:group` and mode of `.env`; nothing if it is not there.
    pub env_file: Option<(String, String)>,
    /// The lines of `.env` that the contract speaks of.
    pub env: Vec<Assignment>,
    /// Directory → free KiB.
    pub free: BTreeMap<String, u64>,
    /// The newest release that was proved to run.
    pub served: Option<String>,
    /// Build step → digest of its inputs, as that release ran it.
    pub built: BTreeMap<String, String>,
    /// Who holds the lock.
    pub holder: Option<String>,
    /// Every deploy, oldest first.
    pub history: Vec<Record>,
}

impl Facts {
    /// The deploy that serves, as far as the records know.
    pub fn serving(&self) -> Option<&Record> {
        history::serving(&self.history)
    }
}

/// Looks.
pub fn survey(transport: &Transport, state: &str, app: &str, profile: &Profile) -> Result<Facts, Failure> {
    let args = arguments(state, app, profile);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let answer = transport.script(SURVEY, &args, LIMIT)?;
    if answer.code != 0 {
        let text = format!("the VPS could not be looked at (code {}): {}", answer.code, answer.stderr);
        return Err(Failure::new(Exit::Failed, text));
    }
    Ok(parse(&answer.stdout))
}

/// What the script is asked.
pub fn arguments(state: &str, app: &str, profile: &Profile) -> Vec<String> {
    let mut args = vec![
        state.to_owned(),
        app.to_owned(),
        profile.owner.user.to_string(),
        profile.owner.group.to_string(),
        profile.env.file.to_string(),
        profile.build.path.to_string(),
    ];
    let mut ask = |what: &str, name: &str| args.extend([what.to_owned(), name.to_owned()]);
    profile.programs().iter().for_each(|name| ask("program", name));
    profile.tools().iter().for_each(|name| ask("tool", name));
    profile.units().iter().for_each(|name| ask("unit", name));
    for (key, rule) in &profile.env.keys {
        // A value that is only to be there stays where it is.
        ask(if *rule == Rule::Set { "secret" } else { "key" }, key);
    }
    if let Some(key) = profile.sessions.as_ref().and_then(|sessions| sessions.database_key.as_ref()) {
        ask("key", key);
    }
    args
}

/// Reads `WHAT<TAB>FIELDS…` lines.
pub fn parse(text: &str) -> Facts {
    let mut facts = Facts::default();
    let mut env = String::new();
    let mut lines = String::new();
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
            "tool" => drop(facts.tools.insert(found().0, found().1)),
            "unit" => drop(facts.units.insert(name.to_owned(), value.to_owned())),
            "env" => facts.env_file = Some((name.to_owned(), value.to_owned())),
            "line" => {
                env.push_str(rest);
                env.push('\n');
            }
            "free" => drop(facts.free.insert(name.to_owned(), value.parse().unwrap_or(0))),
            "served" => facts.served = Some(rest.to_owned()),
            "built" => drop(facts.built.insert(name.to_owned(), value.to_owned())),
            "busy" => facts.holder = Some(rest.to_owned()),
            "history" => {
                lines.push_str(rest);
                lines.push('\n');
            }
            _ => {}
        }
    }
    facts.env = env_file::assignments(&env);
    facts.history = history::fold(&lines);
    facts
}
