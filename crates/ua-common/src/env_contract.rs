//! Does `.env`, with what `env.command` prints, say what the app needs? The judgement of a deploy, and of whoever looks before
//! one. Names are told, values never. `remote/env.sh` gives the lines that are judged.

use std::collections::{BTreeMap, BTreeSet};

use crate::env_file::{self, Assignment};
use crate::exit::Exit;
use crate::output::printable;
use crate::profile::{Name, Profile, Rule};
use crate::report::Check;

/// Why `env.command` gave nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandFailure {
    /// Its exit code, or that of `timeout`; 0 where it printed too much.
    pub code: String,
    /// End of its stderr, without values.
    pub stderr: String,
}

impl CommandFailure {
    /// Parses what `ask_env_command` says of it: `CODE<TAB>STDERR`.
    pub fn parse(fields: &str) -> Self {
        let (code, stderr) = fields.split_once('\t').unwrap_or((fields, ""));
        Self { code: printable(code), stderr: printable(stderr.trim()) }
    }
}

impl std::fmt::Display for CommandFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.code.as_str() {
            // `timeout` ends with 124, or with 137 where the command had to be killed.
            "124" | "137" => f.write_str("`env.command` did not end in time")?,
            "0" => f.write_str("`env.command` printed too much")?,
            code => write!(f, "`env.command` failed (code {code})")?,
        }
        if self.stderr.is_empty() { Ok(()) } else { write!(f, ": {}", self.stderr) }
    }
}

/// Where the app is, for hints that can be pasted.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// `user@name`.
    pub ssh: &'a str,
    /// The app's directory.
    pub app: &'a str,
}

impl Target<'_> {
    /// Returns what the keys are taken from, as a check names it.
    pub fn source(&self, profile: &Profile) -> String {
        let command = if profile.env.command.is_some() { " with `env.command`" } else { "" };
        format!("`{}/{}`{command}", self.app, profile.env.file)
    }

    /// Returns the command that changes `.env` by hand.
    pub fn edit(&self, profile: &Profile) -> String {
        format!("ssh -t {} 'editor {}/{}'", self.ssh, self.app, profile.env.file)
    }

    /// Returns the command that mends a key: an editor for the file, or where there is `env.command`, a run of it by hand that
    /// shows the names it prints.
    pub fn mend(&self, profile: &Profile) -> String {
        let Some(command) = profile.env.command.as_deref() else {
            return self.edit(profile);
        };
        // Neither has a NUL, which alone cannot be quoted.
        let quoted =
            |text: &str| shlex::try_quote(text).map(std::borrow::Cow::into_owned).unwrap_or_default();
        let user = &*profile.owner.user;
        let names = r#"grep -oE "^[A-Za-z_][A-Za-z0-9_]*=""#;
        let run = format!(
            "cd {} && runuser -u {user} -- env -i HOME=\"$(getent passwd {user} | cut -d : -f 6)\" PATH={} sh -c {} | {names}",
            quoted(self.app),
            &*profile.build.path,
            quoted(command),
        );
        format!("ssh {} {}", self.ssh, quoted(&run))
    }
}

/// Judges the assignments that a VPS told by the contract.
pub fn judge(
    id: &'static str,
    target: Target<'_>,
    profile: &Profile,
    env: &[Assignment],
    failure: Option<&CommandFailure>,
) -> Check {
    let (source, hint, keys) = (target.source(profile), target.mend(profile), &profile.env.keys);
    if let Some(failure) = failure {
        return Check::fail(id, Exit::Contract, failure.to_string()).hint(hint);
    }
    let wrong: Vec<String> = keys.iter().filter_map(|(key, rule)| complaint(key, rule, env)).collect();
    if !wrong.is_empty() {
        return Check::fail(id, Exit::Contract, format!("{source}: {}", wrong.join("; "))).hint(hint);
    }
    // A shell or a dotenv library reads these, systemd's EnvironmentFile= does not.
    let exported = env.iter().filter(|assignment| assignment.exported);
    let exported: Vec<&str> = exported.map(|assignment| assignment.key.as_str()).collect();
    if !exported.is_empty() {
        let names = exported.join(", ");
        let detail =
            format!("{source} is right, but writes `export` before {names}, which systemd does not read");
        return Check::warn(id, detail).hint(hint);
    }
    let many = if keys.len() == 1 { "" } else { "s" };
    Check::pass(id, format!("{source} says what the app needs ({} key{many})", keys.len()))
}

/// What `env_lines` is to be asked, so that all can be judged and no value leaves the VPS: the keys of which only the shape
/// is told, and `KEY=WORD,WORD` for those whose value has to be, or to hold, some of these words.
pub fn question(keys: &BTreeMap<Name, Rule>) -> [String; 2] {
    let (mut secrets, mut words) = (Vec::new(), Vec::new());
    for (key, rule) in keys {
        let wanted: Vec<&str> = match rule {
            Rule::Set => {
                secrets.push(key.to_string());
                continue;
            }
            Rule::On => vec!["1,true,yes,on"],
            Rule::Equals(wanted) => vec![wanted],
            Rule::Contains(wanted) => wanted.iter().map(String::as_str).collect(),
        };
        // As the script parts a value.
        let parts = wanted.iter().flat_map(|word| word.split(['"', '\'', ' ', ',', '\t', '\r']));
        let parts: BTreeSet<&str> = parts.filter(|word| !word.is_empty()).collect();
        words.push(format!("{}={}", &**key, parts.into_iter().collect::<Vec<_>>().join(",")));
    }
    [secrets.join(" "), words.join(" ")]
}

/// What is wrong with a key, without its value.
fn complaint(key: &str, rule: &Rule, env: &[Assignment]) -> Option<String> {
    let Some(Assignment { value, .. }) = env_file::last(env, key) else {
        return Some(format!("{key} is missing"));
    };
    let fine = match rule {
        Rule::On => matches!(value.to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on"),
        Rule::Set => !value.trim().is_empty(),
        Rule::Equals(wanted) => value == wanted,
        Rule::Contains(wanted) => {
            let has: Vec<&str> = value.split(',').map(str::trim).collect();
            let missing: Vec<&str> =
                wanted.iter().map(String::as_str).filter(|item| !has.contains(item)).collect();
            return (!missing.is_empty()).then(|| format!("{key} does not list {}", missing.join(" and ")));
        }
    };
    (!fine).then(|| match rule {
        Rule::On => format!("{key} is not on (1, true, yes, on)"),
        Rule::Equals(wanted) => format!("{key} is not `{wanted}`"),
        Rule::Set | Rule::Contains(_) => format!("{key} is empty"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complained(rule: &Rule, env: &str) -> Option<String> {
        complaint("KEY", rule, &env_file::assignments(env))
    }

    #[test]
    fn p48_quotes_line_ends_and_export_are_read() {
        let equals = Rule::Equals("db_pull".to_owned());
        for env in [
            "KEY=db_pull",
            "KEY=\"db_pull\"",
            "KEY='db_pull'\r\n",
            "export KEY=db_pull",
            " KEY = db_pull ",
            "KEY=x\nKEY=db_pull",
        ] {
            assert_eq!(complained(&equals, env), None, "{env:?}");
        }
        assert_eq!(complained(&equals, "KEY=db_pull\nKEY=x").unwrap(), "KEY is not `db_pull`");
        assert_eq!(complained(&equals, "#KEY=db_pull").unwrap(), "KEY is missing");
        let contains = Rule::Contains(vec!["a.b".to_owned(), "c".to_owned()]);
        assert_eq!(complained(&contains, "KEY=\"c, a.b\""), None);
        assert_eq!(complained(&contains, "KEY=a.b.c").unwrap(), "KEY does not list a.b and c");
        assert_eq!(complained(&Rule::On, "KEY=\"Yes\"\r"), None);
        assert_eq!(complained(&Rule::On, "KEY=0").unwrap(), "KEY is not on (1, true, yes, on)");
        assert_eq!(complained(&Rule::Set, "KEY=\"\"").unwrap(), "KEY is empty");
    }

    /// What the VPS gives of a file, and of a command that prints `said`.
    fn told(profile: &Profile, env: &str, command: Option<&str>) -> String {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("env");
        std::fs::write(&file, env).unwrap();
        // Only root can be another user.
        let text = format!(
            "{}\nrunuser() {{ shift 3; \"$@\"; }}\ntimeout() {{ shift; case $1 in [0-9]*) shift ;; esac; \"$@\"; }}
            env=$1 app=$4 user=root build_path=$PATH env_command=$5
            ask_env_command
            [ -z \"$env_failed\" ] || printf 'env_failed\\t%s\\n' \"$env_failed\"
            env_lines '' \"$2\" \"$3\"",
            include_str!("../remote/env.sh")
        );
        let mut sh = std::process::Command::new("sh");
        sh.args(["-c", &text, "sh"]).arg(&file).args(question(&profile.env.keys));
        let output = sh.arg(dir.path()).arg(command.unwrap_or_default()).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    const TARGET: Target<'_> = Target { ssh: "root@vps", app: "/opt/app" };

    fn profile(keys: impl IntoIterator<Item = (&'static str, Rule)>, command: Option<&str>) -> Profile {
        let mut profile = Profile::built_in().unwrap();
        let name = |text: &str| Name::try_from(text.to_owned()).unwrap();
        profile.env.keys = keys.into_iter().map(|(key, rule)| (name(key), rule)).collect();
        profile.env.command = command.map(|command| command.to_owned().try_into().unwrap());
        profile
    }

    /// The check of what the VPS told.
    fn judged(profile: &Profile, told: &str) -> Check {
        let line = |line: &str| line.strip_prefix("line\t").map(|line| format!("{line}\n"));
        let lines: String = told.lines().filter_map(line).collect();
        let failure = told.lines().find_map(|line| line.strip_prefix("env_failed\t"));
        let failure = failure.map(CommandFailure::parse);
        judge("env", TARGET, profile, &env_file::assignments(&lines), failure.as_ref())
    }

    fn rules() -> [(&'static str, Rule); 5] {
        [
            ("ON", Rule::On),
            ("MODE", Rule::Equals("db_pull".to_owned())),
            ("SPOKEN", Rule::Equals("two words, and more".to_owned())),
            ("LIST", Rule::Contains(vec!["a.b".to_owned(), "c".to_owned()])),
            ("TOKEN", Rule::Set),
        ]
    }

    #[test]
    fn what_leaves_the_vps_is_judged_as_the_file_itself_and_tells_no_value() {
        let profile = profile(rules(), None);
        for env in [
            "ON=1\nMODE=db_pull\nSPOKEN=two words, and more\nLIST=a.b,c\nTOKEN=hunter2\n",
            "export ON=\"Yes\"\r\n MODE = 'db_pull' \nSPOKEN='two words, and more'\nLIST=\"c, hunter2, a.b\"\nTOKEN=x\n",
            "ON=hunter2\nMODE=sdb_pull\nSPOKEN=two words and more\nLIST=a.b.c\nTOKEN=\"\"\n",
            "MODE=db\\_pull\nON=0\nLIST=hunter2,c\nTOKEN= \nOTHER=hunter2\n",
            "MODE=\"db\\_pull\"\nSPOKEN=two words, hunter2 more\nMODE=DB_PULL\n",
            "",
        ] {
            let told = told(&profile, env, None);
            let by_file = judge("env", TARGET, &profile, &env_file::assignments(env), None);
            let check = judged(&profile, &told);
            assert_eq!(
                (check.exit, check.verdict, check.detail),
                (by_file.exit, by_file.verdict, by_file.detail),
                "{env:?} -> {told:?}"
            );
            assert!(!told.contains("hunter2") && !told.contains("sdb"), "{told:?}");
        }
    }

    #[test]
    fn env_command_goes_before_the_file() {
        let command = "cat vault";
        let profile = profile(rules(), Some(command));
        let whole = "ON=1\nMODE=db_pull\nSPOKEN='two words, and more'\nLIST=a.b,c\nTOKEN=hunter2\n";
        let vault = |vault: &str| format!("printf '%s' {}", shlex::try_quote(vault).unwrap());
        let source = "`/opt/app/.env` with `env.command`";
        // A shell that exports is as good as `env`.
        let exporting = whole.lines().map(|line| format!("export {line}\n")).collect::<String>();
        for said in [whole, &exporting, whole.trim_end(), &whole.replace('\n', "\r\n")] {
            let told = told(&profile, "OTHER=hunter2\nMODE=push\nTOKEN=", Some(&vault(said)));
            let check = judged(&profile, &told);
            assert_eq!(
                check.detail,
                format!("{source} says what the app needs (5 keys)"),
                "{said:?} {told:?}"
            );
            assert!(!told.contains("hunter2"), "{told:?}");
        }
        let told = told(&profile, whole, Some(&vault("MODE=push\nTOKEN=\n")));
        let check = judged(&profile, &told);
        assert_eq!(check.detail, format!("{source}: MODE is not `db_pull`; TOKEN is empty"));
        // What is typed shows names only.
        let typed = shlex::split(&check.hint.unwrap()).unwrap();
        assert_eq!(typed[..2], ["ssh", "root@vps"]);
        assert_eq!(
            typed[2],
            "cd /opt/app && runuser -u ua -- env -i HOME=\"$(getent passwd ua | cut -d : -f 6)\" \
             PATH=/usr/local/bin:/usr/bin:/bin:/home/ua/.local/bin sh -c 'cat vault' | \
             grep -oE \"^[A-Za-z_][A-Za-z0-9_]*=\""
        );
    }

    #[test]
    fn env_command_that_fails_tells_no_value() {
        let profile = profile([("TOKEN", Rule::Set)], Some("x"));
        let failed = |command: &str| {
            let told =
                told(&profile, "FILE=\"hunter2-of-the-file\"\nSHORT=yes\nTOKEN=hunter2\n", Some(command));
            assert!(!told.contains("hunter2"), "{told:?}");
            let check = judged(&profile, &told);
            assert_eq!(check.exit, Exit::Contract);
            check.detail
        };
        assert_eq!(failed("exit 3"), "`env.command` failed (code 3)");
        assert_eq!(
            failed("echo 'no route to vault' >&2; false"),
            "`env.command` failed (code 1): no route to vault"
        );
        let said = "printf 'VAULT=hunter2-of-the-vault\\n'; echo \"a hunter2-of-the-vault b hunter2-of-the-file c hunter2 d\" >&2; exit 1";
        assert_eq!(failed(said), "`env.command` failed (code 1): a *** b *** c *** d");
        let traced = "printf 'set -x\\nKEY=hunter2 SHORT=yes\\n\\n\\tlast\\t\\033[1mword\\n' >&2; exit 1";
        assert_eq!(
            failed(traced),
            "`env.command` failed (code 1): set -x / KEY=*** SHORT=*** /  last  [1mword"
        );
        // One value may be the beginning of another, or overlap with it.
        let said =
            "printf 'A=abcd\\nB=abcdSECRET\\nC=wordabc\\n'; echo 'x abcdSECRET y wordabcd z' >&2; exit 1";
        assert_eq!(failed(said), "`env.command` failed (code 1): x *** y *** z");
        let said = "head -c 5000 /dev/zero | tr '\\0' x >&2; exit 1";
        assert_eq!(failed(said), "`env.command` failed (code 1): (a line of 5000 characters)");
        let long = "for n in 1 2 3 4 5; do printf '%0500d\\n' $n >&2; done; exit 1";
        assert!(failed(long).len() < 450, "bounded");
        assert!(
            failed("head -c 2000000 /dev/zero | tr '\\0' x").starts_with("`env.command` printed too much")
        );
        // What it prints in vain is not judged.
        assert!(failed("echo TOKEN=there; exit 1").starts_with("`env.command` failed (code 1)"));
    }
}
