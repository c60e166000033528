//! How we prove to the VPS who we are, and how that changes from keys to Tailscale SSH without a leap of faith.
//!
//! [`prove`] opens a connection in a mode and reads from ssh's own log that it was that mode. [`canary`] does so with
//! everything that the tools need of SSH and writes what it saw into the [`ledger`]; when that adds up to the rule,
//! `cutover` lets [`switch`] change one line of the user's settings, which `rollback` changes back without asking
//! anybody. [`client`] makes scripts that are not ours connect in the same way, and [`known_hosts`] is about whose
//! word a host key has.

mod canary;
mod client;
mod command;
mod known_hosts;
mod ledger;
mod prove;
mod switch;

pub use command::tool;
