//! What every good chain must survive, and what it must not.

use syndicate::dime::{Domain, Timestamp};
use syndicate::proof::dnssec::{Anchor, MAX_CHAIN, Observed, verify_observation};

/// The rule by which a chain is refused.
pub fn rule(chain: &[u8], domain: &Domain, anchors: &[Anchor], at: Timestamp) -> &'static str {
    match verify_observation(chain, domain, anchors, at) {
        Ok(observed) => panic!("{domain}: accepted, {observed:?}"),
        Err(why) => why.rule,
    }
}

/// Whether a chain holds for what was observed, and for no more than that.
pub fn check(
    chain: &[u8],
    observed: &Observed,
    domain: &Domain,
    anchors: &[Anchor],
    strangers: &[Anchor],
    at: Timestamp,
) {
    assert!(chain.len() <= MAX_CHAIN);
    let verdict = |at| verify_observation(chain, domain, anchors, at);
    assert_eq!(verdict(at).as_ref(), Ok(observed), "{domain}");
    // Its window is exact.
    assert!(verdict(observed.since).is_ok() && verdict(observed.until).is_ok());
    let before = Timestamp::from_secs(observed.since.secs() - 1);
    assert_eq!(rule(chain, domain, anchors, before), "dnssec-early");
    let after = Timestamp::from_secs(observed.until.secs() + 1);
    assert_eq!(rule(chain, domain, anchors, after), "dnssec-late");
    assert_eq!(rule(chain, domain, strangers, at), "dnssec-anchor");
    assert_eq!(rule(chain, domain, &[], at), "dnssec-anchor");
    assert_eq!(rule(&[], domain, anchors, at), "dnssec-anchor");
    // A denial may cover other names too; a record is of one name.
    if observed.record.is_some() {
        let other: Domain = format!("x.{domain}").parse().unwrap();
        rule(chain, &other, anchors, at);
    }
    shortened(chain, domain, anchors, at);
}

/// Without any one record, any one RRset, or with records in another order.
fn shortened(chain: &[u8], domain: &Domain, anchors: &[Anchor], at: Timestamp) {
    let records = records(chain);
    for position in 0..records.len() {
        let mut fewer = records.clone();
        fewer.remove(position);
        rule(&fewer.concat(), domain, anchors, at);
        let mut twice = records.clone();
        twice.insert(position, records[position]);
        rule(&twice.concat(), domain, anchors, at);
        if position > 0 {
            let mut turned = records.clone();
            turned.swap(position - 1, position);
            rule(&turned.concat(), domain, anchors, at);
        }
    }
    let sets = sets(&records);
    for position in 0..sets.len() {
        let mut fewer = sets.clone();
        fewer.remove(position);
        rule(&fewer.concat(), domain, anchors, at);
    }
    rule(&chain[..chain.len() - 1], domain, anchors, at);
}

/// Every byte in turn, one bit of it changed, and its case.
pub fn flipped(chain: &[u8], domain: &Domain, anchors: &[Anchor], at: Timestamp) {
    for position in 0..chain.len() {
        for change in [0x20, 1 << (position % 8)] {
            let mut changed = chain.to_vec();
            changed[position] ^= change;
            let outcome = verify_observation(&changed, domain, anchors, at);
            assert!(outcome.is_err(), "{domain}: byte {position} ^ {change:#x}");
        }
    }
}

/// The records of a chain, in wire form.
pub fn records(chain: &[u8]) -> Vec<&[u8]> {
    let mut records = Vec::new();
    let mut rest = chain;
    while !rest.is_empty() {
        let mut at = 0;
        while rest[at] != 0 {
            at += 1 + usize::from(rest[at]);
        }
        let length = usize::from(u16::from_be_bytes([rest[at + 9], rest[at + 10]]));
        let (record, after) = rest.split_at(at + 11 + length);
        records.push(record);
        rest = after;
    }
    records
}

/// Type of a record in wire form.
pub fn kind(record: &[u8]) -> u16 {
    let mut at = 0;
    while record[at] != 0 {
        at += 1 + usize::from(record[at]);
    }
    u16::from_be_bytes([record[at + 1], record[at + 2]])
}

/// Each RRset with its signature, in wire form.
pub fn sets(records: &[&[u8]]) -> Vec<Vec<u8>> {
    let sets = records.split_inclusive(|record| kind(record) == 46);
    sets.map(|set| set.concat()).collect()
}
