//! `logs`: what units wrote, into the journal and into files, as one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::civil::DateTime;
use jiff::tz::Offset;
use jiff::{Timestamp, ToSpan as _};
use serde_json::{Value, json};
use ua_common::error::Failure;
use ua_common::exit::Exit;
use ua_common::output::printable;
use ua_common::profile::Profile;
use ua_common::report::{Check, Report};
use ua_common::transport::{Script, TransportError};

use crate::session::Session;
use crate::status::counted;
use crate::units::Chosen;

const LOGS: Script = Script {
    name: "logs",
    text: concat!(
        include_str!("../../ua-common/remote/unit_log.sh"),
        "\n",
        include_str!("../remote/logs.sh")
    ),
};
const LIMIT: Duration = Duration::from_mins(1);

/// A request for logs.
pub struct Wanted<'a> {
    /// Go on as lines come.
    pub follow: bool,
    /// At most so many lines to begin with.
    pub lines: u32,
    /// A span, or as journalctl reads it.
    pub since: &'a str,
    /// Only lines that match.
    pub pattern: &'a str,
}

/// Refuses a report that would never be complete.
pub fn endless() -> Failure {
    Failure::new(Exit::Usage, "--json with -f would be a report that never ends")
        .hint("ua-vpsctl logs … --json  # what is there by now; or -f without --json")
}

/// A time as journalctl takes it: `1h`, as other tools of ours take it, is an hour ago.
fn since(typed: &str) -> String {
    let (number, unit) = typed.split_at(typed.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(0));
    let span = number.parse::<f64>().is_ok_and(f64::is_sign_positive);
    if span && matches!(unit, "s" | "m" | "h" | "d") { format!("-{typed}") } else { typed.to_owned() }
}

/// Why journalctl printed nothing.
fn refused(said: &str, since: &str) -> Failure {
    if !since.is_empty() && said.contains("parse timestamp") {
        let message = format!("`--since`: journalctl there does not understand `{}`", printable(since));
        return Failure::new(Exit::Failed, message)
            .hint("--since 1h, '1 hour ago', today, yesterday or '2026-02-21 10:15'");
    }
    Failure::new(Exit::Failed, printable(said.trim())).hint("ua-vpsctl status")
}

/// A file that a unit writes to.
#[derive(Debug)]
struct LogFile {
    /// Its unit.
    unit: String,
    /// When it was last written to, in local time; nothing if it is not read.
    written: Option<DateTime>,
    /// `none` or `link` if it is not read.
    why: String,
    /// Its path.
    path: String,
    /// The time of the last line that has one.
    last: Option<DateTime>,
}

/// A line of the journal or of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    /// When it was written, in local time. Nothing: before the next line of its file that has a time.
    at: Option<DateTime>,
    /// Its unit.
    unit: String,
    /// The file, or 0 for the journal.
    file: u32,
    /// As it is shown, with line breaks within.
    text: String,
}

/// What the VPS tells of the logs, line by line.
struct Reader {
    units: Vec<String>,
    /// Of the VPS's local time, in words such as `+0130`, and as a number.
    zone: String,
    offset: Offset,
    files: BTreeMap<u32, LogFile>,
    unknown: Vec<String>,
    untimed: Vec<u32>,
    lines: Vec<Line>,
    /// Entries of the journal that were there: those that come meanwhile are told twice.
    cursors: BTreeSet<String>,
    complete: bool,
}

impl Reader {
    fn new(units: &[Chosen]) -> Self {
        Self {
            units: units.iter().map(|chosen| chosen.unit.clone()).collect(),
            zone: "+0000".to_owned(),
            offset: Offset::UTC,
            files: BTreeMap::new(),
            unknown: Vec::new(),
            untimed: Vec::new(),
            lines: Vec::new(),
            cursors: BTreeSet::new(),
            complete: false,
        }
    }

    /// Reads one line of `logs.sh`, and keeps or returns what it shows: it is returned once all that was there is known.
    fn hear(&mut self, line: &str) -> Option<Line> {
        if line.starts_with('{') {
            return self.entry(line).and_then(|line| self.keep(line));
        }
        let (word, rest) = line.split_once('\t').unwrap_or((line, ""));
        if let Ok(number) = word.parse() {
            let at = time(rest, self.offset);
            let file = self.files.get_mut(&number)?;
            // A clock that is set back must not change the order of lines.
            file.last = at.or(file.last).max(file.last);
            let line = Line { at: file.last, unit: file.unit.clone(), file: number, text: rest.to_owned() };
            return self.keep(line);
        }
        let fields: Vec<&str> = rest.splitn(4, '\t').collect();
        match (word, fields.as_slice()) {
            ("zone", [zone]) => {
                if let Some(offset) = parse_offset(zone) {
                    (self.zone, self.offset) = ((*zone).to_owned(), offset);
                }
            }
            ("file", [number, unit, time, path]) => {
                let written = time.parse().ok().and_then(|at| Timestamp::from_second(at).ok());
                let written = written.map(|at| self.offset.to_datetime(at));
                let (unit, why, path) = ((*unit).to_owned(), (*time).to_owned(), (*path).to_owned());
                let file = LogFile { unit, written, why, path, last: None };
                self.files.extend(number.parse().ok().map(|number: u32| (number, file)));
            }
            ("unknown", [unit]) => self.unknown.push((*unit).to_owned()),
            ("untimed", [number]) => self.untimed.extend(number.parse::<u32>().ok()),
            ("end", _) => self.complete = true,
            _ => {}
        }
        None
    }

    fn keep(&mut self, line: Line) -> Option<Line> {
        if self.complete {
            return Some(line);
        }
        self.lines.push(line);
        None
    }

    /// Reads an entry of the journal, as journalctl shows it, unless it is known by now.
    fn entry(&mut self, json: &str) -> Option<Line> {
        let entry: Value = serde_json::from_str(json).ok()?;
        let field = |key: &str| text(&entry[key]);
        let cursor = field("__CURSOR");
        if self.cursors.contains(&cursor) {
            return None;
        }
        if !self.complete {
            self.cursors.insert(cursor);
        }
        let at = field("__REALTIME_TIMESTAMP").parse().ok();
        let at = self.offset.to_datetime(Timestamp::from_microsecond(at?).ok()?);
        // What systemd says of a unit is an entry of systemd's own.
        let keys = ["_SYSTEMD_UNIT", "UNIT", "OBJECT_SYSTEMD_UNIT", "COREDUMP_UNIT"];
        let unit = keys.map(field).into_iter().find(|unit| self.units.contains(unit)).unwrap_or_default();
        let first = |keys: [&str; 2]| keys.map(field).into_iter().find(|it| !it.is_empty());
        let name = first(["SYSLOG_IDENTIFIER", "_COMM"]).unwrap_or_else(|| "unknown".to_owned());
        let pid = first(["_PID", "SYSLOG_PID"]).map_or_else(String::new, |pid| format!("[{pid}]"));
        let (time, host) = (at.strftime("%Y-%m-%dT%H:%M:%S"), field("_HOSTNAME"));
        let head = format!("{time}{} {host} {name}{pid}: ", self.zone);
        let indented = format!("\n{:width$}", "", width = head.chars().count());
        let text = head + &field("MESSAGE").trim_end_matches('\n').replace('\n', &indented);
        Some(Line { at: Some(at), unit, file: 0, text })
    }

    /// Everything that was there, in the order of time; the last `most` lines of it, and whether there are more.
    fn merged(&mut self, most: usize) -> (Vec<Line>, bool) {
        let mut lines = std::mem::take(&mut self.lines);
        let mut next: BTreeMap<u32, DateTime> = BTreeMap::new();
        for line in lines.iter_mut().rev() {
            // A file without any time has that of its last line.
            let written = || self.files.get(&line.file).and_then(|file| file.written);
            line.at = line.at.or_else(|| next.get(&line.file).copied()).or_else(written);
            next.extend(line.at.map(|at| (line.file, at)));
        }
        // With a pattern journalctl begins with the last entry.
        lines.sort_by_key(|line| line.at);
        let more = lines.len().saturating_sub(most);
        (lines.split_off(more), more > 0)
    }

    /// What a person has to know of the files, a check each.
    fn checks(&self) -> Vec<Check> {
        let id = "logs.file";
        let unknown = self.unknown.iter().map(|unit| {
            let detail = format!("cannot tell which file {unit} writes to, if any");
            Check::warn(id, detail).hint(format!("ua-vpsctl run -- systemctl cat {unit}"))
        });
        let unread = self.files.values().filter(|file| file.written.is_none()).map(|file| {
            let (unit, path) = (&file.unit, &file.path);
            let why = match file.why.as_str() {
                "none" => "does not exist",
                _ => "is a link or no plain file, and is not read: another user can change what it leads to",
            };
            let look = shlex::try_quote(path).unwrap_or_default();
            Check::warn(id, printable(&format!("`{path}`, which {unit} writes to, {why}")))
                .hint(format!("ua-vpsctl run -- ls -l {look}"))
        });
        let untimed = self.untimed.iter().filter_map(|number| self.files.get(number)).map(|file| {
            let detail = format!(
                "no line of `{}` begins with a time, so --since cannot be applied: these are its last lines",
                file.path
            );
            Check::warn("logs.since", printable(&detail))
        });
        unknown.chain(unread).chain(untimed).collect()
    }
}

/// A field of an entry: text, or bytes where it is not only text; of several the first.
fn text(field: &Value) -> String {
    match field {
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let bytes: Option<Vec<u8>> =
                items.iter().map(|item| item.as_u64().and_then(|byte| u8::try_from(byte).ok())).collect();
            match bytes {
                Some(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
                None => items.first().map(text).unwrap_or_default(),
            }
        }
        _ => String::new(),
    }
}

/// Parses `+0130`.
fn parse_offset(text: &str) -> Option<Offset> {
    let number: i32 = text.parse().ok().filter(|_| text.len() == 5)?;
    Offset::from_seconds(number / 100 * 3600 + number % 100 * 60).ok()
}

/// The time that a line of a file begins with, in local time: `2026-02-21 22:18:45,123`, with `T`, `[` before it, or of UTC
/// (`Z`, `+00:00`). `logs.sh` knows the same.
fn time(line: &str, offset: Offset) -> Option<DateTime> {
    let line = line.strip_prefix('[').unwrap_or(line);
    let (time, rest) = line.split_at_checked(19)?;
    let shape = time.bytes().zip("dddd-dd-ddTdd:dd:dd".bytes()).all(|(byte, shape)| match shape {
        b'd' => byte.is_ascii_digit(),
        b'T' => matches!(byte, b'T' | b' '),
        _ => byte == shape,
    });
    let at: DateTime = shape.then(|| time.replace(' ', "T"))?.parse().ok()?;
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let (fraction, rest) = match rest.strip_prefix(['.', ',']).map(|rest| rest.split_at(digits(rest))) {
        Some((fraction, rest)) if !fraction.is_empty() => (fraction, rest),
        _ => ("", rest),
    };
    let micros: i64 = format!("{fraction:0<6}")[..6].parse().ok()?;
    let at = at.checked_add(micros.microseconds()).ok()?;
    let is_utc = ["Z", "+00:00", "+0000"].iter().any(|zone| rest.starts_with(zone));
    if is_utc { Some(offset.to_datetime(Offset::UTC.to_timestamp(at).ok()?)) } else { Some(at) }
}

/// How lines are shown: with the name of their unit, if there are several.
struct Labels(Option<BTreeMap<String, String>>);

impl Labels {
    fn new(profile: &Profile, units: &[Chosen]) -> Self {
        let name = |unit: &str| profile.short(unit).unwrap_or(unit.trim_end_matches(".service")).to_owned();
        let width = units.iter().map(|chosen| name(&chosen.unit).len()).max().unwrap_or(0);
        let label = |chosen: &Chosen| (chosen.unit.clone(), format!("{:width$} | ", name(&chosen.unit)));
        Self((units.len() > 1).then(|| units.iter().map(label).collect()))
    }

    fn shown(&self, line: &Line) -> String {
        let label = self.0.as_ref().and_then(|labels| labels.get(&line.unit)).map_or("", String::as_str);
        line.text.split('\n').map(|text| format!("{label}{text}")).collect::<Vec<_>>().join("\n")
    }
}

/// Says that there are more lines, and how one gets them.
fn cut(lines: u32) -> String {
    let mut more: u32 = 1000;
    while more <= lines {
        more = more.saturating_mul(10);
        if more == u32::MAX {
            break;
        }
    }
    let last = if lines == 1 { "line".to_owned() } else { counted(lines as usize, "line", "lines") };
    format!("showing the last {last}; more: -n {more}")
}

/// Prints what units wrote, or puts it into the report.
pub fn logs(
    session: &Session<'_>,
    units: &[Chosen],
    wanted: &Wanted<'_>,
    report: &mut Report,
) -> Result<(), Failure> {
    let follow = if wanted.follow { "yes" } else { "no" };
    let lines = wanted.lines.to_string();
    let since = since(wanted.since);
    let mut args = vec![follow, &lines, &since, wanted.pattern];
    // Of a unit that is not there the journal has no lines.
    args.extend(units.iter().map(|chosen| chosen.unit.as_str()));
    let limit = if wanted.follow { Duration::MAX } else { LIMIT };
    let out = &session.context.out;
    let labels = Labels::new(session.profile, units);
    let mut reader = Reader::new(units);
    let mut there = None;
    let answer = session.transport.stream(LOGS, &args, limit, limit, &mut |line| {
        if let Some(line) = reader.hear(line) {
            out.data(&printable(&labels.shown(&line)));
        } else if reader.complete && there.is_none() {
            let (lines, more) = reader.merged(wanted.lines as usize);
            let lines: Vec<String> = lines.iter().map(|line| labels.shown(line)).collect();
            if !out.is_json() {
                for line in &lines {
                    out.data(&printable(line));
                }
                if more && wanted.lines > 0 {
                    out.note(&cut(wanted.lines));
                }
            }
            if wanted.follow {
                for check in reader.checks() {
                    out.warn(&check.detail);
                }
            }
            there = Some((lines, more));
        }
    });
    match (answer, there) {
        (Ok(answer), Some((lines, more))) if answer.code == 0 => {
            if !wanted.follow {
                report.checks.extend(reader.checks());
            }
            if out.is_json() {
                report.push(Check::pass("logs", counted(lines.len(), "line", "lines")));
                let files = reader.files.values().filter(|file| file.written.is_some());
                let files = files.map(|file| json!({"unit": file.unit, "path": file.path}));
                report.data.extend([
                    ("lines".to_owned(), json!(lines)),
                    ("files".to_owned(), files.collect()),
                    ("limit".to_owned(), json!(wanted.lines)),
                    ("cut".to_owned(), json!(more)),
                ]);
            }
            Ok(())
        }
        (Ok(answer), _) => Err(refused(&answer.stderr, wanted.since)),
        // To stop looking is how one stops.
        (Err(TransportError::Run(ua_common::run::RunError::Interrupted { .. })), _) if wanted.follow => {
            Ok(())
        }
        (Err(error), _) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_so_long_ago() {
        let typed = ["1h", "30m", "2.5d", "1 hour ago", "-1h", "today", "10:15", "1 month", "", "h"];
        let meant = ["-1h", "-30m", "-2.5d", "1 hour ago", "-1h", "today", "10:15", "1 month", "", "h"];
        assert_eq!(typed.map(since), meant);
    }

    #[test]
    fn refused_time_names_what_is_taken() {
        let failure = refused("Failed to parse timestamp: yesterdayy\n", "yesterdayy");
        assert!(failure.to_string().contains("does not understand `yesterdayy`"), "{failure}");
        assert!(failure.hint.unwrap().contains("yesterday"));
        assert_eq!(
            refused("No journal files were found.\n", "today").hint.as_deref(),
            Some("ua-vpsctl status")
        );
    }

    const UNITS: [&str; 2] =
        ["universal-agent-vp-worker@vp.general.primary.service", "universal-agent-api.service"];

    fn chosen() -> Vec<Chosen> {
        UNITS.map(|unit| Chosen { unit: unit.to_owned(), if_there: false }).into()
    }

    /// As systemd 252 prints an entry, but for its time in seconds of the epoch, and the fields that are given.
    fn entry(second: u32, fields: &Value) -> String {
        let mut entry = json!({
            "__CURSOR": format!("s=1;i={second}"), "__REALTIME_TIMESTAMP": format!("{second}250000"),
            "_HOSTNAME": "srv", "_PID": "42", "_COMM": "python3",
        });
        entry.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        entry.to_string()
    }

    /// 2026-02-21T22:18:44Z.
    const AT: u32 = 1_771_712_324;

    /// What is shown of these lines, and of those that come after `end`.
    fn shown(units: &[Chosen], most: usize, lines: &[&str]) -> (Vec<String>, bool, Vec<String>, Reader) {
        let labels = Labels::new(&Profile::built_in().unwrap(), units);
        let mut reader = Reader::new(units);
        let later: Vec<String> =
            lines.iter().filter_map(|line| reader.hear(line)).map(|line| labels.shown(&line)).collect();
        let (there, more) = reader.merged(most);
        (there.iter().map(|line| labels.shown(line)).collect(), more, later, reader)
    }

    #[test]
    fn journal_and_files_are_one_in_order_of_time() {
        let file = format!("file\t1\t{}\t{AT}\t/opt/universal_agent/logs/w.log", UNITS[0]);
        let api =
            entry(AT + 1, &json!({"_SYSTEMD_UNIT": UNITS[1], "SYSLOG_IDENTIFIER": "uv", "MESSAGE": "a\nb"}));
        let systemd =
            json!({"_SYSTEMD_UNIT": "init.scope", "UNIT": UNITS[0], "_PID": "1", "MESSAGE": "exited"});
        let systemd = entry(AT + 2, &systemd);
        let (there, more, later, _) = shown(
            &chosen(),
            9,
            &[
                "zone\t+0100",
                &file,
                // With a pattern the last one comes first.
                &systemd,
                &api,
                "1\tof a line before",
                "1\t2026-02-21 23:18:45,100 INFO x first",
                "1\tTraceback",
                "1\t2026-02-21T22:18:46Z second",
                "end",
                &systemd,
                "1\tcomes",
                &entry(AT + 3, &json!({"_SYSTEMD_UNIT": UNITS[1], "MESSAGE": [27, 91, 109]})),
            ],
        );
        let worker = "vp.general.primary | ";
        let wanted = [
            format!("{worker}of a line before"),
            format!("{worker}2026-02-21 23:18:45,100 INFO x first"),
            format!("{worker}Traceback"),
            "api                | 2026-02-21T23:18:45+0100 srv uv[42]: a\n\
             api                |                                      b"
                .to_owned(),
            format!("{worker}2026-02-21T22:18:46Z second"),
            format!("{worker}2026-02-21T23:18:46+0100 srv python3[1]: exited"),
        ];
        assert_eq!((there, more), (wanted.to_vec(), false));
        let wanted = [
            format!("{worker}comes"),
            "api                | 2026-02-21T23:18:47+0100 srv python3[42]: \u{1b}[m".to_owned(),
        ];
        assert_eq!(later, wanted);
    }

    #[test]
    fn one_unit_is_shown_without_its_name() {
        let units = &chosen()[..1];
        let file = format!("file\t1\t{}\t{AT}\t/w.log", UNITS[0]);
        let (there, more, ..) = shown(units, 2, &[&file, "1\ta", "1\tb", "1\tc", "end"]);
        assert_eq!((there, more), (vec!["b".to_owned(), "c".to_owned()], true));
    }

    #[test]
    fn file_without_times_is_of_its_last_write() {
        let file = format!("file\t1\t{}\t{}\t/w.log", UNITS[0], AT + 5);
        let mine =
            |second, words: &str| entry(AT + second, &json!({"_SYSTEMD_UNIT": UNITS[0], "MESSAGE": words}));
        let lines = [&file, &mine(4, "before"), &mine(6, "after"), "untimed\t1", "1\tx", "end"];
        let (there, _, _, reader) = shown(&chosen()[..1], 9, &lines);
        assert!(there[0].ends_with("before") && there[1] == "x" && there[2].ends_with("after"), "{there:?}");
        let checks = reader.checks();
        assert!(
            checks[0].id == "logs.since" && checks[0].detail.contains("no line of `/w.log`"),
            "{checks:?}"
        );
    }

    #[test]
    fn clock_set_back_keeps_the_order_of_a_file() {
        let file = format!("file\t1\t{}\t{AT}\t/w.log", UNITS[0]);
        let lines = ["1\t2026-02-21 22:18:46 a", "1\t2026-02-21 22:18:40 b", "end"];
        let (there, ..) = shown(&chosen()[..1], 9, &[&[file.as_str()], &lines[..]].concat());
        assert!(there[0].ends_with('a') && there[1].ends_with('b'), "{there:?}");
    }

    #[test]
    fn file_that_is_not_read_is_named() {
        let file = |number: u32, why: &str| format!("file\t{number}\t{}\t{why}\t/opt/a b.log", UNITS[0]);
        let unknown = format!("unknown\t{}", UNITS[1]);
        let (.., reader) = shown(&chosen(), 9, &[&file(1, "none"), &file(2, "link"), &unknown, "end"]);
        let said: Vec<String> = reader.checks().iter().map(|check| check.detail.clone()).collect();
        assert!(said[0].contains(UNITS[1]) && said[0].starts_with("cannot tell"), "{said:?}");
        assert!(said[1].contains("`/opt/a b.log`") && said[1].ends_with("does not exist"), "{said:?}");
        assert!(said[2].contains("is a link or no plain file, and is not read"), "{said:?}");
        let hint = reader.checks()[1].hint.clone();
        assert_eq!(hint.as_deref(), Some("ua-vpsctl run -- ls -l '/opt/a b.log'"));
    }

    #[test]
    fn time_of_a_line_is_local_or_of_utc() {
        let offset = parse_offset("-0330").unwrap();
        let at = |text: &str| time(text, offset).map(|at| at.to_string());
        let local = Some("2026-02-21T22:18:45.123".to_owned());
        for text in [
            "2026-02-21 22:18:45,123 INFO",
            "[2026-02-21T22:18:45.123] x",
            "2026-02-22T01:48:45.123Z x",
            "2026-02-22 01:48:45.123000+00:00",
        ] {
            assert_eq!(at(text), local, "{text}");
        }
        assert_eq!(at("2026-02-21 22:18:45").as_deref(), Some("2026-02-21T22:18:45"));
        for text in [
            "",
            "Traceback",
            "2026-02-21",
            "2026-13-21 22:18:45",
            "2026-02-21 22:18:4é",
            "x 2026-02-21 22:18:45",
        ] {
            assert_eq!(at(text), None, "{text}");
        }
        for text in ["", "0100", "+1", "+010x"] {
            assert_eq!(parse_offset(text), None, "{text}");
        }
    }

    #[test]
    fn cut_names_a_larger_limit() {
        assert_eq!(cut(220), "showing the last 220 lines; more: -n 1000");
        assert_eq!(cut(1), "showing the last line; more: -n 1000");
        assert_eq!(cut(1000), "showing the last 1000 lines; more: -n 10000");
        assert!(cut(2_000_000_000).ends_with(&format!("-n {}", u32::MAX)));
    }
}
