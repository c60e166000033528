//! `rsync`: how files are brought to the VPS, and what its exit codes mean.

use std::ffi::OsString;
use std::time::Duration;

/// What an exit code of rsync says (rsync(1), "EXIT VALUES"); for a person, after "rsync failed: ".
pub fn meaning(code: i32) -> &'static str {
    match code {
        1 => "bad usage",
        2 => "the two ends speak different protocols",
        3 => "a file or directory could not be chosen",
        5 => "the protocol could not be started",
        10 => "the connection broke",
        11 => "a file could not be written (disk full?)",
        12 => "the connection was cut, or the other end has no rsync",
        14 => "the two processes lost each other",
        20 => "it was interrupted",
        22 => "out of memory",
        23 => "some files were not transferred",
        24 => "some files vanished while they were read",
        25 => "more deletions than allowed",
        30 => "no byte for too long",
        35 => "nobody answered",
        255 => "the ssh connection failed",
        _ => "for a reason of its own",
    }
}

/// Options for an upload to a private place beside the app. Content decides, never times; nothing of this machine's owners
/// and modes travels but whether a file may be executed (`a-st`: not by whom it would run then). What of it is like the file in the app is not sent.
pub fn upload(app: &str, idle: Duration) -> Vec<OsString> {
    let idle = idle.as_secs().max(1);
    [
        "--recursive".to_owned(),
        "--links".to_owned(),
        "--perms".to_owned(),
        "--chmod=Du=rwx,Dgo=,Fu=rwX,Fgo=,a-st".to_owned(),
        "--checksum".to_owned(),
        "--delete".to_owned(),
        "--compress".to_owned(),
        // Names are not for the remote shell to read.
        "--secluded-args".to_owned(),
        format!("--copy-dest={app}"),
        "--partial-dir=.rsync-partial".to_owned(),
        format!("--timeout={idle}"),
        "--info=progress2".to_owned(),
        "--no-human-readable".to_owned(),
    ]
    .map(OsString::from)
    .into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn nothing_that_runs_as_its_owner_does_so_there() {
        let dir = tempfile::tempdir().unwrap();
        let [from, to] = ["from", "to"].map(|name| dir.path().join(name));
        std::fs::create_dir_all(from.join("dir")).unwrap();
        std::fs::write(from.join("dir/program"), "").unwrap();
        let mode = std::fs::Permissions::from_mode;
        std::fs::set_permissions(from.join("dir/program"), mode(0o6755)).unwrap();
        std::fs::set_permissions(from.join("dir"), mode(0o3777)).unwrap();
        let ends = [from.join("dir"), to.clone()];
        let copied =
            std::process::Command::new("rsync").args(upload("/", Duration::from_mins(1))).args(ends).status();
        assert!(copied.unwrap().success());
        let modes = ["dir", "dir/program"]
            .map(|path| to.join(path).metadata().unwrap().permissions().mode() & 0o7777);
        assert_eq!(modes, [0o700; 2]);
    }

    #[test]
    fn the_upload_takes_no_owner_and_no_time_from_the_laptop() {
        let options = upload("/opt/it's", Duration::from_mins(1));
        let options: Vec<&str> = options.iter().map(|option| option.to_str().unwrap()).collect();
        assert!(options.contains(&"--copy-dest=/opt/it's") && options.contains(&"--secluded-args"));
        for wrong in ["--archive", "-a", "--owner", "--group", "--times"] {
            assert!(!options.contains(&wrong), "{wrong}");
        }
    }
}
