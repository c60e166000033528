//! Whatever happens to a deploy, whenever: afterwards one release serves whole, the record says which, and the next
//! deploy works.
//!
//! The matrix is the product of [`Fault`] and [`Step`], and after it come releases that are bad in themselves
//! ([`Bad`]). A seeded sample of both runs by default (`UA_MATRIX_SEED`), all of it with `UA_MATRIX=full`, and whatever
//! a filter names. A deploy is held at its step from outside: a wrapper in front of a program that the step runs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::{Mutex, PoisonError};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use camino::Utf8PathBuf;
use serde_json::Value;
use tempfile::TempDir;
use xtask::app::Edit;
use xtask::cmd::Output;
use xtask::lab::{Lab, Node, OPERATOR};
use xtask::ui;

use crate::deploy_first::{App, QUICK};
use crate::look::Look;
use crate::prober::{self, Seen};

/// What holds a deploy.
const HOLD: &str = include_str!("hold.sh");

/// How many cells and bad releases a sample has.
const SAMPLE: (usize, usize) = (6, 3);
const DEFAULT_SEED: u64 = 1;

/// For how long a link is cut.
const CUT: Duration = Duration::from_secs(40);
/// What takes the last byte of the VPS's disk.
const FILL: &str = "/var/tmp/fill";
/// Within this time everything that a deploy left running on the VPS has ended.
const REST: Duration = Duration::from_mins(3);

/// Shorter than an operator's, so that nobody waits for what is lost. Plain http inside the tailnet needs no other
/// control server.
const SETTINGS: [(&str, &str); 5] = [
    ("UA_TAILNET_STAGING_SCHEME", "http"),
    ("UA_TAILNET_STAGING_HEALTH_MAX_ATTEMPTS", "3"),
    ("UA_TAILNET_STAGING_HEALTH_SLEEP_SECONDS", "1"),
    ("UA_TRANSFER_IDLE_TIMEOUT", "20"),
    ("UA_DEPLOY_READY_TIMEOUT", "15"),
];

/// What happens to a deploy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    KillClient,
    KillRemote,
    LinkCut,
    TailscaledRestart,
    DiskFull,
    Reboot,
    SecondDeploy,
}

impl Fault {
    const ALL: [Self; 7] = [
        Self::KillClient,
        Self::KillRemote,
        Self::LinkCut,
        Self::TailscaledRestart,
        Self::DiskFull,
        Self::Reboot,
        Self::SecondDeploy,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::KillClient => "kill_client",
            Self::KillRemote => "kill_remote",
            Self::LinkCut => "link_cut",
            Self::TailscaledRestart => "tailscaled_restart",
            Self::DiskFull => "disk_full",
            Self::Reboot => "reboot",
            Self::SecondDeploy => "second_deploy",
        }
    }
}

/// When it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    Begin,
    Upload,
    Launch,
    Verify,
    Build,
    Drain,
    Switch,
    Restart,
    Units,
    Health,
    Staging,
    Confirm,
}

impl Step {
    const ALL: [Self; 12] = [
        Self::Begin,
        Self::Upload,
        Self::Launch,
        Self::Verify,
        Self::Build,
        Self::Drain,
        Self::Switch,
        Self::Restart,
        Self::Units,
        Self::Health,
        Self::Staging,
        Self::Confirm,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Begin => "begin",
            Self::Upload => "upload",
            Self::Launch => "launch",
            Self::Verify => "verify",
            Self::Build => "build",
            Self::Drain => "drain",
            Self::Switch => "switch",
            Self::Restart => "restart",
            Self::Units => "units",
            Self::Health => "health",
            Self::Staging => "staging",
            Self::Confirm => "confirm",
        }
    }

    /// Whether the VPS does it on its own, in the unit of the activation.
    fn in_activation(self) -> bool {
        (Self::Verify..=Self::Health).contains(&self)
    }

    /// The program whose run belongs to the step, when to hold it, and how to know that run from others.
    fn held_by(self) -> (&'static str, &'static str, String) {
        let at = |title: &str| ("date", "before", format!("activation_at '{title}'"));
        match self {
            // A directory of the deploy, and no record in it yet.
            Self::Begin => (
                "mkdir",
                "after",
                r#"case $# in 1) expr "$1" : /var/lib/ua-deploy/releases/ >/dev/null ;; *) false ;; esac"#
                    .to_owned(),
            ),
            Self::Upload => ("rsync", "before", r#"[ "$1" = --server ]"#.to_owned()),
            Self::Launch => {
                let passes = r"! activation && case $* in *--unit=ua-deploy-forward-*) ;; *) false ;; esac";
                ("systemd-run", "before", passes.to_owned())
            }
            Self::Verify => at("verifying the upload"),
            // In the middle of `npm run build`, as the app's user.
            Self::Build => {
                let passes = r#"activation && [ "$2" = build ] && case $1 in */ua-next) ;; *) false ;; esac"#;
                ("node", "before", passes.to_owned())
            }
            Self::Drain => at("waiting for busy workers"),
            // Sources are new, half of the build outputs too, and one is gone.
            Self::Switch => {
                let passes = r"activation_at switching && case $* in '-T '*' ./.next') ;; *) false ;; esac";
                ("mv", "before", passes.to_owned())
            }
            Self::Restart => at("restarting"),
            Self::Units => at("waiting for the units"),
            Self::Health => at("asking for health, versions and sessions"),
            Self::Staging => {
                let passes = r"unconfirmed && case $* in *' tailscale serve status '*) ;; *) false ;; esac";
                ("timeout", "before", passes.to_owned())
            }
            // The lock is taken.
            Self::Confirm => {
                let passes = r"! activation && unconfirmed && case $* in *--shared*) false ;; esac";
                ("flock", "after", passes.to_owned())
            }
        }
    }
}

/// A release that must not stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bad {
    CrashAtStart,
    CrashAfter8S,
    Health500,
    Hangs,
    PortTaken,
    FailingImports,
    RefusedUnit,
    FailingBuild,
    MissingEnvKey,
}

impl Bad {
    const ALL: [Self; 9] = [
        Self::CrashAtStart,
        Self::CrashAfter8S,
        Self::Health500,
        Self::Hangs,
        Self::PortTaken,
        Self::FailingImports,
        Self::RefusedUnit,
        Self::FailingBuild,
        Self::MissingEnvKey,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::CrashAtStart => "crash_at_start",
            Self::CrashAfter8S => "crash_after_8_s",
            Self::Health500 => "health_500",
            Self::Hangs => "hangs",
            Self::PortTaken => "port_taken",
            Self::FailingImports => "failing_imports",
            Self::RefusedUnit => "bad_unit_file",
            Self::FailingBuild => "failing_build",
            Self::MissingEnvKey => "missing_env_key",
        }
    }

    /// What is wrong with the commit; nothing if it is the machine that lacks something.
    fn edit(self) -> Option<Edit> {
        Some(match self {
            Self::CrashAtStart => Edit::ApiCrash,
            Self::CrashAfter8S => Edit::LateCrash,
            Self::Health500 => Edit::ApiBroken,
            Self::Hangs => Edit::ApiHangs,
            Self::PortTaken => Edit::PortTaken,
            // Later than the time for which a process must have lived.
            Self::FailingImports => Edit::LateWorkerCrash(12),
            Self::RefusedUnit => Edit::BadUnitFile,
            Self::FailingBuild => Edit::RedBuild,
            Self::MissingEnvKey => return None,
        })
    }

    /// The exit codes that tell the operator the truth.
    fn exits(self) -> &'static [i32] {
        match self {
            // It may be found before anything is changed, or when systemd is told to start it.
            Self::RefusedUnit => &[1, 33],
            Self::FailingBuild => &[1],
            Self::MissingEnvKey => &[31],
            _ => &[33],
        }
    }
}

/// One trial.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cell {
    Faulted(Fault, Step),
    Bad(Bad),
}

impl Cell {
    fn name(self) -> String {
        match self {
            Self::Faulted(fault, step) => format!("{}_at_{}", fault.name(), step.name()),
            Self::Bad(bad) => format!("bad_release_{}", bad.name()),
        }
    }

    /// Whether the release goes bad at a time that matters beside the limits of the built-in profile.
    fn needs_default_limits(self) -> bool {
        matches!(self, Self::Bad(Bad::CrashAfter8S | Bad::FailingImports))
    }

    fn row(self) -> (&'static str, &'static str) {
        match self {
            Self::Faulted(fault, step) => (fault.name(), step.name()),
            Self::Bad(bad) => ("bad_release", bad.name()),
        }
    }
}

/// The cells that this run is about, by the names of their trials.
pub(crate) fn trials(filter: Option<&str>) -> Result<Vec<(String, Cell)>> {
    let faulted = Fault::ALL.iter().flat_map(|&fault| Step::ALL.map(|step| Cell::Faulted(fault, step)));
    let all = faulted.chain(Bad::ALL.map(Cell::Bad));
    // Somebody who names cells means them.
    let rest = filter.and_then(|filter| filter.strip_prefix("deploy_faults::"));
    let named = rest.is_some_and(|name| !name.is_empty());
    let full = match std::env::var("UA_MATRIX").as_deref() {
        Ok("full") => true,
        Ok("sample" | "") | Err(_) => false,
        Ok(other) => bail!("UA_MATRIX is `{other}`, neither `full` nor `sample`"),
    };
    let cells: Vec<Cell> = if named || full {
        all.collect()
    } else {
        let seed = seed("UA_MATRIX_SEED")?.unwrap_or(DEFAULT_SEED);
        ui::note(format!("deploy_faults: a sample, UA_MATRIX_SEED={seed}; UA_MATRIX=full runs all"));
        sample(seed)
    };
    Ok(cells.into_iter().map(|cell| (cell.name(), cell)).collect())
}

/// Seed that an environment variable sets.
pub(crate) fn seed(variable: &str) -> Result<Option<u64>> {
    match std::env::var(variable) {
        Ok(seed) if !seed.is_empty() => seed
            .parse()
            .map(Some)
            .with_context(|| format!("{variable} is `{seed}`, which is not a whole number")),
        _ => Ok(None),
    }
}

/// Cells of different faults at different steps, and some bad releases.
fn sample(seed: u64) -> Vec<Cell> {
    let mut state = seed;
    let faults = shuffled(Fault::ALL.to_vec(), &mut state);
    let steps = shuffled(Step::ALL.to_vec(), &mut state);
    let cells = faults.into_iter().zip(steps).map(|(fault, step)| Cell::Faulted(fault, step)).take(SAMPLE.0);
    let bad = shuffled(Bad::ALL.to_vec(), &mut state).into_iter().map(Cell::Bad).take(SAMPLE.1);
    cells.chain(bad).collect()
}

/// Puts `left` into an order that follows from the seed alone.
pub(crate) fn shuffled<T>(mut left: Vec<T>, state: &mut u64) -> Vec<T> {
    let mut taken = Vec::new();
    while !left.is_empty() {
        let bound = u64::try_from(left.len()).unwrap_or(u64::MAX);
        let at = usize::try_from(splitmix(state) % bound).unwrap_or_default();
        taken.push(left.swap_remove(at));
    }
    taken
}

/// The same numbers from the same seed, on every machine and for ever.
pub(crate) fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// Runs one cell, and writes its line for the table.
pub(crate) fn run(lab: &Lab, cell: Cell) -> Result<()> {
    let begun = Instant::now();
    let mut probed = Seen::default();
    let ended = World::enter(lab, cell).and_then(|mut world| {
        match cell {
            Cell::Faulted(fault, step) => world.faulted(fault, step, &mut probed)?,
            Cell::Bad(bad) => world.bad(bad, &mut probed)?,
        }
        world.leave();
        Ok(())
    });
    tell(cell, ended.is_ok(), begun.elapsed(), &probed)?;
    ended
}

/// `FAULT STEP ok|FAIL SECONDS REQUESTS FAILURES GAP` with tabs between, in the file that `UA_MATRIX_TABLE` names.
fn tell(cell: Cell, well: bool, took: Duration, probed: &Seen) -> Result<()> {
    let Some(table) = std::env::var_os("UA_MATRIX_TABLE") else { return Ok(()) };
    let (fault, step) = cell.row();
    let verdict = if well { "ok" } else { "FAIL" };
    let Seen { asked, failed, longest, .. } = probed;
    let line = format!(
        "{fault}\t{step}\t{verdict}\t{:.0}\t{asked}\t{failed}\t{:.1}\n",
        took.as_secs_f64(),
        longest.as_secs_f64()
    );
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(table)?;
    Ok(file.write_all(line.as_bytes())?)
}

/// What a cell that went well leaves to the next one: a repository whose head serves.
struct Kept {
    repo: (Utf8PathBuf, TempDir),
    count: usize,
}

/// By the number of the lab.
static KEPT: Mutex<BTreeMap<usize, Kept>> = Mutex::new(BTreeMap::new());

/// A VPS on which a good release serves, and the next commit.
struct World<'a> {
    lab: &'a Lab,
    app: App<'a>,
    cell: Cell,
    /// Releases of this repository so far.
    count: usize,
    /// What serves.
    old: String,
}

/// How a client ended.
type Ended = Result<Output>;

impl<'a> World<'a> {
    fn enter(lab: &'a Lab, cell: Cell) -> Result<Self> {
        remove_holds(lab)?;
        free_disk(lab)?;
        let kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner).remove(&lab.number());
        if let Some(Kept { repo, count }) = kept {
            let app = App::resume(lab, repo);
            let old = app.head()?;
            if app.serves(&old).is_ok() {
                return Ok(Self { lab, app, cell, count, old });
            }
        }
        lab.vps().sh("systemctl stop 'ua-deploy-*'")?;
        let app = App::fresh_here(lab)?;
        let provision = ["sh", "/root/provision/provision.sh", "/root/provision", "10.99.0.12", "--watchdog"];
        lab.vps().command(&provision).run()?;
        let old = app.head()?;
        let mut world = Self { lab, app, cell, count: 0, old };
        world.good().context("the first deploy")?;
        Ok(world)
    }

    /// Leaves everything to the next cell.
    fn leave(self) {
        let number = self.lab.number();
        let kept = Kept { count: self.count, repo: self.app.part() };
        KEPT.lock().unwrap_or_else(PoisonError::into_inner).insert(number, kept);
    }

    /// A good release on top of everything, in which nothing is as it was.
    fn commit(&mut self) -> Result<String> {
        self.count += 1;
        self.app.edit(&Edit::Release(format!("{}-{}", self.cell.name(), self.count)))
    }

    fn deploy(&self, rev: &str) -> Ended {
        let mut command = self
            .lab
            .laptop()
            .command(&["ua-deploy", "run", "--json", "--ref", rev])
            .user(OPERATOR)
            .dir("/home/op/app")
            .timeout(Duration::from_mins(5));
        for (name, value) in SETTINGS {
            command = command.env(name, value);
        }
        if !self.cell.needs_default_limits() {
            command = command.env("UA_DEPLOY_PROFILE", QUICK);
        }
        command.output()
    }

    /// A deploy of the head that nothing happens to.
    fn good(&mut self) -> Result<()> {
        let head = self.app.head()?;
        let output = self.deploy(&head)?;
        ensure!(output.code == 0, "a good deploy ended with exit {}:\n{}", output.code, shown(&output));
        let look = self.look(&[&head])?;
        let wrong = look.differs_from(&head);
        ensure!(wrong.is_empty(), "after a good deploy: {}", wrong.join("; "));
        self.old = head;
        Ok(())
    }

    /// Has `fault` happen to a deploy that is held at `step`, and judges what is left.
    fn faulted(&mut self, fault: Fault, step: Step, probed: &mut Seen) -> Result<()> {
        let earlier = self.ids()?;
        let new = self.commit()?;
        let mut commits = vec![self.old.clone(), new.clone()];
        if fault == Fault::SecondDeploy && step >= Step::Verify {
            // Before that the second one ships the same commit, so that both share the place of their upload.
            commits.push(self.commit()?);
        }
        let (ends, counted) = prober::during(self.lab, || self.strike(fault, step, &new, &self.app.head()?))?;
        *probed = counted;
        self.judge(&commits, &earlier, &ends)
            .with_context(|| format!("{} at {}", fault.name(), step.name()))?;
        self.good().context("the next deploy")
    }

    /// Deploys `new`, does it at the step, undoes it, and waits until everything has come to rest. Gives how the
    /// clients ended.
    fn strike(&self, fault: Fault, step: Step, new: &str, head: &str) -> Result<Vec<Ended>> {
        let lab = self.lab;
        let hold = Hold::set(lab, step)?;
        let mut ends = Vec::new();
        let first = thread::scope(|scope| -> Result<Ended> {
            // Goes before the client is waited for, so that nobody waits for a deploy that is held for ever.
            let hold = hold;
            let client = scope.spawn(|| self.deploy(new));
            hold.wait(&client)?;
            match fault {
                Fault::KillClient => {
                    lab.laptop().command(&["pkill", "-KILL", "-x", "ua-deploy"]).run()?;
                    // It is gone before the VPS goes on.
                    let ended = joined(client)?;
                    hold.go_on()?;
                    self.rest(&hold)?;
                    return Ok(ended);
                }
                Fault::KillRemote if step.in_activation() => {
                    let kill = ["systemctl", "kill", "--signal=KILL", "ua-deploy-forward-*.service"];
                    lab.vps().command(&kill).run()?;
                    hold.go_on()?;
                }
                Fault::KillRemote => {
                    hold.kill()?;
                    hold.go_on()?;
                }
                Fault::LinkCut => {
                    lab.cut_link(Node::Laptop)?;
                    let cut = Instant::now();
                    hold.go_on()?;
                    thread::sleep(CUT.saturating_sub(cut.elapsed()));
                    lab.restore_link(Node::Laptop)?;
                }
                Fault::TailscaledRestart => {
                    lab.restart_tailscaled(Node::Vps)?;
                    hold.go_on()?;
                }
                Fault::DiskFull => {
                    // Its services write all the time, so its size cannot be set to what is used.
                    lab.fill_disk(Node::Vps, 64)?;
                    lab.vps().sh(&format!("cat /dev/zero >{FILL}"))?;
                    hold.go_on()?;
                    let ended = joined(client)?;
                    let rested = self.rest(&hold);
                    free_disk(lab)?;
                    rested?;
                    self.rest(&hold)?;
                    return Ok(ended);
                }
                Fault::Reboot => lab.reboot(Node::Vps)?,
                Fault::SecondDeploy => {
                    ends.push(self.deploy(head));
                    hold.go_on()?;
                }
            }
            let ended = joined(client)?;
            self.rest(&hold)?;
            Ok(ended)
        })?;
        ends.push(first);
        Ok(ends)
    }

    /// Waits until nothing of a deploy is at work on the VPS any more.
    fn rest(&self, hold: &Hold<'_>) -> Result<()> {
        let script = r#"
            at_work() {
                for pid in "$@"; do [ ! -e "/proc/$pid" ] || return 0; done
                systemctl list-units --plain --no-legend --state=active,activating,deactivating,reloading \
                    'ua-deploy-*.service' | grep -v ' exited '
            }
            while at_work "$@"; do sleep 0.1; done"#;
        let pids = hold.pids();
        let mut argv = vec!["sh", "-c", script, "sh"];
        argv.extend(pids.iter().map(String::as_str));
        let vps = self.lab.vps();
        vps.command(&argv).timeout(REST).run().context("the VPS does not come to rest")
    }

    /// Deploys a release that is bad; the old one must serve.
    fn bad(&mut self, bad: Bad, probed: &mut Seen) -> Result<()> {
        let earlier = self.ids()?;
        let mut new = self.commit()?;
        if let Some(edit) = bad.edit() {
            new = self.app.edit(&edit)?;
        } else {
            let lose = "cp -p .env /run/env && sed -i /^UA_VP_DISPATCH_MODE=/d .env";
            self.lab.vps().command(&["sh", "-c", lose]).dir("/opt/universal_agent").run()?;
        }
        let (ended, counted) = prober::during(self.lab, || Ok(self.deploy(&new)))?;
        *probed = counted;
        let ended = ended?;
        let code = ended.code;
        let judged = self.judge(&[self.old.clone(), new], &earlier, &[Ok(ended)]);
        if bad.edit().is_some() {
            self.app.edit(&Edit::Repair)?;
            self.commit()?;
        } else {
            let repair = "cp -p /run/env .env && rm /run/env";
            self.lab.vps().command(&["sh", "-c", repair]).dir("/opt/universal_agent").run()?;
        }
        judged.with_context(|| format!("a release with {}", bad.name()))?;
        ensure!(bad.exits().contains(&code), "exit {code}, not one of {:?}", bad.exits());
        self.good().context("the repaired release")
    }

    /// Says everything that is not as it must be after a deploy of one of `commits`, the first of which served before.
    fn judge(&self, commits: &[String], earlier: &BTreeSet<String>, ends: &[Ended]) -> Result<()> {
        let names: Vec<&str> = commits.iter().map(String::as_str).collect();
        let look = self.look(&names)?;
        let mut wrong = Vec::new();

        // (a) One release, whole.
        let serving = look.serving();
        match &serving {
            Some(commit) => wrong.extend(look.differs_from(commit)),
            None => wrong.push(format!("no one release serves: {:?}", look.notes())),
        }
        // (b) The record says which.
        let records: Vec<Value> =
            self.app.history()?.into_iter().filter(|record| !earlier.contains(&id(record))).collect();
        let mut recorded = &self.old;
        for record in &records {
            match record["verdict"].as_str().unwrap_or_default() {
                "ok" | "unconfirmed" => {
                    let shipped = record["commit"].as_str().unwrap_or_default();
                    recorded = commits.iter().find(|commit| *commit == shipped).unwrap_or(recorded);
                }
                "failed" | "rolled-back" | "busy" | "begun" => {}
                verdict => wrong.push(format!("the record of `{}` is left as {verdict}", id(record))),
            }
        }
        if serving.as_ref().is_some_and(|serving| serving != recorded) {
            wrong.push(format!("by the records {recorded} serves"));
        }
        for ended in ends.iter().flatten() {
            // A client that knows says the truth; what killed or lost it is not asked.
            let told = match ended.code {
                0 => &commits[1..],
                30..=33 if ends.len() == 1 => &commits[..1],
                34 => &[],
                _ => continue,
            };
            if serving.as_ref().is_none_or(|serving| !told.contains(serving)) {
                wrong.push(format!("a client ended with exit {}", ended.code));
            }
        }
        // (c) No lock; and `status` agrees.
        let status = self.app.run(&["status"], &[], &[])?;
        for check in ["lock", "drift"] {
            if status.says(check, "pass", "").is_err() {
                let told = status.check(check).map_or("nothing".to_owned(), |(_, detail)| detail);
                wrong.push(format!("`ua-deploy status` says of the {check}: {told}"));
            }
        }
        // (d) Nothing is left lying about.
        wrong.extend(look.strays().iter().map(|stray| format!("{stray} is left")));
        if look.watchdog() != "active" {
            wrong.push(format!("the watchdog's timer is {}", look.watchdog()));
        }
        if wrong.is_empty() {
            return Ok(());
        }
        let mut text = String::from("afterwards:\n");
        for line in wrong {
            let _ = writeln!(text, "  - {line}");
        }
        let _ = writeln!(text, "old {}, commits {commits:?}", self.old);
        for record in &records {
            let _ = writeln!(text, "record {record}");
        }
        for ended in ends {
            match ended {
                Ok(output) => text.push_str(&shown(output)),
                Err(error) => drop(writeln!(text, "a client: {error:#}")),
            }
        }
        let log = "for log in $(ls -d /var/lib/ua-deploy/releases/*/log | tail -n 2); do
            echo \"== $log\"; tail -n 25 $log; done; journalctl --no-pager -n 15 -o cat -u 'ua-deploy-*'";
        text.push_str(&self.lab.vps().sh(log)?.stdout);
        bail!(text)
    }

    fn ids(&self) -> Result<BTreeSet<String>> {
        Ok(self.app.history()?.iter().map(id).collect())
    }

    /// State of the VPS, once all services run one release or nothing changes any more.
    fn look(&self, commits: &[&str]) -> Result<Look> {
        let begun = Instant::now();
        loop {
            let look = Look::take(self.lab, self.app.repo(), commits)?;
            if look.serving().is_some_and(|commit| look.differs_from(&commit).is_empty())
                || begun.elapsed() > Duration::from_secs(20)
            {
                return Ok(look);
            }
            thread::sleep(Duration::from_millis(300));
        }
    }
}

fn free_disk(lab: &Lab) -> Result<()> {
    lab.vps().command(&["rm", "-f", FILL]).run()?;
    lab.free_disk(Node::Vps)
}

fn id(record: &Value) -> String {
    record["id"].as_str().unwrap_or_default().to_owned()
}

/// The end of what a client said.
fn shown(output: &Output) -> String {
    let mut text = format!("a client ended with exit {}\n", output.code);
    for line in output.stdout.lines() {
        let report: Value = serde_json::from_str(line).unwrap_or_default();
        let checks = report["checks"].as_array().into_iter().flatten();
        for check in checks.filter(|check| check["verdict"] != "pass") {
            let _ = writeln!(text, "  {} {} {}", check["verdict"], check["id"], check["detail"]);
        }
    }
    let lines: Vec<&str> = output.stderr.lines().collect();
    for line in &lines[lines.len().saturating_sub(12)..] {
        let _ = writeln!(text, "  {line}");
    }
    text
}

fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> Result<T> {
    thread.join().map_err(|_| anyhow!("the deploying thread panicked"))
}

/// Holds a deploy at a step; gone with its drop.
struct Hold<'a> {
    lab: &'a Lab,
    step: Step,
}

impl<'a> Hold<'a> {
    fn set(lab: &'a Lab, step: Step) -> Result<Self> {
        let hold = Self { lab, step };
        let (program, moment, passes) = step.held_by();
        let wrapper =
            format!("#!/bin/sh\nprogram={program} moment={moment}\npasses() {{ {passes}; }}\n{HOLD}");
        // The build's user may come by too.
        let put = "mkdir /run/ua-hold && chmod 0777 /run/ua-hold && : >/run/ua-hold/wanted
            [ ! -e \"$1\" ] || mv \"$1\" \"$1.held\"
            cat >\"$1\" && chmod 0755 \"$1\"";
        let path = format!("/usr/local/bin/{program}");
        lab.vps().command(&["sh", "-ec", put, "sh", &path]).stdin(wrapper).run()?;
        Ok(hold)
    }

    /// Waits until the deploy is there.
    fn wait(&self, client: &ScopedJoinHandle<'_, Ended>) -> Result<()> {
        let begun = Instant::now();
        while self.pids().is_empty() {
            ensure!(!client.is_finished(), "the deploy ended before it came to {}", self.step.name());
            ensure!(
                begun.elapsed() < Duration::from_mins(1),
                "the deploy does not come to {}",
                self.step.name()
            );
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Who is held, and who waits for that; nobody when the machine was rebooted since.
    fn pids(&self) -> Vec<String> {
        let file = self.lab.vps().path("/run/ua-hold/held/pids");
        let text = file.and_then(|file| Ok(std::fs::read_to_string(file)?)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Kills who is held and everything that waits for it, from above, so that nobody sees the end of another.
    fn kill(&self) -> Result<()> {
        let mut pids = self.pids();
        pids.reverse();
        // The kernel may have ended some with the others.
        let kill = r#"for pid in "$@"; do kill -KILL "$pid" || :; done"#;
        let mut argv = vec!["sh", "-c", kill, "sh"];
        argv.extend(pids.iter().map(String::as_str));
        self.lab.vps().command(&argv).run()
    }

    fn go_on(&self) -> Result<()> {
        self.lab.vps().command(&["rm", "-f", "/run/ua-hold/wanted"]).run()
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        // Whoever comes next removes it before anything else.
        let _ = remove_holds(self.lab);
    }
}

/// The VPS's own programs again.
fn remove_holds(lab: &Lab) -> Result<()> {
    let programs: BTreeSet<&str> = Step::ALL.iter().map(|step| step.held_by().0).collect();
    let wrappers: Vec<String> = programs.iter().map(|program| format!("/usr/local/bin/{program}")).collect();
    let script = "rm -rf /run/ua-hold
        for path in \"$@\"; do
            if [ -e \"$path.held\" ]; then
                mv \"$path.held\" \"$path\"
            elif [ -e \"$path\" ] && head -c 100 \"$path\" | grep -aq ^program=; then
                rm \"$path\"
            fi
        done";
    let mut argv = vec!["sh", "-ec", script, "sh"];
    argv.extend(wrappers.iter().map(String::as_str));
    lab.vps().command(&argv).run()
}
