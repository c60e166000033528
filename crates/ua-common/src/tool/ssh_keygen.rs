//! `ssh-keygen`: what is in a key file and in a `known_hosts` file.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use crate::run::{Cmd, RunError};
use crate::tool::ssh::SshError;

fn keygen() -> Cmd {
    Cmd::new("ssh-keygen", Duration::from_secs(5))
}

/// Is the key file one that a batch run can use? Looked at before anything is contacted.
pub fn inspect(path: &Path) -> Result<(), SshError> {
    let meta = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file);
    let Some(meta) = meta else { return Err(SshError::NoKey(path.to_path_buf())) };
    // As ssh judges it (`sshkey_perm_ok`): only a file of one's own.
    if meta.uid() == rustix::process::getuid().as_raw() && meta.mode() & 0o077 != 0 {
        return Err(SshError::OpenKey { path: path.to_path_buf(), mode: meta.mode() & 0o7777 });
    }
    // The empty passphrase: nothing is asked, and nothing secret stands on the command line.
    let keygen = keygen().args(["-y", "-P", "", "-f"]).arg(path);
    match keygen.output() {
        Ok(finished) if finished.code == 0 => Ok(()),
        Ok(finished) if finished.err().contains("incorrect passphrase") => {
            Err(SshError::Passphrase(path.to_path_buf()))
        }
        Ok(finished) => Err(SshError::NotAKey { path: path.to_path_buf(), said: finished.err() }),
        Err(error) => Err(SshError::NotAKey { path: path.to_path_buf(), said: error.to_string() }),
    }
}

/// The keys that a `known_hosts` file has of a host, in their one-line form; it may store names hashed.
pub fn known(name: &str, file: &Path) -> Result<Vec<String>, RunError> {
    let found = keygen().args(["-F", name, "-f"]).arg(file).output()?;
    let key = |line: &str| {
        let mut words = line.split_whitespace().skip_while(|word| word.starts_with('@')).skip(1);
        Some(format!("{} {}", words.next()?, words.next()?))
    };
    Ok(found.out().lines().filter(|line| !line.starts_with('#')).filter_map(key).collect())
}

/// Takes a host out of a `known_hosts` file; the file as it was is kept beside it as `FILE.old`.
pub fn forget(name: &str, file: &Path) -> Result<(), RunError> {
    keygen().args(["-R", name, "-f"]).arg(file).output().map(drop)
}
