//! The way to the VPS for one verb.

use ua_common::app;
use ua_common::cli::Context;
use ua_common::error::Failure;
use ua_common::exit::Exit;
use ua_common::output::printable;
use ua_common::profile::Profile;
use ua_common::report::Report;
use ua_common::run::Group;
use ua_common::transport::{Answer, Script, Transport};

pub use ua_common::app::STATE;

/// What every verb works with.
pub struct Session<'a> {
    /// Settings, surroundings and where to print.
    pub context: &'a Context,
    /// The app.
    pub profile: &'a Profile,
    /// The one connection.
    pub transport: Transport,
}

/// Sees that the VPS is there, and connects, in [`Group::Ours`] for what takes our own streams. Nothing if a check says why
/// not.
pub fn open<'a>(
    context: &'a Context,
    profile: &'a Profile,
    group: Group,
    report: &mut Report,
) -> anyhow::Result<Option<Session<'a>>> {
    let settings = &context.settings;
    let preflight = ua_preflight::check(settings, &context.out, ua_preflight::Options::default());
    report.stage("preflight", preflight.checks);
    let Some(place) = preflight.place else { return Ok(None) };
    let (target, wait) = (place.ssh_target(settings), settings.ssh_check_wait.value);
    let transport = Transport::open_in(group, target, wait, &context.out)?;
    report.checks.extend(transport.opening().checks());
    Ok(Some(Session { context, profile, transport }))
}

/// Somebody holds the lock.
pub fn busy(holder: &str) -> Failure {
    Failure::new(Exit::Busy, app::busy(holder)).hint("ua-deploy status")
}

impl Session<'_> {
    /// Runs a script that ends with 0, or says why it does not.
    pub fn ask(&self, script: Script, args: &[&str], limit: std::time::Duration) -> Result<Answer, Failure> {
        let answer = self.transport.script(script, args, limit)?;
        finished(script, &answer, &answer.stdout)?;
        Ok(answer)
    }
}

/// Says why a script did not end with 0, from its answer and from what it wrote to stdout.
pub fn finished(script: Script, answer: &Answer, stdout: &str) -> Result<(), Failure> {
    match answer.code {
        0 => Ok(()),
        30 => Err(busy(stdout)),
        code => {
            let said = printable(answer.stderr.trim());
            let said =
                if said.is_empty() { format!("`{}` ended with code {code}", script.name) } else { said };
            Err(Failure::new(if code == 32 { Exit::Transfer } else { Exit::Failed }, said))
        }
    }
}
