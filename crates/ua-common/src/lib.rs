//! The vocabulary that every `ua-*` tool shares.
//!
//! A run reads top to bottom: [`cli`] takes the arguments, [`settings`] layers them over environment and files,
//! [`host`] and [`place`] say which machine is meant by looking at one [`tailnet::Tailnet`] snapshot, [`run`],
//! [`transport`] and [`http`] are the only ways to touch the world, [`tool`] knows the programs we wrap, and the outcome
//! is a [`report::Report`] that [`output::Printer`] prints and whose [`exit::Exit`] the process returns.

pub mod app;
pub mod cli;
pub mod complete;
pub mod env_contract;
pub mod env_file;
pub mod error;
pub mod exit;
pub mod glob;
pub mod host;
pub mod host_keys;
pub mod http;
pub mod interrupt;
pub mod ledger;
pub mod ops;
pub mod output;
pub mod place;
pub mod profile;
pub mod report;
pub mod run;
pub mod settings;
pub mod state;
pub mod subject;
pub mod tailnet;
pub mod tool;
pub mod transport;
