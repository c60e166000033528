//! Phrases for a person.

use jiff::Timestamp;
use ua_common::host::{Host, RemoteHost};
use ua_common::settings::{Origin, Sourced};
use ua_common::tailnet::Peer;

/// `srv` is `srv.tail.ts.net`.
pub fn named(host: &Host, node: &Peer) -> String {
    match host {
        Host::Name(_) => format!("`{host}` is a node of this tailnet"),
        Host::Short(_) | Host::Ip(_) => format!("`{host}` is `{}`", node.name()),
    }
}

/// The right target, put where the wrong one came from.
pub fn replacement(target: &Sourced<RemoteHost>, name: Option<&str>) -> String {
    let Some(name) = name else { return "tailscale status".to_owned() };
    let right = format!("{}@{name}", target.user);
    match &target.origin {
        Origin::Flag(flag) if flag == "HOST" => format!("ua-preflight {right}"),
        Origin::Flag(flag) => format!("ua-preflight {flag} {right}"),
        Origin::Env(variable) => format!("export {variable}={right}"),
        Origin::Project(path, line) | Origin::User(path, line) => {
            format!("ua-preflight {right}  # then write it to {}:{line}", path.display())
        }
        Origin::Default => format!("export UA_VPS_HOST={right}"),
    }
}

/// `1 day`, `3 days`.
pub fn days(days: u64) -> String {
    if days == 1 { "1 day".to_owned() } else { format!("{days} days") }
}

/// ` (2026-02-21)`, or nothing.
pub fn on_day(at: Option<Timestamp>) -> String {
    at.map_or(String::new(), |at| format!(" ({})", at.strftime("%Y-%m-%d")))
}
