//! `cargo xtask bench deploy`: what a deploy costs beyond what it cannot avoid.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use camino::Utf8PathBuf;
use fs_err as fs;
use serde_json::Value;

use super::Measure;
use crate::app::{self, Shape};
use crate::lab::{self, Control, Lab, OPERATOR};
use crate::ui;

/// Stands before the real ssh on the `PATH` and writes down what it is called with.
const COUNTER: &str = include_str!("counter.sh");
/// Restarts units on the VPS and times them.
const START: &str = include_str!("start.py");
/// Makes the large tree.
const BLOBS: &str = include_str!("blobs.py");

const VPS: &str = "root@srv1360701.taildcc090.ts.net";
/// Our place on both machines.
const DIR: &str = "/tmp/ua-bench";
/// The connection that the bare commands share.
const SHARED: &str = "ssh -o BatchMode=yes -o ControlPath=/tmp/ua-bench/shared -o ProxyCommand=false";
const RSYNC: &str = "rsync -rlp --checksum --delete --compress -e";

/// Long enough for the first upload of the large tree.
const LIMIT: Duration = Duration::from_mins(8);

struct Bench<'a> {
    lab: &'a Lab,
}

/// One deploy.
struct Ran {
    seconds: f64,
    /// The VPS's report.
    report: Value,
    /// Units whose process is another one now.
    restarted: Vec<String>,
    /// What was asked of ssh, if that was counted.
    calls: Vec<Call>,
}

/// One call of ssh.
struct Call {
    /// Seconds after the start.
    at: f64,
    /// The script, or what else it was for.
    phase: String,
    connections: usize,
    execs: usize,
}

pub(super) fn measure(lab: &Lab) -> Result<Vec<Measure>> {
    let bench = Bench { lab };
    let measured = bench.measure();
    bench.clear()?;
    measured
}

impl Bench<'_> {
    fn measure(&self) -> Result<Vec<Measure>> {
        self.prepare()?;
        let first = self.deploy(true)?;
        first.show("first deploy");
        let mut measures = self.nothing_changed()?;
        measures.push(self.one_file()?);
        measures.push(self.large_tree()?);
        Ok(measures)
    }

    /// A VPS on which nothing was ever deployed, the app in `~/app` of the laptop, and an open connection.
    fn prepare(&self) -> Result<()> {
        self.lab.use_control(Control::Https)?;
        self.clear()?;
        let dir = tempfile::tempdir()?;
        let repo = Utf8PathBuf::try_from(dir.path().join("app"))?;
        app::make_repo(&repo, Shape::Feb)?;
        app::bring(self.lab, &repo)?;
        self.lab.vps().command(&["mkdir", "-p", DIR]).run()?;
        self.laptop("git config user.name op; git config user.email op@laptop")?;
        let put = format!("mkdir -p {DIR}/bin; cat >{DIR}/bin/ssh; chmod 0755 {DIR}/bin/ssh");
        self.lab.laptop().command(&["sh", "-ec", &put]).user(OPERATOR).stdin(COUNTER).run()?;
        self.laptop(&format!(
            "ssh -M -N -f -o BatchMode=yes -o ControlPath={DIR}/shared {VPS} </dev/null >/dev/null 2>&1"
        ))
        .map(drop)
    }

    /// Leaves nothing behind.
    fn clear(&self) -> Result<()> {
        let close = format!("ssh -o ControlPath={DIR}/shared -O exit {VPS} 2>/dev/null; rm -rf {DIR} app");
        self.lab.laptop().command(&["sh", "-c", &close]).user(OPERATOR).run()?;
        self.lab.vps().command(&["rm", "-rf", DIR]).run()?;
        app::clear(self.lab, Shape::Feb)
    }

    /// A script of the operator's, in the app's repository.
    fn laptop(&self, script: &str) -> Result<String> {
        let exec = self.lab.laptop().command(&["sh", "-ec", script]).user(OPERATOR).dir("/home/op/app");
        exec.timeout(LIMIT).read()
    }

    /// Seconds that a script of the operator's takes, without what it takes to get there.
    fn time(&self, script: &str) -> Result<f64> {
        let timed = format!("begun=$(date +%s.%N)\n{script}\necho \"$begun $(date +%s.%N)\"");
        let said = self.laptop(&timed)?;
        let last = said.lines().last().context("two times")?;
        let (begun, ended) = last.split_once(' ').context("two times")?;
        Ok(ended.parse::<f64>()? - begun.parse::<f64>()?)
    }

    /// Commits what a script changes.
    fn commit(&self, script: &str) -> Result<()> {
        self.laptop(&format!(
            "{script}\ngit -c core.compression=0 add --all && git -c core.compression=0 commit -q -m Change"
        ))
        .map(drop)
    }

    fn deploy(&self, counted: bool) -> Result<Ran> {
        let before = self.processes()?;
        let path = if counted { format!("PATH={DIR}/bin:$PATH; ") } else { String::new() };
        let script = format!(
            "rm -f {DIR}/calls; code=0; {path}begun=$(date +%s.%N)
             ua-deploy run --json >{DIR}/said 2>{DIR}/told || code=$?
             echo \"$begun $(date +%s.%N)\"
             if [ $code -ne 0 ]; then cat {DIR}/said {DIR}/told >&2; exit $code; fi
             head -n 1 {DIR}/said
             if [ -f {DIR}/calls ]; then cat {DIR}/calls; fi"
        );
        let said = self.laptop(&script)?;
        let mut lines = said.lines();
        let (begun, ended) = lines.next().and_then(|line| line.split_once(' ')).context("two times")?;
        let (begun, ended): (f64, f64) = (begun.parse()?, ended.parse()?);
        let report = serde_json::from_str(lines.next().context("a report")?)?;
        let calls = lines.map(|line| Call::read(line, begun)).collect::<Result<_>>()?;
        let after = self.processes()?;
        let changed = after.into_iter().filter(|(unit, process)| before.get(unit) != Some(process));
        Ok(Ran { seconds: ended - begun, report, restarted: changed.map(|(unit, _)| unit).collect(), calls })
    }

    /// The process of every unit of the app.
    fn processes(&self) -> Result<BTreeMap<String, String>> {
        let show = ["systemctl", "show", "-p", "Id,MainPID", "universal-agent-*.service"];
        let text = self.lab.vps().command(&show).read()?;
        let field = |block: &str, name: &str| {
            block.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().to_owned()
        };
        let units = text.split("\n\n").map(|block| (field(block, "Id="), field(block, "MainPID=")));
        Ok(units.filter(|(_, process)| !matches!(process.as_str(), "" | "0")).collect())
    }

    fn nothing_changed(&self) -> Result<Vec<Measure>> {
        let counted = self.deploy(true)?;
        counted.show("nothing changed");
        ensure!(!counted.calls.is_empty(), "no call of ssh was counted");
        let runs = (0..5).map(|_| self.deploy(false)).collect::<Result<Vec<_>>>()?;
        let seconds: Vec<f64> = runs.iter().map(|run| run.seconds).collect();
        let restarted =
            runs.iter().chain([&counted]).map(|run| run.restarted.len()).max().unwrap_or_default();
        ui::data(format!("nothing changed: {} s (5 runs); {restarted} units restarted", listed(&seconds)));
        Ok(vec![
            Measure::new("nothing changed, median", median(&seconds), 3.0, "s"),
            Measure::new(
                "nothing changed",
                number(counted.calls.iter().map(|call| call.connections).sum()),
                1.0,
                "connections",
            ),
            Measure::new("nothing changed", number(restarted), 0.0, "restarts"),
        ])
    }

    /// One Python file, against `rsync` of that file and `systemctl restart` of the same units, both over a connection
    /// that is open. What the app takes to come up is the app's own, and so is the time that the profile wants a
    /// process to have lived before it counts as up.
    fn one_file(&self) -> Result<Measure> {
        const FILE: &str = "src/universal_agent/notes.py";
        let stable = stable_seconds()?;
        let copy = format!("{RSYNC} '{SHARED}' {FILE} {VPS}:{DIR}/one/");
        self.laptop(&copy)?;
        let mut round = 0;
        let mut change = || {
            round += 1;
            self.commit(&format!("echo 'NOTE = \"round {round}\"' >{FILE}"))
        };
        change()?;
        self.deploy(true)?.show("one Python file changed");
        let (mut total, mut rsync, mut restart) = (Vec::new(), Vec::new(), Vec::new());
        let (mut healthy, mut proved) = (Vec::new(), Vec::new());
        let mut units = Vec::new();
        for _ in 0..3 {
            change()?;
            let ran = self.deploy(false)?;
            total.push(ran.seconds);
            units = ran.restarted;
            ensure!(!units.is_empty(), "a Python file changed and no unit was restarted");
            rsync.push(self.time(&copy)?);
            restart.push(self.time(&format!("{SHARED} {VPS} systemctl restart {}", units.join(" ")))?);
            let seconds = stable.to_string();
            let words: Vec<&str> = ["python3", "-c", START, &seconds]
                .into_iter()
                .chain(units.iter().map(String::as_str))
                .collect();
            let start: BTreeMap<String, f64> = serde_json::from_str(&self.lab.vps().command(&words).read()?)?;
            healthy.push(start["healthy"]);
            proved.push(start["proved"]);
        }
        let (all, own) = (median(&total), median(&proved));
        let (copied, restarted) = (median(&rsync), median(&restart));
        // One to work over, and a fresh one that proves the way in.
        let login = format!("ssh -o BatchMode=yes -o ControlPath=none {VPS} true");
        let logins = (0..5).map(|_| self.time(&login)).collect::<Result<Vec<_>>>()?;
        let logins = 2.0 * median(&logins);
        let floor = logins + copied + restarted;
        ui::data(format!(
            "one file (medians of 3):
  deploy                                     {all:.2} s   ({} s)
  restarts                                   {}
  the app alone: healthy after               {:.2} s
  and each process {stable} s old after           {own:.2} s   (the profile's units.stable_seconds)
  deploy without the app's own start         {:.2} s   = {all:.2} - {own:.2}
  rsync of the file over an open connection  {copied:.2} s
  systemctl restart of the same units        {restarted:.2} s
  two logins of bare ssh                     {logins:.2} s
  floor                                      {floor:.2} s   (without the logins {:.2} s, of which the deploy is {:.1} x)",
            listed(&total),
            units.join(" "),
            median(&healthy),
            all - own,
            copied + restarted,
            (all - own) / (copied + restarted)
        ));
        Ok(Measure::new(
            "one file: (deploy - the app's own start) / (two logins + rsync + restart)",
            (all - own) / floor,
            3.0,
            "x",
        ))
    }

    /// The upload of 300 MB of which 1 % changed, against `rsync` of a checkout to a copy of the old tree, which has to
    /// read both sides as well.
    fn large_tree(&self) -> Result<Measure> {
        let blobs = |round: u32| self.commit(&format!("python3 - {round} <<'END'\n{BLOBS}\nEND"));
        blobs(0)?;
        self.deploy(true)?.show("300 MB more");
        let built = "--exclude=/.env --exclude=/.venv --exclude=/AGENT_RUN_WORKSPACES --exclude=/artifacts \
                     --exclude=/logs --exclude=/web-ui/.next --exclude=/web-ui/node_modules --exclude=__pycache__";
        let copy = format!("rsync -a {built} /opt/universal_agent/ {DIR}/tree/");
        self.lab.vps().command(&["sh", "-ec", &copy]).timeout(LIMIT).run()?;
        let checkout = format!(
            "rm -rf {DIR}/checkout; mkdir {DIR}/checkout; git archive HEAD | tar -x -C {DIR}/checkout"
        );
        let bare = format!("{RSYNC} '{SHARED}' {DIR}/checkout/ {VPS}:{DIR}/tree/");
        // Modes and what the server wrote are made the same, so that only the change is left.
        self.laptop(&format!("{checkout}; {bare}"))?;
        let (mut total, mut upload, mut floor) = (Vec::new(), Vec::new(), Vec::new());
        for round in 1..=3 {
            blobs(round)?;
            let ran = self.deploy(round == 1)?;
            if round == 1 {
                ran.show("1 % of 300 MB changed");
            }
            total.push(ran.seconds);
            upload.push(ran.took("transfer")?);
            self.laptop(&checkout)?;
            floor.push(self.time(&bare)?);
        }
        ui::data(format!(
            "1 % of 300 MB: deploy {} s, its upload {} s, bare rsync {} s (3 runs)",
            listed(&total),
            listed(&upload),
            listed(&floor)
        ));
        Ok(Measure::new(
            "1 % of 300 MB: upload / bare rsync, medians",
            median(&upload) / median(&floor),
            1.3,
            "x",
        ))
    }
}

impl Ran {
    /// Calls of ssh by phase, and the longest steps of the report.
    fn show(&self, title: &str) {
        let (connections, execs) = self
            .calls
            .iter()
            .fold((0, 0), |(connections, execs), call| (connections + call.connections, execs + call.execs));
        ui::data(format!("{title}: {:.2} s, {connections} connections, {execs} execs", self.seconds));
        for call in &self.calls {
            ui::data(format!(
                "  at {:5.2} s  {:10}  {} connections, {} execs",
                call.at, call.phase, call.connections, call.execs
            ));
        }
        let steps: Vec<String> = self
            .checks()
            .filter_map(|check| Some((check["id"].as_str()?, check["duration_ms"].as_u64()?)))
            .filter(|(_, ms)| *ms >= 100)
            .map(|(id, ms)| format!("{id} {:.1} s", Duration::from_millis(ms).as_secs_f64()))
            .collect();
        ui::data(format!("  took long: {}", steps.join(", ")));
    }

    fn checks(&self) -> impl Iterator<Item = &Value> {
        self.report["checks"].as_array().into_iter().flatten()
    }

    /// Seconds that a step took.
    fn took(&self, id: &str) -> Result<f64> {
        let check = self.checks().find(|check| check["id"] == id);
        let ms = check.and_then(|check| check["duration_ms"].as_u64());
        let ms = ms.with_context(|| format!("no `{id}` in {}", self.report))?;
        Ok(Duration::from_millis(ms).as_secs_f64())
    }
}

impl Call {
    fn read(line: &str, begun: f64) -> Result<Self> {
        let fields: Vec<&str> = line.split('\t').collect();
        let [at, kind, phase] = fields[..] else { anyhow::bail!("not a call: {line}") };
        let (connections, execs) = match kind {
            "master" => (1, 0),
            "shared" => (0, 1),
            _ => (1, 1),
        };
        Ok(Self { at: at.parse::<f64>()? - begun, phase: phase.to_owned(), connections, execs })
    }
}

/// How long a process of the app must have lived to count as up.
fn stable_seconds() -> Result<u32> {
    let profile = lab::checkout()?.join("crates/ua-common/profiles/universal-agent.toml");
    let text = fs::read_to_string(&profile)?;
    let value = text.lines().find_map(|line| line.strip_prefix("stable_seconds = "));
    Ok(value.with_context(|| format!("no `stable_seconds` in `{profile}`"))?.trim().parse()?)
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::INFINITY)
}

fn listed(values: &[f64]) -> String {
    values.iter().map(|value| format!("{value:.2}")).collect::<Vec<_>>().join(" ")
}

#[allow(clippy::cast_precision_loss, reason = "a handful")]
fn number(count: usize) -> f64 {
    count as f64
}
