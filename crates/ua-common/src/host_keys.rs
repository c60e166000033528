//! The private `known_hosts`: host keys as the tailnet gives them, and since when it has given them.
//!
//! An ordinary `known_hosts` file, whose comment field holds the time at which a key was first given. The tailnet may
//! add and retire keys of a host; when none of the recorded ones is left, somebody has to look before we go on.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::error::Fact;
use crate::exit::Exit;
use crate::tool::ssh::fingerprint;

/// A key of a host, as recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The key in its one-line form, without a comment.
    pub key: String,
    /// When the tailnet first gave it.
    pub since: String,
}

/// Why the keys that the tailnet gives cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HostKeysError {
    /// Not a public key: a control server must not write lines of its own into our files.
    #[error("the tailnet gives a host key of `{name}` that is none: `{}`", .key.escape_debug())]
    Invalid {
        /// The host.
        name: String,
        /// What was given.
        key: String,
    },
    /// None of the recorded keys is left.
    #[error("the tailnet gives other host keys of `{name}` than before: now {now}; {before}")]
    Changed {
        /// The host.
        name: String,
        /// Fingerprints of the present ones.
        now: String,
        /// Fingerprints of the recorded ones, and since when.
        before: String,
    },
    /// The file cannot be read or written.
    #[error("cannot keep host keys in `{}`", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl Fact for HostKeysError {
    fn exit(&self) -> Exit {
        match self {
            Self::Invalid { .. } | Self::Changed { .. } => Exit::HostKey,
            Self::File { .. } => Exit::Usage,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Invalid { .. } => "tailscale status --json".to_owned(),
            Self::Changed { name, .. } => format!(
                "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub  # on the console of `{name}`; if it shows the new one: ua-ssh-auth known-hosts --refresh"
            ),
            Self::File { path, .. } => format!("ls -ld {}", path.parent().unwrap_or(path).display()),
        })
    }
}

/// The file, in our state directory.
#[derive(Clone, Debug)]
pub struct HostKeys {
    path: PathBuf,
}

impl HostKeys {
    /// The one below `state`.
    pub fn below(state: &Path) -> Self {
        Self { path: state.join("known_hosts") }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is recorded of a host.
    pub fn of(&self, name: &str) -> Result<Vec<Recorded>, HostKeysError> {
        let lines = self.lines()?;
        Ok(lines.iter().filter(|line| is_of(line, name)).filter_map(|line| recorded(line)).collect())
    }

    /// Records what the tailnet gives now. Refused when no recorded key is left, unless `replace` is said.
    pub fn record(
        &self,
        name: &str,
        addresses: &[IpAddr],
        given: &[String],
        replace: bool,
    ) -> Result<(), HostKeysError> {
        let keys = given.iter().map(|key| one_line(name, key)).collect::<Result<Vec<String>, _>>()?;
        // One writer at a time, so that two runs do not lose each other's lines.
        let lock = self.lock().map_err(|source| self.failed(source))?;
        let lines = self.lines()?;
        let before = self.of(name)?;
        let kept = before.iter().any(|recorded| keys.contains(&recorded.key));
        if !before.is_empty() && !kept && !replace {
            let now = keys.iter().filter_map(|key| fingerprint(key)).collect::<Vec<_>>().join(", ");
            return Err(HostKeysError::Changed { name: name.to_owned(), now, before: words(&before) });
        }
        let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let names = std::iter::once(name.to_owned())
            .chain(addresses.iter().map(ToString::to_string))
            .collect::<Vec<_>>();
        let mut new: Vec<String> = lines.iter().filter(|line| !is_of(line, name)).cloned().collect();
        new.extend(keys.iter().map(|key| {
            let since = before.iter().find(|recorded| recorded.key == *key).map(|recorded| &recorded.since);
            format!("{} {key} {}", names.join(","), since.unwrap_or(&now))
        }));
        if new != lines {
            crate::state::write(&self.path, &(new.join("\n") + "\n"), 0o600)
                .map_err(|source| self.failed(source))?;
        }
        drop(lock);
        Ok(())
    }

    fn lines(&self) -> Result<Vec<String>, HostKeysError> {
        match std::fs::read_to_string(&self.path) {
            Ok(text) => Ok(text.lines().map(str::to_owned).collect()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(source) => Err(self.failed(source)),
        }
    }

    fn lock(&self) -> std::io::Result<std::fs::File> {
        let dir = std::fs::File::open(self.path.parent().unwrap_or(Path::new("/")))?;
        crate::state::lock(&dir)?;
        Ok(dir)
    }

    fn failed(&self, source: std::io::Error) -> HostKeysError {
        HostKeysError::File { path: self.path.clone(), source }
    }
}

/// `since 2026-02-21 it was ssh-ed25519 SHA256:…`.
pub fn words(recorded: &[Recorded]) -> String {
    let one = |recorded: &Recorded| {
        Some(format!("since {} it gave {}", recorded.since, fingerprint(&recorded.key)?))
    };
    recorded.iter().filter_map(one).collect::<Vec<_>>().join(", ")
}

/// Type and body only, as the key itself says them, so that nothing else can come along.
fn one_line(name: &str, key: &str) -> Result<String, HostKeysError> {
    let invalid = || HostKeysError::Invalid { name: name.to_owned(), key: key.to_owned() };
    let mut parsed = ssh_key::PublicKey::from_openssh(key).map_err(|_| invalid())?;
    parsed.set_comment("");
    parsed.to_openssh().map_err(|_| invalid())
}

fn is_of(line: &str, name: &str) -> bool {
    line.split(' ').next().and_then(|names| names.split(',').next()) == Some(name)
}

fn recorded(line: &str) -> Option<Recorded> {
    let words: Vec<&str> = line.split(' ').collect();
    let [_, kind, body, since] = words.as_slice() else { return None };
    Some(Recorded { key: format!("{kind} {body}"), since: (*since).to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAICw1kygy8iACSTVr+blnrhR/Lv3DFFXaxjKQOiSx6Y5I";
    const B: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINn/bn4ZY6yoPZIlEA1+JZGsLN+WXwm6WkTPBUuW7Lps";
    const VPS: &str = "vps.tailnet.test";

    fn store() -> (tempfile::TempDir, HostKeys) {
        let dir = tempfile::tempdir().unwrap();
        let keys = HostKeys::below(dir.path());
        (dir, keys)
    }

    fn given(keys: &[&str]) -> Vec<String> {
        keys.iter().map(|key| (*key).to_owned()).collect()
    }

    #[test]
    fn names_addresses_and_the_time_are_recorded() {
        let (_dir, store) = store();
        store.record(VPS, &["100.64.0.2".parse().unwrap()], &given(&[A]), false).unwrap();
        let text = std::fs::read_to_string(store.path()).unwrap();
        assert!(text.starts_with(&format!("{VPS},100.64.0.2 {A} 2")) && text.ends_with("Z\n"), "{text}");
        assert_eq!(store.of(VPS).unwrap()[0].key, A);
        assert_eq!(store.of("other.tailnet.test").unwrap(), []);
    }

    #[test]
    fn a_key_may_join_and_leave_but_not_all_at_once() {
        let (_dir, store) = store();
        let old = format!("{VPS} {A} 2026-01-01T00:00:00Z\nother.tailnet.test {A} 2026-01-01T00:00:00Z\n");
        std::fs::write(store.path(), old).unwrap();
        store.record(VPS, &[], &given(&[A, B]), false).unwrap();
        assert_eq!(
            store.of(VPS).unwrap()[0].since,
            "2026-01-01T00:00:00Z",
            "the time of a known key is kept"
        );
        store.record(VPS, &[], &given(&[B]), false).unwrap();
        let before = std::fs::read_to_string(store.path()).unwrap();
        let error = store.record(VPS, &[], &given(&[A]), false).unwrap_err();
        assert!(matches!(error, HostKeysError::Changed { .. }), "{error}");
        let said = error.to_string();
        assert!(said.contains("now ssh-ed25519 SHA256:U5ly") && said.contains("; since 2"), "{said}");
        assert_eq!(std::fs::read_to_string(store.path()).unwrap(), before, "a refusal changed the record");
        store.record(VPS, &[], &given(&[A]), true).unwrap();
        assert_eq!(store.of(VPS).unwrap().len(), 1);
        assert_eq!(store.of("other.tailnet.test").unwrap().len(), 1, "another host lost its key");
    }

    #[test]
    fn nothing_but_a_key_gets_in() {
        let (_dir, store) = store();
        let evil =
            [format!("{A}\n* {B}"), "@cert-authority *".to_owned(), format!("no-pty {A}"), String::new()];
        for key in evil {
            let error = store.record(VPS, &[], &[A.to_owned(), key.clone()], false).unwrap_err();
            assert!(matches!(error, HostKeysError::Invalid { .. }), "{key:?}: {error}");
        }
        assert!(!store.path().exists(), "half of it was written");
        store.record(VPS, &[], &[format!("{A} a comment")], false).unwrap();
        assert_eq!(store.of(VPS).unwrap()[0].key, A);
    }
}
