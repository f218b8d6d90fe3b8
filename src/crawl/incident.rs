//! What a visit keeps as evidence: what failed validation, and each alarm, with
//! the bytes as they came.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::dime::{Address, Domain, Rejection, Timestamp};
use crate::proof::entry::Event;

/// Where evidence goes.
#[async_trait]
pub trait Incidents: Send + Sync {
    /// Called at each visit that shows it; [`Incident::id`] tells repetitions.
    async fn report(&self, incident: Incident);
}

/// Something received that is no version of anything, or that somebody should
/// look at although it is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incident {
    pub kind: IncidentKind,
    pub domain: Domain,
    /// Set if it is about a mailbox. Never to be logged or listed.
    pub address: Option<Address>,
    /// The rule it broke; the event's name of an alarm.
    pub why: Rejection,
    /// As received, at most 1 MiB: a signet, a certificate, a record's text;
    /// several texts are parted by LF. Of a domain's alarm the record's text,
    /// LF, and the org signet. Of a bogus answer the DNS messages, each after
    /// its length in two bytes. Empty: there was nothing.
    pub bytes: Bytes,
    /// Of an alarm: what was in force until then, in the same form. Of a
    /// difference between vantages: what the main one was shown.
    pub before: Bytes,
    /// The DNSSEC chain that proves what DNS said, or denied; else empty.
    pub chain: Bytes,
    /// Text of the record by which a certificate or an org signet was refused;
    /// else empty.
    pub record: Bytes,
    pub at: Timestamp,
}

/// What an incident is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IncidentKind {
    RecordRefused,
    RecordAmbiguous,
    CertificateMismatch,
    OrgSignetInvalid,
    SignetInvalid,
    /// A link of a history that verifies under no org signet ever seen, or not
    /// at all.
    LinkInvalid,
    /// Valid, and over quota: no entry of its own. The bytes are those that the
    /// label's next entry hashes.
    Coalesced,
    /// An event that somebody should look at ([`Event::is_alarm`]).
    Alarm(Event),
    /// A domain whose record said `pol=strict` has none any more: mail that
    /// was to go by DIME only would go without (reference §1.7).
    Downgrade,
    /// Two vantages were shown different keys, twice: the bytes are what the
    /// other one was shown, those before it what the main one was.
    VantageDiffers,
}

impl IncidentKind {
    pub fn as_str(self) -> &'static str {
        match self {
            IncidentKind::RecordRefused => "record-refused",
            IncidentKind::RecordAmbiguous => "record-ambiguous",
            IncidentKind::CertificateMismatch => "certificate-mismatch",
            IncidentKind::OrgSignetInvalid => "org-signet-invalid",
            IncidentKind::SignetInvalid => "signet-invalid",
            IncidentKind::LinkInvalid => "link-invalid",
            IncidentKind::Coalesced => "coalesced",
            IncidentKind::Downgrade => "downgrade",
            IncidentKind::VantageDiffers => "vantage-differs",
            IncidentKind::Alarm(event) => match event {
                Event::Restarted => "restarted",
                Event::Gap => "gap",
                Event::Forked => "forked",
                Event::Reverted => "reverted",
                Event::Withdrawn => "withdrawn",
                Event::PokReplaced => "pok-replaced",
                Event::RecordWithdrawn => "record-withdrawn",
                Event::RecordExpired => "record-expired",
                Event::DnssecLost => "dnssec-lost",
                Event::DnssecBogus => "dnssec-bogus",
                Event::NameConflict => "name-conflict",
                no_alarm => no_alarm.name(),
            },
        }
    }
}

impl fmt::Display for IncidentKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Incident {
    /// Something received at `at`, about a domain or one of its mailboxes.
    pub fn new(
        kind: IncidentKind,
        domain: &Domain,
        address: Option<&Address>,
        why: Rejection,
        bytes: Bytes,
        at: Timestamp,
    ) -> Incident {
        Incident {
            kind,
            domain: domain.clone(),
            address: address.cloned(),
            why,
            bytes,
            before: Bytes::new(),
            chain: Bytes::new(),
            record: Bytes::new(),
            at,
        }
    }

    /// The same for the same bytes of the same name under the same rule, after
    /// the same bytes, whenever they are seen.
    pub fn id(&self) -> [u8; 32] {
        let name = match &self.address {
            Some(address) => address.as_str(),
            None => self.domain.as_str(),
        };
        let mut hash = Sha256::new();
        for part in [self.kind.as_str(), name, self.why.rule] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        if !self.before.is_empty() {
            hash.update((self.before.len() as u64).to_be_bytes());
            hash.update(&self.before);
        }
        hash.chain_update(&self.bytes).finalize().into()
    }
}
