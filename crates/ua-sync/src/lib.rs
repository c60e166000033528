//! The mirror: finished workspaces of the VPS, copied whole, proved, and never lost.
mod artifacts;
pub mod config;
pub mod id;
pub mod listing;
mod lock;
pub mod manifest;
pub mod marker;
pub mod mirror;
pub mod plan;
mod progress;
pub mod prune;
pub mod ready;
pub mod run;
pub mod staging;
pub mod transfer;
pub mod tree;

pub mod timer;
pub mod toggle;
pub mod unit;

use clap::Command;
use ua_common::cli::Tool;
use ua_common::exit::Exit;
use ua_common::report::Lane;

/// `ua-sync`.
pub fn tool() -> Tool {
    let command = Command::new("ua-sync").about("Mirror the finished workspaces of the VPS");
    Tool::new("ua-sync", Lane::Vps, command, |_, _| Ok(Exit::Ok))
}
