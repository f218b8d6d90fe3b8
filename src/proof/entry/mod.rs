//! The leaves of the log: what each kind says, and its one encoding.
//!
//! Layout: `proto/syndicate/v1/log.proto`; every rule: `proto/README.md`. How an
//! observation becomes one: [`super::draft`]. Whether an entry fits the ones
//! before it is [`super::replay`]'s business.

mod event;
mod payload;

use std::fmt;

use sha2::{Digest, Sha256};

use super::label::Label;
use super::wire::{Field, Malformed, Reader, Writer};
use super::{Hash, vrf};
use crate::dime::{Dnssec, Domain, Timestamp};

pub use event::{Event, Events, Holder, Misfit, current_after};
pub use payload::{Level, MAX_PAYLOAD, MAX_SIGNERS, SignetFacts, UserPayload};

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
