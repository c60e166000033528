//! The command line.

use clap::{Arg, ArgMatches, Command};
use serde_json::json;
use ua_common::cli::{Context, Tool};
use ua_common::exit::Exit;
use ua_common::output::Records;
use ua_common::report::{Check, Lane, Report};
use ua_common::settings::table;

use crate::settings;

const NAME: &str = "ua-vpsctl";

const EXAMPLES: &str = "\
Examples:
  ua-vpsctl settings                    every setting, and who decided it";

/// `ua-vpsctl`.
pub fn tool() -> Tool {
    let command = Command::new(NAME)
        .about("Everyday verbs for the VPS")
        .after_help(EXAMPLES)
        .subcommand_required(true)
        .subcommand(verb(
            "settings",
            "Every setting, its value and where that comes from; nobody is contacted",
            "\
Examples:
  ua-vpsctl settings
  ua-vpsctl settings --format tsv | grep '^ssh'",
            Records::<3>::args(),
        ));
    Tool::new(NAME, Lane::Vps, command, run)
}

fn verb(
    name: &'static str,
    about: &'static str,
    examples: &'static str,
    args: impl IntoIterator<Item = Arg>,
) -> Command {
    Command::new(name).about(about).after_help(examples).args(args).args(table::flags(&[
        "repo",
        "host",
        "ssh",
        "preflight",
    ]))
}

#[allow(clippy::unnecessary_wraps, reason = "the signature that every tool shares")]
fn run(matches: &ArgMatches, context: &Context) -> anyhow::Result<Exit> {
    let Some((verb, matches)) = matches.subcommand() else { return Ok(Exit::Usage) };
    match verb {
        "settings" => {
            let records = settings::records(&context.settings);
            if !context.out.is_json() {
                records.print(matches, &context.out);
                return Ok(Exit::Ok);
            }
            let mut report = Report::new(NAME, Lane::Local, "settings");
            report.push(Check::pass("settings", format!("{} settings", records.rows.len())));
            let rows: Vec<_> = records.rows.into_iter().map(|row| row.json).collect();
            report.data.insert("rows".to_owned(), json!(rows));
            Ok(context.finish(&[report]))
        }
        _ => Ok(Exit::Usage),
    }
}
