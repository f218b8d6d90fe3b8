//! What this room counts. The label `peer` is an origin, `cosigner` the name of
//! a key: both are the operator's own configuration, no stranger's words.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};

use super::{Peer, Status};

/// The room's metrics. Cheap to clone; clones are the same metrics.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(super) submissions: IntCounterVec,
    pub(super) requests: IntCounterVec,
    pub(super) accusations: IntCounterVec,
    peers: Arc<Mutex<Vec<Arc<Peer>>>>,
}

/// Reads the peers' standing when it is asked for.
#[derive(Debug)]
struct Standings {
    peers: Arc<Mutex<Vec<Arc<Peer>>>>,
    size: IntGaugeVec,
    status: IntGaugeVec,
    root_seconds: IntGaugeVec,
    bytes: IntGaugeVec,
    disk_bytes: IntGaugeVec,
}

impl Metrics {
    /// # Errors
    /// None in practice: two metrics of one name.
    pub fn new(registry: &Registry) -> Result<Metrics, prometheus::Error> {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let made = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(made.clone()))?;
            Ok::<_, prometheus::Error>(made)
        };
        let gauge = |name: &str, help: &str| IntGaugeVec::new(Opts::new(name, help), &["peer"]);
        let peers = Arc::new(Mutex::new(Vec::new()));
        let standings = Standings {
            peers: Arc::clone(&peers),
            size: gauge("syndicate_peer_size", "Entries of a peer's log that were replayed.")?,
            status: gauge(
                "syndicate_peer_status",
                "0 good, 1 starting or behind, 2 a condition or our doubt, 3 a fault.",
            )?,
            root_seconds: gauge(
                "syndicate_peer_root_timestamp_seconds",
                "Time of a peer's last directory root.",
            )?,
            bytes: gauge("syndicate_peer_directory_bytes", "Memory of a peer's directory.")?,
            disk_bytes: gauge(
                "syndicate_peer_directory_disk_bytes",
                "File of a peer's directory; 0: it is in memory.",
            )?,
        };
        registry.register(Box::new(standings))?;
        Ok(Metrics {
            submissions: counter(
                "syndicate_cosigner_submissions_total",
                "Own checkpoints given to a cosigner.",
                &["cosigner", "outcome"],
            )?,
            requests: counter(
                "syndicate_witness_requests_total",
                "Requests to cosign, by the status of the answer.",
                &["status"],
            )?,
            accusations: counter(
                "syndicate_peer_faults_total",
                "Faults that a peer's own signature proves.",
                &["peer"],
            )?,
            peers,
        })
    }

    pub(super) fn follow(&self, peers: &[Arc<Peer>]) {
        *self.peers.lock().unwrap_or_else(PoisonError::into_inner) = peers.to_vec();
    }
}

impl Collector for Standings {
    fn desc(&self) -> Vec<&Desc> {
        let all = [&self.size, &self.status, &self.root_seconds, &self.bytes, &self.disk_bytes];
        all.into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        for peer in self.peers.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let standing = peer.standing();
            let of = |gauge: &IntGaugeVec| gauge.with_label_values(&[peer.origin()]);
            of(&self.size).set(standing.size as i64);
            of(&self.status).set(match standing.status {
                Status::Fault(_) => 3,
                _ if standing.doubt.is_some() => 2,
                Status::Good => 0,
                Status::Starting | Status::Behind => 1,
                Status::Condition(_) => 2,
            });
            of(&self.root_seconds).set(standing.time.secs() as i64);
            of(&self.bytes).set(peer.map().bytes() as i64);
            of(&self.disk_bytes).set(peer.map().bytes_on_disk() as i64);
        }
        let all = [&self.size, &self.status, &self.root_seconds, &self.bytes, &self.disk_bytes];
        all.into_iter().flat_map(Collector::collect).collect()
    }
}
