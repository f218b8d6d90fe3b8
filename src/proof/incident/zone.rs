//! What a DNSSEC chain proves of a record, and which zone answers for it.

use super::verify::Case;
use crate::dime::{Dnssec, Domain, Name, Rejection, Timestamp};
use crate::proof::dnssec::{self, DnsName, Observed, RecordType, Set};

pub(super) fn proving_sets(
    case: &Case<'_>,
    chain: &[u8],
    domain: &Domain,
    at: Timestamp,
    text: &[u8],
) -> Option<Vec<Set>> {
    let observed = prove(case, chain, domain, at).ok()?;
    let same = observed.dnssec == Dnssec::Secure && observed.record.as_deref() == Some(text);
    dnssec::decode(chain).ok().filter(|_| same)
}

pub(super) fn prove(
    case: &Case<'_>,
    chain: &[u8],
    domain: &Domain,
    at: Timestamp,
) -> Result<Observed, Rejection> {
    if case.anchors.is_empty() {
        return Err(Rejection::new("dnssec-anchor", "no key of the DNS root was given"));
    }
    dnssec::verify_observation(chain, domain, case.anchors, at)
}

/// The zone closest to the root that signed two different things: a parent that
/// gave a zone other keys, else the zone itself.
pub(super) fn parting_zone(one: &[Set], other: &[Set]) -> String {
    let keys = |sets: &[Set]| -> Vec<(DnsName, Vec<Vec<u8>>, DnsName)> {
        let found = sets.iter().filter(|set| set.kind == RecordType::DS);
        found
            .map(|set| (set.owner.clone(), set.data.clone(), set.signature.signer.clone()))
            .collect()
    };
    let (one_keys, other_keys) = (keys(one), keys(other));
    let parted = one_keys.iter().filter(|(owner, data, _)| {
        other_keys.iter().any(|(same, others, _)| same == owner && others != data)
    });
    let parent = parted.min_by_key(|(owner, ..)| owner.label_count());
    match parent {
        Some((_, _, signer)) => signer.to_string(),
        None => deepest_zone(one),
    }
}

/// The zone that signed the answer itself.
pub(super) fn deepest_zone(sets: &[Set]) -> String {
    let signers = sets.iter().map(|set| &set.signature.signer);
    let deepest = signers.max_by_key(|signer| signer.label_count());
    deepest.map_or_else(|| ".".to_owned(), ToString::to_string)
}

/// What a chain that holds proves.
pub(super) fn window(name: &Name, observed: &Observed) -> String {
    let what = match (observed.dnssec, &observed.record) {
        (Dnssec::Secure, Some(_)) => "signed this record",
        (Dnssec::Secure, None) => "signed that there is no record",
        _ => "signed that the zone is not protected by DNSSEC",
    };
    format!(
        "DNS {what} of {}: the signatures lead to the root's key and hold from {} to {}.",
        name.domain(),
        observed.since,
        observed.until
    )
}
