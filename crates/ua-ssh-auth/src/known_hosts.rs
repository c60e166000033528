//! `known-hosts`: whose word a host key has, what it is, and the two acts by which a person takes another one.
//!
//! Where the tailnet gives host keys, they count and nothing has to be accepted. An ordinary sshd is known by the
//! user's own file alone, and the first contact is a person's decision.

use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use ua_common::error::Failure;
use ua_common::exit::Exit;
use ua_common::host_keys::{self, HostKeys};
use ua_common::output::Printer;
use ua_common::report::Check;
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
pub fn act(state: &Path, target: &Target, act: Act, dry_run: bool, out: &Printer) -> anyhow::Result<Known> {
    if target.host_keys.is_empty() {
        sshd(target, act, dry_run, out)
    } else {
        tailnet(&HostKeys::below(state), target, act, dry_run)
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

/// An ordinary sshd: the user's own file.
fn sshd(target: &Target, act: Act, dry_run: bool, out: &Printer) -> anyhow::Result<Known> {
    let name = &target.name;
    let file = users_file()?;
    let known =
        if file.exists() { ssh_keygen::known(name, &file).map_err(Failure::from)? } else { Vec::new() };
    let shown = {
        let _waiting = out.waiting(format!("asking `{name}` port {} for its keys", target.port));
        ssh_keyscan::scan(target).map_err(Failure::from)?
    };
    let mut checks = Vec::new();
    let mut keys = known.clone();
    if shown.is_empty() {
        let said = format!("no SSH server shows a key on port {}", target.port);
        checks.push(Check::failure("host_keys.shown", SshError::Unreachable { host: target.shown(), said }));
        return Ok(Known { keys, checks });
    }
    checks.push(Check::pass("host_keys.shown", format!("`{name}` shows {}", prints(&shown))));
    let at = file.display();
    let same = known.iter().any(|key| shown.contains(key));
    let take = match (act, known.is_empty(), same) {
        (_, false, true) => {
            checks.push(Check::pass("host_keys", format!("`{at}` has {}", prints(&known))));
            false
        }
        (Act::Look, true, _) => {
            let shown = prints(&shown);
            checks.push(Check::failure("host_keys", SshError::UnknownHostKey { host: name.clone(), shown }));
            false
        }
        (Act::Look | Act::Accept, false, false) => {
            let (shown, known) = (prints(&shown), format!("`{at}` has {}", prints(&known)));
            checks.push(Check::failure(
                "host_keys",
                SshError::OtherHostKey { host: name.clone(), shown, known },
            ));
            false
        }
        (Act::Accept | Act::Refresh, true, _) | (Act::Refresh, false, false) => true,
    };
    if take && dry_run {
        checks.push(Check::skip("host_keys", format!("would write {} to `{at}`", prints(&shown))));
    } else if take {
        if !known.is_empty() {
            ssh_keygen::forget(name, &file).map_err(Failure::from)?;
        }
        append(&file, name, &shown)
            .map_err(|error| Failure::new(Exit::Failed, format!("cannot write `{at}`: {error}")))?;
        keys = ssh_keygen::known(name, &file).map_err(Failure::from)?;
        let was = if known.is_empty() {
            String::new()
        } else {
            format!(" instead of {} (kept in `{at}.old`)", prints(&known))
        };
        checks.push(if shown.iter().all(|key| keys.contains(key)) {
            Check::pass("host_keys", format!("`{at}` has {} now{was}", prints(&shown)))
        } else {
            Check::fail("host_keys", Exit::Failed, format!("`{at}` does not have what was written to it"))
        });
    }
    Ok(Known { keys, checks })
}

fn users_file() -> Result<PathBuf, Failure> {
    ssh::users_known_hosts().ok_or_else(|| {
        Failure::new(Exit::Failed, "ssh does not say where its known_hosts file is").hint("ssh -G localhost")
    })
}

fn append(file: &Path, name: &str, keys: &[String]) -> std::io::Result<()> {
    if let Some(dir) = file.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    let mut open = std::fs::OpenOptions::new().append(true).create(true).read(true).mode(0o600).open(file)?;
    let text = std::fs::read_to_string(file)?;
    let begin = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    let lines: String = keys.iter().map(|key| format!("{name} {key}\n")).collect();
    open.write_all(format!("{begin}{lines}").as_bytes())?;
    open.sync_all()
}
