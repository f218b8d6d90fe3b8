//! The keys from which DNSSEC trust starts: the built-in root keys of IANA, or
//! a file of DNSKEY or DS records.
//!
//! A DS record names a key without holding it, so the key is fetched when the
//! resolver starts and taken only if its digest matches. Left out: BIND's
//! `trust-anchors` block, and rolling an anchor over by itself (RFC 5011).

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hickory_proto::dnssec::rdata::{DNSKEY, DS};
use hickory_proto::dnssec::{
    Algorithm, DigestType, PublicKey, PublicKeyBuf, TrustAnchors, Verifier,
};
use hickory_proto::rr::Name;

use super::Error;
use crate::proof::dnssec::Anchor;

/// Largest trust anchor file, bytes.
pub const MAX_ANCHOR_FILE: usize = 64 * 1024;

/// Trusted keys, as DNSKEY or DS records in presentation form.
#[derive(Clone, Debug, Default)]
pub struct TrustAnchor {
    keys: Vec<(Name, PublicKeyBuf)>,
    digests: Vec<(Name, DS)>,
}

impl TrustAnchor {
    /// The keys of the root zone that are compiled in (KSK-2017, KSK-2024).
    pub fn iana() -> TrustAnchor {
        let anchors = TrustAnchors::default();
        let keys = (0..anchors.len()).filter_map(|index| anchors.get(index));
        TrustAnchor { keys: keys.map(|key| (Name::root(), copy(key))).collect(), digests: vec![] }
    }

    /// Reads a file of DNSKEY or DS records, one a line, as `dig` and
    /// `dnssec-keygen` print them; `;` begins a comment. At least one record,
    /// at most 64 KiB.
    pub fn from_file(path: &Path) -> Result<TrustAnchor, Error> {
        let refuse = |why: String| Error::Setup {
            reason: format!("trust anchor file {}: {why}", path.display()),
        };
        let length = std::fs::metadata(path).map_err(|error| refuse(error.to_string()))?.len();
        if length > MAX_ANCHOR_FILE as u64 {
            return Err(refuse(format!("longer than {MAX_ANCHOR_FILE} bytes")));
        }
        let text = std::fs::read_to_string(path).map_err(|error| refuse(error.to_string()))?;
        TrustAnchor::parse(&text).map_err(|error| refuse(error.to_string()))
    }

    /// The same, from text.
    pub fn parse(text: &str) -> Result<TrustAnchor, Error> {
        let refuse = |why: String| Error::Setup { reason: why };
        let mut anchor = TrustAnchor::default();
        for (number, line) in text.lines().enumerate() {
            let line = line.split(';').next().unwrap_or_default();
            if !line.trim().is_empty() {
                anchor
                    .add(line)
                    .map_err(|why| refuse(format!("trust anchor, line {}: {why}", number + 1)))?;
            }
        }
        if anchor.keys.is_empty() && anchor.digests.is_empty() {
            return Err(refuse("no trust anchor: no DNSKEY or DS record".into()));
        }
        Ok(anchor)
    }

    /// The anchors of the root zone, as `proof::dnssec` takes them. Chains
    /// start there and nowhere else.
    pub fn of_root(&self) -> Vec<Anchor> {
        let keys = self.keys.iter().filter(|(owner, _)| owner.is_root()).map(|(_, key)| {
            let algorithm = u8::from(key.algorithm());
            Anchor::Key { algorithm, public_key: key.public_bytes().to_vec() }
        });
        let digests = self.digests.iter().filter(|(owner, _)| owner.is_root());
        let digests = digests.map(|(_, digest)| Anchor::Ds {
            key_tag: digest.key_tag(),
            algorithm: u8::from(digest.algorithm()),
            digest_type: u8::from(digest.digest_type()),
            digest: digest.digest().to_vec(),
        });
        keys.chain(digests).collect()
    }

    /// The anchors that are known by digest only.
    pub(super) fn digests(&self) -> &[(Name, DS)] {
        &self.digests
    }

    /// What the validator takes: our keys, and those of `fetched` that one of
    /// our digests covers.
    pub(super) fn anchors(&self, fetched: &[(Name, DNSKEY)]) -> TrustAnchors {
        let mut anchors = TrustAnchors::empty();
        for (name, key) in &self.keys {
            anchors.insert_with_name(key, name.into());
        }
        for (name, key) in fetched {
            let covered = self.digests.iter().any(|(owner, digest)| {
                owner == name
                    && key.calculate_key_tag().is_ok_and(|tag| tag == digest.key_tag())
                    && key.algorithm() == digest.algorithm()
                    && digest.covers(name, key).unwrap_or(false)
            });
            if covered && !key.revoke() {
                anchors.insert_with_name(key.public_key(), name.into());
            }
        }
        anchors
    }

    /// One record: `owner [ttl] [IN] DNSKEY|DS data`.
    fn add(&mut self, line: &str) -> Result<(), String> {
        let mut words = line.split_ascii_whitespace();
        let owner = words.next().ok_or("empty")?;
        let owner = super::ask_name(owner).map_err(|error| error.to_string())?;
        let kind = words
            .by_ref()
            .map(str::to_ascii_uppercase)
            .find(|word| word != "IN" && word.parse::<u32>().is_err())
            .ok_or("neither DNSKEY nor DS")?;
        let mut number = || -> Result<u16, String> {
            let word = words.next().ok_or("a field is missing")?;
            word.parse().map_err(|_| format!("not a number: {word:?}"))
        };
        let (first, second, third) = (number()?, number()?, number()?);
        let rest: String = words.collect();
        match kind.as_str() {
            "DNSKEY" => {
                if second != 3 || first & 0x0100 == 0 || first & 0x0080 != 0 {
                    return Err("not a zone key of protocol 3, or a revoked one".into());
                }
                let key = STANDARD.decode(&rest).map_err(|error| error.to_string())?;
                self.keys.push((owner, PublicKeyBuf::new(key, algorithm(third)?)));
            }
            "DS" => {
                let digest = hex::decode(&rest).map_err(|error| error.to_string())?;
                let (kind, length) = match third {
                    2 => (DigestType::SHA256, 32),
                    4 => (DigestType::SHA384, 48),
                    _ => return Err(format!("digest type {third}: only 2 and 4 are trusted")),
                };
                if digest.len() != length {
                    return Err(format!("a digest of type {third} has {length} bytes"));
                }
                self.digests.push((owner, DS::new(first, algorithm(second)?, kind, digest)));
            }
            other => return Err(format!("neither DNSKEY nor DS: {other:?}")),
        }
        Ok(())
    }
}

fn algorithm(number: u16) -> Result<Algorithm, String> {
    let algorithm = u8::try_from(number).map(Algorithm::from_u8).ok();
    let algorithm = algorithm.filter(|algorithm| algorithm.is_supported());
    algorithm.ok_or(format!("algorithm {number} is not supported"))
}

fn copy(key: &PublicKeyBuf) -> PublicKeyBuf {
    PublicKeyBuf::new(key.public_bytes().to_vec(), key.algorithm())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// KSK-2017 of the root, as IANA publishes its digest.
    const ROOT_DS: &str =
        ". 3600 IN DS 20326 8 2 E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D";

    #[test]
    fn reads_keys_and_digests() {
        let key = STANDARD.encode([7; 32]);
        let text = format!("; ours\n{ROOT_DS} ; now\n\nexample. DNSKEY 257 3 15 {key}\n");
        let anchor = TrustAnchor::parse(&text).unwrap();
        assert_eq!(anchor.digests.len(), 1);
        assert_eq!(anchor.keys.len(), 1);
        assert_eq!(anchor.keys[0].0, Name::from_ascii("example.").unwrap());
    }

    #[test]
    fn refuses_what_gives_no_trust() {
        let key = STANDARD.encode([7; 32]);
        for bad in [
            "".to_owned(),
            "; nothing".to_owned(),
            ". DS 20326 8 1 E06D44B80B8F1D39A95C0B0D7C65D084".to_owned(),
            ". DS 20326 8 2 E06D".to_owned(),
            ". DS 20326 8 2 nothex".to_owned(),
            ". TXT a b c".to_owned(),
            ".".to_owned(),
            ". DNSKEY 257 3".to_owned(),
            format!(". DNSKEY 257 4 15 {key}"),
            format!(". DNSKEY 385 3 15 {key}"),
            format!(". DNSKEY 257 3 99 {key}"),
        ] {
            assert!(TrustAnchor::parse(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_digest_takes_only_the_key_it_covers() {
        let iana = TrustAnchor::iana();
        assert_eq!(iana.keys.len(), 2);
        let anchor = TrustAnchor::parse(ROOT_DS).unwrap();
        let fetched: Vec<_> = iana
            .keys
            .iter()
            .map(|(name, key)| (name.clone(), DNSKEY::new(true, true, false, copy(key))))
            .collect();
        let anchors = anchor.anchors(&fetched);
        assert_eq!(anchors.len(), 1);
        assert!(anchors.contains(&iana.keys[0].1));
        assert!(anchor.anchors(&[]).is_empty());
    }
}
