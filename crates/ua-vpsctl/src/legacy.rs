//! The spelling of `vpsctl.sh`, for callers that are not migrated yet.

use std::ffi::OsString;

/// The number of lines of `read PATH N` gets its flag, and the unit `csi` its name.
pub fn rewrite(mut argv: Vec<OsString>) -> Vec<OsString> {
    let verb = argv.get(1).and_then(|verb| verb.to_str());
    if matches!(verb, Some("status" | "restart" | "logs")) {
        for word in argv.iter_mut().skip(2).filter(|word| *word == "csi") {
            *word = "csi-ingester".into();
        }
    }
    let digits =
        |arg: &OsString| arg.to_str().is_some_and(|arg| arg.bytes().all(|byte| byte.is_ascii_digit()));
    if argv.len() == 4 && argv[1] == "read" && digits(&argv[3]) {
        argv.insert(3, "--tail".into());
    }
    argv
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_words_have_their_meaning() {
        let rewritten = |args: &[&str]| rewrite(args.iter().map(OsString::from).collect());
        assert_eq!(rewritten(&["ua-vpsctl", "read", "a", "20"]), ["ua-vpsctl", "read", "a", "--tail", "20"]);
        assert_eq!(rewritten(&["ua-vpsctl", "read", "a"]), ["ua-vpsctl", "read", "a"]);
        let csi = rewritten(&["ua-vpsctl", "restart", "csi", "api"]);
        assert_eq!(csi, ["ua-vpsctl", "restart", "csi-ingester", "api"]);
        assert_eq!(rewritten(&["ua-vpsctl", "read", "csi"]), ["ua-vpsctl", "read", "csi"]);
    }
}
