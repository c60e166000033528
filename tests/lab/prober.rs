//! Asks the public endpoints all the time, as the world does, while something else happens to their server.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use anyhow::{Context as _, Result};
use ua_tests::tally::{Probed, Tally};
use xtask::lab::{Lab, Node};

/// What everyone can see of the app.
const ENDPOINTS: [&str; 2] =
    ["https://app.clearspringcg.com/", "https://api.clearspringcg.com/api/v1/health"];

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
