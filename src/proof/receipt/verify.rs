//! Judging a receipt: pure, offline, everything.
//!
//! Trust comes from the asker's policy alone. Without one the best outcome is
//! [`Verdict::SelfConsistent`]: the receipt agrees with itself, and who signed
//! it is unknown. DNSSEC chains are verified for whoever says which root key to
//! believe; for others they are compared with their hash.

use bytes::Bytes;

use super::contents::Blobs;
use super::history::History;
use super::verdict::{Backing, Content, Fault, Note, Statement, Successor, Verdict, Word};
use super::{Receipt, Seen, Subject};
use crate::dime::{Name, Timestamp, ed25519};
use crate::proof::checkpoint::SignedCheckpoint;
use crate::proof::dnssec::Anchor;
use crate::proof::entry::{DirectoryRoot, Entry, Event, Events, Genesis, Kind};
use crate::proof::note::VerifierKey;
use crate::proof::policy::{self, Policy, Quorum};
use crate::proof::{map, merkle};

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
pub(super) struct Head<'r> {
    pub(super) signed: SignedCheckpoint,
    size: u64,
    pub(super) root: DirectoryRoot,
    /// Of the root.
    pub(super) time: Timestamp,
    pub(super) genesis: Genesis<'r>,
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
