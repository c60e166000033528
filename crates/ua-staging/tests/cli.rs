//! The binary by itself, on the VPS: a `tailscale` that replays what the real one said, and nothing else of a tailnet.

#![cfg(test)]

use std::process::Output;
use std::time::{Duration, Instant};

use ua_tests::Place;

const BIN: &str = env!("CARGO_BIN_EXE_ua-staging");

/// A `tailscale` in the state `before`. Once both staging routes are set its state is `after`; what `serve` does comes
/// before the second one is.
fn tailscale(place: &Place, before: &str, after: &str, serve: &str) {
    tailscale_as(place, before, after, serve, "");
}

/// Names of the tailnet mean nothing here, so where health is asked they are changed into names of this machine.
const HERE: &str = "s/taildcc090.ts.net/localhost/g";

/// The same, with what was captured edited by `sed`.
fn tailscale_as(place: &Place, before: &str, after: &str, serve: &str, edit: &str) {
    let captured = ua_tests::fixtures().join("captured");
    half(place, "ui", "8443");
    half(place, "api", "443");
    let root = place.home();
    let (root, captured) = (root.display(), captured.display());
    place.program(
        "tailscale",
        &format!(
            r#"#!/bin/sh
cd '{root}'
echo "$*" >>calls
case $(ls set 2>/dev/null | tr '\n' ' ') in
    'api ui ') state='{captured}/{after}/serve-status.json' ;;
    'ui ') state=ui.json ;;
    'api ') state=api.json ;;
    *) state='{captured}/{before}/serve-status.json' ;;
esac
case "$*" in
    "serve status --json") sed '{edit}' "$state" ;;
    "status --json --peers=false") echo 'Warning: client version "1" != tailscaled server version "2"' >&2; sed '{edit}' '{captured}/{before}/vps-status.json' ;;
    "serve --bg --https=8443 "*) {serve}; mkdir -p set; touch set/api ;;
    "serve --bg --https=443 "*) echo 'Available within your tailnet:'; mkdir -p set; touch set/ui ;;
    "serve --https=443 --set-path=/ off") rm set/ui ;;
    *) echo "not captured: $*" >&2; exit 64 ;;
esac
"#
        ),
    );
}

/// What is served when of both routes only this one is: what was captured of both, without the other one's port.
fn half(place: &Place, part: &str, without: &str) {
    let both = ua_tests::fixtures().join("captured/serve-https/serve-status.json");
    let mut config: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(both).unwrap()).unwrap();
    config["TCP"].as_object_mut().unwrap().remove(without).unwrap();
    let suffix = format!(":{without}");
    config["Web"].as_object_mut().unwrap().retain(|at, _| !at.ends_with(&suffix));
    place.file(&format!("home/{part}.json"), format!("{config:#}\n"));
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
    let output = run(&place, &args);
    assert!(said(&place, &output).contains("both routes are as wanted"), "{}", said(&place, &output));
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
    skip staging.other   the api route is left as it is, neither set nor asked: staging is both routes or none
    vps: FAIL root@srv1360701.taildcc090.ts.net: exit 42 (staging-drift)
    --- stderr
    error: staging.routes: port 443 of `srv1360701.taildcc090.ts.net` serves `http://127.0.0.1:30001`, but `staging.ui_port` and `staging.ui_target` want it for `http://127.0.0.1:3000`
    hint: take the port over: ua-staging ensure --replace; or leave it as it is, and give `staging.ui_port` another port, or `staging.ui_target` what is served there
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
    assert!(text.contains("was put back"), "{text}");
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
    assert_eq!(output.status.code(), Some(11), "{}", said(&place, &output));
    assert!(said(&place, &output).contains("failed to connect to local tailscaled"));
    place.program("tailscale", "#!/bin/sh\nexit 127\n");
    let output = run(&place, &["status", "--local"]);
    assert_eq!(output.status.code(), Some(10), "{}", said(&place, &output));
}

/// tailscaled's answer to a change that comes between another one's look and change.
const MISMATCH: &str = "echo 'Another client is changing the serve config; please try again.' >&2; \
    echo 'sending serve config: Preconditions failed: etag mismatch' >&2";

#[test]
fn two_runs_at_once_end_with_the_same_routes() {
    let place = Place::new();
    // The other run was quicker: what it set is what this one wants too.
    let other = format!("touch set/api; {MISMATCH}; exit 1");
    tailscale_as(&place, "serve-none", "serve-https", &other, HERE);
    let output = run(&place, &["ensure", "--local", "--health-attempts", "1", "--json"]);
    assert_eq!(output.status.code(), Some(41), "{}", said(&place, &output));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let detail = "the ui route was set and read back, the other one is as wanted";
    assert_eq!(report["checks"][0]["detail"], detail);
    let changes = changes(&place);
    assert!(
        !changes.iter().any(|change| change.ends_with("off")),
        "the other run's route was taken: {changes:?}"
    );
    assert_eq!(changes.len(), 2, "{changes:?}");
}

/// Another target on port 8443, as `sed` makes it of what was captured.
const TAKEN: &str = "s/127.0.0.1:8001/127.0.0.1:8002/";

#[test]
fn a_port_that_is_taken_in_the_middle_is_not_repointed() {
    let place = Place::new();
    // Between the look and the change of port 8443 somebody serves another target there.
    tailscale_as(&place, "serve-none", "serve-https", ":", TAKEN);
    let program = place.home().parent().unwrap().join("bin/tailscale");
    let text = std::fs::read_to_string(&program).unwrap();
    // The look that the second change begins with is the fourth.
    let taken = "echo \"$*\" >>calls\n[ \"$(grep -c 'serve status' calls)\" -lt 4 ] || touch set/api";
    place.program("tailscale", &text.replace("echo \"$*\" >>calls", taken));
    let output = run(&place, &["ensure", "--local"]);
    assert_eq!(output.status.code(), Some(42), "{}", said(&place, &output));
    let text = said(&place, &output);
    assert!(text.contains("serves `http://127.0.0.1:8002`"), "{text}");
    // Whoever did that saw our other route: it may be what they build on.
    assert!(
        text.contains(
            "somebody else changed the routes meanwhile, so this stays as it is: serve http://127.0.0.1:3000"
        ),
        "{text}"
    );
    assert_eq!(changes(&place), ["serve --bg --https=443 http://127.0.0.1:3000"]);
}

#[test]
fn p60_what_was_set_before_a_failure_is_taken_back() {
    let place = Place::new();
    tailscale(&place, "serve-none", "serve-https", "echo 'no such luck' >&2; exit 1");
    let output = run(&place, &["ensure", "--local"]);
    assert_eq!(output.status.code(), Some(42), "{}", said(&place, &output));
    let text = said(&place, &output);
    assert!(
        text.contains("no such luck") && text.contains("what this run had changed was put back"),
        "{text}"
    );
    assert_eq!(
        changes(&place),
        [
            "serve --bg --https=443 http://127.0.0.1:3000",
            "serve --bg --https=8443 http://127.0.0.1:8001",
            "serve --https=443 --set-path=/ off"
        ]
    );
}

#[test]
fn what_another_run_set_at_the_same_moment_is_not_taken_back() {
    let place = Place::new();
    // This run fails, and in that moment the other one is done: with both routes, one of which this run had set.
    tailscale(&place, "serve-none", "serve-https", "touch set/api; echo 'no such luck' >&2; exit 1");
    let output = run(&place, &["ensure", "--local"]);
    assert_eq!(output.status.code(), Some(42), "{}", said(&place, &output));
    assert!(said(&place, &output).contains("somebody else changed the routes meanwhile"));
    let changes = changes(&place);
    assert!(!changes.iter().any(|change| change.ends_with("off")), "{changes:?}");
}

#[test]
fn what_nobody_knows_is_told() {
    let place = Place::new();
    // The second change gets no answer, and nothing after it.
    let gone = "printf '#!/bin/sh\\nexit 1\\n' >\"$0\"; exit 0";
    tailscale(&place, "serve-none", "serve-https", gone);
    let output = run(&place, &["ensure", "--local"]);
    assert_eq!(output.status.code(), Some(11), "{}", said(&place, &output));
    let text = said(&place, &output);
    assert!(text.contains("what this run had changed is still there"), "{text}");
    let doubt = "whether this was done is not known: serve http://127.0.0.1:8001 on https port 8443";
    assert!(text.contains(doubt), "{text}");
}

#[test]
fn routes_that_never_rest_are_given_up() {
    let place = Place::new();
    tailscale(&place, "serve-none", "serve-none", &format!("{MISMATCH}; exit 1"));
    let output = run(&place, &["ensure", "--local"]);
    assert_eq!(output.status.code(), Some(42), "{}", said(&place, &output));
    let text = said(&place, &output);
    assert!(text.contains("never rest") && text.contains("was put back"), "{text}");
}

#[test]
fn reset_tells_what_goes_and_what_would() {
    let place = Place::new();
    tailscale(&place, "serve-path", "serve-path", ":");
    let output = run(&place, &["reset", "--local", "--all", "--dry-run"]);
    insta::assert_snapshot!(said(&place, &output), @r"
    exit: 0
    --- stdout
    would stop serving `http://127.0.0.1:3000` on https srv1360701.taildcc090.ts.net:443/
    would stop serving `http://127.0.0.1:4000` on https srv1360701.taildcc090.ts.net:443/docs
    ok   staging.reset  all routes of the node would be removed
    vps: ok   root@srv1360701.taildcc090.ts.net
    --- stderr
    ");
    let output = run(&place, &["reset", "--local", "--dry-run"]);
    insta::assert_snapshot!(said(&place, &output), @r"
    exit: 0
    --- stdout
    would stop serving the root of https port 443
    ok   staging.reset  routes of ours would be removed
    vps: ok   root@srv1360701.taildcc090.ts.net
    --- stderr
    ");
    assert_eq!(changes(&place), [""; 0]);
}

#[test]
fn an_unknown_mode_is_a_mistake_that_asks_nobody() {
    let place = Place::new();
    tailscale(&place, "serve-https", "serve-https", ":");
    let output = run(&place, &["ensure", "--local", "--staging", "maybe"]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&place, &output));
    let output =
        place.run(BIN).args(["verify", "--local"]).env("UA_TAILNET_STAGING_MODE", "maybe").output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", said(&place, &output));
    assert!(said(&place, &output).contains("UA_TAILNET_STAGING_MODE"), "{}", said(&place, &output));
    assert_eq!(calls(&place), [""; 0]);
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
    // It is asked again, and a log says so at once.
    let patient = ["verify", "--health-attempts", "2", "--health-interval", "10ms"];
    let output = run(&place, &[&patient, args.as_slice()].concat());
    assert_eq!(output.status.code(), Some(41), "{}", said(&place, &output));
    let words = "note: staging.ui, staging.api not healthy yet; asking up to 2 times, 0.01s apart\n";
    assert!(said(&place, &output).contains(words), "{}", said(&place, &output));
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
