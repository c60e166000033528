//! The deploy fault matrix as a table, from the lines that its trials leave.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// One cell: `FAULT STEP ok|FAIL SECONDS REQUESTS FAILURES GAP`.
struct Cell<'a> {
    fault: &'a str,
    step: &'a str,
    verdict: &'a str,
    seconds: &'a str,
    /// Of the public endpoints: requests, failed ones, and the longest time in seconds for which one failed.
    public: [&'a str; 3],
}

impl<'a> Cell<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let mut fields = line.split('\t');
        let mut next = || fields.next();
        Some(Self {
            fault: next()?,
            step: next()?,
            verdict: next()?,
            seconds: next()?,
            public: [next()?, next()?, next()?],
        })
    }

    /// `ok 31s 4/620 0.8s`: how it ended, how long it took, and how many public requests failed meanwhile.
    fn shown(&self) -> String {
        let [requests, failures, gap] = self.public;
        format!("{} {}s {failures}/{requests} {gap}s", self.verdict, self.seconds)
    }
}

/// A table of faults and steps, each in the order in which they first come.
pub fn table(lines: &str) -> String {
    let cells: Vec<Cell<'_>> = lines.lines().filter_map(Cell::read).collect();
    let (mut faults, mut steps) = (Vec::new(), Vec::new());
    let mut shown = BTreeMap::new();
    for cell in &cells {
        if !faults.contains(&cell.fault) {
            faults.push(cell.fault);
        }
        if !steps.contains(&cell.step) {
            steps.push(cell.step);
        }
        shown.insert((cell.fault, cell.step), cell.shown());
    }
    // Steps go down, since there are more of them, and a bad release has no step.
    let mut rows =
        vec![std::iter::once("").chain(faults.iter().copied()).map(str::to_owned).collect::<Vec<_>>()];
    for step in steps {
        let row = faults.iter().map(|fault| shown.get(&(*fault, step)).cloned().unwrap_or_default());
        rows.push(std::iter::once(step.to_owned()).chain(row).collect());
    }
    let mut text = aligned(&rows);
    let failed = cells.iter().filter(|cell| cell.verdict != "ok").count();
    let _ = write!(
        text,
        "{} cells, {failed} failed. In a cell: its time, public requests that failed / all, the longest gap.",
        cells.len()
    );
    text
}

fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let line: Vec<String> =
            row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
        let _ = writeln!(text, "{}", line.join("  ").trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cell_stands_at_its_fault_and_step() {
        let lines = "reboot\tbegin\tok\t40\t800\t120\t6.0\nreboot\tswitch\tFAIL\t61\t900\t130\t7.5\n\
                     disk_full\tswitch\tok\t12\t240\t0\t0.0\n";
        assert_eq!(
            table(lines),
            "        reboot                 disk_full\n\
             begin   ok 40s 120/800 6.0s\n\
             switch  FAIL 61s 130/900 7.5s  ok 12s 0/240 0.0s\n\
             3 cells, 1 failed. In a cell: its time, public requests that failed / all, the longest gap."
        );
    }
}
