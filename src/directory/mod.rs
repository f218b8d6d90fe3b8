//! The verifiable map from label to the whole history of that label.
//!
//! A [`Directory`] holds, for every label, its newest version, the version in
//! force and the chain over all its entries, in a path-compressed binary trie
//! (`proof::map`). It is a deterministic function of the log: whoever applies
//! the same changes has the same root.
//!
//! Two heads: *committed* is the newest that was applied, *served* the newest
//! that was published. Proofs are always made at the served head, whatever has
//! been applied since: what a batch replaced is kept until it is published,
//! and can be put back (a batch whose commit another node won).
//!
//! Memory: 112 bytes a label in the arenas, at most 120 with unused room; or as
//! much in a mapped file ([`Place`]), whose unused parts leave the memory. What is
//! rare stays in memory: versions in force that are not the newest, and the undo.
//! Versions are kept in 31 bits; a batch that needs more is refused. Waits for
//! memory are half of every figure: with glibc, huge pages
//! (`GLIBC_TUNABLES=glibc.malloc.hugetlb=1`) took a quarter off a lookup.
//!
//! Locks, in the order in which they are taken: `writer` (one batch,
//! publication or rollback at a time), `heads`, one shard. A reader holds
//! `heads` and one shard to read, for a few microseconds; it waits at most for
//! the part of a batch that falls into its shard (a 256th, about 0.1 ms at
//! 10,000 changes). A writer holds one shard at a time, and `heads` only to
//! swap it.
//!
//! Left out: entries, signatures, the VRF, and which entry may follow which
//! (`proof::replay` holds those rules and drives this engine).

mod arena;
mod hash;
mod mapped;
mod snapshot;
#[cfg(test)]
mod tests;
mod top;
mod trie;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::proof::map::{End, MapProof};
use crate::proof::replay::{self, Change, EngineStop, MapEngine, Tip};
use crate::proof::{Hash, Label};
use mapped::MapFile;
use top::{Leaves, SHARDS, Top};
use trie::Shard;

pub use snapshot::{Restored, delete, restore, sizes, write};

/// Changes that wait for publication, at most: the default of [`Options::pending`].
pub const PENDING_CHANGES: u64 = 100_000;

/// Batches that wait for publication, at most; each keeps 16 kB beside its changes.
const PENDING_BATCHES: usize = 1_000;

/// From this many changes on a batch is worth more than one thread.
const PARALLEL: usize = 1_000;

/// Threads for one batch, at most.
const MAX_THREADS: usize = 64;

/// One state of the whole map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Batches applied since this directory was made or restored.
    pub batch: u64,
    pub root: Hash,
    pub labels: u64,
}

/// Where the labels and their tree are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Place {
    #[default]
    Memory,
    /// In a file without a name in this folder, mapped into memory. It is made
    /// with the first label and goes with the map.
    Disk(PathBuf),
}

impl Place {
    fn file(&self) -> Option<Arc<MapFile>> {
        match self {
            Place::Memory => None,
            Place::Disk(folder) => Some(Arc::new(MapFile::new(folder.clone()))),
        }
    }
}

/// How a directory is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Threads for one large batch, 1 to 64.
    pub threads: usize,
    /// Changes applied and not yet published, at most.
    pub pending: u64,
    /// Every batch is published as soon as it is applied: for those who follow
    /// a log rather than write it.
    pub follow: bool,
    pub place: Place,
}

impl Default for Options {
    /// All cores, [`PENDING_CHANGES`], publication when told, in memory.
    fn default() -> Options {
        let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        Options { threads, pending: PENDING_CHANGES, follow: false, place: Place::Memory }
    }
}

/// Why a batch, a publication or a snapshot was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("apply: the changes do not ascend by label and index")]
    Order,
    #[error("apply {batch} changes: {pending} wait for publication, and at most {limit} may")]
    Pending { pending: u64, batch: u64, limit: u64 },
    #[error("apply: a shard holds at most {0} labels, and as many versions of each")]
    Full(u32),
    /// Its folder is not there, or the disk is full. Nothing was changed.
    #[error("make room for the map in its file")]
    File(#[source] std::io::Error),
    #[error("go to batch {asked}: kept are {first} to {last}")]
    Head { asked: u64, first: u64, last: u64 },
    #[error("snapshot at size {size}: {what}")]
    Snapshot { size: u64, what: &'static str },
    #[error("could not {doing} the snapshot at size {size}")]
    Store { doing: &'static str, size: u64, source: Box<crate::store::Error> },
}

/// An answer about one label at the served head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup {
    pub head: Head,
    /// None: the label is not in the map, and `proof` shows that.
    pub tip: Option<Tip>,
    pub proof: MapProof,
}

/// The map, shared between one writer and any number of readers.
#[derive(Debug)]
pub struct Directory {
    options: Options,
    /// Where the shards' nodes are, if not in memory.
    file: Option<Arc<MapFile>>,
    shards: Vec<RwLock<Shard>>,
    heads: RwLock<Heads>,
    writer: Mutex<Undone>,
}

/// The heads from the served one to the committed one.
#[derive(Debug)]
struct Heads {
    served: Kept,
    /// Ascending; the last one is the committed head.
    waiting: VecDeque<Kept>,
}

#[derive(Clone, Debug)]
struct Kept {
    head: Head,
    top: Arc<Top>,
}

/// What the shards keep of batches that somebody may still look behind.
#[derive(Debug, Default)]
struct Undone {
    /// Ascending batches, and how many changes each had.
    batches: VecDeque<(u64, u64)>,
    /// Batches that a snapshot is being written of.
    pins: Vec<u64>,
}

impl Undone {
    fn changes(&self) -> u64 {
        self.batches.iter().map(|batch| batch.1).sum()
    }
}

impl Heads {
    fn committed(&self) -> &Kept {
        self.waiting.back().unwrap_or(&self.served)
    }
}

impl Directory {
    /// An empty map.
    pub fn new(options: Options) -> Directory {
        let file = options.place.file();
        let shards = (0..SHARDS).map(|_| Shard::new(file.clone())).collect();
        Directory::from_shards(options, shards, file)
    }

    /// A map of 256 shards, by first byte of their labels.
    fn from_shards(options: Options, shards: Vec<Shard>, file: Option<Arc<MapFile>>) -> Directory {
        let options = Options { threads: options.threads.clamp(1, MAX_THREADS), ..options };
        let mut top = Top::new();
        top.set(shards.iter().enumerate().map(|(shard, held)| (shard as u8, held.root())));
        let head =
            Head { batch: 0, root: top.root(), labels: shards.iter().map(Shard::labels).sum() };
        let served = Kept { head, top: Arc::new(top) };
        Directory {
            options,
            file,
            shards: shards.into_iter().map(RwLock::new).collect(),
            heads: RwLock::new(Heads { served, waiting: VecDeque::new() }),
            writer: Mutex::new(Undone::default()),
        }
    }

    /// Applies one batch, all of it or nothing, and gives the committed head.
    /// The changes ascend by label, then by index, as [`MapEngine::apply`] asks.
    ///
    /// # Errors
    /// The fault with the lowest index if one breaks a rule of
    /// [`replay::advance`]; ours otherwise.
    pub fn apply(&self, changes: &[Change]) -> Result<Head, EngineStop<Error>> {
        let mut undone = lock(&self.writer);
        let old = read(&self.heads).committed().clone();
        self.check_room(&undone, changes.len() as u64).map_err(EngineStop::Engine)?;
        let batch = old.head.batch + 1;
        let shares = shares(changes);
        if !shares.is_sorted_by(|a, b| a.shard < b.shard) {
            return Err(EngineStop::Engine(Error::Order));
        }
        let done = self.apply_shares(batch, changes.len(), &shares).inspect_err(|_| {
            for share in &shares {
                write_lock(&self.shards[usize::from(share.shard)]).rollback(old.head.batch);
            }
        })?;
        undone.batches.push_back((batch, changes.len() as u64));
        let new_labels: u64 = done.iter().map(|done| done.new_labels).sum();
        let mut top = old.top;
        if !done.is_empty() {
            Arc::make_mut(&mut top).set(done.iter().map(|done| (done.shard, done.root)));
        }
        let head = Head { batch, root: top.root(), labels: old.head.labels + new_labels };
        let mut heads = write_lock(&self.heads);
        if self.options.follow {
            heads.served = Kept { head, top };
            drop(heads);
            self.forget(&mut undone, done.iter().map(|done| done.shard));
        } else {
            heads.waiting.push_back(Kept { head, top });
        }
        Ok(head)
    }

    /// Whether as many changes more may be kept undoable.
    fn check_room(&self, undone: &Undone, batch: u64) -> Result<(), Error> {
        if self.options.follow && undone.pins.is_empty() {
            return Ok(());
        }
        let (pending, limit) = (undone.changes(), self.options.pending);
        if pending + batch > limit || undone.batches.len() >= PENDING_BATCHES {
            return Err(Error::Pending { pending, batch, limit });
        }
        Ok(())
    }

    fn apply_shares(
        &self,
        batch: u64,
        changes: usize,
        shares: &[Share],
    ) -> Result<Vec<Done>, EngineStop<Error>> {
        let sorted = !self.options.follow;
        let one = |share: &Share| {
            let mut shard = write_lock(&self.shards[usize::from(share.shard)]);
            let before = shard.labels();
            let root = shard.apply(batch, share.changes, sorted)?;
            Ok(Done { shard: share.shard, root, new_labels: shard.labels() - before })
        };
        let threads = if changes < PARALLEL { 1 } else { self.options.threads };
        let mut done = Vec::with_capacity(shares.len());
        let mut worst = None;
        for outcome in in_parallel(threads, shares, one) {
            match (outcome, &worst) {
                (Ok(share), _) => done.push(share),
                (Err(EngineStop::Fault(fault)), Some(EngineStop::Fault(other)))
                    if other.index < fault.index => {}
                (Err(EngineStop::Engine(_)), Some(EngineStop::Fault(_))) => {}
                (Err(stop), _) => worst = Some(stop),
            }
        }
        worst.map_or(Ok(done), Err)
    }

    /// Serves the head of `batch` from now on, and forgets what came before it.
    /// The served head never goes back: an older batch is no error and no change.
    pub fn publish(&self, batch: u64) -> Result<Head, Error> {
        let mut undone = lock(&self.writer);
        let mut heads = write_lock(&self.heads);
        let last = heads.committed().head.batch;
        if batch > last {
            let first = heads.served.head.batch;
            return Err(Error::Head { asked: batch, first, last });
        }
        while heads.waiting.front().is_some_and(|kept| kept.head.batch <= batch) {
            if let Some(kept) = heads.waiting.pop_front() {
                heads.served = kept;
            }
        }
        let served = heads.served.head;
        drop(heads);
        self.forget(&mut undone, 0..=255);
        Ok(served)
    }

    /// Takes back every batch after `batch`, which is not older than the served
    /// head nor than a snapshot that is being written.
    pub fn rollback(&self, batch: u64) -> Result<Head, Error> {
        let mut undone = lock(&self.writer);
        {
            let heads = read(&self.heads);
            let pin = undone.pins.iter().copied().max().unwrap_or(0);
            let (first, last) = (heads.served.head.batch.max(pin), heads.committed().head.batch);
            if batch < first || batch > last {
                return Err(Error::Head { asked: batch, first, last });
            }
        }
        // Readers are at the served head, which stays as it is.
        for shard in &self.shards {
            write_lock(shard).rollback(batch);
        }
        undone.batches.retain(|kept| kept.0 <= batch);
        let mut heads = write_lock(&self.heads);
        while heads.waiting.back().is_some_and(|kept| kept.head.batch > batch) {
            heads.waiting.pop_back();
        }
        Ok(heads.committed().head)
    }

    /// Drops what nobody can ask for any more: before the served head, and
    /// before every snapshot that is being written.
    fn forget(&self, undone: &mut Undone, shards: impl IntoIterator<Item = u8>) {
        let served = self.served().batch;
        let oldest = undone.pins.iter().copied().min().map_or(served, |pin| pin.min(served));
        undone.batches.retain(|kept| kept.0 > oldest);
        for shard in shards {
            write_lock(&self.shards[usize::from(shard)]).forget(oldest);
        }
    }

    /// Keeps the head of `batch` readable until [`Directory::unpin`].
    fn pin(&self, batch: u64) -> Result<Head, Error> {
        let mut undone = lock(&self.writer);
        let heads = read(&self.heads);
        let kept = std::iter::once(&heads.served).chain(&heads.waiting);
        let Some(kept) = kept.into_iter().find(|kept| kept.head.batch == batch) else {
            let (first, last) = (heads.served.head.batch, heads.committed().head.batch);
            return Err(Error::Head { asked: batch, first, last });
        };
        undone.pins.push(batch);
        Ok(kept.head)
    }

    fn unpin(&self, batch: u64) {
        let mut undone = lock(&self.writer);
        if let Some(position) = undone.pins.iter().position(|&pin| pin == batch) {
            undone.pins.swap_remove(position);
        }
        self.forget(&mut undone, 0..=255);
    }

    /// Every label of a shard with its state after `batch`, ascending. The
    /// caller has pinned it.
    fn each(&self, shard: u8, batch: u64, visit: impl FnMut(&Hash, &Tip)) {
        read(&self.shards[usize::from(shard)]).view(batch).each(visit);
    }

    /// The newest head, applied but perhaps not published.
    pub fn committed(&self) -> Head {
        read(&self.heads).committed().head
    }

    /// The head that lookups are answered at.
    pub fn served(&self) -> Head {
        read(&self.heads).served.head
    }

    /// The label at the committed head. For the writer: while a batch is being
    /// applied, another thread may see the label before or after it.
    pub fn tip(&self, label: &Label) -> Option<Tip> {
        read(&self.shards[usize::from(label.0[0])]).tip(&label.0)
    }

    /// The label at the served head, with its proof. About 1.5 µs at a million
    /// labels; more while batches wait for publication.
    pub fn lookup(&self, label: &Label) -> Lookup {
        let heads = read(&self.heads);
        let Kept { head, top, .. } = &heads.served;
        let number = label.0[0];
        let found = read(&self.shards[usize::from(number)]).view(head.batch).prove(&label.0);
        if let Some((tip, mut proof)) = found {
            top.climb(number, &mut proof);
            return Lookup { head: *head, tip, proof };
        }
        let (leaves, mut proof) = top.leave(number);
        proof.end = match leaves {
            Leaves::Empty => End::Empty,
            Leaves::Inner(end) => end,
            Leaves::Shard(other) => read(&self.shards[usize::from(other)])
                .view(head.batch)
                .root_end()
                .unwrap_or(End::Empty),
        };
        Lookup { head: *head, tip: None, proof }
    }

    /// Bytes of memory allocated for the labels and their tree, unused room
    /// included; what waits for publication is left aside.
    pub fn bytes(&self) -> usize {
        let shards: usize = self.shards.iter().map(|shard| read(shard).bytes()).sum();
        shards + self.shards.len() * size_of::<RwLock<Shard>>()
    }

    /// Bytes of the file that the labels and their tree are in, unused room
    /// included; 0 for a map in memory.
    pub fn bytes_on_disk(&self) -> usize {
        self.file.as_ref().map_or(0, |file| file.bytes())
    }
}

/// By reference, so that the replay's map is `&mut &*directory` while others read.
impl MapEngine for &Directory {
    type Error = Error;

    fn tip(&self, label: &Label) -> Option<Tip> {
        Directory::tip(self, label)
    }

    fn apply(&mut self, changes: &[Change]) -> Result<replay::Head, EngineStop<Error>> {
        Directory::apply(self, changes).map(replay::Head::from)
    }

    fn head(&self) -> replay::Head {
        self.committed().into()
    }
}

impl From<Head> for replay::Head {
    fn from(head: Head) -> replay::Head {
        replay::Head { root: head.root, labels: head.labels }
    }
}

/// The changes of one batch that fall into one shard.
struct Share<'a> {
    shard: u8,
    changes: &'a [Change],
}

/// What became of a shard.
struct Done {
    shard: u8,
    root: Option<Hash>,
    new_labels: u64,
}

/// Deals a batch in ascending order out to the shards.
fn shares(changes: &[Change]) -> Vec<Share<'_>> {
    let shares = changes.chunk_by(|a, b| a.label.0[0] == b.label.0[0]);
    shares.map(|changes| Share { shard: changes[0].label.0[0], changes }).collect()
}

/// Runs `work` over all items on several threads, each taking the next item
/// when it is done with one. Results are in no order.
fn in_parallel<T: Sync, R: Send>(
    threads: usize,
    items: &[T],
    work: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let run = || {
        let mut results = Vec::with_capacity(items.len());
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            results.push(work(item));
        }
        results
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads.min(items.len())).map(|_| scope.spawn(run)).collect();
        let mut all = run();
        for other in others {
            all.extend(other.join().expect("applying to a shard does not panic"));
        }
        all
    })
}

/// A panic under one of these locks leaves the map half changed: nobody may go on.
const POISONED: &str = "no thread panicked while it changed the map";

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect(POISONED)
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().expect(POISONED)
}

fn write_lock<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().expect(POISONED)
}
