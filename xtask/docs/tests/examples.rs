//! The help of every verb ends with examples, and what they show can be typed.
#![allow(clippy::unwrap_used, reason = "tests panic")]

use clap::{ArgMatches, Command};
use ua_common::cli;
use ua_common::settings::{Settings, Surroundings, table};

/// What every terminal has.
const COLUMNS: usize = 80;

/// Calls `look` with every command and verb, and the words by which each is called.
fn walk(command: &Command, path: &[String], look: &mut dyn FnMut(&Command, &[String])) {
    let path = [path, &[command.get_name().to_owned()]].concat();
    look(command, &path);
    for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help") {
        walk(verb, &path, look);
    }
}

fn every_command(look: &mut dyn FnMut(&Command, &[String])) {
    for mut command in ua_docs::commands() {
        command.build();
        walk(&command, &[], look);
    }
}

/// The lines below the last heading of the help, which is `Examples:`.
fn examples(command: &Command) -> Option<Vec<String>> {
    let help = command.get_after_help()?.to_string();
    let last = help.split("\n\n").last()?.strip_prefix("Examples:\n")?.to_owned();
    // What stands far right of the others goes on explaining.
    let lines = last.lines().filter(|line| line.starts_with("  ") && !line.starts_with("    "));
    // Explanations stand in a column of their own.
    Some(lines.filter_map(|line| Some(line.trim().split("  ").next()?.to_owned())).collect())
}

/// Every call of a tool in a line of a shell, a substitution within it too: its words.
fn calls(line: &str, tools: &[String]) -> Vec<Vec<String>> {
    let begins = |at: usize| at == 0 || line[..at].ends_with([' ', '(']);
    let starts = tools
        .iter()
        .flat_map(|tool| line.match_indices(&format!("{tool} ")).map(|(at, _)| at).collect::<Vec<_>>());
    let whole = tools.iter().filter(|tool| line.ends_with(&format!(" {tool}")) || line == **tool);
    let at_end = whole.map(|tool| line.len() - tool.len());
    let starts = starts.chain(at_end).filter(|at| begins(*at));
    starts.map(|at| shlex::split(until_operator(&line[at..])).unwrap()).collect()
}

/// A simple command: up to what a shell does not give to it.
fn until_operator(text: &str) -> &str {
    let mut quote = None;
    let end = text.char_indices().find(|(_, c)| {
        match (quote, c) {
            (None, '\'' | '"') => quote = Some(*c),
            (Some(open), c) if open == *c => quote = None,
            _ => {}
        }
        quote.is_none() && matches!(c, '|' | '&' | ';' | ')' | '<' | '>')
    });
    end.map_or(text, |(at, _)| &text[..at])
}

#[test]
fn a_call_is_found_wherever_a_shell_runs_it() {
    let tools = ["ua-a".to_owned(), "ua-b".to_owned()];
    let words = |line: &str| calls(line, &tools).into_iter().map(|call| call.join("·")).collect::<Vec<_>>();
    assert_eq!(words("ua-a"), ["ua-a"]);
    assert_eq!(words("X=1 ua-a --x 'a | b' | jq . >f"), ["ua-a·--x·a | b"]);
    assert_eq!(words("eval \"$(ua-b env -q)\" && ua-a run"), ["ua-a·run", "ua-b·env·-q"]);
    assert_eq!(words("not-ua-a x; /opt/ua-b y"), [""; 0]);
}

/// The words of the verbs that these arguments are of.
fn verbs(matches: &ArgMatches) -> Vec<String> {
    let mut words = Vec::new();
    let mut at = matches;
    while let Some((verb, behind)) = at.subcommand() {
        words.push(verb.to_owned());
        at = behind;
    }
    words
}

#[test]
fn the_help_of_every_verb_ends_with_examples_of_it_that_can_be_typed() {
    let tools: Vec<String> = ua_docs::commands().iter().map(|tool| tool.get_name().to_owned()).collect();
    let around = Surroundings::of_process().unwrap();
    let mut looked = 0;
    every_command(&mut |command, path| {
        looked += 1;
        let name = path.join(" ");
        let lines =
            examples(command).unwrap_or_else(|| panic!("the help of `{name}` does not end with examples"));
        let mut of_it = 0;
        for line in &lines {
            let calls = calls(line, &tools);
            assert!(!calls.is_empty(), "`{name}`: no call of a tool in `{line}`");
            for call in calls {
                let tool = ua_docs::tools().into_iter().find(|tool| tool.name == call[0]).unwrap();
                let matches = cli::with_common(tool.command)
                    .try_get_matches_from(&call)
                    .unwrap_or_else(|error| panic!("`{name}`: `{line}`: {error}"));
                Settings::resolve(&[table::typed(&matches), (tool.layer)(&matches)], &around)
                    .unwrap_or_else(|error| panic!("`{name}`: `{line}`: {error}"));
                let called = [vec![call[0].clone()], verbs(&matches)].concat();
                of_it += usize::from(called.starts_with(path) && line.starts_with(&call[0]));
            }
        }
        assert!(of_it >= 2, "the help of `{name}` shows {of_it} calls of it, not two");
    });
    assert!(looked > 50, "{looked}");
}

#[test]
fn the_help_of_every_verb_fits_the_narrowest_terminal() {
    every_command(&mut |command, path| {
        let name = path.join(" ");
        // What is laid out by hand would be broken anywhere.
        for line in command.get_after_help().unwrap().to_string().lines() {
            assert!(line.chars().count() <= COLUMNS, "`{name}`: {line}");
        }
        let help = command.clone().term_width(COLUMNS).render_long_help().to_string();
        for line in help.lines() {
            assert!(line.chars().count() <= COLUMNS, "`{name}`: {line}");
            // A name or a default stands beside what says that it is one.
            assert!(!line.ends_with("[env:") && !line.ends_with("[default:"), "`{name}`: {line}");
        }
    });
}

#[test]
fn arguments_that_all_tools_share_stand_below_those_of_a_verb() {
    every_command(&mut |command, path| {
        let help = command.clone().render_help().to_string();
        let options = help.split("Options:\n").nth(1).unwrap().split("\n\n").next().unwrap();
        let common = ["--color", "--json", "--quiet", "--verbose", "--help", "--version"];
        let flags = options.lines().filter_map(|line| {
            let words =
                line.strip_prefix("  ").filter(|line| line.starts_with("    --") || line.starts_with('-'))?;
            words.split([' ', ',', '=', '[', '.']).find(|word| word.starts_with("--"))
        });
        let shared: Vec<bool> = flags.map(|flag| common.contains(&flag)).collect();
        assert!(shared.len() > 4, "{options}");
        assert!(shared.is_sorted(), "{}: {options}", path.join(" "));
    });
}
