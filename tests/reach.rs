//! How far the crawl reaches, over real sockets: hosts found by MX behind
//! STARTTLS, names asked for over DMTP.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use syndicate::clock::Clock;
use syndicate::config::File;
use syndicate::crawl::{
    self, Crawler, Handle, Incident, Incidents, Outcome, Placed, Report, Rooms, Sink, Unplaced,
};
use syndicate::daemon;
use syndicate::demo::host::{Authority, Certificate, DxHost, Shelf};
use syndicate::demo::organization::{Habits, Organization};
use syndicate::demo::world::{self, World};
use syndicate::dime::certificate::How;
use syndicate::dime::record::Template;
use syndicate::dime::reply::Currency;
use syndicate::dime::signet::{Level, Signet};
use syndicate::dime::{Address, Domain, Name};
use syndicate::dmtp::{self, Entrance, Roots, Session, Target};
use syndicate::log::{self, Keys, Log, Refused};
use syndicate::proof::entry::Draft;
use syndicate::proof::note::SigningKey;
use syndicate::proof::vrf::SecretKey;
use syndicate::resolver::{HickoryResolver, NameServers};
use syndicate::store::testing::MemoryState;
use syndicate::store::{State, Store};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The crawl's drafts go into a real log.
struct IntoLog(Log);

#[async_trait]
impl Sink for IntoLog {
    async fn submit(&self, draft: Draft) -> Result<Placed, Unplaced> {
        match self.0.submit(draft).await {
            Ok(placed) => Ok(Placed::Version(placed.version)),
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
    _folder: tempfile::TempDir,
    _tasks: JoinSet<()>,
}

impl Crawl {
    async fn start(world: &World, options: crawl::Options) -> Crawl {
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
        let (store, clock) = (Store::memory(), Clock::system());
        let opened =
            log::open(log_options, store, state.clone(), keys, clock.clone()).await.unwrap();
        let incidents = Kept::default();
        let rooms = Rooms {
            resolver: Arc::new(HickoryResolver::new(world.resolver_options()).unwrap()),
            second_resolver: None,
            state,
            public: opened.log.store().public.clone(),
            clock,
            sink: Arc::new(IntoLog(opened.log.clone())),
            incidents: Arc::new(incidents.clone()),
        };
        let metrics = crawl::Metrics::new(&prometheus::Registry::new()).unwrap();
        let (crawler, handle) = Crawler::new(rooms, options, metrics, "test");
        let mut tasks = JoinSet::new();
        let (forever, sequencer) = (CancellationToken::new(), opened.sequencer);
        let never = forever.clone();
        tasks.spawn(async move { sequencer.run(never).await.unwrap() });
        tasks.spawn(async move { crawler.run(forever).await.unwrap() });
        Crawl { handle, incidents, _folder: folder, _tasks: tasks }
    }

    async fn visit(&self, name: &str) -> Arc<Report> {
        self.handle.visit(name.parse().unwrap(), "test").await.unwrap()
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

/// A port on which nobody listens, at this address.
async fn free_port(ip: Ipv4Addr) -> u16 {
    TcpListener::bind((ip, 0)).await.unwrap().local_addr().unwrap().port()
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
    let (first, second) = (free_port(ip).await, free_port(ip).await);
    let crawl_options = crawl::Options { dual_ports: vec![first, second], ..options(&world) };
    let crawl = Crawl::start(&world, crawl_options).await;
    for (number, port) in [first, second].into_iter().enumerate() {
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
        let elsewhere = TcpListener::bind((ip, 0)).await.unwrap();
        let mut host = DxHost::start(&name, elsewhere, identity, shelf).unwrap();
        host.serve_dual(TcpListener::bind((ip, port)).await.unwrap());

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
