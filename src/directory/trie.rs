//! One shard of the map: all labels with the same first byte, as a
//! path-compressed binary trie in two arenas.
//!
//! Inner nodes keep their own hash, the hash of a leaf is computed when it is
//! needed, and a prefix is read from any label below it. That makes 44 bytes
//! an inner node and 68 a leaf, so 112 a label.
//!
//! A batch records what it replaces (the *undo*), which serves two ends:
//! reading the shard as it was before the newest batches, and taking them back.
//!
//! Left out: the top of the tree over the shards (`top.rs`), locks and threads.

use std::collections::{HashMap, VecDeque};
use std::hint::black_box;
use std::sync::Arc;

use super::arena::Arena;
use super::hash::{self, Hash};
use super::mapped::MapFile;
use super::{Change, EngineStop, Error};
use crate::proof::map::{Ancestor, End, MapProof, common_bits};
use crate::proof::replay::{self, Fault, Tip};
use crate::proof::{Label, entry::Holder};

/// Bits of a label.
const BITS: u16 = 256;

/// Labels looked for at the same time, so that their memory accesses overlap.
const TOGETHER: usize = 64;

/// An index into one of the two arenas; the top bit says which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct NodeRef(u32);

const LEAF: u32 = 1 << 31;

/// Bytes of the two nodes that a label costs.
#[cfg(test)]
pub(super) const NODE_BYTES: usize = size_of::<Inner>() + size_of::<Leaf>();

enum Node {
    Leaf(u32),
    Inner(u32),
}

impl NodeRef {
    fn leaf(index: u32) -> NodeRef {
        NodeRef(index | LEAF)
    }

    fn inner(index: u32) -> NodeRef {
        NodeRef(index)
    }

    #[inline]
    fn node(self) -> Node {
        if self.0 & LEAF == 0 { Node::Inner(self.0) } else { Node::Leaf(self.0 & !LEAF) }
    }
}

/// 44 bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inner {
    hash: Hash,
    children: [NodeRef; 2],
    /// Prefix length in bits, 8 to 255.
    length: u8,
}

/// 68 bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leaf {
    label: Hash,
    chain: Hash,
    version: Version,
}

/// A label's newest version, 31 bits, and in the top bit whether it is a
/// domain's.
#[derive(Clone, Copy, Debug)]
struct Version(u32);

/// Highest version, and most labels in one shard.
const LIMIT: u32 = (1 << 31) - 1;

impl Version {
    /// None if the version does not fit.
    fn new(version: u64, holder: Holder) -> Option<Version> {
        let version = u32::try_from(version).ok().filter(|&version| version <= LIMIT)?;
        Some(Version(version | (u32::from(holder == Holder::Domain) << 31)))
    }

    #[inline]
    fn number(self) -> u32 {
        self.0 & LIMIT
    }

    fn holder(self) -> Holder {
        if self.0 > LIMIT { Holder::Domain } else { Holder::User }
    }
}

/// What can change of a leaf.
#[derive(Clone, Copy, Debug)]
struct Was {
    chain: Hash,
    version: Version,
    current: u32,
}

impl Was {
    fn tip(&self) -> Tip {
        Tip {
            holder: self.version.holder(),
            version: self.version.number().into(),
            current: self.current.into(),
            chain: self.chain,
        }
    }
}

/// What one batch replaced in this shard.
#[derive(Debug)]
struct Undo {
    batch: u64,
    root: Option<NodeRef>,
    inners_len: usize,
    leaves_len: usize,
    /// By index, each once; sorted if `sorted`.
    inners: Vec<(u32, Inner)>,
    leaves: Vec<(u32, Was)>,
    sorted: bool,
}

impl Undo {
    fn find<'a, T>(&self, records: &'a [(u32, T)], index: u32) -> Option<&'a T> {
        let position = if self.sorted {
            records.binary_search_by_key(&index, |record| record.0).ok()
        } else {
            records.iter().position(|record| record.0 == index)
        };
        position.and_then(|position| records.get(position)).map(|record| &record.1)
    }
}

/// One label of a batch, with where it stands or leaves the tree.
struct Item<'a> {
    label: &'a Hash,
    changes: &'a [Change],
    /// What the changes make of it.
    new: Was,
    /// The leaf that the bits of the label lead to; none in an empty shard.
    leaf: Option<u32>,
    /// First bit in which the label differs from that leaf's, 0 to 255; 256: it is that leaf.
    fork: u16,
}

/// All labels with one first byte.
#[derive(Debug)]
pub(super) struct Shard {
    root: Option<NodeRef>,
    inners: Arena<Inner>,
    leaves: Arena<Leaf>,
    /// The version in force, by leaf, where it is not the latest.
    currents: HashMap<u32, u32>,
    /// Ascending batches.
    undos: VecDeque<Undo>,
}

impl Shard {
    /// Without labels; those to come go into the file, if there is one.
    pub(super) fn new(file: Option<Arc<MapFile>>) -> Shard {
        Shard::of(Arena::new(file.clone()), Arena::new(file))
    }

    /// The same with room for so many labels.
    pub(super) fn with_capacity(
        file: Option<Arc<MapFile>>,
        labels: usize,
    ) -> std::io::Result<Shard> {
        let inners = Arena::with_capacity(file.clone(), labels.saturating_sub(1))?;
        Ok(Shard::of(inners, Arena::with_capacity(file, labels)?))
    }

    fn of(inners: Arena<Inner>, leaves: Arena<Leaf>) -> Shard {
        Shard { root: None, inners, leaves, currents: HashMap::new(), undos: VecDeque::new() }
    }

    pub(super) fn labels(&self) -> u64 {
        self.leaves.len() as u64
    }

    /// Bytes of memory allocated for labels, the undo left aside.
    pub(super) fn bytes(&self) -> usize {
        // hashbrown: 8 bytes an entry and one of control, for 8/7 of the capacity.
        self.inners.bytes() + self.leaves.bytes() + self.currents.capacity() * 8 / 7 * 9
    }

    /// Root hash; none if there is no label.
    pub(super) fn root(&self) -> Option<Hash> {
        self.root.map(|root| self.hash(root))
    }

    /// Applies changes ascending by label and index, all of them or none, and
    /// gives the new root.
    pub(super) fn apply(
        &mut self,
        batch: u64,
        changes: &[Change],
        sorted: bool,
    ) -> Result<Option<Hash>, EngineStop<Error>> {
        let mut items = items(changes)?;
        self.locate(&mut items);
        self.advance(&mut items)?;
        if items.is_empty() {
            return Ok(self.root());
        }
        self.make_room(&items).map_err(EngineStop::Engine)?;
        let mut undo = Undo {
            batch,
            root: self.root,
            inners_len: self.inners.len(),
            leaves_len: self.leaves.len(),
            inners: Vec::with_capacity(8 * items.len()),
            leaves: Vec::with_capacity(items.len()),
            sorted,
        };
        self.write_leaves(&mut items, &mut undo);
        let (root, hash) = match self.root {
            Some(root) => self.update(root, &items, &mut undo),
            None => self.build(&items),
        };
        self.root = Some(root);
        if sorted {
            undo.inners.sort_unstable_by_key(|record| record.0);
            undo.leaves.sort_unstable_by_key(|record| record.0);
        }
        self.undos.push_back(undo);
        Ok(Some(hash))
    }

    /// Forgets how to go back before the batches up to `batch`.
    pub(super) fn forget(&mut self, batch: u64) {
        while self.undos.front().is_some_and(|undo| undo.batch <= batch) {
            self.undos.pop_front();
        }
    }

    /// Takes back all batches after `batch`.
    pub(super) fn rollback(&mut self, batch: u64) {
        while self.undos.back().is_some_and(|undo| undo.batch > batch) {
            let Some(undo) = self.undos.pop_back() else { return };
            for leaf in undo.leaves_len..self.leaves.len() {
                self.currents.remove(&(leaf as u32));
            }
            self.leaves.truncate(undo.leaves_len);
            self.inners.truncate(undo.inners_len);
            self.root = undo.root;
            for (index, inner) in undo.inners {
                *self.inners.at_mut(index) = inner;
            }
            for (index, was) in undo.leaves {
                let leaf = self.leaves.at_mut(index);
                (leaf.chain, leaf.version) = (was.chain, was.version);
                self.set_current(index, was.version.number(), was.current);
            }
        }
    }

    /// The shard as it was after `batch`, whose successors are not forgotten.
    pub(super) fn view(&self, batch: u64) -> View<'_> {
        let first = self.undos.partition_point(|undo| undo.batch <= batch);
        View { shard: self, first }
    }

    /// The label as it is now.
    pub(super) fn tip(&self, label: &Hash) -> Option<Tip> {
        self.view(u64::MAX).tip(label)
    }

    /// Follows the bits of every label to a leaf, in step, so that the waits
    /// for memory overlap, and touches the siblings that hashing will need.
    fn locate(&self, items: &mut [Item]) {
        let Some(root) = self.root else { return };
        let mut warm = 0u8;
        for group in items.chunks_mut(TOGETHER) {
            let mut walking: [(NodeRef, u8); TOGETHER] =
                std::array::from_fn(|position| (root, position as u8));
            let mut left = group.len();
            while left > 0 {
                let mut kept = 0;
                for step in 0..left {
                    let (at, position) = walking[step];
                    let item = &mut group[usize::from(position)];
                    match at.node() {
                        Node::Leaf(index) => item.leaf = Some(index),
                        Node::Inner(index) => {
                            let inner = self.inners.at(index);
                            let side = bit(item.label, inner.length.into());
                            walking[kept] = (inner.children[side], position);
                            kept += 1;
                            warm ^= match inner.children[1 - side].node() {
                                Node::Leaf(index) => self.leaves.at(index).chain[0],
                                Node::Inner(index) => self.inners.at(index).hash[0],
                            };
                        }
                    }
                }
                left = kept;
            }
            for item in group {
                if let Some(leaf) = item.leaf {
                    item.fork = common_bits(item.label, &self.leaves.at(leaf).label);
                }
            }
        }
        black_box(warm);
    }

    /// Works out every label's new state, and changes nothing. Of several
    /// faults gives the one with the lowest index.
    fn advance(&self, items: &mut [Item]) -> Result<(), EngineStop<Error>> {
        if self.leaves.len() + items.len() > LIMIT as usize {
            return Err(EngineStop::Engine(Error::Full(LIMIT)));
        }
        let mut worst: Option<Fault> = None;
        for item in items {
            let before = item.known().map(|leaf| self.was(leaf).tip());
            match replay::advance(before, item.changes) {
                Ok(tip) => {
                    let version = Version::new(tip.version, tip.holder);
                    let (Some(version), Ok(current)) = (version, u32::try_from(tip.current)) else {
                        return Err(EngineStop::Engine(Error::Full(LIMIT)));
                    };
                    item.new = Was { chain: tip.chain, version, current };
                }
                Err(fault) if worst.is_some_and(|worst| worst.index < fault.index) => {}
                Err(fault) => worst = Some(fault),
            }
        }
        worst.map_or(Ok(()), |fault| Err(fault.into()))
    }

    /// Room for the new labels, each with one inner node at most. Whatever
    /// comes after this cannot fail.
    fn make_room(&mut self, items: &[Item]) -> Result<(), Error> {
        let new = items.iter().filter(|item| item.known().is_none()).count();
        let made = self.leaves.reserve(new).and_then(|()| self.inners.reserve(new));
        made.map_err(Error::File)
    }

    /// Brings versions, chains and new leaves up to date; no node yet.
    fn write_leaves(&mut self, items: &mut [Item], undo: &mut Undo) {
        for item in items {
            let Was { chain, version, current } = item.new;
            let index = match item.known() {
                Some(leaf) => {
                    undo.leaves.push((leaf, self.was(leaf)));
                    let slot = self.leaves.at_mut(leaf);
                    (slot.chain, slot.version) = (chain, version);
                    leaf
                }
                None => self.leaves.push(Leaf { label: *item.label, chain, version }),
            };
            self.set_current(index, version.number(), current);
            item.leaf = Some(index);
        }
    }

    fn was(&self, leaf: u32) -> Was {
        let &Leaf { chain, version, .. } = self.leaves.at(leaf);
        Was { chain, version, current: self.current(leaf, version.number()) }
    }

    fn current(&self, leaf: u32, version: u32) -> u32 {
        if self.currents.is_empty() {
            return version;
        }
        self.currents.get(&leaf).copied().unwrap_or(version)
    }

    fn set_current(&mut self, leaf: u32, version: u32, current: u32) {
        if current != version {
            self.currents.insert(leaf, current);
        } else if !self.currents.is_empty() {
            self.currents.remove(&leaf);
        }
    }

    /// Rehashes the subtree at `at` over the sorted `items` below it, and
    /// splits it where new labels leave it. Gives what now stands there.
    fn update(&mut self, at: NodeRef, items: &[Item], undo: &mut Undo) -> (NodeRef, Hash) {
        let first = items[0].label;
        let fork = items.iter().map(|item| item.fork).min().unwrap_or(BITS);
        let length = match at.node() {
            Node::Leaf(_) => BITS,
            Node::Inner(index) => u16::from(self.inners.at(index).length),
        };
        if fork < length {
            // Everything here shares `fork` bits; then the node goes one way,
            // and the labels that leave it at this bit go the other.
            let middle = items.partition_point(|item| bit(item.label, fork) == 0);
            let (zeros, ones) = items.split_at(middle);
            let leaves_on_zero = zeros.first().is_some_and(|item| item.fork == fork);
            let (stay, leave) = if leaves_on_zero { (ones, zeros) } else { (zeros, ones) };
            let stayed =
                if stay.is_empty() { (at, self.hash(at)) } else { self.update(at, stay, undo) };
            let left = self.build(leave);
            let pair = if leaves_on_zero { [left, stayed] } else { [stayed, left] };
            return self.join(fork as u8, first, pair);
        }
        let index = match at.node() {
            Node::Leaf(index) => return (at, self.leaf_hash(index)),
            Node::Inner(index) => index,
        };
        let old = *self.inners.at(index);
        if (index as usize) < undo.inners_len {
            undo.inners.push((index, old));
        }
        let middle = items.partition_point(|item| bit(item.label, length) == 0);
        let mut below = |child: NodeRef, items: &[Item]| {
            if items.is_empty() {
                (child, self.hash(child))
            } else {
                self.update(child, items, undo)
            }
        };
        let (left, left_hash) = below(old.children[0], &items[..middle]);
        let (right, right_hash) = below(old.children[1], &items[middle..]);
        let hash = hash::inner(old.length, first, &left_hash, &right_hash);
        *self.inners.at_mut(index) = Inner { hash, children: [left, right], length: old.length };
        (at, hash)
    }

    /// A subtree of new leaves alone, from sorted items.
    fn build(&mut self, items: &[Item]) -> (NodeRef, Hash) {
        let first = items[0].label;
        let last = items[items.len() - 1].label;
        if items.len() == 1 {
            let index = items[0].leaf.expect("every leaf of the batch was written");
            return (NodeRef::leaf(index), self.leaf_hash(index));
        }
        let fork = common_bits(first, last);
        let middle = items.partition_point(|item| bit(item.label, fork) == 0);
        let left = self.build(&items[..middle]);
        let right = self.build(&items[middle..]);
        self.join(fork as u8, first, [left, right])
    }

    fn join(&mut self, length: u8, label: &Hash, pair: [(NodeRef, Hash); 2]) -> (NodeRef, Hash) {
        let [(left, left_hash), (right, right_hash)] = pair;
        let hash = hash::inner(length, label, &left_hash, &right_hash);
        let index = self.inners.push(Inner { hash, children: [left, right], length });
        (NodeRef::inner(index), hash)
    }

    #[inline]
    fn hash(&self, at: NodeRef) -> Hash {
        match at.node() {
            Node::Leaf(index) => self.leaf_hash(index),
            Node::Inner(index) => self.inners.at(index).hash,
        }
    }

    fn leaf_hash(&self, index: u32) -> Hash {
        let leaf = self.leaves.at(index);
        hash::leaf(&leaf.label, leaf.version.number().into(), &leaf.chain)
    }
}

/// Builds a shard from its labels in ascending order, in one pass.
pub(super) struct Builder {
    shard: Shard,
    last: Option<Hash>,
    /// The subtree at the right edge, complete so far.
    edge: Option<(NodeRef, Hash)>,
    /// Left siblings of the edge from the root down, with the bit they fork at.
    open: Vec<(u8, NodeRef, Hash)>,
}

impl Builder {
    /// # Errors
    /// The file has no room for so many labels.
    pub(super) fn new(file: Option<Arc<MapFile>>, labels: usize) -> std::io::Result<Builder> {
        let shard = Shard::with_capacity(file, labels)?;
        Ok(Builder { shard, last: None, edge: None, open: Vec::new() })
    }

    /// Adds the next label; the reason if it is not above the last, or does not fit.
    pub(super) fn push(&mut self, label: &Hash, tip: &Tip) -> Result<(), &'static str> {
        let (Some(version), Ok(current)) =
            (Version::new(tip.version, tip.holder), u32::try_from(tip.current))
        else {
            return Err("a version does not fit into 31 bits");
        };
        if version.number() == 0 {
            return Err("a label without a version");
        }
        if self.shard.leaves.len() >= LIMIT as usize {
            return Err("too many labels in one shard");
        }
        if let Some(last) = self.last {
            if last >= *label {
                return Err("labels are not ascending");
            }
            self.close(common_bits(&last, label));
        }
        let leaf = self.shard.leaves.push(Leaf { label: *label, chain: tip.chain, version });
        self.shard.set_current(leaf, version.number(), current);
        self.edge = Some((NodeRef::leaf(leaf), self.shard.leaf_hash(leaf)));
        self.last = Some(*label);
        Ok(())
    }

    /// Joins the edge with all left siblings below bit `fork`, and opens it there.
    fn close(&mut self, fork: u16) {
        self.fold(fork);
        if let Some((node, hash)) = self.edge.take() {
            self.open.push((fork as u8, node, hash));
        }
    }

    fn fold(&mut self, fork: u16) {
        while let (Some(&(length, left, hash)), Some(edge), Some(last)) =
            (self.open.last(), self.edge, self.last)
        {
            if u16::from(length) < fork {
                break;
            }
            self.open.pop();
            self.edge = Some(self.shard.join(length, &last, [(left, hash), edge]));
        }
    }

    pub(super) fn finish(mut self) -> Shard {
        self.fold(0);
        self.shard.root = self.edge.map(|edge| edge.0);
        self.shard
    }
}

/// A shard as it was after some batch.
pub(super) struct View<'a> {
    shard: &'a Shard,
    /// Undos from here on are laid over the arenas.
    first: usize,
}

impl View<'_> {
    /// Nothing is laid over the arenas.
    #[inline]
    fn newest(&self) -> bool {
        self.first >= self.shard.undos.len()
    }

    fn undos(&self) -> impl Iterator<Item = &Undo> {
        self.shard.undos.range(self.first..)
    }

    fn root(&self) -> Option<NodeRef> {
        self.undos().next().map_or(self.shard.root, |undo| undo.root)
    }

    fn inner(&self, index: u32) -> &Inner {
        if self.newest() {
            return self.shard.inners.at(index);
        }
        self.undos()
            .find_map(|undo| undo.find(&undo.inners, index))
            .unwrap_or_else(|| self.shard.inners.at(index))
    }

    fn leaf(&self, index: u32) -> (&Hash, Was) {
        let was = self
            .undos()
            .find_map(|undo| undo.find(&undo.leaves, index).copied())
            .unwrap_or_else(|| self.shard.was(index));
        (&self.shard.leaves.at(index).label, was)
    }

    fn hash(&self, at: NodeRef) -> Hash {
        match at.node() {
            Node::Inner(index) => self.inner(index).hash,
            Node::Leaf(index) => {
                let (label, was) = self.leaf(index);
                hash::leaf(label, was.version.number().into(), &was.chain)
            }
        }
    }

    pub(super) fn tip(&self, label: &Hash) -> Option<Tip> {
        let mut at = self.root()?;
        loop {
            match at.node() {
                Node::Inner(index) => {
                    let inner = self.inner(index);
                    at = inner.children[bit(label, inner.length.into())];
                }
                Node::Leaf(index) => {
                    let (found, was) = self.leaf(index);
                    return (found == label).then(|| was.tip());
                }
            }
        }
    }

    /// The label's path up to the shard's root, and what stands at its end;
    /// none in an empty shard.
    pub(super) fn prove(&self, label: &Hash) -> Option<(Option<Tip>, MapProof)> {
        let mut at = self.root()?;
        // From the root down at first: siblings are read while the next node of
        // the way is waited for. 32 is deeper than most labels.
        let mut path = Vec::with_capacity(32);
        let (found, was) = loop {
            match at.node() {
                Node::Leaf(index) => break self.leaf(index),
                Node::Inner(index) => {
                    let &Inner { children, length, .. } = self.inner(index);
                    let side = bit(label, length.into());
                    path.push(Ancestor { length, sibling: self.hash(children[1 - side]) });
                    at = children[side];
                }
            }
        };
        let fork = common_bits(label, found);
        let above = path.partition_point(|ancestor| u16::from(ancestor.length) < fork);
        let end = match above {
            _ if fork == BITS => End::Present,
            _ if above == path.len() => leaf_end(found, &was),
            _ => self.end_below(above, label, found)?,
        };
        path.truncate(above);
        path.reverse();
        Some(((fork == BITS).then(|| was.tip()), MapProof { path, end }))
    }

    /// The inner node that is `depth` nodes down on the label's way.
    fn end_below(&self, depth: usize, label: &Hash, below: &Hash) -> Option<End> {
        let mut at = self.root()?;
        for _ in 0..depth {
            let Node::Inner(index) = at.node() else { return None };
            let inner = self.inner(index);
            at = inner.children[bit(label, inner.length.into())];
        }
        let Node::Inner(index) = at.node() else { return None };
        Some(self.inner_end(index, self.inner(index).length, below))
    }

    fn inner_end(&self, index: u32, length: u8, below: &Hash) -> End {
        let [left, right] = self.inner(index).children;
        End::Inner {
            length,
            prefix: hash::prefix(below, length),
            left: self.hash(left),
            right: self.hash(right),
        }
    }

    /// What the shard's root is; none in an empty shard.
    pub(super) fn root_end(&self) -> Option<End> {
        let root = self.root()?;
        let mut at = root;
        let (label, was) = loop {
            match at.node() {
                Node::Inner(index) => at = self.inner(index).children[0],
                Node::Leaf(index) => break self.leaf(index),
            }
        };
        Some(match root.node() {
            Node::Inner(index) => self.inner_end(index, self.inner(index).length, label),
            Node::Leaf(_) => leaf_end(label, &was),
        })
    }

    /// Every label with its state, ascending.
    pub(super) fn each(&self, mut visit: impl FnMut(&Hash, &Tip)) {
        let mut waiting: Vec<NodeRef> = self.root().into_iter().collect();
        while let Some(at) = waiting.pop() {
            match at.node() {
                Node::Inner(index) => {
                    let [left, right] = self.inner(index).children;
                    waiting.extend([right, left]);
                }
                Node::Leaf(index) => {
                    let (label, was) = self.leaf(index);
                    visit(label, &was.tip());
                }
            }
        }
    }
}

fn leaf_end(label: &Hash, was: &Was) -> End {
    End::Leaf { label: Label(*label), version: was.version.number().into(), chain: was.chain }
}

impl Item<'_> {
    /// The leaf that is the label's own.
    fn known(&self) -> Option<u32> {
        self.leaf.filter(|_| self.fork == BITS)
    }
}

/// One item a distinct label.
fn items(changes: &[Change]) -> Result<Vec<Item<'_>>, EngineStop<Error>> {
    let new = Was { chain: [0; 32], version: Version(0), current: 0 };
    let mut items: Vec<Item> = Vec::with_capacity(changes.len());
    for changes in changes.chunk_by(|a, b| a.label == b.label) {
        let Some(first) = changes.first() else { continue };
        let label = &first.label.0;
        let above = items.last().is_none_or(|item| item.label < label);
        if !above || !changes.is_sorted_by(|a, b| a.index < b.index) {
            return Err(EngineStop::Engine(Error::Order));
        }
        items.push(Item { label, changes, new, leaf: None, fork: 0 });
    }
    Ok(items)
}

/// Bit `index` of a label, most significant first.
#[inline]
fn bit(label: &Hash, index: u16) -> usize {
    usize::from(label[usize::from(index / 8)] >> (7 - index % 8) & 1)
}
