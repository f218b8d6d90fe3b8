//! What the room counts.

use super::Report;

/// Counters of the room. No label names a domain or an address.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(super) visits: prometheus::IntCounterVec,
    pub(super) users: prometheus::IntCounterVec,
    pub(super) events: prometheus::IntCounterVec,
    pub(super) incidents: prometheus::IntCounterVec,
    /// Looks from other vantages, and what they differed in.
    pub(super) comparisons: prometheus::IntCounterVec,
    pub(super) differences: prometheus::IntCounterVec,
    pub(super) seconds: prometheus::Histogram,
    pub(super) domains: prometheus::IntGauge,
    pub(super) running: prometheus::IntGauge,
    /// Bytes of long DMTP replies in memory.
    pub(super) replies: prometheus::IntGauge,
}

impl Metrics {
    /// # Errors
    /// If the registry has metrics of these names already.
    pub fn new(registry: &prometheus::Registry) -> Result<Metrics, prometheus::Error> {
        let vec = |name: &str, help: &str, label: &str| {
            prometheus::IntCounterVec::new(prometheus::Opts::new(name, help), &[label])
        };
        let metrics = Metrics {
            visits: vec(
                "syndicate_crawl_visits_total",
                "Visits to domains, by outcome",
                "outcome",
            )?,
            users: vec(
                "syndicate_crawl_mailboxes_total",
                "Mailboxes asked for, by outcome",
                "outcome",
            )?,
            events: vec(
                "syndicate_crawl_events_total",
                "Events of entries handed to the log",
                "event",
            )?,
            incidents: vec(
                "syndicate_crawl_incidents_total",
                "What failed validation, and alarms, by kind",
                "kind",
            )?,
            comparisons: vec(
                "syndicate_crawl_comparisons_total",
                "Looks from all vantages at one domain, by outcome",
                "outcome",
            )?,
            differences: vec(
                "syndicate_crawl_differences_total",
                "What two vantages were shown differently, twice, by kind",
                "kind",
            )?,
            seconds: prometheus::Histogram::with_opts(
                prometheus::HistogramOpts::new(
                    "syndicate_crawl_visit_seconds",
                    "How long visits took",
                )
                .buckets(vec![0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0]),
            )?,
            domains: prometheus::IntGauge::new(
                "syndicate_crawl_domains",
                "Domains that are watched",
            )?,
            running: prometheus::IntGauge::new(
                "syndicate_crawl_visits_running",
                "Visits going on now",
            )?,
            replies: prometheus::IntGauge::new(
                "syndicate_crawl_reply_bytes",
                "Memory that long DMTP replies take now",
            )?,
        };
        registry.register(Box::new(metrics.visits.clone()))?;
        registry.register(Box::new(metrics.users.clone()))?;
        registry.register(Box::new(metrics.events.clone()))?;
        registry.register(Box::new(metrics.incidents.clone()))?;
        registry.register(Box::new(metrics.comparisons.clone()))?;
        registry.register(Box::new(metrics.differences.clone()))?;
        registry.register(Box::new(metrics.seconds.clone()))?;
        registry.register(Box::new(metrics.domains.clone()))?;
        registry.register(Box::new(metrics.running.clone()))?;
        registry.register(Box::new(metrics.replies.clone()))?;
        Ok(metrics)
    }

    pub(super) fn count(&self, report: &Report) {
        self.visits.with_label_values(&[report.outcome.as_str()]).inc();
        for (_, outcome) in &report.users {
            self.users.with_label_values(&[outcome.as_str()]).inc();
        }
        for event in report.entries.iter().flat_map(|entered| entered.events.iter()) {
            self.events.with_label_values(&[event.name()]).inc();
        }
        self.seconds.observe(report.ended.since(report.started) as f64 / 1000.0);
    }
}
