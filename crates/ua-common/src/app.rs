//! Where the app lies on the VPS, and what is ours beside it.

use crate::error::Failure;
use crate::exit::Exit;
use crate::output::printable;
use crate::settings::Settings;

/// Our only place on the VPS.
pub const STATE: &str = "/var/lib/ua-deploy";

/// The app's directory, if that can be one.
pub fn dir(settings: &Settings) -> Result<&str, Failure> {
    let (dir, origin) = (settings.deploy_app_dir.0.as_str(), &settings.deploy_app_dir.origin);
    plain(dir).map_err(|why| {
        Failure::new(Exit::Usage, format!("`{dir}` {why} (setting `deploy.app_dir`, {origin})"))
    })?;
    Ok(dir)
}

/// A build mounts a private copy at this path, and systemd reads `:`, blanks and quotes in such a path as its own.
fn plain(dir: &str) -> Result<(), &'static str> {
    let plain = dir.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/_.+@-".contains(&byte));
    if !plain {
        return Err("may hold letters, digits and `/_.+@-` only, since the build is mounted there");
    }
    let own = [
        STATE, "/etc", "/usr", "/bin", "/sbin", "/lib", "/boot", "/proc", "/sys", "/dev", "/run", "/root",
        "/home", "/opt", "/srv", "/var", "/var/lib", "/tmp", "/mnt",
    ];
    if own.contains(&dir) || dir.starts_with(&format!("{STATE}/")) {
        return Err("is not a directory of the app's own");
    }
    Ok(())
}

/// What is under way on the VPS, from the words of whoever holds the lock.
pub fn busy(holder: &str) -> String {
    let holder = printable(holder.trim());
    let what = if holder.starts_with("ua-vpsctl push ") {
        "a push is being put in place"
    } else {
        "another deploy is being activated"
    };
    format!("{what}: {holder}")
}
