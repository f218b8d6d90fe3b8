//! Receipts, binary and JSON, and what they prove.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use syndicate::proof::note::VerifierKey;
use syndicate::proof::policy::Policy;
use syndicate::proof::receipt::{Asker, MAX_RECEIPT, Receipt, Statement, verify};
use syndicate::proof::{Hash, Label};

use super::mini_log::{self, MINUTE, MiniLog, WORLD, at, world};
use super::stranger;

/// Every name of the log that the seeds are receipts of, and one that it has not.
pub const NAMES: [&str; 13] = [
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

type Truth = (Label, u64, u64, Vec<Hash>);

/// What the log says of each name.
static TRUTH: LazyLock<BTreeMap<String, Truth>> = LazyLock::new(|| {
    let log = world();
    let prove = |name: &&str| {
        let verdict = verify(&honest(&log, name, 0), &Asker::default(), at(WORLD + MINUTE));
        let verdict = verdict.expect("an honest receipt");
        (name.to_string(), truth(verdict.statement()))
    };
    NAMES.iter().map(prove).collect()
});

static POLICIES: LazyLock<[Policy; 2]> = LazyLock::new(|| {
    let ours = Policy::parse(mini_log::policy_text(2).as_bytes()).expect("our own policy");
    let key = VerifierKey::ed25519(mini_log::ORIGIN, &stranger()).expect("a key");
    [ours, Policy::of_log(key).expect("a policy")]
});

pub fn honest(log: &MiniLog, name: &str, from: u64) -> Receipt {
    let keys = mini_log::cosigners();
    let times: Vec<_> = keys.iter().map(|key| (key, at(WORLD))).collect();
    log.receipt(name, from, log.checkpoint(&times), Some(at(WORLD)))
}

fn truth(statement: &Statement) -> Truth {
    (statement.label, statement.latest, statement.current, statement.poks.clone())
}

pub fn receipt(bytes: &[u8]) {
    let decoded = Receipt::decode(bytes);
    if let Ok(receipt) = &decoded {
        assert!(bytes.len() <= MAX_RECEIPT);
        assert_eq!(receipt.encode(), bytes);
    }
    let Ok(receipt) = Receipt::read(bytes) else {
        assert!(decoded.is_err());
        return;
    };
    assert_eq!(Receipt::decode(&receipt.encode()).as_ref(), Ok(&receipt));
    let json = receipt.to_json().to_string();
    assert_eq!(Receipt::from_json(json.as_bytes()).as_ref(), Ok(&receipt));

    let [ours, strangers] = &*POLICIES;
    let now = at(WORLD + MINUTE);
    let by = |policy| verify(&receipt, &Asker { policy, ..Asker::default() }, now);
    assert!(by(Some(strangers)).is_err());
    let consistent = by(None);
    if let Ok(verdict) = by(Some(ours)) {
        let alone = consistent.as_ref().expect("what is trusted agrees with itself");
        assert_eq!(truth(verdict.statement()), truth(alone.statement()));
        assert!(verdict.is_trusted());
    }
    let Ok(verdict) = consistent else { return };
    assert!(!verdict.is_trusted());
    // One key has signed one log, which says one thing of each name.
    let statement = verdict.statement();
    assert_eq!(Some(&statement.log_key), mini_log::log_vkey().public_key());
    match TRUTH.get(receipt.name.as_str()) {
        Some(known) => assert_eq!(&truth(statement), known),
        None => assert_eq!((statement.latest, statement.current), (0, 0)),
    }
}
