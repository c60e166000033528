//! See the library.
use std::process::ExitCode;

fn main() -> ExitCode {
    ua_common::cli::main(ua_vpsctl::tool())
}
