//! The spelling of the four old scripts, for callers that are not migrated yet. Each is called through a shim of one
//! line, so an old call has no verb, or begins with `pull` or `timer`.

use std::ffi::OsString;

/// What marks a call in an old spelling: an address may stand for the name of the same peer there.
pub const OLD: &str = "old-spelling";

const VERBS: [&str; 9] = ["once", "watch", "status", "list", "pull", "prune", "adopt", "timer", "help"];

/// Old flags with a value, and what they are called now.
const VALUES: [(&str, &str); 20] = [
    ("--host", "--host"),
    ("--remote-dir", "--remote-dir"),
    ("--local-dir", "--local-dir"),
    ("--remote-artifacts-dir", "--remote-artifacts-dir"),
    ("--local-artifacts-dir", "--local-artifacts-dir"),
    ("--manifest-file", "--manifest-file"),
    ("--interval", "--interval"),
    ("--ssh-port", "--keys-port"),
    ("--ssh-auth-mode", "--auth-mode"),
    ("--ssh-key", "--ssh-key"),
    ("--session-id", "--session-id"),
    ("--prune-min-age-seconds", "--prune-min-age-seconds"),
    ("--gateway-url", "--gateway-url"),
    ("--ops-token", "--ops-token"),
    ("--remote-toggle-path", "--remote-toggle-path"),
    ("--ready-marker-name", "--ready-marker-name"),
    ("--ready-min-age-seconds", "--ready-min-age-seconds"),
    ("--ready-session-prefix", "--ready-session-prefix"),
    ("--service-name", "--service-name"),
    ("--state-dir", "--state-dir"),
];

/// Old flags that say which verb is meant.
const ONCE: &str = "--once";
const STATUS: &str = "--status-json";
/// What only a transfer needs, and a status ignores. The second word says whether a value follows.
const TRANSFER: [(&str, bool); 12] = [
    ("--session-id", true),
    ("--interval", true),
    ("--prune-min-age-seconds", true),
    ("--no-skip-synced", false),
    ("--include-runtime-db", false),
    ("--delete-remote-after-sync", false),
    ("--prune-remote-when-local-missing", false),
    ("--allow-remote-delete", false),
    ("--respect-remote-toggle", false),
    ("--ignore-remote-toggle", false),
    ("--no-artifacts", false),
    ("--no-delete", false),
];

/// Today's form of an old call; a call in today's form stays as it is.
pub fn rewrite(argv: Vec<OsString>) -> Vec<OsString> {
    let Some((program, words)) = argv.split_first() else { return argv };
    let first = words.first().and_then(|arg| arg.to_str()).unwrap_or_default();
    let (mut verb, rest): (Vec<&str>, &[OsString]) = match first {
        "-h" | "--help" | "-V" | "--version" => return argv,
        "pull" => (vec!["pull"], &words[1..]),
        "timer" => match words.get(1).and_then(|arg| arg.to_str()) {
            Some("sync-now") => (vec!["once"], &words[2..]),
            Some("on") if words.iter().any(|arg| arg == "--uninstall") => (vec!["timer", "off"], &words[2..]),
            Some(action @ ("on" | "off" | "toggle" | "status")) => (vec!["timer", action], &words[2..]),
            _ => return argv,
        },
        // A mistyped verb is for the parser to refuse.
        first if !first.is_empty() && !first.starts_with('-') && !VERBS.contains(&first) => return argv,
        first if VERBS.contains(&first) => return status_object(argv),
        // Flags that all tools share may stand before the verb.
        _ if words.iter().any(|arg| arg.to_str().is_some_and(|arg| VERBS.contains(&arg)))
            && !is_old(first) =>
        {
            return status_object(argv);
        }
        _ => (vec!["watch"], words),
    };
    // The id comes first and is whatever somebody sent: it must not become a flag with a value.
    let id = rest.first().filter(|_| verb == ["pull"]).filter(|arg| {
        let text = arg.to_string_lossy();
        text != "-h" && (!text.starts_with("--") || text.contains('='))
    });
    let rest = if id.is_some() { &rest[1..] } else { rest };
    if rest.iter().any(|arg| arg == STATUS) {
        verb = vec!["status"];
    } else if verb == ["watch"] && rest.iter().any(|arg| arg == ONCE) {
        verb = vec!["once"];
    }
    let mut new: Vec<OsString> = vec![program.clone()];
    new.extend(verb.iter().map(OsString::from));
    new.push(format!("--{OLD}").into());
    let flags = flags(rest, verb == ["status"], verb == ["once"]);
    if verb == ["status"] {
        new.push("--object".into());
    }
    new.extend(flags);
    if let Some(id) = id.filter(|_| verb == ["pull"]) {
        // Behind the end of all flags.
        new.push("--".into());
        new.push(id.clone());
    }
    new
}

/// `status --json` prints an object of its own shape, under every failure, too.
fn status_object(argv: Vec<OsString>) -> Vec<OsString> {
    let position = argv.iter().position(|arg| arg == "status");
    if !position.is_some_and(|at| argv[1..at].iter().all(|arg| arg.to_string_lossy().starts_with('-'))) {
        return argv;
    }
    argv.into_iter().map(|arg| if arg == "--json" { "--object".into() } else { arg }).collect()
}

fn is_old(first: &str) -> bool {
    first == ONCE || first == STATUS || VALUES.iter().any(|(old, _)| *old == first)
}

fn flags(rest: &[OsString], status: bool, once: bool) -> Vec<OsString> {
    let mut new = Vec::new();
    let mut rest = rest.iter();
    while let Some(arg) = rest.next() {
        let text = arg.to_string_lossy();
        if text == ONCE || text == STATUS || text == "--uninstall" || (status && text == "--json") {
            continue;
        }
        if status && let Some((_, valued)) = TRANSFER.iter().find(|(flag, _)| *flag == text) {
            if *valued {
                rest.next();
            }
            continue;
        }
        let Some((_, now)) = VALUES.iter().find(|(old, _)| *old == text) else {
            new.push(arg.clone());
            continue;
        };
        let value = rest.next();
        // One run has no units.
        if once && text == "--service-name" {
            continue;
        }
        let unset = value.is_some_and(|value| value.is_empty() || (text == "--ssh-port" && value == "22"));
        if !unset {
            new.push(now.into());
            new.extend(value.cloned());
        }
    }
    new
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(words: &str) -> String {
        let argv = std::iter::once("ua-sync").chain(words.split(' ').filter(|word| !word.is_empty()));
        let argv = argv.map(|word| OsString::from(if word == "''" { "" } else { word }));
        let new: Vec<String> =
            rewrite(argv.collect()).iter().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect();
        new.join(" ")
    }

    #[test]
    fn old_calls_find_their_verb() {
        for (old, new) in [
            ("", "watch --old-spelling"),
            ("--interval 20", "watch --old-spelling --interval 20"),
            ("--once --host root@h", "once --old-spelling --host root@h"),
            ("--host root@h --once", "once --old-spelling --host root@h"),
            ("--status-json --once --session-id x --no-delete", "status --old-spelling --object"),
            ("--ssh-port 22 --ssh-key k --once", "once --old-spelling --ssh-key k"),
            ("--ssh-port 2222 --once", "once --old-spelling --keys-port 2222"),
            ("--ready-marker-name '' --once", "once --old-spelling"),
            ("pull", "pull --old-spelling"),
            ("pull session_1 --ssh-key k", "pull --old-spelling --ssh-key k -- session_1"),
            ("pull --no-skip-synced", "pull --old-spelling --no-skip-synced"),
            ("pull s --status-json --host h@x", "status --old-spelling --object --host h@x"),
            ("timer sync-now --no-artifacts --service-name x", "once --old-spelling --no-artifacts"),
            ("timer on --interval 600", "timer on --old-spelling --interval 600"),
            ("timer on --service-name n --uninstall", "timer off --old-spelling --service-name n"),
            ("once --json", "once --json"),
            ("status --json", "status --object"),
            ("-q once", "-q once"),
            ("--help", "--help"),
        ] {
            assert_eq!(rewritten(old), new, "{old}");
        }
    }

    #[test]
    fn p105_what_a_client_sent_as_an_id_never_becomes_a_flag_with_a_value() {
        assert_eq!(rewritten("pull --local-dir=/etc --once"), "pull --old-spelling -- --local-dir=/etc");
        assert_eq!(rewritten("pull -q"), "pull --old-spelling -- -q");
        assert_eq!(rewritten("pull ../.. --host h@x"), "pull --old-spelling --host h@x -- ../..");
    }

    #[test]
    fn p133_a_flag_without_its_value_is_left_for_the_parser_to_refuse() {
        assert_eq!(rewritten("--session-id --once"), "once --old-spelling --session-id --once");
        assert_eq!(rewritten("--once --host"), "once --old-spelling --host");
    }
}
