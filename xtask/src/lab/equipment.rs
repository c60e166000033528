//! Equipment of the VPS beyond the base state, for an app that is larger than the sample: a disk of another size, and
//! caches and interpreters of the host.

use std::time::Duration;

use anyhow::{Result, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use clap::Args;
use fs_err as fs;
use serde::{Deserialize, Serialize};

use super::{Lab, Node, PATIENCE, cgroup, scenario, wait_until};
use crate::cache::Cache;
use crate::cmd::Cmd;
use crate::ui::{self, Progress};

/// The user whose builds read the caches, at the places where uv and npm look for them by themselves.
const USER: &str = "ua";
/// Where the VPS has the interpreters.
const PYTHON: &str = "/opt/lab/python";
const NODE: &str = "/opt/lab/node";

/// What the VPS has beyond the base state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
pub struct Equipment {
    /// Size of a disk for the VPS on the host's file system, such as `40G`, instead of one in memory
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    disk: Option<u64>,
    /// Cache of uv on the host, for the builds of `ua`; the host's files are not written to
    #[arg(long, value_name = "DIR", value_parser = parse_directory)]
    uv_cache: Option<Utf8PathBuf>,
    /// Cache of npm on the host, for the builds of `ua`; the host's files are not written to
    #[arg(long, value_name = "DIR", value_parser = parse_directory)]
    npm_cache: Option<Utf8PathBuf>,
    /// Python of the host: a directory with `bin/python3.N`
    #[arg(long, value_name = "DIR", value_parser = parse_python)]
    python: Option<Utf8PathBuf>,
    /// Node of the host: a directory with `bin/node`
    #[arg(long, value_name = "DIR", value_parser = parse_node)]
    node: Option<Utf8PathBuf>,
}

/// A directory of the host on the VPS.
struct Share<'a> {
    name: &'static str,
    source: &'a Utf8Path,
    target: String,
    /// The VPS writes to a layer of its own over it.
    writable: bool,
}

impl Equipment {
    fn is_none(&self) -> bool {
        *self == Self::default()
    }

    fn ensure_none(&self) -> Result<()> {
        ensure!(self.is_none(), "`lab app` has equipped the VPS; `cargo xtask lab up` builds a new lab");
        Ok(())
    }

    fn shares(&self) -> Vec<Share<'_>> {
        let cache = |path| format!("/home/{USER}/{path}");
        [
            ("uv-cache", &self.uv_cache, cache(".cache/uv"), true),
            ("npm-cache", &self.npm_cache, cache(".npm"), true),
            ("python", &self.python, PYTHON.to_owned(), false),
            ("node", &self.node, NODE.to_owned(), false),
        ]
        .into_iter()
        .filter_map(|(name, source, target, writable)| {
            Some(Share { name, source: source.as_deref()?, target, writable })
        })
        .collect()
    }

    /// Arguments for `systemd-nspawn`, for a machine whose disks and shares are mounted in `dir`.
    pub(super) fn binds(&self, dir: &Utf8Path) -> Vec<String> {
        let bind = |share: &Share| {
            let Share { name, target, .. } = share;
            if share.writable {
                format!("--bind={dir}/cache/{name}:{target}")
            } else {
                format!("--bind-ro={dir}/host/{name}:{target}")
            }
        };
        self.shares().iter().map(bind).collect()
    }
}

impl Lab {
    /// Gives the VPS this equipment, and keeps what is on its disk. It restarts, unless it has the equipment already.
    pub fn equip(&self, equipment: &Equipment, progress: &Progress) -> Result<()> {
        let _lock = self.state.lock("lab app", PATIENCE, progress)?;
        let mut record = self.record()?;
        if equipment.is_none() || *equipment == record.equipment {
            return Ok(());
        }
        record.equipment.ensure_none()?;
        let step = progress.step("equip the VPS");
        // A lab that is not ready is built anew by the next `lab up`, if this stops half-way.
        record.ready = false;
        record.equipment = equipment.clone();
        if equipment.disk.is_some() {
            record.image = Some(Cache::open()?.root().join(format!("disk-{}.img", self.state.key())));
        }
        self.state.write(&record)?;
        self.power_off(Node::Vps)?;
        if let (Some(image), Some(size)) = (&record.image, equipment.disk) {
            create_image(image, size)?;
        }
        self.mount_equipment(Node::Vps, equipment, record.image.as_deref())?;
        self.boot(Node::Vps)?;
        let script = include_str!("../../lab/interpreters.sh");
        self.vps().command(&["sh", "-c", script, "sh", PYTHON, NODE]).run()?;
        self.wait_connected(Node::Vps)?;
        self.wait_pong()?;

        let mut record = self.record()?;
        record.image = None;
        record.ready = true;
        self.state.write(&record)?;
        step.done();
        Ok(())
    }

    /// Refuses to go on with a lab that is not in its base state.
    pub(super) fn ensure_not_equipped(&self) -> Result<()> {
        self.record()?.equipment.ensure_none()
    }

    fn power_off(&self, node: Node) -> Result<()> {
        let before = self.first_process(node)?;
        // It may be gone before it has answered.
        let _ = self.node(node).exec(&["systemctl", "poweroff"]);
        wait_until("the machine goes down", scenario::PATIENCE, || Ok(!before.lives()))?;
        let groups = cgroup::create(self.state.key(), node.name())?;
        // After its machine is gone, an nspawn still holds the disk for a moment.
        wait_until("nothing is left of the machine", scenario::PATIENCE, || cgroup::are_empty(&groups))
    }

    fn mount_equipment(&self, node: Node, equipment: &Equipment, image: Option<&Utf8Path>) -> Result<()> {
        let dir = self.machines().dir(node);
        let mut args = vec![dir.as_str(), image.map_or("-", Utf8Path::as_str), USER];
        let shares = equipment.shares();
        for share in &shares {
            args.extend([if share.writable { "cache" } else { "tree" }, share.name, share.source.as_str()]);
        }
        self.anchor.script(include_str!("../../lab/equip.sh"), args).run()
    }
}

/// Makes an empty file system. The file takes only the space that is written.
fn create_image(image: &Utf8Path, size: u64) -> Result<()> {
    let file = fs::File::create(image)?;
    file.set_len(size)?;
    // A file system that compresses, by the options it is mounted with: environments are large.
    Cmd::new(["mkfs.btrfs", "--quiet", image.as_str()]).timeout(Duration::from_mins(1)).run()?;
    let free = rustix::fs::statvfs(image.as_std_path())?;
    let free = free.f_bavail * free.f_frsize;
    if free < size {
        let gib = |bytes: u64| bytes / (1 << 30);
        let (free, size) = (gib(free), gib(size));
        ui::note(format!(
            "note: the host has {free} GiB free; writes to the {size} GiB disk fail beyond that"
        ));
    }
    Ok(())
}

/// Parses a number with a binary unit, such as `40G`.
fn parse_size(text: &str) -> Result<u64, String> {
    let parse = || {
        let (last, unit) = text.char_indices().next_back()?;
        let shift = 10 * (1 + "KMGT".find(unit)?);
        let number = &text[..last];
        // `parse` would take a sign.
        let digits = number.bytes().all(|byte| byte.is_ascii_digit());
        let number: u64 = number.parse().ok().filter(|&number| digits && number > 0)?;
        number.checked_mul(1 << shift)
    };
    parse().ok_or_else(|| "expected a number and one of K, M, G, T, such as `40G`".to_owned())
}

/// Resolves a directory of the host.
fn parse_directory(text: &str) -> Result<Utf8PathBuf, String> {
    let dir = Utf8Path::new(text).canonicalize_utf8().map_err(|error| error.to_string())?;
    if dir.is_dir() { Ok(dir) } else { Err("not a directory".to_owned()) }
}

fn parse_python(text: &str) -> Result<Utf8PathBuf, String> {
    let dir = parse_directory(text)?;
    let is_python = |name: &str| {
        let minor = name.strip_prefix("python3.").unwrap_or_default();
        !minor.is_empty() && minor.bytes().all(|byte| byte.is_ascii_digit())
    };
    let programs = dir.join("bin").read_dir_utf8().map_err(|error| format!("`{dir}/bin`: {error}"))?;
    let found = programs.flatten().any(|entry| is_python(entry.file_name()));
    if found { Ok(dir) } else { Err(format!("`{dir}/bin` has no `python3.N`")) }
}

fn parse_node(text: &str) -> Result<Utf8PathBuf, String> {
    let dir = parse_directory(text)?;
    if dir.join("bin/node").is_file() { Ok(dir) } else { Err(format!("`{dir}/bin` has no `node`")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> (tempfile::TempDir, Utf8PathBuf) {
        let temp = tempfile::tempdir().unwrap();
        let dir = Utf8Path::from_path(temp.path()).unwrap().canonicalize_utf8().unwrap();
        (temp, dir)
    }

    #[test]
    fn size_with_binary_unit_is_bytes() {
        assert_eq!(parse_size("40G"), Ok(40 << 30));
        assert_eq!(parse_size("1T"), Ok(1 << 40));
        assert_eq!(parse_size("512M"), Ok(512 << 20));
    }

    #[test]
    fn size_without_number_or_unit_is_refused() {
        for text in ["", "G", "40", "40g", "40GiB", "-1G", "+1G", "0G", "1.5G", "99999999999T", "4é"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn directory_that_is_missing_or_a_file_is_refused() {
        let (_temp, dir) = directory();
        fs::write(dir.join("file"), "").unwrap();
        assert_eq!(parse_directory(dir.as_str()), Ok(dir.clone()));
        assert!(parse_directory(dir.join("missing").as_str()).is_err());
        assert_eq!(parse_directory(dir.join("file").as_str()), Err("not a directory".to_owned()));
    }

    #[test]
    fn python_without_versioned_program_is_refused() {
        let (_temp, dir) = directory();
        let bin = dir.join("bin");
        assert!(parse_python(dir.as_str()).unwrap_err().contains("bin"));
        fs::create_dir(&bin).unwrap();
        for name in ["python3", "python3.13-config", "python3."] {
            fs::write(bin.join(name), "").unwrap();
        }
        assert_eq!(parse_python(dir.as_str()), Err(format!("`{bin}` has no `python3.N`")));
        fs::write(bin.join("python3.13"), "").unwrap();
        assert_eq!(parse_python(dir.as_str()), Ok(dir));
    }

    #[test]
    fn node_without_program_is_refused() {
        let (_temp, dir) = directory();
        assert_eq!(parse_node(dir.as_str()), Err(format!("`{dir}/bin` has no `node`")));
        fs::create_dir(dir.join("bin")).unwrap();
        fs::write(dir.join("bin/node"), "").unwrap();
        assert_eq!(parse_node(dir.as_str()), Ok(dir));
    }

    #[test]
    fn caches_are_writable_and_interpreters_are_not() {
        let equipment = Equipment {
            disk: Some(1 << 30),
            uv_cache: Some("/a".into()),
            npm_cache: None,
            python: Some("/c:d".into()),
            node: Some("/e".into()),
        };
        // The host's own paths may contain what these arguments would misread.
        let expected = [
            "--bind=/lab/vps/cache/uv-cache:/home/ua/.cache/uv",
            "--bind-ro=/lab/vps/host/python:/opt/lab/python",
            "--bind-ro=/lab/vps/host/node:/opt/lab/node",
        ];
        assert_eq!(equipment.binds("/lab/vps".into()), expected);
        assert!(Equipment::default().binds("/lab/vps".into()).is_empty());
    }
}
