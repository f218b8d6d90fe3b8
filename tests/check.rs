//! A client's own view against several mirrors with logs of their own, all
//! real: DNS, DX hosts, crawls, HTTP, on loopback.

#[path = "support/netns.rs"]
mod netns;
#[path = "support/process.rs"]
mod process;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde_json::{Value, json};
use syndicate::client::memory::Memory;
use syndicate::client::{
    self, Check, CheckError, DnsRoot, Eyes, Options, Policy, Said, Standing, Verdict,
};
use syndicate::clock::Clock;
use syndicate::config::{File, PeerSection};
use syndicate::daemon;
use syndicate::demo::host::{Authority, Certificate};
use syndicate::demo::world::{self, World};
use syndicate::dime::signet::Level;
use syndicate::dime::{Address, Domain, Name, Timestamp};
use syndicate::dmtp;
use syndicate::dmtp::reach::Ports;
use syndicate::proof::checkpoint::Checkpoint;
use syndicate::proof::incident::{
    CLIENT, Evidence, Fork, Incident, Kind, Party, Receipts, Shown, Victim, verify,
};
use syndicate::proof::note::SigningKey;
use syndicate::resolver::{self, HickoryResolver, NameServers};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

/// A mirror in this process. Its data outlives it.
struct Site {
    mirror: Option<daemon::Mirror>,
    file: File,
    folder: TempDir,
}

impl Site {
    async fn start(world: &World, origin: &str) -> Site {
        Site::start_seeing(world, world.name_servers(), origin).await
    }

    /// With the view of these name servers.
    async fn start_seeing(world: &World, view: NameServers, origin: &str) -> Site {
        let mut site = Site::new(world, view, origin);
        site.resume().await;
        site
    }

    /// The same, before its first start.
    fn new(world: &World, view: NameServers, origin: &str) -> Site {
        let folder = tempfile::tempdir().unwrap();
        let (anchor, roots) = (folder.path().join("root.key"), folder.path().join("ca.pem"));
        fs::write(&anchor, world.dns().trust_anchor_text()).unwrap();
        fs::write(&roots, world.authority_pem()).unwrap();
        let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/vectors/records");
        let mut file = File { data: Some(folder.path().join("mirror")), ..File::default() };
        file.log.origin = Some(origin.into());
        // An address of its own: nobody else gets a port there while it is down.
        static NEXT: AtomicU8 = AtomicU8::new(1);
        file.http.listen = format!("127.1.12.{}:0", NEXT.fetch_add(1, Ordering::SeqCst));
        file.dmtp.listen = "127.0.0.1:0".into();
        file.dmtp.certificate = Some(vectors.join("dx_cert.pem"));
        file.dmtp.key = Some(vectors.join("dx_key.pem"));
        let NameServers::Listed(servers) = view else { panic!("a private DNS") };
        file.dns.servers = servers.iter().map(ToString::to_string).collect();
        file.dns.trust_anchor = Some(anchor);
        file.crawl.roots = Some(roots);
        file.crawl.allow_networks = vec!["127.0.0.0/8".into()];
        file.crawl.dx_port = world.dmtp_port();
        file.crawl.on_demand_delay_secs = 0;
        // Every visit sees the signet itself.
        file.crawl.full_check_hours = 0;
        Site { mirror: None, file, folder }
    }

    async fn resume(&mut self) {
        let mut config = self.file.check().unwrap();
        config.batch_millis = 100;
        let ends = Instant::now() + process::PATIENCE;
        let started = loop {
            match daemon::Mirror::start(&config, Clock::system()).await {
                // Of the mirror before, in this process, something may still end.
                Err(error) if is_in_use(&error) && Instant::now() < ends => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                started => break started.unwrap(),
            }
        };
        self.mirror = Some(started);
    }

    async fn stop(&mut self) {
        self.mirror.take().unwrap().stop().await;
    }

    fn mirror(&self) -> &daemon::Mirror {
        self.mirror.as_ref().unwrap()
    }

    fn url(&self) -> String {
        format!("http://{}/", self.mirror().http)
    }

    async fn visit(&self, name: &str) {
        let name: Name = name.parse().unwrap();
        let report = self.mirror().crawl.visit(name, "test").await.unwrap();
        assert!(report.outcome.is_good(), "{}", report.outcome);
    }
}

fn is_in_use(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(syndicate::store::Error::InUse { .. }))
}

/// Three mirrors that have seen these names.
async fn three(world: &World, names: &[&str]) -> Vec<Site> {
    let mut sites = Vec::new();
    for origin in ["one.example/log", "two.example/log", "three.example/log"] {
        let site = Site::start(world, origin).await;
        for name in names {
            site.visit(name).await;
        }
        sites.push(site);
    }
    sites
}

fn policy_text(sites: &[&Site]) -> String {
    let line = |site: &&Site| format!("log {} {}\n", site.mirror().key, site.url());
    format!("{}quorum none\n", sites.iter().map(line).collect::<String>())
}

fn policy(sites: &[&Site]) -> Policy {
    Policy::parse(policy_text(sites).as_bytes()).unwrap()
}

fn eyes(world: &World, resolver: resolver::Options) -> Eyes {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Eyes {
        resolver: Arc::new(HickoryResolver::new(resolver).unwrap()),
        dmtp: dmtp::Options {
            filter: world.address_filter(),
            roots: world.roots(),
            ..dmtp::Options::default()
        },
        ports: Ports { dx: world.dmtp_port(), dual: vec![] },
        clock: Clock::system(),
    }
}

/// A client with a memory of its own.
struct Client {
    eyes: Eyes,
    options: Options,
    _memory: TempDir,
}

impl Client {
    fn new(world: &World, policy: Option<Policy>) -> Client {
        let memory = tempfile::tempdir().unwrap();
        let options = Options {
            policy,
            root: DnsRoot::Only(world.trust_anchor().of_root()),
            memory: Some(Memory::open(memory.path()).unwrap()),
            ..Options::default()
        };
        Client { eyes: eyes(world, world.resolver_options()), options, _memory: memory }
    }

    async fn check(&self, name: &str) -> Check {
        client::check(&name.parse().unwrap(), &self.eyes, &self.options).await.unwrap()
    }
}

#[track_caller]
fn expect(check: &Check, verdict: Verdict) {
    assert_eq!(check.verdict, verdict, "{:#?}", check.reasons);
    assert!(!check.reasons.is_empty() && check.reasons.iter().all(|reason| !reason.is_empty()));
    assert_eq!(check.verdict != Verdict::Split, check.incidents.is_empty(), "{verdict}");
}

fn standings(check: &Check) -> Vec<Option<Standing>> {
    check.answers.iter().map(|answer| answer.standing).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_everybody_sees() {
    let world = World::start(world::Options::default()).await.unwrap();
    let names = ["alice@cedar.example", "bob@alder.example", "erin@hazel.example"];
    let sites = three(&world, &names).await;
    let all: Vec<&Site> = sites.iter().collect();
    let mut client = Client::new(&world, Some(policy(&all)));

    for name in ["alice@cedar.example", "cedar.example", "bob@alder.example"] {
        let check = client.check(name).await;
        expect(&check, Verdict::Agreed);
        assert_eq!((check.agreeing, check.needed, check.operators), (3, 3, 3));
        assert!(check.lack.is_none() && check.view.chain.is_some());
    }
    // The fingerprint of the key in use is compared as well.
    let cedar: Address = "alice@cedar.example".parse().unwrap();
    let served = world.served(&cedar).unwrap();
    let print = |at: usize| served[at].fingerprint(Level::Crypto);
    client.options.fingerprint = print(served.len() - 1);
    expect(&client.check("alice@cedar.example").await, Verdict::Agreed);
    client.options.fingerprint = print(0);
    expect(&client.check("alice@cedar.example").await, Verdict::Lagging);
    client.options.fingerprint = None;

    // A name that no log has, and nobody to believe.
    let carol = world.enroll(cedar.domain(), "carol").unwrap();
    expect(&client.check(carol.as_str()).await, Verdict::Unknown);
    let nobody = Client::new(&world, None);
    let mut asked = Options { via: vec![sites[0].url()], ..nobody.options.clone() };
    let check = client::check(&Name::Address(cedar.clone()), &nobody.eyes, &asked).await.unwrap();
    expect(&check, Verdict::Unknown);
    assert!(matches!(check.answers[0].said, Said::Claim(_)));
    // More operators than there are cannot agree.
    asked = Options { quorum: Some(4), ..client.options.clone() };
    let refused = client::check(&Name::Address(cedar.clone()), &client.eyes, &asked).await;
    assert!(matches!(refused, Err(CheckError::Quorum { needed: 4, operators: 3 })));

    // A rotation that one of them has not seen yet; then it has. They look by
    // themselves a minute after their last visit, which is now.
    for site in &sites {
        site.visit("alice@cedar.example").await;
    }
    world.rotate(&cedar).unwrap();
    for site in &sites[..2] {
        site.visit("alice@cedar.example").await;
    }
    let check = client.check("alice@cedar.example").await;
    expect(&check, Verdict::Lagging);
    let behind = [Some(Standing::Agrees), Some(Standing::Agrees), Some(Standing::Behind)];
    assert_eq!(standings(&check), behind);
    client.options.quorum = Some(2);
    expect(&client.check("alice@cedar.example").await, Verdict::Agreed);
    client.options.quorum = None;
    sites[2].visit("alice@cedar.example").await;
    expect(&client.check("alice@cedar.example").await, Verdict::Agreed);

    // A swap that everybody is shown: held, also while one is a crawl behind.
    for site in &sites {
        site.visit("erin@hazel.example").await;
    }
    world.swap_key(&"erin@hazel.example".parse().unwrap()).unwrap();
    for site in &sites[..2] {
        site.visit("erin@hazel.example").await;
    }
    let check = client.check("erin@hazel.example").await;
    expect(&check, Verdict::Held);
    let behind = [Some(Standing::Held), Some(Standing::Held), Some(Standing::Behind)];
    assert_eq!(standings(&check), behind);
    sites[2].visit("erin@hazel.example").await;
    expect(&client.check("erin@hazel.example").await, Verdict::Held);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_had() {
    let world = World::start(world::Options::default()).await.unwrap();
    let alice = "alice@cedar.example";
    let mut sites = three(&world, &[alice]).await;
    let all: Vec<&Site> = sites.iter().collect();
    let mut client = Client::new(&world, Some(policy(&all)));
    expect(&client.check(alice).await, Verdict::Agreed);

    // By a clock that is hours ahead everything is too old.
    let later = Timestamp::from_millis(Clock::system().now().millis() + 2 * 3_600_000);
    let clock = std::mem::replace(&mut client.eyes.clock, Clock::manual(later));
    let check = client.check(alice).await;
    expect(&check, Verdict::Unconfirmed);
    assert_eq!(standings(&check), [Some(Standing::Unconfirmed); 3]);
    // By one that is behind everything is of the future, and that is no log's fault.
    let before = Timestamp::from_millis(Clock::system().now().millis() - 2 * 3_600_000);
    client.eyes.clock = Clock::manual(before);
    let check = client.check(alice).await;
    expect(&check, Verdict::Unreachable);
    assert!(check.reasons[0].contains("Set the clock"), "{:?}", check.reasons);
    client.eyes.clock = clock;

    // A fingerprint of another key is not the mail host's doing.
    let another = syndicate::dime::signet::Fingerprint::of(b"another key");
    client.options.fingerprint = Some(another);
    let check = client.check(alice).await;
    assert_eq!((check.verdict, check.incidents.len()), (Verdict::Split, 0), "{:?}", check.reasons);
    assert!(check.reasons[0].contains("the fingerprint that you gave"), "{:?}", check.reasons);
    client.options.fingerprint = None;

    // Nothing of one's own to compare.
    let cedar: Domain = "cedar.example".parse().unwrap();
    world.stop_hosts(&cedar).await.unwrap();
    let check = client.check(alice).await;
    expect(&check, Verdict::Unconfirmed);
    assert!(check.lack.is_some());
    // But for the fingerprint.
    let served = world.served(&alice.parse().unwrap()).unwrap();
    client.options.fingerprint = served.last().unwrap().fingerprint(Level::Crypto);
    expect(&client.check(alice).await, Verdict::Agreed);
    client.options.fingerprint = Some(another);
    let check = client.check(alice).await;
    // There is no signet in hand that could convict anybody.
    assert_eq!((check.verdict, check.incidents.len()), (Verdict::Split, 0), "{:?}", check.reasons);
    client.options.fingerprint = None;
    world.resume_hosts(&cedar).await.unwrap();

    sites[2].stop().await;
    expect(&client.check(alice).await, Verdict::Unreachable);
    client.options.quorum = Some(2);
    expect(&client.check(alice).await, Verdict::Agreed);
    client.options.quorum = None;
    sites[0].stop().await;
    sites[1].stop().await;
    let check = client.check(alice).await;
    expect(&check, Verdict::Unreachable);
    assert!(check.answers.iter().all(|answer| matches!(answer.said, Said::Silent(_))));
}

/// The victim's view is the attacker's: what it shows is seen by nobody else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_for_the_victim_alone() {
    let world = World::start(world::Options::default()).await.unwrap();
    let alice: Address = "alice@cedar.example".parse().unwrap();
    let sites = three(&world, &[alice.as_str()]).await;
    let all: Vec<&Site> = sites.iter().collect();
    let mut client = Client::new(&world, Some(policy(&all)));
    let vantage = world.vantage().await.unwrap();
    let forged = world.swap_key_for(&vantage, &alice).await.unwrap();
    expect(&client.check(alice.as_str()).await, Verdict::Agreed);

    client.eyes = eyes(&world, vantage.resolver_options());
    let check = client.check(alice.as_str()).await;
    expect(&check, Verdict::Split);
    assert_eq!(standings(&check), [Some(Standing::Apart); 3]);
    let [incident] = &check.incidents[..] else { panic!("one incident") };
    assert_eq!((incident.kind, incident.observer.as_str()), (Kind::ForgedKey, CLIENT));
    let Evidence::Victim(victim) = &incident.evidence else { panic!("what was shown") };
    assert_eq!(victim.receipts.len(), 3);
    assert!(!victim.shown.chain.is_empty() && !victim.shown.signet.is_empty());
    // Two that agree with the forger change nothing: the contradiction stays.
    client.options.quorum = Some(1);
    expect(&client.check(alice.as_str()).await, Verdict::Split);

    // The command line says the same, keeps the file, and reports it.
    let place = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = place.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let policy = file("policy", &policy_text(&all));
    let (anchor, roots) =
        (file("root.key", world.dns().trust_anchor_text()), file("ca.pem", world.authority_pem()));
    let evidence = place.path().join("evidence");
    fs::create_dir(&evidence).unwrap();
    let NameServers::Listed(servers) = vantage.dns().name_servers() else { panic!("private") };
    let mut reports: Vec<_> = all.iter().map(|site| site.mirror().crawl.reports()).collect();
    let command = |more: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_syndicate"))
            .args(["check", alice.as_str(), "--json", "--allow-network", "127.0.0.0/8"])
            .args(["--policy", &policy, "--trust-anchor", &anchor, "--roots", &roots])
            .args(["--dx-port", &world.dmtp_port().to_string()])
            .args(["--state", place.path().join("state").to_str().unwrap()])
            .args(["--evidence", evidence.to_str().unwrap()])
            .args(more)
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        let said: Value = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}{errors}"));
        (output.status.code(), said)
    };
    let (code, said) = command(&["--dns", &world.dns().address().to_string()]);
    assert_eq!((code, said["verdict"].as_str()), (Some(0), Some("AGREED")), "{said}");
    // The verdict does not wait for a folder.
    let away = place.path().join("away");
    fs::rename(&evidence, &away).unwrap();
    let (code, said) = command(&["--dns", &servers[0].to_string()]);
    assert_eq!((code, said["verdict"].as_str()), (Some(3), Some("SPLIT")), "{said}");
    assert_eq!(said["evidence"], json!([]));
    fs::rename(&away, &evidence).unwrap();
    let (code, said) = command(&["--dns", &servers[0].to_string(), "--report"]);
    assert_eq!((code, said["verdict"].as_str()), (Some(3), Some("SPLIT")), "{said}");
    let taken: Vec<&Value> =
        said["reports"].as_array().unwrap().iter().map(|report| &report["taken"]).collect();
    assert_eq!(taken, [true, true, true], "{said}");
    // As the help says of signets that came over DMTP.
    let listed = said["reports"].as_array().unwrap().iter().map(|report| &report["listed"]);
    assert!(listed.clone().count() == 3 && listed.clone().all(|listed| listed == false), "{said}");
    let path = said["evidence"][0].as_str().unwrap();
    assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    let kept = Incident::read(&fs::read(path).unwrap()).unwrap();
    let anchors = world.trust_anchor().of_root();
    let findings = verify(&kept, &anchors, client.options.policy.as_ref()).unwrap();
    assert!(!findings.proved.is_empty(), "{findings:?}");
    let output = Command::new(env!("CARGO_BIN_EXE_syndicate"))
        .args(["verify", path, "--json", "--policy", &policy, "--trust-anchor", &anchor])
        .output()
        .unwrap();
    let judged: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{judged}");
    // Each mirror looks for itself, a minute after its last visit at the latest.
    for reports in &mut reports {
        let seen = tokio::time::timeout(Duration::from_secs(180), reports.recv()).await;
        assert_eq!(seen.expect("a visit").unwrap().domain, *alice.domain());
    }

    // A copy at ID level binds key and name, and is listed.
    let org = world.org_signet(alice.domain()).unwrap();
    assert_eq!((forged.level(), org.level()), (Level::Id, Level::Id));
    let shown = Shown {
        org_signet: org.bytes().to_vec().into(),
        signet: forged.bytes().to_vec().into(),
        ..victim.shown.clone()
    };
    let (at, name) = (Clock::system().now(), Name::Address(alice.clone()));
    let victim = Victim { shown, receipts: victim.receipts.clone() };
    let incident = Incident::forged_key(CLIENT, at, name, victim);
    assert!(verify(&incident, &anchors, None).unwrap().convicts.is_some());
    let policy = client.options.policy.as_ref().unwrap();
    let patience = Duration::from_secs(30);
    for reported in client::report(policy, &incident, &world.roots(), patience).await {
        assert_eq!(reported.outcome, Ok(true), "{}", reported.url);
    }

    // What is old, another's, or unfounded is refused.
    let web = reqwest::Client::builder().no_proxy().build().unwrap();
    let post = async |body: String| {
        let sent = web.post(format!("{}v1/report", sites[0].url())).body(body).send().await;
        let answer = sent.unwrap();
        let status = answer.status().as_u16();
        let body: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        (status, body["error"]["code"].as_str().unwrap_or_default().to_owned())
    };
    let with = |key: &str, value: Value| {
        let mut body = incident.to_json();
        body[key] = value;
        body.to_string()
    };
    assert_eq!(post("{}".into()).await, (400, "incident".into()));
    assert_eq!(post(with("observer", json!("one.example/log"))).await.1, "report-kind");
    let old = incident.at.millis() - 3_600_000;
    assert_eq!(post(with("at", json!(old))).await.1, "report-time");
    let mut known = incident.clone();
    let Evidence::Victim(shown) = &mut known.evidence else { panic!("what was shown") };
    shown.shown.signet = world.served(&alice).unwrap()[0].bytes().to_vec().into();
    assert_eq!(post(known.to_json().to_string()).await, (422, "incident-known-key".into()));
    let mut last = (0, String::new());
    for _ in 0..12 {
        last = post("{}".into()).await;
    }
    assert_eq!(last, (429, "reports".into()));
}

/// Two notes of one size under one key, as a client reports them now.
fn fork_by(key: &SigningKey) -> Incident {
    let at = Clock::system().now();
    let sign = |root| Checkpoint::new(key.name(), 7, [root; 32]).unwrap().sign(key, at).unwrap();
    let (smaller, larger) = (sign(2), sign(3));
    let fork = Fork { key: key.verifier(), smaller, larger, prefix: [3; 32], proof: vec![] };
    Incident::log_fork(CLIENT, at, fork)
}

/// Anybody can make a key, call it as he likes and sign two histories with it: such
/// a report is listed of this mirror's own log and of its peers' only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fork_is_listed_if_the_log_is_known() {
    let world = World::start(world::Options::default()).await.unwrap();
    let peer = SigningKey::ed25519("peer.example/log", &[7; 32]).unwrap();
    let mut site = Site::new(&world, world.name_servers(), "one.example/log");
    // It is not there to be followed, and need not be.
    site.file.peers.mirror = vec![PeerSection {
        url: "http://127.0.0.1:1".into(),
        log: peer.verifier().to_string(),
        cosigner: None,
        peer_key: None,
        share_addresses: false,
    }];
    site.resume().await;
    let text = fs::read_to_string(site.folder.path().join("mirror/keys/log.key")).unwrap();
    let own: SigningKey = text.trim().parse().unwrap();
    let impostor = |origin| SigningKey::ed25519(origin, &[9; 32]).unwrap();

    let policy = policy(&[&site]);
    let report = async |incident: &Incident| {
        assert!(verify(incident, &[], None).unwrap().convicts.is_some());
        let patience = Duration::from_secs(60);
        let mut sent = client::report(&policy, incident, &world.roots(), patience).await;
        sent.remove(0).outcome
    };
    for origin in ["honest.example/log", "peer.example/log", "one.example/log"] {
        assert_eq!(report(&fork_by(&impostor(origin))).await, Ok(false), "{origin}");
    }
    let private = &site.mirror().log.store().private;
    assert_eq!(private.list_all("incident", 10).await.unwrap(), [], "nothing is kept");
    for key in [&peer, &own] {
        assert_eq!(report(&fork_by(key)).await, Ok(true), "{}", key.name());
    }
    assert_eq!(private.list_all("incident", 10).await.unwrap().len(), 2);
    site.stop().await;
}

/// A mirror that logs the forged key which the DX shows to it and to the victim:
/// the others' receipts contradict it, whatever quorum the victim asks for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_and_a_dx_against_the_others() {
    let world = World::start(world::Options::default()).await.unwrap();
    let alice: Address = "alice@cedar.example".parse().unwrap();
    let vantage = world.vantage().await.unwrap();
    let one = Site::start(&world, "one.example/log").await;
    let two = Site::start(&world, "two.example/log").await;
    let view = vantage.dns().name_servers();
    let evil = Site::start_seeing(&world, view, "evil.example/log").await;
    world.swap_key_for(&vantage, &alice).await.unwrap();
    for site in [&one, &two, &evil] {
        site.visit(alice.as_str()).await;
    }
    let mut client = Client::new(&world, Some(policy(&[&one, &two, &evil])));
    client.eyes = eyes(&world, vantage.resolver_options());
    for quorum in [None, Some(1)] {
        client.options.quorum = quorum;
        let check = client.check(alice.as_str()).await;
        expect(&check, Verdict::Split);
        assert_eq!(standings(&check)[..2], [Some(Standing::Apart); 2]);
        let [incident] = &check.incidents[..] else { panic!("one incident") };
        assert_eq!(incident.kind, Kind::ForgedKey);
        let anchors = world.trust_anchor().of_root();
        let findings = verify(incident, &anchors, client.options.policy.as_ref()).unwrap();
        assert!(!findings.proved.is_empty(), "{findings:?}");
    }
    // Whoever sees what the others see finds the one that does not.
    client.eyes = eyes(&world, world.resolver_options());
    client.options.quorum = None;
    let check = client.check(alice.as_str()).await;
    assert_ne!(check.verdict, Verdict::Agreed, "{:?}", check.reasons);
    let agree = Some(Standing::Agrees);
    assert_eq!(standings(&check)[..2], [agree, agree], "{:?}", check.reasons);
    assert_ne!(standings(&check)[2], agree);
}

/// Nothing can be seen from here, and two logs contradict each other: a file says
/// so. What nobody has seen by turns is nobody's fault yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_logs_that_contradict_each_other_leave_a_file() {
    let world = World::start(world::Options::default()).await.unwrap();
    let alice: Address = "alice@cedar.example".parse().unwrap();
    let vantage = world.vantage().await.unwrap();
    let one = Site::start(&world, "one.example/log").await;
    let view = vantage.dns().name_servers();
    let other = Site::start_seeing(&world, view, "other.example/log").await;
    world.swap_key_for(&vantage, &alice).await.unwrap();
    let anchors = world.trust_anchor().of_root();
    let client = Client::new(&world, Some(policy(&[&one, &other])));
    for round in 0..2 {
        for site in [&one, &other] {
            site.visit(alice.as_str()).await;
        }
        world.stop_hosts(alice.domain()).await.unwrap();
        let check = client.check(alice.as_str()).await;
        expect(&check, Verdict::Split);
        assert!(check.lack.is_some() && check.reasons[0].contains("contradict each other"));
        let [incident] = &check.incidents[..] else { panic!("one incident") };
        assert_eq!((incident.kind, incident.observer.as_str()), (Kind::SplitView, CLIENT));
        let read = Incident::read(&incident.to_bytes()).unwrap();
        let findings = verify(&read, &anchors, client.options.policy.as_ref()).unwrap();
        // Signets over DMTP are below ID level: the organization signed both.
        assert!(findings.proved.iter().any(|line| line.contains("signed both keys")));
        let said = findings.testimony.join("\n");
        assert_eq!(said.contains("and again at"), round == 1, "{said}");
        assert_eq!(said.contains("a crawl behind"), round == 0, "{said}");
        assert_eq!(findings.convicts, None);
        world.resume_hosts(alice.domain()).await.unwrap();

        // The mirrors look for themselves, and keep nothing that convicts nobody.
        let policy = client.options.policy.as_ref().unwrap();
        let patience = Duration::from_secs(60);
        for reported in client::report(policy, incident, &world.roots(), patience).await {
            assert_eq!(reported.outcome, Ok(false), "{}", reported.url);
        }
        // Looks that are told beside what the logs signed are nobody's.
        let Evidence::Receipts(seen) = &incident.evidence else { panic!("receipts") };
        let round = syndicate::proof::incident::Round { origin: CLIENT.into(), at: incident.at };
        let told = Receipts { rounds: vec![round], ..seen.clone() };
        let told = Incident { evidence: Evidence::Receipts(told), ..incident.clone() };
        assert_eq!(verify(&told, &anchors, None).unwrap_err().rule(), "incident-rounds");
    }
}

/// What a client makes of its own view and the logs' answers.
fn accusation(check: &Check) -> Incident {
    let view = &check.view;
    let record = view.record.as_ref().unwrap();
    let shown = Shown {
        at: view.at,
        record: record.text.clone().into(),
        chain: view.chain.clone().expect("a chain"),
        org_signet: view.org.as_ref().unwrap().signet().bytes().to_vec().into(),
        signet: view.user.iter().flat_map(|user| user.signet().bytes().to_vec()).collect(),
    };
    let proofs = check.answers.iter().filter_map(|answer| answer.said.proof());
    let receipts = proofs.map(|proof| proof.receipt.clone()).collect();
    Incident::forged_key(CLIENT, check.at, check.name.clone(), Victim { shown, receipts })
}

/// An organization changes its keys, and a client sees it first: the logs are a
/// crawl behind, and nobody is accused. A record that names none of the keys known
/// is another matter.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollover_that_the_mirrors_have_yet_to_see() {
    let world = World::start(world::Options::default()).await.unwrap();
    let alice: Address = "alice@cedar.example".parse().unwrap();
    let (mailbox, domain) = (alice.as_str(), alice.domain());
    let sites = three(&world, &[mailbox]).await;
    let all: Vec<&Site> = sites.iter().collect();
    let client = Client::new(&world, Some(policy(&all)));
    let anchors = world.trust_anchor().of_root();
    let behind = [Some(Standing::Behind); 3];
    let all_look = async || {
        for site in &sites {
            site.visit(mailbox).await;
        }
    };
    expect(&client.check(domain.as_str()).await, Verdict::Agreed);

    // The new key beside the old one, and the org signet under the new one.
    world.replace_pok(domain, true).unwrap();
    let check = client.check(domain.as_str()).await;
    expect(&check, Verdict::Lagging);
    assert_eq!(standings(&check), behind);
    // A forger's record looks the same, so that is said too.
    let unheard_of = |check: &Check| check.reasons[0].contains("none of your logs has");
    assert!(unheard_of(&check), "{:?}", check.reasons);
    // Nor does a file that says so convict anybody.
    let findings = verify(&accusation(&check), &anchors, client.options.policy.as_ref()).unwrap();
    assert_eq!(findings.convicts, None);
    assert!(findings.testimony.iter().any(|line| line.contains("honest change of keys")));
    // A mailbox keeps its key under a new signature.
    expect(&client.check(mailbox).await, Verdict::Agreed);
    // Some have seen it.
    for site in &sites[..2] {
        site.visit(mailbox).await;
    }
    let check = client.check(domain.as_str()).await;
    expect(&check, Verdict::Lagging);
    assert!(!unheard_of(&check), "{:?}", check.reasons);
    expect(&client.check(mailbox).await, Verdict::Agreed);
    all_look().await;
    expect(&client.check(domain.as_str()).await, Verdict::Agreed);

    // The old key goes.
    world.retire_poks(domain).unwrap();
    let check = client.check(domain.as_str()).await;
    expect(&check, Verdict::Lagging);
    assert_eq!(standings(&check), behind);
    all_look().await;
    expect(&client.check(domain.as_str()).await, Verdict::Agreed);

    // Both at once, and mailboxes that change their key by their chain.
    world.replace_pok(domain, true).unwrap();
    world.rotate(&alice).unwrap();
    for name in [domain.as_str(), mailbox] {
        let check = client.check(name).await;
        expect(&check, Verdict::Lagging);
        assert_eq!(standings(&check), behind, "{name}");
    }
    all_look().await;
    for name in [domain.as_str(), mailbox] {
        expect(&client.check(name).await, Verdict::Agreed);
    }

    // To a client alone a record is shown with none of the keys that the logs have.
    let vantage = world.vantage().await.unwrap();
    let forged = world.replace_pok_for(&vantage, domain).await.unwrap();
    let mut victim = Client::new(&world, Some(policy(&all)));
    victim.eyes = eyes(&world, vantage.resolver_options());
    for name in [domain.as_str(), mailbox] {
        let check = victim.check(name).await;
        expect(&check, Verdict::Split);
        let [incident] = &check.incidents[..] else { panic!("one incident") };
        let findings = verify(incident, &anchors, None).unwrap();
        let party = findings.convicts.map(|convicted| convicted.party);
        assert!(matches!(party, Some(Party::Zone(_))), "{name}: {party:?}");
    }
    // A forger who keeps a known key beside his own looks like a rollover, until he
    // signs a mailbox.
    let text = world.record_text(domain).unwrap();
    let text = format!("{text} pok={}", STANDARD_NO_PAD.encode(forged));
    vantage.dns().set_txt(&format!("_dime.{domain}"), &[&text]).unwrap();
    let check = victim.check(domain.as_str()).await;
    expect(&check, Verdict::Lagging);
    assert!(unheard_of(&check), "{:?}", check.reasons);
    expect(&victim.check(mailbox).await, Verdict::Split);
    // Whoever replaces all keys at once for everybody is held.
    world.replace_pok(domain, false).unwrap();
    all_look().await;
    expect(&client.check(domain.as_str()).await, Verdict::Held);
}

/// TLS in front of a mirror, at the port where a host that a record names is asked.
async fn https(ip: Ipv4Addr, tls: Arc<rustls::ServerConfig>, mirror: SocketAddr) {
    let listener = TcpListener::bind((ip, 443)).await.unwrap();
    let acceptor = TlsAcceptor::from(tls);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut client) = acceptor.accept(stream).await else { return };
                let mut mirror = TcpStream::connect(mirror).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut mirror).await;
            });
        }
    });
}

/// Several hosts that the record names, each under a certificate of a private
/// authority; the policy says whom to believe, not where to ask. In a namespace
/// of its own, since port 443 is theirs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_that_the_record_names_are_asked_over_https() {
    if !netns::inside("hosts_that_the_record_names_are_asked_over_https") {
        return;
    }
    let _net = netns::Net::new();
    let world = World::start(world::Options::default()).await.unwrap();
    let (alice, domain) = ("alice@kelp.test", "kelp.test".parse::<Domain>().unwrap());
    let (ours, stranger) = (Authority::new().unwrap(), Authority::new().unwrap());
    let text = world.record_text(&domain).unwrap();
    let hosts = ["one.kelp.test", "two.kelp.test", "three.kelp.test"];
    world.publish_text(&domain, &format!("{text} syn={}", hosts.join(","))).unwrap();
    let sites = three(&world, &[alice]).await;
    for (number, (host, site)) in (1..).zip(hosts.iter().zip(&sites)) {
        let authority = if number == 3 { &stranger } else { &ours };
        let ip = Ipv4Addr::new(127, 0, 43, number);
        world.dns().set_addresses(host, &[ip.into()]).unwrap();
        let identity = authority.identity(host, Certificate::Certified).unwrap();
        https(ip, identity.tls, site.mirror().http).await;
    }
    let line = |site: &Site| format!("log {}\n", site.mirror().key);
    let lines = |sites: &[Site]| sites.iter().map(line).collect::<String>() + "quorum none\n";
    let believed = Policy::parse(lines(&sites[..2]).as_bytes()).unwrap();
    let mut client = Client::new(&world, Some(believed));
    let pem = [world.authority_pem(), ours.pem()].concat();
    client.eyes.dmtp.roots = dmtp::Roots::from_pem(pem.as_bytes()).unwrap();

    let check = client.check(alice).await;
    expect(&check, Verdict::Agreed);
    assert_eq!((check.agreeing, check.operators), (2, 2));
    let from: Vec<(&str, client::NamedBy, bool)> = check
        .answers
        .iter()
        .map(|answer| (&*answer.from, answer.named_by, answer.said.proof().is_some()))
        .collect();
    let named = |host: usize, counts| (hosts[host], client::NamedBy::Record, counts);
    assert_eq!(from, [named(0, true), named(1, true), named(2, false)]);
    // One whose certificate is of nobody known is not heard, though it is believed.
    assert!(matches!(check.answers[2].said, Said::Silent(_)), "{:?}", check.answers[2]);
    client.options.policy = Some(Policy::parse(lines(&sites).as_bytes()).unwrap());
    expect(&client.check(alice).await, Verdict::Unreachable);
    // Nor is anybody without the authority.
    client.eyes.dmtp.roots = world.roots();
    let check = client.check(alice).await;
    expect(&check, Verdict::Unreachable);
    assert!(check.answers.iter().all(|answer| matches!(answer.said, Said::Silent(_))));

    // The command line trusts what it is told to.
    let place = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        fs::write(place.path().join(name), text).unwrap();
    };
    file("policy", &lines(&sites[..2]));
    file("root.key", world.dns().trust_anchor_text());
    file("both.pem", &pem);
    let output = Command::new(env!("CARGO_BIN_EXE_syndicate"))
        .current_dir(place.path())
        .args(["check", alice, "--json", "--policy", "policy", "--trust-anchor", "root.key"])
        .args(["--dns", &world.dns().address().to_string(), "--roots", "both.pem"])
        .args(["--dx-port", &world.dmtp_port().to_string(), "--state", "state"])
        .args(["--allow-network", "127.0.0.0/8"])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
}

/// The record names a host of the attacker's, with a log of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_record_names_never_counts() {
    let world = World::start(world::Options::default()).await.unwrap();
    let alice = "alice@kelp.test";
    let domain: Domain = "kelp.test".parse().unwrap();
    let mut real = Site::start(&world, "one.example/log").await;
    let evil = Site::start(&world, "evil.example/log").await;
    // Its own DX says over DMTP, under a good certificate, that all is well.
    let text = world.record_text(&domain).unwrap();
    let port = world.dmtp_port();
    world.publish_text(&domain, &format!("{text} syn=dx.kelp.test:{port},nowhere.test")).unwrap();
    for site in [&real, &evil] {
        site.visit(alice).await;
    }
    let mut client = Client::new(&world, Some(policy(&[&real])));
    client.options.via = vec![evil.url()];
    let check = client.check(alice).await;
    expect(&check, Verdict::Agreed);
    let counted: Vec<bool> =
        check.answers.iter().map(|answer| answer.said.proof().is_some()).collect();
    assert_eq!(counted, [true, false, false, false]);
    let words: Vec<String> = check.answers.iter().map(client::PlaceAnswer::words).collect();
    assert!(words[1].contains("evil.example/log") && words[1].contains("counts for nothing"));
    assert!(words[2].contains("is current") && words[2].contains("counts for nothing"));
    assert!(words[3].starts_with("no answer"), "{words:?}");

    // Without the one log that counts, nobody agrees.
    real.stop().await;
    expect(&client.check(alice).await, Verdict::Unreachable);
    // And to those who believe nobody, agreeing strangers are strangers.
    client.options.policy = None;
    expect(&client.check(alice).await, Verdict::Unknown);
}

/// A mirror restored from an old copy of its data, guard and all: first it has
/// gone back, then it has two histories.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_goes_back_is_not_believed() {
    let world = World::start(world::Options::default()).await.unwrap();
    let alice = "alice@cedar.example";
    let mut site = Site::start(&world, "one.example/log").await;
    site.visit(alice).await;
    let mut client = Client::new(&world, Some(policy(&[&site])));
    expect(&client.check(alice).await, Verdict::Agreed);
    site.stop().await;
    let (data, copy) = (site.folder.path().join("mirror"), site.folder.path().join("copy"));
    process::copy_folder(&data, &copy);

    site.resume().await;
    site.visit("bob@alder.example").await;
    client.options.policy = Some(policy(&[&site]));
    let check = client.check(alice).await;
    expect(&check, Verdict::Agreed);
    let size = |check: &Check| check.answers[0].said.proof().unwrap().statement.size;
    let seen = size(&check);
    site.stop().await;

    // A write that was under way when it stopped may come later than this.
    fs::rename(&data, site.folder.path().join("gone")).unwrap();
    process::copy_folder(&copy, &data);
    site.resume().await;
    client.options.policy = Some(policy(&[&site]));
    let check = client.check(alice).await;
    expect(&check, Verdict::Unreachable);
    assert!(matches!(check.answers[0].said, Said::Refused(_)), "{:?}", check.reasons);
    // Somebody without a memory is none the wiser.
    let fresh = Client::new(&world, client.options.policy.clone());
    assert!(size(&fresh.check(alice).await) < seen);

    for name in ["alice@birch.example", "carol@birch.example", "erin@hazel.example"] {
        site.visit(name).await;
    }
    for _ in 0..2 {
        let check = client.check(alice).await;
        expect(&check, Verdict::Split);
        assert!(check.forked());
        let [incident] = &check.incidents[..] else { panic!("one incident") };
        assert_eq!(incident.kind, Kind::LogFork);
        let findings = verify(incident, &[], None).unwrap();
        assert!(findings.convicts.is_some());
    }
    expect(&fresh.check(alice).await, Verdict::Agreed);

    // Begun anew under its old key, with another first entry, it is no other log.
    site.stop().await;
    for part in ["private", "public", "state"] {
        fs::remove_dir_all(data.join(part)).unwrap();
    }
    fs::remove_file(data.join("guard")).unwrap();
    site.resume().await;
    for name in [alice, "alice@birch.example", "carol@birch.example", "erin@hazel.example"] {
        site.visit(name).await;
    }
    client.options.policy = Some(policy(&[&site]));
    let check = client.check(alice).await;
    expect(&check, Verdict::Split);
    let [incident] = &check.incidents[..] else { panic!("one incident") };
    assert_eq!(incident.kind, Kind::LogFork);
    assert!(verify(incident, &[], None).unwrap().convicts.is_some());
}
