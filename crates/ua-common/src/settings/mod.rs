//! Settings with provenance: every value knows where it came from.
//!
//! [`table`] is the one table of keys: environment names, flags, defaults, types and documentation all come from it.
//! [`file`] reads and judges `ua.toml`, [`value`] says what each type accepts.

pub mod file;
pub mod table;
pub mod value;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::error::Fact;
use crate::exit::Exit;
pub use table::{KEYS, Key, Settings};
pub use value::{Raw, Value};

/// Where a value came from. Declaration order is precedence: the first that has the key wins.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// A command line flag or argument, as typed.
    Flag(String),
    /// An environment variable.
    Env(&'static str),
    /// The project's `ua.toml` (or `UA_CONFIG`).
    Project(PathBuf, usize),
    /// The user's own `ua.toml`.
    User(PathBuf, usize),
    /// The profile of the app, by its name or file.
    Profile(String),
    /// Built in, or derived from other settings.
    Default,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Flag(name) => f.write_str(name),
            Self::Env(name) => f.write_str(name),
            Self::Project(path, line) | Self::User(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Profile(name) => write!(f, "profile {name}"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A value and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sourced<T> {
    /// The value.
    pub value: T,
    /// Where it came from.
    pub origin: Origin,
}

impl<T> std::ops::Deref for Sourced<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

/// Why the settings cannot be used. Always found before anything is contacted.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The value does not parse.
    #[error("{origin}: `{}` is not {takes} (setting `{key}`){}", .value.escape_debug(), because(.why))]
    Value {
        /// Where the value stands.
        origin: Origin,
        /// The setting.
        key: &'static str,
        /// The value as given.
        value: String,
        /// What is accepted.
        takes: String,
        /// What exactly is wrong, where `takes` does not say it.
        why: String,
    },
    /// Bytes that are not text.
    #[error("{name}: `{}` is not UTF-8 text", .value.to_string_lossy())]
    NotUtf8 {
        /// The variable.
        name: &'static str,
        /// Its value.
        value: OsString,
    },
    /// A key that no table has.
    #[error("{}:{line}: unknown key `{key}`", .path.display())]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// Its line, from 1.
        line: usize,
        /// The key as written.
        key: String,
        /// The most similar known key.
        nearest: Option<&'static str>,
    },
    /// A key that a project file must not decide.
    #[error("{}:{line}: `{key}` is not taken from a project file, whose author is not the operator", .path.display())]
    Sensitive {
        /// The file.
        path: PathBuf,
        /// Its line, from 1.
        line: usize,
        /// The key.
        key: &'static str,
        /// Its environment variable.
        env: &'static str,
    },
    /// Not TOML, or a value of a kind no setting has.
    #[error("{}:{line}: {why}", .path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Its line, from 1.
        line: usize,
        /// What is wrong.
        why: String,
    },
    /// The file cannot be read.
    #[error("cannot read `{}`: {why}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        why: std::io::Error,
    },
    /// The file could have been written by somebody else.
    #[error("`{}` is not trusted: {why}", .path.display())]
    Untrusted {
        /// The file.
        path: PathBuf,
        /// Who could have written it.
        why: String,
        /// The command that mends it.
        mend: String,
    },
    /// Two settings that cannot both be meant.
    #[error("{first} and {second} contradict each other: {why}")]
    Contradiction {
        /// One setting with its value and origin.
        first: String,
        /// The other one.
        second: String,
        /// Why.
        why: &'static str,
    },
    /// A setting without which this run has no meaning.
    #[error("{what}")]
    Missing {
        /// What is missing, and what was looked at.
        what: String,
        /// How to give it.
        hint: String,
    },
}

fn because(why: &str) -> String {
    if why.is_empty() { String::new() } else { format!(": {why}") }
}

impl Fact for SettingsError {
    fn exit(&self) -> Exit {
        Exit::Usage
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::UnknownKey { nearest: Some(key), .. } => Some(format!("did you mean `{key}`?")),
            Self::Sensitive { env, .. } => {
                Some(format!("set {env} in the environment, or the key in your own ~/.config/ua/ua.toml"))
            }
            Self::Untrusted { mend, .. } => Some(mend.clone()),
            Self::Missing { hint, .. } => Some(hint.clone()),
            _ => None,
        }
    }
}

/// One place that gives values: what it gives, by key.
pub type Layer = BTreeMap<&'static str, (Raw, Origin)>;

/// What the process knows of its surroundings, read once; tests make their own.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The working directory.
    pub cwd: PathBuf,
    /// The home directory, without which `~` is an error.
    pub home: Option<PathBuf>,
    /// `$XDG_CONFIG_HOME` or its default.
    pub config_home: Option<PathBuf>,
    /// The environment.
    pub env: BTreeMap<OsString, OsString>,
    /// The effective user id, who may own configuration files.
    pub uid: u32,
}

impl Surroundings {
    /// The real ones of this process.
    pub fn of_process() -> std::io::Result<Self> {
        use etcetera::BaseStrategy;
        let base = etcetera::base_strategy::Xdg::new().ok();
        Ok(Self {
            cwd: std::env::current_dir()?,
            home: base.as_ref().map(|base| base.home_dir().to_path_buf()),
            config_home: base.as_ref().map(BaseStrategy::config_dir),
            env: std::env::vars_os().collect(),
            uid: rustix::process::geteuid().as_raw(),
        })
    }

    fn var(&self, name: &str) -> Option<&OsString> {
        self.env.get(std::ffi::OsStr::new(name)).filter(|value| !value.is_empty())
    }

    /// Who is at work here, as `user@machine`.
    pub fn who(&self) -> String {
        let user = ["LOGNAME", "USER"].iter().find_map(|name| self.var(name));
        let user = user.map_or_else(|| self.uid.to_string(), |user| user.to_string_lossy().into_owned());
        let who = format!("{user}@{}", rustix::system::uname().nodename().to_string_lossy());
        who.chars().filter(|c| !c.is_control()).collect()
    }

    /// The innermost directory at or above the working directory that holds `.git`.
    pub fn git_top(&self) -> Option<&Path> {
        self.cwd.ancestors().find(|dir| dir.join(".git").exists())
    }
}

impl Settings {
    /// Layers `flags` over the environment, the project file, the user file and the defaults.
    pub fn load(flags: Layer, around: &Surroundings) -> Result<Self, SettingsError> {
        let mut layers = vec![flags, env_layer(around)?];
        let project = file::project(around)?;
        let user = file::user(around)?;
        layers.extend(project.as_ref().map(|file| file.layer.clone()));
        layers.extend(user.map(|file| file.layer));
        let settings = Self::resolve(&layers, around)?;
        if let Some(project) = &project {
            file::refuse_within_mirror(&project.path, &settings, around)?;
        }
        Ok(settings)
    }
}

/// The variables of the table that are set and not empty.
fn env_layer(around: &Surroundings) -> Result<Layer, SettingsError> {
    let mut layer = Layer::new();
    for key in KEYS {
        if let Some(value) = around.var(key.env) {
            let text = value
                .to_str()
                .ok_or_else(|| SettingsError::NotUtf8 { name: key.env, value: value.clone() })?;
            layer.insert(key.key, (Raw::Text(text.to_owned()), Origin::Env(key.env)));
        }
    }
    Ok(layer)
}

/// Finds `key` in the layers and parses it; `default` stands below them all.
fn pick<T: Value>(
    layers: &[Layer],
    around: &Surroundings,
    key: &'static str,
    default: Option<&str>,
) -> Result<Sourced<T>, SettingsError> {
    let default = default.map(|text| (Raw::Text(text.to_owned()), Origin::Default));
    let found = layers.iter().find_map(|layer| layer.get(key)).cloned().or(default);
    let Some((raw, origin)) = found else {
        return T::absent().map(|value| Sourced { value, origin: Origin::Default }).ok_or_else(|| {
            SettingsError::Missing { what: format!("`{key}` is not set"), hint: String::new() }
        });
    };
    let base = match &origin {
        Origin::Project(path, _) | Origin::User(path, _) => path.parent().unwrap_or(&around.cwd),
        _ => &around.cwd,
    };
    match T::parse(&raw, &value::Base { dir: base, home: around.home.as_deref() }) {
        Ok(value) => Ok(Sourced { value, origin }),
        Err(why) => Err(SettingsError::Value { origin, key, value: raw.to_string(), takes: T::takes(), why }),
    }
}

/// `docs/environment.md`, made from [`KEYS`].
pub fn markdown() -> String {
    let mut text = String::from(
        "# Settings\n\n\
         Precedence: flag > environment > `ua.toml` of the project (or `UA_CONFIG`) > `~/.config/ua/ua.toml` > default.\n\
         An empty variable is unset. Words may be in any case. Keys marked † are not taken from a project file.\n\
         Made from the code by `cargo xtask docs`.\n\n\
         | key | environment | flag | default | takes | meaning |\n|---|---|---|---|---|---|\n",
    );
    for key in KEYS {
        let mark = if key.sensitive() { " †" } else { "" };
        let flag = key.flag.map_or("–".to_owned(), |flag| format!("`--{flag}`"));
        let default = match key.default {
            Some("") => "empty".to_owned(),
            Some(text) => format!("`{text}`"),
            None => key.derived.to_owned(),
        };
        let takes = (key.takes)().replace('|', "\\|");
        text.push_str(&format!(
            "| `{}`{mark} | `{}` | {flag} | {default} | {takes} | {} |\n",
            key.key, key.env, key.doc
        ));
    }
    text.push_str(
        "\nAlso honoured: `UA_CONFIG` (a file instead of the project's `ua.toml`), `UA_OPS_TOKEN` (never in a file of ours),\n\
         `NO_COLOR`, `XDG_CONFIG_HOME`, `XDG_STATE_HOME`.\n\n\
         A project file is used only if you or root owns it, nobody else can write it, and it does not lie in the mirror.\n",
    );
    text
}

/// `docs/ua.example.toml`, made from [`KEYS`]: every key with its default, commented out.
pub fn example() -> String {
    let mut text = String::from(
        "# Settings of the ops tools. Yours are in ~/.config/ua/ua.toml, those of a project in its ua.toml, which\n\
         # takes no key marked †. What is commented out is the default; `…` stands for a value of your own.\n\
         # Made from the code by `cargo xtask docs`.\n",
    );
    let mut section = "";
    for key in KEYS {
        let Some((of, name)) = key.key.split_once('.') else { continue };
        if of != section {
            text.push_str(&format!("\n[{of}]\n"));
            section = of;
        }
        let mark = if key.sensitive() { " †" } else { "" };
        text.push_str(&format!("# {}{mark}\n", key.doc));
        match key.default {
            Some(value) if value.parse::<i64>().is_ok() || value.parse::<bool>().is_ok() => {
                text.push_str(&format!("#{name} = {value}\n"));
            }
            Some(value) => text.push_str(&format!("#{name} = \"{value}\"\n")),
            None => text.push_str(&format!("# Without it: {}\n#{name} = …\n", key.derived)),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::value::{PreflightMode, SshKey};

    /// Surroundings in a temporary directory: `cwd/` is a git repository, `home/` a home.
    struct Place {
        root: tempfile::TempDir,
        around: Surroundings,
    }

    impl Place {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            let at = |name: &str| root.path().join(name);
            std::fs::create_dir_all(at("cwd/.git")).unwrap();
            let around = Surroundings {
                cwd: at("cwd"),
                home: Some(at("home")),
                config_home: Some(at("home/.config")),
                env: BTreeMap::new(),
                uid: rustix::process::geteuid().as_raw(),
            };
            Self { root, around }
        }

        fn file(&self, path: &str, text: &str) {
            use std::os::unix::fs::PermissionsExt;
            let path = self.root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        }

        fn env(&mut self, name: &str, value: &str) {
            self.around.env.insert(name.into(), value.into());
        }

        fn load(&self, flags: &[(&'static str, &str)]) -> Result<Settings, SettingsError> {
            let flag = |(key, text): &(&'static str, &str)| {
                (*key, (Raw::Text((*text).to_owned()), Origin::Flag(format!("--{key}"))))
            };
            Settings::load(flags.iter().map(flag).collect(), &self.around)
        }
    }

    #[test]
    fn the_first_layer_that_has_a_key_wins_and_says_so() {
        let mut place = Place::new();
        let loaded = |place: &Place, flags: &[(&'static str, &str)]| {
            let timeout = place.load(flags).unwrap().preflight_timeout;
            (
                timeout.value.0.as_secs(),
                timeout.origin.to_string().replace(&place.root.path().display().to_string(), ""),
            )
        };
        assert_eq!(loaded(&place, &[]), (3, "default".into()));
        place.file("home/.config/ua/ua.toml", "[preflight]\ntimeout = 4\n");
        assert_eq!(loaded(&place, &[]), (4, "/home/.config/ua/ua.toml:2".into()));
        place.file("cwd/ua.toml", "# ours\n\n[preflight]\ntimeout = \"5s\"\n");
        assert_eq!(loaded(&place, &[]), (5, "/cwd/ua.toml:4".into()));
        place.env("UA_TAILNET_PREFLIGHT_TIMEOUT", "6");
        assert_eq!(loaded(&place, &[]), (6, "UA_TAILNET_PREFLIGHT_TIMEOUT".into()));
        assert_eq!(loaded(&place, &[("preflight.timeout", "7")]), (7, "--preflight.timeout".into()));
        place.env("UA_TAILNET_PREFLIGHT_TIMEOUT", "");
        assert_eq!(loaded(&place, &[]), (5, "/cwd/ua.toml:4".into()), "an empty variable is unset");
    }

    #[test]
    fn the_project_file_is_sought_up_to_the_git_top_level_and_no_further() {
        let mut place = Place::new();
        place.file("ua.toml", "[preflight]\ntimeout = 9\n");
        place.around.cwd = place.root.path().join("cwd/a/b");
        std::fs::create_dir_all(&place.around.cwd).unwrap();
        assert_eq!(place.load(&[]).unwrap().preflight_timeout.origin, Origin::Default);
        place.file("cwd/ua.toml", "[preflight]\ntimeout = 8\n");
        assert_eq!(place.load(&[]).unwrap().preflight_timeout.value.0.as_secs(), 8);
        place.env("UA_CONFIG", "../../../ua.toml");
        assert_eq!(place.load(&[]).unwrap().preflight_timeout.value.0.as_secs(), 9);
    }

    #[test]
    fn paths_are_relative_to_what_gives_them() {
        let mut place = Place::new();
        place.file("home/.config/ua/ua.toml", "[ssh]\nkey = \"keys/vps\"\n");
        let key = |place: &Place| match place.load(&[]).unwrap().ssh_key.value {
            SshKey::File(path) => path.strip_prefix(place.root.path()).unwrap().to_owned(),
            SshKey::Agent => PathBuf::from("agent"),
        };
        assert_eq!(key(&place), Path::new("home/.config/ua/keys/vps"));
        place.env("UA_VPS_SSH_KEY", "./here");
        assert_eq!(key(&place), Path::new("cwd/here"));
        place.env("UA_VPS_SSH_KEY", "~/there");
        assert_eq!(key(&place), Path::new("home/there"));
        place.env("UA_VPS_SSH_KEY", "AGENT");
        assert_eq!(key(&place), Path::new("agent"));
    }

    #[test]
    fn words_may_be_in_any_case() {
        let mut place = Place::new();
        for (word, mode) in
            [("FORCE", PreflightMode::Always), ("Off", PreflightMode::Never), ("auto", PreflightMode::Auto)]
        {
            place.env("UA_TAILNET_PREFLIGHT", word);
            assert_eq!(place.load(&[]).unwrap().preflight_mode.value, mode);
        }
    }

    #[test]
    fn every_key_has_one_name_in_each_place() {
        for of in [|key: &Key| Some(key.key), |key: &Key| Some(key.env), |key: &Key| key.flag] {
            let mut names: Vec<&str> = KEYS.iter().filter_map(of).collect();
            let all = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), all);
        }
    }

    #[test]
    fn the_example_says_the_defaults_and_nothing_else() {
        let place = Place::new();
        let uncommented: String = example()
            .lines()
            .filter(|line| !line.ends_with('…'))
            .map(|line| match line.strip_prefix('#') {
                Some(setting) if !setting.starts_with(' ') => format!("{setting}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        let built_in = place.load(&[]).unwrap();
        place.file("home/.config/ua/ua.toml", &uncommented);
        let said = place.load(&[]).unwrap();
        for (said, built_in) in said.rows().iter().zip(built_in.rows()) {
            let from_file = matches!(said.2, Origin::User(..));
            let has_default = KEYS.iter().any(|key| key.key == said.0 && key.default.is_some());
            assert_eq!((said.0, &said.1, from_file), (built_in.0, &built_in.1, has_default));
        }
    }

    proptest::proptest! {
        /// No value makes a parser panic, and whatever it accepts, it accepts again as it shows it.
        #[test]
        fn what_is_shown_parses_again(index in 0..KEYS.len(), text in "[ -~]{0,24}") {
            let place = Place::new();
            let key = KEYS[index].key;
            let shown = |settings: &Settings| {
                settings.rows().into_iter().find(|row| row.0 == key).map(|row| row.1).unwrap_or_default()
            };
            if let Ok(settings) = place.load(&[(key, &text)]) {
                let once = shown(&settings);
                if !once.is_empty() {
                    let again = place.load(&[(key, &once)]).map(|settings| shown(&settings));
                    assert_eq!(again.unwrap(), once);
                }
            }
        }
    }
}
