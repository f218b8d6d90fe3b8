//! What clients report: `POST /v1/report`, an incident as JSON (threat 23).
//!
//! Taken are incidents of observer `client` about a forged key, a log's two
//! histories or two logs that contradict each other, not older than ten minutes,
//! that hold by themselves. The name is
//! visited at once, whatever the file proves. It is kept and listed, as reported
//! by a client, if there is room today and it convicts somebody by signatures
//! alone: a signet at ID level, a DNSSEC chain, and a fresh receipt of this mirror's
//! own log beside them; or two histories under the key of this log, or of one that
//! this mirror follows. Anything less would let anybody write what he likes into
//! the list: a log's key, and its name, are quickly made. Of what is not listed
//! nothing is kept.
//!
//! 202 `{"listed":true|false}`; 422 for a file that does not hold; 429 over the
//! client's quota, which every report counts on.

use std::sync::Arc;

use async_trait::async_trait;
use axum::extract::rejection::BytesRejection;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use bytes::Bytes;

use super::Shared;
use super::connection::Peer;
use super::reply::{self, Refusal};
use crate::dime::signet::{Level, Signet};
use crate::dime::{Name, Timestamp};
use crate::proof::checkpoint::SignedCheckpoint;
use crate::proof::dnssec::Anchor;
use crate::proof::incident::{CLIENT, Evidence, Incident, Kind, Victim, verify};
use crate::proof::note::VerifierKey;
use crate::proof::receipt::Receipt;

/// Longest report, bytes.
pub const MAX_REPORT: usize = 1 << 20;
/// Reports of one client in an hour.
pub const REPORTS_PER_HOUR: u32 = 12;
/// Oldest report, milliseconds: a client reports what it sees.
const MAX_AGE: u64 = 600_000;
/// How far ahead a client's clock may be, milliseconds.
const MAX_FUTURE: u64 = 300_000;

/// Does what reports call for.
#[async_trait]
pub trait Reports: std::fmt::Debug + Send + Sync {
    /// Keys of the DNS root that chains must lead to.
    fn anchors(&self) -> &[Anchor];

    /// Keys of the other logs that are followed here.
    fn peers(&self) -> &[VerifierKey];

    /// Keeps a report that convicts; says whether there was room today. An error
    /// is our failure, in words without names.
    async fn keep(&self, incident: &Incident) -> Result<bool, String>;

    /// Has the name visited next. Returns at once; says whether there was
    /// room.
    fn look(&self, name: &Name) -> bool;
}

/// `POST /v1/report`
pub async fn report(
    State(shared): State<Arc<Shared>>,
    peer: ConnectInfo<Peer>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    let Some(reports) = shared.options.reports.clone() else { return Err(Refusal::no_route()) };
    let client = shared.client(&peer, &headers);
    let budget = &shared.options.report_budget;
    if !budget.allows(client) {
        return Err(Refusal::reports());
    }
    budget.book(client);
    let body = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Refusal::too_large(MAX_REPORT),
        _ => Refusal::request("body", "the body did not arrive whole"),
    })?;
    let record = shared.answers.reader().log().record();
    let own = VerifierKey::ed25519(&record.origin, &record.log_key);
    let own = own.map_err(|refused| Refusal::failure(&refused))?;
    let now = shared.clock.now();
    // A megabyte of JSON and signatures: beside the other requests.
    let judging = Arc::clone(&reports);
    let judged = tokio::task::spawn_blocking(move || judge(&body, &own, &*judging, now));
    let (incident, listed) = judged.await.map_err(|error| Refusal::failure(&error))??;
    if let Some(name) = &incident.name
        && !reports.look(name)
    {
        return Err(Refusal::busy());
    }
    let listed = match listed {
        false => false,
        true => reports.keep(&incident).await.map_err(|error| {
            tracing::error!(%error, "a client's report could not be kept");
            Refusal::busy()
        })?,
    };
    let body = serde_json::json!({"listed": listed}).to_string();
    let mut response = reply::bytes(body.into(), "application/json", reply::PRIVATE);
    *response.status_mut() = StatusCode::ACCEPTED;
    Ok(response)
}

/// The incident, and whether it is to be listed.
fn judge(
    body: &[u8],
    own: &VerifierKey,
    reports: &dyn Reports,
    now: Timestamp,
) -> Result<(Incident, bool), Refusal> {
    let incident =
        Incident::read(body).map_err(|refused| Refusal::request(refused.rule, refused.message))?;
    let is_clients = matches!(incident.kind, Kind::ForgedKey | Kind::LogFork | Kind::SplitView);
    if incident.observer != CLIENT || !is_clients {
        let what =
            "only what a client saw is taken, by \"client\": forged-key, log-fork, split-view";
        return Err(Refusal::request("report-kind", what));
    }
    if now.since(incident.at) > MAX_AGE || incident.at.since(now) > MAX_FUTURE {
        return Err(Refusal::request("report-time", "it is not of the last ten minutes"));
    }
    let findings = verify(&incident, reports.anchors(), None)
        .map_err(|fault| Refusal::unfounded(fault.rule(), &fault))?;
    let grounds = match &incident.evidence {
        Evidence::Victim(victim) => has_grounds(victim, &incident, own),
        Evidence::Receipts(seen) => seen.receipts.iter().any(|receipt| is_of(receipt, own)),
        Evidence::Fork(fork) => fork.key == *own || reports.peers().contains(&fork.key),
        // Not of the kinds that are taken.
        Evidence::Entries(_) | Evidence::Received(_) => false,
    };
    Ok((incident, grounds && findings.convicts.is_some()))
}

/// Whether signatures bind the key to the name, and what it is held against is
/// this log's, which the reporter cannot have made.
fn has_grounds(victim: &Victim, incident: &Incident, own: &VerifierKey) -> bool {
    let shown = &victim.shown;
    let signet = match &incident.name {
        Some(Name::Address(_)) => &shown.signet,
        _ => &shown.org_signet,
    };
    let by_name = Signet::decode(signet).is_ok_and(|signet| signet.level() == Level::Id);
    by_name && !shown.chain.is_empty() && victim.receipts.iter().any(|receipt| is_of(receipt, own))
}

fn is_of(receipt: &Receipt, own: &VerifierKey) -> bool {
    let signed = SignedCheckpoint::parse(&receipt.checkpoint);
    signed.is_ok_and(|signed| {
        signed.checkpoint().origin == own.name()
            && signed.verify([own]).is_ok_and(|by| !by.is_empty())
    })
}
