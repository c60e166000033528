//! A report, and what is drawn while it is waited for, on a terminal.
#![cfg(test)]
#![allow(clippy::unwrap_used, reason = "tests panic")]

use ua_tests::{Place, terminal};

const BIN: &str = env!("CARGO_BIN_EXE_ua-preflight");

#[test]
fn a_report_fits_the_terminal_and_goes_unbroken_into_a_pipe() {
    let place = Place::new();
    place.tailscale("healthy");
    let mut command = place.run(BIN);
    // Refused, with the replacement as its hint.
    command.arg("root@203.0.113.99");
    let seen = terminal::run(&command, 80);
    assert_eq!(seen.code, Some(14), "{}", seen.raw);
    let lines = seen.lines();
    assert_eq!(seen.wider_than(80), [""; 0]);
    assert!(lines.iter().all(|line| line == line.trim_end()), "{lines:?}");
    let whole = command.output().unwrap();
    let (out, err) = (String::from_utf8(whole.stdout).unwrap(), String::from_utf8(whole.stderr).unwrap());
    assert!(out.lines().chain(err.lines()).any(|line| line.len() > 80), "the test shows nothing: {out}{err}");
    assert!(lines.len() > out.lines().count(), "{lines:?}");
    for word in out.split_whitespace() {
        assert!(lines.iter().any(|line| line.contains(word)), "`{word}` was cut: {lines:?}");
    }
}

#[test]
fn what_is_drawn_while_it_waits_has_the_colours_of_the_rest_and_is_not_for_a_dumb_terminal() {
    let place = Place::new();
    place.program("tailscale", "#!/bin/sh\nsleep 1.5\nexit 1\n");
    let seen = |args: &[&str], term: &str| {
        let mut command = place.run(BIN);
        command.args(args).env("TERM", term);
        terminal::run(&command, 80).raw
    };
    let (dumb, never, auto) = std::thread::scope(|scope| {
        let dumb = scope.spawn(|| seen(&[], "dumb"));
        let never = scope.spawn(|| seen(&["--color", "never"], "xterm"));
        (dumb.join().unwrap(), never.join().unwrap(), seen(&[], "xterm"))
    });
    assert!(!dumb.contains(['\u{1b}', '\r']) && !dumb.contains("asking"), "{dumb:?}");
    assert!(never.contains("asking tailscaled"), "{never:?}");
    let colours = |raw: &str| {
        raw.split("\u{1b}[")
            .skip(1)
            .any(|rest| rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';').starts_with('m'))
    };
    assert!(!colours(&never), "{never:?}");
    assert!(colours(&auto), "{auto:?}");
    // The last that was drawn is what clears its line.
    let (drawn, report) = never.split_once("ok   tailscale.installed").unwrap();
    assert!(drawn.ends_with("\r\u{1b}[2K"), "{drawn:?}");
    assert!(!report.contains("asking"), "{report:?}");
}
