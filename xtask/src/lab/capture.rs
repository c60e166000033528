//! Real output of tailscale and ssh, taken from the lab into the test fixtures.

use anyhow::{Result, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use fs_err as fs;

use super::{Control, Lab, Machine, Node, SshPolicy, checkout};
use crate::cmd::Output;
use crate::ui::Progress;

/// How one state of the tailnet is brought about. A reset comes before each.
type Arrange = fn(&Lab) -> Result<()>;

/// What the laptop says in each state.
const STATES: &[(&str, Arrange)] = &[
    ("healthy", |_| Ok(())),
    ("relayed", Lab::force_relay),
    ("daemon-stopped", |lab| lab.stop_tailscaled(Node::Laptop)),
    ("down", |lab| lab.tailscale_down(Node::Laptop)),
    ("logged-out", |lab| lab.log_out(Node::Laptop)),
    ("own-key-expired", |lab| lab.expire(Node::Laptop)),
    ("peer-stopped", |lab| lab.stop_tailscaled(Node::Vps)),
    ("peer-offline", |lab| lab.stop_tailscaled(Node::Vps).and_then(|()| lab.wait_offline(Node::Vps))),
    ("peer-link-cut", |lab| lab.cut_link(Node::Vps)),
    ("peer-expired", |lab| lab.expire(Node::Vps)),
    ("peer-renamed", |lab| lab.rename(Node::Vps, "renamed")),
    ("peer-tailscale-ssh", |lab| lab.set_tailscale_ssh(true)),
    ("dns-broken", |lab| lab.break_dns(Node::Laptop)),
    ("accept-dns-off", |lab| lab.set_accept_dns(Node::Laptop, false)),
    ("https-control", |lab| lab.use_control(Control::Https)),
];

/// What the laptop is asked in each state.
const QUESTIONS: &[(&str, &str)] = &[
    ("status", "tailscale status --json"),
    ("ping", "tailscale ping --c=1 --timeout=1s --until-direct=false 100.64.0.2"),
    ("ping-direct", "tailscale ping --c=1 --timeout=1s 100.64.0.2"),
    ("dns-status", "tailscale dns status --json"),
    ("dns-query", "tailscale dns query --json srv1360701.taildcc090.ts.net A"),
    ("prefs", "tailscale debug prefs"),
];

/// Serve commands on the VPS, one after the other, each after a reset of the routes; under which control server.
const SERVED: &[(&str, Control, &str)] = &[
    ("serve-none", Control::Https, ":"),
    (
        "serve-https",
        Control::Https,
        "tailscale serve --bg --https=443 http://127.0.0.1:3000 &&
         tailscale serve --bg --https=8443 http://127.0.0.1:8001",
    ),
    (
        "serve-http",
        Control::Https,
        "tailscale serve --bg --http=443 http://127.0.0.1:3000 &&
         tailscale serve --bg --http=8443 http://127.0.0.1:8001",
    ),
    ("serve-other-target", Control::Https, "tailscale serve --bg --https=443 http://127.0.0.1:30001"),
    ("serve-tcp", Control::Https, "tailscale serve --bg --tcp=443 tcp://127.0.0.1:3000"),
    (
        "serve-path",
        Control::Https,
        "tailscale serve --bg --https=443 http://127.0.0.1:3000 &&
         tailscale serve --bg --https=443 --set-path=/docs http://127.0.0.1:4000",
    ),
    (
        "serve-foreground",
        Control::Https,
        "setsid tailscale serve --https=443 http://127.0.0.1:3000 >/dev/null 2>&1 &
         for _ in 1 2 3 4 5 6 7 8 9 10; do
             tailscale serve status --json | grep -q Foreground && exit 0; sleep 0.2
         done; exit 1",
    ),
    (
        "serve-funnel",
        Control::Https,
        "tailscale serve --bg --https=8443 http://127.0.0.1:8001 &&
         tailscale funnel --bg --https=443 http://127.0.0.1:3000",
    ),
    ("serve-off-missing", Control::Https, "tailscale serve --https=443 off"),
    (
        "serve-conflict",
        Control::Https,
        "tailscale serve --bg --tcp=443 tcp://127.0.0.1:3000 >/dev/null &&
         tailscale serve --bg --https=443 http://127.0.0.1:3000",
    ),
    ("serve-https-disabled", Control::Headscale, "tailscale serve --bg --https=443 http://127.0.0.1:3000"),
];

/// ssh from the laptop under each policy, with Tailscale SSH on or off.
const LOGINS: &[(&str, bool, SshPolicy)] = &[
    ("ssh-tailscale", true, SshPolicy::Accept),
    ("ssh-denied", true, SshPolicy::Deny),
    ("ssh-check", true, SshPolicy::Check),
    ("ssh-plain-sshd", false, SshPolicy::Accept),
];

impl Lab {
    /// Brings about each state in turn and writes what the programs say to `tests/fixtures/captured/STATE/`.
    pub fn capture(&self, progress: &Progress) -> Result<()> {
        let captured = checkout()?.join("tests/fixtures/captured");
        for (name, arrange) in STATES {
            let step = progress.step(*name);
            self.reset()?;
            arrange(self)?;
            for (question, command) in QUESTIONS {
                Answer::of(self.laptop(), command)?.write(&captured.join(name), question)?;
            }
            step.done();
        }
        self.capture_start(&captured.join("just-started"), progress)?;
        self.capture_logins(&captured, progress)?;
        self.capture_serve(&captured, progress)?;
        self.reset()
    }

    /// The moments after a start are over before a second question could be asked: one start for each.
    fn capture_start(&self, dir: &Utf8Path, progress: &Progress) -> Result<()> {
        let step = progress.step("just-started");
        self.reset()?;
        for (question, command) in QUESTIONS {
            Answer::of(self.laptop(), &format!("systemctl restart tailscaled && {command}"))?
                .write(dir, question)?;
        }
        let status = fs::read_to_string(dir.join("status.json"))?;
        ensure!(status.contains("NoState"), "the daemon was ready sooner than it could be asked");
        step.done();
        Ok(())
    }

    fn capture_logins(&self, captured: &Utf8Path, progress: &Progress) -> Result<()> {
        for (name, tailscale_ssh, policy) in LOGINS {
            let step = progress.step(*name);
            self.reset()?;
            self.set_tailscale_ssh(*tailscale_ssh)?;
            self.set_ssh_policy(*policy)?;
            // A check would wait for half an hour.
            let ssh = "timeout 3 ssh -v -o BatchMode=yes -o PreferredAuthentications=none \
                       root@srv1360701.taildcc090.ts.net true";
            Answer::of(self.laptop(), ssh)?.write(&captured.join(name), "ssh-none")?;
            Answer::of(self.laptop(), &ssh.replace("=none", "=publickey"))?
                .write(&captured.join(name), "ssh-publickey")?;
            step.done();
        }
        Ok(())
    }

    fn capture_serve(&self, captured: &Utf8Path, progress: &Progress) -> Result<()> {
        let mut current = None;
        for (name, control, command) in SERVED {
            let step = progress.step(*name);
            if current != Some(*control) {
                self.use_control(*control)?;
                current = Some(*control);
            }
            self.vps().command(&["tailscale", "serve", "reset"]).run()?;
            self.capture_routes(&captured.join(name), command)?;
            step.done();
        }

        // The routes keep the name that the node had when they were made.
        let step = progress.step("serve-renamed");
        self.reset()?;
        self.vps().command(&["tailscale", "serve", "--bg", "--http=443", "http://127.0.0.1:3000"]).run()?;
        self.rename(Node::Vps, "renamed")?;
        self.capture_routes(&captured.join("serve-renamed"), "tailscale serve --http=443 off")?;
        step.done();
        Ok(())
    }

    fn capture_routes(&self, dir: &Utf8Path, command: &str) -> Result<()> {
        Answer::of(self.vps(), command)?.write(dir, "serve")?;
        Answer::of(self.vps(), "tailscale serve status --json")?.write(dir, "serve-status")?;
        Answer::of(self.vps(), "tailscale status --json --peers=false")?.write(dir, "vps-status")
    }
}

/// What one command said.
struct Answer(Output);

impl Answer {
    fn of(machine: Machine<'_>, command: &str) -> Result<Self> {
        machine.sh(command).map(Self)
    }

    /// Writes `NAME.json` if it printed JSON, else `NAME.stdout`, with `NAME.stderr` and `NAME.code`.
    fn write(&self, dir: &Utf8Path, name: &str) -> Result<()> {
        let Self(Output { code, stdout, stderr }) = self;
        for text in [stdout, stderr] {
            ensure!(!has_private_key(text), "`{name}` in `{dir}` printed a private key");
        }
        fs::create_dir_all(dir)?;
        let file = |extension: &str| -> Utf8PathBuf { dir.join(format!("{name}.{extension}")) };
        for extension in ["json", "stdout", "stderr", "code"] {
            if file(extension).exists() {
                fs::remove_file(file(extension))?;
            }
        }
        if stdout.trim_start().starts_with('{') {
            fs::write(file("json"), stdout)?;
        } else {
            fs::write(file("stdout"), stdout)?;
        }
        fs::write(file("stderr"), stderr)?;
        fs::write(file("code"), format!("{code}\n"))?;
        Ok(())
    }
}

/// Whether the text holds a private key; tailscale itself prints one of zeros in its place.
fn has_private_key(text: &str) -> bool {
    let secrets = ["privkey:", "nlpriv:"].into_iter().flat_map(|prefix| text.split(prefix).skip(1));
    let mut firsts = secrets.map(|rest| rest.chars().take_while(char::is_ascii_hexdigit));
    text.contains("PRIVATE KEY") || firsts.any(|mut digits| digits.any(|digit| digit != '0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_key_is_noticed_and_its_blank_is_not() {
        assert!(!has_private_key(
            "{\"PrivateNodeKey\": \"privkey:0000\", \"NetworkLockKey\": \"nlpriv:00\"}"
        ));
        assert!(has_private_key("{\"PrivateNodeKey\": \"privkey:00a0\"}"));
        assert!(has_private_key("-----BEGIN OPENSSH PRIVATE KEY-----"));
    }
}
