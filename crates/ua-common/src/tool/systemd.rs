//! `systemctl --user` and `loginctl`: units of the person at work here, and whether they outlive the login.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;

use crate::error::Fact;
use crate::exit::Exit;
use crate::run::{Cmd, Finished, RunError};

/// Every answer of a manager is a matter of moments; a stop waits for what it stops.
const LIMIT: Duration = Duration::from_secs(30);

/// Why systemd did not do it.
#[derive(Debug, thiserror::Error)]
pub enum SystemdError {
    /// No such program.
    #[error("there is no `{program}` command on this machine")]
    Missing {
        /// Its name.
        program: &'static str,
    },
    /// Nobody answers for this user's units.
    #[error("the user manager of systemd does not answer: {said}")]
    NoManager {
        /// What the program said.
        said: String,
    },
    /// The manager refused.
    #[error("`systemctl --user {verb}` failed: {said}")]
    Failed {
        /// What was asked.
        verb: String,
        /// What the program said.
        said: String,
    },
    /// The program could not be run.
    #[error(transparent)]
    Run(RunError),
}

impl Fact for SystemdError {
    fn exit(&self) -> Exit {
        match self {
            Self::Run(error) => error.exit(),
            Self::Missing { .. } | Self::NoManager { .. } | Self::Failed { .. } => Exit::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Missing { .. } => "sudo apt-get install systemd".to_owned(),
            // What su, sudo, cron and containers leave out.
            Self::NoManager { .. } => {
                "log in as the user himself, or: sudo loginctl enable-linger \"$USER\"; export XDG_RUNTIME_DIR=/run/user/$(id -u)"
                    .to_owned()
            }
            Self::Failed { .. } => "journalctl --user -n 50".to_owned(),
            Self::Run(_) => return None,
        })
    }
}

fn run(program: &'static str, cmd: Cmd) -> Result<Finished, SystemdError> {
    cmd.env("LC_ALL", "C").output().map_err(|error| match error {
        RunError::NotFound { .. } => SystemdError::Missing { program },
        error => SystemdError::Run(error),
    })
}

/// `systemctl --user` with a verb and its arguments.
fn systemctl(args: &[&str]) -> Result<Finished, SystemdError> {
    run("systemctl", Cmd::new("systemctl", LIMIT).arg("--user").args(args))
}

/// What it said, on one line.
fn said(finished: &Finished) -> String {
    let said = finished.err();
    if said.is_empty() { format!("exit code {}", finished.code) } else { said.replace('\n', "; ") }
}

fn must(args: &[&str]) -> Result<(), SystemdError> {
    let finished = systemctl(args)?;
    if finished.code == 0 {
        return Ok(());
    }
    Err(SystemdError::Failed { verb: args.join(" "), said: said(&finished) })
}

/// Does a manager answer for this user? Asked before anything is changed.
pub fn answers() -> Result<(), SystemdError> {
    let finished = systemctl(&["show", "--property=Version"])?;
    if finished.code == 0 {
        return Ok(());
    }
    Err(SystemdError::NoManager { said: said(&finished) })
}

/// Has the manager read the unit files anew.
pub fn reload() -> Result<(), SystemdError> {
    must(&["daemon-reload"])
}

/// Enables `unit` exactly as its file says now, whatever an older file said, and starts it anew.
pub fn enable_now(unit: &str) -> Result<(), SystemdError> {
    must(&["reenable", unit])?;
    must(&["restart", unit])
}

/// Disables `unit` and stops it. That it was neither enabled nor running counts as done; look with [`show`].
pub fn disable_now(unit: &str) -> Result<(), SystemdError> {
    systemctl(&["disable", "--now", unit]).map(drop)
}

/// Drops what the manager remembers of a failure of `unit`, whose file is gone.
pub fn forget(unit: &str) -> Result<(), SystemdError> {
    systemctl(&["reset-failed", unit]).map(drop)
}

/// Properties of `unit`; of a unit that does not exist too, whose `LoadState` says so.
pub fn show(unit: &str, properties: &[&str]) -> Result<BTreeMap<String, String>, SystemdError> {
    let wanted = format!("--property={}", properties.join(","));
    let finished = systemctl(&["show", unit, &wanted])?;
    if finished.code != 0 {
        let verb = format!("show {unit}");
        return Err(SystemdError::Failed { verb, said: said(&finished) });
    }
    let pair = |line: &str| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    Ok(finished.out().lines().filter_map(pair).collect())
}

/// The arguments of the first command of an `ExecStart` property, separated by blanks; the program comes first.
pub fn command(exec_start: &str) -> Option<&str> {
    let (_, rest) = exec_start.split_once(" argv[]=")?;
    rest.split(" ; ignore_errors=").next()
}

/// One line of `list-timers`, in microseconds since 1970; 0 is never.
#[derive(Deserialize)]
struct Line {
    next: Option<u64>,
}

/// When a timer elapses next. `None`: not known, or not before what it started has ended.
pub fn next_run(timer: &str) -> Result<Option<Timestamp>, SystemdError> {
    let finished = systemctl(&["list-timers", "--all", "--output=json", timer])?;
    Ok(parse_next(&finished.stdout))
}

fn parse_next(json: &[u8]) -> Option<Timestamp> {
    let lines: Vec<Line> = serde_json::from_slice(json).ok()?;
    let next = lines.first()?.next.filter(|next| *next > 0)?;
    Timestamp::from_microsecond(i64::try_from(next).ok()?).ok()
}

/// Do the units of this user outlive the login? `None`: logind does not say.
pub fn lingers(uid: u32) -> Option<bool> {
    let user = uid.to_string();
    let cmd = Cmd::new("loginctl", LIMIT).args(["show-user", &user, "--property=Linger", "--value"]);
    match run("loginctl", cmd).ok()?.out().as_str() {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    }
}

/// Returns the whole seconds of a time span as `systemctl show` prints it, such as `1min 30s`; nothing for `infinity`
/// and for what is no time span. The units are those of systemd.time(7).
pub fn seconds(span: &str) -> Option<u64> {
    const UNITS: [(&str, f64); 9] = [
        ("us", 1e-6),
        ("ms", 1e-3),
        ("s", 1.0),
        ("min", 60.0),
        ("h", 3600.0),
        ("d", 86_400.0),
        ("w", 604_800.0),
        ("month", 2_629_800.0),
        ("y", 31_557_600.0),
    ];
    let mut total = 0.0;
    for part in span.split(' ') {
        let at = part.find(|c: char| c.is_ascii_alphabetic())?;
        let (number, unit) = part.split_at(at);
        let (_, length) = UNITS.iter().find(|(name, _)| *name == unit)?;
        total += number.parse::<f64>().ok()? * length;
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time span is not negative")]
    Some(total.round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_of_a_unit() {
        // As systemd 252 shows it.
        let shown = "{ path=/bin/sh ; argv[]=/bin/sh -c exit 12 a b  q\"x 100% $$HOME ; \u{e9} ; ignore_errors=no ; \
                     start_time=[n/a] ; stop_time=[n/a] ; pid=0 ; code=(null) ; status=0/0 }";
        assert_eq!(command(shown), Some("/bin/sh -c exit 12 a b  q\"x 100% $$HOME ; \u{e9}"));
        assert_eq!(command(""), None);
    }

    #[test]
    fn the_next_run() {
        // As systemd 252 lists it.
        let listed = br#"[{"next":1795642022906957,"left":1795642022906957,"last":0,"passed":0,"unit":"t.timer","activates":"t.service"}]"#;
        assert_eq!(parse_next(listed).unwrap().to_string(), "2026-11-25T21:27:02.906957Z");
        for none in [&b"[]"[..], br#"[{"next":0}]"#, br#"[{"next":null}]"#, b"NEXT LEFT", b""] {
            assert_eq!(parse_next(none), None);
        }
    }

    #[test]
    fn time_spans_of_systemctl_show_are_read() {
        for (span, expected) in [
            ("1min 30s", Some(90)),
            ("30min", Some(1800)),
            ("1h 30min", Some(5400)),
            ("1.500s", Some(2)),
            ("250ms", Some(0)),
            ("1d", Some(86_400)),
            ("infinity", None),
            ("", None),
            ("[not set]", None),
        ] {
            assert_eq!(seconds(span), expected, "{span}");
        }
    }
}
