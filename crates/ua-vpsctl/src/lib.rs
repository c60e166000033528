//! Everyday verbs for the VPS: look, restart, run, read, mend.
//!
//! Each verb is one file: what it asks the VPS by a script of its own, what it makes of the answer, and how that is shown.
//! All of them go through [`session`], so that they are let in as every other tool is.

mod command;
pub mod session;
mod settings;
pub mod units;

pub use command::tool;
