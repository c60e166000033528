//! `run` and `run-file`: what goes straight to a person's streams, and with `--json` into the data of the report.

use std::io::IsTerminal as _;
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use ua_common::error::Failure;
use ua_common::exit::Exit;
use ua_common::output::printable;
use ua_common::report::{Check, Report};
use ua_common::transport::Script;

use crate::session::Session;

const PLACE: Script = Script { name: "place", text: include_str!("../remote/place.sh") };
const LIMIT: Duration = Duration::from_mins(1);

/// Largest program that is carried over, in bytes.
const LARGEST: u64 = 1 << 20;
/// Most of a stream that goes into a report, in bytes.
const MOST: usize = 1 << 20;

/// A command as a line of sh: each word means just itself.
pub fn line(words: &[String]) -> Result<String, Failure> {
    shlex::try_join(words.iter().map(String::as_str))
        .map(|line| format!("exec {line}"))
        .map_err(|_| Failure::new(Exit::Usage, "a word of the command holds a NUL byte"))
}

/// Runs a line of sh on the VPS and gives its code: on our own streams, with a terminal if both ends of ours are one. With
/// `--json` what it writes goes into the report.
pub fn run(session: &Session<'_>, line: &str, report: &mut Report) -> Result<u8, Failure> {
    if session.context.out.is_json() {
        let said = session.transport.captured(line, MOST)?;
        report.push(Check::pass("run", format!("it ended with code {}", said.code)));
        report.data.extend([
            ("code".to_owned(), json!(said.code)),
            ("stdout".to_owned(), json!(said.stdout.text())),
            ("stdout_cut".to_owned(), json!(said.stdout.cut)),
            ("stderr".to_owned(), json!(said.stderr.text())),
            ("stderr_cut".to_owned(), json!(said.stderr.cut)),
        ]);
        return Ok(u8::try_from(said.code).unwrap_or(u8::MAX));
    }
    let tty = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let code = session.transport.attached(line, tty)?;
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}

/// A line for a shell that was typed as one word: it ended with `code`, so there is no such command.
pub fn meant_shell(words: &[String], code: u8) -> Option<Check> {
    let [word] = words else { return None };
    let odd = |c: char| c.is_whitespace() || "|&;<>()$`\\\"'*?[#~=%!{".contains(c);
    if code != 127 || !word.contains(odd) {
        return None;
    }
    let detail =
        format!("the VPS has no command of the name `{}`: a command is typed word by word", printable(word));
    let quoted = shlex::try_quote(word).ok()?;
    Some(Check::warn("run.words", detail).hint(format!("ua-vpsctl run --shell {quoted}")))
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
pub fn run_file(
    session: &Session<'_>,
    text: &str,
    args: &[String],
    report: &mut Report,
) -> Result<u8, Failure> {
    let place = session.ask(PLACE, &[text], LIMIT)?.stdout;
    run(session, &once(place.trim(), text, args)?, report)
}

/// The line that runs a program at `place`, and removes it however that ends.
fn once(place: &str, text: &str, args: &[String]) -> Result<String, Failure> {
    let arguments = shlex::try_join(args.iter().map(String::as_str))
        .map_err(|_| Failure::new(Exit::Usage, "an argument holds a NUL byte"))?;
    // Without a first line that names its interpreter it is a script of sh.
    let interpreter = if text.starts_with("#!") { "" } else { "sh " };
    Ok(format!("trap 'rm -f {place}' EXIT HUP INT TERM; {interpreter}{place} {arguments}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_interrupted_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("program");
        // As Ctrl-C does on a terminal: all of them hear it.
        let text = "kill -INT $PPID $$\n";
        std::fs::write(&place, text).unwrap();
        let line = once(place.to_str().unwrap(), text, &[]).unwrap();
        std::process::Command::new("sh").args(["-c", &line]).status().unwrap();
        assert!(!place.exists());
    }

    #[test]
    fn a_line_that_was_typed_as_one_word_is_told_apart_from_a_command_that_is_not_there() {
        let hint = |words: &[&str], code| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            meant_shell(&words, code).and_then(|check| check.hint)
        };
        assert_eq!(hint(&["uptime; id"], 127).as_deref(), Some("ua-vpsctl run --shell 'uptime; id'"));
        assert_eq!(hint(&["ls|wc"], 127).as_deref(), Some("ua-vpsctl run --shell 'ls|wc'"));
        for (words, code) in [(&["uptime; id"][..], 1), (&["uptiem"], 127), (&["a b", "c"], 127)] {
            assert_eq!(hint(words, code), None, "{words:?}");
        }
    }

    #[test]
    fn p64_words_are_words() {
        let words = ["echo", "a b", "it's", "$(reboot)", "-x", "", "two\nlines"].map(str::to_owned);
        let shown = std::process::Command::new("sh").args(["-c", &line(&words).unwrap()]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&shown.stdout), "a b it's $(reboot) -x  two\nlines\n");
    }
}
