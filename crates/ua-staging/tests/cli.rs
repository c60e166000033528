//! The binary by itself, on the VPS: a `tailscale` that replays what the real one said, and nothing else of a tailnet.

#![cfg(test)]

use std::process::Output;
use std::time::{Duration, Instant};

use ua_tests::Place;

const BIN: &str = env!("CARGO_BIN_EXE_ua-staging");

/// A `tailscale` in the state `before`, which a last `serve --bg` on port 8443 changes into `after`.
fn tailscale(place: &Place, before: &str, after: &str, serve: &str) {
    tailscale_as(place, before, after, serve, "");
}

/// Names of the tailnet mean nothing here, so where health is asked they are changed into names of this machine.
const HERE: &str = "s/taildcc090.ts.net/localhost/g";

/// The same, with what was captured edited by `sed`.
fn tailscale_as(place: &Place, before: &str, after: &str, serve: &str, edit: &str) {
    let captured = ua_tests::fixtures().join("captured");
    let root = place.home();
    let (root, captured) = (root.display(), captured.display());
    place.program(
        "tailscale",
        &format!(
            r#"#!/bin/sh
echo "$*" >>'{root}/calls'
state='{captured}/{before}'
[ ! -e '{root}/served' ] || state='{captured}/{after}'
case "$*" in
    "serve status --json") sed '{edit}' "$state/serve-status.json" ;;
    "status --json --peers=false") echo 'Warning: client version "1" != tailscaled server version "2"' >&2; sed '{edit}' "$state/vps-status.json" ;;
    "serve --bg --https=8443 "*) {serve}; touch '{root}/served' ;;
    "serve --bg --https=443 "*) echo 'Available within your tailnet:' ;;
    "serve --https="*" --set-path=/ off") ;;
    *) echo "not captured: $*" >&2; exit 64 ;;
esac
"#
        ),
    );
}

fn calls(place: &Place) -> Vec<String> {
    std::fs::read_to_string(place.home().join("calls"))
        .unwrap_or_default()
        .lines()
        .map(str::to_owned)
        .collect()
}

fn changes(place: &Place) -> Vec<String> {
    calls(place).into_iter().filter(|call| !call.contains("status")).collect()
}

fn run(place: &Place, args: &[&str]) -> Output {
    place.run(BIN).args(args).output().unwrap()
}

fn said(place: &Place, output: &Output) -> String {
    place.shown(output)
}

#[test]
fn help_asks_nothing_and_a_verb_is_needed() {
    let place = Place::new();
    tailscale(&place, "serve-none", "serve-https", ":");
    for (args, code) in [
        (["--help"].as_slice(), 0),
        (&["ensure", "--help"], 0),
        (&["--version"], 0),
        (&[], 2),
        (&["ensrue"], 2),
        (&["ensure", "--yes"], 2),
    ] {
        let output = run(&place, args);
        assert_eq!(output.status.code(), Some(code), "{}", said(&place, &output));
    }
    assert!(said(&place, &run(&place, &["reset", "--help"])).contains("Examples:"));
    assert_eq!(calls(&place), [""; 0]);
    // The old script's spelling of `verify`.
    let output = run(&place, &["--quiet", "--verify-only", "--local"]);
    assert_eq!(output.status.code(), Some(42), "{}", said(&place, &output));
}

#[test]
fn a_dry_run_changes_nothing() {
    let place = Place::new();
    tailscale(&place, "serve-none", "serve-https", ":");
    let output = run(&place, &["ensure", "--local", "--dry-run"]);
    insta::assert_snapshot!(said(&place, &output), @r"
    exit: 0
    --- stdout
    would serve http://127.0.0.1:3000 on https port 443
    would serve http://127.0.0.1:8001 on https port 8443
    ok   staging.plan  to do: serve http://127.0.0.1:3000 on https port 443, serve http://127.0.0.1:8001 on https port 8443
    vps: ok   root@srv1360701.taildcc090.ts.net
    --- stderr
    ");
    assert_eq!(changes(&place), [""; 0]);
}

#[test]
fn p58_p59_ensure_sets_what_the_settings_say_and_never_resets() {
    let place = Place::new();
    tailscale_as(&place, "serve-none", "serve-https", ":", HERE);
    // Nobody serves here, so it cannot be healthy.
    let args = ["ensure", "--local", "--health-attempts", "1", "--json"];
    let output = run(&place, &args);
    assert_eq!(output.status.code(), Some(41), "{}", said(&place, &output));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["checks"][0]["detail"], "both routes were set and read back");
    assert_eq!(report["data"]["api_url"], "https://srv1360701.localhost:8443");
    assert_eq!(
        changes(&place),
        ["serve --bg --https=443 http://127.0.0.1:3000", "serve --bg --https=8443 http://127.0.0.1:8001"]
    );
    // Nothing left to do.
    run(&place, &args);
    assert_eq!(changes(&place).len(), 2);
}

#[test]
fn a_taken_port_stops_before_the_other_is_set() {
    let place = Place::new();
    tailscale(&place, "serve-other-target", "serve-other-target", ":");
    let output = run(&place, &["ensure", "--local"]);
    insta::assert_snapshot!(said(&place, &output), @r"
    exit: 42
    --- stdout
    FAIL staging.routes  port 443 of `srv1360701.taildcc090.ts.net` serves `http://127.0.0.1:30001`, but `staging.ui_port` and `staging.ui_target` want it for `http://127.0.0.1:3000`
    vps: FAIL root@srv1360701.taildcc090.ts.net: exit 42 (staging-drift)
    --- stderr
    error: staging.routes: port 443 of `srv1360701.taildcc090.ts.net` serves `http://127.0.0.1:30001`, but `staging.ui_port` and `staging.ui_target` want it for `http://127.0.0.1:3000`
    hint: take the port over: ua-staging ensure --replace
    ");
    assert_eq!(changes(&place), [""; 0]);
}

#[test]
fn a_funnel_is_43() {
    let place = Place::new();
    tailscale(&place, "serve-funnel", "serve-funnel", ":");
    for verb in ["ensure", "verify"] {
        assert_eq!(run(&place, &[verb, "--local"]).status.code(), Some(43), "{verb}");
    }
    assert_eq!(changes(&place), [""; 0]);
}

#[test]
fn serve_that_waits_for_ever_is_40_with_its_address() {
    let place = Place::new();
    let blocks = r"printf '\nServe is not enabled on your tailnet.\nTo enable, visit:\n\n         https://login.tailscale.com/f/serve?node=nXYZ\n'; exec sleep 300";
    tailscale(&place, "serve-none", "serve-https", blocks);
    let start = Instant::now();
    let output = run(&place, &["ensure", "--local"]);
    assert_eq!(output.status.code(), Some(40), "{}", said(&place, &output));
    assert!(said(&place, &output).contains("hint: open https://login.tailscale.com/f/serve?node=nXYZ"));
    assert!(start.elapsed() < Duration::from_secs(25));
}

#[test]
fn a_refusal_says_what_tailscale_said() {
    let place = Place::new();
    let refuses = "echo 'sending serve config: updating config: want to serve' >&2; exit 1";
    tailscale(&place, "serve-none", "serve-https", refuses);
    let output = run(&place, &["ensure", "--local"]);
    assert_eq!(output.status.code(), Some(42), "{}", said(&place, &output));
    let text = said(&place, &output);
    assert!(text.contains("sending serve config: updating config: want to serve"), "{text}");
    assert!(text.contains("nothing was changed"), "{text}");
}

#[test]
fn verify_changes_nothing_and_tells_drift() {
    let place = Place::new();
    tailscale(&place, "serve-none", "serve-https", ":");
    let output = run(&place, &["verify", "--local"]);
    assert_eq!(output.status.code(), Some(42), "{}", said(&place, &output));
    assert_eq!(changes(&place), [""; 0]);
}

#[test]
fn a_mode_of_disabled_is_no_answer_to_a_question() {
    let place = Place::new();
    tailscale(&place, "serve-none", "serve-https", ":");
    let output = run(&place, &["verify", "--local", "--staging", "disabled"]);
    assert_eq!(output.status.code(), Some(42), "{}", said(&place, &output));
    let output = run(&place, &["ensure", "--local", "--staging", "disabled"]);
    assert!(
        output.status.success() && said(&place, &output).contains("skip staging"),
        "{}",
        said(&place, &output)
    );
    assert_eq!(changes(&place), [""; 0]);
}

#[test]
fn url_prints_the_address_alone() {
    let place = Place::new();
    tailscale(&place, "serve-https", "serve-https", ":");
    let output = run(&place, &["url", "--local", "api"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "https://srv1360701.taildcc090.ts.net:8443\n");
}

#[test]
fn without_tailscale_it_is_said() {
    let place = Place::new();
    place.program("tailscale", "#!/bin/sh\necho 'failed to connect to local tailscaled' >&2\nexit 1\n");
    let output = run(&place, &["status", "--local"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&place, &output));
    assert!(said(&place, &output).contains("failed to connect to local tailscaled"));
}

/// tailscaled's answer to a change that comes between another one's look and change.
const MISMATCH: &str = "echo 'Another client is changing the serve config; please try again.' >&2; \
    echo 'sending serve config: Preconditions failed: etag mismatch' >&2";

#[test]
fn two_runs_at_once_end_with_the_same_routes() {
    let place = Place::new();
    // The other run was quicker: what it set is what this one wants too.
    let other = format!("touch '{}/served'; {MISMATCH}; exit 1", place.home().display());
    tailscale_as(&place, "serve-none", "serve-https", &other, HERE);
    let output = run(&place, &["ensure", "--local", "--health-attempts", "1", "--json"]);
    assert_eq!(output.status.code(), Some(41), "{}", said(&place, &output));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["checks"][0]["detail"], "both routes were set and read back");
    let changes = changes(&place);
    assert!(
        !changes.iter().any(|change| change.ends_with("off")),
        "the other run's route was taken: {changes:?}"
    );
    assert_eq!(changes.len(), 2, "{changes:?}");
}

#[test]
fn routes_that_never_rest_are_given_up() {
    let place = Place::new();
    tailscale(&place, "serve-none", "serve-none", &format!("{MISMATCH}; exit 1"));
    let output = run(&place, &["ensure", "--local"]);
    assert_eq!(output.status.code(), Some(42), "{}", said(&place, &output));
    assert!(said(&place, &output).contains("etag mismatch"), "{}", said(&place, &output));
}

/// A backend on this machine that answers every request with 200.
fn backend() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        for mut stream in listener.incoming().flatten() {
            let _asked = stream.read(&mut [0; 4096]);
            let _answered =
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
    });
    port
}

#[test]
fn the_broken_half_is_named() {
    let place = Place::new();
    let (ui, api) = (backend(), std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let api = api.local_addr().unwrap().port();
    let edit = format!("{HERE}; s/127.0.0.1:3000/127.0.0.1:{ui}/; s/127.0.0.1:8001/127.0.0.1:{api}/");
    tailscale_as(&place, "serve-https", "serve-https", ":", &edit);
    let targets = [format!("http://127.0.0.1:{ui}"), format!("http://127.0.0.1:{api}")];
    let args = ["--local", "--ui-target", &targets[0], "--api-target", &targets[1]];
    let verify = [&["verify", "--health-attempts", "1", "--json"], args.as_slice()].concat();
    let output = run(&place, &verify);
    assert_eq!(output.status.code(), Some(41), "{}", said(&place, &output));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let checks = report["checks"].as_array().unwrap();
    let found: Vec<String> = checks
        .iter()
        .map(|check| format!("{} {}", check["id"].as_str().unwrap(), check["verdict"].as_str().unwrap()))
        .collect();
    assert_eq!(
        found,
        [
            "staging.plan pass",
            "staging.ui fail",
            "staging.api fail",
            "staging.ui.local pass",
            "staging.api.local fail"
        ]
    );
    let output = run(&place, &[&["status"], args.as_slice()].concat());
    assert_eq!(output.status.code(), Some(0), "{}", said(&place, &output));
    let out = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines[0].starts_with("ROUTE  ADDRESS"), "{out}");
    assert!(
        lines[1].starts_with("ui     https://srv1360701.localhost") && lines[1].contains("  200  "),
        "{out}"
    );
    assert!(lines[2].starts_with("api    https://srv1360701.localhost:8443"), "{out}");
    assert_eq!(changes(&place), [""; 0]);
}
