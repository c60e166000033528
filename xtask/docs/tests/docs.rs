//! What is checked in is what the code says, and what the code says is taken by whom it is for.
#![allow(clippy::unwrap_used, reason = "tests panic")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs")
}

#[test]
fn the_checked_in_documents_are_what_the_code_says() {
    let made = ua_docs::documents().unwrap();
    for (path, text) in &made {
        let found = std::fs::read_to_string(docs().join(path)).unwrap_or_default();
        assert!(found == *text, "docs/{path} is not what the code says; run `cargo xtask docs`");
    }
    let pages: BTreeSet<_> = made.iter().filter_map(|(path, _)| path.strip_prefix("man/")).collect();
    let found = std::fs::read_dir(docs().join("man")).unwrap();
    for page in found.map(|entry| entry.unwrap().file_name().into_string().unwrap()) {
        assert!(pages.contains(page.as_str()), "docs/man/{page} is of no verb; run `cargo xtask docs`");
    }
}

/// Every document that a person reads, with its path.
fn documents() -> Vec<(PathBuf, String)> {
    let root = docs().join("..");
    let dirs = ["", "docs", "runbooks"].map(|dir| root.join(dir));
    let entries = dirs.iter().flat_map(|dir| std::fs::read_dir(dir).unwrap());
    let paths = entries.map(|entry| entry.unwrap().path());
    let documents = paths.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    documents.map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect()
}

#[test]
fn every_link_and_every_path_of_the_documents_leads_somewhere() {
    let mut links = 0;
    for (path, text) in documents() {
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
        for target in targets.filter(|target| !target.is_empty() && !target.contains("://")) {
            links += 1;
            assert!(path.parent().unwrap().join(target).exists(), "{}: no `{target}`", path.display());
        }
    }
    assert!(links > 10);
    let architecture = std::fs::read_to_string(docs().join("architecture.md")).unwrap();
    let whole = ["crates/ua-", "xtask/", "tests/"];
    for path in architecture.split('`').skip(1).step_by(2) {
        if whole.iter().any(|start| path.starts_with(start)) {
            assert!(docs().join("..").join(path).exists(), "docs/architecture.md: no `{path}`");
        }
    }
}
