//! As much of a map as some proofs show, and the root after a batch: what a
//! whole map makes of it, made from the paths that the batch touches.

use std::collections::BTreeMap;

use super::TipProof;
use crate::proof::entry::{Entry, Holder, Kind};
use crate::proof::map::{self, CHAIN_START, End, MapFault, common_bits, prefix_of};
use crate::proof::replay::{self, Change, EngineStop, Head, MapEngine, Tip, What};
use crate::proof::{Hash, Label};

/// A map of which only the proved labels are known.
#[derive(Debug)]
pub struct PartMap {
    /// `None`: the map is empty.
    root: Option<Node>,
    labels: u64,
    known: BTreeMap<Label, Known>,
    /// It was the empty map, of which everything is known.
    was_empty: bool,
}

/// A label that was proved. The map itself does not hold what is in force.
#[derive(Clone, Copy, Debug)]
struct Known {
    tip: Option<Tip>,
    /// Whether `current` and `holder` of the tip are from its entry.
    whole: bool,
}

/// The batch touches a label that no proof is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a label of the batch has no proof")]
pub struct Lack;

#[derive(Debug)]
enum Node {
    /// Only its hash is known.
    Closed(Hash),
    Leaf {
        label: Label,
        version: u64,
        chain: Hash,
    },
    Inner {
        length: u8,
        prefix: [u8; 32],
        left: Box<Node>,
        right: Box<Node>,
    },
}

impl PartMap {
    /// The part of the map with this root and so many labels that the proofs
    /// show; each is verified.
    pub fn new(root: &Hash, labels: u64, tips: &[TipProof]) -> Result<PartMap, MapFault> {
        let top = (labels > 0).then_some(Node::Closed(*root));
        if labels == 0 && *root != map::empty_root() {
            return Err(MapFault::Root);
        }
        let mut part =
            PartMap { root: top, labels, known: BTreeMap::new(), was_empty: labels == 0 };
        for tip in tips {
            part.add(root, tip)?;
        }
        Ok(part)
    }

    fn add(&mut self, root: &Hash, proof: &TipProof) -> Result<(), MapFault> {
        let TipProof { label, version, chain, .. } = proof;
        match version {
            0 if *chain != CHAIN_START => return Err(MapFault::Kind),
            0 => proof.map.verify_absent(root, label)?,
            _ => proof.map.verify_present(root, label, *version, chain)?,
        }
        self.known.insert(*label, known(proof)?);
        let Some(mut node) = bottom(proof) else { return Ok(()) };
        for ancestor in &proof.map.path {
            let sibling = Box::new(Node::Closed(ancestor.sibling));
            let length = ancestor.length;
            let prefix = prefix_of(&label.0, length);
            node = match label.bit(length) {
                false => Node::Inner { length, prefix, left: Box::new(node), right: sibling },
                true => Node::Inner { length, prefix, left: sibling, right: Box::new(node) },
            };
        }
        self.root = Some(match self.root.take() {
            None => node,
            Some(own) => own.open(node),
        });
        Ok(())
    }

    fn root_hash(&self) -> Hash {
        self.root.as_ref().map_or_else(map::empty_root, Node::hash)
    }
}

/// What a verified proof says of its label.
fn known(proof: &TipProof) -> Result<Known, MapFault> {
    let TipProof { version, chain, .. } = *proof;
    if version == 0 {
        return Ok(Known { tip: None, whole: true });
    }
    let tip = |holder, current| Tip { holder, version, current, chain };
    let Some((entry, before)) = &proof.last else {
        return Ok(Known { tip: Some(tip(Holder::User, 0)), whole: false });
    };
    if map::chain_next(before, &map::entry_leaf_hash(entry)) != chain {
        return Err(MapFault::Root);
    }
    let tip = match Entry::decode(entry).map(|entry| entry.kind) {
        Ok(Kind::Domain(last)) => tip(Holder::Domain, last.current),
        Ok(Kind::User(last)) => tip(Holder::User, last.current),
        Ok(Kind::Forgotten(_)) => tip(Holder::User, 0),
        // Of a format that is not known, or broken: it says nothing here.
        _ => return Ok(Known { tip: Some(tip(Holder::User, 0)), whole: false }),
    };
    Ok(Known { tip: Some(tip), whole: true })
}

/// The node that a verified proof ends at; `None` in an empty map.
fn bottom(proof: &TipProof) -> Option<Node> {
    match proof.map.end {
        End::Present => {
            let TipProof { label, version, chain, .. } = *proof;
            Some(Node::Leaf { label, version, chain })
        }
        End::Empty => None,
        End::Leaf { label, version, chain } => Some(Node::Leaf { label, version, chain }),
        End::Inner { length, prefix, left, right } => {
            let (left, right) = (Box::new(Node::Closed(left)), Box::new(Node::Closed(right)));
            Some(Node::Inner { length, prefix, left, right })
        }
    }
}

impl Node {
    fn hash(&self) -> Hash {
        match self {
            Node::Closed(hash) => *hash,
            Node::Leaf { label, version, chain } => map::leaf_hash(label, *version, chain),
            Node::Inner { length, prefix, left, right } => {
                map::inner_hash(*length, prefix, &left.hash(), &right.hash())
            }
        }
    }

    /// Two views of one node, both of which verified against the same root.
    fn open(self, other: Node) -> Node {
        match (self, other) {
            (Node::Closed(_), seen) | (seen, Node::Closed(_)) => seen,
            (
                Node::Inner { length, prefix, left, right },
                Node::Inner { left: other_left, right: other_right, .. },
            ) => Node::Inner {
                length,
                prefix,
                left: Box::new(left.open(*other_left)),
                right: Box::new(right.open(*other_right)),
            },
            (seen, _) => seen,
        }
    }

    /// The same subtree with the label's leaf in it.
    fn with(self, label: Label, version: u64, chain: Hash) -> Result<Node, Lack> {
        let new = Node::Leaf { label, version, chain };
        let (bits, length) = match &self {
            Node::Closed(_) => return Err(Lack),
            Node::Leaf { label: own, .. } => (own.0, 256),
            Node::Inner { length, prefix, .. } => (*prefix, u16::from(*length)),
        };
        let common = common_bits(&bits, &label.0).min(length);
        if common < length {
            let Ok(length) = u8::try_from(common) else { return Err(Lack) };
            let prefix = prefix_of(&label.0, length);
            let (left, right) = match label.bit(length) {
                false => (Box::new(new), Box::new(self)),
                true => (Box::new(self), Box::new(new)),
            };
            return Ok(Node::Inner { length, prefix, left, right });
        }
        match self {
            Node::Inner { length, prefix, left, right } => Ok(match label.bit(length) {
                false => {
                    let left = Box::new(left.with(label, version, chain)?);
                    Node::Inner { length, prefix, left, right }
                }
                true => {
                    let right = Box::new(right.with(label, version, chain)?);
                    Node::Inner { length, prefix, left, right }
                }
            }),
            _ => Ok(new),
        }
    }
}

impl MapEngine for PartMap {
    type Error = Lack;

    fn tip(&self, label: &Label) -> Option<Tip> {
        self.known.get(label)?.tip
    }

    /// After an error the part is used up: it was made for one batch.
    fn apply(&mut self, changes: &[Change]) -> Result<Head, EngineStop<Lack>> {
        let mut tips = Vec::new();
        let mut fault: Option<replay::Fault> = None;
        for group in changes.chunk_by(|one, next| one.label == next.label) {
            let Some(label) = group.first().map(|change| change.label) else { continue };
            let known = self.known.get(&label).copied();
            let absent = self.was_empty.then_some(Known { tip: None, whole: true });
            let known = known.or(absent).ok_or(EngineStop::Engine(Lack))?;
            let advanced = match known {
                Known { tip: Some(tip), whole: false } => advance_partly(tip, group),
                Known { tip, .. } => replay::advance(tip, group),
            };
            match advanced {
                Ok(tip) => tips.push((label, tip, known.tip.is_none())),
                Err(found) if fault.is_none_or(|lowest| found.index < lowest.index) => {
                    fault = Some(found);
                }
                Err(_) => {}
            }
        }
        if let Some(fault) = fault {
            return Err(EngineStop::Fault(fault));
        }
        for (label, tip, is_new) in tips {
            let leaf = Node::Leaf { label, version: tip.version, chain: tip.chain };
            self.root = Some(match self.root.take() {
                None => leaf,
                Some(root) => {
                    root.with(label, tip.version, tip.chain).map_err(EngineStop::Engine)?
                }
            });
            self.labels += u64::from(is_new);
            self.known.insert(label, Known { tip: Some(tip), whole: true });
        }
        Ok(self.head())
    }

    fn head(&self) -> Head {
        Head { root: self.root_hash(), labels: self.labels }
    }
}

/// The first change is believed in what the proof does not tell; whatever
/// follows is judged by it.
fn advance_partly(tip: Tip, group: &[Change]) -> Result<Tip, replay::Fault> {
    let Some((first, rest)) = group.split_first() else { return Ok(tip) };
    let first = Change { what: What::Unknown, ..first.clone() };
    let tip = Tip { holder: first.holder, ..tip };
    let tip = replay::advance(Some(tip), &[first])?;
    replay::advance(Some(tip), rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proof::map::PlainMap;

    fn label(number: u32) -> Label {
        use sha2::{Digest as _, Sha256};
        Label(Sha256::digest(number.to_be_bytes()).into())
    }

    fn tip(version: u64) -> Tip {
        Tip { holder: Holder::User, version, current: version, chain: [version as u8; 32] }
    }

    fn proof(map: &PlainMap, label: Label) -> TipProof {
        let tip = map.tip(&label);
        TipProof {
            label,
            version: tip.map_or(0, |tip| tip.version),
            chain: tip.map_or(CHAIN_START, |tip| tip.chain),
            map: map.prove(&label),
            last: None,
        }
    }

    /// Whatever is old and new: the part makes the root of the whole.
    #[test]
    fn a_part_makes_the_root_of_the_whole() {
        for held in [0, 1, 2, 3, 17, 200] {
            let mut whole = PlainMap::new();
            for number in 0..held {
                whole.insert(label(number), tip(1));
            }
            // Some that are there, some that are not.
            let touched: Vec<Label> = (0..held).step_by(3).chain(1000..1010).map(label).collect();
            let root = whole.root();
            let proofs: Vec<TipProof> = touched.iter().map(|label| proof(&whole, *label)).collect();
            let mut part = PartMap::new(&root, u64::from(held), &proofs).unwrap();
            assert_eq!(part.root_hash(), root);
            let mut top = part.root.take();
            for label in &touched {
                whole.insert(*label, tip(7));
                top = Some(match top {
                    None => Node::Leaf { label: *label, version: 7, chain: [7; 32] },
                    Some(node) => node.with(*label, 7, [7; 32]).unwrap(),
                });
                assert_eq!(top.as_ref().unwrap().hash(), whole.root(), "{held}");
            }
        }
    }

    #[test]
    fn what_no_proof_shows_is_lacking() {
        let mut whole = PlainMap::new();
        for number in 0..50 {
            whole.insert(label(number), tip(1));
        }
        let (root, one) = (whole.root(), proof(&whole, label(3)));
        let mut part = PartMap::new(&root, 50, std::slice::from_ref(&one)).unwrap();
        let node = part.root.take().unwrap();
        let closed = (0..50)
            .map(label)
            .find(|other| common_bits(&other.0, &label(3).0) == 0 && *other != label(3));
        assert_eq!(node.with(closed.unwrap(), 2, [2; 32]).err(), Some(Lack));
        // A proof of another map, or of another version, is refused.
        assert_eq!(
            PartMap::new(&[1; 32], 50, std::slice::from_ref(&one)).err(),
            Some(MapFault::Root)
        );
        let older = TipProof { version: 2, ..one };
        assert_eq!(PartMap::new(&root, 50, &[older]).err(), Some(MapFault::Root));
    }
}
