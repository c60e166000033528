//! The completions of the package, as a shell finds them.
#![cfg(test)]
#![allow(clippy::unwrap_used, reason = "tests panic")]

use std::collections::BTreeMap;
use std::path::Path;

use clap::Command;
use ua_tests::Place;

/// What each shell does on TAB behind `TOOL pull x`, with its files of the package below `$1`.
const SHELLS: [(&str, &[&str], &str, &str); 3] = [
    (
        "bash",
        &["--norc"],
        "1",
        r#"dir=$0 tool=$1
        source "$dir/usr/share/bash-completion/completions/$tool"
        asked=$(complete -p "$tool" | sed 's/.*-F \([^ ]*\).*/\1/')
        COMP_WORDS=("$tool" pull x) COMP_CWORD=2
        $asked "$tool" x pull; echo "${COMPREPLY[*]}""#,
    ),
    (
        "fish",
        &["--no-config"],
        "1",
        r#"source "$argv[1]/usr/share/fish/vendor_completions.d/$argv[2].fish"
        complete -C "$argv[2] pull x""#,
    ),
    (
        "zsh",
        &["-f"],
        // zsh reads the file at its first call, and has the function from then on.
        "2",
        r#"dir=$0 tool=$1
        fpath=("$dir/usr/share/zsh/vendor-completions" $fpath)
        autoload -Uz compinit && compinit -D -u
        _describe() { print -l -- ${(P)3} }
        words=("$tool" pull x) CURRENT=3
        $_comps[$tool]; $_comps[$tool]"#,
    ),
];

#[test]
fn every_shell_finds_every_tool_and_asks_it() {
    let place = Place::new();
    let root = place.home();
    ua_docs::write_completions(&root).unwrap();
    for command in ua_docs::commands() {
        let tool = command.get_name();
        // Says which shell asked it, and what.
        place.program(tool, "#!/bin/sh\nIFS=/\necho \"$UA_COMPLETE/$*\"\n");
        for (shell, norc, times, script) in SHELLS {
            let mut run = place.run(shell);
            run.args(norc).args(["-c", script]).args([root.as_os_str(), tool.as_ref()]);
            let output = run.output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            let expected = format!("{shell}/--/{tool}/pull/x\n").repeat(times.parse().unwrap());
            // fish gives the word that is being typed as the last one.
            assert_eq!(said, expected, "{output:?}");
        }
    }
}

#[test]
fn what_is_hidden_is_not_offered() {
    fn look(top: &mut Command, words: &[String], verb: &Command, seen: &mut BTreeMap<String, bool>) {
        let asked = words.iter().map(String::as_str).chain(["--"]).map(Into::into).collect();
        let offered = clap_complete::engine::complete(top, asked, words.len(), Some(Path::new("/"))).unwrap();
        for arg in verb.get_arguments().filter(|arg| arg.get_long().is_some()) {
            let long = format!("--{}", arg.get_long().unwrap());
            let is = offered.iter().any(|it| it.get_value() == &*long);
            assert_eq!(is, !arg.is_hide_set(), "{words:?} {long}");
            seen.insert(long, is);
        }
        for verb in verb.get_subcommands() {
            look(top, &[words, &[verb.get_name().to_owned()]].concat(), verb, seen);
        }
    }
    let mut seen = BTreeMap::new();
    for mut command in ua_docs::commands() {
        command.build();
        look(&mut command.clone(), &[command.get_name().to_owned()], &command, &mut seen);
    }
    assert_eq!((seen["--break-glass"], seen["--old-spelling"]), (true, false));
}
