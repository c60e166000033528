//! Running programs: a command is plain data, and one function each runs it to its end or line by line.
//!
//! Every child gets its own process group, so that a time limit or Ctrl-C ends all of it; a death signal, so that it
//! follows us even after SIGKILL; and pipes of ours, so that it never holds the caller's stdout or stderr.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufReader, Read, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use crate::error::Fact;
use crate::exit::Exit;
use crate::interrupt;

/// How often a wait looks up to see whether the run was asked to end.
const LOOK_UP: Duration = Duration::from_millis(50);
/// What a process group gets between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(2);
/// Longest line that is handed on whole; a remote must not fill our memory.
const LONGEST_LINE: usize = 64 * 1024;

/// A program with its arguments, as data: comparable and printable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cmd {
    /// Name or path.
    pub program: OsString,
    /// Arguments.
    pub args: Vec<OsString>,
    /// Variables set on top of our own environment.
    pub env: Vec<(OsString, OsString)>,
    /// What it reads; empty is `/dev/null`.
    pub stdin: Vec<u8>,
    /// Where it runs, if not here.
    pub dir: Option<PathBuf>,
    /// It is ended after this long.
    pub limit: Duration,
}

impl Cmd {
    /// A command that may take `limit` at most.
    pub fn new(program: impl Into<OsString>, limit: Duration) -> Self {
        let (args, env) = (Vec::new(), Vec::new());
        Self { program: program.into(), args, env, stdin: Vec::new(), dir: None, limit }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets a variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Sets what it reads.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// Sets where it runs.
    #[must_use]
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    fn name(&self) -> String {
        self.program.to_string_lossy().into_owned()
    }

    fn expression(&self, group: Group) -> duct::Expression {
        let expression = self.without_stdin(group);
        if self.stdin.is_empty() {
            expression.stdin_null()
        } else {
            expression.stdin_bytes(self.stdin.clone())
        }
    }

    fn without_stdin(&self, group: Group) -> duct::Expression {
        let mut expression = duct::cmd(&self.program, &self.args).unchecked();
        for (name, value) in &self.env {
            expression = expression.env(name, value);
        }
        if let Some(dir) = &self.dir {
            expression = expression.dir(dir);
        }
        match group {
            Group::Own => expression.before_spawn(own_group_and_death_signal),
            Group::Ours => expression.before_spawn(death_signal),
        }
    }

    fn start(&self, expression: &duct::Expression) -> Result<duct::Handle, RunError> {
        expression.start().map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => RunError::NotFound { program: self.name() },
            _ => RunError::Spawn { program: self.name(), source },
        })
    }

    /// Runs it to its end and captures what it says. A status other than 0 is not an error here.
    pub fn output(&self) -> Result<Finished, RunError> {
        let handle = self.start(&self.expression(Group::Own).stdout_capture().stderr_capture())?;
        self.wait(&handle)
    }

    fn wait(&self, handle: &duct::Handle) -> Result<Finished, RunError> {
        let start = Instant::now();
        let deadline = start + self.limit;
        loop {
            let wake = deadline.min(Instant::now() + LOOK_UP);
            if let Some(output) = handle.wait_deadline(wake).map_err(|source| self.lost(source))? {
                return Ok(Finished::new(output, start));
            }
            if interrupt::requested() {
                end(handle, Group::Own);
                return Err(RunError::Interrupted { program: self.name() });
            }
            if Instant::now() >= deadline {
                let partial = end(handle, Group::Own);
                return Err(RunError::Timeout { program: self.name(), limit: self.limit, partial });
            }
        }
    }

    /// Starts it now, for [`Ahead::output`] to go on with it: until then it has read what is its stdin here, and waits for
    /// more. Call it from a thread that lives as long as the child may: the death signal follows the thread.
    pub fn ahead(self) -> Result<Ahead, RunError> {
        let spawn_error = |source| RunError::Spawn { program: self.name(), source };
        let (reader, mut writer) = io::pipe().map_err(spawn_error)?;
        let input = File::from(OwnedFd::from(reader));
        let handle =
            self.start(&self.without_stdin(Group::Own).stdin_file(input).stdout_capture().stderr_capture())?;
        let (rest, more) = mpsc::channel::<Vec<u8>>();
        let first = self.stdin.clone();
        // A child that does not read must not hold us.
        std::thread::spawn(move || {
            let mut written = writer.write_all(&first);
            while let (Ok(()), Ok(bytes)) = (&written, more.recv()) {
                written = writer.write_all(&bytes);
            }
        });
        Ok(Ahead { cmd: self, child: Idle(handle), rest })
    }

    /// Runs it and hands on each line of its stdout as it comes (a carriage return ends a line too, for progress).
    /// It is ended when it says nothing for `idle`, or takes longer than its limit.
    pub fn stream(&self, idle: Duration, on_line: &mut dyn FnMut(&str)) -> Result<Finished, RunError> {
        let start = Instant::now();
        let spawn_error = |source| RunError::Spawn { program: self.name(), source };
        let (reader, writer) = io::pipe().map_err(spawn_error)?;
        let handle = self.start(
            &self.expression(Group::Own).stdout_file(File::from(OwnedFd::from(writer))).stderr_capture(),
        )?;
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || {
            let mut input = BufReader::new(reader);
            while let Ok(Some(line)) = next_line(&mut input) {
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        let mut heard = Instant::now();
        loop {
            match lines.recv_timeout(LOOK_UP) {
                Ok(line) => {
                    heard = Instant::now();
                    on_line(&line);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if interrupt::requested() {
                end(&handle, Group::Own);
                return Err(RunError::Interrupted { program: self.name() });
            }
            let limit = if heard.elapsed() >= idle { Some(idle) } else { None };
            if let Some(limit) = limit.or((start.elapsed() >= self.limit).then_some(self.limit)) {
                let partial = end(&handle, Group::Own);
                return Err(RunError::Timeout { program: self.name(), limit, partial });
            }
        }
        if let Some(output) = handle.wait_timeout(GRACE).map_err(|source| self.lost(source))? {
            return Ok(Finished::new(output, start));
        }
        let partial = end(&handle, Group::Own);
        Err(RunError::Timeout { program: self.name(), limit: GRACE, partial })
    }

    /// Runs it on our own streams and in our own process group, for a person or a pipe, and gives its code. Without a
    /// limit: who started it ends it.
    pub fn attached(&self) -> Result<i32, RunError> {
        self.wait_attached(&self.on_our_streams())
    }

    /// The same, but what it writes is kept: of each stream the first `most` bytes.
    pub fn captured(&self, most: usize) -> Result<Captured, RunError> {
        let spawn_error = |source| RunError::Spawn { program: self.name(), source };
        let pipe = || -> Result<_, RunError> {
            let (reader, writer) = io::pipe().map_err(spawn_error)?;
            Ok((std::thread::spawn(move || kept(reader, most)), File::from(OwnedFd::from(writer))))
        };
        let ((stdout, out), (stderr, err)) = (pipe()?, pipe()?);
        let expression = self.on_our_streams().stdout_file(out).stderr_file(err);
        let code = self.wait_attached(&expression)?;
        // The ends that it wrote to: they would be held open by us.
        drop(expression);
        let read = |thread: std::thread::JoinHandle<io::Result<Kept>>| {
            let kept = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            kept.map_err(|source| self.lost(source))
        };
        Ok(Captured { code, stdout: read(stdout)?, stderr: read(stderr)? })
    }

    fn on_our_streams(&self) -> duct::Expression {
        self.without_stdin(Group::Ours)
    }

    fn wait_attached(&self, expression: &duct::Expression) -> Result<i32, RunError> {
        let handle = self.start(expression)?;
        let start = Instant::now();
        loop {
            if let Some(output) = handle.wait_timeout(LOOK_UP).map_err(|source| self.lost(source))? {
                return Ok(Finished::new(output, start).code);
            }
            // Ctrl-C reached it as well, and what is sent to us alone did not.
            if interrupt::requested() {
                let interrupted = || RunError::Interrupted { program: self.name() };
                return end(&handle, Group::Ours).map(|ended| ended.code).ok_or_else(interrupted);
            }
        }
    }

    /// Starts it beside us; its stdout and stderr go to files. Call it from a thread that lives as long
    /// as the child may: the death signal follows the thread. It is ended when the handle is dropped.
    pub fn background(&self, stdout: &Path, stderr: &Path, group: Group) -> Result<Background, RunError> {
        let expression = self.expression(group).stdout_path(stdout).stderr_path(stderr);
        Ok(Background { handle: self.start(&expression)?, group })
    }

    fn lost(&self, source: io::Error) -> RunError {
        RunError::Spawn { program: self.name(), source }
    }
}

impl std::fmt::Display for Cmd {
    /// As it could be typed into a shell; what it reads is not shown.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let words = std::iter::once(&self.program).chain(&self.args).map(|word| word.to_string_lossy());
        let quoted: Vec<String> = words
            .map(|word| shlex::try_quote(&word).map_or_else(|_| "?".to_owned(), std::borrow::Cow::into_owned))
            .collect();
        f.write_str(&quoted.join(" "))
    }
}

/// A child that waits for the rest of what it reads. It is killed when this is dropped: it has done nothing yet.
pub struct Ahead {
    cmd: Cmd,
    child: Idle,
    rest: mpsc::Sender<Vec<u8>>,
}

struct Idle(duct::Handle);

impl Ahead {
    /// Gives it the rest, and waits for its end. Its limit begins here.
    pub fn output(self, rest: Vec<u8>) -> Result<Finished, RunError> {
        // Who cannot be written to any more has ended, and how is seen below.
        let _ended = self.rest.send(rest);
        drop(self.rest);
        self.cmd.wait(&self.child.0)
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            end_by(&self.0, Group::Own, &[Signal::KILL]);
        }
    }
}

/// A child that runs beside us.
pub struct Background {
    handle: duct::Handle,
    group: Group,
}

impl Background {
    /// Has it ended, and how? Waits for that up to `wait`.
    pub fn ended(&self, wait: Duration) -> Option<std::process::ExitStatus> {
        self.handle.wait_timeout(wait).ok().flatten().map(|output| output.status)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if self.ended(Duration::ZERO).is_none() {
            end(&self.handle, self.group);
        }
    }
}

/// In which process group a child stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// It leads one of its own: Ctrl-C does not reach it, and it is ended with all that it started. A terminal stops it
    /// when it reads from there.
    Own,
    /// In ours.
    Ours,
}

/// How a program ended and what it said.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Its exit code, or 128 + the signal that ended it.
    pub code: i32,
    /// What it wrote to stdout, unless that was streamed.
    pub stdout: Vec<u8>,
    /// What it wrote to stderr.
    pub stderr: Vec<u8>,
    /// How long it ran.
    pub elapsed: Duration,
}

impl Finished {
    fn new(output: &std::process::Output, start: Instant) -> Self {
        use std::os::unix::process::ExitStatusExt;
        let signal = || output.status.signal().map_or(-1, |signal| 128 + signal);
        Self {
            code: output.status.code().unwrap_or_else(signal),
            stdout: output.stdout.clone(),
            stderr: output.stderr.clone(),
            elapsed: start.elapsed(),
        }
    }

    /// Its stdout as text, without blanks at the ends.
    pub fn out(&self) -> String {
        text(&self.stdout)
    }

    /// Its stderr as text, without blanks at the ends.
    pub fn err(&self) -> String {
        text(&self.stderr)
    }
}

/// What a program wrote to one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The beginning of it.
    pub bytes: Vec<u8>,
    /// Was there more?
    pub cut: bool,
}

impl Kept {
    /// As text; what is none is replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

/// How a program on our own stdin ended, and what it wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// Its exit code, or 128 + the signal that ended it.
    pub code: i32,
    /// What it wrote to stdout.
    pub stdout: Kept,
    /// What it wrote to stderr.
    pub stderr: Kept,
}

/// Reads to the end, whatever is kept of it: who writes must not be held.
fn kept(mut input: impl Read, most: usize) -> io::Result<Kept> {
    let mut bytes = Vec::new();
    input.by_ref().take(most as u64).read_to_end(&mut bytes)?;
    let cut = io::copy(&mut input, &mut io::sink())? > 0;
    Ok(Kept { bytes, cut })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

/// Why a program did not run to its own end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No such program.
    #[error("there is no `{program}` command on this machine")]
    NotFound {
        /// Its name.
        program: String,
    },
    /// The system would not run it.
    #[error("cannot run `{program}`")]
    Spawn {
        /// Its name.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// It took too long and was ended.
    #[error("`{program}` did not finish within {} s{}", .limit.as_secs_f64(), said(.partial.as_ref()))]
    Timeout {
        /// Its name.
        program: String,
        /// The limit that it broke.
        limit: Duration,
        /// What it had said.
        partial: Option<Finished>,
    },
    /// The run was asked to end.
    #[error("interrupted while `{program}` ran; it was ended")]
    Interrupted {
        /// Its name.
        program: String,
    },
}

fn said(partial: Option<&Finished>) -> String {
    match partial.map(|partial| (partial.err(), partial.out())) {
        Some((err, _)) if !err.is_empty() => format!("; it said: {err}"),
        Some((_, out)) if !out.is_empty() => format!("; it said: {out}"),
        _ => String::new(),
    }
}

impl Fact for RunError {
    fn exit(&self) -> Exit {
        match self {
            Self::Interrupted { .. } => Exit::Interrupted,
            _ => Exit::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NotFound { program } => Some(format!("sudo apt-get install {program}")),
            _ => None,
        }
    }
}

/// Is `program` on the `PATH`? Gives where.
pub fn which(program: &str) -> Option<PathBuf> {
    let executable =
        |path: &PathBuf| path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok();
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|dir| dir.join(OsStr::new(program)))
        .find(executable)
}

/// The child leads its own group, and gets SIGTERM when the thread that started it is gone.
fn own_group_and_death_signal(command: &mut Command) -> io::Result<()> {
    command.process_group(0);
    death_signal(command)
}

/// The child gets SIGTERM when the thread that started it is gone.
#[allow(unsafe_code, reason = "pre_exec: the closure only makes two system calls, both async-signal-safe")]
#[allow(clippy::unnecessary_wraps, reason = "the signature of duct's hook")]
fn death_signal(command: &mut Command) -> io::Result<()> {
    let parent = rustix::process::getpid();
    // SAFETY: prctl and getppid allocate nothing and take no lock.
    unsafe {
        command.pre_exec(move || {
            rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?;
            // We may have died between the fork and the line above.
            if rustix::process::getppid() == Some(parent) {
                Ok(())
            } else {
                Err(io::ErrorKind::BrokenPipe.into())
            }
        });
    }
    Ok(())
}

/// Ends a child, and all of a group of its own: SIGTERM, a moment, SIGKILL. Gives what it had said.
fn end(handle: &duct::Handle, group: Group) -> Option<Finished> {
    end_by(handle, group, &[Signal::TERM, Signal::KILL])
}

fn end_by(handle: &duct::Handle, group: Group, signals: &[Signal]) -> Option<Finished> {
    let start = Instant::now();
    let leader = handle.pids().first().and_then(|pid| Pid::from_raw(i32::try_from(*pid).ok()?))?;
    for signal in signals {
        // An error means that the group is already gone, which is what is wanted.
        let _gone = match group {
            Group::Own => rustix::process::kill_process_group(leader, *signal),
            Group::Ours => rustix::process::kill_process(leader, *signal),
        };
        let sent = Instant::now();
        while sent.elapsed() < GRACE {
            // Somebody else may hold its streams, such as the ssh that shares its connection: nobody waits for that.
            let gone = group == Group::Own && rustix::process::test_kill_process_group(leader).is_err();
            if let Ok(Some(output)) = handle.wait_timeout(LOOK_UP) {
                return Some(Finished::new(output, start));
            }
            if gone {
                return None;
            }
        }
    }
    None
}

/// The next line without its end, which is `\n`, `\r`, or too many bytes.
fn next_line(input: &mut impl Read) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    let mut byte = [0];
    loop {
        if input.read(&mut byte)? == 0 {
            return Ok((!line.is_empty()).then(|| String::from_utf8_lossy(&line).into_owned()));
        }
        let ends = matches!(byte[0], b'\n' | b'\r');
        if !ends {
            line.push(byte[0]);
        }
        if ends || line.len() >= LONGEST_LINE {
            return Ok(Some(String::from_utf8_lossy(&line).into_owned()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_captured_is_bounded_and_whoever_writes_more_is_not_held() {
        let sh = |line: &str| Cmd::new("sh", Duration::MAX).args(["-c", line]).captured(100_000).unwrap();
        let said = sh("printf 'a\\377'; echo b >&2; exit 7");
        assert_eq!(
            (said.code, said.stdout.text().as_str(), said.stderr.text().as_str()),
            (7, "a\u{fffd}", "b\n")
        );
        assert!(!said.stdout.cut && !said.stderr.cut);
        let said = sh("head -c 300000 /dev/zero; head -c 100000 /dev/zero >&2");
        assert_eq!((said.stdout.bytes.len(), said.stdout.cut), (100_000, true));
        assert_eq!((said.stderr.bytes.len(), said.stderr.cut), (100_000, false));
    }

    fn sh(script: &str, seconds: u64) -> Cmd {
        Cmd::new("sh", Duration::from_secs(seconds)).args(["-c", script])
    }

    #[test]
    fn captures_both_streams_and_the_code() {
        let finished = sh("cat; echo err >&2; exit 7", 5).stdin("in").output().unwrap();
        assert_eq!((finished.code, finished.out(), finished.err()), (7, "in".into(), "err".into()));
    }

    #[test]
    fn a_child_that_is_ahead_waits_for_its_rest_and_does_not_outlive_it() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let script = format!("echo $$ >{0}/pid; cat >{0}/all; echo said; exit 3", dir.path().display());
        let first = vec![b'x'; 200_000];
        let ahead = || sh(&script, 5).stdin(first.clone()).ahead().unwrap();
        let begun = |name: &str| {
            let start = Instant::now();
            while std::fs::metadata(at(name)).map_or(0, |meta| meta.len()) == 0 {
                assert!(start.elapsed() < Duration::from_secs(5));
                std::thread::sleep(Duration::from_millis(5));
            }
        };
        let one = ahead();
        begun("all");
        let finished = one.output(b"end".to_vec()).unwrap();
        assert_eq!((finished.code, finished.out()), (3, "said".to_owned()));
        assert_eq!(std::fs::read(at("all")).unwrap(), [&first[..], b"end"].concat());
        std::fs::remove_file(at("pid")).unwrap();
        let other = ahead();
        begun("pid");
        let pid = std::fs::read_to_string(at("pid")).unwrap();
        drop(other);
        assert!(!Path::new("/proc").join(pid.trim()).exists());
    }

    #[test]
    fn a_limit_ends_grandchildren_too_and_keeps_what_was_said() {
        let start = Instant::now();
        let error = Cmd { limit: Duration::from_millis(300), ..sh("echo url; sleep 60 & wait", 1) }.output();
        let Err(RunError::Timeout { partial: Some(partial), .. }) = error else { panic!("{error:?}") };
        assert_eq!(partial.out(), "url");
        assert!(start.elapsed() < Duration::from_secs(3), "the sleeping grandchild held us");
    }

    #[test]
    fn nobody_waits_for_who_holds_the_streams_of_what_was_ended() {
        let start = Instant::now();
        let held = "setsid sleep 5 & exec sleep 60";
        let error = Cmd { limit: Duration::from_millis(300), ..sh(held, 1) }.output();
        assert!(matches!(error, Err(RunError::Timeout { .. })), "{error:?}");
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = Cmd::new("ua-no-such-program", Duration::from_secs(1)).output().unwrap_err();
        assert_eq!(error.to_string(), "there is no `ua-no-such-program` command on this machine");
    }

    #[test]
    fn streams_lines_and_progress() {
        let mut lines = Vec::new();
        let finished = sh(r"printf 'a\rb\nc'; exit 3", 5)
            .stream(Duration::from_secs(5), &mut |line| lines.push(line.to_owned()));
        assert_eq!((finished.unwrap().code, lines), (3, vec!["a".to_owned(), "b".into(), "c".into()]));
    }

    #[test]
    fn silence_is_bounded() {
        let error = sh("echo one; sleep 60", 60).stream(Duration::from_millis(200), &mut |_| ());
        assert!(matches!(error, Err(RunError::Timeout { .. })), "{error:?}");
    }

    #[test]
    fn shown_as_it_could_be_typed() {
        assert_eq!(
            Cmd::new("ssh", Duration::ZERO).args(["-i", "a key", "x"]).to_string(),
            "ssh -i 'a key' x"
        );
    }
}
