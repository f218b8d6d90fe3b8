//! Domains of peers' logs: crawled here too, few a day and after all else
//! (threat 20), and compared where the peer's entry shows other keys than ours.
//!
//! On disk, in `Table::Peers`: `domains/<origin>/wait/<domain>`, empty, for what
//! waits, and `domains/<origin>/day`, the day and how many were looked at on it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Error;
use super::crosscheck;
use super::tally::Tally;
use crate::clock::Clock;
use crate::dime::{Domain, Name};
use crate::proof::entry::{DomainObservation, Entry, Kind};
use crate::store::rows::{self, DomainRow};
use crate::store::state::{Batch, Range, Table};
use crate::store::{self, State};

/// Domains of one peer that wait, at most; more are not noted.
pub const WAITING: usize = 10_000;
const DAY: u64 = 86_400_000;
/// Until a peer's next domain is tried, when there is none or it cannot be now.
const NAP: Duration = Duration::from_secs(1);

/// Looks at domains here.
#[async_trait]
pub trait Explore: Send + Sync {
    /// Looks at the domain when nothing else is to do; asks DNS, and more only if
    /// it has a record. Returns when that is done.
    async fn explore(&self, domain: &Domain) -> Explored;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Explored {
    Done,
    /// It is watched already.
    Watched,
    /// Try again later.
    Later,
}

/// What the room's tasks work with.
pub struct Domains {
    state: Arc<dyn State>,
    explore: Arc<dyn Explore>,
    crosscheck: crosscheck::Handle,
    clock: Clock,
    tally: Tally,
    /// New domains of one peer that are looked at on one day.
    per_day: u64,
    /// Of each peer, by origin: how many wait.
    waiting: Mutex<HashMap<String, usize>>,
}

impl Domains {
    /// For the peers with these origins.
    ///
    /// # Errors
    /// If what waits cannot be read.
    pub async fn new(
        origins: impl IntoIterator<Item = String>,
        state: Arc<dyn State>,
        explore: Arc<dyn Explore>,
        crosscheck: crosscheck::Handle,
        clock: Clock,
        tally: Tally,
        per_day: u64,
    ) -> Result<Domains, Error> {
        let mut waiting = HashMap::new();
        for origin in origins {
            let range = Range::prefix(prefix(&origin).as_bytes());
            let count = state.scan(Table::Peers, range, WAITING).await?.len();
            waiting.insert(origin, count);
        }
        let waiting = Mutex::new(waiting);
        Ok(Domains { state, explore, crosscheck, clock, tally, per_day, waiting })
    }

    /// Entries of a peer's log. Others' domains wait for their turn.
    ///
    /// # Errors
    /// If our own rows cannot be read or written.
    pub async fn heard(&self, origin: &str, entries: &[Bytes]) -> Result<(), store::Error> {
        let suspects = self.note(origin, entries).await?;
        // Only this peer's log waits for its suspicions to be taken.
        for (domain, version) in suspects {
            self.crosscheck.suspect(origin, Name::Domain(domain), version).await;
        }
        Ok(())
    }

    /// Notes what waits, and gives what differs, in which version.
    async fn note(
        &self,
        origin: &str,
        entries: &[Bytes],
    ) -> Result<Vec<(Domain, u64)>, store::Error> {
        let mut waiting = self.waiting.lock().await;
        let Some(count) = waiting.get_mut(origin) else { return Ok(Vec::new()) };
        let (mut batch, mut suspects) = (Batch::new(), Vec::new());
        for entry in entries {
            let Ok(Entry { kind: Kind::Domain(seen), .. }) = Entry::decode(entry) else { continue };
            let Ok(domain) = seen.domain.parse::<Domain>() else { continue };
            let known: Option<DomainRow> =
                rows::find(&*self.state, domain.as_str().as_bytes()).await?;
            if let Some(known) = known {
                if differs(&known, &seen) {
                    suspects.push((domain, seen.version));
                }
                continue;
            }
            let row = format!("{}{domain}", prefix(origin));
            let waits = self.state.get(Table::Peers, row.as_bytes()).await?.is_some();
            if waits || *count >= WAITING {
                continue;
            }
            *count += 1;
            batch.put(Table::Peers, row, "");
        }
        if !batch.is_empty() {
            let _ = self.state.apply(batch).await?;
        }
        Ok(suspects)
    }

    /// Looks at what waits, of each peer one after the other, until told to stop.
    ///
    /// # Errors
    /// If our own rows cannot be read or written.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) -> Result<(), Error> {
        let origins: Vec<String> = self.waiting.lock().await.keys().cloned().collect();
        let mut tasks = JoinSet::new();
        for origin in origins {
            let domains = Arc::clone(&self);
            tasks.spawn(async move { domains.explore_all(&origin).await });
        }
        let ended = tokio::select! {
            () = shutdown.cancelled() => Ok(()),
            Some(ended) = tasks.join_next() => ended?,
            else => {
                shutdown.cancelled().await;
                Ok(())
            }
        };
        tasks.shutdown().await;
        ended
    }

    async fn explore_all(&self, origin: &str) -> Result<(), Error> {
        loop {
            if !self.explore_next(origin).await? {
                tokio::time::sleep(NAP).await;
            }
        }
    }

    /// `false` if there is nothing to do now.
    async fn explore_next(&self, origin: &str) -> Result<bool, Error> {
        let today = self.clock.now().millis() / DAY;
        let day_row = format!("domains/{origin}/day");
        let stored = self.state.get(Table::Peers, day_row.as_bytes()).await?;
        let looked_at = stored.and_then(|bytes| {
            let (day, count) = std::str::from_utf8(&bytes).ok()?.split_once(' ')?;
            (day.parse() == Ok(today)).then(|| count.parse::<u64>().ok())?
        });
        let looked_at = looked_at.unwrap_or(0);
        if looked_at >= self.per_day {
            return Ok(false);
        }
        let prefix = prefix(origin);
        let range = Range::prefix(prefix.as_bytes());
        let page = self.state.scan(Table::Peers, range, 1).await?;
        let Some((row, _)) = page.first() else { return Ok(false) };
        let domain = std::str::from_utf8(row).ok().and_then(|row| row.strip_prefix(&prefix));
        let explored = match domain.and_then(|domain| domain.parse().ok()) {
            Some(domain) => self.explore.explore(&domain).await,
            None => Explored::Watched,
        };
        let mut batch = Batch::new();
        match explored {
            Explored::Later => return Ok(false),
            Explored::Watched => {}
            Explored::Done => {
                batch.put(Table::Peers, day_row, format!("{today} {}", looked_at + 1));
                self.tally.explored(origin);
            }
        }
        batch.delete(Table::Peers, row.clone());
        // Killed before: it is looked at once more.
        let _ = self.state.apply(batch).await?;
        if let Some(count) = self.waiting.lock().await.get_mut(origin) {
            *count = count.saturating_sub(1);
        }
        Ok(true)
    }
}

fn prefix(origin: &str) -> String {
    format!("domains/{origin}/wait/")
}

/// Whether an entry shows POKs or an org signet that are not ours. Ours may be
/// newer, or older: that is found out by comparing.
fn differs(known: &DomainRow, seen: &DomainObservation<'_>) -> bool {
    if seen.poks.is_empty() {
        return false;
    }
    let same_poks = known.poks.iter().map(|pok| &pok.0).eq(seen.poks.iter());
    let same_org = match (&known.org_signet, &seen.org_signet) {
        (Some(known), Some(seen)) => known.0 == seen.sha256,
        _ => true,
    };
    !(same_poks && same_org)
}
