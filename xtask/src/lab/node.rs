//! The nodes of the lab, and running commands on them.

use std::time::Duration;

use anyhow::{Context as _, Result};
use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};

use super::{Lab, TAILNET, machines};
use crate::cmd::{Cmd, Output};

/// Nothing that the lab asks of a node takes longer, unless it says so itself.
const TIMEOUT: Duration = Duration::from_mins(1);

const PATH: &str = "/opt/ua/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Namespaces that each machine has of its own, for `nsenter`. Its `--all` would join the time namespace as well, which without
/// root is refused where that is the host's.
pub(super) const NAMESPACES: [&str; 6] = ["-m", "-n", "-p", "-i", "-u", "-C"];

/// A place in the lab where commands can be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Node {
    /// The network namespace of the control servers, on the file system of the host.
    Control,
    /// The operator's machine.
    Laptop,
    /// The VPS.
    #[serde(rename = "srv1360701")]
    Vps,
    /// A machine on the same internet that is not on the tailnet.
    Outsider,
}

impl Node {
    /// Every node, in the order of their addresses.
    pub const ALL: [Self; 4] = [Self::Control, Self::Laptop, Self::Vps, Self::Outsider];
    /// The nodes that are machines of their own.
    pub const MACHINES: [Self; 3] = [Self::Laptop, Self::Vps, Self::Outsider];
    /// The members of the tailnet, in the order in which they join it.
    pub const TAILNET: [Self; 2] = [Self::Laptop, Self::Vps];

    /// Its host name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Laptop => "laptop",
            Self::Vps => "srv1360701",
            Self::Outsider => "outsider",
        }
    }

    /// Its address on the lab's internet.
    pub fn public_address(self) -> &'static str {
        match self {
            Self::Control => super::anchor::CONTROL_ADDRESS,
            Self::Laptop => "10.99.0.11",
            Self::Vps => "10.99.0.12",
            Self::Outsider => "10.99.0.13",
        }
    }

    /// Its address on the tailnet, the same under both control servers; none if it is not a member.
    pub fn tailnet_address(self) -> Option<&'static str> {
        match self {
            Self::Laptop => Some("100.64.0.1"),
            Self::Vps => Some("100.64.0.2"),
            Self::Control | Self::Outsider => None,
        }
    }

    /// Its MagicDNS name, if it is a member of the tailnet and has not been renamed.
    pub fn magic_dns_name(self) -> String {
        format!("{}.{TAILNET}", self.name())
    }

    /// Its plug in the bridge.
    pub(super) fn plug(self) -> String {
        format!("vb-{}", self.name())
    }
}

impl std::str::FromStr for Node {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // `vps` is what everyone calls it.
        let named = Self::ALL.into_iter().find(|node| node.name() == text);
        named
            .or((text == "vps").then_some(Self::Vps))
            .ok_or_else(|| format!("no node `{text}`; there are {}", Self::ALL.map(Self::name).join(", ")))
    }
}

/// One node of a lab that is up.
#[derive(Debug, Clone, Copy)]
pub struct Machine<'a> {
    pub(super) lab: &'a Lab,
    pub(super) node: Node,
}

/// A command on a node, with nothing of our own environment.
#[derive(Debug, Clone)]
pub struct Exec<'a> {
    machine: Machine<'a>,
    argv: Vec<String>,
    user: String,
    dir: Option<String>,
    env: Vec<(String, String)>,
    stdin: Vec<u8>,
    timeout: Duration,
}

impl<'a> Machine<'a> {
    /// Runs a command as root and returns what came out, whatever the exit code.
    pub fn exec(self, argv: &[&str]) -> Result<Output> {
        self.command(argv).output()
    }

    /// Runs a shell script as root and returns what came out, whatever the exit code.
    pub fn sh(self, script: &str) -> Result<Output> {
        self.exec(&["sh", "-c", script])
    }

    /// A command as root, to be refined and run.
    pub fn command(self, argv: &[&str]) -> Exec<'a> {
        Exec {
            machine: self,
            argv: argv.iter().map(ToString::to_string).collect(),
            user: "root".to_owned(),
            dir: None,
            env: Vec::new(),
            stdin: Vec::new(),
            timeout: TIMEOUT,
        }
    }

    fn path_variable(self) -> String {
        match self.node {
            Node::Control => format!("{}:{PATH}", self.lab.servers().programs()),
            Node::Laptop | Node::Vps | Node::Outsider => PATH.to_owned(),
        }
    }

    /// Where the host sees a file of the node: for putting things there, or looking at them, without a command.
    pub fn path(self, path: impl AsRef<Utf8Path>) -> Result<Utf8PathBuf> {
        let pid = self.lab.first_process(self.node)?.pid;
        Ok(Utf8PathBuf::from(format!("/proc/{pid}/root"))
            .join(path.as_ref().as_str().trim_start_matches('/')))
    }
}

impl Exec<'_> {
    /// Runs it as this user of the node.
    #[must_use]
    pub fn user(mut self, user: &str) -> Self {
        user.clone_into(&mut self.user);
        self
    }

    /// Runs it in this directory; the user's home without.
    #[must_use]
    pub fn dir(mut self, dir: &str) -> Self {
        self.dir = Some(dir.to_owned());
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Gives it these bytes on stdin; empty without.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// Kills it after this time, which is then an error; one minute without.
    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = limit;
        self
    }

    /// Runs it and returns what came out, whatever the exit code.
    pub fn output(&self) -> Result<Output> {
        Cmd::new(self.host_argv()?).stdin(self.stdin.clone()).timeout(self.timeout).output()
    }

    /// Runs it and returns its stdout; a non-zero exit code is an error with its stderr.
    pub fn read(&self) -> Result<String> {
        self.output()?
            .into_stdout(&self.argv.join(" "))
            .with_context(|| format!("on `{}`", self.machine.node.name()))
    }

    /// Runs it; a non-zero exit code is an error with its stderr.
    pub fn run(&self) -> Result<()> {
        self.read().map(drop)
    }

    /// The command as the host would run it: for a caller who wants the terminal, or a process of its own.
    pub fn host_argv(&self) -> Result<Vec<String>> {
        let Machine { lab, node } = self.machine;
        let pid = lab.first_process(node)?.pid.to_string();
        let account = Account::find(&self.machine.path("/etc/passwd")?, &self.user)?;
        let namespaces: &[&str] = if node == Node::Control { &["-m", "-n", "-p", "-i"] } else { &NAMESPACES };

        let mut argv = vec!["nsenter", "-t", &pid];
        argv.extend(namespaces);
        if node == Node::Vps && machines::has_own_time() {
            argv.push("-T");
        }
        argv.push("--");
        if self.user != "root" {
            argv.extend(["setpriv", "--reuid", &self.user, "--regid", &self.user, "--init-groups"]);
        }
        argv.extend(["env", "-i", "-C", self.dir.as_ref().unwrap_or(&account.home)]);
        let mut argv: Vec<String> = argv.into_iter().map(String::from).collect();
        argv.extend([
            format!("HOME={}", account.home),
            format!("USER={}", self.user),
            format!("LOGNAME={}", self.user),
            format!("PATH={}", self.machine.path_variable()),
            "LANG=C.UTF-8".to_owned(),
            // What `systemctl --user` finds its manager by.
            format!("XDG_RUNTIME_DIR=/run/user/{}", account.id),
        ]);
        if node == Node::Control {
            // So that `headscale nodes list` is enough.
            argv.push(format!("HEADSCALE_CONFIG={}", lab.servers().config()));
        }
        argv.extend(self.env.iter().map(|(name, value)| format!("{name}={value}")));
        argv.extend(self.argv.iter().cloned());
        Ok(argv)
    }
}

struct Account {
    id: String,
    home: String,
}

impl Account {
    fn find(passwd: &Utf8Path, user: &str) -> Result<Self> {
        let text = fs_err::read_to_string(passwd)?;
        let fields = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let found = fields.into_iter().find(|fields| fields.len() > 5 && fields[0] == user);
        let fields = found.with_context(|| format!("no user `{user}` in `{passwd}`"))?;
        Ok(Self { id: fields[2].to_owned(), home: fields[5].to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_found_by_their_host_names_and_the_vps_by_what_everyone_calls_it() {
        for node in Node::ALL {
            assert_eq!(node.name().parse(), Ok(node));
        }
        assert_eq!("vps".parse(), Ok(Node::Vps));
        let error = "moon".parse::<Node>().unwrap_err();
        assert_eq!(error, "no node `moon`; there are control, laptop, srv1360701, outsider");
    }
}
