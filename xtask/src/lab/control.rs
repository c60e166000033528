//! The control servers: headscale for identity and policy, and beside it the one that hands out certificates. And
//! the internet's name server.

use std::time::Duration;

use anyhow::{Context as _, Result};
use camino::{Utf8Path, Utf8PathBuf};
use fs_err as fs;
use fs_err::os::unix::fs::symlink;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::anchor::{Anchor, CONTROL_ADDRESS};
use super::record::{Process, State};
use super::{Node, TAILNET};
use crate::cmd::Cmd;

const HEADSCALE_PORT: u16 = 8080;
const HTTPS_CONTROL_PORT: u16 = 8090;
const STUN_PORT: u16 = 3478;
/// headscale's user, and how the policy writes it.
const USER: &str = "op";
const USER_IN_POLICY: &str = "op@";

/// A control server that the tailnet's members can be moved to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// headscale: identity, SSH policy, check mode, expiry, rename. Its nodes get no certificates.
    Headscale,
    /// Tailscale's test control: certificates and `serve --https`. Everyone may ssh to everyone.
    Https,
}

/// What the tailnet's SSH policy says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SshPolicy {
    /// Any user, at once.
    Accept,
    /// Any user, after a check in the browser that holds for a minute.
    Check,
    /// Any user but root.
    DenyRoot,
    /// Nobody.
    Deny,
}

/// The two servers of one lab.
#[derive(Debug, Clone)]
pub(super) struct Servers {
    anchor: Anchor,
    dir: Utf8PathBuf,
}

impl Control {
    /// What its clients log in to.
    pub fn url(self) -> String {
        let port = match self {
            Self::Headscale => HEADSCALE_PORT,
            Self::Https => HTTPS_CONTROL_PORT,
        };
        format!("http://{CONTROL_ADDRESS}:{port}")
    }
}

impl SshPolicy {
    fn rule(self) -> Value {
        let rule = |action, from| {
            json!({
                "action": action, "src": [from], "dst": ["autogroup:self"], "users": ["root", "autogroup:nonroot"],
            })
        };
        match self {
            Self::Accept => rule("accept", USER_IN_POLICY),
            Self::Check => {
                let mut rule = rule("check", USER_IN_POLICY);
                rule["checkPeriod"] = json!("1m");
                rule
            }
            Self::DenyRoot => {
                let mut rule = rule("accept", USER_IN_POLICY);
                rule["users"] = json!(["autogroup:nonroot"]);
                rule
            }
            // Without any rule headscale would send no policy, and clients go on with the one they have.
            Self::Deny => rule("accept", "nobody@"),
        }
    }

    fn file(self) -> Value {
        json!({ "acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"]}], "ssh": [self.rule()] })
    }
}

impl Servers {
    /// The servers of a lab whose state lies in `state`.
    pub fn new(anchor: Anchor, state: &State) -> Self {
        Self { anchor, dir: state.dir().join("control") }
    }

    /// Starts both from this directory of programs, with a user and a key that nodes join with.
    pub fn start(&self, programs: &Utf8Path) -> Result<()> {
        fs::create_dir_all(&self.dir)?;
        symlink(programs, self.programs())?;
        // JSON is YAML.
        fs::write(self.config(), serde_json::to_vec_pretty(&self.headscale_config())?)?;
        self.write_policy(SshPolicy::Accept)?;
        self.start_headscale()?;
        self.start_https_control()?;
        let resolver = self.programs().join("resolver");
        self.spawn("resolver", &[resolver.as_str(), &format!("{CONTROL_ADDRESS}:53")])?;
        self.headscale(&["users", "create", USER]).run()?;
        let key =
            self.headscale(&["preauthkeys", "create", "--user", "1", "--reusable", "--expiration", "8760h"]);
        Ok(fs::write(self.key_file(), key.read()?.trim())?)
    }

    /// The key that nodes join headscale with.
    pub fn auth_key(&self) -> Result<String> {
        Ok(fs::read_to_string(self.key_file())?)
    }

    /// A headscale command.
    pub fn headscale(&self, args: &[&str]) -> Cmd {
        let program = self.programs().join("headscale");
        self.anchor
            .command([program.as_str(), "--config", self.config().as_str()])
            .args(args.iter().copied())
            .timeout(Duration::from_secs(20))
    }

    /// headscale's id of a node.
    pub fn id(&self, node: Node) -> Result<String> {
        let nodes: Value = serde_json::from_str(&self.headscale(&["nodes", "list", "-o", "json"]).read()?)?;
        // `name` is what the client calls itself, which a rename does not change.
        let found = nodes.as_array().into_iter().flatten().find(|listed| listed["name"] == node.name());
        let id = found.with_context(|| format!("headscale knows no `{}`", node.name()))?;
        Ok(id["id"].to_string())
    }

    /// Puts this SSH policy in force.
    pub fn set_policy(&self, policy: SshPolicy) -> Result<()> {
        self.write_policy(policy)?;
        let serving =
            Process::load(&self.process_file("headscale"))?.context("headscale was never started")?;
        serving.signal(Signal::HUP)
    }

    /// Whether this SSH policy is in force.
    pub fn has_policy(&self, policy: SshPolicy) -> Result<bool> {
        let current: Value = serde_json::from_slice(&fs::read(self.policy())?)?;
        Ok(current == policy.file())
    }

    /// Starts the HTTPS control with an empty memory, so that who joins first gets the first address.
    pub fn start_https_control(&self) -> Result<()> {
        if let Some(running) = Process::load(&self.process_file("httpscontrol"))? {
            running.end()?;
        }
        let program = self.programs().join("httpscontrol");
        let listen = format!("{CONTROL_ADDRESS}:{HTTPS_CONTROL_PORT}");
        let argv = [
            program.as_str(),
            &format!("-listen={listen}"),
            &format!("-domain={TAILNET}"),
            &format!("-derp-host={CONTROL_ADDRESS}"),
            &format!("-derp-port={HEADSCALE_PORT}"),
            &format!("-stun-port={STUN_PORT}"),
        ];
        self.spawn("httpscontrol", &argv)
    }

    fn start_headscale(&self) -> Result<()> {
        let program = self.programs().join("headscale");
        self.spawn("headscale", &[program.as_str(), "--config", self.config().as_str(), "serve"])?;
        super::wait_until("headscale answers", Duration::from_secs(20), || {
            Ok(self.headscale(&["users", "list"]).output()?.success())
        })
        .with_context(|| format!("its log lies in `{}`", self.dir))
    }

    fn spawn(&self, name: &str, argv: &[&str]) -> Result<()> {
        let log = self.dir.join(name).with_extension("log");
        self.anchor.spawn(&log, &[], argv)?.store(&self.process_file(name))
    }

    fn headscale_config(&self) -> Value {
        let file = |name: &str| self.dir.join(name).into_string();
        json!({
            "server_url": Control::Headscale.url(),
            "listen_addr": format!("{CONTROL_ADDRESS}:{HEADSCALE_PORT}"),
            "metrics_listen_addr": "",
            "noise": { "private_key_path": file("noise.key") },
            "prefixes": { "v4": "100.64.0.0/10", "v6": "fd7a:115c:a1e0::/48", "allocation": "sequential" },
            "derp": {
                "server": {
                    "enabled": true, "region_id": 999, "region_code": "lab", "region_name": "lab",
                    "verify_clients": false, "stun_listen_addr": format!("{CONTROL_ADDRESS}:{STUN_PORT}"),
                    "private_key_path": file("derp.key"), "automatically_add_embedded_derp_region": true,
                },
                "urls": [], "paths": [], "auto_update_enabled": false,
            },
            "disable_check_updates": true,
            "database": { "type": "sqlite", "sqlite": { "path": file("db.sqlite") } },
            "dns": {
                "magic_dns": true, "base_domain": TAILNET, "override_local_dns": false,
                "nameservers": { "global": [], "split": {} }, "search_domains": [],
            },
            "unix_socket": file("headscale.sock"),
            "policy": { "mode": "file", "path": self.policy() },
            // Made for thousands of nodes, it saves changes up for most of a second.
            "tuning": { "batch_change_delay": "20ms", "node_store_batch_timeout": "20ms" },
            "log": { "level": "info" },
        })
    }

    fn write_policy(&self, policy: SshPolicy) -> Result<()> {
        Ok(fs::write(self.policy(), serde_json::to_vec_pretty(&policy.file())?)?)
    }

    /// Where the servers' programs are, inside the lab's mount namespace.
    pub fn programs(&self) -> Utf8PathBuf {
        self.dir.join("bin")
    }

    /// headscale's configuration.
    pub fn config(&self) -> Utf8PathBuf {
        self.dir.join("headscale.json")
    }

    fn policy(&self) -> Utf8PathBuf {
        self.dir.join("policy.json")
    }

    fn process_file(&self, name: &str) -> Utf8PathBuf {
        self.dir.join(name).with_extension("process")
    }

    fn key_file(&self) -> Utf8PathBuf {
        self.dir.join("auth-key")
    }
}
