//! Somebody who reads every list of arguments on both machines while something is done.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use xtask::lab::{Lab, Node};

/// Reads until it is told to stop, and says when it has begun. Files that its arguments mean are read as well.
const WATCH: &str = "
import glob, os, sys, time
seen = set()
while not os.path.exists('/run/watch.stop'):
    for pattern in ['/proc/[0-9]*/cmdline', *sys.argv[1:]]:
        for path in glob.glob(pattern, recursive=True):
            try:
                seen.add(open(path, 'rb').read())
            except OSError:
                pass
    open('/run/watch.ready', 'w').close()
    time.sleep(0.001)
sys.stdout.buffer.write(b'\\n'.join(seen).replace(b'\\0', b' '))
";

const READY: &str = "/run/watch.ready";
/// The longest that anything watched may take.
const LIMIT: Duration = Duration::from_mins(6);

/// What was seen, a list of arguments or a file a paragraph.
pub(crate) struct Watched<T> {
    pub(crate) laptop: String,
    pub(crate) vps: String,
    /// What came of it.
    pub(crate) done: T,
}

/// Does something under the eyes of a watcher on each machine; `patterns` are files that the laptop's reads too.
pub(crate) fn watched<T>(
    lab: &Lab,
    patterns: &[&str],
    act: impl FnOnce() -> Result<T>,
) -> Result<Watched<T>> {
    let both = |script: &str| Node::TAILNET.iter().try_for_each(|node| lab.node(*node).sh(script).map(drop));
    both("rm -f /run/watch.*")?;
    let watch = |node: Node, patterns: &[&str]| {
        let words = [&["python3", "-"], patterns].concat();
        lab.node(node).command(&words).stdin(WATCH).timeout(LIMIT).read()
    };
    thread::scope(|scope| {
        let laptop = scope.spawn(|| watch(Node::Laptop, patterns));
        let vps = scope.spawn(|| watch(Node::Vps, &[]));
        let done = ready(lab).and_then(|()| act());
        // They must end, whatever became of it.
        both(": >/run/watch.stop")?;
        let ended = |watcher: thread::ScopedJoinHandle<'_, Result<String>>| {
            watcher.join().map_err(|_| anyhow!("a watcher panicked"))?
        };
        let (laptop, vps) = (ended(laptop), ended(vps));
        Ok(Watched { laptop: laptop?, vps: vps?, done: done? })
    })
}

/// Waits until both look.
fn ready(lab: &Lab) -> Result<()> {
    let begun = Instant::now();
    for node in Node::TAILNET {
        let file = lab.node(node).path(READY)?;
        while !file.exists() {
            ensure!(begun.elapsed() < Duration::from_secs(15), "nobody watches on `{}`", node.name());
            thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(())
}
