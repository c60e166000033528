//! From arguments to an exit code: the frame in which every tool runs.

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::OnceLock;

use clap::{Arg, ArgAction, ArgMatches, ColorChoice, Command};

use crate::error::Failure;
use crate::exit::Exit;
use crate::output::{Color, Format, Printer};
use crate::profile::Profile;
use crate::report::{Check, Lane, Report};
use crate::settings::{Layer, Settings, Surroundings, table};
use crate::subject::Subject;
use crate::{complete, interrupt, report};

/// What a tool gets to work with.
pub struct Context {
    /// Every setting, resolved.
    pub settings: Settings,
    /// The process's surroundings.
    pub around: Surroundings,
    /// Where to print.
    pub out: Printer,
    passed: OnceLock<u8>,
}

impl Context {
    /// Prints the reports and gives the exit code they mean.
    pub fn finish(&self, reports: &[Report]) -> Exit {
        self.out.reports(reports);
        report::exit_of(reports)
    }
}

impl Context {
    /// The process ends with the code of what it ran for somebody, whatever that means, and not with one of ours.
    pub fn pass(&self, code: u8) {
        // Only one thing is run.
        let _first = self.passed.set(code);
    }

    /// Ends a run whose stdout is `words`, for a shell or another program, and not the report: that goes to stderr
    /// as far as a person needs it, and with `--json` to stdout instead of the words.
    pub fn finish_with(&self, report: Report, words: Option<&str>) -> Exit {
        if self.out.is_json() {
            return self.finish(&[report]);
        }
        self.out.troubles(&report);
        if let (Some(words), Exit::Ok) = (words, report.exit()) {
            self.out.data(words);
        }
        report.exit()
    }
}

/// A tool: its command line and what it does.
pub struct Tool {
    /// Its name, as in reports.
    pub name: &'static str,
    /// The lane that it speaks for when it cannot even begin.
    pub lane: Lane,
    /// Its command line, without the arguments that all tools share.
    pub command: Command,
    /// Turns the spelling of the old script into today's.
    pub legacy: fn(Vec<OsString>) -> Vec<OsString>,
    /// Settings that are typed as something else than their flag, such as a positional host.
    pub layer: fn(&ArgMatches) -> Layer,
    /// What stdout says when the run fails, where a caller must not go on with nothing. It is told the error of a run
    /// that ended without a report of its own.
    pub on_failure: fn(&[OsString], Option<&str>) -> Option<String>,
    /// What the data of every report of this tool says is so.
    pub marks: &'static [&'static str],
    /// Do its settings take defaults from the app's profile?
    pub suited: bool,
    /// The work.
    pub run: fn(&ArgMatches, &Context) -> anyhow::Result<Exit>,
}

impl Tool {
    /// A tool that has nothing special about its arguments.
    pub fn new(
        name: &'static str,
        lane: Lane,
        command: Command,
        run: fn(&ArgMatches, &Context) -> anyhow::Result<Exit>,
    ) -> Self {
        Self {
            name,
            lane,
            command,
            legacy: |argv| argv,
            layer: |_| Layer::new(),
            on_failure: |_, _| None,
            marks: &[],
            suited: false,
            run,
        }
    }
}

/// The widest that help is set: longer lines are hard to read.
const HELP_COLUMNS: usize = 100;
/// Arguments that all tools share are shown below those of a verb, and above `--help`.
const LAST: usize = 900;

/// Adds the arguments that all tools share.
pub fn with_common(command: Command) -> Command {
    command
        .version(env!("CARGO_PKG_VERSION"))
        .max_term_width(HELP_COLUMNS)
        .arg(
            Arg::new("json")
                .long("json")
                .action(ArgAction::SetTrue)
                .global(true)
                .display_order(LAST)
                .help("Print the report as JSON, one object per line"),
        )
        .arg(
            Arg::new("quiet")
                .long("quiet")
                .short('q')
                .action(ArgAction::SetTrue)
                .global(true)
                .display_order(LAST)
                .help("Print no report; failures and warnings go to stderr"),
        )
        .arg(
            Arg::new("verbose")
                .short('v')
                .long("verbose")
                .action(ArgAction::Count)
                .global(true)
                .display_order(LAST)
                .help("Show the commands that are run, and every check"),
        )
        .arg(
            Arg::new("color")
                .long("color")
                .value_name("WHEN")
                .value_parser(clap::value_parser!(Color))
                .default_value("auto")
                .global(true)
                .display_order(LAST)
                .help("When to colour (NO_COLOR is honoured)"),
        )
}

/// Runs a tool on the process's own arguments.
pub fn main(tool: Tool) -> ExitCode {
    run(tool, std::env::args_os().collect())
}

fn run(mut tool: Tool, argv: Vec<OsString>) -> ExitCode {
    let argv = (tool.legacy)(argv);
    let command = with_common(std::mem::take(&mut tool.command)).color(wanted_color(&argv));
    complete::answer(&command);
    let matches = match command.try_get_matches_from(&argv) {
        Ok(matches) => matches,
        Err(error) => {
            // A closed stream leaves nobody to tell.
            let _nobody_listens = error.print();
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Ok };
            if exit != Exit::Ok {
                let text = error.to_string();
                let line = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
                let out = Printer::new(Format::Human, true, false, Color::Never);
                say((tool.on_failure)(&argv, Some(line)), &out);
            }
            return ExitCode::from(exit.code());
        }
    };
    let format = if matches.get_flag("json") { Format::Json } else { Format::Human };
    let color = matches.get_one::<Color>("color").copied().unwrap_or(Color::Auto);
    let out = Printer::new(format, matches.get_flag("quiet"), matches.get_count("verbose") > 0, color);

    let begin = || -> Result<Context, Failure> {
        let system = |error: std::io::Error| Failure::new(Exit::Failed, error.to_string());
        interrupt::install().map_err(system)?;
        let around = Surroundings::of_process().map_err(|error| {
            Failure::new(Exit::Failed, format!("cannot read the working directory: {error}"))
                .hint("cd to a directory that exists")
        })?;
        let mut typed = table::typed(&matches);
        typed.extend((tool.layer)(&matches));
        let mut settings = Settings::load(typed, &around)?;
        if tool.suited {
            Profile::load(&settings)?.suit(&mut settings);
        }
        let out = out.about(Subject::of(&settings));
        Ok(Context { settings, around, out, passed: OnceLock::new() })
    };
    let context = match begin() {
        Ok(context) => context,
        Err(failure) => {
            let out = Printer::new(format, matches.get_flag("quiet"), false, color);
            let error = failure.into();
            let exit = fail(&out, &tool, "settings", &error);
            say((tool.on_failure)(&argv, Some(&format!("{error:#}"))), &out);
            return ExitCode::from(exit.code());
        }
    };
    let (mut exit, error) = match (tool.run)(&matches, &context) {
        Ok(exit) => (exit, None),
        Err(error) => (fail(&context.out, &tool, "run", &error), Some(format!("{error:#}"))),
    };
    if exit != Exit::Ok {
        say((tool.on_failure)(&argv, error.as_deref()), &context.out);
    }
    if let Some(kind) = context.out.stdout_failure() {
        context.out.error(&format!("cannot write to stdout: {kind}"));
        exit = if exit == Exit::Ok { Exit::Failed } else { exit };
    }
    ExitCode::from(context.passed.get().copied().unwrap_or(exit.code()))
}

/// When to colour help and what is wrong with the arguments, which is known before they are parsed.
fn wanted_color(argv: &[OsString]) -> ColorChoice {
    let words: Vec<&str> =
        argv.iter().filter_map(|word| word.to_str()).take_while(|word| *word != "--").collect();
    let flag = words.iter().enumerate().rev().find_map(|(at, word)| match word.strip_prefix("--color")? {
        "" => words.get(at + 1).copied(),
        value => value.strip_prefix('='),
    });
    match flag {
        Some("always") => ColorChoice::Always,
        Some("never") => ColorChoice::Never,
        _ => ColorChoice::Auto,
    }
}

/// Words for a shell. With `--json` the report says that there are none.
fn say(words: Option<String>, out: &Printer) {
    if let Some(words) = words.filter(|_| !out.is_json()) {
        out.data(&words);
    }
}

/// Ends a run that has no report of its own: the error and its remedy on stderr, and with `--json` a report all the same.
fn fail(out: &Printer, tool: &Tool, id: &'static str, error: &anyhow::Error) -> Exit {
    let (exit, hint) = Failure::within(error);
    let text = format!("{error:#}");
    if out.is_json() {
        let mut report = Report::new(tool.name, tool.lane, "");
        report.data.extend(tool.marks.iter().map(|mark| ((*mark).to_owned(), true.into())));
        let check = Check::fail(id, exit, text);
        report.push(if let Some(hint) = hint { check.hint(hint) } else { check });
        out.reports(&[report]);
    } else {
        out.error(&text);
        if let Some(hint) = hint {
            out.hint(hint);
        }
    }
    exit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_colour_of_help_is_the_one_that_is_typed() {
        let wanted = |line: &str| wanted_color(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
        assert_eq!(wanted("ua-x --help"), ColorChoice::Auto);
        assert_eq!(wanted("ua-x --color never --help"), ColorChoice::Never);
        assert_eq!(wanted("ua-x verb --color=always -h"), ColorChoice::Always);
        assert_eq!(wanted("ua-x --color=always --color never"), ColorChoice::Never);
        assert_eq!(wanted("ua-x run -- ls --color=never"), ColorChoice::Auto);
        assert_eq!(wanted("ua-x --color"), ColorChoice::Auto);
    }
}
