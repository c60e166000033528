//! Every check that a change must pass, and the acceptance test in the lab.

mod changed;
mod summary;
mod unit;

use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use camino::Utf8PathBuf;
use clap::ValueEnum;

use self::summary::Summary;
use crate::cache::Cache;
use crate::lab::{self, Lab};
use crate::matrix;
use crate::setup;
use crate::ui::{self, Progress};

/// How long each tier should take on two cores with nothing else running, and everything built.
const CHECK_LIMIT: Duration = Duration::from_mins(3);
const TRIALS_LIMIT: Duration = Duration::from_mins(10);
const TEST_LIMIT: Duration = Duration::from_mins(15);

/// `cargo xtask check`: format, clippy, shellcheck, unit and CLI tests. Needs no root and installs nothing.
pub fn check() -> Result<()> {
    Summary::print_after(|summary| summary.part("check", Some(CHECK_LIMIT), check_parts))
}

/// `cargo xtask test [--changed]`: the check, then the lab's trials: all, or those that the changes may affect.
pub fn test(only_changed: bool, progress: &Progress) -> Result<()> {
    let mut options = E2e::default();
    if only_changed {
        options.left_out = changed::unaffected(changed::paths()?.iter().map(String::as_str));
    }
    Summary::print_after(|summary| {
        summary.part("total", Some(TEST_LIMIT), |summary| {
            let available = lab::availability();
            if available.is_ok() {
                setup::ensure(&Cache::open()?, progress)?;
            }
            summary.part("check", Some(CHECK_LIMIT), check_parts)?;
            match available {
                _ if !changed::leaves_trials(&options.left_out) => {
                    ui::note("no trial of the lab runs what was changed");
                    Ok(())
                }
                Ok(()) => summary.part("lab trials", Some(TRIALS_LIMIT), |_| e2e(&options, progress)),
                Err(reason) => {
                    summary.skip("lab trials", &reason);
                    Ok(())
                }
            }
        })
    })
}

fn check_parts(summary: &mut Summary) -> Result<()> {
    summary.part("format", None, |_| cargo(&["fmt", "--all", "--check"]))?;
    summary.part("clippy", None, |_| {
        cargo(&["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"])
    })?;
    summary.part("shellcheck", None, shellcheck)?;
    unit::test(summary)
}

/// How much of the deploy fault matrix is run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Matrix {
    /// A seeded sample.
    #[default]
    Sample,
    /// Every fault at every step, and every bad release.
    Full,
}

/// Options of `cargo xtask e2e`.
#[derive(Clone, Debug, Default)]
pub struct E2e {
    /// Only trials whose names contain this.
    pub filter: Option<String>,
    /// Modules whose trials are left out.
    pub left_out: Vec<&'static str>,
    /// Part of the deploy fault matrix.
    pub matrix: Matrix,
    /// Number of labs; by memory and cores if absent.
    pub labs: Option<usize>,
    /// File for the time of each trial, as JSON.
    pub profile: Option<Utf8PathBuf>,
}

/// `cargo xtask e2e [FILTER]`: the acceptance test, on labs of its own unless they are up already.
pub fn e2e(options: &E2e, progress: &Progress) -> Result<()> {
    let available = lab::availability().is_ok();
    let kept = lab::running()?;
    let mut labs = 1;
    if available {
        prepare(progress)?;
        labs = options.labs.unwrap_or_else(default_labs).clamp(1, count_trials(options)?.max(1));
        Lab::up_all(labs, progress)?;
        for number in 0..labs {
            Lab::attach_number(number)?.install_tools(&lab::built_tools()?)?;
        }
    }
    // Where there is no lab, the trials themselves say so.
    let table = tempfile::NamedTempFile::new()?;
    let mut trials = trials(options);
    trials.arg(format!("--test-threads={labs}")).env("UA_MATRIX_TABLE", table.path());
    if let Some(profile) = &options.profile {
        trials.env("UA_TRIAL_TIMES", std::path::absolute(profile)?);
    }
    let tested = run(&mut trials);
    // What came out of the matrix is told even if it is not good.
    let lines = fs_err::read_to_string(table.path())?;
    if !lines.is_empty() {
        ui::data(matrix::table(&lines));
    }
    let tested = tested.and_then(|()| {
        // The lab's own verbs, which the trials above stand on.
        if available && options.filter.is_none() && options.left_out.is_empty() {
            cargo(&["test", "--package", "xtask", "--test", "lab", "--", "--ignored", "--test-threads=1"])
        } else {
            Ok(())
        }
    });
    if available {
        Lab::down_except(&kept)?;
    }
    tested
}

/// The test runner of the lab.
fn trials(options: &E2e) -> Command {
    let mut command = Command::new(env!("CARGO"));
    command.args(["test", "--package", "ua-tests", "--test", "lab", "--"]).args(&options.filter);
    command.args(options.left_out.iter().flat_map(|module| ["--skip".to_owned(), format!("{module}::")]));
    if options.matrix == Matrix::Full {
        command.env("UA_MATRIX", "full");
    }
    command
}

fn count_trials(options: &E2e) -> Result<usize> {
    let listed =
        trials(options).arg("--list").current_dir(lab::checkout()?).stderr(Stdio::inherit()).output()?;
    if !listed.status.success() {
        bail!("the trials cannot be listed");
    }
    Ok(String::from_utf8_lossy(&listed.stdout).lines().filter(|line| line.ends_with(": test")).count())
}

/// Returns how many labs this machine can run at once: trials mostly wait, and a lab takes up to 2 GiB.
fn default_labs() -> usize {
    let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let memory = fs_err::read_to_string("/proc/meminfo").unwrap_or_default();
    let available =
        memory.lines().find_map(|line| line.strip_prefix("MemAvailable:")?.trim().strip_suffix(" kB"));
    let gib = available.and_then(|kib| kib.parse::<usize>().ok()).unwrap_or_default() / (1024 * 1024);
    (cores + cores / 2).min(gib / 2).max(1)
}

/// Builds the tools, and meanwhile whatever the lab lacks.
pub fn prepare(progress: &Progress) -> Result<()> {
    thread::scope(|scope| {
        let lab = scope.spawn(|| lab::prepare(progress));
        build_tools()?;
        lab::joined(lab)
    })
}

/// Builds what the lab's laptop has in `/opt/ua/bin`, and what makes the rest of a package.
pub fn build_tools() -> Result<()> {
    cargo(&["build", "--workspace", "--exclude", "xtask", "--bins", "--profile", "lab", "--quiet"])
}

/// Builds one tool as it is shipped.
pub fn build_release(tool: &str) -> Result<()> {
    cargo(&["build", "--package", tool, "--bins", "--release", "--quiet"])
}

/// `cargo xtask docs`: writes the documents that are made from the code, or only sees that they are as it says.
pub fn docs(check: bool) -> Result<()> {
    if check {
        return cargo(&["test", "--quiet", "--package", "ua-docs", "--test", "docs"]);
    }
    cargo(&["run", "--quiet", "--package", "ua-docs", "--", "documents", "docs"])
}

fn shellcheck(summary: &mut Summary) -> Result<()> {
    for program in ["git", "shellcheck"] {
        if !unit::is_installed(program) {
            summary.skip("shellcheck", &format!("`{program}` is not installed"));
            return Ok(());
        }
    }
    let listed = Command::new("git")
        .args(["ls-files", "-z", "*.sh", ".ci/run"])
        .current_dir(lab::checkout()?)
        .output()?;
    ensure!(listed.status.success(), "git ls-files: {}", String::from_utf8_lossy(&listed.stderr).trim());
    let scripts = String::from_utf8(listed.stdout).context("names of scripts are text")?;
    // What is sent to a shell has no line that names one.
    run(Command::new("shellcheck").arg("--shell=sh").args(scripts.split_terminator('\0')))
}

fn cargo(arguments: &[&str]) -> Result<()> {
    run(Command::new(env!("CARGO")).args(arguments))
}

/// Runs a step in the checkout, on our own streams.
fn run(command: &mut Command) -> Result<()> {
    let shown = announce(command);
    let status =
        command.current_dir(lab::checkout()?).status().with_context(|| format!("cannot run {shown}"))?;
    if !status.success() {
        bail!("failed: {shown}");
    }
    Ok(())
}

/// Prints a command before it runs, and returns it as text.
fn announce(command: &Command) -> String {
    let shown = format!("{command:?}").replace('"', "");
    ui::note(format!(
        "== {}",
        shown.split_once("cargo").map_or(shown.as_str(), |(_, rest)| rest.trim_start())
    ));
    shown
}
