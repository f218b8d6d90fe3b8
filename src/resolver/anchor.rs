//! The keys from which DNSSEC trust starts: the built-in root keys of IANA, or
//! a file of DNSKEY or DS records.

use std::path::Path;

use super::Error;

/// Largest trust anchor file, bytes.
pub const MAX_ANCHOR_FILE: u64 = 64 * 1024;

/// Trusted keys, as DNSKEY or DS records in presentation form.
#[derive(Clone, Debug, Default)]
pub struct TrustAnchor {}

impl TrustAnchor {
    /// The keys of the root zone that are compiled in (KSK-2017, KSK-2024).
    pub fn iana() -> TrustAnchor {
        todo!()
    }

    /// Reads a file of DNSKEY or DS records, one a line, as `dig` and
    /// `dnssec-keygen` print them; `;` begins a comment.
    pub fn from_file(path: &Path) -> Result<TrustAnchor, Error> {
        let _ = path;
        todo!()
    }

    /// The same, from text.
    pub fn parse(text: &str) -> Result<TrustAnchor, Error> {
        let _ = text;
        todo!()
    }
}
