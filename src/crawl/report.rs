//! What one visit did, and how it ended.

use std::fmt;
use std::time::Duration;

use super::Placed;
use super::frontier::Search;
use crate::dime::certificate::How;
use crate::dime::{Address, Dnssec, Domain, Name, Timestamp};
use crate::proof::entry::Events;
use crate::store::rows::SeenRow;

/// How a visit to a domain or a mailbox ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// What is known was seen again.
    Confirmed,
    /// Something new was seen, and went to the log.
    Changed,
    /// Something new was seen, and is over quota.
    Coalesced,
    /// The DX said that the known signet is current.
    Claimed,
    /// No record, and none was known.
    NoRecord,
    /// The record that was known is gone.
    RecordGone,
    /// The name was forgotten, and is not visited.
    Forgotten,
    /// The DX has no signet of this name.
    NotFound,
    /// What is served is valid, and not what is in force: a fork or an ancestor.
    NotInForce,
    DnsBogus,
    /// Bogus on one path, and not on the other, or there is no other.
    DnsBogusUnconfirmed,
    DnsFailed,
    RecordRefused,
    RecordAmbiguous,
    /// The record or MX names no host that can be asked.
    NoHost,
    /// The host has as many connections of ours as it should, or there is no room for
    /// a long reply of it: not visited yet. What is new in DNS was told if the last
    /// visit is long ago.
    HostBusy,
    /// The host failed again and again, and is left alone for a while.
    HostResting,
    OrgSignetInvalid,
    SignetInvalid,
    /// The DX failed; the word is [`crate::dmtp::client::Error::reason`].
    Dx(&'static str),
    /// The visit took too long as a whole.
    Deadline,
    /// The log had an entry by then that was not known when the visit judged: it
    /// is visited again at once.
    Overtaken,
    /// The log took nothing, or our own stores failed.
    Ours,
}

impl Outcome {
    /// A short, stable word for records and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Confirmed => "confirmed",
            Outcome::Changed => "changed",
            Outcome::Coalesced => "coalesced",
            Outcome::Claimed => "claimed",
            Outcome::NoRecord => "no-record",
            Outcome::RecordGone => "record-gone",
            Outcome::Forgotten => "forgotten",
            Outcome::NotFound => "not-found",
            Outcome::NotInForce => "not-in-force",
            Outcome::DnsBogus => "dns-bogus",
            Outcome::DnsBogusUnconfirmed => "dns-bogus-unconfirmed",
            Outcome::DnsFailed => "dns-failed",
            Outcome::RecordRefused => "record-refused",
            Outcome::RecordAmbiguous => "record-ambiguous",
            Outcome::NoHost => "no-host",
            Outcome::HostBusy => "host-busy",
            Outcome::HostResting => "host-resting",
            Outcome::OrgSignetInvalid => "org-signet-invalid",
            Outcome::SignetInvalid => "signet-invalid",
            Outcome::Dx(word) => word,
            Outcome::Deadline => "deadline",
            Outcome::Overtaken => "overtaken",
            Outcome::Ours => "ours",
        }
    }

    /// Whether the next visit can wait its usual time.
    pub fn is_good(self) -> bool {
        matches!(
            self,
            Outcome::Confirmed
                | Outcome::Changed
                | Outcome::Coalesced
                | Outcome::Claimed
                | Outcome::RecordGone
                | Outcome::Forgotten
                | Outcome::NotFound
                | Outcome::NotInForce
                | Outcome::Overtaken
        )
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What one visit did. It holds addresses: not for log lines.
#[derive(Clone, Debug)]
pub struct Report {
    pub domain: Domain,
    pub outcome: Outcome,
    /// What made the outcome, in words without addresses.
    pub detail: Option<String>,
    /// How DNS protected the record, if there was an answer.
    pub dnssec: Option<Dnssec>,
    /// What made the DX's certificate acceptable, if one was reached.
    pub certificate: Option<How>,
    pub users: Vec<(Address, Outcome)>,
    pub entries: Vec<Entered>,
    pub started: Timestamp,
    pub ended: Timestamp,
    /// How long it took, and no longer though the clock was set meanwhile.
    pub took: Duration,
    /// When DNS wants to be asked again.
    pub refresh: Timestamp,
    /// When the host may be asked again, if it was not.
    pub later: Option<Timestamp>,
    /// The visit before this one; zero: none is remembered.
    pub previous: Timestamp,
    /// When what was seen as before was seen, not written down yet.
    pub(super) seen: Vec<SeenRow>,
}

/// A draft of a visit that went to the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entered {
    pub name: Name,
    pub events: Events,
    pub placed: Placed,
}

impl Report {
    pub(super) fn new(domain: &Domain, now: Timestamp) -> Report {
        Report {
            domain: domain.clone(),
            outcome: Outcome::Ours,
            detail: None,
            dnssec: None,
            certificate: None,
            users: Vec::new(),
            entries: Vec::new(),
            started: now,
            ended: now,
            took: Duration::ZERO,
            refresh: now,
            later: None,
            previous: Timestamp::default(),
            seen: Vec::new(),
        }
    }

    /// Whether the visit put an entry for this name into the log, saw again what
    /// is in it, or found that it is in there by now.
    pub(super) fn has(&self, name: &Name) -> bool {
        let is_known = |outcome| match outcome {
            Outcome::Confirmed | Outcome::Claimed | Outcome::NotInForce => true,
            outcome => outcome == Outcome::Overtaken,
        };
        let is_logged = |entered: &Entered| {
            entered.name == *name && matches!(entered.placed, Placed::Version(_))
        };
        self.entries.iter().any(is_logged)
            || self.outcome == Outcome::Overtaken && name.address().is_none()
            || self
                .users
                .iter()
                .any(|(user, outcome)| name.address() == Some(user) && is_known(*outcome))
    }

    /// What it says of a mailbox that was looked for.
    pub(super) fn search(&self, address: &Address) -> Search {
        let is_over = |outcome| matches!(outcome, Outcome::NotFound | Outcome::Forgotten);
        if self.has(&Name::Address(address.clone())) {
            Search::Found
        } else if self.users.iter().any(|(user, outcome)| user == address && is_over(*outcome)) {
            Search::Over
        } else {
            Search::GoesOn
        }
    }

    /// One line per visit; domains and words, no addresses.
    pub(super) fn tell(&self) {
        let entries = self.entries.len();
        let detail = self.detail.as_deref().unwrap_or_default();
        let (domain, outcome) = (&self.domain, self.outcome.as_str());
        if self.outcome.is_good() {
            tracing::debug!(%domain, outcome, entries, "visited");
        } else {
            tracing::info!(%domain, outcome, detail, entries, "visit failed");
        }
    }
}
