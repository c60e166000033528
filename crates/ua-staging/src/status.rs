//! What is served and how it does, as a table: what is wanted beside what is there.

use jiff::Timestamp;
use serde::Serialize;
use ua_common::error::Failure;
use ua_common::exit::Exit;
use ua_common::http::{self, Way};
use ua_common::output::printable;
use ua_common::report::Check;
use ua_common::settings::value::Scheme;

use crate::View;
use crate::ensure::{Vps, loopback};
use crate::health::EACH;
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

impl Row {
    /// How its target does behind it, if not well.
    pub fn trouble(&self, route: &Route) -> Option<Check> {
        let health = self.health.as_deref()?;
        if health.parse().is_ok_and(|code| route.healthy.contains(code)) {
            return None;
        }
        let url = format!("{}{}", self.address, route.health_path);
        let said = match health.parse::<u16>() {
            Ok(code) => format!("{url} answers {code}"),
            Err(_) => format!("{url}: {health}"),
        };
        let local = self.local.map_or("nothing".to_owned(), |code| code.to_string());
        Some(Check::warn(
            format!("staging.{}", route.part),
            format!("{said}; on the VPS {} answers {local}", route.target),
        ))
    }
}

/// The head of the table. No route is called as its first column is.
pub const HEAD: [&str; 7] = ["ROUTE", "ADDRESS", "WANTED", "SERVED", "HEALTH", "ON THE VPS", "CERTIFICATE"];
/// The same in a row that stands by itself, after route and address.
const NAMES: [&str; 5] = ["wanted", "served", "health", "on the VPS", "certificate"];

/// The table, a line each, with a head. Where it does not fit into so many columns, one row below the other instead.
pub fn table(rows: &[Row], columns: Option<usize>) -> Vec<String> {
    let cells: Vec<[String; 7]> = rows.iter().map(cells).collect();
    let head = HEAD.map(str::to_owned);
    let lines =
        ua_common::output::aligned(&std::iter::once(head).chain(cells.iter().cloned()).collect::<Vec<_>>());
    let fits = |columns| lines.iter().all(|line| line.chars().count() <= columns);
    if columns.is_none_or(fits) {
        return lines;
    }
    let mut stacked = Vec::new();
    for [route, address, rest @ ..] in &cells {
        stacked.push([route.clone(), address.clone(), String::new()]);
        for (name, cell) in NAMES.iter().zip(rest).filter(|(_, cell)| *cell != "-") {
            stacked.push([String::new(), format!("  {name}"), cell.clone()]);
        }
    }
    // The addresses are as wide as they are; only names and values stand in columns.
    let width = NAMES.iter().map(|name| name.len() + 2).max().unwrap_or(0);
    stacked
        .iter()
        .map(|[route, name, value]| printable(format!("{route:5}  {name:width$}  {value}").trim_end()))
        .collect()
}

fn cells(row: &Row) -> [String; 7] {
    let or_dash = |cell: &Option<String>| cell.clone().unwrap_or_else(|| "-".to_owned());
    // Why there is no answer is told below the table.
    let short = |cell: &Option<String>, right: fn(&str) -> bool| match cell {
        Some(text) if !right(text) => "none".to_owned(),
        cell => or_dash(cell),
    };
    [
        row.route.unwrap_or("-").to_owned(),
        row.address.clone(),
        or_dash(&row.wanted),
        row.served.clone().unwrap_or_else(|| "nothing".to_owned()),
        short(&row.health, |text| text.parse::<u16>().is_ok()),
        or_dash(&row.local.map(|status| status.to_string())),
        short(&row.certificate, |text| text.ends_with(" days")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_does_not_fit_is_stacked() {
        let row = Row {
            route: Some("api"),
            address: "https://a.ts.net:8443".to_owned(),
            wanted: Some("http://127.0.0.1:8001".to_owned()),
            served: Some("http://127.0.0.1:8001".to_owned()),
            health: Some("no answer within 10 s".to_owned()),
            local: Some(200),
            certificate: Some("89 days".to_owned()),
        };
        let other = Row {
            route: None,
            address: "a.ts.net:443/docs".to_owned(),
            wanted: None,
            served: Some("http://127.0.0.1:4000".to_owned()),
            health: None,
            local: None,
            certificate: None,
        };
        let rows = [row, other];
        let wide = [
            "ROUTE  ADDRESS                WANTED                 SERVED                 HEALTH  ON THE VPS  CERTIFICATE",
            "api    https://a.ts.net:8443  http://127.0.0.1:8001  http://127.0.0.1:8001  none    200         89 days",
            "-      a.ts.net:443/docs      -                      http://127.0.0.1:4000  -       -           -",
        ];
        assert_eq!(table(&rows, None), wide);
        assert_eq!(table(&rows, Some(200)), wide);
        assert_eq!(
            table(&rows, Some(80)),
            [
                "api    https://a.ts.net:8443",
                "         wanted       http://127.0.0.1:8001",
                "         served       http://127.0.0.1:8001",
                "         health       none",
                "         on the VPS   200",
                "         certificate  89 days",
                "-      a.ts.net:443/docs",
                "         served       http://127.0.0.1:4000",
            ]
        );
    }
}
