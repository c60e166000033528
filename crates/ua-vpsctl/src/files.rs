//! `read`, `browse`, `sessions`, `inspect`: looking at files of the VPS. A path is data there, never code.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use ua_common::error::Failure;
use ua_common::exit::Exit;
use ua_common::output::{self, Record, Records, printable};
use ua_common::profile::Profile;
use ua_common::transport::Script;

use crate::session::Session;

const FIND: Script = Script { name: "find", text: include_str!("../remote/find.sh") };
const READ: Script = Script { name: "read", text: include_str!("../remote/read.sh") };
const KEYS: Script = Script { name: "keys", text: include_str!("../remote/keys.sh") };
const BROWSE: Script = Script { name: "browse", text: include_str!("../remote/browse.sh") };
const SESSIONS: Script = Script { name: "sessions", text: include_str!("../remote/sessions.sh") };
const INSPECT: Script = Script { name: "inspect", text: include_str!("../remote/inspect.sh") };
const LIMIT: Duration = Duration::from_mins(1);

/// Largest file that is read whole, in bytes.
const LARGEST: u64 = 8 << 20;
/// How many sessions are listed.
pub const NEWEST: usize = 40;

/// What a path of the VPS is.
pub struct Found {
    /// With all links resolved.
    real: String,
    /// Below the app's directory, if it is there.
    relative: Option<String>,
    kind: String,
    size: u64,
}

/// A path as it is typed: below the app, or absolute.
pub fn plain(path: &str) -> Result<&str, Failure> {
    if path.is_empty() || path.chars().any(char::is_control) {
        let message = format!("`{}` is not a path", path.escape_debug());
        return Err(Failure::new(Exit::Usage, message).hint("ua-vpsctl browse"));
    }
    Ok(path)
}

fn find(session: &Session<'_>, path: &str) -> Result<Found, Failure> {
    let app = &session.context.settings.deploy_app_dir.0;
    let answer = session.ask(FIND, &[app, path], LIMIT)?;
    let lines: Vec<&str> = answer.stdout.lines().collect();
    let [app, real, kind, size, _] = lines[..] else {
        return Err(Failure::new(
            Exit::Failed,
            format!("`{}` has a name that cannot be shown", printable(path)),
        ));
    };
    let relative = real.strip_prefix(app).and_then(|rest| rest.strip_prefix('/'));
    Ok(Found {
        real: real.to_owned(),
        relative: relative.map(str::to_owned),
        kind: kind.to_owned(),
        size: size.parse().unwrap_or_default(),
    })
}

/// Does a file hold secrets, by the patterns of the profile or by its name?
fn is_secret(profile: &Profile, found: &Found) -> bool {
    let path = found.relative.as_deref().unwrap_or(found.real.trim_start_matches('/'));
    profile.is_secret(path) || found.real.starts_with("/etc/shadow") || found.real.starts_with("/proc/")
}

/// Gives the bytes of a file, or of a secret one the names of its keys as a refusal.
pub fn read(session: &Session<'_>, path: &str, tail: Option<u32>) -> Result<Vec<u8>, Failure> {
    let found = find(session, path)?;
    let shown = printable(path);
    if !matches!(found.kind.as_str(), "regular file" | "regular empty file") {
        let message = format!("`{shown}` is a {} and no file", found.kind);
        return Err(Failure::new(Exit::Failed, message).hint(format!("ua-vpsctl browse {shown}")));
    }
    if is_secret(session.profile, &found) {
        let keys = session.ask(KEYS, &[&found.real], LIMIT)?.stdout;
        let keys: Vec<&str> = keys.lines().collect();
        let keys =
            if keys.is_empty() { String::new() } else { format!("; its keys: {}=…", keys.join("=…, ")) };
        let message = format!("`{shown}` holds secrets and is not shown{keys}");
        return Err(Failure::new(Exit::Failed, message).hint("ua-vpsctl doctor"));
    }
    if tail.is_none() && found.size > LARGEST {
        let message = format!("`{shown}` has {}", output::bytes(found.size));
        return Err(Failure::new(Exit::Failed, message).hint(format!("ua-vpsctl read {shown} --tail 200")));
    }
    let lines = tail.map_or_else(String::new, |lines| lines.to_string());
    let (answer, bytes) = session.transport.bytes(READ, &[&found.real, &lines], LIMIT)?;
    if answer.code != 0 {
        return Err(Failure::new(Exit::Failed, printable(answer.stderr.trim())));
    }
    Ok(bytes)
}

/// What is in a directory.
pub fn browse(session: &Session<'_>, path: &str) -> Result<Records<5>, Failure> {
    let found = find(session, path)?;
    if found.kind != "directory" {
        let shown = printable(path);
        let message = format!("`{shown}` is a {} and no directory", found.kind);
        return Err(Failure::new(Exit::Failed, message).hint(format!("ua-vpsctl read {shown}")));
    }
    let answer = session.ask(BROWSE, &[&found.real], LIMIT)?;
    let mut rows: Vec<Record<5>> = answer.stdout.split('\0').filter_map(entry).collect();
    rows.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(Records { head: ["NAME", "SIZE", "TIME", "OWNER", "MODE"], rows })
}

fn entry(record: &str) -> Option<Record<5>> {
    let fields: Vec<&str> = record.splitn(6, ' ').collect();
    let [kind, size, time, owner, mode, name] = fields[..] else { return None };
    let mark = match kind {
        "d" => "/",
        "l" => "@",
        "f" => "",
        _ => "?",
    };
    Some(Record {
        id: name.to_owned(),
        cells: [
            format!("{name}{mark}"),
            if kind == "f" { output::bytes(size.parse().unwrap_or_default()) } else { "-".to_owned() },
            moment(time),
            owner.to_owned(),
            mode.to_owned(),
        ],
        json: json!({"name": name, "type": kind, "bytes": size.parse::<u64>().ok(), "time": time, "owner": owner, "mode": mode}),
    })
}

/// The newest workspaces.
pub fn sessions(session: &Session<'_>, prefix: &str) -> Result<Records<5>, Failure> {
    let root = &session.context.settings.sync_remote_dir.value.0;
    let nested = session.context.settings.sync_nested.value.regex();
    let answer = session.ask(SESSIONS, &[root, prefix, &NEWEST.to_string(), &nested], LIMIT)?;
    let rows = answer.stdout.split('\0').filter_map(workspace).collect();
    Ok(Records { head: ["SESSION", "TIME", "FILES", "PRODUCTS", "SIZE"], rows })
}

fn workspace(record: &str) -> Option<Record<5>> {
    let fields: Vec<&str> = record.splitn(5, ' ').collect();
    let [time, files, products, bytes, name] = fields[..] else { return None };
    let size = bytes.parse().unwrap_or_default();
    Some(Record {
        id: name.to_owned(),
        cells: [name.to_owned(), moment(time), files.to_owned(), products.to_owned(), output::bytes(size)],
        json: json!({
            "id": name,
            "time": time,
            "files": files.parse::<u64>().ok(),
            "work_products": products.parse::<u64>().ok(),
            "bytes": size,
        }),
    })
}

fn moment(time: &str) -> String {
    let seconds = time.split('.').next().and_then(|whole| whole.parse().ok());
    let at = seconds.and_then(|whole| Timestamp::from_second(whole).ok());
    at.map_or_else(|| "?".to_owned(), |at| at.strftime("%Y-%m-%d %H:%M:%SZ").to_string())
}

/// One workspace, part by part: name and lines.
pub fn inspect(session: &Session<'_>, id: &str) -> Result<Vec<(String, Vec<String>)>, Failure> {
    let root = &session.context.settings.sync_remote_dir.value.0;
    let answer = session.ask(INSPECT, &[root, id], LIMIT)?;
    Ok(parts(&answer.stdout))
}

fn parts(text: &str) -> Vec<(String, Vec<String>)> {
    let mut parts: Vec<(String, Vec<String>)> = Vec::new();
    for line in text.lines() {
        let begins = line.strip_prefix("== ").filter(|name| KNOWN.contains(name));
        if let Some(name) = begins.filter(|name| parts.iter().all(|part| part.0 != *name)) {
            parts.push((name.to_owned(), Vec::new()));
        } else if let Some(part) = parts.last_mut() {
            part.1.push(line.to_owned());
        }
    }
    parts
}

/// What a workspace is shown as, in this order.
const KNOWN: [&str; 6] =
    ["newest", "products", "run.log", "transcript.md", "transcript.jsonl", "transcript.txt"];

/// The parts for a person.
pub fn shown(parts: &[(String, Vec<String>)]) -> String {
    let mut text = String::new();
    for (name, lines) in parts {
        text.push_str(&format!("== {name}\n"));
        for line in lines {
            text.push_str(&printable(&dated(name, line)));
            text.push('\n');
        }
    }
    text
}

/// `TIME SIZE PATH` and `SIZE PATH` as a person reads them.
fn dated(part: &str, line: &str) -> String {
    let size = |text: &str| text.parse().map_or_else(|_| text.to_owned(), output::bytes);
    let fields: Vec<&str> = line.splitn(3, ' ').collect();
    match (part, &fields[..]) {
        ("newest", [time, bytes, path]) => format!("{}  {:>10}  {path}", moment(time), size(bytes)),
        ("products", _) => match line.split_once(' ') {
            Some((bytes, path)) => format!("{:>10}  {path}", size(bytes)),
            None => line.to_owned(),
        },
        _ => line.to_owned(),
    }
}

/// The parts as data.
pub fn parts_json(parts: &[(String, Vec<String>)]) -> Value {
    parts.iter().map(|(name, lines)| (name.clone(), json!(lines))).collect::<serde_json::Map<_, _>>().into()
}
