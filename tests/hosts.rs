//! DX hosts, zones and clients that do everything wrong, met all at once by a
//! whole mirror among honest ones: each gets a clear, recorded reason, the others
//! get their visit, and the mirror stays well.

#[path = "support/client.rs"]
mod client;
#[path = "support/rogue.rs"]
mod rogue;
#[path = "support/wired.rs"]
mod wired;
#[path = "support/words.rs"]
mod words;

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use client::Client;
use rogue::{Answer, Conduct, Rogue};
use syndicate::clock::Clock;
use syndicate::crawl::quota::{self, Limits as Quota};
use syndicate::crawl::{self, Incident, IncidentKind, Incidents, Outcome, Pace, Report};
use syndicate::daemon::{Filed, FromCrawl};
use syndicate::demo::dns::PrivateDns;
use syndicate::demo::world::{self, World};
use syndicate::dime::reply::Limits;
use syndicate::dime::signet::SecondaryKey;
use syndicate::dime::{Address, Domain, Name, Timestamp};
use syndicate::dmtp::{self, AddressFilter, Budget, Network};
use syndicate::proof::entry::{Entry, Kind};
use syndicate::proof::{Label, incident as filed};
use syndicate::resolver::HickoryResolver;
use syndicate::store::rows::{self, FrontierRow};
use syndicate::store::sled::Sled;
use syndicate::store::{State, Store};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinSet;
use wired::{Parts, Wired};
use words::MARK;

/// For a handshake or a reply. Honest hosts on a busy machine need less.
const DEADLINE: Duration = Duration::from_secs(10);
/// Bytes of a signet, and of a whole reply.
const OBJECT: usize = 16 * 1024;
/// What one name may put into the log.
const QUOTA: Quota =
    Quota { entries: 8, new_labels: 6, mailboxes: quota::MAILBOXES, bytes: quota::BYTES };
/// How much more memory the process may need for a hundred rogues, KiB: each
/// could send as much without an end.
const MEMORY: u64 = 256 << 10;

/// A file and what is in it.
type File = (PathBuf, filed::Incident);

/// Incidents are kept here, to be asked about, and on disk as a mirror does.
#[derive(Clone)]
struct Kept(Arc<Mutex<Vec<Incident>>>, Arc<FromCrawl>);

impl Kept {
    fn all(&self) -> Vec<Incident> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl Incidents for Kept {
    async fn report(&self, incident: Incident) {
        self.1.report(incident.clone()).await;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(incident);
    }
}

/// A mirror with everything in a folder.
struct Crawl {
    mirror: Wired,
    state: Arc<dyn State>,
    incidents: Kept,
    client: Client,
    folder: tempfile::TempDir,
}

impl Crawl {
    async fn start(world: &World) -> Crawl {
        Crawl::with(world, hasty(world), Clock::system()).await
    }

    async fn with(world: &World, options: crawl::Options, clock: Clock) -> Crawl {
        words::listen();
        let folder = tempfile::tempdir().unwrap();
        let store = Store::folder(&folder.path().join("blobs")).unwrap();
        let state: Arc<dyn State> = Arc::new(Sled::open(&folder.path().join("state")).unwrap());
        let filed = Arc::new(Filed::new(store.private.clone(), clock.clone()));
        let origin = wired::verifier().name().to_owned();
        let on_disk = FromCrawl::new(filed, state.clone(), store.public.clone(), origin);
        let incidents = Kept(Arc::default(), Arc::new(on_disk));
        let parts = Parts {
            store,
            state: state.clone(),
            guard: folder.path().join("guard"),
            clock: clock.clone(),
            // No zone here is silent: whoever waits, waits for a busy machine.
            resolver: Arc::new(HickoryResolver::new(world.resolver_options()).unwrap()),
            incidents: Arc::new(incidents.clone()),
            crawl: options,
            limits: QUOTA,
        };
        let mirror = Wired::start(parts).await.unwrap();
        let mut client = Client::new(wired::verifier());
        client.clock = clock;
        Crawl { mirror, state, incidents, client, folder }
    }

    async fn visit(&self, domains: &[Domain]) -> BTreeMap<Domain, Arc<Report>> {
        let reports = self.mirror.visit(domains.iter().cloned().map(Name::Domain)).await;
        reports.into_iter().map(|report| (report.domain.clone(), report)).collect()
    }

    async fn watch(&self, names: impl IntoIterator<Item = Address>) {
        for address in names {
            self.mirror.crawl.watch(Name::Address(address), "test").await.unwrap();
        }
    }

    /// Everything that is filed.
    fn on_disk(&self) -> Vec<File> {
        fn read(folder: &Path, found: &mut Vec<File>) {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    read(&path, found);
                } else {
                    let incident = filed::Incident::read(&fs::read(&path).unwrap()).unwrap();
                    found.push((path, incident));
                }
            }
        }
        let mut found = Vec::new();
        read(&self.folder.path().join("blobs/private/incident"), &mut found);
        found
    }

    async fn failures(&self, domain: &Domain) -> u32 {
        let key = domain.as_str().as_bytes();
        rows::find::<FrontierRow>(&*self.state, key).await.unwrap().unwrap().failures
    }

    async fn get(&self, path: &str) -> String {
        let answer = self.client.get(&format!("{}{path}", self.mirror.http)).await;
        String::from_utf8(answer.unwrap_or_else(|| panic!("{path}: no answer")).to_vec()).unwrap()
    }

    /// Alive, ready and sequencing, and no word about a mailbox anywhere.
    async fn is_well(&self) {
        assert_eq!(self.get("/healthz").await, "ok\n");
        let ready: serde_json::Value = serde_json::from_str(&self.get("/readyz").await).unwrap();
        assert_eq!(
            (&ready["ready"], &ready["sequencing"]),
            (&true.into(), &true.into()),
            "{ready}"
        );
        assert_eq!(words::leak(&self.get("/metrics").await), None);
        words::no_mailbox_was_named();
    }

    /// Entries in the published log by label.
    async fn entries(&mut self) -> BTreeMap<Label, u64> {
        let mut counts = BTreeMap::new();
        for entry in self.client.entries(&self.mirror.http).await {
            match Entry::decode(&entry).unwrap().kind {
                Kind::Domain(seen) => {
                    *counts.entry(Label::of_domain(&seen.domain.parse().unwrap())).or_default() += 1
                }
                Kind::User(seen) => *counts.entry(seen.label).or_default() += 1,
                _ => {}
            }
        }
        counts
    }
}

/// Small limits, and fewer visits at once than there are rogues.
fn hasty(world: &World) -> crawl::Options {
    const HOUR: u64 = 3_600_000;
    crawl::Options {
        concurrency: 12,
        // Whoever failed is visited again when a test asks for it, and not before.
        pace: Pace { interval: HOUR, back_off: HOUR, back_off_limit: HOUR },
        dx_port: world.dmtp_port(),
        dmtp: dmtp::Options {
            handshake: DEADLINE,
            reply: DEADLINE,
            object: OBJECT,
            limits: Limits { line: 2 * OBJECT, lines: 16, total: 4 * OBJECT },
            filter: beyond_the_first(),
            roots: world.roots(),
            ..dmtp::Options::default()
        },
        ..crawl::Options::default()
    }
}

/// All of loopback but 127.0.0.0/16, which stands for an operator's own network.
fn beyond_the_first() -> AddressFilter {
    let network = |bits: u32| {
        let second = 1u8 << (bits - 1);
        let prefix = u8::try_from(17 - bits).unwrap();
        Network::new(IpAddr::V4(Ipv4Addr::new(127, second, 0, 0)), prefix).unwrap()
    };
    AddressFilter::new((1..=8).map(network).collect())
}

/// What is expected of a visit.
struct Case {
    conduct: Conduct,
    /// Of the domain, and of its mailbox where it got that far.
    domain: &'static str,
    mailbox: Option<&'static str>,
}

fn cases() -> Vec<Case> {
    let domain = |domain, conduct| Case { conduct, domain, mailbox: None };
    let org = |outcome, answer| domain(outcome, Conduct::Org(answer));
    // Where the org signet is fine the domain is logged, whatever the mailbox does.
    let mailbox = |outcome, conduct| Case { conduct, domain: "changed", mailbox: Some(outcome) };
    let user = |outcome, answer| mailbox(outcome, Conduct::User(answer));
    let says = |words: &str| Answer::Says(words.to_owned());
    let too_large = format!("250 OK [{}]\r\n", "A".repeat((OBJECT + 3) / 3 * 4));
    vec![
        // Slow.
        domain("slow", Conduct::Mute),
        domain("slow", Conduct::Greets("")),
        org("slow", Answer::Silence),
        org("slow", Answer::Drips),
        user("slow", Answer::Silence),
        user("slow", Answer::Drips),
        domain("slow", Conduct::DripsTls),
        domain("slow", Conduct::DripsBanner),
        mailbox("slow", Conduct::History(Answer::Drips)),
        // No TLS, or none to speak of.
        domain("tls", Conduct::HangsUp),
        domain("tls", Conduct::Plaintext(b"220 mail.example ESMTP\r\n")),
        domain("tls", Conduct::Plaintext(&[0x16, 0x03, 0x03, 0xff, 0xff, 0, 1, 2, 3])),
        domain("tls", Conduct::Garbage(&[0x16, 0x03, 0x01, 0x00, 0x04, 0xde, 0xad, 0xbe, 0xef])),
        domain("tls", Conduct::Garbage(b"\x80\xff\x00\x01garbage")),
        // Malformed.
        domain("banner", Conduct::Greets("220 mail.example ESMTP Postfix\r\n")),
        domain("malformed", Conduct::Greets("\0\x01\x02\r\n")),
        org("malformed", says("250 OK [!!! no base64 !!!]\r\n")),
        org("malformed", says("OK\r\n")),
        domain("malformed", Conduct::EndlessLines),
        org("malformed", Answer::Floods("250-[AAAA]\r\n")),
        user("malformed", says("250 OK [====]\r\n")),
        mailbox("malformed", Conduct::History(says("250-[x]\r\n250 OK\r\n"))),
        // Truncated: the reply, or what is in it.
        org("truncated", Answer::Breaks("250 OK [AAAA".into())),
        user("truncated", Answer::Breaks("250 OK [AAAA".into())),
        org("truncated", Answer::Ends("250 OK [AAAA".into())),
        user("truncated", Answer::Ends("250 OK [AAAA".into())),
        org("org-signet-invalid", Answer::Cut(60)),
        user("signet-invalid", Answer::Cut(60)),
        user("signet-invalid", says("250 OK [AAAA]\r\n")),
        // Oversized.
        domain("oversized", Conduct::EndlessBanner),
        org("oversized", Answer::Huge),
        user("oversized", Answer::Huge),
        mailbox("oversized", Conduct::History(Answer::Cycle(100))),
        org("oversized", Answer::Floods("A")),
        org("oversized", says(&too_large)),
        user("oversized", Answer::Floods("A")),
        mailbox("oversized", Conduct::History(Answer::Floods("250-[AAAA]\r\n"))),
        // A history that goes round, within all limits: the same three signets.
        mailbox("changed", Conduct::History(Answer::Cycle(4))),
        // Just a no.
        org("refused", says("554 NOT TODAY\r\n")),
        org("not-found", says("450 NOT FOUND\r\n")),
        user("not-found", says("450 NOT FOUND\r\n")),
    ]
}

/// Outcomes after which the domain's next visit waits its usual time.
const GOOD: [&str; 2] = ["changed", "not-found"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_gets_a_reason_and_the_others_a_visit() {
    let world = Arc::new(World::start(world::Options::default()).await.unwrap());
    let mut crawl = Crawl::start(&world).await;
    let mut rogues = Vec::new();
    for (number, case) in cases().into_iter().enumerate() {
        rogues.push((settle(&world, number, case.conduct.clone()).await, case));
    }
    let watched = rogues.iter().map(|(rogue, _)| rogue.address.clone());
    crawl.watch(watched.chain(world.addresses())).await;
    let (honest, odd) = (world.domains(), rogues.iter().map(|(rogue, _)| rogue.domain().clone()));
    let odd: Vec<Domain> = odd.collect();
    let before = resident();
    let clients = slow_clients(&crawl.mirror).await;

    let reports = crawl.visit(&[odd.clone(), honest.clone()].concat()).await;
    for (rogue, case) in &rogues {
        check(&reports[rogue.domain()], rogue, case);
        let failed = crawl.failures(rogue.domain()).await > 0;
        assert_eq!(failed, !GOOD.contains(&case.domain), "{:?} is not on record", case.conduct);
    }
    all_good(&honest, &reports);
    counted(&crawl.get("/metrics").await);
    kept(&crawl.on_disk(), &rogues, &world);
    crawl.is_well().await;
    drop(clients);
    let grown = resident().saturating_sub(before);
    assert!(grown < MEMORY, "{grown} KiB more memory");

    // Whoever behaves again is served again.
    for (rogue, _) in &rogues {
        rogue.behave(Conduct::Honest);
    }
    for (domain, report) in crawl.visit(&odd).await {
        assert!(report.outcome.is_good(), "{domain}: {} {:?}", report.outcome, report.detail);
        assert_eq!(report.users.len(), 1, "{domain}");
        assert!(report.users[0].1.is_good(), "{domain}: {}", report.users[0].1);
        assert_eq!(crawl.failures(&domain).await, 0);
    }
    // And nothing of what went before is in the log: one entry a link.
    let entries = crawl.entries().await;
    for (rogue, case) in &rogues {
        let of = |label| entries.get(&label).copied().unwrap_or_default();
        let user = Label::of_address(crawl.mirror.log.vrf(), &rogue.address);
        let own = Label::of_domain(rogue.domain());
        assert_eq!((of(own) <= 2, of(user)), (true, 3), "{:?}", case.conduct);
    }
}

/// Hosts that send more together than there is room for, and hold on: what they send
/// keeps to the budget, and the others get their visit meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_replies_have_a_budget() {
    const REPLY: usize = 256 << 10;
    const BUDGET: usize = 4 * REPLY;
    // As long as the test takes.
    const HELD: Duration = Duration::from_secs(3600);
    let world = World::start(world::Options::default()).await.unwrap();
    let mut options = hasty(&world);
    let replies = Budget::new(BUDGET, REPLY);
    options.dmtp = dmtp::Options {
        reply: HELD,
        session: HELD,
        object: REPLY,
        limits: Limits { line: REPLY, lines: 16, total: REPLY },
        replies: replies.clone(),
        ..options.dmtp
    };
    let crawl = Crawl::with(&world, options, Clock::system()).await;
    let mut rogues = Vec::new();
    for number in 0..12 {
        let answer = Answer::Hoards(REPLY * 3 / 4);
        // About the mailbox, half of them: its domain's signet comes first.
        let conduct = if number % 2 == 0 { Conduct::Org(answer) } else { Conduct::User(answer) };
        rogues.push(settle(&world, number, conduct).await);
    }
    crawl.watch(rogues.iter().map(|rogue| rogue.address.clone())).await;
    // All of it is taken in the end, and somebody is told to come later.
    let refused = async || {
        let metrics = crawl.get("/metrics").await;
        metrics.lines().any(|line| line.contains("_total{outcome=\"host-busy\"}"))
    };
    let patience = Instant::now() + 12 * DEADLINE;
    while replies.taken() < BUDGET / 2 || !refused().await {
        assert!(Instant::now() < patience, "{} taken, nobody refused", replies.taken());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let honest = world.domains();
    crawl.watch(world.addresses()).await;
    all_good(&honest, &crawl.visit(&honest).await);
    assert!(crawl.get("/metrics").await.contains("\nsyndicate_crawl_reply_bytes "));
    crawl.is_well().await;
    assert!(replies.most() <= BUDGET, "{}", replies.most());
}

/// A domain whose only host is a rogue.
async fn settle(world: &World, number: usize, conduct: Conduct) -> Rogue {
    let domain: Domain = format!("rogue{number}.example").parse().unwrap();
    let rogue = Rogue::start(&domain, MARK, world.dmtp_port(), conduct).await;
    publish(world.dns(), &domain, &rogue.record, &[IpAddr::V4(rogue.ip)]);
    rogue
}

/// A zone with a record, and its host at these addresses.
fn publish(dns: &PrivateDns, domain: &Domain, record: &str, addresses: &[IpAddr]) {
    dns.add_zone(domain.as_str(), true).unwrap();
    dns.set_txt(&format!("_dime.{domain}"), &[record]).unwrap();
    dns.set_addresses(&format!("dx.{domain}"), addresses).unwrap();
}

fn all_good(domains: &[Domain], reports: &BTreeMap<Domain, Arc<Report>>) {
    for domain in domains {
        let report = &reports[domain];
        assert!(report.outcome.is_good(), "{domain}: {} {:?}", report.outcome, report.detail);
        let users: Vec<_> = report.users.iter().map(|(_, outcome)| outcome).collect();
        assert!(users.iter().all(|outcome| outcome.is_good()), "{domain}: {users:?}");
    }
}

/// Memory of this process, KiB.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// Clients of both faces, more than one client may have, that send a byte now
/// and then and take nothing. They go on until dropped.
async fn slow_clients(mirror: &Wired) -> JoinSet<()> {
    let mut clients = JoinSet::new();
    for (number, to) in
        (0..80).flat_map(|number| [(number, mirror.http_addr), (number, mirror.dmtp)])
    {
        let from = SocketAddr::from((Ipv4Addr::new(127, 9, 9, 9), 0));
        clients.spawn(async move {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind(from).unwrap();
            let Ok(mut stream) = socket.connect(to).await else { return };
            let head = b"GET /v1/lookup/x@y.example HTTP/1.1\r\nx: ";
            let _ = stream.write_all(&head[..number % head.len()]).await;
            while stream.write_all(b"a").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
    }
    clients
}

/// What is wrong is in DNS, or comes in the middle of a visit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_dns_and_time_can_do_is_bounded() {
    // Nobody may be sent here, whatever a stranger's DNS says. The world takes the
    // port that is free here, and not the other way round.
    let own = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let dmtp_port = own.local_addr().unwrap().port();
    let options = world::Options { dmtp_port, ..world::Options::default() };
    let world = Arc::new(World::start(options).await.unwrap());
    let mut crawl = Crawl::start(&world).await;
    let dns = world.dns();
    let trap = tokio::spawn(async move { own.accept().await.map(|(_, from)| from) });
    let silent = settle(&world, 90, Conduct::HangsUp).await;
    let record = silent.record.replace("dx.rogue90.example", "@");

    let mut expected: Vec<(Domain, &str)> = Vec::new();
    let mut domain = |outcome: &'static str| -> Domain {
        let domain: Domain = format!("odd{}.example", expected.len()).parse().unwrap();
        dns.add_zone(domain.as_str(), true).unwrap();
        expected.push((domain.clone(), outcome));
        domain
    };
    let with = |host: &str| record.replace('@', host);
    let texts = |domain: &Domain, texts: &[String]| {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        dns.set_txt(&format!("_dime.{domain}"), &texts).unwrap();
    };

    // Addresses that are none of a stranger's business.
    for address in [
        "127.0.0.1",
        "::ffff:127.0.0.1",
        "::1",
        "0.0.0.0",
        "10.1.2.3",
        "192.168.0.1",
        "169.254.169.254",
        "224.0.0.1",
        "fe80::1",
        "fd00::1",
    ] {
        let domain = domain("forbidden-address");
        let address: IpAddr = address.parse().unwrap();
        publish(dns, &domain, &with(&format!("dx.{domain}")), &[address]);
    }
    let many = domain("forbidden-address");
    let addresses: Vec<IpAddr> = (0..60).map(|n| IpAddr::V4(Ipv4Addr::new(127, 0, 0, n))).collect();
    publish(dns, &many, &with(&format!("dx.{many}")), &addresses);

    // Aliases that go round, or on and on.
    let looped = domain("dns-failed");
    dns.set_cname(&format!("_dime.{looped}"), &format!("a.{looped}")).unwrap();
    dns.set_cname(&format!("a.{looped}"), &format!("_dime.{looped}")).unwrap();
    let own_alias = domain("dns-failed");
    dns.set_cname(&format!("_dx.{own_alias}"), &format!("_dx.{own_alias}")).unwrap();
    let looped_host = domain("dns-failed");
    texts(&looped_host, &[with(&format!("dx.{looped_host}"))]);
    dns.set_cname(&format!("dx.{looped_host}"), &format!("dy.{looped_host}")).unwrap();
    dns.set_cname(&format!("dy.{looped_host}"), &format!("dx.{looped_host}")).unwrap();
    let long = domain("dns-failed");
    dns.set_cname(&format!("_dime.{long}"), &format!("a0.{long}")).unwrap();
    for at in 0..40 {
        dns.set_cname(&format!("a{at}.{long}"), &format!("a{}.{long}", at + 1)).unwrap();
    }
    dns.set_txt(&format!("a40.{long}"), &[&with("dx.rogue90.example")]).unwrap();

    // Texts by number and by length.
    let numbered: Vec<String> = (0..300).map(|n| format!("text {n}")).collect();
    texts(&domain("dns-failed"), &numbered);
    let long: Vec<String> = (0..60).map(|n| format!("{n}{}", "x".repeat(1200))).collect();
    texts(&domain("dns-failed"), &long);
    let claims: Vec<String> = (0..40).map(|n| format!("{} x{n}=1", with("a.example"))).collect();
    texts(&domain("record-ambiguous"), &claims);
    // A crowd of other texts hides no record, and is none.
    let crowd: Vec<String> = (0..50).map(|n| format!("v=spf{n} -all")).collect();
    texts(&domain("no-record"), &crowd);

    // Records that go on and on.
    let pok = record.split(' ').find(|field| field.starts_with("pok=")).unwrap();
    for (field, times) in [(pok, 17), (pok, 1000), ("dx=a.example", 1000)] {
        let text = format!("{} {}", with("a.example"), [field].repeat(times).join(" "));
        texts(&domain("record-refused"), &[text]);
    }
    // As many hosts as a record can name, and all of them hang up.
    let mut hosts = with("h0.rogue90.example");
    for number in 0..80 {
        let host = format!("h{number}.rogue90.example");
        dns.set_addresses(&host, &[IpAddr::V4(silent.ip)]).unwrap();
        hosts.push_str(&format!(" dx={host} dx={host}"));
    }
    let crowded = domain("tls");
    texts(&crowded, &[hosts]);

    // In the middle of a visit: another certificate, or another address.
    let changes = settle(&world, 91, Conduct::Honest).await;
    let moves = settle(&world, 92, Conduct::Honest).await;
    let world_then = world.clone();
    moves.before_hanging_up(move || {
        let here = [IpAddr::V4(Ipv4Addr::LOCALHOST)];
        world_then.dns().set_addresses("dx.rogue92.example", &here).unwrap();
    });
    // Names that are answered for others.
    let (org, user) = silent.signets();
    let other_org = settle(&world, 93, Conduct::Org(Answer::Gives(org))).await;
    let other_user = settle(&world, 94, Conduct::User(Answer::Gives(user.clone()))).await;
    let no_org = settle(&world, 95, Conduct::Org(Answer::Gives(user))).await;
    let second = |rogue: &Rogue| -> Address { format!("z{}", rogue.address).parse().unwrap() };
    let mailboxes = [&changes, &moves, &other_org, &other_user, &no_org];
    let mut watched: Vec<Address> = mailboxes.map(|rogue| rogue.address.clone()).to_vec();
    watched.extend([second(&changes), second(&moves)]);
    crawl.watch(watched.into_iter().chain(world.addresses())).await;
    // Twice, so that no visit for a name just watched follows and spoils it.
    for _ in 0..2 {
        crawl.visit(&[changes.domain().clone(), moves.domain().clone()]).await;
    }
    changes.behave(Conduct::ChangesCertificate);
    moves.behave(Conduct::MovesAway);

    let honest = world.domains();
    let mut all: Vec<Domain> = expected.iter().map(|(domain, _)| domain.clone()).collect();
    all.extend(mailboxes.map(|rogue| rogue.domain().clone()));
    all.extend(honest.clone());
    let reports = crawl.visit(&all).await;
    for (domain, outcome) in &expected {
        let report = &reports[domain];
        assert_eq!(report.outcome.as_str(), *outcome, "{domain}: {:?}", report.detail);
    }
    all_good(&honest, &reports);
    let users = |rogue: &Rogue| -> Vec<&str> {
        reports[rogue.domain()].users.iter().map(|(_, outcome)| outcome.as_str()).collect()
    };
    assert_eq!(users(&changes), ["confirmed", "certificate"]);
    assert_eq!(users(&moves), ["confirmed", "forbidden-address"]);
    assert_eq!(reports[other_org.domain()].outcome.as_str(), "org-signet-invalid");
    assert_eq!(reports[no_org.domain()].outcome.as_str(), "org-signet-invalid");
    assert_eq!(users(&other_user), ["signet-invalid"]);
    assert!(!trap.is_finished(), "somebody was sent to the mirror's own network");
    // One domain does not choose how many connections are made for it.
    assert!(silent.connections() <= 8, "{} connections for one record", silent.connections());

    let incidents = crawl.incidents.all();
    for (domain, kind) in [
        (changes.domain(), IncidentKind::CertificateMismatch),
        (other_org.domain(), IncidentKind::OrgSignetInvalid),
        (other_user.domain(), IncidentKind::SignetInvalid),
    ] {
        let about = |incident: &&Incident| incident.domain == *domain;
        // Seen again by the next visit, it is reported again, and filed once.
        let mut kinds = incidents.iter().filter(about).map(|incident| incident.kind);
        assert_eq!(kinds.next(), Some(kind), "{domain}");
        assert!(kinds.all(|other| other == kind), "{domain}");
    }
    for (domain, outcome) in &expected {
        let kind = match *outcome {
            "record-refused" => IncidentKind::RecordRefused,
            "record-ambiguous" => IncidentKind::RecordAmbiguous,
            _ => continue,
        };
        let about = |incident: &&Incident| incident.domain == *domain && incident.kind == kind;
        let incident = incidents.iter().find(about).unwrap_or_else(|| panic!("{domain}: {kind}"));
        assert!(incident.bytes.len() <= 1 << 20);
    }
    crawl.is_well().await;
    let entries = crawl.entries().await;
    for (domain, _) in &expected {
        let count = entries.get(&Label::of_domain(domain)).copied().unwrap_or_default();
        assert!(count <= 1, "{domain}: {count} entries");
    }
}

/// Names beyond the quota, and a name that never stands still: the log, the
/// queue and the disk grow no further than the quota, and nothing is hidden.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_domain_beyond_its_quota_grows_nothing() {
    let options = world::Options { further: 4, ..world::Options::default() };
    let world = World::start(options).await.unwrap();
    let mut ticking = JoinSet::new();
    let mut crawl = Crawl::with(&world, hasty(&world), of_one_day(&mut ticking)).await;
    let [crowded, restless, quiet, shifting] =
        ["d0.example", "d1.example", "d2.example", "d3.example"]
            .map(|domain| domain.parse::<Domain>().unwrap());
    for number in 0..40 {
        let address = world.enroll(&crowded, &format!("{MARK}{number}")).unwrap();
        crawl.watch([address]).await;
    }
    let flapping: Address = format!("alice@{restless}").parse().unwrap();
    let calm: Address = format!("alice@{quiet}").parse().unwrap();
    let moved: Address = format!("alice@{shifting}").parse().unwrap();
    crawl.watch([flapping.clone(), calm.clone(), moved]).await;
    let domains = [crowded.clone(), restless.clone(), quiet.clone(), shifting.clone()];
    for _ in 0..12 {
        let reports = crawl.visit(&domains).await;
        let is_well = |report: &Report| {
            let is_over = report.domain == shifting && report.outcome == Outcome::Coalesced;
            report.outcome.is_good() || is_over
        };
        assert!(reports.values().all(|report| is_well(report)));
        world.add_sok(&shifting, SecondaryKey::MAY_SIGN_SIGNETS).unwrap();
        world.swap_key(&flapping).unwrap();
        world.reissue(&flapping, "another").unwrap();
    }
    let entries = crawl.entries().await;
    let vrf = crawl.mirror.log.vrf();
    let of = |address: &Address| {
        entries.get(&Label::of_address(vrf, address)).copied().unwrap_or_default()
    };
    let crowd = (0..40).map(|n| format!("{MARK}{n}@{crowded}").parse().unwrap());
    let logged: u64 = crowd.map(|address| of(&address)).sum();
    assert_eq!(logged, u64::from(QUOTA.new_labels), "new names of one domain on one day");
    assert!(of(&flapping) <= u64::from(QUOTA.entries), "{}", of(&flapping));
    let of_shifting = entries.get(&Label::of_domain(&shifting)).copied().unwrap_or_default();
    assert!(of_shifting <= u64::from(QUOTA.entries), "{of_shifting}");
    assert_eq!(of(&calm), 1);
    // What was seen and is no entry is kept, up to the quota of the disk.
    let files = files(&crawl.folder.path().join("blobs/private/incident"));
    assert!((1..=64 * 2).contains(&files), "{files} incidents on disk");
    let coalesced: Vec<File> = crawl.on_disk();
    let is_coalesced = |(_, incident): &&File| incident.kind == filed::Kind::Coalesced;
    let coalesced: Vec<&File> = coalesced.iter().filter(is_coalesced).collect();
    assert!(!coalesced.is_empty());
    let anchors = world.trust_anchor().of_root();
    for (path, incident) in &coalesced {
        let findings = filed::verify(incident, &anchors, None);
        assert!(findings.is_ok_and(|findings| findings.convicts.is_none()), "{}", path.display());
    }
    // The command says the same of the files as they lie there.
    let root = crawl.folder.path().join("root.key");
    fs::write(&root, world.dns().trust_anchor_text()).unwrap();
    for (name, more) in [
        (Name::Address(flapping), &["signed this key", "Not proved"][..]),
        (
            Name::Domain(shifting),
            &["signed these keys", "DNS signed this record", "Not proved"][..],
        ),
    ] {
        let (path, _) =
            coalesced.iter().find(|(_, incident)| incident.name.as_ref() == Some(&name)).unwrap();
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_syndicate"))
            .arg("verify")
            .arg(path)
            .arg("--trust-anchor")
            .arg(&root)
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(0), "{said}");
        for words in ["changed more often", "It convicts nobody"].iter().chain(more) {
            assert!(said.contains(words), "no {words:?} in:\n{said}");
        }
    }
    crawl.is_well().await;
}

/// A clock that goes on as the machine's does, and meets no midnight soon: quotas
/// are of a day.
fn of_one_day(ticking: &mut JoinSet<()>) -> Clock {
    const HOUR: u64 = 3_600_000;
    const TICK: Duration = Duration::from_millis(20);
    let day = |millis: u64| millis / (24 * HOUR);
    let now = Clock::system().now().millis();
    let start = if day(now + HOUR) == day(now) { now } else { now + HOUR };
    let clock = Clock::manual(Timestamp::from_millis(start));
    let ticks = clock.clone();
    ticking.spawn(async move {
        loop {
            tokio::time::sleep(TICK).await;
            ticks.advance(TICK.as_millis() as u64);
        }
    });
    clock
}

/// Files below a folder, however deep.
fn files(folder: &Path) -> usize {
    let count = |entry: fs::DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => files(&entry.path()),
        _ => 1,
    };
    fs::read_dir(folder).into_iter().flatten().flatten().map(count).sum()
}

fn check(report: &Report, rogue: &Rogue, case: &Case) {
    // Both were seen in a visit just before, perhaps: then they are known.
    let told = |outcome: Outcome| match outcome.as_str() {
        "confirmed" => "changed",
        outcome => outcome,
    };
    assert_eq!(told(report.outcome), case.domain, "{:?}: {:?}", case.conduct, report.detail);
    let mailbox = report.users.first().map(|(_, outcome)| told(*outcome));
    assert_eq!(mailbox.filter(|_| case.mailbox.is_some()), case.mailbox, "{:?}", case.conduct);
    if !GOOD.contains(&case.domain) {
        let detail = report.detail.as_deref().expect("a reason in words");
        assert!(!detail.is_empty() && !detail.contains(rogue.address.local()), "{detail}");
    }
}

/// Every reason has its counter.
fn counted(metrics: &str) {
    for case in cases() {
        let (name, outcome) = match case.mailbox {
            Some(outcome) => ("mailboxes", outcome),
            None => ("visits", case.domain),
        };
        let line = format!("syndicate_crawl_{name}_total{{outcome=\"{outcome}\"}} ");
        let count = metrics.lines().find_map(|text| text.strip_prefix(&line)).unwrap_or("0");
        assert!(count.parse::<u64>().unwrap() > 0, "{line}: {metrics}");
    }
}

/// What was no signet is on disk as it came, once for each rogue that sent it,
/// and holds; what never came, or was cut off on the way, is nobody's.
fn kept(incidents: &[File], rogues: &[(Rogue, Case)], world: &World) {
    use filed::Kind::{LinkInvalid, OrgSignetInvalid, SignetInvalid};

    let anchors = world.trust_anchor().of_root();
    for (rogue, Case { conduct, .. }) in rogues {
        let spoiled = |answer: &Answer| match answer {
            Answer::Says(words) => !words.starts_with("554") && !words.starts_with("450"),
            Answer::Breaks(_) | Answer::Silence | Answer::Drips => false,
            _ => true,
        };
        let expected = match conduct {
            Conduct::Org(answer) if spoiled(answer) => Some(OrgSignetInvalid),
            Conduct::User(answer) if spoiled(answer) => Some(SignetInvalid),
            Conduct::History(answer) if spoiled(answer) => Some(LinkInvalid),
            _ => None,
        };
        let about = |(_, incident): &&File| {
            incident.name.as_ref().is_some_and(|name| name.domain() == rogue.domain())
        };
        let about: Vec<&filed::Incident> =
            incidents.iter().filter(about).map(|(_, incident)| incident).collect();
        let kinds: Vec<filed::Kind> = about.iter().map(|incident| incident.kind).collect();
        let wanted = match conduct {
            // Two links, each of which comes again.
            Conduct::History(Answer::Cycle(4)) => vec![LinkInvalid; 2],
            _ => expected.into_iter().collect(),
        };
        assert_eq!(kinds, wanted, "{conduct:?}");
        for incident in about {
            let filed::Evidence::Received(received) = &incident.evidence else { panic!("bytes") };
            assert!((1..=1 << 20).contains(&received.bytes.len()), "{conduct:?}");
            let findings = filed::verify(incident, &anchors, None);
            assert!(findings.is_ok(), "{conduct:?}: {findings:?}");
            if let Conduct::Org(Answer::Says(words)) | Conduct::User(Answer::Says(words)) = conduct
            {
                let words = words.as_bytes();
                let bytes = &received.bytes[..];
                assert!(words.starts_with(bytes) || words == b"250 OK [AAAA]\r\n", "{conduct:?}");
            }
        }
    }
}
