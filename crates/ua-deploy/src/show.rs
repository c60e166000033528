//! The plan as it is told: `would …` lines for a person, and the same as data. Nothing here changes anything.

use std::collections::BTreeSet;

use serde_json::json;
use ua_common::cli::Context;
use ua_common::output::listed;
use ua_common::profile::Profile;
use ua_common::report::{Check, Report};
use ua_common::settings::Settings;
use ua_common::tool::git::{Between, GitError, Repo};
use ua_staging::View;

use crate::history::Record;
use crate::plan::Plan;
use crate::remote::STATE;
use crate::survey::Facts;
use crate::{Wish, counted};

/// So many commits are named one by one.
const NAMED: usize = 10;

/// Everything that the plan is told from.
pub struct Shown<'a> {
    /// What was asked for.
    pub wish: &'a Wish,
    /// The settings.
    pub settings: &'a Settings,
    /// What the VPS looked like.
    pub facts: &'a Facts,
    /// What there is to do.
    pub plan: &'a Plan,
    /// The staging routes, where they are part of it.
    pub staging: Option<&'a View>,
    /// The deploy that serves, if it is the very commit and was found right: then there is nothing to ship.
    pub unchanged: Option<&'a Record>,
}

/// What lies between the commit that serves and the one that is shipped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Since {
    /// From the one that serves to the one that is shipped.
    forth: Between,
    /// Commits that only the one that serves has, newest first.
    back: Vec<String>,
}

impl Since {
    fn of(repo: &Repo, serving: &str, shipped: &str) -> Result<Self, GitError> {
        let forth = repo.between(serving, shipped)?;
        let back = repo.between(shipped, serving)?.commits;
        Ok(Self { forth, back })
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (verb, commits) in [("bring", &self.forth.commits), ("take back", &self.back)] {
            if !commits.is_empty() {
                lines.push(format!("{verb} {}", counted(commits.len(), "commit", "commits")));
                lines.extend(commits.iter().take(NAMED).map(|commit| format!("{verb} {commit}")));
            }
        }
        lines
    }
}

impl Shown<'_> {
    /// Prints the plan and puts it into the report.
    pub fn report(&self, context: &Context, vps: &mut Report) {
        let lines = self.lines(self.since(context, vps).as_ref());
        if !context.out.is_json() {
            for line in &lines {
                context.out.would(line);
            }
        }
        let plan = self.plan;
        if !plan.env_keys.is_empty() {
            let detail = format!("`.env` since the units were started: {}", listed(&plan.env_keys));
            vps.push(Check::pass("plan.env", detail));
        }
        vps.data.insert("plan".to_owned(), json!(lines));
        vps.data.insert("drift".to_owned(), json!(plan.drift));
        vps.data.insert("pushed".to_owned(), json!(self.facts.pushes));
        vps.data.insert("changes".to_owned(), json!(plan));
        vps.push(Check::pass("plan", "nothing was changed"));
    }

    /// What lies between the two commits, as far as the repository knows both.
    fn since(&self, context: &Context, vps: &mut Report) -> Option<Since> {
        let serving = &self.facts.serving()?.commit;
        let repo = context.settings.repo(&context.around).ok().and_then(|dir| Repo::open(&dir).ok());
        let since = repo.and_then(|repo| Since::of(&repo, serving, &self.wish.release.commit).ok());
        let Some(since) = since else {
            let detail = format!("this repository does not know commit {serving}");
            vps.push(Check::warn("plan.since", detail));
            return None;
        };
        let Since { forth, back } = &since;
        vps.data.insert(
            "since".to_owned(),
            json!({
                "commits": forth.commits, "taken_back": back,
                "added": forth.added, "changed": forth.changed, "deleted": forth.deleted,
            }),
        );
        Some(since)
    }

    /// What would be done, a line each.
    fn lines(&self, since: Option<&Since>) -> Vec<String> {
        let mut lines = match self.unchanged {
            Some(Record { id, commit, ended_at, .. }) => vec![
                format!("ship nothing: commit {commit} serves already, as `{id}`, since {ended_at}"),
                "restart nothing".to_owned(),
            ],
            None => self.release(since),
        };
        lines.extend(self.staging.into_iter().flat_map(|view| &view.plan.actions).map(ToString::to_string));
        if self.staging.is_some() {
            lines.push("ask both staging routes for their health".to_owned());
        }
        if self.unchanged.is_none() {
            lines.push("confirm over a fresh connection".to_owned());
        }
        lines.push("ask the public domains".to_owned());
        lines
    }

    /// What would be done to put the release in place.
    fn release(&self, since: Option<&Since>) -> Vec<String> {
        let Self { facts, plan, settings, .. } = self;
        let Wish { release, profile, .. } = self.wish;
        let mut lines = match facts.serving() {
            None => vec![format!("ship commit {}; nobody knows which commit serves now", release.commit)],
            Some(Record { commit, ended_at, .. }) => {
                vec![format!("ship commit {}; commit {commit} serves now, since {ended_at}", release.commit)]
            }
        };
        lines.extend(since.map(Since::lines).unwrap_or_default());
        let files = |count: usize, new: &str| counted(count, &format!("{new}file"), &format!("{new}files"));
        for (verb, new, rest, paths) in [
            ("put", "new ", " there", &plan.added),
            ("replace", "", "", &plan.changed),
            ("take", "", " away, unless somebody changed it on the VPS", &plan.deleted),
            (
                "overwrite",
                "",
                " that somebody changed on the VPS; the old content goes to the backup",
                &plan.drift,
            ),
        ] {
            // Where nothing is known of the VPS, that is all of them.
            if !paths.is_empty() && facts.known.is_some() {
                lines.push(format!("{verb} {}{rest}: {}", files(paths.len(), new), listed(paths)));
            }
        }
        let shipped: BTreeSet<&str> = release.items.iter().map(|item| item.path.as_str()).collect();
        for push in &facts.pushes {
            let (back, away): (Vec<&str>, Vec<&str>) = push.names().partition(|path| shipped.contains(path));
            for (what, paths) in [("overwrite", back), ("take away, unless changed since,", away)] {
                let paths: Vec<String> = paths.into_iter().map(str::to_owned).collect();
                if !paths.is_empty() {
                    let (origin, paths) = (push.origin(), listed(&paths));
                    lines.push(format!("settle push {} ({origin}): {what} {paths}", push.id));
                }
            }
        }
        let (sent, all) = (plan.upload.len(), files(release.items.len(), ""));
        lines.push(format!("send {sent} of {all} to {STATE}/incoming"));
        for step in &profile.build.steps {
            lines.push(match plan.builds.iter().find(|build| build.what == *step.name) {
                Some(build) => format!("build {}, because {}: {}", step.name, build.why, step.run),
                None => format!("leave build {} alone: its inputs are the same", step.name),
            });
        }
        if !plan.restarts.is_empty() {
            lines.push(if self.wish.force_restart {
                "restart busy workers in the middle of what they do".to_owned()
            } else {
                format!("wait up to {} s for busy workers", settings.deploy_drain_timeout.0.as_secs())
            });
        }
        let app = &settings.deploy_app_dir.0;
        lines.push(format!("switch {app} and its build outputs; the old ones go to the backup"));
        lines.extend(self.restarts(profile));
        lines.push("wait for all of them, then for health and sessions on the VPS".to_owned());
        lines
    }

    /// Which units are restarted, and which are not.
    fn restarts(&self, profile: &Profile) -> Vec<String> {
        let restarts = &self.plan.restarts;
        let bare = |unit: &str| unit.trim_end_matches(".service").to_owned();
        let mut lines: Vec<String> = restarts
            .iter()
            .map(|restart| format!("restart {}: {}", bare(&restart.what), restart.why))
            .collect();
        let units = profile.units();
        let kept: Vec<&str> = units
            .iter()
            .map(String::as_str)
            .filter(|unit| restarts.iter().all(|it| it.what != *unit))
            .collect();
        if restarts.is_empty() {
            lines.push("restart nothing: no unit reads what changes".to_owned());
        } else if !kept.is_empty() {
            let called = |unit: &str| profile.short(unit).map_or_else(|| bare(unit), str::to_owned);
            let kept: Vec<String> = kept.into_iter().map(called).collect();
            lines.push(format!("leave {} running: nothing that they read changes", kept.join(", ")));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use ua_staging::plan::Action;
    use ua_staging::serve::Actual;

    use super::*;
    use crate::history;
    use crate::release::Release;
    use crate::survey::Known;
    use crate::tests::settings;

    fn wish(paths: &[(&str, &str)]) -> Wish {
        Wish {
            profile: Profile::built_in().unwrap(),
            release: Release::of(paths),
            dry_run: true,
            strict: true,
            rollback_from: None,
            force_restart: false,
        }
    }

    /// A VPS on which commit `old` serves.
    fn facts() -> Facts {
        let line = r#"{"id":"1","commit":"old","verdict":"ok","ended_at":"2026-02-21T12:00:00Z"}"#;
        Facts { known: Some(Known::default()), history: history::fold(line), ..Facts::default() }
    }

    /// The lines of a plan, and what there is of staging.
    fn lines(
        wish: &Wish,
        plan: &Plan,
        since: Option<&Since>,
        staging: Option<&View>,
        unchanged: bool,
    ) -> Vec<String> {
        let (settings, facts) = (settings("auto"), facts());
        let unchanged = facts.serving().filter(|_| unchanged);
        Shown { wish, settings: &settings, facts: &facts, plan, staging, unchanged }.lines(since)
    }

    #[test]
    fn what_serves_already_has_a_plan_too() {
        let node = r#"{"serve":{},"node":{"BackendState":"Running","Self":{"DNSName":"vps.x.ts.net."}}}"#;
        let set = Action::Set { scheme: "https", port: 443, target: "http://127.0.0.1:3000".to_owned() };
        let view = View {
            wanted: ua_staging::plan::Route::wanted(&settings("auto")),
            actual: Actual::parse(node).unwrap(),
            plan: ua_staging::plan::Plan { actions: vec![set], ..Default::default() },
        };
        assert_eq!(
            lines(&wish(&[("a", "1")]), &Plan::default(), None, Some(&view), true),
            [
                "ship nothing: commit old serves already, as `1`, since 2026-02-21T12:00:00Z",
                "restart nothing",
                "serve http://127.0.0.1:3000 on https port 443",
                "ask both staging routes for their health",
                "ask the public domains",
            ]
        );
    }

    #[test]
    fn a_plan_counts_as_a_person_does_and_names_units_by_what_tells_them_apart() {
        let wish = wish(&[("docs/a.md", "1")]);
        let mut plan = Plan {
            added: vec!["docs/a.md".to_owned()],
            drift: vec!["x".to_owned(), "y".to_owned()],
            ..Plan::default()
        };
        plan.upload.insert("docs/a.md".to_owned());
        let said = lines(&wish, &plan, None, None, false).join("\n");
        for line in [
            "put 1 new file there: docs/a.md",
            "overwrite 2 files that somebody changed on the VPS; the old content goes to the backup: x, y",
            "send 1 of 1 file to ",
            "restart nothing: no unit reads what changes",
        ] {
            assert!(said.contains(line), "{line:?} in\n{said}");
        }
        plan = plan.restarting_all(&wish.profile, "x changed");
        plan.restarts.retain(|restart| restart.what.contains("webui"));
        let said = lines(&wish, &plan, None, None, false).join("\n");
        let left = "leave gateway, api, telegram, vp.general.primary, vp.coder.primary running: ";
        assert!(said.contains("restart universal-agent-webui: x changed") && said.contains(left), "{said}");
    }

    #[test]
    fn a_rollback_names_the_commits_that_go() {
        let since = |forth: &[&str], back: &[&str]| Since {
            forth: Between { commits: forth.iter().map(ToString::to_string).collect(), ..Between::default() },
            back: back.iter().map(ToString::to_string).collect(),
        };
        let gone = since(&[], &["c2 Second", "c1 First"]).lines();
        assert_eq!(gone, ["take back 2 commits", "take back c2 Second", "take back c1 First"]);
        assert_eq!(since(&["c1 First"], &[]).lines(), ["bring 1 commit", "bring c1 First"]);
    }
}
