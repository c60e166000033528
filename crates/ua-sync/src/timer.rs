//! The timer: a unit of the user's own systemd that runs the tool again and again. Off until somebody turns it on.
//!
//! What is claimed of it is what systemd says of it afterwards, never what it was asked to do.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use ua_common::error::Failure;
use ua_common::exit::{self, Exit};
use ua_common::report::Check;
use ua_common::settings::value::Value as _;
use ua_common::settings::{KEYS, Key, Origin, Settings, Surroundings};
use ua_common::state;
use ua_common::tool::systemd;

use crate::unit::{self, HEADER, holds_token};
pub use crate::unit::{Timer, service, timer, valid_name};

/// The name of the units, where no other is given.
pub const NAME: &str = "ua-remote-workspace-sync";

/// Pause between two runs, where no other is given.
pub const INTERVAL: Duration = Duration::from_mins(10);

/// What units of the script that came before us speak of.
const PREDECESSORS: [&str; 3] = ["remote_workspace", "sync_remote", "ua-sync"];

/// The arguments that give a run of the timer the settings of this one. What stands in the user's own file stays there:
/// each run reads it, so that it can still be changed.
pub fn pinned(settings: &Settings) -> Vec<String> {
    let mut flags = Vec::new();
    let mut pin = |words: &[&str]| flags.extend(words.iter().map(|word| (*word).to_owned()));
    for (key, (_, text, origin)) in KEYS.iter().zip(settings.rows()) {
        if !of_the_run(key) || !matches!(origin, Origin::Flag(_) | Origin::Env(_) | Origin::Project(..)) {
            continue;
        }
        match (key.key, key.flag, text.as_str()) {
            ("sync.artifacts", _, "false") => pin(&["--no-artifacts"]),
            ("sync.require_ready_marker", _, "true") => pin(&["--require-ready-marker"]),
            ("sync.require_ready_marker", _, _) => pin(&["--ignore-ready-marker"]),
            (_, Some(flag), "true") if key.switch => pin(&[&format!("--{flag}")]),
            (_, Some(flag), text) if !key.switch => pin(&[&format!("--{flag}"), text]),
            _ => {}
        }
    }
    match (settings.sync_respect_toggle.value, &settings.sync_respect_toggle.origin) {
        (_, Origin::User(..)) => {}
        (Some(false), _) => pin(&["--ignore-remote-toggle"]),
        _ => pin(&["--respect-remote-toggle"]),
    }
    flags
}

/// Does a run of the timer take this setting? The repository and the interval are the timer's own.
fn of_the_run(key: &Key) -> bool {
    let section = key.key.split('.').next();
    !matches!(section, Some("deploy" | "staging" | "public"))
        && !matches!(key.key, "repo.dir" | "sync.interval")
}

/// The unit files of a timer.
struct Files {
    name: String,
    dir: PathBuf,
}

impl Files {
    fn of(name: &str, around: &Surroundings) -> Result<Self, Failure> {
        valid_name(name)?;
        let home = around.config_home.as_ref().ok_or_else(|| {
            Failure::new(Exit::Usage, "cannot find the units of this user while HOME is unset")
                .hint("export HOME=…")
        })?;
        Ok(Self { name: name.to_owned(), dir: home.join("systemd/user") })
    }

    fn service(&self) -> PathBuf {
        self.dir.join(service_of(&self.name))
    }

    fn timer(&self) -> PathBuf {
        self.dir.join(timer_of(&self.name))
    }

    fn both(&self) -> [PathBuf; 2] {
        [self.service(), self.timer()]
    }

    /// What stands there now.
    fn found(&self) -> Result<Found, Failure> {
        let mut texts = Vec::new();
        for path in self.both() {
            match std::fs::read(&path) {
                Ok(bytes) => texts.push(String::from_utf8_lossy(&bytes).into_owned()),
                // A link to nowhere is something too.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    texts.extend(path.symlink_metadata().is_ok().then(String::new));
                }
                Err(error) => return Err(cannot("read", &path, &error)),
            }
        }
        Ok(Found { texts })
    }
}

/// The unit files as they were found, those that are there.
struct Found {
    texts: Vec<String>,
}

impl Found {
    fn nothing(&self) -> bool {
        self.texts.is_empty()
    }

    fn ours(&self) -> bool {
        self.texts.iter().all(|text| text.starts_with(HEADER))
    }

    fn holds_token(&self) -> bool {
        self.texts.iter().any(|text| holds_token(text))
    }

    /// Is it a timer for the mirror, whoever made it? What is not is left alone.
    fn is_for_the_mirror(&self, name: &str) -> bool {
        let known = |text: &String| PREDECESSORS.iter().any(|word| text.contains(word));
        name == NAME || self.nothing() || self.ours() || self.texts.iter().any(known)
    }

    fn refuse_foreign(&self, files: &Files) -> Result<(), Failure> {
        if self.is_for_the_mirror(&files.name) {
            return Ok(());
        }
        let path = files.service();
        let message = format!("`{}` is a unit for something else than the mirror", path.display());
        Err(Failure::new(Exit::Refused, message)
            .hint(format!("systemctl --user cat {}", service_of(&files.name))))
    }
}

fn service_of(name: &str) -> String {
    format!("{name}.service")
}

fn timer_of(name: &str) -> String {
    format!("{name}.timer")
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::new(Exit::Failed, format!("cannot {what} `{}`: {error}", path.display()))
}

/// The command that turns a timer of this name on, as a hint.
fn turn_on(name: &str) -> String {
    if name == NAME {
        "ua-sync timer on".to_owned()
    } else {
        format!("ua-sync timer on --service-name {name}")
    }
}

/// What systemd says of a timer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "independent facts about two units")]
struct Seen {
    /// systemd knows both units.
    loaded: bool,
    /// It starts at each login.
    enabled: bool,
    /// It runs now.
    active: bool,
    /// What it starts is under way.
    running: bool,
    /// What it starts.
    command: Option<String>,
    /// The last run: what systemd calls its result, and its exit code. Nothing before the first one has ended.
    last: Option<(String, String)>,
    next: Option<Timestamp>,
}

impl Seen {
    fn look(name: &str) -> Result<Self, Failure> {
        let timer = systemd::show(&timer_of(name), &["LoadState", "ActiveState", "UnitFileState"])?;
        let properties = [
            "LoadState",
            "ActiveState",
            "ExecStart",
            "Result",
            "ExecMainStatus",
            "ExecMainExitTimestampMonotonic",
        ];
        let service = systemd::show(&service_of(name), &properties)?;
        let has = |unit: &BTreeMap<String, String>, property: &str, value: &str| {
            unit.get(property).is_some_and(|found| found == value)
        };
        let text = |property: &str| service.get(property).cloned().unwrap_or_default();
        let active = has(&timer, "ActiveState", "active");
        let ended = !matches!(text("ExecMainExitTimestampMonotonic").as_str(), "" | "0");
        Ok(Self {
            loaded: has(&timer, "LoadState", "loaded") && has(&service, "LoadState", "loaded"),
            enabled: has(&timer, "UnitFileState", "enabled"),
            active,
            running: has(&service, "ActiveState", "activating"),
            command: systemd::command(&text("ExecStart")).map(str::to_owned),
            last: ended.then(|| (text("Result"), text("ExecMainStatus"))),
            next: if active { systemd::next_run(&timer_of(name))? } else { None },
        })
    }

    fn on(&self) -> bool {
        self.loaded && self.enabled && self.active
    }

    /// The state in words.
    fn words(&self) -> &'static str {
        match (self.enabled, self.active) {
            _ if self.on() => "on",
            (false, false) => "off",
            (true, false) => "enabled, but does not run",
            (false, true) => "runs, but not after the next login",
            (true, true) => "runs, but systemd does not accept one of its units",
        }
    }

    /// When it runs next, in words.
    fn next(&self) -> String {
        match self.next {
            _ if self.running => "a run is under way".to_owned(),
            Some(next) => format!("next run at {}", next.strftime("%Y-%m-%dT%H:%M:%SZ")),
            None => "systemd names no next run".to_owned(),
        }
    }

    /// The command, unless it gives a token away.
    fn command(&self) -> Option<&str> {
        self.command.as_deref().filter(|command| !holds_token(command))
    }
}

/// Writes the units of a timer, turns it on, remembers it, and looks whether it is on.
pub fn on(timer: &Timer, around: &Surroundings) -> Result<Vec<Check>, Failure> {
    timer.check()?;
    systemd::answers()?;
    let files = Files::of(&timer.name, around)?;
    for path in files.both() {
        if path.symlink_metadata().is_ok_and(|meta| !meta.is_file()) {
            let message = format!("`{}` is not a regular file and is not replaced", path.display());
            return Err(Failure::new(Exit::Failed, message).hint(format!("ls -l {}", path.display())));
        }
    }
    let old = files.found()?;
    old.refuse_foreign(&files)?;
    let texts = [service(timer), unit::timer(timer)];
    let mut checks = Vec::new();
    if !old.nothing() && !old.ours() {
        let detail = format!("`{}` was not made by ua-sync; it was replaced", files.service().display());
        checks.push(Check::warn("timer.unit", detail));
    } else if !old.nothing() && old.texts != texts {
        checks.push(Check::pass("timer.unit", "other settings than before; the old ones were replaced"));
    }
    if old.holds_token() {
        let detail = "the unit that was replaced held the ops token, which others could read";
        checks.push(Check::warn("timer.token", detail).hint("give the app a new UA_OPS_TOKEN"));
    }

    std::fs::create_dir_all(&files.dir).map_err(|error| cannot("make", &files.dir, &error))?;
    for (path, text) in files.both().iter().zip(&texts) {
        state::write(path, text, 0o644).map_err(|error| cannot("write", path, &error))?;
    }
    remember(timer)?;
    systemd::reload()?;
    systemd::enable_now(&timer_of(&timer.name))?;

    let seen = Seen::look(&timer.name)?;
    checks.push(is_on_as_meant(timer, &seen));
    checks.extend(linger(around));
    Ok(checks)
}

fn is_on_as_meant(timer: &Timer, seen: &Seen) -> Check {
    let hint = format!("systemctl --user status {}", timer_of(&timer.name));
    if !seen.on() {
        let detail = format!("`{}` was turned on, but systemd says: {}", timer.name, seen.words());
        return Check::fail("timer.state", Exit::Failed, detail).hint(hint);
    }
    if seen.command.as_deref() != Some(&unit::command(timer)) {
        let runs = seen.command().unwrap_or("something else");
        let detail = format!("`{}` is on, but runs `{runs}`", timer.name);
        let hint = format!("systemctl --user cat {}", service_of(&timer.name));
        return Check::fail("timer.state", Exit::Failed, detail).hint(hint);
    }
    let every = timer.interval.show();
    Check::pass("timer.state", format!("`{}` is on, {every} after each run; {}", timer.name, seen.next()))
}

/// A warning if the timer ends with the login.
fn linger(around: &Surroundings) -> Option<Check> {
    (systemd::lingers(around.uid) == Some(false)).then(|| {
        Check::warn("timer.linger", "it stops when you log out: lingering is off")
            .hint("loginctl enable-linger")
    })
}

/// Turns a timer off and removes its units. Its settings are remembered.
pub fn off(name: &str, around: &Surroundings) -> Result<Vec<Check>, Failure> {
    let files = Files::of(name, around)?;
    systemd::answers()?;
    let before = Seen::look(name)?;
    let old = files.found()?;
    if old.nothing() && !before.enabled && !before.active {
        return Ok(vec![Check::pass("timer.state", format!("`{name}` was off"))]);
    }
    old.refuse_foreign(&files)?;
    systemd::disable_now(&timer_of(name))?;
    for path in files.both() {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(cannot("remove", &path, &error));
            }
            _ => {}
        }
    }
    systemd::reload()?;
    systemd::forget(&service_of(name))?;
    let mut checks = Vec::new();
    if old.holds_token() {
        let detail = "the unit that was removed held the ops token, which others could read";
        checks.push(Check::warn("timer.token", detail).hint("give the app a new UA_OPS_TOKEN"));
    }
    let after = Seen::look(name)?;
    checks.push(if after.enabled || after.active {
        let detail = format!("`{name}` was turned off, but systemd says: {}", after.words());
        Check::fail("timer.state", Exit::Failed, detail)
            .hint(format!("systemctl --user status {}", timer_of(name)))
    } else {
        let rest = if after.running { "; the run that is under way comes to its own end" } else { "" };
        Check::pass("timer.state", format!("`{name}` is off{rest}"))
    });
    Ok(checks)
}

/// Is a timer of this name on, as far as it goes: enabled, or running until the next login?
pub fn is_on(name: &str) -> Result<bool, Failure> {
    valid_name(name)?;
    systemd::answers()?;
    let seen = Seen::look(name)?;
    Ok(seen.enabled || seen.active)
}

/// What systemd says of a timer, for a person and as data. To be off is no failure.
pub fn status(name: &str, around: &Surroundings) -> Result<(Vec<Check>, Map<String, Value>), Failure> {
    let files = Files::of(name, around)?;
    systemd::answers()?;
    let seen = Seen::look(name)?;
    let found = files.found()?;
    let mut checks = Vec::new();
    let state = format!("`{name}` is {}", seen.words());
    checks.push(match (seen.on(), seen.enabled || seen.active) {
        (true, _) => Check::pass("timer.state", format!("{state}; {}", seen.next())),
        (_, true) => Check::warn("timer.state", format!("`{name}` {}", seen.words())).hint(turn_on(name)),
        (_, false) => Check::pass("timer.state", state),
    });
    if !found.nothing() && !found.ours() {
        let detail = format!("`{}` was not made by ua-sync", files.service().display());
        checks.push(Check::warn("timer.unit", detail).hint(turn_on(name)));
    }
    if found.holds_token() || seen.command.as_deref().is_some_and(holds_token) {
        let detail = format!("`{}` holds the ops token, which others can read", files.service().display());
        let hint = format!("{}  # then give the app a new UA_OPS_TOKEN", turn_on(name));
        checks.push(Check::warn("timer.token", detail).hint(hint));
    }
    checks.extend(last_run(name, &seen));
    if seen.on() {
        checks.extend(linger(around));
    }
    let data = json!({
        "name": name,
        "on": seen.on(),
        "enabled": seen.enabled,
        "active": seen.active,
        "running": seen.running,
        "next_run": seen.next.map(|next| next.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
        "last_result": seen.last.as_ref().map(|(result, _)| result),
        "last_exit_code": seen.last.as_ref().and_then(|(_, code)| code.parse::<u8>().ok()),
        "exec_start": seen.command(),
        "ours": (!found.nothing()).then(|| found.ours()),
    });
    let Value::Object(data) = data else { return Ok((checks, Map::new())) };
    Ok((checks, data))
}

fn last_run(name: &str, seen: &Seen) -> Option<Check> {
    let (result, code) = seen.last.as_ref()?;
    if result == "success" && code == "0" {
        return Some(Check::pass("timer.last_run", "the last run ended well"));
    }
    let name_of = |row: &&exit::Row| row.code.to_string() == *code;
    let meaning = exit::TABLE.iter().find(name_of).map_or(String::new(), |row| format!(" ({})", row.name));
    let detail = match result.as_str() {
        "success" | "exit-code" => format!("the last run ended with exit code {code}{meaning}"),
        other => format!("the last run ended with `{other}`"),
    };
    Some(Check::warn("timer.last_run", detail).hint(format!("journalctl --user -u {name} -n 50")))
}

/// A timer as it is remembered.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Memory {
    interval_ms: u64,
    dir: PathBuf,
    argv: Vec<String>,
}

fn memory() -> Result<PathBuf, Failure> {
    let dir = state::dir().map_err(|error| {
        let (exit, hint) = Failure::within(&error);
        let failure = Failure::new(exit, format!("{error:#}"));
        if let Some(hint) = hint { failure.hint(hint) } else { failure }
    })?;
    Ok(dir.join("timer.toml"))
}

fn memories(path: &Path) -> Result<BTreeMap<String, Memory>, Failure> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(cannot("read", path, &error)),
    };
    toml::from_str(&text).map_err(|error| {
        let why = error.message();
        Failure::new(Exit::Usage, format!("`{}` is not what ua-sync wrote: {why}", path.display()))
            .hint(format!("rm {}; ua-sync timer on", path.display()))
    })
}

/// Keeps the settings of a timer for when it is turned on again.
fn remember(timer: &Timer) -> Result<(), Failure> {
    let path = memory()?;
    let mut all = memories(&path)?;
    let interval_ms = u64::try_from(timer.interval.as_millis()).unwrap_or(u64::MAX);
    all.insert(timer.name.clone(), Memory { interval_ms, dir: timer.dir.clone(), argv: timer.argv.clone() });
    let text = toml::to_string(&all).map_err(|error| Failure::new(Exit::Failed, error.to_string()))?;
    state::write(&path, &text, 0o600).map_err(|error| cannot("write", &path, &error))
}

/// The timer of this name as it was last turned on.
pub fn remembered(name: &str) -> Result<Option<Timer>, Failure> {
    valid_name(name)?;
    let found = memories(&memory()?)?.remove(name);
    Ok(found.map(|Memory { interval_ms, dir, argv }| Timer {
        name: name.to_owned(),
        interval: Duration::from_millis(interval_ms),
        argv,
        dir,
    }))
}

#[cfg(test)]
mod tests {
    use ua_common::report::Verdict;
    use ua_common::settings::{Layer, Raw};
    use ua_tests::Place;

    use super::*;

    fn settings(given: &[(&'static str, &str, Origin)]) -> Settings {
        let dir = PathBuf::from("/srv");
        let env = BTreeMap::new();
        let around = Surroundings { cwd: dir.clone(), home: Some(dir), config_home: None, env, uid: 0 };
        // As `Settings::load` does it: the origins are in order.
        let mut layers: Vec<Layer> = vec![Layer::new(); given.len()];
        for (layer, (key, text, origin)) in layers.iter_mut().zip(given) {
            layer.insert(key, (Raw::Text((*text).to_owned()), origin.clone()));
        }
        Settings::resolve(&layers, &around).unwrap()
    }

    fn flag() -> Origin {
        Origin::Flag("--x".to_owned())
    }

    fn user() -> Origin {
        Origin::User("/home/ua.toml".into(), 1)
    }

    fn project() -> Origin {
        Origin::Project("/srv/ua.toml".into(), 1)
    }

    #[test]
    fn by_default_only_the_toggle_is_pinned() {
        assert_eq!(pinned(&settings(&[])), ["--respect-remote-toggle"]);
    }

    #[test]
    fn what_this_run_was_given_is_pinned_and_what_the_user_keeps_in_a_file_is_not() {
        let given = [
            ("host.vps", "root@other.taildcc090.ts.net", flag()),
            ("ssh.key", "keys/my key", Origin::Env("UA_VPS_SSH_KEY")),
            ("ssh.auth_mode", "tailscale_ssh", user()),
            ("sync.local_dir", "mirror", project()),
            ("sync.ready_prefixes", "", flag()),
            ("sync.ready_min_age", "1m", Origin::Env("UA_X")),
            ("host.break_glass", "yes", flag()),
            ("preflight.skip", "no", Origin::Env("UA_SKIP_TAILNET_PREFLIGHT")),
            ("ops.gateway_url", "https://api.example.com", Origin::Env("UA_X")),
            ("repo.dir", "elsewhere", flag()),
            ("sync.interval", "90", flag()),
            ("deploy.app_dir", "/srv/app", flag()),
            ("staging.ui_port", "444", Origin::Env("UA_X")),
            ("public.app_url", "https://example.com/", project()),
        ];
        let expected = [
            "--host",
            "root@other.taildcc090.ts.net",
            "--break-glass",
            "--ssh-key",
            "/srv/keys/my key",
            "--local-dir",
            "/srv/mirror",
            "--ready-min-age-seconds",
            "1m",
            "--ready-session-prefix",
            "",
            "--gateway-url",
            "https://api.example.com",
            "--respect-remote-toggle",
        ];
        assert_eq!(pinned(&settings(&given)), expected);
    }

    #[test]
    fn switches_are_pinned_by_the_flags_of_the_tool() {
        let with = |key: &'static str, value: &str, origin| pinned(&settings(&[(key, value, origin)]));
        assert_eq!(with("sync.artifacts", "0", project()), ["--no-artifacts", "--respect-remote-toggle"]);
        assert_eq!(with("sync.artifacts", "1", project()), ["--respect-remote-toggle"]);
        let ready = |value, origin| with("sync.require_ready_marker", value, origin).remove(0);
        assert_eq!(ready("true", flag()), "--require-ready-marker");
        assert_eq!(ready("false", Origin::Env("UA_X")), "--ignore-ready-marker");
        assert_eq!(ready("false", user()), "--respect-remote-toggle");
        assert_eq!(with("sync.respect_toggle", "false", Origin::Env("UA_X")), ["--ignore-remote-toggle"]);
        assert_eq!(with("sync.respect_toggle", "true", flag()), ["--respect-remote-toggle"]);
        assert_eq!(with("sync.respect_toggle", "false", user()), [""; 0]);
    }

    #[test]
    fn the_pinned_flags_give_the_same_settings_again() {
        let given = [
            ("ssh.key", "keys/k", flag()),
            ("sync.local_dir", "mirror", flag()),
            ("sync.prune_min_age", "2.5", flag()),
        ];
        let pinned = pinned(&settings(&given));
        let sections = ["host", "ssh", "preflight", "transfer", "sync", "ops"];
        let command = clap::Command::new("once").args(ua_common::settings::table::flags(&sections));
        let typed = ["once"].into_iter().chain(pinned.iter().map(String::as_str));
        let typed = typed.filter(|word| *word != "--respect-remote-toggle");
        let layer = ua_common::settings::table::typed(&command.try_get_matches_from(typed).unwrap());
        let dir = PathBuf::from("/elsewhere");
        let env = BTreeMap::new();
        let around = Surroundings { cwd: dir.clone(), home: Some(dir), config_home: None, env, uid: 0 };
        let again = Settings::resolve(&[layer], &around).unwrap();
        assert_eq!(again.ssh_key.value, settings(&given).ssh_key.value);
        assert_eq!(again.sync_local_dir.value, settings(&given).sync_local_dir.value);
        assert_eq!(again.sync_prune_min_age.value, settings(&given).sync_prune_min_age.value);
    }

    /// The user manager of systemd, as far as a timer can see it. What it has read it keeps until a reload.
    const SYSTEMCTL: &str = r#"#!/bin/sh
[ "$1" = --user ] && shift
[ ! -e "$HOME/no-manager" ] || { echo "Failed to connect to bus" >&2; exit 1; }
units=$HOME/.config/systemd/user seen=$HOME/seen
mkdir -p "$seen"
case $1 in
    daemon-reload) rm -f "$seen"/*.service "$seen"/*.timer; cp "$units"/*.* "$seen"/ 2>/dev/null; exit 0 ;;
    reenable) [ -e "$seen/$2" ] && touch "$seen/enabled" ;;
    restart) [ -e "$HOME/sulks" ] || touch "$seen/active" ;;
    disable) [ -e "$HOME/clings" ] || rm -f "$seen/enabled" "$seen/active" ;;
    list-timers) echo '[{"next":1795642022906957}]' ;;
    show)
        has() { [ -e "$seen/$1" ] && echo "$2" || echo "$3"; }
        case $2 in
            *.timer)
                echo "LoadState=$(has "$2" loaded not-found)"
                echo "ActiveState=$(has active active inactive)"
                echo "UnitFileState=$(has enabled enabled)" ;;
            *.service)
                echo "LoadState=$(has "$2" loaded not-found)"
                echo "ActiveState=inactive"
                argv=$(sed -n 's/^ExecStart=//p' "$seen/$2" 2>/dev/null)
                echo "ExecStart={ path=x ; argv[]=$argv ; ignore_errors=no ; pid=0 }"
                cat "$HOME/ran" 2>/dev/null || echo ExecMainExitTimestampMonotonic=0 ;;
        esac ;;
esac
"#;

    /// Runs one of the stories below in a process of its own, with a home and a `systemctl` of its own.
    fn story(name: &str, tell: fn(&Surroundings)) {
        const STORY: &str = "UA_TEST_STORY";
        if std::env::var_os(STORY).is_some() {
            return tell(&Surroundings::of_process().unwrap());
        }
        let place = Place::new();
        place.program("systemctl", SYSTEMCTL);
        place.program("loginctl", "#!/bin/sh\necho no\n");
        let output = place
            .run(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", &format!("timer::tests::{name}")])
            .env(STORY, "1")
            .output()
            .unwrap();
        let shown = place.shown(&output);
        assert!(output.status.success() && shown.contains("1 passed"), "{shown}");
    }

    fn mine(interval: u64) -> Timer {
        Timer {
            name: NAME.to_owned(),
            interval: Duration::from_secs(interval),
            argv: ["/bin/true", "once", "--repo", "/"].map(str::to_owned).to_vec(),
            dir: PathBuf::from("/"),
        }
    }

    fn home(path: &str) -> PathBuf {
        PathBuf::from(std::env::var_os("HOME").unwrap()).join(path)
    }

    fn plant(unit: &str, text: &str) {
        std::fs::create_dir_all(home(".config/systemd/user")).unwrap();
        std::fs::write(home(".config/systemd/user").join(unit), text).unwrap();
        std::process::Command::new("systemctl").args(["--user", "daemon-reload"]).status().unwrap();
    }

    fn verdicts(checks: &[Check]) -> Vec<(&str, Verdict)> {
        checks.iter().map(|check| (&*check.id, check.verdict)).collect()
    }

    const ON: [(&str, Verdict); 2] = [("timer.state", Verdict::Pass), ("timer.linger", Verdict::Warn)];
    const OFF: [(&str, Verdict); 1] = [("timer.state", Verdict::Pass)];

    #[test]
    fn p136_on_off_and_on_again_as_it_was() {
        story("p136_on_off_and_on_again_as_it_was", |around| {
            assert!(!is_on(NAME).unwrap() && remembered(NAME).unwrap().is_none());
            assert_eq!(off(NAME, around).unwrap()[0].detail, format!("`{NAME}` was off"));
            assert_eq!(status(NAME, around).unwrap().1["on"], false);

            let checks = on(&mine(90), around).unwrap();
            assert_eq!(verdicts(&checks), ON);
            assert!(checks[0].detail.contains("is on, 90s after each run"), "{}", checks[0].detail);
            assert!(is_on(NAME).unwrap());
            let files = Files::of(NAME, around).unwrap();
            for (path, text) in files.both().iter().zip([service(&mine(90)), timer(&mine(90))]) {
                use std::os::unix::fs::PermissionsExt as _;
                assert_eq!(std::fs::read_to_string(path).unwrap(), text);
                assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o644);
            }
            assert_eq!(verdicts(&on(&mine(90), around).unwrap()), ON, "nothing is new");
            let changed = on(&mine(120), around).unwrap();
            assert_eq!(verdicts(&changed[..1]), [("timer.unit", Verdict::Pass)]);
            let (checks, data) = status(NAME, around).unwrap();
            assert_eq!(verdicts(&checks), ON);
            assert_eq!(data["exec_start"], "/bin/true once --repo /");
            assert_eq!(data["next_run"], "2026-11-25T21:27:02Z");

            assert_eq!(verdicts(&off(NAME, around).unwrap()), OFF);
            assert!(!is_on(NAME).unwrap() && files.found().unwrap().nothing());
            assert_eq!(remembered(NAME).unwrap(), Some(mine(120)));
            let other = Timer { name: "other".to_owned(), ..mine(60) };
            on(&other, around).unwrap();
            assert_eq!(remembered(NAME).unwrap(), Some(mine(120)), "each by its name");
            assert_eq!(remembered("other").unwrap(), Some(other));
        });
    }

    #[test]
    fn p131_a_token_in_an_old_unit_is_told_but_never_shown() {
        story("p131_a_token_in_an_old_unit_is_told_but_never_shown", |around| {
            let old =
                "[Service]\nExecStart=/bin/bash /r/scripts/sync_remote_workspaces.sh --ops-token hunter2\n";
            plant(&service_of(NAME), old);
            plant(&timer_of(NAME), "[Timer]\nOnUnitActiveSec=600\nPersistent=true\n");
            let (checks, data) = status(NAME, around).unwrap();
            let warned = [("timer.unit", Verdict::Warn), ("timer.token", Verdict::Warn)];
            assert_eq!(verdicts(&checks), [OFF.as_slice(), &warned].concat());
            assert!(!format!("{checks:?}{data:?}").contains("hunter2"));
            let checks = on(&mine(90), around).unwrap();
            assert_eq!(verdicts(&checks), [warned.as_slice(), &ON].concat());
            assert!(!format!("{checks:?}").contains("hunter2"));
            assert!(
                !std::fs::read_to_string(home(".config/systemd/user").join(service_of(NAME)))
                    .unwrap()
                    .contains("hunter2")
            );

            plant(&service_of(NAME), old);
            let checks = off(NAME, around).unwrap();
            assert_eq!(verdicts(&checks), [("timer.token", Verdict::Warn), OFF[0]]);
            assert!(!home(".config/systemd/user").join(service_of(NAME)).exists());
        });
    }

    #[test]
    fn success_is_what_systemd_says() {
        story("success_is_what_systemd_says", |around| {
            std::fs::write(home("sulks"), "").unwrap();
            let checks = on(&mine(90), around).unwrap();
            assert_eq!((checks[0].verdict, checks[0].exit), (Verdict::Fail, Exit::Failed));
            let (checks, data) = status(NAME, around).unwrap();
            assert_eq!(verdicts(&checks), [("timer.state", Verdict::Warn)], "half on");
            assert_eq!((&data["on"], &data["enabled"]), (&json!(false), &json!(true)));
            std::fs::remove_file(home("sulks")).unwrap();
            on(&mine(90), around).unwrap();

            std::fs::write(
                home("ran"),
                "Result=exit-code\nExecMainStatus=12\nExecMainExitTimestampMonotonic=9\n",
            )
            .unwrap();
            let (checks, data) = status(NAME, around).unwrap();
            assert!(checks[1].detail.contains("12 (peer-unreachable)"), "{}", checks[1].detail);
            assert_eq!((&data["last_result"], &data["last_exit_code"]), (&json!("exit-code"), &json!(12)));

            std::fs::write(home("clings"), "").unwrap();
            assert_eq!(off(NAME, around).unwrap()[0].verdict, Verdict::Fail);
        });
    }

    #[test]
    fn what_is_not_ours_to_replace_stays() {
        story("what_is_not_ours_to_replace_stays", |around| {
            let dir = home(".config/systemd/user");
            std::fs::create_dir_all(&dir).unwrap();
            std::os::unix::fs::symlink("/dev/null", dir.join(timer_of(NAME))).unwrap();
            assert!(on(&mine(90), around).unwrap_err().to_string().contains("not a regular file"));
            assert!(!dir.join(service_of(NAME)).exists(), "nothing was written");
            off(NAME, around).unwrap();
            assert!(
                dir.join(timer_of(NAME)).symlink_metadata().is_err(),
                "a link is removed, not what it leads to"
            );

            plant("syncthing.service", "[Service]\nExecStart=/usr/bin/syncthing\n");
            let foreign = Timer { name: "syncthing".to_owned(), ..mine(90) };
            assert_eq!(on(&foreign, around).unwrap_err().exit, Exit::Refused);
            assert_eq!(off("syncthing", around).unwrap_err().exit, Exit::Refused);
            assert!(dir.join("syncthing.service").exists());
        });
    }

    #[test]
    fn without_a_manager_nothing_is_changed() {
        story("without_a_manager_nothing_is_changed", |around| {
            std::fs::write(home("no-manager"), "").unwrap();
            for error in [
                on(&mine(90), around).unwrap_err(),
                off(NAME, around).unwrap_err(),
                status(NAME, around).unwrap_err(),
                is_on(NAME).unwrap_err(),
            ] {
                assert!(error.to_string().contains("does not answer: Failed to connect to bus"), "{error}");
                assert!(error.hint.is_some_and(|hint| hint.contains("XDG_RUNTIME_DIR")));
            }
            assert!(!home(".config/systemd").exists() && !home(".local/state/ua/timer.toml").exists());
        });
    }

    #[test]
    fn a_memory_that_was_changed_by_hand_is_an_error() {
        story("a_memory_that_was_changed_by_hand_is_an_error", |around| {
            on(&mine(90), around).unwrap();
            std::fs::write(home(".local/state/ua/timer.toml"), "[x]\ninterval_ms = -1\n").unwrap();
            let error = remembered(NAME).unwrap_err();
            assert_eq!(error.exit, Exit::Usage);
            assert!(error.to_string().contains("timer.toml"), "{error}");
        });
    }
}
