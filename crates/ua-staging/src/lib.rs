//! The private staging addresses of the app: `tailscale serve` routes that only the tailnet reaches, and their health.
//!
//! [`serve`] reads what the VPS serves, [`plan`] compares it with what the settings want, [`ensure`] changes only what
//! differs and reads it back, [`health`] asks through the tailnet name. [`check`] is that whole story for a caller that
//! has a connection; [`tool`] is the command line around it.

mod command;
pub mod ensure;
pub mod health;
mod legacy;
pub mod plan;
pub mod serve;
mod status;

pub use command::tool;
pub use ensure::Vps;
use ua_common::error::{Fact as _, Failure};
use ua_common::exit::Exit;
use ua_common::output::Printer;
use ua_common::report::{Check, Verdict};
use ua_common::settings::Settings;
use ua_common::settings::value::StagingMode;

use crate::health::Patience;
use crate::plan::{Plan, Route};
use crate::serve::Actual;

/// What else is served on a wanted port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conflict {
    /// Stands, and stops the run.
    Refuse,
    /// Gives way.
    Replace,
}

/// Staging as it was seen at one moment.
#[derive(Clone, Debug)]
pub struct View {
    /// What the settings want.
    pub wanted: [Route; 2],
    /// What the VPS serves.
    pub actual: Actual,
    /// The difference.
    pub plan: Plan,
}

/// Looks, and changes nothing. Nothing to see where the settings leave staging alone.
pub fn look(vps: &Vps<'_>, settings: &Settings, conflict: Conflict) -> Result<Option<View>, Failure> {
    if settings.staging_mode.value == StagingMode::Disabled {
        return Ok(None);
    }
    view(vps, settings, conflict).map(Some)
}

/// Looks, whatever the mode says.
pub fn view(vps: &Vps<'_>, settings: &Settings, conflict: Conflict) -> Result<View, Failure> {
    let wanted = Route::wanted(settings);
    let actual = ensure::observe(vps)?;
    let plan = plan::plan(&wanted, &actual, conflict == Conflict::Replace);
    Ok(View { wanted, actual, plan })
}

impl View {
    /// The state of the routes as checks, before anything is changed.
    pub fn checks(&self) -> Vec<Check> {
        let mut checks: Vec<Check> = self
            .plan
            .obstacles
            .iter()
            .map(|obstacle| Check::failure("staging.routes", obstacle.clone()))
            .collect();
        if checks.is_empty() {
            let detail = if self.plan.actions.is_empty() {
                "both routes are as wanted".to_owned()
            } else {
                let actions: Vec<String> = self.plan.actions.iter().map(ToString::to_string).collect();
                format!("to do: {}", actions.join(", "))
            };
            checks.push(Check::pass("staging.plan", detail));
        } else if let [free] = self.free()[..] {
            let detail = format!(
                "the {} route is left as it is, neither set nor asked: staging is both routes or none",
                free.part
            );
            checks.push(Check::skip("staging.other", detail));
        }
        checks.extend(self.plan.notes.iter().map(|note| Check::warn("staging.stale", note.clone())));
        checks
    }

    /// The routes that could be set, or are as wanted.
    fn free(&self) -> Vec<&Route> {
        let is_free = |route: &&Route| {
            let set = self.plan.actions.iter().any(|action| action.port() == Some(route.port));
            set || self.plan.right.contains(&route.part)
        };
        self.wanted.iter().filter(is_free).collect()
    }

    /// Is the only thing in the way that https is not enabled? Trying is then the one way to learn where it is enabled.
    fn only_disabled(&self) -> bool {
        self.plan.obstacles.iter().all(|obstacle| obstacle.exit() == Exit::ServeDisabled)
    }
}

/// Sets the routes up and proves that they serve: routes, then health.
pub fn ensure(
    vps: &Vps<'_>,
    settings: &Settings,
    view: &View,
    conflict: Conflict,
    out: &Printer,
) -> Result<Vec<Check>, Failure> {
    let mut checks = view.checks();
    if !view.only_disabled() {
        return Ok(checks);
    }
    let waiting = out.waiting("setting up the staging routes");
    let applied = ensure::apply(vps, &view.wanted, &view.actual, conflict);
    drop(waiting);
    checks.retain(|check| check.id == "staging.stale");
    let changes = match applied {
        Ok(changes) => changes,
        Err(failure) if failure.exit == Exit::Interrupted => return Err(failure),
        Err(failure) => {
            checks.insert(0, Check::failure("staging.routes", failure));
            return Ok(checks);
        }
    };
    let set = |route: &&Route| changes.iter().any(|change| change.port() == Some(route.port));
    let done = match view.wanted.iter().filter(set).collect::<Vec<_>>().as_slice() {
        [] => "both routes are as wanted".to_owned(),
        [one] => format!("the {} route was set and read back, the other one is as wanted", one.part),
        _ => "both routes were set and read back".to_owned(),
    };
    checks.insert(0, Check::pass("staging.routes", done));
    checks.extend(healthy(vps, settings, view, out)?);
    Ok(checks)
}

/// Asks both routes for their health through the tailnet name, and where one is ill which half of it is.
pub fn healthy(
    vps: &Vps<'_>,
    settings: &Settings,
    view: &View,
    out: &Printer,
) -> Result<Vec<Check>, Failure> {
    let patience = Patience {
        attempts: settings.staging_health_attempts.0,
        interval: settings.staging_health_interval.value,
    };
    let mut checks = health::health(&view.wanted, view.actual.node.name(), patience, out)?;
    let halves = health::halves(vps, &view.wanted, &checks)?;
    for check in &mut checks {
        // To ask the route again tells nothing of an app that is broken itself.
        let local = format!("{}.local", check.id);
        if halves.iter().any(|half| half.id == local && half.verdict == Verdict::Fail) {
            check.hint = None;
        }
    }
    checks.extend(halves);
    Ok(checks)
}
