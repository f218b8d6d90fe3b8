//! How long a new signet takes to be proved by a receipt that two others cosigned.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};
use syndicate::client::{self, Ask, DnsRoot, Judgement, policy_of_file};
use syndicate::clock::Clock;
use syndicate::config::BATCH_SECS;
use syndicate::demo::world::{self, World};
use syndicate::dime::Name;

use super::super::{Scratch, round};
use super::{Teller, quantile};
use crate::cli::demo::operators;

/// Between two lookups.
const GLANCE: Duration = Duration::from_millis(5);
/// Longest wait for one receipt.
const PATIENCE: Duration = Duration::from_secs(60);
/// Of log entries a day, and of peers' questions an hour: more than are made here.
const MANY: u32 = 1_000_000;

pub async fn figures(runs: u32, teller: Teller) -> anyhow::Result<Value> {
    let folder = Scratch::new()?;
    let world = World::start(world::Options::default()).await?;
    let mut mirrors = operators::operators(&world, &folder.0).await?;
    for operator in &mut mirrors {
        operator.config.batch_millis = 1000 * BATCH_SECS;
        operator.config.quotas.entries = MANY;
        operator.config.peers.looks_per_hour = MANY;
        operator.start().await?;
    }
    let policy = policy_of_file(&operators::policy(&mirrors, &folder.0)?)?;
    let root = DnsRoot::Only(world.trust_anchor().of_root());
    for operator in &mirrors {
        operator.crawl(&world).await?;
        operator.until_cosigned().await?;
    }
    teller.say(&format!("{runs} new signets"));
    let asked = mirrors.first().context("no mirror")?.mirror()?;
    let mirror = client::Mirror::new(&format!("http://{}", asked.http))?;
    let addresses = world.addresses();
    let clock = Clock::system();
    let (mut crawled, mut proved) = (Vec::new(), Vec::new());
    for number in 0..runs as usize {
        let address = &addresses[number % addresses.len()];
        let name = Name::Address(address.clone());
        let latest = async || {
            let receipt = mirror.ask(&name, Ask::Lookup).await?;
            match client::judge(&receipt, Some(&policy), &root, clock.now()) {
                Judgement::Verified(statement, _) => Ok(Some(statement.latest)),
                Judgement::Refused(fault) => bail!("a receipt does not hold: {fault}"),
                _ => Ok(None),
            }
        };
        let before = latest().await?.context("it was crawled and cosigned")?;
        world.rotate(address)?;
        let began = Instant::now();
        let report = asked.crawl.visit(name.clone(), "bench").await?;
        ensure!(report.outcome.is_good(), "the visit: {}", report.outcome);
        crawled.push(began.elapsed().as_secs_f64() * 1e3);
        while latest().await?.is_none_or(|latest| latest == before) {
            ensure!(began.elapsed() < PATIENCE, "no receipt of the new signet");
            tokio::time::sleep(GLANCE).await;
        }
        proved.push(began.elapsed().as_secs_f64() * 1e3);
    }
    for operator in &mut mirrors {
        operator.stop().await;
    }
    Ok(json!({
        "fresh_runs": runs,
        "fresh_acknowledged_p50_ms": round(quantile(&mut crawled, 0.5)),
        "fresh_receipt_p50_ms": round(quantile(&mut proved, 0.5)),
        "fresh_receipt_p99_ms": round(quantile(&mut proved, 0.99)),
        "fresh_receipt_longest_ms": round(quantile(&mut proved, 1.0)),
    }))
}
