//! The top of the tree: the 255 places above the 256 shards, as a flat heap.
//!
//! A place with labels on one side only is no node: it stands for the node
//! below it, as path compression asks.

use super::hash::{self, Hash};
use crate::proof::map::{Ancestor, End, MapProof};

pub(super) const SHARDS: usize = 256;

/// 16 kB. Place 1 is the root, `2n` and `2n + 1` are below `n`, shard `s` is
/// place `256 + s`.
#[derive(Clone, Debug)]
pub(super) struct Top {
    places: Vec<Option<Hash>>,
}

/// Where an empty shard's label leaves the tree.
pub(super) enum Leaves {
    /// The map is empty.
    Empty,
    /// At an inner node of the top.
    Inner(End),
    /// At the root of this shard.
    Shard(u8),
}

impl Top {
    pub(super) fn new() -> Top {
        Top { places: vec![None; 2 * SHARDS] }
    }

    /// Root of the whole map.
    pub(super) fn root(&self) -> Hash {
        self.places[1].unwrap_or_else(hash::empty)
    }

    /// Puts new shard roots in place and rehashes what is above them.
    pub(super) fn set(&mut self, roots: impl IntoIterator<Item = (u8, Option<Hash>)>) {
        let mut touched = [false; 2 * SHARDS];
        for (shard, root) in roots {
            let place = SHARDS + usize::from(shard);
            self.places[place] = root;
            touched[place] = true;
        }
        for place in (1..SHARDS).rev() {
            if touched[2 * place] || touched[2 * place + 1] {
                touched[place] = true;
                self.places[place] = match (self.places[2 * place], self.places[2 * place + 1]) {
                    (Some(left), Some(right)) => {
                        let (length, prefix) = prefix(place);
                        Some(hash::inner(length, &prefix, &left, &right))
                    }
                    (one, other) => one.or(other),
                };
            }
        }
    }

    /// Continues a path from the root of `shard` to the root of the map.
    pub(super) fn climb(&self, shard: u8, proof: &mut MapProof) {
        self.climb_from(SHARDS + usize::from(shard), proof);
    }

    fn climb_from(&self, mut place: usize, proof: &mut MapProof) {
        while place > 1 {
            if let Some(other) = self.places[place ^ 1] {
                let length = prefix(place / 2).0;
                proof.path.push(Ancestor { length, sibling: other });
            }
            place /= 2;
        }
    }

    /// Where the labels of an empty shard leave the tree, with the path above.
    pub(super) fn leave(&self, shard: u8) -> (Leaves, MapProof) {
        let mut place = SHARDS + usize::from(shard);
        while place > 1 && self.places[place].is_none() {
            place /= 2;
        }
        let mut proof = MapProof { path: Vec::new(), end: End::Empty };
        if self.places[place].is_none() {
            return (Leaves::Empty, proof);
        }
        self.climb_from(place, &mut proof);
        // The node that this place stands for.
        while place < SHARDS {
            match (self.places[2 * place], self.places[2 * place + 1]) {
                (Some(left), Some(right)) => {
                    let (length, prefix) = prefix(place);
                    let end = End::Inner { length, prefix, left, right };
                    return (Leaves::Inner(end), proof);
                }
                (Some(_), None) => place *= 2,
                _ => place = 2 * place + 1,
            }
        }
        (Leaves::Shard((place - SHARDS) as u8), proof)
    }
}

/// Length and bits of the prefix of a place above the shards.
fn prefix(place: usize) -> (u8, Hash) {
    let length = place.ilog2();
    let mut prefix = [0; 32];
    prefix[0] = ((place - (1 << length)) << (8 - length)) as u8;
    (length as u8, prefix)
}
