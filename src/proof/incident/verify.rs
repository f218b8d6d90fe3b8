//! Judging an incident: offline, at its own time.
//!
//! What is proved rests on a signature that only one party can have made.
//! Everything else is told apart: what is so of these bytes whoever made them,
//! and what somebody says. A mirror is convicted by its own signatures and by
//! nothing less; two mirrors that contradict each other convict neither.

use std::fmt;

use super::{Evidence, Incident, Kind, answers, log, received, shown};
use crate::dime::{Domain, Name, Rejection, Timestamp};
use crate::proof::dnssec::Anchor;
use crate::proof::map::MapFault;
use crate::proof::note::VerifierKey;
use crate::proof::policy::Policy;
use crate::proof::{receipt, replay};

/// What an incident is worth.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Whose signatures prove a deed, and which; `None`: nobody's.
    pub convicts: Option<Conviction>,
    /// Rests on signatures inside, a sentence each.
    pub proved: Vec<String>,
    /// So of these bytes, which anybody can have made.
    pub checked: Vec<String>,
    /// Rests on somebody's word, and whose.
    pub testimony: Vec<String>,
}

/// A party and what its signatures prove of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conviction {
    pub party: Party,
    /// Goes on from the party: `signed two histories of its log`.
    pub deed: String,
}

/// Who made signatures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Party {
    /// The holder of a POK, or of a secondary key that it vouches for.
    Organization { domain: Domain, pok: [u8; 32] },
    /// The holder of a DNS zone's keys: the operator, or whoever gave the zone
    /// its keys from above. `.` is the root.
    Zone(String),
    /// The holder of a log's key, which is a mirror, or of a cosigner's.
    Mirror { key: VerifierKey },
}

/// Why an incident is refused: what it says is not so, or its evidence does not
/// hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("the key is not one of a log")]
    Key,
    #[error("a checkpoint of another log than the key's")]
    Origin,
    #[error("check a checkpoint: {0}")]
    Checkpoint(Rejection),
    #[error("the smaller checkpoint has more leaves")]
    Order,
    #[error("check the proof between the checkpoints: {0}")]
    Consistency(Rejection),
    #[error("the two checkpoints agree")]
    Agree,
    #[error("leaf {index} is not in the checkpoint")]
    Inclusion { index: u64 },
    #[error("the leaves do not break this rule")]
    Unbroken,
    #[error("{0}: it accuses nobody")]
    UnknownFormat(replay::Unknown),
    #[error("check what the map held before: {0}")]
    Tip(MapFault),
    #[error("a label of the batch has no proof")]
    Lack,
    #[error("the leaves are not what an incident of this kind shows")]
    Leaves,
    #[error("receipt {number}: {fault}")]
    Receipt { number: usize, fault: Box<receipt::Fault> },
    #[error("receipt {number} is about another name")]
    ReceiptName { number: usize },
    #[error("two receipts are of one log")]
    OneLog,
    #[error("the logs agree about the name")]
    Same,
    #[error("no log here holds anything of the name")]
    Absent,
    #[error("each log looked afresh less than twice, or not by turns")]
    Rounds,
    #[error("check what was shown: {0}")]
    Shown(Rejection),
    #[error("a log knows the key that was shown")]
    KnownKey,
    #[error("something was seen after the incident's own time")]
    Time,
    #[error("what is here is not what the kind says")]
    Otherwise,
}

impl Fault {
    /// The rule's name.
    pub fn rule(&self) -> &'static str {
        match self {
            Fault::Key => "incident-key",
            Fault::Origin => "incident-origin",
            Fault::Checkpoint(rejection) => rejection.rule,
            Fault::Order => "incident-order",
            Fault::Consistency(_) => "incident-consistency",
            Fault::Agree => "incident-agree",
            Fault::Inclusion { .. } => "incident-inclusion",
            Fault::Unbroken => "incident-unbroken",
            Fault::UnknownFormat(_) => "unknown-format",
            Fault::Tip(fault) => fault.rule(),
            Fault::Lack => "incident-lack",
            Fault::Leaves => "incident-leaves",
            Fault::Receipt { fault, .. } => fault.rule(),
            Fault::ReceiptName { .. } => "incident-name",
            Fault::OneLog => "incident-one-log",
            Fault::Same => "incident-same",
            Fault::Absent => "incident-absent",
            Fault::Rounds => "incident-rounds",
            Fault::Shown(rejection) => rejection.rule,
            Fault::KnownKey => "incident-known-key",
            Fault::Time => "incident-time",
            Fault::Otherwise => "incident-otherwise",
        }
    }
}

/// Judges an incident at its own time.
///
/// `anchors` are the keys of the DNS root that chains must lead to; without
/// them no chain proves anything. A `policy` says which log keys are known: it
/// changes no proof, but who is named by it.
pub fn verify(
    incident: &Incident,
    anchors: &[Anchor],
    policy: Option<&Policy>,
) -> Result<Findings, Fault> {
    let case = Case { incident, anchors, policy };
    let mut findings = match &incident.evidence {
        Evidence::Fork(fork) => log::fork(&case, fork)?,
        Evidence::Entries(entries) => log::entries(&case, entries)?,
        Evidence::Receipts(seen) => answers::receipts(&case, seen)?,
        Evidence::Victim(victim) => shown::victim(&case, victim)?,
        Evidence::Received(received) => received::received(&case, received)?,
    };
    findings.testimony.push(format!(
        "{} wrote this file, and saw all this at {}: the file says so, and nobody signed it.",
        case.observer(),
        incident.at
    ));
    Ok(findings)
}

/// What is judged, and by what.
pub(super) struct Case<'a> {
    pub incident: &'a Incident,
    pub anchors: &'a [Anchor],
    pub policy: Option<&'a Policy>,
}

impl Case<'_> {
    pub fn at(&self) -> Timestamp {
        self.incident.at
    }

    pub fn kind(&self) -> Kind {
        self.incident.kind
    }

    /// The name, of a kind that has one.
    pub fn name(&self) -> Result<&Name, Fault> {
        self.incident.name.as_ref().ok_or(Fault::Otherwise)
    }

    pub fn observer(&self) -> String {
        match self.incident.observer.as_str() {
            super::CLIENT => "A client".to_owned(),
            origin => format!("The mirror {origin}"),
        }
    }

    /// Whether the asker believes this log key.
    pub fn knows(&self, key: &VerifierKey) -> bool {
        self.policy
            .and_then(|policy| policy.log(key.name()))
            .is_some_and(|log| log.key.public_key() == key.public_key())
    }
}

impl Findings {
    /// Whether anything is proved of anybody.
    pub fn proves(&self) -> bool {
        !self.proved.is_empty()
    }

    pub(super) fn convict(&mut self, party: Party, deed: impl Into<String>) {
        self.convicts = Some(Conviction { party, deed: deed.into() });
    }
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Party::Organization { domain, .. } => {
                write!(f, "the organization {domain} (whoever holds its keys)")
            }
            Party::Zone(zone) => write!(f, "the DNS zone {zone} (whoever holds its keys)"),
            Party::Mirror { key } => write!(f, "the mirror {} (whoever holds its key)", key.name()),
        }
    }
}

impl Kind {
    /// What an incident of this kind says, in a sentence.
    pub fn meaning(self) -> &'static str {
        match self {
            Kind::SplitView => {
                "Mirrors that looked afresh, by turns, see different keys for one name."
            }
            Kind::UpdateWithheld => {
                "One mirror is still shown what another one saw long before: an update is kept \
                 from it."
            }
            Kind::ChainRestarted => {
                "A mailbox has a new key that the old one did not sign. A swapped key looks like \
                 this, and so does an honest new start after a lost key."
            }
            Kind::ChainGap => {
                "A mailbox has a new key, signed by a key that nobody has seen. Links in between \
                 are missing, or it is a swap."
            }
            Kind::ChainForked => "Two keys claim to follow the same key of a mailbox.",
            Kind::ChainReverted => "The mail host serves an older key of a mailbox again.",
            Kind::SignetWithdrawn => "The mail host no longer serves the key of a mailbox.",
            Kind::PokReplaced => {
                "The domain's record has other primary keys than before, with none in common."
            }
            Kind::RecordWithdrawn => "The domain's record was taken back before its time was over.",
            Kind::RecordExpired => "The domain's record is gone, and its time is over.",
            Kind::Downgrade => {
                "A domain that took encrypted mail only does not say so any more: mail to it may \
                 go unprotected."
            }
            Kind::DnssecLost => "The domain's record is no longer protected by DNSSEC.",
            Kind::DnssecBogus => "The domain's DNSSEC signatures do not verify.",
            Kind::NameConflict => "The two DNS names of the record give different keys.",
            Kind::RecordRefused => "The domain's record breaks the rules.",
            Kind::RecordAmbiguous => "Several texts claim to be the domain's record.",
            Kind::CertificateMismatch => {
                "The mail host showed a certificate that the domain's record does not allow."
            }
            Kind::OrgSignetInvalid => "The mail host served an org signet that is not valid.",
            Kind::SignetInvalid => "The mail host served a signet that is not valid.",
            Kind::LinkInvalid => "A link of a mailbox's key history is not valid.",
            Kind::Coalesced => "The name changed more often than the log takes in a day.",
            Kind::VantageDiffers => {
                "Two places were shown different keys for one name, and again a while later."
            }
            Kind::LogFork => "A mirror signed two histories of its log.",
            Kind::DirectoryRootWrong => "A mirror signed a directory that its log does not make.",
            Kind::RuleBroken => "A mirror signed a log entry that breaks the rules.",
            Kind::BlobUnserved => "A mirror names bytes in its log that it does not give out.",
            Kind::StaleMirror => "A mirror gave nothing newer than an old state of its log.",
            Kind::ForgedKey => "A client was shown a key that no log has.",
        }
    }
}
