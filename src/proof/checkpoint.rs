//! Checkpoints (c2sp.org/tlog-checkpoint), and the two texts that carry one:
//! the offline proof of an entry (c2sp.org/tlog-proof) and the request to
//! cosign (c2sp.org/tlog-witness, `add-checkpoint`).
//!
//! What is left out: whose signatures count. That is `policy`.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::merkle::{self, Hash, MAX_PROOF, MAX_SIZE};
use super::note::{MAX_NOTE, Note, Signature, SigningKey, Verified, VerifierKey};
use crate::dime::{Rejection, Timestamp};

/// Longest origin, bytes. An ML-DSA cosignature counts it in one byte.
pub const MAX_ORIGIN: usize = 255;
/// Most extension lines that are read. We write none.
pub const MAX_EXTENSIONS: usize = 16;
/// Longest opaque part of a proof, bytes, decoded.
pub const MAX_EXTRA: usize = 64 * 1024;
/// Longest proof of an entry, bytes.
pub const MAX_TLOG_PROOF: usize = MAX_NOTE + MAX_EXTRA / 3 * 4 + 8 * 1024;
/// Longest request to cosign, bytes.
pub const MAX_ADD_CHECKPOINT: usize = MAX_NOTE + 8 * 1024;

/// Media type and extension of a saved proof of an entry.
pub const TLOG_PROOF_EXTENSION: &str = "tlog-proof";
const TLOG_PROOF_HEADER: &str = "c2sp.org/tlog-proof@v1";

/// What a log says it is: a name, a size, a root.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Checkpoint {
    /// Of the log: 1 to 255 bytes, no control characters.
    pub origin: String,
    /// Leaves, at most 2^63-1.
    pub size: u64,
    pub root: Hash,
    /// Not empty each. Covered by Ed25519 signatures; we write none.
    pub extensions: Vec<String>,
}

/// A checkpoint in its note, the signatures not yet checked.
///
/// It prints as the bytes it was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedCheckpoint {
    checkpoint: Checkpoint,
    note: Note,
}

/// An entry's inclusion in a checkpoint, to be checked offline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlogProof {
    /// Vouched for by nobody: only what is needed to compute the leaf.
    pub extra: Option<Vec<u8>>,
    /// Of the leaf, from 0.
    pub index: u64,
    /// The leaf's sibling first; at most 63.
    pub path: Vec<Hash>,
    pub checkpoint: SignedCheckpoint,
}

/// Asks a witness to cosign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddCheckpoint {
    /// The size that the witness has cosigned last, 0 if none.
    pub old: u64,
    /// From `old` to the checkpoint; at most 63.
    pub proof: Vec<Hash>,
    pub checkpoint: SignedCheckpoint,
}

impl Checkpoint {
    /// A checkpoint without extension lines. Rule `checkpoint` if the origin
    /// or the size is out of range.
    pub fn new(origin: &str, size: u64, root: Hash) -> Result<Checkpoint, Rejection> {
        check_origin(origin)?;
        if size > MAX_SIZE {
            return Err(refuse("its size is above 2^63-1"));
        }
        Ok(Checkpoint { origin: origin.to_owned(), size, root, extensions: Vec::new() })
    }

    /// Signs it as the log. Rule `checkpoint` if the key has another name than
    /// the origin, or the fields do not read back from the text.
    pub fn sign(&self, key: &SigningKey, now: Timestamp) -> Result<SignedCheckpoint, Rejection> {
        let text = self.to_string();
        if text.parse::<Checkpoint>()? != *self {
            return Err(refuse("a field has a line feed"));
        }
        if key.name() != self.origin {
            return Err(refuse("the key that signs has another name than the origin"));
        }
        let mut note = Note::new(text)?;
        note.sign(key, now);
        Ok(SignedCheckpoint { checkpoint: self.clone(), note })
    }
}

fn refuse(why: &str) -> Rejection {
    Rejection::new("checkpoint", format!("not a checkpoint: {why}"))
}

fn check_origin(origin: &str) -> Result<(), Rejection> {
    if origin.is_empty() || origin.len() > MAX_ORIGIN || origin.contains(char::is_control) {
        return Err(refuse("its origin is empty, too long, or has a control character"));
    }
    Ok(())
}

/// A decimal number without sign or leading zero, at most 2^63-1.
pub(super) fn parse_decimal(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let leading = text.len() > 1 && text.starts_with('0');
    text.parse().ok().filter(|number| digits && !leading && *number <= MAX_SIZE)
}

/// 32 bytes in 44 characters of base64, the unused bits zero.
fn parse_hash(text: &str) -> Option<Hash> {
    // Before decoding, so that a stranger's length costs nothing.
    let text = Some(text).filter(|text| text.len() == 44)?;
    BASE64.decode(text).ok()?.try_into().ok()
}

/// The text of a checkpoint's note. Rule `checkpoint` for anything that does
/// not print back to the same text.
impl FromStr for Checkpoint {
    type Err = Rejection;

    fn from_str(text: &str) -> Result<Checkpoint, Rejection> {
        let body = text.strip_suffix('\n').ok_or_else(|| refuse("its last line is not ended"))?;
        let mut lines = body.split('\n');
        let origin = lines.next().unwrap_or_default();
        check_origin(origin)?;
        let size = lines.next().and_then(parse_decimal).ok_or_else(|| refuse("no tree size"))?;
        let root = lines.next().and_then(parse_hash).ok_or_else(|| refuse("no root hash"))?;
        let extensions: Vec<_> = lines.take(MAX_EXTENSIONS + 1).map(str::to_owned).collect();
        if extensions.len() > MAX_EXTENSIONS || extensions.iter().any(String::is_empty) {
            return Err(refuse("an extension line is empty, or there are more than 16"));
        }
        Ok(Checkpoint { origin: origin.to_owned(), size, root, extensions })
    }
}

/// The text that is signed.
impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}\n{}", self.origin, self.size, BASE64.encode(self.root))?;
        self.extensions.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

impl SignedCheckpoint {
    /// Reads a note of at most 64 KiB whose text is a checkpoint. Rule `note`
    /// or `checkpoint` otherwise.
    pub fn parse(bytes: &[u8]) -> Result<SignedCheckpoint, Rejection> {
        let note = Note::parse(bytes)?;
        let checkpoint = note.text().parse()?;
        Ok(SignedCheckpoint { checkpoint, note })
    }

    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    pub fn note(&self) -> &Note {
        &self.note
    }

    /// Checks that one of the log's keys signed. See [`Note::verify`].
    pub fn verify<'k>(
        &self,
        known: impl IntoIterator<Item = &'k VerifierKey>,
    ) -> Result<Vec<Verified<'k>>, Rejection> {
        self.note.verify(known)
    }

    /// A cosignature over this checkpoint: what a witness answers with. The
    /// witness has checked consistency and has written it down before.
    pub fn cosign(&self, key: &SigningKey, now: Timestamp) -> Signature {
        key.sign(self.note.text(), now)
    }

    /// Adds a cosignature, in place of an older one by the same key, if it
    /// verifies. Rule `signature` if it does not, or is not by this key.
    pub fn add(&mut self, key: &VerifierKey, signature: Signature) -> Result<(), Rejection> {
        if !key.claims(&signature) {
            let message = format!("the signature is not by {}", key.name());
            return Err(Rejection::new("signature", message));
        }
        key.verify(self.note.text(), &signature.body)?;
        self.note.replace(signature);
        Ok(())
    }
}

impl fmt::Display for SignedCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.note.fmt(f)
    }
}

impl TlogProof {
    /// Reads a proof. Rule `tlog-proof`, `note` or `checkpoint` for anything
    /// that does not print back to the same bytes.
    pub fn parse(bytes: &[u8]) -> Result<TlogProof, Rejection> {
        let refuse = |why: &str| Rejection::new("tlog-proof", format!("not a tlog-proof: {why}"));
        if bytes.len() > MAX_TLOG_PROOF {
            return Err(refuse("it is too long"));
        }
        let (head, note) = split_head(bytes).ok_or_else(|| refuse("no empty line"))?;
        let mut lines = head.split('\n').peekable();
        if lines.next() != Some(TLOG_PROOF_HEADER) {
            return Err(refuse("its first line names another format"));
        }
        let extra = match lines.peek().and_then(|line| line.strip_prefix("extra ")) {
            Some(extra) => {
                lines.next();
                let extra = BASE64.decode(extra).ok().filter(|extra| extra.len() <= MAX_EXTRA);
                Some(extra.ok_or_else(|| refuse("its extra part is not base64, or too long"))?)
            }
            None => None,
        };
        let index = lines.next().and_then(|line| line.strip_prefix("index "));
        let index = index.and_then(parse_decimal).ok_or_else(|| refuse("no index"))?;
        let path = parse_hashes(lines).ok_or_else(|| refuse("a line of its path is no hash"))?;
        Ok(TlogProof { extra, index, path, checkpoint: SignedCheckpoint::parse(note)? })
    }

    /// Checks that this leaf is in the checkpoint. Whether the checkpoint is
    /// believed is asked of a `policy`.
    pub fn verify(&self, leaf: &Hash) -> Result<(), Rejection> {
        let Checkpoint { size, root, .. } = &self.checkpoint.checkpoint;
        merkle::verify_inclusion(self.index, *size, leaf, &self.path, root)
    }
}

impl fmt::Display for TlogProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{TLOG_PROOF_HEADER}")?;
        if let Some(extra) = &self.extra {
            writeln!(f, "extra {}", BASE64.encode(extra))?;
        }
        writeln!(f, "index {}", self.index)?;
        write_hashes(f, &self.path)?;
        write!(f, "\n{}", self.checkpoint)
    }
}

impl AddCheckpoint {
    /// Reads a request. Rule `add-checkpoint`, `note` or `checkpoint` for
    /// anything that does not print back to the same bytes.
    pub fn parse(bytes: &[u8]) -> Result<AddCheckpoint, Rejection> {
        let refuse =
            |why: &str| Rejection::new("add-checkpoint", format!("not a request to cosign: {why}"));
        if bytes.len() > MAX_ADD_CHECKPOINT {
            return Err(refuse("it is too long"));
        }
        let (head, note) = split_head(bytes).ok_or_else(|| refuse("no empty line"))?;
        let mut lines = head.split('\n');
        let old = lines.next().and_then(|line| line.strip_prefix("old "));
        let old = old.and_then(parse_decimal).ok_or_else(|| refuse("no old size"))?;
        let proof = parse_hashes(lines).ok_or_else(|| refuse("a line of its proof is no hash"))?;
        Ok(AddCheckpoint { old, proof, checkpoint: SignedCheckpoint::parse(note)? })
    }

    /// Checks that the checkpoint continues the tree of `old` leaves with this root.
    pub fn verify(&self, old_root: &Hash) -> Result<(), Rejection> {
        let Checkpoint { size, root, .. } = &self.checkpoint.checkpoint;
        merkle::verify_consistency(self.old, *size, old_root, root, &self.proof)
    }
}

impl fmt::Display for AddCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "old {}", self.old)?;
        write_hashes(f, &self.proof)?;
        write!(f, "\n{}", self.checkpoint)
    }
}

/// Lines before the first empty line, and the note after it.
fn split_head(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let end = bytes.windows(2).position(|pair| pair == b"\n\n")?;
    let (head, rest) = bytes.split_at_checked(end)?;
    Some((std::str::from_utf8(head).ok()?, rest.get(2..)?))
}

fn parse_hashes<'a>(lines: impl Iterator<Item = &'a str>) -> Option<Vec<Hash>> {
    let hashes: Vec<_> = lines.take(MAX_PROOF + 1).map(parse_hash).collect::<Option<_>>()?;
    (hashes.len() <= MAX_PROOF).then_some(hashes)
}

fn write_hashes(f: &mut fmt::Formatter<'_>, hashes: &[Hash]) -> fmt::Result {
    hashes.iter().try_for_each(|hash| writeln!(f, "{}", BASE64.encode(hash)))
}
