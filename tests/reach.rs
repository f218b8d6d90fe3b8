//! How far the crawl reaches, over real sockets: hosts found by MX behind
//! STARTTLS, names asked for over DMTP, proxies and onion hosts, several
//! vantages, and manners towards hosts that many domains share.

#[path = "support/socks.rs"]
mod socks;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use socks::{Conduct, Socks};
use syndicate::clock::Clock;
use syndicate::config::{File, VantageSection};
use syndicate::crawl::{
    self, Crawler, Handle, Incident, IncidentKind, Incidents, Outcome, Pace, Placed, Report, Rooms,
    Sink, Unplaced, Vantage,
};
use syndicate::daemon;
use syndicate::demo::host::{Authority, Certificate, DxHost, Shelf};
use syndicate::demo::organization::{Habits, Organization};
use syndicate::demo::world::{self, World};
use syndicate::dime::certificate::How;
use syndicate::dime::record::{Record, Template};
use syndicate::dime::reply::Currency;
use syndicate::dime::signet::{Level, Signet};
use syndicate::dime::{Address, Dnssec, Domain, Name};
use syndicate::dmtp::hosts::Limits;
use syndicate::dmtp::reach::{Ports, Route, Unreached, reach};
use syndicate::dmtp::{self, AddressFilter, Entrance, Proxy, Roots, Session, Target};
use syndicate::log::{self, Keys, Log, Refused};
use syndicate::proof::dnssec::verify_observation;
use syndicate::proof::draft::Draft;
use syndicate::proof::note::SigningKey;
use syndicate::proof::vrf::SecretKey;
use syndicate::resolver::{FixedResolver, HickoryResolver, NameServers};
use syndicate::store::rows::{self, DomainRow};
use syndicate::store::testing::MemoryState;
use syndicate::store::{Blobs, State, Store, keys};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// For what must come, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const COMPARISONS: &str = "syndicate_crawl_comparisons_total";

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

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<Incident>>>);

impl Kept {
    fn take(&self) -> Vec<Incident> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect()
    }
}

#[async_trait]
impl Incidents for Kept {
    async fn report(&self, incident: Incident) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(incident);
    }
}

/// A crawler with everything behind it.
struct Crawl {
    handle: Handle,
    incidents: Kept,
    registry: prometheus::Registry,
    state: Arc<dyn State>,
    public: Blobs,
    _folder: tempfile::TempDir,
    _tasks: JoinSet<()>,
}

impl Crawl {
    async fn start(world: &World, options: crawl::Options) -> Crawl {
        Crawl::from_places(world, options, []).await
    }

    async fn from_places<const N: usize>(
        world: &World,
        options: crawl::Options,
        others: [Vantage; N],
    ) -> Crawl {
        Crawl::by_clock(world, options, others, Clock::system()).await
    }

    async fn by_clock<const N: usize>(
        world: &World,
        options: crawl::Options,
        others: [Vantage; N],
        clock: Clock,
    ) -> Crawl {
        let folder = tempfile::tempdir().unwrap();
        let state: Arc<dyn State> = Arc::new(MemoryState::default());
        let origin = "log.example/reach";
        let keys = Keys {
            log: SigningKey::ed25519(origin, &[1; 32]).unwrap(),
            vrf: Arc::new(SecretKey::from_seed(&[2; 32])),
        };
        let mut log_options = log::Options::new(folder.path().join("guard"));
        log_options.origin = Some(origin.into());
        log_options.interval = Duration::from_millis(20);
        let opened = log::open(log_options, Store::memory(), state.clone(), keys, clock.clone());
        let opened = opened.await.unwrap();
        let (incidents, public) = (Kept::default(), opened.log.store().public.clone());
        let rooms = Rooms {
            resolver: Arc::new(HickoryResolver::new(world.resolver_options()).unwrap()),
            second_resolver: None,
            state: state.clone(),
            public: public.clone(),
            clock,
            sink: Arc::new(IntoLog(opened.log.clone())),
            incidents: Arc::new(incidents.clone()),
        };
        let registry = prometheus::Registry::new();
        let metrics = crawl::Metrics::new(&registry).unwrap();
        let (crawler, handle) = Crawler::new(rooms, options, metrics, "test");
        let crawler = crawler.with_vantages("home", others);
        let mut tasks = JoinSet::new();
        let (forever, sequencer) = (CancellationToken::new(), opened.sequencer);
        let never = forever.clone();
        tasks.spawn(async move { sequencer.run(never).await.unwrap() });
        tasks.spawn(async move { crawler.run(forever).await.unwrap() });
        Crawl { handle, incidents, registry, state, public, _folder: folder, _tasks: tasks }
    }

    async fn visit(&self, name: &str) -> Arc<Report> {
        self.handle.visit(name.parse().unwrap(), "test").await.unwrap()
    }

    /// A counter with one label.
    fn count(&self, metric: &str, label: &str) -> u64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == metric);
        let of_label = |metric: &&prometheus::proto::Metric| {
            metric.get_label().iter().any(|pair| pair.value() == label)
        };
        let metric = family.and_then(|family| family.get_metric().iter().find(of_label));
        metric.map_or(0, |metric| metric.get_counter().get_value() as u64)
    }

    async fn until_counted(&self, metric: &str, label: &str, count: u64) {
        let reached = async {
            while self.count(metric, label) < count {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, reached).await;
        assert!(waited.is_ok(), "{metric} {label}: {}", self.count(metric, label));
    }
}

fn options(world: &World) -> crawl::Options {
    crawl::Options {
        dx_port: world.dmtp_port(),
        dual_ports: vec![],
        dmtp: dmtp::Options {
            filter: world.address_filter(),
            roots: world.roots(),
            ..dmtp::Options::default()
        },
        ..crawl::Options::default()
    }
}

/// An organization with a mailbox `alice`, and what its host serves.
fn organization(domain: &str) -> (Organization, Address, Shelf) {
    let domain: Domain = domain.parse().unwrap();
    let mut organization = Organization::new(domain.clone(), Habits::default()).unwrap();
    let alice = organization.enroll("alice").unwrap();
    let shelf = Shelf::default();
    shelf.put_org(&domain, organization.signets());
    shelf.put_user(&alice, organization.served(&alice));
    (organization, alice, shelf)
}

/// Reference §6.2: with no `dx` in the record the MX hosts are tried, at 26, then
/// 25, then 587; the last two in the clear until STARTTLS.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_domain_found_by_its_mx_is_asked_behind_starttls() {
    let world = World::start(world::Options::default()).await.unwrap();
    let ip = Ipv4Addr::new(127, 1, 9, 1);
    let duals = [TcpListener::bind((ip, 0)).await, TcpListener::bind((ip, 0)).await];
    let duals = duals.map(Result::unwrap);
    let dual_ports = duals.iter().map(|dual| dual.local_addr().unwrap().port()).collect();
    let crawl_options = crawl::Options { dual_ports, ..options(&world) };
    let crawl = Crawl::start(&world, crawl_options).await;
    // The first is closed again when it is the second's turn.
    for (number, dual) in duals.into_iter().enumerate() {
        let domain = format!("mx{number}.example");
        let (organization, alice, shelf) = organization(&domain);
        let name = format!("mail.{domain}");
        let identity = Authority::new().unwrap().identity(&name, Certificate::SelfSigned).unwrap();
        let record = Template {
            poks: vec![organization.pok()],
            tls: vec![organization.pin(&identity.der)],
            ..Template::default()
        };
        world.dns().add_zone(&domain, true).unwrap();
        world.dns().set_txt(&format!("_dime.{domain}"), &[&record.text()]).unwrap();
        world.dns().set_mx(&domain, &[(10, &format!("gone.{domain}")), (20, &name)]).unwrap();
        world.dns().set_addresses(&name, &[IpAddr::V4(ip)]).unwrap();
        // TLS at once is spoken elsewhere, where nobody looks.
        let elsewhere = TcpListener::bind((Ipv4Addr::new(127, 1, 9, 2), 0)).await.unwrap();
        let mut host = DxHost::start(&name, elsewhere, identity, shelf).unwrap();
        host.serve_dual(dual);

        let report = crawl.visit(alice.as_str()).await;
        assert_eq!(report.outcome, Outcome::Changed, "{:?}", report.detail);
        assert!(matches!(report.certificate, Some(How::Pin(_))));
        assert_eq!(report.users, [(alice, Outcome::Changed)]);
        host.stop().await;
    }
    assert_eq!(crawl.incidents.take(), []);
}

/// Before TLS nothing is looked up, and nothing slips in (§6.6).
#[tokio::test]
async fn in_the_clear_there_is_starttls_and_nothing_else() {
    let (_, _, shelf) = organization("clear.example");
    let identity =
        Authority::new().unwrap().identity("clear.example", Certificate::SelfSigned).unwrap();
    let elsewhere = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let mut host = DxHost::start("clear.example", elsewhere, identity, shelf).unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    host.serve_dual(listener);
    let stream = TcpStream::connect(address).await.unwrap();
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).await.unwrap();
    assert!(line.starts_with("220 <clear.example> DMTPv1 "), "{line}");
    for (said, code) in [
        ("SGNT <clear.example>", "503"),
        ("VRFY <alice@clear.example> [x]", "503"),
        ("EHLO <me.example>", "503"),
        ("NONSENSE", "503"),
        ("STARTTLS <clear.example> MODE=SMTP", "501"),
        ("MODE", "250"),
        // The second line would be read as if it came inside TLS.
        ("STARTTLS <clear.example> MODE=DMTPv1\r\nSGNT <clear.example>", "220"),
    ] {
        stream.write_all(format!("{said}\r\n").as_bytes()).await.unwrap();
        line.clear();
        stream.read_line(&mut line).await.unwrap();
        assert!(line.starts_with(code), "{said}: {line}");
    }
    assert_eq!(stream.read(&mut [0; 64]).await.unwrap_or(0), 0, "it ends there");
}

/// A mirror as `syndicate mirror` runs it, in this process.
async fn mirror(
    world: &World,
    change: impl FnOnce(&mut File),
) -> (daemon::Mirror, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let (anchor, roots) = (folder.path().join("root.key"), folder.path().join("ca.pem"));
    std::fs::write(&anchor, world.dns().trust_anchor_text()).unwrap();
    std::fs::write(&roots, world.authority_pem()).unwrap();
    let mut file = File { data: Some(folder.path().join("mirror")), ..File::default() };
    file.http.listen = "127.0.0.1:0".into();
    file.dmtp.listen = "127.0.0.1:0".into();
    if let NameServers::Listed(servers) = world.name_servers() {
        file.dns.servers = servers.iter().map(ToString::to_string).collect();
    }
    file.dns.trust_anchor = Some(anchor);
    file.crawl.roots = Some(roots);
    file.crawl.allow_networks = vec!["127.0.0.0/8".into()];
    file.crawl.dx_port = world.dmtp_port();
    file.crawl.on_demand_delay_secs = 0;
    change(&mut file);
    let mut config = file.check().unwrap();
    config.batch_millis = 100;
    (daemon::Mirror::start(&config, Clock::system()).await.unwrap(), folder)
}

/// A session with the mirror's DMTP face, whose certificate nobody vouches for.
async fn face(mirror: &daemon::Mirror) -> Session {
    let target = Target { host: "mirror.example", addr: mirror.dmtp, entrance: Entrance::Tls };
    let options = dmtp::Options {
        filter: dmtp::AddressFilter::with_loopback(),
        roots: Roots::none(),
        ..dmtp::Options::default()
    };
    let now = Clock::system().now();
    dmtp::client::connect(target, &options, now).await.unwrap().open().await.unwrap()
}

/// Whoever asks a mirror for a name over DMTP in vain makes it look, as over HTTP.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_asked_for_over_dmtp_is_looked_at() {
    let world = World::start(world::Options::default()).await.unwrap();
    let (mirror, _folder) = mirror(&world, |_| {}).await;
    let alice: Address = "alice@alder.example".parse().unwrap();
    let served = world.served(&alice).unwrap().pop().unwrap();
    let print = served.fingerprint(Level::Crypto).unwrap();
    let (name, other): (Name, Name) =
        (Name::Address(alice), "carol@birch.example".parse().unwrap());
    let mut reports = mirror.crawl.reports();
    let mut session = face(&mirror).await;
    let asked = session.verify(&name, &print).await;
    assert!(matches!(asked, Err(dmtp::client::Error::NotFound)), "{asked:?}");
    let Name::Address(carol) = &other else { unreachable!() };
    let asked = session.history(carol, None, None).await;
    assert!(matches!(asked, Err(dmtp::client::Error::NotFound)), "{asked:?}");
    for _ in 0..2 {
        let report = reports.recv().await.unwrap();
        assert_eq!(report.outcome, Outcome::Changed, "{:?}", report.detail);
        assert_eq!(report.users.len(), 1);
    }
    // What is served is the published head, a moment later.
    let found = loop {
        match session.signet(&name, None).await {
            Err(dmtp::client::Error::NotFound) => {
                tokio::time::sleep(Duration::from_millis(50)).await
            }
            found => break found.unwrap(),
        }
    };
    assert_eq!(found, &*served.full_split());
    assert_eq!(session.verify(&name, &print).await.unwrap(), Currency::Current);
    let chain = session.history(carol, None, None).await.unwrap();
    assert_eq!(chain.len(), world.served(carol).unwrap().len());
    assert!(chain.iter().all(|link| Signet::decode(link).is_ok()));
    mirror.stop().await;
}

/// A DX session through a proxy, asked as a visit asks.
async fn reached(
    options: &dmtp::Options,
    resolver: &FixedResolver,
    record: &Record,
) -> Result<Session, Unreached> {
    let domain: Domain = "a.example".parse().unwrap();
    let route = Route { domain: &domain, record, dnssec: Dnssec::Secure };
    let clock = Clock::system();
    let ports = Ports { dx: PORT.load(Ordering::Relaxed), dual: vec![] };
    reach(resolver, route, &ports, options, &clock, &mut Vec::new())
        .await
        .map(|(session, _)| session)
}

static PORT: AtomicU16 = AtomicU16::new(0);

/// RFC 1928 and 1929 against a proxy that connects for real, RFC 7686.
#[tokio::test]
async fn a_host_is_reached_through_a_proxy() {
    const ONION: &str = "dx.abcdefghijklmnop.onion";
    let (organization, alice, shelf) = organization("a.example");
    let identity =
        Authority::new().unwrap().identity("dx.a.example", Certificate::SelfSigned).unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    PORT.store(addr.port(), Ordering::Relaxed);
    let _host = DxHost::start("dx.a.example", listener, identity.clone(), shelf).unwrap();
    let record = |dx: &str| {
        let record = Template {
            poks: vec![organization.pok()],
            tls: vec![organization.pin(&identity.der)],
            dx: vec![dx.to_owned()],
            ..Template::default()
        };
        Record::parse(record.text().as_bytes()).unwrap()
    };
    let (clear, hidden) = (record("dx.a.example"), record(ONION));
    let resolver = FixedResolver::new(Dnssec::Secure);
    resolver.set_addresses("dx.a.example", &[IpAddr::V4(Ipv4Addr::LOCALHOST)], Dnssec::Secure);
    // A trap: nobody may ask for it.
    resolver.set_addresses(ONION, &[IpAddr::V4(Ipv4Addr::LOCALHOST)], Dnssec::Secure);
    let through = |socks: &Socks| dmtp::Options {
        filter: AddressFilter::with_loopback(),
        roots: Roots::none(),
        proxy: Some(Proxy::new(socks.addr)),
        ..dmtp::Options::default()
    };
    let why = |outcome: Result<Session, Unreached>| match outcome {
        Ok(_) => "reached",
        Err(Unreached::Dx(error)) => error.reason(),
        Err(other) => panic!("{other}"),
    };

    // It is handed the address that our resolver found, and the filter let pass.
    let onions = [(ONION.to_owned(), addr)].into();
    let socks = Socks::start(Conduct { onions, ..Conduct::default() }).await;
    let plain = through(&socks);
    let mut session = reached(&plain, &resolver, &clear).await.unwrap();
    assert!(session.signet(&Name::Address(alice.clone()), None).await.is_ok());
    assert_eq!(socks.asked(), [addr.to_string()]);
    let strict = dmtp::Options { filter: AddressFilter::default(), ..plain.clone() };
    assert_eq!(why(reached(&strict, &resolver, &clear).await), "forbidden-address");

    // An onion host only where the proxy is for those, by name, whatever the filter.
    assert_eq!(why(reached(&plain, &resolver, &hidden).await), "forbidden-address");
    let direct = dmtp::Options { proxy: None, ..plain.clone() };
    assert_eq!(why(reached(&direct, &resolver, &hidden).await), "forbidden-address");
    assert_eq!(socks.asked().len(), 1);
    let onion = dmtp::Options { proxy: plain.proxy.clone().map(Proxy::for_onions), ..strict };
    let mut session = reached(&onion, &resolver, &hidden).await.unwrap();
    assert!(session.signet(&Name::Address(alice), None).await.is_ok());
    assert_eq!(socks.asked()[1..], [format!("{ONION}:{}", addr.port())]);

    let with = async |conduct: Conduct, login: Option<&str>| {
        let mute = conduct.mute;
        let socks = Socks::start(conduct).await;
        let mut options = through(&socks);
        if mute {
            options.proxied = Duration::from_secs(1);
        }
        if let Some(login) = login {
            options.proxy = options.proxy.map(|proxy| proxy.with_login(login).unwrap());
        }
        why(reached(&options, &resolver, &clear).await)
    };
    let locked = || Conduct { login: Some(("me", "secret")), ..Conduct::default() };
    assert_eq!(with(locked(), Some("me:secret")).await, "reached");
    assert_eq!(with(locked(), Some("me:wrong")).await, "proxy");
    assert_eq!(with(locked(), None).await, "proxy");
    assert_eq!(with(Conduct::default(), Some("me:secret")).await, "reached");
    for (code, reason) in
        [(1, "unreachable"), (2, "proxy"), (4, "unreachable"), (5, "unreachable"), (8, "proxy")]
    {
        assert_eq!(with(Conduct { refuses: Some(code), ..Conduct::default() }, None).await, reason);
    }
    let babble = Conduct { babbles: Some(b"HTTP/1.1 400 Bad Request"), ..Conduct::default() };
    assert_eq!(with(babble, None).await, "proxy");
    assert_eq!(with(Conduct { mute: true, ..Conduct::default() }, None).await, "connect-timeout");
}

/// A vantage of the world, and how it reaches DX hosts.
fn place(name: &str, vantage: &world::Vantage, proxy: Option<Proxy>) -> Vantage {
    let resolver = Arc::new(HickoryResolver::new(vantage.resolver_options()).unwrap());
    Vantage { name: name.to_owned(), resolver, proxy }
}

/// The attack that one place alone cannot see, and what lags, which looks alike.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_place_is_shown_differently_is_kept() {
    let world = World::start(world::Options::default()).await.unwrap();
    let (far, near) = (world.vantage().await.unwrap(), world.vantage().await.unwrap());
    let socks = Socks::start(Conduct::default()).await;
    let others = [place("far", &far, Some(Proxy::new(socks.addr))), place("near", &near, None)];
    let second_look = Duration::from_millis(100);
    let options = crawl::Options { second_look, compare_every: 0, ..options(&world) };
    let crawl = Crawl::from_places(&world, options, others).await;

    // What is new is looked at from everywhere, and is the same.
    let alice: Address = "alice@birch.example".parse().unwrap();
    let report = crawl.visit(alice.as_str()).await;
    assert_eq!(report.outcome, Outcome::Changed, "{:?}", report.detail);
    crawl.until_counted(COMPARISONS, "same", 1).await;
    assert_eq!(socks.asked().len(), 1, "far looks through its proxy");
    assert_eq!(crawl.incidents.take(), []);

    // A forged key for one place: seen when the name changes for all.
    let rotated = world.rotate(&alice).unwrap();
    let forged = world.swap_key_for(&far, &alice).await.unwrap();
    let report = crawl.visit(alice.as_str()).await;
    assert_eq!(report.users, [(alice.clone(), Outcome::Changed)]);
    crawl.until_counted(COMPARISONS, "differs", 1).await;
    let [incident] = &crawl.incidents.take()[..] else { panic!("one incident") };
    assert_eq!(incident.kind, IncidentKind::VantageDiffers);
    assert_eq!(incident.address.as_ref(), Some(&alice));
    assert_eq!(incident.why.rule, "vantage-signet");
    assert!(incident.why.message.contains("far was shown another signet than home"));
    assert_eq!(incident.before, &*rotated.full_split());
    assert_eq!(incident.bytes, &*forged.full_split());
    assert_eq!(crawl.count("syndicate_crawl_differences_total", "vantage-signet"), 1);

    // Other keys in a record that DNSSEC proves there: with its chain.
    let elsewhere = Organization::new("fir.example".parse().unwrap(), Habits::default()).unwrap();
    let fir: Domain = "fir.example".parse().unwrap();
    let text = Template { poks: vec![elsewhere.pok()], ..Template::default() }.text();
    near.dns().set_txt("_dx.fir.example", &[&text]).unwrap();
    crawl.visit(fir.as_str()).await;
    crawl.until_counted(COMPARISONS, "differs", 2).await;
    let [incident] = &crawl.incidents.take()[..] else { panic!("one incident") };
    assert_eq!((incident.why.rule, &incident.address), ("vantage-pok", &None));
    assert!(incident.why.message.contains("near"), "{}", incident.why.message);
    assert_eq!(incident.before, world.record_text(&fir).unwrap());
    assert_eq!(incident.bytes, text);
    let anchors = world.trust_anchor().of_root();
    let proved = verify_observation(&incident.chain, &fir, &anchors, incident.at).unwrap();
    assert_eq!(proved.record.as_deref(), Some(text.as_bytes()));

    // One place lags behind: by the second look all see the same.
    let carol: Address = "carol@hazel.example".parse().unwrap();
    let hazel = carol.domain().clone();
    world.enroll(&hazel, "carol").unwrap();
    let shelf = world.divert(&far, &hazel).await.unwrap();
    crawl.visit(carol.as_str()).await;
    crawl.until_counted(COMPARISONS, "same", 2).await;
    world.rotate(&carol).unwrap();
    let (fresh, name) = (world.served(&carol).unwrap(), carol.clone());
    // Each look from far is one request: it has caught up as the second comes.
    socks.at_request(socks.asked().len() + 2, move || shelf.put_user(&carol, &fresh));
    crawl.visit(name.as_str()).await;
    crawl.until_counted(COMPARISONS, "settled", 1).await;
    assert_eq!(crawl.incidents.take(), []);
}

/// What comes up while a domain is looked at is looked at next.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_during_a_comparison_has_its_own() {
    let world = World::start(world::Options::default()).await.unwrap();
    let far = world.vantage().await.unwrap();
    let second_look = Duration::from_secs(3);
    let options = crawl::Options { second_look, compare_every: 0, ..options(&world) };
    let crawl = Crawl::from_places(&world, options, [place("far", &far, None)]).await;
    let alice: Address = "alice@birch.example".parse().unwrap();
    world.swap_key_for(&far, &alice).await.unwrap();
    for _ in 0..2 {
        let report = crawl.visit(alice.as_str()).await;
        assert_eq!(report.users, [(alice.clone(), Outcome::Changed)], "{:?}", report.detail);
        world.rotate(&alice).unwrap();
    }
    crawl.until_counted(COMPARISONS, "differs", 2).await;
    let rules: Vec<_> = crawl.incidents.take().iter().map(|it| it.why.rule).collect();
    assert_eq!(rules, ["vantage-signet"; 2]);
}

/// What never changes has its turn too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_looked_at_in_turn() {
    let world = World::start(world::Options::default()).await.unwrap();
    let far = world.vantage().await.unwrap();
    let options = crawl::Options {
        second_look: Duration::from_millis(100),
        compare_every: 200,
        ..options(&world)
    };
    let crawl = Crawl::from_places(&world, options, [place("far", &far, None)]).await;
    let alice: Address = "alice@alder.example".parse().unwrap();
    crawl.visit(alice.as_str()).await;
    crawl.until_counted(COMPARISONS, "same", 1).await;
    world.swap_key_for(&far, &alice).await.unwrap();
    tokio::time::sleep(Duration::from_millis(250)).await;
    let report = crawl.visit(alice.as_str()).await;
    assert_eq!(report.users, [(alice, Outcome::Confirmed)]);
    crawl.until_counted(COMPARISONS, "differs", 1).await;
    assert_eq!(crawl.incidents.take()[0].kind, IncidentKind::VantageDiffers);
}

/// Vantages as an operator writes them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vantages_come_from_the_configuration() {
    let world = World::start(world::Options::default()).await.unwrap();
    let far = world.vantage().await.unwrap();
    let socks = Socks::start(Conduct { login: Some(("me", "secret")), ..Conduct::default() }).await;
    let login = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(login.path(), "me:secret\n").unwrap();
    let section = |name: &str| VantageSection {
        name: name.to_owned(),
        servers: Vec::new(),
        proxy: None,
        proxy_login: None,
        onion: false,
    };
    let NameServers::Listed(servers) = far.dns().name_servers() else { unreachable!() };
    let (mirror, _folder) = mirror(&world, |file| {
        let far = VantageSection {
            servers: servers.iter().map(ToString::to_string).collect(),
            proxy: Some(format!("socks5://{}", socks.addr)),
            proxy_login: Some(login.path().to_owned()),
            ..section("far")
        };
        file.crawl.vantage = vec![section("home"), far];
        assert_eq!(File::parse(&file.print()).unwrap(), *file);
    })
    .await;
    let alice: Name = "alice@alder.example".parse().unwrap();
    let report = mirror.crawl.visit(alice, "test").await.unwrap();
    assert_eq!(report.outcome, Outcome::Changed, "{:?}", report.detail);
    let looked = async {
        while socks.asked().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, looked).await.expect("far looks through its proxy");
    mirror.stop().await;
}

/// A domain that goes by the record above it is logged as secure, with a chain
/// that whoever holds the root's key can check (§1.7).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_above_is_logged_with_its_chain() {
    let world = World::start(world::Options::default()).await.unwrap();
    let crawl = Crawl::start(&world, options(&world)).await;
    let above: Domain = "alder.example".parse().unwrap();
    let below: Domain = "mail.alder.example".parse().unwrap();
    let text = world.record_text(&above).unwrap().replace(" sub=strict", "") + " sub=relaxed";
    world.publish_text(&above, &text).unwrap();
    let report = crawl.visit(below.as_str()).await;
    assert_eq!(report.dnssec, Some(Dnssec::Secure));
    assert_eq!(report.entries.len(), 1, "{report:?}");
    let key = below.as_str().as_bytes();
    let row: DomainRow = rows::find(&*crawl.state, key).await.unwrap().unwrap();
    assert_eq!(row.dnssec, Dnssec::Secure);
    let chain = row.dnssec_chain.expect("a chain");
    let chain = crawl.public.get(&keys::blob(&chain.0), 1 << 20).await.unwrap().unwrap();
    let anchors = world.trust_anchor().of_root();
    let proved = verify_observation(&chain, &below, &anchors, report.ended).unwrap();
    assert_eq!((proved.dnssec, proved.record), (Dnssec::Secure, Some(text.into_bytes())));
}

/// Many domains, one host: it is not flooded, and everybody has a visit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shared_host_is_not_flooded() {
    let world = World::start(world::Options { further: 40, ..world::Options::default() });
    let world = world.await.unwrap();
    let limits = Limits { connections: 2, per_second: 50, burst: 2, ..Limits::default() };
    let crawl = Crawl::start(&world, crawl::Options { hosts: limits, ..options(&world) }).await;
    let visits = (0..40).map(|n| {
        let name = format!("alice@d{n}.example").parse().unwrap();
        crawl.handle.visit(name, "test")
    });
    let reports = tokio::time::timeout(PATIENCE, futures::future::join_all(visits)).await.unwrap();
    for report in reports {
        let report = report.unwrap();
        assert_eq!(report.outcome, Outcome::Changed, "{:?}", report.detail);
        // Nothing was logged of it before its host had time.
        assert_eq!(report.entries.len(), 2, "{:?}", report.entries);
    }
    assert!(crawl.count("syndicate_crawl_visits_total", "host-busy") > 0);
}

/// A host that is down is left alone for all its domains, until one finds it up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_fails_is_left_alone_and_probed() {
    let world = World::start(world::Options { further: 20, ..world::Options::default() });
    let world = world.await.unwrap();
    let limits = Limits { failures: 3, rest: 60_000, rest_limit: 60_000, ..Limits::default() };
    let pace = Pace { interval: 3_600_000, back_off: 100_000, back_off_limit: 3_600_000 };
    let options = crawl::Options { hosts: limits, concurrency: 1, pace, ..options(&world) };
    // It stands still, however long the visits take.
    let clock = Clock::manual(Clock::system().now());
    let crawl = Crawl::by_clock(&world, options, [], clock.clone()).await;
    let domain = |n: u32| -> Domain { format!("d{n}.example").parse().unwrap() };
    world.stop_hosts(&domain(0)).await.unwrap();
    let mut outcomes = Vec::new();
    for n in 0..20 {
        outcomes.push(crawl.visit(domain(n).as_str()).await.outcome);
    }
    let (asked, left) = outcomes.split_at(3);
    assert_eq!(asked, [Outcome::Dx("unreachable"); 3]);
    assert_eq!(left, [Outcome::HostResting; 17]);

    // Its domains come back by themselves, not each after a back-off of its own.
    let mut reports = crawl.handle.reports();
    world.resume_hosts(&domain(0)).await.unwrap();
    clock.advance(limits.rest + pace.back_off / 10);
    let mut back = std::collections::BTreeSet::new();
    let all_back = async {
        while back.len() < left.len() {
            let report = reports.recv().await.unwrap();
            if report.outcome.is_good() {
                back.insert(report.domain.clone());
            }
        }
    };
    let waited = tokio::time::timeout(PATIENCE, all_back).await;
    assert!(waited.is_ok(), "{back:?}");
    let others: std::collections::BTreeSet<Domain> = (3..20).map(domain).collect();
    assert_eq!(back, others);
}
