//! The directory beside the `akd` crate, on the same work in one run:
//! `cargo bench --bench directory [-- --labels N]`, 100,000 labels by default.
//!
//! Both hold N mailboxes grown in batches of 10,000 and keep everything in
//! memory. akd (WhatsApp configuration, in-memory database, no cache, parallel
//! on all cores) evaluates its VRF on every update; ours on new labels alone,
//! since a label never moves. That is a difference of design, and counted.
//! Ours are whole receipts: commitments opened, and the signatures of the log
//! and of three cosigners on a checkpoint, which akd's proofs leave out.

#[path = "../src/cli/bench/measure.rs"]
#[allow(dead_code)]
mod measure;
#[path = "../src/cli/bench/receipts.rs"]
mod receipts;

use std::sync::Arc;

use akd::ecvrf::HardCodedAkdVRF;
use akd::storage::StorageManager;
use akd::storage::memory::AsyncInMemoryDatabase;
use akd::{
    AkdLabel, AkdValue, AzksParallelismConfig, EpochHash, HistoryParams, HistoryVerificationParams,
    WhatsAppV1Configuration,
};
use anyhow::Context;
use measure::{BATCH, Numbers, Took};
use protobuf::Message;
use receipts::VERSIONS;
use tokio::runtime::Runtime;

type Akd = akd::Directory<WhatsAppV1Configuration, AsyncInMemoryDatabase, HardCodedAkdVRF>;

/// akd's lookups and histories that are measured.
const LOOKUPS: u64 = 200;

#[derive(Default)]
struct Figures {
    updates_per_s: f64,
    update_cpu_us: f64,
    new_per_s: f64,
    new_cpu_us: f64,
    bytes_per_label: f64,
    lookup_us: f64,
    lookup_bytes: f64,
    lookup_verify_us: f64,
    history_bytes: f64,
    history_make_us: f64,
    history_verify_us: f64,
}

fn main() -> anyhow::Result<()> {
    let mut labels = 100_000;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        // cargo adds `--bench`.
        if argument == "--labels" {
            labels = arguments.next().context("--labels N")?.parse().context("--labels N")?;
        }
    }
    let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    println!("{labels} labels, batches of {BATCH}, {threads} cores");
    let runtime = Runtime::new()?;
    let ours = ours(&runtime, labels, threads)?;
    let akd = runtime.block_on(theirs(labels))?;
    println!("{:<42}{:>14}{:>14}{:>10}", "", "ours", "akd 0.13", "ratio");
    let row = |what: &str, ours: f64, akd: f64, more_is_better: bool| {
        let ratio = if more_is_better { ours / akd } else { akd / ours };
        println!("{what:<42}{ours:>14.2}{akd:>14.2}{ratio:>9.1}x");
    };
    row("updates of existing labels, per s", ours.updates_per_s, akd.updates_per_s, true);
    row("  CPU of one, us", ours.update_cpu_us, akd.update_cpu_us, false);
    row("new labels with VRF, per s", ours.new_per_s, akd.new_per_s, true);
    row("  CPU of one, us", ours.new_cpu_us, akd.new_cpu_us, false);
    row("memory a label, bytes", ours.bytes_per_label, akd.bytes_per_label, false);
    row("latest proof with fresh VRF proofs, CPU us", ours.lookup_us, akd.lookup_us, false);
    row("  bytes", ours.lookup_bytes, akd.lookup_bytes, false);
    row("  verified, CPU us", ours.lookup_verify_us, akd.lookup_verify_us, false);
    row("history of 100 versions, bytes", ours.history_bytes, akd.history_bytes, false);
    row("  made, CPU us", ours.history_make_us, akd.history_make_us, false);
    row("  verified, CPU us", ours.history_verify_us, akd.history_verify_us, false);
    println!("Ratios above 1: ours is better. Memory: growth of the process while filling.");
    Ok(())
}

fn ours(runtime: &Runtime, labels: u64, threads: usize) -> anyhow::Result<Figures> {
    let before = measure::resident();
    let grown = Arc::new(measure::grown(labels, threads)?);
    let bytes_per_label = measure::resident().saturating_sub(before) as f64 / labels as f64;
    let folder = tempfile::tempdir()?;
    runtime.block_on(measure::snapshot(grown.clone(), folder.path()))?;
    let (writer, _) = runtime.block_on(measure::restored(folder.path(), threads))?;
    let updates = measure::updates(&grown, &writer, labels)?;
    let (new, new_took) = measure::new_labels(&writer, threads)?;
    let receipts = receipts::receipts(&writer, labels)?;
    Ok(Figures {
        updates_per_s: updates.took.rate(updates.count),
        update_cpu_us: updates.took.cpu_us(updates.count),
        new_per_s: new_took.rate(new),
        new_cpu_us: new_took.cpu_us(new),
        bytes_per_label,
        lookup_us: receipts.lookup_make_us,
        lookup_bytes: receipts.lookup_bytes as f64,
        lookup_verify_us: receipts.lookup_verify_us,
        history_bytes: receipts.history_bytes as f64,
        history_make_us: receipts.history_make_us,
        history_verify_us: receipts.history_whole_us,
    })
}

fn name(n: u64) -> AkdLabel {
    AkdLabel::from(format!("user{n}@example.com").as_str())
}

/// A value of 32 bytes, as our commitment.
fn value(n: u64) -> AkdValue {
    AkdValue(measure::label(n).0.to_vec())
}

async fn publish(akd: &Akd, numbers: &[u64], round: u64) -> anyhow::Result<()> {
    let batch = numbers.iter().map(|&n| (name(n), value(n ^ round << 40))).collect();
    akd.publish(batch).await.context("akd: publish")?;
    Ok(())
}

async fn theirs(labels: u64) -> anyhow::Result<Figures> {
    let before = measure::resident();
    let storage = StorageManager::new_no_cache(AsyncInMemoryDatabase::new());
    let akd = Akd::new(storage, HardCodedAkdVRF {}, AzksParallelismConfig::default())
        .await
        .context("akd: make")?;
    for first in (0..labels).step_by(BATCH as usize) {
        let batch: Vec<u64> = (first..(first + BATCH).min(labels)).collect();
        publish(&akd, &batch, 0).await?;
    }
    let bytes_per_label = measure::resident().saturating_sub(before) as f64 / labels as f64;
    let mut numbers = Numbers(1);
    let (mut updated, mut new) = (0, 0);
    let start = Timer::start();
    for round in 1..=2 {
        let batch = numbers.distinct(BATCH.min(labels / 2), labels);
        updated += batch.len() as u64;
        publish(&akd, &batch, round).await?;
    }
    let updates = start.stop();
    let start = Timer::start();
    for round in 0..2 {
        let first = labels + round * BATCH;
        let batch: Vec<u64> = (first..first + BATCH).collect();
        new += batch.len() as u64;
        publish(&akd, &batch, 0).await?;
    }
    let new_took = start.stop();
    let (lookup_us, lookup_bytes, lookup_verify_us) = their_lookups(&akd, labels).await?;
    let (history_make_us, history_bytes, history_verify_us) = their_history(&akd).await?;
    Ok(Figures {
        updates_per_s: updates.rate(updated),
        update_cpu_us: updates.cpu_us(updated),
        new_per_s: new_took.rate(new),
        new_cpu_us: new_took.cpu_us(new),
        bytes_per_label,
        lookup_us,
        lookup_bytes,
        lookup_verify_us,
        history_bytes,
        history_make_us,
        history_verify_us,
    })
}

async fn their_lookups(akd: &Akd, labels: u64) -> anyhow::Result<(f64, f64, f64)> {
    let key = akd.get_public_key().await.context("akd: key")?;
    let mut numbers = Numbers(2);
    let mut proofs = Vec::new();
    let start = Timer::start();
    for _ in 0..LOOKUPS {
        let n = numbers.below(labels);
        let (proof, head) = akd.lookup(name(n)).await.context("akd: lookup")?;
        proofs.push((n, proof, head));
    }
    let made = start.stop();
    let mut bytes = 0;
    for (_, proof, _) in &proofs {
        bytes += akd::proto::specs::types::LookupProof::from(proof).compute_size();
    }
    let start = Timer::start();
    for (n, proof, EpochHash(epoch, root)) in proofs {
        let label = name(n);
        let key = key.as_bytes();
        akd::client::lookup_verify::<WhatsAppV1Configuration>(key, root, epoch, label, proof)
            .map_err(|error| anyhow::anyhow!("akd: verify a lookup: {error:?}"))?;
    }
    let verified = start.stop();
    Ok((made.cpu_us(LOOKUPS), bytes as f64 / LOOKUPS as f64, verified.cpu_us(LOOKUPS)))
}

async fn their_history(akd: &Akd) -> anyhow::Result<(f64, f64, f64)> {
    const ROUNDS: u64 = 5;
    let key = akd.get_public_key().await.context("akd: key")?;
    let (first, _) = akd.lookup(name(0)).await.context("akd: lookup")?;
    for round in first.version..VERSIONS {
        publish(akd, &[0], 1_000 + round).await?;
    }
    let mut proofs = Vec::new();
    let start = Timer::start();
    for _ in 0..ROUNDS {
        let made = akd.key_history(&name(0), HistoryParams::Complete).await;
        proofs.push(made.context("akd: history")?);
    }
    let made = start.stop();
    let bytes: u64 = proofs
        .first()
        .map_or(0, |proof| akd::proto::specs::types::HistoryProof::from(&proof.0).compute_size());
    let start = Timer::start();
    for (proof, EpochHash(epoch, root)) in proofs {
        akd::client::key_history_verify::<WhatsAppV1Configuration>(
            key.as_bytes(),
            root,
            epoch,
            name(0),
            proof,
            HistoryVerificationParams::default(),
        )
        .map_err(|error| anyhow::anyhow!("akd: verify a history: {error:?}"))?;
    }
    let verified = start.stop();
    Ok((made.cpu_us(ROUNDS), bytes as f64, verified.cpu_us(ROUNDS)))
}

/// As [`Took::process`], over awaits.
struct Timer(std::time::Instant, std::time::Duration);

impl Timer {
    fn start() -> Timer {
        Timer(std::time::Instant::now(), measure::process_cpu())
    }

    fn stop(self) -> Took {
        let cpu = measure::process_cpu().saturating_sub(self.1);
        Took { wall: self.0.elapsed(), cpu }
    }
}
