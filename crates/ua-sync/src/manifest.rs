//! The manifest: which run of which workspace the mirror holds complete. A line is `<id>` or `<id>|<signature>`; the
//! old script wrote the same, and goes on reading it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use ua_common::settings::value::States;
use ua_common::state;

use crate::id::{self, Name};
use crate::marker;

/// The manifest as it was read.
#[derive(Debug)]
pub struct Manifest {
    path: PathBuf,
    bytes: Vec<u8>,
    recorded: BTreeMap<String, BTreeSet<String>>,
    /// Lines that are none of ours, as text. They are kept.
    pub foreign: Vec<String>,
}

impl Manifest {
    /// Reads it; none is an empty one.
    pub fn read(path: &Path) -> io::Result<Self> {
        // Written through a link, not over it.
        let path = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
        let bytes = match std::fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            bytes => bytes?,
        };
        let mut manifest = Self { path, bytes, recorded: BTreeMap::new(), foreign: Vec::new() };
        for line in manifest.bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            match std::str::from_utf8(line).ok().and_then(record) {
                Some((id, signature)) => {
                    manifest.recorded.entry(id.to_owned()).or_default().insert(signature.to_owned());
                }
                None => manifest.foreign.push(String::from_utf8_lossy(line).into_owned()),
            }
        }
        Ok(manifest)
    }

    /// Is anything recorded of a workspace?
    pub fn knows(&self, id: &str) -> bool {
        self.recorded.contains_key(id)
    }

    /// Is this run of it recorded? The old script wrote no signature for ids that no marker speaks for; such a line
    /// counts until there is one with a signature, since it cannot tell one run from another.
    pub fn holds(&self, id: &str, signature: &str) -> bool {
        let Some(signatures) = self.recorded.get(id) else { return false };
        let bare = signature.starts_with("plain_") && signatures.iter().all(String::is_empty);
        bare || signatures.contains(signature)
    }

    /// Every workspace that it knows.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.recorded.keys().map(String::as_str)
    }

    /// The latest end of a run among the lines of the workspaces that `counts`, in seconds since 1970.
    pub fn latest(&self, counts: impl Fn(&str) -> bool) -> Option<f64> {
        let epoch = |signature: &String| marker::seconds(signature.split_once('_')?.0);
        let recorded = self.recorded.iter().filter(|(id, _)| counts(id));
        recorded.flat_map(|(_, signatures)| signatures).filter_map(epoch).max_by(f64::total_cmp)
    }

    /// Records that these runs are complete: the file has all of them afterwards, or is as it was. What somebody else
    /// has written to it since it was read stays.
    pub fn record<'a>(&mut self, runs: impl IntoIterator<Item = (&'a str, &'a str)>) -> io::Result<()> {
        let mut runs = runs.into_iter().peekable();
        if runs.peek().is_some() {
            *self = Self::read(&self.path)?;
        }
        let mut bytes = self.bytes.clone();
        // A line that was cut short must not swallow the first of ours.
        if bytes.last().is_some_and(|last| *last != b'\n') {
            bytes.push(b'\n');
        }
        let mut added = Vec::new();
        for (id, signature) in runs {
            if !self.recorded.get(id).is_some_and(|signatures| signatures.contains(signature)) {
                bytes.extend_from_slice(format!("{id}|{signature}\n").as_bytes());
                added.push((id.to_owned(), signature.to_owned()));
            }
        }
        if added.is_empty() {
            return Ok(());
        }
        if let Some(dir) = self.path.parent() {
            fs_err::create_dir_all(dir)?;
        }
        state::write(&self.path, &bytes, 0o644)?;
        self.bytes = bytes;
        for (id, signature) in added {
            self.recorded.entry(id).or_default().insert(signature);
        }
        Ok(())
    }
}

/// The id and the signature of a line of ours; the signature is empty where the line has none.
fn record(line: &str) -> Option<(&str, &str)> {
    let (id, signature) = line.split_once('|').unwrap_or((line, ""));
    // Lines without a signature were written by the old script only, and only for such names.
    let old = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if !(known(signature) || (id == line && id.bytes().all(old))) {
        return None;
    }
    (id::judge(id) == Name::Workspace).then_some((id, signature))
}

/// Is this a signature that anybody ever wrote?
fn known(signature: &str) -> bool {
    let Some((first, rest)) = signature.split_once('_') else { return false };
    match first {
        "legacy" => rest.strip_suffix("_runlog").is_some_and(number),
        "plain" => number(rest),
        // Which states end a run may have been set otherwise when it was written.
        epoch => marker::seconds(epoch).is_some() && States::is_one(rest),
    }
}

fn number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.' || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(text: &[u8]) -> (tempfile::TempDir, Manifest) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("synced_workspaces.txt");
        std::fs::write(&path, text).unwrap();
        let manifest = Manifest::read(&path).unwrap();
        (dir, manifest)
    }

    #[test]
    fn old_lines_count_and_foreign_ones_are_kept() {
        let text = b"cron_1\nsession_1|1771650000.12_completed\nsession_1|1771650099_failed\n\
            # a note of mine\nsession_2|legacy_1771650000_runlog\nsession_3|1771650\n../x\n\xff\xfe\nsession_4|17716500";
        let (_dir, mut manifest) = manifest(text);
        assert!(manifest.holds("session_1", "1771650000.12_completed"));
        assert!(manifest.holds("session_1", "1771650099_failed"));
        assert!(!manifest.holds("session_1", "1771650100_failed"));
        assert!(manifest.holds("session_2", "legacy_1771650000_runlog"));
        assert!(!manifest.knows("session_3") && !manifest.knows("session_4"));
        assert_eq!(manifest.latest(|_| true), Some(1_771_650_099.0));
        assert_eq!(manifest.foreign.len(), 5, "{:?}", manifest.foreign);
        manifest.record([("session_5", "1_completed"), ("session_1", "1771650099_failed")]).unwrap();
        let expected = [text.as_slice(), b"\nsession_5|1_completed\n"].concat();
        assert_eq!(std::fs::read(&manifest.path).unwrap(), expected);
        let again = Manifest::read(&manifest.path).unwrap();
        assert!(
            again.holds("session_5", "1_completed") && again.holds("session_1", "1771650000.12_completed")
        );
    }

    #[test]
    fn nested_ids_have_lines_of_their_own() {
        let text = b"vp_a_external\nvp_a_external|plain_1771650000.5\nvp_a_external/m|1771650000.5_completed\n\
            vp_a_external/bare\nvp_a_external/m/n|1_failed\nvp_a_external/..|1_failed\n../m|1_failed\n/m|1_failed\n";
        let (_dir, mut manifest) = manifest(text);
        assert!(manifest.holds("vp_a_external", "plain_1771650000.5"));
        assert!(manifest.holds("vp_a_external/m", "1771650000.5_completed"));
        // What stands for the directory says nothing about what is in it.
        assert!(!manifest.knows("vp_a_external/other") && !manifest.knows("vp_a_external/bare"));
        assert_eq!(manifest.foreign.len(), 5, "{:?}", manifest.foreign);
        manifest.record([("vp_a_external/m2", "2_cancelled")]).unwrap();
        let now = std::fs::read(&manifest.path).unwrap();
        assert_eq!(now, [text.as_slice(), b"vp_a_external/m2|2_cancelled\n"].concat());
    }

    #[test]
    fn lines_with_any_state_are_ours() {
        let (_dir, manifest) =
            manifest(b"run_1|1771650000_dispatch_interrupted\nrun_2|1771650000_no such state\n");
        assert!(manifest.holds("run_1", "1771650000_dispatch_interrupted"));
        assert_eq!(manifest.foreign, ["run_2|1771650000_no such state"]);
    }

    #[test]
    fn p118_a_bare_line_does_not_count_for_ever() {
        let (_dir, mut manifest) = manifest(b"cron_1\n");
        assert!(manifest.holds("cron_1", "plain_1771650000.1"));
        assert!(!manifest.holds("cron_1", "1771650000_completed"));
        manifest.record([("cron_1", "plain_1771650000.1")]).unwrap();
        assert!(manifest.holds("cron_1", "plain_1771650000.1"));
        assert!(!manifest.holds("cron_1", "plain_1771650001.1"));
    }

    #[test]
    fn what_others_write_in_the_meantime_stays() {
        let (_dir, mut manifest) = manifest(b"a|plain_1\nb|plain_1\n");
        std::fs::write(&manifest.path, "b|plain_1\nc|plain_1\n").unwrap();
        manifest.record([("a", "plain_2")]).unwrap();
        assert_eq!(std::fs::read_to_string(&manifest.path).unwrap(), "b|plain_1\nc|plain_1\na|plain_2\n");
        assert!(!manifest.holds("a", "plain_1") && manifest.holds("c", "plain_1"));
    }

    #[test]
    fn a_link_is_written_through() {
        let (dir, manifest) = manifest(b"a\n");
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&manifest.path, &link).unwrap();
        Manifest::read(&link).unwrap().record([("b", "plain_1")]).unwrap();
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(std::fs::read_to_string(&manifest.path).unwrap(), "a\nb|plain_1\n");
    }
}
