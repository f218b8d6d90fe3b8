//! Walks the rows beside the visits, once after each start, and looks for names
//! that would not have their turn: of the log and without a row, or with a row
//! that says when and is not in the order of turns. It counts the domains, and
//! knows again which mailboxes are watched for peers only.
//!
//! It takes its time: a page, then a pause of some times what that took.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::handle::Expiring;
use super::roster::Found;
use crate::clock::Clock;
use crate::dime::{Domain, Name, Timestamp};
use crate::store::rows::{self, FrontierRow, Typed as _, UserRow};
use crate::store::state::{MAX_SCAN, Range, Table};
use crate::store::{Error, State};

/// Rows of a page.
const PAGE: usize = 500;
/// A pause is so many times as long as the page before it took.
const REST: u32 = 4;
/// After a failed read: doubles up to a minute.
const BACK_OFF: Duration = Duration::from_secs(1);
const BACK_OFF_LIMIT: Duration = Duration::from_secs(60);

/// Where a walk goes on, and what it tells.
pub(super) struct Sweep {
    pub state: Arc<dyn State>,
    pub clock: Clock,
    pub expiring: Arc<Expiring>,
    pub found: mpsc::Sender<Found>,
}

impl Sweep {
    /// Ends when all was looked at, or nobody listens.
    pub async fn run(self) {
        for table in [Table::Frontier, Table::Domains, Table::Users] {
            let mut range = Range::all();
            let mut patience = BACK_OFF;
            loop {
                let start = Instant::now();
                let looked = match table {
                    Table::Frontier => self.frontier(&range).await,
                    _ => self.logged(table, &range).await,
                };
                match looked {
                    Ok(Some((last, false))) => {
                        range = range.after(&last);
                        tokio::time::sleep(start.elapsed() * REST).await;
                    }
                    Ok(Some((last, true))) => range = range.after(&last),
                    Ok(None) => break,
                    Err(error) => {
                        tracing::warn!(%error, "the frontier could not be looked through");
                        tokio::time::sleep(patience).await;
                        patience = (patience * 2).min(BACK_OFF_LIMIT);
                    }
                }
                if self.found.is_closed() {
                    return;
                }
            }
        }
        let _ = self.found.send(Found::All).await;
    }

    /// A page of the frontier: its last key and whether anything was missing;
    /// `None`: there is no more.
    async fn frontier(&self, range: &Range) -> Result<Option<(Vec<u8>, bool)>, Error> {
        let page: Vec<FrontierRow> = rows::scan(&*self.state, range.clone(), PAGE).await?;
        let Some(last) = page.last().map(|row| row.key()) else { return Ok(None) };
        let now = self.clock.now();
        let (mut domains, mut missing) = (0, Vec::new());
        let mut named: Option<Domain> = None;
        for row in page {
            match &row.name {
                Name::Domain(domain) => {
                    domains += 1;
                    if !self.has_turn(row.due, domain).await? {
                        missing.push(domain.clone());
                    }
                    named = Some(domain.clone());
                }
                Name::Address(address) => {
                    if row.tries == 0 && row.keep_until.is_some_and(|until| until > now) {
                        self.expiring.set(address, true);
                    }
                    // A domain's row is just before those of its mailboxes.
                    let domain = address.domain();
                    if named.as_ref() != Some(domain) && !self.has_row(domain).await? {
                        missing.push(domain.clone());
                    }
                    named = Some(domain.clone());
                }
            }
        }
        let some = !missing.is_empty();
        self.tell(Found::Rows(domains, last.clone())).await;
        self.miss(missing).await;
        Ok(Some((last, some)))
    }

    async fn has_turn(&self, due: Timestamp, domain: &Domain) -> Result<bool, Error> {
        Ok(self.state.get(Table::Due, &rows::due_key(due, domain)).await?.is_some())
    }

    async fn has_row(&self, domain: &Domain) -> Result<bool, Error> {
        Ok(self.state.get(Table::Frontier, domain.as_str().as_bytes()).await?.is_some())
    }

    /// The same of names that the log has. Keys are those of the frontier.
    async fn logged(&self, table: Table, range: &Range) -> Result<Option<(Vec<u8>, bool)>, Error> {
        let page = self.state.scan(table, range.clone(), PAGE).await?;
        let keys: Vec<Vec<u8>> = page.into_iter().map(|(key, _)| key).collect();
        let (Some(first), Some(last)) = (keys.first(), keys.last()) else { return Ok(None) };
        let known = self.known(first, last).await?;
        let mut missing = Vec::new();
        for key in keys.iter().filter(|key| !known.contains(*key)) {
            let domain = domain(table, key)?;
            if missing.last() != Some(&domain) {
                missing.push(domain);
            }
        }
        let some = !missing.is_empty();
        self.miss(missing).await;
        Ok(Some((last.clone(), some)))
    }

    /// The keys of the frontier from `first` to `last`.
    async fn known(&self, first: &[u8], last: &[u8]) -> Result<HashSet<Vec<u8>>, Error> {
        let end = Range::all().after(last).start;
        let mut range = Range { start: first.to_vec(), end: Some(end) };
        let mut known = HashSet::new();
        loop {
            let page = self.state.scan(FrontierRow::TABLE, range.clone(), MAX_SCAN).await?;
            match page.last() {
                Some((last, _)) => range = range.after(last),
                None => return Ok(known),
            }
            known.extend(page.into_iter().map(|(key, _)| key));
        }
    }

    async fn miss(&self, domains: Vec<Domain>) {
        if !domains.is_empty() {
            self.tell(Found::Missing(domains)).await;
        }
    }

    async fn tell(&self, found: Found) {
        let _ = self.found.send(found).await;
    }
}

/// Whose key that is.
fn domain(table: Table, key: &[u8]) -> Result<Domain, Error> {
    let domain = match table {
        UserRow::TABLE => rows::user_of(key).map(|user| user.domain().clone()),
        _ => std::str::from_utf8(key).ok().and_then(|text| text.parse().ok()),
    };
    let path = format!("table {}", table.name());
    domain.ok_or_else(|| Error::Damaged { path, message: "a key is no name".into() })
}
