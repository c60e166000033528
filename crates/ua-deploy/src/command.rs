//! The command line.

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use jiff::Timestamp;
use serde_json::json;
use ua_common::cli::{Context, Tool};
use ua_common::error::Failure;
use ua_common::exit::Exit;
use ua_common::output::{self, Records};
use ua_common::report::{Check, Lane, Report};
use ua_common::settings::table;

use crate::history::{self, Bad, Holder, Outcome, Record};
use crate::release::Dirty;
use crate::{NAME, Options, attach, counted, records, rollback, run, status, unlock};

const EXAMPLES: &str = "\
Exit codes: 0 ok, 1 failed before the switch, 2 usage, 10-23 no way to the
VPS, 30 busy, 31 the VPS is not ready, 32 upload failed, 33 the old release
serves again, 34 broken, 40/42 staging is required and cannot be set up,
43 it is public, 60 public smoke

Examples:
  ua-deploy plan                    what would happen; changes nothing anywhere
  ua-deploy                         ship HEAD of the repository
  ua-deploy run --ref v1.4.2        ship another commit
  ua-deploy run --staging required  restore the old release if staging is ill
  ua-deploy rollback                deploy what served before
  ua-deploy attach                  follow a deploy whose client is gone
  ua-deploy status                  what runs now, is it up, what was changed
  ua-deploy history                 what was deployed, by whom, how it ended";

const RUN_EXAMPLES: &str = "\
Examples:
  ua-deploy run --dry-run --json | jq .data.plan
  ua-deploy run --allow-dirty       leave uncommitted changes out, and list them
  UA_VPS_HOST=root@vps.tail1234.ts.net ua-deploy run";

const PLAN_EXAMPLES: &str = "\
Examples:
  ua-deploy plan --ref v1.4.2       what another commit would change
  ua-deploy plan --json | jq '.data | {since, plan, drift}'";

const ROLLBACK_EXAMPLES: &str = "\
Examples:
  ua-deploy rollback --dry-run      to what, and what it would restart
  ua-deploy rollback                the newest good one before this
  ua-deploy rollback 20260221T1200  that one; `ua-deploy history` has its id";

const UNLOCK_EXAMPLES: &str = "\
Examples:
  ua-deploy status --json | jq -r '.checks[] | select(.id == \"lock\") | .detail'
  ua-deploy unlock 20260221T120000.000Z-012d5311a958
  ua-deploy unlock 20260221T120000.000Z-012d5311a958 --force   though it lives";

const ATTACH_EXAMPLES: &str = "\
Examples:
  ua-deploy attach                  the newest one
  ua-deploy attach 20260221T120000.000Z-012d5311a958
  ua-deploy attach; echo $?         its exit code, as its own client had it";

const STATUS_EXAMPLES: &str = "\
Examples:
  ua-deploy status
  ua-deploy status --json | jq -r .data.serving.commit";

const HISTORY_EXAMPLES: &str = "\
Examples:
  ua-deploy history
  ua-deploy history --format json | jq -r 'select(.verdict == \"ok\") | .commit'
  ua-deploy history --format ids -0 | xargs -0 -n 1 echo";

/// `ua-deploy`.
pub fn tool() -> Tool {
    let command = Command::new(NAME)
        .about("Deploy an exact commit to the VPS, and prove that it runs")
        .after_help(EXAMPLES)
        .args(run_args())
        .subcommand(
            Command::new("run")
                .about("Ship a commit: upload, build, switch, restart, prove (the same as no verb)")
                .after_help(RUN_EXAMPLES)
                .args(run_args()),
        )
        .subcommand(
            Command::new("plan")
                .about("Look at everything and say what a deploy would do; changes nothing (the same as run --dry-run)")
                .after_help(PLAN_EXAMPLES)
                .args(run_args().into_iter().filter(|arg| arg.get_id() != "dry-run")),
        )
        .subcommand(
            Command::new("rollback")
                .about("Deploy the commit of an older release, in the same way as any other")
                .after_help(ROLLBACK_EXAMPLES)
                .arg(
                    Arg::new("ID").help(
                        "The release, or how its id begins; without it the newest good one before the one that serves",
                    ),
                )
                .args(run_args().into_iter().filter(|arg| !matches!(arg.get_id().as_str(), "ref" | "allow-dirty"))),
        )
        .subcommand(
            Command::new("unlock")
                .about("End an activation that holds the lock; one that died holds nothing")
                .after_help(UNLOCK_EXAMPLES)
                .arg(Arg::new("ID").required(true).help("The holder, as `ua-deploy status` names it"))
                .arg(
                    Arg::new("force")
                        .long("force")
                        .action(ArgAction::SetTrue)
                        .help("End it though it is alive, wherever it is"),
                )
                .args(table::flags(&["host", "ssh", "preflight"])),
        )
        .subcommand(
            Command::new("attach")
                .about("Follow a deploy that an earlier client left, confirm it, and end with its exit code")
                .after_help(ATTACH_EXAMPLES)
                .arg(Arg::new("ID").help("The deploy, or how its id begins; without it the newest"))
                .args(table::flags(&["repo", "host", "ssh", "preflight", "transfer", "staging", "public"])),
        )
        .subcommand(
            Command::new("status")
                .about("What runs now, since when, whether its units are up, who holds the lock, what was changed on the VPS since")
                .after_help(STATUS_EXAMPLES)
                .args(table::flags(&["host", "ssh", "preflight"])),
        )
        .subcommand(
            Command::new("history")
                .about("Every deploy, oldest first")
                .after_help(HISTORY_EXAMPLES)
                .args(Records::<8>::args())
                .args(table::flags(&["host", "ssh", "preflight"])),
        );
    Tool { suited: true, ..Tool::new(NAME, Lane::Vps, command, dispatch) }
}

fn run_args() -> Vec<Arg> {
    let mut args = vec![
        Arg::new("dry-run")
            .long("dry-run")
            .action(ArgAction::SetTrue)
            .help("Look at everything, print the plan, and change nothing anywhere"),
        Arg::new("ref").long("ref").value_name("REV").default_value("HEAD").help("The commit to ship"),
        Arg::new("allow-dirty")
            .long("allow-dirty")
            .action(ArgAction::SetTrue)
            .help("Ship the commit though the working tree differs from it; what is left out is listed"),
        Arg::new("force-restart")
            .long("force-restart")
            .action(ArgAction::SetTrue)
            .help("Do not wait for busy workers: restart them in the middle of what they do"),
    ];
    args.extend(table::flags(&[
        "repo",
        "host",
        "ssh",
        "preflight",
        "transfer",
        "deploy",
        "staging",
        "public",
    ]));
    args
}

fn dispatch(matches: &ArgMatches, context: &Context) -> anyhow::Result<Exit> {
    only_of_the_verb(matches)?;
    // Some of them may stand before the verb.
    let options = |behind| options(&[matches, behind]);
    match matches.subcommand() {
        Some(("history", matches)) => history(matches, context),
        Some(("plan", matches)) => run(context, &Options { dry_run: true, ..options(matches) }),
        Some(("rollback", matches)) => {
            rollback(context, matches.get_one::<String>("ID").map(String::as_str), &options(matches))
        }
        Some(("unlock", matches)) => {
            let mut report = Report::new(NAME, Lane::Vps, context.settings.host_vps.to_string());
            let id = matches.get_one::<String>("ID").map_or("", String::as_str);
            unlock(context, id, matches.get_flag("force"), &mut report)?;
            Ok(context.finish(&[report]))
        }
        Some(("attach", matches)) => Ok(attach(context, matches.get_one::<String>("ID").map(String::as_str))),
        Some(("status", _)) => {
            let mut report = Report::new(NAME, Lane::Vps, context.settings.host_vps.to_string());
            status(context, &mut report)?;
            Ok(context.finish(&[report]))
        }
        Some((_, behind)) => run(context, &options(behind)),
        None => run(context, &options(matches)),
    }
}

/// What was typed before a verb counts as if it stood behind it, so it has to be a flag of that verb.
fn only_of_the_verb(matches: &ArgMatches) -> Result<(), Failure> {
    let Some((verb, _)) = matches.subcommand() else { return Ok(()) };
    let command = tool().command;
    let Some(takes) = command.find_subcommand(verb) else { return Ok(()) };
    for arg in command.get_arguments() {
        let id = arg.get_id().as_str();
        let typed = matches.value_source(id) == Some(ValueSource::CommandLine);
        // A plan is a dry run whether that is said or not.
        let known =
            takes.get_arguments().any(|known| known.get_id() == id) || (verb, id) == ("plan", "dry-run");
        if typed && !known {
            let flag = arg.get_long().unwrap_or(id);
            let message = format!("`--{flag}` means nothing to `{NAME} {verb}`");
            return Err(Failure::new(Exit::Usage, message).hint(format!("{NAME} {verb} --help")));
        }
    }
    Ok(())
}

/// What was typed at any of these places.
fn options(places: &[&ArgMatches]) -> Options {
    let told = |name| places.iter().any(|place| matches!(place.try_get_one(name), Ok(Some(true))));
    let typed = |place: &&&ArgMatches| place.value_source("ref") == Some(ValueSource::CommandLine);
    let takes = |place: &&&ArgMatches| matches!(place.try_contains_id("ref"), Ok(true));
    let rev = places.iter().rev().filter(takes).find(typed);
    Options {
        rev: rev
            .and_then(|place| place.get_one::<String>("ref").cloned())
            .unwrap_or_else(|| "HEAD".to_owned()),
        dirty: if told("allow-dirty") { Dirty::LeaveOut } else { Dirty::Refuse },
        dry_run: told("dry-run"),
        rollback_from: None,
        force_restart: told("force-restart"),
    }
}

fn history(matches: &ArgMatches, context: &Context) -> anyhow::Result<Exit> {
    // Typed behind the verb, the parser itself sees that.
    if context.out.is_json() && matches.value_source("format") == Some(ValueSource::CommandLine) {
        let message = "`--json` prints a report and `--format` rows: it is one of them";
        return Err(Failure::new(Exit::Usage, message).hint(format!("{NAME} history --format json")).into());
    }
    let mut report = Report::new(NAME, Lane::Vps, context.settings.host_vps.to_string());
    match records(context, &mut report) {
        Ok(Some((records, _))) if records.is_empty() && !context.out.is_json() => {
            context
                .out
                .note(&format!("nothing was deployed yet; what a deploy would do: {}", history::NOT_YET));
            return Ok(Exit::Ok);
        }
        Ok(Some((records, holder))) => {
            let told = told(&records, holder.as_ref());
            if !context.out.is_json() {
                rows(&told).print(matches, &context.out);
                return Ok(Exit::Ok);
            }
            report.push(Check::pass("history", counted(records.len(), "deploy", "deploys")));
            let rows: Vec<_> = told.iter().map(Told::json).collect();
            report.data.insert("rows".to_owned(), json!(rows));
        }
        Ok(None) => {}
        Err(error) => drop(report.push(Check::error("history", &error))),
    }
    Ok(context.finish(&[report]))
}

/// A record, and what the others and the lock say about it.
struct Told<'a> {
    record: &'a Record,
    /// The step that it is at, if it is being worked on.
    at: Option<&'a str>,
    /// Why its commit is marked bad.
    bad: Option<Bad>,
    /// Is it the one that was put in place last, and proved?
    in_place: bool,
}

fn told<'a>(records: &'a [Record], holder: Option<&'a Holder>) -> Vec<Told<'a>> {
    let serving = history::serving(records).map(|record| record.id.as_str());
    let of = |record: &'a Record| Told {
        record,
        in_place: serving == Some(&record.id),
        at: holder
            // Who confirms one that serves holds the lock for a moment, too.
            .filter(|_| matches!(record.verdict, Outcome::Begun | Outcome::Activating))
            .filter(|holder| holder.works_on(&record.id))
            .map(|holder| holder.step.as_deref().unwrap_or_default()),
        bad: history::bad(records, &record.commit),
    };
    records.iter().map(of).collect()
}

impl Told<'_> {
    /// Its record as it is, and beside it what else is known.
    fn json(&self) -> serde_json::Value {
        let mut row = json!(self.record);
        if let Some(at) = self.at {
            row["under_way"] = json!(at);
        }
        if let Some(bad) = &self.bad {
            row["bad"] = json!(bad);
        }
        row
    }

    fn detail(&self) -> String {
        let record = self.record;
        let mut parts = Vec::new();
        if record.break_glass {
            parts.push("break-glass".to_owned());
        }
        if let Some(left) = &record.rollback_from {
            parts.push(format!("rollback from {left}"));
        }
        // A record that says so itself needs no mark.
        if let Some(bad) = self.bad.as_ref().filter(|bad| bad.id != record.id) {
            parts.push(format!("marked bad since {} ({})", bad.at, bad.id));
        }
        if self.in_place {
            parts.push("in place now".to_owned());
        }
        // It is written beforehand what it comes to if it is cut off.
        match (self.at, record.verdict) {
            (Some(""), _) => parts.push("under way".to_owned()),
            (Some(step), _) => parts.push(format!("under way, at step `{step}`")),
            (None, Outcome::Begun) => parts.push("uploading, or the upload was cut off".to_owned()),
            // The other columns say all of it.
            (None, Outcome::Ok) => {}
            (None, _) => parts.push(record.detail.clone()),
        }
        parts.extend(record.expires(Timestamp::now()));
        parts.join("; ")
    }
}

fn rows(told: &[Told<'_>]) -> Records<8> {
    let short = |record: &Record| record.commit.get(..12).unwrap_or(&record.commit).to_owned();
    let cells = |told: &Told<'_>| {
        let record = told.record;
        let branch = record.branch.clone().unwrap_or_default();
        [
            record.id.clone(),
            record.verdict.word().to_owned(),
            record.public.clone().unwrap_or_else(|| "-".to_owned()),
            record.seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds} s")),
            short(record),
            branch,
            record.who.clone(),
            told.detail(),
        ]
    };
    let row = |told: &Told<'_>| output::Record {
        id: told.record.id.clone(),
        cells: cells(told),
        json: told.json(),
    };
    let head = ["ID", "VPS", "PUBLIC", "TOOK", "COMMIT", "BRANCH", "WHO", "DETAIL"];
    Records { head, rows: told.iter().map(row).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_record_is_one_line_in_every_format() {
        let line = r#"{"id":"20260101T000000Z-abc","commit":"abcdefabcdefabcdef","branch":"main","who":"op@laptop","verdict":"rolled-back","seconds":71,"detail":"a\tb\u001b[2J"}"#;
        let records = history::fold(line);
        let told = told(&records, None);
        assert_eq!(rows(&told).lines("ids"), ["20260101T000000Z-abc"]);
        assert_eq!(
            rows(&told).lines("tsv"),
            ["20260101T000000Z-abc\trolled-back\t-\t71 s\tabcdefabcdef\tmain\top@laptop\ta b\u{1b}[2J"]
        );
        let table = rows(&told).lines("table");
        assert_eq!(table.len(), 2);
        assert!(table[1].contains("\\u{1b}[2J"), "{}", table[1]);
    }

    #[test]
    fn what_is_under_way_and_what_went_wrong_is_told_apart_from_how_it_would_end() {
        let lines = r#"
            {"id":"1","commit":"a","who":"op","verdict":"ok","ended_at":"T1"}
            {"id":"2","commit":"b","who":"op","verdict":"ok","ended_at":"T2","detail":"serves"}
            {"id":"3","commit":"a","who":"op","verdict":"ok","ended_at":"T3","rollback_from":"2","detail":"serves"}
            {"id":"4","commit":"c","verdict":"rolled-back","ended_at":"T4","detail":"api answers 500"}
            {"id":"5","commit":"d","verdict":"activating","detail":"the activation ended before the switch"}
            {"id":"6","commit":"e","verdict":"begun","detail":"the upload did not end"}"#;
        let records = history::fold(lines);
        let text = "ua-deploy forward 5 by op, since T5".to_owned();
        let holder = Holder { text, step: Some("build".to_owned()) };
        let rows = told(&records, Some(&holder));
        let said: Vec<String> = rows.iter().map(Told::detail).collect();
        assert_eq!(
            said[1..],
            [
                "marked bad since T3 (3)",
                "rollback from 2; in place now",
                "api answers 500",
                "under way, at step `build`",
                "uploading, or the upload was cut off",
            ]
        );
        assert_eq!(rows[4].json()["under_way"], "build");
        assert_eq!(rows[1].json()["bad"]["why"], "op rolled back from it");
        let confirming = Holder { text: "ua-deploy confirm 2 by op, since T6".to_owned(), step: holder.step };
        assert_eq!(told(&records, Some(&confirming))[1].at, None);
        let waiting = r#"{"id":"7","commit":"e","verdict":"unconfirmed","ended_at":"2026-02-21T12:00:00Z","confirm_within":60,"detail":"serves"}"#;
        let said = told(&history::fold(waiting), None)[0].detail();
        assert!(
            said.starts_with(
                "in place now; serves; unless it is confirmed, the VPS takes it back by itself at 2026"
            ),
            "{said}"
        );
        // With nobody at work it is as it was written.
        assert_eq!(told(&records, None)[4].detail(), "the activation ended before the switch");
    }
}
