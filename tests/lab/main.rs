//! The acceptance test: real headscale, tailscaled, sshd, systemd, nginx. `cargo xtask e2e [FILTER]` runs it.
//!
//! Every trial starts from the lab's base state. Where there is no lab each one says that it was skipped, and why;
//! with `CI` set that is a failure.

mod acceptance;
mod build;
mod deploy_first;
mod dist;
mod faults;
mod look;
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
use std::sync::LazyLock;

use jsonschema::Validator;
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use serde_json::Value;
use xtask::lab::{self, Lab};
use xtask::ui;

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
    let mut arguments = Arguments::from_args();
    // There is one lab, and every scenario bends it.
    arguments.test_threads = Some(1);
    let modules: [(&str, Vec<(&'static str, Scenario)>); 12] = [
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
    let trials = modules.into_iter().flat_map(|(module, scenarios)| {
        scenarios.into_iter().map(move |(name, scenario)| {
            Trial::ignorable_test(format!("{module}::{name}"), move || trial(scenario))
        })
    });
    let faults = match faults::trials(arguments.filter.as_deref()) {
        Ok(faults) => faults,
        Err(error) => {
            ui::note(format!("error: {error:#}"));
            return ExitCode::FAILURE;
        }
    };
    let faults = faults.into_iter().map(|(name, cell)| {
        Trial::ignorable_test(format!("deploy_faults::{name}"), move || trial(|lab| faults::run(lab, cell)))
    });
    libtest_mimic::run(&arguments, trials.chain(faults).collect()).exit_code()
}

fn trial(scenario: impl FnOnce(&Lab) -> anyhow::Result<()>) -> Result<Completion, Failed> {
    let up = lab::availability().and_then(|()| Lab::attach().map_err(|error| format!("{error:#}")));
    let lab = match up {
        Ok(lab) => lab,
        Err(reason) if std::env::var_os("CI").is_some() => {
            return Err(format!("skipped in CI: {reason}").into());
        }
        Err(reason) => return Ok(Completion::ignored_with(reason)),
    };
    lab.reset().map_err(|error| format!("the lab cannot be brought back to its base state: {error:#}"))?;
    // A failed assertion must not end the other trials.
    match catch_unwind(AssertUnwindSafe(|| scenario(&lab))) {
        Ok(Ok(())) => Ok(Completion::Completed),
        Ok(Err(error)) => Err(format!("{error:#}").into()),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            Err(text.unwrap_or_else(|| "it panicked".to_owned()).into())
        }
    }
}
