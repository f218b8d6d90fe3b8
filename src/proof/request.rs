//! What the owner of a name, or a peer, asks of a mirror, signed (threat 24).
//!
//! The signed message is text, seven lines that each end in LF:
//!
//! ```text
//! syndicate-request/v1
//! the mirror's origin
//! the method
//! the name
//! SHA-256 of the body, hexadecimal
//! Unix time, seconds
//! the client's nonce, hexadecimal
//! ```
//!
//! The key signs that text itself, never a hash. It begins with a letter and is
//! longer than 64 bytes, so it is neither a signet nor a `tls` pin, and nothing
//! in it is the mirror's choice. Left out: remembering nonces, which takes a
//! store; [`Request::id`] is what to remember, for [`VALID`] after its time.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

use super::Hash;
use crate::dime::org::ValidOrgSignet;
use crate::dime::signet::{SecondaryKey, Signet};
use crate::dime::{Name, Rejection, Timestamp, ed25519};

/// The first line.
pub const HEADER: &str = "syndicate-request/v1";
/// How far a request's time may be from the mirror's clock, milliseconds.
pub const VALID: u64 = 300_000;
/// Length of a nonce, bytes.
pub const NONCE: usize = 16;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Watch the name, and those that the body lists, and visit them now.
    Watch,
    /// Tell a peer what is known of the name; with the body [`FRESH`] after a
    /// visit made now.
    Observe,
}

/// The body of [`Method::Observe`] that asks for a visit.
pub const FRESH: &str = "fresh";

/// A request as its owner made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub method: Method,
    pub name: Name,
    /// Of the body's bytes; of none if there is no body.
    pub body_sha256: Hash,
    /// Unix time, seconds.
    pub time: u64,
    /// Random, used once.
    pub nonce: [u8; NONCE],
}

/// The keys that speak for a name; by default none does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signers(Vec<[u8; 32]>);

impl Signers {
    /// For a domain: its POK, and the secondary keys that may sign messages
    /// (permission 0x02).
    pub fn of_domain(org: &ValidOrgSignet) -> Signers {
        let secondary = org.signet().secondary_keys();
        let messages = secondary.filter(|key| key.may(SecondaryKey::MAY_SIGN_MESSAGES));
        Signers(std::iter::once(org.pok()).chain(messages.map(|key| key.key)).collect())
    }

    /// For a mailbox: the signing key of the signet in force, and no older one.
    pub fn of_mailbox(current: &Signet) -> Signers {
        Signers(vec![current.signing_key()])
    }

    /// For whatever peers may ask: their keys, which sign nothing else.
    pub fn of_peers(keys: impl IntoIterator<Item = [u8; 32]>) -> Signers {
        Signers(keys.into_iter().collect())
    }
}

impl Request {
    /// What is signed, for the mirror whose log has this origin.
    pub fn text(&self, origin: &str) -> String {
        format!(
            "{HEADER}\n{origin}\n{}\n{}\n{}\n{}\n{}\n",
            self.method,
            self.name,
            hex::encode(self.body_sha256),
            self.time,
            hex::encode(self.nonce)
        )
    }

    /// The signature by the key whose RFC 8032 secret is `seed`.
    pub fn sign(&self, origin: &str, seed: &[u8; 32]) -> [u8; 64] {
        ed25519::sign(seed, self.text(origin).as_bytes())
    }

    /// Whether it is for the mirror of this origin, of now, of this body, and
    /// signed by `key`, which speaks for the name. That its nonce is new is the
    /// caller's to find out, afterwards.
    ///
    /// Refused: `request-time`, `request-body`, `request-signer`, and as
    /// [`ed25519::verify`] does.
    pub fn verify(
        &self,
        origin: &str,
        body: &[u8],
        signers: &Signers,
        key: &[u8; 32],
        signature: &[u8; 64],
        now: Timestamp,
    ) -> Result<(), Rejection> {
        let time = Timestamp::from_millis(self.time.saturating_mul(1000));
        if now.since(time).max(time.since(now)) > VALID {
            let message = "its time is more than five minutes from the mirror's clock";
            return Err(Rejection::new("request-time", message));
        }
        if self.body_sha256 != <[u8; 32]>::from(Sha256::digest(body)) {
            return Err(Rejection::new("request-body", "the body is not the one that was signed"));
        }
        if !signers.0.contains(key) {
            return Err(Rejection::new("request-signer", "the key does not speak for the name"));
        }
        ed25519::verify(key, self.text(origin).as_bytes(), signature)
    }

    /// What a replay shares: the signer and the nonce.
    pub fn id(&self, key: &[u8; 32]) -> Hash {
        Sha256::new().chain_update(key).chain_update(self.nonce).finalize().into()
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Method::Watch => "watch",
            Method::Observe => "observe",
        })
    }
}

impl FromStr for Method {
    type Err = Rejection;

    fn from_str(text: &str) -> Result<Method, Rejection> {
        match text {
            "watch" => Ok(Method::Watch),
            "observe" => Ok(Method::Observe),
            _ => Err(Rejection::new("request-method", "no method has this name")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dime::Domain;
    use crate::dime::key::{Owner, PrivateKey};
    use crate::dime::org;
    use crate::dime::signet::Dialect;
    use crate::dime::signet::build::{self, SignTo};

    const ORIGIN: &str = "mirror.example/log";
    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
    const BODY: &[u8] = b"[\"x@a.example\"]";

    fn request() -> Request {
        Request {
            method: Method::Watch,
            name: "a.example".parse().unwrap(),
            body_sha256: Sha256::digest(BODY).into(),
            time: NOW.secs(),
            nonce: [7; NONCE],
        }
    }

    fn public(number: u8) -> [u8; 32] {
        ed25519::public_key(&[number; 32])
    }

    /// The domain's: POK 1, SOK 2 for messages, SOK 8 for software.
    fn signers() -> Signers {
        let pok = PrivateKey::from_secrets(Owner::Org, [1; 32], [1; 32]).unwrap();
        let soks = [(2, 2), (8, 8)]
            .map(|(permissions, number)| SecondaryKey { permissions, key: public(number) });
        let signet = build::org(&pok, Dialect::L, &soks, &[], SignTo::Id("a.example")).unwrap();
        let domain: Domain = "a.example".parse().unwrap();
        Signers::of_domain(&org::validate(&signet, &[public(1)], Some(&domain)).unwrap())
    }

    fn verify(
        request: &Request,
        origin: &str,
        signer: u8,
        now: Timestamp,
    ) -> Result<(), Rejection> {
        let signature = request.sign(origin, &[signer; 32]);
        request.verify(ORIGIN, BODY, &signers(), &public(signer), &signature, now)
    }

    fn rule(outcome: Result<(), Rejection>) -> &'static str {
        outcome.map_or_else(|refused| refused.rule, |()| "none")
    }

    #[test]
    fn the_text_is_what_the_rule_says() {
        let body = hex::encode(Sha256::digest(BODY));
        let nonce = "07".repeat(NONCE);
        let expected = [HEADER, ORIGIN, "watch", "a.example", &body, "1800000000", &nonce, ""];
        assert_eq!(request().text(ORIGIN), expected.join("\n"));
        // Shortest origin and name: no pin's 64 bytes, no signet's first byte.
        let shortest = Request { name: "a.b".parse().unwrap(), time: 0, ..request() }.text("a");
        assert!(shortest.len() > 64 && !shortest.starts_with('\u{1}'));
    }

    #[test]
    fn the_pok_and_the_keys_for_messages_speak_for_a_domain() {
        assert_eq!(verify(&request(), ORIGIN, 1, NOW), Ok(()));
        assert_eq!(verify(&request(), ORIGIN, 2, NOW), Ok(()));
        assert_eq!(rule(verify(&request(), ORIGIN, 8, NOW)), "request-signer");
        assert_eq!(rule(verify(&request(), ORIGIN, 3, NOW)), "request-signer");
    }

    #[test]
    fn another_mirror_time_body_or_name_is_refused() {
        assert_eq!(rule(verify(&request(), "other.example/log", 1, NOW)), "signature");
        assert_eq!(verify(&request(), ORIGIN, 1, NOW.plus(VALID)), Ok(()));
        assert_eq!(rule(verify(&request(), ORIGIN, 1, NOW.plus(VALID + 1))), "request-time");
        let future = Request { time: NOW.secs() + 301, ..request() };
        assert_eq!(rule(verify(&future, ORIGIN, 1, NOW)), "request-time");
        let never = Request { time: u64::MAX, ..request() };
        assert_eq!(rule(verify(&never, ORIGIN, 1, NOW)), "request-time");

        let signature = request().sign(ORIGIN, &[1; 32]);
        let with = |request: &Request, body: &[u8]| {
            rule(request.verify(ORIGIN, body, &signers(), &public(1), &signature, NOW))
        };
        assert_eq!(with(&request(), BODY), "none");
        assert_eq!(with(&request(), b"[]"), "request-body");
        let changed = Request { name: "b.example".parse().unwrap(), ..request() };
        assert_eq!(with(&changed, BODY), "signature");
        let changed = Request { nonce: [8; NONCE], ..request() };
        assert_eq!(with(&changed, BODY), "signature");
    }

    #[test]
    fn an_owners_request_is_no_peers() {
        let observe = Request { method: Method::Observe, ..request() };
        let signature = request().sign(ORIGIN, &[1; 32]);
        let peers = Signers::of_peers([public(1)]);
        let verify = |request: &Request| {
            rule(request.verify(ORIGIN, BODY, &peers, &public(1), &signature, NOW))
        };
        assert_eq!((verify(&request()), verify(&observe)), ("none", "signature"));
        for method in [Method::Watch, Method::Observe] {
            assert_eq!(method.to_string().parse(), Ok(method));
        }
    }

    #[test]
    fn only_the_current_key_speaks_for_a_mailbox() {
        let key = |number| PrivateKey::from_secrets(Owner::User, [number; 32], [number; 32]);
        let (old, new) = (key(4).unwrap(), key(5).unwrap());
        let made = build::request(&new, Dialect::L, Some(&old)).unwrap();
        let signet = build::user(&made, &[1; 32], &[], SignTo::Id("x@a.example")).unwrap();
        let signers = Signers::of_mailbox(&signet);
        let request = Request { name: "x@a.example".parse().unwrap(), ..request() };
        for (number, expected) in [(5, "none"), (4, "request-signer"), (1, "request-signer")] {
            let signature = request.sign(ORIGIN, &[number; 32]);
            let key = public(number);
            let outcome = request.verify(ORIGIN, BODY, &signers, &key, &signature, NOW);
            assert_eq!(rule(outcome), expected, "{number}");
        }
    }

    #[test]
    fn a_replay_is_known_by_signer_and_nonce() {
        let again = Request { time: NOW.secs() + 1, ..request() };
        assert_eq!(request().id(&public(1)), again.id(&public(1)));
        assert_ne!(request().id(&public(1)), request().id(&public(2)));
        let other = Request { nonce: [8; NONCE], ..request() };
        assert_ne!(request().id(&public(1)), other.id(&public(1)));
    }
}
