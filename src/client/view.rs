//! One's own look at a name, the same way as a mail program goes: the
//! management record by DNS, the DX that it leads to, org signet and signet,
//! each validated. What is seen is kept as received, for it may be evidence.
//!
//! Left out: what the logs say of it.

use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::clock::Clock;
use crate::dime::org::{self, ValidOrgSignet};
use crate::dime::record::{Record, Selection};
use crate::dime::signet::Signet;
use crate::dime::user::{self, ValidUserSignet};
use crate::dime::{Address, Dnssec, Domain, Name, Rejection, Timestamp, chain};
use crate::dmtp;
use crate::dmtp::client::{self as dmtp_client, Session};
use crate::dmtp::reach::{self, Ports, Route, Unreached};
use crate::proof::relation::{Keys, Sight, Sights};
use crate::resolver::{self, Resolver};

/// Links of a chain of custody that are looked at.
const MAX_LINKS: usize = 256;

/// Where one looks from.
#[derive(Clone)]
pub struct Eyes {
    pub resolver: Arc<dyn Resolver>,
    pub dmtp: dmtp::Options,
    pub ports: Ports,
    pub clock: Clock,
}

/// What DNS and the DX show here. Empty where nothing was seen.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// When DNS was asked.
    pub at: Timestamp,
    /// How DNS protects the record.
    pub dnssec: Option<Dnssec>,
    pub record: Option<Record>,
    /// Proves, offline, what DNS said.
    pub chain: Option<Bytes>,
    /// Valid under the record.
    pub org: Option<ValidOrgSignet>,
    /// For a mailbox: valid under the org signet.
    pub user: Option<ValidUserSignet>,
    /// What was seen with keys: for a mailbox the signets that lead to this one,
    /// each signed over by the one before, for a domain its one state.
    pub sights: Sights,
}

/// Why there is no key to compare.
#[derive(Debug, thiserror::Error)]
pub enum Lack {
    #[error("DNSSEC does not verify: what DNS says of this domain is forged, or its zone broken")]
    Bogus,
    #[error("DNS gives no answer: {0}")]
    Dns(resolver::Error),
    #[error("DNS has no management record of this domain ({0})")]
    NoRecord(Dnssec),
    #[error("the management record breaks a rule: {0}")]
    RecordRefused(Rejection),
    #[error("several texts in DNS claim to be the management record")]
    RecordAmbiguous,
    #[error("no mail host could be talked to: {0}")]
    Unreached(Unreached),
    #[error("the mail host does not answer for it: {0}")]
    Dx(dmtp_client::Error),
    #[error("the mail host does not have it")]
    NotServed,
    #[error("the organization's signet does not hold: {0}")]
    OrgSignet(Rejection),
    #[error("the signet does not hold: {0}")]
    Signet(Rejection),
}

impl View {
    /// The signet that was asked for.
    pub fn signet(&self, name: &Name) -> Option<&Signet> {
        match name {
            Name::Domain(_) => self.org.as_ref().map(ValidOrgSignet::signet),
            Name::Address(_) => self.user.as_ref().map(ValidUserSignet::signet),
        }
    }
}

impl Eyes {
    /// Looks at a name; as far as it got, and why no further.
    pub async fn look(&self, name: &Name) -> (View, Option<Lack>) {
        let mut view = View { at: self.clock.now(), ..View::default() };
        let lack = self.fill(name, &mut view).await.err();
        (view, lack)
    }

    async fn fill(&self, name: &Name, view: &mut View) -> Result<(), Lack> {
        let domain = name.domain();
        let found = resolver::record::find(&*self.resolver, domain).await;
        let found = found.map_err(|error| match error {
            resolver::Error::Bogus { .. } => Lack::Bogus,
            error => Lack::Dns(error),
        })?;
        view.dnssec = Some(found.dnssec);
        let record = match found.selection {
            Selection::One(record) => record,
            Selection::None => return Err(Lack::NoRecord(found.dnssec)),
            Selection::Refused { why, .. } => return Err(Lack::RecordRefused(why)),
            Selection::Ambiguous(_) => return Err(Lack::RecordAmbiguous),
        };
        let record = &*view.record.insert(record);
        let proved = self.chain(domain, record, found.dnssec, view.at);
        let seen = self.signets(name, record, found.dnssec);
        let (chain, seen) = tokio::join!(proved, seen);
        view.chain = chain;
        let Seen { org, user, links } = seen?;
        view.sights = match (&org, name) {
            (Some(org), Name::Domain(_)) => sights([state(record, org)], view.at),
            _ => sights(links, view.at),
        };
        let lack = match (&org, &user, name) {
            (None, _, Name::Domain(_)) | (_, None, Name::Address(_)) => Some(Lack::NotServed),
            _ => None,
        };
        (view.org, view.user) = (org, user);
        lack.map_or(Ok(()), Err)
    }

    /// The chain, if it can be had and says the same as the answer did.
    async fn chain(
        &self,
        domain: &Domain,
        record: &Record,
        dnssec: Dnssec,
        at: Timestamp,
    ) -> Option<Bytes> {
        let evidence = self.resolver.evidence(domain, at).await.ok()??;
        let observed = &evidence.observed;
        // What an insecure domain says is in no chain.
        let same = dnssec == Dnssec::Insecure
            || observed.record.as_deref() == Some(record.text.as_slice());
        (observed.dnssec == dnssec && same).then_some(evidence.chain)
    }

    async fn signets(&self, name: &Name, record: &Record, dnssec: Dnssec) -> Result<Seen, Lack> {
        let domain = name.domain();
        let route = Route { domain, record, dnssec };
        let (resolver, clock) = (&*self.resolver, &self.clock);
        let reached =
            reach::reach(resolver, route, &self.ports, &self.dmtp, clock, &mut Vec::new()).await;
        let (mut session, _) = reached.map_err(Lack::Unreached)?;
        let seen = self.ask(&mut session, name, record).await;
        session.quit().await;
        seen
    }

    async fn ask(&self, session: &mut Session, name: &Name, record: &Record) -> Result<Seen, Lack> {
        let domain = name.domain();
        let Some(org) = self.fetch(session, &Name::Domain(domain.clone())).await? else {
            return Ok(Seen::default());
        };
        let org = org.and_then(|signet| org::validate(&signet, &record.poks, Some(domain)));
        let org = org.map_err(Lack::OrgSignet)?;
        let mut seen = Seen::default();
        if let Name::Address(address) = name
            && let Some(signet) = self.fetch(session, name).await?
        {
            let valid = signet.and_then(|signet| user::validate(&signet, &org, Some(address)));
            let valid = valid.map_err(Lack::Signet)?;
            seen.links = self.links(session, address, valid.signet()).await;
            seen.user = Some(valid);
        }
        seen.org = Some(org);
        Ok(seen)
    }

    /// The signet of a name, decoded if it can be; `None`: there is none.
    async fn fetch(
        &self,
        session: &mut Session,
        name: &Name,
    ) -> Result<Option<Result<Signet, Rejection>>, Lack> {
        match session.signet(name, None).await {
            Ok(bytes) => Ok(Some(Signet::decode_with_limit(&bytes, self.dmtp.object))),
            Err(dmtp_client::Error::NotFound) => Ok(None),
            Err(error) => Err(Lack::Dx(error)),
        }
    }

    /// The keys that lead to this signet, oldest first, each signed over by the
    /// one before. A host may tell any history; only signatures make one.
    async fn links(&self, session: &mut Session, address: &Address, tip: &Signet) -> Vec<Keys> {
        let told = session.history(address, None, None).await.unwrap_or_default();
        let told = told.iter().rev().take(MAX_LINKS);
        let told = told.map_while(|bytes| Signet::decode_with_limit(bytes, self.dmtp.object).ok());
        let mut links = vec![Keys::of_mailbox(tip)];
        let mut next = tip.clone();
        for link in told.filter(|link| link.bytes() != tip.bytes()) {
            if chain::custody(&link, &next).is_err() {
                break;
            }
            links.push(Keys::of_mailbox(&link));
            next = link;
        }
        links.reverse();
        links
    }
}

#[derive(Default)]
struct Seen {
    org: Option<ValidOrgSignet>,
    user: Option<ValidUserSignet>,
    links: Vec<Keys>,
}

/// What a log's entry about this record and org signet would be compared by.
fn state(record: &Record, org: &ValidOrgSignet) -> Keys {
    let poks = record.pok_set().iter().fold(Sha256::new(), |hash, pok| hash.chain_update(pok));
    let org_signet = Sha256::digest(org.signet().bytes()).into();
    Keys::Domain { poks: poks.finalize().into(), org_signet: Some(org_signet) }
}

/// All seen now, the last one in force.
fn sights(keys: impl IntoIterator<Item = Keys>, at: Timestamp) -> Sights {
    let numbered = (1..).zip(keys);
    let list: Vec<Sight> =
        numbered.map(|(version, keys)| Sight { version, seen: at, keys }).collect();
    let current = list.len() as u64;
    Sights::new(list, current, at, at, true)
}
