//! `watch`: a run again and again, and a line when something is different from before.

use std::hash::{BuildHasher as _, Hasher as _};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use ua_common::exit::Exit;
use ua_common::interrupt;
use ua_common::output::Printer;
use ua_common::report::{Check, Report, Verdict};

/// Longest pause while runs fail.
const LONGEST: Duration = Duration::from_mins(10);

/// Runs until it is asked to end: `cycle` fills a report, and says which workspaces it copied.
pub fn watch(
    out: &Printer,
    interval: Duration,
    mut cycle: impl FnMut(&mut Report) -> Vec<String>,
    begin: impl Fn() -> Report,
) -> Exit {
    let mut before = None;
    let mut failures = 0;
    loop {
        let mut report = begin();
        let copied = cycle(&mut report);
        if interrupt::requested() {
            return if interrupt::terminated() { Exit::Ok } else { Exit::Interrupted };
        }
        failures = if retry(report.exit()) { failures + 1 } else { 0 };
        let pause = pause(interval, failures, jitter());
        let now = trouble(&report);
        if !copied.is_empty() || before.as_ref() != Some(&now) {
            tell(out, &report, &copied, pause, before.as_ref().is_some_and(|before| !before.is_empty()));
        }
        before = Some(now);
        sleep(pause);
    }
}

/// Is it the way to the VPS that failed, so that others would fail, too?
fn retry(exit: Exit) -> bool {
    !matches!(exit, Exit::Ok | Exit::Partial)
}

/// The interval, or longer and longer while runs fail; spread, so that many do not come back at the same instant.
fn pause(interval: Duration, failures: u32, spread: f64) -> Duration {
    if failures == 0 {
        return interval;
    }
    let longest = LONGEST.max(interval);
    interval.saturating_mul(1 << failures.min(10)).min(longest).mul_f64(0.8 + 0.4 * spread)
}

/// Between 0 and 1.
fn jitter() -> f64 {
    let random = std::hash::RandomState::new().build_hasher().finish();
    f64::from(u32::try_from(random >> 32).unwrap_or_default()) / f64::from(u32::MAX)
}

/// What is wrong, and what was skipped: as long as it is the same, it is said once.
fn trouble(report: &Report) -> Vec<(String, String)> {
    let wrong = |check: &&Check| check.verdict == Verdict::Fail || check.id == crate::toggle::ID;
    let first = report.checks.iter().filter(wrong);
    first.map(|check| (check.id.to_string(), without_numbers(&check.detail))).collect()
}

/// Times and counts that are different in every run do not make a difference.
fn without_numbers(text: &str) -> String {
    text.chars().filter(|c| !c.is_ascii_digit()).collect()
}

fn tell(out: &Printer, report: &Report, copied: &[String], pause: Duration, trouble_before: bool) {
    if out.is_json() {
        out.reports(std::slice::from_ref(report));
        return;
    }
    let line =
        format!("{} {}", Timestamp::now().strftime("%H:%M:%SZ"), line(report, copied, pause, trouble_before));
    if report.exit() == Exit::Ok { out.note(&line) } else { out.warn(&line) }
}

/// What a run that is told of has to say.
fn line(report: &Report, copied: &[String], pause: Duration, trouble_before: bool) -> String {
    let mut words: Vec<String> = Vec::new();
    if !copied.is_empty() {
        words.push(format!("copied {}: {}", copied.len(), copied.join(", ")));
    }
    let wrong: Vec<&Check> = report.checks.iter().filter(|check| check.verdict == Verdict::Fail).collect();
    let summary = report.data.get("summary").and_then(serde_json::Value::as_str);
    match (wrong.first(), report.checks.iter().find(|check| check.id == crate::toggle::ID)) {
        (Some(first), _) => {
            let more =
                if wrong.len() > 1 { format!(" (and {} more)", wrong.len() - 1) } else { String::new() };
            let exit = report.exit();
            // Where workspaces failed, the summary names them.
            let what = summary.filter(|_| exit == Exit::Partial).map_or_else(
                || format!("{}{more}", first.detail),
                |summary| {
                    let whys = wrong.iter().filter(|check| check.id == "sync.failed");
                    let whys: Vec<&str> = whys.map(|check| check.detail.as_str()).take(3).collect();
                    format!("{summary} ({})", whys.join("; "))
                },
            );
            words.push(format!("{what}: exit {} ({})", exit.code(), exit.name()));
        }
        (None, Some(skipped)) => words.push(skipped.detail.clone()),
        (None, None) if trouble_before => words.push("all is well again".to_owned()),
        (None, None) if copied.is_empty() => {
            let summary = report.checks.iter().find(|check| check.id == "sync.workspaces");
            words.extend(summary.map(|check| check.detail.clone()));
        }
        (None, None) => {}
    }
    let next = if wrong.is_empty() { String::new() } else { format!("; next try in {} s", pause.as_secs()) };
    // What ssh says may have several.
    let words = words.join("; ").lines().map(str::trim).collect::<Vec<_>>().join("; ");
    words + &next
}

fn sleep(pause: Duration) {
    let start = Instant::now();
    while start.elapsed() < pause && !interrupt::requested() {
        std::thread::sleep(Duration::from_millis(50).min(pause.saturating_sub(start.elapsed())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_named_and_that_it_goes_on() {
        let copied = ["session_1".to_owned()];
        let pause = Duration::from_secs(30);
        let mut report = Report::new("ua-sync", ua_common::report::Lane::Vps, "root@vps");
        assert_eq!(line(&report, &copied, pause, false), "copied 1: session_1");
        assert_eq!(line(&report, &[], pause, true), "all is well again");
        for (id, why) in [("session_2", "has no room"), ("tg_3", "is no directory")] {
            report.push(Check::fail("sync.failed", Exit::Partial, format!("`{id}` {why}")));
        }
        report.push(Check::fail("sync.workspaces", Exit::Partial, "copied 1, failed 2"));
        report.data.insert("summary".to_owned(), "1 of 3 mirrored; failed: session_2, tg_3".into());
        assert_eq!(
            line(&report, &copied, pause, false),
            "copied 1: session_1; 1 of 3 mirrored; failed: session_2, tg_3 (`session_2` has no room; `tg_3` is no directory): \
             exit 50 (partial); next try in 30 s"
        );
    }

    #[test]
    fn the_pause_grows_and_has_an_end() {
        let interval = Duration::from_secs(30);
        assert_eq!(pause(interval, 0, 0.9), interval);
        assert_eq!(pause(interval, 1, 0.5), Duration::from_mins(1));
        assert_eq!(pause(interval, 30, 0.5), LONGEST);
        assert!(pause(interval, 2, 0.0) < pause(interval, 2, 1.0));
        assert!(pause(Duration::from_hours(1), 3, 0.5) >= Duration::from_hours(1).mul_f64(0.99));
        assert!((0.0..=1.0).contains(&jitter()));
    }
}
