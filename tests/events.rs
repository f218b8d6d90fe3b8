//! Every event of the design (§3), played by a DX host over TLS and a signed DNS
//! over sockets, seen by a running mirror, and found in its published log; each
//! alarm as an incident on its disk; each hold on its faces.

#[path = "support/client.rs"]
mod client;
#[path = "support/process.rs"]
mod process;
#[path = "support/words.rs"]
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use client::Client;
use syndicate::clock::Clock;
use syndicate::config::{Config, File};
use syndicate::crawl::{Outcome, Report, frontier};
use syndicate::daemon::Mirror;
use syndicate::demo::dns::Fault;
use syndicate::demo::world::{self, Vantage, World};
use syndicate::dime::key::{Owner, PrivateKey};
use syndicate::dime::record::Template;
use syndicate::dime::signet::{Level, Signet};
use syndicate::dime::{Address, Domain, Name, Timestamp, ed25519};
use syndicate::dmtp::{self, AddressFilter, Entrance, Roots, Session, Target};
use syndicate::proof::Label;
use syndicate::proof::entry::{Entry, Event, Events, Kind};
use syndicate::proof::incident::{Evidence, Incident, Kind as IncidentKind, verify};
use syndicate::proof::receipt::{Statement, Word};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

const HOUR: u64 = 3_600_000;
/// Longest wait for what happens by itself: machines that test are busy ones.
const PATIENCE: Duration = Duration::from_secs(120);

/// The world, and a mirror in it whose clock is set by hand.
struct Scene {
    world: World,
    clock: Clock,
    mirror: Mirror,
    client: Client,
    http: String,
    folder: TempDir,
}

impl Scene {
    /// With so many plain domains beside the dozen.
    async fn new(further: usize, change: impl FnOnce(&mut File)) -> Scene {
        words::listen();
        let world = World::start(world::Options { further, ..Default::default() }).await.unwrap();
        Scene::of(world, change).await
    }

    async fn of(world: World, change: impl FnOnce(&mut File)) -> Scene {
        let folder = tempfile::tempdir().unwrap();
        let mut file = process::configuration(folder.path(), world.dns(), world.dmtp_port());
        let roots = folder.path().join("ca.pem");
        std::fs::write(&roots, world.authority_pem()).unwrap();
        file.crawl.roots = Some(roots);
        change(&mut file);
        let config = Config { batch_millis: 20, ..file.check().unwrap() };
        let clock = Clock::manual(Clock::system().now());
        let mirror = Mirror::start(&config, clock.clone()).await.unwrap();
        let http = format!("http://{}", mirror.http);
        let mut client = Client::new(mirror.key.clone());
        client.clock = clock.clone();
        Scene { world, clock, mirror, client, http, folder }
    }

    /// Lets time pass. An hour without a batch needs the operator's word.
    fn pass(&self, millis: u64) {
        self.mirror.log.accept_clock();
        self.clock.advance(millis);
    }

    /// Until there is a head that is as young as clients want it. The operator's word
    /// holds for one batch: it is given again, since that may have been one of before
    /// that was not quite over.
    async fn catch_up(&self) {
        let age = || {
            let head = self.mirror.log.heads().published.expect("a head");
            self.clock.now().since(head.time)
        };
        let deadline = Instant::now() + PATIENCE;
        while age() >= HOUR / 2 {
            assert!(Instant::now() < deadline, "no heartbeat");
            self.mirror.log.accept_clock();
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn visit(&self, name: &Name) -> Arc<Report> {
        self.mirror.crawl.visit(name.clone(), "test").await.unwrap()
    }

    /// The published entries about domains and mailboxes, oldest first.
    async fn published(&mut self) -> Vec<Found> {
        let entries = self.client.entries(&self.http).await;
        entries.iter().filter_map(|entry| Found::of(&Entry::decode(entry).unwrap())).collect()
    }

    fn label(&self, name: &Name) -> Label {
        match name {
            Name::Domain(domain) => Label::of_domain(domain),
            Name::Address(address) => Label::of_address(self.mirror.log.vrf(), address),
        }
    }

    /// Asks the mirror, once it has caught up.
    async fn look_up(&mut self, name: &Name) -> Statement {
        self.catch_up().await;
        self.client.look_up(&self.http, name).await.expect("an answer")
    }

    async fn session(&self) -> Session {
        let options = dmtp::Options {
            filter: AddressFilter::with_loopback(),
            roots: Roots::none(),
            ..dmtp::Options::default()
        };
        let addr = self.mirror.dmtp;
        let target = Target { host: "mirror.example", addr, entrance: Entrance::Tls };
        let connected = dmtp::client::connect(target, &options, Timestamp::default()).await;
        connected.unwrap().open().await.unwrap()
    }

    /// Stops the mirror; nothing that it wrote may name a mailbox.
    async fn end(self) {
        let metrics = self.client.get(&format!("{}/metrics", self.http)).await.unwrap();
        let metrics = String::from_utf8(metrics.to_vec()).unwrap();
        assert_eq!(words::leak(&metrics), None, "in the metrics");
        self.mirror.stop().await;
        words::no_mailbox_was_named();
    }
}

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    label: Label,
    version: u64,
    current: u64,
    events: Events,
    held_until: Option<Timestamp>,
}

impl Found {
    fn of(entry: &Entry<'_>) -> Option<Found> {
        let (label, version, current, events, held_until) = match &entry.kind {
            Kind::Domain(seen) => {
                let label = Label::of_domain(&seen.domain.parse().unwrap());
                (label, seen.version, seen.current, seen.events, seen.held_until)
            }
            Kind::User(seen) => {
                (seen.label, seen.version, seen.current, seen.events, seen.held_until)
            }
            _ => return None,
        };
        Some(Found { label, version, current, events, held_until })
    }
}

/// Who an entry is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    Domain,
    Mailbox,
}

/// Which version is in force after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Current {
    Itself,
    Unchanged,
    Nothing,
}

use Current::{Itself, Nothing, Unchanged};

type Expected = &'static [(Of, &'static str, Current)];

/// What happens to a domain with its one mailbox, and the entries it makes.
struct Step {
    happens: fn(&Scene, &Domain, &Address),
    entries: Expected,
}

/// One plain domain's story. What happens `before` is not seen.
struct Row {
    before: fn(&Scene, &Domain, &Address),
    steps: Vec<Step>,
}

fn nothing(_: &Scene, _: &Domain, _: &Address) {}

fn row(happens: fn(&Scene, &Domain, &Address), entries: Expected) -> Row {
    Row { before: nothing, steps: vec![Step { happens, entries }] }
}

impl Row {
    fn before(self, before: fn(&Scene, &Domain, &Address)) -> Row {
        Row { before, ..self }
    }

    fn then(mut self, happens: fn(&Scene, &Domain, &Address), entries: Expected) -> Row {
        self.steps.push(Step { happens, entries });
        self
    }
}

fn rotate(scene: &Scene, _: &Domain, mailbox: &Address) {
    scene.world.rotate(mailbox).unwrap();
}

/// The record with these further fields.
fn publish_with(scene: &Scene, domain: &Domain, fields: &str) {
    let text = scene.world.record_text(domain).unwrap();
    scene.world.publish_text(domain, &format!("{text} {fields}")).unwrap();
}

fn fault(scene: &Scene, domain: &Domain, fault: Option<Fault>) {
    scene.world.set_dns_fault(domain, fault).unwrap();
}

/// The whole design, one line an event, and what follows it.
fn table() -> Vec<Row> {
    vec![
        row(rotate, &[(Of::Mailbox, "ROTATED", Itself)]),
        row(
            |scene, domain, _| scene.world.replace_pok(domain, true).unwrap(),
            &[
                (Of::Domain, "POK_ADDED, ORG_SIGNET_CHANGED, RECORD_CHANGED", Itself),
                (Of::Mailbox, "RESIGNED", Itself),
            ],
        )
        .then(
            |scene, domain, _| scene.world.retire_poks(domain).unwrap(),
            &[(Of::Domain, "POK_REMOVED", Itself)],
        ),
        row(
            |scene, _, mailbox| drop(scene.world.reissue(mailbox, "anew").unwrap()),
            &[(Of::Mailbox, "REISSUED", Itself)],
        ),
        row(
            |scene, _, mailbox| drop(scene.world.skip(mailbox).unwrap()),
            &[(Of::Mailbox, "GAP", Itself)],
        ),
        row(
            |scene, _, mailbox| drop(scene.world.swap_key(mailbox).unwrap()),
            &[(Of::Mailbox, "RESTARTED", Itself)],
        )
        .then(rotate, &[(Of::Mailbox, "ROTATED", Itself)]),
        row(
            |scene, _, mailbox| drop(scene.world.fork(mailbox).unwrap()),
            &[(Of::Mailbox, "FORKED", Unchanged)],
        )
        .before(rotate),
        row(
            |scene, _, mailbox| drop(scene.world.revert(mailbox).unwrap()),
            &[(Of::Mailbox, "REVERTED", Unchanged)],
        )
        .before(rotate),
        row(
            |scene, _, mailbox| scene.world.remove(mailbox).unwrap(),
            &[(Of::Mailbox, "WITHDRAWN", Unchanged)],
        ),
        row(
            |scene, domain, _| scene.world.replace_pok(domain, false).unwrap(),
            &[
                (Of::Domain, "POK_REPLACED, ORG_SIGNET_CHANGED, RECORD_CHANGED", Itself),
                (Of::Mailbox, "RESIGNED", Itself),
            ],
        ),
        row(
            |scene, domain, _| scene.world.add_sok(domain, 0x04).unwrap(),
            &[(Of::Domain, "ORG_SIGNET_CHANGED", Itself)],
        ),
        row(
            |scene, domain, _| publish_with(scene, domain, "exp=3"),
            &[(Of::Domain, "RECORD_CHANGED", Itself)],
        ),
        // In its time a record that is gone stays in force, a day later it does not.
        row(
            |scene, domain, _| scene.world.withdraw_record(domain).unwrap(),
            &[(Of::Domain, "RECORD_WITHDRAWN", Unchanged)],
        )
        .before(|scene, domain, _| publish_with(scene, domain, "exp=1"))
        .then(|scene, _, _| scene.pass(25 * HOUR), &[(Of::Domain, "RECORD_EXPIRED", Nothing)]),
        row(
            |scene, domain, _| scene.world.set_signed(domain, false).unwrap(),
            &[(Of::Domain, "DNSSEC_LOST", Itself)],
        )
        .then(
            |scene, domain, _| scene.world.set_signed(domain, true).unwrap(),
            &[(Of::Domain, "DNSSEC_GAINED", Itself)],
        ),
        row(
            |scene, domain, _| fault(scene, domain, Some(Fault::Tampered)),
            &[(Of::Domain, "DNSSEC_BOGUS", Unchanged)],
        )
        .then(|scene, domain, _| fault(scene, domain, None), &[]),
        row(
            |scene, domain, _| {
                let poks = [PrivateKey::from_secrets(Owner::Org, [9; 32], [9; 32]).unwrap()];
                let poks = poks.iter().map(PrivateKey::signing_key).collect();
                let other = Template { poks, ..Template::default() }.text();
                scene.world.dns().set_txt(&format!("_dx.{domain}"), &[&other]).unwrap();
            },
            &[(Of::Domain, "NAME_CONFLICT", Itself)],
        )
        // In place of the record that counts there is none, and clients are given
        // another key.
        .then(
            |scene, domain, _| {
                let text = scene.world.record_text(domain).unwrap();
                let broken = text.replacen("pok=", "pok=x", 1);
                scene.world.dns().set_txt(&format!("_dime.{domain}"), &[&broken]).unwrap();
                let poks = [[10; 32], [11; 32]].iter().map(ed25519::public_key).collect();
                let other = Template { poks, ..Template::default() }.text();
                scene.world.dns().set_txt(&format!("_dx.{domain}"), &[&other]).unwrap();
            },
            &[(Of::Domain, "NAME_CONFLICT", Itself)],
        ),
    ]
}

fn of(of: Of, mailbox: &Address) -> Name {
    match of {
        Of::Domain => Name::Domain(mailbox.domain().clone()),
        Of::Mailbox => Name::Address(mailbox.clone()),
    }
}

/// What a domain and its mailbox serve: what an incident about it must hold.
struct Served {
    text: Vec<u8>,
    org: Vec<u8>,
    signet: Vec<u8>,
}

fn served(scene: &Scene, mailbox: &Address) -> Served {
    let (world, domain) = (&scene.world, mailbox.domain());
    let cut = |signet: &Signet| signet.full_split().into_owned();
    Served {
        text: world.record_text(domain).unwrap().into_bytes(),
        org: cut(&world.org_signet(domain).unwrap()),
        signet: world.served(mailbox).unwrap().last().map(cut).unwrap_or_default(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_is_in_the_log_and_every_alarm_on_disk() {
    let rows = table();
    // A text that changes under the same keys is not in what `VRFY` compares.
    words::listen();
    let further = world::Options { further: rows.len(), ..Default::default() };
    let world = World::start(further).await.unwrap();
    // Another path to DNS, or nothing is bogus.
    let other = world.vantage().await.unwrap();
    let second = other.dns().address().to_string();
    let change = |file: &mut File| {
        file.crawl.full_check_hours = 0;
        file.dns.second_servers = vec![second];
    };
    let mut scene = Scene::of(world, change).await;
    let mailbox =
        |number: usize| -> Address { format!("alice@d{number}.example").parse().unwrap() };
    let mailboxes: Vec<Address> = (0..rows.len()).map(mailbox).collect();
    let mut before = Vec::new();
    for (row, mailbox) in rows.iter().zip(&mailboxes) {
        (row.before)(&scene, mailbox.domain(), mailbox);
        before.push(served(&scene, mailbox));
    }
    visit_all(&scene, &mailboxes).await;
    let mut known = scene.published().await;
    for mailbox in &mailboxes {
        for name in [of(Of::Domain, mailbox), of(Of::Mailbox, mailbox)] {
            let first = known.iter().find(|found| found.label == scene.label(&name));
            let first = first.unwrap_or_else(|| panic!("{name} is not in the log"));
            assert_eq!(
                (first.version, first.current, first.events.to_string(), first.held_until),
                (1, 1, "FIRST_SEEN".to_owned(), None),
                "{name}"
            );
        }
    }
    let mut held = Vec::new();
    let mut told = Events::from(Event::FirstSeen);
    for step in 0..rows.iter().map(|row| row.steps.len()).max().unwrap() {
        for (row, mailbox) in rows.iter().zip(&mailboxes) {
            if let Some(step) = row.steps.get(step) {
                (step.happens)(&scene, mailbox.domain(), mailbox);
            }
        }
        scene.catch_up().await;
        visit_all(&scene, &mailboxes).await;
        let now = scene.published().await;
        let incidents = incidents(scene.folder.path());
        for (at, (row, mailbox)) in rows.iter().zip(&mailboxes).enumerate() {
            let expected = row.steps.get(step).map_or(&[][..], |step| step.entries);
            for subject in [Of::Domain, Of::Mailbox] {
                let name = of(subject, mailbox);
                let label = scene.label(&name);
                let of_label = |found: &&Found| found.label == label;
                let old = known.iter().rfind(of_label).unwrap().clone();
                let new: Vec<&Found> = now[known.len()..].iter().filter(of_label).collect();
                let wanted = expected.iter().find(|(of, ..)| *of == subject);
                let what = format!("row {at}, step {step}, {name}: {new:?}");
                assert_eq!(new.len(), usize::from(wanted.is_some()), "{what}");
                let (Some((_, events, current)), Some(new)) = (wanted, new.first()) else {
                    continue;
                };
                assert_eq!(new.version, old.version + 1, "{what}");
                assert_eq!(new.events.to_string(), *events, "{what}");
                let in_force = match current {
                    Itself => new.version,
                    Unchanged => old.current,
                    Nothing => 0,
                };
                assert_eq!(new.current, in_force, "{what}");
                let still = old.held_until.is_some_and(|until| until > scene.clock.now());
                assert_eq!(new.held_until.is_some(), new.events.hold() || still, "{what}");
                if new.events.hold() {
                    held.push((name.clone(), mailbox.clone()));
                }
                for event in new.events.iter() {
                    told.insert(event);
                }
                for alarm in new.events.alarms().iter() {
                    let now = served(&scene, mailbox);
                    is_kept(&incidents, &name, alarm, &before[at], &now);
                }
            }
        }
        known = now;
        if step == 0 {
            no_face_gives_a_held_key(&mut scene, &held).await;
        }
        before = mailboxes.iter().map(|mailbox| served(&scene, mailbox)).collect();
    }
    let missing: Vec<Event> =
        Event::ALL.into_iter().filter(|event| !told.contains(*event)).collect();
    assert_eq!(missing, [], "never seen in the log");

    // Three days later the new key stands.
    scene.pass(73 * HOUR);
    let mut session = scene.session().await;
    for (name, mailbox) in held {
        assert!(session.signet(&name, None).await.is_ok(), "{name}");
        assert!(session.signet(&Name::Address(mailbox), None).await.is_ok(), "{name}");
        assert_ne!(scene.look_up(&name).await.word, Word::Held, "{name}");
    }
    session.quit().await;
    what_the_files_prove(&scene);
    scene.end().await;
}

/// Each file on disk holds; the command says of one of each kind what it proves.
fn what_the_files_prove(scene: &Scene) {
    let root = scene.folder.path().join("root.key");
    std::fs::write(&root, scene.world.dns().trust_anchor_text()).unwrap();
    let anchors = scene.world.trust_anchor().of_root();
    let mut said: BTreeMap<&str, serde_json::Value> = BTreeMap::new();
    for incident in incidents(scene.folder.path()) {
        let judged = verify(&incident, &anchors, None);
        assert!(judged.is_ok(), "{}: {judged:?}", incident.kind);
        if said.contains_key(incident.kind.as_str()) {
            continue;
        }
        let file = scene.folder.path().join("incident.json");
        std::fs::write(&file, incident.to_bytes()).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_syndicate"))
            .args(["verify", "--json"])
            .arg(&file)
            .arg("--trust-anchor")
            .arg(&root)
            .output()
            .unwrap();
        let answer = serde_json::from_slice(&output.stdout).unwrap();
        said.insert(incident.kind.as_str(), answer);
    }
    let lines = |kind: &str, key: &str| said[kind][key].to_string();
    // The zone signed the record, and that there is none any more: in its time.
    let expired = &said["record-expired"];
    assert_eq!((&expired["proved"], &expired["convicts"]), (&true.into(), &().into()), "{expired}");
    assert!(lines("record-expired", "proof").contains("signed that there is no record"));
    assert!(lines("record-expired", "checked").contains("was to hold until"));
    // A zone above took the keys away.
    let lost = &said["dnssec-lost"];
    assert_eq!((&lost["proved"], &lost["convicts"]["party"]), (&true.into(), &"zone".into()));
    assert!(lines("dnssec-lost", "proof").contains("and then that it is not"), "{lost}");
}

async fn visit_all(scene: &Scene, mailboxes: &[Address]) {
    // Manners to the one host of them all go by the clock, so it goes on.
    let clock = scene.clock.clone();
    let ticking = tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            clock.advance(20);
        }
    });
    let mut visits = JoinSet::new();
    for mailbox in mailboxes.iter().cloned() {
        let crawl = scene.mirror.crawl.clone();
        visits.spawn(async move { crawl.visit(Name::Address(mailbox), "test").await.unwrap() });
    }
    for report in visits.join_all().await {
        let ours = [Outcome::Ours, Outcome::Deadline, Outcome::DnsFailed];
        assert!(!ours.contains(&report.outcome), "{}: {:?}", report.domain, report.detail);
    }
    ticking.abort();
}

/// Every incident below a mirror's folder.
fn incidents(folder: &Path) -> Vec<Incident> {
    fn read(folder: &Path, found: &mut Vec<Incident>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                read(&path, found);
            } else {
                found.push(Incident::read(&std::fs::read(path).unwrap()).unwrap());
            }
        }
    }
    let mut found = Vec::new();
    read(&folder.join("data/private/incident"), &mut found);
    found
}

/// The alarm is on disk, with the bytes that came and those before them.
fn is_kept(incidents: &[Incident], name: &Name, alarm: Event, before: &Served, now: &Served) {
    let kind = IncidentKind::of_event(alarm).unwrap();
    let about =
        |incident: &&Incident| incident.kind == kind && incident.name.as_ref() == Some(name);
    let incident = incidents.iter().find(about).unwrap_or_else(|| panic!("{name}: no {kind}"));
    let Evidence::Received(received) = &incident.evidence else { panic!("{name}: {kind}") };
    let (bytes, shown) = (&received.bytes[..], &received.now);
    let earlier = received.before.clone().unwrap_or_default();
    match alarm {
        Event::Withdrawn => {
            assert_eq!((&shown.signet[..], &earlier.signet[..]), (&b""[..], &before.signet[..]));
        }
        _ if matches!(name, Name::Address(_)) => {
            assert_eq!(shown.signet, now.signet, "{name}: {kind}");
            assert_ne!(shown.signet, earlier.signet, "{name}: {kind}");
        }
        Event::RecordWithdrawn | Event::RecordExpired => assert_eq!(shown.record, b""[..]),
        Event::DnssecBogus => {
            // The messages as the servers sent them.
            let hay = bytes.windows(now.text.len().min(40));
            assert!(hay.into_iter().any(|part| now.text.starts_with(part)), "{kind}: {bytes:?}");
        }
        Event::NameConflict => {
            assert!(bytes.starts_with(&now.text) && bytes.len() > now.text.len(), "{kind}");
        }
        _ => {
            assert_eq!(shown.record, now.text, "{name}: {kind}");
            assert_eq!(shown.org_signet, now.org, "{name}: {kind}");
            assert_eq!(earlier.record.is_empty(), before.text.is_empty(), "{name}: {kind}");
        }
    }
}

/// DMTP says `450 HELD, SEE <url>` whatever is asked, by either tip; HTTP gives
/// the new key with that verdict.
async fn no_face_gives_a_held_key(scene: &mut Scene, held: &[(Name, Address)]) {
    let expected = ["GAP", "RESTARTED", "FORKED", "POK_REPLACED"];
    assert_eq!(held.len(), expected.len(), "{held:?}");
    let mut session = scene.session().await;
    for (name, _) in held {
        let is_held = |answer: Result<(), dmtp::client::Error>, what: &str| match answer {
            Err(dmtp::client::Error::Held { text }) => {
                assert!(text.contains(&format!("{}/v1/lookup/", scene.http)), "{text}");
            }
            other => panic!("{name}: {what} said {other:?}"),
        };
        is_held(session.signet(name, None).await.map(drop), "SGNT");
        let signets = match name {
            Name::Address(mailbox) => scene.world.served(mailbox).unwrap(),
            Name::Domain(domain) => vec![scene.world.org_signet(domain).unwrap()],
        };
        for signet in &signets {
            let print = signet.fingerprint(Level::Crypto).unwrap();
            is_held(session.signet(name, Some(&print)).await.map(drop), "SGNT of a fingerprint");
            is_held(session.verify(name, &print).await.map(drop), "VRFY");
        }
        if let Name::Address(mailbox) = name {
            is_held(session.history(mailbox, None, None).await.map(drop), "HIST");
        }
    }
    session.quit().await;
    for (name, mailbox) in held {
        for name in [name, &Name::Address(mailbox.clone())] {
            let statement = scene.look_up(name).await;
            assert_eq!(statement.word, Word::Held, "{name}");
            assert!(statement.signet.is_some(), "{name}");
        }
    }
}

/// A bogus answer on one path is the path's affair; on both it is the zone's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bogus_counts_when_the_second_path_agrees() {
    words::listen();
    let world = World::start(world::Options { further: 1, ..Default::default() }).await.unwrap();
    let other: Vantage = world.vantage().await.unwrap();
    let second = other.dns().address().to_string();
    let mut scene = Scene::of(world, |file| file.dns.second_servers = vec![second]).await;
    let domain: Domain = "d0.example".parse().unwrap();
    let name = Name::Domain(domain.clone());
    assert_eq!(scene.visit(&name).await.outcome, Outcome::Changed);
    let events = async |scene: &mut Scene| -> Vec<String> {
        scene.published().await.iter().map(|found| found.events.to_string()).collect()
    };
    assert_eq!(events(&mut scene).await, ["FIRST_SEEN"]);

    let first = |fault| scene.world.dns().set_fault(domain.as_str(), fault).unwrap();
    first(Some(Fault::Tampered));
    assert_eq!(scene.visit(&name).await.outcome, Outcome::DnsBogusUnconfirmed);
    first(None);
    // What only the second path says is not asked for.
    other.dns().set_fault(domain.as_str(), Some(Fault::Tampered)).unwrap();
    assert_eq!(scene.visit(&name).await.outcome, Outcome::Confirmed);
    assert_eq!(events(&mut scene).await, ["FIRST_SEEN"]);
    assert_eq!(incidents(scene.folder.path()), Vec::<Incident>::new());

    scene.world.dns().set_fault(domain.as_str(), Some(Fault::Tampered)).unwrap();
    assert_eq!(scene.visit(&name).await.outcome, Outcome::DnsBogus);
    assert_eq!(events(&mut scene).await, ["FIRST_SEEN", "DNSSEC_BOGUS"]);
    let kept = incidents(scene.folder.path());
    let kinds: BTreeSet<&str> = kept.iter().map(|incident| incident.kind.as_str()).collect();
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), ["dnssec-bogus"]);
    scene.end().await;
}

/// An owner's request, made by the command, is a visit and an entry; once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_has_a_mailbox_watched_once_a_request() {
    let mut scene = Scene::new(1, |_| {}).await;
    let domain: Domain = "d0.example".parse().unwrap();
    let mailbox: Address = scene.world.enroll(&domain, &format!("{}-new", words::MARK)).unwrap();
    // A domain speaks for itself as soon as it is in the log.
    scene.visit(&Name::Domain(domain.clone())).await;
    let name = Name::Address(mailbox.clone());
    assert_eq!(scene.look_up(&name).await.word, Word::Absent);

    let file = scene.folder.path().join("pok.key");
    std::fs::write(&file, scene.world.pok_armor(&domain).unwrap().as_bytes()).unwrap();
    let origin = scene.mirror.log.record().origin.clone();
    let ask = |addresses: &[&str]| {
        let mut command = process::syndicate();
        command.args(["watch-request", "--origin", &origin, "--key"]).arg(&file);
        let made = command.arg(domain.as_str()).args(addresses).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        made.stdout
    };
    let web = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("{}/v1/watch", scene.http);
    let post = async |body: &[u8]| {
        let sent = web.post(&url).body(body.to_vec()).send().await.unwrap();
        (sent.status().as_u16(), sent.text().await.unwrap())
    };
    let request = ask(&[mailbox.as_str()]);
    let (status, said) = post(&request).await;
    assert_eq!(status, 202, "{said}");
    // Once a minute for a domain; but not after the random while that a name
    // waits which somebody looked up, as was done above.
    scene.pass(frontier::TRIAL_GAP);
    let label = scene.label(&name);
    let deadline = Instant::now() + PATIENCE;
    while !scene.published().await.iter().any(|found| found.label == label) {
        assert!(Instant::now() < deadline, "nobody came");
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(scene.look_up(&name).await.word, Word::Valid);
    // From now on it is watched: its next key is found by the usual round.
    scene.world.rotate(&mailbox).unwrap();
    scene.pass(2 * HOUR);
    while scene.look_up(&name).await.current < 2 {
        assert!(Instant::now() < deadline, "it is not watched");
        // A visit that the log could not take is made again, a while later.
        scene.clock.advance(HOUR / 360);
        sleep(Duration::from_millis(100)).await;
    }

    // Five minutes have passed, and a second use is refused before that too.
    let (status, said) = post(&request).await;
    assert!((400..500).contains(&status) && said.contains("error"), "{status} {said}");
    scene.clock.set(Clock::system().now());
    let again = ask(&[]);
    let fresh = post(&again).await;
    assert_eq!(fresh.0, 202, "{}", fresh.1);
    let (status, said) = post(&again).await;
    assert!(status == 409 || said.contains("replay"), "{status} {said}");
    scene.end().await;
}
