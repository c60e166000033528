//! How far a copy is, for whoever looks.

use std::cell::{Cell, RefCell};

use ua_common::output::{Printer, ProgressBar};
use ua_common::settings::value::Patterns;

/// One bar over all workspaces of a run.
pub struct Progress<'a> {
    bar: ProgressBar,
    workspaces: usize,
    /// Names of directories of workspaces.
    nested: &'a Patterns,
    /// Bytes of earlier transfers, and of the present one.
    before: Cell<u64>,
    now: Cell<u64>,
    begun: Cell<usize>,
    current: RefCell<String>,
}

impl<'a> Progress<'a> {
    /// Of so many workspaces, with so many bytes.
    pub fn new(out: &Printer, workspaces: usize, bytes: u64, nested: &'a Patterns) -> Self {
        let bar = out.transfer(bytes);
        let progress = Self {
            bar,
            workspaces,
            nested,
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
        let id = workspace(line, self.nested);
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

/// The workspace that a path is in; nothing for a directory of workspaces itself.
fn workspace<'a>(path: &'a str, nested: &Patterns) -> &'a str {
    let mut parts = path.splitn(3, '/');
    match (parts.next(), parts.next()) {
        (Some(container), Some("")) if nested.matches(container) => "",
        (Some(container), Some(name)) if nested.matches(container) => {
            &path[..container.len() + 1 + name.len()]
        }
        (Some(name), _) => name,
        (None, _) => "",
    }
}

/// The bytes of a line of rsync such as `  1234  12%  1.18MB/s    0:00:01`.
pub fn bytes(line: &str) -> Option<u64> {
    let mut words = line.split_ascii_whitespace();
    let (bytes, share) = (words.next()?, words.next()?);
    share.strip_suffix('%')?.parse::<u8>().ok()?;
    bytes.parse().ok()
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_belongs_to_one_workspace() {
        let nested = Patterns(vec!["vp_*_external".to_owned()]);
        for (path, id) in [
            ("session_1/sub/f", "session_1"),
            ("session_1/", "session_1"),
            ("./", "."),
            ("vp_a_external/", ""),
            ("vp_a_external/m1/", "vp_a_external/m1"),
            ("vp_a_external/m1/sub/f", "vp_a_external/m1"),
            ("vp_a_external_archive/m1/f", "vp_a_external_archive"),
        ] {
            assert_eq!(workspace(path, &nested), id, "{path}");
        }
    }
}
