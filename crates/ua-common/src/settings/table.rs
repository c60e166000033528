//! The one table of settings. Clap's flags, the environment names, `docs/environment.md` and every error come from it.

use std::path::PathBuf;
use std::time::Duration;

use super::value::{
    AppProfile, AuthMode, Count, FileName, Limit, List, Offer, Optional, Patterns, Port, PreflightMode,
    RemotePath, Scheme, SshKey, StagingMode, States, StatusSet, Target, Url, UrlPath, Value,
};
use super::{Layer, Raw, SettingsError, Sourced, Surroundings, pick};
use crate::complete::{self, Candidate, Candidates};
use crate::host::RemoteHost;

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Dotted name, as in `ua.toml`.
    pub key: &'static str,
    /// Environment variable.
    pub env: &'static str,
    /// Long flag, in the tools that take it.
    pub flag: Option<&'static str>,
    /// Built-in value; `None` where it is derived or absent.
    pub default: Option<&'static str>,
    /// Where a derived default comes from, in words.
    pub derived: &'static str,
    /// What it accepts.
    pub takes: fn() -> String,
    /// What a shell can offer for it.
    pub offer: fn() -> Offer,
    /// Is it a yes or no, whose flag takes no value?
    pub switch: bool,
    /// What it means.
    pub doc: &'static str,
}

impl Key {
    /// May a project file not decide it? Whoever can commit to the project must not choose how root is reached.
    pub fn sensitive(&self) -> bool {
        self.key == "host.break_glass" || self.key.starts_with("ops.") || self.key.starts_with("ssh.")
    }
}

/// Default of a row: built in, or derived in words.
enum Fallback {
    Is(&'static str),
    From(&'static str),
}

impl Fallback {
    const fn built_in(&self) -> Option<&'static str> {
        match self {
            Self::Is(text) => Some(text),
            Self::From(_) => None,
        }
    }

    const fn words(&self) -> &'static str {
        match self {
            Self::Is(_) => "",
            Self::From(words) => words,
        }
    }
}

macro_rules! settings {
    ($($key:literal $field:ident: $type:ty, $env:literal, $flag:expr, $fallback:expr, $doc:literal;)+) => {
        /// Every setting, in the order of the documentation.
        pub const KEYS: &[Key] = &[$(Key {
            key: $key,
            env: $env,
            flag: $flag,
            default: $fallback.built_in(),
            derived: $fallback.words(),
            takes: <$type as Value>::takes,
            offer: <$type as Value>::offer,
            switch: matches!(stringify!($type).as_bytes(), b"bool"),
            doc: $doc,
        }),+];

        /// The settings of a run, each with its origin.
        #[derive(Clone, Debug)]
        pub struct Settings {
            $(#[doc = $doc] pub $field: Sourced<$type>,)+
        }

        impl Settings {
            /// Resolves every key over `layers`, first one wins. Pure.
            pub fn resolve(layers: &[Layer], around: &Surroundings) -> Result<Self, SettingsError> {
                Ok(Self { $($field: pick(layers, around, $key, $fallback.built_in())?,)+ })
            }

            /// Every value as it could be typed, with its origin.
            pub fn rows(&self) -> Vec<(&'static str, String, &super::Origin)> {
                vec![$(($key, self.$field.value.show(), &self.$field.origin),)+]
            }
        }
    };
}

use Fallback::{From, Is};

settings! {
    "repo.dir" repo_dir: Option<PathBuf>, "UA_REPO_DIR", Some("repo"), From("git top level of the working directory if it holds `AGENT_RUN_WORKSPACES` or `scripts/`"), "the app's repository";
    "host.vps" host_vps: RemoteHost, "UA_VPS_HOST", Some("host"), Is("root@srv1360701.taildcc090.ts.net"), "the VPS, as user@MagicDNS-name";
    "host.break_glass" host_break_glass: bool, "UA_BREAK_GLASS", Some("break-glass"), Is("false"), "allow a target that is not a MagicDNS name; warns and is recorded";
    "ssh.auth_mode" ssh_auth_mode: AuthMode, "UA_SSH_AUTH_MODE", Some("auth-mode"), Is("keys"), "how to prove who we are";
    "ssh.key" ssh_key: SshKey, "UA_VPS_SSH_KEY", Some("ssh-key"), Is("~/.ssh/id_ed25519"), "the key of mode `keys` (`agent` = the agent and ssh config)";
    "ssh.keys_port" ssh_keys_port: Port, "UA_SSH_KEYS_PORT", Some("keys-port"), Is("22"), "where the real sshd listens on the tailnet address";
    "ssh.connect_timeout" ssh_connect_timeout: Limit, "UA_SSH_CONNECT_TIMEOUT", Some("connect-timeout"), Is("10"), "limit for opening an SSH connection";
    "ssh.check_wait" ssh_check_wait: Duration, "UA_SSH_CHECK_WAIT", Some("check-wait"), Is("300"), "how long to wait for the approval of a Tailscale SSH check; 0 = not at all";
    "ssh.canary_days" ssh_canary_days: Count, "UA_SSH_CANARY_DAYS", None, Is("7"), "days of canary runs before a cut-over";
    "ssh.canary_runs" ssh_canary_runs: Count, "UA_SSH_CANARY_RUNS", None, Is("20"), "canary runs before a cut-over";
    "ssh.canary_max_age" ssh_canary_max_age: Limit, "UA_SSH_CANARY_MAX_AGE", None, Is("24h"), "oldest last canary run that still counts";
    "preflight.mode" preflight_mode: PreflightMode, "UA_TAILNET_PREFLIGHT", Some("preflight"), Is("auto"), "whether the tailnet is checked before anything remote; auto = always, but a break-glass target outside the tailnet is skipped with a warning";
    "preflight.skip" preflight_skip: bool, "UA_SKIP_TAILNET_PREFLIGHT", Some("skip-preflight"), Is("false"), "break-glass: skip the preflight, visibly";
    "preflight.timeout" preflight_timeout: Limit, "UA_TAILNET_PREFLIGHT_TIMEOUT", Some("preflight-timeout"), Is("3"), "limit for each answer of tailscaled, the peer and the resolver";
    "preflight.key_expiry_warning" preflight_key_expiry_warning: Duration, "UA_TAILNET_KEY_EXPIRY_WARNING", None, Is("14d"), "warn when a node key of either end expires sooner than this";
    "transfer.idle_timeout" transfer_idle_timeout: Limit, "UA_TRANSFER_IDLE_TIMEOUT", Some("idle-timeout"), Is("60"), "a transfer without a byte for this long has failed";
    "deploy.app_dir" deploy_app_dir: RemotePath, "UA_VPS_APP_DIR", Some("app-dir"), Is("/opt/universal_agent"), "the app's directory on the VPS";
    "deploy.include" deploy_include: List, "UA_DEPLOY_INCLUDE", None, Is(""), "extra paths outside the commit (secrets refused)";
    "deploy.build_timeout" deploy_build_timeout: Limit, "UA_DEPLOY_BUILD_TIMEOUT", Some("build-timeout"), Is("1200"), "limit for a build step on the VPS that has none of its own in the profile";
    "deploy.ready_timeout" deploy_ready_timeout: Limit, "UA_DEPLOY_READY_TIMEOUT", Some("ready-timeout"), Is("60"), "limit for all units to be up and stable";
    "deploy.drain_timeout" deploy_drain_timeout: Limit, "UA_DEPLOY_DRAIN_TIMEOUT", Some("drain-timeout"), Is("600"), "how long busy workers are waited for before a restart";
    "deploy.require_confirm" deploy_require_confirm: Optional, "UA_DEPLOY_REQUIRE_CONFIRM", Some("require-confirm"), Is("off"), "the VPS takes a release back unless its client confirms it within this";
    "deploy.keep_releases" deploy_keep_releases: Count, "UA_DEPLOY_KEEP_RELEASES", None, Is("10"), "newest releases whose record and backup are kept";
    "deploy.profile" deploy_profile: AppProfile, "UA_DEPLOY_PROFILE", Some("profile"), Is("universal-agent"), "the description of the app: the name of a built-in one, or a TOML file";
    "staging.mode" staging_mode: StagingMode, "UA_TAILNET_STAGING_MODE", Some("staging"), Is("auto"), "what unhealthy staging means for a deploy";
    "staging.scheme" staging_scheme: Scheme, "UA_TAILNET_STAGING_SCHEME", Some("scheme"), Is("https"), "how staging is published on the tailnet";
    "staging.ui_port" staging_ui_port: Port, "UA_TAILNET_STAGING_UI_HTTPS_PORT", Some("ui-port"), Is("443"), "tailnet port of the UI";
    "staging.api_port" staging_api_port: Port, "UA_TAILNET_STAGING_API_HTTPS_PORT", Some("api-port"), Is("8443"), "tailnet port of the API";
    "staging.ui_target" staging_ui_target: Target, "UA_TAILNET_STAGING_UI_TARGET", Some("ui-target"), Is("http://127.0.0.1:3000"), "what the UI route proxies to on the VPS";
    "staging.api_target" staging_api_target: Target, "UA_TAILNET_STAGING_API_TARGET", Some("api-target"), Is("http://127.0.0.1:8001"), "what the API route proxies to on the VPS";
    "staging.ui_health_path" staging_ui_health_path: UrlPath, "UA_TAILNET_STAGING_UI_HEALTH_PATH", Some("ui-health-path"), Is("/"), "health path of the UI";
    "staging.api_health_path" staging_api_health_path: UrlPath, "UA_TAILNET_STAGING_API_HEALTH_PATH", Some("api-health-path"), Is("/api/health"), "health path of the API";
    "staging.ui_health_status" staging_ui_health_status: StatusSet, "UA_TAILNET_STAGING_UI_HEALTH_STATUS", None, Is("200,3xx"), "statuses of a healthy UI";
    "staging.api_health_status" staging_api_health_status: StatusSet, "UA_TAILNET_STAGING_API_HEALTH_STATUS", None, Is("200"), "statuses of a healthy API";
    "staging.health_attempts" staging_health_attempts: Count, "UA_TAILNET_STAGING_HEALTH_MAX_ATTEMPTS", Some("health-attempts"), Is("12"), "how often health is asked before it has failed";
    "staging.health_interval" staging_health_interval: Duration, "UA_TAILNET_STAGING_HEALTH_SLEEP_SECONDS", Some("health-interval"), Is("5"), "pause between two attempts";
    "sync.host" sync_host: Option<RemoteHost>, "UA_REMOTE_SSH_HOST", None, From("`host.vps`"), "the host whose workspaces are mirrored";
    "sync.key" sync_key: Option<SshKey>, "UA_REMOTE_SSH_KEY", None, From("`ssh.key`"), "the key for mirroring";
    "sync.port" sync_port: Option<Port>, "UA_REMOTE_SSH_PORT", None, From("`ssh.keys_port`"), "the SSH port for mirroring";
    "sync.remote_dir" sync_remote_dir: RemotePath, "UA_REMOTE_WORKSPACES_DIR", Some("remote-dir"), Is("/opt/universal_agent/AGENT_RUN_WORKSPACES"), "the workspaces on the VPS";
    "sync.local_dir" sync_local_dir: Option<PathBuf>, "UA_LOCAL_MIRROR_DIR", Some("local-dir"), From("`<repo>/AGENT_RUN_WORKSPACES/remote_vps_workspaces`"), "the mirror of the workspaces";
    "sync.remote_artifacts_dir" sync_remote_artifacts_dir: RemotePath, "UA_REMOTE_ARTIFACTS_DIR", Some("remote-artifacts-dir"), Is("/opt/universal_agent/artifacts"), "the artifacts on the VPS";
    "sync.local_artifacts_dir" sync_local_artifacts_dir: Option<PathBuf>, "UA_LOCAL_ARTIFACTS_MIRROR_DIR", Some("local-artifacts-dir"), From("`<repo>/artifacts/remote_vps_artifacts`"), "the mirror of the artifacts";
    "sync.artifacts" sync_artifacts: bool, "UA_REMOTE_SYNC_INCLUDE_ARTIFACTS", None, Is("true"), "mirror the artifacts too";
    "sync.state_dir" sync_state_dir: Option<PathBuf>, "UA_REMOTE_SYNC_STATE_DIR", Some("state-dir"), From("`<repo>/AGENT_RUN_WORKSPACES/remote_vps_sync_state`"), "state of the mirror";
    "sync.manifest_file" sync_manifest_file: Option<PathBuf>, "UA_REMOTE_SYNC_MANIFEST_FILE", Some("manifest-file"), From("`synced_workspaces.txt` in the default state folder"), "what the mirror holds complete";
    "sync.interval" sync_interval: Option<Limit>, "UA_REMOTE_SYNC_INTERVAL_SEC", Some("interval"), From("`30` (watch), `600` (timer)"), "pause between two runs";
    "sync.respect_toggle" sync_respect_toggle: Option<bool>, "UA_REMOTE_SYNC_RESPECT_TOGGLE", None, From("`true` for the timer, else `false`"), "ask the remote toggle first";
    "sync.require_ready_marker" sync_require_ready_marker: bool, "UA_REMOTE_SYNC_REQUIRE_READY_MARKER", None, Is("true"), "mirror gated workspaces only when their marker says so";
    "sync.ready_marker" sync_ready_marker: FileName, "UA_REMOTE_SYNC_READY_MARKER_FILENAME", Some("ready-marker-name"), Is("sync_ready.json"), "name of the ready marker";
    "sync.ready_min_age" sync_ready_min_age: Duration, "UA_REMOTE_SYNC_READY_MIN_AGE_SECONDS", Some("ready-min-age-seconds"), Is("45"), "how old a marker must be";
    "sync.ready_prefixes" sync_ready_prefixes: List, "UA_REMOTE_SYNC_READY_SESSION_PREFIX", Some("ready-session-prefix"), Is("session_,tg_,run_"), "ids that are gated on the marker (empty by flag or file: all)";
    "sync.ready_states" sync_ready_states: States, "UA_REMOTE_SYNC_READY_STATES", Some("ready-states"), Is("completed, failed, timed_out, cancelled, dispatch_failed, failed_pre_dispatch, dispatch_interrupted"), "states in a ready marker that end a run";
    "sync.nested" sync_nested: Patterns, "UA_REMOTE_SYNC_NESTED", Some("nested"), Is("vp_*_external"), "directories that hold workspaces instead of being one, such as the missions of a worker";
    "sync.prune_min_age" sync_prune_min_age: Duration, "UA_REMOTE_PRUNE_MIN_AGE_SEC", Some("prune-min-age-seconds"), Is("300"), "how old a workspace must be before it may be pruned";
    "ops.gateway_url" ops_gateway_url: Url, "UA_REMOTE_GATEWAY_URL", Some("gateway-url"), Is("https://api.clearspringcg.com"), "where the remote toggle is asked";
    "ops.toggle_path" ops_toggle_path: UrlPath, "UA_REMOTE_SYNC_TOGGLE_PATH", Some("remote-toggle-path"), Is("/api/v1/ops/remote-sync"), "path of the remote toggle";
    "public.app_url" public_app_url: Url, "UA_PUBLIC_APP_URL", None, Is("https://app.clearspringcg.com/"), "public smoke: the app";
    "public.api_health_url" public_api_health_url: Url, "UA_PUBLIC_API_HEALTH_URL", None, Is("https://api.clearspringcg.com/api/v1/health"), "public smoke: the API's health";
    "public.ops_profile_url" public_ops_profile_url: Url, "UA_PUBLIC_OPS_PROFILE_URL", None, Is("https://api.clearspringcg.com/api/v1/ops/deployment/profile"), "public smoke: the ops profile, closed without the token";
}

impl Settings {
    /// The app's repository: `repo.dir`, else the git top level that looks like it.
    pub fn repo(&self, around: &Surroundings) -> Result<PathBuf, SettingsError> {
        if let Some(dir) = &self.repo_dir.value {
            if !dir.is_dir() {
                return Err(SettingsError::Value {
                    origin: self.repo_dir.origin.clone(),
                    key: "repo.dir",
                    value: dir.display().to_string(),
                    takes: "a directory".to_owned(),
                    why: String::new(),
                });
            }
            return Ok(dir.clone());
        }
        self.derived_repo(around).ok_or_else(|| SettingsError::Missing {
            what: format!(
                "no app repository: `{}` is not inside a git repository that holds `AGENT_RUN_WORKSPACES` or `scripts/`",
                around.cwd.display()
            ),
            hint: "go into the repository, or name it: --repo DIR".to_owned(),
        })
    }

    fn derived_repo(&self, around: &Surroundings) -> Option<PathBuf> {
        self.repo_dir.value.clone().or_else(|| {
            let top = around.git_top()?;
            let ours = top.join("AGENT_RUN_WORKSPACES").is_dir() || top.join("scripts").is_dir();
            ours.then(|| top.to_path_buf())
        })
    }

    /// The mirror of the workspaces, if it is known where that is.
    pub fn mirror(&self, around: &Surroundings) -> Option<PathBuf> {
        self.sync_local_dir.value.clone().or_else(|| Some(self.derived_repo(around)?.join(MIRROR)))
    }

    /// What settings that nobody gave come from others or from the working directory, as far as it is the same for every
    /// verb.
    pub fn derived(&self, around: &Surroundings) -> Vec<(&'static str, String)> {
        let mut derived = Vec::new();
        let mut take = |key, given: bool, value: String| {
            if !given {
                derived.push((key, value));
            }
        };
        take("sync.host", self.sync_host.value.is_some(), self.host_vps.value.show());
        take("sync.key", self.sync_key.value.is_some(), self.ssh_key.value.show());
        take("sync.port", self.sync_port.value.is_some(), self.ssh_keys_port.value.show());
        if let Some(repo) = self.derived_repo(around) {
            let path = |below: &str| repo.join(below).show();
            take("repo.dir", self.repo_dir.value.is_some(), repo.show());
            take("sync.local_dir", self.sync_local_dir.value.is_some(), path(MIRROR));
            take("sync.local_artifacts_dir", self.sync_local_artifacts_dir.value.is_some(), path(ARTIFACTS));
            take("sync.state_dir", self.sync_state_dir.value.is_some(), path(MIRROR_STATE));
            take("sync.manifest_file", self.sync_manifest_file.value.is_some(), path(MANIFEST));
        }
        derived
    }
}

/// The mirror of the workspaces, below the app's repository.
pub const MIRROR: &str = "AGENT_RUN_WORKSPACES/remote_vps_workspaces";
/// Its state.
pub const MIRROR_STATE: &str = "AGENT_RUN_WORKSPACES/remote_vps_sync_state";
/// What it holds complete, wherever its state is.
pub const MANIFEST: &str = "AGENT_RUN_WORKSPACES/remote_vps_sync_state/synced_workspaces.txt";
/// The mirror of the artifacts.
pub const ARTIFACTS: &str = "artifacts/remote_vps_artifacts";

/// Clap arguments for the keys of the named sections, such as `host` or `ssh`, that have a flag.
pub fn flags(sections: &[&str]) -> Vec<clap::Arg> {
    let wanted = |key: &&Key| sections.iter().any(|section| key.key.split('.').next() == Some(section));
    KEYS.iter().filter(wanted).filter_map(|key| key.flag.map(|flag| argument(key, flag))).collect()
}

/// What is left of 80 columns right of the indent of help.
const ROOM: usize = 70;

/// As the help of all other arguments begins.
fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

fn argument(key: &Key, flag: &'static str) -> clap::Arg {
    let default = match key.default {
        Some("") | None => String::new(),
        Some(_) if key.switch => String::new(),
        Some(text) => format!("[default: {text}]"),
    };
    let doc = capitalized(key.doc);
    let env = format!("[env: {}]", key.env);
    // A name is not to be parted from what says what it is.
    let between = if env.len() + default.len() < ROOM { " " } else { "\n" };
    let argument = clap::Arg::new(key.key)
        .long(flag)
        .help(format!("{doc} {default}").trim_end().to_owned())
        .long_help(format!("{doc}\n{env}{between}{default}").trim_end().to_owned())
        .help_heading("Settings");
    if key.switch {
        argument.action(clap::ArgAction::SetTrue)
    } else {
        let name = flag.rsplit('-').next().unwrap_or(flag).to_ascii_uppercase();
        // A host that begins with `-` gets our own error, which names the value.
        let argument = argument.value_name(name).allow_hyphen_values(true);
        match (key.offer)() {
            Offer::Nothing => argument,
            Offer::Paths => argument.value_hint(clap::ValueHint::AnyPath),
            Offer::Hosts => argument.add(Candidates::new(complete::hosts)),
            Offer::Words(words) => {
                argument.add(Candidates::new(|| words.iter().map(Candidate::new).collect()))
            }
        }
    }
}

/// The layer of what was typed, before the verb or behind it.
pub fn typed(matches: &clap::ArgMatches) -> Layer {
    use clap::parser::ValueSource;
    let mut layer = Layer::new();
    for key in KEYS {
        let Some(flag) = key.flag else { continue };
        let typed = matches!(matches.try_contains_id(key.key), Ok(true))
            && matches.value_source(key.key) == Some(ValueSource::CommandLine);
        if typed {
            let text = if key.switch {
                Some("true".to_owned())
            } else {
                matches.get_one::<String>(key.key).cloned()
            };
            layer.extend(
                text.map(|text| (key.key, (Raw::Text(text), super::Origin::Flag(format!("--{flag}"))))),
            );
        }
    }
    if let Some((_, behind)) = matches.subcommand() {
        layer.extend(typed(behind));
    }
    layer
}
