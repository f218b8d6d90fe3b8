//! Judging a receipt: pure, offline, everything.
//!
//! Trust comes from the asker's policy alone. Without one the best outcome is
//! [`Verdict::SelfConsistent`]: the receipt agrees with itself, and who signed
//! it is unknown. DNSSEC chains are verified for whoever says which root key to
//! believe; for others they are compared with their hash.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::lineage::{CarryFault, Lineage};
use super::{Receipt, Seen, Subject};
use crate::dime::org::ValidOrgSignet;
use crate::dime::record::Record;
use crate::dime::signet::Signet;
use crate::dime::user::ValidUserSignet;
use crate::dime::{Address, Dnssec, Domain, Name, Rejection, Timestamp, chain, ed25519, org, user};
use crate::proof::checkpoint::SignedCheckpoint;
use crate::proof::dnssec::{self, Anchor};
use crate::proof::entry::{
    Blob, DirectoryRoot, Entry, Event, Events, Genesis, Holder, Kind, Misfit, SignetFacts,
    UserPayload, current_after,
};
use crate::proof::label::{alpha, commitment};
use crate::proof::map::{self, CHAIN_START, MapFault};
use crate::proof::merkle;
use crate::proof::note::VerifierKey;
use crate::proof::policy::{self, Policy, Quorum};
use crate::proof::relation::{Keys, Sight, Sights};
use crate::proof::vrf::{self, VrfFault};
use crate::proof::wire::Malformed;
use crate::proof::{Hash, Label};

/// What the asker believes and has.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asker<'a> {
    /// Whom to trust. Without it nothing is.
    pub policy: Option<&'a Policy>,
    /// The genesis entry from an earlier receipt of this log that verified.
    pub genesis: Option<&'a [u8]>,
    /// Signets, records and chains at hand, in any order.
    pub blobs: &'a [Bytes],
    /// Accept a receipt that leaves out blobs: the log's word about hashes.
    pub hashes_only: bool,
    /// Keys of the DNS root that DNSSEC chains must lead to; none: chains are
    /// compared with their hash, and the status rests on the log's word.
    pub anchors: &'a [Anchor],
}

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

/// Judges a receipt at time `now`. See `proto/README.md` for the order of the
/// checks: the first that fails is the fault.
pub fn verify(receipt: &Receipt, asker: &Asker<'_>, now: Timestamp) -> Result<Verdict, Fault> {
    let head = Head::check(receipt, asker.genesis)?;
    let backing = head.backing(asker.policy, now)?;
    let successor = head.successor(receipt)?;
    let subject = History::check(&receipt.subject, &receipt.name, &head)?;
    let domain = match (&receipt.name, &receipt.domain) {
        (Name::Domain(_), Some(_)) => return Err(Fault::DomainUnexpected),
        (_, None) => None,
        (Name::Address(address), Some(part)) => {
            Some(History::check(part, &Name::Domain(address.domain().clone()), &head)?)
        }
    };
    let blobs = Blobs::check(receipt, asker, [Some(&subject), domain.as_ref()])?;
    let mut findings = match &receipt.name {
        Name::Domain(name) => subject.examine_domain(name, &blobs)?,
        Name::Address(address) => subject.examine_user(address, domain.as_ref(), &blobs)?,
    };
    let confirmed_at = check_seen(&receipt.subject, &subject, &head, now)?;
    if let (Some(part), Some(domain)) = (&receipt.domain, &domain) {
        check_seen(part, domain, &head, now)?;
    }

    let held_until = subject.held_until().max(domain.as_ref().and_then(History::held_until));
    let max_observation_age =
        asker.policy.map_or(policy::MAX_OBSERVATION_AGE, |policy| policy.max_observation_age);
    let unconfirmed =
        confirmed_at == Timestamp::default() || now.since(confirmed_at) > max_observation_age;
    let latest = subject.versions.last();
    let events = subject.events_since_current();
    let withdrawn = Events::of(&[Event::Withdrawn, Event::RecordWithdrawn]);
    let word = match latest {
        None => Word::Absent,
        Some(version) if version.current == 0 && version.forgotten() => Word::Forgotten,
        Some(version) if version.current == 0 => Word::NoneInForce,
        Some(_) if held_until.is_some_and(|until| until > now) => Word::Held,
        Some(version) if version.events.intersects(withdrawn) => Word::Withdrawn,
        Some(_) if matches!(findings.content, Content::Unchecked { .. }) => Word::Unchecked,
        Some(_) if unconfirmed => Word::Unconfirmed,
        Some(_) => Word::Valid,
    };
    if !receipt.withdrawn.is_empty() {
        findings.notes.push(Note::Withdrawn(receipt.withdrawn.len()));
    }
    if backing.as_ref().is_none_or(|backing| !backing.quorum) {
        findings.notes.push(Note::LogClock);
    }
    if successor.is_some() {
        findings.notes.push(Note::LogClosed);
    }
    let statement = Statement {
        name: receipt.name.clone(),
        label: subject.label,
        word,
        notes: findings.notes,
        origin: head.genesis.origin.to_owned(),
        log_key: head.genesis.log_key,
        size: head.size,
        root_time: head.time,
        latest: latest.map_or(0, |version| version.version),
        current: latest.map_or(0, |version| version.current),
        events,
        held_until,
        confirmed_at,
        facts: findings.facts,
        observed: findings.observed,
        signet: findings.signet,
        poks: findings.poks,
        dnssec: findings.dnssec,
        sights: subject.sights(&blobs, confirmed_at, receipt.subject.seen.as_ref()),
        content: findings.content,
        successor,
    };
    Ok(match backing {
        None => Verdict::SelfConsistent(statement),
        Some(backing) => Verdict::Trusted(statement, backing),
    })
}

/// The checkpoint and what is bound to it: the last leaf and the first.
struct Head<'r> {
    signed: SignedCheckpoint,
    size: u64,
    root: DirectoryRoot,
    /// Of the root.
    time: Timestamp,
    genesis: Genesis<'r>,
}

impl<'r> Head<'r> {
    fn check(receipt: &'r Receipt, remembered: Option<&'r [u8]>) -> Result<Head<'r>, Fault> {
        let signed = SignedCheckpoint::parse(&receipt.checkpoint).map_err(Fault::Checkpoint)?;
        let (size, tree) = (signed.checkpoint().size, signed.checkpoint().root);
        let entry = Entry::decode(&receipt.root.entry).map_err(Fault::RootEntry)?;
        let Kind::Root(root) = entry.kind else { return Err(Fault::RootKind) };
        let last = size.checked_sub(1).ok_or(Fault::RootKind)?;
        if root.covered != last {
            return Err(Fault::RootKind);
        }
        let leaf = map::entry_leaf_hash(&receipt.root.entry);
        merkle::verify_inclusion(last, size, &leaf, &receipt.root.path, &tree)
            .map_err(|_| Fault::RootInclusion)?;

        let bytes = match (&receipt.genesis, remembered) {
            (None, None) => return Err(Fault::GenesisMissing),
            (None, Some(bytes)) => bytes,
            (Some(genesis), remembered) => {
                let leaf = map::entry_leaf_hash(&genesis.entry);
                merkle::verify_inclusion(0, size, &leaf, &genesis.path, &tree)
                    .map_err(|_| Fault::GenesisInclusion)?;
                if remembered.is_some_and(|bytes| bytes != genesis.entry) {
                    return Err(Fault::GenesisDiffers);
                }
                &genesis.entry[..]
            }
        };
        let Kind::Genesis(genesis) = Entry::decode(bytes).map_err(Fault::GenesisEntry)?.kind else {
            return Err(Fault::GenesisKind);
        };
        if genesis.origin != signed.checkpoint().origin {
            return Err(Fault::Origin);
        }
        Ok(Head { size, root, time: entry.time, genesis, signed })
    }

    /// Who goes on, if the log has ended.
    fn successor(&self, receipt: &Receipt) -> Result<Option<Successor>, Fault> {
        let Some(leaf) = &receipt.closing else { return Ok(None) };
        let index = self.size.checked_sub(2).ok_or(Fault::Closing)?;
        let (hash, tree) = (map::entry_leaf_hash(&leaf.entry), self.signed.checkpoint().root);
        merkle::verify_inclusion(index, self.size, &hash, &leaf.path, &tree)
            .map_err(|_| Fault::Closing)?;
        match Entry::decode(&leaf.entry).map_err(|_| Fault::Closing)?.kind {
            Kind::Closing(closing) => {
                Ok(Some(Successor { origin: closing.origin.to_owned(), log_key: closing.log_key }))
            }
            _ => Err(Fault::Closing),
        }
    }

    /// Signatures, quorum and age; `None` without a policy.
    fn backing(&self, policy: Option<&Policy>, now: Timestamp) -> Result<Option<Backing>, Fault> {
        let Some(policy) = policy else {
            let key = VerifierKey::ed25519(self.genesis.origin, &self.genesis.log_key)
                .map_err(Fault::Checkpoint)?;
            self.signed.verify([&key]).map_err(Fault::Checkpoint)?;
            return Ok(None);
        };
        let verdict = policy.evaluate(&self.signed, now).map_err(Fault::Checkpoint)?;
        if verdict.log.key.public_key() != Some(&self.genesis.log_key) {
            return Err(Fault::LogKey);
        }
        if self.time > now.plus(policy::MAX_FUTURE) {
            return Err(Fault::Future);
        }
        if !verdict.accepted() {
            return Err(match (verdict.as_of, &verdict.quorum) {
                (Some(as_of), _) => Fault::Stale { as_of },
                (None, Quorum::NotMet(lacks)) => {
                    let lacks: Vec<String> = lacks.iter().map(ToString::to_string).collect();
                    Fault::Quorum(lacks.join("; "))
                }
                (None, _) => Fault::Quorum("too few that replay".to_owned()),
            });
        }
        let quorum = verdict.quorum != Quorum::NotAsked;
        if !quorum && now.since(self.time) > policy.max_age {
            return Err(Fault::Stale { as_of: self.time });
        }
        let cosigners =
            verdict.counted().map(|c| (c.witness.name().into_owned(), c.time)).collect();
        Ok(Some(Backing {
            quorum,
            cosigners,
            as_of: verdict.as_of.filter(|_| quorum).unwrap_or(self.time),
            warnings: verdict.warnings,
        }))
    }
}

/// One label's checked part.
struct History<'r> {
    label: Label,
    versions: Vec<Version<'r>>,
}

struct Version<'r> {
    version: u64,
    current: u64,
    events: Events,
    held_until: Option<Timestamp>,
    entry: Entry<'r>,
    payload: Option<UserPayload>,
}

impl Version<'_> {
    fn forgotten(&self) -> bool {
        matches!(self.entry.kind, Kind::Forgotten(_))
    }

    /// Whether this version's own content came into force.
    fn in_force(&self) -> bool {
        self.current == self.version
    }
}

impl<'r> History<'r> {
    fn check(part: &'r Subject, name: &Name, head: &Head<'_>) -> Result<History<'r>, Fault> {
        let label = match (name, &part.vrf_proof) {
            (Name::Domain(domain), None) => Label::of_domain(domain),
            (Name::Address(address), Some(proof)) => {
                let output = vrf::verify(&head.genesis.vrf_key, &alpha(address), proof)?;
                Label::from_vrf(&output)
            }
            _ => return Err(Fault::VrfProof),
        };
        if part.items.is_empty() {
            if part.chain != CHAIN_START {
                return Err(Fault::Leftover);
            }
            if !part.carries.is_empty() {
                return Err(CarryFault::Stray.into());
            }
            part.map.verify_absent(&head.root.root, &label)?;
            return Ok(History { label, versions: Vec::new() });
        }
        let checkpoint = head.signed.checkpoint();
        let tree = (checkpoint.size, checkpoint.root);
        let lineage = Lineage::check(part, name, label, &head.genesis, tree)?;
        let mut versions: Vec<Version<'r>> = Vec::with_capacity(part.items.len());
        for item in &part.items {
            let version = Version::check(&item.entry, name, &lineage, versions.last(), head.time)?;
            versions.push(version);
        }
        let first = versions.first().map_or(0, |version| version.version);
        let current = versions.last().map_or(0, |version| version.current);
        if current != 0 && current < first {
            return Err(Fault::CurrentMissing);
        }
        let entries = part.items.iter().map(|item| &item.entry[..]);
        part.map.verify_history(&head.root.root, &label, first, &part.chain, entries)?;
        lineage.check_needed(first)?;
        let mut history = History { label, versions };
        history.open(part, name, &lineage)?;
        Ok(history)
    }

    /// Opens the commitments of a mailbox.
    fn open(&mut self, part: &Subject, name: &Name, lineage: &Lineage<'_>) -> Result<(), Fault> {
        let erased = self.versions.iter().rposition(Version::forgotten).unwrap_or(0);
        for (i, (known, item)) in self.versions.iter_mut().zip(&part.items).enumerate() {
            let version = known.version;
            let (Kind::User(observation), Name::Address(address)) = (&known.entry.kind, name)
            else {
                match item.hidden {
                    Some(_) => return Err(Fault::PayloadUnexpected { version }),
                    None => continue,
                }
            };
            let Some(hidden) = &item.hidden else {
                if i >= erased {
                    return Err(Fault::PayloadMissing { version });
                }
                continue;
            };
            let (opening, payload) = (&hidden.opening, &hidden.payload);
            let home = lineage.home(version);
            let expected = commitment(opening, home.origin, &home.label, version, address, payload);
            if expected != observation.commitment {
                return Err(Fault::Commitment { version });
            }
            let payload =
                UserPayload::decode(payload).map_err(|fault| Fault::Payload { version, fault })?;
            if payload.signet.is_none() != known.events.contains(Event::Withdrawn) {
                return Err(Fault::PayloadKind { version });
            }
            known.payload = Some(payload);
        }
        Ok(())
    }

    fn held_until(&self) -> Option<Timestamp> {
        self.versions.iter().filter_map(|version| version.held_until).max()
    }

    /// The version in force.
    fn current(&self) -> Option<&Version<'r>> {
        self.find(self.versions.last()?.current)
    }

    fn find(&self, version: u64) -> Option<&Version<'r>> {
        self.versions.iter().find(|candidate| candidate.version == version)
    }

    /// Every version that was seen with keys. A mailbox's without its signet
    /// here leaves a gap.
    fn sights(&self, blobs: &Blobs<'_>, confirmed_at: Timestamp, seen: Option<&Seen>) -> Sights {
        let mut whole = self.versions.first().is_some_and(|version| version.version == 1);
        let mut list = Vec::new();
        for known in &self.versions {
            let sight = match (&known.entry.kind, &known.payload) {
                (Kind::Domain(entry), _) if !entry.poks.is_empty() => {
                    Some((known.entry.time, Keys::of_domain(entry)))
                }
                (Kind::Domain(_), _) => continue,
                (_, Some(UserPayload { signet: None, .. })) => continue,
                (_, Some(UserPayload { signet: Some(facts), observed, .. })) => {
                    let bytes = blobs.here.get(&facts.sha256);
                    let signet = bytes.and_then(|bytes| Signet::decode(bytes).ok());
                    signet.map(|signet| (*observed, Keys::of_mailbox(&signet)))
                }
                // Before a FORGOTTEN, and the FORGOTTEN itself.
                (_, None) => None,
            };
            match sight {
                Some((seen, keys)) => list.push(Sight { version: known.version, seen, keys }),
                None => whole = false,
            }
        }
        let current = self.versions.last().map_or(0, |version| version.current);
        let attempted_at = seen.map_or(Timestamp::default(), |seen| seen.attempted_at);
        Sights::new(list, current, confirmed_at, attempted_at, whole)
    }

    fn events_since_current(&self) -> Events {
        let Some(latest) = self.versions.last() else { return Events::EMPTY };
        if latest.in_force() || latest.current == 0 {
            return latest.events;
        }
        self.versions
            .iter()
            .filter(|version| version.version > latest.current)
            .fold(Events::EMPTY, |all, version| all.union(version.events))
    }
}

impl<'r> Version<'r> {
    /// An entry by itself, and against the one before it.
    fn check(
        bytes: &'r [u8],
        name: &Name,
        lineage: &Lineage<'_>,
        before: Option<&Version<'_>>,
        root_time: Timestamp,
    ) -> Result<Version<'r>, Fault> {
        let expected = before.map(|before| before.version.saturating_add(1));
        let entry = Entry::decode(bytes)
            .map_err(|fault| Fault::Entry { version: expected.unwrap_or(0), fault })?;
        let (version, current, events, held_until, holder) = match (&entry.kind, name) {
            (Kind::Domain(seen), Name::Domain(domain)) if seen.domain == domain.as_str() => {
                (seen.version, seen.current, seen.events, seen.held_until, Holder::Domain)
            }
            (Kind::User(seen), Name::Address(_))
                if seen.label == lineage.home(seen.version).label =>
            {
                (seen.version, seen.current, seen.events, seen.held_until, Holder::User)
            }
            (Kind::Forgotten(gone), Name::Address(_))
                if gone.label == lineage.home(gone.version).label =>
            {
                (gone.version, 0, Events::EMPTY, None, Holder::User)
            }
            _ => return Err(Fault::Label { version: expected.unwrap_or(0) }),
        };
        if let Some(expected) = expected.filter(|expected| *expected != version) {
            return Err(Fault::Version { expected, found: version });
        }
        if !matches!(entry.kind, Kind::Forgotten(_)) {
            let fit = |current_before| current_after(holder, events, version, current_before);
            let before_current = match before {
                Some(before) => Some(before.current),
                None if version == 1 => Some(0),
                None => None,
            };
            match before_current {
                Some(before) => {
                    let made = fit(before).map_err(|misfit| Fault::Misfit { version, misfit })?;
                    if made != current {
                        return Err(Fault::Current { version });
                    }
                }
                // What was in force is not told: nothing, something, or this.
                None if ![0, 1, current].into_iter().any(|before| fit(before) == Ok(current)) => {
                    return Err(Fault::Current { version });
                }
                None => {}
            }
        }
        let too_old = before.is_some_and(|before| entry.time < before.entry.time);
        if too_old || entry.time > root_time {
            return Err(Fault::Time { version });
        }
        Ok(Version { version, current, events, held_until, entry, payload: None })
    }
}

/// The bytes that are here, by hash.
struct Blobs<'a> {
    here: BTreeMap<Hash, &'a Bytes>,
    withdrawn: BTreeSet<Hash>,
    hashes_only: bool,
    anchors: &'a [Anchor],
}

impl<'a> Blobs<'a> {
    fn check(
        receipt: &'a Receipt,
        asker: &Asker<'a>,
        parts: [Option<&History<'_>>; 2],
    ) -> Result<Blobs<'a>, Fault> {
        let mut named = BTreeSet::new();
        for version in parts.into_iter().flatten().flat_map(|part| &part.versions) {
            if let Kind::Domain(domain) = &version.entry.kind {
                let blobs = [domain.record, domain.org_signet, domain.dnssec_chain];
                named.extend(blobs.into_iter().flatten().map(|blob| blob.sha256));
            }
            let facts = version.payload.as_ref().and_then(|payload| payload.signet.as_ref());
            named.extend(facts.map(|facts| facts.sha256));
        }
        let mut here = BTreeMap::new();
        let mut last = None;
        for blob in &receipt.blobs {
            let hash: Hash = Sha256::digest(blob).into();
            if last.is_some_and(|last| last >= hash) {
                return Err(Fault::BlobOrder);
            }
            if !named.contains(&hash) {
                return Err(Fault::BlobStray);
            }
            last = Some(hash);
            here.insert(hash, blob);
        }
        let mut last = None;
        for hash in &receipt.withdrawn {
            if last.is_some_and(|last| last >= *hash) {
                return Err(Fault::BlobOrder);
            }
            if !named.contains(hash) || here.contains_key(hash) {
                return Err(Fault::BlobStray);
            }
            last = Some(*hash);
        }
        for blob in asker.blobs {
            here.insert(Sha256::digest(blob).into(), blob);
        }
        let withdrawn = receipt.withdrawn.iter().copied().collect();
        Ok(Blobs { here, withdrawn, hashes_only: asker.hashes_only, anchors: asker.anchors })
    }

    /// Bytes that the verdict rests on; without them `missing` notes the hash.
    fn need(&self, hash: &Hash, missing: &mut Missing) -> Result<Option<&'a Bytes>, Fault> {
        if let Some(blob) = self.here.get(hash) {
            return Ok(Some(blob));
        }
        if self.withdrawn.contains(hash) {
            missing.withdrawn.insert(*hash);
        } else if self.hashes_only {
            missing.left_out.insert(*hash);
        } else {
            return Err(Fault::BlobMissing(*hash));
        }
        Ok(None)
    }

    fn need_blob(&self, blob: &Blob, missing: &mut Missing) -> Result<Option<&'a Bytes>, Fault> {
        let found = self.need(&blob.sha256, missing)?;
        match found.is_some_and(|bytes| bytes.len() as u64 != blob.length) {
            true => Err(Fault::BlobLength),
            false => Ok(found),
        }
    }
}

#[derive(Default)]
struct Missing {
    left_out: BTreeSet<Hash>,
    withdrawn: BTreeSet<Hash>,
}

impl Missing {
    fn content(self) -> Content {
        if self.left_out.is_empty() && self.withdrawn.is_empty() {
            return Content::Checked;
        }
        Content::Unchecked {
            left_out: self.left_out.into_iter().collect(),
            withdrawn: self.withdrawn.into_iter().collect(),
        }
    }
}

/// What looking into the bytes brought.
struct Findings {
    content: Content,
    notes: Vec<Note>,
    facts: Option<SignetFacts>,
    observed: Option<Timestamp>,
    signet: Option<Bytes>,
    poks: Vec<[u8; 32]>,
    dnssec: Option<Dnssec>,
}

impl Findings {
    fn none() -> Findings {
        Findings {
            content: Content::None,
            notes: Vec::new(),
            facts: None,
            observed: None,
            signet: None,
            poks: Vec::new(),
            dnssec: None,
        }
    }
}

/// A domain's version, looked into.
struct OrgAt {
    poks: Vec<[u8; 32]>,
    dnssec: Dnssec,
    /// `None` if there is none, or its bytes are not here.
    org: Option<ValidOrgSignet>,
    named: bool,
}

/// Record, org signet and chain of one version that came into force.
fn org_at(
    version: &Version<'_>,
    name: &Domain,
    blobs: &Blobs<'_>,
    missing: &mut Missing,
) -> Result<OrgAt, Fault> {
    let Kind::Domain(entry) = &version.entry.kind else {
        return Err(Fault::DomainVersion { version: version.version });
    };
    let poks = entry.poks.to_vec();
    let mut text = None;
    if let Some(blob) = &entry.record {
        text = blobs.need_blob(blob, missing)?;
    }
    if let Some(text) = text {
        let record = Record::parse(text).map_err(Fault::Record)?;
        if !record.pok_set().iter().eq(poks.iter()) {
            return Err(Fault::RecordPoks);
        }
    }
    let mut org = None;
    if let Some(blob) = &entry.org_signet
        && let Some(bytes) = blobs.need_blob(blob, missing)?
    {
        let signet = Signet::decode(bytes).map_err(Fault::OrgSignet)?;
        org = Some(org::validate(&signet, &poks, Some(name)).map_err(Fault::OrgSignet)?);
    }
    if let Some(blob) = &entry.dnssec_chain
        && let (Some(chain), Some(text)) = (blobs.need_blob(blob, missing)?, text)
        && !blobs.anchors.is_empty()
    {
        check_chain(chain, name, version.entry.time, entry.dnssec, text, blobs.anchors)?;
    }
    Ok(OrgAt { poks, dnssec: entry.dnssec, org, named: entry.org_signet.is_some() })
}

/// The chain must prove, at the entry's time, just what the entry says: its
/// status, and where the zone is signed the very text of the record.
fn check_chain(
    chain: &[u8],
    name: &Domain,
    at: Timestamp,
    says: Dnssec,
    text: &[u8],
    anchors: &[Anchor],
) -> Result<(), Fault> {
    let observed =
        dnssec::verify_observation(chain, name, anchors, at).map_err(Fault::DnssecChain)?;
    let same_text = says != Dnssec::Secure || observed.record.as_deref() == Some(text);
    if observed.dnssec == says && same_text {
        return Ok(());
    }
    let message = format!("it proves {} of another record or status", observed.dnssec);
    Err(Fault::DnssecChain(Rejection::new("dnssec-chain", message)))
}

impl History<'_> {
    fn examine_domain(&self, name: &Domain, blobs: &Blobs<'_>) -> Result<Findings, Fault> {
        let Some(current) = self.current() else { return Ok(Findings::none()) };
        let mut missing = Missing::default();
        let at = org_at(current, name, blobs, &mut missing)?;
        let mut notes = Vec::new();
        if !at.named {
            notes.push(Note::NoOrgSignet);
        }
        if at.dnssec != Dnssec::Secure {
            notes.push(Note::DnssecNotSecure(at.dnssec));
        }
        Ok(Findings {
            content: missing.content(),
            notes,
            signet: at.org.map(|org| Bytes::copy_from_slice(org.signet().bytes())),
            poks: at.poks,
            dnssec: Some(at.dnssec),
            ..Findings::none()
        })
    }

    /// The signet in force down to the POK, and every other one that is here.
    fn examine_user(
        &self,
        address: &Address,
        domain: Option<&History<'_>>,
        blobs: &Blobs<'_>,
    ) -> Result<Findings, Fault> {
        let Some(current) = self.current() else { return Ok(Findings::none()) };
        let (Some(payload), Some(facts)) =
            (&current.payload, current.payload.as_ref().and_then(|p| p.signet.as_ref()))
        else {
            return Err(Fault::PayloadMissing { version: current.version });
        };
        let Some(domain) = domain else {
            // The asker who wants hashes only may do without the domain.
            if !blobs.hashes_only {
                return Err(Fault::DomainMissing);
            }
            return Ok(Findings {
                content: Content::Unchecked { left_out: vec![facts.sha256], withdrawn: vec![] },
                facts: Some(facts.clone()),
                observed: Some(payload.observed),
                ..Findings::none()
            });
        };
        let name = address.domain();
        let mut missing = Missing::default();
        let mut notes = Vec::new();
        let under = domain.in_force_at(payload.domain_version, current)?;
        let at = org_at(under, name, blobs, &mut missing)?;
        if !at.named {
            return Err(Fault::NoOrgSignet);
        }
        let bytes = blobs.need(&facts.sha256, &mut missing)?;
        let valid = match (bytes, &at.org) {
            (Some(bytes), Some(org)) => {
                Some(check_signet(bytes, facts, org, address, current.version)?)
            }
            _ => None,
        };
        self.examine_older(address, domain, blobs)?;

        if facts.level != crate::proof::entry::Level::Id {
            notes.push(Note::NameUnsigned);
        }
        if at.dnssec != Dnssec::Secure {
            notes.push(Note::DnssecNotSecure(at.dnssec));
        }
        let now = match domain.current() {
            None => {
                notes.extend([Note::DomainNotInForce, Note::SignerRetired]);
                None
            }
            Some(now) => Some(org_at(now, name, blobs, &mut missing)?),
        };
        if let (Some(valid), Some(org), Some(now)) = (&valid, &at.org, &now) {
            notes.extend(retired(valid, org, now));
        }
        let alarms = domain.events_since_current().alarms();
        if !alarms.is_empty() {
            notes.push(Note::DomainEvents(alarms));
        }
        Ok(Findings {
            content: missing.content(),
            notes,
            facts: Some(facts.clone()),
            observed: Some(payload.observed),
            signet: bytes.cloned(),
            poks: now.map_or_else(Vec::new, |now| now.poks),
            dnssec: Some(at.dnssec),
        })
    }

    /// The domain's version that a mailbox's entry rests on.
    fn in_force_at(&self, version: u64, user: &Version<'_>) -> Result<&Version<'_>, Fault> {
        self.find(version)
            .filter(|found| found.in_force() && found.entry.time <= user.entry.time)
            .ok_or(Fault::DomainVersion { version })
    }

    /// Every other version whose signet is here, as far as its domain's version
    /// is here too, and custody from each to the next.
    fn examine_older(
        &self,
        address: &Address,
        domain: &History<'_>,
        blobs: &Blobs<'_>,
    ) -> Result<(), Fault> {
        let mut before: Option<Signet> = None;
        for known in &self.versions {
            let version = known.version;
            if known.forgotten() {
                before = None;
                continue;
            }
            let Some(payload) = &known.payload else { continue };
            let Some(facts) = &payload.signet else { continue };
            let Some(bytes) = blobs.here.get(&facts.sha256) else {
                if known.in_force() {
                    before = None;
                }
                continue;
            };
            let signet = Signet::decode(bytes)
                .map_err(|rejection| Fault::UserSignet { version, rejection })?;
            let under = domain.find(payload.domain_version);
            if let Some(under) = under.filter(|under| blobs.has_org(under)) {
                let under = domain.in_force_at(under.version, known)?;
                let at = org_at(under, address.domain(), blobs, &mut Missing::default())?;
                if let Some(org) = &at.org {
                    check_signet(bytes, facts, org, address, version)?;
                }
            }
            if known.events.contains(Event::Rotated)
                && let Some(before) = &before
            {
                chain::custody(before, &signet)
                    .map_err(|rejection| Fault::Custody { version, rejection })?;
            }
            if known.in_force() {
                before = Some(signet);
            }
        }
        Ok(())
    }
}

impl Blobs<'_> {
    /// Whether all that a domain's version names is here.
    fn has_org(&self, version: &Version<'_>) -> bool {
        let Kind::Domain(entry) = &version.entry.kind else { return false };
        let blobs = [entry.record, entry.org_signet, entry.dnssec_chain];
        blobs.into_iter().flatten().all(|blob| self.here.contains_key(&blob.sha256))
    }
}

/// A signet against the org signet, the name, and what the payload says.
fn check_signet(
    bytes: &[u8],
    facts: &SignetFacts,
    org: &ValidOrgSignet,
    address: &Address,
    version: u64,
) -> Result<ValidUserSignet, Fault> {
    let refuse = |rejection| Fault::UserSignet { version, rejection };
    let signet = Signet::decode(bytes).map_err(refuse)?;
    let valid = user::validate(&signet, org, Some(address)).map_err(refuse)?;
    if SignetFacts::of(&valid).as_ref() != Some(facts) {
        return Err(Fault::SignetFacts { version });
    }
    Ok(valid)
}

/// Whether the keys that signed are still the domain's.
fn retired(valid: &ValidUserSignet, then: &ValidOrgSignet, now: &OrgAt) -> Option<Note> {
    let mut unknown = false;
    for (_, signer) in valid.signers() {
        let (key, secondary) = match signer {
            user::Signer::Pok => (Some(then.pok()), false),
            user::Signer::Sok(number) => {
                let key = then.signers().iter().find(|(n, _)| n == number).map(|(_, key)| *key);
                (key, true)
            }
        };
        let still = match (&now.org, secondary) {
            (_, false) => key.is_some_and(|key| now.poks.contains(&key)),
            (Some(org), true) => org.signers().iter().any(|(_, k)| Some(*k) == key),
            (None, true) => {
                unknown = true;
                continue;
            }
        };
        if !still {
            return Some(Note::SignerRetired);
        }
    }
    unknown.then_some(Note::SignerNotCompared)
}

/// The log's signed word about the DX; 0 if it gives none.
fn check_seen(
    part: &Subject,
    history: &History<'_>,
    head: &Head<'_>,
    now: Timestamp,
) -> Result<Timestamp, Fault> {
    let Some(seen) = &part.seen else { return Ok(Timestamp::default()) };
    let version = history.versions.last().map_or(0, |version| version.version);
    let message = Seen::message(
        head.genesis.origin,
        &history.label,
        version,
        seen.confirmed_at,
        seen.attempted_at,
        &head.root.root,
    );
    ed25519::verify(&head.genesis.log_key, message.as_bytes(), &seen.signature)
        .map_err(Fault::Seen)?;
    if seen.confirmed_at > seen.attempted_at || seen.attempted_at > now.plus(policy::MAX_FUTURE) {
        return Err(Fault::SeenTime);
    }
    Ok(seen.confirmed_at)
}

impl SignetFacts {
    /// What a payload says of a valid signet; `None` below the crypto level,
    /// where nothing is valid.
    pub fn of(valid: &ValidUserSignet) -> Option<SignetFacts> {
        let signet = valid.signet();
        Some(SignetFacts {
            sha256: Sha256::digest(signet.bytes()).into(),
            crypto_sha256: Sha256::digest(signet.crypto_part()?).into(),
            level: crate::proof::entry::Level::of(signet.level())?,
            signers: valid
                .signers()
                .iter()
                .map(|(_, signer)| match signer {
                    user::Signer::Pok => Some(0),
                    user::Signer::Sok(number) => u32::try_from(number + 1).ok(),
                })
                .collect::<Option<Vec<u32>>>()?,
        })
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
