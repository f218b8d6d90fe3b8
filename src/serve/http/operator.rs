//! For whoever runs the mirror: is it alive, does it answer, what does it count.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::Shared;
use super::reply::{self, Refusal};

/// `GET /healthz`: the process answers.
pub async fn healthz() -> Response {
    reply::bytes("ok\n".into(), "text/plain; charset=utf-8", reply::PRIVATE)
}

/// `GET /readyz`: 200 as soon as lookups can be answered. A mirror that does
/// not sequence still answers, and says here why it does not.
pub async fn readyz(State(shared): State<Arc<Shared>>) -> Response {
    let log = shared.answers.reader().log();
    let head = log.heads().published;
    let blocked = log.blocked();
    let peers = shared.options.witness.iter().flat_map(|witness| witness.peers());
    let peers: Vec<_> = peers
        .map(|peer| {
            let standing = peer.standing();
            let reserve =
                shared.options.comparing.as_ref().and_then(|all| all.reserve(peer.origin()));
            serde_json::json!({
                "origin": peer.origin(),
                "size": standing.size,
                "status": standing.status.to_string(),
                // Why nothing of it is cosigned here, though nothing is wrong with it.
                "doubt": standing.doubt,
                // Why names are not compared with it in full; null: they are, or never.
                "comparing": reserve.map(|reserve| reserve.to_string()),
            })
        })
        .collect();
    let body = serde_json::json!({
        "ready": head.is_some(),
        "sequencing": blocked.is_none(),
        "blocked": blocked.map(|blocked| blocked.to_string()),
        "origin": log.record().origin,
        "size": head.as_ref().map(|head| head.size),
        "peers": peers,
        "root_time": head.as_ref().map(|head| head.time.to_string()),
    });
    let mut response = reply::bytes(body.to_string().into(), "application/json", reply::PRIVATE);
    if head.is_none() {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}

/// `GET /metrics`: Prometheus' text format.
pub async fn metrics(State(shared): State<Arc<Shared>>) -> Result<Response, Refusal> {
    let text = shared.metrics.print(shared.answers.reader().log());
    let text = text.map_err(|error| Refusal::failure(&error))?;
    Ok(reply::bytes(text.into(), prometheus::TEXT_FORMAT, reply::PRIVATE))
}
