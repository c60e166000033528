//! The spelling of `configure_tailnet_staging.sh`, for callers that are not migrated yet.

use std::ffi::OsString;

/// The old script's flags, and the verbs that they are now.
const VERBS: [(&str, &str); 3] = [("--ensure", "ensure"), ("--verify-only", "verify"), ("--reset", "reset")];

/// Puts the verb where the flag stood.
pub fn rewrite(argv: Vec<OsString>) -> Vec<OsString> {
    let verb = |arg: OsString| {
        let verb = VERBS.iter().find(|(old, _)| arg == *old).map(|(_, verb)| OsString::from(verb));
        verb.unwrap_or(arg)
    };
    argv.into_iter().map(verb).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_flags_become_verbs() {
        let rewritten = |args: &[&str]| rewrite(args.iter().map(OsString::from).collect());
        assert_eq!(
            rewritten(&["ua-staging", "--quiet", "--verify-only"]),
            ["ua-staging", "--quiet", "verify"]
        );
        assert_eq!(rewritten(&["ua-staging", "--ensure"]), ["ua-staging", "ensure"]);
        assert_eq!(rewritten(&["ua-staging", "status", "--local"]), ["ua-staging", "status", "--local"]);
    }
}
