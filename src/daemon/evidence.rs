//! What the crawl received becomes an incident that stands alone: with the
//! record, its DNSSEC chain and the org signet that the log has at that time.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::incidents::{Filed, Filing};
use crate::crawl::{self, IncidentKind, VANTAGE_POK};
use crate::dime::record::Record;
use crate::dime::signet::Signet;
use crate::dime::{Address, Domain, Name, Timestamp, org, user};
use crate::proof::entry::Entry;
use crate::proof::incident::{Incident, Kind, MAX_MESSAGE, MAX_RECEIVED, Received, Shown};
use crate::proof::{Hash, Label};
use crate::store::rows::{self, DomainRow, OrgRow, Place};
use crate::store::{self, Blobs, State, keys};

/// Files what the crawl reports.
pub struct FromCrawl {
    filed: Arc<Filed>,
    state: Arc<dyn State>,
    public: Blobs,
    /// Of this mirror's log.
    origin: String,
}

impl FromCrawl {
    pub fn new(
        filed: Arc<Filed>,
        state: Arc<dyn State>,
        public: Blobs,
        origin: String,
    ) -> FromCrawl {
        FromCrawl { filed, state, public, origin }
    }
}

#[async_trait]
impl crawl::Incidents for FromCrawl {
    async fn report(&self, seen: crawl::Incident) {
        let (domain, kind) = (seen.domain.clone(), seen.kind);
        let filed = async { self.filed.file(&self.standing_alone(seen).await?).await };
        match filed.await {
            // The operator was told; an alarm is in the log too.
            Ok(Filing::Over | Filing::TooLarge) => tracing::debug!(%domain, %kind, "not kept"),
            Ok(Filing::New(_) | Filing::Known) => {}
            Err(error) => tracing::error!(%domain, %kind, %error, "incident not kept"),
        }
    }
}

/// Older org signets that are tried for what was in force before an alarm, the
/// newest; one after the other is read.
const OLD_ORGS: usize = 64;

/// What the log has in force of a domain.
#[derive(Default)]
struct InForce {
    shown: Shown,
    /// Every org signet that was in force, the newest last.
    orgs: Vec<OrgRow>,
}

impl FromCrawl {
    async fn standing_alone(&self, seen: crawl::Incident) -> Result<Incident, store::Error> {
        let known = self.in_force(&seen.domain).await?;
        let kind = kind_of(seen.kind);
        let at = seen.at;
        let (rule, message) = (seen.why.rule.to_owned(), plain(&seen.why.message));
        let received = match &seen.address {
            Some(address) => self.of_mailbox(address, &seen, known).await?,
            None => of_domain(&seen, known),
        };
        let received = Received { rule, message, ..received };
        let name = match seen.address {
            Some(address) => Name::Address(address),
            None => Name::Domain(seen.domain),
        };
        Ok(Incident::received(kind, &self.origin, at, name, received))
    }

    async fn in_force(&self, domain: &Domain) -> Result<InForce, store::Error> {
        let key = domain.as_str().as_bytes();
        let Some(row) = rows::find::<DomainRow>(&*self.state, key).await? else {
            return Ok(InForce::default());
        };
        let shown = Shown {
            at: self.time_of(domain, row.current).await?,
            record: self.blob(row.record.map(|hash| hash.0)).await?.unwrap_or_default(),
            chain: self.blob(row.dnssec_chain.map(|hash| hash.0)).await?.unwrap_or_default(),
            org_signet: self.blob(row.org_signet.map(|hash| hash.0)).await?.unwrap_or_default(),
            signet: Bytes::new(),
        };
        Ok(InForce { shown, orgs: row.org_signets })
    }

    async fn of_mailbox(
        &self,
        address: &Address,
        seen: &crawl::Incident,
        known: InForce,
    ) -> Result<Received, store::Error> {
        let InForce { shown, orgs } = known;
        let bytes = bounded(&seen.bytes);
        let mut received = blank(shown);
        if seen.kind == IncidentKind::VantageDiffers {
            received.bytes = both(seen);
            return Ok(received);
        }
        if !matches!(seen.kind, IncidentKind::Alarm(_)) {
            received.bytes = bytes;
            return Ok(received);
        }
        received.now.signet = bytes;
        if !seen.bytes.is_empty() && !is_under(&seen.bytes, &received.now.org_signet, address) {
            // While its domain is over quota a signet may be valid under an org signet of
            // earlier, or under one that the log does not have.
            received.now.org_signet = self.older(&orgs, &seen.bytes, address).await?;
            if !is_of_record(&received.now, address.domain()) {
                (received.now.record, received.now.chain) = (Bytes::new(), Bytes::new());
            }
        }
        if !seen.before.is_empty() {
            let org_signet = match is_under(&seen.before, &received.now.org_signet, address) {
                true => Bytes::new(),
                false => self.older(&orgs, &seen.before, address).await?,
            };
            received.before = Some(Shown {
                signet: bounded(&seen.before),
                org_signet,
                at: received.now.at,
                ..Shown::default()
            });
        }
        Ok(received)
    }

    /// The newest org signet that a signet is valid under; empty: none is found.
    async fn older(
        &self,
        orgs: &[OrgRow],
        signet: &[u8],
        address: &Address,
    ) -> Result<Bytes, store::Error> {
        for org in orgs.iter().rev().take(OLD_ORGS) {
            if let Some(org) = self.blob(Some(org.signet.0)).await?
                && is_under(signet, &org, address)
            {
                return Ok(org);
            }
        }
        Ok(Bytes::new())
    }

    /// When the log entered a version.
    async fn time_of(&self, domain: &Domain, version: u64) -> Result<Timestamp, store::Error> {
        let key = rows::place_key(&Label::of_domain(domain).0, version);
        let place = rows::find::<Place>(&*self.state, &key).await?;
        let time = place.and_then(|place| Entry::decode(&place.entry).ok().map(|read| read.time));
        Ok(time.unwrap_or_default())
    }

    /// `None` for what was withdrawn too.
    async fn blob(&self, sha256: Option<Hash>) -> Result<Option<Bytes>, store::Error> {
        match sha256 {
            Some(sha256) => self.public.get(&keys::blob(&sha256), MAX_RECEIVED as u64).await,
            None => Ok(None),
        }
    }
}

/// Whether a signet is valid under an org signet, whoever made that.
fn is_under(signet: &[u8], org_signet: &[u8], address: &Address) -> bool {
    let valid = || {
        let org = Signet::decode(org_signet)?;
        let org = org::validate(&org, &[org.signing_key()], Some(address.domain()))?;
        user::validate(&Signet::decode(signet)?, &org, Some(address))
    };
    valid().is_ok()
}

/// Whether the record has the key of the org signet, if there is one.
fn is_of_record(shown: &Shown, domain: &Domain) -> bool {
    let valid = || {
        let record = Record::parse(&shown.record)?;
        org::validate(&Signet::decode(&shown.org_signet)?, &record.poks, Some(domain))
    };
    shown.org_signet.is_empty() || valid().is_ok()
}

fn of_domain(seen: &crawl::Incident, known: InForce) -> Received {
    let mut received = blank(Shown { at: seen.at, ..Shown::default() });
    match seen.kind {
        IncidentKind::VantageDiffers => {
            let usable = |text: &Bytes| text.is_empty() || Record::parse(text).is_ok();
            if seen.why.rule != VANTAGE_POK || !usable(&seen.bytes) || !usable(&seen.before) {
                received.bytes = both(seen);
                return received;
            }
            (received.now.record, received.now.chain) = (bounded(&seen.bytes), seen.chain.clone());
            let mut main = Shown { record: bounded(&seen.before), at: seen.at, ..Shown::default() };
            if seen.before == known.shown.record {
                (main.chain, main.at) = (known.shown.chain, known.shown.at);
            }
            received.before = Some(main);
        }
        IncidentKind::Alarm(_) | IncidentKind::Downgrade | IncidentKind::Coalesced => {
            received.now.chain = bounded(&seen.chain);
            if !seen.before.is_empty() {
                let (record, org_signet) = parted(&seen.before);
                let same = record == known.shown.record;
                // The chain is of its own time; without it, of this one.
                let (chain, at) = match same {
                    true => (known.shown.chain, known.shown.at),
                    false => (Bytes::new(), seen.at),
                };
                let signet = Bytes::new();
                received.before = Some(Shown { at, record, chain, org_signet, signet });
            }
            match kind_of(seen.kind) {
                Kind::DnssecBogus => received.bytes = bounded(&seen.bytes),
                Kind::NameConflict => {
                    let first = seen.bytes.split(|byte| *byte == b'\n').next();
                    // What is none is no record that was there.
                    let first = first.filter(|text| Record::parse(text).is_ok());
                    received.now.record = Bytes::copy_from_slice(first.unwrap_or_default());
                    received.bytes = bounded(&seen.bytes);
                }
                _ => (received.now.record, received.now.org_signet) = parted(&seen.bytes),
            }
        }
        _ => {
            received.bytes = bounded(&seen.bytes);
            received.now.record = bounded(&seen.record);
            if !seen.record.is_empty() && seen.record == known.shown.record {
                (received.now.chain, received.now.at) = (known.shown.chain, known.shown.at);
            }
        }
    }
    received
}

/// What the main vantage was shown, then what the other one was.
fn both(seen: &crawl::Incident) -> Bytes {
    bounded(&[&seen.before[..], &seen.bytes[..]].concat().into())
}

fn blank(now: Shown) -> Received {
    Received { rule: String::new(), message: String::new(), bytes: Bytes::new(), now, before: None }
}

/// A domain's state as the crawl keeps it: the record's text, LF, the org
/// signet. A stranger's text may have line feeds of its own.
fn parted(state: &Bytes) -> (Bytes, Bytes) {
    let ends = state.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at);
    for end in ends {
        let rest = state.slice(end + 1..);
        if rest.is_empty() || Signet::decode(&rest).is_ok() {
            return (state.slice(..end), rest);
        }
    }
    (state.clone(), Bytes::new())
}

fn bounded(bytes: &Bytes) -> Bytes {
    bytes.slice(..bytes.len().min(MAX_RECEIVED))
}

/// One line of bounded length.
fn plain(message: &str) -> String {
    let line: String = message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let end = line.floor_char_boundary(MAX_MESSAGE);
    line.get(..end).unwrap_or_default().to_owned()
}

fn kind_of(kind: IncidentKind) -> Kind {
    match kind {
        IncidentKind::RecordRefused => Kind::RecordRefused,
        IncidentKind::RecordAmbiguous => Kind::RecordAmbiguous,
        IncidentKind::CertificateMismatch => Kind::CertificateMismatch,
        IncidentKind::OrgSignetInvalid => Kind::OrgSignetInvalid,
        IncidentKind::SignetInvalid => Kind::SignetInvalid,
        IncidentKind::LinkInvalid => Kind::LinkInvalid,
        IncidentKind::Coalesced => Kind::Coalesced,
        IncidentKind::Downgrade => Kind::Downgrade,
        IncidentKind::VantageDiffers => Kind::VantageDiffers,
        // Only alarms are reported.
        IncidentKind::Alarm(event) => Kind::of_event(event).unwrap_or(Kind::Coalesced),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_with_line_feeds_is_parted_at_its_end() {
        let text = Bytes::from_static(b"ver=1 pok=x\nmore\n");
        assert_eq!(parted(&text), (Bytes::from_static(b"ver=1 pok=x\nmore"), Bytes::new()));
        let text = Bytes::from_static(b"ver=1");
        assert_eq!(parted(&text), (text.clone(), Bytes::new()));
        let text = Bytes::from_static(b"\n");
        assert_eq!(parted(&text), (Bytes::new(), Bytes::new()));
    }

    #[test]
    fn words_are_one_bounded_line() {
        assert_eq!(plain("a\nb"), "a b");
        assert_eq!(plain(&"\u{e4}".repeat(1000)).len(), MAX_MESSAGE);
    }
}
