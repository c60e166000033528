//! The two unit files of a timer, as text that systemd reads exactly as it is meant.

use std::path::{Component, PathBuf};
use std::time::Duration;

use ua_common::error::Failure;
use ua_common::exit::Exit;
use ua_common::settings::value::Value as _;

/// What the first line of a file of ours begins with.
pub const HEADER: &str = "# made by ua-sync timer on";
const OURS: &str = "# made by ua-sync timer on, which also takes away what is changed by hand";

/// The shortest pause between two runs; systemd is told to be no more exact than this.
const SHORTEST: Duration = Duration::from_secs(1);

/// A timer: what it runs, where, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timer {
    /// The name of its units, without `.timer`.
    pub name: String,
    /// Pause between the end of a run and the next one.
    pub interval: Duration,
    /// The program, by its absolute path, and its arguments.
    pub argv: Vec<String>,
    /// Where it runs: the repository.
    pub dir: PathBuf,
}

impl Timer {
    /// Can systemd be told exactly this? What it cannot be told is found before anything is written.
    pub fn check(&self) -> Result<(), Failure> {
        valid_name(&self.name)?;
        let refuse = |message: String| Err(Failure::new(Exit::Usage, message));
        if self.interval < SHORTEST {
            return refuse(format!("a timer cannot run every `{}`: 1s is the least", self.interval.show()));
        }
        let program = self.argv.first().map_or("", String::as_str);
        if !program.starts_with('/') || program.contains(['"', '\'', '\\']) {
            return refuse(format!(
                "a timer cannot run `{}`: systemd takes an absolute path without quotes and backslashes",
                program.escape_debug()
            ));
        }
        if let Some(word) = self.argv.iter().find(|word| word.contains(char::is_control)) {
            let word = word.escape_debug();
            return refuse(format!("a timer cannot pass on `{word}`, which holds a control character"));
        }
        if self.argv.iter().any(|word| holds_token(word)) {
            return refuse("a timer does not take the token as an argument: others could read it".to_owned());
        }
        let plain = self.dir.is_absolute() && !self.dir.components().any(|part| part == Component::ParentDir);
        if !plain || self.dir.to_str().is_none_or(|dir| dir.contains(char::is_control)) {
            let dir = self.dir.to_string_lossy();
            return refuse(format!(
                "a timer cannot run in `{}`: systemd takes an absolute path in UTF-8 without `..` and control characters",
                dir.escape_debug()
            ));
        }
        Ok(())
    }
}

/// Is it the base name of a unit? A template is none, since it runs only with a name behind its `@`.
pub fn valid_name(name: &str) -> Result<(), Failure> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_.-@:".contains(c);
    let right = name.starts_with(|c| plain(c) && c != '-' && c != '.')
        && name.chars().all(plain)
        && !name.ends_with('@')
        && name.len() <= 200;
    if right {
        return Ok(());
    }
    let message = format!("`{}` is not the base name of a unit", name.escape_debug());
    Err(Failure::new(Exit::Usage, message)
        .hint("ua-sync timer on --service-name NAME  # letters, digits and _.-@:"))
}

/// Does a text give a token away? Ours never does.
pub fn holds_token(text: &str) -> bool {
    ["--ops-token", "x-ua-ops-token", "UA_OPS_TOKEN="].iter().any(|mark| text.contains(mark))
}

/// The file of the service: one run.
pub fn service(timer: &Timer) -> String {
    let words = timer.argv.iter().enumerate().map(|(at, word)| quoted(word, at == 0));
    // The last slash keeps a blank or a backslash that the directory's name may end with.
    let dir = timer.dir.to_string_lossy().replace('%', "%%");
    let dir = format!("{}/", dir.trim_end_matches('/'));
    service_file(OURS, &dir, &words.collect::<Vec<_>>().join(" "))
}

/// The file of the timer: soon after login, then an interval after each run's end.
pub fn timer(timer: &Timer) -> String {
    timer_file(OURS, timer.interval)
}

/// The units that a package brings, by their file names: for every user, off, and by the user's own settings alone.
/// Those of [`service`] and [`timer`] stand before them.
pub fn packaged(name: &str, interval: Duration) -> [(String, String); 2] {
    let header = "# Needs `dir` below `[repo]` in ~/.config/ua/ua.toml. Rather: ua-sync timer on";
    let command = "/usr/bin/ua-sync once --respect-remote-toggle";
    [
        (format!("{name}.service"), service_file(header, "~", command)),
        (format!("{name}.timer"), timer_file(header, interval)),
    ]
}

fn service_file(header: &str, dir: &str, command: &str) -> String {
    format!(
        "{header}\n\
         [Unit]\n\
         Description=Mirror the finished workspaces of the VPS\n\
         \n\
         [Service]\n\
         Type=oneshot\n\
         WorkingDirectory={dir}\n\
         ExecStart={command}\n\
         Nice=10\n\
         IOSchedulingClass=best-effort\n\
         IOSchedulingPriority=7\n"
    )
}

fn timer_file(header: &str, interval: Duration) -> String {
    format!(
        "{header}\n\
         [Unit]\n\
         Description=Mirror the finished workspaces of the VPS, again and again\n\
         \n\
         [Timer]\n\
         OnStartupSec=20s\n\
         OnUnitInactiveSec={}ms\n\
         AccuracySec=1s\n\
         \n\
         [Install]\n\
         WantedBy=timers.target\n",
        interval.as_millis()
    )
}

/// The command as `systemctl show` has it: unquoted, and `$` still doubled.
pub fn command(timer: &Timer) -> String {
    let word = |(at, word): (usize, &String)| if at == 0 { word.clone() } else { word.replace('$', "$$") };
    timer.argv.iter().enumerate().map(word).collect::<Vec<_>>().join(" ")
}

/// A word of a command line by systemd.syntax(7) and systemd.service(5). Variables are expanded in all of them but the
/// path of the program.
fn quoted(word: &str, program: bool) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    let mut text = String::from('"');
    for c in word.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            '%' => text.push_str("%%"),
            '$' if !program => text.push_str("$$"),
            c => text.push(c),
        }
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(argv: &[&str], dir: &str) -> Timer {
        Timer {
            name: "ua-remote-workspace-sync".to_owned(),
            interval: Duration::from_mins(10),
            argv: argv.iter().map(|word| (*word).to_owned()).collect(),
            dir: dir.into(),
        }
    }

    /// The value of a directive that stands once.
    fn value<'a>(text: &'a str, directive: &str) -> &'a str {
        let mut values = text.lines().filter_map(|line| line.strip_prefix(directive)?.strip_prefix('='));
        let value = values.next().unwrap();
        assert_eq!(values.next(), None, "{directive} stands twice");
        value
    }

    /// What systemd makes of a command line, by systemd.syntax(7), systemd.unit(5) and systemd.service(5).
    fn read(line: &str) -> Vec<String> {
        let mut words = Vec::new();
        let mut chars = line.chars().peekable();
        loop {
            while chars.next_if(|c| *c == ' ').is_some() {}
            let Some(first) = chars.peek().copied() else { return words };
            let mut word = String::new();
            let quote = chars.next_if(|c| matches!(c, '"' | '\''));
            loop {
                match chars.next() {
                    None => break assert!(quote.is_none(), "an open quote in {line}"),
                    Some(' ') if quote.is_none() => break,
                    Some(c) if Some(c) == quote => {
                        break assert!(
                            chars.next().is_none_or(|c| c == ' '),
                            "no blank behind a quote: {line}"
                        );
                    }
                    Some('\\') => match chars.next() {
                        Some(c @ ('\\' | '"' | '\'')) => word.push(c),
                        other => panic!("an escape that was not meant, {other:?}: {line}"),
                    },
                    Some('%') => {
                        assert_eq!(chars.next(), Some('%'), "a specifier that was not meant: {line}");
                        word.push('%');
                    }
                    Some(c) => word.push(c),
                }
            }
            assert!(quote.is_some() || word != ";", "the end of a command that was not meant: {line}");
            if words.is_empty() {
                assert!(!"@-:+!|".contains(first), "a prefix that was not meant: {line}");
            } else {
                let rest = word.replace("$$", "");
                assert!(!rest.contains('$'), "a variable that was not meant: {line}");
                word = word.replace("$$", "$");
            }
            words.push(word);
        }
    }

    proptest! {
        #[test]
        fn p117_systemd_reads_what_was_meant(
            program in "/[^\\pC\"'\\\\]{0,20}",
            arguments in prop::collection::vec("([^\\pC]|[ \"'\\\\%$;{}@-]){0,12}", 0..6),
            dir in "(/([a-z%$ \"'\\\\é-]{1,8})){0,3}",
        ) {
            let argv: Vec<String> = std::iter::once(program).chain(arguments).collect();
            let words: Vec<&str> = argv.iter().map(String::as_str).collect();
            let timer = of(&words, &format!("/{}", dir.trim_start_matches('/')));
            prop_assert!(timer.check().is_ok());
            let text = service(&timer);
            prop_assert_eq!(&read(value(&text, "ExecStart")), &argv);
            let read_dir = value(&text, "WorkingDirectory").replace("%%", "%");
            prop_assert!(!read_dir.ends_with(['\\', ' ']));
            prop_assert_eq!(PathBuf::from(read_dir), timer.dir);
        }
    }

    #[test]
    fn p117_the_words_that_bash_would_quote_otherwise() {
        let line = |argv: &[&str]| value(&service(&of(argv, "/r")), "ExecStart").to_owned();
        assert_eq!(
            line(&["/usr/bin/ua-sync", "once", "--ready-session-prefix", "session_,tg_", "--repo", "/a b"]),
            "/usr/bin/ua-sync once --ready-session-prefix session_,tg_ --repo \"/a b\""
        );
        assert_eq!(
            line(&["/x y/$b%", "", ";", "'", "\"", "\\", "100%", "$HOME", "${X}", "\\n"]),
            r#""/x y/$b%%" "" ";" "'" "\"" "\\" "100%%" "$$HOME" "$${X}" "\\n""#
        );
    }

    #[test]
    fn p137_a_timer_that_user_managers_understand() {
        let timer_of = of(&["/usr/bin/ua-sync", "once"], "/srv/my repo");
        let (service, timer) = (service(&timer_of), timer(&timer_of));
        assert!(service.starts_with(HEADER) && timer.starts_with(HEADER));
        assert_eq!(value(&service, "Type"), "oneshot");
        assert_eq!(value(&service, "WorkingDirectory"), "/srv/my repo/");
        assert_eq!(value(&timer, "OnStartupSec"), "20s");
        assert_eq!(value(&timer, "OnUnitInactiveSec"), "600000ms");
        assert_eq!(value(&timer, "WantedBy"), "timers.target");
        for text in [&service, &timer] {
            assert!(!text.contains("Persistent") && !text.contains("network-online"), "{text}");
        }
    }

    #[test]
    fn what_systemd_cannot_be_told_is_found_first() {
        let right = of(&["/usr/bin/ua-sync", "once", "--repo", "/r"], "/r");
        assert!(right.check().is_ok());
        let with = |change: &dyn Fn(&mut Timer)| {
            let mut timer = right.clone();
            change(&mut timer);
            let error = timer.check().unwrap_err();
            assert_eq!(error.exit, Exit::Usage);
            error.to_string()
        };
        assert!(with(&|timer| timer.argv.clear()).contains("absolute path"));
        assert!(with(&|timer| timer.argv[0] = "ua-sync".to_owned()).contains("`ua-sync`"));
        assert!(with(&|timer| timer.argv[0] = "/it's".to_owned()).contains("quotes"));
        assert!(with(&|timer| timer.argv.push("a\nb".to_owned())).contains("a\\nb"));
        assert!(with(&|timer| timer.dir = "r".into()).contains("`r`"));
        assert!(with(&|timer| timer.dir = "/r/../s".into()).contains(".."));
        assert!(with(&|timer| timer.dir = "/a\nb".into()).contains("a\\nb"));
        assert!(with(&|timer| timer.interval = Duration::from_millis(999)).contains("0.999"));
        assert!(with(&|timer| timer.name = "-x".to_owned()).contains("`-x`"));
        // Never with its value.
        assert!(!with(&|timer| timer.argv.push("--ops-token=hunter2".to_owned())).contains("hunter2"));
        assert!(with(&|timer| timer.argv.push("--ops-token".to_owned())).contains("token"));
    }

    #[test]
    fn names() {
        for right in ["ua-remote-workspace-sync", "a", "9", "_x", "x@y", "a:b.c-d_e"] {
            assert!(valid_name(right).is_ok(), "{right}");
        }
        for wrong in
            ["", "-x", ".x", "..", "a/b", "../x", "a b", "a\n", "é", "x@", "a*", "%i", &"x".repeat(201)]
        {
            assert!(valid_name(wrong).is_err_and(|error| error.exit == Exit::Usage), "{wrong}");
        }
    }

    #[test]
    fn the_files_of_the_package_are_nobodys_own() {
        let [(_, service), (_, timer)] = packaged("x", Duration::from_mins(10));
        assert!(!service.starts_with(HEADER) && !timer.starts_with(HEADER));
        assert_eq!(value(&service, "WorkingDirectory"), "~");
        assert_eq!(
            read(value(&service, "ExecStart")),
            ["/usr/bin/ua-sync", "once", "--respect-remote-toggle"]
        );
        assert_eq!(value(&timer, "OnUnitInactiveSec"), "600000ms");
    }

    /// Asks the systemd of this machine, where there is one.
    #[test]
    fn systemd_accepts_the_files() {
        if ua_common::run::which("systemd-analyze").is_none() {
            return println!("skipped: there is no `systemd-analyze` on this machine");
        }
        let dir = tempfile::tempdir().unwrap();
        let nasty = ["/bin/true", "", ";", "a b", "\"'\\", "100%h", "$HOME ${X} $", "\\x41\\n", "é"];
        let timer_of = of(&nasty, "/tmp");
        let at = |suffix: &str| dir.path().join(format!("{}.{suffix}", timer_of.name));
        std::fs::write(at("service"), service(&timer_of)).unwrap();
        std::fs::write(at("timer"), timer(&timer_of)).unwrap();
        let output = std::process::Command::new("systemd-analyze")
            .args(["verify", "--user"])
            .args([at("service"), at("timer")])
            .env_clear()
            .env("HOME", dir.path())
            .env("PATH", "/usr/bin:/bin")
            .env("XDG_RUNTIME_DIR", dir.path())
            .output()
            .unwrap();
        assert_eq!(ua_tests::shown(&output), "exit: 0\n--- stdout\n--- stderr\n");
    }
}
