//! What a deploy would do, from the commit and from what the VPS looks like. Pure: `run` does exactly this, and the VPS
//! stops before the switch if it is not as it was when this was made.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use ua_common::exit::Exit;
use ua_common::ledger::Push;
use ua_common::output::listed;
use ua_common::report::Check;

use crate::contract::Target;
use crate::orders;
use crate::release::Release;
use crate::survey::{Facts, Unit};
use ua_common::glob;
use ua_common::profile::Profile;

/// Something that is done, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Because {
    /// A build step, or a unit.
    pub what: String,
    /// The reason.
    pub why: String,
}

/// Room that is needed on one file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Room {
    /// Our own directory, or the app's.
    pub dir: String,
    /// What the deploy takes for itself and leaves free, in KiB.
    pub need_kib: u64,
    /// What is free.
    pub free_kib: u64,
}

/// The plan.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// Paths that the release which serves has not.
    pub added: Vec<String>,
    /// Paths that are other in the release which serves.
    pub changed: Vec<String>,
    /// Paths of the release which serves that this one lacks.
    pub deleted: Vec<String>,
    /// What somebody changed on the VPS since; it is overwritten.
    pub drift: Vec<String>,
    /// What was pushed since; those of the commit are overwritten, the others taken away.
    pub pushed: BTreeSet<String>,
    /// Paths that are sent.
    pub upload: BTreeSet<String>,
    /// Build steps that run; the others are left alone.
    pub builds: Vec<Because>,
    /// Units that are restarted.
    pub restarts: Vec<Because>,
    /// Keys of `.env` that are other than when the units were started.
    pub env_keys: Vec<String>,
    /// Room it takes.
    pub room: Vec<Room>,
}

impl Plan {
    /// Plans to put `release` in place.
    pub fn new(profile: &Profile, release: &Release, facts: &Facts) -> Self {
        let new: BTreeMap<&str, String> =
            release.items.iter().map(|item| (item.path.as_str(), item.what.to_string())).collect();
        let mut plan = Self::default();
        let known = facts.known.as_ref();
        if let Some(known) = known {
            plan.drift = known.drift.iter().cloned().collect();
            plan.env_keys.clone_from(&known.env_keys);
            if let Some(put) = &known.put {
                for (path, what) in &new {
                    match put.get(*path) {
                        None => plan.added.push((*path).to_owned()),
                        Some(old) if old != what => plan.changed.push((*path).to_owned()),
                        Some(_) => {}
                    }
                }
                plan.deleted = put.keys().filter(|path| !new.contains_key(path.as_str())).cloned().collect();
            }
        } else {
            plan.added = new.keys().map(ToString::to_string).collect();
        }
        plan.pushed = facts.pushes.iter().flat_map(Push::names).map(str::to_owned).collect();
        let others = plan.drift.iter().chain(&plan.pushed).filter(|path| new.contains_key(path.as_str()));
        plan.upload = plan.added.iter().chain(&plan.changed).chain(others).cloned().collect();
        let extra = plan.pushed.iter().filter(|path| !new.contains_key(path.as_str()));
        let extra: Vec<String> = extra.filter(|path| !plan.deleted.contains(path)).cloned().collect();
        plan.deleted.extend(extra);
        let mut touched: Vec<String> = plan.upload.iter().chain(&plan.deleted).cloned().collect();

        let mut templates = Vec::new();
        for (path, name) in profile.template_names() {
            let digest = new.get(&**path).map(|what| what.split_once('\t').map_or(what.as_str(), |it| it.1));
            if digest != facts.installed.get(name).map(String::as_str) {
                plan.upload.insert(path.to_string());
                templates.push(name);
            }
        }
        for step in &profile.build.steps {
            let why = match known.and_then(|known| known.built.get(&*step.name)) {
                Some(digest) if *digest == orders::digest(profile, release, step) => continue,
                Some(_) => "its inputs changed",
                None if known.is_some() => "what it made is gone, or it never ran",
                None => "nobody knows what was built last",
            };
            touched.extend(step.outputs.iter().map(ToString::to_string));
            plan.builds.push(Because { what: step.name.to_string(), why: why.to_owned() });
        }
        // A build is made from the commit, also where the server has a version of its own.
        if !plan.builds.is_empty() {
            let written = new.keys().filter(|path| glob::any(&profile.source.preserve, path));
            plan.upload.extend(written.map(ToString::to_string));
        }
        for unit in profile.units() {
            if let Some(why) = plan.reason(profile, facts, &unit, &touched, &templates) {
                plan.restarts.push(Because { what: unit, why });
            }
        }
        plan.room = room(profile, release, facts, &plan);
        plan
    }

    /// Why a unit has to be restarted.
    fn reason(
        &self,
        profile: &Profile,
        facts: &Facts,
        unit: &str,
        touched: &[String],
        templates: &[&str],
    ) -> Option<String> {
        let Some(known) = &facts.known else { return Some("nobody knows what it runs".to_owned()) };
        let template = unit.split_once('@').map(|(name, _)| format!("{name}@.service"));
        if templates.iter().any(|name| *name == unit || Some(*name) == template.as_deref()) {
            return Some("its unit file changed".to_owned());
        }
        let seen = facts.units.get(unit).cloned().unwrap_or_default();
        let own = touched.iter().find(|path| seen.inputs.iter().any(|input| overlap(input, path)));
        if let Some(path) = own {
            return Some(format!("{path} changed, which its unit names"));
        }
        let (known_paths, unknown): (Vec<&String>, Vec<&String>) =
            touched.iter().filter(|path| profile.restarts(unit, path)).partition(|path| profile.names(path));
        let changed = |paths: &[&String]| match paths {
            [] => None,
            [path] => Some(format!("{path} changed")),
            [path, more @ ..] => Some(format!("{path} and {} more changed", more.len())),
        };
        if let Some(why) = changed(&known_paths) {
            return Some(why);
        }
        if let Some(why) = changed(&unknown) {
            return Some(format!("{why}, and the profile does not say which unit reads that"));
        }
        if !seen.stale.is_empty() {
            let files: Vec<String> = seen.stale.iter().cloned().collect();
            return Some(format!("its environment file changed: {}", listed(&files)));
        }
        if !self.env_keys.is_empty() {
            return Some(format!("`.env`: {}", listed(&self.env_keys)));
        }
        if !known.runs.contains_key(unit) {
            return Some("nobody knows what it runs".to_owned());
        }
        let Unit { active, restarts, age, .. } = seen;
        if active != "active" {
            return Some(format!("it is {}", if active.is_empty() { "unknown to systemd" } else { &active }));
        }
        // Between two crashes it is active as well.
        (restarts > 0 && age < u64::from(profile.units.stable_seconds))
            .then(|| format!("systemd started it again {age} s ago"))
    }

    /// The same, but every unit is restarted.
    #[must_use]
    pub fn restarting_all(mut self, profile: &Profile, why: &str) -> Self {
        let all = profile.units().into_iter();
        self.restarts = all.map(|what| Because { what, why: why.to_owned() }).collect();
        self
    }

    /// Is everything as it should be already?
    pub fn is_empty(&self) -> bool {
        self.upload.is_empty()
            && self.deleted.is_empty()
            && self.builds.is_empty()
            && self.restarts.is_empty()
    }

    /// Is there room for all of it?
    pub fn space(&self, target: Target<'_>) -> Check {
        let id = "contract.space";
        let mib = |kib: u64| kib.div_ceil(1024);
        let short: Vec<String> = self
            .room
            .iter()
            .filter(|room| room.free_kib < room.need_kib)
            .map(|room| {
                format!(
                    "only {} MiB free under `{}`; a deploy needs {} MiB",
                    room.free_kib / 1024,
                    room.dir,
                    mib(room.need_kib)
                )
            })
            .collect();
        if short.is_empty() {
            let told: Vec<String> = self
                .room
                .iter()
                .map(|room| {
                    format!(
                        "`{}` has {} MiB free, {} are needed",
                        room.dir,
                        room.free_kib / 1024,
                        mib(room.need_kib)
                    )
                })
                .collect();
            return Check::pass(id, told.join("; "));
        }
        Check::fail(id, Exit::Contract, short.join("; "))
            .hint(format!("ssh {} 'df -h; du -xsh /var/* /opt/*'", target.ssh))
    }
}

/// Is one of two paths the other one, or a directory above it?
fn overlap(a: &str, b: &str) -> bool {
    let (short, long) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    long.strip_prefix(short).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// What is sent lies there twice for a while, and so does what it replaces; a build has a tree of its own.
fn room(profile: &Profile, release: &Release, facts: &Facts, plan: &Plan) -> Vec<Room> {
    let kib = |bytes: u64| bytes.div_ceil(1024);
    let sent = kib(release.size_of(&plan.upload));
    let made: u64 =
        plan.builds.iter().map(|build| facts.sizes.get(&build.what).copied().unwrap_or_default()).sum();
    let built = if plan.builds.is_empty() { 0 } else { kib(release.bytes) + made };
    let spare = profile.source.free_mib * 1024;
    // Our own directory comes first: the upload, the build, and what is kept of the old release. The app's gets what
    // is sent, and outputs that cannot be renamed into it.
    let mut rooms: Vec<(String, Room)> = Vec::new();
    for (free, need) in facts.free.iter().zip([2 * sent + built, sent + made]) {
        if let Some((_, room)) = rooms.iter_mut().find(|(device, _)| *device == free.device) {
            room.need_kib += need;
        } else {
            let room = Room { dir: free.dir.clone(), need_kib: spare + need, free_kib: free.kib };
            rooms.push((free.device.clone(), room));
        }
    }
    rooms.into_iter().map(|(_, room)| room).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::survey::{Free, Known};

    const TEMPLATE: &str = "deployment/systemd/universal-agent-vp-worker@.service";
    const INSTALLED: &str = "universal-agent-vp-worker@.service";

    const MEMORY: &str = "Memory_System/ua_shared_workspace/MEMORY.md";

    const TREE: [(&str, &str); 6] = [
        (MEMORY, "1"),
        (TEMPLATE, "t"),
        ("docs/a.md", "1"),
        ("pyproject.toml", "1"),
        ("src/universal_agent/api.py", "1"),
        ("web-ui/app/page.mjs", "1"),
    ];

    /// A VPS on which `TREE` serves and nothing is wrong.
    fn facts(profile: &Profile) -> Facts {
        let old = Release::of(&TREE);
        let steps = profile.build.steps.iter();
        let built = steps.map(|step| (step.name.to_string(), orders::digest(profile, &old, step))).collect();
        let put = old.items.iter().map(|item| (item.path.clone(), item.what.to_string())).collect();
        let runs = profile.units().into_iter().map(|unit| (unit, "old".to_owned())).collect();
        let (load, active) = ("loaded".to_owned(), "active".to_owned());
        let up = Unit { load, active, age: 900, ..Unit::default() };
        Facts {
            units: profile.units().into_iter().map(|unit| (unit, up.clone())).collect(),
            installed: [(INSTALLED.to_owned(), "t".to_owned())].into(),
            known: Some(Known { put: Some(put), built, runs, ..Known::default() }),
            free: vec![Free { dir: "/var/lib".to_owned(), kib: 1 << 30, device: "1".to_owned() }],
            ..Facts::default()
        }
    }

    fn with(path: &str, digest: &str) -> Release {
        let mut tree = TREE.to_vec();
        tree.retain(|(known, _)| *known != path);
        if !digest.is_empty() {
            tree.push((path, digest));
        }
        tree.sort_unstable();
        Release::of(&tree)
    }

    fn restarted(plan: &Plan) -> Vec<&str> {
        plan.restarts.iter().map(|it| it.what.trim_start_matches("universal-agent-")).collect()
    }

    const PYTHON: [&str; 5] = [
        "gateway.service",
        "api.service",
        "telegram.service",
        "vp-worker@vp.general.primary.service",
        "vp-worker@vp.coder.primary.service",
    ];

    #[test]
    fn p53_what_serves_already_needs_nothing() {
        let profile = Profile::built_in().unwrap();
        let plan = Plan::new(&profile, &Release::of(&TREE), &facts(&profile));
        assert!(plan.is_empty(), "{plan:?}");
        // The VPS says so without sending its list.
        let mut same = facts(&profile);
        same.known.as_mut().unwrap().put = None;
        assert_eq!(Plan::new(&profile, &Release::of(&TREE), &same), plan);
    }

    #[test]
    fn p36_only_what_a_change_needs_is_sent_built_and_restarted() {
        let profile = Profile::built_in().unwrap();
        let facts = facts(&profile);
        let plan = |release: &Release| Plan::new(&profile, release, &facts);
        for (path, digest, builds, restarts) in [
            ("docs/a.md", "2", vec![], vec![]),
            ("docs/b.md", "1", vec![], vec![]),
            ("docs/a.md", "", vec![], vec![]),
            ("tests/test_api.py", "2", vec![], vec![]),
            ("scripts/probe.py", "2", vec![], vec![]),
            ("scripts/start_vp_worker.sh", "2", vec![], PYTHON[3..].to_vec()),
            ("webhook_transforms/hook.py", "2", vec![], PYTHON.to_vec()),
            ("src/universal_agent/api.py", "2", vec![], PYTHON.to_vec()),
            ("src/universal_agent/api.py", "", vec![], PYTHON.to_vec()),
            ("pyproject.toml", "2", vec!["python"], PYTHON.to_vec()),
            ("web-ui/app/page.mjs", "2", vec!["web-ui"], vec!["webui.service"]),
            (TEMPLATE, "u", vec![], PYTHON[3..].to_vec()),
        ] {
            let plan = plan(&with(path, digest));
            let built: Vec<&str> = plan.builds.iter().map(|it| it.what.as_str()).collect();
            assert_eq!((built, restarted(&plan)), (builds, restarts), "{path}");
            let sent: Vec<&str> = plan.upload.iter().map(String::as_str).collect();
            let memory = [MEMORY].into_iter().filter(|_| !plan.builds.is_empty());
            let wanted: Vec<&str> = memory.chain([path].into_iter().filter(|_| !digest.is_empty())).collect();
            assert_eq!(sent, wanted, "{path}");
            assert!(!plan.is_empty());
        }
    }

    #[test]
    fn unnamed_path_restarts_every_unit() {
        let profile = Profile::built_in().unwrap();
        let plan = Plan::new(&profile, &with("prompts/system.txt", "1"), &facts(&profile));
        assert_eq!(plan.restarts.len(), profile.units().len());
        let why = "prompts/system.txt changed, and the profile does not say which unit reads that";
        assert!(plan.restarts.iter().all(|it| it.why == why), "{:?}", plan.restarts);
    }

    #[test]
    fn paths_that_unit_file_names_restart_it() {
        let profile = Profile::built_in().unwrap();
        let unit = "universal-agent-telegram.service";
        let seen = |input: &str, stale: &[&str]| {
            let mut facts = facts(&profile);
            let unit = facts.units.get_mut(unit).unwrap();
            unit.inputs.insert(input.to_owned());
            unit.stale = stale.iter().map(|file| (*file).to_owned()).collect();
            facts
        };
        let reasons = |facts: &Facts, path: &str| {
            let plan = Plan::new(&profile, &with(path, "2"), facts);
            plan.restarts.into_iter().map(|it| (it.what, it.why)).collect::<Vec<_>>()
        };
        for (input, path, read) in [
            ("scripts/bot.sh", "scripts/bot.sh", true),
            ("docs/bot", "docs/bot/words.txt", true),
            ("docs/bot", "docs/bottom.txt", false),
        ] {
            let why = (unit.to_owned(), format!("{path} changed, which its unit names"));
            let expected = if read { vec![why] } else { vec![] };
            assert_eq!(reasons(&seen(input, &[]), path), expected, "{input} {path}");
        }
        let why = "its environment file changed: bot.env".to_owned();
        assert_eq!(reasons(&seen("bot.env", &["bot.env"]), "docs/a.md"), [(unit.to_owned(), why)]);
    }

    #[test]
    fn an_optional_unit_is_planned_for_like_the_others_where_it_takes_part() {
        let csi = "CSI_Ingester/development/app.py";
        let absent = Profile::built_in().unwrap();
        let plan = Plan::new(&absent, &with(csi, "1"), &facts(&absent));
        assert_eq!((plan.upload.len(), restarted(&plan)), (1, vec![]));
        let mut there = absent.clone();
        there.take_in(|_| true);
        let mut seen = facts(&there);
        let plan = |release: &Release, seen: &Facts| Plan::new(&there, release, seen);
        assert_eq!(restarted(&plan(&with(csi, "1"), &seen)), ["csi-ingester.service"]);
        assert!(plan(&Release::of(&TREE), &seen).is_empty());
        // It was started after the last deploy, which so knows nothing of it.
        seen.known.as_mut().unwrap().runs.remove("csi-ingester.service");
        let plan = plan(&Release::of(&TREE), &seen);
        assert_eq!(restarted(&plan), ["csi-ingester.service"]);
        assert_eq!(plan.restarts[0].why, "nobody knows what it runs");
    }

    #[test]
    fn each_restart_says_why() {
        let profile = Profile::built_in().unwrap();
        let why = |release: &Release, facts: &Facts, unit: usize| {
            Plan::new(&profile, release, facts).restarts[unit].why.clone()
        };
        let same = Release::of(&TREE);
        assert_eq!(
            why(&with("src/universal_agent/api.py", "2"), &facts(&profile), 0),
            "src/universal_agent/api.py changed"
        );
        assert_eq!(
            why(&with("pyproject.toml", "2"), &facts(&profile), 0),
            "pyproject.toml and 1 more changed"
        );
        assert_eq!(why(&with(TEMPLATE, "u"), &facts(&profile), 0), "its unit file changed");
        let mut hand_edited = facts(&profile);
        hand_edited.installed.insert(INSTALLED.to_owned(), "x".to_owned());
        assert_eq!(why(&same, &hand_edited, 0), "its unit file changed");
        let mut crashing = facts(&profile);
        let unit = crashing.units.get_mut("universal-agent-api.service").unwrap();
        (unit.restarts, unit.age) = (7, 2);
        assert_eq!(why(&same, &crashing, 0), "systemd started it again 2 s ago");
        crashing.units.get_mut("universal-agent-api.service").unwrap().active = "failed".to_owned();
        assert_eq!(why(&same, &crashing, 0), "it is failed");
        let mut env = facts(&profile);
        env.known.as_mut().unwrap().env_keys = vec!["UA_OPS_TOKEN changed".to_owned()];
        assert_eq!(why(&same, &env, 5), "`.env`: UA_OPS_TOKEN changed");
        let mut unknown = facts(&profile);
        unknown.known = None;
        let plan = Plan::new(&profile, &same, &unknown);
        assert_eq!((plan.upload.len(), plan.builds.len(), plan.restarts.len()), (6, 2, 6));
        assert_eq!(plan.restarts[0].why, "nobody knows what it runs");
    }

    #[test]
    fn drift_is_sent_again_and_restarts_what_read_it() {
        let profile = Profile::built_in().unwrap();
        let mut facts = facts(&profile);
        let known = facts.known.as_mut().unwrap();
        known.drift = ["docs/gone-since.md", "web-ui/app/page.mjs"].map(str::to_owned).into();
        let plan = Plan::new(&profile, &Release::of(&TREE), &facts);
        assert_eq!(plan.upload, ["web-ui/app/page.mjs".to_owned()].into());
        assert_eq!(restarted(&plan), ["webui.service"]);
    }

    #[test]
    fn a_push_is_overwritten_or_taken_away_and_restarts_what_read_it() {
        let profile = Profile::built_in().unwrap();
        let mut facts = facts(&profile);
        let paths = [MEMORY, "src/universal_agent/api.py", "web-ui/app/extra.mjs"];
        let paths = paths.map(|path| format!("f\tdigest\t{path}")).into();
        facts.pushes = vec![Push { paths, ..Push::default() }];
        let plan = Plan::new(&profile, &Release::of(&TREE), &facts);
        // Even where the content is the commit's again, and where the server may write: units may run what was pushed.
        assert_eq!(plan.upload, [MEMORY, "src/universal_agent/api.py"].map(str::to_owned).into());
        assert_eq!(plan.deleted, ["web-ui/app/extra.mjs"]);
        assert_eq!(restarted(&plan).len(), 6);
        // What no unit reads is settled all the same.
        facts.pushes[0].paths = vec!["f\tdigest\tdocs/x.md".to_owned()];
        let plan = Plan::new(&profile, &Release::of(&TREE), &facts);
        assert!(plan.restarts.is_empty() && plan.upload.is_empty() && !plan.is_empty(), "{plan:?}");
    }

    #[test]
    fn room_is_counted_for_each_file_system() {
        let profile = Profile::built_in().unwrap();
        let mut facts = facts(&profile);
        facts.sizes.insert("web-ui".to_owned(), 10 << 20);
        let release = with("web-ui/app/page.mjs", "2");
        let target = Target { ssh: "root@vps", app: "/opt/app" };
        let free =
            |dir: &str, kib: u64, device: &str| Free { dir: dir.to_owned(), kib, device: device.to_owned() };
        facts.free = vec![free("/var/lib", 21 << 20, "1"), free("/opt", 21 << 20, "1")];
        let check = Plan::new(&profile, &release, &facts).space(target);
        assert!(check.detail.contains("20992 are needed"), "{check:?}");
        assert_eq!(check.exit, Exit::Ok, "{check:?}");
        facts.free = vec![free("/var/lib", 11 << 20, "1"), free("/opt", 1 << 20, "2")];
        let check = Plan::new(&profile, &release, &facts).space(target);
        assert_eq!(check.exit, Exit::Contract);
        assert!(check.detail.contains("only 1024 MiB free under `/opt`"), "{check:?}");
    }
}
