//! The map from label to history: node hashes, proofs and their verification,
//! and a plain map that is slow and obviously right.
//!
//! A path-compressed binary trie over labels, bits taken most significant
//! first: an inner node stands exactly where labels part, so one set of labels
//! has one tree. A proof that leaves anything open is refused.

use std::collections::BTreeMap;
use std::convert::Infallible;

use sha2::{Digest, Sha256};

use super::replay::{self, Change, EngineStop, Fault, Head, MapEngine, Tip};
use super::{Hash, Label};

/// The chain value before version 1.
pub const CHAIN_START: Hash = [0; 32];

/// `SHA-256(02 || label || version as u64 BE || chain)`.
pub fn leaf_hash(label: &Label, version: u64, chain: &Hash) -> Hash {
    let mut block = [0; 73];
    block[0] = 0x02;
    block[1..33].copy_from_slice(&label.0);
    block[33..41].copy_from_slice(&version.to_be_bytes());
    block[41..].copy_from_slice(chain);
    Sha256::digest(block).into()
}

/// `SHA-256(03 || prefix length in bits as u16 BE || prefix || left || right)`;
/// the prefix's unused bits are zero.
pub fn inner_hash(length: u8, prefix: &[u8; 32], left: &Hash, right: &Hash) -> Hash {
    let mut block = [0; 99];
    block[0] = 0x03;
    block[1..3].copy_from_slice(&u16::from(length).to_be_bytes());
    block[3..35].copy_from_slice(prefix);
    block[35..67].copy_from_slice(left);
    block[67..].copy_from_slice(right);
    Sha256::digest(block).into()
}

/// The root of a map without labels: `SHA-256(04)`.
pub fn empty_root() -> Hash {
    Sha256::digest([0x04]).into()
}

/// `SHA-256(05 || chain before || RFC 6962 leaf hash of the entry)`.
pub fn chain_next(chain: &Hash, entry_leaf_hash: &Hash) -> Hash {
    let mut block = [0; 65];
    block[0] = 0x05;
    block[1..33].copy_from_slice(chain);
    block[33..].copy_from_slice(entry_leaf_hash);
    Sha256::digest(block).into()
}

/// `SHA-256(00 || entry)`, RFC 6962 §2.1: the entry's leaf in the log.
pub fn entry_leaf_hash(entry: &[u8]) -> Hash {
    Sha256::new().chain_update([0x00]).chain_update(entry).finalize().into()
}

/// One ancestor on a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ancestor {
    /// Its prefix length, bits.
    pub length: u8,
    /// Hash of the child that the path does not go through.
    pub sibling: Hash,
}

/// What the map holds of one label, proved by one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapProof {
    /// From the leaf (or `end`) up to the root.
    pub path: Vec<Ancestor>,
    pub end: End,
}

/// Where the path begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// At the label's own leaf.
    Present,
    /// Nowhere: the map is empty.
    Empty,
    /// At another label's leaf, which stands where this label would.
    Leaf { label: Label, version: u64, chain: Hash },
    /// At a node whose prefix the label does not have.
    Inner { length: u8, prefix: [u8; 32], left: Hash, right: Hash },
}

/// Why a proof was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MapFault {
    #[error("the prefix lengths on the path do not descend towards the root")]
    Order,
    #[error("a prefix has bits set behind its length")]
    Prefix,
    #[error("the end of the path does not lie below the path")]
    Astray,
    #[error("the end of the path does not exclude the label")]
    Covers,
    #[error("a path beside an empty map")]
    Leftover,
    #[error("the proof is of the other kind: presence and absence are not the same")]
    Kind,
    #[error("no entries, or version 0")]
    Empty,
    #[error("the proof leads to another root")]
    Root,
}

impl MapFault {
    /// The rule's name, the same in the second verifier.
    pub fn rule(self) -> &'static str {
        match self {
            MapFault::Order => "map-order",
            MapFault::Prefix => "map-prefix",
            MapFault::Astray => "map-astray",
            MapFault::Covers => "map-covers",
            MapFault::Leftover => "map-leftover",
            MapFault::Kind => "map-kind",
            MapFault::Empty => "map-empty",
            MapFault::Root => "map-root",
        }
    }
}

impl MapProof {
    /// Checks that the label's newest version is `version` with `chain`.
    pub fn verify_present(
        &self,
        root: &Hash,
        label: &Label,
        version: u64,
        chain: &Hash,
    ) -> Result<(), MapFault> {
        if self.end != End::Present {
            return Err(MapFault::Kind);
        }
        if version == 0 {
            return Err(MapFault::Empty);
        }
        let top = climb(label, leaf_hash(label, version, chain), &self.path, 256)?;
        if top == *root { Ok(()) } else { Err(MapFault::Root) }
    }

    /// Checks that `entries` are the label's versions from `first` to the
    /// newest, `chain` being the chain value before `first`. One entry is a
    /// proof of the latest version, all entries are one of the whole history.
    pub fn verify_history<'e>(
        &self,
        root: &Hash,
        label: &Label,
        first: u64,
        chain: &Hash,
        entries: impl IntoIterator<Item = &'e [u8]>,
    ) -> Result<(), MapFault> {
        let mut chain = *chain;
        let mut version = first.checked_sub(1).ok_or(MapFault::Empty)?;
        if version == 0 && chain != CHAIN_START {
            return Err(MapFault::Root);
        }
        for entry in entries {
            chain = chain_next(&chain, &entry_leaf_hash(entry));
            version = version.checked_add(1).ok_or(MapFault::Empty)?;
        }
        if version < first {
            return Err(MapFault::Empty);
        }
        self.verify_present(root, label, version, &chain)
    }

    /// Checks that the map does not hold the label.
    pub fn verify_absent(&self, root: &Hash, label: &Label) -> Result<(), MapFault> {
        // The bits that the end must share with the label, to lie on its side
        // of the deepest ancestor.
        let shared = self.path.first().map_or(0, |deepest| u16::from(deepest.length) + 1);
        let (bottom, height) = match self.end {
            End::Present => return Err(MapFault::Kind),
            End::Empty if !self.path.is_empty() => return Err(MapFault::Leftover),
            End::Empty => (empty_root(), 256),
            End::Leaf { label: other, version, chain } => {
                if version == 0 {
                    return Err(MapFault::Empty);
                }
                let common = common_bits(&other.0, &label.0);
                if common == 256 {
                    return Err(MapFault::Covers);
                }
                if common < shared {
                    return Err(MapFault::Astray);
                }
                (leaf_hash(&other, version, &chain), 256)
            }
            End::Inner { length, prefix, left, right } => {
                if prefix_of(&prefix, length) != prefix {
                    return Err(MapFault::Prefix);
                }
                let common = common_bits(&prefix, &label.0);
                if common >= u16::from(length) {
                    return Err(MapFault::Covers);
                }
                if common < shared {
                    return Err(MapFault::Astray);
                }
                (inner_hash(length, &prefix, &left, &right), u16::from(length))
            }
        };
        let top = climb(label, bottom, &self.path, height)?;
        if top == *root { Ok(()) } else { Err(MapFault::Root) }
    }
}

/// From a node of prefix length `height` (256 for a leaf) up to the root.
fn climb(
    label: &Label,
    bottom: Hash,
    path: &[Ancestor],
    mut height: u16,
) -> Result<Hash, MapFault> {
    let mut node = bottom;
    for ancestor in path {
        let length = ancestor.length;
        if u16::from(length) >= height {
            return Err(MapFault::Order);
        }
        height = u16::from(length);
        let prefix = prefix_of(&label.0, length);
        node = if label.bit(length) {
            inner_hash(length, &prefix, &ancestor.sibling, &node)
        } else {
            inner_hash(length, &prefix, &node, &ancestor.sibling)
        };
    }
    Ok(node)
}

/// The first `length` bits, the others zero.
pub fn prefix_of(bits: &[u8; 32], length: u8) -> [u8; 32] {
    let mut prefix = *bits;
    let whole = usize::from(length / 8);
    prefix[whole] &= !(0xff >> (length % 8));
    prefix[whole + 1..].fill(0);
    prefix
}

/// How many leading bits are the same, 0 to 256.
pub fn common_bits(a: &[u8; 32], b: &[u8; 32]) -> u16 {
    let mut bits = 0;
    for (a, b) in a.iter().zip(b) {
        let differ = a ^ b;
        if differ != 0 {
            return bits + differ.leading_zeros() as u16;
        }
        bits += 8;
    }
    bits
}

/// The map, written down plainly: every root and proof is built from all
/// labels. The oracle for faster engines, and enough for a small log.
#[derive(Clone, Debug, Default)]
pub struct PlainMap {
    tips: BTreeMap<Label, Tip>,
}

impl PlainMap {
    pub fn new() -> PlainMap {
        PlainMap::default()
    }

    pub fn len(&self) -> usize {
        self.tips.len()
    }

    pub fn is_empty(&self) -> bool {
        self.tips.is_empty()
    }

    pub fn tip(&self, label: &Label) -> Option<&Tip> {
        self.tips.get(label)
    }

    /// All labels in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = (&Label, &Tip)> {
        self.tips.iter()
    }

    pub fn insert(&mut self, label: Label, tip: Tip) {
        self.tips.insert(label, tip);
    }

    pub fn root(&self) -> Hash {
        let leaves = self.leaves();
        if leaves.is_empty() { empty_root() } else { node(&leaves) }
    }

    /// The proof of whatever the map holds of the label.
    pub fn prove(&self, label: &Label) -> MapProof {
        let leaves = self.leaves();
        let mut path = Vec::new();
        let mut rest = leaves.as_slice();
        let end = loop {
            match rest {
                [] => break End::Empty,
                [(own, _)] if own == label => break End::Present,
                [(other, tip)] => {
                    break End::Leaf { label: *other, version: tip.version, chain: tip.chain };
                }
                [(first, _), ..] => {
                    let (length, left, right) = split(rest);
                    let prefix = prefix_of(&first.0, length);
                    if common_bits(&prefix, &label.0) < u16::from(length) {
                        break End::Inner { length, prefix, left: node(left), right: node(right) };
                    }
                    let (own, other) =
                        if label.bit(length) { (right, left) } else { (left, right) };
                    path.push(Ancestor { length, sibling: node(other) });
                    rest = own;
                }
            }
        };
        path.reverse();
        MapProof { path, end }
    }

    fn leaves(&self) -> Vec<Leaf> {
        self.tips.iter().map(|(label, tip)| (*label, *tip)).collect()
    }
}

impl MapEngine for PlainMap {
    type Error = Infallible;

    fn tip(&self, label: &Label) -> Option<Tip> {
        self.tips.get(label).copied()
    }

    fn apply(&mut self, changes: &[Change]) -> Result<Head, EngineStop<Infallible>> {
        let mut moved = Vec::new();
        let mut worst: Option<Fault> = None;
        for changes in changes.chunk_by(|a, b| a.label == b.label) {
            let Some(first) = changes.first() else { continue };
            match replay::advance(self.tip(&first.label).copied(), changes) {
                Ok(tip) => moved.push((first.label, tip)),
                Err(fault) if worst.is_some_and(|worst| worst.index < fault.index) => {}
                Err(fault) => worst = Some(fault),
            }
        }
        if let Some(fault) = worst {
            return Err(fault.into());
        }
        self.tips.extend(moved);
        Ok(self.head())
    }

    fn head(&self) -> Head {
        Head { root: self.root(), labels: self.tips.len() as u64 }
    }
}

/// The root of a map whose leaves come in ascending order, without keeping them:
/// only the right edge of the trie is in memory, at most 257 nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ascending {
    edge: Vec<Edge>,
}

/// A finished subtree on the right edge.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Edge {
    /// Its last leaf's.
    label: Label,
    hash: Hash,
    /// Bits shared with the subtree to the left of it, 0 for the first.
    shared: u16,
}

impl Ascending {
    /// Takes the next leaf's hash. `false`, and nothing is taken, if its label
    /// is not above the last one.
    #[must_use]
    pub fn push(&mut self, label: Label, leaf: Hash) -> bool {
        let shared = match self.edge.last() {
            None => 0,
            Some(last) if last.label >= label => return false,
            Some(last) => common_bits(&last.label.0, &label.0),
        };
        while self.edge.len() > 1 && self.edge.last().is_some_and(|last| last.shared > shared) {
            self.join();
        }
        self.edge.push(Edge { label, hash: leaf, shared });
        true
    }

    /// 66 bytes a node, at most 257 of them.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(66 * self.edge.len());
        for edge in &self.edge {
            bytes.extend_from_slice(&edge.label.0);
            bytes.extend_from_slice(&edge.hash);
            bytes.extend_from_slice(&edge.shared.to_be_bytes());
        }
        bytes
    }

    /// The inverse; what it was given is trusted to be that, of no more nodes than
    /// there can be.
    pub fn decode(bytes: &[u8]) -> Option<Ascending> {
        let (nodes, []) = bytes.as_chunks::<66>() else { return None };
        if nodes.len() > 257 {
            return None;
        }
        let edge = nodes.iter().map(|node| {
            let (label, rest) = node.split_first_chunk::<32>()?;
            let (hash, shared) = rest.split_first_chunk::<32>()?;
            let shared = u16::from_be_bytes(shared.try_into().ok()?);
            Some(Edge { label: Label(*label), hash: *hash, shared })
        });
        Some(Ascending { edge: edge.collect::<Option<_>>()? })
    }

    /// The label that came last.
    pub fn last(&self) -> Option<Label> {
        self.edge.last().map(|last| last.label)
    }

    pub fn root(mut self) -> Hash {
        while self.edge.len() > 1 {
            self.join();
        }
        self.edge.pop().map_or_else(empty_root, |edge| edge.hash)
    }

    /// Makes one subtree of the last two.
    fn join(&mut self) {
        if let (Some(right), Some(left)) = (self.edge.pop(), self.edge.last_mut()) {
            // Different labels share at most 255 bits.
            let length = right.shared.min(255) as u8;
            let prefix = prefix_of(&right.label.0, length);
            left.hash = inner_hash(length, &prefix, &left.hash, &right.hash);
            left.label = right.label;
        }
    }
}

type Leaf = (Label, Tip);

/// The hash of the subtree over one or more leaves in ascending order.
fn node(leaves: &[Leaf]) -> Hash {
    match leaves {
        [(label, tip)] => leaf_hash(label, tip.version, &tip.chain),
        _ => {
            let (length, left, right) = split(leaves);
            let prefix = leaves.first().map_or([0; 32], |(first, _)| prefix_of(&first.0, length));
            inner_hash(length, &prefix, &node(left), &node(right))
        }
    }
}

/// Where two or more ascending leaves part: prefix length, left, right.
fn split(leaves: &[Leaf]) -> (u8, &[Leaf], &[Leaf]) {
    let length = match (leaves.first(), leaves.last()) {
        // Different labels share at most 255 bits.
        (Some((first, _)), Some((last, _))) => common_bits(&first.0, &last.0).min(255) as u8,
        _ => 0,
    };
    let (left, right) = leaves.split_at(leaves.partition_point(|(label, _)| !label.bit(length)));
    (length, left, right)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proof::entry::Holder;

    fn tip(version: u64, byte: u8) -> Tip {
        Tip { holder: Holder::User, version, current: version, chain: [byte; 32] }
    }

    fn map_of(labels: &[Label]) -> PlainMap {
        let mut map = PlainMap::new();
        for label in labels {
            map.insert(*label, tip(1 + u64::from(label.0[31]), label.0[0]));
        }
        map
    }

    proptest! {
        #[test]
        fn ascending_leaves_make_the_same_root(labels in labels()) {
            let map = map_of(&labels);
            let mut ascending = Ascending::default();
            let mut last = None;
            for (label, tip) in map.iter() {
                let kept = Ascending::decode(&ascending.encode());
                prop_assert_eq!(kept, Some(ascending.clone()));
                prop_assert!(ascending.push(*label, leaf_hash(label, tip.version, &tip.chain)));
                prop_assert!(!ascending.push(*label, [0; 32]));
                last = Some(*label);
            }
            prop_assert!(last.is_none_or(|_| !ascending.push(Label([0; 32]), [0; 32])));
            prop_assert_eq!(ascending.root(), map.root());
        }
    }

    /// What the fuzz target of kept objects would have needed long to find: nodes that
    /// no map has were dropped, and the rest was taken for a map.
    #[test]
    fn a_deeper_edge_than_any_map_has_is_none() {
        assert!(Ascending::decode(&[0; 66 * 257]).is_some());
        assert!(Ascending::decode(&[0; 66 * 258]).is_none());
    }

    /// Labels that often share long prefixes.
    fn labels() -> impl Strategy<Value = Vec<Label>> {
        let label = (any::<u8>(), 0u8..32, any::<u8>()).prop_map(|(first, at, byte)| {
            let mut label = [0; 32];
            label[0] = first & 0xc0;
            label[usize::from(at)] ^= byte;
            Label(label)
        });
        proptest::collection::vec(label, 0..40)
    }

    #[test]
    fn bits_are_counted_from_the_top() {
        assert_eq!(common_bits(&[0xff; 32], &[0xff; 32]), 256);
        let mut other = [0xff; 32];
        other[3] = 0xfb;
        assert_eq!(common_bits(&[0xff; 32], &other), 29);
        assert_eq!(prefix_of(&[0xff; 32], 0), [0; 32]);
        let prefix = prefix_of(&[0xff; 32], 9);
        assert_eq!(prefix[..3], [0xff, 0x80, 0]);
        assert_eq!(prefix_of(&[0xff; 32], 255)[31], 0xfe);
    }

    #[test]
    fn one_label_is_its_own_root() {
        let label = Label([5; 32]);
        let map = map_of(&[label]);
        assert_eq!(map.root(), leaf_hash(&label, 6, &[5; 32]));
        assert_eq!(PlainMap::new().root(), empty_root());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_proof_verifies_and_none_proves_the_opposite(
            present in labels(), asked in labels(),
        ) {
            let map = map_of(&present);
            let root = map.root();
            for label in present.iter().chain(&asked) {
                let proof = map.prove(label);
                let tip = map.tip(label);
                let (version, chain) = tip.map_or((1, CHAIN_START), |t| (t.version, t.chain));
                let here = proof.verify_present(&root, label, version, &chain);
                let gone = proof.verify_absent(&root, label);
                prop_assert_eq!(here.is_ok(), tip.is_some());
                prop_assert_eq!(gone.is_ok(), tip.is_none());
                if tip.is_some() {
                    let newer = proof.verify_present(&root, label, version + 1, &chain);
                    prop_assert_eq!(newer, Err(MapFault::Root));
                }
            }
        }

        /// A proof for one label serves no other, and no other root.
        #[test]
        fn a_changed_proof_is_refused(
            present in labels(), asked in labels(), at: prop::sample::Index, flip in 1u8..,
        ) {
            let map = map_of(&present);
            let root = map.root();
            for label in &asked {
                let proof = map.prove(label);
                let tip = map.tip(label).copied().unwrap_or(tip(1, 0));
                let holds = |proof: &MapProof| {
                    proof.verify_absent(&root, label).is_ok()
                        || proof.verify_present(&root, label, tip.version, &tip.chain).is_ok()
                };
                prop_assert!(holds(&proof));
                for i in 0..proof.path.len() {
                    let mut changed = proof.clone();
                    changed.path[i].sibling[at.index(32)] ^= flip;
                    prop_assert!(!holds(&changed));
                    let mut changed = proof.clone();
                    changed.path[i].length ^= flip;
                    prop_assert!(!holds(&changed));
                    let mut changed = proof.clone();
                    changed.path.remove(i);
                    prop_assert!(!holds(&changed));
                    let mut changed = proof.clone();
                    changed.path.insert(i, changed.path[i]);
                    prop_assert!(!holds(&changed));
                }
                let mut changed = proof.clone();
                match &mut changed.end {
                    End::Present | End::Empty => continue,
                    End::Leaf { label, version, chain } => match at.index(3) {
                        0 => label.0[at.index(32)] ^= flip,
                        1 => *version ^= u64::from(flip),
                        _ => chain[at.index(32)] ^= flip,
                    },
                    End::Inner { length, prefix, left, right } => match at.index(4) {
                        0 => *length ^= flip,
                        1 => prefix[at.index(32)] ^= flip,
                        2 => left[at.index(32)] ^= flip,
                        _ => right[at.index(32)] ^= flip,
                    },
                }
                prop_assert!(!holds(&changed));
            }
        }

        #[test]
        fn verification_never_panics(
            root: [u8; 32], label: [u8; 32], lengths: Vec<u8>, length: u8, prefix: [u8; 32],
        ) {
            let path = lengths
                .into_iter()
                .map(|length| Ancestor { length, sibling: root })
                .collect::<Vec<_>>();
            for end in [
                End::Present,
                End::Empty,
                End::Leaf { label: Label(prefix), version: 1, chain: root },
                End::Inner { length, prefix, left: root, right: root },
            ] {
                let proof = MapProof { path: path.clone(), end };
                let _ = proof.verify_absent(&root, &Label(label));
                let _ = proof.verify_present(&root, &Label(label), 1, &root);
            }
        }
    }

    /// Well-formed lies about absence in a map of 00…, 40…, 80…: each has the
    /// right root and is refused for what it is.
    #[test]
    fn names_each_way_of_lying_about_absence() {
        let at = |byte: u8| {
            let mut label = [0; 32];
            label[0] = byte;
            Label(label)
        };
        let map = map_of(&[at(0x00), at(0x40), at(0x80)]);
        let root = map.root();
        let leaf = |label: &Label| {
            let tip = map.tip(label).unwrap();
            End::Leaf { label: *label, version: tip.version, chain: tip.chain }
        };
        let path = |label: &Label| map.prove(label).path;
        // Its own leaf.
        let own = MapProof { path: path(&at(0x40)), end: leaf(&at(0x40)) };
        assert_eq!(own.verify_absent(&root, &at(0x40)), Err(MapFault::Covers));
        // Another leaf, on the other side of an ancestor.
        let other = MapProof { path: path(&at(0x00)), end: leaf(&at(0x00)) };
        assert_eq!(other.verify_absent(&root, &at(0x40)), Err(MapFault::Astray));
        // A node above it.
        let inner = |left: &Label, right: &Label, length| {
            let hash =
                |l: &Label| leaf_hash(l, map.tip(l).unwrap().version, &map.tip(l).unwrap().chain);
            End::Inner { length, prefix: [0; 32], left: hash(left), right: hash(right) }
        };
        let above =
            MapProof { path: vec![path(&at(0x00))[1]], end: inner(&at(0x00), &at(0x40), 1) };
        assert_eq!(above.verify_absent(&root, &at(0x40)), Err(MapFault::Covers));
        // The same node, for a label on the other side of the root.
        assert_eq!(above.verify_absent(&root, &at(0xc0)), Err(MapFault::Astray));
        let mut untidy = above.clone();
        if let End::Inner { prefix, .. } = &mut untidy.end {
            prefix[1] = 1;
        }
        assert_eq!(untidy.verify_absent(&root, &at(0x40)), Err(MapFault::Prefix));
        // Nothing, and a path above it.
        let empty = MapProof { path: path(&at(0x40)), end: End::Empty };
        assert_eq!(empty.verify_absent(&root, &at(0x40)), Err(MapFault::Leftover));
        let presence = MapProof { path: path(&at(0x40)), end: End::Present };
        assert_eq!(presence.verify_absent(&root, &at(0x40)), Err(MapFault::Kind));
        let mut turned = map.prove(&at(0x40));
        turned.path.reverse();
        assert_eq!(turned.verify_present(&root, &at(0x40), 1, &[0; 32]), Err(MapFault::Order));
    }
}
