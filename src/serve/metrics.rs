//! What the faces count, in a registry of their own that other rooms may add to.
//!
//! Labels are patterns and numbers, never names: `route` is `/v1/lookup/{name}`.

use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    TextEncoder,
};

use crate::log::Log;

/// Upper bounds of the buckets of request times, seconds.
const BUCKETS: [f64; 11] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 10.0];

/// The metrics of a mirror's faces. Cheap to clone; clones are the same metrics.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    pub(super) requests: IntCounterVec,
    pub(super) seconds: HistogramVec,
    /// Answers by what they said: found, absent, refused.
    pub(super) lookups: IntCounterVec,
    pub(super) connections: IntGauge,
    /// Streams of events that are open.
    pub(super) streams: IntGauge,
    /// Sessions of the DMTP face, from their TCP connection on.
    pub dmtp_sessions: IntCounter,
    size: IntGauge,
    sequencing: IntGauge,
    labels: IntGauge,
    root_seconds: IntGauge,
    directory_bytes: IntGauge,
}

impl Metrics {
    /// Fresh metrics in a fresh registry, with those of the process.
    ///
    /// # Errors
    /// None in practice: two metrics of one name.
    pub fn new() -> Result<Metrics, prometheus::Error> {
        let registry = Registry::new();
        let collector = prometheus::process_collector::ProcessCollector::for_self();
        registry.register(Box::new(collector))?;
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let made = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(made.clone()))?;
            Ok::<_, prometheus::Error>(made)
        };
        let gauge = |name: &str, help: &str| {
            let made = IntGauge::new(name, help)?;
            registry.register(Box::new(made.clone()))?;
            Ok::<_, prometheus::Error>(made)
        };
        let seconds = HistogramVec::new(
            HistogramOpts::new("syndicate_http_request_seconds", "Time to answer.")
                .buckets(BUCKETS.to_vec()),
            &["route"],
        )?;
        registry.register(Box::new(seconds.clone()))?;
        let dmtp_sessions =
            IntCounter::new("syndicate_dmtp_sessions_total", "DMTP connections accepted.")?;
        registry.register(Box::new(dmtp_sessions.clone()))?;
        Ok(Metrics {
            requests: counters(
                "syndicate_http_requests_total",
                "HTTP requests answered.",
                &["route", "status"],
            )?,
            seconds,
            lookups: counters(
                "syndicate_lookups_total",
                "Lookups over HTTP by outcome.",
                &["outcome"],
            )?,
            connections: gauge("syndicate_http_connections", "HTTP connections open.")?,
            streams: gauge("syndicate_http_event_streams", "Streams of events open.")?,
            dmtp_sessions,
            size: gauge("syndicate_log_size", "Entries in the published log.")?,
            sequencing: gauge("syndicate_log_sequencing", "1 while the log takes entries.")?,
            labels: gauge("syndicate_directory_labels", "Labels in the published directory.")?,
            root_seconds: gauge(
                "syndicate_log_root_timestamp_seconds",
                "Time of the published directory root.",
            )?,
            directory_bytes: gauge("syndicate_directory_bytes", "Memory of the directory.")?,
            registry,
        })
    }

    /// Where other rooms register theirs.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The text format, with the log as it is now.
    ///
    /// # Errors
    /// A collector that another room registered is broken.
    pub(super) fn print(&self, log: &Log) -> Result<Vec<u8>, prometheus::Error> {
        if let Some(head) = log.heads().published {
            self.size.set(head.size as i64);
            self.labels.set(head.labels as i64);
            self.root_seconds.set(head.time.secs() as i64);
        }
        self.directory_bytes.set(log.directory().bytes() as i64);
        self.sequencing.set(i64::from(log.blocked().is_none()));
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}
