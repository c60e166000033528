//! `tailscale`: the snapshot, one pong, and what it knows about names.

use std::net::IpAddr;
use std::time::Duration;

use serde::Deserialize;

use crate::error::Fact;
use crate::exit::Exit;
use crate::run::{Cmd, Finished, RunError};
use crate::tailnet::Tailnet;

/// Why `tailscale` gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum TailscaleError {
    /// No such program.
    #[error("there is no `tailscale` command on this machine")]
    Missing,
    /// tailscaled does not run, or does not let us ask.
    #[error("tailscaled does not answer: {said}")]
    Down {
        /// What the program said.
        said: String,
    },
    /// tailscaled took too long.
    #[error("tailscaled did not answer within {} s", .limit.as_secs_f64())]
    Slow {
        /// The limit.
        limit: Duration,
    },
    /// Not the output we know.
    #[error("`tailscale {verb}` answered what this program does not understand: {why}")]
    Garbled {
        /// The verb.
        verb: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The program could not be run.
    #[error(transparent)]
    Run(RunError),
}

impl Fact for TailscaleError {
    fn exit(&self) -> Exit {
        match self {
            Self::Missing => Exit::TailscaleMissing,
            Self::Run(error) => error.exit(),
            Self::Down { .. } | Self::Slow { .. } | Self::Garbled { .. } => Exit::TailscaleDown,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Missing => "sudo apt-get install tailscale".to_owned(),
            Self::Down { .. } => "sudo systemctl start tailscaled".to_owned(),
            Self::Slow { .. } => "sudo systemctl restart tailscaled".to_owned(),
            Self::Garbled { .. } => "tailscale version".to_owned(),
            Self::Run(_) => return None,
        })
    }
}

impl From<RunError> for TailscaleError {
    fn from(error: RunError) -> Self {
        match error {
            RunError::NotFound { .. } => Self::Missing,
            RunError::Timeout { limit, .. } => Self::Slow { limit },
            other => Self::Run(other),
        }
    }
}

fn tailscale(limit: Duration) -> Cmd {
    Cmd::new("tailscale", limit)
}

/// `tailscale status --json`.
pub fn status_cmd(limit: Duration) -> Cmd {
    tailscale(limit).args(["status", "--json"])
}

/// One snapshot of the tailnet. Exits 0 in every backend state, so any other code means that nobody answered.
pub fn status(limit: Duration) -> Result<Tailnet, TailscaleError> {
    let finished = status_cmd(limit).output()?;
    if finished.code != 0 {
        return Err(TailscaleError::Down { said: first_line(&finished) });
    }
    Tailnet::parse(&finished.stdout)
        .map_err(|error| TailscaleError::Garbled { verb: "status --json", why: error.to_string() })
}

/// The first line of what it said, which names the trouble; stderr before stdout.
fn first_line(finished: &Finished) -> String {
    let (err, out) = (finished.err(), finished.out());
    let said = if err.is_empty() { out } else { err };
    said.lines().next().unwrap_or("it said nothing").to_owned()
}

/// How a pong travelled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Path {
    /// Straight to this address.
    Direct(String),
    /// By a relay of this name.
    Relayed(String),
}

/// An answer of the peer's tailscaled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pong {
    /// How it travelled.
    pub path: Path,
    /// Round trip in words, such as `12ms`.
    pub round_trip: String,
}

/// `tailscale ping` for one pong. It ends at once only after a direct one (`--until-direct`, the default); after any
/// other it sleeps for a second, then says with exit code 1 that the path is not direct. A relayed pong is a pong all
/// the same, since ssh works over it: what was printed counts, not the code.
pub fn ping_cmd(ip: IpAddr, limit: Duration) -> Cmd {
    let milliseconds = format!("--timeout={}ms", limit.as_millis());
    // The program keeps its own limit, and may sleep for a second after it; ours only catches it if it does not.
    tailscale(limit + Duration::from_millis(1_500))
        .args(["ping", "--c=1"])
        .arg(milliseconds)
        .arg(ip.to_string())
}

/// One pong, or what was said instead of it.
pub fn ping(ip: IpAddr, limit: Duration) -> Result<Result<Pong, String>, TailscaleError> {
    match ping_cmd(ip, limit).output() {
        Ok(finished) => Ok(parse_pong(&finished.out()).ok_or_else(|| first_line(&finished))),
        Err(RunError::Timeout { .. }) => Ok(Err("no answer".to_owned())),
        Err(error) => Err(error.into()),
    }
}

/// Reads `pong from NAME (IP) via PATH in TIME`.
fn parse_pong(out: &str) -> Option<Pong> {
    let line = out.lines().find(|line| line.starts_with("pong from "))?;
    let (_, rest) = line.split_once(" via ")?;
    let (path, round_trip) = rest.rsplit_once(" in ")?;
    let relay = |prefix: &str| path.strip_prefix(prefix)?.strip_suffix(')').map(str::to_owned);
    let path = match relay("DERP(").or_else(|| relay("peer-relay(")) {
        Some(relay) => Path::Relayed(relay),
        None => Path::Direct(path.to_owned()),
    };
    Some(Pong { path, round_trip: round_trip.to_owned() })
}

/// What `tailscale debug prefs` prints, of which only this is of interest.
#[derive(Deserialize)]
struct Prefs {
    #[serde(rename = "CorpDNS")]
    corp_dns: bool,
}

/// Does this machine take its DNS from the tailnet (`--accept-dns`)? `None`: tailscaled did not say.
pub fn accepts_dns(limit: Duration) -> Option<bool> {
    let finished = tailscale(limit).args(["debug", "prefs"]).output().ok()?;
    serde_json::from_slice::<Prefs>(&finished.stdout).ok().map(|prefs| prefs.corp_dns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands() {
        let ip = "100.64.0.2".parse().unwrap();
        assert_eq!(
            ping_cmd(ip, Duration::from_millis(850)).to_string(),
            "tailscale ping '--c=1' '--timeout=850ms' 100.64.0.2"
        );
    }

    /// What the real program was seen to say, by `cargo xtask lab capture`.
    fn captured(scenario: &str, file: &str) -> Vec<u8> {
        let path = format!("{}/../../tests/fixtures/captured/{scenario}/{file}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    #[test]
    fn captured_snapshots_say_what_was_brought_about() {
        use crate::tailnet::State;
        for (scenario, state) in [
            ("healthy", State::Running),
            ("relayed", State::Running),
            ("down", State::Stopped),
            ("logged-out", State::NeedsLogin),
            ("own-key-expired", State::NeedsLogin),
            ("just-started", State::NoState),
            ("peer-stopped", State::Running),
            ("https-control", State::Running),
        ] {
            let tailnet = Tailnet::parse(&captured(scenario, "status.json")).unwrap();
            assert_eq!(tailnet.backend_state, state, "{scenario}");
        }
        let tailnet = |scenario| Tailnet::parse(&captured(scenario, "status.json")).unwrap();
        let vps =
            |tailnet: &Tailnet| tailnet.peers().find(|peer| peer.host_name == "srv1360701").cloned().unwrap();
        let healthy = tailnet("healthy");
        assert_eq!(healthy.suffix(), Some("taildcc090.ts.net"));
        assert_eq!(healthy.magic_dns(), Some(true));
        assert_eq!(healthy.myself().name(), "laptop.taildcc090.ts.net");
        assert_eq!(vps(&healthy).addresses().first(), Some(&"100.64.0.2".parse().unwrap()));
        assert!(vps(&healthy).ssh_host_keys.is_empty() && !vps(&healthy).expired);
        assert!(vps(&tailnet("peer-expired")).expired);
        assert!(!vps(&tailnet("peer-tailscale-ssh")).ssh_host_keys.is_empty());
        assert_ne!(vps(&tailnet("peer-renamed")).label(), "srv1360701");
    }

    #[test]
    fn captured_pongs() {
        let pong =
            |scenario| parse_pong(&String::from_utf8(captured(scenario, "ping-direct.stdout")).unwrap());
        assert!(matches!(pong("healthy").unwrap().path, Path::Direct(at) if at.starts_with("10.99.0.12:")));
        assert_eq!(pong("relayed").unwrap().path, Path::Relayed("lab".to_owned()));
        for scenario in ["peer-stopped", "peer-link-cut", "peer-expired", "down", "daemon-stopped"] {
            assert_eq!(pong(scenario), None, "{scenario}");
        }
    }

    #[test]
    fn captured_preferences() {
        let accepts = |scenario| -> bool {
            serde_json::from_slice::<Prefs>(&captured(scenario, "prefs.json")).unwrap().corp_dns
        };
        assert!(accepts("healthy") && accepts("dns-broken") && !accepts("accept-dns-off"));
    }
}
