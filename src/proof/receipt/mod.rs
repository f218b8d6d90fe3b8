//! A whole answer in one file: what a log holds of a name, with every proof
//! that it needs.
//!
//! This file is the receipt and its one binary encoding
//! (`proto/syndicate/v1/receipt.proto`); `json` mirrors it for JSON, `verify`
//! judges it. Layout and order of checks: `proto/README.md`.

mod contents;
mod history;
pub(in crate::proof) mod json;
mod lineage;
mod named;
mod verdict;
mod verify;

use std::fmt::Write as _;

use bytes::Bytes;

use super::entry::{Entry, Kind, MAX_ENTRY, MAX_PAYLOAD};
use super::map::{Ancestor, CHAIN_START, End, MapProof};
use super::merkle::MAX_PROOF;
use super::note::MAX_NOTE;
use super::wire::{Malformed, Reader, Writer};
use super::{Hash, Label};
use crate::dime::{Name, Timestamp};

pub use lineage::{CarryFault, MAX_CARRIES};
pub use named::{Named, Purpose};
pub use verdict::{Backing, Content, Fault, Note, Statement, Successor, Verdict, Word};
pub use verify::{Asker, verify};

/// The `format` of the receipts that this code writes and knows.
pub const FORMAT: u64 = 1;
/// Longest receipt, bytes.
pub const MAX_RECEIPT: usize = 32 * 1024 * 1024;
/// Longest name, bytes: local part, `@`, domain.
const MAX_NAME: usize = 64 + 1 + 253;

/// What a log answers about a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    pub name: Name,
    /// A signed note, verbatim; its last leaf is `root`.
    pub checkpoint: Bytes,
    /// The directory root, at index size - 1.
    pub root: Leaf,
    /// Entry 0; absent when the asker said that it has it.
    pub genesis: Option<Leaf>,
    /// What the log holds of the name.
    pub subject: Subject,
    /// For an address, what it holds of its domain.
    pub domain: Option<Subject>,
    /// Signets, org signets, records, chains: ascending by SHA-256, each named
    /// by an item. [`Receipt::set_blobs`] brings them into order.
    pub blobs: Vec<Bytes>,
    /// SHA-256 of named blobs that the operator no longer serves; ascending.
    pub withdrawn: Vec<Hash>,
    /// The closing entry, at index size - 2, if the log has ended.
    pub closing: Option<Leaf>,
}

/// An entry in the log's tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    pub entry: Bytes,
    /// RFC 6962 inclusion path, the leaf's sibling first.
    pub path: Vec<Hash>,
}

/// One label's part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// For an address, and only for one.
    pub vrf_proof: Option<[u8; 80]>,
    pub map: MapProof,
    /// The chain value before the first item.
    pub chain: Hash,
    /// Ascending versions without a gap, up to the latest; none for absence.
    pub items: Vec<Item>,
    pub seen: Option<Seen>,
    /// Of a mailbox whose items reach back into predecessors: the steps there,
    /// nearest first, at most [`MAX_CARRIES`].
    pub carries: Vec<Carry>,
}

/// How a mailbox came over from the log before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carry {
    /// The carried entry, in the tree of this log; in the second step in the
    /// final tree of its predecessor, and so on.
    pub entry: Leaf,
    pub index: u64,
    /// The predecessor's genesis entry, in its final tree.
    pub genesis: Leaf,
    /// Under the predecessor's VRF key.
    pub vrf_proof: Option<[u8; 80]>,
}

/// One version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    pub entry: Bytes,
    /// For users; may be gone before a FORGOTTEN.
    pub hidden: Option<Hidden>,
}

/// What opens a commitment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hidden {
    /// An encoded [`super::entry::UserPayload`].
    pub payload: Bytes,
    pub opening: [u8; 32],
}

/// When the DX was last seen to serve what the log holds, by the log's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// 0: never.
    pub confirmed_at: Timestamp,
    /// When it was last asked.
    pub attempted_at: Timestamp,
    /// The log key's, over [`Seen::message`].
    pub signature: [u8; 64],
}

impl Seen {
    /// What the log key signs. `version` is the latest, 0 for an absent label;
    /// `root` the directory root that the receipt proves.
    pub fn message(
        origin: &str,
        label: &Label,
        version: u64,
        confirmed_at: Timestamp,
        attempted_at: Timestamp,
        root: &Hash,
    ) -> String {
        let mut text = format!("syndicate/v1/seen\n{origin}\n{label}\n{version}\n");
        let (confirmed, attempted) = (confirmed_at.millis(), attempted_at.millis());
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{confirmed}\n{attempted}\n{}", hex::encode(root));
        text
    }

    /// Signed with the log key's seed.
    pub fn sign(
        seed: &[u8; 32],
        origin: &str,
        label: &Label,
        version: u64,
        confirmed_at: Timestamp,
        attempted_at: Timestamp,
        root: &Hash,
    ) -> Seen {
        let text = Seen::message(origin, label, version, confirmed_at, attempted_at, root);
        let signature = crate::dime::ed25519::sign(seed, text.as_bytes());
        Seen { confirmed_at, attempted_at, signature }
    }
}

impl Receipt {
    /// Puts blobs into their order, each once.
    pub fn set_blobs(&mut self, blobs: impl IntoIterator<Item = Bytes>) {
        let blobs: std::collections::BTreeMap<Hash, Bytes> =
            blobs.into_iter().map(|blob| (super::entry::Blob::of(&blob).sha256, blob)).collect();
        self.blobs = blobs.into_values().collect();
    }

    /// The newest version that it shows, 0 for none. Not verified.
    pub fn latest(&self) -> u64 {
        self.subject.items.last().map_or(0, Item::version)
    }

    /// The oldest one, likewise.
    pub fn first(&self) -> u64 {
        self.subject.items.first().map_or(0, Item::version)
    }

    /// The one encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::with_capacity(4096);
        writer
            .uint(1, FORMAT)
            .bytes(2, self.name.as_str().as_bytes())
            .bytes(3, &self.checkpoint)
            .message(4, |w| self.root.encode(w));
        if let Some(genesis) = &self.genesis {
            writer.message(5, |w| genesis.encode(w));
        }
        writer.message(6, |w| self.subject.encode(w));
        if let Some(domain) = &self.domain {
            writer.message(7, |w| domain.encode(w));
        }
        for blob in &self.blobs {
            writer.delimited(8, blob);
        }
        for hash in &self.withdrawn {
            writer.delimited(9, hash);
        }
        if let Some(closing) = &self.closing {
            writer.message(10, |w| closing.encode(w));
        }
        writer.finish()
    }

    /// Refuses anything but the one encoding of a receipt of [`FORMAT`], at
    /// most [`MAX_RECEIPT`] bytes. Says nothing about whether it is true.
    pub fn decode(bytes: &[u8]) -> Result<Receipt, Malformed> {
        let mut reader = Reader::limited(bytes, MAX_RECEIPT)?;
        if reader.required_uint(1)? != FORMAT {
            return Err(Malformed::Value(1, "this format is not known"));
        }
        let text = reader.text(2, MAX_NAME)?;
        let name = text
            .parse::<Name>()
            .ok()
            .filter(|name| name.as_str() == text)
            .ok_or(Malformed::Value(2, "it is not a normalized name"))?;
        let checkpoint = reader.bytes(3)?;
        if checkpoint.is_empty() {
            return Err(Malformed::Missing(3));
        }
        if checkpoint.len() > MAX_NOTE {
            return Err(Malformed::Length(3));
        }
        let root = Leaf::decode(reader.message(4)?.ok_or(Malformed::Missing(4))?)?;
        let genesis = reader.message(5)?.map(Leaf::decode).transpose()?;
        let subject = Subject::decode(reader.message(6)?.ok_or(Malformed::Missing(6))?)?;
        let domain = reader.message(7)?.map(Subject::decode).transpose()?;
        let mut blobs = Vec::new();
        while let Some(blob) = reader.delimited(8)? {
            if blob.is_empty() {
                return Err(Malformed::Length(8));
            }
            blobs.push(Bytes::copy_from_slice(blob));
        }
        let mut withdrawn = Vec::new();
        while let Some(hash) = reader.delimited(9)? {
            withdrawn.push(hash.try_into().map_err(|_| Malformed::Length(9))?);
        }
        let closing = reader.message(10)?.map(Leaf::decode).transpose()?;
        reader.end()?;
        let checkpoint = Bytes::copy_from_slice(checkpoint);
        Ok(Receipt { name, checkpoint, root, genesis, subject, domain, blobs, withdrawn, closing })
    }
}

impl Leaf {
    fn encode(&self, writer: &mut Writer) {
        writer.bytes(1, &self.entry).bytes(2, &self.path.concat());
    }

    fn decode(mut reader: Reader<'_>) -> Result<Leaf, Malformed> {
        let entry = entry(&mut reader)?;
        let path = reader.bytes(2)?;
        let (hashes, []) = path.as_chunks::<32>() else { return Err(Malformed::Length(2)) };
        if hashes.len() > MAX_PROOF {
            return Err(Malformed::Length(2));
        }
        reader.end()?;
        Ok(Leaf { entry, path: hashes.to_vec() })
    }
}

impl Subject {
    fn encode(&self, writer: &mut Writer) {
        if let Some(proof) = &self.vrf_proof {
            writer.bytes(1, proof);
        }
        writer.message(2, |w| encode_map(&self.map, w));
        if self.chain != CHAIN_START {
            writer.bytes(3, &self.chain);
        }
        for item in &self.items {
            writer.message(4, |w| item.encode(w));
        }
        if let Some(seen) = &self.seen {
            writer.message(5, |w| {
                w.uint(1, seen.confirmed_at.millis())
                    .uint(2, seen.attempted_at.millis())
                    .bytes(3, &seen.signature);
            });
        }
        for carry in &self.carries {
            writer.message(6, |w| carry.encode(w));
        }
    }

    fn decode(mut reader: Reader<'_>) -> Result<Subject, Malformed> {
        let vrf_proof = reader.array(1)?;
        let map = reader.message(2)?.ok_or(Malformed::Missing(2))?;
        let chain = match reader.array(3)? {
            Some(CHAIN_START) => return Err(Malformed::Default(3)),
            chain => chain.unwrap_or(CHAIN_START),
        };
        let mut items = Vec::new();
        while let Some(item) = reader.message(4)? {
            items.push(Item::decode(item)?);
        }
        let seen = reader.message(5)?.map(decode_seen).transpose()?;
        let mut carries = Vec::new();
        while let Some(carry) = reader.message(6)? {
            if carries.len() == MAX_CARRIES {
                return Err(Malformed::Length(6));
            }
            carries.push(Carry::decode(carry)?);
        }
        reader.end()?;
        let map = decode_map(map, !items.is_empty())?;
        Ok(Subject { vrf_proof, map, chain, items, seen, carries })
    }
}

impl Carry {
    pub(crate) fn encode(&self, writer: &mut Writer) {
        writer
            .message(1, |w| self.entry.encode(w))
            .uint(2, self.index)
            .message(3, |w| self.genesis.encode(w));
        if let Some(proof) = &self.vrf_proof {
            writer.bytes(4, proof);
        }
    }

    pub(crate) fn decode(mut reader: Reader<'_>) -> Result<Carry, Malformed> {
        let entry = Leaf::decode(reader.message(1)?.ok_or(Malformed::Missing(1))?)?;
        let index = reader.required_uint(2)?;
        let genesis = Leaf::decode(reader.message(3)?.ok_or(Malformed::Missing(3))?)?;
        let vrf_proof = reader.array(4)?;
        reader.end()?;
        Ok(Carry { entry, index, genesis, vrf_proof })
    }
}

impl Item {
    /// 0 if its entry cannot be read.
    fn version(&self) -> u64 {
        match Entry::decode(&self.entry).map(|entry| entry.kind) {
            Ok(Kind::Domain(entry)) => entry.version,
            Ok(Kind::User(entry)) => entry.version,
            Ok(Kind::Forgotten(entry)) => entry.version,
            _ => 0,
        }
    }

    fn encode(&self, writer: &mut Writer) {
        writer.bytes(1, &self.entry);
        if let Some(hidden) = &self.hidden {
            writer.bytes(2, &hidden.payload).bytes(3, &hidden.opening);
        }
    }

    fn decode(mut reader: Reader<'_>) -> Result<Item, Malformed> {
        let entry = entry(&mut reader)?;
        let payload = reader.bytes(2)?;
        if payload.len() > MAX_PAYLOAD {
            return Err(Malformed::Length(2));
        }
        let opening = reader.array(3)?;
        reader.end()?;
        let hidden = match (payload, opening) {
            ([], None) => None,
            ([], Some(_)) => return Err(Malformed::Missing(2)),
            (_, None) => return Err(Malformed::Missing(3)),
            (payload, Some(opening)) => {
                Some(Hidden { payload: Bytes::copy_from_slice(payload), opening })
            }
        };
        Ok(Item { entry, hidden })
    }
}

fn entry(reader: &mut Reader<'_>) -> Result<Bytes, Malformed> {
    let entry = reader.bytes(1)?;
    if entry.is_empty() {
        return Err(Malformed::Missing(1));
    }
    if entry.len() > MAX_ENTRY {
        return Err(Malformed::Length(1));
    }
    Ok(Bytes::copy_from_slice(entry))
}

pub(in crate::proof) fn encode_map(map: &MapProof, writer: &mut Writer) {
    let mut path = Vec::with_capacity(33 * map.path.len());
    for ancestor in &map.path {
        path.push(ancestor.length);
        path.extend_from_slice(&ancestor.sibling);
    }
    writer.bytes(1, &path);
    match &map.end {
        End::Present | End::Empty => {}
        End::Leaf { label, version, chain } => {
            writer.message(2, |w| {
                w.message(1, |w| {
                    w.bytes(1, &label.0).uint(2, *version).bytes(3, chain);
                });
            });
        }
        End::Inner { length, prefix, left, right } => {
            writer.message(2, |w| {
                w.message(2, |w| {
                    w.uint(1, u64::from(*length)).bytes(2, prefix).bytes(3, left).bytes(4, right);
                });
            });
        }
    }
}

/// Whether the label is `present` stands outside the proof: it has items.
pub(in crate::proof) fn decode_map(
    mut reader: Reader<'_>,
    present: bool,
) -> Result<MapProof, Malformed> {
    let bytes = reader.bytes(1)?;
    let (nodes, []) = bytes.as_chunks::<33>() else { return Err(Malformed::Length(1)) };
    if nodes.len() > 256 {
        return Err(Malformed::Length(1));
    }
    let path = nodes
        .iter()
        .map(|[length, sibling @ ..]| Ancestor { length: *length, sibling: *sibling })
        .collect();
    let end = match reader.message(2)? {
        None if present => End::Present,
        None => End::Empty,
        Some(mut end) => {
            let found = if let Some(mut leaf) = end.message(1)? {
                let label = Label(leaf.hash(1)?);
                let version = leaf.required_uint(2)?;
                let chain = leaf.hash(3)?;
                leaf.end()?;
                End::Leaf { label, version, chain }
            } else if let Some(mut inner) = end.message(2)? {
                let length = u8::try_from(inner.uint(1)?)
                    .map_err(|_| Malformed::Value(1, "a prefix has at most 255 bits"))?;
                let prefix = inner.hash(2)?;
                let left = inner.hash(3)?;
                let right = inner.hash(4)?;
                inner.end()?;
                End::Inner { length, prefix, left, right }
            } else {
                end.end()?;
                return Err(Malformed::Missing(1));
            };
            end.end()?;
            found
        }
    };
    reader.end()?;
    Ok(MapProof { path, end })
}

fn decode_seen(mut reader: Reader<'_>) -> Result<Seen, Malformed> {
    let confirmed_at = Timestamp::from_millis(reader.uint(1)?);
    let attempted_at = Timestamp::from_millis(reader.required_uint(2)?);
    let signature = reader.array(3)?.ok_or(Malformed::Missing(3))?;
    reader.end()?;
    Ok(Seen { confirmed_at, attempted_at, signature })
}
