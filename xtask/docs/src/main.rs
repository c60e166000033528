//! Writes what is made from the code. `cargo xtask docs` and `cargo xtask dist` run it.

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;

/// Write what is made from the code.
#[derive(Parser)]
enum Work {
    /// The documents, below this directory
    Documents { docs: PathBuf },
    /// The completions and the units of users, below this root of a file system
    Package { root: PathBuf },
}

fn main() -> Result<()> {
    match Work::parse() {
        Work::Documents { docs } => ua_docs::write_documents(&docs),
        Work::Package { root } => {
            ua_docs::write_completions(&root)?;
            ua_docs::write_units(&root)
        }
    }
}
