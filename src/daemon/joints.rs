//! Where rooms that do not know each other meet: the crawl's drafts go into
//! the log, what the faces were asked for, in vain or by owners, or told by
//! clients, goes to the crawl, and what peers are convicted of is filed.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt as _;

use super::{Filed, Filing};
use crate::crawl::{Handle, Placed, Sink, Unplaced};
use crate::dime::{Address, Name, Timestamp};
use crate::log::{Log, Refused};
use crate::peers::Accuse;
use crate::proof::dnssec::Anchor;
use crate::proof::incident::Incident;
use crate::proof::note::VerifierKey;
use crate::proof::{Draft, Hash};
use crate::serve::http::{Owners, Reports, Unknown};
use crate::store::blobs::Created;
use crate::store::registrations::{self, Registrations};
use crate::store::state::{State, Table};
use crate::store::{self, Blobs, keys, rows};

/// Hands drafts to the log.
pub struct IntoLog(pub Log);

#[async_trait]
impl Sink for IntoLog {
    async fn submit(&self, draft: Draft, after: u64) -> Result<Placed, Unplaced> {
        match self.0.submit_after(draft, after).await {
            Ok(placed) => Ok(Placed::Version(placed.version)),
            Err(Refused::MovedOn { .. }) => Err(Unplaced::MovedOn),
            Err(Refused::Unplaceable(why)) => Err(Unplaced::Misfit(why.to_string())),
            Err(later) => Err(Unplaced::Later(later.to_string())),
        }
    }

    async fn is_forgotten(&self, address: &Address) -> Result<bool, Unplaced> {
        self.0.is_forgotten(address).await.map_err(|error| Unplaced::Later(error.to_string()))
    }

    fn doubts_clock(&self) -> bool {
        self.0.blocked().is_some_and(|blocked| blocked.doubts_clock())
    }
}

/// Has unknown names looked at.
#[derive(Debug)]
pub struct OnDemand(pub Handle);

impl Unknown for OnDemand {
    /// If the crawler has its hands full, whoever asks again is heard.
    fn asked(&self, name: &Name) {
        self.0.ask(name.clone());
    }

    /// What only peers asked for is watched without end from now on.
    fn found(&self, name: &Name) {
        if name.address().is_some_and(|address| self.0.is_for_peers(address)) {
            self.0.ask(name.clone());
        }
    }
}

/// Takes owners' requests to the crawl, each once.
pub struct ByOwners {
    crawl: Handle,
    taken: Taken,
    registrations: Registrations,
}

/// Requests that were accepted: a private object each, under the hour of its
/// time, since it is valid for minutes around that.
pub(super) struct Taken {
    private: Blobs,
    /// Requests before this hour were deleted.
    pruned: AtomicU64,
}

impl Taken {
    pub(super) fn new(private: Blobs) -> Taken {
        Taken { private, pruned: AtomicU64::new(0) }
    }

    /// Says whether it is the first.
    pub(super) async fn claim(&self, id: &Hash, time: Timestamp) -> Result<bool, store::Error> {
        let hour = time.secs() / 3600;
        let mark = Bytes::from_static(b"taken");
        let created = self.private.put_if_absent(&keys::request(hour, id), mark).await?;
        // Those of the hour before may still be replayed.
        let before = hour.saturating_sub(1);
        if self.pruned.fetch_max(before, Ordering::Relaxed) < before {
            self.prune(before).await?;
        }
        Ok(matches!(created, Created::Created))
    }

    async fn prune(&self, before: u64) -> Result<(), store::Error> {
        let floor = keys::request(before, &[0; 32]);
        let mut old = self.private.list("request");
        while let Some(found) = old.try_next().await? {
            if found.key < floor {
                self.private.delete(&found.key).await?;
            }
        }
        Ok(())
    }
}

impl ByOwners {
    pub fn new(crawl: Handle, private: Blobs) -> ByOwners {
        let registrations = Registrations::new(private.clone());
        ByOwners { crawl, taken: Taken::new(private), registrations }
    }
}

/// Mailboxes that owners asked for and of which the index has no row: it was lost with
/// them, or they were looked for in vain. Of the two the first must not be, so that
/// both are looked for again.
pub(super) async fn unwritten(
    private: &Blobs,
    state: &dyn State,
) -> Result<Vec<Name>, store::Error> {
    let mut unwritten = Vec::new();
    for address in registrations::all(private).await? {
        let name = Name::Address(address);
        if state.get(Table::Frontier, &rows::frontier_key(&name)).await?.is_none() {
            unwritten.push(name);
        }
    }
    Ok(unwritten)
}

#[async_trait]
impl Owners for ByOwners {
    async fn remember(&self, id: &Hash, time: Timestamp, names: &[Name]) -> Result<bool, String> {
        // First: once it is claimed it is not heard again.
        let kept = self.registrations.keep(id, time, names).await;
        kept.map_err(|error| error.to_string())?;
        self.taken.claim(id, time).await.map_err(|error| error.to_string())
    }

    async fn watch(&self, names: Vec<Name>) -> bool {
        self.crawl.request(names).await
    }
}

/// Files what a peer's own signature convicts it of.
pub struct Accusations(pub Arc<Filed>);

#[async_trait]
impl Accuse for Accusations {
    async fn accuse(&self, incident: &Incident) -> Result<(), String> {
        match self.0.file(incident).await {
            Ok(Filing::New(_) | Filing::Known) => Ok(()),
            // No count is kept of these; one that there was would end with the day.
            Ok(Filing::Over) => Err("there is no room for it today".to_owned()),
            // It never will have room, and the operator was told. The fault stands.
            Ok(Filing::TooLarge) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Has what clients report looked at, and what convicts kept.
pub struct ByClients {
    crawl: Handle,
    filed: Arc<Filed>,
    anchors: Vec<Anchor>,
    peers: Vec<VerifierKey>,
}

impl ByClients {
    /// `anchors` are the keys of the DNS root that the mirror itself believes,
    /// `peers` those of the logs that it follows.
    pub fn new(
        crawl: Handle,
        filed: Arc<Filed>,
        anchors: Vec<Anchor>,
        peers: Vec<VerifierKey>,
    ) -> ByClients {
        ByClients { crawl, filed, anchors, peers }
    }
}

#[async_trait]
impl Reports for ByClients {
    fn anchors(&self) -> &[Anchor] {
        &self.anchors
    }

    fn peers(&self) -> &[VerifierKey] {
        &self.peers
    }

    async fn keep(&self, incident: &Incident) -> Result<bool, String> {
        let filing = self.filed.file(incident).await.map_err(|error| error.to_string())?;
        Ok(matches!(filing, Filing::New(_) | Filing::Known))
    }

    /// Each domain once a minute, however many report: they may be its enemies.
    fn look(&self, name: &Name) -> bool {
        self.crawl.report(name.clone())
    }
}

impl fmt::Debug for ByClients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByClients").finish_non_exhaustive()
    }
}

impl fmt::Debug for ByOwners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByOwners").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::state::Batch;
    use crate::store::testing::MemoryState;

    /// The index was lost after an owner had its answer.
    #[tokio::test]
    async fn what_owners_asked_for_outlives_the_index() {
        let (private, state) = (Blobs::memory(), MemoryState::default());
        let (x, y): (Name, Name) = ("x@a.example".parse().unwrap(), "y@a.example".parse().unwrap());
        let registrations = Registrations::new(private.clone());
        let time = Timestamp::from_secs(1_800_000_000);
        registrations.keep(&[1; 32], time, &[x.clone(), y.clone()]).await.unwrap();
        let mut batch = Batch::new();
        batch.put(Table::Frontier, rows::frontier_key(&x), "row");
        let _ = state.apply(batch).await.unwrap();
        assert_eq!(unwritten(&private, &state).await.unwrap(), std::slice::from_ref(&y));
        let lost = MemoryState::default();
        assert_eq!(unwritten(&private, &lost).await.unwrap(), [x, y]);
    }

    #[tokio::test]
    async fn a_request_is_taken_once_and_forgotten_later() {
        let blobs = Blobs::memory();
        let claim = async |hour: u64, id: u8| {
            // Each time as after a restart.
            let time = Timestamp::from_secs(hour * 3600 + 5);
            Taken::new(blobs.clone()).claim(&[id; 32], time).await.unwrap()
        };
        assert!(claim(500_000, 1).await);
        assert!(!claim(500_000, 1).await);
        assert!(claim(500_000, 2).await);
        assert!(claim(500_001, 3).await);
        assert!(!claim(500_000, 1).await);
        assert!(claim(500_002, 4).await);
        assert_eq!(blobs.list_all("request", 10).await.unwrap().len(), 2);
    }
}
