//! Going round: which domain is due, one visit from its DNS record to drafts,
//! and the loop around it.
//!
//! [`frontier`] says who is due, `visit` does the asking, [`judge`] says what
//! the answers are to what was known. What comes out goes to a [`Sink`] as
//! drafts of log entries; what fails validation goes to [`Incidents`], it is never
//! a version, and each alarm goes there too. [`quota`] stands before the log and bounds what one name can
//! put into it. Rows of the log are only read here. This room writes three kinds
//! of its own: when a name is due, when it was last seen, and its quotas.
//!
//! A name that strangers asked for is on trial: looked at once, and watched only
//! if the visit put it into the log. A mailbox that only peers asked for is
//! watched for a while (threat 22); a domain of a peer's log has its turn after
//! all others (threat 20), and nothing but DNS is asked unless it has a record.
//!
//! Left out: sequencing, who may ask for a visit.

mod alarm;
mod compare;
pub mod frontier;
mod incident;
pub mod judge;
pub mod quota;
mod roster;
mod sweep;
mod visit;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::dime::certificate::How;
use crate::dime::{Address, Dnssec, Domain, Name, Timestamp};
use crate::dmtp;
use crate::errors::with_sources;
use crate::proof::draft::Draft;
use crate::proof::entry::Events;
use crate::resolver::Resolver;
use crate::store::rows::{self, FrontierRow, SeenRow, Typed as _};
use crate::store::state::Batch;
use crate::store::{self, Applied, Blobs, State};

pub use compare::{POK as VANTAGE_POK, VANTAGES, Vantage};
pub use frontier::Pace;
pub use incident::{Incident, IncidentKind, Incidents};
pub use roster::Roster;

use compare::{COMPARISONS, Task};
use frontier::Job;
use roster::Found;
use sweep::Sweep;
use visit::Visitor;

/// Visits at once.
pub const CONCURRENCY: usize = 16;
/// A visit that takes longer is a slow one, and another may begin in its place:
/// hosts that accept and say nothing must not hold up all others.
const PATIENCE: Duration = Duration::from_secs(1);
/// Slow visits that others may begin beside; more of them take their places.
/// Each holds a connection, and memory for a reply.
const SLOW: usize = 256;
/// How long a suspicious change is held (design §3), milliseconds.
pub const HOLD: u64 = 72 * 3_600_000;
/// Port of DX hosts, TLS from the first byte.
pub const DX_PORT: u16 = 26;
/// Requests waiting for the loop. Each is a name; more wait at the caller.
const REQUESTS: usize = 1024;
/// Domains in memory while their turn is far off: some tens of MiB.
pub const RESIDENT: usize = 65_536;
/// What the sweep found and the loop has not taken yet: pages.
const FOUND: usize = 4;
/// Names that strangers asked for, waiting for the loop; more are not heard.
const ASKED: usize = 256;
/// Ten minutes (threat 21), milliseconds.
pub const ASK_DELAY: u64 = 600_000;
/// A day, milliseconds.
pub const COMPARE_EVERY: u64 = 86_400_000;
/// Reports kept for a listener that lags; older ones are lost to it.
const REPORTS: usize = 1024;
/// Longest sleep of the loop, so that a clock set by hand is noticed.
const NAP: Duration = Duration::from_millis(500);

/// How the crawler goes about.
#[derive(Clone, Debug)]
pub struct Options {
    pub pace: Pace,
    /// Visits at once, at least 1; beside them up to 256 that take longer than
    /// a second.
    pub concurrency: usize,
    /// Of one visit, all mailboxes included.
    pub deadline: Duration,
    /// Domains in memory while their turn is far off; more are read from the state
    /// when it comes.
    pub resident: usize,
    /// How long a suspicious change is held, milliseconds.
    pub hold: u64,
    /// For DX hosts of the record, of MX and the domain itself. A port in a
    /// `dx` field is not followed: strangers do not choose ports.
    pub dx_port: u16,
    /// Ports of MX hosts to try with STARTTLS, if `dx_port` fails (§6.2).
    pub dual_ports: Vec<u16>,
    /// A signet is fetched again within this time, milliseconds; a DX's word
    /// that it is current is enough where the next visit is due before that
    /// (§7.2). 0: it never is.
    pub trust_word: u64,
    /// A name that a stranger asked for is looked at after a random time up to
    /// this, milliseconds: a new label must not tell who asked (threat 21).
    pub ask_delay: u64,
    /// Most new links of one mailbox in one visit.
    pub links: usize,
    /// Of connections to one DX host, whatever number of domains share it.
    pub hosts: dmtp::hosts::Limits,
    /// The other vantages look at everything in turn once in this time,
    /// milliseconds; 0: only at what changed.
    pub compare_every: u64,
    /// Between the two looks that make a difference believed.
    pub second_look: Duration,
    pub dmtp: dmtp::client::Options,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            pace: Pace::default(),
            concurrency: CONCURRENCY,
            deadline: Duration::from_secs(600),
            resident: RESIDENT,
            hold: HOLD,
            dx_port: DX_PORT,
            dual_ports: vec![25, 587],
            trust_word: 0,
            ask_delay: ASK_DELAY,
            links: 64,
            hosts: dmtp::hosts::Limits::default(),
            compare_every: COMPARE_EVERY,
            second_look: Duration::from_secs(60),
            dmtp: dmtp::client::Options::default(),
        }
    }
}

/// What the room works with.
#[derive(Clone)]
pub struct Rooms {
    pub resolver: Arc<dyn Resolver>,
    /// Another path to DNS, over which a bogus answer is confirmed; without
    /// one, the same path is asked again.
    pub second_resolver: Option<Arc<dyn Resolver>>,
    pub state: Arc<dyn State>,
    /// Read only: record texts and org signets that entries name.
    pub public: Blobs,
    pub clock: Clock,
    pub sink: Arc<dyn Sink>,
    pub incidents: Arc<dyn Incidents>,
}

/// Where drafts go: the log.
#[async_trait]
pub trait Sink: Send + Sync {
    /// Returns when the entry is durable and the rows in `State` show it, so
    /// that whatever is judged next is judged by it.
    async fn submit(&self, draft: Draft) -> Result<Placed, Unplaced>;

    /// Whether a mailbox that has no row was forgotten: it is not visited, and
    /// nothing about it is written down, until its owner asks.
    ///
    /// # Errors
    /// Why that cannot be said now.
    async fn is_forgotten(&self, address: &Address) -> Result<bool, Unplaced>;
}

/// What became of a draft.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    /// It is this version of its label.
    Version(u64),
    /// Over quota: counted, and told with the label's next entry.
    Coalesced,
}

/// Why a draft has no place.
#[derive(Debug, thiserror::Error)]
pub enum Unplaced {
    /// The log is stopping or full: visit again later.
    #[error("the log takes nothing now: {0}")]
    Later(String),
    /// It does not fit what the log holds: the rows were older than the log.
    #[error("the log refused a draft: {0}")]
    Misfit(String),
}

/// How a visit to a domain or a mailbox ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// What is known was seen again.
    Confirmed,
    /// Something new was seen, and went to the log.
    Changed,
    /// Something new was seen, and is over quota.
    Coalesced,
    /// The DX said that the known signet is current.
    Claimed,
    /// No record, and none was known.
    NoRecord,
    /// The record that was known is gone.
    RecordGone,
    /// The name was forgotten, and is not visited.
    Forgotten,
    /// The DX has no signet of this name.
    NotFound,
    /// What is served is valid, and not what is in force: a fork or an ancestor.
    NotInForce,
    DnsBogus,
    /// Bogus on one path, and not on the other.
    DnsBogusUnconfirmed,
    DnsFailed,
    RecordRefused,
    RecordAmbiguous,
    /// The record or MX names no host that can be asked.
    NoHost,
    /// The host has as many connections of ours as it should: not visited yet.
    HostBusy,
    /// The host failed again and again, and is left alone for a while.
    HostResting,
    OrgSignetInvalid,
    SignetInvalid,
    /// The DX failed; the word is [`dmtp::client::Error::reason`].
    Dx(&'static str),
    /// The visit took too long as a whole.
    Deadline,
    /// The log took nothing, or our own stores failed.
    Ours,
}

impl Outcome {
    /// A short, stable word for records and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Confirmed => "confirmed",
            Outcome::Changed => "changed",
            Outcome::Coalesced => "coalesced",
            Outcome::Claimed => "claimed",
            Outcome::NoRecord => "no-record",
            Outcome::RecordGone => "record-gone",
            Outcome::Forgotten => "forgotten",
            Outcome::NotFound => "not-found",
            Outcome::NotInForce => "not-in-force",
            Outcome::DnsBogus => "dns-bogus",
            Outcome::DnsBogusUnconfirmed => "dns-bogus-unconfirmed",
            Outcome::DnsFailed => "dns-failed",
            Outcome::RecordRefused => "record-refused",
            Outcome::RecordAmbiguous => "record-ambiguous",
            Outcome::NoHost => "no-host",
            Outcome::HostBusy => "host-busy",
            Outcome::HostResting => "host-resting",
            Outcome::OrgSignetInvalid => "org-signet-invalid",
            Outcome::SignetInvalid => "signet-invalid",
            Outcome::Dx(word) => word,
            Outcome::Deadline => "deadline",
            Outcome::Ours => "ours",
        }
    }

    /// Whether the next visit can wait its usual time.
    pub fn is_good(self) -> bool {
        matches!(
            self,
            Outcome::Confirmed
                | Outcome::Changed
                | Outcome::Coalesced
                | Outcome::Claimed
                | Outcome::RecordGone
                | Outcome::Forgotten
                | Outcome::NotFound
                | Outcome::NotInForce
        )
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What one visit did. It holds addresses: not for log lines.
#[derive(Clone, Debug)]
pub struct Report {
    pub domain: Domain,
    pub outcome: Outcome,
    /// What made the outcome, in words without addresses.
    pub detail: Option<String>,
    /// How DNS protected the record, if there was an answer.
    pub dnssec: Option<Dnssec>,
    /// What made the DX's certificate acceptable, if one was reached.
    pub certificate: Option<How>,
    pub users: Vec<(Address, Outcome)>,
    pub entries: Vec<Entered>,
    pub started: Timestamp,
    pub ended: Timestamp,
    /// When DNS wants to be asked again.
    pub refresh: Timestamp,
    /// When the host may be asked again, if it was not.
    pub later: Option<Timestamp>,
    /// The visit before this one; zero: none is remembered.
    pub previous: Timestamp,
    /// When what was seen as before was seen, not written down yet.
    seen: Vec<SeenRow>,
}

/// A draft of a visit that went to the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entered {
    pub name: Name,
    pub events: Events,
    pub placed: Placed,
}

/// What ends the room: its own stores.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("reading what is known of {domain}")]
    Known { domain: Domain, source: store::Error },
    #[error("handing an entry for {domain} to the log")]
    Log { domain: Domain, source: Unplaced },
    #[error("reading the frontier")]
    Frontier(#[source] store::Error),
    #[error("the crawler has stopped")]
    Stopped,
    #[error("too many wait for a visit of their own")]
    Busy,
    #[error("the domain is watched already")]
    Watched,
}

/// Counters of the room. No label names a domain or an address.
#[derive(Clone, Debug)]
pub struct Metrics {
    visits: prometheus::IntCounterVec,
    users: prometheus::IntCounterVec,
    events: prometheus::IntCounterVec,
    incidents: prometheus::IntCounterVec,
    /// Looks from other vantages, and what they differed in.
    comparisons: prometheus::IntCounterVec,
    differences: prometheus::IntCounterVec,
    seconds: prometheus::Histogram,
    domains: prometheus::IntGauge,
    running: prometheus::IntGauge,
}

impl Metrics {
    /// # Errors
    /// If the registry has metrics of these names already.
    pub fn new(registry: &prometheus::Registry) -> Result<Metrics, prometheus::Error> {
        let vec = |name: &str, help: &str, label: &str| {
            prometheus::IntCounterVec::new(prometheus::Opts::new(name, help), &[label])
        };
        let metrics = Metrics {
            visits: vec(
                "syndicate_crawl_visits_total",
                "Visits to domains, by outcome",
                "outcome",
            )?,
            users: vec(
                "syndicate_crawl_mailboxes_total",
                "Mailboxes asked for, by outcome",
                "outcome",
            )?,
            events: vec(
                "syndicate_crawl_events_total",
                "Events of entries handed to the log",
                "event",
            )?,
            incidents: vec(
                "syndicate_crawl_incidents_total",
                "What failed validation, and alarms, by kind",
                "kind",
            )?,
            comparisons: vec(
                "syndicate_crawl_comparisons_total",
                "Looks from all vantages at one domain, by outcome",
                "outcome",
            )?,
            differences: vec(
                "syndicate_crawl_differences_total",
                "What two vantages were shown differently, twice, by kind",
                "kind",
            )?,
            seconds: prometheus::Histogram::with_opts(
                prometheus::HistogramOpts::new(
                    "syndicate_crawl_visit_seconds",
                    "How long visits took",
                )
                .buckets(vec![0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0]),
            )?,
            domains: prometheus::IntGauge::new(
                "syndicate_crawl_domains",
                "Domains that are watched",
            )?,
            running: prometheus::IntGauge::new(
                "syndicate_crawl_visits_running",
                "Visits going on now",
            )?,
        };
        registry.register(Box::new(metrics.visits.clone()))?;
        registry.register(Box::new(metrics.users.clone()))?;
        registry.register(Box::new(metrics.events.clone()))?;
        registry.register(Box::new(metrics.incidents.clone()))?;
        registry.register(Box::new(metrics.comparisons.clone()))?;
        registry.register(Box::new(metrics.differences.clone()))?;
        registry.register(Box::new(metrics.seconds.clone()))?;
        registry.register(Box::new(metrics.domains.clone()))?;
        registry.register(Box::new(metrics.running.clone()))?;
        Ok(metrics)
    }

    fn count(&self, report: &Report) {
        self.visits.with_label_values(&[report.outcome.as_str()]).inc();
        for (_, outcome) in &report.users {
            self.users.with_label_values(&[outcome.as_str()]).inc();
        }
        for event in report.entries.iter().flat_map(|entered| entered.events.iter()) {
            self.events.with_label_values(&[event.name()]).inc();
        }
        self.seconds.observe(report.ended.since(report.started) as f64 / 1000.0);
    }
}

/// Asks the crawler for things. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    requests: mpsc::Sender<Request>,
    asked: mpsc::Sender<Asked>,
    reports: broadcast::Sender<Arc<Report>>,
    expiring: Arc<Expiring>,
}

/// Mailboxes that are watched only because peers asked for them.
#[derive(Debug, Default)]
struct Expiring(Mutex<HashSet<Address>>);

impl Expiring {
    fn set(&self, address: &Address, expires: bool) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match expires {
            true => all.insert(address.clone()),
            false => all.remove(address),
        };
    }

    fn contains(&self, address: &Address) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(address)
    }
}

#[derive(Debug)]
struct Request {
    name: Name,
    reason: &'static str,
    what: What,
    /// Answered when the visit ended; dropped if there is none.
    answer: Option<Answer>,
}

/// Whoever waits for a visit.
type Answer = oneshot::Sender<Result<Arc<Report>, Error>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// From now on, and at once if somebody waits.
    Watch,
    /// This name alone, at once. If it is not watched and is there, for so long,
    /// milliseconds; `None`: without end.
    Look { keep: Option<u64> },
    /// When nothing else is to do; watched if it has a record.
    Explore,
}

/// What reaches the crawler over the mirror's faces.
#[derive(Debug)]
enum Asked {
    ByStranger(Name),
    ByOwner(Vec<Name>),
}

impl Handle {
    /// Watches a name from now on. `reason` is a word that is kept with it.
    pub async fn watch(&self, name: Name, reason: &'static str) -> Result<(), Error> {
        let request = Request { name, reason, what: What::Watch, answer: None };
        self.requests.send(request).await.map_err(|_| Error::Stopped)
    }

    /// Visits a name's domain now, and watches it from then on. A visit that is
    /// going on already is not counted: another follows it.
    pub async fn visit(&self, name: Name, reason: &'static str) -> Result<Arc<Report>, Error> {
        self.ask_for(name, reason, What::Watch).await
    }

    /// Looks at one name at once: its domain, and of its mailboxes no other. One
    /// that is not watched yet is from then on if it is there: with `keep` for so
    /// long, milliseconds, after the last such call.
    ///
    /// # Errors
    /// [`Error::Busy`] if too many wait already.
    pub async fn look(&self, name: Name, keep: Option<u64>) -> Result<Arc<Report>, Error> {
        self.ask_for(name, "asked for by a peer", What::Look { keep }).await
    }

    /// Looks at a domain that a peer's log names, when nothing else is to do.
    /// One that has a record is watched from then on.
    ///
    /// # Errors
    /// [`Error::Watched`] if it is watched already, [`Error::Busy`] if too many
    /// wait.
    pub async fn explore(&self, domain: Domain) -> Result<Arc<Report>, Error> {
        self.ask_for(Name::Domain(domain), "in a peer's log", What::Explore).await
    }

    async fn ask_for(
        &self,
        name: Name,
        reason: &'static str,
        what: What,
    ) -> Result<Arc<Report>, Error> {
        let (answer, report) = oneshot::channel();
        let request = Request { name, reason, what, answer: Some(answer) };
        self.requests.send(request).await.map_err(|_| Error::Stopped)?;
        report.await.unwrap_or(Err(Error::Stopped))
    }

    /// Whether a mailbox is watched only because peers asked for it; whoever
    /// [asks](Handle::ask) for it here ends that.
    pub fn is_for_peers(&self, address: &Address) -> bool {
        self.expiring.contains(address)
    }

    /// Looks at a name that somebody looked up in vain, after a while and once:
    /// it is watched only if there is such a name. Says whether there was room;
    /// returns at once.
    pub fn ask(&self, name: Name) -> bool {
        self.asked.try_send(Asked::ByStranger(name)).is_ok()
    }

    /// Visits names at once, for their owner, who has shown to be it: of each
    /// domain once a minute. Those that are not watched yet are from then on if
    /// they are there. Says whether there was room; returns at once.
    pub fn request(&self, names: Vec<Name>) -> bool {
        self.asked.try_send(Asked::ByOwner(names)).is_ok()
    }

    /// The report of every visit from now on. Whoever lags loses the oldest.
    pub fn reports(&self) -> broadcast::Receiver<Arc<Report>> {
        self.reports.subscribe()
    }
}

/// The loop, not yet running.
pub struct Crawler {
    visitor: Arc<Visitor>,
    roster: Roster,
    requests: mpsc::Receiver<Request>,
    asked: mpsc::Receiver<Asked>,
    reports: broadcast::Sender<Arc<Report>>,
    /// Who waits for the visit that comes next, and for the one going on.
    waiting: HashMap<Domain, Waiting>,
    /// Mailboxes that are looked at for peers, and how long they are to be kept.
    for_peers: HashMap<Address, u64>,
    expiring: Arc<Expiring>,
    /// Domains that are looked at from several places now.
    comparing: HashSet<Domain>,
    /// Tells this process's leases from another's.
    owner: String,
}

/// A visit that is going on.
struct Running {
    job: Job,
    since: Instant,
}

/// How many more visits may begin.
fn room(running: &HashMap<Id, Running>, concurrency: usize) -> usize {
    let slow = running.values().filter(|visit| visit.since.elapsed() >= PATIENCE).count();
    let in_place = running.len() - slow.min(SLOW);
    concurrency.saturating_sub(in_place)
}

#[derive(Default)]
struct Waiting {
    next: Vec<Answer>,
    now: Vec<Answer>,
}

impl Crawler {
    /// `owner` names this process among those that share the state. It looks
    /// from one place, until told of [others](Crawler::with_vantages).
    pub fn new(
        rooms: Rooms,
        options: Options,
        metrics: Metrics,
        owner: impl Into<String>,
    ) -> (Crawler, Handle) {
        let (sender, requests) = mpsc::channel(REQUESTS);
        let (asker, asked) = mpsc::channel(ASKED);
        let (reports, _) = broadcast::channel(REPORTS);
        let roster = Roster::new(Arc::clone(&rooms.state), options.resident);
        let expiring = roster.expiring();
        let crawler = Crawler {
            visitor: Arc::new(Visitor::new(rooms, options, metrics)),
            roster,
            requests,
            asked,
            reports: reports.clone(),
            waiting: HashMap::new(),
            for_peers: HashMap::new(),
            expiring: Arc::clone(&expiring),
            comparing: HashSet::new(),
            owner: owner.into(),
        };
        (crawler, Handle { requests: sender, asked: asker, reports, expiring })
    }

    /// Looks from these places too, at most [`VANTAGES`]; `main` is the name of
    /// the first, from which visits are made.
    pub fn with_vantages(
        mut self,
        main: impl Into<String>,
        others: impl IntoIterator<Item = Vantage>,
    ) -> Crawler {
        let Visitor { rooms, options, metrics, .. } = &*self.visitor;
        let visitor = Visitor::new(rooms.clone(), options.clone(), metrics.clone());
        self.visitor = Arc::new(visitor.with_vantages(main.into(), others));
        self
    }

    /// Goes round until told to stop. Visits going on then are dropped: what
    /// they had acknowledged is in the log, the rest is seen again.
    ///
    /// # Errors
    /// Only if the frontier cannot be read at the start. Everything later is a
    /// failed visit.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), Error> {
        let mut first = self.roster.next(self.now()).await.map_err(Error::Frontier)?;
        let (sender, mut found) = mpsc::channel(FOUND);
        let sweep = Sweep {
            state: Arc::clone(&self.visitor.rooms.state),
            clock: self.visitor.rooms.clock.clone(),
            expiring: Arc::clone(&self.expiring),
            found: sender,
        };
        // Ends with the loop.
        let mut sweeping = JoinSet::new();
        sweeping.spawn(sweep.run());
        let mut visits = JoinSet::new();
        let mut farewells = JoinSet::new();
        let mut comparisons = JoinSet::new();
        let mut running: HashMap<Id, Running> = HashMap::new();
        loop {
            for session in self.visitor.options.dmtp.kept.expired() {
                farewells.spawn(session.quit());
            }
            while farewells.try_join_next().is_some() {}
            let mut room = room(&running, self.visitor.options.concurrency.max(1));
            while room > 0 {
                let next = match first.take() {
                    Some(job) => Some(job),
                    None => self.next().await,
                };
                let Some(job) = next else { break };
                room -= 1;
                if let Some(waiting) = self.waiting.get_mut(&job.domain) {
                    waiting.now.append(&mut waiting.next);
                }
                let visitor = Arc::clone(&self.visitor);
                let (visited, owner) = (job.clone(), self.owner.clone());
                let task =
                    visits.spawn(async move { leased_visit(&visitor, &visited, &owner).await });
                running.insert(task.id(), Running { job, since: Instant::now() });
            }
            self.visitor.metrics.running.set(visits.len() as i64);
            self.visitor.metrics.domains.set(self.roster.domains() as i64);
            let nap = self.nap();
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                Some(ended) = visits.join_next_with_id(), if !visits.is_empty() => {
                    let (id, visited) = match ended {
                        Ok((id, visited)) => (id, Some(visited)),
                        Err(error) => (error.id(), None),
                    };
                    if let Some(Running { job, .. }) = running.remove(&id) {
                        // A visit that panicked is our fault, and one failed visit.
                        let now = self.now();
                        let visited = visited.unwrap_or_else(|| {
                            Visited::ours(&job.domain, now, "the visit panicked".to_owned())
                        });
                        if let Some(task) = self.ended(job, visited).await {
                            self.compare(task, &mut comparisons);
                        }
                    }
                }
                Some(ended) = comparisons.join_next(), if !comparisons.is_empty() => {
                    // Of one that panicked the domain is not known: as if it went on.
                    if let Ok(domain) = ended {
                        self.comparing.remove(&domain);
                    }
                }
                Some(found) = found.recv() => self.found(found).await,
                Some(request) = self.requests.recv() => self.take(request).await,
                Some(asked) = self.asked.recv() => match asked {
                    Asked::ByStranger(name) => self.try_out(&name).await,
                    Asked::ByOwner(names) => self.request(&names).await,
                },
                () = tokio::time::sleep(nap) => {}
            }
        }
    }

    fn now(&self) -> Timestamp {
        self.visitor.rooms.clock.now()
    }

    fn nap(&self) -> Duration {
        let until_due = self.roster.next_due().since(self.now()).max(1);
        Duration::from_millis(until_due).min(NAP)
    }

    async fn next(&mut self) -> Option<Job> {
        match self.roster.next(self.now()).await {
            Ok(job) => job,
            Err(error) => {
                tracing::warn!(%error, "who is due could not be read");
                None
            }
        }
    }

    async fn found(&mut self, found: Found) {
        if let Err(error) = self.roster.found(found, self.now()).await {
            tracing::warn!(%error, "names that lack rows could not be written");
        }
    }

    /// Reads what is written of a domain.
    async fn fetch(&mut self, domain: &Domain) -> Result<(), Error> {
        self.roster.fetch(domain, self.now()).await.map_err(Error::Frontier)
    }

    async fn take(&mut self, request: Request) {
        let now = self.now();
        let Request { name, reason, what, answer } = request;
        let domain = name.domain().clone();
        let name = match self.is_forgotten(&name).await {
            true => Name::Domain(domain.clone()),
            false => name,
        };
        let taken = match self.fetch(&domain).await {
            Ok(()) => self.taken(&name, reason, what, answer.is_some(), now).await,
            Err(error) => Err(error),
        };
        match (answer, taken) {
            (Some(answer), Ok(())) => {
                self.waiting.entry(domain.clone()).or_default().next.push(answer);
            }
            (Some(answer), Err(refused)) => drop(answer.send(Err(refused))),
            (None, Ok(())) => {}
            (None, Err(error)) => {
                tracing::warn!(%domain, error = with_sources(&error), "a request was not taken");
            }
        }
        self.roster.release(&domain, now);
    }

    async fn taken(
        &mut self,
        name: &Name,
        reason: &'static str,
        what: What,
        is_waited_for: bool,
        now: Timestamp,
    ) -> Result<(), Error> {
        let domain = name.domain();
        match what {
            What::Watch => {
                if self.roster.frontier.add(name, now) {
                    self.roster.remember(name, now, 0, Some(reason)).await;
                }
                self.keep(name).await;
                if is_waited_for {
                    self.roster.frontier.urge(domain, now);
                }
                Ok(())
            }
            What::Look { keep } => {
                if let (Name::Address(address), Some(keep)) = (name, keep) {
                    self.look_for_peer(address, keep, now).await;
                }
                self.roster.frontier.look(name, now).then_some(()).ok_or(Error::Busy)
            }
            What::Explore if self.roster.frontier.is_watched(name) => Err(Error::Watched),
            What::Explore => {
                self.roster.frontier.explore(domain, now).then_some(()).ok_or(Error::Busy)
            }
        }
    }

    /// One that is watched for peers only is so for longer now.
    async fn look_for_peer(&mut self, address: &Address, keep: u64, now: Timestamp) {
        let name = Name::Address(address.clone());
        if !self.roster.frontier.is_watched(&name) {
            if self.for_peers.len() < frontier::LOOKS {
                self.for_peers.insert(address.clone(), keep);
            }
        } else if self.roster.frontier.expiry(address).is_some() {
            self.expire(address, Some(now.plus(keep)));
            self.roster.remember(&name, now, 0, None).await;
        }
    }

    fn expire(&mut self, address: &Address, until: Option<Timestamp>) -> bool {
        let is_news = self.roster.frontier.expire(address, until);
        self.expiring.set(address, self.roster.frontier.expiry(address).is_some());
        is_news
    }

    /// Somebody here asks for it: it is watched without end.
    async fn keep(&mut self, name: &Name) {
        let Name::Address(address) = name else { return };
        self.for_peers.remove(address);
        if self.expire(address, None) {
            self.roster.remember(name, self.now(), 0, None).await;
        }
    }

    async fn request(&mut self, names: &[Name]) {
        let now = self.now();
        for name in names {
            if let Err(error) = self.fetch(name.domain()).await {
                tracing::warn!(domain = %name.domain(), error = with_sources(&error), "not requested");
                continue;
            }
            self.keep(name).await;
            self.roster.frontier.request(name, now);
            self.roster.release(name.domain(), now);
        }
    }

    async fn try_out(&mut self, name: &Name) {
        if let Err(error) = self.fetch(name.domain()).await {
            return tracing::warn!(domain = %name.domain(), error = with_sources(&error), "not tried");
        }
        self.keep(name).await;
        let most = self.visitor.options.ask_delay;
        let mut random = [0; 8];
        if most > 0 && getrandom::fill(&mut random).is_err() {
            return;
        }
        let delay = u64::from_be_bytes(random) % most.saturating_add(1);
        let now = self.now();
        self.roster.frontier.try_out(name, now.plus(delay));
        self.roster.release(name.domain(), now);
    }

    /// If that cannot be said, it is asked again before the visit.
    async fn is_forgotten(&self, name: &Name) -> bool {
        let Name::Address(address) = name else { return false };
        self.visitor.is_forgotten(address).await.unwrap_or(false)
    }

    /// Looks at a domain from the other vantages, if there are any and there is
    /// room: it has its turn again.
    fn compare(&mut self, task: Task, comparisons: &mut JoinSet<Domain>) {
        if self.visitor.others.is_empty() || self.comparing.contains(&task.domain) {
            return;
        }
        if comparisons.len() >= COMPARISONS {
            return self.visitor.metrics.comparisons.with_label_values(&["skipped"]).inc();
        }
        self.comparing.insert(task.domain.clone());
        let visitor = Arc::clone(&self.visitor);
        comparisons.spawn(async move {
            visitor.compare(&task).await;
            task.domain
        });
    }

    /// The host had its hands full with us: the visit is still due, and whoever
    /// waits for it goes on waiting.
    async fn postponed(&mut self, job: &Job, at: Timestamp) {
        self.roster.frontier.postpone(&job.domain, at);
        self.lapse(job).await;
        if let Some(waiting) = self.waiting.get_mut(&job.domain) {
            waiting.next.append(&mut waiting.now);
            self.roster.frontier.urge(&job.domain, at);
        }
        if !job.partial {
            self.roster.remember(&Name::Domain(job.domain.clone()), at, job.failures, None).await;
        }
    }

    /// Forgets when mailboxes were seen that are watched no longer.
    async fn lapse(&self, job: &Job) {
        for address in &job.lapsed {
            self.expiring.set(address, false);
            // The row stays, or the sweep would watch what the log has.
            let mut batch = Batch::new();
            batch.delete(SeenRow::TABLE, address.as_str());
            if let Err(error) = self.visitor.rooms.state.apply(batch).await {
                tracing::warn!(%error, "a name could not be forgotten");
            }
        }
    }

    /// Returns what is to be looked at from elsewhere too.
    async fn ended(&mut self, job: Job, visited: Visited) -> Option<Task> {
        let now = self.now();
        let Visited { mut report, elsewhere_until } = visited;
        let pace = self.visitor.options.pace;
        if let (Outcome::HostBusy, Some(at)) = (report.outcome, report.later) {
            self.visitor.metrics.count(&report);
            self.postponed(&job, at).await;
            return None;
        }
        // A visit that got somewhere and ran out of time goes on at once.
        let unfinished = report.outcome == Outcome::Deadline && !report.users.is_empty();
        let reached = report.users.last().filter(|_| unfinished).map(|(user, _)| user.clone());
        self.roster.frontier.reached(&job.domain, reached);
        let (due, failures) = match elsewhere_until {
            Some(until) => (until, job.failures),
            None if unfinished => (now, 0),
            // Not its own failure: its turn comes when the host's does.
            None if report.later.is_some() => {
                let until = report.later.unwrap_or(now);
                (pace.after_rest(&job.domain, until), job.failures)
            }
            None if report.outcome.is_good() => {
                (pace.after_success(&job.domain, now, report.refresh), 0)
            }
            None => {
                let failures = job.failures.saturating_add(1);
                (pace.after_failure(&job.domain, now, failures), failures)
            }
        };
        let failures = if job.partial { job.failures } else { failures };
        let due = self.roster.frontier.done(&job.domain, now, due, failures);
        let settled = self.roster.frontier.settle(&job.domain, |name| is_there(&report, name));
        for name in &settled.kept {
            let Name::Address(address) = name else { continue };
            if let Some(keep) = self.for_peers.remove(address) {
                self.expire(address, Some(now.plus(keep)));
            }
        }
        for name in settled.ended.iter().filter_map(|name| name.address()) {
            self.for_peers.remove(name);
        }
        self.lapse(&job).await;
        let seen = self.visitor.still_known(std::mem::take(&mut report.seen)).await;
        // The rows of a domain that another process visits are that one's.
        if !settled.dropped && elsewhere_until.is_none() {
            let name = Name::Domain(job.domain.clone());
            self.roster.visited(&name, due, failures, &seen).await;
        } else if let Err(error) = self.roster.saw(&seen).await {
            tracing::warn!(%error, "what was seen could not be written");
        }
        if elsewhere_until.is_none() {
            self.forget(settled.ended).await;
        }
        for name in &settled.kept {
            self.roster.remember(name, due, failures, Some("asked for")).await;
        }
        self.visitor.metrics.count(&report);
        tell(&report);
        let report = Arc::new(report);
        if let Some(waiting) = self.waiting.get_mut(&job.domain) {
            // Nobody visits a domain again that is not there.
            let next = if settled.dropped { std::mem::take(&mut waiting.next) } else { Vec::new() };
            for answer in waiting.now.drain(..).chain(next) {
                let _ = answer.send(Ok(Arc::clone(&report)));
            }
            if waiting.next.is_empty() {
                self.waiting.remove(&job.domain);
            }
        }
        let task = compare::due(&job, &report, self.visitor.options.compare_every);
        let _ = self.reports.send(report);
        self.roster.release(&job.domain, now);
        task.filter(|_| !settled.dropped && elsewhere_until.is_none())
    }

    /// Removes what was noted of names that are not watched after all.
    async fn forget(&mut self, names: Vec<Name>) {
        let mut unlogged = Vec::new();
        for name in names {
            // What lapsed before is in the log, and its row says that it lapsed.
            let is_logged = match name.address() {
                Some(address) => self.visitor.is_logged(address).await,
                None => false,
            };
            if !is_logged {
                unlogged.push(name);
            }
        }
        if let Err(error) = self.roster.forget(&unlogged).await {
            tracing::warn!(%error, "names on trial could not be forgotten");
        }
    }
}

/// Whether the visit put an entry for this name into the log, or saw again what
/// is in it.
fn is_there(report: &Report, name: &Name) -> bool {
    let is_known =
        |outcome| matches!(outcome, Outcome::Confirmed | Outcome::Claimed | Outcome::NotInForce);
    let is_logged =
        |entered: &Entered| entered.name == *name && matches!(entered.placed, Placed::Version(_));
    report.entries.iter().any(is_logged)
        || report
            .users
            .iter()
            .any(|(user, outcome)| name.address() == Some(user) && is_known(*outcome))
}

/// One line per visit; domains and words, no addresses.
fn tell(report: &Report) {
    let entries = report.entries.len();
    let detail = report.detail.as_deref().unwrap_or_default();
    let (domain, outcome) = (&report.domain, report.outcome.as_str());
    if report.outcome.is_good() {
        tracing::debug!(%domain, outcome, entries, "visited");
    } else {
        tracing::info!(%domain, outcome, detail, entries, "visit failed");
    }
}

/// A visit that ended, or did not take place.
struct Visited {
    report: Report,
    /// Set if another process has the domain.
    elsewhere_until: Option<Timestamp>,
}

impl Visited {
    fn ours(domain: &Domain, now: Timestamp, detail: String) -> Visited {
        let report =
            Report { outcome: Outcome::Ours, detail: Some(detail), ..Report::new(domain, now) };
        Visited { report, elsewhere_until: None }
    }
}

impl Report {
    fn new(domain: &Domain, now: Timestamp) -> Report {
        Report {
            domain: domain.clone(),
            outcome: Outcome::Ours,
            detail: None,
            dnssec: None,
            certificate: None,
            users: Vec::new(),
            entries: Vec::new(),
            started: now,
            ended: now,
            refresh: now,
            later: None,
            previous: Timestamp::default(),
            seen: Vec::new(),
        }
    }
}

/// Takes the lease, visits within the deadline. The lease lasts as long as the
/// deadline, so nobody else visits the domain meanwhile.
async fn leased_visit(visitor: &Visitor, job: &Job, owner: &str) -> Visited {
    let now = visitor.rooms.clock.now();
    match lease(visitor, job, owner, now).await {
        Ok(None) => {}
        Ok(Some(until)) => {
            let visited = Visited::ours(&job.domain, now, "another process visits it".to_owned());
            return Visited { elsewhere_until: Some(until), ..visited };
        }
        Err(error) => return Visited::ours(&job.domain, now, with_sources(&error)),
    }
    let mut report = Report::new(&job.domain, now);
    let visit = visitor.visit(job, &mut report);
    match tokio::time::timeout(visitor.options.deadline, visit).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            report.outcome = Outcome::Ours;
            report.detail = Some(with_sources(&error));
        }
        Err(_) => report.outcome = Outcome::Deadline,
    }
    report.ended = visitor.rooms.clock.now();
    Visited { report, elsewhere_until: None }
}

/// Takes a domain's lease; `Some` says until when somebody else has it. Where
/// there can be nobody else, there is nothing to take.
async fn lease(
    visitor: &Visitor,
    job: &Job,
    owner: &str,
    now: Timestamp,
) -> Result<Option<Timestamp>, store::Error> {
    let state = &*visitor.rooms.state;
    if !state.is_shared() {
        return Ok(None);
    }
    let key = job.domain.as_str().as_bytes();
    let stored = state.get(FrontierRow::TABLE, key).await?;
    let known: Option<FrontierRow> = stored.as_deref().map(rows::decode).transpose()?;
    let due = known.as_ref().map_or(now, |row| row.due);
    if let Some(row) = known.as_ref().filter(|row| row.leased_by != owner && row.leased_until > now)
    {
        return Ok(Some(row.leased_until));
    }
    let row = FrontierRow {
        name: Name::Domain(job.domain.clone()),
        due,
        leased_until: now.plus(visitor.options.deadline.as_millis() as u64),
        leased_by: owner.to_owned(),
        failures: job.failures,
        reason: known.as_ref().map(|row| row.reason.clone()).unwrap_or_default(),
        keep_until: None,
    };
    let mut batch = Batch::new();
    batch.expect(FrontierRow::TABLE, key, stored);
    batch.frontier(known.as_ref(), Some(&row));
    Ok(match state.apply(batch).await? {
        Applied::Applied => None,
        Applied::Conflict => Some(row.leased_until),
    })
}
