//! One function from entries to the directory root, and it refuses whatever is
//! publicly wrong. The mirror, `rebuild`, frontends, peers and auditors all
//! replay with it.
//!
//! Left out: signatures, the log's own Merkle tree, blobs, and what is hidden
//! behind commitments. The map itself is a [`MapEngine`].

use bytes::Bytes;

use super::entry::{
    self, DirectoryRoot, Entry, Events, Holder, Kind, Misfit, OutlineKind, current_after,
};
use super::map::{self, CHAIN_START};
use super::wire::Malformed;
use super::{Hash, Label};
use crate::dime::Timestamp;

/// Most entries in one batch, its root included.
pub const MAX_BATCH: usize = 131_072;

/// What a map remembers of a label. An engine may store less wide numbers: it
/// then fails with its own error when they overflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tip {
    pub holder: Holder,
    /// The newest version, not 0.
    pub version: u64,
    /// The version in force, 0 for none.
    pub current: u64,
    pub chain: Hash,
}

/// What one entry does to one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub label: Label,
    /// Of the entry, in the log.
    pub index: u64,
    /// Its bytes: what the chain covers.
    pub entry: Bytes,
    pub holder: Holder,
    pub version: u64,
    /// As the entry says.
    pub current: u64,
    pub what: What,
}

/// Which rule decides `current`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Observed(Events),
    Forgotten,
    /// An entry of another format: believed, since it cannot be judged.
    Unknown,
}

/// A map's root and size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub root: Hash,
    pub labels: u64,
}

/// Where the labels are kept.
pub trait MapEngine {
    /// The engine's own failures (full, no memory, no disk).
    type Error;

    /// What the newest applied batch left of the label.
    fn tip(&self, label: &Label) -> Option<Tip>;

    /// Applies one batch, all of it or nothing. `changes` ascend by label, then
    /// by index; the changes of one label go to [`advance`] together, with its
    /// tip, and what that returns is the new tip. Independent labels may be
    /// advanced in parallel, so that hashing entries is shared out. Of several
    /// faults the one with the lowest index is returned.
    fn apply(&mut self, changes: &[Change]) -> Result<Head, EngineStop<Self::Error>>;

    /// Root and size after the newest applied batch.
    fn head(&self) -> Head;
}

/// Why a batch was not applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineStop<E> {
    #[error(transparent)]
    Fault(#[from] Fault),
    #[error("apply a batch to the map")]
    Engine(E),
}

/// A broken rule, by whoever wrote the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("entry {index}: {broken}")]
pub struct Fault {
    pub index: u64,
    pub broken: Broken,
}

/// Which rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    #[error("not the one encoding of an entry: {0}")]
    Malformed(Malformed),
    #[error("the log does not begin with a genesis entry")]
    NoGenesis,
    #[error("a second genesis entry")]
    SecondGenesis,
    #[error("the genesis entry is for another origin")]
    Origin,
    #[error("the genesis entry is for another log key")]
    LogKey,
    #[error("version {found} where {expected} comes next")]
    Version { expected: u64, found: u64 },
    #[error("current is {found}, the events make it {expected}")]
    Current { expected: u64, found: u64 },
    #[error("the events do not fit: {0}")]
    Misfit(Misfit),
    #[error("a label of a domain used for a mailbox, or the other way round")]
    Holder,
    #[error("nothing is there to be forgotten")]
    NothingToForget,
    #[error("it is older than the root before it")]
    TooOld,
    #[error("it is younger than its own root")]
    TooYoung,
    #[error("a mailbox's entry does not carry its root's time")]
    UserTime,
    #[error("the entries of mailboxes do not stand after all others, ascending by label")]
    Order,
    #[error("more than {MAX_BATCH} entries without a directory root")]
    BatchTooLarge,
    #[error("it covers {found} entries and stands behind {expected}")]
    Covered { expected: u64, found: u64 },
    #[error("it counts {found} labels, there are {expected}")]
    Labels { expected: u64, found: u64 },
    #[error("the directory root is not what the entries make")]
    Root,
    #[error("something else than a directory root follows a closing entry")]
    AfterClosing,
    #[error("the log goes on behind its closing")]
    Closed,
    #[error("the last entry is not a directory root")]
    NoRoot,
}

impl Broken {
    fn at(self, index: u64) -> Fault {
        Fault { index, broken: self }
    }

    /// The rule's name, the same in the second verifier.
    pub fn rule(&self) -> &'static str {
        match self {
            Broken::Malformed(fault) => fault.rule(),
            Broken::NoGenesis => "no-genesis",
            Broken::SecondGenesis => "second-genesis",
            Broken::Origin => "origin",
            Broken::LogKey => "log-key",
            Broken::Version { .. } => "version",
            Broken::Current { .. } => "current",
            Broken::Misfit(_) => "events",
            Broken::Holder => "holder",
            Broken::NothingToForget => "nothing-to-forget",
            Broken::TooOld => "too-old",
            Broken::TooYoung => "too-young",
            Broken::UserTime => "user-time",
            Broken::Order => "order",
            Broken::BatchTooLarge => "batch-too-large",
            Broken::Covered { .. } => "covered",
            Broken::Labels { .. } => "labels",
            Broken::Root => "directory-root",
            Broken::AfterClosing => "after-closing",
            Broken::Closed => "closed",
            Broken::NoRoot => "no-root",
        }
    }
}

/// The first entry of a format that this code does not know: upgrade. It
/// accuses nobody, and from here on nothing that looks like a fault does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("entry {index} has format {format}, which this version does not know")]
pub struct Unknown {
    pub index: u64,
    pub format: u32,
}

/// Why a replay stopped for good.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stop<E> {
    /// The log is wrong.
    #[error(transparent)]
    Fault(Fault),
    /// This code is too old to go on.
    #[error(transparent)]
    Unknown(Unknown),
    /// The engine failed; nothing is said about the log.
    #[error("apply a batch to the map")]
    Engine(E),
}

/// Whose log it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    pub origin: String,
    /// Ed25519.
    pub log_key: [u8; 32],
}

/// A place between two batches: enough to go on from, beside the map itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Entries replayed.
    pub size: u64,
    /// Of the last root, 0 before the first.
    pub time: Timestamp,
    /// From the genesis entry; zeros before it.
    pub vrf_key: [u8; 32],
    /// Whether the closing entry has been.
    pub closed: bool,
    /// Whether an entry of an unknown format has been.
    pub unknown: Option<Unknown>,
}

/// A batch that fits, up to its root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Index of the directory root; the log's size is one more.
    pub index: u64,
    pub time: Timestamp,
    pub root: DirectoryRoot,
    /// The labels' changes, ascending by label, then index.
    pub changes: Vec<Change>,
}

/// Replays entries in order. After a fault it stays stopped; after a failure of
/// the engine it stands at the last root again, and takes the batch once more.
#[derive(Debug)]
pub struct Replayer {
    expected: Expected,
    position: Position,
    pending: Pending,
    stopped: Option<Fault>,
}

/// The batch that is being collected.
#[derive(Debug, Default)]
struct Pending {
    changes: Vec<Change>,
    entries: u64,
    /// The youngest entry: time and index.
    youngest: Option<(Timestamp, u64)>,
    /// The label and time of the last entry of a mailbox, and the index of the first.
    user: Option<(Label, Timestamp, u64)>,
    vrf_key: Option<[u8; 32]>,
    closing: bool,
    unknown: Option<Unknown>,
}

impl Replayer {
    /// From the very beginning, with an empty map.
    pub fn new(expected: Expected) -> Replayer {
        let position = Position {
            size: 0,
            time: Timestamp::from_millis(0),
            vrf_key: [0; 32],
            closed: false,
            unknown: None,
        };
        Replayer::resume(expected, position)
    }

    /// Goes on from a position, with the map that belongs to it.
    pub fn resume(expected: Expected, position: Position) -> Replayer {
        Replayer { expected, position, pending: Pending::default(), stopped: None }
    }

    /// After the last complete batch.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Index of the entry that [`Replayer::push`] takes next.
    pub fn next_index(&self) -> u64 {
        self.position.size + self.pending.entries
    }

    /// The first entry of an unknown format, if one has been.
    pub fn unknown(&self) -> Option<Unknown> {
        self.position.unknown.or(self.pending.unknown)
    }

    /// Takes the next entry. When it is a directory root, the whole batch is
    /// applied and compared, and returned.
    pub fn push<M: MapEngine>(
        &mut self,
        map: &mut M,
        entry: Bytes,
    ) -> Result<Option<Batch>, Stop<M::Error>> {
        let index = self.next_index();
        let outcome = match self.take(index, entry) {
            Ok(None) => Ok(None),
            Ok(Some((time, root))) => self.close(map, index, time, root).map(Some),
            Err(fault) => Err(EngineStop::Fault(fault)),
        };
        outcome.map_err(|stop| {
            if let EngineStop::Fault(fault) = &stop {
                self.stopped = Some(*fault);
            }
            let unknown = self.unknown();
            self.position.unknown = unknown;
            self.pending = Pending::default();
            match (stop, unknown) {
                (EngineStop::Engine(error), _) => Stop::Engine(error),
                (EngineStop::Fault(_), Some(unknown)) => Stop::Unknown(unknown),
                (EngineStop::Fault(fault), None) => Stop::Fault(fault),
            }
        })
    }

    /// Asks whether the log may end here: the last leaf must be a root.
    pub fn finish(&self) -> Result<Position, Fault> {
        if let Some(fault) = self.stopped {
            return Err(fault);
        }
        if self.pending.entries > 0 || self.position.size == 0 {
            return Err(Broken::NoRoot.at(self.next_index().saturating_sub(1)));
        }
        Ok(self.position)
    }

    /// Reads one entry into the batch; gives its time and root when it is one.
    fn take(
        &mut self,
        index: u64,
        bytes: Bytes,
    ) -> Result<Option<(Timestamp, DirectoryRoot)>, Fault> {
        if let Some(fault) = self.stopped {
            return Err(fault);
        }
        if self.position.closed {
            return Err(Broken::Closed.at(index));
        }
        if self.pending.entries as usize >= MAX_BATCH {
            return Err(Broken::BatchTooLarge.at(index));
        }
        let malformed = |fault| Broken::Malformed(fault).at(index);
        let format = entry::format_of(&bytes).map_err(malformed)?;
        if format != entry::FORMAT && format != 0 {
            return self.take_unknown(index, format, bytes);
        }
        let read = Entry::decode(&bytes).map_err(malformed)?;
        let time = read.time;
        if time < self.position.time {
            return Err(Broken::TooOld.at(index));
        }
        if index == 0 && !matches!(read.kind, Kind::Genesis(_)) {
            return Err(Broken::NoGenesis.at(index));
        }
        if self.pending.closing && !matches!(read.kind, Kind::Root(_)) {
            return Err(Broken::AfterClosing.at(index));
        }
        let (label, holder, version, current, what) = match read.kind {
            Kind::Genesis(genesis) => {
                if index != 0 {
                    return Err(Broken::SecondGenesis.at(index));
                }
                if genesis.origin != self.expected.origin {
                    return Err(Broken::Origin.at(index));
                }
                if genesis.log_key != self.expected.log_key {
                    return Err(Broken::LogKey.at(index));
                }
                self.pending.vrf_key = Some(genesis.vrf_key);
                self.pending.count(time, index);
                return Ok(None);
            }
            Kind::Closing(_) => {
                self.pending.closing = true;
                self.pending.count(time, index);
                return Ok(None);
            }
            Kind::Root(root) => return Ok(Some((time, root))),
            Kind::Domain(domain) => {
                if self.pending.user.is_some() {
                    return Err(Broken::Order.at(index));
                }
                let label = Label::of_domain_text(domain.domain);
                let what = What::Observed(domain.events);
                (label, Holder::Domain, domain.version, domain.current, what)
            }
            Kind::User(user) => {
                self.pending.order(user.label, time, index)?;
                let what = What::Observed(user.events);
                (user.label, Holder::User, user.version, user.current, what)
            }
            Kind::Forgotten(forgotten) => {
                self.pending.order(forgotten.label, time, index)?;
                (forgotten.label, Holder::User, forgotten.version, 0, What::Forgotten)
            }
        };
        self.pending.count(time, index);
        let entry = bytes;
        self.pending.changes.push(Change { label, index, entry, holder, version, current, what });
        Ok(None)
    }

    /// Hashes and versions an entry of another format as far as its outline
    /// can be read.
    fn take_unknown(
        &mut self,
        index: u64,
        format: u32,
        bytes: Bytes,
    ) -> Result<Option<(Timestamp, DirectoryRoot)>, Fault> {
        self.pending.unknown.get_or_insert(Unknown { index, format });
        if index == 0 {
            return Err(Broken::NoGenesis.at(index));
        }
        let outline = entry::outline(&bytes).map_err(|fault| Broken::Malformed(fault).at(index))?;
        match outline.kind {
            OutlineKind::Root(root) => return Ok(Some((outline.time, root))),
            OutlineKind::Moves { label, holder, version, current } => {
                let what = What::Unknown;
                let entry = bytes;
                let change = Change { label, index, entry, holder, version, current, what };
                self.pending.changes.push(change);
            }
            OutlineKind::Other => {}
        }
        self.pending.count(outline.time, index);
        Ok(None)
    }

    /// Checks the root against the batch, applies it, and moves on.
    fn close<M: MapEngine>(
        &mut self,
        map: &mut M,
        index: u64,
        time: Timestamp,
        root: DirectoryRoot,
    ) -> Result<Batch, EngineStop<M::Error>> {
        let pending = &mut self.pending;
        if let Some((_, entry)) = pending.youngest.filter(|(youngest, _)| *youngest > time) {
            return Err(Broken::TooYoung.at(entry).into());
        }
        if let Some((_, _, entry)) = pending.user.filter(|(_, stamp, _)| *stamp != time) {
            return Err(Broken::UserTime.at(entry).into());
        }
        if root.covered != index {
            return Err(Broken::Covered { expected: index, found: root.covered }.at(index).into());
        }
        // Mailboxes stand in order already, so this mostly merges two runs.
        pending.changes.sort_by_key(|change| (change.label, change.index));
        let head =
            if pending.changes.is_empty() { map.head() } else { map.apply(&pending.changes)? };
        if root.labels != head.labels {
            let broken = Broken::Labels { expected: head.labels, found: root.labels };
            return Err(broken.at(index).into());
        }
        if root.root != head.root {
            return Err(Broken::Root.at(index).into());
        }
        let Pending { changes, vrf_key, closing, unknown, .. } = std::mem::take(pending);
        self.position = Position {
            size: index + 1,
            time,
            vrf_key: vrf_key.unwrap_or(self.position.vrf_key),
            closed: closing,
            unknown: self.position.unknown.or(unknown),
        };
        Ok(Batch { index, time, root, changes })
    }
}

impl Pending {
    fn count(&mut self, time: Timestamp, index: u64) {
        self.entries += 1;
        if self.youngest.is_none_or(|(youngest, _)| time > youngest) {
            self.youngest = Some((time, index));
        }
    }

    /// Mailboxes stand last, ascending by label, all at one time.
    fn order(&mut self, label: Label, time: Timestamp, index: u64) -> Result<(), Fault> {
        let first = match self.user {
            None => index,
            Some((last, _, _)) if label < last => return Err(Broken::Order.at(index)),
            Some((_, stamp, _)) if stamp != time => return Err(Broken::UserTime.at(index)),
            Some((_, _, first)) => first,
        };
        self.user = Some((label, time, first));
        Ok(())
    }
}

impl Change {
    /// What an entry of this code's format does to a label; `None` for one that
    /// moves none. For those who write a log.
    pub fn of(index: u64, entry: Bytes) -> Result<Option<Change>, Malformed> {
        let (label, holder, version, current, what) = match Entry::decode(&entry)?.kind {
            Kind::Genesis(_) | Kind::Root(_) | Kind::Closing(_) => return Ok(None),
            Kind::Domain(domain) => {
                let label = Label::of_domain_text(domain.domain);
                let what = What::Observed(domain.events);
                (label, Holder::Domain, domain.version, domain.current, what)
            }
            Kind::User(user) => {
                let what = What::Observed(user.events);
                (user.label, Holder::User, user.version, user.current, what)
            }
            Kind::Forgotten(forgotten) => {
                (forgotten.label, Holder::User, forgotten.version, 0, What::Forgotten)
            }
        };
        Ok(Some(Change { label, index, entry, holder, version, current, what }))
    }
}

/// The tip after one label's changes of a batch, in the log's order: versions
/// exactly the next, `current` as the events make it, the chain.
pub fn advance(tip: Option<Tip>, changes: &[Change]) -> Result<Tip, Fault> {
    let holder = changes.first().map_or(Holder::User, |change| change.holder);
    let mut tip = tip.unwrap_or(Tip { holder, version: 0, current: 0, chain: CHAIN_START });
    for change in changes {
        let at = |broken: Broken| broken.at(change.index);
        if change.holder != tip.holder {
            return Err(at(Broken::Holder));
        }
        let expected = tip.version.saturating_add(1);
        if change.version != expected {
            return Err(at(Broken::Version { expected, found: change.version }));
        }
        let current = match change.what {
            What::Observed(events) => current_after(tip.holder, events, expected, tip.current)
                .map_err(|misfit| at(Broken::Misfit(misfit)))?,
            What::Forgotten if tip.current == 0 => return Err(at(Broken::NothingToForget)),
            What::Forgotten => 0,
            What::Unknown => change.current,
        };
        if change.current != current {
            return Err(at(Broken::Current { expected: current, found: change.current }));
        }
        let chain = map::chain_next(&tip.chain, &map::entry_leaf_hash(&change.entry));
        tip = Tip { holder: tip.holder, version: expected, current, chain };
    }
    Ok(tip)
}
