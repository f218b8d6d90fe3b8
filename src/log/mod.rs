//! The transparency log: pool, sequence, commit, publish, read back.
//!
//! The order of one round, each step durable before the next begins: public
//! blobs, payload, batch, **commit** (put-if-absent, the fence), guard, tiles
//! and bundles, checkpoint, index, cosignatures, acknowledgement. Formats are in
//! [`commit`], names in `store::keys`.
//!
//! Three heads: *committed*; *published*, when the publishing quorum has
//! cosigned or its deadline has passed; *served*, which is the published one.
//! The next batch is committed only then (threat 13).
//!
//! Left out: asking for cosignatures, which is the peers room's, and what an
//! observation means, which is the crawl room's.

pub mod answer;
pub mod carry;
pub mod chain;
pub mod check;
pub mod commit;
mod cosign;
pub mod erase;
pub mod guard;
pub mod index;
pub mod ledger;
mod publish;
pub mod reader;
pub mod recover;
pub mod segment;
pub mod sequencer;
mod takeback;
pub mod tip;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

pub use cosign::Cosignature;
pub use reader::Reader;
pub use recover::{Opened, accept_tip, is_made, open, rebuild};
pub use sequencer::Sequencer;

use crate::clock::Clock;
use crate::dime::{Address, Timestamp};
use crate::directory::{self, Directory};
use crate::proof::draft::{Draft, Unplaceable};
use crate::proof::entry::{Entry, Kind};
use crate::proof::note::SigningKey;
use crate::proof::replay::{Fault, Unknown};
use crate::proof::{Hash, Label, vrf};
use crate::store::rows::{self, Place};
use crate::store::{self, State, Store, keys};
use chain::Step;
use commit::LogRecord;
use guard::{Guard, OwnMark};
use tip::Grown;

/// Time between two batches, at least.
pub const INTERVAL: Duration = Duration::from_secs(1);
/// The same where somebody waits: five a second.
pub const URGENT_INTERVAL: Duration = Duration::from_millis(200);
/// A log in which nothing happens publishes a directory root this often.
pub const HEARTBEAT: Duration = Duration::from_secs(600);
/// Drafts that wait in the pool; more wait at their submitters. A few batches.
pub const POOL: usize = 10_000;
/// Commits that become one segment.
pub const SEGMENT: u64 = 10_000;
/// Entries between two snapshots of the directory, at least.
pub const SNAPSHOT: u64 = 50_000;
/// Partial tiles go when the full one is this old.
pub const PRUNE_AFTER: Duration = Duration::from_secs(24 * 3600);
/// How long a signed checkpoint waits for its publishing quorum.
pub const QUORUM_DEADLINE: Duration = Duration::from_secs(2);
/// How far the clock may be past the last root before somebody must look.
pub const CLOCK_AHEAD: Duration = Duration::from_secs(3600);
/// How far the clock may be behind the last root; its time is used again.
pub const CLOCK_BEHIND: Duration = Duration::from_secs(300);

/// How a log is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Origin of the checkpoints. Needed when the log is made; later it may be
    /// absent, and must not differ.
    pub origin: Option<String>,
    /// The guard file, outside the blob store and outside its backups.
    pub guard: PathBuf,
    pub interval: Duration,
    pub urgent_interval: Duration,
    pub heartbeat: Duration,
    /// Entries in one batch, the directory root included: 2 to [`commit::MAX_ENTRIES`].
    pub batch: usize,
    /// Drafts that wait in the pool, at least 1.
    pub pool: usize,
    /// Commits that become one segment, at least 1.
    pub segment: u64,
    /// Entries after which the directory is written out again, at least; a
    /// quarter of its labels if that is more.
    pub snapshot: u64,
    /// Age of a full tile at which its partial ones go; `None`: they stay.
    pub prune_after: Option<Duration>,
    pub clock_ahead: Duration,
    pub clock_behind: Duration,
    /// The operator's word that the clock is right, for the first batch.
    pub accept_clock: bool,
    /// For a log that is made: the closed one whose labels it carries over.
    pub predecessor: Option<Predecessor>,
    /// Cosignatures that count, to wait for before publishing; 0: none.
    pub publish_quorum: usize,
    /// How long to wait for them.
    pub quorum_deadline: Duration,
    pub directory: directory::Options,
}

impl Options {
    /// The defaults, with a guard file.
    pub fn new(guard: impl Into<PathBuf>) -> Options {
        Options {
            origin: None,
            guard: guard.into(),
            interval: INTERVAL,
            urgent_interval: URGENT_INTERVAL,
            heartbeat: HEARTBEAT,
            batch: commit::MAX_ENTRIES,
            pool: POOL,
            segment: SEGMENT,
            snapshot: SNAPSHOT,
            prune_after: Some(PRUNE_AFTER),
            clock_ahead: CLOCK_AHEAD,
            clock_behind: CLOCK_BEHIND,
            accept_clock: false,
            predecessor: None,
            publish_quorum: 0,
            quorum_deadline: QUORUM_DEADLINE,
            directory: directory::Options::default(),
        }
    }
}

/// The closed log that a new one takes over from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Predecessor {
    pub origin: String,
    pub log_key: [u8; 32],
    /// Its final signed checkpoint, without cosignatures.
    pub checkpoint: Bytes,
    /// Of its final map.
    pub directory_root: Hash,
    pub labels: u64,
}

/// The secrets of a log. Both are fixed by its genesis entry for its life.
#[derive(Clone)]
pub struct Keys {
    /// Signs checkpoints and what was seen. Its name is the origin.
    pub log: SigningKey,
    /// Hides mailboxes.
    pub vrf: Arc<vrf::SecretKey>,
}

/// What went wrong in the log.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the log could not use its store")]
    Store(#[from] store::Error),
    #[error("the log could not use its directory")]
    Directory(#[from] directory::Error),
    /// What lies in the store is not a log: damaged, or written by something else.
    #[error("commit {n}: {what}")]
    Broken { n: u64, what: String },
    /// A commit in the store breaks a rule that every replayer checks.
    #[error("commit {n} breaks a rule")]
    Rule {
        n: u64,
        #[source]
        fault: Fault,
    },
    /// A commit was written by a later version of this program.
    #[error("commit {n} is of a later version of this program")]
    Unknown {
        n: u64,
        #[source]
        unknown: Unknown,
    },
    /// The store holds another log than the configuration names.
    #[error("this is not the log that was asked for: {what}")]
    Foreign { what: String },
    /// No log can be made in a store that does not refuse a second writer.
    #[error("{place} lets a second writer replace an object, so no log can live there")]
    NoFence { place: String },
    /// The guard file could not be read or written.
    #[error("could not {doing} the guard {path}")]
    Guard {
        doing: &'static str,
        path: String,
        #[source]
        source: std::io::Error,
    },
    /// The list of what was erased could not be read or written.
    #[error("could not {doing} the list of what was erased, {path}")]
    Ledger {
        doing: &'static str,
        path: String,
        #[source]
        source: std::io::Error,
    },
    /// This process slept while others went on: its last commit number had
    /// been used and merged away. Nothing was signed.
    #[error("commit {n} is below the floor: this process slept while others went on")]
    Superseded { n: u64 },
    /// Commits were merged into a segment while they were read: read again.
    #[error("commit {n} was merged away while it was read")]
    Moved { n: u64 },
    #[error("no proof could be made")]
    Proof(#[source] crate::proof::merkle::Unprovable),
    /// Public objects of the own log do not fit its commits.
    #[error("the tiles do not fit the log")]
    Tiles(#[source] crate::dime::Rejection),
    #[error("the machine gives no random bytes")]
    Random,
    #[error("a task of the log was cut off")]
    Task(#[from] tokio::task::JoinError),
}

/// What the caller of a failed step is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Call again later: nothing was lost, and the next call goes on there.
    Retry,
    /// End the process: going on could contradict what was signed, or what is
    /// durable is unknown. The next start finds out.
    Fatal,
}

/// Why a log is served and not written. Each ends by itself or by the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocked {
    /// The store's put-if-absent no longer refuses a second writer.
    NoFence,
    /// There is no guard file: a new machine, or one restored from a backup.
    GuardMissing { size: u64, root: Hash },
    /// The guard is more than one commit behind the store.
    GuardBehind { size: u64, root: Hash },
    /// The guard knows commits that the store has not: an old backup.
    GuardAhead { size: u64, root: Hash },
    /// The guard knows another tree than the store.
    GuardDiffers { size: u64, root: Hash },
    /// The guard cannot be read.
    GuardDamaged { size: u64, root: Hash },
    /// The index knows commits that the store has not: an old backup.
    StateAhead { size: u64, root: Hash },
    /// Others hold a tree of `signed` leaves with this log's signature, and here
    /// the log ends before it.
    PeersAhead { size: u64, root: Hash, signed: u64 },
    /// Others hold a tree of `signed` leaves with this log's signature that is
    /// none of its trees: it has signed two histories, or its key is in other hands.
    PeersDiffer { signed: u64 },
    /// So many milliseconds lie between this clock and what most peers just
    /// published; positive if theirs are ahead.
    ClockOff { by: i64 },
    /// The clock is more than an hour past the last root, milliseconds.
    ClockAhead { ahead: u64 },
    /// The clock is more than five minutes behind the last root, milliseconds.
    ClockBehind { behind: u64 },
    /// The log has its closing entry.
    Closed,
    /// The predecessor's labels are not all carried over yet.
    Carrying,
    /// So many changes wait for publication that the directory takes no more.
    Unpublished { changes: u64 },
}

impl Blocked {
    /// Whether what was signed before is in doubt: then nothing may be
    /// cosigned either, since that memory lies in the same place (threat 12).
    pub fn doubts_memory(&self) -> bool {
        match self {
            Blocked::NoFence
            | Blocked::GuardMissing { .. }
            | Blocked::GuardBehind { .. }
            | Blocked::GuardAhead { .. }
            | Blocked::GuardDiffers { .. }
            | Blocked::GuardDamaged { .. }
            | Blocked::StateAhead { .. }
            | Blocked::PeersAhead { .. }
            | Blocked::PeersDiffer { .. } => true,
            Blocked::ClockAhead { .. }
            | Blocked::ClockOff { .. }
            | Blocked::ClockBehind { .. }
            | Blocked::Closed
            | Blocked::Carrying
            | Blocked::Unpublished { .. } => false,
        }
    }
}

impl Blocked {
    /// Whether it is the clock that is wrong.
    pub fn doubts_clock(&self) -> bool {
        matches!(
            self,
            Blocked::ClockAhead { .. } | Blocked::ClockBehind { .. } | Blocked::ClockOff { .. }
        )
    }
}

impl fmt::Display for Blocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, size, root) = match self {
            Blocked::NoFence => {
                return f.write_str("the store lets a second writer replace commits");
            }
            Blocked::ClockAhead { ahead } => {
                return write!(
                    f,
                    "the clock is {} s past the last directory root; if it is right, start once with \
                     --accept-clock",
                    ahead / 1000
                );
            }
            Blocked::ClockBehind { behind } => {
                return write!(
                    f,
                    "the clock is {} s behind the last directory root",
                    behind / 1000
                );
            }
            Blocked::ClockOff { by } => {
                return write!(
                    f,
                    "the clocks of most peers are {} s {} this one; if this one is right, start \
                     with --accept-clock",
                    by.unsigned_abs() / 1000,
                    if *by > 0 { "ahead of" } else { "behind" }
                );
            }
            Blocked::PeersAhead { size, signed, .. } => {
                return write!(
                    f,
                    "peers hold a tree of {signed} entries that this log has signed: those from \
                     {size} on are missing here, and no peer has given them back yet"
                );
            }
            Blocked::PeersDiffer { signed } => {
                return write!(
                    f,
                    "a peer holds a tree of {signed} entries with this log's signature that is \
                     not this log: it has forked, or its key is in other hands"
                );
            }
            Blocked::Closed => return f.write_str("the log is closed"),
            Blocked::Carrying => {
                return f.write_str(
                    "labels of the log before are missing: run `syndicate migrate` again",
                );
            }
            Blocked::Unpublished { changes } => {
                return write!(f, "{changes} changes wait for their checkpoint to be published");
            }
            Blocked::GuardMissing { size, root } => ("there is no guard file", size, root),
            Blocked::GuardBehind { size, root } => {
                ("the guard is older than the store", size, root)
            }
            Blocked::GuardAhead { size, root } => ("the store is older than the guard", size, root),
            Blocked::GuardDiffers { size, root } => ("the guard knows another tree", size, root),
            Blocked::GuardDamaged { size, root } => ("the guard cannot be read", size, root),
            Blocked::StateAhead { size, root } => ("the store is older than the index", size, root),
        };
        write!(f, "{what}; if the log really ends there: accept-tip {size} {}", hex::encode(root))
    }
}

/// Where a draft came to stand. It is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Leaf index.
    pub index: u64,
    /// Version of its label.
    pub version: u64,
    /// Leaves of the first tree that holds it.
    pub size: u64,
}

/// Why a draft is not in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Try again when that has ended.
    #[error("the log takes no entries: {0}")]
    Blocked(Blocked),
    /// It does not fit what the log holds of its label.
    #[error("the draft has no place")]
    Unplaceable(#[source] Unplaceable),
    /// The label has an entry that whoever made the draft did not know of: look
    /// again, and judge by that.
    #[error("the label has moved on to version {version}")]
    MovedOn { version: u64 },
    /// The log has stopped. The entry may be in it or not; look at the next start.
    #[error("the log has stopped")]
    Stopped,
}

/// One state of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Number of the commit.
    pub n: u64,
    pub size: u64,
    /// Of the tree.
    pub root: Hash,
    pub directory_root: Hash,
    pub labels: u64,
    pub time: Timestamp,
    /// The last leaf: the entry with the directory root.
    pub root_entry: Bytes,
    /// The signed checkpoint with the cosignatures gathered so far; `None`
    /// until it is signed.
    pub checkpoint: Option<Bytes>,
}

/// The newest commit, and the newest that is published and served. `None`
/// before there is one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heads {
    pub committed: Option<Head>,
    pub published: Option<Head>,
}

/// A draft on its way.
struct Waiting {
    draft: Draft,
    label: Label,
    /// The version that it was judged from; `None`: it stands by itself.
    after: Option<u64>,
    urgent: bool,
    reply: oneshot::Sender<Result<Placed, Refused>>,
}

/// A handle to the log: submits, reads, asks. Cheap to clone.
#[derive(Clone)]
pub struct Log(Arc<Shared>);

struct Shared {
    options: Options,
    record: LogRecord,
    store: Store,
    state: Arc<dyn State>,
    keys: Keys,
    clock: Clock,
    map: Arc<Directory>,
    guard: Guard,
    pool: mpsc::Sender<Waiting>,
    heads: watch::Sender<Heads>,
    blocked: watch::Sender<Option<Blocked>>,
    gathered: cosign::Gathered,
    word: Mutex<Word>,
}

/// What only the operator can change.
#[derive(Debug, Default)]
struct Word {
    /// Holds until the tip is accepted.
    standing: Option<Blocked>,
    /// The clock is right, for one batch.
    clock: bool,
    /// The clock is right, whatever the peers' clocks say.
    despite_peers: bool,
    /// What most peers' clocks say against ours, milliseconds, and until when.
    peers_clocks: Option<(i64, Instant)>,
}

impl Error {
    fn broken(n: u64, what: impl Into<String>) -> Error {
        Error::Broken { n, what: what.into() }
    }

    pub fn remedy(&self) -> Remedy {
        match self {
            Error::Store(error) if error.is_fatal() || error.is_damage() => Remedy::Fatal,
            Error::Directory(directory::Error::Pending { .. }) => Remedy::Retry,
            Error::Store(_) | Error::Moved { .. } | Error::Proof(_) => Remedy::Retry,
            _ => Remedy::Fatal,
        }
    }
}

impl Head {
    fn of(step: &Step, grown: &Grown) -> Head {
        Head {
            n: step.commit.n,
            size: grown.size,
            root: grown.root,
            directory_root: grown.directory.root.root,
            labels: grown.directory.root.labels,
            time: grown.directory.time,
            root_entry: step.batch.entries.last().cloned().unwrap_or_default(),
            checkpoint: None,
        }
    }
}

impl Waiting {
    /// Whoever asked may be gone; that is no fault.
    fn answer(self, outcome: Result<Placed, Refused>) {
        let _ = self.reply.send(outcome);
    }

    /// Nobody waits for it any more: its submitter gave up, and judges anew.
    fn is_abandoned(&self) -> bool {
        self.reply.is_closed()
    }
}

impl Log {
    /// Hands a draft in and waits until it is durable, published and indexed.
    /// Waits longer while the pool is full. Given up before its batch is made, it
    /// is not logged.
    pub async fn submit(&self, draft: Draft) -> Result<Placed, Refused> {
        self.hand_in(draft, None, false).await
    }

    /// The same for a draft that was judged by the row of its name: `after` is
    /// the row's version, 0 without a row. Whoever gave up cannot know whether an
    /// entry came of it; this way its next draft never repeats that entry.
    pub async fn submit_after(&self, draft: Draft, after: u64) -> Result<Placed, Refused> {
        self.hand_in(draft, Some(after), false).await
    }

    /// As [`Log::submit`] for somebody who waits: batches may follow five a second.
    pub async fn submit_urgent(&self, draft: Draft) -> Result<Placed, Refused> {
        self.hand_in(draft, None, true).await
    }

    async fn hand_in(
        &self,
        draft: Draft,
        after: Option<u64>,
        urgent: bool,
    ) -> Result<Placed, Refused> {
        if let Some(blocked) = self.standing_block() {
            return Err(Refused::Blocked(blocked));
        }
        // Here and not in the sequencer: 40 µs each, on the submitter's thread.
        let label = draft.label(&self.0.keys.vrf);
        let (reply, answer) = oneshot::channel();
        let waiting = Waiting { draft, label, after, urgent, reply };
        self.0.pool.send(waiting).await.map_err(|_| Refused::Stopped)?;
        answer.await.unwrap_or(Err(Refused::Stopped))
    }

    /// Reads tiles, entries, proofs and checkpoints of what is published.
    pub fn reader(&self) -> Reader {
        Reader::new(self.clone())
    }

    /// The heads as they are now.
    pub fn heads(&self) -> Heads {
        self.0.heads.borrow().clone()
    }

    /// Tells of every new head.
    pub fn watch_heads(&self) -> watch::Receiver<Heads> {
        self.0.heads.subscribe()
    }

    /// Why nothing is being sequenced, if so.
    pub fn blocked(&self) -> Option<Blocked> {
        *self.0.blocked.borrow()
    }

    pub fn record(&self) -> &LogRecord {
        &self.0.record
    }

    pub fn state(&self) -> &Arc<dyn State> {
        &self.0.state
    }

    pub fn store(&self) -> &Store {
        &self.0.store
    }

    pub fn directory(&self) -> &Arc<Directory> {
        &self.0.map
    }

    /// The memory outside the store: of the own log, and of those cosigned.
    pub fn guard(&self) -> &Guard {
        &self.0.guard
    }

    /// The label of a mailbox in this log; about 40 µs.
    pub fn vrf(&self) -> &vrf::SecretKey {
        &self.0.keys.vrf
    }

    /// Whether a mailbox was forgotten and has not asked to come back: its
    /// latest entry is FORGOTTEN. The log itself is the list of whom not to
    /// crawl, so that it holds no name and outlives every index.
    pub async fn is_forgotten(&self, address: &Address) -> Result<bool, Error> {
        let label = Label::of_address(&self.0.keys.vrf, address);
        let Some(version) = self.forgotten(&label).await? else { return Ok(false) };
        let private = &self.0.store.private;
        let asked = private.head(&keys::asked(&label.0, version)).await?.is_some();
        Ok(!asked && private.head(&keys::lost(&label.0, version)).await?.is_none())
    }

    /// The owner of a forgotten mailbox asks that it be seen again. Gives
    /// whether it is forgotten at all.
    pub async fn ask_again(&self, address: &Address) -> Result<bool, Error> {
        let label = Label::of_address(&self.0.keys.vrf, address);
        let Some(version) = self.forgotten(&label).await? else { return Ok(false) };
        self.0.store.private.put(keys::asked(&label.0, version), Bytes::new()).await?;
        Ok(true)
    }

    /// The version of a label's latest entry, if that is FORGOTTEN.
    async fn forgotten(&self, label: &Label) -> Result<Option<u64>, Error> {
        let Some(tip) = self.0.map.tip(label).filter(|tip| tip.current == 0) else {
            return Ok(None);
        };
        let key = rows::place_key(&label.0, tip.version);
        let Some(place) = rows::find::<Place>(&*self.0.state, &key).await? else {
            return Ok(None);
        };
        let entry = Entry::decode(&place.entry);
        let forgotten = entry.is_ok_and(|entry| matches!(entry.kind, Kind::Forgotten(_)));
        Ok(forgotten.then_some(tip.version))
    }

    /// The operator's word that the clock is right: for the next batch against
    /// the last root, and from now on against the peers' clocks.
    pub fn accept_clock(&self) {
        let mut word = self.word();
        (word.clock, word.despite_peers) = (true, true);
    }

    /// What most peers' clocks say against ours (threat 14): theirs less ours,
    /// milliseconds, and until when that is to be believed. `None`: nothing.
    pub fn doubt_clock(&self, off: Option<(i64, Instant)>) {
        self.word().peers_clocks = off;
    }

    fn clock_doubt(&self) -> Option<i64> {
        let word = self.word();
        let fresh = word.peers_clocks.filter(|(_, until)| Instant::now() < *until);
        fresh.filter(|_| !word.despite_peers).map(|(by, _)| by)
    }

    /// Something shows that more was signed than this store knows of: nothing is
    /// sequenced or cosigned until that is settled.
    pub fn doubt_memory(&self, blocked: Blocked) {
        self.word().standing = Some(blocked);
        self.set_blocked(Some(blocked));
    }

    /// The operator's word that the log ends where the store ends. `size` and
    /// `root` must be those of the last commit.
    pub async fn accept_tip(&self, size: u64, root: Hash) -> Result<(), Error> {
        accept_tip(&self.0.options.guard, &self.0.store, size, root).await?;
        if matches!(self.standing_block(), Some(Blocked::StateAhead { .. })) {
            // It indexed commits that are given up now.
            rebuild(&self.0.store, &*self.0.state).await?;
        }
        let settled = self.word().standing.take();
        if self.blocked() == settled {
            self.set_blocked(None);
        }
        Ok(())
    }

    fn word(&self) -> std::sync::MutexGuard<'_, Word> {
        self.0.word.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn standing_block(&self) -> Option<Blocked> {
        self.word().standing
    }

    fn clock_accepted(&self) -> bool {
        self.word().clock
    }

    fn set_blocked(&self, blocked: Option<Blocked>) {
        if blocked.is_none() {
            self.word().clock = false;
        }
        let told = |now: &mut Option<Blocked>| {
            let news = std::mem::discriminant(now) != std::mem::discriminant(&blocked)
                || now.map(|now| std::mem::discriminant(&now))
                    != blocked.map(|new| std::mem::discriminant(&new));
            *now = blocked;
            news
        };
        if self.0.blocked.send_if_modified(told) {
            match blocked {
                Some(blocked) => tracing::warn!(%blocked, "nothing is sequenced"),
                None => tracing::info!("sequencing"),
            }
        }
    }

    fn set_committed(&self, head: &Head) {
        self.0.heads.send_modify(|heads| heads.committed = Some(head.clone()));
    }

    /// Serves a head from now on; the directory first, then whoever watches.
    fn publish(&self, head: Head, map_batch: u64) -> Result<(), Error> {
        if head.checkpoint.is_none() {
            return Ok(());
        }
        self.0.map.publish(map_batch)?;
        self.0.gathered.published(head.size);
        self.0.heads.send_modify(|heads| {
            if heads.published.as_ref().is_none_or(|old| old.size < head.size) {
                // As it is now: a cosignature may have come since.
                let checkpoint = self.0.gathered.note(head.size).or(head.checkpoint.clone());
                heads.published = Some(Head { checkpoint, ..head });
            }
        });
        Ok(())
    }

    async fn advance_guard(&self, mark: OwnMark) -> Result<(), Error> {
        let (guard, origin) = (self.0.guard.clone(), self.0.record.origin.clone());
        let path = guard.path().display().to_string();
        tokio::task::spawn_blocking(move || guard.advance(&origin, mark))
            .await?
            .map_err(|source| Error::Guard { doing: "move on", path, source })
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Log({})", self.0.record.origin)
    }
}
