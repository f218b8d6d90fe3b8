//! Whole small trees, by `rs_merkle`: code that is not ours, over the hashes of
//! RFC 6962. It seals each full tile, and gives a second opinion on inclusion
//! proofs that we are about to serve.
//!
//! The growing log is left out: `rs_merkle` rebuilds the tree at each commit.

use rs_merkle::{Hasher, MerkleProof, MerkleTree};

use super::merkle::{self, Hash};

/// SHA-256 with the prefixes of RFC 6962 §2.1.
///
/// `concat_and_hash` must be given: the provided one would hash a node as if
/// it were a leaf.
#[derive(Clone)]
pub struct Rfc6962;

impl Hasher for Rfc6962 {
    type Hash = Hash;

    fn hash(entry: &[u8]) -> Hash {
        merkle::leaf_hash(entry)
    }

    fn concat_and_hash(left: &Hash, right: Option<&Hash>) -> Hash {
        right.map_or(*left, |right| merkle::node_hash(left, right))
    }
}

/// Root over leaf hashes; also the hash of a full tile from its 256 hashes.
pub fn root(leaves: &[Hash]) -> Hash {
    MerkleTree::<Rfc6962>::from_leaves(leaves).root().unwrap_or_else(merkle::empty_root)
}

/// The inclusion proof of one leaf among few, its sibling first.
/// `None` if there is no such leaf.
pub fn inclusion_proof(leaves: &[Hash], index: usize) -> Option<Vec<Hash>> {
    let tree = MerkleTree::<Rfc6962>::from_leaves(leaves);
    (index < leaves.len()).then(|| tree.proof(&[index]).proof_hashes().to_vec())
}

/// Whether `rs_merkle` too accepts this inclusion proof. For our own proofs
/// before they leave. Strangers' proofs are for [`merkle::verify_inclusion`],
/// since this does not mind hashes left over.
pub fn agrees(index: u64, size: u64, leaf: &Hash, proof: &[Hash], root: &Hash) -> bool {
    let (Ok(index), Ok(size)) = (usize::try_from(index), usize::try_from(size)) else {
        return false;
    };
    index < size
        && MerkleProof::<Rfc6962>::new(proof.to_vec()).verify(*root, &[index], &[*leaf], size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges() {
        assert_eq!(root(&[]), merkle::empty_root());
        let leaf = Rfc6962::hash(b"alpha");
        assert_eq!(root(&[leaf]), leaf);
        assert_eq!(inclusion_proof(&[leaf], 0), Some(vec![]));
        assert_eq!(inclusion_proof(&[leaf], 1), None);
        assert_eq!(inclusion_proof(&[], 0), None);
        assert!(agrees(0, 1, &leaf, &[], &leaf));
        assert!(!agrees(1, 1, &leaf, &[], &leaf));
        assert!(!agrees(0, 2, &leaf, &[], &leaf));
        assert!(!agrees(0, 0, &leaf, &[], &merkle::empty_root()));
        assert!(!agrees(u64::MAX, u64::MAX, &leaf, &[], &leaf));
    }
}
