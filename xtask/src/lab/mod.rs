//! The lab: a hermetic tailnet on this machine, with a VPS and an operator's laptop. Nothing in it is faked.
//!
//! All of it lives in namespaces of its own that one process holds, and goes with that process.

mod anchor;
mod capture;
mod cgroup;
mod control;
mod equipment;
mod layers;
mod machines;
mod node;
mod pki;
mod record;
mod rootless;
mod scenario;

use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use camino::{Utf8Path, Utf8PathBuf};
use fs_err as fs;
use rustix::fs::Mode;
use rustix::process::{geteuid, umask};

pub(crate) use self::anchor::children;
pub use self::control::{Control, SshPolicy};
pub use self::equipment::Equipment;
pub use self::machines::OPERATOR;
pub use self::node::{Exec, Machine, Node};
pub use self::rootless::become_root;
pub(crate) use self::rootless::is_mapped;

use self::anchor::Anchor;
use self::control::Servers;
use self::layers::Layers;
use self::machines::Machines;
use self::pki::Authority;
use self::record::{Lock, Process, Record, State};
use crate::cache::Cache;
use crate::cmd::Cmd;
use crate::setup;
use crate::ui::Progress;

/// The MagicDNS domain of the lab's tailnet.
pub const TAILNET: &str = "taildcc090.ts.net";
/// The names that the VPS serves to everyone, under certificates that every node trusts.
pub const PUBLIC_NAMES: [&str; 2] = ["app.clearspringcg.com", "api.clearspringcg.com"];

/// Where the operator has the app's repository, on the laptop.
pub const REPO: &str = "/root/universal_agent";

/// How long to wait for another process that brings the same lab up or takes it down. With empty caches that takes
/// minutes.
const PATIENCE: Duration = Duration::from_mins(15);

/// A lab that is up.
#[derive(Debug, Clone)]
pub struct Lab {
    state: State,
    anchor: Anchor,
}

impl Lab {
    /// Brings the lab of this checkout up, unless it is; what an earlier, killed run left is removed first.
    pub fn up(progress: &Progress) -> Result<Self> {
        readable(|| Self::up_number(0, progress))
    }

    /// Brings up labs 0 to `count - 1` of this checkout: the first one alone, since it fills the caches of all.
    pub fn up_all(count: usize, progress: &Progress) -> Result<()> {
        readable(|| {
            Self::up_number(0, progress)?;
            if count < 2 {
                return Ok(());
            }
            let step = progress.step(format!("labs 2 to {count}"));
            thread::scope(|scope| {
                let up = |number| scope.spawn(move || Self::up_number(number, &Progress::quiet()));
                let others: Vec<_> = (1..count).map(up).collect();
                others.into_iter().try_for_each(|lab| joined(lab).map(drop))
            })?;
            step.done();
            Ok(())
        })
    }

    fn up_number(number: usize, progress: &Progress) -> Result<Self> {
        availability().map_err(|reason| anyhow!("the lab cannot run here: {reason}"))?;
        let state = State::of_this_checkout(number)?;
        let lock = state.lock("lab up", PATIENCE, progress)?;
        if let Ok(lab) = Self::attach_number(number) {
            let step = progress.step("bring the running lab back to its base state");
            if lab.reset().is_ok() {
                step.done();
                return Ok(lab);
            }
        }
        let cache = Cache::open()?;
        setup::ensure(&cache, progress)?;
        Self::build(&state, &lock, &cache, progress)
    }

    fn build(state: &State, lock: &Lock, cache: &Cache, progress: &Progress) -> Result<Self> {
        let shown_at = state.dir().join("cache");
        let layers = Layers::ensure(cache, &shown_at, progress)?;
        state.sweep(lock)?;

        let step = progress.step("namespaces, control servers, disks");
        let mut record = state.create()?;
        let anchor = Anchor::start(state, &mut record)?;
        anchor.furnish(cache.root(), &shown_at)?;
        let lab = Self { state: state.clone(), anchor };
        let pki = Authority::create(state.dir().join("pki"))?;
        let machines = lab.machines();
        machines.install_tools(&built_tools()?)?;
        thread::scope(|scope| -> Result<()> {
            let servers = scope.spawn(|| lab.servers().start(&layers.control));
            let disks = Node::MACHINES.map(|node| {
                let (layers, pki) = (&layers, &pki);
                scope.spawn(move || machines.prepare(node, layers, pki))
            });
            disks.into_iter().try_for_each(joined)?;
            machines.introduce()?;
            joined(servers)
        })?;
        step.done();

        let step = progress.step("machines");
        record.nodes.insert(Node::Control, anchor.0);
        thread::scope(|scope| -> Result<()> {
            let booting = Node::MACHINES.map(|node| (node, scope.spawn(move || machines.boot(node))));
            for (node, boot) in booting {
                record.nodes.insert(node, joined(boot)?);
            }
            Ok(())
        })?;
        state.write(&record)?;
        step.done();

        let step = progress.step("tailnet, and the app's place on the VPS");
        thread::scope(|scope| -> Result<()> {
            let provisioned = scope.spawn(|| lab.provision());
            lab.join()?;
            joined(provisioned)
        })?;
        lab.keep_files()?;
        step.done();

        record.ready = true;
        state.write(&record)?;
        Ok(lab)
    }

    /// The lab of this checkout, which must be up.
    pub fn attach() -> Result<Self> {
        Self::attach_number(0)
    }

    /// The lab of this checkout with this number, which must be up.
    pub fn attach_number(number: usize) -> Result<Self> {
        let state = State::of_this_checkout(number)?;
        let record = state.read()?.filter(|record| record.ready);
        let anchor = record.and_then(|record| record.living_anchor());
        let anchor = Anchor(anchor.context("the lab is not up; `cargo xtask lab up` brings it up")?);
        Ok(Self { state, anchor })
    }

    /// Takes every lab of this checkout down, whatever is left of it. Returns whether there was one.
    pub fn down() -> Result<bool> {
        Self::down_except(&[])
    }

    /// Takes the labs of this checkout down but those with these numbers. Returns whether there was one.
    pub fn down_except(kept: &[usize]) -> Result<bool> {
        let mut existed = false;
        for state in State::all_of_this_checkout()? {
            if kept.contains(&state.number()) {
                continue;
            }
            existed |= state.dir().exists();
            let lock = state.lock("lab down", PATIENCE, &Progress::shown())?;
            state.sweep(&lock)?;
            state.remove_lock(lock)?;
        }
        Ok(existed)
    }

    /// Number of this lab within its checkout.
    pub fn number(&self) -> usize {
        self.state.number()
    }

    /// A node, to run commands on.
    pub fn node(&self, node: Node) -> Machine<'_> {
        Machine { lab: self, node }
    }

    /// The laptop.
    pub fn laptop(&self) -> Machine<'_> {
        self.node(Node::Laptop)
    }

    /// The VPS.
    pub fn vps(&self) -> Machine<'_> {
        self.node(Node::Vps)
    }

    /// Limits the memory of a node to this many bytes, or lifts the limit.
    pub fn limit_memory(&self, node: Node, limit: Option<u64>) -> Result<()> {
        cgroup::limit_memory(self.state.key(), node.name(), limit)
    }

    /// Puts the tools' programs from `dir` where the laptop has them on its `PATH`.
    pub fn install_tools(&self, dir: &Utf8Path) -> Result<()> {
        self.machines().install_tools(dir)
    }

    /// Puts a copy of the repository `from` where the operator has it, instead of what is there. git cannot work in
    /// that place from here, since its path leads through another mount namespace.
    pub fn install_repo(&self, from: &Utf8Path) -> Result<()> {
        let there = self.laptop().path(REPO)?;
        Cmd::new(["rm", "-rf", there.as_str()]).run()?;
        Cmd::new(["cp", "-R", "-T", from.as_str(), there.as_str()]).run()
    }

    /// One line per node, for a person; and whether all is as it should be.
    pub fn status(&self) -> (Vec<String>, bool) {
        let mut all_well = true;
        let lines = Node::ALL.map(|node| {
            let state = self.state_of(node);
            all_well &= state.is_ok();
            let state = state.unwrap_or_else(|error| format!("{error:#}"));
            let address = node.tailnet_address().unwrap_or("-");
            format!("{:<10} {:<12} {:<12} {state}", node.name(), node.public_address(), address)
        });
        (lines.to_vec(), all_well)
    }

    fn state_of(&self, node: Node) -> Result<String> {
        match node {
            Node::Control => {
                self.servers().headscale(&["users", "list"]).run().map(|()| "serving".to_owned())
            }
            Node::Outsider => self.node(node).command(&["true"]).run().map(|()| "running".to_owned()),
            // A node that has just found its way shows as offline for an instant.
            Node::Laptop | Node::Vps => {
                self.wait_healthy(node, Duration::from_secs(1)).map(|()| "on the tailnet".to_owned())
            }
        }
    }

    fn machines(&self) -> Machines<'_> {
        Machines { anchor: self.anchor, state: &self.state }
    }

    fn servers(&self) -> Servers {
        Servers::new(self.anchor, &self.state)
    }

    fn record(&self) -> Result<Record> {
        self.state.read()?.context("the lab was taken down")
    }

    /// The first process of a node, as the host numbers it.
    fn first_process(&self, node: Node) -> Result<Process> {
        let process = self.record()?.nodes.get(&node).copied();
        process.filter(|process| process.lives()).with_context(|| format!("`{}` is not running", node.name()))
    }

    /// Makes the VPS ready for the app, by the script that the app's tests bring along.
    fn provision(&self) -> Result<()> {
        let source = checkout()?.join("tests/app/server");
        let script = source.join("provision.sh");
        if !script.exists() {
            return Ok(());
        }
        let there = "/root/provision";
        let copy = self.vps().path(there)?;
        Cmd::new(["cp", "-R", source.as_str(), copy.as_str()]).run()?;
        let script = format!("{there}/provision.sh");
        self.vps().command(&["sh", &script, there, Node::Vps.public_address()]).run()
    }
}

/// Returns the numbers of this checkout's labs that are up.
pub fn running() -> Result<Vec<usize>> {
    let numbers = State::all_of_this_checkout()?.into_iter().map(|state| state.number());
    Ok(numbers.filter(|&number| Lab::attach_number(number).is_ok()).collect())
}

/// Installs packages and fills the cache with everything that `Lab::up` needs.
pub fn prepare(progress: &Progress) -> Result<()> {
    availability().map_err(|reason| anyhow!("the lab cannot run here: {reason}"))?;
    let cache = Cache::open()?;
    setup::ensure(&cache, progress)?;
    readable(|| Layers::ensure(&cache, cache.root(), progress)).map(drop)
}

/// Runs `write` so that the machines can read the files it makes, whatever this user's umask.
fn readable<T>(write: impl FnOnce() -> T) -> T {
    let before = umask(Mode::from_raw_mode(0o022));
    let written = write();
    umask(before);
    written
}

/// Why the lab cannot run on this machine, if so: everything that is missing.
pub fn availability() -> Result<(), String> {
    let mut missing = if geteuid().is_root() { Vec::new() } else { rootless::missing() };
    if let Err(error) = fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun") {
        missing.push(format!("no usable TUN device ({error})"));
    }
    let overlay = || fs::read_to_string("/proc/filesystems").is_ok_and(|kinds| kinds.contains("\toverlay\n"));
    if !overlay() {
        // Where it is a module, it may not have been asked for yet.
        let _ = Cmd::new(["modprobe", "overlay"]).output();
    }
    if !overlay() {
        missing.push("the kernel has no overlay file system".to_owned());
    }
    if let Err(error) = cgroup::availability() {
        missing.push(format!("{error:#}"));
    }
    let namespaces =
        ["--mount", "--net", "--pid", "--ipc", "--fork", "mount", "-t", "tmpfs", "tmpfs", "/run"];
    if geteuid().is_root()
        && let Err(error) = Cmd::new(["unshare"]).args(namespaces).run()
    {
        missing.push(format!("namespaces are not available: {error:#}"));
    }
    if let Err(error) = setup::availability() {
        missing.push(format!("{error:#}"));
    }
    if missing.is_empty() { Ok(()) } else { Err(missing.join("; ")) }
}

/// The checkout that this program was built from.
pub fn checkout() -> Result<Utf8PathBuf> {
    let root = Utf8Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the checkout")?;
    Ok(root.canonicalize_utf8()?)
}

/// Where `cargo build --profile lab` leaves the tools' programs.
pub fn built_tools() -> Result<Utf8PathBuf> {
    tools("lab")
}

/// Where cargo leaves the tools' programs of this profile.
pub fn tools(profile: &str) -> Result<Utf8PathBuf> {
    Ok(target()?.join(profile))
}

/// Where cargo leaves everything.
pub fn target() -> Result<Utf8PathBuf> {
    let target = std::env::var("CARGO_TARGET_DIR").map_or_else(|_| "target".into(), Utf8PathBuf::from);
    Ok(checkout()?.join(target))
}

/// The result of a thread; its panic goes on here.
pub(crate) fn joined<T>(thread: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Asks until there is an answer.
fn wait_for<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if begun.elapsed() > limit {
            bail!("waited {limit:?} in vain: {what}");
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Asks until it is so.
fn wait_until(what: &str, limit: Duration, mut ask: impl FnMut() -> Result<bool>) -> Result<()> {
    wait_for(what, limit, || Ok(ask()?.then_some(())))
}
