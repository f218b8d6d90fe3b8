//! What comparing counts. The label `peer` is an origin of the operator's own
//! configuration; no label names a domain or an address.

use prometheus::{IntCounterVec, IntGauge, Opts, Registry};

/// Counters of comparisons and of peers' domains. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tally {
    outcomes: IntCounterVec,
    open: IntGauge,
    explored: IntCounterVec,
}

impl Tally {
    /// # Errors
    /// None in practice: two metrics of one name.
    pub fn new(registry: &Registry) -> Result<Tally, prometheus::Error> {
        let counter = |name: &str, help: &str, label: &str| {
            let made = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(made.clone()))?;
            Ok::<_, prometheus::Error>(made)
        };
        let open = IntGauge::new(
            "syndicate_comparisons_open",
            "Comparisons of a name with a peer that are not over.",
        )?;
        registry.register(Box::new(open.clone()))?;
        Ok(Tally {
            outcomes: counter(
                "syndicate_comparisons_total",
                "Comparisons of a name with a peer that ended, by outcome.",
                "outcome",
            )?,
            open,
            explored: counter(
                "syndicate_peer_domains_total",
                "Domains of a peer's log that were looked at here.",
                "peer",
            )?,
        })
    }

    pub(super) fn compared(&self, outcome: &str) {
        self.outcomes.with_label_values(&[outcome]).inc();
    }

    pub(super) fn comparing(&self, open: usize) {
        self.open.set(i64::try_from(open).unwrap_or(i64::MAX));
    }

    pub(super) fn explored(&self, origin: &str) {
        self.explored.with_label_values(&[origin]).inc();
    }
}
