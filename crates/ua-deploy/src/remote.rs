//! What a deploy does on the VPS: open a record, upload, activate and follow, close the record.

use std::time::{Duration, Instant};

use ua_common::app;
use ua_common::env_contract::CommandFailure;
use ua_common::error::{Fact, Failure};
use ua_common::exit::Exit;
use ua_common::ledger::Push;
use ua_common::output::{Printer, ProgressBar, printable};
use ua_common::profile::Profile;
use ua_common::report::Check;
use ua_common::settings::Settings;
use ua_common::tool::rsync;
use ua_common::transport::{Script, Transport, TransportError};

use crate::counted;
use crate::history::{self, Holder, Outcome, Record};
use crate::release::Release;

pub use ua_common::app::STATE;

const BEGIN: Script = Script {
    name: "begin",
    text: concat!(include_str!("../remote/record.sh"), "\n", include_str!("../remote/begin.sh")),
};
const CLOSE: Script = Script {
    name: "close",
    text: concat!(include_str!("../remote/record.sh"), "\n", include_str!("../remote/close.sh")),
};
const HISTORY: Script = Script { name: "history", text: include_str!("../remote/history.sh") };
/// One exec starts the activation and tells how it goes.
const LAUNCH: Script = Script {
    name: "launch",
    text: concat!(include_str!("../remote/launch.sh"), "\n", include_str!("../remote/follow.sh")),
};
const FOLLOW: Script = Script { name: "follow", text: include_str!("../remote/follow.sh") };
const CONFIRM: Script = Script {
    name: "confirm",
    text: concat!(
        include_str!("../remote/newest.sh"),
        "\n",
        include_str!("../remote/record.sh"),
        "\n",
        include_str!("../remote/confirm.sh")
    ),
};
const UNLOCK: Script = Script { name: "unlock", text: include_str!("../remote/unlock.sh") };
const DRIFT: Script = Script {
    name: "drift",
    text: concat!(
        include_str!("../../ua-common/remote/lying.sh"),
        "\n",
        include_str!("../../ua-common/remote/ledger.sh"),
        "\n",
        include_str!("../remote/drift.sh")
    ),
};
const NOW: Script = Script {
    name: "now",
    text: concat!(
        include_str!("../remote/prove.sh"),
        "\n",
        include_str!("../remote/workers.sh"),
        "\n",
        include_str!("../remote/now.sh")
    ),
};
const OPS: Script = Script {
    name: "ops",
    text: concat!(include_str!("../../ua-common/remote/env.sh"), "\n", include_str!("../remote/ops.sh")),
};
const SMOKED: Script = Script {
    name: "smoked",
    text: concat!(include_str!("../remote/record.sh"), "\n", include_str!("../remote/smoked.sh")),
};
/// Stored on the VPS and run there by systemd.
const ACTIVATE: &str = concat!(
    include_str!("../remote/newest.sh"),
    "\n",
    include_str!("../../ua-common/remote/lying.sh"),
    "\n",
    include_str!("../../ua-common/remote/ledger.sh"),
    "\n",
    include_str!("../../ua-common/remote/env.sh"),
    "\n",
    include_str!("../../ua-common/remote/unit_log.sh"),
    "\n",
    include_str!("../remote/prove.sh"),
    "\n",
    include_str!("../remote/workers.sh"),
    "\n",
    include_str!("../remote/record.sh"),
    "\n",
    include_str!("../remote/activate.sh")
);

/// What to do about an upload that broke off.
pub const SEND_AGAIN: &str = "run ua-deploy again: what has arrived is not sent twice";

const LIMIT: Duration = Duration::from_mins(1);
/// Time that no activation takes, where nothing is known of it: the VPS limits it by itself.
pub const LONGEST: Duration = Duration::from_hours(24);
/// Lines of the log that are shown when it went wrong.
const TAIL: usize = 40;

/// Why a deploy ended on its way.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// Another deploy is being activated.
    #[error("{}", app::busy(.holder))]
    Busy {
        /// Its lock's text.
        holder: String,
    },
    /// A script of ours failed.
    #[error("`{script}` failed on the VPS (code {code}): {said}")]
    Script {
        /// Its name.
        script: &'static str,
        /// Its code.
        code: i32,
        /// What it said.
        said: String,
    },
    /// rsync failed; the live files were not touched.
    #[error("the upload failed: {} (rsync {code}){}", rsync::meaning(*.code), after(.said))]
    Upload {
        /// rsync's code.
        code: i32,
        /// What it said.
        said: String,
    },
    /// rsync was silent for too long.
    #[error("the upload failed: {0}")]
    Stalled(#[source] TransportError),
    /// The connection ended while the VPS was activating. It goes on there.
    #[error("the connection ended while `{id}` was being activated; the VPS goes on with it")]
    Unfollowed {
        /// The deploy.
        id: String,
        /// Why.
        source: TransportError,
    },
    /// Whoever followed the activation was asked to end. It goes on on the VPS.
    #[error("interrupted here, {}", left(.id, *.begun))]
    Left {
        /// The deploy.
        id: String,
        /// Is it known that the VPS had begun?
        begun: bool,
    },
    /// The activation left no record that can be read.
    #[error("the activation of `{id}` ended without a record")]
    Unrecorded {
        /// The deploy.
        id: String,
    },
}

fn after(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(": {said}") }
}

fn left(id: &str, begun: bool) -> String {
    if begun {
        format!("but `{id}` goes on on the VPS by itself")
    } else {
        format!("while the VPS was told to activate `{id}`: if it has begun, it goes on by itself")
    }
}

impl Fact for RemoteError {
    fn exit(&self) -> Exit {
        match self {
            Self::Busy { .. } => Exit::Busy,
            Self::Upload { .. } | Self::Stalled(_) => Exit::Transfer,
            Self::Script { .. } => Exit::Failed,
            Self::Unfollowed { source, .. } => source.exit(),
            Self::Left { .. } => Exit::Interrupted,
            Self::Unrecorded { .. } => Exit::Broken,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Busy { holder } => history::follow(holder),
            Self::Unfollowed { id, .. } | Self::Left { id, .. } => format!("ua-deploy attach {id}"),
            Self::Unrecorded { .. } => "ua-deploy history".to_owned(),
            Self::Upload { .. } | Self::Stalled(_) => SEND_AGAIN.to_owned(),
            Self::Script { .. } => return None,
        })
    }
}

/// The way to the VPS for one deploy.
pub struct Remote<'a> {
    /// The connection.
    pub transport: &'a Transport,
    /// The settings.
    pub settings: &'a Settings,
    /// Where to print.
    pub out: &'a Printer,
    /// Time that no activation takes.
    pub longest: Duration,
}

/// What is wanted of an activation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Put the release in place.
    Forward,
    /// Put back what was there before it.
    Restore,
}

/// Answer of the ops endpoints to the VPS's own token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpsAnswer {
    /// HTTP status.
    Status(String),
    /// There is no token to ask with.
    NoToken,
    /// Nor is it known whether there is one.
    CommandFailed(CommandFailure),
}

/// How an activation ended, in its own words.
#[derive(Clone, Debug)]
pub struct Activated {
    /// What it observed.
    pub checks: Vec<Check>,
    /// Its record.
    pub record: Record,
    /// Had it ended before anybody listened?
    pub past: bool,
}

/// What became of a release since it was put in place.
#[derive(Debug, Default)]
pub struct Drift {
    /// Paths that are not as it put them there.
    pub paths: Vec<String>,
    /// What was pushed.
    pub pushes: Vec<Push>,
    /// Its units, and the state that systemd has each of them in.
    pub units: Vec<(String, String)>,
}

impl Drift {
    fn read(lines: &str) -> Self {
        let mut drift = Self::default();
        for line in lines.lines() {
            if let Some(push) = line.strip_prefix("pushed\t") {
                drift.pushes.extend(Push::read(push));
            } else if let Some((unit, state)) =
                line.strip_prefix("unit\t").and_then(|unit| unit.split_once('\t'))
            {
                drift.units.push((unit.to_owned(), state.to_owned()));
            } else {
                drift.paths.push(line.to_owned());
            }
        }
        drift
    }
}

impl Remote<'_> {
    /// Opens the record, or says who is busy. `from` is our address on the tailnet, where it is known.
    pub fn begin(&self, id: &str, commit: &str, base: &str, from: &str) -> Result<(), Failure> {
        let _waiting = self.out.waiting("opening the deploy");
        let answer = self.transport.script(BEGIN, &[STATE, id, commit, base, from], LIMIT)?;
        match answer.code {
            0 => Ok(()),
            30 => Err(RemoteError::Busy { holder: printable(answer.stdout.trim()) }.into()),
            code => Err(RemoteError::Script { script: BEGIN.name, code, said: answer.stderr }.into()),
        }
    }

    /// Brings the tree to the VPS; what of its `files` is like the live one is not sent.
    pub fn upload(&self, release: &Release, files: usize) -> Result<Duration, Failure> {
        let start = Instant::now();
        let files = counted(files, "file", "files");
        let bar = self.out.spinner(format!("uploading {files}"));
        let idle = self.settings.transfer_idle_timeout.0;
        let mut args = rsync::upload(&self.settings.deploy_app_dir.0, idle);
        let mut from = release.tree().into_os_string();
        from.push("/");
        args.push(from);
        args.push(self.transport.remote(&format!("{}/", incoming(&release.commit))));
        let finished = self
            .transport
            .rsync(args, idle, &mut |line| {
                if !line.trim().is_empty() {
                    bar.set_message(format!("uploading {files}: {}", line.trim()));
                }
            })
            .map_err(|error| match error {
                error @ TransportError::Run(ua_common::run::RunError::Timeout { .. }) => {
                    Failure::from(RemoteError::Stalled(error))
                }
                error => error.into(),
            })?;
        match finished.code {
            0 => Ok(start.elapsed()),
            code => Err(RemoteError::Upload { code, said: finished.err() }.into()),
        }
    }

    /// Has systemd activate the release on the VPS, and follows it to its end.
    pub fn activate(
        &self,
        id: &str,
        direction: Direction,
        orders: &str,
        manifest: &str,
    ) -> Result<Activated, Failure> {
        let verb = match direction {
            Direction::Forward => "forward",
            Direction::Restore => "restore",
        };
        let seconds = self.longest.as_secs().to_string();
        let args = [STATE, id, verb, orders, manifest, ACTIVATE, &seconds];
        self.hear(LAUNCH, &args, id)
    }

    /// Follows what is being done about a release to its end; if nothing is, tells how it ended.
    pub fn attach(&self, id: &str) -> Result<Activated, Failure> {
        self.hear(FOLLOW, &[STATE, id, "any"], id)
    }

    /// Runs a script that tells how an activation goes.
    fn hear(&self, script: Script, args: &[&str], id: &str) -> Result<Activated, Failure> {
        let mut story = Story::new(self.out);
        // The script says something every few seconds, so silence is a broken connection.
        let idle = self.settings.transfer_idle_timeout.0.max(Duration::from_secs(20));
        let answer = self.transport.stream(script, args, idle, self.longest, &mut |line| story.hear(line));
        let answer = match answer {
            Ok(answer) => answer,
            Err(TransportError::Run(ua_common::run::RunError::Interrupted { .. })) => {
                return Err(RemoteError::Left { id: id.to_owned(), begun: !story.log.is_empty() }.into());
            }
            Err(source) => return Err(RemoteError::Unfollowed { id: id.to_owned(), source }.into()),
        };
        if answer.code != 0 && story.record.is_none() {
            return Err(
                RemoteError::Script { script: script.name, code: answer.code, said: answer.stderr }.into()
            );
        }
        story.end(id)
    }

    /// Ends the record of a release that serves.
    pub fn confirm(&self, id: &str, who: &str) -> Result<(), Failure> {
        let _deferred = ua_common::interrupt::defer();
        let answer = self.transport.script(CONFIRM, &[STATE, id, who], LIMIT)?;
        match answer.code {
            0 => Ok(()),
            30 => Err(RemoteError::Busy { holder: printable(answer.stdout.trim()) }.into()),
            code => Err(RemoteError::Script { script: CONFIRM.name, code, said: answer.stderr }.into()),
        }
    }

    /// Proves what serves, as it is now; says what is not right.
    pub fn now(&self, id: &str, orders: &str) -> Result<Result<String, String>, Failure> {
        let answer = self.transport.script(NOW, &[STATE, id, orders], LIMIT)?;
        let said = printable(answer.stdout.trim());
        match answer.code {
            0 => Ok(Ok(said)),
            1 if !said.is_empty() => Ok(Err(said)),
            code => Err(RemoteError::Script { script: NOW.name, code, said: answer.stderr }.into()),
        }
    }

    /// Adds to a record how the public side was found.
    pub fn smoked(&self, id: &str, word: &str) -> Result<(), Failure> {
        self.run(SMOKED, &[STATE, id, word], LIMIT).map(drop)
    }

    /// Returns the status of `url`, asked on the VPS with the token of its own environment.
    pub fn ops(&self, profile: &Profile, url: &str) -> Result<OpsAnswer, Failure> {
        let Some(key) = &profile.env.token else { return Ok(OpsAnswer::NoToken) };
        let app = &self.settings.deploy_app_dir.0;
        let file = format!("{app}/{}", profile.env.file);
        let command = profile.env.command.as_deref().unwrap_or_default();
        let args: [&str; 7] = [&file, key, url, app, &profile.owner.user, &profile.build.path, command];
        let answer = self.transport.script(OPS, &args, LIMIT)?;
        let output = answer.stdout.trim_end_matches('\n');
        Ok(match answer.code {
            3 => OpsAnswer::NoToken,
            4 => OpsAnswer::CommandFailed(CommandFailure::parse(output)),
            // curl has its own codes; the status is 000 then.
            _ => OpsAnswer::Status(printable(output.trim())),
        })
    }

    /// Ends an activation that holds the lock.
    pub fn unlock(&self, id: &str) -> Result<(), Failure> {
        // What it was in the middle of is put back first.
        self.run(UNLOCK, &[STATE, id], self.longest).map(drop)
    }

    /// What became of a release since.
    pub fn drift(&self, id: &str) -> Result<Drift, Failure> {
        Ok(Drift::read(&self.run(DRIFT, &[STATE, id], Duration::from_mins(10))?))
    }

    /// Ends the record of a deploy that failed before its activation.
    pub fn close(&self, id: &str, fields: &str) -> Result<(), Failure> {
        // Ctrl-C ended the step before; this one is short and makes the record true.
        let _deferred = ua_common::interrupt::defer();
        self.run(CLOSE, &[STATE, id, fields], LIMIT).map(drop)
    }

    /// Every record there is, and who holds the lock.
    pub fn state(&self) -> Result<(Vec<Record>, Option<Holder>), Failure> {
        let lines = self.run(HISTORY, &[STATE], LIMIT)?;
        let fact = |key| lines.lines().find_map(|line| line.strip_prefix(key)).map(printable);
        let holder = fact("busy\t").map(|text| Holder { text, step: fact("step\t") });
        Ok((history::fold(&lines), holder))
    }

    /// What a script prints that must end with 0.
    fn run(&self, script: Script, args: &[&str], limit: Duration) -> Result<String, Failure> {
        let answer = self.transport.script(script, args, limit)?;
        match answer.code {
            0 => Ok(answer.stdout),
            code => Err(RemoteError::Script { script: script.name, code, said: answer.stderr }.into()),
        }
    }
}

/// Where a commit is uploaded to. Named by the commit, so that an upload that broke off is gone on with.
fn incoming(commit: &str) -> String {
    format!("{STATE}/incoming/{commit}/tree")
}

/// What the VPS tells while it activates.
struct Story<'a> {
    out: &'a Printer,
    bar: ProgressBar,
    /// What is being done, and since when.
    step: Option<(String, Instant)>,
    log: std::collections::VecDeque<String>,
    checks: Vec<Check>,
    record: Option<Record>,
    /// Nothing was heard of it but what it had said before.
    past: bool,
}

impl<'a> Story<'a> {
    fn new(out: &'a Printer) -> Self {
        let bar = out.spinner("activating");
        let log = std::collections::VecDeque::new();
        Self { out, bar, step: None, log, checks: Vec::new(), record: None, past: false }
    }

    /// On a terminal each step leaves a line with the time it took.
    fn step(&mut self, next: Option<String>) {
        if let Some((step, since)) = self.step.take()
            && !self.bar.is_hidden()
        {
            let took = since.elapsed().as_secs_f32();
            self.bar.suspend(|| self.out.note(&format!("{took:6.1} s  {step}")));
        }
        self.step = next.map(|next| (next, Instant::now()));
    }

    fn hear(&mut self, line: &str) {
        let (kind, text) = line.split_once(' ').unwrap_or((line, ""));
        match kind {
            "l" => {
                let text = printable(text);
                let title = text.strip_prefix("== ");
                // What says nothing hides nothing.
                if !text.trim().is_empty() {
                    self.bar.set_message(title.unwrap_or(&text).to_owned());
                }
                match title {
                    // Where no bar is drawn the titles alone tell how far it is.
                    Some(title) if self.bar.is_hidden() => self.out.note(title),
                    Some(title) => self.step(Some(title.to_owned())),
                    None => self.bar.suspend(|| self.out.detail(&text)),
                }
                self.keep(text);
            }
            // Nobody here can say how long these steps took.
            "o" => {
                let text = printable(text);
                self.bar.suspend(|| self.out.detail(&text));
                self.keep(text);
                self.past = true;
            }
            "a" => {
                let step = printable(text);
                self.bar.set_message(step.clone());
                self.bar.suspend(|| self.out.note(&format!("under way: {step}")));
                self.past = false;
            }
            "c" => self.checks.extend(check(text)),
            "r" => self.record = serde_json::from_str(text).ok(),
            _ => {}
        }
    }

    /// Keeps the last lines of the log, and the one that says why it went wrong.
    fn keep(&mut self, line: String) {
        if self.log.len() == TAIL {
            let reason = usize::from(self.log[0].starts_with("fail "));
            self.log.remove(reason);
        }
        self.log.push_back(line);
    }

    fn end(mut self, id: &str) -> Result<Activated, Failure> {
        self.step(None);
        self.bar.finish_and_clear();
        let Some(record) = self.record.take() else {
            return Err(RemoteError::Unrecorded { id: id.to_owned() }.into());
        };
        if !record.verdict.serves() {
            self.out.error(&format!("the last lines of {STATE}/releases/{id}/log on the VPS:"));
            for line in &self.log {
                self.out.child(line);
            }
        }
        // A record that is good says nothing about why something failed beside it.
        let exit = match exit_of(&record) {
            Exit::Ok => Exit::Failed,
            exit => exit,
        };
        for check in &mut self.checks {
            if check.verdict == ua_common::report::Verdict::Fail {
                check.exit = if check.id == "lock" { Exit::Busy } else { exit };
            }
        }
        Ok(Activated { checks: self.checks, record, past: self.past })
    }
}

/// Reads `VERDICT<TAB>ID<TAB>MILLISECONDS<TAB>DETAIL`.
fn check(text: &str) -> Option<Check> {
    let mut fields = text.splitn(4, '\t');
    let (verdict, id) = (fields.next()?, fields.next()?.to_owned());
    let took = Duration::from_millis(fields.next()?.parse().ok()?);
    let detail = fields.next()?;
    let check = match verdict {
        "pass" => Check::pass(id, detail),
        "warn" => Check::warn(id, detail),
        _ => Check::fail(id, Exit::Failed, detail),
    };
    Some(check.took(took))
}

/// What a record means for the run.
pub fn exit_of(record: &Record) -> Exit {
    match record.verdict {
        Outcome::Ok | Outcome::Unconfirmed => Exit::Ok,
        Outcome::Busy => Exit::Busy,
        Outcome::RolledBack => Exit::RolledBack,
        Outcome::Broken | Outcome::Unknown => Exit::Broken,
        Outcome::Begun => Exit::Transfer,
        // Cut off: its own code says on which side of the switch.
        Outcome::Failed | Outcome::Activating => {
            let codes = [Exit::Busy, Exit::Contract, Exit::Transfer, Exit::Broken];
            codes.into_iter().find(|exit| exit.code() == record.exit_code).unwrap_or(Exit::Failed)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_check_is_never_exit_0() {
        let out =
            Printer::new(ua_common::output::Format::Human, true, false, ua_common::output::Color::Never);
        let mut story = Story::new(&out);
        story.hear("c fail\trestore\t1\tanother release was put in place since");
        story.hear("c fail\tlock\t1\theld by x");
        story.hear(r#"r {"id":"1","commit":"c","verdict":"ok"}"#);
        let exits: Vec<Exit> = story.end("1").unwrap().checks.iter().map(|check| check.exit).collect();
        assert_eq!(exits, [Exit::Failed, Exit::Busy]);
    }

    #[test]
    fn only_one_of_which_nothing_new_was_heard_had_ended_before() {
        let out =
            Printer::new(ua_common::output::Format::Human, true, false, ua_common::output::Color::Never);
        let past = |lines: &[&str]| {
            let mut story = Story::new(&out);
            for line in lines {
                story.hear(line);
            }
            // No step is left whose time somebody could ask for.
            assert!(story.step.is_none() && story.log.len() == 1, "{lines:?}");
            story.hear(r#"r {"id":"1","commit":"c","verdict":"ok"}"#);
            story.end("1").unwrap().past
        };
        assert!(past(&["o == building"]));
        assert!(!past(&["o == building", "a building"]));
        assert!(!past(&["l == building"]));
    }

    #[test]
    fn the_reason_is_not_pushed_out_of_view_by_what_came_after_it() {
        let out =
            Printer::new(ua_common::output::Format::Human, true, false, ua_common::output::Color::Never);
        let mut story = Story::new(&out);
        story.hear("l long before");
        story.hear("l fail health: api answers 500");
        for line in 0..2 * TAIL {
            story.hear(&format!("l {line}"));
        }
        assert_eq!(story.log.len(), TAIL);
        assert_eq!((&*story.log[0], &*story.log[1]), ("fail health: api answers 500", "41"));
        assert_eq!(story.log.back().unwrap(), "79");
    }

    #[test]
    fn who_interrupts_is_told_that_the_vps_goes_on_and_how_to_follow() {
        let told = |begun| Failure::from(RemoteError::Left { id: "2026-c".to_owned(), begun });
        let failure = told(true);
        assert_eq!(failure.to_string(), "interrupted here, but `2026-c` goes on on the VPS by itself");
        assert_eq!(
            (failure.exit, failure.hint.as_deref()),
            (Exit::Interrupted, Some("ua-deploy attach 2026-c"))
        );
        assert!(told(false).to_string().contains("if it has begun"), "{}", told(false));
    }

    #[test]
    fn a_check_is_read_by_its_fields() {
        let it = check("warn\tswitch.kept\t12\ta b").unwrap();
        assert_eq!((it.id.as_ref(), it.detail.as_str(), it.duration_ms), ("switch.kept", "a b", 12));
        assert!(check("warn\tswitch.kept").is_none());
    }
}
