//! Fingerprints: SHA-512 over the body through the end of a signature field
//! (reference §4). The five header bytes are never hashed.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use sha2::{Digest, Sha512};

use crate::dime::Rejection;

/// 64 bytes of SHA-512. Prints as 86 characters of unpadded base64, the form
/// DMTP carries; HTTP paths use [`Fingerprint::to_hex`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 64]);

impl Fingerprint {
    /// The fingerprint of `body`, which is a prefix of a signet's body.
    pub fn of(body: &[u8]) -> Fingerprint {
        Fingerprint(Sha512::digest(body).into())
    }

    pub const fn from_bytes(bytes: [u8; 64]) -> Fingerprint {
        Fingerprint(bytes)
    }

    pub const fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }

    /// 128 lower-case hex digits.
    pub fn to_hex(&self) -> String {
        hex::encode(self.0)
    }

    /// Reads every form of the reference §4: base64 of 86 characters or padded
    /// to 88, with either alphabet, or 128 hex digits. Case matters in base64.
    /// Anything else is refused with rule `A15`.
    pub fn parse(text: &str) -> Result<Fingerprint, Rejection> {
        let refuse = |why: &str| Rejection::new("A15", format!("not a fingerprint: {why}"));
        let bytes = if text.len() == 128 {
            hex::decode(text).map_err(|_| refuse("128 characters that are not hex"))?
        } else {
            let bare = match text.len() {
                86 => text,
                88 => text.strip_suffix("==").ok_or_else(|| refuse("88 characters, no padding"))?,
                _ => return Err(refuse("it has 86 or 88 base64 characters, or 128 hex digits")),
            };
            STANDARD_NO_PAD
                .decode(bare)
                .or_else(|_| URL_SAFE_NO_PAD.decode(bare))
                .map_err(|_| refuse("not canonical base64"))?
        };
        let bytes = bytes.try_into().map_err(|_| refuse("it is not 64 bytes"))?;
        Ok(Fingerprint(bytes))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_reads_back() {
        let fingerprint = Fingerprint::of(b"body");
        let printed = fingerprint.to_string();
        assert_eq!(printed.len(), 86);
        let url = URL_SAFE_NO_PAD.encode(fingerprint.as_bytes());
        let upper = fingerprint.to_hex().to_uppercase();
        for form in [&printed, &format!("{printed}=="), &url, &format!("{url}=="), &upper] {
            assert_eq!(Fingerprint::parse(form).unwrap(), fingerprint, "{form}");
        }
    }

    #[test]
    fn other_forms_are_refused() {
        let printed = Fingerprint::of(b"body").to_string();
        let trailing_bits = format!("{}B", "A".repeat(85));
        for bad in ["", "A", &printed[1..], &format!("{printed}="), &trailing_bits, &"ä".repeat(43)]
        {
            assert_eq!(Fingerprint::parse(bad).unwrap_err().rule, "A15", "{bad}");
        }
    }
}
