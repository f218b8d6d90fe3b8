//! `syndicate bench syndicate`: what mirrors and auditors cost each other, and
//! how long a new key takes to be proved.

mod audit;
mod cosignature;
mod fresh;
mod made_log;

use std::process::ExitCode;

use serde_json::{Map, Value, json};

use super::crawl::{Teller, load};
use super::{runtime, told};

/// Measure mirrors that follow, cosign and audit logs, on this machine.
///
/// Takes about two minutes; the machine should be idle.
///
/// cosignature: a mirror that follows a log of --labels mailboxes is given a
/// batch of 1,000 entries, fetches it, replays it to the same directory root,
/// keeps it and cosigns; once with the log's map in memory and once on disk.
/// The processor time is that of the whole process, the log's server included;
/// entries of mailboxes name no blobs.
/// fresh: three mirrors on loopback that publish with the cosignatures of both
/// others and take a batch a second, as they come. A mailbox gets a new signet
/// at its DX host, its mirror is told to look; until a lookup there answers with
/// a receipt of the new version that verifies with both cosignatures.
/// audit: `syndicate audit --once`, as a process of its own, over a log of
/// --labels mailboxes.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Only these parts; all if not given.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// Mailboxes in the log that is cosigned and audited [default: 100000].
    #[arg(long, value_parser = clap::value_parser!(u64).range(2_000..=20_000_000))]
    labels: Option<u64>,
    /// The size of BENCHMARKS.md: 1,000,000 mailboxes.
    #[arg(long)]
    full: bool,
    /// Batches that are cosigned, of each kind of map.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    batches: u32,
    /// New signets that are waited for.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    runs: u32,
    /// Print only one JSON object.
    #[arg(long)]
    json: bool,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    Cosignature,
    Fresh,
    Audit,
}

pub fn run(args: &Args) -> ExitCode {
    told(args.json, figures(args))
}

fn figures(args: &Args) -> anyhow::Result<Value> {
    let wants = |part| args.only.is_empty() || args.only.contains(&part);
    let labels = args.labels.unwrap_or(if args.full { 1_000_000 } else { 100_000 });
    let teller = Teller { quiet: args.json };
    let runtime = runtime()?;
    let mut figures = Map::new();
    let mut add = |value: Value| {
        if let Value::Object(more) = value {
            figures.extend(more);
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    add(json!({ "cores": cores, "load_before": load() }));
    if wants(Part::Fresh) {
        teller.say("three mirrors");
        add(runtime.block_on(fresh::figures(args.runs, teller))?);
    }
    if wants(Part::Audit) {
        add(runtime.block_on(audit::figures(labels, teller))?);
    }
    if wants(Part::Cosignature) {
        add(runtime.block_on(cosignature::figures(labels, args.batches, teller))?);
    }
    Ok(Value::Object(figures))
}

/// The value that this share of all is at most, 0 to 1.
fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let place = (values.len() as f64 * share).ceil() as usize;
    values.get(place.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}
