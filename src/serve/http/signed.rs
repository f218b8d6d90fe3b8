//! Requests that somebody signs, as JSON: `{"name","body","time","nonce","key",
//! "signature"}`, with nonce, key and signature in hexadecimal. `body` is text
//! that the signature covers; see [`request`](crate::proof::request) (threat 24).

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::reply::Refusal;
use crate::dime::{Name, Rejection, Timestamp};
use crate::proof::request::{Method, Request, Signers};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    name: String,
    #[serde(default)]
    body: String,
    time: u64,
    nonce: String,
    key: String,
    signature: String,
}

/// A request as it came, not yet verified.
pub struct Signed {
    pub request: Request,
    pub body: String,
    pub key: [u8; 32],
    signature: [u8; 64],
}

impl Signed {
    pub fn read(bytes: &[u8], method: Method) -> Result<Signed, Refusal> {
        let envelope: Envelope = serde_json::from_slice(bytes).map_err(|error| {
            Refusal::request("body", format!("the body is no request: {error}"))
        })?;
        let refuse = |refused: Rejection| Refusal::request(refused.rule, refused.message);
        let name: Name = envelope.name.parse().map_err(refuse)?;
        let request = Request {
            method,
            name,
            body_sha256: Sha256::digest(&envelope.body).into(),
            time: envelope.time,
            nonce: fixed("nonce", &envelope.nonce)?,
        };
        let key = fixed("key", &envelope.key)?;
        let signature = fixed("signature", &envelope.signature)?;
        Ok(Signed { request, body: envelope.body, key, signature })
    }

    /// For the mirror of this origin, of now, by one of the signers. That it is
    /// the first of its nonce is still to be found out.
    pub fn verify(&self, origin: &str, signers: &Signers, now: Timestamp) -> Result<(), Rejection> {
        let body = self.body.as_bytes();
        self.request.verify(origin, body, signers, &self.key, &self.signature, now)
    }

    /// The request's own time, as far as it can be told.
    pub fn time(&self) -> Timestamp {
        Timestamp::from_millis(self.request.time.saturating_mul(1000))
    }
}

fn fixed<const N: usize>(field: &'static str, text: &str) -> Result<[u8; N], Refusal> {
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes)
        .map_err(|_| Refusal::request(field, format!("{field} is not {N} bytes in hexadecimal")))?;
    Ok(bytes)
}
