//! What a deploy needs before it can build: programs, names and keys; and how a build step fails.

use std::os::unix::ffi::OsStrExt as _;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use xtask::app::{self, Edit, Shape};
use xtask::lab::{Control, Lab, Node, OPERATOR};

use crate::Scenario;
use crate::deploy_first::{App, QUICK};

/// Every scenario of this module.
pub fn trials() -> Vec<(&'static str, Scenario)> {
    vec![
        ("old_program_is_refused_with_its_hint", old_program as Scenario),
        ("step_over_its_limit_names_the_limit", slow_step),
        ("step_killed_for_memory_is_told", killed_step),
        ("odd_path_is_refused_with_its_exclusion", odd_path),
        ("env_command_gives_the_keys", env_command),
    ]
}

/// Changes the profile that the trials deploy with.
fn change_profile(lab: &Lab, changes: &[(&str, &str)]) -> Result<()> {
    let mut profile = lab.laptop().command(&["cat", QUICK]).read()?;
    for (from, to) in changes {
        ensure!(profile.contains(from), "the profile has no {from:?}");
        profile = profile.replacen(from, to, 1);
    }
    lab.laptop().command(&["sh", "-c", "cat >\"$0\"", QUICK]).user(OPERATOR).stdin(profile).run()
}

/// The command of the web UI's build step.
const WEB_BUILD: &str = "run = \"npm ci --no-audit --no-fund && npm run build\"";

fn old_program(lab: &Lab) -> Result<()> {
    let app = App::fresh(lab)?;
    let before = app.traces()?;
    // Debian's own lies behind it on the build's PATH.
    lab.vps().sh("mv /usr/local/bin/node /usr/local/bin/node.away")?;
    let refused = app.deploy(&[], &[]);
    // A program that the owner put there is run as the owner, and need not be what its name says.
    let odd = "#!/bin/sh\nid -un >/tmp/asked-by\necho no version here\n";
    lab.vps()
        .command(&["sh", "-c", "cat >/usr/local/bin/node && chmod 755 /usr/local/bin/node"])
        .stdin(odd)
        .run()?;
    let unread = app.deploy(&[], &[]);
    lab.vps().sh("mv -f /usr/local/bin/node.away /usr/local/bin/node")?;
    let refused = refused?;
    refused.exit(31)?.says("contract.programs", "fail", "`node` (`/usr/bin/node`) is 18.")?;
    refused.says("contract.programs", "fail", ", but 20.9 or newer is needed")?;
    ensure!(refused.output.stderr.contains("deb.nodesource.com"), "{}", refused.output.stderr);
    let said = "`node --version` (`/usr/local/bin/node`) told no version: it printed `no version here`";
    unread?.exit(31)?.says("contract.programs", "fail", said)?;
    let by = lab.vps().command(&["cat", "/tmp/asked-by"]).read()?;
    ensure!(by.trim() == "ua", "{by} ran what the owner can write");
    ensure!(app.traces()? == before, "something was changed");
    app.deploy(&["--dry-run"], &[])?.exit(0)?.says("contract.programs", "pass", "(node 20.")?;
    Ok(())
}

fn slow_step(lab: &Lab) -> Result<()> {
    let app = App::fresh(lab)?;
    change_profile(lab, &[(WEB_BUILD, "run = \"sleep 60\""), ("within = \"40m\"", "within = \"2s\"")])?;
    let done = app.deploy(&[], &[])?;
    let said = "build step web-ui did not end within 2 s (`within` of the step in the profile)";
    done.exit(1)?.says("build", "fail", said)?;
    change_profile(lab, &[("within = \"2s\"\n", "")])?;
    let done = app.deploy(&["--build-timeout", "3"], &[])?;
    let said = "build step web-ui did not end within 3 s (`deploy.build_timeout`)";
    done.exit(1)?.says("build", "fail", said)?;
    let left = "systemctl list-units --all --plain --no-legend 'ua-deploy-build-*'";
    ensure!(lab.vps().sh(left)?.stdout.is_empty(), "a step goes on");
    Ok(())
}

/// Lifts the limit of the VPS's memory at the end of a trial.
struct Limited<'a>(&'a Lab);

impl Drop for Limited<'_> {
    fn drop(&mut self) {
        // The next trial would fail for want of memory, and say so.
        let _ = self.0.limit_memory(Node::Vps, None);
    }
}

fn killed_step(lab: &Lab) -> Result<()> {
    let app = App::fresh(lab)?;
    // More than the limit, less than would harm this machine.
    let hog = "python3 -c 'x = bytearray(3 << 29)'";
    change_profile(lab, &[(WEB_BUILD, &format!("run = \"{hog}; echo the step goes on; exit 3\""))])?;
    lab.limit_memory(Node::Vps, Some(1 << 30))?;
    let limited = Limited(lab);
    let done = app.deploy(&[], &[])?;
    drop(limited);
    done.exit(1)?.says("build", "fail", "build step web-ui was killed for memory (oom-kill): ")?;
    done.says("build", "fail", "the machine has ")?;
    ensure!(app.history()?[0]["detail"].to_string().contains("oom-kill"), "{:?}", app.history()?);
    // The same step where there is room.
    let done = app.deploy(&[], &[])?;
    done.exit(1)?.says("build", "fail", "build step web-ui failed with code 3")?;
    Ok(())
}

fn odd_path(lab: &Lab) -> Result<()> {
    let app = App::fresh(lab)?;
    let before = app.traces()?;
    for name in [&b"a\nb.md"[..], b"caf\xe9.md"] {
        std::fs::write(app.repo().as_std_path().join(std::ffi::OsStr::from_bytes(name)), "odd\n")?;
    }
    for args in [&["add", "--all"][..], &["commit", "--quiet", "--message", "Add odd names"]] {
        let identity = ["-c", "user.name=op", "-c", "user.email=op@localhost"];
        let git = Command::new("git").args(["-C", app.repo().as_str()]).args(identity).args(args).status()?;
        ensure!(git.success(), "git {args:?}");
    }
    app.edit(&Edit::Harmless("beside the odd ones".to_owned()))?;
    let done = app.deploy(&[], &[])?.output;
    let said = "`a\\nb.md` has a control character in its name";
    ensure!(done.code == 2 && done.stderr.contains(said), "{done:?}");
    ensure!(done.stderr.contains("`caf\u{fffd}.md` is not UTF-8 text"), "{done:?}");
    let hint = done.stderr.lines().find_map(|line| line.strip_prefix("hint: ")).context("a hint")?;
    let patterns =
        hint.strip_prefix("exclude = [").and_then(|rest| rest.split_once(']')).context("patterns")?.0;
    ensure!(app.traces()? == before, "something was changed");
    change_profile(lab, &[("exclude = [", &format!("exclude = [\n    {patterns},"))])?;
    app.deploy(&[], &[])?.exit(0)?.says("source.skipped", "warn", r"a\nb.md (excluded by the profile)")?;
    let found = lab.vps().sh("cd /opt/universal_agent && ls | grep -ac -e odd -e 'b.md' -e caf || :")?.stdout;
    ensure!(found.trim() == "0", "an excluded file was shipped");
    Ok(())
}

fn env_command(lab: &Lab) -> Result<()> {
    lab.use_control(Control::Https)?;
    let app = App::fresh_in(lab, Shape::Aug)?;
    let before = app.traces()?;
    let vault = "/etc/ua-secrets/production.env";
    let keys =
        "[env.keys]\nUA_OPS_TOKEN = \"set\"\nUA_VP_ENABLED_IDS = { contains = [\"vp.coder.primary\"] }\n";
    let profile = lab.laptop().command(&["cat", QUICK]).read()?;
    let (head, rest) = profile.split_once("[env.keys]").context("keys of the contract")?;
    let (_, tail) = rest.split_once("\n\n").context("a section behind them")?;
    let head: String =
        head.lines().filter(|line| !line.starts_with("command =")).map(|line| format!("{line}\n")).collect();
    let text = format!("{head}{keys}\n{tail}").replacen("token = ", "command = \"ua-secrets\"\ntoken = ", 1);
    lab.laptop().command(&["sh", "-c", "cat >\"$0\"", QUICK]).user(OPERATOR).stdin(text).run()?;
    let secret = lab.vps().command(&["cat", vault]).read()?;
    let secret =
        secret.lines().find_map(|line| line.strip_prefix("UA_OPS_TOKEN=")).context("a token")?.to_owned();
    let told = |done: &crate::deploy_first::Deployed| -> Result<()> {
        ensure!(!format!("{:?}", done.output).contains(&secret), "a secret was told");
        Ok(())
    };

    // It fails, and says how.
    lab.vps().sh("cp -p /opt/universal_agent/.env /root/env && sed -i /INFISICAL_CLIENT_SECRET/d /opt/universal_agent/.env")?;
    let done = app.deploy(&[], &[])?;
    let said = "`env.command` failed (code 1): ua-secrets: INFISICAL_CLIENT_SECRET is missing in";
    done.exit(31)?.says("contract.env", "fail", said)?;
    ensure!(done.output.stderr.contains("runuser -u ua -- env -i"), "{}", done.output.stderr);
    told(&done)?;
    lab.vps().sh("cp -p /root/env /opt/universal_agent/.env")?;
    // It prints no such key.
    lab.vps().sh(&format!("cp -p {vault} /root/vault && sed -i /UA_OPS_TOKEN/d {vault}"))?;
    let done = app.deploy(&[], &[])?;
    done.exit(31)?.says("contract.env", "fail", "with `env.command`: UA_OPS_TOKEN is missing")?;
    told(&done)?;
    ensure!(app.traces()? == before, "something was changed");

    lab.vps().sh(&format!("cp -p /root/vault {vault}"))?;
    let done = app.deploy(&[], &[])?;
    done.exit(0)?.says("contract.env", "pass", "with `env.command` says what the app needs (2 keys)")?;
    told(&done)?;
    // The smoke has the token of the command.
    done.says("public.ops_open", "pass", "with the VPS's own token")?;
    let kept = format!("grep -rlF {secret} /var/lib/ua-deploy || :");
    ensure!(lab.vps().sh(&kept)?.stdout.is_empty(), "a value was kept");

    // A changed value restarts every unit, and is told by its name.
    app.deploy(&["--dry-run"], &[])?.exit(0)?;
    lab.vps().sh(&format!("echo UA_NEW_KEY=some-value >>{vault}"))?;
    let processes = app.processes()?;
    let plan = app.deploy(&["--dry-run"], &[])?;
    plan.exit(0)?.says("plan.env", "pass", "UA_NEW_KEY added")?;
    app.deploy(&[], &[])?.exit(0)?;
    let (was, is) = (processes, app.processes()?);
    ensure!(
        was.lines().zip(is.lines()).filter(|(was, is)| was.starts_with("MainPID") && was == is).count() == 0,
        "{was}{is}"
    );

    // The doctor asks the same.
    let doctor = ["ua-vpsctl", "doctor", "--json"];
    let doctor = || {
        lab.laptop()
            .command(&doctor)
            .user(OPERATOR)
            .dir("/home/op/app")
            .env("UA_DEPLOY_PROFILE", QUICK)
            .output()
    };
    ensure!(doctor()?.stdout.contains("with `env.command` says what the app needs"), "{:?}", doctor()?);
    lab.vps().sh("rm -f /usr/local/bin/ua-secrets")?;
    let said = doctor()?;
    ensure!(
        said.stdout.contains("`env.command` failed (code 127)") && !said.stdout.contains(&secret),
        "{said:?}"
    );
    app::clear(lab, Shape::Feb)
}
