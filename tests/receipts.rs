//! Receipts: what they prove, that nothing in them can be changed, and that the
//! second verifier, written from `proto/README.md` in another language, comes to
//! the same words.

#[path = "support/mini_log.rs"]
mod mini_log;

use bytes::Bytes;
use mini_log::*;
use syndicate::dime::Timestamp;
use syndicate::proof::policy::Policy;
use syndicate::proof::receipt::{self, Asker, Fault, Receipt, Verdict, Word};

const NOW: u64 = WORLD + 30_000;

fn judge(receipt: &Receipt, policy: &Policy) -> Result<Verdict, Fault> {
    receipt::verify(receipt, &Asker { policy: Some(policy), ..Asker::default() }, at(NOW))
}

/// A checkpoint with all three cosignatures, ten seconds old.
fn cosigned(log: &MiniLog) -> Bytes {
    let keys = cosigners();
    let times: Vec<_> = keys.iter().map(|key| (key, at(NOW - 10_000))).collect();
    log.checkpoint(&times)
}

fn strict() -> Policy {
    Policy::parse(policy_text(3).as_bytes()).unwrap()
}

fn receipt_of(log: &MiniLog, name: &str, from: u64) -> Receipt {
    log.receipt(name, from, cosigned(log), Some(at(WORLD)))
}

/// Each name of the world, the verdict's word, and its notes.
const WORDS: &[(&str, &str, &str)] = &[
    ("one.example", "VALID", ""),
    ("alice@one.example", "VALID", ""),
    ("bob@one.example", "HELD", ""),
    ("carol@one.example", "FORGOTTEN", ""),
    ("dave@one.example", "WITHDRAWN", ""),
    ("eve@one.example", "VALID", "SIGNER RETIRED"),
    ("frank@one.example", "VALID", ""),
    ("nobody@one.example", "ABSENT", ""),
    ("nowhere.example", "ABSENT", ""),
    ("two.example", "VALID", "DNSSEC insecure"),
    ("ann@two.example", "VALID", "DNSSEC insecure; DOMAIN: DNSSEC_BOGUS"),
    ("three.example", "NONE IN FORCE", ""),
    (
        "ada@three.example",
        "VALID",
        "NAME UNSIGNED; DOMAIN NOT IN FORCE; SIGNER RETIRED; DOMAIN: RECORD_EXPIRED",
    ),
];

#[test]
fn every_fate_has_its_word() {
    let log = world();
    for (name, word, notes) in WORDS {
        for from in [0, 1] {
            let receipt = receipt_of(&log, name, from);
            let verdict = judge(&receipt, &strict()).unwrap_or_else(|f| panic!("{name}: {f:?}"));
            let Verdict::Trusted(statement, backing) = &verdict else { panic!("{verdict:?}") };
            assert_eq!(statement.word.to_string(), *word, "{name}");
            let said: Vec<String> = statement.notes.iter().map(ToString::to_string).collect();
            assert_eq!(said.join("; "), *notes, "{name}");
            assert!(backing.quorum);
            assert_eq!(backing.as_of, at(NOW - 10_000));
            assert_eq!(backing.cosigners.len(), 3);
        }
    }
}

#[test]
fn both_encodings_come_back() {
    let log = world();
    for (name, ..) in WORDS {
        for from in [0, 1] {
            let receipt = receipt_of(&log, name, from);
            let bytes = receipt.encode();
            assert_eq!(Receipt::decode(&bytes).unwrap(), receipt, "{name}");
            assert_eq!(Receipt::decode(&bytes).unwrap().encode(), bytes, "{name}");
            let json = receipt.to_json().to_string();
            assert_eq!(Receipt::from_json(json.as_bytes()).unwrap(), receipt, "{name}");
            assert_eq!(Receipt::read(json.as_bytes()).unwrap(), receipt, "{name}");
            assert_eq!(Receipt::read(&bytes).unwrap(), receipt, "{name}");
        }
    }
}

/// Bytes and strings in every place of the canonical form.
#[test]
fn every_single_byte_change_is_refused() {
    let log = world();
    let policy = strict();
    for name in ["alice@one.example", "nobody@one.example", "one.example"] {
        let honest = receipt_of(&log, name, 0).encode();
        for at in 0..honest.len() {
            for flip in [0x01, 0x80, (at * 7 + 3) as u8 | 2] {
                let mut changed = honest.clone();
                changed[at] ^= flip;
                let Ok(receipt) = Receipt::decode(&changed) else { continue };
                let verdict = judge(&receipt, &policy);
                assert!(verdict.is_err(), "{name}: byte {at} ^ {flip:#x}: {verdict:?}");
            }
        }
    }
}

#[test]
fn swapped_parts_are_refused() {
    let log = world();
    let policy = strict();
    let names = ["alice@one.example", "frank@one.example", "one.example", "nobody@one.example"];
    let receipts: Vec<Receipt> = names.iter().map(|name| receipt_of(&log, name, 0)).collect();
    let earlier = {
        let mut log = world();
        log.batch(at(WORLD), []);
        receipt_of(&log, "alice@one.example", 0)
    };
    let mut tried = 0;
    for one in &receipts {
        for other in receipts.iter().chain([&earlier]) {
            type Swap = fn(&mut Receipt, &Receipt);
            let swaps: [Swap; 13] = [
                |a, b| a.name = b.name.clone(),
                |a, b| a.checkpoint = b.checkpoint.clone(),
                |a, b| a.root = b.root.clone(),
                |a, b| a.genesis = b.genesis.clone(),
                |a, b| a.subject = b.subject.clone(),
                |a, b| a.domain = b.domain.clone(),
                |a, b| a.blobs = b.blobs.clone(),
                |a, b| a.subject.vrf_proof = b.subject.vrf_proof,
                |a, b| a.subject.map = b.subject.map.clone(),
                |a, b| a.subject.chain = b.subject.chain,
                |a, b| a.subject.items = b.subject.items.clone(),
                |a, b| a.subject.seen = b.subject.seen,
                |a, b| {
                    for (mine, theirs) in a.subject.items.iter_mut().zip(&b.subject.items) {
                        mine.hidden = theirs.hidden.clone();
                    }
                },
            ];
            for (i, swap) in swaps.iter().enumerate() {
                let mut changed = one.clone();
                swap(&mut changed, other);
                if changed == *one {
                    continue;
                }
                tried += 1;
                // A domain's part stands also where it is not needed.
                let unneeded = i == 5 && changed.subject.items.is_empty() && one.domain.is_none();
                if !unneeded {
                    assert!(
                        judge(&changed, &policy).is_err(),
                        "swap {i}: {} {}",
                        one.name,
                        other.name
                    );
                }
            }
        }
    }
    assert!(tried > 60, "{tried}");
}

/// Threat 1: cosignatures count while they are fresh, each for itself.
#[test]
fn one_fresh_and_other_old_cosignatures_are_refused() {
    let log = world();
    let policy = Policy::parse(policy_text(2).as_bytes()).unwrap();
    let keys = cosigners();
    let now = at(10 * HOUR);
    let judge = |ages: &[u64]| {
        let times: Vec<_> = keys
            .iter()
            .zip(ages)
            .map(|(key, age)| (key, Timestamp::from_millis(now.millis() - age)))
            .collect();
        let receipt =
            log.receipt("alice@one.example", 0, log.checkpoint(&times), Some(at(9 * HOUR)));
        let asker = Asker { policy: Some(&policy), ..Asker::default() };
        receipt::verify(&receipt, &asker, now).map(|verdict| verdict.statement().word)
    };
    assert_eq!(judge(&[1000, 2000]), Ok(Word::Valid));
    let old = at(8 * HOUR);
    assert_eq!(judge(&[1000, 2 * HOUR, 3 * HOUR]), Err(Fault::Stale { as_of: old }));
    assert!(matches!(judge(&[1000]), Err(Fault::Quorum(_))));
}

#[test]
fn trust_is_told_from_consistency() {
    let log = world();
    let receipt = receipt_of(&log, "alice@one.example", 0);
    let alone = receipt::verify(&receipt, &Asker::default(), at(NOW)).unwrap();
    assert!(matches!(alone, Verdict::SelfConsistent(_)));
    assert!(!alone.is_trusted());
    // The log's word alone, at its own clock.
    let word = Policy::of_log(log_vkey()).unwrap();
    let verdict = judge(&receipt, &word).unwrap();
    let Verdict::Trusted(statement, backing) = verdict else { panic!() };
    assert!(!backing.quorum);
    assert_eq!(backing.as_of, at(WORLD));
    assert_eq!(statement.notes, [receipt::Note::LogClock]);
    let asker = Asker { policy: Some(&word), ..Asker::default() };
    let late = receipt::verify(&receipt, &asker, at(WORLD + HOUR + 1));
    assert_eq!(late, Err(Fault::Stale { as_of: at(WORLD) }));
    let early = receipt::verify(&receipt, &asker, at(WORLD - 5 * MINUTE - 1));
    assert_eq!(early, Err(Fault::Future));
    // Another log's policy.
    let other = syndicate::proof::note::VerifierKey::ed25519(
        "other.example",
        &syndicate::dime::ed25519::public_key(&[77; 32]),
    );
    let fault = judge(&receipt, &Policy::of_log(other.unwrap()).unwrap()).unwrap_err();
    assert_eq!(fault.rule(), "unknown-log");
}

#[test]
fn a_key_not_seen_for_long_is_unconfirmed() {
    let log = world();
    let policy = strict();
    let word = |seen: Option<Timestamp>| {
        let receipt = log.receipt("alice@one.example", 0, cosigned(&log), seen);
        judge(&receipt, &policy).unwrap().statement().word
    };
    assert_eq!(word(Some(at(WORLD))), Word::Valid);
    assert_eq!(word(Some(Timestamp::from_millis(at(NOW).millis() - 48 * HOUR))), Word::Valid);
    let old = Timestamp::from_millis(at(NOW).millis() - 48 * HOUR - 1);
    assert_eq!(word(Some(old)), Word::Unconfirmed);
    assert_eq!(word(None), Word::Unconfirmed);
    let receipt = log.receipt("alice@one.example", 0, cosigned(&log), Some(at(NOW + 6 * MINUTE)));
    assert_eq!(judge(&receipt, &policy), Err(Fault::SeenTime));
}

#[test]
fn a_remembered_genesis_replaces_the_one_inside() {
    let log = world();
    let policy = strict();
    let mut receipt = receipt_of(&log, "alice@one.example", 0);
    let genesis = log.entries[0].clone();
    let asker = Asker { policy: Some(&policy), genesis: Some(&genesis), ..Asker::default() };
    assert!(receipt::verify(&receipt, &asker, at(NOW)).is_ok());
    receipt.genesis = None;
    assert!(receipt::verify(&receipt, &asker, at(NOW)).is_ok());
    assert_eq!(judge(&receipt, &policy), Err(Fault::GenesisMissing));
    let receipt = receipt_of(&log, "alice@one.example", 0);
    let other = log.entries[1].clone();
    let asker = Asker { genesis: Some(&other), ..asker };
    assert_eq!(receipt::verify(&receipt, &asker, at(NOW)), Err(Fault::GenesisDiffers));
}

/// Threat 10: a blob that is withdrawn takes nothing from the log and its proofs.
#[test]
fn withdrawn_and_left_out_blobs_are_told_apart() {
    let log = world();
    let policy = strict();
    let mut receipt = receipt_of(&log, "alice@one.example", 0);
    let hashes: Vec<_> = log.named(&receipt).into_iter().collect();
    assert_eq!(receipt.blobs.len(), hashes.len());
    let gone = receipt.blobs.remove(1);
    assert_eq!(judge(&receipt, &policy), Err(Fault::BlobMissing(hashes[1])));
    receipt.withdrawn = vec![hashes[1]];
    let verdict = judge(&receipt, &policy).unwrap();
    assert_eq!(verdict.statement().word, Word::Unchecked);
    assert!(verdict.statement().notes.contains(&receipt::Note::Withdrawn(1)));
    receipt.withdrawn = vec![[0; 32]];
    assert_eq!(judge(&receipt, &policy), Err(Fault::BlobStray));
    // The asker who has it needs none.
    receipt.withdrawn = vec![];
    let have = [gone];
    let asker = Asker { policy: Some(&policy), blobs: &have, ..Asker::default() };
    assert_eq!(receipt::verify(&receipt, &asker, at(NOW)).unwrap().statement().word, Word::Valid);
    // Or wants no more than hashes.
    let asker = Asker { policy: Some(&policy), hashes_only: true, ..Asker::default() };
    receipt.blobs.clear();
    receipt.domain = None;
    let verdict = receipt::verify(&receipt, &asker, at(NOW)).unwrap();
    assert_eq!(verdict.statement().word, Word::Unchecked);
}

/// The goals of the issue, at a map as deep as a million labels make it.
#[test]
fn sizes_stay_within_their_goals() {
    let mut log = MiniLog::new();
    let [org, ..] = orgs();
    let key = |n: u64| key(syndicate::dime::key::Owner::User, 1 + n as u8);
    let first = syndicate::proof::Event::FirstSeen;
    let rotated = syndicate::proof::Event::Rotated;
    let name = "a.somewhat.longer.name@one.example";
    let signet = |n: u64| org.user(name, &key(n), (n > 0).then(|| key(n - 1)).as_ref(), None);
    log.batch(
        at(MINUTE),
        [
            org.draft(&[first], syndicate::dime::Dnssec::Secure),
            org.user_draft(name, &signet(0), first, at(MINUTE)),
        ],
    );
    for n in 1..100 {
        let time = at((n + 1) * MINUTE);
        log.batch(time, [org.user_draft(name, &signet(n), rotated, time)]);
    }
    let keys = cosigners();
    let now = at(101 * MINUTE);
    let times: Vec<_> = keys.iter().map(|key| (key, now)).collect();
    let small = |mut receipt: Receipt| {
        receipt.genesis = None;
        receipt.domain = None;
        receipt.blobs.clear();
        // As in a map and a log of a million.
        let sibling = [7; 32];
        while receipt.subject.map.path.len() < 21 {
            let length = 254 - receipt.subject.map.path.len() as u8;
            let ancestor = syndicate::proof::map::Ancestor { length, sibling };
            receipt.subject.map.path.push(ancestor);
        }
        receipt.root.path.resize(12, sibling);
        receipt.encode().len()
    };
    let lookup = small(log.receipt(name, 0, log.checkpoint(&times), Some(now)));
    let history = small(log.receipt(name, 1, log.checkpoint(&times), Some(now)));
    println!("lookup {lookup} bytes, history of 100 {history} bytes");
    assert!(lookup <= 2_600, "{lookup}");
    assert!(history <= 24_000, "{history}");

    let policy = strict();
    let receipt = log.receipt(name, 1, log.checkpoint(&times), Some(now));
    let asker = Asker { policy: Some(&policy), ..Asker::default() };
    let verdict = receipt::verify(&receipt, &asker, now).unwrap();
    assert_eq!(verdict.statement().latest, 100);
}
