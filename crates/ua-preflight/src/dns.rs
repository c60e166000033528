//! Does this machine resolve the peer's name, and to the peer?

use std::net::{IpAddr, ToSocketAddrs};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use ua_common::exit::Exit;
use ua_common::place::Place;
use ua_common::report::Check;
use ua_common::tailnet::Tailnet;
use ua_common::tool::tailscale;

/// Where tailscaled answers for names.
const QUAD_100: &str = "100.100.100.100";

/// A question to the system's resolver that is under way.
pub struct Lookup {
    start: Instant,
    answer: Receiver<(std::io::Result<Vec<IpAddr>>, Duration)>,
}

/// Asks the system's resolver; a program that is linked to nothing has `/etc/resolv.conf` and `/etc/hosts` of it, and
/// no `nsswitch.conf`. It knows no time limit, so it is asked in a thread that is left behind if it does not answer.
pub fn lookup(name: &str) -> Lookup {
    let (send, answer) = mpsc::channel();
    let (name, start) = (name.to_owned(), Instant::now());
    std::thread::spawn(move || {
        let found = (name.as_str(), 0).to_socket_addrs().map(|found| found.map(|found| found.ip()).collect());
        // Nobody listens any more once the limit is over.
        let _late = send.send((found, start.elapsed()));
    });
    Lookup { start, answer }
}

/// Judges the answer, and where it is wrong says whether it is the tailnet, this machine's choice, or its resolver.
pub fn judge(lookup: &Lookup, place: &Place, tailnet: &Tailnet, limit: Duration) -> Check {
    let left = limit.saturating_sub(lookup.start.elapsed());
    let (answer, took) = match lookup.answer.recv_timeout(left) {
        Ok((answer, took)) => (Some(answer), took),
        Err(_) => (None, limit),
    };
    let name = &place.name;
    let trouble = match answer {
        Some(Ok(found)) if !found.is_empty() && found.iter().all(|ip| place.addresses.contains(ip)) => {
            let found: Vec<String> = found.iter().map(ToString::to_string).collect();
            return Check::pass("dns.resolves", format!("`{name}` is {}", found.join(", "))).took(took);
        }
        Some(Ok(found)) => {
            let found: Vec<String> = found.iter().map(ToString::to_string).collect();
            format!("`{name}` resolves to {}, which is not the peer's address", found.join(", "))
        }
        Some(Err(_)) => format!("`{name}` does not resolve on this machine"),
        None => {
            format!("this machine's resolver did not answer for `{name}` within {} s", limit.as_secs_f64())
        }
    };
    let (cause, hint) = cause(tailnet, limit);
    Check::fail("dns.resolves", Exit::Dns, format!("{trouble}: {cause}")).hint(hint).took(took)
}

/// Whose fault it is, from the widest to the narrowest, and the command that mends it.
fn cause(tailnet: &Tailnet, limit: Duration) -> (String, &'static str) {
    if tailnet.magic_dns() == Some(false) {
        return ("MagicDNS is off for the whole tailnet".to_owned(), "tailscale dns status");
    }
    if tailscale::accepts_dns(limit) == Some(false) {
        let cause = "this machine does not take its DNS from the tailnet (accept-dns is off)";
        return (cause.to_owned(), "sudo tailscale set --accept-dns=true");
    }
    match nameservers() {
        Some(servers) if servers.iter().any(|server| server == QUAD_100) => (
            format!("/etc/resolv.conf asks {QUAD_100}, but the answer is wrong or missing"),
            "sudo systemctl restart tailscaled",
        ),
        Some(servers) if servers.is_empty() => {
            ("/etc/resolv.conf names no server".to_owned(), "sudo systemctl restart tailscaled")
        }
        // systemd-resolved routes names of the tailnet itself.
        Some(servers) if servers.iter().all(|server| server == "127.0.0.53") => (
            "systemd-resolved does not pass it on to tailscaled".to_owned(),
            "sudo systemctl restart systemd-resolved tailscaled",
        ),
        Some(servers) => (
            format!("/etc/resolv.conf asks {} and not tailscaled ({QUAD_100})", servers.join(", ")),
            "sudo systemctl restart tailscaled",
        ),
        None => ("/etc/resolv.conf cannot be read".to_owned(), "ls -l /etc/resolv.conf"),
    }
}

fn nameservers() -> Option<Vec<String>> {
    let text = std::fs::read_to_string("/etc/resolv.conf").ok()?;
    let server = |line: &str| line.trim().strip_prefix("nameserver").map(|rest| rest.trim().to_owned());
    Some(text.lines().filter_map(server).filter(|server| !server.is_empty()).collect())
}
