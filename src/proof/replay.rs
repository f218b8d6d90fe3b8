//! One function from entries to the directory root, and it refuses whatever is
//! publicly wrong. The mirror, `rebuild`, frontends, peers and auditors all
//! replay with it.
//!
//! Left out: signatures, the log's own Merkle tree, blobs, and what is hidden
//! behind commitments. The map itself is a [`MapEngine`].

use bytes::Bytes;

use super::entry::{
    self, Carried, DirectoryRoot, Entry, Events, Holder, Kind, Misfit, OutlineKind, current_after,
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
    /// The label comes from the predecessor, with this chain value.
    Carried(Hash),
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
    #[error("a label is carried over where none is expected")]
    CarriedMisplaced,
    #[error("labels are not carried over in ascending order of the predecessor's")]
    CarriedOrder,
    #[error("two labels of the predecessor became one")]
    CarriedTwice,
    #[error("{found} labels are carried over, the predecessor had {expected}")]
    CarriedCount { expected: u64, found: u64 },
    #[error("what is carried over is not the predecessor's final map")]
    CarriedRoot,
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
            Broken::CarriedMisplaced => "carried-misplaced",
            Broken::CarriedOrder => "carried-order",
            Broken::CarriedTwice => "carried-twice",
            Broken::CarriedCount { .. } => "carried-count",
            Broken::CarriedRoot => "carried-root",
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
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// While the predecessor's labels are being carried over.
    pub carrying: Option<Carrying>,
}

/// How far the predecessor's map has come over, compared with what the genesis
/// entry promises of it. It grows with the depth of the map, not its size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carrying {
    directory_root: Hash,
    labels: u64,
    done: u64,
    map: map::Ascending,
}

impl Carrying {
    /// Labels carried over so far.
    pub fn done(&self) -> u64 {
        self.done
    }

    /// Labels that the predecessor had.
    pub fn labels(&self) -> u64 {
        self.labels
    }

    /// For a replay that is kept while it goes on.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.directory_root.to_vec();
        bytes.extend_from_slice(&self.labels.to_be_bytes());
        bytes.extend_from_slice(&self.done.to_be_bytes());
        bytes.extend_from_slice(&self.map.encode());
        bytes
    }

    /// The inverse.
    pub fn decode(bytes: &[u8]) -> Option<Carrying> {
        let (directory_root, rest) = bytes.split_first_chunk::<32>()?;
        let (labels, rest) = rest.split_first_chunk::<8>()?;
        let (done, map) = rest.split_first_chunk::<8>()?;
        Some(Carrying {
            directory_root: *directory_root,
            labels: u64::from_be_bytes(*labels),
            done: u64::from_be_bytes(*done),
            map: map::Ascending::decode(map)?,
        })
    }

    /// Whether all are there: what more is carried over would be a fault.
    pub fn is_complete(&self) -> bool {
        self.done == self.labels && self.map.clone().root() == self.directory_root
    }

    /// The predecessor's label that came last.
    pub fn last(&self) -> Option<Label> {
        self.map.last()
    }
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

/// Replays entries in order. After a fault it stays stopped, and the map may
/// hold the batch that was refused: roll it back or drop it. After a failure of
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
    carrying: Option<Carrying>,
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
            carrying: None,
        };
        Replayer::resume(expected, position)
    }

    /// Goes on from a position, with the map that belongs to it.
    pub fn resume(expected: Expected, position: Position) -> Replayer {
        let pending = Pending::at(&position);
        Replayer { expected, position, pending, stopped: None }
    }

    /// After the last complete batch.
    pub fn position(&self) -> Position {
        self.position.clone()
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
            self.pending = Pending::at(&self.position);
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
        Ok(self.position.clone())
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
        if !matches!(read.kind, Kind::Carried(_) | Kind::Root(_) | Kind::Genesis(_)) {
            self.pending.carried_all(index)?;
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
                self.pending.carrying = genesis.predecessor.map(|predecessor| Carrying {
                    directory_root: predecessor.directory_root,
                    labels: predecessor.labels,
                    done: 0,
                    map: map::Ascending::default(),
                });
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
            Kind::Carried(carried) => {
                self.pending.carry(&carried, index)?;
                let what = What::Carried(carried.chain);
                (carried.label, carried.holder, carried.version, carried.current, what)
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
        let Pending { changes, vrf_key, closing, unknown, carrying, .. } = std::mem::take(pending);
        self.position = Position {
            size: index + 1,
            time,
            vrf_key: vrf_key.unwrap_or(self.position.vrf_key),
            closed: closing,
            unknown: self.position.unknown.or(unknown),
            carrying,
        };
        self.pending = Pending::at(&self.position);
        Ok(Batch { index, time, root, changes })
    }
}

impl Pending {
    /// Of a batch that begins there.
    fn at(position: &Position) -> Pending {
        Pending { carrying: position.carrying.clone(), ..Pending::default() }
    }

    /// Takes over one label of the predecessor.
    fn carry(&mut self, carried: &Carried, index: u64) -> Result<(), Fault> {
        let Some(carrying) = &mut self.carrying else {
            return Err(Broken::CarriedMisplaced.at(index));
        };
        carrying.done += 1;
        let leaf = map::leaf_hash(&carried.predecessor_label, carried.version, &carried.chain);
        match carrying.map.push(carried.predecessor_label, leaf) {
            true => Ok(()),
            false => Err(Broken::CarriedOrder.at(index)),
        }
    }

    /// Something else about a label comes: all must have been carried over.
    fn carried_all(&mut self, index: u64) -> Result<(), Fault> {
        let Some(carrying) = self.carrying.take() else { return Ok(()) };
        let Carrying { directory_root, labels, done, map } = carrying;
        if done != labels {
            return Err(Broken::CarriedCount { expected: labels, found: done }.at(index));
        }
        match map.root() == directory_root {
            true => Ok(()),
            false => Err(Broken::CarriedRoot.at(index)),
        }
    }

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
            Kind::Carried(carried) => {
                let what = What::Carried(carried.chain);
                (carried.label, carried.holder, carried.version, carried.current, what)
            }
        };
        Ok(Some(Change { label, index, entry, holder, version, current, what }))
    }
}

/// The tip after one label's changes of a batch, in the log's order: versions
/// exactly the next, `current` as the events make it, the chain.
pub fn advance(tip: Option<Tip>, changes: &[Change]) -> Result<Tip, Fault> {
    let holder = changes.first().map_or(Holder::User, |change| change.holder);
    let is_new = tip.is_none();
    let mut tip = tip.unwrap_or(Tip { holder, version: 0, current: 0, chain: CHAIN_START });
    for change in changes {
        let at = |broken: Broken| broken.at(change.index);
        if change.holder != tip.holder {
            return Err(at(Broken::Holder));
        }
        if let What::Carried(chain) = change.what {
            if !is_new || tip.version != 0 {
                return Err(at(Broken::CarriedTwice));
            }
            tip = Tip { version: change.version, current: change.current, chain, ..tip };
            continue;
        }
        let expected = tip.version.saturating_add(1);
        if change.version != expected {
            return Err(at(Broken::Version { expected, found: change.version }));
        }
        let current = match change.what {
            What::Observed(events) => current_after(tip.holder, events, expected, tip.current)
                .map_err(|misfit| at(Broken::Misfit(misfit)))?,
            // Also of what is withdrawn: its payloads are still there.
            What::Forgotten if tip.version == 0 => return Err(at(Broken::NothingToForget)),
            What::Forgotten => 0,
            What::Unknown | What::Carried(_) => change.current,
        };
        if change.current != current {
            return Err(at(Broken::Current { expected: current, found: change.current }));
        }
        let chain = map::chain_next(&tip.chain, &map::entry_leaf_hash(&change.entry));
        tip = Tip { holder: tip.holder, version: expected, current, chain };
    }
    Ok(tip)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::dime::Dnssec;
    use crate::proof::entry::{
        Blob, Closing, DomainObservation, Event, Forgotten, Genesis, Poks, UserObservation,
    };
    use crate::proof::map::PlainMap;
    use crate::proof::vrf;

    const START: u64 = 1_795_449_843_000;
    const POKS: [[u8; 32]; 1] = [[6; 32]];

    fn t(offset: u64) -> Timestamp {
        Timestamp::from_millis(START + offset)
    }

    fn expected() -> Expected {
        Expected { origin: "log.example/1".to_owned(), log_key: log_key() }
    }

    fn log_key() -> [u8; 32] {
        crate::dime::ed25519::public_key(&[1; 32])
    }

    fn genesis() -> Kind<'static> {
        Kind::Genesis(Genesis {
            origin: "log.example/1",
            log_key: log_key(),
            vrf_key: vrf::SecretKey::from_seed(&[2; 32]).public(),
            predecessor: None,
        })
    }

    fn domain(version: u64, current: u64, events: &[Event]) -> Kind<'static> {
        let content = current == version;
        Kind::Domain(DomainObservation {
            domain: "example.com",
            version,
            current,
            poks: Poks::new(&POKS),
            dnssec: Dnssec::Indeterminate,
            record: content.then(|| Blob::of(b"record")),
            org_signet: None,
            dnssec_chain: None,
            events: Events::of(events),
            held_until: None,
            coalesced: None,
        })
    }

    fn user(label: u8, version: u64, current: u64, event: Event) -> Kind<'static> {
        Kind::User(UserObservation {
            label: Label([label; 32]),
            version,
            current,
            commitment: [version as u8; 32],
            events: event.into(),
            held_until: None,
            coalesced: None,
        })
    }

    fn forgotten(label: u8, version: u64) -> Kind<'static> {
        Kind::Forgotten(Forgotten { label: Label([label; 32]), version })
    }

    fn entry(time: Timestamp, kind: Kind<'_>) -> Bytes {
        Entry::new(time, kind).encode().into()
    }

    /// A log in the making: the batches that came, each with its honest root.
    struct Log {
        entries: Vec<Bytes>,
        map: PlainMap,
    }

    impl Log {
        fn begin() -> Log {
            let mut log = Log { entries: Vec::new(), map: PlainMap::new() };
            log.batch(t(0), [entry(t(0), genesis())]);
            log
        }

        fn batch(&mut self, time: Timestamp, entries: impl IntoIterator<Item = Bytes>) {
            let first = self.entries.len() as u64;
            self.entries.extend(entries);
            let mut changes: Vec<Change> = (first..)
                .zip(&self.entries[first as usize..])
                .filter_map(|(index, bytes)| Change::of(index, bytes.clone()).unwrap())
                .collect();
            changes.sort_by_key(|change| (change.label, change.index));
            let head = self.map.apply(&changes).unwrap();
            let covered = self.entries.len() as u64;
            let root = DirectoryRoot { root: head.root, labels: head.labels, covered };
            self.entries.push(entry(time, Kind::Root(root)));
        }

        /// Several versions of one label in one batch, both kinds of holders.
        fn sample() -> Log {
            let mut log = Log::begin();
            log.batch(
                t(100),
                [
                    entry(t(50), domain(1, 1, &[Event::FirstSeen])),
                    entry(t(20), domain(2, 2, &[Event::RecordChanged])),
                    entry(t(100), user(1, 1, 1, Event::FirstSeen)),
                    entry(t(100), user(1, 2, 2, Event::Rotated)),
                    entry(t(100), user(9, 1, 1, Event::FirstSeen)),
                ],
            );
            log.batch(
                t(200),
                [
                    entry(t(150), domain(3, 2, &[Event::RecordWithdrawn])),
                    entry(t(200), user(1, 3, 2, Event::Reverted)),
                    entry(t(200), forgotten(9, 2)),
                    entry(t(200), user(9, 3, 3, Event::FirstSeen)),
                ],
            );
            log
        }
    }

    fn replay(entries: &[Bytes]) -> Result<Position, Stop<std::convert::Infallible>> {
        let mut map = PlainMap::new();
        let mut replayer = Replayer::new(expected());
        for entry in entries {
            replayer.push(&mut map, entry.clone())?;
        }
        replayer.finish().map_err(Stop::Fault)
    }

    fn broken(entries: &[Bytes]) -> Broken {
        match replay(entries) {
            Err(Stop::Fault(fault)) => fault.broken,
            other => panic!("{other:?}"),
        }
    }

    /// What an honest log says after its first batch, then one batch of `kinds`
    /// at t(100), closed with the root that the same rules would make.
    fn after(kinds: Vec<(u64, Kind<'static>)>) -> Vec<Bytes> {
        let mut log = Log::sample();
        let covered = (log.entries.len() + kinds.len()) as u64;
        let entries: Vec<Bytes> = kinds.into_iter().map(|(at, kind)| entry(t(at), kind)).collect();
        log.entries.extend(entries);
        let root = DirectoryRoot { root: [0; 32], labels: 3, covered };
        log.entries.push(entry(t(300), Kind::Root(root)));
        log.entries
    }

    #[test]
    fn an_honest_log_replays() {
        let log = Log::sample();
        let position = replay(&log.entries).unwrap();
        assert_eq!(position.size, log.entries.len() as u64);
        assert_eq!(position.time, t(200));
        assert_eq!(position.vrf_key, vrf::SecretKey::from_seed(&[2; 32]).public());
        assert_eq!(position.unknown, None);
    }

    #[test]
    fn it_goes_on_from_a_position() {
        let log = Log::sample();
        let mut map = PlainMap::new();
        let mut replayer = Replayer::new(expected());
        let mut middle = None;
        for bytes in &log.entries {
            if let Some(batch) = replayer.push(&mut map, bytes.clone()).unwrap()
                && batch.index == 7
            {
                middle = Some((replayer.position(), map.clone()));
            }
        }
        let (position, mut map) = middle.unwrap();
        let rest = position.size as usize;
        let mut again = Replayer::resume(expected(), position);
        for bytes in &log.entries[rest..] {
            again.push(&mut map, bytes.clone()).unwrap();
        }
        assert_eq!(again.finish(), replayer.finish());
        assert_eq!(map.root(), log.map.root());
    }

    #[test]
    fn names_every_broken_rule() {
        use Event::*;
        let sample = Log::sample().entries;
        assert_eq!(broken(&sample[1..]), Broken::NoGenesis);
        assert_eq!(broken(&[]), Broken::NoRoot);
        assert_eq!(broken(&sample[..4]), Broken::NoRoot);
        assert_eq!(broken(&after(vec![(300, genesis())])), Broken::SecondGenesis);
        let cases = [
            (vec![(300, user(1, 3, 3, Rotated))], Broken::Version { expected: 4, found: 3 }),
            (vec![(300, user(1, 5, 5, Rotated))], Broken::Version { expected: 4, found: 5 }),
            (vec![(300, user(2, 2, 2, FirstSeen))], Broken::Version { expected: 1, found: 2 }),
            (vec![(300, user(1, 4, 4, Reverted))], Broken::Current { expected: 2, found: 4 }),
            (vec![(300, user(1, 4, 2, Rotated))], Broken::Current { expected: 4, found: 2 }),
            (vec![(300, user(1, 4, 4, FirstSeen))], Broken::Misfit(Misfit::FirstSeen)),
            (vec![(300, user(2, 1, 1, Rotated))], Broken::Misfit(Misfit::FirstSeen)),
            (vec![(300, user(1, 4, 4, PokAdded))], Broken::Misfit(Misfit::OtherHolder)),
            (vec![(300, forgotten(2, 1))], Broken::NothingToForget),
            (vec![(300, user(1, 4, 4, Rotated)), (300, user(0, 1, 1, FirstSeen))], Broken::Order),
            (
                vec![(300, user(1, 4, 4, Rotated)), (250, domain(4, 4, &[RecordChanged]))],
                Broken::Order,
            ),
            (vec![(250, user(1, 4, 4, Rotated))], Broken::UserTime),
            (
                vec![(300, user(1, 4, 4, Rotated)), (299, user(2, 1, 1, FirstSeen))],
                Broken::UserTime,
            ),
            (vec![(199, domain(4, 4, &[RecordChanged]))], Broken::TooOld),
            (vec![(301, domain(4, 4, &[RecordChanged]))], Broken::TooYoung),
            (vec![(250, domain(4, 4, &[RecordChanged]))], Broken::Root),
            (vec![(300, user(2, 1, 1, FirstSeen))], Broken::Labels { expected: 4, found: 3 }),
        ];
        for (kinds, expected) in cases {
            assert_eq!(broken(&after(kinds.clone())), expected, "{kinds:?}");
        }
        let label = Label::of_domain(&"example.com".parse().unwrap());
        let takeover = Kind::User(UserObservation {
            label,
            version: 4,
            current: 4,
            commitment: [0; 32],
            events: Rotated.into(),
            held_until: None,
            coalesced: None,
        });
        assert_eq!(broken(&after(vec![(300, takeover)])), Broken::Holder);
        let erased = Kind::Forgotten(Forgotten { label, version: 4 });
        assert_eq!(broken(&after(vec![(300, erased)])), Broken::Holder);

        let mut miscounted = Log::sample().entries;
        let head = Log::sample().map.head();
        let root = DirectoryRoot { root: head.root, labels: head.labels, covered: 12 };
        miscounted.push(entry(t(300), Kind::Root(root)));
        assert_eq!(broken(&miscounted), Broken::Covered { expected: 13, found: 12 });
    }

    #[test]
    fn a_root_for_another_state_is_refused() {
        let honest = Log::sample().entries;
        // Every entry replaced, dropped and doubled, the roots left as they are.
        for i in 0..honest.len() {
            let mut dropped = honest.clone();
            dropped.remove(i);
            assert!(replay(&dropped).is_err(), "dropped {i}");
            let mut doubled = honest.clone();
            doubled.insert(i, honest[i].clone());
            assert!(replay(&doubled).is_err(), "doubled {i}");
        }
        // A version whose hidden content was replaced.
        let mut replaced = honest.clone();
        let forged = Kind::User(UserObservation {
            label: Label([1; 32]),
            version: 2,
            current: 2,
            commitment: [99; 32],
            events: Event::Rotated.into(),
            held_until: None,
            coalesced: None,
        });
        replaced[5] = entry(t(100), forged);
        assert_eq!(broken(&replaced), Broken::Root);
    }

    #[test]
    fn nothing_but_a_root_follows_a_closing() {
        let closing = || {
            let vrf_key = vrf::SecretKey::from_seed(&[3; 32]).public();
            Kind::Closing(Closing { origin: "log.example/2", log_key: log_key(), vrf_key })
        };
        let mut log = Log::sample();
        log.batch(t(300), [entry(t(250), closing())]);
        assert!(replay(&log.entries).unwrap().closed);
        log.batch(t(400), [entry(t(400), user(1, 4, 4, Event::Rotated))]);
        assert_eq!(broken(&log.entries), Broken::Closed);
        let late = vec![(250, closing()), (300, user(1, 4, 4, Event::Rotated))];
        assert_eq!(broken(&after(late)), Broken::AfterClosing);
    }

    #[test]
    fn another_log_is_refused() {
        let log = Log::sample();
        let mut map = PlainMap::new();
        for (wrong, broken) in [
            (Expected { origin: "log.example/2".to_owned(), ..expected() }, Broken::Origin),
            (Expected { log_key: [2; 32], ..expected() }, Broken::LogKey),
        ] {
            let mut replayer = Replayer::new(wrong);
            let stop = replayer.push(&mut map, log.entries[0].clone());
            assert_eq!(stop, Err(Stop::Fault(broken.at(0))));
            // And it stays so.
            let stop = replayer.push(&mut map, log.entries[0].clone());
            assert_eq!(stop, Err(Stop::Fault(broken.at(0))));
        }
    }

    /// Threat 17: versioned and hashed as usual, no accusation.
    #[test]
    fn an_unknown_format_is_a_condition() {
        let later = |kind: Kind<'_>, time| {
            let mut entry = Entry::new(time, kind);
            entry.format = 2;
            Bytes::from(entry.encode())
        };
        let mut log = Log::sample();
        let bytes = later(user(1, 4, 4, Event::Withdrawn), t(250));
        let change = Change {
            label: Label([1; 32]),
            index: log.entries.len() as u64,
            entry: bytes.clone(),
            holder: Holder::User,
            version: 4,
            current: 4,
            what: What::Unknown,
        };
        let head = log.map.apply(&[change]).unwrap();
        log.entries.push(bytes);
        let covered = log.entries.len() as u64;
        let root = DirectoryRoot { root: head.root, labels: head.labels, covered };
        log.entries.push(entry(t(300), Kind::Root(root)));
        let unknown = Unknown { index: 13, format: 2 };
        assert_eq!(replay(&log.entries).unwrap().unknown, Some(unknown));
        // What looks like a fault from here on may be ignorance.
        log.batch(t(100), []);
        assert_eq!(replay(&log.entries), Err(Stop::Unknown(unknown)));
        // Format 0 is no later format.
        let mut none = Entry::new(t(300), user(1, 4, 4, Event::Rotated));
        none.format = 0;
        let mut entries = Log::sample().entries;
        entries.push(none.encode().into());
        let fault = Malformed::Value(1, "this format is not known");
        assert_eq!(broken(&entries), Broken::Malformed(fault));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// The same entries in other batches lead to the same map.
        #[test]
        fn batches_do_not_matter(picks in proptest::collection::vec((0u8..6, 0u8..3), 0..60), cuts: u64) {
            let mut log = Log::begin();
            let mut all = PlainMap::new();
            let mut batch = Vec::new();
            let mut versions = [(0u64, 0u64); 6];
            let mut changes = Vec::new();
            let mut picked: Vec<(u8, Kind<'static>)> = Vec::new();
            for (i, (label, what)) in picks.into_iter().enumerate() {
                let (version, current) = &mut versions[usize::from(label)];
                *version += 1;
                let kind = match (what, *current) {
                    (0, _) if *version > 1 => { *current = 0; forgotten(label, *version) }
                    (1, 1..) => user(label, *version, *current, Event::Withdrawn),
                    (_, 0) => { *current = *version; user(label, *version, *current, Event::FirstSeen) }
                    _ => { *current = *version; user(label, *version, *current, Event::Rotated) }
                };
                picked.push((label, kind));
                if cuts >> (i % 64) & 1 == 1 {
                    batch.push(std::mem::take(&mut picked));
                }
            }
            batch.push(picked);
            for (i, mut kinds) in batch.into_iter().enumerate() {
                kinds.sort_by_key(|(label, _)| *label);
                let time = t(100 + i as u64);
                let entries: Vec<Bytes> =
                    kinds.into_iter().map(|(_, kind)| entry(time, kind)).collect();
                for bytes in &entries {
                    changes.push(Change::of(changes.len() as u64, bytes.clone()).unwrap().unwrap());
                }
                log.batch(time, entries);
            }
            prop_assert!(replay(&log.entries).is_ok());
            changes.sort_by_key(|change| (change.label, change.index));
            all.apply(&changes).unwrap();
            prop_assert_eq!(all.root(), log.map.root());
        }

        #[test]
        fn replay_never_panics(entries: Vec<Vec<u8>>, at: prop::sample::Index, with: Vec<u8>) {
            let _ = replay(&entries.into_iter().map(Bytes::from).collect::<Vec<_>>());
            let mut log = Log::sample().entries;
            let at = at.index(log.len());
            log[at] = with.into();
            prop_assert!(replay(&log).is_err());
        }
    }
}
