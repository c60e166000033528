//! `docs/report.schema.json` holds for every report, and for nothing else. The lab holds it against real ones of every tool.
#![allow(clippy::unwrap_used, reason = "tests panic")]

use std::time::Duration;

use serde_json::json;
use ua_common::exit::TABLE;
use ua_common::report::{Check, Lane, Report, schema};

/// A report with a check of every kind, whose first failure is `exit`.
fn report(lane: Lane, exit: Option<ua_common::exit::Exit>) -> serde_json::Value {
    let mut report = Report::new("ua-ssh-auth", lane, "root@h");
    report.push(Check::pass("a.b", "").took(Duration::from_millis(3)));
    report.push(Check::warn("a.c", "why").hint("ua-preflight"));
    report.push(Check::skip("a_d", "why"));
    if let Some(exit) = exit {
        report.push(Check::fail("staging.ui.certificate", exit, "why"));
    }
    report.data.insert("rows".to_owned(), json!([{"mirror": true}]));
    report.to_json()
}

#[test]
fn the_schema_takes_every_lane_code_and_check() {
    let schema = jsonschema::validator_for(&schema()).unwrap();
    for lane in [Lane::Local, Lane::Vps, Lane::Public] {
        for exit in TABLE.iter().map(|row| Some(row.exit)).chain([None]) {
            let report = report(lane, exit);
            schema.validate(&report).unwrap_or_else(|error| panic!("{error}: {report:#}"));
        }
    }
}

#[test]
fn the_schema_refuses_what_is_no_report() {
    let schema = jsonschema::validator_for(&schema()).unwrap();
    let whole = report(Lane::Vps, None);
    for (key, wrong) in [
        ("lane", json!("mixed")),
        ("verdict", json!("ok")),
        ("exit_code", json!(3)),
        ("schema", json!("ua.report/2")),
        ("started_at", json!("today")),
        ("checks", json!([{"id": "a", "verdict": "pass", "detail": ""}])),
        ("another", json!(1)),
    ] {
        let mut bent = whole.clone();
        bent[key] = wrong;
        assert!(!schema.is_valid(&bent), "{bent:#}");
    }
    for key in whole.as_object().unwrap().keys() {
        let mut less = whole.clone();
        less.as_object_mut().unwrap().remove(key);
        assert!(!schema.is_valid(&less), "{less:#}");
    }
}
