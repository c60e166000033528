//! What a lab has started, written down before it is started, so that any later run can take it away.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use camino::{Utf8Path, Utf8PathBuf};
use fs_err as fs;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Equipment, Node, cgroup, rootless};
use crate::cache::fingerprint;
use crate::ui::{Progress, Step};

/// The state directory of one lab of a checkout.
#[derive(Debug, Clone)]
pub(super) struct State {
    dir: Utf8PathBuf,
    key: String,
    number: usize,
}

/// A process that cannot be mistaken for a later one of the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Process {
    pub pid: i32,
    /// Clock ticks after boot, from `/proc/PID/stat`.
    started: u64,
}

/// Everything a lab has on the machine outside of its own namespaces.
///
/// The anchor is the first process of the lab's PID namespace, in the mount and network namespaces of the lab: with
/// its end the kernel ends every process in there, and takes the mounts, the bridge and the links away.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// The boot that the process numbers belong to.
    boot: String,
    /// The checkout this lab belongs to, for a person to read.
    checkout: Utf8PathBuf,
    /// The process that everything else lives and dies with.
    pub anchor: Option<Process>,
    /// The first process of each node, as the host numbers it.
    pub nodes: BTreeMap<Node, Process>,
    /// What the VPS has beyond the base state.
    #[serde(default)]
    pub equipment: Equipment,
    /// The file that the VPS's disk lies in, while it has a name.
    #[serde(default)]
    pub image: Option<Utf8PathBuf>,
    /// Whether `lab up`, and what changed the lab since, came to its end.
    pub ready: bool,
}

/// Held while a lab is brought up or taken down.
#[derive(Debug)]
pub(super) struct Lock {
    _file: fs::File,
}

impl State {
    /// State directory of the lab with this number, for the checkout this program was built from.
    pub fn of_this_checkout(number: usize) -> Result<Self> {
        let checkout = fingerprint(&[super::checkout()?.as_str().as_bytes()]);
        let key = if number == 0 { checkout } else { format!("{checkout}-{number}") };
        Ok(Self { dir: rootless::state_root().join(&key), key, number })
    }

    /// Every lab of this checkout that left a state directory, by number.
    pub fn all_of_this_checkout() -> Result<Vec<Self>> {
        let first = Self::of_this_checkout(0)?;
        let listed = match fs::read_dir(rootless::state_root()) {
            Ok(listed) => listed,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let mut numbers = BTreeSet::new();
        for entry in listed {
            let name = entry?.file_name();
            let rest = name.to_str().and_then(|name| name.strip_prefix(&first.key));
            let rest = rest.map(|rest| rest.strip_suffix(".lock").unwrap_or(rest));
            numbers.extend(rest.and_then(|rest| match rest {
                "" => Some(0),
                _ => rest.strip_prefix('-')?.parse().ok(),
            }));
        }
        numbers.into_iter().map(Self::of_this_checkout).collect()
    }

    /// Number of the lab within its checkout.
    pub fn number(&self) -> usize {
        self.number
    }

    pub fn dir(&self) -> &Utf8Path {
        &self.dir
    }

    /// What names of this lab carry.
    pub fn key(&self) -> &str {
        &self.key
    }

    fn root(&self) -> &Utf8Path {
        self.dir.parent().unwrap_or(&self.dir)
    }

    fn record_file(&self) -> Utf8PathBuf {
        self.dir.join("record.json")
    }

    fn lock_file(&self) -> Utf8PathBuf {
        self.dir.with_extension("lock")
    }

    /// Takes the lock for `purpose`. While another process has it, names that one and waits, but not for ever.
    pub fn lock(&self, purpose: &str, patience: Duration, progress: &Progress) -> Result<Lock> {
        let path = self.lock_file();
        fs::create_dir_all(self.root())?;
        let begun = Instant::now();
        let mut waiting: Option<Step> = None;
        loop {
            let mut file = fs::OpenOptions::new().create(true).append(true).read(true).open(&path)?;
            if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
                // The last holder may have removed the file that we just opened.
                if !same_file(&file, &path) {
                    continue;
                }
                file.set_len(0)?;
                writeln!(file, "{purpose}, process {}", std::process::id())?;
                if let Some(step) = waiting {
                    step.done();
                }
                return Ok(Lock { _file: file });
            }
            let holder = fs::read_to_string(&path).unwrap_or_default();
            if begun.elapsed() > patience {
                bail!("the lab is busy: {}", holder.trim());
            }
            waiting.get_or_insert_with(|| progress.step(format!("wait for {}", holder.trim())));
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The record, if there is one.
    pub fn read(&self) -> Result<Option<Record>> {
        read_json(&self.record_file())
    }

    /// Makes an empty state directory with a new record.
    pub fn create(&self) -> Result<Record> {
        fs::create_dir_all(&self.dir)?;
        // Private keys will lie in it.
        crate::setup::set_mode(&self.dir, 0o700)?;
        let record = Record { boot: boot()?, checkout: super::checkout()?, ..Record::default() };
        self.write(&record)?;
        Ok(record)
    }

    /// Replaces the record in one step.
    pub fn write(&self, record: &Record) -> Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(&self.dir)?;
        serde_json::to_writer_pretty(&mut file, record)?;
        file.persist(self.record_file())?;
        Ok(())
    }

    /// Ends whatever the record lists, and removes every trace of it.
    pub fn sweep(&self, _lock: &Lock) -> Result<()> {
        let record = self.read()?;
        if let Some(anchor) = record.as_ref().and_then(Record::living_anchor) {
            anchor.end()?;
        }
        if let Some(image) = record.and_then(|record| record.image)
            && image.exists()
        {
            fs::remove_file(image)?;
        }
        cgroup::remove(&self.key)?;
        if self.dir.exists() {
            fs::remove_dir_all(&self.dir)?;
        }
        Ok(())
    }

    /// Removes the lock too, once nothing else is left.
    pub fn remove_lock(&self, lock: Lock) -> Result<()> {
        fs::remove_file(self.lock_file())?;
        drop(lock);
        // Fails as long as another checkout has a lab.
        let _ = fs::remove_dir(self.root());
        Ok(())
    }
}

impl Record {
    /// The anchor, if it lives.
    pub fn living_anchor(&self) -> Option<Process> {
        let this_boot = boot().is_ok_and(|boot| boot == self.boot);
        self.anchor.filter(|anchor| this_boot && anchor.lives())
    }
}

impl Process {
    /// The living process `pid`.
    pub fn of(pid: i32) -> Result<Self> {
        let started = started(pid).with_context(|| format!("process {pid} has ended"))?;
        Ok(Self { pid, started })
    }

    /// Whether it is still there, and not only as a zombie.
    pub fn lives(self) -> bool {
        started(self.pid) == Some(self.started)
    }

    /// Sends it a signal, if it still is the process that was meant.
    pub fn signal(self, signal: Signal) -> Result<()> {
        let Some(pid) = Pid::from_raw(self.pid).filter(|_| self.lives()) else { return Ok(()) };
        match kill_process(pid, signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Kills it and waits for its end.
    pub fn end(self) -> Result<()> {
        self.signal(Signal::KILL)?;
        super::wait_until("a process ends", Duration::from_secs(20), || Ok(!self.lives()))
    }

    /// Writes it into a file.
    pub fn store(self, file: &Utf8Path) -> Result<()> {
        Ok(fs::write(file, serde_json::to_vec(&self)?)?)
    }

    /// Reads it from a file, if there is one.
    pub fn load(file: &Utf8Path) -> Result<Option<Self>> {
        read_json(file)
    }
}

/// A living anchor of any lab whose state lies in `root`, of this checkout if there is one.
pub(super) fn any_anchor(root: &Utf8Path) -> Result<Option<Process>> {
    let checkout = super::checkout()?;
    let Ok(labs) = root.read_dir_utf8() else { return Ok(None) };
    let records =
        labs.flatten().filter_map(|lab| read_json::<Record>(&lab.path().join("record.json")).ok()?);
    let mut living: Vec<_> = records.filter(|record| record.living_anchor().is_some()).collect();
    living.sort_by_key(|record| record.checkout != checkout);
    Ok(living.first().and_then(Record::living_anchor))
}

fn read_json<T: DeserializeOwned>(file: &Utf8Path) -> Result<Option<T>> {
    match fs::read(file) {
        Ok(text) => Ok(Some(serde_json::from_slice(&text).with_context(|| format!("cannot read `{file}`"))?)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// When the process started; none if it has ended.
fn started(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may contain anything; state and start time are fields 3 and 22.
    let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    (fields[0] != "Z" && fields[0] != "X").then(|| fields[19].parse().ok()).flatten()
}

fn boot() -> Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

fn same_file(file: &fs::File, path: &Utf8Path) -> bool {
    let id = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
    match (file.metadata(), fs::metadata(path)) {
        (Ok(open), Ok(named)) => id(open) == id(named),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> (tempfile::TempDir, State) {
        let temp = tempfile::tempdir().unwrap();
        let dir = Utf8Path::from_path(temp.path()).unwrap().join("lab");
        (temp, State { dir, key: "test".to_owned(), number: 0 })
    }

    #[test]
    fn a_record_comes_back_as_it_was_written() {
        let (_temp, state) = state();
        assert_eq!(state.read().unwrap(), None);
        let mut record = state.create().unwrap();
        record.anchor = Some(Process::of(1).unwrap());
        record.nodes.insert(Node::Laptop, Process::of(1).unwrap());
        state.write(&record).unwrap();
        assert_eq!(state.read().unwrap(), Some(record));
    }

    #[test]
    fn a_process_of_the_same_number_but_another_start_is_not_ours() {
        let me = Process::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(me.lives());
        assert!(!Process { started: me.started + 1, ..me }.lives());
    }

    #[test]
    fn an_anchor_of_another_boot_is_not_alive() {
        let (_temp, state) = state();
        let mut record = state.create().unwrap();
        record.anchor = Some(Process::of(1).unwrap());
        assert!(record.living_anchor().is_some());
        record.boot = "another".to_owned();
        assert_eq!(record.living_anchor(), None);
    }

    #[test]
    fn sweep_named_disk_image_is_removed() {
        let (_temp, state) = state();
        let image = state.dir().with_file_name("disk.img");
        let mut record = state.create().unwrap();
        record.image = Some(image.clone());
        state.write(&record).unwrap();
        // Taken once: a child that another test starts holds the file until it runs its own program.
        let lock = state.lock("lab down", Duration::ZERO, &Progress::quiet()).unwrap();
        // It was written down, and not made yet.
        state.sweep(&lock).unwrap();

        state.create().unwrap();
        state.write(&record).unwrap();
        fs::write(&image, "").unwrap();
        state.sweep(&lock).unwrap();
        assert!(!image.exists() && !state.dir().exists());
    }

    #[test]
    fn a_held_lock_names_its_holder() {
        let (_temp, state) = state();
        let lock = |purpose| state.lock(purpose, Duration::ZERO, &Progress::quiet());
        let _held = lock("lab up").unwrap();
        let error = lock("lab down").unwrap_err();
        let expected = format!("the lab is busy: lab up, process {}", std::process::id());
        assert_eq!(error.to_string(), expected);
    }
}
