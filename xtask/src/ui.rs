//! Everything that chores print: progress on stderr, data on stdout. Nothing else here may print.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::time::{Duration, Instant};

use console::style;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Prints data: what the caller asked for.
pub fn data(text: impl AsRef<str>) {
    println!("{}", text.as_ref());
}

/// Prints a line for the person who waits.
pub fn note(text: impl AsRef<str>) {
    eprintln!("{}", text.as_ref());
}

/// Where progress goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    /// Spinners, on a terminal.
    Bars,
    /// Plain lines, in a log.
    Lines,
    /// Nowhere.
    Nothing,
}

/// What is being waited for, shown to whoever waits.
#[derive(Debug, Clone)]
pub struct Progress {
    bars: MultiProgress,
    shown: Shown,
}

/// One thing being waited for. Dropped without [`Step::done`], it is shown as failed.
#[derive(Debug)]
pub struct Step {
    name: String,
    started: Instant,
    bar: ProgressBar,
    progress: Progress,
    done: bool,
}

impl Progress {
    /// Shown to the person at the terminal, or in the log.
    pub fn shown() -> Self {
        Self::new(if console::user_attended_stderr() { Shown::Bars } else { Shown::Lines })
    }

    /// Not shown at all.
    pub fn quiet() -> Self {
        Self::new(Shown::Nothing)
    }

    fn new(shown: Shown) -> Self {
        let target = match shown {
            Shown::Bars => ProgressDrawTarget::stderr(),
            Shown::Lines | Shown::Nothing => ProgressDrawTarget::hidden(),
        };
        Self { bars: MultiProgress::with_draw_target(target), shown }
    }

    /// Begins a step.
    pub fn step(&self, name: impl Into<String>) -> Step {
        let name = name.into();
        let bar = self.bars.add(ProgressBar::new_spinner());
        let looks = ProgressStyle::with_template("{spinner} {msg} {elapsed:.dim}");
        bar.set_style(looks.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        bar.set_message(name.clone());
        bar.enable_steady_tick(Duration::from_millis(100));
        if self.shown == Shown::Lines {
            note(format!("   {name} ..."));
        }
        Step { name, started: Instant::now(), bar, progress: self.clone(), done: false }
    }
}

impl Step {
    /// Ends the step well.
    pub fn done(mut self) {
        self.done = true;
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
        if self.progress.shown != Shown::Nothing {
            let took = format!("{:.1} s", self.started.elapsed().as_secs_f32());
            let mark = if self.done { style("ok").green() } else { style("no").red() }.for_stderr();
            let line = format!("{mark} {} {}", self.name, style(took).for_stderr().dim());
            self.progress.bars.suspend(|| note(line));
        }
    }
}
