//! A log of mailboxes that nobody has, served on loopback from memory: entries,
//! directory roots, tiles and checkpoints are real, what the entries commit to is
//! not there. Nobody but the mailboxes' owners could tell.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use anyhow::Context as _;
use axum::Router;
use axum::extract::{OriginalUri, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use syndicate::dime::{Timestamp, ed25519};
use syndicate::directory::{Directory, Options};
use syndicate::proof::checkpoint::{AddCheckpoint, Checkpoint, SignedCheckpoint};
use syndicate::proof::entry::{DirectoryRoot, Entry, Event, Genesis, Kind, UserObservation};
use syndicate::proof::merkle::{self, leaf_hash};
use syndicate::proof::note::{SigningKey, VerifierKey};
use syndicate::proof::replay::Change;
use syndicate::proof::tile::{Edge, WIDTH, encode_bundle, new_bundles};
use syndicate::proof::tile_set::{TileSet, tiles_for_consistency};
use syndicate::proof::{Label, map, vrf};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::super::measure::{Numbers, label};

const ORIGIN: &str = "made.example/log";
const SEED: [u8; 32] = [41; 32];
/// Entries of a batch while it grows, the root included.
const BATCH: u64 = 4096;

type Objects = Arc<RwLock<HashMap<String, Bytes>>>;

/// It ends with the value.
pub struct MadeLog {
    pub url: String,
    key: SigningKey,
    time: Timestamp,
    map: Directory,
    edge: Edge,
    /// Entries of the last bundle, if it is partial.
    partial: Vec<Bytes>,
    labels: u64,
    numbers: Numbers,
    signed: Option<SignedCheckpoint>,
    objects: Objects,
    serving: JoinHandle<()>,
}

impl MadeLog {
    /// With so many mailboxes, everything observed at `time`.
    pub async fn start(labels: u64, time: Timestamp) -> anyhow::Result<MadeLog> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let objects = Objects::default();
        let router = Router::new().fallback(answer).with_state(Arc::clone(&objects));
        let serving = tokio::spawn(async move {
            // It ends when it is aborted.
            let _ = axum::serve(listener, router).await;
        });
        let mut log = MadeLog {
            url,
            key: SigningKey::ed25519(ORIGIN, &SEED).context("own key")?,
            time,
            map: Directory::new(Options { follow: true, ..Options::default() }),
            edge: Edge::new(),
            partial: Vec::new(),
            labels: 0,
            numbers: Numbers(3),
            signed: None,
            objects,
            serving,
        };
        let genesis = Genesis {
            origin: ORIGIN,
            log_key: ed25519::public_key(&SEED),
            vrf_key: vrf::SecretKey::from_seed(&[42; 32]).public(),
            predecessor: None,
        };
        log.append(vec![Entry::new(time, Kind::Genesis(genesis)).encode().into()])?;
        while log.labels < labels {
            let more = (BATCH - 1).min(labels - log.labels);
            let new = (log.labels..log.labels + more).map(|n| (label(n), 1)).collect();
            log.labels += more;
            log.batch(new)?;
        }
        log.sign()?;
        Ok(log)
    }

    pub fn key(&self) -> VerifierKey {
        self.key.verifier()
    }

    pub fn size(&self) -> u64 {
        self.edge.size()
    }

    /// What is asked of a witness that has cosigned nothing yet.
    pub fn first(&self) -> anyhow::Result<AddCheckpoint> {
        let checkpoint = self.signed.clone().context("signed at the start")?;
        Ok(AddCheckpoint { old: 0, proof: Vec::new(), checkpoint })
    }

    /// One batch of so many entries, the root included: new versions of
    /// mailboxes all over the map. Gives what is asked of a witness.
    pub fn grow(&mut self, entries: u64) -> anyhow::Result<AddCheckpoint> {
        let old = self.size();
        let chosen = self.numbers.distinct(entries - 1, self.labels);
        let next = |n| {
            let label = label(n);
            let tip = self.map.tip(&label).context("every mailbox is there")?;
            anyhow::Ok((label, tip.version + 1))
        };
        let changed = chosen.into_iter().map(next).collect::<Result<_, _>>()?;
        self.batch(changed)?;
        self.sign()?;
        let checkpoint = self.signed.clone().context("just signed")?;
        let new = checkpoint.checkpoint();
        let objects = self.objects.read().expect("nobody panics over it");
        let tiles = tiles_for_consistency(old, new.size)?.into_iter().map(|at| {
            let bytes = objects.get(&at.path()).context("every tile is there")?;
            anyhow::Ok((at, bytes.clone()))
        });
        let tiles = tiles.collect::<Result<Vec<_>, _>>()?;
        let set = TileSet::verified(new.size, &new.root, tiles).context("own tiles")?;
        let proof = merkle::consistency_proof(&set, old, new.size)?;
        Ok(AddCheckpoint { old, proof, checkpoint })
    }

    /// Versions of mailboxes, and the root over them.
    fn batch(&mut self, mut versions: Vec<(Label, u64)>) -> anyhow::Result<()> {
        versions.sort_unstable();
        let mut entries: Vec<Bytes> = Vec::with_capacity(versions.len() + 1);
        let mut changes = Vec::with_capacity(versions.len());
        for (index, (label, version)) in (self.size()..).zip(versions) {
            let event = if version == 1 { Event::FirstSeen } else { Event::Rotated };
            let user = UserObservation {
                label,
                version,
                current: version,
                commitment: map::entry_leaf_hash(&index.to_be_bytes()),
                events: event.into(),
                held_until: None,
                coalesced: None,
            };
            let entry: Bytes = Entry::new(self.time, Kind::User(user)).encode().into();
            changes.extend(Change::of(index, entry.clone()).context("own entry")?);
            entries.push(entry);
        }
        let head = self.map.apply(&changes)?;
        let covered = self.size() + entries.len() as u64;
        let root = DirectoryRoot { root: head.root, labels: head.labels, covered };
        entries.push(Entry::new(self.time, Kind::Root(root)).encode().into());
        self.append(entries)
    }

    /// Serves further entries and their tiles, not yet signed.
    fn append(&mut self, entries: Vec<Bytes>) -> anyhow::Result<()> {
        let leaves: Vec<_> = entries.iter().map(|entry| leaf_hash(entry)).collect();
        let old = self.size();
        let (edge, tiles) = self.edge.integrate(&leaves);
        let mut all = std::mem::take(&mut self.partial);
        all.extend(entries);
        let width = usize::from(WIDTH);
        let mut objects = self.objects.write().expect("nobody panics over it");
        for (at, part) in new_bundles(old, edge.size()).zip(all.chunks(width)) {
            objects.insert(at.path(), encode_bundle(part)?.into());
        }
        objects.extend(tiles.into_iter().map(|tile| (tile.at.path(), tile.bytes.into())));
        drop(objects);
        self.partial = all.split_off(all.len() / width * width);
        self.edge = edge;
        Ok(())
    }

    fn sign(&mut self) -> anyhow::Result<()> {
        let checkpoint = Checkpoint::new(ORIGIN, self.size(), self.edge.root());
        let signed = checkpoint.context("own size")?.sign(&self.key, self.time);
        let signed = signed.context("own checkpoint")?;
        let note = signed.to_string().into_bytes().into();
        let mut objects = self.objects.write().expect("nobody panics over it");
        objects.insert("checkpoint".into(), note);
        self.signed = Some(signed);
        Ok(())
    }
}

impl Drop for MadeLog {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn answer(State(objects): State<Objects>, OriginalUri(uri): OriginalUri) -> Response {
    let objects = objects.read().expect("nobody panics over it");
    match objects.get(uri.path().trim_start_matches('/')) {
        Some(bytes) => bytes.clone().into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
