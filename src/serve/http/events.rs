//! `GET /v1/events?name=NAME`: server-sent events for programs that want to
//! hear at once when something happens to a name.
//!
//! The first event is `state`: the newest version that the log has, 0 for none.
//! Then comes one `version` for each new one. Whoever was away says up to which
//! version it has heard, by `Last-Event-ID` (which an `EventSource` sends by
//! itself) or `from=V`, and gets those after it first. The data is JSON, signed
//! by nobody: it says that there is something to fetch from `/v1/history`, and
//! the receipt proves it.
//!
//! A stream ends after [`Options::stream_lifetime`](super::Options); a client
//! comes back by itself. A name that the log does not have counts like a lookup
//! of it (threat 21). The name is in the query, since `EventSource` knows nothing
//! else: the sample proxy logs no queries.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{ConnectInfo, Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream::{self, Stream};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::connection::Peer;
use super::reply::{self, Refusal};
use super::{Shared, names};
use crate::dime::Name;
use crate::log::Heads;
use crate::log::answer::{Answerer, Error, Question, Span};
use crate::proof::entry::{Entry, Events, Kind};
use crate::proof::receipt::Receipt;
use crate::proof::{Label, label};
use crate::serve::budget::Client;

/// Versions that one new head may add to a stream; more are not told one by one.
const BURST: usize = 64;
/// What `X-Accel-Buffering` tells nginx: pass each event on.
const UNBUFFERED: HeaderName = HeaderName::from_static("x-accel-buffering");

/// What may stand behind the `?`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    name: String,
    from: Option<u64>,
}

/// One client's stream.
struct Following {
    answers: Arc<Answerer>,
    name: Name,
    label: Label,
    /// The newest version that it was told of.
    told: u64,
    /// Made and not yet sent, the last one first.
    waiting: Vec<Event>,
    heads: watch::Receiver<Heads>,
    ends: Instant,
    ending: CancellationToken,
    _seats: (OwnedSemaphorePermit, Seat),
}

/// `GET /v1/events?name=NAME`
pub async fn events(
    State(shared): State<Arc<Shared>>,
    peer: ConnectInfo<Peer>,
    headers: HeaderMap,
    parameters: Result<Query<Parameters>, QueryRejection>,
) -> Result<Response, Refusal> {
    let Query(parameters) = parameters.map_err(|_| {
        Refusal::request("query", "name=NAME must follow the ?, and only from=NUMBER may")
    })?;
    let name: Name = parameters
        .name
        .parse()
        .map_err(|refused: crate::dime::Rejection| Refusal::request("name", refused.message))?;
    let last = headers.get("last-event-id").and_then(|value| value.to_str().ok()?.parse().ok());
    let heard: Option<u64> = last.or(parameters.from);

    let client = shared.client(&peer, &headers);
    if matches!(name, Name::Address(_)) && !shared.options.budget.allows(client) {
        return Err(Refusal::budget());
    }
    let free = Arc::clone(&shared.streams).try_acquire_owned().map_err(|_| Refusal::busy())?;
    let seat = Seat::take(&shared, client).ok_or_else(Refusal::busy)?;
    // Before the state is read, so that no head falls between.
    let heads = shared.answers.reader().log().watch_heads();
    let state = ask(&shared.answers, &name, heard.map_or(Span::Latest, after)).await?;
    let told = latest(&state);
    if told == 0 {
        names::tell_unknown(&shared, client, &name);
    }
    // Who is cut off before the versions that follow has not heard of them.
    let mut waiting = vec![self::state(&state, heard.map_or(told, |heard| heard.min(told)))];
    if let Some(heard) = heard {
        waiting.extend(versions(&state, heard));
    }
    waiting.reverse();
    let following = Following {
        answers: Arc::clone(&shared.answers),
        label: label_of(&shared, &name),
        name,
        told,
        waiting,
        heads,
        ends: Instant::now() + shared.options.stream_lifetime,
        ending: shared.ending.clone(),
        _seats: (free, seat),
    };
    let beat = KeepAlive::new().interval(shared.options.stream_heartbeat).text("still here");
    let mut response = Sse::new(following.stream()).keep_alive(beat).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(reply::PRIVATE));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(UNBUFFERED, HeaderValue::from_static("no"));
    Ok(response)
}

impl Following {
    fn stream(self) -> impl Stream<Item = Result<Event, Infallible>> {
        stream::unfold(self, |mut following| async move {
            let event = following.next().await?;
            Some((Ok(event), following))
        })
    }

    /// The next event; `None` when the stream has lived long enough.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.waiting.pop() {
                return Some(event);
            }
            tokio::select! {
                () = self.ending.cancelled() => return None,
                moved = timeout_at(self.ends, self.heads.changed()) => moved.ok()?.ok()?,
            }
            let tip = self.answers.reader().log().directory().lookup(&self.label).tip;
            if tip.is_none_or(|tip| tip.version <= self.told) {
                continue;
            }
            // A failure is logged by who made it; the client comes back and asks.
            let receipt = ask(&self.answers, &self.name, after(self.told)).await.ok()?;
            let mut fresh = versions(&receipt, self.told);
            fresh.reverse();
            self.told = latest(&receipt);
            self.waiting = fresh;
        }
    }
}

fn after(version: u64) -> Span {
    Span::From(version.saturating_add(1))
}

/// A receipt, or the latest alone if the span is too long for one.
async fn ask(answers: &Answerer, name: &Name, span: Span) -> Result<Receipt, Error> {
    let question = |span| Question { name: name.clone(), span, has_genesis: true };
    match answers.receipt(&question(span)).await {
        Err(Error::TooLong { .. }) => answers.receipt(&question(Span::Latest)).await,
        other => other,
    }
}

fn label_of(shared: &Shared, name: &Name) -> Label {
    match name {
        Name::Domain(domain) => Label::of_domain(domain),
        Name::Address(address) => {
            let (output, _) = shared.answers.reader().log().vrf().prove(&label::alpha(address));
            Label::from_vrf(&output)
        }
    }
}

fn latest(receipt: &Receipt) -> u64 {
    receipt.subject.items.last().and_then(|item| outline(&item.entry)).map_or(0, |o| o.version)
}

/// Where the name stands when the stream begins.
fn state(receipt: &Receipt, id: u64) -> Event {
    let newest = receipt.subject.items.last().and_then(|item| outline(&item.entry));
    let data = newest.map_or_else(|| absent(receipt), |newest| newest.data(receipt));
    event("state", id, &data)
}

/// One event for each version above `told`.
fn versions(receipt: &Receipt, told: u64) -> Vec<Event> {
    let fresh = receipt.subject.items.iter().filter_map(|item| outline(&item.entry));
    let fresh: Vec<Outline> = fresh.filter(|version| version.version > told).collect();
    let skipped = fresh.len().saturating_sub(BURST);
    let shown = fresh.iter().skip(skipped);
    shown.map(|version| event("version", version.version, &version.data(receipt))).collect()
}

/// JSON has no line feeds of its own, which is all that an event must not hold.
fn event(kind: &str, id: u64, data: &Value) -> Event {
    Event::default().event(kind).id(id.to_string()).data(data.to_string())
}

fn absent(receipt: &Receipt) -> Value {
    json!({"name": receipt.name.as_str(), "version": 0, "current": 0, "events": []})
}

/// What an entry says in clear.
struct Outline {
    version: u64,
    current: u64,
    time: String,
    events: Events,
    forgotten: bool,
    held_until: Option<String>,
}

fn outline(entry: &[u8]) -> Option<Outline> {
    let entry = Entry::decode(entry).ok()?;
    let (version, current, events, held, forgotten) = match entry.kind {
        Kind::Domain(seen) => (seen.version, seen.current, seen.events, seen.held_until, false),
        Kind::User(seen) => (seen.version, seen.current, seen.events, seen.held_until, false),
        Kind::Forgotten(gone) => (gone.version, 0, Events::EMPTY, None, true),
        Kind::Genesis(_) | Kind::Root(_) | Kind::Closing(_) | Kind::Carried(_) => return None,
    };
    let held_until = held.map(|until| until.to_string());
    Some(Outline { version, current, time: entry.time.to_string(), events, forgotten, held_until })
}

impl Outline {
    fn data(&self, receipt: &Receipt) -> Value {
        let mut events: Vec<&str> = self.events.iter().map(|event| event.name()).collect();
        if self.forgotten {
            events.push("FORGOTTEN");
        }
        json!({
            "name": receipt.name.as_str(),
            "version": self.version,
            "current": self.current,
            "events": events,
            "alarm": self.forgotten || !self.events.alarms().is_empty(),
            "time": self.time,
            "held_until": self.held_until,
            "history_from": self.version,
        })
    }
}

/// A client's place among its own streams; given back when dropped.
struct Seat {
    shared: Arc<Shared>,
    client: Client,
}

impl Seat {
    fn take(shared: &Arc<Shared>, client: Client) -> Option<Seat> {
        let mut taken = shared.listeners.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let own = taken.entry(client).or_insert(0);
        if *own >= shared.options.streams_per_client {
            return None;
        }
        *own += 1;
        shared.metrics.streams.inc();
        Some(Seat { shared: Arc::clone(shared), client })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let listeners = &self.shared.listeners;
        let mut taken = listeners.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match taken.get_mut(&self.client) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                taken.remove(&self.client);
            }
        }
        self.shared.metrics.streams.dec();
    }
}
