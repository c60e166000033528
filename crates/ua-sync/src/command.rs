//! The command line.

use std::ffi::OsString;
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command};
use jiff::Timestamp;
use serde_json::json;
use ua_common::cli::{Context, Tool};
use ua_common::complete::{self, Candidates};
use ua_common::error::Failure;
use ua_common::exit::Exit;
use ua_common::ops::{self, Token};
use ua_common::output::Records;
use ua_common::report::{Check, Lane, Report};
use ua_common::settings::value::{Base, Limit, Patterns, Value as _};
use ua_common::settings::{Layer, Origin, Raw, table};

use crate::config::Config;
use crate::list::{self, Filter};
use crate::lock::Lock;
use crate::manifest::Manifest;
use crate::mirror::{Mirror, local};
use crate::prune::{self, Delete, Prune};
use crate::run::{self, LISTING, Options, View};
use crate::timer::{self, Timer};
use crate::{id, legacy, session, status, toggle, watch};

const NAME: &str = "ua-sync";

const EXAMPLES: &str = "\
The mirror is for looking at finished work. What runs on the VPS is judged
there. Without a verb it is `watch`, as the old script was.

Exit codes: 0 ok, 1 something here or there failed, 2 wrong call or settings,
10-23 no way to the VPS, 30 another run has the mirror, 32 the transfer failed,
50 some workspaces failed, 51 a deletion was refused, 130 interrupted

Examples:
  ua-sync once                          copy what is ready and missing
  ua-sync once --dry-run                what it would copy
  ua-sync list --pending --format ids | ua-sync pull -
  ua-sync status --json | jq .sync_state
  ua-sync timer on --interval 10m       every ten minutes, as this user";

/// Options that change what is copied, and how.
const COPYING: [&str; 8] = [
    "no-artifacts",
    "no-skip-synced",
    "include-runtime-db",
    "no-delete",
    "respect-remote-toggle",
    "ignore-remote-toggle",
    "ops-token",
    "wait",
];
const DELETING: [&str; 4] =
    ["delete-remote-after-sync", "prune-remote-when-local-missing", "allow-remote-delete", "max-delete"];

fn switch(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
}

/// Every argument that is not a setting.
fn argument(name: &'static str) -> Arg {
    match name {
        "no-artifacts" => switch(name, "Leave the artifacts alone"),
        "no-skip-synced" => switch(name, "Compare every byte of what the mirror has already, and repair it"),
        "include-runtime-db" => switch(
            name,
            "Copy runtime_state.db and its companions, too; with --no-skip-synced also of what is here",
        ),
        "no-delete" => switch(name, "Keep files in the mirror that vanished on the VPS"),
        "require-ready-marker" => switch(name, "Judge gated workspaces by their ready marker (the default)"),
        "ignore-ready-marker" => switch(name, "Do not look at ready markers"),
        "respect-remote-toggle" => {
            switch(name, "Copy nothing unless the app's toggle is on (the default of the timer)")
        }
        "ignore-remote-toggle" => switch(name, "Do not ask the app's toggle"),
        "delete-remote-after-sync" => switch(name, "Delete on the VPS what this run copied, proved"),
        "prune-remote-when-local-missing" => {
            switch(name, "Delete on the VPS what was mirrored and has been removed from the mirror")
        }
        "allow-remote-delete" => switch(name, "Without this nothing is deleted on the VPS"),
        "dry-run" => switch(name, "Print what would be done, and change nothing anywhere"),
        "max-delete" => Arg::new(name)
            .long(name)
            .value_name("N")
            .value_parser(clap::value_parser!(u32))
            .help(format!("Delete at most N workspaces, or none [default: {}]", prune::MOST)),
        "ops-token" => {
            Arg::new(name).long(name).value_name("TOKEN").hide(true).help(
                "The token for the toggle; seen by everybody on this machine, so set UA_OPS_TOKEN instead",
            )
        }
        "wait" => Arg::new(name)
            .long(name)
            .value_name("DURATION")
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("1h")
            .help("Wait for another run to end, an hour or this long"),
        "session-id" => Arg::new(name)
            .long(name)
            .value_name("ID")
            .allow_hyphen_values(true)
            .add(Candidates::new(complete::workspaces))
            .help("Only this workspace"),
        "service-name" => {
            Arg::new(name).long(name).value_name("NAME").default_value(timer::NAME).help("Name of the units")
        }
        _ => switch(legacy::OLD, "").hide(true),
    }
}

fn verb(name: &'static str, about: &'static str, examples: &'static str, own: &[&'static str]) -> Command {
    let both = ["require-ready-marker", "ignore-ready-marker"];
    let own = own.iter().copied().chain(both).chain([legacy::OLD]);
    Command::new(name)
        .about(about)
        .after_help(examples)
        .args(own.map(argument))
        .mut_arg("ignore-ready-marker", |arg| arg.conflicts_with("require-ready-marker"))
        .args(table::flags(&["repo", "host", "ssh", "preflight", "transfer", "sync", "ops"]))
}

fn ids(help: &'static str) -> Arg {
    Arg::new("ID").num_args(0..).add(Candidates::new(complete::workspaces)).help(help)
}

/// `ua-sync`.
pub fn tool() -> Tool {
    let copying = |more: &[&'static str]| [&COPYING, more].concat();
    // A verb that must not delete says so itself.
    let refused = |command: Command| {
        command.args(DELETING.map(|name| {
            let arg = Arg::new(name).long(name).hide(true);
            if name == "max-delete" { arg.num_args(1) } else { arg.action(ArgAction::SetTrue) }
        }))
    };
    let command = Command::new(NAME)
        .about("The mirror of the finished workspaces of the VPS")
        .after_help(EXAMPLES)
        .subcommand_required(true)
        .subcommand(verb(
            "once",
            "Copy what is ready and missing, prove it, and end",
            "\
Examples:
  ua-sync once
  ua-sync once --session-id session_20260221_101500_ab12
  ua-sync once --dry-run
  ua-sync once --delete-remote-after-sync --allow-remote-delete --max-delete 5",
            &[&copying(&["session-id", "dry-run"])[..], &DELETING].concat(),
        ))
        .subcommand(refused(verb(
            "watch",
            "Do so again and again; one line for each change",
            "\
Examples:
  ua-sync watch
  ua-sync watch --interval 2m --no-artifacts",
            &copying(&["session-id"]),
        )))
        .subcommand(
            verb(
                "status",
                "How far the mirror is behind; with --json one object of a fixed shape",
                "\
Examples:
  ua-sync status
  ua-sync status --json | jq -r '.sync_state, .pending_ready_count'",
                &[],
            )
            .arg(switch("object", "").hide(true)),
        )
        .subcommand(
            verb(
                "list",
                "Every workspace, and how it stands",
                "\
Examples:
  ua-sync list --failed
  ua-sync list --pending --since 24h
  ua-sync list --synced --format ids -0 | xargs -0 -n 1 echo",
                &["include-runtime-db"],
            )
            .arg(switch("pending", "Only those that are ready and not in the mirror as they should be"))
            .arg(switch("failed", "Only those that somebody has to look at"))
            .arg(switch("synced", "Only those that the mirror has as the VPS has them"))
            .arg(
                Arg::new("since")
                    .long("since")
                    .value_name("WHEN")
                    .value_parser(|text: &str| list::since(text, Timestamp::now()))
                    .help("Only those that ended since then: 24h, 2026-02-21, or a time"),
            )
            .args(Records::<6>::args()),
        )
        .subcommand(
            refused(verb(
                "pull",
                "Copy these workspaces now; without an id everything that is ready",
                "\
Examples:
  ua-sync pull session_20260221_101500_ab12
  ua-sync pull --ignore-ready-marker cron_1
  ua-sync list --pending --format ids | ua-sync pull -",
                &copying(&["dry-run"]),
            ))
            .arg(ids("Workspaces; `-` reads them from stdin")),
        )
        .subcommand(
            verb(
                "prune",
                "Delete on the VPS what the mirror holds, proved byte by byte",
                "\
Examples:
  ua-sync prune --dry-run
  ua-sync prune --allow-remote-delete --max-delete 50
  ua-sync list --synced --format ids | ua-sync prune --allow-remote-delete -",
                &["allow-remote-delete", "max-delete", "include-runtime-db", "dry-run", "wait"],
            )
            .arg(switch(
                "local-missing",
                "Delete what was mirrored and you have removed from the mirror, instead: perhaps the last copy",
            ))
            .arg(ids("Only these workspaces; `-` reads them from stdin")),
        )
        .subcommand(verb(
            "adopt",
            "Prove a mirror of the old script, so that `prune` may rely on it",
            "\
Examples:
  ua-sync adopt --dry-run
  ua-sync adopt",
            &["dry-run", "wait"],
        ))
        .subcommand(
            Command::new("timer")
                .about("A timer of this user that runs `ua-sync once`; off unless you turn it on")
                .after_help(
                    "\
Examples:
  ua-sync timer on --interval 10m   every ten minutes
  ua-sync timer status              is it on, and how did its last run end
  ua-sync timer off                 stop, and remove its units",
                )
                .subcommand_required(true)
                .subcommand(timer_verb(
                    "on",
                    "Turn it on with these settings, or change them",
                    "\
Examples:
  ua-sync timer on
  ua-sync timer on --interval 10m --no-artifacts",
                ))
                .subcommand(timer_verb(
                    "off",
                    "Turn it off and remove its units",
                    "\
Examples:
  ua-sync timer off
  ua-sync timer off --service-name ua-remote-workspace-sync",
                ))
                .subcommand(timer_verb(
                    "toggle",
                    "Turn it off, or on as it last was",
                    "\
Examples:
  ua-sync timer toggle
  ua-sync timer toggle --dry-run",
                ))
                .subcommand(timer_verb(
                    "status",
                    "Is it on, when is its next run, how did the last one end",
                    "\
Examples:
  ua-sync timer status
  ua-sync timer status --json | jq .data.next_run",
                )),
        );
    Tool {
        legacy: legacy::rewrite,
        layer,
        on_failure,
        // Files of the VPS, and never what runs there.
        marks: &["mirror"],
        ..Tool::new(NAME, Lane::Vps, command, run)
    }
}

fn timer_verb(name: &'static str, about: &'static str, examples: &'static str) -> Command {
    let own = [&COPYING[..], &["session-id", "service-name", "dry-run"]].concat();
    verb(name, about, examples, &own).args(DELETING.map(|name| {
        let arg = Arg::new(name).long(name).hide(true);
        if name == "max-delete" { arg.num_args(1) } else { arg.action(ArgAction::SetTrue) }
    }))
}

fn flag(matches: &ArgMatches, name: &str) -> bool {
    matches!(matches.try_get_one::<bool>(name), Ok(Some(true)))
}

fn text<'a>(matches: &'a ArgMatches, name: &str) -> Option<&'a str> {
    matches.try_get_one::<String>(name).ok().flatten().map(String::as_str)
}

/// Settings whose flags have no value.
fn layer(matches: &ArgMatches) -> Layer {
    let mut layer = Layer::new();
    for (name, key, value) in [
        ("no-artifacts", "sync.artifacts", "false"),
        ("require-ready-marker", "sync.require_ready_marker", "true"),
        ("ignore-ready-marker", "sync.require_ready_marker", "false"),
        ("respect-remote-toggle", "sync.respect_toggle", "true"),
        ("ignore-remote-toggle", "sync.respect_toggle", "false"),
    ] {
        if flag(matches, name) {
            layer.insert(key, (Raw::Text(value.to_owned()), Origin::Flag(format!("--{name}"))));
        }
    }
    if let Some((_, behind)) = matches.subcommand() {
        layer.extend(self::layer(behind));
    }
    layer
}

/// `status --json` has an object for its caller whatever happens.
fn on_failure(argv: &[OsString], error: Option<&str>) -> Option<String> {
    let error = error?;
    argv.iter().any(|arg| arg == "--object").then(|| status::unknown(error).to_string())
}

fn run(matches: &ArgMatches, context: &Context) -> anyhow::Result<Exit> {
    let Some((verb, matches)) = matches.subcommand() else { return Ok(Exit::Usage) };
    if verb == "timer" {
        let Some((action, matches)) = matches.subcommand() else { return Ok(Exit::Usage) };
        return on_timer(action, matches, context);
    }
    no_deletion(verb, matches)?;
    // Whatever is wrong with what was typed is said before anything else is looked at.
    let chosen = chosen(matches, &context.settings.sync_nested.value)?;
    let wait = wait(matches, verb)?;
    let mut config = Config::new(&context.settings, &context.around).map_err(Failure::from)?;
    config.key()?;
    if flag(matches, legacy::OLD)
        && let Some(host) = session::by_address(&config.settings.host_vps, &context.around, &context.out)
            .map_err(Failure::from)?
    {
        config.settings.host_vps = host;
    }
    let options = Options {
        ids: chosen,
        force: verb == "pull" && flag(matches, "ignore-ready-marker"),
        recheck: flag(matches, "no-skip-synced"),
        database: flag(matches, "include-runtime-db"),
        keep_deleted: flag(matches, "no-delete"),
        dry_run: flag(matches, "dry-run"),
        delete: Delete {
            after_sync: flag(matches, "delete-remote-after-sync"),
            local_missing: flag(matches, "prune-remote-when-local-missing") || flag(matches, "local-missing"),
            held: verb == "prune" && !flag(matches, "local-missing"),
            allowed: flag(matches, "allow-remote-delete"),
            most: matches
                .try_get_one::<u32>("max-delete")
                .ok()
                .flatten()
                .and_then(|most| usize::try_from(*most).ok()),
        },
    };
    let job = Job { config, options, wait, verb, token: token(matches, context)?, context };
    match verb {
        "status" => Ok(job.status(flag(matches, "object"))),
        "list" => Ok(job.list(matches)),
        "watch" => Ok(job.watch()),
        _ => {
            let mut report = job.report();
            let copied = job.cycle(&mut report);
            if let Some((last, before)) = copied.split_last() {
                let more = before.len().saturating_sub(NAMED);
                let names = before.iter().skip(more).chain([last]).map(String::as_str).collect::<Vec<_>>();
                let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                job.context.out.note(&format!("copied {}{more}", names.join(", ")));
            }
            Ok(job.finish(&report))
        }
    }
}

/// Deletion needs a verb that is typed for it.
fn no_deletion(verb: &str, matches: &ArgMatches) -> Result<(), Failure> {
    let typed = |name: &&&str| matches.value_source(name) == Some(clap::parser::ValueSource::CommandLine);
    match DELETING.iter().filter(|name| matches.try_contains_id(name).is_ok()).find(typed) {
        Some(name) if !matches!(verb, "once" | "prune") => {
            let message = format!("`--{name}` is not taken by `{verb}`: deletion needs `once` or `prune`");
            Err(Failure::new(Exit::Usage, message).hint("ua-sync prune --dry-run"))
        }
        _ => Ok(()),
    }
}

/// The workspaces that were named; nothing if none were.
fn chosen(matches: &ArgMatches, nested: &Patterns) -> Result<Option<Vec<String>>, Failure> {
    let mut ids: Vec<String> = text(matches, "session-id").map(str::to_owned).into_iter().collect();
    let typed = matches.try_get_many::<String>("ID").ok().flatten().into_iter().flatten();
    let mut named = !ids.is_empty();
    for word in typed {
        named = true;
        if word != "-" {
            ids.push(word.clone());
            continue;
        }
        let mut input = String::new();
        std::io::stdin()
            .read_to_string(&mut input)
            .map_err(|error| Failure::new(Exit::Usage, format!("cannot read ids from stdin: {error}")))?;
        let end = if input.contains('\0') { '\0' } else { '\n' };
        ids.extend(input.split(end).filter(|id| !id.is_empty()).map(str::to_owned));
    }
    for id in &ids {
        if let Some(why) = id::refuse(id, nested) {
            let message = format!("`{}` is not the id of a workspace: {why}", id.escape_debug());
            return Err(Failure::new(Exit::Usage, message).hint("ua-sync list --format ids"));
        }
    }
    ids.sort();
    ids.dedup();
    Ok(named.then_some(ids))
}

fn wait(matches: &ArgMatches, verb: &str) -> Result<Duration, Failure> {
    let Some(words) = text(matches, "wait") else {
        return Ok(if verb == "pull" { Duration::from_mins(1) } else { Duration::ZERO });
    };
    let base = Base { dir: Path::new("/"), home: None };
    Duration::parse_text(words, &base).map_err(|why| {
        let message = format!("--wait: `{words}` is not {} {why}", Duration::takes());
        Failure::new(Exit::Usage, message.trim_end().to_owned())
    })
}

/// The token, if the toggle is to be asked.
fn token(matches: &ArgMatches, context: &Context) -> Result<Option<Token>, Failure> {
    if let Some(typed) = text(matches, "ops-token") {
        context.out.warn("--ops-token is seen by everybody on this machine; set UA_OPS_TOKEN instead");
        return Token::given(typed, "--ops-token").map(Some);
    }
    if context.settings.sync_respect_toggle.value != Some(true) {
        return Ok(None);
    }
    let repo = context.settings.repo(&context.around).ok();
    ops::token(&context.around, repo.as_deref())
}

/// One call of a verb.
struct Job<'a> {
    config: Config,
    options: Options,
    wait: Duration,
    verb: &'a str,
    token: Option<Token>,
    context: &'a Context,
}

impl Job<'_> {
    fn report(&self) -> Report {
        let mut report = Report::new(NAME, Lane::Vps, self.config.settings.host_vps.to_string());
        report.data.insert("mirror".to_owned(), true.into());
        report
    }

    fn mirror(&self) -> Result<Mirror, Failure> {
        Ok(Mirror::at(&self.config.mirror, &self.config.state, &self.config.settings.sync_nested.value)?)
    }

    fn manifest(&self) -> Result<Manifest, Failure> {
        let path = &self.config.manifest;
        Manifest::read(path).map_err(local(format!("cannot read the manifest `{}`", path.display())))
    }

    /// One run; whatever becomes of it is in the report. Gives what was copied.
    fn cycle(&self, report: &mut Report) -> Vec<String> {
        let done = self.locked(report);
        let copied = report.data.get("workspaces").and_then(|it| it.get("copied")).cloned();
        if let Err(error) = done {
            report.push(Check::error("sync", &error));
        }
        copied.and_then(|copied| serde_json::from_value(copied).ok()).unwrap_or_default()
    }

    /// The lock comes first: whoever does not get it has nobody contacted.
    fn locked(&self, report: &mut Report) -> anyhow::Result<()> {
        let (config, out) = (&self.config, &self.context.out);
        if !self.options.dry_run {
            self.options.delete.permitted().map_err(Failure::from)?;
        }
        let mirror = self.mirror()?;
        let mut lock = None;
        if !self.options.dry_run {
            fs_err::create_dir_all(&mirror.root).map_err(local("cannot make the mirror"))?;
            let who = self.context.around.who();
            lock = Some(Lock::take(&config.manifest, &mirror.root, &who, self.verb, self.wait, out)?);
        }
        if config.settings.sync_respect_toggle.value == Some(true)
            && let Err(check) = toggle::ask(&config.settings, self.token.as_ref(), toggle::LIMIT)
        {
            report.push(check);
            return Ok(());
        }
        let Some(transport) = session::open(config, out, report)? else { return Ok(()) };
        match self.verb {
            "prune" => {
                let manifest = self.manifest()?;
                let (config, options) = (config, &self.options);
                let prune = Prune {
                    config,
                    options,
                    transport: &transport,
                    mirror: &mirror,
                    manifest: &manifest,
                    out,
                };
                let ids = self.options.ids.as_deref();
                prune.delete(ids, report)?;
            }
            "adopt" => {
                let manifest = self.manifest()?;
                prune::adopt(config, &self.options, &transport, &mirror, &manifest, out, report)?;
            }
            _ => run::run(config, &self.options, &transport, &mirror, out, report)?,
        }
        drop(lock);
        Ok(())
    }

    /// Prints the report; where workspaces failed, stderr ends with their names.
    fn finish(&self, report: &Report) -> Exit {
        let exit = self.context.finish(std::slice::from_ref(report));
        if let Some(words) = report.data.get("summary").and_then(serde_json::Value::as_str)
            && exit == Exit::Partial
        {
            self.context.out.error(words);
        }
        exit
    }

    /// Looks at both ends, and changes nothing.
    fn look(&self, limit: Duration, report: &mut Report) -> anyhow::Result<Option<(View, Manifest)>> {
        let out = &self.context.out;
        let (mirror, manifest) = (self.mirror()?, self.manifest()?);
        let Some(transport) = session::open(&self.config, out, report)? else { return Ok(None) };
        let view = run::look(&self.config, &transport, &mirror, &manifest, &self.options, limit, out)?;
        Ok(Some((view, manifest)))
    }

    fn status(mut self, object: bool) -> Exit {
        // A caller waits for the answer, whatever it is.
        let settings = &mut self.config.settings;
        for limit in [&mut settings.ssh_connect_timeout.value, &mut settings.preflight_timeout.value] {
            *limit = Limit(limit.0.min(PATIENCE));
        }
        settings.ssh_check_wait.value = Duration::ZERO;
        let mut report = self.report();
        let seen = self.look(ANSWER, &mut report);
        let mut words = None;
        match seen {
            Ok(Some((view, manifest))) => {
                let counts = status::counts(&view.rows);
                let detail = format!(
                    "{} of {} ready workspaces are in the mirror ({})",
                    counts.synced,
                    counts.ready,
                    status::words(&view.rows)
                );
                report.push(match counts.pending {
                    0 => Check::pass("sync.status", format!("in sync: {detail}")),
                    _ => Check::warn("sync.status", format!("behind: {detail}")).hint("ua-sync once"),
                });
                for row in view.rows.iter().filter(|row| row.state.is_trouble()) {
                    report.push(Check::warn(
                        "sync.trouble",
                        format!("{}: {}: {}", row.id, row.state.word(), row.why),
                    ));
                }
                words = Some(status::object(&self.config, &view, &manifest));
            }
            Ok(None) => {}
            Err(error) => drop(report.push(Check::error("sync.status", &error))),
        }
        if !object {
            return self.context.finish(&[report]);
        }
        let why = report.first_failure().map_or_else(String::new, |check| check.detail.clone());
        let mut words = words.unwrap_or_else(|| status::unknown(&why));
        words["report"] = report.to_json();
        self.context.out.troubles(&report);
        self.context.out.data(&words.to_string());
        report.exit()
    }

    fn list(&self, matches: &ArgMatches) -> Exit {
        let mut report = self.report();
        let filter = Filter {
            pending: flag(matches, "pending"),
            failed: flag(matches, "failed"),
            synced: flag(matches, "synced"),
            since: matches.get_one::<f64>("since").copied(),
        };
        match self.look(LISTING, &mut report) {
            Ok(Some((view, _))) => {
                // What is no workspace has no id.
                let ids = text(matches, "format") == Some("ids");
                let rows = view.rows.iter().filter(|row| filter.takes(row));
                let nested = &self.config.settings.sync_nested.value;
                let rows: Vec<_> = rows.filter(|row| !ids || id::refuse(&row.id, nested).is_none()).collect();
                if !self.context.out.is_json() {
                    let raw = text(matches, "format") == Some("tsv");
                    list::records(rows.iter().copied(), raw).print(matches, &self.context.out);
                    self.context.out.troubles(&report);
                    return Exit::Ok;
                }
                report.push(Check::pass(
                    "sync.list",
                    format!("{} of {} workspaces", rows.len(), view.rows.len()),
                ));
                report.data.insert("rows".to_owned(), rows.into_iter().map(list::json).collect());
            }
            Ok(None) => {}
            Err(error) => drop(report.push(Check::error("sync.list", &error))),
        }
        self.context.finish(&[report])
    }

    fn watch(&self) -> Exit {
        let interval = self.config.settings.sync_interval.value.map_or(Duration::from_secs(30), |it| it.0);
        let begin = || self.report();
        self.context.out.note(&format!("looks every {interval:?}, a line for each change; Ctrl-C ends it"));
        watch::watch(&self.context.out, interval, |report| self.cycle(report), begin)
    }
}

/// So many of what was copied, and one, are named.
const NAMED: usize = 9;
/// Most that a status waits for each step on the way to the VPS.
const PATIENCE: Duration = Duration::from_secs(3);
/// And for the listing itself.
const ANSWER: Duration = Duration::from_secs(20);

/// `timer …`: nothing remote is contacted, and the lane is this machine's.
fn on_timer(action: &str, matches: &ArgMatches, context: &Context) -> anyhow::Result<Exit> {
    no_deletion("timer", matches)?;
    if text(matches, "ops-token").is_some() {
        let message = "`--ops-token` is not taken by `timer`: everybody could read it in the unit";
        return Err(Failure::new(Exit::Usage, message)
            .hint("write UA_OPS_TOKEN=… to the repository's `.env`")
            .into());
    }
    chosen(matches, &context.settings.sync_nested.value)?;
    wait(matches, "timer")?;
    let name = text(matches, "service-name").unwrap_or(timer::NAME);
    timer::valid_name(name)?;
    let dry_run = flag(matches, "dry-run");
    let mut report = Report::new(NAME, Lane::Local, name);
    report.data.insert("mirror".to_owned(), true.into());
    let on = |report: &mut Report, timer: Timer| -> anyhow::Result<()> {
        timer.check()?;
        if dry_run {
            let texts = [timer::service(&timer), timer::timer(&timer)].join("\n");
            if !context.out.is_json() {
                context.out.text(&texts);
            }
            report.data.insert("plan".to_owned(), json!(texts));
            report
                .push(Check::pass("timer.plan", format!("`{name}` would be turned on; nothing was changed")));
        } else {
            report.checks.extend(timer::on(&timer, &context.around)?);
            report.checks.extend(tokenless(&timer)?);
        }
        Ok(())
    };
    let off = |report: &mut Report| -> anyhow::Result<()> {
        if dry_run {
            report.push(Check::pass(
                "timer.plan",
                format!("`{name}` would be turned off; nothing was changed"),
            ));
        } else {
            report.checks.extend(timer::off(name, &context.around)?);
        }
        Ok(())
    };
    match action {
        "on" => on(&mut report, described(name, matches, context)?)?,
        "off" => off(&mut report)?,
        "toggle" if timer::is_on(name)? => off(&mut report)?,
        "toggle" => {
            let timer = match timer::remembered(name)? {
                Some(timer) => timer,
                None => described(name, matches, context)?,
            };
            on(&mut report, timer)?;
        }
        _ => {
            let (checks, data) = timer::status(name, &context.around)?;
            report.checks.extend(checks);
            report.data.extend(data);
        }
    }
    Ok(context.finish(&[report]))
}

/// A warning if no run of the timer can ask the toggle that it respects: it has not the environment of this shell.
fn tokenless(timer: &Timer) -> Result<Option<Check>, Failure> {
    if !timer.argv.iter().any(|word| word == "--respect-remote-toggle") || ops::stored(&timer.dir)?.is_some()
    {
        return Ok(None);
    }
    let file = timer.dir.join(".env");
    let detail = format!(
        "its runs respect the app's toggle, and cannot ask it: `{}` has no {}",
        file.display(),
        ops::TOKEN_VARIABLE
    );
    let hint = format!(
        "write {}=… to `{}`, or: ua-sync timer on --ignore-remote-toggle",
        ops::TOKEN_VARIABLE,
        file.display()
    );
    Ok(Some(Check::warn("timer.toggle", detail).hint(hint)))
}

/// The timer that these settings and options mean.
fn described(name: &str, matches: &ArgMatches, context: &Context) -> anyhow::Result<Timer> {
    let config = Config::new(&context.settings, &context.around).map_err(Failure::from)?;
    config.key()?;
    let repo = config.settings.repo(&context.around).map_err(Failure::from)?;
    let repo = repo.canonicalize().map_err(local("cannot find the repository"))?;
    let program = std::env::current_exe().map_err(local("cannot find this program"))?;
    let word = |path: &Path| {
        let usage = || Failure::new(Exit::Usage, format!("`{}` is not UTF-8 text", path.display()));
        path.to_str().map(str::to_owned).ok_or_else(usage)
    };
    let mut argv = vec![word(&program)?, "once".to_owned(), "--repo".to_owned(), word(&repo)?];
    argv.extend(timer::pinned(&config.settings));
    for name in ["no-skip-synced", "include-runtime-db", "no-delete"] {
        argv.extend(flag(matches, name).then(|| format!("--{name}")));
    }
    argv.extend(text(matches, "session-id").map(|id| format!("--session-id={id}")));
    argv.extend(text(matches, "wait").map(|wait| format!("--wait={wait}")));
    let interval = config.settings.sync_interval.value.map_or(timer::INTERVAL, |it| it.0);
    Ok(Timer { name: name.to_owned(), interval, argv, dir: repo })
}
