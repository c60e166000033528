//! The acceptance test: real headscale, tailscaled, sshd, systemd, nginx. `cargo xtask e2e [FILTER]` runs it.
//!
//! Every trial starts from the lab's base state. Where there is no lab each one says that it was skipped, and why;
//! with `CI` set that is a failure.

mod acceptance;
mod build;
mod deploy_first;
mod dist;
mod faults;
mod flaky;
mod look;
mod pool;
mod preflight;
mod prober;
mod processes;
mod runbooks;
mod ssh_auth;
mod staging;
mod sync;
mod vpsctl;
mod watch;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::{Arc, LazyLock, PoisonError, RwLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use jsonschema::Validator;
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use serde_json::Value;
use xtask::lab::{self, Lab};
use xtask::ui;

use crate::flaky::Flaky;
use crate::pool::{Pool, Times, Took};

/// Is this a report as `docs/report.schema.json` describes it?
fn is_report(report: &Value) -> anyhow::Result<()> {
    static SCHEMA: LazyLock<Validator> = LazyLock::new(|| {
        let schema = serde_json::from_str(include_str!("../../docs/report.schema.json")).expect("JSON");
        jsonschema::validator_for(&schema).expect("a schema")
    });
    SCHEMA.validate(report).map_err(|error| anyhow::anyhow!("no report: {error}: {report:#}"))
}

/// One scenario.
type Scenario = fn(&Lab) -> anyhow::Result<()>;

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            ui::note(format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<ExitCode> {
    let mut arguments = Arguments::from_args();
    // As many trials at once as there are labs.
    let labs = arguments.test_threads.unwrap_or(1);
    arguments.test_threads = Some(labs);
    let modules: [(&'static str, Vec<(&'static str, Scenario)>); 12] = [
        ("preflight", preflight::trials()),
        ("ssh_auth", ssh_auth::trials()),
        ("deploy_first", deploy_first::trials()),
        ("build", build::trials()),
        ("processes", processes::trials()),
        ("acceptance", acceptance::criteria()),
        ("deploy", acceptance::trials()),
        ("staging", staging::trials()),
        ("vpsctl", vpsctl::trials()),
        ("sync", sync::trials()),
        ("runbooks", runbooks::trials()),
        ("dist", dist::trials()),
    ];
    let pool = lab::availability().and_then(|()| Pool::attach(labs).map_err(|error| format!("{error:#}")));
    let shared =
        Arc::new(Shared { pool, times: Times::default(), alone: RwLock::new(()), flaky: Flaky::load()? });
    let mut trials = Vec::new();
    for (module, scenarios) in modules {
        for (name, scenario) in scenarios {
            let name = format!("{module}::{name}");
            trials.push(shared.trial(module, name, scenario));
        }
    }
    for (name, cell) in faults::trials(arguments.filter.as_deref())? {
        let name = format!("deploy_faults::{name}");
        trials.push(shared.trial("deploy_faults", name, move |lab| faults::run(lab, cell)));
    }
    // No trial may depend on another one.
    let seed = match faults::seed("UA_TRIAL_SEED")? {
        Some(seed) => seed,
        None => SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
    };
    ui::note(format!("trials in the order of UA_TRIAL_SEED={seed}, on {labs} labs"));
    let trials = faults::shuffled(trials, &mut seed.clone());
    let begun = Instant::now();
    let conclusion = libtest_mimic::run(&arguments, trials);
    shared.times.tell(begun, labs)?;
    shared.flaky.tell();
    Ok(conclusion.exit_code())
}

/// State that all trials share.
struct Shared {
    /// The labs, or why there are none.
    pool: Result<Pool, String>,
    times: Times,
    /// Held by each trial for reading, and for writing by one that has to run alone.
    alone: RwLock<()>,
    flaky: Flaky,
}

impl Shared {
    fn trial(
        self: &Arc<Self>,
        module: &'static str,
        name: String,
        scenario: impl Fn(&Lab) -> anyhow::Result<()> + Send + 'static,
    ) -> Trial {
        let shared = Arc::clone(self);
        Trial::ignorable_test(name.clone(), move || match &shared.pool {
            Ok(pool) => pool.with_lab(module, |lab| shared.run(lab, &name, &scenario)),
            Err(reason) if in_ci() => Err(format!("skipped in CI: {reason}").into()),
            Err(reason) => Ok(Completion::ignored_with(reason)),
        })
    }

    /// Runs a trial, and once more without any other one beside it if it failed.
    fn run(
        &self,
        lab: &Lab,
        name: &str,
        scenario: &dyn Fn(&Lab) -> anyhow::Result<()>,
    ) -> Result<Completion, Failed> {
        let first = {
            let _others = self.alone.read().unwrap_or_else(PoisonError::into_inner);
            self.run_once(lab, name, scenario)
        };
        let Err(first) = first else { return Ok(Completion::Completed) };
        let kept = flaky::keep(lab, name, "first", &first);
        let _alone = self.alone.write().unwrap_or_else(PoisonError::into_inner);
        ui::note(format!("{name} failed, and runs once more by itself"));
        let second = self.run_once(lab, name, scenario);
        if let Err(second) = second {
            flaky::keep(lab, name, "second", &second)?;
            return Err(format!("{second}\nwhat both runs left: {}", kept?).into());
        }
        self.flaky.add(name, &kept?, &first).map(|()| Completion::Completed).map_err(Failed::from)
    }

    fn run_once(
        &self,
        lab: &Lab,
        name: &str,
        scenario: &dyn Fn(&Lab) -> anyhow::Result<()>,
    ) -> Result<(), String> {
        let begun = Instant::now();
        lab.reset()
            .map_err(|error| format!("the lab cannot be brought back to its base state: {error:#}"))?;
        let reset = begun.elapsed();
        // A failed assertion must not end the other trials.
        let result = catch_unwind(AssertUnwindSafe(|| scenario(lab)));
        self.times.add(Took {
            name: name.to_owned(),
            lab: lab.number(),
            reset,
            run: begun.elapsed().saturating_sub(reset),
        });
        match result {
            Ok(result) => result.map_err(|error| format!("{error:#}")),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
                Err(text.unwrap_or_else(|| "it panicked".to_owned()))
            }
        }
    }
}

/// Whether this runs in CI, where nothing may be skipped or flaky.
fn in_ci() -> bool {
    std::env::var_os("CI").is_some()
}
