//! `ssh-keygen`: what is in a key file and in a `known_hosts` file.

use std::io::Read as _;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::run::{Cmd, RunError};
use crate::tool::ssh::SshError;

fn keygen() -> Cmd {
    Cmd::new("ssh-keygen", Duration::from_secs(5))
}

/// Is the key file one that a batch run can use? Looked at before anything is contacted.
pub fn inspect(path: &Path) -> Result<(), SshError> {
    let not_a_key = |said: String| SshError::NotAKey { path: path.to_path_buf(), said };
    let meta = match std::fs::metadata(path) {
        Ok(meta) if meta.is_file() => meta,
        Ok(_) => return Err(not_a_key("it is not a regular file".to_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(SshError::NoKey(path.to_path_buf()));
        }
        Err(error) => return Err(not_a_key(error.to_string())),
    };
    let begin = std::fs::File::open(path).and_then(|mut file| {
        let mut begin = [0; 4];
        file.read_exact(&mut begin).map(|()| begin)
    });
    if begin.is_ok_and(|begin| begin == *b"ssh-" || begin == *b"ecds") {
        return Err(not_a_key("it is the public half".to_owned()));
    }
    // As ssh judges it (`sshkey_perm_ok`): only a file of one's own.
    if meta.uid() == rustix::process::getuid().as_raw() && meta.mode() & 0o077 != 0 {
        return Err(SshError::OpenKey { path: path.to_path_buf(), mode: meta.mode() & 0o7777 });
    }
    // The empty passphrase: nothing is asked, and nothing secret stands on the command line.
    match keygen().args(["-y", "-P", "", "-f"]).arg(path).output() {
        // ssh offers what stands in the file beside it.
        Ok(finished) if finished.code == 0 => match std::fs::read_to_string(public_half(path)) {
            Ok(beside) if body(&beside) != body(&finished.out()) => {
                Err(not_a_key(format!("`{}` is the public half of another key", public_half(path).display())))
            }
            _ => Ok(()),
        },
        Ok(finished) if finished.err().contains("incorrect passphrase") => {
            Err(SshError::Passphrase(path.to_path_buf()))
        }
        Ok(finished) => Err(not_a_key(finished.err())),
        Err(error) => Err(not_a_key(error.to_string())),
    }
}

fn public_half(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".pub");
    name.into()
}

/// A public key without its comment.
fn body(line: &str) -> Vec<&str> {
    line.split_whitespace().take(2).collect()
}

/// A line of a `known_hosts` file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its number, from 1.
    pub line: usize,
    /// `@revoked` or `@cert-authority`.
    pub marker: Option<String>,
    /// The key in its one-line form.
    pub key: String,
}

/// What a `known_hosts` file has of a host; it may store names hashed. A missing file has nothing.
pub fn known(name: &str, file: &Path) -> Result<Vec<Known>, RunError> {
    if !file.exists() {
        return Ok(Vec::new());
    }
    let found = keygen().args(["-F", name, "-f"]).arg(file).output()?.out();
    let mut known = Vec::new();
    let mut line = 0;
    for text in found.lines() {
        // `# Host NAME found: line N`, and maybe a marker in capitals
        if let Some((_, rest)) = text.strip_prefix('#').and_then(|text| text.split_once(" found: line ")) {
            line = rest.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0);
            continue;
        }
        let mut words = text.split_whitespace().peekable();
        let marker = words.next_if(|word| word.starts_with('@')).map(str::to_owned);
        if let (Some(_), Some(kind), Some(body)) = (words.next(), words.next(), words.next()) {
            known.push(Known { line, marker, key: format!("{kind} {body}") });
        }
    }
    Ok(known)
}
