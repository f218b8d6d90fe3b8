//! Incidents: `GET /v1/incidents`, `GET /v1/incidents/{id}`, `POST
//! /v1/incidents`.
//!
//! The list is newest first, `?limit=N&from=NEXT` of at most [`LIMIT`] lines.
//! What is about a domain or a mirror has its id, and the file is there for
//! everybody. What is about mailboxes is counted by kind and day, and only when
//! the day is over (threat 21): no id finds it. Whoever names the mailbox, as in
//! a lookup and on the same account for unknown ones, gets its files.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use async_trait::async_trait;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{ConnectInfo, Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::connection::Peer;
use super::reply::{self, Refusal};
use super::{Shared, names};
use crate::dime::{Name, Rejection, Timestamp};
use crate::log::answer::Holding;
use crate::proof::Hash;

/// Lines of one page, at most and unless asked for fewer.
pub const LIMIT: usize = 100;
const JSON: &str = "application/json";

/// Where incidents are kept. An error is our failure, in words without names.
#[async_trait]
pub trait Incidents: fmt::Debug + Send + Sync {
    /// The newest first, or from a place that an earlier page ended at; at most
    /// so many lines.
    async fn page(&self, from: Option<Place>, lines: usize) -> Result<Page, String>;

    /// The file of this id, unless it is about a mailbox.
    async fn public(&self, id: &Hash) -> Result<Option<Bytes>, String>;

    /// The newest files about a name; bounded.
    async fn of_name(&self, name: &Name) -> Result<Vec<Bytes>, String>;
}

/// Part of the list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    pub lines: Vec<Listed>,
    /// Where the next one begins.
    pub next: Option<Place>,
}

/// A place in the list: a line of a day, which is counted from 1970-01-01.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub day: u64,
    pub line: usize,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listed {
    Public {
        /// Milliseconds.
        at: u64,
        kind: String,
        id: Hash,
        /// `None`: it is about a mirror.
        domain: Option<String>,
        /// A client reported it.
        by_client: bool,
    },
    /// So many mailboxes' incidents of a kind on a day.
    Mailboxes { day: u64, kind: String, count: u32 },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.day, self.line)
    }
}

impl FromStr for Place {
    type Err = Rejection;

    fn from_str(text: &str) -> Result<Place, Rejection> {
        let place = text.split_once('.').and_then(|(day, line)| {
            Some(Place { day: day.parse().ok()?, line: line.parse().ok()? })
        });
        place.ok_or_else(|| Rejection::new("from", "from= is not the next of an earlier page"))
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    from: Option<String>,
    limit: Option<usize>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    name: String,
}

/// `GET /v1/incidents`
pub async fn list(
    State(shared): State<Arc<Shared>>,
    parameters: Result<Query<Parameters>, QueryRejection>,
) -> Result<Response, Refusal> {
    let incidents = kept(&shared)?;
    let Query(parameters) = parameters.map_err(|_| {
        Refusal::request("query", "only from=NEXT and limit=NUMBER may follow the ?")
    })?;
    let from = parameters.from.map(|from| from.parse()).transpose();
    let from = from.map_err(|refused: Rejection| Refusal::request("from", refused.message))?;
    let limit = parameters.limit.unwrap_or(LIMIT).clamp(1, LIMIT);
    let page = incidents.page(from, limit).await.map_err(failed)?;
    let lines: Vec<Value> = page.lines.iter().map(Listed::json).collect();
    let mut body = json!({"incidents": lines});
    if let (Some(next), Some(body)) = (page.next, body.as_object_mut()) {
        body.insert("next".into(), next.to_string().into());
    }
    Ok(reply::bytes(body.to_string().into(), JSON, reply::REVALIDATE))
}

/// `GET /v1/incidents/{id}`
pub async fn file(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let incidents = kept(&shared)?;
    let mut hash = [0; 32];
    let lower = !id.bytes().any(|byte| byte.is_ascii_uppercase());
    if !lower || hex::decode_to_slice(&id, &mut hash).is_err() {
        return Err(Refusal::request("id", "an incident is named by 64 lower-case hex digits"));
    }
    let missing = || Refusal::missing("no-such-incident", "No public incident has this id here.");
    let bytes = incidents.public(&hash).await.map_err(failed)?.ok_or_else(missing)?;
    let mut response = reply::tagged(&headers, bytes, JSON, reply::HOUR);
    let name = format!("attachment; filename=\"incident-{}.json\"", id.get(..16).unwrap_or(&id));
    if let Ok(value) = HeaderValue::from_str(&name) {
        response.headers_mut().insert(header::CONTENT_DISPOSITION, value);
    }
    Ok(response)
}

/// `POST /v1/incidents`
pub async fn of_name(
    State(shared): State<Arc<Shared>>,
    peer: ConnectInfo<Peer>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    let incidents = kept(&shared)?;
    let body = names::whole(shared.options.body, body)?;
    let body: Body = serde_json::from_slice(&body).map_err(|_| {
        Refusal::request("body", "the body is not {\"name\":\"example.com\"} as JSON")
    })?;
    let name: Name = body
        .name
        .parse()
        .map_err(|refused: Rejection| Refusal::request("name", refused.message))?;
    let client = shared.client(&peer, &headers);
    let budget = &shared.options.budget;
    if matches!(name, Name::Address(_)) && !budget.allows(client) {
        return Err(Refusal::budget());
    }
    let files = incidents.of_name(&name).await.map_err(failed)?;
    if let Name::Address(address) = &name
        && files.is_empty()
        && shared.answers.mailbox(address, None).await? == Holding::Nothing
    {
        budget.book(client);
    }
    let mut body = Vec::from(&b"{\"incidents\":["[..]);
    for (number, file) in files.iter().enumerate() {
        if number > 0 {
            body.push(b',');
        }
        body.extend_from_slice(file);
    }
    body.extend_from_slice(b"]}");
    Ok(reply::bytes(body.into(), JSON, reply::PRIVATE))
}

fn kept(shared: &Shared) -> Result<&Arc<dyn Incidents>, Refusal> {
    shared.options.incidents.as_ref().ok_or_else(Refusal::no_route)
}

fn failed(error: String) -> Refusal {
    tracing::error!(%error, "the incidents could not be read");
    Refusal::busy()
}

impl Listed {
    fn json(&self) -> Value {
        match self {
            Listed::Public { at, kind, id, domain, by_client } => {
                let mut line = json!({
                    "day": day(*at / 86_400_000),
                    "at": at,
                    "kind": kind,
                    "id": hex::encode(id),
                });
                if let Some(line) = line.as_object_mut() {
                    if let Some(domain) = domain {
                        line.insert("domain".into(), domain.as_str().into());
                    }
                    if *by_client {
                        line.insert("reported_by".into(), "client".into());
                    }
                }
                line
            }
            Listed::Mailboxes { day: number, kind, count } => {
                json!({"day": day(*number), "kind": kind, "mailboxes": count})
            }
        }
    }
}

/// `2026-11-25`.
fn day(number: u64) -> String {
    let midnight = Timestamp::from_secs(number.saturating_mul(86_400)).to_string();
    midnight.get(..10).unwrap_or(&midnight).to_owned()
}
