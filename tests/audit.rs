//! The auditor and the owner's monitor, before logs that lie and logs that do
//! not; and the events that a mirror sends.

#[path = "support/mini_log.rs"]
mod mini_log;
#[path = "support/mirror.rs"]
mod mirror;
#[path = "support/stage.rs"]
mod stage;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use bytes::Bytes;
use mini_log::*;
use mirror::Mirror;
use serde_json::Value;
use stage::Stage;
use syndicate::audit::{
    Comparisons, Folder, Follower, MAX_OWED, Notice, Options, Outlets, Round, Seen, Watch,
    WatchOptions, Weight,
};
use syndicate::client::DnsRoot;
use syndicate::clock::Clock;
use syndicate::demo::dns::PrivateDns;
use syndicate::dime::key::Owner;
use syndicate::dime::{Dnssec, Domain, Timestamp};
use syndicate::proof::draft::{DomainDraft, Draft};
use syndicate::proof::entry::{Closing, DirectoryRoot, DomainObservation, Event, Events, Poks};
use syndicate::proof::incident::{self, Incident, Party};
use syndicate::proof::note::{SigningKey, VerifierKey};
use syndicate::proof::policy::Policy;
use syndicate::proof::receipt::Receipt;
use syndicate::proof::replay::MapEngine as _;
use syndicate::proof::{Entry, Kind, entry};
use syndicate::resolver::{HickoryResolver, Resolver};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::net::TcpListener;
use tokio::process::ChildStdout;

/// Ten minutes ago: processes judge by the machine's clock.
fn base() -> Timestamp {
    Timestamp::from_millis(Clock::system().now().millis() - 10 * MINUTE)
}

fn policy() -> Policy {
    Policy::of_log(log_vkey()).unwrap()
}

/// A domain and alice, seen in the first minute.
fn small(base: Timestamp) -> MiniLog {
    let mut log = MiniLog::starting(base);
    let [one, two, _] = orgs();
    log.batch(
        base.plus(MINUTE),
        [
            one.draft(&[Event::FirstSeen], Dnssec::Indeterminate),
            two.draft(&[Event::FirstSeen], Dnssec::Indeterminate),
            alice(1, Event::FirstSeen, base.plus(MINUTE)),
        ],
    );
    log
}

fn alice(byte: u8, event: Event, seen: Timestamp) -> Draft {
    let [one, ..] = orgs();
    let previous = key(Owner::User, byte.saturating_sub(1).max(1));
    let previous = (event == Event::Rotated).then_some(&previous);
    let signet = one.user("alice@one.example", &key(Owner::User, byte), previous, None);
    one.user_draft("alice@one.example", &signet, event, seen)
}

/// An auditor of one log, with its folder.
struct Auditor {
    clock: Clock,
    place: TempDir,
    folder: Folder,
    follower: Follower,
    opened: Vec<Notice>,
}

impl Auditor {
    fn new(url: &str, clock: &Clock) -> Auditor {
        Auditor::of(url, clock, policy(), DnsRoot::Public, tempfile::tempdir().unwrap())
    }

    fn of(url: &str, clock: &Clock, policy: Policy, root: DnsRoot, place: TempDir) -> Auditor {
        let (url, key, max_owed) = (url.to_owned(), log_vkey(), MAX_OWED);
        Auditor::with(Options { url, key, policy, root, max_owed }, clock, place)
    }

    fn with(options: Options, clock: &Clock, place: TempDir) -> Auditor {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = Folder::open(place.path()).unwrap();
        let (follower, opened) = Follower::open(options, &folder, clock.now()).unwrap();
        Auditor { clock: clock.clone(), place, folder, follower, opened }
    }

    async fn round(&mut self) -> Round {
        self.follower.round(&self.folder, &self.clock, &mut |_| ()).await.unwrap()
    }

    /// What the log shows of the domains that a round touched.
    fn shown(&self, round: &Round) -> BTreeMap<Domain, Arc<Seen>> {
        let domains = self.follower.domains().iter();
        let touched = domains.filter(|(domain, _)| round.touched.contains(*domain));
        touched.map(|(domain, seen)| (domain.clone(), seen.clone())).collect()
    }

    /// Ends, and begins again on what is kept.
    fn again(self, url: &str) -> Auditor {
        let Auditor { clock, place, folder, follower, .. } = self;
        follower.close(&folder).unwrap();
        drop(folder);
        Auditor::of(url, &clock, policy(), DnsRoot::Public, place)
    }
}

fn kinds(notices: &[Notice]) -> Vec<&'static str> {
    notices.iter().map(|notice| notice.kind).collect()
}

fn alarms(notices: &[Notice]) -> Vec<&'static str> {
    notices.iter().filter(|notice| notice.is_alarm()).map(|notice| notice.kind).collect()
}

/// Whether a notice's evidence convicts the log, offline.
fn convicts(notice: &Notice) -> bool {
    let path = notice.evidence.as_ref().unwrap_or_else(|| panic!("no evidence: {notice}"));
    let incident = Incident::read(&std::fs::read(path).unwrap()).unwrap();
    let findings = incident::verify(&incident, &[], None).unwrap();
    match findings.convicts {
        Some(conviction) => {
            assert_eq!(conviction.party, Party::Mirror { key: log_vkey() });
            true
        }
        None => false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_honest_mirror_raises_nothing() {
    let mirror = Mirror::new().await;
    let url = mirror.serve(|_| ()).await;
    let [one, two, _] = orgs();
    mirror.clock.set(at(MINUTE));
    mirror
        .put([
            one.draft(&[Event::FirstSeen], Dnssec::Indeterminate),
            two.draft(&[Event::FirstSeen], Dnssec::Indeterminate),
            alice(1, Event::FirstSeen, at(MINUTE)),
        ])
        .await;
    let mut auditor = Auditor::new(&url, &mirror.clock);
    let round = auditor.round().await;
    assert_eq!(kinds(&round.notices), ["FOLLOWED"]);
    assert!(round.is_well());
    assert_eq!(round.touched.len(), 2);
    // Nothing new, nothing said; also after a restart on what was kept.
    assert_eq!(kinds(&auditor.round().await.notices), [""; 0]);
    let mut auditor = auditor.again(&url);
    assert_eq!(kinds(&auditor.opened), [""; 0]);
    assert_eq!(kinds(&auditor.round().await.notices), [""; 0]);
    assert_eq!(auditor.follower.domains().len(), 2);
    // Rotations, a swap, a rollover, an erasure: what happens to names is the
    // owners' affair, and no fault of a log.
    mirror.clock.set(at(3 * MINUTE));
    let bob = one.user("bob@one.example", &key(Owner::User, 9), None, Some(0));
    mirror
        .put([
            alice(2, Event::Rotated, at(3 * MINUTE)),
            one.user_draft("bob@one.example", &bob, Event::FirstSeen, at(3 * MINUTE)),
            alice(7, Event::Restarted, at(3 * MINUTE)),
            two.gone(&[Event::RecordWithdrawn]),
            Draft::Forget { address: "bob@one.example".parse().unwrap() },
        ])
        .await;
    let round = auditor.round().await;
    assert_eq!(kinds(&round.notices), ["FOLLOWED"]);
    assert!(!round.alarm && !round.unchecked);
    let mode = std::fs::metadata(auditor.place.path().join("lock")).unwrap().permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
}

/// Outage, older state, heartbeats, no quorum, age, a newer format, an end: all
/// of them end by themselves and accuse nobody (threats 17, 28).
#[tokio::test(flavor = "multi_thread")]
async fn honest_troubles_are_conditions() {
    let clock = Clock::manual(at(2 * MINUTE));
    let stage = Stage::new(small(at(0))).await;
    let mut auditor = Auditor::new(&stage.url, &clock);
    assert_eq!(kinds(&auditor.round().await.notices), ["FOLLOWED"]);

    stage.change(|play| play.down = true);
    let round = auditor.round().await;
    assert_eq!(kinds(&round.notices), ["UNREACHABLE"]);
    assert!(round.unchecked && !round.alarm);
    // It is said once.
    assert_eq!(kinds(&auditor.round().await.notices), [""; 0]);
    stage.change(|play| play.down = false);
    assert_eq!(kinds(&auditor.round().await.notices), ["OVER"]);

    // A day later: stale. Then a heartbeat.
    clock.set(at(24 * HOUR));
    let round = auditor.round().await;
    assert_eq!(kinds(&round.notices), ["STALE"]);
    assert!(!round.is_well() && !round.alarm);
    // It is said once, and lasts.
    let round = auditor.round().await;
    assert!(round.notices.is_empty() && !round.is_well());
    stage.change(|play| play.log.batch(at(24 * HOUR), []));
    let round = auditor.round().await;
    assert_eq!(kinds(&round.notices), ["FOLLOWED", "OVER"]);
    assert!(round.is_well());

    // A stalled frontend.
    stage.show(small(at(0)));
    let round = auditor.round().await;
    assert_eq!(kinds(&round.notices), ["OLDER"]);
    assert!(!round.alarm && !round.is_well());
    let mut log = small(at(0));
    log.batch(at(24 * HOUR), []);
    stage.show(log);
    assert_eq!(kinds(&auditor.round().await.notices), ["OVER"]);

    // An entry of a format that is not known yet, and known entries behind it.
    stage.change(|play| {
        let mut entry = Entry::new(at(24 * HOUR), Kind::Domain(observation("new.example", 1)));
        entry.format = entry::FORMAT + 1;
        play.log.entries.push(entry.encode().into());
        // Its root counts a label that this map cannot know: no fault, then.
        play.log.close(at(24 * HOUR));
    });
    let round = auditor.round().await;
    assert!(kinds(&round.notices).contains(&"UPGRADE"), "{:?}", kinds(&round.notices));
    assert!(round.unchecked && !round.alarm);
    // It stays so, and is said once.
    let round = auditor.round().await;
    assert!(round.notices.is_empty() && round.unchecked && !round.alarm);

    // One that no map holds, under a root that fits. It was not looked into, and is not
    // in a later round or process either.
    let newer = || {
        let log_key = key(Owner::User, 1).signing_key();
        let closing = Closing { origin: "log.example/2", log_key, vrf_key: [0; 32] };
        let mut entry = Entry::new(at(2 * MINUTE), Kind::Closing(closing));
        entry.format = entry::FORMAT + 1;
        Bytes::from(entry.encode())
    };
    let stage = Stage::new(small(at(0))).await;
    stage.change(|play| {
        play.log.entries.push(newer());
        play.log.close(at(2 * MINUTE));
    });
    clock.set(at(2 * MINUTE));
    let mut auditor = Auditor::new(&stage.url, &clock);
    assert_eq!(kinds(&auditor.round().await.notices), ["UPGRADE", "FOLLOWED"]);
    let round = auditor.round().await;
    assert!(round.notices.is_empty() && !round.is_well());
    let mut auditor = auditor.again(&stage.url);
    assert_eq!(kinds(&auditor.round().await.notices), ["UPGRADE"]);

    // One at the very end: it may be a root, which this program does not know.
    stage.change(|play| play.log.entries.push(newer()));
    let round = auditor.round().await;
    assert!(round.notices.is_empty() && round.unchecked && !round.alarm);
    let mut auditor = auditor.again(&stage.url);
    assert_eq!(alarms(&auditor.round().await.notices), [""; 0]);

    // The end of a log.
    let stage = Stage::new(small(at(0))).await;
    stage.change(|play| play.log.end(at(2 * MINUTE)));
    clock.set(at(48 * HOUR));
    let mut auditor = Auditor::new(&stage.url, &clock);
    let round = auditor.round().await;
    assert_eq!(kinds(&round.notices), ["CLOSED", "FOLLOWED"]);
    assert!(round.is_well());
}

fn observation(domain: &str, version: u64) -> DomainObservation<'_> {
    static POKS: [[u8; 32]; 1] = [[6; 32]];
    DomainObservation {
        domain,
        version,
        current: version,
        poks: Poks::new(&POKS),
        dnssec: Dnssec::Indeterminate,
        record: Some(entry::Blob::of(b"record")),
        org_signet: None,
        dnssec_chain: None,
        events: Events::of(&[Event::FirstSeen]),
        held_until: None,
        coalesced: None,
    }
}

/// Cosignatures by the policy: too few, old ones, enough.
#[tokio::test(flavor = "multi_thread")]
async fn cosignatures_are_held_to_the_policy() {
    let clock = Clock::manual(at(2 * MINUTE));
    let stage = Stage::new(small(at(0))).await;
    let policy = Policy::parse(policy_text(2).as_bytes()).unwrap();
    let place = tempfile::tempdir().unwrap();
    let mut auditor = Auditor::of(&stage.url, &clock, policy, DnsRoot::Public, place);
    let round = auditor.round().await;
    assert_eq!(kinds(&round.notices), ["QUORUM", "FOLLOWED"]);
    assert!(!round.alarm && !round.is_well());
    stage.change(|play| play.cosigners = cosigners()[..2].to_vec());
    let round = auditor.round().await;
    assert_eq!(kinds(&round.notices), ["OVER"]);
    assert!(round.is_well());
    clock.set(at(3 * HOUR));
    assert_eq!(kinds(&auditor.round().await.notices), ["QUORUM", "STALE"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fork_is_seen_and_convicts() {
    let clock = Clock::manual(at(4 * MINUTE));
    let grown = |byte: u8, batches: u64| {
        let mut log = small(at(0));
        log.batch(at(2 * MINUTE), [alice(byte, Event::Restarted, at(2 * MINUTE))]);
        for batch in 1..batches {
            log.batch(at(2 * MINUTE + batch), []);
        }
        log
    };
    // The same size, longer, shorter; the last does not serve what would show it
    // to others.
    for (batches, proved) in [((1, 1), true), ((1, 3), true), ((3, 1), true), ((3, 1), false)] {
        let stage = Stage::new(grown(8, batches.0)).await;
        stage.change(|play| play.keeps = proved);
        let mut auditor = Auditor::new(&stage.url, &clock);
        assert_eq!(kinds(&auditor.round().await.notices), ["FOLLOWED"]);
        // Also by an auditor that was stopped in between.
        let mut auditor = auditor.again(&stage.url);
        stage.show(grown(9, batches.1));
        let round = auditor.round().await;
        assert_eq!(kinds(&round.notices), ["FORK"], "{batches:?}");
        assert!(round.alarm);
        match proved {
            true => assert!(convicts(&round.notices[0]), "{batches:?}"),
            false => assert_eq!(round.notices[0].evidence, None),
        }
        // It stands, whatever the log shows from now on.
        stage.show(grown(8, batches.0));
        let round = auditor.round().await;
        assert!(round.alarm && round.notices.is_empty());
        let mut auditor = auditor.again(&stage.url);
        let round = auditor.round().await;
        assert_eq!(alarms(&round.notices), ["FAULT_STANDS"]);
        assert!(round.alarm && round.notices[0].evidence.is_some() == proved);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_rules_are_seen_and_convict() {
    let root = |log: &MiniLog, root, labels| {
        let covered = log.entries.len() as u64;
        let root = DirectoryRoot { root, labels, covered };
        Bytes::from(Entry::new(at(3 * MINUTE), Kind::Root(root)).encode())
    };
    type Lie = fn(&mut MiniLog, &dyn Fn(&MiniLog, [u8; 32], u64) -> Bytes);
    let lies: [(&str, &str, Lie); 6] = [
        // A directory that its entries do not make.
        ("DIRECTORY_ROOT", "directory-root", |log, root| {
            log.batch(at(3 * MINUTE), [alice(2, Event::Rotated, at(2 * MINUTE))]);
            log.entries.pop();
            let lie = root(log, [9; 32], log.map.len() as u64);
            log.entries.push(lie);
        }),
        ("DIRECTORY_ROOT", "labels", |log, root| {
            let lie = root(log, log.map.root(), 99);
            log.entries.push(lie);
        }),
        // Back-dated: before the root that was published already.
        ("RULE", "too-old", |log, _| {
            let entry = Entry::new(at(30_000), Kind::Domain(observation("late.example", 1)));
            log.entries.push(entry.encode().into());
            log.close(at(3 * MINUTE));
        }),
        // An update left out: version 3 behind version 1.
        ("RULE", "version", |log, root| {
            let mut skipped = observation("one.example", 3);
            skipped.events = Events::of(&[Event::RecordChanged]);
            log.entries.push(Entry::new(at(2 * MINUTE), Kind::Domain(skipped)).encode().into());
            let lie = root(log, [1; 32], log.map.len() as u64);
            log.entries.push(lie);
        }),
        // An event that does not fit what was seen many batches before.
        ("RULE", "events", |log, root| {
            (0..300).for_each(|_| log.close(at(2 * MINUTE)));
            let again = observation("one.example", 2);
            log.entries.push(Entry::new(at(2 * MINUTE), Kind::Domain(again)).encode().into());
            let lie = root(log, [1; 32], log.map.len() as u64);
            log.entries.push(lie);
        }),
        // Bytes that are no entry.
        ("RULE", "wire", |log, _| {
            log.entries.push(Bytes::from_static(&[8, 1, 16, 0]));
            log.close(at(3 * MINUTE));
        }),
    ];
    let clock = Clock::manual(at(4 * MINUTE));
    for (kind, rule, lie) in lies {
        let stage = Stage::new(small(at(0))).await;
        let mut auditor = Auditor::new(&stage.url, &clock);
        assert_eq!(kinds(&auditor.round().await.notices), ["FOLLOWED"]);
        stage.change(|play| lie(&mut play.log, &root));
        let round = auditor.round().await;
        assert_eq!(kinds(&round.notices), [kind], "{rule}");
        assert!(round.alarm);
        assert!(round.notices[0].message.contains("breaks a rule"), "{rule}");
        assert!(convicts(&round.notices[0]), "{rule}");
        let file = std::fs::read_to_string(round.notices[0].evidence.as_ref().unwrap()).unwrap();
        assert!(file.contains(rule), "{rule}: {file}");
        // Whoever comes later sees it too.
        let mut late = Auditor::new(&stage.url, &clock);
        let round = late.round().await;
        assert_eq!(kinds(&round.notices), [kind], "{rule}, from the first entry on");
        assert!(convicts(&round.notices[0]), "{rule}, from the first entry on");
    }
}

/// The earlier entry that evidence needs is not given out: the fault is told all the
/// same, without a file.
#[tokio::test(flavor = "multi_thread")]
async fn a_fault_is_told_without_its_evidence() {
    let clock = Clock::manual(at(4 * MINUTE));
    let mut log = small(at(0));
    (0..300).for_each(|_| log.close(at(2 * MINUTE)));
    let stage = Stage::new(log).await;
    let mut auditor = Auditor::new(&stage.url, &clock);
    assert_eq!(kinds(&auditor.round().await.notices), ["FOLLOWED"]);
    stage.change(|play| {
        play.hidden.insert("tile/entries/000".to_owned());
        let again = observation("one.example", 2);
        play.log.entries.push(Entry::new(at(3 * MINUTE), Kind::Domain(again)).encode().into());
        play.log.close(at(3 * MINUTE));
    });
    let round = auditor.round().await;
    assert_eq!(kinds(&round.notices), ["RULE"]);
    assert_eq!(round.notices[0].evidence, None);
    assert!(round.alarm);
}

/// A root that comes long after its date is shown, and accuses nobody.
#[tokio::test(flavor = "multi_thread")]
async fn a_root_dated_back_is_shown() {
    let clock = Clock::manual(at(2 * MINUTE));
    let stage = Stage::new(small(at(0))).await;
    let mut auditor = Auditor::new(&stage.url, &clock);
    auditor.round().await;
    clock.set(at(40 * MINUTE));
    assert_eq!(kinds(&auditor.round().await.notices), [""; 0]);
    stage.change(|play| play.log.batch(at(3 * MINUTE), [alice(2, Event::Rotated, at(MINUTE))]));
    let round = auditor.round().await;
    assert_eq!(kinds(&round.notices), ["LATE_ROOT", "FOLLOWED"]);
    assert!(!round.alarm && !round.is_well());
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_not_served_are_asked_for_again() {
    let clock = Clock::manual(at(2 * MINUTE));
    let log = small(at(0));
    let record = entry::Blob::of(orgs()[0].record().as_bytes()).sha256;
    assert!(log.blobs.contains_key(&record));
    let stage = Stage::new(log).await;
    stage.change(|play| play.withheld = BTreeSet::from([record]));
    let mut auditor = Auditor::new(&stage.url, &clock);
    let round = auditor.round().await;
    assert_eq!(kinds(&round.notices), ["BLOB_UNSERVED", "FOLLOWED"]);
    assert!(round.alarm);
    assert_eq!(round.notices[0].name.as_ref().unwrap().as_str(), "one.example");
    // It is our word.
    assert!(!convicts(&round.notices[0]));
    let round = auditor.round().await;
    assert!(round.alarm && round.notices.is_empty());
    // A restart forgets nothing of it.
    let mut auditor = auditor.again(&stage.url);
    assert_eq!(alarms(&auditor.round().await.notices), ["BLOB_UNSERVED"]);
    // No answer at all does not end the alarm.
    stage.change(|play| play.failing = play.withheld.clone());
    let round = auditor.round().await;
    assert_eq!(kinds(&round.notices), ["UNREACHABLE"]);
    assert!(round.alarm);
    stage.change(|play| {
        play.failing.clear();
        play.withheld.clear();
    });
    let round = auditor.round().await;
    assert_eq!(kinds(&round.notices), ["SERVED", "OVER"]);
    assert!(!round.alarm);
}

/// What there is no room to note is not passed over.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_owes_much_is_followed_no_further() {
    let clock = Clock::manual(at(2 * MINUTE));
    let stage = Stage::new(small(at(0))).await;
    let record = entry::Blob::of(orgs()[0].record().as_bytes()).sha256;
    stage.change(|play| play.failing = BTreeSet::from([record]));
    let (url, key) = (stage.url.clone(), log_vkey());
    let options = Options { url, key, policy: policy(), root: DnsRoot::Public, max_owed: 1 };
    let mut auditor = Auditor::with(options, &clock, tempfile::tempdir().unwrap());
    assert_eq!(kinds(&auditor.round().await.notices), ["UNREACHABLE", "FOLLOWED"]);
    stage.change(|play| play.log.batch(at(2 * MINUTE), []));
    let round = auditor.round().await;
    assert_eq!(kinds(&round.notices), ["OWING"]);
    assert!(round.unchecked);
    // It goes on by itself.
    stage.change(|play| play.failing.clear());
    assert_eq!(kinds(&auditor.round().await.notices), ["OVER"]);
    let round = auditor.round().await;
    assert_eq!(kinds(&round.notices), ["FOLLOWED", "OVER"]);
    assert!(round.is_well());
}

/// A log chooses the moment at which its auditor is stopped, if it answers slowly
/// enough: what was not looked into then is looked into by the next run.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_stop_leaves_behind_is_looked_into() {
    let clock = Clock::manual(at(2 * MINUTE));
    let [one, two, _] = orgs();
    let Draft::Domain(draft) = one.draft(&[Event::FirstSeen], Dnssec::Indeterminate) else {
        unreachable!()
    };
    let other = Bytes::copy_from_slice(two.signet().bytes());
    let hash = hex::encode(entry::Blob::of(&other).sha256);
    let mut log = MiniLog::starting(at(0));
    log.batch(at(MINUTE), [Draft::Domain(DomainDraft { org_signet: Some(other), ..draft })]);
    let stage = Stage::new(log).await;
    stage.change(|play| play.hanging = BTreeSet::from([format!("v1/blob/{hash}")]));
    let mut auditor = Auditor::new(&stage.url, &clock);
    tokio::select! {
        round = auditor.round() => panic!("{:?}", kinds(&round.notices)),
        () = stage.hung() => {}
    }
    stage.change(|play| play.hanging.clear());
    let mut auditor = auditor.again(&stage.url);
    let round = auditor.round().await;
    assert_eq!(alarms(&round.notices), ["ORG_SIGNET"]);
    assert!(round.alarm && convicts(&round.notices[0]));
    let mut auditor = auditor.again(&stage.url);
    assert_eq!(alarms(&auditor.round().await.notices), ["FAULT_STANDS"]);
}

/// What the bytes say is held against the entry: POKs, org signet.
#[tokio::test(flavor = "multi_thread")]
async fn entries_that_their_bytes_belie_convict() {
    let clock = Clock::manual(at(2 * MINUTE));
    let [one, two, _] = orgs();
    let draft = |record: String, signet: &[u8]| {
        Draft::Domain(DomainDraft {
            domain: "one.example".parse().unwrap(),
            poks: vec![one.pok.signing_key()],
            dnssec: Dnssec::Indeterminate,
            record: Some(record.into()),
            org_signet: Some(Bytes::copy_from_slice(signet)),
            dnssec_chain: None,
            events: Events::of(&[Event::FirstSeen]),
            hold: None,
            coalesced: None,
        })
    };
    let (own, other) = (one.signet(), two.signet());
    for (kind, draft) in [
        ("RECORD", draft(two.record(), own.bytes())),
        ("ORG_SIGNET", draft(one.record(), other.bytes())),
    ] {
        let mut log = MiniLog::starting(at(0));
        log.batch(at(MINUTE), [draft]);
        let stage = Stage::new(log).await;
        let mut auditor = Auditor::new(&stage.url, &clock);
        let round = auditor.round().await;
        assert_eq!(kinds(&round.notices), [kind, "FOLLOWED"]);
        assert!(round.alarm && convicts(&round.notices[0]), "{kind}");
        // The rest of the log is still followed.
        stage.change(|play| play.log.batch(at(2 * MINUTE), []));
        let round = auditor.round().await;
        assert!(round.alarm);
        assert_eq!(kinds(&round.notices), ["FOLLOWED"]);
    }
}

/// "Insecure" for a signed zone, or "secure" with another record's chain, costs
/// the liar its log (threat 15).
#[tokio::test(flavor = "multi_thread")]
async fn dnssec_statuses_rest_on_chains() {
    let [one, two, _] = orgs();
    let dns = PrivateDns::builder()
        .signed("one.example")
        .signed("two.example")
        .unsigned("three.example")
        .start()
        .await
        .unwrap();
    for org in orgs() {
        dns.set_txt(&format!("_dime.{}", org.domain), &[&org.record()]).unwrap();
    }
    let resolver = HickoryResolver::new(dns.resolver_options()).unwrap();
    let now = Clock::system().now();
    let mut chains = BTreeMap::new();
    for org in orgs() {
        let found = resolver.evidence(&org.domain.parse().unwrap(), now).await.unwrap();
        chains.insert(org.domain, found.unwrap().chain);
    }
    let draft = |org: &Org, dnssec, chain: &str| {
        let Draft::Domain(draft) = org.draft(&[Event::FirstSeen], dnssec) else { unreachable!() };
        let dnssec_chain = Some(chains[chain].clone());
        Draft::Domain(DomainDraft { dnssec_chain, ..draft })
    };
    let [_, _, three] = orgs();
    let anchors = dns.trust_anchor().of_root();
    for (drafts, expected) in [
        (
            vec![
                draft(&one, Dnssec::Secure, "one.example"),
                draft(&three, Dnssec::Insecure, "three.example"),
            ],
            vec![],
        ),
        (vec![draft(&one, Dnssec::Insecure, "one.example")], vec!["DNSSEC"]),
        (vec![draft(&one, Dnssec::Insecure, "three.example")], vec!["DNSSEC"]),
        (vec![draft(&three, Dnssec::Secure, "three.example")], vec!["DNSSEC"]),
        (vec![draft(&two, Dnssec::Secure, "one.example")], vec!["DNSSEC"]),
    ] {
        let mut log = MiniLog::starting(now);
        log.batch(now, drafts);
        let stage = Stage::new(log).await;
        let clock = Clock::manual(now.plus(1000));
        let root = DnsRoot::Only(anchors.clone());
        let place = tempfile::tempdir().unwrap();
        let mut auditor = Auditor::of(&stage.url, &clock, policy(), root, place);
        let round = auditor.round().await;
        assert_eq!(alarms(&round.notices), expected);
        for notice in round.notices.iter().filter(|notice| notice.is_alarm()) {
            let file = std::fs::read(notice.evidence.as_ref().expect("evidence")).unwrap();
            let incident = Incident::read(&file).unwrap();
            let found = incident::verify(&incident, &anchors, None).unwrap();
            assert!(found.convicts.is_some());
        }
        // Who believes the public root alone cannot tell, and says so.
        let mut public = Auditor::new(&stage.url, &clock);
        let round = public.round().await;
        assert_eq!(kinds(&round.notices), ["OTHER_DNS_ROOT", "FOLLOWED"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_state_is_made_again() {
    let clock = Clock::manual(at(2 * MINUTE));
    let stage = Stage::new(small(at(0))).await;
    let mut auditor = Auditor::new(&stage.url, &clock);
    auditor.round().await;
    let size = auditor.follower.domains().len();
    let Auditor { place, folder, follower, .. } = auditor;
    follower.close(&folder).unwrap();
    drop(folder);
    let inside = std::fs::read_dir(place.path()).unwrap();
    let book = inside.map(|entry| entry.unwrap().path().join("book")).find(|path| path.exists());
    let book = book.unwrap();
    assert_eq!(std::fs::metadata(&book).unwrap().permissions().mode() & 0o777, 0o600);
    let mut bytes = std::fs::read(&book).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&book, bytes).unwrap();
    let mut auditor = Auditor::of(&stage.url, &clock, policy(), DnsRoot::Public, place);
    assert_eq!(kinds(&auditor.opened), ["STATE_DAMAGED"]);
    assert_eq!(kinds(&auditor.round().await.notices), ["FOLLOWED"]);
    assert_eq!(auditor.follower.domains().len(), size);
    // Without the checkpoint nothing says that the log only grew since: all is read
    // again, and not taken for checked.
    let Auditor { place, folder, follower, .. } = auditor;
    follower.close(&folder).unwrap();
    drop(folder);
    std::fs::write(book.with_file_name("held.json"), "{}").unwrap();
    let mut auditor = Auditor::of(&stage.url, &clock, policy(), DnsRoot::Public, place);
    assert_eq!(kinds(&auditor.opened), ["STATE_DAMAGED"]);
    assert_eq!(kinds(&auditor.round().await.notices), ["FOLLOWED"]);
}

/// However many other faults a log has collected.
#[tokio::test(flavor = "multi_thread")]
async fn a_fork_is_always_written_down() {
    let clock = Clock::manual(at(4 * MINUTE));
    let grown = |byte| {
        let mut log = small(at(0));
        log.batch(at(2 * MINUTE), [alice(byte, Event::Restarted, at(2 * MINUTE))]);
        log
    };
    let stage = Stage::new(grown(8)).await;
    let mut auditor = Auditor::new(&stage.url, &clock);
    auditor.round().await;
    let Auditor { place, folder, follower, .. } = auditor;
    follower.close(&folder).unwrap();
    drop(folder);
    let inside = std::fs::read_dir(place.path()).unwrap();
    let held = inside.map(|entry| entry.unwrap().path().join("held.json"));
    let held = held.into_iter().find(|path| path.exists()).unwrap();
    let fault = serde_json::json!({
        "kind": "RECORD", "message": "", "at": 0, "evidence": null, "ends": false,
    });
    let faults = Value::Array(vec![fault; 1000]);
    std::fs::write(held.with_file_name("faults.json"), faults.to_string()).unwrap();
    stage.show(grown(9));
    let mut auditor = Auditor::of(&stage.url, &clock, policy(), DnsRoot::Public, place);
    assert_eq!(alarms(&auditor.round().await.notices).pop(), Some("FORK"));
    let mut auditor = auditor.again(&stage.url);
    let notices = auditor.round().await.notices;
    assert_eq!(notices.last().unwrap().facts["fault"], "FORK");
}

/// Two logs that saw the same domains: behind, apart, the same again.
#[tokio::test(flavor = "multi_thread")]
async fn domains_are_compared_across_logs() {
    let clock = Clock::manual(at(5 * MINUTE));
    let [one, mut changed, _] = orgs();
    changed.domain = "one.example";
    let [mut forged, ..] = orgs();
    forged.pok = key(Owner::Org, 66);
    let log = |steps: &[&Org]| {
        let mut log = MiniLog::starting(at(0));
        for (minute, org) in (1..).zip(steps) {
            let events: &[Event] =
                if minute == 1 { &[Event::FirstSeen] } else { &[Event::PokReplaced] };
            log.batch(at(minute * MINUTE), [org.draft(events, Dnssec::Indeterminate)]);
        }
        log
    };
    let ahead = Stage::new(log(&[&one, &changed])).await;
    let behind = Stage::new(log(&[&one])).await;
    let (mut a, mut b) = (Auditor::new(&ahead.url, &clock), Auditor::new(&behind.url, &clock));
    let mut comparisons = Comparisons::default();
    let expected = [(log(&[&one]), vec!["LAG"]), (log(&[&one, &changed]), vec!["SAME"])];
    for (shown, kinds) in expected {
        behind.show(shown);
        let (ours, theirs) = (a.round().await, b.round().await);
        assert!(!ours.alarm && !theirs.alarm);
        // What the first one shows waits until the other was looked at as well.
        assert_eq!(comparisons.looked(0, "a", a.shown(&ours)), []);
        let mut found = comparisons.looked(1, "b", b.shown(&theirs));
        found.extend(comparisons.rest());
        let notices: Vec<Notice> = found.iter().map(|f| f.notice(clock.now())).collect();
        assert_eq!(self::kinds(&notices), kinds);
        assert_eq!(alarms(&notices), [""; 0]);
    }
    // Somebody sees other keys.
    let victim = Stage::new(log(&[&one, &forged])).await;
    let mut c = Auditor::new(&victim.url, &clock);
    let round = c.round().await;
    assert_eq!(comparisons.looked(2, "c", c.shown(&round)), []);
    let found = comparisons.looked(0, "a", BTreeMap::new());
    assert_eq!(found[0].notice(clock.now()).kind, "DIVERGED");
    assert_eq!(found[0].notice(clock.now()).weight, Weight::Condition);
}

// The owner's monitor.

struct Owner_ {
    place: TempDir,
    watch: Watch,
}

impl Owner_ {
    fn new(url: &str, names: &[&str]) -> Owner_ {
        Owner_::at(url, names, tempfile::tempdir().unwrap())
    }

    fn at(url: &str, names: &[&str], place: TempDir) -> Owner_ {
        Owner_::with(url, names, policy(), place)
    }

    fn with(url: &str, names: &[&str], policy: Policy, place: TempDir) -> Owner_ {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let options = WatchOptions {
            names: names.iter().map(|name| name.parse().unwrap()).collect(),
            mirrors: vec![url.to_owned()],
            policy,
            root: DnsRoot::Public,
        };
        let folder = Folder::open(place.path()).unwrap();
        Owner_ { watch: Watch::open(options, folder).unwrap().remove(0), place }
    }

    /// A round at this minute; gives its notices, and changed, unanswered.
    async fn round(&mut self, minutes: u64) -> (Vec<Notice>, bool, bool) {
        let (mut notices, mut changed, mut unanswered) = (Vec::new(), false, false);
        for name in self.watch.begin() {
            let visit = self.watch.visit(&name, at(minutes * MINUTE)).await.unwrap();
            notices.extend(visit.notices.iter().cloned());
            changed |= visit.changed;
            unanswered |= visit.unanswered;
            self.watch.keep(visit).unwrap();
        }
        (notices, changed, unanswered)
    }

    fn again(self, url: &str, names: &[&str]) -> Owner_ {
        drop(self.watch);
        Owner_::at(url, names, self.place)
    }
}

const NAMES: [&str; 3] = ["alice@one.example", "bob@one.example", "one.example"];

#[tokio::test(flavor = "multi_thread")]
async fn owners_hear_of_every_change() {
    let stage = Stage::new(small(at(0))).await;
    let mut owner = Owner_::new(&stage.url, &NAMES);
    let (notices, changed, _) = owner.round(2).await;
    assert_eq!(kinds(&notices), ["WATCHED"; 3]);
    assert!(!changed);
    assert_eq!(owner.round(2).await, (vec![], false, false));
    let mut owner = owner.again(&stage.url, &NAMES);
    assert_eq!(owner.round(2).await, (vec![], false, false));

    // A rotation is a change; bob, who was not there, is there.
    let [one, ..] = orgs();
    let bob = one.user("bob@one.example", &key(Owner::User, 40), None, None);
    let bob = one.user_draft("bob@one.example", &bob, Event::FirstSeen, at(3 * MINUTE));
    stage.change(|play| {
        play.log.batch(at(3 * MINUTE), [alice(2, Event::Rotated, at(3 * MINUTE)), bob]);
    });
    let (notices, changed, unanswered) = owner.round(3).await;
    assert!(changed && !unanswered);
    let told: Vec<(&str, Weight, &Value)> = notices
        .iter()
        .map(|n| (n.name.as_ref().unwrap().as_str(), n.weight, &n.facts["events"]))
        .collect();
    assert_eq!(told[0], ("alice@one.example", Weight::Change, &serde_json::json!(["ROTATED"])));
    assert_eq!(told[1], ("bob@one.example", Weight::Change, &serde_json::json!(["FIRST_SEEN"])));
    assert_eq!(told.len(), 2);

    // A swap and a rotation behind it: both are told, the swap as an alarm.
    let mut owner = owner.again(&stage.url, &NAMES);
    stage.change(|play| {
        play.log.batch(at(4 * MINUTE), [alice(7, Event::Restarted, at(4 * MINUTE))]);
        play.log.batch(at(5 * MINUTE), [alice(8, Event::Rotated, at(5 * MINUTE))]);
    });
    let (notices, changed, _) = owner.round(5).await;
    assert!(changed);
    let weights: Vec<Weight> = notices.iter().map(|notice| notice.weight).collect();
    assert_eq!(weights, [Weight::Alarm, Weight::Change]);
    assert_eq!(notices[0].facts["verdict"], "HELD");
    assert!(notices[0].facts.contains_key("held_until"));

    // FORGOTTEN is an alarm to its owner (threat 9).
    stage.change(|play| {
        let address: syndicate::dime::Address = "alice@one.example".parse().unwrap();
        play.log.batch(at(6 * MINUTE), [Draft::Forget { address: address.clone() }]);
        play.log.erase(&address);
    });
    let (notices, changed, _) = owner.round(6).await;
    assert_eq!(alarms(&notices), ["VERSION"]);
    assert_eq!(notices[0].facts["events"], serde_json::json!(["FORGOTTEN"]));
    assert!(changed);
    assert_eq!(owner.round(6).await, (vec![], false, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn owners_hear_of_a_history_that_was_rewritten() {
    let rotated = |byte: u8, batches: u64| {
        let mut log = small(at(0));
        log.batch(at(2 * MINUTE), [alice(byte, Event::Restarted, at(2 * MINUTE))]);
        for batch in 0..batches {
            log.batch(at(3 * MINUTE + batch), []);
        }
        log
    };
    let stage = Stage::new(rotated(7, 0)).await;
    let mut owner = Owner_::new(&stage.url, &NAMES[..1]);
    owner.round(3).await;
    // Another key in the same place is another tree: the log signed both.
    stage.show(rotated(9, 1));
    let (notices, changed, _) = owner.round(4).await;
    assert_eq!(kinds(&notices), ["FORK"]);
    assert!(changed && convicts(&notices[0]));
    // It stands, and what is remembered stays.
    let (notices, changed, _) = owner.round(4).await;
    assert!(changed && notices.is_empty());
    stage.show(rotated(7, 1));
    let (notices, changed, _) = owner.round(4).await;
    assert_eq!(kinds(&notices), ["RECOVERED"]);
    assert!(!changed);

    // In one tree: the directory suddenly proves another history of the name.
    // Both receipts verify, and contradict each other.
    let mut log = rotated(7, 1);
    let before = log.entries.clone();
    let mut other = rotated(9, 1);
    other.entries = before;
    let root = other.map.head();
    let covered = other.entries.len() as u64;
    let root = DirectoryRoot { root: root.root, labels: root.labels, covered };
    other.entries.push(Entry::new(at(4 * MINUTE), Kind::Root(root)).encode().into());
    other.time = at(4 * MINUTE);
    log.batch(at(4 * MINUTE), []);
    stage.show(other);
    let (notices, changed, _) = owner.round(5).await;
    assert_eq!(alarms(&notices), ["REWRITTEN"]);
    assert!(changed);
    let after = notices[0].evidence.clone().unwrap();
    let before = notices[0].facts["before"].as_str().unwrap().to_owned();
    for path in [after.as_path(), Path::new(&before)] {
        let receipt = Receipt::read(&std::fs::read(path).unwrap()).unwrap();
        let judged =
            syndicate::client::judge(&receipt, Some(&policy()), &DnsRoot::Public, at(5 * MINUTE));
        assert!(judged.is_verified(), "{}", path.display());
    }
    // The name is gone from the directory: rewritten too, also after a restart.
    let mut owner = owner.again(&stage.url, &NAMES[..1]);
    let mut gone = MiniLog::starting(at(0));
    gone.entries = log.entries.clone();
    gone.time = at(5 * MINUTE);
    gone.close(at(5 * MINUTE));
    stage.show(gone);
    let (notices, changed, _) = owner.round(6).await;
    assert_eq!(alarms(&notices), ["REWRITTEN"]);
    assert!(changed);
    stage.show(log);
    assert_eq!(kinds(&owner.round(6).await.0), ["RECOVERED"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_judged_is_no_alarm_to_owners() {
    let stage = Stage::new(small(at(0))).await;
    let mut owner = Owner_::new(&stage.url, &NAMES[..1]);
    owner.round(2).await;
    stage.change(|play| play.down = true);
    let (notices, changed, unanswered) = owner.round(2).await;
    assert_eq!(kinds(&notices), ["UNREACHABLE"]);
    assert!(!changed && unanswered);
    stage.change(|play| play.down = false);
    assert_eq!(kinds(&owner.round(2).await.0), ["RECOVERED"]);
    // Too old by the policy.
    assert_eq!(kinds(&owner.round(3 * 60).await.0), ["STALE"]);
    // An older state of the same log.
    stage.change(|play| play.log.batch(at(3 * MINUTE), [alice(2, Event::Rotated, at(MINUTE))]));
    assert_eq!(kinds(&owner.round(3).await.0), ["RECOVERED", "VERSION"]);
    stage.show(small(at(0)));
    let (notices, changed, unanswered) = owner.round(4).await;
    assert_eq!(kinds(&notices), ["OLDER"]);
    assert!(!changed && unanswered);
    // Another log under the same address.
    stage.change(|play| {
        let entries: Vec<Bytes> = play.log.entries.drain(..).collect();
        play.log.entries = entries.into_iter().rev().collect();
    });
    let (notices, changed, _) = owner.round(4).await;
    assert_eq!(kinds(&notices), ["REFUSED"]);
    assert!(changed);
}

/// A mirror that answers out of another log of the policy, whose receipts it fetches
/// like anybody: what its own log says of the name is not judged then.
#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_does_not_hide_behind_another_log() {
    let [one, ..] = orgs();
    let other = || {
        let mut log = MiniLog::of("other.example/1", [21; 32]);
        let domain = one.draft(&[Event::FirstSeen], Dnssec::Indeterminate);
        log.batch(at(MINUTE), [domain, alice(1, Event::FirstSeen, at(MINUTE))]);
        log
    };
    let other_vkey = SigningKey::ed25519("other.example/1", &[21; 32]).unwrap().verifier();
    let stage = Stage::new(small(at(0))).await;
    for url in [format!("{}/", stage.url), String::new()] {
        let text = format!("log {} {url}\nlog {other_vkey}\nquorum none\n", log_vkey());
        let policy = Policy::parse(text.replace(" \n", "\n").as_bytes()).unwrap();
        let place = tempfile::tempdir().unwrap();
        let mut owner = Owner_::with(&stage.url, &NAMES[..1], policy.clone(), place);
        stage.show(small(at(0)));
        assert_eq!(kinds(&owner.round(2).await.0), ["WATCHED"]);
        stage.show(other());
        let (notices, changed, unanswered) = owner.round(2).await;
        assert_eq!(kinds(&notices), ["OTHER_LOG"], "{url}");
        assert!(!changed && unanswered);
        // Also of a name that is new here, and in another process.
        drop(owner.watch);
        let mut owner = Owner_::with(&stage.url, &NAMES[..2], policy, owner.place);
        assert_eq!(kinds(&owner.round(2).await.0), ["OTHER_LOG"; 2], "{url}");
        stage.show(small(at(0)));
        assert_eq!(kinds(&owner.round(2).await.0), ["RECOVERED", "WATCHED"]);
    }
}

// The commands.

fn command(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_syndicate"))
        .args(arguments)
        .env("RUST_LOG", "trace")
        .output()
        .unwrap()
}

async fn run(arguments: &[&str]) -> (i32, Vec<Value>, String) {
    let arguments: Vec<String> = arguments.iter().map(|&a| a.to_owned()).collect();
    let ran = tokio::task::spawn_blocking(move || {
        command(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    });
    let output = ran.await.unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    let lines = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (output.status.code().unwrap(), lines, String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Where notices are posted to.
async fn hook() -> (String, Arc<Mutex<Vec<Value>>>) {
    let heard: Arc<Mutex<Vec<Value>>> = Arc::default();
    let router = Router::new()
        .route(
            "/hooks/secret",
            post(
                |State(heard): State<Arc<Mutex<Vec<Value>>>>, body: axum::body::Bytes| async move {
                    heard.lock().unwrap().push(serde_json::from_slice(&body).unwrap());
                },
            ),
        )
        .with_state(heard.clone());
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}/hooks/secret?token=1", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, heard)
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_tells_by_line_hook_command_and_exit_code() {
    let base = base();
    let stage = Stage::new(small(base)).await;
    let place = tempfile::tempdir().unwrap();
    let (state, heard_file) = (place.path().join("state"), place.path().join("heard"));
    let (url, heard) = hook().await;
    let (vkey, exec) = (log_vkey().to_string(), format!("cat >> {}", heard_file.display()));
    let state_text = state.to_str().unwrap().to_owned();
    let arguments = [
        "watch",
        "alice@one.example",
        "--via",
        &stage.url,
        "--log",
        &vkey,
        "--state",
        &state_text,
        "--webhook",
        &url,
        "--exec",
        &exec,
        "--once",
        "--json",
    ];
    let (code, lines, errors) = run(&arguments).await;
    assert_eq!((code, lines.len()), (0, 1), "{errors}");
    assert_eq!(lines[0]["kind"], "WATCHED");
    // News is for standard output alone.
    assert!(heard.lock().unwrap().is_empty() && !heard_file.exists());
    assert_eq!(run(&arguments).await.0, 0);

    stage.change(|play| {
        play.log.batch(base.plus(3 * MINUTE), [alice(7, Event::Restarted, base.plus(MINUTE))]);
    });
    let (code, lines, errors) = run(&arguments).await;
    assert_eq!((code, lines.len()), (1, 1), "{errors}");
    assert_eq!(lines[0]["weight"], "alarm");
    assert_eq!(lines[0]["events"], serde_json::json!(["RESTARTED"]));
    assert_eq!(lines[0]["name"], "alice@one.example");
    assert_eq!(*heard.lock().unwrap(), lines);
    let told: Value = serde_json::from_slice(&std::fs::read(&heard_file).unwrap()).unwrap();
    assert_eq!(told, lines[0]);
    // Nothing about whom, and no secret, in what is logged, however much is.
    assert!(!errors.contains("alice"), "{errors}");
    let (code, lines, _) = run(&arguments).await;
    assert_eq!((code, lines.len()), (0, 0));

    // What is remembered is its owner's alone.
    for entry in std::fs::read_dir(state.join("watch")).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!entry.file_name().to_string_lossy().contains("alice"));
    }

    stage.change(|play| play.down = true);
    let (code, lines, _) = run(&arguments).await;
    assert_eq!(code, 2);
    assert_eq!(lines[0]["weight"], "condition");
    let (code, ..) = run(&["watch", "alice@one.example", "--via", &stage.url, "--once"]).await;
    assert_eq!(code, 2, "nobody is believed");
}

#[tokio::test(flavor = "multi_thread")]
async fn audit_tells_by_line_hook_and_exit_code() {
    let base = base();
    let stage = Stage::new(small(base)).await;
    let place = tempfile::tempdir().unwrap();
    let state = place.path().join("state").to_str().unwrap().to_owned();
    let (url, heard) = hook().await;
    let policy = place.path().join("policy");
    // The URL is the policy's, so that no log need be named.
    let text = format!("log {} {}\nquorum none\n", log_vkey(), stage.url);
    std::fs::write(&policy, text).unwrap();
    let policy = policy.to_str().unwrap().to_owned();
    let arguments =
        ["audit", "--policy", &policy, "--state", &state, "--webhook", &url, "--once", "--json"];
    let (code, lines, errors) = run(&arguments).await;
    assert_eq!((code, lines.len()), (0, 1), "{errors}");
    assert_eq!((&lines[0]["kind"], &lines[0]["labels"]), (&"FOLLOWED".into(), &3.into()));
    assert_eq!(run(&arguments).await.0, 0);

    stage.change(|play| {
        let covered = play.log.entries.len() as u64;
        let root = DirectoryRoot { root: [9; 32], labels: 3, covered };
        play.log.entries.push(Entry::new(base.plus(3 * MINUTE), Kind::Root(root)).encode().into());
    });
    let (code, lines, errors) = run(&arguments).await;
    assert_eq!((code, lines.len()), (1, 1), "{errors}");
    assert_eq!(lines[0]["kind"], "DIRECTORY_ROOT");
    assert_eq!(*heard.lock().unwrap(), lines);
    // The file convinces others, with the same binary.
    let file = lines[0]["evidence"].as_str().unwrap().to_owned();
    let output = tokio::task::spawn_blocking(move || command(&["verify", &file])).await.unwrap();
    let words = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(words.contains("directory-root"), "{words}");
    // It stands.
    let (code, lines, _) = run(&arguments).await;
    assert_eq!(code, 1);
    assert_eq!(lines[0]["kind"], "FAULT_STANDS");

    // What is named as checked and is not in order is not well: too few cosigners,
    // a log that is hours old.
    let asking = place.path().join("asking").to_str().unwrap().to_owned();
    std::fs::write(&asking, policy_text(2)).unwrap();
    for (policy, log, kind) in [
        (&asking, small(base), "QUORUM"),
        (&policy, small(Timestamp::from_millis(base.millis() - 3 * HOUR)), "STALE"),
    ] {
        let state = place.path().join(kind).to_str().unwrap().to_owned();
        let stage = Stage::new(log).await;
        let arguments =
            ["audit", &stage.url, "--policy", policy, "--state", &state, "--once", "--json"];
        for _ in 0..2 {
            let (code, lines, errors) = run(&arguments).await;
            assert_eq!(code, 2, "{errors}");
            assert!(lines.iter().any(|line| line["kind"] == kind), "{lines:?}");
        }
    }

    let other = place.path().join("other").to_str().unwrap().to_owned();
    stage.change(|play| play.down = true);
    let arguments = ["audit", "--policy", &policy, "--state", &other, "--once", "--json"];
    let (code, lines, _) = run(&arguments).await;
    assert_eq!((code, &lines[0]["kind"]), (2, &"UNREACHABLE".into()));
    let (code, ..) = run(&["audit", &stage.url, "--once"]).await;
    assert_eq!(code, 2, "nobody is believed");
}

/// A command that is heard while it runs. Killed when dropped.
struct Running {
    child: tokio::process::Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn start(arguments: &[&str]) -> Running {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_syndicate"));
        command.args(arguments).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Running { child, lines }
    }

    async fn line(&mut self) -> Value {
        let line = self.lines.next_line().await.unwrap();
        serde_json::from_str(&line.expect("it ended")).unwrap()
    }

    /// SIGTERM; gives the exit code.
    async fn stop(mut self) -> Option<i32> {
        let id = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        self.child.wait().await.unwrap().code()
    }
}

/// A log or mirror that does not answer.
async fn slow() -> (Stage, VerifierKey) {
    let stage = Stage::new(MiniLog::of("slow.example/1", [21; 32])).await;
    let paths = ["checkpoint", "v1/history"].map(ToOwned::to_owned);
    stage.change(|play| play.hanging = BTreeSet::from(paths));
    (stage, SigningKey::ed25519("slow.example/1", &[21; 32]).unwrap().verifier())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_log_keeps_back_no_alarm_about_another() {
    let base = base();
    let grown = |byte| {
        let mut log = small(base);
        log.batch(base.plus(2 * MINUTE), [alice(byte, Event::Restarted, base.plus(MINUTE))]);
        log
    };
    let stage = Stage::new(grown(8)).await;
    let (slow, slow_vkey) = slow().await;
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name).to_str().unwrap().to_owned();
    let (policy, state) = (path("policy"), path("state"));
    let text =
        format!("log {slow_vkey} {}\nlog {} {}\nquorum none\n", slow.url, log_vkey(), stage.url);
    std::fs::write(&policy, text).unwrap();
    let of = ["audit", "--policy", &policy, "--state", &state, "--once", "--json"];
    let alone = [&of[..], &[&stage.url]].concat();
    assert_eq!(run(&alone).await.0, 0);

    stage.show(grown(9));
    let mut running = Running::start(&of);
    slow.hung().await;
    assert_eq!(running.line().await["kind"], "FORK");
    // It was told, and counts.
    assert_eq!(running.stop().await, Some(1));
}

/// Also where the policy does not say which log is where.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_away_keeps_nobody_from_following_another() {
    let base = base();
    let stage = Stage::new(small(base)).await;
    let (away, away_vkey) = slow().await;
    away.change(|play| {
        play.hanging.clear();
        play.down = true;
    });
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name).to_str().unwrap().to_owned();
    let (policy, state) = (path("policy"), path("state"));
    let text = format!("log {away_vkey}\nlog {}\nquorum none\n", log_vkey());
    std::fs::write(&policy, text).unwrap();
    let arguments = [
        "audit", &away.url, &stage.url, "--policy", &policy, "--state", &state, "--once", "--json",
    ];
    let (code, mut lines, errors) = run(&arguments).await;
    lines.sort_by_key(|line| line["kind"].to_string());
    assert_eq!((code, lines.len()), (2, 2), "{errors}");
    assert_eq!((&lines[0]["kind"], &lines[1]["kind"]), (&"FOLLOWED".into(), &"UNREACHABLE".into()));
    // Nor does one that shows the log of another mirror as its own; whose it is, is
    // remembered.
    away.change(|play| play.down = false);
    away.show(small(base));
    let (code, lines, errors) = run(&arguments).await;
    assert_eq!((code, lines.len()), (2, 1), "{errors}");
    assert_eq!(
        (&lines[0]["kind"], &lines[0]["log"]),
        (&"OTHER_LOG".into(), &away.url.as_str().into())
    );
    // It is itself again.
    away.show(MiniLog::of("slow.example/1", [21; 32]));
    let (_, lines, _) = run(&arguments).await;
    assert!(lines.iter().any(|line| line["log"] == "slow.example/1"), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_mirror_keeps_back_nothing_that_another_shows() {
    let stage = Stage::new(small(base())).await;
    let (slow, _) = slow().await;
    let place = tempfile::tempdir().unwrap();
    let (vkey, state) = (log_vkey().to_string(), place.path().join("state"));
    let mut running = Running::start(&[
        "watch",
        "alice@one.example",
        "one.example",
        "--via",
        &slow.url,
        "--via",
        &stage.url,
        "--log",
        &vkey,
        "--state",
        state.to_str().unwrap(),
        "--once",
        "--json",
    ]);
    slow.hung().await;
    for _ in 0..2 {
        assert_eq!(running.line().await["kind"], "WATCHED");
    }
    // One of them was not heard.
    assert_eq!(running.stop().await, Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_that_is_stopped_does_not_say_that_all_is_well() {
    let (slow, vkey) = slow().await;
    let place = tempfile::tempdir().unwrap();
    let (vkey, state) = (vkey.to_string(), place.path().join("state"));
    let running = Running::start(&[
        "audit",
        &slow.url,
        "--log",
        &vkey,
        "--state",
        state.to_str().unwrap(),
        "--once",
    ]);
    slow.hung().await;
    assert_eq!(running.stop().await, Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn notices_wait_for_a_hook_that_is_away() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    // An address of its own: nobody else gets a port there while it is away.
    let listener = TcpListener::bind(("127.1.14.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let outlets = Outlets::new(Some(&format!("http://{address}/")), None).unwrap();
    for number in 0..3 {
        let text = number.to_string();
        outlets.add(&Notice::new(at(number), Weight::Alarm, "FORK", "log.example/1", text));
    }
    assert_eq!(outlets.deliver().await, 3);
    let heard: Arc<Mutex<Vec<Value>>> = Arc::default();
    let taken = heard.clone();
    let router = Router::new().route(
        "/",
        post(move |body: axum::body::Bytes| async move {
            taken.lock().unwrap().push(serde_json::from_slice(&body).unwrap());
        }),
    );
    let listener = TcpListener::bind(address).await.unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    assert_eq!(outlets.deliver().await, 0);
    let heard: Vec<String> =
        heard.lock().unwrap().iter().map(|notice| notice["message"].to_string()).collect();
    assert_eq!(heard, ["\"0\"", "\"1\"", "\"2\""]);
}

// Events.

/// A stream of events, read as an `EventSource` does.
struct Source {
    response: reqwest::Response,
    text: String,
}

impl Source {
    async fn open(url: &str, last: Option<&str>) -> Source {
        let request = reqwest::Client::builder().no_proxy().build().unwrap().get(url);
        let request = match last {
            Some(last) => request.header("last-event-id", last),
            None => request,
        };
        Source { response: request.send().await.unwrap(), text: String::new() }
    }

    /// Kind, id and data of the next event; `None` at the end.
    async fn next(&mut self) -> Option<(String, String, Value)> {
        loop {
            let event = self.part().await?;
            let field = |name: &str| {
                let line = event.lines().find_map(|line| line.strip_prefix(name));
                line.map(|value| value.trim().to_owned())
            };
            if let Some(data) = field("data:") {
                let data = serde_json::from_str(&data).unwrap();
                return Some((field("event:").unwrap(), field("id:").unwrap(), data));
            }
        }
    }

    /// What comes next: an event, or a comment.
    async fn part(&mut self) -> Option<String> {
        loop {
            if let Some((part, rest)) = self.text.split_once("\n\n") {
                let (part, rest) = (part.to_owned(), rest.to_owned());
                self.text = rest;
                return Some(part);
            }
            let chunk = self.response.chunk().await.ok()??;
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_come_as_the_log_grows() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mirror = Mirror::world().await;
    let url = mirror.serve(|options| options.stream_heartbeat = Duration::from_millis(20)).await;
    let mut events = Source::open(&format!("{url}/v1/events?name=alice%40one.example"), None).await;
    let headers = events.response.headers().clone();
    assert_eq!(headers["content-type"], "text/event-stream");
    assert_eq!(headers["cache-control"], "no-store");
    assert_eq!(headers["x-accel-buffering"], "no");
    let (kind, id, data) = events.next().await.unwrap();
    assert_eq!((kind.as_str(), id.as_str()), ("state", "2"));
    assert_eq!(data["events"], serde_json::json!(["ROTATED"]));
    // Another name's change is none of this one's.
    mirror.clock.set(at(3 * MINUTE));
    let [one, ..] = orgs();
    let stranger = one.user("new@one.example", &key(Owner::User, 50), None, None);
    let stranger = one.user_draft("new@one.example", &stranger, Event::FirstSeen, at(MINUTE));
    mirror.put([stranger, alice(30, Event::Restarted, at(3 * MINUTE))]).await;
    let (kind, id, data) = events.next().await.unwrap();
    assert_eq!((kind.as_str(), id.as_str()), ("version", "3"));
    assert_eq!((&data["alarm"], &data["version"]), (&true.into(), &3.into()));
    assert_eq!(data["events"], serde_json::json!(["RESTARTED"]));
    // It names what to fetch, and that is there.
    let from = data["history_from"].as_u64().unwrap();
    let ask = syndicate::client::Ask::History { from };
    let name = "alice@one.example".parse().unwrap();
    let receipt = syndicate::client::fetch(&url, &name, ask).await.unwrap();
    assert_eq!(receipt.subject.items.len(), 1);
    // A quiet stream beats until something comes.
    let beat = events.part().await.unwrap();
    assert!(beat.starts_with(':'), "{beat}");
    mirror.put([alice(31, Event::Rotated, at(3 * MINUTE))]).await;
    events.next().await.unwrap();

    // Who was away hears what it missed; who asks for an absent name hears when
    // it comes.
    let mut back =
        Source::open(&format!("{url}/v1/events?name=alice%40one.example"), Some("1")).await;
    let (kind, id, _) = back.next().await.unwrap();
    assert_eq!((kind.as_str(), id.as_str()), ("state", "1"));
    for expected in ["2", "3", "4"] {
        let (kind, id, _) = back.next().await.unwrap();
        assert_eq!((kind.as_str(), id.as_str()), ("version", expected));
    }
    let mut absent = Source::open(&format!("{url}/v1/events?name=zoe%40one.example"), None).await;
    assert_eq!(absent.next().await.unwrap().2["version"], 0);
    let zoe = one.user("zoe@one.example", &key(Owner::User, 51), None, None);
    mirror.put([one.user_draft("zoe@one.example", &zoe, Event::FirstSeen, at(MINUTE))]).await;
    let (kind, _, data) = absent.next().await.unwrap();
    assert_eq!((kind.as_str(), &data["events"]), ("version", &serde_json::json!(["FIRST_SEEN"])));
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_bounded() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mirror = Mirror::world().await;
    let url = mirror
        .serve(|options| {
            options.streams_per_client = 2;
            options.budget = mirror.budget(2);
        })
        .await;
    let path = format!("{url}/v1/events?name=one.example");
    let first = Source::open(&path, None).await;
    let second = Source::open(&path, None).await;
    let third = Source::open(&path, None).await;
    assert_eq!(third.response.status(), 503);
    assert!(third.response.headers().contains_key("retry-after"));
    // A stream that ends gives its place back, sooner or later.
    drop(second);
    loop {
        let again = Source::open(&path, None).await;
        if again.response.status() == 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for bad in ["", "?name=", "?name=one.example&x=1", "?name=%40"] {
        let refused = Source::open(&format!("{url}/v1/events{bad}"), None).await;
        assert_eq!(refused.response.status(), 400, "{bad}");
    }
    drop(first);

    // Each unknown mailbox is on the client's account; a known one too, then.
    let url = mirror.serve(|options| options.budget = mirror.budget(2)).await;
    for (who, status) in [("no1", 200), ("no2", 200), ("no3", 429), ("alice", 429)] {
        let path = format!("{url}/v1/events?name={who}%40one.example");
        assert_eq!(Source::open(&path, None).await.response.status(), status, "{who}");
    }

    // A stream lives so long and no longer, and ends with the mirror.
    let url = mirror.serve(|options| options.stream_lifetime = Duration::from_millis(50)).await;
    let mut short = Source::open(&format!("{url}/v1/events?name=one.example"), None).await;
    assert_eq!(short.next().await.unwrap().0, "state");
    assert_eq!(short.next().await, None);
    let url = mirror.serve(|_| ()).await;
    let mut open = Source::open(&format!("{url}/v1/events?name=one.example"), None).await;
    assert_eq!(open.next().await.unwrap().0, "state");
    mirror.shutdown.cancel();
    assert_eq!(open.next().await, None);
}
