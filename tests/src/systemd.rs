//! A stand-in for systemd: programs by whose names a deploy starts, restarts and looks at units. Their state is files.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::mode;

/// Text of the `systemctl`, for tests that change it.
pub const SYSTEMCTL: &str = include_str!("../fakes/systemctl.sh");

/// `runuser` is one of them: it needs a second user.
const PROGRAMS: [(&str, &str); 4] = [
    ("systemctl", SYSTEMCTL),
    ("systemd-run", include_str!("../fakes/systemd-run.sh")),
    ("journalctl", include_str!("../fakes/journalctl.sh")),
    ("runuser", include_str!("../fakes/runuser.sh")),
];

/// Puts the programs into `root/bin`. They take `root` from the environment as `ROOT`, and the app's directory is
/// `root/app`.
pub fn install(root: &Path) {
    fs::create_dir_all(root.join("bin")).expect("a directory for programs");
    for (name, text) in PROGRAMS {
        let program = root.join("bin").join(name);
        fs::write(&program, text).expect("a written program");
        mode(&program, 0o755);
    }
    for file in ["restarts", "broken", "systemctl.calls", "systemd-run.calls"] {
        fs::write(root.join(file), "").expect("an empty file");
    }
}

/// Ends the processes of all units.
pub fn end_units(root: &Path) {
    for entry in fs::read_dir(root).expect("its directory").flatten() {
        if entry.file_name().to_string_lossy().starts_with("pid.") {
            let pid = fs::read_to_string(entry.path()).expect("a process");
            // It may have ended by itself.
            let _ended = Command::new("kill").arg(pid.trim()).stderr(Stdio::null()).status();
        }
    }
}
