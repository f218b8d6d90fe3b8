//! Where comparing meets the crawl, which visits names for it, and the incidents,
//! which keep what was found.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::observe::{Asker, ForPeers, version_in};
use super::{Filed, Secrets};
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
    async fn raise(&self, found: &Found) -> Result<(), String> {
        let incident = incident(found, &self.observer);
        self.filed.file(&incident).await.map(|_| ()).map_err(|error| error.to_string())
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
