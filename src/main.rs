//! The one binary: arguments in, exit codes out.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
