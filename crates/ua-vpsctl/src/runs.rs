//! What a process runs: the commit that it was started from, judged by times of the VPS alone.

use std::collections::BTreeMap;

use jiff::Timestamp;
use ua_common::ledger::Push;
use ua_common::profile::Profile;

/// What the releases say of the units, as `seen.sh` prints it.
#[derive(Debug, Default)]
pub struct Records<'a> {
    /// Unit → a commit for each release since one restarted it, oldest first; all of them are the same for it.
    pub runs: BTreeMap<&'a str, Vec<&'a str>>,
    /// Each proved release, when its switch began, and when it noted what runs, oldest first.
    pub proved: Vec<(&'a str, [f64; 2])>,
    /// What was put in place after the last of them, and neither proved nor taken back.
    pub open: Vec<&'a str>,
    /// Who holds the lock, since when.
    pub holder: Option<(&'a str, f64)>,
}

/// What a process was started from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin<'a> {
    /// This commit.
    Commit(&'a str),
    /// Something older than this release, which changed what the process reads.
    Before(&'a str),
    /// That cannot be told.
    Unknown,
}

impl<'a> Records<'a> {
    /// A release that was put in place, and of which nobody knows whether it serves.
    pub fn doubt(&self) -> Option<&'a str> {
        self.open.iter().copied().find(|id| !self.is_under_way(id))
    }

    /// Is another release being put in place?
    pub fn deploying(&self) -> bool {
        self.open.iter().any(|id| self.is_under_way(id))
    }

    fn is_under_way(&self, id: &str) -> bool {
        self.holder.is_some_and(|(holder, _)| holder.split_whitespace().any(|word| word == id))
    }

    /// Tells what the process of a unit, running since `start`, was started from.
    pub fn origin(&self, unit: &str, start: f64) -> Origin<'a> {
        // What a deploy has started by now may be of either release.
        let started_within =
            self.holder.is_some_and(|(who, since)| who.starts_with("ua-deploy ") && start >= since);
        if started_within || self.doubt().is_some() {
            return Origin::Unknown;
        }
        let mut oldest = Origin::Unknown;
        let commits = self.runs.get(unit).map_or(&[][..], Vec::as_slice);
        for (back, commit) in commits.iter().rev().enumerate() {
            // Releases are forgotten in time; all of these commits are the same for it.
            let Some((id, [switched, running])) = self.proved.iter().rev().nth(back) else {
                return Origin::Commit(commits[0]);
            };
            if start >= *running {
                return Origin::Commit(commit);
            }
            if start >= *switched {
                return Origin::Unknown;
            }
            oldest = Origin::Before(id);
        }
        oldest
    }
}

/// Was a process, running since `start`, started from something that was pushed beside the deploys?
pub fn is_pushed(profile: &Profile, pushes: &[Push], unit: &str, start: f64) -> bool {
    let mut since = pushes.iter().filter(|push| start >= placed(push));
    since.any(|push| push.names().any(|path| profile.restarts(unit, path)))
}

/// The first push of what a process, running since `start`, reads, and has read before: it goes on with the old code.
pub fn missed<'a>(profile: &Profile, pushes: &'a [Push], unit: &str, start: f64) -> Option<&'a Push> {
    let reads = |push: &&Push| push.names().any(|path| profile.restarts(unit, path));
    pushes.iter().filter(|push| start < placed(push)).find(reads)
}

/// When its files were put in place. One of which that cannot be told counts for every process.
fn placed(push: &Push) -> f64 {
    let by_its_client = || push.at.parse().map(seconds).unwrap_or_default();
    push.placed.unwrap_or_else(by_its_client)
}

/// Reads `Sat 2026-02-21 10:15:00.123456 UTC`. A time of another place, or to the second, compares with no file's.
pub fn time(text: &str) -> Option<f64> {
    let words: Vec<&str> = text.split(' ').collect();
    let [_, date, time, "UTC"] = words[..] else { return None };
    format!("{date}T{time}Z").parse().ok().map(seconds).filter(|_| time.contains('.'))
}

#[allow(clippy::cast_precision_loss, reason = "microseconds of the epoch are exact in a double")]
fn seconds(at: Timestamp) -> f64 {
    at.as_microsecond() as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records<'a>(commits: &[&'a str], proved: &[[f64; 2]]) -> Records<'a> {
        let ids = ["r1", "r2", "r3"];
        let proved = ids.into_iter().zip(proved.iter().copied()).collect();
        Records { runs: [("a", commits.to_vec())].into(), proved, ..Records::default() }
    }

    #[test]
    fn it_is_the_commit_of_the_last_release_before_the_start() {
        let records = records(&["c1", "c2", "c3"], &[[10.0, 11.0], [20.0, 21.0], [30.0, 31.0]]);
        let of = |start| records.origin("a", start);
        // Restarted by the first, left alone by the others.
        assert_eq!((of(11.0), of(19.0)), (Origin::Commit("c1"), Origin::Commit("c1")));
        // systemd, or a reboot, started it anew.
        assert_eq!((of(21.5), of(40.0)), (Origin::Commit("c2"), Origin::Commit("c3")));
        // While files were put in place.
        assert_eq!((of(20.5), of(30.0)), (Origin::Unknown, Origin::Unknown));
        assert_eq!(records.origin("b", 40.0), Origin::Unknown);
    }

    #[test]
    fn process_before_the_restart_is_older() {
        let times = [[10.0, 11.0], [20.0, 21.0], [30.0, 31.0]];
        // The second release restarted it, or should have, and the third left it alone.
        let two = records(&["c2", "c3"], &times);
        assert_eq!(
            (two.origin("a", 19.0), two.origin("a", 21.0)),
            (Origin::Before("r2"), Origin::Commit("c2"))
        );
        assert_eq!(records(&["c3"], &times).origin("a", 29.0), Origin::Before("r3"));
        // Where the last release is in doubt nothing is known.
        let broken = Records { open: vec!["r4"], ..records(&["c3"], &times) };
        assert_eq!(broken.origin("a", 29.0), Origin::Unknown);
    }

    #[test]
    fn what_is_forgotten_leaves_the_first_commit() {
        let records = records(&["c1", "c2", "c3"], &[[20.0, 21.0], [30.0, 31.0]]);
        let of = |start| records.origin("a", start);
        assert_eq!((of(5.0), of(25.0)), (Origin::Commit("c1"), Origin::Commit("c2")));
    }

    #[test]
    fn nobody_knows_what_a_deploy_started_or_a_broken_one_left() {
        let known = || records(&["c1"], &[[10.0, 11.0]]);
        let deploy = Some(("ua-deploy forward r2 by op@laptop, since T", 50.0));
        let under_way = Records { open: vec!["r2"], holder: deploy, ..known() };
        let of = |records: &Records<'static>, start| records.origin("a", start);
        let c1 = Origin::Commit("c1");
        assert_eq!((of(&under_way, 49.0), of(&under_way, 50.0)), (c1, Origin::Unknown));
        assert_eq!((under_way.deploying(), under_way.doubt()), (true, None));
        // The way back of the release that serves has begun.
        let back = Records { holder: Some(("ua-deploy restore r1 by op@laptop, since T", 50.0)), ..known() };
        assert_eq!((of(&back, 20.0), of(&back, 51.0)), (c1, Origin::Unknown));
        let push = Some(("ua-vpsctl push p1 by op@laptop, since T", 50.0));
        assert_eq!(of(&Records { holder: push, ..known() }, 51.0), c1);
        for holder in [None, push] {
            let broken = Records { open: vec!["r2"], holder, ..known() };
            assert_eq!((of(&broken, 20.0), broken.doubt()), (Origin::Unknown, Some("r2")));
        }
    }

    #[test]
    fn pushed_is_what_was_started_after_it_and_reads_it() {
        let profile = Profile::built_in().unwrap();
        let push = |placed, at: &str, path: &str| Push {
            placed,
            at: at.to_owned(),
            paths: vec![format!("f\tabc\t{path}")],
            ..Push::default()
        };
        let (api, webui) = ("universal-agent-api.service", "universal-agent-webui.service");
        let pushes = [push(Some(100.0), "2030-01-01T00:00:00Z", "src/universal_agent/api.py")];
        let of = |unit, start| is_pushed(&profile, &pushes, unit, start);
        assert_eq!((of(api, 99.0), of(api, 101.0), of(webui, 101.0)), (false, true, false));
        let missed = |unit, start| missed(&profile, &pushes, unit, start).is_some();
        assert_eq!((missed(api, 99.0), missed(api, 101.0), missed(webui, 99.0)), (true, false, false));
        // A line of an older version has only the time of who pushed.
        let old = [push(None, "1970-01-01T00:01:40Z", "src/universal_agent/api.py")];
        assert_eq!(
            (is_pushed(&profile, &old, api, 99.0), is_pushed(&profile, &old, api, 101.0)),
            (false, true)
        );
    }

    #[test]
    fn systemd_s_times_are_read() {
        assert_eq!(time("Thu 1970-01-01 00:01:40.250000 UTC"), Some(100.25));
        assert_eq!((time(""), time("n/a")), (None, None));
        // As systemd 247 tells them.
        for rough in ["Thu 1970-01-01 00:01:40 UTC", "Thu 1970-01-01 01:01:40 CET"] {
            assert_eq!(time(rough), None);
        }
        assert_eq!(time("Thu 1970-01-01 01:01:40.250000 CET"), None);
    }
}
