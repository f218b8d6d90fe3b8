//! Whether a domain's entry and the strangers' bytes that it names belong
//! together: what a mirror checks before it cosigns, and an auditor after.
//!
//! Left out: whether the entry fits the ones before it (`replay`), and getting
//! the bytes.

use super::dnssec::{self, Anchor};
use super::entry::{Blob, DomainObservation};
use crate::dime::record::Record;
use crate::dime::signet::Signet;
use crate::dime::{Dnssec, Domain, Rejection, Timestamp, org};

/// How long before its batch an observation may have been made, milliseconds:
/// a signature that ran out in between was still good when it was seen.
pub const SEQUENCING: u64 = 3_600_000;

/// Bytes behind an entry's hashes. Each is `None` where the entry names none,
/// or where its operator has withdrawn it: what rests on it is then not checked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bytes<'a> {
    pub record: Option<&'a [u8]>,
    pub org_signet: Option<&'a [u8]>,
    pub dnssec_chain: Option<&'a [u8]>,
}

/// The blobs that an entry names.
pub fn named(entry: &DomainObservation<'_>) -> impl Iterator<Item = Blob> {
    [entry.record, entry.org_signet, entry.dnssec_chain].into_iter().flatten()
}

/// Checks the bytes, whose hashes the caller has compared, against an entry of
/// this time: the record has just these POKs, one of them signed the org
/// signet, and the chain proves the status and the record's very text.
///
/// Rules: those of the record and the signet; `record-poks`, `dnssec-status`,
/// `dnssec-record`; and those of `dnssec::Prover`, of which `dnssec-anchor`
/// accuses nobody: it may be our root key that is old.
pub fn verify(
    entry: &DomainObservation<'_>,
    time: Timestamp,
    bytes: &Bytes<'_>,
    anchors: &[Anchor],
) -> Result<(), Rejection> {
    let name: Domain = entry.domain.parse()?;
    let poks = entry.poks.to_vec();
    if let Some(text) = bytes.record {
        let record = Record::parse(text)?;
        if !record.pok_set().iter().eq(poks.iter()) {
            return Err(Rejection::new("record-poks", "the record has other POKs than the entry"));
        }
    }
    if let Some(signet) = bytes.org_signet {
        org::validate(&Signet::decode(signet)?, &poks, Some(&name))?;
    }
    match bytes.dnssec_chain {
        Some(chain) if entry.dnssec != Dnssec::Bogus => {
            let text = (entry.record.is_none() || bytes.record.is_some()).then_some(bytes.record);
            check_chain(chain, &name, time, entry.dnssec, text, anchors)
        }
        _ => Ok(()),
    }
}

/// `text` is what a secure chain must prove; `None` if it is not at hand.
fn check_chain(
    chain: &[u8],
    name: &Domain,
    time: Timestamp,
    says: Dnssec,
    text: Option<Option<&[u8]>>,
    anchors: &[Anchor],
) -> Result<(), Rejection> {
    let observed = match dnssec::verify_observation(chain, name, anchors, time) {
        Err(late) if late.rule == "dnssec-late" => {
            let before = Timestamp::from_millis(time.millis().saturating_sub(SEQUENCING));
            dnssec::verify_observation(chain, name, anchors, before)?
        }
        other => other?,
    };
    if observed.dnssec != says {
        let message = format!("the chain proves {}, the entry says {says}", observed.dnssec);
        return Err(Rejection::new("dnssec-status", message));
    }
    match text {
        Some(text) if says == Dnssec::Secure && observed.record.as_deref() != text => {
            Err(Rejection::new("dnssec-record", "the chain proves another record, or none"))
        }
        _ => Ok(()),
    }
}
