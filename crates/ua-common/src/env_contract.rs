//! Does `.env` say what the app needs? The judgement of a deploy, and of whoever looks before one. Names are told, values
//! never. `remote/env.sh` gives the lines that are judged.

use std::collections::{BTreeMap, BTreeSet};

use crate::env_file::{self, Assignment};
use crate::exit::Exit;
use crate::profile::{Name, Rule};
use crate::report::Check;

/// Judges the assignments of `file` by the contract; `hint` is how it is mended.
pub fn judge(
    id: &'static str,
    file: &str,
    keys: &BTreeMap<Name, Rule>,
    env: &[Assignment],
    hint: String,
) -> Check {
    let wrong: Vec<String> = keys.iter().filter_map(|(key, rule)| complaint(key, rule, env)).collect();
    if !wrong.is_empty() {
        return Check::fail(id, Exit::Contract, format!("`{file}`: {}", wrong.join("; "))).hint(hint);
    }
    // A shell or a dotenv library reads these, systemd's EnvironmentFile= does not.
    let exported = env.iter().filter(|assignment| assignment.exported);
    let exported: Vec<&str> = exported.map(|assignment| assignment.key.as_str()).collect();
    if !exported.is_empty() {
        let names = exported.join(", ");
        let detail =
            format!("`{file}` is right, but writes `export` before {names}, which systemd does not read");
        return Check::warn(id, detail).hint(hint);
    }
    let many = if keys.len() == 1 { "" } else { "s" };
    Check::pass(id, format!("`{file}` says what the app needs ({} key{many})", keys.len()))
}

/// The command that changes a file of the VPS by hand.
pub fn edit(ssh: &str, file: &str) -> String {
    format!("ssh -t {ssh} 'editor {file}'")
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

    /// What the VPS gives of a file.
    fn told(keys: &BTreeMap<Name, Rule>, env: &str) -> String {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("env");
        std::fs::write(&file, env).unwrap();
        let text = format!("{}\nenv=$1\nenv_lines '' \"$2\" \"$3\"", include_str!("../remote/env.sh"));
        let mut sh = std::process::Command::new("sh");
        let output = sh.args(["-c", &text, "sh"]).arg(&file).args(question(keys)).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn what_leaves_the_vps_is_judged_as_the_file_itself_and_tells_no_value() {
        let name = |text: &str| Name::try_from(text.to_owned()).unwrap();
        let rules = [
            ("ON", Rule::On),
            ("MODE", Rule::Equals("db_pull".to_owned())),
            ("SPOKEN", Rule::Equals("two words, and more".to_owned())),
            ("LIST", Rule::Contains(vec!["a.b".to_owned(), "c".to_owned()])),
            ("TOKEN", Rule::Set),
        ];
        let keys: BTreeMap<Name, Rule> = rules.into_iter().map(|(key, rule)| (name(key), rule)).collect();
        for env in [
            "ON=1\nMODE=db_pull\nSPOKEN=two words, and more\nLIST=a.b,c\nTOKEN=hunter2\n",
            "export ON=\"Yes\"\r\n MODE = 'db_pull' \nSPOKEN='two words, and more'\nLIST=\"c, hunter2, a.b\"\nTOKEN=x\n",
            "ON=hunter2\nMODE=sdb_pull\nSPOKEN=two words and more\nLIST=a.b.c\nTOKEN=\"\"\n",
            "MODE=db\\_pull\nON=0\nLIST=hunter2,c\nTOKEN= \nOTHER=hunter2\n",
            "MODE=\"db\\_pull\"\nSPOKEN=two words, hunter2 more\nMODE=DB_PULL\n",
            "",
        ] {
            let told = told(&keys, env);
            let lines: String =
                told.lines().map(|it| format!("{}\n", it.strip_prefix("line\t").unwrap())).collect();
            let judged = |env: &str| {
                let check = judge("env", "f", &keys, &env_file::assignments(env), String::new());
                (check.exit, check.verdict, check.detail)
            };
            assert_eq!(judged(&lines), judged(env), "{env:?} -> {told:?}");
            assert!(!told.contains("hunter2") && !told.contains("sdb"), "{told:?}");
        }
    }
}
