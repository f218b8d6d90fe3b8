//! One label's part of a receipt: its versions, their order, and the map proof
//! that ties them to the directory root.

use super::contents::Blobs;
use super::lineage::{CarryFault, Lineage};
use super::named::SAME_KEYS;
use super::verdict::Fault;
use super::verify::Head;
use super::{Seen, Subject};
use crate::dime::signet::Signet;
use crate::dime::{Name, Timestamp};
use crate::proof::Label;
use crate::proof::entry::{Entry, Event, Events, Holder, Kind, UserPayload, current_after};
use crate::proof::label::{alpha, commitment};
use crate::proof::map::CHAIN_START;
use crate::proof::relation::{Keys, Sight, Sights};
use crate::proof::vrf;

/// One label's checked part.
pub(super) struct History<'r> {
    pub(super) label: Label,
    pub(super) versions: Vec<Version<'r>>,
}

pub(super) struct Version<'r> {
    pub(super) version: u64,
    pub(super) current: u64,
    pub(super) events: Events,
    pub(super) held_until: Option<Timestamp>,
    pub(super) entry: Entry<'r>,
    pub(super) payload: Option<UserPayload>,
}

impl Version<'_> {
    pub(super) fn forgotten(&self) -> bool {
        matches!(self.entry.kind, Kind::Forgotten(_))
    }

    /// Whether this version's own content came into force.
    pub(super) fn in_force(&self) -> bool {
        self.current == self.version
    }
}

impl<'r> History<'r> {
    pub(super) fn check(
        part: &'r Subject,
        name: &Name,
        head: &Head<'_>,
    ) -> Result<History<'r>, Fault> {
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

    pub(super) fn held_until(&self) -> Option<Timestamp> {
        self.versions.iter().filter_map(|version| version.held_until).max()
    }

    /// The version in force.
    pub(super) fn current(&self) -> Option<&Version<'r>> {
        self.find(self.versions.last()?.current)
    }

    pub(super) fn find(&self, version: u64) -> Option<&Version<'r>> {
        self.versions.iter().find(|candidate| candidate.version == version)
    }

    /// Every version that was seen with keys. A mailbox's without its signet here
    /// leaves a gap, unless its entry says that its keys are those in force before.
    pub(super) fn sights(
        &self,
        blobs: &Blobs<'_>,
        confirmed_at: Timestamp,
        seen: Option<&Seen>,
    ) -> Sights {
        let mut whole = self.versions.first().is_some_and(|version| version.version == 1);
        let (mut list, mut in_force) = (Vec::new(), None);
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
                    let keys = match signet {
                        Some(signet) => Some(Keys::of_mailbox(&signet)),
                        None if known.events.intersects(SAME_KEYS) => in_force,
                        None => None,
                    };
                    keys.map(|keys| (*observed, keys))
                }
                // Before a FORGOTTEN, and the FORGOTTEN itself.
                (_, None) => None,
            };
            if known.in_force() || known.forgotten() {
                in_force = sight.map(|(_, keys)| keys);
            }
            match sight {
                Some((seen, keys)) => list.push(Sight { version: known.version, seen, keys }),
                None => whole = false,
            }
        }
        let current = self.versions.last().map_or(0, |version| version.current);
        let attempted_at = seen.map_or(Timestamp::default(), |seen| seen.attempted_at);
        Sights::new(list, current, confirmed_at, attempted_at, whole)
    }

    pub(super) fn events_since_current(&self) -> Events {
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
