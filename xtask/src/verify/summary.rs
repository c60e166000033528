//! The closing table of a check: the time of each part beside its limit, and everything that was skipped.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::ui;

/// Times and skips of one run.
#[derive(Debug, Default)]
pub struct Summary {
    parts: Vec<Part>,
    skipped: Vec<String>,
}

#[derive(Debug)]
struct Part {
    name: &'static str,
    took: Duration,
    limit: Option<Duration>,
}

impl Summary {
    /// Does `work`, then prints the summary even if the work failed. With `CI` set, a skip is a failure.
    pub fn print_after(work: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let mut summary = Self::default();
        let done = work(&mut summary);
        ui::note(summary.text());
        done?;
        if std::env::var_os("CI").is_some() && !summary.skipped.is_empty() {
            bail!("with CI set nothing may be skipped");
        }
        Ok(())
    }

    /// Does one part of the work and notes its time. A limit is printed, but never enforced.
    pub fn part<T>(
        &mut self,
        name: &'static str,
        limit: Option<Duration>,
        work: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        let started = Instant::now();
        let done = work(self);
        self.parts.push(Part { name, took: started.elapsed(), limit });
        done
    }

    /// Notes something that was not run.
    pub fn skip(&mut self, what: &str, why: &str) {
        self.skipped.push(format!("{what}: {why}"));
    }

    fn text(&self) -> String {
        let mut text = format!("\n{:<20} {:>12} {:>12}\n", "", "took", "limit");
        for part in &self.parts {
            let limit = part.limit.map(shown).unwrap_or_default();
            let line = format!("{:<20} {:>12} {limit:>12}", part.name, shown(part.took));
            let _ = writeln!(text, "{}", line.trim_end());
        }
        for line in &self.skipped {
            let _ = writeln!(text, "skipped: {line}");
        }
        text.truncate(text.trim_end().len());
        text
    }
}

/// `75 min 2 s`, or `2.4 s` below a minute.
fn shown(time: Duration) -> String {
    let seconds = time.as_secs();
    match (seconds / 60, seconds % 60) {
        (0, _) => format!("{:.1} s", time.as_secs_f32()),
        (minutes, 0) => format!("{minutes} min"),
        (minutes, seconds) => format!("{minutes} min {seconds} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_names_times_limits_and_skips() {
        let part = |name, seconds, limit: Option<u64>| Part {
            name,
            took: Duration::from_secs_f32(seconds),
            limit: limit.map(Duration::from_mins),
        };
        let parts =
            vec![part("format", 0.84, None), part("check", 125.0, Some(3)), part("total", 60.0, None)];
        let mut summary = Summary { parts, skipped: Vec::new() };
        summary.skip("shellcheck", "not installed");
        let expected = [
            "                             took        limit",
            "format                      0.8 s",
            "check                   2 min 5 s        3 min",
            "total                       1 min",
            "skipped: shellcheck: not installed",
        ];
        assert_eq!(summary.text(), format!("\n{}", expected.join("\n")));
    }

    #[test]
    fn summary_of_failed_work_has_its_part() {
        let mut summary = Summary::default();
        let failed: Result<()> = summary.part("clippy", None, |_| bail!("a warning"));
        assert!(failed.is_err() && summary.text().contains("\nclippy "), "{}", summary.text());
    }
}
