//! What a person sees on a terminal, and that a program does not see it.
#![cfg(test)]
#![allow(clippy::unwrap_used, reason = "tests panic")]

use ua_tests::Place;
use ua_tests::terminal::{self, Seen};

const BIN: &str = env!("CARGO_BIN_EXE_ua-vpsctl");

/// `settings` needs nobody, and has a table that is wider than 80 columns.
fn settings(place: &Place, args: &[&str]) -> assert_cmd::Command {
    let mut command = place.run(BIN);
    command.arg("settings").args(args);
    command
}

fn on_terminal(command: &assert_cmd::Command, columns: u16) -> Seen {
    let seen = terminal::run(command, columns);
    assert_eq!(seen.wider_than(columns.into()), [""; 0]);
    // clap parts paragraphs by blanks.
    let trailing = |line: &String| !line.trim().is_empty() && line != line.trim_end();
    assert!(!seen.lines().iter().any(trailing), "{:?}", seen.lines());
    seen
}

fn piped(mut command: assert_cmd::Command) -> String {
    String::from_utf8(command.output().unwrap().stdout).unwrap()
}

#[test]
fn a_table_fits_the_terminal_and_goes_whole_into_a_pipe() {
    let place = Place::new();
    let (url, key) =
        ("https://api.clearspringcg.com/api/v1/ops/deployment/profile", "public.ops_profile_url");
    let narrow = on_terminal(&settings(&place, &[]), 80).lines();
    let row = narrow.iter().find(|line| line.starts_with(key)).unwrap();
    assert!(
        row.contains("https://api.clearspringcg.com/") && row.contains('…') && row.ends_with("default"),
        "{row}"
    );

    let whole = piped(settings(&place, &[]));
    let row = whole.lines().find(|line| line.starts_with(key)).unwrap();
    assert!(row.len() > 80 && row.contains(url), "{row}");
    assert_eq!(on_terminal(&settings(&place, &[]), 200).lines(), whole.lines().collect::<Vec<_>>());
    for format in ["tsv", "json", "ids"] {
        let args = ["--format", format];
        let seen = terminal::run(&settings(&place, &args), 80);
        assert_eq!(seen.lines().join("\n") + "\n", piped(settings(&place, &args)), "{format}");
        assert!(seen.is_plain());
    }
}

#[test]
fn colour_is_for_whoever_sees_it_and_does_not_mind() {
    let place = Place::new();
    let seen = |args: &[&str], env: &[(&str, &str)]| {
        let mut command = settings(&place, args);
        command.envs(env.iter().copied());
        on_terminal(&command, 80)
    };
    let head = |seen: &Seen| seen.raw.lines().next().unwrap().to_owned();
    assert!(head(&seen(&[], &[])).starts_with("\u{1b}[1mKEY"), "the heading stands out");
    assert_eq!(seen(&[], &[]).raw.matches('\u{1b}').count(), 2, "and nothing else");
    for (args, env) in [
        (&[][..], ("NO_COLOR", "1")),
        (&[], ("TERM", "dumb")),
        (&["--color", "never"], ("TERM", "xterm")),
        // Help and mistakes are told by others, who have to obey as well.
        (&["--color", "never", "--help"], ("TERM", "xterm")),
        (&["--color=never", "--bogus"], ("TERM", "xterm")),
        (&["--color=never", "--host", "nobody"], ("TERM", "xterm")),
        (&["--help"], ("NO_COLOR", "1")),
        (&["--host", "nobody"], ("NO_COLOR", "1")),
    ] {
        let seen = seen(args, &[env]);
        assert!(seen.is_plain() && !seen.raw.is_empty(), "{args:?} {env:?}: {:?}", seen.raw);
    }
    for args in [&["--help"][..], &["--bogus"], &["--host", "nobody"]] {
        assert!(!seen(args, &[("TERM", "xterm")]).is_plain(), "{args:?}");
    }
    assert!(!piped(settings(&place, &[])).contains('\u{1b}'));
    for args in [&["--color", "always"][..], &["--color=always", "--help"]] {
        assert!(piped(settings(&place, args)).contains('\u{1b}'), "{args:?}");
    }
}

#[test]
fn help_and_errors_fit_a_narrow_terminal_and_are_not_stretched_over_a_wide_one() {
    let place = Place::new();
    let help = |columns| on_terminal(&settings(&place, &["-h"]), columns);
    help(80);
    let wide = help(200);
    assert_eq!(wide.wider_than(100), [""; 0]);
    assert_ne!(wide.wider_than(80), [""; 0], "there is room");

    let mut command = place.run(BIN);
    command.args(["settings", "--host", "root@a-name-that-is-not-allowed.example.com", "--break-glass"]);
    command.env("UA_SSH_AUTH_MODE", "a-mode-that-is-none");
    let seen = on_terminal(&command, 80);
    assert_eq!(seen.code, Some(2));
    let lines = seen.lines();
    assert!(
        lines.len() > 1 && lines[0].starts_with("error: ") && lines[1].starts_with("       "),
        "{lines:?}"
    );
}
