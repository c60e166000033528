//! `fix-perms`: owner and mode of the files that hold secrets.

use std::time::Duration;

use ua_common::error::Failure;
use ua_common::exit::Exit;
use ua_common::output::printable;
use ua_common::profile::Profile;
use ua_common::report::{Check, Report};
use ua_common::transport::Script;

use crate::session::Session;

const PERMS: Script = Script { name: "perms", text: include_str!("../remote/perms.sh") };
const LIMIT: Duration = Duration::from_secs(30);

/// How a file should be.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Relative to the app's directory.
    pub file: &'a str,
    /// `user:group`; empty where it stays whose it is.
    pub owner: &'a str,
    /// As `stat -c %a` prints it.
    pub mode: &'a str,
    /// Does every VPS have it?
    must: bool,
}

impl<'a> Wanted<'a> {
    /// All that the profile speaks of.
    fn of(profile: &'a Profile) -> Vec<Self> {
        let env = &profile.env;
        let env = Self { file: &env.file, owner: &env.owner, mode: &env.mode, must: true };
        let others = profile.secrets.iter().map(|it| Self {
            file: &it.file,
            owner: it.owner.as_deref().unwrap_or_default(),
            mode: &it.mode,
            must: false,
        });
        std::iter::once(env).chain(others).collect()
    }
}

/// Mends them, or with `dry_run` says what it would mend.
pub fn fix(session: &Session<'_>, dry_run: bool, report: &mut Report) -> Result<(), Failure> {
    let app = &session.context.settings.deploy_app_dir.0;
    let wanted = Wanted::of(session.profile);
    let mut args = vec![if dry_run { "yes" } else { "no" }, app.as_str()];
    args.extend(wanted.iter().flat_map(|it| [it.file, it.owner, it.mode]));
    let answer = session.ask(PERMS, &args, LIMIT)?;
    for Wanted { file, owner, mode, must } in wanted {
        let of = |word: &str| {
            let line = answer.stdout.lines().find_map(|line| {
                let (first, rest) = line.split_once('\t')?;
                (first == word && rest.split('\t').next() == Some(file)).then_some(rest)
            })?;
            Some(line.split('\t').skip(1).map(str::to_owned).collect::<Vec<_>>())
        };
        let right = |is: &[String]| is.len() == 2 && (owner.is_empty() || is[0] == owner) && is[1] == mode;
        let wish = if owner.is_empty() { mode.to_owned() } else { format!("{owner} {mode}") };
        let said = |is: &[String]| printable(&is.join(" "));
        report.push(match (of("none"), of("odd"), of("was"), of("now")) {
            (Some(_), ..) if !must => Check::skip("perms", format!("`{file}` is not there")),
            (Some(_), ..) => Check::fail("perms", Exit::Failed, format!("`{file}` is not there")),
            (_, Some(_), ..) => Check::fail(
                "perms",
                Exit::Failed,
                format!("`{file}` is a link or no file, and is left alone"),
            ),
            (_, _, Some(was), _) if right(&was) => {
                Check::pass("perms", format!("`{file}` is {}", said(&was)))
            }
            (_, _, Some(was), Some(now)) if right(&now) => {
                Check::pass("perms", format!("`{file}` was {}, is {}", said(&was), said(&now)))
            }
            (_, _, Some(was), None) if dry_run => {
                Check::warn("perms", format!("would make `{file}` {wish}; it is {}", said(&was)))
            }
            _ => Check::fail("perms", Exit::Failed, format!("`{file}` could not be mended")),
        });
    }
    Ok(())
}
