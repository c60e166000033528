//! What there is on the VPS: one pass over all workspaces, in one exec.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _};
use std::time::Duration;

use flate2::read::GzDecoder;
use ua_common::error::{Fact, Failure};
use ua_common::exit::Exit;
use ua_common::settings::Settings;
use ua_common::settings::value::Patterns;
use ua_common::transport::{self, Script, Transport};

use crate::{id, marker};

const LIST: Script = Script { name: "list", text: include_str!("../remote/list.sh") };
/// What turns find's words into records, there.
pub(crate) const RECORDS: &str = include_str!("../remote/listing.awk");
/// What the listing begins with; whatever a login prints stands before it.
const BEGIN: &[u8] = b"ua-list-1\n";
/// Most that a listing may unfold to, in bytes: a small answer must not fill our memory.
const MOST: u64 = 256 << 20;

/// What a directory entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Link,
    /// A device, a fifo, a socket.
    Other,
}

impl Kind {
    fn of(letter: &str) -> Self {
        match letter {
            "d" => Self::Directory,
            "f" => Self::File,
            "l" => Self::Link,
            _ => Self::Other,
        }
    }

    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Directory => "a directory",
            Self::File => "a file",
            Self::Link => "a link",
            Self::Other => "no file",
        }
    }
}

/// One file that matters by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// It is not there.
    None,
    /// A regular file.
    File {
        /// In bytes.
        size: u64,
        /// When it was written, as find prints it: seconds since 1970 and a fraction.
        mtime: String,
    },
    /// Something else of that name.
    Other(Kind),
}

/// How much there is in a workspace, of what is mirrored. Equal sums are equal content unless somebody set times back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Regular files.
    pub files: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Their times of writing, in whole seconds, added up; times before 1970 count as nothing.
    pub times: u64,
    /// The latest of these times, in microseconds: what is written twice in a second counts twice.
    pub latest: u64,
}

/// One entry at the root of the workspaces.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    /// Its name. Bytes that are no text are U+FFFD.
    pub id: String,
    /// What it is.
    pub kind: Kind,
    /// The newest time in it, its own included, as find prints it.
    pub newest: String,
    /// The newest of these times that does not lie ahead of the listing; databases count, too.
    pub active: f64,
    /// What is mirrored of it.
    pub sum: Sum,
    /// Databases that are left out.
    pub excluded: u64,
    /// Links, devices, fifos, sockets.
    pub others: u64,
    /// Directories that the VPS does not let us read.
    pub unreadable: u64,
    /// The ready marker.
    pub marker: Entry,
    /// Whether the marker is in a directory of the workspace's name in the workspace. Only missions have theirs there.
    pub inner: bool,
    /// What it says, unless it is too long.
    pub marker_bytes: Option<Vec<u8>>,
    /// `run.log`.
    pub run_log: Entry,
    /// The record as it came, without the id. Whatever changes in the workspace changes it.
    pub record: String,
}

/// All of it.
#[derive(Clone, Debug)]
pub struct Listing {
    /// When, by the clock of the VPS, in seconds since 1970.
    pub now: f64,
    /// The same, as the VPS wrote it.
    pub clock: String,
    /// Are there artifacts?
    pub artifacts: bool,
    /// By name.
    pub entries: Vec<Listed>,
    /// What the login printed before anything of ours.
    pub banner: bool,
}

impl Listing {
    /// One of its entries.
    pub fn get(&self, id: &str) -> Option<&Listed> {
        let at = self.entries.binary_search_by(|entry| entry.id.as_str().cmp(id)).ok()?;
        Some(&self.entries[at])
    }
}

/// Why there is no listing.
#[derive(Debug, thiserror::Error)]
pub enum ListingError {
    /// The script failed.
    #[error("the workspaces on the VPS cannot be listed: {said}")]
    Failed {
        /// What it said.
        said: String,
    },
    /// The answer is none.
    #[error("the listing of the workspaces is not what the script writes: {why}")]
    Garbled {
        /// What is wrong.
        why: String,
    },
}

impl Fact for ListingError {
    fn exit(&self) -> Exit {
        Exit::Failed
    }
}

/// What is asked for.
pub struct Wanted<'a> {
    /// The root of the workspaces.
    pub root: &'a str,
    /// Name of the ready marker.
    pub marker: &'a str,
    /// Do databases count as content?
    pub database: bool,
    /// The artifacts.
    pub artifacts: &'a str,
    /// Names of directories of workspaces.
    pub nested: &'a Patterns,
}

impl<'a> Wanted<'a> {
    /// As the settings say.
    pub fn of(settings: &'a Settings, database: bool) -> Self {
        Self {
            root: &settings.sync_remote_dir.value.0,
            marker: &settings.sync_ready_marker.value.0,
            database,
            artifacts: &settings.sync_remote_artifacts_dir.value.0,
            nested: &settings.sync_nested.value,
        }
    }
}

/// Lists the named workspaces, or all. One that is not there is not listed.
pub fn list(
    transport: &Transport,
    wanted: &Wanted<'_>,
    ids: &[&str],
    limit: Duration,
) -> Result<Listing, Failure> {
    ahead(transport, wanted, ids, limit)?.list()
}

/// A listing that the VPS begins as soon as it is wanted.
pub struct Ahead<'a>(transport::Ahead<'a>, &'a str);

/// Gets a listing ready.
pub fn ahead<'a>(
    transport: &'a Transport,
    wanted: &Wanted<'a>,
    ids: &[&str],
    limit: Duration,
) -> Result<Ahead<'a>, Failure> {
    let (pattern, longest) = (escaped(wanted.marker), marker::LONGEST.to_string());
    let database = if wanted.database { "yes" } else { "no" };
    let nested = wanted.nested.regex();
    let paths: Vec<String> = ids.iter().map(|id| format!("./{id}")).collect();
    let mut args =
        vec![wanted.root, wanted.marker, &pattern, &longest, database, wanted.artifacts, &nested, RECORDS];
    args.extend(paths.iter().map(String::as_str));
    Ok(Ahead(transport.ahead(LIST, &args, limit)?, wanted.marker))
}

impl Ahead<'_> {
    /// What there is now.
    pub fn list(self) -> Result<Listing, Failure> {
        let (answer, bytes) = self.0.bytes()?;
        if answer.code != 0 {
            return Err(ListingError::Failed { said: answer.stderr }.into());
        }
        Ok(parse(&bytes, self.1)?)
    }
}

/// A name as a pattern that only it matches.
pub(crate) fn escaped(name: &str) -> String {
    let mut pattern = String::new();
    for c in name.chars() {
        if matches!(c, '*' | '?' | '[' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}

fn parse(bytes: &[u8], marker: &str) -> Result<Listing, ListingError> {
    let garbled = |why: &str| ListingError::Garbled { why: why.to_owned() };
    let begin = bytes.windows(BEGIN.len()).position(|window| window == BEGIN);
    let begin = begin.ok_or_else(|| garbled("its first line is missing"))?;
    let unfolded = GzDecoder::new(&bytes[begin + BEGIN.len()..]).take(MOST);
    let mut input = BufReader::new(unfolded);
    let mut listing =
        Listing { now: 0.0, clock: String::new(), artifacts: false, entries: Vec::new(), banner: begin > 0 };
    loop {
        let mut record = Vec::new();
        input.read_until(0, &mut record).map_err(|error| garbled(&error.to_string()))?;
        if record.pop() != Some(0) {
            return Err(garbled("it ends in the middle"));
        }
        let record = String::from_utf8_lossy(&record);
        let (kind, rest) = record.split_once(' ').ok_or_else(|| garbled("a record has no fields"))?;
        match kind {
            "H" => {
                let (now, artifacts) = rest.split_once(' ').ok_or_else(|| garbled("it has no time"))?;
                listing.now = now.parse().map_err(|_| garbled("its time is no number"))?;
                now.clone_into(&mut listing.clock);
                listing.artifacts = artifacts == "yes";
            }
            "W" => listing.entries.push(entry(rest).ok_or_else(|| garbled(&format!("record `{rest}`")))?),
            "E" => break,
            _ => return Err(garbled(&format!("record `{record}`"))),
        }
    }
    if listing.now <= 0.0 {
        return Err(garbled("it has no time"));
    }
    let mut markers = markers(&mut input, marker)
        // To its end, where its check sum is.
        .and_then(|markers| std::io::copy(&mut input, &mut std::io::sink()).map(|_| markers))
        .map_err(|error| garbled(&format!("the markers: {error}")))?;
    for entry in &mut listing.entries {
        if let Entry::File { .. } = entry.marker {
            let inner = entry.inner.then(|| format!("{}/{}", entry.id, id::leaf(&entry.id)));
            entry.marker_bytes = markers.remove(inner.as_ref().unwrap_or(&entry.id));
        }
    }
    listing.entries.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(listing)
}

fn entry(record: &str) -> Option<Listed> {
    let mut fields = record.splitn(18, ' ');
    let mut next = || fields.next();
    let kind = Kind::of(next()?);
    let newest = next()?.to_owned();
    let active = next()?.parse().ok()?;
    // More than fits is still a number.
    let most =
        |text: &str| (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then_some(u64::MAX);
    let mut count = || next().and_then(|text| text.parse::<u64>().ok().or_else(|| most(text)));
    let sum = Sum { files: count()?, bytes: count()?, times: count()?, latest: count()? };
    let (excluded, others, unreadable, inner) = (count()?, count()?, count()?, count()? == 2);
    let mut file = || {
        let (kind, size, mtime) = (next()?, next()?.parse().ok()?, next()?.to_owned());
        Some(match kind {
            "-" => Entry::None,
            "f" => Entry::File { size, mtime },
            kind => Entry::Other(Kind::of(kind)),
        })
    };
    let (marker, run_log) = (file()?, file()?);
    let id = next()?.to_owned();
    let marker_bytes = None;
    let record = record.strip_suffix(&id)?.to_owned();
    Some(Listed {
        id,
        kind,
        newest,
        active,
        sum,
        excluded,
        others,
        unreadable,
        marker,
        inner,
        marker_bytes,
        run_log,
        record,
    })
}

/// The markers of the archive, by the directory that each is in. Members of any other name are not looked at.
fn markers(input: impl std::io::Read, name: &str) -> std::io::Result<HashMap<String, Vec<u8>>> {
    let mut markers = HashMap::new();
    let mut archive = tar::Archive::new(input);
    for member in archive.entries()? {
        let mut member = member?;
        let path = String::from_utf8_lossy(&member.path_bytes()).into_owned();
        let dir = path.strip_prefix("./").and_then(|path| path.strip_suffix(name)?.strip_suffix('/'));
        if let Some(dir) = dir
            && member.header().entry_type().is_file()
            && member.size() <= marker::LONGEST
        {
            let mut bytes = Vec::new();
            member.read_to_end(&mut bytes)?;
            markers.insert(dir.to_owned(), bytes);
        }
    }
    Ok(markers)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::Path;
    use std::process::Command;

    use super::*;

    pub(crate) const NESTED: &str = "vp_[^/]*_external|_archive";

    /// The script itself, to be run here.
    fn script(root: &Path, ids: &[&str]) -> Command {
        let mut command = Command::new("sh");
        command
            .args(["-c", LIST.text, "sh"])
            .arg(root)
            .args(["sync_ready.json", "sync_ready.json", "65536", "no", "/nowhere", NESTED, RECORDS])
            .args(ids.iter().map(|id| format!("./{id}")));
        command
    }

    pub(crate) fn local(root: &Path, ids: &[&str]) -> Result<Listing, ListingError> {
        said(script(root, ids))
    }

    fn said(mut script: Command) -> Result<Listing, ListingError> {
        let output = script.output().unwrap();
        if !output.status.success() {
            return Err(ListingError::Failed { said: String::from_utf8_lossy(&output.stderr).into_owned() });
        }
        parse(&output.stdout, "sync_ready.json")
    }

    fn ids(listing: &Listing) -> Vec<&str> {
        listing.entries.iter().map(|entry| entry.id.as_str()).collect()
    }

    fn write(path: std::path::PathBuf, bytes: &[u8]) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    #[test]
    fn p116_every_name_is_listed_whatever_it_is() {
        let root = tempfile::tempdir().unwrap();
        let names =
            ["session_1", "two words", "größe", "new\nline", "-x", "a|b", "#c", "it's $(x)", "tab\there"];
        for name in names {
            write(root.path().join(name).join("sync_ready.json"), name.as_bytes());
            write(root.path().join(name).join("deep/er/f"), b"12345");
        }
        for never in [".git", "remote_vps_workspaces"] {
            write(root.path().join(never).join("f"), b"x");
        }
        std::fs::write(root.path().join("file"), "x").unwrap();
        let listing = local(root.path(), &[]).unwrap();
        let mut expected: Vec<&str> = names.into_iter().chain(["file"]).collect();
        expected.sort_unstable();
        let found: Vec<&str> = listing.entries.iter().map(|entry| entry.id.as_str()).collect();
        assert_eq!(found, expected);
        for entry in listing.entries.iter().filter(|entry| entry.kind == Kind::Directory) {
            assert_eq!(entry.marker_bytes.as_deref(), Some(entry.id.as_bytes()));
            assert_eq!((entry.sum.files, entry.sum.bytes), (2, entry.id.len() as u64 + 5));
        }
        let some = local(root.path(), &["#c", "absent", "two words"]).unwrap();
        let found: Vec<&str> = some.entries.iter().map(|entry| entry.id.as_str()).collect();
        assert_eq!(found, ["#c", "two words"]);
        assert_eq!(some.entries[0].record, listing.entries.iter().find(|it| it.id == "#c").unwrap().record);
    }

    #[test]
    fn missions_are_listed_one_by_one() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        for id in
            ["session_1", "vp_a_external/m1", "vp_a_external/two words", "_archive/m1", "vp_b_external/-x"]
        {
            write(at(id).join("sync_ready.json"), id.as_bytes());
            write(at(id).join("deep/er/sync_ready.json"), b"12345");
        }
        write(at("vp_a_external/running/f"), b"x");
        write(at("vp_a_external/a|b/f"), b"x");
        write(at("vp_a_external/new\nline/f"), b"x");
        write(at("vp_a_external/loose.txt"), b"no mission");
        write(at("vp_a_external/.hidden/sync_ready.json"), b"x");
        write(at("vp_a_external/remote_vps_x/sync_ready.json"), b"x");
        write(at("vp_a_external_archive/m1/f"), b"a plain workspace");
        write(at("session_1/vp_a_external/sync_ready.json"), b"no mission");
        std::fs::create_dir(at("vp_empty_external")).unwrap();
        std::os::unix::fs::symlink("vp_a_external", at("vp_link_external")).unwrap();
        write(at("vp_file_external"), b"x");
        let listing = local(root.path(), &[]).unwrap();
        let mut expected = vec![
            "_archive/m1",
            "session_1",
            "vp_a_external/a|b",
            "vp_a_external/loose.txt",
            "vp_a_external/m1",
            "vp_a_external/new\nline",
            "vp_a_external/running",
            "vp_a_external/two words",
            "vp_a_external_archive",
            "vp_b_external/-x",
            "vp_file_external",
            "vp_link_external",
        ];
        expected.sort_unstable();
        assert_eq!(ids(&listing), expected);
        for id in
            ["session_1", "vp_a_external/m1", "vp_a_external/two words", "_archive/m1", "vp_b_external/-x"]
        {
            let entry = listing.get(id).unwrap();
            assert_eq!(entry.marker_bytes.as_deref(), Some(id.as_bytes()));
            assert!(!entry.inner);
            let other = u64::from(id == "session_1");
            assert_eq!((entry.kind, entry.sum.files), (Kind::Directory, 2 + other), "{id}");
        }
        assert_eq!(listing.get("vp_a_external/running").unwrap().marker, Entry::None);
        assert_eq!(listing.get("vp_a_external/loose.txt").unwrap().kind, Kind::File);
        assert_eq!(listing.get("vp_link_external").unwrap().kind, Kind::Link);
        // One by one they are the same as together.
        let named = ["vp_a_external/two words", "session_1", "vp_a_external/absent", "vp_a_external/m1"];
        let some = local(root.path(), &named).unwrap();
        assert_eq!(ids(&some), ["session_1", "vp_a_external/m1", "vp_a_external/two words"]);
        for entry in &some.entries {
            let before = listing.get(&entry.id).unwrap();
            assert_eq!((&entry.record, &entry.marker_bytes), (&before.record, &before.marker_bytes));
        }
    }

    #[test]
    fn marker_in_twin_directory_is_the_missions() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        let marker = |dir: &str, age: u64| {
            let path = at(dir).join("sync_ready.json");
            write(path.clone(), dir.as_bytes());
            let then = std::time::SystemTime::now() - Duration::from_secs(age);
            std::fs::File::open(path).unwrap().set_modified(then).unwrap();
        };
        for (dir, age) in [
            ("vp_a_external/inner/inner", 100),
            ("vp_a_external/sibling/other", 100),
            ("vp_a_external/deeper/deeper/deeper", 100),
            ("vp_a_external/later_inner", 100),
            ("vp_a_external/later_inner/later_inner", 90),
            ("vp_a_external/later_outer", 90),
            ("vp_a_external/later_outer/later_outer", 100),
            ("session_1/session_1", 100),
        ] {
            marker(dir, age);
        }
        let all = local(root.path(), &[]).unwrap();
        let named: Vec<&str> = ids(&all);
        for listing in [&all, &local(root.path(), &named).unwrap()] {
            for (id, dir) in [
                ("vp_a_external/inner", Some("vp_a_external/inner/inner")),
                ("vp_a_external/sibling", None),
                ("vp_a_external/deeper", None),
                ("vp_a_external/later_inner", Some("vp_a_external/later_inner/later_inner")),
                ("vp_a_external/later_outer", Some("vp_a_external/later_outer")),
                ("session_1", None),
            ] {
                let entry = listing.get(id).unwrap();
                assert_eq!(entry.marker_bytes.as_deref(), dir.map(str::as_bytes), "{id}");
                assert_eq!(matches!(entry.marker, Entry::File { .. }), dir.is_some(), "{id}");
            }
        }
    }

    #[test]
    fn unreadable_directory_is_listed_itself() {
        use std::os::unix::fs::PermissionsExt as _;
        use std::os::unix::process::CommandExt as _;
        let root = tempfile::tempdir().unwrap();
        write(root.path().join("vp_a_external/m/f"), b"x");
        write(root.path().join("session_1/f"), b"x");
        let mode = |path: &str, mode| {
            std::fs::set_permissions(root.path().join(path), std::fs::Permissions::from_mode(mode)).unwrap();
        };
        mode("", 0o755);
        mode("vp_a_external", 0);
        let mut script = script(root.path(), &[]);
        if rustix::process::geteuid().is_root() {
            script.uid(65_534).gid(65_534);
        }
        let listing = said(script);
        mode("vp_a_external", 0o755);
        let listing = listing.unwrap();
        assert_eq!(ids(&listing), ["session_1", "vp_a_external"]);
        assert_eq!((listing.entries[1].unreadable, listing.entries[0].unreadable), (1, 0));
    }

    #[test]
    fn odd_markers_are_told_apart() {
        let root = tempfile::tempdir().unwrap();
        let marker = |id: &str| root.path().join(id).join("sync_ready.json");
        for id in ["absent", "directory", "fifo", "huge", "link", "empty"] {
            std::fs::create_dir(root.path().join(id)).unwrap();
        }
        std::fs::create_dir(marker("directory")).unwrap();
        assert!(Command::new("mkfifo").arg(marker("fifo")).status().unwrap().success());
        std::fs::write(marker("huge"), vec![b' '; 10 << 20]).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", marker("link")).unwrap();
        std::fs::write(marker("empty"), "").unwrap();
        let listing = local(root.path(), &[]).unwrap();
        let of = |id: &str| listing.entries.iter().find(|entry| entry.id == id).unwrap();
        assert_eq!(of("absent").marker, Entry::None);
        assert_eq!(of("directory").marker, Entry::Other(Kind::Directory));
        assert_eq!(of("fifo").marker, Entry::Other(Kind::Other));
        assert_eq!(of("link").marker, Entry::Other(Kind::Link));
        assert!(matches!(of("huge").marker, Entry::File { size: 10_485_760, .. }));
        assert_eq!(of("huge").marker_bytes, None);
        assert_eq!(of("empty").marker_bytes.as_deref(), Some(&b""[..]));
    }

    #[test]
    fn databases_do_not_count_as_content_but_as_activity() {
        let root = tempfile::tempdir().unwrap();
        write(root.path().join("a/runtime_state.db"), b"12345678");
        write(root.path().join("a/sub/runtime_state.db-wal"), b"1");
        write(root.path().join("a/kept.db"), b"123");
        let listing = local(root.path(), &[]).unwrap();
        let entry = &listing.entries[0];
        assert_eq!((entry.sum.files, entry.sum.bytes, entry.excluded), (1, 3, 2));
        assert!(entry.active > listing.now - 60.0);
    }

    #[test]
    fn p112_a_banner_is_no_workspace_and_a_cut_answer_no_listing() {
        let root = tempfile::tempdir().unwrap();
        write(root.path().join("a/f"), b"x");
        let output = Command::new("sh")
            .args(["-c", LIST.text, "sh"])
            .arg(root.path())
            .args(["m", "m", "65536", "no", "/nowhere", NESTED, RECORDS])
            .output()
            .unwrap()
            .stdout;
        let greeted = [b"Welcome!\nua-lis\n".as_slice(), &output].concat();
        let listing = parse(&greeted, "m").unwrap();
        assert_eq!((listing.entries.len(), listing.banner), (1, true));
        for cut in 0..output.len() - 8 {
            assert!(parse(&output[..cut], "m").is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn a_file_from_before_1970_is_listed_like_others() {
        let root = tempfile::tempdir().unwrap();
        write(root.path().join("a/f"), b"x");
        let file = std::fs::File::open(root.path().join("a/f")).unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH - Duration::from_millis(5_500)).unwrap();
        let listing = local(root.path(), &[]).unwrap();
        let tree = crate::tree::Tree::walk(&root.path().join("a")).unwrap();
        assert_eq!(listing.entries[0].sum, tree.sum());
    }

    #[test]
    fn p109_a_root_that_is_missing_is_no_empty_listing() {
        let root = tempfile::tempdir().unwrap();
        let error = local(&root.path().join("gone"), &[]).unwrap_err();
        assert!(error.to_string().contains("there is no directory"), "{error}");
        assert_eq!(local(root.path(), &[]).unwrap().entries.len(), 0);
    }
}
