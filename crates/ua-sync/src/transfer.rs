//! rsync over the one connection: copies into the staging place, and compares contents.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use ua_common::error::{Fact, Failure};
use ua_common::exit::Exit;
use ua_common::run::RunError;
use ua_common::tool::rsync;
use ua_common::transport::{Transport, TransportError};

use crate::id;
use crate::listing::escaped;
use crate::mirror::{DATABASES, local};
use crate::staging::Staging;

/// Why a transfer did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// rsync failed as a whole.
    #[error("the transfer failed: {} (rsync {code}){}", rsync::meaning(*.code), after(.said))]
    Rsync {
        /// Its code.
        code: i32,
        /// What it said last.
        said: String,
        /// Does a login there print something, which is in rsync's way?
        banner: bool,
    },
    /// It was silent for too long.
    #[error("the transfer stalled: {0}")]
    Stalled(TransportError),
}

fn after(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(": {said}") }
}

impl Fact for TransferError {
    fn exit(&self) -> Exit {
        Exit::Transfer
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Rsync { banner: true, .. } => Some(
                "a login on the VPS prints something; its start-up files must be silent where no terminal is"
                    .to_owned(),
            ),
            Self::Rsync { code: 11, .. } => Some("df -h".to_owned()),
            Self::Rsync { code: 127, .. } => Some("sudo apt-get install rsync  # on the VPS".to_owned()),
            _ => None,
        }
    }
}

/// How a transfer looks at what there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// By size and time.
    Quick,
    /// By content.
    Content,
}

/// The other end.
pub struct Source<'a> {
    /// The connection.
    pub transport: &'a Transport,
    /// The directory there.
    pub root: &'a str,
    /// A transfer that is silent for this long has failed.
    pub idle: Duration,
    /// Does a login there print something?
    pub banner: bool,
}

impl Source<'_> {
    /// Copies the named workspaces into the staging place. What the mirror already has is linked from there. Whether all of it
    /// came is for the caller to see: gives what rsync complained about, if it did.
    pub fn copy(
        &self,
        ids: &[&str],
        staging: &Staging<'_>,
        database: bool,
        look: Look,
        on_line: &mut dyn FnMut(&str),
    ) -> Result<Option<String>, Failure> {
        let rules = self.rules(ids, database)?;
        let mut args = neutral();
        args.extend(
            ["--perms", "--times", WINDOW, "--safe-links", "--delete", "--compress", LEVEL]
                .map(OsString::from),
        );
        args.push(MODES.into());
        args.extend(["--info=progress2", "--out-format=%n"].map(OsString::from));
        if look == Look::Content {
            args.push("--checksum".into());
        }
        args.push(joined("--link-dest=", &staging.mirror().root));
        args.push(joined("--partial-dir=", &staging.partial()));
        args.push(joined("--filter=merge ", rules.path()));
        args.push(self.transport.remote(&format!("{}/", self.root)));
        args.push(staging.stage().into());
        self.run(args, on_line)
    }

    /// Copies a whole tree over what is in `to`, where nothing is deleted; what is replaced goes to `aside`.
    pub fn tree(
        &self,
        to: &Path,
        partial: &Path,
        aside: &Path,
        excluded: &str,
        on_line: &mut dyn FnMut(&str),
    ) -> Result<Option<String>, Failure> {
        let mut args = neutral();
        args.extend(["--perms", "--times", WINDOW, "--safe-links", "--compress", LEVEL].map(OsString::from));
        args.push(MODES.into());
        args.extend(["--info=progress2", "--out-format=%n"].map(OsString::from));
        args.push(format!("--exclude=/{excluded}").into());
        args.push("--backup".into());
        args.push(joined("--backup-dir=", aside));
        args.push(joined("--partial-dir=", partial));
        args.push(self.transport.remote(&format!("{}/", self.root)));
        args.push(to.into());
        self.run(args, on_line)
    }

    /// Those of the named workspaces of which the VPS has something that `mirror` does not have with the same
    /// content, each with the first such path. Links and special files count, and databases unless they are left to the
    /// mirror.
    pub fn differing(
        &self,
        ids: &[&str],
        mirror: &Path,
        databases_too: bool,
    ) -> Result<BTreeMap<String, String>, Failure> {
        let rules = self.rules(ids, databases_too)?;
        let mut args = neutral();
        args.extend(["--dry-run", "--devices", "--specials", "--checksum"].map(OsString::from));
        args.push("--out-format=%i %n".into());
        args.push(joined("--filter=merge ", rules.path()));
        args.push(self.transport.remote(&format!("{}/", self.root)));
        args.push(mirror.into());
        let wanted: BTreeSet<&str> = ids.iter().copied().collect();
        let mut differing = BTreeMap::new();
        let mut unclear = false;
        let complaint = self.run(args, &mut |line| {
            let Some((change, name)) = line.split_once(' ') else { return };
            if change.starts_with('.') || name == "./" {
                return;
            }
            // An id has one part or two.
            let slashes = name.match_indices('/').take(2).map(|(at, _)| at).chain([name.len()]);
            match slashes.map(|at| name.split_at(at)).find(|(id, _)| wanted.contains(id)) {
                Some((id, path)) => {
                    let path = path.strip_prefix('/').unwrap_or_default();
                    differing.entry(id.to_owned()).or_insert_with(|| path.to_owned());
                }
                None => unclear = true,
            }
        })?;
        // What could not be read or attributed may be anything.
        if unclear || complaint.is_some() {
            let said = complaint.unwrap_or_else(|| "rsync named something else".to_owned());
            for id in ids {
                differing.entry((*id).to_owned()).or_insert_with(|| said.clone());
            }
        }
        Ok(differing)
    }

    /// The rules as a file, which must be there while rsync starts.
    fn rules(&self, ids: &[&str], database: bool) -> Result<tempfile::NamedTempFile, Failure> {
        use std::io::Write as _;
        let written = tempfile::NamedTempFile::new_in(self.transport.scratch()).and_then(|mut file| {
            file.write_all(&rules(ids, database))?;
            file.flush()?;
            Ok(file)
        });
        written.map_err(local("cannot write rules for rsync"))
    }

    fn run(&self, mut args: Vec<OsString>, on_line: &mut dyn FnMut(&str)) -> Result<Option<String>, Failure> {
        args.push(format!("--timeout={}", self.idle.as_secs().max(1)).into());
        let finished = self.transport.rsync(args, self.idle, on_line).map_err(|error| match error {
            error @ TransportError::Run(RunError::Timeout { .. }) => {
                Failure::from(TransferError::Stalled(error))
            }
            error => error.into(),
        })?;
        let said = finished.err();
        match finished.code {
            0 => Ok(None),
            // Some files could not be read, or vanished: which, the comparison with the VPS shows.
            code @ (23 | 24) => {
                Ok(Some(format!("{} (rsync {code}): {}", rsync::meaning(code), cause(&said))))
            }
            code => {
                // Whether rsync learns what the shell there ended with before the connection ends is a matter of luck.
                let missing = |line: &str| line.contains("rsync") && line.contains("not found");
                let code = if code == 12 && said.lines().any(missing) { 127 } else { code };
                let said = cause(&said).to_owned();
                Err(TransferError::Rsync { code, said, banner: self.banner }.into())
            }
        }
    }
}

/// The line that says what went wrong, and not just that it did. What rsync says first is the cause: its other processes
/// then complain of a broken pipe.
fn cause(said: &str) -> &str {
    let mut lines = said.lines().filter(|line| !line.starts_with("rsync error:"));
    let first = lines.clone().find(|line| line.starts_with("rsync: "));
    first.or_else(|| lines.next_back()).unwrap_or_else(|| said.lines().next_back().unwrap_or_default())
}

/// Nothing of a file's owner is in the way of its next change, nobody else writes to it, and it lends no powers.
const MODES: &str = "--chmod=Du+rwx,Dgo-w,Du-s,Dg-s,D-t,Fu+rw,Fgo-w,Fu-s,Fg-s";

/// Times count to the nanosecond: by whole seconds, what is written twice in one is the same.
const WINDOW: &str = "--modify-window=-1";

/// Logs and reports become as small by the lowest level, for less work at both ends.
const LEVEL: &str = "--compress-level=1";

/// What holds for every run: nothing of the source's owners, devices or names has power here.
fn neutral() -> Vec<OsString> {
    ["--recursive", "--links", "--secluded-args", "--8-bit-output", "--no-human-readable", "--from0"]
        .map(OsString::from)
        .into()
}

fn joined(option: &str, path: &Path) -> OsString {
    let mut word = OsString::from(option);
    word.push(path);
    word
}

/// Filter rules that choose these workspaces and nothing beside them. Chosen this way the source is walked while it is
/// sent, which a list of names would forbid.
fn rules(ids: &[&str], database: bool) -> Vec<u8> {
    let mut text = Vec::new();
    let mut rule = |words: &str| {
        text.extend_from_slice(words.as_bytes());
        text.push(0);
    };
    if !database {
        for name in DATABASES {
            // A directory of that name is no database.
            rule(&format!("+ {name}/"));
            rule(&format!("- {name}"));
        }
    }
    let containers: BTreeSet<&str> = ids.iter().filter_map(|id| id::container(id)).collect();
    if !containers.is_empty() {
        // Most of all lies so deep that it is settled above, and is not to be compared with every id.
        rule("+ /*/*/**");
    }
    for id in ids.iter().filter(|id| id::container(id).is_some()) {
        rule(&format!("+ /{}", pattern(id)));
    }
    for container in &containers {
        rule(&format!("- /{}/*", escaped(container)));
    }
    // Whatever lies deeper is settled by its workspace.
    rule("+ /*/**");
    for id in containers.iter().chain(ids.iter().filter(|id| id::container(id).is_none())) {
        rule(&format!("+ /{}", pattern(id)));
    }
    rule("- /*");
    text
}

/// A name as rsync's pattern. A backslash means itself unless there is a wildcard.
fn pattern(name: &str) -> String {
    if !name.contains(['*', '?', '[']) {
        return name.to_owned();
    }
    escaped(name)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::tree::Tree;

    #[test]
    fn rules_choose_workspaces_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let (from, to) = (root.path().join("from"), root.path().join("to"));
        for path in [
            "session_1/sub/f",
            "session_1/runtime_state.db",
            "session_2/f",
            "s*[1]/x/y/f",
            "s1/f",
            "vp_a/m1/sub/er/f",
            "vp_a/m1/runtime_state.db",
            "vp_a/m10/f",
            "vp_a/m*/sub/f",
            "vp_a/loose",
            "vp_b\\*/m1/f",
            "vp_b\\*/m2/f",
            "vp_c/m1/f",
            "m1/f",
        ] {
            std::fs::create_dir_all(from.join(path).parent().unwrap()).unwrap();
            std::fs::write(from.join(path), path).unwrap();
        }
        // What another run has staged is not deleted.
        for path in ["vp_a/m10/staged", "session_2/staged", "vp_a/m1/gone"] {
            std::fs::create_dir_all(to.join(path).parent().unwrap()).unwrap();
            std::fs::write(to.join(path), path).unwrap();
        }
        let file = root.path().join("rules");
        let ids = ["s*[1]", "session_1", "vp_a/m*", "vp_a/m1", "vp_b\\*/m1"];
        std::fs::write(&file, rules(&ids, false)).unwrap();
        let mut command = Command::new("rsync");
        command.args(["--recursive", "--from0", "--delete"]).arg(joined("--filter=merge ", &file));
        assert!(command.arg(from.join("")).arg(&to).status().unwrap().success());
        let files = Tree::walk(&to).unwrap().0.into_iter();
        let files = files.filter(|(_, thing)| matches!(thing, crate::tree::Thing::File { .. }));
        let found: Vec<String> = files.map(|(path, _)| path.display().to_string()).collect();
        assert_eq!(
            found,
            [
                "s*[1]/x/y/f",
                "session_1/sub/f",
                "session_2/staged",
                "vp_a/m*/sub/f",
                "vp_a/m1/sub/er/f",
                "vp_a/m10/staged",
                "vp_b\\*/m1/f",
            ]
        );
    }
}
