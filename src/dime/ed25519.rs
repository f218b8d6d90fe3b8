//! Ed25519 (RFC 8032), strictly: the one verifier of this crate.
//!
//! libdime accepts S >= L and small-order keys (reference G5). Two parties that
//! disagree about such a signature disagree about a log entry, so here they are
//! refused before the equation is looked at. No pre-hash, no context.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

use super::Rejection;

/// The group order L, little-endian (RFC 8032 §5.1).
const ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

/// Checks `signature` over exactly `message`.
///
/// Refused with rule `G5`: S not below L, a key or an R that is not the
/// canonical encoding of a point, a key or an R of small order. Refused with
/// rule `signature`: everything else that does not verify.
pub fn verify(key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> Result<(), Rejection> {
    let (r, s) = halves(signature);
    if !is_below_order(&s) {
        return Err(strict(with_reduced_scalar(key, message, &r, &s)));
    }
    if !is_canonical(&r) {
        return Err(strict("R is not the canonical encoding of a point"));
    }
    let key = usable_key(key)?;
    key.verify_strict(message, &Signature::from_components(r, s)).map_err(|_| {
        if is_small_order(&r) {
            strict("R is a point of small order")
        } else {
            Rejection::new("signature", "the Ed25519 signature does not verify")
        }
    })
}

/// Whether `key` can verify signatures: a canonical encoding of a curve point
/// that is not of small order. Anything else is refused with rule `G5`.
pub fn check_key(key: &[u8; 32]) -> Result<(), Rejection> {
    usable_key(key).map(|_| ())
}

/// The same as [`check_key`], as a yes or no.
pub fn is_point(key: &[u8; 32]) -> bool {
    check_key(key).is_ok()
}

/// Signs `message` with the key whose RFC 8032 secret is `seed`. Deterministic.
pub fn sign(seed: &[u8; 32], message: &[u8]) -> [u8; 64] {
    SigningKey::from_bytes(seed).sign(message).to_bytes()
}

/// The public key of `seed`.
pub fn public_key(seed: &[u8; 32]) -> [u8; 32] {
    SigningKey::from_bytes(seed).verifying_key().to_bytes()
}

fn strict(message: &'static str) -> Rejection {
    Rejection::new("G5", message)
}

fn usable_key(key: &[u8; 32]) -> Result<VerifyingKey, Rejection> {
    if !is_canonical(key) {
        return Err(strict("the key is not the canonical encoding of a point"));
    }
    let key = VerifyingKey::from_bytes(key).map_err(|_| strict("the key is not a curve point"))?;
    if key.is_weak() {
        return Err(strict("the key is a point of small order"));
    }
    Ok(key)
}

/// R and S.
fn halves(signature: &[u8; 64]) -> ([u8; 32], [u8; 32]) {
    let mut r = [0; 32];
    let mut s = [0; 32];
    r.copy_from_slice(&signature[..32]);
    s.copy_from_slice(&signature[32..]);
    (r, s)
}

fn is_below_order(s: &[u8; 32]) -> bool {
    s.iter().rev().lt(ORDER.iter().rev())
}

/// Whether the y coordinate is below p = 2^255 - 19. The other non-canonical
/// form, x = 0 with the sign bit, exists only for points of small order.
fn is_canonical(point: &[u8; 32]) -> bool {
    let at_most_p = point[31] & 0x7f == 0x7f && point[1..31].iter().all(|b| *b == 0xff);
    !(at_most_p && point[0] >= 0xed)
}

fn is_small_order(point: &[u8; 32]) -> bool {
    VerifyingKey::from_bytes(point).is_ok_and(|point| point.is_weak())
}

/// Says whether somebody re-wrote a good signature (flag `malleable-signature`
/// of the reference) or just sent bytes.
fn with_reduced_scalar(key: &[u8; 32], message: &[u8], r: &[u8; 32], s: &[u8; 32]) -> &'static str {
    let reduced = curve25519_dalek::Scalar::from_bytes_mod_order(*s).to_bytes();
    let signature = Signature::from_components(*r, reduced);
    match usable_key(key).map(|key| key.verify_strict(message, &signature)) {
        Ok(Ok(())) => "S is not below the group order (malleable: it would verify when reduced)",
        _ => "S is not below the group order",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(result: Result<(), Rejection>) -> &'static str {
        result.err().map_or("ok", |rejection| rejection.rule)
    }

    #[test]
    fn signs_and_verifies() {
        let key = public_key(&[1; 32]);
        let mut signature = sign(&[1; 32], b"body");
        assert_eq!(rule(verify(&key, b"body", &signature)), "ok");
        assert_eq!(rule(verify(&key, b"bodY", &signature)), "signature");
        signature[0] ^= 1;
        assert_eq!(rule(verify(&key, b"body", &signature)), "signature");
    }

    #[test]
    fn refuses_a_scalar_that_is_not_reduced() {
        let key = public_key(&[1; 32]);
        let mut signature = sign(&[1; 32], b"body");
        let mut carry = 0u16;
        for (byte, order) in signature[32..].iter_mut().zip(ORDER) {
            let sum = u16::from(*byte) + u16::from(order) + carry;
            *byte = sum as u8;
            carry = sum >> 8;
        }
        let refused = verify(&key, b"body", &signature).unwrap_err();
        assert_eq!(refused.rule, "G5");
        assert!(refused.message.contains("malleable"));
        signature[32..].copy_from_slice(&ORDER);
        assert_eq!(rule(verify(&key, b"body", &signature)), "G5");
    }

    #[test]
    fn refuses_small_order_and_non_canonical_points() {
        let mut identity = [0; 32];
        identity[0] = 1;
        let mut forged = [0; 64];
        forged[0] = 1;
        assert_eq!(rule(verify(&identity, b"anything", &forged)), "G5");
        assert_eq!(rule(verify(&public_key(&[1; 32]), b"anything", &forged)), "G5");
        for bad in [[0; 32], [0xff; 32], identity] {
            assert!(!is_point(&bad));
        }
        // y = p + 3: the point with y = 3 in other bytes, if there is one.
        let mut other = [0xff; 32];
        other[0] = 0xf0;
        other[31] = 0x7f;
        assert!(!is_point(&other));
        assert!(is_point(&public_key(&[1; 32])));
    }
}
