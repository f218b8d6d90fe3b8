//! Signets of the three dialects, armour and keys, records, names and requests.

use std::str::from_utf8;

use syndicate::dime::key::{self, PrivateKey};
use syndicate::dime::record::{self, Host, Pin, Record, Selection, Template};
use syndicate::dime::signet::{Dialect, Fingerprint, Kind, Level, MAX_KEYS, Signet};
use syndicate::dime::{
    Domain, MAX_DOMAIN, MAX_LOCAL, Name, Timestamp, armor as pem, ed25519, org, suffix, user,
};
use syndicate::proof::note::VerifierKey;
use syndicate::proof::request::{Method, Request, Signers};

use super::{stranger, take};

pub fn signet(bytes: &[u8]) {
    let Ok(signet) = Signet::decode(bytes) else { return };
    assert_eq!(signet.bytes(), bytes);
    assert_eq!(Signet::decode(bytes).as_ref(), Ok(&signet));
    assert!(Signet::decode_with_limit(bytes, bytes.len() - 1).is_err());
    assert!(signet.fields().map(|field| field.id).is_sorted());
    assert!(signet.secondary_keys().count() <= MAX_KEYS);
    assert!(signet.alternate_encryption_keys().count() <= MAX_KEYS);
    let _ = (signet.flags(), signet.identifier(), format!("{signet:?}"));

    for level in Level::NAMED {
        assert_eq!(signet.part(level).is_some(), signet.fingerprint(level).is_some());
        if let (Some(part), Some(name)) = (signet.part(level), signet.fingerprint(level)) {
            assert!(signet.body().starts_with(part) && signet.matches(&name));
        }
    }
    // What DMTP serves of it is the same signet, without what stands behind.
    let served = signet.full_split();
    let served = Signet::decode(&served).expect("a signet cut behind its signature");
    assert_eq!(served.full_split(), served.bytes());
    for level in [Level::Ssr, Level::Crypto, Level::Full] {
        assert_eq!(served.fingerprint(level), signet.fingerprint(level));
    }
    signatures(&signet);
    let tag = pem::Tag::of(bytes).expect("a tag for each kind");
    assert_eq!(pem::decode(pem::encode(bytes, tag).as_bytes()), Ok((tag, bytes.to_vec())));
}

/// No key signs but the one that did, and nothing but what it did.
fn signatures(signet: &Signet) {
    for field in signet.fields() {
        assert!(signet.verify_field(field.id, &stranger()).is_err());
    }
    assert!(org::validate(signet, &[stranger()], None).is_err());
    let valid = match signet.kind() {
        Kind::Org => org::validate(signet, &[signet.signing_key()], None).is_ok(),
        Kind::User => user::validate_own(signet).is_ok(),
        Kind::Ssr => user::validate_request(signet).is_ok(),
    };
    if valid {
        assert_ne!(signet.level(), Level::Incomplete);
        let lowest = if signet.kind() == Kind::Org { Level::Crypto } else { Level::Ssr };
        let part = signet.part(lowest).expect("what was signed");
        let mut forged = signet.bytes().to_vec();
        // A bit of the signature itself, which closes the part.
        forged[signet.bytes().len() - signet.body().len() + part.len() - 1] ^= 1;
        if let Ok(forged) = Signet::decode(&forged) {
            assert!(org::validate(&forged, &[forged.signing_key()], None).is_err());
            assert!(user::validate_own(&forged).is_err());
            assert!(user::validate_request(&forged).is_err());
        }
    }
}

pub fn armor(bytes: &[u8]) {
    if let Ok((tag, object)) = pem::decode(bytes) {
        let text = pem::encode(&object, tag);
        assert_eq!(pem::decode(text.as_bytes()), Ok((tag, object.clone())));
        key_file(&object);
    }
    key_file(bytes);
    if let Ok(key) = PrivateKey::from_armor(bytes) {
        let text = key.to_armor(Dialect::L);
        same_key(&PrivateKey::from_armor(text.as_bytes()).expect("our own armour"), &key);
    }
    if let Ok(seed) = key::pok_from_armor(bytes) {
        let text = key::pok_to_armor(&seed);
        assert_eq!(key::pok_from_armor(text.as_bytes()).as_ref(), Ok(&seed));
    }
    let Ok(text) = from_utf8(bytes) else { return };
    if let Ok(key) = key::parse_public(text) {
        assert_eq!(key::parse_public(&hex::encode(key)), Ok(key));
    }
    if let Ok(name) = Fingerprint::parse(text) {
        assert_eq!(Fingerprint::parse(&name.to_string()), Ok(name));
    }
}

fn key_file(bytes: &[u8]) {
    let Ok(key) = PrivateKey::decode(bytes) else { return };
    let written = [Dialect::L, Dialect::M].map(|dialect| key.encode(dialect));
    assert!(written.iter().any(|written| written.as_slice() == bytes));
    for written in written {
        same_key(&PrivateKey::decode(&written).expect("our own file"), &key);
    }
    assert_ne!(key.encryption_key(), [0; 33]);
}

fn same_key(one: &PrivateKey, other: &PrivateKey) {
    let parts = |key: &PrivateKey| (key.owner(), *key.seed(), *key.scalar());
    assert_eq!(parts(one), parts(other));
}

pub fn record(bytes: &[u8]) {
    if let Some(host) = Host::parse(bytes) {
        assert_eq!(Host::parse(host.to_string().as_bytes()), Some(host));
    }
    let record = match Record::parse(bytes) {
        Ok(record) => record,
        Err(_) => {
            let selection = record::select(&[bytes.to_vec()]);
            assert!(matches!(selection, Selection::None | Selection::Refused { .. }));
            return;
        }
    };
    assert_eq!(record.text, bytes);
    assert!(bytes.len() <= record::MAX_RECORD);
    assert!((1..=record::MAX_POKS).contains(&record.poks.len()));
    assert!(record.flags.is_sorted_by(|a, b| a < b));
    assert!(record::is_candidate(bytes));
    assert!(matches!(record::select(&[bytes.to_vec()]), Selection::One(found) if found == record));

    let now = Timestamp::from_secs(1_795_449_600);
    let refresh = record::refresh_at(now, u32::MAX, record.ttl);
    assert!((60_000..=86_400_000).contains(&refresh.since(now)));
    assert!(record::expires_at(None, now, record.expiry_days) >= now);

    // Written by our own writer it says the same.
    let signatures = record.tls.iter().filter(|pin| matches!(pin, Pin::Signature(_)));
    let template = Template {
        poks: record.poks.clone(),
        tls: signatures.filter_map(|pin| pin.bytes().try_into().ok()).collect(),
        policy: record.policy,
        syndicates: record.syndicates.iter().map(Host::to_string).collect(),
        dx: record.dx_hosts().iter().map(Host::to_string).collect(),
        expiry_days: record.expiry_days,
        subdomain: record.subdomain,
    };
    let text = template.text();
    assert_eq!(record::assemble(&record::character_strings(&text)), text.as_bytes());
    if text.len() > record::MAX_RECORD {
        return;
    }
    let again = Record::parse(text.as_bytes()).expect("our own record");
    assert_eq!((&again.poks, again.policy), (&record.poks, record.policy));
    assert_eq!((again.subdomain, again.expiry_days), (record.subdomain, record.expiry_days));
    assert_eq!(again.syndicates, record.syndicates);
    assert_eq!(again.dx_hosts(), record.dx_hosts());
}

/// A name on the first line, and the body of an owner's request about it.
pub fn name(bytes: &[u8]) {
    let (line, mut body) = match bytes.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&bytes[..end], &bytes[end + 1..]),
        None => (bytes, &[][..]),
    };
    let Ok(text) = from_utf8(line) else { return };
    if let Ok(method) = text.parse::<Method>() {
        assert_eq!(method.to_string(), text);
    }
    let Ok(name) = text.parse::<Name>() else { return };
    assert_eq!(name.to_string().parse().as_ref(), Ok(&name));
    assert_eq!(name.as_str(), name.as_str().to_ascii_lowercase());
    assert!(name.as_str().bytes().all(|byte| byte.is_ascii_graphic()));
    assert!(name.domain().as_str().len() <= MAX_DOMAIN);
    assert!(name.address().is_none_or(|address| address.local().len() <= MAX_LOCAL));
    let mut above = Some(name.domain().clone());
    while let Some(domain) = above {
        assert_eq!(domain.as_str().parse::<Domain>().as_ref(), Ok(&domain));
        above = domain.parent();
    }
    let registered = suffix::registered(name.domain());
    assert!(name.domain().as_str().ends_with(registered.as_str()));
    request(name, take(&mut body), take(&mut body), body);
}

/// The text has its seven lines whatever is in it, and one signature is good for it alone.
fn request(name: Name, nonce: [u8; 16], time: [u8; 8], body: &[u8]) {
    const ORIGIN: &str = "log.example/1";
    let time = u64::from_be_bytes(time);
    let body_sha256 = syndicate::log::commit::sha256(body);
    let request = Request { method: Method::Watch, name, body_sha256, time, nonce };
    assert_eq!(request.text(ORIGIN).matches('\n').count(), 7);
    assert!(request.text(ORIGIN).ends_with('\n'));
    let key = ed25519::public_key(&[3; 32]);
    let signature = request.sign(ORIGIN, &[3; 32]);
    let signers = Signers::of_peers([key]);
    let verify = |request: &Request, origin: &str, body: &[u8]| {
        let now = Timestamp::from_millis(time.saturating_mul(1000));
        request.verify(origin, body, &signers, &key, &signature, now)
    };
    assert_eq!(verify(&request, ORIGIN, body), Ok(()));
    assert!(verify(&request, "log.example/2", body).is_err());
    assert!(verify(&request, ORIGIN, &[body, b"x"].concat()).is_err());
    let other = Request { method: Method::Observe, ..request.clone() };
    assert!(verify(&other, ORIGIN, body).is_err());
    // Names as origins have no room for the end of a line.
    assert!(VerifierKey::ed25519("a\nb", &stranger()).is_err());
}
