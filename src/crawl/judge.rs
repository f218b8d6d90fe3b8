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
use crate::proof::entry::{self, DomainDraft, Event, Events, UserDraft};

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
    /// Text of the record last in force.
    pub record: Vec<u8>,
    /// The org signet last in force, if its bytes can still be had.
    pub org: Option<Signet>,
    /// SHA-256 of its bytes, as logged.
    pub org_sha256: Option<[u8; 32]>,
    /// The latest entry says that the record is gone.
    pub withdrawn: bool,
    /// End of the running validity period.
    pub expires_at: Timestamp,
    /// The last visit found a bogus answer.
    pub bogus: bool,
    /// The last visit found two records that differ.
    pub conflict: bool,
}

impl KnownDomain {
    /// A domain that has no entry yet.
    pub fn new() -> KnownDomain {
        KnownDomain {
            version: 0,
            current: 0,
            poks: BTreeSet::new(),
            dnssec: Dnssec::Indeterminate,
            record: Vec::new(),
            org: None,
            org_sha256: None,
            withdrawn: false,
            expires_at: Timestamp::default(),
            bogus: false,
            conflict: false,
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
        /// The other name has a record with other POKs.
        conflict: bool,
        /// The org signet that the DX served; `None` if it could not be had,
        /// or was refused.
        org: Option<&'a ValidOrgSignet>,
    },
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
        DomainSeen::Record { record, conflict, org } => {
            let org = org_in_force(known, record, *org);
            let events = record_events(known, record, dnssec, *conflict, org.as_ref());
            (!events.is_empty()).then(|| DomainDraft {
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
            if known.dnssec == Dnssec::Secure && dnssec != Dnssec::Secure {
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

/// Whether `served` is `known` again, whole or cut to the level that DMTP
/// serves (reference §6.9).
pub fn is_copy(known: &Signet, served: &Signet) -> bool {
    known.bytes() == served.bytes() || *known.full_split() == *served.bytes()
}

fn record_events(
    known: &KnownDomain,
    record: &Record,
    dnssec: Dnssec,
    conflict: bool,
    org: Option<&Signet>,
) -> Events {
    let mut events = Events::EMPTY;
    if conflict && !known.conflict {
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
    match (known.dnssec, dnssec) {
        (Dnssec::Secure, Dnssec::Secure) => {}
        (_, Dnssec::Secure) => events.insert(Event::DnssecGained),
        (Dnssec::Secure, _) => events.insert(Event::DnssecLost),
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
