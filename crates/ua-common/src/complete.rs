//! What a shell offers when somebody presses TAB: the command line itself, and words that this machine knows already.
//!
//! The shell asks the program, so what it offers is never older than that. The VPS is never asked.

use std::path::Path;
use std::time::Duration;

use clap::Command;
pub use clap_complete::ArgValueCandidates as Candidates;
use clap_complete::CompleteEnv;
pub use clap_complete::engine::CompletionCandidate as Candidate;

use crate::profile::Profile;
use crate::settings::{Layer, Settings, Surroundings};
use crate::tailnet::Peer;
use crate::tool::tailscale;

/// Set by the function that a shell has for a tool; its value is the shell's name.
pub const VAR: &str = "UA_COMPLETE";

/// Nobody waits longer for a TAB.
const LIMIT: Duration = Duration::from_secs(1);

/// Answers a shell and ends the process, if a shell asks.
pub fn answer(command: &Command) {
    CompleteEnv::with_factory(|| command.clone()).var(VAR).complete();
}

/// The settings without flags. Nothing is offered where they are in error; the run itself says what is wrong.
fn here() -> Option<(Settings, Surroundings)> {
    let around = Surroundings::of_process().ok()?;
    Some((Settings::load(Layer::new(), &around).ok()?, around))
}

/// Targets: the nodes that the local tailscaled knows, for the user of the configured target.
pub fn hosts() -> Vec<Candidate> {
    let (Some((settings, _)), Ok(tailnet)) = (here(), tailscale::status(LIMIT)) else { return Vec::new() };
    let user = settings.host_vps.value.user;
    let names = tailnet.peers().map(Peer::name).filter(|name| !name.is_empty());
    names.map(|name| Candidate::new(format!("{user}@{name}"))).collect()
}

/// The profile's units by the part of their name that only they have, and `all`; in full for who begins so.
pub fn units() -> Vec<Candidate> {
    let Some(profile) = here().and_then(|(settings, _)| Profile::load(&settings).ok()) else {
        return Vec::new();
    };
    let mut offered = vec![Candidate::new("all")];
    for unit in profile.units.names.iter().chain(&profile.units.optional) {
        let short = profile.short(unit);
        offered.extend(short.map(|short| Candidate::new(short.to_owned())));
        // What is hidden is offered where nothing else begins so.
        offered.push(Candidate::new(unit.to_string()).hide(short.is_some()));
    }
    offered
}

/// Ids of the workspaces in the mirror, the newest first; of one in a directory of workspaces both names.
pub fn workspaces() -> Vec<Candidate> {
    let Some((settings, around)) = here() else { return Vec::new() };
    let Some(mirror) = settings.mirror(&around) else { return Vec::new() };
    let (nested, mut ids): (Vec<String>, Vec<String>) =
        directories(&mirror).into_iter().partition(|name| settings.sync_nested.matches(name));
    for container in nested {
        let names = directories(&mirror.join(&container));
        ids.extend(names.into_iter().map(|name| format!("{container}/{name}")));
    }
    newest_first(ids)
}

fn directories(dir: &Path) -> Vec<String> {
    let entries = dir.read_dir().into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut names: Vec<String> = folders.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.retain(|name| !name.starts_with('.'));
    names
}

/// Most names hold the time of their beginning.
fn newest_first(mut ids: Vec<String>) -> Vec<Candidate> {
    ids.sort_unstable_by(|a, b| b.cmp(a));
    ids.into_iter().map(Candidate::new).collect()
}
