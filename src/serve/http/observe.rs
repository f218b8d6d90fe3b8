//! What peers ask for: `POST /v1/observe`, signed with a peer's own key
//! (threats 22 and 24), in the form of [`signed`](super::signed).
//!
//! `body` is `fresh` for a visit made now, or empty for what is known; a name
//! that is not known is visited in any case. The answer is the canonical receipt
//! with the name's whole history, also for absence; 202 with `Retry-After` while
//! the visit goes on, to be asked again with a new nonce; 403 for everybody but
//! a peer that may know the name; 409 for a replay; 429 over quota.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;

use super::reply::{self, Refusal};
use super::signed::Signed;
use super::{Shared, names};
use crate::dime::{Name, Timestamp};
use crate::log::answer::{Question, Span};
use crate::proof::Hash;
use crate::proof::receipt::Receipt;
use crate::proof::request::{FRESH, Method, Signers};

/// For what a visit logged to be published.
const PUBLISHING: Duration = Duration::from_secs(4);
const PAUSE: Duration = Duration::from_millis(50);

/// Does what peers ask for.
#[async_trait]
pub trait Observe: std::fmt::Debug + Send + Sync {
    /// The keys of the peers that may ask for this name.
    fn signers(&self, name: &Name) -> Signers;

    /// Remembers a request, durably; says whether it is new. An error is our
    /// failure, in words without names.
    async fn remember(&self, id: &Hash, time: Timestamp) -> Result<bool, String>;

    /// Has the name visited for the peer with this key, if it is not known or
    /// `fresh`. Returns within a few seconds.
    async fn observe(&self, key: &[u8; 32], name: &Name, fresh: bool) -> Observation;
}

/// What became of a peer's request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observation {
    /// What is known can be told: this version of the name, or a later one.
    Known { version: u64 },
    /// The visit goes on.
    Visiting,
    /// The peer has asked for too much.
    OverQuota,
    /// No visit can be made now.
    Busy,
}

/// `POST /v1/observe`
pub async fn observe(
    State(shared): State<Arc<Shared>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    let Some(peers) = &shared.options.observe else { return Err(Refusal::no_route()) };
    let signed = Signed::read(&names::whole(shared.options.body, body)?, Method::Observe)?;
    let fresh = match signed.body.as_str() {
        "" => false,
        FRESH => true,
        _ => return Err(Refusal::request("body", "body is fresh or nothing")),
    };
    let name = &signed.request.name;
    let origin = &shared.answers.reader().log().record().origin;
    let verified = signed.verify(origin, &peers.signers(name), shared.clock.now());
    verified.map_err(|refused| Refusal::unsigned(&refused))?;
    match peers.remember(&signed.request.id(&signed.key), signed.time()).await {
        Ok(true) => {}
        Ok(false) => return Err(Refusal::replay()),
        Err(error) => {
            tracing::error!(%error, "a peer's request could not be remembered");
            return Err(Refusal::busy());
        }
    }
    match peers.observe(&signed.key, name, fresh).await {
        Observation::Known { version } => {
            let receipt = published(&shared, name, version).await?;
            Ok(reply::bytes(receipt.encode().into(), names::PROTOBUF, reply::PRIVATE))
        }
        Observation::Visiting => {
            let mut response = reply::bytes("{}".into(), names::JSON, reply::PRIVATE);
            *response.status_mut() = StatusCode::ACCEPTED;
            let seconds = HeaderValue::from_static("2");
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
            Ok(response)
        }
        Observation::OverQuota => Err(Refusal::over_quota()),
        Observation::Busy => Err(Refusal::busy()),
    }
}

/// The history at a head that has this version.
async fn published(shared: &Shared, name: &Name, version: u64) -> Result<Receipt, Refusal> {
    let question = Question { name: name.clone(), span: Span::Whole, has_genesis: false };
    let wait = async {
        loop {
            let receipt = shared.answers.receipt(&question).await?;
            if receipt.latest() >= version {
                return Ok(receipt);
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::time::timeout(PUBLISHING, wait).await.unwrap_or_else(|_| Err(Refusal::busy()))
}
