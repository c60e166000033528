//! The command line.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, ValueHint};
use serde_json::{Value, json};
use ua_common::app;
use ua_common::cli::{Context, Tool};
use ua_common::complete::{self, Candidates};
use ua_common::error::Failure;
use ua_common::exit::Exit;
use ua_common::output::{Records, printable};
use ua_common::profile::Profile;
use ua_common::report::{Check, Lane, Report};
use ua_common::run::Group;
use ua_common::settings::table;
use ua_common::settings::value::Patterns;
use ua_common::tool::git::Repo;

use crate::push::Parcel;
use crate::session::{self, Session};
use crate::{doctor, files, legacy, logs, perms, push, run, settings, status, units};

const NAME: &str = "ua-vpsctl";

const EXAMPLES: &str = "\
Exit codes: 0 ok, 1 failed, 2 usage, 10-23 no way to the VPS, 30 a deploy is
under way, 31 the VPS is not ready for one, 32 upload failed.
`run` and `run-file` end with the code of what they ran, and with 255 if they
could not.

Examples:
  ua-vpsctl status                      how the app's units are
  ua-vpsctl logs gateway -f             what one of them writes, as it comes
  ua-vpsctl restart webui               and see that it stays up
  ua-vpsctl push src/app.py --restart   a file of the working tree, until a
                                        deploy settles it
  ua-vpsctl run -- df -h                a command, word by word
  ua-vpsctl doctor                      what is not as it should be
  ua-vpsctl settings                    every setting, and who decided it";

/// `ua-vpsctl`.
pub fn tool() -> Tool {
    let unit = || Arg::new("UNIT").add(Candidates::new(complete::units));
    let units = |help: &'static str| unit().num_args(1..).required(true).help(help);
    let rest = || Arg::new("ARG").num_args(0..).trailing_var_arg(true).allow_hyphen_values(true);
    let command = Command::new(NAME)
        .about("Everyday verbs for the VPS")
        .after_help(EXAMPLES)
        .subcommand_required(true)
        .subcommand(verb(
            "status",
            "How the app's units are, whether they answer, and what they run",
            "\
Examples:
  ua-vpsctl status
  ua-vpsctl status gateway api --format tsv",
            Records::<8>::args().into_iter().chain([unit().num_args(0..).help("Only these [default: all]")]),
        ))
        .subcommand(verb(
            "push",
            "Put files of the working tree in place, until the next deploy",
            "\
Examples:
  ua-vpsctl push --dry-run src/universal_agent
  ua-vpsctl push src/universal_agent/api.py --restart",
            [
                Arg::new("PATH").num_args(1..).required(true).value_hint(ValueHint::AnyPath).help(
                    "A file, or a directory with all that is tracked or new in it, from the repository's top",
                ),
                Arg::new("restart")
                    .long("restart")
                    .action(ArgAction::SetTrue)
                    .help("Restart the units that read these paths, by the profile"),
                Arg::new("force-sensitive")
                    .long("force-sensitive")
                    .action(ArgAction::SetTrue)
                    .help("Take secrets and what git ignores along, too"),
                Arg::new("dry-run")
                    .long("dry-run")
                    .action(ArgAction::SetTrue)
                    .help("Compare, and say what would be put where"),
            ]
            .into_iter()
            .chain(table::flags(&["repo"])),
        ))
        .subcommand(verb(
            "restart",
            "Restart units, and see that each stays up in one new process",
            "\
Examples:
  ua-vpsctl restart webui
  ua-vpsctl restart all",
            [
                units("Names of the profile, or their last part; `all` is all of them that the VPS has"),
                Arg::new("dry-run")
                    .long("dry-run")
                    .action(ArgAction::SetTrue)
                    .help("Say what would be restarted"),
            ],
        ))
        .subcommand(verb(
            "logs",
            "What units wrote, into the journal or into files of their own",
            "\
Of a unit with `StandardOutput=append:…` or `file:…` that file is read, and what
systemd says of the unit in the journal stands between its lines.

Examples:
  ua-vpsctl logs gateway -n 50
  ua-vpsctl logs vp.coder.primary --since 1h
  ua-vpsctl logs gateway api -f --grep error
  ua-vpsctl logs gateway --json | jq -r '.data.lines[]'",
            [
                units("Names of the profile, or their last part; `all` is all of them that the VPS has"),
                Arg::new("follow")
                    .short('f')
                    .long("follow")
                    .action(ArgAction::SetTrue)
                    .help("Go on as lines come"),
                Arg::new("lines")
                    .short('n')
                    .long("lines")
                    .value_name("N")
                    .value_parser(number)
                    .default_value("220")
                    .help("The last N lines"),
                Arg::new("since").long("since").value_name("WHEN").help(
                    "Since then, such as `1h` or `yesterday`; in a file from the first line with such a time",
                ),
                Arg::new("grep").long("grep").value_name("PATTERN").help("Only lines that match"),
            ],
        ))
        .subcommand(verb(
            "run",
            "Run a command on the VPS; its code is the exit code",
            "\
With --json what it writes goes into the report, up to 1 MiB of each stream.

Examples:
  ua-vpsctl run -- systemctl list-timers
  ua-vpsctl run --shell 'du -sh /opt/universal_agent/* | sort -h'
  ua-vpsctl run --json -- df -h | jq -r .data.stdout",
            [
                Arg::new("shell").long("shell").value_name("LINE").help("A line for sh instead of a command"),
                rest()
                    .help("The command, word by word")
                    .conflicts_with("shell")
                    .required_unless_present("shell"),
            ],
        ))
        .subcommand(verb(
            "run-file",
            "Run a script of this machine on the VPS; its code is the exit code",
            "\
With --json what it writes goes into the report, up to 1 MiB of each stream.

Examples:
  ua-vpsctl run-file ./check.sh
  ua-vpsctl run-file ./check.sh -- --verbose /opt",
            [
                Arg::new("FILE").required(true).value_parser(clap::value_parser!(PathBuf)).help("The script"),
                rest().help("Its arguments"),
            ],
        ))
        .subcommand(verb(
            "doctor",
            "What of the VPS is not as it should be, and what to do about it",
            "\
Examples:
  ua-vpsctl doctor
  ua-vpsctl doctor -q                   only what is wrong
  ua-vpsctl doctor --json | jq -r '.checks[] | select(.hint) | .id, .hint'",
            table::flags(&["staging"]),
        ))
        .subcommand(verb(
            "fix-perms",
            "Owner and mode of the files that hold secrets",
            "\
Examples:
  ua-vpsctl fix-perms --dry-run
  ua-vpsctl fix-perms",
            [Arg::new("dry-run").long("dry-run").action(ArgAction::SetTrue).help("Say what would be mended")],
        ))
        .subcommand(verb(
            "sessions",
            "The newest workspaces on the VPS",
            "\
Examples:
  ua-vpsctl sessions
  ua-vpsctl sessions session_202602 --format ids",
            Records::<5>::args().into_iter().chain([Arg::new("PREFIX")
                .default_value("")
                .add(Candidates::new(complete::workspaces))
                .help("How their ids begin")]),
        ))
        .subcommand(verb(
            "browse",
            "What is in a directory of the VPS",
            "\
Examples:
  ua-vpsctl browse
  ua-vpsctl browse AGENT_RUN_WORKSPACES --format ids -0",
            Records::<5>::args()
                .into_iter()
                .chain([Arg::new("PATH").default_value(".").help("Below the app's directory, or absolute")]),
        ))
        .subcommand(verb(
            "read",
            "A file of the VPS; files that hold secrets are refused",
            "\
Examples:
  ua-vpsctl read logs/gateway.log --tail 50
  ua-vpsctl read pyproject.toml",
            [
                Arg::new("PATH").required(true).help("Below the app's directory, or absolute"),
                Arg::new("tail")
                    .long("tail")
                    .value_name("N")
                    .value_parser(number)
                    .help("Only its last N lines"),
            ],
        ))
        .subcommand(verb(
            "inspect",
            "One workspace: its newest files, its largest results, how its log ends",
            "\
Examples:
  ua-vpsctl inspect session_20260221_101500_ab12
  ua-vpsctl inspect tg_1 --json | jq -r '.data.parts.products[]'",
            [Arg::new("SESSION").required(true).add(Candidates::new(complete::workspaces)).help("Its id")],
        ))
        .subcommand(verb(
            "settings",
            "Every setting, its value and where that comes from; nobody is contacted",
            "\
Examples:
  ua-vpsctl settings
  ua-vpsctl settings --format tsv | grep '^ssh'",
            Records::<3>::args(),
        ));
    Tool { legacy: legacy::rewrite, suited: true, ..Tool::new(NAME, Lane::Vps, command, dispatch) }
}

fn verb(
    name: &'static str,
    about: &'static str,
    examples: &'static str,
    args: impl IntoIterator<Item = Arg>,
) -> Command {
    Command::new(name).about(about).after_help(examples).args(args).args(table::flags(&[
        "host",
        "ssh",
        "preflight",
    ]))
}

/// So many lines.
fn number(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("a whole number is wanted, such as 50, and at most {}", u32::MAX))
}

fn text<'a>(matches: &'a ArgMatches, name: &str) -> &'a str {
    matches.get_one::<String>(name).map_or("", String::as_str)
}

fn words(matches: &ArgMatches, name: &str) -> Vec<String> {
    matches.get_many::<String>(name).into_iter().flatten().cloned().collect()
}

#[allow(clippy::unnecessary_wraps, reason = "the signature that every tool shares")]
fn dispatch(matches: &ArgMatches, context: &Context) -> anyhow::Result<Exit> {
    let Some((verb, matches)) = matches.subcommand() else { return Ok(Exit::Usage) };
    if verb == "settings" {
        return Ok(print(
            matches,
            context,
            Report::new(NAME, Lane::Local, "settings"),
            &settings::records(&context.settings, &context.around),
        ));
    }
    let passes = matches!(verb, "run" | "run-file");
    let mut report = Report::new(NAME, Lane::Vps, context.settings.host_vps.to_string());
    let done = work(verb, matches, context, &mut report);
    match done {
        Ok(Some(exit)) => return Ok(exit),
        Ok(None) => {}
        Err(error) => drop(report.push(Check::error("vpsctl", &error))),
    }
    if passes && !matches!(report.exit(), Exit::Ok | Exit::Usage) {
        // What was to be run has all other codes; the report has the true one.
        context.pass(u8::MAX);
        return Ok(context.finish_with(report, None));
    }
    // What a verb prints is its result; the report is for what went wrong.
    let quiet =
        matches!(verb, "status" | "logs" | "run" | "run-file" | "sessions" | "browse" | "read" | "inspect");
    Ok(if quiet { context.finish_with(report, None) } else { context.finish(&[report]) })
}

/// One verb. Gives the exit where all has been said.
fn work(
    verb: &str,
    matches: &ArgMatches,
    context: &Context,
    report: &mut Report,
) -> anyhow::Result<Option<Exit>> {
    // What is typed is judged before anybody is contacted.
    let profile = Profile::load(&context.settings).map_err(Failure::from)?;
    let chosen = match verb {
        "restart" | "logs" => units::named(&profile, &words(matches, "UNIT"))?,
        "status" => {
            let words = words(matches, "UNIT");
            units::named(&profile, &if words.is_empty() { vec!["all".to_owned()] } else { words })?
        }
        _ => Vec::new(),
    };
    let line = match verb {
        "run" if matches.contains_id("shell") => text(matches, "shell").to_owned(),
        "run" => run::line(&words(matches, "ARG"))?,
        "run-file" => run::program(
            matches.get_one::<PathBuf>("FILE").map_or(std::path::Path::new(""), PathBuf::as_path),
        )?,
        "read" | "browse" => files::plain(text(matches, "PATH"))?.to_owned(),
        "inspect" => workspace(text(matches, "SESSION"), &context.settings.sync_nested)?.to_owned(),
        _ => String::new(),
    };
    if verb == "logs" && matches.get_flag("follow") && context.out.is_json() {
        return Err(logs::endless().into());
    }
    let parcel = match verb {
        "push" => {
            app::dir(&context.settings)?;
            let dir = context.settings.repo(&context.around).map_err(Failure::from)?;
            let repo = Repo::open(&dir).map_err(Failure::from)?;
            let force = matches.get_flag("force-sensitive");
            Some(push::gather(&repo, &profile, &context.around.cwd, &words(matches, "PATH"), force)?)
        }
        _ => None,
    };
    let group = if matches!(verb, "run" | "run-file") { Group::Ours } else { Group::Own };
    let Some(session) = session::open(context, &profile, group, report)? else { return Ok(None) };
    if let Some(parcel) = parcel {
        pushed(&session, &parcel, matches, report)?;
        return Ok(None);
    }
    let table = |records: &Records<5>, report: &mut Report| {
        let report = std::mem::replace(report, Report::new(NAME, Lane::Vps, ""));
        Some(print(matches, context, report, records))
    };
    match verb {
        "status" => {
            let seen = status::look(&session, &chosen)?;
            let records = status::records(&seen);
            if !context.out.is_json() {
                records.print(matches, &context.out);
            }
            report.data.insert("rows".to_owned(), records.rows.into_iter().map(|row| row.json).collect());
            let asked = chosen.iter().filter(|chosen| !chosen.if_there).count();
            status::judge(&seen, asked, &profile, &context.settings.deploy_ready_timeout, report);
        }
        "restart" if matches.get_flag("dry-run") => {
            report.push(Check::pass(
                "restart",
                format!("would restart {}; nothing was changed", status::list(&chosen)),
            ));
        }
        "restart" => status::restart(&session, &chosen, report)?,
        "doctor" => doctor::doctor(&session, report)?,
        "logs" => {
            let wanted = logs::Wanted {
                follow: matches.get_flag("follow"),
                lines: matches.get_one("lines").copied().unwrap_or_default(),
                since: text(matches, "since"),
                pattern: text(matches, "grep"),
            };
            logs::logs(&session, &chosen, &wanted, report)?;
        }
        "run" => {
            let code = run::run(&session, &line, report)?;
            report.checks.extend(run::meant_shell(&words(matches, "ARG"), code));
            context.pass(code);
        }
        "run-file" => context.pass(run::run_file(&session, &line, &words(matches, "ARG"), report)?),
        "fix-perms" => perms::fix(&session, matches.get_flag("dry-run"), report)?,
        "sessions" => return Ok(table(&files::sessions(&session, text(matches, "PREFIX"))?, report)),
        "browse" => return Ok(table(&files::browse(&session, &line)?, report)),
        "read" => read(&session, &line, matches.get_one("tail").copied(), report)?,
        _ => {
            let parts = files::inspect(&session, &line)?;
            if !context.out.is_json() {
                context.out.text(&files::shown(&parts));
            }
            report.data.insert("parts".to_owned(), files::parts_json(&parts));
        }
    }
    Ok(None)
}

fn pushed(
    session: &Session<'_>,
    parcel: &Parcel,
    matches: &ArgMatches,
    report: &mut Report,
) -> Result<(), Failure> {
    let dry_run = matches.get_flag("dry-run");
    parcel.describe(session.profile, report);
    push::push(session, parcel, dry_run, matches.get_flag("restart"), report)
}

/// The id of a workspace means one directory, and nothing beside it: its name, or that of a directory in `sync.nested` and
/// its own.
fn workspace<'a>(id: &'a str, nested: &Patterns) -> Result<&'a str, Failure> {
    let plain = |name: &str| {
        !name.is_empty()
            && !name.starts_with(['.', '-'])
            && !name.contains('/')
            && !name.chars().any(char::is_control)
    };
    let fine = match id.split_once('/') {
        Some((container, name)) => nested.matches(container) && plain(container) && plain(name),
        None => plain(id),
    };
    if !fine {
        let message = format!("`{}` is not the id of a workspace", id.escape_debug());
        return Err(Failure::new(Exit::Usage, message).hint("ua-vpsctl sessions --format ids"));
    }
    Ok(id)
}

fn read(session: &Session<'_>, path: &str, tail: Option<u32>, report: &mut Report) -> Result<(), Failure> {
    let bytes = files::read(session, path, tail)?;
    let text = String::from_utf8_lossy(&bytes);
    let out = &session.context.out;
    if out.is_json() {
        report.data.insert("text".to_owned(), Value::from(text.as_ref()));
    } else if out.is_terminal() {
        // A terminal must not be driven by a file.
        out.text(&printable(&text));
    } else {
        out.bytes(&bytes);
    }
    Ok(())
}

/// Prints rows, and what went wrong on the way.
fn print<const N: usize>(
    matches: &ArgMatches,
    context: &Context,
    mut report: Report,
    records: &Records<N>,
) -> Exit {
    if !context.out.is_json() {
        records.print(matches, &context.out);
        context.out.troubles(&report);
        return Exit::Ok;
    }
    report.push(Check::pass("rows", status::counted(records.rows.len(), "row", "rows")));
    report
        .data
        .insert("rows".to_owned(), json!(records.rows.iter().map(|row| &row.json).collect::<Vec<_>>()));
    context.finish(&[report])
}
