//! The auditor's own map: the trie written down as nodes that remember their
//! hash. It shares only the node hashes with the prover's arena, so a fault of
//! one engine is not a fault of both.
//!
//! About 300 bytes a label, a hash for each node on a changed path.

use std::convert::Infallible;

use crate::proof::map::{
    Ancestor, End, MapProof, common_bits, empty_root, inner_hash, leaf_hash, prefix_of,
};
use crate::proof::replay::{self, Change, EngineStop, Fault, Head, MapEngine, Tip};
use crate::proof::{Hash, Label};

/// The map. See the module.
#[derive(Debug, Default)]
pub struct Tree {
    root: Option<Box<Node>>,
    labels: u64,
}

#[derive(Debug)]
enum Node {
    Leaf { label: Label, tip: Tip, hash: Hash },
    Inner { length: u8, prefix: [u8; 32], sides: [Box<Node>; 2], hash: Option<Hash> },
}

impl Tree {
    pub fn new() -> Tree {
        Tree::default()
    }

    pub fn labels(&self) -> u64 {
        self.labels
    }

    /// Sets a label's tip.
    pub fn insert(&mut self, label: Label, tip: Tip) {
        let leaf = Box::new(Node::leaf(label, tip));
        let grown = match self.root.take() {
            None => (leaf, true),
            Some(root) => root.with(label, leaf),
        };
        self.labels += u64::from(grown.1);
        self.root = Some(grown.0);
    }

    /// The root hash; hashes what has changed since it was asked last.
    pub fn root(&mut self) -> Hash {
        self.root.as_mut().map_or_else(empty_root, |root| root.rehash())
    }

    /// Every label with its tip, ascending.
    pub fn for_each(&self, mut each: impl FnMut(&Label, &Tip)) {
        let mut open: Vec<&Node> = self.root.as_deref().into_iter().collect();
        while let Some(node) = open.pop() {
            match node {
                Node::Leaf { label, tip, .. } => each(label, tip),
                Node::Inner { sides: [left, right], .. } => open.extend([&**right, &**left]),
            }
        }
    }

    /// The proof of what the map holds of a label. Everything has been hashed,
    /// as [`MapEngine::apply`] and [`Tree::root`] leave it.
    pub fn prove(&self, label: &Label) -> MapProof {
        let mut path = Vec::new();
        let mut node = self.root.as_deref();
        let end = loop {
            match node {
                None => break End::Empty,
                Some(Node::Leaf { label: own, .. }) if own == label => break End::Present,
                Some(Node::Leaf { label, tip, .. }) => {
                    break End::Leaf { label: *label, version: tip.version, chain: tip.chain };
                }
                Some(Node::Inner { length, prefix, sides: [left, right], .. }) => {
                    if common_bits(prefix, &label.0) < u16::from(*length) {
                        let (left, right) = (left.hash(), right.hash());
                        break End::Inner { length: *length, prefix: *prefix, left, right };
                    }
                    let (own, other) =
                        if label.bit(*length) { (right, left) } else { (left, right) };
                    path.push(Ancestor { length: *length, sibling: other.hash() });
                    node = Some(own);
                }
            }
        };
        path.reverse();
        MapProof { path, end }
    }

    fn find(&self, label: &Label) -> Option<Tip> {
        let mut node = self.root.as_deref()?;
        loop {
            match node {
                Node::Leaf { label: own, tip, .. } => return (own == label).then_some(*tip),
                Node::Inner { length, sides, .. } => {
                    node = &sides[usize::from(label.bit(*length))];
                }
            }
        }
    }
}

impl Node {
    fn leaf(label: Label, tip: Tip) -> Node {
        Node::Leaf { label, tip, hash: leaf_hash(&label, tip.version, &tip.chain) }
    }

    /// This subtree with one more leaf, or with it in place of the label's old
    /// one; says whether the label is new.
    fn with(mut self: Box<Node>, label: Label, leaf: Box<Node>) -> (Box<Node>, bool) {
        let shared = match &mut *self {
            Node::Leaf { label: own, .. } if *own == label => return (leaf, false),
            Node::Leaf { label: own, .. } => common_bits(&own.0, &label.0),
            Node::Inner { length, prefix, sides, hash } => {
                let shared = common_bits(prefix, &label.0);
                if shared >= u16::from(*length) {
                    *hash = None;
                    let side = &mut sides[usize::from(label.bit(*length))];
                    let spare = Box::new(Node::leaf(label, EMPTY));
                    let (grown, new) = std::mem::replace(side, spare).with(label, leaf);
                    *side = grown;
                    return (self, new);
                }
                shared
            }
        };
        // Different labels part within 256 bits, and a prefix has fewer.
        let length = shared.min(255) as u8;
        let sides = if label.bit(length) { [self, leaf] } else { [leaf, self] };
        let prefix = prefix_of(&label.0, length);
        (Box::new(Node::Inner { length, prefix, sides, hash: None }), true)
    }

    /// Of a node that was hashed.
    fn hash(&self) -> Hash {
        match self {
            Node::Leaf { hash, .. } | Node::Inner { hash: Some(hash), .. } => *hash,
            Node::Inner { hash: None, .. } => unreachable!("hashed by whoever changed it"),
        }
    }

    /// At most 256 levels deep.
    fn rehash(&mut self) -> Hash {
        match self {
            Node::Leaf { hash, .. } | Node::Inner { hash: Some(hash), .. } => *hash,
            Node::Inner { length, prefix, sides: [left, right], hash } => {
                let made = inner_hash(*length, prefix, &left.rehash(), &right.rehash());
                *hash = Some(made);
                made
            }
        }
    }
}

/// Stands in a node's place while the node is being changed.
const EMPTY: Tip =
    Tip { holder: crate::proof::entry::Holder::User, version: 0, current: 0, chain: [0; 32] };

impl MapEngine for Tree {
    type Error = Infallible;

    fn tip(&self, label: &Label) -> Option<Tip> {
        self.find(label)
    }

    fn apply(&mut self, changes: &[Change]) -> Result<Head, EngineStop<Infallible>> {
        let mut moved = Vec::new();
        let mut first_fault: Option<Fault> = None;
        for changes in changes.chunk_by(|a, b| a.label == b.label) {
            let Some(first) = changes.first() else { continue };
            match replay::advance(self.find(&first.label), changes) {
                Ok(tip) => moved.push((first.label, tip)),
                Err(fault) if first_fault.is_some_and(|other| other.index < fault.index) => {}
                Err(fault) => first_fault = Some(fault),
            }
        }
        if let Some(fault) = first_fault {
            return Err(fault.into());
        }
        for (label, tip) in moved {
            self.insert(label, tip);
        }
        if let Some(root) = &mut self.root {
            root.rehash();
        }
        Ok(self.head())
    }

    fn head(&self) -> Head {
        let root = self.root.as_deref().map_or_else(empty_root, Node::hash);
        Head { root, labels: self.labels }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proof::entry::Holder;
    use crate::proof::map::PlainMap;

    /// Labels that often share long prefixes.
    fn labels() -> impl Strategy<Value = Vec<(Label, u64)>> {
        let label =
            (any::<u8>(), 0u8..32, any::<u8>(), 1u64..5).prop_map(|(first, at, byte, version)| {
                let mut label = [0; 32];
                label[0] = first & 0xc0;
                label[usize::from(at)] ^= byte;
                (Label(label), version)
            });
        proptest::collection::vec(label, 0..60)
    }

    proptest! {
        #[test]
        fn it_is_the_plain_map(labels in labels()) {
            let (mut tree, mut plain) = (Tree::new(), PlainMap::new());
            prop_assert_eq!(tree.root(), plain.root());
            for (label, version) in labels {
                let holder = Holder::User;
                let tip = Tip { holder, version, current: version, chain: [version as u8; 32] };
                tree.insert(label, tip);
                plain.insert(label, tip);
                prop_assert_eq!(tree.root(), plain.root());
                prop_assert_eq!(tree.labels(), plain.len() as u64);
                prop_assert_eq!(tree.find(&label), plain.tip(&label).copied());
                let absent = Label([0x55; 32]);
                prop_assert_eq!(tree.prove(&label), plain.prove(&label));
                prop_assert_eq!(tree.prove(&absent), plain.prove(&absent));
            }
            let mut listed = Vec::new();
            tree.for_each(|label, tip| listed.push((*label, *tip)));
            let plain: Vec<_> = plain.iter().map(|(label, tip)| (*label, *tip)).collect();
            prop_assert_eq!(listed, plain);
        }
    }
}
