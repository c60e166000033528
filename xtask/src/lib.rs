//! The project's own chores: the machine's setup, the lab, and what runs in it.

pub mod app;
pub mod bench;
pub mod cache;
pub mod cmd;
pub mod demo;
pub mod dist;
pub mod lab;
mod matrix;
mod picture;
pub mod repo;
pub mod setup;
pub mod ui;
pub mod verify;
