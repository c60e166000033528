//! Asks the public endpoints all the time, as the world does, while something else happens to their server.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use xtask::lab::{Lab, Node};

/// What everyone can see of the app.
const ENDPOINTS: [&str; 2] =
    ["https://app.clearspringcg.com/", "https://api.clearspringcg.com/api/v1/health"];

/// What was answered while somebody asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Probed {
    /// How often it was asked, both endpoints together.
    pub(crate) requests: usize,
    /// How many of these got no 2xx or 3xx within two seconds.
    pub(crate) failures: usize,
    /// The longest time for which one endpoint did not answer well.
    pub(crate) longest_gap: Duration,
}

/// Asks both endpoints from the outsider, ten times a second each and over a new connection each time, while `work` is
/// done.
pub(crate) fn during<T>(lab: &Lab, work: impl FnOnce() -> Result<T>) -> Result<(T, Probed)> {
    let probes = ENDPOINTS.map(|url| Probe::start(lab, url));
    let done = work();
    let mut all = Probed::default();
    for probe in probes {
        let one = probe?.end()?;
        all.requests += one.requests;
        all.failures += one.failures;
        all.longest_gap = all.longest_gap.max(one.longest_gap);
    }
    Ok((done?, all))
}

/// One curl that asks one endpoint again and again, and who listens to it.
struct Probe {
    curl: Child,
    heard: JoinHandle<Probed>,
}

impl Probe {
    fn start(lab: &Lab, url: &str) -> Result<Self> {
        // A number at the end makes one address into many. stderr is written at once, stdout is not.
        let many = format!("{url}?[1-1000000]");
        let ask = [
            // Whatever becomes of us or of `nsenter`, nobody goes on asking.
            "setpriv",
            "--pdeathsig",
            "KILL",
            "--",
            "curl",
            "--silent",
            "--rate",
            "10/s",
            "--max-time",
            "2",
            "--header",
            "Connection: close",
            "--output",
            "/dev/null",
            "--write-out",
            "%{stderr}%{http_code} %{time_total}\n",
            &many,
        ];
        let argv = lab.node(Node::Outsider).command(&ask).host_argv()?;
        let mut curl = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .args(argv)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("failed to start the prober")?;
        let lines = BufReader::new(curl.stderr.take().context("stderr is piped")?).lines();
        let heard = thread::spawn(move || {
            let mut tally = Tally::default();
            for line in lines.map_while(Result::ok) {
                tally.hear(&line, Instant::now());
            }
            tally.end(Instant::now())
        });
        Ok(Self { curl, heard })
    }

    fn end(mut self) -> Result<Probed> {
        self.curl.kill()?;
        self.curl.wait()?;
        self.heard.join().map_err(|_| anyhow::anyhow!("the prober panicked"))
    }
}

/// The answers of one endpoint as they come.
#[derive(Default)]
struct Tally {
    probed: Probed,
    /// When the first of the failures was asked that were not followed by a good answer yet.
    failing_since: Option<Instant>,
}

impl Tally {
    /// `CODE SECONDS`, heard at this time.
    fn hear(&mut self, line: &str, at: Instant) {
        let Some((code, seconds)) = line.split_once(' ') else { return };
        let took = seconds.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        self.probed.requests += 1;
        if code.starts_with(['2', '3']) {
            self.close(at);
        } else {
            self.probed.failures += 1;
            self.failing_since.get_or_insert(at.checked_sub(took.unwrap_or_default()).unwrap_or(at));
        }
    }

    fn close(&mut self, at: Instant) {
        if let Some(since) = self.failing_since.take() {
            self.probed.longest_gap = self.probed.longest_gap.max(at.saturating_duration_since(since));
        }
    }

    fn end(mut self, at: Instant) -> Probed {
        self.close(at);
        self.probed
    }
}
