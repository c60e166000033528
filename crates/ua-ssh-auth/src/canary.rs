//! The canary: everything that the tools do over SSH, tried in mode `tailscale_ssh` while the default stays `keys`.
//!
//! Two connections and ten execs. It leaves nothing on the VPS and one line in the ledger.

use std::ffi::OsString;
use std::path::Path;
use std::time::{Duration, Instant};

use ua_common::error::Fact;
use ua_common::exit::Exit;
use ua_common::interrupt;
use ua_common::report::{Check, Verdict};
use ua_common::run::Cmd;
use ua_common::settings::value::AuthMode;
use ua_common::transport::{Answer, Script, Transport, TransportError};

use crate::ledger::{Event, Outcome, Step, Versions};
use crate::prove::{LIMIT, Prover};

const CODE: Script = Script { name: "code", text: include_str!("../remote/code.sh") };
const OUT: Script = Script { name: "out", text: include_str!("../remote/out.sh") };
const IN: Script = Script { name: "in", text: include_str!("../remote/in.sh") };
const PLACE: Script = Script { name: "place", text: include_str!("../remote/place.sh") };
const CLEAR: Script = Script { name: "clear", text: include_str!("../remote/clear.sh") };

/// Lines of 8 bytes that make 3 MiB, which is more than any buffer on the way holds.
const LINES: u32 = 3 * 1024 * 1024 / 8;

/// Limit for moving 3 MiB.
const LONG: Duration = Duration::from_mins(2);

/// What it does, for `--dry-run`.
pub const STEPS: [(&str, &str); 9] = [
    ("tailscale_ssh.connect", "a connection in mode `tailscale_ssh`"),
    ("tailscale_ssh.proof", "method `none`, accepted by Tailscale SSH at the tailnet address"),
    ("tailscale_ssh.exec", "a command, and as whom it runs"),
    ("canary.codes", "exit codes come back as they are"),
    ("canary.out", "3 MiB of output, whole"),
    ("canary.in", "3 MiB of input, whole"),
    ("canary.rsync", "rsync there and back, in a private directory in /tmp that is removed again"),
    ("canary.reconnect", "a second connection, proved again"),
    ("canary.ledger", "one line in the ledger"),
];

/// The check of a step that failed on this machine.
const HERE: &str = "canary.here";

/// A step: what it saw, in words.
type StepFn<'a> = &'a dyn Fn() -> Result<String, StepError>;

/// Why a step is wrong.
#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error("`{script}` ended with {code}, not {wanted}: {said}")]
    Code { script: &'static str, code: i32, wanted: i32, said: String },
    #[error("of 3 MiB {what}, {got} bytes arrived, or they were not the same")]
    Damaged { what: &'static str, got: usize },
    #[error("rsync {what} ended with {code}: {said}")]
    Rsync { what: &'static str, code: i32, said: String },
    #[error("what came back by rsync is not what was sent: {0}")]
    Different(String),
    #[error("cannot use a temporary directory: {0}")]
    Local(#[from] std::io::Error),
    #[error(transparent)]
    Transport(#[from] TransportError),
}

impl Fact for StepError {
    fn exit(&self) -> Exit {
        match self {
            Self::Code { .. } | Self::Local(_) => Exit::Failed,
            Self::Damaged { .. } | Self::Rsync { .. } | Self::Different(_) => Exit::Transfer,
            Self::Transport(error) => error.exit(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Transport(error) => error.hint(),
            _ => Some("ua-ssh-auth check --mode tailscale_ssh".to_owned()),
        }
    }
}

/// Runs every step until one is wrong. Gives the versions that took part.
pub fn run(prover: &Prover<'_>, tailscale: &str, checks: &mut Vec<Check>) -> Versions {
    let mut versions = Versions {
        ua: env!("CARGO_PKG_VERSION").to_owned(),
        tailscale: tailscale.to_owned(),
        ssh: ssh_version(),
        server: String::new(),
    };
    let Some(transport) = prover.open(AuthMode::TailscaleSsh, checks) else { return versions };
    versions.server.clone_from(&transport.opening().evidence.server);

    let idle = prover.settings.transfer_idle_timeout.0;
    let steps: [(&'static str, StepFn<'_>); 4] = [
        ("canary.codes", &|| codes(&transport)),
        ("canary.out", &|| out(&transport)),
        ("canary.in", &|| back_in(&transport)),
        ("canary.rsync", &|| rsync(&transport, idle)),
    ];
    for (id, step) in steps {
        let _waiting = prover.out.waiting(format!("{id} on {}", transport.shown()));
        let start = Instant::now();
        let check = match step() {
            Ok(detail) => Check::pass(id, detail),
            Err(error @ StepError::Local(_)) => Check::failure(HERE, error),
            Err(error) => Check::failure(id, error),
        };
        let go_on = check.verdict != Verdict::Fail && !interrupt::requested();
        checks.push(check.since(start));
        if !go_on {
            return versions;
        }
    }
    drop(transport);
    let mut again = Vec::new();
    let start = Instant::now();
    let again_open = prover.prove(AuthMode::TailscaleSsh, &mut again).is_some();
    let failed = again.into_iter().find(|check| check.verdict == Verdict::Fail);
    let check = match failed {
        Some(failed) => Check { id: "canary.reconnect".into(), ..failed },
        None if again_open => {
            Check::pass("canary.reconnect", "a second connection was proved like the first")
        }
        None => Check::fail("canary.reconnect", Exit::Failed, "a second connection was not proved"),
    };
    checks.push(check.since(start));
    versions
}

/// The ledger's line about a canary, from its checks. Only what Tailscale SSH did is held against it: a run that was
/// refused, lost or damaged. Not what was wrong on this machine or with the tailnet, and not a check that nobody was
/// there to approve.
pub fn event(checks: &[Check], interrupted: bool, versions: Versions, took: Duration) -> Event {
    let failure = checks.iter().find(|check| check.verdict == Verdict::Fail);
    let nothing_tried = |check: &Check| {
        check.id == HERE
            || !matches!(
                check.exit,
                Exit::Failed | Exit::SshUnreachable | Exit::SshDenied | Exit::HostKey | Exit::Transfer
            )
    };
    let (verdict, exit) = match failure {
        _ if interrupted => (Outcome::Skip, Exit::Interrupted),
        None => (Outcome::Pass, Exit::Ok),
        Some(check) if nothing_tried(check) => (Outcome::Skip, check.exit),
        Some(check) => (Outcome::Fail, check.exit),
    };
    Event::Canary {
        verdict,
        exit_code: exit.code(),
        duration_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        versions,
        steps: checks.iter().map(Step::of).collect(),
    }
}

fn ssh_version() -> String {
    let said = Cmd::new("ssh", Duration::from_secs(5)).arg("-V").output().map(|finished| finished.err());
    said.ok().and_then(|said| said.split(',').next().map(str::to_owned)).unwrap_or_default()
}

fn script(
    transport: &Transport,
    script: Script,
    args: &[&str],
    limit: Duration,
) -> Result<Answer, StepError> {
    expect(transport, script, args, limit, 0)
}

fn expect(
    transport: &Transport,
    script: Script,
    args: &[&str],
    limit: Duration,
    wanted: i32,
) -> Result<Answer, StepError> {
    let answer = transport.script(script, args, limit)?;
    if answer.code == wanted {
        Ok(answer)
    } else {
        let said = answer.stderr.trim().to_owned();
        Err(StepError::Code { script: script.name, code: answer.code, wanted, said })
    }
}

fn codes(transport: &Transport) -> Result<String, StepError> {
    // 255 is also what ssh itself ends with.
    for code in [7, 255] {
        expect(transport, CODE, &[&code.to_string()], LIMIT, code)?;
    }
    Ok("7 and 255 came back as they were".to_owned())
}

/// What `out.sh` writes.
fn payload() -> String {
    (0..LINES).map(|line| format!("{line:07}\n")).collect()
}

fn out(transport: &Transport) -> Result<String, StepError> {
    let answer = script(transport, OUT, &[&LINES.to_string()], LONG)?;
    same("of output", &answer)
}

fn back_in(transport: &Transport) -> Result<String, StepError> {
    let answer = script(transport, IN, &[&payload()], LONG)?;
    same("of input", &answer)
}

fn same(what: &'static str, answer: &Answer) -> Result<String, StepError> {
    if answer.stdout == payload() {
        Ok(format!("3 MiB {what} arrived whole"))
    } else {
        Err(StepError::Damaged { what, got: answer.stdout.len() })
    }
}

fn rsync(transport: &Transport, idle: Duration) -> Result<String, StepError> {
    let place = script(transport, PLACE, &[], LIMIT)?.stdout.trim().to_owned();
    let moved = there_and_back(transport, &place, idle);
    // Whatever became of it, nothing is left behind; a first error says more than this one.
    let _also_when_interrupted = interrupt::defer();
    let cleared = script(transport, CLEAR, &[&place], LIMIT);
    let detail = moved?;
    cleared?;
    Ok(detail)
}

fn there_and_back(transport: &Transport, place: &str, idle: Duration) -> Result<String, StepError> {
    let here = tempfile::tempdir()?;
    let (from, to) = (here.path().join("from"), here.path().join("to"));
    std::fs::create_dir(&from)?;
    std::fs::create_dir(&to)?;
    std::fs::write(from.join("large"), payload())?;
    std::fs::write(from.join("a name with 'quotes', $signs and \nlines"), "small\n")?;
    let inside = |path: &Path| {
        let mut path = path.as_os_str().to_owned();
        path.push("/");
        path
    };
    let remote = transport.remote(&format!("{place}/"));
    for (what, ends) in [("there", [inside(&from), remote.clone()]), ("back", [remote, inside(&to)])] {
        let args = [OsString::from("-rt")].into_iter().chain(ends);
        let finished = transport.rsync(args, idle, &mut |_| ())?;
        if finished.code != 0 {
            return Err(StepError::Rsync { what, code: finished.code, said: finished.err() });
        }
    }
    for entry in std::fs::read_dir(&from)? {
        let name = entry?.file_name();
        if std::fs::read(from.join(&name))? != std::fs::read(to.join(&name)).unwrap_or_default() {
            return Err(StepError::Different(name.to_string_lossy().escape_debug().to_string()));
        }
    }
    Ok("3 MiB and a file of an odd name went there and back".to_owned())
}
