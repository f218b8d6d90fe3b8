//! The public bytes behind a domain's entry: the record and its POKs, the org
//! signet under one of them, the DNSSEC chain at the entry's time (threat 15).
//! The rules are those of `proof::observation`.

use bytes::Bytes;

use crate::client::follow::{self, Fetched, LogSource};
use crate::dime::{Rejection, Timestamp};
use crate::proof::dnssec::Anchor;
use crate::proof::entry::{Blob, DomainObservation, Entry, Kind};
use crate::proof::observation;

/// A domain's entry, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub index: u64,
    pub entry: Bytes,
}

/// What was found behind an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// All is there, and true.
    True {
        /// A DNSSEC chain led to the root that is believed.
        chain: bool,
    },
    /// Some bytes are not served: asked for again.
    Unserved { what: &'static str },
    /// The operator withdrew some; the rest is true.
    Withdrawn,
    /// The chain leads to another DNS root than the one believed; the rest is true.
    OtherRoot,
    /// The bytes say something else than the entry.
    False {
        /// `record`, `org-signet` or `dnssec-chain`.
        part: &'static str,
        rule: &'static str,
        message: String,
        blobs: Vec<Bytes>,
    },
}

/// Fetches what an entry names, and compares.
pub async fn examine(
    source: &LogSource,
    claim: &Claim,
    anchors: &[Anchor],
) -> Result<Found, follow::Error> {
    let Ok(Entry { time, kind: Kind::Domain(said), .. }) = Entry::decode(&claim.entry) else {
        return Ok(Found::True { chain: false });
    };
    let mut fetched = Vec::new();
    let mut withdrawn = false;
    let named = [
        ("record", said.record),
        ("org-signet", said.org_signet),
        ("dnssec-chain", said.dnssec_chain),
    ];
    for (what, blob) in named {
        fetched.push(match blob {
            None => None,
            Some(blob) => match fetch(source, &blob).await? {
                Fetched::Here(bytes) => Some(bytes),
                Fetched::Withdrawn => {
                    withdrawn = true;
                    None
                }
                Fetched::Missing => return Ok(Found::Unserved { what }),
            },
        });
    }
    let [record, org_signet, chain] = &fetched[..] else {
        return Ok(Found::True { chain: false });
    };
    let told = check(&said, time, [record.as_ref(), org_signet.as_ref(), chain.as_ref()], anchors);
    Ok(match told {
        Err((_, Rejection { rule: "dnssec-anchor", .. })) => Found::OtherRoot,
        Err((part, Rejection { rule, message, .. })) => {
            let blobs = fetched.into_iter().flatten().collect();
            Found::False { part, rule, message, blobs }
        }
        Ok(()) if withdrawn => Found::Withdrawn,
        Ok(()) => Found::True { chain: chain.is_some() },
    })
}

/// Once more after a moment: a mirror's frontend may be a step behind.
async fn fetch(source: &LogSource, blob: &Blob) -> Result<Fetched, follow::Error> {
    match source.blob(blob).await? {
        Fetched::Missing => {
            tokio::time::sleep(AGAIN).await;
            source.blob(blob).await
        }
        found => Ok(found),
    }
}

const AGAIN: std::time::Duration = std::time::Duration::from_millis(250);

/// Compares an entry with its bytes, part by part; gives the part that is wrong,
/// and the rule of `proof::observation`.
fn check(
    said: &DomainObservation<'_>,
    time: Timestamp,
    [record, org_signet, chain]: [Option<&Bytes>; 3],
    anchors: &[Anchor],
) -> Result<(), (&'static str, Rejection)> {
    let verify = |part, record, org_signet, dnssec_chain| {
        let behind = observation::Bytes { record, org_signet, dnssec_chain };
        observation::verify(said, time, &behind, anchors).map_err(|refused| (part, refused))
    };
    let record = record.map(|bytes| &bytes[..]);
    verify("record", record, None, None)?;
    verify("org-signet", None, org_signet.map(|bytes| &bytes[..]), None)?;
    match verify("dnssec-chain", record, None, chain.map(|bytes| &bytes[..])) {
        // Texts that are not one record were no record to the log either.
        Err((_, refused)) if refused.rule == "chain-record" && said.record.is_none() => Ok(()),
        other => other,
    }
}
