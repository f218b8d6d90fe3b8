//! DNSSEC chains: as they come, and signed anew with the keys of a root and a zone of
//! our own, which leads the fuzzer past the first signature.

use std::sync::LazyLock;

use syndicate::dime::{Dnssec, Domain, Timestamp, ed25519};
use syndicate::proof::dnssec::{
    Anchor, DnsName, MAX_CHAIN, MAX_RECORDS, Proved, RecordType, Set, Signature, decode, encode,
    trimmed, verify, verify_observation,
};

use super::mini_log;
use super::stranger;

const ZONE: &str = "one.example";
/// Of Ed25519 (RFC 8080).
const ALGORITHM: u8 = 15;
const SECONDS: u32 = 1_795_449_600;
const DAY: u32 = 86_400;

static ANCHORS: LazyLock<[Anchor; 1]> = LazyLock::new(|| [anchor(root_key())]);
static STRANGERS: LazyLock<[Anchor; 1]> = LazyLock::new(|| [anchor(stranger())]);

fn anchor(key: [u8; 32]) -> Anchor {
    Anchor::Key { algorithm: ALGORITHM, public_key: key.to_vec() }
}

/// The seed of a zone's key: the root's, or that of every zone below.
fn seed(zone: &DnsName) -> [u8; 32] {
    if zone.is_root() { [71; 32] } else { [72; 32] }
}

fn root_key() -> [u8; 32] {
    ed25519::public_key(&seed(&DnsName::root()))
}

pub fn dnssec(bytes: &[u8]) {
    let Ok(sets) = decode(bytes) else { return };
    assert!(bytes.len() <= MAX_CHAIN);
    assert!(sets.iter().map(|set| set.data.len() + 1).sum::<usize>() <= MAX_RECORDS);
    assert_eq!(encode(sets.clone()).as_deref(), Ok(bytes));

    let domain: Domain = ZONE.parse().expect("a domain");
    let at = Timestamp::from_secs(u64::from(SECONDS));
    assert!(verify_observation(bytes, &domain, &*STRANGERS, at).is_err());
    // Only the seeds were signed.
    if verify_observation(bytes, &domain, &*ANCHORS, at).is_ok() {
        assert!(chains().iter().any(|chain| chain == bytes));
    }
    let Ok(chain) = encode(sets.into_iter().map(signed).collect()) else { return };
    judge(&chain, &domain, at);
}

fn judge(chain: &[u8], domain: &Domain, at: Timestamp) {
    let verdict = verify_observation(chain, domain, &*ANCHORS, at);
    assert_eq!(verify_observation(chain, domain, &*ANCHORS, at), verdict);
    assert!(verify_observation(chain, domain, &*STRANGERS, at).is_err());
    if let Ok(observed) = verdict {
        assert!(observed.since <= at && at <= observed.until);
        assert!(observed.dnssec == Dnssec::Secure || observed.record.is_none());
        // It has what it needs, and no more.
        assert_eq!(trimmed(chain, domain, &*ANCHORS, at).as_deref(), Ok(chain));
        let late = Timestamp::from_secs(observed.until.secs() + 1);
        assert!(verify_observation(chain, domain, &*ANCHORS, late).is_err());
    } else if let Ok(less) = trimmed(chain, domain, &*ANCHORS, at) {
        assert!(verify_observation(&less, domain, &*ANCHORS, at).is_ok());
    }
    for name in ["_dime.one.example", "_dx.one.example.", "one.example", "x.y.one.example"] {
        if let Ok(Proved::Records(texts)) = verify(chain, name, &*ANCHORS, at) {
            assert!(!texts.is_empty());
        }
    }
}

/// The same set with a signature by the key that its signer would have here.
fn signed(mut set: Set) -> Set {
    let message = message(&set);
    set.signature.bytes = ed25519::sign(&seed(&set.signature.signer), &message).to_vec();
    set
}

/// What is signed (RFC 4034 §3.1.8.1). A name that a wildcard made is signed as the
/// wildcard.
fn message(set: &Set) -> Vec<u8> {
    let signature = &set.signature;
    let mut bytes = Vec::new();
    bytes.extend(signature.covered.0.to_be_bytes());
    bytes.extend([signature.algorithm, signature.labels]);
    bytes.extend(signature.original_ttl.to_be_bytes());
    bytes.extend(signature.expiration.to_be_bytes());
    bytes.extend(signature.inception.to_be_bytes());
    bytes.extend(signature.key_tag.to_be_bytes());
    bytes.extend(signature.signer.wire());
    let labels = usize::from(signature.labels);
    let wild = set.owner.label_count() > labels && set.owner.labels().next() != Some(b"*");
    let closest = set.owner.suffix(labels);
    let star = DnsName::from_labels(std::iter::once(&b"*"[..]).chain(closest.labels()));
    let owner = if wild { star.unwrap_or(closest) } else { set.owner.clone() };
    for data in &set.data {
        bytes.extend(owner.wire());
        bytes.extend(set.kind.0.to_be_bytes());
        bytes.extend(1u16.to_be_bytes());
        bytes.extend(signature.original_ttl.to_be_bytes());
        bytes.extend((data.len() as u16).to_be_bytes());
        bytes.extend(data);
    }
    bytes
}

/// SHA-1 of [`ZONE`] in wire form, no salt, no further rounds; and in base32.
const HASHED: [u8; 20] = [
    0x6f, 0xce, 0xe7, 0x48, 0x25, 0x49, 0x15, 0xd6, 0xe0, 0x05, 0x8b, 0x48, 0x13, 0x61, 0x62, 0x96,
    0xcb, 0xd9, 0xdb, 0xcc,
];
const HASHED_TEXT: &str = "dv7eei1594atdo05hd416ob2ir5tjmuc";

/// A chain to a record; to none by NSEC and by NSEC3; to a record that a wildcard gave;
/// to a zone that is not signed.
pub fn chains() -> &'static [Vec<u8>] {
    static CHAINS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
        let record = mini_log::orgs()[0].record();
        let txt = [&[record.len() as u8][..], record.as_bytes()].concat();
        let root = || set(".", RecordType::DNSKEY, vec![dnskey(".")], ".");
        let zone = || {
            let ds = set(ZONE, RecordType::DS, vec![ds(ZONE)], ".");
            [root(), ds, set(ZONE, RecordType::DNSKEY, vec![dnskey(ZONE)], ZONE)]
        };
        let nsec = |owner: &str, next: &str, kinds: &[u8], signer: &str| {
            let next = DnsName::parse(next).expect("a name");
            set(owner, RecordType::NSEC, vec![[next.wire(), kinds].concat()], signer)
        };
        let chain = |more: Vec<Set>| {
            encode(zone().into_iter().chain(more).collect()).expect("within the limits")
        };
        let apex = [0, 7, 0x22, 0, 0, 0, 0, 0x03, 0x80];
        let delegation = [0, 6, 0x20, 0, 0, 0, 0, 0x03];
        // Alone, it covers every other name.
        let nsec3 = [&[1, 0, 0, 0, 0, 20][..], &HASHED, &apex].concat();
        let hashed = format!("{HASHED_TEXT}.{ZONE}");
        let mut wild = set("_dime.one.example", RecordType::TXT, vec![txt.clone()], ZONE);
        wild.signature.labels = 2;
        let chains = vec![
            chain(vec![set("_dime.one.example", RecordType::TXT, vec![txt], ZONE)]),
            chain(vec![nsec(ZONE, ZONE, &apex, ZONE)]),
            chain(vec![set(&hashed, RecordType::NSEC3, vec![nsec3], ZONE)]),
            chain(vec![
                nsec("*.one.example", ZONE, &[0, 6, 0, 0, 0x80, 0, 0, 0x03], ZONE),
                signed(wild),
            ]),
            encode(vec![root(), nsec(ZONE, "two.example", &delegation, ".")])
                .expect("within the limits"),
        ];
        let domain = ZONE.parse().expect("a domain");
        let at = Timestamp::from_secs(u64::from(SECONDS));
        for (number, chain) in chains.iter().enumerate() {
            let verdict = verify_observation(chain, &domain, &*ANCHORS, at);
            assert!(verdict.is_ok(), "chain {number}: {verdict:?}");
        }
        chains
    });
    &CHAINS
}

fn set(owner: &str, kind: RecordType, data: Vec<Vec<u8>>, signer: &str) -> Set {
    let owner = DnsName::parse(owner).expect("a name");
    let signature = Signature {
        covered: kind,
        algorithm: ALGORITHM,
        labels: owner.labels().filter(|label| *label != b"*").count() as u8,
        original_ttl: 3600,
        expiration: SECONDS + 7 * DAY,
        inception: SECONDS - DAY,
        key_tag: key_tag(&dnskey(signer)),
        signer: DnsName::parse(signer).expect("a name"),
        bytes: Vec::new(),
    };
    signed(Set::new(owner, kind, data, signature).expect("evidence"))
}

fn dnskey(zone: &str) -> Vec<u8> {
    let zone = DnsName::parse(zone).expect("a name");
    [&[1, 1, 3, ALGORITHM][..], &ed25519::public_key(&seed(&zone))].concat()
}

fn ds(zone: &str) -> Vec<u8> {
    let key = dnskey(zone);
    let name = DnsName::parse(zone).expect("a name");
    let digest = syndicate::log::commit::sha256(&[name.wire(), &key].concat());
    [&key_tag(&key).to_be_bytes()[..], &[ALGORITHM, 2], &digest].concat()
}

/// RFC 4034, appendix B.
fn key_tag(key: &[u8]) -> u16 {
    let sum: u32 =
        (0u32..).zip(key).map(|(place, byte)| u32::from(*byte) << (8 * (1 - place % 2))).sum();
    ((sum + (sum >> 16)) & 0xffff) as u16
}
