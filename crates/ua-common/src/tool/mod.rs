//! The programs we wrap, one file each: build the command, parse its output, own its error.

pub mod git;
pub mod rsync;
pub mod ssh;
pub mod ssh_keygen;
pub mod ssh_keyscan;
pub mod systemd;
pub mod tailscale;
