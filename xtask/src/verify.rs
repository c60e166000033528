//! Every check that a change must pass, and the acceptance test in the lab.

use std::process::Command;
use std::thread;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use crate::cache::Cache;
use crate::lab::{self, Lab};
use crate::matrix;
use crate::setup;
use crate::ui::{self, Progress};

/// `cargo xtask test`: format, clippy, shellcheck, unit and CLI tests, then the lab.
pub fn test(progress: &Progress) -> Result<()> {
    setup::ensure(&Cache::open()?, progress)?;
    cargo(&["fmt", "--all", "--check"])?;
    cargo(&["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"])?;
    shellcheck()?;
    // The lab's trials come last, with a lab.
    cargo(&["test", "--workspace", "--exclude", "ua-tests", "--quiet"])?;
    e2e(None, Matrix::Sample, progress)
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

/// `cargo xtask e2e [FILTER]`: the acceptance test, in a lab of its own unless one is up already.
pub fn e2e(filter: Option<&str>, matrix: Matrix, progress: &Progress) -> Result<()> {
    let available = lab::availability();
    let kept = Lab::attach().is_ok();
    if available.is_ok() {
        prepare(progress)?;
        let lab = Lab::up(progress)?;
        lab.install_tools(&lab::built_tools()?)?;
    }
    // Where there is no lab, the trials themselves say so.
    let mut arguments = vec!["test", "--package", "ua-tests", "--test", "lab", "--"];
    arguments.extend(filter);
    let table = tempfile::NamedTempFile::new()?;
    let mut trials = Command::new(env!("CARGO"));
    trials.args(arguments).env("UA_MATRIX_TABLE", table.path());
    if matrix == Matrix::Full {
        trials.env("UA_MATRIX", "full");
    }
    let tested = run(&mut trials);
    // What came out of the matrix is told even if it is not good.
    let lines = fs_err::read_to_string(table.path())?;
    if !lines.is_empty() {
        ui::data(matrix::table(&lines));
    }
    let tested = tested.and_then(|()| {
        // The lab's own verbs, which the trials above stand on.
        let all = available.is_ok() && filter.is_none();
        if all {
            cargo(&["test", "--package", "xtask", "--test", "lab", "--", "--ignored", "--test-threads=1"])
        } else {
            Ok(())
        }
    });
    if available.is_ok() && !kept {
        Lab::down()?;
    }
    tested
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
fn build_tools() -> Result<()> {
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

fn shellcheck() -> Result<()> {
    let listed = Command::new("git")
        .args(["ls-files", "-z", "*.sh", ".ci/run"])
        .current_dir(lab::checkout()?)
        .output()?;
    let scripts = String::from_utf8(listed.stdout).context("names of scripts are text")?;
    // What is sent to a shell has no line that names one.
    run(Command::new("shellcheck").arg("--shell=sh").args(scripts.split_terminator('\0')))
}

fn cargo(arguments: &[&str]) -> Result<()> {
    run(Command::new(env!("CARGO")).args(arguments))
}

/// Runs a step in the checkout, on our own streams.
fn run(command: &mut Command) -> Result<()> {
    let shown = format!("{command:?}").replace('"', "");
    ui::note(format!(
        "== {}",
        shown.split_once("cargo").map_or(shown.as_str(), |(_, rest)| rest.trim_start())
    ));
    let status =
        command.current_dir(lab::checkout()?).status().with_context(|| format!("cannot run {shown}"))?;
    if !status.success() {
        bail!("failed: {shown}");
    }
    Ok(())
}
