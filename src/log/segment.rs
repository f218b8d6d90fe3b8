//! Keeping the number of objects small: old commits with their batches become
//! segments, and partial tiles go when the full one is there.
//!
//! The order of a merge, each step durable before the next: segment, its
//! payloads, floor, then the originals, lowest commit first. A crash leaves at
//! worst both, and the next merge deletes the rest.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinHandle;
use tracing::{debug, info, warn};

use super::chain::Chain;
use super::commit::{Batch, Floor, MAX_BATCH, Records, Segment};
use super::erase;
use super::recover::snapshot;
use super::tip::Tip;
use super::{Error, Options};
use crate::dime::Timestamp;
use crate::proof::tile::{TileCoordinate, WIDTH};
use crate::store::{State, Store, keys, seen};

/// Newest commits that always stay objects of their own.
pub const KEPT: u64 = 16;
/// A segment is closed when its commits, batches or payloads have this many bytes.
const MAX_BYTES: usize = 32 << 20;
/// Folders of partial tiles that are emptied after one round.
const PRUNED_AT_ONCE: usize = 4;
/// Batches and payloads that a sweep looks at, at most.
const MAX_SWEPT: usize = 1_000_000;
/// Partial objects in one folder, at most: widths 1 to 255.
const PARTIALS: usize = 256;

/// What has been done of it by this process.
#[derive(Debug, Default)]
pub(super) struct Upkeep {
    /// By level, bundles last: below it no partial tile is left.
    pruned: Vec<u64>,
    bundles_pruned: u64,
    /// Where commits begin; known after the first look.
    floor: Option<u64>,
    /// Leaves at the last snapshot of the directory that this process knows of.
    snapshot: u64,
    writing: Option<JoinHandle<()>>,
    saving: Option<JoinHandle<()>>,
    /// The last day whose copy of what was seen is known to be there.
    seen: u64,
}

impl Upkeep {
    /// Ends what goes on beside the rounds, so that nothing holds the index any
    /// more. The next start does it again.
    pub async fn end(&mut self) {
        for task in [self.writing.take(), self.saving.take()].into_iter().flatten() {
            task.abort();
            // Cancelled, or done.
            let _ = task.await;
        }
    }

    /// Merges and prunes, when there is enough of it. A little each time, so
    /// that rounds do not wait for it.
    pub async fn after_round(
        &mut self,
        options: &Options,
        store: &Store,
        state: &Arc<dyn State>,
        chain: &Chain,
        tip: &Tip,
    ) -> Result<(), Error> {
        let day = seen::day(tip.position.time);
        if day > self.seen {
            self.seen = day;
            self.saving = Some(tokio::spawn(save_seen(store.clone(), state.clone(), day)));
        }
        let floor = match self.floor {
            Some(floor) => floor,
            None => {
                let floor = chain.floor().await?;
                finish_deletion(store, chain, floor).await?;
                *self.floor.insert(floor)
            }
        };
        if tip.next.saturating_sub(floor) >= options.segment.saturating_add(KEPT) {
            self.floor = Some(merge(options, store, chain, tip.next).await?);
        }
        let due = options.snapshot.max(tip.map.committed().labels / 4);
        let idle = self.writing.as_ref().is_none_or(JoinHandle::is_finished);
        if idle && tip.size().saturating_sub(self.snapshot) >= due {
            self.snapshot = tip.size();
            self.writing = Some(tokio::spawn(snapshot_aside(store.clone(), tip.clone())));
        }
        if let Some(age) = options.prune_after {
            // Ages are counted from the last root's time, which the clock made.
            let now = tip.position.time.millis();
            let before = now.saturating_sub(age.as_millis() as u64);
            self.prune(store, tip.size(), Timestamp::from_millis(before)).await?;
        }
        Ok(())
    }

    /// Deletes partial tiles and bundles whose full one is durable and older
    /// than `before`.
    async fn prune(&mut self, store: &Store, size: u64, before: Timestamp) -> Result<(), Error> {
        let mut left = PRUNED_AT_ONCE;
        let mut level = 0u8;
        while left > 0 {
            let full = full_tiles(level, size);
            if full == 0 {
                break;
            }
            if self.pruned.len() <= usize::from(level) {
                self.pruned.push(0);
            }
            let Some(done) = self.pruned.get_mut(usize::from(level)) else { break };
            while left > 0 && *done < full {
                let tile = TileCoordinate { level, index: *done, width: WIDTH };
                if !prune_one(store, &tile.path(), before).await? {
                    break;
                }
                *done += 1;
                left -= 1;
            }
            if level == 0 {
                while left > 0 && self.bundles_pruned < full {
                    let index = self.bundles_pruned;
                    let at = crate::proof::tile::BundleCoordinate { index, width: WIDTH };
                    if !prune_one(store, &at.path(), before).await? {
                        break;
                    }
                    self.bundles_pruned += 1;
                    left -= 1;
                }
            }
            level += 1;
        }
        Ok(())
    }
}

/// Full tiles of a level in a tree of `size` leaves.
fn full_tiles(level: u8, size: u64) -> u64 {
    size.checked_shr(8 * (u32::from(level) + 1)).unwrap_or(0)
}

/// Writes a snapshot beside the rounds. One that fails is tried again at the
/// next occasion; nothing depends on it but the time of the next start.
async fn snapshot_aside(store: Store, tip: Tip) {
    match snapshot(&store, &tip).await {
        Ok(()) => debug!(size = tip.size(), "wrote a snapshot of the directory"),
        Err(error) => warn!(%error, "could not write a snapshot of the directory"),
    }
}

/// Keeps the day's copy of what was seen, beside the rounds.
async fn save_seen(store: Store, state: Arc<dyn State>, day: u64) {
    let saved = match seen::is_saved(&store.private, day).await {
        Ok(true) => return,
        Ok(false) => seen::save(&store.private, &*state, day).await,
        Err(error) => Err(error),
    };
    match saved {
        Ok(rows) => debug!(rows, "kept what was seen"),
        Err(error) => warn!(%error, "could not keep what was seen"),
    }
}

/// Deletes the partial ones of one full tile or bundle; `false` if that is too
/// young or not there.
async fn prune_one(store: &Store, path: &str, before: Timestamp) -> Result<bool, Error> {
    match store.public.head(path).await? {
        Some(full) if full.modified <= before => {}
        _ => return Ok(false),
    }
    for partial in store.public.list_all(&format!("{path}.p"), PARTIALS).await? {
        store.public.delete(&partial.key).await?;
        debug!(object = partial.key, "pruned");
    }
    Ok(true)
}

/// Merges the commits from the floor on into one segment, as many as
/// [`Options::segment`] or as fit, and gives the new floor. `next` is the
/// number of the next commit. Which commits a segment holds follows from the
/// floor alone, so that two who merge at once write the same bytes.
pub async fn merge(
    options: &Options,
    store: &Store,
    chain: &Chain,
    next: u64,
) -> Result<u64, Error> {
    let first = chain.floor().await?;
    let last = next.saturating_sub(KEPT).min(first.saturating_add(options.segment));
    let mut steps: Vec<(Bytes, Bytes)> = Vec::new();
    let mut payloads = Vec::new();
    let (mut previous, mut below, mut bytes) = (None, None, 0);
    for n in first..last {
        let step = chain.step(n).await?.ok_or(Error::Moved { n })?;
        let payload = keys::payload(n, &step.commit.batch);
        let payload = store.private.get(&payload, super::commit::MAX_PAYLOAD_OBJECT).await?;
        let size = payload.as_ref().map_or(0, Bytes::len);
        bytes += step.bytes.len() + step.batch_bytes.len() + size;
        if bytes > MAX_BYTES && !steps.is_empty() {
            break;
        }
        previous.get_or_insert(step.commit.previous);
        below = Some(step.hash);
        payloads.extend(payload);
        steps.push((step.bytes, step.batch_bytes));
    }
    let (Some(previous), Some(below)) = (previous, below) else { return Ok(first) };
    let floor = first + steps.len() as u64;
    let segment = Segment { first, previous, steps };
    store.private.put(keys::segment(first), segment.encode()).await?;
    let records = Records { first, payloads }.encode();
    // Not `put`: an erasure may have rewritten it since.
    let _ = store.private.put_if_absent(&keys::records(first), records).await?;
    store.private.settle(&keys::records(first)).await?;
    // A record may have been erased between reading and writing.
    erase::apply_markers(chain, floor.checked_sub(1)).await?;
    store.private.put(keys::floor(floor), Floor { n: floor, previous: below }.encode()).await?;
    delete_originals(store, &segment).await?;
    sweep(store, chain, floor, next).await?;
    info!(first, floor, "merged commits into a segment");
    Ok(floor)
}

/// Deletes batches and payloads of commits that were lost to another sequencer
/// (threat 5): those meant for an n that exists and names another batch.
async fn sweep(store: &Store, chain: &Chain, floor: u64, next: u64) -> Result<(), Error> {
    let mut named = HashSet::new();
    for n in floor..next {
        let bytes = chain.commit_bytes(n).await?.ok_or(Error::Moved { n })?;
        let commit =
            super::commit::Commit::decode(&bytes).map_err(super::chain::broken(n, "the commit"))?;
        named.insert(keys::batch(&commit.batch));
        named.insert(keys::payload(n, &commit.batch));
    }
    for found in store.private.list_all("batch", MAX_SWEPT).await? {
        if named.contains(&found.key) {
            continue;
        }
        let Some(bytes) = store.private.get(&found.key, MAX_BATCH).await? else { continue };
        // What was not written as a batch is not ours to delete.
        if Batch::decode(&bytes).is_ok_and(|batch| batch.n < next) {
            store.private.delete(&found.key).await?;
        }
    }
    for found in store.private.list_all("payload", MAX_SWEPT).await? {
        let name = found.key.rsplit('/').next().unwrap_or_default();
        let n = name.split_once('-').and_then(|(n, _)| keys::parse_number(n));
        if !named.contains(&found.key) && n.is_some_and(|n| n < next) {
            store.private.delete(&found.key).await?;
        }
    }
    Ok(())
}

/// Goes on with a deletion that a crash has stopped: the highest commit goes last.
async fn finish_deletion(store: &Store, chain: &Chain, floor: u64) -> Result<(), Error> {
    let Some(last) = floor.checked_sub(1) else { return Ok(()) };
    if !chain.exists(last).await? {
        return Ok(());
    }
    let Some(first) = chain.segments().await?.into_iter().rfind(|first| *first <= last) else {
        return Ok(());
    };
    delete_originals(store, &chain.segment(first).await?).await
}

/// Deletes what a segment holds: ascending, each commit after what it names.
async fn delete_originals(store: &Store, segment: &Segment) -> Result<(), Error> {
    let mut cosigned: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
    for name in store.public.names("checkpoints").await? {
        if let Some((k, size)) = super::cosign::writing(&name) {
            cosigned.entry(size).or_default().push(k);
        }
    }
    for (n, (bytes, _)) in (segment.first..).zip(&segment.steps) {
        let commit = super::commit::Commit::decode(bytes)
            .map_err(super::chain::broken(n, "a commit in a segment"))?;
        for k in cosigned.remove(&commit.size).unwrap_or_default() {
            store.public.delete(&keys::cosigned(commit.size, k)).await?;
        }
        store.public.delete(&keys::checkpoint(commit.size)).await?;
        if !commit.records.is_empty() {
            store.private.delete(&keys::payload(n, &commit.batch)).await?;
        }
        store.private.delete(&keys::batch(&commit.batch)).await?;
        store.private.delete(&keys::commit(n)).await?;
    }
    Ok(())
}
