//! Opening a log: made anew, or read back from its blobs until directory,
//! tree, index and guard agree, whatever a crash left behind.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use super::chain::{Chain, Step};
use super::commit::{Commit, Fence, LogRecord, MAX_SMALL};
use super::erase;
use super::guard::{Guard, Marks, OwnMark};
use super::index::{self, Indexed};
use super::ledger::Ledger;
use super::tip::{Grown, Tip};
use super::{Blocked, Error, Head, Heads, Keys, Log, Options, Sequencer, Shared, Word};
use crate::clock::Clock;
use crate::dime::{Address, Timestamp};
use crate::directory::{self, Directory};
use crate::proof::entry::is_origin;
use crate::proof::merkle::leaf_hash;
use crate::proof::note::MAX_NOTE;
use crate::proof::replay::Position;
use crate::proof::tile::{BundleCoordinate, Edge, TileCoordinate};
use crate::proof::wire::{Malformed, Reader, Writer};
use crate::proof::{Hash, Label};
use crate::store::blobs::{Claim, Probe};
use crate::store::{Blobs, State, Store, keys, seen};

/// A log that is ready: the handle, and its writer to be run.
pub struct Opened {
    pub log: Log,
    pub sequencer: Sequencer,
}

/// Opens the log in a store, or makes one if there is none.
///
/// Verifies every commit since the newest usable snapshot of the directory,
/// brings the index to the tip (emptying it first if it is of another log or
/// damaged), finishes what a crash interrupted, and compares the guard.
///
/// What stops sequencing but not serving is no error: see [`Log::blocked`].
///
/// # Errors
/// A store that fails, a log that is damaged or another than was asked for.
pub async fn open(
    options: Options,
    store: Store,
    state: Arc<dyn State>,
    keys: Keys,
    clock: Clock,
) -> Result<Opened, Error> {
    let chain = Chain::new(store.private.clone()).with_ledger(Ledger::beside(&options.guard));
    let fences = store.private.probe("commit").await? == Probe::Fences;
    let guard = Guard::new(&options.guard);
    let marks = read_guard(&guard).await?;
    let (record, record_hash) = match chain.record().await? {
        Some(known) => known,
        None if !fences => return Err(Error::NoFence { place: store.private.place().into() }),
        None => make(&options, &store, &chain, &keys, &clock, &marks).await?,
    };
    check_record(&record, &options, &keys)?;
    let indexed = read_index(&*state).await?;
    let tail = chain.tail(indexed.map_or(0, |indexed| indexed.n)).await?;
    let mut reading = Reading { chain: &chain, state: &*state, indexed };
    reading.check_index(tail).await?;
    let restored = erase::apply_markers(&chain, tail).await?;
    if restored {
        warn!("a backup brought back what was erased, and it went again");
        if let Some(tail) = tail {
            erase::sweep_orphans(&chain, tail).await?;
        }
        index::mark_rewrite(&*state).await?;
        index::clear(&*state).await?;
        reading.indexed = None;
    }
    let is_new = reading.indexed.is_none();
    if is_new {
        let known = seen::load(&store.private, &*state).await?;
        info!(rows = known, "a new index: read back what was seen");
    }
    let mut tip = match restore(&options, &store, &chain, &record, tail).await? {
        Some(tip) => tip,
        None => {
            let map = Arc::new(Directory::new(options.directory.clone()));
            Tip::empty(&record, record_hash, map)
        }
    };
    let last = reading.replay(&mut tip, tail).await?;
    if is_new {
        sweep(&chain, &*state, &keys, &tip).await?;
    }
    let standing = judge(fences, &marks, &record, &chain, &last, reading.indexed).await?;
    let (pool, drafts) = mpsc::channel(options.pool.max(1));
    let word = Mutex::new(Word { standing, ..Word::default() });
    let accept_clock = options.accept_clock;
    let log = Log(Arc::new(Shared {
        options,
        record,
        store,
        state,
        keys,
        clock,
        map: tip.map.clone(),
        guard,
        pool,
        heads: watch::Sender::new(Heads::default()),
        blocked: watch::Sender::new(None),
        gathered: super::cosign::Gathered::default(),
        word,
    }));
    if let Some(blocked) = standing {
        log.set_blocked(Some(blocked));
        log.show_predecessor(&chain, &last).await?;
    }
    let mut sequencer = Sequencer::new(log.clone(), tip, drafts);
    sequencer.look_for_lost().await?;
    match last {
        Some((step, grown)) => {
            // A commit may have been seen that its writer did not live to sync.
            log.store().private.settle(&keys::commit(step.commit.n)).await?;
            sequencer.finish(step, grown).await?;
            if standing.is_none() {
                sequencer.verify_tiles().await?;
            }
        }
        None => {
            // Nothing to lose yet: the first batch is the genesis entry.
            sequencer.round().await?;
        }
    }
    if accept_clock {
        // Not before: what was finished just now was no batch.
        log.accept_clock();
    }
    if let Some(head) = log.heads().committed {
        info!(origin = log.record().origin, size = head.size, commit = head.n, "the log is open");
    }
    Ok(Opened { log, sequencer })
}

/// Deletes again, from what the log does not hold, the mailboxes that it has
/// forgotten: after a restore, or when copies of what was seen were read back.
async fn sweep(chain: &Chain, state: &dyn State, keys: &Keys, tip: &Tip) -> Result<(), Error> {
    let Some(ledger) = chain.ledger() else { return Ok(()) };
    let mut labels = ledger.read().await?.labels;
    labels.retain(|label, version| {
        tip.map.tip(&Label(*label)).is_none_or(|tip| tip.version <= *version)
    });
    if labels.is_empty() {
        return Ok(());
    }
    let gone = |address: &Address| labels.contains_key(&Label::of_address(&keys.vrf, address).0);
    erase::sweep_private(chain.private(), &gone).await?;
    erase::sweep_rows(state, &gone).await
}

/// Whether the store holds a log.
///
/// # Errors
/// That cannot be read, or what is there is no log of this version.
pub async fn is_made(store: &Store) -> Result<bool, Error> {
    Ok(Chain::new(store.private.clone()).record().await?.is_some())
}

/// Makes the index anew from the commits, by hand.
pub async fn rebuild(store: &Store, state: &dyn State) -> Result<u64, Error> {
    let chain = Chain::new(store.private.clone());
    index::clear(state).await?;
    let Some(tail) = chain.tail(0).await? else { return Ok(0) };
    let mut steps = chain.steps(0, tail).await?;
    while let Some(step) = steps.next().await? {
        index::index(state, &chain, &step).await?;
    }
    seen::load(&store.private, state).await?;
    state.flush().await?;
    Ok(tail + 1)
}

/// Writes into the guard, by the operator's word, that the log ends with its
/// last commit, whose size and root the operator must name. Also backwards:
/// only somebody who knows what was published can say that nothing is lost.
pub async fn accept_tip(guard: &Path, store: &Store, size: u64, root: Hash) -> Result<(), Error> {
    let chain = Chain::new(store.private.clone());
    let foreign = |what: &str| Error::Foreign { what: what.to_owned() };
    let (record, _) = chain.record().await?.ok_or_else(|| foreign("the store holds no log"))?;
    let tail = chain.tail(0).await?.ok_or_else(|| foreign("the log has no commit"))?;
    let last = chain.at(tail).await?.commit;
    if (last.size, last.root) != (size, root) {
        let what =
            format!("its last commit has size {} and root {}", last.size, hex::encode(last.root));
        return Err(Error::Foreign { what });
    }
    let guard = Guard::new(guard);
    let path = guard.path().display().to_string();
    if let Ok(Some(Marks { shown: Some((_, signed, _)), .. })) = read_guard(&guard).await?
        && signed > size
    {
        // Not even the operator's word makes two histories one.
        let what = format!("others hold a tree of {signed} entries that it has signed");
        return Err(Error::Foreign { what });
    }
    let mark = OwnMark { n: tail, size, root };
    let accepted = tokio::task::spawn_blocking(move || {
        guard.set_aside()?;
        guard.accept(&record.origin, mark)
    });
    accepted.await?.map_err(|source| Error::Guard { doing: "set", path, source })
}

/// The guard's marks; the inner error is a file that cannot be read as one.
async fn read_guard(guard: &Guard) -> Result<io::Result<Option<Marks>>, Error> {
    let guard = guard.clone();
    let path = guard.path().display().to_string();
    match tokio::task::spawn_blocking(move || guard.read()).await? {
        Err(source) if source.kind() != io::ErrorKind::InvalidData => {
            Err(Error::Guard { doing: "read", path, source })
        }
        other => Ok(other),
    }
}

/// Writes the log's own record: from then on the store holds this log.
async fn make(
    options: &Options,
    store: &Store,
    chain: &Chain,
    keys: &Keys,
    clock: &Clock,
    marks: &io::Result<Option<Marks>>,
) -> Result<(LogRecord, Hash), Error> {
    let foreign = |what: &str| Error::Foreign { what: what.to_owned() };
    match marks {
        Ok(None) => {}
        Ok(Some(marks)) if marks.own.is_none() => {}
        _ => return Err(foreign("the guard knows one, and the store is empty")),
    }
    let origin = options.origin.clone().ok_or_else(|| foreign("a new log needs an origin"))?;
    if !is_origin(&origin) {
        return Err(foreign("its origin has a space, a plus, or no character"));
    }
    let mut identity = [0; 32];
    getrandom::fill(&mut identity).map_err(|_| Error::Random)?;
    let record = LogRecord {
        origin,
        log_key: log_key(keys)?,
        vrf_key: keys.vrf.public(),
        fence: Fence::Blobs,
        identity,
        made: clock.now(),
        predecessor: options.predecessor.as_ref().map(|before| before.origin.clone()),
    };
    check_record(&record, options, keys)?;
    match store.private.claim(keys::LOG, record.encode(), MAX_SMALL).await? {
        Claim::Won => info!(origin = record.origin, "made a new log"),
        Claim::Lost(_) => info!("another process made the log just now"),
    }
    chain.record().await?.ok_or_else(|| Error::broken(0, "the log record vanished"))
}

fn log_key(keys: &Keys) -> Result<[u8; 32], Error> {
    let verifier = keys.log.verifier();
    let key = verifier.public_key().copied();
    key.ok_or_else(|| Error::Foreign { what: "the log key is no Ed25519 key".into() })
}

fn check_record(record: &LogRecord, options: &Options, keys: &Keys) -> Result<(), Error> {
    let foreign = |what: String| Err(Error::Foreign { what });
    if let Some(origin) = &options.origin
        && *origin != record.origin
    {
        return foreign(format!("its origin is {}, not {origin}", record.origin));
    }
    if keys.log.name() != record.origin {
        return foreign(format!("the log key is named {}, not {}", keys.log.name(), record.origin));
    }
    if log_key(keys)? != record.log_key {
        return foreign("its log key is another".into());
    }
    if keys.vrf.public() != record.vrf_key {
        return foreign("its VRF key is another".into());
    }
    Ok(())
}

/// How far the index has come; damage there means: not at all.
async fn read_index(state: &dyn State) -> Result<Option<Indexed>, Error> {
    match index::indexed(state).await {
        Err(Error::Store(error)) if error.is_damage() => {
            warn!("the index cannot be read and is made anew");
            index::clear(state).await?;
            Ok(None)
        }
        other => other,
    }
}

/// Reads commits in order, for the tip and for the index.
struct Reading<'a> {
    chain: &'a Chain,
    state: &'a dyn State,
    indexed: Option<Indexed>,
}

impl Reading<'_> {
    /// Empties an index that is not of this log.
    async fn check_index(&mut self, tail: Option<u64>) -> Result<(), Error> {
        let Some(indexed) = self.indexed else { return Ok(()) };
        if tail.is_none_or(|tail| indexed.n > tail) {
            // Judged later, by those who know the tail.
            return Ok(());
        }
        if self.chain.at(indexed.n).await?.hash != indexed.hash {
            warn!(commit = indexed.n, "the index is of another log and is made anew");
            index::clear(self.state).await?;
            self.indexed = None;
        }
        Ok(())
    }

    /// Follows all commits to the tail and brings the index up to the one
    /// before it. Gives the last step, whose follow-up may not be done.
    async fn replay(
        &self,
        tip: &mut Tip,
        tail: Option<u64>,
    ) -> Result<Option<(Step, Grown)>, Error> {
        let Some(tail) = tail else { return Ok(None) };
        let unindexed = self.indexed.map_or(0, |indexed| indexed.n + 1);
        let (chain, state) = (self.chain, self.state);
        if let Some(before) = tip.next.checked_sub(1)
            && unindexed <= before
        {
            let mut steps = chain.steps(unindexed, before).await?;
            while let Some(step) = steps.next().await? {
                index::index(state, chain, &step).await?;
            }
        }
        let mut last: Option<(Step, Grown)> = None;
        let mut steps = chain.steps(tip.next, tail).await?;
        while let Some(step) = steps.next().await? {
            let grown = tip.follow(&step)?;
            let n = step.commit.n;
            if n < tail {
                if n >= unindexed {
                    index::index(state, chain, &step).await?;
                }
                // Lookups are answered at the tail or just before it.
                tip.map.publish(grown.map_batch)?;
            }
            last = Some((step, grown));
        }
        if unindexed <= tail {
            state.flush().await?;
        }
        Ok(last)
    }
}

/// Whether this node may sequence: the fence, the guard, the index.
async fn judge(
    fences: bool,
    marks: &io::Result<Option<Marks>>,
    record: &LogRecord,
    chain: &Chain,
    last: &Option<(Step, Grown)>,
    indexed: Option<Indexed>,
) -> Result<Option<Blocked>, Error> {
    if !fences {
        return Ok(Some(Blocked::NoFence));
    }
    let Some((step, _)) = last else { return Ok(None) };
    let Commit { n, size, root, .. } = step.commit;
    if indexed.is_some_and(|indexed| indexed.n > n) {
        return Ok(Some(Blocked::StateAhead { size, root }));
    }
    let marks = match marks {
        Ok(marks) => marks,
        Err(_) => return Ok(Some(Blocked::GuardDamaged { size, root })),
    };
    let Some((origin, mark)) = marks.as_ref().and_then(|marks| marks.own.as_ref()) else {
        // Killed between the first commit and the first guard.
        return Ok((n > 0).then_some(Blocked::GuardMissing { size, root }));
    };
    if *origin != record.origin {
        return Err(Error::Foreign { what: format!("the guard is of {origin}") });
    }
    if mark.n > n {
        return Ok(Some(Blocked::GuardAhead { size, root }));
    }
    let known = chain.at(mark.n).await?.commit;
    if (known.size, known.root) != (mark.size, mark.root) {
        return Ok(Some(Blocked::GuardDiffers { size, root }));
    }
    if let Some((_, signed, _)) = marks.as_ref().and_then(|marks| marks.shown.as_ref())
        && *signed > size
    {
        return Ok(Some(Blocked::PeersAhead { size, root, signed: *signed }));
    }
    // One behind: killed between a commit and its guard.
    Ok((mark.n + 1 < n).then_some(Blocked::GuardBehind { size, root }))
}

impl Log {
    /// While the tip may not be signed: serves the commit before it, if that
    /// has a checkpoint.
    async fn show_predecessor(
        &self,
        chain: &Chain,
        last: &Option<(Step, Grown)>,
    ) -> Result<(), Error> {
        let Some(before) = last.as_ref().and_then(|(step, _)| step.commit.n.checked_sub(1)) else {
            return Ok(());
        };
        let step = chain.at(before).await?;
        let Commit { n, size, root, directory_root, labels, time, .. } = step.commit;
        let key = keys::checkpoint(size);
        let checkpoint = self.store().public.get(&key, MAX_NOTE as u64).await?;
        let Some(checkpoint) = checkpoint else { return Ok(()) };
        let checkpoint = Some(self.open_to_cosigners(size, &checkpoint, true).await?);
        let root_entry = step.batch.entries.last().cloned().unwrap_or_default();
        let head = Head { n, size, root, directory_root, labels, time, root_entry, checkpoint };
        self.0.heads.send_modify(|heads| heads.published = Some(head));
        Ok(())
    }
}

impl Sequencer {
    /// Compares the tiles in the store with the tree that the commits make.
    pub(super) async fn verify_tiles(&self) -> Result<(), Error> {
        let tip = self.tip();
        let edge = read_edge(&self.log().store().public, tip.size()).await?;
        if edge.root() != tip.edge.root() {
            return Err(Error::broken(tip.next.saturating_sub(1), "the tiles have another root"));
        }
        Ok(())
    }
}

/// What stands beside a snapshot of the directory: where the log was.
struct Notes {
    n: u64,
    hash: Hash,
    position: Position,
}

impl Notes {
    fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer
            .uint(1, 1)
            .uint(2, self.n)
            .bytes(3, &self.hash)
            .uint(4, self.position.size)
            .uint(5, self.position.time.millis())
            .bytes(6, &self.position.vrf_key);
        writer.finish()
    }

    fn decode(bytes: &[u8]) -> Result<Notes, Malformed> {
        let mut reader = Reader::limited(bytes, 1024)?;
        if reader.uint(1)? != 1 {
            return Err(Malformed::Value(1, "this format is not known"));
        }
        let n = reader.uint(2)?;
        let hash = reader.hash(3)?;
        let size = reader.required_uint(4)?;
        let time = Timestamp::from_millis(reader.required_uint(5)?);
        let vrf_key = reader.hash(6)?;
        reader.end()?;
        Ok(Notes {
            n,
            hash,
            position: Position {
                size,
                time,
                vrf_key,
                closed: false,
                unknown: None,
                carrying: None,
            },
        })
    }
}

/// Writes a snapshot of the directory at the tip, so that the next start reads
/// only what came after; older ones go. Not for a closed log, nor for one with
/// entries that this version does not know.
pub(super) async fn snapshot(store: &Store, tip: &Tip) -> Result<(), Error> {
    let Some(n) = tip.next.checked_sub(1) else { return Ok(()) };
    let position = tip.position.clone();
    if position.closed || position.unknown.is_some() || position.carrying.is_some() {
        return Ok(());
    }
    let notes = Notes { n, hash: tip.hash, position };
    let batch = tip.map.committed().batch;
    directory::write(&tip.map, &store.public, batch, tip.size(), &notes.encode()).await?;
    for old in directory::sizes(&store.public).await?.into_iter().skip(2) {
        directory::delete(&store.public, old).await?;
    }
    Ok(())
}

/// The newest snapshot that fits the commits and lies before the tail. A
/// damaged one is passed over: the commits are the truth.
async fn restore(
    options: &Options,
    store: &Store,
    chain: &Chain,
    record: &LogRecord,
    tail: Option<u64>,
) -> Result<Option<Tip>, Error> {
    let Some(tail) = tail else { return Ok(None) };
    for size in directory::sizes(&store.public).await? {
        match restore_one(options, store, chain, record, tail, size).await {
            Ok(Some(tip)) => return Ok(Some(tip)),
            Ok(None) => {}
            Err(error) => warn!(size, %error, "a snapshot of the directory cannot be used"),
        }
    }
    Ok(None)
}

async fn restore_one(
    options: &Options,
    store: &Store,
    chain: &Chain,
    record: &LogRecord,
    tail: u64,
    size: u64,
) -> Result<Option<Tip>, Error> {
    let Some(restored) = directory::restore(&store.public, size, options.directory.clone()).await?
    else {
        return Ok(None);
    };
    let notes = Notes::decode(&restored.notes)
        .map_err(|fault| Error::broken(0, format!("a snapshot's notes: {fault}")))?;
    if notes.n >= tail {
        return Ok(None);
    }
    let n = notes.n;
    let Step { hash, commit, .. } = chain.at(n).await?;
    let head = restored.directory.committed();
    if hash != notes.hash
        || commit.size != notes.position.size
        || commit.size != size
        || (head.root, head.labels) != (commit.directory_root, commit.labels)
        || commit.time != notes.position.time
        || record.vrf_key != notes.position.vrf_key
    {
        return Err(Error::broken(n, "the snapshot is of another log"));
    }
    let edge = read_edge(&store.public, size).await?;
    if edge.root() != commit.root {
        return Err(Error::broken(n, "the tiles have another root than the commit"));
    }
    let bundle = read_bundle(&store.public, size, &edge).await?;
    let map = Arc::new(restored.directory);
    Ok(Some(Tip::restored(record, map, notes.position, edge, bundle, n + 1, hash)))
}

/// The right edge of the tree of `size` leaves, from its partial tiles or the
/// full ones that replaced them. The caller compares its root.
async fn read_edge(public: &Blobs, size: u64) -> Result<Edge, Error> {
    let mut tiles: Vec<(TileCoordinate, Bytes)> = Vec::new();
    for at in crate::proof::tile::partial_tiles(size) {
        if let Some(bytes) = super::reader::tile(public, at).await? {
            tiles.push((at, bytes));
        }
    }
    let read = |at| tiles.iter().find(|(known, _)| *known == at).map(|(_, bytes)| bytes);
    Edge::restore(size, read).map_err(Error::Tiles)
}

/// The entries of the partial bundle, checked against the leaf hashes of the edge.
async fn read_bundle(public: &Blobs, size: u64, edge: &Edge) -> Result<Vec<Bytes>, Error> {
    let Some(last) = size.checked_sub(1) else { return Ok(Vec::new()) };
    let Some((at, _)) = BundleCoordinate::of_entry(last, size) else { return Ok(Vec::new()) };
    if at.tile().is_full() {
        return Ok(Vec::new());
    }
    let bytes = super::reader::bundle(public, at).await?;
    let bytes = bytes.ok_or_else(|| Error::broken(0, format!("bundle {at} is missing")))?;
    let entries = super::reader::entries(&bytes, at).map_err(Error::Tiles)?;
    let entries: Vec<Bytes> = entries.into_iter().map(|entry| bytes.slice_ref(entry)).collect();
    let leaves: Vec<Hash> = entries.iter().map(|entry| leaf_hash(entry)).collect();
    let tile = edge.tiles().find(|tile| tile.at == at.tile());
    if tile.is_none_or(|tile| tile.bytes != leaves.concat()) {
        return Err(Error::broken(0, format!("bundle {at} has other entries than its tile")));
    }
    Ok(entries)
}
