//! The checked-in documents say what the code says. `cargo xtask docs` writes them anew by running this with
//! `UA_UPDATE_DOCS` set.
#![allow(clippy::unwrap_used, reason = "tests panic")]

use std::path::Path;

#[track_caller]
fn checked_in(name: &str, made: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name);
    if std::env::var_os("UA_UPDATE_DOCS").is_some() {
        std::fs::write(&path, made).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == made, "docs/{name} is not what the code says; run `cargo xtask docs`");
}

#[test]
fn exit_codes() {
    checked_in("exit-codes.md", &ua_common::exit::markdown());
}

#[test]
fn environment() {
    checked_in("environment.md", &ua_common::settings::markdown());
}
