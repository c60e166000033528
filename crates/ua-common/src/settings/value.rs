//! What each kind of setting accepts. Parsing is exact: nothing falls back in silence.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use crate::host::RemoteHost;

/// A value before it is parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Raw {
    /// From a flag, a variable, or a TOML scalar.
    Text(String),
    /// From a TOML array.
    List(Vec<String>),
}

impl std::fmt::Display for Raw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::List(items) => write!(f, "[{}]", items.join(", ")),
        }
    }
}

/// What relative paths and `~` are relative to.
#[derive(Clone, Copy, Debug)]
pub struct Base<'a> {
    /// The directory of the file that gives the value, else the working directory.
    pub dir: &'a Path,
    /// What `~` stands for.
    pub home: Option<&'a Path>,
}

/// What a shell can offer for a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// Nothing: it is anybody's guess.
    Nothing,
    /// Files and directories of this machine.
    Paths,
    /// Nodes of the tailnet.
    Hosts,
    /// One of these words.
    Words(&'static [&'static str]),
}

/// A type that a setting can have.
pub trait Value: Sized {
    /// What it accepts, as it follows "is not …".
    fn takes() -> String;

    /// What a shell can offer for it.
    fn offer() -> Offer {
        Offer::Nothing
    }

    /// Parses a scalar; the error may be empty where [`Value::takes`] says it all.
    fn parse_text(text: &str, base: &Base<'_>) -> Result<Self, String>;

    /// Parses; only lists accept arrays.
    fn parse(raw: &Raw, base: &Base<'_>) -> Result<Self, String> {
        match raw {
            Raw::Text(text) => Self::parse_text(text, base),
            Raw::List(_) => Err("one value is wanted, not a list".to_owned()),
        }
    }

    /// The value of a setting that nobody gave and that has no default.
    fn absent() -> Option<Self> {
        None
    }

    /// The value as it could be typed.
    fn show(&self) -> String;
}

impl<T: Value> Value for Option<T> {
    fn takes() -> String {
        T::takes()
    }
    fn offer() -> Offer {
        T::offer()
    }
    fn parse_text(text: &str, base: &Base<'_>) -> Result<Self, String> {
        T::parse_text(text, base).map(Some)
    }
    fn absent() -> Option<Self> {
        Some(None)
    }
    fn show(&self) -> String {
        self.as_ref().map_or(String::new(), T::show)
    }
}

impl Value for bool {
    fn takes() -> String {
        "1, true, yes, on / 0, false, no, off".to_owned()
    }
    fn parse_text(text: &str, _: &Base<'_>) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "1" | "true" | "yes" | "on" => Ok(true),
            "0" | "false" | "no" | "off" => Ok(false),
            _ => Err(String::new()),
        }
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

/// A TCP port, never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port(pub u16);

impl std::fmt::Display for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl Value for Port {
    fn takes() -> String {
        "a port, 1 to 65535".to_owned()
    }
    fn parse_text(text: &str, _: &Base<'_>) -> Result<Self, String> {
        digits(text)
            .filter(|port| *port > 0)
            .and_then(|port| u16::try_from(port).ok())
            .map(Self)
            .ok_or_default()
    }
    fn show(&self) -> String {
        self.0.to_string()
    }
}

/// A whole number, at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count(pub u32);

impl Value for Count {
    fn takes() -> String {
        "a whole number from 1 to 1000000".to_owned()
    }
    fn parse_text(text: &str, _: &Base<'_>) -> Result<Self, String> {
        digits(text).filter(|count| (1..=1_000_000).contains(count)).map(Self).ok_or_default()
    }
    fn show(&self) -> String {
        self.0.to_string()
    }
}

/// Plain decimal digits: no sign, no blanks.
fn digits(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// An error whose text `takes()` already says.
trait OkOrDefault<T> {
    fn ok_or_default(self) -> Result<T, String>;
}

impl<T> OkOrDefault<T> for Option<T> {
    fn ok_or_default(self) -> Result<T, String> {
        self.ok_or_else(String::new)
    }
}

impl Value for Duration {
    fn takes() -> String {
        "a duration such as 10, 2.5s, 5m, 24h or 7d (a bare number is seconds)".to_owned()
    }
    fn parse_text(text: &str, _: &Base<'_>) -> Result<Self, String> {
        let (number, unit) = match text.find(|c: char| c.is_ascii_alphabetic()) {
            Some(at) => text.split_at(at),
            None => (text, "s"),
        };
        let scale = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3_600.0,
            "d" => 86_400.0,
            _ => return Err(String::new()),
        };
        let plain = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        let seconds: f64 =
            if plain { number.parse().map_err(|_| String::new())? } else { return Err(String::new()) };
        if seconds * scale > 3_650.0 * 86_400.0 {
            return Err("longer than ten years".to_owned());
        }
        Ok(Self::from_secs_f64(seconds * scale))
    }
    fn show(&self) -> String {
        let whole = |(length, _): &&(u64, &str)| {
            self.subsec_nanos() == 0 && self.as_secs() > 0 && self.as_secs().is_multiple_of(*length)
        };
        match [(86_400, "d"), (3_600, "h"), (60, "m")].iter().find(whole) {
            Some((length, unit)) => format!("{}{unit}", self.as_secs() / length),
            None => format!("{}s", self.as_secs_f64()),
        }
    }
}

/// A duration greater than nothing, for limits that would otherwise forbid everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit(pub Duration);

impl Value for Limit {
    fn takes() -> String {
        "a duration above zero such as 10, 2.5s, 5m, 24h or 7d (a bare number is seconds)".to_owned()
    }
    fn parse_text(text: &str, base: &Base<'_>) -> Result<Self, String> {
        Duration::parse_text(text, base).and_then(|limit| {
            if limit.is_zero() { Err("zero would forbid everything".to_owned()) } else { Ok(Self(limit)) }
        })
    }
    fn show(&self) -> String {
        self.0.show()
    }
}

/// A duration, or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Optional(pub Option<Duration>);

impl Value for Optional {
    fn takes() -> String {
        "`off`, or a duration such as 90, 5m or 1h".to_owned()
    }
    fn parse_text(text: &str, base: &Base<'_>) -> Result<Self, String> {
        if matches!(text.to_ascii_lowercase().as_str(), "off" | "no" | "false") {
            return Ok(Self(None));
        }
        Limit::parse_text(text, base).map(|limit| Self(Some(limit.0)))
    }
    fn show(&self) -> String {
        self.0.map_or("off".to_owned(), |duration| duration.show())
    }
}

/// A path on this machine, made absolute.
/// The description of the app: a built-in one by its name, or a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AppProfile {
    /// One of [`crate::profile::BUILT_IN`].
    BuiltIn(&'static str),
    /// A TOML file.
    File(PathBuf),
}

impl Value for AppProfile {
    fn takes() -> String {
        let names = crate::profile::BUILT_IN.iter().map(|(name, _)| format!("`{name}`"));
        format!("{} or a path", names.collect::<Vec<_>>().join(", "))
    }
    fn offer() -> Offer {
        Offer::Paths
    }
    fn parse_text(text: &str, base: &Base<'_>) -> Result<Self, String> {
        let named = crate::profile::BUILT_IN.iter().find(|(name, _)| *name == text);
        named.map_or_else(
            || PathBuf::parse_text(text, base).map(Self::File),
            |(name, _)| Ok(Self::BuiltIn(name)),
        )
    }
    fn show(&self) -> String {
        match self {
            Self::BuiltIn(name) => (*name).to_owned(),
            Self::File(path) => path.show(),
        }
    }
}

impl Value for PathBuf {
    fn takes() -> String {
        "a path".to_owned()
    }
    fn offer() -> Offer {
        Offer::Paths
    }
    fn parse_text(text: &str, base: &Base<'_>) -> Result<Self, String> {
        if text.is_empty() {
            return Err("it is empty".to_owned());
        }
        if text.chars().any(char::is_control) {
            return Err("it holds a control character".to_owned());
        }
        let path = match text.strip_prefix('~') {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => {
                let home = base.home.ok_or("`~` means nothing while HOME is unset")?;
                home.join(rest.trim_start_matches('/'))
            }
            Some(_) => return Err("`~user` is not understood, write the path out".to_owned()),
            None => base.dir.join(text),
        };
        Ok(path.components().filter(|part| *part != Component::CurDir).collect())
    }
    fn show(&self) -> String {
        self.display().to_string()
    }
}

/// An absolute path on the VPS, without `.` or `..`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemotePath(pub String);

impl Value for RemotePath {
    fn takes() -> String {
        "an absolute path on the VPS below /".to_owned()
    }
    fn parse_text(text: &str, _: &Base<'_>) -> Result<Self, String> {
        let path = text.trim_end_matches('/');
        let plain = path.starts_with('/')
            && !path.chars().any(char::is_control)
            && path.split('/').skip(1).all(|part| !matches!(part, "" | "." | ".."));
        if plain { Ok(Self(path.to_owned())) } else { Err(String::new()) }
    }
    fn show(&self) -> String {
        self.0.clone()
    }
}

impl Value for RemoteHost {
    fn takes() -> String {
        "`user@name` with a MagicDNS name".to_owned()
    }
    fn offer() -> Offer {
        Offer::Hosts
    }
    fn parse_text(text: &str, _: &Base<'_>) -> Result<Self, String> {
        text.parse().map_err(|error: crate::host::InvalidHost| error.to_string())
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

/// A path part of a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrlPath(pub String);

impl Value for UrlPath {
    fn takes() -> String {
        "a URL path that begins with /".to_owned()
    }
    fn parse_text(text: &str, _: &Base<'_>) -> Result<Self, String> {
        let plain = text.starts_with('/') && text.chars().all(|c| c.is_ascii_graphic() && c != '#');
        if plain { Ok(Self(text.to_owned())) } else { Err(String::new()) }
    }
    fn show(&self) -> String {
        self.0.clone()
    }
}

/// An http or https URL with a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url(pub String);

impl Value for Url {
    fn takes() -> String {
        "a URL that begins with http:// or https://".to_owned()
    }
    fn parse_text(text: &str, _: &Base<'_>) -> Result<Self, String> {
        let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        let authority = rest.map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
        match authority {
            Some(authority) if authority.contains('@') => Err("a login in a URL is not taken".to_owned()),
            Some("") | None => Err(String::new()),
            Some(_) if !text.chars().all(|c| c.is_ascii_graphic()) => {
                Err("it holds a blank or a control character".to_owned())
            }
            Some(_) => Ok(Self(text.to_owned())),
        }
    }
    fn show(&self) -> String {
        self.0.clone()
    }
}

/// A local address that a route proxies to: `http://127.0.0.1:3000`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target(pub String);

impl Value for Target {
    fn takes() -> String {
        "http:// or https:// with a host and a port, such as http://127.0.0.1:3000".to_owned()
    }
    fn parse_text(text: &str, base: &Base<'_>) -> Result<Self, String> {
        let url = Url::parse_text(text, base)?.0;
        let authority = url.split("//").nth(1).unwrap_or_default().trim_end_matches('/');
        let (host, port) = authority.rsplit_once(':').ok_or("the port is missing")?;
        Port::parse_text(port, base).map_err(|_| format!("`{port}` is not a port"))?;
        if host.is_empty() {
            return Err("the host is missing".to_owned());
        }
        Ok(Self(url.trim_end_matches('/').to_owned()))
    }
    fn show(&self) -> String {
        self.0.clone()
    }
}

/// The key to log in with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SshKey {
    /// The agent and the user's ssh configuration.
    Agent,
    /// A private key file.
    File(PathBuf),
}

impl Value for SshKey {
    fn takes() -> String {
        "the path of a private key, or `agent`".to_owned()
    }
    fn offer() -> Offer {
        Offer::Paths
    }
    fn parse_text(text: &str, base: &Base<'_>) -> Result<Self, String> {
        if text.eq_ignore_ascii_case("agent") {
            return Ok(Self::Agent);
        }
        PathBuf::parse_text(text, base).map(Self::File)
    }
    fn show(&self) -> String {
        match self {
            Self::Agent => "agent".to_owned(),
            Self::File(path) => path.show(),
        }
    }
}

/// Items without order, separated by commas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List(pub Vec<String>);

impl Value for List {
    fn takes() -> String {
        "items separated by commas".to_owned()
    }
    fn parse_text(text: &str, base: &Base<'_>) -> Result<Self, String> {
        Self::parse(&Raw::List(text.split(',').map(|item| item.trim().to_owned()).collect()), base)
    }
    fn parse(raw: &Raw, base: &Base<'_>) -> Result<Self, String> {
        match raw {
            Raw::Text(text) => Self::parse_text(text, base),
            Raw::List(items) => {
                if items.iter().any(|item| item.chars().any(char::is_control)) {
                    return Err("an item holds a control character".to_owned());
                }
                Ok(Self(items.iter().filter(|item| !item.is_empty()).cloned().collect()))
            }
        }
    }
    fn show(&self) -> String {
        self.0.join(",")
    }
}

/// States that a ready marker may name, separated by commas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct States(pub Vec<String>);

impl States {
    /// Returns whether a word can be a state: it is part of a line of the manifest.
    pub fn is_one(word: &str) -> bool {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
        !word.is_empty() && word.bytes().all(plain)
    }
}

impl Value for States {
    fn takes() -> String {
        "states separated by commas, such as completed,failed".to_owned()
    }
    fn parse_text(text: &str, base: &Base<'_>) -> Result<Self, String> {
        Self::parse(&Raw::Text(text.to_owned()), base)
    }
    fn parse(raw: &Raw, base: &Base<'_>) -> Result<Self, String> {
        let List(states) = List::parse(raw, base)?;
        if states.is_empty() {
            return Err("without a state no run has ended".to_owned());
        }
        match states.iter().find(|state| !Self::is_one(state)) {
            Some(state) => {
                Err(format!("`{}` has more than lower-case letters, digits, _ and -", state.escape_debug()))
            }
            None => Ok(Self(states)),
        }
    }
    fn show(&self) -> String {
        self.0.join(",")
    }
}

/// Patterns of directory names, separated by commas; `*` is any text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patterns(pub Vec<String>);

impl Patterns {
    /// Returns whether a pattern matches the whole name.
    pub fn matches(&self, name: &str) -> bool {
        self.0.iter().any(|pattern| matches(pattern, name))
    }

    /// Returns the same as an extended regular expression of a file name, for programs that know no other patterns.
    /// Without patterns it is `/`, which no name holds.
    pub fn regex(&self) -> String {
        if self.0.is_empty() {
            return "/".to_owned();
        }
        let each = self.0.iter().map(|pattern| pattern.replace('.', "[.]").replace('*', "[^/]*"));
        each.collect::<Vec<_>>().join("|")
    }
}

fn matches(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(first) else { return false };
    let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
    for part in middle.split('*') {
        let Some((_, after)) = name.split_once(part) else { return false };
        name = after;
    }
    name.ends_with(last)
}

impl Value for Patterns {
    fn takes() -> String {
        "patterns of directory names separated by commas, such as vp_*_external".to_owned()
    }
    fn parse_text(text: &str, base: &Base<'_>) -> Result<Self, String> {
        Self::parse(&Raw::Text(text.to_owned()), base)
    }
    fn parse(raw: &Raw, base: &Base<'_>) -> Result<Self, String> {
        let List(patterns) = List::parse(raw, base)?;
        // Nothing in a pattern has a meaning of its own to sh, find or awk.
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.*".contains(&byte);
        for pattern in &patterns {
            let shown = pattern.escape_debug();
            if !pattern.bytes().all(plain) {
                return Err(format!("`{shown}` has more than letters, digits, _, -, . and *"));
            }
            if pattern.starts_with(['.', '-']) {
                return Err(format!("`{shown}` begins as no workspace does"));
            }
            if !pattern.bytes().any(|byte| byte.is_ascii_alphanumeric()) {
                return Err(format!("`{shown}` matches every workspace"));
            }
        }
        Ok(Self(patterns))
    }
    fn show(&self) -> String {
        self.0.join(",")
    }
}

/// Which HTTP status codes count as healthy: `200,3xx`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusSet(Vec<(u16, u16)>);

impl StatusSet {
    /// Is `status` healthy?
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|(low, high)| (*low..=*high).contains(&status))
    }
}

impl Value for StatusSet {
    fn takes() -> String {
        "HTTP statuses separated by commas, such as 200,3xx".to_owned()
    }
    fn parse_text(text: &str, _: &Base<'_>) -> Result<Self, String> {
        let item = |word: &str| {
            let word = word.trim().to_ascii_lowercase();
            let (low, high) = match word.strip_suffix("xx") {
                Some(class) => digits(class).map(|class| (class * 100, class * 100 + 99))?,
                None => digits(&word).map(|status| (status, status))?,
            };
            let valid = (100..=599).contains(&low) && high <= 599;
            valid.then(|| Some((u16::try_from(low).ok()?, u16::try_from(high).ok()?))).flatten()
        };
        text.split(',').map(item).collect::<Option<Vec<_>>>().map(Self).ok_or_default()
    }
    fn show(&self) -> String {
        let item = |(low, high): &(u16, u16)| {
            if low == high { low.to_string() } else { format!("{}xx", low / 100) }
        };
        self.0.iter().map(item).collect::<Vec<_>>().join(",")
    }
}

/// Text that is a single file name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileName(pub String);

impl Value for FileName {
    fn takes() -> String {
        "a file name without /".to_owned()
    }
    fn parse_text(text: &str, _: &Base<'_>) -> Result<Self, String> {
        let plain =
            !matches!(text, "" | "." | "..") && !text.contains('/') && !text.chars().any(char::is_control);
        if plain { Ok(Self(text.to_owned())) } else { Err(String::new()) }
    }
    fn show(&self) -> String {
        self.0.clone()
    }
}

/// Defines an enum whose members have a word and other spellings of it.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $member:ident = $word:literal $(| $alias:literal)*),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$doc])* $member),+ }

        impl Value for $name {
            fn takes() -> String {
                let words: &[&[&str]] = &[$(&[$word $(, $alias)*]),+];
                let spelled = |words: &&[&str]| match words {
                    [word] => format!("`{word}`"),
                    [word, aliases @ ..] => format!("`{word}` (= {})", aliases.join(", ")),
                    [] => String::new(),
                };
                format!("one of {}", words.iter().map(spelled).collect::<Vec<_>>().join(", "))
            }
            fn offer() -> Offer {
                Offer::Words(&[$($word),+])
            }
            fn parse_text(text: &str, _: &Base<'_>) -> Result<Self, String> {
                match text.to_ascii_lowercase().as_str() {
                    $($word $(| $alias)* => Ok(Self::$member),)+
                    _ => Err(String::new()),
                }
            }
            fn show(&self) -> String {
                match self { $(Self::$member => $word.to_owned()),+ }
            }
        }
    };
}

words! {
    /// How to prove who we are.
    AuthMode {
        /// A named key, accepted by a real sshd.
        Keys = "keys",
        /// The tailnet's own identity, accepted by Tailscale SSH.
        TailscaleSsh = "tailscale_ssh",
    }
}

words! {
    /// Whether the tailnet is checked before anything remote.
    PreflightMode {
        /// Always, but a break-glass target outside the tailnet is skipped with a warning.
        Auto = "auto",
        /// Without exception.
        Always = "always" | "1" | "true" | "yes" | "on" | "force" | "required",
        /// Not at all, which every report says.
        Never = "never" | "0" | "false" | "no" | "off" | "disabled",
    }
}

words! {
    /// What unhealthy staging means for a deploy.
    StagingMode {
        /// A warning.
        Auto = "auto",
        /// The deploy failed.
        Required = "required" | "force" | "strict",
        /// Staging is left alone.
        Disabled = "disabled" | "off" | "0" | "false" | "no",
    }
}

words! {
    /// How staging is published on the tailnet.
    Scheme {
        /// With the tailnet's certificate.
        Https = "https",
        /// Without TLS of its own; WireGuard encrypts all the same.
        Http = "http",
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn parse<T: Value>(text: &str) -> Result<T, String> {
        T::parse_text(text, &Base { dir: Path::new("/"), home: None })
    }

    #[test]
    fn patterns_match_as_their_regex_does() {
        let names = [
            "vp_coder_primary_external",
            "vp__external",
            "vp_external",
            "vp_coder_primary_external_archive",
            "avp_x_external",
            "session_1",
            "a.b",
            "a+b",
            "axb",
            "aab",
            "ab",
            "abab",
            "ba",
        ];
        for (pattern, matching) in [
            ("vp_*_external", &["vp_coder_primary_external", "vp__external"][..]),
            ("a.b", &["a.b"]),
            ("a*b", &["a.b", "a+b", "axb", "aab", "ab", "abab"]),
            ("a*b*b", &["abab"]),
            ("*b*a*", &["abab", "ba"]),
            ("session_*,ba", &["session_1", "ba"]),
            ("", &[]),
        ] {
            let patterns: Patterns = parse(pattern).unwrap();
            let found: Vec<&str> = names.into_iter().filter(|name| patterns.matches(name)).collect();
            assert_eq!(found, matching, "{pattern}");
            let regex = format!("^({})$", patterns.regex());
            let script = "BEGIN { exit !(ARGV[1] ~ ARGV[2]) }";
            for name in names {
                let status = Command::new("awk").args([script, name, &regex]).status().unwrap();
                assert_eq!(status.success(), patterns.matches(name), "{pattern}, {name}");
            }
        }
    }

    #[test]
    fn patterns_that_match_anything_are_refused() {
        for bad in
            ["*", "**", "a,*", "_*", ".hidden*", "-x", "a/b", "a b", "a?", "[a]", "größe", "a|b", "$(x)"]
        {
            assert!(parse::<Patterns>(bad).is_err(), "{bad}");
        }
        let list = Raw::List(vec!["vp_*_external".to_owned()]);
        let base = Base { dir: Path::new("/"), home: None };
        assert_eq!(Patterns::parse(&list, &base).unwrap().show(), "vp_*_external");
        assert_eq!(parse::<Patterns>("").unwrap(), Patterns::default());
    }

    #[test]
    fn states_are_words_of_a_manifest_line() {
        assert_eq!(parse::<States>("completed, timed_out").unwrap().show(), "completed,timed_out");
        for bad in ["", ",", "Completed", "a|b", "a b", "do\nne", "größe"] {
            assert!(parse::<States>(bad).is_err(), "{bad}");
        }
    }
}
