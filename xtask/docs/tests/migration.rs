//! What `docs/migration.md` says is so: old calls, through the shims, are the new ones beside them.
#![allow(clippy::unwrap_used, reason = "tests panic")]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::ArgMatches;
use clap::parser::ValueSource;
use ua_common::cli::{Tool, with_common};
use ua_common::exit::TABLE;

fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn document() -> String {
    std::fs::read_to_string(checkout().join("docs/migration.md")).unwrap()
}

/// What stands between backticks in a line.
fn spans(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// The rows of the tables of the section with this number, cell by cell.
fn rows(section: u8) -> Vec<Vec<String>> {
    let document = document();
    let (_, rest) = document.split_once(&format!("\n## {section}. ")).unwrap();
    let section = rest.split("\n## ").next().unwrap();
    let cells = |line: &str| line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect();
    section.lines().filter(|line| line.starts_with('|')).skip(2).map(cells).collect()
}

fn tool(name: &str) -> Option<Tool> {
    ua_docs::tools().into_iter().find(|tool| tool.name == name)
}

/// What is meant by this call, as the program takes it: its verbs, and every argument that was typed.
#[track_caller]
fn meaning(argv: Vec<OsString>) -> (Vec<String>, BTreeMap<String, Vec<OsString>>) {
    let name = argv[0].to_str().unwrap().to_owned();
    let tool = tool(&name).unwrap_or_else(|| panic!("no tool `{name}`"));
    let argv = (tool.legacy)(argv);
    let matches = with_common(tool.command).try_get_matches_from(&argv);
    let matches = matches.unwrap_or_else(|error| panic!("{argv:?}: {error}"));
    let (mut verbs, mut typed) = (vec![name], BTreeMap::new());
    let mut at: Option<&ArgMatches> = Some(&matches);
    while let Some(matches) = at {
        for id in
            matches.ids().filter(|id| matches.value_source(id.as_str()) == Some(ValueSource::CommandLine))
        {
            let values = matches.get_raw(id.as_str()).into_iter().flatten().map(OsString::from).collect();
            typed.insert(id.to_string(), values);
        }
        at = matches.subcommand().map(|(verb, behind)| {
            verbs.push(verb.to_owned());
            behind
        });
    }
    typed.remove("old-spelling");
    (verbs, typed)
}

fn words(line: &str) -> Vec<OsString> {
    shlex::split(line).unwrap().into_iter().map(OsString::from).collect()
}

#[test]
fn every_new_command_is_one() {
    let document = document();
    let commands = document.lines().filter(|line| !line.starts_with("```")).flat_map(spans);
    let commands: Vec<&str> =
        commands.filter(|span| tool(span.split(' ').next().unwrap_or_default()).is_some()).collect();
    assert!(commands.len() > 40, "{commands:?}");
    for command in commands {
        meaning(words(command));
    }
}

#[test]
fn every_old_command_is_the_new_one_beside_it() {
    // Programs that only tell what they were called with.
    let bin = tempfile::tempdir().unwrap();
    for name in ua_docs::commands().map(|command| command.get_name().to_owned()) {
        let program = bin.path().join(name);
        std::fs::write(&program, "#!/bin/sh\nprintf '%s\\n' \"${0##*/}\" \"$@\"\n").unwrap();
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    }
    let table = rows(2);
    assert!(table.len() > 25, "{table:?}");
    for row in table {
        let [old, new] = [&row[0], &row[1]].map(|cell| spans(cell).next().unwrap());
        let old: Vec<String> = old.split(' ').map(str::to_owned).collect();
        let shim = checkout().join("shims").join(&old[0]);
        let called = Command::new(&shim).args(&old[1..]).env("UA_BIN_DIR", bin.path()).output().unwrap();
        assert!(called.status.success(), "{old:?}: {called:?}");
        let argv = String::from_utf8(called.stdout).unwrap().lines().map(OsString::from).collect();
        assert_eq!(meaning(argv), meaning(words(new)), "{old:?} and `{new}`");
    }
}

#[test]
fn every_code_and_every_check_is_one() {
    for row in rows(3).iter().filter(|row| row[2] != "its own code, and the object says `\"ok\":false`") {
        let code: u8 = row[2].split([':', ';', ',', ' ']).next().unwrap().parse().unwrap();
        assert!(TABLE.iter().any(|row| row.code == code), "{row:?}");
    }
    let source = ["lib.rs", "public.rs"].map(|file| checkout().join("crates/ua-deploy/src").join(file));
    let source = source.map(|file| std::fs::read_to_string(file).unwrap()).concat();
    for row in rows(4).iter().filter(|row| row[2].starts_with("vps") || row[2].starts_with("public")) {
        let id = spans(&row[1]).next().unwrap();
        assert!(source.contains(&format!("\"{id}\"")), "no check `{id}`");
    }
}

#[test]
fn the_shims_are_put_in_place_as_it_says_and_the_old_scripts_are_there_for_the_way_back() {
    let document = document();
    let (_, rest) = document.split_once("```sh\ncd scripts\n").unwrap();
    let block = rest.split("```").next().unwrap();
    let block = block.replace("/usr/share/ua-tools/shims", checkout().join("shims").to_str().unwrap());
    let repo = tempfile::tempdir().unwrap();
    let scripts = repo.path().join("scripts");
    std::fs::create_dir(&scripts).unwrap();
    let names = ["sync_remote_workspaces", "pull_remote_workspaces_now"];
    for name in names {
        let script = scripts.join(format!("{name}.sh"));
        std::fs::write(&script, format!("#!/bin/sh\necho old {name} \"$@\"\n")).unwrap();
        std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
    }
    let put = Command::new("sh").args(["-ec", &block]).current_dir(&scripts).status().unwrap();
    assert!(put.success());
    // The tools are not there: the old script is called as it was.
    let bare = repo.path().join("bin");
    std::fs::create_dir(&bare).unwrap();
    std::os::unix::fs::symlink("/usr/bin/dirname", bare.join("dirname")).unwrap();
    for name in names {
        let shim = scripts.join(format!("{name}.sh"));
        assert!(std::fs::symlink_metadata(&shim).unwrap().is_file());
        let called = Command::new(&shim).arg("--once").env("PATH", &bare).env_remove("UA_BIN_DIR").output();
        let called = String::from_utf8(called.unwrap().stdout).unwrap();
        assert_eq!(called, format!("old {name} --once\n"));
    }
}
