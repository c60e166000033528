//! What a run is about, as far as it was typed: a command that is proposed has to be about the same.

use crate::settings::table::KEYS;
use crate::settings::{Origin, Settings};

/// The settings that decide which machine is reached, how, and which app is meant.
const KINDS: &[&str] = &[
    "repo.dir",
    "host.vps",
    "host.break_glass",
    "ssh.auth_mode",
    "ssh.key",
    "ssh.keys_port",
    "preflight.mode",
    "preflight.skip",
    "deploy.app_dir",
    "deploy.profile",
];

/// What was typed for this run alone.
#[derive(Clone, Debug, Default)]
pub struct Subject(Vec<Typed>);

#[derive(Clone, Debug)]
struct Typed {
    flag: String,
    /// The same for the environment, as a shell takes it.
    assignment: String,
}

impl Subject {
    /// The subject of a run with these settings. What the next run gets from the same files and variables is left out.
    pub fn of(settings: &Settings) -> Self {
        let typed = KEYS.iter().zip(settings.rows()).filter_map(|(key, (_, value, origin))| {
            let by_flag = KINDS.contains(&key.key) && matches!(origin, Origin::Flag(_));
            // A NUL cannot have been typed.
            let value = shlex::try_quote(&value).ok().filter(|_| by_flag)?;
            Some(Typed { flag: format!("--{}", key.flag?), assignment: format!("{}={value} ", key.env) })
        });
        Self(typed.collect())
    }

    /// A hint whose commands are about the same. Variables do it for every verb, wherever its flags would have to stand.
    pub fn put_into(&self, hint: &str) -> String {
        // A hint that says it itself knows better.
        let assignments: String = (self.0.iter())
            .filter(|typed| !hint.split_whitespace().any(|word| word == typed.flag))
            .map(|typed| typed.assignment.as_str())
            .collect();
        let mut text = String::new();
        let mut done = 0;
        for (at, _) in hint.match_indices("ua-") {
            let before = &hint[..at];
            let begins =
                before.is_empty() || ["; ", ": ", ", ", "&& "].iter().any(|end| before.ends_with(end));
            let word = hint[at..].split([' ', ';', ',']).next().unwrap_or_default();
            if begins && word.bytes().all(|byte| byte == b'-' || byte.is_ascii_lowercase()) {
                text.push_str(&hint[done..at]);
                text.push_str(&assignments);
                done = at;
            }
        }
        text.push_str(&hint[done..]);
        text
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use super::*;
    use crate::settings::{Raw, Surroundings};

    fn subject(typed: &[(&'static str, &str, Origin)]) -> Subject {
        let dir = PathBuf::from("/srv");
        let env = BTreeMap::new();
        let around = Surroundings { cwd: dir.clone(), home: Some(dir), config_home: None, env, uid: 0 };
        let layer =
            typed.iter().map(|(key, text, origin)| (*key, (Raw::Text((*text).to_owned()), origin.clone())));
        Subject::of(&Settings::resolve(&[layer.collect()], &around).unwrap())
    }

    fn flag() -> Origin {
        Origin::Flag("--x".to_owned())
    }

    #[test]
    fn a_command_that_is_proposed_is_about_what_was_typed() {
        let subject = subject(&[
            ("host.vps", "root@10.9.8.7", flag()),
            ("host.break_glass", "true", flag()),
            ("ssh.key", "my key", flag()),
            ("ssh.keys_port", "2222", Origin::Env("UA_SSH_KEYS_PORT")),
            ("ssh.connect_timeout", "3", flag()),
        ]);
        let typed = "UA_VPS_HOST=root@10.9.8.7 UA_BREAK_GLASS=true UA_VPS_SSH_KEY='/srv/my key' ";
        let cases = [
            ("ua-deploy history", format!("{typed}ua-deploy history")),
            (
                "ua-vpsctl status  # the whole story: ua-vpsctl run -- cat log",
                format!("{typed}ua-vpsctl status  # the whole story: {typed}ua-vpsctl run -- cat log"),
            ),
            ("rm x; ua-sync timer on", format!("rm x; {typed}ua-sync timer on")),
            (
                "ssh root@10.9.8.7 'cat /var/lib/ua-deploy/x'",
                "ssh root@10.9.8.7 'cat /var/lib/ua-deploy/x'".into(),
            ),
            (
                "systemctl status ua-deploy-recover.service",
                "systemctl status ua-deploy-recover.service".into(),
            ),
            (
                "ua-preflight --host root@vps",
                "UA_BREAK_GLASS=true UA_VPS_SSH_KEY='/srv/my key' ua-preflight --host root@vps".into(),
            ),
        ];
        for (hint, expected) in cases {
            assert_eq!(subject.put_into(hint), expected);
        }
    }

    #[test]
    fn without_anything_typed_a_hint_stays_as_it_is() {
        let hint = "a push takes nothing away; to deploy a deletion: ua-deploy";
        assert_eq!(
            subject(&[("host.vps", "root@other.ts.net", Origin::Env("UA_VPS_HOST"))]).put_into(hint),
            hint
        );
    }
}
