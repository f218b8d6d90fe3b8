//! The DNSSEC chain as evidence: the RRsets and signatures from the root down
//! to a record, or to the signed proof that there is none, or to the signed
//! proof that a delegation on the way has no DS record. Whoever holds the
//! root's key checks it offline, at any later time, for the time it was seen.
//!
//! After RFC 9102: a sequence of resource records in canonical wire form (RFC
//! 4034 §6.2) and nothing else. Each RRset, its records in canonical order and
//! none twice, is followed by exactly one RRSIG record over it. RRsets ascend
//! by owner (RFC 4034 §6.1, so that parents come before children), then type,
//! then signer. Class is IN, the TTL is the original one that was signed, names
//! are lower-case and not compressed. Only the types TXT, CNAME, DS, NSEC,
//! DNSKEY and NSEC3 occur, and every RRset is needed. So a fact and its
//! signatures have one encoding, and no byte can be changed unnoticed.
//!
//! Limits: [`MAX_CHAIN`] bytes, [`MAX_RECORDS`] records; and of work, since a
//! stranger chooses what we check: [`MAX_SIGNATURES`] signatures,
//! [`MAX_HASHES`] rounds of the NSEC3 hash.
//!
//! Left out: DNAME; SHA-1 in signatures and in DS records (a zone that has
//! nothing better is insecure, RFC 4035 §5.2); NSEC3 with more than
//! [`MAX_ITERATIONS`] iterations; revocation and rollover of the root's key
//! (RFC 5011). How the records are come by is the resolver's.

mod anchor;
mod denial;
mod prover;
mod wire;

use crate::dime::record::{self, Governing, Selection};
use crate::dime::{Dnssec, Domain, Rejection, Timestamp, suffix};

pub use anchor::{Anchor, iana};
pub use prover::{Lack, Prover};
pub use wire::{DnsName, RecordType, Set, Signature, decode, encode};

/// Longest chain, bytes.
pub const MAX_CHAIN: usize = 64 * 1024;
/// Most records in a chain, RRSIG records included.
pub const MAX_RECORDS: usize = 512;
/// Most CNAMEs that are followed from a name.
pub const MAX_CNAMES: usize = 8;
/// Most signatures that are checked in one verification.
pub const MAX_SIGNATURES: usize = 256;
/// Most iterations that an NSEC3 record may ask for (RFC 9276 §3.2).
pub const MAX_ITERATIONS: u16 = 150;
/// Most rounds of SHA-1 that are computed for NSEC3 in one verification.
pub const MAX_HASHES: usize = 40_000;

/// What a chain proves about the TXT records of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proved {
    /// These are the texts, each record's character-strings joined, in
    /// canonical order of the records.
    Records(Vec<Vec<u8>>),
    /// There is none.
    Denied(Absence),
    /// The name, or one that its CNAMEs lead to, lies at or below `cut`, which
    /// is delegated without a DS record of an algorithm that we know. Nothing
    /// below it can be proved.
    Insecure { cut: DnsName },
}

/// How a name has no TXT record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Absence {
    /// Nothing has the name.
    NoName,
    /// The name exists, without a TXT record.
    NoData,
}

/// What a chain proves about a domain's management record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// [`Dnssec::Secure`] or [`Dnssec::Insecure`], nothing else.
    pub dnssec: Dnssec,
    /// Text of the record in force, if secure and there is one. Of an insecure
    /// domain a chain does not show the record.
    pub record: Option<Vec<u8>>,
    /// All signatures hold from `since` through `until`, whole seconds.
    pub since: Timestamp,
    pub until: Timestamp,
}

/// Checks a chain about the TXT records of `name` (presentation form, A-labels,
/// with or without the trailing dot). All signatures must hold at `at` and lead
/// to one of `anchors`. Rules: see [`Prover`] and [`decode`]; `chain-unused` if
/// it holds more than is needed.
pub fn verify(
    chain: &[u8],
    name: &str,
    anchors: &[Anchor],
    at: Timestamp,
) -> Result<Proved, Rejection> {
    let name = DnsName::parse(name)?;
    let mut prover = Prover::over(decode(chain)?, anchors, at);
    let proved = prover.prove(&name).map_err(Lack::refuse)?;
    prover.all_used()?;
    Ok(proved)
}

/// Checks a chain about the management record that counts at `domain`, as
/// [`verify`] does: at `_dime` and, where that has none, at `_dx`.
///
/// A record above may decide (reference §1.7). So a chain may show what is at
/// the names above too, from the parent upwards without a gap; what counts is
/// decided by [`record::govern`] over the names that it shows, and none is shown
/// beyond the one whose record that is. That a record further up, of which the
/// chain says nothing, would decide otherwise is not excluded by it. The walk
/// needs no list of public suffixes, which changes; only a record above that
/// decides must lie within the registered domain, else `chain-suffix`.
///
/// With rule `chain-record` it refuses texts of which none is in force.
///
/// For a log entry: `dnssec` must be the entry's, and, if secure, `record` must
/// be the text that the entry names, or none.
pub fn verify_observation(
    chain: &[u8],
    domain: &Domain,
    anchors: &[Anchor],
    at: Timestamp,
) -> Result<Observed, Rejection> {
    let mut prover = Prover::over(decode(chain)?, anchors, at);
    let observed = observe(&mut prover, domain).map_err(Lack::refuse)?;
    prover.all_used()?;
    Ok(observed)
}

/// A chain about `domain` without what it does not need: whoever collected it had
/// more to choose from.
pub fn trimmed(
    chain: &[u8],
    domain: &Domain,
    anchors: &[Anchor],
    at: Timestamp,
) -> Result<Vec<u8>, Rejection> {
    let mut prover = Prover::over(decode(chain)?, anchors, at);
    observe(&mut prover, domain).map_err(Lack::refuse)?;
    prover.chain()
}

/// The walk of [`verify_observation`] over what a prover has; what it still
/// needs is the error. A collector needs all names up to the public-suffix
/// boundary.
pub fn observe(prover: &mut Prover<'_>, domain: &Domain) -> Result<Observed, Lack> {
    let Some(own) = shown_at(prover, domain)? else { return Ok(insecure(prover)) };
    let mut names = Vec::new();
    let mut above = Vec::new();
    // What served for the names up to each.
    let mut served = vec![prover.used()];
    let upwards = match prover.is_collecting() {
        true => suffix::ancestors(domain),
        false => std::iter::successors(domain.parent(), Domain::parent).collect(),
    };
    for name in upwards {
        match shown_at(prover, &name) {
            Ok(Some(selection)) => {
                names.push(name);
                above.push(selection);
                served.push(prover.used());
            }
            // An alias that leads out of what is signed.
            Ok(None) => return Ok(insecure(prover)),
            Err(lack) if prover.is_collecting() => return Err(lack),
            Err(_) => break,
        }
    }
    let selections: Vec<&Selection> = above.iter().collect();
    let decided = record::govern(&own, &selections);
    let shown = match decided {
        Governing::Own | Governing::Nothing => 0,
        Governing::Ancestor(number) => number + 1,
    };
    // What is further up is not part of the proof.
    prover.back_to(served.swap_remove(shown.min(served.len() - 1)));
    let governing = match decided {
        Governing::Own => &own,
        Governing::Nothing => &Selection::None,
        Governing::Ancestor(number) => {
            let within = suffix::ancestors(domain);
            if !names.get(number).is_some_and(|name| within.contains(name)) {
                let why = "the record above is another registrant's";
                return Err(Rejection::new("chain-suffix", why).into());
            }
            above.get(number).unwrap_or(&Selection::None)
        }
    };
    let record = match governing {
        Selection::None => None,
        Selection::One(found) => Some(found.text.clone()),
        Selection::Ambiguous(_) | Selection::Refused { .. } => {
            let why = "the texts at the name are not one usable record";
            return Err(Rejection::new("chain-record", why).into());
        }
    };
    let (since, until) = prover.window();
    Ok(Observed { dnssec: Dnssec::Secure, record, since, until })
}

/// What is proved to be at one domain; `None`: it is not signed.
fn shown_at(prover: &mut Prover<'_>, domain: &Domain) -> Result<Option<Selection>, Lack> {
    for label in ["_dime", "_dx"] {
        let name = DnsName::parse(&format!("{label}.{domain}")).map_err(Lack::Refused)?;
        match prover.prove(&name)? {
            Proved::Insecure { .. } => return Ok(None),
            Proved::Denied(_) => {}
            Proved::Records(texts) => match record::select(&texts) {
                Selection::None => {}
                found => return Ok(Some(found)),
            },
        }
    }
    Ok(Some(Selection::None))
}

fn insecure(prover: &Prover<'_>) -> Observed {
    let (since, until) = prover.window();
    Observed { dnssec: Dnssec::Insecure, record: None, since, until }
}
