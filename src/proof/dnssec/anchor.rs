//! The root's keys, from which every chain starts.

use sha2::{Digest as _, Sha256, Sha384};

use super::wire::{DnsName, Key, ds_fields};

/// A key of the root zone that the verifier trusts beforehand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// By digest. Types 2 (SHA-256) and 4 (SHA-384) count, others match nothing.
    Ds { key_tag: u16, algorithm: u8, digest_type: u8, digest: Vec<u8> },
    /// The key itself, as in the last field of a DNSKEY record.
    Key { algorithm: u8, public_key: Vec<u8> },
}

/// Digest of KSK-2017, SHA-256, as IANA publishes it.
const KSK_2017: [u8; 32] = [
    0xe0, 0x6d, 0x44, 0xb8, 0x0b, 0x8f, 0x1d, 0x39, 0xa9, 0x5c, 0x0b, 0x0d, 0x7c, 0x65, 0xd0, 0x84,
    0x58, 0xe8, 0x80, 0x40, 0x9b, 0xbc, 0x68, 0x34, 0x57, 0x10, 0x42, 0x37, 0xc7, 0xf8, 0xec, 0x8d,
];
/// Digest of KSK-2024, SHA-256, as IANA publishes it.
const KSK_2024: [u8; 32] = [
    0x68, 0x3d, 0x2d, 0x0a, 0xcb, 0x8c, 0x9b, 0x71, 0x2a, 0x19, 0x48, 0xb2, 0x7f, 0x74, 0x12, 0x19,
    0x29, 0x8d, 0x0a, 0x45, 0x0d, 0x61, 0x2c, 0x48, 0x3a, 0xf4, 0x44, 0xa4, 0xc0, 0xfb, 0x2b, 0x16,
];

/// The root's key-signing keys: KSK-2017 (tag 20326) and KSK-2024 (38696).
pub fn iana() -> Vec<Anchor> {
    let anchor = |key_tag, digest: [u8; 32]| Anchor::Ds {
        key_tag,
        algorithm: 8,
        digest_type: 2,
        digest: digest.to_vec(),
    };
    vec![anchor(20326, KSK_2017), anchor(38696, KSK_2024)]
}

impl Anchor {
    /// Whether this is what trusts `key`, a key of the zone `owner`.
    pub(super) fn covers(&self, owner: &DnsName, key: &Key) -> bool {
        match self {
            Anchor::Key { algorithm, public_key } => {
                key.algorithm == *algorithm && key.public == *public_key
            }
            Anchor::Ds { key_tag, algorithm, digest_type, digest } => {
                let preimage = [owner.wire(), &key.rdata].concat();
                let matches = match digest_type {
                    2 => Sha256::digest(&preimage).as_slice() == digest,
                    4 => Sha384::digest(&preimage).as_slice() == digest,
                    _ => false,
                };
                key.tag == *key_tag && key.algorithm == *algorithm && matches
            }
        }
    }

    /// From the data of a DS record.
    pub(super) fn from_ds(rdata: &[u8]) -> Option<Anchor> {
        let (key_tag, algorithm, digest_type, digest) = ds_fields(rdata)?;
        Some(Anchor::Ds { key_tag, algorithm, digest_type, digest: digest.to_vec() })
    }

    /// Whether both the algorithm and the digest are ones that we check.
    pub(super) fn is_supported(&self) -> bool {
        match self {
            Anchor::Key { algorithm, .. } => super::prover::is_supported(*algorithm),
            Anchor::Ds { algorithm, digest_type, .. } => {
                super::prover::is_supported(*algorithm) && matches!(digest_type, 2 | 4)
            }
        }
    }
}
