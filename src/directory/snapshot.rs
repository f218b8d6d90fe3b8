//! The directory to and from the public blob store.
//!
//! An index, written last, and up to 256 parts of whole shards. Numbers are
//! big-endian.
//!
//! | Index `snapshot/<size>` | Bytes |
//! | --- | --- |
//! | `syndicate/v1/snapshot\n` | 22 |
//! | tree size that it covers | 8 |
//! | labels | 8 |
//! | root | 32 |
//! | length of the replay's own notes, and these | 4 + at most 65,536 |
//! | number of parts, 0 to 256 | 2 |
//! | each part: first and last byte of its labels, number of labels, SHA-256 | 1 + 1 + 8 + 32 |
//! | SHA-256 of all before | 32 |
//!
//! A part `snapshot/<size>.<part>` is 72 bytes a label, ascending: label (32),
//! version (4; the top bit set for a domain), version in force (4), chain (32).
//!
//! The hashes find damage; the root, computed again from the labels, is what
//! the log signed. The version in force and whose label it is are not under the
//! root: whoever takes a snapshot from somebody else has only that one's word
//! for them.
//!
//! One part is in memory at a time when writing, and one a thread (and one
//! more) when reading.

use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use sha2::{Digest, Sha256};

use super::hash::Hash;
use super::mapped::MapFile;
use super::trie::{Builder, Shard};
use super::{Directory, Error, Options, SHARDS};
use crate::proof::entry::Holder;
use crate::proof::replay::Tip;
use crate::store::{Blobs, keys};

const MAGIC: &[u8] = b"syndicate/v1/snapshot\n";

/// Bytes a label in a part.
const RECORD: usize = 72;

/// Set in the version of a domain's label.
const DOMAIN: u32 = 1 << 31;

/// A part ends with the shard that brings it to as many labels.
const PART_LABELS: u64 = 65_536;

/// Longest notes of the replay, bytes.
const MAX_NOTES: usize = 65_536;

/// Longest index, bytes.
const MAX_INDEX: u64 = 80_000;

/// Largest part that is read, bytes: 59 million labels in 1/256 of the labels.
const MAX_PART: u64 = 1 << 32;

/// Snapshots that a listing may show, parts included.
const MAX_LISTED: usize = 100_000;

/// A directory as its snapshot had it.
#[derive(Debug)]
pub struct Restored {
    pub directory: Directory,
    /// Leaves of the log that it covers.
    pub size: u64,
    /// What the replay wrote of itself.
    pub notes: Vec<u8>,
}

#[derive(Debug, PartialEq, Eq)]
struct Index {
    size: u64,
    labels: u64,
    root: Hash,
    notes: Vec<u8>,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Part {
    first: u8,
    last: u8,
    labels: u64,
    sha256: Hash,
}

/// Writes the directory as it is after `batch`, a batch from the served to the
/// committed one, while further batches may be applied and published. `size`
/// leaves of the log are covered; `notes` (at most 65,536 bytes) come back
/// from [`restore`].
///
/// # Errors
/// [`Error::Head`] if the batch is no longer kept; those of the store. Without
/// its index, which is written last, a snapshot does not exist.
pub async fn write(
    directory: &Arc<Directory>,
    blobs: &Blobs,
    batch: u64,
    size: u64,
    notes: &[u8],
) -> Result<(), Error> {
    if notes.len() > MAX_NOTES {
        return Err(Error::Snapshot { size, what: "the replay's notes are too long" });
    }
    let head = directory.pin(batch)?;
    let pinned = Pinned { directory: directory.clone(), batch };
    let mut parts = Vec::new();
    let mut next = Some(0);
    while let Some(first) = next {
        let source = directory.clone();
        let (part, bytes) = tokio::task::spawn_blocking(move || gather(&source, batch, first))
            .await
            .map_err(|_| Error::Snapshot { size, what: "reading the labels was cut off" })?;
        next = part.last.checked_add(1);
        if part.labels > 0 {
            let key = keys::snapshot_part(size, parts.len());
            blobs.overwrite(&key, bytes).await.map_err(|error| store("write", size, error))?;
            parts.push(part);
        }
    }
    drop(pinned);
    let index = Index { size, labels: head.labels, root: head.root, notes: notes.to_vec(), parts };
    let bytes = index.encode().into();
    blobs.overwrite(&keys::snapshot(size), bytes).await.map_err(|error| store("write", size, error))
}

/// Lets go of the batch however the writing ends.
struct Pinned {
    directory: Arc<Directory>,
    batch: u64,
}

impl Drop for Pinned {
    fn drop(&mut self) {
        self.directory.unpin(self.batch);
    }
}

/// The labels from shard `first` on, until they fill a part.
fn gather(directory: &Directory, batch: u64, first: u8) -> (Part, Bytes) {
    let mut bytes = Vec::new();
    let mut last = first;
    loop {
        directory.each(last, batch, |label, tip| {
            // The trie keeps versions in 31 bits.
            let domain = if tip.holder == Holder::Domain { DOMAIN } else { 0 };
            bytes.extend_from_slice(label);
            bytes.extend_from_slice(&(tip.version as u32 | domain).to_be_bytes());
            bytes.extend_from_slice(&(tip.current as u32).to_be_bytes());
            bytes.extend_from_slice(&tip.chain);
        });
        let labels = (bytes.len() / RECORD) as u64;
        if labels >= PART_LABELS || last == u8::MAX {
            let sha256 = Sha256::digest(&bytes).into();
            return (Part { first, last, labels, sha256 }, bytes.into());
        }
        last += 1;
    }
}

/// Reads the snapshot at a tree size, if there is one, and checks all of it.
///
/// # Errors
/// [`Error::Snapshot`] if anything is damaged or missing; those of the store, and
/// of a file for the map.
pub async fn restore(
    blobs: &Blobs,
    size: u64,
    options: Options,
) -> Result<Option<Restored>, Error> {
    let key = keys::snapshot(size);
    let Some(bytes) =
        blobs.get(&key, MAX_INDEX).await.map_err(|error| store("read", size, error))?
    else {
        return Ok(None);
    };
    let damaged = |what| Error::Snapshot { size, what };
    let index = Index::decode(&bytes).map_err(damaged)?;
    if index.size != size {
        return Err(damaged("the index is that of another size"));
    }
    let file = options.place.file();
    let built: Vec<Vec<(u8, Shard)>> = stream::iter(index.parts.iter().cloned().enumerate())
        .map(|(number, part)| read_part(blobs, size, number, part, file.clone()))
        .buffer_unordered(options.threads.clamp(1, super::MAX_THREADS) + 1)
        .try_collect()
        .await?;
    let mut shards: Vec<Shard> = (0..SHARDS).map(|_| Shard::new(file.clone())).collect();
    for (number, shard) in built.into_iter().flatten() {
        shards[usize::from(number)] = shard;
    }
    let directory = Directory::from_shards(options, shards, file);
    let head = directory.committed();
    if (head.root, head.labels) != (index.root, index.labels) {
        return Err(damaged("the labels do not hash to the root"));
    }
    Ok(Some(Restored { directory, size, notes: index.notes }))
}

async fn read_part(
    blobs: &Blobs,
    size: u64,
    number: usize,
    part: Part,
    file: Option<Arc<MapFile>>,
) -> Result<Vec<(u8, Shard)>, Error> {
    let damaged = move |what| Error::Snapshot { size, what };
    let limit = part
        .labels
        .checked_mul(RECORD as u64)
        .filter(|&limit| limit <= MAX_PART)
        .ok_or(damaged("a part is too large"))?;
    let bytes = blobs
        .get(&keys::snapshot_part(size, number), limit)
        .await
        .map_err(|error| store("read", size, error))?
        .ok_or(damaged("a part is missing"))?;
    if bytes.len() as u64 != limit {
        return Err(damaged("a part has another length"));
    }
    tokio::task::spawn_blocking(move || build(&part, &bytes, file, damaged))
        .await
        .map_err(|_| damaged("reading a part was cut off"))?
}

/// The shards of a part.
fn build(
    part: &Part,
    bytes: &[u8],
    file: Option<Arc<MapFile>>,
    damaged: impl Fn(&'static str) -> Error,
) -> Result<Vec<(u8, Shard)>, Error> {
    if Sha256::digest(bytes)[..] != part.sha256 {
        return Err(damaged("a part has other bytes than the index says"));
    }
    let (mut records, _) = bytes.as_chunks::<RECORD>();
    let mut shards = Vec::new();
    for number in part.first..=part.last {
        let (here, rest) = records.split_at(records.partition_point(|r| r[0] <= number));
        records = rest;
        let mut builder = Builder::new(file.clone(), here.len()).map_err(Error::File)?;
        for record in here {
            let (label, tip) = parse(record);
            if label[0] != number {
                return Err(damaged("a label is in another part than its own"));
            }
            builder.push(&label, &tip).map_err(&damaged)?;
        }
        shards.push((number, builder.finish()));
    }
    if !records.is_empty() {
        return Err(damaged("a label is in another part than its own"));
    }
    Ok(shards)
}

fn parse(record: &[u8; RECORD]) -> (Hash, Tip) {
    // A record is exactly as long as its fields.
    let mut reader = Reader(record);
    let label = reader.array().unwrap_or_default();
    let version = u32::from_be_bytes(reader.array().unwrap_or_default());
    let current = u32::from_be_bytes(reader.array().unwrap_or_default());
    let chain = reader.array().unwrap_or_default();
    let holder = if version & DOMAIN == 0 { Holder::User } else { Holder::Domain };
    let version = u64::from(version & !DOMAIN);
    (label, Tip { holder, version, current: current.into(), chain })
}

/// Sizes of the snapshots in the store, the newest first.
pub async fn sizes(blobs: &Blobs) -> Result<Vec<u64>, Error> {
    let listed =
        blobs.list_all("snapshot", MAX_LISTED).await.map_err(|error| store("list", 0, error))?;
    let names = listed.iter().filter_map(|found| found.key.rsplit('/').next());
    let mut sizes: Vec<u64> = names.filter_map(keys::parse_number).collect();
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    Ok(sizes)
}

/// Deletes a snapshot, its index first.
pub async fn delete(blobs: &Blobs, size: u64) -> Result<(), Error> {
    let failed = |error| store("delete", size, error);
    blobs.delete(&keys::snapshot(size)).await.map_err(failed)?;
    for part in 0..SHARDS {
        let key = keys::snapshot_part(size, part);
        if blobs.head(&key).await.map_err(failed)?.is_none() {
            break;
        }
        blobs.delete(&key).await.map_err(failed)?;
    }
    Ok(())
}

fn store(doing: &'static str, size: u64, source: crate::store::Error) -> Error {
    Error::Store { doing, size, source: Box::new(source) }
}

impl Index {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&self.size.to_be_bytes());
        bytes.extend_from_slice(&self.labels.to_be_bytes());
        bytes.extend_from_slice(&self.root);
        bytes.extend_from_slice(&(self.notes.len() as u32).to_be_bytes());
        bytes.extend_from_slice(&self.notes);
        bytes.extend_from_slice(&(self.parts.len() as u16).to_be_bytes());
        for part in &self.parts {
            bytes.extend_from_slice(&[part.first, part.last]);
            bytes.extend_from_slice(&part.labels.to_be_bytes());
            bytes.extend_from_slice(&part.sha256);
        }
        let sum = Sha256::digest(&bytes);
        bytes.extend_from_slice(&sum);
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Index, &'static str> {
        let (body, sum) = bytes.split_last_chunk::<32>().ok_or("the index is cut off")?;
        if Sha256::digest(body)[..] != sum[..] {
            return Err("the index is damaged");
        }
        let body = body.strip_prefix(MAGIC).ok_or("the index is in another format")?;
        Index::read(&mut Reader(body)).ok_or("the index is cut off")?
    }

    /// None: cut off.
    fn read(reader: &mut Reader) -> Option<Result<Index, &'static str>> {
        let size = u64::from_be_bytes(reader.array()?);
        let labels = u64::from_be_bytes(reader.array()?);
        let root = reader.array()?;
        let length = u32::from_be_bytes(reader.array()?) as usize;
        if length > MAX_NOTES {
            return Some(Err("the replay's notes are too long"));
        }
        let notes = reader.take(length)?.to_vec();
        let count = u16::from_be_bytes(reader.array()?);
        let mut parts: Vec<Part> = Vec::new();
        for _ in 0..count {
            let [first, last] = reader.array()?;
            let labels = u64::from_be_bytes(reader.array()?);
            let part = Part { first, last, labels, sha256: reader.array()? };
            let after = parts.last().is_none_or(|before| before.last < first);
            if !after || last < first {
                return Some(Err("the parts overlap"));
            }
            parts.push(part);
        }
        if !reader.0.is_empty() {
            return Some(Err("the index is too long"));
        }
        Some(Ok(Index { size, labels, root, notes, parts }))
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }
}
