//! What owners ask for: `POST /v1/watch`, signed (threat 24), in the form of
//! [`signed`](super::signed).
//!
//! `body` lists for a domain the addresses to watch, one a line; for a mailbox it
//! is empty. 202 says that the names are visited soon; those that are there then
//! are watched, and where that could not be said the next visits tell.
//!
//! Who speaks for a name is what the log has in force: for a domain that is not
//! in it yet nobody does (a lookup makes it known), nor while a name is held,
//! since it is open then whose the new key is. A refusal says nothing about
//! whether a mailbox exists. Each request counts as a question for an unknown
//! mailbox, accepted or not.

use std::sync::Arc;

use async_trait::async_trait;
use axum::extract::rejection::BytesRejection;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use bytes::Bytes;

use super::connection::Peer;
use super::reply::{self, Refusal};
use super::signed::Signed;
use super::{Shared, names};
use crate::dime::org;
use crate::dime::{Address, Name, Rejection, Timestamp};
use crate::log::answer::{Error, Holding};
use crate::proof::Hash;
use crate::proof::request::{Method, Signers};

/// Addresses of one request.
const ADDRESSES: usize = 64;

/// Does what owners ask for.
#[async_trait]
pub trait Owners: std::fmt::Debug + Send + Sync {
    /// Remembers a request and the names that it asks for, durably; says whether it
    /// is new. `time` is the request's own. An error is our failure, in words without
    /// names.
    async fn remember(&self, id: &Hash, time: Timestamp, names: &[Name]) -> Result<bool, String>;

    /// Has the names visited at once. Returns when that is written down; says
    /// whether there was room for it.
    async fn watch(&self, names: Vec<Name>) -> bool;
}

/// `POST /v1/watch`
pub async fn watch(
    State(shared): State<Arc<Shared>>,
    peer: ConnectInfo<Peer>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    let Some(owners) = &shared.options.owners else { return Err(Refusal::no_route()) };
    let signed = Signed::read(&names::whole(shared.options.body, body)?, Method::Watch)?;
    let refuse = |refused: Rejection| Refusal::request(refused.rule, refused.message);
    let asked = addresses(&signed.request.name, &signed.body).map_err(refuse)?;

    let client = shared.client(&peer, &headers);
    if !shared.options.budget.allows(client) {
        return Err(Refusal::budget());
    }
    let signers = signers(&shared, &signed.request.name).await?;
    let origin = &shared.answers.reader().log().record().origin;
    let verified = signed.verify(origin, &signers, shared.clock.now());
    // Accepted ones too: each is a small object for an hour or two.
    shared.options.budget.book(client);
    if let Err(refused) = verified {
        return Err(Refusal::unsigned(&refused));
    }
    match owners.remember(&signed.request.id(&signed.key), signed.time(), &asked).await {
        Ok(true) => {}
        Ok(false) => return Err(Refusal::replay()),
        Err(error) => {
            tracing::error!(%error, "an owner's request could not be remembered");
            return Err(Refusal::busy());
        }
    }
    // Killed here: the request is used up, and its owner has no answer; the next start
    // has the names visited all the same.
    if !owners.watch(asked).await {
        return Err(Refusal::busy());
    }
    let mut response = reply::bytes("{}".into(), "application/json", reply::PRIVATE);
    *response.status_mut() = StatusCode::ACCEPTED;
    Ok(response)
}

/// The name and the addresses of the body, all of one domain.
fn addresses(name: &Name, body: &str) -> Result<Vec<Name>, Rejection> {
    let mut asked = vec![name.clone()];
    for line in body.lines() {
        let address: Address = line.parse()?;
        if !matches!(name, Name::Domain(domain) if domain == address.domain()) {
            return Err(Rejection::new("body", "only a domain may list addresses, its own"));
        }
        asked.push(Name::Address(address));
    }
    if asked.len() > ADDRESSES + 1 {
        return Err(Rejection::new("body", format!("it lists more than {ADDRESSES} addresses")));
    }
    Ok(asked)
}

/// Who speaks for the name; nobody if nothing is in force, or it is held.
async fn signers(shared: &Shared, name: &Name) -> Result<Signers, Refusal> {
    let holding = match name {
        Name::Domain(domain) => shared.answers.domain(domain, None).await,
        Name::Address(address) => shared.answers.mailbox(address, None).await,
    };
    let signet = match holding.map_err(|error: Error| Refusal::failure(&error))? {
        Holding::Found(signet) => signet,
        Holding::Held | Holding::Nothing | Holding::Withdrawn => return Ok(Signers::default()),
    };
    let failed = |refused: Rejection| Refusal::failure(&refused);
    Ok(match name {
        Name::Address(_) => Signers::of_mailbox(&signet),
        Name::Domain(domain) => {
            // It verified under the record's POK when it was logged.
            let pok = signet.signing_key();
            Signers::of_domain(&org::validate(&signet, &[pok], Some(domain)).map_err(failed)?)
        }
    })
}
