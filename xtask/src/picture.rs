//! A terminal's screen as a picture: what a command really wrote there, with its colours, as SVG.

use std::fmt::Write as _;

use anstyle_svg::Term;
use anyhow::{Context as _, Result, ensure};
use vt100::{Cell, Color, Parser, Screen};

use crate::cmd::Cmd;

/// As wide as a document shows without making it small.
const COLUMNS: u16 = 100;
/// Higher than what is ever shown, so that nothing scrolls away.
const ROWS: u16 = 400;

/// Runs `argv` in a terminal of its own; returns its exit code and what it wrote there, with every escape.
pub fn filmed(argv: &[String]) -> Result<(i32, String)> {
    let line = shlex::try_join(argv.iter().map(String::as_str))?;
    let sized = format!("stty cols {COLUMNS} rows {ROWS} && {line}");
    let output = Cmd::new(["script", "--quiet", "--return", "--flush", "--command", &sized, "/dev/null"])
        .env("TERM", "xterm-256color")
        .output()?;
    Ok((output.code, output.stdout))
}

/// The screen that somebody sees in the end, behind the line that was typed.
pub fn svg(prompt: &str, typed: &str, written: &str) -> Result<String> {
    let (Some(rows), Some(columns)) = (ROWS.try_into().ok(), COLUMNS.try_into().ok()) else {
        unreachable!("neither is zero");
    };
    let mut terminal = Parser::new(rows, columns, 0);
    terminal.process(format!("\x1b[36m{prompt}\x1b[0m {typed}\r\n{written}").as_bytes());
    let screen = terminal.screen();
    let lines: Vec<String> = (0..ROWS).map(|row| line(screen, row)).collect();
    let used = lines.iter().rposition(|line| !line.is_empty()).context("nothing was written")? + 1;
    ensure!(used < lines.len(), "the screen is too small for what was written");
    Ok(Term::new().min_width_px(0).render_svg(&lines[..used].join("\n")))
}

/// One row with its colours, as a terminal would be told to write it without moving about.
fn line(screen: &Screen, row: u16) -> String {
    let mut text = String::new();
    let mut style = String::new();
    let cells: Vec<&Cell> = (0..COLUMNS).filter_map(|column| screen.cell(row, column)).collect();
    let used = cells.iter().rposition(|cell| cell.has_contents()).map_or(0, |last| last + 1);
    for cell in cells.iter().take(used).filter(|cell| !cell.is_wide_continuation()) {
        let now = sgr(cell);
        if now != style {
            // Writing into a string cannot fail.
            let _ = write!(text, "\x1b[0{now}m");
            style = now;
        }
        text.push_str(if cell.has_contents() { cell.contents() } else { " " });
    }
    if !style.is_empty() {
        text.push_str("\x1b[0m");
    }
    text
}

/// Parameters that select how a cell looks.
fn sgr(cell: &Cell) -> String {
    let mut parameters = String::new();
    for (on, parameter) in [(cell.bold(), ";1"), (cell.dim(), ";2"), (cell.underline(), ";4")] {
        if on {
            parameters.push_str(parameter);
        }
    }
    let _ = match cell.fgcolor() {
        Color::Default => Ok(()),
        Color::Idx(index) => write!(parameters, ";38;5;{index}"),
        Color::Rgb(red, green, blue) => write!(parameters, ";38;2;{red};{green};{blue}"),
    };
    parameters
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_screen_is_shown_and_not_what_was_wiped() {
        let written = "waiting\r\x1b[2K\x1b[32mok\x1b[0m  all <well>\r\n";
        let svg = svg("$", "look", written).unwrap();
        assert!(svg.contains("look") && svg.contains("all &lt;well&gt;"), "{svg}");
        assert!(!svg.contains("waiting"), "{svg}");
        assert!(svg.contains("fg-ansi256-002") || svg.contains("fg-green"), "{svg}");
    }

    #[test]
    fn a_command_is_filmed_with_its_code_in_a_terminal_of_its_own() {
        let argv = ["sh", "-c", "test -t 1 && stty size && exit 7"].map(str::to_owned);
        assert_eq!(filmed(&argv).unwrap(), (7, "400 100\r\n".to_owned()));
    }
}
