//! What the tools were asked for in the first place, as scenarios: they deploy by names of the tailnet, fail clearly
//! when there is no way, serve staging to its operator, leave the public side alone, and cost nothing for nothing.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use xtask::app::Edit;
use xtask::lab::{Exec, Lab, Node, OPERATOR};

use crate::Scenario;
use crate::deploy_first::{API, App, Deployed, UI, status};
use crate::prober::{PUBLIC, Prober};
use crate::sync::what_is_ready_comes;
use crate::watch::watched;

/// By mode `keys` at the port that Tailscale SSH leaves to sshd.
const KEYS: (&str, &str) = ("UA_SSH_KEYS_PORT", "2222");
const TAILSCALE_SSH: (&str, &str) = ("UA_SSH_AUTH_MODE", "tailscale_ssh");

/// No unit of the sample app takes longer to restart.
const RESTART: Duration = Duration::from_secs(5);

/// What was asked for, in these words. `cargo xtask e2e acceptance` says of each whether it is so.
pub fn criteria() -> Vec<(&'static str, Scenario)> {
    vec![
        ("1. MagicDNS-only tools deploy and sync", deploy_and_sync as Scenario),
        ("2. They fail clearly when the peer is offline", offline),
        ("3. The staging endpoint answers healthy UI and API over the tailnet", staging),
        ("4. Public endpoints are unaffected", public),
        ("5. Both SSH modes validate in staged checks", both_modes),
    ]
}

/// What else a deploy is trusted for.
pub fn trials() -> Vec<(&'static str, Scenario)> {
    vec![
        ("a_clone_of_3000_files_deploys", large_clone as Scenario),
        ("p42_a_host_with_another_key_than_the_tailnet_gives_is_refused", other_host_key),
        ("p43_the_ops_token_is_in_no_list_of_arguments_and_no_log", token),
        ("p53_an_unchanged_tree_costs_no_build_no_restart_no_upload", unchanged),
    ]
}

/// A program as the operator types it, beside the app.
fn typed<'a>(lab: &'a Lab, words: &[&str], env: &[(&str, &str)]) -> Exec<'a> {
    let exec = lab.laptop().command(words).user(OPERATOR).dir("/home/op/app");
    env.iter().fold(exec, |exec, (name, value)| exec.env(name, value)).timeout(Duration::from_mins(3))
}

/// What a tool reports.
fn tool(lab: &Lab, words: &[&str], env: &[(&str, &str)]) -> Result<Deployed> {
    Deployed::read(typed(lab, &[words, &["--json"]].concat(), env).output()?)
}

/// A commit that every unit has to be restarted for, so that each must tell it.
fn change_all(app: &App<'_>, text: &str) -> Result<String> {
    app.edit(&Edit::WebTitle(text.to_owned()))?;
    app.edit(&Edit::Harmless(text.to_owned()))
}

/// One verb of every tool, and of `ua-deploy` every one.
const VERBS: [&[&str]; 13] = [
    &["ua-preflight"],
    &["ua-ssh-auth", "check"],
    &["ua-sync", "once"],
    &["ua-vpsctl", "status"],
    &["ua-staging", "verify"],
    &["ua-staging", "ensure"],
    &["ua-deploy"],
    &["ua-deploy", "plan"],
    &["ua-deploy", "status"],
    &["ua-deploy", "history"],
    &["ua-deploy", "attach"],
    &["ua-deploy", "rollback"],
    &["ua-deploy", "unlock", "20260221T120000.000Z-012d5311a958"],
];

fn deploy_and_sync(lab: &Lab) -> Result<()> {
    deploy_by_name(lab)?;
    lab.reset()?;
    what_is_ready_comes(lab)
}

fn deploy_by_name(lab: &Lab) -> Result<()> {
    let app = App::fresh(lab)?;
    let before = app.traces()?;
    for host in [
        "root@100.64.0.2",
        "root@10.99.0.12",
        "root@app.clearspringcg.com",
        "root@srv1360701.tail99999.ts.net",
    ] {
        for verb in VERBS {
            let refused = tool(lab, verb, &[("UA_VPS_HOST", host)])?;
            refused.exit(14).with_context(|| format!("{verb:?} to {host}"))?;
            let said = &refused.output.stderr;
            // Where the name came from; and for an address of the peer, the name to use instead.
            ensure!(said.contains("UA_VPS_HOST") && said.contains("hint: "), "{verb:?} to {host}: {said}");
            let named = host != "root@100.64.0.2" || said.contains("root@srv1360701.taildcc090.ts.net");
            ensure!(named, "{verb:?} to {host} names no replacement: {said}");
        }
    }
    ensure!(app.traces()? == before, "a refused run changed something");

    // The short name is completed by the tailnet, and the default is the full one.
    for env in [&[("UA_VPS_HOST", "root@srv1360701")][..], &[]] {
        let commit = change_all(&app, &format!("by {env:?}"))?;
        let done = app.deploy(&[], env)?;
        done.exit(0)?.says("host.policy", "pass", "srv1360701.taildcc090.ts.net")?;
        app.serves(&commit)?;
    }
    // Break-glass is a decision of the operator's, and is told on every run.
    let glass = [("UA_VPS_HOST", "root@100.64.0.2"), ("UA_BREAK_GLASS", "1")];
    tool(lab, &["ua-deploy", "status"], &glass)?.exit(0)?.says("host.break_glass", "warn", "").map(drop)
}

fn offline(lab: &Lab) -> Result<()> {
    let app = App::deployed(lab)?;
    let commit = app.head()?;
    let (before, deploys) = (app.traces()?, app.history()?.len());
    change_all(&app, "not now")?;
    lab.stop_tailscaled(Node::Vps)?;
    let judged = VERBS.iter().try_for_each(|verb| {
        let begun = Instant::now();
        let failed = tool(lab, verb, &[])?;
        let took = begun.elapsed();
        failed.exit(12).with_context(|| format!("{verb:?}"))?;
        let said = &failed.output.stderr;
        ensure!(said.contains("srv1360701") && said.contains("hint: "), "{verb:?}: {said}");
        ensure!(took < Duration::from_secs(5), "{verb:?} took {took:?} to say so");
        // For a person, too: the last line but hints is one verdict of one lane.
        ensure!(failed.reports.len() == 1, "{verb:?}: {:?}", failed.reports);
        ensure!(failed.reports[0]["verdict"] == "fail", "{verb:?}: {:?}", failed.reports);
        Ok(())
    });
    lab.start_tailscaled(Node::Vps)?;
    judged?;
    ensure!(app.traces()? == before, "something was changed");
    ensure!(app.history()?.len() == deploys, "{:?}", app.history()?);
    app.serves(&commit)?;
    // And then it works, with nothing to clean up.
    app.good().map(drop)
}

fn staging(lab: &Lab) -> Result<()> {
    let app = App::deployed(lab)?;
    let commit = app.head()?;
    let body = |url: &str| lab.laptop().command(&["curl", "-sS", "--fail", "--max-time", "5", url]).read();
    // TLS is verified: curl was not told otherwise.
    let page = body(UI)?;
    ensure!(page.contains("<html") || page.contains("<!doctype html>"), "{page}");
    ensure!(body(API)?.contains("\"healthy\""), "{}", body(API)?);
    app.serves(&commit)?;
    // No server of the app says which commit it runs.
    for base in [UI.trim_end_matches('/'), API.trim_end_matches("/api/health")] {
        let code = status(lab, Node::Laptop, &format!("{base}/version"))?;
        ensure!(code == "404", "{base}/version answers {code}");
    }
    let verified = tool(lab, &["ua-staging", "verify"], &[])?;
    verified.exit(0)?.says("staging.ui", "pass", "200")?.says("staging.api", "pass", "200")?;
    for (service, url) in [("ui", UI), ("api", API)] {
        let printed = typed(lab, &["ua-staging", "url", service], &[]).read()?;
        ensure!(url.starts_with(printed.trim()), "{service} is said to be at {printed}");
    }
    // Nobody else sees it: not by name, not by address, whatever name is asked for there.
    let forced = |url: &str| {
        let to = format!("::{}:", Node::Vps.public_address());
        let ask =
            ["curl", "-s", "-o", "/dev/null", "-m", "5", "-w", "%{http_code}", "--connect-to", &to, url];
        anyhow::Ok(lab.node(Node::Outsider).exec(&ask)?.stdout)
    };
    for url in [UI, API] {
        let (by_name, by_address) = (status(lab, Node::Outsider, url)?, forced(url)?);
        ensure!(by_name == "000" && by_address == "000", "{url}: {by_name}, {by_address}");
    }
    // It is not taken for healthy when it is not.
    lab.vps().command(&["systemctl", "stop", "universal-agent-api"]).run()?;
    let ill = tool(lab, &["ua-staging", "verify"], &[("UA_TAILNET_STAGING_HEALTH_MAX_ATTEMPTS", "1")])?;
    lab.vps().command(&["systemctl", "start", "universal-agent-api"]).run()?;
    ill.exit(41)?.says("staging.ui", "pass", "200")?.says("staging.api", "fail", "").map(drop)
}

/// Both endpoints, asked ten times a second while something is done.
fn probed(lab: &Lab, act: impl FnOnce() -> Result<()>) -> Result<[crate::prober::Seen; 2]> {
    let prober = Prober::start(lab, &PUBLIC)?;
    act()?;
    let mut seen = prober.end()?;
    let mut of = |url: &str| seen.remove(url).with_context(|| format!("nobody asked {url}"));
    let both = [of(PUBLIC[0])?, of(PUBLIC[1])?];
    for (url, seen) in PUBLIC.iter().zip(&both) {
        ensure!(seen.asked > 5, "{url} was hardly asked: {seen}");
    }
    Ok(both)
}

fn public(lab: &Lab) -> Result<()> {
    let app = App::deployed(lab)?;
    // The prober does see an outage, and how long it was.
    let outage =
        "systemctl stop universal-agent-gateway && sleep 1 && systemctl start universal-agent-gateway
        until curl -sf -o /dev/null http://127.0.0.1:8002/api/v1/health; do sleep 0.05; done";
    let [of_app, of_gateway] = probed(lab, || lab.vps().command(&["sh", "-c", outage]).run())?;
    ensure!(of_app.failed == 0 && of_gateway.failed > 3, "{of_app}; {of_gateway}");
    ensure!(of_gateway.longest > Duration::from_secs(1), "{of_gateway}");

    let undisturbed = |what: &str| {
        let seen = probed(lab, || app.deploy(&[], &[])?.exit(0).map(drop))?;
        for (url, seen) in PUBLIC.iter().zip(&seen) {
            ensure!(seen.failed == 0, "{what}: {url}: {seen}");
            ensure!(seen.longest < Duration::from_secs(2), "{what}: {url} stalled: {seen}");
        }
        anyhow::Ok(())
    };
    undisturbed("nothing changed")?;
    app.edit(&Edit::Write("docs/notes.md".into(), "New.\n".to_owned()))?;
    undisturbed("a document changed")?;

    app.edit(&Edit::WorkerTemplate("Everything".to_owned()))?;
    let commit = change_all(&app, "Everything")?;
    let seen = probed(lab, || app.deploy(&[], &[])?.exit(0).map(drop))?;
    for (url, seen) in PUBLIC.iter().zip(&seen) {
        ensure!(seen.longest < RESTART, "{url} was away for longer than a restart: {seen}");
    }
    app.serves(&commit)
}

fn both_modes(lab: &Lab) -> Result<()> {
    let modes = [(KEYS, "accepted ED25519"), (TAILSCALE_SSH, "method `none`")];
    lab.set_tailscale_ssh(true)?;
    // The stages of a cut-over: both are proved side by side, then canaries go by the new one while the tools do not.
    tool(lab, &["ua-ssh-auth", "check", "--both"], &[KEYS])?.exit(0)?;
    let canary = tool(lab, &["ua-ssh-auth", "canary"], &[KEYS])?;
    canary.exit(0)?.says("canary.rsync", "pass", "")?.says("canary.reconnect", "pass", "")?;
    for (mode, proof) in modes {
        lab.reset()?;
        let app = App::fresh(lab)?;
        lab.set_tailscale_ssh(true)?;
        // Where Tailscale SSH answers instead of sshd, a run in mode `keys` goes on with a warning.
        app.deploy(&["--dry-run"], &[])?.exit(0)?.says("ssh", "warn", "Tailscale SSH holds")?;
        every_verb(lab, &app, mode, proof).with_context(|| format!("with {}={}", mode.0, mode.1))?;
    }
    Ok(())
}

/// The life of a few releases, by one way in.
fn every_verb(lab: &Lab, app: &App<'_>, mode: (&str, &str), proof: &str) -> Result<()> {
    let env = &[mode];
    app.deploy(&[], env)?.exit(0)?.says("ssh", "pass", proof)?;
    let first = app.head()?;
    app.serves(&first)?;

    let second = change_all(app, "Second")?;
    app.deploy(&[], env)?.exit(0)?.says("ssh", "pass", proof)?.serving("new")?;
    app.serves(&second)?;

    app.edit(&Edit::ApiBroken)?;
    app.deploy(&["--ready-timeout", "15"], env)?.exit(33)?.serving("old")?;
    app.serves(&second)?;

    app.run(&["rollback"], &[], env)?.exit(0)?;
    app.serves(&first)?;
    // What there is to say of it, for whoever comes later.
    app.run(&["attach"], &[], env)?.exit(0)?.says("ssh", "pass", proof)?.says("deploy", "pass", &first)?;
    let status = app.run(&["status"], &[], env)?;
    status.exit(0)?.says("serving", "pass", &first)?.says("drift", "pass", "")?.says("lock", "pass", "")?;
    let history = app.run(&["history"], &[], env)?;
    let rows = history.exit(0)?.reports[0]["data"]["rows"].as_array().context("rows")?;
    let verdicts: Vec<&str> = rows.iter().filter_map(|row| row["verdict"].as_str()).collect();
    ensure!(verdicts == ["ok", "ok", "rolled-back", "ok"], "{verdicts:?}");
    ensure!(rows[3]["commit"] == *first && rows[3]["rollback_from"] == rows[1]["id"], "{}", rows[3]);

    let staging = |verb: &str| tool(lab, &["ua-staging", verb], env);
    for verb in ["verify", "ensure", "status"] {
        staging(verb)?.exit(0).with_context(|| format!("ua-staging {verb}"))?;
    }
    tool(lab, &["ua-vpsctl", "status"], env)?.exit(0)?.says("units", "pass", "all 6 run")?;
    staging("reset")?.exit(0)?;
    staging("verify")?.exit(42)?;
    staging("ensure")?.exit(0)?.says("staging.api", "pass", "200").map(drop)
}

/// Files of every kind and name that git and a line-oriented list can hold, in `docs/` and at the top of `app`.
const VARIED: &str = include_str!("varied.py");

/// Everything that lies at those places: path, kind, content, and whether it may be executed.
const LISTING: &str = include_str!("listing.py");

/// What the laptop has at those places and the VPS has not, and the other way round.
fn same_files(lab: &Lab) -> Result<()> {
    let listing = |node: Node, dir: &str| {
        let text = lab.node(node).command(&["python3", "-c", LISTING, dir]).read()?;
        anyhow::Ok(text.split('\n').map(str::to_owned).collect::<std::collections::BTreeSet<_>>())
    };
    let (laptop, vps) = (listing(Node::Laptop, "/home/op/app")?, listing(Node::Vps, "/opt/universal_agent")?);
    let missing: Vec<_> = laptop.difference(&vps).take(5).collect();
    let more: Vec<_> = vps.difference(&laptop).take(5).collect();
    ensure!(
        missing.is_empty() && more.is_empty(),
        "missing or other: {missing:#?}; more or other: {more:#?}"
    );
    Ok(())
}

/// The smallest number that a check tells: of "2 of 3179 files", two.
fn smallest(detail: &str) -> Option<u64> {
    let numbers = detail.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok());
    numbers.min()
}

fn large_clone(lab: &Lab) -> Result<()> {
    let app = App::fresh(lab)?;
    let on_laptop = |script: &str, stdin: &str| {
        let exec = lab.laptop().command(&["sh", "-ec", script]).user(OPERATOR).dir("/home/op/app");
        anyhow::Ok(exec.stdin(stdin).read()?.trim().to_owned())
    };
    let identity = "git config user.name op && git config user.email op@laptop";
    on_laptop(
        &format!(
            "python3 - && {identity} && git add --all && git commit -q -m 'All kinds of files'
             cd .. && rm -rf origin && mv app origin && git clone -q file:///home/op/origin app"
        ),
        VARIED,
    )?;
    on_laptop(identity, "")?;
    let head = || on_laptop("git rev-parse HEAD", "");
    ensure!(on_laptop("git ls-files | wc -l", "")?.parse::<u32>()? > 3000, "not so many");

    let received = || -> Result<u64> {
        let bytes = lab.vps().command(&["cat", "/sys/class/net/tailscale0/statistics/rx_bytes"]).read()?;
        Ok(bytes.trim().parse()?)
    };
    let start = received()?;
    app.deploy(&[], &[])?.exit(0)?;
    let whole = received()? - start;
    app.run(&["status"], &[], &[])?.exit(0)?.says("serving", "pass", &head()?)?;
    // The host has the parent of this commit only, which lacks the varied files.
    app.serves(&app.head()?)?;
    same_files(lab)?;

    on_laptop("echo new >'docs/varied/run me.sh' && git commit -q -a -m 'Change a file'", "")?;
    let start = received()?;
    let done = app.deploy(&[], &[])?;
    let one = received()? - start;
    done.exit(0)?;
    same_files(lab)?;
    // The manifest travels, 3 000 digests long; the files, of 2 KiB each, do not.
    ensure!(one < whole / 4, "{one} bytes came for one file, {whole} for all");
    let (_, detail) = done.check("transfer")?;
    ensure!(smallest(&detail).is_some_and(|sent| sent <= 5), "one file was changed: {detail}");

    let delete =
        "git ls-files -z docs/varied | head -z -n 500 | git rm -q --pathspec-from-file=- --pathspec-file-nul
        git commit -q -m 'Delete files'";
    // Names with stars are names here.
    on_laptop(&format!("export GIT_LITERAL_PATHSPECS=1; {delete}"), "")?;
    app.deploy(&[], &[])?.exit(0)?;
    same_files(lab)?;
    let strays = lab.vps().sh("find / -xdev -name pwned")?.stdout;
    ensure!(strays.is_empty(), "{strays}");
    let drift = app.run(&["status"], &[], &[])?;
    drift.exit(0)?.says("drift", "pass", "")?;
    app.run(&["rollback"], &[], &[])?.exit(0)?;
    on_laptop("git checkout -q HEAD~1", "")?;
    same_files(lab)
}

/// How often root logged in by sshd.
fn logins(lab: &Lab) -> Result<usize> {
    // On a busy machine journald may be behind what sshd told it.
    let journal = "journalctl --sync && journalctl --quiet --output=cat --unit=ssh";
    let journal = lab.vps().command(&["sh", "-c", journal]).read()?;
    Ok(journal.lines().filter(|line| line.starts_with("Accepted ")).count())
}

fn other_host_key(lab: &Lab) -> Result<()> {
    let app = App::fresh(lab)?;
    lab.set_tailscale_ssh(true)?;
    app.deploy(&[], &[KEYS])?.exit(0)?;
    let commit = app.head()?;
    change_all(&app, "for another host")?;
    // sshd shows other keys from now on; the tailnet gives those of before.
    lab.change_host_keys()?;
    let (before, in_before) = (app.traces()?, logins(lab)?);
    for verb in ["run", "plan", "status", "history", "attach", "rollback"] {
        let refused = app.run(&[verb], &[], &[KEYS])?;
        refused.exit(23).with_context(|| verb.to_owned())?;
        let hint = "known-hosts --refresh";
        ensure!(refused.output.stderr.contains(hint), "{verb}: {}", refused.output.stderr);
    }
    ensure!(logins(lab)? == in_before, "a root session was opened");
    ensure!(app.traces()? == before, "something was changed");
    app.serves(&commit)?;

    // The tailnet gives the new ones as soon as its own daemon has read them; somebody looks, and goes on.
    lab.restart_tailscaled(Node::Vps)?;
    lab.wait_for_host_key(&lab.vps().command(&["cat", "/etc/ssh/ssh_host_ed25519_key.pub"]).read()?)?;
    app.deploy(&[], &[KEYS])?.exit(23)?;
    tool(lab, &["ua-ssh-auth", "known-hosts", "--refresh"], &[KEYS])?.exit(0)?;
    app.deploy(&[], &[KEYS])?.exit(0)?;
    app.serves(&app.head()?)
}

fn token(lab: &Lab) -> Result<()> {
    let app = App::fresh(lab)?;
    let env = lab.vps().command(&["cat", "/opt/universal_agent/.env"]).read()?;
    let token = env.lines().find_map(|line| line.strip_prefix("UA_OPS_TOKEN=")).context("a token")?;
    // Never in an argument of ours either: it goes into a file, and from there into the tool's environment.
    let keep = "umask 077; cat >\"$HOME/needle\"";
    lab.laptop().command(&["sh", "-ec", keep]).user(OPERATOR).stdin(token).run()?;
    lab.vps().command(&["sh", "-ec", keep]).stdin(token).run()?;

    let deploy = |args: &str| {
        let script =
            format!("UA_OPS_TOKEN=$(cat ~/needle); export UA_OPS_TOKEN; exec ua-deploy run --json -v {args}");
        Deployed::read(typed(lab, &["sh", "-c", &script], &[]).output()?)
    };
    let files = ["/home/op/.local/state/ua/**"];
    let good = watched(lab, &files, || deploy(""))?;
    // It was used.
    good.done.exit(0)?.says("public.ops_open", "pass", "own token, asked there")?;
    app.edit(&Edit::ApiBroken)?;
    // A failure shows logs.
    let bad = watched(lab, &files, || deploy("--ready-timeout 15"))?;
    bad.done.exit(33)?;

    for watched in [&good, &bad] {
        // They did look.
        ensure!(watched.laptop.contains("ua-deploy run --json"), "nobody saw the tool: {}", watched.laptop);
        ensure!(watched.vps.contains("rsync --server"), "nobody saw rsync: {}", watched.vps);
        ensure!(watched.vps.contains("systemctl restart"), "nobody saw a restart: {}", watched.vps);
        let Deployed { output, reports } = &watched.done;
        let told = format!("{}{}{reports:?}", output.stdout, output.stderr);
        for (where_from, text) in [("laptop", &watched.laptop), ("VPS", &watched.vps), ("report", &told)] {
            ensure!(!text.contains(token), "the token can be read: {where_from}");
        }
    }
    let on_disk = "
        grep -qF -f \"$HOME/needle\" /opt/universal_agent/.env 2>/dev/null && echo .env
        for dir in /var/lib/ua-deploy /etc/systemd /run/systemd /var/log /tmp /opt/universal_agent/logs /home/op; do
            [ ! -d $dir ] || grep -rlF --exclude=needle -f \"$HOME/needle\" $dir 2>/dev/null || true
        done
        ! journalctl --all --output=export 2>/dev/null | grep -qaF -f \"$HOME/needle\" || echo the journal";
    let vps = lab.vps().command(&["sh", "-c", on_disk]).read()?;
    // It does find what is there.
    ensure!(vps == ".env\n", "the token lies in {vps}");
    let laptop = lab.laptop().command(&["sh", "-c", on_disk]).env("HOME", "/home/op").read()?;
    ensure!(laptop.is_empty(), "the token lies in {laptop}");
    lab.vps().command(&["rm", "/root/needle"]).run()?;
    lab.laptop().command(&["rm", "/home/op/needle"]).run()
}

/// Every file of the app, built ones too, as the file system knows it: one that was written again is another one.
/// What runs writes its own data and caches meanwhile.
fn written(lab: &Lab) -> Result<String> {
    let look = "find /opt/universal_agent -name AGENT_RUN_WORKSPACES -prune -o -name __pycache__ -prune \
                -o ! -type d -printf '%p %i %C@\\n' | sort";
    Ok(lab.vps().sh(look)?.stdout)
}

/// What is run on the VPS to upload, to build, and to restart.
const WORK: [&str; 4] = ["rsync --server", "uv sync", "npm ci", "systemctl restart"];

fn unchanged(lab: &Lab) -> Result<()> {
    let app = App::fresh(lab)?;
    let first = watched(lab, &[], || app.deploy(&[], &[]))?;
    first.done.exit(0)?;
    for work in WORK {
        ensure!(first.vps.contains(work), "nobody saw `{work}`: {}", first.vps);
    }
    let state = || anyhow::Ok((app.processes()?, written(lab)?));
    let (before, in_before) = (state()?, logins(lab)?);
    let again = watched(lab, &[], || app.deploy(&[], &[]))?;
    again.done.exit(0)?;
    let connections = logins(lab)? - in_before;
    let after = state()?;
    ensure!(after.0 == before.0, "a unit was restarted: {} {}", before.0, after.0);
    ensure!(after.1 == before.1, "a file was written again");
    for work in WORK {
        ensure!(!again.vps.contains(work), "`{work}` was run for nothing");
    }
    ensure!(connections == 1, "{connections} connections");
    if let Ok((_, detail)) = again.done.check("transfer") {
        ensure!(smallest(&detail) == Some(0), "{detail}");
    }
    if let Ok((_, detail)) = again.done.check("build") {
        ensure!(detail.matches("(unchanged)").count() == 2, "{detail}");
    }
    // That it is healthy was seen, and not assumed.
    again.done.says("public.api", "pass", "200")?;
    app.serves(&app.head()?)
}
