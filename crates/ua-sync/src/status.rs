//! `status`: how far the mirror is behind, in the shape that the app's API server has always read.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::config::Config;
use crate::manifest::Manifest;
use crate::plan::{Row, State};
use crate::run::View;

/// The counts that matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Ready on the VPS.
    pub ready: usize,
    /// Of these, in the mirror as they should be.
    pub synced: usize,
    /// Of these, not.
    pub pending: usize,
}

/// Counts.
pub fn counts(rows: &[Row]) -> Counts {
    let ready = rows.iter().filter(|row| row.ready.is_some()).count();
    let synced = rows.iter().filter(|row| row.ready.is_some() && row.state.is_held()).count();
    Counts { ready, synced, pending: ready - synced }
}

/// The object for a view.
pub fn object(config: &Config, view: &View, manifest: &Manifest) -> Value {
    let settings = &config.settings;
    let counts = counts(&view.rows);
    let epoch = |row: &Row| row.ready.as_ref().and_then(|ready| ready.epoch);
    let latest = view.rows.iter().max_by(|a, b| epoch(a).unwrap_or(0.0).total_cmp(&epoch(b).unwrap_or(0.0)));
    let latest = latest.filter(|row| epoch(row).is_some());
    let remote = latest.and_then(epoch);
    // What the mirror has lost does not count.
    let here = manifest.latest(|id| view.local.copies.contains_key(id));
    let pending = view.rows.iter().filter(|row| !row.state.is_held()).filter_map(epoch);
    // An older one that is missing is as much behind as a newer one.
    let oldest = pending.min_by(f64::total_cmp);
    let lag = remote.zip(here).map(|(remote, here)| {
        let behind = (remote - here).max(oldest.map_or(0.0, |oldest| remote - oldest)).max(0.0);
        (behind * 1000.0).round() / 1000.0
    });
    json!({
        "ok": true,
        "sync_state": if counts.pending == 0 { "in_sync" } else { "behind" },
        "pending_ready_count": counts.pending,
        "ready_total_count": counts.ready,
        "synced_ready_count": counts.synced,
        "latest_ready_remote_epoch": remote,
        "latest_ready_local_epoch": here,
        "latest_ready_signature": latest.and_then(|row| Some(&row.ready.as_ref()?.signature)),
        "latest_ready_workspace_id": latest.map(|row| &row.id),
        "lag_seconds": lag,
        "require_ready_marker": settings.sync_require_ready_marker.value,
        "ready_marker_filename": settings.sync_ready_marker.value.0,
        "ready_session_prefix": settings.sync_ready_prefixes.value.0.join(","),
        "manifest_file": config.manifest,
        "remote_host": settings.host_vps.value.to_string(),
        "remote_dir": settings.sync_remote_dir.value.0,
        "local_dir": config.mirror,
        "generated_at_epoch": Timestamp::now().as_second(),
    })
}

/// The object for a run that has no view.
pub fn unknown(error: &str) -> Value {
    json!({"ok": false, "sync_state": "unknown", "pending_ready_count": 0, "error": error})
}

/// How many workspaces there are in each state, in words.
pub fn words(rows: &[Row]) -> String {
    let mut states: Vec<State> = rows.iter().map(|row| row.state).collect();
    states.sort_unstable();
    let mut words: Vec<String> = Vec::new();
    for part in states.chunk_by(|a, b| a == b) {
        words.push(format!("{} {}", part.len(), part[0].word()));
    }
    if words.is_empty() { "no workspaces".to_owned() } else { words.join(", ") }
}
