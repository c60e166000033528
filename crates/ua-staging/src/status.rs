//! What is served and how it does, as a table: what is wanted beside what is there.

use jiff::Timestamp;
use serde::Serialize;
use ua_common::error::Failure;
use ua_common::exit::Exit;
use ua_common::settings::value::Scheme;

use crate::View;
use crate::ensure::{Vps, loopback};
use crate::health::EACH;
use crate::http::{self, Way};
use crate::plan::Route;

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// `ui` or `api`; nothing for what is not ours.
    pub route: Option<&'static str>,
    /// Its address on the tailnet.
    pub address: String,
    /// What the settings want there.
    pub wanted: Option<String>,
    /// What is there.
    pub served: Option<String>,
    /// What it answers through the tailnet: a status, or why there is none.
    pub health: Option<String>,
    /// What its target answers on the VPS.
    pub local: Option<u16>,
    /// Days until its certificate ends, or what is wrong with it.
    pub certificate: Option<String>,
}

/// Looks at everything once.
pub fn rows(vps: &Vps<'_>, view: &View) -> Result<Vec<Row>, Failure> {
    let targets: Vec<String> =
        view.wanted.iter().map(|route| format!("{}{}", route.target, route.health_path)).collect();
    // Without an answer of the VPS itself the rest of the table is still true.
    let answers = match loopback(vps, &targets) {
        Err(failure) if failure.exit == Exit::Interrupted => return Err(failure),
        answers => answers.unwrap_or_else(|_| vec![None; targets.len()]),
    };
    let name = view.actual.node.name();
    let mut rows: Vec<Row> =
        view.wanted.iter().zip(answers).map(|(route, local)| wanted(view, route, name, local)).collect();
    rows.extend(others(view, name));
    Ok(rows)
}

fn wanted(view: &View, route: &Route, name: &str, local: Option<u16>) -> Row {
    let there = view.actual.serve.tcp.contains_key(&route.port);
    let at = format!("{name}:{}", route.port);
    let handler = view.actual.serve.web.get(&at).and_then(|web| web.handlers.get("/"));
    let listener = view.actual.serve.tcp.get(&route.port);
    let served =
        handler.map(crate::serve::Handler::words).or_else(|| listener.map(|it| it.kind().to_owned()));
    let answer = |url: String| {
        http::status(&url, Way::Direct, EACH).map_or_else(|why| why, |status| status.to_string())
    };
    let certificate = || match http::certificate_end(name, route.port, EACH) {
        Ok(end) => format!("{} days", end.duration_since(Timestamp::now()).as_hours() / 24),
        Err(why) => why,
    };
    Row {
        route: Some(route.part),
        address: route.url(name),
        wanted: Some(route.target.clone()),
        served: served.map(|words| words.replace('`', "")),
        health: there.then(|| answer(format!("{}{}", route.url(name), route.health_path))),
        local,
        certificate: (there && route.scheme == Scheme::Https).then(certificate),
    }
}

/// What is served beside our two routes.
fn others(view: &View, name: &str) -> Vec<Row> {
    let serve = &view.actual.serve;
    let ours = |at: &str, mount: &str| {
        mount == "/" && view.wanted.iter().any(|route| at == format!("{name}:{}", route.port))
    };
    let other = |address: String, served: String| Row {
        route: None,
        address,
        wanted: None,
        served: Some(served.replace('`', "")),
        health: None,
        local: None,
        certificate: None,
    };
    let mut rows = Vec::new();
    for (at, web) in &serve.web {
        for (mount, handler) in web.handlers.iter().filter(|(mount, _)| !ours(at, mount)) {
            rows.push(other(format!("{at}{mount}"), handler.words()));
        }
    }
    for (port, listener) in serve.tcp.iter().filter(|(_, listener)| !listener.forward.is_empty()) {
        rows.push(other(format!("{name}:{port}"), listener.forward.clone()));
    }
    for (session, config) in &serve.foreground {
        for port in config.tcp.keys() {
            rows.push(other(format!("{name}:{port}"), format!("a command in the foreground ({session})")));
        }
    }
    rows
}

/// The table, a line each, with a head.
pub fn table(rows: &[Row]) -> Vec<String> {
    let head = ["ROUTE", "ADDRESS", "WANTED", "SERVED", "HEALTH", "ON THE VPS", "CERTIFICATE"];
    let head = head.map(str::to_owned);
    let cells = |row: &Row| {
        let or_dash = |cell: &Option<String>| cell.clone().unwrap_or_else(|| "-".to_owned());
        [
            row.route.unwrap_or("-").to_owned(),
            row.address.clone(),
            or_dash(&row.wanted),
            row.served.clone().unwrap_or_else(|| "nothing".to_owned()),
            or_dash(&row.health),
            or_dash(&row.local.map(|status| status.to_string())),
            or_dash(&row.certificate),
        ]
    };
    ua_common::output::aligned(&std::iter::once(head).chain(rows.iter().map(cells)).collect::<Vec<_>>())
}
