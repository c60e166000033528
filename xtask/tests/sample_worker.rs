//! The VP worker of the sample app, run here: its rows and their order are those of the real app.
#![allow(clippy::unwrap_used, reason = "tests panic")]

use std::fmt::Debug;
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use camino::Utf8PathBuf;
use serde_json::{Value, json};
use tempfile::TempDir;
use xtask::app::{Shape, make_repo};

const VP: &str = "vp.coder.primary";
/// Prints the rows of a query as JSON.
const QUERY: &str = "
import json, sqlite3, sys
database = sqlite3.connect(sys.argv[1])
database.row_factory = sqlite3.Row
print(json.dumps([dict(row) for row in database.execute(sys.argv[2])]))
";

/// A copy of the app with its worker, which is killed at the end.
struct Site {
    app: Utf8PathBuf,
    worker: Child,
    _dir: TempDir,
}

impl Site {
    fn start(shape: Shape) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let app = Utf8PathBuf::from_path_buf(dir.path().join("app")).unwrap();
        make_repo(&app, shape).unwrap();
        // A real one has the files, but not the repository.
        fs::remove_dir_all(app.join(".git")).unwrap();
        let mut command = Command::new("python3");
        command.args(["-m", "universal_agent.vp.worker_main", "--vp-id", VP]).current_dir(&app);
        command.env("PYTHONPATH", app.join("src")).env("UA_VP_POLL_INTERVAL_SECONDS", "1");
        command.env("UA_VP_LEASE_TTL_SECONDS", "15").env("UA_INFISICAL_ENABLED", "0");
        for inherited in ["UA_VP_DB_PATH", "UA_VP_ENABLED_IDS", "GIT_DIR"] {
            command.env_remove(inherited);
        }
        let log = fs::File::create(dir.path().join("log")).unwrap();
        let worker = command.stderr(log).spawn().unwrap();
        Self { app, worker, _dir: dir }
    }

    fn rows(&self, query: &str) -> Vec<Value> {
        let database = self.app.join("AGENT_RUN_WORKSPACES/vp_state.db");
        let output = Command::new("python3").args(["-c", QUERY, database.as_str(), query]).output().unwrap();
        // The worker makes the tables at its start.
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    fn session(&self) -> Value {
        self.rows("SELECT * FROM vp_sessions").pop().unwrap_or_default()
    }

    fn mission(&self, id: &str) -> Value {
        self.rows(&format!("SELECT * FROM vp_missions WHERE mission_id = '{id}'")).pop().unwrap_or_default()
    }

    fn queue(&self, seconds: &str) -> String {
        let script = ["scripts/queue_mission.py", VP, seconds];
        let output = Command::new("python3").args(script).current_dir(&self.app).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.app.with_file_name("log")).unwrap()
    }

    /// Asks until the value satisfies the condition, and returns it.
    fn wait<T: Debug>(&self, ask: impl Fn() -> T, until: impl Fn(&T) -> bool) -> T {
        let begun = Instant::now();
        loop {
            let value = ask();
            if until(&value) {
                return value;
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "{value:?}\n{}", self.log());
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits for an idle worker, and for a mission of these seconds to run: its id, its row and the session's.
    fn busy(&self, seconds: &str) -> (String, Value, Value) {
        self.wait(|| self.session(), |session| session["status"] == "active");
        let id = self.queue(seconds);
        let mission = self.wait(|| self.mission(&id), |mission| mission["status"] == "running");
        let session = self.wait(|| self.session(), |session| session["status"] == "active");
        (id, mission, session)
    }

    fn terminate(&mut self) {
        let pid = self.worker.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.worker.kill();
        let _ = self.worker.wait();
    }
}

#[test]
fn feb_idle_worker_is_active_and_renews_lease() {
    let site = Site::start(Shape::Feb);
    let first = site.wait(|| site.session(), |session| session["lease_expires_at"].is_string());
    assert_eq!(first["status"], "active");
    let owner = first["lease_owner"].as_str().unwrap();
    let suffix = owner.strip_prefix("vp.coder.primary.worker.").unwrap();
    assert!(suffix.len() == 8 && suffix.chars().all(|digit| digit.is_ascii_hexdigit()), "{owner}");
    let renewed = |session: &Value| session["last_heartbeat_at"] != first["last_heartbeat_at"];
    let later = site.wait(|| site.session(), renewed);
    assert_eq!((&later["status"], &later["lease_owner"]), (&json!("active"), &json!(owner)));
}

#[test]
fn feb_busy_worker_renews_nothing() {
    let mut site = Site::start(Shape::Feb);
    let (id, mission, session) = site.busy("9");
    assert_eq!(mission["worker_id"], session["lease_owner"]);
    let next = site.queue("0");
    let during = site.session();
    assert_eq!(during["status"], "idle", "the dispatcher overwrites the session");
    thread::sleep(Duration::from_secs(2));
    let (later, row) = (site.session(), site.mission(&id));
    assert_eq!(later["last_heartbeat_at"], session["last_heartbeat_at"]);
    assert_eq!((&row["status"], &row["claim_expires_at"]), (&json!("running"), &mission["claim_expires_at"]));
    assert_eq!(site.mission(&next)["status"], "queued");

    site.wait(|| site.mission(&next), |mission| mission["status"] == "completed");
    site.wait(|| site.session(), |session| session["status"] == "idle");
    let done = site.mission(&id);
    assert_eq!((&done["status"], &done["worker_id"]), (&json!("completed"), &mission["worker_id"]));
    let workspace = site.app.join("AGENT_RUN_WORKSPACES/vp_coder_primary_external").join(&id);
    for (file, key) in [("sync_ready.json", "state"), ("mission_receipt.json", "status")] {
        let text = fs::read_to_string(workspace.join(file)).unwrap();
        let marker: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&marker[key], &marker["mission_id"]), (&json!("completed"), &json!(id)), "{file}");
    }

    let killed = site.queue("5");
    site.wait(|| site.mission(&killed), |mission| mission["status"] == "running");
    site.terminate();
    assert_eq!(site.worker.wait().unwrap().signal(), Some(15));
    assert_eq!(site.mission(&killed)["status"], "running", "the row of a dead worker stays");
}

#[test]
fn aug_busy_worker_renews_claim_and_drains() {
    let mut site = Site::start(Shape::Aug);
    let (id, mission, session) = site.busy("9");
    let renewed = |now: &Value| now["claim_expires_at"] != mission["claim_expires_at"];
    assert_eq!(site.wait(|| site.mission(&id), renewed)["status"], "running");
    site.wait(|| site.session(), |now| now["last_heartbeat_at"] != session["last_heartbeat_at"]);
    site.terminate();
    assert!(site.worker.wait().unwrap().success(), "{}", site.log());
    assert_eq!(site.mission(&id)["status"], "completed");
    assert_eq!(site.session()["lease_expires_at"], Value::Null);
}
