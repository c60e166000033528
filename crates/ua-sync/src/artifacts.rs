//! The artifacts: a tree of its own, a step of its own, with a verdict of its own. Nothing is ever deleted in it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use jiff::Timestamp;
use ua_common::error::Failure;
use ua_common::exit::Exit;
use ua_common::output::{self, Printer};
use ua_common::report::{Check, Report};
use ua_common::state;
use ua_common::transport::Transport;

use crate::config::Config;
use crate::listing::Listing;
use crate::mirror::local;
use crate::progress;
use crate::run::counted;
use crate::transfer::Source;
use crate::tree::{Thing, Tree};

/// The mirror's own folder, should the VPS have one of that name.
const OWN: &str = "remote_vps_artifacts";

/// What a success is written down as: it is only worth something for the same two places.
fn done(config: &Config) -> (PathBuf, String) {
    let settings = &config.settings;
    let (there, here) = (&settings.sync_remote_artifacts_dir.value.0, &config.artifacts);
    let words = format!("{} {there}\n{}\n", settings.host_vps.value, here.display());
    (config.state.join("artifacts.done"), words)
}

/// From now on the artifacts are owed: workspaces are about to come whose artifacts may not have come.
pub fn owe(config: &Config) -> io::Result<()> {
    match fs_err::remove_file(done(config).0) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Copies them if they are owed: after workspaces were copied, and until it has succeeded.
pub fn step(
    config: &Config,
    transport: &Transport,
    listing: &Listing,
    out: &Printer,
    report: &mut Report,
) -> Result<(), Failure> {
    let settings = &config.settings;
    if !settings.sync_artifacts.value {
        let detail = format!("left alone (sync.artifacts = false, {})", settings.sync_artifacts.origin);
        report.push(Check::skip("sync.artifacts", detail));
        return Ok(());
    }
    let (path, words) = done(config);
    if std::fs::read_to_string(&path).is_ok_and(|text| text.starts_with(&words)) {
        report.push(Check::skip("sync.artifacts", "nothing was copied since they last were"));
        return Ok(());
    }
    let root = &settings.sync_remote_artifacts_dir.value.0;
    if !listing.artifacts {
        report.push(Check::skip("sync.artifacts", format!("there is no directory `{root}` on the VPS")));
        return Ok(());
    }
    let start = Instant::now();
    fs_err::create_dir_all(&config.artifacts).map_err(local("cannot make the mirror of the artifacts"))?;
    let partial = config.state.join("partial-artifacts");
    fs_err::create_dir_all(&partial).map_err(local("cannot make a folder"))?;
    let index = config.state.join("artifacts.index");
    let stamp = Timestamp::now().strftime("%Y%m%dT%H%M%S%3fZ").to_string();
    let aside = config.state.join("replaced").join("artifacts").join(stamp);
    let source = Source { transport, root, idle: settings.transfer_idle_timeout.0, banner: listing.banner };
    let bar = out.spinner("copying the artifacts");
    let copied = source.tree(&config.artifacts, &partial, &aside, OWN, &mut |line| {
        if let Some(bytes) = progress::bytes(line) {
            bar.set_message(format!("copying the artifacts: {}", output::bytes(bytes)));
        }
    });
    bar.finish_and_clear();
    let kept = keep_changed(&aside, &index).map_err(local("cannot look at what the artifacts replaced"))?;
    if kept > 0 {
        let what = counted(kept, "file that was changed here is", "files that were changed here are");
        let detail = format!("{what} now in `{}`", aside.display());
        report.push(Check::warn("sync.replaced", detail));
    }
    let check = match copied {
        Ok(None) => {
            let tree = Tree::walk(&config.artifacts).map_err(local("cannot look at the artifacts"))?;
            fs_err::write(&index, tree.bytes("artifacts", 0))
                .map_err(local("cannot write down what came"))?;
            let at = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ");
            state::write(&path, format!("{words}{at}\n"), 0o644)
                .map_err(local("cannot write down that the artifacts were copied"))?;
            Check::pass("sync.artifacts", format!("`{root}` is in `{}`", config.artifacts.display()))
        }
        Ok(Some(said)) => Check::fail("sync.artifacts", Exit::Transfer, format!("not all came: {said}"))
            .hint("ua-sync once  # tries again"),
        Err(failure) if failure.exit == Exit::Interrupted => return Err(failure),
        Err(failure) => Check::failure("sync.artifacts", failure),
    };
    report.push(check.since(start));
    Ok(())
}

/// Of what was replaced, what was as it had come goes, and what somebody changed here stays: gives how much that is.
fn keep_changed(aside: &Path, index: &Path) -> io::Result<usize> {
    if !aside.exists() {
        return Ok(0);
    }
    let came = std::fs::read(index).ok().and_then(|bytes| Tree::parse(&bytes)).unwrap_or_default().1;
    let mut kept = 0;
    // From the deepest up, so that directories are empty when it is their turn.
    for (path, thing) in Tree::walk(aside)?.0.iter().rev() {
        if *thing == Thing::Directory {
            // One that is not empty holds what stays.
            let _holds_some = std::fs::remove_dir(aside.join(path));
        } else if came.0.get(path) == Some(thing) {
            fs_err::remove_file(aside.join(path))?;
        } else {
            kept += 1;
        }
    }
    let _holds_some = std::fs::remove_dir(aside);
    Ok(kept)
}
