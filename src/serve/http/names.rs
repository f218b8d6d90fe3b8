//! Answers about names: receipts.
//!
//! `GET` takes the name in the path, `POST` in a JSON body
//! `{"name":"alice@example.com"}`, for history also `"from":V`; the latter is
//! what our own clients use, since paths end up in the logs of proxies. Both
//! take `genesis=false` from those who remember the genesis entry.
//!
//! By `Accept` the receipt is `application/json` (the default, with a `summary`
//! for people that nobody signed) or `application/x-protobuf` (the one canonical
//! encoding).

use std::sync::Arc;

use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{ConnectInfo, Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use serde::Deserialize;

use super::super::budget::Client;
use super::connection::Peer;
use super::reply::{self, Refusal};
use super::{Options, Shared, summary};
use crate::dime::Name;
use crate::log::answer::{Question, Span};
use crate::proof::receipt::Receipt;

pub(super) const JSON: &str = "application/json";
pub(super) const PROTOBUF: &str = "application/x-protobuf";

/// What may stand behind the `?`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    from: Option<u64>,
    genesis: Option<bool>,
}

/// The body of a POST.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    name: String,
    from: Option<u64>,
    genesis: Option<bool>,
}

/// Who asks, and how the answer is wanted.
struct Asker {
    peer: ConnectInfo<Peer>,
    headers: HeaderMap,
    /// The name is in the path.
    in_path: bool,
}

/// `GET /v1/lookup/{name}`
pub async fn lookup(
    State(shared): State<Arc<Shared>>,
    peer: ConnectInfo<Peer>,
    headers: HeaderMap,
    name: Result<Path<String>, PathRejection>,
    parameters: Result<Query<Parameters>, QueryRejection>,
) -> Result<Response, Refusal> {
    let (name, parameters) = (in_path(name)?, query(parameters)?);
    if parameters.from.is_some() {
        return Err(Refusal::request("query", "from= belongs to /v1/history"));
    }
    let question = question(&name, Span::Latest, parameters.genesis)?;
    answer(shared, question, Asker { peer, headers, in_path: true }).await
}

/// `GET /v1/history/{name}?from=V`
pub async fn history(
    State(shared): State<Arc<Shared>>,
    peer: ConnectInfo<Peer>,
    headers: HeaderMap,
    name: Result<Path<String>, PathRejection>,
    parameters: Result<Query<Parameters>, QueryRejection>,
) -> Result<Response, Refusal> {
    let (name, parameters) = (in_path(name)?, query(parameters)?);
    let span = Span::From(parameters.from.unwrap_or(0));
    let question = question(&name, span, parameters.genesis)?;
    answer(shared, question, Asker { peer, headers, in_path: true }).await
}

/// `POST /v1/lookup`
pub async fn post_lookup(
    State(shared): State<Arc<Shared>>,
    peer: ConnectInfo<Peer>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    let body = read_body(&shared, body)?;
    if body.from.is_some() {
        return Err(Refusal::request("body", "\"from\" belongs to /v1/history"));
    }
    let question = question(&body.name, Span::Latest, body.genesis)?;
    answer(shared, question, Asker { peer, headers, in_path: false }).await
}

/// `POST /v1/history`
pub async fn post_history(
    State(shared): State<Arc<Shared>>,
    peer: ConnectInfo<Peer>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    let body = read_body(&shared, body)?;
    let span = Span::From(body.from.unwrap_or(0));
    let question = question(&body.name, span, body.genesis)?;
    answer(shared, question, Asker { peer, headers, in_path: false }).await
}

fn in_path(name: Result<Path<String>, PathRejection>) -> Result<String, Refusal> {
    name.map(|Path(name)| name)
        .map_err(|_| Refusal::request("name", "the name in the path is not UTF-8"))
}

fn query(parameters: Result<Query<Parameters>, QueryRejection>) -> Result<Parameters, Refusal> {
    parameters.map(|Query(parameters)| parameters).map_err(|_| {
        Refusal::request("query", "only from=NUMBER and genesis=false|true may follow the ?")
    })
}

/// A body that arrived, within the limit of its path, bytes.
pub(super) fn whole(limit: usize, body: Result<Bytes, BytesRejection>) -> Result<Bytes, Refusal> {
    body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Refusal::too_large(limit),
        _ => Refusal::request("body", "the body did not arrive whole"),
    })
}

fn read_body(shared: &Shared, body: Result<Bytes, BytesRejection>) -> Result<Body, Refusal> {
    let body = whole(shared.options.body, body)?;
    serde_json::from_slice(&body)
        .map_err(|_| Refusal::request("body", "the body is not {\"name\":\"example.com\"} as JSON"))
}

fn question(name: &str, span: Span, genesis: Option<bool>) -> Result<Question, Refusal> {
    let name: Name = name
        .parse()
        .map_err(|refused: crate::dime::Rejection| Refusal::request("name", refused.message))?;
    Ok(Question { name, span, has_genesis: genesis == Some(false) })
}

/// Finds, proves, counts. Absent mailboxes go on the asker's account (threat 21).
async fn answer(
    shared: Arc<Shared>,
    question: Question,
    asker: Asker,
) -> Result<Response, Refusal> {
    let outcomes = &shared.metrics.lookups;
    let client = shared.client(&asker.peer, &asker.headers);
    let is_mailbox = matches!(question.name, Name::Address(_));
    if is_mailbox && !shared.options.budget.allows(client) {
        outcomes.with_label_values(&["refused"]).inc();
        return Err(Refusal::budget());
    }
    let receipt = shared.answers.receipt(&question).await?;
    let absent = receipt.subject.items.is_empty();
    match &shared.options.unknown {
        _ if absent => tell_unknown(&shared, client, &question.name),
        Some(unknown) => unknown.found(&question.name),
        None => {}
    }
    outcomes.with_label_values(&[if absent { "absent" } else { "found" }]).inc();
    let cache = match asker.in_path && !is_mailbox {
        true => reply::REVALIDATE,
        false => reply::PRIVATE,
    };
    let mut response = if wants_protobuf(&asker.headers) {
        reply::bytes(receipt.encode().into(), PROTOBUF, cache)
    } else {
        reply::bytes(json(&shared, receipt, question.span).await?, JSON, cache)
    };
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept"));
    Ok(response)
}

/// An absent mailbox goes on the client's account, and so does a domain if that
/// makes work. The lookup is answered in any case.
pub(super) fn tell_unknown(shared: &Shared, client: Client, name: &Name) {
    let Options { budget, unknown, .. } = &shared.options;
    let is_domain = matches!(name, Name::Domain(_));
    if is_domain && (unknown.is_none() || !budget.allows(client)) {
        return;
    }
    budget.book(client);
    if let Some(unknown) = unknown {
        unknown.asked(name);
    }
}

/// The receipt as JSON with its summary. Checking it takes up to a millisecond
/// a version, so it is done beside the other requests.
async fn json(shared: &Shared, receipt: Receipt, span: Span) -> Result<Bytes, Refusal> {
    let now = shared.clock.now();
    let genesis = match receipt.genesis {
        Some(_) => None,
        None => shared.answers.reader().entry(0).await?,
    };
    let made = tokio::task::spawn_blocking(move || {
        let summary = summary::of(&receipt, span, genesis.as_deref(), now);
        let mut json = receipt.to_json();
        if let Some(object) = json.as_object_mut() {
            object.insert("summary".into(), summary);
        }
        Bytes::from(json.to_string())
    });
    made.await.map_err(|error| Refusal::failure(&error))
}

/// Whether the binary form is named, and not after JSON.
fn wants_protobuf(headers: &HeaderMap) -> bool {
    let kinds = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    for kind in kinds {
        let mut parts = kind.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default().to_ascii_lowercase();
        let refused = parts.any(|part| part == "q=0" || part == "q=0.0");
        match name.as_str() {
            _ if refused => {}
            "application/x-protobuf" | "application/protobuf" => return true,
            "application/json" => return false,
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn the_first_form_that_is_named_counts() {
        let wants = |accept: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
            wants_protobuf(&headers)
        };
        assert!(wants("application/x-protobuf"));
        assert!(wants("text/html, Application/X-Protobuf;q=0.9, */*"));
        assert!(!wants("application/json, application/x-protobuf"));
        assert!(!wants("application/x-protobuf;q=0"));
        assert!(!wants("*/*"));
        assert!(!wants_protobuf(&HeaderMap::new()));
    }
}
