//! `run`, `run-file`, `logs`: what goes straight to a person's streams.

use std::io::IsTerminal as _;
use std::path::Path;
use std::time::Duration;

use ua_common::error::Failure;
use ua_common::exit::Exit;
use ua_common::output::printable;
use ua_common::transport::{Script, TransportError};

use crate::session::Session;
use crate::units::Chosen;

const LOGS: Script = Script { name: "logs", text: include_str!("../remote/logs.sh") };
const PLACE: Script = Script { name: "place", text: include_str!("../remote/place.sh") };
const LIMIT: Duration = Duration::from_mins(1);

/// Largest program that is carried over, in bytes.
const LARGEST: u64 = 1 << 20;

/// A command as a line of sh: each word means just itself.
pub fn line(words: &[String]) -> Result<String, Failure> {
    shlex::try_join(words.iter().map(String::as_str))
        .map(|line| format!("exec {line}"))
        .map_err(|_| Failure::new(Exit::Usage, "a word of the command holds a NUL byte"))
}

/// Runs a line of sh on the VPS on our own streams, with a terminal if both ends of ours are one, and gives its code.
pub fn run(session: &Session<'_>, line: &str) -> Result<u8, Failure> {
    let tty = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let code = session.transport.attached(line, tty)?;
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}

/// A program of this machine, to be run there.
pub fn program(path: &Path) -> Result<String, Failure> {
    let refuse = |why: String| {
        Failure::new(Exit::Usage, format!("`{}` {why}", path.display()))
            .hint(format!("ls -l {}", path.display()))
    };
    let meta = std::fs::metadata(path).map_err(|error| refuse(format!("cannot be read: {error}")))?;
    if !meta.is_file() || meta.len() > LARGEST {
        return Err(refuse(format!("is not a script of up to {} MiB", LARGEST >> 20)));
    }
    std::fs::read_to_string(path).map_err(|error| refuse(format!("cannot be read as text: {error}")))
}

/// Carries a program over, runs it with these arguments, and removes it.
pub fn run_file(session: &Session<'_>, text: &str, args: &[String]) -> Result<u8, Failure> {
    let place = session.ask(PLACE, &[text], LIMIT)?.stdout;
    let place = place.trim();
    let arguments = shlex::try_join(args.iter().map(String::as_str))
        .map_err(|_| Failure::new(Exit::Usage, "an argument holds a NUL byte"))?;
    // Without a first line that names its interpreter it is a script of sh.
    let interpreter = if text.starts_with("#!") { "" } else { "sh " };
    run(session, &format!("trap 'rm -f {place}' EXIT HUP TERM; {interpreter}{place} {arguments}"))
}

/// What is wanted of the journal.
pub struct Wanted<'a> {
    /// Go on as lines come.
    pub follow: bool,
    /// At most so many lines to begin with.
    pub lines: Option<u32>,
    /// As journalctl reads it.
    pub since: &'a str,
    /// Only lines that match.
    pub pattern: &'a str,
}

/// Prints the journal of units.
pub fn logs(session: &Session<'_>, units: &[Chosen], wanted: &Wanted<'_>) -> Result<(), Failure> {
    let follow = if wanted.follow { "yes" } else { "no" };
    let lines = wanted.lines.map_or_else(String::new, |lines| lines.to_string());
    let mut args = vec![follow, &lines, wanted.since, wanted.pattern];
    // Of a unit that is not there the journal has no lines.
    args.extend(units.iter().map(|chosen| chosen.unit.as_str()));
    let limit = if wanted.follow { Duration::MAX } else { LIMIT };
    let out = &session.context.out;
    let answer = session.transport.stream(LOGS, &args, limit, limit, &mut |line| out.data(&printable(line)));
    match answer {
        Ok(answer) if answer.code == 0 => Ok(()),
        Ok(answer) => {
            Err(Failure::new(Exit::Failed, printable(answer.stderr.trim())).hint("ua-vpsctl status"))
        }
        // To stop looking is how one stops.
        Err(TransportError::Run(ua_common::run::RunError::Interrupted { .. })) if wanted.follow => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p64_words_are_words() {
        let words = ["echo", "a b", "it's", "$(reboot)", "-x", "", "two\nlines"].map(str::to_owned);
        let shown = std::process::Command::new("sh").args(["-c", &line(&words).unwrap()]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&shown.stdout), "a b it's $(reboot) -x  two\nlines\n");
    }
}
