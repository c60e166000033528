//! `known-hosts`: whose word a host key has, what it is, and the two acts by which a person takes another one.
//!
//! Where the tailnet gives host keys, they count and nothing has to be accepted. An ordinary sshd is known by the
//! user's own file alone, and the first contact is a person's decision.

use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use ua_common::error::Failure;
use ua_common::exit::Exit;
use ua_common::host_keys::{self, HostKeys};
use ua_common::output::Printer;
use ua_common::report::Check;
use ua_common::state;
use ua_common::tool::ssh::{self, SshError, Target};
use ua_common::tool::{ssh_keygen, ssh_keyscan};

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Look only.
    Look,
    /// Take the keys of a host that has none yet.
    Accept,
    /// Take the present keys instead of the known ones.
    Refresh,
}

/// Keys of one host, and whose word they are.
pub struct Known {
    /// The keys in force, in their one-line form, after the act.
    pub keys: Vec<String>,
    /// What was found and done.
    pub checks: Vec<Check>,
}

/// Looks, and acts unless `dry_run`.
pub fn act(own: &Path, target: &Target, act: Act, dry_run: bool, out: &Printer) -> anyhow::Result<Known> {
    if target.host_keys.is_empty() {
        sshd(target, act, dry_run, out)
    } else {
        tailnet(&HostKeys::below(own), target, act, dry_run)
    }
}

fn prints(keys: &[String]) -> String {
    keys.iter().filter_map(|key| ssh::fingerprint(key)).collect::<Vec<_>>().join(", ")
}

/// The tailnet gives the keys.
fn tailnet(store: &HostKeys, target: &Target, act: Act, dry_run: bool) -> anyhow::Result<Known> {
    let name = &target.name;
    let mut checks = vec![Check::pass(
        "host_keys.given",
        format!("the tailnet gives `{name}` {}", prints(&target.host_keys)),
    )];
    let before = store.of(name).map_err(Failure::from)?;
    if !before.is_empty() {
        checks.push(Check::pass("host_keys.recorded", host_keys::words(&before)));
    }
    if dry_run {
        let told = match act {
            Act::Refresh => "would record what the tailnet gives now",
            Act::Look | Act::Accept => {
                "would record them if none is recorded, or one of the recorded ones is left"
            }
        };
        checks.push(Check::skip("host_keys", told));
        return Ok(Known { keys: Vec::new(), checks });
    }
    checks.push(match store.record(name, &target.addresses, &target.host_keys, act == Act::Refresh) {
        Ok(()) => {
            let kept = before
                .iter()
                .any(|recorded| target.host_keys.iter().any(|key| key.starts_with(&recorded.key)));
            let said = match (act, before.is_empty(), kept) {
                (Act::Refresh, false, false) => "the recorded keys gave way to those of the tailnet",
                (Act::Accept, ..) => "nothing had to be accepted: the tailnet vouches for them",
                _ => "in force",
            };
            Check::pass("host_keys", format!("{said} (`{}`)", store.path().display()))
        }
        Err(error) => Check::failure("host_keys", error),
    });
    let keys = store.of(name).map_err(Failure::from)?;
    Ok(Known { keys: keys.into_iter().map(|recorded| recorded.key).collect(), checks })
}

/// An ordinary sshd: the files that ssh itself reads.
fn sshd(target: &Target, act: Act, dry_run: bool, out: &Printer) -> anyhow::Result<Known> {
    let name = &target.name;
    let files = ssh::known_hosts_files().map_err(Failure::from)?;
    let mut known = Vec::new();
    for file in &files {
        known.extend(ssh_keygen::known(name, file).map_err(Failure::from)?);
    }
    let shown = {
        let _waiting = out.waiting(format!("asking `{name}` port {} for its keys", target.port));
        ssh_keyscan::scan(target).map_err(Failure::from)?
    };
    let mut checks = Vec::new();
    let keys: Vec<String> =
        known.iter().filter(|it| it.marker.is_none()).map(|known| known.key.clone()).collect();
    if shown.is_empty() {
        let said = format!("no SSH server shows a key on port {}", target.port);
        checks.push(Check::failure("host_keys.shown", SshError::Unreachable { host: target.shown(), said }));
        return Ok(Known { keys, checks });
    }
    checks.push(Check::pass("host_keys.shown", format!("`{name}` shows {}", prints(&shown))));
    if let Some(revoked) = known.iter().find(|known| known.marker.is_some() && shown.contains(&known.key)) {
        let detail = format!(
            "your known_hosts marks what it shows as `{}`: {}",
            revoked.marker.as_deref().unwrap_or_default(),
            prints(std::slice::from_ref(&revoked.key))
        );
        let hint = format!("ssh-keygen -F {name}");
        checks.push(Check::fail("host_keys", Exit::HostKey, detail).hint(hint));
        return Ok(Known { keys, checks });
    }
    // ssh asks for a kind of key that it knows, so that one kind with another key is enough to refuse.
    let kind = |key: &str| key.split(' ').next().map(str::to_owned);
    let changed = shown.iter().any(|key| !keys.contains(key) && keys.iter().any(|it| kind(it) == kind(key)));
    let same = !changed && keys.iter().any(|key| shown.contains(key));
    let other = || SshError::OtherHostKey {
        host: name.clone(),
        shown: prints(&shown),
        known: format!("your known_hosts has {}", prints(&keys)),
    };
    match act {
        _ if same => checks.push(Check::pass("host_keys", format!("your known_hosts has {}", prints(&keys)))),
        Act::Look if keys.is_empty() => {
            let shown = prints(&shown);
            checks.push(Check::failure("host_keys", SshError::UnknownHostKey { host: name.clone(), shown }));
        }
        Act::Look => checks.push(Check::failure("host_keys", other())),
        Act::Accept if !keys.is_empty() => checks.push(Check::failure("host_keys", other())),
        Act::Accept | Act::Refresh => {
            let file = files.first().ok_or_else(|| {
                Failure::new(Exit::Failed, "ssh does not say where its known_hosts file is")
                    .hint("ssh -G localhost")
            })?;
            let at = file.display();
            if dry_run {
                checks.push(Check::skip("host_keys", format!("would write {} to `{at}`", prints(&shown))));
                return Ok(Known { keys, checks });
            }
            take(file, name, &shown)
                .map_err(|error| Failure::new(Exit::Failed, format!("cannot write `{at}`: {error:#}")))?;
            let now = ssh_keygen::known(name, file).map_err(Failure::from)?;
            let now: Vec<String> = now.into_iter().map(|known| known.key).collect();
            let was = if keys.is_empty() {
                String::new()
            } else {
                format!(" instead of {} (the file as it was: `{at}.old`)", prints(&keys))
            };
            checks.push(if shown.iter().all(|key| now.contains(key)) {
                Check::pass("host_keys", format!("`{at}` has {} now{was}", prints(&shown)))
            } else {
                Check::fail("host_keys", Exit::Failed, format!("`{at}` does not have what was written to it"))
            });
            return Ok(Known { keys: now, checks });
        }
    }
    Ok(Known { keys, checks })
}

/// Puts these keys of a host into a `known_hosts` file instead of those it has: as a whole, or not at all.
fn take(file: &Path, name: &str, keys: &[String]) -> anyhow::Result<()> {
    // A link, as of a directory of dotfiles, stays a link.
    let file = file.canonicalize().unwrap_or_else(|_| file.to_path_buf());
    if let Some(dir) = file.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    let old = match std::fs::read_to_string(&file) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(error.into()),
    };
    let mode = std::fs::metadata(&file).map_or(0o600, |meta| meta.permissions().mode() & 0o7777);
    let known = ssh_keygen::known(name, &file)?;
    let gone = |line: usize| known.iter().any(|known| known.marker.is_none() && known.line == line);
    let text = old.as_deref().unwrap_or_default();
    let kept =
        text.lines().enumerate().filter(|(index, _)| !gone(index + 1)).map(|(_, line)| line.to_owned());
    let new = keys.iter().map(|key| format!("{name} {key}"));
    let lines: Vec<String> = kept.chain(new).collect();
    if let Some(old) = old.as_deref().filter(|_| !known.is_empty()) {
        state::write(&beside(&file), old, mode)?;
    }
    Ok(state::write(&file, &(lines.join("\n") + "\n"), mode)?)
}

/// Where the file is kept as it was, as `ssh-keygen -R` names it.
fn beside(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".old");
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAICw1kygy8iACSTVr+blnrhR/Lv3DFFXaxjKQOiSx6Y5I";
    const B: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINn/bn4ZY6yoPZIlEA1+JZGsLN+WXwm6WkTPBUuW7Lps";

    #[test]
    fn only_the_host_s_own_lines_give_way() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("real"), dir.path().join("known_hosts"));
        let text = format!("# mine\nother {A}\nvps {A}\n@revoked vps {A}\n\nlast {A}");
        std::fs::write(&file, &text).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        take(&link, "vps", &[B.to_owned()]).unwrap();
        let wanted = format!("# mine\nother {A}\n@revoked vps {A}\n\nlast {A}\nvps {B}\n");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), wanted);
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink(), "the link was replaced");
        assert_eq!(std::fs::read_to_string(dir.path().join("real.old")).unwrap(), text);
        // A first contact makes the file.
        let new = dir.path().join("new/known_hosts");
        take(&new, "vps", &[A.to_owned()]).unwrap();
        assert_eq!(std::fs::read_to_string(&new).unwrap(), format!("vps {A}\n"));
        assert_eq!(new.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
}
