//! Where a name stands in the directory, and how an entry hides what it says
//! of a mailbox.
//!
//! A domain's label is a plain hash, since its name is in its entries anyway.
//! A mailbox's is the output of the log's VRF: nobody can list mailboxes, and
//! nobody can prove a wrong label.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use super::Hash;
use super::vrf;
use crate::dime::{Address, Domain};

/// 32 bytes; its bits, most significant first, are the path in the map.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Label(pub [u8; 32]);

impl Label {
    /// `SHA-256("syndicate/v1/domain" || 00 || name)`.
    pub fn of_domain(domain: &Domain) -> Label {
        Label::of_domain_text(domain.as_str())
    }

    pub(crate) fn of_domain_text(domain: &str) -> Label {
        let mut hash = Sha256::new();
        hash.update(b"syndicate/v1/domain\0");
        hash.update(domain.as_bytes());
        Label(hash.finalize().into())
    }

    /// The first 32 bytes of the VRF output over [`alpha`]; about 40 µs.
    pub fn of_address(key: &vrf::SecretKey, address: &Address) -> Label {
        Label::from_vrf(&key.evaluate(&alpha(address)))
    }

    /// The first 32 bytes of a VRF output.
    pub fn from_vrf(output: &vrf::Output) -> Label {
        let mut label = [0; 32];
        label.copy_from_slice(&output[..32]);
        Label(label)
    }

    /// Where a mailbox that was erased goes when its log is carried over under
    /// another VRF key, since nobody knows its address any more:
    /// `SHA-256("syndicate/v1/erased" || 00 || label there)`.
    pub fn of_erased(before: &Label) -> Label {
        let mut hash = Sha256::new();
        hash.update(b"syndicate/v1/erased\0");
        hash.update(before.0);
        Label(hash.finalize().into())
    }

    /// Bit `index` (0 to 255), the most significant of the first byte being 0.
    pub fn bit(&self, index: u8) -> bool {
        self.0[usize::from(index / 8)] >> (7 - index % 8) & 1 == 1
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// What the VRF is evaluated on: `"syndicate/v1/user" || 00 || address`.
pub fn alpha(address: &Address) -> Vec<u8> {
    [b"syndicate/v1/user\0", address.as_str().as_bytes()].concat()
}

/// Hides `payload` under the random `opening`, and ties it to one place:
/// `HMAC-SHA256(opening, "syndicate/v1/commitment" || 00 || u16 length ||
/// origin || label || version as u64 || u16 length || address || payload)`,
/// numbers big-endian.
pub fn commitment(
    opening: &[u8; 32],
    origin: &str,
    label: &Label,
    version: u64,
    address: &Address,
    payload: &[u8],
) -> Hash {
    // HMAC fills a short key up with zeros to the hash's block of 64 bytes.
    let mut key = [0; 64];
    key[..32].copy_from_slice(opening);
    let mut mac = Hmac::<Sha256>::new(&key.into());
    mac.update(b"syndicate/v1/commitment\0");
    mac.update(&(origin.len() as u16).to_be_bytes());
    mac.update(origin.as_bytes());
    mac.update(&label.0);
    mac.update(&version.to_be_bytes());
    mac.update(&(address.as_str().len() as u16).to_be_bytes());
    mac.update(address.as_str().as_bytes());
    mac.update(payload);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_has_the_label_of_its_name() {
        // printf 'syndicate/v1/domain\0example.com' | sha256sum
        let label = Label::of_domain(&"Example.COM.".parse().unwrap());
        assert_eq!(
            label.to_string(),
            "74f0255719e67be747e21c8dd28cdf752f4cb0a44d07d7c556ee3faff09f3ef4"
        );
        assert_eq!(label.bit(0), label.0[0] & 0x80 != 0);
        assert_eq!(label.bit(255), label.0[31] & 1 != 0);
    }

    #[test]
    fn a_commitment_covers_everything() {
        let address = "alice@example.com".parse().unwrap();
        let base = commitment(&[1; 32], "o", &Label([2; 32]), 3, &address, b"payload");
        assert_eq!(
            hex::encode(base),
            "ce9c6e9fcadab353f596dbd713ceb6120f02af3ba8bbed0e76c426007a08d36e"
        );
        let other = "bob@example.com".parse().unwrap();
        for changed in [
            commitment(&[0; 32], "o", &Label([2; 32]), 3, &address, b"payload"),
            commitment(&[1; 32], "p", &Label([2; 32]), 3, &address, b"payload"),
            commitment(&[1; 32], "o", &Label([3; 32]), 3, &address, b"payload"),
            commitment(&[1; 32], "o", &Label([2; 32]), 4, &address, b"payload"),
            commitment(&[1; 32], "o", &Label([2; 32]), 3, &other, b"payload"),
            commitment(&[1; 32], "o", &Label([2; 32]), 3, &address, b"payloaf"),
        ] {
            assert_ne!(changed, base);
        }
    }
}
