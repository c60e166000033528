//! Observing and changing the serve routes, on the VPS itself or over the one connection.

use std::time::Duration;

use ua_common::error::{Fact, Failure};
use ua_common::exit::Exit;
use ua_common::interrupt;
use ua_common::run::Cmd;
use ua_common::transport::{Script, Transport};

use crate::Conflict;
use crate::health::pause;
use crate::plan::{Action, Obstacle, PLAIN_HTTP, Route, plan, undo};
use crate::serve::Actual;

const OBSERVE: Script = Script {
    name: "observe",
    text: concat!(include_str!("../remote/look.sh"), include_str!("../remote/observe.sh")),
};
const LOOPBACK: Script = Script { name: "loopback", text: include_str!("../remote/loopback.sh") };
const APPLY: Script = Script {
    name: "apply",
    text: concat!(include_str!("../remote/look.sh"), include_str!("../remote/apply.sh")),
};

/// What one `tailscale` command on the VPS may take. Where serve is not enabled it would wait for ever.
const EACH: Duration = Duration::from_secs(10);

/// How often routes that somebody else is changing are tried again, and how much longer each time.
const TRIES: u32 = 5;
const AGAIN: Duration = Duration::from_millis(100);

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
    /// There is nothing that could serve.
    #[error("there is no `tailscale` command on the VPS")]
    Missing,
    /// tailscaled on the VPS did not say what it serves.
    #[error("the VPS did not say what it serves: {said}")]
    Silent {
        /// What was said instead.
        said: String,
    },
    /// The VPS did not say what its own addresses answer.
    #[error("the VPS did not say what its own addresses answer: {said}")]
    Unasked {
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
    /// A command succeeded and the routes are what they were.
    #[error("`tailscale serve` succeeded and changed nothing, asked to {action}; {left}")]
    Unchanged {
        /// What it was asked for.
        action: String,
        /// What became of the changes before it.
        left: String,
    },
    /// Somebody else changes the routes again and again.
    #[error("the serve routes never rest: {TRIES} times somebody else had changed them in between; {left}")]
    Restless {
        /// What became of our own changes.
        left: String,
    },
}

impl Fact for StagingError {
    fn exit(&self) -> Exit {
        match self {
            Self::Disabled { .. } => Exit::ServeDisabled,
            Self::Refused { .. } | Self::Unchanged { .. } | Self::Restless { .. } => Exit::StagingDrift,
            Self::Missing => Exit::TailscaleMissing,
            Self::Silent { .. } => Exit::TailscaleDown,
            Self::Unasked { .. } | Self::Garbled(_) => Exit::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Disabled { url: Some(url), .. } => Some(format!("open {url}")),
            Self::Disabled { url: None, .. } => {
                Some(format!("enable HTTPS certificates for the tailnet, or {PLAIN_HTTP}"))
            }
            Self::Refused { .. } | Self::Unchanged { .. } | Self::Restless { .. } => {
                Some("ua-staging status".to_owned())
            }
            Self::Missing => Some("command -v tailscale  # on the VPS".to_owned()),
            Self::Silent { .. } => Some("systemctl status tailscaled  # on the VPS".to_owned()),
            Self::Unasked { .. } | Self::Garbled(_) => None,
        }
    }
}

/// What the VPS serves now: one exec that changes nothing.
pub fn observe(vps: &Vps<'_>) -> Result<Actual, Failure> {
    let seconds = EACH.as_secs().to_string();
    let ended = vps.script(OBSERVE, &[&seconds], EACH * 3)?;
    match ended.code {
        0 => parse(&ended.stdout),
        code => Err(silent(code, &ended.stderr)),
    }
}

/// Why a script could not look, by its exit code.
fn silent(code: i32, said: &str) -> Failure {
    if code == 10 { StagingError::Missing.into() } else { StagingError::Silent { said: words(said) }.into() }
}

fn parse(json: &str) -> Result<Actual, Failure> {
    Actual::parse(json).map_err(|error| StagingError::Garbled(error).into())
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
        return Err(StagingError::Unasked { said: ended.stderr }.into());
    }
    Ok(statuses)
}

/// Brings the routes to what is wanted; gives what was changed for it. Each change is made only if the routes still are
/// what they were when it was decided on. Where somebody else changes them at the same time it looks and plans anew:
/// runs that want the same end with the same, and a port that was taken in between is not repointed.
///
/// If it cannot come to its end, what it changed is taken back: no UI route without its API route.
pub fn apply(
    vps: &Vps<'_>,
    wanted: &[Route; 2],
    seen: &Actual,
    conflict: Conflict,
) -> Result<Vec<Action>, Failure> {
    let replace = conflict == Conflict::Replace;
    let next = |now: &Actual| {
        let plan = plan(wanted, now, replace);
        // Whether serving https is enabled, and where it can be, is learnt by trying.
        let stopped =
            plan.obstacles.into_iter().find(|obstacle| !matches!(obstacle, Obstacle::Disabled { .. }));
        stopped.map_or_else(|| Ok(plan.actions.into_iter().next()), |obstacle| Err(obstacle.into()))
    };
    let mut run = Run::new(vps, seen.clone());
    // What was right when it was seen may be long ago.
    let begun = if matches!(next(seen), Ok(None)) { run.look() } else { Ok(()) };
    match begun.map_err(Refusal::Lost).and_then(|()| run.until_done(&next)) {
        Ok(()) => Ok(run.mine()),
        Err(refusal) => {
            // Short, and what a person who interrupts it wants too.
            let _to_its_end = interrupt::defer();
            let left = in_doubt(run.doubt.take(), run.take_back());
            Err(refusal.into_failure(left))
        }
    }
}

/// Makes one change after the other until `left` names none; gives what was changed.
pub(crate) fn remove(
    vps: &Vps<'_>,
    seen: &Actual,
    left: &dyn Fn(&Actual) -> Option<Action>,
) -> Result<Vec<Action>, Failure> {
    let mut run = Run::new(vps, seen.clone());
    match run.until_done(&|now| Ok(left(now))) {
        Ok(()) => Ok(run.mine()),
        Err(refusal) => {
            let doubt = run.doubt.take();
            let left = match run.mine() {
                none if none.is_empty() => NOTHING.to_owned(),
                done => format!("done before that: {}", shown(&done)),
            };
            Err(refusal.into_failure(in_doubt(doubt, left)))
        }
    }
}

/// A run of changes.
struct Run<'a> {
    vps: &'a Vps<'a>,
    /// The routes when somebody else was last seen to have changed them.
    base: Actual,
    /// The routes as this run left them.
    now: Actual,
    /// What this run did since `base`: nobody came in between.
    ours: Vec<Action>,
    /// What it did before that. Somebody else may already build on it.
    shared: Vec<Action>,
    /// What it asked for and got no answer to.
    doubt: Option<Action>,
}

const NOTHING: &str = "nothing was changed";

/// Adds what is not known. It is not taken back: if it is there, another run may have done it.
fn in_doubt(doubt: Option<Action>, left: String) -> String {
    match doubt {
        None => left,
        Some(action) if left == NOTHING => format!("whether this was done is not known: {action}"),
        Some(action) => format!("{left}; whether this was done is not known: {action}"),
    }
}

impl<'a> Run<'a> {
    fn new(vps: &'a Vps<'a>, seen: Actual) -> Self {
        Self { vps, base: seen.clone(), now: seen, ours: Vec::new(), shared: Vec::new(), doubt: None }
    }

    /// Everything that this run did.
    fn mine(self) -> Vec<Action> {
        [self.shared, self.ours].concat()
    }

    /// Looks anew.
    fn look(&mut self) -> Result<(), Failure> {
        let seen = observe(self.vps)?;
        if seen.mark != self.now.mark {
            self.shared.append(&mut self.ours);
            self.base = seen.clone();
        }
        self.now = seen;
        Ok(())
    }

    /// Makes the changes that `next` names, as long as it names one.
    fn until_done(
        &mut self,
        next: &dyn Fn(&Actual) -> Result<Option<Action>, Failure>,
    ) -> Result<(), Refusal> {
        let mut again = 0;
        while let Some(action) = next(&self.now).map_err(Refusal::Lost)? {
            match change(self.vps, &self.now.mark, &action) {
                Ok(after) if after.mark != self.now.mark => {
                    self.ours.push(action);
                    self.now = after;
                    continue;
                }
                // Or somebody else takes back what they think is theirs.
                Ok(_) if again == TRIES => return Err(Refusal::Unchanged { action }),
                Ok(_) => {}
                Err(Refusal::Changing) if again < TRIES => {}
                Err(refusal) => {
                    self.doubt = matches!(refusal, Refusal::Lost(_)).then_some(action);
                    return Err(refusal);
                }
            }
            again += 1;
            pause(AGAIN * again).and_then(|()| self.look()).map_err(Refusal::Lost)?;
        }
        Ok(())
    }

    /// Takes back what this run itself did, if the routes still are as it left them; says what became of them.
    fn take_back(mut self) -> String {
        if self.ours.is_empty() && self.shared.is_empty() {
            return NOTHING.to_owned();
        }
        let stays = |what: &[Action]| {
            format!("somebody else changed the routes meanwhile, so this stays as it is: {}", shown(what))
        };
        if let Err(failure) = self.look() {
            return format!("what this run had changed is still there ({failure}): {}", shown(&self.mine()));
        }
        for action in undo(&self.ours, &self.base, &self.now) {
            match change(self.vps, &self.now.mark, &action) {
                Ok(after) => self.now = after,
                Err(Refusal::Changing) => return stays(&self.mine()),
                Err(_) => {
                    return format!(
                        "what this run had changed could not be put back: {}",
                        shown(&self.mine())
                    );
                }
            }
        }
        match () {
            () if self.now.serve != self.base.serve => {
                format!("what this run had changed could not all be put back: {}", shown(&self.mine()))
            }
            () if self.shared.is_empty() => "what this run had changed was put back".to_owned(),
            () => stays(&self.shared),
        }
    }
}

fn shown(actions: &[Action]) -> String {
    actions.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Why a change was not made.
enum Refusal {
    /// Serving is not enabled.
    Disabled { said: String, url: Option<String> },
    /// The routes were others by then (our own look, or HTTP 412 of tailscaled).
    Changing,
    /// tailscale would not.
    Other { said: String },
    /// It said that it did.
    Unchanged { action: Action },
    /// It could not be asked for, or must not be.
    Lost(Failure),
}

impl Refusal {
    /// The failure of the run, given what is left of its changes.
    fn into_failure(self, left: String) -> Failure {
        match self {
            Self::Disabled { said, url } => {
                let said = if left == NOTHING { said } else { format!("{said}; {left}") };
                StagingError::Disabled { said, url }.into()
            }
            Self::Changing => StagingError::Restless { left }.into(),
            Self::Other { said } => StagingError::Refused { said, left }.into(),
            Self::Unchanged { action } => StagingError::Unchanged { action: action.to_string(), left }.into(),
            Self::Lost(failure) => {
                let told = Failure::new(failure.exit, format!("{failure}; {left}"));
                if let Some(hint) = failure.hint { told.hint(hint) } else { told }
            }
        }
    }
}

/// Makes one change in one exec, if the routes still have this mark; gives what is served then.
fn change(vps: &Vps<'_>, mark: &str, action: &Action) -> Result<Actual, Refusal> {
    let (verb, kind, target) = match action {
        Action::Set { scheme, target, .. } => ("set", *scheme, target.as_str()),
        Action::Remove { scheme, .. } => ("remove", *scheme, "-"),
        Action::Clear { kind, .. } => ("clear", *kind, "-"),
        Action::Reset => ("reset", "-", "-"),
    };
    let seconds = EACH.as_secs().to_string();
    let port = action.port().map_or("-".to_owned(), |port| port.to_string());
    let ended =
        vps.script(APPLY, &[&seconds, mark, verb, kind, &port, target], EACH * 5).map_err(Refusal::Lost)?;
    // Where serve is not enabled tailscale says so and ends with 0 or waits for ever, depending on the tailnet.
    let said = words(&ended.stderr);
    if let Some(url) = enable_url(&said) {
        return Err(Refusal::Disabled { said, url: Some(url) });
    }
    match ended.code {
        0 => parse(&ended.stdout).map_err(Refusal::Lost),
        3 => Err(Refusal::Changing),
        code @ (10 | 11) => Err(Refusal::Lost(silent(code, &said))),
        _ if said.contains("enabling https feature") => Err(Refusal::Disabled { said, url: None }),
        _ if said.contains("etag mismatch") => Err(Refusal::Changing),
        _ => Err(Refusal::Other { said }),
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
