//! How commands speak: exit codes, errors, JSON lines.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

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

/// One JSON object on one line of standard output. Whoever stops reading, as
/// `head` does, ends the command without a word.
pub fn json_line(value: &serde_json::Value) {
    if writeln!(std::io::stdout(), "{value}").is_err() {
        std::process::exit(i32::from(NO));
    }
}

/// The same for a line of text.
pub fn line(text: &str) {
    if writeln!(std::io::stdout(), "{text}").is_err() {
        std::process::exit(i32::from(NO));
    }
}

/// Runs a command's future to its end.
pub fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Runtime::new().context("cannot start the runtime")?.block_on(work)
}

/// Yes, or the whole chain of what went wrong on standard error, and no.
pub fn outcome(ended: anyhow::Result<()>) -> ExitCode {
    match ended {
        Ok(()) => ExitCode::from(YES),
        Err(error) => {
            eprintln!("syndicate: {error:#}");
            ExitCode::from(NO)
        }
    }
}

/// Log lines on standard error: `RUST_LOG` chooses, `info` without it.
pub fn tracing() {
    tracing_from("info");
}

/// The same, but nothing short of an error without `RUST_LOG`.
pub fn quiet_tracing() {
    tracing_from("error");
}

/// The same, with this level without `RUST_LOG`.
pub fn tracing_from(default: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    // A second subscriber is one too many only in tests.
    let _ =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
}

/// Cancelled by SIGINT or SIGTERM; a second signal ends the process at once.
pub fn interrupted() -> anyhow::Result<CancellationToken> {
    let token = CancellationToken::new();
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let stop = token.clone();
    tokio::spawn(async move {
        for _ in 0..2 {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if stop.is_cancelled() {
                std::process::exit(130);
            }
            stop.cancel();
        }
    });
    Ok(token)
}
