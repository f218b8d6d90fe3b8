//! A whole accusation in one file: what somebody saw, and all that is needed to
//! judge it without a network.
//!
//! This file is the incident and its parts; `json` is its one written form,
//! [`verify`] says what it proves, about whom, and what rests on somebody's
//! word. Layout and rules: `proto/README.md`. Left out: where incidents are kept
//! and who may read them.
//!
//! Nobody signs an incident. What it proves, it proves by the signatures inside;
//! the rest is the testimony of whoever wrote it.

mod answers;
mod batch;
mod json;
mod log;
mod part_map;
mod received;
mod shown;
mod verify;
mod zone;

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::checkpoint::SignedCheckpoint;
use super::entry::Event;
use super::map::MapProof;
use super::note::VerifierKey;
use super::receipt::{Leaf, Receipt};
use super::{Hash, Label};
use crate::dime::{Name, Rejection, Timestamp};

pub use batch::Counterpart;
pub use part_map::{Lack, PartMap};
pub use verify::{Conviction, Fault, Findings, Party, verify};

/// The `format` of the incidents that this code writes and knows.
pub const FORMAT: u64 = 1;
/// Longest file, bytes.
pub const MAX_INCIDENT: usize = 8 * 1024 * 1024;
/// Longest received thing in one, bytes.
pub const MAX_RECEIVED: usize = 1024 * 1024;
/// Most receipts in one.
pub const MAX_RECEIPTS: usize = 8;
/// Most fresh crawls that one tells of.
pub const MAX_ROUNDS: usize = 32;
/// Most leaves, and most labels with their proofs, in one.
pub const MAX_LEAVES: usize = 4096;
/// Most blobs beside the entries of one.
pub const MAX_BLOBS: usize = 64;
/// Longest rule's name, bytes.
pub const MAX_RULE: usize = 64;
/// Longest text in the observer's words, bytes.
pub const MAX_MESSAGE: usize = 1024;
/// The observer that is no mirror.
pub const CLIENT: &str = "client";

/// What somebody saw, with the evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incident {
    pub kind: Kind,
    /// Whom it is about: a domain, a mailbox; `None` for what a mirror did.
    pub name: Option<Name>,
    /// When it was seen. Judged at this time (threat 30).
    pub at: Timestamp,
    /// Origin of the observing mirror's log, or [`CLIENT`]. Signed by nobody.
    pub observer: String,
    pub evidence: Evidence,
}

/// What an incident says happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Two mirrors, each crawling afresh, see different keys.
    SplitView,
    /// One mirror sees for a day only what the other saw before.
    UpdateWithheld,
    /// A mailbox's new key without the old one's consent.
    ChainRestarted,
    /// Custody by a key that was never seen.
    ChainGap,
    /// A second signet under the custody of one key.
    ChainForked,
    /// A signet that was rotated away from is served again.
    ChainReverted,
    /// The host no longer serves a mailbox's signet.
    SignetWithdrawn,
    /// No key of the record is one that was in force.
    PokReplaced,
    /// The record is gone before it expired.
    RecordWithdrawn,
    /// The record is gone, and its time is over.
    RecordExpired,
    /// A domain that took DIME only has no record any more.
    Downgrade,
    /// What DNSSEC proved before it does not prove now.
    DnssecLost,
    /// DNSSEC does not verify, on more than one path.
    DnssecBogus,
    /// `_dime` and `_dx` name different keys.
    NameConflict,
    RecordRefused,
    /// Several texts claim to be the record.
    RecordAmbiguous,
    /// The DX showed a certificate that the record does not allow.
    CertificateMismatch,
    OrgSignetInvalid,
    SignetInvalid,
    /// A link of a history verifies under no org signet ever seen.
    LinkInvalid,
    /// Valid, and over a name's quota of entries.
    Coalesced,
    /// Two places that one mirror looks from were shown different keys, twice.
    VantageDiffers,
    /// A log key signed two histories.
    LogFork,
    /// A log key signed a directory root that its entries do not make.
    DirectoryRootWrong,
    /// A log key signed an entry that breaks a rule.
    RuleBroken,
    /// A log names bytes that it does not serve.
    BlobUnserved,
    /// A log gives nothing newer than an old state.
    StaleMirror,
    /// A client was shown a key that no log of its policy knows.
    ForgedKey,
}

/// What the incident has to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evidence {
    Receipts(Receipts),
    Fork(Box<Fork>),
    Entries(Box<Entries>),
    Received(Box<Received>),
    Victim(Box<Victim>),
}

/// What several logs answered about one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipts {
    /// Of different logs, 2 to 8.
    pub receipts: Vec<Receipt>,
    /// Each time that a mirror looked at the name afresh, in order.
    pub rounds: Vec<Round>,
}

/// A fresh crawl, by the word of the mirror that made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Round {
    /// Of the log of the mirror that looked.
    pub origin: String,
    pub at: Timestamp,
}

/// Two checkpoints of one log key that cannot both be true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fork {
    /// The log's, type 01.
    pub key: VerifierKey,
    /// The one with fewer leaves.
    pub smaller: SignedCheckpoint,
    pub larger: SignedCheckpoint,
    /// The root that the larger tree has at the smaller size; of equal sizes
    /// the larger one's own. It is not the root of `smaller`.
    pub prefix: Hash,
    /// Proves `prefix` in the larger tree; empty for equal sizes.
    pub proof: Vec<Hash>,
}

/// Leaves of a log, under a checkpoint that its key signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entries {
    /// The log's, type 01.
    pub key: VerifierKey,
    pub checkpoint: SignedCheckpoint,
    /// Ascending by index, each once.
    pub leaves: Vec<Placed>,
    /// What the map held of labels before the batch, under the root that is the
    /// first leaf. For a wrong directory root: of all labels of the batch.
    pub tips: Vec<TipProof>,
    /// Bytes that the leaves name.
    pub blobs: Vec<Bytes>,
    /// The rule that is broken, as the replay names it
    /// ([`super::replay::Broken::rule`]) or [`super::observation::verify`]. For
    /// unserved bytes, which: `record`, `org-signet`, `dnssec-chain`. For a
    /// stale mirror `stale`.
    pub rule: String,
}

/// A leaf and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    pub index: u64,
    pub leaf: Leaf,
}

/// What a directory root says of a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TipProof {
    pub label: Label,
    /// 0: the map does not hold the label.
    pub version: u64,
    /// After that version; 32 zero bytes for version 0.
    pub chain: Hash,
    pub map: MapProof,
    /// The entry of that version, and the chain value before it. Without it
    /// `current` and the side of the label are not judged.
    pub last: Option<(Bytes, Hash)>,
}

/// What one mirror received, and what was in force before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// The rule that it broke; of an alarm the event's name.
    pub rule: String,
    /// The same in the observer's words, without a mailbox's name.
    pub message: String,
    /// What was refused, as it came: a signet, a certificate (DER), a text;
    /// several texts parted by LF. Empty for what has its place in `now`.
    pub bytes: Bytes,
    pub now: Shown,
    /// Of an alarm: what was in force until then.
    pub before: Option<Shown>,
}

/// What DNS and DX showed of a name at a time; empty where nothing was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    pub at: Timestamp,
    /// Text of the management record.
    pub record: Bytes,
    /// The DNSSEC chain of that record, or of there being none.
    pub chain: Bytes,
    pub org_signet: Bytes,
    /// For a mailbox.
    pub signet: Bytes,
}

/// A key that a client was shown, and what the logs say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Victim {
    pub shown: Shown,
    /// 1 to 8, of logs that the client asked at that time.
    pub receipts: Vec<Receipt>,
}

impl Kind {
    pub const ALL: [Kind; 28] = [
        Kind::SplitView,
        Kind::UpdateWithheld,
        Kind::ChainRestarted,
        Kind::ChainGap,
        Kind::ChainForked,
        Kind::ChainReverted,
        Kind::SignetWithdrawn,
        Kind::PokReplaced,
        Kind::RecordWithdrawn,
        Kind::RecordExpired,
        Kind::Downgrade,
        Kind::DnssecLost,
        Kind::DnssecBogus,
        Kind::NameConflict,
        Kind::RecordRefused,
        Kind::RecordAmbiguous,
        Kind::CertificateMismatch,
        Kind::OrgSignetInvalid,
        Kind::SignetInvalid,
        Kind::LinkInvalid,
        Kind::Coalesced,
        Kind::VantageDiffers,
        Kind::LogFork,
        Kind::DirectoryRootWrong,
        Kind::RuleBroken,
        Kind::BlobUnserved,
        Kind::StaleMirror,
        Kind::ForgedKey,
    ];

    /// The word in files, listings and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::SplitView => "split-view",
            Kind::UpdateWithheld => "update-withheld",
            Kind::ChainRestarted => "chain-restarted",
            Kind::ChainGap => "chain-gap",
            Kind::ChainForked => "chain-forked",
            Kind::ChainReverted => "chain-reverted",
            Kind::SignetWithdrawn => "signet-withdrawn",
            Kind::PokReplaced => "pok-replaced",
            Kind::RecordWithdrawn => "record-withdrawn",
            Kind::RecordExpired => "record-expired",
            Kind::Downgrade => "downgrade",
            Kind::DnssecLost => "dnssec-lost",
            Kind::DnssecBogus => "dnssec-bogus",
            Kind::NameConflict => "name-conflict",
            Kind::RecordRefused => "record-refused",
            Kind::RecordAmbiguous => "record-ambiguous",
            Kind::CertificateMismatch => "certificate-mismatch",
            Kind::OrgSignetInvalid => "org-signet-invalid",
            Kind::SignetInvalid => "signet-invalid",
            Kind::LinkInvalid => "link-invalid",
            Kind::Coalesced => "coalesced",
            Kind::VantageDiffers => "vantage-differs",
            Kind::LogFork => "log-fork",
            Kind::DirectoryRootWrong => "directory-root-wrong",
            Kind::RuleBroken => "rule-broken",
            Kind::BlobUnserved => "blob-unserved",
            Kind::StaleMirror => "stale-mirror",
            Kind::ForgedKey => "forged-key",
        }
    }

    /// The kind of an alarm; `None` for an event that is none.
    pub fn of_event(event: Event) -> Option<Kind> {
        Some(match event {
            Event::Restarted => Kind::ChainRestarted,
            Event::Gap => Kind::ChainGap,
            Event::Forked => Kind::ChainForked,
            Event::Reverted => Kind::ChainReverted,
            Event::Withdrawn => Kind::SignetWithdrawn,
            Event::PokReplaced => Kind::PokReplaced,
            Event::RecordWithdrawn => Kind::RecordWithdrawn,
            Event::RecordExpired => Kind::RecordExpired,
            Event::DnssecLost => Kind::DnssecLost,
            Event::DnssecBogus => Kind::DnssecBogus,
            Event::NameConflict => Kind::NameConflict,
            _ => return None,
        })
    }

    /// Whether it is about what a mirror did, and has no name.
    pub fn is_of_mirror(self) -> bool {
        matches!(
            self,
            Kind::LogFork
                | Kind::DirectoryRootWrong
                | Kind::RuleBroken
                | Kind::BlobUnserved
                | Kind::StaleMirror
        )
    }

    /// Whether an incident of this kind may be about such a name.
    fn takes(self, name: Option<&Name>) -> bool {
        let of_mailbox = matches!(
            self,
            Kind::ChainRestarted
                | Kind::ChainGap
                | Kind::ChainForked
                | Kind::ChainReverted
                | Kind::SignetWithdrawn
                | Kind::SignetInvalid
                | Kind::LinkInvalid
        );
        let of_either = matches!(
            self,
            Kind::SplitView | Kind::UpdateWithheld | Kind::ForgedKey | Kind::Coalesced
        );
        match name {
            None => self.is_of_mirror(),
            Some(Name::Address(_)) => of_mailbox || of_either,
            Some(Name::Domain(_)) => !of_mailbox && !self.is_of_mirror(),
        }
    }

    /// Whether this is the evidence that belongs to the kind.
    fn rests_on(self, evidence: &Evidence) -> bool {
        match evidence {
            Evidence::Receipts(_) => matches!(self, Kind::SplitView | Kind::UpdateWithheld),
            Evidence::Fork(_) => self == Kind::LogFork,
            Evidence::Entries(_) => self.is_of_mirror() && self != Kind::LogFork,
            Evidence::Victim(_) => self == Kind::ForgedKey,
            Evidence::Received(_) => {
                let others = [Kind::SplitView, Kind::UpdateWithheld, Kind::ForgedKey];
                !self.is_of_mirror() && !others.contains(&self)
            }
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = Rejection;

    fn from_str(text: &str) -> Result<Kind, Rejection> {
        Kind::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| Rejection::new("kind", "no incident has this kind"))
    }
}

/// Making one. Each takes who saw it and when.
///
/// ```
/// # use syndicate::dime::Timestamp;
/// # use syndicate::proof::checkpoint::Checkpoint;
/// # use syndicate::proof::incident::{Fork, Incident, verify};
/// # use syndicate::proof::note::SigningKey;
/// # let key = SigningKey::ed25519("log.example/1", &[1; 32]).unwrap();
/// # let at = Timestamp::from_secs(1_795_449_600);
/// # let sign = |root| Checkpoint::new("log.example/1", 7, root).unwrap().sign(&key, at).unwrap();
/// // Two checkpoints of one size, with different roots, by one key.
/// let (smaller, larger) = (sign([2; 32]), sign([3; 32]));
/// let fork = Fork { key: key.verifier(), smaller, larger, prefix: [3; 32], proof: vec![] };
/// let incident = Incident::log_fork("watcher.example/1", at, fork);
///
/// let file = incident.to_bytes();
/// let read = Incident::read(&file).unwrap();
/// assert_eq!((read.id(), &read), (incident.id(), &incident));
/// let findings = verify(&read, &[], None).unwrap();
/// assert!(findings.convicts.is_some());
/// ```
impl Incident {
    pub fn log_fork(observer: &str, at: Timestamp, fork: Fork) -> Incident {
        Incident::of_mirror(Kind::LogFork, observer, at, Evidence::Fork(Box::new(fork)))
    }

    /// `entries.rule` is the rule's name, as [`super::replay::Broken::rule`] or
    /// [`super::observation::verify`] gives it; for the latter the bytes that
    /// the entry names stand in `entries.blobs`.
    pub fn rule_broken(observer: &str, at: Timestamp, entries: Entries) -> Incident {
        Incident::of_mirror(Kind::RuleBroken, observer, at, Evidence::Entries(Box::new(entries)))
    }

    /// It convicts if the leaves are the whole batch behind the root before it,
    /// and `tips` has every label; else it is testimony that can be reproduced.
    pub fn directory_root_wrong(observer: &str, at: Timestamp, entries: Entries) -> Incident {
        let evidence = Evidence::Entries(Box::new(entries));
        Incident::of_mirror(Kind::DirectoryRootWrong, observer, at, evidence)
    }

    /// The leaf names bytes that were asked for in vain; the rule says which.
    pub fn blob_unserved(observer: &str, at: Timestamp, entries: Entries) -> Incident {
        Incident::of_mirror(Kind::BlobUnserved, observer, at, Evidence::Entries(Box::new(entries)))
    }

    /// The one leaf is the last directory root that could be had.
    pub fn stale_mirror(observer: &str, at: Timestamp, entries: Entries) -> Incident {
        Incident::of_mirror(Kind::StaleMirror, observer, at, Evidence::Entries(Box::new(entries)))
    }

    fn of_mirror(kind: Kind, observer: &str, at: Timestamp, evidence: Evidence) -> Incident {
        Incident { kind, name: None, at, observer: observer.to_owned(), evidence }
    }

    pub fn split_view(observer: &str, at: Timestamp, name: Name, seen: Receipts) -> Incident {
        let evidence = Evidence::Receipts(seen);
        Incident::of_name(Kind::SplitView, observer, at, name, evidence)
    }

    pub fn update_withheld(observer: &str, at: Timestamp, name: Name, seen: Receipts) -> Incident {
        let evidence = Evidence::Receipts(seen);
        Incident::of_name(Kind::UpdateWithheld, observer, at, name, evidence)
    }

    pub fn forged_key(observer: &str, at: Timestamp, name: Name, victim: Victim) -> Incident {
        let evidence = Evidence::Victim(Box::new(victim));
        Incident::of_name(Kind::ForgedKey, observer, at, name, evidence)
    }

    /// Of a kind that a mirror files about what it received.
    pub fn received(
        kind: Kind,
        observer: &str,
        at: Timestamp,
        name: Name,
        received: Received,
    ) -> Incident {
        let evidence = Evidence::Received(Box::new(received));
        Incident::of_name(kind, observer, at, name, evidence)
    }

    fn of_name(
        kind: Kind,
        observer: &str,
        at: Timestamp,
        name: Name,
        evidence: Evidence,
    ) -> Incident {
        Incident { kind, name: Some(name), at, observer: observer.to_owned(), evidence }
    }

    /// SHA-256 of [`Incident::to_bytes`].
    pub fn id(&self) -> Hash {
        Sha256::digest(self.to_bytes()).into()
    }

    /// Whether its evidence may be shown to whoever asks: not that of a mailbox
    /// (threat 21).
    pub fn is_public(&self) -> bool {
        !matches!(self.name, Some(Name::Address(_)))
    }

    /// The same for the same thing seen again at another time, by a chain signed
    /// anew, in a longer log: one of them is enough.
    pub fn sameness(&self) -> Hash {
        let mut parts: Vec<Vec<u8>> = vec![
            self.kind.as_str().into(),
            self.name.as_ref().map_or_else(Vec::new, |name| name.as_str().into()),
        ];
        match &self.evidence {
            Evidence::Receipts(seen) => parts.extend(seen.receipts.iter().map(tip_of)),
            Evidence::Fork(fork) => parts.extend([fork.key.to_string().into()]),
            Evidence::Entries(entries) => {
                let index = entries.leaves.last().map_or(0, |last| last.index);
                let index = index.to_be_bytes().into();
                parts.extend([entries.key.to_string().into(), entries.rule.clone().into(), index]);
            }
            Evidence::Received(received) => {
                parts.extend([received.rule.clone().into(), received.bytes.to_vec()]);
                parts.extend(received.now.contents());
                parts.extend(received.before.iter().flat_map(Shown::contents));
            }
            Evidence::Victim(victim) => parts.extend(victim.shown.contents()),
        }
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hash.finalize().into()
    }
}

/// The log and the newest entry that a receipt shows.
fn tip_of(receipt: &Receipt) -> Vec<u8> {
    let origin = SignedCheckpoint::parse(&receipt.checkpoint)
        .map_or_else(|_| Vec::new(), |signed| signed.checkpoint().origin.clone().into_bytes());
    let entry = receipt.subject.items.last().map_or(&[][..], |item| &item.entry);
    [&origin[..], b"\n", entry].concat()
}

impl Shown {
    /// All but the time and the chain.
    fn contents(&self) -> [Vec<u8>; 3] {
        [&self.record, &self.org_signet, &self.signet].map(|bytes| bytes.to_vec())
    }
}
