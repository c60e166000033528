//! The Debian package on the operator's machine: put there over an older one, used, and taken away.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use camino::Utf8Path;
use serde_json::Value;
use xtask::dist::{PACKAGE, Package, TOOLS, VERSION};
use xtask::lab::{self, Exec, Lab, OPERATOR};

use crate::{Scenario, is_report};

pub(crate) fn trials() -> Vec<(&'static str, Scenario)> {
    vec![("the_package_is_installed_upgraded_used_and_removed", package as Scenario)]
}

/// As root, and with nothing on the `PATH` but what packages bring.
fn root<'a>(lab: &'a Lab, words: &[&str]) -> Exec<'a> {
    lab.laptop().command(words).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").timeout(Duration::from_mins(1))
}

fn operator<'a>(lab: &'a Lab, words: &[&str]) -> Exec<'a> {
    root(lab, words).user(OPERATOR)
}

fn package(lab: &Lab) -> Result<()> {
    let built = tempfile::tempdir()?;
    let out = Utf8Path::from_path(built.path()).context("a temporary path is text")?;
    let (source, programs) = (lab::checkout()?, lab::built_tools()?);
    let make_docs = programs.join("make-docs");
    // What a version tells from another is its number alone.
    for (version, name) in [("0.0.1", "old"), (VERSION, "new")] {
        let made =
            Package { source: &source, programs: &programs, make_docs: &make_docs, version }.make(out)?;
        std::fs::copy(made, lab.laptop().path(format!("/root/{name}.deb"))?)?;
    }
    let config = "mkdir -p ~/.config/ua && echo '[preflight]\ntimeout = 5' >~/.config/ua/ua.toml";
    operator(lab, &["sh", "-ec", config]).run()?;

    root(lab, &["dpkg", "-i", "/root/old.deb"]).run()?;
    // What somebody bent is as it was after the next one.
    root(lab, &["sh", "-c", ": >/usr/bin/ua-sync"]).run()?;
    root(lab, &["dpkg", "-i", "/root/new.deb"]).run()?;
    let tested = installed(lab).and_then(|()| removed(lab));
    if tested.is_err() {
        // The next trial has the laptop as it was.
        root(lab, &["dpkg", "-P", PACKAGE]).run()?;
    }
    root(lab, &["rm", "/root/old.deb", "/root/new.deb"]).run()?;
    tested
}

fn installed(lab: &Lab) -> Result<()> {
    let state = root(lab, &["dpkg-query", "-W", "-f", "${Version} ${db:Status-Status}", PACKAGE]).read()?;
    ensure!(state == format!("{VERSION} installed"), "{state}");
    let differing = root(lab, &["dpkg", "--verify", PACKAGE]).read()?;
    ensure!(differing.is_empty(), "not as packed: {differing}");
    let listed = root(lab, &["dpkg", "-L", PACKAGE]).read()?;
    let owned =
        root(lab, &["sh", "-c", "dpkg -L \"$0\" | xargs stat -c '%U:%G %a %n' --", PACKAGE]).read()?;
    let odd = owned.lines().find(|line| {
        !line.starts_with("root:root 755 ")
            && !line.starts_with("root:root 644 ")
            && !line.starts_with("root:root 777 ")
    });
    ensure!(odd.is_none(), "{odd:?}");

    for tool in TOOLS {
        let said = operator(lab, &[tool, "--version"]).read()?;
        ensure!(said == format!("{tool} {VERSION}\n"), "{said}");
        for path in [
            format!("/usr/share/bash-completion/completions/{tool}"),
            format!("/usr/share/zsh/vendor-completions/_{tool}"),
            format!("/usr/share/fish/vendor_completions.d/{tool}.fish"),
            format!("/usr/share/man/man1/{tool}.1.gz"),
        ] {
            ensure!(listed.lines().any(|line| line == path), "{path} is not in the package:\n{listed}");
        }
        let page = format!("/usr/share/man/man1/{tool}.1.gz");
        let page = operator(lab, &["gzip", "-dc", &page]).read()?;
        ensure!(page.contains(&format!(".TH {tool} 1")), "{page}");
        // Where there is a man, it finds the page by its name.
        let found =
            operator(lab, &["sh", "-c", "! command -v man >/dev/null || man -w \"$0\"", tool]).read()?;
        ensure!(found.is_empty() || found.contains("/usr/share/man/man1/"), "{found}");
        let typed = format!(
            ". /usr/share/bash-completion/completions/{tool}; asked=$(complete -p {tool} | sed 's/.*-F \\([^ ]*\\).*/\\1/'); COMP_WORDS=({tool} --js); COMP_CWORD=1; $asked {tool} --js {tool}; echo \"${{COMPREPLY[*]}}\""
        );
        let offered = operator(lab, &["bash", "-c", &typed]).read()?;
        ensure!(offered == "--json\n", "{offered}");
    }

    // The installed programs do their work and report it as the schema says, by the settings that were there before them.
    for line in [
        "ua-preflight --ssh",
        "ua-ssh-auth check",
        "ua-deploy status",
        "ua-staging status",
        "ua-sync once --dry-run",
        "ua-vpsctl sessions",
        "ua-vpsctl settings",
    ] {
        let words: Vec<&str> = line.split(' ').chain(["--json"]).collect();
        let said = operator(lab, &words).env("UA_REPO_DIR", "/home/op").output()?;
        let report: Value =
            serde_json::from_str(&said.stdout).with_context(|| format!("{line}: {said:?}"))?;
        is_report(&report)?;
        ensure!(report["exit_code"] == said.code && report["version"] == VERSION, "{line}: {said:?}");
        ensure!(report["tool"] == words[0], "{line}: {said:?}");
    }
    operator(lab, &["ua-preflight"]).run()?;
    let said = operator(lab, &["ua-vpsctl", "settings", "--format", "tsv"]).read()?;
    ensure!(said.contains("preflight.timeout\t5s\t"), "{said}");
    units(lab)?;
    // The example that it brings is a file of settings.
    let example = format!("/usr/share/doc/{PACKAGE}/examples/ua.toml");
    operator(lab, &["ua-vpsctl", "settings"]).env("UA_CONFIG", &example).run()
}

/// The units that it brings for every user: off, and at work by the user's own settings when somebody turns them on.
fn units(lab: &Lab) -> Result<()> {
    const NAME: &str = "ua-remote-workspace-sync";
    let systemctl = |args: &[&str]| operator(lab, &[&["systemctl", "--user"], args].concat()).output();
    systemctl(&["daemon-reload"])?;
    let state = systemctl(&["is-enabled", &format!("{NAME}.timer")])?;
    ensure!(state.stdout == "disabled\n", "{state:?}");
    let settings = "mkdir -p ~/agent/AGENT_RUN_WORKSPACES && printf '[repo]\\ndir = \"~/agent\"\\n' >>~/.config/ua/ua.toml";
    operator(lab, &["sh", "-ec", settings]).run()?;
    systemctl(&["start", NAME])?;
    // By the name of the program: the journal does not know the unit of a process that has just ended.
    let log = ["journalctl", "--user", "-q", "-o", "cat", "-t", "ua-sync"];
    let log = operator(lab, &log).read()?;
    ensure!(log.contains("toggle"), "{log}");
    systemctl(&["reset-failed"])?;
    operator(lab, &["rm", "-r", "/home/op/agent"]).run()
}

fn removed(lab: &Lab) -> Result<()> {
    let files = root(
        lab,
        &[
            "sh",
            "-c",
            "dpkg -L \"$0\" | while read -r path; do [ -d \"$path\" ] || echo \"$path\"; done",
            PACKAGE,
        ],
    )
    .read()?;
    ensure!(files.lines().count() > 60, "{files}");
    root(lab, &["dpkg", "-r", PACKAGE]).run()?;
    // Removed alone is gone: nothing waits for a purge.
    let left = "dpkg-query -W \"$0\" 2>/dev/null; find / -xdev \\( -path /proc -o -path /opt/ua \\) -prune -o -path \"*/$0\" -print; while read -r path; do [ ! -e \"$path\" ] || echo \"$path\"; done";
    let left = root(lab, &["sh", "-c", left, PACKAGE]).stdin(files).read()?;
    ensure!(left.is_empty(), "left behind: {left}");
    let kept = operator(lab, &["sh", "-c", "cat ~/.config/ua/ua.toml"]).read()?;
    ensure!(kept.contains("timeout = 5"), "{kept}");
    Ok(())
}
