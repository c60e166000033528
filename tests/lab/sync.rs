//! The mirror of the finished workspaces on the real tailnet: what comes, what stays away, what is deleted, and what a
//! reader sees of it whatever happens in between.

mod cuts;
mod deletion;
mod nested;
mod places;
mod timer;

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use camino::Utf8Path;
use serde_json::{Value, json};
use xtask::lab::{self, Exec, Lab, Node, OPERATOR};

use crate::Scenario;
use crate::deploy_first::Deployed as Said;

/// Makes workspaces, and looks at them.
const WORKSPACES: &str = include_str!("sync/workspaces.py");
/// Where they are on the VPS.
const REMOTE: &str = "/opt/universal_agent/AGENT_RUN_WORKSPACES";
const ARTIFACTS: &str = "/opt/universal_agent/artifacts";
/// The mirror and what is kept beside it, in the repository.
const MIRROR: &str = "AGENT_RUN_WORKSPACES/remote_vps_workspaces";
const STATE: &str = "AGENT_RUN_WORKSPACES/remote_vps_sync_state";
/// The one file of ours in a mirror.
const MARKER: &str = ".ua-mirror.json";

/// Where copies are staged in a mirror that is a mount point.
const STAGING: &str = ".ua-incoming";

/// Every scenario of this module.
pub fn trials() -> Vec<(&'static str, Scenario)> {
    let mut trials = vec![
        ("p109_p110_p112_the_peer_is_offline", offline as Scenario),
        ("p112_status_answers_in_time_whatever_hangs", hangs),
        ("p125_what_is_written_twice_in_a_second_comes_twice", twice),
        ("p130_a_watch_says_what_changes_and_goes_on_when_there_is_a_way_again", watch),
        ("p126_two_at_once", two_at_once),
        ("p138_what_is_hostile_has_no_power_in_the_mirror_of_root", hostile),
        ("old_spellings_still_work", old_spellings),
    ];
    trials.extend(cuts::trials());
    trials.extend(places::trials());
    trials.extend(deletion::trials());
    trials.extend(nested::trials());
    trials.extend(timer::trials());
    trials
}

/// The way to the VPS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Nothing is set.
    Defaults,
    /// By a key, at the port that Tailscale SSH leaves to sshd.
    Keys,
    TailscaleSsh,
}

impl Way {
    fn env(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Defaults => &[],
            Self::Keys => &[("UA_SSH_KEYS_PORT", "2222"), ("UA_SSH_AUTH_MODE", "keys")],
            Self::TailscaleSsh => &[("UA_SSH_AUTH_MODE", "tailscale_ssh")],
        }
    }
}

/// A VPS with an empty place for workspaces, and somebody with an empty repository on the laptop.
struct Site<'a> {
    lab: &'a Lab,
    way: Way,
    user: &'static str,
    repo: &'static str,
}

impl<'a> Site<'a> {
    /// The operator's.
    fn fresh(lab: &'a Lab, way: Way) -> Result<Self> {
        Self::of(lab, way, OPERATOR, "/home/op/agent")
    }

    fn of(lab: &'a Lab, way: Way, user: &'static str, repo: &'static str) -> Result<Self> {
        if way != Way::Defaults {
            lab.set_tailscale_ssh(true)?;
        }
        let site = Self { lab, way, user, repo };
        site.clear()?;
        let make = format!("mkdir -p {repo}/AGENT_RUN_WORKSPACES && git init --quiet {repo}");
        lab.laptop().command(&["sh", "-ec", &make]).user(user).run()?;
        Ok(site)
    }

    /// Takes away what a trial left on both machines.
    fn clear(&self) -> Result<()> {
        let vps = format!(
            "rm -f /usr/local/bin/rsync /usr/local/bin/mv /usr/local/bin/find
             tc qdisc del dev tailscale0 root 2>/dev/null || true
             systemctl stop 'lab-backend-*'
             install -d -o ua -g ua {REMOTE} {ARTIFACTS}
             find {REMOTE} {ARTIFACTS} -mindepth 1 -delete"
        );
        self.lab.vps().command(&["sh", "-ec", &vps]).run()?;
        let laptop = "
            awk '$2 ~ \"^/(home/op|root|run/mirror)\" { print $2 }' /proc/mounts | sort -r | xargs -r umount
            rm -rf /home/op/agent /home/op/mirror* /root/agent /run/mirror";
        self.lab.laptop().command(&["sh", "-ec", laptop]).run()
    }

    /// Takes away what stands before programs of the VPS.
    fn clear_programs(&self) -> Result<()> {
        self.lab.vps().command(&["rm", "-f", "/usr/local/bin/rsync", "/usr/local/bin/mv"]).run()
    }

    /// Where something of the repository is.
    fn at(&self, path: &str) -> String {
        format!("{}/{path}", self.repo)
    }

    /// The tool as it is typed in the repository.
    fn typed(&self, args: &[&str]) -> Exec<'a> {
        self.command(&[&["ua-sync"], args].concat())
    }

    fn command(&self, words: &[&str]) -> Exec<'a> {
        self.command_by(self.way, words)
    }

    fn command_by(&self, way: Way, words: &[&str]) -> Exec<'a> {
        let exec = self.lab.laptop().command(words).user(self.user).dir(self.repo);
        let env = way.env().iter();
        env.fold(exec, |exec, (name, value)| exec.env(name, value)).timeout(Duration::from_mins(2))
    }

    /// What it reports, which must be one report.
    fn run(&self, args: &[&str]) -> Result<Said> {
        report(&self.typed(&[args, &["--json"]].concat()))
    }

    /// The object that `status --json` prints, which must be all that it prints.
    fn status(&self, code: i32) -> Result<Value> {
        let output = self.typed(&["status", "--json"]).output()?;
        ensure!(output.code == code, "{output:?}");
        ensure!(output.stdout.ends_with('\n') && output.stdout.lines().count() == 1, "{output:?}");
        let said: Value = serde_json::from_str(&output.stdout)?;
        ensure!(said["ok"] == (code == 0) && said["report"]["exit_code"] == code, "{said}");
        Ok(said)
    }

    /// Makes these workspaces on the VPS, by the app's own user.
    fn make(&self, rows: &[Value]) -> Result<()> {
        let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
        let words = ["python3", "-c", WORKSPACES, "make", REMOTE];
        self.lab.vps().command(&words).user("ua").stdin(lines).run()
    }

    /// What lies in a directory, as somebody sees it to whom every touch shows.
    fn everything(&self, node: Node, dir: &str) -> Result<String> {
        self.lab.node(node).command(&["python3", "-c", WORKSPACES, "tree", "all", dir]).read()
    }

    fn vps(&self) -> Result<String> {
        Ok(self.everything(Node::Vps, REMOTE)? + &self.everything(Node::Vps, ARTIFACTS)?)
    }

    /// What of the mirror is a reader's.
    fn mirror(&self) -> Result<String> {
        let all = self.everything(Node::Laptop, &self.at(MIRROR))?;
        Ok(all.lines().filter(|line| !line.contains(STAGING)).map(|line| format!("{line}\n")).collect())
    }

    /// The mirror holds these workspaces as the VPS has them, byte by byte and second by second, and nothing else.
    fn mirrors(&self, ids: &[&str]) -> Result<()> {
        self.copies(REMOTE, ids, &self.at(MIRROR))
    }

    /// The mirror is what it was.
    fn untouched(&self, before: &str) -> Result<()> {
        let now = self.mirror()?;
        same(before, &now).context("the mirror was touched")
    }

    fn copies(&self, from: &str, ids: &[&str], to: &str) -> Result<()> {
        let look = |node: Node, dir: &str, ids: &[&str]| {
            let words = [&["python3", "-c", WORKSPACES, "tree", "content", dir], ids].concat();
            self.lab.node(node).command(&words).read()
        };
        same(&look(Node::Vps, from, ids)?, &look(Node::Laptop, to, &[])?)
    }

    /// Lets no more than so much come from the VPS, in megabits a second.
    fn slow(&self, rate: u32) -> Result<()> {
        let rate = format!("{rate}mbit");
        let limit = ["tc", "qdisc", "replace", "dev", "tailscale0", "root", "tbf", "rate", &rate];
        self.lab.vps().command(&[&limit[..], &["burst", "32k", "latency", "400ms"]].concat()).run()
    }

    /// As fast as it goes.
    fn quick(&self) -> Result<()> {
        self.lab.vps().sh("tc qdisc del dev tailscale0 root").map(drop)
    }

    /// How many bytes have come to the laptop through the tailnet.
    fn received(&self) -> Result<u64> {
        let file = "/sys/class/net/tailscale0/statistics/rx_bytes";
        Ok(self.lab.laptop().command(&["cat", file]).read()?.trim().parse()?)
    }

    /// How many connections the VPS has let in, by this way.
    fn connections(&self) -> Result<usize> {
        let count = if self.way == Way::TailscaleSsh {
            "journalctl --sync; journalctl -q -o cat -u tailscaled | grep -o '^ssh-conn-[^:]*' | sort -u"
        } else {
            "journalctl --sync; journalctl -q -o cat -u ssh | grep '^Accepted '"
        };
        Ok(self.lab.vps().sh(count)?.stdout.lines().count())
    }

    /// What is staged: files by their number in the file system, and the bytes of all.
    fn staged(&self) -> Result<(BTreeSet<u64>, u64)> {
        let mut files = BTreeSet::new();
        let mut bytes = 0;
        let mut open = vec![self.lab.laptop().path(self.at(&format!("{STATE}/incoming")))?];
        while let Some(dir) = open.pop() {
            // What is there changes while somebody looks.
            let Ok(entries) = Utf8Path::read_dir_utf8(&dir) else { continue };
            for entry in entries.flatten() {
                match entry.path().symlink_metadata() {
                    Ok(meta) if meta.is_dir() => open.push(entry.path().to_path_buf()),
                    Ok(meta) => {
                        files.insert(meta.ino());
                        bytes += meta.len();
                    }
                    Err(_) => {}
                }
            }
        }
        Ok((files, bytes))
    }

    /// Waits until so many bytes are staged.
    fn wait_staged(&self, bytes: u64) -> Result<()> {
        until("so much is staged", || Ok(self.staged()?.1 >= bytes))
    }

    /// Nothing of the tool runs on the laptop.
    fn nothing_runs(&self) -> Result<()> {
        let left = self.lab.laptop().command(&["pgrep", "-a", "-x", "ua-sync|ssh|rsync"]).output()?.stdout;
        ensure!(left.is_empty(), "{left}");
        Ok(())
    }

    fn exists(&self, path: &str) -> Result<bool> {
        Ok(self.lab.laptop().path(path)?.symlink_metadata().is_ok())
    }
}

impl Drop for Site<'_> {
    fn drop(&mut self) {
        // The next one says so if this failed.
        let _ = self.clear();
    }
}

fn report(run: &Exec<'_>) -> Result<Said> {
    let said = Said::read(run.output()?)?;
    let [one] = said.reports.as_slice() else { anyhow::bail!("not one report: {:?}", said.output) };
    ensure!(one["schema"] == "ua.report/1" && one["tool"] == "ua-sync", "{one}");
    ensure!(one["exit_code"] == said.output.code, "{one} and exit {}", said.output.code);
    ensure!(one["lane"] == "local" || (one["lane"] == "vps" && one["data"]["mirror"] == true), "{one}");
    Ok(said)
}

/// Two lists hold the same lines.
fn same(wanted: &str, found: &str) -> Result<()> {
    let (wanted, found): (BTreeSet<_>, BTreeSet<_>) = (wanted.lines().collect(), found.lines().collect());
    let missing: Vec<_> = wanted.difference(&found).take(5).collect();
    let more: Vec<_> = found.difference(&wanted).take(5).collect();
    ensure!(
        missing.is_empty() && more.is_empty(),
        "missing or other: {missing:#?}; more or other: {more:#?}"
    );
    Ok(())
}

/// A workspace whose run ended ten minutes ago.
fn ended(id: &str) -> Value {
    json!({ "id": id, "age": 600 })
}

/// The same, of another size.
fn sized(id: &str, files: u32, bytes: u64) -> Value {
    json!({ "id": id, "age": 600, "files": files, "bytes": bytes })
}

/// Somebody works in it.
fn running(id: &str) -> Value {
    json!({ "id": id, "age": 600, "state": null, "log": "" })
}

/// Asks until it is so.
pub(crate) fn until(what: &str, mut ask: impl FnMut() -> Result<bool>) -> Result<()> {
    let begun = Instant::now();
    while !ask()? {
        ensure!(begun.elapsed() < Duration::from_mins(1), "waited in vain: {what}");
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

pub(crate) fn joined<T>(run: thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    run.join().unwrap_or_else(|_| Err(anyhow!("a thread panicked")))
}

/// In both ways to prove who one is.
fn in_both(lab: &Lab, trial: impl Fn(&Site<'_>) -> Result<()>) -> Result<()> {
    for way in [Way::Keys, Way::TailscaleSsh] {
        trial(&Site::fresh(lab, way)?).with_context(|| format!("{way:?}"))?;
    }
    Ok(())
}

/// What is ready is mirrored, whole, with the defaults and in both modes.
pub(crate) fn what_is_ready_comes(lab: &Lab) -> Result<()> {
    for way in [Way::Defaults, Way::Keys, Way::TailscaleSsh] {
        ready(&Site::fresh(lab, way)?).with_context(|| format!("{way:?}"))?;
    }
    Ok(())
}

fn ready(site: &Site<'_>) -> Result<()> {
    site.make(&[
        sized("session_20260221_101500_ab12", 40, 4_000_000),
        json!({ "id": "tg_1", "age": 3600, "state": "failed" }),
        json!({ "id": "session_legacy", "age": 600, "state": null }),
        json!({ "id": "größe mit Lücke", "age": 600, "state": null }),
        json!({ "id": "cron [1]*", "age": 90 }),
        running("session_running"),
        json!({ "id": "session_young", "age": 5 }),
        json!({ "id": "session_open", "age": 600, "state": "running" }),
    ])?;
    let artifacts =
        format!("cd {ARTIFACTS} && mkdir -p 'a b' && echo made >'a b/made' && ln -s made 'a b/link'");
    site.lab.vps().command(&["sh", "-ec", &artifacts]).user("ua").run()?;
    let ready = ["session_20260221_101500_ab12", "tg_1", "session_legacy", "größe mit Lücke", "cron [1]*"];
    let before = site.vps()?;

    let said = site.run(&["once", "--dry-run"])?;
    said.exit(0)?.says("sync.plan", "pass", "5 to do")?;
    ensure!(!site.exists(&site.at(MIRROR))? && !site.exists(&site.at(STATE))?, "a dry run left something");
    let behind = site.status(0)?;
    ensure!(behind["sync_state"] == "behind" && behind["pending_ready_count"] == 5, "{behind}");

    // As a person types it.
    let first = site.typed(&["once"]).output()?;
    ensure!(first.code == 0, "{first:?}");
    ensure!(first.stdout.contains("copied 5, unchanged 0, running 3, failed 0"), "{}", first.stdout);
    site.mirrors(&ready)?;
    site.copies(ARTIFACTS, &[], &site.at("artifacts/remote_vps_artifacts"))?;
    let in_sync = site.status(0)?;
    ensure!(in_sync["sync_state"] == "in_sync" && in_sync["synced_ready_count"] == 5, "{in_sync}");
    ensure!(in_sync["remote_dir"] == REMOTE && in_sync["local_dir"] == site.at(MIRROR), "{in_sync}");

    // Nothing new costs one connection, and touches nothing.
    let (mirror, connections) = (site.mirror()?, site.connections()?);
    let again = site.run(&["once"])?;
    again.exit(0)?.says("sync.workspaces", "pass", "copied 0, unchanged 5, running 3, failed 0")?;
    again.says("sync.artifacts", "skip", "nothing was copied since")?;
    let by = if site.way == Way::TailscaleSsh { "method `none`" } else { "accepted ED25519" };
    again.says("ssh", "pass", by)?;
    ensure!(site.connections()? == connections + 1, "{} connections", site.connections()? - connections);
    site.untouched(&mirror)?;
    ensure!(site.vps()? == before, "the VPS was touched");

    let listed = site.typed(&["list", "--format", "tsv"]).read()?;
    for (id, state) in ready.iter().map(|id| (*id, "synced")).chain([
        ("session_running", "running"),
        ("session_young", "too-young"),
        ("session_open", "running"),
    ]) {
        ensure!(listed.lines().any(|line| line.starts_with(&format!("{id}\t{state}\t"))), "{id}: {listed}");
    }
    // A run that goes on in the same workspace comes, too; what it took away goes.
    site.make(&[json!({ "id": "tg_1", "age": 500, "files": 3, "run": 1 })])?;
    let said = site.run(&["pull", "tg_1"])?;
    said.exit(0)?.says("sync.workspaces", "pass", "copied 1, unchanged 0, running 0, failed 0")?;
    site.mirrors(&ready)?;
    site.nothing_runs()
}

fn offline(lab: &Lab) -> Result<()> {
    in_both(lab, |site| {
        lost(site, |lab| lab.stop_tailscaled(Node::Vps), |lab| lab.start_tailscaled(Node::Vps))
    })?;
    let site = Site::fresh(lab, Way::Defaults)?;
    lab.set_tailscale_ssh(false)?;
    lost(&site, |lab| lab.tailscale_down(Node::Vps), |lab| lab.tailscale_up(Node::Vps)).context("down")?;
    lost(&site, |lab| lab.cut_link(Node::Vps), |lab| lab.restore_link(Node::Vps)).context("cut")
}

/// Nobody is there, and then somebody is.
fn lost(
    site: &Site<'_>,
    lose: impl FnOnce(&Lab) -> Result<()>,
    find: impl FnOnce(&Lab) -> Result<()>,
) -> Result<()> {
    site.make(&[ended("session_1")])?;
    site.run(&["once"])?.exit(0)?;
    site.make(&[ended("session_2")])?;
    let before = site.mirror()?;
    lose(site.lab)?;
    let judged = (|| {
        let verbs = [
            &["once"][..],
            &["list"],
            &["pull", "session_2"],
            &["prune", "--allow-remote-delete"],
            &["adopt"],
        ];
        // The way in is not come to: one of the two is as good as the other.
        for verb in &verbs[..if site.way == Way::Keys { verbs.len() } else { 1 }] {
            let begun = Instant::now();
            let said = site.run(verb)?;
            said.exit(12)?.says("peer.reachable", "fail", "no pong").with_context(|| format!("{verb:?}"))?;
            ensure!(said.output.stderr.contains("hint: "), "{:?}", said.output);
            ensure!(begun.elapsed() < Duration::from_secs(8), "{verb:?} took {:?}", begun.elapsed());
        }
        let begun = Instant::now();
        let status = site.status(12)?;
        ensure!(begun.elapsed() < Duration::from_secs(10), "status took {:?}", begun.elapsed());
        ensure!(status["sync_state"] == "unknown" && status["pending_ready_count"] == 0, "{status}");
        ensure!(status["error"].as_str().is_some_and(|why| why.contains("no pong")), "{status}");
        Ok(())
    })();
    find(site.lab)?;
    judged?;
    site.untouched(&before)?;
    site.run(&["once"])?.exit(0)?;
    site.mirrors(&["session_1", "session_2"])
}

fn hangs(lab: &Lab) -> Result<()> {
    let site = Site::fresh(lab, Way::Defaults)?;
    site.make(&[ended("session_1")])?;
    let vps = |script: &str| lab.vps().command(&["sh", "-ec", script]).run();
    let answers = |code: i32| {
        let begun = Instant::now();
        let said = site.status(code)?;
        ensure!(begun.elapsed() < Duration::from_secs(30), "it took {:?}", begun.elapsed());
        ensure!(said["sync_state"] == "unknown" && said["error"].as_str() != Some(""), "{said}");
        site.nothing_runs()
    };
    // sshd takes connections, and does not speak; then the listing never ends; then there is nothing to list.
    vps("systemctl kill --signal=STOP ssh")?;
    let silent = answers(20);
    vps("systemctl kill --signal=CONT ssh")?;
    silent.context("a silent sshd")?;
    vps("printf '#!/bin/sh\\nexec sleep 60\\n' >/usr/local/bin/find && chmod 755 /usr/local/bin/find")?;
    let endless = answers(20);
    vps("rm /usr/local/bin/find")?;
    endless.context("a listing without an end")?;
    vps(&format!("mv {REMOTE} {REMOTE}.away"))?;
    let gone = answers(1);
    let once = site.run(&["once"]);
    vps(&format!("mv {REMOTE}.away {REMOTE}"))?;
    gone.context("no workspaces")?;
    once?.exit(1)?;
    ensure!(site.status(0)?["sync_state"] == "behind", "{}", site.status(0)?);
    Ok(())
}

fn twice(lab: &Lab) -> Result<()> {
    let site = Site::fresh(lab, Way::Defaults)?;
    site.make(&[ended("session_1")])?;
    // Of the same size, at the same second, in the artifacts too.
    let write = |text: &str, nanos: u32| {
        let write = format!(
            "for file in {REMOTE}/session_1/state {ARTIFACTS}/state; do
                 printf {text} >$file; touch -d @1771650000.{nanos:09} $file
             done"
        );
        lab.vps().command(&["sh", "-ec", &write]).user("ua").run()
    };
    write("first", 100_000_000)?;
    site.run(&["once"])?.exit(0)?.says("sync.workspaces", "pass", "copied 1")?;
    site.make(&[json!({ "id": "session_1", "age": 500, "run": 1 })])?;
    write("other", 900_000_000)?;
    site.run(&["once"])?.exit(0)?.says("sync.workspaces", "pass", "copied 1")?;
    site.mirrors(&["session_1"])?;
    site.copies(ARTIFACTS, &[], &site.at("artifacts/remote_vps_artifacts"))
}

fn watch(lab: &Lab) -> Result<()> {
    let site = Site::fresh(lab, Way::Defaults)?;
    site.make(&[ended("session_1"), running("session_2")])?;
    let (pid, log) = ("/home/op/mirror.pid", "/home/op/mirror.log");
    let script = format!("echo $$ >{pid}; exec ua-sync watch --interval 2 2>{log}");
    let log = lab.laptop().path(log)?;
    let says = |words: &str| {
        until(words, || Ok(std::fs::read_to_string(&log).is_ok_and(|text| text.contains(words))))
    };
    let said = thread::scope(|scope| {
        let run = scope.spawn(|| site.command(&["sh", "-c", &script]).output());
        let done = (|| {
            says("copied 1: session_1")?;
            thread::sleep(Duration::from_secs(5));
            lab.stop_tailscaled(Node::Vps)?;
            // A run that had begun says first that its connection broke.
            let lost = says("exit 12 (peer-unreachable); next try in ");
            lab.start_tailscaled(Node::Vps)?;
            lost?;
            site.make(&[ended("session_2")])?;
            says("copied 1: session_2")
        })();
        lab.laptop().command(&["sh", "-c", &format!("kill -TERM $(cat {pid})")]).run()?;
        let said = joined(run)?;
        done.map(|()| said)
    })?;
    ensure!(said.code == 0 && said.stdout.is_empty(), "{said:?}");
    let log = std::fs::read_to_string(&log)?;
    // A line when something changes, and none while nothing does.
    let lines: Vec<&str> = log.lines().collect();
    let told = |words: &str| lines.iter().filter(|line| line.contains(words)).count();
    let (first, last) = (told("copied 1: session_1"), told("copied 1: session_2; all is well again"));
    ensure!(first == 1 && last == 1 && told("exit 12 ") == 1, "{lines:#?}");
    ensure!(lines.len() == 4 + told("exit 20 "), "{lines:#?}");
    site.nothing_runs()?;
    site.mirrors(&["session_1", "session_2"])
}

fn two_at_once(lab: &Lab) -> Result<()> {
    let site = Site::fresh(lab, Way::Defaults)?;
    let ids = ["session_1", "session_2", "session_3", "session_4"];
    site.make(&ids.map(|id| sized(id, 4, 2_000_000)))?;
    site.slow(12)?;
    thread::scope(|scope| {
        let first = scope.spawn(|| site.run(&["once"]));
        site.wait_staged(1_000_000)?;
        let (staged, _) = site.staged()?;
        let elsewhere = ["--state-dir", "/home/op/mirror-state", "--manifest-file", "/home/op/mirror.txt"];
        for args in [&["once"][..], &["pull", "session_1", "--wait=1s"], &["adopt"]] {
            let begun = Instant::now();
            let said = site.run(args)?;
            said.exit(30)?;
            ensure!(begun.elapsed() < Duration::from_secs(3), "{args:?} took {:?}", begun.elapsed());
            let holder = "ua-sync once by op@laptop, process ";
            ensure!(said.output.stderr.contains(holder), "{args:?}: {:?}", said.output);
        }
        // It is the mirror that is locked, and not only its manifest.
        site.run(&[&["once"], &elsewhere[..]].concat())?.exit(30)?;
        let (now, _) = site.staged()?;
        ensure!(staged.is_subset(&now), "what the first had staged is gone");
        // To look is not to change.
        site.run(&["once", "--dry-run"])?.exit(0)?;
        ensure!(site.status(0)?["pending_ready_count"] == 4, "{}", site.status(0)?);

        let patient = scope.spawn(|| site.run(&["once", "--wait=30s"]));
        joined(first)?.exit(0)?.says("sync.workspaces", "pass", "copied 4, unchanged 0")?;
        joined(patient)?.exit(0)?.says("sync.workspaces", "pass", "copied 0, unchanged 4").map(drop)
    })?;
    site.mirrors(&ids)
}

/// What must not come as it is: made by root in a workspace of the app's.
const HOSTILE: &str = r#"
cd "$0/session_hostile"
cp /bin/true setuid; chmod 6755 setuid
mkdir -m 7777 open; echo x >open/file; chmod 666 open/file
mknod null c 1 3; mknod disk b 7 0; mkfifo fifo
python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("socket")'
echo x >foreign; chown 1234:4321 foreign
echo x >closed; chmod 0 closed
ln -s /etc/shadow absolute; ln -s ../../../../../etc/shadow climbing; ln -s ../tg_other sibling
ln -s . here; ln -s here/../tg_other sly
ln -s run.log inside; ln -s nowhere dangling
echo x >-x; echo x >--delete; echo x >"$(printf 'new\nline')"; echo x >"$(printf 'no text \377')"
mkdir -- -rf; echo x >./-rf/etc
cd ..
mkdir -- -x "$(printf 'new\nline')" 'a|b'
for dir in ./-x ./new* './a|b'; do echo x >"$dir/file"; done
ln -s /etc session_link; echo x >session_file; mkfifo session_fifo
find . -exec touch --no-dereference --date '10 minutes ago' {} +
"#;

fn hostile(lab: &Lab) -> Result<()> {
    let site = Site::of(lab, Way::Defaults, "root", "/root/agent")?;
    site.make(&[ended("session_hostile"), ended("tg_other")])?;
    lab.vps().command(&["sh", "-ec", HOSTILE, REMOTE]).run()?;
    let before = site.vps()?;
    let said = site.run(&["once"])?;
    said.exit(0)?.says("sync.workspaces", "pass", "copied 2, unchanged 0, running 0, failed 0")?;
    let skipped: Vec<&str> = said.reports[0]["checks"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|check| check["id"] == "sync.trouble")
        .filter_map(|check| check["detail"].as_str())
        .collect();
    ensure!(skipped.len() == 3, "{skipped:?}");
    ensure!(site.vps()? == before, "the VPS was touched");

    let mirror = site.at(MIRROR);
    let power = format!(
        "find {mirror} ! -type d ! -type f ! -type l -print -o ! -user root -print -o ! -group root -print \
         -o -perm /6000 -print -o ! -type l -perm /022 -print"
    );
    let power = lab.laptop().command(&["sh", "-c", &power]).read()?;
    ensure!(power.is_empty(), "{power}");
    let list = format!("cd {mirror} && find . -type l -printf '%P -> %l\\n' | sort");
    let links = lab.laptop().command(&["sh", "-c", &list]).read()?;
    let inside = ["dangling -> nowhere", "here -> .", "inside -> run.log"];
    let inside = inside.map(|link| format!("session_hostile/{link}\n")).concat();
    ensure!(links == inside, "{links}");
    let listed = lab.laptop().command(&["ls", "-A", &mirror]).read()?;
    ensure!(listed == format!("{MARKER}\nsession_hostile\ntg_other\n"), "{listed}");

    // Every file is there, under its own name and with its own content.
    let files = |node: Node, dir: &str, ids: &[&str]| {
        let words = [&["python3", "-c", WORKSPACES, "tree", "content", dir], ids].concat();
        let all = lab.node(node).command(&words).read()?;
        anyhow::Ok(all.lines().filter(|line| line.contains(" f ")).map(str::to_owned).collect::<Vec<_>>())
    };
    let there = files(Node::Vps, REMOTE, &["session_hostile", "tg_other"])?;
    let here = files(Node::Laptop, &mirror, &[])?;
    ensure!(there.len() > 20 && there == here, "{there:#?} and {here:#?}");
    // They came to stay.
    site.run(&["once"])?.exit(0)?.says("sync.workspaces", "pass", "copied 0, unchanged 2")?;
    for id in ["-x", "new\nline", "a|b"] {
        let said = site.typed(&["pull", "--json", "--", id]).output()?;
        ensure!(said.code == 2, "{id:?}: {said:?}");
    }
    let link = site.run(&["pull", "session_link"])?;
    link.exit(50)?.says("sync.failed", "fail", "it is a link").map(drop)
}

fn old_spellings(lab: &Lab) -> Result<()> {
    let site = Site::fresh(lab, Way::Defaults)?;
    site.make(&[ended("session_1"), ended("session_2"), running("session_3")])?;
    // A shim finds the repository by its own path.
    let scripts = site.at("scripts");
    lab.laptop().command(&["mkdir", "-p", &scripts]).user(OPERATOR).run()?;
    let called = |name: &str, args: &[&str]| {
        let there = format!("{scripts}/{name}");
        std::fs::copy(lab::checkout()?.join("shims").join(name), lab.laptop().path(&there)?)?;
        // From anywhere.
        lab.laptop().command(&[&["sh", &there], args].concat()).user(OPERATOR).dir("/").output()
    };
    let sync = |args: &[&str]| called("sync_remote_workspaces.sh", args);
    let address = ["--host", "root@100.64.0.2", "--ssh-port", "22"];
    let key = ["--ssh-key", "/home/op/.ssh/id_ed25519", "--ready-marker-name", ""];

    let said = sync(&[&["--status-json", "--once"], &address[..], &key].concat())?;
    let last: Value = serde_json::from_str(said.stdout.lines().next_back().unwrap_or_default())?;
    ensure!(said.code == 0 && last["ok"] == true && last["sync_state"] == "behind", "{said:?}");
    ensure!(last["pending_ready_count"] == 2 && !site.exists(&site.at(MIRROR))?, "{last}");

    let said = sync(&[&["--once"], &address[..], &key].concat())?;
    ensure!(said.code == 0, "{said:?}");
    let warned = "`100.64.0.2` (from --host) is taken for `srv1360701.taildcc090.ts.net`";
    ensure!(said.stderr.contains(warned), "{said:?}");
    site.mirrors(&["session_1", "session_2"])?;

    // In today's spelling an address is refused, and so is the address of anybody else in the old one.
    site.run(&["once", "--host", "root@100.64.0.2"])?.exit(14)?;
    let said = sync(&["--once", "--host", "root@100.64.0.1"])?;
    ensure!(said.code == 14, "{said:?}");
    let said = sync(&["--once", "--ssh-key", "/home/op/.ssh/nobody"])?;
    let pinned = "SSH key does not exist: /home/op/.ssh/nobody";
    ensure!(said.code == 2 && said.stderr.contains(pinned), "{said:?}");

    let pull = |args: &[&str]| called("pull_remote_workspaces_now.sh", args);
    let said = pull(&["session_1", "--no-skip-synced"])?;
    ensure!(said.code == 0 && said.stdout.contains("copied 0, unchanged 1"), "{said:?}");
    // p113: what is not ready is no success.
    for (id, code) in [("session_3", 50), ("session_4", 1), ("..", 2), ("--once=1", 2)] {
        let said = pull(&[id])?;
        ensure!(said.code == code, "{id}: {said:?}");
    }
    let control = |args: &[&str]| called("remote_workspace_sync_control.sh", args);
    let said = control(&["sync-now", "--no-artifacts"])?;
    ensure!(said.code == 0 && said.stdout.contains("copied 0, unchanged 2"), "{said:?}");
    let said = control(&["status"])?;
    ensure!(said.code == 0 && said.stdout.contains("is off"), "{said:?}");
    let said = called("install_remote_workspace_sync_timer.sh", &["--uninstall"])?;
    ensure!(said.code == 0 && said.stdout.contains("was off"), "{said:?}");
    site.mirrors(&["session_1", "session_2"])
}
