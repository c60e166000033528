//! `ssh`: a configuration file for one target, what it says of a connection, and what its complaints mean.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::Fact;
use crate::exit::Exit;
use crate::settings::value::{AuthMode, SshKey};
use crate::tool::ssh_keygen;

/// What tailscaled's own SSH server calls itself (`ssh/tailssh/tailssh.go`: `Version: "Tailscale"`).
pub const TAILSCALE_SSH: &str = "Tailscale";

/// A silent server is given up after this many keep-alives of this many seconds.
const ALIVE: (u64, u64) = (6, 5);

/// Everything one connection needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Login name.
    pub user: String,
    /// Name of the host, under which its key is known.
    pub name: String,
    /// Its addresses; the first is dialled, and without any the name.
    pub addresses: Vec<IpAddr>,
    /// Port to dial.
    pub port: u16,
    /// How to prove who we are.
    pub auth: AuthMode,
    /// The key of mode `keys`.
    pub key: SshKey,
    /// Does the tailnet vouch for the address?
    pub in_tailnet: bool,
    /// Public host keys that the tailnet gives; empty: the user's own `known_hosts` decides.
    pub host_keys: Vec<String>,
    /// Limit for dialling.
    pub connect_timeout: Duration,
    /// How long a node of the tailnet may take for a pong.
    pub pong_timeout: Duration,
}

/// Why there is no SSH connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SshError {
    /// The key file is not there. The wording is pinned: a caller looks for it.
    #[error("SSH key does not exist: {}", .0.display())]
    NoKey(PathBuf),
    /// Others may read the private key, so ssh would not use it.
    #[error("the private key `{}` is open to others (mode {mode:04o}), so ssh would ignore it", .path.display())]
    OpenKey {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A batch run cannot ask for a passphrase.
    #[error("the private key `{}` has a passphrase, which a run without a person cannot be asked for", .0.display())]
    Passphrase(PathBuf),
    /// Not a private key.
    #[error("`{}` is not a private key that ssh can use: {said}", .path.display())]
    NotAKey {
        /// The file.
        path: PathBuf,
        /// What `ssh-keygen` said.
        said: String,
    },
    /// A path that an ssh configuration cannot hold.
    #[error("`{}` holds a character that ssh's configuration cannot", .0.display())]
    OddPath(PathBuf),
    /// A file of this run cannot be written.
    #[error("cannot write `{}`: {_1}", .0.display())]
    Local(PathBuf, String),
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
        /// Who said no.
        by: Denier,
        /// The target as `ssh-copy-id` takes it, with the port and the key.
        target: String,
        /// What ssh said.
        said: String,
    },
    /// Let in, but not in the way that the mode stands for.
    #[error("`{host}` let us in, but not by mode `{mode}`: {why}")]
    Unproved {
        /// The target.
        host: String,
        /// The mode.
        mode: String,
        /// What was seen instead.
        why: String,
    },
    /// Tailscale SSH is a matter of the tailnet, and the tailnet was not asked.
    #[error("mode `tailscale_ssh` of `{host}` cannot be proved while the tailnet is not asked for it")]
    Unasked {
        /// The target.
        host: String,
    },
    /// A key that nobody has accepted yet.
    #[error(
        "the host key of `{host}` is unknown: it shows {shown}, and no known_hosts file has a key of `{host}`"
    )]
    UnknownHostKey {
        /// Name of the host.
        host: String,
        /// Fingerprint of what the server shows.
        shown: String,
    },
    /// Another key than the known one.
    #[error("the host key of `{host}` is another one: it shows {shown}, but {known}")]
    OtherHostKey {
        /// Name of the host.
        host: String,
        /// Fingerprint of what the server shows.
        shown: String,
        /// What is known, and by whom.
        known: String,
    },
    /// Nobody approved the check in time.
    #[error("`{host}` wants an interactive check that nobody has approved: {url}")]
    Check {
        /// The target.
        host: String,
        /// Where to approve it.
        url: String,
    },
}

/// Who refused a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denier {
    /// sshd, which wanted a key.
    Sshd,
    /// sshd, where Tailscale SSH was meant.
    NoTailscaleSsh,
    /// The tailnet's SSH policy.
    Policy,
    /// Tailscale SSH, after somebody rejected the check.
    Rejected,
    /// Tailscale SSH: no such login on the host.
    NoUser,
}

impl Fact for SshError {
    fn exit(&self) -> Exit {
        match self {
            Self::NoKey(_)
            | Self::OpenKey { .. }
            | Self::Passphrase(_)
            | Self::NotAKey { .. }
            | Self::OddPath(_)
            | Self::LongPath(_)
            | Self::Unasked { .. }
            | Self::Local(..) => Exit::Usage,
            Self::Unreachable { .. } => Exit::SshUnreachable,
            Self::Denied { .. } | Self::Unproved { .. } => Exit::SshDenied,
            Self::UnknownHostKey { .. } | Self::OtherHostKey { .. } => Exit::HostKey,
            Self::Check { .. } => Exit::SshCheckRequired,
        }
    }

    fn hint(&self) -> Option<String> {
        let label = |host: &str| host.rsplit('@').next().unwrap_or(host).to_owned();
        Some(match self {
            Self::NoKey(_) => {
                "name another key with --ssh-key FILE, or make one: ssh-keygen -t ed25519".to_owned()
            }
            Self::OpenKey { path, .. } => format!("chmod 600 {}", shell(path)),
            Self::Passphrase(path) => format!("ssh-add {}  # then: --ssh-key agent", shell(path)),
            Self::NotAKey { .. } => "name the private key with --ssh-key FILE".to_owned(),
            Self::OddPath(_) => "name the key by a plainer path with --ssh-key FILE".to_owned(),
            Self::LongPath(_) => "set XDG_STATE_HOME to a shorter path".to_owned(),
            Self::Local(path, _) => format!("df -h {}", shell(path.parent().unwrap_or(path))),
            Self::Unasked { .. } => {
                "let the preflight ask it: --preflight auto; or: --auth-mode keys".to_owned()
            }
            Self::Unreachable { host, .. } => format!("ua-preflight --ssh --host {host}"),
            Self::Denied { target, by: Denier::Sshd, .. } => format!("ssh-copy-id {target}"),
            Self::Denied { by: Denier::Policy, .. } => {
                "look at `ssh` in the tailnet's policy; meanwhile: ua-ssh-auth check --mode keys".to_owned()
            }
            Self::Denied { by: Denier::Rejected, .. } => "run it again and approve the check".to_owned(),
            Self::Denied { host, by: Denier::NoUser, .. } => {
                format!("name a login that `{}` has: --host USER@NAME", label(host))
            }
            Self::Denied { host, by: Denier::NoTailscaleSsh, .. } | Self::Unproved { host, .. } => {
                format!(
                    "ua-ssh-auth check --mode keys  # the runbook ssh_cutover_and_break_glass switches Tailscale SSH on for `{}`",
                    label(host)
                )
            }
            Self::UnknownHostKey { host, .. } => format!(
                "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub  # on the console of `{}`; if it shows the same: ua-ssh-auth known-hosts --accept",
                label(host)
            ),
            Self::OtherHostKey { host, .. } => format!(
                "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub  # on the console of `{}`; if it shows the new one: ua-ssh-auth known-hosts --refresh",
                label(host)
            ),
            Self::Check { url, .. } => format!("open {url} and run the command again"),
        })
    }
}

fn shell(path: &Path) -> String {
    let text = path.to_string_lossy().into_owned();
    shlex::try_quote(&text).map_or_else(|_| "FILE".to_owned(), std::borrow::Cow::into_owned)
}

/// What `ssh` itself saw of a connection, from its log at level DEBUG1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// What the server calls itself.
    pub server: String,
    /// Where it answered, such as `[100.64.0.2]:22`.
    pub at: String,
    /// The method that the server accepted.
    pub method: String,
    /// The key that it accepted, as `ED25519 SHA256:…`.
    pub key: Option<String>,
    /// Its host key, as `ssh-ed25519 SHA256:…`.
    pub host_key: String,
}

impl Evidence {
    /// Reads the log of a connection that is open; `None` if it does not say how it was opened, or says so twice.
    ///
    /// A server can make ssh log a text of its own (`SSH_MSG_DEBUG`, whose line breaks are not escaped), but it cannot
    /// keep ssh from logging the truth as well: what stands there once is true.
    pub fn read(log: &str) -> Option<Self> {
        let only = |prefix: &str| {
            let mut found = log.lines().filter_map(|line| line.strip_prefix(prefix));
            found.next().filter(|_| found.next().is_none())
        };
        let (_, server) = only("debug1: Remote protocol version ")?.split_once("remote software version ")?;
        let (_, opened) = only("Authenticated to ")?.split_once(" (")?;
        let (at, method) = opened.split_once(") using \"")?;
        let method = method.split('"').next()?.to_owned();
        // `PATH TYPE FINGERPRINT WHERE-FROM`, where the path may hold blanks. The last one that was accepted was used.
        let accepted = log.lines().rev().find_map(|line| line.strip_prefix("debug1: Server accepts key: "));
        let key = accepted.filter(|_| method == "publickey").and_then(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let at = words.iter().rposition(|word| word.starts_with("SHA256:"))?;
            Some(format!("{} {}", words.get(at.checked_sub(1)?)?, words[at]))
        });
        let host_key = only("debug1: Server host key: ")?.to_owned();
        Some(Self { server: server.to_owned(), at: at.to_owned(), method, key, host_key })
    }

    /// Is it tailscaled's own server, which lets in whom the tailnet's policy names, whatever else they offer?
    pub fn is_tailscale_ssh(&self) -> bool {
        self.server == TAILSCALE_SSH
    }

    /// Does it prove the mode of the target? Says in words what was proved, or why not.
    pub fn proves(&self, target: &Target) -> Result<String, String> {
        let Self { server, at, method, key, .. } = self;
        let dialled = target.addresses.first().map(|ip| format!("[{ip}]:{}", target.port));
        if let Some(dialled) = dialled.filter(|dialled| dialled != at) {
            return Err(format!("the connection goes to {at}, not to {dialled}"));
        }
        match target.auth {
            AuthMode::TailscaleSsh if target.host_keys.is_empty() => {
                Err("the tailnet gives no host key of it, as it does for whoever runs Tailscale SSH"
                    .to_owned())
            }
            AuthMode::TailscaleSsh if method == "none" && self.is_tailscale_ssh() => {
                Ok(format!("Tailscale SSH at {at} let us in by the tailnet's policy (method `none`)"))
            }
            AuthMode::Keys if self.is_tailscale_ssh() => Err(format!(
                "Tailscale SSH holds {at} and lets in whom the tailnet's policy names, so the key was not tried (method `{method}`)"
            )),
            AuthMode::Keys if method == "publickey" => {
                let key = key.as_deref().ok_or("ssh does not say which key was accepted")?;
                Ok(format!("sshd (`{server}`) at {at} accepted {key}"))
            }
            AuthMode::Keys | AuthMode::TailscaleSsh => {
                Err(format!("the server at {at} calls itself `{server}` and accepted method `{method}`"))
            }
        }
    }
}

/// The link that approves a Tailscale SSH check, in what ssh has printed so far.
pub fn check_url(stderr: &str) -> Option<&str> {
    let (_, rest) = stderr.split_once("To authenticate, visit: ")?;
    // Only a whole line: more of it may be on its way.
    let (url, _) = rest.split_once('\n')?;
    Some(url.trim()).filter(|url| !url.is_empty() && !url.contains(char::is_whitespace))
}

/// The `known_hosts` files that ssh reads, as it names them itself (it goes by the password database, not by `$HOME`):
/// the user's own, of which the first one is written to, then the system's.
pub fn known_hosts_files() -> Result<Vec<PathBuf>, crate::run::RunError> {
    let cmd = crate::run::Cmd::new("ssh", Duration::from_secs(5)).args([
        "-G",
        "-T",
        "-F",
        "none",
        "--",
        "localhost",
    ]);
    let out = cmd.output()?.out();
    let of = |key: &str| {
        let paths = out.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
        paths.split_whitespace().map(PathBuf::from).collect::<Vec<_>>()
    };
    let mut files = of("userknownhostsfile ");
    files.extend(of("globalknownhostsfile "));
    Ok(files)
}

/// What ssh printed for a person, without its log.
pub fn said(stderr: &str) -> String {
    let noise = ["debug1: ", "OpenSSH_", "Authenticated to ", "Transferred: ", "Bytes per second: "];
    let lines: Vec<&str> = stderr
        .lines()
        .map(str::trim_end)
        .filter(|line| !line.is_empty() && !noise.iter().any(|start| line.starts_with(start)))
        .collect();
    lines.join("\n")
}

/// What ssh's last words mean. ssh has one exit code for every failure, so its words are all there is.
/// `given` says in words which host keys the tailnet gives, if it gives any.
pub fn judge(target: &Target, given: Option<String>, stderr: &str) -> SshError {
    let said = said(stderr);
    let said = if said.is_empty() { "it said nothing".to_owned() } else { said };
    let host = target.shown();
    let has = |words: &[&str]| words.iter().any(|words| stderr.contains(words));
    if has(&["Host key verification failed", "No matching host key"]) {
        let shown = stderr.lines().find_map(|line| line.strip_prefix("debug1: Server host key: "));
        let shown = shown.unwrap_or("no key of a known kind").to_owned();
        let host = target.name.clone();
        let known = given.map(|given| format!("the tailnet says: {given}"));
        return match known.or_else(|| offending(&host, &shown, stderr)) {
            Some(known) => SshError::OtherHostKey { host, shown, known },
            None => SshError::UnknownHostKey { host, shown },
        };
    }
    // Tailscale SSH has no words of its own for a rejected check: it says what it says of the policy.
    let by = if check_url(stderr).is_some()
        && has(&["Connection closed by", "tailscale: ", "Permission denied"])
    {
        Some(Denier::Rejected)
    } else if has(&["tailscale: tailnet policy", "tailscale: access denied"]) {
        Some(Denier::Policy)
    } else if has(&["tailscale: failed to look up local user"]) {
        Some(Denier::NoUser)
    } else if has(&["Permission denied", "tailscale: ", "Too many authentication failures"]) {
        Some(if target.auth == AuthMode::TailscaleSsh { Denier::NoTailscaleSsh } else { Denier::Sshd })
    } else {
        None
    };
    match by {
        Some(by) => {
            let port = if target.port == 22 { String::new() } else { format!("-p {} ", target.port) };
            let key = match &target.key {
                SshKey::File(path) => format!("-i {} ", shell(path)),
                SshKey::Agent => String::new(),
            };
            SshError::Denied { by, target: format!("{port}{key}{host}"), host, said }
        }
        None => SshError::Unreachable { host, said },
    }
}

/// Does its log say that the other end took the connection?
pub fn dialled(log: &str) -> bool {
    log.lines().any(|line| line.ends_with("Connection established."))
}

/// The known keys that the one shown is not, by the file that ssh names: `Offending ECDSA key in FILE:LINE`. That line
/// may hold a key of any kind; a person can compare those of one kind only.
fn offending(name: &str, shown: &str, stderr: &str) -> Option<String> {
    let at =
        stderr.lines().find_map(|line| line.strip_prefix("Offending ")?.split_once(" key in "))?.1.trim();
    let (file, _) = at.rsplit_once(':')?;
    let known = ssh_keygen::known(name, Path::new(file)).ok()?;
    let prints: Vec<String> = known.iter().filter_map(|known| fingerprint(&known.key)).collect();
    let kind = |print: &str| print.split(' ').next().map(str::to_owned);
    let same: Vec<String> = prints.iter().filter(|print| kind(print) == kind(shown)).cloned().collect();
    let told = if same.is_empty() { prints } else { same };
    (!told.is_empty()).then(|| format!("`{file}` has {}", told.join(", ")))
}

/// `ssh-ed25519 SHA256:…` of a public key in its one-line form; `None` if it is none.
pub fn fingerprint(key: &str) -> Option<String> {
    let key = ssh_key::PublicKey::from_openssh(key).ok()?;
    Some(format!("{} {}", key.algorithm().as_str(), key.fingerprint(ssh_key::HashAlg::Sha256)))
}

impl Target {
    /// `user@name`.
    pub fn shown(&self) -> String {
        format!("{}@{}", self.user, self.name)
    }

    /// The configuration file for this target. Both kinds of use share all of it but the socket and who it is for.
    pub fn config(&self, use_: Use<'_>, known_hosts: &Path) -> Result<String, SshError> {
        let dialled = self.addresses.first().map_or_else(|| self.name.clone(), ToString::to_string);
        let patience = match use_ {
            Use::Run { check_wait: Some(wait), .. } => wait.as_secs().div_ceil(ALIVE.1).max(ALIVE.0),
            Use::Run { check_wait: None, .. } | Use::Script => ALIVE.0,
        };
        let mut lines: Vec<(&str, String)> = vec![
            ("HostName", dialled),
            ("HostKeyAlias", self.name.clone()),
            ("User", self.user.clone()),
            ("Port", self.port.to_string()),
            ("BatchMode", "yes".to_owned()),
            ("ConnectTimeout", self.connect_timeout.as_secs().max(1).to_string()),
            ("ConnectionAttempts", "1".to_owned()),
            // A silent step must not be dropped by the path, and a dead peer must be noticed. ssh applies the same
            // limit to a login, so that of a check lasts as long as the check may.
            ("ServerAliveInterval", ALIVE.1.to_string()),
            ("ServerAliveCountMax", patience.to_string()),
            ("StrictHostKeyChecking", "yes".to_owned()),
            ("UpdateHostKeys", "no".to_owned()),
            ("CheckHostIP", "no".to_owned()),
            ("ForwardAgent", "no".to_owned()),
            ("ForwardX11", "no".to_owned()),
            ("ClearAllForwardings", "yes".to_owned()),
            ("PermitLocalCommand", "no".to_owned()),
            // Nothing of the user's configuration may send the connection out of our hands. The newer ones of these
            // (OpenSSH 8.7) are unknown to an older ssh, whose configuration cannot say them either.
            ("IgnoreUnknown", "ForkAfterAuthentication,SessionType,StdinNull".to_owned()),
            ("ForkAfterAuthentication", "no".to_owned()),
            ("SessionType", "default".to_owned()),
            ("StdinNull", "no".to_owned()),
            ("RemoteCommand", "none".to_owned()),
            ("ControlPersist", "no".to_owned()),
            ("ControlMaster", "no".to_owned()),
            (
                "ControlPath",
                match use_ {
                    Use::Run { socket, .. } => quoted(socket)?,
                    Use::Script => "none".to_owned(),
                },
            ),
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
            (AuthMode::Keys, SshKey::Agent) => {
                lines.push(("PreferredAuthentications", "publickey".to_owned()));
            }
            // No key at all, so that an ordinary sshd refuses: nothing else may pass for the tailnet's word.
            (AuthMode::TailscaleSsh, _) => {
                lines.push(("PreferredAuthentications", "none".to_owned()));
                lines.push(("PubkeyAuthentication", "no".to_owned()));
                lines.push(("IdentityAgent", "none".to_owned()));
            }
        }
        let label = self.name.split('.').next().unwrap_or_default();
        let mut names = vec![self.name.clone(), label.to_owned()];
        names.extend(self.addresses.iter().map(ToString::to_string));
        let pattern = match use_ {
            Use::Run { .. } => "*".to_owned(),
            Use::Script => names.join(" "),
        };
        let mut text = format!("# Written by the ua tools.\nHost {pattern}\n");
        for (name, value) in lines {
            let _ = writeln!(text, "    {name} {value}");
        }
        if let Use::Script = use_ {
            // Another host must not be reached by ssh's own defaults behind the caller's back. ssh ends the command as
            // soon as its stdout closes, so that a redirection of the whole of it would lose the words.
            let others: Vec<String> = names.iter().map(|name| format!("!{name}")).collect();
            let _ = writeln!(
                text,
                "Host {} *\n    ProxyCommand sh -c 'echo \"ua-ssh-auth: this configuration is for {} only\" >&2; exit 1'",
                others.join(" "),
                self.name
            );
        }
        if (self.auth, &self.key) == (AuthMode::Keys, &SshKey::Agent) {
            text.push_str("Match all\n    Include ~/.ssh/config\n");
        }
        Ok(text)
    }
}

/// What a configuration is for.
#[derive(Clone, Copy, Debug)]
pub enum Use<'a> {
    /// One run of ours, which shares one connection by this socket. With a limit, a check is waited for that long.
    Run {
        /// The control socket.
        socket: &'a Path,
        /// How long a silent login may last, where a check is to be waited for.
        check_wait: Option<Duration>,
    },
    /// Somebody else's script: no shared connection, and no other host.
    Script,
}

/// A path as ssh's configuration reads it back: quoted and escaped (`argv_split`), with `%`, which expands, doubled.
fn quoted(path: &Path) -> Result<String, SshError> {
    let odd = || SshError::OddPath(path.to_path_buf());
    let text = path.to_str().ok_or_else(odd)?;
    // `${NAME}` expands too, and nothing escapes it.
    if text.contains("${") || text.chars().any(char::is_control) {
        return Err(odd());
    }
    Ok(format!("\"{}\"", text.replace('\\', r"\\").replace('"', "\\\"").replace('%', "%%")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_survive_the_configuration() {
        assert_eq!(quoted(Path::new("/home/o p/100%/it's")).unwrap(), "\"/home/o p/100%%/it's\"");
        assert_eq!(quoted(Path::new("/a\"b\\")).unwrap(), r#""/a\"b\\""#);
        assert!(quoted(Path::new("/${HOME}/b")).is_err() && quoted(Path::new("/a\nb")).is_err());
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

    fn target() -> Target {
        Target {
            user: "root".to_owned(),
            name: "srv1360701.taildcc090.ts.net".to_owned(),
            addresses: vec!["100.64.0.2".parse().unwrap()],
            port: 22,
            auth: AuthMode::Keys,
            key: SshKey::Agent,
            in_tailnet: true,
            host_keys: vec!["ssh-ed25519 AAAA".to_owned()],
            connect_timeout: Duration::from_secs(5),
            pong_timeout: Duration::from_secs(3),
        }
    }

    /// In both modes Tailscale SSH lets in by `none`: that proves one mode, and that the other one was not tried.
    #[test]
    fn p57_captured_logins() {
        let tailscale = Target { auth: AuthMode::TailscaleSsh, ..target() };
        for offered in ["ssh-none.stderr", "ssh-publickey.stderr"] {
            let evidence = Evidence::read(&captured("ssh-tailscale", offered)).unwrap();
            let Evidence { server, at, method, key, .. } = &evidence;
            assert_eq!((server.as_str(), at.as_str()), ("Tailscale", "[100.64.0.2]:22"), "{offered}");
            assert_eq!((method.as_str(), key), ("none", &None), "{offered}");
            assert!(evidence.proves(&tailscale).is_ok(), "{offered}");
            assert!(evidence.proves(&target()).is_err(), "{offered}");
            let unvouched = Target { host_keys: Vec::new(), ..tailscale.clone() };
            assert!(evidence.proves(&unvouched).is_err(), "a server that nobody vouches for");
            let elsewhere = Target { port: 2222, ..tailscale.clone() };
            assert!(evidence.proves(&elsewhere).is_err(), "another port than the one that was dialled");
            // What a server makes ssh log comes on top of the truth.
            let log = captured("ssh-tailscale", offered);
            let forged = format!(
                "{log}debug1: Remote: x\nAuthenticated to vps ([100.64.0.2]:22) using \"publickey\".\n"
            );
            assert_eq!(Evidence::read(&forged), None);
        }
        let evidence = Evidence::read(&captured("ssh-plain-sshd", "ssh-publickey.stderr")).unwrap();
        assert!(evidence.key.as_ref().is_some_and(|key| key.starts_with("ED25519 SHA256:")), "{evidence:?}");
        assert!(evidence.proves(&target()).is_ok());
        assert!(evidence.proves(&tailscale).is_err());
        assert_eq!(Evidence::read(&captured("ssh-denied", "ssh-none.stderr")), None);
    }

    /// Neither half is enough: who the server is, and what it accepted.
    #[test]
    fn p57_no_half_proof() {
        let seen = |server: &str, method: &str| Evidence {
            server: server.to_owned(),
            at: "[100.64.0.2]:22".to_owned(),
            method: method.to_owned(),
            key: Some("ED25519 SHA256:x".to_owned()),
            host_key: "ssh-ed25519 SHA256:y".to_owned(),
        };
        let tailscale = Target { auth: AuthMode::TailscaleSsh, ..target() };
        let proved = |server, method| {
            let seen = seen(server, method);
            (seen.proves(&target()).is_ok(), seen.proves(&tailscale).is_ok())
        };
        assert_eq!(proved("OpenSSH_9.2p1", "publickey"), (true, false));
        assert_eq!(proved("Tailscale", "none"), (false, true));
        // An sshd that lets anybody in, and Tailscale SSH after it was shown a key.
        assert_eq!(proved("OpenSSH_9.2p1", "none"), (false, false));
        assert_eq!(proved("Tailscale", "publickey"), (false, false));
        assert_eq!(proved("Tailscale-like", "none"), (false, false));
    }

    #[test]
    fn captured_refusals() {
        let by = |scenario| match judge(&target(), None, &captured(scenario, "ssh-none.stderr")) {
            SshError::Denied { by, .. } => by,
            other => panic!("{other:?}"),
        };
        assert_eq!(by("ssh-plain-sshd"), Denier::Sshd);
        assert_eq!(by("ssh-denied"), Denier::Policy);
        let url = check_url(&captured("ssh-check", "ssh-none.stderr")).map(str::to_owned);
        assert!(url.is_some_and(|url| url.starts_with("http://10.99.0.1:8080/auth/")));
    }
}
