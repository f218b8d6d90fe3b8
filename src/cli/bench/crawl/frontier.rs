//! The frontier: many names, half of them domains and half mailboxes, written
//! to an index, read back as after a restart, and picked from.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::{Value, json};
use syndicate::crawl;
use syndicate::dime::{Domain, Name, Timestamp};
use syndicate::store::State as _;
use syndicate::store::rows::FrontierRow;
use syndicate::store::sled::Sled;
use syndicate::store::state::Batch;

use super::super::round;
use super::Teller;

/// Rows of one batch.
const BATCH: usize = 5000;
/// Names that are picked.
const PICKS: usize = 20_000;
/// By whose clock all are due.
const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

pub async fn figures(folder: &Path, names: usize, teller: Teller) -> anyhow::Result<Value> {
    let folder = folder.join("state");
    fill(&folder, names, teller).await?;
    let start = Instant::now();
    let state = Sled::open(&folder)?;
    let opened = start.elapsed();
    let mut frontier = crawl::load(&state, NOW).await?;
    let restarted = start.elapsed();
    anyhow::ensure!(frontier.len() == names.div_ceil(2), "the frontier lost names");
    let picks = PICKS.min(frontier.len());
    let (mut picking, mut longest) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..picks {
        let start = Instant::now();
        let job = frontier.next(NOW).context("nothing is due")?;
        let took = start.elapsed();
        (picking, longest) = (picking + took, longest.max(took));
        frontier.done(&job.domain, NOW, NOW.plus(3_600_000), 0);
    }
    let millis = |took: Duration| round(took.as_secs_f64() * 1e3);
    Ok(json!({
        "frontier_names": names,
        "frontier_pick_us": round(picking.as_secs_f64() * 1e6 / picks as f64),
        "frontier_pick_longest_us": round(longest.as_secs_f64() * 1e6),
        "frontier_restart_ms": millis(restarted),
        "frontier_restart_index_ms": millis(opened),
    }))
}

/// Rows as the crawler writes them, due at different times.
async fn fill(folder: &Path, names: usize, teller: Teller) -> anyhow::Result<()> {
    let state = Sled::open(folder)?;
    let mut batch = Batch::new();
    for number in 0..names {
        batch.row(&row(number)?);
        if (number + 1) % BATCH == 0 {
            let _ = state.apply(std::mem::take(&mut batch)).await?;
        }
        if (number + 1) % 200_000 == 0 {
            teller.say(&format!("  {} of {names} names written", number + 1));
        }
    }
    let _ = state.apply(batch).await?;
    Ok(state.flush().await?)
}

fn row(number: usize) -> anyhow::Result<FrontierRow> {
    let domain: Domain = format!("d{}.example", number / 2).parse()?;
    let name = match number % 2 {
        0 => Name::Domain(domain),
        _ => Name::Address(format!("alice@{domain}").parse()?),
    };
    // Spread over an hour, in no order of the names.
    let ago = (number / 2).wrapping_mul(2_654_435_761) % 3_600_000;
    Ok(FrontierRow {
        name,
        due: Timestamp::from_millis(NOW.millis() - ago as u64),
        leased_until: Timestamp::default(),
        leased_by: String::new(),
        failures: 0,
        reason: "configured".into(),
        keep_until: None,
    })
}
