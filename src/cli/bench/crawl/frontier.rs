//! The frontier: many names, half of them domains and half mailboxes, written
//! to an index by one process, and picked from by others that start on it: once
//! as it was closed, once more, and once as after a kill.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use syndicate::crawl::{Pace, RESIDENT, Roster};
use syndicate::dime::{Domain, Name, Timestamp};
use syndicate::store::State as _;
use syndicate::store::rows::FrontierRow;
use syndicate::store::sled::Sled;
use syndicate::store::state::Batch;

use super::super::{round, runtime};
use super::{Teller, mib, peak};
use crate::cli::output;

/// Rows of one batch.
const BATCH: usize = 5000;
/// Names that are picked.
const PICKS: usize = 5000;
/// Between two of them: a thousand visits a second are more than a mirror makes.
const PACE: Duration = Duration::from_millis(1);
/// By whose clock all are due.
const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

/// Fill an index, or start on one: a process of its own, whose memory is its own.
#[derive(clap::Args)]
pub struct FrontierArgs {
    #[arg(long)]
    folder: PathBuf,
    /// Names to write; else it starts on what is there.
    #[arg(long)]
    fill: Option<usize>,
    /// Names to pick; one alone is left as it was.
    #[arg(long, default_value_t = 1)]
    picks: usize,
}

/// What a process that started says.
#[derive(Serialize, Deserialize)]
struct Started {
    /// Until the index was open.
    opened: Duration,
    /// Until the first due name was there, that included.
    first: Duration,
    picking: Duration,
    median: Duration,
    longest: Duration,
    peak: u64,
}

pub fn figures(folder: &Path, names: usize, teller: Teller) -> anyhow::Result<Value> {
    let folder = folder.join("state");
    teller.say("  writing the names");
    child(&folder, &["--fill", &names.to_string()])?;
    // The last start finds somebody who is due, too.
    let picks = PICKS.min(names / 4).max(1);
    let start = |picks: usize| -> anyhow::Result<Started> {
        let said = child(&folder, &["--picks", &picks.to_string()])?;
        serde_json::from_slice(&said).context("no figures")
    };
    teller.say("  starting");
    let first = start(1)?;
    let second = start(picks)?;
    // What a process that is killed does not leave.
    let word = folder.with_extension("clean");
    std::fs::remove_file(&word).with_context(|| format!("delete {}", word.display()))?;
    teller.say("  starting after a kill");
    let killed = start(1)?;
    let millis = |took: Duration| round(took.as_secs_f64() * 1e3);
    Ok(json!({
        "frontier_names": names,
        "frontier_pick_us": round(second.picking.as_secs_f64() * 1e6 / picks as f64),
        "frontier_pick_median_us": round(second.median.as_secs_f64() * 1e6),
        "frontier_pick_longest_us": round(second.longest.as_secs_f64() * 1e6),
        "frontier_restart_ms": millis(first.first),
        "frontier_restart_index_ms": millis(first.opened),
        "frontier_restart_again_ms": millis(second.first),
        "frontier_restart_mib": mib(first.peak),
        "frontier_pick_mib": mib(second.peak),
        "frontier_restart_killed_ms": millis(killed.first),
        "frontier_restart_killed_mib": mib(killed.peak),
    }))
}

fn child(folder: &Path, args: &[&str]) -> anyhow::Result<Vec<u8>> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["bench", "frontier", "--folder"]).arg(folder).args(args);
    let output = command.stderr(std::process::Stdio::inherit()).output()?;
    anyhow::ensure!(output.status.success(), "the second process failed");
    Ok(output.stdout)
}

/// The side of the second process.
pub fn run(args: &FrontierArgs) -> ExitCode {
    let outcome = runtime().and_then(|runtime| {
        runtime.block_on(async {
            match args.fill {
                Some(names) => fill(&args.folder, names).await,
                None => start(&args.folder, args.picks).await,
            }
        })
    });
    match outcome {
        Ok(()) => ExitCode::from(output::YES),
        Err(error) => {
            eprintln!("syndicate: {error:#}");
            ExitCode::from(output::NO)
        }
    }
}

/// As a mirror does: open the index, and ask who is due.
async fn start(folder: &Path, picks: usize) -> anyhow::Result<()> {
    let start = Instant::now();
    let state = Sled::open(folder)?;
    let opened = start.elapsed();
    let mut roster = Roster::new(Arc::new(state), RESIDENT, Pace::default().longest());
    let (mut first, mut took) = (Duration::ZERO, Vec::with_capacity(picks));
    let mut last = Timestamp::default();
    for pick in 0..picks {
        let before = Instant::now();
        let job = roster.next(NOW).await?.context("nobody is due")?;
        took.push(before.elapsed());
        if pick == 0 {
            first = start.elapsed();
        }
        let due = due(job.domain.as_str())?;
        anyhow::ensure!(due >= last && job.users.len() == 1, "{} is out of turn", job.domain);
        last = due;
        if picks > 1 {
            roster.done(&job.domain, NOW, NOW.plus(3_600_000), 0).await;
            tokio::time::sleep(PACE).await;
        }
    }
    took.sort_unstable();
    let started = Started {
        opened,
        first,
        picking: took.iter().sum(),
        median: took.get(picks / 2).copied().unwrap_or_default(),
        longest: took.last().copied().unwrap_or_default(),
        peak: peak(),
    };
    println!("{}", serde_json::to_string(&started)?);
    Ok(())
}

/// Rows as the crawler writes them, due at different times.
async fn fill(folder: &Path, names: usize) -> anyhow::Result<()> {
    let state = Sled::open(folder)?;
    let mut batch = Batch::new();
    for number in 0..names {
        batch.frontier(None, Some(&row(number)?));
        if (number + 1) % BATCH == 0 {
            let _ = state.apply(std::mem::take(&mut batch)).await?;
        }
    }
    let _ = state.apply(batch).await?;
    Ok(state.flush().await?)
}

fn row(number: usize) -> anyhow::Result<FrontierRow> {
    let domain: Domain = format!("d{}.example", number / 2).parse()?;
    let due = due(domain.as_str())?;
    let name = match number % 2 {
        0 => Name::Domain(domain),
        _ => Name::Address(format!("alice@{domain}").parse()?),
    };
    Ok(FrontierRow {
        name,
        due,
        leased_until: Timestamp::default(),
        leased_by: String::new(),
        failures: 0,
        reason: "configured".into(),
        keep_until: None,
        tries: 0,
    })
}

/// Spread over an hour, in no order of the names.
fn due(domain: &str) -> anyhow::Result<Timestamp> {
    let number = domain.trim_start_matches('d').trim_end_matches(".example");
    let ago = number.parse::<u64>()?.wrapping_mul(2_654_435_761) % 3_600_000;
    Ok(Timestamp::from_millis(NOW.millis() - ago))
}
