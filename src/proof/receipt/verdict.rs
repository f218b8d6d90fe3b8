//! The outcomes of judging a receipt: what it proves, and why one is refused.

use std::fmt;

use bytes::Bytes;

use super::lineage::CarryFault;
use crate::dime::{Dnssec, Name, Rejection, Timestamp};
use crate::proof::entry::{Events, Misfit, SignetFacts};
use crate::proof::map::MapFault;
use crate::proof::policy;
use crate::proof::relation::Sights;
use crate::proof::vrf::VrfFault;
use crate::proof::wire::Malformed;
use crate::proof::{Hash, Label};

/// The outcome for a receipt in which nothing is wrong. The two are different
/// values on purpose: only one of them says that anybody vouches for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It agrees with itself; signer unknown.
    SelfConsistent(Statement),
    /// The asker's policy is satisfied.
    Trusted(Statement, Backing),
}

/// What stands behind a trusted statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backing {
    /// False with `quorum none`: only the log's word and clock.
    pub quorum: bool,
    /// Cosigners that counted, by their name in the policy, with their times.
    pub cosigners: Vec<(String, Timestamp)>,
    /// The state is the latest as of this time.
    pub as_of: Timestamp,
    /// What is weak about the policy.
    pub warnings: Vec<policy::Warning>,
}

/// What the receipt proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    pub name: Name,
    pub label: Label,
    pub word: Word,
    pub notes: Vec<Note>,
    pub origin: String,
    pub log_key: [u8; 32],
    /// Entries in the log.
    pub size: u64,
    /// Of the directory root.
    pub root_time: Timestamp,
    /// The newest version, 0 for an absent name.
    pub latest: u64,
    /// The version in force, 0 for none.
    pub current: u64,
    /// Events of the versions after `current`; of the latest alone if that is in
    /// force or nothing is.
    pub events: Events,
    /// The later of the name's and its domain's.
    pub held_until: Option<Timestamp>,
    /// 0 for never.
    pub confirmed_at: Timestamp,
    /// For a mailbox, what the payload of `current` says of its signet.
    pub facts: Option<SignetFacts>,
    /// When the log says it received that signet.
    pub observed: Option<Timestamp>,
    /// The user or org signet in force, where its bytes are here.
    pub signet: Option<Bytes>,
    /// Of the domain, at the version in force.
    pub poks: Vec<[u8; 32]>,
    /// Of the domain's record that was used.
    pub dnssec: Option<Dnssec>,
    /// What the log says that it saw, as far as the receipt goes back.
    pub sights: Sights,
    pub content: Content,
    /// The log has ended, and says who goes on. Whether to believe that one is
    /// for its operator and the asker to settle (threat 18).
    pub successor: Option<Successor>,
}

/// The log that took over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Successor {
    pub origin: String,
    pub log_key: [u8; 32],
}

/// Whether the strangers' bytes behind the hashes were examined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// There is none: absent, forgotten, nothing in force.
    None,
    /// Record, org signet and signet are here, and valid.
    Checked,
    /// Some are not here, so only their hashes are proved.
    Unchecked { left_out: Vec<Hash>, withdrawn: Vec<Hash> },
}

/// The verdict in a word. The first that applies, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// The log holds nothing of this name.
    Absent,
    /// The owner had it erased, and nothing came since.
    Forgotten,
    /// There was something, and it has expired.
    NoneInForce,
    /// A new key without the old one's consent, too fresh to be relied on.
    Held,
    /// The DX stopped serving it, or the record is gone: the last one stands.
    Withdrawn,
    /// The log's statement holds; the bytes themselves were not all here.
    Unchecked,
    /// Not seen at the DX for longer than the policy allows.
    Unconfirmed,
    Valid,
}

/// What else should be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// A key that signed the signet is no longer the domain's.
    SignerRetired,
    /// Whether it is could not be seen: an org signet is not here.
    SignerNotCompared,
    /// The organization's signature does not cover the name: it rests on the
    /// log's word about the channel.
    NameUnsigned,
    /// Age and completeness rest on the log and its clock.
    LogClock,
    /// The domain's record was not protected by DNSSEC.
    DnssecNotSecure(Dnssec),
    /// The domain has no record in force any more.
    DomainNotInForce,
    /// The domain's latest entry: what happened to it since.
    DomainEvents(Events),
    /// The operator withdrew this many of the blobs named here.
    Withdrawn(usize),
    /// The log has no org signet of this domain.
    NoOrgSignet,
    /// The DNSSEC chain does not lead to the root keys that were tried: the
    /// status rests on the log's word. Only who tries again without says so.
    DnssecUnchecked,
    /// The log has ended: nothing newer will be in it.
    LogClosed,
}

/// Why a receipt is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("read the receipt: {0}")]
    Malformed(#[from] Malformed),
    #[error("check the checkpoint: {0}")]
    Checkpoint(Rejection),
    #[error("the policy's quorum is not met: {0}")]
    Quorum(String),
    #[error("cosignatures too old: this was the latest as of {as_of}")]
    Stale { as_of: Timestamp },
    #[error("the directory root is more than 5 minutes ahead")]
    Future,
    #[error("read the directory root: {0}")]
    RootEntry(Malformed),
    #[error("the last leaf is not a directory root, or covers another size")]
    RootKind,
    #[error("the directory root is not the last leaf of the checkpoint")]
    RootInclusion,
    #[error("no genesis entry, here or remembered")]
    GenesisMissing,
    #[error("read the genesis entry: {0}")]
    GenesisEntry(Malformed),
    #[error("leaf 0 is not a genesis entry")]
    GenesisKind,
    #[error("the genesis entry is not leaf 0 of the checkpoint")]
    GenesisInclusion,
    #[error("the genesis entry is not the one remembered")]
    GenesisDiffers,
    #[error("the genesis entry is for another origin")]
    Origin,
    #[error("the genesis entry is for another log key")]
    LogKey,
    #[error("a VRF proof is missing, or stands beside a domain")]
    VrfProof,
    #[error("check the VRF proof: {0}")]
    Vrf(#[from] VrfFault),
    #[error("version {version}: read the entry: {fault}")]
    Entry { version: u64, fault: Malformed },
    #[error("version {version}: an entry of another kind or label")]
    Label { version: u64 },
    #[error("an entry has version {found} where {expected} comes next")]
    Version { expected: u64, found: u64 },
    #[error("version {version}: the events do not fit: {misfit}")]
    Misfit { version: u64, misfit: Misfit },
    #[error("version {version}: `current` and the events do not fit")]
    Current { version: u64 },
    #[error("version {version}: older than the one before it, or younger than the root")]
    Time { version: u64 },
    #[error("the version in force is not among the items")]
    CurrentMissing,
    #[error("a chain value without items")]
    Leftover,
    #[error("check the map proof: {0}")]
    Map(#[from] MapFault),
    #[error("version {version}: the payload is missing")]
    PayloadMissing { version: u64 },
    #[error("version {version}: a payload where none belongs")]
    PayloadUnexpected { version: u64 },
    #[error("version {version}: read the payload: {fault}")]
    Payload { version: u64, fault: Malformed },
    #[error("version {version}: the payload does not open the commitment")]
    Commitment { version: u64 },
    #[error("version {version}: the payload and the events disagree about a signet")]
    PayloadKind { version: u64 },
    #[error("the domain's part is missing")]
    DomainMissing,
    #[error("a part about a domain beside a domain")]
    DomainUnexpected,
    #[error("the domain's version {version} is not here, or was not in force then")]
    DomainVersion { version: u64 },
    #[error("the blobs do not ascend by SHA-256")]
    BlobOrder,
    #[error("a blob that no item names, or that is there and withdrawn")]
    BlobStray,
    #[error("a blob is missing: {}", hex::encode(.0))]
    BlobMissing(Hash),
    #[error("a blob has another length than the entry says")]
    BlobLength,
    #[error("read the management record: {0}")]
    Record(Rejection),
    #[error("the entry and the management record have different POKs")]
    RecordPoks,
    #[error("check the DNSSEC chain: {0}")]
    DnssecChain(Rejection),
    #[error("the entry names no org signet, and a mailbox needs one")]
    NoOrgSignet,
    #[error("check the org signet: {0}")]
    OrgSignet(Rejection),
    #[error("version {version}: check the signet: {rejection}")]
    UserSignet { version: u64, rejection: Rejection },
    #[error("version {version}: the signet is not what the payload says of it")]
    SignetFacts { version: u64 },
    #[error("version {version}: ROTATED without the old key's signature: {rejection}")]
    Custody { version: u64, rejection: Rejection },
    #[error("check the log's word about when it was seen: {0}")]
    Seen(Rejection),
    #[error("the log says it was seen in the future, or before it was asked for")]
    SeenTime,
    #[error("follow it to the log before: {0}")]
    Carry(#[from] CarryFault),
    #[error("the closing entry is none, or not where it belongs")]
    Closing,
}

impl Fault {
    /// The rule's name, the same in the second verifier.
    pub fn rule(&self) -> &'static str {
        match self {
            Fault::Malformed(fault) => fault.rule(),
            Fault::Checkpoint(rejection) => rejection.rule,
            Fault::Quorum(_) => "quorum",
            Fault::Stale { .. } => "stale",
            Fault::Future => "future",
            Fault::RootEntry(fault) | Fault::GenesisEntry(fault) => fault.rule(),
            Fault::RootKind => "root-kind",
            Fault::RootInclusion => "root-inclusion",
            Fault::GenesisMissing => "genesis-missing",
            Fault::GenesisKind => "genesis-kind",
            Fault::GenesisInclusion => "genesis-inclusion",
            Fault::GenesisDiffers => "genesis-differs",
            Fault::Origin => "origin",
            Fault::LogKey => "log-key",
            Fault::VrfProof => "vrf-proof",
            Fault::Vrf(_) => "vrf",
            Fault::Entry { fault, .. } | Fault::Payload { fault, .. } => fault.rule(),
            Fault::Label { .. } => "label",
            Fault::Version { .. } => "version",
            Fault::Misfit { .. } => "events",
            Fault::Current { .. } => "current",
            Fault::Time { .. } => "time",
            Fault::CurrentMissing => "current-missing",
            Fault::Leftover => "leftover",
            Fault::Map(fault) => fault.rule(),
            Fault::PayloadMissing { .. } => "payload-missing",
            Fault::PayloadUnexpected { .. } => "payload-unexpected",
            Fault::Commitment { .. } => "commitment",
            Fault::PayloadKind { .. } => "payload-kind",
            Fault::DomainMissing => "domain-missing",
            Fault::DomainUnexpected => "domain-unexpected",
            Fault::DomainVersion { .. } => "domain-version",
            Fault::BlobOrder => "blob-order",
            Fault::BlobStray => "blob-stray",
            Fault::BlobMissing(_) => "blob-missing",
            Fault::BlobLength => "blob-length",
            Fault::Record(_) => "record",
            Fault::RecordPoks => "record-poks",
            Fault::DnssecChain(_) => "dnssec-chain",
            Fault::NoOrgSignet => "no-org-signet",
            Fault::OrgSignet(_) => "org-signet",
            Fault::UserSignet { .. } => "user-signet",
            Fault::SignetFacts { .. } => "signet-facts",
            Fault::Custody { .. } => "custody",
            Fault::Seen(_) => "seen",
            Fault::SeenTime => "seen-time",
            Fault::Carry(fault) => fault.rule(),
            Fault::Closing => "closing",
        }
    }
}

impl Verdict {
    pub fn statement(&self) -> &Statement {
        match self {
            Verdict::SelfConsistent(statement) | Verdict::Trusted(statement, _) => statement,
        }
    }

    /// Whether the asker's policy stands behind it.
    pub fn is_trusted(&self) -> bool {
        matches!(self, Verdict::Trusted(..))
    }

    /// What the second verifier prints too: trust, word, notes, versions, events.
    pub fn summary(&self) -> serde_json::Value {
        let statement = self.statement();
        let notes: Vec<String> = statement.notes.iter().map(ToString::to_string).collect();
        serde_json::json!({
            "trust": if self.is_trusted() { "trusted" } else { "consistent, signer unknown" },
            "word": statement.word.to_string(),
            "name": statement.name.as_str(),
            "origin": statement.origin,
            "size": statement.size,
            "latest": statement.latest,
            "current": statement.current,
            "events": statement.events.to_string(),
            "notes": notes,
        })
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Word::Absent => "ABSENT",
            Word::Forgotten => "FORGOTTEN",
            Word::NoneInForce => "NONE IN FORCE",
            Word::Held => "HELD",
            Word::Withdrawn => "WITHDRAWN",
            Word::Unchecked => "UNCHECKED",
            Word::Unconfirmed => "UNCONFIRMED",
            Word::Valid => "VALID",
        })
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::SignerRetired => f.write_str("SIGNER RETIRED"),
            Note::SignerNotCompared => f.write_str("SIGNER NOT COMPARED"),
            Note::NameUnsigned => f.write_str("NAME UNSIGNED"),
            Note::LogClock => f.write_str("RESTS ON THE LOG'S CLOCK"),
            Note::DnssecNotSecure(status) => write!(f, "DNSSEC {status}"),
            Note::DomainNotInForce => f.write_str("DOMAIN NOT IN FORCE"),
            Note::DomainEvents(events) => write!(f, "DOMAIN: {events}"),
            Note::Withdrawn(count) => write!(f, "{count} BLOBS WITHDRAWN"),
            Note::NoOrgSignet => f.write_str("NO ORG SIGNET"),
            Note::DnssecUnchecked => f.write_str("DNSSEC UNCHECKED"),
            Note::LogClosed => f.write_str("LOG CLOSED"),
        }
    }
}
