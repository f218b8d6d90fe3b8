//! What goes into an incident about a peer's entry: the leaves that break a rule,
//! proved to be in the signed tree, and what the map held before them, so that
//! a reader can replay the batch without the rest of the log.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::Error;
use super::follow::{Follower, push_all};
use crate::client::follow::Page;
use crate::errors::with_sources;
use crate::proof::Label;
use crate::proof::checkpoint::SignedCheckpoint;
use crate::proof::entry::{Entry, Kind};
use crate::proof::incident::{MAX_LEAVES, Placed, TipProof};
use crate::proof::map::CHAIN_START;
use crate::proof::receipt::Leaf;
use crate::proof::replay::Change;

/// Tries to get the tiles for the evidence.
const TRIES: usize = 3;

/// Leaves, and what belongs to them.
#[derive(Debug, Default)]
pub(super) struct Broken {
    pub leaves: Vec<Placed>,
    pub tips: Vec<TipProof>,
    pub blobs: Vec<Bytes>,
}

impl Follower {
    /// Entries from leaf `first` on, with their inclusion in the signed tree.
    /// None if the peer no longer serves its tiles.
    pub(super) async fn leaves(
        &self,
        target: &SignedCheckpoint,
        first: u64,
        entries: &[Bytes],
    ) -> Vec<Placed> {
        let end = first + entries.len() as u64;
        for _ in 0..TRIES {
            match self.peer.source().inclusions(first, end, target.checkpoint()).await {
                Ok(paths) => {
                    let leaves = entries.iter().zip(paths);
                    let leaves = leaves.map(|(entry, path)| Leaf { entry: entry.clone(), path });
                    return (first..)
                        .zip(leaves)
                        .map(|(index, leaf)| Placed { index, leaf })
                        .collect();
                }
                Err(error) => tracing::debug!(error = with_sources(&error), "no inclusion"),
            }
        }
        Vec::new()
    }

    /// The batch that entry `index` of a page breaks, from the root before it
    /// on; if that cannot be had, the entry alone.
    pub(super) async fn broken_batch(
        &mut self,
        page: &Page,
        target: &SignedCheckpoint,
        index: u64,
    ) -> Broken {
        let batch = match self.batch(page, target, index).await {
            Ok(batch) => batch,
            Err(error) => {
                tracing::warn!(error = with_sources(&error), "the evidence is of one entry only");
                None
            }
        };
        self.replay = None;
        match batch {
            Some(batch) => batch,
            None => {
                let entry: Vec<Bytes> = part(page, index, index + 1).to_vec();
                Broken { leaves: self.leaves(target, index, &entry).await, ..Broken::default() }
            }
        }
    }

    /// Replays anew up to the root before the entry.
    async fn batch(
        &mut self,
        page: &Page,
        target: &SignedCheckpoint,
        index: u64,
    ) -> Result<Option<Broken>, Error> {
        self.read_back().await?;
        let Some(replay) = self.replay.take() else { return Ok(None) };
        let before = part(page, page.first, index).to_vec();
        let (replay, _) = tokio::task::spawn_blocking(move || push_all(replay, before)).await?;
        // Whole batches are in the map, and the one that is broken is not.
        let first = replay.replayer.position().size.saturating_sub(1);
        // Some rules are only looked at when the batch is closed.
        let end = closing(page, index).unwrap_or(index) + 1;
        if end - first > MAX_LEAVES as u64 {
            return Ok(None);
        }
        let mut entries = Vec::new();
        for kept in first..page.first.min(end) {
            entries.push(self.archive().entry(kept, page.first).await?);
        }
        entries.extend_from_slice(part(page, page.first.max(first), end));
        let leaves = self.leaves(target, first, &entries).await;
        if leaves.is_empty() {
            return Ok(None);
        }
        let changes = (first..).zip(&entries).filter_map(|(index, entry)| {
            Change::of(index, entry.clone()).ok().flatten().map(|change| change.label)
        });
        let labels: BTreeSet<Label> = changes.collect();
        let tips = labels.into_iter().map(|label| {
            let found = replay.map.lookup(&label);
            let (version, chain) = found.tip.map_or((0, CHAIN_START), |t| (t.version, t.chain));
            TipProof { label, version, chain, map: found.proof, last: None }
        });
        Ok(Some(Broken { leaves, tips: tips.collect(), blobs: Vec::new() }))
    }
}

/// The first directory root of a page from this entry on.
fn closing(page: &Page, index: u64) -> Option<u64> {
    let is_root =
        |entry: &Bytes| Entry::decode(entry).is_ok_and(|entry| matches!(entry.kind, Kind::Root(_)));
    let mut entries = (page.first..).zip(&page.entries).filter(|(at, _)| *at >= index);
    entries.find(|(_, entry)| is_root(entry)).map(|(at, _)| at)
}

/// Entries `start..end` of a page, as far as it has them.
fn part(page: &Page, start: u64, end: u64) -> &[Bytes] {
    let from = start.saturating_sub(page.first) as usize;
    let to = (end.saturating_sub(page.first) as usize).min(page.entries.len());
    page.entries.get(from..to).unwrap_or_default()
}
