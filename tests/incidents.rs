//! Incidents: made of real parts, judged offline by the library and by the
//! binary. Whatever carries a proof cannot be changed; no mirror is convicted
//! without its own signatures; the list says nothing about mailboxes.

#[path = "support/mini_log.rs"]
mod mini_log;
#[path = "support/mirror.rs"]
mod mirror;
#[path = "support/second_verifier.rs"]
mod second_verifier;

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use mini_log::*;
use mirror::Mirror;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use syndicate::clock::Clock;
use syndicate::crawl::{self, IncidentKind, Incidents as _};
use syndicate::daemon::{
    ALARMS_PER_DAY, Filed, Filing, FromCrawl, REFUSED_PER_DAY, REPORTS_ABOUT_ONE, REPORTS_PER_DAY,
};
use syndicate::demo::dns::PrivateDns;
use syndicate::dime::key::Owner;
use syndicate::dime::record::{self, Template};
use syndicate::dime::signet::Signet;
use syndicate::dime::{Dnssec, Domain, Name, Rejection, Timestamp};
use syndicate::proof::checkpoint::{Checkpoint, SignedCheckpoint};
use syndicate::proof::dnssec::Anchor;
use syndicate::proof::entry::{
    Carried, DirectoryRoot, Event, Events, Genesis, Holder, Predecessor, UserObservation,
};
use syndicate::proof::incident::{
    Conviction, Entries, Evidence, Fault, Findings, Fork, Incident, Kind, Party, Placed, Receipts,
    Received, Round, Shown, TipProof, Victim, verify,
};
use syndicate::proof::map::{CHAIN_START, PlainMap, chain_next, entry_leaf_hash};
use syndicate::proof::policy::Policy;
use syndicate::proof::receipt::Receipt;
use syndicate::proof::replay::{Change, MapEngine as _, Tip};
use syndicate::proof::{Entry, Kind as EntryKind, Label, merkle};
use syndicate::resolver::{HickoryResolver, Options, Resolver};

const WATCHER: &str = "watcher.example/1";
const OTHER: &str = "mirror.example/2";
const OTHER_SEED: [u8; 32] = [51; 32];

fn judge(incident: &Incident) -> Result<Findings, Fault> {
    // As a reader gets it.
    let read = Incident::read(&incident.to_bytes()).expect("it reads back");
    assert_eq!(&read, incident);
    verify(&read, &[], None)
}

fn rule(incident: &Incident) -> &'static str {
    judge(incident).expect_err("refused").rule()
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// Of the party alone: the deed is words.
fn convicted(findings: &Findings) -> Option<&Party> {
    findings.convicts.as_ref().map(|Conviction { party, .. }| party)
}

fn signed(log: &MiniLog) -> SignedCheckpoint {
    SignedCheckpoint::parse(&log.checkpoint(&[])).unwrap()
}

fn mirror_of(log: &MiniLog) -> Party {
    Party::Mirror { key: log.key().verifier() }
}

/// Two histories of one log that part after the first batch: the second one is
/// longer.
fn parted() -> [MiniLog; 2] {
    let [one, two, three] = orgs();
    let (mut left, mut right) = (MiniLog::new(), MiniLog::new());
    for log in [&mut left, &mut right] {
        log.batch(at(MINUTE), [one.draft(&[Event::FirstSeen], Dnssec::Indeterminate)]);
    }
    left.batch(at(2 * MINUTE), [two.draft(&[Event::FirstSeen], Dnssec::Indeterminate)]);
    right.batch(at(2 * MINUTE), [three.draft(&[Event::FirstSeen], Dnssec::Indeterminate)]);
    right.batch(at(3 * MINUTE), []);
    [left, right]
}

fn fork() -> Fork {
    let [left, right] = parted();
    let (leaves, size) = (right.leaves(), left.entries.len());
    let proof =
        merkle::consistency_proof(leaves.as_slice(), size as u64, leaves.len() as u64).unwrap();
    Fork {
        key: left.key().verifier(),
        smaller: signed(&left),
        larger: signed(&right),
        prefix: merkle::root_from_leaves(&leaves[..size]),
        proof,
    }
}

#[test]
fn a_log_that_signed_two_histories_is_convicted() {
    let fork = fork();
    let incident = |fork: Fork| Incident::log_fork(WATCHER, at(HOUR), fork);
    let findings = judge(&incident(fork.clone())).unwrap();
    let [left, right] = parted();
    assert_eq!(convicted(&findings), Some(&mirror_of(&left)));
    assert_eq!(findings.proved.len(), 1);

    // Of one size: nothing but the two roots.
    let mut same = MiniLog::new();
    same.batch(at(MINUTE), []);
    let mut other = MiniLog::new();
    other.batch(at(2 * MINUTE), []);
    let prefix = merkle::root_from_leaves(&other.leaves());
    let (smaller, larger) = (signed(&same), signed(&other));
    let level = Fork { smaller, larger, prefix, proof: vec![], ..fork.clone() };
    assert!(judge(&incident(level)).unwrap().convicts.is_some());

    // Two that agree, whichever proof stands beside them.
    let mut grown = MiniLog::new();
    grown.batch(at(MINUTE), []);
    let small = signed(&grown);
    grown.batch(at(2 * MINUTE), []);
    let leaves = grown.leaves();
    let proof =
        merkle::consistency_proof(leaves.as_slice(), small.checkpoint().size, leaves.len() as u64)
            .unwrap();
    let honest = Fork {
        prefix: small.checkpoint().root,
        smaller: small,
        larger: signed(&grown),
        proof,
        ..fork.clone()
    };
    assert_eq!(rule(&incident(honest.clone())), "incident-agree");
    let lie = Fork { prefix: [9; 32], ..honest };
    assert_eq!(rule(&incident(lie)), "incident-consistency");

    // Not by this key, not of this log, a proof of something else.
    let stranger = MiniLog::of(OTHER, OTHER_SEED);
    let wrong = Fork { key: stranger.key().verifier(), ..fork.clone() };
    assert_eq!(rule(&incident(wrong)), "incident-origin");
    let cosigner = Fork { key: cosigners()[0].verifier(), ..fork.clone() };
    assert_eq!(rule(&incident(cosigner)), "incident-key");
    let checkpoint = Checkpoint::new(ORIGIN, right.entries.len() as u64, [8; 32]).unwrap();
    let forger = syndicate::proof::note::SigningKey::ed25519(ORIGIN, &OTHER_SEED).unwrap();
    let unsigned = checkpoint.sign(&forger, at(0)).unwrap();
    let unsigned = Fork { larger: unsigned, ..fork.clone() };
    assert_eq!(rule(&incident(unsigned)), "signature");
    let mut short = fork.clone();
    short.proof.pop();
    assert_eq!(rule(&incident(short)), "incident-consistency");
    let turned = Fork { smaller: fork.larger.clone(), larger: fork.smaller.clone(), ..fork };
    assert_eq!(rule(&incident(turned)), "incident-order");
}

/// Any byte: it is refused, or says the same of the same parts.
#[test]
fn no_byte_of_an_accusation_can_be_changed() {
    let original = Incident::log_fork(WATCHER, at(HOUR), fork());
    let file = original.to_bytes();
    for position in 0..file.len() {
        for flip in [0x01, 0x20] {
            let mut changed = file.to_vec();
            changed[position] ^= flip;
            let Ok(read) = Incident::read(&changed) else { continue };
            let Ok(findings) = verify(&read, &[], None) else { continue };
            // Who wrote it, and when, is said by nobody's signature.
            assert_eq!(read.evidence, original.evidence, "byte {position}");
            assert_eq!(convicted(&findings), Some(&mirror_of(&MiniLog::new())));
        }
    }
}

#[test]
fn one_object_has_one_id_whatever_its_layout() {
    let incident = Incident::log_fork(WATCHER, at(HOUR), fork());
    let value: Value = serde_json::from_slice(&incident.to_bytes()).unwrap();
    let pretty = serde_json::to_vec_pretty(&value).unwrap();
    assert_eq!(Incident::read(&pretty).unwrap().id(), incident.id());
    // Keys ascend and nothing is between them: RFC 8785.
    let text = String::from_utf8(incident.to_bytes().to_vec()).unwrap();
    assert!(text.starts_with(r#"{"at":1795453200000,"evidence":{"fork":{"key":"log.example/1+"#));
    assert!(text.ends_with(r#""format":1,"kind":"log-fork","observer":"watcher.example/1"}"#));

    let refused = |change: &dyn Fn(&mut Value)| {
        let mut changed = value.clone();
        change(&mut changed);
        assert_eq!(Incident::read(changed.to_string().as_bytes()).unwrap_err().rule, "incident");
    };
    refused(&|file| file["more"] = json!(1));
    refused(&|file| file["evidence"]["fork"]["more"] = json!(1));
    refused(&|file| file["format"] = json!(2));
    refused(&|file| file["kind"] = json!("rule-broken"));
    refused(&|file| file["name"] = json!("alice@one.example"));
    refused(&|file| file["observer"] = json!(""));
    refused(&|file| file["observer"] = json!("a\nb"));
    refused(&|file| file["at"] = json!(1u64 << 53));
    refused(&|file| file["evidence"]["fork"]["prefix"] = json!("AAAA"));
    refused(&|file| drop(file.as_object_mut().unwrap().remove("at")));
    refused(&|file| file["evidence"]["fork"]["proof"] = json!("A".repeat(64 * 44)));
    assert!(Incident::read(&vec![b' '; 9 << 20]).is_err());
    assert!(Incident::is_one(&pretty));
    assert!(!Incident::is_one(
        &world().receipt("one.example", 0, world().checkpoint(&[]), None).encode()
    ));
}

fn entries(log: &MiniLog, indices: impl IntoIterator<Item = usize>, rule: &str) -> Entries {
    Entries {
        key: log.key().verifier(),
        checkpoint: signed(log),
        leaves: indices
            .into_iter()
            .map(|index| Placed { index: index as u64, leaf: log.leaf(index) })
            .collect(),
        tips: vec![],
        blobs: vec![],
        rule: rule.into(),
    }
}

fn broken(entries: Entries) -> Incident {
    Incident::rule_broken(WATCHER, at(HOUR), entries)
}

fn index_of(log: &MiniLog, is: impl Fn(&EntryKind<'_>) -> bool) -> usize {
    let found = log.entries.iter().position(|entry| is(&Entry::decode(entry).unwrap().kind));
    found.expect("such an entry")
}

/// Each rule that leaves alone can show.
#[test]
fn leaves_that_break_a_rule_convict_their_log() {
    type Make = fn(&mut MiniLog) -> Vec<usize>;
    let push = |log: &mut MiniLog, entry: Vec<u8>| {
        log.entries.push(entry.into());
        log.entries.len() - 1
    };
    let cases: &[(&str, Make)] = &[
        // The same version once more.
        ("version", |log| {
            let first = index_of(log, |kind| matches!(kind, EntryKind::User(_)));
            log.entries.push(log.entries[first].clone());
            vec![first, log.entries.len() - 1]
        }),
        ("wire-misplaced", |log| {
            let entry = [&log.entries[1][..], &[0xfa, 0x01, 0x00]].concat();
            log.entries.push(entry.into());
            vec![log.entries.len() - 1]
        }),
        ("second-genesis", |log| {
            log.entries.push(log.entries[0].clone());
            vec![log.entries.len() - 1]
        }),
        // Dated before the root that stands before it.
        ("too-old", |log| {
            let root = log.entries.len() - 1;
            let first = index_of(log, |kind| matches!(kind, EntryKind::Domain(_)));
            log.entries.push(log.entries[first].clone());
            vec![root, root + 1]
        }),
        ("covered", |log| {
            let root = DirectoryRoot { root: [1; 32], labels: 1, covered: 3 };
            let entry = Entry::new(at(HOUR), EntryKind::Root(root)).encode();
            log.entries.push(entry.into());
            vec![log.entries.len() - 1]
        }),
        ("no-root", |log| {
            let first = index_of(log, |kind| matches!(kind, EntryKind::Domain(_)));
            log.entries.push(log.entries[first].clone());
            vec![log.entries.len() - 1]
        }),
        ("no-genesis", |log| {
            log.entries.remove(0);
            vec![0]
        }),
        ("closed", |log| {
            log.end(at(10 * MINUTE));
            let closing = log.entries.len() - 2;
            log.batch(at(11 * MINUTE), []);
            vec![closing, log.entries.len() - 1]
        }),
    ];
    let honest = world();
    for (rule_name, make) in cases {
        let mut log = world();
        let leaves = make(&mut log);
        let incident = broken(entries(&log, leaves.clone(), rule_name));
        let findings = judge(&incident).unwrap_or_else(|fault| panic!("{rule_name}: {fault}"));
        assert_eq!(convicted(&findings), Some(&mirror_of(&log)), "{rule_name}");
        // The same said of an honest log, and of a log that did not sign.
        let all = broken(entries(&honest, 0..honest.entries.len(), rule_name));
        assert_eq!(rule(&all), "incident-unbroken", "{rule_name}");
        let mut unsigned = entries(&log, leaves, rule_name);
        unsigned.checkpoint = signed(&honest);
        let fault = rule(&broken(unsigned));
        assert!(["incident-inclusion", "incident-unbroken"].contains(&fault), "{rule_name}");
    }
    let mut log = world();
    let mut newer = log.entries[1].to_vec();
    newer[1] = 9;
    let index = push(&mut log, newer);
    // Of a newer format: it accuses nobody, whatever else is said.
    let fault = rule(&broken(entries(&log, [index], "wire-value")));
    assert_eq!(fault, "unknown-format");
}

/// A log that begins with labels of another one, in batches of two, and the
/// labels. `more` comes behind them, in a batch of its own.
fn migrated(more: &[EntryKind<'_>]) -> (MiniLog, Vec<Label>) {
    let labels: Vec<Label> = (1..=6).map(|byte| Label([byte; 32])).collect();
    let mut promised = PlainMap::new();
    let tip = |label: &Label| Tip {
        holder: Holder::User,
        version: u64::from(label.0[0]),
        current: u64::from(label.0[0]),
        chain: label.0,
    };
    labels.iter().for_each(|label| promised.insert(*label, tip(label)));
    let mut log = MiniLog::new();
    let mut entries = std::mem::take(&mut log.entries);
    let other = MiniLog::of(OTHER, OTHER_SEED);
    let note = other.checkpoint(&[]);
    let genesis = Genesis {
        origin: ORIGIN,
        log_key: *log.key().verifier().public_key().unwrap(),
        vrf_key: log.vrf.public(),
        predecessor: Some(Predecessor {
            origin: OTHER,
            log_key: *other.key().verifier().public_key().unwrap(),
            checkpoint: &note,
            directory_root: promised.root(),
            labels: 6,
        }),
    };
    entries[0] = Entry::new(at(0), EntryKind::Genesis(genesis)).encode().into();
    entries.truncate(1);
    log.entries = entries;
    let mut batch = |kinds: Vec<EntryKind<'_>>| {
        let first = log.entries.len();
        log.entries
            .extend(kinds.iter().map(|kind| Entry::new(at(0), kind.clone()).encode().into()));
        let changes = (first as u64..).zip(&log.entries[first..]);
        let mut changes: Vec<Change> =
            changes.filter_map(|(at, entry)| Change::of(at, entry.clone()).unwrap()).collect();
        changes.sort_by_key(|change| (change.label, change.index));
        let _ = log.map.apply(&changes);
        log.close(at(0));
    };
    for two in labels.chunks(2) {
        batch(two.iter().map(|label| EntryKind::Carried(carried(*label, tip(label)))).collect());
    }
    batch(more.to_vec());
    (log, labels)
}

fn carried(label: Label, tip: Tip) -> Carried {
    let Tip { holder, version, current, chain } = tip;
    Carried { label, holder, version, current, chain, predecessor_label: label }
}

/// A log that took over more labels than one batch holds is honest, wherever
/// somebody begins to replay it.
#[test]
fn carrying_over_in_batches_convicts_nobody() {
    let (log, _) = migrated(&[]);
    let rules = ["carried-misplaced", "carried-order", "carried-twice", "carried-count"];
    let rules = rules.into_iter().chain(["carried-root", "directory-root", "labels", "version"]);
    for rule_name in rules {
        for start in 0..log.entries.len() {
            for end in start + 1..=log.entries.len() {
                let accused = entries(&log, start..end, rule_name);
                let incident = match rule_name {
                    "directory-root" | "labels" => {
                        Incident::directory_root_wrong(WATCHER, at(HOUR), accused)
                    }
                    _ => broken(accused),
                };
                let convicts = judge(&incident).ok().and_then(|findings| findings.convicts);
                assert_eq!(convicts, None, "{rule_name}, {start}..{end}");
            }
        }
    }
}

/// What is carried over twice, or behind something else, convicts, as does an entry
/// that does not fit the label that was carried over.
#[test]
fn a_carried_label_is_compared_with_others() {
    let user = |label: Label, version, events| {
        EntryKind::User(UserObservation {
            label,
            version,
            current: version,
            commitment: [1; 32],
            events: Events::of(events),
            held_until: None,
            coalesced: None,
        })
    };
    let label = Label([1; 32]);
    let tip = Tip { holder: Holder::User, version: 1, current: 1, chain: label.0 };
    let twice = [EntryKind::Carried(carried(label, tip))];
    let late = Label([9; 32]);
    let late = [
        user(Label([8; 32]), 1, &[Event::FirstSeen]),
        EntryKind::Carried(carried(late, Tip { chain: late.0, ..tip })),
    ];
    let domain = Tip { holder: Holder::Domain, ..tip };
    let lies: [(&str, &[EntryKind<'_>], usize); 4] = [
        ("carried-twice", &twice, 1),
        ("holder", &[EntryKind::Carried(carried(label, domain))], 1),
        ("events", &[user(label, 2, &[Event::FirstSeen])], 1),
        ("carried-misplaced", &late, 10),
    ];
    for (rule_name, lie, other) in lies {
        let (log, _) = migrated(lie);
        let last = log.entries.len() - 2;
        let findings = judge(&broken(entries(&log, [other, last], rule_name))).unwrap();
        assert_eq!(convicted(&findings), Some(&mirror_of(&log)), "{rule_name}");
        // The leaf alone is testimony.
        let alone = judge(&broken(entries(&log, [last], rule_name))).unwrap();
        assert_eq!(alone.convicts, None, "{rule_name}");
    }
    let (honest, _) = migrated(&[
        user(label, 2, &[Event::Rotated]),
        user(Label([8; 32]), 1, &[Event::FirstSeen]),
    ]);
    no_two_leaves_convict(&honest, 0..honest.entries.len());
}

/// Whichever two leaves, and whatever is said of them.
fn no_two_leaves_convict(log: &MiniLog, indices: impl IntoIterator<Item = usize>) {
    let indices: Vec<usize> = indices.into_iter().collect();
    for (n, one) in indices.iter().enumerate() {
        for other in &indices[n + 1..] {
            let accused = entries(log, [*one, *other], "");
            for rule_name in
                ["current", "events", "holder", "version", "carried-twice", "carried-misplaced"]
            {
                let incident = broken(Entries { rule: rule_name.into(), ..accused.clone() });
                let convicts = judge(&incident).ok().and_then(|findings| findings.convicts);
                assert_eq!(convicts, None, "{rule_name}: {one} and {other}");
            }
        }
    }
}

/// A domain and a mailbox at leaves 2 and 3, many batches, then the mailbox's next
/// version; what the map held, and the domain's next version, as `lie` has it.
fn far_apart(lie: impl Fn(EntryKind<'_>) -> EntryKind<'_>) -> (MiniLog, PlainMap) {
    let [one, ..] = orgs();
    let zoe = |byte, old: Option<u8>, event, minute| {
        let old = old.map(|old| key(Owner::User, old));
        let signet = one.user("zoe@one.example", &key(Owner::User, byte), old.as_ref(), None);
        one.user_draft("zoe@one.example", &signet, event, at(minute * MINUTE - 700))
    };
    let mut log = MiniLog::new();
    let first = one.draft(&[Event::FirstSeen], Dnssec::Indeterminate);
    log.batch(at(MINUTE), [first, zoe(77, None, Event::FirstSeen, 1)]);
    (0..300).for_each(|_| log.close(at(2 * MINUTE)));
    log.batch(at(3 * MINUTE), [zoe(78, Some(77), Event::Rotated, 3)]);
    let before = log.map.clone();
    log.batch(at(4 * MINUTE), [one.gone(&[Event::RecordExpired])]);
    let index = log.entries.len() - 2;
    let honest = log.entries[index].clone();
    let Entry { time, kind, .. } = Entry::decode(&honest).unwrap();
    log.entries[index] = Entry::new(time, lie(kind)).encode().into();
    (log, before)
}

fn still_in_force(kind: EntryKind<'_>) -> EntryKind<'_> {
    let EntryKind::Domain(mut gone) = kind else { panic!("a domain's") };
    gone.current = 1;
    EntryKind::Domain(gone)
}

fn seen_first(kind: EntryKind<'_>) -> EntryKind<'_> {
    let EntryKind::Domain(mut gone) = kind else { panic!("a domain's") };
    gone.events = Events::of(&[Event::FirstSeen, Event::RecordExpired]);
    EntryKind::Domain(gone)
}

fn turned_mailbox(kind: EntryKind<'_>) -> EntryKind<'_> {
    let EntryKind::Domain(gone) = kind else { panic!("a domain's") };
    EntryKind::User(UserObservation {
        label: Label::of_domain(&gone.domain.parse().unwrap()),
        version: 2,
        current: 2,
        commitment: [1; 32],
        events: Events::of(&[Event::Rotated]),
        held_until: None,
        coalesced: None,
    })
}

/// Rules that take the label's version before to see: with its entry, from however
/// long ago, a leaf convicts; with anything else in that place, it does not.
#[test]
fn an_entry_that_does_not_fit_the_one_before_convicts() {
    type Lie = fn(EntryKind<'_>) -> EntryKind<'_>;
    let lies: [(&str, Lie); 3] =
        [("current", still_in_force), ("events", seen_first), ("holder", turned_mailbox)];
    let (honest, _) = far_apart(|kind| kind);
    let last = honest.entries.len() - 2;
    for (rule_name, lie) in lies {
        let (log, _) = far_apart(lie);
        let accused = entries(&log, [2, last], rule_name);
        let findings = judge(&broken(accused.clone())).unwrap();
        assert_eq!(convicted(&findings), Some(&mirror_of(&log)), "{rule_name}");
        assert!(findings.proved.iter().any(|word| word.contains(rule_name)), "{findings:?}");

        // Alone, or beside another label's entry.
        let alone = broken(entries(&log, [last], rule_name));
        assert_eq!(judge(&alone).unwrap().convicts, None, "{rule_name}");
        for other in [0, 1, 3, last - 2] {
            let other = broken(entries(&log, [other, last], rule_name));
            assert_eq!(rule(&other), "incident-unbroken", "{rule_name}");
        }
        // An earlier entry that is not the log's, or stands elsewhere.
        let refused = |change: &dyn Fn(&mut Placed)| {
            let mut accused = accused.clone();
            change(&mut accused.leaves[0]);
            assert_eq!(rule(&broken(accused)), "incident-inclusion", "{rule_name}");
        };
        refused(&|placed| placed.index = 3);
        refused(&|placed| placed.leaf.entry = log.entries[3].clone());
        refused(&|placed| placed.leaf.path.truncate(3));
        refused(&|placed| placed.leaf.path.clear());

        // In front of an honest leaf, made so that it does not fit.
        let kind = Entry::decode(&log.entries[last]).unwrap().kind;
        let mut framed = entries(&honest, [2, last], rule_name);
        let made = Entry::new(at(MINUTE), kind).encode();
        framed.leaves[0].leaf.entry = made.into();
        assert_eq!(rule(&broken(framed)), "incident-inclusion", "{rule_name}");
        // The honest checkpoint over the liar's leaves, and the other way round.
        let mut mixed = entries(&log, [2, last], rule_name);
        mixed.checkpoint = signed(&honest);
        assert_eq!(rule(&broken(mixed)), "incident-inclusion", "{rule_name}");
    }
    let end = honest.entries.len();
    no_two_leaves_convict(&honest, (0..5).chain(300..302).chain(end - 5..end));
    // More versions of one name, alarms and erased ones among them.
    let world = world();
    let frank = |kind: &EntryKind<'_>| matches!(kind, EntryKind::User(_) | EntryKind::Domain(_));
    let seen = (0..world.entries.len())
        .filter(|index| frank(&Entry::decode(&world.entries[*index]).unwrap().kind));
    no_two_leaves_convict(&world, seen);
}

/// `last` of a tip is held to the chain that the signed map has: whatever is put
/// there, an honest batch convicts nobody.
#[test]
fn a_forged_last_entry_convicts_nobody() {
    type Lie = fn(EntryKind<'_>) -> EntryKind<'_>;
    let lies: [(&str, Lie); 3] =
        [("current", still_in_force), ("events", seen_first), ("holder", turned_mailbox)];
    let batch =
        |log: &MiniLog, before: &PlainMap, rule_name: &str, last: Option<(Bytes, [u8; 32])>| {
            let end = log.entries.len();
            let mut accused = entries(log, end - 3..end, rule_name);
            let label = Label::of_domain(&"one.example".parse().unwrap());
            let tip = before.tip(&label).unwrap();
            let (version, chain) = (tip.version, tip.chain);
            let map = before.prove(&label);
            accused.tips = vec![TipProof { label, version, chain, map, last }];
            broken(accused)
        };
    let (honest, before) = far_apart(|kind| kind);
    let first = honest.entries[2].clone();
    let genuine = Some((first.clone(), CHAIN_START));
    for (rule_name, lie) in lies {
        let (log, before) = far_apart(lie);
        let findings = judge(&batch(&log, &before, rule_name, genuine.clone())).unwrap();
        assert_eq!(convicted(&findings), Some(&mirror_of(&log)), "{rule_name}");
        assert_eq!(rule(&batch(&log, &before, rule_name, None)), "incident-unbroken");
    }
    let mut made: Vec<Bytes> = honest.entries[..6].to_vec();
    made.extend(honest.entries[honest.entries.len() - 6..].iter().cloned());
    let Entry { time, kind, .. } = Entry::decode(&first).unwrap();
    let EntryKind::Domain(seen) = kind else { panic!("a domain's") };
    for current in [0, 2, 7] {
        let lie = EntryKind::Domain(syndicate::proof::entry::DomainObservation {
            current,
            ..seen.clone()
        });
        made.push(Entry::new(time, lie).encode().into());
    }
    made.push(Entry::new(time, turned_mailbox(EntryKind::Domain(seen))).encode().into());
    made.push(Bytes::from_static(b"no entry"));
    let tip = before.tip(&Label::of_domain(&"one.example".parse().unwrap())).unwrap().chain;
    let mut chains = vec![CHAIN_START, tip, [9; 32], entry_leaf_hash(&first)];
    chains.extend(before.iter().map(|(_, tip)| tip.chain));
    for rule_name in ["current", "events", "holder", "version", "directory-root"] {
        assert_eq!(
            rule(&batch(&honest, &before, rule_name, genuine.clone())),
            if rule_name == "directory-root" { "incident-leaves" } else { "incident-unbroken" }
        );
        for entry in &made {
            for chain in &chains {
                let last = Some((entry.clone(), *chain));
                let fits = chain_next(chain, &entry_leaf_hash(entry)) == tip;
                assert_eq!(fits, last == genuine, "only the log's own entry makes its chain");
                let incident = batch(&honest, &before, rule_name, last);
                let convicts = judge(&incident).ok().and_then(|findings| findings.convicts);
                assert_eq!(convicts, None, "{rule_name}");
            }
        }
    }
}

/// An entry against the bytes that it names.
#[test]
fn an_entry_that_contradicts_its_bytes_convicts() {
    let [one, two, _] = orgs();
    let draft = |org: &Org| org.draft(&[Event::FirstSeen], Dnssec::Indeterminate);
    let syndicate::proof::Draft::Domain(mut lie) = draft(&one) else { panic!("a domain's") };
    lie.org_signet = None;
    lie.poks = vec![two.pok.signing_key()];
    let mut log = MiniLog::new();
    log.batch(at(MINUTE), [syndicate::proof::Draft::Domain(lie)]);
    let mut accused = entries(&log, [2], "record-poks");
    // The bytes themselves are the proof.
    assert_eq!(rule(&broken(accused.clone())), "incident-unbroken");
    accused.blobs = vec![one.record().into()];
    let findings = judge(&broken(accused.clone())).unwrap();
    assert_eq!(convicted(&findings), Some(&mirror_of(&log)));
    accused.blobs = vec![two.record().into()];
    assert_eq!(rule(&broken(accused)), "incident-unbroken");

    let mut honest = MiniLog::new();
    honest.batch(at(MINUTE), [draft(&one)]);
    let mut accused = entries(&honest, [2], "record-poks");
    accused.blobs = vec![one.record().into(), Bytes::copy_from_slice(one.signet().bytes())];
    assert_eq!(rule(&broken(accused.clone())), "incident-unbroken");
    accused.rule = "org-signet".into();
    assert_eq!(rule(&broken(accused)), "incident-unbroken");
}

/// A log whose last batch has a root of our choice, and the whole proof of what
/// the map held before.
fn last_batch(root: impl Fn([u8; 32]) -> [u8; 32]) -> (MiniLog, Entries) {
    let [one, two, three] = orgs();
    let mut log = world();
    let before = log.map.clone();
    let start = log.entries.len() - 1;
    log.batch(
        at(7 * MINUTE),
        [
            two.draft(&[Event::DnssecGained], Dnssec::Secure),
            three.draft(&[Event::FirstSeen], Dnssec::Indeterminate),
            one.user_draft(
                "zoe@one.example",
                &one.user("zoe@one.example", &key(Owner::User, 77), None, None),
                Event::FirstSeen,
                at(7 * MINUTE - 700),
            ),
        ],
    );
    let last = log.entries.pop().unwrap();
    let Entry { time, kind: EntryKind::Root(honest), .. } = Entry::decode(&last).unwrap() else {
        panic!("the last leaf is a root")
    };
    let chosen = DirectoryRoot { root: root(honest.root), ..honest };
    log.entries.push(Entry::new(time, EntryKind::Root(chosen)).encode().into());
    let mut accused = entries(&log, start..log.entries.len(), "directory-root");
    let labels = log.entries[start + 1..].iter().filter_map(|entry| {
        match Entry::decode(entry).unwrap().kind {
            EntryKind::Domain(seen) => Some(Label::of_domain(&seen.domain.parse().unwrap())),
            EntryKind::User(seen) => Some(seen.label),
            _ => None,
        }
    });
    accused.tips = labels
        .map(|label| TipProof {
            label,
            version: before.tip(&label).map_or(0, |tip| tip.version),
            chain: before.tip(&label).map_or(CHAIN_START, |tip| tip.chain),
            map: before.prove(&label),
            last: None,
        })
        .collect();
    (log, accused)
}

#[test]
fn a_wrong_directory_root_is_proved_by_its_batch() {
    let incident = |entries| Incident::directory_root_wrong(WATCHER, at(HOUR), entries);
    let (log, accused) = last_batch(|root| [root[0] ^ 1; 32]);
    let findings = judge(&incident(accused.clone())).unwrap();
    assert_eq!(convicted(&findings), Some(&mirror_of(&log)));

    // The right root convicts nobody, nor does a proof that lacks something.
    let (_, honest) = last_batch(|root| root);
    assert_eq!(rule(&incident(honest.clone())), "incident-unbroken");
    for tip in 0..accused.tips.len() {
        let mut less = accused.clone();
        less.tips.remove(tip);
        assert_eq!(rule(&incident(less)), "incident-lack");
        let mut older = honest.clone();
        older.tips[tip].version += 1;
        assert!(judge(&incident(older)).is_err());
        let mut other = honest.clone();
        other.tips[tip].chain = [3; 32];
        assert!(judge(&incident(other)).is_err());
    }
    // A batch with a leaf left out is none.
    let mut gap = honest;
    gap.leaves.remove(2);
    assert_eq!(rule(&incident(gap)), "incident-unbroken");

    // A leaf without its path, or without what stands before it, is testimony.
    let mut pathless = entries(&log, [log.entries.len() - 1], "directory-root");
    pathless.leaves[0].leaf.path.clear();
    assert_eq!(judge(&incident(pathless)).unwrap().convicts, None);
    let lonely = Incident::rule_broken(WATCHER, at(HOUR), entries(&log, [2], "version"));
    assert_eq!(judge(&lonely).unwrap().convicts, None);
    let alone = entries(&log, [log.entries.len() - 1], "directory-root");
    let findings = judge(&incident(alone)).unwrap();
    assert_eq!(findings.convicts, None);
    assert!(findings.testimony.iter().any(|word| word.contains("syndicate audit")));
}

#[test]
fn what_a_mirror_did_not_do_is_testimony() {
    let log = world();
    let domain = index_of(&log, |kind| matches!(kind, EntryKind::Domain(_)));
    let unserved = entries(&log, [domain], "dnssec-chain");
    let incident = Incident::blob_unserved(WATCHER, at(HOUR), unserved.clone());
    let findings = judge(&incident).unwrap();
    assert_eq!(findings.convicts, None);
    assert!(findings.testimony.iter().any(|word| word.contains("/v1/blob/")));
    let not_named = Entries { rule: "photo".into(), ..unserved };
    assert_eq!(rule(&Incident::blob_unserved(WATCHER, at(HOUR), not_named)), "incident-leaves");

    let root = entries(&log, [log.entries.len() - 1], "stale");
    let findings = judge(&Incident::stale_mirror(WATCHER, at(HOUR), root.clone())).unwrap();
    assert_eq!(findings.convicts, None);
    let early = Incident::stale_mirror(WATCHER, at(MINUTE), root);
    assert_eq!(rule(&early), "incident-time");
}

/// Two logs, each of which has seen its own signet of a mailbox, and the first
/// one's before that.
fn views(org: &Org, address: &str, shared: bool) -> [MiniLog; 2] {
    let mut logs = [MiniLog::new(), MiniLog::of(OTHER, OTHER_SEED)];
    let signet = |byte| org.user(address, &key(Owner::User, byte), None, None);
    let draft = |signet: &Signet, event, minute: u64| {
        org.user_draft(address, signet, event, at(minute * MINUTE - 700))
    };
    for (number, log) in (0u8..).zip(&mut logs) {
        log.batch(at(MINUTE), [org.draft(&[Event::FirstSeen], Dnssec::Indeterminate)]);
        let (first, own) = (signet(61), signet(62 + number));
        if shared {
            log.batch(at(2 * MINUTE), [draft(&first, Event::FirstSeen, 2)]);
            log.batch(at(3 * MINUTE), [draft(&own, Event::Restarted, 3)]);
        } else {
            log.batch(at(2 * MINUTE), [draft(&own, Event::FirstSeen, 2)]);
            log.batch(at(3 * MINUTE), []);
        }
    }
    logs
}

fn answer(log: &MiniLog, name: &str) -> Receipt {
    log.receipt(name, 1, log.checkpoint(&[]), Some(at(3 * MINUTE)))
}

fn by_turns() -> Vec<Round> {
    let round =
        |origin: &str, minute: u64| Round { origin: origin.into(), at: at(minute * MINUTE) };
    vec![round(ORIGIN, 4), round(OTHER, 5), round(ORIGIN, 6), round(OTHER, 7)]
}

fn split(receipts: Vec<Receipt>, rounds: Vec<Round>) -> Incident {
    let name = receipts[0].name.clone();
    Incident::split_view(WATCHER, at(8 * MINUTE), name, Receipts { receipts, rounds })
}

#[test]
fn a_split_view_names_the_organization_and_no_mirror() {
    let [one, _, three] = orgs();
    let address = "alice@one.example";
    for shared in [false, true] {
        let logs = views(&one, address, shared);
        let receipts: Vec<Receipt> = logs.iter().map(|log| answer(log, address)).collect();
        let findings = judge(&split(receipts.clone(), by_turns())).unwrap();
        let domain: Domain = "one.example".parse().unwrap();
        let party = Party::Organization { domain, pok: one.pok.signing_key() };
        assert_eq!(convicted(&findings), Some(&party));
        assert!(findings.testimony.iter().any(|word| word.contains("none of the mirrors")));

        // Looks that were not by turns, too few, or later than the incident.
        for rounds in [
            vec![],
            by_turns()[..3].to_vec(),
            by_turns().into_iter().rev().collect(),
            [0, 2, 1, 3].map(|i: usize| by_turns()[i].clone()).to_vec(),
        ] {
            assert_eq!(rule(&split(receipts.clone(), rounds)), "incident-rounds");
        }
        // A client has the logs' word alone, and they have seen their keys once.
        let of_client = |rounds| {
            let observer = "client".to_owned();
            Incident { observer, ..split(receipts.clone(), rounds) }
        };
        assert_eq!(rule(&of_client(by_turns())), "incident-rounds");
        let findings = judge(&of_client(vec![])).unwrap();
        assert_eq!(convicted(&findings), None);
        assert!(findings.testimony.iter().any(|word| word.contains("a crawl behind")));
        let early = Incident { at: at(6 * MINUTE), ..split(receipts.clone(), by_turns()) };
        assert_eq!(rule(&early), "incident-rounds");
        // One log twice; one name and another.
        let twice = vec![receipts[0].clone(), receipts[0].clone()];
        assert_eq!(rule(&split(twice, by_turns())), "incident-one-log");
        let mut other = receipts.clone();
        other[1] = answer(&logs[1], "one.example");
        assert_eq!(rule(&split(other, by_turns())), "incident-name");
        // A signature of a log that it did not make.
        let mut forged = receipts.clone();
        forged[1].subject.items[0].entry = forged[0].subject.items[0].entry.clone();
        assert!(judge(&split(forged, by_turns())).is_err());
    }
    // Logs that agree, and a log that has nothing.
    let [log, _] = views(&one, address, false);
    let mut other = MiniLog::of(OTHER, OTHER_SEED);
    other.batch(at(MINUTE), [one.draft(&[Event::FirstSeen], Dnssec::Indeterminate)]);
    let receipts = vec![answer(&log, "one.example"), answer(&other, "one.example")];
    assert_eq!(rule(&split(receipts, by_turns())), "incident-same");
    let receipts = vec![answer(&log, address), answer(&other, address)];
    assert_eq!(rule(&split(receipts, by_turns())), "incident-absent");

    // Below the ID level the name rests on the mirrors' word.
    let logs = views(&three, "ada@three.example", false);
    let receipts: Vec<Receipt> = logs.iter().map(|log| answer(log, "ada@three.example")).collect();
    let findings = judge(&split(receipts, by_turns())).unwrap();
    assert_eq!(findings.convicts, None);
    assert!(findings.proved.iter().any(|word| word.contains("without a name")));
}

#[test]
fn a_policy_says_who_is_known_and_changes_no_proof() {
    let [one, ..] = orgs();
    let logs = views(&one, "alice@one.example", false);
    let receipts = logs.iter().map(|log| answer(log, "alice@one.example")).collect();
    let incident = split(receipts, by_turns());
    let policy = Policy::of_log(log_vkey()).unwrap();
    let (with, without) =
        (verify(&incident, &[], Some(&policy)).unwrap(), verify(&incident, &[], None).unwrap());
    assert_eq!(with.convicts, without.convicts);
    let distrust = |findings: &Findings| {
        findings.testimony.iter().filter(|word| word.contains("policy")).count()
    };
    assert_eq!((distrust(&with), distrust(&without)), (1, 2));
}

#[test]
fn an_update_that_is_withheld_is_a_lag() {
    let [one, ..] = orgs();
    let address = "alice@one.example";
    let [ahead, _] = views(&one, address, true);
    let mut behind = MiniLog::of(OTHER, OTHER_SEED);
    let old = one.user(address, &key(Owner::User, 61), None, None);
    behind.batch(at(MINUTE), [one.draft(&[Event::FirstSeen], Dnssec::Indeterminate)]);
    let first = one.user_draft(address, &old, Event::FirstSeen, at(2 * MINUTE - 700));
    behind.batch(at(2 * MINUTE), [first]);
    behind.batch(at(3 * MINUTE), []);
    let withheld = |receipts| {
        let seen = Receipts { receipts, rounds: by_turns() };
        Incident::update_withheld(WATCHER, at(30 * HOUR), name(address), seen)
    };
    let receipts = vec![answer(&ahead, address), answer(&behind, address)];
    let findings = judge(&withheld(receipts)).unwrap();
    assert!(
        findings.proved.iter().any(|word| word.contains(OTHER) && word.contains("further back"))
    );
    // Two that diverged are another kind.
    let receipts = views(&one, address, false).iter().map(|log| answer(log, address)).collect();
    assert_eq!(rule(&withheld(receipts)), "incident-otherwise");
}

fn shown(org: &Org, signet: Option<&Signet>) -> Shown {
    Shown {
        at: at(4 * MINUTE),
        record: org.record().into(),
        chain: Bytes::new(),
        org_signet: Bytes::copy_from_slice(org.signet().bytes()),
        signet: signet.map_or_else(Bytes::new, |signet| Bytes::copy_from_slice(signet.bytes())),
    }
}

fn forged(shown: Shown, receipts: Vec<Receipt>) -> Incident {
    let name = receipts[0].name.clone();
    Incident::forged_key("client", at(5 * MINUTE), name, Victim { shown, receipts })
}

#[test]
fn a_key_that_only_the_victim_saw_names_who_signed_it() {
    let [one, _, three] = orgs();
    let address = "alice@one.example";
    let [log, _] = views(&one, address, true);
    let forgery = one.user(address, &key(Owner::User, 99), None, None);
    let receipts = vec![answer(&log, address)];
    let findings = judge(&forged(shown(&one, Some(&forgery)), receipts.clone())).unwrap();
    let domain: Domain = "one.example".parse().unwrap();
    let party = Party::Organization { domain, pok: one.pok.signing_key() };
    assert_eq!(convicted(&findings), Some(&party));

    // A key that the log knows, now or before.
    for byte in [61, 62] {
        let known = one.user(address, &key(Owner::User, byte), None, None);
        let incident = forged(shown(&one, Some(&known)), receipts.clone());
        assert_eq!(rule(&incident), "incident-known-key");
    }
    // Not signed by the organization, or for somebody else.
    let mut changed = forgery.bytes().to_vec();
    *changed.last_mut().unwrap() ^= 1;
    let broken = Shown { signet: changed.into(), ..shown(&one, None) };
    assert!(judge(&forged(broken, receipts.clone())).is_err());
    let bob = one.user("bob@one.example", &key(Owner::User, 99), None, None);
    assert_eq!(rule(&forged(shown(&one, Some(&bob)), receipts.clone())), "G2");
    // Another POK, and nothing that proves the record: nobody is convicted.
    let thief = Org { domain: "one.example", pok: key(Owner::Org, 200), soks: vec![], ..three };
    let stolen = thief.user(address, &key(Owner::User, 99), None, None);
    let findings = judge(&forged(shown(&thief, Some(&stolen)), receipts)).unwrap();
    assert_eq!(findings.convicts, None);
}

fn alarm(kind: Kind, address: &str, now: Shown, before: Option<Shown>) -> Incident {
    let received = Received {
        rule: "TEST".into(),
        message: "a test".into(),
        bytes: Bytes::new(),
        now,
        before,
    };
    Incident::received(kind, ORIGIN, at(5 * MINUTE), name(address), received)
}

#[test]
fn a_chain_that_restarts_shows_both_signets() {
    let [one, ..] = orgs();
    let address = "alice@one.example";
    let [a, b] = [1, 2].map(|byte| key(Owner::User, byte));
    let old = one.user(address, &a, None, None);
    let restarted = one.user(address, &b, None, None);
    let rotated = one.user(address, &b, Some(&a), None);
    let incident = |kind, new: &Signet| {
        let before = Shown { signet: Bytes::copy_from_slice(old.bytes()), ..Shown::default() };
        alarm(kind, address, shown(&one, Some(new)), Some(before))
    };
    let findings = judge(&incident(Kind::ChainRestarted, &restarted)).unwrap();
    assert!(matches!(convicted(&findings), Some(Party::Organization { .. })));
    assert!(Kind::ChainRestarted.meaning().contains("honest"));
    // An honest rotation is none of these.
    for kind in [Kind::ChainRestarted, Kind::ChainGap, Kind::ChainForked] {
        assert_eq!(rule(&incident(kind, &rotated)), "incident-otherwise");
    }
    assert_eq!(rule(&incident(Kind::ChainGap, &restarted)), "incident-otherwise");
    let by_stranger = one.user(address, &b, Some(&key(Owner::User, 3)), None);
    judge(&incident(Kind::ChainGap, &by_stranger)).unwrap();
    judge(&incident(Kind::ChainForked, &by_stranger)).unwrap();
    // The predecessor's own consent to its successor shows the way back.
    let back = Shown { signet: Bytes::copy_from_slice(rotated.bytes()), ..Shown::default() };
    let reverted = alarm(Kind::ChainReverted, address, shown(&one, Some(&old)), Some(back));
    assert!(judge(&reverted).unwrap().checked[0].contains("consented"));
    // Without the org signet nothing is proved of anybody.
    let bare = Shown { org_signet: Bytes::new(), ..shown(&one, Some(&restarted)) };
    let findings = judge(&alarm(Kind::ChainRestarted, address, bare, None)).unwrap();
    assert!(!findings.proves());
    let gone = alarm(
        Kind::SignetWithdrawn,
        address,
        shown(&one, None),
        Some(Shown { signet: Bytes::copy_from_slice(old.bytes()), ..Shown::default() }),
    );
    assert_eq!(judge(&gone).unwrap().convicts, None);
    // Each byte of what is signed.
    for position in 0..restarted.bytes().len() {
        let mut changed = restarted.bytes().to_vec();
        changed[position] ^= 1;
        let now = Shown { signet: changed.into(), ..shown(&one, None) };
        let before = Shown { signet: Bytes::copy_from_slice(old.bytes()), ..Shown::default() };
        let incident = alarm(Kind::ChainRestarted, address, now, Some(before));
        assert!(judge(&incident).is_err(), "byte {position}");
    }
}

#[test]
fn what_was_refused_is_refused_again() {
    let [one, two, _] = orgs();
    let refused = |kind, name: Name, bytes: &[u8], now: Shown| {
        let (bytes, before) = (Bytes::copy_from_slice(bytes), None);
        let received =
            Received { rule: "TEST".into(), message: "a test".into(), bytes, now, before };
        Incident::received(kind, ORIGIN, at(5 * MINUTE), name, received)
    };
    let domain = || name("one.example");
    let alice = || name("alice@one.example");
    let at_record = || Shown { org_signet: Bytes::new(), ..shown(&one, None) };
    let valid = one.user("alice@one.example", &key(Owner::User, 1), None, None);
    let others = two.user("alice@one.example", &key(Owner::User, 1), None, None);
    let bobs = one.user("bob@one.example", &key(Owner::User, 1), None, None);
    let record = one.record();
    let two_records = format!("{record}\n{}", two.record());
    let pinned = Template {
        poks: vec![one.pok.signing_key()],
        tls: vec![record::sign_certificate(one.pok.seed(), b"the certificate")],
        ..Template::default()
    };
    let pins = || Shown { record: pinned.text().into(), ..at_record() };
    for (incident, holds) in [
        (refused(Kind::RecordRefused, domain(), b"pok=short", Shown::default()), true),
        (refused(Kind::RecordRefused, domain(), record.as_bytes(), Shown::default()), false),
        (refused(Kind::RecordAmbiguous, domain(), two_records.as_bytes(), Shown::default()), true),
        (refused(Kind::RecordAmbiguous, domain(), record.as_bytes(), Shown::default()), false),
        (refused(Kind::NameConflict, domain(), two_records.as_bytes(), at_record()), true),
        (refused(Kind::NameConflict, domain(), record.as_bytes(), at_record()), false),
        (refused(Kind::OrgSignetInvalid, domain(), two.signet().bytes(), at_record()), true),
        (refused(Kind::OrgSignetInvalid, domain(), one.signet().bytes(), at_record()), false),
        (refused(Kind::CertificateMismatch, domain(), b"another certificate", pins()), true),
        (refused(Kind::CertificateMismatch, domain(), b"the certificate", pins()), false),
        (refused(Kind::SignetInvalid, alice(), others.bytes(), shown(&one, None)), true),
        (refused(Kind::SignetInvalid, alice(), b"garbage", shown(&one, None)), true),
        (refused(Kind::SignetInvalid, alice(), valid.bytes(), shown(&one, None)), false),
        (refused(Kind::LinkInvalid, alice(), others.bytes(), shown(&one, None)), true),
        (refused(Kind::DnssecBogus, domain(), b"\0\x03dns", Shown::default()), true),
    ] {
        let kind = incident.kind;
        match judge(&incident) {
            Ok(findings) => {
                assert!(holds, "{kind}");
                assert_eq!(findings.convicts, None, "{kind}: anybody can make such bytes");
                assert!(!findings.proves(), "{kind}");
            }
            Err(fault) => assert!(!holds, "{kind}: {fault}"),
        }
    }
    // The organization's own signature under another name is proof of that.
    let incident = refused(Kind::SignetInvalid, alice(), bobs.bytes(), shown(&one, None));
    assert!(judge(&incident).unwrap().proved[0].contains("another name"));
}

/// The second verifier reads the same files: the same ids, the same faults.
#[test]
fn a_second_implementation_agrees() {
    use base64::Engine as _;

    let [left, _] = parted();
    let mut incidents = vec![Incident::log_fork(WATCHER, at(HOUR), fork())];
    let mut short = fork();
    short.proof.pop();
    let agree = Fork { larger: signed(&left), ..fork() };
    let root = signed(&left).checkpoint().root;
    let agree = Fork { prefix: root, proof: vec![], ..agree };
    let turned = Fork { smaller: fork().larger, larger: fork().smaller, ..fork() };
    let stranger = MiniLog::of(OTHER, OTHER_SEED).key().verifier();
    let other = Fork { key: stranger, ..fork() };
    for fork in [short, agree, turned, other] {
        incidents.push(Incident::log_fork(WATCHER, at(HOUR), fork));
    }
    let [one, ..] = orgs();
    let logs = views(&one, "alice@one.example", true);
    let receipts: Vec<Receipt> = logs.iter().map(|log| answer(log, "alice@one.example")).collect();
    incidents.push(split(receipts.clone(), by_turns()));
    incidents.push(split(receipts.clone(), by_turns()[1..].to_vec()));
    incidents.push(split(vec![receipts[0].clone(), receipts[0].clone()], by_turns()));
    let client = |incident: Incident| Incident { observer: "client".to_owned(), ..incident };
    incidents.push(client(split(receipts.clone(), vec![])));
    incidents.push(client(split(receipts.clone(), by_turns())));

    let encode = |bytes: Bytes| base64::engine::general_purpose::STANDARD.encode(bytes);
    let cases: Vec<Value> =
        incidents.iter().map(|incident| json!({"incident": encode(incident.to_bytes())})).collect();
    let Some(answers) = second_verifier::answers(&cases) else { return };
    for (incident, theirs) in incidents.iter().zip(answers) {
        match judge(incident) {
            Err(fault) => assert_eq!(theirs, json!({"fault": fault.rule()})),
            Ok(findings) => {
                assert_eq!(theirs["id"], hex::encode(incident.id()));
                if let Some(Party::Mirror { key }) = convicted(&findings) {
                    assert_eq!(theirs["convicts"], key.name());
                }
            }
        }
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Timestamp::from_secs(since.as_secs())
}

async fn chain(dns: &PrivateDns, domain: &str) -> Bytes {
    let options =
        Options { timeout: Duration::from_secs(2), attempts: 2, ..dns.resolver_options() };
    let resolver = HickoryResolver::new(options).unwrap();
    let found = resolver.evidence(&domain.parse().unwrap(), now()).await.unwrap();
    found.expect("evidence").chain
}

/// A record that DNS signed, then another one, then none.
#[tokio::test]
async fn what_a_zone_signed_stays_proved() {
    let dns = PrivateDns::builder().signed("one.example").start().await.unwrap();
    let anchors: Vec<Anchor> = dns.trust_anchor().of_root();
    let [one, _, three] = orgs();
    let thief = Org { domain: "one.example", pok: key(Owner::Org, 200), soks: vec![], ..three };
    let strict = |org: &Org| {
        let poks = vec![org.pok.signing_key()];
        let policy = record::Policy::Strict;
        Template { poks, policy, expiry_days: 30, ..Template::default() }.text()
    };
    let mut states = Vec::new();
    for text in [Some(strict(&one)), Some(strict(&thief)), None] {
        match &text {
            Some(text) => dns.set_txt("_dime.one.example", &[text]).unwrap(),
            None => dns.remove("_dime.one.example").unwrap(),
        }
        let chain = chain(&dns, "one.example").await;
        let record = text.map_or_else(Bytes::new, Bytes::from);
        states.push(Shown { at: now(), record, chain, ..Shown::default() });
    }
    let [first, second, gone] = <[Shown; 3]>::try_from(states).unwrap();
    let incident = |kind, now: &Shown, before: &Shown| Incident {
        at: now.at,
        ..alarm(kind, "one.example", now.clone(), Some(before.clone()))
    };
    let zone = Party::Zone("one.example.".into());
    for (kind, now, before) in [
        (Kind::PokReplaced, &second, &first),
        (Kind::RecordWithdrawn, &gone, &second),
        (Kind::Downgrade, &gone, &second),
    ] {
        let incident = incident(kind, now, before);
        let findings = verify(&incident, &anchors, None).unwrap();
        assert_eq!(convicted(&findings), Some(&zone), "{kind}");
        // Without the root's key, or with a chain that is not whole, nobody.
        assert_eq!(judge(&incident).unwrap().convicts, None, "{kind}");
        let Evidence::Received(received) = &incident.evidence else { panic!("received") };
        for position in (0..received.now.chain.len()).step_by(17) {
            let mut changed = received.clone();
            let mut chain = changed.now.chain.to_vec();
            chain[position] ^= 1;
            changed.now.chain = chain.into();
            let evidence = Evidence::Received(changed);
            let changed = Incident { evidence, ..incident.clone() };
            let findings = verify(&changed, &anchors, None).unwrap();
            assert_eq!(findings.convicts, None, "{kind}: byte {position}");
        }
    }
    let strangers = PrivateDns::builder().signed("one.example").start().await.unwrap();
    let other_root = strangers.trust_anchor().of_root();
    let replaced = incident(Kind::PokReplaced, &second, &first);
    assert_eq!(verify(&replaced, &other_root, None).unwrap().convicts, None);
    // It may stay, and ask for less.
    let less =
        String::from_utf8(second.record.to_vec()).unwrap().replace("pol=strict", "pol=mixed");
    dns.set_txt("_dime.one.example", &[&less]).unwrap();
    let signed = chain(&dns, "one.example").await;
    let lax = Shown { record: less.into(), chain: signed, at: now(), ..Shown::default() };
    let findings = verify(&incident(Kind::Downgrade, &lax, &second), &anchors, None).unwrap();
    assert_eq!(convicted(&findings), Some(&zone));
    // The same keys are no replacement; a record that is there is not withdrawn.
    for (kind, now, before) in [
        (Kind::PokReplaced, &first, &first),
        (Kind::RecordWithdrawn, &second, &first),
        (Kind::Downgrade, &second, &first),
    ] {
        let fault = verify(&incident(kind, now, before), &anchors, None).unwrap_err();
        assert_eq!(fault.rule(), "incident-otherwise", "{kind}");
    }

    // A forged record with its own POK convicts the zone that signed it.
    let address = "alice@one.example";
    let mut log = MiniLog::new();
    let user = one.user(address, &key(Owner::User, 1), None, None);
    log.batch(at(MINUTE), [one.draft(&[Event::FirstSeen], Dnssec::Indeterminate)]);
    log.batch(at(2 * MINUTE), [one.user_draft(address, &user, Event::FirstSeen, at(MINUTE))]);
    let stolen = thief.user(address, &key(Owner::User, 99), None, None);
    let victim = Victim {
        shown: Shown {
            org_signet: Bytes::copy_from_slice(thief.signet().bytes()),
            signet: Bytes::copy_from_slice(stolen.bytes()),
            ..second.clone()
        },
        receipts: vec![log.receipt(address, 1, log.checkpoint(&[]), None)],
    };
    let later = at(3 * MINUTE).max(now());
    let incident = Incident::forged_key("client", later, name(address), victim);
    let findings = verify(&incident, &anchors, None).unwrap();
    assert_eq!(convicted(&findings), Some(&zone));
    assert_eq!(verify(&incident, &[], None).unwrap().convicts, None);
}

/// The command: exit code, and the one JSON object.
fn command(incident: &[u8], more: &[&str]) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("incident.json");
    std::fs::write(&file, incident).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_syndicate"))
        .arg("verify")
        .args(more)
        .arg(&file)
        .output()
        .unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn the_command_says_what_is_proved_and_what_is_not() {
    let fork = Incident::log_fork(WATCHER, at(HOUR), fork());
    let (code, text) = command(&fork.to_bytes(), &[]);
    assert_eq!(code, Some(0), "{text}");
    for words in [
        "log-fork of a mirror",
        "By its own signatures, the mirror log.example/1",
        "signed two histories of its log",
        "Not proved: somebody's word",
        "The mirror watcher.example/1 wrote this file",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let (code, text) = command(&fork.to_bytes(), &["--json", "--log", &log_vkey().to_string()]);
    let said: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(code, Some(0));
    assert_eq!(said["convicts"]["party"], "mirror");
    assert_eq!(said["id"], hex::encode(fork.id()));
    // Testimony only, and what does not hold.
    let [one, ..] = orgs();
    let address = "alice@one.example";
    let bare = Shown { org_signet: Bytes::new(), ..shown(&one, None) };
    let nothing = alarm(Kind::SignetWithdrawn, address, bare, None);
    let (code, text) = command(&nothing.to_bytes(), &[]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("NOTHING PROVED") && text.contains("It convicts nobody."), "{text}");
    let honest = broken(entries(&world(), [1, 2], "version"));
    let (code, text) = command(&honest.to_bytes(), &["--json"]);
    let said: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &said["error"]["rule"]), (Some(1), &json!("incident-unbroken")));
    let logs = views(&one, address, false);
    let receipts = logs.iter().map(|log| answer(log, address)).collect();
    let (code, text) = command(&split(receipts, by_turns()).to_bytes(), &[]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("This convicts none of the mirrors."), "{text}");
    assert_eq!(command(b"{\"kind\":\"log-fork\",\"evidence\":{}}", &[]).0, Some(1));
}

async fn get(url: &str) -> (u16, String) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let response = client.get(url).send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

async fn ask(url: &str, name: &str) -> (u16, Value) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let body = json!({"name": name}).to_string();
    let response = client.post(url).body(body).send().await.unwrap();
    (response.status().as_u16(), serde_json::from_str(&response.text().await.unwrap()).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_list_shows_domains_and_only_counts_mailboxes() {
    let mirror = Mirror::world().await;
    let filed = Arc::new(Filed::new(mirror.store.private.clone(), mirror.clock.clone()));
    let of_mirror = Incident::log_fork(WATCHER, at(MINUTE), fork());
    let of_domain = {
        let received = Received {
            rule: "A1".into(),
            message: "a test".into(),
            bytes: Bytes::from_static(b"pok=x"),
            now: Shown::default(),
            before: None,
        };
        let name = name("one.example");
        Incident::received(Kind::RecordRefused, ORIGIN, at(2 * MINUTE), name, received)
    };
    let of_mailbox = alarm(Kind::SignetWithdrawn, "alice@one.example", Shown::default(), None);
    for incident in [&of_mirror, &of_domain, &of_mailbox] {
        assert_eq!(filed.file(incident).await.unwrap(), Filing::New(incident.id()));
        // Seen again, at another time: once is enough.
        let again = Incident { at: incident.at.plus(1), ..incident.clone() };
        assert_eq!(filed.file(&again).await.unwrap(), Filing::Known);
    }
    // A new process reads what the old one kept.
    let kept = Arc::new(Filed::new(mirror.store.private.clone(), mirror.clock.clone()));
    assert_eq!(kept.file(&of_domain).await.unwrap(), Filing::Known);
    let budget = mirror.budget(2);
    let url = mirror
        .serve(|options| {
            options.incidents = Some(kept);
            options.budget = budget;
        })
        .await;
    let url = format!("{url}/v1/incidents");

    let (status, list) = get(&url).await;
    assert_eq!(status, 200, "{list}");
    let ids = |list: &str| -> Vec<String> {
        let list: Value = serde_json::from_str(list).unwrap();
        let lines = list["incidents"].as_array().unwrap().iter();
        lines.map(|line| line["id"].as_str().unwrap_or("-").to_owned()).collect()
    };
    let public = [&of_domain, &of_mirror].map(|incident| hex::encode(incident.id()));
    assert_eq!(ids(&list), public, "not of today's mailboxes");
    // The day after: kind and day, and nothing else.
    mirror.clock.advance(24 * HOUR);
    let (_, list) = get(&url).await;
    let lines: Value = serde_json::from_str(&list).unwrap();
    let counted = json!({"day": "2026-11-23", "kind": "signet-withdrawn", "mailboxes": 1});
    assert_eq!(lines["incidents"][2], counted);
    let label = Label::of_address(
        &syndicate::proof::vrf::SecretKey::from_seed(&VRF_SEED),
        &"alice@one.example".parse().unwrap(),
    );
    for secret in [hex::encode(of_mailbox.id()), "alice".into(), label.to_string()] {
        assert!(!list.contains(&secret), "{secret}");
    }
    // Page by page it is the same.
    let (mut paged, mut next) = (Vec::new(), String::new());
    loop {
        let (_, page) = get(&format!("{url}?limit=1{next}")).await;
        paged.extend(ids(&page));
        let page: Value = serde_json::from_str(&page).unwrap();
        let Some(from) = page["next"].as_str() else { break };
        next = format!("&from={from}");
    }
    assert_eq!(paged, ids(&list));
    assert_eq!(get(&format!("{url}?from=x")).await.0, 400);

    for incident in [&of_domain, &of_mirror] {
        let (status, file) = get(&format!("{url}/{}", hex::encode(incident.id()))).await;
        assert_eq!((status, file.as_bytes()), (200, &incident.to_bytes()[..]));
    }
    // Of a mailbox no id is found, its own no more than any other.
    let hidden = get(&format!("{url}/{}", hex::encode(of_mailbox.id()))).await;
    assert_eq!(hidden, get(&format!("{url}/{}", "ab".repeat(32))).await);
    assert_eq!(hidden.0, 404);

    // Whoever names it gets it; unknown names are on the account of lookups.
    let (status, found) = ask(&url, "Alice@ONE.example").await;
    assert_eq!((status, &found["incidents"]), (200, &json!([of_mailbox.to_json()])));
    let (_, none) = ask(&url, "bob@one.example").await;
    assert_eq!(none["incidents"], json!([]));
    for _ in 0..2 {
        assert_eq!(ask(&url, "nobody@one.example").await, (200, json!({"incidents": []})));
    }
    assert_eq!(ask(&url, "alice@one.example").await.0, 429);
    assert_eq!(ask(&url, "one.example").await.0, 200);
}

/// Of a kind that a mirror files about a mailbox, each of another thing.
fn numbered(kind: Kind, mailbox: &str, number: u32) -> Incident {
    let now = Shown { record: number.to_string().into(), ..Shown::default() };
    alarm(kind, mailbox, now, None)
}

/// Junk of a domain, however much there is of it, leaves the room of what matters
/// about the domain, and what clients send that of what we saw.
#[tokio::test]
async fn junk_leaves_room_for_alarms_and_accusations() {
    let store = syndicate::store::Blobs::memory();
    let clock = Clock::manual(at(0));
    let filed = Filed::new(store, clock.clone());
    let mailbox = "alice@one.example";
    let fresh = async |incident: &Incident| {
        let filing = filed.file(incident).await.unwrap();
        assert!(matches!(filing, Filing::New(_)), "{} {filing:?}", incident.kind);
    };
    let over = async |incident: &Incident| {
        assert_eq!(filed.file(incident).await.unwrap(), Filing::Over, "{}", incident.kind);
    };
    for number in 0..REFUSED_PER_DAY {
        let kind = [Kind::LinkInvalid, Kind::SignetInvalid][number as usize % 2];
        fresh(&numbered(kind, mailbox, number)).await;
    }
    // All refused things of a domain are one count, of whatever mailbox.
    over(&numbered(Kind::LinkInvalid, "bob@one.example", 1000)).await;
    over(&Incident { name: Some(name("one.example")), ..numbered(Kind::Coalesced, mailbox, 1000) })
        .await;
    // What was not kept is not remembered as if it were.
    over(&numbered(Kind::LinkInvalid, "bob@one.example", 1000)).await;
    fresh(&numbered(Kind::LinkInvalid, "bob@two.example", 1000)).await;

    // A kind of alarm does not use up another, nor what mirrors say of each other.
    for number in 0..ALARMS_PER_DAY {
        fresh(&numbered(Kind::ChainGap, mailbox, number)).await;
    }
    over(&numbered(Kind::ChainGap, mailbox, 1000)).await;
    fresh(&numbered(Kind::ChainRestarted, mailbox, 1000)).await;
    let [one, ..] = orgs();
    let logs = views(&one, mailbox, false);
    let receipts: Vec<Receipt> = logs.iter().map(|log| answer(log, mailbox)).collect();
    let ours = split(receipts, by_turns());

    // Clients together have so many, of one name fewer; and what they said of a
    // split view does not stand for what we saw of it.
    let by_client = |mailbox: &str, number: u32| {
        let made = numbered(Kind::ForgedKey, mailbox, number);
        Incident { observer: "client".into(), ..made }
    };
    let theirs = Incident { observer: "client".into(), ..ours.clone() };
    fresh(&theirs).await;
    for number in 1..REPORTS_ABOUT_ONE {
        fresh(&by_client(mailbox, number)).await;
    }
    over(&by_client(mailbox, 1000)).await;
    for number in REPORTS_ABOUT_ONE..REPORTS_PER_DAY {
        fresh(&by_client(&format!("alice@{}.example", number / REPORTS_ABOUT_ONE), number)).await;
    }
    over(&by_client("alice@other.example", 1000)).await;
    fresh(&ours).await;
    assert_eq!(filed.file(&theirs).await.unwrap(), Filing::Known);
    // What a mirror's own signature proves has room always.
    let of_mirror = Incident::log_fork("client", at(HOUR), fork());
    fresh(&of_mirror).await;

    // The day is the clock's: what incidents say of their time begins none.
    let later = |incident: Incident, hours: u64| Incident { at: at(hours * HOUR), ..incident };
    for hours in [24, 0] {
        over(&later(numbered(Kind::LinkInvalid, mailbox, 1000), hours)).await;
        over(&later(by_client(mailbox, 1000), hours)).await;
    }
    clock.advance(24 * HOUR);
    fresh(&numbered(Kind::LinkInvalid, mailbox, 1000)).await;
    fresh(&by_client(mailbox, 1000)).await;
}

/// What is not kept counts neither as a file nor in bytes.
#[tokio::test]
async fn what_is_refused_takes_no_room() {
    let filed = Filed::new(syndicate::store::Blobs::memory(), Clock::manual(at(0)));
    let large = |byte: u8, length: usize| {
        let received = Received {
            rule: "TEST".into(),
            message: "a test".into(),
            bytes: vec![byte; length].into(),
            now: Shown::default(),
            before: None,
        };
        Incident::received(Kind::LinkInvalid, ORIGIN, at(0), name("alice@one.example"), received)
    };
    // Twelve of them are 16 MiB, in base64.
    for byte in 0..11 {
        let filing = filed.file(&large(byte, 1 << 20)).await.unwrap();
        assert!(matches!(filing, Filing::New(_)), "{byte} {filing:?}");
    }
    for byte in 11..15 {
        assert_eq!(filed.file(&large(byte, 1 << 20)).await.unwrap(), Filing::Over);
    }
    let filing = filed.file(&large(15, 1000)).await.unwrap();
    assert!(matches!(filing, Filing::New(_)), "{filing:?}");
    // Nor does what no file may be as long as: a reader would refuse it.
    let logs = views(&orgs()[0], "alice@one.example", false);
    let mut receipts: Vec<Receipt> =
        logs.iter().map(|log| answer(log, "alice@one.example")).collect();
    receipts[0].blobs.push(vec![0; 8 << 20].into());
    let filing = filed.file(&split(receipts, by_turns())).await.unwrap();
    assert_eq!(filing, Filing::TooLarge);
}

/// What the crawl saw is kept with all that is needed to judge it elsewhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_crawl_keeps_what_stands_alone() {
    let mirror = Mirror::world().await;
    let filed = Arc::new(Filed::new(mirror.store.private.clone(), mirror.clock.clone()));
    let (state, public) = (mirror.state.clone(), mirror.store.public.clone());
    let crawl = FromCrawl::new(filed.clone(), state, public, ORIGIN.into());
    let [one, ..] = orgs();
    let bob = "bob@one.example".parse().unwrap();
    let signets =
        [3, 4].map(|byte| one.user("bob@one.example", &key(Owner::User, byte), None, None));
    let [before, bytes] = signets.each_ref().map(|signet| Bytes::copy_from_slice(signet.bytes()));
    let domain: Domain = "one.example".parse().unwrap();
    let why = Rejection::new("RESTARTED", "a test");
    let kind = IncidentKind::Alarm(Event::Restarted);
    let seen = crawl::Incident::new(kind, &domain, Some(&bob), why, bytes, at(2 * MINUTE));
    let seen = crawl::Incident { before, ..seen };
    crawl.report(seen.clone()).await;
    crawl.report(crawl::Incident { at: at(3 * MINUTE), ..seen }).await;
    let why = Rejection::new("pok-mismatch", "a test");
    let kind = IncidentKind::OrgSignetInvalid;
    let bytes = Bytes::copy_from_slice(orgs()[1].signet().bytes());
    let refused = crawl::Incident::new(kind, &domain, None, why, bytes, at(2 * MINUTE));
    crawl.report(crawl::Incident { record: one.record().into(), ..refused }).await;

    use syndicate::serve::http::Incidents as _;
    let files = filed.of_name(&Name::Address(bob)).await.unwrap();
    let [file] = files.as_slice() else { panic!("one file, seen twice") };
    let incident = Incident::read(file).unwrap();
    let Evidence::Received(received) = &incident.evidence else { panic!("received") };
    assert!(!received.now.chain.is_empty() && !received.now.record.is_empty());
    let findings = verify(&incident, &[], None).unwrap();
    assert!(matches!(convicted(&findings), Some(Party::Organization { .. })));
    let files = filed.of_name(&Name::Domain(domain.clone())).await.unwrap();
    let findings = verify(&Incident::read(&files[0]).unwrap(), &[], None).unwrap();
    assert!(findings.checked[0].contains("pok-mismatch"));

    // Swapped while the domain is over quota: under an org signet that was in force
    // earlier, and under one that the log never had.
    let eve = "eve@one.example";
    let [mut never, ..] = orgs();
    never.soks = vec![key(Owner::Org, 112)];
    let before = one.user(eve, &key(Owner::User, 7), None, Some(0));
    for (under, convicts) in [(&one, true), (&never, false)] {
        let signet = under.user(eve, &key(Owner::User, 20), None, Some(0));
        let [before, bytes] = [&before, &signet].map(|it| Bytes::copy_from_slice(it.bytes()));
        let (address, why) = (eve.parse().unwrap(), Rejection::new("RESTARTED", "a test"));
        let kind = IncidentKind::Alarm(Event::Restarted);
        let seen =
            crawl::Incident::new(kind, &domain, Some(&address), why, bytes.clone(), at(WORLD));
        crawl.report(crawl::Incident { before, ..seen }).await;
        let files = filed.of_name(&Name::Address(address)).await.unwrap();
        let incidents = files.iter().map(|file| Incident::read(file).unwrap());
        let is_it = |incident: &Incident| match &incident.evidence {
            Evidence::Received(received) => received.now.signet == bytes,
            _ => false,
        };
        let incident = incidents.into_iter().find(is_it).expect("it is filed");
        let findings = verify(&incident, &[], None).unwrap();
        assert_eq!(convicted(&findings).is_some(), convicts, "{findings:?}");
    }
}

/// What was in force before an alarm may have been signed long ago; what is older
/// still is not read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_past_of_a_domain_is_read_as_far_as_an_alarm_needs_it() {
    use syndicate::store::rows::{self, DomainRow, Hash, OrgRow};
    use syndicate::store::testing::{Answer, Fault as Broken, Faults, Operation};
    use syndicate::store::{Batch, keys};

    let mirror = Mirror::world().await;
    let with_pok = |byte| {
        let [one, ..] = orgs();
        Org { pok: key(Owner::Org, byte), soks: vec![], ..one }
    };
    let (older, oldest) = (with_pok(91), with_pok(90));
    let state = &*mirror.state;
    let mut row: DomainRow = rows::find(state, b"one.example").await.unwrap().unwrap();
    let public = &mirror.store.public;
    let faults = Faults::new();
    for (number, org) in [&older, &oldest].into_iter().enumerate() {
        let signet = Bytes::copy_from_slice(org.signet().bytes());
        let hash = Sha256::digest(&signet).into();
        public.put(keys::blob(&hash), signet).await.unwrap();
        row.org_signets.insert(0, OrgRow { signet: Hash(hash), version: 0 });
        if number == 1 {
            let path = format!("public/{}", keys::blob(&hash));
            faults.always(Operation::Read, &path, Broken::Refuse(Answer::Unavailable));
        }
    }
    let mut batch = Batch::new();
    batch.row(&row);
    let _ = state.apply(batch).await.unwrap();

    let filed = Arc::new(Filed::new(mirror.store.private.clone(), mirror.clock.clone()));
    let public = faults.wrap_blobs(public, "public");
    let crawl = FromCrawl::new(filed.clone(), mirror.state.clone(), public, ORIGIN.into());
    let bob: syndicate::dime::Address = "bob@one.example".parse().unwrap();
    let before = older.user("bob@one.example", &key(Owner::User, 3), None, None);
    let now = orgs()[0].user("bob@one.example", &key(Owner::User, 4), None, None);
    let [before, bytes] = [before, now].map(|signet| Bytes::copy_from_slice(signet.bytes()));
    let (kind, why) =
        (IncidentKind::Alarm(Event::Restarted), Rejection::new("RESTARTED", "a test"));
    let domain = bob.domain();
    let seen = crawl::Incident::new(kind, domain, Some(&bob), why, bytes, at(2 * MINUTE));
    crawl.report(crawl::Incident { before: before.clone(), ..seen.clone() }).await;
    // Neither is the past needed for what is no alarm.
    let junk = crawl::Incident { kind: IncidentKind::SignetInvalid, ..seen };
    crawl.report(junk).await;

    use syndicate::serve::http::Incidents as _;
    let files = filed.of_name(&Name::Address(bob)).await.unwrap();
    assert_eq!(files.len(), 2);
    let read: Vec<Incident> = files.iter().map(|file| Incident::read(file).unwrap()).collect();
    let alarm = read.iter().find_map(|incident| match &incident.evidence {
        Evidence::Received(received) => received.before.clone(),
        _ => None,
    });
    let shown = alarm.expect("what was in force before");
    assert_eq!((shown.signet, shown.org_signet), (before, older.signet().bytes().to_vec().into()));
}
