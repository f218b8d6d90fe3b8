//! What a visit saw, held against what the mirror knew: which drafts follow.
//!
//! Pure: no network, no clock, no store. What comes in has been validated; what
//! fails validation never gets here and is never a version. Conditions:
//! reference §1.8 (records) and §7.3 (chains). Seeing the same again gives no
//! draft. Left out: quotas and `current`, which are the log's.

use std::collections::BTreeSet;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::dime::chain::{self, Link};
use crate::dime::org::{self, ValidOrgSignet};
use crate::dime::record::{self, Absence, Pok, Record};
use crate::dime::signet::{Level, Signet};
use crate::dime::user::{Signer, ValidUserSignet};
use crate::dime::{Address, Dnssec, Domain, Timestamp};
use crate::proof::draft::{DomainDraft, UserDraft};
use crate::proof::entry::{self, Event, Events};

/// What the mirror knew of a domain before the visit.
#[derive(Clone, Debug)]
pub struct KnownDomain {
    /// Of the latest entry; 0: the domain is new.
    pub version: u64,
    /// Version whose content is in force; 0: none is.
    pub current: u64,
    /// The POKs last in force. They outlive the record, so that leaving and
    /// coming back with other keys is still a replacement.
    pub poks: BTreeSet<Pok>,
    /// Status logged with the content last in force.
    pub dnssec: Dnssec,
    /// It was proved secure, and no entry says that this is lost.
    pub was_secure: bool,
    /// Text of the record last in force.
    pub record: Vec<u8>,
    /// The org signet last in force, if its bytes can still be had.
    pub org: Option<Signet>,
    /// SHA-256 of its bytes, as logged.
    pub org_sha256: Option<[u8; 32]>,
    /// The latest entry that says anything of the record says that it is gone.
    pub withdrawn: bool,
    /// End of the running validity period.
    pub expires_at: Timestamp,
    /// The last visit found a bogus answer.
    pub bogus: bool,
    /// What was told of the other name's keys, see [`other_name`].
    pub other: Option<[u8; 32]>,
}

impl KnownDomain {
    /// A domain that has no entry yet.
    pub fn new() -> KnownDomain {
        KnownDomain {
            version: 0,
            current: 0,
            poks: BTreeSet::new(),
            dnssec: Dnssec::Indeterminate,
            was_secure: false,
            record: Vec::new(),
            org: None,
            org_sha256: None,
            withdrawn: false,
            expires_at: Timestamp::default(),
            bogus: false,
            other: None,
        }
    }
}

impl Default for KnownDomain {
    fn default() -> KnownDomain {
        KnownDomain::new()
    }
}

/// What a visit found at a domain.
#[derive(Clone, Debug)]
pub enum DomainSeen<'a> {
    Record {
        record: &'a Record,
        /// What the other name says instead, if it does; see [`other_name`].
        conflict: Option<[u8; 32]>,
        /// The texts there, if they are known.
        other: &'a [Vec<u8>],
        /// The org signet that the DX served; `None` if it could not be had,
        /// or was refused.
        org: Option<&'a ValidOrgSignet>,
    },
    /// Nothing at the name that counts is a record, though it claims to be; the
    /// other name, which some clients ask alone, has keys.
    Unusable { texts: &'a [Vec<u8>], conflict: [u8; 32], other: &'a [Vec<u8>] },
    /// DNS says that there is no record.
    Absent,
    /// The answer is bogus, on more than one path.
    Bogus,
}

/// How DNS protected what was seen.
#[derive(Clone, Debug)]
pub struct Protection {
    pub dnssec: Dnssec,
    /// The DNSSEC chain that proves it.
    pub chain: Option<Bytes>,
}

impl Protection {
    /// What a log entry may say: secure and insecure need the chain as
    /// evidence, without it the status is indeterminate (threat 15).
    pub fn evidenced(&self) -> Dnssec {
        match (self.dnssec, &self.chain) {
            (Dnssec::Secure | Dnssec::Insecure, None) => Dnssec::Indeterminate,
            (dnssec, _) => dnssec,
        }
    }
}

/// The entry that a visit to a domain calls for, if any. `hold` is how long a
/// suspicious change is held, milliseconds.
pub fn domain(
    domain: &Domain,
    known: &KnownDomain,
    seen: &DomainSeen<'_>,
    protection: &Protection,
    now: Timestamp,
    hold: u64,
) -> Option<DomainDraft> {
    let dnssec = protection.evidenced();
    let draft = |events: Events| DomainDraft {
        domain: domain.clone(),
        poks: Vec::new(),
        dnssec,
        record: None,
        org_signet: None,
        dnssec_chain: protection.chain.clone(),
        events,
        hold: events.hold().then_some(hold),
        coalesced: None,
    };
    match seen {
        DomainSeen::Record { record, conflict, org, .. } => {
            let org = org_in_force(known, record, *org);
            let events = record_events(known, record, protection, *conflict, org.as_ref());
            (!events.is_empty()).then(|| DomainDraft {
                poks: record.pok_set().into_iter().collect(),
                record: Some(Bytes::copy_from_slice(&record.text)),
                org_signet: org.map(|org| Bytes::copy_from_slice(org.bytes())),
                ..draft(events)
            })
        }
        DomainSeen::Unusable { conflict, other, .. } => {
            let is_over = known.withdrawn && known.expires_at <= now;
            let has_keys = other.iter().any(|text| Record::parse(text).is_ok());
            let is_told = known.other == Some(*conflict);
            if known.current == 0 || is_over || is_told || !has_keys {
                return None;
            }
            // What is in force stays so, and the entry says it again.
            let record = Record::parse(&known.record).ok()?;
            let mut events = Events::from(Event::NameConflict);
            if known.was_secure && protection.dnssec != Dnssec::Secure {
                events.insert(Event::DnssecLost);
            }
            let org = org_in_force(known, &record, None);
            Some(DomainDraft {
                poks: record.pok_set().into_iter().collect(),
                record: Some(Bytes::copy_from_slice(&record.text)),
                org_signet: org.map(|org| Bytes::copy_from_slice(org.bytes())),
                ..draft(events)
            })
        }
        DomainSeen::Absent => {
            let event = match record::absence(known.expires_at, now) {
                _ if known.current == 0 => return None,
                Absence::Expired => Event::RecordExpired,
                Absence::Grace if known.withdrawn => return None,
                Absence::Grace => Event::RecordWithdrawn,
            };
            let mut events = Events::from(event);
            if known.was_secure && protection.dnssec != Dnssec::Secure {
                events.insert(Event::DnssecLost);
            }
            Some(draft(events))
        }
        DomainSeen::Bogus if known.version == 0 || known.bogus => None,
        DomainSeen::Bogus => {
            Some(DomainDraft { dnssec: Dnssec::Bogus, ..draft(Event::DnssecBogus.into()) })
        }
    }
}

/// SHA-256 of what the name that does not count says: of its records the POKs, for
/// those are what conflicts; of what claims to be a record and is none the text.
pub fn other_name(texts: &[Vec<u8>]) -> [u8; 32] {
    let claims = texts.iter().filter(|text| record::is_candidate(text));
    let said = claims.map(|text| match Record::parse(text) {
        Ok(record) => record.pok_set().into_iter().flatten().collect(),
        Err(_) => text.clone(),
    });
    let mut said: Vec<Vec<u8>> = said.collect();
    // Servers give them in any order.
    said.sort();
    let mut hash = Sha256::new();
    for said in &said {
        hash.update((said.len() as u64).to_be_bytes());
        hash.update(said);
    }
    hash.finalize().into()
}

/// The org signet to go by: the one served, else the known one if it still
/// verifies under the record. A copy cut to a lower level is no change.
fn org_in_force(
    known: &KnownDomain,
    record: &Record,
    served: Option<&ValidOrgSignet>,
) -> Option<Signet> {
    match (served, &known.org) {
        (Some(served), Some(known)) if is_copy(known, served.signet()) => Some(known.clone()),
        (Some(served), _) => Some(served.signet().clone()),
        (None, Some(known)) if org::validate(known, &record.poks, None).is_ok() => {
            Some(known.clone())
        }
        (None, _) => None,
    }
}

/// Whether `served` is `known` again, whole or cut to any level: what is known
/// keeps the highest that it was given (reference §6.9).
pub fn is_copy(known: &Signet, served: &Signet) -> bool {
    served.is_cut_of(known)
}

fn record_events(
    known: &KnownDomain,
    record: &Record,
    protection: &Protection,
    conflict: Option<[u8; 32]>,
    org: Option<&Signet>,
) -> Events {
    let mut events = Events::EMPTY;
    if conflict.is_some() && conflict != known.other {
        events.insert(Event::NameConflict);
    }
    if known.version == 0 {
        events.insert(Event::FirstSeen);
        return events;
    }
    let poks = record.pok_set();
    if poks.is_disjoint(&known.poks) {
        events.insert(Event::PokReplaced);
    } else {
        if !poks.is_subset(&known.poks) {
            events.insert(Event::PokAdded);
        }
        if !known.poks.is_subset(&poks) {
            events.insert(Event::PokRemoved);
        }
    }
    // A record that comes back is news even if it is the same one.
    if known.withdrawn || known.current == 0 || more_than_poks_changed(known, record) {
        events.insert(Event::RecordChanged);
    }
    let hash = |org: &Signet| -> [u8; 32] { Sha256::digest(org.bytes()).into() };
    if org.is_some_and(|org| known.org_sha256 != Some(hash(org))) {
        events.insert(Event::OrgSignetChanged);
    }
    match (known.dnssec, protection.evidenced()) {
        (Dnssec::Secure, Dnssec::Secure) => {}
        (_, Dnssec::Secure) => events.insert(Event::DnssecGained),
        // Signed, and only the proof could not be had: nobody lost anything.
        _ if protection.dnssec == Dnssec::Secure => {}
        // Without the denial too, or whoever keeps it from us is not found out; and
        // if the last entry had no proof, or that would take the alarm away.
        _ if known.was_secure => events.insert(Event::DnssecLost),
        // What was left open for want of a proof has one now; any entry says so.
        (Dnssec::Indeterminate, Dnssec::Insecure) if events.is_empty() => {
            events.insert(Event::RecordChanged);
        }
        _ => {}
    }
    events
}

/// Whether the texts differ in anything that a change of POKs does not explain.
fn more_than_poks_changed(known: &KnownDomain, record: &Record) -> bool {
    if known.record == record.text {
        return false;
    }
    let rest = |record: &Record| Record { poks: Vec::new(), text: Vec::new(), ..record.clone() };
    match Record::parse(&known.record) {
        Ok(old) => rest(&old) != rest(record) || old.pok_set() == record.pok_set(),
        Err(_) => true,
    }
}

/// What the mirror knew of a mailbox before the visit.
#[derive(Clone, Debug, Default)]
pub struct KnownUser {
    /// Version whose content is in force; 0: none is.
    pub current: u64,
    /// The current chain of custody, oldest first, tip last; empty: nothing is
    /// in force.
    pub chain: Vec<Signet>,
    /// The latest entry says that the mailbox is gone.
    pub withdrawn: bool,
    /// SHA-256 of the signet that the last visit was served, which may be a
    /// fork or an ancestor of the tip.
    pub last_served: Option<[u8; 32]>,
}

/// A valid signet of a mailbox, and where it was validated.
#[derive(Clone, Debug)]
pub struct Served {
    pub signet: ValidUserSignet,
    /// Version of the domain's entry with the org signet it verified under;
    /// `None`: the one in force when the draft gets its place.
    pub domain_version: Option<u64>,
}

/// The entries that a visit to a mailbox calls for, in order. `path` is the
/// chain as served, oldest first, its last the signet served now; it may begin
/// before, at or after what is known.
pub fn user(
    address: &Address,
    known: &KnownUser,
    path: &[Served],
    observed: Timestamp,
    hold: u64,
) -> Vec<UserDraft> {
    let drafts = findings(known, path).into_iter().map(|(event, served)| {
        let signet = served.signet.signet();
        let events = Events::from(event);
        UserDraft {
            address: address.clone(),
            signet: Some(Bytes::copy_from_slice(signet.bytes())),
            level: level(signet),
            signers: signers(&served.signet),
            crypto_sha256: signet.crypto_part().map(|part| Sha256::digest(part).into()),
            observed,
            domain_version: served.domain_version,
            events,
            hold: events.hold().then_some(hold),
            coalesced: None,
        }
    });
    drafts.collect()
}

/// The entry for a mailbox that the DX no longer has, if that is news.
pub fn user_gone(
    address: &Address,
    known: &KnownUser,
    observed: Timestamp,
    domain_version: Option<u64>,
) -> Option<UserDraft> {
    (!known.chain.is_empty() && !known.withdrawn).then(|| UserDraft {
        address: address.clone(),
        signet: None,
        level: None,
        signers: Vec::new(),
        crypto_sha256: None,
        observed,
        domain_version,
        events: Event::Withdrawn.into(),
        hold: None,
        coalesced: None,
    })
}

/// Each event with the signet it is about.
fn findings<'a>(known: &KnownUser, path: &'a [Served]) -> Vec<(Event, &'a Served)> {
    let Some(now_served) = path.last() else { return Vec::new() };
    let signet = now_served.signet.signet();
    if known.chain.last().is_some_and(|tip| is_copy(tip, signet)) {
        // Back after it was gone: the same key again, which is what REISSUED says.
        let returned = known.withdrawn.then_some((Event::Reissued, now_served));
        return returned.into_iter().collect();
    }
    let repeated = known.last_served == Some(Sha256::digest(signet.bytes()).into());
    let unless_repeated = |event| if repeated { vec![] } else { vec![(event, now_served)] };

    let (meets, rest) = after_known(&known.chain, path);
    let leaves_at =
        meets.filter(|&at| at + 1 < known.chain.len()).and_then(|at| known.chain.get(at));
    match (leaves_at, rest.first()) {
        (Some(_), None) => unless_repeated(Event::Reverted),
        // The ancestor has a child already: two children under one key.
        (Some(ancestor), Some(child))
            if chain::custody(ancestor, child.signet.signet()).is_ok() =>
        {
            unless_repeated(Event::Forked)
        }
        // Only the tip's own copy may have changed.
        (None, None) => walk(&known.chain, std::slice::from_ref(now_served), unless_repeated),
        _ => walk(&known.chain, rest, unless_repeated),
    }
}

/// Goes along the links that are new, each judged by the chain before it.
fn walk<'a>(
    known: &[Signet],
    path: &'a [Served],
    unless_repeated: impl Fn(Event) -> Vec<(Event, &'a Served)>,
) -> Vec<(Event, &'a Served)> {
    let mut chain = known.to_vec();
    let mut found = Vec::new();
    for (position, served) in path.iter().enumerate() {
        let event = match chain::link(&chain, &served.signet) {
            Link::Same => continue,
            Link::Revert if position + 1 < path.len() => continue,
            Link::Revert => {
                found.extend(unless_repeated(Event::Reverted));
                continue;
            }
            Link::Fork => {
                found.extend(unless_repeated(Event::Forked));
                return found;
            }
            Link::Anchor => Event::FirstSeen,
            Link::Extend => Event::Rotated,
            Link::Resign => Event::Resigned,
            Link::Reissue => Event::Reissued,
            Link::Gap => Event::Gap,
            Link::Restart => Event::Restarted,
        };
        match event {
            Event::Gap | Event::Restarted => chain.clear(),
            Event::Resigned | Event::Reissued => drop(chain.pop()),
            _ => {}
        }
        chain.push(served.signet.signet().clone());
        found.push((event, served));
    }
    found
}

/// Where the path last touches the known chain (a position in the chain), and
/// what comes after. Links are told apart by the user's own part, which stays
/// when the organization signs again.
fn after_known<'a>(chain: &[Signet], path: &'a [Served]) -> (Option<usize>, &'a [Served]) {
    for (position, served) in path.iter().enumerate().rev() {
        let part = served.signet.signet().part(Level::Ssr);
        let known = chain.iter().rposition(|link| part.is_some() && link.part(Level::Ssr) == part);
        if known.is_some() {
            return (known, path.get(position + 1..).unwrap_or_default());
        }
    }
    (None, path)
}

fn level(signet: &Signet) -> Option<entry::Level> {
    match signet.level() {
        Level::Crypto => Some(entry::Level::Crypto),
        Level::Full => Some(entry::Level::Full),
        Level::Id => Some(entry::Level::Id),
        Level::Incomplete | Level::Ssr => None,
    }
}

/// As in `log.proto`: 0 the POK, n the n-th SOK.
fn signers(signet: &ValidUserSignet) -> Vec<u32> {
    let number = |signer: &Signer| match signer {
        Signer::Pok => 0,
        Signer::Sok(position) => u32::try_from(position + 1).unwrap_or(u32::MAX),
    };
    signet.signers().iter().map(|(_, signer)| number(signer)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dime::Rejection;
    use crate::dime::key::{Owner, PrivateKey};
    use crate::dime::record::Template;
    use crate::dime::signet::Dialect;
    use crate::dime::signet::build::{self, Content, SignTo};
    use crate::dime::{ed25519, user as user_rules};

    const HOLD: u64 = 1000;

    fn name() -> Domain {
        "a.example".parse().unwrap()
    }

    fn mailbox() -> Address {
        "x@a.example".parse().unwrap()
    }

    fn key(owner: Owner, number: u8) -> PrivateKey {
        PrivateKey::from_secrets(owner, [number; 32], [number; 32]).unwrap()
    }

    fn pok(number: u8) -> Pok {
        ed25519::public_key(&[number; 32])
    }

    fn org(number: u8, note: &str) -> ValidOrgSignet {
        let contents = [Content::text(16, note)];
        let key = key(Owner::Org, number);
        let signet = build::org(&key, Dialect::L, &[], &contents, SignTo::Full).unwrap();
        org::validate(&signet, &[pok(number)], None).unwrap()
    }

    fn text(poks: &[u8], more: &str) -> Vec<u8> {
        let poks = poks.iter().map(|number| pok(*number)).collect();
        let text = Template { poks, ..Template::default() }.text();
        format!("{text}{more}").into_bytes()
    }

    fn record(poks: &[u8], more: &str) -> Record {
        Record::parse(&text(poks, more)).unwrap()
    }

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn secure() -> Protection {
        Protection { dnssec: Dnssec::Secure, chain: Some(Bytes::from_static(b"chain")) }
    }

    fn insecure() -> Protection {
        Protection { dnssec: Dnssec::Insecure, chain: Some(Bytes::from_static(b"chain")) }
    }

    /// POK 1, its org signet, secured, valid until 100.
    fn known() -> KnownDomain {
        let org = org(1, "note").signet().clone();
        KnownDomain {
            version: 3,
            current: 3,
            poks: [pok(1)].into(),
            dnssec: Dnssec::Secure,
            was_secure: true,
            record: text(&[1], ""),
            org_sha256: Some(Sha256::digest(org.bytes()).into()),
            org: Some(org),
            expires_at: at(100),
            ..KnownDomain::new()
        }
    }

    fn events(known: &KnownDomain, seen: &DomainSeen<'_>, how: &Protection) -> String {
        let draft = domain(&name(), known, seen, how, at(50), HOLD);
        let Some(draft) = draft else { return "-".to_owned() };
        assert_eq!(draft.hold.is_some(), draft.events.hold());
        draft.events.to_string()
    }

    /// Events for a record seen with the org signet of `org`'s key and note.
    fn seen(
        known: &KnownDomain,
        record: &Record,
        org: Option<&ValidOrgSignet>,
        how: &Protection,
    ) -> String {
        events(known, &DomainSeen::Record { record, conflict: None, other: &[], org }, how)
    }

    #[test]
    fn a_domain_is_judged_by_what_was_in_force() {
        let org1 = org(1, "note");
        let org2 = org(2, "note");
        let one = record(&[1], "");
        let new = KnownDomain::new();
        assert_eq!(seen(&new, &one, Some(&org1), &secure()), "FIRST_SEEN");
        assert_eq!(seen(&new, &one, None, &insecure()), "FIRST_SEEN");

        let known = known();
        assert_eq!(seen(&known, &one, Some(&org1), &secure()), "-");
        assert_eq!(seen(&known, &one, None, &secure()), "-");
        let table: &[(&[u8], &str, Option<&ValidOrgSignet>, &str)] = &[
            (&[1, 2], "", Some(&org1), "POK_ADDED"),
            (&[2], "", Some(&org2), "POK_REPLACED, ORG_SIGNET_CHANGED"),
            (&[2], "", None, "POK_REPLACED"),
            (&[1], " ttl=60", Some(&org1), "RECORD_CHANGED"),
            (&[1], " ", Some(&org1), "RECORD_CHANGED"),
            (&[1, 2], " ttl=60", Some(&org1), "POK_ADDED, RECORD_CHANGED"),
            (&[1, 2], "", Some(&org2), "POK_ADDED, ORG_SIGNET_CHANGED"),
            (&[1], "", Some(&org(1, "other")), "ORG_SIGNET_CHANGED"),
        ];
        for (poks, more, org, expected) in table {
            assert_eq!(seen(&known, &record(poks, more), *org, &secure()), *expected);
        }
        let two = KnownDomain {
            poks: [pok(1), pok(2)].into(),
            record: text(&[1, 2], ""),
            ..known.clone()
        };
        assert_eq!(seen(&two, &one, Some(&org1), &secure()), "POK_REMOVED");
        let three = record(&[2, 3], "");
        assert_eq!(
            seen(&two, &three, Some(&org2), &secure()),
            "POK_ADDED, POK_REMOVED, ORG_SIGNET_CHANGED"
        );
    }

    #[test]
    fn dnssec_is_judged_by_what_can_be_shown() {
        let one = record(&[1], "");
        let org = org(1, "note");
        let known = known();
        assert_eq!(seen(&known, &one, Some(&org), &insecure()), "DNSSEC_LOST");
        let unproved = Protection { dnssec: Dnssec::Secure, chain: None };
        assert_eq!(unproved.evidenced(), Dnssec::Indeterminate);
        // Signed, and the proof was not to be had: that is no event.
        assert_eq!(seen(&known, &one, Some(&org), &unproved), "-");
        // A denial that was not to be had is made up for, once.
        let undenied = Protection { dnssec: Dnssec::Insecure, chain: None };
        assert_eq!(seen(&known, &one, Some(&org), &undenied), "DNSSEC_LOST");
        // Nor is it forgotten while an entry stands that could not be proved.
        let unshown = KnownDomain { dnssec: Dnssec::Indeterminate, ..known.clone() };
        assert_eq!(seen(&unshown, &one, Some(&org), &unproved), "-");
        assert_eq!(seen(&unshown, &one, Some(&org), &secure()), "DNSSEC_GAINED");
        assert_eq!(seen(&unshown, &one, Some(&org), &undenied), "DNSSEC_LOST");
        assert_eq!(seen(&unshown, &one, Some(&org), &insecure()), "DNSSEC_LOST");
        let gone = events(&unshown, &DomainSeen::Absent, &insecure());
        assert_eq!(gone, "RECORD_WITHDRAWN, DNSSEC_LOST");
        let open = KnownDomain { was_secure: false, ..unshown };
        assert_eq!(seen(&open, &one, Some(&org), &undenied), "-");
        assert_eq!(seen(&open, &one, Some(&org), &insecure()), "RECORD_CHANGED");
        let unsigned = KnownDomain { dnssec: Dnssec::Insecure, was_secure: false, ..known };
        assert_eq!(seen(&unsigned, &one, Some(&org), &insecure()), "-");
        assert_eq!(seen(&unsigned, &one, Some(&org), &secure()), "DNSSEC_GAINED");
        assert_eq!(seen(&unsigned, &one, Some(&org), &unproved), "-");
    }

    #[test]
    fn a_record_that_goes_is_in_force_until_it_expires() {
        let known = known();
        assert_eq!(events(&KnownDomain::new(), &DomainSeen::Absent, &secure()), "-");
        assert_eq!(events(&known, &DomainSeen::Absent, &secure()), "RECORD_WITHDRAWN");
        let lost = events(&known, &DomainSeen::Absent, &insecure());
        assert_eq!(lost, "RECORD_WITHDRAWN, DNSSEC_LOST");
        let gone = KnownDomain { withdrawn: true, ..known };
        assert_eq!(events(&gone, &DomainSeen::Absent, &secure()), "-");
        let over = KnownDomain { expires_at: at(50), ..gone.clone() };
        assert_eq!(events(&over, &DomainSeen::Absent, &secure()), "RECORD_EXPIRED");
        let expired = KnownDomain { current: 0, ..over };
        assert_eq!(events(&expired, &DomainSeen::Absent, &secure()), "-");

        // It comes back: the same, or with other keys. Leaving is no way out of a hold.
        let org1 = org(1, "note");
        for known in [&gone, &expired] {
            assert_eq!(seen(known, &record(&[1], ""), Some(&org1), &secure()), "RECORD_CHANGED");
            let swapped = seen(known, &record(&[2], ""), None, &secure());
            assert_eq!(swapped, "POK_REPLACED, RECORD_CHANGED");
        }
    }

    #[test]
    fn bogus_and_conflict_are_told_once() {
        let known = known();
        let bogus = Protection { dnssec: Dnssec::Bogus, chain: None };
        assert_eq!(events(&KnownDomain::new(), &DomainSeen::Bogus, &bogus), "-");
        assert_eq!(events(&known, &DomainSeen::Bogus, &bogus), "DNSSEC_BOGUS");
        let still = KnownDomain { bogus: true, ..known.clone() };
        assert_eq!(events(&still, &DomainSeen::Bogus, &bogus), "-");

        let one = record(&[1], "");
        let says = other_name;
        let told = |known: &KnownDomain, other: &[Vec<u8>]| {
            let conflict = Some(says(other));
            let two_names = DomainSeen::Record { record: &one, conflict, other, org: None };
            events(known, &two_names, &secure())
        };
        let (second, third) = ([text(&[2], "")], [text(&[3], " dx=evil.example")]);
        assert_eq!(told(&known, &second), "NAME_CONFLICT");
        assert_eq!(told(&KnownDomain::new(), &second), "FIRST_SEEN, NAME_CONFLICT");
        let again = KnownDomain { other: Some(says(&second)), ..known.clone() };
        assert_eq!(told(&again, &second), "-");
        // Other keys there are another conflict; other words are none.
        assert_eq!(told(&again, &third), "NAME_CONFLICT");
        assert_eq!(told(&again, &[b"v=spf1".to_vec(), text(&[2], " ttl=60")]), "-");
        let both = [second[0].clone(), third[0].clone()];
        assert_eq!(says(&both), says(&[both[1].clone(), both[0].clone()]));
        assert_ne!(says(&both), says(&second));
        assert_ne!(says(&[b"pok=x".to_vec()]), says(&[b"pok=y".to_vec()]));

        // Breaking the name that counts does not hide what the other one says.
        let broken = [b"pok=x".to_vec()];
        let unusable = |known: &KnownDomain, how: &Protection| {
            let (texts, conflict) = (&broken[..], says(&second));
            let what = DomainSeen::Unusable { texts, conflict, other: &second };
            events(known, &what, how)
        };
        assert_eq!(unusable(&known, &insecure()), "DNSSEC_LOST, NAME_CONFLICT");
        let (dnssec, was_secure) = (Dnssec::Insecure, false);
        let open = KnownDomain { dnssec, was_secure, ..known.clone() };
        assert_eq!(unusable(&open, &insecure()), "NAME_CONFLICT");
        assert_eq!(unusable(&again, &insecure()), "-");
        let nobody = [b"pok=y".to_vec()];
        let (texts, conflict) = (&broken[..], says(&nobody));
        let keyless = DomainSeen::Unusable { texts, conflict, other: &nobody };
        assert_eq!(events(&known, &keyless, &insecure()), "-");
        assert_eq!(unusable(&KnownDomain::new(), &insecure()), "-");
        let expired = KnownDomain { current: 0, ..known.clone() };
        assert_eq!(unusable(&expired, &insecure()), "-");
        let what = DomainSeen::Unusable { texts: &broken, conflict: says(&second), other: &second };
        let draft = domain(&name(), &open, &what, &insecure(), at(50), HOLD).unwrap();
        assert_eq!(draft.record.as_deref(), Some(open.record.as_slice()));
        assert_eq!((draft.poks, draft.org_signet.is_some()), (vec![pok(1)], true));
    }

    #[test]
    fn a_draft_says_what_is_in_force() {
        let both = record(&[2, 1], "");
        let what = DomainSeen::Record { record: &both, conflict: None, other: &[], org: None };
        let draft = domain(&name(), &known(), &what, &secure(), at(50), HOLD).unwrap();
        assert_eq!(draft.poks.len(), 2);
        assert_eq!(draft.record.as_deref(), Some(both.text.as_slice()));
        // The DX could not be had, and the known org signet still verifies.
        assert_eq!(draft.org_signet.as_deref(), known().org.as_ref().map(Signet::bytes));
        let swapped = record(&[2], "");
        let what = DomainSeen::Record { record: &swapped, conflict: None, other: &[], org: None };
        let draft = domain(&name(), &known(), &what, &secure(), at(50), HOLD).unwrap();
        assert_eq!((draft.org_signet, draft.hold), (None, Some(HOLD)));
        let gone = domain(&name(), &known(), &DomainSeen::Absent, &secure(), at(50), HOLD).unwrap();
        assert_eq!((gone.poks.len(), gone.record, gone.dnssec), (0, None, Dnssec::Secure));
    }

    /// The signet of user key `number`, signed over by `previous`, at full
    /// level, with a text.
    fn link(number: u8, previous: Option<u8>, signer: u8, note: &str) -> Served {
        let previous = previous.map(|number| key(Owner::User, number));
        let request =
            build::request(&key(Owner::User, number), Dialect::L, previous.as_ref()).unwrap();
        let contents = [Content::text(16, note)];
        let signet = build::user(&request, &[signer; 32], &contents, SignTo::Full).unwrap();
        valid(&signet, signer).unwrap()
    }

    fn valid(signet: &Signet, signer: u8) -> Result<Served, Rejection> {
        let signet = user_rules::validate(signet, &org(signer, "note"), Some(&mailbox()))?;
        Ok(Served { signet, domain_version: Some(7) })
    }

    fn chain(links: &[&Served]) -> KnownUser {
        let chain = links.iter().map(|link| link.signet.signet().clone()).collect();
        KnownUser { current: 1, chain, ..KnownUser::default() }
    }

    fn told(known: &KnownUser, path: &[&Served]) -> Vec<String> {
        let path: Vec<Served> = path.iter().map(|served| (*served).clone()).collect();
        let drafts = user(&mailbox(), known, &path, at(9), HOLD);
        for draft in &drafts {
            assert_eq!(draft.hold.is_some(), draft.events.hold());
            assert_eq!((draft.level, draft.signers.len()), (Some(entry::Level::Full), 2));
            assert_eq!(draft.domain_version, Some(7));
        }
        drafts.iter().map(|draft| draft.events.to_string()).collect()
    }

    #[test]
    fn a_mailbox_is_judged_by_its_chain() {
        let a = link(11, None, 1, "");
        let b = link(12, Some(11), 1, "");
        let c = link(13, Some(12), 1, "");
        let stray = link(14, None, 1, "");
        let orphan = link(15, Some(99), 1, "");
        let fork = link(16, Some(11), 1, "");
        let fork_child = link(17, Some(16), 1, "");
        let resigned = link(12, Some(11), 2, "");
        let a_resigned = link(11, None, 2, "");
        let reissued = link(12, Some(11), 1, "new text");
        let after_stray = link(18, Some(14), 1, "");
        let none = KnownUser::default();
        let ab = chain(&[&a, &b]);
        let table: &[(&str, &KnownUser, &[&Served], &[&str])] = &[
            ("first contact", &none, &[&a], &["FIRST_SEEN"]),
            ("first contact in the middle", &none, &[&c], &["FIRST_SEEN"]),
            ("whole history", &none, &[&a, &b, &c], &["FIRST_SEEN", "ROTATED", "ROTATED"]),
            ("nothing new", &ab, &[&b], &[]),
            ("nothing new, with history", &ab, &[&a, &b], &[]),
            ("one link", &ab, &[&b, &c], &["ROTATED"]),
            ("one link, no history", &ab, &[&c], &["ROTATED"]),
            ("two links", &chain(&[&a]), &[&a, &b, &c], &["ROTATED", "ROTATED"]),
            ("two links, no history", &chain(&[&a]), &[&c], &["GAP"]),
            ("signed again", &ab, &[&resigned], &["RESIGNED"]),
            ("all signed again", &ab, &[&a_resigned, &resigned], &["RESIGNED"]),
            ("new text", &ab, &[&b, &reissued], &["REISSUED"]),
            ("another key", &ab, &[&stray], &["RESTARTED"]),
            ("another chain", &ab, &[&stray, &after_stray], &["RESTARTED", "ROTATED"]),
            ("custody by nobody", &ab, &[&orphan], &["GAP"]),
            ("second child", &ab, &[&fork], &["FORKED"]),
            ("second child, with history", &ab, &[&a, &fork], &["FORKED"]),
            ("a branch that grew", &ab, &[&a, &fork, &fork_child], &["FORKED"]),
            ("back to an ancestor", &ab, &[&a], &["REVERTED"]),
            ("a history cut short", &ab, &[&a, &stray], &["RESTARTED"]),
            ("nothing served", &ab, &[], &[]),
        ];
        for (what, known, path, expected) in table {
            assert_eq!(told(known, path), *expected, "{what}");
        }
    }

    #[test]
    fn forks_and_reversions_are_told_once() {
        let a = link(11, None, 1, "");
        let b = link(12, Some(11), 1, "");
        let fork = link(16, Some(11), 1, "");
        for astray in [&a, &fork] {
            let hash = Sha256::digest(astray.signet.signet().bytes()).into();
            let known = KnownUser { last_served: Some(hash), ..chain(&[&a, &b]) };
            assert_eq!(told(&known, &[astray]), [""; 0]);
            assert_eq!(told(&known, &[&b]), [""; 0]);
        }
    }

    #[test]
    fn a_copy_cut_to_a_lower_level_is_no_change() {
        let request = build::request(&key(Owner::User, 11), Dialect::L, None).unwrap();
        let whole = build::user(&request, &[1; 32], &[], SignTo::Id("x@a.example")).unwrap();
        let whole = valid(&whole, 1).unwrap();
        let cut_to = |level| {
            let cut = build::split(whole.signet.signet(), level).unwrap();
            valid(&cut, 1).unwrap()
        };
        let (cut, crypto) = (cut_to(Level::Full), cut_to(Level::Crypto));
        for served in [&cut, &crypto] {
            assert_eq!(told(&chain(&[&whole]), &[served]), [""; 0]);
        }
        assert_eq!(told(&chain(&[&cut]), &[&crypto]), [""; 0]);
        let path = [whole];
        let drafts = user(&mailbox(), &chain(&[&cut]), &path, at(9), HOLD);
        assert_eq!(drafts.len(), 1);
        assert_eq!(drafts[0].events.to_string(), "REISSUED");
        assert_eq!((drafts[0].level, drafts[0].signers.len()), (Some(entry::Level::Id), 3));
    }

    #[test]
    fn a_mailbox_goes_and_comes_back() {
        let a = link(11, None, 1, "");
        let known = chain(&[&a]);
        let gone = user_gone(&mailbox(), &known, at(9), Some(7)).unwrap();
        assert_eq!((gone.events.to_string().as_str(), gone.signet), ("WITHDRAWN", None));
        assert_eq!(user_gone(&mailbox(), &KnownUser::default(), at(9), None), None);
        let away = KnownUser { withdrawn: true, ..known };
        assert_eq!(user_gone(&mailbox(), &away, at(9), None), None);
        assert_eq!(told(&away, &[&a]), ["REISSUED"]);
        assert_eq!(told(&away, &[&link(12, None, 1, "")]), ["RESTARTED"]);
    }
}
