//! Whether a DX host's TLS certificate is acceptable (reference §6.3).
//!
//! The record's pins come first; the public certificate authorities second, and
//! only where the record pins nothing. Gathering the facts about a certificate
//! is the `dmtp` room's work.

use super::record::Record;
use super::{Dnssec, Rejection};

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
/// `tls-pin-mismatch`, `tls-self-signed`, `tls-host-name`, `tls-chain`, and
/// `dnssec-bogus` for a record that must not be used at all.
pub fn decide(_facts: &Facts, _record: Option<(&Record, Dnssec)>) -> Result<Accepted, Rejection> {
    Err(Rejection::new("tls-chain", "not decided"))
}
