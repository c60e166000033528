//! Running commands: one plain value per command, and errors that name the program and carry its stderr.

use std::ffi::OsString;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};

/// What a finished command left: its exit code (128 + n after signal n, as a shell counts) and its output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// The exit code.
    pub code: i32,
    /// Everything it wrote to stdout.
    pub stdout: String,
    /// Everything it wrote to stderr.
    pub stderr: String,
}

impl Output {
    /// Whether the exit code is 0.
    pub fn success(&self) -> bool {
        self.code == 0
    }

    /// Its stdout; a non-zero exit code is an error that names `command` and carries what it said.
    pub(crate) fn into_stdout(self, command: &str) -> Result<String> {
        if self.success() {
            return Ok(self.stdout);
        }
        let said = if self.stderr.trim().is_empty() { &self.stdout } else { &self.stderr };
        bail!("`{command}` failed with {}: {}", self.code, said.trim());
    }
}

/// A command to run: captured, in a process group of its own.
#[derive(Debug, Clone)]
pub struct Cmd {
    argv: Vec<String>,
    env: Vec<(String, String)>,
    dir: Option<String>,
    stdin: Vec<u8>,
    timeout: Option<Duration>,
}

impl Cmd {
    /// A command from its program and arguments.
    pub fn new<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Self {
        let argv = argv.into_iter().map(Into::into).collect();
        Self { argv, env: Vec::new(), dir: None, stdin: Vec::new(), timeout: None }
    }

    /// The same, but the program is killed if this process dies: for long work that nobody would wait for.
    pub fn tied<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Self {
        let words = ["setpriv", "--pdeathsig", "KILL", "--"].map(String::from);
        Self::new(words.into_iter().chain(argv.into_iter().map(Into::into)))
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.argv.push(arg.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.argv.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Sets environment variables.
    #[must_use]
    pub fn envs(mut self, pairs: impl IntoIterator<Item = (String, String)>) -> Self {
        self.env.extend(pairs);
        self
    }

    /// Sets the working directory.
    #[must_use]
    pub fn dir(mut self, dir: impl Into<String>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// Gives it these bytes on stdin; empty without.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// Kills its process group after this time, which is then an error.
    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
        self
    }

    /// Runs it and returns what came out, whatever the exit code.
    pub fn output(&self) -> Result<Output> {
        let name = self.argv.join(" ");
        let mut expression = duct::cmd(&self.argv[0], self.argv[1..].iter().map(OsString::from))
            .stdin_bytes(self.stdin.clone())
            .stdout_capture()
            .stderr_capture()
            .unchecked()
            .before_spawn(|command| {
                command.process_group(0);
                Ok(())
            });
        for (key, value) in &self.env {
            expression = expression.env(key, value);
        }
        if let Some(dir) = &self.dir {
            expression = expression.dir(dir);
        }
        let handle = expression.start().with_context(|| format!("failed to start `{name}`"))?;
        let finished = match self.timeout {
            None => Some(handle.wait()?),
            Some(limit) => handle.wait_timeout(limit)?,
        };
        let Some(output) = finished else {
            for pid in handle.pids() {
                if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                    // It may end on its own in this very moment.
                    let _ = kill_process_group(pid, Signal::KILL);
                }
            }
            bail!("`{name}` did not end within {:?}", self.timeout.unwrap_or_default());
        };
        Ok(Output {
            code: exit_code(output.status),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Runs it and returns its stdout; a non-zero exit code is an error with its stderr.
    pub fn read(&self) -> Result<String> {
        self.output()?.into_stdout(&self.argv.join(" "))
    }

    /// Runs it; a non-zero exit code is an error with its stderr.
    pub fn run(&self) -> Result<()> {
        self.read().map(drop)
    }
}

fn exit_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_command_and_carries_stderr() {
        let error = Cmd::new(["sh", "-c", "echo no such thing >&2; exit 3"]).read().unwrap_err();
        assert!(error.to_string().ends_with("failed with 3: no such thing"), "{error}");
    }

    #[test]
    fn a_timeout_kills_grandchildren_too() {
        let started = std::time::Instant::now();
        let error = Cmd::new(["sh", "-c", "sleep 20 & sleep 20; wait"])
            .timeout(Duration::from_millis(100))
            .output()
            .unwrap_err();
        assert!(error.to_string().contains("did not end within 100ms"), "{error}");
        assert!(started.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn stdin_env_and_directory_reach_the_command() {
        let out =
            Cmd::new(["sh", "-c", "cat; echo $X; pwd"]).stdin("in\n").env("X", "y").dir("/").read().unwrap();
        assert_eq!(out, "in\ny\n/\n");
    }
}
