//! `ssh`: a configuration file for one target, and what its complaints mean.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::Fact;
use crate::exit::Exit;
use crate::settings::value::{AuthMode, SshKey};

/// Everything one connection needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Login name.
    pub user: String,
    /// Name of the host, under which its key is known.
    pub name: String,
    /// Address to dial; without one the name is dialled.
    pub ip: Option<IpAddr>,
    /// Port to dial.
    pub port: u16,
    /// How to prove who we are.
    pub auth: AuthMode,
    /// The key of mode `keys`.
    pub key: SshKey,
    /// Public host keys that the tailnet gives; empty: the user's own `known_hosts` decides.
    pub host_keys: Vec<String>,
    /// Limit for dialling.
    pub connect_timeout: Duration,
}

/// Why there is no SSH connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SshError {
    /// The key file is not there. The wording is pinned: a caller looks for it.
    #[error("SSH key does not exist: {}", .0.display())]
    NoKey(PathBuf),
    /// A path that an ssh configuration cannot hold.
    #[error("`{}` holds a character that ssh's configuration cannot", .0.display())]
    OddPath(PathBuf),
    /// The path of a control socket has a limit (108 bytes).
    #[error("`{}` is too long for a socket", .0.display())]
    LongPath(PathBuf),
    /// Nobody there.
    #[error("no SSH connection to `{host}`: {said}")]
    Unreachable {
        /// The target.
        host: String,
        /// What ssh said.
        said: String,
    },
    /// Reached, but refused.
    #[error("`{host}` refused the login: {said}")]
    Denied {
        /// The target.
        host: String,
        /// What ssh said.
        said: String,
    },
    /// Unknown or other host key.
    #[error("the host key of `{host}` is not the known one: {said}")]
    HostKey {
        /// The target.
        host: String,
        /// What ssh said.
        said: String,
    },
    /// Nobody approved the check in time.
    #[error("`{host}` wants an interactive check that nobody approved: {url}")]
    Check {
        /// The target.
        host: String,
        /// Where to approve it.
        url: String,
    },
}

impl Fact for SshError {
    fn exit(&self) -> Exit {
        match self {
            Self::NoKey(_) | Self::OddPath(_) | Self::LongPath(_) => Exit::Usage,
            Self::Unreachable { .. } => Exit::SshUnreachable,
            Self::Denied { .. } => Exit::SshDenied,
            Self::HostKey { .. } => Exit::HostKey,
            Self::Check { .. } => Exit::SshCheckRequired,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoKey(_) => {
                "name another key with --ssh-key FILE, or make one: ssh-keygen -t ed25519".to_owned()
            }
            Self::OddPath(_) => "name the key by a plainer path with --ssh-key FILE".to_owned(),
            Self::LongPath(_) => "set XDG_STATE_HOME to a shorter path".to_owned(),
            Self::Unreachable { host, .. } => format!("ua-preflight --ssh --host {host}"),
            Self::Denied { host, .. } => format!("ssh-copy-id {host}"),
            Self::HostKey { host, .. } => {
                let name = host.rsplit('@').next().unwrap_or(host);
                format!("compare the fingerprints before trusting it: ssh-keygen -F {name}")
            }
            Self::Check { url, .. } => format!("open {url} and run the command again"),
        })
    }
}

/// The link that approves a Tailscale SSH check, in what ssh has printed so far.
pub fn check_url(stderr: &str) -> Option<&str> {
    let (_, rest) = stderr.split_once("To authenticate, visit: ")?;
    rest.split_whitespace().next()
}

/// What ssh's last words mean. ssh has one exit code for every failure, so its words are all there is.
pub fn judge(host: &str, stderr: &str) -> SshError {
    let said = stderr.trim().to_owned();
    let said = if said.is_empty() { "it said nothing".to_owned() } else { said };
    let host = host.to_owned();
    let denied = ["Permission denied", "tailscale: ", "Too many authentication failures"];
    let key =
        ["Host key verification failed", "REMOTE HOST IDENTIFICATION HAS CHANGED", "No matching host key"];
    if key.iter().any(|words| stderr.contains(words)) {
        SshError::HostKey { host, said }
    } else if denied.iter().any(|words| stderr.contains(words)) {
        SshError::Denied { host, said }
    } else {
        SshError::Unreachable { host, said }
    }
}

impl Target {
    /// `user@name`.
    pub fn shown(&self) -> String {
        format!("{}@{}", self.user, self.name)
    }

    /// The configuration file for this target: who, where, how to prove it, and the socket to share.
    /// `known_hosts` is where [`Target::known_hosts`] was written, if the tailnet gave keys.
    pub fn config(&self, socket: &Path, known_hosts: &Path) -> Result<String, SshError> {
        let mut lines: Vec<(&str, String)> = vec![
            ("HostName", self.ip.map_or_else(|| self.name.clone(), |ip| ip.to_string())),
            ("HostKeyAlias", self.name.clone()),
            ("User", self.user.clone()),
            ("Port", self.port.to_string()),
            ("BatchMode", "yes".to_owned()),
            ("ConnectTimeout", self.connect_timeout.as_secs().max(1).to_string()),
            ("ConnectionAttempts", "1".to_owned()),
            // A silent step must not be dropped by the path, and a dead peer must be noticed.
            ("ServerAliveInterval", "5".to_owned()),
            ("ServerAliveCountMax", "6".to_owned()),
            ("StrictHostKeyChecking", "yes".to_owned()),
            ("UpdateHostKeys", "no".to_owned()),
            ("CheckHostIP", "no".to_owned()),
            ("ForwardAgent", "no".to_owned()),
            ("ForwardX11", "no".to_owned()),
            ("ClearAllForwardings", "yes".to_owned()),
            ("PermitLocalCommand", "no".to_owned()),
            ("ControlMaster", "no".to_owned()),
            ("ControlPath", quoted(socket)?),
            ("LogLevel", "INFO".to_owned()),
        ];
        if !self.host_keys.is_empty() {
            lines.push(("UserKnownHostsFile", quoted(known_hosts)?));
            lines.push(("GlobalKnownHostsFile", "/dev/null".to_owned()));
        }
        match (self.auth, &self.key) {
            (AuthMode::Keys, SshKey::File(key)) => {
                lines.push(("PreferredAuthentications", "publickey".to_owned()));
                lines.push(("IdentitiesOnly", "yes".to_owned()));
                lines.push(("IdentityAgent", "none".to_owned()));
                lines.push(("IdentityFile", quoted(key)?));
            }
            (AuthMode::Keys, SshKey::Agent) => {}
            // No key at all, so that an ordinary sshd refuses: nothing else may pass for the tailnet's word.
            (AuthMode::TailscaleSsh, _) => {
                lines.push(("PreferredAuthentications", "none".to_owned()));
                lines.push(("PubkeyAuthentication", "no".to_owned()));
                lines.push(("IdentityAgent", "none".to_owned()));
            }
        }
        let mut text = String::from("# Written by the ua tools for one run.\nHost *\n");
        for (name, value) in lines {
            let _ = writeln!(text, "    {name} {value}");
        }
        if (self.auth, &self.key) == (AuthMode::Keys, &SshKey::Agent) {
            text.push_str("Match all\n    Include ~/.ssh/config\n");
        }
        Ok(text)
    }

    /// A `known_hosts` file of the keys that the tailnet gives.
    pub fn known_hosts(&self) -> String {
        self.host_keys.iter().map(|key| format!("{} {key}\n", self.name)).collect()
    }
}

/// A path as ssh's configuration reads it back: quoted, with `%` (which expands) doubled.
fn quoted(path: &Path) -> Result<String, SshError> {
    let odd = || SshError::OddPath(path.to_path_buf());
    let text = path.to_str().ok_or_else(odd)?;
    if text.contains(['"', '\\']) || text.contains("${") || text.chars().any(char::is_control) {
        return Err(odd());
    }
    Ok(format!("\"{}\"", text.replace('%', "%%")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_survive_the_configuration() {
        assert_eq!(quoted(Path::new("/home/o p/100%/it's")).unwrap(), "\"/home/o p/100%%/it's\"");
        assert!(quoted(Path::new("/a\"b")).is_err() && quoted(Path::new("/${HOME}/b")).is_err());
    }

    #[test]
    fn finds_the_check_url() {
        let banner = "# Headscale SSH requires an additional check.\n# To authenticate, visit: http://10.99.0.1:8080/auth/x\n# Authentication";
        assert_eq!(check_url(banner), Some("http://10.99.0.1:8080/auth/x"));
        assert_eq!(check_url("nothing"), None);
    }

    /// What the real ssh was seen to say, by `cargo xtask lab capture`.
    fn captured(scenario: &str, file: &str) -> String {
        let path = format!("{}/../../tests/fixtures/captured/{scenario}/{file}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    #[test]
    fn captured_refusals() {
        let judged = |scenario, file| judge("root@vps", &captured(scenario, file));
        assert!(matches!(judged("ssh-plain-sshd", "ssh-none.stderr"), SshError::Denied { .. }));
        assert!(matches!(judged("ssh-denied", "ssh-none.stderr"), SshError::Denied { .. }));
        let url = check_url(&captured("ssh-check", "ssh-none.stderr")).map(str::to_owned);
        assert!(url.is_some_and(|url| url.starts_with("http://10.99.0.1:8080/auth/")));
    }
}
