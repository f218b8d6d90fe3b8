//! The formats of what the log keeps for itself, all in the one encoding of
//! `proof::wire` and all named by number or hash (`store::keys`).
//!
//! | Object | Fields, by number |
//! | --- | --- |
//! | log record, `log` | 1 format, 2 origin, 3 log key, 4 VRF key, 5 where commits live, 6 a random identity, 7 time made, 8 origin of the predecessor, if any |
//! | commit, `commit/…` | 1 format, 2 n, 3 SHA-256 of commit n−1 (of the log record for commit 0), 4 SHA-256 of the batch, 5 size, 6 root, 7 directory root, 8 labels, 9 time, 10 SHA-256 of each private record, one after the other, 11 where commits live |
//! | batch, `batch/…` | 1 format, 2 the n it is meant for, 3 SHA-256 of commit n−1, 4 each entry |
//! | payload, `payload/…` | 1 format, 2 n, 3 each private record; an empty one was erased |
//! | private record | 1 leaf index, 2 address, 3 payload, 4 opening, 5 signet as received |
//! | segment, `segment/…` | 1 format, 2 first n, 3 SHA-256 of commit n−1, 4 each commit with its batch: 1 commit, 2 batch |
//! | its payloads, `records/…` | 1 format, 2 first n, 3 each payload object that there is |
//! | floor, `floor/…` | 1 format, 2 first n that is in no segment, 3 SHA-256 of commit n−1 |
//!
//! A commit is at most 256 KiB, a batch 16 MiB, a payload and a segment 128 MiB.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::dime::{Address, MAX_DOMAIN, MAX_LOCAL, Timestamp};
use crate::proof::Hash;
use crate::proof::entry::{MAX_ENTRY, MAX_ORIGIN, MAX_PAYLOAD};
use crate::proof::wire::{Malformed, Reader, Writer};

/// Of everything in this file.
const FORMAT: u64 = 1;
/// Most entries in one batch, the directory root included.
pub const MAX_ENTRIES: usize = 4096;
/// Largest commit, bytes.
pub const MAX_COMMIT: u64 = 256 << 10;
/// Largest batch object, bytes.
pub const MAX_BATCH: u64 = 16 << 20;
/// Largest payload object, bytes. A batch is closed when its signets reach a quarter of it.
pub const MAX_PAYLOAD_OBJECT: u64 = 128 << 20;
/// Largest segment, bytes.
pub const MAX_SEGMENT: u64 = 128 << 20;
/// Largest log record or floor, bytes.
pub const MAX_SMALL: u64 = 4096;
/// Largest signet in a private record, bytes.
pub const MAX_SIGNET: usize = 1 << 20;

/// Where the commits of a log live. Decided when the log is made, for its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fence {
    /// In the private blobs, by put-if-absent.
    Blobs = 1,
}

/// The log's own record: made once, before commit 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRecord {
    pub origin: String,
    pub log_key: [u8; 32],
    pub vrf_key: [u8; 32],
    pub fence: Fence,
    /// Random: two logs made with the same keys are still two.
    pub identity: [u8; 32],
    pub made: Timestamp,
    /// Origin of the log that it took over from.
    pub predecessor: Option<String>,
}

/// One step of the log. That it exists makes its batch part of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Counted from 0.
    pub n: u64,
    /// SHA-256 of commit n−1; of the log record for commit 0.
    pub previous: Hash,
    /// SHA-256 of the batch object.
    pub batch: Hash,
    /// Leaves of the tree with this batch.
    pub size: u64,
    /// Root of that tree.
    pub root: Hash,
    /// Root of the directory, as in the batch's last entry.
    pub directory_root: Hash,
    /// Labels in the directory.
    pub labels: u64,
    /// Of the batch's directory root.
    pub time: Timestamp,
    /// SHA-256 of each private record.
    pub records: Vec<Hash>,
    pub fence: Fence,
}

/// The public entries of one commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The commit that it is meant for: a batch whose commit names another one
    /// is an orphan.
    pub n: u64,
    pub previous: Hash,
    pub entries: Vec<Bytes>,
}

/// The private records of one commit. An empty one was erased.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    pub n: u64,
    pub records: Vec<Bytes>,
}

/// What only the log's owner knows of one user entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrivateRecord {
    /// Leaf index of the entry.
    pub index: u64,
    pub address: Address,
    /// The encoded `UserPayload`.
    pub payload: Bytes,
    pub opening: [u8; 32],
    /// As received; `None` for an observation of absence.
    pub signet: Option<Bytes>,
}

/// Commits `first` and following with their batches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    pub first: u64,
    /// SHA-256 of commit `first − 1`; of the log record if `first` is 0.
    pub previous: Hash,
    /// The bytes of each commit and of its batch.
    pub steps: Vec<(Bytes, Bytes)>,
}

/// The payload objects of a segment. An erased record in them is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Records {
    pub first: u64,
    pub payloads: Vec<Bytes>,
}

/// Below it, all commits are in segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Floor {
    pub n: u64,
    /// SHA-256 of commit n−1; of the log record if `n` is 0.
    pub previous: Hash,
}

/// SHA-256: how every object here is named or chained.
pub fn sha256(bytes: &[u8]) -> Hash {
    Sha256::digest(bytes).into()
}

impl Fence {
    fn from_number(number: u64) -> Option<Fence> {
        (number == Fence::Blobs as u64).then_some(Fence::Blobs)
    }
}

impl LogRecord {
    pub fn encode(&self) -> Bytes {
        let mut writer = Writer::new();
        writer
            .uint(1, FORMAT)
            .bytes(2, self.origin.as_bytes())
            .bytes(3, &self.log_key)
            .bytes(4, &self.vrf_key)
            .uint(5, self.fence as u64)
            .bytes(6, &self.identity)
            .uint(7, self.made.millis())
            .bytes(8, self.predecessor.as_deref().unwrap_or_default().as_bytes());
        writer.finish().into()
    }

    pub fn decode(bytes: &[u8]) -> Result<LogRecord, Malformed> {
        let mut reader = reader(bytes, MAX_SMALL)?;
        let record = LogRecord {
            origin: reader.text(2, MAX_ORIGIN)?.to_owned(),
            log_key: reader.hash(3)?,
            vrf_key: reader.hash(4)?,
            fence: fence(&mut reader, 5)?,
            identity: reader.hash(6)?,
            made: Timestamp::from_millis(reader.uint(7)?),
            predecessor: match reader.at(8) {
                true => Some(reader.text(8, MAX_ORIGIN)?.to_owned()),
                false => None,
            },
        };
        reader.end()?;
        Ok(record)
    }
}

impl Commit {
    pub fn encode(&self) -> Bytes {
        let mut writer = Writer::with_capacity(256 + 32 * self.records.len());
        writer
            .uint(1, FORMAT)
            .uint(2, self.n)
            .bytes(3, &self.previous)
            .bytes(4, &self.batch)
            .uint(5, self.size)
            .bytes(6, &self.root)
            .bytes(7, &self.directory_root)
            .uint(8, self.labels)
            .uint(9, self.time.millis())
            .bytes(10, &self.records.concat())
            .uint(11, self.fence as u64);
        writer.finish().into()
    }

    pub fn decode(bytes: &[u8]) -> Result<Commit, Malformed> {
        let mut reader = reader(bytes, MAX_COMMIT)?;
        let n = reader.uint(2)?;
        let previous = reader.hash(3)?;
        let batch = reader.hash(4)?;
        let size = reader.required_uint(5)?;
        let root = reader.hash(6)?;
        let directory_root = reader.hash(7)?;
        let labels = reader.uint(8)?;
        let time = Timestamp::from_millis(reader.required_uint(9)?);
        let (records, rest) = reader.bytes(10)?.as_chunks::<32>();
        if !rest.is_empty() {
            return Err(Malformed::Length(10));
        }
        let records = records.to_vec();
        let fence = fence(&mut reader, 11)?;
        reader.end()?;
        Ok(Commit { n, previous, batch, size, root, directory_root, labels, time, records, fence })
    }
}

impl Batch {
    pub fn encode(&self) -> Bytes {
        let size: usize = self.entries.iter().map(|entry| entry.len() + 3).sum();
        let mut writer = Writer::with_capacity(64 + size);
        writer.uint(1, FORMAT).uint(2, self.n).bytes(3, &self.previous);
        for entry in &self.entries {
            writer.delimited(4, entry);
        }
        writer.finish().into()
    }

    pub fn decode(bytes: &Bytes) -> Result<Batch, Malformed> {
        let mut reader = reader(bytes, MAX_BATCH)?;
        let n = reader.uint(2)?;
        let previous = reader.hash(3)?;
        let mut entries = Vec::new();
        while let Some(entry) = reader.delimited(4)? {
            if entry.is_empty() || entry.len() > MAX_ENTRY {
                return Err(Malformed::Length(4));
            }
            entries.push(bytes.slice_ref(entry));
        }
        reader.end()?;
        Ok(Batch { n, previous, entries })
    }
}

impl Payload {
    pub fn encode(&self) -> Bytes {
        let size: usize = self.records.iter().map(|record| record.len() + 6).sum();
        let mut writer = Writer::with_capacity(64 + size);
        writer.uint(1, FORMAT).uint(2, self.n);
        for record in &self.records {
            writer.delimited(3, record);
        }
        writer.finish().into()
    }

    pub fn decode(bytes: &Bytes) -> Result<Payload, Malformed> {
        let mut reader = reader(bytes, MAX_PAYLOAD_OBJECT)?;
        let n = reader.uint(2)?;
        let mut records = Vec::new();
        while let Some(record) = reader.delimited(3)? {
            records.push(bytes.slice_ref(record));
        }
        reader.end()?;
        Ok(Payload { n, records })
    }
}

impl PrivateRecord {
    pub fn encode(&self) -> Bytes {
        let mut writer = Writer::with_capacity(512);
        writer
            .uint(1, self.index)
            .bytes(2, self.address.as_str().as_bytes())
            .bytes(3, &self.payload)
            .bytes(4, &self.opening)
            .bytes(5, self.signet.as_deref().unwrap_or_default());
        writer.finish().into()
    }

    pub fn decode(bytes: &Bytes) -> Result<PrivateRecord, Malformed> {
        let mut reader = Reader::limited(bytes, MAX_SIGNET + MAX_PAYLOAD + 1024)?;
        let index = reader.required_uint(1)?;
        let text = reader.text(2, MAX_LOCAL + 1 + MAX_DOMAIN)?;
        let address: Option<Address> = text.parse().ok();
        let address = address
            .filter(|address| address.as_str() == text)
            .ok_or(Malformed::Value(2, "it is not a normalized address"))?;
        let payload = bytes.slice_ref(reader.bytes(3)?);
        if payload.is_empty() || payload.len() > MAX_PAYLOAD {
            return Err(Malformed::Length(3));
        }
        let opening = reader.hash(4)?;
        let signet = reader.bytes(5)?;
        let signet = (!signet.is_empty()).then(|| bytes.slice_ref(signet));
        reader.end()?;
        Ok(PrivateRecord { index, address, payload, opening, signet })
    }
}

impl Segment {
    pub fn encode(&self) -> Bytes {
        let size: usize = self.steps.iter().map(|(c, b)| c.len() + b.len() + 16).sum();
        let mut writer = Writer::with_capacity(64 + size);
        writer.uint(1, FORMAT).uint(2, self.first).bytes(3, &self.previous);
        for (commit, batch) in &self.steps {
            writer.message(4, |step| {
                step.bytes(1, commit).bytes(2, batch);
            });
        }
        writer.finish().into()
    }

    pub fn decode(bytes: &Bytes) -> Result<Segment, Malformed> {
        let mut reader = reader(bytes, MAX_SEGMENT)?;
        let first = reader.uint(2)?;
        let previous = reader.hash(3)?;
        let mut steps = Vec::new();
        while let Some(mut step) = reader.message(4)? {
            let (commit, batch) = (step.bytes(1)?, step.bytes(2)?);
            step.end()?;
            steps.push((bytes.slice_ref(commit), bytes.slice_ref(batch)));
        }
        reader.end()?;
        Ok(Segment { first, previous, steps })
    }
}

impl Records {
    pub fn encode(&self) -> Bytes {
        let size: usize = self.payloads.iter().map(|payload| payload.len() + 6).sum();
        let mut writer = Writer::with_capacity(64 + size);
        writer.uint(1, FORMAT).uint(2, self.first);
        for payload in &self.payloads {
            writer.delimited(3, payload);
        }
        writer.finish().into()
    }

    pub fn decode(bytes: &Bytes) -> Result<Records, Malformed> {
        let mut reader = reader(bytes, MAX_SEGMENT + MAX_PAYLOAD_OBJECT)?;
        let first = reader.uint(2)?;
        let mut payloads = Vec::new();
        while let Some(payload) = reader.delimited(3)? {
            payloads.push(bytes.slice_ref(payload));
        }
        reader.end()?;
        Ok(Records { first, payloads })
    }
}

impl Floor {
    pub fn encode(&self) -> Bytes {
        let mut writer = Writer::new();
        writer.uint(1, FORMAT).uint(2, self.n).bytes(3, &self.previous);
        writer.finish().into()
    }

    pub fn decode(bytes: &[u8]) -> Result<Floor, Malformed> {
        let mut reader = reader(bytes, MAX_SMALL)?;
        let floor = Floor { n: reader.uint(2)?, previous: reader.hash(3)? };
        reader.end()?;
        Ok(floor)
    }
}

/// A reader past the format number.
fn reader(bytes: &[u8], limit: u64) -> Result<Reader<'_>, Malformed> {
    let mut reader = Reader::limited(bytes, usize::try_from(limit).unwrap_or(usize::MAX))?;
    match reader.uint(1)? {
        FORMAT => Ok(reader),
        _ => Err(Malformed::Value(1, "this format is not known")),
    }
}

fn fence(reader: &mut Reader<'_>, field: u32) -> Result<Fence, Malformed> {
    Fence::from_number(reader.required_uint(field)?)
        .ok_or(Malformed::Value(field, "commits live where this code cannot look"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn commit() -> Commit {
        Commit {
            n: 0,
            previous: [1; 32],
            batch: [2; 32],
            size: 2,
            root: [3; 32],
            directory_root: [4; 32],
            labels: 0,
            time: Timestamp::from_millis(7),
            records: vec![[5; 32], [6; 32]],
            fence: Fence::Blobs,
        }
    }

    fn record() -> PrivateRecord {
        PrivateRecord {
            index: 4,
            address: "alice@example.com".parse().unwrap(),
            payload: Bytes::from_static(b"payload"),
            opening: [9; 32],
            signet: Some(Bytes::from_static(b"signet")),
        }
    }

    #[test]
    fn everything_comes_back_as_it_went() {
        assert_eq!(Commit::decode(&commit().encode()), Ok(commit()));
        assert_eq!(PrivateRecord::decode(&record().encode()), Ok(record()));
        let without = PrivateRecord { signet: None, ..record() };
        assert_eq!(PrivateRecord::decode(&without.encode()), Ok(without));
        let batch = Batch { n: 3, previous: [1; 32], entries: vec!["a".into(), "bc".into()] };
        assert_eq!(Batch::decode(&batch.encode()), Ok(batch.clone()));
        let payload = Payload { n: 3, records: vec![record().encode(), Bytes::new()] };
        assert_eq!(Payload::decode(&payload.encode()), Ok(payload));
        let steps = vec![(commit().encode(), batch.encode())];
        let segment = Segment { first: 0, previous: [8; 32], steps };
        assert_eq!(Segment::decode(&segment.encode()), Ok(segment));
        let floor = Floor { n: 10, previous: [8; 32] };
        assert_eq!(Floor::decode(&floor.encode()), Ok(floor));
        let log = LogRecord {
            origin: "log.example/1".into(),
            log_key: [1; 32],
            vrf_key: [2; 32],
            fence: Fence::Blobs,
            identity: [3; 32],
            made: Timestamp::from_millis(1),
            predecessor: None,
        };
        assert_eq!(LogRecord::decode(&log.encode()), Ok(log));
    }

    /// Found by the fuzz target `kept`: read as another one than was written.
    #[test]
    fn an_address_is_read_only_as_it_is_written() {
        let mut bytes = record().encode().to_vec();
        let at = bytes.windows(5).position(|part| part == b"alice").unwrap();
        bytes[at] = b'A';
        let refused = PrivateRecord::decode(&bytes.into());
        assert_eq!(refused, Err(Malformed::Value(2, "it is not a normalized address")));
    }

    #[test]
    fn a_full_batch_and_its_commit_are_within_their_limits() {
        let entries = vec![Bytes::from(vec![0; MAX_ENTRY]); MAX_ENTRIES];
        let batch = Batch { n: u64::MAX, previous: [1; 32], entries };
        assert!((batch.encode().len() as u64) < MAX_BATCH);
        let full = Commit { n: u64::MAX, records: vec![[1; 32]; MAX_ENTRIES], ..commit() };
        assert!((full.encode().len() as u64) < MAX_COMMIT);
    }

    proptest! {
        #[test]
        fn reading_damage_never_panics(at in 0usize..400, to: u8, cut in 0usize..400) {
            let steps = vec![(commit().encode(), record().encode())];
            let segment = Segment { first: 1, previous: [8; 32], steps };
            let batch = Batch { n: 3, previous: [1; 32], entries: vec!["a".into(), "bc".into()] };
            for bytes in [commit().encode(), record().encode(), segment.encode(), batch.encode()] {
                let mut bytes = bytes.to_vec();
                bytes.truncate(cut.max(1));
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = to;
                }
                let bytes = Bytes::from(bytes);
                let _ = LogRecord::decode(&bytes);
                let _ = Floor::decode(&bytes);
                let _ = Payload::decode(&bytes);
                // Whatever is accepted has one encoding.
                if let Ok(commit) = Commit::decode(&bytes) {
                    prop_assert_eq!(commit.encode(), bytes.clone());
                }
                if let Ok(batch) = Batch::decode(&bytes) {
                    prop_assert_eq!(batch.encode(), bytes.clone());
                }
                if let Ok(segment) = Segment::decode(&bytes) {
                    prop_assert_eq!(segment.encode(), bytes.clone());
                }
            }
        }
    }
}
