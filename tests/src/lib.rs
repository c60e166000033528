//! What the tests of all tools share: an isolated place to run a binary in, and a `tailscale` that replays what the
//! real one was seen to do.

pub mod sshd;
pub mod systemd;
pub mod terminal;

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;

use tempfile::TempDir;

/// A place with a home, a working directory and a `PATH` of its own, and nothing else of this machine.
pub struct Place {
    root: TempDir,
}

impl Place {
    /// An empty one.
    pub fn new() -> Self {
        let place = Self { root: TempDir::new().expect("a temporary directory") };
        for dir in ["home", "cwd", "bin"] {
            std::fs::create_dir(place.root.path().join(dir)).expect("an empty directory");
        }
        place
    }

    /// Its home directory.
    pub fn home(&self) -> PathBuf {
        self.root.path().join("home")
    }

    /// Its working directory.
    pub fn cwd(&self) -> PathBuf {
        self.root.path().join("cwd")
    }

    /// Writes a file below its root, such as `cwd/ua.toml`, readable by all.
    pub fn file(&self, path: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.root.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("its directory");
        std::fs::write(&path, text).expect("a written file");
        mode(&path, 0o644);
        path
    }

    /// Puts a program on its `PATH`.
    pub fn program(&self, name: &str, script: &str) {
        let path = self.file(&format!("bin/{name}"), script);
        mode(&path, 0o755);
    }

    /// Puts a `tailscale` on its `PATH` that replays a scenario which was captured in the lab.
    pub fn tailscale(&self, scenario: &str) {
        self.tailscale_in_turn(scenario, 0, scenario);
    }

    /// The same, but the first calls replay another scenario.
    pub fn tailscale_in_turn(&self, first: &str, calls: u32, then: &str) {
        let captured = |scenario: &str| {
            let dir = fixtures().join("captured").join(scenario);
            assert!(dir.is_dir(), "no captured scenario `{scenario}`");
            dir.display().to_string()
        };
        let count = self.root.path().join("tailscale.calls");
        let head = format!(
            "#!/bin/sh\ncalls='{}'\ntouch \"$calls\"\ncaptured='{}'\n[ \"$(wc -l <\"$calls\")\" -lt {calls} ] || captured='{}'\n",
            count.display(),
            captured(first),
            captured(then)
        );
        self.program("tailscale", &format!("{head}{}", include_str!("../fakes/tailscale.sh")));
    }

    /// Puts a `tailscale` on its `PATH` that replays a tailnet whose VPS runs Tailscale SSH; but the VPS is at `ip`,
    /// so that a server of the test may stand in for it, and shows these host keys.
    pub fn tailscale_with_vps(&self, ip: &str, host_keys: &[&str]) {
        let captured = fixtures().join("captured/peer-tailscale-ssh/status.json");
        let text = std::fs::read_to_string(captured).expect("a captured status");
        let mut status: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let peers = status["Peer"].as_object_mut().expect("peers");
        let vps = peers.values_mut().find(|peer| peer["HostName"] == "srv1360701").expect("the VPS");
        vps["TailscaleIPs"] = serde_json::json!([ip]);
        vps["sshHostKeys"] = serde_json::json!(host_keys);
        let status = self.file("status.json", status.to_string());
        self.tailscale("peer-tailscale-ssh");
        let program = self.root.path().join("bin/tailscale");
        let replay = std::fs::read_to_string(&program).expect("the program");
        let head = format!("#!/bin/sh\n[ \"$*\" != 'status --json' ] || exec cat '{}'\n", status.display());
        self.program("tailscale", &replay.replacen("#!/bin/sh\n", &head, 1));
        self.ssh("");
    }

    /// Makes this server the VPS, by its address: the preflight asks this machine's resolver, which only the lab can give a
    /// name. Its key is in a known_hosts that ssh finds by a flag, since it takes the home of the password file.
    pub fn vps_by_address(&self, sshd: &sshd::Sshd) {
        let known = self.file("home/known_hosts", format!("127.0.0.1 {}\n", sshd.host_key()));
        self.ssh(&format!("-o UserKnownHostsFile='{}'", known.display()));
        let key = self.file("home/.ssh/id_ed25519", std::fs::read(sshd.key()).expect("its key"));
        mode(&key, 0o600);
    }

    /// Puts an `ssh` on its `PATH` that logs in as the user of the test.
    fn ssh(&self, options: &str) {
        let user = sshd::user();
        self.program("ssh", &format!("#!/bin/sh\nexec /usr/bin/ssh -l '{user}' {options} \"$@\"\n"));
    }

    /// The binary, with that server as the VPS.
    pub fn run_with_vps(&self, binary: impl AsRef<OsStr>, sshd: &sshd::Sshd) -> assert_cmd::Command {
        let mut command = self.run(binary);
        command
            .env("UA_VPS_HOST", "root@127.0.0.1")
            .env("UA_BREAK_GLASS", "1")
            .env("UA_TAILNET_PREFLIGHT", "off")
            .env("UA_SSH_KEYS_PORT", sshd.port.to_string());
        command
    }

    /// The arguments of every call of `tailscale`, a line each.
    pub fn tailscale_calls(&self) -> Vec<String> {
        let calls = std::fs::read_to_string(self.root.path().join("tailscale.calls")).unwrap_or_default();
        calls.lines().map(str::to_owned).collect()
    }

    /// The binary in this place: cleared environment, its own home, and only its own programs besides POSIX ones.
    pub fn run(&self, binary: impl AsRef<OsStr>) -> assert_cmd::Command {
        let mut command = assert_cmd::Command::new(binary);
        command
            .env_clear()
            .env("HOME", self.home())
            .env("PATH", format!("{}:/usr/bin:/bin", self.root.path().join("bin").display()))
            .current_dir(self.cwd())
            .timeout(std::time::Duration::from_mins(1));
        command
    }

    /// One text of status, stdout and stderr together, with this place's root written as `[ROOT]`.
    pub fn shown(&self, output: &Output) -> String {
        let root = self.root.path().to_string_lossy().into_owned();
        shown(output).replace(&root, "[ROOT]")
    }
}

impl Default for Place {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether root runs the test.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Notes that the calling test cannot run on this machine, for the summary of `cargo xtask check`; the test then
/// returns. With `CI` set it fails.
#[track_caller]
pub fn skip(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "skipped in CI: {why}");
    let line = format!("{}\t{why}\n", std::panic::Location::caller());
    let noted = match std::env::var_os("UA_SKIPPED") {
        Some(notes) => {
            OpenOptions::new().append(true).open(notes).and_then(|mut it| it.write_all(line.as_bytes()))
        }
        // The test runner captures what macros print.
        None => write!(std::io::stderr(), "skipped: {line}"),
    };
    noted.expect("a note of the skipped test");
}

/// Sets a file's mode.
pub fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("a changed mode");
}

/// The directory of fixtures.
pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// One text of status, stdout and stderr together.
pub fn shown(output: &Output) -> String {
    let code = output.status.code().map_or("killed by a signal".to_owned(), |code| code.to_string());
    format!(
        "exit: {code}\n--- stdout\n{}--- stderr\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The Rust sources below a directory.
    fn sources(dir: &Path, text: &mut String) {
        for entry in std::fs::read_dir(dir).expect("a directory").flatten() {
            let path = entry.path();
            if path.is_dir() && !path.ends_with("target") {
                sources(&path, text);
            } else if path.extension().is_some_and(|end| end == "rs") {
                text.push_str(&std::fs::read_to_string(&path).expect("a source"));
            }
        }
    }

    #[test]
    #[ignore = "run by `skip_is_noted_but_fails_in_ci`"]
    fn skips() {
        skip("nothing to do");
    }

    #[test]
    fn skip_is_noted_but_fails_in_ci() {
        let notes = tempfile::NamedTempFile::new().expect("a temporary file");
        let run = |ci: bool| {
            let mut command = std::process::Command::new(std::env::current_exe().expect("this program"));
            command.args(["--exact", "tests::skips", "--ignored"]).env("UA_SKIPPED", notes.path());
            if ci {
                command.env("CI", "true")
            } else {
                command.env_remove("CI")
            };
            command.output().expect("its output").status.success()
        };
        assert!(!run(true));
        assert!(run(false));
        let line = std::fs::read_to_string(notes.path()).expect("notes");
        assert!(line.starts_with("tests/src/lib.rs:") && line.ends_with("\tnothing to do\n"), "{line}");
    }

    #[test]
    fn every_defect_of_the_old_sync_scripts_has_tests_that_exist() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut text = String::new();
        for dir in ["crates", "tests/lab"] {
            sources(&root.join(dir), &mut text);
        }
        let table = std::fs::read_to_string(root.join("tests/sync-defects.md")).expect("the table");
        let rows: Vec<Vec<&str>> = table
            .lines()
            .filter(|line| line.starts_with("| 1"))
            .map(|line| line.split(" | ").collect())
            .collect();
        assert!(rows.len() > 30, "{}", rows.len());
        for row in rows {
            let number = row[0].trim_start_matches("| ");
            let names: Vec<&str> = row[2].split('`').skip(1).step_by(2).collect();
            assert!(!names.is_empty(), "defect {number} has no test");
            for name in names {
                assert!(name.contains(&format!("p{number}_")), "{name} is not of defect {number}");
                // A test, or a trial of the lab.
                let there = [format!("fn {name}("), format!("\"{name}\"")];
                assert!(there.iter().any(|words| text.contains(words)), "there is no test {name}");
            }
        }
    }
}
