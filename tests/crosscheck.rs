//! Mirrors that compare what they see of a name: real crawls of the private DIME
//! internet from several vantages, real questions between mirrors, real evidence.
//! What is an attack becomes an incident that convicts its author, and what is an
//! ordinary change accuses nobody (threats 8, 20, 22, 24).

#[path = "support/chance.rs"]
mod chance;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::http::header;
use axum::routing::post;
use bytes::Bytes;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use syndicate::client::Site;
use syndicate::clock::Clock;
use syndicate::config::{Config, File, PeerSection};
use syndicate::crawl;
use syndicate::daemon::{Folder, Mirror, Secrets};
use syndicate::demo::world::{Options, Vantage, World};
use syndicate::dime::key::pok_from_armor;
use syndicate::dime::signet::build::{self, Content, SignTo};
use syndicate::dime::signet::{Level, field};
use syndicate::dime::{Address, Dnssec, Domain, Name, Timestamp, ed25519};
use syndicate::log::answer::{Answerer, Question, Span};
use syndicate::peers::Status;
use syndicate::peers::ask::{self, Face, Said};
use syndicate::peers::comparison::{Comparison, Pace};
use syndicate::peers::crosscheck::{CrossCheck, Found, Handle, Look, PENDING, Raise, Rooms};
use syndicate::peers::domains::{Domains, Explore, Explored};
use syndicate::peers::tally::Tally;
use syndicate::proof::entry::{Blob, DomainObservation, Entry, Event, Kind as EntryKind, Poks};
use syndicate::proof::incident::{self, Evidence, Incident, Kind, Party};
use syndicate::proof::note::SigningKey;
use syndicate::proof::receipt::Receipt;
use syndicate::proof::request::{Method, Request};
use syndicate::resolver::NameServers;
use syndicate::store::rows::{self, DomainRow, FrontierRow, Typed as _};
use syndicate::store::state::{Batch, Range, Table};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(600);
const ALICE: &str = "alice@alder.example";
const MAX_BODY: usize = 1 << 20;

/// Mirrors of one world, each with its own view of it, all peers of all.
struct Syndicate {
    world: Arc<World>,
    vantages: Vec<Vantage>,
    places: Vec<Place>,
    clock: Clock,
}

/// Where a mirror is, whether it runs or not.
struct Place {
    folder: TempDir,
    origin: String,
    http: SocketAddr,
    secrets: Secrets,
}

impl Place {
    fn new(number: usize) -> Place {
        let folder = tempfile::tempdir().unwrap();
        let origin = format!("{}.mirror.example/log", ["a", "b", "c"][number]);
        let data = Folder::new(folder.path().join("mirror"));
        data.make().unwrap();
        let secrets = Secrets::load_or_make(&data.keys(), Some(&origin)).unwrap();
        // An address of its own: nobody else gets a port there while it is down.
        static NEXT: AtomicU8 = AtomicU8::new(1);
        let ip = Ipv4Addr::new(127, 1, 11, NEXT.fetch_add(1, Ordering::SeqCst));
        let http = std::net::TcpListener::bind((ip, 0)).unwrap().local_addr().unwrap();
        Place { folder, origin, http, secrets }
    }

    fn url(&self) -> String {
        format!("http://{}", self.http)
    }

    fn as_peer(&self) -> PeerSection {
        PeerSection {
            url: self.url(),
            log: self.secrets.verifier().to_string(),
            cosigner: Some(self.secrets.cosigner.verifier().to_string()),
            peer_key: Some(self.secrets.peer.verifier().to_string()),
            share_addresses: true,
        }
    }

    /// As this mirror asks another.
    fn face_of(&self, other: &Place) -> Face {
        Face::new(&other.url(), other.secrets.verifier(), true).unwrap()
    }
}

impl Syndicate {
    async fn new(mirrors: usize) -> Syndicate {
        let world = Arc::new(World::start(Options::default()).await.unwrap());
        let mut vantages = Vec::new();
        for _ in 0..mirrors {
            vantages.push(world.vantage().await.unwrap());
        }
        let places = (0..mirrors).map(Place::new).collect();
        Syndicate { world, vantages, places, clock: Clock::system() }
    }

    fn config(&self, number: usize) -> Config {
        let (place, vantage) = (&self.places[number], &self.vantages[number]);
        let (anchor, roots) =
            (place.folder.path().join("root.key"), place.folder.path().join("ca.pem"));
        std::fs::write(&anchor, self.world.dns().trust_anchor_text()).unwrap();
        std::fs::write(&roots, self.world.authority_pem()).unwrap();
        let mut file = File { data: Some(place.folder.path().join("mirror")), ..File::default() };
        file.http.listen = place.http.to_string();
        file.dmtp.listen = "127.0.0.1:0".into();
        if let NameServers::Listed(servers) = vantage.dns().name_servers() {
            file.dns.servers = servers.iter().map(ToString::to_string).collect();
        }
        file.dns.trust_anchor = Some(anchor);
        file.crawl.roots = Some(roots);
        file.crawl.allow_networks = vec!["127.0.0.0/8".into()];
        file.crawl.dx_port = self.world.dmtp_port();
        let others = self.places.iter().enumerate().filter(|(other, _)| *other != number);
        file.peers.mirror = others.map(|(_, place)| place.as_peer()).collect();
        let mut config = file.check().unwrap();
        config.batch_millis = 50;
        config.peers.pace.recheck = 300;
        config
    }

    async fn start(&self, number: usize) -> Mirror {
        self.start_with(number, |_| {}).await
    }

    async fn start_with(&self, number: usize, change: impl FnOnce(&mut Config)) -> Mirror {
        let mut config = self.config(number);
        change(&mut config);
        let ends = Instant::now() + PATIENCE;
        loop {
            match Mirror::start(&config, self.clock.clone()).await {
                // Of the mirror before, in this process, something may still end.
                Err(error) if is_in_use(&error) && Instant::now() < ends => {
                    sleep(Duration::from_millis(20)).await;
                }
                started => return started.unwrap(),
            }
        }
    }

    /// All incidents of a mirror, each read back and judged offline.
    async fn incidents(&self, mirror: &Mirror) -> Vec<(Incident, incident::Findings)> {
        let private = &mirror.log.store().private;
        let anchors = self.world.trust_anchor().of_root();
        let mut found = Vec::new();
        for object in private.list_all("incident", 1000).await.unwrap() {
            let bytes = private.get(&object.key, 64 << 20).await.unwrap().unwrap();
            let Ok(incident) = Incident::read(&bytes) else { continue };
            if !matches!(incident.kind, Kind::SplitView | Kind::UpdateWithheld) {
                continue;
            }
            let findings = incident::verify(&incident, &anchors, None).unwrap();
            found.push((incident, findings));
        }
        found
    }

    /// The first incident that compares mirrors.
    async fn incident(&self, mirror: &Mirror) -> (Incident, incident::Findings) {
        let ends = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = self.incidents(mirror).await.pop() {
                return found;
            }
            assert!(Instant::now() < ends, "no incident: {:?}", outcomes(mirror).await);
            sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Has a clock that is set by hand go on by itself too, until dropped: whoever is
/// asked and is busy is asked again later.
fn ticks(clock: &Clock) -> JoinSet<()> {
    let clock = clock.clone();
    let mut ticks: JoinSet<()> = JoinSet::new();
    ticks.spawn(async move {
        loop {
            sleep(Duration::from_millis(50)).await;
            clock.advance(50);
        }
    });
    ticks
}

fn is_in_use(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(syndicate::store::Error::InUse { .. }))
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

async fn metrics(mirror: &Mirror) -> String {
    let site = Site::new(&format!("http://{}", mirror.http)).unwrap();
    String::from_utf8(site.get("metrics", MAX_BODY).await.unwrap().body.to_vec()).unwrap()
}

/// Values of a metric by its one label.
async fn counts(mirror: &Mirror, metric: &str, part: &str) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for line in metrics(mirror).await.lines() {
        let Some(rest) = line.strip_prefix(metric) else { continue };
        let (labels, value) = rest.rsplit_once(' ').unwrap();
        if labels.contains(part) {
            let label = labels.rsplit('"').nth(1).unwrap_or_default().to_owned();
            *counts.entry(label).or_default() += value.parse::<f64>().unwrap() as u64;
        }
    }
    counts
}

async fn outcomes(mirror: &Mirror) -> BTreeMap<String, u64> {
    counts(mirror, "syndicate_comparisons_total", "").await
}

/// How often peers asked for an observation.
async fn questions(mirror: &Mirror) -> u64 {
    let by_status = counts(mirror, "syndicate_http_requests_total", "/v1/observe").await;
    by_status.values().sum()
}

/// Waits until what is published now was read for comparing, none of it is open,
/// and so many comparisons of this outcome are over.
async fn settled(mirror: &Mirror, outcome: &str, least: u64) {
    let ends = Instant::now() + PATIENCE;
    let size = mirror.log.heads().published.unwrap().size;
    loop {
        // In this order: what is read has a row until it is over.
        let read = is_read(mirror, size).await;
        let open = open(mirror).await;
        let over = outcomes(mirror).await;
        if read && open.is_empty() && over.get(outcome) >= Some(&least) {
            return;
        }
        assert!(Instant::now() < ends, "{over:?}, open {open:?}, read {read}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// Whether so many entries were read for each peer.
async fn is_read(mirror: &Mirror, size: u64) -> bool {
    let range = Range::prefix(b"crosscheck/read/");
    let cursors = mirror.log.state().scan(Table::Peers, range, 10).await.unwrap();
    let read = |(_, read): &(Vec<u8>, Vec<u8>)| {
        std::str::from_utf8(read).unwrap().parse::<u64>().unwrap() >= size
    };
    cursors.len() == mirror.peers.len() && cursors.iter().all(read)
}

/// Comparisons that go on, by what their rows are found by.
async fn open(mirror: &Mirror) -> Vec<String> {
    let rows = mirror.log.state().scan(Table::Comparisons, Range::all(), 10_000).await.unwrap();
    let is_open = |row: &[u8]| !serde_json::from_slice::<Comparison>(row).unwrap().is_over();
    let open = rows.into_iter().filter(|(_, row)| is_open(row));
    open.map(|(key, _)| String::from_utf8(key).unwrap()).collect()
}

async fn visit(mirror: &Mirror, text: &str) {
    let report = mirror.crawl.visit(name(text), "test").await.unwrap();
    assert!(report.outcome.is_good(), "{report:?}");
}

async fn receipt(mirror: &Mirror, text: &str) -> Receipt {
    let answers = Answerer::new(mirror.log.reader());
    let question = Question { name: name(text), span: Span::From(0), has_genesis: false };
    answers.receipt(&question).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ordinary_changes_accuse_nobody() {
    let syndicate = Syndicate::new(2).await;
    let world = &syndicate.world;
    let (a, b) = (syndicate.start(0).await, syndicate.start(1).await);
    // B has never heard of the mailbox: asked for it, it looks.
    visit(&a, ALICE).await;
    settled(&a, "same", 2).await;
    settled(&b, "same", 1).await;
    assert_eq!(receipt(&b, ALICE).await.latest(), 1);
    let alice: Address = ALICE.parse().unwrap();
    assert!(b.crawl.is_for_peers(&alice) && !a.crawl.is_for_peers(&alice));
    let row: FrontierRow =
        rows::find(&**b.log.state(), &rows::user_key(&alice)).await.unwrap().unwrap();
    let days = row.keep_until.unwrap().since(syndicate.clock.now()) / 86_400_000;
    assert!((29..=30).contains(&days), "{days}");

    // Each of these while B is a crawl behind.
    let alder: Domain = "alder.example".parse().unwrap();
    world.rotate(&alice).unwrap();
    visit(&a, ALICE).await;
    settled(&a, "same", 3).await;
    world.swap_key(&alice).unwrap();
    visit(&a, ALICE).await;
    settled(&a, "same", 4).await;
    world.replace_pok(&alder, false).unwrap();
    visit(&a, ALICE).await;
    settled(&a, "same", 5).await;
    settled(&b, "same", 4).await;
    let (ours, theirs) = (receipt(&a, ALICE).await, receipt(&b, ALICE).await);
    assert!(ours.latest() >= 3 && theirs.latest() >= 3);
    for mirror in [&a, &b] {
        assert_eq!(syndicate.incidents(mirror).await.len(), 0);
    }

    // Somebody here asks for it: it is watched without end.
    let site = Site::new(&format!("http://{}", b.http)).unwrap();
    let body = Bytes::from(format!("{{\"name\":\"{ALICE}\"}}"));
    let kind = "application/json";
    assert!(site.post("v1/lookup", kind, kind, body, MAX_BODY).await.unwrap().is_success());
    let ends = Instant::now() + PATIENCE;
    while b.crawl.is_for_peers(&alice) {
        assert!(Instant::now() < ends);
        sleep(Duration::from_millis(20)).await;
    }
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollover_is_one_question_and_no_accusation() {
    // In the long form as many as a domain may have new on one day.
    let mailboxes = if chance::slow() { 1000 } else { 60 };
    let syndicate = Syndicate::new(2).await;
    let alder: Domain = "alder.example".parse().unwrap();
    let (a, b) = (syndicate.start(0).await, syndicate.start(1).await);
    for number in 0..mailboxes {
        let address = syndicate.world.enroll(&alder, &format!("u{number}")).unwrap();
        a.crawl.watch(Name::Address(address.clone()), "test").await.unwrap();
        b.crawl.watch(Name::Address(address), "test").await.unwrap();
    }
    visit(&b, "alder.example").await;
    visit(&a, "alder.example").await;
    settled(&a, "same", mailboxes + 1).await;
    settled(&b, "same", mailboxes + 1).await;
    let began = Instant::now();
    let asked = questions(&b).await;
    syndicate.world.replace_pok(&alder, false).unwrap();
    visit(&a, "alder.example").await;
    let u0 = receipt(&a, "u0@alder.example").await;
    assert_eq!(u0.latest(), 2, "signed anew");
    settled(&a, "same", mailboxes + 2).await;
    visit(&b, "alder.example").await;
    settled(&b, "same", mailboxes + 2).await;
    println!("{mailboxes} mailboxes rolled over and compared in {:?}", began.elapsed());
    assert!(questions(&b).await - asked < 10);
    for mirror in [&a, &b] {
        assert_eq!(syndicate.incidents(mirror).await.len(), 0);
    }
    a.stop().await;
    b.stop().await;
}

/// Both mirrors' evidence names the organization, and neither mirror.
fn check_forged_key(incident: &Incident, findings: &incident::Findings, observer: &str) {
    assert_eq!(incident.kind, Kind::SplitView);
    assert_eq!(incident.observer, observer);
    let Evidence::Receipts(seen) = &incident.evidence else { panic!("{incident:?}") };
    assert_eq!((seen.receipts.len(), seen.rounds.len()), (2, 4));
    // Signets come without their identifiers over DMTP: that the organization
    // signed both keys is proved, and for which name is the mirrors' word.
    let convicted = findings.convicts.as_ref().map(|conviction| &conviction.party);
    assert!(!matches!(convicted, Some(Party::Mirror { .. } | Party::Zone(_))), "{findings:?}");
    let proved = findings.proved.join("\n");
    assert!(proved.contains("alder.example") && proved.contains("both keys"), "{findings:#?}");
    assert!(!findings.testimony.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forged_key_for_one_vantage_is_a_split_view_on_every_mirror() {
    let syndicate = Syndicate::new(3).await;
    let alice: Address = ALICE.parse().unwrap();
    let mut mirrors = Vec::new();
    for number in 0..3 {
        mirrors.push(syndicate.start(number).await);
    }
    for mirror in &mirrors {
        visit(mirror, ALICE).await;
    }
    for mirror in &mirrors {
        settled(mirror, "same", 4).await;
    }
    // Only the second one is shown it.
    syndicate.world.swap_key_for(&syndicate.vantages[1], &alice).await.unwrap();
    visit(&mirrors[1], ALICE).await;
    assert_eq!(receipt(&mirrors[1], ALICE).await.latest(), 2, "it saw the forged key");
    for (mirror, place) in mirrors.iter().zip(&syndicate.places) {
        let (incident, findings) = syndicate.incident(mirror).await;
        check_forged_key(&incident, &findings, &place.origin);
    }
    settled(&mirrors[1], "split-view", 2).await;
    // The two that see the same have nothing against each other.
    for number in [0, 2] {
        settled(&mirrors[number], "split-view", 1).await;
        let found = syndicate.incidents(&mirrors[number]).await;
        assert_eq!(found.len(), 1);
        let Evidence::Receipts(seen) = &found[0].0.evidence else { panic!() };
        let about: Vec<&str> = seen.rounds.iter().map(|round| round.origin.as_str()).collect();
        let [own, other] = [number, 1].map(|n| syndicate.places[n].origin.as_str());
        assert_eq!(about, [own, other, own, other]);
    }
    for mirror in mirrors {
        mirror.stop().await;
    }
}

/// Whoever issues signets anew, as large as they may be, does not keep a forged key from
/// becoming evidence: two histories of these are more than an incident holds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_signets_do_not_switch_off_comparing() {
    let syndicate = Syndicate::new(2).await;
    let (world, alice) = (&syndicate.world, ALICE.parse::<Address>().unwrap());
    let armor = world.pok_armor(alice.domain()).unwrap();
    let seed = pok_from_armor(armor.as_bytes()).unwrap();
    // Its host says that the keys are the same, and is not believed.
    let fetch = |config: &mut Config| config.full_check_millis = 0;
    let a = syndicate.start_with(0, fetch).await;
    let b = syndicate.start_with(1, fetch).await;
    let both = async || {
        visit(&a, ALICE).await;
        visit(&b, ALICE).await;
    };
    both().await;
    for photo in 0..4_u8 {
        let served = world.served(&alice).unwrap().pop().unwrap();
        let request = build::split(&served, Level::Ssr).unwrap();
        let content = [Content::Known(field::PHOTO, vec![photo; 1_000_000])];
        let large = build::user(&request, &seed, &content, SignTo::Full).unwrap();
        world.serve(&alice, large).unwrap();
        both().await;
    }
    for mirror in [&a, &b] {
        assert_eq!(receipt(mirror, ALICE).await.latest(), 5);
        assert!(receipt(mirror, ALICE).await.blobs.iter().any(|blob| blob.len() > 1_000_000));
    }
    settled(&a, "same", 2).await;
    world.swap_key_for(&syndicate.vantages[1], &alice).await.unwrap();
    visit(&b, ALICE).await;
    for (mirror, place) in [&a, &b].into_iter().zip(&syndicate.places) {
        let (incident, findings) = syndicate.incident(mirror).await;
        check_forged_key(&incident, &findings, &place.origin);
    }
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_pok_for_one_vantage_is_a_split_view_of_the_domain() {
    let syndicate = Syndicate::new(2).await;
    let alder: Domain = "alder.example".parse().unwrap();
    let (a, b) = (syndicate.start(0).await, syndicate.start(1).await);
    visit(&a, "alder.example").await;
    settled(&a, "same", 1).await;
    settled(&b, "same", 1).await;
    syndicate.world.replace_pok_for(&syndicate.vantages[1], &alder).await.unwrap();
    visit(&b, "alder.example").await;
    for (mirror, place) in [&a, &b].into_iter().zip(&syndicate.places) {
        let (incident, findings) = syndicate.incident(mirror).await;
        assert_eq!(incident.kind, Kind::SplitView);
        assert_eq!(incident.observer, place.origin);
        assert_eq!(incident.name, Some(name("alder.example")));
        // Both records are signed, so whoever has the zone's keys did it.
        let convicted = findings.convicts.as_ref().map(|conviction| &conviction.party);
        assert!(matches!(convicted, Some(Party::Zone(_))), "{findings:?}");
    }
    a.stop().await;
    b.stop().await;
}

/// The syndicate's one policy file, with a section for what it cannot say, is what
/// each of its mirrors starts with: it leaves itself out, and knows its cosigner.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_policy_file_starts_every_mirror() {
    let syndicate = Syndicate::new(2).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policy");
    let lines = syndicate.places.iter().zip(["ada", "ben"]).map(|(place, name)| {
        let (log, cosigner) = (place.secrets.verifier(), place.secrets.cosigner.verifier());
        let (url, origin) = (place.url(), &place.origin);
        format!("log {log} {url}\nwitness {name} {cosigner}\n#! operator {name} {origin} {name}\n")
    });
    std::fs::write(&path, lines.collect::<String>() + "quorum none\n").unwrap();
    let mut mirrors = Vec::new();
    for number in 0..2 {
        let other = PeerSection { cosigner: None, ..syndicate.places[1 - number].as_peer() };
        let mut file = File::default();
        file.peers.policy = Some(path.clone());
        file.peers.publish_quorum = 1;
        file.peers.mirror = vec![other];
        let peers = file.check().unwrap().peers;
        mirrors.push(syndicate.start_with(number, |config| config.peers = peers).await);
    }
    for (mirror, other) in mirrors.iter().zip(syndicate.places.iter().rev()) {
        let origins: Vec<&str> = mirror.peers.iter().map(|peer| peer.origin()).collect();
        assert_eq!(origins, [&other.origin]);
        let cosigned = format!("\u{2014} {} ", other.secrets.cosigner.verifier().name());
        let site = Site::new(&format!("http://{}", mirror.http)).unwrap();
        let ends = Instant::now() + PATIENCE;
        loop {
            let note = site.get("checkpoint", MAX_BODY).await.unwrap().body;
            if String::from_utf8_lossy(&note).contains(&cosigned) {
                break;
            }
            assert!(Instant::now() < ends, "{note:?}");
            sleep(Duration::from_millis(50)).await;
        }
    }
    // And names are compared, since the sections have the keys for that.
    visit(&mirrors[0], ALICE).await;
    settled(&mirrors[0], "same", 2).await;
    for mirror in mirrors {
        mirror.stop().await;
    }
}

/// Comparisons go on where they were after a restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_comparison_outlives_the_process() {
    let syndicate = Syndicate::new(2).await;
    let a = syndicate.start(0).await;
    visit(&a, ALICE).await;
    let ends = Instant::now() + PATIENCE;
    while counts(&a, "syndicate_comparisons_open", "").await.values().sum::<u64>() < 2 {
        assert!(Instant::now() < ends);
        sleep(Duration::from_millis(20)).await;
    }
    a.stop().await;
    // The other one was not there at all.
    let b = syndicate.start(1).await;
    let a = syndicate.start(0).await;
    settled(&a, "same", 2).await;
    assert_eq!(receipt(&b, ALICE).await.latest(), 1);
    a.stop().await;
    b.stop().await;
}

/// A peer that never answers fills its own room, and nobody else's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_peer_keeps_nobody_from_being_asked() {
    let syndicate = Syndicate::new(3).await;
    let b = syndicate.start(1).await;
    let a = syndicate.start(0).await;
    // As many as there can be, open, with one that is not there.
    let (dead, later) = (&syndicate.places[2].origin, syndicate.clock.now().plus(3_600_000));
    let open = serde_json::to_vec(&Comparison::new(later)).unwrap();
    let mut batch = Batch::new();
    for number in 0..PENDING {
        let row = format!("n{number}.example\n{dead}");
        batch.put(Table::Comparisons, row, open.clone());
    }
    let _ = a.log.state().apply(batch).await.unwrap();
    a.stop().await;

    let a = syndicate.start(0).await;
    visit(&a, ALICE).await;
    // Domain and mailbox.
    let ends = Instant::now() + PATIENCE;
    while outcomes(&a).await.get("same") < Some(&2) {
        assert!(Instant::now() < ends, "{:?}", outcomes(&a).await);
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(receipt(&b, ALICE).await.latest(), 1);
    // For the dead one they are not skipped: it is asked about them when there is
    // room again.
    assert_eq!(outcomes(&a).await.get("no-room"), None);
    a.stop().await;
    b.stop().await;
}

/// A mirror's own looks.
struct Eyes(crawl::Handle);

#[async_trait]
impl Look for Eyes {
    async fn look(&self, name: &Name) -> Result<u64, String> {
        self.0.look(name.clone(), None).await.map(|_| 0).map_err(|error| error.to_string())
    }
}

/// Has no room and fails, by turns, until it is told otherwise.
#[derive(Default)]
struct Shelf {
    has_room: AtomicBool,
    refused: AtomicU32,
    taken: Mutex<Vec<Found>>,
}

#[async_trait]
impl Raise for Shelf {
    async fn raise(&self, found: &Found) -> Result<bool, String> {
        if self.has_room.load(Ordering::SeqCst) {
            self.taken.lock().unwrap().push(found.clone());
            return Ok(true);
        }
        match self.refused.fetch_add(1, Ordering::SeqCst) % 2 {
            0 => Ok(false),
            _ => Err("a test".to_owned()),
        }
    }
}

/// What had no room is not taken for raised: it is tried until there is some.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_difference_is_raised_until_it_is_kept() {
    let syndicate = Syndicate::new(2).await;
    // The first one compares by the hand of this test, and not by its own.
    let a = syndicate.start_with(0, |config| config.peers.mirrors.clear()).await;
    let b = syndicate.start_with(1, |config| config.peers.pace.recheck = 3_600_000).await;
    let (shelf, registry) = (Arc::new(Shelf::default()), prometheus::Registry::new());
    let rooms = Rooms {
        log: a.log.clone(),
        answers: Arc::new(Answerer::new(a.log.reader())),
        clock: syndicate.clock.clone(),
        key: syndicate.places[0].secrets.peer.clone(),
        look: Arc::new(Eyes(a.crawl.clone())),
        raise: shelf.clone(),
        tally: Tally::new(&registry).unwrap(),
    };
    let face = syndicate.places[0].face_of(&syndicate.places[1]);
    // A try that had no room is repeated within the hour, not the day.
    let pace = Pace { recheck: 100, withheld: 86_400_000 };
    let (task, handle) = CrossCheck::new(rooms, vec![face], pace).unwrap();
    let stop = CancellationToken::new();
    let task = tokio::spawn(task.run(stop.clone()));

    syndicate.world.swap_key_for(&syndicate.vantages[1], &ALICE.parse().unwrap()).await.unwrap();
    visit(&b, ALICE).await;
    visit(&a, ALICE).await;
    handle.suspect(&syndicate.places[1].origin, name(ALICE), 1).await;
    let until = async |what: &str, is_so: &dyn Fn() -> bool| {
        let ends = Instant::now() + PATIENCE;
        while !is_so() {
            assert!(Instant::now() < ends, "{what}: {:?}", registry.gather());
            sleep(Duration::from_millis(20)).await;
        }
    };
    until("tried again", &|| shelf.refused.load(Ordering::SeqCst) >= 3).await;
    let counted = || {
        let families = registry.gather();
        let outcomes = families.iter().filter(|family| family.name().contains("comparisons_total"));
        let metrics = outcomes.flat_map(|family| family.get_metric());
        metrics.filter(|metric| metric.get_label()[0].value() == "split-view").count()
    };
    assert_eq!(counted(), 0, "nothing was raised yet");
    shelf.has_room.store(true, Ordering::SeqCst);
    until("kept", &|| counted() == 1).await;
    {
        let taken = shelf.taken.lock().unwrap();
        let mine = taken.iter().filter(|found| found.name == name(ALICE));
        assert!(mine.clone().count() == 1 && mine.clone().all(|found| found.looks.len() >= 4));
    }
    stop.cancel();
    task.await.unwrap().unwrap();
    a.stop().await;
    b.stop().await;
}

/// Looks at nothing.
struct Blind;

#[async_trait]
impl Look for Blind {
    async fn look(&self, _: &Name) -> Result<u64, String> {
        Err("a test".to_owned())
    }
}

#[async_trait]
impl Explore for Blind {
    async fn explore(&self, _: &Domain) -> Explored {
        Explored::Later
    }
}

/// Comparing by the hand of a test: the first mirror's log, and the second as its peer.
fn by_hand(
    syndicate: &Syndicate,
    mirror: &Mirror,
    registry: &prometheus::Registry,
) -> (CrossCheck, Handle, Tally) {
    let tally = Tally::new(registry).unwrap();
    let rooms = Rooms {
        log: mirror.log.clone(),
        answers: Arc::new(Answerer::new(mirror.log.reader())),
        clock: syndicate.clock.clone(),
        key: syndicate.places[0].secrets.peer.clone(),
        look: Arc::new(Blind),
        raise: Arc::new(Shelf::default()),
        tally: tally.clone(),
    };
    let face = syndicate.places[0].face_of(&syndicate.places[1]);
    let pace = Pace { recheck: 3_600_000, withheld: 86_400_000 };
    let (task, handle) = CrossCheck::new(rooms, vec![face], pace).unwrap();
    (task, handle, tally)
}

/// The row of a comparison with the second mirror, once it is as it should be.
async fn compared(
    syndicate: &Syndicate,
    mirror: &Mirror,
    name: &str,
    wanted: impl Fn(&Value) -> bool,
) {
    let key = format!("{name}\n{}", syndicate.places[1].origin);
    let ends = Instant::now() + PATIENCE;
    loop {
        let row = mirror.log.state().get(Table::Comparisons, key.as_bytes()).await.unwrap();
        let row = row.map_or(Value::Null, |row| serde_json::from_slice(&row).unwrap());
        if wanted(&row) {
            return;
        }
        assert!(Instant::now() < ends, "{name}: {row}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// A peer that logs many domains with other keys drowns none of them by it, however
/// late they are looked into; and what finds no room is taken up when there is some.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn suspicions_are_not_lost() {
    const NOISE: usize = 300;
    let syndicate = Syndicate::new(2).await;
    let a = syndicate.start_with(0, |config| config.peers.mirrors.clear()).await;
    let (state, origin) = (Arc::clone(a.log.state()), &syndicate.places[1].origin);
    let names: Vec<String> = (0..=NOISE).map(|number| format!("n{number}.example")).collect();
    let (mut batch, mut entries) = (Batch::new(), Vec::new());
    for name in &names {
        let known = DomainRow {
            domain: name.parse().unwrap(),
            version: 1,
            current: 1,
            poks: vec![rows::Hash([1; 32])],
            dnssec: Dnssec::Secure,
            was_secure: true,
            record: None,
            org_signet: None,
            dnssec_chain: None,
            org_signets: Vec::new(),
            held_until: None,
            withdrawn: false,
            events: Vec::new(),
            logged_at: syndicate.clock.now(),
        };
        batch.put(Table::Domains, known.key(), rows::encode(&known));
        let pok = [[2; 32]];
        let seen = DomainObservation {
            domain: name,
            version: 7,
            current: 7,
            poks: Poks::new(&pok),
            dnssec: Dnssec::Indeterminate,
            record: Some(Blob::of(b"a record")),
            org_signet: None,
            dnssec_chain: None,
            events: Event::PokReplaced.into(),
            held_until: None,
            coalesced: None,
        };
        let entry = Entry::new(syndicate.clock.now(), EntryKind::Domain(seen)).encode();
        entries.push(Bytes::from(entry));
    }
    let _ = state.apply(batch).await.unwrap();

    let registry = prometheus::Registry::new();
    let (task, handle, tally) = by_hand(&syndicate, &a, &registry);
    let domains = Domains::new(
        [origin.clone()],
        Arc::clone(&state),
        Arc::new(Blind),
        handle,
        syndicate.clock.clone(),
        tally,
        0,
    );
    let domains = domains.await.unwrap();
    let stop = CancellationToken::new();
    // They are more than may wait at a time, before anybody looks at one.
    let heard = async {
        domains.heard(origin, &entries).await.unwrap();
        for name in &names {
            compared(&syndicate, &a, name, |row| row["least"] == 7).await;
        }
        stop.cancel();
    };
    let (ran, ()) = tokio::join!(task.run(stop.clone()), heard);
    ran.unwrap();

    // The room is full of what is not answered.
    let later = serde_json::to_vec(&Comparison::new(syndicate.clock.now().plus(3_600_000)));
    let (later, mut batch) = (later.unwrap(), Batch::new());
    let full: Vec<String> = (0..PENDING).map(|n| format!("m{n}.example\n{origin}")).collect();
    for row in &full {
        batch.put(Table::Comparisons, row.as_str(), later.clone());
    }
    for name in &names {
        batch.delete(Table::Comparisons, format!("{name}\n{origin}"));
    }
    let _ = state.apply(batch).await.unwrap();
    let last = names.last().unwrap();
    let registry = prometheus::Registry::new();
    let (task, handle, _) = by_hand(&syndicate, &a, &registry);
    let stop = CancellationToken::new();
    let suspected = async {
        handle.suspect(origin, name(last), 7).await;
        compared(&syndicate, &a, last, |row| row["aside"] == true).await;
        stop.cancel();
    };
    let (ran, ()) = tokio::join!(task.run(stop.clone()), suspected);
    ran.unwrap();

    let mut batch = Batch::new();
    for row in &full[PENDING / 3..] {
        batch.delete(Table::Comparisons, row.as_str());
    }
    let _ = state.apply(batch).await.unwrap();
    let registry = prometheus::Registry::new();
    let (task, _handle, _) = by_hand(&syndicate, &a, &registry);
    let stop = CancellationToken::new();
    let taken_up = async {
        compared(&syndicate, &a, last, |row| row["least"] == 7 && row["aside"].is_null()).await;
        stop.cancel();
    };
    let (ran, ()) = tokio::join!(task.run(stop.clone()), taken_up);
    ran.unwrap();
    a.stop().await;
}

/// A peer whose log shows a forged domain, and whose answers are true and leave it out:
/// neither part of its history nor what it was before ends the comparison unseen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn part_of_a_history_ends_no_comparison() {
    const ALDER: &str = "alder.example";
    let syndicate = Syndicate::new(2).await;
    let alone = |config: &mut Config| config.peers.mirrors.clear();
    let b = syndicate.start_with(1, alone).await;
    visit(&b, ALDER).await;
    let old = receipt(&b, ALDER).await;
    let alder: Domain = ALDER.parse().unwrap();
    syndicate.world.replace_pok_for(&syndicate.vantages[1], &alder).await.unwrap();
    visit(&b, ALDER).await;
    let answers = Answerer::new(b.log.reader());
    let latest = Question { name: name(ALDER), span: Span::Latest, has_genesis: false };
    let part = answers.receipt(&latest).await.unwrap();
    assert_eq!((old.latest(), part.latest(), part.first()), (1, 2, 2));
    b.stop().await;

    // What it was before. Its log has shown more.
    let a = syndicate.start_with(0, alone).await;
    visit(&a, ALDER).await;
    let peer = &syndicate.places[1];
    let old = stale_mirror(peer.http, old.encode().into()).await;
    let registry = prometheus::Registry::new();
    let (task, handle, _) = by_hand(&syndicate, &a, &registry);
    let stop = CancellationToken::new();
    let suspected = async {
        handle.suspect(&peer.origin, name(ALDER), 2).await;
        let answered = |row: &Value| row["unshown_since"].as_u64().is_some_and(|since| since > 0);
        compared(&syndicate, &a, ALDER, answered).await;
        stop.cancel();
    };
    let (ran, ()) = tokio::join!(task.run(stop.clone()), suspected);
    ran.unwrap();
    a.stop().await;

    // A part of it.
    old.abort();
    let _ = old.await;
    stale_mirror(peer.http, part.encode().into()).await;
    let a = syndicate.start(0).await;
    syndicate.world.replace_pok(&alder, false).unwrap();
    visit(&a, ALDER).await;
    comparing(&a, |said| said == "it does not show its history (names: 1)").await;
    assert_eq!(every_kind(&a).await, []);
    a.stop().await;
}

/// A mirror that answers with the same old receipt for ever.
async fn stale_mirror(at: SocketAddr, old: Bytes) -> JoinHandle<()> {
    let listener = TcpListener::bind(at).await.unwrap();
    let answer = move || {
        let old = old.clone();
        async move { ([(header::CONTENT_TYPE, "application/x-protobuf")], old) }
    };
    let router = Router::new().route("/v1/observe", post(answer));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_withheld_for_hours_is_an_incident() {
    let mut syndicate = Syndicate::new(2).await;
    syndicate.clock = Clock::manual(syndicate.clock.now());
    let _ticks = ticks(&syndicate.clock);
    let alice: Address = ALICE.parse().unwrap();
    // Not a day of them: each quarter of an hour is a question.
    const WITHHELD: u64 = 6 * 3_600_000;
    let a = syndicate.start_with(0, |config| config.peers.pace.withheld = WITHHELD).await;
    let b = syndicate.start(1).await;
    visit(&a, ALICE).await;
    settled(&a, "same", 2).await;
    let [here, there] = [&syndicate.places[0], &syndicate.places[1]];
    let (face, now) = (here.face_of(there), syndicate.clock.now());
    let asked = face.ask(&here.secrets.peer, &name(ALICE), false, now).await;
    let Said::Receipt(old, _) = asked.unwrap() else { panic!() };
    b.stop().await;
    stale_mirror(there.http, old.encode().into()).await;

    syndicate.clock.advance(60_000);
    syndicate.world.rotate(&alice).unwrap();
    visit(&a, ALICE).await;
    let began = syndicate.clock.now();
    let ends = Instant::now() + PATIENCE;
    let row = format!("{ALICE}\n{}", there.origin);
    let commits = || a.log.heads().committed.map(|head| head.n);
    let (mut beat, mut beaten) = (commits(), syndicate.clock.now());
    while syndicate.incidents(&a).await.is_empty() {
        assert!(Instant::now() < ends, "{:?}", outcomes(&a).await);
        if commits() != beat {
            (beat, beaten) = (commits(), syndicate.clock.now());
        }
        // An hour without a batch puts the clock in doubt, and nobody is visited then.
        let keeps_up = syndicate.clock.now().since(beaten) < 30 * 60_000;
        // Time goes on while nothing is due, so that no answer comes late by it.
        let kept = a.log.state().get(Table::Comparisons, row.as_bytes()).await.unwrap();
        let kept = kept.map(|row| serde_json::from_slice::<Comparison>(&row).unwrap());
        let is_idle =
            kept.is_some_and(|kept| !kept.is_over() && kept.due() > syndicate.clock.now());
        if keeps_up && is_idle {
            syndicate.clock.advance(60_000);
        } else {
            sleep(Duration::from_millis(5)).await;
        }
    }
    assert!(syndicate.clock.now().since(began) >= WITHHELD);
    let (incident, findings) = syndicate.incidents(&a).await.pop().unwrap();
    assert_eq!(incident.kind, Kind::UpdateWithheld);
    // Who has not told whom is nobody's signature.
    assert_eq!(findings.convicts, None);
    a.stop().await;
}

/// Threat 17: a mirror that was away for a day is stale, then good again; that it
/// missed what happened meanwhile is nobody's fault.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_a_day_accuses_nobody() {
    let mut syndicate = Syndicate::new(2).await;
    syndicate.clock = Clock::manual(syndicate.clock.now());
    let _ticks = ticks(&syndicate.clock);
    let alice: Address = ALICE.parse().unwrap();
    let (a, b) = (syndicate.start(0).await, syndicate.start(1).await);
    visit(&a, ALICE).await;
    settled(&a, "same", 2).await;
    settled(&b, "same", 1).await;
    b.stop().await;

    let (began, since) = (Instant::now(), syndicate.clock.now());
    let mut hours = 0;
    while syndicate.clock.now().since(since) < 26 * 3_600_000 {
        // Less than its clock rule allows, and a beat.
        let before = a.log.heads().committed.unwrap().size;
        syndicate.clock.advance(3_000_000);
        let ends = Instant::now() + PATIENCE;
        while a.log.heads().committed.unwrap().size == before {
            assert!(Instant::now() < ends, "{:?}", a.log.blocked());
            sleep(Duration::from_millis(10)).await;
        }
        let hour = syndicate.clock.now().since(since) / 3_600_000;
        if hour >= hours + 8 {
            hours = hour;
            syndicate.world.rotate(&alice).unwrap();
            visit(&a, ALICE).await;
        }
    }
    let ends = Instant::now() + PATIENCE;
    while !matches!(a.peers[0].standing().status, Status::Condition(_)) {
        assert!(Instant::now() < ends, "{}", a.peers[0].standing().status);
        sleep(Duration::from_millis(50)).await;
    }

    // Its operator has looked at the clock.
    let b = syndicate.start_with(1, |config| config.accept_clock = true).await;
    let ends = Instant::now() + PATIENCE;
    while a.peers[0].standing().status != Status::Good
        || b.peers[0].standing().status != Status::Good
    {
        assert!(
            Instant::now() < ends,
            "{} {}",
            a.peers[0].standing().status,
            b.peers[0].standing().status
        );
        sleep(Duration::from_millis(50)).await;
    }
    visit(&b, ALICE).await;
    settled(&b, "same", 1).await;
    println!("an outage of a day was over, all good again, after {:?}", began.elapsed());
    assert_eq!(receipt(&b, ALICE).await.latest(), receipt(&a, ALICE).await.latest());
    for mirror in [a, b] {
        assert_eq!(every_kind(&mirror).await, []);
        mirror.stop().await;
    }
}

/// Kinds of all incidents that accuse a mirror, or say that mirrors differ.
async fn every_kind(mirror: &Mirror) -> Vec<Kind> {
    let private = &mirror.log.store().private;
    let mut kinds = Vec::new();
    for object in private.list_all("incident", 1000).await.unwrap() {
        let bytes = private.get(&object.key, 64 << 20).await.unwrap().unwrap();
        kinds.extend(Incident::read(&bytes).ok().map(|incident| incident.kind));
    }
    kinds.retain(|kind| {
        matches!(
            kind,
            Kind::LogFork
                | Kind::RuleBroken
                | Kind::DirectoryRootWrong
                | Kind::BlobUnserved
                | Kind::StaleMirror
                | Kind::SplitView
                | Kind::UpdateWithheld
        )
    });
    kinds
}

/// What is sent to `/v1/observe`, and the status that comes back.
async fn post_request(to: &Place, request: &Value) -> u16 {
    let site = Site::new(&to.url()).unwrap();
    let kind = "application/json";
    let body = Bytes::from(request.to_string());
    site.post("v1/observe", kind, "application/x-protobuf", body, MAX_BODY).await.unwrap().status
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_peers_may_ask_and_not_without_end() {
    let mut syndicate = Syndicate::new(2).await;
    // The hour is counted by this clock, and does not end meanwhile.
    syndicate.clock = Clock::manual(syndicate.clock.now());
    let a = syndicate
        .start_with(0, |config| {
            config.peers.looks_per_hour = 2;
            config.peers.mirrors[0].share_addresses = false;
        })
        .await;
    let [here, peer] = [&syndicate.places[0], &syndicate.places[1]];
    let now = syndicate.clock.now();
    let asks = |key: &SigningKey, origin: &str, text: &str, fresh, time: Timestamp| {
        ask::request(key, origin, &name(text), fresh, time).unwrap()
    };
    let key = &peer.secrets.peer;
    // A visit that takes long is asked about again, and is one visit.
    let answered = async |text: &str, fresh| loop {
        match post_request(here, &asks(key, &here.origin, text, fresh, now)).await {
            202 => sleep(Duration::from_millis(20)).await,
            status => break status,
        }
    };
    let good = asks(key, &here.origin, "nobody.example", false, now);
    let status = match post_request(here, &good).await {
        202 => answered("nobody.example", false).await,
        status => status,
    };
    assert_eq!(status, 200);
    assert_eq!(post_request(here, &good).await, 409, "a replay");
    let stranger = SigningKey::ed25519("x/peer", &[9; 32]).unwrap();
    let refused = [
        asks(&stranger, &here.origin, "nobody.example", false, now),
        asks(key, &peer.origin, "nobody.example", false, now),
        // The clock of this test ticks, so a time ahead has to be well ahead.
        asks(key, &here.origin, "nobody.example", false, now.plus(600_000)),
        asks(key, &here.origin, ALICE, false, now),
        // A log key is no peer key.
        asks(&SigningKey::ed25519("x", &[8; 32]).unwrap(), &here.origin, "a.example", true, now),
    ];
    for (number, request) in refused.iter().enumerate() {
        assert_eq!(post_request(here, request).await, 403, "{number}");
    }
    // An owner's request, although the very key signed it.
    let request = Request {
        method: Method::Watch,
        name: name("nobody.example"),
        body_sha256: Sha256::digest("").into(),
        time: now.secs(),
        nonce: [5; 16],
    };
    let signature = key.sign(&request.text(&here.origin), now).body;
    let watch = serde_json::json!({
        "name": "nobody.example", "time": request.time, "nonce": hex::encode(request.nonce),
        "key": hex::encode(key.verifier().public_key().unwrap()),
        "signature": hex::encode(signature),
    });
    assert_eq!(post_request(here, &watch).await, 403);
    let mut changed = asks(key, &here.origin, "nobody.example", false, now);
    changed["body"] = "fresh".into();
    assert_eq!(post_request(here, &changed).await, 403);
    changed["body"] = "stale".into();
    assert_eq!(post_request(here, &changed).await, 400);
    assert!(ed25519::check_key(&[0; 32]).is_err());

    // Two visits an hour; what is known costs none.
    assert_eq!(answered("alder.example", true).await, 200);
    assert_eq!(answered("alder.example", true).await, 429);
    assert_eq!(answered("alder.example", false).await, 200);
    assert_eq!(answered("birch.example", false).await, 429);
    // What is not there is not watched, and the answer proves that it is not there.
    let row = rows::find::<FrontierRow>(&**a.log.state(), b"nobody.example").await.unwrap();
    assert_eq!(row, None);
    a.stop().await;
}

/// What `/readyz` says of comparing with the one peer, once it is as it should be.
async fn comparing(mirror: &Mirror, wanted: impl Fn(&Value) -> bool) {
    let site = Site::new(&format!("http://{}", mirror.http)).unwrap();
    let ends = Instant::now() + PATIENCE;
    loop {
        let ready: Value =
            serde_json::from_slice(&site.get("readyz", MAX_BODY).await.unwrap().body).unwrap();
        let said = &ready["peers"][0]["comparing"];
        if wanted(said) {
            return;
        }
        assert!(Instant::now() < ends, "{said}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// A peer that withholds by not letting us ask, or by saying that it looks in vain,
/// is accused of nothing, and its operator and ours see it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_peer_keeps_back_is_shown() {
    let syndicate = Syndicate::new(2).await;
    let a = syndicate.start(0).await;
    let b = syndicate.start_with(1, |config| config.peers.mirrors[0].peer_key = None).await;
    comparing(&a, Value::is_null).await;
    visit(&a, ALICE).await;
    // Domain and mailbox: none of it comes in between later.
    settled(&a, "refused", 2).await;
    comparing(&a, |said| said == "it does not let us ask").await;
    b.stop().await;
    let b = syndicate.start(1).await;
    visit(&a, "birch.example").await;
    comparing(&a, Value::is_null).await;
    assert_eq!(every_kind(&a).await, []);

    // As it stands in the index after a day of looking in vain, until a day later.
    let now = syndicate.clock.now().millis();
    let row = |until: u64| {
        let raised = json!({"tips": "", "until": until, "unseen": true});
        let row = json!({"began": 0, "due": u64::MAX, "failures": 0, "raised": raised});
        serde_json::to_vec(&row).unwrap()
    };
    let mut batch = Batch::new();
    let peer = &syndicate.places[1].origin;
    batch.put(Table::Comparisons, format!("{ALICE}\n{peer}"), row(now + 3_600_000));
    batch.put(Table::Comparisons, format!("alder.example\n{peer}"), row(now));
    let _ = a.log.state().apply(batch).await.unwrap();
    a.stop().await;
    let a = syndicate.start(0).await;
    let words = "it says that it cannot see what changed here (names: 1)";
    comparing(&a, |said| said == words).await;
    // The next answer shows what it did not.
    syndicate.world.rotate(&ALICE.parse().unwrap()).unwrap();
    visit(&a, ALICE).await;
    comparing(&a, Value::is_null).await;
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peers_domains_are_looked_at_here_few_a_day() {
    let mut syndicate = Syndicate::new(2).await;
    // The day is counted by this clock, and does not end meanwhile.
    syndicate.clock = Clock::manual(syndicate.clock.now());
    let b = syndicate.start(1).await;
    let domains = ["alder.example", "birch.example", "cedar.example", "fir.example"];
    for domain in domains {
        visit(&b, domain).await;
    }
    // In our view of DNS there is no such record.
    for label in ["_dime", "_dx"] {
        syndicate.vantages[0].dns().remove(&format!("{label}.alder.example")).unwrap();
    }
    let a = syndicate
        .start_with(0, |config| {
            config.peers.domains_per_day = 2;
            // Its log is followed, and no name compared.
            config.peers.mirrors[0].peer_key = None;
        })
        .await;
    let ends = Instant::now() + PATIENCE;
    let explored = async || counts(&a, "syndicate_peer_domains_total", "").await;
    while explored().await.values().sum::<u64>() < 2 {
        assert!(Instant::now() < ends, "{}", metrics(&a).await);
        sleep(Duration::from_millis(100)).await;
    }
    // One of the two has no record here: nothing is written about it.
    assert_eq!(receipt(&a, "birch.example").await.latest(), 1);
    assert_eq!(receipt(&a, "alder.example").await.latest(), 0);
    let row = rows::find::<FrontierRow>(&**a.log.state(), b"alder.example").await.unwrap();
    assert_eq!(row, None);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(explored().await.values().sum::<u64>(), 2);
    for domain in ["cedar.example", "fir.example"] {
        assert_eq!(receipt(&a, domain).await.latest(), 0, "{domain}");
    }
    a.stop().await;
    b.stop().await;
}
