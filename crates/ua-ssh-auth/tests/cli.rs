//! The binary by itself: a replayed tailnet whose VPS is a real sshd on loopback, and real ssh.
#![allow(clippy::unwrap_used, reason = "tests panic")]

use std::path::{Path, PathBuf};
use std::process::Output;

use ua_tests::Place;
use ua_tests::sshd::{Sshd, keygen};

const BIN: &str = env!("CARGO_BIN_EXE_ua-ssh-auth");
const TARGET: &str = "root@srv1360701.taildcc090.ts.net";

/// A place with a key of its own, and a VPS on loopback that lets it in.
struct Vps {
    place: Place,
    sshd: Sshd,
    port: String,
}

impl Vps {
    fn new() -> Self {
        let (place, sshd) = (Place::new(), Sshd::start(""));
        place.tailscale_with_vps("127.0.0.1", &[&sshd.host_key()]);
        let port = sshd.port.to_string();
        let vps = Self { place, sshd, port };
        vps.key("home/.ssh/id_ed25519");
        vps
    }

    /// A copy of the key that the sshd lets in.
    fn key(&self, path: &str) -> PathBuf {
        let key = self.place.file(path, std::fs::read(self.sshd.key()).unwrap());
        ua_tests::mode(&key, 0o600);
        key
    }

    fn run(&self, args: &[&str]) -> Output {
        self.with(args, &[])
    }

    fn with(&self, args: &[&str], env: &[(&str, &str)]) -> Output {
        let mut command = self.place.run(BIN);
        command.args(args).env("UA_SSH_KEYS_PORT", &self.port).envs(env.iter().copied());
        command.output().unwrap()
    }

    fn state(&self, name: &str) -> PathBuf {
        self.place.home().join(".local/state/ua").join(name)
    }

    fn shown(&self, output: &Output) -> String {
        self.place.shown(output)
    }
}

#[track_caller]
fn exits(output: &Output, code: i32) -> (String, String) {
    assert_eq!(output.status.code(), Some(code), "{}", ua_tests::shown(output));
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(&output.stdout), text(&output.stderr))
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", ua_tests::shown(output)))
}

/// Verdict of a check of a JSON report.
fn verdict(report: &serde_json::Value, id: &str) -> String {
    let checks = report["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["id"] == id);
    check.unwrap_or_else(|| panic!("no check {id}: {report:#}"))["verdict"].as_str().unwrap().to_owned()
}

#[test]
fn help_and_bad_words_ask_nobody() {
    let vps = Vps::new();
    exits(&vps.run(&["--help"]), 0);
    exits(&vps.run(&["canary", "--help"]), 0);
    exits(&vps.run(&[]), 2);
    exits(&vps.run(&["chek"]), 2);
    exits(&vps.run(&["check", "--mode", "password"]), 2);
    exits(&vps.run(&["check", "--mode", "keys", "--both"]), 2);
    exits(&vps.run(&["cutover", "--auth-mode", "keys"]), 2);
    let (_, said) = exits(&vps.with(&["check"], &[("UA_SSH_AUTH_MODE", "tailscale-ssh")]), 2);
    assert!(said.contains("UA_SSH_AUTH_MODE: `tailscale-ssh` is not"), "{said}");
    assert_eq!(vps.place.tailscale_calls(), [""; 0]);
    assert!(!vps.state("").exists(), "state was made");
}

#[test]
fn p47_a_host_that_looks_like_an_option_is_refused() {
    let vps = Vps::new();
    for host in ["-oProxyCommand=touch pwned", "root@-oProxyCommand=x", "root@vps\n.ts.net"] {
        for verb in ["check", "args", "canary", "show"] {
            let (_, said) = exits(&vps.run(&[verb, "--host", host]), 2);
            assert!(said.contains("--host"), "{said}");
        }
    }
    assert_eq!((vps.place.tailscale_calls().len(), vps.sshd.logins()), (0, 0));
}

#[test]
fn check_proves_the_named_key() {
    let vps = Vps::new();
    let report = json(&vps.run(&["check", "--json"]));
    assert_eq!(report["exit_code"], 0, "{report:#}");
    for id in ["keys.connect", "keys.proof", "keys.exec"] {
        assert_eq!(verdict(&report, id), "pass", "{report:#}");
    }
    assert_eq!(report["data"]["keys"]["method"], "publickey");
    assert_eq!(vps.sshd.logins(), 1, "one connection");
    // A mode in any case is that mode.
    let report = json(&vps.run(&["check", "--mode", "KEYS", "--json"]));
    assert_eq!(report["data"]["proved"], serde_json::json!(["keys"]), "{report:#}");
    let report = json(&vps.run(&["check", "--both", "--json", "--keys-port", "1"]));
    assert_eq!((verdict(&report, "keys.connect"), &report["exit_code"]), ("fail".to_owned(), &20.into()));
}

/// What is offered by an agent must not pass for the key that is named.
#[test]
fn p57_an_agent_cannot_stand_in_for_the_named_key() {
    let vps = Vps::new();
    let stranger = vps.place.home().join("stranger");
    keygen(&stranger);
    let socket = vps.place.home().join("agent");
    let mut agent = std::process::Command::new("ssh-agent");
    let mut agent =
        agent.args(["-D", "-a"]).arg(&socket).stdout(std::process::Stdio::null()).spawn().unwrap();
    let start = std::time::Instant::now();
    while !socket.exists() {
        assert!(start.elapsed().as_secs() < 10, "no agent");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let socket = socket.to_str().unwrap();
    let add = std::process::Command::new("ssh-add").arg(vps.sshd.key()).env("SSH_AUTH_SOCK", socket).output();
    assert!(add.unwrap().status.success());
    let env = [("SSH_AUTH_SOCK", socket)];
    let named = vps.with(&["check", "--ssh-key", stranger.to_str().unwrap()], &env);
    let asked = vps.with(&["check", "--ssh-key", "agent"], &env);
    agent.kill().unwrap();
    agent.wait().unwrap();
    let (_, said) = exits(&named, 21);
    assert!(said.contains("keys.connect") && said.contains("Permission denied"), "{said}");
    let (out, _) = exits(&asked, 0);
    assert!(out.contains("keys.proof"), "{out}");
}

#[test]
fn args_rsh_and_env_are_one_word_that_needs_no_quoting() {
    let vps = Vps::new();
    let key = vps.key("home/a b'c\"$d");
    let key = key.to_str().unwrap();
    let (args, said) = exits(&vps.run(&["args", "--ssh-key", key]), 0);
    assert_eq!(said, "");
    let args = args.strip_suffix('\n').unwrap();
    let config = args.strip_prefix("-F").unwrap();
    assert_eq!(Path::new(config).parent().unwrap(), vps.state("ssh_config"));
    assert!(config.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte)), "{config}");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(config).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);

    let (rsh, _) = exits(&vps.run(&["rsh", "--ssh-key", key]), 0);
    assert_eq!(rsh, format!("ssh {args}\n"));
    let (env, _) = exits(&vps.run(&["env", "--ssh-key", key]), 0);
    assert_eq!(
        env,
        format!(
            "export UA_VPS_HOST='{TARGET}';\nexport UA_SSH_ARGS='{args}';\nexport UA_SSH_RSH='ssh {args}';\n"
        )
    );
    let report = json(&vps.run(&["args", "--ssh-key", key, "--json"]));
    assert_eq!(report["data"]["args"], args);

    let ssh = |host: &str| {
        vps.place.run("ssh").args([args, host, "echo $SSH_CONNECTION; exit 7"]).output().unwrap()
    };
    let (out, _) = exits(&ssh(TARGET), 7);
    assert!(out.starts_with("127.0.0.1 "), "{out}");
    // Not another host by ssh's own defaults.
    let (_, said) = exits(&ssh("root@elsewhere.invalid"), 255);
    assert!(said.contains("this configuration is for srv1360701.taildcc090.ts.net only"), "{said}");
    assert_eq!(vps.sshd.logins(), 1);
}

/// A script that does not look at exit codes must not go on with ssh's own defaults.
#[test]
fn args_that_cannot_be_given_close_the_way() {
    let vps = Vps::new();
    let closed = |verb: &str, args: &[&str], env: &[(&str, &str)], code| {
        let typed: Vec<&str> = [verb].iter().chain(args).copied().collect();
        let (out, said) = exits(&vps.with(&typed, env), code);
        assert!(said.starts_with("error: "), "{said}");
        assert!(out.contains("-F/nonexistent/ua-ssh-auth-failed"), "{verb}: {out}");
        out
    };
    closed("args", &["--ssh-key", "/no/such/key"], &[], 2);
    closed("rsh", &[], &[("UA_SSH_AUTH_MODE", "bogus")], 2);
    closed("env", &["--host", "root@203.0.113.1"], &[], 14);
    closed("args", &[], &[("XDG_STATE_HOME", "/dev/null/x")], 2);
    vps.place.tailscale("daemon-stopped");
    let args = closed("args", &[], &[], 11);
    let ssh = vps.place.run("ssh").args([args.trim(), TARGET, "true"]).output().unwrap();
    let (_, said) = exits(&ssh, 255);
    assert!(said.contains("Can't open user config file"), "{said}");
    closed("args", &["--bogus"], &[], 2);
    // Blanks in the way to our state cannot be quoted by whoever calls.
    vps.place.tailscale_with_vps("127.0.0.1", &[&vps.sshd.host_key()]);
    let odd = vps.place.home().join("a b");
    closed("args", &[], &[("XDG_STATE_HOME", odd.to_str().unwrap())], 2);
}

#[test]
fn a_changed_host_key_is_somebodys_decision() {
    let vps = Vps::new();
    exits(&vps.run(&["check"]), 0);
    let (known, _) = exits(&vps.run(&["known-hosts", "--print"]), 0);
    assert_eq!(known, format!("srv1360701.taildcc090.ts.net {}\n", vps.sshd.host_key()));

    let other = Sshd::start("");
    vps.place.tailscale_with_vps("127.0.0.1", &[&other.host_key()]);
    for verb in ["check", "args", "known-hosts", "canary"] {
        let (_, said) = exits(&vps.run(&[verb]), 23);
        assert!(said.contains("gives other host keys") && said.matches("SHA256:").count() >= 2, "{said}");
        assert!(said.contains("ua-ssh-auth known-hosts --refresh"), "{said}");
    }
    exits(&vps.run(&["known-hosts", "--refresh", "--dry-run"]), 0);
    exits(&vps.run(&["known-hosts", "--accept"]), 23);
    let (out, _) = exits(&vps.run(&["known-hosts", "--refresh"]), 0);
    assert!(out.contains("gave way to those of the tailnet"), "{out}");
    // The tailnet's word is taken now; the server that shows the old key is not believed.
    let (_, said) = exits(&vps.run(&["check"]), 23);
    assert!(said.contains("is another one") && said.matches("SHA256:").count() >= 2, "{said}");
    assert_eq!(vps.sshd.logins(), 1);
}

#[test]
fn what_a_hostile_tailnet_gives_is_not_written_down() {
    let vps = Vps::new();
    let key = vps.sshd.host_key();
    for evil in [format!("{key}\n* {key}"), format!("cert-authority {key}"), "-oProxyCommand=x".to_owned()] {
        vps.place.tailscale_with_vps("127.0.0.1", &[&key, &evil]);
        let (_, said) = exits(&vps.run(&["check"]), 23);
        assert!(said.contains("that is none"), "{said}");
        assert!(!vps.state("known_hosts").exists());
    }
    assert_eq!(vps.sshd.logins(), 0);
}

/// Names that a tailnet gives end up in files and on command lines.
#[test]
fn what_a_hostile_tailnet_is_called_is_not_written_down() {
    let vps = Vps::new();
    let status = std::fs::read_to_string(vps.place.home().parent().unwrap().join("status.json")).unwrap();
    for evil in ["x\\n* ssh-rsa AAAA", "-oProxyCommand=x", "a b", "$(reboot)"] {
        vps.place.file("status.json", status.replace("taildcc090.ts.net", evil));
        for verb in ["check", "args", "known-hosts", "canary"] {
            let output = vps.run(&[verb, "--host", "root@srv1360701"]);
            let (_, said) = exits(&output, 14);
            assert!(said.contains("which is no host name"), "{said}");
        }
    }
    assert!(!vps.state("known_hosts").exists() && !vps.state("ssh_config").exists());
    assert_eq!(vps.sshd.logins(), 0);
}

#[test]
fn show_says_who_decided_and_contacts_nobody() {
    let vps = Vps::new();
    let shown = vps.shown(&vps.run(&["show", "--keys-port", "2222"]));
    insta::assert_snapshot!(shown);
    let (out, _) = exits(&vps.with(&["show"], &[("UA_SSH_AUTH_MODE", "tailscale_ssh")]), 0);
    assert!(out.contains("`tailscale_ssh` (UA_SSH_AUTH_MODE)") && out.contains("port 22, which"), "{out}");
    vps.place.tailscale("daemon-stopped");
    let (out, _) = exits(&vps.run(&["show"]), 0);
    assert!(out.contains("warn tailscale.daemon"), "{out}");
    assert_eq!(vps.sshd.logins(), 0);
}

#[test]
fn a_proposed_command_is_about_the_target_that_was_typed() {
    let vps = Vps::new();
    let typed = ["cutover", "--host", "root@127.0.0.9", "--break-glass"];
    let expected = "UA_VPS_HOST=root@127.0.0.9 UA_BREAK_GLASS=true ua-ssh-auth status";
    let (_, said) = exits(&vps.run(&typed), 1);
    assert!(said.contains(&format!("hint: {expected}")), "{said}");
    let report = json(&vps.run(&[&typed[..], &["--json"]].concat()));
    let hints = report["checks"].as_array().unwrap().iter().filter_map(|check| check["hint"].as_str());
    assert!(hints.clone().any(|hint| hint.starts_with(expected)), "{report}");
    let (_, said) = exits(&vps.run(&["cutover"]), 1);
    assert!(said.contains("hint: ua-ssh-auth status"), "{said}");
}

/// Lines of canaries that passed, every eight hours for as many days, the last one an hour ago.
fn canaries(days: i64) -> String {
    let line = |hours: i64| {
        let at = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second() - hours * 3600).unwrap();
        format!(
            r#"{{"schema":"ua.ssh-auth/1","at":"{at}","target":"{TARGET}","who":"op@laptop","event":"canary","verdict":"pass","exit_code":0,"duration_ms":9,"versions":{{"ua":"0.1.0","tailscale":"1","ssh":"9","server":"Tailscale"}},"steps":[]}}"#
        ) + "\n"
    };
    (0..=days * 3).rev().map(|n| line(1 + n * 8)).collect()
}

#[test]
fn status_adds_up_what_can_be_believed() {
    let vps = Vps::new();
    let (out, _) = exits(&vps.run(&["status"]), 0);
    assert!(out.contains("warn rule.days") && out.contains("no canary yet"), "{out}");
    let good = canaries(8);
    let cut = &good[..80];
    vps.place.file("home/.local/state/ua/ssh-auth.jsonl", format!("{good}not ours\n{cut}"));
    let report = json(&vps.run(&["status", "--json"]));
    assert_eq!((&report["exit_code"], &report["lane"]), (&0.into(), &"local".into()));
    assert_eq!(report["data"]["rule"]["met"], true, "{report:#}");
    assert_eq!(verdict(&report, "ledger.lines"), "warn");
    assert_eq!(vps.place.tailscale_calls(), [""; 0]);
}

#[test]
fn cutover_is_refused_with_every_reason_and_changes_nothing() {
    let vps = Vps::new();
    let config = "# mine\n[ssh]\nauth_mode = \"keys\" # for now\n";
    let file = vps.place.file("home/.config/ua/ua.toml", config);
    vps.run(&["cutover", "--dry-run"]);
    assert!(!vps.state("ssh-auth.jsonl").exists(), "a dry run made a ledger");
    let report = json(&vps.run(&["cutover", "--json"]));
    assert_eq!(report["exit_code"], 1, "{report:#}");
    for (id, wanted) in [
        ("rule.days", "fail"),
        ("rule.runs", "fail"),
        ("keys.proof", "pass"),
        ("tailscale_ssh.connect", "fail"),
    ] {
        assert_eq!(verdict(&report, id), wanted, "{report:#}");
    }
    // The evidence alone is not enough: both ways in are proved now.
    vps.place.file("home/.local/state/ua/ssh-auth.jsonl", canaries(8));
    let report = json(&vps.run(&["cutover", "--json"]));
    assert_eq!(
        (verdict(&report, "rule"), verdict(&report, "tailscale_ssh.connect")),
        ("pass".into(), "fail".into())
    );
    assert_ne!(report["exit_code"], 0);

    let (_, said) = exits(&vps.with(&["cutover"], &[("UA_SSH_AUTH_MODE", "keys")]), 2);
    assert!(said.contains("`keys` by UA_SSH_AUTH_MODE"), "{said}");
    assert_eq!(std::fs::read_to_string(file).unwrap(), config);
    assert_eq!(std::fs::read_to_string(vps.state("ssh-auth.jsonl")).unwrap().lines().count(), 25);
}

#[test]
fn rollback_asks_nobody_and_keeps_the_rest_of_the_file() {
    let vps = Vps::new();
    vps.place.tailscale("daemon-stopped");
    let config = "# mine\n[ssh]\nauth_mode = \"tailscale_ssh\" # since May\nkeys_port = 2222\n";
    let real = vps.place.file("home/dotfiles/ua.toml", config);
    ua_tests::mode(&real, 0o640);
    std::fs::create_dir_all(vps.place.home().join(".config/ua")).unwrap();
    std::os::unix::fs::symlink(&real, vps.place.home().join(".config/ua/ua.toml")).unwrap();

    exits(&vps.run(&["rollback", "--dry-run"]), 0);
    assert_eq!(std::fs::read_to_string(&real).unwrap(), config);
    let (_, said) = exits(&vps.with(&["rollback"], &[("UA_SSH_AUTH_MODE", "tailscale_ssh")]), 2);
    assert!(said.contains("by UA_SSH_AUTH_MODE"), "{said}");

    exits(&vps.run(&["rollback"]), 0);
    assert_eq!(std::fs::read_to_string(&real).unwrap(), config.replace("\"tailscale_ssh\"", "\"keys\""));
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&real).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o640);
    let ledger = std::fs::read_to_string(vps.state("ssh-auth.jsonl")).unwrap();
    assert!(ledger.ends_with("\"event\":\"rollback\",\"from\":\"tailscale_ssh\"}\n"), "{ledger}");
    let (out, _) = exits(&vps.run(&["rollback"]), 0);
    assert!(out.contains("`keys` already"), "{out}");
    assert_eq!(vps.place.tailscale_calls(), [""; 0]);
}

#[test]
fn a_canary_that_could_not_be_recorded_is_not_made() {
    let vps = Vps::new();
    let (_, said) = exits(&vps.with(&["canary"], &[("XDG_STATE_HOME", "/dev/null/x")]), 2);
    assert!(said.contains("/dev/null/x"), "{said}");
    std::fs::create_dir_all(vps.state("ssh-auth.jsonl")).unwrap();
    let (_, said) = exits(&vps.run(&["canary"]), 2);
    assert!(said.contains("cannot write the ledger"), "{said}");
    assert_eq!(vps.place.tailscale_calls(), [""; 0]);
}

#[test]
fn a_canary_without_a_tailnet_is_no_failure_of_tailscale_ssh() {
    let vps = Vps::new();
    vps.place.tailscale("daemon-stopped");
    exits(&vps.run(&["canary"]), 11);
    let ledger = std::fs::read_to_string(vps.state("ssh-auth.jsonl")).unwrap();
    assert!(ledger.contains(r#""verdict":"skip","exit_code":11"#), "{ledger}");
    let report = json(&vps.run(&["status", "--json"]));
    assert_eq!(
        (&report["data"]["summary"]["failed"], &report["data"]["summary"]["skipped"]),
        (&0.into(), &1.into())
    );
    let before = ledger.len();
    exits(&vps.run(&["canary", "--dry-run"]), 0);
    assert_eq!(std::fs::read_to_string(vps.state("ssh-auth.jsonl")).unwrap().len(), before);
}
