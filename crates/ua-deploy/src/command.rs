//! The command line.

use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::json;
use ua_common::cli::{Context, Tool};
use ua_common::exit::Exit;
use ua_common::output::{self, Records};
use ua_common::report::{Check, Lane, Report};
use ua_common::settings::table;

use crate::history::Record;
use crate::release::Dirty;
use crate::{NAME, Options, attach, records, rollback, run, status, unlock};

const EXAMPLES: &str = "\
Exit codes: 0 ok, 1 failed before the switch, 2 usage, 10-23 no way to the
VPS, 30 busy, 31 the VPS is not ready, 32 upload failed, 33 the old release
serves again, 34 broken, 40/42/43 staging cannot be set up, 60 public smoke

Examples:
  ua-deploy plan                    what would happen; changes nothing anywhere
  ua-deploy                         ship HEAD of the repository
  ua-deploy run --ref v1.4.2        ship another commit
  ua-deploy run --staging required  restore the old release if staging is ill
  ua-deploy rollback                deploy what served before
  ua-deploy attach                  follow a deploy whose client is gone
  ua-deploy status                  what runs now, and what was changed since
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
        .args_conflicts_with_subcommands(true)
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
                .about("What runs now, since when, who holds the lock, what was changed on the VPS since")
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
    Tool::new(NAME, Lane::Vps, command, dispatch)
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
    match matches.subcommand() {
        Some(("history", matches)) => Ok(history(matches, context)),
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
        Some((_, matches)) => run(context, &options(matches)),
        None => run(context, &options(matches)),
    }
}

fn options(matches: &ArgMatches) -> Options {
    Options {
        rev: matches!(matches.try_contains_id("ref"), Ok(true))
            .then(|| matches.get_one::<String>("ref").cloned())
            .flatten()
            .unwrap_or_else(|| "HEAD".to_owned()),
        dirty: if matches!(matches.try_get_one("allow-dirty"), Ok(Some(true))) {
            Dirty::LeaveOut
        } else {
            Dirty::Refuse
        },
        dry_run: matches!(matches.try_get_one("dry-run"), Ok(Some(true))),
        rollback_from: None,
        force_restart: matches!(matches.try_get_one("force-restart"), Ok(Some(true))),
    }
}

fn history(matches: &ArgMatches, context: &Context) -> Exit {
    let mut report = Report::new(NAME, Lane::Vps, context.settings.host_vps.to_string());
    match records(context, &mut report) {
        Ok(Some(records)) if !context.out.is_json() => {
            rows(&records).print(matches, &context.out);
            return Exit::Ok;
        }
        Ok(Some(records)) => {
            report.push(Check::pass("history", format!("{} deploys", records.len())));
            report.data.insert("rows".to_owned(), json!(records));
        }
        Ok(None) => {}
        Err(error) => drop(report.push(Check::error("history", &error))),
    }
    context.finish(&[report])
}

fn rows(records: &[Record]) -> Records<8> {
    let short = |record: &Record| record.commit.get(..12).unwrap_or(&record.commit).to_owned();
    let cells = |record: &Record| {
        let branch = record.branch.clone().unwrap_or_default();
        let note = if record.break_glass { "break-glass; " } else { "" };
        let detail = format!("{note}{}", record.detail);
        [
            record.id.clone(),
            record.verdict.word().to_owned(),
            record.public.clone().unwrap_or_else(|| "-".to_owned()),
            record.seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds} s")),
            short(record),
            branch,
            record.who.clone(),
            detail,
        ]
    };
    let row =
        |record: &Record| output::Record { id: record.id.clone(), cells: cells(record), json: json!(record) };
    let head = ["ID", "VPS", "PUBLIC", "TOOK", "COMMIT", "BRANCH", "WHO", "DETAIL"];
    Records { head, rows: records.iter().map(row).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_record_is_one_line_in_every_format() {
        let line = r#"{"id":"20260101T000000Z-abc","commit":"abcdefabcdefabcdef","branch":"main","who":"op@laptop","verdict":"rolled-back","seconds":71,"detail":"a\tb\u001b[2J"}"#;
        let records = crate::history::fold(line);
        assert_eq!(rows(&records).lines("ids"), ["20260101T000000Z-abc"]);
        assert_eq!(
            rows(&records).lines("tsv"),
            ["20260101T000000Z-abc\trolled-back\t-\t71 s\tabcdefabcdef\tmain\top@laptop\ta b\u{1b}[2J"]
        );
        let table = rows(&records).lines("table");
        assert_eq!(table.len(), 2);
        assert!(table[1].contains("\\u{1b}[2J"), "{}", table[1]);
    }
}
