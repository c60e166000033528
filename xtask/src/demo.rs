//! The main job, for real and as a story: a tailnet, a deploy, staging seen by its operator and by nobody else, a bad
//! commit refused.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use camino::Utf8Path;
use console::style;

use crate::app::{self, Edit};
use crate::lab::{self, Control, Lab, Node, REPO};
use crate::ui::{self, Progress};
use crate::verify;

/// `cargo xtask demo`. A lab that was up before stays up.
pub fn run(progress: &Progress) -> Result<()> {
    verify::build_tools()?;
    let kept = Lab::attach().is_ok();
    say("A tailnet, an operator's laptop, a VPS, and an outsider: all on this machine, none of it faked.");
    let lab = Lab::up(progress)?;
    lab.install_tools(&lab::built_tools()?)?;
    let told = tell(&lab);
    if !kept {
        say("That was all. The lab goes down and leaves nothing.");
        Lab::down()?;
    }
    told
}

fn tell(lab: &Lab) -> Result<()> {
    lab.use_control(Control::Https)?;
    let name = Node::Vps.magic_dns_name();
    let work = tempfile::tempdir()?;
    let repo = Utf8Path::from_path(work.path()).context("a temporary directory is text")?.join("repo");
    let first = app::make_repo(&repo)?;
    lab.install_repo(&repo)?;

    say("Is the VPS reachable the right way? One snapshot, one pong, one look-up.");
    act(lab, Node::Laptop, "ua-preflight --ssh", 0)?;

    say(&format!(
        "The operator deploys commit {}: exactly what is committed, built and proved on the VPS.",
        short(&first)
    ));
    act(lab, Node::Laptop, "ua-deploy", 0)?;

    say("Staging is there, over verified TLS, for whoever is on the tailnet ...");
    act(lab, Node::Laptop, &format!("curl -sS --fail -w '\\n' https://{name}:8443/version"), 0)?;
    act(
        lab,
        Node::Laptop,
        &format!("curl -sS --fail -o /dev/null -w '%{{http_code}}\\n' https://{name}/"),
        0,
    )?;

    say("... and for nobody else: the outsider sees the public site, but neither the name nor the port.");
    act(
        lab,
        Node::Outsider,
        "curl -sS --fail -o /dev/null -w '%{http_code}\\n' https://app.clearspringcg.com/",
        0,
    )?;
    act(lab, Node::Outsider, &format!("curl -sS --max-time 5 https://{name}/"), 6)?;
    let pinned =
        format!("curl -sS --max-time 5 --connect-to ::{}: https://{name}:8443/", Node::Vps.public_address());
    act(lab, Node::Outsider, &pinned, 7)?;

    say("A commit whose build is red. It is refused before anything live is touched.");
    let red = app::commit_edit(&repo, &Edit::RedBuild)?;
    lab.install_repo(&repo)?;
    ui::data(format!("  (commit {})", short(&red)));
    act(lab, Node::Laptop, "ua-deploy", 1)?;
    let serving =
        lab.laptop().command(&["curl", "-sS", "--fail", &format!("https://{name}:8443/version")]).read()?;
    ensure!(serving.contains(&first), "the first commit no longer serves: {serving}");
    say(&format!("What serves is still {}.", short(&first)));

    say("And when the VPS is away, that is said within seconds, and nothing else happens.");
    lab.stop_tailscaled(Node::Vps)?;
    let away = act(lab, Node::Laptop, "ua-deploy", 12);
    lab.start_tailscaled(Node::Vps)?;
    away
}

fn say(text: &str) {
    ui::data(format!("\n{}", style(text).bold()));
}

fn short(commit: &str) -> &str {
    commit.get(..10).unwrap_or(commit)
}

/// Types a line on a node, on our own streams, and insists on its exit code.
fn act(lab: &Lab, node: Node, line: &str, code: i32) -> Result<()> {
    ui::data(format!("{} {line}", style(format!("{}$", node.name())).cyan()));
    let mut exec =
        lab.node(node).command(&["sh", "-c", line]).dir(if node == Node::Laptop { REPO } else { "/" });
    if let Ok(terminal) = std::env::var("TERM") {
        exec = exec.env("TERM", &terminal);
    }
    let argv = exec.host_argv()?;
    let status = Command::new(&argv[0]).args(&argv[1..]).status().context("cannot run nsenter")?;
    ensure!(status.code() == Some(code), "`{line}` ended with {status}, not with {code}");
    ui::data(style(format!("(exit {code})")).dim().to_string());
    Ok(())
}
