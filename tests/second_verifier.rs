//! The second verifier, written from `proto/README.md` in Python, and this crate
//! say the same of the same bytes: of what is right, by the same words, and of
//! what is wrong, by the name of the same rule.

#[path = "support/mini_log.rs"]
mod mini_log;
#[path = "support/second_verifier.rs"]
mod second_verifier;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use mini_log::*;
use second_verifier::answers;
use serde_json::{Value, json};
use syndicate::dime::{Timestamp, ed25519};
use syndicate::proof::map::PlainMap;
use syndicate::proof::policy::Policy;
use syndicate::proof::receipt::{self, Asker, Receipt};
use syndicate::proof::replay::{Expected, Replayer, Stop};
use syndicate::proof::{Entry, vrf};

const NOW: u64 = WORLD + 30_000;

const NAMES: &[&str] = &[
    "one.example",
    "alice@one.example",
    "bob@one.example",
    "carol@one.example",
    "dave@one.example",
    "eve@one.example",
    "frank@one.example",
    "nobody@one.example",
    "nowhere.example",
    "two.example",
    "ann@two.example",
    "three.example",
    "ada@three.example",
];

/// A case for the other side, and what this side says.
struct Case {
    about: String,
    asked: Value,
    ours: Value,
}

fn compare(cases: Vec<Case>) {
    let asked: Vec<Value> = cases.iter().map(|case| case.asked.clone()).collect();
    let Some(answers) = answers(&asked) else { return };
    let mut differences = Vec::new();
    for (case, theirs) in cases.iter().zip(&answers) {
        if case.ours != *theirs {
            differences.push(format!("{}\n  ours   {}\n  theirs {theirs}", case.about, case.ours));
        }
    }
    let count = differences.len();
    differences.truncate(10);
    assert!(count == 0, "{count} of {} differ:\n{}", cases.len(), differences.join("\n"));
}

fn fault(rule: &str) -> Value {
    json!({ "fault": rule })
}

#[derive(Clone, Copy)]
enum Trust {
    Nobody,
    Log,
    Quorum(usize),
}

fn receipt_case(about: String, bytes: &[u8], trust: Trust, now: Timestamp) -> Case {
    let mut asked = json!({ "receipt": BASE64.encode(bytes), "now": now.millis() });
    let policy = match trust {
        Trust::Nobody => None,
        Trust::Log => {
            asked["log"] = json!(log_vkey().to_string());
            Some(Policy::of_log(log_vkey()).unwrap())
        }
        Trust::Quorum(threshold) => {
            asked["policy"] = json!(policy_text(threshold));
            Some(Policy::parse(policy_text(threshold).as_bytes()).unwrap())
        }
    };
    let asker = Asker { policy: policy.as_ref(), ..Asker::default() };
    let ours = match Receipt::read(bytes) {
        Err(rejection) => fault(rejection.rule),
        Ok(receipt) => match receipt::verify(&receipt, &asker, now) {
            Ok(verdict) => verdict.summary(),
            Err(refused) => fault(refused.rule()),
        },
    };
    Case { about, asked, ours }
}

fn cosigned(log: &MiniLog, ages: [u64; 3]) -> Bytes {
    let keys = cosigners();
    let times: Vec<_> = keys
        .iter()
        .zip(ages)
        .map(|(key, age)| (key, Timestamp::from_millis(at(NOW).millis() - age)))
        .collect();
    log.checkpoint(&times)
}

#[test]
fn they_agree_on_every_fate_under_every_policy() {
    let log = world();
    let mut cases = Vec::new();
    for name in NAMES {
        for from in [0, 1] {
            let fresh = cosigned(&log, [1000, 2000, 3000]);
            let receipt = log.receipt(name, from, fresh, Some(at(WORLD)));
            let about = |what: &str| format!("{name} from {from}, {what}");
            for trust in [Trust::Nobody, Trust::Log, Trust::Quorum(3)] {
                cases.push(receipt_case(about("binary"), &receipt.encode(), trust, at(NOW)));
            }
            let json = receipt.to_json().to_string();
            let trust = Trust::Quorum(2);
            cases.push(receipt_case(about("JSON"), json.as_bytes(), trust, at(NOW)));
            let later = at(NOW + 49 * HOUR);
            cases.push(receipt_case(about("late"), &receipt.encode(), Trust::Nobody, later));
            cases.push(receipt_case(about("stale"), &receipt.encode(), trust, later));
            cases.push(receipt_case(about("old clock"), &receipt.encode(), Trust::Log, later));
            cases.push(receipt_case(about("early"), &receipt.encode(), trust, at(0)));
            let one_fresh = cosigned(&log, [1000, 2 * HOUR, 3 * HOUR]);
            let receipt = log.receipt(name, from, one_fresh, None);
            cases.push(receipt_case(about("one fresh"), &receipt.encode(), trust, at(NOW)));
            let unsigned = log.receipt(name, from, log.checkpoint(&[]), None);
            cases.push(receipt_case(about("no quorum"), &unsigned.encode(), trust, at(NOW)));
            let mut bare = receipt.clone();
            bare.blobs.clear();
            cases.push(receipt_case(about("bare"), &bare.encode(), Trust::Nobody, at(NOW)));
            bare.withdrawn = log.named(&receipt).into_iter().collect();
            cases.push(receipt_case(about("withdrawn"), &bare.encode(), Trust::Nobody, at(NOW)));
            let mut alone = receipt.clone();
            alone.domain = None;
            cases.push(receipt_case(about("alone"), &alone.encode(), Trust::Nobody, at(NOW)));
        }
    }
    compare(cases);
}

/// Histories without what is wanted least hold as they are, on both sides.
#[test]
fn they_agree_on_histories_that_leave_out_signets() {
    let mut cases = Vec::new();
    for forged in [false, true] {
        let log = reissues(5, 2000, forged);
        let whole = log.receipt("alice@one.example", 1, cosigned(&log, [1, 2, 3]), Some(at(WORLD)));
        for most in [0, 2000, 5000, 100_000] {
            let mut receipt = whole.clone();
            receipt.lighten(most);
            assert!(most == 100_000 || receipt.blobs.len() < whole.blobs.len());
            let about = format!("forged {forged}, {most} bytes");
            let case = receipt_case(about, &receipt.encode(), Trust::Quorum(3), at(NOW));
            assert!(case.ours.get("fault").is_none(), "{}", case.ours);
            cases.push(case);
        }
    }
    for name in NAMES {
        let log = world();
        let mut receipt = log.receipt(name, 1, cosigned(&log, [1, 2, 3]), Some(at(WORLD)));
        receipt.lighten(0);
        let case = receipt_case(format!("{name}, bare"), &receipt.encode(), Trust::Log, at(NOW));
        assert!(case.ours.get("fault").is_none(), "{name}: {}", case.ours);
        cases.push(case);
    }
    compare(cases);
}

#[test]
fn they_agree_on_every_changed_byte() {
    let log = world();
    let mut cases = Vec::new();
    for name in ["alice@one.example", "nobody@one.example"] {
        let fresh = cosigned(&log, [1000, 2000, 3000]);
        let honest = log.receipt(name, 0, fresh, Some(at(WORLD))).encode();
        for place in 0..honest.len() {
            let mut changed = honest.clone();
            changed[place] ^= [0x01, 0x80, 0x02, 0x40][place % 4];
            let about = format!("{name}: byte {place}");
            cases.push(receipt_case(about, &changed, Trust::Quorum(3), at(NOW)));
        }
    }
    compare(cases);
}

/// A small generator of numbers, the same on every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (self.0 >> 33) as usize % sides
    }

    /// Bytes replaced, inserted, taken out, repeated.
    fn edit(&mut self, bytes: &mut Vec<u8>) {
        let place = self.roll(bytes.len());
        match self.roll(5) {
            0 => bytes[place] = self.roll(256) as u8,
            1 => bytes.insert(place, [0x00, 0x01, 0x80, 0x7f, self.0 as u8][self.roll(5)]),
            2 => {
                bytes.remove(place);
            }
            3 => {
                let end = (place + 1 + self.roll(40)).min(bytes.len());
                let again = bytes[place..end].to_vec();
                bytes.splice(place..place, again);
            }
            _ => bytes[place] = bytes[place].wrapping_add([1, 255, 8, 16][self.roll(4)]),
        }
    }
}

#[test]
fn they_agree_on_entries_that_are_not_canonical() {
    let mut log = world();
    log.end(at(WORLD + MINUTE));
    let mut dice = Dice(1);
    let mut cases = Vec::new();
    let case = |about: String, bytes: Vec<u8>| {
        let asked = json!({ "entry": BASE64.encode(&bytes) });
        let ours = match Entry::decode(&bytes) {
            Ok(_) => json!({}),
            Err(malformed) => fault(malformed.rule()),
        };
        Case { about, asked, ours }
    };
    for (i, entry) in log.entries.iter().enumerate() {
        cases.push(case(format!("entry {i}"), entry.to_vec()));
        for round in 0..150 {
            let mut bytes = entry.to_vec();
            for _ in 0..1 + dice.roll(2) {
                if !bytes.is_empty() {
                    dice.edit(&mut bytes);
                }
            }
            cases.push(case(format!("entry {i}, {round}: {}", hex::encode(&bytes)), bytes));
        }
    }
    // Receipts likewise.
    let log = world();
    let fresh = cosigned(&log, [1000, 2000, 3000]);
    let honest = log.receipt("alice@one.example", 0, fresh, Some(at(WORLD))).encode();
    for round in 0..1500 {
        let mut bytes = honest.clone();
        dice.edit(&mut bytes);
        let about = format!("receipt, {round}");
        cases.push(receipt_case(about, &bytes, Trust::Quorum(3), at(NOW)));
    }
    compare(cases);
}

fn replay_case(about: String, entries: &[Bytes]) -> Case {
    let log_key = ed25519::public_key(&LOG_SEED);
    let expected = Expected { origin: ORIGIN.to_owned(), log_key };
    let mut map = PlainMap::new();
    let mut replayer = Replayer::new(expected);
    let stopped = entries.iter().find_map(|entry| replayer.push(&mut map, entry.clone()).err());
    let ours = match (stopped, replayer.finish()) {
        (Some(Stop::Fault(at)), _) | (None, Err(at)) => {
            json!({ "fault": at.broken.rule(), "index": at.index })
        }
        (Some(Stop::Unknown(unknown)), _) => json!({ "unknown_format": unknown.index }),
        (Some(Stop::Engine(never)), _) => match never {},
        (None, Ok(position)) => {
            let root = hex::encode(map.root());
            let mut ours = json!({ "size": position.size, "labels": map.len(), "root": root });
            if let Some(unknown) = position.unknown {
                ours["unknown_format"] = json!(unknown.index);
            }
            ours
        }
    };
    let entries: Vec<String> = entries.iter().map(|entry| BASE64.encode(entry)).collect();
    let asked = json!({ "entries": entries, "origin": ORIGIN, "log_key": hex::encode(log_key) });
    Case { about, asked, ours }
}

/// A log that was changed after it was made: entries replaced, dropped,
/// doubled, moved, of other formats.
#[test]
fn they_agree_on_logs_that_lie() {
    let mut log = world();
    let mut cases = vec![replay_case("honest".to_owned(), &log.entries)];
    let entries = log.entries.clone();
    for i in 0..entries.len() {
        let mut changed = entries.clone();
        changed.remove(i);
        cases.push(replay_case(format!("without {i}"), &changed));
        let mut changed = entries.clone();
        changed.insert(i, entries[i].clone());
        cases.push(replay_case(format!("twice {i}"), &changed));
        cases.push(replay_case(format!("up to {i}"), &entries[..i]));
        let mut changed = entries.clone();
        let mut later = Entry::decode(&entries[i]).unwrap();
        later.format = 2;
        changed[i] = later.encode().into();
        cases.push(replay_case(format!("format 2 at {i}"), &changed));
        for j in 0..i {
            let mut changed = entries.clone();
            changed.swap(i, j);
            cases.push(replay_case(format!("swapped {i} {j}"), &changed));
            changed[i] = entries[i].clone();
            cases.push(replay_case(format!("{i} also at {j}"), &changed));
        }
        let mut earlier = Entry::decode(&entries[i]).unwrap();
        for shift in [-120_000i64, -1, 1, 120_000] {
            earlier.time =
                Timestamp::from_millis(earlier.time.millis().saturating_add_signed(shift));
            let mut changed = entries.clone();
            changed[i] = earlier.encode().into();
            cases.push(replay_case(format!("{i} at another time"), &changed));
        }
    }
    let mut dice = Dice(2);
    for round in 0..300 {
        let mut changed = entries.clone();
        let place = dice.roll(entries.len());
        let mut bytes = changed[place].to_vec();
        dice.edit(&mut bytes);
        changed[place] = bytes.into();
        cases.push(replay_case(format!("entry {place} edited, {round}"), &changed));
    }
    log.end(at(WORLD + MINUTE));
    cases.push(replay_case("closed".to_owned(), &log.entries));
    log.batch(at(WORLD + MINUTE), []);
    cases.push(replay_case("behind the closing".to_owned(), &log.entries));
    compare(cases);
}

/// Encodings of the points of small order, and points with y above p.
const ODD_POINTS: &[&str] = &[
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "0100000000000000000000000000000000000000000000000000000000000080",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "f0ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0200000000000000000000000000000000000000000000000000000000000000",
];

/// The group order, little-endian.
const ORDER: &str = "edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010";

fn plus_order(scalar: &[u8]) -> Vec<u8> {
    let mut carry = 0;
    let order = hex::decode(ORDER).unwrap();
    let sum = scalar.iter().zip(order).map(|(a, b)| {
        let sum = u16::from(*a) + u16::from(b) + carry;
        carry = sum >> 8;
        sum as u8
    });
    sum.collect()
}

#[test]
fn they_agree_on_odd_keys_and_signatures() {
    let mut cases = Vec::new();
    let mut sign = |about: &str, key: &[u8], message: &[u8], signature: &[u8]| {
        let hexed = [key, message, signature].map(hex::encode);
        let (key, signature) = (key.try_into().unwrap(), signature.try_into().unwrap());
        let valid = ed25519::verify(key, message, signature).is_ok();
        let (about, asked) = (about.to_owned(), json!({ "ed25519": hexed }));
        cases.push(Case { about, asked, ours: json!({ "valid": valid }) });
        valid
    };
    let key = ed25519::public_key(&[5; 32]);
    let signature = ed25519::sign(&[5; 32], b"message");
    assert!(sign("honest", &key, b"message", &signature));
    assert!(!sign("other message", &key, b"messagf", &signature));
    let high = [&signature[..32], &plus_order(&signature[32..])].concat();
    assert!(!sign("S above the order", &key, b"message", &high));
    for point in ODD_POINTS {
        let odd = hex::decode(point).unwrap();
        assert!(!sign(&format!("A {point}"), &odd, b"message", &signature));
        let with_r = [&odd[..], &signature[32..]].concat();
        assert!(!sign(&format!("R {point}"), &key, b"message", &with_r));
        // R = A = the neutral element and S = 0: what a lenient verifier takes.
        let zero = [&odd[..], &[0; 32]].concat();
        assert!(!sign(&format!("A and R {point}"), &odd, b"message", &zero));
    }
    for byte in 0..64 {
        let mut changed = signature;
        changed[byte] ^= 1 << (byte % 8);
        assert!(!sign(&format!("byte {byte}"), &key, b"message", &changed));
    }

    let secret = vrf::SecretKey::from_seed(&[6; 32]);
    let mut prove = |about: String, key: &[u8], alpha: &[u8], proof: &[u8]| {
        let hexed = [key, alpha, proof].map(hex::encode);
        let (key, proof) = (key.try_into().unwrap(), proof.try_into().unwrap());
        let ours = match vrf::verify(key, alpha, proof) {
            Ok(output) => json!({ "output": hex::encode(output) }),
            Err(_) => fault("vrf"),
        };
        cases.push(Case { about, asked: json!({ "vrf": hexed }), ours });
    };
    let public = secret.public();
    for alpha in [&b""[..], b"a", b"syndicate/v1/user\0alice@one.example"] {
        let (_, proof) = secret.prove(alpha);
        prove("honest".to_owned(), &public, alpha, &proof);
        for byte in 0..80 {
            let mut changed = proof;
            changed[byte] ^= 1 << (byte % 8);
            prove(format!("byte {byte}"), &public, alpha, &changed);
        }
        let high = [&proof[..48], &plus_order(&proof[48..])].concat();
        prove("s above the order".to_owned(), &public, alpha, &high);
        for point in ODD_POINTS {
            let odd = hex::decode(point).unwrap();
            prove(format!("key {point}"), &odd, alpha, &proof);
            let gamma = [&odd[..], &proof[32..]].concat();
            prove(format!("Gamma {point}"), &public, alpha, &gamma);
        }
    }
    compare(cases);
}

/// Writes what a mirror serves of a log.
fn serve(log: &MiniLog, folder: &std::path::Path) {
    std::fs::write(folder.join("checkpoint"), log.checkpoint(&[])).unwrap();
    for (number, entries) in log.entries.chunks(256).enumerate() {
        let width = entries.len();
        let path = if width < 256 {
            format!("tile/entries/{number:03}.p/{width}")
        } else {
            format!("tile/entries/{number:03}")
        };
        let mut bundle = Vec::new();
        for entry in entries {
            bundle.extend((entry.len() as u16).to_be_bytes());
            bundle.extend_from_slice(entry);
        }
        let path = folder.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bundle).unwrap();
    }
}

/// Its command line: exit code and answer, or `None` without Python.
fn run(arguments: &[&str]) -> Option<(i32, Value)> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/second_verifier/verify.py");
    let output = std::process::Command::new("python3").arg(script).args(arguments).output();
    let Ok(output) = output else {
        println!("SKIPPED: the second verifier needs python3");
        return None;
    };
    let answer = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| {
        panic!("{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    });
    Some((output.status.code().unwrap(), answer))
}

#[test]
fn its_command_line_reads_files() {
    let mut log = world();
    let folder = tempfile::tempdir().unwrap();
    // More than one bundle.
    for minute in 7..300 {
        log.batch(at(minute * MINUTE), []);
    }
    serve(&log, folder.path());
    let folder_text = folder.path().to_str().unwrap();
    let vkey = log_vkey().to_string();
    let Some((code, answer)) = run(&["replay", folder_text, "--log", &vkey]) else { return };
    assert_eq!(code, 0, "{answer}");
    assert_eq!(answer["root"], hex::encode(log.directory_root()));
    assert_eq!(answer["size"], log.entries.len());

    let file = folder.path().join("receipt");
    let receipt = log.receipt("alice@one.example", 0, log.checkpoint(&[]), Some(log.time));
    std::fs::write(&file, receipt.encode()).unwrap();
    let file = file.to_str().unwrap();
    let now = log.time.millis().to_string();
    let (code, answer) = run(&["receipt", file, "--now", &now, "--log", &vkey]).unwrap();
    assert_eq!((code, answer["word"].as_str()), (0, Some("VALID")), "{answer}");
    let (code, answer) = run(&["receipt", file, "--now", &now]).unwrap();
    assert_eq!((code, answer["word"].as_str()), (1, Some("VALID")), "{answer}");
    let policy = folder.path().join("policy");
    std::fs::write(&policy, policy_text(1)).unwrap();
    let policy = policy.to_str().unwrap();
    let (code, answer) = run(&["receipt", file, "--now", &now, "--policy", policy]).unwrap();
    assert_eq!((code, answer), (1, fault("quorum")));

    // One entry changed on the way.
    let bundle = folder.path().join("tile/entries/000");
    let mut bytes = std::fs::read(&bundle).unwrap();
    bytes[40] ^= 1;
    std::fs::write(&bundle, bytes).unwrap();
    let (code, answer) = run(&["replay", folder_text, "--log", &vkey]).unwrap();
    assert_eq!((code, answer), (1, fault("tree-root")));
}
