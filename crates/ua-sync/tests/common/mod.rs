//! A VPS on loopback: a real sshd, a replayed tailnet, workspaces in a directory of the test, and the binary.
#![allow(dead_code, clippy::unwrap_used, reason = "tests panic, and not each of them needs all of it")]

use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, SystemTime};

use ua_tests::Place;
use ua_tests::sshd::Sshd;

pub const BIN: &str = env!("CARGO_BIN_EXE_ua-sync");

pub struct Vps {
    pub place: Place,
    pub sshd: Sshd,
    /// How many seconds its clock is ahead of ours.
    ahead: i32,
}

impl Vps {
    pub fn new() -> Self {
        Self::with_sshd("")
    }

    pub fn with_sshd(extra: &str) -> Self {
        let (place, sshd) = (Place::new(), Sshd::start(extra));
        place.vps_by_address(&sshd);
        let vps = Self { place, sshd, ahead: 0 };
        for dir in ["vps/workspaces", "vps/artifacts", "cwd/AGENT_RUN_WORKSPACES"] {
            std::fs::create_dir_all(vps.root().join(dir)).unwrap();
        }
        vps
    }

    /// One whose clock is so many seconds ahead, or behind.
    pub fn with_clock(ahead: i32, programs: &Path) -> Self {
        use std::os::unix::fs::PermissionsExt as _;
        let date = programs.join("date");
        std::fs::write(&date, format!("#!/bin/sh\nexec /usr/bin/date -d '{ahead} seconds' \"$@\"\n"))
            .unwrap();
        std::fs::set_permissions(&date, std::fs::Permissions::from_mode(0o755)).unwrap();
        let path = format!("SetEnv PATH={}:/usr/bin:/bin", programs.display());
        Self { ahead, ..Self::with_sshd(&path) }
    }

    /// Seconds since 1970 by its clock.
    fn now(&self) -> f64 {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        now.as_secs_f64() + f64::from(self.ahead)
    }

    pub fn root(&self) -> PathBuf {
        self.place.cwd().parent().unwrap().to_path_buf()
    }

    pub fn remote(&self, path: &str) -> PathBuf {
        self.root().join("vps/workspaces").join(path)
    }

    pub fn mirror(&self, path: &str) -> PathBuf {
        self.place.cwd().join("AGENT_RUN_WORKSPACES/remote_vps_workspaces").join(path)
    }

    pub fn state(&self, path: &str) -> PathBuf {
        self.place.cwd().join("AGENT_RUN_WORKSPACES/remote_vps_sync_state").join(path)
    }

    pub fn manifest(&self) -> String {
        std::fs::read_to_string(self.state("synced_workspaces.txt")).unwrap_or_default()
    }

    pub fn command(&self, args: &[&str]) -> assert_cmd::Command {
        let mut command = self.place.run_with_vps(BIN, &self.sshd);
        command
            .args(args)
            .env("UA_REPO_DIR", self.place.cwd())
            .env("UA_REMOTE_WORKSPACES_DIR", self.root().join("vps/workspaces"))
            .env("UA_REMOTE_ARTIFACTS_DIR", self.root().join("vps/artifacts"));
        command
    }

    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs it, and sees that it ends with this code; gives stdout and stderr.
    #[track_caller]
    pub fn ends(&self, args: &[&str], code: i32) -> (String, String) {
        exits(&self.run(args), code)
    }

    /// Writes a file of a workspace that was last written `age` seconds ago.
    pub fn write(&self, path: &str, content: impl AsRef<[u8]>, age: u64) {
        let path = self.remote(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        self.date(&path, age);
    }

    /// Dates a path and all directories above it, up to the workspaces.
    pub fn date(&self, path: &Path, age: u64) {
        let then = Duration::from_secs_f64(self.now()).checked_sub(Duration::from_secs(age)).unwrap();
        let then = SystemTime::UNIX_EPOCH + then;
        for at in path.ancestors().take_while(|at| *at != self.remote("") && at.starts_with(self.remote("")))
        {
            std::fs::File::open(at).unwrap().set_modified(then).unwrap();
        }
    }

    /// A workspace whose run ended `age` seconds ago, with some files.
    pub fn ended(&self, id: &str, age: u64) {
        self.write(&format!("{id}/work_products/report.md"), format!("report of {id}"), age);
        self.write(&format!("{id}/run.log"), "line\n".repeat(20), age);
        self.marker(id, age, "completed");
    }

    pub fn marker(&self, id: &str, age: u64, state: &str) {
        let at = self.now() - f64::from(u32::try_from(age).unwrap());
        let marker = format!(
            r#"{{"version":1,"session_id":"{id}","state":"{state}","ready":true,"completed_at_epoch":{at:.2}}}"#
        );
        self.write(&format!("{id}/sync_ready.json"), marker, age);
    }

    pub fn shown(&self, output: &Output) -> String {
        self.place.shown(output)
    }
}

#[track_caller]
pub fn exits(output: &Output, code: i32) -> (String, String) {
    assert_eq!(output.status.code(), Some(code), "{}", ua_tests::shown(output));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// Bytes that no compression makes fewer.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state: u32 = 0x9e37_79b9;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

/// Everything below a directory, with content, as text to compare.
pub fn tree(root: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open = vec![root.to_path_buf()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
            let kind = std::fs::symlink_metadata(&path).unwrap().file_type();
            if kind.is_dir() {
                found.push((name, "directory".to_owned()));
                open.push(path);
            } else if kind.is_symlink() {
                found.push((name, format!("-> {}", std::fs::read_link(&path).unwrap().display())));
            } else {
                found.push((name, String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned()));
            }
        }
    }
    found.sort();
    found
}
