//! The story that needs no lab: a private sshd on loopback, real git and rsync, and an ordinary user. Answers of
//! `tailscale` are replayed, and systemd is a stand-in; each line that one of them touches says so.

use std::env;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use fs_err as fs;
use ua_tests::sshd::Sshd;
use ua_tests::{Place, mode, systemd};

use super::{ended, prompt_line, say, short};
use crate::app;
use crate::cmd::Cmd;
use crate::lab::{self, Node, children};
use crate::ui;

/// Programs that the story needs, and their packages of Debian, Fedora and Arch.
const PROGRAMS: [(&str, [&str; 3]); 9] = [
    ("awk", ["mawk", "gawk", "gawk"]),
    ("curl", ["curl", "curl", "curl"]),
    ("flock", ["util-linux", "util-linux", "util-linux"]),
    ("git", ["git", "git", "git"]),
    ("python3", ["python3", "python3", "python"]),
    ("rsync", ["rsync", "rsync", "rsync"]),
    ("ssh", ["openssh-client", "openssh-clients", "openssh"]),
    ("sshd", ["openssh-server", "openssh-server", "openssh"]),
    ("sqlite3", ["sqlite3", "sqlite", "sqlite"]),
];
const INSTALLERS: [(&str, &str); 3] =
    [("apt-get", "apt-get install"), ("dnf", "dnf install"), ("pacman", "pacman -S")];

/// Answers of `tailscale` that were captured in the lab, with the exit code of a preflight.
const TAILNETS: [(&str, &str, i32); 3] = [
    ("tailscaled does not run here.", "daemon-stopped", 11),
    ("This machine was logged out.", "logged-out", 11),
    ("The VPS was renamed.", "peer-renamed", 12),
];
/// Those with which a preflight comes so far as to look up the name of the VPS.
const TAILNETS_WITH_NAMES: [(&str, &str, i32); 3] = [
    ("All is well.", "healthy", 0),
    ("No direct path, only by way of a relay.", "relayed", 0),
    ("The VPS is away.", "peer-offline", 12),
];

const REPLAYED: &str = "replayed tailscale | ";
const STAND_IN: &str = "stand-in for systemd | ";

/// Directory of the app on the VPS.
const APP: &str = "/opt/sample";
/// Where the VPS has the stand-in.
const ON_VPS: &str = "/var/lib/stand-in";

/// Tells the story on a machine where the lab cannot run.
pub fn run(missing: &str) -> Result<()> {
    ensure_programs()?;
    say(
        "The lab cannot run here, so this is the story without it: real git, rsync, ssh and sshd, on loopback alone.",
    );
    preflight()?;
    sync()?;
    match Vps::start() {
        Ok(vps) => deploy(&vps)?,
        Err(error) => say(&format!(
            "A deploy is left out, since it is root's work, and no namespace makes this user root: {error:#}."
        )),
    }
    say(&format!(
        "For a real tailnet, VPS and systemd: `cargo xtask demo` where nothing is missing. Here: {missing}."
    ));
    Ok(())
}

fn ensure_programs() -> Result<()> {
    let path = env::var("PATH").unwrap_or_default();
    let found = |name: &str| {
        path.split(':').chain(["/usr/sbin", "/sbin"]).any(|dir| Utf8Path::new(dir).join(name).is_file())
    };
    let missing: Vec<_> = PROGRAMS.iter().filter(|(name, _)| !found(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = missing.iter().map(|(name, _)| *name).collect();
    let names = names.join(", ");
    let Some(at) = INSTALLERS.iter().position(|(program, _)| found(program)) else {
        bail!("not installed: {names}");
    };
    let packages: Vec<_> = missing.iter().map(|(_, packages)| packages[at]).collect();
    bail!("not installed: {names}; run `{} {}`", INSTALLERS[at].1, packages.join(" "))
}

fn preflight() -> Result<()> {
    say("Is there a way to the VPS? The answers of `tailscale` are replayed, as the lab captured them.");
    for (what, scenario, code) in TAILNETS {
        say(what);
        Laptop::new()?.replay(scenario).act("ua-preflight", REPLAYED, code)?;
    }
    // In a network of its own with names of its own: no resolver of this machine is asked.
    let inside = ["unshare", "--user", "--map-root-user", "--mount", "--net"];
    if let Err(error) = Cmd::new(inside).arg("true").run() {
        say(&format!(
            "A VPS with a name is left out, since this user can make no namespace in which it has one: {error:#}."
        ));
        return Ok(());
    }
    for (what, scenario, code) in TAILNETS_WITH_NAMES {
        say(what);
        let laptop = Laptop::new()?.replay(scenario);
        let name = Node::Vps.magic_dns_name();
        let address = Node::Vps.tailnet_address().unwrap_or_default();
        laptop.place.file("home/hosts", format!("127.0.0.1 localhost\n{address} {name}\n"));
        let script = "mount --bind \"$HOME/hosts\" /etc/hosts && exec ua-preflight";
        laptop.run("ua-preflight", &[&inside[..], &["sh", "-c", script]].concat(), REPLAYED, code)?;
    }
    Ok(())
}

fn sync() -> Result<()> {
    say("Runs have ended on the VPS, here a directory behind a private sshd, and one goes on.");
    let sshd = Sshd::start("");
    let laptop = Laptop::new()?;
    let remote = laptop.root()?.join("vps");
    for dir in ["workspaces/session_20260221_going_on", "artifacts"] {
        fs::create_dir_all(remote.join(dir))?;
    }
    fs::create_dir(laptop.place.cwd().join("AGENT_RUN_WORKSPACES"))?;
    let workspaces = remote.join("workspaces");
    fs::write(workspaces.join("session_20260221_going_on/run.log"), "step 1\n")?;
    Cmd::new(["python3", "-c", super::WORKSPACES, workspaces.as_str(), "3", "70000"]).run()?;
    laptop.connect(
        &sshd,
        &format!("[sync]\nremote_dir = {workspaces:?}\nremote_artifacts_dir = \"{remote}/artifacts\"\n"),
    )?;
    laptop.act("ua-sync list", "", 0)?;

    say("One of them comes into the mirror by its name, and then all that have ended; whole and proved.");
    laptop.act("ua-sync pull session_20260221_000001_ab12", "", 0)?;
    laptop.act("ua-sync once", "", 0)?;
    laptop.act("ua-sync status", "", 0)?;

    say("What could be deleted on the VPS? Only what the mirror holds, proved; nothing is deleted.");
    laptop.act("ua-sync prune --dry-run", "", 0)?;
    Ok(())
}

fn deploy(vps: &Vps) -> Result<()> {
    say(
        "A VPS: namespaces of this user alone, in which it is root. systemd there is a stand-in, with `runuser`, for \
         which there is no second user; git, rsync, ssh, the build, the app and its health are real.",
    );
    let laptop = Laptop::new()?;
    let repo = Utf8PathBuf::try_from(laptop.place.cwd())?;
    let git = |args: &[&str]| app::git(&repo, 0, args).read();
    laptop.place.file("cwd/build.py", include_str!("../../demo/build.py"));
    laptop.place.file("cwd/server.py", include_str!("../../demo/server.py"));
    laptop.place.file("cwd/page.txt", "Hello\n");
    let commit = |subject: &str| {
        git(&["add", "--all"])?;
        git(&["commit", "--quiet", "--message", subject])?;
        git(&["rev-parse", "HEAD"])
    };
    git(&["init", "--quiet", "--initial-branch=main", "--template="])?;
    let first = commit("Sample")?;

    let url = format!("http://127.0.0.1:{}", vps.app_port);
    let profile = include_str!("../../demo/profile.toml").replace("PORT", &vps.app_port.to_string());
    let profile = Utf8PathBuf::try_from(laptop.place.file("home/profile.toml", profile))?;
    laptop.connect(
        &vps.sshd,
        &format!(
            "[deploy]\napp_dir = \"{APP}\"\nprofile = {profile:?}\n[staging]\nmode = \"off\"\n\
             [public]\napp_url = \"{url}/\"\napi_health_url = \"{url}/health\"\nops_profile_url = \"{url}/ops\"\n"
        ),
    )?;
    say(&format!(
        "The operator deploys commit {}: exactly what is committed, built and proved on the VPS.",
        short(&first)
    ));
    laptop.act("ua-deploy plan", STAND_IN, 0)?;
    laptop.act("ua-deploy", STAND_IN, 0)?;
    laptop.act(&format!("curl -sS --fail {url}/"), STAND_IN, 0)?;

    say("A commit whose build is red. It is refused before anything live is touched.");
    laptop.place.file("cwd/page.txt", "Hello, <a-part-that-is-not-there>\n");
    commit("Include a part that is not there")?;
    laptop.act("ua-deploy", STAND_IN, 1)?;
    let status = laptop.act("ua-deploy status", STAND_IN, 0)?;
    ensure!(status.contains(short(&first)), "the first commit no longer serves: {status}");

    say("A page is changed. Only what it needs is done.");
    laptop.place.file("cwd/page.txt", "Hello again\n");
    commit("Change the page")?;
    laptop.act("ua-deploy", STAND_IN, 0)?;
    laptop.act(&format!("curl -sS --fail {url}/"), STAND_IN, 0)?;
    laptop.act("ua-deploy history", STAND_IN, 0)?;
    Ok(())
}

/// The operator: a home and a working directory of its own, with the tools on its `PATH`.
struct Laptop {
    place: Place,
}

impl Laptop {
    fn new() -> Result<Self> {
        let place = Place::new();
        // Nothing here asks the tailscale of this machine.
        place.tailscale("daemon-stopped");
        for tool in lab::built_tools()?.read_dir_utf8()? {
            let tool = tool?;
            if tool.file_name().starts_with("ua-") && tool.path().extension().is_none() {
                let link = place.home().join("../bin").join(tool.file_name());
                fs::os::unix::fs::symlink(tool.path(), link)?;
            }
        }
        Ok(Self { place })
    }

    /// Replays another scenario.
    fn replay(self, scenario: &str) -> Self {
        self.place.tailscale(scenario);
        self
    }

    fn root(&self) -> Result<Utf8PathBuf> {
        let home = Utf8PathBuf::try_from(self.place.home())?;
        Ok(home.parent().context("a home has a parent")?.to_owned())
    }

    /// Makes this server the VPS, by an address: there is no tailnet that could name it.
    fn connect(&self, sshd: &Sshd, settings: &str) -> Result<()> {
        self.place.vps_by_address(sshd);
        let user = Cmd::new(["id", "-un"]).read()?;
        let (user, port, repo) = (user.trim(), sshd.port, Utf8PathBuf::try_from(self.place.cwd())?);
        let text = format!(
            "[host]\nvps = \"{user}@127.0.0.1\"\nbreak_glass = true\n[ssh]\nkeys_port = {port}\n\
             [preflight]\nmode = \"never\"\n[repo]\ndir = {repo:?}\n{settings}"
        );
        mode(&self.place.file("home/.config/ua/ua.toml", text), 0o600);
        Ok(())
    }

    /// Types a line, shows each line of the answer behind `mark`, and insists on the exit code.
    fn act(&self, line: &str, mark: &str, code: i32) -> Result<String> {
        self.run(line, &["sh", "-c", line], mark, code)
    }

    /// The same, but what runs is `argv`.
    fn run(&self, line: &str, argv: &[&str], mark: &str, code: i32) -> Result<String> {
        ui::data(prompt_line("laptop$", line));
        // In the order in which a person would see it.
        let output = self.place.run("sh").args(["-c", "exec \"$@\" 2>&1", "sh"]).args(argv).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        for line in text.lines() {
            ui::data(format!("{mark}{line}"));
        }
        ended(line, output.status.code(), code)?;
        Ok(text)
    }
}

/// Namespaces of this user in which it is root, reached by a private sshd. They end with this value.
struct Vps {
    sshd: Sshd,
    app_port: u16,
    holder: Child,
    _root: tempfile::TempDir,
}

impl Vps {
    fn start() -> Result<Self> {
        let root = tempfile::tempdir()?;
        systemd::install(root.path());
        std::os::unix::fs::symlink(APP, root.path().join("app"))?;
        let app_port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        fs::write(root.path().join("exec.sample.service"), format!("exec python3 server.py {app_port}\n"))?;
        let mut holder = hold(root.path())?;
        let inner = i32::try_from(holder.id()).map(children)?.first().copied();
        let Some(inner) = inner else {
            holder.kill()?;
            bail!("the first process of the namespaces ended");
        };
        // OpenSSH sets `SSH_ORIGINAL_COMMAND`, which is what the client asked for.
        let sshd = Sshd::start(&format!(
            "ForceCommand exec nsenter --user --preserve-credentials --mount --pid --target {inner} -- \
             env HOME=/root ROOT={ON_VPS} PATH={ON_VPS}/bin:/usr/sbin:/usr/bin:/sbin:/bin \
             sh -c \"$SSH_ORIGINAL_COMMAND\""
        ));
        Ok(Self { sshd, app_port, holder, _root: root })
    }
}

impl Drop for Vps {
    fn drop(&mut self) {
        // With it end its namespaces, and with those what runs there.
        let _ended = self.holder.kill();
        let _reaped = self.holder.wait();
    }
}

/// Starts the process that holds the namespaces.
fn hold(stand_in: &Path) -> Result<Child> {
    let mut holder = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--", "unshare", "--user", "--map-root-user", "--mount", "--pid"])
        .args(["--fork", "--kill-child", "--mount-proc", "sh", "-c", include_str!("../../demo/vps.sh"), "sh"])
        .arg(stand_in)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run setpriv")?;
    let mut first = String::new();
    BufReader::new(holder.stdout.take().context("stdout is piped")?).read_line(&mut first)?;
    if first != "ready\n" {
        let output = holder.wait_with_output()?;
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(holder)
}
