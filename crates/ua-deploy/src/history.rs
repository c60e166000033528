//! Records of deploys, as they lie on the VPS: JSON lines, of which the last one of an id counts.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use ua_common::error::Fact;
use ua_common::exit::Exit;

/// What a deploy came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Uploading, or cut off while it did.
    Begun,
    /// The VPS is putting it in place, or was cut off while it did.
    Activating,
    /// It runs, as the VPS itself saw; its client has not said so yet.
    Unconfirmed,
    /// It runs, and its client saw so too.
    Ok,
    /// It failed and the old release was never touched.
    Failed,
    /// Another deploy held the lock.
    Busy,
    /// It failed and what was there before serves again.
    RolledBack,
    /// It failed and what was there before does not serve.
    Broken,
    /// A word of a later version.
    #[serde(other)]
    Unknown,
}

impl Outcome {
    /// Does the release serve?
    pub fn serves(self) -> bool {
        matches!(self, Self::Ok | Self::Unconfirmed)
    }

    /// The word in the record.
    pub fn word(self) -> &'static str {
        match self {
            Self::Begun => "begun",
            Self::Activating => "activating",
            Self::Unconfirmed => "unconfirmed",
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Busy => "busy",
            Self::RolledBack => "rolled-back",
            Self::Broken => "broken",
            Self::Unknown => "unknown",
        }
    }
}

/// One deploy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its id, which begins with its time.
    pub id: String,
    /// What was shipped.
    pub commit: String,
    /// The branch that was checked out.
    #[serde(default)]
    pub branch: Option<String>,
    /// Who deployed, from where.
    #[serde(default)]
    pub who: String,
    /// When it began.
    #[serde(default)]
    pub at: String,
    /// Was the host policy overridden?
    #[serde(default)]
    pub break_glass: bool,
    /// The release that it replaced by an older one, if it is a rollback.
    #[serde(default)]
    pub rollback_from: Option<String>,
    /// Seconds within which the VPS takes it back unless it is confirmed.
    #[serde(default)]
    pub confirm_within: Option<u64>,
    /// What it came to.
    pub verdict: Outcome,
    /// Exit code that this means.
    #[serde(default)]
    pub exit_code: u8,
    /// The step that decided.
    #[serde(default)]
    pub step: String,
    /// In words.
    #[serde(default)]
    pub detail: String,
    /// What the tailnet calls whoever deployed.
    #[serde(default)]
    pub whois: String,
    /// How long it took from its beginning on, by the clock of the VPS.
    #[serde(default)]
    pub seconds: Option<u64>,
    /// How its client found the public side: `pass`, `warn` or `fail`; nothing if nobody looked.
    #[serde(default)]
    pub public: Option<String>,
    /// When it ended.
    #[serde(default)]
    pub ended_at: String,
}

impl Record {
    /// What the VPS does about it by itself if nobody confirms it, and when; nothing if that is nothing.
    pub fn expires(&self, now: Timestamp) -> Option<String> {
        let within = self.confirm_within.filter(|_| self.verdict == Outcome::Unconfirmed)?;
        let since: Timestamp = self.ended_at.parse().ok()?;
        let end = since.checked_add(SignedDuration::from_secs(within.try_into().ok()?)).ok()?;
        let left = end.duration_since(now).as_secs();
        let left = if left > 0 { format!("in {left} s") } else { "which is over".to_owned() };
        Some(format!("unless it is confirmed, the VPS takes it back by itself at {end}, {left}"))
    }
}

/// What to do where nothing was deployed yet.
pub const NOT_YET: &str = "ua-deploy plan";

/// Who holds the lock of the VPS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// In its own words.
    pub text: String,
    /// The step that its deploy is at.
    pub step: Option<String>,
}

impl Holder {
    /// The deploy that is worked on; nothing if it is a push, or who knows what.
    pub fn deploy(&self) -> Option<&str> {
        deploy_of(&self.text)
    }

    /// Is it this deploy that is worked on?
    pub fn works_on(&self, id: &str) -> bool {
        self.deploy() == Some(id)
    }

    /// Where its deploy is, in words.
    pub fn place(&self) -> String {
        self.step.as_ref().map_or(String::new(), |step| format!(", at step `{step}`"))
    }
}

/// The deploy that whoever holds the lock works on, by the words in it: `ua-deploy VERB ID by …`.
fn deploy_of(holder: &str) -> Option<&str> {
    let mut words = holder.split_whitespace();
    (words.next() == Some("ua-deploy")).then(|| words.nth(1)).flatten()
}

/// The command that tells more of whoever holds the lock: a deploy can be followed, a push is over in a moment.
pub fn follow(holder: &str) -> String {
    deploy_of(holder).map_or_else(|| "ua-deploy status".to_owned(), |id| format!("ua-deploy attach {id}"))
}

/// Reads history lines. A line that was cut short by a full disk is passed over.
pub fn fold(lines: &str) -> Vec<Record> {
    let mut records: Vec<Record> = Vec::new();
    for record in lines.lines().filter_map(|line| serde_json::from_str::<Record>(line).ok()) {
        match records.iter_mut().find(|known| known.id == record.id) {
            Some(known) => *known = record,
            None => records.push(record),
        }
    }
    records
}

/// The deploy that serves: the newest good one, unless a later one left things broken.
pub fn serving(records: &[Record]) -> Option<&Record> {
    decisive(records).filter(|record| record.verdict.serves())
}

/// The newest that decided anew what serves, after the deploy of this id.
pub fn later<'a>(records: &'a [Record], id: &str) -> Option<&'a Record> {
    let at = records.iter().position(|record| record.id == id)?;
    decisive(&records[at + 1..])
}

/// The newest after which something else serves than before, or nobody knows what.
fn decisive(records: &[Record]) -> Option<&Record> {
    // One that was cut off in the middle of the switch is broken as well.
    let cut_off =
        |record: &Record| record.verdict == Outcome::Activating && record.exit_code == Exit::Broken.code();
    let decisive =
        |record: &&Record| record.verdict.serves() || record.verdict == Outcome::Broken || cut_off(record);
    records.iter().rfind(decisive)
}

/// Why a commit is marked bad.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Bad {
    /// The deploy that says so.
    pub id: String,
    /// When that ended.
    pub at: String,
    /// In words.
    pub why: String,
}

/// Is a commit marked bad? The last that is known of it counts: it did not come up, or was rolled back from.
pub fn bad(records: &[Record], commit: &str) -> Option<Bad> {
    let mut bad = None;
    for record in records {
        let mark = |why: String| {
            let at = if record.ended_at.is_empty() { &record.at } else { &record.ended_at };
            Some(Bad { id: record.id.clone(), at: at.clone(), why })
        };
        if record.commit == commit {
            match record.verdict {
                Outcome::RolledBack | Outcome::Broken => bad = mark(record.detail.clone()),
                verdict if verdict.serves() => bad = None,
                _ => {}
            }
        }
        let left =
            record.rollback_from.as_deref().filter(|_| record.verdict.serves() && record.commit != commit);
        let of_it = |id: &str| records.iter().any(|other| other.id == id && other.commit == commit);
        if left.is_some_and(of_it) {
            bad = mark(format!("{} rolled back from it", record.who));
        }
    }
    bad
}

/// The release to go back to: the one of this id, else the newest that served with another commit than the present
/// one's and is not marked bad.
pub fn older<'a>(records: &'a [Record], id: Option<&str>) -> Result<&'a Record, Unknown> {
    if id.is_some() {
        let record = find(records, id)?;
        if record.verdict.serves() {
            return Ok(record);
        }
        return Err(Unknown::NeverServed { id: record.id.clone(), verdict: record.verdict.word() });
    }
    let now = serving(records).map(|record| record.commit.as_str());
    let fits = |record: &&Record| {
        record.verdict.serves()
            && Some(record.commit.as_str()) != now
            && bad(records, &record.commit).is_none()
    };
    records.iter().rfind(fits).ok_or(Unknown::NoOlder)
}

/// No such deploy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// There is none at all.
    #[error("nothing was deployed yet")]
    None,
    /// None to go back to.
    #[error("there is no older release that served and is not marked bad")]
    NoOlder,
    /// It never ran.
    #[error("`{id}` ended as {verdict}, so there is nothing to go back to")]
    NeverServed {
        /// The deploy.
        id: String,
        /// What it came to.
        verdict: &'static str,
    },
    /// None of that id.
    #[error("there is no deploy `{id}`; the newest are {}", .newest.join(", "))]
    Id {
        /// What was asked for.
        id: String,
        /// What there is.
        newest: Vec<String>,
    },
}

impl Fact for Unknown {
    fn exit(&self) -> Exit {
        Exit::Failed
    }

    fn hint(&self) -> Option<String> {
        Some(if *self == Self::None { NOT_YET } else { "ua-deploy history" }.to_owned())
    }
}

/// The deploy that is meant: by its id or how that begins, else the newest.
pub fn find<'a>(records: &'a [Record], id: Option<&str>) -> Result<&'a Record, Unknown> {
    let Some(id) = id else { return records.last().ok_or(Unknown::None) };
    let mut found = records.iter().filter(|record| record.id == id || record.id.starts_with(id));
    if let (Some(record), None) = (found.next(), found.next()) {
        return Ok(record);
    }
    let newest = records.iter().rev().take(3).map(|record| format!("`{}`", record.id)).collect();
    Err(Unknown::Id { id: id.to_owned(), newest })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(id: &str, verdict: &str) -> String {
        format!("{{\"id\":\"{id}\",\"commit\":\"c\",\"later\":[1],\"verdict\":\"{verdict}\"}}\n")
    }

    #[test]
    fn the_last_line_of_an_id_counts() {
        let lines = [line("1", "begun"), line("2", "begun"), line("1", "ok"), "{\"id\":".to_owned()].concat();
        let records = fold(&lines);
        assert_eq!(records.iter().map(|it| it.verdict).collect::<Vec<_>>(), [Outcome::Ok, Outcome::Begun]);
        assert_eq!(serving(&records).unwrap().id, "1");
    }

    #[test]
    fn one_that_has_to_be_confirmed_says_when_it_is_taken_back() {
        let record = |verdict: &str, more: &str| {
            let more = format!("\"ended_at\":\"2026-02-21T12:00:00Z\",{more}\"later\"");
            fold(&line("1", verdict).replace("\"later\"", &more)).remove(0)
        };
        let at = |record: &Record, now: &str| record.expires(now.parse().unwrap());
        let within = "\"confirm_within\":300,";
        let waiting = record("unconfirmed", within);
        let said = "unless it is confirmed, the VPS takes it back by itself at 2026-02-21T12:05:00Z, ";
        assert_eq!(at(&waiting, "2026-02-21T12:04:18Z").unwrap(), format!("{said}in 42 s"));
        assert_eq!(at(&waiting, "2026-02-21T12:05:00Z").unwrap(), format!("{said}which is over"));
        for left in [record("unconfirmed", ""), record("ok", within), record("rolled-back", within)] {
            assert_eq!(at(&left, "2026-02-21T12:04:18Z"), None);
        }
    }

    #[test]
    fn a_rollback_goes_to_the_newest_good_release_of_another_commit() {
        let deploy = |id: &str, commit: &str, verdict: &str, from: &str| {
            let from = if from.is_empty() { String::new() } else { format!(",\"rollback_from\":\"{from}\"") };
            format!("{{\"id\":\"{id}\",\"commit\":\"{commit}\",\"verdict\":\"{verdict}\"{from}}}\n")
        };
        let to = |lines: &[String]| older(&fold(&lines.concat()), None).map(|record| record.id.clone());
        let mut lines =
            vec![deploy("1", "a", "ok", ""), deploy("2", "b", "ok", ""), deploy("3", "c", "ok", "")];
        assert_eq!(to(&lines).unwrap(), "2");
        // What was rolled back from is marked bad, and is not where the next rollback goes.
        lines.push(deploy("4", "b", "ok", "3"));
        assert_eq!(to(&lines).unwrap(), "1");
        lines.push(deploy("5", "a", "unconfirmed", "4"));
        assert_eq!(to(&lines).unwrap_err(), Unknown::NoOlder);
        // Deployed again on purpose, it is good again.
        lines.push(deploy("6", "c", "ok", ""));
        assert_eq!(to(&lines).unwrap(), "5");
        // So is one that was rolled back to while it served: nothing was left.
        lines.push(deploy("6b", "c", "ok", "6"));
        lines.push(deploy("6c", "b", "ok", "6b"));
        lines.push(deploy("6d", "c", "ok", ""));
        lines.push(deploy("6e", "c", "ok", "6d"));
        lines.push(deploy("6f", "a", "ok", ""));
        assert_eq!(to(&lines).unwrap(), "6e");
        lines.push(deploy("7", "d", "failed", ""));
        let records = fold(&lines.concat());
        assert!(matches!(older(&records, Some("7")), Err(Unknown::NeverServed { .. })));
        assert_eq!(older(&records, Some("2")).unwrap().commit, "b");
    }

    #[test]
    fn a_bad_commit_says_since_when_and_why() {
        let line = |id: &str, commit: &str, verdict: &str, more: &str| {
            format!(
                "{{\"id\":\"{id}\",\"commit\":\"{commit}\",\"who\":\"op@laptop\",\"ended_at\":\"T{id}\",\"verdict\":\"{verdict}\"{more}}}\n"
            )
        };
        let mut lines =
            line("1", "a", "ok", "") + &line("2", "b", "rolled-back", ",\"detail\":\"api answers 500\"");
        let of = |lines: &str, commit: &str| {
            bad(&fold(lines), commit).map(|it| format!("{} {}: {}", it.id, it.at, it.why))
        };
        assert_eq!(of(&lines, "b").unwrap(), "2 T2: api answers 500");
        assert_eq!(of(&lines, "a"), None);
        // One that never came to the switch says nothing about its commit.
        lines += &line("3", "c", "failed", "");
        assert_eq!(of(&lines, "c"), None);
        lines += &line("4", "b", "ok", "");
        assert_eq!(of(&lines, "b"), None, "deployed again, and good");
        lines += &line("5", "a", "ok", ",\"rollback_from\":\"4\"");
        assert_eq!(of(&lines, "b").unwrap(), "5 T5: op@laptop rolled back from it");
    }

    #[test]
    fn a_deploy_that_holds_the_lock_can_be_followed() {
        let deploy = "ua-deploy forward 2026-c by op@laptop, since 2026-02-21T12:00:00Z";
        assert_eq!(follow(deploy), "ua-deploy attach 2026-c");
        assert_eq!(follow("ua-vpsctl push 2026-1 by op@laptop, since x"), "ua-deploy status");
        let holder = Holder { text: deploy.to_owned(), step: Some("build".to_owned()) };
        assert!(holder.works_on("2026-c") && !holder.works_on("forward"));
        assert_eq!(holder.place(), ", at step `build`");
    }

    #[test]
    fn only_what_came_after_a_deploy_and_decided_what_serves_is_later() {
        let records = fold(
            &["ok", "ok", "failed", "broken", "rolled-back"]
                .iter()
                .enumerate()
                .fold(String::new(), |lines, (n, word)| lines + &line(&n.to_string(), word)),
        );
        let of = |records, id| later(records, id).map(|record| record.id.clone());
        assert_eq!(of(&records[..3], "0").as_deref(), Some("1"));
        assert_eq!(of(&records[..3], "1"), None);
        assert_eq!(of(&records, "1").as_deref(), Some("3"));
        assert_eq!(of(&records, "3"), None);
    }

    #[test]
    fn after_a_broken_one_nobody_knows_what_serves() {
        let of = |words: &[&str]| {
            fold(&words.iter().enumerate().map(|(n, word)| line(&n.to_string(), word)).collect::<String>())
        };
        assert_eq!(serving(&of(&["ok", "broken"])), None);
        assert_eq!(serving(&of(&["ok", "rolled-back", "failed", "begun"])).unwrap().id, "0");
        assert_eq!(serving(&of(&["broken", "ok", "later-word"])).unwrap().id, "1");
        assert_eq!(serving(&of(&["ok", "unconfirmed", "failed"])).unwrap().id, "1");
        let cut_off = |code: &str| {
            line("1", "activating").replace("\"later\"", &format!("\"exit_code\":{code},\"later\""))
        };
        assert_eq!(serving(&fold(&(line("0", "ok") + &cut_off("34")))), None);
        assert_eq!(serving(&fold(&(line("0", "ok") + &cut_off("1")))).unwrap().id, "0");
    }
}
