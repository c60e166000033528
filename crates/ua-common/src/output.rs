//! The one place that prints. stdout is data, stderr is for a person.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::ops::Range;
use std::sync::{OnceLock, mpsc};
use std::time::Duration;

use console::{Alignment, Style, measure_text_width, pad_str};
pub use indicatif::ProgressBar;
use indicatif::{ProgressDrawTarget, ProgressStyle};

use crate::exit::Exit;
use crate::report::{Check, Report, Verdict};
use crate::subject::Subject;

/// How data is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For a person.
    Human,
    /// One report object per line.
    Json,
}

/// When to colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Color {
    /// On a terminal, unless `NO_COLOR` is set.
    Auto,
    /// Even into a pipe.
    Always,
    /// Never.
    Never,
}

impl Color {
    fn on(self, terminal: bool) -> bool {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => {
                terminal && !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
            }
        }
    }
}

/// Prints, and remembers whether stdout took it.
#[allow(clippy::struct_excessive_bools, reason = "independent facts about two streams")]
pub struct Printer {
    format: Format,
    quiet: bool,
    verbose: bool,
    color_out: bool,
    color_err: bool,
    terminal: bool,
    /// A person at a terminal sees both streams in one place.
    both_terminals: bool,
    progress: bool,
    /// How wide the terminal is that stdout goes to.
    columns: Option<usize>,
    /// And that of stderr.
    columns_err: Option<usize>,
    /// What a proposed command has to be about.
    subject: Subject,
    failed: OnceLock<io::ErrorKind>,
}

impl Printer {
    /// A printer on the process's own streams.
    pub fn new(format: Format, quiet: bool, verbose: bool, color: Color) -> Self {
        let (out, err) = (io::stdout().is_terminal(), io::stderr().is_terminal());
        let columns = |term: console::Term| term.size_checked().map(|(_, columns)| columns.into());
        let color_err = color.on(err);
        // Bars are drawn by others, who ask this.
        console::set_colors_enabled_stderr(color_err);
        Self {
            format,
            quiet,
            verbose,
            color_out: color.on(out),
            color_err,
            terminal: out,
            both_terminals: out && err,
            progress: err && !quiet,
            columns: columns(console::Term::stdout()),
            columns_err: columns(console::Term::stderr()),
            subject: Subject::default(),
            failed: OnceLock::new(),
        }
    }

    /// The same printer for a run about this: the commands that it proposes are about it, too.
    #[must_use]
    pub fn about(self, subject: Subject) -> Self {
        Self { subject, ..self }
    }

    /// What went wrong with stdout, other than that its reader had seen enough.
    pub fn stdout_failure(&self) -> Option<io::ErrorKind> {
        self.failed.get().copied()
    }

    /// How wide the terminal is that stdout goes to, if it goes to one that knows.
    pub fn columns(&self) -> Option<usize> {
        self.columns
    }

    /// Does stdout go to a terminal?
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Is a report wanted as JSON?
    pub fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    fn out(&self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// Data that need not be text.
    pub fn bytes(&self, bytes: &[u8]) {
        let mut stdout = io::stdout().lock();
        let written = stdout.write_all(bytes).and_then(|()| stdout.flush());
        if let Err(error) = written
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            // The first failure is the one to tell.
            let _known = self.failed.set(error.kind());
        }
    }

    /// For a person, as wide as the terminal is. A closed stderr leaves nobody to tell.
    fn err(&self, label: &str, style: &Style, text: &str) {
        self.err_lines(label, style, &hanging(&printable(text), label.len() + 1, self.columns_err));
    }

    fn err_lines(&self, label: &str, style: &Style, lines: &str) {
        let label = style.clone().force_styling(self.color_err).apply_to(label);
        let mut stderr = io::stderr().lock();
        let _nobody_listens = writeln!(stderr, "{}", format!("{label} {lines}").trim_end());
    }

    /// One line of data.
    pub fn data(&self, line: &str) {
        self.out(&format!("{line}\n"));
    }

    /// A step of a plan, which nothing is done of.
    pub fn would(&self, step: &str) {
        let step = hanging(&printable(step), "would ".len(), self.columns);
        self.out(&format!("would {step}\n"));
    }

    /// The names of columns, so that they stand out from what is below them.
    pub fn heading(&self, names: &str) -> String {
        Style::new().bold().force_styling(self.color_out).apply_to(names).to_string()
    }

    /// Data that brings its own line ends, or NULs.
    pub fn text(&self, text: &str) {
        self.out(text);
    }

    /// Something a person should know though the run goes on. Shown even when quiet.
    pub fn warn(&self, text: &str) {
        self.err("warning:", &Style::new().yellow().bold(), text);
    }

    /// Something a person has to act on now, with what it takes, such as an address to open. Shown even when quiet.
    pub fn attention(&self, text: &str, what: &str) {
        let (label, what) = ("warning:", printable(what));
        let lines = hanging(&printable(&format!("{text} {what}")), label.len() + 1, self.columns_err);
        let styled = Style::new().bold().underlined().force_styling(self.color_err).apply_to(&what);
        let lines = lines.strip_suffix(&what).map_or(lines.clone(), |before| format!("{before}{styled}"));
        self.err_lines(label, &Style::new().yellow().bold(), &lines);
    }

    /// What is being done. Not shown when quiet.
    pub fn note(&self, text: &str) {
        if !self.quiet {
            self.err("note:", &Style::new().cyan(), text);
        }
    }

    /// Only with `-v`.
    pub fn detail(&self, text: &str) {
        if self.verbose {
            // Commands, to be copied as they are.
            self.err_lines("debug:", &Style::new().dim(), &printable(text));
        }
    }

    /// A line of what a child printed, for a person to find the cause in.
    pub fn child(&self, line: &str) {
        let mut stderr = io::stderr().lock();
        let _nobody_listens = writeln!(stderr, "{}", format!("  {}", printable(line)).trim_end());
    }

    /// Why the run ends.
    pub fn error(&self, text: &str) {
        self.err("error:", &Style::new().red().bold(), text);
    }

    /// What to do about it.
    pub fn hint(&self, text: &str) {
        let (label, text) = ("hint:", printable(&self.subject.put_into(text)));
        self.err_lines(label, &Style::new().green(), &clauses(&text, label.len() + 1, self.columns_err));
    }

    /// Prints finished reports: data on stdout, and on stderr what a person does next.
    pub fn reports(&self, reports: &[Report]) {
        match self.format {
            Format::Json => reports.iter().for_each(|report| self.json(report)),
            Format::Human if self.quiet => {}
            Format::Human => reports.iter().for_each(|report| self.out(&self.human(report))),
        }
        let mut hints: Vec<&str> = Vec::new();
        for report in reports {
            let shown = self.format == Format::Human && !self.quiet && self.both_terminals;
            for check in &report.checks {
                match check.verdict {
                    Verdict::Fail if !shown => self.error(&format!("{}: {}", check.id, check.detail)),
                    Verdict::Warn if !shown && self.quiet => {
                        self.warn(&format!("{}: {}", check.id, check.detail));
                    }
                    _ => {}
                }
                // Two checks may call for one and the same command.
                if let Some(hint) = check.hint.as_deref()
                    && (check.verdict == Verdict::Fail || !self.quiet)
                    && !hints.contains(&hint)
                {
                    hints.push(hint);
                    self.hint(hint);
                }
            }
        }
    }

    fn json(&self, report: &Report) {
        let mut report = report.clone();
        for hint in report.checks.iter_mut().filter_map(|check| check.hint.as_mut()) {
            *hint = self.subject.put_into(hint);
        }
        self.data(&report.to_json().to_string());
    }

    /// What a report that is not printed has to tell a person.
    pub fn troubles(&self, report: &Report) {
        for check in &report.checks {
            match check.verdict {
                Verdict::Fail => self.error(&format!("{}: {}", check.id, check.detail)),
                Verdict::Warn => self.warn(&format!("{}: {}", check.id, check.detail)),
                Verdict::Pass | Verdict::Skip => continue,
            }
            if let Some(hint) = &check.hint {
                self.hint(hint);
            }
        }
    }

    fn human(&self, report: &Report) -> String {
        let all = || report.checks.iter().map(Cow::Borrowed).collect();
        let checks: Vec<Cow<'_, Check>> = if self.verbose { all() } else { report.brief() };
        let width = checks.iter().map(|check| check.id.len()).max().unwrap_or(0);
        let mut text = String::new();
        for Check { id, verdict, detail, .. } in checks.iter().map(AsRef::as_ref) {
            // Writing into a string cannot fail.
            let detail = hanging(&printable(detail), "FAIL ".len() + width + 2, self.columns);
            let _ = writeln!(text, "{} {id:width$}  {detail}", self.word(*verdict));
        }
        let lane = report.lane();
        let (word, target) = (self.word(report.verdict()), printable(report.target()));
        let _ = match report.exit() {
            Exit::Ok => writeln!(text, "{lane}: {word} {target}"),
            exit => writeln!(text, "{lane}: {word} {target}: exit {} ({})", exit.code(), exit.name()),
        };
        text
    }

    fn word(&self, verdict: Verdict) -> String {
        let (word, style) = match verdict {
            Verdict::Pass => ("ok  ", Style::new().green()),
            Verdict::Warn => ("warn", Style::new().yellow().bold()),
            Verdict::Fail => ("FAIL", Style::new().red().bold()),
            Verdict::Skip => ("skip", Style::new().dim()),
        };
        style.force_styling(self.color_out).apply_to(word).to_string()
    }

    /// Says on a terminal what is being waited for, once that took a second. Ends when dropped.
    pub fn waiting(&self, what: impl Into<String>) -> Waiting {
        if !self.progress {
            return Waiting(None);
        }
        let what = what.into();
        let (done, over) = mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            if over.recv_timeout(Duration::from_secs(1)) == Err(mpsc::RecvTimeoutError::Timeout) {
                let bar = spinner(ProgressDrawTarget::stderr(), what);
                let _over = over.recv();
                bar.finish_and_clear();
            }
        });
        Waiting(Some((done, thread)))
    }

    /// A spinner with a message that changes, for steps that always take a while. Hidden where nobody looks.
    pub fn spinner(&self, what: impl Into<String>) -> ProgressBar {
        let target = if self.progress { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        spinner(target, what.into())
    }
}

impl Printer {
    /// A bar over so many bytes, with their rate. Hidden where nobody looks.
    pub fn transfer(&self, bytes: u64) -> ProgressBar {
        let target = if self.progress { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(bytes), target);
        let template = "{spinner:.cyan} {msg} {wide_bar:.cyan/dim} {bytes} of {total_bytes} {bytes_per_sec}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(120));
        bar
    }
}

fn spinner(target: ProgressDrawTarget, what: String) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, target);
    if let Ok(style) = ProgressStyle::with_template("{spinner:.cyan} {wide_msg} {elapsed:.dim}") {
        bar.set_style(style);
    }
    bar.set_message(what);
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

/// See [`Printer::waiting`].
pub struct Waiting(Option<(mpsc::Sender<()>, std::thread::JoinHandle<()>)>);

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some((done, thread)) = self.0.take() {
            drop(done);
            // A panic in the drawing thread has nothing to tell us.
            let _drawn = thread.join();
        }
    }
}

/// The first few of many.
pub fn listed(paths: &[String]) -> String {
    const SHOWN: usize = 8;
    let mut text = paths.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    if paths.len() > SHOWN {
        text.push_str(&format!(" and {} more", paths.len() - SHOWN));
    }
    text
}

/// A number of bytes as a person reads it: `1.20 MiB`.
pub fn bytes(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}

/// The rows of a list-like verb.
pub struct Records<const N: usize> {
    /// Names of the columns.
    pub head: [&'static str; N],
    /// One each.
    pub rows: Vec<Record<N>>,
}

/// One row of a list-like verb.
pub struct Record<const N: usize> {
    /// What it is called.
    pub id: String,
    /// Its cells.
    pub cells: [String; N],
    /// All of it.
    pub json: serde_json::Value,
}

impl<const N: usize> Records<N> {
    /// The arguments by which a verb lets its rows be formatted.
    pub fn args() -> [clap::Arg; 2] {
        use clap::{Arg, ArgAction};
        [
            Arg::new("format")
                .long("format")
                .value_name("FORMAT")
                .value_parser(["table", "tsv", "json", "ids"])
                .help("One record per line as table (the default), tsv, json or ids")
                .conflicts_with("json"),
            Arg::new("null")
                .short('0')
                .action(ArgAction::SetTrue)
                .help("End each record with NUL instead of a line break"),
        ]
    }

    /// Prints them as these arguments say.
    pub fn print(&self, matches: &clap::ArgMatches, out: &Printer) {
        let format = matches.get_one::<String>("format").map_or("table", String::as_str);
        let end = if matches.get_flag("null") { "\0" } else { "\n" };
        let mut lines = self.lines_within(format, out.columns());
        if let ("table", Some(head)) = (format, lines.first_mut()) {
            *head = out.heading(head);
        }
        out.text(&lines.into_iter().map(|line| line + end).collect::<String>());
    }

    /// One line per record.
    pub fn lines(&self, format: &str) -> Vec<String> {
        self.lines_within(format, None)
    }

    /// The same for a terminal of so many columns: a table is made to fit, and what is for a program stays as it is.
    fn lines_within(&self, format: &str, columns: Option<usize>) -> Vec<String> {
        match format {
            "ids" => self.rows.iter().map(|row| row.id.clone()).collect(),
            "json" => self.rows.iter().map(|row| row.json.to_string()).collect(),
            "tsv" => {
                let plain = |cell: &String| cell.replace(['\t', '\n'], " ");
                self.rows.iter().map(|row| row.cells.each_ref().map(plain).join("\t")).collect()
            }
            _ => {
                let head = self.head.map(str::to_owned);
                let rows = self.rows.iter().map(|row| row.cells.clone());
                fitted(&std::iter::once(head).chain(rows).collect::<Vec<_>>(), columns)
            }
        }
    }
}

/// Rows as a table: every column as wide as its widest cell, two blanks apart.
pub fn aligned<const N: usize>(rows: &[[String; N]]) -> Vec<String> {
    fitted(rows, None)
}

/// Blanks between two columns.
const GAP: usize = 2;
/// Nothing narrower than this is cut, so that names of states, times, commits and sizes stay whole.
const WHOLE: usize = 20;
/// Where the second line of a row begins.
const INDENT: usize = 4;

/// The same, made to fit a terminal of so many columns: closer together, else with long cells cut, else with long names
/// on a line of their own, else with each row in several lines. The first column names the row for the next command,
/// and is never cut.
fn fitted<const N: usize>(rows: &[[String; N]], columns: Option<usize>) -> Vec<String> {
    // A record is a line, whatever somebody put into a name.
    let shown = |cell: &String| printable(cell).replace('\n', "\\n").replace('\t', "\\t");
    let rows: Vec<[String; N]> = rows.iter().map(|row| row.each_ref().map(shown)).collect();
    let widths = |column: usize| rows.iter().map(move |row| measure_text_width(&row[column]));
    let natural: [usize; N] = std::array::from_fn(|column| widths(column).max().unwrap_or(0));
    let room = columns.unwrap_or(usize::MAX);
    // One long name is not to spoil all other rows.
    let mut usual = natural;
    usual[0] = widths(0).filter(|width| *width <= room / 2).max().unwrap_or(0);
    let in_one_line = in_one_line(natural, room).or_else(|| in_one_line(usual, room));
    let (widths, gap, breaks) = in_one_line.unwrap_or_else(|| {
        let (folded, spared) = (folded(natural, room), folded(usual, room));
        if spared.2.len() < folded.2.len() { spared } else { folded }
    });

    let starts = std::iter::once(0).chain(breaks.iter().copied());
    let ends = breaks.iter().copied().chain([N]);
    let lines: Vec<Range<usize>> = starts.zip(ends).map(|(start, end)| start..end).collect();
    let row = |mut row: [String; N]| {
        let alone = (measure_text_width(&row[0]) > widths[0]).then(|| std::mem::take(&mut row[0]));
        let line = |columns: &Range<usize>| {
            let cells = columns
                .clone()
                .map(|column| pad_str(&row[column], widths[column], Alignment::Left, Some("…")).into_owned());
            let indent = if columns.start > 0 { INDENT } else { 0 };
            let line = format!("{:indent$}{}", "", cells.collect::<Vec<_>>().join(&" ".repeat(gap)));
            line.trim_end().to_owned()
        };
        // A line that would say nothing is left out.
        let tells = |columns: &&Range<usize>| {
            let first = columns.start == 0 && alone.is_none();
            first || row[(*columns).clone()].iter().any(|cell| !matches!(cell.as_str(), "" | "-"))
        };
        let told: Vec<String> = lines.iter().filter(tells).map(line).collect();
        alone.into_iter().chain(told).collect::<Vec<_>>().join("\n")
    };
    rows.into_iter().map(row).collect()
}

/// Widths of columns, the blanks between them, and the columns with which further lines of a row begin.
type Layout<const N: usize> = ([usize; N], usize, Vec<usize>);

/// A layout in which every row is one line, if there is one.
fn in_one_line<const N: usize>(mut widths: [usize; N], room: usize) -> Option<Layout<N>> {
    let total = |widths: &[usize; N], gap: usize| widths.iter().sum::<usize>() + gap * N.saturating_sub(1);
    if total(&widths, GAP) > room && total(&widths, 1) <= room {
        return Some((widths, 1, Vec::new()));
    }
    while total(&widths, GAP) > room {
        let long = (1..N).filter(|column| widths[*column] > WHOLE);
        widths[long.max_by_key(|column| widths[*column])?] -= 1;
    }
    Some((widths, GAP, Vec::new()))
}

/// A layout in which a row goes on in another line.
fn folded<const N: usize>(mut widths: [usize; N], room: usize) -> Layout<N> {
    let mut breaks = Vec::new();
    let mut used = widths[0];
    for (column, width) in widths.iter_mut().enumerate().skip(1) {
        if used + GAP + (*width).min(WHOLE) > room {
            breaks.push(column);
            used = INDENT;
        } else {
            used += GAP;
        }
        *width = (*width).min(room.saturating_sub(used).max(1));
        used += *width;
    }
    (widths, GAP, breaks)
}

/// Text whose lines stay right of `indent` on a terminal of this width, as far as its words are short enough.
fn hanging(text: &str, indent: usize, columns: Option<usize>) -> String {
    broken(text, indent, columns, |_| true)
}

/// The same, but it is only broken between clauses, so that a command within can be copied from the screen.
fn clauses(text: &str, indent: usize, columns: Option<usize>) -> String {
    broken(text, indent, columns, |word| word.ends_with([',', ';', ':']))
}

/// Breaks lines only behind a word of which `may_break` says so.
fn broken(text: &str, indent: usize, columns: Option<usize>, may_break: fn(&str) -> bool) -> String {
    let Some(room) = columns.and_then(|columns| columns.checked_sub(indent)).filter(|room| *room >= 30)
    else {
        return text.to_owned();
    };
    let mut lines: Vec<String> = Vec::new();
    for line in text.split('\n') {
        let mut pieces: Vec<String> = Vec::new();
        let mut whole = true;
        for word in line.split(' ') {
            match pieces.last_mut().filter(|_| !whole) {
                Some(piece) => piece.extend([" ", word]),
                None => pieces.push(word.to_owned()),
            }
            whole = may_break(word);
        }
        let mut filled = 0;
        for (nth, piece) in pieces.into_iter().enumerate() {
            let length = measure_text_width(&piece);
            if let Some(last) = lines.last_mut().filter(|_| nth > 0 && filled + 1 + length <= room) {
                last.extend([" ", &piece]);
                filled += 1 + length;
            } else {
                lines.push(piece);
                filled = length;
            }
        }
    }
    lines.join(&format!("\n{:indent$}", ""))
}

/// Text from outside with its control characters made visible: a remote must not drive the operator's terminal.
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\n' && c != '\t' {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_detail_stays_in_its_column() {
        let text = "port 443 serves `http://127.0.0.1:30001`, but `staging.ui_port` wants it";
        assert_eq!(hanging(text, 10, None), text);
        assert_eq!(hanging(text, 10, Some(200)), text);
        assert_eq!(hanging(text, 60, Some(80)), text, "there is no room for a column");
        assert_eq!(
            hanging(text, 4, Some(44)),
            "port 443 serves\n    `http://127.0.0.1:30001`, but\n    `staging.ui_port` wants it"
        );
        let url = "https://login.tailscale.com/f/serve?node=nXYZ";
        assert_eq!(hanging(&format!("at {url}\nnow"), 2, Some(40)), format!("at\n  {url}\n  now"));
    }

    #[test]
    fn a_hint_is_broken_between_clauses_so_that_its_command_is_whole() {
        let hint = "take the port over: ua-staging ensure --replace; or leave it";
        assert_eq!(clauses(hint, 6, None), hint);
        assert_eq!(
            clauses(hint, 6, Some(40)),
            "take the port over:\n      ua-staging ensure --replace;\n      or leave it"
        );
        let command = "sudo systemctl enable --now some.timer another.timer";
        assert_eq!(clauses(command, 6, Some(40)), command, "a command is left to the terminal");
    }

    fn table<const N: usize>(rows: &[[&str; N]], columns: usize) -> Vec<String> {
        let rows: Vec<[String; N]> = rows.iter().map(|row| row.map(str::to_owned)).collect();
        let lines = fitted(&rows, Some(columns));
        for line in lines.iter().flat_map(|row| row.lines()) {
            assert!(measure_text_width(line) <= columns, "{line}");
            assert_eq!(line, line.trim_end());
        }
        assert_eq!(aligned(&rows), fitted(&rows, Some(1000)), "there is room");
        lines
    }

    const UNITS: [[&str; 4]; 3] = [
        ["UNIT", "STATE", "SINCE", "WHY"],
        ["gateway", "active", "2026-02-21 12:00:00Z", ""],
        ["a-worker", "failed", "2026-02-21 12:00:01Z", "the main process ended with code 1"],
    ];

    #[test]
    fn a_table_that_fits_is_as_wide_as_its_cells() {
        assert_eq!(
            table(&UNITS, 76),
            [
                "UNIT      STATE   SINCE                 WHY",
                "gateway   active  2026-02-21 12:00:00Z",
                "a-worker  failed  2026-02-21 12:00:01Z  the main process ended with code 1",
            ]
        );
    }

    #[test]
    fn a_table_that_nearly_fits_stands_closer() {
        assert_eq!(
            table(&UNITS, 71)[2],
            "a-worker failed 2026-02-21 12:00:01Z the main process ended with code 1"
        );
    }

    #[test]
    fn a_long_cell_is_cut_where_that_is_enough() {
        let lines = table(&UNITS, 65);
        assert_eq!(lines[1], "gateway   active  2026-02-21 12:00:00Z");
        assert_eq!(lines[2], "a-worker  failed  2026-02-21 12:00:01Z  the main process ended w…");
    }

    #[test]
    fn else_a_row_goes_on_in_another_line_and_what_names_it_is_whole() {
        assert_eq!(
            table(&UNITS, 50),
            [
                "UNIT      STATE   SINCE\n    WHY",
                "gateway   active  2026-02-21 12:00:00Z",
                "a-worker  failed  2026-02-21 12:00:01Z\n    the main process ended with code 1",
            ]
        );
    }

    #[test]
    fn a_name_that_is_longer_than_others_stands_alone_and_whole() {
        let rows = [
            ["NAME", "SIZE", "TIME"],
            ["a-name-that-is-longer-than-all-others", "2 B", "12:00"],
            ["a-name-that-says-all-there-is-to-be-said", "-", ""],
            ["b", "1 B", "12:01"],
        ];
        assert_eq!(
            table(&rows, 40),
            [
                "NAME  SIZE  TIME",
                "a-name-that-is-longer-than-all-others\n      2 B   12:00",
                "a-name-that-says-all-there-is-to-be-said",
                "b     1 B   12:01",
            ]
        );
    }

    #[test]
    fn rows_that_go_on_anyway_do_not_get_a_third_line_for_a_name() {
        let rows = [
            ["UNIT", "STATE", "SINCE", "RELEASE"],
            ["a-gateway-of-it", "active", "1 h 31 min", "407217ecddd1"],
            ["a-worker@of.somebody.primary", "active", "1 h 31 min", "407217ecddd1"],
        ];
        assert_eq!(
            table(&rows, 40),
            [
                "UNIT                          STATE\n    SINCE       RELEASE",
                "a-gateway-of-it               active\n    1 h 31 min  407217ecddd1",
                "a-worker@of.somebody.primary  active\n    1 h 31 min  407217ecddd1",
            ]
        );
    }

    #[test]
    fn wide_characters_and_hidden_ones_keep_their_columns() {
        let rows = [["NAME", "SIZE"], ["日本語日本語", "1 B"], ["a\u{7}\n", "2 B"]];
        assert_eq!(table(&rows, 80), ["NAME          SIZE", "日本語日本語  1 B", "a\\u{7}\\n      2 B"]);
        assert_eq!(
            hanging("日本語 日本語 日本語 日本語 日本語", 0, Some(30)),
            "日本語 日本語 日本語 日本語\n日本語"
        );
    }

    #[test]
    fn what_is_for_a_program_is_never_cut() {
        let long = "x".repeat(200);
        let row = Record { id: long.clone(), cells: [long.clone(), long.clone()], json: long.clone().into() };
        let records = Records { head: ["A", "B"], rows: vec![row] };
        for format in ["ids", "tsv", "json"] {
            assert_eq!(records.lines_within(format, Some(80)), records.lines(format));
        }
        assert_eq!(records.lines("table")[1], format!("{long}  {long}"));
        assert_ne!(records.lines_within("table", Some(80)), records.lines("table"));
    }

    #[test]
    fn control_characters_are_shown_not_obeyed() {
        assert_eq!(printable("a\u{1b}[2Jb\tc\u{9b}d"), "a\\u{1b}[2Jb\tc\\u{9b}d");
    }
}
