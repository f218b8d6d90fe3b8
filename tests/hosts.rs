//! DX hosts that do everything wrong, met by a real crawler among honest ones:
//! each gets a clear, recorded reason, and the others get their visit.

#[path = "support/rogue.rs"]
mod rogue;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use prometheus::Encoder as _;
use rogue::{Answer, Conduct, Rogue};
use syndicate::clock::Clock;
use syndicate::crawl::{
    self, Crawler, Handle, Incident, IncidentKind, Incidents, Placed, Report, Rooms, Sink, Unplaced,
};
use syndicate::demo::world::{self, World};
use syndicate::dime::reply::Limits;
use syndicate::dime::{Domain, Name};
use syndicate::dmtp;
use syndicate::log::{self, Keys, Log, Refused};
use syndicate::proof::entry::Draft;
use syndicate::proof::note::SigningKey;
use syndicate::proof::vrf::SecretKey;
use syndicate::resolver::HickoryResolver;
use syndicate::store::rows::{self, FrontierRow};
use syndicate::store::testing::MemoryState;
use syndicate::store::{State, Store};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// For a handshake or a reply. Honest hosts on a busy machine need less.
const DEADLINE: Duration = Duration::from_secs(5);
/// Bytes of a signet, and of a whole reply.
const OBJECT: usize = 16 * 1024;

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

    async fn is_forgotten(&self, address: &syndicate::dime::Address) -> Result<bool, Unplaced> {
        self.0.is_forgotten(address).await.map_err(|error| Unplaced::Later(error.to_string()))
    }
}

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<Incident>>>);

impl Kept {
    fn all(&self) -> Vec<Incident> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
    state: Arc<dyn State>,
    incidents: Kept,
    registry: prometheus::Registry,
    _folder: tempfile::TempDir,
    _tasks: JoinSet<()>,
}

impl Crawl {
    async fn start(world: &World) -> Crawl {
        let folder = tempfile::tempdir().unwrap();
        let state: Arc<dyn State> = Arc::new(MemoryState::default());
        let origin = "log.example/hosts";
        let keys = Keys {
            log: SigningKey::ed25519(origin, &[1; 32]).unwrap(),
            vrf: Arc::new(SecretKey::from_seed(&[2; 32])),
        };
        let mut options = log::Options::new(folder.path().join("guard"));
        options.origin = Some(origin.into());
        options.interval = Duration::from_millis(100);
        let (store, clock) = (Store::memory(), Clock::system());
        let opened = log::open(options, store, state.clone(), keys, clock.clone()).await.unwrap();
        let (registry, incidents) = (prometheus::Registry::new(), Kept::default());
        let rooms = Rooms {
            resolver: Arc::new(HickoryResolver::new(world.resolver_options()).unwrap()),
            second_resolver: None,
            state: state.clone(),
            public: opened.log.store().public.clone(),
            clock,
            sink: Arc::new(IntoLog(opened.log.clone())),
            incidents: Arc::new(incidents.clone()),
        };
        let metrics = crawl::Metrics::new(&registry).unwrap();
        let (crawler, handle) = Crawler::new(rooms, hasty(world), metrics, "test");
        let mut tasks = JoinSet::new();
        let (forever, sequencer) = (CancellationToken::new(), opened.sequencer);
        let never = forever.clone();
        tasks.spawn(async move { sequencer.run(never).await.unwrap() });
        tasks.spawn(async move { crawler.run(forever).await.unwrap() });
        Crawl { handle, state, incidents, registry, _folder: folder, _tasks: tasks }
    }

    /// Visits all at once; what came of each.
    async fn visit(&self, domains: &[Domain]) -> BTreeMap<Domain, Arc<Report>> {
        let mut visits = JoinSet::new();
        for domain in domains.iter().cloned() {
            let handle = self.handle.clone();
            visits.spawn(async move { handle.visit(Name::Domain(domain), "test").await.unwrap() });
        }
        let reports = visits.join_all().await;
        reports.into_iter().map(|report| (report.domain.clone(), report)).collect()
    }

    async fn failures(&self, domain: &Domain) -> u32 {
        let key = domain.as_str().as_bytes();
        rows::find::<FrontierRow>(&*self.state, key).await.unwrap().unwrap().failures
    }

    fn metrics(&self) -> String {
        let mut text = Vec::new();
        prometheus::TextEncoder::new().encode(&self.registry.gather(), &mut text).unwrap();
        String::from_utf8(text).unwrap()
    }
}

/// Small limits, and fewer visits at once than there are rogues.
fn hasty(world: &World) -> crawl::Options {
    crawl::Options {
        concurrency: 6,
        dx_port: world.dmtp_port(),
        dmtp: dmtp::Options {
            handshake: DEADLINE,
            reply: DEADLINE,
            object: OBJECT,
            limits: Limits { line: 2 * OBJECT, lines: 16, total: 4 * OBJECT },
            filter: world.address_filter(),
            roots: world.roots(),
            ..dmtp::Options::default()
        },
        ..crawl::Options::default()
    }
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
        // No TLS, or none to speak of.
        domain("tls", Conduct::HangsUp),
        domain("tls", Conduct::Plaintext(b"220 mail.example ESMTP\r\n")),
        domain("tls", Conduct::Plaintext(&[0x16, 0x03, 0x03, 0xff, 0xff, 0, 1, 2, 3])),
        // Malformed.
        domain("banner", Conduct::Greets("220 mail.example ESMTP Postfix\r\n")),
        domain("malformed", Conduct::Greets("\0\x01\x02\r\n")),
        org("malformed", says("250 OK [!!! no base64 !!!]\r\n")),
        org("malformed", says("OK\r\n")),
        user("malformed", says("250 OK [====]\r\n")),
        mailbox("malformed", Conduct::History(says("250-[x]\r\n250 OK\r\n"))),
        // Truncated: the reply, or what is in it.
        org("truncated", Answer::Breaks("250 OK [AAAA".into())),
        user("truncated", Answer::Breaks("250 OK [AAAA".into())),
        org("org-signet-invalid", Answer::Cut(60)),
        user("signet-invalid", Answer::Cut(60)),
        user("signet-invalid", says("250 OK [AAAA]\r\n")),
        // Oversized.
        domain("oversized", Conduct::EndlessBanner),
        org("oversized", Answer::Floods("A")),
        org("oversized", says(&too_large)),
        user("oversized", Answer::Floods("A")),
        mailbox("oversized", Conduct::History(Answer::Floods("250-[AAAA]\r\n"))),
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
    let world = World::start(world::Options::default()).await.unwrap();
    let crawl = Crawl::start(&world).await;
    let mut rogues = Vec::new();
    for (number, case) in cases().into_iter().enumerate() {
        let domain: Domain = format!("rogue{number}.example").parse().unwrap();
        let port = world.dmtp_port();
        let rogue = Rogue::start(&domain, "mailbox", port, case.conduct.clone()).await;
        world.dns().add_zone(domain.as_str(), true).unwrap();
        world.dns().set_txt(&format!("_dime.{domain}"), &[&rogue.record]).unwrap();
        world.dns().set_addresses(&format!("dx.{domain}"), &[IpAddr::V4(rogue.ip)]).unwrap();
        rogues.push((rogue, case));
    }
    let watched = rogues.iter().map(|(rogue, _)| rogue.address.clone());
    for address in watched.chain(world.addresses()) {
        crawl.handle.watch(Name::Address(address), "test").await.unwrap();
    }
    let (honest, odd) = (world.domains(), rogues.iter().map(|(rogue, _)| rogue.domain().clone()));
    let odd: Vec<Domain> = odd.collect();

    let reports = crawl.visit(&[odd.clone(), honest.clone()].concat()).await;
    for (rogue, case) in &rogues {
        check(&reports[rogue.domain()], rogue, case);
        let failed = crawl.failures(rogue.domain()).await > 0;
        assert_eq!(failed, !GOOD.contains(&case.domain), "{:?} is not on record", case.conduct);
    }
    for domain in &honest {
        let report = &reports[domain];
        assert!(report.outcome.is_good(), "{domain}: {} {:?}", report.outcome, report.detail);
        let users: Vec<_> = report.users.iter().map(|(_, outcome)| outcome).collect();
        assert!(users.iter().all(|outcome| outcome.is_good()), "{domain}: {users:?}");
    }
    counted(&crawl.metrics());
    kept(&crawl.incidents.all(), &rogues);

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
}

fn check(report: &Report, rogue: &Rogue, case: &Case) {
    // The mailbox was asked for in a visit just before, perhaps: then it is known.
    let domain = match report.outcome.as_str() {
        "confirmed" => "changed",
        outcome => outcome,
    };
    assert_eq!(domain, case.domain, "{:?}: {:?}", case.conduct, report.detail);
    let mailbox = report.users.first().map(|(_, outcome)| outcome.as_str());
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

/// What was no signet is kept as it came, once for each rogue that sent it.
fn kept(incidents: &[Incident], rogues: &[(Rogue, Case)]) {
    for (rogue, case) in rogues {
        let kind = match (case.domain, case.mailbox) {
            ("org-signet-invalid", _) => IncidentKind::OrgSignetInvalid,
            (_, Some("signet-invalid")) => IncidentKind::SignetInvalid,
            _ => continue,
        };
        let incident = incidents.iter().find(|incident| incident.domain == *rogue.domain());
        let incident = incident.unwrap_or_else(|| panic!("{:?}: no incident", case.conduct));
        assert_eq!(incident.kind, kind, "{:?}", case.conduct);
        assert!(!incident.bytes.is_empty() && !incident.why.rule.is_empty());
    }
}
