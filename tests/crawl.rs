//! The crawl room against real DX servers on loopback: what becomes of good
//! hosts, of changes, of attacks, and of hosts that break every rule.
//!
//! The resolver, the state and the clock are the seams' test versions. The log
//! is a ledger that places each draft as the log does and keeps the same rows.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use syndicate::clock::Clock;
use syndicate::crawl::quota::{self, Quotas};
use syndicate::crawl::{
    Crawler, Error, Handle, Incident, IncidentKind, Incidents, Metrics, Options, Outcome, Pace,
    Placed, Report, Rooms, Sink, Unplaced, frontier,
};
use syndicate::dime::certificate::How;
use syndicate::dime::key::{Owner, PrivateKey};
use syndicate::dime::record::{Record, Template, sign_certificate};
use syndicate::dime::reply::make;
use syndicate::dime::signet::build::{self, Content, SignTo};
use syndicate::dime::signet::{Dialect, Fingerprint, Level, SecondaryKey, Signet, field};
use syndicate::dime::{Address, Dnssec, Domain, Name, Timestamp, ed25519};
use syndicate::dmtp::hosts::{Hosts, Later, Limits};
use syndicate::dmtp::reach::{self, Ports, Route, Unreached};
use syndicate::dmtp::{AddressFilter, client, tls::Roots};
use syndicate::proof::dnssec::Observed;
use syndicate::proof::draft::{Draft, Place, Placed as Entry};
use syndicate::proof::entry::{Event, Events};
use syndicate::proof::vrf;
use syndicate::resolver::{self, FixedResolver};
use syndicate::serve::dmtp::{Answer, Server, Signets};
use syndicate::serve::identity::Identity;
use syndicate::store::rows::{
    self, DomainRow, FrontierRow, Hash, LinkRow, OrgRow, QuotaRow, SeenRow, UserRow,
};
use syndicate::store::state::{Batch, Range, Table};
use syndicate::store::testing::{Answer as Denied, Fault, Faults, MemoryState, Operation};
use syndicate::store::{Blobs, State, keys};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

const HOST: &str = "dx.public.example";
const HOLD: u64 = 72 * 3_600_000;
const START: Timestamp = Timestamp::from_secs(1_800_000_000);

fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/vectors")
}

/// The reference's certificate, so that no test makes an RSA key.
fn identity() -> Identity {
    let folder = vectors().join("records");
    Identity::from_files(&folder.join("dx_cert.pem"), &folder.join("dx_key.pem")).unwrap()
}

/// The log's part: places drafts, keeps rows and blobs, remembers events.
struct Ledger {
    state: Arc<MemoryState>,
    public: Blobs,
    clock: Clock,
    vrf: vrf::SecretKey,
    told: Mutex<Vec<(Name, String)>>,
    closed: Mutex<bool>,
    doubts_clock: Mutex<bool>,
    /// The next draft of this name is placed for an earlier visit, so to say, that
    /// did not wait, and is then refused.
    unheard: Mutex<Option<Name>>,
    /// Mailboxes that the log has forgotten.
    forgotten: Mutex<Vec<Address>>,
    /// Drafts that wait now, and the most that ever did.
    waiting: Mutex<(usize, usize)>,
    /// How long a draft waits for its batch.
    batch: Mutex<Duration>,
}

#[async_trait]
impl Sink for Ledger {
    async fn submit(&self, draft: Draft, after: u64) -> Result<Placed, Unplaced> {
        if *self.closed.lock().unwrap() {
            return Err(Unplaced::Later("stopping".into()));
        }
        {
            let mut waiting = self.waiting.lock().unwrap();
            waiting.0 += 1;
            waiting.1 = waiting.1.max(waiting.0);
        }
        let batch = *self.batch.lock().unwrap();
        tokio::time::sleep(batch).await;
        self.waiting.lock().unwrap().0 -= 1;
        let state = &*self.state;
        let domain: Option<DomainRow> =
            rows::find(state, draft.domain().as_str().as_bytes()).await.unwrap();
        let user: Option<UserRow> = match &draft {
            Draft::User(draft) => rows::find(state, &rows::user_key(&draft.address)).await.unwrap(),
            _ => None,
        };
        let (version, current, held_until) = match &draft {
            Draft::User(_) => {
                user.as_ref().map_or((0, 0, None), |row| (row.version, row.current, row.held_until))
            }
            _ => domain
                .as_ref()
                .map_or((0, 0, None), |row| (row.version, row.current, row.held_until)),
        };
        if after != version {
            return Err(Unplaced::MovedOn);
        }
        let place = Place {
            time: self.clock.now(),
            version: version + 1,
            previous_current: current,
            held_until: held_until.map(Timestamp::from_millis),
            origin: "test.example/log",
            label: draft.label(&self.vrf),
            opening: [7; 32],
            domain_current: domain.as_ref().map_or(0, |row| row.current),
        };
        let entry = draft.place(&place).map_err(|why| Unplaced::Misfit(why.to_string()))?;
        for (hash, bytes) in &entry.blobs {
            self.public.put(&keys::blob(hash), bytes.clone()).await.unwrap();
        }
        let mut batch = Batch::new();
        let (name, events) = match &draft {
            Draft::Domain(draft) => {
                batch.row(&self.domain_row(domain, draft, &entry));
                (Name::Domain(draft.domain.clone()), draft.events)
            }
            Draft::User(draft) => {
                if let Some(bytes) = &draft.signet {
                    batch.put(Table::Signets, sha256(bytes).0, bytes.to_vec());
                }
                batch.row(&self.user_row(user, draft, &entry));
                (Name::Address(draft.address.clone()), draft.events)
            }
            Draft::Forget { .. } => panic!("the crawler forgets nobody"),
        };
        let _ = state.apply(batch).await.unwrap();
        self.told.lock().unwrap().push((name.clone(), events.to_string()));
        if self.unheard.lock().unwrap().take_if(|unheard| *unheard == name).is_some() {
            return Err(Unplaced::MovedOn);
        }
        Ok(Placed::Version(entry.version))
    }

    async fn is_forgotten(&self, address: &Address) -> Result<bool, Unplaced> {
        Ok(self.forgotten.lock().unwrap().contains(address))
    }

    fn doubts_clock(&self) -> bool {
        *self.doubts_clock.lock().unwrap()
    }
}

fn sha256(bytes: &[u8]) -> Hash {
    Hash(Sha256::digest(bytes).into())
}

fn numbers(events: Events) -> Vec<u32> {
    events.iter().map(Event::number).collect()
}

impl Ledger {
    fn domain_row(
        &self,
        row: Option<DomainRow>,
        draft: &syndicate::proof::draft::DomainDraft,
        entry: &Entry,
    ) -> DomainRow {
        let gone = Events::of(&[Event::RecordWithdrawn, Event::RecordExpired]);
        let mut row = row.unwrap_or_else(|| DomainRow {
            domain: draft.domain.clone(),
            version: 0,
            current: 0,
            poks: vec![],
            dnssec: draft.dnssec,
            was_secure: false,
            record: None,
            org_signet: None,
            dnssec_chain: None,
            org_signets: vec![],
            held_until: None,
            withdrawn: false,
            events: vec![],
            logged_at: Timestamp::default(),
        });
        (row.version, row.current) = (entry.version, entry.current);
        if entry.current == entry.version {
            row.poks = draft.poks.iter().copied().map(Hash).collect();
            row.note_dnssec(draft.dnssec, draft.events.contains(Event::DnssecLost));
            row.record = draft.record.as_deref().map(sha256);
            row.org_signet = draft.org_signet.as_deref().map(sha256);
            let known = row.org_signets.iter().any(|org| Some(org.signet) == row.org_signet);
            if let (Some(signet), false) = (row.org_signet, known) {
                row.org_signets.push(OrgRow { signet, version: entry.version });
            }
        }
        row.held_until = draft.hold.map(|hold| self.clock.now().plus(hold).millis());
        if !draft.events.contains(Event::DnssecBogus) {
            row.withdrawn = draft.events.intersects(gone);
        }
        row.events = numbers(draft.events);
        row.logged_at = self.clock.now();
        row
    }

    fn user_row(
        &self,
        row: Option<UserRow>,
        draft: &syndicate::proof::draft::UserDraft,
        entry: &Entry,
    ) -> UserRow {
        let mut row = row.unwrap_or_else(|| UserRow {
            address: draft.address.clone(),
            label: Hash(entry.label.0),
            version: 0,
            current: 0,
            chain: vec![],
            domain_version: 0,
            held_until: None,
            withdrawn: false,
            events: vec![],
            logged_at: Timestamp::default(),
        });
        (row.version, row.current) = (entry.version, entry.current);
        if let (true, Some(bytes)) = (entry.current == entry.version, &draft.signet) {
            let restarts = [Event::FirstSeen, Event::Gap, Event::Restarted];
            if draft.events.intersects(Events::of(&restarts)) {
                row.chain.clear();
            }
            if draft.events.intersects(Events::of(&[Event::Resigned, Event::Reissued])) {
                row.chain.pop();
            }
            row.chain.push(LinkRow {
                version: entry.version,
                signet: sha256(bytes),
                crypto: Hash(draft.crypto_sha256.unwrap()),
                level: draft.level.unwrap() as u32,
            });
            row.domain_version = draft.domain_version.unwrap_or(0);
        }
        row.held_until = draft.hold.map(|hold| self.clock.now().plus(hold).millis());
        row.withdrawn = draft.events.contains(Event::Withdrawn);
        row.events = numbers(draft.events);
        row.logged_at = self.clock.now();
        row
    }
}

/// What was reported; and who is forgotten when something is.
#[derive(Default)]
struct Evidence(Mutex<Vec<Incident>>, Mutex<Option<(Arc<Ledger>, Address)>>);

#[async_trait]
impl Incidents for Evidence {
    async fn report(&self, incident: Incident) {
        self.0.lock().unwrap().push(incident);
        let gone = self.1.lock().unwrap().take();
        if let Some((ledger, address)) = gone {
            ledger.forget(&address).await;
        }
    }
}

impl Ledger {
    /// As the log does: its row goes, and what the crawl keeps.
    async fn forget(&self, address: &Address) {
        self.forgotten.lock().unwrap().push(address.clone());
        let mut batch = Batch::new();
        batch.delete(Table::Users, rows::user_key(address));
        batch.delete(Table::Seen, address.as_str());
        let _ = self.state.apply(batch).await.unwrap();
    }
}

/// What a DX host has on its shelf.
#[derive(Default)]
struct Shelf {
    orgs: Mutex<HashMap<Domain, Signet>>,
    users: Mutex<HashMap<Address, Vec<Signet>>>,
    no_history: Mutex<bool>,
    /// Of whom it never says anything; and whoever waits until it is asked.
    slow: Mutex<Option<Address>>,
    asked: Notify,
}

#[async_trait]
impl Signets for Shelf {
    async fn org(&self, domain: &Domain, _at: Option<&Fingerprint>) -> Answer<Signet> {
        match self.orgs.lock().unwrap().get(domain) {
            Some(signet) => Answer::Found(signet.clone()),
            None => Answer::NotFound,
        }
    }

    async fn user(&self, address: &Address, _at: Option<&Fingerprint>) -> Answer<Signet> {
        if self.slow.lock().unwrap().as_ref() == Some(address) {
            self.asked.notify_one();
            std::future::pending::<()>().await;
        }
        match self.users.lock().unwrap().get(address).and_then(|chain| chain.last()) {
            Some(signet) => Answer::Found(signet.clone()),
            None => Answer::NotFound,
        }
    }

    async fn history(
        &self,
        address: &Address,
        start: Option<&Fingerprint>,
        _stop: Option<&Fingerprint>,
    ) -> Answer<Vec<Signet>> {
        if *self.no_history.lock().unwrap() {
            return Answer::NotFound;
        }
        let users = self.users.lock().unwrap();
        let Some(chain) = users.get(address) else { return Answer::NotFound };
        let from = match start {
            Some(start) => chain.iter().position(|link| link.matches(start)),
            None => Some(0),
        };
        match from {
            Some(from) => Answer::Found(chain[from..].to_vec()),
            None => Answer::NotFound,
        }
    }
}

/// A private DIME internet with one mirror's crawler in it.
struct World {
    resolver: Arc<FixedResolver>,
    shelf: Arc<Shelf>,
    ledger: Arc<Ledger>,
    state: Arc<MemoryState>,
    /// What the crawler meets when it reads public blobs.
    faults: Faults,
    clock: Clock,
    evidence: Arc<Evidence>,
    handle: Handle,
    port: u16,
    der: Vec<u8>,
    crawler: JoinHandle<Result<(), Error>>,
    shutdown: CancellationToken,
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

fn options(port: u16) -> Options {
    Options {
        // Only what a test asks for is visited.
        pace: Pace { interval: 86_400_000, back_off: 86_400_000, back_off_limit: 86_400_000 },
        dx_port: port,
        dual_ports: vec![],
        // Whoever is visited is let go of, and read again when its turn comes.
        resident: 0,
        // All hosts are at one address here, and time does not go by itself.
        hosts: Limits { connections: 1000, per_second: 1000, burst: 100_000, ..Limits::default() },
        dmtp: client::Options {
            connect: Duration::from_secs(2),
            filter: AddressFilter::with_loopback(),
            roots: Roots::none(),
            ..client::Options::default()
        },
        ..Options::default()
    }
}

impl World {
    async fn new() -> World {
        World::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Options)) -> World {
        World::behind(change, None).await
    }

    /// With quotas before the log.
    async fn behind(change: impl FnOnce(&mut Options), limits: Option<quota::Limits>) -> World {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let shutdown = CancellationToken::new();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let identity = identity();
        let shelf = Arc::new(Shelf::default());
        let mut serving = syndicate::serve::dmtp::Options::new(HOST);
        serving.connections_per_client = 1000;
        let server = Server::new(shelf.clone(), identity.server_config().unwrap(), serving);
        tokio::spawn(server.run(listener, shutdown.clone()));

        let resolver = Arc::new(FixedResolver::new(Dnssec::Secure));
        resolver.set_addresses(HOST, &[IpAddr::V4(Ipv4Addr::LOCALHOST)], Dnssec::Secure);
        let clock = Clock::manual(START);
        let state = Arc::new(MemoryState::default());
        let (public, faults) = (Blobs::memory(), Faults::new());
        let ledger = Arc::new(Ledger {
            state: state.clone(),
            public: public.clone(),
            clock: clock.clone(),
            vrf: vrf::SecretKey::from_seed(&[9; 32]),
            told: Mutex::default(),
            closed: Mutex::default(),
            doubts_clock: Mutex::default(),
            unheard: Mutex::default(),
            forgotten: Mutex::default(),
            waiting: Mutex::default(),
            batch: Mutex::new(Duration::from_millis(20)),
        });
        let evidence = Arc::new(Evidence::default());
        let sink: Arc<dyn Sink> = match limits {
            None => ledger.clone(),
            Some(limits) => Arc::new(Quotas::new(
                limits,
                ledger.clone(),
                state.clone(),
                evidence.clone(),
                clock.clone(),
            )),
        };
        let rooms = Rooms {
            resolver: resolver.clone(),
            // Another path, where the same is seen.
            second_resolver: Some(resolver.clone()),
            state: state.clone(),
            public: faults.wrap_blobs(&public, "public"),
            clock: clock.clone(),
            sink,
            incidents: evidence.clone(),
        };
        let mut options = options(port);
        change(&mut options);
        let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
        let (crawler, handle) = Crawler::new(rooms, options, metrics, "test");
        let crawler = tokio::spawn(crawler.run(shutdown.clone()));
        World {
            resolver,
            shelf,
            ledger,
            state,
            faults,
            clock,
            evidence,
            handle,
            port,
            der: identity.der().to_vec(),
            crawler,
            shutdown,
        }
    }

    /// What the next process on the same state works with.
    fn rooms(&self) -> Rooms {
        Rooms {
            resolver: self.resolver.clone(),
            second_resolver: None,
            state: self.state.clone(),
            public: self.ledger.public.clone(),
            clock: self.clock.clone(),
            sink: self.ledger.clone(),
            incidents: self.evidence.clone(),
        }
    }

    /// The crawler is killed and another one begins.
    async fn restart(&mut self) {
        self.crawler.abort();
        let _ = (&mut self.crawler).await;
        let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
        let (crawler, handle) = Crawler::new(self.rooms(), options(self.port), metrics, "second");
        self.crawler = tokio::spawn(crawler.run(self.shutdown.clone()));
        self.handle = handle;
    }

    async fn frontier_row(&self, name: &str) -> Option<FrontierRow> {
        rows::find(&*self.state, &rows::frontier_key(&name.parse().unwrap())).await.unwrap()
    }

    /// A record with POKs of these numbers that pins the test certificate.
    fn record(&self, poks: &[u8]) -> Template {
        Template {
            poks: poks.iter().map(|number| ed25519::public_key(&[*number; 32])).collect(),
            tls: vec![sign_certificate(&[poks[0]; 32], &self.der)],
            dx: vec![HOST.to_owned()],
            ..Template::default()
        }
    }

    fn publish(&self, domain: &str, text: &str) {
        self.resolver.set_txt(&format!("_dime.{domain}"), &[text], Dnssec::Secure);
    }

    /// Record and org signet of POK `number`.
    fn found(&self, domain: &str, number: u8) {
        self.publish(domain, &self.record(&[number]).text());
        let signet = build::org(&key(Owner::Org, number), Dialect::L, &[], &[], SignTo::Id(domain));
        self.shelf.orgs.lock().unwrap().insert(domain.parse().unwrap(), signet.unwrap());
    }

    fn serve(&self, address: &str, chain: &[Signet]) {
        self.shelf.users.lock().unwrap().insert(address.parse().unwrap(), chain.to_vec());
    }

    async fn visit(&self, name: &str) -> Arc<Report> {
        self.clock.advance(1000);
        self.handle.visit(name.parse().unwrap(), "test").await.unwrap()
    }

    /// Events told since last asked, without names.
    fn told(&self) -> Vec<String> {
        let told: Vec<_> = self.ledger.told.lock().unwrap().drain(..).collect();
        told.into_iter().map(|(_, events)| events).collect()
    }

    /// Of what failed validation, since last asked; alarms are no part of that.
    fn incidents(&self) -> Vec<IncidentKind> {
        let kept = self.kept().into_iter().map(|incident| incident.kind);
        kept.filter(|kind| !matches!(kind, IncidentKind::Alarm(_))).collect()
    }

    /// All incidents since last asked.
    fn kept(&self) -> Vec<Incident> {
        self.evidence.0.lock().unwrap().drain(..).collect()
    }

    async fn user_row(&self, address: &str) -> UserRow {
        let key = rows::user_key(&address.parse().unwrap());
        rows::find(&*self.state, &key).await.unwrap().unwrap()
    }

    async fn domain_row(&self, domain: &str) -> DomainRow {
        rows::find(&*self.state, domain.as_bytes()).await.unwrap().unwrap()
    }

    async fn seen(&self, name: &str) -> SeenRow {
        rows::find(&*self.state, name.as_bytes()).await.unwrap().unwrap()
    }
}

fn key(owner: Owner, number: u8) -> PrivateKey {
    PrivateKey::from_secrets(owner, [number; 32], [number; 32]).unwrap()
}

/// The signet of user key `number`, with custody by `previous`, signed by the
/// POK `org`.
fn link(address: &str, number: u8, previous: Option<u8>, org: u8) -> Signet {
    let previous = previous.map(|number| key(Owner::User, number));
    let request = build::request(&key(Owner::User, number), Dialect::L, previous.as_ref()).unwrap();
    build::user(&request, &[org; 32], &[], SignTo::Id(address)).unwrap()
}

const X: &str = "x@a.example";

#[tokio::test]
async fn a_domain_is_crawled_from_record_to_entries() {
    let world = World::new().await;
    world.found("a.example", 1);
    let chain = [link(X, 11, None, 1), link(X, 12, Some(11), 1), link(X, 13, Some(12), 1)];
    world.serve(X, &chain);

    let report = world.visit(X).await;
    assert_eq!(report.outcome, Outcome::Changed, "{:?}", report.detail);
    assert!(matches!(report.certificate, Some(How::Pin(_))));
    assert_eq!(report.users.len(), 1);
    assert_eq!(report.users[0].1, Outcome::Changed);
    assert_eq!(world.told(), ["FIRST_SEEN", "FIRST_SEEN", "ROTATED", "ROTATED"]);
    let row = world.user_row(X).await;
    assert_eq!((row.version, row.current, row.chain.len(), row.domain_version), (3, 3, 3, 1));
    assert_eq!(row.held_until, None);
    let seen = world.seen(X).await;
    assert_eq!((seen.version, seen.confirmed_at), (3, world.clock.now()));

    // The same again: no entry, and the time of confirmation moves on.
    let report = world.visit("a.example").await;
    assert_eq!(report.outcome, Outcome::Confirmed);
    assert_eq!(report.users[0].1, Outcome::Confirmed);
    assert_eq!(world.told(), [""; 0]);
    assert_eq!(world.seen(X).await.confirmed_at, world.clock.now());
    assert_eq!(world.seen("a.example").await.confirmed_at, world.clock.now());
    assert_eq!(world.incidents(), []);
}

#[tokio::test]
async fn every_change_of_a_mailbox_has_its_event() {
    let world = World::new().await;
    world.found("a.example", 1);
    let a = link(X, 11, None, 1);
    let b = link(X, 12, Some(11), 1);
    let stray = link(X, 14, None, 1);
    let after_stray = link(X, 15, Some(14), 1);
    let fork = link(X, 16, Some(14), 1);
    let steps: &[(&[&Signet], &[&str], Outcome)] = &[
        (&[&a], &["FIRST_SEEN", "FIRST_SEEN"], Outcome::Changed),
        (&[&a, &b], &["ROTATED"], Outcome::Changed),
        (&[&a], &["REVERTED"], Outcome::NotInForce),
        (&[&a], &[], Outcome::NotInForce),
        (&[&a, &b], &[], Outcome::Confirmed),
        (&[], &["WITHDRAWN"], Outcome::NotFound),
        (&[], &[], Outcome::NotFound),
        (&[&b], &["REISSUED"], Outcome::Changed),
        (&[&stray], &["RESTARTED"], Outcome::Changed),
        (&[&stray, &after_stray], &["ROTATED"], Outcome::Changed),
        (&[&stray, &fork], &["FORKED"], Outcome::NotInForce),
        (&[&stray, &fork], &[], Outcome::NotInForce),
        (&[&stray, &after_stray], &[], Outcome::Confirmed),
    ];
    for (step, (chain, events, outcome)) in steps.iter().enumerate() {
        let chain: Vec<Signet> = chain.iter().map(|link| (*link).clone()).collect();
        world.serve(X, &chain);
        let report = world.visit(X).await;
        assert_eq!(world.told(), *events, "step {step}");
        assert_eq!(report.users[0].1, *outcome, "step {step}");
    }
    let row = world.user_row(X).await;
    assert_eq!((row.version, row.current), (8, 7));
    assert_eq!(row.held_until, Some(world.clock.now().millis() - 2000 + HOLD));
    assert_eq!(world.incidents(), []);
}

/// What was in force and what was received, of each alarm since last asked.
fn alarms(world: &World) -> Vec<(Event, Bytes, Bytes)> {
    let alarm = |incident: Incident| match incident.kind {
        IncidentKind::Alarm(event) => {
            assert_eq!(incident.why.rule, event.name());
            Some((event, incident.before, incident.bytes))
        }
        _ => None,
    };
    world.kept().into_iter().filter_map(alarm).collect()
}

#[tokio::test]
async fn an_alarm_of_a_mailbox_keeps_both_signets() {
    let world = World::new().await;
    world.found("a.example", 1);
    let a = link(X, 11, None, 1);
    let b = link(X, 12, Some(11), 1);
    let gap = link(X, 19, Some(99), 1);
    let stray = link(X, 14, None, 1);
    let fork = link(X, 16, Some(14), 1);
    let after_stray = link(X, 15, Some(14), 1);
    // DMTP serves what is whole but for the identifiers.
    let bytes = |signet: Option<&Signet>| {
        signet.map(|signet| Bytes::copy_from_slice(&signet.full_split())).unwrap_or_default()
    };
    type Step<'a> = (&'a [&'a Signet], Option<(Event, Option<&'a Signet>)>);
    let steps: &[Step<'_>] = &[
        (&[&a, &b], None),
        (&[&a], Some((Event::Reverted, Some(&b)))),
        (&[&a, &b], None),
        (&[], Some((Event::Withdrawn, Some(&b)))),
        (&[&gap], Some((Event::Gap, Some(&b)))),
        (&[&stray], Some((Event::Restarted, Some(&gap)))),
        (&[&stray, &after_stray], None),
        (&[&stray, &fork], Some((Event::Forked, Some(&after_stray)))),
        (&[&stray, &fork], None),
    ];
    for (step, (chain, expected)) in steps.iter().enumerate() {
        world.serve(X, &chain.iter().map(|link| (*link).clone()).collect::<Vec<_>>());
        world.visit(X).await;
        let expected =
            expected.map(|(event, before)| (event, bytes(before), bytes(chain.last().copied())));
        assert_eq!(alarms(&world), Vec::from_iter(expected), "step {step}");
    }
}

#[tokio::test]
async fn an_alarm_of_a_domain_keeps_both_states() {
    use syndicate::dime::record::Policy;

    let world = World::new().await;
    let state = |number: u8, text: &str| {
        let org =
            build::org(&key(Owner::Org, number), Dialect::L, &[], &[], SignTo::Id("a.example"));
        Bytes::from([text.as_bytes(), b"\n", &*org.unwrap().full_split()].concat())
    };
    let strict = |number| {
        let record = Template { policy: Policy::Strict, expiry_days: 1, ..world.record(&[number]) };
        record.text()
    };
    let publish = |number| {
        world.found("a.example", number);
        world.publish("a.example", &strict(number));
    };
    publish(1);
    world.visit("a.example").await;
    assert_eq!(alarms(&world), []);
    publish(2);
    world.visit("a.example").await;
    let (one, two) = (state(1, &strict(1)), state(2, &strict(2)));
    assert_eq!(alarms(&world), [(Event::PokReplaced, one, two.clone())]);

    let conflicting = world.record(&[3]).text();
    world.resolver.set_txt("_dx.a.example", &[&conflicting], Dnssec::Secure);
    world.visit("a.example").await;
    let both = Bytes::from(format!("{}\n{conflicting}", strict(2)));
    assert_eq!(alarms(&world), [(Event::NameConflict, two.clone(), both)]);
    world.resolver.set_txt("_dx.a.example", &[], Dnssec::Secure);

    // What came in place of an answer, as it came.
    let domain: Domain = "a.example".parse().unwrap();
    let message = Bytes::from_static(b"\0\x03dns");
    world.resolver.say_unjudged(&domain, message.clone());
    let bogus = || resolver::Error::Bogus { name: "_dime.a.example".into() };
    world.resolver.say_txt("_dime.a.example", Err(bogus()));
    world.visit("a.example").await;
    assert_eq!(alarms(&world), [(Event::DnssecBogus, two.clone(), message)]);

    // A domain that took DIME only takes other mail: that it stopped is told, not
    // that its record goes then.
    world.publish("a.example", &strict(2));
    world.visit("a.example").await;
    world.kept();
    let mixed = strict(2).replace("pol=strict", "pol=mixed");
    world.publish("a.example", &mixed);
    world.visit("a.example").await;
    let kept = world.kept();
    let kinds: Vec<_> = kept.iter().map(|incident| incident.kind).collect();
    assert_eq!(kinds, [IncidentKind::Downgrade]);
    assert_eq!((&kept[0].before, &kept[0].bytes), (&two, &state(2, &mixed)));
    world.visit("a.example").await;
    assert_eq!(world.kept().len(), 0);
    world.publish("a.example", &strict(2));
    world.visit("a.example").await;
    assert_eq!(world.kept().len(), 0);

    // It takes none: a downgrade, too.
    world.resolver.set_txt("_dime.a.example", &[], Dnssec::Secure);
    world.visit("a.example").await;
    let kept = world.kept();
    let kinds: Vec<_> = kept.iter().map(|incident| incident.kind).collect();
    assert_eq!(kinds, [IncidentKind::Alarm(Event::RecordWithdrawn), IncidentKind::Downgrade]);
    assert!(kept.iter().all(|incident| incident.before == two && incident.bytes.is_empty()));
    world.clock.advance(86_400_000);
    world.visit("a.example").await;
    let kinds: Vec<_> = world.kept().iter().map(|incident| incident.kind).collect();
    assert_eq!(kinds, [IncidentKind::Alarm(Event::RecordExpired), IncidentKind::Downgrade]);
}

#[tokio::test]
async fn without_a_history_the_tip_alone_is_judged() {
    let world = World::new().await;
    world.found("a.example", 1);
    *world.shelf.no_history.lock().unwrap() = true;
    let chain: Vec<Signet> = (11..15).map(|n| link(X, n, (n > 11).then(|| n - 1), 1)).collect();
    for (served, events) in [(1, "FIRST_SEEN"), (2, "ROTATED"), (4, "GAP")] {
        world.serve(X, &chain[..served]);
        world.visit(X).await;
        assert_eq!(world.told().last().map(String::as_str), Some(events));
    }
    assert!(world.user_row(X).await.held_until.is_some());
}

#[tokio::test]
async fn a_rollover_of_the_pok_keeps_old_links_valid() {
    let world = World::new().await;
    world.found("a.example", 1);
    let a = link(X, 11, None, 1);
    let b = link(X, 12, Some(11), 1);
    let c = link(X, 13, Some(12), 2);
    world.serve(X, std::slice::from_ref(&a));
    world.visit(X).await;
    world.told();

    // The new key overlaps; the mailbox rotates twice meanwhile, once under each.
    world.found("a.example", 2);
    world.publish("a.example", &world.record(&[2, 1]).text());
    world.serve(X, &[a.clone(), b.clone(), c.clone()]);
    world.visit(X).await;
    assert_eq!(
        world.told(),
        ["POK_ADDED, ORG_SIGNET_CHANGED, RECORD_CHANGED", "ROTATED", "ROTATED"]
    );
    assert_eq!(world.user_row(X).await.domain_version, 2);

    // Signed again by the new key: no custody is involved, and no alarm.
    world.publish("a.example", &world.record(&[2]).text());
    world.visit(X).await;
    assert_eq!(world.told(), ["POK_REMOVED"]);
    world.serve(X, &[a, b, link(X, 13, Some(12), 2)]);
    world.visit(X).await;
    assert_eq!(world.told(), [""; 0]);
    assert_eq!(world.incidents(), []);
}

#[tokio::test]
async fn a_signer_that_retired_is_no_incident() {
    let world = World::new().await;
    world.found("a.example", 1);
    world.serve(X, &[link(X, 11, None, 1)]);
    world.visit(X).await;
    world.found("a.example", 2);
    world.told();
    let report = world.visit(X).await;
    assert_eq!(world.told(), ["POK_REPLACED, ORG_SIGNET_CHANGED, RECORD_CHANGED"]);
    assert_eq!(report.users[0].1, Outcome::Confirmed);
    assert_eq!(world.incidents(), []);
    assert!(world.domain_row("a.example").await.held_until.is_some());
    world.serve(X, &[link(X, 11, None, 2)]);
    world.visit(X).await;
    assert_eq!(world.told(), ["RESIGNED"]);
}

#[tokio::test]
async fn a_record_goes_expires_and_comes_back() {
    let world = World::new().await;
    world.found("a.example", 1);
    let record = Template { expiry_days: 1, ..world.record(&[1]) };
    world.publish("a.example", &record.text());
    world.visit("a.example").await;
    assert_eq!(world.told(), ["FIRST_SEEN"]);
    let nothing = |world: &World| world.resolver.set_txt("_dime.a.example", &[], Dnssec::Secure);
    nothing(&world);
    let report = world.visit("a.example").await;
    assert_eq!(
        (report.outcome, world.told()),
        (Outcome::RecordGone, vec!["RECORD_WITHDRAWN".into()])
    );
    let row = world.domain_row("a.example").await;
    assert_eq!((row.version, row.current, row.withdrawn), (2, 1, true));
    world.visit("a.example").await;
    assert_eq!(world.told(), [""; 0]);
    world.clock.advance(86_400_000);
    world.visit("a.example").await;
    assert_eq!(world.told(), ["RECORD_EXPIRED"]);
    assert_eq!(world.domain_row("a.example").await.current, 0);
    world.visit("a.example").await;
    assert_eq!(world.told(), [""; 0]);
    // Coming back with another key is a replacement, and is held.
    world.found("a.example", 3);
    world.visit("a.example").await;
    assert_eq!(world.told(), ["POK_REPLACED, ORG_SIGNET_CHANGED, RECORD_CHANGED"]);
    let row = world.domain_row("a.example").await;
    assert_eq!((row.version, row.current), (4, 4));
    assert!(row.held_until.is_some());
}

/// §1.8: clients that have the record go by it until it expires, and so do we.
#[tokio::test]
async fn mailboxes_are_looked_at_while_a_record_that_is_gone_is_in_force() {
    const DAY: u64 = 86_400_000;
    let world = World::new().await;
    world.found("a.example", 1);
    let record = Template { expiry_days: 3, ..world.record(&[1]) };
    world.publish("a.example", &record.text());
    world.serve(X, &[link(X, 11, None, 1)]);
    // The pin is enough where the record is known to have been secure.
    let record = Some(record.text().into_bytes());
    let (since, until) = (START, START.plus(DAY));
    let observed = Observed { dnssec: Dnssec::Secure, record, since, until };
    let evidence = resolver::Evidence { chain: Bytes::from_static(b"a chain"), observed };
    world.resolver.say_evidence(&"a.example".parse().unwrap(), Ok(Some(evidence)));
    world.visit(X).await;
    world.told();
    world.resolver.set_txt("_dime.a.example", &[], Dnssec::Secure);
    let report = world.visit(X).await;
    assert_eq!(world.told(), ["RECORD_WITHDRAWN"]);
    assert_eq!(report.outcome, Outcome::RecordGone);
    assert_eq!(report.users.len(), 1);
    assert_eq!(report.users[0].1, Outcome::Confirmed);

    world.clock.advance(DAY);
    world.serve(X, &[link(X, 12, None, 1)]);
    assert_eq!(world.visit(X).await.users.len(), 1);
    assert_eq!(world.told(), ["RESTARTED"]);
    assert_eq!(world.user_row(X).await.domain_version, 1);

    world.clock.advance(2 * DAY);
    world.serve(X, &[link(X, 13, None, 1)]);
    assert_eq!(world.visit(X).await.users.len(), 0);
    assert_eq!(world.told(), ["RECORD_EXPIRED"]);
}

/// A look at a record whose time still runs keeps its end, whatever the record
/// says by then (§1.8): whoever takes over a zone cannot shorten it.
#[tokio::test]
async fn a_refresh_keeps_the_end_of_a_record() {
    let world = World::new().await;
    world.found("a.example", 1);
    let lasting = |days| Template { expiry_days: days, ..world.record(&[1]) }.text();
    let end = async || world.seen("a.example").await.validity.unwrap().1;
    world.publish("a.example", &lasting(2));
    world.visit("a.example").await;
    assert_eq!(world.told(), ["FIRST_SEEN"]);
    let first = end().await;
    assert_eq!(first, world.clock.now().millis() + 2 * 86_400_000);
    let without = lasting(0);
    assert!(!without.contains("exp="));
    for (text, told) in [
        (lasting(2), &[][..]),
        (without.clone(), &["RECORD_CHANGED"]),
        (lasting(9), &["RECORD_CHANGED"]),
        (without, &["RECORD_CHANGED"]),
    ] {
        world.clock.advance(8 * 3_600_000);
        world.publish("a.example", &text);
        world.visit("a.example").await;
        assert_eq!((world.told().as_slice(), end().await), (&*strings(told), first), "{text}");
    }
    // Gone in that time, and after it.
    world.resolver.set_txt("_dime.a.example", &[], Dnssec::Secure);
    world.visit("a.example").await;
    assert_eq!(world.told(), ["RECORD_WITHDRAWN"]);
    assert_eq!(world.domain_row("a.example").await.current, 4);
    world.clock.advance(16 * 3_600_000);
    world.visit("a.example").await;
    assert_eq!(world.told(), ["RECORD_EXPIRED"]);

    // One that is there when its time is over begins another.
    world.found("b.example", 1);
    world.publish("b.example", &lasting(1));
    world.visit("b.example").await;
    world.clock.advance(25 * 3_600_000);
    world.publish("b.example", &lasting(3));
    world.visit("b.example").await;
    assert_eq!(world.told(), ["FIRST_SEEN", "RECORD_CHANGED"]);
    let (start, end) = world.seen("b.example").await.validity.unwrap();
    assert_eq!((start, end), (world.clock.now().millis(), start + 3 * 86_400_000));
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[tokio::test]
async fn bogus_conflicting_and_broken_answers_are_told_apart() {
    let world = World::new().await;
    world.found("a.example", 1);
    world.visit("a.example").await;
    world.told();

    let bogus = || resolver::Error::Bogus { name: "_dime.a.example".into() };
    world.resolver.say_txt("_dime.a.example", Err(bogus()));
    for expected in [vec!["DNSSEC_BOGUS".to_owned()], vec![]] {
        let report = world.visit("a.example").await;
        assert_eq!((report.outcome, world.told()), (Outcome::DnsBogus, expected));
    }
    assert_eq!(world.domain_row("a.example").await.current, 1);

    let timeout = resolver::Error::Timeout { name: "_dime.a.example".into() };
    world.resolver.say_txt("_dime.a.example", Err(timeout));
    assert_eq!(world.visit("a.example").await.outcome, Outcome::DnsFailed);
    assert_eq!(world.told(), [""; 0]);

    let record = world.record(&[1]).text();
    world.publish("a.example", &record);
    world.resolver.set_txt("_dx.a.example", &[&world.record(&[2]).text()], Dnssec::Secure);
    world.visit("a.example").await;
    assert_eq!(world.told(), ["NAME_CONFLICT"]);
    world.visit("a.example").await;
    assert_eq!(world.told(), [""; 0]);
    // The name that clients ask has other keys again.
    let swap = |number: u8| {
        let dx = world.record(&[number]).text();
        world.resolver.set_txt("_dx.a.example", &[&dx], Dnssec::Secure);
    };
    swap(3);
    for expected in [vec!["NAME_CONFLICT".to_owned()], vec![]] {
        world.visit("a.example").await;
        assert_eq!(world.told(), expected);
    }
    assert_eq!(world.incidents(), []);
    // So it has where the name that counts is broken, which hides nothing.
    let broken = format!("{record} ver=2");
    world.publish("a.example", &broken);
    assert_eq!(world.visit("a.example").await.outcome, Outcome::RecordRefused);
    assert_eq!(world.told(), [""; 0]);
    swap(4);
    for expected in [vec!["NAME_CONFLICT".to_owned()], vec![]] {
        assert_eq!(world.visit("a.example").await.outcome, Outcome::RecordRefused);
        assert_eq!(world.told(), expected);
    }
    let row = world.domain_row("a.example").await;
    assert_eq!((row.current, row.poks.len()), (row.version, 1));
    assert_eq!(row.poks[0].0, ed25519::public_key(&[1; 32]));
    let told = alarms(&world).pop().map(|(event, _, texts)| (event, texts));
    let texts = format!("{broken}\n{}", world.record(&[4]).text());
    assert_eq!(told, Some((Event::NameConflict, texts.into())));
    world.resolver.set_txt("_dx.a.example", &[], Dnssec::Secure);

    assert_eq!(world.visit("a.example").await.outcome, Outcome::RecordRefused);
    world.resolver.set_txt("_dime.a.example", &[&record, &record], Dnssec::Secure);
    assert_eq!(world.visit("a.example").await.outcome, Outcome::RecordAmbiguous);
    assert_eq!(world.told(), [""; 0]);
    assert_eq!(world.incidents(), [IncidentKind::RecordRefused, IncidentKind::RecordAmbiguous]);
}

/// Reference §1.7: a record above may cover, stand in for, or rule out a name.
#[tokio::test]
async fn a_record_above_decides_for_the_names_below() {
    use syndicate::dime::record::Subdomain;

    let world = World::new().await;
    let below = "mail.a.example";
    let publish_above = |number, subdomain| {
        let record = Template { subdomain, ..world.record(&[number]) };
        world.publish("a.example", &record.text());
    };
    let poks = async || world.domain_row(below).await.poks;
    let pok = |number: u8| vec![Hash(ed25519::public_key(&[number; 32]))];
    // The org signet of the name below, valid under POK 1, which is above.
    world.found(below, 1);
    world.resolver.set_txt(&format!("_dime.{below}"), &[], Dnssec::Secure);

    publish_above(1, Subdomain::Explicit);
    assert_eq!(world.visit(below).await.outcome, Outcome::NoRecord);
    publish_above(1, Subdomain::Relaxed);
    let report = world.visit(below).await;
    assert_eq!(report.outcome, Outcome::Changed, "{:?}", report.detail);
    assert_eq!((world.told(), poks().await), (vec!["FIRST_SEEN".into()], pok(1)));
    // Without a chain that proves it the entry does not say secure.
    assert_eq!(world.domain_row(below).await.dnssec, Dnssec::Indeterminate);

    world.found(below, 2);
    world.visit(below).await;
    assert_eq!(poks().await, pok(2));
    publish_above(1, Subdomain::Strict);
    world.visit(below).await;
    assert_eq!(poks().await, pok(1));
    world.told();

    // Whoever can stop the answer above does not choose the record.
    let timeout = resolver::Error::Timeout { name: "_dime.a.example".into() };
    world.resolver.say_txt("_dime.a.example", Err(timeout));
    assert_eq!(world.visit(below).await.outcome, Outcome::DnsFailed);
    assert_eq!((world.told(), poks().await), (vec![], pok(1)));
}

/// An entry says secure or insecure only with the chain that proves just that.
#[tokio::test]
async fn a_status_is_logged_with_its_chain_or_not_at_all() {
    let world = World::new().await;
    world.found("a.example", 1);
    let domain: Domain = "a.example".parse().unwrap();
    let text = |poks: &[u8]| world.record(poks).text();
    let evidence = |dnssec, record: Option<String>| {
        let observed = Observed {
            dnssec,
            record: record.map(String::into_bytes),
            since: START,
            until: START.plus(86_400_000),
        };
        Some(resolver::Evidence { chain: Bytes::from_static(b"a chain"), observed })
    };
    let say = |evidence| world.resolver.say_evidence(&domain, Ok(evidence));
    let status = async || world.domain_row("a.example").await.dnssec;

    // Without a chain, and with one about another record or another status.
    world.visit("a.example").await;
    assert_eq!(world.told(), ["FIRST_SEEN"]);
    assert_eq!(status().await, Dnssec::Indeterminate);
    for wrong in [
        evidence(Dnssec::Secure, Some(text(&[2]))),
        evidence(Dnssec::Secure, None),
        evidence(Dnssec::Insecure, None),
    ] {
        say(wrong);
        world.visit("a.example").await;
        assert_eq!(world.told(), [""; 0]);
    }
    say(evidence(Dnssec::Secure, Some(text(&[1]))));
    world.visit("a.example").await;
    assert_eq!((world.told(), status().await), (vec!["DNSSEC_GAINED".into()], Dnssec::Secure));
    // What was proved is not lost while nothing changes and no chain is had.
    say(None);
    world.visit("a.example").await;
    assert_eq!(world.told(), [""; 0]);
    world.publish("a.example", &text(&[1, 2]));
    world.visit("a.example").await;
    // What changes is logged without its proof, and accuses nobody of losing it.
    assert_eq!(world.told(), ["POK_ADDED"]);
    assert_eq!(status().await, Dnssec::Indeterminate);
    assert_eq!(alarms(&world), []);
    // One that does not outlast an entry is not in it, but in the incident.
    let brief = evidence(Dnssec::Secure, Some(text(&[3]))).map(|mut brief| {
        brief.observed.until = world.clock.now().plus(600_000);
        brief
    });
    say(brief);
    world.publish("a.example", &text(&[3]));
    world.visit("a.example").await;
    assert_eq!(world.told(), ["POK_REPLACED, RECORD_CHANGED"]);
    assert_eq!(status().await, Dnssec::Indeterminate);
    let alarm = |incident: &Incident| matches!(incident.kind, IncidentKind::Alarm(_));
    let chains = world.kept().into_iter().filter(alarm).map(|incident| incident.chain);
    assert_eq!(chains.collect::<Vec<_>>(), [Bytes::from_static(b"a chain")]);
    // Insecure: the chain shows the cut and not the record. That it was secure is not
    // forgotten.
    world.resolver.set_txt("_dime.a.example", &[&text(&[1])], Dnssec::Insecure);
    say(evidence(Dnssec::Insecure, None));
    world.visit("a.example").await;
    assert_eq!(world.told(), ["POK_REPLACED, RECORD_CHANGED, DNSSEC_LOST"]);
    assert_eq!(status().await, Dnssec::Insecure);
    // A pin alone is not enough there.
    assert_eq!(world.incidents(), [IncidentKind::CertificateMismatch]);

    // What was first logged without the denial is told again with it, once.
    let name: Domain = "b.example".parse().unwrap();
    world.resolver.set_txt("_dime.b.example", &[&text(&[1])], Dnssec::Insecure);
    world.visit("b.example").await;
    assert_eq!(world.told(), ["FIRST_SEEN"]);
    assert_eq!(world.domain_row("b.example").await.dnssec, Dnssec::Indeterminate);
    world.resolver.say_evidence(&name, Ok(evidence(Dnssec::Insecure, None)));
    world.visit("b.example").await;
    world.visit("b.example").await;
    assert_eq!(world.told(), ["RECORD_CHANGED"]);
    assert_eq!(world.domain_row("b.example").await.dnssec, Dnssec::Insecure);
}

#[tokio::test]
async fn a_bogus_answer_on_one_path_only_is_no_event() {
    let world = World::new().await;
    world.found("a.example", 1);
    world.visit("a.example").await;
    assert_eq!(world.told(), ["FIRST_SEEN"]);
    let second = Arc::new(FixedResolver::new(Dnssec::Secure));
    second.set_txt("_dime.a.example", &[&world.record(&[1]).text()], Dnssec::Secure);
    let bogus = resolver::Error::Bogus { name: "_dime.a.example".into() };
    world.resolver.say_txt("_dime.a.example", Err(bogus));
    // The second path is another resolver, which sees nothing wrong; or there is
    // none, and asking the same one again would prove nothing.
    for second_resolver in [Some(second as Arc<dyn resolver::Resolver>), None] {
        let rooms = Rooms { second_resolver, ..world.rooms() };
        let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
        let (crawler, handle) = Crawler::new(rooms, options(world.port), metrics, "other");
        tokio::spawn(crawler.run(world.shutdown.clone()));
        let report = handle.visit("a.example".parse().unwrap(), "test").await.unwrap();
        assert_eq!(report.outcome, Outcome::DnsBogusUnconfirmed);
        assert_eq!((world.told(), world.kept().len()), (vec![], 0));
    }
}

#[tokio::test]
async fn what_fails_validation_is_never_a_version() {
    let world = World::new().await;
    world.found("a.example", 1);
    let y = "y@a.example";
    world.serve(X, &[link(X, 11, None, 8)]); // signed by nobody
    world.serve(y, &[link(y, 21, None, 1)]);
    world.serve("z@a.example", &[link(X, 12, None, 7)]);
    world.handle.watch(y.parse().unwrap(), "test").await.unwrap();
    world.handle.watch("z@a.example".parse().unwrap(), "test").await.unwrap();
    let report = world.visit(X).await;
    let outcomes: BTreeMap<&str, Outcome> =
        report.users.iter().map(|(address, outcome)| (address.local(), *outcome)).collect();
    assert_eq!(outcomes["x"], Outcome::SignetInvalid);
    assert!(outcomes["y"].is_good());
    assert_eq!(outcomes["z"], Outcome::SignetInvalid);
    assert_eq!(world.told(), ["FIRST_SEEN", "FIRST_SEEN"]);
    // Several visits may have seen them; each is one incident.
    let incidents = world.kept();
    let by_id: BTreeMap<[u8; 32], &Incident> =
        incidents.iter().map(|incident| (incident.id(), incident)).collect();
    assert_eq!(by_id.len(), 2);
    assert!(by_id.values().all(|incident| incident.kind == IncidentKind::SignetInvalid));
    assert!(by_id.values().all(|incident| !incident.bytes.is_empty()));
    assert!(by_id.values().all(|incident| incident.why.rule == "signer"));

    // An org signet under another POK than the record's.
    let org = build::org(&key(Owner::Org, 5), Dialect::L, &[], &[], SignTo::Full).unwrap();
    world.shelf.orgs.lock().unwrap().insert("a.example".parse().unwrap(), org);
    let report = world.visit(X).await;
    assert_eq!(report.outcome, Outcome::OrgSignetInvalid);
    assert!(world.incidents().contains(&IncidentKind::OrgSignetInvalid));
    assert_eq!(world.told(), [""; 0]);
}

#[tokio::test]
async fn a_certificate_that_no_pin_matches_is_refused_and_kept() {
    let world = World::new().await;
    world.found("a.example", 1);
    let record = Template { tls: vec![sign_certificate(&[1; 32], b"other")], ..world.record(&[1]) };
    world.publish("a.example", &record.text());
    let report = world.visit("a.example").await;
    assert_eq!(report.outcome, Outcome::Dx("certificate"));
    let incidents = world.kept();
    assert_eq!(incidents[0].kind, IncidentKind::CertificateMismatch);
    assert_eq!(incidents[0].bytes, world.der);
    // The record itself is still an observation.
    assert_eq!(world.told(), ["FIRST_SEEN"]);
}

#[tokio::test]
async fn strangers_do_not_send_us_into_private_networks() {
    let world = World::with(|options| options.dmtp.filter = AddressFilter::default()).await;
    world.found("a.example", 1);
    let report = world.visit("a.example").await;
    assert_eq!(report.outcome, Outcome::Dx("forbidden-address"));
}

/// What a bad DX host says after the handshake, or before it.
#[derive(Clone, Copy)]
enum Bad {
    NoTls,
    Banner(&'static str),
    /// After a good banner: this to every command.
    Reply(&'static str),
    /// This, and then the end.
    Cut(&'static str),
    Flood,
    Silent,
}

/// Serves badly on `127.0.0.n` at the world's port.
async fn bad_host(world: &World, n: u8, bad: Bad) -> String {
    let ip = Ipv4Addr::new(127, 0, 0, n);
    let listener = TcpListener::bind(SocketAddr::from((ip, world.port))).await.unwrap();
    let host = format!("bad{n}.example");
    world.resolver.set_addresses(&host, &[IpAddr::V4(ip)], Dnssec::Secure);
    let acceptor = TlsAcceptor::from(identity().server_config().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if let Bad::NoTls = bad {
                    let _ = stream.write_all(b"220 plain text\r\n").await;
                    return;
                }
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let banner = match bad {
                    Bad::Banner(banner) => banner,
                    _ => "220 <dx> DMTPv1 test\r\n",
                };
                let _ = stream.write_all(banner.as_bytes()).await;
                let mut line = [0; 1024];
                while let Ok(1..) = stream.read(&mut line).await {
                    let said = match bad {
                        Bad::Reply(reply) => stream.write_all(reply.as_bytes()).await,
                        Bad::Cut(reply) => {
                            let _ = stream.write_all(reply.as_bytes()).await;
                            let _ = stream.shutdown().await;
                            return;
                        }
                        Bad::Flood => {
                            let chunk = [b'A'; 16 * 1024];
                            while stream.write_all(&chunk).await.is_ok() {}
                            return;
                        }
                        _ => Ok(()),
                    };
                    if said.is_err() {
                        return;
                    }
                }
            });
        }
    });
    host
}

#[tokio::test]
async fn bad_hosts_each_have_their_reason_and_the_crawler_goes_on() {
    let world = World::new().await;
    let table = [
        (Bad::NoTls, "tls"),
        (Bad::Banner("220 hello\r\n"), "banner"),
        (Bad::Reply("nonsense\r\n"), "malformed"),
        (Bad::Reply("250 OK [####]\r\n"), "malformed"),
        (Bad::Reply("250 OK []\r\n"), "org-signet-invalid"),
        (Bad::Reply("250 OK [BwAA]\r\n"), "org-signet-invalid"),
        (Bad::Reply("451 DATA CORRUPTED\r\n"), "refused"),
        (Bad::Reply("450 SIGNET NOT FOUND.\r\n"), "not-found"),
        (Bad::Cut("250 OK [AAAA"), "truncated"),
        (Bad::Cut(""), "truncated"),
        (Bad::Flood, "oversized"),
    ];
    let mut expected = BTreeMap::new();
    for (n, (bad, reason)) in (10u8..).zip(table) {
        let host = bad_host(&world, n, bad).await;
        let domain = format!("d{n}.example");
        let record = Template { dx: vec![host], ..world.record(&[1]) };
        world.publish(&domain, &record.text());
        expected.insert(domain, reason);
    }
    // Nobody listens there; no such host; a good one at the end.
    world.resolver.set_addresses(
        "none.example",
        &[IpAddr::V4(Ipv4Addr::new(127, 9, 9, 9))],
        Dnssec::Secure,
    );
    for (domain, host, reason) in [
        ("e1.example", "none.example", "unreachable"),
        ("e2.example", "nowhere.example", "no-host"),
        ("e3.example", "not_a_host:x", "no-host"),
    ] {
        let record = Template { dx: vec![host.to_owned()], ..world.record(&[1]) };
        world.publish(domain, &record.text());
        expected.insert(domain.to_owned(), reason);
    }
    world.found("good.example", 1);
    expected.insert("good.example".to_owned(), "changed");
    each_as_expected(&world, &expected).await;
}

/// Apart from the others, for whom a busy machine may need as long.
#[tokio::test]
async fn a_silent_host_is_slow() {
    let world = World::with(|options| options.dmtp.reply = Duration::from_millis(500)).await;
    let host = bad_host(&world, 30, Bad::Silent).await;
    let record = Template { dx: vec![host], ..world.record(&[1]) };
    world.publish("silent.example", &record.text());
    let expected = BTreeMap::from([("silent.example".to_owned(), "slow")]);
    each_as_expected(&world, &expected).await;
}

async fn each_as_expected(world: &World, expected: &BTreeMap<String, &str>) {
    let visits = expected.keys().map(|domain| world.handle.visit(domain.parse().unwrap(), "test"));
    for report in futures::future::join_all(visits).await {
        let report = report.unwrap();
        let domain = report.domain.as_str();
        assert_eq!(report.outcome.as_str(), expected[domain], "{domain}: {:?}", report.detail);
    }
    // Every record was an observation, whatever the DX did.
    assert!(world.told().iter().all(|events| events == "FIRST_SEEN"));
}

/// Names below one registered domain are for nothing: together they hold a small
/// share of the places for slow visits, and whoever else is due need not wait.
#[tokio::test]
async fn one_registered_domain_does_not_hold_all_places() {
    const CONCURRENCY: usize = 8;
    const SHARE: usize = 16;
    let world = World::with(|options| {
        let hour = Duration::from_secs(3600);
        options.concurrency = CONCURRENCY;
        (options.dmtp.handshake, options.dmtp.session) = (hour, hour);
    })
    .await;
    world.found("a.example", 1);
    // Takes connections and says nothing.
    let ip = Ipv4Addr::new(127, 0, 0, 77);
    let listener = TcpListener::bind(SocketAddr::from((ip, world.port))).await.unwrap();
    world.resolver.set_addresses("dx.evil.example", &[IpAddr::V4(ip)], Dnssec::Secure);
    let held = Arc::new(Mutex::new(Vec::new()));
    let holding = held.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            holding.lock().unwrap().push(stream);
        }
    });
    for n in 0..200 {
        let domain = format!("h{n}.evil.example");
        let dx = vec!["dx.evil.example".to_owned()];
        world.publish(&domain, &Template { dx, ..world.record(&[1]) }.text());
        world.handle.watch(domain.parse().unwrap(), "test").await.unwrap();
    }
    let held = || held.lock().unwrap().len();
    while held() < SHARE {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Time for all of them to have their turn, if they could.
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(world.visit("a.example").await.outcome.is_good());
    }
    // Those that begin before the last of the share turns slow come on top.
    assert!(held() < SHARE + CONCURRENCY, "{} of them", held());
}

/// What DNS alone shows of a known domain does not wait for a host without end: a
/// forged record may name one that is kept busy.
#[tokio::test]
async fn news_from_dns_does_not_wait_long_for_a_busy_host() {
    const LONG: Duration = Duration::from_secs(600);
    // Twice as long as between two visits.
    const LATE: u64 = 2 * 86_400_000;
    let world = World::with(|options| {
        options.hosts.connections = 1;
        (options.dmtp.handshake, options.dmtp.reply) = (LONG, LONG);
    })
    .await;
    world.found("a.example", 1);
    world.serve(X, &[link(X, 11, None, 1)]);
    world.visit(X).await;
    assert_eq!(world.told(), ["FIRST_SEEN", "FIRST_SEEN"]);
    let seen = world.seen(X).await;

    // Somebody else's domain takes the only seat, and keeps it.
    let ip = Ipv4Addr::new(127, 0, 0, 70);
    let listener = TcpListener::bind(SocketAddr::from((ip, world.port))).await.unwrap();
    world.resolver.set_addresses("busy.example", &[IpAddr::V4(ip)], Dnssec::Secure);
    let at_busy = |pok| Template { dx: vec!["busy.example".into()], ..world.record(&[pok]) };
    world.publish("slow.example", &at_busy(1).text());
    let visit = |name: &'static str| {
        let handle = world.handle.clone();
        tokio::spawn(async move { handle.visit(name.parse().unwrap(), "test").await })
    };
    let slow = visit("slow.example");
    let taken = listener.accept().await.unwrap();
    // A new domain waits: its entry should have an org signet.
    world.publish("new.example", &at_busy(1).text());
    let new = visit("new.example");

    let mut reports = world.handle.reports();
    let forged = at_busy(2);
    world.publish("a.example", &forged.text());
    let waiting = visit(X);
    // A moment later the host may be free, and one entry tells all.
    let postponed = async || {
        let row: FrontierRow = rows::find(&*world.state, b"a.example").await.unwrap().unwrap();
        // By itself it is due a day later.
        row.due < world.clock.now().plus(LATE / 4)
    };
    let patience = Instant::now() + LONG / 10;
    while !postponed().await {
        assert!(Instant::now() < patience, "it was not tried");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!((world.told(), world.kept().len()), (vec![], 0));

    let mut news = async || loop {
        world.clock.advance(LATE);
        let report = tokio::time::timeout(LONG / 10, reports.recv());
        let report = report.await.expect("the record waits for the host").unwrap();
        if report.domain.as_str() == "a.example" {
            assert_eq!((report.outcome, report.users.len()), (Outcome::HostBusy, 0));
            return world.told();
        }
    };
    assert_eq!(news().await, ["POK_REPLACED, RECORD_CHANGED"]);
    let kinds: Vec<_> = world.kept().iter().map(|incident| incident.kind).collect();
    assert_eq!(kinds, [IncidentKind::Alarm(Event::PokReplaced)]);
    assert!(world.domain_row("a.example").await.held_until.is_some());

    // Each is told once.
    world.resolver.set_txt("_dx.a.example", &[&world.record(&[3]).text()], Dnssec::Secure);
    assert_eq!(news().await, ["NAME_CONFLICT"]);
    world.publish("a.example", &format!("{} ttl=60", forged.text()));
    assert_eq!(news().await, ["RECORD_CHANGED"]);
    // Its mailbox and whoever asked wait for the host.
    assert_eq!(world.seen(X).await, seen);
    assert!(!waiting.is_finished() && !slow.is_finished() && !new.is_finished());
    drop(taken);
}

/// All names of one registered domain are one visitor of a host: another that waits for
/// it has its turn, a connection that is kept for the next included.
#[tokio::test]
async fn who_waits_for_a_shared_host_has_its_turn() {
    const MINUTE: u64 = 60_000;
    let world = World::new().await;
    let hosts = Hosts::new(Limits { connections: 1, ..Limits::default() });
    let options = client::Options {
        filter: AddressFilter::with_loopback(),
        roots: Roots::none(),
        hosts: Some(hosts),
        ..client::Options::default()
    };
    let ports = Ports { dx: world.port, dual: Vec::new() };
    let record = Record::parse(world.record(&[1]).text().as_bytes()).unwrap();
    let reach = async |domain: &str| {
        let domain = domain.parse().unwrap();
        let route = Route { domain: &domain, record: &record, dnssec: Dnssec::Secure };
        let (resolver, mut mismatches) = (&*world.resolver, Vec::new());
        let reached =
            reach::reach(resolver, route, &ports, &options, &world.clock, &mut mismatches).await;
        match reached {
            Ok((session, _)) => Ok(session),
            Err(Unreached::Later { later: Later::Busy(at) }) => Err(at),
            Err(other) => panic!("{other:?}"),
        }
    };
    let first = reach("h1.evil.example").await.unwrap();
    let told = reach("a.example").await.unwrap_err();
    assert!(told > world.clock.now());
    world.clock.advance(MINUTE);
    let told = reach("a.example").await.unwrap_err();

    // Another of its names would go on with the connection, or open the next.
    assert!(options.kept.put(first).is_none());
    assert!(reach("h2.evil.example").await.is_err());
    world.clock.set(told);
    assert!(reach("h3.evil.example").await.is_err());
    let session = reach("a.example").await.unwrap();
    assert!(session.is_kept());
    // It had its turn.
    assert!(options.kept.put(session).is_none());
    assert!(reach("h4.evil.example").await.unwrap().is_kept());
}

#[tokio::test]
async fn the_next_host_is_tried_and_a_broken_session_opened_again() {
    let world = World::new().await;
    let bad = bad_host(&world, 50, Bad::Silent).await;
    world.found("a.example", 1);
    let record = Template { dx: vec!["gone.example".into(), HOST.into()], ..world.record(&[1]) };
    world.publish("a.example", &record.text());
    assert_eq!(world.visit("a.example").await.outcome, Outcome::Changed);
    // No dx: the MX hosts, then the domain itself.
    let record = Template { dx: vec![], ..world.record(&[1]) };
    world.publish("a.example", &record.text());
    let mx = |host: &str, preference| resolver::Mx { preference, host: host.to_owned() };
    let answer = resolver::Answer {
        records: vec![mx("", 0), mx(HOST, 10), mx(&bad, 20)],
        dnssec: Dnssec::Secure,
        ttl: 60,
        denial: None,
    };
    world.resolver.say_mx("a.example", Ok(answer));
    assert_eq!(world.visit("a.example").await.outcome, Outcome::Changed);
    world.found("b.example", 1);
    let record = Template { dx: vec![], ..world.record(&[1]) };
    world.publish("b.example", &record.text());
    world.resolver.set_addresses("b.example", &[IpAddr::V4(Ipv4Addr::LOCALHOST)], Dnssec::Secure);
    assert_eq!(world.visit("b.example").await.outcome, Outcome::Changed);
}

#[tokio::test]
async fn sessions_that_end_early_are_taken_up_again() {
    let world = World::new().await;
    let ip = Ipv4Addr::new(127, 0, 0, 60);
    let listener = TcpListener::bind(SocketAddr::from((ip, world.port))).await.unwrap();
    let mut serving = syndicate::serve::dmtp::Options::new(HOST);
    serving.commands = 5;
    let server = Server::new(world.shelf.clone(), identity().server_config().unwrap(), serving);
    tokio::spawn(server.run(listener, world.shutdown.clone()));
    world.resolver.set_addresses("short.example", &[IpAddr::V4(ip)], Dnssec::Secure);
    world.found("a.example", 1);
    let record = Template { dx: vec!["short.example".into()], ..world.record(&[1]) };
    world.publish("a.example", &record.text());
    let users: Vec<String> = (b'a'..=b'y').map(|c| format!("{}@a.example", c as char)).collect();
    for user in &users {
        world.serve(user, &[link(user, 11, None, 1)]);
        world.handle.watch(user.parse().unwrap(), "test").await.unwrap();
    }
    // Longer than a look at a mailbox, on a slow machine too.
    *world.ledger.batch.lock().unwrap() = Duration::from_millis(500);
    let report = world.visit("a.example").await;
    assert_eq!(report.users.len(), users.len());
    assert!(report.users.iter().all(|(_, outcome)| outcome.is_good()), "{:?}", report.users);
    assert_eq!(world.told().len(), users.len() + 1);
    assert!(world.ledger.waiting.lock().unwrap().1 > 1, "mailboxes wait for the log together");
}

#[tokio::test]
async fn a_long_history_comes_in_parts() {
    let world = World::with(|options| options.links = 4).await;
    world.found("a.example", 1);
    let chain: Vec<Signet> = (1..=10).map(|n| link(X, n, (n > 1).then(|| n - 1), 1)).collect();
    world.serve(X, &chain);
    let mut reports = world.handle.reports();
    let report = world.visit(X).await;
    assert_eq!(report.entries.len(), 1 + 4);
    // The rest needs no asking: what is left over is due at once.
    let mut visits = 1;
    while world.user_row(X).await.chain.len() < chain.len() {
        reports.recv().await.unwrap();
        visits += 1;
    }
    assert!(visits >= 3);
    assert_eq!(world.told().iter().filter(|events| *events == "ROTATED").count(), 9);
    assert_eq!(world.visit(X).await.users[0].1, Outcome::Confirmed);
}

/// A name's past is read where a link needs it, and no more of it than is bounded.
#[tokio::test]
async fn a_visit_reads_the_past_when_a_link_needs_it() {
    let world = World::new().await;
    let reads = || world.state.take_reads(Table::Signets);
    world.found("a.example", 1);
    let chain = [link(X, 11, None, 1), link(X, 12, Some(11), 1), link(X, 13, Some(12), 1)];
    world.serve(X, &chain);
    world.visit(X).await;
    world.publish("a.example", &world.record(&[1, 2]).text());
    let rolled = build::org(&key(Owner::Org, 2), Dialect::L, &[], &[], SignTo::Id("a.example"));
    world.shelf.orgs.lock().unwrap().insert("a.example".parse().unwrap(), rolled.unwrap());
    let mut chain = chain.to_vec();
    chain.push(link(X, 14, Some(13), 2));
    world.serve(X, &chain);
    world.visit(X).await;
    assert_eq!(world.user_row(X).await.chain.len(), 4);
    world.told();

    let first = world.domain_row("a.example").await.org_signets[0].signet;
    let old_org = format!("public/{}", keys::blob(&first.0));
    world.faults.always(Operation::Read, &old_org, Fault::Refuse(Denied::Unavailable));
    reads();
    let report = world.visit(X).await;
    assert_eq!(report.users, [(X.parse().unwrap(), Outcome::Confirmed)], "{:?}", report.detail);
    assert_eq!(reads(), 1, "the tip");
    // Another branch, for which all links come, old ones of the old signer too.
    world.serve(X, &[&chain[..3], &[link(X, 16, Some(13), 2)]].concat());
    assert_eq!(world.visit(X).await.outcome, Outcome::Ours);
    world.faults.clear();
    reads();
    assert_eq!(world.visit(X).await.users, [(X.parse().unwrap(), Outcome::NotInForce)]);
    assert_eq!(world.told(), ["FORKED"]);
    assert_eq!(reads(), 4, "all links");

    // Links of almost a MiB each: four of them before the tip are enough.
    let mut row = world.user_row(X).await;
    let tip = row.chain.pop().unwrap();
    let mut batch = Batch::new();
    for number in 21..=27 {
        let request = build::request(&key(Owner::User, number), Dialect::L, None).unwrap();
        let photo = [Content::Known(field::PHOTO, vec![number; 1_000_000])];
        let large = build::user(&request, &[1; 32], &photo, SignTo::Id(X)).unwrap();
        let signet = sha256(large.bytes());
        batch.put(Table::Signets, signet.0, large.bytes());
        row.chain.push(LinkRow { signet, ..tip.clone() });
    }
    row.chain.push(tip);
    batch.row(&row);
    let _ = world.state.apply(batch).await.unwrap();
    chain.push(link(X, 15, Some(14), 2));
    world.serve(X, &chain[3..]);
    reads();
    assert_eq!(world.visit(X).await.users, [(X.parse().unwrap(), Outcome::Changed)]);
    assert_eq!(world.told(), ["ROTATED"]);
    assert_eq!(reads(), 1 + 5, "the tip, and one link too many");
}

/// An entry of a visit that did not wait for it: what is judged next is judged by it.
#[tokio::test]
async fn a_visit_that_the_log_has_overtaken_is_made_again() {
    let world = World::new().await;
    world.found("a.example", 1);
    let mut reports = world.handle.reports();
    for name in ["a.example", X] {
        world.serve(X, &[link(X, 2, None, 1)]);
        *world.ledger.unheard.lock().unwrap() = Some(name.parse().unwrap());
        let report = world.visit(name).await;
        match name {
            X => assert_eq!(report.users, [(X.parse().unwrap(), Outcome::Overtaken)]),
            _ => assert_eq!((report.outcome, report.users.len()), (Outcome::Overtaken, 0)),
        }
        assert_eq!(world.told(), ["FIRST_SEEN"], "{name}");
        // Nobody asks for the next one.
        assert_eq!(reports.recv().await.unwrap().started, report.started);
        let report = reports.recv().await.unwrap();
        assert_eq!(report.outcome, Outcome::Confirmed, "{name}");
        if name == X {
            assert_eq!(report.users, [(X.parse().unwrap(), Outcome::Confirmed)]);
        }
        assert_eq!(world.told(), [""; 0], "{name}");
    }
}

/// Threat 19: what is over quota is no version and is not taken for seen.
#[tokio::test]
async fn what_is_over_quota_is_coalesced_and_alarms_are_not() {
    let limits = quota::Limits { entries: 1, new_labels: 10, ..quota::Limits::default() };
    let world = World::behind(|_| {}, Some(limits)).await;
    world.found("a.example", 1);
    world.serve(X, &[link(X, 2, None, 1)]);
    world.visit(X).await;
    assert_eq!(world.told(), ["FIRST_SEEN", "FIRST_SEEN"]);

    world.serve(X, &[link(X, 2, None, 1), link(X, 3, Some(2), 1)]);
    for kept in [vec![IncidentKind::Coalesced], vec![]] {
        let report = world.visit(X).await;
        assert_eq!(report.users, [(X.parse().unwrap(), Outcome::Coalesced)]);
        assert_eq!((world.told(), world.incidents()), (vec![], kept));
    }
    assert_eq!((world.user_row(X).await.version, world.seen(X).await.version), (1, 1));
    // A swap on the same day is told, and held.
    world.serve(X, &[link(X, 4, None, 1)]);
    world.visit(X).await;
    assert_eq!(world.told(), ["RESTARTED"]);
    assert!(world.user_row(X).await.held_until.is_some());

    // The record of the domain likewise; its mailbox is looked at all the same.
    world.publish("a.example", &world.record(&[1, 5]).text());
    let report = world.visit(X).await;
    assert_eq!(report.outcome, Outcome::Coalesced);
    assert_eq!(report.users, [(X.parse().unwrap(), Outcome::Confirmed)]);
    assert_eq!((world.told(), world.domain_row("a.example").await.version), (vec![], 1));
    world.clock.advance(86_400_000);
    world.visit(X).await;
    assert_eq!(world.told(), ["POK_ADDED"]);
}

/// A new mailbox over quota whose history restarts: the log cannot have the alarm.
#[tokio::test]
async fn an_alarm_of_a_mailbox_over_quota_stops_nobody_else() {
    let limits = quota::Limits { new_labels: 2, ..quota::Limits::default() };
    let world = World::behind(|_| {}, Some(limits)).await;
    world.found("a.example", 1);
    let [first, restarted, last] = ["a@a.example", X, "z@a.example"];
    for (number, address) in (2..).zip([first, last]) {
        world.serve(address, &[link(address, number, None, 1)]);
        world.visit(address).await;
    }
    world.serve(X, &[link(X, 4, None, 1), link(X, 5, None, 1)]);
    world.visit(X).await;
    let report = world.visit("a.example").await;
    assert_eq!(report.outcome, Outcome::Confirmed, "{:?}", report.detail);
    let outcomes = [Outcome::Confirmed, Outcome::Coalesced, Outcome::Confirmed];
    let names = [first, restarted, last].map(|address| address.parse().unwrap());
    let mut users = report.users.clone();
    users.sort();
    assert_eq!(users, Vec::from_iter(names.into_iter().zip(outcomes)));
    assert_eq!(world.incidents(), [IncidentKind::Coalesced; 2]);
    world.clock.advance(86_400_000);
    world.told();
    world.visit(X).await;
    assert_eq!(world.told(), ["FIRST_SEEN", "RESTARTED"]);
}

/// Threat 19: a host cannot use up its domain's quota, with org signets that the
/// POK once signed, and then swap a key unseen.
#[tokio::test]
async fn a_swap_is_told_while_its_domain_is_over_quota() {
    const HOUR: u64 = 3_600_000;
    let limits = quota::Limits { entries: 2, new_labels: 10, ..quota::Limits::default() };
    let world = World::behind(|_| {}, Some(limits)).await;
    // Under each org signet another secondary key may sign signets.
    let serve_org = |number: u8| {
        let permissions = SecondaryKey::MAY_SIGN_SIGNETS;
        let secondary = [SecondaryKey { permissions, key: ed25519::public_key(&[number; 32]) }];
        let (pok, name) = (key(Owner::Org, 1), "a.example");
        let org = build::org(&pok, Dialect::L, &secondary, &[], SignTo::Id(name)).unwrap();
        world.shelf.orgs.lock().unwrap().insert(name.parse().unwrap(), org);
    };
    let swap = |number, signer| world.serve(X, &[link(X, number, None, signer)]);
    let kinds = |world: &World| -> Vec<IncidentKind> {
        world.kept().into_iter().map(|incident| incident.kind).collect()
    };
    world.publish("a.example", &world.record(&[1]).text());
    serve_org(31);
    swap(11, 1);
    world.visit(X).await;
    serve_org(32);
    world.visit(X).await;
    assert_eq!(world.told(), ["FIRST_SEEN", "FIRST_SEEN", "ORG_SIGNET_CHANGED"]);

    // The first one again is over quota. What the POK signed is valid under the one
    // in force, to which a mailbox that stays as it was goes on being held.
    serve_org(31);
    let report = world.visit(X).await;
    assert_eq!(report.outcome, Outcome::Coalesced);
    assert_eq!(report.users, [(X.parse().unwrap(), Outcome::Confirmed)]);
    assert_eq!((world.told(), kinds(&world)), (vec![], vec![IncidentKind::Coalesced]));
    swap(12, 1);
    let report = world.visit(X).await;
    assert_eq!(report.outcome, Outcome::Coalesced);
    assert_eq!(report.users, [(X.parse().unwrap(), Outcome::Changed)]);
    assert_eq!(world.told(), ["RESTARTED"]);
    assert_eq!(kinds(&world), [IncidentKind::Alarm(Event::Restarted)]);
    let row = world.user_row(X).await;
    assert_eq!((row.version, row.domain_version, row.held_until.is_some()), (2, 2, true));

    // What only the first one allows is logged under the version that named it.
    world.clock.advance(HOUR);
    swap(13, 31);
    world.visit(X).await;
    assert_eq!(world.told(), ["RESTARTED"]);
    assert_eq!(world.user_row(X).await.domain_version, 1);
    assert_eq!(kinds(&world), [IncidentKind::Alarm(Event::Restarted)]);

    // What one allows that the log never had cannot be: it is kept, and no forgery.
    world.clock.advance(HOUR);
    serve_org(33);
    swap(14, 33);
    let report = world.visit(X).await;
    assert_eq!(report.users, [(X.parse().unwrap(), Outcome::Coalesced)]);
    assert_eq!(world.told(), [""; 0]);
    let over = IncidentKind::Coalesced;
    assert_eq!(kinds(&world), [over, IncidentKind::Alarm(Event::Restarted), over]);
    // Its turn comes with that of the org signet.
    world.clock.advance(86_400_000);
    world.visit(X).await;
    assert_eq!(world.told(), ["ORG_SIGNET_CHANGED", "RESTARTED"]);
    assert_eq!(world.user_row(X).await.domain_version, 3);
}

/// A look at a name is no way to have forgotten what was used up of a quota.
#[tokio::test]
async fn quotas_outlive_names_on_trial() {
    let limits = quota::Limits { new_labels: 1, ..quota::Limits::default() };
    let world = World::behind(|_| {}, Some(limits)).await;
    world.found("1.evil.example", 1);
    world.found("2.evil.example", 1);
    let explore = async |domain: &str| {
        let report = world.handle.explore(domain.parse().unwrap()).await.unwrap();
        (report.outcome, world.told(), world.incidents())
    };
    let first = vec!["FIRST_SEEN".to_owned()];
    assert_eq!(explore("1.evil.example").await, (Outcome::Changed, first.clone(), vec![]));
    let over = (Outcome::Coalesced, vec![], vec![IncidentKind::Coalesced]);
    assert_eq!(explore("2.evil.example").await, over);
    for _ in 0..2 {
        // Neither of the two is watched.
        assert_eq!(explore("evil.example").await, (Outcome::NoRecord, vec![], vec![]));
        let again = (Outcome::Coalesced, vec![], vec![]);
        assert_eq!(explore("2.evil.example").await, again);
    }
    let row: QuotaRow = rows::find(&*world.state, b"2.evil.example").await.unwrap().unwrap();
    assert_eq!(row.coalesced, 1);
    world.clock.advance(86_400_000);
    assert_eq!(explore("evil.example").await.0, Outcome::NoRecord);
    assert_eq!(explore("2.evil.example").await, (Outcome::Changed, first, vec![]));
    let row: QuotaRow = rows::find(&*world.state, b"2.evil.example").await.unwrap().unwrap();
    assert_eq!(row.coalesced, 0, "it was told");
}

/// Names that strangers ask for are looked at, and stay only if they are there.
#[tokio::test]
async fn a_name_asked_for_is_watched_only_if_it_is_there() {
    let world = World::with(|options| options.ask_delay = 0).await;
    world.found("a.example", 1);
    world.serve(X, &[link(X, 2, None, 1)]);
    let mut reports = world.handle.reports();
    let mut ask = async |name: &str| {
        // A domain is visited for strangers once a minute.
        world.clock.advance(60_000);
        let name: Name = name.parse().unwrap();
        assert!(world.handle.ask(name.clone()));
        loop {
            // Others may have their turn by now.
            let report = reports.recv().await.unwrap();
            if report.domain == *name.domain() {
                break report;
            }
        }
    };
    let report = ask(X).await;
    assert_eq!((report.outcome, world.told().len()), (Outcome::Changed, 2));
    let report = ask("nobody@a.example").await;
    assert_eq!(report.users, [("nobody@a.example".parse().unwrap(), Outcome::NotFound)]);
    assert_eq!(ask("none.example").await.outcome, Outcome::NoRecord);
    assert_eq!(ask("x@other.example").await.outcome, Outcome::NoRecord);

    // A visit by the watch sees the one that is there.
    let report = world.visit("a.example").await;
    assert_eq!(report.users, [(X.parse().unwrap(), Outcome::Confirmed)]);
    let frontier: Vec<FrontierRow> = rows::scan(&*world.state, Range::all(), 10).await.unwrap();
    let names: Vec<&str> = frontier.iter().map(|row| row.name.as_str()).collect();
    assert_eq!(names, ["a.example", X]);
    let seen: Vec<SeenRow> = rows::scan(&*world.state, Range::all(), 10).await.unwrap();
    assert_eq!(seen.len(), 2);
}

/// What a visit saw of a domain counts, though its mailboxes take longer than there
/// is time: when it was confirmed, and until when its record holds (§1.8).
#[tokio::test]
async fn a_domain_whose_mailboxes_take_too_long_is_seen_all_the_same() {
    const DAY: u64 = 86_400_000;
    let world = World::with(|options| options.deadline = Duration::from_secs(1)).await;
    world.found("a.example", 1);
    let lasting = Template { expiry_days: 30, ..world.record(&[1]) }.text();
    world.publish("a.example", &lasting);
    world.serve(X, &[link(X, 11, None, 1)]);
    let slow = "y@a.example";
    *world.shelf.slow.lock().unwrap() = Some(slow.parse().unwrap());
    for name in [X, slow] {
        world.handle.watch(name.parse().unwrap(), "test").await.unwrap();
    }
    for _ in 0..2 {
        // The record's time begins anew after it has run out.
        world.clock.advance(31 * DAY);
        let report = world.visit("a.example").await;
        assert_eq!(report.outcome, Outcome::Deadline);
        let seen = world.seen("a.example").await;
        assert_eq!((seen.version, seen.confirmed_at), (1, world.clock.now()));
    }
    assert_eq!(world.told(), ["FIRST_SEEN", "FIRST_SEEN"]);
    world.resolver.set_txt("_dime.a.example", &[], Dnssec::Secure);
    world.clock.advance(29 * DAY);
    world.visit("a.example").await;
    assert_eq!(world.told(), ["RECORD_WITHDRAWN"]);
}

#[tokio::test]
async fn the_log_may_refuse_for_a_while() {
    let world = World::new().await;
    world.found("a.example", 1);
    *world.ledger.closed.lock().unwrap() = true;
    let report = world.visit("a.example").await;
    assert_eq!(report.outcome, Outcome::Ours);
    assert!(report.detail.as_ref().unwrap().contains("a.example"));
    *world.ledger.closed.lock().unwrap() = false;
    let chain = [link(X, 11, None, 1), link(X, 12, Some(11), 1)];
    world.serve(X, &chain);
    assert_eq!(world.visit(X).await.outcome, Outcome::Changed);
    assert_eq!(world.told(), ["FIRST_SEEN", "FIRST_SEEN", "ROTATED"]);
    // An alarm that could not be logged is told when it can be.
    world.serve(X, &[chain[0].clone(), link(X, 13, Some(11), 1)]);
    *world.ledger.closed.lock().unwrap() = true;
    assert_eq!(world.visit(X).await.outcome, Outcome::Ours);
    *world.ledger.closed.lock().unwrap() = false;
    world.visit(X).await;
    assert_eq!(world.told(), ["FORKED"]);
    assert_eq!(world.seen(X).await.outcome, "not-in-force");
}

#[tokio::test]
async fn the_frontier_outlives_the_process() {
    let mut world = World::new().await;
    world.found("a.example", 1);
    world.serve(X, &[link(X, 11, None, 1)]);
    world.handle.watch(X.parse().unwrap(), "seed").await.unwrap();
    let report = world.visit("a.example").await;
    assert_eq!(report.users.len(), 1);
    let row: FrontierRow =
        rows::find(&*world.state, &rows::frontier_key(&X.parse().unwrap())).await.unwrap().unwrap();
    assert_eq!(row.reason, "seed");
    let row: FrontierRow = rows::find(&*world.state, b"a.example").await.unwrap().unwrap();
    assert!(row.due > world.clock.now() && row.failures == 0);

    // Another process on the same state knows the names, due when they were.
    world.crawler.abort();
    let _ = (&mut world.crawler).await;
    let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
    let (crawler, handle) = Crawler::new(world.rooms(), options(world.port), metrics, "second");
    let mut reports = handle.reports();
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(crawler.run(shutdown.clone()));
    world.clock.set(row.due);
    let report = reports.recv().await.unwrap();
    assert_eq!((report.domain.as_str(), report.users.len()), ("a.example", 1));
    assert_eq!(report.outcome, Outcome::Confirmed);
    shutdown.cancel();
    running.await.unwrap().unwrap();
}

/// The clock was a month ahead for a while. A guard, not a measure: without it a
/// visit that never comes would hold up the test.
#[tokio::test]
async fn a_clock_that_was_ahead_does_not_blind_the_crawler() {
    const DAY: u64 = 86_400_000;
    let world = World::new().await;
    world.found("a.example", 1);
    world.visit("a.example").await;
    let mut reports = world.handle.reports();
    let mut next = async |at: Timestamp| {
        world.clock.set(at);
        tokio::time::timeout(Duration::from_secs(60), reports.recv()).await.unwrap().unwrap()
    };
    let ahead = START.plus(30 * DAY);
    assert_eq!(next(ahead).await.started, ahead);
    let back = START.plus(DAY / 24);
    let report = next(back).await;
    assert_eq!((report.started, report.outcome), (back, Outcome::Confirmed));
    // The last visit, which was later, is none that it follows on.
    assert_eq!(report.previous, Timestamp::default());
}

/// While the log says that the clock is wrong, nothing is visited by it.
#[tokio::test]
async fn no_visit_begins_under_a_clock_in_doubt() {
    let world = World::new().await;
    world.found("a.example", 1);
    world.visit("a.example").await;
    let right = world.clock.now();
    *world.ledger.doubts_clock.lock().unwrap() = true;
    world.clock.advance(3_600_000);
    let handle = world.handle.clone();
    let visit =
        tokio::spawn(async move { handle.visit("a.example".parse().unwrap(), "test").await });
    tokio::task::yield_now().await;
    // Answered after the loop had its chance to begin that visit.
    let watched = world.handle.explore("a.example".parse().unwrap()).await;
    assert!(matches!(watched, Err(Error::Watched)));
    world.clock.set(right);
    *world.ledger.doubts_clock.lock().unwrap() = false;
    assert_eq!(visit.await.unwrap().unwrap().started, right);
}

/// What was accepted from an owner is not lost with the first visit, nor with the
/// process; and not looked for without end.
#[tokio::test]
async fn what_an_owner_asked_for_is_looked_for_again() {
    const Y: &str = "nobody@a.example";
    let mut world = World::new().await;
    world.found("a.example", 1);
    world.visit("a.example").await;
    world.serve(X, &[link(X, 11, None, 1)]);
    *world.ledger.closed.lock().unwrap() = true;
    // Owners are heard once a minute.
    world.clock.advance(60_000);
    let mut reports = world.handle.reports();
    assert!(world.handle.request(vec![X.parse().unwrap()]).await);
    assert!(world.frontier_row(X).await.is_some(), "it is written before the answer");
    assert_eq!(reports.recv().await.unwrap().outcome, Outcome::Ours);

    world.restart().await;
    *world.ledger.closed.lock().unwrap() = false;
    let mut reports = world.handle.reports();
    world.clock.set(world.frontier_row("a.example").await.unwrap().due);
    let report = reports.recv().await.unwrap();
    assert_eq!(report.users, [(X.parse().unwrap(), Outcome::Changed)]);
    assert_eq!(world.told(), ["FIRST_SEEN", "FIRST_SEEN"]);

    // It is watched now; what is not there is let go of.
    assert!(world.handle.request(vec![Y.parse().unwrap()]).await);
    let report = reports.recv().await.unwrap();
    let outcomes: Vec<_> = report.users.iter().map(|(_, outcome)| *outcome).collect();
    assert_eq!(outcomes, [Outcome::NotFound, Outcome::Confirmed]);
    assert_eq!(world.frontier_row(X).await.map(|row| row.tries), Some(0));
    assert_eq!(world.frontier_row(Y).await, None);
    assert_eq!(world.visit("a.example").await.users, [(X.parse().unwrap(), Outcome::Confirmed)]);
}

/// An owner is told if there is no room for all that it asked for.
#[tokio::test]
async fn what_an_owner_asked_for_has_room_or_is_asked_again() {
    let world = World::new().await;
    world.found("a.example", 1);
    world.visit("a.example").await;
    // No visit finds anything.
    *world.ledger.closed.lock().unwrap() = true;
    world.found("a.example", 2);
    let name = |n: usize| -> Name { format!("u{n}@a.example").parse().unwrap() };
    assert!(world.handle.request((0..frontier::WANTED).map(name).collect()).await);
    assert!(!world.handle.request(vec![name(frontier::WANTED)]).await);
    assert_eq!(world.frontier_row("u64@a.example").await, None);
    // Those that have their room keep it.
    assert!(world.handle.request(vec![name(0)]).await);
}

/// It is written down for how long before the log can have it.
#[tokio::test]
async fn what_peers_asked_for_is_written_down_before_it_is_looked_at() {
    let world = World::new().await;
    world.found("a.example", 1);
    world.visit("a.example").await;
    *world.shelf.slow.lock().unwrap() = Some(X.parse().unwrap());
    let handle = world.handle.clone();
    tokio::spawn(async move { handle.look(X.parse().unwrap(), Some(1000)).await });
    world.shelf.asked.notified().await;
    let row = world.frontier_row(X).await.unwrap();
    assert_eq!((row.tries, row.keep_until), (1, Some(world.clock.now().plus(1000))));
}

/// A mailbox that only peers asked for is watched for a while, and not longer
/// after a restart, although the log has it (threat 22).
#[tokio::test]
async fn what_peers_asked_for_lapses() {
    const KEEP: u64 = 30 * 86_400_000;
    let world = World::new().await;
    world.found("a.example", 1);
    world.serve(X, &[link(X, 11, None, 1)]);
    let (x, nobody): (Name, Name) = (X.parse().unwrap(), "nobody@a.example".parse().unwrap());
    let row = async |name: &str| -> Option<FrontierRow> {
        let key = rows::frontier_key(&name.parse().unwrap());
        rows::find(&*world.state, &key).await.unwrap()
    };
    for name in [&x, &nobody] {
        world.handle.look(name.clone(), Some(KEEP)).await.unwrap();
    }
    assert_eq!(row("nobody@a.example").await, None);
    let until = row(X).await.unwrap().keep_until.unwrap();
    assert_eq!(until, START.plus(KEEP));
    assert!(world.handle.is_for_peers(x.address().unwrap()));
    // A look is at one name, and does not count as a visit of the domain.
    world.clock.advance(86_400_000);
    let report = world.handle.look(x.clone(), Some(KEEP)).await.unwrap();
    assert_eq!(report.users.len(), 1);
    assert_eq!(row(X).await.unwrap().keep_until, Some(until.plus(86_400_000)));

    world.clock.set(until.plus(86_400_000));
    let report = world.visit("a.example").await;
    assert_eq!(report.users.len(), 0, "it has lapsed");
    assert!(!world.handle.is_for_peers(x.address().unwrap()));
    let seen: Option<SeenRow> = rows::find(&*world.state, X.as_bytes()).await.unwrap();
    assert_eq!(seen, None);

    let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
    let (crawler, handle) = Crawler::new(world.rooms(), options(world.port), metrics, "test");
    let running = tokio::spawn(crawler.run(CancellationToken::new()));
    let domain: Name = "a.example".parse().unwrap();
    let report = handle.visit(domain.clone(), "test").await.unwrap();
    assert_eq!(report.users.len(), 0, "nor is it watched after a restart");
    // A peer asks again, then somebody here.
    handle.look(x.clone(), Some(KEEP)).await.unwrap();
    assert!(handle.is_for_peers(x.address().unwrap()));
    handle.watch(x.clone(), "test").await.unwrap();
    let report = handle.visit(domain, "test").await.unwrap();
    assert_eq!(report.users.len(), 1);
    assert!(!handle.is_for_peers(x.address().unwrap()));
    assert_eq!(row(X).await.unwrap().keep_until, None);
    running.abort();
}

/// A peer's domain: DNS first, and a host only if it has a record (threat 20).
#[tokio::test]
async fn a_peers_domain_is_written_down_only_if_it_has_a_record() {
    let world = World::new().await;
    world.found("a.example", 1);
    let explore = async |domain: &str| world.handle.explore(domain.parse().unwrap()).await;
    let nothing = explore("nothing.example").await.unwrap();
    assert_eq!((nothing.outcome, nothing.certificate), (Outcome::NoRecord, None));
    assert_eq!(world.told(), [""; 0]);
    let row: Option<FrontierRow> = rows::find(&*world.state, b"nothing.example").await.unwrap();
    assert_eq!(row, None);
    assert_eq!(explore("a.example").await.unwrap().outcome, Outcome::Changed);
    assert_eq!(world.told(), ["FIRST_SEEN"]);
    let again = explore("a.example").await;
    assert!(matches!(again, Err(syndicate::crawl::Error::Watched)), "{again:?}");
}

#[tokio::test]
async fn a_domain_leased_elsewhere_is_left_alone() {
    let world = World::new().await;
    world.found("a.example", 1);
    let row = FrontierRow {
        name: "a.example".parse().unwrap(),
        due: START,
        leased_until: START.plus(60_000),
        leased_by: "other".into(),
        failures: 0,
        reason: String::new(),
        keep_until: None,
        tries: 0,
    };
    let mut batch = Batch::new();
    batch.row(&row);
    let _ = world.state.apply(batch).await.unwrap();
    // `watch` would write the row; the name is known already from a visit.
    let report = world.visit("a.example").await;
    assert_eq!(report.outcome, Outcome::Ours);
    assert_eq!(world.told(), [""; 0]);
    world.clock.advance(120_000);
    assert_eq!(world.visit("a.example").await.outcome, Outcome::Changed);
}

/// The main job on input that no one here wrote: record, signets, certificate
/// and keys are the C reference's.
#[tokio::test]
async fn a_domain_made_by_the_reference_is_crawled() {
    let world = World::new().await;
    let table: serde_json::Value =
        serde_json::from_slice(&std::fs::read(vectors().join("records/records.json")).unwrap())
            .unwrap();
    let genrec = &table["genrec"].as_array().unwrap()[2];
    world.publish("public.example", genrec["joined"].as_str().unwrap());
    let signet = |name: &str| {
        let bytes = std::fs::read(vectors().join(format!("signets/{name}.bin"))).unwrap();
        Signet::decode(&bytes).unwrap()
    };
    let domain: Domain = "public.example".parse().unwrap();
    world.shelf.orgs.lock().unwrap().insert(domain, signet("org_id"));
    let alice = "alice@public.example";
    let chain: Vec<Signet> = (0..6).map(|n| signet(&format!("chain_{n}"))).collect();
    world.serve(alice, &chain[..1]);

    let report = world.visit(alice).await;
    assert_eq!(report.outcome, Outcome::Changed, "{:?}", report.detail);
    assert!(matches!(report.certificate, Some(How::Pin(_))));
    assert_eq!(world.told(), ["FIRST_SEEN", "FIRST_SEEN"]);
    world.serve(alice, &chain);
    world.visit(alice).await;
    assert_eq!(world.told(), ["ROTATED"; 5]);
    // Their own forgeries: custody by a stranger, none at all.
    world.serve(alice, &[signet("chain_2_broken_stray")]);
    world.visit(alice).await;
    assert_eq!(world.told(), ["GAP"]);
    world.serve(alice, &[signet("user_by_stray")]);
    let report = world.visit(alice).await;
    assert_eq!(report.users[0].1, Outcome::SignetInvalid);
    assert_eq!(world.incidents(), [IncidentKind::SignetInvalid]);
    let row = world.user_row(alice).await;
    assert_eq!((row.version, row.chain.len()), (7, 1));
}

/// A DX host with one mailbox that may lie about what is current, and notes
/// what it is asked for.
#[derive(Default)]
struct Oracle {
    org: Mutex<Vec<u8>>,
    chain: Mutex<Vec<Signet>>,
    lies: Mutex<bool>,
    heard: Mutex<Vec<String>>,
}

impl Oracle {
    async fn listen(self: &Arc<Self>, world: &World, host: &str) {
        let ip = Ipv4Addr::new(127, 0, 0, 99);
        let listener = TcpListener::bind(SocketAddr::from((ip, world.port))).await.unwrap();
        world.resolver.set_addresses(host, &[IpAddr::V4(ip)], Dnssec::Secure);
        let acceptor = TlsAcceptor::from(identity().server_config().unwrap());
        let oracle = self.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let mut stream = acceptor.accept(stream).await.unwrap();
                let _ = stream.write_all(b"220 <dx> DMTPv1 test\r\n").await;
                let mut line = [0; 1024];
                while let Ok(length @ 1..) = stream.read(&mut line).await {
                    let line = std::str::from_utf8(&line[..length]).unwrap();
                    let _ = stream.write_all(oracle.answer(line).as_bytes()).await;
                }
            }
        });
    }

    fn answer(&self, line: &str) -> String {
        let verb = line.split_whitespace().next().unwrap();
        let user = line.contains('@');
        self.heard.lock().unwrap().push(format!("{verb}{}", if user { " @" } else { "" }));
        let chain = self.chain.lock().unwrap();
        let tip = chain.last().unwrap();
        let lines = match verb {
            "SGNT" if user => make::signet(&tip.full_split()),
            "SGNT" => make::signet(&self.org.lock().unwrap()),
            "HIST" => {
                let served: Vec<_> = chain.iter().map(Signet::full_split).collect();
                make::history(served.iter().map(|bytes| &**bytes))
            }
            "VRFY" => {
                let print = tip.fingerprint(Level::Crypto).unwrap();
                match line.contains(&print.to_string()) || *self.lies.lock().unwrap() {
                    true => make::current(),
                    false => make::update(&print),
                }
            }
            _ => make::bye(),
        };
        lines.concat()
    }

    /// Commands about the mailbox since last asked.
    fn asked(&self) -> Vec<String> {
        let heard: Vec<String> = self.heard.lock().unwrap().drain(..).collect();
        heard.into_iter().filter(|verb| verb.ends_with('@')).collect()
    }
}

/// A domain with one mailbox at an oracle.
async fn at_oracle(world: &World) -> Arc<Oracle> {
    let oracle = Arc::new(Oracle::default());
    oracle.listen(world, "oracle.example").await;
    world.found("a.example", 1);
    let org = world.shelf.orgs.lock().unwrap()[&"a.example".parse::<Domain>().unwrap()].clone();
    *oracle.org.lock().unwrap() = org.full_split().into_owned();
    *oracle.chain.lock().unwrap() = vec![link(X, 11, None, 1)];
    let record = Template { dx: vec!["oracle.example".into()], ..world.record(&[1]) };
    world.publish("a.example", &record.text());
    oracle
}

/// A host that swaps right after its signet was seen, and says that nothing changed,
/// is not believed by a visit that somebody asked for, nor with other news.
#[tokio::test]
async fn a_host_s_word_will_not_do_for_whoever_asks() {
    let world = World::with(|options| options.trust_word = 5 * 86_400_000 / 2).await;
    let oracle = at_oracle(&world).await;
    let swap = |number: u8| *oracle.chain.lock().unwrap() = vec![link(X, number, None, 1)];
    world.visit(X).await;
    swap(12);
    *oracle.lies.lock().unwrap() = true;
    let mailbox = |report: Arc<Report>| report.users.last().unwrap().1;
    assert_eq!(mailbox(world.visit(X).await), Outcome::Claimed);
    assert_eq!(world.told(), ["FIRST_SEEN", "FIRST_SEEN"]);
    let mut reports = world.handle.reports();
    for by_client in [true, false] {
        world.clock.advance(60_000);
        let x: Name = X.parse().unwrap();
        match by_client {
            true => assert!(world.handle.report(x)),
            false => assert!(world.handle.request(vec![x]).await),
        }
        assert_eq!(mailbox(reports.recv().await.unwrap()), Outcome::Changed);
        assert_eq!(world.told(), ["RESTARTED"]);
        swap(13);
        assert_eq!(mailbox(world.visit(X).await), Outcome::Claimed);
        let _ = reports.recv().await.unwrap();
    }
    // The record changes in any way.
    let record = Template { dx: vec!["oracle.example".into()], ..world.record(&[1, 2]) };
    swap(14);
    world.publish("a.example", &record.text());
    assert_eq!(mailbox(world.visit(X).await), Outcome::Changed);
    assert_eq!(world.told(), ["POK_ADDED", "RESTARTED"]);
    // As if that visit had not come to the mailbox.
    let row = world.seen(X).await;
    let before = Timestamp::from_millis(row.confirmed_at.millis() - 1);
    let mut batch = Batch::new();
    batch.row(&SeenRow { confirmed_at: before, ..row });
    let _ = world.state.apply(batch).await.unwrap();
    assert_eq!(mailbox(world.visit(X).await), Outcome::Confirmed);
    assert_eq!(mailbox(world.visit(X).await), Outcome::Claimed);
}

/// Reference §7.2: the cheap check, and the signet itself in time all the same.
#[tokio::test]
async fn a_host_s_word_will_do_for_a_while() {
    const DAY: u64 = 86_400_000;
    // The next visit is due a day and a tenth later.
    let world = World::with(|options| options.trust_word = 5 * DAY / 2).await;
    let oracle = at_oracle(&world).await;
    let visit = async |days: u64| {
        world.clock.advance(days * DAY);
        let report = world.visit(X).await;
        (report.users.last().unwrap().1, oracle.asked())
    };
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let (vrfy, sgnt) = (words(&["VRFY @"]), words(&["SGNT @"]));
    assert_eq!(visit(0).await, (Outcome::Changed, words(&["SGNT @", "HIST @"])));
    let seen = world.seen(X).await.confirmed_at;
    assert_eq!(visit(0).await, (Outcome::Claimed, vrfy.clone()));
    // A word is no observation.
    assert_eq!(world.seen(X).await.confirmed_at, seen);
    assert_eq!(visit(1).await, (Outcome::Claimed, vrfy.clone()));
    // One more word would be too late for the signet.
    assert_eq!(visit(1).await, (Outcome::Confirmed, sgnt));
    assert_eq!(visit(0).await.0, Outcome::Claimed);
    world.told();

    // A swap shows in the word, and is looked at at once.
    let b = link(X, 12, None, 1);
    *oracle.chain.lock().unwrap() = vec![b.clone()];
    assert_eq!(visit(0).await, (Outcome::Changed, words(&["VRFY @", "SGNT @", "HIST @"])));
    assert_eq!(world.told(), ["RESTARTED"]);

    // A host that lies is found out when the signet itself is due.
    *oracle.chain.lock().unwrap() = vec![link(X, 13, None, 1)];
    *oracle.lies.lock().unwrap() = true;
    assert_eq!(visit(0).await, (Outcome::Claimed, vrfy.clone()));
    assert_eq!(visit(1).await, (Outcome::Claimed, vrfy));
    assert_eq!(world.told(), [""; 0]);
    assert_eq!(visit(1).await.0, Outcome::Changed);
    assert_eq!(world.told(), ["RESTARTED"]);

    // Nor does it go by a signet that was seen while the clock was ahead.
    let right = world.clock.now();
    assert_eq!(visit(30).await.0, Outcome::Confirmed);
    *oracle.chain.lock().unwrap() = vec![link(X, 14, None, 1)];
    world.clock.set(right);
    assert_eq!(visit(0).await.0, Outcome::Changed);
    assert_eq!(world.told(), ["RESTARTED"]);
    assert!(world.seen(X).await.confirmed_at <= world.clock.now());
}

#[tokio::test]
async fn a_forgotten_mailbox_is_left_alone_until_its_owner_asks() {
    let world = World::new().await;
    world.found("a.example", 1);
    world.serve(X, &[link(X, 11, None, 1)]);
    world.ledger.forgotten.lock().unwrap().push(X.parse().unwrap());
    let report = world.visit(X).await;
    assert!(report.users.is_empty(), "it is not even on the list: {:?}", report.users);
    for row in [Table::Seen, Table::Frontier, Table::Users] {
        let all = syndicate::store::state::Range::all();
        let rows = world.state.scan(row, all, 100).await.unwrap();
        let key = rows::user_key(&X.parse().unwrap());
        assert!(rows.iter().all(|(other, _)| other != X.as_bytes() && *other != key), "{row:?}");
    }

    // One that was on the list before it was forgotten.
    world.ledger.forgotten.lock().unwrap().clear();
    world.serve(X, &[]);
    let report = world.visit(X).await;
    assert_eq!(report.users.len(), 1);
    let mut batch = Batch::new();
    batch.delete(Table::Seen, X);
    let _ = world.state.apply(batch).await.unwrap();
    world.serve(X, &[link(X, 11, None, 1)]);
    world.ledger.forgotten.lock().unwrap().push(X.parse().unwrap());
    let report = world.visit(X).await;
    assert_eq!(report.users[0].1, Outcome::Forgotten);
    let seen: Option<SeenRow> = rows::find(&*world.state, X.as_bytes()).await.unwrap();
    assert_eq!(seen, None);

    world.ledger.forgotten.lock().unwrap().clear();
    let report = world.visit(X).await;
    assert_eq!(report.users[0].1, Outcome::Changed);
    assert_eq!(world.told().last().unwrap(), "FIRST_SEEN");
}

/// Nothing is written about a mailbox that is forgotten while it is looked at.
#[tokio::test]
async fn a_mailbox_forgotten_during_a_visit_stays_so() {
    let world = World::new().await;
    world.found("a.example", 1);
    world.serve(X, &[link(X, 11, None, 1)]);
    world.visit(X).await;
    // Not valid: there is an incident, and then its outcome is written down.
    world.serve(X, &[link(X, 12, Some(11), 9)]);
    let gone = (world.ledger.clone(), X.parse().unwrap());
    *world.evidence.1.lock().unwrap() = Some(gone);
    let report = world.visit("a.example").await;
    assert_eq!(report.users, [(X.parse().unwrap(), Outcome::SignetInvalid)]);
    let seen: Option<SeenRow> = rows::find(&*world.state, X.as_bytes()).await.unwrap();
    assert_eq!(seen, None);
    // One that stays has its outcome noted.
    world.ledger.forgotten.lock().unwrap().clear();
    world.visit("a.example").await;
    assert_eq!(world.seen(X).await.outcome, "signet-invalid");
}
