//! Which machine is meant: `user@name`, and what one snapshot of the tailnet says about that name. Pure.

use std::net::IpAddr;
use std::str::FromStr;

use crate::error::Fact;
use crate::exit::Exit;
use crate::tailnet::{Peer, Tailnet};

/// A host as it was written, told apart by form alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// A full name, lower case, without a trailing dot.
    Name(String),
    /// One label, which the tailnet completes.
    Short(String),
    /// An IP address, which the policy refuses.
    Ip(IpAddr),
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(name) | Self::Short(name) => f.write_str(name),
            Self::Ip(ip) => ip.fmt(f),
        }
    }
}

/// `user@host`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteHost {
    /// Login name on the host.
    pub user: String,
    /// The host.
    pub host: Host,
}

impl std::fmt::Display for RemoteHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.user, self.host)
    }
}

/// Why a text is not `user@host`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHost {
    /// Nothing there.
    #[error("it is empty")]
    Empty,
    /// No `user@`.
    #[error("the login is missing, write `root@NAME`")]
    NoUser,
    /// It would be taken for an option of ssh.
    #[error("it begins with `-`, which programs take for an option")]
    LeadingDash,
    /// A control character.
    #[error("it holds a control character")]
    Control,
    /// The login holds something that no login name has.
    #[error("the login may hold letters, digits, `_`, `.` and `-` only")]
    User,
    /// Not a host name.
    #[error(
        "the name may hold letters, digits and `-` between dots only, at most 253 in all and 63 between dots"
    )]
    Name,
}

impl FromStr for RemoteHost {
    type Err = InvalidHost;

    fn from_str(text: &str) -> Result<Self, InvalidHost> {
        if text.trim().is_empty() {
            return Err(InvalidHost::Empty);
        }
        if text.chars().any(char::is_control) {
            return Err(InvalidHost::Control);
        }
        if text.starts_with('-') {
            return Err(InvalidHost::LeadingDash);
        }
        let (user, host) = text.rsplit_once('@').ok_or(InvalidHost::NoUser)?;
        if user.is_empty() {
            return Err(InvalidHost::NoUser);
        }
        if !user.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte)) {
            return Err(InvalidHost::User);
        }
        Ok(Self { user: user.to_owned(), host: host.parse()? })
    }
}

impl FromStr for Host {
    type Err = InvalidHost;

    fn from_str(text: &str) -> Result<Self, InvalidHost> {
        if text.is_empty() {
            return Err(InvalidHost::Empty);
        }
        if text.starts_with('-') {
            return Err(InvalidHost::LeadingDash);
        }
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        if let Ok(ip) = bare.parse() {
            return Ok(Self::Ip(ip));
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        if name.len() > 253 || !name.split('.').all(label) {
            return Err(InvalidHost::Name);
        }
        Ok(if name.contains('.') { Self::Name(name) } else { Self::Short(name) })
    }
}

/// What the tailnet says a host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolved<'a> {
    /// Another node of this tailnet.
    Peer(&'a Peer),
    /// This very machine.
    Myself(&'a Peer),
    /// Not of this tailnet: only with break-glass.
    Outside,
}

/// Why a host is not a usable target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// An address instead of a name.
    #[error("`{ip}` is an IP address; a target is named by its MagicDNS name")]
    Ip {
        /// The address.
        ip: IpAddr,
        /// The name of the peer that has it.
        replacement: Option<String>,
    },
    /// A full name that another network owns.
    #[error("`{name}` is not a name of this tailnet (`{suffix}`)")]
    OtherTailnet {
        /// The name.
        name: String,
        /// This tailnet's suffix.
        suffix: String,
        /// The peer of the same first label here.
        replacement: Option<String>,
    },
    /// A short name, and nobody to complete it.
    #[error("`{name}` is a short name, which only the tailnet can complete, and it was not asked")]
    ShortUnasked {
        /// The name.
        name: String,
    },
    /// A name of this tailnet that no node has, though a node once had it.
    #[error("no peer is called `{name}`; the machine `{name}` is called `{now}` now")]
    Renamed {
        /// The name as asked.
        name: String,
        /// The full name now.
        now: String,
    },
    /// A name of this tailnet that no node has.
    #[error("no peer is called `{name}`{}", nearest_words(.nearest))]
    Unknown {
        /// The name as asked.
        name: String,
        /// The most similar names.
        nearest: Vec<String>,
    },
    /// The snapshot has no suffix: no network map yet.
    #[error("this node has no tailnet name yet, so `{name}` cannot be judged")]
    NoTailnet {
        /// The name.
        name: String,
    },
}

fn nearest_words(nearest: &[String]) -> String {
    if nearest.is_empty() { String::new() } else { format!("; the nearest are `{}`", nearest.join("`, `")) }
}

impl HostError {
    /// The full MagicDNS name that was probably meant.
    pub fn replacement(&self) -> Option<&str> {
        match self {
            Self::Ip { replacement, .. } | Self::OtherTailnet { replacement, .. } => replacement.as_deref(),
            Self::Renamed { now, .. } => Some(now),
            Self::Unknown { nearest, .. } => nearest.first().map(String::as_str),
            Self::ShortUnasked { .. } | Self::NoTailnet { .. } => None,
        }
    }
}

impl Fact for HostError {
    fn exit(&self) -> Exit {
        match self {
            Self::Ip { .. } | Self::OtherTailnet { .. } | Self::ShortUnasked { .. } => Exit::HostPolicy,
            Self::Renamed { .. } | Self::Unknown { .. } => Exit::PeerUnreachable,
            Self::NoTailnet { .. } => Exit::TailscaleDown,
        }
    }
}

impl Host {
    /// Is it an address that no node of any tailnet has? They are from 100.64.0.0/10 and `fd7a:115c:a1e0::/48`
    /// (`tsaddr.CGNATRange` and `TailscaleULARange`). A name tells nothing.
    pub fn is_elsewhere(&self) -> bool {
        match self {
            Self::Ip(IpAddr::V4(ip)) => ip.to_bits() & 0xffc0_0000 != 0x6440_0000,
            Self::Ip(IpAddr::V6(ip)) => !matches!(ip.segments(), [0xfd7a, 0x115c, 0xa1e0, ..]),
            Self::Name(_) | Self::Short(_) => false,
        }
    }

    /// Finds the one node that this host names. Membership is decided by the tailnet's own suffix and its peers,
    /// never by how a name looks.
    pub fn resolve<'a>(&self, tailnet: &'a Tailnet, break_glass: bool) -> Result<Resolved<'a>, HostError> {
        match self {
            Self::Ip(ip) => match tailnet.by_ip(*ip) {
                Some(node) if break_glass => Ok(tailnet.as_resolved(node)),
                None if break_glass => Ok(Resolved::Outside),
                node => Err(HostError::Ip { ip: *ip, replacement: node.map(|node| node.name().to_owned()) }),
            },
            Self::Short(label) => {
                let suffix = tailnet.suffix().ok_or_else(|| HostError::NoTailnet { name: label.clone() })?;
                find(&format!("{label}.{suffix}"), tailnet)
            }
            Self::Name(name) => {
                let suffix = tailnet.suffix().ok_or_else(|| HostError::NoTailnet { name: name.clone() })?;
                let member = name.strip_suffix(suffix).is_some_and(|host| host.ends_with('.'));
                // A node shared in from another tailnet is a peer under its own full name.
                if member || tailnet.by_name(name).is_some() {
                    return find(name, tailnet);
                }
                if break_glass {
                    return Ok(Resolved::Outside);
                }
                let label = name.split('.').next().unwrap_or_default();
                let here = tailnet.by_name(&format!("{label}.{suffix}"));
                Err(HostError::OtherTailnet {
                    name: name.clone(),
                    suffix: suffix.to_owned(),
                    replacement: here.map(|node| node.name().to_owned()),
                })
            }
        }
    }

    /// Judges the form alone, for when the tailnet is not asked: a full name, no address.
    pub fn judge_form(&self, break_glass: bool) -> Result<(), HostError> {
        match self {
            Self::Name(_) => Ok(()),
            _ if break_glass => Ok(()),
            Self::Ip(ip) => Err(HostError::Ip { ip: *ip, replacement: None }),
            Self::Short(name) => Err(HostError::ShortUnasked { name: name.clone() }),
        }
    }
}

fn find<'a>(name: &str, tailnet: &'a Tailnet) -> Result<Resolved<'a>, HostError> {
    if let Some(node) = tailnet.by_name(name) {
        return Ok(tailnet.as_resolved(node));
    }
    let label = name.split('.').next().unwrap_or_default();
    // A renamed machine keeps the host name it reports itself.
    let renamed = tailnet.peers().find(|peer| peer.host_name.eq_ignore_ascii_case(label));
    if let Some(peer) = renamed {
        return Err(HostError::Renamed { name: name.to_owned(), now: peer.name().to_owned() });
    }
    let mut nearest: Vec<(f64, &str)> = tailnet
        .peers()
        .map(|peer| (strsim::normalized_damerau_levenshtein(label, peer.label()), peer.name()))
        .collect();
    nearest.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    let nearest = nearest.into_iter().take(3).map(|(_, name)| name.to_owned()).collect();
    Err(HostError::Unknown { name: name.to_owned(), nearest })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_address_tells_that_it_is_not_in_a_tailnet() {
        let elsewhere = |text: &str| text.parse::<Host>().unwrap().is_elsewhere();
        for of_a_tailnet in ["100.64.0.0", "100.127.255.255", "fd7a:115c:a1e0::2", "vps", "vps.example.com"] {
            assert!(!elsewhere(of_a_tailnet), "{of_a_tailnet}");
        }
        for other in ["100.63.255.255", "100.128.0.0", "203.0.113.7", "fd7a:115c:a1e1::2", "::1"] {
            assert!(elsewhere(other), "{other}");
        }
    }

    #[test]
    fn forms() {
        let host = |text: &str| text.parse::<RemoteHost>().map(|remote| remote.host);
        assert_eq!(host("root@Srv.Tail.ts.net."), Ok(Host::Name("srv.tail.ts.net".into())));
        assert_eq!(host("root@srv"), Ok(Host::Short("srv".into())));
        assert_eq!(host("root@100.64.0.2"), Ok(Host::Ip("100.64.0.2".parse().unwrap())));
        assert_eq!(host("root@[fd7a:115c:a1e0::2]"), Ok(Host::Ip("fd7a:115c:a1e0::2".parse().unwrap())));
        for (text, why) in [
            ("", InvalidHost::Empty),
            ("  ", InvalidHost::Empty),
            ("srv.tail.ts.net", InvalidHost::NoUser),
            ("@srv.tail.ts.net", InvalidHost::NoUser),
            ("-oProxyCommand=x@srv", InvalidHost::LeadingDash),
            ("root@-oProxyCommand=x", InvalidHost::LeadingDash),
            ("root@a\nb", InvalidHost::Control),
            ("root@a b", InvalidHost::Name),
            ("root@a..b", InvalidHost::Name),
            ("root@a_b;reboot", InvalidHost::Name),
            ("ro ot@srv", InvalidHost::User),
            ("root@", InvalidHost::Empty),
        ] {
            assert_eq!(host(text), Err(why), "{text:?}");
        }
    }

    proptest::proptest! {
        /// Whatever parses can stand in an argument vector and a config file without a second meaning.
        #[test]
        fn what_parses_is_plain(text in ".{0,80}") {
            if let Ok(remote) = text.parse::<RemoteHost>() {
                let shown = remote.to_string();
                assert!(!shown.starts_with('-') && !remote.host.to_string().starts_with('-'));
                assert!(shown.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"@.-_:".contains(&byte)));
            }
        }
    }
}
