//! Which SSH server answers: the first line it says tells.

use std::io::{BufRead, BufReader, Read};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use ua_common::exit::Exit;
use ua_common::place::Place;
use ua_common::report::Check;
use ua_common::settings::Settings;
use ua_common::settings::value::AuthMode;

/// How tailscaled's own server introduces itself.
const TAILSCALE_SSH: &str = "SSH-2.0-Tailscale";

/// A connection to the port that is under way.
pub struct Server {
    at: SocketAddr,
    limit: Duration,
    answer: Receiver<(std::io::Result<String>, Duration)>,
}

/// Connects and reads the first line, in a thread of its own.
pub fn ask(ip: IpAddr, port: u16, limit: Duration) -> Server {
    let (send, answer) = mpsc::channel();
    let (at, start) = (SocketAddr::new(ip, port), Instant::now());
    std::thread::spawn(move || {
        // Nobody listens any more once the limit is over.
        let _late = send.send((banner(at, limit), start.elapsed()));
    });
    Server { at, limit, answer }
}

fn banner(at: SocketAddr, limit: Duration) -> std::io::Result<String> {
    let stream = TcpStream::connect_timeout(&at, limit)?;
    stream.set_read_timeout(Some(limit))?;
    let mut line = String::new();
    // RFC 4253: at most 255 bytes.
    BufReader::new(stream).take(255).read_line(&mut line)?;
    Ok(line.trim_end().to_owned())
}

impl Server {
    /// Judges what answered against how we mean to log in.
    pub fn judge(self, settings: &Settings, place: &Place) -> Vec<Check> {
        let (at, name) = (self.at, &place.name);
        // Dialling and reading may each take the limit.
        let (answer, took) = match self.answer.recv_timeout(self.limit * 2) {
            Ok((answer, took)) => (answer, took),
            Err(_) => (Err(std::io::ErrorKind::TimedOut.into()), self.limit * 2),
        };
        let line = match answer {
            Ok(line) if line.starts_with("SSH-") => line,
            Ok(line) => {
                let detail = format!("what answers on {at} is no SSH server: `{}`", line.escape_debug());
                let check = Check::fail("ssh.port", Exit::SshUnreachable, detail);
                return vec![check.hint(format!("ssh -v -p {} {name}", at.port())).took(took)];
            }
            Err(error) => {
                let detail = format!("no SSH server answers on {at}: {error}");
                let check = Check::fail("ssh.port", Exit::SshUnreachable, detail);
                return vec![
                    check
                        .hint(format!("sudo systemctl start ssh  # on the console of `{}`", place.label()))
                        .took(took),
                ];
            }
        };
        let port = Check::pass("ssh.port", format!("{at} answers")).took(took);
        let tailscale = line == TAILSCALE_SSH;
        let server = match (settings.ssh_auth_mode.value, tailscale) {
            (AuthMode::Keys, false) => {
                Check::pass("ssh.server", format!("a real sshd (`{}`)", line.escape_debug()))
            }
            (AuthMode::TailscaleSsh, true) => Check::pass("ssh.server", "Tailscale SSH"),
            (AuthMode::Keys, true) => Check::warn(
                "ssh.server",
                "Tailscale SSH holds this port and lets any client in: mode `keys` proves nothing here",
            )
            .hint("export UA_SSH_KEYS_PORT=2222  # once the real sshd listens there too"),
            (AuthMode::TailscaleSsh, false) => Check::fail(
                "ssh.server",
                Exit::SshDenied,
                format!(
                    "mode `tailscale_ssh` needs Tailscale SSH, but an ordinary sshd answers (`{}`)",
                    line.escape_debug()
                ),
            )
            .hint(format!(
                "ua-preflight --ssh --auth-mode keys  # the runbook ssh_cutover_and_break_glass switches Tailscale SSH on for `{}`",
                place.label()
            )),
        };
        vec![port, server]
    }
}
