//! `doctor`: is the VPS as it should be? One exec that only looks, and a pure judgement of what it saw.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use ua_common::env_contract::{self, CommandFailure, Target};
use ua_common::env_file;
use ua_common::error::Failure;
use ua_common::exit::Exit;
use ua_common::ledger::Push;
use ua_common::output::{self, listed, printable};
use ua_common::profile::Profile;
use ua_common::report::{Check, Report};
use ua_common::settings::Settings;
use ua_common::settings::value::{Scheme, StagingMode};
use ua_common::transport::Script;
use ua_staging::View;
use ua_staging::plan::{Route, plan};
use ua_staging::serve::{Actual, Listener};

use crate::session::{STATE, Session};
use crate::status::{self, Seen, age, counted};
use crate::units::{self, Chosen};

const DOCTOR: Script = Script {
    name: "doctor",
    text: concat!(
        include_str!("../../ua-common/remote/ledger.sh"),
        "\n",
        include_str!("../remote/seen.sh"),
        "\n",
        include_str!("../../ua-common/remote/env.sh"),
        "\n",
        include_str!("../../ua-staging/remote/look.sh"),
        "\n",
        include_str!("../remote/doctor.sh")
    ),
};
const LIMIT: Duration = Duration::from_mins(2);

/// Seconds by which both clocks may differ.
const SKEW: f64 = 2.0;
/// tailscaled renews a certificate when somebody uses it; one that is nearer to its end than so many days was not used.
const CERTIFICATE_DAYS: i64 = 7;

/// `.env`, as it lies there.
#[derive(Clone, Debug, PartialEq, Eq)]
struct EnvFile {
    owner: String,
    mode: String,
    /// By the app's user.
    readable: bool,
}

/// A file system.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Room {
    dir: String,
    device: String,
    kib: u64,
    free_kib: u64,
    inodes_percent: u64,
}

/// A timer, as systemd has it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Timer {
    id: String,
    active: bool,
    /// The unit that it starts runs; the next time is known only when that has ended.
    running: bool,
    /// Does it elapse again?
    next: bool,
    /// `repeats`, has `dates`, or is meant to elapse `once`.
    kind: String,
    /// What it starts.
    service: String,
}

/// What was seen.
#[derive(Clone, Debug, Default)]
struct Facts {
    seen: Seen,
    /// The clock there when the script began and when it ended.
    began: f64,
    ended: f64,
    env: Option<EnvFile>,
    /// The lines of it, and of what `env.command` printed, that are judged, without values.
    lines: String,
    /// Why the command printed none.
    env_failure: Option<CommandFailure>,
    /// Other files with secrets → owner and mode; nothing where it is no plain file.
    secrets: BTreeMap<String, Option<[String; 2]>>,
    rooms: Vec<Room>,
    /// KiB: all, available, swap, free swap.
    memory: Option<[u64; 4]>,
    /// Timers of the app that are known to systemd.
    timers: Vec<Timer>,
    /// Port and program of whatever listens on every address; nothing where there is no `ss`.
    listeners: Option<Vec<(u16, String)>>,
    /// Is it enabled, is it active?
    watchdog: Option<[String; 2]>,
    /// What its service runs, in words.
    command: String,
    /// What root runs by it of the app, and who else can change that; nobody if empty.
    root_runs: Vec<[String; 2]>,
    /// What root takes the environment of that from, and who else can change that; nobody if empty.
    root_reads: Vec<[String; 2]>,
    history: Vec<Value>,
    serve: Option<Actual>,
    /// Name and end, in seconds of the epoch.
    certificates: Vec<(String, i64)>,
}

/// Looks and judges.
pub fn doctor(session: &Session<'_>, report: &mut Report) -> Result<(), Failure> {
    let profile = session.profile;
    let settings = &session.context.settings;
    let units = units::of(profile, |_| true);
    let (health, timers) = (status::health_checks(profile, &units), timer_patterns(profile));
    let units: Vec<String> = units.iter().map(Chosen::arg).collect();
    let watchdog = profile.units.watchdog.as_deref().unwrap_or_default();
    let secrets: String = profile.secrets.iter().map(|secret| format!("{}\n", secret.file)).collect();
    let app = settings.deploy_app_dir.0.as_str();
    let [mut shapes, words] = env_contract::question(&profile.env.keys);
    // Of the token it is only asked whether it is there; the other one is read by a deploy as well.
    let database = profile.workers.as_ref().and_then(|workers| workers.database_key.as_ref());
    shapes.extend(profile.env.token.iter().chain(database).flat_map(|key| [" ", key]));
    let env = &profile.env.file;
    let command = profile.env.command.as_deref().unwrap_or_default();
    let (user, path) = (&profile.owner.user, &profile.build.path);
    let mut args = vec![STATE, app, user, env, &shapes, &words, watchdog, &secrets, path, command];
    args.extend([health.as_str(), &timers]);
    args.extend(units.iter().map(String::as_str));
    let before = seconds(Timestamp::now());
    let answer = {
        let _waiting = session.context.out.waiting("looking at the VPS");
        session.ask(DOCTOR, &args, LIMIT)?
    };
    let facts = parse(&answer.stdout, profile)?;
    let clock = skew(&facts, before, seconds(Timestamp::now()));
    let ssh = session.transport.shown();
    judge(&facts, clock, profile, settings, &ssh, report);
    report.data.extend([
        ("clock_skew_seconds".to_owned(), json!(clock)),
        ("pushed".to_owned(), json!(facts.seen.pushes)),
        ("served".to_owned(), json!(facts.seen.served)),
        ("units".to_owned(), status::records(&facts.seen).rows.into_iter().map(|row| row.json).collect()),
    ]);
    Ok(())
}

#[allow(clippy::cast_precision_loss, reason = "milliseconds of the epoch are exact in a double")]
fn seconds(at: Timestamp) -> f64 {
    at.as_millisecond() as f64 / 1000.0
}

/// By how much the clock there is certainly ahead of ours, or behind if negative: its two readings lie between ours.
fn skew(facts: &Facts, before: f64, after: f64) -> f64 {
    if facts.ended > after { facts.ended - after } else { (facts.began - before).min(0.0) }
}

/// Reads `WHAT<TAB>FIELDS…` lines. Without the time there nothing can be said of ages.
fn parse(text: &str, profile: &Profile) -> Result<Facts, Failure> {
    let mut facts = Facts { seen: status::parse(text, profile), ..Facts::default() };
    for line in text.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let number = |at: usize| fields.get(at).and_then(|field| field.parse().ok()).unwrap_or(0_u64);
        let rest = line.split_once('\t').map_or("", |(_, rest)| rest);
        match fields[..] {
            ["began", at] => facts.began = time(at)?,
            ["ended", at] => facts.ended = time(at)?,
            ["env", owner, mode, readable] => {
                let (owner, mode) = (owner.to_owned(), mode.to_owned());
                facts.env = Some(EnvFile { owner, mode, readable: readable == "readable" });
            }
            ["secret", file, owner, mode] => {
                drop(facts.secrets.insert(file.to_owned(), Some([owner, mode].map(str::to_owned))));
            }
            ["secret", file, _] => drop(facts.secrets.insert(file.to_owned(), None)),
            ["env_failed", ..] => facts.env_failure = Some(CommandFailure::parse(rest)),
            ["line", ..] => {
                facts.lines.push_str(rest);
                facts.lines.push('\n');
            }
            ["room", dir, device, ..] => facts.rooms.push(Room {
                dir: dir.to_owned(),
                device: device.to_owned(),
                kib: number(3),
                free_kib: number(4),
                inodes_percent: number(5),
            }),
            // A machine without memory is one whose words are others.
            ["memory", ..] => {
                facts.memory = Some([1, 2, 3, 4].map(number)).filter(|all| all[0] > 0 && all[1] > 0);
            }
            ["timer", id, active, sub, next, kind, service] => facts.timers.push(Timer {
                id: id.to_owned(),
                active: active == "active",
                running: sub == "running",
                next: next == "next",
                kind: kind.to_owned(),
                service: service.to_owned(),
            }),
            ["listeners", ref found @ ..] => {
                let socket = |text: &&str| {
                    let (port, program) = text.split_once(' ')?;
                    Some((port.parse().ok()?, program.to_owned()))
                };
                facts.listeners = Some(found.iter().filter_map(socket).collect());
            }
            ["watchdog", enabled, active] => facts.watchdog = Some([enabled.to_owned(), active.to_owned()]),
            ["command", command] => command.clone_into(&mut facts.command),
            ["rootruns", path, who] => facts.root_runs.push([path, who].map(str::to_owned)),
            ["rootreads", path, who] => facts.root_reads.push([path, who].map(str::to_owned)),
            ["certificate", name, end] => {
                // One whose end is not known counts as one that could not be read.
                facts.certificates.extend(end.parse().ok().map(|end| (name.to_owned(), end)));
            }
            ["history", ..] => facts.history.extend(serde_json::from_str::<Value>(rest).ok()),
            ["serve", ..] => facts.serve = Actual::parse(rest).ok(),
            _ => {}
        }
    }
    if facts.began <= 0.0 || facts.ended <= 0.0 {
        return Err(no_time("nothing"));
    }
    Ok(facts)
}

fn time(text: &str) -> Result<f64, Failure> {
    text.parse().map_err(|_| no_time(&format!("`{}`", printable(text))))
}

fn no_time(said: &str) -> Failure {
    Failure::new(Exit::Failed, format!("asked for its time, the VPS said {said}, so nothing can be judged"))
        .hint("ua-vpsctl run -- date +%s.%N")
}

fn judge(facts: &Facts, clock: f64, profile: &Profile, settings: &Settings, ssh: &str, report: &mut Report) {
    status::judge(&facts.seen, profile.units().len(), profile, &settings.deploy_ready_timeout, report);
    let app = settings.deploy_app_dir.0.as_str();
    let target = Target { ssh, app };
    let mut checks = vec![env_file(facts, profile, target)];
    if facts.env.is_some() {
        checks.extend(env_keys(facts, profile, target));
    }
    checks.extend(secrets(facts, profile, app));
    checks.extend(disk(facts, profile));
    checks.push(memory(facts));
    checks.push(clocks(clock));
    checks.extend(serve(facts, settings));
    checks.extend(listeners(facts, settings));
    checks.extend(funnel(facts, settings));
    checks.extend(certificate(facts, settings));
    checks.push(last_deploy(facts));
    checks.push(ledger(facts));
    checks.extend(watchdog(facts, profile));
    checks.extend(timers(facts));
    report.checks.extend(checks);
}

fn env_file(facts: &Facts, profile: &Profile, target: Target<'_>) -> Check {
    let id = "env.file";
    let file = format!("{}/{}", target.app, profile.env.file);
    let (owner, mode) = (&*profile.env.owner, &*profile.env.mode);
    let Some(env) = &facts.env else {
        let detail = format!("`{file}` is not there, or is a link or no file");
        return Check::fail(id, Exit::Contract, detail).hint(target.edit(profile));
    };
    let is = format!("`{file}` is {} {}", printable(&env.owner), env.mode);
    if env.owner == owner && env.mode == mode && env.readable {
        return Check::pass(id, is);
    }
    let unread =
        if env.readable { String::new() } else { format!(", and `{}` cannot read it", &*profile.owner.user) };
    Check::fail(id, Exit::Contract, format!("{is}, not {owner} {mode}{unread}")).hint("ua-vpsctl fix-perms")
}

/// As a deploy judges them, and the token, which a deploy goes without.
fn env_keys(facts: &Facts, profile: &Profile, target: Target<'_>) -> Vec<Check> {
    let mut env = env_file::assignments(&facts.lines);
    let token = profile.env.token.as_deref();
    let has_token =
        token.is_none_or(|key| env_file::last(&env, key).is_some_and(|it| !it.value.trim().is_empty()));
    env.retain(|it| Some(it.key.as_str()) != token || profile.env.keys.keys().any(|key| **key == it.key));
    let failure = facts.env_failure.as_ref();
    let mut checks = vec![env_contract::judge("env.keys", target, profile, &env, failure)];
    if let Some(token) = token.filter(|_| !has_token && failure.is_none()) {
        let source = target.source(profile);
        let detail = format!("{source} assigns no {token}, which opens the ops endpoints of the app");
        checks.push(Check::warn("env.token", detail).hint(target.mend(profile)));
    }
    checks
}

/// Those that are there.
fn secrets(facts: &Facts, profile: &Profile, app: &str) -> Vec<Check> {
    let id = "secret.file";
    let judged = profile.secrets.iter().filter_map(|secret| {
        let file = format!("{app}/{}", secret.file);
        let Some([owner, mode]) = facts.secrets.get(&*secret.file)? else {
            let detail = format!("`{file}` is a link or no file");
            return Some(
                Check::fail(id, Exit::Contract, detail).hint(format!("ua-vpsctl run -- ls -l {file}")),
            );
        };
        let is = format!("`{file}` is {} {}", printable(owner), printable(mode));
        let theirs = secret.owner.as_deref().is_none_or(|wanted| wanted == owner);
        if theirs && *mode == *secret.mode {
            return Some(Check::pass(id, is));
        }
        let wanted = secret.owner.iter().map(|owner| &**owner).chain([&*secret.mode]);
        let wanted = wanted.collect::<Vec<_>>().join(" ");
        Some(Check::fail(id, Exit::Contract, format!("{is}, not {wanted}")).hint("ua-vpsctl fix-perms"))
    });
    judged.collect()
}

fn disk(facts: &Facts, profile: &Profile) -> Vec<Check> {
    let id = "disk";
    let mut devices = BTreeSet::new();
    let rooms = facts.rooms.iter().filter(|room| devices.insert(room.device.clone()));
    let judged = rooms.map(|room| {
        let free = output::bytes(room.free_kib * 1024);
        let detail = format!("{free} of {} free under `{}`", output::bytes(room.kib * 1024), room.dir);
        let look = format!("ua-vpsctl run --shell 'du -xh {} | sort -h | tail -n 20'", room.dir);
        if room.free_kib < profile.source.free_mib * 1024 {
            let detail = format!("{detail}; a deploy needs {} MiB", profile.source.free_mib);
            Check::fail(id, Exit::Contract, detail).hint(look)
        } else if room.free_kib * 10 < room.kib {
            Check::warn(id, detail).hint(look)
        } else if room.inodes_percent >= 90 {
            let detail = format!("{detail}, but {} % of its inodes are taken", room.inodes_percent);
            Check::warn(id, detail)
                .hint(look.replace("du -xh", "du -x --inodes").replace("sort -h", "sort -n"))
        } else {
            Check::pass(id, detail)
        }
    });
    judged.collect()
}

fn memory(facts: &Facts) -> Check {
    let id = "memory";
    let Some([all, available, swap, free_swap]) = facts.memory else {
        return Check::warn(id, "the VPS did not say how much it has")
            .hint("ua-vpsctl run -- cat /proc/meminfo");
    };
    let size = |kib: u64| output::bytes(kib * 1024);
    let swapped = if swap == 0 {
        "no swap".to_owned()
    } else {
        format!("{} of {} swap used", size(swap.saturating_sub(free_swap)), size(swap))
    };
    let detail = format!("{} of {} available, {swapped}", size(available), size(all));
    if available * 10 < all {
        return Check::warn(id, detail).hint("ua-vpsctl status  # who has it");
    }
    Check::pass(id, detail)
}

fn clocks(skew: f64) -> Check {
    let id = "clock";
    if skew.abs() <= SKEW {
        return Check::pass(id, format!("within {SKEW} s of ours"));
    }
    let way = if skew > 0.0 { "ahead of" } else { "behind" };
    let detail = format!("at least {:.1} s {way} ours", skew.abs());
    Check::warn(id, detail).hint("ua-vpsctl run -- timedatectl; timedatectl  # which of both is wrong")
}

fn serve(facts: &Facts, settings: &Settings) -> Vec<Check> {
    let id = "serve";
    if settings.staging_mode.value == StagingMode::Disabled {
        return vec![Check::skip(id, format!("staging.mode = disabled ({})", settings.staging_mode.origin))];
    }
    let Some(actual) = &facts.serve else {
        return vec![
            Check::fail(
                id,
                Exit::TailscaleDown,
                "tailscaled on the VPS does not say what it serves, or not in words that are known",
            )
            .hint("ua-vpsctl run -- tailscale status"),
        ];
    };
    let wanted = Route::wanted(settings);
    let view = View { plan: plan(&wanted, actual, false), wanted, actual: actual.clone() };
    let open = !view.plan.actions.is_empty();
    let judged = view.checks().into_iter().map(|check| match &*check.id {
        "staging.plan" if open => Check::warn(id, check.detail).hint("ua-staging ensure"),
        "staging.plan" => Check::pass(id, check.detail),
        _ => check,
    });
    judged.collect()
}

/// Finds what listens on every address at a port of `tailscale serve`. tailscaled binds the node's own addresses there: peers are
/// served as long as both run, but whichever is started later cannot bind its socket.
fn listeners(facts: &Facts, settings: &Settings) -> Vec<Check> {
    let id = "serve.listener";
    let Some(serve) = facts.serve.as_ref().map(|actual| &actual.serve) else { return Vec::new() };
    let wanted = Route::wanted(settings);
    let wanted = wanted.iter().map(|route| route.port);
    let wanted = wanted.filter(|_| settings.staging_mode.value != StagingMode::Disabled);
    let held = serve.foreground.values().flat_map(|session| session.tcp.keys());
    let ports: BTreeSet<u16> = wanted.chain(serve.tcp.keys().chain(held).copied()).collect();
    if ports.is_empty() {
        return Vec::new();
    }
    let Some(listeners) = &facts.listeners else {
        return vec![Check::skip(id, "the VPS has no `ss`, which tells what listens where")];
    };
    let clash = |(port, program): &(u16, String)| ports.contains(port) && program != "tailscaled";
    let clashes: Vec<Check> = listeners
        .iter()
        .filter(|listener| clash(listener))
        .map(|(port, program)| {
            let detail = printable(&format!(
                "{program} listens on every address at port {port}, which `tailscale serve` needs on the tailnet's: \
                 whichever of both is started later cannot listen"
            ));
            let hint = format!("have {program} listen on the public address only, as in `listen 203.0.113.7:{port}`");
            Check::fail(id, Exit::StagingDrift, detail).hint(hint)
        })
        .collect();
    if clashes.is_empty() {
        let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
        return vec![Check::pass(id, format!("nothing else takes port {}", ports.join(", ")))];
    }
    clashes
}

/// Names the ports that Funnel opens beside those of the routes, which `serve` judges.
fn funnel(facts: &Facts, settings: &Settings) -> Option<Check> {
    let id = "funnel";
    let actual = facts.serve.as_ref()?;
    let wanted = Route::wanted(settings).map(|route| route.port);
    let judged = |port: u16| settings.staging_mode.value != StagingMode::Disabled && wanted.contains(&port);
    let sessions = actual.serve.foreground.values();
    let open: BTreeMap<u16, &str> = std::iter::once(&actual.serve)
        .chain(sessions)
        .flat_map(|config| {
            let open = config.allow_funnel.iter().filter(|(_, open)| **open);
            open.filter_map(|(at, _)| at.rsplit_once(':')?.1.parse().ok())
                .map(|port| (port, config.tcp.get(&port).map_or("https", Listener::kind)))
        })
        .filter(|(port, _)| !judged(*port))
        .collect();
    if open.is_empty() {
        return Some(Check::pass(id, "no other port is open to the internet"));
    }
    let ports: Vec<String> = open.keys().map(ToString::to_string).collect();
    let detail = format!(
        "Funnel opens port {} of `{}` to the internet; then public DNS has that name as well, and a client that asks public \
         DNS does not reach the tailnet by it",
        ports.join(", "),
        actual.node.name()
    );
    let off: Vec<String> =
        open.iter().map(|(port, kind)| format!("tailscale funnel --{kind}={port} off")).collect();
    Some(Check::warn(id, detail).hint(format!("on the VPS: {}", off.join("; "))))
}

fn certificate(facts: &Facts, settings: &Settings) -> Option<Check> {
    let id = "certificate";
    let https = settings.staging_mode.value != StagingMode::Disabled
        && settings.staging_scheme.value == Scheme::Https;
    let name = facts.serve.as_ref().map(|actual| actual.node.name()).filter(|_| https)?;
    let Some((_, end)) = facts.certificates.iter().find(|(of, _)| of == name) else {
        return Some(Check::skip(
            id,
            format!("tailscaled has none for `{name}` yet, or there is no openssl to read it"),
        ));
    };
    #[allow(clippy::cast_possible_truncation, reason = "whole seconds of the epoch")]
    let days = (end - facts.ended as i64).div_euclid(86_400);
    Some(if days >= CERTIFICATE_DAYS {
        Check::pass(id, format!("of `{name}`: {} left", day(days)))
    } else {
        let left = if days < 0 { "expired".to_owned() } else { format!("{} left", day(days)) };
        Check::warn(id, format!("of `{name}`: {left}; tailscaled renews it when it is asked for"))
            .hint("ua-staging verify")
    })
}

fn day(days: i64) -> String {
    format!("{days} {}", if days == 1 { "day" } else { "days" })
}

fn last_deploy(facts: &Facts) -> Check {
    let id = "deploy.last";
    let word = |record: &Value, key: &str| printable(record[key].as_str().unwrap_or_default());
    let serves = |record: &&Value| matches!(record["verdict"].as_str(), Some("ok" | "unconfirmed"));
    // The last line of an id counts.
    let mut ids = BTreeSet::new();
    let records: Vec<&Value> =
        facts.history.iter().rev().filter(|record| ids.insert(word(record, "id"))).collect();
    let Some(record) = records.iter().copied().find(serves) else {
        return if records.is_empty() {
            Check::warn(id, "nothing was ever deployed").hint("ua-deploy plan")
        } else {
            Check::warn(id, "nothing was deployed that serves").hint("ua-deploy history")
        };
    };
    let ended: Option<Timestamp> = word(record, "ended_at").parse().ok();
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "whole seconds, and none below 0"
    )]
    let since = ended.map(|ended| age((facts.ended - seconds(ended)).max(0.0) as u64));
    let commit = word(record, "commit");
    let detail = format!(
        "commit {}, {} ago, by {}",
        commit.get(..12).unwrap_or(&commit),
        since.unwrap_or_else(|| "?".to_owned()),
        word(record, "who")
    );
    match records.first() {
        Some(last) if last["id"] != record["id"] && last["verdict"] == "broken" => {
            let detail = format!("{detail}; since then `{}` ended as broken", word(last, "id"));
            Check::fail(id, Exit::Failed, detail).hint("ua-deploy status")
        }
        Some(last) if last["id"] != record["id"] => {
            let detail =
                format!("{detail}; since then `{}` ended as {}", word(last, "id"), word(last, "verdict"));
            Check::warn(id, detail).hint("ua-deploy history")
        }
        _ if record["verdict"] == "unconfirmed" => {
            Check::warn(id, format!("{detail}; nobody has confirmed it")).hint("ua-deploy attach")
        }
        _ => Check::pass(id, detail),
    }
}

fn ledger(facts: &Facts) -> Check {
    let id = "ledger";
    let Some(last) = facts.seen.pushes.last() else {
        return Check::pass(id, "nothing was pushed since the last deploy");
    };
    let paths: BTreeSet<&str> = facts.seen.pushes.iter().flat_map(Push::names).collect();
    let paths: Vec<String> = paths.into_iter().map(str::to_owned).collect();
    let detail = format!(
        "{} that no deploy has settled, the last one at {}: {}",
        counted(facts.seen.pushes.len(), "push", "pushes"),
        last.origin(),
        listed(&paths)
    );
    Check::warn(id, printable(&detail)).hint("ua-deploy plan  # commit what is to stay, then deploy")
}

fn watchdog(facts: &Facts, profile: &Profile) -> Vec<Check> {
    let id = "watchdog";
    let Some(timer) = &profile.units.watchdog else { return Vec::new() };
    let [enabled, active] = facts.watchdog.clone().unwrap_or_default();
    let open = open_to_others(facts, timer);
    let detail = format!("`{}` is {}, {}", &**timer, printable(&enabled), printable(&active));
    // A deploy holds it off.
    let mut checks = vec![if active == "active" && enabled == "enabled" {
        Check::pass(id, detail)
    } else if facts.seen.busy.is_some() {
        Check::skip(id, format!("{detail}; it is held off while a deploy is under way"))
    } else {
        // Nothing is enabled by which somebody could become root.
        let enable = || format!("ua-vpsctl run -- systemctl enable --now {}", &**timer);
        let hint = open.first().and_then(|check| check.hint.clone()).unwrap_or_else(enable);
        // Somebody may have wanted that it is not enabled.
        let check = if enabled == "enabled" {
            Check::fail(id, Exit::Failed, detail)
        } else {
            Check::warn(id, detail)
        };
        check.hint(hint)
    }];
    checks.extend(open);
    checks
}

/// Patterns of the names of the app's timers: they begin as its units do. The watchdog is one of them.
fn timer_patterns(profile: &Profile) -> String {
    let units = profile.all_units();
    let first = |unit: &str| match unit.trim_end_matches(".service").split_once(['-', '@']) {
        Some((word, _)) => format!("{word}-*.timer"),
        None => unit.replace(".service", ".timer"),
    };
    let watchdog = profile.units.watchdog.iter().map(ToString::to_string);
    let patterns: BTreeSet<String> = units.iter().map(|unit| first(unit)).chain(watchdog).collect();
    patterns.into_iter().collect::<Vec<_>>().join(" ")
}

/// Finds timers that are active and will not elapse again: `is-active` does not tell.
fn timers(facts: &Facts) -> Vec<Check> {
    let id = "timer";
    let mut known = BTreeSet::new();
    let timers = facts.timers.iter().filter(|timer| timer.active && known.insert(&timer.id));
    let (dead, alive): (Vec<&Timer>, Vec<&Timer>) = timers.partition(|timer| !timer.next && !timer.running);
    let mut checks: Vec<Check> = Vec::new();
    for timer in &dead {
        let name = printable(&timer.id);
        let look = format!("ua-vpsctl run -- systemctl cat {name}");
        if timer.kind == "once" {
            let detail = format!("`{name}` has elapsed, and will not again before it or the VPS is started");
            checks.push(Check::warn(id, detail).hint(look));
            continue;
        }
        let start = format!(
            "ua-vpsctl run -- systemctl start {}  # the timer counts from there; with OnCalendar= it needs no such start",
            printable(&timer.service)
        );
        let detail = format!("`{name}` is active, but will not elapse again");
        let hint = if timer.kind == "repeats" { start } else { look };
        checks.push(Check::fail(id, Exit::Failed, detail).hint(hint));
    }
    if dead.is_empty() && !alive.is_empty() {
        checks.push(Check::pass(id, counted(alive.len(), "timer goes on", "timers go on")));
    }
    checks
}

/// By what of the watchdog somebody else can become root, and how it is closed.
fn open_to_others(facts: &Facts, timer: &str) -> Vec<Check> {
    let others = |files: &[[String; 2]]| -> Vec<[String; 2]> {
        files.iter().filter(|[_, who]| !who.is_empty()).cloned().collect()
    };
    let scripts = others(&facts.root_runs).into_iter().map(|[path, who]| {
        let detail = printable(&format!("root runs `{path}` by it, which `{who}` can change"));
        Check::warn("watchdog.script", detail).hint(own_by_root(&path, &facts.command, timer))
    });
    let environments = others(&facts.root_reads).into_iter().map(|[path, who]| {
        let detail = printable(&format!(
            "root runs it in the environment of `{path}`, which `{who}` can change: one variable there makes it run anything"
        ));
        Check::warn("watchdog.environment", detail).hint(read_by_root(&path, &facts.root_reads, timer))
    });
    scripts.chain(environments).collect()
}

fn service_of(timer: &str) -> String {
    format!("{}.service", timer.trim_end_matches(".timer"))
}

/// Can it stand in a line for a shell as it is?
fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b" /._:=@+,-".contains(&byte))
}

/// The command that has root run a copy of its own: a deploy gives the file itself back to the app's user.
fn own_by_root(path: &str, command: &str, timer: &str) -> String {
    let service = service_of(timer);
    let copy = format!("/usr/local/sbin/{}", path.rsplit('/').next().unwrap_or(path));
    if !is_plain(command) || !command.split(' ').any(|word| word == path) {
        return format!(
            "ua-vpsctl run -- systemctl cat {service}  # have it run a copy that only root can change"
        );
    }
    let command: Vec<&str> =
        command.split(' ').map(|word| if word == path { copy.as_str() } else { word }).collect();
    let (command, dir) = (command.join(" "), format!("/etc/systemd/system/{service}.d"));
    format!(
        "ua-vpsctl run --shell 'install -o root -g root -m 0755 {path} {copy} && mkdir -p {dir} && \
         printf \"[Service]\\nExecStart=\\nExecStart={command}\\n\" >{dir}/own.conf && systemctl daemon-reload'  # once you have read {path}"
    )
}

/// The command that has root read a copy of its own: the directory of the file itself belongs to the app's user.
fn read_by_root(path: &str, all: &[[String; 2]], timer: &str) -> String {
    let service = service_of(timer);
    // With several the order decides what counts, and somebody has to look at it.
    if all.len() > 1 || !is_plain(path) || path.contains(' ') {
        return format!(
            "ua-vpsctl run -- systemctl cat {service}  # have it read copies that only root can change"
        );
    }
    let copy = format!("/etc/default/{}", timer.trim_end_matches(".timer"));
    let dir = format!("/etc/systemd/system/{service}.d");
    format!(
        "ua-vpsctl run --shell 'install -o root -g root -m 0600 {path} {copy} && mkdir -p {dir} && \
         printf \"[Service]\\nEnvironmentFile=\\nEnvironmentFile={copy}\\n\" >{dir}/environment.conf && \
         systemctl daemon-reload'  # once you have read {path}, and again when it changes"
    )
}

#[cfg(test)]
mod tests {
    use ua_common::report::Verdict;

    use super::*;
    use ua_common::profile::Rule;
    use ua_common::settings::{Layer, Surroundings};

    const NAME: &str = "srv1360701.taildcc090.ts.net";

    /// What a healthy VPS says, at 1771668900.
    fn healthy() -> String {
        let profile = Profile::built_in().unwrap();
        let mut text = String::from("began\t1771668899.5\n");
        for unit in profile.units() {
            text.push_str(&format!("unit\t{unit}\tloaded\tactive\trunning\t0\t900\t1000\t42\t\n"));
        }
        for health in &profile.health {
            text.push_str(&format!("health\t{}\t200\t0\n", health.name));
        }
        text.push_str(
            "timer\tuniversal-agent-service-watchdog.timer\tactive\twaiting\tnext\trepeats\tx.service\n\
             listeners\t22 sshd\t80 nginx\n",
        );
        text.push_str("served\tr1\nenv\troot:ua\t640\treadable\n");
        for (key, rule) in &profile.env.keys {
            let value = match rule {
                Rule::On => "Yes".to_owned(),
                Rule::Set => "xxx".to_owned(),
                Rule::Equals(wanted) => format!("'{wanted}'"),
                Rule::Contains(wanted) => wanted.join(", "),
            };
            text.push_str(&format!("line\t{}={value}\n", &**key));
        }
        text.push_str("line\tUA_OPS_TOKEN=xxx\n");
        let routes = json!({
            "serve": {
                "TCP": {"443": {"HTTPS": true}, "8443": {"HTTPS": true}},
                "Web": {
                    format!("{NAME}:443"): {"Handlers": {"/": {"Proxy": "http://127.0.0.1:3000"}}},
                    format!("{NAME}:8443"): {"Handlers": {"/": {"Proxy": "http://127.0.0.1:8001"}}},
                },
            },
            "node": {
                "BackendState": "Running",
                "Self": {"ID": "1", "DNSName": format!("{NAME}."), "CapMap": {"https": null}},
            },
        });
        let record = json!({
            "id": "20260221T091500.000Z-c", "commit": "407217ecddd1c8f7b0f2", "who": "op@laptop", "verdict": "ok",
            "ended_at": "2026-02-21T09:15:00Z",
        });
        text.push_str(&format!(
            "room\t/opt/universal_agent\t/dev/vda1\t40000000\t30000000\t3\n\
             room\t/var/lib/ua-deploy\t/dev/vda1\t40000000\t30000000\t3\n\
             memory\t4000000\t2000000\t0\t0\nwatchdog\tenabled\tactive\n\
             history\t{record}\nserve\t{routes}\ncertificate\t{NAME}\t1779000000\nended\t1771668900.5\n"
        ));
        text
    }

    fn judged(text: &str, clock: f64) -> Report {
        let around = Surroundings {
            cwd: "/".into(),
            home: Some("/nowhere".into()),
            config_home: None,
            env: BTreeMap::new(),
            uid: 0,
        };
        let settings = Settings::load(Layer::new(), &around).unwrap();
        let mut report = Report::new("ua-vpsctl", ua_common::report::Lane::Vps, "x");
        let profile = Profile::built_in().unwrap();
        judge(&parse(text, &profile).unwrap(), clock, &profile, &settings, "root@vps", &mut report);
        report
    }

    #[test]
    fn what_was_not_said_is_no_pass() {
        let profile = Profile::built_in().unwrap();
        let parse = |text: &str| parse(text, &profile);
        assert!(parse("").is_err() && parse("began\t1.5\nended\t\n").is_err());
        assert!(parse(&healthy().replace("ended\t", "over\t")).is_err());
        let silent = judged(&healthy().replace("memory\t4000000\t2000000", "memory\t\t"), 0.0);
        let memory = silent.checks.iter().find(|check| check.id == "memory").unwrap();
        assert_eq!(memory.verdict, Verdict::Warn);
        let dateless = judged(&healthy().replace("1779000000", ""), 0.0);
        let certificate = dateless.checks.iter().find(|check| check.id == "certificate").unwrap();
        assert_eq!(certificate.verdict, Verdict::Skip);
    }

    #[test]
    fn a_healthy_vps_passes_every_check() {
        let report = judged(&healthy(), 0.0);
        let told: Vec<String> =
            report.checks.iter().map(|check| format!("{:?} {}", check.verdict, check.id)).collect();
        let ids = [
            "units",
            "health",
            "release",
            "env.file",
            "env.keys",
            "disk",
            "memory",
            "clock",
            "serve",
            "serve.listener",
            "funnel",
            "certificate",
            "deploy.last",
            "ledger",
            "watchdog",
            "timer",
        ];
        assert_eq!(told, ids.map(|id| format!("Pass {id}")), "{:?}", report.checks);
        let last = report.checks.iter().find(|check| check.id == "deploy.last").unwrap();
        assert_eq!(last.detail, "commit 407217ecddd1, 1 h 0 min ago, by op@laptop");
    }

    #[test]
    fn each_thing_that_is_wrong_is_told_with_the_next_command() {
        let pushed = "ended\t1771668900.5\npushed\t{\"id\":\"p1\",\"at\":\"T\",\"who\":\"op@laptop\",\"commit\":\"c0\",\"dirty\":true,\"paths\":[\"f\\ta\\tsrc/a.py\"]}";
        let script = "watchdog\tenabled\tactive\nrootruns\t/opt/universal_agent/x.sh\tua";
        let environment = "watchdog\tenabled\tactive\nrootreads\t/opt/universal_agent/.env\tua";
        for (from, to, id, exit, words) in [
            (
                "loaded\tactive\trunning",
                "loaded\tfailed\tfailed",
                "unit",
                1,
                "universal-agent-gateway is failed/failed",
            ),
            (
                "root:ua\t640\treadable",
                "ua:ua\t666\treadable",
                "env.file",
                31,
                "is ua:ua 666, not root:ua 640",
            ),
            ("640\treadable", "640\t", "env.file", 31, "`ua` cannot read it"),
            ("env\troot:ua\t640\treadable", "env\todd", "env.file", 31, "is not there"),
            ("line\tUA_VP_DISPATCH_MODE=", "line\tX=", "env.keys", 31, "UA_VP_DISPATCH_MODE is missing"),
            ("='db_pull'", "='\u{1}'", "env.keys", 31, "UA_VP_DISPATCH_MODE is not `db_pull`"),
            ("line\tUA_VP", "line\texport UA_VP", "env.keys", 0, "writes `export` before UA_VP"),
            ("line\tUA_VP", "env_failed\t5\tno vault\nline\tUA_VP", "env.keys", 31, "(code 5): no vault"),
            ("UA_OPS_TOKEN=xxx", "UA_OPS_TOKEN=", "env.token", 0, "assigns no UA_OPS_TOKEN"),
            ("30000000\t3", "300000\t3", "disk", 31, "a deploy needs 512 MiB"),
            ("30000000\t3", "3000000\t3", "disk", 0, "free under"),
            ("30000000\t3", "30000000\t97", "disk", 0, "97 % of its inodes"),
            ("4000000\t2000000", "4000000\t100000", "memory", 0, "available, no swap"),
            ("127.0.0.1:8001", "127.0.0.1:8002", "staging.routes", 42, "8443"),
            ("\"TCP\":{\"443\":{\"HTTPS\":true},", "\"TCP\":{", "serve", 0, "to do: "),
            ("serve\t", "nothing\t", "serve", 11, "does not say what it serves"),
            ("\t1779000000", "\t1771700000", "certificate", 0, "0 days left"),
            (
                "\"verdict\":\"ok\"",
                "\"verdict\":\"unconfirmed\"",
                "deploy.last",
                0,
                "nobody has confirmed it",
            ),
            (
                "\"verdict\":\"ok\"",
                "\"verdict\":\"failed\"",
                "deploy.last",
                0,
                "nothing was deployed that serves",
            ),
            (
                "ended\t1771668900.5",
                pushed,
                "ledger",
                0,
                "by op@laptop, from commit c0 and uncommitted changes: src/a.py",
            ),
            (
                "watchdog\tenabled\tactive",
                "watchdog\tdisabled\tinactive",
                "watchdog",
                0,
                "is disabled, inactive",
            ),
            (
                "watchdog\tenabled\tactive",
                "watchdog\tenabled\tinactive",
                "watchdog",
                1,
                "is enabled, inactive",
            ),
            ("health\tapi\t200\t0", "health\tapi\t503\t0", "health", 1, "answers 503, not 200"),
            ("health\tapi\t200\t0", "health\tapi\t000\t28", "health", 1, "does not answer within 5 s"),
            ("waiting\tnext", "elapsed\tnone", "timer", 1, "is active, but will not elapse again"),
            ("80 nginx", "443 nginx", "serve.listener", 42, "nginx listens on every address at port 443"),
            ("watchdog\tenabled\tactive", script, "watchdog.script", 0, "which `ua` can change"),
            ("watchdog\tenabled\tactive", environment, "watchdog.environment", 0, "which `ua` can change"),
        ] {
            let text = healthy().replace(from, to);
            assert_ne!(text, healthy(), "{from}");
            let report = judged(&text, 0.0);
            let check = report.checks.iter().find(|check| check.id == id && check.detail.contains(words));
            let check = check.unwrap_or_else(|| panic!("{id} {words}: {:?}", report.checks));
            assert_eq!((check.exit.code(), report.exit().code()), (exit, exit), "{:?}", report.checks);
            assert!(check.hint.is_some() && report.verdict() >= Verdict::Warn, "{check:?}");
        }
        let fresh = judged(&healthy().replace("history\t", "nothing\t"), 0.0);
        let last = fresh.checks.iter().find(|check| check.id == "deploy.last").unwrap();
        assert_eq!(
            (last.detail.as_str(), last.hint.as_deref()),
            ("nothing was ever deployed", Some("ua-deploy plan"))
        );
        // A deploy does not ask for the token.
        let token = judged(&healthy().replace("line\tUA_OPS_TOKEN", "line\texport UA_OPS_TOKEN"), 0.0);
        assert_eq!(token.verdict(), Verdict::Pass, "{:?}", token.checks);
        let later = json!({"id": "20260221T093000.000Z-d", "verdict": "broken"});
        let report = judged(&format!("{}history\t{later}\n", healthy()), 0.0);
        assert_eq!(report.first_failure().unwrap().id, "deploy.last");
    }

    /// The verdict, words and hint of a check, where `from` in what a healthy VPS says is `to`.
    fn told(id: &str, from: &str, to: &str) -> (Verdict, String, String) {
        let text = healthy().replace(from, to);
        assert_ne!(text, healthy(), "{from}");
        let check = judged(&text, 0.0).checks.into_iter().find(|check| check.id == id).unwrap();
        (check.verdict, check.detail, check.hint.unwrap_or_default())
    }

    #[test]
    fn funnel_beside_the_routes_is_warned_of() {
        let open = |at: &str| {
            let funnel = format!("\"serve\":{{\"AllowFunnel\":{{\"{NAME}:{at}\":true}},");
            told("funnel", "\"serve\":{", &funnel)
        };
        let (verdict, said, hint) = open("10000");
        assert!(verdict == Verdict::Warn && said.starts_with("Funnel opens port 10000 of"), "{said}");
        assert_eq!(hint, "on the VPS: tailscale funnel --https=10000 off");
        // That of a route is a failure of its own.
        assert_eq!(open("443").0, Verdict::Pass);
        let session = "\"serve\":{\"Foreground\":{\"s\":{\"TCP\":{\"8444\":{\"HTTP\":true}},\"AllowFunnel\":{\"x:8444\":true}}},";
        assert!(told("funnel", "\"serve\":{", session).2.ends_with("--http=8444 off"));
    }

    #[test]
    fn only_other_programs_clash_with_a_route() {
        let listens = |sockets: &str| told("serve.listener", "80 nginx", sockets);
        assert_eq!(listens("443 tailscaled").0, Verdict::Pass);
        let (verdict, said, hint) = listens("8443 caddy");
        assert!(verdict == Verdict::Fail && said.contains("at port 8443, which"), "{said}");
        assert!(hint.starts_with("have caddy listen on the public address only"), "{hint}");
        assert_eq!(told("serve.listener", "listeners\t", "nothing\t").0, Verdict::Skip);
    }

    #[test]
    fn timer_that_runs_its_service_is_fine() {
        let timer = |to: &str| told("timer", "waiting\tnext\trepeats", to);
        assert_eq!(timer("running\tnone\trepeats").0, Verdict::Pass);
        assert_eq!(timer("waiting\tnext\tdates").1, "1 timer goes on");
        let (verdict, _, hint) = timer("elapsed\tnone\trepeats");
        assert!(verdict == Verdict::Fail && hint.contains("systemctl start x.service"), "{hint}");
        let (verdict, _, hint) = timer("elapsed\tnone\tdates");
        assert!(
            verdict == Verdict::Fail && hint.contains("systemctl cat universal-agent-service-watchdog.timer")
        );
        // One that is for the start of the VPS only.
        assert_eq!(timer("elapsed\tnone\tonce").0, Verdict::Warn);
        let patterns = timer_patterns(&Profile::built_in().unwrap());
        assert_eq!(patterns, "csi-*.timer universal-*.timer universal-agent-service-watchdog.timer");
    }

    #[test]
    fn a_watchdog_is_enabled_only_once_nobody_can_become_root_by_it() {
        let (app, unit) = ("/opt/universal_agent", "universal-agent-service-watchdog");
        let told = |said: &str| -> Vec<String> {
            let report = judged(&healthy().replace("watchdog\tenabled\tactive", said), 0.0);
            let about = report.checks.into_iter().filter(|check| check.id.starts_with("watchdog"));
            about.filter_map(|check| check.hint).collect()
        };
        let hints = |watchdog: &str, who: &str, command: &str| {
            told(&format!("watchdog\t{watchdog}\ncommand\t{command}\nrootruns\t{app}/scripts/x.sh\t{who}"))
        };
        let enable = format!("ua-vpsctl run -- systemctl enable --now {unit}.timer");
        let command = format!("/bin/sh {app}/scripts/x.sh --all");
        for off in ["disabled\tinactive", "enabled\tinactive"] {
            assert_eq!(hints(off, "", &command), [enable.as_str()]);
            let told = hints(off, "ua", &command);
            assert!(told.len() == 2 && told[0] == told[1], "{told:?}");
        }
        let dir = format!("/etc/systemd/system/{unit}.service.d");
        let own = format!(
            "ua-vpsctl run --shell 'install -o root -g root -m 0755 {app}/scripts/x.sh /usr/local/sbin/x.sh && mkdir -p {dir} && \
             printf \"[Service]\\nExecStart=\\nExecStart=/bin/sh /usr/local/sbin/x.sh --all\\n\" >{dir}/own.conf && \
             systemctl daemon-reload'  # once you have read {app}/scripts/x.sh"
        );
        assert_eq!(hints("enabled\tactive", "ua", &command), [own]);
        // Words that are not to be guessed.
        for odd in [
            format!("/bin/sh {app}/scripts/x.sh $A"),
            format!("/bin/sh -c {app}/scripts/x.sh;"),
            String::new(),
        ] {
            let told = hints("disabled\tinactive", "ua", &odd);
            assert!(told[0].starts_with("ua-vpsctl run -- systemctl cat "), "{told:?}");
        }
        // Nor while somebody else says in which environment it runs.
        let read = |watchdog: &str, files: &str| told(&format!("watchdog\t{watchdog}\n{files}"));
        let env = format!("rootreads\t{app}/.env\t");
        let copy = format!("/etc/default/{unit}");
        let own = format!(
            "ua-vpsctl run --shell 'install -o root -g root -m 0600 {app}/.env {copy} && mkdir -p {dir} && \
             printf \"[Service]\\nEnvironmentFile=\\nEnvironmentFile={copy}\\n\" >{dir}/environment.conf && \
             systemctl daemon-reload'  # once you have read {app}/.env, and again when it changes"
        );
        assert_eq!(read("enabled\tactive", &format!("{env}ua")), std::slice::from_ref(&own));
        assert_eq!(read("disabled\tinactive", &format!("{env}ua")), [own.clone(), own]);
        assert_eq!(read("disabled\tinactive", &env), std::slice::from_ref(&enable));
        for odd in [format!("{env}ua\nrootreads\t/etc/x\t"), format!("rootreads\t{app}/*.env\tua")] {
            let told = read("enabled\tactive", &odd);
            assert!(told[0].starts_with("ua-vpsctl run -- systemctl cat "), "{told:?}");
        }
    }

    #[test]
    fn what_not_every_vps_has_is_judged_where_it_is() {
        let file = "CSI_Ingester/development/deployment/systemd/csi-ingester.env";
        let of = |fields: &str| {
            let report = judged(&format!("{}secret\t{file}\t{fields}\n", healthy()), 0.0);
            let check = report.checks.iter().find(|check| check.id == "secret.file").unwrap().clone();
            assert_eq!(check.exit, report.exit());
            (check.exit.code(), check.detail, check.hint.unwrap_or_default())
        };
        let (code, said, _) = of("ua:ua\t600");
        assert_eq!((code, said), (0, format!("`/opt/universal_agent/{file}` is ua:ua 600")));
        let (code, said, hint) = of("ua:ua\t644");
        assert!(
            code == 31 && said.ends_with("is ua:ua 644, not 600") && hint == "ua-vpsctl fix-perms",
            "{said}"
        );
        let (code, said, hint) = of("odd");
        assert!(code == 31 && said.ends_with("is a link or no file") && hint.contains("ls -l"), "{said}");
        let stopped = "unit\tcsi-ingester.service\tloaded\tinactive\tdead\t0\t900\t0\t0\t\n";
        let report = judged(&format!("{}{stopped}", healthy()), 0.0);
        assert_eq!((report.exit(), report.verdict()), (Exit::Ok, Verdict::Warn), "{:?}", report.checks);
    }

    #[test]
    fn a_clock_is_judged_by_what_is_certain() {
        let facts = Facts { began: 100.0, ended: 103.0, ..Facts::default() };
        let certain = |before, after| skew(&facts, before, after);
        assert!(certain(99.9, 103.1) == 0.0 && certain(90.0, 110.0) == 0.0);
        assert!(certain(0.0, 4.0) > 98.0 && certain(200.0, 204.0) < -99.0);
        let report = judged(&healthy(), -12.0);
        let check = report.checks.iter().find(|check| check.id == "clock").unwrap();
        assert_eq!((check.detail.as_str(), report.exit()), ("at least 12.0 s behind ours", Exit::Ok));
    }
}
