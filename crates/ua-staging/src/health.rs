//! Does staging answer, asked the way its users reach it: by its tailnet name, from here?

use std::time::{Duration, Instant};

use ua_common::error::Failure;
use ua_common::exit::Exit;
use ua_common::http::{Way, status};
use ua_common::interrupt;
use ua_common::output::Printer;
use ua_common::report::Check;
use ua_common::settings::value::Value;

use crate::ensure::{Vps, loopback};
use crate::plan::Route;

/// What one request may take: a first https request makes the node fetch its certificate.
pub const EACH: Duration = Duration::from_secs(10);

/// How long to go on asking.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// How often, at most.
    pub attempts: u32,
    /// Pause between two.
    pub interval: Duration,
}

/// Asks every route until it is healthy or patience ends; one check each.
pub fn health(
    wanted: &[Route],
    name: &str,
    patience: Patience,
    out: &Printer,
) -> Result<Vec<Check>, Failure> {
    let start = Instant::now();
    let bar = out.spinner("asking staging for its health");
    let mut checks: Vec<Option<Check>> = vec![None; wanted.len()];
    for attempt in 1..=patience.attempts {
        for (route, check) in wanted.iter().zip(&mut checks) {
            if check.as_ref().is_some_and(|check| check.exit == Exit::Ok) {
                continue;
            }
            let url = format!("{}{}", route.url(name), route.health_path);
            bar.set_message(format!("asking {url} (attempt {attempt} of {})", patience.attempts));
            let id = format!("staging.{}", route.part);
            *check = Some(match status(&url, Way::Direct, EACH) {
                Ok(code) if route.healthy.contains(code) => {
                    Check::pass(id, format!("{url} answers {code}")).since(start)
                }
                Ok(code) => {
                    unhealthy(id, &url, &format!("{url} answers {code}"), attempt, route).since(start)
                }
                Err(why) => unhealthy(id, &url, &format!("{url}: {why}"), attempt, route).since(start),
            });
        }
        if checks.iter().flatten().all(|check| check.exit == Exit::Ok) {
            break;
        }
        if attempt < patience.attempts {
            if attempt == 1 {
                // A pipe or a log shows no bar, and this may take a minute.
                let ill = checks.iter().flatten().filter(|check| check.exit != Exit::Ok);
                let ill: Vec<&str> = ill.map(|check| check.id.as_ref()).collect();
                let (most, every) = (patience.attempts, patience.interval.show());
                let words =
                    format!("{} not healthy yet; asking up to {most} times, {every} apart", ill.join(", "));
                bar.suspend(|| out.note(&words));
            }
            pause(patience.interval)?;
        }
    }
    Ok(checks.into_iter().flatten().collect())
}

fn unhealthy(id: String, url: &str, what: &str, attempt: u32, route: &Route) -> Check {
    let times = if attempt == 1 { "1 attempt".to_owned() } else { format!("{attempt} attempts") };
    Check::fail(id, Exit::StagingUnhealthy, format!("{what} ({times}); the route goes to {}", route.target))
        .hint(format!("curl -sv -o /dev/null {url}"))
}

/// For the routes that are not healthy: is it the app itself? What its own address answers, asked on the VPS.
pub fn halves(vps: &Vps<'_>, wanted: &[Route], checks: &[Check]) -> Result<Vec<Check>, Failure> {
    let id = |route: &Route| format!("staging.{}", route.part);
    let ill = |route: &&Route| checks.iter().any(|check| check.id == id(route) && check.exit != Exit::Ok);
    let ill: Vec<&Route> = wanted.iter().filter(ill).collect();
    if ill.is_empty() {
        return Ok(Vec::new());
    }
    let urls: Vec<String> =
        ill.iter().map(|route| format!("{}{}", route.target, route.health_path)).collect();
    let answers = match loopback(vps, &urls) {
        Ok(answers) => answers,
        Err(failure) if failure.exit == Exit::Interrupted => return Err(failure),
        // Which half is ill is only told; that one is, is known already.
        Err(failure) => return Ok(vec![Check::warn("staging.local", failure.to_string())]),
    };
    let half = |((route, url), answer): ((&&Route, &String), &Option<u16>)| {
        let id = format!("{}.local", id(route));
        match answer {
            Some(code) if route.healthy.contains(*code) => {
                Check::pass(id, format!("{url} answers {code} on the VPS: what is broken is the way to it"))
            }
            answer => {
                let said = answer.map_or("does not answer".to_owned(), |code| format!("answers {code}"));
                let detail = format!("{url} {said} on the VPS: what is broken is the app itself");
                Check::fail(id, Exit::StagingUnhealthy, detail).hint("ua-vpsctl status")
            }
        }
    };
    Ok(ill.iter().zip(&urls).zip(&answers).map(half).collect())
}

/// Sleeps, unless the run is asked to end.
pub fn pause(length: Duration) -> Result<(), Failure> {
    let end = Instant::now() + length;
    loop {
        if interrupt::requested() {
            return Err(Failure::new(Exit::Interrupted, "interrupted between two attempts"));
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(Duration::from_millis(50)));
    }
}
