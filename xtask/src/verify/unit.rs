//! Unit and CLI tests: which can run on this machine, and several test binaries at a time.

use std::collections::VecDeque;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use serde_json::Value;

use super::summary::Summary;
use crate::lab;
use crate::ui;

/// The lab's trials: a test binary that only `cargo xtask e2e` runs.
const TRIALS: &str = "ua-tests::lab";

/// Programs that not every machine has, with the test binaries that need them.
const NEEDS: &[(&str, &[&str])] = &[];

/// Test binaries that take longest, the longest first.
const SLOW: &[&str] = &[];

/// A test binary as cargo built it.
#[derive(Debug, PartialEq, Eq)]
struct TestBinary {
    /// As nextest names it: `PACKAGE`, `PACKAGE::TEST` or `PACKAGE::bin/NAME`.
    id: String,
    program: Utf8PathBuf,
    /// Its package's directory.
    dir: Utf8PathBuf,
}

/// Builds every test binary and runs those whose programs are there; then the doc tests.
pub fn test(summary: &mut Summary) -> Result<()> {
    let binaries = summary.part("build", None, |_| build())?;
    let notes = tempfile::NamedTempFile::new()?;
    let tested = summary.part("unit and CLI tests", None, |summary| {
        let mut left_out = vec![TRIALS];
        for binary in binaries.iter().map(|binary| binary.id.as_str()) {
            if let Some(program) = missing(binary, is_installed) {
                summary.skip(binary, &format!("`{program}` is not installed"));
                left_out.push(binary);
            }
        }
        if is_installed("cargo-nextest") {
            nextest(&left_out, notes.path())
        } else {
            side_by_side(binaries.iter().filter(|it| !left_out.contains(&it.id.as_str())), notes.path())
        }
    });
    // Tests that cannot do their work here say so, as `ua_tests::skip` has it.
    for line in fs_err::read_to_string(notes.path())?.lines() {
        let (place, why) = line.split_once('\t').context("a note of a skipped test")?;
        summary.skip(place, why);
    }
    tested?;
    summary.part("doc tests", None, |_| super::cargo(&["test", "--workspace", "--doc", "--quiet"]))
}

/// Builds all test binaries. Names them, those that take longest first.
fn build() -> Result<Vec<TestBinary>> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["test", "--workspace", "--no-run", "--quiet", "--message-format=json-render-diagnostics"]);
    super::announce(&cargo);
    let built = cargo.current_dir(lab::checkout()?).stderr(Stdio::inherit()).output()?;
    ensure!(built.status.success(), "the tests do not build");
    let mut binaries = parse(&String::from_utf8(built.stdout)?)?;
    let rank = |id: &str| SLOW.iter().position(|slow| *slow == id).unwrap_or(SLOW.len());
    binaries.sort_by(|a, b| (rank(&a.id), &a.id).cmp(&(rank(&b.id), &b.id)));
    Ok(binaries)
}

/// Reads the messages of `cargo test --no-run --message-format=json`.
fn parse(messages: &str) -> Result<Vec<TestBinary>> {
    let mut binaries = Vec::new();
    for line in messages.lines() {
        let message: Value = serde_json::from_str(line)?;
        let text = |pointer: &str| message.pointer(pointer).and_then(Value::as_str);
        let (true, Some(program)) = (message["profile"]["test"] == true, text("/executable")) else {
            continue;
        };
        let manifest = Utf8Path::new(text("/manifest_path").context("no manifest")?);
        let dir = manifest.parent().context("the manifest has no directory")?;
        // `path+file:///DIR#VERSION`, or `path+file:///DIR#NAME@VERSION` if the directory is named otherwise.
        let (_, package) = text("/package_id").and_then(|id| id.rsplit_once('#')).context("no package")?;
        let package = package.split_once('@').map_or(dir.file_name().unwrap_or_default(), |(name, _)| name);
        let name = text("/target/name").context("no target")?;
        let id = match text("/target/kind/0") {
            Some("lib") => package.to_owned(),
            Some("test") => format!("{package}::{name}"),
            kind => format!("{package}::{}/{name}", kind.unwrap_or_default()),
        };
        binaries.push(TestBinary { id, program: program.into(), dir: dir.to_owned() });
    }
    Ok(binaries)
}

/// Returns the first program that this test binary needs and the machine does not have.
fn missing(binary: &str, is_installed: impl Fn(&str) -> bool) -> Option<&'static str> {
    let needs = NEEDS.iter().filter(|(_, binaries)| binaries.contains(&binary)).map(|(program, _)| *program);
    needs.into_iter().find(|program| !is_installed(program))
}

/// Whether a program is on the `PATH`, or where only root's `PATH` leads.
pub fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    dirs.any(|dir| dir.join(program).is_file())
}

fn nextest(left_out: &[&str], notes: &Path) -> Result<()> {
    let filter: Vec<String> = left_out.iter().map(|id| format!("not binary_id(={id})")).collect();
    let mut tests = Command::new(env!("CARGO"));
    tests.args(["nextest", "run", "--workspace", "--no-fail-fast", "--filterset", &filter.join(" & ")]);
    super::run(tests.env("UA_SKIPPED", notes))
}

/// Runs test binaries, as many at a time as there are cores. Prints the closing line of each, and all of its output if
/// it failed.
fn side_by_side<'a>(binaries: impl Iterator<Item = &'a TestBinary>, notes: &Path) -> Result<()> {
    let queue = Mutex::new(binaries.collect::<VecDeque<_>>());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let failed = Mutex::new(Vec::new());
    let work = || -> Result<()> {
        while let Some(binary) = next() {
            let started = Instant::now();
            let mut command = Command::new(&binary.program);
            command.current_dir(&binary.dir).env("CARGO_MANIFEST_DIR", &binary.dir).env("UA_SKIPPED", notes);
            let output = command.stdin(Stdio::null()).output().with_context(|| binary.id.clone())?;
            let stdout = String::from_utf8_lossy(&output.stdout);
            // One at a time, so that no lines of another one come between.
            let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
            ui::note(format!("   {} ({:.1} s)", binary.id, started.elapsed().as_secs_f32()));
            if output.status.success() {
                stdout.lines().filter(|line| line.starts_with("test result: ")).for_each(ui::data);
            } else {
                ui::data(stdout);
                ui::note(String::from_utf8_lossy(&output.stderr));
                failed.push(binary.id.as_str());
            }
        }
        Ok(())
    };
    thread::scope(|scope| {
        let workers = thread::available_parallelism()?.get();
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })?;
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    if !failed.is_empty() {
        bail!("failed tests: {}", failed.join(", "));
    }
    Ok(())
}
