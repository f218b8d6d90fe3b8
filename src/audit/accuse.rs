//! What the auditor found, as incidents that convince others offline. Each is
//! judged here first, as others will judge it: one that proves nothing is not
//! written.

use bytes::Bytes;

use crate::client::follow;
use crate::dime::Timestamp;
use crate::proof::checkpoint::SignedCheckpoint;
use crate::proof::dnssec::Anchor;
use crate::proof::incident::{self, CLIENT, Entries, Fork, Incident, Placed, TipProof};
use crate::proof::map::{CHAIN_START, MapProof};
use crate::proof::note::VerifierKey;
use crate::proof::receipt::Leaf;
use crate::proof::replay::Tip;
use crate::proof::{Hash, Label};

/// Leaves in one incident, at most: each is proved with requests of its own.
pub const MAX_LEAVES: usize = 256;

/// What a log is accused of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accused {
    /// By its name in `proto/README.md`.
    Rule(&'static str),
    /// The directory root, or its number of labels.
    Root(&'static str),
    /// `record`, `org-signet`, `dnssec-chain`.
    Unserved(&'static str),
}

/// Two histories by one key.
pub fn fork(key: &VerifierKey, at: Timestamp, fork: &follow::Fork) -> Option<Bytes> {
    let fork = Fork {
        key: key.clone(),
        smaller: fork.smaller.clone(),
        larger: fork.larger.clone(),
        prefix: fork.prefix,
        proof: fork.proof.clone(),
    };
    judged(Incident::log_fork(CLIENT, at, fork), &[])
}

/// What the leaves of a log show.
pub struct Shown {
    pub checkpoint: SignedCheckpoint,
    /// Index, entry, inclusion under the checkpoint.
    pub leaves: Vec<(u64, Bytes, Vec<Hash>)>,
    /// What the map held of the batch's labels before it.
    pub tips: Vec<(Label, Option<Tip>, MapProof)>,
    pub blobs: Vec<Bytes>,
}

/// Entries of a log, each with its inclusion under the checkpoint.
pub fn entries(
    key: &VerifierKey,
    at: Timestamp,
    shown: Shown,
    accused: Accused,
    anchors: &[Anchor],
) -> Option<Bytes> {
    let (Accused::Rule(rule) | Accused::Root(rule) | Accused::Unserved(rule)) = accused;
    let placed = |(index, entry, path)| Placed { index, leaf: Leaf { entry, path } };
    let tip = |(label, tip, map): (Label, Option<Tip>, MapProof)| TipProof {
        label,
        version: tip.map_or(0, |tip| tip.version),
        chain: tip.map_or(CHAIN_START, |tip| tip.chain),
        map,
        last: None,
    };
    let entries = Entries {
        key: key.clone(),
        checkpoint: shown.checkpoint,
        leaves: shown.leaves.into_iter().map(placed).collect(),
        tips: shown.tips.into_iter().map(tip).collect(),
        blobs: shown.blobs,
        rule: rule.to_owned(),
    };
    let incident = match accused {
        Accused::Rule(_) => Incident::rule_broken(CLIENT, at, entries),
        Accused::Root(_) => Incident::directory_root_wrong(CLIENT, at, entries),
        Accused::Unserved(_) => Incident::blob_unserved(CLIENT, at, entries),
    };
    judged(incident, anchors)
}

fn judged(incident: Incident, anchors: &[Anchor]) -> Option<Bytes> {
    match incident::verify(&incident, anchors, None) {
        Ok(_) => Some(incident.to_bytes()).filter(|bytes| bytes.len() <= incident::MAX_INCIDENT),
        Err(fault) => {
            tracing::debug!(rule = fault.rule(), "an incident proves nothing and is not written");
            None
        }
    }
}
