//! Ctrl-C, SIGTERM and a closing terminal: noticed here, acted on by whoever waits.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();
static TERMINATED: OnceLock<Arc<AtomicBool>> = OnceLock::new();
static DEFERRED: AtomicUsize = AtomicUsize::new(0);

/// Starts noticing. The first signal asks the run to end in order; a second one ends it at once with 130
/// (children have a death signal and follow).
pub fn install() -> std::io::Result<()> {
    let seen = FLAG.get_or_init(|| Arc::new(AtomicBool::new(false)));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // Order matters: the handler that exits must look at the flag before the second one sets it.
        flag::register_conditional_shutdown(signal, 130, Arc::clone(seen))?;
        flag::register(signal, Arc::clone(seen))?;
    }
    flag::register(SIGTERM, Arc::clone(TERMINATED.get_or_init(Arc::default)))?;
    Ok(())
}

/// Was it SIGTERM, as a service manager sends it, that asked the run to end?
pub fn terminated() -> bool {
    TERMINATED.get().is_some_and(|seen| seen.load(Ordering::Relaxed))
}

/// Was the run asked to end?
pub fn requested() -> bool {
    DEFERRED.load(Ordering::Relaxed) == 0 && FLAG.get().is_some_and(|seen| seen.load(Ordering::Relaxed))
}

/// While it lives, [`requested`] says no: for a short last step that leaves things in order. A second signal still
/// ends the run at once.
#[must_use]
pub struct Deferred(());

/// Lets the step that follows come to its end.
pub fn defer() -> Deferred {
    DEFERRED.fetch_add(1, Ordering::Relaxed);
    Deferred(())
}

impl Drop for Deferred {
    fn drop(&mut self) {
        DEFERRED.fetch_sub(1, Ordering::Relaxed);
    }
}
