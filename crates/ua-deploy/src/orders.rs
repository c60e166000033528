//! What the VPS is told to do: lines of `KEY<TAB>FIELDS…`, made from the profile and the settings. Data, never code:
//! every field was checked when the profile was read, and the script on the VPS only ever compares and quotes it.

use std::fmt::Write as _;
use std::time::Duration;

use ua_common::env_file;
use ua_common::place;
use ua_common::settings::Settings;

use crate::plan::Plan;
use crate::release::Release;
use crate::survey::Facts;
use ua_common::glob;
use ua_common::profile::{Profile, Step, Version, Word, Workers, full, within};

/// Where unit files of this machine lie.
const UNIT_DIR: &str = "/etc/systemd/system";

/// The orders for putting `release` in place.
pub fn orders(
    settings: &Settings,
    profile: &Profile,
    release: &Release,
    facts: &Facts,
    plan: &Plan,
    who: &str,
    force_restart: bool,
) -> String {
    let mut text = String::new();
    let mut say = |fields: &[&str]| {
        // Writing into a string cannot fail.
        let _ = writeln!(text, "{}", fields.join("\t"));
    };
    let app = &settings.deploy_app_dir.0;
    say(&["commit", &release.commit]);
    say(&["who", who]);
    say(&["app", app]);
    say(&["user", &profile.owner.user]);
    say(&["group", &profile.owner.group]);
    say(&["modes", &profile.owner.modes]);
    say(&["build_path", &profile.build.path]);
    let ready = &settings.deploy_ready_timeout;
    let start_within = within(ready, profile.units.start_within);
    say(&["start_within", &start_within.to_string()]);
    say(&["stable", &profile.units.stable_seconds.to_string()]);
    say(&["unit_dir", UNIT_DIR]);
    say(&["keep", &settings.deploy_keep_releases.0.to_string()]);
    // What the plan was made upon: another release in between makes it void.
    let after = [facts.served.as_deref().unwrap_or("-"), facts.newest.as_deref().unwrap_or_default()];
    say(&["after", &after.join(":")]);
    say(&["pushed", &facts.last_push]);
    say(&["env_file", &profile.env.file]);
    if let Some(command) = &profile.env.command {
        say(&["env_command", command]);
    }
    say(&["ssh_port", &place::ssh_port(settings, settings.ssh_auth_mode.value).to_string()]);
    if let Some(within) = settings.deploy_require_confirm.0 {
        say(&["confirm", &within.as_secs().max(1).to_string()]);
    }
    plan.upload.iter().for_each(|path| say(&["upload", path]));
    plan.drift.iter().for_each(|path| say(&["drift", path]));
    plan.builds.iter().for_each(|build| say(&["make", &build.what]));
    plan.restarts.iter().for_each(|restart| say(&["restart", &restart.what]));
    for step in &profile.build.steps {
        let dir = step.dir.as_deref().unwrap_or(".");
        let (limit, origin) = step_limit(settings, step);
        let digest = digest(profile, release, step);
        say(&["step", &step.name, dir, &digest, &limit.to_string(), origin, &step.run]);
        for output in &step.outputs {
            say(&["output", &step.name, output]);
        }
    }
    for item in release.items.iter().filter(|item| glob::any(&profile.source.preserve, &item.path)) {
        say(&["preserve", &item.path]);
    }
    for dir in &profile.source.directories {
        say(&["directory", dir]);
    }
    for unit in profile.units() {
        say(&["unit", &unit]);
        if profile.brought_along(&unit) {
            say(&["enable", &unit]);
        }
    }
    profile.optional_units().iter().for_each(|unit| say(&["idle", unit]));
    for (path, name) in profile.template_names() {
        say(&["template", name, path]);
    }
    if let Some(timer) = &profile.units.watchdog {
        say(&["watchdog", timer]);
    }
    for health in &profile.health {
        let unit = health.unit.as_ref().map_or_else(|| "-".to_owned(), |unit| full(unit));
        let within = within(ready, health.within).to_string();
        say(&["health", &health.name, &health.status, &health.url, &unit, &within]);
    }
    for version in &profile.versions {
        let (unit, duty) = (full(&version.unit), duty(version, facts));
        say(&[
            "version",
            &version.name,
            &unit,
            &version.field,
            &version.url,
            duty,
            &start_within.to_string(),
        ]);
    }
    if let Some(workers) = &profile.workers {
        let words = |list: &[Word]| list.iter().map(|word| &**word).collect::<Vec<_>>().join(",");
        say(&["workers_database", &database(app, workers, facts)]);
        let sessions = &workers.sessions;
        say(&["workers_sessions", &sessions.table, &sessions.id, &sessions.status, &sessions.owner]);
        say(&["workers_ready", &words(&sessions.ready)]);
        if let Some(lease) = &sessions.lease {
            say(&["workers_lease", &lease.expires, &lease.renewed]);
        }
        if let Some(missions) = &workers.missions {
            say(&["workers_missions", &missions.table, &missions.id, &missions.status, &missions.worker]);
            say(&["workers_busy", &words(&missions.busy)]);
        }
        let patience = if force_restart { 0 } else { settings.deploy_drain_timeout.0.as_secs().max(1) };
        say(&["drain_timeout", &patience.to_string()]);
        let session = |id: &Word| say(&["session", id, &workers.unit_of(id), &start_within.to_string()]);
        workers.ids.iter().for_each(session);
    }
    text
}

/// Returns the time that no activation takes: the limits of all its parts, forth and back, and time to move files.
pub fn longest(settings: &Settings, profile: &Profile, facts: &Facts) -> Duration {
    let ready = &settings.deploy_ready_timeout;
    let own = profile.health.iter().map(|health| health.within).chain([profile.units.start_within]);
    let proof = own.map(|own| within(ready, own)).max().unwrap_or_default();
    let units = profile.units();
    // systemd ends what takes longer; a unit without a limit gets as long as one that has a long one.
    let limit = |limit: Option<u64>| limit.unwrap_or(3600);
    let of_systemd = facts.units.iter().filter(|(name, _)| units.contains(name));
    let of_systemd =
        of_systemd.map(|(_, unit)| unit.limits.into_iter().map(limit).sum()).max().unwrap_or(0_u64);
    Duration::from_secs(profile.build.steps.iter().map(|step| step_limit(settings, step).0).sum())
        + settings.deploy_drain_timeout.0 * 3
        + Duration::from_secs(2 * (2 * proof + of_systemd))
        + Duration::from_mins(30)
}

/// Returns how many seconds a build step may take, and where that is set.
fn step_limit(settings: &Settings, step: &Step) -> (u64, &'static str) {
    match step.within {
        Some(within) => (within.seconds(), "`within` of the step in the profile"),
        None => (settings.deploy_build_timeout.0.as_secs().max(1), "`deploy.build_timeout`"),
    }
}

/// What a build step is made from: its inputs, and how it is run. Another command, place or PATH is another step, though
/// it reads the same files.
pub fn digest(profile: &Profile, release: &Release, step: &Step) -> String {
    let outputs: Vec<&str> = step.outputs.iter().map(|output| &**output).collect();
    let dir = step.dir.as_deref().unwrap_or(".");
    let how = [&*step.run, dir, &*profile.build.path, &outputs.join(" ")].join("\n");
    release.digest_of(&step.inputs, &how)
}

/// What an endpoint has to tell after the switch, from what it told before it: `must` tell the commit; may be `silent`, but
/// not tell another one; or may tell `any`. No release is taken back for what the one before it lacked as well, nor for an
/// optional endpoint: one that reads a `.git` beside the app told the right commit by chance until the next deploy.
fn duty(version: &Version, facts: &Facts) -> &'static str {
    match facts.endpoints.get(&*version.name) {
        _ if version.optional => "any",
        Some(told) if told.lacks_the_commit() => "silent",
        _ => "must",
    }
}

/// Where the workers keep their rows: `.env` may name another place than the profile.
fn database(app: &str, workers: &Workers, facts: &Facts) -> String {
    let named = workers.database_key.as_ref().and_then(|key| env_file::last(&facts.env, key));
    match named.map(|assignment| assignment.value.as_str()) {
        Some(path) if path.starts_with('/') && !path.chars().any(char::is_control) => path.to_owned(),
        Some(path) if !path.is_empty() && !path.chars().any(char::is_control) => format!("{app}/{path}"),
        _ => format!("{app}/{}", workers.database),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::survey::Told;
    use crate::tests::settings;

    #[test]
    fn build_step_has_its_own_limit_or_the_setting() {
        let settings = settings("auto");
        let mut profile = Profile::built_in().unwrap();
        profile.build.steps[0].within = Some(toml::Value::from("15m").try_into().unwrap());
        profile.build.steps[1].within = None;
        let (facts, plan) = (Facts::default(), Plan::default());
        let text =
            orders(&settings, &profile, &Release::of(&[("a", "1")]), &facts, &plan, "op@laptop", false);
        let limits: Vec<Vec<&str>> = text
            .lines()
            .filter(|line| line.starts_with("step\t"))
            .map(|line| line.split('\t').skip(4).collect())
            .collect();
        assert_eq!(limits[0], ["900", "`within` of the step in the profile", "uv sync --frozen"]);
        assert_eq!(limits[1][..2], ["1200", "`deploy.build_timeout`"]);
    }

    #[test]
    fn a_unit_is_waited_for_or_has_to_stay_idle() {
        let settings = settings("auto");
        let release = Release::of(&[("a", "1")]);
        let lines = |profile: &Profile| {
            let (facts, plan) = (Facts::default(), Plan::default());
            let text = orders(&settings, profile, &release, &facts, &plan, "op@laptop", false);
            let csi = text.lines().filter(|line| line.contains("csi-ingester"));
            csi.map(str::to_owned).collect::<Vec<_>>()
        };
        let mut profile = Profile::built_in().unwrap();
        assert_eq!(lines(&profile), ["idle\tcsi-ingester.service"]);
        profile.take_in(|_| true);
        assert_eq!(lines(&profile), ["unit\tcsi-ingester.service"]);
    }

    #[test]
    fn version_endpoint_owes_what_it_told_before() {
        let text = |status: &str, commit: Option<&str>, optional| {
            let mut profile = Profile::named("universal-agent-2026-08").unwrap();
            profile.versions[0].optional = optional;
            let told = Told { status: status.to_owned(), commit: commit.map(str::to_owned) };
            let facts = Facts { endpoints: [("gateway".to_owned(), told)].into(), ..Facts::default() };
            duty(&profile.versions[0], &facts)
        };
        for (status, commit, required) in [
            ("200", Some("b"), "must"),
            ("200", None, "silent"),
            ("404", None, "silent"),
            // Nothing ran, so nothing is known of the endpoint.
            ("000", None, "must"),
        ] {
            assert_eq!(text(status, commit, false), required, "{status} {commit:?}");
            assert_eq!(text(status, commit, true), "any", "{status} {commit:?}");
        }
    }

    #[test]
    fn typed_limit_wins_over_profile() {
        use ua_common::profile::Limit;
        use ua_common::settings::value::Limit as Setting;
        use ua_common::settings::{Origin, Sourced};

        let own = Limit::try_from("8m").unwrap();
        let setting = |text: &str, origin| Sourced {
            value: Setting(Duration::from_secs(text.parse().unwrap())),
            origin,
        };
        assert_eq!(within(&setting("60", Origin::Default), Some(own)), 480);
        assert_eq!(within(&setting("60", Origin::Default), None), 60);
        assert_eq!(within(&setting("30", Origin::Flag("--ready-timeout".to_owned())), Some(own)), 30);
    }
}
