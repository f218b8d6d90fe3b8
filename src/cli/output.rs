//! How commands speak: exit codes, errors, JSON lines.

use std::process::ExitCode;

/// Yes: valid, verified, accepted.
pub const YES: u8 = 0;
/// No, with the reason printed.
pub const NO: u8 = 1;
/// The call itself was wrong: bad arguments, an unreadable file.
pub const USAGE: u8 = 2;

/// Prints `syndicate: message` on standard error and gives the usage exit code.
pub fn usage(message: impl std::fmt::Display) -> ExitCode {
    eprintln!("syndicate: {message}");
    ExitCode::from(USAGE)
}

/// One JSON object on one line of standard output.
pub fn json_line(value: &serde_json::Value) {
    println!("{value}");
}
