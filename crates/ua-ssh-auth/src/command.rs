//! The command line.

use std::ffi::OsString;
use std::time::{Duration, Instant};

use clap::{Arg, ArgAction, ArgMatches, Command};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use ua_common::cli::{Context, Tool};
use ua_common::complete::{Candidate, Candidates};
use ua_common::error::Failure;
use ua_common::exit::Exit;
use ua_common::host::{Host, RemoteHost};
use ua_common::interrupt;
use ua_common::place::{self, Found, Place};
use ua_common::report::{Check, Lane, Report, Verdict};
use ua_common::settings::table;
use ua_common::settings::value::{AuthMode, Base, SshKey, Value as _};
use ua_common::state;
use ua_common::tool::ssh::Use;
use ua_common::tool::ssh_keygen;

use crate::known_hosts::{self, Act};
use crate::ledger::{Entry, Event, Ledger, Pen, Rule};
use crate::prove::Prover;
use crate::{canary, client, switch};

const NAME: &str = "ua-ssh-auth";

const EXAMPLES: &str = "\
Exit codes: 0 ok, 1 a proof or the rule failed, 2 usage, 10-14 no way to the
VPS, 20 no SSH, 21 refused, 22 check not approved, 23 host key, 32 a transfer
of the canary failed

Examples:
  ua-ssh-auth check --both                 prove the way in, and break-glass
  ssh $(ua-ssh-auth args) root@VPS uptime  an old script, as the tools connect
  ua-ssh-auth canary --no-wait             try Tailscale SSH, keep the evidence
  ua-ssh-auth status                       what the cut-over still lacks
  ua-ssh-auth cutover --dry-run            what it would check and change
  ua-ssh-auth rollback                     back to keys, at once";

const SHOW_EXAMPLES: &str = "\
Examples:
  ua-ssh-auth show
  UA_SSH_AUTH_MODE=tailscale_ssh ua-ssh-auth show
  ua-ssh-auth show --json | jq -r .data.config   the configuration for ssh";

const CHECK_EXAMPLES: &str = "\
Examples:
  ua-ssh-auth check --both
  ua-ssh-auth check --mode keys --keys-port 2222";

const ARGS_EXAMPLES: &str = "\
When it fails it still prints a word, one that ssh refuses: a script that does
not look at exit codes must not go on with ssh's own defaults.

Examples:
  ua-ssh-auth args
  ua-ssh-auth args --auth-mode tailscale_ssh   the other way in
  ssh $(ua-ssh-auth args) root@srv1360701.taildcc090.ts.net uptime
  scp $(ua-ssh-auth args) notes.txt root@srv1360701.taildcc090.ts.net:
  ssh (ua-ssh-auth args) root@srv1360701.taildcc090.ts.net uptime    # fish";

const RSH_EXAMPLES: &str = "\
Examples:
  ua-ssh-auth rsh
  ua-ssh-auth rsh --json | jq -r .data.rsh   and why there is none, if so
  rsync -e \"$(ua-ssh-auth rsh)\" -a dir/ root@srv1360701.taildcc090.ts.net:dir/
  GIT_SSH_COMMAND=\"$(ua-ssh-auth rsh)\" git fetch vps";

const ENV_EXAMPLES: &str = "\
Examples:
  ua-ssh-auth env
  ua-ssh-auth env >ua.env && . ./ua.env   once for a whole script
  eval \"$(ua-ssh-auth env)\" && ssh $UA_SSH_ARGS \"$UA_VPS_HOST\" uptime
  eval \"$(ua-ssh-auth env)\" && rsync -e \"$UA_SSH_RSH\" -a . \"$UA_VPS_HOST:dir/\"";

const KNOWN_HOSTS_EXAMPLES: &str = "\
Examples:
  ua-ssh-auth known-hosts                     look
  ua-ssh-auth known-hosts --print             as lines of a known_hosts file
  ua-ssh-auth known-hosts --accept --dry-run  the fingerprint of a new sshd";

const CANARY_EXAMPLES: &str = "\
Examples:
  ua-ssh-auth canary --dry-run                      what it tries
  ua-ssh-auth canary                                try it, wait for a check
  0 */8 * * * ua-ssh-auth canary --no-wait --quiet  in a user's crontab";

const STATUS_EXAMPLES: &str = "\
Examples:
  ua-ssh-auth status
  ua-ssh-auth status --json | jq .data.rule";

const CUTOVER_EXAMPLES: &str = "\
Examples:
  ua-ssh-auth cutover --dry-run
  ua-ssh-auth cutover";

const ROLLBACK_EXAMPLES: &str = "\
Examples:
  ua-ssh-auth rollback --dry-run    what it would write, and where
  ua-ssh-auth rollback && ua-ssh-auth check";

/// `ua-ssh-auth`.
pub fn tool() -> Tool {
    let dry_run = || {
        Arg::new("dry-run")
            .long("dry-run")
            .action(ArgAction::SetTrue)
            .help("Print what would be done, and change nothing")
    };
    let no_wait = || {
        Arg::new("no-wait")
            .long("no-wait")
            .action(ArgAction::SetTrue)
            .conflicts_with("ssh.check_wait")
            .help("Do not wait for the approval of a Tailscale SSH check: print its address and end with 22")
    };
    // The mode is what these verbs are about, so that a flag for it would only contradict them.
    let without_mode = |name: &'static str, about: &'static str, examples: &'static str| {
        let flags = table::flags(&["host", "ssh", "preflight"]);
        let flags = flags.into_iter().filter(|arg| arg.get_id() != "ssh.auth_mode");
        Command::new(name).about(about).after_help(examples).args(flags)
    };
    let with_mode = |name: &'static str, about: &'static str, examples: &'static str| {
        let flags = table::flags(&["host", "ssh", "preflight"]);
        Command::new(name).about(about).after_help(examples).args(flags)
    };
    let local = |name: &'static str, about: &'static str, examples: &'static str| {
        Command::new(name).about(about).after_help(examples).args(table::flags(&["host"]))
    };
    let mode = Arg::new("mode")
        .long("mode")
        .value_name("MODE")
        .value_parser(mode_word)
        .add(Candidates::new(|| ["keys", "tailscale_ssh"].map(Candidate::new).into()))
        .help("The mode to prove, instead of the one of the settings");
    let both = Arg::new("both")
        .long("both")
        .action(ArgAction::SetTrue)
        .conflicts_with("mode")
        .help("Prove both modes: the way in, and the other one as break-glass");
    let act = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
    };
    let command = Command::new(NAME)
        .about("Prove who we are to the VPS, and move from keys to Tailscale SSH on evidence")
        .after_help(EXAMPLES)
        .subcommand_required(true)
        .subcommand(with_mode(
            "show",
            "Say how the VPS would be reached, and who decided that; contacts nobody",
            SHOW_EXAMPLES,
        ))
        .subcommand(
            without_mode(
                "check",
                "Connect, prove the mode, run a command (one connection and one exec per mode)",
                CHECK_EXAMPLES,
            )
            .args([mode, both, no_wait()]),
        )
        .subcommand(with_mode(
            "args",
            "Print one word for ssh, scp and sftp that makes them connect as the tools do (-F and a file)",
            ARGS_EXAMPLES,
        ))
        .subcommand(with_mode(
            "rsh",
            "Print the command for rsync -e",
            RSH_EXAMPLES,
        ))
        .subcommand(with_mode(
            "env",
            "Print variables for eval: UA_VPS_HOST, UA_SSH_ARGS, UA_SSH_RSH",
            ENV_EXAMPLES,
        ))
        .subcommand(
            with_mode(
                "known-hosts",
                "Say whose word the VPS's host key has; accept a first one, or a changed one",
                KNOWN_HOSTS_EXAMPLES,
            )
            .arg(act("print", "Print the keys in force, as lines of a known_hosts file").conflicts_with("dry-run"))
            .arg(act("accept", "Take the keys of a host that has none yet, and show their fingerprints"))
            .arg(act("refresh", "Take the present keys instead of the known ones, and show both"))
            .group(clap::ArgGroup::new("act").args(["print", "accept", "refresh"]))
            .arg(dry_run()),
        )
        .subcommand(
            without_mode(
                "canary",
                "Try everything the tools do over SSH in mode tailscale_ssh; one line in the ledger (two connections, ten execs)",
                CANARY_EXAMPLES,
            )
            .args([no_wait(), dry_run()]),
        )
        .subcommand(local(
            "status",
            "Say what the ledger adds up to, and what the cut-over still lacks; contacts nobody",
            STATUS_EXAMPLES,
        ))
        .subcommand(
            without_mode(
                "cutover",
                "Make tailscale_ssh the mode, if the ledger's rule holds and keys are proved as break-glass",
                CUTOVER_EXAMPLES,
            )
            .args([no_wait(), dry_run()]),
        )
        .subcommand(
            local(
                "rollback",
                "Make keys the mode again; contacts nobody",
                ROLLBACK_EXAMPLES,
            )
            .arg(dry_run()),
        );
    Tool { on_failure: closed, ..Tool::new(NAME, Lane::Vps, command, run) }
}

fn mode_word(text: &str) -> Result<AuthMode, String> {
    let base = Base { dir: std::path::Path::new("/"), home: None };
    AuthMode::parse_text(text, &base).map_err(|_| format!("not {}", AuthMode::takes()))
}

/// What a command substitution gets where it would otherwise get nothing and go on.
fn closed(argv: &[OsString], _: Option<&str>) -> Option<String> {
    argv.iter().skip(1).find_map(|word| match word.to_str()? {
        "args" => Some(client::CLOSED.to_owned()),
        "rsh" => Some(client::rsh(client::CLOSED)),
        "env" => Some(client::env(client::CLOSED, "nobody@nonexistent.invalid")),
        _ => None,
    })
}

fn run(matches: &ArgMatches, context: &Context) -> anyhow::Result<Exit> {
    let Some((verb, matches)) = matches.subcommand() else { return Ok(Exit::Usage) };
    let lane = match verb {
        "show" | "status" | "rollback" => Lane::Local,
        _ => Lane::Vps,
    };
    let mut report = Report::new(NAME, lane, context.settings.host_vps.to_string());
    match verb {
        "show" => show(context, &mut report),
        "check" => check(matches, context, &mut report),
        "args" | "rsh" | "env" => return print(verb, context, report),
        "known-hosts" => return keys(matches, context, report),
        "canary" => canary(matches, context, &mut report)?,
        "status" => status(context, &mut report)?,
        "cutover" => cutover(matches, context, &mut report)?,
        "rollback" => rollback(matches, context, &mut report)?,
        _ => return Ok(Exit::Usage),
    }
    if interrupt::requested() && report.exit() != Exit::Interrupted {
        report.checks.insert(0, Check::fail("run", Exit::Interrupted, "interrupted"));
    }
    Ok(context.finish(&[report]))
}

fn push(report: &mut Report, checks: Vec<Check>) {
    report.checks.extend(checks);
}

fn flag(matches: &ArgMatches, name: &str) -> bool {
    matches!(matches.try_get_one::<bool>(name), Ok(Some(true)))
}

/// How long a check is waited for.
fn check_wait(matches: &ArgMatches, context: &Context) -> Duration {
    if flag(matches, "no-wait") { Duration::ZERO } else { context.settings.ssh_check_wait.value }
}

/// The target, found without waiting for a pong: whoever connects learns by that whether it is there.
fn locate(context: &Context, report: &mut Report) -> Option<Found> {
    let mut checks = Vec::new();
    let found = place::locate(&context.settings, &context.out, &mut checks);
    push(report, checks);
    found.filter(|_| report.first_failure().is_none())
}

/// Everything that would be used, and who decided it.
fn show(context: &Context, report: &mut Report) {
    let settings = &context.settings;
    let mut asked = Vec::new();
    let found = place::locate(settings, &context.out, &mut asked);
    // Nothing is contacted here, so that what the tailnet does not say is only said to be missing.
    for check in asked.into_iter().filter(|check| matches!(check.verdict, Verdict::Warn | Verdict::Fail)) {
        let warning = Check::warn(check.id, check.detail);
        report.push(Check { hint: check.hint, ..warning });
    }
    let place = found.map_or_else(|| Place::unvouched(&settings.host_vps.host), |found| found.place);
    let target = place.ssh_target(settings);
    let mode = &settings.ssh_auth_mode;
    report.push(Check::pass("mode", format!("`{}` ({})", mode.value.show(), mode.origin)));
    let at = target.addresses.first().map_or(String::new(), |ip| format!(", dialled as {ip}"));
    let port = match mode.value {
        AuthMode::Keys => format!("port {} ({})", target.port, settings.ssh_keys_port.origin),
        AuthMode::TailscaleSsh => format!("port {}, which is Tailscale SSH's", target.port),
    };
    report.push(Check::pass(
        "target",
        format!("`{}` ({}){at}, {port}", target.shown(), settings.host_vps.origin),
    ));
    let origin = &settings.ssh_key.origin;
    report.push(match (mode.value, &settings.ssh_key.value) {
        (AuthMode::TailscaleSsh, _) => Check::pass("key", "none: the tailnet's policy decides"),
        (AuthMode::Keys, SshKey::Agent) => {
            Check::pass("key", format!("the agent and ssh's own configuration ({origin})"))
        }
        (AuthMode::Keys, SshKey::File(path)) => match ssh_keygen::inspect(path) {
            Ok(()) => Check::pass("key", format!("`{}` ({origin})", path.display())),
            Err(error) => {
                let failure = Failure::from(error);
                let check = Check::warn("key", format!("{failure} ({origin})"));
                Check { hint: failure.hint, ..check }
            }
        },
    });
    report.push(match target.host_keys.len() {
        0 => Check::pass("host_keys", "the user's known_hosts decides: the tailnet gives none"),
        count => Check::pass("host_keys", format!("the {count} keys that the tailnet gives, and no others")),
    });
    if let Ok(config) = target.config(Use::Script, std::path::Path::new("KNOWN_HOSTS")) {
        let options = config.lines().skip(2).take_while(|line| !line.starts_with("Host "));
        let options: Vec<&str> = options.map(str::trim).collect();
        let runs = format!("ssh to `{}` with: {}", target.shown(), options.join("; "));
        report.push(Check::pass("runs", runs));
        report.data.insert("config".to_owned(), config.into());
    }
    report.data.insert("mode".to_owned(), mode.value.show().into());
    report.data.insert("origin".to_owned(), mode.origin.to_string().into());
    report.data.insert("port".to_owned(), target.port.into());
}

fn check(matches: &ArgMatches, context: &Context, report: &mut Report) {
    let Some(Found { place, .. }) = locate(context, report) else { return };
    let settings = &context.settings;
    let modes = if flag(matches, "both") {
        vec![AuthMode::Keys, AuthMode::TailscaleSsh]
    } else {
        vec![matches.get_one("mode").copied().unwrap_or(settings.ssh_auth_mode.value)]
    };
    let check_wait = check_wait(matches, context);
    prove(&Prover { settings, out: &context.out, place: &place, check_wait }, &modes, report);
}

/// Proves each mode, whatever becomes of the others, unless nobody is there.
fn prove(prover: &Prover<'_>, modes: &[AuthMode], report: &mut Report) {
    let mut done = Vec::new();
    for mode in modes {
        let mut checks = Vec::new();
        if let Some(opening) = prover.prove(*mode, &mut checks) {
            done.push(mode.show());
            let evidence = &opening.evidence;
            report.data.insert(
                mode.show(),
                json!({
                    "server": evidence.server,
                    "at": evidence.at,
                    "method": evidence.method,
                    "key": evidence.key,
                    "host_key": evidence.host_key,
                    "check_url": opening.approved,
                }),
            );
        }
        let away = checks.iter().any(|check| check.exit == Exit::PeerUnreachable);
        push(report, checks);
        if away || interrupt::requested() {
            break;
        }
    }
    report.data.insert("proved".to_owned(), done.into());
}

/// `args`, `rsh`, `env`: stdout holds the words and nothing else.
fn print(verb: &str, context: &Context, mut report: Report) -> anyhow::Result<Exit> {
    let client = match locate(context, &mut report) {
        Some(Found { place, .. }) => Some(client::Client::prepare(&place.ssh_target(&context.settings))?),
        None => None,
    };
    let words = client.map(|client| match verb {
        "args" => client.args().to_owned(),
        "rsh" => client.rsh(),
        _ => client.env(),
    });
    report.data.insert(verb.to_owned(), words.clone().into());
    Ok(context.finish_with(report, words.as_deref()))
}

fn keys(matches: &ArgMatches, context: &Context, mut report: Report) -> anyhow::Result<Exit> {
    let act = match matches.get_one::<clap::Id>("act").map(clap::Id::as_str) {
        Some("accept") => Act::Accept,
        Some("refresh") => Act::Refresh,
        _ => Act::Look,
    };
    let state = state::dir()?;
    let mut lines = None;
    if let Some(Found { place, .. }) = locate(context, &mut report) {
        let target = place.ssh_target(&context.settings);
        let known = known_hosts::act(&state, &target, act, flag(matches, "dry-run"), &context.out)?;
        push(&mut report, known.checks);
        let all: Vec<String> = known.keys.iter().map(|key| format!("{} {key}", target.name)).collect();
        report.data.insert("known_hosts".to_owned(), all.clone().into());
        lines = Some(all.join("\n"));
    }
    if flag(matches, "print") {
        return Ok(context.finish_with(report, lines.as_deref()));
    }
    Ok(context.finish(&[report]))
}

fn canary(matches: &ArgMatches, context: &Context, report: &mut Report) -> anyhow::Result<()> {
    if flag(matches, "dry-run") {
        for (id, what) in canary::STEPS {
            report.push(Check::skip(id, format!("would try: {what}")));
        }
        return Ok(());
    }
    let ledger = Ledger::below(&state::dir()?);
    // A ledger that nobody can write is known before the work.
    ledger.open().map_err(Failure::from)?;
    let start = Instant::now();
    let mut checks = Vec::new();
    let mut versions = crate::ledger::Versions::default();
    // The full name, however it was spelled, so that one VPS has one record.
    let mut target = report.target().to_owned();
    if let Some(Found { place, tailnet }) = locate(context, report) {
        target = format!("{}@{}", context.settings.host_vps.user, place.name);
        let check_wait = check_wait(matches, context);
        let prover = Prover { settings: &context.settings, out: &context.out, place: &place, check_wait };
        let tailscale = tailnet.map_or(String::new(), |tailnet| tailnet.version);
        versions = canary::run(&prover, &tailscale, &mut checks);
    } else {
        checks.extend(report.first_failure().cloned());
    }
    // From here on the run ends with its line, even if it was asked to end.
    let interrupted = interrupt::requested();
    let _line = interrupt::defer();
    if interrupted {
        checks.push(Check::fail("run", Exit::Interrupted, "interrupted"));
    }
    let event = canary::event(&checks, interrupted, versions, start.elapsed());
    if report.first_failure().is_none() {
        push(report, checks);
    }
    let entry = Entry::now(target, context.around.who(), event);
    let written = ledger.open().and_then(Pen::locked).and_then(|mut pen| pen.append(&entry));
    report.push(match written {
        Ok(()) => Check::pass("canary.ledger", format!("one line in `{}`", ledger.path().display())),
        Err(error) => Check::failure("canary.ledger", error),
    });
    report.data.insert("entry".to_owned(), json!(entry));
    Ok(())
}

fn status(context: &Context, report: &mut Report) -> anyhow::Result<()> {
    let ledger = Ledger::below(&state::dir()?);
    let summary = summary(context, &ledger, report)?;
    let rule = Rule::of(&context.settings);
    let (days, gap) = (rule.days, SignedDuration::from_secs(summary.longest_gap_s));
    let last = summary.last.map_or("never".to_owned(), |last| last.to_string());
    report.push(Check::pass(
        "ledger",
        format!(
            "in the last {days} days {} canaries passed, {} failed, {} had nothing to judge; the last that passed: {last}; longest gap {gap:#}; first of all: {}",
            summary.passed,
            summary.failed,
            summary.skipped,
            summary.first.map_or("never".to_owned(), |first| first.to_string())
        ),
    ));
    let mode = &context.settings.ssh_auth_mode;
    report.push(Check::pass("mode", format!("`{}` ({})", mode.value.show(), mode.origin)));
    if summary.missing.is_empty() {
        let detail = "the ledger allows the cut-over, which also proves keys as break-glass";
        report.push(Check::pass("rule", detail).hint("ua-ssh-auth cutover --dry-run"));
    }
    for missing in &summary.missing {
        report.push(Check::warn(missing.id, format!("not yet: {}", missing.detail)));
    }
    report.data.insert("ledger".to_owned(), json!(ledger.path()));
    report.data.insert("rule".to_owned(), json!({"met": summary.missing.is_empty(), "days": rule.days, "runs": rule.runs, "max_age_s": rule.max_age.as_secs()}));
    report.data.insert("summary".to_owned(), json!(summary));
    Ok(())
}

fn summary(
    context: &Context,
    ledger: &Ledger,
    report: &mut Report,
) -> anyhow::Result<crate::ledger::Summary> {
    let read = ledger.read().map_err(Failure::from)?;
    if !read.foreign.is_empty() {
        let lines: Vec<String> = read.foreign.iter().map(ToString::to_string).collect();
        let detail = format!(
            "`{}`: lines not ours, kept and not believed: {}",
            ledger.path().display(),
            lines.join(", ")
        );
        report.push(Check::warn("ledger.lines", detail));
    }
    let switched = read.entries.iter().rev().find(|entry| !matches!(entry.event, Event::Canary { .. }));
    if let Some(entry) = switched {
        let what = if matches!(entry.event, Event::Cutover { .. }) { "cut-over" } else { "rollback" };
        report.push(Check::pass("switch", format!("last {what} at {} by {}", entry.at, entry.who)));
    }
    let host = &context.settings.host_vps.value;
    Ok(Rule::of(&context.settings).judge(&read.entries, &|target| is_named(host, target), Timestamp::now()))
}

/// Is the `user@full.name` of a record the host of the settings, which may be a short name?
fn is_named(host: &RemoteHost, target: &str) -> bool {
    let Some((user, name)) = target.split_once('@') else { return false };
    let same = match &host.host {
        Host::Short(label) => name.split('.').next() == Some(label),
        host @ (Host::Name(_) | Host::Ip(_)) => name == host.to_string(),
    };
    user == host.user && same
}

fn cutover(matches: &ArgMatches, context: &Context, report: &mut Report) -> anyhow::Result<()> {
    if let Some(failure) = switch::overridden(&context.settings) {
        return Err(failure.into());
    }
    let edit = switch::plan(&context.around, AuthMode::TailscaleSsh)?;
    if edit.is_done() {
        report.push(Check::pass("switch", format!("`{}` says tailscale_ssh already", edit.path.display())));
        return Ok(());
    }
    let ledger = Ledger::below(&state::dir()?);
    if !flag(matches, "dry-run") {
        // One that nobody can write is known before the work.
        ledger.open().map_err(Failure::from)?;
    }
    let summary = summary(context, &ledger, report)?;
    if summary.missing.is_empty() {
        let since = summary.first.map_or(String::new(), |first| first.to_string());
        let detail = format!("canaries that passed: {}, none failed, the first at {since}", summary.passed);
        report.push(Check::pass("rule", detail));
    }
    for missing in &summary.missing {
        report.push(Check::fail(missing.id, Exit::Failed, missing.detail.clone()).hint("ua-ssh-auth status"));
    }
    // All reasons at once: the proofs are asked for even where the rule says no.
    let mut found = Vec::new();
    let place = place::locate(&context.settings, &context.out, &mut found).map(|found| found.place);
    push(report, found);
    if let Some(place) = place {
        let prover = Prover {
            settings: &context.settings,
            out: &context.out,
            place: &place,
            // Nobody is asked for an approval that cannot change the answer.
            check_wait: if summary.missing.is_empty() {
                check_wait(matches, context)
            } else {
                Duration::ZERO
            },
        };
        prove(&prover, &[AuthMode::Keys, AuthMode::TailscaleSsh], report);
    }
    if report.first_failure().is_some() || interrupt::requested() {
        return Ok(());
    }
    // Somebody may have edited the file while a check was waited for.
    let edit = switch::plan(&context.around, AuthMode::TailscaleSsh)?;
    if flag(matches, "dry-run") {
        report.push(Check::skip("switch", format!("would write {}", edit.words())));
        return Ok(());
    }
    let _whole = interrupt::defer();
    // The lock first: without the line there is no cut-over.
    let mut pen = ledger.open().and_then(Pen::locked).map_err(Failure::from)?;
    edit.apply(&context.around)?;
    let event = Event::Cutover { from: edit.from.clone() };
    if let Err(error) = pen.append(&Entry::now(report.target().to_owned(), context.around.who(), event)) {
        edit.revert()?;
        return Err(Failure::from(error).into());
    }
    switched(&edit, report);
    Ok(())
}

/// The way back asks nobody, and nothing but the file itself stops it: a ledger that cannot be written is told.
fn rollback(matches: &ArgMatches, context: &Context, report: &mut Report) -> anyhow::Result<()> {
    if let Some(failure) = switch::overridden(&context.settings) {
        return Err(failure.into());
    }
    let edit = switch::plan(&context.around, AuthMode::Keys)?;
    if edit.is_done() || (edit.from.is_none() && context.settings.ssh_auth_mode.value == AuthMode::Keys) {
        report.push(Check::pass("switch", "the mode is `keys` already"));
        return Ok(());
    }
    if flag(matches, "dry-run") {
        report.push(Check::skip("switch", format!("would write {}", edit.words())));
        return Ok(());
    }
    let _whole = interrupt::defer();
    edit.apply(&context.around)?;
    switched(&edit, report);
    let event = Event::Rollback { from: edit.from.clone() };
    let entry = Entry::now(report.target().to_owned(), context.around.who(), event);
    let written = state::dir().and_then(|state| {
        let pen = Ledger::below(&state).open().and_then(Pen::locked);
        Ok(pen.and_then(|mut pen| pen.append(&entry)).map_err(Failure::from)?)
    });
    if let Err(error) = written {
        report.push(Check::warn("ledger", format!("the rollback is not in the ledger: {error:#}")));
    }
    Ok(())
}

fn switched(edit: &switch::Edit, report: &mut Report) {
    let next = match edit.to {
        AuthMode::TailscaleSsh => "ua-ssh-auth check --both  # and at any time: ua-ssh-auth rollback",
        AuthMode::Keys => "ua-ssh-auth check --mode keys",
    };
    report.push(Check::pass("switch", format!("wrote {}", edit.words())).hint(next));
    report.data.insert("from".to_owned(), edit.from.clone().into());
    report.data.insert("to".to_owned(), edit.to.show().into());
}
