//! A log's life goes on under another key: the old log is closed, and the new
//! one carries every label over before anything else (threat 18).
//!
//! With the carried entry goes a private record of the label's older entries
//! and what opens them, so that the new log answers for them by itself:
//!
//! | Object | Fields, by number |
//! | --- | --- |
//! | record of a carried label | 1 leaf index, 2 name (absent: erased), 3 chain before the first version here (absent: 32 zero bytes), 4 each version: 1 entry, 2 payload, 3 opening, 4 signet; 5 VRF proof under the predecessor's key, 6 each further step back, as in receipts |
//! | the predecessor, `predecessor` | 1 format, 2 its genesis entry, 3 inclusion path of that in its final tree |
//!
//! A record is at most 2 MiB: of a longer history the oldest versions stay behind.

use std::collections::VecDeque;

use bytes::Bytes;

use super::Error;
use super::answer::places;
use super::chain::broken;
use super::commit::sha256;
use super::index::{self, Rows, Whose};
use super::sequencer::Sequencer;
use super::{Log, Predecessor};
use crate::dime::{MAX_DOMAIN, MAX_LOCAL, Name};
use crate::proof::entry::{self, Carried, Closing, Entry, Holder, Kind, MAX_ENTRY, MAX_PAYLOAD};
use crate::proof::map::{CHAIN_START, chain_next, entry_leaf_hash};
use crate::proof::merkle::MAX_PROOF;
use crate::proof::receipt::{Carry, Leaf, MAX_CARRIES};
use crate::proof::wire::{Malformed, Reader, Writer};
use crate::proof::{Hash, Label, label, vrf};
use crate::store::keys;
use crate::store::rows::{self, CarriedRow, Hidden, Labelled, Place};
use crate::store::state::Range;

/// Largest record of one label, bytes.
const MAX_RECORD: usize = 2 << 20;
/// Largest object about the predecessor, bytes.
const MAX_PREDECESSOR: u64 = 8 << 10;
/// Labels in one batch.
const BATCH: usize = 2000;
/// Bytes of records after which a batch is closed.
const BATCH_BYTES: usize = 16 << 20;
/// Rows read at once.
const PAGE: usize = 1000;

/// One older version and what opens it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Past {
    entry: Bytes,
    hidden: Option<(Bytes, Hash)>,
    /// As received.
    signet: Option<Bytes>,
}

/// What only the log's owner knows of a label that was carried over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// Leaf index of the carried entry.
    index: u64,
    /// `None`: erased.
    name: Option<Name>,
    /// Before the first version.
    chain: Hash,
    versions: Vec<Past>,
    vrf_proof: Option<vrf::Proof>,
    further: Vec<Carry>,
}

/// How far a migration has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    pub done: u64,
    pub labels: u64,
}

impl Past {
    fn bytes(&self) -> usize {
        let signet = self.signet.as_ref().map_or(0, Bytes::len);
        self.entry.len() + signet + MAX_PAYLOAD + 64
    }
}

impl Record {
    fn encode(&self) -> Bytes {
        let mut writer = Writer::with_capacity(1024);
        writer.uint(1, self.index);
        writer.bytes(2, self.name.as_ref().map_or("", Name::as_str).as_bytes());
        if self.chain != CHAIN_START {
            writer.bytes(3, &self.chain);
        }
        for past in &self.versions {
            writer.message(4, |w| {
                w.bytes(1, &past.entry);
                if let Some((payload, opening)) = &past.hidden {
                    w.bytes(2, payload).bytes(3, opening);
                }
                w.bytes(4, past.signet.as_deref().unwrap_or_default());
            });
        }
        if let Some(proof) = &self.vrf_proof {
            writer.bytes(5, proof);
        }
        for carry in &self.further {
            writer.message(6, |w| carry.encode(w));
        }
        writer.finish().into()
    }

    fn decode(bytes: &Bytes) -> Result<Record, Malformed> {
        let mut reader = Reader::limited(bytes, MAX_RECORD)?;
        let index = reader.required_uint(1)?;
        let name = match reader.at(2) {
            true => {
                let text = reader.text(2, MAX_LOCAL + 1 + MAX_DOMAIN)?;
                Some(text.parse().map_err(|_| Malformed::Value(2, "it is not a name"))?)
            }
            false => None,
        };
        let chain = reader.array(3)?.unwrap_or(CHAIN_START);
        let mut versions = Vec::new();
        while let Some(mut past) = reader.message(4)? {
            let entry = past.bytes(1)?;
            if entry.is_empty() || entry.len() > MAX_ENTRY {
                return Err(Malformed::Length(1));
            }
            let payload = past.bytes(2)?;
            let opening = past.array(3)?;
            let signet = past.bytes(4)?;
            past.end()?;
            versions.push(Past {
                entry: bytes.slice_ref(entry),
                hidden: opening.map(|opening| (bytes.slice_ref(payload), opening)),
                signet: (!signet.is_empty()).then(|| bytes.slice_ref(signet)),
            });
        }
        let vrf_proof = reader.array(5)?;
        let mut further = Vec::new();
        while let Some(carry) = reader.message(6)? {
            if further.len() == MAX_CARRIES {
                return Err(Malformed::Length(6));
            }
            further.push(Carry::decode(carry)?);
        }
        reader.end()?;
        Ok(Record { index, name, chain, versions, vrf_proof, further })
    }
}

/// The predecessor's genesis entry in its final tree, as the new log keeps it.
fn encode_predecessor(leaf: &Leaf) -> Bytes {
    let mut writer = Writer::with_capacity(2048);
    writer.uint(1, 1).bytes(2, &leaf.entry).bytes(3, &leaf.path.concat());
    writer.finish().into()
}

fn decode_predecessor(bytes: &[u8]) -> Result<Leaf, Malformed> {
    let mut reader = Reader::limited(bytes, MAX_PREDECESSOR as usize)?;
    if reader.required_uint(1)? != 1 {
        return Err(Malformed::Value(1, "this format is not known"));
    }
    let entry = Bytes::copy_from_slice(reader.bytes(2)?);
    let (hashes, []) = reader.bytes(3)?.as_chunks::<32>() else {
        return Err(Malformed::Length(3));
    };
    if hashes.len() > MAX_PROOF {
        return Err(Malformed::Length(3));
    }
    reader.end()?;
    Ok(Leaf { entry, path: hashes.to_vec() })
}

/// Indexes a carried entry: its older versions get their places, as if they had
/// been logged here. Without its record it was erased since.
pub(super) async fn index(
    rows: &mut Rows<'_>,
    n: u64,
    at: u64,
    carried: &Carried,
    record: Option<(u32, Bytes)>,
) -> Result<(), Error> {
    let label = carried.label;
    let record = match record {
        None => None,
        Some((number, bytes)) => {
            Some((number, Record::decode(&bytes).map_err(broken(n, "a carried record"))?))
        }
    };
    let first = carried.version + 1;
    let mut row = CarriedRow {
        label: rows::Hash(label.0),
        version: carried.version,
        index: at,
        first,
        chain: rows::Hash(carried.chain),
        vrf_proof: Vec::new(),
        further: Vec::new(),
    };
    if let Some((number, record)) = record {
        row.first = first.saturating_sub(record.versions.len() as u64);
        row.chain = rows::Hash(record.chain);
        row.vrf_proof = record.vrf_proof.map_or_else(Vec::new, |proof| proof.to_vec());
        row.further = record
            .further
            .iter()
            .map(|carry| {
                let mut writer = Writer::new();
                carry.encode(&mut writer);
                writer.finish()
            })
            .collect();
        index_versions(rows, n, at, label, number, record).await?;
    }
    rows.put(&row);
    Ok(())
}

async fn index_versions(
    rows: &mut Rows<'_>,
    n: u64,
    at: u64,
    label: Label,
    number: u32,
    record: Record,
) -> Result<(), Error> {
    for past in record.versions {
        let read = Entry::decode(&past.entry).map_err(broken(n, "a carried version"))?;
        let hidden = past.hidden.map(|(payload, opening)| Hidden {
            record: number,
            payload: payload.to_vec(),
            opening: rows::Hash(opening),
            signet: past.signet.as_deref().map(|signet| rows::Hash(sha256(signet))),
        });
        match (&read.kind, &record.name) {
            (Kind::Domain(domain), _) => {
                index::place(rows, label, domain.version, at, n, &past.entry, None);
                index::index_domain(rows, n, domain, label, read.time).await?;
            }
            (Kind::User(user), Some(Name::Address(address))) if hidden.is_some() => {
                index::place(rows, label, user.version, at, n, &past.entry, hidden.clone());
                if let Some(hidden) = hidden {
                    let whose = Whose { label, address: address.clone() };
                    let (time, signet) = (read.time, past.signet);
                    index::index_hidden(rows, n, whose, user, time, &hidden, signet).await?;
                }
            }
            (Kind::User(user), _) => {
                index::place(rows, label, user.version, at, n, &past.entry, None);
            }
            (Kind::Forgotten(forgotten), _) => {
                index::place(rows, label, forgotten.version, at, n, &past.entry, None);
            }
            _ => return Err(Error::broken(n, "a carried version of no label")),
        }
    }
    Ok(())
}

/// The steps back that a receipt needs whose items begin with `first`.
/// `size` is that of the tree in which the receipt shows them.
pub(super) async fn steps(
    log: &Log,
    label: &Label,
    first: u64,
    size: u64,
) -> Result<Vec<Carry>, Error> {
    let Some(row) = row(log, label).await?.filter(|row| first <= row.version) else {
        return Ok(Vec::new());
    };
    let Ok(vrf_proof) = row.vrf_proof.try_into() else { return Ok(Vec::new()) };
    let missing = |what: &str| Error::broken(0, what.to_owned());
    let entry = log.reader().entry(row.index).await?;
    let entry = entry.ok_or_else(|| missing("a carried entry is missing"))?;
    let path = log.reader().inclusion(row.index, size).await?;
    let kept = log.store().private.get(keys::PREDECESSOR, MAX_PREDECESSOR).await?;
    let kept = kept.ok_or_else(|| missing("the predecessor's genesis entry is missing"))?;
    let genesis = decode_predecessor(&kept).map_err(broken(0, "the predecessor"))?;
    let entry = Leaf { entry, path };
    let mut found = vec![Carry { entry, index: row.index, genesis, vrf_proof: Some(vrf_proof) }];
    for bytes in &row.further {
        let carry = Carry::decode(Reader::new(bytes)).map_err(broken(0, "a step back"))?;
        let carried = carried_of(&carry.entry.entry).map_err(broken(0, "a step back"))?;
        if first > carried.version {
            break;
        }
        found.push(carry);
    }
    Ok(found)
}

fn carried_of(entry: &[u8]) -> Result<Carried, Malformed> {
    match Entry::decode(entry)?.kind {
        Kind::Carried(carried) => Ok(carried),
        _ => Err(Malformed::Missing(9)),
    }
}

/// Where a label's versions begin here: the chain before them, and the first.
pub(super) async fn beginning(log: &Log, label: &Label) -> Result<(Hash, u64), Error> {
    let row = row(log, label).await?;
    Ok(row.map_or((CHAIN_START, 1), |row| (row.chain.0, row.first)))
}

async fn row(log: &Log, label: &Label) -> Result<Option<CarriedRow>, Error> {
    if log.record().predecessor.is_none() {
        return Ok(None);
    }
    Ok(rows::find::<CarriedRow>(&**log.state(), &label.0).await?)
}

impl Sequencer {
    /// Ends this log: its last entry names the successor. May be called again
    /// with the same successor.
    ///
    /// # Errors
    /// [`Error::Foreign`] if the log was closed for another one.
    pub async fn close_for(&mut self, successor: &Closing<'_>) -> Result<(), Error> {
        self.round().await?;
        if self.tip().position.closed {
            let known = self.closing().await?;
            let same = Entry::decode(&known).is_ok_and(
                |entry| matches!(&entry.kind, Kind::Closing(closing) if closing == successor),
            );
            let what = "it was closed for another successor".to_owned();
            return if same { Ok(()) } else { Err(Error::Foreign { what }) };
        }
        let time = self.time_now()?;
        let entry = Entry::new(time, Kind::Closing(successor.clone())).encode();
        self.write(time, vec![entry.into()], Vec::new()).await
    }

    /// The closing entry of a closed log.
    async fn closing(&self) -> Result<Bytes, Error> {
        let index = self.tip().size().saturating_sub(2);
        let entry = self.log().reader().entry(index).await?;
        entry.ok_or_else(|| Error::broken(0, "the closing entry is missing"))
    }

    /// Carries all labels of a closed log over into this one, which is new and
    /// named as its successor. Goes on where an earlier call was cut off.
    /// `told` hears of each batch.
    ///
    /// # Errors
    /// The old log's index and map disagree; the stores; the clock.
    pub async fn carry_over(
        &mut self,
        old: &Log,
        told: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<(), Error> {
        let Some(carrying) = self.tip().position.carrying.clone() else {
            return Ok(()); // All are there, and the log has gone on.
        };
        let labels = carrying.labels();
        let mut done = carrying.done();
        told(Progress { done, labels });
        let mut source = Source::after(old, carrying.last());
        let end = old.reader().head().ok_or_else(|| Error::broken(0, "nothing is published"))?;
        while done < labels {
            let time = self.time_now()?;
            let (mut entries, mut records, mut bytes) = (Vec::new(), Vec::new(), 0);
            while entries.len() < BATCH && bytes < BATCH_BYTES {
                let Some(held) = source.next().await? else { break };
                let index = self.tip().size() + entries.len() as u64;
                let (carried, record) = self.carried(old, end.size, held, index).await?;
                let record = record.encode();
                bytes += record.len();
                records.push(record);
                entries.push(Entry::new(time, Kind::Carried(carried)).encode().into());
            }
            if entries.is_empty() {
                return Err(Error::broken(0, "the predecessor's index holds too few labels"));
            }
            done += entries.len() as u64;
            self.write(time, entries, records).await?;
            told(Progress { done, labels });
        }
        Ok(())
    }

    /// What becomes of one label of the old log, whose final size is `end`.
    async fn carried(
        &self,
        old: &Log,
        end: u64,
        held: Held,
        index: u64,
    ) -> Result<(Carried, Record), Error> {
        let same_key = old.vrf().public() == self.log().vrf().public();
        let (label, vrf_proof) = match (&held.name, held.holder) {
            (Some(Name::Address(address)), Holder::User) => {
                let (_, proof) = old.vrf().prove(&label::alpha(address));
                (Label::of_address(self.log().vrf(), address), Some(proof))
            }
            (_, Holder::User) if !same_key => (Label::of_erased(&held.label), None),
            _ => (held.label, None),
        };
        let further = match (row(old, &held.label).await?, &vrf_proof) {
            (Some(row), Some(_)) if held.first() <= row.version => {
                steps(old, &held.label, held.first(), end).await?
            }
            _ => Vec::new(),
        };
        let carried = Carried {
            label,
            holder: held.holder,
            version: held.version,
            current: held.current,
            chain: held.chain,
            predecessor_label: held.label,
        };
        let Held { name, before, versions, .. } = held;
        let record = Record { index, name, chain: before, versions, vrf_proof, further };
        Ok((carried, record))
    }

    /// The time of a batch that is written by hand.
    fn time_now(&self) -> Result<crate::dime::Timestamp, Error> {
        self.time().map_err(|blocked| Error::Foreign { what: blocked.to_string() })
    }
}

/// A label as the old log holds it.
struct Held {
    label: Label,
    name: Option<Name>,
    holder: Holder,
    version: u64,
    current: u64,
    chain: Hash,
    /// The chain before the first of `versions`.
    before: Hash,
    versions: Vec<Past>,
}

impl Held {
    fn first(&self) -> u64 {
        (self.version + 1).saturating_sub(self.versions.len() as u64)
    }
}

/// The labels of a log in ascending order, from its index, each compared with
/// its map.
struct Source<'a> {
    log: &'a Log,
    after: Option<Label>,
    /// Labels found and not yet read.
    found: VecDeque<Label>,
}

impl<'a> Source<'a> {
    fn after(log: &'a Log, after: Option<Label>) -> Source<'a> {
        Source { log, after, found: VecDeque::new() }
    }

    async fn next(&mut self) -> Result<Option<Held>, Error> {
        if self.found.is_empty() {
            self.find().await?;
        }
        let Some(label) = self.found.pop_front() else { return Ok(None) };
        self.held(label).await.map(Some)
    }

    /// The next labels that have places.
    async fn find(&mut self) -> Result<(), Error> {
        let mut from = self.after;
        while self.found.len() < PAGE {
            let mut range = Range::all();
            if let Some(label) = from {
                range = range.after(&rows::place_key(&label.0, u64::MAX));
            }
            let next: Vec<Place> = rows::scan(&**self.log.state(), range, 1).await?;
            let Some(place) = next.first() else { break };
            let label = Label(place.label.0);
            self.found.push_back(label);
            from = Some(label);
        }
        self.after = from;
        Ok(())
    }

    async fn held(&self, label: Label) -> Result<Held, Error> {
        let wrong = |what: &str| Error::broken(0, format!("the index and the map differ: {what}"));
        let state = &**self.log.state();
        let tip = self.log.directory().tip(&label).ok_or_else(|| wrong("a label"))?;
        let known: Option<Labelled> = rows::find(state, &label.0).await?;
        let (start, first) = beginning(self.log, &label).await?;
        let mut held = Held {
            label,
            name: known.map(|known| known.name),
            holder: tip.holder,
            version: tip.version,
            current: tip.current,
            chain: start,
            before: start,
            versions: Vec::new(),
        };
        let found = places(self.log, &label, first, tip.version).await;
        for place in found.map_err(|_| wrong("an entry"))? {
            held.chain = chain_next(&held.chain, &entry_leaf_hash(&place.entry));
            held.versions.push(past(state, place).await?);
        }
        if held.chain != tip.chain {
            return Err(wrong("a chain"));
        }
        held.shorten();
        Ok(held)
    }
}

impl Held {
    /// Leaves the oldest versions behind that do not fit, down to the one in force.
    fn shorten(&mut self) {
        let mut bytes: usize = self.versions.iter().map(Past::bytes).sum();
        let needed = if self.current == 0 { self.version } else { self.current };
        while bytes > MAX_RECORD / 2 && self.first() < needed {
            let past = self.versions.remove(0);
            bytes -= past.bytes();
            self.before = chain_next(&self.before, &entry_leaf_hash(&past.entry));
        }
    }
}

async fn past(state: &dyn crate::store::State, place: Place) -> Result<Past, Error> {
    let mut past = Past { entry: place.entry.into(), hidden: None, signet: None };
    if let Some(hidden) = place.hidden {
        if let Some(sha256) = hidden.signet {
            past.signet = rows::signet(state, &sha256).await?.map(Bytes::from);
        }
        past.hidden = Some((hidden.payload.into(), hidden.opening.0));
    }
    Ok(past)
}

/// What the new log says of the closed one, and keeps of it.
///
/// # Errors
/// The log is not closed, or not published up to its end.
pub async fn predecessor(old: &Log) -> Result<(Predecessor, Bytes), Error> {
    let foreign = |what: &str| Error::Foreign { what: what.to_owned() };
    let heads = old.heads();
    let head = heads.published.filter(|head| {
        heads.committed.as_ref().is_some_and(|committed| committed.size == head.size)
    });
    let head = head.ok_or_else(|| foreign("its last batch is not published"))?;
    let index = head.size.saturating_sub(2);
    let last = old.reader().entry(index).await?.unwrap_or_default();
    if !Entry::decode(&last).is_ok_and(|entry| matches!(entry.kind, Kind::Closing(_))) {
        return Err(foreign("it is not closed"));
    }
    // Without cosignatures, which need not fit into an entry.
    let key = keys::checkpoint(head.size);
    let note = old.store().public.get(&key, crate::proof::note::MAX_NOTE as u64).await?;
    let checkpoint = note.ok_or_else(|| foreign("its final checkpoint is missing"))?;
    let entry = old.reader().entry(0).await?.unwrap_or_default();
    let leaf = Leaf { entry, path: old.reader().inclusion(0, head.size).await? };
    let predecessor = Predecessor {
        origin: old.record().origin.clone(),
        log_key: old.record().log_key,
        checkpoint,
        directory_root: head.directory_root,
        labels: head.labels,
    };
    Ok((predecessor, encode_predecessor(&leaf)))
}

/// As it stands in a genesis entry.
impl Predecessor {
    pub(super) fn of_genesis(&self) -> entry::Predecessor<'_> {
        entry::Predecessor {
            origin: &self.origin,
            log_key: self.log_key,
            checkpoint: &self.checkpoint,
            directory_root: self.directory_root,
            labels: self.labels,
        }
    }
}
