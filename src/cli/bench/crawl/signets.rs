//! Signets, decoded and validated, beside as many bare verifications.

use std::time::Duration;

use anyhow::Context as _;
use ed25519_dalek::{Signature, VerifyingKey};
use serde_json::{Value, json};
use syndicate::dime::key::{Owner, PrivateKey};
use syndicate::dime::signet::build::{self, SignTo};
use syndicate::dime::signet::{Dialect, Signet};
use syndicate::dime::{org, user};

use super::super::measure::Took;
use super::super::round;

/// Turns of both kinds, by turns, so that noise hits both; their time on the
/// processor counts, which others do not share.
const TURNS: u64 = 10;
/// Signets in one turn.
const SIGNETS: u64 = 400;
/// Fields of a user signet with custody that are signatures: custody, the
/// user's, the organization's over the body, and over body and name.
const SIGNATURES: u64 = 4;

pub fn figures() -> anyhow::Result<Value> {
    let key = |owner, byte| PrivateKey::from_secrets(owner, [byte; 32], [byte; 32]);
    let pok = key(Owner::Org, 1)?;
    let org_signet = build::org(&pok, Dialect::L, &[], &[], SignTo::Id("example.com"))?;
    let request = build::request(&key(Owner::User, 3)?, Dialect::L, Some(&key(Owner::User, 2)?))?;
    let to = SignTo::Id("alice@example.com");
    let signet = build::user(&request, pok.seed(), &[], to)?;
    let org = org::validate(&org_signet, &[pok.signing_key()], None)?;
    let bytes = signet.bytes().to_vec();

    // One of its own signatures: key, message, signature.
    let message = signet.signed_part(5).context("no such signature")?;
    let signature = Signature::from_bytes(signet.signature(5).context("no such signature")?);
    let public = signet.signing_key();

    let (mut validating, mut verifying) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..TURNS {
        let (valid, took) = Took::thread(|| {
            (0..SIGNETS).try_for_each(|_| {
                let signet = Signet::decode(std::hint::black_box(&bytes))?;
                user::validate(&signet, &org, None).map(|valid| drop(std::hint::black_box(valid)))
            })
        });
        valid?;
        validating += took.cpu;
        let (valid, took) = Took::thread(|| {
            (0..SIGNETS * SIGNATURES).try_for_each(|_| {
                let key = VerifyingKey::from_bytes(std::hint::black_box(&public))?;
                key.verify_strict(std::hint::black_box(message), &signature)
            })
        });
        valid?;
        verifying += took.cpu;
    }
    let rate = |count: u64, took: Duration| (count as f64 / took.as_secs_f64()).round();
    Ok(json!({
        "signets_validated_per_s": rate(TURNS * SIGNETS, validating),
        "signatures_of_them_per_s": rate(TURNS * SIGNETS * SIGNATURES, validating),
        "bare_signatures_per_s": rate(TURNS * SIGNETS * SIGNATURES, verifying),
        "validation_ratio": round(validating.as_secs_f64() / verifying.as_secs_f64()),
    }))
}
