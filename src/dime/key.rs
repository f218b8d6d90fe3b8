//! Private key files (reference §5): an Ed25519 seed and a secp256k1 scalar.
//!
//! ```text
//! file+0  type    2 bytes   1952 org, 2013 user
//! file+2  length  3 bytes   69 in dialect L, 68 in M and P
//! file+5  01 20   32 bytes  Ed25519 seed (RFC 8032 secret key)
//! file+39 03|02   org 03, user 02; then 00 20 in L, 20 in M and P
//!         32 bytes          secp256k1 scalar, big-endian
//! ```
//!
//! Secrets are wiped when dropped and never printed. Files and their
//! permissions are the caller's; nothing here is encrypted.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::armor::{self, Tag};
use super::signet::Dialect;
use super::{Rejection, ed25519};

/// Whose keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    /// An organization: primary or secondary.
    Org,
    User,
}

/// The two private keys of an organization or a user.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct PrivateKey {
    #[zeroize(skip)]
    owner: Owner,
    seed: [u8; 32],
    scalar: [u8; 32],
}

impl PrivateKey {
    /// From the two secrets. `scalar` must be at least 1 and below the order
    /// of secp256k1, else it is refused with rule `key`; 32 random bytes
    /// practically always are.
    pub fn from_secrets(
        owner: Owner,
        seed: [u8; 32],
        scalar: [u8; 32],
    ) -> Result<PrivateKey, Rejection> {
        let key = PrivateKey { owner, seed, scalar };
        key.point()?;
        Ok(key)
    }

    pub fn owner(&self) -> Owner {
        self.owner
    }

    /// The secret of the signing key.
    pub fn seed(&self) -> &[u8; 32] {
        &self.seed
    }

    /// The secret of the encryption key.
    pub fn scalar(&self) -> &[u8; 32] {
        &self.scalar
    }

    /// The public signing key: of an organization, its POK.
    pub fn signing_key(&self) -> [u8; 32] {
        ed25519::public_key(&self.seed)
    }

    /// The public encryption key, a compressed point.
    pub fn encryption_key(&self) -> [u8; 33] {
        // The constructors have made this point before.
        self.point().unwrap_or([0; 33])
    }

    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        ed25519::sign(&self.seed, message)
    }

    /// Decodes a binary key file of either layout. Refused with rule `key`.
    pub fn decode(bytes: &[u8]) -> Result<PrivateKey, Rejection> {
        let (owner, body) = match bytes {
            [0x07, 0xa0, 0, 0, length, body @ ..] if usize::from(*length) == body.len() => {
                (Owner::Org, body)
            }
            [0x07, 0xdd, 0, 0, length, body @ ..] if usize::from(*length) == body.len() => {
                (Owner::User, body)
            }
            _ => return Err(refuse("not a key file, or its length is wrong")),
        };
        let Some((seed, rest)) = body.strip_prefix(&[1, 0x20]).and_then(<[u8]>::split_first_chunk)
        else {
            return Err(refuse("it does not begin with a signing key of 32 bytes"));
        };
        let id = owner.encryption_id();
        let scalar = rest
            .strip_prefix(&[id, 0, 0x20])
            .or_else(|| rest.strip_prefix(&[id, 0x20]))
            .and_then(|scalar| scalar.try_into().ok())
            .ok_or_else(|| refuse("there is no encryption key of 32 bytes behind it"))?;
        PrivateKey::from_secrets(owner, *seed, scalar)
    }

    /// The binary file in `dialect`'s layout (M and P have the same).
    pub fn encode(&self, dialect: Dialect) -> Zeroizing<Vec<u8>> {
        let number: [u8; 2] = match self.owner {
            Owner::Org => [0x07, 0xa0],
            Owner::User => [0x07, 0xdd],
        };
        let (length, between): (u8, &[u8]) = match dialect {
            Dialect::L => (69, &[0, 0x20]),
            Dialect::M | Dialect::P => (68, &[0x20]),
        };
        let mut bytes = Zeroizing::new(Vec::with_capacity(74));
        bytes.extend(number);
        bytes.extend([0, 0, length, 1, 0x20]);
        bytes.extend(self.seed);
        bytes.push(self.owner.encryption_id());
        bytes.extend(between);
        bytes.extend(self.scalar);
        bytes
    }

    /// Reads an armoured key file.
    pub fn from_armor(text: &[u8]) -> Result<PrivateKey, Rejection> {
        let (tag, bytes) = armor::decode(text)?;
        let bytes = Zeroizing::new(bytes);
        match tag {
            Tag::OrgKey | Tag::UserKey => PrivateKey::decode(&bytes),
            _ => Err(refuse(format!("{} is not a key file", tag.text()))),
        }
    }

    /// The armoured key file.
    pub fn to_armor(&self, dialect: Dialect) -> Zeroizing<String> {
        let tag = match self.owner {
            Owner::Org => Tag::OrgKey,
            Owner::User => Tag::UserKey,
        };
        Zeroizing::new(armor::encode(&self.encode(dialect), tag))
    }

    fn point(&self) -> Result<[u8; 33], Rejection> {
        let secret = k256::SecretKey::from_slice(&self.scalar)
            .map_err(|_| refuse("the encryption key is zero or not below the group order"))?;
        let point = secret.public_key().to_sec1_bytes();
        (*point).try_into().map_err(|_| refuse("the encryption key has no compressed point"))
    }
}

impl Owner {
    const fn encryption_id(self) -> u8 {
        match self {
            Owner::Org => 3,
            Owner::User => 2,
        }
    }
}

/// Never the secrets.
impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({:?} {})", self.owner, hex::encode(self.signing_key()))
    }
}

fn refuse(message: impl Into<String>) -> Rejection {
    Rejection::new("key", message)
}

/// Reads a public Ed25519 key as people write it: 64 hex digits, or base64 of
/// 43 characters, perhaps padded, in either alphabet. Refused with rule `key`.
pub fn parse_public(text: &str) -> Result<[u8; 32], Rejection> {
    let bytes = match text.len() {
        64 => hex::decode(text).ok(),
        43 | 44 => {
            let bare = text.strip_suffix('=').unwrap_or(text);
            STANDARD_NO_PAD.decode(bare).or_else(|_| URL_SAFE_NO_PAD.decode(bare)).ok()
        }
        _ => None,
    };
    bytes
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| refuse("a public key is 64 hex digits or 43 characters of base64"))
}

/// Reads the seed of a stand-alone POK file (`ED25519 PRIVATE KEY`), the form
/// that the record tools of libdime take.
pub fn pok_from_armor(text: &[u8]) -> Result<Zeroizing<[u8; 32]>, Rejection> {
    let (tag, bytes) = armor::decode(text)?;
    let bytes = Zeroizing::new(bytes);
    if tag != Tag::Ed25519Key {
        return Err(refuse(format!("{} is not {}", tag.text(), Tag::Ed25519Key.text())));
    }
    let seed = bytes.as_slice().try_into().map_err(|_| refuse("the key is not 32 bytes"))?;
    Ok(Zeroizing::new(seed))
}

/// Writes a stand-alone POK file, with the checksum that its reader demands.
pub fn pok_to_armor(seed: &[u8; 32]) -> Zeroizing<String> {
    Zeroizing::new(armor::encode(seed, Tag::Ed25519Key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(owner: Owner) -> PrivateKey {
        PrivateKey::from_secrets(owner, [1; 32], [0x11; 32]).unwrap()
    }

    #[test]
    fn files_read_back_in_every_dialect() {
        for owner in [Owner::Org, Owner::User] {
            for (dialect, length) in [(Dialect::L, 74), (Dialect::M, 73), (Dialect::P, 73)] {
                let bytes = key(owner).encode(dialect);
                assert_eq!(bytes.len(), length);
                let read = PrivateKey::decode(&bytes).unwrap();
                assert_eq!((read.seed(), read.scalar()), (&[1; 32], &[0x11; 32]));
                assert_eq!(read.owner(), owner);
                let armored = key(owner).to_armor(dialect);
                assert!(PrivateKey::from_armor(armored.as_bytes()).is_ok());
            }
        }
    }

    #[test]
    fn reads_the_key_of_vector_v1() {
        let bytes = hex::decode(
            "07a00000440120b6b730a4b6474f6daf2d9702d3822f4d24c9ee0db634c9857779cb80131db030\
             0320828afadc48deead84ed90d5855223d845592bda42631658f81daeb06b325f595",
        )
        .unwrap();
        let key = PrivateKey::decode(&bytes).unwrap();
        assert_eq!(
            hex::encode(key.signing_key()),
            "878e24038017cb68059e517ea2cb9c1b6b7848e05ebbc080dd65b1a3a44b7c80"
        );
        assert_eq!(
            hex::encode(key.encryption_key()),
            "02ff5d28d73031b7f56b6558d42586080e0eabe4cf8a6b485c211bb30ea254e211"
        );
        assert_eq!(*key.encode(Dialect::P), bytes);
    }

    #[test]
    fn refuses_impossible_scalars_and_prints_no_secret() {
        assert!(PrivateKey::from_secrets(Owner::Org, [1; 32], [0; 32]).is_err());
        assert!(PrivateKey::from_secrets(Owner::Org, [1; 32], [0xff; 32]).is_err());
        assert!(!format!("{:?}", key(Owner::Org)).contains("0101"));
    }

    #[test]
    fn pok_files_read_back() {
        let text = pok_to_armor(&[9; 32]);
        assert_eq!(*pok_from_armor(text.as_bytes()).unwrap(), [9; 32]);
        assert!(pok_from_armor(key(Owner::Org).to_armor(Dialect::L).as_bytes()).is_err());
    }
}
