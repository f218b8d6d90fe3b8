//! What a mirror did, judged by its own signatures.

use super::batch::{self, Broken};
use super::verify::{Case, Fault, Findings, Party};
use super::{Entries, Fork, Kind};
use crate::proof::checkpoint::SignedCheckpoint;
use crate::proof::entry;
use crate::proof::map::entry_leaf_hash;
use crate::proof::merkle;
use crate::proof::note::{KeyType, VerifierKey};

/// Rules that one leaf alone cannot break.
const BY_CONTEXT: [&str; 18] = [
    "version",
    "current",
    "events",
    "holder",
    "too-old",
    "too-young",
    "user-time",
    "order",
    "batch-too-large",
    "labels",
    "directory-root",
    "after-closing",
    "closed",
    "carried-misplaced",
    "carried-order",
    "carried-twice",
    "carried-count",
    "carried-root",
];

/// Two checkpoints that cannot both be true.
pub fn fork(case: &Case<'_>, fork: &Fork) -> Result<Findings, Fault> {
    let Fork { key, smaller, larger, prefix, proof } = fork;
    check_signed(key, smaller)?;
    check_signed(key, larger)?;
    let (small, large) = (smaller.checkpoint(), larger.checkpoint());
    if small.size > large.size {
        return Err(Fault::Order);
    }
    merkle::verify_consistency(small.size, large.size, prefix, &large.root, proof)
        .map_err(Fault::Consistency)?;
    if *prefix == small.root {
        return Err(Fault::Agree);
    }
    let mut findings = Findings::default();
    let name = key.name();
    findings.proved.push(match small.size == large.size {
        true => format!(
            "The key of the log {name} signed two different states of {} entries.",
            small.size
        ),
        false => format!(
            "The key of the log {name} signed a state of {} entries, and one of {} entries whose \
             first {} are others.",
            small.size, large.size, small.size
        ),
    });
    for witness in case.policy.into_iter().flat_map(|policy| policy.witnesses()) {
        let signed = |note: &SignedCheckpoint| note.verify([&witness.key]).is_ok();
        if signed(smaller) && signed(larger) {
            findings.proved.push(format!(
                "The cosigner {} of your policy signed both of them too.",
                witness.name()
            ));
        }
    }
    whose_key(case, key, &mut findings);
    findings.convict(Party::Mirror { key: key.clone() }, "signed two histories of its log");
    Ok(findings)
}

/// Leaves under a signed checkpoint.
pub fn entries(case: &Case<'_>, entries: &Entries) -> Result<Findings, Fault> {
    let Entries { key, checkpoint, leaves, .. } = entries;
    check_signed(key, checkpoint)?;
    let tree = checkpoint.checkpoint();
    // Where the mirror no longer gives out its tree, nobody can show the path.
    let pathless = match leaves.as_slice() {
        [only] => only.leaf.path.is_empty() && tree.size > 1,
        _ => false,
    };
    for placed in leaves.iter().filter(|_| !pathless) {
        let hash = entry_leaf_hash(&placed.leaf.entry);
        merkle::verify_inclusion(placed.index, tree.size, &hash, &placed.leaf.path, &tree.root)
            .map_err(|_| Fault::Inclusion { index: placed.index })?;
    }
    let mut findings = Findings::default();
    let signed = |which: &str| {
        format!(
            "The key of the log {} signed a state of {} entries; {which}.",
            key.name(),
            tree.size
        )
    };
    let last = leaves.last().ok_or(Fault::Leaves)?;
    if pathless {
        findings.proved.push(signed("whether the entry here is in it is not shown"));
        findings.testimony.push(format!(
            "That entry {} of the log is this one, and breaks the rule {:?}, is the word of {}: \
             there is no proof that it is in the log.",
            last.index, entries.rule, case.incident.observer
        ));
        whose_key(case, key, &mut findings);
        return Ok(findings);
    }
    match case.kind() {
        Kind::BlobUnserved => {
            let blob = named(&last.leaf.entry, &entries.rule).ok_or(Fault::Leaves)?;
            findings.proved.push(signed(&format!(
                "its entry {} names {} bytes with SHA-256 {}",
                last.index,
                blob.length,
                hex::encode(blob.sha256)
            )));
            findings.testimony.push(format!(
                "That the mirror {} did not give these bytes out is the word of {}. Ask it \
                 yourself: /v1/blob/{}.",
                key.name(),
                case.incident.observer,
                hex::encode(blob.sha256)
            ));
        }
        Kind::StaleMirror => {
            let time = root_time(&last.leaf.entry).ok_or(Fault::Leaves)?;
            if time > case.at() {
                return Err(Fault::Time);
            }
            findings
                .proved
                .push(signed(&format!("its directory root {} is of {time}", last.index)));
            findings.testimony.push(format!(
                "That the mirror {} gave nothing newer at {} is the word of {}. Being slow or cut \
                 off is no crime.",
                key.name(),
                case.at(),
                case.incident.observer
            ));
        }
        _ if leaves.len() == 1 && BY_CONTEXT.contains(&entries.rule.as_str()) => {
            findings.proved.push(signed(&format!("entry {} is in it", last.index)));
            findings.testimony.push(format!(
                "That it breaks the rule {:?}, which takes the entries before it to see, is the \
                 word of {}. Anybody can compute it: `syndicate audit` replays the log from its \
                 first entry to number {}.",
                entries.rule, case.incident.observer, last.index
            ));
        }
        _ => broken(case, entries, &mut findings, signed)?,
    }
    whose_key(case, key, &mut findings);
    Ok(findings)
}

fn broken(
    case: &Case<'_>,
    entries: &Entries,
    findings: &mut Findings,
    signed: impl Fn(&str) -> String,
) -> Result<(), Fault> {
    let is_root = ["directory-root", "labels"].contains(&entries.rule.as_str());
    if is_root != (case.kind() == Kind::DirectoryRootWrong) {
        return Err(Fault::Leaves);
    }
    let Broken { index, rule, words, replayed } =
        batch::broken(entries, case.anchors)?.ok_or(Fault::Unbroken)?;
    findings.proved.push(signed(&format!("entry {index} is in it")));
    findings.proved.push(format!("Entry {index} breaks the rule {rule:?}: {words}."));
    if replayed {
        findings.testimony.push(
            "That no entry before these is of a newer format: then this program would only be too \
             old to judge."
                .to_owned(),
        );
    }
    let party = Party::Mirror { key: entries.key.clone() };
    findings.convict(party, format!("signed an entry that breaks the rule {rule:?}"));
    Ok(())
}

fn check_signed(key: &VerifierKey, signed: &SignedCheckpoint) -> Result<(), Fault> {
    if key.kind() != KeyType::Ed25519 {
        return Err(Fault::Key);
    }
    if signed.checkpoint().origin != key.name() {
        return Err(Fault::Origin);
    }
    signed.verify([key]).map_err(Fault::Checkpoint)?;
    Ok(())
}

/// Says whether the key is one that the asker believes.
fn whose_key(case: &Case<'_>, key: &VerifierKey, findings: &mut Findings) {
    if !case.knows(key) {
        findings.testimony.push(format!(
            "That {key} is the key of the mirror {}: your policy does not have it. Compare it with \
             the key that the mirror publishes.",
            key.name()
        ));
    }
}

/// The blob of a domain's entry that the word names.
fn named(bytes: &[u8], which: &str) -> Option<entry::Blob> {
    let entry::Kind::Domain(seen) = entry::Entry::decode(bytes).ok()?.kind else { return None };
    match which {
        "record" => seen.record,
        "org-signet" => seen.org_signet,
        "dnssec-chain" => seen.dnssec_chain,
        _ => None,
    }
}

fn root_time(bytes: &[u8]) -> Option<crate::dime::Timestamp> {
    let read = entry::Entry::decode(bytes).ok()?;
    matches!(read.kind, entry::Kind::Root(_)).then_some(read.time)
}
