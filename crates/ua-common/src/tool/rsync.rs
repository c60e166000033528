//! `rsync`: what its exit codes mean.

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
