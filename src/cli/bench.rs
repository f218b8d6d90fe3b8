//! `syndicate bench`: what this machine does, measured on the real code.

#[cfg(feature = "demo")]
mod crawl;
mod measure;
mod receipts;
#[cfg(feature = "demo")]
mod syndicate;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context;
use serde_json::{Value, json};

use super::output;
use measure::Took;

/// Measure the directory and its proofs on this machine.
///
/// Takes about 15 seconds at 100,000 labels; the machine should be idle.
/// `syndicate bench crawl` measures the crawler, `syndicate bench syndicate`
/// mirrors that follow and cosign each other, and auditors.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[cfg(feature = "demo")]
    #[command(subcommand)]
    what: Option<What>,
    /// Labels in the directory.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1_000..=100_000_000))]
    labels: u64,
    /// Threads for batches; all cores if not given.
    #[arg(long)]
    threads: Option<usize>,
    /// Print only one JSON object.
    #[arg(long)]
    json: bool,
    /// Restore the snapshot in this folder and exit: the restart that is timed.
    #[arg(long, hide = true)]
    restored: Option<PathBuf>,
}

/// What else is measured.
#[cfg(feature = "demo")]
#[derive(clap::Subcommand)]
enum What {
    Crawl(crawl::Args),
    Syndicate(syndicate::Args),
    #[command(hide = true)]
    Hosts(crawl::HostsArgs),
    #[command(hide = true)]
    Frontier(crawl::FrontierArgs),
}

pub fn run(args: Args) -> ExitCode {
    #[cfg(feature = "demo")]
    match &args.what {
        Some(What::Crawl(args)) => return crawl::run(args),
        Some(What::Syndicate(args)) => return syndicate::run(args),
        Some(What::Hosts(args)) => return crawl::serve(args),
        Some(What::Frontier(args)) => return crawl::frontier(args),
        None => {}
    }
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let threads = args.threads.unwrap_or(cores);
    match &args.restored {
        Some(folder) => output::outcome(
            runtime()
                .and_then(|runtime| runtime.block_on(measure::restored_child(folder, threads))),
        ),
        None => told(args.json, figures(&args, cores, threads)),
    }
}

/// Prints figures, a line each for people, and one object for programs.
fn told(json: bool, figures: anyhow::Result<Value>) -> ExitCode {
    output::outcome(figures.map(|figures| {
        if !json {
            for (name, value) in figures.as_object().into_iter().flatten() {
                println!("{name:>28}  {value}");
            }
        }
        output::json_line(&figures);
    }))
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Runtime::new().context("start the runtime")
}

fn figures(args: &Args, cores: usize, threads: usize) -> anyhow::Result<Value> {
    let labels = args.labels;
    let say = |what: &str| {
        if !args.json {
            eprintln!("{what}");
        }
    };
    say("growing the directory");
    let (grown, growth) = Took::process(|| measure::grown(labels, threads));
    let grown = Arc::new(grown?);
    say("snapshot and restart");
    let folder = Scratch::new()?;
    let runtime = runtime()?;
    let snapshot = runtime.block_on(measure::snapshot(grown.clone(), &folder.0))?;
    let restart = measure::restart(&[
        "bench".as_ref(),
        "--threads".as_ref(),
        threads.to_string().as_ref(),
        "--restored".as_ref(),
        folder.0.as_os_str(),
    ])?;
    let (writer, restored) = runtime.block_on(measure::restored(&folder.0, threads))?;
    say("updates");
    let updates = measure::updates(&grown, &writer, labels)?;
    say("new labels");
    let (new, new_took) = measure::new_labels(&writer, threads)?;
    say("proofs");
    let cached = measure::lookup_us(&grown, labels);
    let with_vrf = measure::lookup_with_vrf_us(&writer);
    say("receipts");
    let receipts = receipts::receipts(&writer, labels)?;
    let per_label = |bytes: u64| round(bytes as f64 / labels as f64);
    Ok(json!({
        "labels": labels,
        "cores": cores,
        "threads": threads,
        "node_hash_ns": round(measure::node_hash_ns()),
        "batch": measure::BATCH,
        "entry_bytes": updates.entry_bytes,
        "directory_updates_per_s": updates.took.rate(updates.count).round(),
        "directory_update_cpu_us": round(updates.took.cpu_us(updates.count)),
        "new_labels_per_s": new_took.rate(new).round(),
        "new_label_cpu_us": round(new_took.cpu_us(new)),
        "growth_per_s": growth.rate(labels).round(),
        "bytes_per_label": per_label(restart.bytes),
        "bytes_per_label_grown": per_label(grown.bytes() as u64),
        "process_bytes_per_label": per_label(restart.resident),
        "latest_proof_cached_us": round(cached),
        "latest_proof_us": round(with_vrf),
        "receipt_bytes": receipts.lookup_bytes,
        "receipt_make_us": round(receipts.lookup_make_us),
        "receipt_verify_us": round(receipts.lookup_verify_us),
        "history100_bytes": receipts.history_bytes,
        "history100_make_us": round(receipts.history_make_us),
        "history100_verify_us": round(receipts.history_verify_us),
        "history100_verify_whole_us": round(receipts.history_whole_us),
        "snapshot_ms": round(snapshot.as_secs_f64() * 1e3),
        "restore_ms": round(restored.as_secs_f64() * 1e3),
        "restart_ms": round(restart.wall.as_secs_f64() * 1e3),
    }))
}

/// Two decimals are more than the machine repeats.
fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// A folder that goes with the value.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> anyhow::Result<Scratch> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("syndicate-bench-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir(&folder).with_context(|| format!("make {}", folder.display()))?;
        Ok(Scratch(folder))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(Path::new(&self.0));
    }
}
