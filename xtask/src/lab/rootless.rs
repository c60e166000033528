//! The lab of an ordinary user. It runs in a user namespace in which this user is root, and has as many other users as its
//! subordinate ids allow. What is root's work there is the same code as for root itself.

use std::env;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Result};
use camino::Utf8PathBuf;
use rustix::process::{geteuid, getuid};

use super::record;
use crate::cmd::Cmd;

/// Tells a process in the namespace where labs have their state.
const STATE: &str = "UA_LAB_STATE";
/// Makes the namespace.
const UNSHARE: [&str; 8] =
    ["unshare", "--user", "--map-auto", "--map-root-user", "--setuid", "0", "--setgid", "0"];

/// Whether this process is root only in a namespace of a user's own.
pub(crate) fn is_mapped() -> bool {
    env::var_os(STATE).is_some()
}

/// Directory of the state of this user's labs; gone after a reboot, as the labs are.
pub(super) fn state_root() -> Utf8PathBuf {
    let set = |name| env::var(name).ok().filter(|value| !value.is_empty()).map(Utf8PathBuf::from);
    if let Some(dir) = set(STATE) {
        return dir;
    }
    if geteuid().is_root() {
        return "/run/ua-lab".into();
    }
    match set("XDG_RUNTIME_DIR") {
        Some(dir) => dir.join("ua-lab"),
        None => format!("/tmp/ua-lab-{}", getuid().as_raw()).into(),
    }
}

/// Becomes the same chore as root of a user namespace: the one of a lab of this user that is up, else a new one. Returns
/// where this process is root, or cannot become it.
pub fn become_root() -> Result<()> {
    if geteuid().is_root() || super::availability().is_err() {
        return Ok(());
    }
    let state = state_root();
    let mut argv: Vec<String> = match record::any_anchor(&state)? {
        Some(anchor) => ["nsenter", "--user", "--preserve-credentials", "--target"]
            .map(String::from)
            .into_iter()
            .chain([anchor.pid.to_string()])
            .collect(),
        None => UNSHARE.map(String::from).to_vec(),
    };
    argv.push("--".to_owned());
    let program = env::current_exe().context("cannot find this program")?;
    // What is root's work, root has in its `PATH`.
    let path = format!("{}:/usr/local/sbin:/usr/sbin:/sbin", env::var("PATH").unwrap_or_default());
    let error = Command::new(&argv[0])
        .args(&argv[1..])
        .arg(program)
        .args(env::args_os().skip(1))
        .env("PATH", path)
        .env(STATE, state)
        .exec();
    Err(error).with_context(|| format!("cannot run `{}`", argv[0]))
}

/// What an ordinary user needs for a lab and does not have here.
pub(super) fn missing() -> Vec<String> {
    let mut missing = Vec::new();
    let namespaces = ["unshare", "--user", "--map-root-user", "--mount", "--net", "--pid", "--ipc", "--fork"];
    if let Err(error) = Cmd::new(namespaces).arg("true").run() {
        return vec![format!("this user can make no namespaces ({error:#})")];
    }
    if let Err(error) = Cmd::new(UNSHARE).arg("true").run() {
        missing.push(format!(
            "this user has no subordinate ids ({error:#}); as root: `apt-get install uidmap`, `usermod --add-subuids \
             100000-165535 --add-subgids 100000-165535 USER`"
        ));
    }
    let overlay = "mount -t tmpfs tmpfs /mnt && mkdir /mnt/a /mnt/b /mnt/c && \
                   mount -t overlay overlay -o lowerdir=/mnt/a,upperdir=/mnt/b,workdir=/mnt/c /mnt/a";
    let inside = ["unshare", "--user", "--map-root-user", "--mount"];
    if let Err(error) = Cmd::new(inside).args(["sh", "-c", overlay]).run() {
        missing.push(format!("no overlay can be mounted in a user namespace ({error:#})"));
    }
    missing
}
