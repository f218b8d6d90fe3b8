//! A mirror wired by hand over any store, resolver and clock: log, quotas,
//! crawler, incidents, HTTP and DMTP faces, joined as `daemon` joins them.
#![allow(dead_code)] // each test binary uses another part

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use syndicate::clock::Clock;
use syndicate::crawl::quota::{Limits, Quotas};
use syndicate::crawl::{self, Crawler, Handle, Incidents, Placed, Report, Rooms, Sink, Unplaced};
use syndicate::dime::{Address, Name};
use syndicate::log::answer::Answerer;
use syndicate::log::{self, Keys, Log, Refused};
use syndicate::proof::draft::Draft;
use syndicate::proof::note::{SigningKey, VerifierKey};
use syndicate::proof::vrf::SecretKey;
use syndicate::resolver::Resolver;
use syndicate::serve::identity::Identity;
use syndicate::serve::metrics::Metrics;
use syndicate::serve::{dmtp, http, syn};
use syndicate::store::{State, Store};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub const ORIGIN: &str = "log.example/wired";

/// What a mirror is made of.
pub struct Parts {
    pub store: Store,
    pub state: Arc<dyn State>,
    /// Beside the store, and as durable.
    pub guard: PathBuf,
    pub clock: Clock,
    pub resolver: Arc<dyn Resolver>,
    pub incidents: Arc<dyn Incidents>,
    pub crawl: crawl::Options,
    pub limits: Limits,
}

/// A mirror that runs. Dropped, it ends as if it were killed.
pub struct Wired {
    pub log: Log,
    pub crawl: Handle,
    /// `http://…`, no slash at the end.
    pub http: String,
    pub http_addr: SocketAddr,
    pub dmtp: SocketAddr,
    first: CancellationToken,
    then: CancellationToken,
    tasks: JoinSet<Result<(), String>>,
}

pub fn keys() -> Keys {
    Keys {
        log: SigningKey::ed25519(ORIGIN, &[1; 32]).unwrap(),
        vrf: Arc::new(SecretKey::from_seed(&[2; 32])),
    }
}

pub fn verifier() -> VerifierKey {
    keys().log.verifier()
}

impl Wired {
    pub async fn start(parts: Parts) -> Result<Wired, log::Error> {
        let Parts { store, state, guard, clock, resolver, incidents, crawl, limits } = parts;
        let mut options = log::Options::new(guard);
        options.origin = Some(ORIGIN.into());
        options.interval = Duration::from_millis(50);
        let opened = log::open(options, store, state.clone(), keys(), clock.clone()).await?;
        let log = opened.log;
        let faces = Metrics::new().unwrap();
        let sink = Arc::new(IntoLog(log.clone()));
        let quotas = Quotas::new(limits, sink, state.clone(), incidents.clone(), clock.clone());
        let rooms = Rooms {
            // Another path, where the same is seen.
            second_resolver: Some(Arc::clone(&resolver)),
            resolver,
            state,
            public: log.store().public.clone(),
            clock: clock.clone(),
            sink: Arc::new(quotas),
            incidents,
        };
        let metrics = crawl::Metrics::new(faces.registry()).unwrap();
        let (crawler, handle) = Crawler::new(rooms, crawl, metrics, "this mirror");
        let answers = Arc::new(Answerer::new(log.reader()));
        let (web, mail) = (listener().await, listener().await);
        let (http_addr, dmtp) = (web.local_addr().unwrap(), mail.local_addr().unwrap());
        let http = format!("http://{http_addr}");
        let signets = Arc::new(syn::Mirror::new(answers.clone(), &http));
        let mut options = http::Options::new(&clock);
        options.idle = Duration::from_secs(5);
        let served = http::Server::new(answers, faces, clock, options);
        let tls = identity().server_config().unwrap();
        let face = dmtp::Server::new(signets, tls, dmtp::Options::new("mirror.example"));

        let (first, then) = (CancellationToken::new(), CancellationToken::new());
        let mut tasks = JoinSet::new();
        let (token, sequencer) = (then.clone(), opened.sequencer);
        tasks.spawn(async move { sequencer.run(token).await.map_err(|why| why.to_string()) });
        let token = first.clone();
        tasks.spawn(async move { crawler.run(token).await.map_err(|why| why.to_string()) });
        let token = first.clone();
        tasks.spawn(async move { served.run(web, token).await.map_err(|why| why.to_string()) });
        let token = first.clone();
        tasks.spawn(async move { face.run(mail, token).await.map_err(|why| why.to_string()) });
        Ok(Wired { log, crawl: handle, http, http_addr, dmtp, first, then, tasks })
    }

    /// Visits all at once; what came of each.
    pub async fn visit(&self, names: impl IntoIterator<Item = Name>) -> Vec<Arc<Report>> {
        let mut visits = JoinSet::new();
        for name in names {
            let handle = self.crawl.clone();
            visits.spawn(async move { handle.visit(name, "test").await.unwrap() });
        }
        visits.join_all().await
    }

    /// Whether a room has ended by itself: then all are to end.
    pub fn has_ended(&mut self) -> bool {
        self.tasks.try_join_next().is_some()
    }

    /// Stops in order, as an operator does.
    pub async fn stop(mut self) {
        self.first.cancel();
        while self.tasks.len() > 1 && self.tasks.join_next().await.is_some() {}
        self.then.cancel();
        while self.tasks.join_next().await.is_some() {}
    }

    /// Everything stops where it is.
    pub async fn crash(mut self) {
        self.tasks.shutdown().await;
    }
}

async fn listener() -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap()
}

/// The certificate of the vectors: making an RSA key takes seconds.
fn identity() -> Identity {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/vectors/records");
    Identity::from_files(&folder.join("dx_cert.pem"), &folder.join("dx_key.pem")).unwrap()
}

/// The crawl's drafts go into a real log.
struct IntoLog(Log);

#[async_trait]
impl Sink for IntoLog {
    async fn submit(&self, draft: Draft, after: u64) -> Result<Placed, Unplaced> {
        match self.0.submit_after(draft, after).await {
            Ok(placed) => Ok(Placed::Version(placed.version)),
            Err(Refused::MovedOn { .. }) => Err(Unplaced::MovedOn),
            Err(Refused::Unplaceable(why)) => Err(Unplaced::Misfit(why.to_string())),
            Err(later) => Err(Unplaced::Later(later.to_string())),
        }
    }

    async fn is_forgotten(&self, address: &Address) -> Result<bool, Unplaced> {
        self.0.is_forgotten(address).await.map_err(|error| Unplaced::Later(error.to_string()))
    }
}
