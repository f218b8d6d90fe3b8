//! Incident files, and whom they convict.

use std::sync::LazyLock;

use bytes::Bytes;
use syndicate::dime::key::Owner;
use syndicate::dime::signet::Signet;
use syndicate::dime::{Dnssec, Timestamp};
use syndicate::proof::checkpoint::SignedCheckpoint;
use syndicate::proof::entry::Event;
use syndicate::proof::incident::{
    Entries, Fork, Incident, Kind, MAX_INCIDENT, Party, Placed, Receipts, Received, Round, Shown,
    Victim, verify,
};
use syndicate::proof::policy::Policy;
use syndicate::proof::{Entry, Kind as EntryKind, merkle};

use super::mini_log::{HOUR, MINUTE, MiniLog, ORIGIN, Org, at, key, log_vkey, orgs, world};

const WATCHER: &str = "watcher.example/1";
/// A mirror that did nothing wrong.
const OTHER: &str = "mirror.example/2";
const OTHER_SEED: [u8; 32] = [51; 32];

/// Whoever signed what convicts in the seeds.
static GUILTY: LazyLock<Vec<Party>> = LazyLock::new(|| {
    let convicted = |incident: &Incident| verify(incident, &[], None).ok()?.convicts;
    let guilty: Vec<_> = made().iter().filter_map(convicted).map(|it| it.party).collect();
    assert!(guilty.iter().any(|party| matches!(party, Party::Mirror { .. })));
    assert!(guilty.iter().any(|party| matches!(party, Party::Organization { .. })));
    let innocent = MiniLog::of(OTHER, OTHER_SEED).key().verifier();
    assert!(!guilty.contains(&Party::Mirror { key: innocent }));
    guilty
});

static POLICY: LazyLock<Policy> =
    LazyLock::new(|| Policy::of_log(log_vkey()).expect("our own policy"));

pub fn incident(bytes: &[u8]) {
    let Ok(incident) = Incident::read(bytes) else { return };
    assert!(bytes.len() <= MAX_INCIDENT && Incident::is_one(bytes));
    let file = incident.to_bytes();
    let again = Incident::read(&file).expect("our own file");
    assert_eq!((again.id(), &again), (incident.id(), &incident));
    assert_eq!(again.to_bytes(), file);

    let verdict = verify(&incident, &[], None);
    assert_eq!(verify(&again, &[], None), verdict);
    let known = verify(&incident, &[], Some(&POLICY));
    assert_eq!(known.is_ok(), verdict.is_ok());
    let (Ok(findings), Ok(known)) = (verdict, known) else { return };
    assert_eq!(known.convicts, findings.convicts);
    assert!(!findings.testimony.is_empty());
    if let Some(conviction) = findings.convicts {
        assert!(GUILTY.contains(&conviction.party), "{conviction:?}");
        assert!(!findings.proved.is_empty());
    }
}

/// One of each way to show something. The log [`ORIGIN`] and the organization
/// `one.example` are guilty in them, the log [`OTHER`] signed one history.
pub fn made() -> Vec<Incident> {
    let [one, ..] = orgs();
    let address = "alice@one.example";
    let user = |byte, previous: Option<u8>| {
        let previous = previous.map(|byte| key(Owner::User, byte));
        one.user(address, &key(Owner::User, byte), previous.as_ref(), None)
    };
    let logs = views(&one, address);
    let answers = || {
        logs.iter()
            .map(|log| log.receipt(address, 1, log.checkpoint(&[]), Some(at(3 * MINUTE))))
            .collect::<Vec<_>>()
    };
    let name = || address.parse().expect("a name");
    let round =
        |origin: &str, minute: u64| Round { origin: origin.into(), at: at(minute * MINUTE) };
    let rounds = vec![round(ORIGIN, 4), round(OTHER, 5), round(ORIGIN, 6), round(OTHER, 7)];
    let receipts = Receipts { receipts: answers(), rounds };
    let victim = Victim { shown: shown(&one, &user(99, None)), receipts: answers()[..1].to_vec() };
    let alarm = |kind, new: &Signet, old: &Signet, bytes: &'static [u8]| {
        let signet = Bytes::copy_from_slice(old.bytes());
        let received = Received {
            rule: "TEST".into(),
            message: "a test".into(),
            bytes: Bytes::from_static(bytes),
            now: shown(&one, new),
            before: Some(Shown { signet, ..Shown::default() }),
        };
        Incident::received(kind, ORIGIN, at(5 * MINUTE), name(), received)
    };
    let world = world();
    let last = world.entries.len() - 1;
    vec![
        Incident::log_fork(WATCHER, at(HOUR), fork()),
        Incident::rule_broken(WATCHER, at(HOUR), repeated()),
        Incident::stale_mirror(WATCHER, at(72 * HOUR), entries(&world, [last], "stale")),
        Incident::split_view(WATCHER, at(8 * MINUTE), name(), receipts),
        Incident::forged_key("client", at(5 * MINUTE), name(), victim),
        alarm(Kind::ChainRestarted, &user(2, None), &user(1, None), b""),
        alarm(Kind::ChainGap, &user(2, Some(3)), &user(1, None), b""),
        alarm(Kind::ChainReverted, &user(1, None), &user(2, Some(1)), b""),
        alarm(Kind::SignetInvalid, &user(1, None), &user(1, None), b"no signet"),
    ]
}

fn signed(log: &MiniLog) -> SignedCheckpoint {
    SignedCheckpoint::parse(&log.checkpoint(&[])).expect("our own checkpoint")
}

/// Two histories of one log that part after the first batch.
fn fork() -> Fork {
    let [one, two, three] = orgs();
    let draft = |org: &Org| org.draft(&[Event::FirstSeen], Dnssec::Indeterminate);
    let (mut left, mut right) = (MiniLog::new(), MiniLog::new());
    for log in [&mut left, &mut right] {
        log.batch(at(MINUTE), [draft(&one)]);
    }
    left.batch(at(2 * MINUTE), [draft(&two)]);
    right.batch(at(2 * MINUTE), [draft(&three)]);
    right.batch(at(3 * MINUTE), []);
    let (leaves, size) = (right.leaves(), left.entries.len());
    let proof = merkle::consistency_proof(leaves.as_slice(), size as u64, leaves.len() as u64);
    Fork {
        key: left.key().verifier(),
        smaller: signed(&left),
        larger: signed(&right),
        prefix: merkle::root_from_leaves(&leaves[..size]),
        proof: proof.expect("all leaves are here"),
    }
}

fn entries(log: &MiniLog, indices: impl IntoIterator<Item = usize>, rule: &str) -> Entries {
    let place = |index| Placed { index: index as u64, leaf: log.leaf(index) };
    Entries {
        key: log.key().verifier(),
        checkpoint: signed(log),
        leaves: indices.into_iter().map(place).collect(),
        tips: vec![],
        blobs: vec![],
        rule: rule.into(),
    }
}

/// A log with an entry twice: a version that does not grow.
fn repeated() -> Entries {
    let mut log = world();
    let user = |entry: &Bytes| {
        matches!(Entry::decode(entry).map(|entry| entry.kind), Ok(EntryKind::User(_)))
    };
    let first = log.entries.iter().position(user).expect("a mailbox's entry");
    log.entries.push(log.entries[first].clone());
    let again = log.entries.len() - 1;
    entries(&log, [first, again], "version")
}

/// Two logs that saw other keys of a mailbox, after one that both saw.
fn views(org: &Org, address: &str) -> [MiniLog; 2] {
    let mut logs = [MiniLog::new(), MiniLog::of(OTHER, OTHER_SEED)];
    let signet = |byte| org.user(address, &key(Owner::User, byte), None, None);
    let observed = |minute: u64| -> Timestamp { at(minute * MINUTE - 700) };
    for (number, log) in (0u8..).zip(&mut logs) {
        log.batch(at(MINUTE), [org.draft(&[Event::FirstSeen], Dnssec::Indeterminate)]);
        let (first, own) = (signet(61), signet(62 + number));
        let first = org.user_draft(address, &first, Event::FirstSeen, observed(2));
        log.batch(at(2 * MINUTE), [first]);
        let own = org.user_draft(address, &own, Event::Restarted, observed(3));
        log.batch(at(3 * MINUTE), [own]);
    }
    logs
}

fn shown(org: &Org, signet: &Signet) -> Shown {
    Shown {
        at: at(4 * MINUTE),
        record: org.record().into(),
        chain: Bytes::new(),
        org_signet: Bytes::copy_from_slice(org.signet().bytes()),
        signet: Bytes::copy_from_slice(signet.bytes()),
    }
}
