//! Unit and CLI tests: which can run on this machine, and several test binaries at a time.

use std::collections::VecDeque;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use rustix::process::geteuid;
use serde_json::Value;

use super::summary::Summary;
use crate::lab;
use crate::ui;

/// The lab's trials: a test binary that only `cargo xtask e2e` runs.
const TRIALS: &str = "ua-tests::lab";

/// The need of tests that only root can run.
const ROOT: &str = "root";

/// Programs that not every machine has, and root, with the tests that need them: `BINARY`, or `BINARY NAME` for the
/// tests of a binary whose names contain this.
const NEEDS: [(&str, &[&str]); 10] = [
    // The scripts that root runs on the VPS.
    (ROOT, &["ua-deploy::scripts"]),
    (
        "git",
        &[
            "ua-common tool::git::tests::repository_name",
            "ua-deploy release::",
            "ua-deploy::cli",
            "ua-vpsctl::cli",
            "xtask app::",
            "xtask repo::",
            "xtask::sample_worker",
        ],
    ),
    (
        "python3",
        &["ua-deploy::scripts", "ua-sync::calls the_shims_serve_a_python_caller", "xtask::sample_worker"],
    ),
    ("sqlite3", &["ua-deploy::scripts"]),
    (
        "rsync",
        &[
            "ua-common tool::rsync::tests::nothing_that_runs",
            "ua-common::transport",
            "ua-deploy::scripts",
            "ua-sync transfer::",
            "ua-sync::attacks",
            "ua-sync::calls",
            "ua-sync::histories",
            "ua-sync::mirror",
            "ua-sync::nested",
            "ua-sync::prune",
            "ua-vpsctl::cli",
            "ua-vpsctl::scripts",
        ],
    ),
    (
        "sshd",
        &[
            "ua-common::transport",
            "ua-ssh-auth::cli",
            "ua-sync::attacks",
            "ua-sync::calls",
            "ua-sync::histories",
            "ua-sync::mirror",
            "ua-sync::nested",
            "ua-sync::prune",
            "ua-vpsctl::cli",
        ],
    ),
    ("openssl", &["ua-sync toggle::", "xtask lab::pki::"]),
    ("systemd-analyze", &["ua-sync unit::"]),
    ("fish", &["ua-docs::completions every_shell", "ua-vpsctl::complete"]),
    ("zsh", &["ua-docs::completions every_shell", "ua-vpsctl::complete"]),
];

/// Test binaries that take longest, the longest first.
const SLOW: [&str; 3] = ["ua-sync::histories", "ua-deploy::scripts", "ua-sync"];

/// A test binary as cargo built it.
#[derive(Debug, PartialEq, Eq)]
struct TestBinary {
    /// As nextest names it: `PACKAGE`, `PACKAGE::TEST` or `PACKAGE::bin/NAME`.
    id: String,
    program: Utf8PathBuf,
    /// Its package's directory.
    dir: Utf8PathBuf,
}

/// Tests that are not run: a whole binary, or those whose names contain `part`.
#[derive(Debug, PartialEq, Eq)]
struct LeftOut {
    binary: &'static str,
    part: Option<&'static str>,
}

impl LeftOut {
    /// Reads an entry of [`NEEDS`].
    fn from_entry(entry: &'static str) -> Self {
        let (binary, part) =
            entry.split_once(' ').map_or((entry, None), |(binary, part)| (binary, Some(part)));
        Self { binary, part }
    }

    /// As a filter of nextest.
    fn filter(&self) -> String {
        let part = self.part.map(|part| format!(" & test({part})")).unwrap_or_default();
        format!("not (binary_id(={}){part})", self.binary)
    }
}

/// Builds every test binary, and runs the tests whose programs are installed; then the doc tests.
pub fn test(summary: &mut Summary) -> Result<()> {
    let binaries = summary.part("build", None, |_| build())?;
    let mut left_out = vec![LeftOut { binary: TRIALS, part: None }];
    for (need, entries) in missing(is_met) {
        let why = if need == ROOT { "needs root".to_owned() } else { format!("`{need}` is not installed") };
        summary.skip(&entries.join(", "), &why);
        left_out.extend(entries.iter().copied().map(LeftOut::from_entry));
    }
    let notes = tempfile::NamedTempFile::new()?;
    let tested = summary.part("unit and CLI tests", None, |_| {
        if is_installed("cargo-nextest") {
            nextest(&left_out, notes.path())
        } else {
            side_by_side(&binaries, &left_out, notes.path())
        }
    });
    // Tests that cannot run here say so by `ua_tests::skip`.
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

/// Returns the rows of [`NEEDS`] whose need is not met.
fn missing(is_met: impl Fn(&str) -> bool) -> Vec<(&'static str, &'static [&'static str])> {
    NEEDS.into_iter().filter(|(need, _)| !is_met(need)).collect()
}

fn is_met(need: &str) -> bool {
    if need == ROOT { geteuid().is_root() } else { is_installed(need) }
}

/// Whether a program is on the `PATH`, or where only root's `PATH` leads.
pub fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    dirs.any(|dir| dir.join(program).is_file())
}

fn nextest(left_out: &[LeftOut], notes: &Path) -> Result<()> {
    let filter: Vec<String> = left_out.iter().map(LeftOut::filter).collect();
    let mut tests = Command::new(env!("CARGO"));
    tests.args(["nextest", "run", "--workspace", "--no-fail-fast", "--filterset", &filter.join(" & ")]);
    super::run(tests.env("UA_SKIPPED", notes))
}

/// Runs test binaries, as many at a time as there are cores. Prints the closing line of each, and all of its output if
/// it failed.
fn side_by_side(binaries: &[TestBinary], left_out: &[LeftOut], notes: &Path) -> Result<()> {
    let whole = |binary: &&TestBinary| !left_out.iter().any(|it| it.binary == binary.id && it.part.is_none());
    let queue = Mutex::new(binaries.iter().filter(whole).collect::<VecDeque<_>>());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let failed = Mutex::new(Vec::new());
    let work = || -> Result<()> {
        while let Some(binary) = next() {
            let started = Instant::now();
            let mut command = Command::new(&binary.program);
            let parts = left_out.iter().filter(|it| it.binary == binary.id).filter_map(|it| it.part);
            command.args(parts.flat_map(|part| ["--skip", part]));
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

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGES: &str = r#"{"reason":"compiler-artifact","package_id":"path+file:///w/crates/ua-sync#0.1.0","manifest_path":"/w/crates/ua-sync/Cargo.toml","target":{"kind":["lib"],"name":"ua_sync"},"profile":{"test":false},"executable":null}
{"reason":"compiler-artifact","package_id":"path+file:///w/crates/ua-sync#0.1.0","manifest_path":"/w/crates/ua-sync/Cargo.toml","target":{"kind":["bin"],"name":"ua-sync"},"profile":{"test":false},"executable":"/w/target/debug/ua-sync"}
{"reason":"compiler-artifact","package_id":"path+file:///w/crates/ua-sync#0.1.0","manifest_path":"/w/crates/ua-sync/Cargo.toml","target":{"kind":["bin"],"name":"ua-sync"},"profile":{"test":true},"executable":"/w/target/debug/deps/ua_sync-1"}
{"reason":"compiler-artifact","package_id":"path+file:///w/xtask/docs#ua-docs@0.1.0","manifest_path":"/w/xtask/docs/Cargo.toml","target":{"kind":["lib"],"name":"ua_docs"},"profile":{"test":true},"executable":"/w/target/debug/deps/ua_docs-2"}
{"reason":"compiler-artifact","package_id":"path+file:///w/tests#ua-tests@0.1.0","manifest_path":"/w/tests/Cargo.toml","target":{"kind":["test"],"name":"lab"},"profile":{"test":true},"executable":"/w/target/debug/deps/lab-3"}
{"reason":"build-finished","success":true}"#;

    #[test]
    fn test_binaries_have_the_names_of_nextest() {
        let found = parse(MESSAGES).unwrap();
        let ids: Vec<&str> = found.iter().map(|binary| binary.id.as_str()).collect();
        assert_eq!(ids, ["ua-sync::bin/ua-sync", "ua-docs", TRIALS]);
        assert_eq!(
            (found[1].program.as_str(), found[1].dir.as_str()),
            ("/w/target/debug/deps/ua_docs-2", "/w/xtask/docs")
        );
    }

    #[test]
    fn tests_are_left_out_without_their_program() {
        assert_eq!(missing(|_| true), []);
        let rows = missing(|program| program != "openssl");
        assert_eq!(rows, [("openssl", &["ua-sync toggle::", "xtask lab::pki::"][..])]);
        let filter = |entry| LeftOut::from_entry(entry).filter();
        assert_eq!(filter("ua-sync toggle::"), "not (binary_id(=ua-sync) & test(toggle::))");
        assert_eq!(filter("ua-sync::prune"), "not (binary_id(=ua-sync::prune))");
    }

    #[test]
    fn failed_binaries_are_named() {
        let binary =
            |id: &str, program: &str| TestBinary { id: id.into(), program: program.into(), dir: "/".into() };
        let binaries = [binary("a", "/bin/true"), binary("b", "/bin/false"), binary("c", "/bin/true")];
        let run = |left_out: &[LeftOut]| side_by_side(&binaries, left_out, Path::new("/dev/null"));
        assert_eq!(run(&[]).unwrap_err().to_string(), "failed tests: b");
        run(&[LeftOut::from_entry("b")]).unwrap();
        assert!(run(&[LeftOut::from_entry("b part")]).is_err());
    }
}
