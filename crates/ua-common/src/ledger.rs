//! The drift ledger of the VPS: what was pushed there beside the deploys, until a deploy settles it.
//! `remote/ledger.sh` keeps it.

use serde::{Deserialize, Serialize};

/// One push.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Push {
    /// Its id, which begins with its time.
    pub id: String,
    /// When it was.
    pub at: String,
    /// Who pushed, from where.
    pub who: String,
    /// What was checked out.
    pub commit: String,
    /// Is any of it not as in that commit?
    pub dirty: bool,
    /// When it was begun to be put in place, in seconds of the epoch by the clock of the VPS; old lines have only `at`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placed: Option<f64>,
    /// `KIND<TAB>DIGEST-OR-TARGET<TAB>PATH` for each path that was other before.
    #[serde(default)]
    pub paths: Vec<String>,
}

impl Push {
    /// Reads lines of the ledger. One that a full disk cut short put nothing in place.
    pub fn read(lines: &str) -> Vec<Self> {
        lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The beginning of its line in the ledger; the VPS adds the time and the paths.
    pub fn head(&self) -> String {
        let line = serde_json::json!(self.id).to_string();
        let rest = serde_json::json!({
            "at": self.at, "who": self.who, "commit": self.commit, "dirty": self.dirty,
        });
        format!("{{\"id\":{line},{},", rest.to_string().trim_start_matches('{').trim_end_matches('}'))
    }

    /// What it put somewhere.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.paths.iter().filter_map(|line| line.splitn(3, '\t').nth(2))
    }

    /// In words: when, by whom, from what.
    pub fn origin(&self) -> String {
        let commit = self.commit.get(..12).unwrap_or(&self.commit);
        let dirty = if self.dirty { " and uncommitted changes" } else { "" };
        format!("{}, by {}, from commit {commit}{dirty}", self.at, self.who)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn sh(script: &str, state: &std::path::Path) -> String {
        let text = format!("{}\nstate=$1\n{script}", include_str!("../remote/ledger.sh"));
        let output = Command::new("sh").args(["-c", &text, "sh"]).arg(state).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn a_line_is_read_as_it_was_written_whatever_the_names() {
        let dir = tempfile::tempdir().unwrap();
        let manifest = "f\tabc\ta b/\"x\",y\\z\"\nl\t../t\tt\\\nx\tq\t\",\"\n";
        std::fs::write(dir.path().join("manifest"), manifest).unwrap();
        let push = Push {
            id: "20260221T101500.000Z-1".to_owned(),
            who: "o\"p\\@x \"paths\":[\"".to_owned(),
            dirty: true,
            ..Push::default()
        };
        std::fs::write(dir.path().join("head"), push.head()).unwrap();
        let write = "{ cat \"$state/head\"; as_paths <\"$state/manifest\"; } >\"$state/ledger.jsonl\"";
        let both = sh(&format!("{write}; open_pushes; pushed_paths <\"$state/ledger.jsonl\""), dir.path());
        let (line, paths) = both.split_once('\n').unwrap();
        assert_eq!(paths, manifest);
        let read = Push::read(line);
        assert_eq!(read[0].names().collect::<Vec<_>>(), ["a b/\"x\",y\\z\"", "t\\", "\",\""]);
        assert_eq!(Push { paths: Vec::new(), ..read[0].clone() }, push);
        assert_eq!(sh("last_push", dir.path()).trim(), push.id);
    }

    #[test]
    fn what_a_release_saw_is_settled_while_it_serves() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(sh("open_pushes; last_push", dir.path()), "");
        let line = |id: &str| format!("{{\"id\":\"{id}\",\"paths\":[\"f\\ta\\tb\"]}}\n");
        // The third one was cut short.
        let ledger = format!("{}{}{{\"id\":\"3\",\"pa\n", line("1"), line("2"));
        std::fs::write(dir.path().join("ledger.jsonl"), &ledger).unwrap();
        let open = || sh("open_pushes", dir.path());
        assert_eq!(open(), ledger);
        assert_eq!(sh("last_push", dir.path()), "2\n");
        let release = |id: &str, pushed: &str| {
            let release = dir.path().join("releases").join(id);
            std::fs::create_dir_all(&release).unwrap();
            std::fs::write(release.join("pushed"), pushed).unwrap();
            release.join("served")
        };
        std::fs::write(release("a", "1\n"), "").unwrap();
        assert_eq!(open(), ledger.split_once('\n').unwrap().1);
        let newer = release("b", "2\n");
        assert_eq!(open(), ledger.split_once('\n').unwrap().1, "one that does not serve settles nothing");
        std::fs::write(&newer, "").unwrap();
        assert!(!open().contains("\"2\""));
        // One that is taken back opens them again, and so does a mark that the ledger has not.
        std::fs::remove_file(newer).unwrap();
        assert!(open().contains("\"2\""));
        std::fs::write(release("c", "gone\n"), "").unwrap();
        assert_eq!(open(), ledger);
    }
}
