//! What NSEC (RFC 4034 §4, RFC 4035 §5.4) and NSEC3 (RFC 5155) records say.

use super::MAX_ITERATIONS;
use super::wire::{DnsName, RecordType, Set, Types, u16_at};
use crate::dime::Rejection;

/// Bytes of an NSEC3 hash (SHA-1).
pub(super) const HASH: usize = 20;
/// The only flag of an NSEC3 record.
const OPT_OUT: u8 = 1;

/// An NSEC record, as read.
pub(super) struct Nsec {
    pub next: DnsName,
    pub types: Types,
}

impl Nsec {
    /// `None` if the RRset is not one well-formed NSEC record.
    pub fn read(set: &Set) -> Option<Nsec> {
        let [rdata] = set.data.as_slice() else { return None };
        let (next, length, _) = DnsName::read(rdata)?;
        Some(Nsec { next, types: Types::read(rdata.get(length..)?)? })
    }

    /// Whether `name`, which is in `zone`, lies between the record's owner and
    /// the next name. The last record's next name is the apex.
    pub fn covers(&self, owner: &DnsName, name: &DnsName, zone: &DnsName) -> bool {
        let in_zone = owner.is_within(zone) && self.next.is_within(zone) && name.is_within(zone);
        in_zone && owner < name && (name < &self.next || self.next == *zone)
    }

    /// Whether the record may speak about names below its owner: not at the
    /// parent's side of a cut, and not above a DNAME (RFC 6840 §4.1).
    pub fn speaks_below(&self) -> bool {
        !is_delegation(&self.types) && !self.types.contains(RecordType::DNAME)
    }
}

/// An NSEC3 record, as read.
#[derive(Clone)]
pub(super) struct Nsec3 {
    pub parameters: Parameters,
    pub opt_out: bool,
    pub hash: [u8; HASH],
    pub next: [u8; HASH],
    pub types: Types,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Parameters {
    pub iterations: u16,
    pub salt: Vec<u8>,
}

impl Nsec3 {
    /// `Ok(None)` if the RRset is not one NSEC3 record of `zone` in a form that
    /// we know (RFC 5155 §8.1, §8.2). Refused with rule `nsec3-iterations` if
    /// it asks for too much work.
    pub fn read(set: &Set, zone: &DnsName) -> Result<Option<Nsec3>, Rejection> {
        let Some(read) = Nsec3::fields(set, zone) else { return Ok(None) };
        if read.parameters.iterations > MAX_ITERATIONS {
            let why = format!("{} NSEC3 iterations", read.parameters.iterations);
            return Err(Rejection::new("nsec3-iterations", why));
        }
        Ok(Some(read))
    }

    fn fields(set: &Set, zone: &DnsName) -> Option<Nsec3> {
        let [rdata] = set.data.as_slice() else { return None };
        let (&algorithm, &flags) = (rdata.first()?, rdata.get(1)?);
        if algorithm != 1 || flags & !OPT_OUT != 0 || set.owner.parent() != *zone {
            return None;
        }
        let salt_end = 5 + usize::from(*rdata.get(4)?);
        let next_start = salt_end + 1;
        if usize::from(*rdata.get(salt_end)?) != HASH {
            return None;
        }
        Some(Nsec3 {
            parameters: Parameters {
                iterations: u16_at(rdata, 2)?,
                salt: rdata.get(5..salt_end)?.to_vec(),
            },
            opt_out: flags & OPT_OUT != 0,
            hash: base32hex(set.owner.labels().next()?)?,
            next: rdata.get(next_start..next_start + HASH)?.try_into().ok()?,
            types: Types::read(rdata.get(next_start + HASH..)?)?,
        })
    }

    /// Whether a name with this hash lies between the record's owner and the
    /// next one. The last record's next hash is the smallest.
    pub fn covers(&self, hash: &[u8; HASH]) -> bool {
        if self.hash < self.next {
            self.hash < *hash && *hash < self.next
        } else {
            self.hash < *hash || *hash < self.next
        }
    }
}

/// The parent's side of a cut: NS without SOA.
pub(super) fn is_delegation(types: &Types) -> bool {
    types.contains(RecordType::NS) && !types.contains(RecordType::SOA)
}

/// A delegation that is proved to have no DS record.
pub(super) fn is_unsigned_delegation(types: &Types) -> bool {
    is_delegation(types) && !types.contains(RecordType::DS)
}

/// Whether a name with these types, spoken of by its own zone, has no TXT
/// record and no alias.
pub(super) fn denies_text(types: &Types) -> bool {
    let there = |kind| types.contains(kind);
    !there(RecordType::TXT) && !there(RecordType::CNAME) && !is_delegation(types)
}

/// The 32 lower-case digits of a hash (RFC 4648 §7).
fn base32hex(label: &[u8]) -> Option<[u8; HASH]> {
    if label.len() != 32 {
        return None;
    }
    let mut hash = [0; HASH];
    for (eight, five) in label.chunks(8).zip(hash.chunks_mut(5)) {
        let mut bits = 0u64;
        for digit in eight {
            let value = match digit {
                b'0'..=b'9' => digit - b'0',
                b'a'..=b'v' => digit - b'a' + 10,
                _ => return None,
            };
            bits = bits << 5 | u64::from(value);
        }
        five.copy_from_slice(bits.to_be_bytes().get(3..)?);
    }
    Some(hash)
}
