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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes<const N: usize>(text: &str) -> [u8; N] {
        hex::decode(text).unwrap().try_into().unwrap()
    }

    struct Vector {
        seed: &'static str,
        public: &'static str,
        alpha: &'static str,
        h: &'static str,
        proof: &'static str,
        output: &'static str,
    }

    /// RFC 9381 appendix B.3, examples 16 to 18.
    const RFC_9381: [Vector; 3] = [
        Vector {
            seed: "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            public: "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            alpha: "",
            h: "91bbed02a99461df1ad4c6564a5f5d829d0b90cfc7903e7a5797bd658abf3318",
            proof: "8657106690b5526245a92b003bb079ccd1a92130477671f6fc01ad16f26f723f\
                    26f8a57ccaed74ee1b190bed1f479d9727d2d0f9b005a6e456a35d4fb0daab12\
                    68a1b0db10836d9826a528ca76567805",
            output: "90cf1df3b703cce59e2a35b925d411164068269d7b2d29f3301c03dd757876ff\
                     66b71dda49d2de59d03450451af026798e8f81cd2e333de5cdf4f3e140fdd8ae",
        },
        Vector {
            seed: "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
            public: "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            alpha: "72",
            h: "5b659fc3d4e9263fd9a4ed1d022d75eaacc20df5e09f9ea937502396598dc551",
            proof: "f3141cd382dc42909d19ec5110469e4feae18300e94f304590abdced48aed593\
                    3bf0864a62558b3ed7f2fea45c92a465301b3bbf5e3e54ddf2d935be3b67926d\
                    a3ef39226bbc355bdc9850112c8f4b02",
            output: "eb4440665d3891d668e7e0fcaf587f1b4bd7fbfe99d0eb2211ccec90496310eb\
                     5e33821bc613efb94db5e5b54c70a848a0bef4553a41befc57663b56373a5031",
        },
        Vector {
            seed: "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
            public: "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
            alpha: "af82",
            h: "bf4339376f5542811de615e3313d2b36f6f53c0acfebb482159711201192576a",
            proof: "9bc0f79119cc5604bf02d23b4caede71393cedfbb191434dd016d30177ccbf80\
                    96bb474e53895c362d8628ee9f9ea3c0e52c7a5c691b6c18c9979866568add7a\
                    2d41b00b05081ed0f58ee5e31b3a970e",
            output: "645427e5d00c62a23fb703732fa5d892940935942101e456ecca7bb217c61c45\
                     2118fec1219202a0edcf038bb6373241578be7217ba85a2687f7a0310b2df19f",
        },
    ];

    #[test]
    fn makes_the_vectors_of_rfc_9381() {
        for vector in &RFC_9381 {
            let key = SecretKey::from_seed(&bytes(vector.seed));
            let alpha = hex::decode(vector.alpha).unwrap();
            assert_eq!(hex::encode(key.public()), vector.public);
            let h = encode_to_curve(&key.public(), &alpha).compress().to_bytes();
            assert_eq!(hex::encode(h), vector.h);
            let (output, proof) = key.prove(&alpha);
            assert_eq!(hex::encode(proof), vector.proof);
            assert_eq!(hex::encode(output), vector.output);
            assert_eq!(key.evaluate(&alpha), output);
            assert_eq!(verify(&key.public(), &alpha, &proof), Ok(output));
        }
    }

    /// The eight points of small order, and their other encodings.
    const SMALL_ORDER: [&str; 14] = [
        "0100000000000000000000000000000000000000000000000000000000000000",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        "0100000000000000000000000000000000000000000000000000000000000080",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    ];

    #[test]
    fn refuses_points_of_small_order_and_second_encodings() {
        let key = SecretKey::from_seed(&[7; 32]);
        let (_, proof) = key.prove(b"a");
        for (i, point) in SMALL_ORDER.iter().enumerate() {
            let point: [u8; 32] = bytes(point);
            let (as_key, as_gamma) = if i < 8 {
                (VrfFault::KeySmallOrder, VrfFault::GammaSmallOrder)
            } else {
                (VrfFault::KeyEncoding, VrfFault::GammaEncoding)
            };
            assert_eq!(check_key(&point), Err(as_key), "{i}");
            assert_eq!(verify(&point, b"a", &proof), Err(as_key), "{i}");
            let mut forged = proof;
            forged[..32].copy_from_slice(&point);
            assert_eq!(verify(&key.public(), b"a", &forged), Err(as_gamma), "{i}");
        }
        // y = p + 3 is y = 3 with other bytes, and a point of large order.
        let mut wide = [0xff; 32];
        wide[0] = 0xf0;
        wide[31] = 0x7f;
        assert!(CompressedEdwardsY(wide).decompress().is_some());
        assert_eq!(check_key(&wide), Err(VrfFault::KeyEncoding));
    }

    #[test]
    fn refuses_a_scalar_that_is_not_reduced() {
        let key = SecretKey::from_seed(&[7; 32]);
        let (_, mut proof) = key.prove(b"a");
        // The group order, little-endian.
        let order: [u8; 32] =
            bytes("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010");
        let mut carry = 0;
        for (byte, add) in proof[48..].iter_mut().zip(order) {
            let sum = u16::from(*byte) + u16::from(add) + carry;
            *byte = sum as u8;
            carry = sum >> 8;
        }
        assert_eq!(verify(&key.public(), b"a", &proof), Err(VrfFault::Scalar));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn a_changed_proof_or_input_is_refused(
            seed: [u8; 32], alpha: Vec<u8>, at in 0usize..80, flip in 1u8..,
        ) {
            let key = SecretKey::from_seed(&seed);
            let (output, mut proof) = key.prove(&alpha);
            prop_assert_eq!(verify(&key.public(), &alpha, &proof), Ok(output));
            let longer = [&alpha[..], b"x"].concat();
            prop_assert_eq!(verify(&key.public(), &longer, &proof), Err(VrfFault::Challenge));
            proof[at] ^= flip;
            prop_assert!(verify(&key.public(), &alpha, &proof).is_err());
        }
    }
}
