//! The private addresses of the app on the real tailnet: routes that are set up, kept apart from everybody else's,
//! taken away, and judged by their health; from the laptop in both SSH modes, and on the VPS itself.

use std::fmt::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use serde_json::{Value, json};
use xtask::lab::{self, Control, Exec, Lab, Node, OPERATOR};

use crate::Scenario;
use crate::deploy_first::{App, Deployed as Said};

const NAME: &str = "srv1360701.taildcc090.ts.net";
const MODES: [&str; 2] = ["keys", "tailscale_ssh"];
const UI: u16 = 3000;
const API: u16 = 8001;
/// What production serves where the API is wanted.
const GATEWAY: u16 = 8002;

/// Every scenario of this module.
pub fn trials() -> Vec<(&'static str, Scenario)> {
    vec![
        ("both_routes_are_set_up_and_proved_in_both_modes", both as Scenario),
        ("p58_settings_of_the_laptop_reach_the_vps", settings),
        ("p59_routes_of_others_stay", others),
        ("p60_a_port_that_serves_another_target_is_not_repointed", taken),
        ("p60_a_ui_route_without_its_api_route_is_not_left_behind", half),
        ("a_route_in_the_foreground_is_left_alone", foreground),
        ("routes_of_an_old_name_are_told", renamed),
        ("a_funnel_is_found_and_the_command_that_ends_it_works", funnel),
        ("serve_that_is_not_enabled", disabled),
        ("parallel_runs_end_with_the_same_routes", parallel),
        ("the_broken_half_is_named", broken_half),
        ("health_is_waited_for_no_longer_than_it_takes", patience),
        ("status_is_a_table", table),
        ("modes", modes),
        ("on_the_vps_itself_with_old_flags_too", on_the_vps),
        ("the_peer_is_offline", offline),
        ("by_its_own_verbs_with_the_app", verbs),
    ]
}

/// What stands in for the app: answers every request at a port of the VPS's loopback with 200, and leaves a trace.
struct Backends<'a>(&'a Lab);

const BACKEND: &str = "
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        open('/run/lab-asked-' + sys.argv[1], 'w')
        self.send_response(200)
        self.send_header('content-length', '0')
        self.end_headers()
http.server.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), Handler).serve_forever()
";

impl<'a> Backends<'a> {
    /// Both parts, in the place of whatever an earlier trial left there.
    fn start(lab: &'a Lab) -> Result<Self> {
        lab.vps().sh("systemctl stop 'universal-agent-*' 'lab-backend-*'; rm -f /run/lab-asked-*")?;
        let backends = Self(lab);
        backends.up(UI)?;
        backends.up(API)?;
        Ok(backends)
    }

    fn up(&self, port: u16) -> Result<()> {
        let unit = format!("--unit=lab-backend-{port}");
        let port = port.to_string();
        let vps = self.0.vps();
        vps.command(&["systemd-run", "--quiet", "--collect", &unit, "python3", "-c", BACKEND, &port])
            .run()?;
        let answers = "until curl -sf -o /dev/null \"http://127.0.0.1:$0/\"; do sleep 0.05; done";
        vps.command(&["sh", "-c", answers, &port]).run()
    }

    fn down(&self, port: u16) -> Result<()> {
        self.0.vps().command(&["systemctl", "stop", &format!("lab-backend-{port}")]).run()
    }

    /// Waits until somebody asked there.
    fn asked(&self, port: u16) -> Result<()> {
        let asked = "until [ -e \"/run/lab-asked-$0\" ]; do sleep 0.02; done";
        self.0.vps().command(&["sh", "-c", asked, &port.to_string()]).run()
    }
}

impl Drop for Backends<'_> {
    fn drop(&mut self) {
        // The next trial that needs the ports says so if this failed.
        let _ = self.0.vps().sh("systemctl stop 'lab-backend-*'");
    }
}

/// The tool as the operator types it, where a first look at health is enough.
fn typed<'a>(lab: &'a Lab, mode: &str, args: &[&str]) -> Exec<'a> {
    let words = [&["ua-staging"], args].concat();
    let laptop = lab.laptop().command(&words).user(OPERATOR);
    laptop
        .env("UA_SSH_KEYS_PORT", "2222")
        .env("UA_SSH_AUTH_MODE", mode)
        .env("UA_TAILNET_STAGING_HEALTH_MAX_ATTEMPTS", "1")
}

/// What it reports, which must be one report of the VPS's lane.
fn report(run: &Exec<'_>) -> Result<Said> {
    let said = Said::read(run.output()?)?;
    let [one] = said.reports.as_slice() else { anyhow::bail!("not one report: {:?}", said.output) };
    ensure!(one["schema"] == "ua.report/1" && one["tool"] == "ua-staging" && one["lane"] == "vps", "{one}");
    ensure!(one["exit_code"] == said.output.code, "{one} and exit {}", said.output.code);
    Ok(said)
}

/// The same from arguments, by a key.
fn staging(lab: &Lab, args: &[&str]) -> Result<Said> {
    report(&typed(lab, "keys", &[args, &["--json"]].concat()))
}

/// A failure tells what to do next.
fn hint(said: &Said, words: &str) -> Result<String> {
    let checks = said.reports[0]["checks"].as_array().into_iter().flatten();
    let hints: Vec<&str> = checks.filter_map(|check| check["hint"].as_str()).collect();
    let found = hints.iter().find(|hint| hint.contains(words));
    found.map(ToString::to_string).with_context(|| format!("no hint of `{words}` in {hints:?}"))
}

/// What is served, with the etag by which tailscaled tells it from any other state.
fn state(lab: &Lab) -> Result<String> {
    let ask = "curl -sf -D - --unix-socket /run/tailscale/tailscaled.sock \
        http://local-tailscaled.sock/localapi/v0/serve-config | grep -iv '^date:'";
    let state = lab.vps().command(&["sh", "-c", ask]).read()?;
    ensure!(state.to_lowercase().contains("etag: "), "{state}");
    Ok(state)
}

fn served(lab: &Lab) -> Result<Value> {
    let text = lab.vps().command(&["tailscale", "serve", "status", "--json"]).read()?;
    Ok(serde_json::from_str(&text)?)
}

/// Serves something by hand.
fn serve(lab: &Lab, args: &[&str]) -> Result<()> {
    lab.vps().command(&[&["tailscale", "serve", "--bg"], args].concat()).run()
}

/// What the two routes look like, and nothing beside them.
fn routes(name: &str, kind: &str, ports: [u16; 2], targets: [u16; 2]) -> Value {
    let mut config = json!({ "TCP": {}, "Web": {} });
    for (port, target) in ports.into_iter().zip(targets) {
        config["TCP"][port.to_string()] = json!({ kind: true });
        let proxy = format!("http://127.0.0.1:{target}");
        config["Web"][format!("{name}:{port}")] = json!({ "Handlers": { "/": { "Proxy": proxy } } });
    }
    config
}

fn ours() -> Value {
    routes(NAME, "HTTPS", [443, 8443], [UI, API])
}

/// The tailnet that hands out certificates, with somebody behind both targets.
fn https(lab: &Lab) -> Result<Backends<'_>> {
    lab.use_control(Control::Https)?;
    Backends::start(lab)
}

fn both(lab: &Lab) -> Result<()> {
    let _backends = https(lab)?;
    lab.set_tailscale_ssh(true)?;
    for mode in MODES {
        let run = |args: &[&str]| report(&typed(lab, mode, &[args, &["--json"]].concat())).context(mode);
        let nothing = state(lab)?;
        let said = run(&["verify"])?;
        said.exit(42)?.says("staging.routes", "fail", "serve http://127.0.0.1:3000 on https port 443")?;
        hint(&said, "ua-staging ensure")?;
        let said = run(&["ensure", "--dry-run"])?;
        said.exit(0)?;
        ensure!(
            said.reports[0]["data"]["plan"].as_array().is_some_and(|plan| plan.len() == 2),
            "{}",
            said.reports[0]
        );
        ensure!(state(lab)? == nothing, "looking changed something");

        let said = run(&["ensure"])?;
        said.exit(0)?.says("staging.routes", "pass", "both routes were set and read back")?;
        said.says("staging.ui", "pass", &format!("https://{NAME}/ answers 200"))?;
        said.says("staging.api", "pass", &format!("https://{NAME}:8443/api/health answers 200"))?;
        let by = if mode == "keys" { "accepted ED25519" } else { "method `none`" };
        said.says("ssh", "pass", by)?;
        ensure!(served(lab)? == ours(), "{}", served(lab)?);

        let set = state(lab)?;
        run(&["verify"])?.exit(0)?.says("staging.plan", "pass", "both routes are as wanted")?;
        run(&["ensure"])?.exit(0)?.says("staging.routes", "pass", "both routes are as wanted")?;
        ensure!(state(lab)? == set, "a second run changed something");
        run(&["reset"])?.exit(0)?;
        ensure!(served(lab)? == json!({}), "{}", served(lab)?);
    }
    // Private.
    staging(lab, &["ensure"])?.exit(0)?;
    for url in [format!("https://{NAME}:8443/"), "https://10.99.0.12:8443/".to_owned()] {
        let outside = lab.node(Node::Outsider).exec(&["curl", "-sk", "-m", "5", &url])?;
        ensure!(!outside.success(), "{url}: {outside:?}");
    }
    Ok(())
}

fn settings(lab: &Lab) -> Result<()> {
    let _backends = Backends::start(lab)?;
    lab.set_tailscale_ssh(true)?;
    let table = "[staging]\nscheme = \"http\"\nui_port = 8080\n";
    let write = ["sh", "-ec", "mkdir -p .config/ua && cat >.config/ua/ua.toml"];
    lab.laptop().command(&write).user(OPERATOR).stdin(table).run()?;
    for mode in MODES {
        // Of a file, of the environment, of the command line.
        let run = |verb: &str, extra: &[&str]| {
            typed(lab, mode, &[&[verb, "--api-target", "http://127.0.0.1:8001"], extra].concat())
                .env("UA_TAILNET_STAGING_API_HTTPS_PORT", "8081")
        };
        let said = report(&run("ensure", &["--json"]))?;
        said.exit(0)?.says("staging.ui", "pass", &format!("http://{NAME}:8080/ answers 200"))?;
        said.says("staging.api", "pass", &format!("http://{NAME}:8081/api/health answers 200"))?;
        let right = routes(NAME, "HTTP", [8080, 8081], [UI, API]);
        ensure!(served(lab)? == right, "{}", served(lab)?);
        report(&run("verify", &["--json"]))?.exit(0)?;
        let url = run("url", &[]).read()?;
        ensure!(url == format!("http://{NAME}:8080\nhttp://{NAME}:8081\n"), "{url}");
        let said = report(&run("status", &["--json"]))?;
        let rows = &said.exit(0)?.reports[0]["data"]["rows"];
        ensure!(rows[0]["certificate"].is_null() && rows[0]["health"] == "200", "{rows}");
        report(&run("reset", &["--json"]))?.exit(0)?;
        ensure!(served(lab)? == json!({}), "{}", served(lab)?);
    }
    Ok(())
}

fn others(lab: &Lab) -> Result<()> {
    let _backends = https(lab)?;
    serve(lab, &["--https=443", "--set-path=/docs", "http://127.0.0.1:4000"])?;
    serve(lab, &["--https=8444", "http://127.0.0.1:4001"])?;
    serve(lab, &["--tcp=5432", "tcp://127.0.0.1:5432"])?;
    let theirs = state(lab)?;
    staging(lab, &["ensure"])?.exit(0)?;
    let with_ours = state(lab)?;

    let said = staging(lab, &["reset", "--dry-run"])?;
    let plan = &said.exit(0)?.reports[0]["data"]["plan"];
    let root = |port| format!("stop serving the root of https port {port}");
    ensure!(*plan == json!([root(443), root(8443)]), "{plan}");
    let said = typed(lab, "keys", &["reset", "--all", "--dry-run"]).read()?;
    for line in [
        format!("would stop serving `http://127.0.0.1:3000` on https {NAME}:443/\n"),
        format!("would stop serving `http://127.0.0.1:4000` on https {NAME}:443/docs\n"),
        format!("would stop serving `http://127.0.0.1:8001` on https {NAME}:8443/\n"),
        format!("would stop serving `http://127.0.0.1:4001` on https {NAME}:8444/\n"),
        "would stop serving `127.0.0.1:5432` on tcp port 5432\n".to_owned(),
    ] {
        ensure!(said.contains(&line), "no `{line}` in {said}");
    }
    ensure!(state(lab)? == with_ours, "a dry run changed something");

    let said = staging(lab, &["reset"])?;
    said.exit(0)?.says("staging.removed", "pass", &root(443))?;
    ensure!(state(lab)? == theirs, "what others serve is not as it was: {}", state(lab)?);
    staging(lab, &["reset"])?.exit(0)?.says("staging.reset", "pass", "there are no routes of ours")?;
    ensure!(state(lab)? == theirs, "{}", state(lab)?);
    staging(lab, &["reset", "--all"])?.exit(0)?.says("staging.removed", "pass", "4000")?;
    ensure!(served(lab)? == json!({}), "{}", served(lab)?);
    staging(lab, &["reset", "--all"])?.exit(0)?.says("staging.reset", "pass", "nothing is served").map(drop)
}

fn taken(lab: &Lab) -> Result<()> {
    let backends = https(lab)?;
    backends.up(GATEWAY)?;
    serve(lab, &["--https=8443", "http://127.0.0.1:8002"])?;
    let theirs = state(lab)?;
    for verb in ["ensure", "verify"] {
        let said = staging(lab, &[verb])?;
        said.exit(42)?.says("staging.routes", "fail", "port 8443 of")?;
        for words in
            ["serves `http://127.0.0.1:8002`", "`staging.api_port` and `staging.api_target`", ":8001`"]
        {
            said.says("staging.routes", "fail", words)?;
        }
        hint(&said, "ua-staging ensure --replace")?;
        ensure!(state(lab)? == theirs, "{verb} changed something");
    }
    // Neither is it ours to take away.
    staging(lab, &["reset"])?.exit(0)?;
    ensure!(state(lab)? == theirs, "{}", state(lab)?);

    // Either of the two settings is a way out.
    staging(lab, &["ensure", "--api-target", "http://127.0.0.1:8002"])?.exit(0)?;
    ensure!(served(lab)? == routes(NAME, "HTTPS", [443, 8443], [UI, GATEWAY]), "{}", served(lab)?);
    staging(lab, &["ensure", "--api-port", "8445"])?.exit(0)?;
    ensure!(served(lab)?["Web"][format!("{NAME}:8443")].to_string().contains("8002"), "{}", served(lab)?);
    staging(lab, &["reset", "--api-port", "8445"])?.exit(0)?;
    ensure!(state(lab)? == theirs, "{}", state(lab)?);

    let said = staging(lab, &["ensure", "--replace", "--dry-run"])?;
    ensure!(said.exit(0)?.reports[0]["data"]["plan"].to_string().contains("8001 on https port 8443"));
    ensure!(state(lab)? == theirs, "a dry run changed something");
    staging(lab, &["ensure", "--replace"])?.exit(0)?;
    ensure!(served(lab)? == ours(), "{}", served(lab)?);

    // p60: not the text of a target, all of it; and another kind of listener is another route.
    serve(lab, &["--https=443", "http://127.0.0.1:30001"])?;
    staging(lab, &["verify"])?.exit(42)?.says("staging.routes", "fail", "`http://127.0.0.1:30001`")?;
    lab.vps().command(&["tailscale", "serve", "reset"]).run()?;
    serve(lab, &["--tcp=443", "tcp://127.0.0.1:3000"])?;
    staging(lab, &["ensure"])?.exit(42)?.says("staging.routes", "fail", "raw TCP to `127.0.0.1:3000`")?;
    staging(lab, &["ensure", "--replace"])?.exit(0)?;
    ensure!(served(lab)? == ours(), "{}", served(lab)?);
    Ok(())
}

/// A `tailscale` before the real one, on the VPS, that does something first when it is asked to serve on port 8443.
fn in_the_way(lab: &Lab, what: &str) -> Result<()> {
    let script =
        format!("#!/bin/sh\ncase \"$*\" in *--https=8443*) {what} ;; esac\nexec /usr/bin/tailscale \"$@\"\n");
    let put = "[ ! -e /usr/local/bin/tailscale ] && cat >/usr/local/bin/tailscale && chmod 755 /usr/local/bin/tailscale";
    lab.vps().command(&["sh", "-ec", put]).stdin(script).run()
}

fn out_of_the_way(lab: &Lab) -> Result<()> {
    lab.vps().command(&["rm", "-f", "/usr/local/bin/tailscale"]).run()
}

fn half(lab: &Lab) -> Result<()> {
    let _backends = https(lab)?;
    serve(lab, &["--tcp=443", "tcp://127.0.0.1:5000"])?;
    let theirs = state(lab)?;
    in_the_way(lab, "echo 'no such luck' >&2; exit 1")?;
    let said = staging(lab, &["ensure", "--replace"]);
    out_of_the_way(lab)?;
    let said = said?;
    said.exit(42)?.says("staging.routes", "fail", "no such luck")?;
    said.says("staging.routes", "fail", "what this run had changed was put back")?;
    ensure!(state(lab)? == theirs, "{}", state(lab)?);
    lab.vps().command(&["tailscale", "serve", "reset"]).run()?;

    // Somebody else has both routes set by the time that this run fails: one of them is what this run had set.
    let quicker = "/usr/bin/tailscale serve --bg --https=8443 http://127.0.0.1:8001 >&2; echo 'no such luck' >&2; exit 1";
    in_the_way(lab, quicker)?;
    let said = staging(lab, &["ensure"]);
    out_of_the_way(lab)?;
    said?.exit(42)?.says("staging.routes", "fail", "somebody else changed the routes meanwhile")?;
    ensure!(served(lab)? == ours(), "another run's route was taken away: {}", served(lab)?);
    lab.vps().command(&["tailscale", "serve", "reset"]).run()?;

    // Somebody takes the port after it was seen to be free.
    let taken = "/usr/bin/tailscale serve --bg --https=8443 http://127.0.0.1:8002 >&2";
    let between = format!(
        "[ -e /run/lab-taken ] || {{ touch /run/lab-taken; {taken}; echo 'etag mismatch' >&2; exit 1; }}"
    );
    in_the_way(lab, &between)?;
    let said = staging(lab, &["ensure"]);
    out_of_the_way(lab)?;
    lab.vps().sh("rm -f /run/lab-taken")?;
    said?.exit(42)?.says("staging.routes", "fail", "serves `http://127.0.0.1:8002`")?;
    ensure!(served(lab)?["Web"][format!("{NAME}:8443")].to_string().contains("8002"), "{}", served(lab)?);
    Ok(())
}

fn foreground(lab: &Lab) -> Result<()> {
    let _backends = https(lab)?;
    let session = "systemd-run --quiet --collect --unit=lab-foreground tailscale serve --https=443 http://127.0.0.1:3000
        until tailscale serve status --json | grep -q Foreground; do sleep 0.05; done";
    lab.vps().command(&["sh", "-ec", session]).run()?;
    let theirs = state(lab)?;
    for args in [&["ensure"][..], &["ensure", "--replace"], &["verify"]] {
        let said = staging(lab, args)?;
        said.exit(42)?.says("staging.routes", "fail", "runs in the foreground")?;
        said.says("staging.routes", "fail", "port 443 of")?;
        hint(&said, "end that command")?;
    }
    staging(lab, &["reset"])?.exit(0)?;
    ensure!(state(lab)? == theirs, "{}", state(lab)?);
    let table = typed(lab, "keys", &["status"]).read()?;
    ensure!(table.contains("a command in the foreground"), "{table}");
    let plan = typed(lab, "keys", &["reset", "--all", "--dry-run"]).read()?;
    ensure!(plan.contains("by a command in the foreground"), "{plan}");
    lab.vps().command(&["systemctl", "stop", "lab-foreground"]).run()?;
    staging(lab, &["ensure"])?.exit(0)?;
    ensure!(served(lab)? == ours(), "{}", served(lab)?);
    Ok(())
}

fn renamed(lab: &Lab) -> Result<()> {
    let _backends = Backends::start(lab)?;
    lab.set_tailscale_ssh(true)?;
    staging(lab, &["ensure", "--scheme", "http"])?.exit(0)?;
    let old = routes(NAME, "HTTP", [443, 8443], [UI, API]);
    ensure!(served(lab)? == old, "{}", served(lab)?);
    lab.rename(Node::Vps, "renamed")?;
    let name = "renamed.taildcc090.ts.net";
    let host = format!("root@{name}");
    let run = |args: &[&str]| staging(lab, &[args, &["--scheme", "http", "--host", &host]].concat());

    let said = run(&["verify"])?;
    said.exit(42)?.says("staging.routes", "fail", "serve http://127.0.0.1:3000 on http port 443")?;
    said.says("staging.stale", "warn", &format!("{NAME}:443, {NAME}:8443"))?;
    // The port is held as another kind by a name that no command reaches.
    let said = staging(lab, &["ensure", "--replace", "--host", &host])?;
    said.exit(42)?.says("staging.routes", "fail", "a name that the node no longer has")?;
    hint(&said, "ua-staging reset --all")?;

    let said = run(&["ensure"])?;
    said.exit(0)?.says("staging.ui", "pass", &format!("http://{name}:443/ answers 200"))?;
    said.says("staging.stale", "warn", "no longer has")?;
    let both = served(lab)?;
    for name in [name, NAME] {
        ensure!(both["Web"][format!("{name}:443")].is_object(), "{both}");
    }
    let url = typed(lab, "keys", &["url", "ui", "--scheme", "http", "--host", &host]).read()?;
    ensure!(url == format!("http://{name}:443\n"), "{url}");
    let said = run(&["reset"])?;
    said.exit(0)?.says("staging.stale", "warn", NAME)?;
    run(&["reset", "--all"])?.exit(0)?;
    ensure!(served(lab)? == json!({}), "{}", served(lab)?);
    Ok(())
}

fn funnel(lab: &Lab) -> Result<()> {
    let _backends = https(lab)?;
    staging(lab, &["ensure"])?.exit(0)?;
    let mut open = served(lab)?;
    open["AllowFunnel"] = json!({ format!("{NAME}:443"): true });
    lab.vps().command(&["tailscale", "serve", "set-raw"]).stdin(open.to_string()).run()?;
    let before = state(lab)?;
    for verb in ["ensure", "verify"] {
        let said = staging(lab, &[verb])?;
        said.exit(43)?.says("staging.routes", "fail", "port 443 of")?;
        said.says("staging.routes", "fail", "open to the internet by Funnel")?;
    }
    ensure!(state(lab)? == before, "{}", state(lab)?);
    staging(lab, &["status"])?.exit(0)?.says("staging.routes", "warn", "open to the internet")?;
    let told = hint(&staging(lab, &["verify"])?, "tailscale ")?;
    let command = told.strip_prefix("on the VPS: ").with_context(|| told.clone())?;
    lab.vps().command(&["sh", "-ec", command]).run()?;
    let now = served(lab)?;
    ensure!(now["AllowFunnel"].is_null(), "{now}");
    staging(lab, &["ensure"])?.exit(0)?;
    ensure!(served(lab)? == ours(), "{}", served(lab)?);
    Ok(())
}

fn disabled(lab: &Lab) -> Result<()> {
    let _backends = Backends::start(lab)?;
    let said = staging(lab, &["verify"])?;
    said.exit(40)?.says(
        "staging.routes",
        "fail",
        "an admin enables it at https://login.tailscale.com/f/serve?node=",
    )?;
    let begun = Instant::now();
    let said = staging(lab, &["ensure"])?;
    said.exit(40)?.says("staging.routes", "fail", "not enabled on the tailnet")?;
    ensure!(begun.elapsed() < Duration::from_secs(10), "it took {:?}", begun.elapsed());
    hint(&said, "scheme = \"http\"")?;
    ensure!(served(lab)? == json!({}), "{}", served(lab)?);

    // A tailnet that can be asked to enable it says where, and then waits for somebody who does.
    let address = "https://login.tailscale.com/f/serve?node=nXYZ";
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in *--bg*) printf '\\nServe is not enabled on your tailnet.\\nTo enable, visit:\\n\\n         {address}\\n'; exec sleep 300 ;; esac\nexec /usr/bin/tailscale \"$@\"\n"
    );
    let put = "cat >/usr/local/bin/tailscale && chmod 755 /usr/local/bin/tailscale";
    lab.vps().command(&["sh", "-ec", put]).stdin(script).run()?;
    let begun = Instant::now();
    let said = staging(lab, &["ensure"]);
    out_of_the_way(lab)?;
    let said = said?;
    said.exit(40)?.says("staging.routes", "fail", address)?;
    hint(&said, &format!("open {address}"))?;
    ensure!(begun.elapsed() < Duration::from_secs(20), "it took {:?}", begun.elapsed());
    let left = lab.vps().sh("pgrep -fx 'sleep 300'")?;
    ensure!(!left.success(), "what waits for ever is still there: {left:?}");
    ensure!(served(lab)? == json!({}), "{}", served(lab)?);
    Ok(())
}

fn parallel(lab: &Lab) -> Result<()> {
    let _backends = https(lab)?;
    lab.set_tailscale_ssh(true)?;
    for round in 0..3 {
        lab.vps().command(&["tailscale", "serve", "reset"]).run()?;
        serve(lab, &["--https=8443", "--set-path=/docs", "http://127.0.0.1:4000"])?;
        if round == 2 {
            serve(lab, &["--https=8443", "http://127.0.0.1:8002"])?;
        }
        let runs: Vec<Result<Said>> = thread::scope(|scope| {
            let run =
                |mode| scope.spawn(move || report(&typed(lab, mode, &["ensure", "--replace", "--json"])));
            let runs = ["keys", "tailscale_ssh", "keys", "keys"].map(run);
            let ended = |run: thread::ScopedJoinHandle<'_, Result<Said>>| {
                run.join().unwrap_or_else(|_| Err(anyhow!("a run panicked")))
            };
            runs.into_iter().map(ended).collect()
        });
        for said in runs {
            said?.exit(0)?;
        }
        let mut now = served(lab)?;
        let docs = now["Web"][format!("{NAME}:8443")]["Handlers"].as_object_mut();
        ensure!(docs.and_then(|handlers| handlers.remove("/docs")).is_some(), "{}", served(lab)?);
        ensure!(now == ours(), "{now}");
    }
    Ok(())
}

fn broken_half(lab: &Lab) -> Result<()> {
    let backends = https(lab)?;
    staging(lab, &["ensure"])?.exit(0)?;
    let app = "what is broken is the app itself";
    for (down, other, port) in [("api", "ui", API), ("ui", "api", UI)] {
        backends.down(port)?;
        for verb in ["verify", "ensure"] {
            let said = staging(lab, &[verb])?;
            said.exit(41)?.says(&format!("staging.{down}"), "fail", "answers 502")?;
            said.says(
                &format!("staging.{down}"),
                "fail",
                &format!("the route goes to http://127.0.0.1:{port}"),
            )?;
            said.says(&format!("staging.{down}.local"), "fail", app)?;
            said.says(&format!("staging.{other}"), "pass", "answers 200")?;
            hint(&said, "ua-vpsctl status")?;
        }
        backends.up(port)?;
    }
    staging(lab, &["verify"])?.exit(0)?;

    // Where nobody hands out certificates such routes are right, and no way to the app.
    lab.use_control(Control::Headscale)?;
    lab.vps().command(&["tailscale", "serve", "set-raw"]).stdin(ours().to_string()).run()?;
    let said = staging(lab, &["verify"])?;
    said.exit(41)?.says("staging.plan", "pass", "both routes are as wanted")?;
    for part in ["ui", "api"] {
        said.says(&format!("staging.{part}"), "fail", "(1 attempt)")?;
        said.says(&format!("staging.{part}.local"), "pass", "what is broken is the way to it")?;
    }
    hint(&said, "curl -sv")?;
    Ok(())
}

fn patience(lab: &Lab) -> Result<()> {
    let backends = https(lab)?;
    staging(lab, &["ensure"])?.exit(0)?;
    backends.down(API)?;
    lab.vps().sh("rm -f /run/lab-asked-*")?;
    let often = ["verify", "--json", "--health-attempts", "60", "--health-interval", "0.5"];
    let (said, took) = thread::scope(|scope| {
        let run = scope.spawn(|| report(&typed(lab, "keys", &often)));
        // From here on it is in its first round.
        backends.asked(UI)?;
        backends.up(API)?;
        let begun = Instant::now();
        let said = run.join().map_err(|_| anyhow!("the run panicked"))??;
        anyhow::Ok((said, begun.elapsed()))
    })?;
    said.exit(0)?.says("staging.api", "pass", "answers 200")?;
    ensure!(took < Duration::from_secs(5), "it went on for {took:?}");

    // As often as it was told to, and a person sees it.
    backends.down(API)?;
    let few = ["verify", "--health-attempts", "3", "--health-interval", "0.2"];
    let said = staging(lab, &few)?;
    said.exit(41)?.says("staging.api", "fail", "(3 attempts)")?;
    let mut line = "exec ua-staging".to_owned();
    for word in few {
        write!(line, " {word}")?;
    }
    let screen = lab
        .laptop()
        .command(&["script", "-qec", &line, "/dev/null"])
        .user(OPERATOR)
        .env("UA_SSH_KEYS_PORT", "2222")
        .env("TERM", "xterm")
        .output()?;
    ensure!(screen.code == 41, "{screen:?}");
    ensure!(screen.stdout.contains("attempt 3 of 3"), "{}", screen.stdout);
    Ok(())
}

fn table(lab: &Lab) -> Result<()> {
    let backends = https(lab)?;
    staging(lab, &["ensure"])?.exit(0)?;
    serve(lab, &["--https=8444", "http://127.0.0.1:4001"])?;
    serve(lab, &["--https=8443", "http://127.0.0.1:8002"])?;
    backends.down(UI)?;
    let before = state(lab)?;
    let said = staging(lab, &["status"])?;
    let rows = &said.exit(0)?.reports[0]["data"]["rows"];
    let days = |row: &Value| -> Result<i64> {
        let days = row["certificate"].as_str().and_then(|text| text.strip_suffix(" days"));
        Ok(days.with_context(|| rows.to_string())?.parse()?)
    };
    // The lab's certificates last a year.
    ensure!((360..=365).contains(&days(&rows[0])?) && days(&rows[1])? == days(&rows[0])?, "{rows}");
    ensure!(rows[0]["route"] == "ui" && rows[0]["address"] == format!("https://{NAME}"), "{rows}");
    ensure!(rows[0]["health"] == "502" && rows[0]["local"].is_null(), "{rows}");
    let (wanted, found) = (&rows[1]["wanted"], &rows[1]["served"]);
    ensure!(wanted == "http://127.0.0.1:8001" && found == "http://127.0.0.1:8002", "{rows}");
    ensure!(rows[1]["health"] == "502" && rows[1]["local"] == 200, "{rows}");
    ensure!(rows[2]["address"] == format!("{NAME}:8444/") && rows[2]["wanted"].is_null(), "{rows}");
    said.says("staging.routes", "warn", "port 8443 of")?;
    let text = typed(lab, "keys", &["status"]).read()?;
    ensure!(text.starts_with("ROUTE  ADDRESS"), "{text}");
    ensure!(text.contains(" 502 ") && text.contains(" days\n"), "{text}");
    ensure!(state(lab)? == before, "looking changed something");
    Ok(())
}

fn modes(lab: &Lab) -> Result<()> {
    let _backends = https(lab)?;
    for word in ["disabled", "off", "0", "false", "no", "DISABLED"] {
        let said = report(&typed(lab, "keys", &["ensure", "--json"]).env("UA_TAILNET_STAGING_MODE", word))?;
        said.exit(0)?.says("staging", "skip", "UA_TAILNET_STAGING_MODE")?;
        ensure!(said.reports[0]["verdict"] == "skip", "{}", said.reports[0]);
    }
    ensure!(served(lab)? == json!({}), "{}", served(lab)?);
    for word in ["auto", "required", "force", "strict", "Auto"] {
        let set = report(&typed(lab, "keys", &["ensure", "--json"]).env("UA_TAILNET_STAGING_MODE", word))?;
        set.exit(0)?.says("staging.routes", "pass", "were set")?;
        ensure!(served(lab)? == ours(), "{}", served(lab)?);
        staging(lab, &["reset", "--staging", word])?.exit(0)?;
    }
    // Nobody is asked.
    lab.stop_tailscaled(Node::Laptop)?;
    let unknown = [
        typed(lab, "keys", &["ensure"]).env("UA_TAILNET_STAGING_MODE", "sometimes").output()?,
        typed(lab, "keys", &["ensure", "--staging", "sometimes"]).output()?,
        typed(lab, "keys", &["verify"]).env("UA_TAILNET_STAGING_SCHEME", "gopher").output()?,
    ];
    lab.start_tailscaled(Node::Laptop)?;
    for (output, origin) in
        unknown.iter().zip(["UA_TAILNET_STAGING_MODE", "--staging", "UA_TAILNET_STAGING_SCHEME"])
    {
        ensure!(output.code == 2 && output.stderr.contains(origin), "{output:?}");
    }
    Ok(())
}

fn on_the_vps(lab: &Lab) -> Result<()> {
    let backends = https(lab)?;
    let there = "/usr/local/bin/ua-staging";
    std::fs::copy(lab::built_tools()?.join("ua-staging"), lab.vps().path(there)?)?;
    let run = |args: &[&str]| {
        let words = [&[there], args].concat();
        lab.vps().command(&words).env("UA_TAILNET_STAGING_HEALTH_MAX_ATTEMPTS", "1")
    };
    let ids = |said: &Said| -> Vec<String> {
        let checks = said.reports[0]["checks"].as_array().into_iter().flatten();
        checks.filter_map(|check| check["id"].as_str().map(str::to_owned)).collect()
    };
    // Without ssh, which has no key here, and without a preflight.
    let said = report(&run(&["ensure", "--local", "--json"]))?;
    said.exit(0)?.says("staging.api", "pass", &format!("https://{NAME}:8443/api/health answers 200"))?;
    ensure!(ids(&said) == ["staging.routes", "staging.ui", "staging.api"], "{:?}", ids(&said));
    ensure!(served(lab)? == ours(), "{}", served(lab)?);
    // The target is this very node: the tailnet says so.
    let said = report(&run(&["verify", "--json"]))?;
    said.exit(0)?;
    ensure!(ids(&said).contains(&"tailscale.state".to_owned()), "{:?}", ids(&said));
    ensure!(!ids(&said).contains(&"ssh".to_owned()), "{:?}", ids(&said));
    ensure!(run(&["url", "api"]).read()? == format!("https://{NAME}:8443\n"));
    ensure!(run(&["url", "api", "--local"]).read()? == format!("https://{NAME}:8443\n"));
    ensure!(run(&["status", "--local"]).read()?.contains(" days\n"));

    // As the old script was called, here and from the laptop.
    let old = |args: &[&str]| run(args).output();
    let reset = old(&["--reset", "--quiet"])?;
    ensure!(reset.code == 0 && reset.stdout.is_empty() && reset.stderr.is_empty(), "{reset:?}");
    ensure!(served(lab)? == json!({}), "{}", served(lab)?);
    let verify = old(&["--verify-only"])?;
    ensure!(verify.code == 42 && verify.stdout.contains("yet to do"), "{verify:?}");
    ensure!(served(lab)? == json!({}), "{}", served(lab)?);
    let set = old(&["--ensure"])?;
    ensure!(set.code == 0 && set.stdout.contains("were set and read back"), "{set:?}");
    backends.down(API)?;
    let quiet = old(&["--quiet", "--verify-only"])?;
    ensure!(quiet.code == 41 && quiet.stdout.is_empty() && quiet.stderr.contains("502"), "{quiet:?}");
    backends.up(API)?;
    for (flags, code) in [("--verify-only", 0), ("--reset", 0), ("--verify-only", 42), ("--ensure", 0)] {
        let output = typed(lab, "keys", &[flags, "--quiet"]).output()?;
        ensure!(output.code == code && output.stdout.is_empty(), "{flags}: {output:?}");
    }
    ensure!(served(lab)? == ours(), "{}", served(lab)?);

    // Nobody to ask.
    lab.stop_tailscaled(Node::Vps)?;
    let here = report(&run(&["verify", "--local", "--json"]))?;
    let implied = report(&run(&["verify", "--json"]))?;
    lab.start_tailscaled(Node::Vps)?;
    here.exit(11)?;
    implied.exit(11)?;
    lab.vps().command(&["rm", there]).run()
}

fn offline(lab: &Lab) -> Result<()> {
    lab.stop_tailscaled(Node::Vps)?;
    let all = ["verify", "ensure", "reset", "status", "url"].map(|verb| {
        let said = report(&typed(lab, "keys", &[verb, "--json"]).env("UA_TAILNET_PREFLIGHT_TIMEOUT", "1"));
        said.with_context(|| verb.to_owned())
    });
    // What a command substitution gets.
    let url = typed(lab, "keys", &["url", "ui"]).env("UA_TAILNET_PREFLIGHT_TIMEOUT", "1").output()?;
    lab.start_tailscaled(Node::Vps)?;
    for said in all {
        said?.exit(12)?.says("peer.reachable", "fail", "no pong")?;
    }
    ensure!(url.code == 12 && url.stdout.is_empty() && url.stderr.contains("no pong"), "{url:?}");
    Ok(())
}

fn verbs(lab: &Lab) -> Result<()> {
    let app = App::fresh(lab)?;
    serve(lab, &["--https=443", "--set-path=/docs", "http://127.0.0.1:4000"])?;
    let expect = |args: &[&str], code: i32, words: &str| {
        let output = typed(lab, "keys", args).output()?;
        ensure!(output.code == code && output.stdout.contains(words), "{args:?}: {output:?}");
        anyhow::Ok(())
    };
    expect(&["verify"], 42, "yet to do: serve http://127.0.0.1:3000 on https port 443")?;
    // Right routes, and nobody behind them.
    expect(&["ensure"], 41, "both routes were set and read back")?;
    expect(&["ensure"], 41, "both routes are as wanted")?;
    app.good()?;
    expect(&["verify"], 0, "answers 200")?;
    expect(&["status"], 0, "443/docs")?;
    expect(&["status"], 0, " days")?;
    expect(&["url", "api"], 0, "https://srv1360701.taildcc090.ts.net:8443\n")?;
    expect(&["verify", "--api-target", "http://127.0.0.1:8002"], 42, "`staging.api_target`")?;
    // The gateway is alive there, and is not the API.
    let other = ["ensure", "--replace", "--api-target", "http://127.0.0.1:8002"];
    expect(&other, 41, "8443/api/health answers 404")?;
    expect(&["ensure", "--replace"], 0, "the api route was set and read back")?;
    expect(&["reset"], 0, "were removed, read back")?;
    let left = served(lab)?.to_string();
    ensure!(left.contains("/docs") && !left.contains("3000") && !left.contains("8001"), "{left}");
    Ok(())
}
