//! What a node serves: `tailscale serve status --json`, and the part of `tailscale status` that decides what it may.

use std::collections::BTreeMap;

use serde::Deserialize;

/// Both answers of one observation.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Actual {
    /// The routes.
    pub serve: ServeConfig,
    /// The node.
    pub node: Node,
    /// What tells this state of the routes from any other.
    #[serde(default)]
    pub mark: String,
}

/// `ipn.ServeConfig`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ServeConfig {
    /// What listens on a port.
    #[serde(rename = "TCP", deserialize_with = "or_default")]
    pub tcp: BTreeMap<u16, Listener>,
    /// Handlers by `name:port`.
    #[serde(deserialize_with = "or_default")]
    pub web: BTreeMap<String, Web>,
    /// `name:port` that Funnel opens to the internet.
    #[serde(deserialize_with = "or_default")]
    pub allow_funnel: BTreeMap<String, bool>,
    /// What running `tailscale serve` commands hold, by session.
    #[serde(deserialize_with = "or_default")]
    pub foreground: BTreeMap<String, ServeConfig>,
    /// Services of the tailnet that this node hosts, by name.
    #[serde(deserialize_with = "or_default")]
    pub services: BTreeMap<String, serde_json::Value>,
}

impl ServeConfig {
    /// Everything that is served, a line each, for a person.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (at, web) in &self.web {
            let port = at.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
            let kind = port.and_then(|port: u16| self.tcp.get(&port)).map_or("web", Listener::kind);
            let open = if self.allow_funnel.get(at) == Some(&true) { ", open to the internet" } else { "" };
            for (mount, handler) in &web.handlers {
                lines.push(format!("{} on {kind} {at}{mount}{open}", handler.words()));
            }
        }
        for (port, listener) in self.tcp.iter().filter(|(_, listener)| !listener.forward.is_empty()) {
            lines.push(format!("`{}` on {} port {port}", listener.forward, listener.kind()));
        }
        for (session, config) in &self.foreground {
            let held = |line| format!("{line}, by a command in the foreground ({session})");
            lines.extend(config.lines().into_iter().map(held));
        }
        lines.extend(self.services.keys().map(|name| format!("the service `{name}`")));
        lines
    }
}

/// `ipn.TCPPortHandler`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Listener {
    /// It ends TLS and speaks HTTP.
    #[serde(rename = "HTTPS")]
    pub https: bool,
    /// It speaks HTTP.
    #[serde(rename = "HTTP")]
    pub http: bool,
    /// Bytes go here.
    #[serde(rename = "TCPForward")]
    pub forward: String,
    /// It ends TLS before it forwards, under this name.
    #[serde(rename = "TerminateTLS")]
    pub terminate_tls: String,
}

impl Listener {
    /// The kind as `tailscale serve` names it in its flags.
    pub fn kind(&self) -> &'static str {
        match self {
            Self { https: true, .. } => "https",
            Self { http: true, .. } => "http",
            Self { terminate_tls, .. } if !terminate_tls.is_empty() => "tls-terminated-tcp",
            _ => "tcp",
        }
    }
}

/// `ipn.WebServerConfig`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Web {
    /// Handlers by mount point.
    #[serde(deserialize_with = "or_default")]
    pub handlers: BTreeMap<String, Handler>,
}

/// `ipn.HTTPHandler`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Handler {
    /// Requests go to this address.
    pub proxy: String,
    /// Files are served from here.
    pub path: String,
    /// A fixed text is answered.
    pub text: String,
    /// Requests are sent elsewhere.
    pub redirect: String,
}

impl Handler {
    /// What it does, for a person.
    pub fn words(&self) -> String {
        match self {
            Self { proxy, .. } if !proxy.is_empty() => format!("`{proxy}`"),
            Self { path, .. } if !path.is_empty() => format!("the files of `{path}`"),
            Self { redirect, .. } if !redirect.is_empty() => format!("a redirect to `{redirect}`"),
            _ => "a fixed text".to_owned(),
        }
    }

    /// What `tailscale serve` is told to have it again, where it can be told.
    pub fn target(&self) -> Option<String> {
        match self {
            Self { proxy, .. } if !proxy.is_empty() => Some(proxy.clone()),
            Self { path, .. } if !path.is_empty() => Some(path.clone()),
            Self { text, .. } if !text.is_empty() => Some(format!("text:{text}")),
            _ => None,
        }
    }
}

/// The node itself.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Node {
    /// What tailscaled is doing; only `Running` serves.
    pub backend_state: String,
    #[serde(rename = "Self")]
    myself: Myself,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Myself {
    #[serde(rename = "ID", default)]
    id: String,
    #[serde(rename = "DNSName", default)]
    dns_name: String,
    #[serde(rename = "CapMap", default, deserialize_with = "or_default")]
    capabilities: BTreeMap<String, serde_json::Value>,
}

impl Node {
    /// Its full name, under which it serves.
    pub fn name(&self) -> &str {
        self.myself.dns_name.trim_end_matches('.')
    }

    /// Does the tailnet hand out certificates, which serving https needs?
    pub fn may_serve_https(&self) -> bool {
        self.myself.capabilities.contains_key("https")
    }

    /// Where an admin of the tailnet enables serving https for this node.
    pub fn enable_url(&self) -> String {
        format!("https://login.tailscale.com/f/serve?node={}", self.myself.id)
    }
}

/// Go writes `null` for an empty map now and then.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl Actual {
    /// Reads what `observe.sh` printed.
    pub fn parse(json: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(json)
    }
}
