//! What goes into an incident about a peer's entry: the leaves that break a rule,
//! proved to be in the signed tree. Either two of them, the entry and an earlier
//! one that it does not fit to, from what is kept of the log; or a batch, and what
//! the map held before it, so that a reader can replay it without the rest of the
//! log.
//!
//! Each incident is judged here first, as its readers will: what convicts nobody
//! by itself may come of a map of ours that is damaged, and is looked at once
//! more before our word is given for it.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;

use super::Error;
use super::follow::{Accusation, Follower, push_all};
use crate::client::follow::{self, Page};
use crate::directory;
use crate::errors::with_sources;
use crate::proof::Label;
use crate::proof::checkpoint::SignedCheckpoint;
use crate::proof::entry::{Entry, Kind};
use crate::proof::incident::{
    self, Counterpart, Evidence, Findings, Incident, MAX_LEAVES, Placed, TipProof,
};
use crate::proof::map::CHAIN_START;
use crate::proof::receipt::Leaf;
use crate::proof::replay::{self, Change};
use crate::proof::tile::Tile;

/// Tries to get the tiles for the evidence.
const TRIES: usize = 3;
/// How long it may take to find the earlier entry of two, and to prove both; the
/// fault is filed whether it comes to that or not.
const SEARCH: Duration = Duration::from_secs(30);
/// Bundles that are searched at most: 16 million entries.
const SEARCHED: u64 = 1 << 16;

/// Leaves, and what belongs to them.
#[derive(Debug, Default)]
pub(super) struct Broken {
    pub leaves: Vec<Placed>,
    pub tips: Vec<TipProof>,
    pub blobs: Vec<Bytes>,
}

impl Follower {
    /// What an accusation comes to, after it was judged: the incident, or one of
    /// a single entry that rests on our word, if the same was found before.
    ///
    /// # Errors
    /// [`Error::Unproved`] if it convicts nobody and was found for the first time:
    /// the next step replays all that is kept on a new map.
    pub(super) async fn judged(&mut self, accusation: &Accusation) -> Result<Incident, Error> {
        let Accusation { incident, index, words } = accusation;
        if self.judge(incident).is_some_and(|findings| findings.convicts.is_some()) {
            return Ok(incident.clone());
        }
        let unproved = || Error::Unproved { what: words.clone() };
        let index = index.ok_or_else(unproved)?;
        self.replay = None;
        if self.doubted != Some(index) {
            // Written from a map, they may hold its damage.
            for size in directory::sizes(self.archive().blobs()).await? {
                directory::delete(self.archive().blobs(), size).await?;
            }
            self.doubted = Some(index);
            return Err(unproved());
        }
        let mut alone = incident.clone();
        if let Evidence::Entries(entries) = &mut alone.evidence {
            entries.leaves.retain(|placed| placed.index == index);
            entries.tips.clear();
        }
        let mut pathless = alone.clone();
        if let Evidence::Entries(entries) = &mut pathless.evidence {
            entries.blobs.clear();
            entries.leaves.iter_mut().for_each(|placed| placed.leaf.path.clear());
        }
        let mut ways = [alone, pathless].into_iter();
        ways.find(|way| self.judge(way).is_some()).ok_or_else(unproved)
    }

    /// What a reader finds in an incident, from its bytes on.
    fn judge(&self, incident: &Incident) -> Option<Findings> {
        let read = match Incident::read(&incident.to_bytes()) {
            Ok(read) => read,
            Err(rejection) => {
                tracing::debug!(rule = rejection.rule, "an incident cannot be read");
                return None;
            }
        };
        let judged = incident::verify(&read, self.anchors(), None);
        judged.inspect_err(|fault| tracing::debug!(rule = fault.rule(), "it proves nothing")).ok()
    }

    /// One entry, with its inclusion in the signed tree if that can be had. `new`
    /// are tiles that are not kept yet.
    pub(super) async fn leaf(
        &self,
        target: &SignedCheckpoint,
        new: &[Tile],
        index: u64,
        entry: &Bytes,
    ) -> Placed {
        let proved = self.leaves(target, new, index, std::slice::from_ref(entry)).await.pop();
        let bare = || Leaf { entry: entry.clone(), path: Vec::new() };
        proved.unwrap_or_else(|| Placed { index, leaf: bare() })
    }

    /// Entries from leaf `first` on, with their inclusion in the signed tree.
    /// None if our own tiles do not reach to its end, and the peer no longer
    /// serves its tiles.
    async fn leaves(
        &self,
        target: &SignedCheckpoint,
        new: &[Tile],
        first: u64,
        entries: &[Bytes],
    ) -> Vec<Placed> {
        let (end, tree) = (first + entries.len() as u64, target.checkpoint());
        let placed = |paths: Vec<_>| {
            let leaves = entries.iter().zip(paths);
            let leaves = leaves.map(|(entry, path)| Leaf { entry: entry.clone(), path });
            (first..).zip(leaves).map(|(index, leaf)| Placed { index, leaf }).collect()
        };
        if let Ok(paths) = self.archive().inclusions(first, end, tree, new).await {
            return placed(paths);
        }
        for _ in 0..TRIES {
            match self.peer.source().inclusions(first, end, tree).await {
                Ok(paths) => return placed(paths),
                Err(error) => tracing::debug!(error = with_sources(&error), "no inclusion"),
            }
        }
        Vec::new()
    }

    /// What a fault of a page is to be accused with: two entries if they prove it,
    /// else the batch.
    pub(super) async fn accusation(
        &mut self,
        page: &Page,
        target: &SignedCheckpoint,
        fault: &replay::Fault,
    ) -> Accusation {
        let (index, rule) = (fault.index, fault.broken.rule());
        let why = fault.broken.to_string();
        let pair = tokio::time::timeout(SEARCH, self.pair(page, target, fault)).await;
        match pair.unwrap_or(Ok(None)) {
            Ok(Some(leaves)) => {
                let pair = Broken { leaves, ..Broken::default() };
                let accusation = self.broken(target, index, rule, &why, pair);
                let found = self.judge(&accusation.incident);
                if found.is_some_and(|findings| findings.convicts.is_some()) {
                    return accusation;
                }
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(error = with_sources(&error), "no earlier entry for the evidence");
            }
        }
        let batch = self.broken_batch(page, target, index).await;
        self.broken(target, index, rule, &why, batch)
    }

    /// The broken entry behind the earlier one that shows the rule, where two
    /// leaves can show it.
    async fn pair(
        &self,
        page: &Page,
        target: &SignedCheckpoint,
        fault: &replay::Fault,
    ) -> Result<Option<Vec<Placed>>, Error> {
        let (index, kept) = (fault.index, page.first);
        let entry = match part(page, index, index + 1) {
            [entry] => entry.clone(),
            _ => self.archive().entry(index, kept).await?,
        };
        let Some(counterpart) = Counterpart::of(&fault.broken, &entry) else { return Ok(None) };
        let new = (kept..index).zip(&page.entries);
        let new = new.filter(|(_, entry)| counterpart.is(entry)).last();
        let found = match new {
            Some((at, entry)) => Some((at, entry.clone())),
            None => {
                let bundle = |number| self.archive().bundle(number, kept);
                let wanted = |entry: &[u8]| counterpart.is(entry);
                follow::newest_before(kept.min(index), SEARCHED, bundle, wanted).await?
            }
        };
        let Some((at, earlier)) = found else { return Ok(None) };
        let mut leaves = Vec::new();
        for (at, entry) in [(at, earlier), (index, entry)] {
            let entry = std::slice::from_ref(&entry);
            let found = self.leaves(target, &page.tiles, at, entry).await.pop();
            let Some(placed) = found else { return Ok(None) };
            leaves.push(placed);
        }
        Ok(Some(leaves))
    }

    /// The batch that entry `index` of a page breaks, from the root before it
    /// on; if that cannot be had, the entry alone.
    async fn broken_batch(&mut self, page: &Page, target: &SignedCheckpoint, index: u64) -> Broken {
        let batch = match self.batch(page, target, index).await {
            Ok(batch) => batch,
            Err(error) => {
                tracing::warn!(error = with_sources(&error), "the evidence is of one entry only");
                None
            }
        };
        self.replay = None;
        if let Some(batch) = batch {
            return batch;
        }
        let mut leaves = Vec::new();
        if let [entry] = part(page, index, index + 1) {
            leaves.push(self.leaf(target, &page.tiles, index, entry).await);
        }
        Broken { leaves, ..Broken::default() }
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
        let leaves = self.leaves(target, &page.tiles, first, &entries).await;
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
