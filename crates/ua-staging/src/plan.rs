//! What is wanted, against what is there. Pure.

use ua_common::error::Fact;
use ua_common::exit::Exit;
use ua_common::settings::Settings;
use ua_common::settings::value::{Scheme, StatusSet};

use crate::serve::{Actual, Handler, Listener, ServeConfig};

/// What to do where the tailnet gives no certificates, in words.
pub const PLAIN_HTTP: &str = "use plain http inside the tailnet; in ua.toml: \
    [staging] scheme = \"http\", ui_port = 8080, api_port = 8081";

/// One private address of the app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Which part of the app: `ui` or `api`.
    pub part: &'static str,
    /// http or https.
    pub scheme: Scheme,
    /// Port on the tailnet.
    pub port: u16,
    /// What it proxies to on the VPS.
    pub target: String,
    /// What is asked to see whether it is healthy.
    pub health_path: String,
    /// Which statuses are healthy.
    pub healthy: StatusSet,
    /// The settings that decide it, for messages.
    pub settings: [&'static str; 2],
}

impl Route {
    /// The routes that the settings want.
    pub fn wanted(settings: &Settings) -> [Self; 2] {
        let scheme = settings.staging_scheme.value;
        [
            Self {
                part: "ui",
                scheme,
                port: settings.staging_ui_port.0,
                target: settings.staging_ui_target.0.clone(),
                health_path: settings.staging_ui_health_path.0.clone(),
                healthy: settings.staging_ui_health_status.value.clone(),
                settings: ["staging.ui_port", "staging.ui_target"],
            },
            Self {
                part: "api",
                scheme,
                port: settings.staging_api_port.0,
                target: settings.staging_api_target.0.clone(),
                health_path: settings.staging_api_health_path.0.clone(),
                healthy: settings.staging_api_health_status.value.clone(),
                settings: ["staging.api_port", "staging.api_target"],
            },
        ]
    }

    /// Its address on the tailnet, without a path.
    pub fn url(&self, name: &str) -> String {
        match (self.scheme, self.port) {
            (Scheme::Https, 443) => format!("https://{name}"),
            (Scheme::Http, 80) => format!("http://{name}"),
            (scheme, port) => format!("{}://{name}:{port}", word(scheme)),
        }
    }
}

/// The scheme as `tailscale serve` names it.
pub fn word(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::Https => "https",
        Scheme::Http => "http",
    }
}

/// One change of the serve configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Serve `target` at the root of a port.
    Set {
        /// http or https; in what is put back any kind of listener.
        scheme: &'static str,
        /// The port.
        port: u16,
        /// What is proxied to.
        target: String,
    },
    /// Take the root of a port away, and leave what is mounted beside it.
    Remove {
        /// http or https.
        scheme: &'static str,
        /// The port.
        port: u16,
    },
    /// Take everything off a port, so that another kind of listener fits.
    Clear {
        /// The kind of listener, as `tailscale serve` names it.
        kind: &'static str,
        /// The port.
        port: u16,
    },
    /// Take every route of the node away. Only at the operator's word.
    Reset,
}

impl Action {
    /// The port it changes.
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Set { port, .. } | Self::Remove { port, .. } | Self::Clear { port, .. } => Some(*port),
            Self::Reset => None,
        }
    }
}

impl std::fmt::Display for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Set { scheme, port, target } => write!(f, "serve {target} on {scheme} port {port}"),
            Self::Remove { scheme, port } => write!(f, "stop serving the root of {scheme} port {port}"),
            Self::Clear { kind, port } => write!(f, "stop serving {kind} on port {port}"),
            Self::Reset => f.write_str("stop serving anything"),
        }
    }
}

/// Why a route cannot be set up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    /// Something else is served there.
    #[error("port {port} of `{name}` serves {found}, but `{}` and `{}` want it for `{target}`", .settings[0], .settings[1])]
    Taken {
        /// The node.
        name: String,
        /// The port.
        port: u16,
        /// What is there.
        found: String,
        /// What is wanted.
        target: String,
        /// The settings that want it.
        settings: [&'static str; 2],
    },
    /// A running command holds the port; its configuration cannot be changed from outside.
    #[error("port {port} of `{name}` is held by a `tailscale serve` that runs in the foreground")]
    Foreground {
        /// The node.
        name: String,
        /// The port.
        port: u16,
    },
    /// Only a name that the node no longer has is served there, as another kind. `off` does not find such a route.
    #[error("port {port} of `{name}` is held as {kind} by `{old}`, a name that the node no longer has")]
    Stale {
        /// The node.
        name: String,
        /// The port.
        port: u16,
        /// What listens.
        kind: &'static str,
        /// The old name with its port.
        old: String,
    },
    /// Funnel opens the port to the internet.
    #[error("port {port} of `{name}` is open to the internet by Funnel, but staging is private")]
    Public {
        /// The node.
        name: String,
        /// The port.
        port: u16,
        /// What listens there, as `tailscale` names it in its flags.
        kind: &'static str,
        /// Does a running command hold it open?
        foreground: bool,
    },
    /// The tailnet hands out no certificates.
    #[error("serving https is not enabled on the tailnet of `{name}`; an admin enables it at {url}")]
    Disabled {
        /// The node.
        name: String,
        /// Where it is enabled.
        url: String,
    },
    /// Two parts on one port.
    #[error("`staging.ui_port` and `staging.api_port` are both {port}")]
    SamePort {
        /// The port.
        port: u16,
    },
    /// tailscaled is not up.
    #[error("tailscale on `{name}` is not running (state {state})")]
    NotRunning {
        /// The node.
        name: String,
        /// Its state.
        state: String,
    },
}

impl Fact for Obstacle {
    fn exit(&self) -> Exit {
        match self {
            Self::Taken { .. } | Self::Foreground { .. } | Self::Stale { .. } => Exit::StagingDrift,
            Self::Public { .. } => Exit::StagingPublic,
            Self::Disabled { .. } => Exit::ServeDisabled,
            Self::SamePort { .. } => Exit::Usage,
            Self::NotRunning { .. } => Exit::TailscaleDown,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Taken { settings: [port, target], .. } => format!(
                "take the port over: ua-staging ensure --replace; or leave it as it is, and give `{port}` another port, or `{target}` what is served there"
            ),
            Self::Foreground { name, .. } => {
                format!("end that command on `{name}`; it is shown by: pgrep -a tailscale")
            }
            Self::Stale { .. } => {
                "take every route of the node away, then set ours up: ua-staging reset --all".to_owned()
            }
            Self::Public { name, foreground: true, .. } => {
                format!("end the `tailscale funnel` that runs on `{name}`: pgrep -a tailscale")
            }
            Self::Public { port, kind, .. } => format!("on the VPS: tailscale funnel --{kind}={port} off"),
            Self::Disabled { url, .. } => {
                format!("open {url}, or {PLAIN_HTTP}")
            }
            Self::SamePort { .. } => "give one of them another port: --api-port 8443".to_owned(),
            Self::NotRunning { .. } => "on the VPS: tailscale up".to_owned(),
        })
    }
}

/// What to do about the difference.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Why it cannot be done. Not empty: nothing may be changed.
    pub obstacles: Vec<Obstacle>,
    /// What is to be changed, in this order.
    pub actions: Vec<Action>,
    /// Parts whose route is as wanted.
    pub right: Vec<&'static str>,
    /// What a person should know though it stops nothing.
    pub notes: Vec<String>,
}

/// Compares. With `replace`, what else is served at the root of a wanted port gives way.
pub fn plan(wanted: &[Route; 2], actual: &Actual, replace: bool) -> Plan {
    let mut plan = Plan::default();
    let name = actual.node.name();
    if actual.node.backend_state != "Running" {
        let state = actual.node.backend_state.clone();
        plan.obstacles.push(Obstacle::NotRunning { name: name.to_owned(), state });
        return plan;
    }
    if wanted[0].port == wanted[1].port {
        plan.obstacles.push(Obstacle::SamePort { port: wanted[0].port });
        return plan;
    }
    for route in wanted {
        judge(route, name, &actual.serve, replace, &mut plan);
    }
    let https = plan.actions.iter().any(|action| matches!(action, Action::Set { scheme: "https", .. }));
    if https && !actual.node.may_serve_https() {
        plan.obstacles.push(Obstacle::Disabled { name: name.to_owned(), url: actual.node.enable_url() });
    }
    let stale: Vec<&str> =
        actual.serve.web.keys().filter(|at| host(at) != name).map(String::as_str).collect();
    if !stale.is_empty() {
        plan.notes.push(format!(
            "routes of a name that this node no longer has answer nobody: {}",
            stale.join(", ")
        ));
    }
    plan
}

fn judge(route: &Route, name: &str, serve: &ServeConfig, replace: bool, plan: &mut Plan) {
    let port = route.port;
    let name_owned = || name.to_owned();
    let open = |config: &ServeConfig| {
        config.allow_funnel.iter().any(|(at, open)| *open && port_of(at) == Some(port))
    };
    let foreground = serve.foreground.values().any(open);
    if foreground || open(serve) {
        let kind = serve.tcp.get(&port).map_or("https", Listener::kind);
        plan.obstacles.push(Obstacle::Public { name: name_owned(), port, kind, foreground });
        return;
    }
    if serve.foreground.values().any(|session| session.tcp.contains_key(&port)) {
        plan.obstacles.push(Obstacle::Foreground { name: name_owned(), port });
        return;
    }
    let set = || Action::Set { scheme: word(route.scheme), port, target: route.target.clone() };
    let mut taken = |found: String, actions: Vec<Action>| {
        if replace {
            plan.actions.extend(actions);
        } else {
            let (target, settings) = (route.target.clone(), route.settings);
            plan.obstacles.push(Obstacle::Taken { name: name.to_owned(), port, found, target, settings });
        }
    };
    let Some(listener) = serve.tcp.get(&port) else {
        plan.actions.push(set());
        return;
    };
    let kind = listener.kind();
    if kind != word(route.scheme) {
        let mut served = serve.web.keys().filter(|at| port_of(at) == Some(port)).peekable();
        if let Some(old) = served.peek().map(|at| (*at).clone())
            && served.all(|at| host(at) != name)
        {
            plan.obstacles.push(Obstacle::Stale { name: name_owned(), port, kind, old });
            return;
        }
        let found = if listener.forward.is_empty() {
            kind.to_owned()
        } else {
            format!("raw TCP to `{}`", listener.forward)
        };
        taken(found, vec![Action::Clear { kind, port }, set()]);
        return;
    }
    match root_handler(serve, name, port) {
        None => plan.actions.push(set()),
        Some(handler) if handler.proxy.trim_end_matches('/') == route.target => plan.right.push(route.part),
        Some(handler) => taken(handler.words(), vec![set()]),
    }
}

fn root_handler<'a>(serve: &'a ServeConfig, name: &str, port: u16) -> Option<&'a Handler> {
    serve.web.get(&format!("{name}:{port}"))?.handlers.get("/")
}

/// The changes that bring the ports of `done` from what they are `now` back to what they were `before`, as far as
/// `tailscale serve` can be told to.
pub fn undo(done: &[Action], before: &Actual, now: &Actual) -> Vec<Action> {
    let mut ports: Vec<u16> = Vec::new();
    let mut back = Vec::new();
    for port in done.iter().rev().filter_map(Action::port) {
        if ports.contains(&port) {
            continue;
        }
        ports.push(port);
        let (was, is) = (before.serve.tcp.get(&port), now.serve.tcp.get(&port));
        if let Some(is) = is
            && was.is_none_or(|was| was.kind() != is.kind())
        {
            let kind = is.kind();
            back.push(match was {
                // What is mounted beside the root came from somebody else.
                None => Action::Remove { scheme: kind, port },
                Some(_) => Action::Clear { kind, port },
            });
        }
        let Some(was) = was else { continue };
        let root = |actual: &Actual| root_handler(&actual.serve, before.node.name(), port).cloned();
        if is.is_some_and(|is| is.kind() == was.kind()) && root(before).is_none() && root(now).is_some() {
            back.push(Action::Remove { scheme: was.kind(), port });
        }
        let target = match root(before) {
            Some(handler) => handler.target(),
            None => Some(&was.forward).filter(|to| !to.is_empty()).map(|to| format!("tcp://{to}")),
        };
        if let Some(target) = target {
            back.push(Action::Set { scheme: was.kind(), port, target });
        }
    }
    back
}

/// The routes of ours that are there: what `reset` takes away.
pub fn removal(wanted: &[Route; 2], actual: &Actual) -> Vec<Action> {
    let name = actual.node.name();
    let ours = |route: &&Route| {
        let kind = actual.serve.tcp.get(&route.port).map(Listener::kind);
        let handler = root_handler(&actual.serve, name, route.port);
        kind == Some(word(route.scheme))
            && handler.is_some_and(|handler| handler.proxy.trim_end_matches('/') == route.target)
    };
    wanted
        .iter()
        .filter(ours)
        .map(|route| Action::Remove { scheme: word(route.scheme), port: route.port })
        .collect()
}

fn host(at: &str) -> &str {
    at.rsplit_once(':').map_or(at, |(host, _)| host)
}

fn port_of(at: &str) -> Option<u16> {
    at.rsplit_once(':')?.1.parse().ok()
}
