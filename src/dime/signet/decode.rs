//! From bytes to a [`Signet`]: header, dialect, fields, key encodings.
//!
//! Every check names its rule of the reference: S-1 to S-4 (§2.3), the G rules
//! of §3.5, the A rules of §8.

use super::field::{self, Layout};
use super::{Dialect, HEADER, Kind, Level, MAX_KEYS, SecondaryKey, Signet, Span};
use crate::dime::Rejection;

/// The format byte before an Ed25519 key in dialects L and M.
const KEY_FORMAT: u8 = 0x40;

pub(super) fn decode(bytes: &[u8], limit: usize) -> Result<Signet, Rejection> {
    if bytes.len() > limit {
        let message = format!("{} bytes, more than the {limit} this reader takes", bytes.len());
        return Err(Rejection::new("A32", message));
    }
    let (kind, body) = header(bytes)?;
    let dialect = detect(kind, body)?;
    let fields = Walk { kind, dialect, body, at: 0, last: None }.fields()?;
    let decoding = Decoding { kind, dialect, body, fields: &fields };
    let signing_key = decoding.check()?;
    let level = decoding.level();
    Ok(Signet { bytes: bytes.into(), kind, dialect, level, signing_key, fields: fields.into() })
}

/// The key in the data of an org field 2: permissions, format, key (rule `G7`).
pub(super) fn secondary_key(data: &[u8]) -> Option<SecondaryKey> {
    match data {
        [permissions, KEY_FORMAT, key @ ..] => {
            Some(SecondaryKey { permissions: *permissions, key: key.try_into().ok()? })
        }
        _ => None,
    }
}

fn broken(message: impl Into<String>) -> Rejection {
    Rejection::new("structure", message)
}

fn header(bytes: &[u8]) -> Result<(Kind, &[u8]), Rejection> {
    let Some((&[t1, t2, l1, l2, l3], body)) = bytes.split_first_chunk::<HEADER>() else {
        return Err(broken(format!("{} bytes, shorter than the header", bytes.len())));
    };
    let number = u16::from_be_bytes([t1, t2]);
    let Some(kind) = Kind::from_number(number) else {
        return Err(broken(format!("type number {number} is not that of a signet or request")));
    };
    let length = u32::from_be_bytes([0, l1, l2, l3]) as usize;
    if length != body.len() {
        let message = format!("the header says {length} bytes, {} follow", body.len());
        return Err(broken(message));
    }
    Ok((kind, body))
}

/// Reference §0.1: the bytes after the first id, then those after the id of the
/// encryption key, decide.
fn detect(kind: Kind, body: &[u8]) -> Result<Dialect, Rejection> {
    match body {
        [] => return Err(Rejection::new("incomplete", "the body is empty")),
        [field::SIGNING_KEY, 0x20, ..] => {
            // P has one length byte here; 00 is the first of L's two.
            let mixed = body.get(34) == Some(&kind.encryption_key()) && body.get(35) == Some(&0);
            return match mixed {
                false => Ok(Dialect::P),
                true => Err(Rejection::new("A6", "a dialect P key before a dialect L key")),
            };
        }
        [field::SIGNING_KEY, 0x21, KEY_FORMAT, ..] => {}
        [field::SIGNING_KEY, 0x21, other, ..] => {
            let message = format!("the signing key has format byte {other:#04x}, not 0x40");
            return Err(Rejection::new("A5", message));
        }
        [field::SIGNING_KEY, 0, ..] => {
            return Err(Rejection::new("S-2", "the signing key is empty"));
        }
        [field::SIGNING_KEY, length, ..] => {
            let message = format!("a signing key of {length} bytes; it has 33, or 32 in dialect P");
            return Err(Rejection::new("A5", message));
        }
        [field::SIGNING_KEY] => return Err(broken("field 1 has no length")),
        [other, ..] => {
            return Err(broken(format!("the first field is {other}; field 1 comes first")));
        }
    }
    let mut at = 2 + 0x21;
    while kind == Kind::Org && body.get(at) == Some(&field::SECONDARY_KEY) {
        at += 2 + usize::from(body.get(at + 1).copied().unwrap_or_default());
    }
    if body.get(at) != Some(&kind.encryption_key()) {
        // No encryption key: nothing can complete it, and nothing else differs.
        return Ok(Dialect::L);
    }
    match body.get(at + 1) {
        Some(0) => Ok(Dialect::L),
        Some(0x21 | 0x41) => Ok(Dialect::M),
        Some(other) => Err(Rejection::new(
            "A6",
            format!("byte {other:#04x} after the encryption key's id fits neither dialect L nor M"),
        )),
        None => Err(broken("the encryption key has no length")),
    }
}

/// The walk over the body, field by field.
struct Walk<'a> {
    kind: Kind,
    dialect: Dialect,
    body: &'a [u8],
    at: usize,
    last: Option<u8>,
}

impl Walk<'_> {
    fn fields(mut self) -> Result<Vec<Span>, Rejection> {
        let mut fields = Vec::with_capacity(16);
        while self.at < self.body.len() {
            fields.push(self.field()?);
        }
        Ok(fields)
    }

    fn field(&mut self) -> Result<Span, Rejection> {
        let start = self.at;
        let id = self.number(1)? as u8;
        let layout = self.place(id)?;
        let mut label_length = 0;
        let length = match layout {
            Layout::Signature => 64,
            Layout::Short => self.number(1)?,
            Layout::Medium => self.number(2)?,
            Layout::Long => self.number(3)?,
            Layout::Named => {
                let label = self.number(1)?;
                if label == 0 {
                    return Err(Rejection::new("S-2", "an undefined field has no name"));
                }
                label_length = label as u8;
                self.skip(label)?;
                self.number(2)?
            }
        };
        let data = self.at;
        self.skip(length)?;
        Ok(Span { id, label_length, start: start as u32, data: data as u32, end: self.at as u32 })
    }

    /// Whether `id` may stand here, and how it is laid out.
    fn place(&mut self, id: u8) -> Result<Layout, Rejection> {
        let end = if self.kind == Kind::Ssr { field::SSR_SIGNATURE } else { field::ID_SIGNATURE };
        if self.last == Some(end) {
            let message = format!("bytes follow field {end}, which ends the object");
            return Err(Rejection::new("S-1", message));
        }
        let Some(rule) = field::rule(self.kind, self.dialect, id) else {
            let message =
                format!("{} signets of dialect {} have no field {id}", self.kind, { self.dialect });
            return Err(Rejection::new("A9", message));
        };
        match self.last {
            Some(last) if id < last => {
                return Err(broken(format!("field {id} after field {last}: ids ascend")));
            }
            Some(last) if id == last && rule.unique => {
                return Err(broken(format!("field {id} ({}) appears twice", rule.name)));
            }
            _ => {}
        }
        self.last = Some(id);
        Ok(rule.layout)
    }

    /// A big-endian number of `width` bytes, at most 3.
    fn number(&mut self, width: usize) -> Result<usize, Rejection> {
        let at = self.at;
        self.skip(width)?;
        let bytes = self.body.get(at..self.at).unwrap_or_default();
        Ok(bytes.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    fn skip(&mut self, length: usize) -> Result<(), Rejection> {
        // Both are below 2^24.
        let end = self.at + length;
        if end > self.body.len() {
            let name = self.last.map_or("a field".to_owned(), |id| format!("field {id}"));
            return Err(broken(format!("{name} runs past the end of the body")));
        }
        self.at = end;
        Ok(())
    }
}

/// A body whose fields are found, before it is a signet.
struct Decoding<'a> {
    kind: Kind,
    dialect: Dialect,
    body: &'a [u8],
    fields: &'a [Span],
}

impl Decoding<'_> {
    /// All rules about contents; gives the signing key.
    fn check(&self) -> Result<[u8; 32], Rejection> {
        let signing_key = self.signing_key()?;
        self.check_tail()?;
        self.check_secondary_keys()?;
        self.check_encryption_keys()?;
        self.check_identifier()?;
        Ok(signing_key)
    }

    fn data(&self, span: &Span) -> &[u8] {
        self.body.get(span.data as usize..span.end as usize).unwrap_or_default()
    }

    fn all(&self, id: u8) -> impl Iterator<Item = &[u8]> {
        self.fields.iter().filter(move |span| span.id == id).map(|span| self.data(span))
    }

    fn has(&self, id: u8) -> bool {
        self.fields.iter().any(|span| span.id == id)
    }

    /// Rule `A5`. Whether the key is a curve point shows when it is used.
    fn signing_key(&self) -> Result<[u8; 32], Rejection> {
        let data = self.all(field::SIGNING_KEY).next().unwrap_or_default();
        let key = match (self.dialect, data) {
            (Dialect::P, key) => key,
            (Dialect::L | Dialect::M, [KEY_FORMAT, key @ ..]) => key,
            _ => return Err(Rejection::new("A5", "the signing key has no format byte 0x40")),
        };
        key.try_into().map_err(|_| Rejection::new("A5", "the signing key is not 32 bytes"))
    }

    /// Rule `G7`: libdime lets one malformed key spoil every user signet, or
    /// ignores it, by its permissions. Here it spoils the org signet.
    fn check_secondary_keys(&self) -> Result<(), Rejection> {
        if self.kind != Kind::Org {
            return Ok(());
        }
        for (number, data) in self.all(field::SECONDARY_KEY).enumerate() {
            if number >= MAX_KEYS {
                let message = format!("more than {MAX_KEYS} secondary keys");
                return Err(Rejection::new("limit", message));
            }
            if secondary_key(data).is_none() {
                let message = format!(
                    "secondary key {number} has {} bytes; it is permissions, 0x40, 32 bytes",
                    data.len()
                );
                return Err(Rejection::new("G7", message));
            }
        }
        Ok(())
    }

    /// Rule `G6`: libdime never looks at them.
    fn check_encryption_keys(&self) -> Result<(), Rejection> {
        for key in self.all(self.kind.encryption_key()) {
            check_encryption_key("encryption key", key)?;
        }
        if self.kind == Kind::Org {
            return Ok(());
        }
        for (number, key) in self.all(field::ALTERNATE_KEY).enumerate() {
            if number >= MAX_KEYS {
                let message = format!("more than {MAX_KEYS} alternate encryption keys");
                return Err(Rejection::new("limit", message));
            }
            check_encryption_key("alternate encryption key", key)?;
        }
        Ok(())
    }

    /// Not empty (`S-2`), and text without control characters: libdime reads
    /// it up to a NUL, others read on (`G2`).
    fn check_identifier(&self) -> Result<(), Rejection> {
        let Some(identifier) = self.all(field::IDENTIFIER).next() else {
            return Ok(());
        };
        if identifier.is_empty() {
            return Err(Rejection::new("S-2", "the identifier is empty"));
        }
        match std::str::from_utf8(identifier) {
            Ok(text) if !text.chars().any(char::is_control) => Ok(()),
            _ => Err(Rejection::new("G2", "the identifier is not text")),
        }
    }

    /// `S-3`: nothing unsigned behind the highest signature. `S-4`: an
    /// identifier only where a signature covers it.
    fn check_tail(&self) -> Result<(), Rejection> {
        let signatures: &[u8] = match self.kind {
            Kind::Org => &[field::ORG_CRYPTO_SIGNATURE, 253, 255],
            Kind::User => &[field::USER_CRYPTO_SIGNATURE, 253, 255],
            Kind::Ssr => return Ok(()),
        };
        let last = self.fields.last().map_or(0, |span| span.id);
        if signatures.iter().any(|id| self.has(*id)) && !signatures.contains(&last) {
            let message = format!("field {last} lies behind the highest signature, unsigned");
            return Err(Rejection::new("S-3", message));
        }
        if self.has(field::IDENTIFIER) && !self.has(field::ID_SIGNATURE) {
            return Err(Rejection::new("S-4", "an identifier without the signature over it"));
        }
        Ok(())
    }

    /// The highest signature present decides; what it needs must be there.
    fn level(&self) -> Level {
        let keys = self.has(field::SIGNING_KEY) && self.has(self.kind.encryption_key());
        let (crypto, level) = match self.kind {
            Kind::Ssr => {
                let signed = keys && self.has(field::SSR_SIGNATURE);
                return if signed { Level::Ssr } else { Level::Incomplete };
            }
            Kind::Org => (self.has(field::ORG_CRYPTO_SIGNATURE), self.highest()),
            Kind::User => (
                self.has(field::SSR_SIGNATURE) && self.has(field::USER_CRYPTO_SIGNATURE),
                self.highest(),
            ),
        };
        let full = self.has(field::FULL_SIGNATURE);
        let complete = match level {
            Level::Id => keys && crypto && full && self.has(field::IDENTIFIER),
            _ => keys && crypto,
        };
        if complete { level } else { Level::Incomplete }
    }

    fn highest(&self) -> Level {
        if self.has(field::ID_SIGNATURE) {
            Level::Id
        } else if self.has(field::FULL_SIGNATURE) {
            Level::Full
        } else {
            Level::Crypto
        }
    }
}

/// 33 bytes beginning 02 or 03, or 65 beginning 04, and on the curve.
fn check_encryption_key(name: &str, key: &[u8]) -> Result<(), Rejection> {
    match (key.len(), key.first()) {
        (0, _) => Err(Rejection::new("S-2", format!("the {name} is empty"))),
        (33, Some(2 | 3)) | (65, Some(4)) => k256::PublicKey::from_sec1_bytes(key)
            .map(|_| ())
            .map_err(|_| Rejection::new("G6", format!("the {name} is not a point of secp256k1"))),
        (length, _) => Err(Rejection::new(
            "G6",
            format!(
                "the {name} is not a SEC1 point (02 or 03 and 32 bytes, 04 and 64): it has {length} bytes"
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{DEFAULT_LIMIT, Flag, wrap};
    use super::*;
    use crate::dime::ed25519;

    fn rule(kind: Kind, body: &[u8]) -> &'static str {
        decode(&wrap(kind, body), DEFAULT_LIMIT).err().map_or("ok", |refused| refused.rule)
    }

    /// An Ed25519 key field of dialect L or M.
    fn signing_key() -> Vec<u8> {
        let mut field = vec![1, 0x21, 0x40];
        field.extend(ed25519::public_key(&[1; 32]));
        field
    }

    /// An org encryption key field of dialect L.
    fn encryption_key(compressed: bool) -> Vec<u8> {
        let secret = k256::SecretKey::from_slice(&[0x11; 32]).unwrap();
        let point = k256::elliptic_curve::sec1::ToSec1Point::to_sec1_point(
            &secret.public_key(),
            compressed,
        );
        let mut field = vec![3, 0, point.len() as u8];
        field.extend_from_slice(point.as_bytes());
        field
    }

    fn sok(permissions: u8) -> Vec<u8> {
        let mut field = vec![2, 34, permissions, 0x40];
        field.extend([7; 32]);
        field
    }

    fn body(parts: &[Vec<u8>]) -> Vec<u8> {
        parts.concat()
    }

    /// `parts` under a crypto signature, then `text` under a full one.
    fn signed(parts: &[Vec<u8>], text: &[u8]) -> Vec<u8> {
        let mut body = body(parts);
        for (id, more) in [(4, [].as_slice()), (253, text)] {
            body.extend(more);
            let signature = ed25519::sign(&[1; 32], &body);
            body.push(id);
            body.extend(signature);
        }
        body
    }

    #[test]
    fn the_header_must_agree() {
        let good = wrap(Kind::Org, &signed(&[signing_key(), encryption_key(true)], &[]));
        assert!(decode(&good, good.len()).is_ok());
        assert_eq!(decode(&good, good.len() - 1).unwrap_err().rule, "A32");
        let mut longer = good.clone();
        longer.push(0);
        assert_eq!(decode(&longer, DEFAULT_LIMIT).unwrap_err().rule, "structure");
        for number in [[0x07, 0xa0], [0xf0, 0x06], [0, 0]] {
            let mut other = good.clone();
            other[..2].copy_from_slice(&number);
            assert_eq!(decode(&other, DEFAULT_LIMIT).unwrap_err().rule, "structure");
        }
        assert_eq!(decode(&good[..4], DEFAULT_LIMIT).unwrap_err().rule, "structure");
    }

    #[test]
    fn the_first_bytes_decide_the_dialect() {
        assert_eq!(rule(Kind::Org, &[]), "incomplete");
        assert_eq!(rule(Kind::Org, &[255]), "structure");
        assert_eq!(rule(Kind::Org, &[1]), "structure");
        assert_eq!(rule(Kind::Org, &[1, 0]), "S-2");
        assert_eq!(rule(Kind::Org, &[1, 0x21, 0x41]), "A5");
        assert_eq!(rule(Kind::Org, &[1, 0x22, 0x40]), "A5");
        let mut odd = signing_key();
        odd.extend([3, 7]);
        assert_eq!(rule(Kind::Org, &odd), "A6");
        // The raw key of dialect P, the two length bytes of dialect L.
        let mut mixed = vec![1, 0x20];
        mixed.extend(ed25519::public_key(&[1; 32]));
        mixed.extend(encryption_key(true));
        assert_eq!(rule(Kind::Org, &mixed), "A6");
    }

    #[test]
    fn an_object_without_signatures_is_incomplete() {
        let bytes = wrap(Kind::Org, &body(&[signing_key(), encryption_key(true)]));
        assert_eq!(decode(&bytes, DEFAULT_LIMIT).unwrap().level(), Level::Incomplete);
        let keyless = wrap(Kind::Org, &signing_key());
        let keyless = decode(&keyless, DEFAULT_LIMIT).unwrap();
        assert_eq!((keyless.level(), keyless.encryption_key()), (Level::Incomplete, &[][..]));
    }

    #[test]
    fn oddities_are_flags() {
        let soks = [sok(0xf1), sok(0)];
        let parts = [&[signing_key()], &soks[..], &[encryption_key(false)]].concat();
        let text = [16, 0, 17, 1, 0xff, 21, 1, b'1', 21, 1, b'2'];
        let signet = decode(&wrap(Kind::Org, &signed(&parts, &text)), DEFAULT_LIMIT).unwrap();
        assert_eq!(signet.level(), Level::Full);
        assert_eq!(
            signet.flags(),
            [
                Flag::UncompressedKey,
                Flag::SokHighBits,
                Flag::SokWithoutPermission,
                Flag::EmptyText,
                Flag::TextNotUtf8
            ]
        );
    }

    #[test]
    fn alternate_keys_have_the_length_bytes_of_kind_and_dialect() {
        let point = encryption_key(true).split_off(3);
        let decode = |kind, first: &[u8], second: &[u8]| {
            let mut body = signing_key();
            body.extend([&[2], first, &point, &[3], second, &point].concat());
            super::decode(&wrap(kind, &body), DEFAULT_LIMIT).map(|signet| {
                let keys = signet.alternate_encryption_keys().map(<[u8]>::len).collect::<Vec<_>>();
                assert_eq!(keys, [33]);
                signet.dialect()
            })
        };
        assert_eq!(decode(Kind::User, &[0, 33], &[0, 33]), Ok(Dialect::L));
        assert_eq!(decode(Kind::User, &[33], &[33]), Ok(Dialect::M));
        assert_eq!(decode(Kind::Ssr, &[0, 33], &[33]), Ok(Dialect::L));
        assert!(decode(Kind::User, &[0, 33], &[33]).is_err());
        assert!(decode(Kind::Ssr, &[0, 33], &[0, 33]).is_err());
    }

    #[test]
    fn broken_contents_are_refused() {
        let keys = || vec![signing_key(), encryption_key(true)];
        let with = |text: &[u8]| rule(Kind::Org, &signed(&keys(), text));
        assert_eq!(with(&[]), "ok");
        assert_eq!(with(&[28, 1, b'x']), "A9");
        assert_eq!(with(&[17, 0, 16, 0]), "structure");
        assert_eq!(with(&[16, 0, 16, 0]), "structure");
        assert_eq!(with(&[251, 0, 0, 0]), "S-2");
        assert_eq!(with(&[251, 1, b'n', 0, 0]), "ok");
        assert_eq!(with(&[252, 0, 0, 1, 9]), "ok");
        let tail = |tail: &[u8]| {
            let mut body = signed(&keys(), &[]);
            body.extend(tail);
            rule(Kind::Org, &body)
        };
        assert_eq!(tail(&[254, 1, b'x']), "S-3");
        assert_eq!(tail(&[16]), "structure");
        let mut unsigned = body(&keys());
        unsigned.extend([254, 1, b'x']);
        assert_eq!(rule(Kind::Org, &unsigned), "S-4");
    }

    #[test]
    fn broken_keys_are_refused() {
        let org = |encryption: Vec<u8>, soks: &[Vec<u8>]| {
            rule(Kind::Org, &body(&[vec![signing_key()], soks.to_vec(), vec![encryption]].concat()))
        };
        let mut off_curve = vec![3, 0, 33, 2];
        off_curve.extend([0xff; 32]);
        assert_eq!(org(off_curve, &[]), "G6");
        let sevens = [&[3, 0, 33][..], &[7; 33]].concat();
        assert_eq!(org(sevens, &[]), "G6");
        assert_eq!(org(vec![3, 0, 0], &[]), "S-2");
        let good = encryption_key(true);
        assert_eq!(org(good.clone(), &[vec![2, 1, 1]]), "G7");
        assert_eq!(org(good.clone(), &[vec![2, 0]]), "G7");
        assert_eq!(org(good.clone(), &vec![sok(1); MAX_KEYS]), "ok");
        assert_eq!(org(good, &vec![sok(1); MAX_KEYS + 1]), "limit");
    }
}
