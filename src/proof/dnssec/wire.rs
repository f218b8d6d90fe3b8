//! Names, records and signed sets in canonical wire form; reading and writing a
//! chain.

use std::cmp::Ordering;
use std::fmt;

use super::{MAX_CHAIN, MAX_RECORDS};
use crate::dime::Rejection;

/// Longest name in wire form, bytes (RFC 1035 §2.3.4).
const MAX_NAME: usize = 255;
/// Longest label, bytes.
const MAX_LABEL: usize = 63;
/// The only class.
const IN: u16 = 1;
/// Bytes of an RRSIG record's data before the signer's name.
const RRSIG_FIXED: usize = 18;

fn malformed(why: impl Into<String>) -> Rejection {
    Rejection::new("chain-format", why)
}

/// Type of a record, as in the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordType(pub u16);

impl RecordType {
    pub const NS: RecordType = RecordType(2);
    pub const CNAME: RecordType = RecordType(5);
    pub const SOA: RecordType = RecordType(6);
    pub const TXT: RecordType = RecordType(16);
    pub const DNAME: RecordType = RecordType(39);
    pub const DS: RecordType = RecordType(43);
    pub const RRSIG: RecordType = RecordType(46);
    pub const NSEC: RecordType = RecordType(47);
    pub const DNSKEY: RecordType = RecordType(48);
    pub const NSEC3: RecordType = RecordType(50);
    /// Only in bitmaps: the name does not exist (RFC 9824).
    pub const NXNAME: RecordType = RecordType(128);

    /// Whether a chain may hold RRsets of this type.
    pub fn is_evidence(self) -> bool {
        use RecordType as T;
        [T::CNAME, T::TXT, T::DS, T::NSEC, T::DNSKEY, T::NSEC3].contains(&self)
    }
}

/// A domain name: lower-case, in wire form, not compressed, at most 255 bytes.
/// Ordered canonically (RFC 4034 §6.1).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct DnsName(Vec<u8>);

impl DnsName {
    pub fn root() -> DnsName {
        DnsName(vec![0])
    }

    /// From presentation form without escapes, trailing dot or not. Letters
    /// become lower-case. Refused with rule `chain-name`.
    pub fn parse(text: &str) -> Result<DnsName, Rejection> {
        let refuse = || Rejection::new("chain-name", "not a name that a chain can be about");
        let text = text.strip_suffix('.').unwrap_or(text);
        let mut wire = Vec::with_capacity(text.len() + 2);
        for label in text.split('.').filter(|_| !text.is_empty()) {
            let plain = |b: u8| b.is_ascii_graphic() && b != b'\\';
            if label.is_empty() || label.len() > MAX_LABEL || !label.bytes().all(plain) {
                return Err(refuse());
            }
            wire.push(label.len() as u8);
            wire.extend(label.bytes().map(|b| b.to_ascii_lowercase()));
        }
        wire.push(0);
        if wire.len() > MAX_NAME { Err(refuse()) } else { Ok(DnsName(wire)) }
    }

    /// From labels, leftmost first; `None` if they are no name.
    pub fn from_labels<'a>(labels: impl IntoIterator<Item = &'a [u8]>) -> Option<DnsName> {
        let mut wire = Vec::new();
        for label in labels {
            if label.is_empty() || label.len() > MAX_LABEL {
                return None;
            }
            wire.push(label.len() as u8);
            wire.extend(label.iter().map(u8::to_ascii_lowercase));
        }
        wire.push(0);
        (wire.len() <= MAX_NAME).then_some(DnsName(wire))
    }

    /// Reads a name that is not compressed; letters become lower-case. Also how
    /// many bytes it took, and whether it was lower-case.
    pub(super) fn read(bytes: &[u8]) -> Option<(DnsName, usize, bool)> {
        let mut at = 0;
        loop {
            let length = usize::from(*bytes.get(at)?);
            at += 1 + length;
            if length > MAX_LABEL || at > MAX_NAME {
                return None;
            }
            if length == 0 {
                break;
            }
        }
        let wire = bytes.get(..at)?;
        // No length byte is a letter: the longest label has 63 bytes.
        let lower = wire.to_ascii_lowercase();
        let was_lower = lower == wire;
        Some((DnsName(lower), at, was_lower))
    }

    pub fn wire(&self) -> &[u8] {
        &self.0
    }

    pub fn is_root(&self) -> bool {
        self.0 == [0]
    }

    /// Leftmost first, without the root's empty one.
    pub fn labels(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.0.as_slice();
        std::iter::from_fn(move || {
            let (length, after) = rest.split_first()?;
            let label = after.get(..usize::from(*length)).filter(|label| !label.is_empty())?;
            rest = after.get(label.len()..)?;
            Some(label)
        })
    }

    pub fn label_count(&self) -> usize {
        self.labels().count()
    }

    /// The name without its first label; the root's is the root.
    pub fn parent(&self) -> DnsName {
        match self.0.first() {
            Some(&length) if length > 0 => {
                DnsName(self.0.get(1 + usize::from(length)..).unwrap_or(&[0]).to_vec())
            }
            _ => DnsName::root(),
        }
    }

    /// The last `count` labels; the whole name if it has no more.
    pub fn suffix(&self, count: usize) -> DnsName {
        let mut name = self.clone();
        for _ in count..self.label_count() {
            name = name.parent();
        }
        name
    }

    /// Whether this is `ancestor` or a name below it.
    pub fn is_within(&self, ancestor: &DnsName) -> bool {
        let depth = ancestor.label_count();
        self.label_count() >= depth && self.suffix(depth) == *ancestor
    }

    /// `label` before this name, if that is not too long.
    pub(super) fn child(&self, label: &[u8]) -> Option<DnsName> {
        DnsName::from_labels(std::iter::once(label).chain(self.labels()))
    }

    /// Labels that an RRSIG record counts: a leading `*` is not (RFC 4034 §3.1.3).
    pub(super) fn signed_labels(&self) -> usize {
        let wild = usize::from(self.labels().next() == Some(b"*"));
        self.label_count() - wild
    }

    /// The last labels that both names share.
    pub(super) fn common(&self, other: &DnsName) -> DnsName {
        let (ours, theirs): (Vec<_>, Vec<_>) = (self.labels().collect(), other.labels().collect());
        let same = ours.iter().rev().zip(theirs.iter().rev()).take_while(|(a, b)| a == b);
        self.suffix(same.count())
    }
}

impl Ord for DnsName {
    fn cmp(&self, other: &DnsName) -> Ordering {
        let reversed = |name: &DnsName| -> Vec<Vec<u8>> {
            let mut labels: Vec<Vec<u8>> = name.labels().map(<[u8]>::to_vec).collect();
            labels.reverse();
            labels
        };
        reversed(self).cmp(&reversed(other))
    }
}

impl PartialOrd for DnsName {
    fn partial_cmp(&self, other: &DnsName) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Presentation form with the trailing dot; odd bytes as `\ddd`.
impl fmt::Display for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_root() {
            return f.write_str(".");
        }
        for label in self.labels() {
            for &byte in label {
                if byte.is_ascii_graphic() && byte != b'.' && byte != b'\\' {
                    write!(f, "{}", char::from(byte))?;
                } else {
                    write!(f, "\\{byte:03}")?;
                }
            }
            f.write_str(".")?;
        }
        Ok(())
    }
}

impl fmt::Debug for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The data of an RRSIG record (RFC 4034 §3.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    pub covered: RecordType,
    pub algorithm: u8,
    pub labels: u8,
    /// Seconds.
    pub original_ttl: u32,
    /// Seconds since 1970, modulo 2^32, as the next.
    pub expiration: u32,
    pub inception: u32,
    pub key_tag: u16,
    pub signer: DnsName,
    /// The signature itself.
    pub bytes: Vec<u8>,
}

impl Signature {
    /// Reads RRSIG data. Letters of the signer become lower-case.
    pub fn read(rdata: &[u8]) -> Option<Signature> {
        let (signer, length, _) = DnsName::read(rdata.get(RRSIG_FIXED..)?)?;
        Some(Signature {
            covered: RecordType(u16_at(rdata, 0)?),
            algorithm: *rdata.get(2)?,
            labels: *rdata.get(3)?,
            original_ttl: u32_at(rdata, 4)?,
            expiration: u32_at(rdata, 8)?,
            inception: u32_at(rdata, 12)?,
            key_tag: u16_at(rdata, 16)?,
            signer,
            bytes: rdata.get(RRSIG_FIXED + length..)?.to_vec(),
        })
    }

    /// The data without the signature, which is the start of what is signed.
    pub(super) fn head(&self) -> Vec<u8> {
        let mut head = Vec::with_capacity(RRSIG_FIXED + self.signer.wire().len());
        head.extend(self.covered.0.to_be_bytes());
        head.extend([self.algorithm, self.labels]);
        head.extend(self.original_ttl.to_be_bytes());
        head.extend(self.expiration.to_be_bytes());
        head.extend(self.inception.to_be_bytes());
        head.extend(self.key_tag.to_be_bytes());
        head.extend(self.signer.wire());
        head
    }
}

/// An RRset with one signature over it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    pub owner: DnsName,
    pub kind: RecordType,
    /// In canonical order, none twice.
    pub data: Vec<Vec<u8>>,
    pub signature: Signature,
}

impl Set {
    /// Sorts the data, drops what is there twice, and brings names in it to
    /// canonical form. `None` if it cannot be evidence.
    pub fn new(
        owner: DnsName,
        kind: RecordType,
        data: Vec<Vec<u8>>,
        signature: Signature,
    ) -> Option<Set> {
        if !kind.is_evidence() || signature.covered != kind || data.is_empty() {
            return None;
        }
        let canonical = |rdata: Vec<u8>| match kind {
            RecordType::CNAME => {
                let (target, length, _) = DnsName::read(&rdata)?;
                (length == rdata.len()).then(|| target.wire().to_vec())
            }
            _ => u16::try_from(rdata.len()).ok().map(|_| rdata),
        };
        let mut data: Vec<Vec<u8>> = data.into_iter().map(canonical).collect::<Option<_>>()?;
        data.sort();
        data.dedup();
        Some(Set { owner, kind, data, signature })
    }

    fn place(&self) -> (&DnsName, RecordType, &DnsName) {
        (&self.owner, self.kind, &self.signature.signer)
    }

    /// The records as they are signed (RFC 4034 §3.1.8.1), under `owner`.
    pub(super) fn records(&self, owner: &DnsName) -> Vec<u8> {
        let mut bytes = Vec::new();
        for rdata in &self.data {
            put(&mut bytes, owner, self.kind, self.signature.original_ttl, rdata);
        }
        bytes
    }
}

fn put(bytes: &mut Vec<u8>, owner: &DnsName, kind: RecordType, ttl: u32, rdata: &[u8]) {
    bytes.extend(owner.wire());
    bytes.extend(kind.0.to_be_bytes());
    bytes.extend(IN.to_be_bytes());
    bytes.extend(ttl.to_be_bytes());
    // Longer data is never made: see `Set::new` and `Record::read`.
    bytes.extend(u16::try_from(rdata.len()).unwrap_or(u16::MAX).to_be_bytes());
    bytes.extend(rdata);
}

/// Writes a chain. Refused with rule `chain-limit` if it is too large, with
/// `chain-order` if an RRset is there twice.
pub fn encode(mut sets: Vec<Set>) -> Result<Vec<u8>, Rejection> {
    sets.sort_by(|a, b| a.place().cmp(&b.place()));
    if sets.windows(2).any(|pair| matches!(pair, [a, b] if a.place() == b.place())) {
        return Err(Rejection::new("chain-order", "an RRset is there twice"));
    }
    let mut bytes = Vec::new();
    for set in &sets {
        bytes.extend(set.records(&set.owner));
        let rdata = [set.signature.head(), set.signature.bytes.clone()].concat();
        let ttl = set.signature.original_ttl;
        put(&mut bytes, &set.owner, RecordType::RRSIG, ttl, &rdata);
    }
    let records: usize = sets.iter().map(|set| set.data.len() + 1).sum();
    within_limits(bytes.len(), records)?;
    Ok(bytes)
}

fn within_limits(bytes: usize, records: usize) -> Result<(), Rejection> {
    if bytes > MAX_CHAIN || records > MAX_RECORDS {
        let why = format!("a chain has at most {MAX_CHAIN} bytes and {MAX_RECORDS} records");
        return Err(Rejection::new("chain-limit", why));
    }
    Ok(())
}

/// Reads a chain. Refused with rule `chain-limit`, `chain-type` (class or type
/// that has no place in one), `chain-order` (not in the one order) or
/// `chain-format` (everything else that is not the encoding).
pub fn decode(chain: &[u8]) -> Result<Vec<Set>, Rejection> {
    within_limits(chain.len(), 0)?;
    let mut rest = chain;
    let mut sets: Vec<Set> = Vec::new();
    let mut open: Vec<Record> = Vec::new();
    let mut records = 0;
    while !rest.is_empty() {
        let record = Record::read(&mut rest)?;
        records += 1;
        within_limits(chain.len(), records)?;
        if record.kind != RecordType::RRSIG {
            open.push(record);
            continue;
        }
        let set = close(std::mem::take(&mut open), &record)?;
        if sets.last().is_some_and(|last| last.place() >= set.place()) {
            return Err(Rejection::new("chain-order", "the RRsets are not in their order"));
        }
        sets.push(set);
    }
    if open.is_empty() { Ok(sets) } else { Err(malformed("an RRset has no signature")) }
}

/// One RRset of the records before an RRSIG record.
fn close(records: Vec<Record>, rrsig: &Record) -> Result<Set, Rejection> {
    let signature = Signature::read(&rrsig.rdata).ok_or_else(|| malformed("bad RRSIG data"))?;
    if [signature.head(), signature.bytes.clone()].concat() != rrsig.rdata {
        return Err(malformed("the signer's name is not lower-case"));
    }
    let first = records.first().ok_or_else(|| malformed("an RRSIG record follows no RRset"))?;
    let kind = first.kind;
    let of_one_set = |record: &Record| {
        record.kind == kind
            && record.owner == rrsig.owner
            && record.ttl == signature.original_ttl
            && rrsig.ttl == signature.original_ttl
    };
    if signature.covered != kind || !records.iter().all(of_one_set) {
        return Err(malformed("the records before an RRSIG record are not what it covers"));
    }
    let ascending = |pair: &[Record]| matches!(pair, [a, b] if a.rdata < b.rdata);
    if !records.windows(2).all(ascending) {
        return Err(Rejection::new("chain-order", "records of an RRset are not in their order"));
    }
    let data: Vec<Vec<u8>> = records.into_iter().map(|record| record.rdata).collect();
    match Set::new(rrsig.owner.clone(), kind, data.clone(), signature) {
        Some(set) if set.data == data => Ok(set),
        _ => Err(malformed("data that is not in canonical form")),
    }
}

struct Record {
    owner: DnsName,
    kind: RecordType,
    ttl: u32,
    rdata: Vec<u8>,
}

impl Record {
    fn read(rest: &mut &[u8]) -> Result<Record, Rejection> {
        let (owner, length, lower) =
            DnsName::read(rest).ok_or_else(|| malformed("no name where a record begins"))?;
        if !lower {
            return Err(malformed("a name is not lower-case"));
        }
        let fixed = || -> Option<(RecordType, u16, u32, usize)> {
            let kind = RecordType(u16_at(rest, length)?);
            let size = usize::from(u16_at(rest, length + 8)?);
            Some((kind, u16_at(rest, length + 2)?, u32_at(rest, length + 4)?, size))
        };
        let (kind, class, ttl, size) = fixed().ok_or_else(|| malformed("a record is cut off"))?;
        if class != IN || !(kind.is_evidence() || kind == RecordType::RRSIG) {
            let why = format!("type {}, class {class} has no place in a chain", kind.0);
            return Err(Rejection::new("chain-type", why));
        }
        let start = length + 10;
        let rdata = rest.get(start..start + size);
        let rdata = rdata.ok_or_else(|| malformed("a record is cut off"))?.to_vec();
        *rest = rest.get(start + size..).unwrap_or_default();
        Ok(Record { owner, kind, ttl, rdata })
    }
}

/// A key of a zone.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub tag: u16,
    pub algorithm: u8,
    pub public: Vec<u8>,
    pub rdata: Vec<u8>,
}

impl Key {
    /// A key that may sign for its zone: zone flag, protocol 3, not revoked
    /// (RFC 4034 §2.1, RFC 5011 §3). `None` for any other.
    pub(super) fn read(rdata: &[u8]) -> Option<Key> {
        let flags = u16_at(rdata, 0)?;
        let usable = flags & 0x0100 != 0 && flags & 0x0080 == 0 && *rdata.get(2)? == 3;
        usable.then_some(())?;
        Some(Key {
            tag: key_tag(rdata),
            algorithm: *rdata.get(3)?,
            public: rdata.get(4..)?.to_vec(),
            rdata: rdata.to_vec(),
        })
    }
}

/// RFC 4034 appendix B.
fn key_tag(rdata: &[u8]) -> u16 {
    let sum: u32 = rdata
        .chunks(2)
        .map(|pair| {
            let low = pair.get(1).copied().unwrap_or(0);
            u32::from(pair.first().copied().unwrap_or(0)) << 8 | u32::from(low)
        })
        .sum();
    (sum.wrapping_add(sum >> 16) & 0xffff) as u16
}

/// Key tag, algorithm, digest type, digest.
pub(super) fn ds_fields(rdata: &[u8]) -> Option<(u16, u8, u8, &[u8])> {
    Some((u16_at(rdata, 0)?, *rdata.get(2)?, *rdata.get(3)?, rdata.get(4..)?))
}

/// The character-strings of TXT data, joined.
pub(super) fn text(rdata: &[u8]) -> Option<Vec<u8>> {
    let mut rest = rdata;
    let mut text = Vec::with_capacity(rdata.len());
    while let Some((length, after)) = rest.split_first() {
        let length = usize::from(*length);
        text.extend(after.get(..length)?);
        rest = after.get(length..)?;
    }
    Some(text)
}

/// The types of a bitmap (RFC 4034 §4.1.2), as received.
#[derive(Clone)]
pub(super) struct Types(Vec<u8>);

impl Types {
    /// Longest bitmap, bytes: all assigned types fit in four windows of 34.
    const MAX: usize = 512;

    /// `None` if it is malformed or longer than [`Types::MAX`].
    pub fn read(bitmap: &[u8]) -> Option<Types> {
        let mut before = None;
        for (window, bits) in Types::windows(bitmap) {
            if !(1..=32).contains(&bits?.len()) || before >= Some(window) {
                return None;
            }
            before = Some(window);
        }
        (bitmap.len() <= Types::MAX).then(|| Types(bitmap.to_vec()))
    }

    pub fn contains(&self, kind: RecordType) -> bool {
        let [window, low] = kind.0.to_be_bytes();
        Types::windows(&self.0)
            .filter(|(number, _)| *number == window)
            .filter_map(|(_, bits)| bits?.get(usize::from(low / 8)).copied())
            .any(|byte| byte & (0x80 >> (low % 8)) != 0)
    }

    /// Number and bits of each window; `None` where it is cut off.
    fn windows(bitmap: &[u8]) -> impl Iterator<Item = (u8, Option<&[u8]>)> {
        let mut rest = bitmap;
        std::iter::from_fn(move || {
            let (&window, after) = rest.split_first()?;
            let bits = after.split_first().and_then(|(length, bits)| {
                let (bits, after) = bits.split_at_checked(usize::from(*length))?;
                rest = after;
                Some(bits)
            });
            if bits.is_none() {
                rest = &[];
            }
            Some((window, bits))
        })
    }
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let two = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_be_bytes(two.try_into().ok()?))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_be_bytes(four.try_into().ok()?))
}
