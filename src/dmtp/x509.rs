//! The few parts of an X.509 certificate that webpki does not hand out (RFC
//! 5280 §4.1). Reads DER, judges nothing, and takes certificates of any version. Public
//! for the fuzz target that holds it against what TLS reads.

/// Borrowed parts of one certificate; all but `key_bits` with tag and length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts<'a> {
    /// 1 to 3.
    pub version: u8,
    pub issuer: &'a [u8],
    pub subject: &'a [u8],
    /// SubjectPublicKeyInfo.
    pub spki: &'a [u8],
    /// Contents of the AlgorithmIdentifier of the key, without tag and length.
    pub key_algorithm: &'a [u8],
    /// The key itself.
    pub key_bits: &'a [u8],
}

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
/// `[0] EXPLICIT Version`; absent in version 1.
const VERSION: u8 = 0xa0;

/// The parts of a certificate, or `None` if it is not one.
pub fn parts(der: &[u8]) -> Option<Parts<'_>> {
    let (certificate, rest) = Value::read(der, SEQUENCE)?;
    if !rest.is_empty() {
        return None;
    }
    let (tbs, _) = Value::read(certificate.contents, SEQUENCE)?;
    let (version, rest) = match Value::read(tbs.contents, VERSION) {
        Some((version, rest)) => (read_version(version.contents)?, rest),
        None => (1, tbs.contents),
    };
    let (_serial, rest) = Value::read(rest, INTEGER)?;
    let (_algorithm, rest) = Value::read(rest, SEQUENCE)?;
    let (issuer, rest) = Value::read(rest, SEQUENCE)?;
    let (_validity, rest) = Value::read(rest, SEQUENCE)?;
    let (subject, rest) = Value::read(rest, SEQUENCE)?;
    let (spki, _extensions) = Value::read(rest, SEQUENCE)?;
    let (key_algorithm, key) = Value::read(spki.contents, SEQUENCE)?;
    let (key, _) = Value::read(key, BIT_STRING)?;
    Some(Parts {
        version,
        issuer: issuer.whole,
        subject: subject.whole,
        spki: spki.whole,
        key_algorithm: key_algorithm.contents,
        // The first byte counts unused bits, none in a key.
        key_bits: key.contents.strip_prefix(&[0])?,
    })
}

fn read_version(contents: &[u8]) -> Option<u8> {
    match Value::read(contents, INTEGER)? {
        (Value { contents: [number @ 0..=2], .. }, []) => Some(number + 1),
        _ => None,
    }
}

/// One DER value.
struct Value<'a> {
    whole: &'a [u8],
    contents: &'a [u8],
}

impl<'a> Value<'a> {
    /// The value at the beginning, if it has that tag, and what follows it.
    fn read(input: &'a [u8], tag: u8) -> Option<(Value<'a>, &'a [u8])> {
        let (head, rest) = input.split_first()?;
        let (first, rest) = rest.split_first()?;
        if *head != tag {
            return None;
        }
        let (length, rest) = match first {
            0..=0x7f => (usize::from(*first), rest),
            // At most four bytes of length: more than any handshake carries.
            0x81..=0x84 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                let add = |sum: usize, byte: &u8| sum << 8 | usize::from(*byte);
                (bytes.iter().fold(0, add), rest)
            }
            _ => return None,
        };
        let (contents, rest) = rest.split_at_checked(length)?;
        let whole = input.get(..input.len() - rest.len())?;
        Some((Value { whole, contents }, rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_parts() {
        let key = rcgen::KeyPair::generate().unwrap();
        let made = rcgen::CertificateParams::new(vec!["dx.example.com".into()]).unwrap();
        let der = made.self_signed(&key).unwrap();
        let parts = parts(der.der()).unwrap();
        assert_eq!(parts.version, 3);
        assert_eq!(parts.issuer, parts.subject);
        assert_eq!(parts.spki, rcgen::PublicKeyData::subject_public_key_info(&key));
    }

    #[test]
    fn never_panics() {
        let key = rcgen::KeyPair::generate().unwrap();
        let made = rcgen::CertificateParams::new(vec!["dx.example.com".into()]).unwrap();
        let der = made.self_signed(&key).unwrap().der().to_vec();
        for at in 0..der.len() {
            assert!(parts(&der[..at]).is_none());
            for change in [0, 0x7f, 0x80, 0x84, 0xff] {
                let mut bytes = der.clone();
                bytes[at] = change;
                let _ = parts(&bytes);
            }
        }
    }
}
