//! Labs that trials run on, and how long each trial took.

use std::fmt::Write as _;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::json;
use xtask::lab::Lab;
use xtask::ui;

/// Labs that are up, each used by one trial at a time.
pub struct Pool {
    free: Mutex<Vec<Free>>,
    returned: Condvar,
}

/// A lab between two trials.
struct Free {
    lab: Lab,
    /// Module of the trial that used it last.
    module: Option<&'static str>,
}

impl Pool {
    /// The first `count` labs of this checkout.
    pub fn attach(count: usize) -> Result<Self> {
        let free = |number| Ok(Free { lab: Lab::attach_number(number)?, module: None });
        let free = (0..count).map(free).collect::<Result<_>>()?;
        Ok(Self { free: Mutex::new(free), returned: Condvar::new() })
    }

    /// Runs a trial of `module` on a free lab, if possible on one that a trial of the same module left.
    pub fn with_lab<T>(&self, module: &'static str, run: impl FnOnce(&Lab) -> T) -> T {
        let mut free = self.free();
        while free.is_empty() {
            free = self.returned.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
        let same = free.iter().position(|free| free.module == Some(module));
        let chosen = same.or_else(|| free.iter().position(|free| free.module.is_none())).unwrap_or(0);
        let Free { lab, .. } = free.swap_remove(chosen);
        drop(free);
        let returned = Returned { pool: self, lab, module };
        run(&returned.lab)
    }

    fn free(&self) -> MutexGuard<'_, Vec<Free>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives a lab back, even after a panic.
struct Returned<'a> {
    pool: &'a Pool,
    lab: Lab,
    module: &'static str,
}

impl Drop for Returned<'_> {
    fn drop(&mut self) {
        self.pool.free().push(Free { lab: self.lab.clone(), module: Some(self.module) });
        self.pool.returned.notify_one();
    }
}

/// Time that a trial took.
#[derive(Clone, Debug)]
pub struct Took {
    pub name: String,
    /// Number of its lab.
    pub lab: usize,
    /// Bringing the lab back to its base state.
    pub reset: Duration,
    pub run: Duration,
}

/// Times of the trials that ended.
#[derive(Debug, Default)]
pub struct Times(Mutex<Vec<Took>>);

impl Times {
    pub fn add(&self, took: Took) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(took);
    }

    /// Prints them, the slowest first, and writes them as JSON into the file that `UA_TRIAL_TIMES` names.
    pub fn tell(&self, begun: Instant, labs: usize) -> Result<()> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        all.sort_by_key(|took| std::cmp::Reverse(took.reset + took.run));
        let mut text = String::new();
        for Took { name, lab, reset, run } in &all {
            let (run, reset) = (run.as_secs_f64(), reset.as_secs_f64());
            writeln!(text, "{:7.1} s {reset:6.1} s reset  lab {lab}  {name}", run + reset)?;
        }
        let sum: Duration = all.iter().map(|took| took.reset + took.run).sum();
        let total = begun.elapsed();
        let (trials, wall, sum) = (all.len(), total.as_secs_f64(), sum.as_secs_f64());
        ui::data(format!(
            "{text}{trials} trials in {wall:.0} s on {labs} labs; one after the other they take {sum:.0} s"
        ));
        if let Some(file) = std::env::var_os("UA_TRIAL_TIMES") {
            let trial = |took: &Took| {
                json!({
                    "name": took.name, "lab": took.lab,
                    "reset_seconds": took.reset.as_secs_f64(), "run_seconds": took.run.as_secs_f64(),
                })
            };
            let report = json!({
                "labs": labs, "seconds": total.as_secs_f64(), "trials": all.iter().map(trial).collect::<Vec<_>>(),
            });
            std::fs::write(&file, serde_json::to_vec_pretty(&report)?)
                .with_context(|| format!("cannot write `{}`", file.display()))?;
        }
        Ok(())
    }
}
