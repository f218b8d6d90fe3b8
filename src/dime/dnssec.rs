//! The four answers of a validating resolver (RFC 4035 §4.3).

use std::fmt;

/// How an answer from DNS was protected. Stored per observation, never upgraded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dnssec {
    /// Signed, and the chain reaches the trust anchor.
    Secure,
    /// Proved to lie below an unsigned delegation.
    Insecure,
    /// Should be signed and is not, or is signed wrongly.
    Bogus,
    /// Nothing could be proved either way.
    Indeterminate,
}

impl fmt::Display for Dnssec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Dnssec::Secure => "secure",
            Dnssec::Insecure => "insecure",
            Dnssec::Bogus => "bogus",
            Dnssec::Indeterminate => "indeterminate",
        })
    }
}
