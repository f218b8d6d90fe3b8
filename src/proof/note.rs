//! Signed notes (c2sp.org/signed-note): a text, and lines of signatures by
//! named keys, Ed25519 over the text (type 01) or over the text and a time
//! (type 04, the `cosignature/v1` of c2sp.org/tlog-cosignature).
//!
//! What is left out: other types of signature. Their keys and lines are read,
//! kept, and never verify.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::dime::{Rejection, Timestamp, ed25519};

/// Longest note, bytes. Room for 16 lines of the longest known signature.
pub const MAX_NOTE: usize = 64 * 1024;
/// Most signature lines of a note. A reader must take 16 (signed-note).
pub const MAX_SIGNATURES: usize = 100;
/// Longest name of a key, bytes. An ML-DSA cosignature counts it in one byte.
pub const MAX_NAME: usize = 255;
/// Longest verifier key in text, bytes.
pub const MAX_KEY: usize = 4096;

/// Before each signature line.
const DASH: &str = "\u{2014} ";
/// Before the text of a private key.
const PRIVATE: &str = "PRIVATE+KEY+";

/// First four bytes of a hash over name, type and public key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(pub [u8; 4]);

/// What a key signs, and with which algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KeyType {
    /// 01: Ed25519 over the text.
    Ed25519,
    /// 04: Ed25519 over `cosignature/v1`, a time, and the text.
    Cosignature,
    /// Any other. It cannot be verified here.
    Unknown(u8),
}

/// A public key with its name: what c2sp.org/signed-note calls a vkey.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VerifierKey {
    name: String,
    kind: KeyType,
    public: Vec<u8>,
}

/// A private key with its name. Ed25519 of type 01 or 04.
#[derive(Clone)]
pub struct SigningKey {
    name: String,
    kind: SigningType,
    seed: Zeroizing<[u8; 32]>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum SigningType {
    Ed25519,
    Cosignature,
}

/// One signature line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    pub name: String,
    pub id: KeyId,
    /// What follows the key ID: 64 bytes of type 01; 8 bytes of time and 64 of
    /// type 04; any number, but not 0, of others.
    pub body: Vec<u8>,
}

/// A note that was read, its signatures not yet checked.
///
/// It prints as the bytes it was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<Signature>,
}

/// A signature that holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified<'k> {
    pub key: &'k VerifierKey,
    /// When a cosigner signed; whole seconds.
    pub time: Option<Timestamp>,
}

/// A name for a key: 1 to 255 bytes, no white space, no control characters, no `+`.
/// Rule `key-name` otherwise.
pub fn check_name(name: &str) -> Result<(), Rejection> {
    let illegal = |c: char| c.is_whitespace() || c.is_control() || c == '+';
    if name.is_empty() || name.len() > MAX_NAME || name.contains(illegal) {
        let shown: String = name.chars().take(MAX_NAME).collect();
        return Err(Rejection::new("key-name", format!("not a name for a key: {shown:?}")));
    }
    Ok(())
}

impl KeyType {
    fn byte(self) -> u8 {
        match self {
            KeyType::Ed25519 => 1,
            KeyType::Cosignature => 4,
            KeyType::Unknown(byte) => byte,
        }
    }

    fn from_byte(byte: u8) -> KeyType {
        match byte {
            1 => KeyType::Ed25519,
            4 => KeyType::Cosignature,
            byte => KeyType::Unknown(byte),
        }
    }
}

impl VerifierKey {
    /// A key of type 01, for logs.
    pub fn ed25519(name: &str, public: &[u8; 32]) -> Result<VerifierKey, Rejection> {
        VerifierKey::new(name, KeyType::Ed25519, public)
    }

    /// A key of type 04, for cosigners.
    pub fn cosigner(name: &str, public: &[u8; 32]) -> Result<VerifierKey, Rejection> {
        VerifierKey::new(name, KeyType::Cosignature, public)
    }

    fn new(name: &str, kind: KeyType, public: &[u8]) -> Result<VerifierKey, Rejection> {
        check_name(name)?;
        let key = VerifierKey { name: name.to_owned(), kind, public: public.to_vec() };
        if !matches!(kind, KeyType::Unknown(_)) {
            let length = || Rejection::new("vkey", "an Ed25519 key has 32 bytes");
            ed25519::check_key(key.public_key().ok_or_else(length)?)?;
        }
        Ok(key)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn kind(&self) -> KeyType {
        self.kind
    }

    /// `SHA-256(name || 0x0A || type || public key)[0:4]`.
    ///
    /// For an ECDSA key (type 02) the standard has another rule, so such a key
    /// is refused when read, as one whose ID is wrong.
    pub fn id(&self) -> KeyId {
        let digest = Sha256::new()
            .chain_update(&self.name)
            .chain_update([b'\n', self.kind.byte()])
            .chain_update(&self.public)
            .finalize();
        let [a, b, c, d, ..] = digest.0;
        KeyId([a, b, c, d])
    }

    /// The public key: 32 bytes for Ed25519.
    pub fn public_bytes(&self) -> &[u8] {
        &self.public
    }

    /// The public key, if it is one of Ed25519.
    pub fn public_key(&self) -> Option<&[u8; 32]> {
        match self.kind {
            KeyType::Unknown(_) => None,
            _ => self.public.as_slice().try_into().ok(),
        }
    }

    /// Whether a line claims to be by this key.
    pub fn claims(&self, signature: &Signature) -> bool {
        signature.name == self.name && signature.id == self.id()
    }

    /// Checks one signature over a text. Rule `signature` if it fails, also for
    /// keys of unknown type.
    pub fn verify(&self, text: &str, body: &[u8]) -> Result<Verified<'_>, Rejection> {
        let refuse =
            |why: &str| Rejection::new("signature", format!("signature by {}: {why}", self.name));
        let public = self.public_key().ok_or_else(|| refuse("a type not known here"))?;
        let length = || refuse("it has the wrong length");
        let (message, time, signature) = match self.kind {
            KeyType::Cosignature => {
                let (time, signature) = body.split_first_chunk::<8>().ok_or_else(length)?;
                let seconds = u64::from_be_bytes(*time);
                if seconds > i64::MAX as u64 {
                    return Err(refuse("its time is past the year 292 billion"));
                }
                (cosignature_message(text, seconds), Some(Timestamp::from_secs(seconds)), signature)
            }
            _ => (text.to_owned(), None, body),
        };
        let signature = signature.try_into().map_err(|_| length())?;
        ed25519::verify(public, message.as_bytes(), signature)
            .map_err(|rejection| refuse(&rejection.message))?;
        Ok(Verified { key: self, time })
    }
}

/// What a cosigner signs (tlog-cosignature, Ed25519): `text` is the whole text
/// of the note, its last line feed included; `seconds` count from 1970.
pub fn cosignature_message(text: &str, seconds: u64) -> String {
    format!("cosignature/v1\ntime {seconds}\n{text}")
}

/// `name+<8 hex of the key ID>+base64(type || public key)`.
///
/// Rule `vkey` for anything that does not print back to the same text, `G5`
/// for a key that no signature can be checked with.
impl FromStr for VerifierKey {
    type Err = Rejection;

    fn from_str(text: &str) -> Result<VerifierKey, Rejection> {
        let refuse = |why: &str| Rejection::new("vkey", format!("not a verifier key: {why}"));
        if text.len() > MAX_KEY {
            return Err(refuse("longer than 4,096 bytes"));
        }
        let (name, id, bytes) = split_key(text).ok_or_else(|| refuse("not name+id+base64"))?;
        let (kind, public) = bytes.split_first().ok_or_else(|| refuse("no type of key"))?;
        let key = VerifierKey::new(name, KeyType::from_byte(*kind), public)?;
        if key.id().to_string() != id {
            return Err(refuse("its ID is not that of its name and key"));
        }
        Ok(key)
    }
}

/// Splits at the first two `+`, since base64 has that character too.
fn split_key(text: &str) -> Option<(&str, &str, Vec<u8>)> {
    let (name, rest) = text.split_once('+')?;
    let (id, key) = rest.split_once('+')?;
    Some((name, id, BASE64.decode(key).ok()?))
}

impl SigningKey {
    /// A key of type 01, for a log, from its 32-byte seed.
    pub fn ed25519(name: &str, seed: &[u8; 32]) -> Result<SigningKey, Rejection> {
        SigningKey::new(name, SigningType::Ed25519, seed)
    }

    /// A key of type 04, for a cosigner, from its 32-byte seed. One seed must
    /// not serve two names: what is signed does not hold the name.
    pub fn cosigner(name: &str, seed: &[u8; 32]) -> Result<SigningKey, Rejection> {
        SigningKey::new(name, SigningType::Cosignature, seed)
    }

    fn new(name: &str, kind: SigningType, seed: &[u8; 32]) -> Result<SigningKey, Rejection> {
        check_name(name)?;
        Ok(SigningKey { name: name.to_owned(), kind, seed: Zeroizing::new(*seed) })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn kind(&self) -> KeyType {
        match self.kind {
            SigningType::Ed25519 => KeyType::Ed25519,
            SigningType::Cosignature => KeyType::Cosignature,
        }
    }

    /// The public half.
    pub fn verifier(&self) -> VerifierKey {
        let public = ed25519::public_key(&self.seed).to_vec();
        VerifierKey { name: self.name.clone(), kind: self.kind(), public }
    }

    /// Signs a text. `now` is used, in whole seconds, by a cosigner only.
    pub fn sign(&self, text: &str, now: Timestamp) -> Signature {
        let sign = |message: &str| ed25519::sign(&self.seed, message.as_bytes());
        let body = match self.kind {
            SigningType::Ed25519 => sign(text).to_vec(),
            SigningType::Cosignature => {
                let mut body = now.secs().to_be_bytes().to_vec();
                body.extend_from_slice(&sign(&cosignature_message(text, now.secs())));
                body
            }
        };
        Signature { name: self.name.clone(), id: self.verifier().id(), body }
    }

    /// `PRIVATE+KEY+name+<8 hex of the key ID>+base64(type || seed)`: the secret
    /// itself, for a file that only its owner reads.
    pub fn to_secret_text(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new(vec![self.kind().byte()]);
        bytes.extend_from_slice(&*self.seed);
        let seed = Zeroizing::new(BASE64.encode(&*bytes));
        Zeroizing::new(format!("{PRIVATE}{}+{}+{}", self.name, self.verifier().id(), *seed))
    }
}

/// Reads what [`SigningKey::to_secret_text`] writes. Rule `skey` otherwise; the
/// message never holds the text.
impl FromStr for SigningKey {
    type Err = Rejection;

    fn from_str(text: &str) -> Result<SigningKey, Rejection> {
        let refuse = |why: &str| Rejection::new("skey", format!("not a signing key: {why}"));
        let form = || refuse("not PRIVATE+KEY+name+id+base64");
        let rest = text.strip_prefix(PRIVATE).filter(|_| text.len() <= MAX_KEY).ok_or_else(form)?;
        let (name, id, bytes) = split_key(rest).ok_or_else(form)?;
        let bytes = Zeroizing::new(bytes);
        let (kind, seed) = bytes.split_first().ok_or_else(form)?;
        let seed = seed.try_into().map_err(|_| refuse("a seed has 32 bytes"))?;
        let key = match kind {
            1 => SigningKey::ed25519(name, seed)?,
            4 => SigningKey::cosigner(name, seed)?,
            _ => return Err(refuse("a type not known here")),
        };
        if key.verifier().id().to_string() != id {
            return Err(refuse("its ID is not that of its name and key"));
        }
        Ok(key)
    }
}

impl Note {
    /// A note without signatures yet. Rule `note` if the text does not end in a
    /// line feed or has another control character.
    pub fn new(text: impl Into<String>) -> Result<Note, Rejection> {
        let text = text.into();
        check_text(&text)?;
        if !text.ends_with('\n') {
            return Err(refuse_note("its text does not end in a line feed"));
        }
        Ok(Note { text, signatures: Vec::new() })
    }

    /// Reads a note of at most 64 KiB and 100 signature lines, at least one.
    /// Rule `note` for anything that does not print back to the same bytes.
    pub fn parse(bytes: &[u8]) -> Result<Note, Rejection> {
        if bytes.len() > MAX_NOTE {
            return Err(refuse_note("longer than 65,536 bytes"));
        }
        let whole = std::str::from_utf8(bytes).map_err(|_| refuse_note("it is not UTF-8"))?;
        check_text(whole)?;
        // SPEC: the last empty line ends the text.
        let end = whole.rfind("\n\n").ok_or_else(|| refuse_note("no empty line ends its text"))?;
        let (text, lines) = whole.split_at(end + 1);
        let lines = lines.strip_prefix('\n').unwrap_or_default();
        let lines =
            lines.strip_suffix('\n').ok_or_else(|| refuse_note("its last line is not ended"))?;
        let signatures = parse_signatures(lines)?;
        Ok(Note { text: text.to_owned(), signatures })
    }

    /// What is signed, its last line feed included.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// In the order of the note.
    pub fn signatures(&self) -> &[Signature] {
        &self.signatures
    }

    /// Signs with a key and adds the line, in place of an older one by that key.
    pub fn sign(&mut self, key: &SigningKey, now: Timestamp) {
        self.replace(key.sign(&self.text, now));
    }

    /// Takes out the lines that are equal to this one.
    pub fn remove(&mut self, signature: &Signature) {
        self.signatures.retain(|old| old != signature);
    }

    /// Adds a line in place of those by the same name and ID.
    pub fn replace(&mut self, signature: Signature) {
        self.signatures.retain(|old| (&old.name, old.id) != (&signature.name, signature.id));
        self.signatures.push(signature);
    }

    /// The signatures by known keys, all checked, in the order of the note.
    ///
    /// Lines of keys that are not known, or of a type not known here, are
    /// passed over. Rule `signature` if a known key's signature fails, a known
    /// key signed twice, two known keys share name and ID, or none is left.
    pub fn verify<'k>(
        &self,
        known: impl IntoIterator<Item = &'k VerifierKey>,
    ) -> Result<Vec<Verified<'k>>, Rejection> {
        let refuse = |why: String| Err(Rejection::new("signature", why));
        let known: Vec<_> = known
            .into_iter()
            .filter(|key| !matches!(key.kind, KeyType::Unknown(_)))
            .map(|key| (key, key.id()))
            .collect();
        let mut verified: Vec<Verified> = Vec::new();
        for line in &self.signatures {
            let mut keys = known.iter().filter(|(key, id)| *id == line.id && key.name == line.name);
            let Some((key, _)) = keys.next() else { continue };
            if keys.any(|(other, _)| other != key) {
                return refuse(format!("two known keys of {} share an ID", line.name));
            }
            if verified.iter().any(|earlier| earlier.key == *key) {
                return refuse(format!("the note has two signatures by {}", line.name));
            }
            verified.push(key.verify(&self.text, &line.body)?);
        }
        if verified.is_empty() {
            return refuse("the note has no signature by a known key".to_owned());
        }
        Ok(verified)
    }
}

/// Reads signature lines as a witness answers with them: `lines` without the
/// last line feed. Rule `note` if malformed, or more than 100.
pub fn parse_signatures(lines: &str) -> Result<Vec<Signature>, Rejection> {
    if lines.split('\n').count() > MAX_SIGNATURES {
        return Err(refuse_note("more than 100 signature lines"));
    }
    lines.split('\n').map(str::parse).collect()
}

fn refuse_note(why: &str) -> Rejection {
    Rejection::new("note", format!("not a signed note: {why}"))
}

fn check_text(text: &str) -> Result<(), Rejection> {
    match text.bytes().any(|byte| byte < 0x20 && byte != b'\n') {
        true => Err(refuse_note("it has a control character")),
        false => Ok(()),
    }
}

/// One line, without its line feed.
impl FromStr for Signature {
    type Err = Rejection;

    fn from_str(line: &str) -> Result<Signature, Rejection> {
        let form = || refuse_note("a signature line is not '\u{2014} name base64'");
        let rest = line.strip_prefix(DASH).ok_or_else(form)?;
        let (name, encoded) = rest.split_once(' ').ok_or_else(form)?;
        check_name(name)?;
        let bytes = BASE64.decode(encoded).map_err(|_| form())?;
        match bytes.split_first_chunk::<4>() {
            Some((id, body)) if !body.is_empty() => {
                Ok(Signature { name: name.to_owned(), id: KeyId(*id), body: body.to_vec() })
            }
            _ => Err(form()),
        }
    }
}

/// The line, without its line feed.
impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = self.id.0.to_vec();
        bytes.extend_from_slice(&self.body);
        write!(f, "{DASH}{} {}", self.name, BASE64.encode(bytes))
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures.iter().try_for_each(|signature| writeln!(f, "{signature}"))
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", u32::from_be_bytes(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = vec![self.kind.byte()];
        bytes.extend_from_slice(&self.public);
        write!(f, "{}+{}+{}", self.name, self.id(), BASE64.encode(bytes))
    }
}

impl fmt::Debug for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifierKey({self})")
    }
}

/// Without the secret.
impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.verifier())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The Go package's example, from the signed-note document.
    const FOO: &str = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
    const FOO_NOTE: &str = "This is an example message.\n\n\u{2014} example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";
    const MLDSA: &str = include_str!("../../tests/data/tlog/mldsa44.txt");

    fn time(seconds: u64) -> Timestamp {
        Timestamp::from_secs(seconds)
    }

    fn mldsa(field: &str) -> &'static str {
        let prefix = format!("{field} ");
        MLDSA.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap()
    }

    fn note(text: &str) -> Note {
        Note::new(text).unwrap()
    }

    fn refused(result: Result<Vec<Verified>, Rejection>) -> String {
        let rejection = result.unwrap_err();
        assert_eq!(rejection.rule, "signature");
        rejection.message
    }

    #[test]
    fn the_example_of_the_standard() {
        let key: VerifierKey = FOO.parse().unwrap();
        assert_eq!((key.name(), key.kind()), ("example.com/foo", KeyType::Ed25519));
        assert_eq!((key.to_string().as_str(), key.id().to_string().as_str()), (FOO, "530d903a"));
        let note = Note::parse(FOO_NOTE.as_bytes()).unwrap();
        assert_eq!(note.text(), "This is an example message.\n");
        assert_eq!(note.to_string(), FOO_NOTE);
        assert_eq!(note.verify([&key]).unwrap(), [Verified { key: &key, time: None }]);
    }

    /// Published keys; two of them have a `+` in their base64.
    #[test]
    fn published_keys() {
        use KeyType::{Cosignature, Ed25519};
        for (kind, text) in [
            (Ed25519, "TEST+7997405c+AQcC+FTVKf0jlTdHDY3rbevmnKxxPjigCXlVtGe6RIr6"),
            (Cosignature, "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2"),
            (Ed25519, "log.example.org+0a72cd63+AV2yLmzeBL9B3zFJNqal0JuqxiFve0m/eqmT1+KkLVeC"),
            (Ed25519, "example.org/log+b0201859+Aawb3XxZM7k072GrHtogNwVl3F5b5SbqFs83YYw+Yjbq"),
            (
                Ed25519,
                "transparency.dev/tessera/example+ae330e15+ASf4/L1zE859VqlfQgGzKy34l91Gl8W6wfwp+vKP62DW",
            ),
            (Ed25519, "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"),
        ] {
            let key: VerifierKey = text.parse().unwrap();
            assert_eq!((key.kind(), key.to_string().as_str()), (kind, text));
        }
    }

    #[test]
    fn the_checkpoint_of_the_go_checksum_database() {
        let key = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8";
        let key: VerifierKey = key.parse().unwrap();
        let note = "go.sum database tree\n35225469\nvt5T6GaLCXvyHFl9VUvvItR43XZxfLgftEcTyO3eJCQ=\n\n\u{2014} sum.golang.org Az3grpukl5AXaVfYkLiDGORx/DN2nlcS5kZHR5uYOBV2KA2HgXpD+gu9HHONebHLAyaKbbTM75QTtPydhKCExixSfwQ=\n";
        Note::parse(note.as_bytes()).unwrap().verify([&key]).unwrap();
    }

    #[test]
    fn a_key_of_another_type_is_read_and_never_verifies() {
        let key: VerifierKey = mldsa("vkey").parse().unwrap();
        assert_eq!((key.kind(), key.id().to_string().as_str()), (KeyType::Unknown(6), "b5df45c5"));
        assert_eq!((key.public_bytes().len(), key.public_key()), (1312, None));
        assert_eq!(key.to_string(), mldsa("vkey"));
        let text = format!("{}\n{}\n{}\n", mldsa("origin"), mldsa("size"), mldsa("root"));
        let whole = format!("{text}\n\u{2014} {} {}\n", key.name(), mldsa("sig"));
        let note = Note::parse(whole.as_bytes()).unwrap();
        assert_eq!(note.to_string(), whole);
        assert_eq!(note.signatures()[0].body.len(), 8 + 2420);
        assert!(key.claims(&note.signatures()[0]));
        assert!(refused(note.verify([&key])).contains("no signature by a known key"));
    }

    /// Where the key ID and the time of a cosignature stand, on published ones.
    #[test]
    fn the_fields_of_a_cosignature() {
        for (start, id, seconds) in [
            ("jWbPPwAAAABkGFDL", "8d66cf3f", 1_679_315_147),
            ("ZGhGuQAAAABm/qTP", "646846b9", 1_727_964_367),
        ] {
            let line: Signature = format!("\u{2014} w {start}").parse().unwrap();
            assert_eq!(line.id.to_string(), id);
            assert_eq!(line.body, u64::to_be_bytes(seconds));
        }
    }

    #[test]
    fn keys_that_are_refused() {
        for text in [
            "",
            "example.com/foo",
            "example.com/foo+530d903a",
            "example.com/foo+530d903b+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
            "example.com/foo+530D903A+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
            "example.com/fop+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
            "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2l",
            "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2",
            "example.com/foo+530d903a+",
            "+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
            "example com+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
            " example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
            "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k\n",
        ] {
            assert!(text.parse::<VerifierKey>().is_err(), "{text}");
        }
        // The identity of the curve: every message has a signature by it.
        let mut identity = [0; 32];
        identity[0] = 1;
        assert_eq!(VerifierKey::ed25519("a", &identity).unwrap_err().rule, "G5");
        assert!(VerifierKey::ed25519(&"a".repeat(256), &[9; 32]).is_err());
        for name in ["", "a b", "a+b", "a\u{a0}b", "a\u{2028}b", "a\0b", "a\nb"] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_signing_key_reads_back_and_hides() {
        for key in [
            SigningKey::ed25519("log.example", &[7; 32]).unwrap(),
            SigningKey::cosigner("w.example", &[8; 32]).unwrap(),
        ] {
            let secret = key.to_secret_text();
            let again: SigningKey = secret.parse().unwrap();
            assert_eq!((again.name(), again.kind()), (key.name(), key.kind()));
            assert_eq!(again.verifier(), key.verifier());
            let seed = secret.rsplit('+').next().unwrap();
            assert!(!format!("{key:?}").contains(seed));
            for wrong in
                [&secret[1..], &secret[..secret.len() - 4], &secret.replace("exam", "exem")]
            {
                let rejection = wrong.parse::<SigningKey>().unwrap_err();
                assert_eq!(rejection.rule, "skey");
                assert!(!rejection.message.contains(seed));
            }
        }
    }

    #[test]
    fn notes_that_are_refused() {
        let line = FOO_NOTE.split_once("\n\n").unwrap().1;
        let many = format!("a\n\n{}", line.repeat(MAX_SIGNATURES + 1));
        for bad in [
            "",
            "\n",
            "a\n",
            "a\n\n",
            &format!("a\n{line}"),
            &format!("a\n\n{}", line.trim_end()),
            &format!("a\n\n{line}\n"),
            &format!("a\r\n\n{line}"),
            &format!("a\tb\n\n{line}"),
            &format!("a\n\n-{}", &line[3..]),
            &format!("a\n\n{}", line.replace(' ', "  ")),
            &format!("a\n\n{}", line.replace("=\n", "\n")),
            &format!("a\n\n{}", line.replace("M=\n", "N=\n")),
            "a\n\n\u{2014} foo Uw2QOg==\n",
            "a\n\n\u{2014} foo Uw2Q\n",
            "a\n\n\u{2014} foo \n",
            &many,
            &format!("{}\n\n{line}", "a".repeat(MAX_NOTE)),
        ] {
            assert!(Note::parse(bad.as_bytes()).is_err(), "{bad:.80}");
        }
        assert!(Note::parse(b"a\xff\n\n").is_err());
        assert!(Note::new("a").is_err());
        assert!(Note::new("a\0\n").is_err());
        // As many as are allowed, and an empty line in the text.
        let most = format!("a\n\nb\n\n{}", line.repeat(MAX_SIGNATURES));
        let note = Note::parse(most.as_bytes()).unwrap();
        assert_eq!((note.text(), note.signatures().len()), ("a\n\nb\n", MAX_SIGNATURES));
    }

    #[test]
    fn which_signatures_carry_a_note() {
        let log = SigningKey::ed25519("log.example", &[1; 32]).unwrap();
        let witness = SigningKey::cosigner("w.example", &[2; 32]).unwrap();
        let stranger = SigningKey::ed25519("log.example", &[3; 32]).unwrap();
        let (log_key, witness_key) = (log.verifier(), witness.verifier());
        let known = [&log_key, &witness_key];

        let mut signed = note("text\n");
        assert!(refused(signed.verify(known)).contains("no signature by a known key"));
        signed.sign(&stranger, time(0));
        assert!(refused(signed.verify(known)).contains("no signature by a known key"));
        signed.sign(&log, time(0));
        signed.sign(&witness, time(5));
        signed.sign(&witness, time(9));
        let verified = signed.verify(known).unwrap();
        assert_eq!(
            verified,
            [
                Verified { key: &log_key, time: None },
                Verified { key: &witness_key, time: Some(time(9)) }
            ]
        );

        // A known key's failing line spoils the note, whatever else holds.
        let mut other = note("other\n");
        other.signatures = signed.signatures.clone();
        assert!(refused(other.verify(known)).contains("log.example"));
        let mut moved = signed.clone();
        moved.signatures[2].body[7] ^= 1;
        assert!(refused(moved.verify(known)).contains("w.example"));
        let mut short = signed.clone();
        short.signatures[1].body.pop();
        assert!(refused(short.verify(known)).contains("length"));
        let mut late = signed.clone();
        late.signatures[2].body[0] = 0x80;
        assert!(refused(late.verify(known)).contains("292 billion"));

        // Two lines of one key, equal or not.
        let mut twice = signed.clone();
        twice.signatures.push(witness.sign(twice.text(), time(10)));
        assert!(refused(twice.verify(known)).contains("two signatures"));
        twice.signatures.pop();
        twice.signatures.push(log.sign(twice.text(), time(0)));
        assert!(refused(twice.verify(known)).contains("two signatures"));
        // Twice among the known is still one key.
        assert_eq!(signed.verify([&log_key, &log_key]).unwrap().len(), 1);
    }

    /// A cosigner's signature is none of a log, and the other way round.
    #[test]
    fn types_are_not_mixed_up() {
        let cosigner = SigningKey::cosigner("a", &[2; 32]).unwrap();
        let log = SigningKey::ed25519("a", &[2; 32]).unwrap();
        assert_ne!(cosigner.verifier().id(), log.verifier().id());
        let by_log = log.sign("text\n", time(1));
        assert!(cosigner.verifier().verify("text\n", &by_log.body).is_err());
        let by_cosigner = cosigner.sign("text\n", time(1));
        assert!(log.verifier().verify("text\n", &by_cosigner.body).is_err());
        assert!(log.verifier().verify("text\n", &by_cosigner.body[8..]).is_err());
    }

    proptest! {
        #[test]
        fn reading_never_panics(at in any::<prop::sample::Index>(), byte in any::<u8>(), insert in any::<bool>()) {
            let mut bytes = FOO_NOTE.as_bytes().to_vec();
            let at = at.index(bytes.len());
            if insert { bytes.insert(at, byte) } else { bytes[at] = byte }
            if let Ok(note) = Note::parse(&bytes) {
                prop_assert_eq!(note.to_string().into_bytes(), bytes.clone());
                let same = bytes == FOO_NOTE.as_bytes();
                prop_assert_eq!(note.verify([&FOO.parse().unwrap()]).is_ok(), same);
            }
            if let Ok(text) = std::str::from_utf8(&bytes) {
                let _ = text.parse::<VerifierKey>();
            }
        }

        #[test]
        fn keys_print_as_they_were_read(at in 0usize..69, byte in 0u8..128) {
            let mut bytes = FOO.as_bytes().to_vec();
            if let Some(place) = bytes.get_mut(at) { *place = byte }
            let text = String::from_utf8(bytes).unwrap();
            if let Ok(key) = text.parse::<VerifierKey>() {
                prop_assert_eq!(key.to_string(), text.clone());
            }
            let _ = format!("PRIVATE+KEY+{text}").parse::<SigningKey>();
        }

        #[test]
        fn any_text_can_be_read(text in "(\\PC|\n){0,80}") {
            let _ = Note::parse(text.as_bytes());
            let _ = text.parse::<Signature>();
            let _ = text.parse::<VerifierKey>();
            let _ = text.parse::<SigningKey>();
        }
    }
}
