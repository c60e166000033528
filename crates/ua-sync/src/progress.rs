//! How far a copy is, for whoever looks.

use std::cell::{Cell, RefCell};

use ua_common::output::{Printer, ProgressBar};

/// One bar over all workspaces of a run.
pub struct Progress {
    bar: ProgressBar,
    workspaces: usize,
    /// Bytes of earlier transfers, and of the present one.
    before: Cell<u64>,
    now: Cell<u64>,
    begun: Cell<usize>,
    current: RefCell<String>,
}

impl Progress {
    /// Of so many workspaces, with so many bytes.
    pub fn new(out: &Printer, workspaces: usize, bytes: u64) -> Self {
        let bar = out.transfer(bytes);
        let progress = Self {
            bar,
            workspaces,
            before: Cell::new(0),
            now: Cell::new(0),
            begun: Cell::new(0),
            current: RefCell::new(String::new()),
        };
        progress.show();
        progress
    }

    /// A line of rsync: how many bytes there are, or the name of a file that comes.
    pub fn line(&self, line: &str) {
        if let Some(bytes) = bytes(line) {
            // Each transfer counts from zero.
            if bytes < self.now.get() {
                self.before.set(self.before.get() + self.now.get());
            }
            self.now.set(bytes);
            self.bar.set_position(self.before.get() + bytes);
            return;
        }
        let id = line.split('/').next().unwrap_or_default();
        if !id.is_empty() && id != "." && *self.current.borrow() != id {
            id.clone_into(&mut self.current.borrow_mut());
            self.begun.set((self.begun.get() + 1).min(self.workspaces));
            self.show();
        }
    }

    fn show(&self) {
        self.bar.set_message(format!("{} of {} workspaces", self.begun.get(), self.workspaces));
    }
}

/// The bytes of a line of rsync such as `  1234  12%  1.18MB/s    0:00:01`.
pub fn bytes(line: &str) -> Option<u64> {
    let mut words = line.split_ascii_whitespace();
    let (bytes, share) = (words.next()?, words.next()?);
    share.strip_suffix('%')?.parse::<u8>().ok()?;
    bytes.parse().ok()
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
