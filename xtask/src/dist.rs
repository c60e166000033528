//! What is shipped: programs that are linked to nothing of the system they run on, and a Debian package of them with what belongs
//! to them. The same commit gives the same bytes.

use std::fmt::Write as _;

use anyhow::{Context as _, Result, bail, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use fs_err as fs;
use fs_err::os::unix::fs::symlink;
use sha2::{Digest as _, Sha256};

use crate::cache::Cache;
use crate::cmd::Cmd;
use crate::lab;
use crate::setup::{self, set_mode};
use crate::ui::{self, Progress};

/// Every program of the package.
pub const TOOLS: [&str; 6] =
    ["ua-preflight", "ua-ssh-auth", "ua-deploy", "ua-sync", "ua-staging", "ua-vpsctl"];

/// Its name.
pub const PACKAGE: &str = "ua-tools";
/// The version of what is built here.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What the programs call. They themselves are linked to nothing.
const DEPENDS: &str = "git, openssh-client, rsync";

/// A package to be made.
#[derive(Debug, Clone, Copy)]
pub struct Package<'a> {
    /// The checkout whose documents go in.
    pub source: &'a Utf8Path,
    /// Where the programs were built.
    pub programs: &'a Utf8Path,
    /// The program of `xtask/docs`.
    pub make_docs: &'a Utf8Path,
    /// As Debian counts them.
    pub version: &'a str,
}

impl Package<'_> {
    /// Makes it in the directory `out`, and gives its path.
    pub fn make(&self, out: &Utf8Path) -> Result<Utf8PathBuf> {
        let staged = tempfile::tempdir()?;
        let root = Utf8Path::from_path(staged.path()).context("a temporary path is text")?;
        self.stage(root)?;
        control(root, self.version)?;
        let path = out.join(format!("{PACKAGE}_{}_{}.deb", self.version, architecture()?));
        Cmd::new(["dpkg-deb", "--root-owner-group", "-Zgzip", "--build", root.as_str(), path.as_str()])
            .env("SOURCE_DATE_EPOCH", epoch(self.source)?)
            .run()?;
        Ok(path)
    }

    /// Lays everything out below `root`, as it is on an installed system.
    fn stage(&self, root: &Utf8Path) -> Result<()> {
        for tool in TOOLS {
            place(&self.programs.join(tool), &root.join("usr/bin").join(tool), 0o755)?;
        }
        Cmd::new([self.make_docs.as_str(), "package", root.as_str()]).run()?;
        let man = root.join("usr/share/man/man1");
        for page in files(&self.source.join("docs/man"))? {
            let name = page.file_name().context("a page has a name")?;
            place(&page, &man.join(name), 0o644)?;
            // Without the time and the name, which would differ from build to build.
            Cmd::new(["gzip", "-9n", man.join(name).as_str()]).run()?;
        }
        // As in the checkout, so that the links from one to the other hold.
        let doc = root.join("usr/share/doc").join(PACKAGE);
        place(&self.source.join("LICENSE"), &doc.join("copyright"), 0o644)?;
        for name in ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE-APACHE", "LICENSE-MIT"] {
            place(&self.source.join(name), &doc.join(name), 0o644)?;
        }
        for dir in ["docs", "docs/pictures", "runbooks"] {
            for file in files(&self.source.join(dir))? {
                let name = file.file_name().context("a document has a name")?;
                place(&file, &doc.join(dir).join(name), 0o644)?;
            }
        }
        for (file, name) in [
            ("docs/ua.example.toml", "ua.toml"),
            ("crates/ua-common/profiles/universal-agent.toml", "universal-agent.toml"),
            ("crates/ua-common/profiles/universal-agent-2026-08.toml", "universal-agent-2026-08.toml"),
        ] {
            place(&self.source.join(file), &doc.join("examples").join(name), 0o644)?;
        }
        let shims = root.join("usr/share").join(PACKAGE).join("shims");
        fs::create_dir_all(&shims)?;
        for shim in files(&self.source.join("shims"))? {
            let to = shims.join(shim.file_name().context("a shim has a name")?);
            match fs::read_link(&shim) {
                Ok(target) => symlink(target, to)?,
                Err(_) => place(&shim, &to, 0o755)?,
            }
        }
        // Whatever this user's umask.
        let dirs = Cmd::new(["find", root.as_str(), "-type", "d"]).read()?;
        dirs.lines().try_for_each(|dir| set_mode(dir.into(), 0o755))?;
        let data = Cmd::new(["find", root.join("usr").as_str(), "-type", "f", "!", "-perm", "755"]).read()?;
        data.lines().try_for_each(|file| set_mode(file.into(), 0o644))
    }
}

/// `cargo xtask dist`: the programs, the package and their checksums in `target/dist`.
pub fn dist(progress: &Progress) -> Result<()> {
    let source = lab::checkout()?;
    let target = lab::target()?;
    let out = target.join("dist");
    make(&source, &target, &out, progress)?;
    ui::data(fs::read_to_string(out.join("SHA256SUMS"))?.trim_end());
    ui::note(format!("in {out}"));
    Ok(())
}

/// `cargo xtask dist --verify`: all of it once more, in another place and from the commit alone, is the same.
pub fn verify(progress: &Progress) -> Result<()> {
    let source = lab::checkout()?;
    let changed = Cmd::new(["git", "status", "--porcelain"]).dir(source.as_str()).read()?;
    ensure!(changed.is_empty(), "what is compared is a commit, and this differs from it:\n{changed}");
    dist(progress)?;
    let target = lab::target()?;
    let elsewhere = tempfile::Builder::new().prefix("dist-again-").tempdir_in(&target)?;
    let elsewhere = Utf8Path::from_path(elsewhere.path()).context("a temporary path is text")?;
    // With its history, from which the time is taken.
    let again = elsewhere.join("another/checkout");
    Cmd::new(["git", "clone", "--quiet", "--shared", source.as_str(), again.as_str()]).run()?;
    make(&again, &elsewhere.join("build"), &elsewhere.join("out"), progress)?;
    let sums = |dir: &Utf8Path| fs::read_to_string(dir.join("SHA256SUMS"));
    let (first, second) = (sums(&target.join("dist"))?, sums(&elsewhere.join("out"))?);
    if first != second {
        let differing = first.lines().zip(second.lines()).filter(|(one, other)| one != other);
        let differing: Vec<String> = differing.map(|(one, other)| format!("{one}\n{other}")).collect();
        bail!("two builds of one commit differ:\n{}", differing.join("\n"));
    }
    ui::note("a second build, in another place, is the same to the byte");
    Ok(())
}

/// Builds the checkout `source` in the directory `target`, and makes what is shipped of it in `out`.
fn make(source: &Utf8Path, target: &Utf8Path, out: &Utf8Path, progress: &Progress) -> Result<()> {
    setup::ensure(&Cache::open()?, progress)?;
    let triple = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    setup::rust_target(&triple)?;
    let step = progress.step(format!("build the programs for {triple}"));
    let packages = TOOLS.iter().flat_map(|tool| ["--package", tool]);
    Cmd::tied([env!("CARGO"), "build", "--release", "--locked", "--bins", "--target", &triple])
        .args(["--target-dir", target.as_str()])
        .args(packages)
        .dir(source.as_str())
        .env("CARGO_ENCODED_RUSTFLAGS", remapped(source)?)
        .env("SOURCE_DATE_EPOCH", epoch(source)?)
        .run()?;
    let made_here = lab::target()?;
    Cmd::tied([env!("CARGO"), "build", "--locked", "--package", "ua-docs"])
        .args(["--target-dir", made_here.as_str()])
        .dir(source.as_str())
        .run()?;
    step.done();
    if out.exists() {
        fs::remove_dir_all(out)?;
    }
    let step = progress.step("pack them");
    let built = target.join(&triple).join("release");
    for tool in TOOLS {
        // An error where there is nothing to be told, or so it says.
        let linked = Cmd::new(["ldd", built.join(tool).as_str()]).output()?;
        let linked = linked.stdout + &linked.stderr;
        let to_nothing =
            ["statically linked", "not a dynamic executable"].iter().any(|words| linked.contains(words));
        ensure!(to_nothing, "`{tool}` is linked to what another system may not have: {linked}");
        place(&built.join(tool), &out.join("bin").join(tool), 0o755)?;
    }
    let make_docs = made_here.join("debug/make-docs");
    Package { source, programs: &built, make_docs: &make_docs, version: VERSION }.make(out)?;
    let mut sums = String::new();
    for file in files(&out.join("bin"))?.into_iter().chain(files(out)?) {
        let hash = Sha256::digest(fs::read(&file)?);
        let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        let _ = writeln!(sums, "{hash}  {}", file.strip_prefix(out)?);
    }
    fs::write(out.join("SHA256SUMS"), sums)?;
    step.done();
    Ok(())
}

/// Flags that keep the places of this machine out of the programs.
fn remapped(source: &Utf8Path) -> Result<String> {
    let home = match std::env::var("CARGO_HOME") {
        Ok(home) => home,
        Err(_) => format!("{}/.cargo", std::env::var("HOME").context("HOME is not set")?),
    };
    Ok(format!("--remap-path-prefix={source}=/ua-tools\u{1f}--remap-path-prefix={home}=/cargo"))
}

/// When the commit was made, the one time that is in what is shipped.
fn epoch(source: &Utf8Path) -> Result<String> {
    let time = Cmd::new(["git", "log", "-1", "--format=%ct"]).dir(source.as_str()).read()?;
    Ok(time.trim().to_owned())
}

fn architecture() -> Result<String> {
    Ok(Cmd::new(["dpkg", "--print-architecture"]).read()?.trim().to_owned())
}

/// The package's description of itself, and a checksum of each file.
fn control(root: &Utf8Path, version: &str) -> Result<()> {
    let mut listed: Vec<Utf8PathBuf> =
        Cmd::new(["find", root.as_str(), "-type", "f"]).read()?.lines().map(Utf8PathBuf::from).collect();
    listed.sort();
    let mut bytes = 0;
    for file in &listed {
        bytes += fs::metadata(file)?.len();
    }
    let relative: Vec<&str> =
        listed.iter().filter_map(|file| file.strip_prefix(root).ok()).map(Utf8Path::as_str).collect();
    let sums = Cmd::new(["md5sum", "--"]).args(relative).dir(root.as_str()).read()?;
    let dir = root.join("DEBIAN");
    fs::create_dir_all(&dir)?;
    set_mode(&dir, 0o755)?;
    fs::write(dir.join("md5sums"), sums)?;
    let text = format!(
        "Package: {PACKAGE}\nVersion: {version}\nArchitecture: {}\nMaintainer: maintainers <root@localhost>\n\
         Installed-Size: {}\nDepends: {DEPENDS}\nRecommends: bash-completion, jq, man-db, tailscale\n\
         Section: admin\nPriority: optional\n\
         Description: deploy, stage, sync and run the Universal Agent app over a tailnet\n \
         Small programs for one operator and one VPS. An exit code means one thing, and a\n \
         report speaks for one lane. Nothing runs by itself: there is no service, and the\n \
         timer of ua-sync is off until its user turns it on.\n",
        architecture()?,
        bytes.div_ceil(1024),
    );
    fs::write(dir.join("control"), text)?;
    ["control", "md5sums"].iter().try_for_each(|name| set_mode(&dir.join(name), 0o644))
}

/// Copies a file, with the directories above it.
fn place(from: &Utf8Path, to: &Utf8Path, mode: u32) -> Result<()> {
    fs::create_dir_all(to.parent().context("a file lies in a directory")?)?;
    fs::copy(from, to)?;
    set_mode(to, mode)
}

/// The files of a directory, and no directories, by name.
fn files(dir: &Utf8Path) -> Result<Vec<Utf8PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = Utf8PathBuf::try_from(entry?.path())?;
        if path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
