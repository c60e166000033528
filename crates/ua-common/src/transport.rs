//! One multiplexed SSH connection per run, and the only way to run anything on the VPS.
//!
//! The master is a child of ours with a death signal, so neither it nor its socket outlives the run. Remote work is a
//! POSIX `sh` script that travels on stdin, whole or not at all: it stands in one subshell, so a text cut short is a
//! syntax error that runs nothing, and only a last line of ours proves that it came to its end.

use std::ffi::OsString;
use std::hash::{BuildHasher, Hasher};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::error::{Fact, Failure};
use crate::exit::Exit;
use crate::interrupt;
use crate::output::Printer;
use crate::run::{Background, Cmd, Finished, RunError};
use crate::settings::value::{AuthMode, SshKey};
use crate::state::RunDir;
use crate::tool::ssh::{self, SshError, Target};

/// A script for the VPS.
#[derive(Clone, Copy, Debug)]
pub struct Script {
    /// Its name, for messages.
    pub name: &'static str,
    /// POSIX sh.
    pub text: &'static str,
}

/// What a script that ran to its end gave back.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its exit code.
    pub code: i32,
    /// What it wrote to stdout; empty where that was handed on line by line.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
}

/// Why a script has no answer. What it did before that is unknown.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// It never reached its end: the connection broke, or the text was cut.
    #[error("the connection to `{host}` ended in the middle of `{script}` (code {code}){}", after(.said))]
    Lost {
        /// The target.
        host: String,
        /// The script.
        script: &'static str,
        /// What ssh exited with.
        code: i32,
        /// What was said on stderr.
        said: String,
    },
    /// An argument that no shell can hold.
    #[error("`{script}` cannot take an argument with a NUL byte")]
    Argument {
        /// The script.
        script: &'static str,
    },
    /// ssh could not be run, or took too long.
    #[error(transparent)]
    Run(#[from] RunError),
}

fn after(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(": {said}") }
}

impl Fact for TransportError {
    fn exit(&self) -> Exit {
        match self {
            Self::Lost { .. } | Self::Run(RunError::Timeout { .. }) => Exit::SshUnreachable,
            Self::Argument { .. } => Exit::Usage,
            Self::Run(error) => error.exit(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Lost { host, .. } => Some(format!("ua-preflight --ssh --host {host}")),
            _ => None,
        }
    }
}

/// An open connection.
pub struct Transport {
    // Dropped first: the master ends before the directory of its socket goes.
    _master: Background,
    target: Target,
    dir: RunDir,
}

impl Transport {
    /// Opens the connection. Says where to approve a Tailscale SSH check and waits for that up to `check_wait`.
    pub fn open(target: Target, check_wait: Duration, out: &Printer) -> anyhow::Result<Self> {
        if let (AuthMode::Keys, SshKey::File(key)) = (target.auth, &target.key)
            && !key.is_file()
        {
            return Err(Failure::from(SshError::NoKey(key.clone())).into());
        }
        let dir = RunDir::new()?;
        let socket = dir.path().join("s");
        // sun_path holds 108 bytes, and ssh appends 17 of its own while it makes the socket.
        if socket.as_os_str().len() > 90 {
            return Err(Failure::from(SshError::LongPath(socket)).into());
        }
        let known_hosts = dir.path().join("known_hosts");
        fs_err::write(&known_hosts, target.known_hosts())?;
        fs_err::write(
            dir.path().join("config"),
            target.config(&socket, &known_hosts).map_err(Failure::from)?,
        )?;
        let said = dir.path().join("master.err");

        let shown = target.shown();
        let _waiting = out.waiting(format!("connecting to {shown}"));
        let master = ssh_cmd(&dir, &[], Duration::MAX).args(["-M", "-N", "--"]).arg(&target.name);
        out.detail(&master.to_string());
        let master = master.background(&said).map_err(Failure::from)?;
        let start = Instant::now();
        let mut check: Option<String> = None;
        loop {
            if socket.exists() {
                return Ok(Self { _master: master, target, dir });
            }
            let stderr = std::fs::read_to_string(&said).unwrap_or_default();
            if master.ended().is_some() {
                return Err(Failure::from(ssh::judge(&shown, &stderr)).into());
            }
            if check.is_none()
                && let Some(url) = ssh::check_url(&stderr)
            {
                out.warn(&format!("`{shown}` wants an interactive check; approve it at {url}"));
                check = Some(url.to_owned());
            }
            if interrupt::requested() {
                return Err(Failure::from(RunError::Interrupted { program: "ssh".to_owned() }).into());
            }
            // ConnectTimeout bounds the dialling; the login that follows gets as long again.
            let limit = if check.is_some() { check_wait } else { target.connect_timeout * 2 };
            if start.elapsed() > limit {
                let error = match check {
                    Some(url) => SshError::Check { host: shown, url },
                    None => SshError::Unreachable {
                        host: shown,
                        said: format!("no login within {} s", limit.as_secs()),
                    },
                };
                return Err(Failure::from(error).into());
            }
            std::thread::sleep(Duration::from_millis(4));
        }
    }

    /// `user@name` of the other end.
    pub fn shown(&self) -> String {
        self.target.shown()
    }

    /// Runs a script to its end. A code other than 0 is not an error here.
    pub fn script(&self, script: Script, args: &[&str], limit: Duration) -> Result<Answer, TransportError> {
        let (text, end) = wrap(script, args)?;
        let finished = self.shell(limit).stdin(text).output()?;
        let stdout = String::from_utf8_lossy(&finished.stdout).into_owned();
        let proof = stdout.rsplit_once(&format!("\n{end} "));
        let code = proof.and_then(|(_, code)| code.trim_end().parse().ok());
        match (proof, code) {
            (Some((stdout, _)), Some(code)) => {
                Ok(Answer { code, stdout: stdout.to_owned(), stderr: finished.err() })
            }
            _ => Err(self.lost(script, &finished)),
        }
    }

    /// Runs a script and hands on each line of its stdout as it comes. It has failed when it says nothing for `idle`.
    pub fn stream(
        &self,
        script: Script,
        args: &[&str],
        idle: Duration,
        limit: Duration,
        on_line: &mut dyn FnMut(&str),
    ) -> Result<Answer, TransportError> {
        let (text, end) = wrap(script, args)?;
        let mut code = None;
        // The end line stands after a line break of its own, which is not the script's.
        let mut blank = false;
        let finished = self.shell(limit).stdin(text).stream(idle, &mut |line| {
            code = line.strip_prefix(&end).and_then(|rest| rest.trim().parse().ok());
            if code.is_none() {
                if std::mem::take(&mut blank) {
                    on_line("");
                }
                blank = line.is_empty();
                if !blank {
                    on_line(line);
                }
            }
        })?;
        code.map(|code| Answer { code, stdout: String::new(), stderr: finished.err() })
            .ok_or_else(|| self.lost(script, &finished))
    }

    /// An rsync over this connection; `args` are its options and both ends, where [`Transport::remote`] names the
    /// remote one. Its progress is handed on line by line.
    pub fn rsync(
        &self,
        args: impl IntoIterator<Item = OsString>,
        idle: Duration,
        on_line: &mut dyn FnMut(&str),
    ) -> Result<Finished, TransportError> {
        let rsh = format!("ssh -F {} -o ProxyCommand=false", self.rsync_word());
        let cmd = Cmd::new("rsync", Duration::MAX).args(["-e", &rsh]).args(args);
        Ok(cmd.stream(idle, on_line)?)
    }

    /// The remote end of an rsync.
    pub fn remote(&self, path: &str) -> OsString {
        format!("{}:{path}", self.target.name).into()
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("config")
    }

    /// rsync splits `-e` at blanks and knows quotes, but no escapes.
    fn rsync_word(&self) -> String {
        let path = self.config().to_string_lossy().into_owned();
        if path.contains('\'') { format!("\"{path}\"") } else { format!("'{path}'") }
    }

    /// A remote `sh` over the open connection only: without the master it fails rather than dial anew.
    fn shell(&self, limit: Duration) -> Cmd {
        ssh_cmd(&self.dir, &["-o", "ProxyCommand=false"], limit)
            .args(["-T", "--"])
            .arg(&self.target.name)
            .arg("sh -s")
    }

    fn lost(&self, script: Script, finished: &Finished) -> TransportError {
        let (host, said) = (self.shown(), finished.err());
        TransportError::Lost { host, script: script.name, code: finished.code, said }
    }
}

fn ssh_cmd(dir: &RunDir, options: &[&str], limit: Duration) -> Cmd {
    Cmd::new("ssh", limit).arg("-F").arg(dir.path().join("config")).args(options.iter().copied())
}

/// The text that is sent, and the word that its last line begins with. The arguments are set inside the script,
/// quoted for POSIX sh, because the login shell that starts `sh -s` may be one that quotes otherwise; so they also
/// stay out of the remote process list.
fn wrap(script: Script, args: &[&str]) -> Result<(String, String), TransportError> {
    let quoted = shlex::try_join(args.iter().copied())
        .map_err(|_| TransportError::Argument { script: script.name })?;
    // Unpredictable, so that output of the script cannot pass for it.
    let nonce = std::collections::hash_map::RandomState::new().build_hasher().finish();
    let end = format!("ua-end-{nonce:016x}");
    let text = format!(
        "set -- {quoted}\n(\n{}\n)\nua_code=$?\nprintf '\\n%s %s\\n' {end} \"$ua_code\"\nexit \"$ua_code\"\n",
        script.text
    );
    Ok((text, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(text: &str) -> Finished {
        Cmd::new("sh", Duration::from_secs(5)).arg("-s").stdin(text).output().unwrap()
    }

    #[test]
    fn arguments_arrive_as_they_are() {
        let script = Script { name: "t", text: "main() { printf '[%s]' \"$@\"; }\nmain \"$@\"" };
        let args = ["a b", "it's", "$(reboot)", "-x", "", "two\nlines", "back\\"];
        let (text, end) = wrap(script, &args).unwrap();
        let expected: String = args.iter().map(|arg| format!("[{arg}]")).collect();
        assert_eq!(sh(&text).out(), format!("{expected}\n{end} 0"));
    }

    #[test]
    fn the_exit_code_is_kept() {
        let (text, end) = wrap(Script { name: "t", text: "set -e; false; echo no" }, &[]).unwrap();
        let finished = sh(&text);
        assert_eq!((finished.code, finished.out()), (1, format!("{end} 1")));
    }

    #[test]
    fn a_text_cut_short_anywhere_never_proves_its_end() {
        let (text, end) = wrap(Script { name: "t", text: "echo ran\necho done" }, &["x"]).unwrap();
        let inside = text.find("printf").unwrap();
        for cut in 0..inside {
            assert!(!sh(&text[..cut]).out().contains(&end), "cut at {cut}");
        }
    }
}
