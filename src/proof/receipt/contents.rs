//! The strangers' bytes behind the hashes: records, signets and DNSSEC chains,
//! validated anew down to the POK.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::Receipt;
use super::history::{History, Version};
use super::verdict::{Content, Fault, Note};
use super::verify::Asker;
use crate::dime::org::ValidOrgSignet;
use crate::dime::record::Record;
use crate::dime::signet::Signet;
use crate::dime::user::ValidUserSignet;
use crate::dime::{Address, Dnssec, Domain, Rejection, Timestamp, chain, org, user};
use crate::proof::Hash;
use crate::proof::dnssec::{self, Anchor};
use crate::proof::entry::{Blob, Event, Kind, SignetFacts};

/// The bytes that are here, by hash.
pub(super) struct Blobs<'a> {
    pub(super) here: BTreeMap<Hash, &'a Bytes>,
    withdrawn: BTreeSet<Hash>,
    hashes_only: bool,
    anchors: &'a [Anchor],
}

impl<'a> Blobs<'a> {
    pub(super) fn check(
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
pub(super) struct Findings {
    pub(super) content: Content,
    pub(super) notes: Vec<Note>,
    pub(super) facts: Option<SignetFacts>,
    pub(super) observed: Option<Timestamp>,
    pub(super) signet: Option<Bytes>,
    pub(super) poks: Vec<[u8; 32]>,
    pub(super) dnssec: Option<Dnssec>,
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

/// Versions of a mailbox's domain, each looked into once.
struct Orgs<'b, 'r> {
    name: &'b Domain,
    blobs: &'b Blobs<'r>,
    known: BTreeMap<u64, Rc<OrgAt>>,
}

impl Orgs<'_, '_> {
    fn at(&mut self, version: &Version<'_>, missing: &mut Missing) -> Result<Rc<OrgAt>, Fault> {
        if let Some(known) = self.known.get(&version.version) {
            return Ok(Rc::clone(known));
        }
        let at = Rc::new(org_at(version, self.name, self.blobs, missing)?);
        self.known.insert(version.version, Rc::clone(&at));
        Ok(at)
    }
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
    pub(super) fn examine_domain(
        &self,
        name: &Domain,
        blobs: &Blobs<'_>,
    ) -> Result<Findings, Fault> {
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
    pub(super) fn examine_user(
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
        let mut orgs = Orgs { name: address.domain(), blobs, known: BTreeMap::new() };
        let mut missing = Missing::default();
        let mut notes = Vec::new();
        let under = domain.in_force_at(payload.domain_version, current)?;
        let at = orgs.at(under, &mut missing)?;
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
        let checked = valid.as_ref().map(|_| current.version);
        self.examine_older(address, domain, &mut orgs, checked)?;

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
            Some(now) => Some(orgs.at(now, &mut missing)?),
        };
        if let (Some(valid), Some(org), Some(now)) = (&valid, &at.org, now.as_deref()) {
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
            poks: now.map_or_else(Vec::new, |now| now.poks.clone()),
            dnssec: Some(at.dnssec),
        })
    }

    /// The domain's version that a mailbox's entry rests on.
    fn in_force_at(&self, version: u64, user: &Version<'_>) -> Result<&Version<'_>, Fault> {
        self.find(version)
            .filter(|found| found.in_force() && found.entry.time <= user.entry.time)
            .ok_or(Fault::DomainVersion { version })
    }

    /// Every version whose signet is here, as far as its domain's version is here
    /// too, but for the one that is `checked`; and custody from each to the next.
    fn examine_older(
        &self,
        address: &Address,
        domain: &History<'_>,
        orgs: &mut Orgs<'_, '_>,
        checked: Option<u64>,
    ) -> Result<(), Fault> {
        let blobs = orgs.blobs;
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
            let under = domain.find(payload.domain_version).filter(|_| checked != Some(version));
            if let Some(under) = under.filter(|under| blobs.has_org(under)) {
                let under = domain.in_force_at(under.version, known)?;
                let at = orgs.at(under, &mut Missing::default())?;
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
