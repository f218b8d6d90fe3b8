//! The map from label to history: what its nodes hash.

use sha2::{Digest, Sha256};

use super::{Hash, Label};

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
pub fn inner_hash(len: u8, prefix: &[u8; 32], left: &Hash, right: &Hash) -> Hash {
    let mut block = [0; 99];
    block[0] = 0x03;
    block[1..3].copy_from_slice(&u16::from(len).to_be_bytes());
    block[3..35].copy_from_slice(prefix);
    block[35..67].copy_from_slice(left);
    block[67..].copy_from_slice(right);
    Sha256::digest(block).into()
}

/// The root of a map without labels: `SHA-256(04)`.
pub fn empty_root() -> Hash {
    Sha256::digest([0x04]).into()
}

/// The chain value before version 1.
pub const CHAIN_START: Hash = [0; 32];

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
