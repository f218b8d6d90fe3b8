//! Signets as received: bytes, dialect, fields, level, fingerprints.
//!
//! A [`Signet`] is decoded, no more: its structure, its key encodings and its
//! lengths obey the strict rules, and nobody has checked a signature. That is
//! [`crate::dime::org`] and [`crate::dime::user`]. Bytes are never re-encoded.
//!
//! ```text
//! file+0  type   2 bytes   1215 request, 1776 org, 1789 user
//! file+2  length 3 bytes   of the body, big-endian
//! file+5  body             fields in ascending order of their ids
//! ```

pub mod build;
mod decode;
pub mod field;
mod fingerprint;
#[cfg(test)]
mod worked;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

pub use fingerprint::Fingerprint;

use super::{Rejection, ed25519};

/// Header of a serialized signet: two bytes of type, three of body length.
pub const HEADER: usize = 5;
/// Largest signet that is read unless the caller says otherwise (reference
/// A32), header included, bytes.
pub const DEFAULT_LIMIT: usize = 1024 * 1024;
/// Largest object the format can express, header included, bytes.
pub const FORMAT_LIMIT: usize = HEADER + 0xff_ffff;
/// Most secondary keys, and most alternate encryption keys, in one signet. The
/// format has no limit; trying tens of thousands of keys per signature would
/// let one signet stop a crawler.
pub const MAX_KEYS: usize = 64;

/// Which of the three objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Org,
    User,
    /// Signet signing request: what a user sends to the organization.
    Ssr,
}

/// Which code base wrote the bytes (reference §0.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dialect {
    /// libdime: encryption keys have two length bytes.
    L,
    /// magma `providers/dime`: one length byte.
    M,
    /// magma `providers/prime`: one length byte, signing keys without a format
    /// byte, and only the cryptographic fields.
    P,
}

/// How much of a signet is there (reference §3.3), lowest first.
///
/// Only at `Id` does the organization's own signature bind key and name; below
/// it the name rests on the channel the signet came through (reference A12).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// No deciding signature, or a required field below it is missing.
    Incomplete,
    Ssr,
    Crypto,
    Full,
    Id,
}

/// Something odd that is not a reason to refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Flag {
    /// An encryption key in the 65-byte form (reference A7).
    UncompressedKey,
    /// A secondary key with permission bits above 0x0f, which mean nothing.
    SokHighBits,
    /// A secondary key that may do nothing.
    SokWithoutPermission,
    /// A text field of length zero.
    EmptyText,
    /// A text field that is not UTF-8.
    TextNotUtf8,
    /// An alternate key in a request of dialect L: the user signet made from it
    /// needs other length bytes, so libdime cannot use it (reference §2.4).
    RequestAlternateKey,
}

/// A secondary organizational key, field 2 of an org signet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SecondaryKey {
    /// As received: see the `MAY_…` bits.
    pub permissions: u8,
    pub key: [u8; 32],
}

impl SecondaryKey {
    pub const MAY_SIGN_SIGNETS: u8 = 0x01;
    pub const MAY_SIGN_MESSAGES: u8 = 0x02;
    pub const MAY_SIGN_CERTIFICATES: u8 = 0x04;
    pub const MAY_SIGN_SOFTWARE: u8 = 0x08;

    /// Whether every bit of `wanted` is set (libdime's test: at least).
    pub fn may(&self, wanted: u8) -> bool {
        self.permissions & wanted == wanted
    }
}

/// One field, as it lies in the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    pub id: u8,
    /// The table's name; of an undefined field (251) its own name is `label`.
    pub name: &'static str,
    /// The name inside an undefined field; empty for all others.
    pub label: &'a [u8],
    pub data: &'a [u8],
}

/// A decoded signet or request. Cloning shares the bytes.
#[derive(Clone)]
pub struct Signet {
    bytes: Arc<[u8]>,
    kind: Kind,
    dialect: Dialect,
    level: Level,
    signing_key: [u8; 32],
    fields: Arc<[Span]>,
}

/// Where one field lies. Offsets count from the start of the body and fit,
/// because a body has at most 2^24 - 1 bytes.
#[derive(Clone, Copy, Debug)]
struct Span {
    id: u8,
    label_length: u8,
    /// Of the id byte.
    start: u32,
    data: u32,
    end: u32,
}

impl Signet {
    /// Decodes a whole object of at most [`DEFAULT_LIMIT`] bytes.
    ///
    /// Refused: broken structure (`structure`, `S-1` to `S-4`), ids that the
    /// kind does not have (`A9`), keys that are not what they should be (`A5`,
    /// `A6`, `G6`, `G7`), an unreadable identifier (`G2`), no keys at all
    /// (`incomplete`), too long (`A32`), too many keys (`limit`).
    pub fn decode(bytes: &[u8]) -> Result<Signet, Rejection> {
        decode::decode(bytes, DEFAULT_LIMIT)
    }

    /// The same with another limit in bytes, header included.
    pub fn decode_with_limit(bytes: &[u8], limit: usize) -> Result<Signet, Rejection> {
        decode::decode(bytes, limit)
    }

    /// The exact bytes received, header included.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What signatures and fingerprints are about: the bytes after the header.
    pub fn body(&self) -> &[u8] {
        self.bytes.get(HEADER..).unwrap_or_default()
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    pub fn level(&self) -> Level {
        self.level
    }

    /// The raw Ed25519 public key of field 1: POK of an org, signing key of a user.
    pub fn signing_key(&self) -> [u8; 32] {
        self.signing_key
    }

    /// The secp256k1 point, 33 bytes (or 65, flagged). Empty only in a signet
    /// of level [`Level::Incomplete`].
    pub fn encryption_key(&self) -> &[u8] {
        self.field(self.kind.encryption_key()).unwrap_or_default()
    }

    /// Further encryption keys of a user signet or request, in order.
    pub fn alternate_encryption_keys(&self) -> impl Iterator<Item = &[u8]> {
        let wanted = (self.kind != Kind::Org).then_some(field::ALTERNATE_KEY);
        self.spans_of(wanted).map(|span| self.data(span))
    }

    /// All secondary keys of an org signet, in order; their position is the
    /// number in [`crate::dime::user::Signer::Sok`].
    pub fn secondary_keys(&self) -> impl Iterator<Item = SecondaryKey> + '_ {
        let wanted = (self.kind == Kind::Org).then_some(field::SECONDARY_KEY);
        self.spans_of(wanted).filter_map(|span| decode::secondary_key(self.data(span)))
    }

    /// The custody signature by the predecessor's signing key, field 4.
    pub fn custody(&self) -> Option<&[u8; 64]> {
        (self.kind != Kind::Org).then(|| self.signature(field::CUSTODY)).flatten()
    }

    /// The name the organization signed, field 254. Not compared with anything.
    pub fn identifier(&self) -> Option<&str> {
        std::str::from_utf8(self.field(field::IDENTIFIER)?).ok()
    }

    /// The data of the first field `id`.
    pub fn field(&self, id: u8) -> Option<&[u8]> {
        self.span(id).map(|span| self.data(span))
    }

    /// All fields, in the order of the body.
    pub fn fields(&self) -> impl Iterator<Item = Field<'_>> {
        self.fields.iter().map(|span| Field {
            id: span.id,
            name: field::rule(self.kind, self.dialect, span.id).map_or("", |rule| rule.name),
            label: self.label(span),
            data: self.data(span),
        })
    }

    /// The signature in field `id`, if that is a signature field and present.
    pub fn signature(&self, id: u8) -> Option<&[u8; 64]> {
        let rule = field::rule(self.kind, self.dialect, id)?;
        (rule.layout == field::Layout::Signature).then(|| self.field(id)?.try_into().ok()).flatten()
    }

    /// What the signature in field `id` is about: the body up to its id byte
    /// (reference §3.1). `None` if the field is absent.
    ///
    /// Custody is the same: all fields below 4.
    pub fn signed_part(&self, id: u8) -> Option<&[u8]> {
        self.body().get(..self.span(id)?.start as usize)
    }

    /// Checks the signature in field `id` with `key`. An absent field is
    /// refused with `incomplete`.
    pub fn verify_field(&self, id: u8, key: &[u8; 32]) -> Result<(), Rejection> {
        match (self.signature(id), self.signed_part(id)) {
            (Some(signature), Some(message)) => ed25519::verify(key, message, signature),
            _ => Err(Rejection::new("incomplete", format!("there is no signature in field {id}"))),
        }
    }

    /// SHA-512 through the end of the level's signature. `None` where that
    /// field is absent: the reference hashes on, which gives one object
    /// several names for the same level (reference §4).
    pub fn fingerprint(&self, level: Level) -> Option<Fingerprint> {
        self.part(level).map(Fingerprint::of)
    }

    /// Whether `wanted` is the fingerprint of any level that is defined here.
    pub fn matches(&self, wanted: &Fingerprint) -> bool {
        Level::NAMED.iter().any(|level| self.fingerprint(*level).as_ref() == Some(wanted))
    }

    /// The body through the crypto signature. Hashed, it is the identity of a
    /// link in a chain: it stays when text or signatures are added behind it.
    pub fn crypto_part(&self) -> Option<&[u8]> {
        self.part(Level::Crypto)
    }

    /// The body through the signature that makes `level`, if it is there.
    pub fn part(&self, level: Level) -> Option<&[u8]> {
        let signature = self.kind.deciding_signature(level)?;
        self.body().get(..self.span(signature)?.end as usize)
    }

    /// Whether it is `whole`, or that cut behind the signature of a lower level.
    pub fn is_cut_of(&self, whole: &Signet) -> bool {
        let is_cut = |level| whole.part(level) == Some(self.body());
        let levels = [Level::Crypto, Level::Full, Level::Id];
        self.bytes() == whole.bytes()
            || self.kind() == whole.kind() && levels.into_iter().any(is_cut)
    }

    /// What DMTP serves (reference §6.9): cut behind field 253, with a new
    /// length in the header. A signet without field 253 stays as it is.
    pub fn full_split(&self) -> Cow<'_, [u8]> {
        let Some(end) = self.span(field::FULL_SIGNATURE).map(|span| span.end as usize) else {
            return Cow::Borrowed(self.bytes());
        };
        match self.body().get(..end) {
            Some(body) if body.len() < self.body().len() => Cow::Owned(wrap(self.kind, body)),
            _ => Cow::Borrowed(self.bytes()),
        }
    }

    /// What is odd about it, each once, in the order of [`Flag`].
    pub fn flags(&self) -> Vec<Flag> {
        let mut flags = std::collections::BTreeSet::new();
        if self.encryption_key().len() == 65
            || self.alternate_encryption_keys().any(|key| key.len() == 65)
        {
            flags.insert(Flag::UncompressedKey);
        }
        for key in self.secondary_keys() {
            if key.permissions > 0x0f {
                flags.insert(Flag::SokHighBits);
            }
            if key.permissions & 0x0f == 0 {
                flags.insert(Flag::SokWithoutPermission);
            }
        }
        for span in self.fields.iter().filter(|span| field::is_text(span.id)) {
            let data = self.data(span);
            if data.is_empty() {
                flags.insert(Flag::EmptyText);
            }
            if std::str::from_utf8(data).is_err() {
                flags.insert(Flag::TextNotUtf8);
            }
        }
        if self.kind == Kind::Ssr
            && self.dialect == Dialect::L
            && self.alternate_encryption_keys().next().is_some()
        {
            flags.insert(Flag::RequestAlternateKey);
        }
        flags.into_iter().collect()
    }

    fn span(&self, id: u8) -> Option<&Span> {
        self.fields.iter().find(|span| span.id == id)
    }

    fn spans_of(&self, id: Option<u8>) -> impl Iterator<Item = &Span> {
        self.fields.iter().filter(move |span| Some(span.id) == id)
    }

    fn data(&self, span: &Span) -> &[u8] {
        self.body().get(span.data as usize..span.end as usize).unwrap_or_default()
    }

    /// An undefined field is id, name length, name, two length bytes, data.
    fn label(&self, span: &Span) -> &[u8] {
        let start = span.start as usize + 2;
        self.body().get(start..start + usize::from(span.label_length)).unwrap_or_default()
    }
}

/// Two signets are the same when their bytes are.
impl PartialEq for Signet {
    fn eq(&self, other: &Signet) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Signet {}

/// Says what it is, never whom it names.
impl fmt::Debug for Signet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signet({} {} {}, {} bytes)", self.kind, self.dialect, self.level, {
            self.bytes.len()
        })
    }
}

/// A header for `body` and `body`.
fn wrap(kind: Kind, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + body.len());
    bytes.extend(kind.number().to_be_bytes());
    bytes.extend((body.len() as u32).to_be_bytes().iter().skip(1));
    bytes.extend(body);
    bytes
}

impl Kind {
    /// The type number in the header ("dime number").
    pub const fn number(self) -> u16 {
        match self {
            Kind::Ssr => 1215,
            Kind::Org => 1776,
            Kind::User => 1789,
        }
    }

    /// The kind with this type number.
    pub fn from_number(number: u16) -> Option<Kind> {
        [Kind::Org, Kind::User, Kind::Ssr].into_iter().find(|kind| kind.number() == number)
    }

    const fn encryption_key(self) -> u8 {
        match self {
            Kind::Org => field::ORG_ENCRYPTION_KEY,
            Kind::User | Kind::Ssr => field::USER_ENCRYPTION_KEY,
        }
    }

    /// The signature field that makes a signet of this level.
    pub const fn deciding_signature(self, level: Level) -> Option<u8> {
        match (self, level) {
            (_, Level::Incomplete) | (Kind::Org, Level::Ssr) => None,
            (Kind::User | Kind::Ssr, Level::Ssr) => Some(field::SSR_SIGNATURE),
            (Kind::Ssr, _) => None,
            (Kind::Org, Level::Crypto) => Some(field::ORG_CRYPTO_SIGNATURE),
            (Kind::User, Level::Crypto) => Some(field::USER_CRYPTO_SIGNATURE),
            (_, Level::Full) => Some(field::FULL_SIGNATURE),
            (_, Level::Id) => Some(field::ID_SIGNATURE),
        }
    }
}

impl Level {
    /// The levels that have a fingerprint.
    pub const NAMED: [Level; 4] = [Level::Ssr, Level::Crypto, Level::Full, Level::Id];
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Kind::Org => "org",
            Kind::User => "user",
            Kind::Ssr => "ssr",
        })
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Dialect::L => "L",
            Dialect::M => "M",
            Dialect::P => "P",
        })
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Level::Incomplete => "incomplete",
            Level::Ssr => "ssr",
            Level::Crypto => "crypto",
            Level::Full => "full",
            Level::Id => "id",
        })
    }
}

impl fmt::Display for Flag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Flag::UncompressedKey => "uncompressed-key",
            Flag::SokHighBits => "sok-high-bits",
            Flag::SokWithoutPermission => "sok-without-permission",
            Flag::EmptyText => "empty-text",
            Flag::TextNotUtf8 => "text-not-utf8",
            Flag::RequestAlternateKey => "request-alternate-key",
        })
    }
}
