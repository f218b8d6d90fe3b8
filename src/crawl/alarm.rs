//! The alarms of a draft as incidents: what was received, and what was in force
//! until then. Pure.

use std::slice;

use bytes::Bytes;

use super::incident::{Incident, IncidentKind};
use super::judge::{DomainSeen, KnownDomain};
use crate::dime::record::{Policy, Record};
use crate::dime::signet::Signet;
use crate::dime::{Rejection, Timestamp};
use crate::proof::draft::{DomainDraft, UserDraft};
use crate::proof::entry::Event;

/// Those of a domain's draft. `chain` is the DNSSEC chain as it holds now, which the
/// entry may not name; `unjudged` is what came in place of an answer that is bogus.
pub(super) fn of_domain(
    known: &KnownDomain,
    seen: &DomainSeen<'_>,
    draft: &DomainDraft,
    chain: &Bytes,
    unjudged: Bytes,
    at: Timestamp,
) -> Vec<Incident> {
    let before = match known.version {
        0 => Bytes::new(),
        _ => state(&known.record, known.org.as_ref().map(Signet::bytes)),
    };
    let bytes = match seen {
        DomainSeen::Record { record, .. } => state(&record.text, draft.org_signet.as_deref()),
        DomainSeen::Unusable { .. } => before.clone(),
        DomainSeen::Absent => Bytes::new(),
        DomainSeen::Bogus => unjudged,
    };
    let incident = |kind, why, bytes| Incident {
        before: before.clone(),
        chain: chain.clone(),
        ..Incident::new(kind, &draft.domain, None, why, bytes, at)
    };
    let alarms = draft.events.alarms();
    let mut incidents: Vec<Incident> = alarms
        .iter()
        .map(|event| {
            let bytes = match (event, seen) {
                (Event::NameConflict, DomainSeen::Record { record, other, .. }) => {
                    both(slice::from_ref(&record.text), other)
                }
                (Event::NameConflict, DomainSeen::Unusable { texts, other, .. }) => {
                    both(texts, other)
                }
                _ => bytes.clone(),
            };
            incident(IncidentKind::Alarm(event), words(event), bytes)
        })
        .collect();
    if let Some(words) = downgrade(known, seen) {
        let why = Rejection::new("pol", words);
        incidents.push(incident(IncidentKind::Downgrade, why, bytes));
    }
    incidents
}

/// How a domain that took DIME only takes other mail now. Leaving `strict` is the
/// step that counts: after it nothing is said when the record goes.
fn downgrade(known: &KnownDomain, seen: &DomainSeen<'_>) -> Option<&'static str> {
    let is_strict = |record: &Record| record.policy == Policy::Strict;
    if !Record::parse(&known.record).is_ok_and(|record| is_strict(&record)) {
        return None;
    }
    match seen {
        DomainSeen::Absent => Some("a domain that took DIME only has no record any more"),
        DomainSeen::Record { record, .. } if !is_strict(record) => {
            Some("a domain that took DIME only takes other mail now")
        }
        _ => None,
    }
}

/// Those of a mailbox's draft. `tip` is the signet in force until then, or
/// empty.
pub(super) fn of_user(draft: &UserDraft, tip: &Bytes) -> Vec<Incident> {
    let (domain, address) = (draft.address.domain(), &draft.address);
    let bytes = draft.signet.clone().unwrap_or_default();
    let alarms = draft.events.alarms();
    let incident = |event| Incident {
        before: tip.clone(),
        ..Incident::new(
            IncidentKind::Alarm(event),
            domain,
            Some(address),
            words(event),
            bytes.clone(),
            draft.observed,
        )
    };
    alarms.iter().map(incident).collect()
}

/// The texts of both names, LF between them.
fn both(texts: &[Vec<u8>], other: &[Vec<u8>]) -> Bytes {
    [texts, other].concat().join(&b'\n').into()
}

/// A domain's state as incidents keep it: the record's text, LF, the org signet.
fn state(text: &[u8], org_signet: Option<&[u8]>) -> Bytes {
    [text, b"\n", org_signet.unwrap_or_default()].concat().into()
}

/// An alarm in words, without a name in them.
fn words(event: Event) -> Rejection {
    let words = match event {
        Event::Restarted => "a signet without custody by the key before it",
        Event::Gap => "custody by a key that was never seen",
        Event::Forked => "a second signet under the custody of one key",
        Event::Reverted => "a signet that was rotated away from is served again",
        Event::Withdrawn => "the host has no signet of the mailbox any more",
        Event::PokReplaced => "no key of the record is one that was in force",
        Event::RecordWithdrawn => "the record is gone before it expired",
        Event::RecordExpired => "the record is gone, and its time is over",
        Event::DnssecLost => "what DNSSEC proved before it does not prove now",
        Event::DnssecBogus => "DNSSEC does not verify, on more than one path",
        Event::NameConflict => "two records of the domain name different keys",
        no_alarm => no_alarm.name(),
    };
    Rejection::new(event.name(), words)
}
