//! The spelling of `vpsctl.sh`, for callers that are not migrated yet.

use std::ffi::OsString;

/// The number of lines of `read PATH N` gets its flag.
pub fn rewrite(mut argv: Vec<OsString>) -> Vec<OsString> {
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
    fn an_old_read_has_its_number_of_lines() {
        let rewritten = |args: &[&str]| rewrite(args.iter().map(OsString::from).collect());
        assert_eq!(rewritten(&["ua-vpsctl", "read", "a", "20"]), ["ua-vpsctl", "read", "a", "--tail", "20"]);
        assert_eq!(rewritten(&["ua-vpsctl", "read", "a"]), ["ua-vpsctl", "read", "a"]);
    }
}
