//! The command line: one file per command group, each with its `Args` and `run`.
//!
//! Exit codes are the same everywhere: 0 yes (valid, verified, accepted), 1 no,
//! 2 the call itself was wrong (`check` has further ones for its verdicts). `--json` prints one JSON object a line.

mod audit;
mod bench;
mod check;
#[cfg(feature = "demo")]
mod demo;
mod dmtp;
mod dx;
mod incident;
mod keys;
mod lookup;
mod migrate;
mod mirror;
mod output;
mod peers;
mod record;
mod report;
mod request;
mod signet;
mod trust;
mod verify;
mod watch;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Key transparency for DIME: crawl signets, log them, answer with proofs.
///
/// `syndicate demo` shows the whole thing in half a minute, with no set-up.
#[derive(Parser)]
#[command(name = "syndicate", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// See the whole thing on a private internet, with no set-up.
    #[cfg(feature = "demo")]
    Demo(demo::Args),
    /// Look into signets, check them, make them.
    Signet(signet::Args),
    /// Read and write management records (the TXT record at _dime.DOMAIN).
    Record(record::Args),
    /// Read DMTP command lines.
    Dmtp(dmtp::Args),
    /// Measure the directory and its proofs on this machine.
    Bench(bench::Args),
    /// Serve a domain's signets over DMTP, from a folder.
    Dx(dx::Args),
    /// Run a mirror: crawl, log, answer.
    Mirror(mirror::Args),
    /// Make a mirror's index again from its blobs.
    Rebuild(mirror::RebuildArgs),
    /// Say that a mirror's log really ends where its folder ends.
    AcceptTip(mirror::AcceptTipArgs),
    /// Make, show, check and replace a mirror's keys.
    Keys(keys::Args),
    /// Go on with a log under other keys; every label comes along.
    Migrate(migrate::Args),
    /// Erase a mailbox from a stopped mirror, because its owner asks.
    Forget(mirror::ForgetArgs),
    /// How it stands with the mirrors that are followed; clear a fault.
    Peers(peers::Args),
    /// Show the configuration.
    Config(mirror::ConfigArgs),
    /// Ask whether the key that is seen here is the one that everybody sees.
    Check(check::Args),
    /// Ask a mirror for a key, and check its proof here.
    Lookup(lookup::LookupArgs),
    /// The same for every version that there ever was.
    History(lookup::HistoryArgs),
    /// Sign what an owner posts to a mirror's /v1/watch, to have names watched.
    WatchRequest(request::Args),
    /// Check a saved answer or incident, with no network.
    /// Watch names of yours: hear of every change, and that nothing was rewritten.
    Watch(watch::Args),
    /// Follow logs and check everything that they say.
    Audit(audit::Args),
    /// Check a saved answer, with no network.
    Verify(verify::Args),
}

pub fn main() -> ExitCode {
    // reqwest and object_store panic without a process-wide TLS provider.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match Cli::parse().command {
        #[cfg(feature = "demo")]
        Command::Demo(args) => demo::run(args),
        Command::Signet(args) => signet::run(args),
        Command::Record(args) => record::run(args),
        Command::Dmtp(args) => dmtp::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Dx(args) => dx::run(args),
        Command::Mirror(args) => mirror::run(args),
        Command::Rebuild(args) => mirror::rebuild(args),
        Command::AcceptTip(args) => mirror::accept_tip(args),
        Command::Keys(args) => keys::run(args),
        Command::Migrate(args) => migrate::run(args),
        Command::Forget(args) => mirror::forget(args),
        Command::Peers(args) => peers::run(args),
        Command::Config(args) => mirror::show_config(args),
        Command::Check(args) => check::run(args),
        Command::Lookup(args) => lookup::lookup(args),
        Command::History(args) => lookup::history(args),
        Command::WatchRequest(args) => request::run(args),
        Command::Watch(args) => watch::run(args),
        Command::Audit(args) => audit::run(args),
        Command::Verify(args) => verify::run(args),
    }
}
