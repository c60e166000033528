//! The main job, for real and as a story: a tailnet, a deploy, staging seen by its operator and by nobody else, a bad
//! commit refused.

mod alone;

use std::process::Command;

use anyhow::{Context as _, Result, anyhow, ensure};
use camino::Utf8Path;
use console::style;

use crate::app::{self, Edit, Shape};
use crate::lab::{self, Control, Lab, Node, REPO};
use crate::ui::{self, Progress};
use crate::{picture, verify};

/// Makes workspaces whose runs ended an hour ago.
const WORKSPACES: &str = include_str!("bench/workspaces.py");

/// `cargo xtask demo`. A lab that was up before stays up; where none can run, the story is told without. With `pictures` its main screens become SVGs in that directory.
pub fn run(pictures: Option<&Utf8Path>, progress: &Progress) -> Result<()> {
    let available = lab::availability();
    // A picture is of the real thing.
    if pictures.is_some() {
        available.as_ref().map_err(|missing| anyhow!("the lab cannot run here: {missing}"))?;
    }
    if let Err(missing) = available {
        verify::build_tools()?;
        return alone::run(&missing);
    }
    verify::prepare(progress)?;
    let kept = Lab::attach().is_ok();
    say("A tailnet, an operator's laptop, a VPS, and an outsider: all on this machine, none of it faked.");
    let lab = Lab::up(progress)?;
    lab.install_tools(&lab::built_tools()?)?;
    let told = Stage { lab: &lab, pictures }.tell();
    if !kept {
        say("That was all. The lab goes down and leaves nothing.");
        Lab::down()?;
    }
    told
}

struct Stage<'a> {
    lab: &'a Lab,
    pictures: Option<&'a Utf8Path>,
}

impl Stage<'_> {
    fn tell(&self) -> Result<()> {
        let lab = self.lab;
        lab.use_control(Control::Https)?;
        let name = Node::Vps.magic_dns_name();
        let work = tempfile::tempdir()?;
        let repo = Utf8Path::from_path(work.path()).context("a temporary directory is text")?.join("repo");
        let first = app::make_repo(&repo, Shape::Feb)?;
        lab.install_repo(&repo)?;

        say("Is the VPS reachable the right way? One snapshot, one pong, one look-up.");
        self.screen("preflight", "ua-preflight --ssh", 0)?;

        say(&format!(
            "The operator deploys commit {}: exactly what is committed, built and proved on the VPS.",
            short(&first)
        ));
        self.screen("deploy", "ua-deploy", 0)?;
        self.screen("status", "ua-vpsctl status", 0)?;

        say("Staging is there, over verified TLS, for whoever is on the tailnet ...");
        self.act(Node::Laptop, &format!("curl -sS --fail -w '\\n' https://{name}:8443/api/health"), 0)?;
        let code = "curl -sS --fail -o /dev/null -w '%{http_code}\\n'";
        self.act(Node::Laptop, &format!("{code} https://{name}/"), 0)?;

        say("... and for nobody else: the outsider sees the public site, but neither the name nor the port.");
        self.act(Node::Outsider, &format!("{code} https://app.clearspringcg.com/"), 0)?;
        self.act(Node::Outsider, &format!("curl -sS --max-time 5 https://{name}/"), 6)?;
        let public = Node::Vps.public_address();
        let pinned = format!("curl -sS --max-time 5 --connect-to ::{public}: https://{name}:8443/");
        self.act(Node::Outsider, &pinned, 7)?;

        say("Runs have ended meanwhile. Their workspaces come into the mirror, whole and proved.");
        let make = ["python3", "-c", WORKSPACES, "/opt/universal_agent/AGENT_RUN_WORKSPACES", "3", "70000"];
        lab.vps().command(&make).user("ua").run()?;
        self.screen("sync", "ua-sync once", 0)?;

        say("What would a change of one page do? Only what it needs.");
        app::commit_edit(&repo, &Edit::WebTitle("Hello".to_owned()))?;
        lab.install_repo(&repo)?;
        self.screen("plan", "ua-deploy plan", 0)?;

        say("A commit whose build is red. It is refused before anything live is touched.");
        let red = app::commit_edit(&repo, &Edit::RedBuild)?;
        lab.install_repo(&repo)?;
        ui::data(format!("  (commit {})", short(&red)));
        self.screen("refused", "ua-deploy", 1)?;
        let serving = lab.laptop().command(&["ua-deploy", "status", "--json"]).dir(REPO).read()?;
        ensure!(serving.contains(&first), "the first commit no longer serves: {serving}");
        say(&format!("What serves is still {}.", short(&first)));

        say("And when the VPS is away, that is said within seconds, and nothing else happens.");
        lab.stop_tailscaled(Node::Vps)?;
        let away = self.screen("away", "ua-deploy", 12);
        lab.start_tailscaled(Node::Vps)?;
        away
    }

    /// Types a line on a node, on our own streams, and insists on its exit code.
    fn act(&self, node: Node, line: &str, code: i32) -> Result<()> {
        ui::data(prompt_line(&prompt(node), line));
        let argv = self.argv(node, line)?;
        let status = Command::new(&argv[0]).args(&argv[1..]).status().context("cannot run nsenter")?;
        ended(line, status.code(), code)
    }

    /// The same on the laptop, and makes a picture of the screen.
    fn screen(&self, name: &str, line: &str, code: i32) -> Result<()> {
        let Some(pictures) = self.pictures else { return self.act(Node::Laptop, line, code) };
        ui::data(prompt_line(&prompt(Node::Laptop), line));
        let (was, written) = picture::filmed(&self.argv(Node::Laptop, line)?)?;
        ui::data(written.trim_end());
        ended(line, Some(was), code)?;
        let svg = picture::svg(&prompt(Node::Laptop), line, &written)?;
        Ok(fs_err::write(pictures.join(format!("{name}.svg")), svg)?)
    }

    fn argv(&self, node: Node, line: &str) -> Result<Vec<String>> {
        let dir = if node == Node::Laptop { REPO } else { "/" };
        let terminal = std::env::var("TERM").unwrap_or_else(|_| "xterm-256color".to_owned());
        self.lab.node(node).command(&["sh", "-c", line]).dir(dir).env("TERM", &terminal).host_argv()
    }
}

fn prompt(node: Node) -> String {
    format!("{}$", node.name())
}

fn prompt_line(prompt: &str, line: &str) -> String {
    format!("{} {line}", style(prompt).cyan())
}

fn ended(line: &str, was: Option<i32>, code: i32) -> Result<()> {
    ensure!(was == Some(code), "`{line}` ended with {was:?}, not with {code}");
    ui::data(style(format!("(exit {code})")).dim().to_string());
    Ok(())
}

fn say(text: &str) {
    ui::data(format!("\n{}", style(text).bold()));
}

fn short(commit: &str) -> &str {
    commit.get(..10).unwrap_or(commit)
}
