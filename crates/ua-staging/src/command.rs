//! The command line.

use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::json;
use ua_common::cli::{Context, Tool};
use ua_common::error::Failure;
use ua_common::exit::Exit;
use ua_common::report::{Check, Lane, Report};
use ua_common::settings::table;
use ua_common::settings::value::StagingMode;
use ua_common::transport::Transport;

use crate::plan::{Action, Route, removal};
use crate::serve::{Actual, ServeConfig};
use crate::{Conflict, View, Vps, ensure, legacy, status, view};

const NAME: &str = "ua-staging";

const EXAMPLES: &str = "\
Exit codes: 0 ok, 10-23 no way to the VPS, 40 serve not enabled,
41 unhealthy, 42 routes differ, 43 open to the internet

Examples:
  ua-staging ensure                     set up both routes, see them healthy
  ua-staging ensure --dry-run           what it would change
  ua-staging ensure --replace           take a port over from something else
  ua-staging verify -q && echo healthy  look, change nothing
  ua-staging url ui                     the address of the UI";

/// `ua-staging`.
pub fn tool() -> Tool {
    let dry_run = || {
        Arg::new("dry-run")
            .long("dry-run")
            .action(ArgAction::SetTrue)
            .help("Print what would be changed, and change nothing")
    };
    let replace = Arg::new("replace")
        .long("replace")
        .action(ArgAction::SetTrue)
        .help("Let what else is served at the root of a wanted port give way");
    let local =
        Arg::new("local").long("local").action(ArgAction::SetTrue).global(true).help(
            "This machine is the VPS: no ssh, no preflight (implied where the target is this very node)",
        );
    let verb = |name: &'static str, about: &'static str, examples: &'static str| {
        Command::new(name).about(about).after_help(examples).args(table::flags(&[
            "host",
            "ssh",
            "preflight",
            "staging",
        ]))
    };
    let command = Command::new(NAME)
        .about("The private staging addresses of the app on the tailnet")
        .after_help(EXAMPLES)
        .subcommand_required(true)
        .arg(local)
        .subcommand(
            verb(
                "ensure",
                "Set up both routes if they differ, and see that they are healthy",
                "\
Examples:
  ua-staging ensure
  ua-staging ensure --scheme http --ui-port 8080 --api-port 8081
  ua-staging ensure --dry-run --json",
            )
            .args([dry_run(), replace]),
        )
        .subcommand(verb(
            "verify",
            "See that both routes are right and healthy; change nothing",
            "\
Examples:
  ua-staging verify
  ua-staging verify --health-attempts 1 -q || ua-staging ensure",
        ))
        .subcommand(verb(
            "status",
            "What the VPS serves, beside what is wanted, and how it does; a table",
            "\
Examples:
  ua-staging status
  ua-staging status --json | jq .data.rows",
        ))
        .subcommand(
            verb(
                "reset",
                "Remove the routes that equal ours, and no others",
                "\
Examples:
  ua-staging reset --dry-run
  ua-staging reset",
            )
            .arg(dry_run())
            .arg(
                Arg::new("all")
                    .long("all")
                    .action(ArgAction::SetTrue)
                    .help("Remove every serve route of the node, whoever made it"),
            ),
        )
        .subcommand(
            verb(
                "url",
                "Print the staging addresses, by the name that the VPS has now",
                "\
Examples:
  ua-staging url
  ua-staging url ui
  curl -sf \"$(ua-staging url api)/api/health\"",
            )
            .arg(Arg::new("PART").value_parser(["ui", "api"]).help("Only this one")),
        );
    Tool { legacy: legacy::rewrite, suited: true, ..Tool::new(NAME, Lane::Vps, command, run) }
}

#[allow(clippy::unnecessary_wraps, reason = "the signature that every tool shares")]
fn run(matches: &ArgMatches, context: &Context) -> anyhow::Result<Exit> {
    let mut report = Report::new(NAME, Lane::Vps, context.settings.host_vps.to_string());
    let Some((verb, matches)) = matches.subcommand() else { return Ok(Exit::Usage) };
    if let Err(error) = work(verb, matches, context, &mut report) {
        report.push(Check::error("staging", &error));
    }
    if verb != "url" {
        return Ok(context.finish(&[report]));
    }
    // The addresses are the whole output, so that `$(…)` gets them or nothing.
    let part = matches.get_one::<String>("PART").map(String::as_str);
    let wanted = ["ui", "api"].into_iter().filter(|each| part.is_none_or(|part| part == *each));
    let urls: Vec<&str> =
        wanted.filter_map(|part| report.data.get(&format!("{part}_url"))?.as_str()).collect();
    let urls = urls.join("\n");
    Ok(context.finish_with(report, Some(&urls)))
}

/// From the way in to the verb's own part.
fn work(verb: &str, matches: &ArgMatches, context: &Context, report: &mut Report) -> anyhow::Result<()> {
    let settings = &context.settings;
    // The mode says what a deploy does to staging; who asks for its state gets the state.
    if verb == "ensure" && settings.staging_mode.value == StagingMode::Disabled {
        let origin = &settings.staging_mode.origin;
        report.push(Check::skip(
            "staging",
            format!("staging is left alone (staging.mode = disabled, {origin})"),
        ));
        return Ok(());
    }
    let mut transport = None;
    if !matches.get_flag("local") {
        let preflight = ua_preflight::check(settings, &context.out, ua_preflight::Options::default());
        report.stage("preflight", preflight.checks);
        let Some(place) = preflight.place else { return Ok(()) };
        if verb == "url" && place.in_tailnet {
            // The tailnet's word for the name is as good as the node's own.
            urls(report, &Route::wanted(settings), &place.name);
            return Ok(());
        }
        if !place.myself {
            let target = place.ssh_target(settings);
            let open = Transport::open(target, settings.ssh_check_wait.value, &context.out)?;
            push(report, open.opening().checks());
            transport = Some(open);
        }
    }
    let vps = transport.as_ref().map_or(Vps::Here, Vps::Remote);
    let conflict = if flag(matches, "replace") { Conflict::Replace } else { Conflict::Refuse };
    let view = view(&vps, settings, conflict)?;
    urls(report, &view.wanted, view.actual.node.name());
    let dry_run = flag(matches, "dry-run");
    match verb {
        "ensure" if dry_run => {
            push(report, view.checks());
            let lines: Vec<String> = view.plan.actions.iter().map(ToString::to_string).collect();
            show(context, report, &lines);
        }
        "ensure" => push(report, ensure(&vps, settings, &view, conflict, &context.out)?),
        "verify" => verify(context, &vps, &view, report)?,
        "reset" => reset(context, &vps, &view, matches, report)?,
        "status" => status(context, &vps, &view, report)?,
        _ => {}
    }
    Ok(())
}

/// Where staging is, for whoever reads the report.
fn urls(report: &mut Report, wanted: &[Route; 2], name: &str) {
    for route in wanted {
        report.data.insert(format!("{}_url", route.part), route.url(name).into());
    }
}

fn flag(matches: &ArgMatches, name: &str) -> bool {
    matches!(matches.try_get_one::<bool>(name), Ok(Some(true)))
}

fn push(report: &mut Report, checks: Vec<Check>) {
    for check in checks {
        report.push(check);
    }
}

/// What would be changed, a line each.
fn show(context: &Context, report: &mut Report, lines: &[String]) {
    if !context.out.is_json() {
        for line in lines {
            context.out.would(line);
        }
    }
    report.data.insert("plan".to_owned(), json!(lines));
}

/// Routes that are not as wanted are drift here, since nothing is changed.
fn verify(context: &Context, vps: &Vps<'_>, view: &View, report: &mut Report) -> Result<(), Failure> {
    let right = view.plan.actions.is_empty();
    push(report, view.checks().into_iter().filter(|check| right || check.id != "staging.plan").collect());
    for action in &view.plan.actions {
        let detail = format!("not as wanted; yet to do: {action}");
        report.push(Check::fail("staging.routes", Exit::StagingDrift, detail).hint("ua-staging ensure"));
    }
    if right && view.plan.obstacles.is_empty() {
        push(report, crate::healthy(vps, &context.settings, view, &context.out)?);
    }
    Ok(())
}

/// Takes away what equals ours, or with `--all` everything, and tells line by line what goes.
fn reset(
    context: &Context,
    vps: &Vps<'_>,
    view: &View,
    matches: &ArgMatches,
    report: &mut Report,
) -> Result<(), Failure> {
    let everything = flag(matches, "all");
    let left = |actual: &Actual| match everything {
        true if actual.serve == ServeConfig::default() => Vec::new(),
        true => vec![Action::Reset],
        false => removal(&view.wanted, actual),
    };
    let actions = left(&view.actual);
    let lines: Vec<String> = if everything {
        view.actual.serve.lines().iter().map(|line| format!("stop serving {line}")).collect()
    } else {
        actions.iter().map(ToString::to_string).collect()
    };
    let dry_run = flag(matches, "dry-run");
    let detail = match (actions.is_empty(), everything) {
        (true, true) => "nothing is served".to_owned(),
        (true, false) => "there are no routes of ours".to_owned(),
        (false, true) if dry_run => "all routes of the node would be removed".to_owned(),
        (false, false) if dry_run => "routes of ours would be removed".to_owned(),
        (false, _) => {
            ensure::remove(vps, &view.actual, &|now| left(now).into_iter().next())?;
            let whose = if everything { "all routes of the node" } else { "routes of ours" };
            format!("{whose} were removed, read back")
        }
    };
    if dry_run {
        show(context, report, &lines);
    } else {
        push(report, lines.iter().map(|line| Check::pass("staging.removed", line)).collect());
    }
    report.push(Check::pass("staging.reset", detail));
    if !everything {
        push(report, view.checks().into_iter().filter(|check| check.id == "staging.stale").collect());
    }
    Ok(())
}

/// A table of what is served; what differs from what is wanted is only told here, and a verdict of `verify`.
fn status(context: &Context, vps: &Vps<'_>, view: &View, report: &mut Report) -> Result<(), Failure> {
    let rows = {
        let _waiting = context.out.waiting("asking the routes");
        status::rows(vps, view)?
    };
    if !context.out.is_json() {
        for line in status::table(&rows, context.out.columns()) {
            let head = line.starts_with(status::HEAD[0]);
            context.out.data(&if head { context.out.heading(&line) } else { line });
        }
    }
    report.data.insert("rows".to_owned(), json!(rows));
    for obstacle in &view.plan.obstacles {
        report.push(Check::warn("staging.routes", obstacle.to_string()));
    }
    for action in &view.plan.actions {
        report.push(Check::warn("staging.routes", format!("not as wanted; yet to do: {action}")));
    }
    for part in &view.plan.right {
        report.push(Check::pass("staging.routes", format!("the {part} route is as wanted")));
    }
    for note in &view.plan.notes {
        report.push(Check::warn("staging.stale", note.clone()));
    }
    for (row, route) in rows.iter().zip(&view.wanted) {
        push(report, row.trouble(route).into_iter().collect());
        if let Some(why) = row.certificate.as_deref().filter(|text| !text.ends_with(" days")) {
            let id = format!("staging.{}.certificate", route.part);
            report.push(Check::warn(id, format!("{}: {why}", row.address)));
        }
    }
    Ok(())
}
