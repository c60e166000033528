//! Exit codes: one enum, one table. A shell branches on these, so a number never changes its meaning.

/// What a run's exit status says. Declared in the order of the codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Exit {
    /// Done, or nothing to do.
    Ok,
    /// A check or step failed that has no code of its own.
    Failed,
    /// Bad flag, value, setting or file; nothing was contacted.
    Usage,
    /// No `tailscale` command.
    TailscaleMissing,
    /// tailscaled not answering, stopped or logged out.
    TailscaleDown,
    /// Peer unknown, expired, offline, or no pong.
    PeerUnreachable,
    /// The name does not resolve on this machine, or to another address.
    Dns,
    /// The target is not a MagicDNS name of this tailnet.
    HostPolicy,
    /// No SSH connection.
    SshUnreachable,
    /// Reached, but refused.
    SshDenied,
    /// Tailscale SSH wants an interactive check.
    SshCheckRequired,
    /// The host's key is unknown, or another one than expected.
    HostKey,
    /// The lock is held.
    Busy,
    /// The VPS does not meet the deploy contract; nothing was changed.
    Contract,
    /// Upload or download failed; live files untouched.
    Transfer,
    /// The new release failed and the previous one serves again.
    RolledBack,
    /// The new release failed and the previous one does not serve.
    Broken,
    /// `tailscale serve` is not enabled on the tailnet.
    ServeDisabled,
    /// A staging route is right but unhealthy.
    StagingUnhealthy,
    /// Serve routes differ from what is wanted.
    StagingDrift,
    /// A staging port is reachable from the internet.
    StagingPublic,
    /// Some workspaces failed.
    Partial,
    /// A safety guard refused a deletion.
    Refused,
    /// The public endpoints failed the final smoke.
    PublicSmoke,
    /// SIGINT or SIGTERM; state is consistent.
    Interrupted,
}

/// One row of the table: a code, its name, and its meaning for a person.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The enum's side of the row.
    pub exit: Exit,
    /// What `$?` is.
    pub code: u8,
    /// Short stable name.
    pub name: &'static str,
    /// What happened, in one line.
    pub meaning: &'static str,
}

const fn row(exit: Exit, code: u8, name: &'static str, meaning: &'static str) -> Row {
    Row { exit, code, name, meaning }
}

/// Every exit code, ascending. `docs/exit-codes.md` is made from it.
pub const TABLE: [Row; 25] = [
    row(Exit::Ok, 0, "ok", "done, or nothing to do"),
    row(Exit::Failed, 1, "failed", "a check or step failed that has no code of its own"),
    row(Exit::Usage, 2, "usage", "bad flag, value, setting or file; nothing was contacted"),
    row(Exit::TailscaleMissing, 10, "tailscale-missing", "no `tailscale` command"),
    row(Exit::TailscaleDown, 11, "tailscale-down", "tailscaled not answering, stopped or logged out"),
    row(Exit::PeerUnreachable, 12, "peer-unreachable", "peer unknown, expired, offline, or no pong"),
    row(
        Exit::Dns,
        13,
        "dns",
        "the MagicDNS name does not resolve on this machine, or resolves to another address",
    ),
    row(
        Exit::HostPolicy,
        14,
        "host-policy",
        "the target is not a MagicDNS name of this tailnet and break-glass is not set",
    ),
    row(Exit::SshUnreachable, 20, "ssh-unreachable", "no SSH connection"),
    row(Exit::SshDenied, 21, "ssh-denied", "reached, but refused: key, user, or tailnet SSH policy"),
    row(
        Exit::SshCheckRequired,
        22,
        "ssh-check-required",
        "Tailscale SSH wants an interactive check; its URL was printed",
    ),
    row(
        Exit::HostKey,
        23,
        "host-key",
        "the host's key is unknown, or not the one the tailnet or known_hosts gives",
    ),
    row(Exit::Busy, 30, "busy", "the lock is held; the holder was printed"),
    row(
        Exit::Contract,
        31,
        "contract",
        "the VPS does not meet the deploy contract (missing env key, program, user, unit, space; busy workers); nothing was changed",
    ),
    row(Exit::Transfer, 32, "transfer", "upload or download failed; live files untouched"),
    row(
        Exit::RolledBack,
        33,
        "rolled-back",
        "the new release failed and the previous one is serving again, proved healthy",
    ),
    row(
        Exit::Broken,
        34,
        "broken",
        "the new release failed and the previous one could not be restored, or rollback was off",
    ),
    row(
        Exit::ServeDisabled,
        40,
        "serve-disabled",
        "`tailscale serve` is not enabled on the tailnet; the URL was printed",
    ),
    row(
        Exit::StagingUnhealthy,
        41,
        "staging-unhealthy",
        "a staging route is right but does not answer healthily",
    ),
    row(
        Exit::StagingDrift,
        42,
        "staging-drift",
        "serve routes differ from what is wanted, or a port is taken by something else",
    ),
    row(Exit::StagingPublic, 43, "staging-public", "a staging port is reachable from the internet (Funnel)"),
    row(
        Exit::Partial,
        50,
        "partial",
        "some workspaces failed, the rest are in sync; stderr ends with `N of M mirrored; failed: …`",
    ),
    row(Exit::Refused, 51, "refused", "a safety guard refused a deletion"),
    row(Exit::PublicSmoke, 60, "public-smoke", "the public endpoints failed the final smoke"),
    row(
        Exit::Interrupted,
        130,
        "interrupted",
        "SIGINT or SIGTERM; state is consistent (`watch` ends with 0 on SIGTERM)",
    ),
];

impl Exit {
    /// Its row. The enum is declared in the order of [`TABLE`], which a test pins.
    fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    /// What `$?` will be.
    pub fn code(self) -> u8 {
        self.row().code
    }

    /// The short stable name, as in `docs/exit-codes.md`.
    pub fn name(self) -> &'static str {
        self.row().name
    }
}

/// `docs/exit-codes.md`, made from [`TABLE`].
pub fn markdown() -> String {
    let mut text = String::from(
        "# Exit codes\n\nOne code means one thing, in every tool. Made from the code by `cargo xtask docs`.\n\n\
         | code | name | meaning |\n|---|---|---|\n",
    );
    for Row { code, name, meaning, .. } in TABLE {
        text.push_str(&format!("| {code} | {name} | {meaning} |\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_follows_the_enum() {
        for (index, row) in TABLE.iter().enumerate() {
            assert_eq!(row.exit as usize, index, "{}", row.name);
        }
        assert!(TABLE.windows(2).all(|pair| pair[0].code < pair[1].code));
    }

    #[test]
    fn the_public_codes_are_pinned() {
        let pinned: Vec<(u8, &str)> = TABLE.iter().map(|row| (row.code, row.name)).collect();
        assert_eq!(
            pinned,
            [
                (0, "ok"),
                (1, "failed"),
                (2, "usage"),
                (10, "tailscale-missing"),
                (11, "tailscale-down"),
                (12, "peer-unreachable"),
                (13, "dns"),
                (14, "host-policy"),
                (20, "ssh-unreachable"),
                (21, "ssh-denied"),
                (22, "ssh-check-required"),
                (23, "host-key"),
                (30, "busy"),
                (31, "contract"),
                (32, "transfer"),
                (33, "rolled-back"),
                (34, "broken"),
                (40, "serve-disabled"),
                (41, "staging-unhealthy"),
                (42, "staging-drift"),
                (43, "staging-public"),
                (50, "partial"),
                (51, "refused"),
                (60, "public-smoke"),
                (130, "interrupted"),
            ]
        );
    }
}
