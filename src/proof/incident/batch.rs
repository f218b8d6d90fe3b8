//! Which rule some leaves of a log break, as far as these leaves alone tell.
//!
//! Three ways: each by itself and in pairs (a version that does not grow, an event
//! that does not fit the version before it); a whole batch behind its root,
//! replayed over the part of the map that it touches; a domain's entry against
//! the bytes that it names.

use std::collections::BTreeMap;

use super::Entries;
use super::part_map::PartMap;
use super::verify::Fault;
use crate::dime::Timestamp;
use crate::proof::dnssec::Anchor;
use crate::proof::entry::{self, Blob, Carried, Entry, Holder, Kind};
use crate::proof::replay::{self, Expected, Position, Replayer, Stop, What};
use crate::proof::{Label, map, observation};

/// A rule that these leaves break.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    pub index: u64,
    pub rule: &'static str,
    pub words: String,
    /// Found by replaying the batch, not in the leaf alone.
    pub replayed: bool,
}

/// Looks for the rule that the leaves are said to break. All of them are in the
/// log: that was checked.
pub fn broken(entries: &Entries, anchors: &[Anchor]) -> Result<Option<Broken>, Fault> {
    let leaves = read(entries)?;
    let mut found = alone(entries, &leaves);
    found.extend(in_pairs(&leaves));
    found.extend(leaves.iter().flat_map(|leaf| against_bytes(leaf, &entries.blobs, anchors)));
    let by_rule = |found: Broken| (found.rule == entries.rule).then_some(found);
    if let Some(found) = found.into_iter().find_map(by_rule) {
        return Ok(Some(found));
    }
    Ok(replay(entries, &leaves)?.and_then(by_rule))
}

/// The earlier entry that shows, beside the one that breaks a rule, that it does:
/// two leaves are evidence however far apart they stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counterpart {
    /// The newest one of this label.
    OfLabel(Label),
    /// Whatever else than a label carried over, or a root.
    NotCarried,
}

impl Counterpart {
    /// Of the entry that breaks the rule; `None` if no second one is there that
    /// could show it.
    pub fn of(broken: &replay::Broken, entry: &[u8]) -> Option<Counterpart> {
        use replay::Broken;
        let kind = Entry::decode(entry).ok()?.kind;
        let (label, Step { version, .. }) = step(0, &kind)?;
        match broken {
            // Nothing comes before version 1.
            Broken::Current { .. } | Broken::Misfit(_) if version < 2 => None,
            Broken::Version { expected, found } if found >= expected => None,
            Broken::Current { .. }
            | Broken::Misfit(_)
            | Broken::Version { .. }
            | Broken::Holder
            | Broken::CarriedTwice => Some(Counterpart::OfLabel(label)),
            Broken::CarriedMisplaced => Some(Counterpart::NotCarried),
            _ => None,
        }
    }

    /// Whether this entry is one. The newest before the broken one is wanted.
    pub fn is(&self, entry: &[u8]) -> bool {
        let Ok(Entry { kind, .. }) = Entry::decode(entry) else { return false };
        match self {
            Counterpart::OfLabel(label) => step(0, &kind).is_some_and(|(own, _)| own == *label),
            Counterpart::NotCarried => ends_carrying(&kind),
        }
    }
}

struct Read<'a> {
    index: u64,
    entry: Result<Entry<'a>, crate::proof::wire::Malformed>,
}

impl Read<'_> {
    fn breaks(&self, rule: &'static str, words: impl Into<String>) -> Broken {
        Broken { index: self.index, rule, words: words.into(), replayed: false }
    }
}

/// Leaves of another format accuse nobody, and nothing beside them does.
fn read(entries: &Entries) -> Result<Vec<Read<'_>>, Fault> {
    let read = |placed: &'_ super::Placed| -> Option<replay::Unknown> {
        let format = entry::format_of(&placed.leaf.entry).ok()?;
        let known = format == entry::FORMAT || format == 0;
        (!known).then_some(replay::Unknown { index: placed.index, format })
    };
    if let Some(unknown) = entries.leaves.iter().find_map(read) {
        return Err(Fault::UnknownFormat(unknown));
    }
    let leaves = entries.leaves.iter();
    Ok(leaves
        .map(|placed| Read { index: placed.index, entry: Entry::decode(&placed.leaf.entry) })
        .collect())
}

/// What a leaf and its place tell.
fn alone(entries: &Entries, leaves: &[Read<'_>]) -> Vec<Broken> {
    let size = entries.checkpoint.checkpoint().size;
    let mut found = Vec::new();
    for leaf in leaves {
        let last = leaf.index.saturating_add(1) == size;
        let entry = match &leaf.entry {
            Err(malformed) => {
                found.push(leaf.breaks(malformed.rule(), malformed.to_string()));
                continue;
            }
            Ok(entry) => entry,
        };
        match &entry.kind {
            Kind::Genesis(genesis) if leaf.index == 0 => {
                if genesis.origin != entries.key.name() {
                    found.push(leaf.breaks("origin", replay::Broken::Origin.to_string()));
                }
                if Some(&genesis.log_key) != entries.key.public_key() {
                    found.push(leaf.breaks("log-key", replay::Broken::LogKey.to_string()));
                }
            }
            Kind::Genesis(_) => {
                found
                    .push(leaf.breaks("second-genesis", replay::Broken::SecondGenesis.to_string()));
            }
            _ if leaf.index == 0 => {
                found.push(leaf.breaks("no-genesis", replay::Broken::NoGenesis.to_string()));
            }
            Kind::Root(root) if root.covered != leaf.index => {
                let broken = replay::Broken::Covered { expected: leaf.index, found: root.covered };
                found.push(leaf.breaks("covered", broken.to_string()));
            }
            Kind::Forgotten(gone) if gone.version == 1 => {
                let broken = replay::Broken::NothingToForget;
                found.push(leaf.breaks(broken.rule(), broken.to_string()));
            }
            _ => {}
        }
        if last && !matches!(entry.kind, Kind::Root(_)) {
            found.push(leaf.breaks("no-root", replay::Broken::NoRoot.to_string()));
        }
    }
    found
}

/// What one entry says of its label.
#[derive(Clone, Copy)]
struct Step {
    index: u64,
    holder: Holder,
    version: u64,
    current: u64,
    what: What,
}

fn step(index: u64, kind: &Kind<'_>) -> Option<(Label, Step)> {
    let (label, holder, version, current, what) = match kind {
        Kind::Domain(seen) => {
            let label = Label::of_domain_text(seen.domain);
            (label, Holder::Domain, seen.version, seen.current, What::Observed(seen.events))
        }
        Kind::User(seen) => {
            (seen.label, Holder::User, seen.version, seen.current, What::Observed(seen.events))
        }
        Kind::Forgotten(gone) => (gone.label, Holder::User, gone.version, 0, What::Forgotten),
        Kind::Carried(carried) => {
            let Carried { label, holder, version, current, chain, .. } = *carried;
            (label, holder, version, current, What::Carried(chain))
        }
        _ => return None,
    };
    Some((label, Step { index, holder, version, current, what }))
}

/// Whether no label of a predecessor is carried over behind it.
fn ends_carrying(kind: &Kind<'_>) -> bool {
    match kind {
        Kind::Carried(_) | Kind::Root(_) => false,
        Kind::Genesis(genesis) => genesis.predecessor.is_none(),
        _ => true,
    }
}

/// What two leaves tell, whatever stands between them.
fn in_pairs(leaves: &[Read<'_>]) -> Vec<Broken> {
    let mut found = Vec::new();
    let mut root: Option<Timestamp> = None;
    let mut closing: Option<u64> = None;
    let mut carried_all = false;
    let mut steps: BTreeMap<Label, Step> = BTreeMap::new();
    for leaf in leaves {
        let Ok(entry) = &leaf.entry else { continue };
        if root.is_some_and(|root| entry.time < root) {
            found.push(leaf.breaks("too-old", replay::Broken::TooOld.to_string()));
        }
        match closing {
            Some(at) if leaf.index > at.saturating_add(1) => {
                found.push(leaf.breaks("closed", replay::Broken::Closed.to_string()));
            }
            Some(_) if !matches!(entry.kind, Kind::Root(_)) => {
                found.push(leaf.breaks("after-closing", replay::Broken::AfterClosing.to_string()));
            }
            _ => {}
        }
        match &entry.kind {
            Kind::Root(_) => root = root.max(Some(entry.time)),
            Kind::Closing(_) => closing = closing.or(Some(leaf.index)),
            Kind::Carried(_) if carried_all => {
                let broken = replay::Broken::CarriedMisplaced;
                found.push(leaf.breaks(broken.rule(), broken.to_string()));
            }
            _ => {}
        }
        carried_all |= ends_carrying(&entry.kind);
        if let Some((label, step)) = step(leaf.index, &entry.kind)
            && let Some(before) = steps.insert(label, step)
        {
            found.extend(follows(&before, &step).map(|(rule, words)| leaf.breaks(rule, words)));
        }
    }
    // A root is younger than all before it.
    let mut later: Option<Timestamp> = None;
    for leaf in leaves.iter().rev() {
        let Ok(entry) = &leaf.entry else { continue };
        if later.is_some_and(|later| entry.time > later) {
            found.push(leaf.breaks("too-young", replay::Broken::TooYoung.to_string()));
        }
        if matches!(entry.kind, Kind::Root(_)) {
            later = Some(later.map_or(entry.time, |later| later.min(entry.time)));
        }
    }
    found
}

/// Why an entry cannot follow an earlier one of its label.
fn follows(before: &Step, next: &Step) -> Option<(&'static str, String)> {
    let broken = |broken: replay::Broken| Some((broken.rule(), broken.to_string()));
    if before.holder != next.holder {
        return broken(replay::Broken::Holder);
    }
    if let What::Carried(_) = next.what {
        return broken(replay::Broken::CarriedTwice);
    }
    let expected = before.version.saturating_add(1);
    let between = next.index - before.index;
    let grown = next.version.saturating_sub(before.version);
    if grown == 0 || grown > between {
        return broken(replay::Broken::Version { expected, found: next.version });
    }
    let (1, What::Observed(events)) = (grown, next.what) else { return None };
    match entry::current_after(next.holder, events, next.version, before.current) {
        Err(misfit) => broken(replay::Broken::Misfit(misfit)),
        Ok(current) if current != next.current => {
            broken(replay::Broken::Current { expected: current, found: next.current })
        }
        Ok(_) => None,
    }
}

/// A batch behind the root before it, or behind nothing.
fn replay(entries: &Entries, leaves: &[Read<'_>]) -> Result<Option<Broken>, Fault> {
    let contiguous = leaves.windows(2).all(|pair| match pair {
        [one, next] => one.index.checked_add(1) == Some(next.index),
        _ => true,
    });
    let (Some(first), true) = (leaves.first(), contiguous) else { return Ok(None) };
    let Some(log_key) = entries.key.public_key() else { return Err(Fault::Key) };
    let expected = Expected { origin: entries.key.name().to_owned(), log_key: *log_key };
    let (mut replayer, mut map, skipped) = match &first.entry {
        Ok(Entry { kind: Kind::Root(root), time, .. }) if root.covered == first.index => {
            let position = Position {
                size: first.index.saturating_add(1),
                time: *time,
                vrf_key: [0; 32],
                closed: false,
                unknown: None,
                carrying: None,
            };
            let map = PartMap::new(&root.root, root.labels, &entries.tips).map_err(Fault::Tip)?;
            (Replayer::resume(expected, position), map, 1)
        }
        _ if first.index == 0 => {
            let map = PartMap::new(&map::empty_root(), 0, &entries.tips).map_err(Fault::Tip)?;
            (Replayer::new(expected), map, 0)
        }
        _ => return Ok(None),
    };
    for placed in entries.leaves.iter().skip(skipped) {
        match replayer.push(&mut map, placed.leaf.entry.clone()) {
            Ok(_) => {}
            Err(Stop::Unknown(unknown)) => return Err(Fault::UnknownFormat(unknown)),
            Err(Stop::Engine(_)) => return Err(Fault::Lack),
            // A root does not say what was still to be carried over behind it.
            Err(Stop::Fault(replay::Fault {
                broken: replay::Broken::CarriedMisplaced, ..
            })) if skipped > 0 => {
                return Ok(None);
            }
            Err(Stop::Fault(replay::Fault { index, broken })) => {
                let (rule, words) = (broken.rule(), broken.to_string());
                return Ok(Some(Broken { index, rule, words, replayed: true }));
            }
        }
    }
    Ok(None)
}

/// A domain's entry against the bytes that it names, as far as they are here. A
/// chain that leads to another root than the asker's accuses nobody.
fn against_bytes(leaf: &Read<'_>, blobs: &[bytes::Bytes], anchors: &[Anchor]) -> Option<Broken> {
    let Ok(Entry { kind: Kind::Domain(seen), time, .. }) = &leaf.entry else { return None };
    for blob in observation::named(seen) {
        let here = blobs.iter().map(|bytes| Blob::of(bytes));
        if here.into_iter().any(|here| here.sha256 == blob.sha256 && here.length != blob.length) {
            return Some(leaf.breaks("blob-length", "the bytes have another length"));
        }
    }
    let bytes = |blob: &Option<Blob>| {
        let blob = blob.as_ref()?;
        blobs.iter().find(|bytes| blob.names(bytes)).map(|bytes| &bytes[..])
    };
    let here = observation::Bytes {
        record: bytes(&seen.record),
        org_signet: bytes(&seen.org_signet),
        dnssec_chain: bytes(&seen.dnssec_chain).filter(|_| !anchors.is_empty()),
    };
    match observation::verify(seen, *time, &here, anchors) {
        Err(refused) if refused.rule != "dnssec-anchor" => {
            Some(leaf.breaks(refused.rule, refused.message))
        }
        _ => None,
    }
}
