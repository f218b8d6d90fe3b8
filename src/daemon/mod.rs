//! A running mirror: opens what is kept, joins the rooms, starts and stops them.
//!
//! Stops in order: the faces and the crawl first, then a last sequencing round,
//! then the index. No room imports this.

mod crosscheck;
mod evidence;
pub mod forget;
mod incidents;
mod joints;
pub mod migrate;
mod observe;
mod secrets;
mod vantages;

use std::fs::DirBuilder;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::{Config, MapPlace};
use crate::crawl::quota::Quotas;
use crate::crawl::{self, Crawler, Incidents, Pace};
use crate::directory::Place;
use crate::dmtp::address::AddressFilter;
use crate::dmtp::tls::Roots;
use crate::dmtp::{self, Proxy};
use crate::log::answer::Answerer;
use crate::log::{self, Log, Opened};
use crate::peers::{self, Peers};
use crate::proof::note::VerifierKey;
use crate::resolver::{self, HickoryResolver, NameServers, TrustAnchor};
use crate::serve::budget::Unknown;
use crate::serve::identity::Identity;
use crate::serve::{self, dmtp as dmtp_face, http, syn};
use crate::store::sled::{self, Sled};
use crate::store::state::{REWRITE, Table};
use crate::store::{self, State, Store, seen};

use crosscheck::{Comparing, PeersDomains};
use vantages::Vantages;

pub use evidence::FromCrawl;
pub use incidents::{
    ALARMS_PER_DAY, Filed, Filing, REFUSED_PER_DAY, REPORTS_ABOUT_ONE, REPORTS_PER_DAY,
};
pub use secrets::{Rotated, Secrets};

/// How long the rooms may take to end before they are dropped.
const GRACE: Duration = Duration::from_secs(20);
/// Between two looks at an index that is being closed.
const PAUSE: Duration = Duration::from_millis(100);

/// The parts of a mirror's folder.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(path: impl Into<PathBuf>) -> Folder {
        Folder(path.into())
    }

    /// Makes the folder, for its owner only, if it is not there.
    pub fn make(&self) -> anyhow::Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.0)
            .with_context(|| format!("cannot make the data folder {}", self.0.display()))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The blob stores: `public` and `private`.
    pub fn store(&self) -> Result<Store, store::Error> {
        Store::folder(&self.0)
    }

    pub fn state(&self) -> PathBuf {
        self.0.join("state")
    }

    pub fn guard(&self) -> PathBuf {
        self.0.join("guard")
    }

    pub fn keys(&self) -> PathBuf {
        self.0.join("keys")
    }

    /// Certificate and key of the DMTP face, if the configuration names none.
    pub fn dmtp_pem(&self) -> (PathBuf, PathBuf) {
        (self.keys().join("dmtp.crt"), self.keys().join("dmtp.key"))
    }

    /// Maps of peers, if they are on disk; each has a file here without a name.
    pub fn maps(&self) -> PathBuf {
        self.0.join("maps")
    }

    /// Opens the index; a damaged one is set aside, since it can be made again.
    /// An index that another process holds is an error.
    pub async fn open_state(&self) -> anyhow::Result<Sled> {
        let folder = self.state();
        let path = folder.clone();
        let state = tokio::task::spawn_blocking(move || open_sled(&path)).await??;
        if !needs_rewrite(&state).await? {
            return Ok(state);
        }
        drop(state);
        tokio::task::spawn_blocking(move || {
            sled::rewrite(&folder)?;
            tracing::info!("wrote the index anew, without what was erased");
            open_sled(&folder)
        })
        .await?
    }
}

/// Opens an index that this process has just closed: what it still writes
/// beside the rounds ends first.
async fn reopen_state(folder: &Folder) -> anyhow::Result<Sled> {
    let mut patience = GRACE;
    loop {
        match folder.open_state().await {
            Err(error) if is_in_use(&error) && !patience.is_zero() => {
                tokio::time::sleep(PAUSE).await;
                patience = patience.saturating_sub(PAUSE);
            }
            other => return other,
        }
    }
}

fn is_in_use(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(store::Error::InUse { .. }))
}

fn open_sled(folder: &Path) -> anyhow::Result<Sled> {
    let opened = match Sled::open(folder) {
        Err(error) if error.is_damage() => {
            let aside = sled::set_aside(folder)?;
            tracing::warn!(%error, aside = %aside.display(), "the index is made again");
            Sled::open(folder)
        }
        other => other,
    };
    opened.context("cannot open the index")
}

/// Whether rows were erased whose bytes the engine's files still hold.
async fn needs_rewrite(state: &dyn State) -> Result<bool, store::Error> {
    Ok(state.get(Table::Meta, REWRITE).await?.is_some())
}

/// Opens index and log. When opening erased something again (a restored backup),
/// the index is written anew and both are opened once more.
async fn open_log(
    config: &Config,
    folder: &Folder,
    secrets: &Secrets,
    clock: &Clock,
) -> anyhow::Result<Opened> {
    let mut state: Arc<dyn State> = Arc::new(folder.open_state().await?);
    let mut again = true;
    loop {
        let store = folder.store().context("cannot open the blob store")?;
        let options = log_options(config, folder, secrets);
        let opened = log::open(options, store, state, secrets.keys(), clock.clone())
            .await
            .context("cannot open the log")?;
        if !(again && needs_rewrite(&**opened.log.state()).await?) {
            return Ok(opened);
        }
        again = false;
        drop(opened);
        state = Arc::new(reopen_state(folder).await?);
    }
}

/// Makes no log where peers remember one of this key (threat 12).
async fn refuse_second_history(
    config: &Config,
    folder: &Folder,
    secrets: &Secrets,
) -> anyhow::Result<()> {
    if config.peers.mirrors.is_empty() {
        return Ok(());
    }
    let store = folder.store().context("cannot open the blob store")?;
    if log::is_made(&store).await.context("cannot read the log's record")? {
        return Ok(());
    }
    let known = peers::known_to(&mirrors(config), &secrets.verifier()).await?;
    let largest = known.iter().max_by_key(|(_, signed)| signed.checkpoint().size);
    let Some((peer, signed)) = largest else { return Ok(()) };
    let size = signed.checkpoint().size;
    anyhow::bail!(
        "the store at {} holds no log, but {peer} remembers {size} entries that the key of {} has \
         signed. A new log under that key would be a second history. Bring the store back from a \
         backup, of any age: what it lacks comes from the peers. Or make new keys, under another \
         origin (see `syndicate keys`)",
        store.private.place(),
        secrets.origin(),
    )
}

/// Opens the log of a stopped mirror for a command that signs on it, unless its peers
/// know that the folder is of an old backup (threat 12): a mirror that starts asks them
/// too, and takes back what it lacks.
async fn open_to_sign(
    config: &Config,
    folder: &Folder,
    secrets: &Secrets,
    clock: &Clock,
) -> anyhow::Result<Opened> {
    let own = secrets.cosigner.verifier();
    let config = &Config { peers: config.peers.of(secrets.origin(), &own)?, ..config.clone() };
    refuse_second_history(config, folder, secrets).await?;
    let opened = open_log(config, folder, secrets, clock)
        .await
        .context("the folder could not be opened; a mirror that runs must be stopped first")?;
    let here = opened.log.heads().committed.map_or(0, |head| head.size);
    for (peer, signed) in peers::known_to(&mirrors(config), &secrets.verifier()).await? {
        let tree = signed.checkpoint();
        anyhow::ensure!(
            tree.size <= here,
            "{peer} remembers {} entries of this log, and here are {here}: the folder is of an old \
             backup. Nothing was signed. Start the mirror, which takes back from its peers what \
             it lacks; stop it, and give this command again",
            tree.size,
        );
        anyhow::ensure!(
            opened.log.root_at(tree.size).await? == Some(tree.root),
            "{peer} remembers another tree of {} entries that the key of {} has signed: two \
             histories of this log are about. Nothing was signed. Look for another folder with \
             its keys, and see \"When it serves and does not sequence\" in deploy/README.md",
            tree.size,
            secrets.origin(),
        );
    }
    Ok(opened)
}

/// A mirror that runs.
pub struct Mirror {
    pub log: Log,
    pub crawl: crawl::Handle,
    pub http: SocketAddr,
    pub dmtp: SocketAddr,
    /// What clients need to trust this log.
    pub key: VerifierKey,
    /// What others verify this mirror's cosignatures with.
    pub cosigner: VerifierKey,
    /// What peers verify this mirror's requests with.
    pub peer_key: VerifierKey,
    /// The mirrors that are followed.
    pub peers: Vec<Arc<peers::Peer>>,
    /// What the maps take, the own one first.
    pub maps: Vec<peers::MapRoom>,
    clock: Clock,
    shutdown: Shutdown,
    tasks: JoinSet<anyhow::Result<()>>,
}

/// The order of stopping: `first` ends faces and crawl, `then` the sequencer.
struct Shutdown {
    first: CancellationToken,
    then: CancellationToken,
}

impl Mirror {
    /// Opens or makes everything below the data folder and starts every room.
    pub async fn start(config: &Config, clock: Clock) -> anyhow::Result<Mirror> {
        let folder = Folder::new(&config.data);
        folder.make()?;
        let secrets = Secrets::load_or_make(&folder.keys(), config.origin.as_deref())?;
        let own = secrets.cosigner.verifier();
        let config = &Config { peers: config.peers.of(secrets.origin(), &own)?, ..config.clone() };
        let identity = identity(config, &folder).await?;
        let faces = serve::metrics::Metrics::new()?;
        refuse_second_history(config, &folder, &secrets).await?;
        let Opened { log, sequencer } = open_log(config, &folder, &secrets, &clock).await?;

        let Vantages { main, others } = Vantages::new(config)?;
        let second_resolver = match vantages::second_path(config) {
            Some(servers) => Some(resolver_over(config, NameServers::Listed(servers.to_vec()))?),
            None => {
                tracing::warn!(
                    "there is no second path to DNS (dns.second_servers, or a crawl.vantage with \
                     servers of its own): no bogus answer can be confirmed, and none is logged"
                );
                None
            }
        };
        let filed = Filed::new(log.store().private.clone(), clock.clone());
        let filed = Arc::new(filed.counting(faces.registry())?);
        let incidents: Arc<dyn Incidents> = Arc::new(FromCrawl::new(
            Arc::clone(&filed),
            Arc::clone(log.state()),
            log.store().public.clone(),
            secrets.origin().to_owned(),
        ));
        let quotas = Quotas::new(
            config.quotas,
            Arc::new(joints::IntoLog(log.clone())),
            Arc::clone(log.state()),
            Arc::clone(&incidents),
            clock.clone(),
        );
        let rooms = crawl::Rooms {
            resolver: main.resolver,
            second_resolver,
            state: Arc::clone(log.state()),
            public: log.store().public.clone(),
            clock: clock.clone(),
            sink: Arc::new(quotas),
            incidents,
        };
        let metrics = crawl::Metrics::new(faces.registry())?;
        // The index is locked to one process, so a lease in it is of this mirror,
        // from before a crash: under another name its domain would wait it out.
        let owner = "this mirror";
        let (crawler, crawl) =
            Crawler::new(rooms, crawl_options(config, main.proxy)?, metrics, owner);
        let crawler = crawler.with_vantages(main.name, others);

        let http_listener = bind(config.http, "HTTP").await?;
        let dmtp_listener = bind(config.dmtp, "DMTP").await?;
        let (http, dmtp) = (http_listener.local_addr()?, dmtp_listener.local_addr()?);
        let public_url = config.public_url.clone().unwrap_or_else(|| format!("http://{http}"));
        let answers = Arc::new(Answerer::new(log.reader()));
        let signets = Arc::new(syn::Mirror::new(Arc::clone(&answers), &public_url));
        // Both faces draw on one budget for unknown mailboxes (threat 21).
        let mut web_options = http::Options::new(&clock);
        let unknown: Option<Arc<dyn Unknown>> = match config.on_demand {
            true => Some(Arc::new(joints::OnDemand(crawl.clone()))),
            false => None,
        };
        web_options.unknown.clone_from(&unknown);
        let registry = faces.registry();
        let for_differences = Arc::clone(&filed);
        let comparing =
            Comparing::new(config, &secrets, &log, &crawl, &clock, for_differences, registry)
                .await?;
        let heard = Arc::new(PeersDomains(Arc::clone(&comparing.domains)));
        let peers = peers(config, &log, &clock, &secrets, &faces, Arc::clone(&filed), heard)?;
        web_options.observe = Some(Arc::new(comparing.observe));
        web_options.comparing = Some(comparing.handle);
        let maps = peers.room(&log).await;
        web_options.witness = Some(Arc::clone(peers.witness()));
        let private = log.store().private.clone();
        let root = trust_anchor(config)?.of_root();
        let keys = config.peers.mirrors.iter().map(|peer| peer.log.clone()).collect();
        let reports = joints::ByClients::new(crawl.clone(), Arc::clone(&filed), root, keys);
        web_options.reports = Some(Arc::new(reports));
        web_options.owners = Some(Arc::new(joints::ByOwners::new(crawl.clone(), private)));
        web_options.incidents = Some(filed);
        web_options.proxies.clone_from(&config.proxies);
        let mut face_options = dmtp_face::Options::new(config.dmtp_host.clone());
        face_options.sessions = Some(faces.dmtp_sessions.clone());
        face_options.budget = Some(Arc::clone(&web_options.budget));
        face_options.unknown = unknown;
        let web = http::Server::new(answers, faces.clone(), clock.clone(), web_options);
        let face = dmtp_face::Server::new(signets, identity.server_config()?, face_options);

        let shutdown = Shutdown { first: CancellationToken::new(), then: CancellationToken::new() };
        let (first, then) = (shutdown.first.clone(), shutdown.then.clone());
        let mut tasks = JoinSet::new();
        let (recall, mut sequencer) = (peers.recall(), sequencer);
        tasks.spawn(async move {
            // Nothing new is signed before the peers were asked what was.
            recall.run(&mut sequencer, &then).await.context("the log stopped")?;
            sequencer.run(then).await.context("the log stopped")
        });
        let token = first.clone();
        tasks.spawn(async move { crawler.run(token).await.context("the crawler stopped") });
        let token = first.clone();
        let followed = peers.peers().to_vec();
        let crosscheck = comparing.crosscheck;
        tasks.spawn(async move { crosscheck.run(token).await.context("comparing names stopped") });
        let token = first.clone();
        let domains = comparing.domains;
        tasks.spawn(async move { domains.run(token).await.context("peers' domains stopped") });
        let token = first.clone();
        tasks.spawn(async move { peers.run(token).await.context("following peers stopped") });
        let token = first.clone();
        tasks.spawn(
            async move { web.run(http_listener, token).await.context("the HTTP face stopped") },
        );
        tasks.spawn(async move {
            face.run(dmtp_listener, first).await.context("the DMTP face stopped")
        });
        for name in &config.names {
            crawl.watch(name.clone(), "configured").await?;
        }
        let asked = joints::unwritten(&log.store().private, &**log.state()).await?;
        if !asked.is_empty() && !crawl.request(asked).await {
            tracing::warn!(
                "not all that owners asked for is looked for; the next start tries again"
            );
        }
        Ok(Mirror {
            key: secrets.verifier(),
            cosigner: secrets.cosigner.verifier(),
            peer_key: secrets.peer.verifier(),
            peers: followed,
            maps,
            log,
            crawl,
            http,
            dmtp,
            clock,
            shutdown,
            tasks,
        })
    }

    /// Runs until told to stop, or until a room ends: then all end, and its
    /// error is returned.
    pub async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        let ended = tokio::select! {
            () = stop.cancelled() => Ok(()),
            Some(ended) = self.tasks.join_next() => match ended {
                Ok(Ok(())) => Err(anyhow!("a room ended by itself")),
                Ok(Err(error)) => Err(error),
                Err(panic) => Err(anyhow!(panic)),
            },
        };
        self.stop().await;
        ended
    }

    /// Stops every room in order and closes what is open.
    pub async fn stop(mut self) {
        self.shutdown.first.cancel();
        // What the crawl handed in is still sequenced: the log ends last.
        let faces =
            async { while self.tasks.len() > 1 && self.tasks.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(GRACE, faces).await;
        self.shutdown.then.cancel();
        let log = async { while self.tasks.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(GRACE, log).await;
        // The day's copy holds what was seen when the day began. The day is the log's,
        // as ever: a copy of a later one would be the newest for as long.
        let (private, state) = (&self.log.store().private, self.log.state());
        let last = self.log.heads().committed.map(|head| head.time);
        let day = seen::day(last.unwrap_or_else(|| self.clock.now()));
        if let Err(error) = seen::save(private, &**state, day).await {
            tracing::warn!(%error, "could not keep what was seen");
        }
        if let Err(error) = self.log.state().flush().await {
            tracing::warn!(%error, "the index could not be flushed");
        }
        // A task that was cut off lets go of the index a little later: whoever starts
        // again in this process would find it in use.
        let state = Arc::clone(self.log.state());
        drop(self);
        let closed = async {
            while Arc::strong_count(&state) > 1 {
                tokio::time::sleep(PAUSE).await;
            }
        };
        let _ = tokio::time::timeout(GRACE, closed).await;
    }
}

/// The other mirrors, as they are configured.
fn peers(
    config: &Config,
    log: &Log,
    clock: &Clock,
    secrets: &Secrets,
    faces: &serve::metrics::Metrics,
    filed: Arc<Filed>,
    heard: Arc<dyn peers::Heard>,
) -> anyhow::Result<Peers> {
    let anchors = trust_anchor(config)?.of_root();
    let options = peers::Options {
        mirrors: mirrors(config),
        witnesses: config
            .peers
            .witnesses
            .iter()
            .map(|witness| peers::PublicWitness {
                url: witness.url.clone(),
                key: witness.key.clone(),
                qpd: witness.qpd,
            })
            .collect(),
        entries_per_day: config.peers.entries_per_day,
        maps: map_place(config)?,
        ..peers::Options::new(anchors)
    };
    let rooms = peers::Rooms {
        log: log.clone(),
        clock: clock.clone(),
        cosigner: secrets.cosigner.clone(),
        accuse: Arc::new(joints::Accusations(filed)),
        heard: vec![heard],
        metrics: peers::Metrics::new(faces.registry())?,
    };
    Ok(Peers::new(options, rooms)?)
}

fn mirrors(config: &Config) -> Vec<peers::Mirror> {
    let mirrors = config.peers.mirrors.iter().map(|peer| peers::Mirror {
        url: peer.url.clone(),
        log: peer.log.clone(),
        cosigner: peer.cosigner.clone(),
    });
    mirrors.collect()
}

/// Where peers' maps are; their folder is made.
fn map_place(config: &Config) -> anyhow::Result<Place> {
    if config.peers.map == MapPlace::Memory {
        return Ok(Place::Memory);
    }
    let maps = Folder::new(&config.data).maps();
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&maps);
    made.with_context(|| format!("cannot make the folder of maps {}", maps.display()))?;
    Ok(Place::Disk(maps))
}

async fn bind(address: SocketAddr, face: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen for {face} on {address}"))
}

/// The certificate of the DMTP face, made at the first start if none is given.
async fn identity(config: &Config, folder: &Folder) -> anyhow::Result<Identity> {
    let (certificate, key) = config.dmtp_pem.clone().unwrap_or_else(|| folder.dmtp_pem());
    let made = config.dmtp_pem.is_none();
    let host = config.dmtp_host.clone();
    let load = move || {
        if made {
            Identity::load_or_make(&certificate, &key, &host)
        } else {
            Identity::from_files(&certificate, &key)
        }
    };
    Ok(tokio::task::spawn_blocking(load).await??)
}

fn log_options(config: &Config, folder: &Folder, secrets: &Secrets) -> log::Options {
    let mut options = log::Options::new(folder.guard());
    options.origin = Some(secrets.origin().to_owned());
    options.interval = Duration::from_millis(config.batch_millis);
    options.heartbeat = Duration::from_millis(config.heartbeat_millis);
    options.accept_clock = config.accept_clock;
    options.publish_quorum = config.peers.publish_quorum;
    options.quorum_deadline = Duration::from_millis(config.peers.quorum_deadline_millis);
    options
}

/// The DNS root that the mirror believes.
fn trust_anchor(config: &Config) -> anyhow::Result<TrustAnchor> {
    Ok(match &config.trust_anchor {
        None => TrustAnchor::iana(),
        Some(path) => TrustAnchor::from_file(path)?,
    })
}

/// A validating resolver that asks these servers.
fn resolver_over(
    config: &Config,
    name_servers: NameServers,
) -> anyhow::Result<Arc<dyn resolver::Resolver>> {
    let trust_anchor = trust_anchor(config)?;
    let options = resolver::Options { name_servers, trust_anchor, ..resolver::Options::default() };
    Ok(Arc::new(HickoryResolver::new(options)?))
}

/// `proxy` is the main vantage's.
fn crawl_options(config: &Config, proxy: Option<Proxy>) -> anyhow::Result<crawl::Options> {
    let roots = match &config.roots {
        None => Roots::public(),
        Some(path) => {
            let pem = std::fs::read(path)
                .with_context(|| format!("cannot read the CAs in {}", path.display()))?;
            Roots::from_pem(&pem)?
        }
    };
    let limits = dmtp::client::Options::default().limits;
    Ok(crawl::Options {
        pace: Pace { interval: config.interval_millis, ..Pace::default() },
        concurrency: config.concurrency,
        hold: config.hold_millis,
        dx_port: config.dx_port,
        dual_ports: config.dual_ports.clone(),
        hosts: config.hosts,
        compare_every: config.compare_millis,
        ask_delay: config.on_demand_delay_millis,
        trust_word: config.full_check_millis,
        dmtp: dmtp::client::Options {
            filter: AddressFilter::new(config.allow_networks.clone()),
            roots,
            proxy,
            replies: dmtp::Budget::new(config.reply_memory_bytes, limits.total),
            limits,
            ..dmtp::client::Options::default()
        },
        ..crawl::Options::default()
    })
}
