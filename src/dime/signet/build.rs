//! Making signets: the five steps of the reference §3.2, in every dialect.
//!
//! An organization makes its signet with [`org`]. A user makes a request with
//! [`request`], which for a rotation the previous key signs over, and the
//! organization makes the user's signet from it with [`user`]. Whatever comes
//! out has gone through [`Signet::decode`]; whether its signatures convince
//! anybody is for `validate` to say, so a test may sign with a wrong key.

use super::field;
use super::{DEFAULT_LIMIT, Dialect, Kind, Level, SecondaryKey, Signet, wrap};
use crate::dime::key::PrivateKey;
use crate::dime::{Rejection, ed25519};

/// How far to sign, and for `Id` under which name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignTo<'a> {
    Crypto,
    Full,
    /// A domain for an org signet, an address for a user signet.
    Id(&'a str),
}

/// A field of text or data between the crypto and the full signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// One of the ids 16 to 250, or the photo (252).
    Known(u8, Vec<u8>),
    /// An undefined field: a name of 1 to 255 bytes, and data.
    Undefined(Vec<u8>, Vec<u8>),
}

impl Content {
    pub fn text(id: u8, text: &str) -> Content {
        Content::Known(id, text.as_bytes().to_vec())
    }

    const fn id(&self) -> u8 {
        match self {
            Content::Known(id, _) => *id,
            Content::Undefined(..) => field::UNDEFINED,
        }
    }
}

/// Makes an org signet under `key`, the POK.
///
/// Refused with rule `build`: `contents` of an id that is not content, data
/// too long for its field; and whatever [`Signet::decode`] refuses. Dialect P
/// has no secondary keys and nothing above the crypto signature (`A9`).
pub fn org(
    key: &PrivateKey,
    dialect: Dialect,
    secondary: &[SecondaryKey],
    contents: &[Content],
    to: SignTo<'_>,
) -> Result<Signet, Rejection> {
    let mut draft = Draft::new(Kind::Org, dialect);
    draft.signing_key(&key.signing_key())?;
    for sok in secondary {
        let mut data = vec![sok.permissions, 0x40];
        data.extend(sok.key);
        draft.put(field::SECONDARY_KEY, &[], &data)?;
    }
    draft.put(field::ORG_ENCRYPTION_KEY, &[], &key.encryption_key())?;
    draft.finish(key.seed(), contents, to)
}

/// Makes a request for `key`. `previous` is the key it replaces: its signature
/// becomes the custody of the rotation.
pub fn request(
    key: &PrivateKey,
    dialect: Dialect,
    previous: Option<&PrivateKey>,
) -> Result<Signet, Rejection> {
    let mut draft = Draft::new(Kind::Ssr, dialect);
    draft.signing_key(&key.signing_key())?;
    draft.put(field::USER_ENCRYPTION_KEY, &[], &key.encryption_key())?;
    if let Some(previous) = previous {
        draft.sign(field::CUSTODY, previous.seed())?;
    }
    draft.sign(field::SSR_SIGNATURE, key.seed())?;
    draft.decode()
}

/// Makes a user signet from a request: `seed` is the secret of the POK, or of a
/// secondary key that may sign signets. The request's signature is checked
/// first; libdime signs without looking.
pub fn user(
    request: &Signet,
    seed: &[u8; 32],
    contents: &[Content],
    to: SignTo<'_>,
) -> Result<Signet, Rejection> {
    crate::dime::user::validate_request(request)?;
    if request.alternate_encryption_keys().next().is_some() && request.dialect() == Dialect::L {
        let message = "an alternate key of a dialect L request has no place in a user signet";
        return Err(Rejection::new("build", message));
    }
    let mut draft = Draft::new(Kind::User, request.dialect());
    draft.body.extend_from_slice(request.body());
    draft.finish(seed, contents, to)
}

/// A signet cut down to `level` (reference: split): the body through that
/// level's signature, under a new length. Refused with `incomplete` if it has
/// no such signature.
pub fn split(signet: &Signet, level: Level) -> Result<Signet, Rejection> {
    let Some(body) = signet.part(level) else {
        return Err(Rejection::new("incomplete", format!("it has no {level} signature")));
    };
    let kind = if level == Level::Ssr { Kind::Ssr } else { signet.kind() };
    Signet::decode_with_limit(&wrap(kind, body), signet.bytes().len())
}

/// A body that grows field by field.
struct Draft {
    kind: Kind,
    dialect: Dialect,
    body: Vec<u8>,
}

impl Draft {
    fn new(kind: Kind, dialect: Dialect) -> Draft {
        Draft { kind, dialect, body: Vec::with_capacity(512) }
    }

    fn signing_key(&mut self, key: &[u8; 32]) -> Result<(), Rejection> {
        let mut data = Vec::with_capacity(33);
        if self.dialect != Dialect::P {
            data.push(0x40);
        }
        data.extend(key);
        self.put(field::SIGNING_KEY, &[], &data)
    }

    /// Appends a field with the length bytes of its table row.
    fn put(&mut self, id: u8, label: &[u8], data: &[u8]) -> Result<(), Rejection> {
        let Some(rule) = field::rule(self.kind, self.dialect, id) else {
            let message =
                format!("{} signets of dialect {} have no field {id}", self.kind, { self.dialect });
            return Err(Rejection::new("A9", message));
        };
        let width = match rule.layout {
            field::Layout::Signature => 0,
            field::Layout::Short => 1,
            field::Layout::Medium | field::Layout::Named => 2,
            field::Layout::Long => 3,
        };
        let most = if width == 0 { 64 } else { (1 << (8 * width)) - 1 };
        if data.len() > most || label.len() > usize::from(u8::MAX) {
            let message = format!("{} bytes are too many for {}", data.len(), rule.name);
            return Err(Rejection::new("build", message));
        }
        self.body.push(id);
        if rule.layout == field::Layout::Named {
            self.body.push(label.len() as u8);
            self.body.extend_from_slice(label);
        }
        self.body.extend((data.len() as u32).to_be_bytes().iter().skip(4 - width));
        self.body.extend_from_slice(data);
        Ok(())
    }

    /// Signs all that is there, with field `id`.
    fn sign(&mut self, id: u8, seed: &[u8; 32]) -> Result<(), Rejection> {
        let signature = ed25519::sign(seed, &self.body);
        self.put(id, &[], &signature)
    }

    /// The organization's part: its signatures, and the contents between.
    fn finish(
        mut self,
        seed: &[u8; 32],
        contents: &[Content],
        to: SignTo<'_>,
    ) -> Result<Signet, Rejection> {
        let crypto = self.kind.deciding_signature(Level::Crypto).unwrap_or_default();
        self.sign(crypto, seed)?;
        if to == SignTo::Crypto {
            if !contents.is_empty() {
                let message = "at level crypto nothing would sign the contents";
                return Err(Rejection::new("build", message));
            }
            return self.decode();
        }
        let mut contents: Vec<&Content> = contents.iter().collect();
        contents.sort_by_key(|content| content.id());
        for content in contents {
            self.content(content)?;
        }
        self.sign(field::FULL_SIGNATURE, seed)?;
        if let SignTo::Id(name) = to {
            self.put(field::IDENTIFIER, &[], name.as_bytes())?;
            self.sign(field::ID_SIGNATURE, seed)?;
        }
        self.decode()
    }

    fn content(&mut self, content: &Content) -> Result<(), Rejection> {
        match content {
            Content::Known(id, data) if matches!(id, 16..=250 | &field::PHOTO) => {
                self.put(*id, &[], data)
            }
            Content::Known(id, _) => {
                Err(Rejection::new("build", format!("field {id} is not a content field")))
            }
            Content::Undefined(label, data) => self.put(field::UNDEFINED, label, data),
        }
    }

    fn decode(self) -> Result<Signet, Rejection> {
        Signet::decode_with_limit(&wrap(self.kind, &self.body), DEFAULT_LIMIT)
    }
}
