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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sha2::{Digest, Sha256};

    use super::super::merkle::{consistency_proof, inclusion_proof, leaf_hash, root_from_leaves};
    use super::super::tile::{BundleCoordinate, Edge, encode_bundle};
    use super::*;

    /// An end-to-end vector, computed by other code: a log of four entries.
    const LOG: &str = "dime.example/log1+2b811264+AQOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4";
    const LOG_SECRET: &str =
        "PRIVATE+KEY+dime.example/log1+2b811264+AQABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";
    const WITNESS: &str =
        "witness.example/w1+20324abe+BCmsuuFBvMrwsi4alNNNC8c2HlJtC/4SyJeUvJMilm3X";
    const PROOF: &str = "c2sp.org/tlog-proof@v1
index 1
bjQLnP+zepicpUTmu3gKLHiQHT+zNzh2hRGjBhevoB0=
zUVotYRO4H0+t73YhKSRo6PC2qg7XWILYxrrTdYQ/g4=

dime.example/log1
4
RCed8nUUFeVHcSww0RszCBrVLeZcwOSRLECKHVYYUaY=

\u{2014} dime.example/log1 K4ESZMYEKKJDNpC+BbjayRU2mK2QpOi4z43I/lWb3dEiWFujjHmlXYSRL9vHxks+WLBQryVNhTGYfBRhfxzRQDROTww=
\u{2014} witness.example/w1 IDJKvgAAAABlU/EAwNb1VTpZa0XMN0tqkKcZhqxZrYjsSt9WzERZa7VqXuxxVQkfR6Yo00D5S3/1YLct6vfK24FyeYoeZZs1ED8wDQ==
";
    const ADD_CHECKPOINT: &str = "old 2
zUVotYRO4H0+t73YhKSRo6PC2qg7XWILYxrrTdYQ/g4=

dime.example/log1
4
RCed8nUUFeVHcSww0RszCBrVLeZcwOSRLECKHVYYUaY=

\u{2014} dime.example/log1 K4ESZMYEKKJDNpC+BbjayRU2mK2QpOi4z43I/lWb3dEiWFujjHmlXYSRL9vHxks+WLBQryVNhTGYfBRhfxzRQDROTww=
";

    fn entries() -> Vec<Vec<u8>> {
        vec![vec![], b"alpha".to_vec(), b"bravo!".to_vec(), vec![0; 300]]
    }

    fn leaves() -> Vec<Hash> {
        entries().iter().map(|entry| leaf_hash(entry)).collect()
    }

    fn log() -> SigningKey {
        LOG_SECRET.parse().unwrap()
    }

    fn witness() -> SigningKey {
        let seed = std::array::from_fn(|at| 0x20 + at as u8);
        SigningKey::cosigner("witness.example/w1", &seed).unwrap()
    }

    fn signed() -> SignedCheckpoint {
        let checkpoint =
            Checkpoint::new("dime.example/log1", 4, root_from_leaves(&leaves())).unwrap();
        checkpoint.sign(&log(), Timestamp::default()).unwrap()
    }

    fn sha256(bytes: impl AsRef<[u8]>) -> String {
        hex::encode(Sha256::digest(bytes))
    }

    #[test]
    fn golden_keys() {
        assert_eq!(log().verifier().to_string(), LOG);
        assert_eq!(*log().to_secret_text(), LOG_SECRET);
        assert_eq!(
            hex::encode(log().verifier().public_bytes()),
            "03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8"
        );
        assert_eq!(witness().verifier().to_string(), WITNESS);
        assert_eq!(
            hex::encode(witness().verifier().public_bytes()),
            "29acbae141bccaf0b22e1a94d34d0bc7361e526d0bfe12c89794bc9322966dd7"
        );
    }

    #[test]
    fn golden_tiles() {
        let bundle = encode_bundle(&entries()).unwrap();
        assert_eq!(BundleCoordinate { index: 0, width: 4 }.path(), "tile/entries/000.p/4");
        assert_eq!(bundle.len(), 319);
        assert_eq!(
            sha256(bundle),
            "2a3d7e6824580c2d71a15557c4de3f5553fdabe089f94ff250b422c081649c56"
        );
        let expected = [
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "2a158d8afd48e3f88cb4195dfdb2a9e4817d95fa57fd34440d93f9aae5c4f82b",
            "c69853fe11ed7e97dd1c25d111138db2629effe5902ddeed97d5656dfc3310a6",
            "1386bff17a8c6c42bc4a3e0d13b31ba158bfbcbf941a5e0b22c6bed8cc6a4a0b",
        ];
        assert_eq!(leaves().iter().map(hex::encode).collect::<Vec<_>>(), expected);
        let (edge, tiles) = Edge::new().integrate(&leaves());
        assert_eq!(tiles[0].at.path(), "tile/0/000.p/4");
        assert_eq!(
            sha256(&tiles[0].bytes),
            "161b0f30aa9a38069b1ca50b71e122d868f603bfbef4b40720231a40f16c52d3"
        );
        let root = "44279df2751415e547712c30d11b33081ad52de65cc0e4912c408a1d561851a6";
        assert_eq!((tiles.len(), hex::encode(edge.root()).as_str()), (1, root));
    }

    #[test]
    fn golden_proof_byte_for_byte() {
        let now = Timestamp::from_secs(1_700_000_000);
        let mut checkpoint = signed();
        let cosignature = checkpoint.cosign(&witness(), now);
        checkpoint.add(&witness().verifier(), cosignature).unwrap();
        let path = inclusion_proof(&leaves()[..], 1, 4).unwrap();
        let proof = TlogProof { extra: None, index: 1, path, checkpoint };
        assert_eq!(proof.to_string(), PROOF);

        let read = TlogProof::parse(PROOF.as_bytes()).unwrap();
        assert_eq!(read, proof);
        read.verify(&leaves()[1]).unwrap();
        assert!(read.verify(&leaves()[0]).is_err());
        let keys: [VerifierKey; 2] = [LOG, WITNESS].map(|key| key.parse().unwrap());
        let times: Vec<_> = read.checkpoint.verify(&keys).unwrap().iter().map(|v| v.time).collect();
        assert_eq!(times, [None, Some(now)]);
        assert_eq!(
            hex::encode(super::super::note::cosignature_message(
                read.checkpoint.note().text(),
                1_700_000_000
            )),
            "636f7369676e61747572652f76310a74696d6520313730303030303030300a64696d652e6578616d706c652f6c6f67310a340a52436564386e555546655648635377773052737a434272564c655a63774f53524c45434b485659595561593d0a"
        );
    }

    #[test]
    fn golden_request_byte_for_byte() {
        let proof = consistency_proof(&leaves()[..], 2, 4).unwrap();
        let request = AddCheckpoint { old: 2, proof, checkpoint: signed() };
        assert_eq!(request.to_string(), ADD_CHECKPOINT);
        let read = AddCheckpoint::parse(ADD_CHECKPOINT.as_bytes()).unwrap();
        assert_eq!(read, request);
        read.verify(&root_from_leaves(&leaves()[..2])).unwrap();
        assert!(read.verify(&root_from_leaves(&leaves()[..3])).is_err());
    }

    /// Sigsum's test log: the leaf hashes are given, 2A and the index.
    #[test]
    fn sigsum_checkpoints() {
        const ORIGIN: &str =
            "sigsum.org/v1/tree/4d6d8825a6bb689d459628312889dfbb0bcd41b5211d9e1ce768b0ff0309e562";
        let public =
            hex::decode("ffdc2d4d98e4124d3feaf788c0c2f9abfd796083d1f0495437f302ec79cf100f");
        let key = VerifierKey::ed25519(ORIGIN, &public.unwrap().try_into().unwrap()).unwrap();
        let vkey = format!("{ORIGIN}+5202289b+Af/cLU2Y5BJNP+r3iMDC+av9eWCD0fBJVDfzAux5zxAP");
        assert_eq!(key.to_string(), vkey);
        let leaf = |index: u8| {
            let mut leaf = [0; 32];
            leaf[..2].copy_from_slice(&[0x2a, index]);
            leaf
        };
        let leaves: Vec<Hash> = (0..5).map(leaf).collect();
        let hash = |text| parse_hash(text).unwrap();
        let mut roots = Vec::new();
        for (size, root, signature) in [
            (
                1,
                "KgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
                "UgIom7fPZTqpxWWhyjWduBvTvGVqsokMbqTArsQilegKoFBJQjUFAmQ0+YeSPM3wfUQMFSzVnnNuWRTYrajXpNUbIQY=",
            ),
            (
                3,
                "RcCI1Nk56ZcSmIEfIn0SleqtV7uvrlXNccFx595Iwl0=",
                "UgIom2VbtIcdFbwFAy1n7s6IkAxIY6J/GQOTuZF2ORV39d75cbAj2aQYwyJre36kezNobZs4SUUdrcawfAB8WVrx6go=",
            ),
            (
                5,
                "QrtXrQZCCvpIgsSmOsah7HdICzMLLyDfxToMql9WTjY=",
                "UgIomw/EOJmWi0i1FQsOj+etB7F8IccFam/jgd6wzRns4QPVmyEZtdvl1U2KEmLOZ/ASRcWJi0tW90dJWAShei7sDww=",
            ),
        ] {
            let note = format!("{ORIGIN}\n{size}\n{root}\n\n\u{2014} {ORIGIN} {signature}\n");
            let signed = SignedCheckpoint::parse(note.as_bytes()).unwrap();
            signed.verify([&key]).unwrap();
            assert_eq!(signed.to_string(), note);
            assert_eq!(signed.checkpoint().root, root_from_leaves(&leaves[..size]));
            roots.push(signed.checkpoint().root);
        }
        for (old, new, roots, proof) in [
            (1, 3, [roots[0], roots[1]], vec![leaf(1), leaf(2)]),
            (
                1,
                5,
                [roots[0], roots[2]],
                vec![leaf(1), hash("+fUDV+k970B4I3uKrqJM4aP1lloPZP8mvr2Z4wRw2LI="), leaf(4)],
            ),
            (
                3,
                5,
                [roots[1], roots[2]],
                vec![
                    leaf(2),
                    leaf(3),
                    hash("wgiIFdZfYNv6WU1OllBKsWnLYIS/DBMqt8Uh/S4OukE="),
                    leaf(4),
                ],
            ),
        ] {
            assert_eq!(consistency_proof(&leaves[..], old, new).unwrap(), proof);
            merkle::verify_consistency(old, new, &roots[0], &roots[1], &proof).unwrap();
        }
    }

    #[test]
    fn checkpoints_that_are_refused() {
        const ROOT: &str = "RCed8nUUFeVHcSww0RszCBrVLeZcwOSRLECKHVYYUaY=";
        assert!(format!("o\n4\n{ROOT}\n").parse::<Checkpoint>().is_ok());
        assert!(format!("o\n4\n{ROOT}\nextension\n").parse::<Checkpoint>().is_ok());
        for bad in [
            "",
            "\n",
            "o\n4\n",
            &format!("o\n4\n{ROOT}"),
            &format!("\n4\n{ROOT}\n"),
            &format!("o\u{85}\n4\n{ROOT}\n"),
            &format!("{}\n4\n{ROOT}\n", "o".repeat(256)),
            &format!("o\n04\n{ROOT}\n"),
            &format!("o\n+4\n{ROOT}\n"),
            &format!("o\n 4\n{ROOT}\n"),
            &format!("o\n\n{ROOT}\n"),
            &format!("o\n9223372036854775808\n{ROOT}\n"),
            &format!("o\n99999999999999999999\n{ROOT}\n"),
            &format!("o\n4\n{}\n", ROOT.replace("Y=", "Z=")),
            &format!("o\n4\n{}\n", &ROOT[..43]),
            &format!("o\n4\n{}\n", &ROOT[..40]),
            &format!("o\n4\n{ROOT}\n\n"),
            &format!("o\n4\n{ROOT}\n{}", "x\n".repeat(17)),
        ] {
            assert!(bad.parse::<Checkpoint>().is_err(), "{bad:?}");
        }
        let root = [0; 32];
        assert!(Checkpoint::new("", 1, root).is_err());
        assert!(Checkpoint::new("dime.example/log1", u64::MAX, root).is_err());
        // Nothing is signed that would not be read.
        let key = log();
        let mut bad = Checkpoint::new("dime.example/log1", 1, root).unwrap();
        bad.extensions = vec!["a\nb".to_owned()];
        assert!(bad.sign(&key, Timestamp::default()).is_err());
        let other = Checkpoint::new("dime.example/log2", 1, root).unwrap();
        assert!(other.sign(&key, Timestamp::default()).is_err());
    }

    #[test]
    fn a_cosignature_is_added_once_and_only_if_it_holds() {
        let (witness, mut checkpoint) = (witness(), signed());
        let key = witness.verifier();
        let first = checkpoint.cosign(&witness, Timestamp::from_secs(1));
        let second = checkpoint.cosign(&witness, Timestamp::from_secs(2));
        checkpoint.add(&key, first.clone()).unwrap();
        checkpoint.add(&key, second.clone()).unwrap();
        assert_eq!(checkpoint.note().signatures()[1..], [second]);
        let mut forged = first;
        forged.body[20] ^= 1;
        assert!(checkpoint.add(&key, forged).is_err());
        let by_log = checkpoint.note().signatures()[0].clone();
        assert!(checkpoint.add(&key, by_log).is_err());
    }

    #[test]
    fn the_opaque_part_of_a_proof() {
        let mut proof = TlogProof::parse(PROOF.as_bytes()).unwrap();
        proof.extra = Some(b"opaque".to_vec());
        let text = proof.to_string();
        assert!(text.starts_with("c2sp.org/tlog-proof@v1\nextra b3BhcXVl\nindex 1\n"));
        assert_eq!(TlogProof::parse(text.as_bytes()).unwrap(), proof);
        for (from, to) in [
            ("@v1", "@v2"),
            ("extra b3BhcXVl", "extra b3BhcXV"),
            ("index 1", "index 01"),
            ("index 1", "index 1\nindex 1"),
            ("index 1\n", ""),
            ("extra b3BhcXVl\n", "extra b3BhcXVl\nextra b3BhcXVl\n"),
            ("zUVotYRO4H0+t73YhKSRo6PC2qg7XWILYxrrTdYQ/g4=\n\n", "zUVo\n\n"),
        ] {
            assert!(TlogProof::parse(text.replacen(from, to, 1).as_bytes()).is_err(), "{to}");
        }
        let line = "zUVotYRO4H0+t73YhKSRo6PC2qg7XWILYxrrTdYQ/g4=\n";
        for (count, fits) in [(61, true), (62, false)] {
            let many = PROOF.replacen(line, &line.repeat(count + 1), 1);
            assert_eq!(TlogProof::parse(many.as_bytes()).is_ok(), fits, "{count}");
        }
    }

    proptest! {
        #[test]
        fn reading_never_panics(at in any::<prop::sample::Index>(), byte in any::<u8>(), change in 0..3) {
            for whole in [PROOF, ADD_CHECKPOINT] {
                let mut bytes = whole.as_bytes().to_vec();
                let at = at.index(bytes.len());
                match change {
                    0 => bytes[at] = byte,
                    1 => bytes.insert(at, byte),
                    _ => drop(bytes.remove(at)),
                }
                if let Ok(proof) = TlogProof::parse(&bytes) {
                    prop_assert_eq!(proof.to_string().into_bytes(), bytes.clone());
                }
                if let Ok(request) = AddCheckpoint::parse(&bytes) {
                    prop_assert_eq!(request.to_string().into_bytes(), bytes.clone());
                }
                let _ = SignedCheckpoint::parse(&bytes);
            }
        }

        #[test]
        fn any_bytes_can_be_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = TlogProof::parse(&bytes);
            let _ = AddCheckpoint::parse(&bytes);
            let _ = SignedCheckpoint::parse(&bytes);
        }

        #[test]
        fn checkpoints_read_back(origin in "[a-z./ ]{1,40}", size in 0..=MAX_SIZE, root in any::<[u8; 32]>()) {
            let checkpoint = Checkpoint::new(&origin, size, root).unwrap();
            prop_assert_eq!(checkpoint.to_string().parse(), Ok(checkpoint));
        }
    }
}
