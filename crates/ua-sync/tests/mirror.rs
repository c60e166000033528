//! Copying: what comes, what stays, and what is never lost.
#![cfg(test)]
#![allow(clippy::unwrap_used, reason = "tests panic")]

mod common;

use common::{Vps, tree};

#[test]
fn what_is_ready_comes_whole_and_only_once() {
    let vps = Vps::new();
    vps.ended("session_1", 600);
    vps.ended("tg_2", 600);
    vps.write("cron_3/out.txt", "plain", 600);
    vps.ended("session_young", 5);
    vps.write("session_running/run.log", "", 600);
    let (out, _) = vps.ends(&["once"], 0);
    assert!(out.contains("copied 3, unchanged 0, running 2, failed 0"), "{out}");
    for id in ["session_1", "tg_2", "cron_3"] {
        assert_eq!(tree(&vps.mirror(id)), tree(&vps.remote(id)), "{id}");
    }
    assert!(!vps.mirror("session_young").exists() && !vps.mirror("session_running").exists());
    let logins = vps.sshd.logins();
    let (out, _) = vps.ends(&["once"], 0);
    assert!(out.contains("copied 0, unchanged 3, running 2, failed 0"), "{out}");
    assert_eq!(vps.sshd.logins(), logins + 1, "one connection");
    assert_eq!(vps.manifest().lines().count(), 3);
}
