//! What is known of names, from rows and objects.

use super::{Visitor, sha256};
use crate::crawl::Error;
use crate::crawl::judge::{KnownDomain, KnownUser};
use crate::dime::org::{self, ValidOrgSignet};
use crate::dime::record::{self, Record};
use crate::dime::signet::Signet;
use crate::dime::{Address, Dnssec, Domain, Name, Timestamp};
use crate::proof::entry::Event;
use crate::store::rows::{self, DomainRow, Hash, LinkRow, OrgRow, SeenRow, UserRow};
use crate::store::state::{Batch, Table};
use crate::store::{self, Applied, keys};

/// How often a write is tried while the log's rows change under it.
const TRIES: u32 = 4;

/// Links before a mailbox's tip that a visit judges by, at most, bytes; and org
/// signets of a domain that were in force before. Two thousand ordinary ones: where
/// they are so large that fewer fit, the newest count.
pub(super) const OLD_BYTES: usize = 4 << 20;

impl Visitor {
    pub(super) async fn row(&self, domain: &str) -> Result<Option<DomainRow>, store::Error> {
        rows::find(&*self.rooms.state, domain.as_bytes()).await
    }

    pub(super) async fn user_row(
        &self,
        address: &Address,
    ) -> Result<Option<UserRow>, store::Error> {
        rows::find(&*self.rooms.state, &rows::user_key(address)).await
    }

    /// The name's row, or a new one.
    pub(super) async fn seen(&self, name: &Name) -> Result<SeenRow, store::Error> {
        let row = rows::find(&*self.rooms.state, name.as_str().as_bytes()).await?;
        Ok(row.unwrap_or_else(|| unseen(name)))
    }

    /// Whether the log has a mailbox; if that cannot be said, it has.
    pub(in crate::crawl) async fn is_logged(&self, address: &Address) -> bool {
        self.user_row(address).await.map_or(true, |row| row.is_some())
    }

    /// Without mailboxes that were forgotten since they were seen.
    pub(in crate::crawl) async fn still_known(&self, seen: Vec<SeenRow>) -> Vec<SeenRow> {
        let mut known = Vec::with_capacity(seen.len());
        for row in seen {
            let is_known = match row.name.address() {
                Some(address) => self.is_logged(address).await,
                None => true,
            };
            if is_known {
                known.push(row);
            }
        }
        known
    }

    /// Whether a mailbox was forgotten. One that has a row was not, or is back.
    pub(in crate::crawl) async fn is_forgotten(&self, address: &Address) -> Result<bool, Error> {
        let failed = |source| Error::Known { domain: address.domain().clone(), source };
        if self.user_row(address).await.map_err(failed)?.is_some() {
            return Ok(false);
        }
        let failed = |source| Error::Log { domain: address.domain().clone(), source };
        self.rooms.sink.is_forgotten(address).await.map_err(failed)
    }

    /// Writes when names were seen: mailboxes only if what the log has of them is
    /// then as it is now. Of one that is forgotten meanwhile nothing is written,
    /// however late the write comes. What could not be written is seen again.
    pub(super) async fn remember(&self, seen: &[SeenRow]) -> Result<(), store::Error> {
        let state = &*self.rooms.state;
        for _ in 0..TRIES {
            let mut batch = Batch::new();
            for row in seen {
                if let Some(address) = row.name.address() {
                    let key = rows::user_key(address);
                    let logged = state.get(Table::Users, &key).await?;
                    let is_forgotten = async || self.rooms.sink.is_forgotten(address).await;
                    if logged.is_none() && is_forgotten().await.unwrap_or(true) {
                        continue;
                    }
                    batch.expect(Table::Users, key, logged);
                }
                batch.row(row);
            }
            if batch.is_empty() || state.apply(batch).await? == Applied::Applied {
                break;
            }
        }
        Ok(())
    }

    /// `served` is the record's text if there is one now. If it is the known one,
    /// the known org signet is left to [`Visitor::with_org`]: as a rule nothing
    /// has changed, and then no object need be read.
    pub(super) async fn known_domain(
        &self,
        row: Option<&DomainRow>,
        seen: &SeenRow,
        served: Option<&[u8]>,
    ) -> Result<KnownDomain, store::Error> {
        let Some(row) = row else { return Ok(KnownDomain::new()) };
        let public = &self.rooms.public;
        // A blob that was withdrawn leaves no text, and any text differs from it.
        let same = served.filter(|text| row.record == Some(sha256(text)));
        let text = match (&row.record, same) {
            (Some(_), Some(text)) => text.to_vec(),
            (Some(hash), None) => {
                let text = public.get(&keys::blob(&hash.0), record::MAX_RECORD as u64).await?;
                text.map(Vec::from).unwrap_or_default()
            }
            (None, _) => Vec::new(),
        };
        let org = match &row.org_signet {
            Some(hash) if same.is_none() => self.org_blob(hash).await?,
            _ => None,
        };
        let last = |event: Event| row.events.contains(&event.number());
        // Without a row of what was seen last, the latest entry says it.
        let fresh = seen.attempted_at == Timestamp::default();
        let expires_at = match seen.validity {
            Some((_, end)) => Timestamp::from_millis(end),
            None => {
                let days = Record::parse(&text).map_or(0, |record| record.expiry_days);
                record::expires_at(None, row.logged_at, days)
            }
        };
        Ok(KnownDomain {
            version: row.version,
            current: row.current,
            poks: row.poks.iter().map(|pok| pok.0).collect(),
            dnssec: row.dnssec,
            was_secure: row.was_secure || row.dnssec == Dnssec::Secure,
            record: text,
            org,
            org_sha256: row.org_signet.map(|hash| hash.0),
            withdrawn: row.withdrawn,
            expires_at,
            bogus: seen.bogus || fresh && last(Event::DnssecBogus),
            other: seen.other.map(|hash| hash.0),
        })
    }

    /// The same with the known org signet, which may be the one that is served.
    pub(super) async fn with_org(
        &self,
        known: &KnownDomain,
        served: Option<&ValidOrgSignet>,
    ) -> Result<KnownDomain, store::Error> {
        let mut known = known.clone();
        if let (None, Some(hash)) = (&known.org, known.org_sha256.map(Hash)) {
            let served = served.map(ValidOrgSignet::signet);
            known.org = match served.filter(|org| sha256(org.bytes()) == hash) {
                Some(org) => Some(org.clone()),
                None => self.org_blob(&hash).await?,
            };
        }
        Ok(known)
    }

    /// What is known, with the tip alone of the chain: as a rule that is served
    /// again, and what is before it need not be read. See [`Visitor::with_links`].
    pub(super) async fn known_user(
        &self,
        row: Option<&UserRow>,
        seen: &SeenRow,
    ) -> Result<KnownUser, store::Error> {
        let Some(row) = row else { return Ok(KnownUser::default()) };
        let tip = match row.chain.last() {
            Some(tip) => self.link(tip).await?,
            None => None,
        };
        Ok(KnownUser {
            current: row.current,
            chain: tip.into_iter().collect(),
            withdrawn: row.withdrawn,
            last_served: seen.last_served.map(|hash| hash.0),
        })
    }

    /// The same with the links before the tip, as many as [`OLD_BYTES`] hold. A
    /// link whose bytes are gone cuts off what is before it.
    pub(super) async fn with_links(
        &self,
        known: &KnownUser,
        row: Option<&UserRow>,
    ) -> Result<KnownUser, store::Error> {
        let mut known = known.clone();
        let links = row.map(|row| row.chain.as_slice()).unwrap_or_default();
        let mut size = 0;
        if !known.chain.is_empty() {
            for link in links.iter().rev().skip(1) {
                let Some(signet) = self.link(link).await? else { break };
                size += signet.bytes().len();
                if size > OLD_BYTES {
                    break;
                }
                known.chain.push(signet);
            }
            // The tip, which came first, is last again.
            known.chain.reverse();
        }
        Ok(known)
    }

    async fn link(&self, link: &LinkRow) -> Result<Option<Signet>, store::Error> {
        let bytes = self.rooms.state.get(Table::Signets, &link.signet.0).await?;
        Ok(bytes.as_deref().and_then(|bytes| self.decode(bytes)))
    }

    /// An old org signet, if it can still be had. It verified when it was logged,
    /// under the POK in its own first field.
    pub(super) async fn old_org(
        &self,
        domain: &Domain,
        old: &OrgRow,
    ) -> Result<Option<ValidOrgSignet>, Error> {
        let signet = self.org_blob(&old.signet).await;
        let signet = signet.map_err(|source| Error::Known { domain: domain.clone(), source })?;
        let valid =
            |signet: Signet| org::validate(&signet, &[signet.signing_key()], Some(domain)).ok();
        Ok(signet.and_then(valid))
    }

    async fn org_blob(&self, sha256: &Hash) -> Result<Option<Signet>, store::Error> {
        let limit = self.options.dmtp.object as u64;
        let bytes = self.rooms.public.get(&keys::blob(&sha256.0), limit).await?;
        Ok(bytes.and_then(|bytes| self.decode(&bytes)))
    }

    fn decode(&self, bytes: &[u8]) -> Option<Signet> {
        Signet::decode_with_limit(bytes, self.options.dmtp.object).ok()
    }
}

/// The row of a name that was never seen.
pub(super) fn unseen(name: &Name) -> SeenRow {
    SeenRow {
        name: name.clone(),
        version: 0,
        confirmed_at: Timestamp::default(),
        attempted_at: Timestamp::default(),
        validity: None,
        last_served: None,
        bogus: false,
        other: None,
        outcome: String::new(),
    }
}
