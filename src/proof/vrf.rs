//! ECVRF-EDWARDS25519-SHA512-TAI (RFC 9381), strict.
//!
//! Stricter than the RFC asks: a public key or Gamma of small order or in a
//! non-canonical encoding is refused, so two verifiers cannot disagree.

use curve25519_dalek::constants::ED25519_BASEPOINT_TABLE;
use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use curve25519_dalek::scalar::{Scalar, clamp_integer};
use curve25519_dalek::traits::{IsIdentity, VartimeMultiscalarMul};
use sha2::{Digest, Sha512};
use zeroize::Zeroize;

/// The VRF output, beta. 64 bytes.
pub type Output = [u8; 64];
/// Gamma (32 bytes), c (16), s (32, little-endian).
pub type Proof = [u8; 80];

/// The suite's number in RFC 9381 §5.5.
const SUITE: u8 = 0x03;

/// Why a key or proof was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VrfFault {
    #[error("the VRF key is not the canonical encoding of a point")]
    KeyEncoding,
    #[error("the VRF key is a point of small order")]
    KeySmallOrder,
    #[error("Gamma is not the canonical encoding of a point")]
    GammaEncoding,
    #[error("Gamma is a point of small order")]
    GammaSmallOrder,
    #[error("s is not smaller than the group order")]
    Scalar,
    #[error("the proof does not belong to this key and input")]
    Challenge,
}

/// Made from a 32-byte seed as an Ed25519 key is (RFC 8032 §5.1.5).
pub struct SecretKey {
    scalar: Scalar,
    nonce_prefix: [u8; 32],
    public: [u8; 32],
}

impl SecretKey {
    pub fn from_seed(seed: &[u8; 32]) -> SecretKey {
        let mut expanded: [u8; 64] = Sha512::digest(seed).into();
        let (low, high) = expanded.split_at(32);
        let mut secret = [0; 32];
        secret.copy_from_slice(low);
        let mut nonce_prefix = [0; 32];
        nonce_prefix.copy_from_slice(high);
        // Only ever multiplied with points of the prime-order group, so the
        // reduced scalar serves.
        let scalar = Scalar::from_bytes_mod_order(clamp_integer(secret));
        let public = (&scalar * ED25519_BASEPOINT_TABLE).compress().to_bytes();
        expanded.zeroize();
        secret.zeroize();
        SecretKey { scalar, nonce_prefix, public }
    }

    /// The key for the genesis entry.
    pub fn public(&self) -> [u8; 32] {
        self.public
    }

    /// The output alone, without a proof: one multiplication. In constant time
    /// but for finding H, which depends on the input and the public key only.
    pub fn evaluate(&self, alpha: &[u8]) -> Output {
        output(&(self.scalar * encode_to_curve(&self.public, alpha)))
    }

    /// Output and proof (RFC 9381 §5.1, nonce as §5.4.2.2).
    pub fn prove(&self, alpha: &[u8]) -> (Output, Proof) {
        let h = encode_to_curve(&self.public, alpha);
        let h_bytes = h.compress().to_bytes();
        let gamma = self.scalar * h;
        let mut k = Scalar::from_bytes_mod_order_wide(
            &Sha512::new().chain_update(self.nonce_prefix).chain_update(h_bytes).finalize().into(),
        );
        let c = challenge([
            self.public,
            h_bytes,
            gamma.compress().to_bytes(),
            (&k * ED25519_BASEPOINT_TABLE).compress().to_bytes(),
            (k * h).compress().to_bytes(),
        ]);
        let s = k + wide(&c) * self.scalar;
        k.zeroize();
        let mut proof = [0; 80];
        proof[..32].copy_from_slice(gamma.compress().as_bytes());
        proof[32..48].copy_from_slice(&c);
        proof[48..].copy_from_slice(s.as_bytes());
        (output(&gamma), proof)
    }
}

impl Drop for SecretKey {
    fn drop(&mut self) {
        self.scalar.zeroize();
        self.nonce_prefix.zeroize();
    }
}

/// Checks that a public key may stand in a genesis entry.
pub fn check_key(public: &[u8; 32]) -> Result<(), VrfFault> {
    key_point(public).map(|_| ())
}

/// The output that `proof` proves for `alpha` (RFC 9381 §5.3).
pub fn verify(public: &[u8; 32], alpha: &[u8], proof: &Proof) -> Result<Output, VrfFault> {
    let y = key_point(public)?;
    let mut gamma_bytes = [0; 32];
    gamma_bytes.copy_from_slice(&proof[..32]);
    let gamma = canonical_point(&gamma_bytes).ok_or(VrfFault::GammaEncoding)?;
    if gamma.is_small_order() {
        return Err(VrfFault::GammaSmallOrder);
    }
    let mut c = [0; 16];
    c.copy_from_slice(&proof[32..48]);
    let mut s = [0; 32];
    s.copy_from_slice(&proof[48..]);
    let s = Option::<Scalar>::from(Scalar::from_canonical_bytes(s)).ok_or(VrfFault::Scalar)?;
    let minus_c = -wide(&c);
    let h = encode_to_curve(public, alpha);
    let u = EdwardsPoint::vartime_double_scalar_mul_basepoint(&minus_c, &y, &s);
    let v = EdwardsPoint::vartime_multiscalar_mul([s, minus_c], [h, gamma]);
    let expected = challenge([
        *public,
        h.compress().to_bytes(),
        gamma_bytes,
        u.compress().to_bytes(),
        v.compress().to_bytes(),
    ]);
    if expected != c {
        return Err(VrfFault::Challenge);
    }
    Ok(output(&gamma))
}

fn key_point(public: &[u8; 32]) -> Result<EdwardsPoint, VrfFault> {
    let point = canonical_point(public).ok_or(VrfFault::KeyEncoding)?;
    if point.is_small_order() {
        return Err(VrfFault::KeySmallOrder);
    }
    Ok(point)
}

/// RFC 9381 §5.4.1.1: hash and try again, on average twice.
fn encode_to_curve(salt: &[u8; 32], alpha: &[u8]) -> EdwardsPoint {
    let prefix = Sha512::new().chain_update([SUITE, 0x01]).chain_update(salt).chain_update(alpha);
    let mut counter = 0u8;
    loop {
        let hash = prefix.clone().chain_update([counter, 0x00]).finalize();
        let mut candidate = [0; 32];
        candidate.copy_from_slice(&hash[..32]);
        if let Some(point) = canonical_point(&candidate) {
            let point = point.mul_by_cofactor();
            if !point.is_identity() {
                return point;
            }
        }
        // 256 failures in a row have a chance of 2^-256; starting over keeps
        // this a function without an error.
        counter = counter.wrapping_add(1);
    }
}

/// RFC 8032 §5.1.3: y below p, and no sign on x = 0.
fn canonical_point(bytes: &[u8; 32]) -> Option<EdwardsPoint> {
    let mut y = *bytes;
    let sign = y[31] >> 7;
    y[31] &= 0x7f;
    // p = 2^255 - 19 is ed ff … ff 7f in little-endian.
    if y[31] == 0x7f && y[1..31].iter().all(|&b| b == 0xff) && y[0] >= 0xed {
        return None;
    }
    // x is 0 exactly for y = 1 and y = -1.
    let one = y[0] == 1 && y[1..].iter().all(|&b| b == 0);
    let minus_one = y[31] == 0x7f && y[1..31].iter().all(|&b| b == 0xff) && y[0] == 0xec;
    if sign == 1 && (one || minus_one) {
        return None;
    }
    CompressedEdwardsY(*bytes).decompress()
}

/// RFC 9381 §5.4.3: the first 16 bytes of a hash over five points.
fn challenge(points: [[u8; 32]; 5]) -> [u8; 16] {
    let mut hash = Sha512::new().chain_update([SUITE, 0x02]);
    for point in points {
        hash.update(point);
    }
    let mut c = [0; 16];
    c.copy_from_slice(&hash.chain_update([0x00]).finalize()[..16]);
    c
}

/// RFC 9381 §5.2.
fn output(gamma: &EdwardsPoint) -> Output {
    Sha512::new()
        .chain_update([SUITE, 0x03])
        .chain_update(gamma.mul_by_cofactor().compress().as_bytes())
        .chain_update([0x00])
        .finalize()
        .into()
}

fn wide(c: &[u8; 16]) -> Scalar {
    let mut bytes = [0; 32];
    bytes[..16].copy_from_slice(c);
    Scalar::from_bytes_mod_order(bytes)
}
