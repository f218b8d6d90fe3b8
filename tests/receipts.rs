//! Receipts: what they prove, that nothing in them can be changed, and that the
//! second verifier, written from `proto/README.md` in another language, comes to
//! the same words.

#[path = "support/mini_log.rs"]
mod mini_log;

use bytes::Bytes;
use mini_log::*;
use syndicate::dime::key::Owner;
use syndicate::dime::{Dnssec, Timestamp};
use syndicate::log::answer::MAX_COMPARED;
use syndicate::proof::policy::Policy;
use syndicate::proof::receipt::{self, Asker, Fault, Purpose, Receipt, Verdict, Word};
use syndicate::proof::relation::{Relation, Side, Sights};
use syndicate::proof::{Draft, Event};

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

/// What a mirror could make up, and the rule that it breaks. Everything that it
/// signs itself is in order.
#[test]
fn each_lie_of_a_mirror_has_its_name() {
    use syndicate::dime::Dnssec;
    use syndicate::proof::draft::Draft;
    use syndicate::proof::entry::Event;

    let policy = Policy::of_log(log_vkey()).unwrap();
    let [one, two, _] = orgs();
    let key = |byte| key(syndicate::dime::key::Owner::User, byte);
    let name = "alice@one.example";
    let begin = |org: Draft, user: Option<Draft>| {
        let mut log = MiniLog::new();
        log.batch(at(MINUTE), [org]);
        log.batch(at(2 * MINUTE), user);
        log
    };
    let rule = |receipt: &Receipt| match judge(receipt, &policy) {
        Err(fault) => fault.rule(),
        Ok(verdict) => panic!("{verdict:?}"),
    };
    let answer = |log: &MiniLog, name: &str| log.receipt(name, 1, log.checkpoint(&[]), None);
    let honest = || one.draft(&[Event::FirstSeen], Dnssec::Secure);
    let first = one.user(name, &key(1), None, None);
    let alice = || one.user_draft(name, &first, Event::FirstSeen, at(2 * MINUTE));

    // Another label, or another's.
    let mut log = begin(honest(), Some(alice()));
    log.vrf = syndicate::proof::vrf::SecretKey::from_seed(&[77; 32]);
    assert_eq!(rule(&answer(&log, name)), "vrf");
    let log = begin(honest(), Some(alice()));
    let mut receipt = answer(&log, name);
    let mut other = answer(&log, "bob@one.example");
    std::mem::swap(&mut receipt.subject.vrf_proof, &mut other.subject.vrf_proof);
    assert_eq!(rule(&receipt), "vrf");
    receipt.name = other.name.clone();
    assert_eq!(rule(&receipt), "label");

    // Absence of what is there, presence of what is not.
    let mut receipt = answer(&log, name);
    receipt.subject.items.clear();
    receipt.blobs.clear();
    receipt.subject.map.end = syndicate::proof::map::End::Empty;
    assert_eq!(rule(&receipt), "map-leftover");
    receipt.subject.map.path.clear();
    assert_eq!(rule(&receipt), "map-root");

    // A swap that is called a rotation.
    let mut log = begin(honest(), Some(alice()));
    let swapped = one.user(name, &key(2), None, None);
    log.batch(at(3 * MINUTE), [one.user_draft(name, &swapped, Event::Rotated, at(0))]);
    assert_eq!(rule(&answer(&log, name)), "custody");

    // Versions left out, at the end, in the middle, at the beginning.
    log.batch(at(4 * MINUTE), [one.absent_draft(name, at(0))]);
    let whole = answer(&log, name);
    let mut receipt = whole.clone();
    receipt.subject.items.pop();
    assert_eq!(rule(&receipt), "map-root");
    let mut receipt = whole.clone();
    receipt.subject.items.remove(1);
    assert_eq!(rule(&receipt), "version");
    let mut receipt = whole.clone();
    receipt.subject.items.remove(0);
    assert_eq!(rule(&receipt), "map-root");
    let mut receipt = whole.clone();
    receipt.subject.items.drain(..2);
    assert_eq!(rule(&receipt), "current-missing");
    let mut receipt = whole;
    receipt.subject.items[0].hidden = None;
    assert_eq!(rule(&receipt), "payload-missing");

    // Facts about a signet that are not so.
    let lie = |change: &dyn Fn(&mut syndicate::proof::draft::UserDraft)| {
        let Draft::User(mut draft) = alice() else { unreachable!() };
        change(&mut draft);
        rule(&answer(&begin(honest(), Some(Draft::User(draft))), name))
    };
    assert_eq!(lie(&|draft| draft.signers = vec![0, 1, 0]), "signet-facts");
    assert_eq!(lie(&|draft| draft.crypto_sha256 = Some([1; 32])), "signet-facts");
    assert_eq!(lie(&|draft| draft.domain_version = Some(2)), "domain-version");
    let foreign = two.user("alice@two.example", &key(1), None, None);
    let foreign = Bytes::copy_from_slice(foreign.bytes());
    assert_eq!(lie(&|draft| draft.signet = Some(foreign.clone())), "user-signet");
    let renamed = one.user("bob@one.example", &key(1), None, None);
    let renamed = Bytes::copy_from_slice(renamed.bytes());
    assert_eq!(lie(&|draft| draft.signet = Some(renamed.clone())), "user-signet");

    // About a domain.
    let lie = |change: &dyn Fn(&mut syndicate::proof::draft::DomainDraft)| {
        let Draft::Domain(mut draft) = honest() else { unreachable!() };
        change(&mut draft);
        rule(&answer(&begin(Draft::Domain(draft), None), "one.example"))
    };
    assert_eq!(lie(&|draft| draft.poks.push([9; 32])), "record-poks");
    assert_eq!(lie(&|draft| draft.record = Some(Bytes::from_static(b"ver=1"))), "record");
    let org = Bytes::copy_from_slice(two.signet().bytes());
    assert_eq!(lie(&|draft| draft.org_signet = Some(org.clone())), "org-signet");

    // A checkpoint whose last leaf is no root, a root for another map.
    let mut log = begin(honest(), Some(alice()));
    log.entries.push(log.entries[1].clone());
    assert_eq!(rule(&answer(&log, name)), "root-kind");
    let mut log = begin(honest(), Some(alice()));
    let forged = syndicate::proof::Kind::Root(syndicate::proof::entry::DirectoryRoot {
        root: [9; 32],
        labels: 2,
        covered: log.entries.len() as u64,
    });
    log.entries.push(syndicate::proof::Entry::new(log.time, forged).encode().into());
    assert_eq!(rule(&answer(&log, name)), "map-root");

    // A word about another state.
    let log = begin(honest(), Some(alice()));
    let mut receipt = log.receipt(name, 1, log.checkpoint(&[]), Some(at(0)));
    let Some(seen) = &mut receipt.subject.seen else { unreachable!() };
    seen.confirmed_at = at(1);
    assert_eq!(rule(&receipt), "seen");
}

/// What a mirror's receipt shows of a name, with all of its past, after these
/// steps; each is a batch.
fn sights(name: &str, steps: &[Draft]) -> Sights {
    let mut log = MiniLog::new();
    for (minute, step) in (1..).zip(steps) {
        log.batch(at(minute * MINUTE), [step.clone()]);
    }
    log.batch(at(WORLD), []);
    let receipt = receipt_of(&log, name, 1);
    judge(&receipt, &strict()).unwrap().statement().sights.clone()
}

/// Threat 8: every honest change, while another mirror is any number of visits
/// behind, is a lag of that one and no divergence.
#[test]
fn a_mirror_behind_lags_and_does_not_diverge() {
    let [one, mut two, _] = orgs();
    let name = "alice@one.example";
    let key = |byte| key(Owner::User, byte);
    let minute = |n: u64| at(n * MINUTE - 700);
    let user = |org: &Org, signet, event, n| org.user_draft(name, signet, event, minute(n));
    let first = one.user(name, &key(1), None, None);
    let rotated = one.user(name, &key(2), Some(&key(1)), None);
    let resigned = one.user(name, &key(2), None, Some(0));
    let restarted = one.user(name, &key(3), None, None);
    let honest = [
        one.draft(&[Event::FirstSeen], Dnssec::Secure),
        user(&one, &first, Event::FirstSeen, 2),
        user(&one, &rotated, Event::Rotated, 3),
        user(&one, &resigned, Event::Resigned, 4),
        user(&one, &restarted, Event::Restarted, 5),
    ];
    let whole = sights(name, &honest);
    let words: Vec<Relation> =
        (1..honest.len() + 1).map(|n| Relation::of(&whole, &sights(name, &honest[..n]))).collect();
    let lag = Relation::Lag(Side::Theirs);
    assert_eq!(words, [Relation::Unknown, lag, lag, lag, Relation::Same]);
    // Between the rotation and what was signed anew there is nothing.
    let (before, after) = (sights(name, &honest[..3]), sights(name, &honest[..4]));
    assert_eq!(Relation::of(&after, &before), Relation::Same);

    // Another key for one of them, with the organization's own signature.
    let forged = one.user(name, &key(66), None, None);
    let mut shown = honest[..3].to_vec();
    shown.push(user(&one, &forged, Event::Restarted, 4));
    let shown = sights(name, &shown);
    assert_eq!(Relation::of(&shown, &before), lag);
    assert_eq!(Relation::of(&shown, &whole), Relation::Diverged);
    let late = [honest[0].clone(), user(&one, &forged, Event::FirstSeen, 2)];
    assert_eq!(Relation::of(&sights(name, &late), &before), Relation::Diverged);

    // A domain has no custody at all.
    let mut steps = vec![two.draft(&[Event::FirstSeen], Dnssec::Secure)];
    for byte in [121, 122] {
        two.pok = mini_log::key(Owner::Org, byte);
        let events = [Event::PokReplaced, Event::OrgSignetChanged];
        steps.push(two.draft(&events, Dnssec::Secure));
    }
    steps.push(two.gone(&[Event::RecordWithdrawn]));
    let whole = sights("two.example", &steps);
    let words: Vec<Relation> =
        (1..5).map(|n| Relation::of(&whole, &sights("two.example", &steps[..n]))).collect();
    assert_eq!(words, [lag, lag, Relation::Same, Relation::Same]);
    two.pok = mini_log::key(Owner::Org, 123);
    let other = [steps[0].clone(), two.draft(&[Event::PokReplaced], Dnssec::Secure)];
    assert_eq!(Relation::of(&whole, &sights("two.example", &other)), Relation::Diverged);
}

/// Whoever issues a mailbox's signet anew, as large as signets may be, makes its
/// histories no less comparable: what shows no other keys may be left out.
#[test]
fn large_signets_of_the_same_keys_hide_nothing() {
    const ALICE: &str = "alice@one.example";
    let length = 1_000_000;
    let seen = |log: &MiniLog| {
        let mut receipt = receipt_of(log, ALICE, 1);
        receipt.lighten(MAX_COMPARED);
        let size: usize = receipt.blobs.iter().map(Bytes::len).sum();
        assert!(size <= MAX_COMPARED, "{size}");
        judge(&receipt, &strict()).unwrap().statement().sights.clone()
    };
    let (honest, shown) = (reissues(9, length, false), reissues(9, length, true));
    let whole: usize = receipt_of(&honest, ALICE, 1).blobs.iter().map(Bytes::len).sum();
    assert!(whole > 9 * length);
    let (honest, shown) = (seen(&honest), seen(&shown));
    assert!(honest.is_whole() && shown.is_whole());
    assert_eq!((honest.list().len(), shown.list().len()), (10, 11));
    assert_eq!(Relation::of(&honest, &shown), Relation::Lag(Side::Ours));
    let [one, ..] = orgs();
    let other = one.user(ALICE, &key(Owner::User, 67), None, None);
    let late = sights(
        ALICE,
        &[
            one.draft(&[Event::FirstSeen], Dnssec::Secure),
            one.user_draft(ALICE, &other, Event::FirstSeen, at(MINUTE)),
        ],
    );
    assert_eq!(Relation::of(&honest, &late), Relation::Diverged);
    assert_eq!(Relation::of(&shown, &late), Relation::Diverged);
}

/// What is left out first is what shows no keys; what the verdict or the tip rests on
/// never is.
#[test]
fn what_is_wanted_least_is_left_out_first() {
    const ALICE: &str = "alice@one.example";
    let receipt = receipt_of(&reissues(3, 1000, true), ALICE, 1);
    let purposes: Vec<(Purpose, u64)> = receipt
        .named()
        .unwrap()
        .iter()
        .filter(|named| named.is_signet)
        .map(|named| (named.purpose, named.version))
        .collect();
    let checks = [4, 3, 2].map(|version| (Purpose::Checks, version));
    assert_eq!(purposes[..2], [(Purpose::Verdict, 5), (Purpose::Keys, 1)]);
    assert_eq!(purposes[2..], checks);
    let mut bare = receipt.clone();
    bare.lighten(0);
    let verdict = judge(&bare, &strict()).unwrap();
    assert_eq!(verdict.statement().word, Word::Held);
    // Nobody can tell any more what was there before.
    assert!(!verdict.statement().sights.is_whole());
    assert_eq!(verdict.statement().sights.list().len(), 1);
    let mut same = receipt.clone();
    same.lighten(1 << 20);
    assert_eq!(same, receipt);
    // A signet that is served and not in force is the tip.
    let frank = receipt_of(&world(), "frank@one.example", 1);
    let mut bare = frank.clone();
    bare.lighten(0);
    let tip = |receipt: &Receipt| {
        judge(receipt, &strict()).unwrap().statement().sights.tip().map(|tip| tip.version)
    };
    assert_eq!(tip(&bare), tip(&frank));
}

#[test]
fn a_receipt_without_the_past_leaves_the_relation_open() {
    let log = world();
    let seen = |name, from| {
        judge(&receipt_of(&log, name, from), &strict()).unwrap().statement().sights.clone()
    };
    let (whole, latest) = (seen("alice@one.example", 1), seen("alice@one.example", 0));
    assert_eq!((whole.list().len(), latest.list().len()), (2, 1));
    assert_eq!(Relation::of(&whole, &latest), Relation::Same);
    let mut behind = whole.list().to_vec();
    behind.pop();
    let behind = Sights::new(behind, 1, at(MINUTE), at(MINUTE), true);
    assert_eq!(Relation::of(&whole, &behind), Relation::Lag(Side::Theirs));
    assert_eq!(Relation::of(&latest, &behind), Relation::Unknown);
    // Gone, erased, or never there: nothing to compare.
    assert_eq!(seen("dave@one.example", 1).tip().map(|tip| tip.version), Some(1));
    assert_eq!(seen("carol@one.example", 1).tip(), None);
    assert_eq!(seen("nobody@one.example", 1).tip(), None);
}
