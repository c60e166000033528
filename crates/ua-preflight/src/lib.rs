//! Is the VPS reachable the right way, over the tailnet?
//!
//! [`check`] asks from the inside out and stops at the first thing that makes the rest meaningless: the policy for
//! targets, the program, the daemon, its state, the one peer that is meant, its key; then, at the same time, one pong,
//! the name on this machine, and with `--ssh` the server behind the port. Whoever needs the VPS calls it first and
//! goes on with the [`Place`] it found.

mod command;
mod dns;
mod server;
mod words;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use ua_common::exit::Exit;
use ua_common::host::{HostError, Resolved};
use ua_common::interrupt;
use ua_common::output::Printer;
use ua_common::report::{Check, Verdict};
use ua_common::run::{RunError, which};
use ua_common::settings::value::{AuthMode, PreflightMode};
use ua_common::settings::{Settings, SettingsError};
use ua_common::tailnet::{Peer, State, Tailnet};
use ua_common::tool::ssh::Target;
use ua_common::tool::tailscale::{self, Path, TailscaleError};

pub use command::tool;

/// How often the peer is asked for a pong before it counts as away.
const TRIES: u32 = 3;

/// What to look at beyond the peer itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Also see which SSH server answers.
    pub ssh: bool,
    /// Keep asking this long while the peer may still come.
    pub wait: Option<Duration>,
}

/// Where the target is, once it may be spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its full name.
    pub name: String,
    /// Its tailnet address; without one the name is dialled.
    pub ip: Option<IpAddr>,
    /// Is it this very machine?
    pub myself: bool,
    /// Public keys of its Tailscale SSH server.
    pub host_keys: Vec<String>,
}

impl Place {
    fn of(node: &Peer, myself: bool) -> Self {
        Self { name: node.name().to_owned(), ip: node.ip(), myself, host_keys: node.ssh_host_keys.clone() }
    }

    /// What an SSH connection to it needs to know.
    pub fn ssh_target(&self, settings: &Settings) -> Target {
        Target {
            user: settings.host_vps.user.clone(),
            name: self.name.clone(),
            ip: self.ip,
            port: ssh_port(settings),
            auth: settings.ssh_auth_mode.value,
            key: settings.ssh_key.value.clone(),
            host_keys: self.host_keys.clone(),
            connect_timeout: settings.ssh_connect_timeout.0,
        }
    }
}

fn ssh_port(settings: &Settings) -> u16 {
    match settings.ssh_auth_mode.value {
        AuthMode::Keys => settings.ssh_keys_port.0,
        AuthMode::TailscaleSsh => 22,
    }
}

/// What was observed, and where to go on if the run may.
#[derive(Clone, Debug)]
pub struct Preflight {
    /// The observations, in order.
    pub checks: Vec<Check>,
    /// Only if nothing failed.
    pub place: Option<Place>,
}

/// Observes. Never contacts anything but tailscaled, the peer and this machine's resolver.
pub fn check(settings: &Settings, out: &Printer, options: Options) -> Preflight {
    let mut checks = Vec::new();
    if settings.preflight_mode.value == PreflightMode::Always && settings.preflight_skip.value {
        let said = |what: &str, origin| format!("{what} ({origin})");
        let contradiction = SettingsError::Contradiction {
            first: said("preflight.mode = always", &settings.preflight_mode.origin),
            second: said("preflight.skip = true", &settings.preflight_skip.origin),
            why: "a preflight that is always made cannot be skipped",
        };
        checks.push(Check::failure("preflight", contradiction).hint("ua-preflight --preflight auto"));
        return Preflight { checks, place: None };
    }
    if settings.host_break_glass.value {
        let detail =
            format!("break-glass is on ({}): any target is allowed", settings.host_break_glass.origin);
        checks.push(Check::warn("host.break_glass", detail));
    }
    let off = match settings.preflight_mode.value {
        _ if settings.preflight_skip.value => Some(&settings.preflight_skip.origin),
        PreflightMode::Never => Some(&settings.preflight_mode.origin),
        PreflightMode::Auto | PreflightMode::Always => None,
    };
    let place = match off {
        Some(origin) => {
            checks.push(Check::skip("preflight", format!("the tailnet is not checked, by {origin}")));
            unseen(settings, &mut checks)
        }
        None => match options.wait {
            None => observe(settings, out, options, &mut checks),
            Some(limit) => wait(settings, out, options, limit, &mut checks),
        },
    };
    // A place is only for a run that may go on.
    let failed = checks.iter().any(|check| check.verdict == Verdict::Fail);
    Preflight { checks, place: place.filter(|_| !failed) }
}

/// The target by its form alone.
fn unseen(settings: &Settings, checks: &mut Vec<Check>) -> Option<Place> {
    let host = &settings.host_vps.host;
    match host.judge_form(settings.host_break_glass.value) {
        Ok(()) => {
            checks.push(Check::pass("host.policy", format!("`{host}` has the form that is asked for")));
            let ip = host.to_string().parse().ok();
            Some(Place { name: host.to_string(), ip, myself: false, host_keys: Vec::new() })
        }
        Err(error) => {
            checks.push(policy(settings, error));
            None
        }
    }
}

/// Observes again and again while what failed may still mend itself.
fn wait(
    settings: &Settings,
    out: &Printer,
    options: Options,
    limit: Duration,
    checks: &mut Vec<Check>,
) -> Option<Place> {
    let (start, before) = (Instant::now(), checks.len());
    let bar = out.spinner(format!("waiting for {}", settings.host_vps.value));
    loop {
        checks.truncate(before);
        let place = observe(settings, out, options, checks);
        let failure = checks.iter().find(|check| check.verdict == Verdict::Fail);
        let may_mend = |check: &&Check| {
            let known = !matches!(check.id.as_ref(), "peer.known" | "peer.key");
            matches!(
                check.exit,
                Exit::TailscaleDown | Exit::PeerUnreachable | Exit::Dns | Exit::SshUnreachable
            ) && known
        };
        let Some(failure) = failure.filter(may_mend) else { return place };
        if start.elapsed() >= limit || interrupt::requested() {
            return None;
        }
        bar.set_message(format!("waiting for {}: {}", settings.host_vps.value, failure.detail));
        std::thread::sleep(Duration::from_millis(500).min(limit.saturating_sub(start.elapsed())));
    }
}

/// One pass over everything.
fn observe(settings: &Settings, out: &Printer, options: Options, checks: &mut Vec<Check>) -> Option<Place> {
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
        Resolved::Outside => return outside(settings, checks),
    };
    checks.push(Check::pass("host.policy", words::named(host, node)));
    if !keys(settings, &tailnet, node, myself, checks) {
        return None;
    }
    reach(settings, out, options, &tailnet, node, myself, checks);
    Some(Place::of(node, myself))
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
    let hint = words::replacement(target, error.replacement());
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
    checks.push(Check::skip("peer.reachable", "a target outside the tailnet is not asked for a pong"));
    let ip = host.to_string().parse().ok();
    Some(Place { name: host.to_string(), ip, myself: false, host_keys: Vec::new() })
}

/// Node keys of both ends: expired is a failure, soon is a warning.
fn keys(settings: &Settings, tailnet: &Tailnet, node: &Peer, myself: bool, checks: &mut Vec<Check>) -> bool {
    let now = Timestamp::now();
    if node.expired || node.key_expiry.is_some_and(|at| at <= now) {
        let detail =
            format!("the node key of `{}` has expired{}", node.name(), words::on_day(node.key_expiry));
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
                let days = left.as_secs() / 86_400;
                let detail = format!(
                    "the node key of `{}` expires in {}{}",
                    node.label(),
                    words::days(days),
                    words::on_day(node.key_expiry)
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

/// One pong, the name on this machine, and the SSH server, all at once.
fn reach(
    settings: &Settings,
    out: &Printer,
    options: Options,
    tailnet: &Tailnet,
    node: &Peer,
    myself: bool,
    checks: &mut Vec<Check>,
) {
    let limit = settings.preflight_timeout.0;
    let _waiting = out.waiting(format!("waiting for a pong from {}", node.name()));
    // These own no child process, so they may run off the main thread (see `Cmd::background`).
    let name = dns::lookup(node.name());
    let server =
        options.ssh.then(|| node.ip().map(|ip| server::ask(ip, ssh_port(settings), limit))).flatten();
    if myself {
        checks.push(Check::pass("peer.reachable", "the target is this very machine"));
    } else {
        checks.extend(pong(node, limit));
    }
    checks.push(dns::judge(&name, node, tailnet, limit));
    if let Some(server) = server {
        checks.extend(server.judge(settings, node));
    }
    let health = tailnet.health();
    checks.push(if health.is_empty() {
        Check::pass("tailnet.health", "tailscaled warns of nothing")
    } else {
        Check::warn("tailnet.health", format!("tailscaled warns: {}", health.join("; ")))
    });
}

/// Asks for one pong, a few times. What control thinks of the peer (`Online`) is no evidence and is not looked at.
fn pong(node: &Peer, limit: Duration) -> Vec<Check> {
    let start = Instant::now();
    let Some(ip) = node.ip() else {
        let check =
            Check::fail("peer.reachable", Exit::PeerUnreachable, format!("`{}` has no address", node.name()));
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
                        .hint(format!("tailscale ping {}", node.name())),
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
    let detail = format!("no pong from `{}` ({ip}) in {TRIES} tries: {said}", node.name());
    let check = Check::fail("peer.reachable", Exit::PeerUnreachable, detail);
    vec![check.hint("ua-preflight --wait 5m").since(start)]
}
