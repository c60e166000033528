//! Is the VPS reachable the right way, over the tailnet?
//!
//! [`check`] asks from the inside out and stops at the first thing that makes the rest meaningless: the policy for
//! targets, the program, the daemon, its state, the one peer that is meant, its key; then, at the same time, one pong,
//! the name on this machine, and with `--ssh` the server behind the port. Whoever needs the VPS calls it first and
//! goes on with the [`Place`] it found.

mod command;
mod dns;
mod server;

use std::time::{Duration, Instant};

use ua_common::exit::Exit;
use ua_common::interrupt;
use ua_common::output::Printer;
use ua_common::place::{self, Found, Place, Way};
use ua_common::report::{Check, Verdict};
use ua_common::settings::Settings;
use ua_common::tailnet::Tailnet;

pub use command::tool;

/// What to look at beyond the peer itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Also see which SSH server answers.
    pub ssh: bool,
    /// Keep asking this long while the peer may still come.
    pub wait: Option<Duration>,
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
    let place = match place::way(settings, &mut checks) {
        Way::Refused => None,
        Way::Form(place) => Some(place),
        Way::Tailnet => match options.wait {
            None => observe(settings, out, options, &mut checks),
            Some(limit) => wait(settings, out, options, limit, &mut checks),
        },
    };
    // A place is only for a run that may go on.
    let failed = checks.iter().any(|check| check.verdict == Verdict::Fail);
    Preflight { checks, place: place.filter(|_| !failed) }
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
    let Found { place, tailnet } = place::look(settings, out, checks)?;
    match tailnet {
        Some(tailnet) => reach(settings, out, options, &tailnet, &place, checks),
        None => {
            checks
                .push(Check::skip("peer.reachable", "a target outside the tailnet is not asked for a pong"));
        }
    }
    Some(place)
}

/// One pong, the name on this machine, and the SSH server, all at once.
fn reach(
    settings: &Settings,
    out: &Printer,
    options: Options,
    tailnet: &Tailnet,
    place: &Place,
    checks: &mut Vec<Check>,
) {
    let limit = settings.preflight_timeout.0;
    let _waiting = out.waiting(format!("waiting for a pong from {}", place.name));
    // These own no child process, so they may run off the main thread (see `Cmd::background`).
    let name = dns::lookup(&place.name);
    let port = place::ssh_port(settings, settings.ssh_auth_mode.value);
    let server =
        options.ssh.then(|| place.addresses.first().map(|ip| server::ask(*ip, port, limit))).flatten();
    if place.myself {
        checks.push(Check::pass("peer.reachable", "the target is this very machine"));
    } else {
        checks.extend(place::pong(&place.name, &place.addresses, limit));
    }
    checks.push(dns::judge(&name, place, tailnet, limit));
    if let Some(server) = server {
        checks.extend(server.judge(settings, place));
    }
    let health = tailnet.health();
    checks.push(if health.is_empty() {
        Check::pass("tailnet.health", "tailscaled warns of nothing")
    } else {
        Check::warn("tailnet.health", format!("tailscaled warns: {}", health.join("; ")))
    });
}
