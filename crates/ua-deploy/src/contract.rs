//! Does the VPS meet the contract of a deploy? Pure: facts in, checks out. Names are told, values never.

use ua_common::env_contract;
use ua_common::exit::Exit;
use ua_common::report::Check;

use crate::counted;
use crate::survey::Facts;
use ua_common::profile::Profile;

/// Where the app is, for hints that can be pasted.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// `user@name`.
    pub ssh: &'a str,
    /// The app's directory.
    pub app: &'a str,
}

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
    let absent = |map: &std::collections::BTreeMap<String, Option<String>>, name: &str| {
        !matches!(map.get(name), Some(Some(_)))
    };
    let mut missing: Vec<&str> = profile.programs();
    missing.retain(|name| absent(&facts.programs, name));
    missing.extend(profile.tools().into_iter().filter(|name| absent(&facts.tools, name)));
    missing.sort_unstable();
    missing.dedup();
    if missing.is_empty() {
        return Check::pass(id, "every program of the build and of the deploy is there");
    }
    let mut commands: Vec<String> = missing.iter().map(|name| install(profile, name)).collect();
    commands.dedup();
    let names = missing.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    broken(
        id,
        format!("missing on the VPS: {names} (looked in {} for the build)", &*profile.build.path),
        format!("ssh {} '{}'", target.ssh, commands.join(" && ")),
    )
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
        let told = facts.versions.get(&*version.name).filter(|told| told.lacks_the_commit())?;
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
    let file = format!("{}/{}", target.app, profile.env.file);
    let hint = env_contract::edit(target.ssh, &file);
    if facts.env_file.is_none() {
        return broken(id, format!("`{file}` is not there, or is not a file"), hint);
    }
    env_contract::judge(id, &file, &profile.env.keys, &facts.env, hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::survey::{Told, Unit};
    use ua_common::report::Verdict;

    #[test]
    fn p24_a_missing_program_is_31_with_the_command_that_installs_it() {
        let profile = Profile::built_in().unwrap();
        let target = Target { ssh: "root@vps", app: "/opt/universal_agent" };
        let there = |name: &str| (name.to_owned(), Some(format!("/usr/bin/{name}")));
        let mut facts = Facts {
            programs: profile.programs().iter().map(|name| there(name)).collect(),
            tools: profile.tools().iter().map(|name| there(name)).collect(),
            ..Facts::default()
        };
        assert_eq!(programs(&profile, &facts, target).exit, Exit::Ok);
        facts.programs.insert("npm".to_owned(), None);
        let check = programs(&profile, &facts, target);
        assert_eq!(check.exit, Exit::Contract);
        assert!(
            check.detail.contains("npm") && check.hint.unwrap().contains("apt-get install -y nodejs npm")
        );
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
            let facts = Facts { versions: [("gateway".to_owned(), told)].into(), ..Facts::default() };
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
