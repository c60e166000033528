//! What is made from the code: the documents below `docs/`, the man pages among them, and the completions of the package.
//!
//! A crate of its own, since it needs every tool, and the other chores are to start without building them.

use anyhow::Result;
use clap::Command;
use clap::builder::Resettable;
use clap_complete::env::{Bash, EnvCompleter, Fish, Zsh};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use fs_err as fs;
use std::io::Write as _;
use std::path::Path;
use ua_common::cli::{self, Tool};
use ua_common::{complete, exit, report, settings};

/// The release that the man pages name.
const PACKAGE: &str = concat!("ua-tools ", env!("CARGO_PKG_VERSION"));

/// Where each shell looks for the completions that a package brings, and what it calls the file of a command.
const SHELLS: [(&dyn EnvCompleter, &str, &str, &str); 3] = [
    (&Bash, "usr/share/bash-completion/completions", "", ""),
    (&Zsh, "usr/share/zsh/vendor-completions", "_", ""),
    (&Fish, "usr/share/fish/vendor_completions.d", "", ".fish"),
];

/// Every tool.
pub fn tools() -> [Tool; 6] {
    [
        ua_preflight::tool(),
        ua_ssh_auth::tool(),
        ua_deploy::tool(),
        ua_sync::tool(),
        ua_staging::tool(),
        ua_vpsctl::tool(),
    ]
}

/// The command line of every tool, with what all tools share.
pub fn commands() -> [Command; 6] {
    tools().map(|tool| cli::with_common(tool.command))
}

/// Every document that is made: its path below `docs/`, and its text.
pub fn documents() -> Result<Vec<(String, String)>> {
    let mut made = vec![
        ("exit-codes.md".to_owned(), exit::markdown()),
        ("environment.md".to_owned(), settings::markdown()),
        ("ua.example.toml".to_owned(), settings::example()),
        ("report.schema.json".to_owned(), format!("{:#}\n", report::schema())),
    ];
    for command in commands() {
        let mut command = command.disable_help_subcommand(true);
        command.build();
        pages(&command, &mut made)?;
    }
    Ok(made)
}

/// Writes [`documents`] below `docs`, and takes away pages of what there is no longer.
pub fn write_documents(docs: &Path) -> Result<()> {
    let man = docs.join("man");
    if man.exists() {
        fs::remove_dir_all(&man)?;
    }
    fs::create_dir_all(&man)?;
    for (path, text) in documents()? {
        fs::write(docs.join(path), text)?;
    }
    Ok(())
}

/// Writes the completions of every tool for every shell below `root`, where an installed system has them: each is a
/// function that asks the tool itself.
pub fn write_completions(root: &Path) -> Result<()> {
    for (shell, dir, before, after) in SHELLS {
        let dir = root.join(dir);
        fs::create_dir_all(&dir)?;
        for command in commands() {
            let name = command.get_name().to_owned();
            let mut script = Vec::new();
            shell.write_registration(complete::VAR, &name, &name, &name, &mut script)?;
            if shell.is("zsh") {
                // The file is the function itself when zsh calls it for the first time, by the file's name.
                let function = format!("_clap_dynamic_completer_{}", name.replace('-', "_"));
                writeln!(script, "if [[ $funcstack[1] = _{name} ]]; then {function} \"$@\"; fi")?;
            }
            fs::write(dir.join(format!("{before}{name}{after}")), script)?;
        }
    }
    Ok(())
}

/// Writes the units of the mirror's timer below `root`, where the systemd of every user finds them.
pub fn write_units(root: &Path) -> Result<()> {
    let dir = root.join("usr/lib/systemd/user");
    fs::create_dir_all(&dir)?;
    for (file, text) in ua_sync::unit::packaged(ua_sync::timer::NAME, ua_sync::timer::INTERVAL) {
        fs::write(dir.join(file), text)?;
    }
    Ok(())
}

/// The page of a command, and those of its verbs.
fn pages(command: &Command, made: &mut Vec<(String, String)>) -> Result<()> {
    // Not every flag once more, of which some verbs have forty.
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage:").to_owned();
    let man = Man::new(command.clone().after_help(Resettable::Reset).override_usage(usage));
    let man = man.source(PACKAGE).manual("Universal Agent ops tools");
    let mut page = Vec::new();
    man.render(&mut page)?;
    let extra = extra(command).render();
    // Its definitions are at the head of the page already.
    page.extend_from_slice(extra.find(".SH").map_or("", |at| &extra[at..]).as_bytes());
    made.push((format!("man/{}", man.get_filename()), String::from_utf8(page)?));
    command.get_subcommands().try_for_each(|verb| pages(verb, made))
}

/// What stands below the options in `--help`, with its lines as they are; and where to read on.
fn extra(command: &Command) -> Roff {
    let mut roff = Roff::new();
    let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    for part in help.split("\n\n") {
        let headed = |heading: &str| part.strip_prefix(heading);
        let (section, lines) = match (headed("Examples:\n"), headed("Exit codes: ")) {
            (Some(lines), _) => ("EXAMPLES", lines),
            (_, Some(lines)) => ("EXIT STATUS", lines),
            _ => ("NOTES", part),
        };
        roff.control("SH", [section]);
        roff.control("nf", []);
        for line in lines.lines() {
            roff.text([roman(line)]);
        }
        roff.control("fi", []);
    }
    roff.control("SH", ["SEE ALSO"]);
    let tools = commands();
    let mut others: Vec<_> = tools.iter().flat_map(|tool| [bold(tool.get_name()), roman("(1), ")]).collect();
    others.push(roman("/usr/share/doc/ua-tools: exit codes, settings, runbooks"));
    roff.text(others);
    roff
}
