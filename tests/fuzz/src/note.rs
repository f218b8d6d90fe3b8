//! Signed notes, checkpoints, keys; and what carries them: requests to cosign, proofs.

use std::str::from_utf8;

use syndicate::proof::checkpoint::{
    AddCheckpoint, Checkpoint, MAX_ADD_CHECKPOINT, MAX_TLOG_PROOF, SignedCheckpoint, TlogProof,
};
use syndicate::proof::merkle::{MAX_PROOF, MAX_SIZE};
use syndicate::proof::note::{
    MAX_NOTE, MAX_SIGNATURES, Note, Signature, SigningKey, VerifierKey, parse_signatures,
};

use super::mini_log;
use super::stranger;

pub fn note(bytes: &[u8]) {
    if let Ok(note) = Note::parse(bytes) {
        assert_eq!(note.to_string().as_bytes(), bytes);
        assert!(bytes.len() <= MAX_NOTE && note.signatures().len() <= MAX_SIGNATURES);
        unsigned(&note);
    }
    if let Ok(signed) = SignedCheckpoint::parse(bytes) {
        assert_eq!(signed.to_string().as_bytes(), bytes);
        same_checkpoint(&signed);
    }
    let Ok(text) = from_utf8(bytes) else { return };
    if let Ok(key) = text.parse::<VerifierKey>() {
        assert_eq!(key.to_string(), text);
    }
    if let Ok(key) = text.parse::<SigningKey>() {
        assert_eq!(key.to_secret_text().as_str(), text);
        assert_eq!(key.verifier().to_string().parse().as_ref(), Ok(&key.verifier()));
    }
    if let Ok(signatures) = parse_signatures(text) {
        assert!(signatures.len() <= MAX_SIGNATURES);
        let lines: Vec<String> = signatures.iter().map(Signature::to_string).collect();
        assert_eq!(lines.join("\n"), text);
    }
}

/// Nothing in it was signed by a stranger, even under the names and IDs that it gives.
fn unsigned(note: &Note) {
    for signature in note.signatures() {
        for key in [VerifierKey::ed25519, VerifierKey::cosigner] {
            let key = key(&signature.name, &stranger()).expect("a name that was read");
            assert!(note.verify([&key]).is_err());
            assert!(key.verify(note.text(), &signature.body).is_err());
        }
    }
}

fn same_checkpoint(signed: &SignedCheckpoint) {
    let checkpoint = signed.checkpoint();
    assert!(checkpoint.size <= MAX_SIZE);
    assert_eq!(checkpoint.to_string(), signed.note().text());
    assert_eq!(checkpoint.to_string().parse::<Checkpoint>().as_ref(), Ok(checkpoint));
    // The seeds are signed by one log, whose key has signed for no other origin.
    let key = mini_log::log_vkey();
    if signed.verify([&key]).is_ok() {
        assert_eq!(checkpoint.origin, mini_log::ORIGIN);
    }
}

pub fn checkpoint(bytes: &[u8]) {
    if let Ok(proof) = TlogProof::parse(bytes) {
        assert_eq!(proof.to_string().as_bytes(), bytes);
        assert!(bytes.len() <= MAX_TLOG_PROOF && proof.path.len() <= MAX_PROOF);
        same_checkpoint(&proof.checkpoint);
        assert!(proof.verify(&[0xf5; 32]).is_err());
    }
    if let Ok(request) = AddCheckpoint::parse(bytes) {
        assert_eq!(request.to_string().as_bytes(), bytes);
        assert!(bytes.len() <= MAX_ADD_CHECKPOINT && request.proof.len() <= MAX_PROOF);
        same_checkpoint(&request.checkpoint);
        assert!(request.verify(&[0xf5; 32]).is_err());
    }
}
