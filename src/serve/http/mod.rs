//! The HTTP face: C2SP paths at the root, answers about names under `/v1`.
//!
//! | Route | Answer |
//! | --- | --- |
//! | `GET /checkpoint` | the published checkpoint, a signed note |
//! | `GET /tile/…` | tiles and entry bundles, exactly as C2SP tlog-tiles names them |
//! | `GET /v1/lookup/{name}`, `POST /v1/lookup` | a receipt: what is the latest, or that there is nothing |
//! | `GET /v1/history/{name}?from=V`, `POST /v1/history` | the same with every version from V on |
//! | `POST /v1/watch` | an owner's signed request; see [`Owners`] |
//! | `POST /v1/report` | what a client saw that should not be; see `report` |
//! | `POST /v1/observe` | a peer's signed request; see [`Observe`] |
//! | `GET /v1/events?name=NAME` | server-sent events: each new version of a name; see `events` |
//! | `POST /add-checkpoint` | a cosignature of a peer's checkpoint (C2SP tlog-witness) |
//! | `GET /{sha256 of origin}/checkpoint` | what was cosigned last of that log |
//! | `GET /{sha256 of origin}/followed`, `…/tile/…`, `…/v1/blob/{sha256}` | all that was followed of that log |
//! | `GET /{sha256 of origin}/cosigned-by/{sha256 of key name}` | the last checkpoint of that log seen with that mirror's cosignature |
//! | `GET /v1/incidents[/{id}]`, `POST /v1/incidents` | what is wrong, with its evidence; see `incidents` |
//! | `GET /v1/entry/{index}` | a C2SP tlog-proof, the entry in its extra part |
//! | `GET /v1/blob/{sha256}` | bytes that an entry names |
//! | `GET /healthz`, `/readyz`, `/metrics` | for the operator |
//!
//! Bodies and answers: `names`. Every failure is `{"error":{"code","message"}}`,
//! and the message says whose fault it is. Left out: TLS (a reverse proxy's),
//! and pages for people.

mod connection;
mod events;
mod incidents;
mod names;
mod observe;
mod operator;
mod reply;
mod report;
mod signed;
mod summary;
mod tiles;
mod watch;
mod witness;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{ConnectInfo, DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, Method, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{Any, CorsLayer};

use super::budget::{Budget, Client, UNKNOWN_PER_HOUR};
use super::metrics::Metrics;
use crate::clock::Clock;
use crate::log::answer::Answerer;
use crate::peers::{Witness, crosscheck};
use crate::proof::checkpoint::MAX_ADD_CHECKPOINT;
use connection::{Limited, Limits, Peer};
use reply::Refusal;

pub use super::budget::Unknown;
pub use incidents::{Incidents, Listed, Page, Place};
pub use observe::{Observation, Observe};
pub use report::{MAX_REPORT, REPORTS_PER_HOUR, Reports};
pub use watch::Owners;

/// What an `EventSource` sends when it comes back.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// How long requests may go on after the server was told to stop.
const GRACE: Duration = Duration::from_secs(5);

/// Bounds of the face.
#[derive(Clone, Debug)]
pub struct Options {
    /// Longest request body, bytes.
    pub body: usize,
    /// For one request, from its head to the head of the answer.
    pub request: Duration,
    /// Requests at once; more are told to come back.
    pub requests: usize,
    /// Connections at once; more wait to be accepted.
    pub connections: usize,
    /// Connections at once of one client: an IPv4 address, an IPv6 /64.
    pub connections_per_client: usize,
    /// A connection on which nothing moves for so long is closed.
    pub idle: Duration,
    /// Longest life of a connection.
    pub lifetime: Duration,
    /// Streams of events at once; more are told to come back.
    pub streams: usize,
    /// Streams at once of one client.
    pub streams_per_client: usize,
    /// A stream of events ends after so long, below `lifetime`.
    pub stream_lifetime: Duration,
    /// A comment keeps a quiet stream open every so often, below `idle`.
    pub stream_heartbeat: Duration,
    /// Unknown mailboxes that a client may ask for (threat 21). Share it with
    /// the DMTP face.
    pub budget: Arc<Budget>,
    /// Whom to tell of names that the log does not have; `None`: nobody.
    pub unknown: Option<Arc<dyn Unknown>>,
    /// Who does what owners ask for; `None`: there is no `/v1/watch`.
    pub owners: Option<Arc<dyn Owners>>,
    /// Who does what peers ask for; `None`: there is no `/v1/observe`.
    pub observe: Option<Arc<dyn Observe>>,
    /// Who cosigns other logs; `None`: there is no `/add-checkpoint`.
    pub witness: Option<Arc<Witness>>,
    /// Who knows what peers keep back when names are compared, for `/readyz`.
    pub comparing: Option<crosscheck::Handle>,
    /// Where incidents are kept; `None`: there is no `/v1/incidents`.
    pub incidents: Option<Arc<dyn Incidents>>,
    /// Who does what clients' reports call for; `None`: there is no `/v1/report`.
    pub reports: Option<Arc<dyn Reports>>,
    /// Reports of one client in an hour.
    pub report_budget: Arc<Budget>,
    /// Reverse proxies: the last address of their `X-Forwarded-For` is the client.
    pub proxies: Vec<IpAddr>,
}

impl Options {
    pub fn new(clock: &Clock) -> Options {
        Options {
            body: 4096,
            request: Duration::from_secs(10),
            requests: 512,
            connections: 1024,
            connections_per_client: 64,
            idle: Duration::from_secs(60),
            lifetime: Duration::from_secs(600),
            streams: 256,
            streams_per_client: 8,
            stream_lifetime: Duration::from_secs(540),
            stream_heartbeat: Duration::from_secs(15),
            budget: Arc::new(Budget::new(UNKNOWN_PER_HOUR, clock.clone())),
            unknown: None,
            owners: None,
            observe: None,
            witness: None,
            comparing: None,
            incidents: None,
            reports: None,
            report_budget: Arc::new(Budget::new(REPORTS_PER_HOUR, clock.clone())),
            proxies: Vec::new(),
        }
    }
}

/// What ends the face. Nothing a client does.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the HTTP listener")]
    Listener(#[source] std::io::Error),
}

/// The HTTP face, not yet listening.
pub struct Server {
    shared: Arc<Shared>,
}

/// What every handler uses.
struct Shared {
    answers: Arc<Answerer>,
    metrics: Metrics,
    clock: Clock,
    options: Options,
    busy: Semaphore,
    /// Streams of events that may still begin.
    streams: Arc<Semaphore>,
    /// Streams of each client that has some.
    listeners: Mutex<HashMap<Client, usize>>,
    /// Cancelled when the server stops: streams end, so that it can.
    ending: CancellationToken,
}

impl Server {
    pub fn new(answers: Arc<Answerer>, metrics: Metrics, clock: Clock, options: Options) -> Server {
        let busy = Semaphore::new(options.requests);
        let streams = Arc::new(Semaphore::new(options.streams));
        let (listeners, ending) = (Mutex::default(), CancellationToken::new());
        let shared = Shared { answers, metrics, clock, options, busy, streams, listeners, ending };
        Server { shared: Arc::new(shared) }
    }

    /// Serves until told to stop; then open requests get five seconds.
    pub async fn run(
        self,
        listener: TcpListener,
        shutdown: CancellationToken,
    ) -> Result<(), Error> {
        let options = &self.shared.options;
        let limits = Limits {
            connections: options.connections,
            per_client: options.connections_per_client,
            idle: options.idle,
            lifetime: options.lifetime,
        };
        let gauge = self.shared.metrics.connections.clone();
        let listener = Limited::new(listener, limits, gauge).map_err(Error::Listener)?;
        let ending = self.shared.ending.clone();
        let service = router(self.shared).into_make_service_with_connect_info::<Peer>();
        let stop = shutdown.clone();
        let serving = axum::serve(listener, service).with_graceful_shutdown(async move {
            stop.cancelled().await;
            ending.cancel();
        });
        let late = async {
            shutdown.cancelled().await;
            tokio::time::sleep(GRACE).await;
        };
        tokio::select! {
            ended = serving => ended.map_err(Error::Listener),
            () = late => Ok(()),
        }
    }
}

fn router(shared: Arc<Shared>) -> Router {
    let cors = CorsLayer::new()
        .allow_origin(Any)
        .allow_methods([Method::GET, Method::HEAD, Method::POST])
        .allow_headers([header::CONTENT_TYPE, header::ACCEPT, header::IF_NONE_MATCH, LAST_EVENT_ID])
        .expose_headers([header::ETAG, header::RETRY_AFTER]);
    Router::new()
        .route("/checkpoint", get(tiles::checkpoint))
        .route("/tile/{*path}", get(tiles::tile))
        .route(
            "/add-checkpoint",
            post(witness::add_checkpoint).layer(DefaultBodyLimit::max(MAX_ADD_CHECKPOINT)),
        )
        .route("/{origin}/checkpoint", get(witness::cosigned))
        .route("/{origin}/followed", get(witness::followed))
        .route("/{origin}/cosigned-by/{key}", get(witness::cosigned_by))
        .route("/{origin}/tile/{*path}", get(witness::tile))
        .route("/{origin}/v1/blob/{sha256}", get(witness::blob))
        .route("/v1/entry/{index}", get(tiles::entry))
        .route("/v1/blob/{sha256}", get(tiles::blob))
        .route("/v1/lookup/{name}", get(names::lookup))
        .route("/v1/lookup", post(names::post_lookup))
        .route("/v1/history/{name}", get(names::history))
        .route("/v1/history", post(names::post_history))
        .route("/v1/watch", post(watch::watch))
        .route("/v1/observe", post(observe::observe))
        .route("/v1/report", post(report::report).layer(DefaultBodyLimit::max(MAX_REPORT)))
        .route("/v1/events", get(events::events))
        .route("/v1/incidents", get(incidents::list).post(incidents::of_name))
        .route("/v1/incidents/{id}", get(incidents::file))
        .route("/healthz", get(operator::healthz))
        .route("/readyz", get(operator::readyz))
        .route("/metrics", get(operator::metrics))
        .fallback(async || Refusal::no_route())
        .method_not_allowed_fallback(async || Refusal::no_method())
        .layer(DefaultBodyLimit::max(shared.options.body))
        .layer(CatchPanicLayer::custom(|_| Refusal::panic().into_response()))
        .layer(middleware::from_fn_with_state(shared.clone(), bound))
        .layer(cors)
        .with_state(shared)
}

/// Bounds one request in number and time, and counts it by its pattern.
async fn bound(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let path = request.extensions().get::<MatchedPath>().cloned();
    let route = path.as_ref().map_or("other", MatchedPath::as_str);
    let limit = shared.options.request;
    let response = match shared.busy.try_acquire() {
        Err(_) => Refusal::busy().into_response(),
        Ok(_permit) => match tokio::time::timeout(limit, next.run(request)).await {
            Ok(response) => response,
            Err(_) => Refusal::slow().into_response(),
        },
    };
    let status = response.status();
    shared.metrics.requests.with_label_values(&[route, status.as_str()]).inc();
    shared.metrics.seconds.with_label_values(&[route]).observe(began.elapsed().as_secs_f64());
    response
}

impl Shared {
    /// Who asks: the peer, or whom a known proxy names.
    fn client(&self, peer: &ConnectInfo<Peer>, headers: &HeaderMap) -> Client {
        let peer = peer.0.0.ip().to_canonical();
        if !self.options.proxies.iter().any(|proxy| proxy.to_canonical() == peer) {
            return Client::of(peer);
        }
        let forwarded = headers.get_all("x-forwarded-for").iter().next_back();
        let last = forwarded.and_then(|value| value.to_str().ok()?.rsplit(',').next());
        Client::of(last.and_then(|last| last.trim().parse().ok()).unwrap_or(peer))
    }
}
