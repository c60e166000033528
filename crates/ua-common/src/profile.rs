//! The app, as a deploy needs to know it: one TOML file, read strictly. `docs/profile.md` says what each key means.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::Fact;
use crate::exit::Exit;
use crate::settings::value::{self, AppProfile, Base, StatusSet, Target, UrlPath, Value as _};
use crate::settings::{Origin, Settings, Sourced};
use serde::de::Visitor;
use serde::{Deserialize, Deserializer};

use crate::glob::{self, Pattern};

/// The profiles that every tool has with it, by name; the first one is the default.
pub const BUILT_IN: &[(&str, &str)] = &[
    ("universal-agent", include_str!("../profiles/universal-agent.toml")),
    ("universal-agent-2026-08", include_str!("../profiles/universal-agent-2026-08.toml")),
];

/// The whole profile.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Whose files the app's are.
    pub owner: Owner,
    /// What is shipped.
    pub source: Source,
    /// What `.env` has to say.
    pub env: Env,
    /// Other files that hold secrets.
    #[serde(default)]
    pub secrets: Vec<Secret>,
    /// How it is built.
    #[serde(default)]
    pub build: Build,
    /// How an operator installs a program, by program.
    #[serde(default)]
    pub install: BTreeMap<Word, Text>,
    /// What runs.
    pub units: Units,
    /// What answers when it runs.
    #[serde(default)]
    pub health: Vec<Health>,
    /// What tells the commit.
    #[serde(default)]
    pub versions: Vec<Version>,
    /// Rows of the workers; a profile without workers has none.
    pub workers: Option<Workers>,
    /// Settings of staging that suit this app, where the operator gives none.
    #[serde(default)]
    pub staging: Staging,
}

/// `[owner]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Owner {
    /// Login that runs the app and the build.
    pub user: Word,
    /// Its group.
    pub group: Word,
    /// Modes, as rsync's `--chmod` takes them.
    pub modes: Modes,
}

/// `[source]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Never shipped.
    #[serde(default)]
    pub exclude: Vec<Pattern>,
    /// Never shipped, since it looks like a secret.
    #[serde(default)]
    pub secret: Vec<Pattern>,
    /// What only looks like one.
    #[serde(default)]
    pub not_secret: Vec<Pattern>,
    /// Files that the server writes.
    #[serde(default)]
    pub preserve: Vec<Pattern>,
    /// Directories that have to be there.
    #[serde(default)]
    pub directories: Vec<Text>,
    /// Free space in MiB.
    pub free_mib: u64,
}

/// `[env]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Env {
    /// Where it is.
    pub file: RelativePath,
    /// `user:group` that it should have.
    pub owner: Word,
    /// Its mode, octal, as `stat -c %a` prints it.
    pub mode: Mode,
    /// Command that prints more of them, on the VPS and as the owner. What it prints goes before the file.
    pub command: Option<Text>,
    /// Key of the token that opens the ops endpoints.
    pub token: Option<Name>,
    /// What each key has to be.
    #[serde(default)]
    pub keys: BTreeMap<Name, Rule>,
}

/// `[[secrets]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Secret {
    /// Where it is; a VPS need not have it.
    pub file: RelativePath,
    /// `user:group` that it should have; otherwise it stays whose it is.
    pub owner: Option<Word>,
    /// Its mode, octal, as `stat -c %a` prints it.
    pub mode: Mode,
}

/// What a key of `.env` has to be.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rule {
    /// `1 true yes on` in any case.
    On,
    /// Anything; its value never leaves the VPS.
    Set,
    /// Exactly this.
    Equals(String),
    /// A list separated by commas that holds all of these.
    Contains(Vec<String>),
}

/// `[build]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Build {
    /// Its `PATH`; never the operator's.
    #[serde(default)]
    pub path: SearchPath,
    /// What is run, in this order.
    #[serde(default)]
    pub steps: Vec<Step>,
}

/// `[[build.steps]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Short name.
    pub name: Word,
    /// Where it runs.
    #[serde(default)]
    pub dir: Option<RelativePath>,
    /// A line of sh.
    pub run: Text,
    /// It is run again only if one of these changed.
    pub inputs: Vec<Pattern>,
    /// What it makes.
    pub outputs: Vec<RelativePath>,
    /// Programs it needs on the build's `PATH`.
    #[serde(default)]
    pub programs: Vec<Program>,
    /// How long it may take; otherwise `deploy.build_timeout`.
    pub within: Option<Limit>,
}

/// `[units]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Units {
    /// How long one process has to live to count.
    pub stable_seconds: u32,
    /// How long a unit may take to come up; `deploy.ready_timeout` without it.
    pub start_within: Option<Limit>,
    /// Names, with or without `.service`.
    pub names: Vec<Word>,
    /// The same for what a VPS may lack, or have stopped.
    #[serde(default)]
    pub optional: Vec<Word>,
    /// What has to change for which of them to be restarted.
    #[serde(default)]
    pub restart: Vec<Restart>,
    /// Paths that no process reads when it starts: their change restarts nothing.
    #[serde(default)]
    pub unread: Vec<Pattern>,
    /// Unit files of the commit.
    #[serde(default)]
    pub templates: Vec<RelativePath>,
    /// A timer that is held off during a deploy.
    pub watchdog: Option<Word>,
}

/// `[[units.restart]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restart {
    /// Paths of the app, build outputs too.
    pub paths: Vec<Pattern>,
    /// Those of them that are no reason.
    #[serde(default)]
    pub except: Vec<Pattern>,
    /// Some of `units.names` and `units.optional`.
    pub units: Vec<Word>,
}

/// `[[health]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// Short name.
    pub name: Word,
    /// What is asked on the VPS.
    pub url: LocalUrl,
    /// Healthy answers.
    pub status: Statuses,
    /// One of `units.names`: the one that answers.
    pub unit: Option<Word>,
    /// How long it may take to answer after a restart; `deploy.ready_timeout` without it.
    pub within: Option<Limit>,
}

/// `[[versions]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Version {
    /// Short name.
    pub name: Word,
    /// What is asked on the VPS.
    pub url: LocalUrl,
    /// Field of the JSON answer.
    pub field: Name,
    /// One of `units.names`: the one that answers.
    pub unit: Word,
    /// An endpoint that need not tell the commit.
    #[serde(default)]
    pub optional: bool,
}

/// `[workers]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workers {
    /// SQLite file.
    pub database: RelativePath,
    /// Key of `.env` that names another one.
    pub database_key: Option<Name>,
    /// Ids of the sessions that must be ready.
    pub ids: Vec<Word>,
    /// How the unit of an id begins; the rest is the id.
    pub unit: Word,
    /// Table with a row for each worker.
    pub sessions: SessionTable,
    /// Table with a row for each mission; without it no worker is ever busy.
    pub missions: Option<MissionTable>,
}

/// `[workers.sessions]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionTable {
    /// Its name.
    pub table: Name,
    /// Column of the id.
    pub id: Name,
    /// Column of the status.
    pub status: Name,
    /// Column of a name that each process of the worker makes anew and writes when it starts.
    pub owner: Name,
    /// Statuses that count as ready.
    pub ready: Vec<Word>,
    /// Lease that an idle worker keeps renewing. A worker whose lease has expired while its process lives counts as busy.
    pub lease: Option<Lease>,
}

/// `[workers.sessions] lease`: columns with a date and time that SQLite can read.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lease {
    /// Column of the time at which the lease expires.
    pub expires: Name,
    /// Column of the time of the last renewal.
    pub renewed: Name,
}

/// `[workers.missions]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MissionTable {
    /// Its name.
    pub table: Name,
    /// Column of the id.
    pub id: Name,
    /// Column of the status.
    pub status: Name,
    /// Column of the worker that has it: what `owner` of a session says.
    pub worker: Name,
    /// Statuses of a mission that a restart of its worker would kill.
    pub busy: Vec<Word>,
}

impl Workers {
    /// The unit that keeps the row of an id.
    pub fn unit_of(&self, id: &str) -> String {
        full(&format!("{}{id}", &*self.unit))
    }
}

/// `[staging]`: defaults for the settings of the same names.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Staging {
    /// `staging.ui_target`
    pub ui_target: Option<LocalUrl>,
    /// `staging.api_target`
    pub api_target: Option<LocalUrl>,
    /// `staging.ui_health_path`
    pub ui_health_path: Option<PathOfUrl>,
    /// `staging.api_health_path`
    pub api_health_path: Option<PathOfUrl>,
}

/// Returns the line of a profile that excludes `paths`, whatever characters they have.
pub fn exclude_line<'a>(paths: impl IntoIterator<Item = &'a str>) -> String {
    let patterns = paths.into_iter().map(|path| toml::Value::from(Pattern::for_path(path).to_string()));
    let list = toml::Value::Array(patterns.collect());
    format!("exclude = {list}  # in [source] of the profile, beside what is there")
}

/// A unit's whole name.
pub fn full(unit: &str) -> String {
    if unit.ends_with(".service") { unit.to_owned() } else { format!("{unit}.service") }
}

/// Returns the seconds that something may take after a restart: what the operator says, else what the profile says of it.
pub fn within(setting: &Sourced<value::Limit>, own: Option<Limit>) -> u64 {
    let general = setting.0.as_secs().max(1);
    if setting.origin == Origin::Default { own.map_or(general, Limit::seconds) } else { general }
}

/// Defines a text that is checked when it is read, so that no later step has to.
macro_rules! checked {
    ($($(#[$meta:meta])* $name:ident: $what:literal, $fine:expr;)+) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name(String);

        impl TryFrom<String> for $name {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                let fine: fn(&str) -> bool = $fine;
                if fine(&text) { Ok(Self(text)) } else { Err(format!("`{}` is not {}", text.escape_debug(), $what)) }
            }
        }

        impl std::ops::Deref for $name {
            type Target = str;

            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }
    )+};
}

checked! {
    /// A name that means nothing to a shell, to systemd or to SQL.
    Word: "a name of letters, digits and `_.:@-` that does not begin with `-`", |text| {
        !text.is_empty() && !text.starts_with('-')
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.:@-".contains(&byte))
    };
    /// A variable, table, column or field.
    Name: "a name of letters, digits and `_`", |text| {
        text.bytes().next().is_some_and(|byte| !byte.is_ascii_digit())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    /// One line.
    Text: "one line of text", |text| !text.is_empty() && !text.chars().any(char::is_control);
    /// Below the app's directory.
    RelativePath: "a relative path without `.`, `..`, blanks and quotes", |text| {
        text.split('/').all(|part| !matches!(part, "" | "." | "..") && !part.starts_with('-'))
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/_.+@-".contains(&byte))
    };
    /// Directories for `PATH`.
    SearchPath: "absolute directories separated by `:`", |text| {
        text.split(':').all(|dir| dir.starts_with('/'))
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/_.:+-".contains(&byte))
    };
    /// For rsync's `--chmod`.
    Modes: "modes as rsync's --chmod takes them", |text| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b",=+-".contains(&byte))
    };
    /// Of one file; compared with what `stat -c %a` prints.
    Mode: "a mode of three octal digits, such as 640", |text| {
        text.len() == 3 && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte)) && !text.starts_with('0')
    };
    /// On the VPS itself.
    LocalUrl: "an http address of the machine itself, such as http://127.0.0.1:8001/health", |text| {
        ["http://127.0.0.1:", "http://localhost:", "http://[::1]:"].iter().any(|start| text.starts_with(start))
            && text.bytes().all(|byte| byte.is_ascii_graphic())
    };
    /// What is asked of a server.
    PathOfUrl: "a path such as /api/health", |text| {
        UrlPath::parse_text(text, &Base { dir: Path::new("/"), home: None }).is_ok()
    };
    /// HTTP statuses.
    Statuses: "HTTP statuses such as 200,3xx", |text| {
        StatusSet::parse_text(text, &Base { dir: Path::new("/"), home: None }).is_ok()
    };
}

/// Program that a build step needs: `node`, or `node>=20.9`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Program {
    /// Name on the build's `PATH`.
    pub name: Word,
    /// Oldest version that will do.
    pub at_least: Option<VersionNumber>,
}

impl TryFrom<String> for Program {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let (name, version) = match text.split_once(">=") {
            Some((name, version)) => (name, Some(version)),
            None => (text.as_str(), None),
        };
        let at_least = version.map(|version| VersionNumber::parse(version).ok_or(()));
        match (Word::try_from(name.to_owned()), at_least.transpose()) {
            (Ok(name), Ok(at_least)) => Ok(Self { name, at_least }),
            _ => Err(format!(
                "`{}` is not a program such as `node`, or `node>=20.9` with the oldest version that will do",
                text.escape_debug()
            )),
        }
    }
}

/// Version as numbers separated by dots. A missing number counts as 0.
#[derive(Clone, Debug)]
pub struct VersionNumber(Vec<u64>);

impl VersionNumber {
    /// Parses `20.9`.
    pub fn parse(text: &str) -> Option<Self> {
        let number = |part: &str| {
            let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| part.parse().ok()).flatten()
        };
        text.split('.').map(number).collect::<Option<Vec<u64>>>().map(Self)
    }

    /// Finds the first dotted number in what a program printed, such as `v20.9.0` or `uv 0.9.1 (…)`.
    pub fn find(text: &str) -> Option<Self> {
        let words = text.split(|c: char| !c.is_ascii_digit() && c != '.');
        words.map(|word| word.trim_matches('.')).filter(|word| word.contains('.')).find_map(Self::parse)
    }

    fn significant(&self) -> &[u64] {
        let end = self.0.iter().rposition(|number| *number != 0).map_or(0, |last| last + 1);
        &self.0[..end]
    }
}

impl Ord for VersionNumber {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.significant().cmp(other.significant())
    }
}

impl PartialOrd for VersionNumber {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for VersionNumber {
    fn eq(&self, other: &Self) -> bool {
        self.significant() == other.significant()
    }
}

impl Eq for VersionNumber {}

impl std::fmt::Display for VersionNumber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.iter().map(u64::to_string).collect::<Vec<_>>().join("."))
    }
}

/// Duration that limits something: whole seconds from 1 s to 24 h, written as `15m` or as a number of seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Limit(Duration);

impl Limit {
    const TAKES: &str = "a duration of whole seconds from 1s to 24h, such as 90s, 15m or 2h";
    const MAX: Duration = Duration::from_hours(24);

    /// Returns the limit in seconds.
    pub fn seconds(self) -> u64 {
        self.0.as_secs()
    }

    fn parse(text: &str) -> Option<Self> {
        let base = Base { dir: Path::new("/"), home: None };
        let limit = Duration::parse_text(text, &base).ok()?;
        let whole = limit.subsec_nanos() == 0 && !limit.is_zero() && limit <= Self::MAX;
        whole.then_some(Self(limit))
    }
}

impl TryFrom<&str> for Limit {
    type Error = String;

    fn try_from(text: &str) -> Result<Self, String> {
        Self::parse(text).ok_or_else(|| format!("`{}` is not {}", text.escape_debug(), Self::TAKES))
    }
}

impl From<Limit> for Duration {
    fn from(limit: Limit) -> Self {
        limit.0
    }
}

impl std::fmt::Display for Limit {
    /// Writes the limit as a profile may have it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.show())
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LimitVisitor)
    }
}

/// Reads a limit from a string or an integer; an untagged enum would lose the reason of a refusal.
struct LimitVisitor;

impl Visitor<'_> for LimitVisitor {
    type Value = Limit;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(Limit::TAKES)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Limit, E> {
        Limit::try_from(text).map_err(E::custom)
    }

    fn visit_i64<E: serde::de::Error>(self, seconds: i64) -> Result<Limit, E> {
        self.visit_str(&seconds.to_string())
    }
}

/// Why the profile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// It cannot be read.
    #[error("cannot read the profile `{}`", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It does not mean anything we know.
    #[error("{file}:{line}: {why}")]
    Syntax {
        /// The file.
        file: String,
        /// Its line, from 1.
        line: usize,
        /// What is wrong.
        why: String,
    },
}

impl Fact for ProfileError {
    fn exit(&self) -> Exit {
        Exit::Usage
    }
}

impl Profile {
    /// Reads the profile of the settings.
    pub fn load(settings: &Settings) -> Result<Self, ProfileError> {
        match &settings.deploy_profile.value {
            AppProfile::BuiltIn(name) => Self::named(name),
            AppProfile::File(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|source| ProfileError::Unreadable { path: path.clone(), source })?;
                Self::parse(&text, &path.display().to_string())
            }
        }
    }

    /// Reads the default profile, the one for Universal Agent as of February 2026.
    pub fn built_in() -> Result<Self, ProfileError> {
        Self::named(BUILT_IN[0].0)
    }

    /// Reads a built-in profile by its name.
    pub fn named(name: &str) -> Result<Self, ProfileError> {
        let text = BUILT_IN.iter().find(|(known, _)| *known == name).map_or("", |(_, text)| text);
        Self::parse(text, &format!("{name}.toml (built in)"))
    }

    /// Gives settings of staging that the operator left at their defaults the values that suit the app.
    pub fn suit(&self, settings: &mut Settings) {
        fn fill<T>(setting: &mut Sourced<T>, value: Option<T>, origin: &Origin) {
            if let (Origin::Default, Some(value)) = (&setting.origin, value) {
                *setting = Sourced { value, origin: origin.clone() };
            }
        }
        let origin = Origin::Profile(settings.deploy_profile.value.show());
        let target = |url: &Option<LocalUrl>| url.as_ref().map(|url| Target(url.to_string()));
        let path = |path: &Option<PathOfUrl>| path.as_ref().map(|path| UrlPath(path.to_string()));
        let wanted = &self.staging;
        fill(&mut settings.staging_ui_target, target(&wanted.ui_target), &origin);
        fill(&mut settings.staging_api_target, target(&wanted.api_target), &origin);
        fill(&mut settings.staging_ui_health_path, path(&wanted.ui_health_path), &origin);
        fill(&mut settings.staging_api_health_path, path(&wanted.api_health_path), &origin);
    }

    fn parse(text: &str, file: &str) -> Result<Self, ProfileError> {
        let syntax = |offset: usize, why: String| {
            let line = text.get(..offset).map_or(1, |before| before.matches('\n').count() + 1);
            ProfileError::Syntax { file: file.to_owned(), line, why }
        };
        let profile: Self = toml::from_str(text).map_err(|error| {
            let why = error.message().split_whitespace().collect::<Vec<_>>().join(" ");
            syntax(error.span().map_or(0, |span| span.start), why)
        })?;
        let at = |word: &str| text.find(word).unwrap_or(0);
        if profile.units.names.is_empty() {
            return Err(syntax(
                at("[units]"),
                "`units.names` is empty: nothing would be restarted".to_owned(),
            ));
        }
        let runs = !profile.build.steps.is_empty() || profile.env.command.is_some();
        if runs && profile.build.path.is_empty() {
            return Err(syntax(at("[build"), "`build.path` is missing".to_owned()));
        }
        let unit_error = |unit: &str, why: &str| {
            let named = unit.trim_end_matches(".service");
            let place = text.rfind(named).unwrap_or_else(|| at("[workers]"));
            Err(syntax(place, format!("`{named}` {why}")))
        };
        let (units, all) = (profile.units(), profile.all_units());
        if let Some(twice) = profile.optional_units().iter().find(|unit| units.contains(unit)) {
            return unit_error(twice, "is one of `units.names` as well as of `units.optional`");
        }
        let mut restarted = profile.units.restart.iter().flat_map(|it| &it.units).map(|unit| full(unit));
        if let Some(unknown) = restarted.find(|unit| !all.contains(unit)) {
            return unit_error(&unknown, "is not one of `units.names` or `units.optional`");
        }
        // What a deploy asks has to answer on every VPS.
        let answering = profile.health.iter().filter_map(|it| it.unit.as_ref());
        let asked = profile.versions.iter().map(|it| &it.unit).chain(answering).map(|unit| full(unit));
        let workers = profile.workers.iter().flat_map(|it| it.ids.iter().map(|id| it.unit_of(id)));
        if let Some(unknown) = asked.chain(workers).find(|unit| !units.contains(unit)) {
            return unit_error(&unknown, "is not one of `units.names`");
        }
        Ok(profile)
    }

    /// Is a file said to hold secrets, or does it look like a secret or a database?
    pub fn is_secret(&self, path: &str) -> bool {
        *path == *self.env.file
            || self.secrets.iter().any(|secret| *path == *secret.file)
            || (glob::any(&self.source.secret, path) && !glob::any(&self.source.not_secret, path))
    }

    /// Unit names, in full.
    pub fn units(&self) -> Vec<String> {
        self.units.names.iter().map(|name| full(name)).collect()
    }

    /// The part of a unit's name that only it ends in (`gateway`, `vp.coder.primary`), which a person may type for it;
    /// nothing where another one ends in it, too.
    pub fn short<'a>(&self, unit: &'a str) -> Option<&'a str> {
        let last = |unit: &'a str| unit.trim_end_matches(".service").rsplit(['-', '@']).next();
        let names = self.units.names.iter().chain(&self.units.optional);
        let others = names.map(|name| name.trim_end_matches(".service"));
        let short = last(unit)?;
        let alone = others.filter(|other| other.rsplit(['-', '@']).next() == Some(short)).count() <= 1;
        alone.then_some(short)
    }

    /// Those of the units that a VPS may lack, in full.
    pub fn optional_units(&self) -> Vec<String> {
        self.units.optional.iter().map(|name| full(name)).collect()
    }

    /// Both.
    pub fn all_units(&self) -> Vec<String> {
        [self.units(), self.optional_units()].concat()
    }

    /// Makes the optional units of which `runs` is true units like the others, now that it is known of one VPS.
    pub fn take_in(&mut self, runs: impl Fn(&str) -> bool) {
        let optional = std::mem::take(&mut self.units.optional);
        let (running, rest): (Vec<Word>, Vec<Word>) =
            optional.into_iter().partition(|unit| runs(&full(unit)));
        self.units.names.extend(running);
        self.units.optional = rest;
    }

    /// Is a change of `path` a reason to restart `unit`? A path that no group names is one for every unit, and every
    /// path is one for a unit that no group names, unless the profile says that no process reads it.
    pub fn restarts(&self, unit: &str, path: &str) -> bool {
        let mut groups =
            self.units.restart.iter().filter(|it| it.units.iter().any(|name| full(name) == unit)).peekable();
        let unknown = groups.peek().is_none() || !self.names(path);
        (unknown && !glob::any(&self.units.unread, path))
            || groups.any(|it| glob::any(&it.paths, path) && !glob::any(&it.except, path))
    }

    /// Does a group of `units.restart` name `path`?
    pub fn names(&self, path: &str) -> bool {
        self.units.restart.iter().any(|it| glob::any(&it.paths, path))
    }

    /// Where a template of the commit is installed: its own name.
    pub fn template_names(&self) -> impl Iterator<Item = (&RelativePath, &str)> {
        self.units.templates.iter().map(|path| (path, path.rsplit('/').next().unwrap_or(path)))
    }

    /// Is `unit` an instance of a template that the commit brings along?
    pub fn brought_along(&self, unit: &str) -> bool {
        let template = unit.split_once('@').map(|(name, _)| format!("{name}@.service"));
        template.is_some_and(|template| self.template_names().any(|(_, name)| name == template))
    }

    /// Programs that the build needs, each with the newest of the versions that its steps ask for.
    pub fn programs(&self) -> BTreeMap<&str, Option<&VersionNumber>> {
        let mut programs = BTreeMap::new();
        for program in self.build.steps.iter().flat_map(|step| &step.programs) {
            let at_least: &mut Option<&VersionNumber> = programs.entry(&*program.name).or_default();
            *at_least = (*at_least).max(program.at_least.as_ref());
        }
        programs
    }

    /// Programs that the deploy itself needs on the VPS, as root.
    pub fn tools(&self) -> Vec<&'static str> {
        let mut tools = vec!["awk", "flock", "rsync", "sha256sum", "systemctl", "systemd-run", "xargs"];
        if !self.health.is_empty() || !self.versions.is_empty() {
            tools.push("curl");
        }
        if self.workers.is_some() || !self.versions.is_empty() {
            tools.push("sqlite3");
        }
        tools
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FEB: &str = BUILT_IN[0].1;

    #[test]
    fn the_built_in_one_is_whole() {
        let profile = Profile::parse(FEB, "p.toml").unwrap();
        let programs: Vec<&str> = profile.programs().into_keys().collect();
        assert_eq!(programs, ["node", "npm", "uv"]);
        assert!(profile.brought_along("universal-agent-vp-worker@vp.coder.primary.service"));
        assert!(!profile.brought_along("universal-agent-api.service"));
        assert_eq!(
            profile.env.keys[&Name("UA_VP_DISPATCH_MODE".to_owned())],
            Rule::Equals("db_pull".to_owned())
        );
    }

    #[test]
    fn a_mistake_is_named_with_its_line() {
        let wrong = |from: &str, to: &str| {
            Profile::parse(&FEB.replacen(from, to, 1), "p.toml").unwrap_err().to_string()
        };
        let line = |of: &str| FEB.lines().position(|line| line.starts_with(of)).unwrap() + 1;
        let said = wrong("stable_seconds", "stable_second");
        assert!(
            said.starts_with(&format!("p.toml:{}: unknown field `stable_second`", line("stable_seconds"))),
            "{said}"
        );
        let said = wrong("table = \"vp_sessions\"", "table = \"x; DROP TABLE y\"");
        assert!(said.starts_with(&format!("p.toml:{}: `x; DROP TABLE y` is not", line("table ="))), "{said}");
        let said = wrong("url = \"http://127.0.0.1:8002/api/v1/health\"", "url = \"http://example.com/\"");
        assert!(said.contains("is not an http address of the machine itself"), "{said}");
        // A unit that a VPS may lack is no unit that has to answer, and not both.
        let version = "unit = \"universal-agent-api\"";
        let said = wrong(version, "unit = \"csi-ingester\"");
        assert!(said.ends_with("`csi-ingester` is not one of `units.names`"), "{said}");
        let said = wrong("optional = [\"csi-ingester\"]", "optional = [\"universal-agent-api.service\"]");
        assert!(
            said.ends_with("`universal-agent-api` is one of `units.names` as well as of `units.optional`"),
            "{said}"
        );
        let said = wrong("optional = [\"csi-ingester\"]", "optional = []");
        let group = line("units = [\"csi-ingester\"]");
        assert!(
            said.starts_with(&format!("p.toml:{group}: `csi-ingester` is not one of `units.names` or")),
            "{said}"
        );
        let said = wrong("optional = [\"csi-ingester\"]", "optional = [\"--all\"]");
        assert!(said.contains("`--all` is not a name"), "{said}");
        for mode in ["0600", "6400", "64", "888", "000"] {
            let said = wrong("mode = \"600\"", &format!("mode = \"{mode}\""));
            let place = format!("p.toml:{}: `{mode}` is not a mode of three", line("mode = \"600\""));
            assert!(said.starts_with(&place), "{said}");
        }
        let said = wrong("{ equals = \"db_pull\" }", "{ is = \"db_pull\" }");
        assert!(said.contains("unknown variant `is`"), "{said}");
    }

    #[test]
    fn env_command_needs_the_path_of_the_build() {
        let env = "[env]\nfile = \".env\"\nowner = \"ua:ua\"\nmode = \"600\"\ncommand = \"secrets\"\n";
        let text = format!(
            "[owner]\nuser = \"ua\"\ngroup = \"ua\"\nmodes = \"Du=rwx\"\n[source]\nfree_mib = 1\n{env}[units]\n\
             stable_seconds = 1\nnames = [\"x\"]\n"
        );
        let why = Profile::parse(&text, "p.toml").unwrap_err().to_string();
        assert!(why.ends_with("`build.path` is missing"), "{why}");
        let profile = Profile::parse(&format!("{text}[build]\npath = \"/usr/bin\"\n"), "p.toml").unwrap();
        assert_eq!(profile.env.command.as_deref(), Some("secrets"));
        let why =
            Profile::parse(&text.replace("\"secrets\"", "\"a\\nb\""), "p.toml").unwrap_err().to_string();
        assert!(why.starts_with("p.toml:11: `a\\nb` is not one line of text"), "{why}");
    }

    #[test]
    fn program_requirement_is_read_or_refused() {
        let read = |text: &str| Program::try_from(text.to_owned());
        let shown = |text: &str| {
            let program = read(text).unwrap();
            (program.name.to_string(), program.at_least.map(|version| version.to_string()))
        };
        assert_eq!(shown("uv"), ("uv".to_owned(), None));
        assert_eq!(shown("node>=20.9"), ("node".to_owned(), Some("20.9".to_owned())));
        assert_eq!(shown("python3.13>=3"), ("python3.13".to_owned(), Some("3".to_owned())));
        for text in [
            "",
            "node>20",
            "node=20.9",
            "node==20.9",
            "node<21",
            "node>=",
            "node>=v20",
            "node>=20.",
            "node>=20.x",
            "node >=20.9",
            "node>= 20.9",
            "node>=20>=21",
            ">=20.9",
            "-v>=1.0",
            "node>=99999999999999999999.0",
        ] {
            let why = read(text).unwrap_err();
            assert!(why.starts_with(&format!("`{text}` is not a program such as `node`")), "{why}");
        }
        let profile = FEB.replacen("programs = [\"uv\"]", "programs = [\"uv>0.4\"]", 1);
        let why = Profile::parse(&profile, "p.toml").unwrap_err().to_string();
        let line = profile.lines().position(|line| line.contains("uv>0.4")).unwrap() + 1;
        assert!(why.starts_with(&format!("p.toml:{line}: `uv>0.4` is not a program")), "{why}");
    }

    #[test]
    fn program_of_two_steps_needs_the_newer_version() {
        let text = FEB.replacen("programs = [\"uv\"]", "programs = [\"uv\", \"node>=22.1\"]", 1);
        let profile = Profile::parse(&text, "p.toml").unwrap();
        assert_eq!(profile.programs()["node"].unwrap().to_string(), "22.1");
        assert_eq!(profile.programs()["uv"], None);
    }

    #[test]
    fn version_is_found_in_real_output() {
        for (text, version) in [
            ("v20.20.2", "20.20.2"),
            ("uv 0.13.9 (8f2a1c3d4 2026-11-02)", "0.13.9"),
            ("uv 0.9.1", "0.9.1"),
            ("11.19.1", "11.19.1"),
            ("Python 3.13.0", "3.13.0"),
            ("Python 3.14.0rc2", "3.14.0"),
            ("git version 2.39.5 (Apple Git-154)", "2.39.5"),
            ("go version go1.22.3 linux/amd64", "1.22.3"),
            ("curl 7.88.1 (x86_64-pc-linux-gnu) libcurl/7.88.1", "7.88.1"),
            ("tool 2. Version 1.4.", "1.4"),
        ] {
            assert_eq!(VersionNumber::find(text).unwrap().to_string(), version, "{text}");
        }
        for text in ["", "no version here", "version 20", "...", "1..2", "dotted.words"] {
            assert!(VersionNumber::find(text).is_none(), "{text}");
        }
    }

    #[test]
    fn versions_compare_as_numbers() {
        let version = |text: &str| VersionNumber::parse(text).unwrap();
        assert!(version("20.10") > version("20.9") && version("18.20.4") < version("20.9"));
        assert!(version("20") == version("20.0.0") && version("20.0.1") > version("20"));
        assert!(version("9.9.9") < version("10") && version("0") == version("0.0"));
    }

    #[test]
    fn limit_in_profile_is_read_or_refused() {
        #[derive(Debug, Deserialize)]
        struct Doc {
            within: Limit,
        }
        let read = |value: &str| {
            let doc = toml::from_str::<Doc>(&format!("within = {value}"));
            doc.map(|doc| doc.within).map_err(|error| (error.span().unwrap().start, error.to_string()))
        };
        for (value, seconds, shown) in [
            ("\"90s\"", 90, "90s"),
            ("\"15m\"", 900, "15m"),
            ("\"2h\"", 7200, "2h"),
            ("\"24h\"", 86_400, "1d"),
            ("600", 600, "10m"),
            ("\"600\"", 600, "10m"),
        ] {
            let limit = read(value).unwrap();
            assert_eq!((limit.seconds(), limit.to_string().as_str()), (seconds, shown), "{value}");
        }
        let refused =
            ["0", "-5", "\"0s\"", "\"1.5s\"", "\"500ms\"", "\"25h\"", "86401", "\"15 m\"", "\"off\"", "true"];
        for value in refused {
            let (at, why) = read(value).unwrap_err();
            assert_eq!(at, "within = ".len(), "{value}");
            assert!(why.contains("a duration of whole seconds from 1s to 24h"), "{value}: {why}");
        }
    }

    #[test]
    fn an_optional_unit_that_runs_is_a_unit_like_the_others() {
        let mut profile = Profile::built_in().unwrap();
        let csi = "csi-ingester.service".to_owned();
        assert!(!profile.units().contains(&csi) && profile.all_units().contains(&csi));
        let mut without = profile.clone();
        without.take_in(|_| false);
        assert_eq!((without.units(), without.optional_units()), (profile.units(), vec![csi.clone()]));
        profile.take_in(|unit| unit == csi);
        assert!(profile.units().contains(&csi) && profile.optional_units().is_empty());
        let change = "CSI_Ingester/development/app.py";
        let restarted: Vec<String> =
            profile.units().into_iter().filter(|unit| profile.restarts(unit, change)).collect();
        assert_eq!(restarted, [csi]);
    }

    #[test]
    fn what_is_named_as_a_secret_is_one_whatever_the_patterns_say() {
        let text = FEB.replace("    \"**/*.env\",\n", "").replace(
            "file = \"CSI_Ingester/development/deployment/systemd/csi-ingester.env\"",
            "file = \"x/y.env\"",
        );
        let profile = Profile::parse(&text, "p.toml").unwrap();
        assert!(profile.is_secret("x/y.env") && profile.is_secret(".env") && !profile.is_secret("x/z.env"));
    }

    #[test]
    fn a_unit_is_called_by_what_only_it_ends_in() {
        let profile = Profile::built_in().unwrap();
        assert_eq!(profile.short("universal-agent-gateway.service"), Some("gateway"));
        assert_eq!(profile.short("universal-agent-vp-worker@vp.coder.primary"), Some("vp.coder.primary"));
        let twins = FEB.replace("universal-agent-telegram", "other-gateway");
        let twins = Profile::parse(&twins, "p.toml").unwrap();
        assert_eq!(twins.short("universal-agent-gateway"), None);
    }

    #[test]
    fn workers_are_optional() {
        let end = FEB.find("# Rows that the workers").unwrap();
        let profile = Profile::parse(&FEB[..end], "p.toml").unwrap();
        assert!(profile.workers.is_none());
    }

    #[test]
    fn built_in_profiles_parse_and_are_found_by_name() {
        let base = Base { dir: Path::new("/etc"), home: None };
        for (name, _) in BUILT_IN {
            Profile::named(name).unwrap();
            assert_eq!(AppProfile::parse_text(name, &base).unwrap(), AppProfile::BuiltIn(name));
        }
        let file = AppProfile::parse_text("app.toml", &base).unwrap();
        assert_eq!(file, AppProfile::File(PathBuf::from("/etc/app.toml")));
    }

    #[test]
    fn path_that_no_group_names_is_for_every_unit() {
        let profile = Profile::built_in().unwrap();
        let (webui, worker) =
            ("universal-agent-webui.service", "universal-agent-vp-worker@vp.coder.primary.service");
        for (path, for_webui, for_worker) in [
            ("src/universal_agent/api.py", false, true),
            ("web-ui/app/page.tsx", true, false),
            ("scripts/start_vp_worker.sh", false, true),
            ("prompts/system.txt", true, true),
            ("docs/a.md", false, false),
            ("scripts/other.sh", false, false),
        ] {
            let read = (profile.restarts(webui, path), profile.restarts(worker, path));
            assert_eq!(read, (for_webui, for_worker), "{path}");
        }
    }

    #[test]
    fn profile_suits_settings_left_at_default() {
        let around = crate::settings::Surroundings {
            cwd: "/".into(),
            home: Some("/nowhere".into()),
            config_home: None,
            env: BTreeMap::new(),
            uid: 0,
        };
        let mut typed = crate::settings::Layer::new();
        let flag = Origin::Flag("--ui-health-path".to_owned());
        typed.insert("staging.ui_health_path", (crate::settings::Raw::Text("/own".to_owned()), flag));
        let mut settings = Settings::resolve(&[typed], &around).unwrap();
        let named = Profile::named("universal-agent-2026-08").unwrap();
        settings.deploy_profile.value = AppProfile::BuiltIn("universal-agent-2026-08");
        named.suit(&mut settings);
        assert_eq!(settings.staging_api_target.0, "http://127.0.0.1:8002");
        assert_eq!(settings.staging_api_target.origin.to_string(), "profile universal-agent-2026-08");
        assert_eq!(settings.staging_ui_health_path.0, "/own");
        assert_eq!(settings.staging_ui_target.origin, Origin::Default);
    }
}
