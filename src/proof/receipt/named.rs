//! Which bytes a receipt names, and what each of them is for: where there is not room
//! for all, those are left out that are wanted least.
//!
//! Strangers choose how large signets are. A receipt without some of the older ones
//! holds all the same, and says less of what a mailbox was seen with.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::{Item, Receipt};
use crate::dime::Name;
use crate::proof::Hash;
use crate::proof::entry::{DomainObservation, Entry, Event, Events, Kind, UserPayload};
use crate::proof::wire::Malformed;

/// Events of versions with the keys of the version in force before.
pub(super) const SAME_KEYS: Events = Events::of(&[Event::Resigned, Event::Reissued]);

/// What named bytes are for, what is wanted most first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// The verdict rests on them, or the tip of the history: they are never left out.
    Verdict,
    /// They show keys that a mailbox was seen with.
    Keys,
    /// Older signets of keys that another version shows, and what versions of a
    /// mailbox were validated under.
    Checks,
    /// Versions of a domain that nothing here rests on.
    Past,
}

/// Bytes that an item names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named {
    pub sha256: Hash,
    pub purpose: Purpose,
    /// The newest version that names them for that.
    pub version: u64,
    /// A mailbox's signet; else a public blob of a domain.
    pub is_signet: bool,
}

/// What is named, as it is found.
#[derive(Default)]
struct Found(BTreeMap<Hash, Named>);

impl Receipt {
    /// The bytes that the items name, each once, those that are wanted most first and
    /// of these the newest.
    ///
    /// # Errors
    /// If an item or its payload cannot be read.
    pub fn named(&self) -> Result<Vec<Named>, Malformed> {
        let mut found = Found::default();
        match &self.name {
            Name::Domain(_) => found.domain(&self.subject.items, &BTreeSet::new(), None)?,
            Name::Address(_) => {
                let (under, needed) = found.mailbox(&self.subject.items)?;
                if let Some(domain) = &self.domain {
                    found.domain(&domain.items, &under, needed)?;
                }
            }
        }
        let mut all: Vec<Named> = found.0.into_values().collect();
        all.sort_by_key(|named| (named.purpose, Reverse(named.version), named.sha256));
        Ok(all)
    }

    /// Leaves out what is wanted least until there are at most `most` bytes of blobs,
    /// or nothing is left that could be left out.
    pub fn lighten(&mut self, most: usize) {
        if self.blobs.iter().map(Bytes::len).sum::<usize>() <= most {
            return;
        }
        let Ok(named) = self.named() else { return };
        let hash = |blob: &Bytes| -> Hash { Sha256::digest(blob).into() };
        let sizes: BTreeMap<Hash, usize> =
            self.blobs.iter().map(|blob| (hash(blob), blob.len())).collect();
        let (mut size, mut left_out) = (0, BTreeSet::new());
        for named in named {
            let length = sizes.get(&named.sha256).copied().unwrap_or(0);
            if named.purpose == Purpose::Verdict || size + length <= most {
                size += length;
            } else {
                left_out.insert(named.sha256);
            }
        }
        // What nothing names stays, and is refused.
        self.blobs.retain(|blob| !left_out.contains(&hash(blob)));
    }
}

impl Found {
    fn add(&mut self, named: Named) {
        let known = self.0.entry(named.sha256).or_insert(named);
        if (known.purpose, Reverse(known.version)) > (named.purpose, Reverse(named.version)) {
            *known = named;
        }
    }

    /// The signets of a mailbox; gives the domain's versions that its payloads rest on,
    /// and that of the one in force.
    fn mailbox(&mut self, items: &[Item]) -> Result<(BTreeSet<u64>, Option<u64>), Malformed> {
        let (mut under, mut needed) = (BTreeSet::new(), None);
        let (mut current, mut is_newest) = (None, true);
        for item in items.iter().rev() {
            let entry = Entry::decode(&item.entry)?;
            let Kind::User(seen) = &entry.kind else { break };
            let current = *current.get_or_insert(seen.current);
            let Some(hidden) = &item.hidden else { continue };
            let payload = UserPayload::decode(&hidden.payload)?;
            under.insert(payload.domain_version);
            if seen.version == current {
                needed = Some(payload.domain_version);
            }
            let Some(facts) = payload.signet else { continue };
            let purpose = match std::mem::take(&mut is_newest) || seen.version == current {
                true => Purpose::Verdict,
                false if seen.events.intersects(SAME_KEYS) => Purpose::Checks,
                false => Purpose::Keys,
            };
            let (sha256, version) = (facts.sha256, seen.version);
            self.add(Named { sha256, purpose, version, is_signet: true });
        }
        Ok((under, needed))
    }

    /// The blobs of a domain, some of whose versions a mailbox's rest on.
    fn domain(
        &mut self,
        items: &[Item],
        under: &BTreeSet<u64>,
        needed: Option<u64>,
    ) -> Result<(), Malformed> {
        let mut current = None;
        for item in items.iter().rev() {
            let entry = Entry::decode(&item.entry)?;
            let Kind::Domain(seen) = &entry.kind else { continue };
            let current = *current.get_or_insert(seen.current);
            let purpose = match seen.version {
                version if version == current || Some(version) == needed => Purpose::Verdict,
                version if under.contains(&version) => Purpose::Checks,
                _ => Purpose::Past,
            };
            for sha256 in blobs_of(seen) {
                self.add(Named { sha256, purpose, version: seen.version, is_signet: false });
            }
        }
        Ok(())
    }
}

fn blobs_of(seen: &DomainObservation<'_>) -> impl Iterator<Item = Hash> {
    let blobs = [seen.record, seen.org_signet, seen.dnssec_chain];
    blobs.into_iter().flatten().map(|blob| blob.sha256)
}
