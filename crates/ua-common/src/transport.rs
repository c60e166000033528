//! One multiplexed SSH connection per run, and the only way to run anything on the VPS.
//!
//! How the connection was opened is read from ssh's own log, so that a mode is proved and not assumed.
//! The master is a child of ours with a death signal, so neither it nor its socket outlives the run. Remote work is a
//! POSIX `sh` script that travels on stdin, whole or not at all: it stands in one subshell, so a text cut short is a
//! syntax error that runs nothing, and only a last line of ours proves that it came to its end.

use std::ffi::OsString;
use std::hash::{BuildHasher, Hasher};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::error::{Fact, Failure};
use crate::exit::Exit;
use crate::host_keys::{self, HostKeys};
use crate::interrupt;
use crate::output::Printer;
use crate::place;
use crate::report::{Check, Verdict};
use crate::run::{self, Background, Captured, Cmd, Finished, Group, RunError};
use crate::settings::value::{AuthMode, SshKey, Value as _};
use crate::state::{self, RunDir};
use crate::tool::ssh::{self, Evidence, SshError, Target, Use};
use crate::tool::ssh_keygen;

/// Most that a script on a connection of its own may write, in bytes.
const MOST: u64 = 16 << 20;

/// How often a login looks up. ssh itself takes longer for every step.
const LOOK_UP: Duration = Duration::from_millis(2);

/// After this long without an answer to its dialling, the other end is asked for a pong.
const SILENCE: Duration = Duration::from_secs(1);

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
    /// It said more than any script of ours says.
    #[error("`{script}` on `{host}` wrote more than {} MiB", MOST >> 20)]
    Flood {
        /// The target.
        host: String,
        /// The script.
        script: &'static str,
    },
    /// ssh's log of the connection contradicts itself.
    #[error("`{host}` made ssh log how the connection was opened in two ways, so neither is believed")]
    Forged {
        /// The target.
        host: String,
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
            Self::Flood { .. } => Exit::Failed,
            Self::Forged { .. } => Exit::SshDenied,
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

/// How a connection was opened.
#[derive(Clone, Debug)]
pub struct Opening {
    /// Whom it connects to, and how.
    pub target: Target,
    /// What ssh saw.
    pub evidence: Evidence,
    /// Where a check was approved for it.
    pub approved: Option<String>,
    /// How long it took.
    pub took: Duration,
}

impl Opening {
    /// What a run reports of its connection: in mode `keys` an answer by Tailscale SSH is a warning, since the key
    /// was not tried.
    pub fn checks(&self) -> Vec<Check> {
        let approved = self.approved.as_ref();
        let mut checks: Vec<Check> = approved
            .map(|url| Check::pass("ssh.check", format!("the check was approved at {url}")))
            .into_iter()
            .collect();
        let to = format!("one connection to `{}`", self.target.shown());
        let check = match self.evidence.proves(&self.target) {
            Ok(proof) => Check::pass("ssh", format!("{to}: {proof}")),
            Err(why) => Check::warn("ssh", format!("{to}, but {why}")).hint("ua-ssh-auth check --mode keys"),
        };
        checks.push(check.took(self.took));
        checks
    }
}

/// An open connection.
pub struct Transport {
    // Dropped first: the master ends before the directory of its socket goes.
    _master: Background,
    opening: Opening,
    dir: RunDir,
}

impl Transport {
    /// Opens the connection. Says where to approve a Tailscale SSH check and waits for that up to `check_wait`.
    /// A connection in mode `tailscale_ssh` counts only if it proves that mode.
    pub fn open(target: Target, check_wait: Duration, out: &Printer) -> anyhow::Result<Self> {
        Self::open_in(Group::Own, target, check_wait, out)
    }

    /// The same, with the connection in this process group. What is typed for a line that is [`Transport::attached`] is
    /// read by the connection itself, and a terminal stops whoever reads from another group than the one in its
    /// foreground.
    pub fn open_in(
        group: Group,
        target: Target,
        check_wait: Duration,
        out: &Printer,
    ) -> anyhow::Result<Self> {
        let login = Login { group, ..Login::new(target, check_wait, out)? };
        let (master, opening) = login.enter(None)?;
        Ok(Self { _master: master, opening, dir: login.dir })
    }

    /// A new connection to the same target, whatever became of this one.
    pub fn fresh(&self, check_wait: Duration, out: &Printer) -> anyhow::Result<Self> {
        Self::open(self.opening.target.clone(), check_wait, out)
    }

    /// A connection for one script and nothing else; quicker than an open one by what sharing costs.
    pub fn once(
        target: Target,
        script: Script,
        args: &[&str],
        limit: Duration,
        check_wait: Duration,
        out: &Printer,
    ) -> anyhow::Result<(Opening, Result<Answer, TransportError>)> {
        let (text, end) = wrap(script, args).map_err(Failure::from)?;
        let login = Login::new(target, check_wait, out)?;
        let (ssh, opening) = login.enter(Some(&text))?;
        let start = Instant::now();
        let host = opening.target.shown();
        let code = loop {
            if let Some(status) = ssh.ended(LOOK_UP) {
                break status.code().unwrap_or(-1);
            }
            let error = if interrupt::requested() {
                RunError::Interrupted { program: "ssh".to_owned() }
            } else if login.size("stdout") > MOST || login.size("stderr") > MOST {
                return Ok((opening, Err(TransportError::Flood { host, script: script.name })));
            } else if start.elapsed() > limit {
                RunError::Timeout { program: "ssh".to_owned(), limit, partial: None }
            } else {
                continue;
            };
            return Ok((opening, Err(error.into())));
        };
        // Now that all of it is there, the log must still say the same.
        let log = login.log();
        if Evidence::read(&log).as_ref() != Some(&opening.evidence) {
            return Ok((opening, Err(TransportError::Forged { host })));
        }
        let stderr = login.stderr().trim().to_owned();
        let said = ssh::said(&format!("{log}{stderr}"));
        let answer = read_answer(login.read("stdout").as_bytes(), &end, stderr);
        let lost = || TransportError::Lost { host, script: script.name, code, said };
        let answer = answer.ok_or_else(lost);
        Ok((opening, answer))
    }

    /// How it was opened.
    pub fn opening(&self) -> &Opening {
        &self.opening
    }

    /// `user@name` of the other end.
    pub fn shown(&self) -> String {
        self.opening.target.shown()
    }

    /// Runs a script to its end. A code other than 0 is not an error here.
    pub fn script(&self, script: Script, args: &[&str], limit: Duration) -> Result<Answer, TransportError> {
        let (answer, stdout) = self.bytes(script, args, limit)?;
        Ok(Answer { stdout: String::from_utf8_lossy(&stdout).into_owned(), ..answer })
    }

    /// Runs a script whose stdout is not text, and gives that beside its answer.
    pub fn bytes(
        &self,
        script: Script,
        args: &[&str],
        limit: Duration,
    ) -> Result<(Answer, Vec<u8>), TransportError> {
        let (text, end) = wrap(script, args)?;
        self.read(script, &end, self.shell(limit).stdin(text).output()?)
    }

    /// Sends a script ahead: when it is wanted, the other end has it and starts at once. `limit` counts from then on. Call
    /// it from a thread that lives that long.
    pub fn ahead(&self, script: Script, args: &[&str], limit: Duration) -> Result<Ahead<'_>, TransportError> {
        let (mut text, end) = wrap(script, args)?;
        // Nothing of it runs before the parenthesis is closed, and nothing at all if that never comes.
        let rest = text.split_off(text.rfind(CLOSE).unwrap_or_default());
        let shell = self.shell(limit).stdin(text).ahead()?;
        Ok(Ahead { transport: self, script, shell, rest, end })
    }

    fn read(
        &self,
        script: Script,
        end: &str,
        mut finished: Finished,
    ) -> Result<(Answer, Vec<u8>), TransportError> {
        let Some((length, code)) = read_end(&finished.stdout, end) else {
            return Err(self.lost(script, &finished));
        };
        finished.stdout.truncate(length);
        Ok((Answer { code, stdout: String::new(), stderr: finished.err() }, finished.stdout))
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

    /// Runs a line of sh on our own streams, with a terminal of its own if `tty`, and gives its code; 255 may also be
    /// ssh's, when the connection broke.
    pub fn attached(&self, line: &str, tty: bool) -> Result<i32, TransportError> {
        Ok(self.line(line, tty).attached()?)
    }

    /// The same with our own stdin only: what it writes is kept, of each stream the first `most` bytes.
    pub fn captured(&self, line: &str, most: usize) -> Result<Captured, TransportError> {
        Ok(self.line(line, false).captured(most)?)
    }

    /// A line of sh. It travels in a form that every login shell takes for one plain word, which that sh takes off its
    /// arguments; what it has to complain of it signs with its own name.
    fn line(&self, line: &str, tty: bool) -> Cmd {
        let word = base64(line.as_bytes());
        let command = format!("sh -c 'eval \"shift; $(printf %s \"$1\" | base64 -d)\"' sh {word}");
        // Behind a terminal ssh would say that the connection was closed, which goes on.
        let options = ["-o", "ProxyCommand=false", "-o", "LogLevel=ERROR"];
        ssh_cmd(&self.dir, &options, Duration::MAX)
            .arg(if tty { "-tt" } else { "-T" })
            .arg("--")
            .arg(&self.opening.target.name)
            .arg(command)
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

    /// A directory for this run alone; whatever becomes of the run, the next one removes it.
    pub fn scratch(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// The remote end of an rsync.
    pub fn remote(&self, path: &str) -> OsString {
        format!("{}:{path}", self.opening.target.name).into()
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("config")
    }

    /// rsync splits `-e` at blanks, and knows quotes, which are doubled within themselves.
    fn rsync_word(&self) -> String {
        format!("'{}'", self.config().to_string_lossy().replace('\'', "''"))
    }

    /// A remote `sh` over the open connection only: without the master it fails rather than dial anew.
    fn shell(&self, limit: Duration) -> Cmd {
        ssh_cmd(&self.dir, &["-o", "ProxyCommand=false"], limit)
            .args(["-T", "--"])
            .arg(&self.opening.target.name)
            .arg("sh -s")
    }

    fn lost(&self, script: Script, finished: &Finished) -> TransportError {
        let (host, said) = (self.shown(), finished.err());
        TransportError::Lost { host, script: script.name, code: finished.code, said }
    }
}

/// A script that waits at the other end until it is wanted.
pub struct Ahead<'a> {
    transport: &'a Transport,
    script: Script,
    shell: run::Ahead,
    rest: String,
    end: String,
}

impl Ahead<'_> {
    /// Runs it to its end. Gives its stdout beside its answer.
    pub fn bytes(self) -> Result<(Answer, Vec<u8>), TransportError> {
        let finished = self.shell.output(self.rest.into_bytes())?;
        self.transport.read(self.script, &self.end, finished)
    }
}

/// Looks at everything that can be wrong on this side, before anything is contacted, and records the host keys that the
/// tailnet gives.
pub fn prepare(target: &Target) -> anyhow::Result<HostKeys> {
    match (target.auth, &target.key) {
        (AuthMode::Keys, SshKey::File(key)) => ssh_keygen::inspect(key).map_err(Failure::from)?,
        (AuthMode::TailscaleSsh, _) if !target.in_tailnet => {
            return Err(Failure::from(SshError::Unasked { host: target.shown() }).into());
        }
        _ => {}
    }
    let host_keys = HostKeys::below(&state::dir()?);
    if !target.host_keys.is_empty() {
        host_keys.record(&target.name, &target.addresses, &target.host_keys, false).map_err(Failure::from)?;
    }
    Ok(host_keys)
}

/// A login under way.
struct Login<'a> {
    target: Target,
    dir: RunDir,
    host_keys: HostKeys,
    check_wait: Duration,
    group: Group,
    out: &'a Printer,
}

impl<'a> Login<'a> {
    fn new(target: Target, check_wait: Duration, out: &'a Printer) -> anyhow::Result<Self> {
        let host_keys = prepare(&target)?;
        Ok(Self { target, dir: RunDir::new()?, host_keys, check_wait, group: Group::Own, out })
    }

    /// What ssh itself logged.
    fn log(&self) -> String {
        self.read("log")
    }

    /// What came from the server: a banner, and the script's stderr.
    fn stderr(&self) -> String {
        self.read("stderr")
    }

    fn size(&self, name: &str) -> u64 {
        std::fs::metadata(self.dir.path().join(name)).map_or(0, |meta| meta.len())
    }

    fn read(&self, name: &str) -> String {
        let bytes = std::fs::read(self.dir.path().join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Logs in: to run one script, or without one to share the connection.
    fn enter(&self, script: Option<&str>) -> anyhow::Result<(Background, Opening)> {
        let start = Instant::now();
        let mut ssh = self.attempt(script, None)?;
        // A login that may last as long as a check needs other limits than one that may not.
        if ssh.is_none() && !self.check_wait.is_zero() {
            ssh = self.attempt(script, Some(self.check_wait))?;
        }
        let log = self.log();
        let url = self.check_url(&log);
        let (shown, mode) = (self.target.shown(), self.target.auth.show());
        let Some(ssh) = ssh else {
            let url = url.unwrap_or_default();
            if self.check_wait.is_zero() {
                self.asked(&url);
            }
            return Err(Failure::from(SshError::Check { host: shown, url }).into());
        };
        let evidence = Evidence::read(&log).ok_or_else(|| {
            Failure::new(Exit::Failed, "ssh did not say how the connection was opened").hint("ssh -V")
        })?;
        if let (AuthMode::TailscaleSsh, Err(why)) = (self.target.auth, evidence.proves(&self.target)) {
            return Err(Failure::from(SshError::Unproved { host: shown, mode, why }).into());
        }
        let opening = Opening { target: self.target.clone(), evidence, approved: url, took: start.elapsed() };
        Ok((ssh, opening))
    }

    /// Starts ssh and waits until it is in. Without `patience` it ends with nothing as soon as a check is asked for,
    /// else when nobody approved it in time.
    fn attempt(
        &self,
        script: Option<&str>,
        patience: Option<Duration>,
    ) -> anyhow::Result<Option<Background>> {
        let (target, shown) = (&self.target, self.target.shown());
        let socket = self.dir.path().join("s");
        // sun_path holds 108 bytes, and ssh appends 17 of its own while it makes the socket.
        if socket.as_os_str().len() > 90 {
            return Err(Failure::from(SshError::LongPath(socket)).into());
        }
        let config = Use::Run { socket: &socket, check_wait: patience };
        let config = target.config(config, self.host_keys.path()).map_err(Failure::from)?;
        let in_dir = |name: &str| self.dir.path().join(name);
        // The log tells how we were let in. In a file of its own, a banner cannot mix with it. ssh appends to it.
        for (name, text) in [("config", config.as_str()), ("log", "")] {
            std::fs::write(in_dir(name), text)
                .map_err(|error| Failure::from(SshError::Local(in_dir(name), error.to_string())))?;
        }
        let cmd = ssh_cmd(&self.dir, &["-o", "LogLevel=DEBUG1"], Duration::MAX).arg("-E").arg(in_dir("log"));
        let cmd = match script {
            None => cmd.args(["-M", "-N", "--"]).arg(&target.name),
            Some(text) => cmd.args(["-T", "--"]).arg(&target.name).arg("sh -s").stdin(text),
        };
        self.out.detail(&cmd.to_string());
        let ssh = cmd.background(&in_dir("stdout"), &in_dir("stderr"), self.group).map_err(Failure::from)?;
        let mut waiting = Some(self.out.waiting(format!("connecting to {shown}")));
        let mut _approval = None;
        let start = Instant::now();
        let (mut check, mut answers) = (false, !target.in_tailnet);
        loop {
            let ended = ssh.ended(LOOK_UP).is_some();
            let log = self.log();
            let inside = if script.is_some() { Evidence::read(&log).is_some() } else { socket.exists() };
            if inside && (script.is_some() || !ended) {
                return Ok(Some(ssh));
            }
            if interrupt::requested() {
                return Err(Failure::from(RunError::Interrupted { program: "ssh".to_owned() }).into());
            }
            if ended {
                return Err(Failure::from(self.judge(&log)).into());
            }
            if !check && let Some(url) = self.check_url(&log) {
                check = true;
                if patience.is_none() {
                    return Ok(None);
                }
                waiting.take();
                self.asked(&url);
                _approval = Some(self.out.spinner(format!("waiting for the approval at {url}")));
            }
            if !answers && start.elapsed() > SILENCE {
                answers = true;
                if !ssh::dialled(&log) {
                    self.pong()?;
                }
            }
            // ConnectTimeout bounds the dialling; the login that follows gets as long again.
            let limit = if check { self.check_wait } else { target.connect_timeout * 2 };
            if start.elapsed() > limit {
                if check {
                    return Ok(None);
                }
                let said = format!("no login within {} s", limit.as_secs());
                return Err(Failure::from(SshError::Unreachable { host: shown, said }).into());
            }
        }
    }

    /// Whoever is away is told long before ssh gives up dialling.
    fn pong(&self) -> Result<(), Failure> {
        let Target { name, addresses, pong_timeout, .. } = &self.target;
        let checks = place::pong(name, addresses, *pong_timeout);
        let away = checks.into_iter().find(|check| check.verdict == Verdict::Fail);
        match away {
            Some(check) if !ssh::dialled(&self.log()) => {
                let failure = Failure::new(check.exit, check.detail);
                Err(if let Some(hint) = check.hint { failure.hint(hint) } else { failure })
            }
            _ => Ok(()),
        }
    }

    /// Where a check is to be approved. Only Tailscale SSH asks for one; what another server's banner says is not
    /// for us to pass on.
    fn check_url(&self, log: &str) -> Option<String> {
        let tailscale = log.lines().any(|line| line.ends_with("remote software version Tailscale"));
        tailscale.then(|| ssh::check_url(&self.stderr()).map(str::to_owned)).flatten()
    }

    /// Tells the person at once, whatever the report will say.
    fn asked(&self, url: &str) {
        let host = self.target.shown();
        self.out.attention(&format!("`{host}` wants an interactive check; approve it at"), url);
    }

    fn judge(&self, log: &str) -> SshError {
        let given = match self.host_keys.of(&self.target.name) {
            Ok(recorded) if !self.target.host_keys.is_empty() => Some(host_keys::words(&recorded)),
            _ => None,
        };
        ssh::judge(&self.target, given, &format!("{log}{}", self.stderr()))
    }
}

fn ssh_cmd(dir: &RunDir, options: &[&str], limit: Duration) -> Cmd {
    Cmd::new("ssh", limit).arg("-F").arg(dir.path().join("config")).args(options.iter().copied())
}

/// How much a script wrote, and its code, if it proves by its last line that it came to its end.
fn read_end(stdout: &[u8], end: &str) -> Option<(usize, i32)> {
    let line = format!("\n{end} ");
    let length = stdout.windows(line.len()).rposition(|window| window == line.as_bytes())?;
    let code = std::str::from_utf8(&stdout[length + line.len()..]).ok()?;
    Some((length, code.trim_end().parse().ok()?))
}

fn read_answer(stdout: &[u8], end: &str, stderr: String) -> Option<Answer> {
    let (length, code) = read_end(stdout, end)?;
    Some(Answer { code, stdout: String::from_utf8_lossy(&stdout[..length]).into_owned(), stderr })
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for part in bytes.chunks(3) {
        let all =
            part.iter().chain([0, 0].iter()).take(3).fold(0_u32, |all, byte| all << 8 | u32::from(*byte));
        for place in 0..4 {
            let six = all >> (18 - 6 * place) & 63;
            text.push(if place > part.len() { '=' } else { char::from(LETTERS[six as usize]) });
        }
    }
    text
}

/// Where the script ends.
const CLOSE: &str = "\n)\n";

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
        "set -- {quoted}\n(\n{}{CLOSE}ua_code=$?\nprintf '\\n%s %s\\n' {end} \"$ua_code\"\nexit \"$ua_code\"\n",
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
