//! One run at a time on a mirror, whoever starts it: timer, person or API.

use std::fs::{File, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use ua_common::error::Failure;
use ua_common::exit::Exit;
use ua_common::interrupt;
use ua_common::output::{Printer, printable};
use ua_common::run::RunError;

use crate::mirror::local;

/// Held until it is dropped, or its process ends in whatever way.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code, reason = "it is held by being open")] Vec<File>);

impl Lock {
    /// Takes the lock of a manifest, and of the mirror itself, which another manifest may be used with. Waits for it
    /// as long as `wait`; then it says who has it.
    pub fn take(
        manifest: &Path,
        mirror: &Path,
        who: &str,
        verb: &str,
        wait: Duration,
        out: &Printer,
    ) -> Result<Self, Failure> {
        let mut path = manifest.as_os_str().to_owned();
        path.push(".lock");
        if let Some(dir) = manifest.parent() {
            fs_err::create_dir_all(dir).map_err(local("cannot make the folder of the manifest"))?;
        }
        let options = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = options.map_err(local(format!("cannot open the lock `{}`", path.display())))?;
        let root =
            File::open(mirror).map_err(local(format!("cannot open the mirror `{}`", mirror.display())))?;
        let start = Instant::now();
        let mut waiting = None;
        for (held, needed) in [(&file, true), (&root, false)] {
            let free = || match free(held) {
                // Some file systems of a network cannot lock a directory. Then the manifest's lock is all there is.
                Err(error) if !needed => {
                    out.detail(&format!("the mirror itself cannot be locked: {error}"));
                    Ok(true)
                }
                free => free.map_err(local("cannot lock the mirror")),
            };
            while !free()? {
                let holder = holder(&path);
                if interrupt::requested() {
                    return Err(RunError::Interrupted { program: "waiting for the lock".to_owned() }.into());
                }
                if start.elapsed() >= wait {
                    let message = format!("another run has the mirror `{}`: {holder}", mirror.display());
                    return Err(Failure::new(Exit::Busy, message).hint(format!("ua-sync {verb} --wait=5m")));
                }
                waiting.get_or_insert_with(|| out.waiting(format!("waiting for {holder}")));
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let text = format!("ua-sync {verb} by {who}, process {}, since {now}\n", std::process::id());
        // A note for people; the lock does not depend on it.
        let noted =
            file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(text.as_bytes()));
        if let Err(error) = noted {
            out.detail(&format!("cannot write into the lock: {error}"));
        }
        Ok(Self(vec![file, root]))
    }
}

fn free(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn holder(path: &std::ffi::OsStr) -> String {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(500).read_to_string(&mut text));
    match read {
        Ok(length) if length > 0 => printable(text.trim()),
        _ => "who, it does not say".to_owned(),
    }
}
