//! Where a mailbox's versions were logged: here, or in the log that this one
//! took over from, or in that one's predecessor.
//!
//! The map's chain proves the entries whatever log they stood in. What the
//! commitments of older ones are over, the origin and the label, is proved
//! here: the carried entry binds the two labels, and a VRF proof under each
//! log's key shows that both are of this address.

use super::Subject;
use super::verdict::Fault;
use crate::dime::{Address, Name};
use crate::proof::Label;
use crate::proof::checkpoint::SignedCheckpoint;
use crate::proof::entry::{Carried, Entry, Genesis, Holder, Kind};
use crate::proof::note::VerifierKey;
use crate::proof::{Hash, label, map, merkle, vrf};

/// Most predecessors that a receipt may lead through.
pub const MAX_CARRIES: usize = 16;

/// What is wrong with a step to a predecessor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CarryFault {
    #[error("not an entry that carries this mailbox over")]
    Entry,
    #[error("the entry that carries it over is not in the log")]
    Inclusion,
    #[error("the log names no predecessor, or its final checkpoint does not hold")]
    Predecessor,
    #[error("the predecessor's genesis entry is not what was promised")]
    Genesis,
    #[error("the mailbox had another label in the predecessor")]
    Label,
    #[error("a step to a predecessor that no version needs, or beside a domain")]
    Stray,
}

impl CarryFault {
    /// The rule's name, the same in the second verifier.
    pub fn rule(self) -> &'static str {
        match self {
            CarryFault::Entry => "carry-entry",
            CarryFault::Inclusion => "carry-inclusion",
            CarryFault::Predecessor => "carry-predecessor",
            CarryFault::Genesis => "carry-genesis",
            CarryFault::Label => "carry-label",
            CarryFault::Stray => "carry-stray",
        }
    }
}

/// One log on the way back.
pub(super) struct Home<'r> {
    pub origin: &'r str,
    pub label: Label,
    /// The newest version that stood in its predecessor, 0 for none.
    carried: u64,
}

/// This log and its predecessors, nearest first.
pub(super) struct Lineage<'r>(Vec<Home<'r>>);

impl<'r> Lineage<'r> {
    /// Checks the steps in `part`. `tree` is size and root of the checkpoint.
    pub fn check(
        part: &'r Subject,
        name: &Name,
        label: Label,
        genesis: &Genesis<'r>,
        tree: (u64, Hash),
    ) -> Result<Lineage<'r>, Fault> {
        let mut homes = vec![Home { origin: genesis.origin, label, carried: 0 }];
        let (mut genesis, mut tree) = (genesis.clone(), tree);
        for carry in &part.carries {
            let Name::Address(address) = name else { return Err(CarryFault::Stray.into()) };
            let here = homes.last_mut().ok_or(CarryFault::Stray)?;
            let entry = Entry::decode(&carry.entry.entry).map_err(|_| CarryFault::Entry)?;
            let Kind::Carried(carried) = entry.kind else { return Err(CarryFault::Entry.into()) };
            if carried.label != here.label || carried.holder != Holder::User {
                return Err(CarryFault::Entry.into());
            }
            let leaf = map::entry_leaf_hash(&carry.entry.entry);
            merkle::verify_inclusion(carry.index, tree.0, &leaf, &carry.entry.path, &tree.1)
                .map_err(|_| CarryFault::Inclusion)?;
            let (before, end) = predecessor(&genesis, &carry.genesis)?;
            check_label(&before, &carried, address, carry.vrf_proof.as_ref())?;
            here.carried = carried.version;
            let (origin, label) = (before.origin, carried.predecessor_label);
            homes.push(Home { origin, label, carried: 0 });
            (genesis, tree) = (before, end);
        }
        Ok(Lineage(homes))
    }

    /// The log that a version was logged in.
    pub fn home(&self, version: u64) -> &Home<'r> {
        let last = self.0.len() - 1;
        let at = self.0.iter().position(|home| version > home.carried).unwrap_or(last);
        &self.0[at.min(last)]
    }

    /// Refuses steps that lead behind all versions from `first` on.
    pub fn check_needed(&self, first: u64) -> Result<(), Fault> {
        let steps = self.0.split_last().map_or(&[][..], |(_, steps)| steps);
        match steps.iter().all(|home| first <= home.carried) {
            true => Ok(()),
            false => Err(CarryFault::Stray.into()),
        }
    }
}

/// The predecessor's genesis entry, and size and root of its final tree.
fn predecessor<'r>(
    genesis: &Genesis<'r>,
    leaf: &'r super::Leaf,
) -> Result<(Genesis<'r>, (u64, Hash)), CarryFault> {
    let promised = genesis.predecessor.as_ref().ok_or(CarryFault::Predecessor)?;
    let signed =
        SignedCheckpoint::parse(promised.checkpoint).map_err(|_| CarryFault::Predecessor)?;
    let key = VerifierKey::ed25519(promised.origin, &promised.log_key)
        .map_err(|_| CarryFault::Predecessor)?;
    signed.verify([&key]).map_err(|_| CarryFault::Predecessor)?;
    let end = signed.checkpoint();
    if end.origin != promised.origin {
        return Err(CarryFault::Predecessor);
    }
    let hash = map::entry_leaf_hash(&leaf.entry);
    merkle::verify_inclusion(0, end.size, &hash, &leaf.path, &end.root)
        .map_err(|_| CarryFault::Genesis)?;
    match Entry::decode(&leaf.entry).map_err(|_| CarryFault::Genesis)?.kind {
        Kind::Genesis(before)
            if before.origin == promised.origin && before.log_key == promised.log_key =>
        {
            Ok((before, (end.size, end.root)))
        }
        _ => Err(CarryFault::Genesis),
    }
}

fn check_label(
    before: &Genesis<'_>,
    carried: &Carried,
    address: &Address,
    proof: Option<&[u8; 80]>,
) -> Result<(), Fault> {
    let proof = proof.ok_or(CarryFault::Label)?;
    let output = vrf::verify(&before.vrf_key, &label::alpha(address), proof)?;
    match Label::from_vrf(&output) == carried.predecessor_label {
        true => Ok(()),
        false => Err(CarryFault::Label.into()),
    }
}
