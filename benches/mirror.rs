//! A mirror's two ways: drafts into the log, and lookups out of it over HTTP.
//!
//! Sequencing: a real log in a folder, every write synced, from a batch of
//! drafts handed in to every one acknowledged. Lookups: a real server on
//! loopback, a client that keeps its connection; the whole way from the question
//! to the receipt's bytes, and to its verdict. The same of three mirrors at once,
//! to a quorum: what that takes beyond their answers is the client's own.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use futures::future::join_all;
use reqwest::Client;
use syndicate::client::{self, Eyes, Memory, Verdict};
use syndicate::clock::Clock;
use syndicate::dime::key::{Owner, PrivateKey};
use syndicate::dime::signet::build::{self, SignTo};
use syndicate::dime::signet::{Dialect, Level, Signet};
use syndicate::dime::{Address, Dnssec, Domain, Name, Timestamp, org, record, user};
use syndicate::dmtp::reach::Ports;
use syndicate::log::answer::Answerer;
use syndicate::log::{self, Keys, Log};
use syndicate::proof::draft::{DomainDraft, Draft, UserDraft};
use syndicate::proof::entry::{Event, SignetFacts};
use syndicate::proof::note::SigningKey;
use syndicate::proof::policy::Policy;
use syndicate::proof::receipt::{self, Asker, Receipt};
use syndicate::proof::vrf;
use syndicate::resolver::FixedResolver;
use syndicate::serve::budget::Budget;
use syndicate::serve::http::{Options, Server};
use syndicate::serve::metrics::Metrics;
use syndicate::store::rows::SeenRow;
use syndicate::store::sled::Sled;
use syndicate::store::{Applied, Batch, Store};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

const ORIGIN: &str = "bench.example/log";
const DOMAIN: &str = "bench.example";
const START: Timestamp = Timestamp::from_secs(1_795_449_600);
/// Mailboxes in the log.
const MAILBOXES: u32 = 1000;

fn pok() -> PrivateKey {
    PrivateKey::from_secrets(Owner::Org, [1; 32], [1; 32]).expect("a key of any bytes")
}

fn domain() -> DomainDraft {
    let poks = vec![pok().signing_key()];
    let signet = build::org(&pok(), Dialect::L, &[], &[], SignTo::Id(DOMAIN)).expect("a signet");
    DomainDraft {
        domain: DOMAIN.parse().expect("a domain"),
        poks: poks.clone(),
        dnssec: Dnssec::Insecure,
        record: Some(record::Template { poks, ..record::Template::default() }.text().into()),
        org_signet: Some(signet.bytes().to_vec().into()),
        dnssec_chain: Some(vec![7; 4000].into()),
        events: Event::FirstSeen.into(),
        hold: None,
        coalesced: None,
    }
}

fn mailbox(number: u32) -> UserDraft {
    let name = format!("user{number}@{DOMAIN}");
    let address: Address = name.parse().expect("an address");
    let mut seed = [2; 32];
    seed[..4].copy_from_slice(&number.to_be_bytes());
    let key = PrivateKey::from_secrets(Owner::User, seed, [3; 32]).expect("a key of any bytes");
    let request = build::request(&key, Dialect::L, None).expect("a request");
    let signet = build::user(&request, pok().seed(), &[], SignTo::Id(&name)).expect("a signet");
    let org = build::org(&pok(), Dialect::L, &[], &[], SignTo::Id(DOMAIN)).expect("a signet");
    let of: Domain = DOMAIN.parse().expect("a domain");
    let org = org::validate(&org, &[pok().signing_key()], Some(&of)).expect("a valid signet");
    let valid = user::validate(&signet, &org, Some(&address)).expect("a valid signet");
    let facts = SignetFacts::of(&valid).expect("a signed signet");
    UserDraft {
        address,
        signet: Some(signet.bytes().to_vec().into()),
        level: Some(facts.level),
        signers: facts.signers,
        crypto_sha256: Some(facts.crypto_sha256),
        observed: START,
        domain_version: None,
        events: Event::FirstSeen.into(),
        hold: None,
        coalesced: None,
    }
}

/// An empty log in a folder, its writer running.
async fn open(folder: &TempDir, key: &SigningKey, shutdown: CancellationToken) -> Log {
    let store = Store::folder(&folder.path().join("blobs")).expect("a folder");
    let state = Arc::new(Sled::open(&folder.path().join("state")).expect("an index"));
    let mut options = log::Options::new(folder.path().join("guard"));
    options.origin = Some(key.name().into());
    options.interval = Duration::from_millis(20);
    let vrf = Arc::new(vrf::SecretKey::from_seed(&[4; 32]));
    let keys = Keys { log: key.clone(), vrf };
    let clock = Clock::manual(START);
    let opened = log::open(options, store, state, keys, clock).await.expect("a log");
    tokio::spawn(opened.sequencer.run(shutdown));
    opened.log.submit(Draft::Domain(domain())).await.expect("the domain has a place");
    opened.log
}

/// Hands all drafts in and waits until each is durable.
async fn sequence(log: &Log, drafts: Vec<UserDraft>) {
    let submit = |draft| {
        let log = log.clone();
        tokio::spawn(async move { log.submit(Draft::User(draft)).await })
    };
    let waiting: Vec<_> = drafts.into_iter().map(submit).collect();
    for submitted in waiting {
        submitted.await.expect("no panic").expect("the mailbox has a place");
    }
}

fn sequencing(c: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let key = SigningKey::ed25519(ORIGIN, &[5; 32]).expect("a key");
    let drafts: Vec<UserDraft> = (0..MAILBOXES).map(mailbox).collect();
    let mut group = c.benchmark_group("sequencing");
    group.sample_size(10).throughput(Throughput::Elements(MAILBOXES.into()));
    group.bench_function("1,000 new mailboxes, from draft to acknowledged", |b| {
        b.iter_custom(|rounds| {
            (0..rounds).map(|_| runtime.block_on(time_batch(&key, drafts.clone()))).sum()
        });
    });
    group.finish();
}

/// On a fresh log each time.
async fn time_batch(key: &SigningKey, drafts: Vec<UserDraft>) -> Duration {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let shutdown = CancellationToken::new();
    let log = open(&folder, key, shutdown.clone()).await;
    let began = Instant::now();
    sequence(&log, drafts).await;
    let took = began.elapsed();
    shutdown.cancel();
    took
}

/// A log with a domain and its mailboxes, and a server for it.
async fn world(folder: &TempDir, key: &SigningKey) -> (Log, String) {
    let clock = Clock::manual(START);
    let shutdown = CancellationToken::new();
    let log = open(folder, key, shutdown.clone()).await;
    sequence(&log, (0..MAILBOXES).map(mailbox).collect()).await;
    let answers = Arc::new(Answerer::new(log.reader()));
    let metrics = Metrics::new().expect("fresh metrics");
    let mut options = Options::new(&clock);
    options.budget = Arc::new(Budget::new(u32::MAX, clock.clone()));
    options.lifetime = Duration::from_secs(3600);
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    tokio::spawn(Server::new(answers, metrics, clock, options).run(listener, shutdown));
    (log, url)
}

fn lookups(c: &mut Criterion) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = Runtime::new().expect("a runtime");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let key = SigningKey::ed25519(ORIGIN, &[5; 32]).expect("a key");
    let (_log, url) = runtime.block_on(world(&folder, &key));
    let client = Client::builder().no_proxy().build().expect("a client");
    let ask = async |name: &str, accept: &str, path: &str| {
        let request = client.post(format!("{url}/v1/{path}")).header("accept", accept);
        let response = request.body(format!("{{\"name\":\"{name}\"}}")).send().await;
        let response = response.expect("an answer");
        assert_eq!(response.status(), 200);
        response.bytes().await.expect("all of it")
    };
    let (binary, json) = ("application/x-protobuf", "application/json");

    let mut group = c.benchmark_group("lookup over HTTP");
    group.throughput(Throughput::Elements(1));
    for (what, name, accept) in [
        ("a mailbox, binary", "user7@bench.example", binary),
        ("a mailbox, JSON with summary", "user7@bench.example", json),
        ("a domain, binary", DOMAIN, binary),
        ("an absent mailbox, binary", "nobody@bench.example", binary),
    ] {
        group.bench_function(what, |b| {
            b.to_async(&runtime).iter(|| async { black_box(ask(name, accept, "lookup").await) })
        });
    }
    let policy = Policy::of_log(key.verifier()).expect("a policy");
    let asker = Asker { policy: Some(&policy), ..Asker::default() };
    group.bench_function("a mailbox, and its receipt verified", |b| {
        b.to_async(&runtime).iter(|| async {
            let bytes = ask("user7@bench.example", binary, "lookup").await;
            let receipt = Receipt::decode(&bytes).expect("a receipt");
            receipt::verify(&receipt, &asker, START).expect("it holds")
        })
    });
    group.bench_function("the checkpoint", |b| {
        b.to_async(&runtime).iter(|| async {
            let response = client.get(format!("{url}/checkpoint")).send().await;
            response.expect("an answer").bytes().await.expect("all of it")
        })
    });
    group.finish();
}

/// A name that the DX was just seen to serve.
async fn confirm(log: &Log, name: &str) {
    let mut batch = Batch::new();
    batch.row(&SeenRow {
        name: name.parse().expect("a name"),
        version: 1,
        confirmed_at: START,
        attempted_at: START,
        validity: None,
        last_served: None,
        bogus: false,
        other: None,
        outcome: String::new(),
    });
    assert_eq!(log.state().apply(batch).await.expect("an index"), Applied::Applied);
}

fn quorum(c: &mut Criterion) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = Runtime::new().expect("a runtime");
    let folders: Vec<TempDir> =
        (0..3).map(|_| tempfile::tempdir().expect("a temporary folder")).collect();
    let mut mirrors = Vec::new();
    let mut policy = String::new();
    for (number, folder) in (1..).zip(&folders) {
        let origin = format!("mirror{number}.example/log");
        let key = SigningKey::ed25519(&origin, &[number; 32]).expect("a key");
        let (log, url) = runtime.block_on(world(folder, &key));
        runtime.block_on(confirm(&log, "user7@bench.example"));
        policy.push_str(&format!("log {} {url}\n", key.verifier()));
        mirrors.push((log, url));
    }
    policy.push_str("quorum none\n");
    let name: Name = "user7@bench.example".parse().expect("a name");
    let memory = tempfile::tempdir().expect("a temporary folder");
    let signet = mailbox(7).signet.expect("a signet");
    let signet = Signet::decode(&signet).expect("a signet");
    let options = client::Options {
        policy: Some(Policy::parse(policy.as_bytes()).expect("a policy")),
        fingerprint: signet.fingerprint(Level::Crypto),
        memory: Some(Memory::open(memory.path()).expect("a memory")),
        // The evidence in this world is no DNSSEC chain: it is not looked into.
        root: client::DnsRoot::Only(Vec::new()),
        ..client::Options::default()
    };
    // Nothing but the mirrors is asked: DNS denies at once.
    let eyes = Eyes {
        resolver: Arc::new(FixedResolver::new(Dnssec::Insecure)),
        dmtp: syndicate::dmtp::Options::default(),
        ports: Ports::default(),
        clock: Clock::manual(START),
    };
    let places: Vec<client::Mirror> =
        mirrors.iter().map(|(_, url)| client::Mirror::new(url).expect("a place")).collect();
    let answers = async || {
        let asked = places.iter().map(|place| place.ask(&name, client::Ask::Lookup));
        let receipts = join_all(asked).await.into_iter();
        receipts.map(|receipt| receipt.expect("a receipt")).collect::<Vec<Receipt>>()
    };
    let checked = async |options: &client::Options| {
        let check = client::check(&name, &eyes, options).await.expect("a check");
        assert_eq!(check.verdict, Verdict::Agreed, "{:?}", check.reasons);
        check
    };

    let mut group = c.benchmark_group("three mirrors at once");
    group.throughput(Throughput::Elements(1));
    group.bench_function("their answers, the slowest included", |b| {
        b.to_async(&runtime).iter(|| async { black_box(answers().await) })
    });
    group.bench_function("a quorum lookup: verified, remembered, compared", |b| {
        b.to_async(&runtime).iter(|| async { black_box(checked(&options).await) })
    });
    group.bench_function("the same with nothing kept: every mirror is connected to anew", |b| {
        b.to_async(&runtime).iter(|| async {
            let sites = client::Sites::default();
            black_box(checked(&client::Options { sites, ..options.clone() }).await)
        })
    });
    group.finish();
}

criterion_group!(benches, sequencing, lookups, quorum);
criterion_main!(benches);
