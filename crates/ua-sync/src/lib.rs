//! The mirror: finished workspaces of the VPS, copied whole, proved, and never lost.
//!
//! [`listing`] asks the VPS once for everything, [`ready`] judges by a pure function which runs have ended, [`plan`]
//! compares that with the [`manifest`] and the [`mirror`], [`transfer`] copies what is missing over the one connection
//! into [`staging`], where it is proved and exchanged in. [`run`] is that story from its beginning to its end;
//! [`prune`] deletes on the VPS what the mirror holds, and only when it was asked in so many words.

mod artifacts;
mod command;
pub mod config;
pub mod id;
mod legacy;
mod list;
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
mod session;
pub mod staging;
pub mod status;
mod threads;
pub mod timer;
pub mod toggle;
pub mod transfer;
pub mod tree;
pub mod unit;
mod watch;

pub use command::tool;
