//! Chains of signed records as evidence, collected from a private DNS and
//! checked offline. (The same against BIND, with its algorithms and NSEC3, is
//! in `tests/dnssec.rs`.)

#[path = "support/chain.rs"]
mod chain;

use std::time::SystemTime;

use proptest::prelude::*;
use sha2::{Digest as _, Sha256};
use syndicate::demo::dns::{Fault, PrivateDns};
use syndicate::dime::{Dnssec, Domain, Timestamp};
use syndicate::proof::dnssec::{
    Absence, Anchor, MAX_CHAIN, Proved, RecordType, Set, decode, encode, iana, verify,
    verify_observation,
};
use syndicate::resolver::{Evidence, HickoryResolver, Resolver, TrustAnchor};

/// Decides for no name below that has a record of its own.
const RECORD: &str = "v=dime1 pok=iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w sub=relaxed";

async fn private() -> PrivateDns {
    let dns = PrivateDns::builder()
        .signed("good.example")
        .signed("deep.good.example")
        .signed("empty.example")
        .signed("old.example")
        .unsigned("plain.example")
        .unsigned("below.plain.example")
        .start()
        .await
        .unwrap();
    for domain in ["good.example", "deep.good.example", "plain.example", "below.plain.example"] {
        dns.set_txt(&format!("_dime.{domain}"), &[RECORD]).unwrap();
    }
    dns.set_txt("_dx.old.example", &[RECORD]).unwrap();
    dns
}

fn asking(dns: &PrivateDns) -> HickoryResolver {
    HickoryResolver::new(dns.resolver_options()).unwrap()
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Timestamp::from_secs(since.as_secs())
}

fn domain(text: &str) -> Domain {
    text.parse().unwrap()
}

async fn evidence(dns: &PrivateDns, name: &str) -> Option<Evidence> {
    asking(dns).evidence(&domain(name), now()).await.unwrap()
}

#[tokio::test]
async fn what_dns_says_is_proved() {
    let dns = private().await;
    let anchors = dns.trust_anchor().of_root();
    let strangers = private().await.trust_anchor().of_root();
    // An alias out of the zone, one into an unsigned zone, and one to nothing.
    for (alias, target) in [
        ("_dime.alias.example", "_dime.deep.good.example"),
        ("_dime.down.example", "_dime.plain.example"),
        ("_dime.lost.example", "nothing.good.example"),
    ] {
        dns.add_zone(alias.strip_prefix("_dime.").unwrap(), true).unwrap();
        dns.set_cname(alias, target).unwrap();
    }
    let record = Some(RECORD.as_bytes().to_vec());
    for (name, dnssec, record) in [
        ("good.example", Dnssec::Secure, record.clone()),
        ("deep.good.example", Dnssec::Secure, record.clone()),
        ("old.example", Dnssec::Secure, record.clone()),
        ("alias.example", Dnssec::Secure, record),
        ("empty.example", Dnssec::Secure, None),
        ("nobody.example", Dnssec::Secure, None),
        ("nobody.nowhere", Dnssec::Secure, None),
        ("lost.example", Dnssec::Secure, None),
        ("plain.example", Dnssec::Insecure, None),
        ("below.plain.example", Dnssec::Insecure, None),
        ("down.example", Dnssec::Insecure, None),
    ] {
        let at = now();
        let found = evidence(&dns, name).await.unwrap_or_else(|| panic!("{name}: no evidence"));
        assert_eq!(found.observed.dnssec, dnssec, "{name}");
        assert_eq!(found.observed.record, record, "{name}");
        chain::check(&found.chain, &found.observed, &domain(name), &anchors, &strangers, at);
    }
}

#[tokio::test]
async fn no_byte_can_be_changed() {
    let dns = private().await;
    let anchors = dns.trust_anchor().of_root();
    for name in ["good.example", "plain.example"] {
        let found = evidence(&dns, name).await.unwrap();
        chain::flipped(&found.chain, &domain(name), &anchors, now());
    }
}

#[tokio::test]
async fn one_name_alone() {
    let dns = private().await;
    let anchors = dns.trust_anchor().of_root();
    let found = evidence(&dns, "good.example").await.unwrap();
    let proved = verify(&found.chain, "_DIME.good.example.", &anchors, now()).unwrap();
    assert_eq!(proved, Proved::Records(vec![RECORD.as_bytes().to_vec()]));
    let found = evidence(&dns, "plain.example").await.unwrap();
    let proved = verify(&found.chain, "_dime.plain.example", &anchors, now()).unwrap();
    assert!(matches!(proved, Proved::Insecure { cut } if cut.to_string() == "plain.example."));
    let proved = verify(&found.chain, "x.y.plain.example", &anchors, now()).unwrap();
    assert!(matches!(proved, Proved::Insecure { .. }));
    // A denial of both names needs more than the denial of one.
    let found = evidence(&dns, "nobody.example").await.unwrap();
    let proved = verify(&found.chain, "_dime.nobody.example", &anchors, now());
    assert_eq!(proved.unwrap(), Proved::Denied(Absence::NoName));
}

/// A record above that decides is proved with all that is below it (§1.7).
#[tokio::test]
async fn a_record_above_is_proved_from_the_name_up() {
    let dns = PrivateDns::builder().signed("org.example").start().await.unwrap();
    let anchors = dns.trust_anchor().of_root();
    let at_org = |sub: &str| RECORD.replace("relaxed", sub);
    let own = RECORD.replace("iojj", "jojj").replace(" sub=relaxed", "");
    let proved = async |name: &str| {
        let found = evidence(&dns, name).await.unwrap();
        let twin = verify_observation(&found.chain, &domain(name), &anchors, now()).unwrap();
        assert_eq!(twin, found.observed);
        (found.observed.dnssec, found.observed.record.map(|text| String::from_utf8(text).unwrap()))
    };
    let secure = |text: Option<String>| (Dnssec::Secure, text);
    let (bare, two) = ("mail.org.example", "a.mail.org.example");
    dns.set_txt("_dime.owner.org.example", &[&own]).unwrap();
    dns.set_txt("_dime.org.example", &[&at_org("relaxed")]).unwrap();
    for name in [bare, two] {
        assert_eq!(proved(name).await, secure(Some(at_org("relaxed"))), "{name}");
    }
    assert_eq!(proved("owner.org.example").await, secure(Some(own.clone())));
    dns.set_txt("_dime.org.example", &[&at_org("explicit")]).unwrap();
    assert_eq!(proved(bare).await, secure(None));
    assert_eq!(proved("owner.org.example").await, secure(Some(own.clone())));
    dns.set_txt("_dime.org.example", &[&at_org("strict")]).unwrap();
    assert_eq!(proved(bare).await, secure(Some(at_org("strict"))));
    assert_eq!(proved("owner.org.example").await, secure(Some(at_org("strict"))));

    // The nearest record above decides; leaving it out proves nothing.
    dns.set_txt("_dime.org.example", &[&at_org("relaxed")]).unwrap();
    let nearer = format!("{own} sub=relaxed");
    let far = decode(&evidence(&dns, two).await.unwrap().chain).unwrap();
    dns.set_txt("_dime.mail.org.example", &[&nearer]).unwrap();
    assert_eq!(proved(two).await, secure(Some(nearer.clone())));
    let near = decode(&evidence(&dns, two).await.unwrap().chain).unwrap();
    let text = |set: &&Set, owner: &str| {
        set.kind == RecordType::TXT && set.owner.to_string().starts_with(owner)
    };
    assert!(near.iter().any(|set| text(&set, "_dime.mail.org.")));
    assert!(far.iter().any(|set| text(&set, "_dime.org.")));
    // Nor does leaving out what denies a name on the way.
    let denials = |set: &Set| matches!(set.kind, RecordType::NSEC | RecordType::NSEC3);
    for (gone, _) in far.iter().enumerate().filter(|(_, set)| denials(set)) {
        let mut rest = far.clone();
        rest.remove(gone);
        let rule = chain::rule(&encode(rest).unwrap(), &domain(two), &anchors, now());
        assert!(["chain-incomplete", "chain-unused"].contains(&rule), "{rule}");
    }

    // A record above the registered domain is another registrant's.
    let tenants = PrivateDns::builder().signed("github.io").start().await.unwrap();
    let anchors = tenants.trust_anchor().of_root();
    tenants.set_txt("_dime.github.io", &[&at_org("strict")]).unwrap();
    let tenant = domain("tenant.github.io");
    let found = evidence(&tenants, tenant.as_str()).await.unwrap();
    assert_eq!((found.observed.dnssec, found.observed.record), (Dnssec::Secure, None));
    let theirs = evidence(&tenants, "github.io").await.unwrap();
    assert!(theirs.observed.record.is_some());
    let mut joined = decode(&found.chain).unwrap();
    joined.extend(decode(&theirs.chain).unwrap());
    joined.dedup();
    let mut once: Vec<Set> = Vec::new();
    for set in joined {
        if !once.contains(&set) {
            once.push(set);
        }
    }
    assert_eq!(chain::rule(&encode(once).unwrap(), &tenant, &anchors, now()), "chain-suffix");
}

/// Texts that are no record do not hide the older name.
#[tokio::test]
async fn other_texts_are_part_of_the_answer() {
    let dns = private().await;
    dns.set_txt("_dime.old.example", &["v=spf1 -all"]).unwrap();
    let found = evidence(&dns, "old.example").await.unwrap();
    assert_eq!(found.observed.record.as_deref(), Some(RECORD.as_bytes()));
    // Of two records none is in force.
    let second = RECORD.replace("iojj", "jojj");
    dns.set_txt("_dime.good.example", &[RECORD, &second]).unwrap();
    assert_eq!(evidence(&dns, "good.example").await, None);
}

#[tokio::test]
async fn broken_zones_give_no_evidence() {
    let dns = private().await;
    for fault in [Fault::Tampered, Fault::Expired, Fault::Stripped, Fault::WrongKey] {
        dns.set_fault("good.example", Some(fault)).unwrap();
        assert_eq!(evidence(&dns, "good.example").await, None, "{fault:?}");
    }
    dns.set_fault("good.example", Some(Fault::ServFail)).unwrap();
    assert!(asking(&dns).evidence(&domain("good.example"), now()).await.is_err());
    dns.set_fault("good.example", None).unwrap();
    // Signatures that are about to expire would not outlive an entry.
    let resolver = asking(&dns);
    let late = now().plus((7 * 86_400 - 3600 - 60) * 1000);
    let at = async |at| resolver.evidence(&domain("good.example"), at).await.unwrap();
    assert!(!at(late).await.unwrap().is_lasting(late));
    let early = now().plus((7 * 86_400 - 3600 - 3600) * 1000);
    assert!(at(early).await.unwrap().is_lasting(early));
    assert_eq!(at(now().plus(7 * 86_400_000)).await, None);
}

/// Keys are kept, and forgotten when the zone has others.
#[tokio::test]
async fn keys_are_cached_and_roll_over() {
    let dns = PrivateDns::builder().signed("good.example").ttl(60).start().await.unwrap();
    dns.set_txt("_dime.good.example", &[RECORD]).unwrap();
    let resolver = asking(&dns);
    let good = domain("good.example");
    assert!(resolver.evidence(&good, now()).await.unwrap().is_some());
    let mut spent = 0;
    for _ in 0..10 {
        let asked = dns.questions();
        assert!(resolver.evidence(&good, now()).await.unwrap().is_some());
        spent = dns.questions() - asked;
        // What is not answered within a third of a second is asked twice.
        if spent == 1 {
            break;
        }
    }
    assert_eq!(spent, 1, "the record alone is asked for again");
    // The zone's key is another one now, and so is its parent's DS record.
    let other = PrivateDns::builder().signed("good.example").ttl(60).start().await.unwrap();
    assert_ne!(other.trust_anchor_text(), dns.trust_anchor_text());
    dns.set_fault("good.example", Some(Fault::WrongKey)).unwrap();
    assert_eq!(resolver.evidence(&good, now()).await.unwrap(), None);
    dns.set_fault("good.example", None).unwrap();
    assert!(resolver.evidence(&good, now()).await.unwrap().is_some());
}

/// RRsets of one chain do not serve another.
#[tokio::test]
async fn chains_cannot_be_mixed() {
    let dns = private().await;
    let other = private().await;
    let anchors = dns.trust_anchor().of_root();
    let good = domain("good.example");
    let ours = evidence(&dns, "good.example").await.unwrap();
    let theirs = evidence(&other, "good.example").await.unwrap();
    assert_eq!(chain::rule(&theirs.chain, &good, &anchors, now()), "dnssec-anchor");
    let (ours, theirs) = (decode(&ours.chain).unwrap(), decode(&theirs.chain).unwrap());
    for position in 0..ours.len() {
        let mut mixed = ours.clone();
        mixed[position] = theirs[position].clone();
        chain::rule(&encode(mixed).unwrap(), &good, &anchors, now());
    }
    // More than is needed is refused too.
    let deep = evidence(&dns, "deep.good.example").await.unwrap();
    let mut more = ours.clone();
    for set in decode(&deep.chain).unwrap() {
        if !more.contains(&set) {
            more.push(set);
        }
    }
    let more = encode(more).unwrap();
    assert_eq!(chain::rule(&more, &good, &anchors, now()), "chain-unused");
}

/// Each refusal has its name.
#[tokio::test]
async fn refusals_are_named() {
    let dns = private().await;
    let anchors = dns.trust_anchor().of_root();
    let good = domain("good.example");
    let sets = decode(&evidence(&dns, "good.example").await.unwrap().chain).unwrap();
    let refused = |kind: RecordType, change: &dyn Fn(&mut Set)| {
        let mut sets = sets.clone();
        let zone = |set: &&mut Set| set.kind == kind && !set.owner.is_root();
        change(sets.iter_mut().rfind(zone).unwrap());
        chain::rule(&encode(sets).unwrap(), &good, &anchors, now())
    };
    type T = RecordType;
    for algorithm in [1, 3, 5, 6, 7, 12, 16, 253] {
        let rule = refused(T::TXT, &|set| set.signature.algorithm = algorithm);
        assert_eq!(rule, "dnssec-algorithm");
    }
    assert_eq!(refused(T::TXT, &|set| set.signature.algorithm = 8), "dnssec-signature");
    assert_eq!(refused(T::TXT, &|set| set.signature.labels += 1), "dnssec-labels");
    assert_eq!(refused(T::DS, &|set| set.signature.labels -= 1), "dnssec-labels");
    assert_eq!(refused(T::TXT, &|set| set.signature.labels -= 1), "dnssec-signature");
    assert_eq!(refused(T::TXT, &|set| set.signature.key_tag ^= 1), "dnssec-signature");
    assert_eq!(refused(T::TXT, &|set| set.signature.bytes.clear()), "dnssec-signature");
    assert_eq!(refused(T::TXT, &|set| set.data[0][5] ^= 1), "dnssec-signature");
    assert_eq!(refused(T::DS, &|set| set.data[0][9] ^= 1), "dnssec-signature");
    // The key is revoked, or is not the zone's.
    assert_eq!(refused(T::DNSKEY, &|set| set.data[0][1] ^= 0x80), "dnssec-ds");
    assert_eq!(refused(T::DNSKEY, &|set| set.data[0][0] ^= 0x01), "dnssec-ds");
    let rule = |bytes: &[u8]| chain::rule(bytes, &good, &anchors, now());
    assert_eq!(rule(&vec![0; MAX_CHAIN + 1]), "chain-limit");
    assert_eq!(rule(&[0]), "chain-format");
    // An A record of the root.
    assert_eq!(rule(&[0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 127, 0, 0, 1]), "chain-type");
    let mut turned = sets.clone();
    turned.reverse();
    let split: Vec<Vec<u8>> = turned.iter().map(|set| encode(vec![set.clone()]).unwrap()).collect();
    assert_eq!(rule(&split.concat()), "chain-order");
    let without = |kind| sets.iter().filter(|set| set.kind != kind).cloned().collect();
    assert_eq!(rule(&encode(without(T::TXT)).unwrap()), "chain-incomplete");
    assert_eq!(rule(&encode(without(T::DS)).unwrap()), "chain-incomplete");
    assert_eq!(rule(&encode(without(T::DNSKEY)).unwrap()), "dnssec-anchor");
    let loops = ["_dime.loop.example", "a.loop.example"];
    dns.add_zone("loop.example", true).unwrap();
    dns.set_cname(loops[0], loops[1]).unwrap();
    dns.set_cname(loops[1], loops[0]).unwrap();
    assert_eq!(evidence(&dns, "loop.example").await, None);
}

/// The digests that are compiled in are those of the resolver's root keys.
#[test]
fn the_root_of_the_real_world() {
    let digests = iana();
    let keys = TrustAnchor::iana().of_root();
    assert_eq!((digests.len(), keys.len()), (2, 2));
    for (digest, key) in digests.iter().zip(&keys) {
        let (Anchor::Ds { digest, .. }, Anchor::Key { algorithm, public_key }) = (digest, key)
        else {
            panic!("{digest:?}, {key:?}");
        };
        let preimage = [&[0, 1, 1, 3, *algorithm][..], public_key.as_slice()].concat();
        assert_eq!(Sha256::digest(preimage).as_slice(), digest);
    }
}

fn anything_goes(chain: &[u8], anchors: &[Anchor]) {
    let name = domain("good.example");
    let _ = verify_observation(chain, &name, anchors, Timestamp::from_secs(1_800_000_000));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        anything_goes(&bytes, &syndicate::proof::dnssec::iana());
    }
}

/// A chain with several bytes changed, cut and doubled: never a panic, and never
/// accepted but as it was.
#[tokio::test]
async fn changed_chains_are_read_without_panic() {
    let dns = private().await;
    let anchors = dns.trust_anchor().of_root();
    let at = now();
    for name in ["good.example", "nobody.example", "plain.example"] {
        let found = evidence(&dns, name).await.unwrap();
        let length = found.chain.len();
        let changes = proptest::collection::vec((0..length, any::<u8>()), 1..6);
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        let outcome = runner.run(&(changes, 0..=length), |(changes, end)| {
            let mut bytes = found.chain.to_vec();
            for (position, value) in changes {
                bytes[position] = value;
            }
            bytes.truncate(end);
            if bytes != found.chain {
                let outcome = verify_observation(&bytes, &domain(name), &anchors, at);
                prop_assert!(outcome.is_err());
            }
            Ok(())
        });
        outcome.unwrap();
    }
}
