//! Observing and changing the serve routes, on the VPS itself or over the one connection.

use std::time::Duration;

use ua_common::error::{Fact, Failure};
use ua_common::exit::Exit;
use ua_common::run::{Cmd, RunError};
use ua_common::transport::{Script, Transport};

use crate::Conflict;
use crate::health::pause;
use crate::plan::{Action, Obstacle, Plan, Route, plan, undo};
use crate::serve::Actual;

const OBSERVE: Script = Script { name: "observe", text: include_str!("../remote/observe.sh") };
const LOOPBACK: Script = Script { name: "loopback", text: include_str!("../remote/loopback.sh") };
const APPLY: Script = Script { name: "apply", text: include_str!("../remote/apply.sh") };

/// What one `tailscale` command on the VPS may take. Where serve is not enabled it would wait for ever.
const EACH: Duration = Duration::from_secs(10);

/// How often routes that somebody else is changing are tried again, and how much longer each time.
const TRIES: u32 = 5;
const AGAIN: Duration = Duration::from_millis(200);

/// Where the scripts run.
pub enum Vps<'a> {
    /// Over the connection.
    Remote(&'a Transport),
    /// This very machine is the VPS.
    Here,
}

/// How a script ended.
struct Ended {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Vps<'_> {
    fn script(&self, script: Script, args: &[&str], limit: Duration) -> Result<Ended, Failure> {
        match self {
            Self::Remote(transport) => {
                let answer = transport.script(script, args, limit)?;
                Ok(Ended { code: answer.code, stdout: answer.stdout, stderr: answer.stderr })
            }
            Self::Here => {
                let cmd =
                    Cmd::new("sh", limit).args(["-c", script.text, script.name]).args(args.iter().copied());
                let finished = cmd.output()?;
                Ok(Ended { code: finished.code, stdout: finished.out(), stderr: finished.err() })
            }
        }
    }
}

/// Why the routes could not be observed or changed.
#[derive(Debug, thiserror::Error)]
pub enum StagingError {
    /// tailscaled on the VPS did not say what it serves.
    #[error("the VPS did not say what it serves: {said}")]
    Silent {
        /// What was said instead.
        said: String,
    },
    /// Not the JSON we know.
    #[error("`tailscale serve status --json` of the VPS is not what this program understands")]
    Garbled(#[source] serde_json::Error),
    /// tailscale wants an admin of the tailnet to enable serving first.
    #[error("`tailscale serve` is not enabled on the tailnet: {said}")]
    Disabled {
        /// What tailscale said, with the address where it is enabled.
        said: String,
        /// That address.
        url: Option<String>,
    },
    /// A change failed for another reason.
    #[error("a serve route could not be changed: {said}; {left}")]
    Refused {
        /// What tailscale said.
        said: String,
        /// What became of the changes before it.
        left: String,
    },
    /// Every command succeeded and the routes still differ.
    #[error("the routes were set, but the VPS does not serve them: {still}")]
    Unchanged {
        /// The difference.
        still: String,
    },
}

impl Fact for StagingError {
    fn exit(&self) -> Exit {
        match self {
            Self::Disabled { .. } => Exit::ServeDisabled,
            Self::Refused { .. } | Self::Unchanged { .. } => Exit::StagingDrift,
            Self::Silent { .. } | Self::Garbled(_) => Exit::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Disabled { url: Some(url), .. } => Some(format!("open {url}")),
            Self::Disabled { url: None, .. } => Some(
                "enable HTTPS certificates for the tailnet, or use plain http inside it: --scheme http"
                    .to_owned(),
            ),
            Self::Refused { .. } | Self::Unchanged { .. } => Some("ua-staging status".to_owned()),
            Self::Silent { .. } => Some("tailscale serve status  # on the VPS".to_owned()),
            Self::Garbled(_) => None,
        }
    }
}

/// What the VPS serves now: one exec that changes nothing.
pub fn observe(vps: &Vps<'_>) -> Result<Actual, Failure> {
    let seconds = EACH.as_secs().to_string();
    let ended = vps.script(OBSERVE, &[&seconds], EACH * 3)?;
    if ended.code != 0 {
        return Err(StagingError::Silent { said: ended.stderr }.into());
    }
    Actual::parse(&ended.stdout).map_err(|error| StagingError::Garbled(error).into())
}

/// What the targets themselves answer, asked on the VPS: a status for each address, or nothing.
pub fn loopback(vps: &Vps<'_>, urls: &[String]) -> Result<Vec<Option<u16>>, Failure> {
    let seconds = EACH.as_secs().to_string();
    let args: Vec<&str> = std::iter::once(seconds.as_str()).chain(urls.iter().map(String::as_str)).collect();
    let limit = EACH * u32::try_from(urls.len() + 1).unwrap_or(u32::MAX);
    let ended = vps.script(LOOPBACK, &args, limit)?;
    let statuses: Vec<_> =
        ended.stdout.lines().map(|line| line.parse().ok().filter(|code| *code > 0)).collect();
    if ended.code != 0 || statuses.len() != urls.len() {
        return Err(StagingError::Silent { said: ended.stderr }.into());
    }
    Ok(statuses)
}

/// Does what the plan says, reads the result back, and proves that nothing is left to do. If a change fails, the ones
/// before it are taken back: no UI route without its API route. Where somebody else changes the routes at the same
/// time, it looks and plans anew: two runs that want the same end with the same.
pub fn apply(
    vps: &Vps<'_>,
    wanted: &[Route; 2],
    before: &Actual,
    plan: &Plan,
    conflict: Conflict,
) -> Result<(), Failure> {
    let mut plan = plan.clone();
    // Whatever of all tries came through is taken back if the last one fails.
    let mut tried = plan.actions.clone();
    let mut again = 0;
    while !plan.actions.is_empty() {
        let Err(refusal) = run(vps, &plan.actions) else { break };
        if !matches!(refusal, Refusal::Changing { .. }) || again == TRIES {
            return Err(taken_back(vps, before, &tried, refusal)?);
        }
        again += 1;
        pause(AGAIN * again)?;
        plan = self::plan(wanted, &observe(vps)?, conflict == Conflict::Replace);
        if let Some(obstacle) = plan.obstacles.first() {
            return Err(taken_back(vps, before, &tried, Refusal::Lost(obstacle.clone().into()))?);
        }
        tried.extend(
            plan.actions.iter().filter(|action| !tried.contains(action)).cloned().collect::<Vec<_>>(),
        );
    }
    let still = self::plan(wanted, &observe(vps)?, false);
    let mut words: Vec<String> = still.obstacles.iter().map(Obstacle::to_string).collect();
    words.extend(still.actions.iter().map(|action| format!("yet to do: {action}")));
    if words.is_empty() { Ok(()) } else { Err(StagingError::Unchanged { still: words.join("; ") }.into()) }
}

/// Takes back what came through of the changes that were tried, and says what failed and what is left.
fn taken_back(
    vps: &Vps<'_>,
    before: &Actual,
    tried: &[Action],
    refusal: Refusal,
) -> Result<Failure, Failure> {
    // Which of them came through is seen by looking, not guessed from how far the script got.
    let done = observe(vps)?;
    let changed: Vec<Action> =
        tried.iter().filter(|action| touched(action, before, &done)).cloned().collect();
    let left = match undo(&changed, before) {
        _ if changed.is_empty() => "nothing was changed".to_owned(),
        back => match run(vps, &back) {
            Ok(()) if observe(vps)?.serve == before.serve => {
                "what was changed before it was put back".to_owned()
            }
            _ => format!("what was changed before it could not be put back: {}", shown(&changed)),
        },
    };
    Ok(match refusal {
        Refusal::Disabled { said, url } => StagingError::Disabled { said, url }.into(),
        Refusal::Changing { said } | Refusal::Other { said } => StagingError::Refused { said, left }.into(),
        Refusal::Lost(failure) => failure,
    })
}

fn touched(action: &Action, before: &Actual, now: &Actual) -> bool {
    let Some(port) = action.port() else { return before.serve != now.serve };
    let at = format!("{}:{port}", before.node.name());
    before.serve.tcp.get(&port) != now.serve.tcp.get(&port)
        || before.serve.web.get(&at) != now.serve.web.get(&at)
}

fn shown(actions: &[Action]) -> String {
    actions.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

enum Refusal {
    Disabled {
        said: String,
        url: Option<String>,
    },
    /// Another client changed the configuration meanwhile (HTTP 412 of tailscaled).
    Changing {
        said: String,
    },
    Other {
        said: String,
    },
    Lost(Failure),
}

/// Runs the changes in one exec.
pub(crate) fn change(vps: &Vps<'_>, actions: &[Action]) -> Result<(), Failure> {
    run(vps, actions).map_err(|refusal| match refusal {
        Refusal::Disabled { said, url } => StagingError::Disabled { said, url }.into(),
        Refusal::Changing { said } | Refusal::Other { said } => {
            StagingError::Refused { said, left: "look at what is left".to_owned() }.into()
        }
        Refusal::Lost(failure) => failure,
    })
}

fn run(vps: &Vps<'_>, actions: &[Action]) -> Result<(), Refusal> {
    let seconds = EACH.as_secs().to_string();
    let mut args = vec![seconds];
    for action in actions {
        let (verb, kind, target) = match action {
            Action::Set { scheme, target, .. } => ("set", *scheme, target.as_str()),
            Action::Remove { scheme, .. } => ("remove", *scheme, "-"),
            Action::Clear { kind, .. } => ("clear", *kind, "-"),
            Action::Reset => ("reset", "-", "-"),
        };
        let port = action.port().map_or("-".to_owned(), |port| port.to_string());
        args.extend([verb.to_owned(), kind.to_owned(), port, target.to_owned()]);
    }
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let limit = EACH * u32::try_from(actions.len() + 2).unwrap_or(u32::MAX);
    let ended = match vps.script(APPLY, &args, limit) {
        Ok(ended) => ended,
        Err(failure) => return Err(Refusal::Lost(failure)),
    };
    // Where serve is not enabled tailscale says so and ends with 0 or waits for ever, depending on the tailnet.
    let said = words(&ended.stdout);
    if let Some(url) = enable_url(&said) {
        return Err(Refusal::Disabled { said, url: Some(url) });
    }
    match ended.code {
        0 => Ok(()),
        _ if said.contains("enabling https feature") => Err(Refusal::Disabled { said, url: None }),
        _ if said.contains("etag mismatch") => Err(Refusal::Changing { said }),
        _ => Err(Refusal::Other { said: format!("{} ({said})", ended.stderr) }),
    }
}

/// The text on one line.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The address after "not enabled on your tailnet".
fn enable_url(said: &str) -> Option<String> {
    let (_, rest) = said.split_once("not enabled on your tailnet")?;
    rest.split_whitespace()
        .find(|word| word.starts_with("https://") || word.starts_with("http://"))
        .map(str::to_owned)
}

/// The interruption that ends a wait.
pub(crate) fn interrupted(what: &str) -> Failure {
    RunError::Interrupted { program: what.to_owned() }.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_where_serve_is_enabled() {
        let said = words(
            "\nServe is not enabled on your tailnet.\nTo enable, visit:\n\n\t https://login.tailscale.com/f/serve?node=n1\n",
        );
        assert_eq!(enable_url(&said).as_deref(), Some("https://login.tailscale.com/f/serve?node=n1"));
        assert_eq!(enable_url("Available within your tailnet: https://a.ts.net/"), None);
    }
}
