//! `ssh-keyscan`: the host keys that a server shows. What it shows is no proof of who it is.

use std::time::Duration;

use crate::run::{Cmd, RunError};
use crate::tool::ssh::Target;

/// The keys that the target's server shows, in their one-line form; empty if none answers.
pub fn scan(target: &Target) -> Result<Vec<String>, RunError> {
    let limit = target.connect_timeout.as_secs().max(1);
    let dialled = target.addresses.first().map_or_else(|| target.name.clone(), ToString::to_string);
    let scan = Cmd::new("ssh-keyscan", Duration::from_secs(limit * 4 + 5))
        .args(["-T", &limit.to_string(), "-p", &target.port.to_string(), "-t", "ed25519,ecdsa,rsa", "--"])
        .arg(dialled)
        .output()?;
    let key = |line: &str| {
        let (_, key) = line.split_once(' ')?;
        crate::tool::ssh::fingerprint(key).map(|_| key.to_owned())
    };
    Ok(scan.out().lines().filter(|line| !line.starts_with('#')).filter_map(key).collect())
}
