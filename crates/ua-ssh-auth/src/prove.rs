//! Connect in a mode, prove that it was that mode, and see a command run.

use std::time::{Duration, Instant};

use ua_common::error::Failure;
use ua_common::exit::Exit;
use ua_common::output::Printer;
use ua_common::place::{self, Place};
use ua_common::report::{Check, Verdict};
use ua_common::settings::Settings;
use ua_common::settings::value::{AuthMode, Value as _};
use ua_common::tool::ssh::Target;
use ua_common::transport::{Answer, Opening, Script, Transport, TransportError};

const HELLO: Script = Script { name: "hello", text: include_str!("../remote/hello.sh") };

/// Limit for a script that only says something.
pub const LIMIT: Duration = Duration::from_secs(20);

/// What is proved with.
#[derive(Clone, Copy)]
pub struct Prover<'a> {
    /// The settings.
    pub settings: &'a Settings,
    /// Where to print.
    pub out: &'a Printer,
    /// The target.
    pub place: &'a Place,
    /// How long a Tailscale SSH check is waited for.
    pub check_wait: Duration,
}

impl Prover<'_> {
    /// One connection in `mode` with one command: the checks `MODE.connect`, `MODE.proof` (`keys.not-exercised` where
    /// Tailscale SSH let us in without the key) and `MODE.exec`. Gives how it was opened if all of them passed.
    pub fn prove(&self, mode: AuthMode, checks: &mut Vec<Check>) -> Option<Opening> {
        let target = self.place.ssh_target_by(self.settings, mode);
        let start = Instant::now();
        match Transport::once(target.clone(), HELLO, &[], LIMIT, self.check_wait, self.out) {
            Ok((opening, ran)) => {
                let proved = judge(&opening, checks);
                let exec = exec(mode, ran).took(start.elapsed().saturating_sub(opening.took));
                let ran = proved && exec.verdict != Verdict::Fail;
                if proved {
                    checks.push(exec);
                }
                ran.then_some(opening)
            }
            Err(error) => {
                self.no_connection(mode, &target, &error, start, checks);
                None
            }
        }
    }

    /// The same, and the connection stays open.
    pub fn open(&self, mode: AuthMode, checks: &mut Vec<Check>) -> Option<Transport> {
        let target = self.place.ssh_target_by(self.settings, mode);
        let start = Instant::now();
        let transport = match Transport::open(target.clone(), self.check_wait, self.out) {
            Ok(transport) => transport,
            Err(error) => {
                self.no_connection(mode, &target, &error, start, checks);
                return None;
            }
        };
        if !judge(transport.opening(), checks) {
            return None;
        }
        let start = Instant::now();
        let exec = exec(mode, transport.script(HELLO, &[], LIMIT)).since(start);
        let ran = exec.verdict != Verdict::Fail;
        checks.push(exec);
        ran.then_some(transport)
    }

    fn no_connection(
        &self,
        mode: AuthMode,
        target: &Target,
        error: &anyhow::Error,
        start: Instant,
        checks: &mut Vec<Check>,
    ) {
        let (exit, hint) = Failure::within(error);
        // Nobody there is another finding than no SSH there.
        if exit == Exit::PeerUnreachable {
            checks.push(Check::error("peer.reachable", error).since(start));
            return;
        }
        let id = format!("{}.connect", mode.show());
        let check = Check::fail(id, exit, format!("{error:#} (port {})", target.port)).since(start);
        if exit == Exit::SshUnreachable && self.place.in_tailnet && !self.place.myself {
            let Target { name, addresses, pong_timeout, .. } = target;
            let pong = place::pong(name, addresses, *pong_timeout);
            checks.extend(pong.into_iter().filter(|check| check.verdict == Verdict::Fail));
        }
        checks.push(match hint {
            Some(hint) => check.hint(hint),
            None => check,
        });
    }
}

/// Says how a connection was opened, and whether that proves its mode.
fn judge(opening: &Opening, checks: &mut Vec<Check>) -> bool {
    let Opening { target, evidence, approved, took } = opening;
    let mode = target.auth;
    let id = |part: &str| format!("{}.{part}", mode.show());
    if let Some(url) = approved {
        checks.push(Check::pass(id("check"), format!("the check was approved at {url}")));
    }
    let connected = format!("connected to `{}` port {}", target.shown(), target.port);
    checks.push(Check::pass(id("connect"), connected).took(*took));
    match evidence.proves(target) {
        Ok(proof) => {
            let vouched = if target.host_keys.is_empty() {
                "known to your known_hosts"
            } else {
                "which the tailnet gives"
            };
            let detail = format!("{proof}; host key {}, {vouched}", evidence.host_key);
            checks.push(Check::pass(id("proof"), detail));
            true
        }
        Err(why) => {
            let hint = match (mode, target.port) {
                (AuthMode::Keys, 22) => {
                    "export UA_SSH_KEYS_PORT=2222  # once the real sshd listens there too"
                }
                _ => "ua-preflight --ssh",
            };
            checks.push(Check::fail(id("not-exercised"), Exit::Failed, why).hint(hint));
            false
        }
    }
}

fn exec(mode: AuthMode, ran: Result<Answer, TransportError>) -> Check {
    let id = format!("{}.exec", mode.show());
    match ran {
        Ok(answer) if answer.code == 0 => {
            Check::pass(id, format!("a command runs, as user id {}", answer.stdout.trim()))
        }
        Ok(answer) => {
            Check::fail(id, Exit::Failed, format!("a command ended with {}: {}", answer.code, answer.stderr))
        }
        Err(error) => Check::failure(id, error),
    }
}
