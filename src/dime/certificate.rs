//! Whether a DX host's TLS certificate is acceptable (reference §6.3).
//!
//! The record's pins come first; the public certificate authorities second, and
//! only where the record pins nothing. Gathering the facts about a certificate
//! is the `dmtp` room's work.

use sha2::{Digest as _, Sha256, Sha512};

use super::record::{Pin, Pok, Record};
use super::{Dnssec, Rejection, ed25519};

/// What the handshake showed. Facts only: nothing here is a decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The end-entity certificate, DER, as received.
    pub der: Vec<u8>,
    /// Its SubjectPublicKeyInfo, DER.
    pub spki: Vec<u8>,
    /// Whether it chains to a configured authority, now.
    pub chain: ChainVerdict,
    /// Whether it is made out to the host that was connected to.
    pub name: bool,
    /// Whether it is its own issuer.
    pub self_signed: bool,
}

/// What X.509 path validation said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChainVerdict {
    Trusted,
    /// Why not, in the verifier's words.
    Untrusted(String),
}

/// An acceptable certificate, and what made it so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    pub how: How,
}

/// The evidence that accepted a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// A pin in a record that DNSSEC secures.
    Pin(PinMatch),
    /// A pin in an unsecured record, and authority and host name as well.
    PinAndAuthority(PinMatch),
    /// The record pins nothing, or there is none: authority and host name.
    Authority,
}

/// Which `tls` field matched, counted from 0, and in which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PinMatch {
    pub tls: usize,
    pub by: By,
}

/// What a pin was compared with (A3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// A signature by the POK at this position of the record.
    Signature { pok: usize },
    /// The hash of the whole certificate.
    Certificate,
    /// The hash of its public key.
    PublicKey,
}

/// Decides by §6.3. `record` is absent where there is none to go by, as for a
/// `syn` host reached by name.
///
/// # Errors
/// `tls-pin-mismatch` (whatever the authorities say), `tls-self-signed`,
/// `tls-host-name`, `tls-chain`, and `dnssec-bogus` for a record that must not
/// be used at all.
pub fn decide(facts: &Facts, record: Option<(&Record, Dnssec)>) -> Result<Accepted, Rejection> {
    let how = match record {
        Some((_, Dnssec::Bogus)) => {
            return Err(Rejection::new("dnssec-bogus", "the record's DNSSEC signature is bogus"));
        }
        Some((record, dnssec)) if record.pins() => {
            let pin = pin_match(facts, record).ok_or_else(|| {
                Rejection::new("tls-pin-mismatch", "no tls field of the record matches")
            })?;
            if dnssec == Dnssec::Secure {
                How::Pin(pin)
            } else {
                by_authority(facts)?;
                How::PinAndAuthority(pin)
            }
        }
        _ => {
            if facts.self_signed {
                return Err(Rejection::new("tls-self-signed", "self-signed, and nothing pins it"));
            }
            by_authority(facts)?;
            How::Authority
        }
    };
    Ok(Accepted { how })
}

/// Steps 4 and 5: the host name, then the chain.
fn by_authority(facts: &Facts) -> Result<(), Rejection> {
    if !facts.name {
        return Err(Rejection::new("tls-host-name", "the certificate is for another host"));
    }
    match &facts.chain {
        ChainVerdict::Trusted => Ok(()),
        ChainVerdict::Untrusted(why) => {
            Err(Rejection::new("tls-chain", format!("no path to an authority: {why}")))
        }
    }
}

/// The first `tls` field that matches. libdime looks at the first one only.
fn pin_match(facts: &Facts, record: &Record) -> Option<PinMatch> {
    let hashes = Hashes::of(facts);
    record
        .tls
        .iter()
        .enumerate()
        .find_map(|(tls, pin)| hashes.compare(pin, &record.poks).map(|by| PinMatch { tls, by }))
}

/// Everything a pin can be compared with.
struct Hashes {
    certificate_256: [u8; 32],
    certificate_512: [u8; 64],
    key_256: [u8; 32],
    key_512: [u8; 64],
}

impl Hashes {
    fn of(facts: &Facts) -> Hashes {
        Hashes {
            certificate_256: Sha256::digest(&facts.der).into(),
            certificate_512: Sha512::digest(&facts.der).into(),
            key_256: Sha256::digest(&facts.spki).into(),
            key_512: Sha512::digest(&facts.spki).into(),
        }
    }

    fn compare(&self, pin: &Pin, poks: &[Pok]) -> Option<By> {
        match pin {
            Pin::Signature(signature) => self
                .signer(signature, poks)
                .or_else(|| (*signature == self.certificate_512).then_some(By::Certificate)),
            Pin::Sha256(hash) => either(hash, &self.certificate_256, &self.key_256),
            Pin::Sha512(hash) => either(hash, &self.certificate_512, &self.key_512),
        }
    }

    fn signer(&self, signature: &[u8; 64], poks: &[Pok]) -> Option<By> {
        poks.iter()
            .position(|pok| ed25519::verify(pok, &self.certificate_512, signature).is_ok())
            .map(|pok| By::Signature { pok })
    }
}

fn either<const N: usize>(hash: &[u8; N], certificate: &[u8; N], key: &[u8; N]) -> Option<By> {
    if hash == certificate {
        Some(By::Certificate)
    } else if hash == key {
        Some(By::PublicKey)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dime::record::{Template, sign_certificate};

    const SEED: [u8; 32] = [7; 32];
    const OTHER: [u8; 32] = [8; 32];

    fn pok(seed: &[u8; 32]) -> Pok {
        ed25519::public_key(seed)
    }

    fn facts() -> Facts {
        Facts {
            der: b"a certificate".to_vec(),
            spki: b"a key".to_vec(),
            chain: ChainVerdict::Trusted,
            name: true,
            self_signed: false,
        }
    }

    /// What a DX host that makes its own certificate shows.
    fn self_made() -> Facts {
        let chain = ChainVerdict::Untrusted("UnknownIssuer".to_owned());
        Facts { chain, name: false, self_signed: true, ..facts() }
    }

    fn record(tls: &[Pin]) -> Record {
        let text = Template { poks: vec![pok(&OTHER), pok(&SEED)], ..Template::default() }.text();
        Record { tls: tls.to_vec(), ..Record::parse(text.as_bytes()).unwrap() }
    }

    fn good() -> Pin {
        Pin::Signature(sign_certificate(&SEED, b"a certificate"))
    }

    fn rule(facts: &Facts, record: Option<(&Record, Dnssec)>) -> &'static str {
        decide(facts, record).unwrap_err().rule
    }

    #[test]
    fn a_secured_pin_needs_nothing_else() {
        let accepted = decide(&self_made(), Some((&record(&[good()]), Dnssec::Secure))).unwrap();
        assert_eq!(accepted.how, How::Pin(PinMatch { tls: 0, by: By::Signature { pok: 1 } }));
    }

    #[test]
    fn every_pin_meets_every_key() {
        let wrong = Pin::Signature(sign_certificate(&SEED, b"another certificate"));
        let pins = record(&[wrong, Pin::Sha256([1; 32]), good()]);
        let accepted = decide(&self_made(), Some((&pins, Dnssec::Secure))).unwrap();
        assert_eq!(accepted.how, How::Pin(PinMatch { tls: 2, by: By::Signature { pok: 1 } }));
    }

    #[test]
    fn fingerprints_match_certificate_or_key() {
        let key_256 = Sha256::digest(b"a key").into();
        let key_512 = Sha512::digest(b"a key").into();
        let certificate_256 = Sha256::digest(b"a certificate").into();
        let certificate_512 = Sha512::digest(b"a certificate").into();
        for (pin, by) in [
            (Pin::Sha256(certificate_256), By::Certificate),
            (Pin::Sha256(key_256), By::PublicKey),
            (Pin::Sha512(certificate_512), By::Certificate),
            (Pin::Sha512(key_512), By::PublicKey),
            (Pin::Signature(certificate_512), By::Certificate),
        ] {
            let accepted = decide(&self_made(), Some((&record(&[pin]), Dnssec::Secure))).unwrap();
            assert_eq!(accepted.how, How::Pin(PinMatch { tls: 0, by }));
        }
    }

    #[test]
    fn an_unsecured_pin_needs_authority_and_name_too() {
        let pinned = record(&[good()]);
        for dnssec in [Dnssec::Insecure, Dnssec::Indeterminate] {
            let with = |facts: &Facts| rule(facts, Some((&pinned, dnssec)));
            assert_eq!(with(&self_made()), "tls-host-name");
            assert_eq!(with(&Facts { name: true, ..self_made() }), "tls-chain");
            let accepted = decide(&facts(), Some((&pinned, dnssec))).unwrap();
            assert!(matches!(accepted.how, How::PinAndAuthority(_)));
        }
    }

    #[test]
    fn a_pin_that_misses_is_fatal_whatever_the_authorities_say() {
        let missed = record(&[Pin::Sha256([9; 32])]);
        assert_eq!(rule(&facts(), Some((&missed, Dnssec::Secure))), "tls-pin-mismatch");
        let text = String::from_utf8(record(&[]).text).unwrap() + " tls=AAAA";
        let unreadable = Record::parse(text.as_bytes()).unwrap();
        assert_eq!(rule(&facts(), Some((&unreadable, Dnssec::Secure))), "tls-pin-mismatch");
    }

    #[test]
    fn without_pins_the_authorities_decide() {
        let bare = record(&[]);
        for record in [None, Some((&bare, Dnssec::Secure)), Some((&bare, Dnssec::Insecure))] {
            assert_eq!(decide(&facts(), record).unwrap().how, How::Authority);
            assert_eq!(rule(&self_made(), record), "tls-self-signed");
            assert_eq!(rule(&Facts { name: false, ..facts() }, record), "tls-host-name");
            let chain = ChainVerdict::Untrusted("Expired".to_owned());
            assert_eq!(rule(&Facts { chain, ..facts() }, record), "tls-chain");
        }
    }

    #[test]
    fn a_bogus_record_is_not_used() {
        assert_eq!(rule(&facts(), Some((&record(&[good()]), Dnssec::Bogus))), "dnssec-bogus");
    }
}
