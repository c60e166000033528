//! Somebody on the internet who asks the public endpoints all the time, to whom an outage of an instant shows.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use camino::Utf8PathBuf;
use serde_json::Value;
use xtask::lab::{Lab, Node};

/// What everyone can see of the app.
pub(crate) const PUBLIC: [&str; 2] =
    ["https://app.clearspringcg.com/", "https://api.clearspringcg.com/api/v1/health"];

const SCRIPT: &str = include_str!("prober.py");

/// Where the prober looks for its end, and leaves what it saw.
const DIR: &str = "/run/prober";

/// A prober at work on the outsider. Without [`Prober::end`] it ends when it is dropped.
pub(crate) struct Prober<'a> {
    lab: &'a Lab,
}

/// Has the public endpoints asked while `work` is done: what it gave, and what was seen of both together.
pub(crate) fn during<T>(lab: &Lab, work: impl FnOnce() -> Result<T>) -> Result<(T, Seen)> {
    let prober = Prober::start(lab, &PUBLIC)?;
    let done = work()?;
    let mut all = Seen::default();
    for seen in prober.end()?.into_values() {
        all.asked += seen.asked;
        all.failed += seen.failed;
        all.longest = all.longest.max(seen.longest);
    }
    Ok((done, all))
}

/// What it saw of one URL.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// How often it asked.
    pub(crate) asked: u64,
    /// How many answers were wrong, or none at all.
    pub(crate) failed: u64,
    /// The first of those.
    pub(crate) first: String,
    /// The longest time without a right answer; where nothing failed, the time between two of them.
    pub(crate) longest: Duration,
}

impl<'a> Prober<'a> {
    /// Begins to ask these URLs, and has asked each once when this returns.
    pub(crate) fn start(lab: &'a Lab, urls: &[&str]) -> Result<Self> {
        let start = format!(
            "rm -rf {DIR}; mkdir {DIR}
             python3 -c \"$@\" </dev/null >{DIR}/log 2>&1 &"
        );
        let words = [&["sh", "-c", &start, "sh", SCRIPT, DIR], urls].concat();
        lab.node(Node::Outsider).command(&words).run()?;
        let prober = Self { lab };
        prober.wait("asking")?;
        Ok(prober)
    }

    /// Ends it; what it saw, by URL.
    pub(crate) fn end(self) -> Result<BTreeMap<String, Seen>> {
        self.stop()?;
        let seen = std::fs::read(self.wait("seen")?)?;
        let rows: BTreeMap<String, Value> = serde_json::from_slice(&seen)?;
        rows.into_iter().map(|(url, row)| Ok((url, Seen::read(&row)?))).collect()
    }

    fn stop(&self) -> Result<()> {
        self.lab.node(Node::Outsider).command(&["touch", &format!("{DIR}/end")]).run()
    }

    /// Waits for a file of the prober's.
    fn wait(&self, name: &str) -> Result<Utf8PathBuf> {
        let outsider = self.lab.node(Node::Outsider);
        let file = outsider.path(format!("{DIR}/{name}"))?;
        let begun = Instant::now();
        while !file.exists() {
            let log = || outsider.command(&["cat", &format!("{DIR}/log")]).read();
            ensure!(begun.elapsed() < Duration::from_secs(20), "the prober left no `{name}`: {}", log()?);
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(file)
    }
}

impl Drop for Prober<'_> {
    fn drop(&mut self) {
        // A trial that failed has said why already.
        let _ = self.stop();
    }
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {} answers were wrong", self.failed, self.asked)?;
        if self.failed > 0 {
            write!(f, ", first: {}", self.first)?;
        }
        write!(f, "; {:.1} s without a right one", self.longest.as_secs_f64())
    }
}

impl Seen {
    fn read(row: &Value) -> Result<Self> {
        let number = |key: &str| row[key].as_u64().with_context(|| format!("`{key}` in {row}"));
        Ok(Self {
            asked: number("asked")?,
            failed: number("failed")?,
            first: row["first"].as_str().unwrap_or_default().to_owned(),
            longest: Duration::from_secs_f64(row["longest"].as_f64().context("a time")?),
        })
    }
}
