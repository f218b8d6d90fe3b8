//! Incidents as private objects: what failed validation, with the received
//! bytes, one file each, written once however often it is seen.
//!
//! Bounded: at most [`PER_DAY`] new ones a day for one domain, so that nobody
//! fills the disk; more are only counted in the log lines.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use crate::crawl::{Incident, Incidents};
use crate::dime::Domain;
use crate::store::{Blobs, keys};

/// New incidents of one domain that are kept on one day.
pub const PER_DAY: u32 = 64;

/// Writes incidents to the private blobs.
pub struct Filed {
    private: Blobs,
    written: Mutex<Today>,
}

#[derive(Default)]
struct Today {
    day: u64,
    domains: HashMap<Domain, u32>,
}

impl Filed {
    pub fn new(private: Blobs) -> Filed {
        Filed { private, written: Mutex::default() }
    }

    /// Whether this domain may have one more today.
    fn admit(&self, incident: &Incident) -> bool {
        let mut today = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let day = incident.at.secs() / 86_400;
        if today.day != day {
            *today = Today { day, domains: HashMap::new() };
        }
        let count = today.domains.entry(incident.domain.clone()).or_default();
        *count += 1;
        *count <= PER_DAY
    }
}

#[async_trait]
impl Incidents for Filed {
    async fn report(&self, incident: Incident) {
        let key = keys::incident(&incident.id());
        match self.private.head(&key).await {
            Ok(Some(_)) => return,
            Ok(None) if !self.admit(&incident) => return,
            Ok(None) => {}
            Err(error) => return failed(&incident, &error),
        }
        let body = serde_json::json!({
            "kind": incident.kind.as_str(),
            "domain": incident.domain.as_str(),
            "address": incident.address.as_ref().map(|address| address.as_str()),
            "rule": incident.why.rule,
            "message": incident.why.message,
            "bytes": STANDARD.encode(&incident.bytes),
            "before": STANDARD.encode(&incident.before),
            "chain": STANDARD.encode(&incident.chain),
            "at": incident.at.millis(),
        });
        match self.private.put_if_absent(&key, Bytes::from(body.to_string())).await {
            Ok(_) => tracing::warn!(
                domain = %incident.domain, kind = %incident.kind, rule = incident.why.rule,
                "incident"
            ),
            Err(error) => failed(&incident, &error),
        }
    }
}

fn failed(incident: &Incident, error: &crate::store::Error) {
    tracing::error!(domain = %incident.domain, kind = %incident.kind, %error, "incident not kept");
}
