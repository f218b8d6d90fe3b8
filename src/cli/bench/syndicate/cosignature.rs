//! What a verifying cosignature costs a mirror.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use async_trait::async_trait;
use serde_json::{Value, json};
use syndicate::clock::Clock;
use syndicate::directory::Place;
use syndicate::log::{self, Keys};
use syndicate::peers::{self, Accuse, Mirror, Peers, Status};
use syndicate::proof::incident::Incident;
use syndicate::proof::note::SigningKey;
use syndicate::proof::vrf;
use syndicate::serve::metrics::Metrics;
use syndicate::store::Store;
use syndicate::store::sled::Sled;
use tokio_util::sync::CancellationToken;

use super::super::measure::{TIME, process_cpu};
use super::super::{Scratch, round};
use super::made_log::MadeLog;
use super::{Teller, quantile};

const ORIGIN: &str = "witness.example/log";
/// Entries of a batch, the directory root included.
const ENTRIES: u64 = 1000;
/// Between two tries.
const GLANCE: Duration = Duration::from_secs(1);
/// Longest wait until the log was followed to its end.
const PATIENCE: Duration = Duration::from_secs(1800);

/// Nobody is to be accused here.
struct Nobody;

#[async_trait]
impl Accuse for Nobody {
    async fn accuse(&self, incident: &Incident) -> Result<(), String> {
        Err(format!("the log was accused: {:?}", incident.kind))
    }
}

pub async fn figures(labels: u64, batches: u32, teller: Teller) -> anyhow::Result<Value> {
    let mut figures = json!({ "cosigned_labels": labels, "cosigned_entries": ENTRIES });
    for kind in ["memory", "disk"] {
        teller.say(&format!("a log of {labels} mailboxes, its map in {kind}"));
        let mut log = MadeLog::start(labels, TIME).await?;
        let folder = Scratch::new()?;
        let place = match kind {
            "disk" => Place::Disk(folder.0.clone()),
            _ => Place::Memory,
        };
        let took = cosign(&mut log, &folder, place, batches, teller).await?;
        figures[format!("cosignature_cpu_ms_{kind}")] = round(took.cpu_ms).into();
        figures[format!("cosignature_ms_{kind}")] = round(took.median_ms).into();
        figures[format!("cosignature_longest_ms_{kind}")] = round(took.longest_ms).into();
        figures[format!("followed_per_s_{kind}")] = took.followed_per_s.round().into();
    }
    Ok(figures)
}

struct Took {
    /// Of the process, on average: the log's server and the growing of the log
    /// are separate, the latter not counted.
    cpu_ms: f64,
    median_ms: f64,
    longest_ms: f64,
    followed_per_s: f64,
}

async fn cosign(
    log: &mut MadeLog,
    folder: &Scratch,
    maps: Place,
    batches: u32,
    teller: Teller,
) -> anyhow::Result<Took> {
    let clock = Clock::manual(TIME);
    let store = Store::folder(&folder.0.join("blobs"))?;
    let state = Arc::new(Sled::open(&folder.0.join("state"))?);
    let mut options = log::Options::new(folder.0.join("guard"));
    options.origin = Some(ORIGIN.into());
    let keys = Keys {
        log: SigningKey::ed25519(ORIGIN, &[43; 32]).context("own key")?,
        vrf: Arc::new(vrf::SecretKey::from_seed(&[44; 32])),
    };
    let opened = log::open(options, store, state, keys, clock.clone()).await?;
    let rooms = peers::Rooms {
        log: opened.log,
        clock,
        cosigner: SigningKey::cosigner("witness.example", &[45; 32]).context("own key")?,
        accuse: Arc::new(Nobody),
        heard: Vec::new(),
        metrics: peers::Metrics::new(Metrics::new()?.registry())?,
    };
    let peer = Mirror { url: log.url.clone(), log: log.key(), cosigner: None };
    let options = peers::Options {
        mirrors: vec![peer],
        entries_per_day: u64::MAX,
        // It brings its checkpoints itself.
        poll: Duration::from_secs(86_400),
        patience: PATIENCE,
        maps,
        ..peers::Options::new(Vec::new())
    };
    let peers = Peers::new(options, rooms)?;
    let (witness, peer) = (Arc::clone(peers.witness()), Arc::clone(&peers.peers()[0]));
    let stop = CancellationToken::new();
    let (one, two) = (stop.clone(), stop.clone());
    let (recall, mut sequencer) = (peers.recall(), opened.sequencer);
    let writing = tokio::spawn(async move {
        recall.run(&mut sequencer, &one).await?;
        sequencer.run(one).await
    });
    let following = tokio::spawn(peers.run(two));

    let began = Instant::now();
    let followed = async { peer.watch().wait_for(|at| at.status == Status::Good).await.map(drop) };
    tokio::time::timeout(PATIENCE, followed).await.context("the log was not followed")??;
    let followed_per_s = log.size() as f64 / began.elapsed().as_secs_f64();
    // A mirror that has just begun asks its peers first what it signed before.
    let first = log.first()?.to_string();
    loop {
        let answer = witness.add_checkpoint(first.as_bytes()).await;
        if answer.status() == 200 {
            break;
        }
        let later = answer.status() == 503 && began.elapsed() < PATIENCE;
        ensure!(later, "the first checkpoint is not cosigned: {answer:?}");
        tokio::time::sleep(GLANCE).await;
    }

    teller.say(&format!("{batches} batches of {ENTRIES} entries are cosigned"));
    let (mut cpu, mut walls) = (Duration::ZERO, Vec::new());
    for _ in 0..batches {
        let request = log.grow(ENTRIES)?.to_string();
        let (before, began) = (process_cpu(), Instant::now());
        let answer = witness.add_checkpoint(request.as_bytes()).await;
        walls.push(began.elapsed().as_secs_f64() * 1e3);
        cpu += process_cpu().saturating_sub(before);
        ensure!(answer.status() == 200, "a batch is not cosigned: {answer:?}");
    }
    stop.cancel();
    following.await??;
    writing.await??;
    Ok(Took {
        cpu_ms: cpu.as_secs_f64() * 1e3 / f64::from(batches),
        median_ms: quantile(&mut walls, 0.5),
        longest_ms: quantile(&mut walls, 1.0),
        followed_per_s,
    })
}
