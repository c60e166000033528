//! One snapshot of the tailnet: what `tailscale status --json` says at one instant. Data only, never evidence of reachability.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use serde::Deserialize;

use crate::host::Resolved;

/// The snapshot. Field names follow `ipnstate.Status` of tailscale.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Tailnet {
    /// Version of tailscaled.
    #[serde(default)]
    pub version: String,
    /// What the daemon is doing.
    pub backend_state: State,
    #[serde(rename = "Self")]
    myself: Peer,
    #[serde(default)]
    health: Option<Vec<String>>,
    #[serde(default)]
    current_tailnet: Option<CurrentTailnet>,
    #[serde(default)]
    peer: Option<BTreeMap<String, Peer>>,
}

/// State of tailscaled (`ipn.State`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum State {
    /// Just started, has not looked yet.
    NoState,
    /// Another user of this machine has it.
    InUseOtherUser,
    /// Logged out, or its key expired.
    NeedsLogin,
    /// An admin must approve the machine.
    NeedsMachineAuth,
    /// `tailscale down`.
    Stopped,
    /// On its way up.
    Starting,
    /// Up.
    Running,
    /// A state that this program does not know.
    #[serde(other)]
    Unknown,
}

#[derive(Clone, Debug, Deserialize)]
struct CurrentTailnet {
    #[serde(rename = "MagicDNSSuffix", default)]
    magic_dns_suffix: String,
    #[serde(rename = "MagicDNSEnabled", default)]
    magic_dns_enabled: bool,
}

/// One node (`ipnstate.PeerStatus`).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Peer {
    /// The name the machine itself reports, which a rename does not change.
    #[serde(default)]
    pub host_name: String,
    #[serde(rename = "DNSName", default)]
    dns_name: String,
    /// Its addresses in the tailnet.
    #[serde(rename = "TailscaleIPs", default)]
    ips: Option<Vec<IpAddr>>,
    /// Code of its home relay.
    #[serde(default)]
    pub relay: String,
    /// Has its node key expired?
    #[serde(default)]
    pub expired: bool,
    /// When its node key expires; absent: never.
    #[serde(default)]
    pub key_expiry: Option<Timestamp>,
    /// Public host keys of its Tailscale SSH server; empty: it runs none.
    #[serde(rename = "sshHostKeys", default)]
    pub ssh_host_keys: Vec<String>,
}

impl Peer {
    /// The full MagicDNS name without the trailing dot.
    pub fn name(&self) -> &str {
        self.dns_name.trim_end_matches('.')
    }

    /// The first label of the name.
    pub fn label(&self) -> &str {
        self.name().split('.').next().unwrap_or_default()
    }

    /// Its addresses.
    pub fn ips(&self) -> &[IpAddr] {
        self.ips.as_deref().unwrap_or_default()
    }

    /// The same, the one to speak to first: IPv4 where it has one.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let (mut four, six): (Vec<_>, Vec<_>) = self.ips().iter().partition(|ip| ip.is_ipv4());
        four.extend(six);
        four
    }
}

impl Tailnet {
    /// Reads the output of `tailscale status --json`.
    pub fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
    }

    /// The part that all names of this tailnet end in, without dots at its ends.
    pub fn suffix(&self) -> Option<&str> {
        let current = self.current_tailnet.as_ref().map(|current| current.magic_dns_suffix.as_str());
        let own = self.myself.name().split_once('.').map(|(_, suffix)| suffix);
        current.filter(|suffix| !suffix.is_empty()).or(own).map(|suffix| suffix.trim_matches('.'))
    }

    /// Does the tailnet give out names at all? `None`: no network map yet.
    pub fn magic_dns(&self) -> Option<bool> {
        self.current_tailnet.as_ref().map(|current| current.magic_dns_enabled)
    }

    /// This machine.
    pub fn myself(&self) -> &Peer {
        &self.myself
    }

    /// The other nodes.
    pub fn peers(&self) -> impl Iterator<Item = &Peer> {
        self.peer.iter().flat_map(BTreeMap::values)
    }

    /// The daemon's own warnings, sorted since it gives them in random order.
    pub fn health(&self) -> Vec<&str> {
        let mut texts: Vec<&str> = self.health.iter().flatten().map(String::as_str).collect();
        texts.sort_unstable();
        texts
    }

    fn nodes(&self) -> impl Iterator<Item = &Peer> {
        std::iter::once(&self.myself).chain(self.peers())
    }

    pub(crate) fn by_name(&self, name: &str) -> Option<&Peer> {
        self.nodes().find(|node| node.name().eq_ignore_ascii_case(name))
    }

    pub(crate) fn by_ip(&self, ip: IpAddr) -> Option<&Peer> {
        self.nodes().find(|node| node.ips().contains(&ip))
    }

    pub(crate) fn as_resolved<'a>(&'a self, node: &'a Peer) -> Resolved<'a> {
        if std::ptr::eq(node, &raw const self.myself) { Resolved::Myself(node) } else { Resolved::Peer(node) }
    }
}
