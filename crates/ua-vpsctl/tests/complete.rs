//! What real shells offer behind a verb: words of this machine alone, nobody else is asked.
#![cfg(test)]
#![allow(clippy::unwrap_used, reason = "tests panic")]

use std::fs;

use ua_tests::Place;

const BIN: &str = env!("CARGO_BIN_EXE_ua-vpsctl");

/// How each shell is asked for what it offers behind the words of `$*`, the last of which is being typed; a line each.
const SHELLS: [(&str, &str); 3] = [
    (
        "bash",
        r#"source <(UA_COMPLETE=bash ua-vpsctl)
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
        _clap_complete_ua_vpsctl ua-vpsctl "${@: -1}" "${@: -2:1}"
        printf '%s\n' "${COMPREPLY[@]}""#,
    ),
    (
        "fish",
        r#"UA_COMPLETE=fish ua-vpsctl | source; complete -C "$argv" | string replace -r '\t.*' ''; true"#,
    ),
    (
        "zsh",
        r#"compdef() { }
        _describe() { print -l -- ${(P)3} }
        source <(UA_COMPLETE=zsh ua-vpsctl)
        words=("$@") CURRENT=$#
        _clap_dynamic_completer_ua_vpsctl | sed 's/:.*//'"#,
    ),
];

/// What all shells offer, which is the same.
fn offered(place: &Place, line: &[&str]) -> Vec<String> {
    let of = |(shell, script): (&str, &str)| -> Vec<String> {
        let mut command = place.run(shell);
        let norc: &[&str] = match shell {
            "bash" => &["--norc", "-c", script, shell],
            "zsh" => &["-f", "-c", script, shell],
            _ => &["--no-config", "-c", script],
        };
        let output = command.args(norc).args(line).output().unwrap();
        assert!(output.status.success(), "{shell}: {}", ua_tests::shown(&output));
        let lines = String::from_utf8(output.stdout).unwrap();
        lines.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
    };
    let [bash, fish, zsh] = SHELLS.map(of);
    assert_eq!(bash, fish);
    assert_eq!(bash, zsh);
    bash
}

fn place() -> Place {
    let place = Place::new();
    place.program("ua-vpsctl", &format!("#!/bin/sh\nexec '{BIN}' \"$@\"\n"));
    place.program("ssh", "#!/bin/sh\ntouch ~/asked\n");
    place
}

#[test]
fn units_by_the_words_that_mean_them() {
    let place = place();
    assert_eq!(offered(&place, &["ua-vpsctl", "restart", "g"]), ["gateway"]);
    assert_eq!(offered(&place, &["ua-vpsctl", "logs", "gateway", "-n", "5", "a"]), ["all", "api"]);
    let whole = offered(&place, &["ua-vpsctl", "status", "universal-agent-v"]);
    assert_eq!(whole[0], "universal-agent-vp-worker@vp.general.primary");
    assert_eq!(whole.len(), 2);
    assert_eq!(offered(&place, &["ua-vpsctl", "restart", "csi"]), ["csi-ingester"]);
    // Another app has other units.
    let built_in = include_str!("../../ua-common/profiles/universal-agent.toml");
    let profile =
        place.file("other.toml", built_in.replace("universal-agent-telegram", "universal-agent-gopher"));
    place.file("home/.config/ua/ua.toml", format!("[deploy]\nprofile = \"{}\"\n", profile.display()));
    assert_eq!(offered(&place, &["ua-vpsctl", "restart", "g"]), ["gateway", "gopher"]);
    // What is wrong with the settings is for the run to say.
    place.file("home/.config/ua/ua.toml", "no = ");
    assert_eq!(offered(&place, &["ua-vpsctl", "restart", "g"]).len(), 0);
    assert!(!place.home().join("asked").exists());
}

#[test]
fn sessions_that_the_mirror_has_and_nodes_of_the_tailnet() {
    let place = place();
    let mirror = place.home().join("mirror");
    for id in ["session_20260221_1", "session_20260222_1", ".ua-incoming", "tg_1"] {
        fs::create_dir_all(mirror.join(id)).unwrap();
    }
    fs::write(mirror.join("session_20260220_1"), "no directory").unwrap();
    place.file("home/.config/ua/ua.toml", format!("[sync]\nlocal_dir = \"{}\"\n", mirror.display()));
    let inspect = ["ua-vpsctl", "inspect", "se"];
    assert_eq!(offered(&place, &inspect), ["session_20260222_1", "session_20260221_1"]);

    let host = ["ua-vpsctl", "status", "--host", "r"];
    assert_eq!(offered(&place, &host).len(), 0, "there is no tailscale");
    place.tailscale("healthy");
    assert_eq!(offered(&place, &host), ["root@srv1360701.taildcc090.ts.net"]);
    assert_eq!(place.tailscale_calls(), ["status --json"; 3]);
    assert!(!place.home().join("asked").exists());
}

#[test]
fn flags_their_values_and_files() {
    let place = place();
    place.file("cwd/check.sh", "");
    assert_eq!(offered(&place, &["ua-vpsctl", "restart", "--dr"]), ["--dry-run"]);
    assert_eq!(offered(&place, &["ua-vpsctl", "doctor", "--staging", "r"]), ["required"]);
    assert_eq!(offered(&place, &["ua-vpsctl", "run-file", "ch"]), ["check.sh"]);
    assert_eq!(offered(&place, &["ua-vpsctl", "run-f"]), ["run-file"]);
}
