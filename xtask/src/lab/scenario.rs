//! What can happen to a tailnet, on purpose: each verb returns once its effect is there, and has one that undoes it.

use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use fs_err as fs;
use serde_json::Value;

use super::control::{Control, SshPolicy};
use super::machines::{DISK_SIZE, OPERATOR};
use super::record::Process;
use super::{Lab, Node, joined, wait_until};

/// How long any effect may take to show.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Where MagicDNS answers on every member of a tailnet.
const MAGIC_DNS: &str = "nameserver 100.100.100.100";

/// Where a machine has what scenarios bend of its files, as it was.
const KEPT: &str = "/var/lib/lab";

/// What scenarios bend of the machines' files: logins, login shells and host keys of the VPS, the operator's keys.
const BENT: [(Node, &str); 2] =
    [(Node::Vps, "etc/passwd etc/shadow etc/ssh root"), (Node::Laptop, "home/op/.ssh root/.ssh")];

/// What the tools keep on the laptop, in the words of a shell.
const OURS: &str = "/root/.config/ua /root/.local/state/ua /home/op/.config/ua /home/op/.local/state/ua";

/// The nftables table that holds direct traffic back.
const RELAY_TABLE: &str = "inet lab";

impl Lab {
    /// Stops the Tailscale daemon.
    pub fn stop_tailscaled(&self, node: Node) -> Result<()> {
        self.node(node).command(&["systemctl", "stop", "tailscaled"]).run()
    }

    /// Starts the Tailscale daemon and waits until it is on the tailnet.
    pub fn start_tailscaled(&self, node: Node) -> Result<()> {
        self.node(node).command(&["systemctl", "start", "tailscaled"]).run()?;
        self.wait_connected(node)
    }

    /// Restarts the Tailscale daemon and waits until it is on the tailnet.
    pub fn restart_tailscaled(&self, node: Node) -> Result<()> {
        self.node(node).command(&["systemctl", "restart", "tailscaled"]).run()?;
        self.wait_connected(node)
    }

    /// `tailscale down`.
    pub fn tailscale_down(&self, node: Node) -> Result<()> {
        self.node(node).command(&["tailscale", "down"]).run()?;
        self.wait_backend(node, "Stopped")
    }

    /// `tailscale up`, after [`Lab::tailscale_down`].
    pub fn tailscale_up(&self, node: Node) -> Result<()> {
        self.run_up(node, Control::Headscale, &[])
    }

    /// `tailscale logout`.
    pub fn log_out(&self, node: Node) -> Result<()> {
        self.node(node).command(&["tailscale", "logout"]).run()?;
        self.wait_backend(node, "NeedsLogin")
    }

    /// Logs in to headscale with the settings of the base state; the node keeps its name and addresses.
    pub fn log_in(&self, node: Node) -> Result<()> {
        self.log_in_to(node, Control::Headscale)
    }

    fn log_in_to(&self, node: Node, control: Control) -> Result<()> {
        let key = format!("--auth-key={}", self.servers().auth_key()?);
        let log_in = || {
            // A node that runs may not change its control server, unless it also asks for a new key.
            self.node(node).command(&["tailscale", "down", "--accept-risk=all"]).run()?;
            self.run_up(node, control, &["--reset", "--accept-risk=all", &key])
        };
        let had_key = self.tailscale_status(node)?.0["HaveNodeKey"] == true;
        log_in()?;
        if had_key {
            return Ok(());
        }
        // To get a new key (or when forced to), `up` registers twice at once, with two keys, and the server may end
        // with the one that the node has thrown away. A node with a key registers once, with that.
        log_in()
    }

    fn run_up(&self, node: Node, control: Control, flags: &[&str]) -> Result<()> {
        let operator = if node == Node::Laptop { OPERATOR } else { "" };
        // Has to be told all of the settings that differ from Tailscale's defaults, each time.
        let settings = [
            format!("--login-server={}", control.url()),
            format!("--hostname={}", node.name()),
            format!("--operator={operator}"),
        ];
        let mut argv = vec!["tailscale", "up", "--timeout=20s"];
        argv.extend(settings.iter().map(String::as_str));
        argv.extend(flags);
        self.node(node).command(&argv).run()?;
        self.wait_connected(node)
    }

    /// Joins all members in the order of their addresses.
    pub(super) fn join(&self) -> Result<()> {
        self.use_control(Control::Headscale)?;
        // A second look at what can go wrong in a first registration.
        self.reset()
    }

    /// Moves the whole tailnet to another control server. Names and addresses stay the same.
    pub fn use_control(&self, control: Control) -> Result<()> {
        if control == Control::Https {
            self.servers().start_https_control()?;
        }
        for node in Node::TAILNET {
            self.log_in_to(node, control)?;
        }
        self.wait_pong()
    }

    /// Pulls the plug of a node's network.
    pub fn cut_link(&self, node: Node) -> Result<()> {
        self.set_link(node, "down")
    }

    /// Puts the plug back, and waits until the tailnet works again.
    pub fn restore_link(&self, node: Node) -> Result<()> {
        self.set_link(node, "up")?;
        self.wait_pong()
    }

    fn set_link(&self, node: Node, state: &str) -> Result<()> {
        self.anchor.command(["ip", "link", "set", &node.plug(), state]).run()
    }

    /// Lets the node's key expire.
    pub fn expire(&self, node: Node) -> Result<()> {
        let servers = self.servers();
        servers.headscale(&["nodes", "expire", "--identifier", &servers.id(node)?]).run()?;
        self.wait_backend(node, "NeedsLogin")?;
        let watcher = other(node);
        wait_until("the peer shows as expired", PATIENCE, || {
            Ok(self.tailscale_status(watcher)?.peer(node)?["Expired"] == true)
        })
    }

    /// Renames a node at the control server; the node itself goes on calling itself as before.
    pub fn rename(&self, node: Node, name: &str) -> Result<()> {
        let servers = self.servers();
        servers.headscale(&["nodes", "rename", "--identifier", &servers.id(node)?, name]).run()?;
        let expected = format!("{name}.{}.", super::TAILNET);
        wait_until("the new name is known", PATIENCE, || {
            let own = self.tailscale_status(node)?.0["Self"]["DNSName"] == expected;
            Ok(own && self.tailscale_status(other(node))?.peer(node)?["DNSName"] == expected)
        })
    }

    /// Gives a renamed node its own name back.
    pub fn rename_back(&self, node: Node) -> Result<()> {
        self.rename(node, node.name())
    }

    /// Nails the node's resolver to somebody who does not know the tailnet. Mounted over, because tailscaled would at
    /// once write its own back.
    pub fn break_dns(&self, node: Node) -> Result<()> {
        let script = format!(
            "echo 'nameserver {}' >/run/elsewhere
             mount --bind /run/elsewhere /etc/resolv.conf && mount -o remount,bind,ro /etc/resolv.conf",
            Node::Control.public_address()
        );
        self.node(node).command(&["sh", "-c", &script]).run()?;
        wait_until("MagicDNS names stop resolving", PATIENCE, || Ok(!self.resolves(node)?))
    }

    /// Makes the node's resolver ask MagicDNS again.
    pub fn restore_dns(&self, node: Node) -> Result<()> {
        // Exits with 1 if nothing is mounted there.
        self.node(node).sh("while umount /etc/resolv.conf 2>/dev/null; do :; done")?;
        self.set_accept_dns(node, false)?;
        self.set_accept_dns(node, true)
    }

    /// `tailscale set --accept-dns`.
    pub fn set_accept_dns(&self, node: Node, accept: bool) -> Result<()> {
        self.node(node).command(&["tailscale", "set", &format!("--accept-dns={accept}")]).run()?;
        wait_until("the resolver follows", PATIENCE, || Ok(self.resolves(node)? == accept))
    }

    /// Reboots a machine, and waits until it is back on the tailnet if it is a member.
    pub fn reboot(&self, node: Node) -> Result<()> {
        let before = self.first_process(node)?;
        // It may be gone before it has answered.
        let _ = self.node(node).exec(&["systemctl", "reboot"]);
        wait_until("the machine goes down", PATIENCE, || Ok(!before.lives()))?;
        self.boot(node)?;
        if Node::TAILNET.contains(&node) { self.wait_connected(node) } else { Ok(()) }
    }

    pub(super) fn boot(&self, node: Node) -> Result<()> {
        let first: Process = self.machines().boot(node)?;
        let mut record = self.record()?;
        record.nodes.insert(node, first);
        self.state.write(&record)
    }

    /// Leaves only so many KiB on the node's disk. The host's own disk and memory are not touched.
    pub fn fill_disk(&self, node: Node, free_kib: u64) -> Result<()> {
        let used = self.node(node).command(&["df", "--output=used", "--block-size=1K", "/"]).read()?;
        let used: u64 = used.lines().nth(1).context("df prints a number")?.trim().parse()?;
        self.machines().resize_disk(node, &format!("{}k", used + free_kib))
    }

    /// Gives the node's disk its size back.
    pub fn free_disk(&self, node: Node) -> Result<()> {
        self.machines().resize_disk(node, DISK_SIZE)
    }

    /// Puts an SSH policy in force, under headscale.
    pub fn set_ssh_policy(&self, policy: SshPolicy) -> Result<()> {
        self.servers().set_policy(policy)?;
        wait_until("the VPS knows the SSH policy", PATIENCE, || {
            let netmap: Value = self.json(Node::Vps, &["tailscale", "debug", "netmap"])?;
            let rule = &netmap["SSHPolicy"]["rules"][0];
            let action = &rule["action"];
            let now = if action["accept"] == true && rule["sshUsers"]["root"] == "root" {
                SshPolicy::Accept
            } else if action["accept"] == true {
                SshPolicy::DenyRoot
            } else if action.is_object() {
                SshPolicy::Check
            } else {
                SshPolicy::Deny
            };
            Ok(now == policy)
        })
    }

    /// Approves an SSH check, by the id at the end of the URL that ssh shows.
    pub fn approve(&self, auth_id: &str) -> Result<()> {
        self.servers().headscale(&["auth", "approve", "--auth-id", auth_id]).run()
    }

    /// Rejects an SSH check, by the id at the end of the URL that ssh shows.
    pub fn reject(&self, auth_id: &str) -> Result<()> {
        self.servers().headscale(&["auth", "reject", "--auth-id", auth_id]).run()
    }

    /// Gives the VPS's sshd other host keys. The tailnet goes on with the old ones until tailscaled starts again.
    pub fn change_host_keys(&self) -> Result<()> {
        let script = "rm /etc/ssh/ssh_host_* && ssh-keygen -q -A && systemctl restart ssh";
        self.vps().command(&["sh", "-c", script]).run()
    }

    /// Waits until the tailnet gives the laptop this host key of the VPS.
    pub fn wait_for_host_key(&self, key: &str) -> Result<()> {
        let key: Vec<&str> = key.split(' ').take(2).collect();
        let key = Value::from(key.join(" "));
        wait_until("the tailnet gives the host key", PATIENCE, || {
            let status = self.tailscale_status(Node::Laptop)?;
            Ok(status.peer(Node::Vps)?["sshHostKeys"].as_array().is_some_and(|keys| keys.contains(&key)))
        })
    }

    /// Switches Tailscale SSH on the VPS on or off, and waits until the laptop knows.
    pub fn set_tailscale_ssh(&self, on: bool) -> Result<()> {
        self.say_tailscale_ssh(on)?;
        self.wait_tailscale_ssh(on, PATIENCE)
    }

    fn say_tailscale_ssh(&self, on: bool) -> Result<()> {
        let set = format!("--ssh={on}");
        self.vps().command(&["tailscale", "set", &set, "--accept-risk=lose-ssh"]).run()
    }

    fn wait_tailscale_ssh(&self, on: bool, limit: Duration) -> Result<()> {
        wait_until("the laptop knows whether Tailscale SSH is on", limit, || {
            let status = self.tailscale_status(Node::Laptop)?;
            Ok(status.peer(Node::Vps)?["sshHostKeys"].is_array() == on)
        })
    }

    /// Holds direct traffic between the members back, so that the relay carries it.
    pub fn force_relay(&self) -> Result<()> {
        let peer = Node::Vps.public_address();
        let rules = format!(
            "table {RELAY_TABLE} {{
               chain out {{ type filter hook output priority 0; ip daddr {peer} meta l4proto udp drop; }}
               chain in {{ type filter hook input priority 0; ip saddr {peer} meta l4proto udp drop; }}
             }}"
        );
        self.laptop().command(&["nft", "-f", "-"]).stdin(rules).run()?;
        // They would trust the direct path for some seconds more.
        for node in Node::TAILNET {
            self.restart_tailscaled(node)?;
        }
        self.wait_path("via DERP")
    }

    /// Lets the members talk directly again.
    pub fn allow_direct(&self) -> Result<()> {
        self.laptop().command(&["nft", "delete", "table", "inet", "lab"]).run()?;
        self.wait_path(&format!("via {}:", Node::Vps.public_address()))
    }

    /// Brings everything back to the base state: all members on headscale's tailnet under their own names, direct,
    /// MagicDNS on, plain sshd, no serve routes, everyone may ssh; nothing of the tools' own on the laptop, logins and
    /// host keys as they were. Quick when nothing is off.
    pub fn reset(&self) -> Result<()> {
        self.ensure_not_equipped()?;
        for node in Node::MACHINES {
            if self.first_process(node).is_err() {
                self.boot(node)?;
            }
            self.set_link(node, "up")?;
            self.free_disk(node)?;
        }
        if self.laptop().sh("nft list tables | grep -qx 'table inet lab'")?.success() {
            self.laptop().command(&["nft", "delete", "table", "inet", "lab"]).run()?;
        }
        self.restore_files()?;
        // In the order of joining: a control server that starts afresh counts addresses up.
        for node in Node::TAILNET {
            self.repair_login(node)?;
        }
        for node in Node::TAILNET {
            self.repair_rest(node)?;
        }
        // What is said right after a link was cut may be lost, and only a change is said again.
        if self.wait_tailscale_ssh(false, Duration::from_secs(5)).is_err() {
            self.say_tailscale_ssh(true)?;
            self.set_tailscale_ssh(false)?;
        }
        if !self.servers().has_policy(SshPolicy::Accept)? {
            self.set_ssh_policy(SshPolicy::Accept)?;
        }
        self.settle()
    }

    /// Puts what scenarios bend of the machines' files aside.
    pub(super) fn keep_files(&self) -> Result<()> {
        for (node, files) in BENT {
            let script = format!("mkdir {KEPT} && cd / && rsync --archive --relative {files} {KEPT}/");
            self.node(node).command(&["sh", "-c", &script]).run()?;
        }
        Ok(())
    }

    /// Brings them back as they were, once they were put aside.
    fn restore_files(&self) -> Result<()> {
        for (node, files) in BENT {
            let kept: Vec<String> = files.split(' ').map(|file| format!("{KEPT}/./{file}")).collect();
            let script = format!(
                "[ -d {KEPT} ] || exit 0
                 exec rsync --archive --checksum --delete --relative --omit-dir-times --out-format=%n {} /",
                kept.join(" ")
            );
            let changed = self.node(node).command(&["sh", "-c", &script]).read()?;
            if changed.contains("etc/ssh/") {
                // Both read their host keys when they start.
                self.node(node).command(&["systemctl", "restart", "ssh", "tailscaled"]).run()?;
            }
        }
        self.laptop().command(&["sh", "-c", &format!("rm -rf {OURS}")]).run()?;
        self.vps().command(&["systemctl", "start", "ssh"]).run()
    }

    /// Waits until every member is as the base state has it, and the laptop reaches the VPS directly.
    fn settle(&self) -> Result<()> {
        thread::scope(|scope| {
            let checks = Node::TAILNET.map(|node| scope.spawn(move || self.wait_healthy(node, PATIENCE)));
            checks.into_iter().try_for_each(joined)
        })?;
        self.wait_path(&format!("via {}:", Node::Vps.public_address()))
    }

    /// What its peer must see of a node before the peer itself can be judged.
    fn repair_login(&self, node: Node) -> Result<()> {
        let run = |argv: &[&str]| self.node(node).command(argv).run();
        run(&["systemctl", "start", "tailscaled"])?;
        wait_until("tailscaled has made up its mind", PATIENCE, || {
            Ok(!matches!(self.tailscale_status(node)?.backend(), "NoState" | "Starting"))
        })?;
        let prefs = self.prefs(node)?;
        let at_home = prefs["ControlURL"] == Control::Headscale.url().as_str();
        if !at_home || self.tailscale_status(node)?.backend() != "Running" {
            self.log_in(node)?;
        } else if prefs["CorpDNS"] != true || prefs["RunSSH"] != false || prefs["ShieldsUp"] != false {
            run(&[
                "tailscale",
                "set",
                "--accept-dns",
                "--ssh=false",
                "--shields-up=false",
                "--accept-risk=all",
            ])?;
        }
        if self.tailscale_status(node)?.0["Self"]["DNSName"] != format!("{}.", node.magic_dns_name()) {
            self.rename_back(node)?;
        }
        Ok(())
    }

    fn repair_rest(&self, node: Node) -> Result<()> {
        if !self.known_by_its_key(node)? {
            self.log_in(node)?;
        }
        if !self.resolves(node)? {
            self.restore_dns(node)?;
        }
        if self.json(node, &["tailscale", "serve", "status", "--json"])? != serde_json::json!({}) {
            self.node(node).command(&["tailscale", "serve", "reset"]).run()?;
        }
        Ok(())
    }

    /// Waits until a member of the tailnet is as the base state has it; the error says what is off.
    pub(super) fn wait_healthy(&self, node: Node, limit: Duration) -> Result<()> {
        let mut last = Ok(());
        let well = wait_until("all is well", limit, || {
            last = self.check_health(node);
            Ok(last.is_ok())
        });
        last.and(well)
    }

    fn check_health(&self, node: Node) -> Result<()> {
        let status = self.tailscale_status(node)?;
        let own = &status.0["Self"];
        ensure!(status.backend() == "Running", "tailscale is {}", status.backend());
        ensure!(own["Online"] == true, "offline");
        ensure!(own["DNSName"] == format!("{}.", node.magic_dns_name()), "renamed");
        ensure!(own["TailscaleIPs"][0] == node.tailnet_address().unwrap_or_default(), "another address");
        let peer = status.peer(other(node))?;
        ensure!(peer["Online"] == true && peer["Expired"] != true, "the peer is offline or expired");
        ensure!(self.known_by_its_key(node)?, "known to the peer by another key");
        ensure!(!peer["sshHostKeys"].is_array(), "the peer has Tailscale SSH on");
        let prefs = self.prefs(node)?;
        ensure!(prefs["ControlURL"] == Control::Headscale.url().as_str(), "at another control server");
        ensure!(self.resolves(node)?, "MagicDNS does not resolve");
        Ok(())
    }

    /// Whether the peer knows the node by the key that the node has.
    fn known_by_its_key(&self, node: Node) -> Result<bool> {
        let (own, peer) = (self.tailscale_status(node)?, self.tailscale_status(other(node))?);
        Ok(own.0["Self"]["PublicKey"] == peer.peer(node)?["PublicKey"])
    }

    /// Waits until the node is on the tailnet and its resolver knows.
    pub(super) fn wait_connected(&self, node: Node) -> Result<()> {
        self.wait_backend(node, "Running")?;
        wait_until("the node is online", PATIENCE, || {
            Ok(self.tailscale_status(node)?.0["Self"]["Online"] == true)
        })?;
        let prefs = self.prefs(node)?;
        let follows = || Ok(prefs["CorpDNS"] != true || self.asks_magic_dns(node)?);
        wait_until("the resolver asks MagicDNS", PATIENCE, follows)
    }

    fn wait_backend(&self, node: Node, state: &str) -> Result<()> {
        wait_until(&format!("tailscale on `{}` is {state}", node.name()), PATIENCE, || {
            Ok(self.tailscale_status(node).is_ok_and(|status| status.backend() == state))
        })
    }

    /// Waits until the control server has noticed that the node is gone, which takes it ten seconds.
    pub fn wait_offline(&self, node: Node) -> Result<()> {
        wait_until("the peer shows as offline", PATIENCE, || {
            Ok(self.tailscale_status(other(node))?.peer(node)?["Online"] == false)
        })
    }

    /// Waits until the laptop gets an answer through its tunnel to the VPS.
    pub(super) fn wait_pong(&self) -> Result<()> {
        wait_until("the VPS answers", PATIENCE, || Ok(self.ping(&["--tsmp"])?.contains("pong")))
    }

    /// Waits until the laptop reaches the VPS by this path.
    fn wait_path(&self, path: &str) -> Result<()> {
        wait_until(&format!("the laptop reaches the VPS {path}"), PATIENCE, || {
            Ok(self.ping(&[])?.contains(path))
        })?;
        self.wait_pong()
    }

    fn ping(&self, flags: &[&str]) -> Result<String> {
        let vps = Node::Vps.tailnet_address().unwrap_or_default();
        // Exits with 1 after a pong by the relay; told not to mind, it would pause for a second after each pong.
        let ping = [&["tailscale", "ping", "--c=1", "--timeout=1s"], flags, &[vps]].concat();
        Ok(self.laptop().exec(&ping)?.stdout)
    }

    fn asks_magic_dns(&self, node: Node) -> Result<bool> {
        Ok(fs::read_to_string(self.node(node).path("/etc/resolv.conf")?)?.contains(MAGIC_DNS))
    }

    /// Whether programs on the node can resolve the name of its peer.
    fn resolves(&self, node: Node) -> Result<bool> {
        if !self.asks_magic_dns(node)? {
            return Ok(false);
        }
        Ok(self.node(node).exec(&["getent", "ahostsv4", &other(node).magic_dns_name()])?.success())
    }

    fn tailscale_status(&self, node: Node) -> Result<Status> {
        self.json(node, &["tailscale", "status", "--json"]).map(Status)
    }

    fn prefs(&self, node: Node) -> Result<Value> {
        self.json(node, &["tailscale", "debug", "prefs"])
    }

    pub(super) fn json(&self, node: Node, argv: &[&str]) -> Result<Value> {
        let text = self.node(node).command(argv).read()?;
        serde_json::from_str(&text).with_context(|| format!("`{}` printed {text}", argv.join(" ")))
    }
}

/// The output of `tailscale status --json`.
struct Status(Value);

impl Status {
    fn backend(&self) -> &str {
        self.0["BackendState"].as_str().unwrap_or_default()
    }

    /// The peer that calls itself so.
    fn peer(&self, node: Node) -> Result<&Value> {
        let peers = self.0["Peer"].as_object();
        let found = peers.into_iter().flatten().find(|(_, peer)| peer["HostName"] == node.name());
        let Some((_, peer)) = found else { bail!("no peer `{}`", node.name()) };
        Ok(peer)
    }
}

/// The other member of the tailnet.
fn other(node: Node) -> Node {
    if node == Node::Laptop { Node::Vps } else { Node::Laptop }
}
