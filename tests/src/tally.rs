//! Counts the answers of an endpoint that is asked again and again, and for how long it was away.

use std::time::{Duration, Instant};

/// What was answered while somebody asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Probed {
    /// How often it was asked, both endpoints together.
    pub requests: usize,
    /// How many of these got no 2xx or 3xx within two seconds.
    pub failures: usize,
    /// The longest time for which one endpoint did not answer well.
    pub longest_gap: Duration,
}

/// The answers of one endpoint as they come.
#[derive(Debug, Default)]
pub struct Tally {
    probed: Probed,
    /// When the first of the failures was asked that were not followed by a good answer yet.
    failing_since: Option<Instant>,
}

impl Tally {
    /// `CODE SECONDS`, heard at this time.
    pub fn hear(&mut self, line: &str, at: Instant) {
        let Some((code, seconds)) = line.split_once(' ') else { return };
        let Ok(took) =
            seconds.parse().map(|seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or_default())
        else {
            return;
        };
        self.probed.requests += 1;
        if code.starts_with(['2', '3']) {
            self.close(at);
        } else {
            self.probed.failures += 1;
            self.failing_since.get_or_insert(at.checked_sub(took).unwrap_or(at));
        }
    }

    fn close(&mut self, at: Instant) {
        if let Some(since) = self.failing_since.take() {
            self.probed.longest_gap = self.probed.longest_gap.max(at.saturating_duration_since(since));
        }
    }

    /// What came out of it, at this time.
    pub fn end(mut self, at: Instant) -> Probed {
        self.close(at);
        self.probed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(lines: &[(u64, &str)], end: u64) -> Probed {
        let start = Instant::now();
        let mut tally = Tally::default();
        for (at, line) in lines {
            tally.hear(line, start + Duration::from_millis(*at));
        }
        tally.end(start + Duration::from_millis(end))
    }

    #[test]
    fn a_gap_lasts_from_the_first_failed_request_to_the_next_good_answer() {
        let lines =
            [(5100, "200 0.1"), (5200, "502 0.1"), (5300, "000 0.1"), (5400, "307 0.1"), (5500, "500 0.0")];
        let probed = tally(&lines, 5550);
        assert_eq!(probed, Probed { requests: 5, failures: 3, longest_gap: Duration::from_millis(300) });
    }

    #[test]
    fn a_gap_that_does_not_end_lasts_to_the_end() {
        let probed = tally(&[(3000, "000 2.0"), (5000, "000 2.0")], 5100);
        assert_eq!(probed, Probed { requests: 2, failures: 2, longest_gap: Duration::from_millis(4100) });
    }

    #[test]
    fn what_is_no_answer_is_not_counted() {
        assert_eq!(tally(&[(1, "curl: (7) refused"), (2, "")], 9).requests, 0);
    }
}
