//! `syndicate migrate`: a log that goes on under other keys.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;
use syndicate::clock::Clock;
use syndicate::config::Config;
use syndicate::daemon::migrate::{self, Successor};

use super::mirror::Source;
use super::output;

/// Go on with a log under other keys; every label comes along.
///
/// A log's key and its VRF key are its identity. When one must change (it may be
/// in other hands, or the name changes), the log is closed: its last entry names
/// its successor. A new log in a new folder then carries every label over, with
/// its version and history, before anything else; whoever replays it sees that
/// none is missing. The old folder goes on to serve the closed log.
///
/// The mirror must be stopped. A call that was cut off is finished by the same
/// call. Nobody follows by itself: tell your users and peers the new key, and
/// how they can know that it is yours.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    source: Source,
    /// The new data folder: absent or empty.
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// The new log's origin, such as mirror.example/2.
    #[arg(long, value_name = "ORIGIN")]
    origin: String,
    /// Make a new VRF key too: the labels of all mailboxes change. Erased ones
    /// then keep a label that nobody can ask for.
    #[arg(long)]
    new_vrf_key: bool,
    /// After an hour or more without a batch: the machine's clock is right.
    #[arg(long)]
    accept_clock: bool,
    /// Print JSON lines.
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> ExitCode {
    output::tracing_from("warn");
    let config = match args.source.config() {
        Ok(config) => Config { accept_clock: args.accept_clock, ..config },
        Err(error) => return output::usage(format!("{error:#}")),
    };
    let successor =
        Successor { folder: &args.to, origin: &args.origin, new_vrf_key: args.new_vrf_key };
    let shows = !args.json && std::io::stderr().is_terminal();
    let mut told = |progress: syndicate::log::carry::Progress| {
        if args.json {
            output::json_line(&json!({
                "event": "carried", "done": progress.done, "labels": progress.labels,
            }));
        } else if shows {
            eprint!("\r{} of {} labels carried over", progress.done, progress.labels);
            let _ = std::io::stderr().flush();
        }
    };
    let moved = migrate::migrate(&config, &successor, Clock::system(), &mut told);
    output::outcome(output::block_on(async {
        let moved = moved.await?;
        if shows {
            eprintln!();
        }
        if args.json {
            output::json_line(&json!({
                "event": "migrated",
                "labels": moved.labels,
                "closed_at": moved.closed_at,
                "key": moved.key.to_string(),
            }));
            return Ok(());
        }
        println!("closed   the old log, at {} entries", moved.closed_at);
        println!("carried  {} labels", moved.labels);
        println!("key      {}", moved.key);
        println!("Next: set data = {:?} and log.origin = {:?} in the", args.to, args.origin);
        println!("configuration and start the mirror. Serve the old folder too, for as long as");
        println!("anybody asks it: its receipts say who goes on. Publish the new key.");
        Ok(())
    }))
}
