//! Mirrors that follow and cosign each other, over real sockets; and what a
//! mirror makes of a log that lies, stumbles, or is merely behind.

#[path = "support/mini_log.rs"]
mod mini_log;
#[path = "support/process.rs"]
mod process;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use axum::Router;
use axum::extract::{OriginalUri, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use mini_log::*;
use sha2::{Digest as _, Sha256};
use syndicate::client::follow::{LogSource, Position, Relation};
use syndicate::client::{Answer, Site};
use syndicate::clock::Clock;
use syndicate::config::PeerSection;
use syndicate::daemon::{Folder, Secrets};
use syndicate::demo::dns::PrivateDns;
use syndicate::dime::signet::build::{self, Content, SignTo};
use syndicate::dime::signet::field;
use syndicate::dime::{Dnssec, Timestamp};
use syndicate::directory;
use syndicate::log::answer::Answerer;
use syndicate::log::{self, Blocked, Keys, Log};
use syndicate::peers::{
    Accuse, Condition, Heard, Metrics, Mirror, Options, Peer, Peers, PublicWitness, Rooms,
    Standing, Status,
};
use syndicate::proof::checkpoint::{
    AddCheckpoint, Checkpoint, MAX_ADD_CHECKPOINT, SignedCheckpoint,
};
use syndicate::proof::dnssec::Anchor;
use syndicate::proof::draft::{DomainDraft, Draft};
use syndicate::proof::entry::{
    Blob, Carried, DirectoryRoot, DomainObservation, Event, Events, Genesis, Poks, Predecessor,
    UserObservation,
};
use syndicate::proof::incident::{
    Evidence, Incident, Kind as IncidentKind, verify as verify_incident,
};
use syndicate::proof::map::PlainMap;
use syndicate::proof::merkle::{self, leaf_hash, root_from_leaves};
use syndicate::proof::note::{SigningKey, VerifierKey};
use syndicate::proof::policy::Policy;
use syndicate::proof::replay::{Change, MapEngine as _, Tip};
use syndicate::proof::tile::{BundleCoordinate, Edge, WIDTH, encode_bundle, new_bundles};
use syndicate::proof::wire::Writer;
use syndicate::proof::{Entry, Hash, Kind, Label, entry, replay, vrf};
use syndicate::resolver::{HickoryResolver, Resolver};
use syndicate::serve::http;
use syndicate::store::testing::{Faults, MemoryState, Operation};
use syndicate::store::{Blobs, Store};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Longer than anything here takes.
const PATIENCE: Duration = process::PATIENCE;

/// Accusations as they were filed.
#[derive(Default)]
struct Filed(Mutex<Vec<Incident>>);

#[async_trait]
impl Accuse for Filed {
    async fn accuse(&self, incident: &Incident) -> Result<(), String> {
        // As a file that goes around.
        let read = Incident::read(&incident.to_bytes()).expect("it reads back");
        assert_eq!(read, *incident);
        self.0.lock().unwrap().push(read);
        Ok(())
    }
}

/// Entries as they were heard of, and a lock that holds the hearing up.
#[derive(Default)]
struct Ear(Mutex<Vec<(u64, usize)>>, tokio::sync::Mutex<()>);

#[async_trait]
impl Heard for Ear {
    async fn heard(&self, _: &str, first: u64, entries: &[Bytes]) {
        let _held_up = self.1.lock().await;
        self.0.lock().unwrap().push((first, entries.len()));
    }
}

/// A place for one mirror: its folder and where it will listen.
struct Place {
    name: String,
    folder: TempDir,
    listener: Option<TcpListener>,
    url: String,
    seed: u8,
}

impl Place {
    async fn new(name: &str, seed: u8) -> Place {
        // An address of its own: nobody else gets a port there while it is down.
        static NEXT: AtomicU8 = AtomicU8::new(1);
        let ip = Ipv4Addr::new(127, 1, 13, NEXT.fetch_add(1, Ordering::SeqCst));
        let listener = TcpListener::bind((ip, 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let folder = tempfile::tempdir().unwrap();
        Place { name: name.into(), folder, listener: Some(listener), url, seed }
    }

    fn log_key(&self) -> SigningKey {
        SigningKey::ed25519(&self.name, &[self.seed; 32]).unwrap()
    }

    fn cosigner(&self) -> SigningKey {
        SigningKey::cosigner(&format!("{}/cosigner", self.name), &[self.seed + 100; 32]).unwrap()
    }

    fn as_peer(&self) -> Mirror {
        Mirror {
            url: self.url.clone(),
            log: self.log_key().verifier(),
            cosigner: Some(self.cosigner().verifier()),
        }
    }

    fn guard(&self) -> std::path::PathBuf {
        self.folder.path().join("guard")
    }
}

/// A mirror that runs: log, peers, HTTP.
struct Node {
    log: Log,
    store: Store,
    site: Site,
    peers: Vec<Arc<Peer>>,
    filed: Arc<Filed>,
    ear: Arc<Ear>,
    /// What kept it from signing when it had just been opened.
    blocked: Option<Blocked>,
    stop: CancellationToken,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Node {
    async fn start(place: &mut Place, clock: &Clock, options: Options, quorum: usize) -> Node {
        let store = Store::folder(&place.folder.path().join("blobs")).unwrap();
        Node::start_on(place, clock, options, quorum, store).await
    }

    async fn start_on(
        place: &mut Place,
        clock: &Clock,
        options: Options,
        quorum: usize,
        store: Store,
    ) -> Node {
        let log_options = log::Options {
            origin: Some(place.name.clone()),
            interval: Duration::from_millis(1),
            urgent_interval: Duration::from_millis(1),
            publish_quorum: quorum,
            // Nothing here is published without its quorum, however slow the machine.
            quorum_deadline: 10 * PATIENCE,
            ..log::Options::new(place.guard())
        };
        let keys = Keys {
            log: place.log_key(),
            vrf: Arc::new(vrf::SecretKey::from_seed(&[place.seed; 32])),
        };
        let state = Arc::new(MemoryState::default());
        let opened = log::open(log_options, store.clone(), state, keys, clock.clone()).await;
        let opened = opened.unwrap();
        let (log, stop) = (opened.log, CancellationToken::new());
        let blocked = log.blocked();
        let faces = syndicate::serve::metrics::Metrics::new().unwrap();
        let (filed, ear) = (Arc::new(Filed::default()), Arc::new(Ear::default()));
        let rooms = Rooms {
            log: log.clone(),
            clock: clock.clone(),
            cosigner: place.cosigner(),
            accuse: filed.clone(),
            heard: vec![ear.clone()],
            metrics: Metrics::new(faces.registry()).unwrap(),
        };
        let peers = Peers::new(options, rooms).unwrap();
        let mut web = http::Options::new(clock);
        web.witness = Some(peers.witness().clone());
        let answers = Arc::new(Answerer::new(log.reader()));
        let server = http::Server::new(answers, faces, clock.clone(), web);
        let listener = match place.listener.take() {
            Some(listener) => listener,
            None => {
                let address = place.url.strip_prefix("http://").unwrap().to_owned();
                TcpListener::bind(address).await.unwrap()
            }
        };
        let (list, recall) = (peers.peers().to_vec(), peers.recall());
        let (a, b, c) = (stop.clone(), stop.clone(), stop.clone());
        let tasks = vec![
            tokio::spawn(async move {
                let mut sequencer = opened.sequencer;
                recall.run(&mut sequencer, &a).await.unwrap();
                sequencer.run(a).await.unwrap();
            }),
            tokio::spawn(async move { peers.run(b).await.unwrap() }),
            tokio::spawn(async move { server.run(listener, c).await.unwrap() }),
        ];
        let site = Site::new(&place.url).unwrap();
        Node { log, store, site, peers: list, filed, ear, blocked, stop, tasks }
    }

    async fn stop(mut self) -> Store {
        self.stop.cancel();
        for task in std::mem::take(&mut self.tasks) {
            task.await.unwrap();
        }
        self.store.clone()
    }

    /// The only peer's standing, as soon as it is so.
    async fn until(&self, so: impl Fn(&Standing) -> bool) -> Standing {
        let mut watch = self.peers[0].watch();
        let found = tokio::time::timeout(PATIENCE, watch.wait_for(|now| so(now))).await;
        match found {
            Ok(standing) => standing.unwrap().clone(),
            Err(_) => panic!("it stays at {:?}", self.peers[0].standing()),
        }
    }

    async fn until_good(&self, size: u64) -> Standing {
        self.until(|now| now.status == Status::Good && now.size == size).await
    }

    async fn add_checkpoint(&self, body: impl Into<Bytes>) -> Answer {
        let body = body.into();
        loop {
            let post = self.site.post("add-checkpoint", "text/plain", "*/*", body.clone(), 1 << 16);
            let answer = post.await.unwrap();
            // At its start it asks its own peers; that is over soon, or in doubt.
            if !words(&answer).contains("asks its peers") || self.log.blocked().is_some() {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn accusations(&self) -> Vec<IncidentKind> {
        self.filed.0.lock().unwrap().iter().map(|found| found.kind).collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A log under the test's hand: it serves what it is told.
#[derive(Clone)]
struct Rogue {
    url: String,
    served: Arc<Mutex<Served>>,
}

#[derive(Default)]
struct Served {
    objects: BTreeMap<String, Bytes>,
    withdrawn: BTreeSet<String>,
    asked: BTreeMap<String, u64>,
    /// Never answers to paths that begin so.
    mute: Option<String>,
    /// Answers 503 to everything.
    down: bool,
}

impl Rogue {
    async fn start() -> Rogue {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let served = Arc::new(Mutex::new(Served::default()));
        let router = Router::new().fallback(answer).with_state(served.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Rogue { url, served }
    }

    /// Serves a log with its blobs, in place of what was there.
    fn serve(&self, log: &MiniLog) {
        self.serve_entries(&log.entries);
        for (hash, bytes) in &log.blobs {
            self.put(format!("v1/blob/{}", hex::encode(hash)), bytes.clone());
        }
    }

    fn serve_entries(&self, entries: &[Bytes]) {
        self.serve_tree(entries, &signed(entries));
    }

    fn serve_tree(&self, entries: &[Bytes], signed: &SignedCheckpoint) {
        for (path, bytes) in Rogue::tree(entries) {
            self.put(path, bytes);
        }
        self.put("checkpoint".into(), signed.to_string().into_bytes().into());
    }

    /// Tiles and bundles of a log.
    fn tree(entries: &[Bytes]) -> Vec<(String, Bytes)> {
        let (_, tiles) = Edge::new().integrate(&leaves(entries));
        let tiles = tiles.into_iter().map(|tile| (tile.at.path(), tile.bytes.into()));
        let bundles = new_bundles(0, entries.len() as u64).map(|at| {
            let from = at.index as usize * usize::from(WIDTH);
            let part = &entries[from..from + usize::from(at.width)];
            (at.path(), encode_bundle(part).unwrap().into())
        });
        tiles.chain(bundles).collect()
    }

    /// How often somebody asked for it.
    fn asked(&self, path: &str) -> u64 {
        self.served.lock().unwrap().asked.get(path).copied().unwrap_or(0)
    }

    fn put(&self, path: String, bytes: Bytes) {
        self.served.lock().unwrap().objects.insert(path, bytes);
    }

    fn take(&self, path: &str) -> Bytes {
        self.served.lock().unwrap().objects.remove(path).expect("it was there")
    }

    fn set_down(&self, down: bool) {
        self.served.lock().unwrap().down = down;
    }

    fn as_peer(&self) -> Mirror {
        Mirror { url: self.url.clone(), log: log_vkey(), cosigner: None }
    }

    /// The same in a configuration.
    fn as_section(&self) -> PeerSection {
        PeerSection {
            url: self.url.clone(),
            log: log_vkey().to_string(),
            cosigner: None,
            peer_key: None,
            share_addresses: false,
        }
    }

    fn source(&self) -> LogSource {
        LogSource::new(&self.url, log_vkey()).unwrap()
    }
}

async fn answer(
    State(served): State<Arc<Mutex<Served>>>,
    OriginalUri(uri): OriginalUri,
) -> Response {
    let path = uri.path().trim_start_matches('/');
    let is_mute = {
        let mut served = served.lock().unwrap();
        *served.asked.entry(path.to_owned()).or_default() += 1;
        served.mute.as_deref().is_some_and(|mute| path.starts_with(mute))
    };
    if is_mute {
        std::future::pending::<()>().await;
    }
    let served = served.lock().unwrap();
    if served.down {
        return (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")]).into_response();
    }
    if served.withdrawn.contains(path) {
        return StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS.into_response();
    }
    match served.objects.get(path) {
        Some(bytes) => bytes.clone().into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

fn leaves(entries: &[Bytes]) -> Vec<Hash> {
    entries.iter().map(|entry| leaf_hash(entry)).collect()
}

/// The checkpoint over these entries, signed by the log.
fn signed(entries: &[Bytes]) -> SignedCheckpoint {
    let root = root_from_leaves(&leaves(entries));
    let checkpoint = Checkpoint::new(ORIGIN, entries.len() as u64, root).unwrap();
    checkpoint.sign(&log_key(), at(0)).unwrap()
}

fn request(entries: &[Bytes], old: u64) -> AddCheckpoint {
    let leaves = leaves(entries);
    let proof = match old {
        0 => Vec::new(),
        old => merkle::consistency_proof(&leaves[..], old, leaves.len() as u64).unwrap(),
    };
    AddCheckpoint { old, proof, checkpoint: signed(entries) }
}

fn options(mirrors: Vec<Mirror>) -> Options {
    Options { mirrors, poll: Duration::from_millis(50), ..Options::new(Vec::new()) }
}

/// A domain whose record nothing protects.
fn first(org: &Org) -> Draft {
    org.draft(&[Event::FirstSeen], Dnssec::Indeterminate)
}

/// A log of two domains and a mailbox, its last root at minute 2.
fn small() -> MiniLog {
    let [one, two, _] = orgs();
    let mut log = MiniLog::new();
    log.batch(at(MINUTE), [first(&one)]);
    let alice =
        one.user("alice@one.example", &key(syndicate::dime::key::Owner::User, 1), None, None);
    let alice = one.user_draft("alice@one.example", &alice, Event::FirstSeen, at(MINUTE));
    log.batch(at(2 * MINUTE), [first(&two), alice]);
    log
}

/// A mirror that follows only the rogue log.
async fn judge(rogue: &Rogue, place: &mut Place) -> (Node, Clock) {
    let clock = Clock::manual(at(2 * MINUTE));
    let node = Node::start(place, &clock, options(vec![rogue.as_peer()]), 0).await;
    (node, clock)
}

/// The small log, served, and a mirror that follows it.
async fn judging() -> (Rogue, MiniLog, Place, Node, Clock) {
    let (rogue, log) = (Rogue::start().await, small());
    rogue.serve(&log);
    let mut place = Place::new("judge.example/log", 9).await;
    let (node, clock) = judge(&rogue, &mut place).await;
    (rogue, log, place, node, clock)
}

fn words(answer: &Answer) -> String {
    String::from_utf8_lossy(&answer.body).into_owned()
}

/// Every receipt of a syndicate is made at a head that its peers have cosigned.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_mirrors_cosign_each_other() {
    let clock = Clock::manual(at(0));
    let mut places = Vec::new();
    for (seed, name) in [(1, "a.example/log"), (2, "b.example/log"), (3, "c.example/log")] {
        places.push(Place::new(name, seed).await);
    }
    let all: Vec<Mirror> = places.iter().map(Place::as_peer).collect();
    let keys: Vec<VerifierKey> = places.iter().map(|place| place.cosigner().verifier()).collect();
    let mut nodes = Vec::new();
    for (own, place) in places.iter_mut().enumerate() {
        let others = all.iter().enumerate().filter(|(n, _)| *n != own);
        let others = others.map(|(_, mirror)| mirror.clone()).collect();
        let mut options = options(others);
        if own == 1 {
            options.maps = directory::Place::Disk(place.folder.path().into());
        }
        nodes.push(Node::start(place, &clock, options, 2).await);
    }
    clock.set(at(1000));
    let [one, two, _] = orgs();
    for (node, org) in nodes.iter().zip([&one, &two, &one]) {
        let placed = node.log.submit_urgent(first(org)).await.unwrap();
        let note = node.log.reader().checkpoint().unwrap();
        let note = SignedCheckpoint::parse(&note).unwrap();
        assert_eq!(note.checkpoint().size, placed.size);
        let own = format!("{}/cosigner", node.log.record().origin);
        let others: Vec<&VerifierKey> = keys.iter().filter(|key| key.name() != own).collect();
        assert_eq!(note.verify(others.clone()).unwrap().len(), 2, "published with both");
        // A client that knows the others accepts it, and asks for both.
        let policy = format!(
            "log {}\nwitness x {}\nwitness y {}\ngroup g 2 x y\nquorum g\n",
            VerifierKey::ed25519(&node.log.record().origin, &node.log.record().log_key).unwrap(),
            others[0],
            others[1],
        );
        let policy = Policy::parse(policy.as_bytes()).unwrap();
        assert!(policy.evaluate(&note, clock.now()).unwrap().accepted());
    }
    for node in &nodes {
        assert!(node.accusations().is_empty(), "{:?}", node.accusations());
        for peer in &node.peers {
            let mut watch = peer.watch();
            tokio::time::timeout(PATIENCE, watch.wait_for(|now| now.status == Status::Good))
                .await
                .expect("it becomes good")
                .unwrap();
            let theirs = nodes.iter().find(|n| n.log.record().origin == peer.origin()).unwrap();
            let served = theirs.log.directory().served();
            let map = peer.map();
            assert_eq!(map.committed().root, served.root, "the same directory");
            let on_disk = node.log.record().origin == places[1].name;
            assert_eq!(map.bytes_on_disk() > 0, on_disk);
        }
    }
    // For monitors: what was cosigned last.
    let origin = nodes[0].log.record().origin.clone();
    let path = format!("{}/checkpoint", hex::encode(sha2_of(origin.as_bytes())));
    let note = nodes[1].site.get(&path, 1 << 16).await.unwrap();
    let note = SignedCheckpoint::parse(&note.body).unwrap();
    assert_eq!(note.note().signatures().len(), 2);
    assert_eq!(note.verify([&keys[1]]).unwrap().len(), 1);
}

fn sha2_of(bytes: &[u8]) -> Hash {
    Blob::of(bytes).sha256
}

#[tokio::test]
async fn every_status_of_add_checkpoint() {
    let rogue = Rogue::start().await;
    let log = small();
    let before = log.entries[..4].to_vec();
    rogue.serve(&log);
    let mut place = Place::new("judge.example/log", 9).await;
    let (node, clock) = judge(&rogue, &mut place).await;
    let all = &log.entries;
    let size = all.len() as u64;
    let status = async |body: String| node.add_checkpoint(body).await;

    // 400: no request, and an old size above the new one.
    assert_eq!(status("garbage".into()).await.status, 400);
    assert_eq!(status(String::new()).await.status, 400);
    let above = AddCheckpoint { old: size + 1, ..request(all, 0) };
    assert_eq!(status(above.to_string()).await.status, 400);
    // 413 names the limit of this path.
    let large = status(" ".repeat(MAX_ADD_CHECKPOINT + 1)).await;
    assert_eq!(large.status, 413);
    assert!(words(&large).contains(&format!("more than {MAX_ADD_CHECKPOINT} bytes")));
    // 404: another log, whoever signed.
    let other = SigningKey::ed25519("other.example/log", &LOG_SEED).unwrap();
    let foreign = Checkpoint::new("other.example/log", size, [7; 32]).unwrap();
    let foreign = foreign.sign(&other, at(0)).unwrap();
    let foreign = AddCheckpoint { old: 0, proof: vec![], checkpoint: foreign };
    assert_eq!(status(foreign.to_string()).await.status, 404);
    // 403: not signed, or by another key under the same name, or wrongly.
    let twin = SigningKey::ed25519(ORIGIN, &[77; 32]).unwrap();
    let by_twin = signed(all).checkpoint().sign(&twin, at(0)).unwrap();
    let by_twin = AddCheckpoint { checkpoint: by_twin, ..request(all, 0) };
    assert_eq!(status(by_twin.to_string()).await.status, 403);
    let wrong = request(all, 0).to_string();
    let (head, signature) = wrong.trim_end().rsplit_once(' ').unwrap();
    let changed = if signature.as_bytes()[8] == b'A' { 'B' } else { 'A' };
    let spoilt = format!("{head} {}{changed}{}\n", &signature[..8], &signature[9..]);
    assert_eq!(status(spoilt).await.status, 403);
    // 409: it has cosigned nothing yet, and says so.
    let early = status(request(all, 4).to_string()).await;
    assert_eq!((early.status, words(&early).as_str()), (409, "0\n"));
    // 422: nothing is needed to come from nothing.
    let proof = AddCheckpoint { proof: vec![[1; 32]], ..request(all, 0) };
    assert_eq!(status(proof.to_string()).await.status, 422);
    let empty = Checkpoint::new(ORIGIN, 0, [1; 32]).unwrap().sign(&log_key(), at(0)).unwrap();
    let empty = AddCheckpoint { old: 0, proof: vec![], checkpoint: empty };
    assert_eq!(status(empty.to_string()).await.status, 422);

    // 200, and the line verifies.
    node.until_good(size).await;
    clock.set(at(MINUTE + 1000));
    let good = request(&before, 0);
    let answer = status(good.to_string()).await;
    assert_eq!(answer.status, 200, "{}", words(&answer));
    let whole = format!("{}{}", good.checkpoint, words(&answer));
    let cosigned = SignedCheckpoint::parse(whole.as_bytes()).unwrap();
    let cosigner = place.cosigner().verifier();
    let verified = cosigned.verify([&cosigner]).unwrap();
    assert_eq!(verified[0].time.unwrap().secs(), clock.now().secs());
    assert_eq!(words(&answer).lines().count(), 1);
    // It was remembered before it was said.
    let guard = std::fs::read_to_string(place.guard()).unwrap();
    assert!(guard.contains(&format!("cosigned {ORIGIN} 4 ")), "{guard}");
    // 409 with the new size; the media type is the standard's.
    let again = status(request(all, 0).to_string()).await;
    assert_eq!((again.status, words(&again).as_str()), (409, "4\n"));
    let raw = reqwest_of(&node, request(all, 0).to_string()).await;
    assert_eq!(raw, "text/x.tlog.size");
    // 422: a proof that does not verify.
    let mut bad = request(all, 4);
    bad.proof[0][0] ^= 1;
    assert_eq!(status(bad.to_string()).await.status, 422);
    // 503: right, but of another time than ours; nobody is accused.
    clock.set(at(2 * MINUTE + 301_000));
    let behind = status(request(all, 4).to_string()).await;
    assert_eq!((behind.status, behind.retry_after), (503, Some(5)));
    clock.set(at(2 * MINUTE).minus_for_test(301_000));
    let ahead = status(request(all, 4).to_string()).await;
    assert_eq!((ahead.status, ahead.retry_after), (503, Some(60)));
    clock.set(at(2 * MINUTE));
    assert_eq!(status(request(all, 4).to_string()).await.status, 200);
    // The same once more: a fresh time, an empty proof.
    assert_eq!(status(request(all, size).to_string()).await.status, 200);
    // 503: a tree that we cannot have followed, since nobody serves it.
    let mut longer = small();
    longer.batch(at(2 * MINUTE + 500), []);
    let unserved = status(request(&longer.entries, size).to_string()).await;
    assert_eq!((unserved.status, unserved.retry_after), (503, Some(1)));
    // No root at its end: a size inside a batch.
    assert!(node.accusations().is_empty(), "{:?}", node.accusations());
    let missing = node.site.get(&format!("{}/checkpoint", "00".repeat(32)), 100).await.unwrap();
    assert_eq!(missing.status, 404);
    let path = format!("{}/checkpoint", hex::encode(sha2_of(ORIGIN.as_bytes())));
    let note = node.site.get(&path, 1 << 16);
    let note = SignedCheckpoint::parse(&note.await.unwrap().body).unwrap();
    assert_eq!(note.checkpoint().size, size);
    assert_eq!(note.verify([&cosigner, &log_vkey()]).unwrap().len(), 2);
}

/// Content type of the answer to a request to cosign.
async fn reqwest_of(node: &Node, body: String) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let address = node.site.url().trim_start_matches("http://").trim_end_matches('/').to_owned();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /add-checkpoint HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let line = answer.lines().find_map(|line| line.strip_prefix("content-type: "));
    line.expect("a content type").to_owned()
}

trait Back {
    fn minus_for_test(self, millis: u64) -> Timestamp;
}

impl Back for Timestamp {
    fn minus_for_test(self, millis: u64) -> Timestamp {
        Timestamp::from_millis(self.millis() - millis)
    }
}

/// Two histories: shown one after the other, of one size and of two.
#[tokio::test]
async fn a_forked_log_is_convicted_and_not_cosigned_again() {
    for longer in [false, true] {
        let rogue = Rogue::start().await;
        let log = small();
        rogue.serve(&log);
        let mut place = Place::new("judge.example/log", 9).await;
        let (node, clock) = judge(&rogue, &mut place).await;
        let size = log.entries.len() as u64;
        node.until_good(size).await;
        assert_eq!(node.add_checkpoint(request(&log.entries, 0).to_string()).await.status, 200);

        let [one, _, three] = orgs();
        let mut other = MiniLog::new();
        other.batch(at(MINUTE), [first(&one)]);
        other.batch(at(2 * MINUTE), [first(&three)]);
        other.batch(at(2 * MINUTE), []);
        if longer {
            other.batch(at(2 * MINUTE), []);
        } else {
            assert_eq!(other.entries.len() as u64, size);
        }
        rogue.serve(&other);
        let found = node.until(|now| matches!(now.status, Status::Fault(_))).await;
        assert!(found.status.to_string().contains("fork"), "{}", found.status);
        assert_eq!(node.accusations(), [IncidentKind::LogFork]);
        let incident = node.filed.0.lock().unwrap()[0].clone();
        let findings = verify_incident(&incident, &[], None).unwrap();
        assert!(findings.convicts.is_some(), "{findings:?}");
        let Evidence::Fork(fork) = &incident.evidence else { panic!("{incident:?}") };
        assert_eq!((fork.smaller.checkpoint().size, &fork.key), (size, &log_vkey()));

        // It sticks: on the old history too, and over a restart.
        let refused = node.add_checkpoint(request(&log.entries, size).to_string()).await;
        assert_eq!(refused.status, 403, "{}", words(&refused));
        rogue.serve(&log);
        let store = node.stop().await;
        let again =
            Node::start_on(&mut place, &clock, options(vec![rogue.as_peer()]), 0, store).await;
        again.until(|now| matches!(now.status, Status::Fault(_))).await;
        assert!(again.accusations().is_empty(), "raised once");
        // Until the operator clears it; the history that we cosigned goes on.
        assert!(again.peers[0].archive().clear_fault().await.unwrap());
        again.until_good(size).await;
        let answer = again.add_checkpoint(request(&log.entries, size).to_string()).await;
        assert_eq!(answer.status, 200, "{}", words(&answer));
    }
}

/// A log that was set back to a backup and goes on from there: of what it signed it
/// has not a tile any more, and what was kept of it here proves the fork.
#[tokio::test]
async fn a_log_that_was_set_back_is_convicted_by_what_was_kept() {
    let rogue = Rogue::start().await;
    let mut log = small();
    log.batch(at(2 * MINUTE), []);
    rogue.serve(&log);
    let mut place = Place::new("judge.example/log", 9).await;
    let (node, _clock) = judge(&rogue, &mut place).await;
    let size = log.entries.len() as u64;
    node.until_good(size).await;

    let [one, _, three] = orgs();
    let mut other = MiniLog::new();
    other.batch(at(MINUTE), [first(&one)]);
    other.batch(at(2 * MINUTE), [first(&three)]);
    let shorter = other.entries.len() as u64;
    assert!(shorter < size);
    rogue.served.lock().unwrap().objects.clear();
    rogue.serve(&other);
    let found = node.until(|now| matches!(now.status, Status::Fault(_))).await;
    assert!(found.status.to_string().contains("fork"), "{}", found.status);
    assert_eq!(node.accusations(), [IncidentKind::LogFork]);
    let incident = node.filed.0.lock().unwrap()[0].clone();
    let findings = verify_incident(&incident, &[], None).unwrap();
    assert!(findings.convicts.is_some(), "{findings:?}");
    let Evidence::Fork(fork) = &incident.evidence else { panic!("{incident:?}") };
    let sizes = [&fork.smaller, &fork.larger].map(|signed| signed.checkpoint().size);
    assert_eq!(sizes, [shorter, size]);
}

/// A witness that is asked for the second history finds the fork by that.
#[tokio::test]
async fn a_second_history_given_to_a_cosigner_is_found() {
    let (_rogue, log, _place, node, _clock) = judging().await;
    let size = log.entries.len() as u64;
    node.until_good(size).await;
    assert_eq!(node.add_checkpoint(request(&log.entries, 0).to_string()).await.status, 200);
    let mut other = log.entries.clone();
    other[3] = Bytes::from_static(b"something else");
    let answer = node.add_checkpoint(request(&other, size).to_string()).await;
    assert_eq!(answer.status, 422);
    node.until(|now| matches!(now.status, Status::Fault(_))).await;
    assert_eq!(node.accusations(), [IncidentKind::LogFork]);
}

/// What is found while a request is being looked at counts for it.
#[tokio::test]
async fn a_fault_found_meanwhile_is_not_cosigned() {
    let rogue = Rogue::start().await;
    let log = small();
    rogue.serve(&log);
    let mut place = Place::new("judge.example/log", 9).await;
    let clock = Clock::manual(at(2 * MINUTE));
    let faults = Faults::new();
    let store = faults.wrap(&Store::folder(&place.folder.path().join("blobs")).unwrap());
    let node = Node::start_on(&mut place, &clock, options(vec![rogue.as_peer()]), 0, store).await;
    let size = log.entries.len() as u64;
    node.until_good(size).await;
    // The last leaf is read, for its time.
    let gate = faults.gate(Operation::Read, &format!("private/{}/tile/", peer_folder()), 0);
    let found = async {
        gate.reached().await;
        let mut other = log.entries.clone();
        other[3] = Bytes::from_static(b"something else");
        rogue.serve_entries(&other);
        node.until(|now| matches!(now.status, Status::Fault(_))).await;
        gate.open();
    };
    let request = request(&log.entries, 0).to_string();
    let (answer, ()) = tokio::join!(node.add_checkpoint(request), found);
    assert_eq!(answer.status, 403, "{}", words(&answer));
    assert!(node.log.guard().read().unwrap().is_none_or(|marks| marks.cosigned.is_empty()));
}

/// A peer that is followed further while a smaller tree of it is looked at: its
/// partial tiles are gone then, and those of the larger one do.
#[tokio::test]
async fn a_request_for_a_tree_that_has_just_grown_is_cosigned() {
    let rogue = Rogue::start().await;
    let mut log = small();
    rogue.serve(&log);
    let mut place = Place::new("judge.example/log", 9).await;
    let clock = Clock::manual(at(2 * MINUTE));
    let faults = Faults::new();
    let store = faults.wrap(&Store::folder(&place.folder.path().join("blobs")).unwrap());
    let node = Node::start_on(&mut place, &clock, options(vec![rogue.as_peer()]), 0, store).await;
    let size = log.entries.len() as u64;
    node.until_good(size).await;
    let request = request(&log.entries, 0).to_string();
    log.batch(at(2 * MINUTE), []);
    let bundle = BundleCoordinate { index: 0, width: size as u16 }.path();
    let gate = faults.gate(Operation::Read, &format!("private/{}/{bundle}", peer_folder()), 0);
    let grown = async {
        gate.reached().await;
        rogue.serve(&log);
        node.until_good(size + 1).await;
        let archive = node.peers[0].archive();
        until_async(async || archive.resource(&bundle).await.unwrap().is_none()).await;
        gate.open();
    };
    let (answer, ()) = tokio::join!(node.add_checkpoint(request), grown);
    assert_eq!(answer.status, 200, "{}", words(&answer));
}

/// A log that shows a history to each cosigner, and every one but one history: they
/// tell each other, and both convict it, whichever of them was shown the longer one.
#[tokio::test]
async fn two_histories_of_two_cosigners_are_found() {
    for longer in [false, true] {
        let histories = [small(), other_history(longer)];
        let [size, other_size] = histories.each_ref().map(|log| log.entries.len() as u64);
        assert_eq!(other_size > size, longer);
        let rogues = [Rogue::start().await, Rogue::start().await];
        // The second one has nothing to tell before the first one has cosigned.
        rogues[1].set_down(true);
        let clock = Clock::manual(at(2 * MINUTE));
        let mut places =
            [Place::new("b.example/log", 8).await, Place::new("c.example/log", 9).await];
        let peers = places.each_ref().map(Place::as_peer);
        let mut nodes = Vec::new();
        for (n, place) in places.iter_mut().enumerate() {
            rogues[n].serve(&histories[n]);
            let mirrors = vec![rogues[n].as_peer(), peers[1 - n].clone()];
            nodes.push(Node::start(place, &clock, options(mirrors), 0).await);
        }
        nodes[0].until_good(size).await;
        let cosigned = nodes[0].add_checkpoint(request(&histories[0].entries, 0).to_string());
        assert_eq!(cosigned.await.status, 200);
        rogues[1].set_down(false);
        // The second one may have heard of it by now, or not.
        nodes[1].add_checkpoint(request(&histories[1].entries, 0).to_string()).await;
        for node in &nodes {
            let found = node.until(|now| matches!(now.status, Status::Fault(_))).await;
            assert!(found.status.to_string().contains("fork"), "{}", found.status);
            until(|| !node.accusations().is_empty()).await;
            assert_eq!(node.accusations(), [IncidentKind::LogFork]);
            let incident = node.filed.0.lock().unwrap()[0].clone();
            let findings = verify_incident(&incident, &[], None).unwrap();
            assert!(findings.convicts.is_some(), "{findings:?}");
        }
    }
}

/// A log that keeps its follower busy without end, by trees whose tiles never come, is
/// convicted all the same by what another mirror was shown.
#[tokio::test]
async fn a_log_that_draws_everything_out_is_convicted() {
    for longer in [false, true] {
        let rogues = [Rogue::start().await, Rogue::start().await];
        let (log, other) = (small(), other_history(longer));
        rogues[0].serve(&log);
        rogues[1].serve(&other);
        rogues[1].set_down(true);
        let clock = Clock::manual(at(2 * MINUTE));
        let mut places =
            [Place::new("b.example/log", 8).await, Place::new("c.example/log", 9).await];
        let mirrors = options(vec![rogues[1].as_peer()]);
        let shown = Node::start(&mut places[1], &clock, mirrors, 0).await;
        let mirrors = options(vec![rogues[0].as_peer(), places[1].as_peer()]);
        let node = Node::start(&mut places[0], &clock, mirrors, 0).await;
        let size = log.entries.len() as u64;
        node.until_good(size).await;
        assert_eq!(node.add_checkpoint(request(&log.entries, 0).to_string()).await.status, 200);

        rogues[0].served.lock().unwrap().mute = Some("tile/".into());
        let huge = Checkpoint::new(ORIGIN, 1 << 60, [7; 32]).unwrap();
        let huge = AddCheckpoint {
            old: size,
            proof: vec![[7; 32]],
            checkpoint: huge.sign(&log_key(), at(0)).unwrap(),
        };
        let asked = |rogue: &Rogue| rogue.served.lock().unwrap().asked.clone();
        let before = asked(&rogues[0]);
        // One that is looked into, and as many as may wait.
        let tiles = || {
            asked(&rogues[0]).into_iter().any(|(path, n)| {
                path.starts_with("tile/") && before.get(&path).copied().unwrap_or(0) < n
            })
        };
        assert_eq!(node.add_checkpoint(huge.to_string()).await.status, 422);
        until(tiles).await;
        for _ in 0..8 {
            assert_eq!(node.add_checkpoint(huge.to_string()).await.status, 422);
        }
        rogues[1].set_down(false);
        shown.until_good(other.entries.len() as u64).await;
        let found = node.until(|now| matches!(now.status, Status::Fault(_))).await;
        assert!(found.status.to_string().contains("fork"), "{}", found.status);
        until(|| !node.accusations().is_empty()).await;
        assert_eq!(node.accusations(), [IncidentKind::LogFork]);
        let incident = node.filed.0.lock().unwrap()[0].clone();
        assert!(verify_incident(&incident, &[], None).unwrap().convicts.is_some());
    }
}

/// A log as long as `small`, or longer, that is another one.
fn other_history(longer: bool) -> MiniLog {
    let [one, _, three] = orgs();
    let mut other = MiniLog::new();
    other.batch(at(MINUTE), [first(&one)]);
    other.batch(at(2 * MINUTE), [first(&three)]);
    for _ in 0..1 + u64::from(longer) {
        other.batch(at(2 * MINUTE), []);
    }
    other
}

/// What a mirror says of another's log counts with the log's signature under it, and
/// with the tiles that show the fork; and the operator's word about that lasts.
#[tokio::test]
async fn a_mirror_that_lies_about_a_log_accuses_nobody() {
    let (rogue, liar) = (Rogue::start().await, Rogue::start().await);
    let log = small();
    rogue.serve(&log);
    let size = log.entries.len() as u64;
    let folder = hex::encode(sha2_of(ORIGIN.as_bytes()));
    let (followed, cosigned) = (format!("{folder}/followed"), format!("{folder}/checkpoint"));
    let other = other_history(true);
    let theirs = signed(&other.entries);
    let by_twin = SigningKey::ed25519(ORIGIN, &[77; 32]).unwrap();
    let by_twin = theirs.checkpoint().sign(&by_twin, at(0)).unwrap();
    liar.put(followed.clone(), by_twin.to_string().into_bytes().into());
    liar.put(cosigned.clone(), Bytes::from_static(b"garbage"));
    let mut place = Place::new("judge.example/log", 9).await;
    let clock = Clock::manual(at(2 * MINUTE));
    let key = SigningKey::ed25519("liar.example/log", &[66; 32]).unwrap().verifier();
    let mirrors = vec![rogue.as_peer(), Mirror { log: key, ..liar.as_peer() }];
    let node = Node::start(&mut place, &clock, options(mirrors), 0).await;
    node.until_good(size).await;
    let rounds = async |count: u64| {
        let seen = liar.asked(&followed);
        until(|| liar.asked(&followed) >= seen + count).await;
    };
    rounds(3).await;
    // It is signed, but no tiles show what it is to the one that was followed.
    liar.put(cosigned.clone(), theirs.to_string().into_bytes().into());
    rounds(3).await;
    assert_eq!(node.accusations(), []);
    assert_eq!(node.peers[0].standing().status, Status::Good);
    // Now they do.
    for (path, bytes) in Rogue::tree(&other.entries) {
        liar.put(format!("{folder}/{path}"), bytes);
    }
    node.until(|now| matches!(now.status, Status::Fault(_))).await;
    until(|| node.accusations() == [IncidentKind::LogFork]).await;
    let archive = node.peers[0].archive();
    until_async(async || archive.is_held_against(theirs.checkpoint()).await.unwrap()).await;
    assert!(archive.clear_fault().await.unwrap());
    node.until_good(size).await;
    rounds(3).await;
    assert_eq!(node.peers[0].standing().status, Status::Good);
    assert_eq!(node.accusations(), [IncidentKind::LogFork]);
}

/// What one lie in a log leads to.
async fn judged(
    log: &MiniLog,
    entries: &[Bytes],
    anchors: Vec<Anchor>,
    now: Timestamp,
) -> (Status, Vec<Incident>, u16) {
    let rogue = Rogue::start().await;
    rogue.serve(log);
    rogue.serve_entries(entries);
    let mut place = Place::new("judge.example/log", 9).await;
    let clock = Clock::manual(now);
    let node_anchors = anchors.clone();
    let options = Options { anchors, ..options(vec![rogue.as_peer()]) };
    let node = Node::start(&mut place, &clock, options, 0).await;
    let settled = |now: &Standing| !matches!(now.status, Status::Starting | Status::Behind);
    let status = node.until(settled).await.status;
    let cosigned = node.add_checkpoint(request(entries, 0).to_string()).await.status;
    let filed = node.filed.0.lock().unwrap().clone();
    for incident in &filed {
        let findings = verify_incident(incident, &node_anchors, None).unwrap();
        let rule = rule(std::slice::from_ref(incident));
        assert!(findings.convicts.is_some(), "{rule}: {findings:?}");
    }
    (status, filed, cosigned)
}

fn rule(accusations: &[Incident]) -> &str {
    match &accusations[0].evidence {
        Evidence::Entries(entries) => &entries.rule,
        other => panic!("{other:?}"),
    }
}

/// Each is found, named by its rule, with the entry proved to be in the signed
/// tree, and never cosigned.
#[tokio::test]
async fn a_broken_rule_is_convicted() {
    let log = small();
    let wrong_root = |change: &dyn Fn(&mut DirectoryRoot, &mut Timestamp)| {
        let mut entries = log.entries.clone();
        let last = entries.pop().unwrap();
        let Entry { kind: Kind::Root(mut root), mut time, .. } = Entry::decode(&last).unwrap()
        else {
            panic!("a root")
        };
        change(&mut root, &mut time);
        entries.push(Entry::new(time, Kind::Root(root)).encode().into());
        entries
    };
    let forged = wrong_root(&|root, _| root.root[0] ^= 1);
    let counted = wrong_root(&|root, _| root.labels += 1);
    // Back-dated before the root before it.
    let backdated = wrong_root(&|_, time| *time = at(1));
    let cut = log.entries[..5].to_vec();
    // One more entry than the root covers; and one that is covered, of a version
    // that was before.
    let mut more = log.entries.clone();
    more.insert(5, more[2].clone());
    let mut again = wrong_root(&|root, _| root.covered += 1);
    again.insert(5, again[2].clone());
    for (entries, expected) in [
        (forged, "directory-root"),
        (counted, "labels"),
        (backdated, "too-old"),
        (cut, "no-root"),
        (more, "covered"),
        (again, "version"),
    ] {
        let (status, accusations, cosigned) =
            judged(&log, &entries, Vec::new(), at(2 * MINUTE)).await;
        assert!(matches!(status, Status::Fault(_)), "{expected}: {status}");
        assert_eq!(rule(&accusations), expected);
        assert_eq!(cosigned, 403, "{expected}");
    }
}

/// A log that lies and gives out no tile any more is convicted by its entries,
/// which make the tree that it signed.
#[tokio::test]
async fn a_liar_without_tiles_is_convicted() {
    let log = small();
    let mut entries = log.entries.clone();
    let Kind::Root(mut root) = Entry::decode(entries.last().unwrap()).unwrap().kind else {
        panic!("a root")
    };
    root.root[0] ^= 1;
    *entries.last_mut().unwrap() = Entry::new(log.time, Kind::Root(root)).encode().into();
    let rogue = Rogue::start().await;
    rogue.serve(&log);
    rogue.serve_entries(&entries);
    let is_tile = |path: &str| path.starts_with("tile/") && !path.starts_with("tile/entries/");
    rogue.served.lock().unwrap().objects.retain(|path, _| !is_tile(path));
    let mut place = Place::new("judge.example/log", 9).await;
    let (node, _clock) = judge(&rogue, &mut place).await;
    node.until(|now| matches!(now.status, Status::Fault(_))).await;
    assert_eq!(node.accusations(), [IncidentKind::DirectoryRootWrong]);
    let incident = node.filed.0.lock().unwrap()[0].clone();
    let findings = verify_incident(&incident, &[], None).unwrap();
    assert!(findings.convicts.is_some(), "{findings:?}");
}

/// A rule that takes the label's version before to see is proved with the entry of
/// that version, from what was kept of the log, and at the first look.
#[tokio::test]
async fn an_entry_kept_long_ago_proves_a_rule() {
    let (rogue, mut log, _place, node, _clock) = judging().await;
    (0..600).for_each(|_| log.close(at(2 * MINUTE)));
    rogue.serve(&log);
    node.until_good(log.entries.len() as u64).await;
    let index = log.entries.len();
    log.batch(at(2 * MINUTE), [orgs()[0].gone(&[Event::RecordExpired])]);
    let Entry { kind: Kind::Domain(mut gone), time, .. } =
        Entry::decode(&log.entries[index]).unwrap()
    else {
        panic!("a domain")
    };
    assert_eq!(gone.current, 0);
    gone.current = 1;
    let lie = Entry::new(time, Kind::Domain(gone)).encode();
    let mut entries = log.entries.clone();
    entries[index] = lie.into();
    rogue.serve_entries(&entries);
    let settled = |now: &Standing| {
        matches!(now.status, Status::Fault(_) | Status::Condition(Condition::Ours(_)))
    };
    let status = node.until(settled).await.status;
    assert!(matches!(status, Status::Fault(_)), "{status}");
    assert_eq!(node.accusations(), [IncidentKind::RuleBroken]);
    let incident = node.filed.0.lock().unwrap()[0].clone();
    let read = Incident::read(&incident.to_bytes()).unwrap();
    let findings = verify_incident(&read, &[], None).unwrap();
    assert!(findings.convicts.is_some(), "{findings:?}");
    let Evidence::Entries(shown) = &read.evidence else { panic!("{read:?}") };
    assert_eq!(shown.rule, "current");
    let places: Vec<u64> = shown.leaves.iter().map(|placed| placed.index).collect();
    assert_eq!(places, [2, index as u64]);
    let refused = node.add_checkpoint(request(&entries, 0).to_string()).await;
    assert_eq!(refused.status, 403, "{}", words(&refused));
}

/// A log with more labels in one batch than a file holds, and another root than they
/// make.
fn too_large_for_a_file() -> MiniLog {
    let mut log = MiniLog::new();
    let user = |number: u32| {
        let mut label = [0; 32];
        label[..4].copy_from_slice(&number.to_be_bytes());
        UserObservation {
            label: Label(label),
            version: 1,
            current: 1,
            commitment: [1; 32],
            events: Events::of(&[Event::FirstSeen]),
            held_until: None,
            coalesced: None,
        }
    };
    let users = (0..5000).map(|number| Entry::new(at(MINUTE), Kind::User(user(number))).encode());
    log.entries.extend(users.map(Bytes::from));
    log.close(at(MINUTE));
    log
}

/// What an incident cannot prove by itself is looked at twice, and is then the word
/// of the mirror that filed it: a batch that is too large to be shown, and a leaf
/// whose path nobody gives out.
#[tokio::test]
async fn what_is_not_proved_is_filed_as_testimony() {
    let large = too_large_for_a_file();
    let (counted, index) = (large.entries.clone(), large.entries.len() - 1);
    // More than a page: only the log has the tiles of its end.
    let mut log = MiniLog::new();
    log.batch(at(MINUTE), [first(&orgs()[0])]);
    let mut no_entry = log.entries.clone();
    no_entry.resize(16_400, Bytes::from_static(b"no entry"));
    let first_bad = log.entries.len();
    for (log, entries, index, kind, rule, has_path) in [
        (large, counted, index, IncidentKind::DirectoryRootWrong, "labels", true),
        (log, no_entry, first_bad, IncidentKind::RuleBroken, "wire-value", false),
    ] {
        let rogue = Rogue::start().await;
        rogue.serve(&log);
        rogue.serve_entries(&entries);
        if !has_path {
            rogue.take("tile/0/000");
        }
        let mut place = Place::new("judge.example/log", 9).await;
        let (node, _clock) = judge(&rogue, &mut place).await;
        node.until(|now| matches!(now.status, Status::Condition(Condition::Ours(_)))).await;
        assert!(node.accusations().is_empty(), "{rule}");
        node.until(|now| matches!(now.status, Status::Fault(_))).await;
        assert_eq!(node.accusations(), [kind], "{rule}");
        let incident = node.filed.0.lock().unwrap()[0].clone();
        let findings = verify_incident(&incident, &[], None).unwrap();
        assert_eq!(findings.convicts, None, "{rule}");
        let Evidence::Entries(shown) = &incident.evidence else { panic!("{incident:?}") };
        assert_eq!(shown.rule, rule);
        let [only] = &shown.leaves[..] else { panic!("{:?}", shown.leaves) };
        assert_eq!((only.index, &only.leaf.entry), (index as u64, &entries[index]));
        assert_eq!(!only.leaf.path.is_empty(), has_path, "{rule}");
        let refused = node.add_checkpoint(request(&entries, 0).to_string()).await;
        assert_eq!(refused.status, 403, "{rule}: {}", words(&refused));
    }
}

/// A map of ours that is damaged convicts nobody: it is made again from the entries.
#[tokio::test]
async fn a_damaged_map_accuses_nobody() {
    let (rogue, mut log, mut place, node, clock) = judging().await;
    let size = log.entries.len() as u64;
    node.until_good(size).await;
    let archive = node.peers[0].archive().clone();
    let store = node.stop().await;

    // A snapshot that fits its root and has lost what is in force, which is not
    // under the root.
    let changes = (0..).zip(&log.entries);
    let changes = changes.filter_map(|(at, entry)| Change::of(at, entry.clone()).unwrap());
    let mut changes: Vec<Change> = changes
        .map(|change| Change { current: 0, what: replay::What::Unknown, ..change })
        .collect();
    changes.sort_by_key(|change| (change.label, change.index));
    let map = Arc::new(directory::Directory::new(directory::Options {
        follow: true,
        ..directory::Options::default()
    }));
    let head = (&mut &*map).apply(&changes).unwrap();
    assert_eq!(head.root, log.map.root());
    let mut notes = Writer::new();
    notes.uint(1, size).uint(2, log.time.millis()).bytes(3, &log.vrf.public());
    let batch = map.committed().batch;
    directory::write(&map, archive.blobs(), batch, size, &notes.finish()).await.unwrap();

    // Honest, and against that map it looks as if there were nothing to expire.
    log.batch(at(2 * MINUTE), [orgs()[0].gone(&[Event::RecordExpired])]);
    rogue.serve(&log);
    let mirrors = options(vec![rogue.as_peer()]);
    let node = Node::start_on(&mut place, &clock, mirrors, 0, store).await;
    node.until(|now| matches!(now.status, Status::Condition(Condition::Ours(_)))).await;
    node.until_good(log.entries.len() as u64).await;
    assert!(node.accusations().is_empty(), "{:?}", node.accusations());
    let answer = node.add_checkpoint(request(&log.entries, 0).to_string()).await;
    assert_eq!(answer.status, 200, "{}", words(&answer));
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Timestamp::from_millis(since.as_millis() as u64)
}

/// Threat 15: what an entry says of DNSSEC must be proved by what it names.
#[tokio::test]
async fn evidence_behind_an_entry_is_verified() {
    let [one, two, _] = orgs();
    let dns =
        PrivateDns::builder().signed("one.example").unsigned("two.example").start().await.unwrap();
    for org in [&one, &two] {
        dns.set_txt(&format!("_dime.{}", org.domain), &[&org.record()]).unwrap();
    }
    let resolver = HickoryResolver::new(dns.resolver_options()).unwrap();
    let chain = async |name: &str| {
        let found = resolver.evidence(&name.parse().unwrap(), now()).await.unwrap().unwrap();
        found.chain
    };
    let (secure, insecure) = (chain("one.example").await, chain("two.example").await);
    let anchors = dns.trust_anchor().of_root();
    let time = now();
    let draft = |org: &Org, dnssec: Dnssec, chain: &Bytes| {
        let Draft::Domain(draft) = org.draft(&[Event::FirstSeen], dnssec) else { panic!() };
        Draft::Domain(DomainDraft { dnssec_chain: Some(chain.clone()), ..draft })
    };
    let log_of = |draft: Draft| {
        let mut log = MiniLog::new();
        log.batch(time, [draft]);
        log
    };
    // What is true is cosigned.
    for (org, dnssec, chain) in
        [(&one, Dnssec::Secure, &secure), (&two, Dnssec::Insecure, &insecure)]
    {
        let log = log_of(draft(org, dnssec, chain));
        let (status, _, cosigned) = judged(&log, &log.entries, anchors.clone(), time).await;
        assert_eq!((status, cosigned), (Status::Good, 200), "{dnssec}");
    }
    // A signed zone said to be insecure: with its own chain, with another's.
    let other_record = {
        let Draft::Domain(draft) = draft(&one, Dnssec::Secure, &secure) else { panic!() };
        let record = Some(Bytes::from(format!("{} dx=other.example", one.record())));
        Draft::Domain(DomainDraft { record, ..draft })
    };
    let other_key = {
        let Draft::Domain(draft) = draft(&one, Dnssec::Secure, &secure) else { panic!() };
        let signet = Some(Bytes::copy_from_slice(two.signet().bytes()));
        Draft::Domain(DomainDraft { org_signet: signet, ..draft })
    };
    let cases = [
        (draft(&one, Dnssec::Insecure, &secure), "dnssec-status"),
        (draft(&two, Dnssec::Secure, &insecure), "dnssec-status"),
        (other_record, "dnssec-record"),
    ];
    for (draft, expected) in cases {
        let log = log_of(draft);
        let (status, accusations, cosigned) =
            judged(&log, &log.entries, anchors.clone(), time).await;
        assert!(matches!(status, Status::Fault(_)), "{expected}: {status}");
        assert_eq!((rule(&accusations), cosigned), (expected, 403));
    }
    for draft in [draft(&one, Dnssec::Insecure, &insecure), other_key] {
        let log = log_of(draft);
        let (status, _, cosigned) = judged(&log, &log.entries, anchors.clone(), time).await;
        assert!(matches!(status, Status::Fault(_)), "{status}");
        assert_eq!(cosigned, 403);
    }
    // Insecure, and no chain at all.
    let mut log = MiniLog::new();
    let pok = [one.pok.signing_key()];
    let unproved = DomainObservation {
        domain: one.domain,
        version: 1,
        current: 1,
        poks: Poks::new(&pok),
        dnssec: Dnssec::Insecure,
        record: Some(Blob::of(one.record().as_bytes())),
        org_signet: None,
        dnssec_chain: None,
        events: Events::of(&[Event::FirstSeen]),
        held_until: None,
        coalesced: None,
    };
    let unproved = Entry::new(time, Kind::Domain(unproved)).encode();
    log.batch(time, []);
    let mut entries = log.entries.clone();
    entries.insert(entries.len() - 1, unproved.into());
    let (status, accusations, _) = judged(&log, &entries, anchors.clone(), time).await;
    assert!(matches!(status, Status::Fault(_)), "{status}");
    assert_eq!(rule(&accusations), "wire-value");
    // Our root key may be the old one: that accuses nobody.
    let strangers = PrivateDns::builder().start().await.unwrap().trust_anchor().of_root();
    let log = log_of(draft(&one, Dnssec::Secure, &secure));
    let (status, accusations, cosigned) = judged(&log, &log.entries, strangers, time).await;
    assert_eq!(status, Status::Condition(Condition::OtherAnchor));
    assert_eq!((accusations.len(), cosigned), (0, 503));
}

/// Threat 15: a cosignature vouches for bytes that others can get.
#[tokio::test]
async fn a_blob_that_is_not_served_keeps_the_cosignature() {
    let rogue = Rogue::start().await;
    let log = small();
    rogue.serve(&log);
    let [one, ..] = orgs();
    let record = format!("v1/blob/{}", hex::encode(sha2_of(one.record().as_bytes())));
    let bytes = rogue.take(&record);
    let mut place = Place::new("judge.example/log", 9).await;
    let (node, clock) = judge(&rogue, &mut place).await;
    let unserved = |now: &Standing| matches!(now.status, Status::Condition(Condition::Unserved(_)));
    let standing = node.until(unserved).await;
    assert_eq!(standing.size, 0, "nothing of it counts");
    let body = request(&log.entries, 0).to_string();
    assert_eq!(node.add_checkpoint(body.clone()).await.status, 503);
    // Other bytes are no better, nor is withdrawing what nobody has seen yet.
    rogue.put(record.clone(), Bytes::from_static(b"other"));
    assert_eq!(node.add_checkpoint(body.clone()).await.status, 503);
    rogue.served.lock().unwrap().withdrawn.insert(record.clone());
    assert_eq!(node.add_checkpoint(body.clone()).await.status, 503);
    rogue.served.lock().unwrap().withdrawn.clear();
    rogue.put(record.clone(), bytes);
    assert_eq!(node.until_good(log.entries.len() as u64).await.labels, 3);
    assert_eq!(node.add_checkpoint(body).await.status, 200);
    assert!(node.accusations().is_empty());

    // A mirror that comes later follows past what was withdrawn meanwhile.
    rogue.take(&record);
    rogue.served.lock().unwrap().withdrawn.insert(record);
    clock.set(at(25 * HOUR));
    let mut late = Place::new("late.example/log", 8).await;
    let node = Node::start(&mut late, &clock, options(vec![rogue.as_peer()]), 0).await;
    let size = log.entries.len() as u64;
    let standing = node.until(|now| now.size == size && now.signed.is_some()).await;
    assert_eq!(standing.labels, 3);
    assert!(node.accusations().is_empty());
}

/// Threat 15: a log that holds bytes back from everybody and then withdraws them does
/// not get by with it; one that withdrew them after others had checked them does.
#[tokio::test]
async fn a_blob_that_nobody_checked_stays_uncosigned() {
    for by_word in [false, true] {
        let (rogue, other) = (Rogue::start().await, Rogue::start().await);
        let mut log = small();
        rogue.serve(&log);
        let mut place = Place::new("judge.example/log", 9).await;
        let clock = Clock::manual(at(2 * MINUTE));
        let key = SigningKey::ed25519("other.example/log", &[66; 32]).unwrap().verifier();
        let mirrors = vec![rogue.as_peer(), Mirror { log: key, ..other.as_peer() }];
        let node = Node::start(&mut place, &clock, options(mirrors), 0).await;
        node.until_good(log.entries.len() as u64).await;

        let [.., three] = orgs();
        log.batch(at(2 * MINUTE + 1000), [first(&three)]);
        let hash = sha2_of(three.record().as_bytes());
        let blob = format!("v1/blob/{}", hex::encode(hash));
        let unserved = |why: &'static str| {
            move |now: &Standing| match &now.status {
                Status::Condition(Condition::Unserved(words)) => words.contains(why),
                _ => false,
            }
        };
        rogue.served.lock().unwrap().withdrawn.insert(blob.clone());
        rogue.serve(&log);
        let bytes = rogue.take(&blob);
        node.until(unserved("withdrawn")).await;
        // A day later, with a fresh root at its end.
        clock.set(at(26 * HOUR));
        log.batch(at(26 * HOUR), []);
        rogue.serve_entries(&log.entries);
        let size = log.entries.len() as u64;
        let ask = async || node.add_checkpoint(request(&log.entries, 0).to_string()).await;
        for _ in 0..2 {
            let answer = ask().await;
            assert_eq!(answer.status, 503, "{}", words(&answer));
            node.until(unserved("withdrawn")).await;
        }
        if by_word {
            let data = place.folder.path().join("blobs");
            let (data, blob) = (data.to_str().unwrap(), hex::encode(hash));
            let args = ["peers", "pass-over", ORIGIN, &blob, "--data", data];
            let output = process::syndicate().args(args).output().unwrap();
            assert!(output.status.success(), "{output:?}");
        } else {
            let path = format!("{}/{blob}", hex::encode(sha2_of(ORIGIN.as_bytes())));
            other.put(path.clone(), Bytes::from_static(b"something else"));
            let seen = other.asked(&path);
            until(|| other.asked(&path) >= seen + 2).await;
            assert_ne!(node.peers[0].standing().size, size);
            other.put(path, bytes);
        }
        node.until_good(size).await;
        assert_eq!(ask().await.status, 200);
        let kept = node.peers[0].archive().blob(&hash).await.unwrap();
        assert_eq!(kept.is_some(), !by_word);
        assert_eq!(node.accusations(), []);
    }
}

/// Whoever is followed anew has not begun anew: what came since the first time is still
/// not passed over, also when the word of where it began is an earlier build's.
#[tokio::test]
async fn following_anew_passes_over_nothing_that_came_since() {
    for earlier in [false, true] {
        let (rogue, mut log, mut place, node, clock) = judging().await;
        let size = log.entries.len() as u64;
        node.until_good(size).await;
        assert_eq!(node.add_checkpoint(request(&log.entries, 0).to_string()).await.status, 200);
        let [.., three] = orgs();
        log.batch(at(2 * MINUTE + 1000), [first(&three)]);
        let blob = format!("v1/blob/{}", hex::encode(sha2_of(three.record().as_bytes())));
        rogue.served.lock().unwrap().withdrawn.insert(blob);
        rogue.serve(&log);
        let withheld = |now: &Standing| match &now.status {
            Status::Condition(Condition::Unserved(words)) => words.contains("withdrawn"),
            _ => false,
        };
        node.until(withheld).await;
        let archive = node.peers[0].archive().clone();
        let store = node.stop().await;

        let began = archive.began().await.unwrap();
        assert_eq!(began, Some(size));
        archive.blobs().overwrite("position", Bytes::from_static(b"damage")).await.unwrap();
        if earlier {
            archive.blobs().delete("began").await.unwrap();
        }
        clock.set(at(26 * HOUR));
        log.batch(at(26 * HOUR), []);
        rogue.serve_entries(&log.entries);
        let mirrors = options(vec![rogue.as_peer()]);
        let node = Node::start_on(&mut place, &clock, mirrors, 0, store).await;
        let standing = node.until(withheld).await;
        assert_eq!(standing.size, 0, "it is one page");
        assert_eq!(archive.began().await.unwrap(), began);
        assert_eq!(node.accusations(), []);
    }
}

/// Guard and store that name two trees of one size: nothing is cosigned, and whoever
/// runs the mirror sees it.
#[tokio::test]
async fn a_memory_of_two_trees_is_shown() {
    let (rogue, log, mut place, node, clock) = judging().await;
    let size = log.entries.len() as u64;
    node.until_good(size).await;
    assert_eq!(node.add_checkpoint(request(&log.entries, 0).to_string()).await.status, 200);
    let archive = node.peers[0].archive().clone();
    let store = node.stop().await;
    let [memory] = &archive.blobs().names("memory").await.unwrap()[..] else { panic!() };
    let memory = format!("memory/{memory}");
    let right = archive.blobs().get(&memory, 1000).await.unwrap().unwrap();
    let wrong = format!("{size} {}\n", hex::encode([7; 32]));
    archive.blobs().overwrite(&memory, wrong.into()).await.unwrap();

    let mirrors = options(vec![rogue.as_peer()]);
    let node = Node::start_on(&mut place, &clock, mirrors, 0, store).await;
    node.until_good(size).await;
    let shown = async || {
        let ready = node.site.get("readyz", 1 << 16).await.unwrap();
        let ready: serde_json::Value = serde_json::from_slice(&ready.body).unwrap();
        let metrics = node.site.get("metrics", 1 << 20).await.unwrap();
        let metrics = String::from_utf8(metrics.body.to_vec()).unwrap();
        let status = metrics.lines().find(|line| line.starts_with("syndicate_peer_status{"));
        (ready["peers"][0]["doubt"].clone(), status.unwrap().rsplit(' ').next().unwrap().to_owned())
    };
    let ask = async || node.add_checkpoint(request(&log.entries, size).to_string()).await;
    assert_eq!(ask().await.status, 503);
    let why = "this mirror has kept two trees of one size that it cosigned";
    assert_eq!(shown().await, (why.into(), "2".to_owned()));
    archive.blobs().overwrite(&memory, right).await.unwrap();
    assert_eq!(ask().await.status, 200);
    assert_eq!(shown().await, (serde_json::Value::Null, "0".to_owned()));
}

/// A witness whose cosignatures are of another time, which nobody else would count.
#[tokio::test]
async fn a_cosignature_of_another_time_is_none() {
    let key = SigningKey::cosigner("w.example/cosigner", &[77; 32]).unwrap();
    let offsets = [None, Some(-301_i64), Some(301), Some(0)];
    for offset in offsets {
        let now = at(0).secs() as i64;
        let time = Timestamp::from_secs(offset.map_or(0, |offset| (now + offset) as u64));
        let (signer, verifier) = (key.clone(), key.verifier());
        let cosign = async move |body: String| {
            let request = AddCheckpoint::parse(body.as_bytes()).unwrap();
            format!("{}\n", request.checkpoint.cosign(&signer, time))
        };
        let router = Router::new().route("/add-checkpoint", axum::routing::post(cosign));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let witnesses = vec![PublicWitness { url, key: verifier.clone(), qpd: 86_400 }];
        let fed = Options { witnesses, ..options(Vec::new()) };
        let mut own = Place::new("a.example/log", 1).await;
        let node = Node::start(&mut own, &Clock::manual(at(0)), fed, 0).await;
        let outcome = if offset == Some(0) { "cosigned" } else { "refused" };
        until_async(async || {
            let metrics = node.site.get("metrics", 1 << 20).await.unwrap();
            let metrics = String::from_utf8(metrics.body.to_vec()).unwrap();
            metrics.lines().any(|line| {
                line.starts_with("syndicate_cosigner_submissions_total") && line.contains(outcome)
            })
        })
        .await;
        let note = node.log.heads().published.unwrap().checkpoint.unwrap();
        let cosigned = SignedCheckpoint::parse(&note).unwrap().verify([&verifier]).is_ok();
        assert_eq!(cosigned, offset == Some(0), "{offset:?}");
    }
}

/// Threats 17 and 28: none of these accuses anybody, and each ends by itself.
#[tokio::test]
async fn conditions_end_by_themselves() {
    let rogue = Rogue::start().await;
    let mut log = small();
    let older = signed(&log.entries[..4]);
    rogue.serve(&log);
    let mut place = Place::new("judge.example/log", 9).await;
    let (node, clock) = judge(&rogue, &mut place).await;
    let size = log.entries.len() as u64;
    node.until_good(size).await;
    // A smaller checkpoint that is a prefix.
    let newest = rogue.take("checkpoint");
    rogue.put("checkpoint".into(), older.to_string().into_bytes().into());
    let seen = rogue.asked("checkpoint");
    until(|| rogue.asked("checkpoint") >= seen + 3).await;
    assert_eq!(node.peers[0].standing().status, Status::Good);
    assert_eq!(node.peers[0].standing().size, size);
    rogue.put("checkpoint".into(), newest);
    // An outage of a day.
    rogue.set_down(true);
    node.until(|now| matches!(now.status, Status::Condition(Condition::Unreachable(_)))).await;
    clock.set(at(24 * HOUR));
    rogue.set_down(false);
    node.until(|now| now.status == Status::Condition(Condition::Stale)).await;
    log.batch(at(24 * HOUR), []);
    rogue.serve(&log);
    node.until_good(size + 1).await;
    let answer = node.add_checkpoint(request(&log.entries, 0).to_string()).await;
    assert_eq!(answer.status, 200, "{}", words(&answer));
    // Bundles that are not in the signed tree: bad service, signed by nobody.
    log.batch(at(24 * HOUR + 1), []);
    rogue.serve(&log);
    let path = BundleCoordinate { index: 0, width: size as u16 + 2 }.path();
    let whole = rogue.take(&path);
    let mut wrong = log.entries.clone();
    *wrong.last_mut().unwrap() = Bytes::from_static(b"x");
    rogue.put(path.clone(), encode_bundle(&wrong).unwrap().into());
    node.until(|now| matches!(now.status, Status::Condition(Condition::Unserved(_)))).await;
    rogue.put(path, whole);
    node.until_good(size + 2).await;
    assert!(node.accusations().is_empty(), "{:?}", node.accusations());
    let heard = node.ear.0.lock().unwrap().clone();
    assert_eq!(heard, [(0, size as usize), (size, 1), (size + 1, 1)]);
}

/// The key that `MiniLog::end` names.
fn successor_key() -> SigningKey {
    SigningKey::ed25519("log.example/2", &[99; 32]).unwrap()
}

/// A log that carries over the map of `old`, or of something else.
fn successor(old: &MiniLog, change: impl Fn(&mut Carried)) -> (Vec<Bytes>, SignedCheckpoint) {
    let (time, final_note) = (at(4 * MINUTE), signed(&old.entries).to_string());
    let mut entries = Vec::new();
    let mut promised = PlainMap::new();
    let mut map = PlainMap::new();
    for (label, tip) in old.map.iter() {
        let mut carried = Carried {
            label: *label,
            holder: tip.holder,
            version: tip.version,
            current: tip.current,
            chain: tip.chain,
            predecessor_label: *label,
        };
        change(&mut carried);
        let (version, current, chain) = (carried.version, carried.current, carried.chain);
        promised.insert(*label, Tip { holder: tip.holder, version, current, chain });
        entries.push(Bytes::from(Entry::new(time, Kind::Carried(carried)).encode()));
    }
    let genesis = Genesis {
        origin: "log.example/2",
        log_key: *successor_key().verifier().public_key().unwrap(),
        vrf_key: old.vrf.public(),
        predecessor: Some(Predecessor {
            origin: ORIGIN,
            log_key: *log_vkey().public_key().unwrap(),
            checkpoint: final_note.as_bytes(),
            directory_root: promised.root(),
            labels: promised.len() as u64,
        }),
    };
    entries.insert(0, Entry::new(time, Kind::Genesis(genesis)).encode().into());
    let changes =
        (0..).zip(&entries).filter_map(|(at, entry)| Change::of(at, entry.clone()).unwrap());
    let changes: Vec<Change> = changes.collect();
    let head = map.apply(&changes).unwrap();
    let covered = entries.len() as u64;
    let root = DirectoryRoot { root: head.root, labels: head.labels, covered };
    entries.push(Entry::new(time, Kind::Root(root)).encode().into());
    let tree = root_from_leaves(&leaves(&entries));
    let checkpoint = Checkpoint::new("log.example/2", covered + 1, tree).unwrap();
    let signed = checkpoint.sign(&successor_key(), time).unwrap();
    (entries, signed)
}

/// Threat 18: whoever swaps keys and "migrates" finds nobody to cosign it, and a
/// successor that nobody has followed is accused of nothing.
#[tokio::test]
async fn a_successor_is_cosigned_by_those_who_followed_the_log_before() {
    let mut old = small();
    old.end(at(3 * MINUTE));
    let (first, second) = (Rogue::start().await, Rogue::start().await);
    first.serve(&old);
    let next = Mirror { url: second.url.clone(), log: successor_key().verifier(), cosigner: None };
    let both = vec![first.as_peer(), next.clone()];
    let honest = successor(&old, |_| ());
    let swapped = successor(&old, |carried| carried.chain[0] ^= 1);
    let cases = [
        (vec![next.clone()], &honest, "not followed here"),
        (both.clone(), &swapped, "last map is another one"),
        (both.clone(), &honest, ""),
    ];
    for (n, (mirrors, (entries, checkpoint), why)) in (20..).zip(cases) {
        second.serve_tree(entries, checkpoint);
        let mut place = Place::new(&format!("judge{n}.example/log"), n).await;
        let clock = Clock::manual(at(4 * MINUTE));
        let node = Node::start(&mut place, &clock, options(mirrors), 0).await;
        let request =
            AddCheckpoint { old: 0, proof: Vec::new(), checkpoint: checkpoint.clone() }.to_string();
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let answer = loop {
            let answer = node.add_checkpoint(request.clone()).await;
            let settled = match why {
                "" => answer.status == 200,
                why => answer.status == 503 && words(&answer).contains(why),
            };
            if settled || tokio::time::Instant::now() > deadline {
                break answer;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        let wanted = if why.is_empty() { 200 } else { 503 };
        assert_eq!(answer.status, wanted, "{}", words(&answer));
        assert!(words(&answer).contains(why), "{}", words(&answer));
        assert!(node.accusations().is_empty(), "{:?}", node.accusations());
    }
}

/// Threat 17: a peer on a newer version is not a liar.
#[tokio::test]
async fn a_newer_format_asks_for_an_upgrade() {
    let mut log = MiniLog::new();
    log.batch(at(MINUTE), []);
    let mut entries = log.entries.clone();
    // A root of format 2, as its outline is fixed for ever.
    let last = entries.pop().unwrap();
    let mut newer = last.to_vec();
    assert_eq!(&newer[..2], [8, 1], "field 1 is the format");
    newer[1] = 2;
    entries.push(newer.into());
    let (status, accusations, cosigned) = judged(&log, &entries, Vec::new(), at(MINUTE)).await;
    assert!(matches!(&status, Status::Condition(Condition::UnknownFormat(_))), "{status}");
    assert!(status.to_string().contains("upgrade"), "{status}");
    assert_eq!((accusations.len(), cosigned), (0, 503));
}

/// Threat 15: nothing is cosigned that was not judged. A root of a known format
/// behind an entry of an unknown one changes nothing, nor does what the status
/// happens to be: of a page that has just come, of a peer that is away, or at a
/// start.
#[tokio::test]
async fn what_was_not_judged_is_never_cosigned() {
    let (rogue, mut log, mut place, node, clock) = judging().await;
    let size = log.entries.len() as u64;
    node.until_good(size).await;
    assert_eq!(node.add_checkpoint(request(&log.entries, 0).to_string()).await.status, 200);

    let mut unknown = Writer::new();
    unknown.uint(1, u64::from(entry::FORMAT) + 1).uint(2, at(2 * MINUTE).millis());
    unknown.message(12, |writer| {
        writer.uint(1, 7);
    });
    log.entries.push(unknown.finish().into());
    log.close(at(2 * MINUTE));
    assert_eq!(Entry::decode(log.entries.last().unwrap()).unwrap().format, entry::FORMAT);
    let newer = log.entries.len() as u64;
    let refused = async |node: &Node| {
        let answer = node.add_checkpoint(request(&log.entries, size).to_string()).await;
        assert_eq!((answer.status, answer.retry_after), (503, Some(60)), "{}", words(&answer));
        assert!(words(&answer).contains("upgrade"), "{}", words(&answer));
    };
    let held_up = node.ear.1.lock().await;
    rogue.serve(&log);
    node.until(|now| now.size == newer).await;
    refused(&node).await;
    drop(held_up);
    node.until(|now| matches!(now.status, Status::Condition(Condition::UnknownFormat(_)))).await;
    refused(&node).await;
    rogue.set_down(true);
    let away = |now: &Standing| {
        now.size == newer && matches!(now.status, Status::Condition(Condition::Unreachable(_)))
    };
    node.until(away).await;
    refused(&node).await;
    let store = node.stop().await;
    let again = || options(vec![rogue.as_peer()]);
    let node = Node::start_on(&mut place, &clock, again(), 0, store).await;
    node.until(away).await;
    refused(&node).await;
    assert!(node.accusations().is_empty(), "{:?}", node.accusations());
}

/// What a version that did not know a format only kept, the next one judges before
/// anything of it is cosigned.
#[tokio::test]
async fn an_upgrade_judges_what_was_only_kept() {
    let (rogue, log, mut place, node, clock) = judging().await;
    let size = log.entries.len() as u64;
    node.until_good(size).await;
    let archive = node.peers[0].archive().clone();
    let store = node.stop().await;

    // As the version before would have left it: its blobs were never fetched.
    let mut kept = archive.kept().await.unwrap().unwrap();
    assert_eq!(kept.unjudged, 0);
    kept.unjudged = 2;
    archive.keep(&kept).await.unwrap();
    let [one, ..] = orgs();
    let sha256 = sha2_of(one.record().as_bytes());
    archive.blobs().delete(&syndicate::store::keys::blob(&sha256)).await.unwrap();
    let path = format!("v1/blob/{}", hex::encode(sha256));
    let bytes = rogue.take(&path);

    let mirrors = options(vec![rogue.as_peer()]);
    let node = Node::start_on(&mut place, &clock, mirrors, 0, store).await;
    node.until(|now| matches!(now.status, Status::Condition(Condition::Unserved(_)))).await;
    let ask = async || node.add_checkpoint(request(&log.entries, 0).to_string()).await;
    let answer = ask().await;
    assert_eq!(answer.status, 503, "{}", words(&answer));
    rogue.put(path, bytes);
    node.until_good(size).await;
    let answer = ask().await;
    assert_eq!(answer.status, 200, "{}", words(&answer));
    assert_eq!(archive.kept().await.unwrap().unwrap().unjudged, 0);
    assert!(node.accusations().is_empty(), "{:?}", node.accusations());
}

/// The same with a mirror, its restart and the commands of an operator and an
/// auditor as processes; the newer format has a kind that nobody knows.
#[tokio::test(flavor = "multi_thread")]
async fn a_newer_format_is_no_fault_to_any_program() {
    let now = Clock::system().now();
    let mut log = MiniLog::starting(now);
    let [_, org, _] = orgs();
    log.batch(now, [first(&org)]);
    let rogue = Rogue::start().await;
    rogue.serve(&log);
    let folder = tempfile::tempdir().unwrap();
    let dns = PrivateDns::builder().start().await.unwrap();
    let mut file = process::configuration(folder.path(), &dns, 26);
    file.peers.mirror = vec![rogue.as_section()];
    let config = process::write(folder.path(), &file);
    let mut mirror = process::Mirror::start(&config, "info");
    let faces = mirror.faces().await;
    let told = async |faces: &process::Faces, wanted: &str| {
        let site = Site::new(&faces.http).unwrap();
        let ends = tokio::time::Instant::now() + process::PATIENCE;
        loop {
            let metrics = words(&site.get("metrics", 1 << 20).await.unwrap());
            if metrics.lines().any(|line| line == wanted) {
                return metrics;
            }
            assert!(tokio::time::Instant::now() < ends, "no {wanted} in\n{metrics}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let status = |number: u8| format!("syndicate_peer_status{{peer=\"{ORIGIN}\"}} {number}");
    let submit = async |faces: &process::Faces, request: AddCheckpoint| {
        let site = Site::new(&faces.http).unwrap();
        let body: Bytes = request.to_string().into_bytes().into();
        loop {
            let post = site.post("add-checkpoint", "text/plain", "*/*", body.clone(), 1 << 16);
            let answer = post.await.unwrap();
            // Its start may take longer than following the log.
            if !words(&answer).contains("asks its peers") {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    told(&faces, &status(0)).await;
    let size = log.entries.len() as u64;
    let answer = submit(&faces, request(&log.entries, 0)).await;
    assert_eq!(answer.status, 200, "{}", words(&answer));

    let mut unknown = Writer::new();
    unknown.uint(1, u64::from(entry::FORMAT) + 1).uint(2, now.millis());
    unknown.message(12, |writer| {
        writer.uint(1, 7);
    });
    log.entries.push(unknown.finish().into());
    log.close(now);
    let mut root = Entry::decode(log.entries.last().unwrap()).unwrap();
    root.format = entry::FORMAT + 1;
    let root = root.encode();
    *log.entries.last_mut().unwrap() = root.into();
    rogue.serve(&log);
    let metrics = told(&faces, &status(2)).await;
    assert!(!metrics.contains("syndicate_peer_faults_total"), "{metrics}");
    let refused = async |faces: &process::Faces| {
        let answer = submit(faces, request(&log.entries, size)).await;
        assert_eq!(answer.status, 503, "{}", words(&answer));
        assert!(words(&answer).contains("upgrade"), "{}", words(&answer));
        let incidents = Site::new(&faces.http).unwrap().get("v1/incidents", 1 << 20).await.unwrap();
        let incidents: serde_json::Value = serde_json::from_slice(&incidents.body).unwrap();
        assert_eq!(incidents["incidents"], serde_json::json!([]), "{incidents}");
    };
    refused(&faces).await;
    let (code, said) = mirror.stop().await;
    assert!(code == Some(0) && said.contains("upgrade"), "{said}");

    let mut mirror = process::Mirror::start(&config, "info");
    let faces = mirror.faces().await;
    told(&faces, &status(2)).await;
    refused(&faces).await;
    drop(mirror);
    let run = |args: &[&str]| {
        let output = process::syndicate().args(args).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let path = config.to_str().unwrap();
    let (code, said) = run(&["peers", "show", "--json", "--config", path]);
    let peer: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &peer["fault"]), (Some(0), &serde_json::Value::Null), "{said}");
    assert_eq!(peer["cosigned"], size, "{said}");
    let state = folder.path().join("auditor");
    let (key, state) = (log_vkey().to_string(), state.to_str().unwrap());
    let (code, said) =
        run(&["audit", &rogue.url, "--log", &key, "--once", "--json", "--state", state]);
    assert!(said.contains("UPGRADE") && code == Some(2), "{code:?} {said}");
}

/// Runs a command, and goes on serving meanwhile.
async fn command_line(args: &[&str]) -> (Option<i32>, String) {
    let mut command = process::syndicate();
    command.args(args);
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

/// Threat 12: keys alone came back from a backup. What a peer remembers keeps the
/// mirror from beginning a second history; peers that know nothing do not.
#[tokio::test]
async fn no_second_history_is_begun_in_an_empty_store() {
    let rogue = Rogue::start().await;
    rogue.serve(&small());
    let folder = tempfile::tempdir().unwrap();
    let dns = PrivateDns::builder().start().await.unwrap();
    let mut file = process::configuration(folder.path(), &dns, 26);
    let origin = "restored.example/log";
    file.log.origin = Some(origin.into());
    file.peers.mirror = vec![rogue.as_section()];
    let data = Folder::new(folder.path().join("data"));
    data.make().unwrap();
    let key = Secrets::load_or_make(&data.keys(), Some(origin)).unwrap().keys().log;
    let checkpoint = Checkpoint::new(origin, 1234, [7; 32]).unwrap();
    let signed = checkpoint.sign(&key, at(0)).unwrap();
    let path = format!("{}/followed", hex::encode(Sha256::digest(origin)));
    rogue.put(path.clone(), signed.to_string().into_bytes().into());

    let config = process::write(folder.path(), &file);
    let (code, said) = process::Mirror::start(&config, "info").ended().await;
    assert_ne!(code, Some(0), "{said}");
    assert!(said.contains("log.example/1 remembers 1234 entries"), "{said}");
    assert!(said.contains("second history"), "{said}");
    assert!(!folder.path().join("data/blobs/private/log").exists());

    rogue.take(&path);
    let mut mirror = process::Mirror::start(&config, "info");
    mirror.faces().await;
    let (code, said) = mirror.stop().await;
    assert_eq!(code, Some(0), "{said}");

    // Folder and guard came back together from one old snapshot: no command signs on it.
    let config = config.to_str().unwrap();
    let to = folder.path().join("successor");
    let to = ["--to", to.to_str().unwrap(), "--origin", "successor.example/log"];
    let migrate = [&["migrate", "--config", config][..], &to].concat();
    let forget = ["forget", "--yes", "alice@alder.example", "--config", config];
    rogue.put(path.clone(), signed.to_string().into_bytes().into());
    let mut here = 0;
    for command in [&migrate[..], &forget] {
        let (code, said) = command_line(command).await;
        let words = "log.example/1 remembers 1234 entries of this log, and here are ";
        let (_, rest) = said.split_once(words).expect(&said);
        here = rest.split(':').next().unwrap().parse().unwrap();
        assert_eq!(code, Some(1), "{said}");
    }
    let other = Checkpoint::new(origin, here, [7; 32]).unwrap().sign(&key, at(0)).unwrap();
    rogue.put(path.clone(), other.to_string().into_bytes().into());
    for command in [&migrate[..], &forget] {
        let (code, said) = command_line(command).await;
        let words = format!("remembers another tree of {here} entries");
        assert!(code == Some(1) && said.contains(&words), "{said}");
    }
    // What they say when nobody knows better.
    rogue.take(&path);
    let (code, said) = command_line(&forget).await;
    assert!(code == Some(1) && said.contains("has nothing of that mailbox"), "{said}");
}

/// A burst is followed on the next day; the first time is free.
#[tokio::test]
async fn a_peer_over_its_quota_waits_for_the_next_day() {
    let rogue = Rogue::start().await;
    let mut log = small();
    rogue.serve(&log);
    let mut place = Place::new("judge.example/log", 9).await;
    let clock = Clock::manual(at(2 * MINUTE));
    let options = Options { entries_per_day: 2, ..options(vec![rogue.as_peer()]) };
    let node = Node::start(&mut place, &clock, options, 0).await;
    let size = log.entries.len() as u64;
    node.until_good(size).await;
    for turn in 1..=3 {
        log.batch(at(2 * MINUTE + turn), []);
        rogue.serve(&log);
        let full = |now: &Standing| {
            now.size == size + turn || now.status == Status::Condition(Condition::OverQuota)
        };
        node.until(full).await;
    }
    let standing = node.until(|now| now.status == Status::Condition(Condition::OverQuota)).await;
    assert!(standing.size >= size + 2 && standing.size < size + 3, "{}", standing.size);
    clock.set(at(24 * HOUR));
    node.until(|now| now.size == size + 3).await;
    assert!(node.accusations().is_empty());
}

/// Signets as large as they may be, another with every entry, are fetched no faster
/// than a day allows, also of one page.
#[tokio::test]
async fn a_peers_blobs_are_within_a_days_bytes() {
    let rogue = Rogue::start().await;
    let mut log = small();
    rogue.serve(&log);
    let mut place = Place::new("judge.example/log", 9).await;
    let clock = Clock::manual(at(2 * MINUTE));
    // Of so few entries, four MiB.
    let options = Options { entries_per_day: 100, ..options(vec![rogue.as_peer()]) };
    let node = Node::start(&mut place, &clock, options, 0).await;
    let size = log.entries.len() as u64;
    node.until_good(size).await;
    let [one, ..] = orgs();
    let mut large = Vec::new();
    let drafts: Vec<Draft> = (0..6)
        .map(|number| {
            let photo = [Content::Known(field::PHOTO, vec![number; 1_000_000])];
            let signet = build::org(&one.pok, one.dialect, &[], &photo, SignTo::Id(one.domain));
            let signet = Bytes::copy_from_slice(signet.unwrap().bytes());
            large.push(sha2_of(&signet));
            let changed = one.draft(&[Event::OrgSignetChanged], Dnssec::Indeterminate);
            let Draft::Domain(changed) = changed else { panic!("a domain's") };
            Draft::Domain(DomainDraft { org_signet: Some(signet), ..changed })
        })
        .collect();
    log.batch(at(2 * MINUTE), drafts);
    rogue.serve(&log);
    let standing = node.until(|now| now.status == Status::Condition(Condition::OverQuota)).await;
    assert_eq!(standing.size, size);
    let archive = node.peers[0].archive();
    let kept = async || {
        let mut kept = 0;
        for hash in &large {
            kept += usize::from(archive.blob(hash).await.unwrap().is_some());
        }
        kept
    };
    assert_eq!(kept().await, 4);
    assert!(archive.kept().await.unwrap().unwrap().blob_bytes >= 4_000_000);
    // What is here need not be fetched again.
    clock.set(at(24 * HOUR));
    node.until(|now| now.size == log.entries.len() as u64).await;
    assert_eq!(kept().await, 6);
    assert!(node.accusations().is_empty());
}

/// Threat 12: what was cosigned is remembered in two places, and a damaged
/// archive is our loss, nobody's fault.
#[tokio::test]
async fn a_restart_keeps_the_memory() {
    let (rogue, mut log, mut place, node, clock) = judging().await;
    let size = log.entries.len() as u64;
    let root = node.until_good(size).await.root;
    assert_eq!(node.add_checkpoint(request(&log.entries, 0).to_string()).await.status, 200);
    // A second commit, so that a guard is to be expected.
    node.log.submit_urgent(first(&orgs()[1])).await.unwrap();
    let store = node.stop().await;

    // Without the peer: everything is read from the archive.
    rogue.set_down(true);
    let again = || options(vec![rogue.as_peer()]);
    let node = Node::start_on(&mut place, &clock, again(), 0, store).await;
    let standing = node.until(|now| now.size == size).await;
    assert_eq!((standing.root, standing.labels), (root, 3));
    let answer = node.add_checkpoint(request(&log.entries, 0).to_string()).await;
    assert_eq!((answer.status, words(&answer)), (409, format!("{size}\n")));
    let answer = node.add_checkpoint(request(&log.entries, size).to_string()).await;
    assert_eq!(answer.status, 200, "{}", words(&answer));
    let store = node.stop().await;

    // An older guard: the archive knows better, also one of an earlier build.
    let guard = std::fs::read_to_string(place.guard()).unwrap();
    let older: Vec<&str> = guard.lines().filter(|line| !line.starts_with("cosigned")).collect();
    std::fs::write(place.guard(), older.join("\n") + "\n").unwrap();
    for tree in store_names(&store.private, &format!("{}/memory", peer_folder())).await {
        store.private.delete(&tree).await.unwrap();
    }
    let node = Node::start_on(&mut place, &clock, again(), 0, store).await;
    let answer = node.add_checkpoint(request(&log.entries, 0).to_string()).await;
    assert_eq!((answer.status, words(&answer)), (409, format!("{size}\n")));
    let store = node.stop().await;

    // Entries that rotted: followed anew, and the memory of forks stays.
    let archive = store.private.below(&peer_folder()).unwrap();
    let bundle = BundleCoordinate { index: 0, width: size as u16 }.path();
    archive.overwrite(&bundle, Bytes::from_static(b"rot")).await.unwrap();
    rogue.set_down(false);
    let node = Node::start_on(&mut place, &clock, again(), 0, store).await;
    node.until_good(size).await;
    let [one, ..] = orgs();
    log = MiniLog::new();
    log.batch(at(MINUTE), [first(&one)]);
    for turn in 0..4 {
        log.batch(at(2 * MINUTE + turn), []);
    }
    rogue.serve(&log);
    node.until(|now| matches!(now.status, Status::Fault(_))).await;
    let store = node.stop().await;

    // Guard gone: nothing is cosigned before a peer has told what it knows of us.
    std::fs::remove_file(place.guard()).unwrap();
    let other = Rogue::start().await;
    other.serve(&small());
    let mirrors = vec![Mirror { url: other.url.clone(), ..other.as_peer() }];
    for gone in ["fault", "position"] {
        store.private.below(&peer_folder()).unwrap().delete(gone).await.unwrap();
    }
    let node = Node::start_on(&mut place, &clock, options(mirrors), 0, store).await;
    assert!(matches!(node.blocked, Some(Blocked::GuardMissing { .. })));
    node.until_good(size).await;
    let ask = async || node.add_checkpoint(request(&small().entries, size).to_string()).await;
    let answer = ask().await;
    assert_eq!(answer.status, 503, "{}", words(&answer));
    // A signature that is not ours says nothing.
    let own = hex::encode(sha2_of(place.name.as_bytes()));
    let tree = node.log.signed().unwrap();
    let forged = SigningKey::ed25519(&place.name, &[77; 32]).unwrap();
    let show = |key: &SigningKey, size: u64, root: Hash| {
        let signed = Checkpoint::new(&place.name, size, root).unwrap().sign(key, at(0)).unwrap();
        other.put(format!("{own}/checkpoint"), signed.to_string().into_bytes().into());
    };
    show(&forged, tree.size, tree.root);
    let path = format!("{own}/checkpoint");
    let seen = other.asked(&path);
    until(|| other.asked(&path) >= seen + 3).await;
    assert_eq!(ask().await.status, 503);
    show(&place.log_key(), tree.size, tree.root);
    until(|| node.log.blocked().is_none()).await;
    let answer = node.add_checkpoint(request(&small().entries, size).to_string()).await;
    assert_eq!(answer.status, 200, "{}", words(&answer));
    let store = node.stop().await;

    // More of ours than is here: proved, so it stops us, whoever shows it.
    show(&place.log_key(), tree.size + 5, [5; 32]);
    let node = Node::start_on(&mut place, &clock, options(vec![other.as_peer()]), 0, store).await;
    until(|| matches!(node.log.blocked(), Some(Blocked::PeersAhead { .. }))).await;
    let missing = format!("from {} on are missing", tree.size);
    assert!(node.log.blocked().unwrap().to_string().contains(&missing));
    let refused = node.log.submit_urgent(first(&orgs()[2])).await;
    assert!(matches!(refused, Err(log::Refused::Blocked(Blocked::PeersAhead { .. }))));
    // Not even by the operator's word, and also if the peer is silent from now on.
    let tip = node.log.heads().committed.unwrap();
    assert!(node.log.accept_tip(tip.size, tip.root).await.is_err());
    let store = node.stop().await;
    let node = Node::start_on(&mut place, &clock, options(Vec::new()), 0, store).await;
    assert!(matches!(node.log.blocked(), Some(Blocked::PeersAhead { .. })));
}

/// Threat 12: a peer that is slow to tell of one log has not told all. A doubt that
/// ends without it would end with the memory of an old backup.
#[tokio::test]
async fn a_doubt_ends_when_peers_have_told_of_every_log() {
    let (rogue, log, mut place, node, clock) = judging().await;
    let size = log.entries.len() as u64;
    node.until_good(size).await;
    let asked = request(&log.entries, 0);
    let answer = node.add_checkpoint(asked.to_string()).await;
    assert_eq!(answer.status, 200, "{}", words(&answer));
    node.log.submit_urgent(first(&orgs()[1])).await.unwrap();
    let tip = node.log.signed().unwrap();
    let store = node.stop().await;

    // A backup from before it cosigned, without the guard.
    std::fs::remove_file(place.guard()).unwrap();
    let archive = store.private.below(&peer_folder()).unwrap();
    archive.delete("cosigned").await.unwrap();
    for tree in store_names(&archive, "memory").await {
        archive.delete(&tree).await.unwrap();
    }
    // The peer knows of both logs, and tells of its own late.
    let folder = |name: &str| hex::encode(sha2_of(name.as_bytes()));
    let ours = Checkpoint::new(&place.name, tip.size, tip.root).unwrap();
    let ours = ours.sign(&place.log_key(), at(0)).unwrap().to_string();
    rogue.put(format!("{}/followed", folder(&place.name)), ours.into_bytes().into());
    let by = folder(place.cosigner().verifier().name());
    let late = format!("{}/cosigned-by/{by}", folder(ORIGIN));
    let note = format!("{}{}", asked.checkpoint, words(&answer));
    rogue.put(late.clone(), note.into_bytes().into());
    rogue.served.lock().unwrap().mute = Some(late.clone());
    let seen = rogue.asked(&late);
    let node = Node::start_on(&mut place, &clock, options(vec![rogue.as_peer()]), 0, store).await;
    // The time of the first question was up, and it asks again.
    until(|| rogue.asked(&late) >= seen + 2).await;
    assert!(node.log.blocked().is_some_and(|blocked| blocked.doubts_memory()));
    rogue.served.lock().unwrap().mute = None;
    until(|| node.log.blocked().is_none()).await;
    let answer = node.add_checkpoint(asked.to_string()).await;
    assert_eq!((answer.status, words(&answer)), (409, format!("{size}\n")));
}

/// Threats 4 and 28: two processes on one store, one shown another history than the
/// other. Whoever comes second to the store has to continue what the first signed.
#[tokio::test]
async fn two_processes_on_one_store_cosign_one_history() {
    let [one, _, three] = orgs();
    let histories = [small(), {
        let mut other = MiniLog::new();
        other.batch(at(MINUTE), [first(&one)]);
        other.batch(at(2 * MINUTE), [first(&three)]);
        other
    }];
    let [size, other_size] = histories.each_ref().map(|log| log.entries.len() as u64);
    let rogues = [Rogue::start().await, Rogue::start().await];
    for (rogue, log) in rogues.iter().zip(&histories) {
        rogue.serve(log);
        rogue.set_down(true);
    }
    let clock = Clock::manual(at(2 * MINUTE));
    let name = "judge.example/log";
    let mut places = [Place::new(name, 9).await, Place::new(name, 9).await];
    let store = Store::folder(&places[0].folder.path().join("blobs")).unwrap();
    let faults = Faults::new();
    let shown = |n: usize| options(vec![rogues[n].as_peer()]);
    let a = Node::start_on(&mut places[0], &clock, shown(0), 0, faults.wrap(&store)).await;
    a.log.submit_urgent(first(&one)).await.unwrap();
    std::fs::copy(places[0].guard(), places[1].guard()).unwrap();
    let b = Node::start_on(&mut places[1], &clock, shown(1), 0, store.clone()).await;
    // Neither has read from the store what the other has followed.
    for node in [&a, &b] {
        node.until(|now| matches!(now.status, Status::Condition(Condition::Unreachable(_)))).await;
    }
    rogues.iter().for_each(|rogue| rogue.set_down(false));
    a.until_good(size).await;
    b.until_good(other_size).await;

    // Both know of no cosignature; A is overtaken before it can write its own down.
    let memory = format!("private/{}/memory", peer_folder());
    let gate = faults.gate(Operation::Write, &memory, 0);
    let ours = request(&histories[0].entries, 0).to_string();
    let asked = async {
        tokio::join!(a.add_checkpoint(ours), async {
            gate.reached().await;
            let answer = b.add_checkpoint(request(&histories[1].entries, 0).to_string()).await;
            gate.open();
            answer
        })
    };
    let (by_a, by_b) = tokio::time::timeout(PATIENCE, asked).await.expect("the store decides");
    assert_eq!(by_b.status, 200, "{}", words(&by_b));
    assert_eq!((by_a.status, words(&by_a)), (409, format!("{other_size}\n")));
    // It cannot be made to go on from there with its own history.
    let forged = AddCheckpoint { old: other_size, ..request(&histories[0].entries, 1) };
    let answer = a.add_checkpoint(forged.to_string()).await;
    assert_ne!(answer.status, 200, "{}", words(&answer));
    let guard = std::fs::read_to_string(places[0].guard()).unwrap();
    assert!(!guard.contains(&format!("cosigned {ORIGIN} {size} ")), "{guard}");
    for node in [a, b] {
        node.stop().await;
    }
}

/// Waits until it is so.
async fn until(so: impl Fn() -> bool) {
    until_async(async || so()).await;
}

/// The same of what has to be asked for.
async fn until_async(so: impl AsyncFn() -> bool) {
    let ends = tokio::time::Instant::now() + PATIENCE;
    while !so().await {
        assert!(tokio::time::Instant::now() < ends, "it is not so");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// How a mirror forgets.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Loss {
    /// Blobs from a backup; the guard was in no backup.
    Guardless,
    /// Blobs from a backup under the guard of today.
    Blobs,
    /// A snapshot of the whole machine: both fit each other.
    Machine,
}

/// Threat 12: the peers know what was signed, and give the entries back. Nothing
/// is signed twice, nobody is accused, and what was private is observed anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_backup_has_not_comes_back_from_peers() {
    for loss in [Loss::Guardless, Loss::Blobs, Loss::Machine] {
        comes_back(loss).await;
    }
}

async fn comes_back(loss: Loss) {
    let clock = Clock::manual(at(0));
    let mut places = Vec::new();
    for (seed, name) in [(1, "a.example/log"), (2, "b.example/log"), (3, "c.example/log")] {
        places.push(Place::new(name, seed).await);
    }
    let all: Vec<Mirror> = places.iter().map(Place::as_peer).collect();
    let others = |own: usize| {
        let others = all.iter().enumerate().filter(|(n, _)| *n != own);
        options(others.map(|(_, mirror)| mirror.clone()).collect())
    };
    let mut nodes = Vec::new();
    for (own, place) in places.iter_mut().enumerate() {
        nodes.push(Node::start(place, &clock, others(own), 2).await);
    }
    let [one, two, three] = orgs();
    let (alice, bob) = ("alice@one.example", "bob@one.example");
    let mailbox = |name: &str, byte, event, seen| {
        let key = key(syndicate::dime::key::Owner::User, byte);
        one.user_draft(name, &one.user(name, &key, None, None), event, seen)
    };
    clock.set(at(MINUTE));
    nodes[0].log.submit_urgent(first(&one)).await.unwrap();
    let draft = mailbox(alice, 1, Event::FirstSeen, at(MINUTE));
    nodes[0].log.submit_urgent(draft).await.unwrap();
    nodes[1].log.submit_urgent(first(&one)).await.unwrap();

    let a = nodes.remove(0);
    a.stop().await;
    let (folder, kept) = (places[0].folder.path().to_owned(), tempfile::tempdir().unwrap());
    process::copy_folder(&folder, kept.path());
    let a = Node::start(&mut places[0], &clock, others(0), 2).await;
    clock.set(at(2 * MINUTE));
    a.log.submit_urgent(first(&two)).await.unwrap();
    for (name, byte) in [(alice, 2), (bob, 3)] {
        let event = if name == bob { Event::FirstSeen } else { Event::Restarted };
        a.log.submit_urgent(mailbox(name, byte, event, at(2 * MINUTE))).await.unwrap();
    }
    // Both others are published with the cosignature of A, which it will forget.
    for node in &nodes {
        node.log.submit_urgent(first(&three)).await.unwrap();
    }
    let published = a.log.heads().published.unwrap();
    let record = a.log.root_at(published.size).await.unwrap();
    assert_eq!(record, Some(published.root));
    a.stop().await;

    // The backup takes the place of what was there.
    let guard = std::fs::read(places[0].guard()).unwrap();
    // A write that was under way when it stopped may come later than this.
    let gone = tempfile::tempdir().unwrap();
    std::fs::rename(&folder, gone.path().join("gone")).unwrap();
    process::copy_folder(kept.path(), &folder);
    match loss {
        Loss::Guardless => std::fs::remove_file(places[0].guard()).unwrap(),
        Loss::Blobs => std::fs::write(places[0].guard(), guard).unwrap(),
        Loss::Machine => {}
    }
    let began = std::time::Instant::now();
    let a = Node::start(&mut places[0], &clock, others(0), 2).await;
    if loss != Loss::Machine {
        assert!(a.blocked.as_ref().is_some_and(Blocked::doubts_memory));
    }
    let is_back = || {
        let head = a.log.heads().committed.unwrap();
        a.log.blocked().is_none() && head.size >= published.size
    };
    until(is_back).await;
    println!("{loss:?}: found by its peers' memory and healed in {:?}", began.elapsed());
    assert_eq!(a.log.root_at(published.size).await.unwrap(), Some(published.root));

    // Its memory as a witness is as new as what the others can show.
    for node in &nodes {
        let head = node.log.heads().published.unwrap();
        let note = SignedCheckpoint::parse(&head.checkpoint.unwrap()).unwrap();
        let request = AddCheckpoint { old: 0, proof: Vec::new(), checkpoint: note };
        let answer = a.add_checkpoint(request.to_string()).await;
        assert_eq!(
            (answer.status, words(&answer)),
            (409, format!("{}\n", head.size)),
            "{}",
            node.log.record().origin
        );
    }

    // The mailboxes are marked, and their next observation is a first one.
    let marked = |name: &str| {
        let label = syndicate::proof::Label::of_address(a.log.vrf(), &name.parse().unwrap());
        a.log.directory().tip(&label).unwrap()
    };
    until(|| [alice, bob].iter().all(|name| marked(name).current == 0)).await;
    assert_eq!((marked(alice).version, marked(bob).version), (3, 2));
    for (name, byte) in [(alice, 2), (bob, 3)] {
        assert!(!a.log.is_forgotten(&name.parse().unwrap()).await.unwrap(), "nobody asked for it");
        let draft = mailbox(name, byte, Event::FirstSeen, clock.now());
        a.log.submit_urgent(draft).await.unwrap();
    }
    let question = |name: &str| syndicate::log::answer::Question {
        name: name.parse().unwrap(),
        span: syndicate::log::answer::Span::From(0),
        has_genesis: false,
    };
    let answers = Answerer::new(a.log.reader());
    for (name, latest) in [(alice, 4), (bob, 3), ("two.example", 1)] {
        let receipt = answers.receipt(&question(name)).await.unwrap();
        assert_eq!(receipt.latest(), latest, "{name}");
    }
    // Both others cosign what it goes on with, in one history.
    let head = a.log.heads().published.unwrap();
    let note = SignedCheckpoint::parse(&head.checkpoint.unwrap()).unwrap();
    let cosigners: Vec<VerifierKey> =
        places[1..].iter().map(|place| place.cosigner().verifier()).collect();
    assert_eq!(note.verify(&cosigners).unwrap().len(), 2);
    for node in nodes.iter().chain([&a]) {
        assert_eq!(node.accusations(), [], "{loss:?}");
    }
    let key = places[0].log_key().verifier();
    let store = a.stop().await;
    let whole = syndicate::log::check::check(&store, &key).await.unwrap().unwrap();
    assert!(whole.checkpoints.contains(&(published.size, published.root)));
}

/// Threat 12, for what was cosigned: a log that lies about it is overruled by any
/// mirror that saw the cosignature.
#[tokio::test]
async fn what_was_cosigned_is_learned_from_others() {
    let (liar, friend) = (Rogue::start().await, Rogue::start().await);
    let mut log = MiniLog::new();
    log.batch(at(2 * MINUTE), []);
    liar.serve(&log);
    let mut place = Place::new("judge.example/log", 9).await;
    let other = SigningKey::ed25519("friend.example/log", &[55; 32]).unwrap();
    let friends = Mirror { url: friend.url.clone(), log: other.verifier(), cosigner: None };
    // What the judge cosigned, as the friend saw it: a tree that the liar has left.
    let mut before = MiniLog::new();
    before.batch(at(MINUTE), [first(&orgs()[0])]);
    let mut seen = signed(&before.entries);
    let line = seen.cosign(&place.cosigner(), at(MINUTE));
    seen.add(&place.cosigner().verifier(), line).unwrap();
    let name = place.cosigner().verifier().name().to_owned();
    let path = |log: &str| {
        let (log, by) = (sha2_of(log.as_bytes()), sha2_of(name.as_bytes()));
        format!("{}/cosigned-by/{}", hex::encode(log), hex::encode(by))
    };
    friend.put(path(ORIGIN), seen.to_string().into_bytes().into());
    // One that only claims to be cosigned.
    let mut false_one = signed(&log.entries);
    let forged = SigningKey::cosigner(&name, &[66; 32]).unwrap();
    let line = false_one.cosign(&forged, at(MINUTE));
    false_one.add(&forged.verifier(), line).unwrap();
    friend.put(path("friend.example/log"), false_one.to_string().into_bytes().into());

    let clock = Clock::manual(at(2 * MINUTE));
    let mirrors = vec![liar.as_peer(), friends];
    let node = Node::start(&mut place, &clock, options(mirrors), 0).await;
    let size = before.entries.len() as u64;
    let guard = node.log.guard().clone();
    until(|| guard.read().unwrap().is_some_and(|marks| !marks.cosigned.is_empty())).await;
    let marks = guard.read().unwrap().unwrap();
    let root = root_from_leaves(&leaves(&before.entries));
    assert_eq!(marks.cosigned, [(ORIGIN.to_owned(), (size, root))].into());
    // Whatever it is asked from then on, it is held to that.
    let ask = async || node.add_checkpoint(request(&log.entries, 0).to_string()).await;
    let ends = tokio::time::Instant::now() + PATIENCE;
    let answer = loop {
        let answer = ask().await;
        if answer.status != 503 || tokio::time::Instant::now() > ends {
            break answer;
        }
    };
    assert_eq!((answer.status, words(&answer)), (409, format!("{size}\n")));
}

/// A mirror remembers for the others what it saw them cosign, and gives back the
/// whole of a log, to whoever asks for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_followed_is_served_to_others() {
    let rogue = Rogue::start().await;
    let mut log = small();
    rogue.serve(&log);
    let mut place = Place::new("judge.example/log", 9).await;
    let third = SigningKey::cosigner("third.example/cosigner", &[44; 32]).unwrap();
    let third_mirror = Mirror {
        url: "http://127.0.0.1:9".into(),
        log: SigningKey::ed25519("third.example/log", &[45; 32]).unwrap().verifier(),
        cosigner: Some(third.verifier()),
    };
    let mut with = signed(&log.entries);
    let line = with.cosign(&third, at(2 * MINUTE));
    with.add(&third.verifier(), line).unwrap();
    rogue.put("checkpoint".into(), with.to_string().into_bytes().into());
    let clock = Clock::manual(at(2 * MINUTE));
    let mirrors = vec![rogue.as_peer(), third_mirror];
    let node = Node::start(&mut place, &clock, options(mirrors), 0).await;
    let size = log.entries.len() as u64;
    let origin = hex::encode(sha2_of(ORIGIN.as_bytes()));
    let path = format!("{origin}/cosigned-by/{}", hex::encode(sha2_of(b"third.example/cosigner")));
    let good = |peer: &Arc<Peer>| peer.origin() == ORIGIN && peer.standing().size >= size;
    until(|| node.peers.iter().any(good)).await;
    // Its newest has not that cosignature any more.
    log.batch(at(2 * MINUTE), []);
    let ends = tokio::time::Instant::now() + PATIENCE;
    while node.site.get(&path, 1 << 16).await.unwrap().status != 200 {
        assert!(tokio::time::Instant::now() < ends);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    rogue.serve(&log);
    let signed = |peer: &Arc<Peer>| {
        let signed = peer.standing().signed;
        peer.origin() == ORIGIN && signed.is_some_and(|signed| signed.checkpoint().size > size)
    };
    until(|| node.peers.iter().any(signed)).await;
    let kept = node.site.get(&path, 1 << 16).await.unwrap();
    assert_eq!(SignedCheckpoint::parse(&kept.body).unwrap(), with);

    // The same as from the log itself, which is gone.
    rogue.set_down(true);
    let source = LogSource::new(&node.site.at(&origin), log_vkey()).unwrap();
    let followed = node.site.get(&format!("{origin}/followed"), 1 << 16).await.unwrap();
    let target = source.read_checkpoint(&followed.body).unwrap();
    assert_eq!(target.checkpoint().size, size + 1);
    let page = source.page(&Position::new(), &target).await.unwrap();
    assert_eq!(page.entries, log.entries);
    let [one, ..] = orgs();
    let record = Blob::of(one.record().as_bytes());
    let fetched = source.blob(&record).await.unwrap();
    assert!(matches!(fetched, syndicate::client::follow::Fetched::Here(_)), "{fetched:?}");
    for nothing in ["followed", "checkpoint", "tile/0/000", "v1/blob/00", "cosigned-by/00"] {
        let path = format!("{}/{nothing}", hex::encode([1; 32]));
        assert_eq!(node.site.get(&path, 1 << 16).await.unwrap().status, 404, "{nothing}");
    }
}

/// Threat 14: what most peers just published stops a mirror whose clock is off;
/// what one of them says does not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_most_peers_contradict_stops_the_log() {
    let mut places = Vec::new();
    for (seed, name) in [(1, "a.example/log"), (2, "b.example/log"), (3, "c.example/log")] {
        places.push(Place::new(name, seed).await);
    }
    let all: Vec<Mirror> = places.iter().map(Place::as_peer).collect();
    let clocks = [(); 3].map(|()| Clock::manual(at(HOUR)));
    let mut nodes = Vec::new();
    for (own, place) in places.iter_mut().enumerate() {
        let others = all.iter().enumerate().filter(|(n, _)| *n != own);
        let others = options(others.map(|(_, mirror)| mirror.clone()).collect());
        nodes.push(Node::start(place, &clocks[own], others, 0).await);
    }
    // Each mirror logs something new, if it may.
    let beat = async |turn: usize| {
        for (node, clock) in nodes.iter().zip(&clocks) {
            clock.advance(1);
            let event = if turn == 0 { Event::FirstSeen } else { Event::RecordChanged };
            let org = &orgs()[2];
            let _ = node.log.submit_urgent(org.draft(&[event], Dnssec::Indeterminate)).await;
        }
        tokio::time::sleep(Duration::from_millis(150)).await;
    };
    for turn in 0..3 {
        beat(turn).await;
    }
    assert!(nodes.iter().all(|node| node.log.blocked().is_none()));
    // B's clock runs ten minutes ahead: A and C see one peer that says so.
    clocks[1].advance(10 * MINUTE);
    let ends = tokio::time::Instant::now() + PATIENCE;
    while !matches!(nodes[1].log.blocked(), Some(Blocked::ClockOff { .. })) {
        assert!(tokio::time::Instant::now() < ends, "{:?}", nodes[1].log.blocked());
        beat(1).await;
    }
    let Some(blocked @ Blocked::ClockOff { by }) = nodes[1].log.blocked() else { panic!() };
    assert!((-610_000..=-590_000).contains(&by), "{by}");
    assert!(blocked.to_string().contains("behind this one"), "{blocked}");
    assert!(!blocked.doubts_memory(), "it still cosigns, by its own clock");
    for _ in 0..3 {
        beat(1).await;
    }
    assert_eq!((nodes[0].log.blocked(), nodes[2].log.blocked()), (None, None));
    // It was the others who were slow: once they agree, it goes on.
    clocks[0].set(clocks[1].now());
    clocks[2].set(clocks[1].now());
    let ends = tokio::time::Instant::now() + PATIENCE;
    while nodes[1].log.blocked().is_some() {
        assert!(tokio::time::Instant::now() < ends, "{:?}", nodes[1].log.blocked());
        beat(1).await;
    }
    // The operator knows better than all peers: by the same word as ever.
    clocks[1].advance(10 * MINUTE);
    let ends = tokio::time::Instant::now() + PATIENCE;
    while nodes[1].log.blocked().is_none() {
        assert!(tokio::time::Instant::now() < ends);
        beat(1).await;
    }
    nodes[1].log.accept_clock();
    let ends = tokio::time::Instant::now() + PATIENCE;
    while nodes[1].log.blocked().is_some() {
        assert!(tokio::time::Instant::now() < ends);
        beat(1).await;
    }
    for _ in 0..3 {
        beat(1).await;
    }
    assert_eq!(nodes[1].log.blocked(), None);
    for node in &nodes {
        assert_eq!(node.accusations(), []);
    }
}

fn peer_folder() -> String {
    syndicate::store::keys::peer(&sha2_of(ORIGIN.as_bytes()))
}

/// A long log comes in pages, each checked against the signed root.
#[tokio::test]
async fn a_long_log_is_followed_in_pages() {
    let entries: Vec<Bytes> =
        (0..40_000u32).map(|n| Bytes::from(n.to_be_bytes().to_vec())).collect();
    let rogue = Rogue::start().await;
    rogue.serve_entries(&entries);
    let source = rogue.source();
    let target = source.checkpoint().await.unwrap();
    let mut position = Position::new();
    let mut followed = Vec::new();
    let mut pages = 0;
    while position.size() < 40_000 {
        let page = source.page(&position, &target).await.unwrap();
        assert_eq!(page.first, position.size());
        followed.extend(page.entries);
        position = Position::decode(&page.position.encode()).unwrap();
        pages += 1;
    }
    assert_eq!((pages, followed == entries), (3, true));
    assert_eq!(position.root(), target.checkpoint().root);
    // One changed entry in the middle is noticed on its page, before the end.
    let mut wrong = entries[256 * 70..256 * 71].to_vec();
    wrong[3] = Bytes::from_static(b"x");
    let path = BundleCoordinate { index: 70, width: 256 }.path();
    rogue.put(path, encode_bundle(&wrong).unwrap().into());
    let first = source.page(&Position::new(), &target).await.unwrap();
    assert!(source.page(&first.position, &target).await.is_err());
    // What checkpoints are to each other.
    let relate = async |old: u64, new: u64| {
        let part = |size: u64| signed(&entries[..size as usize]);
        source.relate(&part(old), &part(new)).await.unwrap()
    };
    assert_eq!(relate(40_000, 40_000).await, Relation::Same);
    assert_eq!(relate(100, 40_000).await, Relation::Newer);
    assert_eq!(relate(40_000, 32_768).await, Relation::Older);
    let mut other = entries[..32_768].to_vec();
    other[0] = Bytes::from_static(b"other");
    for held in [signed(&other), target.clone()] {
        let new = if held == target { signed(&other) } else { target.clone() };
        let Relation::Fork(fork) = source.relate(&held, &new).await.unwrap() else { panic!() };
        fork.verify(&log_vkey()).unwrap();
        assert_eq!(fork.smaller.checkpoint().size, 32_768);
    }
}

/// A public witness gets published heads only, and does not count for the quorum.
/// A peer's map on disk: made again at a restart, from its snapshot and without
/// one; no room for it is our condition, which ends, and accuses nobody.
#[tokio::test]
async fn a_map_on_disk_is_made_again() {
    let rogue = Rogue::start().await;
    let mut log = small();
    rogue.serve(&log);
    let mut place = Place::new("judge.example/log", 9).await;
    let clock = Clock::manual(at(2 * MINUTE));
    let maps = place.folder.path().join("maps");
    let options =
        || Options { maps: directory::Place::Disk(maps.clone()), ..options(vec![rogue.as_peer()]) };
    let node = Node::start(&mut place, &clock, options(), 0).await;
    let ours = |now: &Standing| matches!(now.status, Status::Condition(Condition::Ours(_)));
    let standing = node.until(ours).await;
    assert!(standing.status.to_string().contains("room for the map"), "{}", standing.status);
    assert_eq!(standing.size, 0);
    std::fs::create_dir(&maps).unwrap();
    node.until_good(log.entries.len() as u64).await;
    assert!(node.peers[0].map().bytes_on_disk() > 0);
    assert_eq!(std::fs::read_dir(&maps).unwrap().count(), 0, "it has no name");
    node.stop().await;

    log.batch(at(2 * MINUTE + 1000), [first(&orgs()[2])]);
    rogue.serve(&log);
    // The next start finds no room at first: what is kept of the log stays.
    std::fs::remove_dir(&maps).unwrap();
    let kept = |place: &Place| {
        let folder = place.folder.path().join("blobs/private").join(peer_folder());
        std::fs::read(folder.join("position")).unwrap()
    };
    let before = kept(&place);
    let node = Node::start(&mut place, &clock, options(), 0).await;
    node.until(ours).await;
    assert_eq!(kept(&place), before);
    std::fs::create_dir(&maps).unwrap();
    node.until_good(log.entries.len() as u64).await;
    assert_eq!(node.peers[0].map().committed().root, log.directory_root());
    assert!(node.peers[0].map().bytes_on_disk() > 0);
    assert_eq!(node.accusations(), []);
    node.stop().await;
}

#[tokio::test]
async fn public_witnesses_are_fed_what_is_published() {
    // A mirror stands in for it: it knows the protocol.
    let clock = Clock::manual(at(0));
    let (mut own, mut witness) =
        (Place::new("a.example/log", 1).await, Place::new("w.example/log", 2).await);
    let fed = Options {
        witnesses: vec![PublicWitness {
            url: witness.url.clone(),
            key: witness.cosigner().verifier(),
            qpd: 86_400 * 10,
        }],
        ..options(Vec::new())
    };
    let following = Mirror { cosigner: None, ..own.as_peer() };
    let _witness = Node::start(&mut witness, &clock, options(vec![following]), 0).await;
    let node = Node::start(&mut own, &clock, fed, 0).await;
    let key = witness.cosigner().verifier();
    let mut heads = node.log.watch_heads();
    let cosigned = |heads: &log::Heads| {
        let Some(note) = heads.published.as_ref().and_then(|head| head.checkpoint.clone()) else {
            return false;
        };
        SignedCheckpoint::parse(&note).unwrap().verify([&key]).is_ok()
    };
    tokio::time::timeout(PATIENCE, heads.wait_for(cosigned)).await.expect("cosigned").unwrap();
}

/// Everything that a peer's folder keeps can be read as a log's public store.
#[tokio::test]
async fn a_peers_log_is_kept_whole() {
    let (rogue, mut log, _place, node, _clock) = judging().await;
    node.until_good(log.entries.len() as u64).await;
    for turn in 0..300 {
        log.batch(at(2 * MINUTE + turn), []);
    }
    rogue.serve(&log);
    let size = log.entries.len() as u64;
    node.until_good(size).await;
    let archive = node.peers[0].archive();
    for index in [0, 5, 255, 256, size - 1] {
        let entry = archive.entry(index, size).await.unwrap();
        assert_eq!(entry, log.entries[index as usize]);
    }
    for old in [1, 6, 256, 257, size] {
        let expected = root_from_leaves(&leaves(&log.entries[..old as usize]));
        assert_eq!(archive.root_at(old, size).await.unwrap(), expected);
    }
    for (hash, bytes) in &log.blobs {
        // Signets of mailboxes are no public blobs.
        if let Some(kept) = archive.blob(hash).await.unwrap() {
            assert_eq!(kept, *bytes);
        }
    }
    // Partial tiles of smaller trees go.
    until_async(async || {
        let tiles = store_names(archive.blobs(), "tile/0").await;
        tiles.iter().filter(|key| key.contains(".p/")).count() == 1
    })
    .await;
}

async fn store_names(blobs: &Blobs, prefix: &str) -> Vec<String> {
    let found = blobs.list_all(prefix, 1000).await.unwrap();
    found.into_iter().map(|found| found.key).collect()
}

/// The own log is no peer.
#[tokio::test]
async fn a_mirror_does_not_follow_itself() {
    let clock = Clock::manual(at(0));
    let place = Place::new("a.example/log", 1).await;
    let folder: &Path = place.folder.path();
    let keys = Keys { log: place.log_key(), vrf: Arc::new(vrf::SecretKey::from_seed(&[1; 32])) };
    let log_options = log::Options {
        origin: Some(place.name.clone()),
        ..log::Options::new(folder.join("guard"))
    };
    let state = Arc::new(MemoryState::default());
    let opened = log::open(log_options, Store::memory(), state, keys, clock.clone()).await.unwrap();
    let registry = prometheus::Registry::new();
    let rooms = Rooms {
        log: opened.log,
        clock,
        cosigner: place.cosigner(),
        accuse: Arc::new(Filed::default()),
        heard: Vec::new(),
        metrics: Metrics::new(&registry).unwrap(),
    };
    let refused = Peers::new(options(vec![place.as_peer()]), rooms).err().unwrap();
    assert!(refused.to_string().contains("a.example/log"), "{refused}");
}

/// Cosignatures for other people's note reader, which knows logs' keys only:
/// C2SP tlog-cosignature in its own words.
struct Cosignatures(VerifierKey);

impl signed_note::Verifier for Cosignatures {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn key_id(&self) -> u32 {
        u32::from_be_bytes(self.0.id().0)
    }

    fn verify(&self, text: &[u8], signature: &[u8]) -> bool {
        let Some((time, signature)) = signature.split_first_chunk::<8>() else { return false };
        let mut message = format!("cosignature/v1\ntime {}\n", u64::from_be_bytes(*time));
        message.push_str(std::str::from_utf8(text).unwrap());
        let key = ed25519_dalek::VerifyingKey::from_bytes(self.0.public_key().unwrap()).unwrap();
        let signature = ed25519_dalek::Signature::from_slice(signature).unwrap();
        key.verify_strict(message.as_bytes(), &signature).is_ok()
    }
}

/// The tiles of a public store, for other people's tile reader.
struct Tiles(BTreeMap<String, Bytes>);

impl tlog_tiles::tile::TileReader for Tiles {
    fn height(&self) -> u8 {
        8
    }

    fn read_tiles(
        &self,
        tiles: &[tlog_tiles::tile::Tile],
    ) -> Result<Vec<Vec<u8>>, tlog_tiles::tlog::Error> {
        // Its paths name the height, those of C2SP tlog-tiles do not.
        let path = |tile: &tlog_tiles::tile::Tile| tile.path().replacen("tile/8/", "tile/", 1);
        Ok(tiles.iter().map(|tile| self.0[&path(tile)].to_vec()).collect())
    }

    fn save_tiles(&self, _: &[tlog_tiles::tile::Tile], _: &[Vec<u8>]) {}
}

/// What we publish is read by code that is not ours.
#[tokio::test]
async fn a_cosigned_log_passes_foreign_code() {
    use tlog_tiles::tlog;
    let clock = Clock::manual(at(0));
    let (mut one, mut other) =
        (Place::new("a.example/log", 1).await, Place::new("b.example/log", 2).await);
    let (a, b) = (one.as_peer(), other.as_peer());
    let node = Node::start(&mut one, &clock, options(vec![b]), 1).await;
    let _other = Node::start(&mut other, &clock, options(vec![a]), 0).await;
    clock.set(at(1000));
    let [first_org, second, _] = orgs();
    let before = node.log.submit_urgent(first(&first_org)).await.unwrap().size;
    // Over the edge of a tile.
    let users: Vec<Draft> = (0..300u32)
        .map(|n| {
            let address = format!("user{n}@one.example");
            let key = key(syndicate::dime::key::Owner::User, 1);
            let signet = first_org.user(&address, &key, None, None);
            first_org.user_draft(&address, &signet, Event::FirstSeen, clock.now())
        })
        .collect();
    let log = &node.log;
    futures::future::join_all(users.into_iter().map(|draft| log.submit_urgent(draft))).await;
    node.log.submit_urgent(first(&second)).await.unwrap();

    let note = node.site.get("checkpoint", 1 << 16).await.unwrap().body;
    let note = signed_note::Note::from_bytes(&note).unwrap();
    let log_key = signed_note::StandardVerifier::new(&one.log_key().verifier().to_string());
    let verifiers = signed_note::VerifierList::new(vec![
        Box::new(log_key.unwrap()),
        Box::new(Cosignatures(other.cosigner().verifier())),
    ]);
    let (verified, unknown) = note.verify(&verifiers).unwrap();
    assert_eq!((verified.len(), unknown.len()), (2, 0));
    let checkpoint = tlog_tiles::checkpoint::Checkpoint::from_bytes(note.text()).unwrap();
    assert_eq!(checkpoint.origin(), "a.example/log");
    let (size, root) = (checkpoint.size(), *checkpoint.hash());
    assert!(size > 300);

    let mut tiles = Tiles(BTreeMap::new());
    for key in store_names(&node.store.public, "tile").await {
        // Partial ones go when the full one is old, by clocks that are not one here.
        if let Some(bytes) = node.store.public.get(&key, 1 << 20).await.unwrap() {
            tiles.0.insert(key, bytes);
        }
    }
    let hashes = tlog_tiles::tile::TileHashReader::new(size, root, &tiles);
    assert_eq!(tlog::tree_hash(size, &hashes).unwrap().0, root.0);
    let old = tlog::tree_hash(before, &hashes).unwrap();
    let ours = node.log.reader().consistency(before, size).await.unwrap();
    let ours: Vec<tlog::Hash> = ours.into_iter().map(tlog::Hash).collect();
    assert_eq!(tlog::prove_tree(size, before, &hashes).unwrap(), ours);
    tlog::check_tree(&ours, size, root, before, old).unwrap();
    for index in [0, 5, 255, 256, size - 1] {
        let entry = node.log.reader().entry(index).await.unwrap().unwrap();
        let path = node.log.reader().inclusion(index, size).await.unwrap();
        let path: Vec<tlog::Hash> = path.into_iter().map(tlog::Hash).collect();
        tlog::check_record(&path, size, root, index, tlog::record_hash(&entry)).unwrap();
    }
}
