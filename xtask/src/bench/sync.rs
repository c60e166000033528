//! `cargo xtask bench sync`: what the mirror costs beyond what it cannot avoid.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use fs_err as fs;
use serde_json::json;
use tempfile::TempDir;
use ua_tests::sshd::Sshd;

use super::wire::Wire;
use super::{Measure, Row, Rows, TIMER};
use crate::cmd::Cmd;
use crate::lab::{self, Lab, OPERATOR};
use crate::ui::{self, Progress};

/// Makes workspaces.
const WORKSPACES: &str = include_str!("workspaces.py");

/// How many, of about 70 KB each.
const COUNTS: [usize; 3] = [100, 300, 1000];
const SIZE: usize = 70_000;
/// Of these the old script is tried with, if it is at hand.
const OLD_COUNTS: [usize; 2] = [100, 300];
/// A mirror that has grown for years, of small files.
const MANY: usize = 10_000;
const SMALL: usize = 400;

/// The round trip of the wire to a VPS that is far away.
const ROUND_TRIP: Duration = Duration::from_millis(30);
/// How often each is done; the medians are compared.
const ROUNDS: (usize, usize) = (7, 5);
/// Long enough for all rounds of anything, and for the old script.
const LIMIT: Duration = Duration::from_mins(30);

/// Our place on both machines of the lab.
const DIR: &str = "/tmp/ua-bench";
const VPS: &str = "root@srv1360701.taildcc090.ts.net";
const OLD_NAME: &str = "sync_remote_workspaces.sh";

/// Where it is measured: a client, and a server that it reaches by ssh.
struct Place<'a> {
    name: &'static str,
    at: At<'a>,
    /// What both have for us.
    dir: Utf8PathBuf,
    /// `user@name` of the server.
    target: String,
    /// ssh and its options, for the bare commands.
    ssh: Vec<String>,
    /// The old script on the client, and its options for this place.
    old: Option<Vec<String>>,
}

enum At<'a> {
    /// This machine is both.
    Here {
        environment: Vec<String>,
    },
    Lab(&'a Lab),
}

/// This machine as a client and as a server, of whoever calls.
struct Loopback {
    sshd: Sshd,
    dir: TempDir,
    user: String,
}

pub(super) fn measure(old: Option<&Utf8Path>, progress: &Progress) -> Result<Vec<Measure>> {
    let old = old.map(script).transpose()?;
    let here = Loopback::start()?;
    let (near, far) = (Wire::to(here.sshd.port, Duration::ZERO)?, Wire::to(here.sshd.port, ROUND_TRIP)?);
    let mut measures = Vec::new();
    let loopback = here.place("loopback", here.sshd.port, old.as_deref())?;
    measures.extend(loopback.measure()?);
    measures.extend(loopback.many()?);
    measures.extend(here.place("wire", near.port, None)?.carried(&near)?);
    measures.extend(here.place("loopback + 30 ms", far.port, old.as_deref())?.measure()?);
    match lab::availability() {
        Ok(()) => measures.extend(on_tailnet(old.as_deref(), progress)?),
        Err(reason) => ui::data(format!("tailnet: skipped: {reason}")),
    }
    Ok(measures)
}

fn on_tailnet(old: Option<&str>, progress: &Progress) -> Result<Vec<Measure>> {
    super::in_lab(progress, |lab| {
        let clear = || {
            let clear = ["rm", "-rf", DIR];
            lab.laptop().command(&clear).run().and(lab.vps().command(&clear).run())
        };
        clear()?;
        let place = Place {
            name: "tailnet",
            at: At::Lab(lab),
            dir: DIR.into(),
            target: VPS.to_owned(),
            ssh: ["ssh", "-o", "BatchMode=yes"].map(str::to_owned).into(),
            old: None,
        };
        let measured = place.with_old(old, &[]).and_then(|place| place.measure());
        clear()?;
        measured
    })
}

/// The old script's text.
fn script(path: &Utf8Path) -> Result<String> {
    let path = if path.is_dir() { path.join(OLD_NAME) } else { path.to_owned() };
    Ok(fs::read_to_string(path)?)
}

impl Loopback {
    fn start() -> Result<Self> {
        let dir = TempDir::new()?;
        // Whatever the caller's shell does at its start is not measured.
        let sshd = Sshd::start(&format!("SetEnv HOME={}", dir.path().display()));
        let here = Self { sshd, dir, user: Cmd::new(["id", "-un"]).read()?.trim().to_owned() };
        let (dir, sshd) = (here.dir()?, &here.sshd);
        for folder in ["bin", "home/.ssh"] {
            fs::create_dir_all(dir.join(folder))?;
        }
        // ssh takes the home of the password file, so it is told where this server's key is.
        let known = dir.join("known_hosts");
        fs::write(&known, format!("127.0.0.1,[127.0.0.1]:* {}\n", sshd.host_key()))?;
        let ssh = dir.join("bin/ssh");
        fs::write(&ssh, format!("#!/bin/sh\nexec /usr/bin/ssh -o UserKnownHostsFile='{known}' \"$@\"\n"))?;
        crate::setup::set_mode(&ssh, 0o755)?;
        let key = dir.join("home/.ssh/id_ed25519");
        fs::copy(sshd.key(), &key)?;
        crate::setup::set_mode(&key, 0o600)?;
        Ok(here)
    }

    fn dir(&self) -> Result<Utf8PathBuf> {
        Ok(Utf8PathBuf::try_from(self.dir.path().to_path_buf())?)
    }

    fn place(&self, name: &'static str, port: u16, old: Option<&str>) -> Result<Place<'static>> {
        let (dir, port) = (self.dir()?, port.to_string());
        let (key, target) = (dir.join("home/.ssh/id_ed25519"), format!("{}@127.0.0.1", self.user));
        let environment = vec![
            format!("HOME={dir}/home"),
            format!("PATH={dir}/bin:{}:/usr/bin:/bin", lab::tools("release")?),
            format!("UA_VPS_HOST={target}"),
            format!("UA_SSH_KEYS_PORT={port}"),
            "UA_BREAK_GLASS=1".to_owned(),
            "UA_TAILNET_PREFLIGHT=off".to_owned(),
        ];
        let options = ["-p", &port, "-i", key.as_str(), "-o", "BatchMode=yes"];
        let ssh = ["ssh"].into_iter().chain(options).map(str::to_owned).collect();
        let place = Place { name, at: At::Here { environment }, dir: dir.clone(), target, ssh, old: None };
        place.with_old(old, &["--ssh-port", &port, "--ssh-auth-mode", "keys", "--ssh-key", key.as_str()])
    }
}

impl Place<'_> {
    fn client(&self, argv: &[&str], stdin: &str) -> Result<String> {
        match &self.at {
            At::Here { environment } => {
                let argv = argv.iter().map(ToString::to_string);
                let words =
                    ["env", "-i"].map(str::to_owned).into_iter().chain(environment.clone()).chain(argv);
                Cmd::new(words).dir(self.dir.as_str()).stdin(stdin).timeout(LIMIT).read()
            }
            At::Lab(lab) => lab.laptop().command(argv).user(OPERATOR).stdin(stdin).timeout(LIMIT).read(),
        }
    }

    fn server(&self, argv: &[&str], stdin: &str) -> Result<String> {
        match &self.at {
            At::Here { .. } => self.client(argv, stdin),
            At::Lab(lab) => lab.vps().command(argv).stdin(stdin).timeout(LIMIT).read(),
        }
    }

    /// Lays the old script where it takes everything below for its repository.
    fn with_old(mut self, old: Option<&str>, options: &[&str]) -> Result<Self> {
        let Some(text) = old else { return Ok(self) };
        let path = format!("{}/old/scripts/{OLD_NAME}", self.dir);
        self.client(&["sh", "-ec", &format!("mkdir -p {}/old/scripts; cat >{path}", self.dir)], text)?;
        let words = ["bash", &path, "--once", "--no-artifacts", "--host", &self.target].into_iter();
        self.old = Some(words.chain(options.iter().copied()).map(str::to_owned).collect());
        Ok(self)
    }

    fn root(&self, count: usize) -> String {
        format!("{}/vps/{count}", self.dir)
    }

    fn mirror(&self, count: usize) -> String {
        format!("{}/repo/{count}", self.dir)
    }

    /// Workspaces on the server.
    fn make(&self, count: usize, size: usize) -> Result<()> {
        let (count_words, size) = (count.to_string(), size.to_string());
        self.server(&["python3", "-", &self.root(count), &count_words, &size], WORKSPACES).map(drop)
    }

    /// `ua-sync` with a repository and with workspaces of this number.
    fn tool(&self, verb: &[&str], count: usize) -> Vec<String> {
        let (repo, root) = (self.mirror(count), self.root(count));
        let none = format!("{root}.artifacts");
        let places = ["--repo", &repo, "--remote-dir", &root, "--remote-artifacts-dir", &none];
        ["ua-sync"].iter().chain(verb).chain(&places).map(ToString::to_string).collect()
    }

    /// ssh with a connection of its own, or with the one that is shared.
    fn bare(&self, shared: bool) -> Vec<String> {
        let path = if shared { format!("{}/shared", self.dir) } else { "none".to_owned() };
        self.ssh.iter().cloned().chain(["-o".to_owned(), format!("ControlPath={path}")]).collect()
    }

    /// One plain scan.
    fn scan(&self, count: usize, shared: bool) -> Vec<String> {
        let find = format!("find {} -printf '%y %s %T@ %P\\0'", self.root(count));
        self.bare(shared).into_iter().chain([self.target.clone(), find]).collect()
    }

    /// Opens the connection that scans share, or closes it.
    fn share(&self, open: bool) -> Result<()> {
        let (ssh, target) = (self.bare(true).join(" "), &self.target);
        let how = if open { "-M -N -f" } else { "-O exit" };
        // The master keeps what it was given, so that its words go to a file.
        let said = format!("{}/shared.log", self.dir);
        let script = format!(
            "mkdir -p {}; {ssh} {how} {target} </dev/null >{said} 2>&1 || {{ cat {said} >&2; exit 1; }}",
            self.dir
        );
        self.client(&["sh", "-ec", &script], "").map(drop)
    }

    /// One plain rsync of everything.
    fn rsync(&self, options: &[&str], count: usize) -> Vec<String> {
        let (ssh, from) = (self.bare(false).join(" "), format!("{}:{}/", self.target, self.root(count)));
        let to = self.plain(count);
        let words = ["rsync", "-a"].into_iter().chain(options.iter().copied());
        words.chain(["-e", &ssh, &from, &to]).map(str::to_owned).collect()
    }

    /// Where that puts it: a file system is not as quick everywhere, so it is beside the mirror.
    fn plain(&self, count: usize) -> String {
        format!("{}/plain", self.mirror(count))
    }

    /// A script that leaves nothing of a copy behind and nothing to be written to disk.
    fn afresh(&self, count: usize) -> Vec<String> {
        let (dir, plain) = (self.mirror(count), self.plain(count));
        let script = format!("rm -rf {dir}; mkdir -p {plain}; sync -f {dir}");
        ["sh", "-ec", &script].map(str::to_owned).into()
    }

    fn time(&self, runs: usize, before: &serde_json::Value, rows: &serde_json::Value) -> Result<Rows> {
        let job = json!({ "runs": runs, "before": before, "rows": rows }).to_string();
        let rows: Rows = serde_json::from_str(&self.client(&["python3", "-c", TIMER], &job)?)
            .context("the timer prints JSON")?;
        let failed = rows.iter().find(|(_, row)| row.codes != [0]);
        if let Some((name, row)) = failed {
            bail!("{}: {name}: codes {:?}", self.name, row.codes);
        }
        Ok(rows)
    }

    fn measure(&self) -> Result<Vec<Measure>> {
        let mut measures = Vec::new();
        for count in COUNTS {
            self.make(count, SIZE)?;
            let new = self.all_new(count)?;
            let nothing = self.nothing_new(count)?;
            if OLD_COUNTS.contains(&count) {
                self.by_old_script(count, median(&new["ua-sync"]), median(&nothing["ua-sync"]))?;
            }
            measures.push(Measure::new(
                format!("{}: {count}, nothing new / one ssh that scans", self.name),
                median(&nothing["ua-sync"]) / median(&nothing["scan"]),
                1.5,
                "x",
            ));
            measures.push(Measure::new(
                format!("{}: {count}, all new / one rsync -az", self.name),
                median(&new["ua-sync"]) / median(&new["rsync -az"]),
                1.3,
                "x",
            ));
        }
        Ok(measures)
    }

    fn all_new(&self, count: usize) -> Result<Rows> {
        let plain = self.plain(count);
        // Ours is the last, so that its mirror stays.
        let rows = json!({
            "rsync -a": [self.rsync(&[], count)],
            "rsync -az": [self.rsync(&["--compress"], count)],
            // A proof has to look at the VPS twice, which rsync alone does not: told, and not judged.
            "two scans": [self.scan(count, true), self.scan(count, true)],
            "rsync -az, sync": [self.rsync(&["--compress"], count), ["sync", "-f", plain.as_str()]],
            "ua-sync": [self.tool(&["once"], count)],
        });
        let before =
            rows.as_object().into_iter().flatten().map(|(name, _)| (name.clone(), self.afresh(count)));
        let before = before.collect::<BTreeMap<_, _>>();
        self.share(true)?;
        let rows = self.time(ROUNDS.1, &json!(before), &rows);
        self.share(false)?;
        let rows = rows?;
        self.show(&format!("{count}, all new"), &rows);
        let proved = median(&rows["rsync -az"]) + median(&rows["two scans"]);
        ui::data(format!(
            "{}: {count}, all new: {:.2} x one rsync -az and two scans over an open connection (for information)",
            self.name,
            median(&rows["ua-sync"]) / proved
        ));
        Ok(rows)
    }

    fn nothing_new(&self, count: usize) -> Result<Rows> {
        let rows = json!({
            "ua-sync": [self.tool(&["once"], count)],
            "scan": [self.scan(count, false)],
        });
        let rows = self.time(ROUNDS.0, &json!({}), &rows)?;
        self.show(&format!("{count}, nothing new"), &rows);
        Ok(rows)
    }

    fn by_old_script(&self, count: usize, new: f64, nothing: f64) -> Result<()> {
        let Some(words) = &self.old else { return Ok(()) };
        let dir = format!("{}/old/{count}", self.dir);
        let (mirror, manifest, root) = (format!("{dir}/mirror"), format!("{dir}/manifest"), self.root(count));
        let own = ["--remote-dir", &root, "--local-dir", &mirror, "--manifest-file", &manifest];
        let words: Vec<&str> = words.iter().map(String::as_str).chain(own).collect();
        for (what, ours) in [("all new", new), ("nothing new", nothing)] {
            let rows = self.time(1, &json!({}), &json!({ "old": [words] }))?;
            let old = median(&rows["old"]);
            ui::data(format!(
                "{}: {count}, {what}: old script {old:.1} s, ua-sync {ours:.2} s: {:.0} x as fast",
                self.name,
                old / ours
            ));
        }
        Ok(())
    }

    fn show(&self, what: &str, rows: &Rows) {
        let medians: Vec<String> =
            rows.iter().map(|(name, row)| format!("{name} {:.2} s", median(row))).collect();
        ui::data(format!("{}: {what}: {} (medians)", self.name, medians.join(", ")));
    }

    /// A large mirror.
    fn many(&self) -> Result<Vec<Measure>> {
        self.make(MANY, SMALL)?;
        let before = json!({ "copy": self.afresh(MANY) });
        let copied = self.time(1, &before, &json!({ "copy": [self.tool(&["once"], MANY)] }))?;
        let rows = json!({
            "status": [self.tool(&["status", "--json"], MANY)],
            "once": [self.tool(&["once"], MANY)],
        });
        let rows = self.time(3, &json!({}), &rows)?;
        let status = &rows["status"];
        ui::data(format!(
            "{}: {MANY} of 8 small files: all new {:.1} s, {:.0} MiB; nothing new {:.2} s, {:.0} MiB; status {:.2} s, {:.0} MiB",
            self.name,
            median(&copied["copy"]),
            mib(&copied["copy"]),
            median(&rows["once"]),
            mib(&rows["once"]),
            median(status),
            mib(status),
        ));
        let what = |measured: &str| format!("{MANY} workspaces, status --json, {measured}");
        Ok(vec![
            Measure::new(what("slowest"), status.quantile(1.0), 3.0, "s"),
            Measure::new(what("most memory"), mib(status), 64.0, "MiB"),
        ])
    }

    /// What goes over the wire for once, twice and four times the data.
    fn carried(&self, wire: &Wire) -> Result<Vec<Measure>> {
        let (mut most, mut bytes) = (0, Vec::new());
        for count in [100, 200, 400] {
            self.make(count, SIZE)?;
            let before = json!({ "new": self.afresh(count) });
            let rows = json!({ "new": [self.tool(&["once"], count)] });
            self.time(1, &before, &rows)?;
            let (connections, new) = wire.carried();
            self.time(1, &json!({}), &rows)?;
            let (again, nothing) = wire.carried();
            ui::data(format!(
                "{count}: all new {connections} connections, {new} bytes; nothing new {again} connections, {nothing} bytes"
            ));
            most = most.max(connections).max(again);
            bytes.push(number(new));
        }
        ensure!(bytes[0] > 0.0, "nothing went over the wire");
        Ok(vec![
            Measure::new("a run, whatever the number", number(most), 1.0, "connections"),
            Measure::new("bytes for 4 x the data / 4 x the bytes", bytes[2] / bytes[0] / 4.0, 1.1, "x"),
        ])
    }
}

fn median(row: &Row) -> f64 {
    row.quantile(0.5)
}

fn mib(row: &Row) -> f64 {
    number(row.peak_kib) / 1024.0
}

#[allow(clippy::cast_precision_loss, reason = "less than 2^52")]
fn number(count: u64) -> f64 {
    count as f64
}
