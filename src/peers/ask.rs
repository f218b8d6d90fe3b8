//! Asking a peer what it sees of a name: `POST /v1/observe`, signed with our peer
//! key (threats 22 and 24), and judging its receipt by its own log key. Of a larger one
//! than is compared its least wanted bytes are left out first, so that whatever the
//! peer puts in, an incident can be made of it.
//!
//! A mailbox's name is told only to peers that the operator marked for it.

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::Error;
use crate::client::Site;
use crate::dime::{Name, Rejection, Timestamp};
use crate::log::answer::MAX_COMPARED;
use crate::proof::note::{SigningKey, VerifierKey};
use crate::proof::policy::Policy;
use crate::proof::receipt::{self, Asker, MAX_RECEIPT, Receipt, Statement};
use crate::proof::request::{FRESH, Method, NONCE, Request};

const JSON: &str = "application/json";
const PROTOBUF: &str = "application/x-protobuf";

/// A peer that can be asked. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Face {
    site: Site,
    key: VerifierKey,
    policy: Policy,
    share_addresses: bool,
}

/// What a peer answered.
#[derive(Debug)]
pub enum Said {
    /// It verifies under the peer's log key.
    Receipt(Box<Receipt>, Box<Statement>),
    /// Ask again after so many seconds: it visits the name, or is busy.
    Later(u64),
    /// It does not let us ask.
    Refused(u16),
    /// What it answered is no receipt of this name by this log.
    Wrong(String),
}

impl Face {
    /// `key` is the peer's log key, its name the origin.
    pub fn new(url: &str, key: VerifierKey, share_addresses: bool) -> Result<Face, Error> {
        let policy = Policy::of_log(key.clone());
        let refuse = |rejection| Error::Key { origin: key.name().into(), rejection };
        let mut policy = policy.map_err(refuse)?;
        // Whether it is fresh is what comparing finds out.
        policy.max_age = u64::MAX;
        Ok(Face { site: Site::new(url)?, key, policy, share_addresses })
    }

    pub fn origin(&self) -> &str {
        self.key.name()
    }

    /// Whether it may know that this name exists.
    pub fn may_know(&self, name: &Name) -> bool {
        self.share_addresses || matches!(name, Name::Domain(_))
    }

    /// Asks once. `by` signs requests and nothing else.
    ///
    /// # Errors
    /// If the peer cannot be reached, or we have no random bytes.
    pub async fn ask(
        &self,
        by: &SigningKey,
        name: &Name,
        fresh: bool,
        now: Timestamp,
    ) -> Result<Said, Error> {
        let body = request(by, self.origin(), name, fresh, now)?;
        let body = Bytes::from(body.to_string());
        let answer = self.site.post("v1/observe", JSON, PROTOBUF, body, MAX_RECEIPT).await?;
        Ok(match answer.status {
            200 => match self.judge(&answer.body, name, now) {
                Ok((receipt, statement)) => Said::Receipt(Box::new(receipt), Box::new(statement)),
                Err(why) => Said::Wrong(why),
            },
            // A replay can only be a nonce that was used by chance.
            202 | 409 | 429 | 500..=599 => Said::Later(answer.retry_after.unwrap_or(60)),
            // Of an earlier build, which shows no part of a history.
            400 if is_too_long(&answer.body) => {
                Said::Wrong("it has more of the name than it can show".to_owned())
            }
            status => Said::Refused(status),
        })
    }

    fn judge(
        &self,
        bytes: &[u8],
        name: &Name,
        now: Timestamp,
    ) -> Result<(Receipt, Statement), String> {
        let mut receipt = Receipt::read(bytes).map_err(|rejection| rejection.to_string())?;
        receipt.lighten(MAX_COMPARED);
        if receipt.name != *name {
            return Err("it is about another name".to_owned());
        }
        let asker = Asker { policy: Some(&self.policy), ..Asker::default() };
        match receipt::verify(&receipt, &asker, now) {
            Ok(verdict) => {
                let statement = verdict.statement().clone();
                Ok((receipt, statement))
            }
            Err(fault) => Err(format!("{}: {fault}", fault.rule())),
        }
    }
}

fn is_too_long(body: &[u8]) -> bool {
    let error: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    error.is_some_and(|error| error["error"]["code"] == "too-long")
}

/// The JSON of a signed request to the mirror of this origin.
pub fn request(
    by: &SigningKey,
    origin: &str,
    name: &Name,
    fresh: bool,
    now: Timestamp,
) -> Result<serde_json::Value, Error> {
    let body = if fresh { FRESH } else { "" };
    let mut nonce = [0; NONCE];
    getrandom::fill(&mut nonce).map_err(|_| Error::Random)?;
    let request = Request {
        method: Method::Observe,
        name: name.clone(),
        body_sha256: Sha256::digest(body).into(),
        time: now.secs(),
        nonce,
    };
    let signature = by.sign(&request.text(origin), now);
    let key = by.verifier();
    let unusable = || Error::Key {
        origin: key.name().into(),
        rejection: Rejection::new("key-type", "requests are signed with a plain Ed25519 key"),
    };
    let public = key.public_key().ok_or_else(unusable)?;
    Ok(serde_json::json!({
        "name": name.as_str(),
        "body": body,
        "time": request.time,
        "nonce": hex::encode(nonce),
        "key": hex::encode(public),
        "signature": hex::encode(&signature.body),
    }))
}
