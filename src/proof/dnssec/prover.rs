//! The walk from the root to a name over RRsets at hand.
//!
//! One walk serves both sides: a verifier has all RRsets there are; a collector
//! is told what is lacking, asks for it, and walks again.

use std::collections::{BTreeMap, BTreeSet};

use hickory_proto::dnssec::crypto::Digest;
use hickory_proto::dnssec::{Algorithm, DigestType, PublicKey, PublicKeyBuf};

use super::anchor::Anchor;
use super::denial::{self, HASH, Nsec, Nsec3, Parameters};
use super::wire::{DnsName, Key, RecordType, Set, encode, text};
use super::{Absence, MAX_CHAIN, MAX_CNAMES, MAX_HASHES, MAX_RECORDS, MAX_SIGNATURES, Proved};
use crate::dime::{Rejection, Timestamp, ed25519};

/// Keys of one zone with the same tag and algorithm that are tried.
const SAME_TAG: usize = 4;
/// What a collector may hold, in chains.
const SPARE: usize = 4;
/// Most RRsets that a collector holds, each signature counted.
const MAX_SETS: usize = 256;

/// Why nothing is proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lack {
    /// A collector should ask for these records, and for what denies them.
    Needs(DnsName, RecordType),
    Refused(Rejection),
}

impl Lack {
    /// As a verifier says it.
    pub fn refuse(self) -> Rejection {
        match self {
            Lack::Needs(name, kind) => {
                Rejection::new("chain-incomplete", format!("type {} at {name} is missing", kind.0))
            }
            Lack::Refused(rejection) => rejection,
        }
    }
}

impl From<Rejection> for Lack {
    fn from(rejection: Rejection) -> Lack {
        Lack::Refused(rejection)
    }
}

/// RRsets, and what they prove.
///
/// Rules of its refusals: `dnssec-early`, `dnssec-late` (a signature does not
/// hold yet, any more), `dnssec-algorithm`, `dnssec-labels`, `dnssec-signature`
/// (does not verify, or no key of the zone has its tag), `dnssec-anchor` (no
/// root key that is trusted), `dnssec-ds` (no key of the zone that its DS
/// records name), `dnssec-wildcard` (an expanded wildcard without the denial of
/// the name itself), `dnssec-alias` (more than one CNAME at a name, or too many
/// in a row), `nsec3-iterations`, `chain-work` (more checks than we make),
/// `chain-format`, and `chain-incomplete` for what is not there.
pub struct Prover<'a> {
    anchors: &'a [Anchor],
    at: Timestamp,
    sets: Vec<Candidate>,
    /// `Some` for a collector: what it has been told.
    told: Option<BTreeSet<(DnsName, RecordType)>>,
    zones: BTreeMap<DnsName, Zone>,
    used: BTreeSet<usize>,
    /// The first thing that was wrong on the way.
    fault: Option<Rejection>,
    signatures: usize,
    hashes: usize,
    hashed: BTreeMap<(DnsName, Parameters), [u8; HASH]>,
}

struct Candidate {
    set: Set,
    /// Whether the signature holds under its zone's keys, once checked.
    verdict: Option<bool>,
}

/// A zone whose keys are trusted, and the RRsets that made them so.
#[derive(Clone)]
struct Zone {
    name: DnsName,
    keys: Vec<Key>,
    trail: Vec<usize>,
}

/// What is at a name.
enum Found {
    Done(Proved),
    Alias(DnsName),
}

/// What is between a zone and a name below it.
enum Cut {
    None,
    Signed(Zone),
    Unsigned(Vec<usize>),
}

impl<'a> Prover<'a> {
    /// A verifier's: these RRsets and no others.
    pub fn over(sets: Vec<Set>, anchors: &'a [Anchor], at: Timestamp) -> Prover<'a> {
        let sets = sets.into_iter().map(|set| Candidate { set, verdict: None }).collect();
        Prover { told: None, sets, ..Prover::collecting(anchors, at) }
    }

    /// A collector's: empty, to be filled by [`Prover::tell`].
    pub fn collecting(anchors: &'a [Anchor], at: Timestamp) -> Prover<'a> {
        Prover {
            anchors,
            at,
            sets: Vec::new(),
            told: Some(BTreeSet::new()),
            zones: BTreeMap::new(),
            used: BTreeSet::new(),
            fault: None,
            signatures: 0,
            hashes: 0,
            hashed: BTreeMap::new(),
        }
    }

    /// What was answered when asked for `kind` at `name`; nothing is an answer.
    /// Refused with rule `chain-limit` if it is far more than a chain holds.
    pub fn tell(
        &mut self,
        name: DnsName,
        kind: RecordType,
        sets: impl IntoIterator<Item = Set>,
    ) -> Result<(), Rejection> {
        if let Some(told) = &mut self.told {
            told.insert((name, kind));
        }
        for set in sets {
            if !self.sets.iter().any(|known| known.set == set) {
                self.sets.push(Candidate { set, verdict: None });
            }
        }
        let all = || self.sets.iter().flat_map(|candidate| &candidate.set.data);
        if self.sets.len() > MAX_SETS
            || all().count() > SPARE * MAX_RECORDS
            || all().map(Vec::len).sum::<usize>() > SPARE * MAX_CHAIN
        {
            return Err(Rejection::new("chain-limit", "the answers are too large for a chain"));
        }
        Ok(())
    }

    /// What is proved about the TXT records of `name`.
    pub fn prove(&mut self, name: &DnsName) -> Result<Proved, Lack> {
        let mut owner = name.clone();
        for _ in 0..=MAX_CNAMES {
            match self.resolve(&owner)? {
                Found::Done(proved) => return Ok(proved),
                Found::Alias(target) => owner = target,
            }
        }
        Err(Rejection::new("dnssec-alias", "too many CNAMEs in a row").into())
    }

    /// Whether more can be had by asking.
    pub(super) fn is_collecting(&self) -> bool {
        self.told.is_some()
    }

    /// What served so far, to go [back](Prover::back_to) to.
    pub(super) fn used(&self) -> BTreeSet<usize> {
        self.used.clone()
    }

    /// What served since then did not serve.
    pub(super) fn back_to(&mut self, used: BTreeSet<usize>) {
        self.used = used;
    }

    /// When all signatures hold that were used so far: first and last second.
    pub fn window(&self) -> (Timestamp, Timestamp) {
        let now = self.at.secs();
        let at = |time: u32| {
            let away = i64::from(time.wrapping_sub(now as u32) as i32);
            now.saturating_add_signed(away)
        };
        let used = || self.used.iter().filter_map(|&index| self.sets.get(index));
        let since = used().map(|it| at(it.set.signature.inception)).max().unwrap_or(now);
        let until = used().map(|it| at(it.set.signature.expiration)).min().unwrap_or(now);
        (Timestamp::from_secs(since), Timestamp::from_secs(until))
    }

    /// The chain of what was used so far.
    pub fn chain(&self) -> Result<Vec<u8>, Rejection> {
        let used = self.used.iter().filter_map(|&index| self.sets.get(index));
        encode(used.map(|candidate| candidate.set.clone()).collect())
    }

    /// Refused with rule `chain-unused` if an RRset served nothing.
    pub(super) fn all_used(&self) -> Result<(), Rejection> {
        match (0..self.sets.len()).find(|index| !self.used.contains(index)) {
            None => Ok(()),
            Some(index) => {
                let set = self.sets.get(index).map(|candidate| &candidate.set);
                let what = set.map(|set| format!("type {} at {}", set.kind.0, set.owner));
                Err(Rejection::new("chain-unused", what.unwrap_or_default()))
            }
        }
    }

    /// From the root towards `owner`: what is there, or where trust ends.
    fn resolve(&mut self, owner: &DnsName) -> Result<Found, Lack> {
        self.need(owner, RecordType::TXT)?;
        let mut zone = self.root()?;
        let labels = owner.label_count();
        let mut depth = 0;
        loop {
            if let Some((found, trail)) = self.find(&zone, owner)? {
                self.used.extend(zone.trail.iter().chain(&trail));
                return Ok(found);
            }
            let below = loop {
                depth += 1;
                if depth > labels {
                    return Err(self.incomplete(owner).into());
                }
                let child = owner.suffix(depth);
                match self.cut(&zone, &child)? {
                    Cut::None => {}
                    Cut::Signed(below) => break below,
                    Cut::Unsigned(trail) => {
                        self.used.extend(zone.trail.iter().chain(&trail));
                        return Ok(Found::Done(Proved::Insecure { cut: child }));
                    }
                }
            };
            zone = below;
        }
    }

    fn incomplete(&self, owner: &DnsName) -> Rejection {
        let missing = || {
            let why = format!("neither TXT records at {owner} nor their absence are proved");
            Rejection::new("chain-incomplete", why)
        };
        self.fault.clone().unwrap_or_else(missing)
    }

    /// A collector is sent to ask what it has not asked yet.
    fn need(&self, name: &DnsName, kind: RecordType) -> Result<(), Lack> {
        match &self.told {
            Some(told) if !told.contains(&(name.clone(), kind)) => {
                Err(Lack::Needs(name.clone(), kind))
            }
            _ => Ok(()),
        }
    }

    fn root(&mut self) -> Result<Zone, Lack> {
        let root = DnsName::root();
        if let Some(zone) = self.zones.get(&root) {
            return Ok(zone.clone());
        }
        self.need(&root, RecordType::DNSKEY)?;
        let refused = Rejection::new("dnssec-anchor", "no key of the root is a trust anchor");
        Ok(self.trust(&root, self.anchors.to_vec().as_slice(), vec![], refused)?)
    }

    /// The zone's keys, if they are signed by one that `anchors` name.
    fn trust(
        &mut self,
        name: &DnsName,
        anchors: &[Anchor],
        mut trail: Vec<usize>,
        refused: Rejection,
    ) -> Result<Zone, Rejection> {
        let mut fault = None;
        for index in self.candidates(name, RecordType::DNSKEY, name) {
            let keys: Vec<Key> = self.data(index).iter().filter_map(|key| Key::read(key)).collect();
            let trusted: Vec<Key> = keys
                .iter()
                .filter(|key| anchors.iter().any(|anchor| anchor.covers(name, key)))
                .cloned()
                .collect();
            if trusted.is_empty() {
                continue;
            }
            match self.check(index, &trusted) {
                Ok(()) => {
                    trail.push(index);
                    let zone = Zone { name: name.clone(), keys, trail };
                    self.zones.insert(name.clone(), zone.clone());
                    return Ok(zone);
                }
                Err(why) => fault = Some(fault.unwrap_or(why)),
            }
        }
        Err(fault.unwrap_or(refused))
    }

    /// Whether `zone` delegates `child`, and how.
    fn cut(&mut self, zone: &Zone, child: &DnsName) -> Result<Cut, Lack> {
        if let Some(known) = self.zones.get(child) {
            return Ok(Cut::Signed(known.clone()));
        }
        self.need(child, RecordType::DS)?;
        for index in self.candidates(child, RecordType::DS, &zone.name) {
            if !self.holds(index, zone)? {
                continue;
            }
            let digests: Vec<Anchor> = self
                .data(index)
                .iter()
                .filter_map(|rdata| Anchor::from_ds(rdata))
                .filter(Anchor::is_supported)
                .collect();
            if digests.is_empty() {
                return Ok(Cut::Unsigned(vec![index]));
            }
            self.need(child, RecordType::DNSKEY)?;
            let trail = zone.trail.iter().copied().chain([index]).collect();
            let why = format!("no key of {child} is named by its DS records");
            let refused = Rejection::new("dnssec-ds", why);
            return Ok(Cut::Signed(self.trust(child, &digests, trail, refused)?));
        }
        Ok(self.unsigned(zone, child)?.map_or(Cut::None, Cut::Unsigned))
    }

    /// The proof that `child` is delegated without DS records (RFC 4035 §5.2,
    /// RFC 5155 §8.6, §8.9).
    fn unsigned(&mut self, zone: &Zone, child: &DnsName) -> Result<Option<Vec<usize>>, Rejection> {
        for index in self.candidates(child, RecordType::NSEC, &zone.name) {
            let nsec = self.set(index).and_then(Nsec::read);
            let unsigned = nsec.is_some_and(|it| denial::is_unsigned_delegation(&it.types));
            if unsigned && self.holds(index, zone)? {
                return Ok(Some(vec![index]));
            }
        }
        if let Some((index, nsec3)) = self.matching(zone, child)? {
            return Ok(denial::is_unsigned_delegation(&nsec3.types).then(|| vec![index]));
        }
        // In an opt-out span unsigned delegations have no record of their own.
        let parent = child.parent();
        match (self.matching(zone, &parent)?, self.covering(zone, child, true)?) {
            (Some((closest, nsec3)), Some(cover)) if speaks_below(&nsec3) => {
                Ok(Some(vec![closest, cover]))
            }
            _ => Ok(None),
        }
    }

    /// What `zone` itself says about TXT records at `owner`, with the RRsets
    /// that prove it.
    fn find(
        &mut self,
        zone: &Zone,
        owner: &DnsName,
    ) -> Result<Option<(Found, Vec<usize>)>, Rejection> {
        for kind in [RecordType::TXT, RecordType::CNAME] {
            for index in self.candidates(owner, kind, &zone.name) {
                if !self.holds(index, zone)? {
                    continue;
                }
                let mut trail = self.exactly(index, zone, owner)?;
                trail.push(index);
                return Ok(Some((self.answer(index, kind)?, trail)));
            }
        }
        let denied = match self.denied_by_nsec(zone, owner)? {
            Some(denied) => Some(denied),
            None => self.denied_by_nsec3(zone, owner)?,
        };
        Ok(denied.map(|(absence, trail)| (Found::Done(Proved::Denied(absence)), trail)))
    }

    fn answer(&self, index: usize, kind: RecordType) -> Result<Found, Rejection> {
        if kind == RecordType::TXT {
            let texts: Option<Vec<Vec<u8>>> = self.data(index).iter().map(|it| text(it)).collect();
            let texts =
                texts.ok_or_else(|| Rejection::new("chain-format", "malformed TXT data"))?;
            return Ok(Found::Done(Proved::Records(texts)));
        }
        let target = match self.data(index) {
            [only] => DnsName::read(only),
            _ => None,
        };
        let target = target.ok_or_else(|| Rejection::new("dnssec-alias", "not one CNAME"))?;
        Ok(Found::Alias(target.0))
    }

    /// For records that a wildcard gave: the proof that nothing closer exists
    /// (RFC 4035 §5.3.4, RFC 5155 §8.8).
    fn exactly(
        &mut self,
        index: usize,
        zone: &Zone,
        owner: &DnsName,
    ) -> Result<Vec<usize>, Rejection> {
        let labels = self.set(index).map_or(0, |set| usize::from(set.signature.labels));
        if labels >= owner.signed_labels() {
            return Ok(vec![]);
        }
        let closest = owner.suffix(labels);
        for (nsec_index, nsec) in self.nsecs_over(zone, owner)? {
            if self.closest(nsec_index, &nsec, owner) == closest {
                return Ok(vec![nsec_index]);
            }
        }
        match self.covering(zone, &owner.suffix(labels + 1), false)? {
            Some(cover) => Ok(vec![cover]),
            None => {
                let why = format!("a wildcard's answer for {owner}, which may exist itself");
                Err(Rejection::new("dnssec-wildcard", why))
            }
        }
    }

    fn denied_by_nsec(
        &mut self,
        zone: &Zone,
        owner: &DnsName,
    ) -> Result<Option<(Absence, Vec<usize>)>, Rejection> {
        if let Some((index, nsec)) = self.nsec_at(zone, owner)? {
            let absence = match nsec.types.contains(RecordType::NXNAME) {
                true => Absence::NoName,
                false => Absence::NoData,
            };
            return Ok(denial::denies_text(&nsec.types).then(|| (absence, vec![index])));
        }
        for (index, nsec) in self.nsecs_over(zone, owner)? {
            if nsec.next.is_within(owner) {
                return Ok(Some((Absence::NoData, vec![index])));
            }
            let closest = self.closest(index, &nsec, owner);
            let Some(wildcard) = closest.child(b"*") else { continue };
            if let Some((at, nsec)) = self.nsec_at(zone, &wildcard)? {
                if denial::denies_text(&nsec.types) {
                    return Ok(Some((Absence::NoData, vec![index, at])));
                }
                continue;
            }
            if let Some((over, _)) = self.nsecs_over(zone, &wildcard)?.into_iter().next() {
                return Ok(Some((Absence::NoName, vec![index, over])));
            }
        }
        Ok(None)
    }

    fn denied_by_nsec3(
        &mut self,
        zone: &Zone,
        owner: &DnsName,
    ) -> Result<Option<(Absence, Vec<usize>)>, Rejection> {
        if let Some((index, nsec3)) = self.matching(zone, owner)? {
            return Ok(denial::denies_text(&nsec3.types).then(|| (Absence::NoData, vec![index])));
        }
        for depth in (zone.name.label_count()..owner.label_count()).rev() {
            let closest = owner.suffix(depth);
            let Some((encloser, nsec3)) = self.matching(zone, &closest)? else { continue };
            let next_closer = owner.suffix(depth + 1);
            let cover = self.covering(zone, &next_closer, false)?;
            let (true, Some(cover)) = (speaks_below(&nsec3), cover) else { return Ok(None) };
            let Some(wildcard) = closest.child(b"*") else { return Ok(None) };
            if let Some((at, nsec3)) = self.matching(zone, &wildcard)? {
                let trail = vec![encloser, cover, at];
                return Ok(denial::denies_text(&nsec3.types).then_some((Absence::NoData, trail)));
            }
            let over = match self.covering(zone, &wildcard, false)? {
                Some(over) => Some(over),
                None => self.covering(zone, &wildcard, true)?,
            };
            return Ok(over.map(|over| (Absence::NoName, vec![encloser, cover, over])));
        }
        Ok(None)
    }

    /// The zone's NSEC record at `name`.
    fn nsec_at(&mut self, zone: &Zone, name: &DnsName) -> Result<Option<(usize, Nsec)>, Rejection> {
        for index in self.candidates(name, RecordType::NSEC, &zone.name) {
            let Some(nsec) = self.set(index).and_then(Nsec::read) else { continue };
            if self.holds(index, zone)? {
                return Ok(Some((index, nsec)));
            }
        }
        Ok(None)
    }

    /// The zone's NSEC records that deny `name`.
    fn nsecs_over(&mut self, zone: &Zone, name: &DnsName) -> Result<Vec<(usize, Nsec)>, Rejection> {
        let mut over = Vec::new();
        for index in self.all(RecordType::NSEC, &zone.name) {
            let Some(set) = self.set(index) else { continue };
            let owner = set.owner.clone();
            let Some(nsec) = Nsec::read(set) else { continue };
            let above = name.is_within(&owner);
            let covers = nsec.covers(&owner, name, &zone.name) && (!above || nsec.speaks_below());
            if covers && self.holds(index, zone)? {
                over.push((index, nsec));
            }
        }
        Ok(over)
    }

    /// The closest ancestor of `name` that exists, by the NSEC record over it.
    fn closest(&self, index: usize, nsec: &Nsec, name: &DnsName) -> DnsName {
        let next = name.common(&nsec.next);
        match self.set(index).map(|set| name.common(&set.owner)) {
            Some(owner) if owner.label_count() > next.label_count() => owner,
            _ => next,
        }
    }

    /// The zone's NSEC3 record of `name`.
    fn matching(
        &mut self,
        zone: &Zone,
        name: &DnsName,
    ) -> Result<Option<(usize, Nsec3)>, Rejection> {
        for index in self.all(RecordType::NSEC3, &zone.name) {
            let Some(nsec3) = self.nsec3(index, zone) else { continue };
            if self.hash(name, &nsec3.parameters)? == nsec3.hash && self.holds(index, zone)? {
                return Ok(Some((index, nsec3)));
            }
        }
        Ok(None)
    }

    /// A record of the zone whose span, with or without opt-out, `name` is in.
    fn covering(
        &mut self,
        zone: &Zone,
        name: &DnsName,
        opt_out: bool,
    ) -> Result<Option<usize>, Rejection> {
        for index in self.all(RecordType::NSEC3, &zone.name) {
            let Some(nsec3) = self.nsec3(index, zone) else { continue };
            let covers = nsec3.opt_out == opt_out
                && nsec3.covers(&self.hash(name, &nsec3.parameters)?)
                && self.holds(index, zone)?;
            if covers {
                return Ok(Some(index));
            }
        }
        Ok(None)
    }

    fn nsec3(&mut self, index: usize, zone: &Zone) -> Option<Nsec3> {
        match Nsec3::read(self.set(index)?, &zone.name) {
            Ok(nsec3) => nsec3,
            Err(why) => {
                self.fault.get_or_insert(why);
                None
            }
        }
    }

    fn hash(&mut self, name: &DnsName, with: &Parameters) -> Result<[u8; HASH], Rejection> {
        let key = (name.clone(), with.clone());
        if let Some(hash) = self.hashed.get(&key) {
            return Ok(*hash);
        }
        self.hashes += 1 + usize::from(with.iterations);
        if self.hashes > MAX_HASHES {
            return Err(Rejection::new("chain-work", "too many NSEC3 hashes"));
        }
        let digest = Digest::iterated(&with.salt, name.wire(), DigestType::SHA1, with.iterations);
        let hash = digest.ok().and_then(|digest| <[u8; HASH]>::try_from(digest.as_ref()).ok());
        let hash = hash.ok_or_else(|| Rejection::new("chain-format", "no NSEC3 hash"))?;
        self.hashed.insert(key, hash);
        Ok(hash)
    }

    fn set(&self, index: usize) -> Option<&Set> {
        self.sets.get(index).map(|candidate| &candidate.set)
    }

    fn data(&self, index: usize) -> &[Vec<u8>] {
        self.set(index).map_or(&[], |set| set.data.as_slice())
    }

    fn all(&self, kind: RecordType, signer: &DnsName) -> Vec<usize> {
        let fits = |set: &Set| set.kind == kind && set.signature.signer == *signer;
        let found = self.sets.iter().enumerate().filter(|(_, candidate)| fits(&candidate.set));
        found.map(|(index, _)| index).collect()
    }

    fn candidates(&self, owner: &DnsName, kind: RecordType, signer: &DnsName) -> Vec<usize> {
        let mut found = self.all(kind, signer);
        found.retain(|&index| self.set(index).is_some_and(|set| set.owner == *owner));
        found
    }

    /// Whether the RRset is signed by its zone. What is wrong with it is kept
    /// as the reason, should nothing else do.
    fn holds(&mut self, index: usize, zone: &Zone) -> Result<bool, Rejection> {
        if let Some(verdict) = self.sets.get(index).and_then(|candidate| candidate.verdict) {
            return Ok(verdict);
        }
        let verdict = self.check(index, &zone.keys);
        let holds = match verdict {
            Ok(()) => true,
            Err(why) if why.rule == "chain-work" => return Err(why),
            Err(why) => {
                self.fault.get_or_insert(why);
                false
            }
        };
        if let Some(candidate) = self.sets.get_mut(index) {
            candidate.verdict = Some(holds);
        }
        Ok(holds)
    }

    /// One signature, with one of `keys`, at the time (RFC 4035 §5.3).
    fn check(&mut self, index: usize, keys: &[Key]) -> Result<(), Rejection> {
        let Some(set) = self.sets.get(index).map(|candidate| &candidate.set) else {
            return Err(Rejection::new("chain-format", "no such RRset"));
        };
        let signature = &set.signature;
        let what = format!("type {} at {}", set.kind.0, set.owner);
        let refuse = |rule, why: &str| Rejection::new(rule, format!("{what}: {why}"));
        if !is_supported(signature.algorithm) {
            return Err(refuse("dnssec-algorithm", "an algorithm that we do not check"));
        }
        if !set.owner.is_within(&signature.signer) {
            return Err(refuse("dnssec-signature", "signed by a zone that it is not in"));
        }
        // Serial number arithmetic (RFC 1982): times are modulo 2^32.
        let after = |time: u32| (self.at.secs() as u32).wrapping_sub(time) as i32;
        if after(signature.inception) < 0 {
            return Err(refuse("dnssec-early", "the signature does not hold yet"));
        }
        if after(signature.expiration) > 0 {
            return Err(refuse("dnssec-late", "the signature has expired"));
        }
        let labels = usize::from(signature.labels);
        let exact = set.owner.signed_labels();
        let may_expand = matches!(set.kind, RecordType::TXT | RecordType::CNAME);
        if labels > exact || (labels < exact && !may_expand) {
            return Err(refuse("dnssec-labels", "the signature is over another name"));
        }
        let signed_owner = match labels < exact {
            true => set.owner.suffix(labels).child(b"*"),
            false => Some(set.owner.clone()),
        };
        let owner = signed_owner.ok_or_else(|| refuse("dnssec-labels", "no such wildcard"))?;
        let message = [signature.head(), set.records(&owner)].concat();
        let fits =
            |key: &&Key| key.tag == signature.key_tag && key.algorithm == signature.algorithm;
        for key in keys.iter().filter(fits).take(SAME_TAG) {
            self.signatures += 1;
            if self.signatures > MAX_SIGNATURES {
                return Err(Rejection::new("chain-work", "too many signatures"));
            }
            if verifies(key, &message, &signature.bytes) {
                return Ok(());
            }
        }
        Err(refuse("dnssec-signature", "the signature does not verify"))
    }
}

fn speaks_below(nsec3: &Nsec3) -> bool {
    !denial::is_delegation(&nsec3.types) && !nsec3.types.contains(RecordType::DNAME)
}

/// RSA with SHA-256 and SHA-512, ECDSA P-256 and P-384, Ed25519.
pub(super) fn is_supported(algorithm: u8) -> bool {
    matches!(algorithm, 8 | 10 | 13 | 14 | 15)
}

fn verifies(key: &Key, message: &[u8], signature: &[u8]) -> bool {
    if key.algorithm == 15 {
        // The one verifier of Ed25519 in the house.
        return match (key.public.as_slice().try_into(), signature.try_into()) {
            (Ok(key), Ok(signature)) => ed25519::verify(key, message, signature).is_ok(),
            _ => false,
        };
    }
    let algorithm = Algorithm::from_u8(key.algorithm);
    is_supported(key.algorithm)
        && PublicKeyBuf::new(key.public.clone(), algorithm).verify(message, signature).is_ok()
}
