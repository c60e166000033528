//! The anchor: one idle process that holds the lab's namespaces, and how to run things inside them.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use camino::{Utf8Path, Utf8PathBuf};

use super::record::{Process, Record, State};
use crate::cmd::Cmd;

/// Where the control servers are reached.
pub(super) const CONTROL_ADDRESS: &str = "10.99.0.1";

/// The lab's namespaces, by the process that holds them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Anchor(pub Process);

impl Anchor {
    /// Starts it, writes it into the record, and only then lets it live.
    pub fn start(state: &State, record: &mut Record) -> Result<Self> {
        // In a session of its own: the end of our terminal is not its end.
        let mut unshare = Command::new("sh")
            // What our starter holds open, such as a lock, is not held for as long as the lab is up.
            .args(["-c", "exec 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-; exec setsid \"$@\"", "sh"])
            .args(["unshare", "--mount", "--net", "--pid", "--ipc", "--fork", "--kill-child", "--mount-proc"])
            .args(["--propagation", "slave"])
            // Ends by itself if its starter dies before the record is written. It ignores the end of
            // children, so that what is orphaned in its PID namespace leaves no zombie.
            .args(["sh", "-c", "read -r go && exec env --ignore-signal=CHLD sleep infinity"])
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("failed to start `unshare`")?;
        let pid = super::wait_for("the lab's first process", Duration::from_secs(5), || {
            ensure!(unshare.try_wait()?.is_none(), "`unshare` was refused: namespaces are not available");
            Ok(children(i32::try_from(unshare.id())?).first().copied())
        })?;
        let anchor = Process::of(pid)?;
        record.anchor = Some(anchor);
        state.write(record)?;
        unshare.stdin.take().context("stdin is piped")?.write_all(b"go\n")?;
        super::wait_until("the lab's first process settles", Duration::from_secs(5), || {
            Ok(program(pid) == "sleep")
        })?;
        Ok(Self(anchor))
    }

    /// Furnishes the namespaces, and shows the cache in them at a path that needs no quoting.
    pub fn furnish(self, cache: &Utf8Path, shown_at: &Utf8Path) -> Result<()> {
        let script = include_str!("../../lab/namespace.sh");
        let bridge = format!("{CONTROL_ADDRESS}/24");
        self.script(script, [bridge.as_str(), cache.as_str(), shown_at.as_str()]).run()
    }

    /// A command inside the namespaces.
    pub fn command<S: Into<String>>(self, argv: impl IntoIterator<Item = S>) -> Cmd {
        let pid = self.0.pid.to_string();
        Cmd::new(["nsenter", "-t", &pid, "-m", "-n", "-p", "-i", "--"]).args(argv)
    }

    /// A script inside the namespaces.
    pub fn script<'a>(self, text: &'a str, args: impl IntoIterator<Item = &'a str>) -> Cmd {
        self.command(["sh", "-c", text, "sh"]).args(args)
    }

    /// Starts a command inside the namespaces that outlives us, and returns its process as the host numbers it.
    pub fn spawn(self, log: &Utf8Path, cgroups: &[Utf8PathBuf], argv: &[&str]) -> Result<Process> {
        let pid = self.0.pid.to_string();
        // Entering forks: the process that is printed is `nsenter`, and its one child is the command.
        let printed = Cmd::new(["sh", "-c", include_str!("../../lab/spawn.sh"), "sh", log.as_str()])
            .args(cgroups.iter().map(|group| group.as_str()))
            .args(["--", "nsenter", "-t", &pid, "-m", "-n", "-p", "-i", "--"])
            .args(argv.iter().copied())
            .read()?;
        let entering: i32 = printed.trim().parse()?;
        let command = super::wait_for(argv[0], Duration::from_secs(5), || {
            ensure!(Process::of(entering).is_ok(), "`{}` ended at once: see `{log}`", argv[0]);
            Ok(children(entering).first().copied())
        })?;
        Process::of(command)
    }

    /// `path` of the lab's mount namespace, as seen from ours.
    pub fn path(self, path: &Utf8Path) -> Utf8PathBuf {
        Utf8PathBuf::from(format!("/proc/{}/root{path}", self.0.pid))
    }
}

/// The children of a process.
pub(crate) fn children(pid: i32) -> Vec<i32> {
    let listed = fs_err::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    listed.split_whitespace().filter_map(|child| child.parse().ok()).collect()
}

/// The name of the program that a process runs; empty when it has ended.
pub(super) fn program(pid: i32) -> String {
    fs_err::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}
