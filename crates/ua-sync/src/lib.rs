//! The mirror: finished workspaces of the VPS, copied whole, proved, and never lost.

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
