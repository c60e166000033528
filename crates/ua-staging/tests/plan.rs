//! Wanted against actual, on what a real tailscaled said in the lab.

#![cfg(test)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::slice;

use ua_common::error::Fact as _;
use ua_common::settings::{Layer, Origin, Raw, Settings, Surroundings};
use ua_staging::plan::{Action, Plan, Route, plan, removal, undo};
use ua_staging::serve::Actual;

fn captured(state: &str) -> Actual {
    let read = |file: &str| {
        std::fs::read_to_string(ua_tests::fixtures().join("captured").join(state).join(file)).unwrap()
    };
    Actual::parse(&format!(
        "{{\"serve\":{},\"node\":{}}}",
        read("serve-status.json"),
        read("vps-status.json")
    ))
    .unwrap()
}

/// The routes of the settings, some of which were changed.
fn wanted(changed: &[(&'static str, &str)]) -> [Route; 2] {
    let dir = PathBuf::from("/");
    let around =
        Surroundings { cwd: dir.clone(), home: Some(dir), config_home: None, env: BTreeMap::new(), uid: 0 };
    let layer: Layer = changed
        .iter()
        .map(|(key, text)| (*key, (Raw::Text((*text).to_owned()), Origin::Flag("--x".into()))))
        .collect();
    Route::wanted(&Settings::resolve(&[layer], &around).unwrap())
}

/// What is in the way with its exit code, what is to be done, what is right.
fn shown(plan: &Plan) -> Vec<String> {
    let mut lines: Vec<String> = plan
        .obstacles
        .iter()
        .map(|it| format!("{} {it} | {}", it.exit().code(), it.hint().unwrap()))
        .collect();
    lines.extend(plan.actions.iter().map(ToString::to_string));
    lines.extend(plan.right.iter().map(|part| format!("{part} is right")));
    lines.extend(plan.notes.iter().cloned());
    lines
}

fn planned(state: &str, changed: &[(&'static str, &str)]) -> Vec<String> {
    shown(&plan(&wanted(changed), &captured(state), false))
}

fn replaced(state: &str, changed: &[(&'static str, &str)]) -> Vec<String> {
    shown(&plan(&wanted(changed), &captured(state), true))
}

const SET_UI: &str = "serve http://127.0.0.1:3000 on https port 443";
const SET_API: &str = "serve http://127.0.0.1:8001 on https port 8443";

#[test]
fn only_what_differs_is_changed() {
    assert_eq!(planned("serve-none", &[]), [SET_UI, SET_API]);
    assert_eq!(planned("serve-https", &[]), ["ui is right", "api is right"]);
    assert_eq!(
        planned("serve-path", &[]),
        [SET_API, "ui is right"],
        "another mount point is not ours to judge"
    );
}

#[test]
fn p58_the_routes_are_those_of_the_settings() {
    let changed = [
        ("staging.scheme", "http"),
        ("staging.ui_port", "8080"),
        ("staging.ui_target", "http://127.0.0.1:3999/"),
        ("staging.api_port", "8081"),
    ];
    assert_eq!(
        planned("serve-none", &changed),
        ["serve http://127.0.0.1:3999 on http port 8080", "serve http://127.0.0.1:8001 on http port 8081"]
    );
    assert_eq!(wanted(&changed)[0].url("a.ts.net"), "http://a.ts.net:8080");
    assert_eq!(wanted(&[])[0].url("a.ts.net"), "https://a.ts.net");
    assert_eq!(wanted(&[])[1].url("a.ts.net"), "https://a.ts.net:8443");
}

#[test]
fn p60_ports_and_targets_are_compared_not_searched() {
    // `:30001` contains `:3000`, and port 443 serves something all the same.
    assert_eq!(
        planned("serve-other-target", &[]),
        [
            "42 port 443 of `srv1360701.taildcc090.ts.net` serves `http://127.0.0.1:30001`, but `staging.ui_port` and `staging.ui_target` want it for `http://127.0.0.1:3000` | take the port over: ua-staging ensure --replace; or leave it as it is, and give `staging.ui_port` another port, or `staging.ui_target` what is served there",
            SET_API
        ]
    );
    assert_eq!(replaced("serve-other-target", &[]), [SET_UI, SET_API]);
    // The right targets on swapped ports are not right.
    let swapped = [("staging.ui_port", "8443"), ("staging.api_port", "443")];
    assert_eq!(planned("serve-https", &swapped).iter().filter(|line| line.starts_with("42 ")).count(), 2);
}

#[test]
fn another_kind_of_listener_is_taken() {
    let said = &planned("serve-tcp", &[])[0];
    assert!(
        said.starts_with("42 port 443 of `srv1360701.taildcc090.ts.net` serves raw TCP to `127.0.0.1:3000`"),
        "{said}"
    );
    assert_eq!(replaced("serve-tcp", &[]), ["stop serving tcp on port 443", SET_UI, SET_API]);
    assert_eq!(planned("serve-http", &[]).iter().filter(|line| line.starts_with("42 ")).count(), 2);
    assert_eq!(
        replaced("serve-http", &[]),
        ["stop serving http on port 443", SET_UI, "stop serving http on port 8443", SET_API]
    );
}

#[test]
fn a_foreground_session_cannot_be_replaced() {
    for lines in [planned("serve-foreground", &[]), replaced("serve-foreground", &[])] {
        assert!(
            lines[0].starts_with("42 port 443 of") && lines[0].contains("runs in the foreground"),
            "{lines:?}"
        );
    }
}

#[test]
fn funnel_is_refused_even_where_the_route_is_right() {
    let lines = replaced("serve-funnel", &[]);
    assert!(lines[0].starts_with("43 port 443 of") && lines[0].contains("open to the internet"), "{lines:?}");
    assert!(lines[0].ends_with("| on the VPS: tailscale funnel --https=443 off"), "{lines:?}");
    assert_eq!(lines[1], "api is right");
}

#[test]
fn everything_that_is_served_is_told() {
    let lines = |state: &str| captured(state).serve.lines();
    assert_eq!(
        lines("serve-path"),
        [
            "`http://127.0.0.1:3000` on https srv1360701.taildcc090.ts.net:443/",
            "`http://127.0.0.1:4000` on https srv1360701.taildcc090.ts.net:443/docs"
        ]
    );
    assert_eq!(lines("serve-tcp"), ["`127.0.0.1:3000` on tcp port 443"]);
    assert!(lines("serve-funnel")[0].ends_with(":443/, open to the internet"));
    let foreground = lines("serve-foreground");
    assert!(foreground[0].contains(":443/, by a command in the foreground ("), "{foreground:?}");
    assert_eq!(lines("serve-none"), [""; 0]);
}

#[test]
fn https_that_is_not_enabled_is_found_before_anything_is_tried() {
    let lines = planned("serve-https-disabled", &[]);
    assert!(
        lines[0].starts_with("40 ") && lines[0].contains("https://login.tailscale.com/f/serve?node=2"),
        "{lines:?}"
    );
    // Plain http needs no certificate.
    assert_eq!(planned("serve-https-disabled", &[("staging.scheme", "http")]).len(), 2);
}

#[test]
fn a_route_of_an_old_name_is_told_and_left() {
    let http = [("staging.scheme", "http")];
    assert_eq!(
        planned("serve-renamed", &http),
        [
            "serve http://127.0.0.1:3000 on http port 443",
            "serve http://127.0.0.1:8001 on http port 8443",
            "routes of a name that this node no longer has answer nobody: srv1360701.taildcc090.ts.net:443"
        ]
    );
    let lines = replaced("serve-renamed", &[]);
    assert!(lines[0].starts_with("42 port 443 of `renamed.taildcc090.ts.net` is held as http"), "{lines:?}");
}

#[test]
fn one_port_for_both_is_a_mistake() {
    assert!(planned("serve-none", &[("staging.api_port", "443")])[0].starts_with("2 "));
}

#[test]
fn p60_a_ui_route_without_its_api_route_is_taken_back() {
    let back = |done: &[Action], before: &str, now: &str| {
        let back = undo(done, &captured(before), &captured(now));
        back.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let set = |target: &str| Action::Set { scheme: "https", port: 443, target: target.to_owned() };
    let ui = set("http://127.0.0.1:3000");
    let away = "stop serving the root of https port 443";
    let cleared = Action::Clear { kind: "tcp", port: 443 };
    let one = slice::from_ref;
    assert_eq!(back(one(&ui), "serve-none", "serve-https"), [away]);
    // What had to give way comes back, whatever it was.
    assert_eq!(
        back(one(&ui), "serve-other-target", "serve-https"),
        ["serve http://127.0.0.1:30001 on https port 443"]
    );
    let forward = "serve tcp://127.0.0.1:3000 on tcp port 443";
    assert_eq!(back(one(&cleared), "serve-tcp", "serve-none"), [forward]);
    assert_eq!(back(&[cleared, ui], "serve-tcp", "serve-https"), ["stop serving https on port 443", forward]);
}

#[test]
fn p59_reset_takes_away_only_what_equals_ours() {
    let gone = |state: &str| {
        removal(&wanted(&[]), &captured(state)).iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(
        gone("serve-https"),
        ["stop serving the root of https port 443", "stop serving the root of https port 8443"]
    );
    assert_eq!(gone("serve-path"), ["stop serving the root of https port 443"]);
    assert_eq!(gone("serve-other-target"), [""; 0]);
    assert_eq!(gone("serve-tcp"), [""; 0]);
    assert_eq!(gone("serve-http"), [""; 0]);
}
