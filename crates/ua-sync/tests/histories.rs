//! Random histories of a VPS and of a mirror whose user works in it, too, with runs that are cut off anywhere: whatever
//! happened, the next whole run has the mirror in order, and nothing of anybody's own is lost.
//!
//! `UA_SYNC_HISTORIES` is how many, `UA_SYNC_SEED` the seed of the first. A failure prints its seed and its story.
#![cfg(test)]
#![allow(clippy::unwrap_used, reason = "tests panic")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use common::Vps;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};

/// Ids as the app makes them, odd ones, and names that are none.
const IDS: [&str; 12] = [
    "session_1",
    "vp_a_external/m1",
    "vp_a_external/two words*[2]",
    "vp_b_external/größe_3",
    "session_two words",
    "session_*[3]",
    "tg_4",
    "tg_\\*5#a",
    "plain_6",
    "größe_7",
    "it's $(x) \"8\"",
    "#9;\\",
];
const NEVER: [&str; 7] = [
    "session_a|b",
    "-x",
    ".hidden",
    "remote_vps_x",
    "vp_a_external/a|b",
    "vp_a_external/-x",
    "vp_b_external/.hidden",
];
/// Paths in a workspace: some lie where others are directories.
const PATHS: [&[u8]; 14] = [
    b"a",
    b"a/b",
    b"a/b/c",
    b"work_products/report.md",
    b"work_products/sub/data",
    b"work_products",
    b"d",
    b"d/e",
    b"two words",
    b"-n",
    b"new\nline",
    b"\xff\xfe not text",
    b"x*[y]/\\z",
    b"runtime_state.db",
];
/// What is the user's own begins with this, and no two are the same.
const MINE: &str = "mine ";

/// As good as it must be, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end).unwrap()).unwrap()
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }
}

/// What lies at a path, as far as a mirror has it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Lies {
    Directory,
    File(Vec<u8>, i64, i64),
    Link(PathBuf),
}

type Contents = BTreeMap<PathBuf, Lies>;
/// A path with its mode, its time and what lies there.
type Untouched = (PathBuf, u32, i64, i64, Lies);

fn contents(root: &Path) -> Contents {
    let mut found = Contents::new();
    let mut open = vec![PathBuf::new()];
    while let Some(dir) = open.pop() {
        let Ok(entries) = fs::read_dir(root.join(&dir)) else { continue };
        for entry in entries {
            let path = dir.join(entry.unwrap().file_name());
            let at = root.join(&path);
            let meta = fs::symlink_metadata(&at).unwrap();
            let lies = if meta.is_dir() {
                open.push(path.clone());
                Lies::Directory
            } else if meta.is_symlink() {
                Lies::Link(fs::read_link(&at).unwrap())
            } else {
                Lies::File(fs::read(&at).unwrap(), meta.mtime(), meta.mtime_nsec())
            };
            found.insert(path, lies);
        }
    }
    found
}

/// Everything about a tree that somebody who only reads it does not change.
fn untouched(root: &Path) -> Vec<Untouched> {
    let mut all = contents(root);
    all.insert(PathBuf::new(), Lies::Directory);
    let each = all.into_iter().map(|(path, lies)| {
        let meta = fs::symlink_metadata(root.join(&path)).unwrap();
        (path, meta.mode(), meta.mtime(), meta.mtime_nsec(), lies)
    });
    each.collect()
}

fn is_database(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_bytes().starts_with(b"runtime_state.db"))
}

/// Removes whatever is in the way of a path, as a user would.
fn make_way(root: &Path, path: &Path) {
    for above in path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()) {
        let at = root.join(above);
        if fs::symlink_metadata(&at).is_ok_and(|meta| !meta.is_dir()) {
            fs::remove_file(at).unwrap();
        }
    }
    fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
    away(&root.join(path));
}

fn away(at: &Path) {
    match fs::symlink_metadata(at) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(at).unwrap(),
        Ok(_) => fs::remove_file(at).unwrap(),
        Err(_) => {}
    }
}

fn date(seconds: i64) -> f64 {
    f64::from(u32::try_from(seconds).unwrap())
}

/// Dates a path, be it a link.
fn set(path: &Path, at: f64) {
    let at = Duration::from_secs_f64(at);
    let at = Timespec { tv_sec: i64::try_from(at.as_secs()).unwrap(), tv_nsec: i64::from(at.subsec_nanos()) };
    let times = Timestamps { last_access: at, last_modification: at };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// How a workspace stands on the VPS.
#[derive(Clone, Debug, PartialEq)]
enum Stands {
    /// Ready; where its marker says so, as this.
    Ready(Option<String>),
    Running,
}

struct World {
    vps: Vps,
    random: Random,
    remote: BTreeMap<&'static str, Stands>,
    /// What is the user's own and must be somewhere.
    mine: BTreeSet<Vec<u8>>,
    /// Directories of the user's that were never mirrored.
    conflicts: BTreeMap<&'static str, Vec<Untouched>>,
    /// Copies that the user has not removed.
    held: BTreeSet<&'static str>,
    recorded: BTreeSet<String>,
    /// Was a run asked to keep what vanished?
    kept: bool,
    /// How old what happens on the VPS is.
    age: u64,
    count: usize,
    story: Vec<String>,
}

impl World {
    fn new(seed: u64) -> Self {
        let world = Self {
            vps: Vps::new(),
            random: Random(seed),
            remote: BTreeMap::new(),
            mine: BTreeSet::new(),
            conflicts: BTreeMap::new(),
            held: BTreeSet::new(),
            recorded: BTreeSet::new(),
            kept: false,
            age: 90_000,
            count: 0,
            story: Vec::new(),
        };
        for id in NEVER {
            world.vps.ended(id, 90_000);
        }
        world.vps.write("stray", "a file among the workspaces", 90_000);
        world.vps.write("vp_a_external/stray", "a file among the missions", 90_000);
        symlink("session_1", world.vps.remote("tg_link")).unwrap();
        world
    }

    fn tell(&mut self, words: String) {
        self.story.push(words);
    }

    /// Something happens in a workspace on the VPS.
    fn turn(&mut self, id: &'static str) {
        self.age -= 100 + self.random.next() % 500;
        let root = self.vps.remote(id);
        fs::create_dir_all(&root).unwrap();
        for _ in 0..=self.random.below(5) {
            let path = PathBuf::from(OsStr::from_bytes(self.random.pick(&PATHS)));
            self.count += 1;
            let kind = self.random.below(10);
            self.tell(format!("{id}: {kind} at {}", path.display()));
            match kind {
                0 | 1 => away(&root.join(&path)),
                2 if !is_database(&path) => {
                    make_way(&root, &path);
                    fs::create_dir(root.join(&path)).unwrap();
                }
                3 if !is_database(&path) => {
                    make_way(&root, &path);
                    let targets =
                        ["run.log", "./nothing", ".", "/etc/passwd", "../../../../x", "a/../../../y"];
                    symlink(self.random.pick(&targets), root.join(&path)).unwrap();
                }
                4 => {
                    // What there was goes into a directory of its name.
                    let Ok(before) = fs::read(root.join(&path)) else { continue };
                    if !is_database(&path) {
                        make_way(&root, &path.join("moved"));
                        fs::write(root.join(&path).join("moved"), before).unwrap();
                    }
                }
                _ => {
                    make_way(&root, &path);
                    let length = self.random.pick(&[0, 10, 10, 10, 500, 70_000]);
                    let mut text = format!("vps {} ", self.count).into_bytes();
                    text.resize(length.max(if length == 0 { 0 } else { text.len() }), b'.');
                    fs::write(root.join(&path), text).unwrap();
                    let mode = self.random.pick(&[0o644, 0o600, 0o444, 0o755]);
                    fs::set_permissions(root.join(&path), fs::Permissions::from_mode(mode)).unwrap();
                }
            }
        }
        self.end(id);
    }

    /// Ends a turn: what it wrote gets its age, and its marker says how it ended.
    fn end(&mut self, id: &'static str) {
        let root = self.vps.remote(id);
        let nested = id.split_once('/');
        let gated = id.starts_with("session_") || id.starts_with("tg_") || nested.is_some();
        let mut marker = root.join("sync_ready.json");
        away(&marker);
        if let Some((_, name)) = nested {
            let inner = root.join(name).join("sync_ready.json");
            away(&inner);
            if self.random.chance(30) {
                fs::create_dir_all(root.join(name)).unwrap();
                marker = inner;
            }
        }
        fs::write(root.join("run.log"), format!("line {}\n", self.count)).unwrap();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
        let at = now - f64::from(u32::try_from(self.age).unwrap());
        let marks = |state: &str, ready: bool, at: f64| {
            format!(r#"{{"version":1,"state":"{state}","ready":{ready},"completed_at_epoch":{at:.2}}}"#)
        };
        let (mut stands, mut young) = (Stands::Ready(None), false);
        match self.random.below(20) {
            0 if gated => {
                fs::write(&marker, marks("completed", false, at)).unwrap();
                stands = Stands::Running;
            }
            1 if gated => {
                fs::write(&marker, "{\"ready\":true,\"state\":\"comp").unwrap();
                stands = Stands::Running;
            }
            2 if gated => {
                fs::write(&marker, marks("completed", true, now)).unwrap();
                stands = Stands::Running;
            }
            3 if gated => {
                fs::write(root.join("run.log"), "").unwrap();
                stands = Stands::Running;
            }
            // Without a marker an idle log speaks, but not for a mission.
            4 | 5 if nested.is_some() => stands = Stands::Running,
            4 | 5 if gated => {}
            0 => (stands, young) = (Stands::Running, true),
            _ => {
                let state = self.random.pick(&["completed", "failed", "timed_out", "cancelled"]);
                fs::write(&marker, marks(state, true, at)).unwrap();
                stands = Stands::Ready(gated.then(|| format!("{id}|{at:.2}_{state}")));
            }
        }
        self.tell(format!("{id}: {stands:?}"));
        self.remote.insert(id, stands);
        if !young {
            let recent = now - 1000.0;
            for path in contents(&root).into_keys().chain([PathBuf::new()]).map(|path| root.join(path)) {
                if date(fs::symlink_metadata(&path).unwrap().mtime()) > recent {
                    set(&path, at);
                }
            }
            if let Some((container, _)) = nested {
                set(&self.vps.remote(container), at);
            }
        }
    }

    /// What the mirror must have of a workspace.
    fn expected(&self, id: &str) -> Contents {
        let mut all = contents(&self.vps.remote(id));
        all.retain(|path, lies| match lies {
            Lies::Link(to) => !to.starts_with("/") && !to.to_string_lossy().contains(".."),
            Lies::File(..) => !is_database(path),
            Lies::Directory => true,
        });
        all
    }

    /// What is the user's own below a path: it is the user's to remove.
    fn disown(&mut self, at: &Path) {
        for text in owned(at) {
            self.mine.remove(&text);
        }
    }

    fn token(&mut self) -> Vec<u8> {
        self.count += 1;
        let mut text = format!("{MINE}{}", self.count).into_bytes();
        text.resize(text.len() + self.random.below(8), b'.');
        self.mine.insert(text.clone());
        text
    }

    /// The user does something in the mirror.
    fn here(&mut self) {
        let copies: Vec<&'static str> = IDS.into_iter().filter(|id| self.vps.mirror(id).exists()).collect();
        if copies.is_empty() {
            return;
        }
        let id = self.random.pick(&copies);
        if self.conflicts.contains_key(id) && !self.random.chance(20) {
            return;
        }
        if let Some((container, _)) = id.split_once('/')
            && self.random.chance(5)
        {
            let root = self.vps.mirror(container);
            self.tell(format!("here: {container} goes"));
            self.disown(&root);
            fs::remove_dir_all(&root).unwrap();
            self.held.retain(|id| !id.starts_with(container));
            self.conflicts.retain(|id, _| !id.starts_with(container));
            return;
        }
        let root = self.vps.mirror(id);
        let there: Vec<PathBuf> = contents(&root).into_keys().collect();
        let path = match self.random.below(4) {
            0 => PathBuf::from(format!("own {}/note", self.random.below(3))),
            1 => PathBuf::from(OsStr::from_bytes(self.random.pick(&PATHS))),
            _ if there.is_empty() => PathBuf::from("alone"),
            _ => self.random.pick(&there),
        };
        let at = root.join(&path);
        let kind = self.random.below(12);
        self.tell(format!("here: {kind} at {id}/{}", path.display()));
        match kind {
            0 => {
                self.disown(&root);
                fs::remove_dir_all(&root).unwrap();
                self.held.remove(id);
                self.conflicts.remove(id);
                return;
            }
            1 | 2 => {
                self.disown(&at);
                away(&at);
            }
            3 => {
                self.disown_way(&root, &path);
                make_way(&root, &path);
                let target = self.token();
                symlink(OsStr::from_bytes(&target), &at).unwrap();
            }
            4 if fs::symlink_metadata(&at).is_ok_and(|meta| meta.is_file()) => {
                let name = format!("renamed {}", self.count);
                fs::rename(&at, at.with_file_name(name)).unwrap();
            }
            // Into the file, which a staged copy may share.
            5..8 if fs::symlink_metadata(&at).is_ok_and(|meta| meta.is_file()) => {
                self.disown(&at);
                let token = self.token();
                fs::write(&at, token).unwrap();
            }
            _ => {
                self.disown_way(&root, &path);
                make_way(&root, &path);
                let token = self.token();
                fs::write(&at, token).unwrap();
            }
        }
        if self.conflicts.contains_key(id) {
            self.conflicts.insert(id, untouched(&root));
        }
    }

    fn disown_way(&mut self, root: &Path, path: &Path) {
        for above in path.ancestors().filter(|above| !above.as_os_str().is_empty()) {
            let at = root.join(above);
            if above == path || !fs::symlink_metadata(&at).is_ok_and(|meta| meta.is_dir()) {
                self.disown(&at);
            }
        }
    }

    /// A directory of the user's has the name of a workspace.
    fn unrecorded(&mut self) {
        let [index, journals, incoming] =
            ["index", "staged", "incoming"].map(|place| contents(&self.vps.state(place)));
        let manifest = self.vps.manifest();
        let ours = |id: &str| {
            // Perhaps it was put there when its directory was one workspace.
            let container = id.split_once('/').map(|(container, _)| OsStr::new(container));
            let file = id.replace('/', "|");
            let named = |path: &PathBuf| {
                path.file_name() == Some(OsStr::new(&file))
                    || (container.is_some() && path.iter().count() == 2 && path.file_name() == container)
            };
            let staged = incoming
                .keys()
                .any(|path| path.ends_with(id) && path.iter().nth(1) == Some(OsStr::new("stage")));
            // A journal of what is still staged is about nothing that is in the mirror.
            index.keys().any(named)
                || (journals.keys().any(named) && !staged)
                || manifest.lines().any(|line| line.split('|').next() == Some(id))
        };
        let free: Vec<&'static str> = self.remote.keys().copied().collect();
        let id = self.random.pick(&free);
        let root = self.vps.mirror(id);
        if root.exists() || !self.vps.remote(id).exists() {
            return;
        }
        let ready = matches!(self.remote[id], Stands::Ready(_));
        if ours(id) || !ready || self.random.chance(50) {
            self.tell(format!("here: a directory of the user's own, {id}"));
            fs::create_dir_all(&root).unwrap();
            let token = self.token();
            fs::write(root.join("run.log"), token).unwrap();
            if !ours(id) {
                self.conflicts.insert(id, untouched(&root));
            }
            return;
        }
        self.tell(format!("here: the same directory, {id}"));
        fs::create_dir_all(root.parent().unwrap()).unwrap();
        let copied = Command::new("cp").args(["-a", "--"]).arg(self.vps.remote(id)).arg(&root).status();
        assert!(copied.unwrap().success());
        // Links that lead out are content that the mirror would not have.
        let leads_out = self.expected(id).values().filter(|lies| matches!(lies, Lies::Link(_))).count()
            != contents(&root).values().filter(|lies| matches!(lies, Lies::Link(_))).count();
        for (path, _) in contents(&root).iter().filter(|(path, _)| is_database(path)) {
            fs::remove_file(root.join(path)).unwrap();
        }
        if leads_out {
            fs::remove_dir_all(&root).unwrap();
            return;
        }
        self.run(&["once"], &Cut::Never);
        assert!(
            self.vps.manifest().lines().any(|line| line.split('|').next() == Some(id)),
            "{id} was the same"
        );
    }

    /// Runs it, cut off or not, and looks at everything that must hold afterwards.
    fn run(&mut self, args: &[&str], cut: &Cut) -> Option<Output> {
        let before = untouched(&self.vps.remote(""));
        let output = launch(&self.vps, args, cut);
        let whole = output.status.code().is_some_and(|code| code == 0 || code == 50);
        let shown = ua_tests::shown(&output);
        self.tell(format!("run {args:?}, {cut:?}: {}", output.status));
        assert!(whole || !matches!(cut, Cut::Never), "{shown}");
        assert!(untouched(&self.vps.remote("")) == before, "the VPS was touched");
        let mut there = owned(&self.vps.mirror(""));
        there.extend(owned(&self.vps.state("replaced")));
        if !whole {
            // On its way; a run that is not cut off brings it in order.
            there.extend(owned(&self.vps.state("incoming")));
        }
        let lost: Vec<_> = self.mine.difference(&there).map(|text| String::from_utf8_lossy(text)).collect();
        assert!(lost.is_empty(), "lost: {lost:?}\n{shown}");
        for id in &self.held {
            assert!(self.vps.mirror(id).is_dir(), "{id} vanished from the mirror\n{shown}");
        }
        for (id, was) in &self.conflicts {
            assert!(untouched(&self.vps.mirror(id)) == *was, "{id} was the user's own\n{shown}");
        }
        let now: BTreeSet<String> = self.vps.manifest().lines().map(str::to_owned).collect();
        for line in now.difference(&self.recorded) {
            let id = line.split('|').next().unwrap();
            let current = self.remote.get(id).is_some_and(|stands| match stands {
                Stands::Ready(Some(as_this)) => as_this == line,
                // Which run a line is about is only seen if nothing happened since.
                Stands::Ready(None) => whole,
                Stands::Running => false,
            });
            if current {
                self.is_whole(id, &shown);
            }
        }
        assert!(now.is_superset(&self.recorded), "lines of the manifest are gone");
        self.recorded = now;
        self.held.extend(IDS.into_iter().filter(|id| self.vps.mirror(id).is_dir()));
        whole.then_some(output)
    }

    fn is_whole(&self, id: &str, shown: &str) {
        let (is, expected) = (contents(&self.vps.mirror(id)), self.expected(id));
        for (path, lies) in expected {
            assert!(
                is.get(&path) == Some(&lies),
                "{id}/{} is not as the VPS has it\n{shown}",
                path.display()
            );
        }
    }

    /// The mirror has what is ready, and beyond that only what is the user's own.
    fn in_order(&self, id: &'static str, shown: &str) {
        self.is_whole(id, shown);
        let expected = self.expected(id);
        let is = contents(&self.vps.mirror(id));
        for (path, lies) in is.iter().filter(|(path, _)| !expected.contains_key(*path)) {
            let own = match lies {
                Lies::File(text, ..) => text.starts_with(MINE.as_bytes()),
                Lies::Link(to) => to.as_os_str().as_bytes().starts_with(MINE.as_bytes()),
                Lies::Directory => true,
            };
            // What the user has given another name is nobody else's.
            let named = |path: &Path| path.to_string_lossy().contains("renamed ");
            assert!(
                own || self.kept || is_database(path) || named(path),
                "{id}/{} should not be there\n{shown}",
                path.display()
            );
        }
    }

    fn finish(&mut self) {
        for id in self.remote.keys().copied().collect::<Vec<_>>() {
            while self.vps.remote(id).exists() && self.remote[id] == Stands::Running && self.random.chance(70)
            {
                self.age -= 100;
                self.end(id);
            }
        }
        let output = self.run(&["once"], &Cut::Never).unwrap();
        let shown = ua_tests::shown(&output);
        let ready = |id: &&&'static str| matches!(self.remote.get(**id), Some(Stands::Ready(_)));
        let conflicts = self.conflicts.keys().filter(ready).count();
        assert_eq!(output.status.code(), Some(if conflicts > 0 { 50 } else { 0 }), "{shown}");
        for (id, _) in self.remote.iter().filter(|(_, stands)| matches!(stands, Stands::Ready(_))) {
            if !self.conflicts.contains_key(id) {
                self.in_order(id, &shown);
            }
        }
        let mirrored: BTreeSet<OsString> =
            fs::read_dir(self.vps.mirror("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        for name in mirrored.iter().filter(|name| *name != ".ua-mirror.json") {
            // What a cut leaves of a file that is written whole.
            let torn = name.as_bytes().starts_with(b".tmp");
            let known = |id: &&str| *name == *id.split('/').next().unwrap();
            assert!(torn || IDS.iter().any(known), "{name:?} is in the mirror\n{shown}");
        }
        // Folders by mirror and, of the one, by purpose.
        let deep = |place: &str, depth: usize| {
            let all = contents(&self.vps.state(place)).into_keys();
            all.filter(|path| path.components().count() > depth).collect::<Vec<_>>()
        };
        let debris = [deep("incoming", 2), deep("staged", 1)].concat();
        assert!(debris.is_empty(), "debris: {debris:?}\n{shown}");
        let output = self.run(&["once"], &Cut::Never).unwrap();
        let shown = ua_tests::shown(&output);
        assert!(shown.contains("copied 0, "), "{shown}");
        let (_, status) = self.status();
        assert_eq!(status["pending_ready_count"], conflicts, "{status}");
    }

    fn status(&self) -> (Output, serde_json::Value) {
        let output = self.vps.run(&["status", "--json"]);
        let status = serde_json::from_slice(&output.stdout).unwrap();
        (output, status)
    }

    fn live(&mut self) {
        for id in IDS {
            if self.random.chance(60) {
                self.turn(id);
            }
        }
        if self.random.chance(40) {
            // A mirror of the time when a directory of missions was one workspace.
            self.age -= 100;
            for container in ["vp_a_external", "vp_b_external"] {
                if self.vps.remote(container).exists() {
                    let recent = SystemTime::now() - Duration::from_secs(500);
                    fs::File::open(self.vps.remote(container)).unwrap().set_modified(recent).unwrap();
                }
            }
            let cut = Cut::random(&mut self.random);
            self.run(&["once", "--nested", ""], &cut);
        }
        for _ in 0..6 + self.random.below(6) {
            for _ in 0..self.random.below(3) {
                let id = self.random.pick(&IDS);
                if self.random.chance(12) && self.remote.remove(id).is_some() {
                    self.tell(format!("{id}: vanishes"));
                    away(&self.vps.remote(id));
                } else {
                    self.turn(id);
                }
            }
            for _ in 0..self.random.below(4) {
                self.here();
            }
            if self.random.chance(15) && !self.remote.is_empty() {
                self.unrecorded();
            }
            let mut args = vec!["once"];
            match self.random.below(12) {
                0 => args.push("--no-skip-synced"),
                1 => args.push("--include-runtime-db"),
                2 if self.random.chance(30) => {
                    args.push("--no-delete");
                    self.kept = true;
                }
                3 => args.push("--no-artifacts"),
                _ => {}
            }
            let cut = Cut::random(&mut self.random);
            self.run(&args, &cut);
        }
        self.finish();
    }
}

/// Everything of the user's own below a path, by content; a link by where it leads.
fn owned(at: &Path) -> BTreeSet<Vec<u8>> {
    let mut texts = Vec::new();
    match fs::symlink_metadata(at) {
        Ok(meta) if meta.is_dir() => {
            for lies in contents(at).into_values() {
                match lies {
                    Lies::File(text, ..) => texts.push(text),
                    Lies::Link(to) => texts.push(to.as_os_str().as_bytes().to_vec()),
                    Lies::Directory => {}
                }
            }
        }
        Ok(meta) if meta.is_symlink() => {
            texts.push(fs::read_link(at).unwrap().as_os_str().as_bytes().to_vec());
        }
        Ok(_) => texts.push(fs::read(at).unwrap()),
        Err(_) => {}
    }
    texts.into_iter().filter(|text| text.starts_with(MINE.as_bytes())).collect()
}

/// How a run ends.
#[derive(Clone, Debug)]
enum Cut {
    Never,
    /// Killed after so many milliseconds.
    After(u64, &'static str),
    /// Killed as it makes this call for the nth time.
    At(&'static str, usize),
}

impl Cut {
    fn random(random: &mut Random) -> Self {
        match random.below(10) {
            0..3 => Self::Never,
            3 => Self::After(random.next() % 1500, "-TERM"),
            4 => Self::After(random.next() % 1500, "-KILL"),
            _ => {
                let calls =
                    ["renameat2", "rename", "linkat", "unlinkat", "unlink", "utimensat", "rmdir", "mkdir"];
                let most = random.pick(&[6, 30]);
                let nth = 1 + random.below(most);
                Self::At(random.pick(&calls), nth)
            }
        }
    }
}

fn has_strace() -> bool {
    Command::new("strace").arg("--version").stdout(Stdio::null()).status().is_ok()
}

fn launch(vps: &Vps, args: &[&str], cut: &Cut) -> Output {
    let typed = vps.command(args);
    let mut command = match cut {
        // Only the process itself, not what it starts.
        Cut::At(call, nth) if has_strace() => {
            let mut command = Command::new("strace");
            command.args(["-qq", "-o", "/dev/null", "-e"]).arg(format!("trace={call}"));
            command.arg("-e").arg(format!("inject={call}:signal=KILL:when={nth}")).arg(common::BIN);
            command
        }
        _ => Command::new(common::BIN),
    };
    command.args(args).env_clear().current_dir(vps.place.cwd()).stdin(Stdio::null());
    for (name, value) in typed.get_envs() {
        value.map(|value| command.env(name, value));
    }
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    if let Cut::After(pause, signal) = cut {
        std::thread::sleep(Duration::from_millis(*pause));
        // It may have ended by itself; its number is its own until it is waited for.
        let _ended = Command::new("kill").args([*signal, &child.id().to_string()]).output();
    }
    child.wait_with_output().unwrap()
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

#[test]
fn whatever_happens_the_mirror_comes_in_order_and_nothing_of_anybodys_own_is_lost() {
    if !has_strace() {
        ua_tests::skip("cuts at system calls: `strace` is not installed");
    }
    let (first, count) = (number("UA_SYNC_SEED", 1), number("UA_SYNC_HISTORIES", 14));
    let next = AtomicU64::new(first);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + count {
                return;
            }
            let mut world = World::new(seed);
            let lived = std::panic::catch_unwind(AssertUnwindSafe(|| world.live()));
            if let Err(why) = lived {
                let story = world.story.join("\n  ");
                // It stays to be looked at.
                let left = world.vps.root().display().to_string();
                eprintln!("UA_SYNC_SEED={seed} UA_SYNC_HISTORIES=1, in {left}:\n  {story}");
                if std::env::var_os("UA_SYNC_KEEP").is_some() {
                    std::mem::forget(world);
                }
                std::panic::resume_unwind(why);
            }
        }
    };
    std::thread::scope(|scope| {
        for worker in [scope.spawn(work), scope.spawn(work)] {
            if let Err(why) = worker.join() {
                std::panic::resume_unwind(why);
            }
        }
    });
}
