//! Does the VPS meet the contract of a deploy? Pure: facts in, checks out. Names are told, values never.

use std::collections::{BTreeMap, BTreeSet};

use ua_common::env_contract;
use ua_common::exit::Exit;
use ua_common::report::Check;

use crate::counted;
use crate::survey::{Facts, VersionAnswer};
use ua_common::profile::{Profile, VersionNumber};

pub use ua_common::env_contract::Target;

/// Every promise, kept or not.
pub fn judge(profile: &Profile, facts: &Facts, target: Target<'_>) -> Vec<Check> {
    let mut checks = vec![
        login(profile, facts, target),
        app_dir(profile, facts, target),
        programs(profile, facts, target),
        units(profile, facts, target),
        env_keys(profile, facts, target),
    ];
    checks.extend(env_owner(profile, facts, target));
    checks
}

fn broken(id: &'static str, detail: String, hint: String) -> Check {
    Check::fail(id, Exit::Contract, detail).hint(hint)
}

fn login(profile: &Profile, facts: &Facts, target: Target<'_>) -> Check {
    let id = "contract.user";
    let (user, group) = (&*profile.owner.user, &*profile.owner.group);
    if facts.uid != "0" {
        let detail = format!("`{}` is not root there (user id {})", target.ssh, facts.uid);
        return broken(
            id,
            detail,
            format!("ua-deploy --host root@{}", target.ssh.rsplit('@').next().unwrap_or_default()),
        );
    }
    if !facts.user || !facts.group {
        let what = if facts.user { format!("group `{group}`") } else { format!("user `{user}`") };
        let make = format!("useradd --system --user-group --create-home {user}");
        return broken(id, format!("there is no {what}"), format!("ssh {} '{make}'", target.ssh));
    }
    Check::pass(id, format!("`{user}:{group}` is there"))
}

fn app_dir(profile: &Profile, facts: &Facts, target: Target<'_>) -> Check {
    let id = "contract.app_dir";
    let app = target.app;
    let what = match facts.app.as_str() {
        "dir" => return Check::pass(id, format!("`{app}` is a directory")),
        "missing" => "does not exist",
        "link" => "is a symbolic link, which root does not follow",
        _ => "is not a directory",
    };
    let (user, group) = (&profile.owner.user, &profile.owner.group);
    broken(
        id,
        format!("`{app}` {what}"),
        format!("ssh {} 'install -d -o {user} -g {group} {app}'", target.ssh),
    )
}

fn programs(profile: &Profile, facts: &Facts, target: Target<'_>) -> Check {
    let id = "contract.programs";
    let wanted = profile.programs();
    let found = |map: &BTreeMap<String, Option<String>>, name: &str| map.get(name).cloned().flatten();
    let (mut missing, mut unfit) = (BTreeSet::new(), BTreeMap::new());
    for (name, at_least) in &wanted {
        let Some(path) = found(&facts.programs, name) else {
            missing.insert(*name);
            continue;
        };
        let complaint =
            at_least.and_then(|at_least| version_complaint(name, &path, at_least, facts.versions.get(*name)));
        unfit.extend(complaint.map(|complaint| (*name, complaint)));
    }
    missing.extend(profile.tools().into_iter().filter(|name| found(&facts.tools, name).is_none()));
    if missing.is_empty() && unfit.is_empty() {
        let versions: Vec<String> = wanted
            .iter()
            .filter_map(|(name, at_least)| {
                at_least
                    .and(VersionNumber::find(&facts.versions.get(*name)?.output))
                    .map(|it| format!("{name} {it}"))
            })
            .collect();
        let shown = if versions.is_empty() { String::new() } else { format!(" ({})", versions.join(", ")) };
        return Check::pass(id, format!("every program of the build and of the deploy is there{shown}"));
    }
    let mut details = Vec::new();
    if !missing.is_empty() {
        let names = missing.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        details
            .push(format!("missing on the VPS: {names} (looked in {} for the build)", &*profile.build.path));
    }
    details.extend(unfit.values().cloned());
    let mut commands: Vec<String> = Vec::new();
    for name in missing.iter().chain(unfit.keys()) {
        let command = install(profile, name);
        if !commands.contains(&command) {
            commands.push(command);
        }
    }
    broken(id, details.join("; "), format!("ssh {} '{}'", target.ssh, commands.join(" && ")))
}

/// What is wrong with the version of a program that is there.
fn version_complaint(
    name: &str,
    path: &str,
    at_least: &VersionNumber,
    answer: Option<&VersionAnswer>,
) -> Option<String> {
    let asked = format!("`{name} --version` (`{path}`)");
    let Some(VersionAnswer { code, output }) = answer else {
        return Some(format!("{asked} was not asked"));
    };
    let printed = if output.is_empty() { "nothing".to_owned() } else { format!("`{output}`") };
    if code != "000" {
        // `timeout` ends with 124, or with 137 where the program had to be killed.
        let how = match code.trim_start_matches('0') {
            "124" | "137" => "did not end in time".to_owned(),
            code => format!("failed (code {code})"),
        };
        return Some(format!("{asked} {how}, and printed {printed}"));
    }
    match VersionNumber::find(output) {
        None => Some(format!("{asked} told no version: it printed {printed}")),
        Some(version) if version < *at_least => {
            Some(format!("`{name}` (`{path}`) is {version}, but {at_least} or newer is needed"))
        }
        Some(_) => None,
    }
}

/// The command that installs a program.
fn install(profile: &Profile, program: &str) -> String {
    let own =
        profile.install.iter().find(|(name, _)| &***name == program).map(|(_, command)| command.to_string());
    own.unwrap_or_else(|| {
        let package = match program {
            "flock" | "systemctl" | "systemd-run" => "util-linux systemd",
            "sha256sum" => "coreutils",
            "xargs" => "findutils",
            "awk" => "mawk",
            other => other,
        };
        format!("apt-get install -y {package}")
    })
}

fn units(profile: &Profile, facts: &Facts, target: Target<'_>) -> Check {
    let id = "contract.units";
    let all = profile.units();
    let known = |unit: &&String| facts.units.get(*unit).is_some_and(|unit| unit.load == "loaded");
    let missing: Vec<&str> =
        all.iter().filter(|unit| !known(unit) && !profile.brought_along(unit)).map(String::as_str).collect();
    if missing.is_empty() {
        let units = counted(all.len(), "unit", "units");
        return Check::pass(id, format!("systemd knows the {units}, or the commit brings them"));
    }
    let detail = format!("systemd does not know `{}`", missing.join("`, `"));
    broken(id, detail, format!("ssh {} 'systemctl status {}'", target.ssh, missing.join(" ")))
}

/// Optional units that the VPS has and that take no part: by now those that run are units like the others.
pub fn optional(profile: &Profile, facts: &Facts) -> Vec<Check> {
    let id = "units.optional";
    let there = profile.optional_units().into_iter().filter_map(|name| {
        let unit = facts.units.get(&name).filter(|unit| unit.is_there())?;
        let (active, name) = (&unit.active, name.trim_end_matches(".service"));
        if active == "inactive" {
            return Some(Check::skip(id, format!("`{name}` is stopped, and left as it is")));
        }
        let load = if unit.load == "loaded" { String::new() } else { format!(" and {}", unit.load) };
        let detail = format!("`{name}` is {active}{load}, so it is left as it is, whatever changes");
        Some(Check::warn(id, detail).hint(format!("ua-vpsctl logs {name} -n 50")))
    });
    there.collect()
}

/// Endpoints of the profile that do not tell the commit, as far as something answers there.
pub fn versions(profile: &Profile, facts: &Facts) -> Vec<Check> {
    let id = "versions";
    let lacking = profile.versions.iter().filter_map(|version| {
        let told = facts.endpoints.get(&*version.name).filter(|told| told.lacks_the_commit())?;
        let (name, url, field) = (&*version.name, &*version.url, &*version.field);
        let what =
            if told.status == "200" { format!("has no `{field}`") } else { format!("is {}", told.status) };
        let detail = format!("`{name}` does not tell its commit: the answer of {url} {what}");
        if version.optional {
            return Some(Check::skip(id, detail));
        }
        let hint =
            format!("set `optional = true` for `{name}` in [[versions]] of the profile, or remove it there");
        Some(Check::warn(id, detail).hint(hint))
    });
    lacking.collect()
}

fn env_owner(profile: &Profile, facts: &Facts, target: Target<'_>) -> Option<Check> {
    let (owner, mode) = facts.env_file.as_ref()?;
    if *owner == *profile.env.owner && *mode == *profile.env.mode {
        return None;
    }
    let file = format!("{}/{}", target.app, profile.env.file);
    let (want_owner, want_mode) = (&profile.env.owner, &profile.env.mode);
    let detail = format!("`{file}` is {owner} {mode}, not {want_owner} {want_mode}");
    Some(Check::warn("contract.env_owner", detail).hint("ua-vpsctl fix-perms"))
}

fn env_keys(profile: &Profile, facts: &Facts, target: Target<'_>) -> Check {
    let id = "contract.env";
    if facts.env_file.is_none() {
        let detail = format!("`{}/{}` is not there, or is not a file", target.app, profile.env.file);
        return broken(id, detail, target.edit(profile));
    }
    env_contract::judge(id, target, profile, &facts.env, facts.env_failure.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::survey::{Told, Unit};
    use ua_common::profile::Word;
    use ua_common::report::Verdict;

    #[test]
    fn p24_a_missing_program_is_31_with_the_command_that_installs_it() {
        let profile = Profile::built_in().unwrap();
        let target = Target { ssh: "root@vps", app: "/opt/universal_agent" };
        let there = |name: &str| (name.to_owned(), Some(format!("/usr/bin/{name}")));
        let mut facts = Facts {
            programs: profile.programs().keys().map(|name| there(name)).collect(),
            versions: [answer("node", "000", "v22.21.0")].into(),
            tools: profile.tools().iter().map(|name| there(name)).collect(),
            ..Facts::default()
        };
        assert_eq!(programs(&profile, &facts, target).exit, Exit::Ok);
        facts.programs.insert("npm".to_owned(), None);
        let check = programs(&profile, &facts, target);
        assert_eq!(check.exit, Exit::Contract);
        assert!(check.detail.contains("npm") && check.hint.unwrap().contains("apt-get install -y nodejs"));
    }

    fn answer(name: &str, code: &str, output: &str) -> (String, VersionAnswer) {
        (name.to_owned(), VersionAnswer { code: code.to_owned(), output: output.to_owned() })
    }

    #[test]
    fn old_program_is_31_with_the_install_command() {
        let profile = Profile::built_in().unwrap();
        let target = Target { ssh: "root@vps", app: "/opt/universal_agent" };
        let there = |name: &str| (name.to_owned(), Some(format!("/usr/bin/{name}")));
        let judged = |versions: &[(String, VersionAnswer)]| {
            let facts = Facts {
                programs: profile.programs().keys().map(|name| there(name)).collect(),
                tools: profile.tools().iter().map(|name| there(name)).collect(),
                versions: versions.iter().cloned().collect(),
                ..Facts::default()
            };
            programs(&profile, &facts, target)
        };
        for (output, version) in [("v20.9.0", "20.9.0"), ("v24.11.1", "24.11.1")] {
            let check = judged(&[answer("node", "000", output)]);
            assert_eq!(check.exit, Exit::Ok, "{check:?}");
            assert!(check.detail.ends_with(&format!("(node {version})")), "{check:?}");
        }
        for (code, output, why) in [
            ("000", "v18.20.4", "`node` (`/usr/bin/node`) is 18.20.4, but 20.9 or newer is needed"),
            ("000", "v20.8.1", "`node` (`/usr/bin/node`) is 20.8.1, but 20.9 or newer is needed"),
            ("000", "node!", "`node --version` (`/usr/bin/node`) told no version: it printed `node!`"),
            ("000", "", "`node --version` (`/usr/bin/node`) told no version: it printed nothing"),
            (
                "126",
                "denied 22.1",
                "`node --version` (`/usr/bin/node`) failed (code 126), and printed `denied 22.1`",
            ),
            ("124", "", "`node --version` (`/usr/bin/node`) did not end in time, and printed nothing"),
        ] {
            let check = judged(&[answer("node", code, output)]);
            assert_eq!((check.exit, check.detail.as_str()), (Exit::Contract, why));
            assert_eq!(
                check.hint.unwrap(),
                format!("ssh root@vps '{}'", &*profile.install[&Word::try_from("node".to_owned()).unwrap()])
            );
        }
        assert_eq!(judged(&[]).exit, Exit::Contract, "silence is no pass");
    }

    #[test]
    fn only_an_optional_unit_that_runs_takes_part() {
        let csi = "csi-ingester.service";
        for (load, active, part, said) in [
            ("loaded", "active", true, ""),
            ("not-found", "inactive", false, ""),
            ("", "", false, ""),
            ("loaded", "inactive", false, "Skip `csi-ingester` is stopped, and left as it is"),
            ("masked", "inactive", false, "Skip `csi-ingester` is stopped, and left as it is"),
            (
                "loaded",
                "failed",
                false,
                "Warn `csi-ingester` is failed, so it is left as it is, whatever changes",
            ),
            (
                "loaded",
                "activating",
                false,
                "Warn `csi-ingester` is activating, so it is left as it is, whatever changes",
            ),
            (
                "not-found",
                "active",
                false,
                "Warn `csi-ingester` is active and not-found, so it is left as it is, whatever changes",
            ),
        ] {
            let unit = Unit { load: load.to_owned(), active: active.to_owned(), ..Unit::default() };
            let facts = Facts { units: [(csi.to_owned(), unit)].into(), ..Facts::default() };
            let mut profile = Profile::built_in().unwrap();
            profile.take_in(|unit| facts.units[unit].runs());
            assert_eq!(profile.units().contains(&csi.to_owned()), part, "{load} {active}");
            let checks = optional(&profile, &facts);
            let told: Vec<String> =
                checks.iter().map(|it| format!("{:?} {}", it.verdict, it.detail)).collect();
            assert_eq!((told.concat().as_str(), checks.iter().all(|it| it.exit == Exit::Ok)), (said, true));
        }
    }

    #[test]
    fn missing_version_endpoint_is_one_warning() {
        let mut profile = Profile::named("universal-agent-2026-08").unwrap();
        let checked = |profile: &Profile, status: &str, commit: Option<&str>| {
            let told = Told { status: status.to_owned(), commit: commit.map(str::to_owned) };
            let facts = Facts { endpoints: [("gateway".to_owned(), told)].into(), ..Facts::default() };
            versions(profile, &facts).into_iter().map(|it| (it.verdict, it.detail)).collect::<Vec<_>>()
        };
        let url = "http://127.0.0.1:8002/api/v1/version";
        let detail = |what: &str| format!("`gateway` does not tell its commit: the answer of {url} {what}");
        assert_eq!(checked(&profile, "404", None), [(Verdict::Skip, detail("is 404"))]);
        profile.versions[0].optional = false;
        assert_eq!(checked(&profile, "404", None), [(Verdict::Warn, detail("is 404"))]);
        assert_eq!(checked(&profile, "200", None), [(Verdict::Warn, detail("has no `commit_sha`"))]);
        assert_eq!(checked(&profile, "200", Some("abc")), []);
        assert_eq!(checked(&profile, "000", None), []);
    }
}
