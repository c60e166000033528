//! Everyday verbs for the VPS: look, restart, run, read, mend.
//!
//! Each verb asks the VPS by a script of its own, over the one connection that [`session`] opens as every other tool does, in two
//! execs at most; what is typed is judged before anybody is contacted.

mod command;
mod doctor;
mod files;
mod legacy;
mod logs;
mod perms;
mod push;
mod run;
mod runs;
mod session;
mod settings;
mod status;
mod units;

pub use command::tool;
