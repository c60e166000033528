//! Where the target is: the policy for targets, the daemon, and what one snapshot of the tailnet says of the one node
//! that is meant. Nothing is contacted but this machine's tailscaled, and with [`pong`] the peer.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::exit::Exit;
use crate::host::{Host, HostError, RemoteHost, Resolved};
use crate::interrupt;
use crate::output::Printer;
use crate::report::{Check, Verdict};
use crate::run::{RunError, which};
use crate::settings::value::{AuthMode, PreflightMode};
use crate::settings::{Origin, Settings, SettingsError, Sourced};
use crate::tailnet::{Peer, State, Tailnet};
use crate::tool::ssh::Target;
use crate::tool::tailscale::{self, Path, TailscaleError};

/// How often the peer is asked for a pong before it counts as away.
const TRIES: u32 = 3;

/// Where the target is, once it may be spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its full name.
    pub name: String,
    /// Its tailnet addresses, the one to dial first; without any the name is dialled.
    pub addresses: Vec<IpAddr>,
    /// Is it this very machine?
    pub myself: bool,
    /// The address by which the tailnet knows this machine, if it was asked.
    pub from: Option<IpAddr>,
    /// Does the tailnet vouch for name and address?
    pub in_tailnet: bool,
    /// Public keys of its Tailscale SSH server.
    pub host_keys: Vec<String>,
}

impl Place {
    /// The first label of its name.
    pub fn label(&self) -> &str {
        self.name.split('.').next().unwrap_or_default()
    }

    /// A target that only its name or address tells of.
    pub fn unvouched(host: &Host) -> Self {
        let addresses = match host {
            Host::Ip(ip) => vec![*ip],
            Host::Name(_) | Host::Short(_) => Vec::new(),
        };
        let name = host.to_string();
        Self { name, addresses, myself: false, from: None, in_tailnet: false, host_keys: Vec::new() }
    }

    fn of(node: &Peer, myself: bool, from: &Peer) -> Self {
        Self {
            name: node.name().to_owned(),
            addresses: node.addresses(),
            myself,
            from: from.addresses().first().copied(),
            in_tailnet: true,
            host_keys: node.ssh_host_keys.clone(),
        }
    }

    /// What an SSH connection to it needs to know.
    pub fn ssh_target(&self, settings: &Settings) -> Target {
        self.ssh_target_by(settings, settings.ssh_auth_mode.value)
    }

    /// The same, in a mode that need not be the one of the settings.
    pub fn ssh_target_by(&self, settings: &Settings, mode: AuthMode) -> Target {
        Target {
            user: settings.host_vps.user.clone(),
            name: self.name.clone(),
            addresses: self.addresses.clone(),
            port: ssh_port(settings, mode),
            auth: mode,
            key: settings.ssh_key.value.clone(),
            in_tailnet: self.in_tailnet,
            host_keys: self.host_keys.clone(),
            connect_timeout: settings.ssh_connect_timeout.0,
            pong_timeout: settings.preflight_timeout.0,
        }
    }
}

/// Where SSH is asked in a mode: keys are real only where a real sshd listens.
pub fn ssh_port(settings: &Settings, mode: AuthMode) -> u16 {
    match mode {
        AuthMode::Keys => settings.ssh_keys_port.0,
        AuthMode::TailscaleSsh => 22,
    }
}

/// How a run may find its target.
pub enum Way {
    /// It may not: a check says why.
    Refused,
    /// By the form of its name alone; the preflight is off.
    Form(Place),
    /// By asking the tailnet.
    Tailnet,
}

/// What the settings allow, before anything is asked.
pub fn way(settings: &Settings, checks: &mut Vec<Check>) -> Way {
    if settings.preflight_mode.value == PreflightMode::Always && settings.preflight_skip.value {
        let said = |what: &str, origin| format!("{what} ({origin})");
        let contradiction = SettingsError::Contradiction {
            first: said("preflight.mode = always", &settings.preflight_mode.origin),
            second: said("preflight.skip = true", &settings.preflight_skip.origin),
            why: "a preflight that is always made cannot be skipped",
        };
        checks.push(Check::failure("preflight", contradiction).hint("ua-preflight --preflight auto"));
        return Way::Refused;
    }
    if settings.host_break_glass.value {
        let detail =
            format!("break-glass is on ({}): any target is allowed", settings.host_break_glass.origin);
        checks.push(Check::warn("host.break_glass", detail));
    }
    let origin = match settings.preflight_mode.value {
        _ if settings.preflight_skip.value => &settings.preflight_skip.origin,
        PreflightMode::Never => &settings.preflight_mode.origin,
        PreflightMode::Auto | PreflightMode::Always => return Way::Tailnet,
    };
    checks.push(Check::warn("preflight", format!("the tailnet is not checked, by {origin}")));
    unseen(settings, checks).map_or(Way::Refused, Way::Form)
}

/// A target and the snapshot in which it was found; a break-glass target outside the tailnet has none.
pub struct Found {
    /// The target.
    pub place: Place,
    /// The snapshot.
    pub tailnet: Option<Tailnet>,
}

/// Finds the target with the help of the settings and the tailnet, without waiting for a pong: for whoever connects
/// to it at once and so finds out by itself whether it is there.
pub fn locate(settings: &Settings, out: &Printer, checks: &mut Vec<Check>) -> Option<Found> {
    match way(settings, checks) {
        Way::Refused => None,
        Way::Form(place) => Some(Found { place, tailnet: None }),
        Way::Tailnet => look(settings, out, checks),
    }
}

/// Asks tailscaled for the target. A break-glass target that cannot be one of the tailnet's needs no tailscaled.
pub fn look(settings: &Settings, out: &Printer, checks: &mut Vec<Check>) -> Option<Found> {
    let found = ask(settings, out, checks);
    let down = |check: &Check| matches!(check.exit, Exit::TailscaleMissing | Exit::TailscaleDown);
    let needless = settings.host_break_glass.value
        && settings.preflight_mode.value == PreflightMode::Auto
        && settings.host_vps.host.is_elsewhere();
    if found.is_none()
        && needless
        && let Some(failed) = checks.pop_if(|check| down(check))
    {
        checks.push(Check { verdict: Verdict::Warn, exit: Exit::Ok, ..failed });
        return outside(settings, checks).map(|place| Found { place, tailnet: None });
    }
    found
}

fn ask(settings: &Settings, out: &Printer, checks: &mut Vec<Check>) -> Option<Found> {
    let limit = settings.preflight_timeout.0;
    let start = Instant::now();
    let Some(program) = which("tailscale") else {
        checks.push(Check::failure("tailscale.installed", TailscaleError::Missing));
        return None;
    };
    checks.push(Check::pass("tailscale.installed", program.display().to_string()).since(start));

    let start = Instant::now();
    let tailnet = {
        let _waiting = out.waiting("asking tailscaled");
        match snapshot(limit) {
            Ok(tailnet) => tailnet,
            Err(error) => {
                checks.push(Check::failure("tailscale.daemon", error).since(start));
                return None;
            }
        }
    };
    checks
        .push(Check::pass("tailscale.daemon", format!("answers, version {}", tailnet.version)).since(start));
    if let Err(check) = state(&tailnet) {
        checks.push(check);
        return None;
    }
    checks.push(Check::pass("tailscale.state", "running"));

    let host = &settings.host_vps.host;
    let resolved = match host.resolve(&tailnet, settings.host_break_glass.value) {
        Ok(resolved) => resolved,
        Err(error) => {
            checks.push(policy(settings, error));
            return None;
        }
    };
    let (node, myself) = match resolved {
        Resolved::Peer(node) => (node, false),
        Resolved::Myself(node) => (node, true),
        Resolved::Outside => {
            return outside(settings, checks).map(|place| Found { place, tailnet: None });
        }
    };
    if !matches!(node.name().parse(), Ok(Host::Name(_))) {
        let detail =
            format!("the tailnet calls `{host}` `{}`, which is no host name", node.name().escape_debug());
        checks.push(Check::fail("host.policy", Exit::HostPolicy, detail).hint("tailscale status"));
        return None;
    }
    checks.push(Check::pass("host.policy", named(host, node)));
    if !keys(settings, &tailnet, node, myself, checks) {
        return None;
    }
    let place = Place::of(node, myself, tailnet.myself());
    Some(Found { place, tailnet: Some(tailnet) })
}

/// The target by its form alone.
fn unseen(settings: &Settings, checks: &mut Vec<Check>) -> Option<Place> {
    let host = &settings.host_vps.host;
    match host.judge_form(settings.host_break_glass.value) {
        Ok(()) => {
            checks.push(Check::pass("host.policy", format!("`{host}` has the form that is asked for")));
            Some(Place::unvouched(host))
        }
        Err(error) => {
            checks.push(policy(settings, error));
            None
        }
    }
}

/// The snapshot; a daemon that has only just started is given a moment to find out where it is.
fn snapshot(limit: Duration) -> Result<Tailnet, TailscaleError> {
    let start = Instant::now();
    loop {
        let tailnet = tailscale::status(limit)?;
        let settled = !matches!(tailnet.backend_state, State::NoState | State::Starting);
        if settled || start.elapsed() >= limit || interrupt::requested() {
            return Ok(tailnet);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn state(tailnet: &Tailnet) -> Result<(), Check> {
    let expired =
        tailnet.myself().expired || tailnet.myself().key_expiry.is_some_and(|at| at <= Timestamp::now());
    let (detail, hint) = match tailnet.backend_state {
        State::Running => return Ok(()),
        State::Stopped => ("tailscale is down on this machine", "sudo tailscale up"),
        State::NeedsLogin if expired => {
            ("the node key of this machine has expired", "sudo tailscale up --force-reauth")
        }
        State::NeedsLogin => ("this machine is logged out of the tailnet", "sudo tailscale up"),
        State::NeedsMachineAuth => {
            ("an admin of the tailnet has yet to approve this machine", "tailscale status")
        }
        State::InUseOtherUser => ("another user of this machine holds tailscale", "sudo tailscale up"),
        State::NoState | State::Starting => ("tailscaled has not come up yet", "ua-preflight --wait 1m"),
        State::Unknown => ("tailscaled is in a state that this program does not know", "tailscale status"),
    };
    Err(Check::fail("tailscale.state", Exit::TailscaleDown, detail).hint(hint))
}

/// A target that the policy or the tailnet does not accept, with the right name to put where the wrong one came from.
fn policy(settings: &Settings, error: HostError) -> Check {
    let target = &settings.host_vps;
    let hint = replacement(target, error.replacement());
    let id = match &error {
        HostError::Renamed { .. } | HostError::Unknown { .. } => "peer.known",
        HostError::NoTailnet { .. } => "tailscale.state",
        HostError::Ip { .. } | HostError::OtherTailnet { .. } | HostError::ShortUnasked { .. } => {
            "host.policy"
        }
    };
    let check = Check::failure(id, error);
    let detail = format!("{} (from {})", check.detail, target.origin);
    Check { detail, ..check }.hint(hint)
}

/// A break-glass target that is none of the tailnet's nodes.
fn outside(settings: &Settings, checks: &mut Vec<Check>) -> Option<Place> {
    let host = &settings.host_vps.host;
    if settings.preflight_mode.value == PreflightMode::Always {
        let detail = format!(
            "`{host}` is not in the tailnet, and preflight.mode = always ({})",
            settings.preflight_mode.origin
        );
        checks.push(
            Check::fail("host.policy", Exit::HostPolicy, detail)
                .hint("ua-preflight --break-glass --preflight auto"),
        );
        return None;
    }
    checks
        .push(Check::warn("host.policy", format!("`{host}` is not in the tailnet; allowed by break-glass")));
    Some(Place::unvouched(host))
}

/// Node keys of both ends: expired is a failure, soon is a warning.
fn keys(settings: &Settings, tailnet: &Tailnet, node: &Peer, myself: bool, checks: &mut Vec<Check>) -> bool {
    let now = Timestamp::now();
    if node.expired || node.key_expiry.is_some_and(|at| at <= now) {
        let detail = format!("the node key of `{}` has expired{}", node.name(), on_day(node.key_expiry));
        let hint = format!("sudo tailscale up --force-reauth  # on the console of `{}`", node.label());
        checks.push(Check::fail("peer.key", Exit::PeerUnreachable, detail).hint(hint));
        return false;
    }
    let own = (!myself).then_some(("self.key", tailnet.myself()));
    for (id, node) in [Some(("peer.key", node)), own].into_iter().flatten() {
        let limit = settings.preflight_key_expiry_warning.value;
        let left = node.key_expiry.map(|at| at.duration_since(now).unsigned_abs());
        checks.push(match left {
            None => Check::pass(id, format!("the node key of `{}` does not expire", node.label())),
            Some(left) => {
                let left_days = left.as_secs() / 86_400;
                let detail = format!(
                    "the node key of `{}` expires in {}{}",
                    node.label(),
                    days(left_days),
                    on_day(node.key_expiry)
                );
                if left < limit {
                    Check::warn(id, detail)
                        .hint(format!("sudo tailscale up --force-reauth  # on `{}`", node.label()))
                } else {
                    Check::pass(id, detail)
                }
            }
        });
    }
    true
}

/// Asks for one pong, a few times. What control thinks of the peer (`Online`) is no evidence and is not looked at.
pub fn pong(name: &str, addresses: &[IpAddr], limit: Duration) -> Vec<Check> {
    let start = Instant::now();
    let Some(ip) = addresses.first().copied() else {
        let check = Check::fail("peer.reachable", Exit::PeerUnreachable, format!("`{name}` has no address"));
        return vec![check.hint("tailscale status")];
    };
    let mut said = String::new();
    // All tries together stay under the limit, with room for starting the program.
    let each = limit.mul_f64(0.9) / TRIES;
    for _ in 0..TRIES {
        match tailscale::ping(ip, each) {
            Ok(Ok(pong)) => {
                let reached = |how: String| format!("pong from {ip} {how} in {}", pong.round_trip);
                return match &pong.path {
                    Path::Direct(at) => {
                        vec![
                            Check::pass("peer.reachable", reached(format!("straight from {at}")))
                                .since(start),
                        ]
                    }
                    Path::Relayed(relay) => vec![
                        Check::pass("peer.reachable", reached(format!("by relay `{relay}`"))).since(start),
                        Check::warn(
                            "peer.path",
                            format!("no direct path: everything goes through relay `{relay}`"),
                        )
                        .hint(format!("tailscale ping {name}")),
                    ],
                };
            }
            Ok(Err(words)) => said = words,
            Err(TailscaleError::Run(error @ RunError::Interrupted { .. })) => {
                return vec![Check::failure("peer.reachable", error).since(start)];
            }
            Err(error) => return vec![Check::failure("peer.reachable", error).since(start)],
        }
    }
    let detail = format!("no pong from `{name}` ({ip}) in {TRIES} tries: {said}");
    let check = Check::fail("peer.reachable", Exit::PeerUnreachable, detail);
    vec![
        check
            .hint("ua-preflight --wait 5m  # if it stays away: the runbook incident_tailnet_down")
            .since(start),
    ]
}

/// `srv` is `srv.tail.ts.net`.
fn named(host: &Host, node: &Peer) -> String {
    match host {
        Host::Name(_) => format!("`{host}` is a node of this tailnet"),
        Host::Short(_) | Host::Ip(_) => format!("`{host}` is `{}`", node.name()),
    }
}

/// The right target, put where the wrong one came from.
fn replacement(target: &Sourced<RemoteHost>, name: Option<&str>) -> String {
    let Some(name) = name else { return "tailscale status".to_owned() };
    let right = format!("{}@{name}", target.user);
    match &target.origin {
        Origin::Flag(_) => format!("ua-preflight --host {right}"),
        Origin::Env(variable) => format!("export {variable}={right}"),
        Origin::Project(path, line) | Origin::User(path, line) => {
            format!("ua-preflight {right}  # then write it to {}:{line}", path.display())
        }
        Origin::Profile(_) | Origin::Default => format!("export UA_VPS_HOST={right}"),
    }
}

/// `1 day`, `3 days`.
fn days(days: u64) -> String {
    if days == 1 { "1 day".to_owned() } else { format!("{days} days") }
}

/// ` (2026-02-21)`, or nothing.
fn on_day(at: Option<Timestamp>) -> String {
    at.map_or(String::new(), |at| format!(" ({})", at.strftime("%Y-%m-%d")))
}
