//! Deploys an exact commit to the VPS, and proves that it runs there.
//!
//! A run observes (the commit, the way to the VPS, the VPS itself, staging, the public side), stops at the first thing
//! that makes a deploy pointless, prints the plan if only that was asked for, and then acts: upload, activation on the
//! VPS, staging, public smoke. What it found stands in one report for the VPS and one for the public side.

mod command;
mod contract;
mod history;
mod orders;
mod plan;
mod public;
mod release;
mod remote;
mod show;
mod survey;

use std::path::Path;

use anyhow::Context as _;
use jiff::Timestamp;
use serde_json::json;
use ua_common::app;
use ua_common::cli::Context;
use ua_common::error::Failure;
use ua_common::exit::Exit;
use ua_common::output::listed;
use ua_common::report::{Check, Lane, Report, Verdict};
use ua_common::settings::Settings;
use ua_common::settings::value::StagingMode;
use ua_common::state::RunDir;
use ua_common::tool::git::Repo;
use ua_common::transport::Transport;
use ua_staging::{Conflict, View, Vps};

pub use command::tool;

use crate::history::{Holder, Outcome, Record};
use crate::plan::Plan;
use crate::public::Smoke;
use crate::release::{Dirty, Release};
use crate::remote::{Activated, Direction, Drift, Remote, STATE};
use crate::show::Shown;
use crate::survey::Facts;
use ua_common::profile::Profile;

const NAME: &str = "ua-deploy";

/// What was asked for, with everything that this machine alone can say about it.
struct Wish {
    profile: Profile,
    release: Release,
    dry_run: bool,
    /// A deploy would not leave out what is not in the commit without being told to.
    strict: bool,
    rollback_from: Option<String>,
    force_restart: bool,
}

/// So many of something.
fn counted(count: usize, one: &str, more: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { more })
}

/// What `ua-deploy run` was told beyond the settings.
#[derive(Clone, Debug)]
struct Options {
    rev: String,
    dirty: Dirty,
    dry_run: bool,
    /// The release that a rollback leaves.
    rollback_from: Option<String>,
    /// Do not wait for busy workers.
    force_restart: bool,
}

/// A step that ended the run.
struct Stopped {
    step: &'static str,
    error: anyhow::Error,
}

impl Stopped {
    /// The release serves whatever interrupted its client. What that client has not done yet, another one can do.
    fn after_activation(self, id: &str) -> Self {
        let (exit, hint) = Failure::within(&self.error);
        // One that was being put back says so itself.
        if exit != Exit::Interrupted || hint.is_some() {
            return self;
        }
        let left = if self.step == "public" { "and is confirmed" } else { "but nobody has confirmed it" };
        let text = format!("interrupted here; `{id}` serves, {left}");
        Self { error: Failure::new(exit, text).hint(format!("ua-deploy attach {id}")).into(), ..self }
    }
}

/// Names the step that an error belongs to.
trait Step<T> {
    fn step(self, step: &'static str) -> Result<T, Stopped>;
}

impl<T, E: Into<Failure>> Step<T> for Result<T, E> {
    fn step(self, step: &'static str) -> Result<T, Stopped> {
        self.map_err(|error| Stopped { step, error: error.into().into() })
    }
}

/// The whole deploy.
fn run(context: &Context, options: &Options) -> anyhow::Result<Exit> {
    // Not in `/tmp`: what a killed run leaves of the commit is removed by the next one.
    let dir = RunDir::new()?;
    let wish = prepare(context, options, dir.path())?;
    let mut vps = Report::new(NAME, Lane::Vps, context.settings.host_vps.to_string());
    let mut public = Report::new(NAME, Lane::Public, context.settings.public_app_url.0.clone());
    if let Err(Stopped { step, error }) = deploy(context, wish, &mut vps, &mut public) {
        vps.push(Check::error(step, &error));
    }
    let mut reports = vec![vps];
    if !public.checks.is_empty() {
        reports.push(public);
    }
    Ok(context.finish(&reports))
}

/// The commit, laid out in `dir` before anything is contacted: what is wrong here is exit 2.
fn prepare(context: &Context, options: &Options, dir: &Path) -> anyhow::Result<Wish> {
    let settings = &context.settings;
    let profile = Profile::load(settings).map_err(Failure::from)?;
    app::dir(settings)?;
    let repo = settings.repo(&context.around).map_err(Failure::from)?;
    let repo = Repo::open(&repo).map_err(Failure::from)?;
    let _waiting = context.out.waiting("taking the commit out of git");
    // A plan only looks: it is made of the commit, and says what that lacks.
    let dirty = if options.dry_run { Dirty::LeaveOut } else { options.dirty };
    let include = &settings.deploy_include.0;
    let release = Release::take(&repo, &options.rev, dirty, include, &profile, dir)?;
    let rollback_from = options.rollback_from.clone();
    let (dry_run, force_restart) = (options.dry_run, options.force_restart);
    let strict = options.dirty == Dirty::Refuse;
    Ok(Wish { profile, release, dry_run, strict, rollback_from, force_restart })
}

/// Observe, plan, act. Checks go to the report of their lane; an error is the step that nobody could finish.
fn deploy(context: &Context, mut wish: Wish, vps: &mut Report, public: &mut Report) -> Result<(), Stopped> {
    let settings = &context.settings;
    source(&wish, &settings.deploy_include.0, vps);

    let preflight = ua_preflight::check(settings, &context.out, ua_preflight::Options::default());
    vps.stage("preflight", preflight.checks);
    let Some(place) = preflight.place else { return Ok(()) };
    let transport = Transport::open(place.ssh_target(settings), settings.ssh_check_wait.value, &context.out)
        .map_err(|error| Stopped { step: "ssh", error })?;
    let ssh = transport.shown();
    push(vps, transport.opening().checks());

    let waiting = context.out.waiting("looking at the VPS");
    let app = settings.deploy_app_dir.0.as_str();
    let on_vps = Vps::Remote(&transport);
    // Both only look, and neither needs the other.
    let (facts, staging) = std::thread::scope(|scope| {
        let staging = scope.spawn(|| ua_staging::look(&on_vps, settings, Conflict::Refuse));
        let facts = survey::survey(&transport, STATE, app, &wish.profile, &wish.release);
        (facts, staging.join())
    });
    let facts = facts.step("survey")?;
    // From here on everything sees one list of units.
    wish.profile.take_in(|unit| facts.units.get(unit).is_some_and(survey::Unit::runs));
    let wish = wish;
    let release = &wish.release;
    let target = contract::Target { ssh: &ssh, app };
    let mut plan = Plan::new(&wish.profile, release, &facts);
    let mut contract = contract::judge(&wish.profile, &facts, target);
    contract.extend(contract::optional(&wish.profile, &facts));
    contract.extend(contract::versions(&wish.profile, &facts));
    contract.push(plan.space(target));
    vps.stage("contract", contract);
    if let Some(holder) = &facts.holder {
        vps.push(Check::fail("lock", Exit::Busy, app::busy(holder)).hint(history::follow(holder)));
    }
    let staging = staging.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    drop(waiting);
    let staging = routes(settings, staging, vps).step("staging.routes")?;
    describe(&wish, &facts, staging.as_ref(), vps);
    warn_of_bad(&facts.history, &release.commit, vps);
    // A plan is shown all the same, unless what it is made from was half seen, or is about to change.
    let shown = wish.dry_run && facts.uid == "0" && facts.holder.is_none();
    if vps.first_failure().is_some() && !shown {
        return Ok(());
    }
    if let (Some(left), Some(serving)) = (&wish.rollback_from, facts.serving())
        && *left != serving.id
    {
        let detail = format!("`{}` serves now, not `{left}`, which was to be left", serving.id);
        vps.push(Check::fail("rollback", Exit::Busy, detail).hint("ua-deploy status"));
        return Ok(());
    }
    if !plan.drift.is_empty() {
        let detail =
            format!("changed on the VPS since the last deploy, and overwritten: {}", listed(&plan.drift));
        vps.push(Check::warn("drift", detail));
    }
    for push in &facts.pushes {
        let paths: Vec<String> = push.names().map(str::to_owned).collect();
        let detail =
            format!("settled by this deploy: push {} ({}): {}", push.id, push.origin(), listed(&paths));
        vps.push(Check::warn("pushed", detail));
    }
    let units = wish.profile.all_units();
    let runs = facts.known.iter().flat_map(|known| known.runs.keys());
    let left: Vec<String> = runs.filter(|unit| !units.contains(unit)).cloned().collect();
    if !left.is_empty() {
        let detail = format!("not in the profile any more, and left running as they are: {}", listed(&left));
        let stop = format!("ssh {ssh} systemctl disable --now {}", left.join(" "));
        vps.push(Check::warn("units.left", detail).hint(stop));
    }
    let longest = orders::longest(settings, &wish.profile, &facts);
    let remote = Remote { transport: &transport, settings, out: &context.out, longest };
    let who = context.around.who();
    let orders = |plan: &Plan| {
        orders::orders(settings, &wish.profile, release, &facts, plan, &who, wish.force_restart)
    };

    // The very commit that serves, and nothing to do about it: then it only has to be right.
    let mut unchanged = facts.serving().filter(|it| it.commit == release.commit && plan.is_empty());
    if let Some(serving) = unchanged {
        let start = std::time::Instant::now();
        match remote.now(&serving.id, &orders(&plan)).step("health")? {
            Ok(said) => drop(vps.push(Check::pass("health", said).since(start))),
            Err(wrong) => {
                vps.push(Check::warn("health", format!("before the deploy: {wrong}")).since(start));
                plan = plan.restarting_all(&wish.profile, "what serves is not right");
                unchanged = None;
            }
        }
    }
    if let Some(serving) = unchanged {
        serves_already(serving, vps);
    }
    // From here on something is changed: a plan ends before it.
    if wish.dry_run {
        let shown =
            Shown { wish: &wish, settings, facts: &facts, plan: &plan, staging: staging.as_ref(), unchanged };
        shown.report(context, vps);
        return Ok(());
    }
    if let Some(serving) = unchanged {
        let rest = Rest {
            context,
            profile: &wish.profile,
            transport: &transport,
            staging: staging.as_ref(),
            id: &serving.id,
        };
        return rest.unchanged(vps, public);
    }

    let id = id(&release.commit);
    vps.data.insert("id".to_owned(), id.clone().into());
    let base = base(context, &wish, &id).to_string();
    let from = place.from.map_or_else(String::new, |from| from.to_string());
    // The public side is asked meanwhile; what answers there is not touched yet.
    let (begun, was) = std::thread::scope(|scope| {
        let rest = || Rest { context, profile: &wish.profile, transport: &transport, staging: None, id: "" };
        let was = scope.spawn(move || rest().smoke().before());
        let begun =
            remote.begin(&id, &release.commit, &base, &from).map(|()| upload(&remote, release, &plan));
        (begun, was.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    vps.data.insert("serving".to_owned(), "old".into());
    match begun.step("begin")? {
        Ok(took) => {
            vps.push(Check::pass("transfer", sent(plan.upload.len(), release.items.len())).took(took));
        }
        Err(failure) => {
            close(&remote, &id, "transfer", &failure);
            let failure = match failure.exit {
                Exit::Interrupted => {
                    let text = format!("{failure}; the old release serves as before");
                    Failure::new(Exit::Interrupted, text).hint(remote::SEND_AGAIN)
                }
                _ => failure,
            };
            return Err(failure).step("transfer");
        }
    }
    let activated = match remote.activate(&id, Direction::Forward, &orders(&plan), &release.manifest()) {
        Ok(activated) => activated,
        Err(failure) => {
            if failure.exit == Exit::Failed {
                // It did not even start.
                close(&remote, &id, "activate", &failure);
            } else {
                vps.data.insert("serving".to_owned(), "unknown".into());
            }
            return Err(failure).step("activate");
        }
    };
    let rest =
        Rest { context, profile: &wish.profile, transport: &transport, staging: staging.as_ref(), id: &id };
    let done = rest.run(activated, Some(&was), vps, public);
    kept(&id, vps);
    done
}

/// Sends what the plan says, and nothing where that is nothing.
fn upload(remote: &Remote<'_>, release: &Release, plan: &Plan) -> Result<std::time::Duration, Failure> {
    if plan.upload.is_empty() {
        return Ok(std::time::Duration::ZERO);
    }
    release.keep_only(&plan.upload).map_err(|error| Failure::new(Exit::Transfer, format!("{error:#}")))?;
    remote.upload(release, plan.upload.len())
}

/// How many files were sent, in words.
fn sent(sent: usize, all: usize) -> String {
    let files = counted(all, "file", "files");
    match sent {
        0 => format!("0 of {files} were sent: all are there already"),
        _ if sent == all => format!("{sent} of {files} {} sent", if all == 1 { "was" } else { "were" }),
        _ => {
            format!("{sent} of {files} {} sent, the others are there", if sent == 1 { "was" } else { "were" })
        }
    }
}

/// What a release that serves has overwritten is not lost: says where it lies.
fn kept(id: &str, vps: &mut Report) {
    let serves = vps.data.get("serving").is_some_and(|what| what == "new");
    let drift = vps.checks.iter_mut().find(|check| check.id == "drift");
    if let Some(check) = drift.filter(|_| serves) {
        let backup = format!("{STATE}/releases/{id}/backup/tree");
        check.detail.push_str(&format!("; what lay there is kept in {backup} as long as that release is"));
        check.hint = Some(format!("ua-vpsctl run -- find {backup} -type f"));
    }
}

/// Where a commit went wrong before, and how: it may go out again, but not without a word.
fn warn_of_bad(records: &[Record], commit: &str, vps: &mut Report) {
    if let Some(bad) = history::bad(records, commit) {
        let detail = format!("commit {commit} is marked bad since {} (`{}`): {}", bad.at, bad.id, bad.why);
        vps.push(Check::warn("source.bad", detail).hint("ua-deploy history"));
        vps.data.insert("bad".to_owned(), json!(bad));
    }
}

/// The staging routes as this deploy goes about them: nothing where it leaves them out, because that was asked for or
/// because they cannot be set up. With `staging.mode` `auto` that is no reason to stop.
fn routes(
    settings: &Settings,
    looked: Result<Option<View>, Failure>,
    vps: &mut Report,
) -> Result<Option<View>, Failure> {
    let auto = settings.staging_mode.value == StagingMode::Auto;
    let way_out = if auto { "leave staging out: --staging off" } else { "deploy without it: --staging auto" };
    let told = |mut check: Check| {
        if is_of_staging(check.exit) {
            let hint = check.hint.map_or(String::new(), |hint| format!("{hint}; or "));
            check.hint = Some(format!("{hint}{way_out}"));
        }
        tolerated(settings, check)
    };
    match looked {
        Ok(Some(view)) => {
            push(vps, view.checks().into_iter().map(told).collect());
            Ok(view.plan.obstacles.is_empty().then_some(view))
        }
        Ok(None) => {
            let detail = format!("staging.mode = disabled ({})", settings.staging_mode.origin);
            vps.push(Check::skip("staging", detail));
            Ok(None)
        }
        Err(failure) if auto && is_of_staging(failure.exit) => {
            vps.push(told(Check::failure("staging.routes", failure)));
            Ok(None)
        }
        Err(failure) => Err(failure),
    }
}

/// What is left to do when an activation has ended, for whoever followed it.
struct Rest<'a> {
    context: &'a Context,
    profile: &'a Profile,
    transport: &'a Transport,
    staging: Option<&'a View>,
    id: &'a str,
}

impl Rest<'_> {
    /// Staging, the confirmation, and the public side. Whoever interrupts it is told what became of the release.
    fn run(
        &self,
        activated: Activated,
        was: Option<&[public::Answer]>,
        vps: &mut Report,
        public: &mut Report,
    ) -> Result<(), Stopped> {
        self.follow_up(activated, was, vps, public).map_err(|stopped| stopped.after_activation(self.id))
    }

    fn follow_up(
        &self,
        activated: Activated,
        was: Option<&[public::Answer]>,
        vps: &mut Report,
        public: &mut Report,
    ) -> Result<(), Stopped> {
        if !told(activated, None, vps) {
            return Ok(());
        }
        // The way in is tried while staging is asked: neither needs the other. The connection is opened by this very
        // thread, since its process ends with the thread that started it.
        let (wait, out) = (self.context.settings.ssh_check_wait.value, &self.context.out);
        let (fresh, checks) = std::thread::scope(|scope| {
            let checks = scope.spawn(|| self.staging.map(|view| self.staging(view)));
            let fresh = self.transport.fresh(wait, out);
            (fresh, checks.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        });
        if let Some(checks) = checks
            && !staged(&self.remote(), self.id, checks?, vps)?
        {
            return Ok(());
        }
        if vps.first_failure().is_some() {
            vps.push(Check::warn("confirm", "not confirmed, since something above is wrong"));
            return Ok(());
        }
        self.confirm(&fresh, vps);
        if vps.first_failure().is_none() {
            self.public(was, public)?;
            if let Err(lost) = self.remote().smoked(self.id, word(public.verdict())) {
                self.context.out.warn(&format!("the record lacks how the public side was found: {lost}"));
            }
        }
        Ok(())
    }

    /// Nothing was changed: what serves was found right, and so must be what leads to it.
    fn unchanged(&self, vps: &mut Report, public: &mut Report) -> Result<(), Stopped> {
        if let Some(view) = self.staging {
            let checks = self.staging(view)?;
            push(vps, checks.into_iter().map(|check| tolerated(&self.context.settings, check)).collect());
        }
        if vps.first_failure().is_none() {
            self.public(None, public)?;
        }
        Ok(())
    }

    fn remote(&self) -> Remote<'_> {
        let (settings, out) = (&self.context.settings, &self.context.out);
        Remote { transport: self.transport, settings, out, longest: remote::LONGEST }
    }

    /// Seen before the build: a port that was taken since is noticed, and left alone.
    fn staging(&self, view: &View) -> Result<Vec<Check>, Stopped> {
        let (settings, out) = (&self.context.settings, &self.context.out);
        ua_staging::ensure(&Vps::Remote(self.transport), settings, view, Conflict::Refuse, out)
            .step("staging")
    }

    /// How the public side is asked.
    fn smoke(&self) -> Smoke<'_> {
        let settings = &self.context.settings;
        let open =
            move |url: &str| self.remote().ops(self.profile, url).map_err(|failure| failure.to_string());
        Smoke { settings, open: Box::new(open), out: &self.context.out }
    }

    fn public(&self, was: Option<&[public::Answer]>, public: &mut Report) -> Result<(), Stopped> {
        let checks = self.smoke().after(was).step("public")?;
        push(public, checks);
        Ok(())
    }

    /// Over a fresh connection: the one that is open proves nothing about the way in that the release leaves.
    fn confirm(&self, fresh: &anyhow::Result<Transport>, vps: &mut Report) {
        let (settings, out) = (&self.context.settings, &self.context.out);
        let start = std::time::Instant::now();
        let transport = fresh.as_ref().unwrap_or(self.transport);
        let remote = Remote { transport, settings, out, longest: remote::LONGEST };
        let confirmed = match fresh {
            Ok(_) => remote.confirm(self.id, &self.context.around.who()).map_err(anyhow::Error::from),
            Err(error) => Err(anyhow::Error::from(again(error))),
        };
        let Err(error) = confirmed else {
            vps.push(Check::pass("confirm", "confirmed over a fresh connection").since(start));
            return;
        };
        let refused = Check::error("confirm", &error);
        // It may have been taken back meanwhile, and then that is what there is to say.
        match remote.attach(self.id) {
            Ok(now) if !now.record.verdict.serves() => {
                vps.checks.retain(|check| check.id != "deploy");
                vps.push(Check::warn("confirm", refused.detail).since(start));
                told(now, None, vps);
            }
            now => {
                let left = now
                    .ok()
                    .and_then(|now| now.record.expires(Timestamp::now()))
                    .unwrap_or_else(|| "the release is left as it is, unconfirmed".to_owned());
                let detail = format!("{}; {left}", refused.detail);
                let hint = format!("ua-deploy attach {}", self.id);
                vps.push(Check { detail, ..refused }.hint(hint).since(start));
            }
        }
    }
}

/// The very commit that is asked for serves, and was found right.
fn serves_already(serving: &Record, vps: &mut Report) {
    vps.data.insert("id".to_owned(), serving.id.clone().into());
    vps.data.insert("serving".to_owned(), "new".into());
    let detail = format!("commit {} serves already, as `{}`: nothing to do", serving.commit, serving.id);
    vps.push(if serving.verdict == Outcome::Unconfirmed {
        Check::warn("deploy", format!("{detail}; but nobody has confirmed it"))
            .hint(format!("ua-deploy attach {}", serving.id))
    } else {
        Check::pass("deploy", detail)
    });
}

/// An error that is looked at twice.
fn again(error: &anyhow::Error) -> Failure {
    let (exit, hint) = Failure::within(error);
    let failure = Failure::new(exit, format!("{error:#}"));
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// What is shipped, and what is not.
fn source(wish: &Wish, include: &[String], vps: &mut Report) {
    let release = &wish.release;
    let branch =
        release.branch.as_deref().map_or("no branch".to_owned(), |branch| format!("branch `{branch}`"));
    let files = counted(release.items.len(), "file", "files");
    let commit =
        format!("commit {} ({branch}): {files}, {} KiB", release.commit, release.bytes.div_ceil(1024));
    vps.push(Check::pass("source.commit", commit));
    if !include.is_empty() {
        let detail = format!("shipped beside the commit (deploy.include): {}", listed(include));
        vps.push(Check::warn("source.include", detail));
    }
    if !release.left_out.is_empty() {
        let detail = format!("not in the commit, so not shipped: {}", listed(&release.left_out));
        let check = Check::warn("source.dirty", detail);
        vps.push(if wish.strict { check.hint(release::CLEAN) } else { check });
    }
    if !release.skipped.is_empty() {
        let names: Vec<String> =
            release.skipped.iter().map(|it| format!("{} ({})", it.path, it.why)).collect();
        vps.push(Check::warn(
            "source.skipped",
            format!("in the commit, but not shipped: {}", listed(&names)),
        ));
    }
}

/// What is particular to this tool, for whoever reads the report by program.
fn describe(wish: &Wish, facts: &Facts, staging: Option<&View>, vps: &mut Report) {
    let release = &wish.release;
    let skipped: Vec<_> = release.skipped.iter().map(|it| json!({"path": it.path, "why": it.why})).collect();
    vps.data.extend([
        ("commit".to_owned(), json!(release.commit)),
        ("branch".to_owned(), json!(release.branch)),
        ("left_out".to_owned(), json!(release.left_out)),
        ("skipped".to_owned(), json!(skipped)),
        (
            "previous".to_owned(),
            json!(facts.serving().map(|record| json!({"id": record.id, "commit": record.commit}))),
        ),
    ]);
    if let Some(view) = staging {
        let name = view.actual.node.name();
        let urls: Vec<String> = view.wanted.iter().map(|route| route.url(name)).collect();
        vps.data.insert("staging".to_owned(), json!(urls));
    }
}

/// Puts what the VPS observed into the report, and what a later deploy made of that; says whether it ended well.
fn told(activated: Activated, later: Option<&Record>, vps: &mut Report) -> bool {
    let Activated { mut checks, record, .. } = activated;
    let left = match record.verdict {
        Outcome::Ok | Outcome::Unconfirmed => "new",
        Outcome::Failed | Outcome::Busy | Outcome::RolledBack | Outcome::Begun => "old",
        Outcome::Activating if remote::exit_of(&record) == Exit::Failed => "old",
        _ => "unknown",
    };
    let (serving, since) = later.map_or((left, String::new()), since);
    vps.data.insert("serving".to_owned(), serving.into());
    if later.is_some() {
        // What it found right was so then.
        checks.retain(|check| check.verdict != Verdict::Pass);
    }
    push(vps, checks);
    let exit = remote::exit_of(&record);
    if exit == Exit::Ok {
        let detail = match later {
            Some(_) => format!("ended well at {}, with commit {}; {since}", record.ended_at, record.commit),
            None => format!("commit {} serves", record.commit),
        };
        vps.push(Check::pass("deploy", detail));
        return true;
    }
    let after = match left {
        _ if later.is_some() => &since,
        "old" if record.verdict == Outcome::RolledBack => "the old release was put back and serves",
        "old" => "the old release serves as before",
        _ => "nobody knows what serves: look at the units",
    };
    // The check that failed says why; a run that was cut off has none.
    let step = &record.step;
    let told = vps.first_failure().is_some();
    let why = if told { String::new() } else { format!(": {}", record.detail) };
    let detail = format!("failed at step `{step}`{why}; {after}");
    vps.push(Check::fail("deploy", exit, detail).hint(next(&record)));
    false
}

/// What serves now that a later deploy decided that, as a word and in words.
fn since(later: &Record) -> (&'static str, String) {
    if later.verdict.serves() {
        ("newer", format!("`{}` (commit {}) serves since", later.id, later.commit))
    } else {
        ("unknown", format!("nobody knows what serves since `{}` ({})", later.id, later.verdict.word()))
    }
}

/// Is it trouble of staging alone, which says nothing about production? A port that is open to the internet is more than
/// that: it would publish the new release.
fn is_of_staging(exit: Exit) -> bool {
    matches!(
        exit,
        Exit::ServeDisabled
            | Exit::StagingUnhealthy
            | Exit::StagingDrift
            | Exit::TailscaleMissing
            | Exit::TailscaleDown
    )
}

/// What to do after a deploy that does not serve.
fn next(record: &Record) -> String {
    match record.verdict {
        Outcome::RolledBack => {
            let log = format!("{STATE}/releases/{}/log", record.id);
            format!("ua-vpsctl status  # the whole story: ua-vpsctl run -- cat {log}")
        }
        Outcome::Busy => history::follow(record.detail.trim_start_matches("held by ")),
        Outcome::Failed if record.step == "drain" => {
            "wait longer: --drain-timeout 1h; or restart them in the middle of what they do: --force-restart"
                .to_owned()
        }
        _ if remote::exit_of(record) == Exit::Broken => "ua-vpsctl status".to_owned(),
        _ => "ua-deploy history".to_owned(),
    }
}

/// Trouble of staging is a warning where the mode says so.
fn tolerated(settings: &Settings, mut check: Check) -> Check {
    if settings.staging_mode.value == StagingMode::Auto && is_of_staging(check.exit) {
        (check.verdict, check.exit) = (Verdict::Warn, Exit::Ok);
    }
    check
}

/// The word of a verdict in a record.
fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Skip => "skip",
        Verdict::Pass => "pass",
        Verdict::Warn => "warn",
        Verdict::Fail => "fail",
    }
}

/// Judges staging after the switch by its mode: unhealthy is a warning, or the end of this release.
fn staged(remote: &Remote<'_>, id: &str, checks: Vec<Check>, vps: &mut Report) -> Result<bool, Stopped> {
    let failed = checks.iter().find(|check| check.verdict == Verdict::Fail).cloned();
    let Some(cause) = failed else {
        // The routes were told before already.
        push(vps, checks.into_iter().filter(|check| check.id != "staging.stale").collect());
        return Ok(true);
    };
    if remote.settings.staging_mode.value == StagingMode::Auto {
        push(vps, checks.into_iter().map(|check| tolerated(remote.settings, check)).collect());
        return Ok(true);
    }
    vps.data.insert(
        "cause".to_owned(),
        json!({"id": cause.id, "detail": cause.detail, "exit_code": cause.exit.code()}),
    );
    remote.out.note("staging is required and not healthy: putting the old release back");
    let restored = remote.activate(id, Direction::Restore, "", "").step("restore")?;
    if restored.record.verdict.serves() {
        // Refused: something newer is in place.
        push(vps, restored.checks);
        vps.push(cause);
        return Ok(false);
    }
    vps.push(Check::warn(cause.id.clone(), cause.detail.clone()));
    told(restored, None, vps);
    Ok(false)
}

/// Ends the record of a deploy that never came to its activation. If that fails too, the record says how far it came.
fn close(remote: &Remote<'_>, id: &str, step: &str, failure: &Failure) {
    let end = json!({
        "verdict": Outcome::Failed.word(),
        "exit_code": failure.exit.code(),
        "step": step,
        "serving": "old",
        "detail": failure.to_string(),
        "ended_at": now(),
    });
    let fields = end.to_string();
    if let Err(lost) = remote.close(id, fields.trim_start_matches('{').trim_end_matches('}')) {
        remote.out.warn(&format!("the record of `{id}` could not be ended: {lost}"));
    }
}

/// Ids begin with their time, so that their order is the order of deploys. To the millisecond, since the same commit
/// may be tried again within a second.
fn id(commit: &str) -> String {
    format!("{}-{}", Timestamp::now().strftime("%Y%m%dT%H%M%S.%3fZ"), commit.get(..12).unwrap_or(commit))
}

fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The part of the record that is known before anything happens.
fn base(context: &Context, wish: &Wish, id: &str) -> serde_json::Value {
    json!({
        "id": id,
        "commit": wish.release.commit,
        "branch": wish.release.branch,
        "who": context.around.who(),
        "at": now(),
        "version": env!("CARGO_PKG_VERSION"),
        "break_glass": context.settings.host_break_glass.value,
        "left_out": wish.release.left_out.len(),
        "files": wish.release.items.len(),
        "rollback_from": wish.rollback_from,
        "confirm_within": context.settings.deploy_require_confirm.0.map(|within| within.as_secs().max(1)),
    })
}

/// Opens the way to the VPS; nothing if the report says why there is none.
fn connect(context: &Context, report: &mut Report) -> anyhow::Result<Option<Transport>> {
    let settings = &context.settings;
    let preflight = ua_preflight::check(settings, &context.out, ua_preflight::Options::default());
    report.stage("preflight", preflight.checks);
    let Some(place) = preflight.place else { return Ok(None) };
    let transport = Transport::open(place.ssh_target(settings), settings.ssh_check_wait.value, &context.out)?;
    push(report, transport.opening().checks());
    Ok(Some(transport))
}

/// Reads every record from the VPS, and who holds the lock.
fn records(context: &Context, report: &mut Report) -> anyhow::Result<Option<(Vec<Record>, Option<Holder>)>> {
    let Some(transport) = connect(context, report)? else { return Ok(None) };
    let remote = Remote {
        transport: &transport,
        settings: &context.settings,
        out: &context.out,
        longest: remote::LONGEST,
    };
    remote.state().map(Some).context("cannot read the history")
}

/// Follows a deploy that an earlier client left, to the exit code that client would have had.
fn attach(context: &Context, id: Option<&str>) -> Exit {
    let settings = &context.settings;
    let mut vps = Report::new(NAME, Lane::Vps, settings.host_vps.to_string());
    let mut public = Report::new(NAME, Lane::Public, settings.public_app_url.0.clone());
    if let Err(Stopped { step, error }) = attached(context, id, &mut vps, &mut public) {
        vps.push(Check::error(step, &error));
    }
    let mut reports = vec![vps];
    if !public.checks.is_empty() {
        reports.push(public);
    }
    context.finish(&reports)
}

fn attached(
    context: &Context,
    id: Option<&str>,
    vps: &mut Report,
    public: &mut Report,
) -> Result<(), Stopped> {
    let settings = &context.settings;
    let profile = Profile::load(settings).map_err(Failure::from).step("profile")?;
    let transport = connect(context, vps).map_err(|error| Stopped { step: "ssh", error })?;
    let Some(transport) = transport else { return Ok(()) };
    let remote = Remote { transport: &transport, settings, out: &context.out, longest: remote::LONGEST };
    let (records, holder) = remote.state().step("history")?;
    let serving = history::serving(&records);
    // Without an id: what is being done, else what waits for a confirmation, else the newest.
    let at_work =
        records.iter().find(|record| holder.as_ref().is_some_and(|holder| holder.works_on(&record.id)));
    let waiting = serving.filter(|record| record.verdict == Outcome::Unconfirmed);
    let record = match (id, at_work.or(waiting)) {
        (None, Some(record)) => record,
        (id, _) => history::find(&records, id).step("history")?,
    };
    vps.data.insert("id".to_owned(), record.id.clone().into());
    vps.data.insert("commit".to_owned(), record.commit.clone().into());
    let activated = match remote.attach(&record.id) {
        Ok(activated) => activated,
        // Its directory is gone, but how it ended is known.
        Err(failure)
            if failure.exit == Exit::Failed
                && !matches!(record.verdict, Outcome::Begun | Outcome::Activating | Outcome::Unconfirmed) =>
        {
            Activated { checks: Vec::new(), record: record.clone(), past: true }
        }
        Err(failure) => return Err(failure).step("attach"),
    };
    if activated.past {
        let Record { id, ended_at, verdict, .. } = &activated.record;
        context.out.note(&format!("`{id}` ended at {ended_at} already, as {}", verdict.word()));
    }
    let later = history::later(&records, &record.id);
    if activated.record.verdict != Outcome::Unconfirmed {
        told(activated, later, vps);
        return Ok(());
    }
    if let Some((serving, since)) = later.map(since) {
        vps.data.insert("serving".to_owned(), serving.into());
        let detail = format!("`{}` was never confirmed, and {since}", record.id);
        vps.push(Check::fail("deploy", Exit::Failed, detail).hint("ua-deploy status"));
        return Ok(());
    }
    // What its client would have done next.
    let on_vps = Vps::Remote(&transport);
    let looked = ua_staging::look(&on_vps, settings, Conflict::Refuse);
    let staging = match looked {
        Ok(view) => view,
        Err(_) => routes(settings, looked, vps).step("staging.routes")?,
    };
    let rest =
        Rest { context, profile: &profile, transport: &transport, staging: staging.as_ref(), id: &record.id };
    // What was broken before that deploy is not known any more.
    rest.run(activated, None, vps, public)
}

/// Deploys the commit of an older release, as any other commit is deployed.
fn rollback(context: &Context, id: Option<&str>, asked: &Options) -> anyhow::Result<Exit> {
    let mut vps = Report::new(NAME, Lane::Vps, context.settings.host_vps.to_string());
    let Some((records, holder)) = records(context, &mut vps)? else { return Ok(context.finish(&[vps])) };
    if let Some(Holder { text, .. }) = &holder {
        // What there is to go back to is settled when that has ended.
        vps.push(Check::fail("lock", Exit::Busy, app::busy(text)).hint(history::follow(text)));
        return Ok(context.finish(&[vps]));
    }
    let older = history::older(&records, id).map_err(Failure::from)?;
    context.out.note(&format!("going back to `{}`, commit {}", older.id, older.commit));
    let options = Options {
        rev: older.commit.clone(),
        // What lies in the working tree has nothing to do with a commit of long ago.
        dirty: Dirty::LeaveOut,
        rollback_from: history::serving(&records).map(|record| record.id.clone()),
        ..asked.clone()
    };
    run(context, &options)
}

/// What is known of a deploy that does not hold the lock.
fn ended_as(id: &str, record: Option<&Record>) -> String {
    match record {
        None => format!("there is no deploy `{id}`"),
        Some(Record { verdict: Outcome::Begun | Outcome::Activating, detail, .. }) => {
            format!("`{id}` is not at work on the VPS any more: {detail}")
        }
        Some(Record { verdict, ended_at, .. }) => {
            format!("`{id}` ended as {} at {ended_at}, and holds nothing", verdict.word())
        }
    }
}

/// Ends an activation that holds the lock, if it is the one that is named; a dead one holds nothing.
fn unlock(context: &Context, id: &str, force: bool, vps: &mut Report) -> anyhow::Result<()> {
    let Some(transport) = connect(context, vps)? else { return Ok(()) };
    let remote = Remote {
        transport: &transport,
        settings: &context.settings,
        out: &context.out,
        longest: remote::LONGEST,
    };
    let (records, holder) = remote.state()?;
    let ended = records.iter().find(|record| record.id == id);
    let Some(holder) = holder else {
        vps.push(Check::pass("lock", format!("nobody holds it: {}", ended_as(id, ended))));
        return Ok(());
    };
    if !holder.works_on(id) {
        let detail = format!("{}; the lock is held by {}", ended_as(id, ended), holder.text);
        vps.push(Check::fail("lock", Exit::Busy, detail).hint("ua-deploy status"));
    } else if !force {
        let detail = format!("held by {}, which is alive{}", holder.text, holder.place());
        let hint =
            format!("ua-deploy attach {id}  # or, to end it wherever it is: ua-deploy unlock {id} --force");
        vps.push(Check::fail("lock", Exit::Busy, detail).hint(hint));
    } else {
        remote.unlock(id)?;
        let detail = format!("`{id}` was ended where it was; its record says how far it came");
        vps.push(Check::warn("lock", detail).hint("ua-deploy status"));
    }
    Ok(())
}

/// Why nobody can say what serves.
fn unknown(records: &[Record], holder: Option<&Holder>) -> Check {
    let Some(last) = records.last() else {
        return Check::warn("serving", "nothing was deployed yet").hint(history::NOT_YET);
    };
    if let Some(holder) = holder.filter(|holder| holder.works_on(&last.id)) {
        // Its record says already how it ends if it is cut off now.
        let detail = format!("not settled yet: `{}` is being activated{}", last.id, holder.place());
        return Check::warn("serving", detail).hint(history::follow(&holder.text));
    }
    let detail = format!("nobody knows: `{}` ended as {}: {}", last.id, last.verdict.word(), last.detail);
    Check::warn("serving", detail).hint("ua-vpsctl status")
}

/// Are the units of the release up? Those that are optional may be down at any time, and all while somebody is at work.
fn running(units: &[(String, String)], optional: &[String], at_work: bool) -> Check {
    if units.is_empty() {
        let detail = "systemd of the VPS told nothing of the units";
        return Check::fail("units", Exit::Failed, detail).hint("ua-vpsctl status");
    }
    let (up, down): (Vec<_>, Vec<_>) =
        units.iter().partition(|(_, state)| matches!(state.as_str(), "active" | "reloading"));
    let down: Vec<String> = down
        .into_iter()
        .filter(|(unit, _)| !optional.contains(unit))
        .map(|(unit, state)| format!("{} is {state}", unit.trim_end_matches(".service")))
        .collect();
    let all = counted(up.len() + down.len(), "unit", "units");
    if down.is_empty() {
        return Check::pass("units", format!("{} of {all} are active", up.len()));
    }
    let detail = format!("{} of {all} are not active: {}", down.len(), listed(&down));
    let check =
        if at_work { Check::warn("units", detail) } else { Check::fail("units", Exit::Failed, detail) };
    check.hint("ua-vpsctl status")
}

/// What runs now, since when, who holds the lock, and what others changed since.
fn status(context: &Context, vps: &mut Report) -> anyhow::Result<()> {
    let profile = Profile::load(&context.settings).map_err(Failure::from)?;
    let Some(transport) = connect(context, vps)? else { return Ok(()) };
    let remote = Remote {
        transport: &transport,
        settings: &context.settings,
        out: &context.out,
        longest: remote::LONGEST,
    };
    let (records, holder) = remote.state()?;
    vps.push(match &holder {
        Some(holder) => Check::warn("lock", format!("held by {}{}", holder.text, holder.place()))
            .hint(history::follow(&holder.text)),
        None => Check::pass("lock", "nobody holds it"),
    });
    vps.data.insert("holder".to_owned(), json!(holder.as_ref().map(|holder| &holder.text)));
    let Some(record) = history::serving(&records) else {
        vps.push(unknown(&records, holder.as_ref()));
        return Ok(());
    };
    let branch = record.branch.as_ref().map_or(String::new(), |branch| format!(" (branch `{branch}`)"));
    let detail = format!(
        "commit {}{branch} since {}, by {}, as `{}`",
        record.commit, record.ended_at, record.who, record.id
    );
    vps.push(if record.verdict == Outcome::Ok {
        Check::pass("serving", detail)
    } else {
        let expires =
            record.expires(Timestamp::now()).map_or(String::new(), |expires| format!("; {expires}"));
        Check::warn("serving", format!("{detail}; nobody has confirmed it{expires}"))
            .hint(format!("ua-deploy attach {}", record.id))
    });
    vps.data.insert("serving".to_owned(), json!(record));
    let drift = {
        let _waiting = context.out.waiting("comparing the VPS with the release");
        remote.drift(&record.id)
    };
    let Drift { paths: drift, pushes, units } = match drift {
        Ok(found) => found,
        Err(failure) => {
            vps.push(Check::failure("drift", failure));
            return Ok(());
        }
    };
    vps.push(running(&units, &profile.optional_units(), holder.is_some()));
    vps.push(if drift.is_empty() {
        Check::pass("drift", "every file is as the release put it there")
    } else {
        let detail =
            format!("changed on the VPS since, and the next deploy overwrites it: {}", listed(&drift));
        Check::warn("drift", detail)
    });
    for push in &pushes {
        let paths: Vec<String> = push.names().map(str::to_owned).collect();
        let detail = format!("push {} ({}): {}", push.id, push.origin(), listed(&paths));
        vps.push(Check::warn("pushed", detail).hint("ua-deploy plan  # what the next deploy does about it"));
    }
    vps.data.insert("drift".to_owned(), json!(drift));
    vps.data.insert("pushed".to_owned(), json!(pushes));
    Ok(())
}

fn push(report: &mut Report, checks: Vec<Check>) {
    for check in checks {
        report.push(check);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ua_common::settings::{Layer, Origin, Raw, Surroundings};
    use ua_staging::plan::{Obstacle, Route};
    use ua_staging::serve::Actual;

    use super::*;

    /// The settings of a machine without any file of them, in this mode of staging.
    pub(crate) fn settings(mode: &str) -> Settings {
        let dir = std::path::PathBuf::from("/");
        let env = BTreeMap::new();
        let around = Surroundings { cwd: dir.clone(), home: Some(dir), config_home: None, env, uid: 0 };
        let mode = (Raw::Text(mode.to_owned()), Origin::Flag("--staging".to_owned()));
        Settings::resolve(&[Layer::from_iter([("staging.mode", mode)])], &around).unwrap()
    }

    fn report() -> Report {
        Report::new(NAME, Lane::Vps, "root@vps")
    }

    /// How a deploy goes about staging of which this was seen: is it a part of it, and what is said.
    fn judged(mode: &str, looked: Result<Obstacle, Failure>) -> (Option<bool>, Exit, String) {
        let settings = settings(mode);
        let node = r#"{"serve":{},"node":{"BackendState":"Running","Self":{"DNSName":"vps.x.ts.net."}}}"#;
        let view = |obstacle| View {
            wanted: Route::wanted(&settings),
            actual: Actual::parse(node).unwrap(),
            plan: ua_staging::plan::Plan { obstacles: vec![obstacle], ..Default::default() },
        };
        let mut vps = report();
        let part = routes(&settings, looked.map(view).map(Some), &mut vps);
        let hint = vps.checks.first().and_then(|check| check.hint.clone()).unwrap_or_default();
        (part.ok().map(|part| part.is_some()), vps.exit(), hint)
    }

    #[test]
    fn trouble_of_staging_stops_a_deploy_only_where_staging_is_required() {
        let name = || "vps".to_owned();
        let disabled = Obstacle::Disabled { name: name(), url: "https://x".to_owned() };
        let held = Obstacle::Foreground { name: name(), port: 443 };
        let down = Obstacle::NotRunning { name: name(), state: "Stopped".to_owned() };
        for (obstacle, code) in
            [(disabled, Exit::ServeDisabled), (held, Exit::StagingDrift), (down, Exit::TailscaleDown)]
        {
            let (part, exit, hint) = judged("auto", Ok(obstacle.clone()));
            assert_eq!((part, exit), (Some(false), Exit::Ok));
            assert!(hint.ends_with("; or leave staging out: --staging off"), "{hint}");
            let (part, exit, hint) = judged("required", Ok(obstacle));
            assert_eq!((part, exit), (Some(false), code));
            assert!(hint.ends_with("; or deploy without it: --staging auto"), "{hint}");
        }
        // What would publish the release, or is typed wrong, is no trouble of staging alone.
        let public = Obstacle::Public { name: name(), port: 443, kind: "https", foreground: false };
        assert_eq!(judged("auto", Ok(public)).1, Exit::StagingPublic);
        assert_eq!(judged("auto", Ok(Obstacle::SamePort { port: 443 })).1, Exit::Usage);
        // Nor is a lost connection; a tailscaled that does not answer there is.
        let failed = |exit| Err(Failure::new(exit, "x"));
        assert_eq!(judged("auto", failed(Exit::TailscaleDown)).0, Some(false));
        assert_eq!(judged("auto", failed(Exit::SshUnreachable)).0, None);
        assert_eq!(judged("required", failed(Exit::TailscaleDown)).0, None);
    }

    fn record(verdict: &str, more: &str) -> Record {
        let line = format!(
            "{{\"id\":\"1\",\"commit\":\"c\",\"verdict\":\"{verdict}\",\"ended_at\":\"T\",\"detail\":\"why\"{more}}}"
        );
        history::fold(&line).remove(0)
    }

    #[test]
    fn each_end_names_the_command_that_helps() {
        let hint = |verdict: &str, more: &str| next(&record(verdict, more));
        assert!(hint("rolled-back", "").starts_with("ua-vpsctl status  # "));
        assert_eq!(hint("broken", ""), "ua-vpsctl status");
        assert_eq!(hint("activating", ",\"exit_code\":34"), "ua-vpsctl status");
        let drain = hint("failed", ",\"step\":\"drain\"");
        assert!(drain.contains("--drain-timeout") && drain.contains("--force-restart"), "{drain}");
        assert_eq!(hint("failed", ",\"step\":\"build\""), "ua-deploy history");
        let mut busy = record("busy", "");
        busy.detail = "held by ua-deploy forward 2 by op@laptop, since T".to_owned();
        assert_eq!(next(&busy), "ua-deploy attach 2");
    }

    #[test]
    fn how_a_deploy_ended_is_not_what_serves_now_that_a_later_one_decided_that() {
        let end = |verdict: &str, later: Option<&str>| {
            let later = later.map(|verdict| Record { id: "2".to_owned(), ..record(verdict, "") });
            let checks = vec![Check::pass("health", "api runs c"), Check::warn("switch.left", "a.py")];
            let record = record(verdict, ",\"exit_code\":1,\"step\":\"build\"");
            let mut vps = report();
            told(Activated { checks, record, past: true }, later.as_ref(), &mut vps);
            let (serving, last) = (vps.data["serving"].clone(), vps.checks.last().unwrap());
            (serving, vps.checks.len(), vps.exit(), last.detail.clone())
        };
        let is =
            |serving: &str, checks, exit, detail: &str| (serving.into(), checks, exit, detail.to_owned());
        let replaced = "ended well at T, with commit c; `2` (commit c) serves since";
        assert_eq!(end("ok", None), is("new", 3, Exit::Ok, "commit c serves"));
        assert_eq!(end("ok", Some("ok")), is("newer", 2, Exit::Ok, replaced));
        let broken = "ended well at T, with commit c; nobody knows what serves since `2` (broken)";
        assert_eq!(end("ok", Some("broken")), is("unknown", 2, Exit::Ok, broken));
        let failed = "failed at step `build`: why; the old release serves as before";
        assert_eq!(end("failed", None), is("old", 3, Exit::Failed, failed));
        let failed = "failed at step `build`: why; `2` (commit c) serves since";
        assert_eq!(end("failed", Some("ok")), is("newer", 2, Exit::Failed, failed));
    }

    #[test]
    fn who_does_not_hold_the_lock_is_told_why() {
        let ended = |verdict: &str| ended_as("1", Some(&record(verdict, "")));
        assert_eq!(ended("ok"), "`1` ended as ok at T, and holds nothing");
        assert_eq!(ended("activating"), "`1` is not at work on the VPS any more: why");
        assert_eq!(ended_as("2", None), "there is no deploy `2`");
    }

    #[test]
    fn a_release_with_a_unit_that_is_down_does_not_serve() {
        let units = |states: &[&str]| {
            let unit = |(n, state): (usize, &&str)| (format!("u{n}.service"), (*state).to_owned());
            states.iter().enumerate().map(unit).collect::<Vec<_>>()
        };
        let optional = ["u1.service".to_owned()];
        let said = |states: &[&str], at_work| {
            let check = running(&units(states), &optional, at_work);
            (check.verdict, check.exit, check.detail)
        };
        let pass = |text: &str| (Verdict::Pass, Exit::Ok, text.to_owned());
        assert_eq!(said(&["active", "active", "reloading"], false), pass("3 of 3 units are active"));
        assert_eq!(said(&["active", "inactive", "active"], false), pass("2 of 2 units are active"));
        let down = "2 of 3 units are not active: u0 is inactive, u2 is failed".to_owned();
        let states = ["inactive", "active", "failed"];
        assert_eq!(said(&states, false), (Verdict::Fail, Exit::Failed, down.clone()));
        assert_eq!(said(&states, true), (Verdict::Warn, Exit::Ok, down));
        assert_eq!(said(&[], false).0, Verdict::Fail, "silence is no pass");
    }

    #[test]
    fn what_serves_is_not_settled_while_it_is_being_activated() {
        let first = unknown(&[], None);
        assert_eq!(
            (first.detail.as_str(), first.hint.as_deref()),
            ("nothing was deployed yet", Some("ua-deploy plan"))
        );
        let records = [record("activating", ",\"exit_code\":34")];
        let at_work = |id: &str| Holder {
            text: format!("ua-deploy forward {id} by op"),
            step: Some("switch".to_owned()),
        };
        let now = unknown(&records, Some(&at_work("1")));
        assert_eq!(now.detail, "not settled yet: `1` is being activated, at step `switch`");
        assert_eq!(now.hint.as_deref(), Some("ua-deploy attach 1"));
        for holder in [None, Some(at_work("2"))] {
            let dead = unknown(&records, holder.as_ref());
            assert!(dead.detail.starts_with("nobody knows: `1` ended as activating"), "{dead:?}");
        }
    }

    #[test]
    fn a_bad_commit_goes_out_again_only_with_a_word() {
        let mut vps = report();
        warn_of_bad(&[record("rolled-back", "")], "c", &mut vps);
        assert_eq!((vps.checks[0].id.as_ref(), vps.exit()), ("source.bad", Exit::Ok));
        assert_eq!(vps.checks[0].detail, "commit c is marked bad since T (`1`): why");
        assert_eq!(vps.data["bad"]["why"], "why");
        let mut vps = report();
        warn_of_bad(&[record("ok", "")], "c", &mut vps);
        assert!(vps.checks.is_empty());
    }

    #[test]
    fn what_was_overwritten_can_be_found_again_if_it_was() {
        for (serving, found) in [("new", true), ("old", false)] {
            let mut vps = report();
            vps.push(Check::warn("drift", "a.py"));
            vps.data.insert("serving".to_owned(), serving.into());
            kept("1", &mut vps);
            let backup = "/var/lib/ua-deploy/releases/1/backup/tree";
            assert_eq!(vps.checks[0].detail.contains(backup), found);
            assert_eq!(vps.checks[0].hint.is_some(), found);
        }
    }

    #[test]
    fn files_are_counted_as_a_person_does() {
        assert_eq!(sent(34, 34), "34 of 34 files were sent");
        assert_eq!(sent(1, 34), "1 of 34 files was sent, the others are there");
        assert_eq!(sent(0, 34), "0 of 34 files were sent: all are there already");
        assert_eq!(sent(1, 1), "1 of 1 file was sent");
    }

    #[test]
    fn an_interruption_after_the_activation_says_what_serves_and_how_to_go_on() {
        let stopped = |step, failure: Failure| {
            let stopped = Stopped { step, error: failure.into() }.after_activation("1");
            (stopped.error.to_string(), Failure::within(&stopped.error).1.map(str::to_owned))
        };
        let attach = Some("ua-deploy attach 1".to_owned());
        let interrupted = || Failure::new(Exit::Interrupted, "interrupted while `ssh` ran; it was ended");
        let left = "interrupted here; `1` serves, but nobody has confirmed it".to_owned();
        assert_eq!(stopped("staging", interrupted()), (left, attach.clone()));
        let confirmed = "interrupted here; `1` serves, and is confirmed".to_owned();
        assert_eq!(stopped("public", interrupted()), (confirmed, attach.clone()));
        let restoring = interrupted().hint("ua-deploy attach 1");
        assert_eq!(stopped("restore", restoring), (interrupted().to_string(), attach));
        assert_eq!(stopped("staging", Failure::new(Exit::Failed, "x")), ("x".to_owned(), None));
    }
}
