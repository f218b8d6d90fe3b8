//! Where comparing meets the crawl, which visits names for it, and the incidents,
//! which keep what was found.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::observe::{Asker, ForPeers, version_in};
use super::{Filed, Filing, Secrets};
use crate::clock::Clock;
use crate::config::Config;
use crate::crawl;
use crate::dime::{Domain, Name};
use crate::log::Log;
use crate::log::answer::Answerer;
use crate::peers::Heard;
use crate::peers::ask::Face;
use crate::peers::crosscheck::{CrossCheck, Found, Handle, Look, Raise, Rooms, What};
use crate::peers::domains::{Domains, Explore, Explored};
use crate::peers::tally::Tally;
use crate::proof::incident::{Incident, Receipts, Round};

/// The parts of a mirror that compare names with peers, not yet running.
pub struct Comparing {
    pub crosscheck: CrossCheck,
    pub domains: Arc<Domains>,
    pub observe: ForPeers,
    /// What peers keep back.
    pub handle: Handle,
}

impl Comparing {
    /// With the peers whose requests have a key here.
    pub async fn new(
        config: &Config,
        secrets: &Secrets,
        log: &Log,
        crawl: &crawl::Handle,
        clock: &Clock,
        filed: Arc<Filed>,
        registry: &prometheus::Registry,
    ) -> anyhow::Result<Comparing> {
        let peers = &config.peers;
        let (mut faces, mut askers) = (Vec::new(), Vec::new());
        for mirror in &peers.mirrors {
            let key = mirror.peer_key.as_ref().and_then(|key| key.public_key());
            let Some(key) = key else {
                tracing::warn!(
                    peer = mirror.log.name(),
                    "names are not compared with this peer: its peer_key is not configured"
                );
                continue;
            };
            let (origin, share_addresses) = (mirror.log.name().to_owned(), mirror.share_addresses);
            faces.push(Face::new(&mirror.url, mirror.log.clone(), share_addresses)?);
            askers.push(Asker { origin, key: *key, share_addresses });
        }
        let private = log.store().private.clone();
        let (visits, tally) = (Arc::new(Visits(crawl.clone())), Tally::new(registry)?);
        let rooms = Rooms {
            log: log.clone(),
            answers: Arc::new(Answerer::new(log.reader())),
            clock: clock.clone(),
            key: secrets.peer.clone(),
            look: visits.clone(),
            raise: Arc::new(Differences::new(filed, secrets.origin())),
            tally: tally.clone(),
        };
        let (crosscheck, handle) = CrossCheck::new(rooms, faces, peers.pace)?;
        let origins = peers.mirrors.iter().map(|mirror| mirror.log.name().to_owned());
        let domains = Domains::new(
            origins,
            Arc::clone(log.state()),
            visits,
            handle.clone(),
            clock.clone(),
            tally,
            peers.domains_per_day,
        );
        let domains = Arc::new(domains.await?);
        let (state, per_hour) = (Arc::clone(log.state()), peers.looks_per_hour);
        let crawl = crawl.clone();
        let suspects = handle.clone();
        let observe =
            ForPeers::new(crawl, state, private, clock.clone(), askers, suspects, per_hour);
        Ok(Comparing { crosscheck, domains, observe, handle })
    }
}

/// Visits for comparisons and of peers' domains.
#[derive(Clone, Debug)]
pub struct Visits(pub crawl::Handle);

#[async_trait]
impl Look for Visits {
    async fn look(&self, name: &Name) -> Result<u64, String> {
        let report = self.0.look(name.clone(), None).await.map_err(|error| error.to_string())?;
        Ok(version_in(&report, name))
    }
}

#[async_trait]
impl Explore for Visits {
    async fn explore(&self, domain: &Domain) -> Explored {
        match self.0.explore(domain.clone()).await {
            Ok(_) => Explored::Done,
            Err(crawl::Error::Watched) => Explored::Watched,
            Err(_) => Explored::Later,
        }
    }
}

/// Takes peers' entries to the domains that are looked at here.
pub struct PeersDomains(pub Arc<Domains>);

#[async_trait]
impl Heard for PeersDomains {
    async fn heard(&self, origin: &str, _first: u64, entries: &[Bytes]) {
        if let Err(error) = self.0.heard(origin, entries).await {
            tracing::warn!(%origin, %error, "a peer's domains could not be noted");
        }
    }
}

/// Files differences between mirrors.
pub struct Differences {
    filed: Arc<Filed>,
    /// Origin of our log.
    observer: String,
}

impl Differences {
    pub fn new(filed: Arc<Filed>, observer: &str) -> Differences {
        Differences { filed, observer: observer.to_owned() }
    }
}

#[async_trait]
impl Raise for Differences {
    async fn raise(&self, found: &Found) -> Result<bool, String> {
        let incident = incident(found, &self.observer);
        match self.filed.file(&incident).await {
            Ok(Filing::New(_) | Filing::Known) => Ok(true),
            Ok(Filing::Over) => Ok(false),
            // It never will have room, and the operator was told.
            Ok(Filing::TooLarge) => Ok(true),
            Err(error) => Err(error.to_string()),
        }
    }
}

fn incident(found: &Found, observer: &str) -> Incident {
    let round = |(origin, at): &(String, _)| Round { origin: origin.clone(), at: *at };
    let seen = Receipts {
        receipts: vec![found.ours.clone(), found.theirs.clone()],
        rounds: found.looks.iter().map(round).collect(),
    };
    let make = match found.what {
        What::SplitView => Incident::split_view,
        What::UpdateWithheld => Incident::update_withheld,
    };
    make(observer, found.at, found.name.clone(), seen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dime::Timestamp;
    use crate::proof::map::{End, MapProof};
    use crate::proof::receipt::{Leaf, Receipt, Subject};
    use crate::store::Blobs;

    /// With a blob of so many bytes; nobody verifies it here.
    fn receipt(name: &Name, blob: Vec<u8>) -> Receipt {
        Receipt {
            name: name.clone(),
            checkpoint: Bytes::new(),
            root: Leaf { entry: Bytes::new(), path: Vec::new() },
            genesis: None,
            subject: Subject {
                vrf_proof: None,
                map: MapProof { path: Vec::new(), end: End::Empty },
                chain: [0; 32],
                items: Vec::new(),
                seen: None,
                carries: Vec::new(),
            },
            domain: None,
            blobs: vec![blob.into()],
            withdrawn: Vec::new(),
            closing: None,
        }
    }

    fn found(mailbox: &str, length: usize) -> Found {
        let name: Name = mailbox.parse().unwrap();
        let (ours, theirs) = (receipt(&name, vec![1; length]), receipt(&name, vec![2]));
        let at = Timestamp::from_secs(9);
        Found { what: What::SplitView, name, at, ours, theirs, looks: Vec::new() }
    }

    /// What had no room today is not said to be filed, and is the day after.
    #[tokio::test]
    async fn a_difference_without_room_is_not_raised() {
        let clock = Clock::manual(Timestamp::from_secs(9));
        let filed = Arc::new(Filed::new(Blobs::memory(), clock.clone()));
        let differences = Differences::new(filed, "log.example/1");
        // Two of these are 16 MiB, in base64, with the rest of them.
        let half = (8 << 20) / 4 * 3 - 8192;
        for mailbox in ["a@one.example", "b@one.example"] {
            assert_eq!(differences.raise(&found(mailbox, half)).await, Ok(true));
        }
        let third = found("c@one.example", 65536);
        for _ in 0..2 {
            assert_eq!(differences.raise(&third).await, Ok(false));
        }
        // Another domain's has room; one that no file can hold never gets any.
        assert_eq!(differences.raise(&found("c@two.example", half)).await, Ok(true));
        assert_eq!(differences.raise(&found("d@two.example", 8 << 20)).await, Ok(true));
        clock.advance(86_400_000);
        assert_eq!(differences.raise(&third).await, Ok(true));
    }
}
