//! The machines of the lab: their disks, what is put on them before they boot, and booting them.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use fs_err as fs;
use fs_err::os::unix::fs::symlink;

use super::anchor::{Anchor, children, program};
use super::layers::Layers;
use super::node::NAMESPACES;
use super::pki::{Authority, Certificate};
use super::record::{Process, State};
use super::{Node, PUBLIC_NAMES, cgroup, wait_for, wait_until};
use crate::cmd::Cmd;
use crate::setup::set_mode;

/// The operator's user on the laptop, besides root.
pub const OPERATOR: &str = "op";

/// How large a machine's disk is, in the words of tmpfs. It lies in memory, but takes only what is written.
pub(super) const DISK_SIZE: &str = "3g";

/// The ports of the VPS's sshd: the second is not intercepted by Tailscale SSH.
const SSH_PORTS: [u16; 2] = [22, 2222];

/// Seconds that the VPS has been up when it boots, where the kernel has time namespaces. Milliseconds of that exceed 31 bits,
/// and a production server does not boot every month.
const UPTIME: &str = "8640000";

/// Whether the VPS has an uptime of its own.
pub(super) fn has_own_time() -> bool {
    Utf8Path::new("/proc/self/ns/time").exists()
}

/// What machines are made with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Machines<'a> {
    pub anchor: Anchor,
    pub state: &'a State,
}

impl Machines<'_> {
    /// Where the disks and the root of a machine are mounted, in the lab's mount namespace.
    pub fn dir(self, node: Node) -> Utf8PathBuf {
        self.state.dir().join(node.name())
    }

    /// Where the tools are, on the host; the laptop sees them at `/opt/ua/bin`.
    pub fn tools(self) -> Utf8PathBuf {
        self.state.dir().join("tools")
    }

    /// Puts the tools' programs from `dir` there.
    pub fn install_tools(self, dir: &Utf8Path) -> Result<()> {
        let tools = self.tools();
        fs::create_dir_all(&tools)?;
        let Ok(listing) = fs::read_dir(dir) else { return Ok(()) };
        for entry in listing {
            let file = Utf8PathBuf::try_from(entry?.path())?;
            let name = file.file_name().unwrap_or_default();
            let program = name.starts_with("ua-") && file.extension().is_none() && file.is_file();
            if program {
                // Renamed in: the old one may be running.
                let new = tools.join(format!(".{name}"));
                fs::copy(&file, &new)?;
                fs::rename(&new, tools.join(name))?;
            }
        }
        Ok(())
    }

    /// The root directory of a machine as we see it, whether it runs or not.
    fn root(self, node: Node) -> Utf8PathBuf {
        self.anchor.path(&self.dir(node).join("root"))
    }

    /// Makes the disk of a machine, and puts on it what does not depend on other machines.
    pub fn prepare(self, node: Node, layers: &Layers, pki: &Authority) -> Result<()> {
        let stack: &[&Utf8Path] = match node {
            Node::Vps => &[&layers.build_tools, &layers.tailscale, &layers.debian],
            Node::Laptop => &[&layers.tailscale, &layers.debian],
            Node::Outsider | Node::Control => &[&layers.debian],
        };
        let stack = stack.iter().map(|layer| layer.as_str()).collect::<Vec<_>>().join(":");
        let script = include_str!("../../lab/disk.sh");
        self.anchor.script(script, [self.dir(node).as_str(), DISK_SIZE, &stack]).run()?;
        self.configure_network(node)?;
        pki.install(&self.root(node))?;
        if Node::TAILNET.contains(&node) {
            self.write(
                node,
                "etc/systemd/system/tailscaled.service",
                include_str!("../../lab/tailscaled.service"),
            )?;
            self.enable(node, "/etc/systemd/system/tailscaled.service")?;
        }
        match node {
            Node::Laptop => self.prepare_laptop(),
            Node::Vps => self.prepare_vps(pki),
            Node::Outsider | Node::Control => Ok(()),
        }
    }

    fn configure_network(self, node: Node) -> Result<()> {
        let address = node.public_address();
        // Sorts before systemd's own file for containers.
        self.write(
            node,
            "etc/systemd/network/10-lab.network",
            &format!(
                "[Match]\nName=host0\n\n[Network]\nAddress={address}/24\nLinkLocalAddressing=no\n\
                 IPv6AcceptRA=no\nLLDP=no\n"
            ),
        )?;
        self.write(node, "etc/hostname", &format!("{}\n", node.name()))?;
        let (own, public) = (node.name(), Node::Vps.public_address());
        let hosts = format!("127.0.0.1 localhost\n127.0.1.1 {own}\n{public} {}\n", PUBLIC_NAMES.join(" "));
        self.write(node, "etc/hosts", &hosts)?;
        // Knows no name, and says so at once.
        self.write(node, "etc/resolv.conf", &format!("nameserver {}\n", Node::Control.public_address()))?;
        Ok(())
    }

    fn prepare_laptop(self) -> Result<()> {
        let root = self.dir(Node::Laptop).join("root");
        let user = ["useradd", "--create-home", "--shell", "/bin/bash", OPERATOR];
        self.anchor.command(["chroot", root.as_str()]).args(user).run()?;
        // As `loginctl enable-linger` does: the operator's user manager starts at boot.
        self.write(Node::Laptop, &format!("var/lib/systemd/linger/{OPERATOR}"), "")?;
        Ok(())
    }

    fn prepare_vps(self, pki: &Authority) -> Result<()> {
        let ports = SSH_PORTS.map(|port| format!("Port {port}\n")).concat();
        self.write(Node::Vps, "etc/ssh/sshd_config.d/lab.conf", &ports)?;
        self.enable(Node::Vps, "/lib/systemd/system/ssh.service")?;
        self.enable(Node::Vps, "/lib/systemd/system/nginx.service")?;
        for name in PUBLIC_NAMES {
            let short = name.split('.').next().unwrap_or(name);
            self.put_certificate(&pki.issue(name)?, &format!("etc/ssl/lab/{short}"))?;
        }
        // Where tailscaled looks before it would ask an authority on the internet.
        let name = Node::Vps.magic_dns_name();
        self.put_certificate(&pki.issue(&name)?, &format!("var/lib/tailscale/certs/{name}"))
    }

    fn put_certificate(self, certificate: &Certificate, stem: &str) -> Result<()> {
        self.write(Node::Vps, &format!("{stem}.crt"), &fs::read_to_string(&certificate.crt)?)?;
        let key = self.write(Node::Vps, &format!("{stem}.key"), &fs::read_to_string(&certificate.key)?)?;
        set_mode(&key, 0o600)
    }

    /// Lets the operator's key in on the VPS, and makes the VPS's host keys known to the operator.
    pub fn introduce(self) -> Result<()> {
        let (laptop, vps) = (self.root(Node::Laptop), self.root(Node::Vps));
        Cmd::new(["ssh-keygen", "-q", "-A", "-f", vps.as_str()]).run()?;
        let mut known_hosts = String::new();
        let names = [Node::Vps.magic_dns_name(), Node::Vps.tailnet_address().unwrap_or_default().to_owned()];
        let places = names.iter().flat_map(|name| {
            SSH_PORTS.map(|port| if port == 22 { name.clone() } else { format!("[{name}]:{port}") })
        });
        let places = places.collect::<Vec<_>>().join(",");
        for kind in ["ed25519", "ecdsa", "rsa"] {
            let public = fs::read_to_string(vps.join(format!("etc/ssh/ssh_host_{kind}_key.pub")))?;
            let key = public.split(' ').take(2).collect::<Vec<_>>().join(" ");
            let _ = writeln!(known_hosts, "{places} {}", key.trim());
        }

        let key = self.state.dir().join("operator-key");
        Cmd::new(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "operator", "-f", key.as_str()])
            .run()?;
        let public = fs::read_to_string(key.with_extension("pub"))?;
        write_ssh(&vps, "root", "authorized_keys", &public)?;
        for user in ["root", OPERATOR] {
            write_ssh(&laptop, user, "id_ed25519", &fs::read_to_string(&key)?)?;
            write_ssh(&laptop, user, "id_ed25519.pub", &public)?;
            write_ssh(&laptop, user, "known_hosts", &known_hosts)?;
        }
        Ok(())
    }

    /// Boots a machine, and returns its first process as the host numbers it.
    pub fn boot(self, node: Node) -> Result<Process> {
        let groups = cgroup::create(self.state.key(), node.name())?;
        // After its machine is gone, an nspawn still holds the directory for a moment.
        wait_until("nothing is left of the machine", Duration::from_secs(20), || cgroup::are_empty(&groups))?;
        let log = self.state.dir().join(node.name()).with_extension("log");
        let directory = format!("--directory={}", self.dir(node).join("root"));
        let machine = format!("--machine={}", node.name());
        let mut argv = Vec::new();
        if node == Node::Vps && has_own_time() {
            argv.extend(["unshare", "--time", "--boottime", UPTIME, "--monotonic", UPTIME]);
        }
        argv.extend(["systemd-nspawn", "--quiet", "--boot", "--settings=no", &directory, &machine]);
        argv.extend(["--register=no", "--keep-unit", "--console=pipe", "--link-journal=no"]);
        argv.extend(["--network-bridge=br0", "--resolv-conf=off", "--timezone=off"]);
        if Node::TAILNET.contains(&node) {
            argv.extend(["--bind=/dev/net/tun", "--capability=CAP_NET_ADMIN,CAP_NET_RAW"]);
        }
        let mut binds = Vec::new();
        if node == Node::Laptop {
            binds.push(format!("--bind-ro={}:/opt/ua/bin", self.tools()));
        }
        if node == Node::Vps {
            let record = self.state.read()?.context("the lab was taken down")?;
            binds.extend(record.equipment.binds(&self.dir(node)));
        }
        argv.extend(binds.iter().map(String::as_str));
        let nspawn = self.anchor.spawn(&log, &groups, &argv)?;
        let first = wait_for("the machine's first process", Duration::from_secs(20), || {
            ensure!(nspawn.lives(), "`{}` did not start: see `{log}`", node.name());
            Ok(children(nspawn.pid).into_iter().find(|&child| program(child) == "systemd"))
        })?;
        let booted = Cmd::new(["nsenter", "-t", &first.to_string()]).args(NAMESPACES).args([
            "--",
            "systemctl",
            "is-system-running",
            "--wait",
        ]);
        wait_until(&format!("`{}` boots", node.name()), Duration::from_mins(1), || {
            let state = booted.output()?.stdout;
            // One failed unit is for the tests to notice, not for the lab to stop at.
            Ok(matches!(state.trim(), "running" | "degraded"))
        })
        .with_context(|| format!("its console is `{log}`"))?;
        Process::of(first)
    }

    /// Changes the size of a machine's disk, in the words of tmpfs.
    pub fn resize_disk(self, node: Node, size: &str) -> Result<()> {
        let disk = self.dir(node).join("disk");
        let option = format!("remount,size={size}");
        self.anchor.command(["mount", "-o", &option, disk.as_str()]).run()
    }

    fn enable(self, node: Node, unit: &str) -> Result<()> {
        let wants = self.root(node).join("etc/systemd/system/multi-user.target.wants");
        fs::create_dir_all(&wants)?;
        let name = Utf8Path::new(unit).file_name().context("a unit is a file")?;
        Ok(symlink(unit, wants.join(name))?)
    }

    /// Writes a file of a machine that does not run yet, and returns where it is.
    fn write(self, node: Node, path: &str, text: &str) -> Result<Utf8PathBuf> {
        let file = self.root(node).join(path);
        if let Some(parent) = file.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&file, text)?;
        Ok(file)
    }
}

/// Writes a file of a user's `.ssh` on the machine with this root directory.
fn write_ssh(root: &Utf8Path, user: &str, name: &str, text: &str) -> Result<()> {
    let (home, id) = if user == "root" { ("root".to_owned(), 0) } else { (format!("home/{user}"), 1000) };
    let dir = root.join(home).join(".ssh");
    fs::create_dir_all(&dir)?;
    set_mode(&dir, 0o700)?;
    let file = dir.join(name);
    fs::write(&file, text)?;
    set_mode(&file, 0o600)?;
    for path in [&dir, &file] {
        std::os::unix::fs::chown(path, Some(id), Some(id))?;
    }
    Ok(())
}
