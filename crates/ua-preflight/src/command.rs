//! The command line.

use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command};
use ua_common::cli::{Context, Tool};
use ua_common::complete::{self, Candidates};
use ua_common::exit::Exit;
use ua_common::interrupt;
use ua_common::report::{Check, Lane, Report};
use ua_common::settings::value::{Base, Value};
use ua_common::settings::{Layer, Origin, Raw, table};

use crate::{Options, check};

const EXAMPLES: &str = "\
Exit codes: 0 ok, 2 usage, 10 no tailscale, 11 tailscale down,
12 peer unreachable, 13 DNS, 14 not a MagicDNS name, 20 no SSH server,
21 SSH would refuse, 130 interrupted

Examples:
  ua-preflight                           check the VPS of the settings
  ua-preflight -q && ./old-script.sh     gate a script on it
  ua-preflight root@vps.tail1234.ts.net  check another target
  ua-preflight --ssh --wait 2m           after a reboot, until its sshd answers
  ua-preflight --json | jq -r .verdict   pass, warn, skip or fail";

/// `ua-preflight`.
pub fn tool() -> Tool {
    let host = Arg::new("HOST")
        .help("Target as user@MagicDNS-name; the same as --host")
        .conflicts_with("host.vps")
        .add(Candidates::new(complete::hosts));
    let ssh = Arg::new("ssh")
        .long("ssh")
        .action(ArgAction::SetTrue)
        .help("Also see that an SSH server answers, and which one");
    let wait = Arg::new("wait")
        .long("wait")
        .value_name("DURATION")
        .value_parser(duration)
        .help("Keep asking this long while the peer may still come (30, 90s, 5m)");
    let command = Command::new("ua-preflight")
        .about("Is the VPS reachable the right way, over the tailnet?")
        .after_help(EXAMPLES)
        .args([host, ssh, wait])
        .args(
            table::flags(&["host", "ssh", "preflight"])
                .into_iter()
                .filter(|arg| arg.get_id() != "ssh.check_wait"),
        );
    Tool { layer: positional, ..Tool::new("ua-preflight", Lane::Vps, command, run) }
}

fn duration(text: &str) -> Result<Duration, String> {
    let base = Base { dir: std::path::Path::new("/"), home: None };
    Duration::parse_text(text, &base).map_err(|why| format!("not {}{why}", Duration::takes()))
}

/// HOST is `host.vps`, said shorter.
fn positional(matches: &ArgMatches) -> Layer {
    let host = matches.get_one::<String>("HOST");
    host.map(|host| ("host.vps", (Raw::Text(host.clone()), Origin::Flag("HOST".to_owned()))))
        .into_iter()
        .collect()
}

#[allow(clippy::unnecessary_wraps, reason = "the signature that every tool shares")]
fn run(matches: &ArgMatches, context: &Context) -> anyhow::Result<Exit> {
    let mut report = Report::new("ua-preflight", Lane::Vps, context.settings.host_vps.to_string());
    let options = Options { ssh: matches.get_flag("ssh"), wait: matches.get_one("wait").copied() };
    let preflight = check(&context.settings, &context.out, options);
    for check in preflight.checks {
        report.push(check);
    }
    if interrupt::requested() && report.exit() != Exit::Interrupted {
        report.checks.insert(0, Check::fail("run", Exit::Interrupted, "interrupted"));
    }
    if let Some(place) = preflight.place {
        report.data.insert("name".to_owned(), place.name.into());
        report.data.insert("ip".to_owned(), place.addresses.first().map(ToString::to_string).into());
        report.data.insert("myself".to_owned(), place.myself.into());
    }
    Ok(context.finish(&[report]))
}
