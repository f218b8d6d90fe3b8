//! The leaves of the log: what each kind says, and its one encoding.
//!
//! Layout: `proto/syndicate/v1/log.proto`; every rule: `proto/README.md`. How an
//! observation becomes one: [`super::draft`]. Whether an entry fits the ones
//! before it is [`super::replay`]'s business.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

use super::label::Label;
use super::wire::{Field, Malformed, Reader, Writer};
use super::{Hash, vrf};
use crate::dime::{Dnssec, Domain, Rejection, Timestamp};

/// The `format` of the entries that this code writes and knows.
pub const FORMAT: u32 = 1;
/// The `hash_rules` of the genesis entry that this code knows.
pub const HASH_RULES: u32 = 1;
/// Longest entry, bytes.
pub const MAX_ENTRY: usize = 2048;
/// Longest origin, bytes (a checkpoint's origin line).
pub const MAX_ORIGIN: usize = 255;
/// Most POKs that an entry lists.
pub const MAX_POKS: usize = 16;
/// Longest signed checkpoint of a predecessor, bytes.
pub const MAX_PREDECESSOR_CHECKPOINT: usize = 1024;
/// Longest [`UserPayload`], bytes.
pub const MAX_PAYLOAD: usize = 256;
/// The three signatures of a user signet: fields 6, 253, 255.
pub const MAX_SIGNERS: usize = 3;

/// One leaf, borrowing from the bytes it was decoded from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// [`FORMAT`].
    pub format: u32,
    pub time: Timestamp,
    pub kind: Kind<'a>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind<'a> {
    Genesis(Genesis<'a>),
    Domain(DomainObservation<'a>),
    User(UserObservation),
    Forgotten(Forgotten),
    Root(DirectoryRoot),
    Closing(Closing<'a>),
    Carried(Carried),
}

/// Always and only leaf 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Genesis<'a> {
    pub origin: &'a str,
    pub log_key: [u8; 32],
    pub vrf_key: [u8; 32],
    pub predecessor: Option<Predecessor<'a>>,
}

/// The log that this one takes over from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Predecessor<'a> {
    pub origin: &'a str,
    pub log_key: [u8; 32],
    /// Its final signed checkpoint, a note.
    pub checkpoint: &'a [u8],
    /// Of its final map, which the entries behind the genesis entry carry over.
    pub directory_root: Hash,
    /// Labels in that map.
    pub labels: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainObservation<'a> {
    /// Normalized, see [`Domain`].
    pub domain: &'a str,
    pub version: u64,
    /// The version in force after this entry, 0 for none.
    pub current: u64,
    pub poks: Poks<'a>,
    pub dnssec: Dnssec,
    /// Text of the management record.
    pub record: Option<Blob>,
    /// Bytes as received.
    pub org_signet: Option<Blob>,
    pub dnssec_chain: Option<Blob>,
    pub events: Events,
    pub held_until: Option<Timestamp>,
    pub coalesced: Option<Coalesced>,
}

/// Strangers' bytes, by name only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blob {
    pub sha256: Hash,
    /// Bytes, not 0.
    pub length: u64,
}

impl Blob {
    pub fn of(bytes: &[u8]) -> Blob {
        Blob { sha256: Sha256::digest(bytes).into(), length: bytes.len() as u64 }
    }

    /// Whether these are the bytes that it names.
    pub fn names(&self, bytes: &[u8]) -> bool {
        *self == Blob::of(bytes)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserObservation {
    pub label: Label,
    pub version: u64,
    /// The version in force after this entry, 0 for none.
    pub current: u64,
    /// See [`commitment`](super::label::commitment).
    pub commitment: Hash,
    pub events: Events,
    pub held_until: Option<Timestamp>,
    pub coalesced: Option<Coalesced>,
}

/// States that a quota kept out of the log since the label's last entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coalesced {
    /// How many, not 0.
    pub count: u64,
    /// `h_0` = 32 zero bytes, `h_n = SHA-256(h_(n-1) || SHA-256(state n))`.
    pub running_hash: Hash,
}

/// The name's payloads before this version are gone for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forgotten {
    pub label: Label,
    pub version: u64,
}

/// Closes every batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectoryRoot {
    /// Of the map over all entries before this one.
    pub root: Hash,
    /// Labels in that map.
    pub labels: u64,
    /// Entries before this one: its own index.
    pub covered: u64,
}

/// At most one, followed only by its directory root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closing<'a> {
    /// The successor's.
    pub origin: &'a str,
    pub log_key: [u8; 32],
    pub vrf_key: [u8; 32],
}

/// A label of the predecessor, as its final map holds it. All of them stand
/// behind the genesis entry, before anything else about a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carried {
    /// In this log.
    pub label: Label,
    pub holder: Holder,
    /// Of the predecessor's newest entry about it; the next one here is one more.
    pub version: u64,
    /// The version in force, 0 for none.
    pub current: u64,
    /// The chain value of `version`.
    pub chain: Hash,
    /// In the predecessor. Another one than `label` only for a mailbox, and
    /// when the VRF key is another.
    pub predecessor_label: Label,
}

/// Up to 16 POKs, ascending, each once: a list, or the fields of an entry.
#[derive(Clone, Copy)]
pub struct Poks<'a>(PokSource<'a>);

#[derive(Clone, Copy)]
enum PokSource<'a> {
    List(&'a [[u8; 32]]),
    /// Whole fields: tag, length, 32 bytes.
    Fields(&'a [u8]),
}

/// Tag (field 4, delimited) and length byte before each POK of an entry.
const POK_HEADER: usize = 2;

impl<'a> Poks<'a> {
    /// Sort and deduplicate first: [`Entry::decode`] refuses other orders.
    pub fn new(list: &'a [[u8; 32]]) -> Poks<'a> {
        Poks(PokSource::List(list))
    }

    pub fn iter(&self) -> impl Iterator<Item = &'a [u8; 32]> + use<'a> {
        let (list, fields): (&[[u8; 32]], &[u8]) = match self.0 {
            PokSource::List(list) => (list, &[]),
            PokSource::Fields(fields) => (&[], fields),
        };
        let decoded = fields
            .chunks_exact(POK_HEADER + 32)
            .filter_map(|field| field.get(POK_HEADER..).and_then(|pok| pok.try_into().ok()));
        list.iter().chain(decoded)
    }

    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    pub fn contains(&self, pok: &[u8; 32]) -> bool {
        self.iter().any(|candidate| candidate == pok)
    }

    pub fn to_vec(&self) -> Vec<[u8; 32]> {
        self.iter().copied().collect()
    }
}

impl PartialEq for Poks<'_> {
    fn eq(&self, other: &Poks<'_>) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Poks<'_> {}

impl fmt::Debug for Poks<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(hex::encode)).finish()
    }
}

/// What changed. Numbers as in `log.proto`; names as in the design.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Event {
    FirstSeen = 1,
    Rotated = 2,
    Resigned = 3,
    Reissued = 4,
    Gap = 5,
    Restarted = 6,
    Forked = 7,
    Reverted = 8,
    Withdrawn = 9,
    PokAdded = 20,
    PokRemoved = 21,
    PokReplaced = 22,
    OrgSignetChanged = 23,
    RecordChanged = 24,
    RecordWithdrawn = 25,
    RecordExpired = 26,
    DnssecGained = 27,
    DnssecLost = 28,
    DnssecBogus = 29,
    NameConflict = 30,
}

impl Event {
    pub const ALL: [Event; 20] = [
        Event::FirstSeen,
        Event::Rotated,
        Event::Resigned,
        Event::Reissued,
        Event::Gap,
        Event::Restarted,
        Event::Forked,
        Event::Reverted,
        Event::Withdrawn,
        Event::PokAdded,
        Event::PokRemoved,
        Event::PokReplaced,
        Event::OrgSignetChanged,
        Event::RecordChanged,
        Event::RecordWithdrawn,
        Event::RecordExpired,
        Event::DnssecGained,
        Event::DnssecLost,
        Event::DnssecBogus,
        Event::NameConflict,
    ];

    pub fn number(self) -> u32 {
        self as u32
    }

    pub fn from_number(number: u64) -> Option<Event> {
        Event::ALL.into_iter().find(|event| u64::from(event.number()) == number)
    }

    pub fn name(self) -> &'static str {
        match self {
            Event::FirstSeen => "FIRST_SEEN",
            Event::Rotated => "ROTATED",
            Event::Resigned => "RESIGNED",
            Event::Reissued => "REISSUED",
            Event::Gap => "GAP",
            Event::Restarted => "RESTARTED",
            Event::Forked => "FORKED",
            Event::Reverted => "REVERTED",
            Event::Withdrawn => "WITHDRAWN",
            Event::PokAdded => "POK_ADDED",
            Event::PokRemoved => "POK_REMOVED",
            Event::PokReplaced => "POK_REPLACED",
            Event::OrgSignetChanged => "ORG_SIGNET_CHANGED",
            Event::RecordChanged => "RECORD_CHANGED",
            Event::RecordWithdrawn => "RECORD_WITHDRAWN",
            Event::RecordExpired => "RECORD_EXPIRED",
            Event::DnssecGained => "DNSSEC_GAINED",
            Event::DnssecLost => "DNSSEC_LOST",
            Event::DnssecBogus => "DNSSEC_BOGUS",
            Event::NameConflict => "NAME_CONFLICT",
        }
    }

    /// Whether the event puts a name on hold by default (design §3).
    pub fn holds(self) -> bool {
        HOLDING.contains(self)
    }

    /// Whether somebody should look: never coalesced away (threat 19), named in
    /// a verdict.
    pub fn is_alarm(self) -> bool {
        ALARMS.contains(self)
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Event {
    type Err = Rejection;

    fn from_str(text: &str) -> Result<Event, Rejection> {
        Event::ALL
            .into_iter()
            .find(|event| event.name() == text)
            .ok_or_else(|| Rejection::new("event", "no event has this name"))
    }
}

/// A set of events; ascending by number when iterated.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Events(u32);

const HOLDING: Events =
    Events::of(&[Event::Restarted, Event::Gap, Event::Forked, Event::PokReplaced]);
const ALARMS: Events = Events::of(&[
    Event::Restarted,
    Event::Gap,
    Event::Forked,
    Event::Reverted,
    Event::Withdrawn,
    Event::PokReplaced,
    Event::RecordWithdrawn,
    Event::RecordExpired,
    Event::DnssecLost,
    Event::DnssecBogus,
    Event::NameConflict,
]);
/// Events of a mailbox whose content is in force afterwards.
const USER_CHANGES: Events = Events::of(&[
    Event::FirstSeen,
    Event::Rotated,
    Event::Resigned,
    Event::Reissued,
    Event::Gap,
    Event::Restarted,
]);
/// Events of a mailbox that leave in force what was.
const USER_KEEPS: Events = Events::of(&[Event::Forked, Event::Reverted, Event::Withdrawn]);
/// Events of a domain whose content is in force afterwards.
const DOMAIN_CHANGES: Events = Events::of(&[
    Event::FirstSeen,
    Event::PokAdded,
    Event::PokRemoved,
    Event::PokReplaced,
    Event::OrgSignetChanged,
    Event::RecordChanged,
    Event::NameConflict,
]);
/// Events of a domain that leave in force what was.
const DOMAIN_KEEPS: Events = Events::of(&[Event::RecordWithdrawn, Event::DnssecBogus]);
/// Events of a domain that go with any other.
const DOMAIN_NEUTRAL: Events = Events::of(&[Event::DnssecGained, Event::DnssecLost]);

impl Events {
    pub const EMPTY: Events = Events(0);

    pub const fn of(list: &[Event]) -> Events {
        let mut bits = 0;
        let mut i = 0;
        while i < list.len() {
            bits |= 1 << list[i] as u32;
            i += 1;
        }
        Events(bits)
    }

    pub const fn contains(self, event: Event) -> bool {
        self.0 >> event as u32 & 1 == 1
    }

    pub fn insert(&mut self, event: Event) {
        self.0 |= 1 << event.number();
    }

    pub const fn union(self, other: Events) -> Events {
        Events(self.0 | other.0)
    }

    pub const fn intersects(self, other: Events) -> bool {
        self.0 & other.0 != 0
    }

    pub const fn without(self, other: Events) -> Events {
        Events(self.0 & !other.0)
    }

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn iter(self) -> impl Iterator<Item = Event> {
        Event::ALL.into_iter().filter(move |event| self.contains(*event))
    }

    /// Those of [`Event::is_alarm`].
    pub fn alarms(self) -> Events {
        Events(self.0 & ALARMS.0)
    }

    /// Whether any of them puts the name on hold.
    pub fn hold(self) -> bool {
        self.intersects(HOLDING)
    }
}

impl FromIterator<Event> for Events {
    fn from_iter<I: IntoIterator<Item = Event>>(events: I) -> Events {
        events.into_iter().fold(Events::EMPTY, |mut all, event| {
            all.insert(event);
            all
        })
    }
}

impl From<Event> for Events {
    fn from(event: Event) -> Events {
        Events::of(&[event])
    }
}

/// `FIRST_SEEN, NAME_CONFLICT`.
impl fmt::Display for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, event) in self.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            f.write_str(event.name())?;
        }
        Ok(())
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{self}]")
    }
}

/// Whose label it is. A label never changes sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Holder {
    Domain,
    User,
}

/// Why events cannot stand together, or not here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    #[error("an observation without an event")]
    NoEvent,
    #[error("an event of a domain on a mailbox, or the other way round")]
    OtherHolder,
    #[error("events that change what is in force beside events that do not")]
    Mixed,
    #[error("FIRST_SEEN where something is in force, or not where it must stand")]
    FirstSeen,
    #[error("an event about what is in force, and nothing is")]
    NothingInForce,
    #[error("nothing came before that could be forgotten")]
    NothingToForget,
}

/// The version in force after an entry (threat 7): `version` itself for a
/// change, `before` for what leaves things as they are, 0 for RECORD_EXPIRED.
///
/// `before` is the `current` of the label's last entry, 0 if there is none or
/// nothing was in force.
pub fn current_after(
    holder: Holder,
    events: Events,
    version: u64,
    before: u64,
) -> Result<u64, Misfit> {
    if events.is_empty() {
        return Err(Misfit::NoEvent);
    }
    let first = events.contains(Event::FirstSeen);
    if first && before != 0 {
        return Err(Misfit::FirstSeen);
    }
    match holder {
        Holder::User => {
            if !events.without(USER_CHANGES.union(USER_KEEPS)).is_empty() {
                return Err(Misfit::OtherHolder);
            }
            if !events.intersects(USER_KEEPS) {
                // With nothing in force there is nothing to rotate or restart.
                return if before == 0 && !first { Err(Misfit::FirstSeen) } else { Ok(version) };
            }
            if events.intersects(USER_CHANGES) {
                return Err(Misfit::Mixed);
            }
            if before == 0 { Err(Misfit::NothingInForce) } else { Ok(before) }
        }
        Holder::Domain => {
            let expired = Events::from(Event::RecordExpired);
            let known = DOMAIN_CHANGES.union(DOMAIN_KEEPS).union(DOMAIN_NEUTRAL).union(expired);
            if !events.without(known).is_empty() {
                return Err(Misfit::OtherHolder);
            }
            let changes = events.intersects(DOMAIN_CHANGES);
            if events.intersects(expired) {
                return match (changes, before) {
                    (true, _) => Err(Misfit::Mixed),
                    (false, 0) => Err(Misfit::NothingInForce),
                    (false, _) => Ok(0),
                };
            }
            if events.intersects(DOMAIN_KEEPS) {
                return if changes { Err(Misfit::Mixed) } else { Ok(before) };
            }
            // A domain that comes back after RECORD_EXPIRED may be told by what
            // changed since it was last in force, so only version 1 must be first.
            if version == 1 && !first { Err(Misfit::FirstSeen) } else { Ok(version) }
        }
    }
}

impl<'a> Entry<'a> {
    /// An entry of this code's format.
    pub fn new(time: Timestamp, kind: Kind<'a>) -> Entry<'a> {
        Entry { format: FORMAT, time, kind }
    }

    /// Refuses anything but the one encoding of an entry of [`FORMAT`], at most
    /// [`MAX_ENTRY`] bytes, and whatever is wrong with it by itself.
    pub fn decode(bytes: &'a [u8]) -> Result<Entry<'a>, Malformed> {
        let mut reader = Reader::limited(bytes, MAX_ENTRY)?;
        let format = reader.uint32(1)?;
        if format != FORMAT {
            return Err(Malformed::Value(1, "this format is not known"));
        }
        let time = Timestamp::from_millis(reader.required_uint(2)?);
        let kind = if let Some(message) = reader.message(3)? {
            Kind::Genesis(Genesis::decode(message)?)
        } else if let Some(message) = reader.message(4)? {
            Kind::Domain(DomainObservation::decode(message, time)?)
        } else if let Some(message) = reader.message(5)? {
            Kind::User(UserObservation::decode(message, time)?)
        } else if let Some(message) = reader.message(6)? {
            Kind::Forgotten(Forgotten::decode(message)?)
        } else if let Some(message) = reader.message(7)? {
            Kind::Root(DirectoryRoot::decode(message)?)
        } else if let Some(message) = reader.message(8)? {
            Kind::Closing(Closing::decode(message)?)
        } else if let Some(message) = reader.message(9)? {
            Kind::Carried(Carried::decode(message)?)
        } else {
            reader.end()?;
            return Err(Malformed::Missing(3));
        };
        reader.end()?;
        Ok(Entry { format, time, kind })
    }

    /// The one encoding. It decodes again if the fields keep their rules.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::with_capacity(256);
        writer.uint(1, u64::from(self.format)).uint(2, self.time.millis());
        match &self.kind {
            Kind::Genesis(genesis) => writer.message(3, |w| genesis.encode(w)),
            Kind::Domain(domain) => writer.message(4, |w| domain.encode(w)),
            Kind::User(user) => writer.message(5, |w| user.encode(w)),
            Kind::Forgotten(forgotten) => writer.message(6, |w| forgotten.encode(w)),
            Kind::Root(root) => writer.message(7, |w| root.encode(w)),
            Kind::Closing(closing) => writer.message(8, |w| closing.encode(w)),
            Kind::Carried(carried) => writer.message(9, |w| carried.encode(w)),
        };
        writer.finish()
    }
}

/// The format number alone: what is asked first of an entry.
pub fn format_of(bytes: &[u8]) -> Result<u32, Malformed> {
    Reader::limited(bytes, MAX_ENTRY)?.uint32(1)
}

/// What later formats promise to keep, so that a replayer that does not know
/// one can still follow the map: the envelope, in kinds 4, 5 and 6 the fields
/// for label, version and `current`, and the whole of kind 7.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outline {
    pub time: Timestamp,
    pub kind: OutlineKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutlineKind {
    Moves { label: Label, holder: Holder, version: u64, current: u64 },
    Root(DirectoryRoot),
    Other,
}

/// Reads an entry of a format that this code does not know: exactly one
/// message stands behind `format` and `time`.
pub fn outline(bytes: &[u8]) -> Result<Outline, Malformed> {
    let mut reader = Reader::limited(bytes, MAX_ENTRY)?;
    reader.uint32(1)?;
    let time = Timestamp::from_millis(reader.required_uint(2)?);
    let (field, Field::Bytes(message)) = reader.any()?.ok_or(Malformed::Missing(3))? else {
        return Err(Malformed::Missing(3));
    };
    reader.end()?;
    let mut inner = Reader::new(message);
    let (label, holder) = match field {
        0..=2 => return Err(Malformed::Misplaced(field)),
        4 => {
            let domain = inner.text(1, crate::dime::MAX_DOMAIN)?;
            (Label::of_domain_text(domain), Holder::Domain)
        }
        5 | 6 => (Label(inner.hash(1)?), Holder::User),
        7 => {
            let root = DirectoryRoot::decode(inner)?;
            return Ok(Outline { time, kind: OutlineKind::Root(root) });
        }
        _ => return Ok(Outline { time, kind: OutlineKind::Other }),
    };
    let version = inner.required_uint(2)?;
    let current = if field == 6 { 0 } else { inner.uint(3)? };
    Ok(Outline { time, kind: OutlineKind::Moves { label, holder, version, current } })
}

impl<'a> Genesis<'a> {
    fn decode(mut reader: Reader<'a>) -> Result<Genesis<'a>, Malformed> {
        let origin = origin(&mut reader, 1)?;
        let log_key = signing_key(&mut reader, 2)?;
        let vrf_key = vrf_key(&mut reader, 3)?;
        if reader.required_uint(4)? != u64::from(HASH_RULES) {
            return Err(Malformed::Value(4, "these hash rules are not known"));
        }
        let predecessor = reader.message(5)?.map(Predecessor::decode).transpose()?;
        reader.end()?;
        vrf::check_key(&vrf_key).map_err(|_| Malformed::Value(3, "it is not a key for the VRF"))?;
        Ok(Genesis { origin, log_key, vrf_key, predecessor })
    }

    fn encode(&self, writer: &mut Writer) {
        writer
            .bytes(1, self.origin.as_bytes())
            .bytes(2, &self.log_key)
            .bytes(3, &self.vrf_key)
            .uint(4, u64::from(HASH_RULES));
        if let Some(predecessor) = &self.predecessor {
            writer.message(5, |w| {
                w.bytes(1, predecessor.origin.as_bytes())
                    .bytes(2, &predecessor.log_key)
                    .bytes(3, predecessor.checkpoint)
                    .bytes(4, &predecessor.directory_root)
                    .uint(5, predecessor.labels);
            });
        }
    }
}

impl<'a> Predecessor<'a> {
    fn decode(mut reader: Reader<'a>) -> Result<Predecessor<'a>, Malformed> {
        let origin = origin(&mut reader, 1)?;
        let log_key = signing_key(&mut reader, 2)?;
        let checkpoint = reader.bytes(3)?;
        if checkpoint.is_empty() {
            return Err(Malformed::Missing(3));
        }
        if checkpoint.len() > MAX_PREDECESSOR_CHECKPOINT {
            return Err(Malformed::Length(3));
        }
        let directory_root = reader.hash(4)?;
        let labels = reader.uint(5)?;
        reader.end()?;
        Ok(Predecessor { origin, log_key, checkpoint, directory_root, labels })
    }
}

impl<'a> DomainObservation<'a> {
    fn decode(mut reader: Reader<'a>, time: Timestamp) -> Result<Self, Malformed> {
        let domain = reader.text(1, crate::dime::MAX_DOMAIN)?;
        if domain.parse::<Domain>().map_or(true, |parsed| parsed.as_str() != domain) {
            return Err(Malformed::Value(1, "it is not a normalized domain name"));
        }
        let version = reader.required_uint(2)?;
        let current = reader.uint(3)?;
        let poks = poks(&mut reader, 4)?;
        let dnssec = dnssec_from_number(reader.required_uint(5)?)
            .ok_or(Malformed::Value(5, "there is no such status"))?;
        let record = blob(&mut reader, 6)?;
        let org_signet = blob(&mut reader, 7)?;
        let dnssec_chain = blob(&mut reader, 8)?;
        let events = events(&mut reader, 9)?;
        let held_until = held_until(&mut reader, 10, time)?;
        let coalesced = coalesced(&mut reader, 11)?;
        reader.end()?;
        let observation = DomainObservation {
            domain,
            version,
            current,
            poks,
            dnssec,
            record,
            org_signet,
            dnssec_chain,
            events,
            held_until,
            coalesced,
        };
        observation.check()?;
        Ok(observation)
    }

    /// What must be there for what is said (threats 7 and 15).
    fn check(&self) -> Result<(), Malformed> {
        if self.current > self.version {
            return Err(Malformed::Value(3, "a version that is not yet there"));
        }
        if self.current == self.version && (self.record.is_none() || self.poks.is_empty()) {
            return Err(Malformed::Value(3, "in force without a record and a POK"));
        }
        let proved = matches!(self.dnssec, Dnssec::Secure | Dnssec::Insecure);
        if proved && self.dnssec_chain.is_none() {
            return Err(Malformed::Value(8, "secure or insecure without the chain that proves it"));
        }
        let bogus = self.dnssec == Dnssec::Bogus;
        if bogus != self.events.contains(Event::DnssecBogus) {
            return Err(Malformed::Value(9, "DNSSEC_BOGUS and the status differ"));
        }
        if self.events.contains(Event::DnssecGained) && self.dnssec != Dnssec::Secure
            || self.events.contains(Event::DnssecLost) && self.dnssec == Dnssec::Secure
        {
            return Err(Malformed::Value(9, "DNSSEC_GAINED or DNSSEC_LOST and the status differ"));
        }
        Ok(())
    }

    fn encode(&self, writer: &mut Writer) {
        writer.bytes(1, self.domain.as_bytes()).uint(2, self.version).uint(3, self.current);
        for pok in self.poks.iter() {
            writer.delimited(4, pok);
        }
        writer.uint(5, dnssec_number(self.dnssec));
        put_blob(writer, 6, &self.record);
        put_blob(writer, 7, &self.org_signet);
        put_blob(writer, 8, &self.dnssec_chain);
        put_tail(writer, 9, self.events, self.held_until, &self.coalesced);
    }
}

impl UserObservation {
    fn decode(mut reader: Reader<'_>, time: Timestamp) -> Result<UserObservation, Malformed> {
        let label = Label(reader.hash(1)?);
        let version = reader.required_uint(2)?;
        let current = reader.uint(3)?;
        if current > version {
            return Err(Malformed::Value(3, "a version that is not yet there"));
        }
        let commitment = reader.hash(4)?;
        let events = events(&mut reader, 5)?;
        let held_until = held_until(&mut reader, 6, time)?;
        let coalesced = coalesced(&mut reader, 7)?;
        reader.end()?;
        Ok(UserObservation { label, version, current, commitment, events, held_until, coalesced })
    }

    fn encode(&self, writer: &mut Writer) {
        writer
            .bytes(1, &self.label.0)
            .uint(2, self.version)
            .uint(3, self.current)
            .bytes(4, &self.commitment);
        put_tail(writer, 5, self.events, self.held_until, &self.coalesced);
    }
}

impl Forgotten {
    fn decode(mut reader: Reader<'_>) -> Result<Forgotten, Malformed> {
        let label = Label(reader.hash(1)?);
        let version = reader.required_uint(2)?;
        reader.end()?;
        Ok(Forgotten { label, version })
    }

    fn encode(&self, writer: &mut Writer) {
        writer.bytes(1, &self.label.0).uint(2, self.version);
    }
}

impl DirectoryRoot {
    fn decode(mut reader: Reader<'_>) -> Result<DirectoryRoot, Malformed> {
        let root = reader.hash(1)?;
        let labels = reader.uint(2)?;
        let covered = reader.required_uint(3)?;
        reader.end()?;
        Ok(DirectoryRoot { root, labels, covered })
    }

    fn encode(&self, writer: &mut Writer) {
        writer.bytes(1, &self.root).uint(2, self.labels).uint(3, self.covered);
    }
}

impl<'a> Closing<'a> {
    fn decode(mut reader: Reader<'a>) -> Result<Closing<'a>, Malformed> {
        let origin = origin(&mut reader, 1)?;
        let log_key = signing_key(&mut reader, 2)?;
        let vrf_key = vrf_key(&mut reader, 3)?;
        reader.end()?;
        Ok(Closing { origin, log_key, vrf_key })
    }

    fn encode(&self, writer: &mut Writer) {
        writer.bytes(1, self.origin.as_bytes()).bytes(2, &self.log_key).bytes(3, &self.vrf_key);
    }
}

impl Carried {
    fn decode(mut reader: Reader<'_>) -> Result<Carried, Malformed> {
        let label = Label(reader.hash(1)?);
        let version = reader.required_uint(2)?;
        let current = reader.uint(3)?;
        if current > version {
            return Err(Malformed::Value(3, "a version that is not yet there"));
        }
        let chain = reader.hash(4)?;
        let holder = match reader.required_uint(5)? {
            1 => Holder::Domain,
            2 => Holder::User,
            _ => return Err(Malformed::Value(5, "there is no such holder")),
        };
        let predecessor_label = match reader.array(6)? {
            None => label,
            Some(other) if other != label.0 && holder == Holder::User => Label(other),
            Some(_) => return Err(Malformed::Value(6, "the same label, or that of a domain")),
        };
        reader.end()?;
        Ok(Carried { label, holder, version, current, chain, predecessor_label })
    }

    fn encode(&self, writer: &mut Writer) {
        writer
            .bytes(1, &self.label.0)
            .uint(2, self.version)
            .uint(3, self.current)
            .bytes(4, &self.chain)
            .uint(5, if self.holder == Holder::Domain { 1 } else { 2 });
        if self.predecessor_label != self.label {
            writer.bytes(6, &self.predecessor_label.0);
        }
    }
}

/// What fits the first line of a checkpoint and a key name: 1 to 255 bytes of
/// UTF-8 without white space, control characters and `+`.
pub fn is_origin(text: &str) -> bool {
    (1..=MAX_ORIGIN).contains(&text.len())
        && !text.chars().any(|c| c.is_whitespace() || c.is_control() || c == '+')
}

fn origin<'a>(reader: &mut Reader<'a>, field: u32) -> Result<&'a str, Malformed> {
    let text = reader.text(field, MAX_ORIGIN)?;
    if is_origin(text) { Ok(text) } else { Err(Malformed::Value(field, "it is not an origin")) }
}

/// An Ed25519 key that can verify: canonical, not of small order.
fn signing_key(reader: &mut Reader<'_>, field: u32) -> Result<[u8; 32], Malformed> {
    let key = reader.hash(field)?;
    let fault = Malformed::Value(field, "it is not a usable Ed25519 key");
    crate::dime::ed25519::check_key(&key).map(|()| key).map_err(|_| fault)
}

fn vrf_key(reader: &mut Reader<'_>, field: u32) -> Result<[u8; 32], Malformed> {
    let key = reader.hash(field)?;
    let fault = Malformed::Value(field, "it is not a usable key for the VRF");
    vrf::check_key(&key).map(|()| key).map_err(|_| fault)
}

fn poks<'a>(reader: &mut Reader<'a>, field: u32) -> Result<Poks<'a>, Malformed> {
    let start = reader.rest();
    let mut last: Option<&[u8]> = None;
    let mut count = 0;
    while let Some(pok) = reader.delimited(field)? {
        if pok.len() != 32 {
            return Err(Malformed::Length(field));
        }
        if last.is_some_and(|last| last >= pok) {
            return Err(Malformed::Value(field, "they do not ascend"));
        }
        last = Some(pok);
        count += 1;
    }
    if count > MAX_POKS {
        return Err(Malformed::Value(field, "more than 16"));
    }
    let read = start.len() - reader.rest().len();
    Ok(Poks(PokSource::Fields(start.get(..read).unwrap_or_default())))
}

fn blob(reader: &mut Reader<'_>, field: u32) -> Result<Option<Blob>, Malformed> {
    let Some(mut message) = reader.message(field)? else { return Ok(None) };
    let sha256 = message.hash(1)?;
    let length = message.required_uint(2)?;
    message.end()?;
    Ok(Some(Blob { sha256, length }))
}

fn put_blob(writer: &mut Writer, field: u32, blob: &Option<Blob>) {
    if let Some(blob) = blob {
        writer.message(field, |w| {
            w.bytes(1, &blob.sha256).uint(2, blob.length);
        });
    }
}

fn events(reader: &mut Reader<'_>, field: u32) -> Result<Events, Malformed> {
    let mut events = Events::EMPTY;
    let mut last = 0;
    reader.packed(field, |number| {
        if number <= last {
            return Err(Malformed::Value(field, "they do not ascend"));
        }
        last = number;
        let event =
            Event::from_number(number).ok_or(Malformed::Value(field, "there is no such event"))?;
        events.insert(event);
        Ok(())
    })?;
    if events.is_empty() { Err(Malformed::Missing(field)) } else { Ok(events) }
}

fn held_until(
    reader: &mut Reader<'_>,
    field: u32,
    time: Timestamp,
) -> Result<Option<Timestamp>, Malformed> {
    match reader.uint(field)? {
        0 => Ok(None),
        until if until <= time.millis() => {
            Err(Malformed::Value(field, "held until a time that is past"))
        }
        until => Ok(Some(Timestamp::from_millis(until))),
    }
}

fn coalesced(reader: &mut Reader<'_>, field: u32) -> Result<Option<Coalesced>, Malformed> {
    let Some(mut message) = reader.message(field)? else { return Ok(None) };
    let count = message.required_uint(1)?;
    let running_hash = message.hash(2)?;
    message.end()?;
    Ok(Some(Coalesced { count, running_hash }))
}

/// The last three fields of both observations.
fn put_tail(
    writer: &mut Writer,
    first_field: u32,
    events: Events,
    held_until: Option<Timestamp>,
    coalesced: &Option<Coalesced>,
) {
    writer
        .packed(first_field, events.iter().map(|event| u64::from(event.number())))
        .uint(first_field + 1, held_until.map_or(0, Timestamp::millis));
    if let Some(coalesced) = coalesced {
        writer.message(first_field + 2, |w| {
            w.uint(1, coalesced.count).bytes(2, &coalesced.running_hash);
        });
    }
}

fn dnssec_number(dnssec: Dnssec) -> u64 {
    match dnssec {
        Dnssec::Secure => 1,
        Dnssec::Insecure => 2,
        Dnssec::Bogus => 3,
        Dnssec::Indeterminate => 4,
    }
}

fn dnssec_from_number(number: u64) -> Option<Dnssec> {
    match number {
        1 => Some(Dnssec::Secure),
        2 => Some(Dnssec::Insecure),
        3 => Some(Dnssec::Bogus),
        4 => Some(Dnssec::Indeterminate),
        _ => None,
    }
}

/// How far a user signet is signed: the states of the reference, §3.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    Crypto = 7,
    Full = 8,
    /// The organization's own signature binds key to name.
    Id = 9,
}

impl Level {
    fn from_number(number: u64) -> Option<Level> {
        [Level::Crypto, Level::Full, Level::Id].into_iter().find(|l| *l as u64 == number)
    }

    /// `None` below the crypto level, where a signet is not yet signed.
    pub fn of(level: crate::dime::signet::Level) -> Option<Level> {
        use crate::dime::signet::Level as Dime;
        match level {
            Dime::Incomplete | Dime::Ssr => None,
            Dime::Crypto => Some(Level::Crypto),
            Dime::Full => Some(Level::Full),
            Dime::Id => Some(Level::Id),
        }
    }

    /// Signatures by the organization that a signet of this level carries.
    pub fn signatures(self) -> usize {
        match self {
            Level::Crypto => 1,
            Level::Full => 2,
            Level::Id => 3,
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Level::Crypto => "crypto",
            Level::Full => "full",
            Level::Id => "id",
        })
    }
}

/// The hidden part of a user observation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserPayload {
    /// Absent for an observation of absence.
    pub signet: Option<SignetFacts>,
    /// When it was received; testimony.
    pub observed: Timestamp,
    /// The version of the domain's entry it was validated under, not 0.
    pub domain_version: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignetFacts {
    /// Of the whole object as received.
    pub sha256: Hash,
    /// Of the body up to and with the crypto signature.
    pub crypto_sha256: Hash,
    pub level: Level,
    /// For fields 6, 253, 255 as present: 0 the POK, n the n-th SOK.
    pub signers: Vec<u32>,
}

impl UserPayload {
    pub fn decode(bytes: &[u8]) -> Result<UserPayload, Malformed> {
        let mut reader = Reader::limited(bytes, MAX_PAYLOAD)?;
        let sha256 = reader.array(1)?;
        let crypto_sha256 = reader.array(2)?;
        let level = match reader.uint(3)? {
            0 => None,
            number => Some(
                Level::from_number(number).ok_or(Malformed::Value(3, "there is no such level"))?,
            ),
        };
        let mut signers = Vec::new();
        reader.packed(4, |signer| {
            let signer = u32::try_from(signer)
                .map_err(|_| Malformed::Value(4, "it does not fit into 32 bits"))?;
            if signers.len() == MAX_SIGNERS {
                return Err(Malformed::Length(4));
            }
            signers.push(signer);
            Ok(())
        })?;
        let observed = Timestamp::from_millis(reader.required_uint(5)?);
        let domain_version = reader.required_uint(6)?;
        reader.end()?;
        let signet = match (sha256, crypto_sha256, level) {
            (Some(sha256), Some(crypto_sha256), Some(level)) => {
                if signers.len() != level.signatures() {
                    return Err(Malformed::Value(4, "not one for each signature of this level"));
                }
                Some(SignetFacts { sha256, crypto_sha256, level, signers })
            }
            (None, None, None) if signers.is_empty() => None,
            _ => return Err(Malformed::Value(1, "the fields of a signet are not all there")),
        };
        Ok(UserPayload { signet, observed, domain_version })
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::with_capacity(128);
        if let Some(signet) = &self.signet {
            writer
                .bytes(1, &signet.sha256)
                .bytes(2, &signet.crypto_sha256)
                .uint(3, signet.level as u64)
                .packed(4, signet.signers.iter().map(|&signer| u64::from(signer)));
        }
        writer.uint(5, self.observed.millis()).uint(6, self.domain_version);
        writer.finish()
    }
}

/// The next value of [`Coalesced::running_hash`].
pub fn coalesce(running_hash: &Hash, state_sha256: &Hash) -> Hash {
    Sha256::new().chain_update(running_hash).chain_update(state_sha256).finalize().into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const T: Timestamp = Timestamp::from_millis(1_795_449_843_123);

    fn key() -> vrf::SecretKey {
        vrf::SecretKey::from_seed(&[9; 32])
    }

    #[test]
    fn events_decide_what_is_in_force() {
        use Event::*;
        let user =
            |list: &[Event], before| current_after(Holder::User, Events::of(list), 7, before);
        let domain =
            |list: &[Event], before| current_after(Holder::Domain, Events::of(list), 7, before);
        for change in [Rotated, Resigned, Reissued, Gap, Restarted] {
            assert_eq!(user(&[change], 6), Ok(7));
            assert_eq!(user(&[change], 0), Err(Misfit::FirstSeen));
        }
        for keep in [Forked, Reverted, Withdrawn] {
            assert_eq!(user(&[keep], 4), Ok(4));
            assert_eq!(user(&[keep], 0), Err(Misfit::NothingInForce));
            assert_eq!(user(&[keep, Rotated], 4), Err(Misfit::Mixed));
        }
        assert_eq!(user(&[FirstSeen], 0), Ok(7));
        assert_eq!(user(&[FirstSeen], 6), Err(Misfit::FirstSeen));
        assert_eq!(user(&[], 6), Err(Misfit::NoEvent));
        assert_eq!(user(&[PokAdded], 6), Err(Misfit::OtherHolder));
        assert_eq!(domain(&[Rotated], 6), Err(Misfit::OtherHolder));
        for change in [PokAdded, PokRemoved, PokReplaced, OrgSignetChanged, RecordChanged] {
            assert_eq!(domain(&[change, DnssecLost, NameConflict], 6), Ok(7));
            assert_eq!(domain(&[change, RecordWithdrawn], 6), Err(Misfit::Mixed));
            assert_eq!(domain(&[change, RecordExpired], 6), Err(Misfit::Mixed));
        }
        assert_eq!(domain(&[DnssecGained], 6), Ok(7));
        assert_eq!(domain(&[DnssecBogus], 6), Ok(6));
        assert_eq!(domain(&[DnssecBogus], 0), Ok(0));
        assert_eq!(domain(&[RecordWithdrawn, DnssecLost], 6), Ok(6));
        assert_eq!(domain(&[RecordExpired, RecordWithdrawn], 6), Ok(0));
        assert_eq!(domain(&[RecordExpired], 0), Err(Misfit::NothingInForce));
        assert_eq!(domain(&[PokReplaced], 0), Ok(7));
        let first = current_after(Holder::Domain, RecordChanged.into(), 1, 0);
        assert_eq!(first, Err(Misfit::FirstSeen));
    }

    #[test]
    fn names_of_events_come_back() {
        for event in Event::ALL {
            assert_eq!(event.name().parse::<Event>().unwrap(), event);
            assert_eq!(Event::from_number(event.number().into()), Some(event));
        }
        let all: Events = Event::ALL.into_iter().collect();
        assert_eq!(all.iter().count(), 20);
        assert_eq!(
            Events::of(&[Event::NameConflict, Event::FirstSeen]).to_string(),
            "FIRST_SEEN, NAME_CONFLICT"
        );
    }

    #[test]
    fn other_formats_show_their_outline() {
        let kind = Kind::User(UserObservation {
            label: Label([1; 32]),
            version: 1,
            current: 1,
            commitment: [2; 32],
            events: Event::FirstSeen.into(),
            held_until: None,
            coalesced: None,
        });
        let mut later = Entry::new(T, kind);
        later.format = 2;
        let later = later.encode();
        assert_eq!(format_of(&later), Ok(2));
        assert!(Entry::decode(&later).is_err());
        assert_eq!(
            outline(&later).unwrap().kind,
            OutlineKind::Moves {
                label: Label([1; 32]),
                holder: Holder::User,
                version: 1,
                current: 1
            }
        );
    }

    fn arbitrary_entry() -> impl Strategy<Value = Vec<u8>> {
        let hold = proptest::option::of(1u64..1000);
        let coalesced = proptest::option::of((1u64.., any::<[u8; 32]>()));
        (any::<[u8; 32]>(), 2u64..1 << 40, hold, coalesced, 0u8..6).prop_map(
            |(hash, version, hold, coalesced, kind)| {
                let held_until = hold.map(|hold| T.plus(hold));
                let coalesced =
                    coalesced.map(|(count, running_hash)| Coalesced { count, running_hash });
                let vrf_key = key().public();
                let log_key = crate::dime::ed25519::public_key(&hash);
                let poks = [hash];
                let kind = match kind {
                    0 => Kind::Genesis(Genesis {
                        origin: "log.example/1",
                        log_key,
                        vrf_key,
                        predecessor: hold.map(|_| Predecessor {
                            origin: "log.example/0",
                            log_key,
                            checkpoint: b"note",
                            directory_root: [9; 32],
                            labels: version,
                        }),
                    }),
                    1 => Kind::Domain(DomainObservation {
                        domain: "example.com",
                        version,
                        current: version - 1,
                        poks: Poks::new(&poks),
                        dnssec: Dnssec::Bogus,
                        record: None,
                        org_signet: hold.map(|length| Blob { sha256: hash, length }),
                        dnssec_chain: None,
                        events: Event::DnssecBogus.into(),
                        held_until,
                        coalesced,
                    }),
                    2 => Kind::User(UserObservation {
                        label: Label(hash),
                        version,
                        current: version,
                        commitment: hash,
                        events: Events::of(&[Event::Restarted, Event::Gap]),
                        held_until,
                        coalesced,
                    }),
                    3 => Kind::Forgotten(Forgotten { label: Label(hash), version }),
                    4 => Kind::Root(DirectoryRoot {
                        root: hash,
                        labels: hold.unwrap_or(0),
                        covered: version,
                    }),
                    _ => Kind::Closing(Closing { origin: "log.example/2", log_key, vrf_key }),
                };
                Entry::new(T, kind).encode()
            },
        )
    }

    proptest! {
        #[test]
        fn an_entry_has_one_encoding(bytes in arbitrary_entry()) {
            let entry = Entry::decode(&bytes).unwrap();
            prop_assert_eq!(entry.encode(), bytes);
        }

        /// Whatever decodes is what would have been written.
        #[test]
        fn a_changed_entry_is_refused_or_another_one(
            bytes in arbitrary_entry(),
            edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..3), 1..4),
        ) {
            let mut changed = bytes.clone();
            for (at, byte, edit) in edits {
                let at = at.index(changed.len());
                match edit {
                    0 => changed[at] = byte,
                    1 => changed.insert(at, byte),
                    _ => { changed.remove(at); }
                }
                if changed.is_empty() { return Ok(()); }
            }
            if let Ok(entry) = Entry::decode(&changed) {
                prop_assert_eq!(entry.encode(), changed);
            } else {
                let _ = outline(&changed);
            }
        }

        #[test]
        fn decoding_never_panics(bytes: Vec<u8>) {
            let _ = Entry::decode(&bytes);
            let _ = outline(&bytes);
            let _ = UserPayload::decode(&bytes);
        }
    }
}
