//! The Merkle tree of RFC 6962 §2.1 with SHA-256: hashes, proofs and their
//! verification, and the right edge of a growing tree.
//!
//! There is one proof: the subtree proof of draft-ietf-plants-merkle-tree-certs
//! §4. An inclusion proof is the one for `[index, index + 1)`, a consistency
//! proof the one for `[0, old size)`; their bytes are those of RFC 6962.
//!
//! What is left out: where hashes are stored. A [`HashReader`] answers for the
//! complete subtrees; `tile_set` is one over tiles that were fetched before.

use sha2::{Digest, Sha256};

use crate::dime::Rejection;

pub use super::Hash;

/// Most hashes in a proof: one for each level of a tree below 2^63 leaves.
pub const MAX_PROOF: usize = 63;

/// Largest tree, leaves. Signed 64-bit readers exist, so no tree is larger.
pub const MAX_SIZE: u64 = i64::MAX as u64;

/// `SHA-256(0x00 || entry)`.
pub fn leaf_hash(entry: &[u8]) -> Hash {
    Sha256::new().chain_update([0]).chain_update(entry).finalize().into()
}

/// `SHA-256(0x01 || left || right)`.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut bytes = [1u8; 65];
    bytes[1..33].copy_from_slice(left);
    bytes[33..].copy_from_slice(right);
    Sha256::digest(bytes).into()
}

/// Root of the tree without leaves: `SHA-256("")`.
pub fn empty_root() -> Hash {
    Sha256::digest([]).into()
}

/// Root over leaf hashes that are all in memory.
pub fn root_from_leaves(leaves: &[Hash]) -> Hash {
    let mut frontier = Frontier::new();
    frontier.extend(leaves);
    frontier.root()
}

/// A complete subtree: the `2^level` leaves from `index * 2^level`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Node {
    /// Height above the leaves, 0 to 62.
    pub level: u8,
    /// Number of the subtree in its level, from 0.
    pub index: u64,
}

/// Answers for the hashes of complete subtrees.
///
/// It must have been given or have checked every hash it answers with: the
/// proof functions trust it.
pub trait HashReader {
    /// The hash of a complete subtree, or `None` where it is not held.
    fn node(&self, node: Node) -> Option<Hash>;
}

/// Leaf hashes in memory are the plainest reader. Slow: it hashes every node anew.
impl HashReader for [Hash] {
    fn node(&self, node: Node) -> Option<Hash> {
        let start = usize::try_from(node.index.checked_shl(node.level.into())?).ok()?;
        let end = start.checked_add(1usize.checked_shl(node.level.into())?)?;
        Some(root_from_leaves(self.get(start..end)?))
    }
}

/// Why a proof could not be made. Ours, or the asker's: never a judgement.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unprovable {
    #[error("[{start}, {end}) is no subtree of a tree of {size} leaves")]
    NotInTree { start: u64, end: u64, size: u64 },
    #[error("the hash of node {} at level {} is not at hand", .0.index, .0.level)]
    Missing(Node),
    #[error("the proof made for leaf {index} of {size} does not verify")]
    Unsound { index: u64, size: u64 },
}

/// Whether `[start, end)` can be a subtree of some tree. The empty one can.
pub fn is_subtree(start: u64, end: u64) -> bool {
    if start > end || end > MAX_SIZE {
        return false;
    }
    start == end || start.is_multiple_of((end - start).next_power_of_two())
}

/// The two subtrees that cover `[start, end)`, left and right; the right one
/// may be empty. `start` is at most `end`.
pub fn covering_subtrees(start: u64, end: u64) -> [(u64, u64); 2] {
    if end.saturating_sub(start) <= 1 {
        return [(start, end), (end, end)];
    }
    let last = end - 1;
    let split = 63 - (start ^ last).leading_zeros();
    let low = (1u64 << split) - 1;
    let middle = last & !low;
    // The left one begins where `start` has its highest zero below the split.
    let zeros = !start & low;
    let left_split = 64 - zeros.leading_zeros();
    let left = if left_split == 0 { start } else { start & !((1u64 << left_split) - 1) };
    [(left, middle), (middle, end)]
}

/// The complete subtrees whose fold is the hash of `[start, end)`, leftmost
/// (and largest) first. `[start, end)` must be a subtree.
pub fn complete_nodes(start: u64, end: u64) -> Vec<Node> {
    let mut nodes = Vec::new();
    let mut at = start;
    while at < end {
        let level = (end - at).ilog2();
        nodes.push(Node { level: level as u8, index: at >> level });
        at += 1 << level;
    }
    nodes
}

/// The subtrees whose hashes are the proof for `[start, end)` in the tree of
/// `size` leaves, in the order of the proof (lowest first).
pub fn subtree_proof_ranges(
    start: u64,
    end: u64,
    size: u64,
) -> Result<Vec<(u64, u64)>, Unprovable> {
    if !is_subtree(start, end) || end > size || size > MAX_SIZE {
        return Err(Unprovable::NotInTree { start, end, size });
    }
    let mut ranges = Vec::new();
    if start == end {
        return Ok(ranges);
    }
    // From the root down: `[low, high)` always holds `[start, end)`, until the
    // two share their left edge and only a prefix of `[start, end)` is followed.
    let (mut low, mut high) = (0, size);
    let mut from = start;
    let mut known = true;
    while (low, high) != (from, end) {
        let middle = low + (high - low).next_power_of_two() / 2;
        if end <= middle {
            ranges.push((middle, high));
            high = middle;
        } else {
            ranges.push((low, middle));
            if from < middle {
                // It straddles: it begins at `low`, and its right part goes on.
                known = false;
                from = middle;
            }
            low = middle;
        }
    }
    if !known {
        ranges.push((low, high));
    }
    ranges.reverse();
    Ok(ranges)
}

/// The hash of a subtree, from its complete subtrees.
pub fn subtree_hash(
    reader: &(impl HashReader + ?Sized),
    start: u64,
    end: u64,
) -> Result<Hash, Unprovable> {
    let read = |node| reader.node(node).ok_or(Unprovable::Missing(node));
    let mut nodes = complete_nodes(start, end).into_iter().rev();
    let Some(last) = nodes.next() else { return Ok(empty_root()) };
    nodes.try_fold(read(last)?, |right, left| Ok(node_hash(&read(left)?, &right)))
}

/// Proves that `[start, end)` is a subtree of the tree of `size` leaves.
pub fn subtree_proof(
    reader: &(impl HashReader + ?Sized),
    start: u64,
    end: u64,
    size: u64,
) -> Result<Vec<Hash>, Unprovable> {
    subtree_proof_ranges(start, end, size)?
        .into_iter()
        .map(|(start, end)| subtree_hash(reader, start, end))
        .collect()
}

/// Proves leaf `index` in the tree of `size` leaves: RFC 6962 §2.1.1, the
/// leaf's sibling first.
pub fn inclusion_proof(
    reader: &(impl HashReader + ?Sized),
    index: u64,
    size: u64,
) -> Result<Vec<Hash>, Unprovable> {
    subtree_proof(reader, index, index.saturating_add(1), size)
}

/// Proves that the tree of `old` leaves is a prefix of that of `new`: RFC 6962 §2.1.2.
pub fn consistency_proof(
    reader: &(impl HashReader + ?Sized),
    old: u64,
    new: u64,
) -> Result<Vec<Hash>, Unprovable> {
    subtree_proof(reader, 0, old, new)
}

/// Checks that `hash` is that of `[start, end)` in the tree of `size` leaves
/// with this root (draft-ietf-plants-merkle-tree-certs §4.4.3).
///
/// Refused, with rule `merkle-proof`: ranges that are no subtree, and proofs
/// too short, too long, or for anything else.
pub fn verify_subtree(
    start: u64,
    end: u64,
    size: u64,
    hash: &Hash,
    proof: &[Hash],
    root: &Hash,
) -> Result<(), Rejection> {
    let refuse = |why: &str| {
        let what = format!("[{start}, {end}) in a tree of {size}");
        Err(Rejection::new("merkle-proof", format!("proof of {what}: {why}")))
    };
    if !is_subtree(start, end) || end > size || size > MAX_SIZE {
        return refuse("no such subtree");
    }
    if start == end {
        return match proof.is_empty() && *hash == empty_root() {
            true => Ok(()),
            false => refuse("the empty subtree has a fixed hash and no proof"),
        };
    }
    // Paths to the first and last leaf of the subtree, and the last of the tree.
    let (mut first, mut last, mut edge) = (start, end - 1, size - 1);
    while first != last && (last == edge || last & 1 == 1) {
        (first, last, edge) = (first >> 1, last >> 1, edge >> 1);
    }
    let mut proof = proof.iter();
    let (mut subtree, mut tree) = (*hash, *hash);
    if first != last {
        let Some(seed) = proof.next() else { return refuse("too short") };
        (subtree, tree) = (*seed, *seed);
    }
    for sibling in proof {
        if edge == 0 {
            return refuse("too long");
        }
        if last & 1 == 1 || last == edge {
            if first < last {
                subtree = node_hash(sibling, &subtree);
            }
            tree = node_hash(sibling, &tree);
            while last & 1 == 0 {
                (first, last, edge) = (first >> 1, last >> 1, edge >> 1);
            }
        } else {
            tree = node_hash(&tree, sibling);
        }
        (first, last, edge) = (first >> 1, last >> 1, edge >> 1);
    }
    if edge != 0 {
        return refuse("too short");
    }
    if subtree != *hash || tree != *root {
        return refuse("the hashes differ");
    }
    Ok(())
}

/// Checks leaf `index` against a root. Rule `merkle-proof` when refused.
pub fn verify_inclusion(
    index: u64,
    size: u64,
    leaf: &Hash,
    proof: &[Hash],
    root: &Hash,
) -> Result<(), Rejection> {
    verify_subtree(index, index.saturating_add(1), size, leaf, proof, root)
}

/// Checks that the tree of `old` leaves is a prefix of the tree of `new`.
/// Rule `merkle-proof` when refused. From `old` = 0, only the empty proof and
/// the empty root pass, and nothing is said about `new_root`.
pub fn verify_consistency(
    old: u64,
    new: u64,
    old_root: &Hash,
    new_root: &Hash,
    proof: &[Hash],
) -> Result<(), Rejection> {
    verify_subtree(0, old, new, old_root, proof, new_root)
}

/// The right edge of a growing tree: the complete subtrees that are not yet
/// part of a larger one. At most 63 hashes, whatever the size.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    /// One for each set bit of `size`, largest subtree first.
    hashes: Vec<Hash>,
}

impl Frontier {
    /// The empty tree.
    pub fn new() -> Frontier {
        Frontier::default()
    }

    /// A frontier as [`Frontier::hashes`] gave it. Rule `frontier` if the
    /// number of hashes does not fit the size; the hashes cannot be checked
    /// without a root.
    pub fn restore(size: u64, hashes: Vec<Hash>) -> Result<Frontier, Rejection> {
        if size > MAX_SIZE || hashes.len() != size.count_ones() as usize {
            let message = format!("{} hashes do not fit a tree of {size}", hashes.len());
            return Err(Rejection::new("frontier", message));
        }
        Ok(Frontier { size, hashes })
    }

    /// Number of leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Hashes of the complete subtrees, largest first.
    pub fn hashes(&self) -> &[Hash] {
        &self.hashes
    }

    /// The root of the tree as it is.
    pub fn root(&self) -> Hash {
        let mut hashes = self.hashes.iter().rev();
        let Some(last) = hashes.next() else { return empty_root() };
        hashes.fold(*last, |right, left| node_hash(left, &right))
    }

    /// Appends one leaf hash.
    pub fn push(&mut self, leaf: Hash) {
        let mut hash = leaf;
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.hashes.pop() {
                hash = node_hash(&left, &hash);
            }
        }
        self.hashes.push(hash);
        self.size += 1;
    }

    /// Appends leaf hashes in order.
    pub fn extend(&mut self, leaves: &[Hash]) {
        for leaf in leaves {
            self.push(*leaf);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sha2::{Digest, Sha256};

    use super::super::whole_tree;
    use super::*;

    fn leaves(count: u64) -> Vec<Hash> {
        (0..count).map(|number| leaf_hash(&number.to_be_bytes())).collect()
    }

    /// The leaves of the accumulated vectors: entry i is the one byte i.
    fn byte_leaves() -> Vec<Hash> {
        (0..130u8).map(|byte| leaf_hash(&[byte])).collect()
    }

    /// All complete subtrees by level, hashed once.
    struct Levels(Vec<Vec<Hash>>);

    impl Levels {
        fn new(leaves: Vec<Hash>) -> Levels {
            let mut levels = vec![leaves];
            while let Some(below) = levels.last().filter(|below| below.len() > 1) {
                let (pairs, _) = below.as_chunks::<2>();
                levels.push(pairs.iter().map(|[left, right]| node_hash(left, right)).collect());
            }
            Levels(levels)
        }
    }

    impl HashReader for Levels {
        fn node(&self, node: Node) -> Option<Hash> {
            self.0.get(usize::from(node.level))?.get(node.index as usize).copied()
        }
    }

    /// Rolling SHA-256 over lines, lower-case hex at the end.
    #[derive(Default)]
    struct Lines(Sha256);

    impl Lines {
        fn add(&mut self, line: &str) {
            self.0.update(line);
            self.0.update("\n");
        }

        fn hex(self) -> String {
            hex::encode(self.0.finalize())
        }
    }

    fn with_hashes(start: String, hashes: &[Hash]) -> String {
        hashes.iter().fold(start, |line, hash| line + " " + &hex::encode(hash))
    }

    fn subtrees(end: u64) -> impl Iterator<Item = (u64, u64)> {
        (0..=end).filter(move |start| is_subtree(*start, end)).map(move |start| (start, end))
    }

    #[test]
    fn the_empty_root_is_that_of_rfc_6962() {
        let root = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(hex::encode(empty_root()), root);
        assert_eq!(root_from_leaves(&[]), empty_root());
    }

    /// draft-ietf-plants-merkle-tree-certs, accumulated subtree hashes.
    #[test]
    fn accumulated_subtree_hashes() {
        let levels = Levels::new(byte_leaves());
        let mut lines = Lines::default();
        for (start, end) in (0..=130).flat_map(subtrees) {
            let hash = subtree_hash(&levels, start, end).unwrap();
            lines.add(&format!("[{start}, {end}) {}", hex::encode(hash)));
        }
        let expected = "b82806ad4265bb151c1119c0f4db437bb4d1a1f887b3a7fba1cd4ebf552e3e81";
        assert_eq!(lines.hex(), expected);
    }

    #[test]
    fn accumulated_inclusion_proofs() {
        let leaves = byte_leaves();
        let mut lines = Lines::default();
        for (start, end) in (0..=130).flat_map(subtrees) {
            let inside = &leaves[start as usize..end as usize];
            let root = root_from_leaves(inside);
            for index in start..end {
                let proof = inclusion_proof(inside, index - start, end - start).unwrap();
                let leaf = &leaves[index as usize];
                verify_inclusion(index - start, end - start, leaf, &proof, &root).unwrap();
                lines.add(&with_hashes(format!("{index} [{start}, {end})"), &proof));
            }
        }
        let expected = "ac2a8f989e44d99e399db448050ff5f19757df53cfb716aa81015d3955d8163f";
        assert_eq!(lines.hex(), expected);
    }

    #[test]
    fn accumulated_consistency_proofs() {
        let levels = Levels::new(byte_leaves());
        let mut lines = Lines::default();
        for size in 0..=130u64 {
            let root = subtree_hash(&levels, 0, size).unwrap();
            for (start, end) in (0..=size).flat_map(subtrees) {
                let proof = subtree_proof(&levels, start, end, size).unwrap();
                let hash = subtree_hash(&levels, start, end).unwrap();
                verify_subtree(start, end, size, &hash, &proof, &root).unwrap();
                lines.add(&with_hashes(format!("[{start}, {end}) {size}"), &proof));
            }
        }
        let expected = "10fa99b37bf9bf9ffa26b412fbd98bd75363256d0b75d61bc4538b9c9c5a0a74";
        assert_eq!(lines.hex(), expected);
    }

    #[test]
    fn accumulated_coverings() {
        let mut lines = Lines::default();
        for end in 0..=130 {
            for start in 0..=end {
                let [(a, b), (c, d)] = covering_subtrees(start, end);
                lines.add(&format!("[{a}, {b}) [{c}, {d})"));
            }
        }
        let expected = "7fd9c8b926e9d2b5cf831560e8ce295a5ef97ad5c5ede4ea0dea28a8c8fc8bb0";
        assert_eq!(lines.hex(), expected);
    }

    #[test]
    fn proofs_of_what_is_not_there_are_refused() {
        let leaves = leaves(7);
        let none = |start, end, size| Unprovable::NotInTree { start, end, size };
        assert_eq!(inclusion_proof(&leaves[..], 7, 7), Err(none(7, 8, 7)));
        assert_eq!(subtree_proof(&leaves[..], 2, 5, 7), Err(none(2, 5, 7)));
        assert_eq!(consistency_proof(&leaves[..], 3, u64::MAX), Err(none(0, 3, u64::MAX)));
        let missing = Unprovable::Missing(Node { level: 0, index: 7 });
        assert_eq!(inclusion_proof(&leaves[..], 6, 8), Err(missing));
        let root = root_from_leaves(&leaves);
        assert!(verify_inclusion(u64::MAX, 7, &leaves[0], &[], &root).is_err());
        assert!(verify_inclusion(0, u64::MAX, &leaves[0], &[], &root).is_err());
        assert!(verify_inclusion(0, 0, &leaves[0], &[], &empty_root()).is_err());
    }

    #[test]
    fn from_the_empty_tree_only_the_empty_proof_passes() {
        let root = root_from_leaves(&leaves(3));
        verify_consistency(0, 3, &empty_root(), &root, &[]).unwrap();
        assert!(verify_consistency(0, 3, &root, &root, &[]).is_err());
        assert!(verify_consistency(0, 3, &empty_root(), &root, &[root]).is_err());
    }

    #[test]
    fn a_frontier_is_restored_or_refused() {
        let leaves = leaves(1000);
        let mut whole = Frontier::new();
        whole.extend(&leaves[..700]);
        let mut restored = Frontier::restore(700, whole.hashes().to_vec()).unwrap();
        restored.extend(&leaves[700..]);
        assert_eq!((restored.size(), restored.root()), (1000, root_from_leaves(&leaves)));
        assert!(Frontier::restore(701, whole.hashes().to_vec()).is_err());
        assert!(Frontier::restore(u64::MAX, vec![[0; 32]; 64]).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn roots_and_inclusion_proofs_are_those_of_rs_merkle(size in 1u64..600, at in any::<u64>()) {
            let (leaves, index) = (leaves(size), at % size);
            let root = root_from_leaves(&leaves);
            prop_assert_eq!(root, whole_tree::root(&leaves));
            let proof = inclusion_proof(&leaves[..], index, size).unwrap();
            let theirs = whole_tree::inclusion_proof(&leaves, index as usize);
            prop_assert_eq!(Some(&proof), theirs.as_ref());
            let leaf = &leaves[index as usize];
            prop_assert!(whole_tree::agrees(index, size, leaf, &proof, &root));
            prop_assert_eq!(verify_inclusion(index, size, leaf, &proof, &root), Ok(()));
        }

        #[test]
        fn a_changed_inclusion_proof_is_refused(
            size in 2u64..300, at in any::<u64>(), which in any::<prop::sample::Index>(),
            bit in 0usize..256, change in 0..5,
        ) {
            let (leaves, index) = (leaves(size), at % size);
            let root = root_from_leaves(&leaves);
            let mut proof = inclusion_proof(&leaves[..], index, size).unwrap();
            let (mut claimed, mut leaf) = (index, leaves[index as usize]);
            let place = which.index(proof.len());
            match change {
                0 => proof[place][bit / 8] ^= 1 << (bit % 8),
                1 => drop(proof.remove(place)),
                2 => proof.insert(place, [bit as u8; 32]),
                3 => claimed = (index + 1 + bit as u64 % (size - 1)) % size,
                _ => leaf[bit / 8] ^= 1 << (bit % 8),
            }
            prop_assert!(verify_inclusion(claimed, size, &leaf, &proof, &root).is_err());
        }

        #[test]
        fn consistency_holds_between_any_two_sizes(new in 1u64..400, at in any::<u64>()) {
            let (leaves, old) = (leaves(new), at % (new + 1));
            let roots = [old, new].map(|size| root_from_leaves(&leaves[..size as usize]));
            let proof = consistency_proof(&leaves[..], old, new).unwrap();
            prop_assert_eq!(verify_consistency(old, new, &roots[0], &roots[1], &proof), Ok(()));
            if old != new && old != 0 {
                prop_assert!(verify_consistency(old, new, &roots[1], &roots[1], &proof).is_err());
                prop_assert!(verify_consistency(old, new, &roots[0], &roots[0], &proof).is_err());
            }
        }

        #[test]
        fn verification_never_panics(
            start in any::<u64>(), end in any::<u64>(), size in any::<u64>(),
            shift in 0u32..64, proof in prop::collection::vec(any::<[u8; 32]>(), 0..70),
        ) {
            let (start, end, size) = (start >> shift, end >> shift, size >> (shift / 2));
            let _ = verify_subtree(start, end, size, &[0; 32], &proof, &[0; 32]);
            let _ = subtree_proof_ranges(start, end, size);
            let _ = covering_subtrees(start.min(end), start.max(end));
        }
    }
}
