//! The hidden part of a user observation: what its commitment commits to.

use std::fmt;

use crate::dime::Timestamp;
use crate::proof::Hash;
use crate::proof::wire::{Malformed, Reader, Writer};

/// Longest [`UserPayload`], bytes.
pub const MAX_PAYLOAD: usize = 256;
/// The three signatures of a user signet: fields 6, 253, 255.
pub const MAX_SIGNERS: usize = 3;

/// How far a user signet is signed: the states of the reference, §3.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    Crypto = 7,
    Full = 8,
    /// The organization's own signature binds key to name.
    Id = 9,
}

impl Level {
    fn from_number(number: u64) -> Option<Level> {
        [Level::Crypto, Level::Full, Level::Id].into_iter().find(|l| *l as u64 == number)
    }

    /// `None` below the crypto level, where a signet is not yet signed.
    pub fn of(level: crate::dime::signet::Level) -> Option<Level> {
        use crate::dime::signet::Level as Dime;
        match level {
            Dime::Incomplete | Dime::Ssr => None,
            Dime::Crypto => Some(Level::Crypto),
            Dime::Full => Some(Level::Full),
            Dime::Id => Some(Level::Id),
        }
    }

    /// Signatures by the organization that a signet of this level carries.
    pub fn signatures(self) -> usize {
        match self {
            Level::Crypto => 1,
            Level::Full => 2,
            Level::Id => 3,
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Level::Crypto => "crypto",
            Level::Full => "full",
            Level::Id => "id",
        })
    }
}

/// The hidden part of a user observation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserPayload {
    /// Absent for an observation of absence.
    pub signet: Option<SignetFacts>,
    /// When it was received; testimony.
    pub observed: Timestamp,
    /// The version of the domain's entry it was validated under, not 0.
    pub domain_version: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignetFacts {
    /// Of the whole object as received.
    pub sha256: Hash,
    /// Of the body up to and with the crypto signature.
    pub crypto_sha256: Hash,
    pub level: Level,
    /// For fields 6, 253, 255 as present: 0 the POK, n the n-th SOK.
    pub signers: Vec<u32>,
}

impl UserPayload {
    pub fn decode(bytes: &[u8]) -> Result<UserPayload, Malformed> {
        let mut reader = Reader::limited(bytes, MAX_PAYLOAD)?;
        let sha256 = reader.array(1)?;
        let crypto_sha256 = reader.array(2)?;
        let level = match reader.uint(3)? {
            0 => None,
            number => Some(
                Level::from_number(number).ok_or(Malformed::Value(3, "there is no such level"))?,
            ),
        };
        let mut signers = Vec::new();
        reader.packed(4, |signer| {
            let signer = u32::try_from(signer)
                .map_err(|_| Malformed::Value(4, "it does not fit into 32 bits"))?;
            if signers.len() == MAX_SIGNERS {
                return Err(Malformed::Length(4));
            }
            signers.push(signer);
            Ok(())
        })?;
        let observed = Timestamp::from_millis(reader.required_uint(5)?);
        let domain_version = reader.required_uint(6)?;
        reader.end()?;
        let signet = match (sha256, crypto_sha256, level) {
            (Some(sha256), Some(crypto_sha256), Some(level)) => {
                if signers.len() != level.signatures() {
                    return Err(Malformed::Value(4, "not one for each signature of this level"));
                }
                Some(SignetFacts { sha256, crypto_sha256, level, signers })
            }
            (None, None, None) if signers.is_empty() => None,
            _ => return Err(Malformed::Value(1, "the fields of a signet are not all there")),
        };
        Ok(UserPayload { signet, observed, domain_version })
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::with_capacity(128);
        if let Some(signet) = &self.signet {
            writer
                .bytes(1, &signet.sha256)
                .bytes(2, &signet.crypto_sha256)
                .uint(3, signet.level as u64)
                .packed(4, signet.signers.iter().map(|&signer| u64::from(signer)));
        }
        writer.uint(5, self.observed.millis()).uint(6, self.domain_version);
        writer.finish()
    }
}
