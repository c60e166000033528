//! Entry point of the project's chores.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, anyhow};
use camino::{Utf8Path, Utf8PathBuf};
use clap::{Parser, Subcommand};
use xtask::app::{self, Shape};
use xtask::cache::Cache;
use xtask::lab::{self, Equipment, Lab, Node, built_tools};
use xtask::setup::{self, Go};
use xtask::ui::{self, Progress};
use xtask::verify::{self, E2e, Matrix};
use xtask::{bench, demo, dist, repo};

/// The project's own chores.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
enum Chore {
    /// Install what the lab and the tests need on this machine.
    Setup,
    /// A hermetic tailnet with a VPS and a laptop.
    #[command(subcommand)]
    Lab(LabChore),
    /// The main job, for real and as a story.
    Demo {
        /// Also make pictures of its main screens, `docs/pictures/*.svg`
        #[arg(long)]
        pictures: bool,
    },
    /// Run format, clippy, shellcheck, unit and CLI tests; needs no root and installs nothing.
    Check,
    /// Run the check, then the acceptance test in the lab.
    Test {
        /// Only the trials of the crates that differ from the branch's upstream, or from `main` if it has none
        #[arg(long)]
        changed: bool,
    },
    /// Run the acceptance test in the lab.
    E2e {
        /// Only scenarios whose names contain this, such as `preflight` or `p55`
        filter: Option<String>,
        /// How much of the deploy fault matrix: a seeded sample (`UA_MATRIX_SEED`), or every cell, which takes an hour
        #[arg(long, value_enum, default_value_t)]
        matrix: Matrix,
        /// How many labs to use at once [default: by memory and cores]
        #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
        labs: Option<u16>,
        /// File to write the time of each trial to, as JSON
        #[arg(long)]
        profile: Option<Utf8PathBuf>,
    },
    /// Measure performance, as ratios in one run.
    #[command(subcommand)]
    Bench(BenchChore),
    /// Write the documents that are made from the code: man pages, exit codes, settings, the schema of the report.
    Docs {
        /// Only see that they are what the code says
        #[arg(long)]
        check: bool,
    },
    /// Build what is shipped: programs that are linked to nothing, a Debian package, checksums.
    Dist {
        /// Build it a second time, in another place and from the commit alone, and see that it is the same
        #[arg(long)]
        verify: bool,
    },
}

impl Chore {
    /// Whether it brings a lab up, or works on one.
    fn has_a_lab(&self) -> bool {
        match self {
            Self::Lab(_) | Self::Demo { .. } | Self::Test { .. } | Self::E2e { .. } | Self::Bench(_) => true,
            Self::Setup | Self::Check | Self::Docs { .. } | Self::Dist { .. } => false,
        }
    }
}

#[derive(Debug, Subcommand)]
enum BenchChore {
    /// `ua-preflight` against the two commands that it cannot do without.
    Preflight,
    /// What each verb costs over SSH, and `ua-ssh-auth check` against a bare `ssh … true`.
    Ssh,
    /// A deploy of nothing, of one file, and of 1 % of 300 MB, against what cannot be avoided.
    Deploy,
    /// `ua-sync` against one ssh that scans and one rsync: on loopback, there with 30 ms more, and on the lab's tailnet.
    Sync {
        /// The old `sync_remote_workspaces.sh`, or its directory, to be measured side by side
        #[arg(long)]
        old: Option<Utf8PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
enum LabChore {
    /// Bring the lab up, or back to its base state.
    Up,
    /// Show each node's state; exits with 1 unless all is well.
    Status,
    /// Open a shell on a node.
    Shell {
        /// control, laptop, srv1360701 (or vps), outsider
        node: Node,
        /// The user to be there
        #[arg(long, default_value = "root")]
        user: String,
    },
    /// Run a command on a node.
    Exec {
        /// control, laptop, srv1360701 (or vps), outsider
        node: Node,
        /// The user to be there
        #[arg(long, default_value = "root")]
        user: String,
        /// The command and its arguments
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Bring everything back to the base state.
    Reset,
    /// Put freshly built tools on the laptop.
    Install {
        /// Where they were built; without it, the place of `cargo build --profile lab`
        dir: Option<Utf8PathBuf>,
    },
    /// Put an app's repository on the laptop, as `~/app` of its operator `op`, and clear the VPS of any app.
    ///
    /// Without a repository it is the sample app. Only committed files reach the laptop. The options equip the VPS for a
    /// larger app: it restarts, and keeps its equipment until `lab up` or `lab down`.
    App {
        /// The app's git repository; its `HEAD` must be complete
        #[arg(value_parser = repo::parse)]
        repo: Option<Utf8PathBuf>,
        #[command(flatten)]
        equipment: Equipment,
    },
    /// Bring about each state of a tailnet, and write what the programs say into the test fixtures.
    Capture,
    /// Take the lab down, whatever is left of it.
    Down,
}

fn main() -> ExitCode {
    match run(Chore::parse()) {
        Ok(code) => code,
        Err(error) => {
            ui::note(format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(chore: Chore) -> Result<ExitCode> {
    if chore.has_a_lab() {
        lab::become_root()?;
    }
    let progress = Progress::shown();
    match chore {
        Chore::Setup => {
            let cache = Cache::open()?;
            setup::ensure(&cache, &progress)?;
            Go::ensure(&cache, &progress)?;
        }
        Chore::Lab(chore) => return run_lab(chore, &progress),
        Chore::Demo { pictures: false } => demo::run(None, &progress)?,
        Chore::Demo { pictures: true } => {
            let pictures = lab::checkout()?.join("docs/pictures");
            fs_err::create_dir_all(&pictures)?;
            demo::run(Some(&pictures), &progress)?;
        }
        Chore::Check => verify::check()?,
        Chore::Test { changed } => verify::test(changed, &progress)?,
        Chore::E2e { filter, matrix, labs, profile } => {
            let options = E2e { filter, matrix, labs: labs.map(usize::from), profile, ..E2e::default() };
            verify::e2e(&options, &progress)?;
        }
        Chore::Bench(BenchChore::Preflight) => bench::preflight(&progress)?,
        Chore::Bench(BenchChore::Ssh) => bench::ssh(&progress)?,
        Chore::Bench(BenchChore::Deploy) => bench::deploy(&progress)?,
        Chore::Bench(BenchChore::Sync { old }) => bench::sync(old.as_deref(), &progress)?,
        Chore::Docs { check } => verify::docs(check)?,
        Chore::Dist { verify: false } => dist::dist(&progress)?,
        Chore::Dist { verify: true } => dist::verify(&progress)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn run_lab(chore: LabChore, progress: &Progress) -> Result<ExitCode> {
    match chore {
        LabChore::Up => {
            Lab::up(progress)?;
            ui::note("the lab is up; `cargo xtask lab shell laptop` opens a shell on the operator's machine");
        }
        LabChore::Status => {
            let (lines, all_well) = Lab::attach()?.status();
            ui::data(lines.join("\n"));
            return Ok(if all_well { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        LabChore::Shell { node, user } => return enter(node, &user, &["bash".to_owned(), "-i".to_owned()]),
        LabChore::Exec { node, user, command } => return enter(node, &user, &command),
        LabChore::Reset => Lab::attach()?.reset()?,
        LabChore::Install { dir } => Lab::attach()?.install_tools(&dir.map_or_else(built_tools, Ok)?)?,
        LabChore::App { repo, equipment } => {
            let lab = Lab::attach()?;
            let work = tempfile::tempdir()?;
            let copy = Utf8Path::from_path(work.path()).context("a temporary directory is text")?.join("app");
            match repo {
                Some(repo) => repo::copy(&repo, &copy)?,
                None => app::make_repo(&copy, Shape::Feb).map(drop)?,
            }
            lab.equip(&equipment, progress)?;
            app::clear(&lab, Shape::Feb)?;
            app::bring(&lab, &copy)?;
        }
        LabChore::Capture => Lab::up(progress)?.capture(progress)?,
        LabChore::Down => {
            let existed = Lab::down()?;
            ui::note(if existed { "the lab is down" } else { "there was no lab" });
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Becomes the command, so that terminal, signals and exit code are its own.
fn enter(node: Node, user: &str, command: &[String]) -> Result<ExitCode> {
    let lab = Lab::attach()?;
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    let mut exec = lab.node(node).command(&words).user(user);
    if let Ok(terminal) = std::env::var("TERM") {
        exec = exec.env("TERM", &terminal);
    }
    let argv = exec.host_argv()?;
    let error = Command::new(&argv[0]).args(&argv[1..]).exec();
    Err(anyhow!(error).context("failed to start `nsenter`"))
}
