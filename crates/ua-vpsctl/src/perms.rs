//! `fix-perms`: owner and mode of the files that hold secrets.

use std::time::Duration;

use ua_common::error::Failure;
use ua_common::exit::Exit;
use ua_common::output::printable;
use ua_common::report::{Check, Report};
use ua_common::transport::Script;

use crate::session::Session;

const PERMS: Script = Script { name: "perms", text: include_str!("../remote/perms.sh") };
const LIMIT: Duration = Duration::from_secs(30);

/// Mends them, or with `dry_run` says what it would mend.
pub fn fix(session: &Session<'_>, dry_run: bool, report: &mut Report) -> Result<(), Failure> {
    let env = &session.profile.env;
    let app = &session.context.settings.deploy_app_dir.0;
    let wanted: Vec<[&str; 3]> = vec![[&*env.file, &*env.owner, &*env.mode]];
    let mut args = vec![if dry_run { "yes" } else { "no" }, app.as_str()];
    args.extend(wanted.iter().flatten());
    let answer = session.ask(PERMS, &args, LIMIT)?;
    for [file, owner, mode] in wanted {
        let of = |word: &str| {
            let line = answer.stdout.lines().find_map(|line| {
                let (first, rest) = line.split_once('\t')?;
                (first == word && rest.split('\t').next() == Some(file)).then_some(rest)
            })?;
            Some(line.split('\t').skip(1).map(str::to_owned).collect::<Vec<_>>())
        };
        let right = [owner.to_owned(), mode.to_owned()];
        report.push(match (of("none"), of("odd"), of("was"), of("now")) {
            (Some(_), ..) => Check::fail("perms", Exit::Failed, format!("`{file}` is not there")),
            (_, Some(_), ..) => Check::fail(
                "perms",
                Exit::Failed,
                format!("`{file}` is a link or no file, and is left alone"),
            ),
            (_, _, Some(was), _) if was == right => {
                Check::pass("perms", format!("`{file}` is {owner} {mode}"))
            }
            (_, _, Some(was), Some(now)) if now == right => {
                Check::pass("perms", format!("`{file}` was {}, is {owner} {mode}", printable(&was.join(" "))))
            }
            (_, _, Some(was), None) if dry_run => Check::warn(
                "perms",
                format!("would make `{file}` {owner} {mode}; it is {}", printable(&was.join(" "))),
            ),
            _ => Check::fail("perms", Exit::Failed, format!("`{file}` could not be mended")),
        });
    }
    Ok(())
}
