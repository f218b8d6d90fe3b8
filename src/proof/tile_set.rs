//! Tiles that were fetched for one tree, checked against its root before any
//! hash of them is used; and which tiles a proof needs, so that they can be
//! fetched first.
//!
//! A set for a proof holds the partial tiles of the tree (their hashes fold to
//! the root) and, for each full tile, the tile above it that holds its hash.

use std::collections::{BTreeMap, BTreeSet};

use super::merkle::{
    self, Hash, HashReader, MAX_SIZE, Node, Unprovable, complete_nodes, subtree_proof_ranges,
};
use super::tile::{self, TileCoordinate, WIDTH, tile_at};
use super::whole_tree;
use crate::dime::Rejection;

/// The tiles that [`merkle::inclusion_proof`] needs, from the leaves up.
pub fn tiles_for_inclusion(index: u64, size: u64) -> Result<Vec<TileCoordinate>, Unprovable> {
    tiles_for_subtree(index, index.saturating_add(1), size)
}

/// The tiles that [`merkle::consistency_proof`] needs, from the leaves up.
pub fn tiles_for_consistency(old: u64, new: u64) -> Result<Vec<TileCoordinate>, Unprovable> {
    tiles_for_subtree(0, old, new)
}

/// The tiles that [`merkle::subtree_proof`] needs, those that hold the hash
/// of the subtree itself included.
pub fn tiles_for_subtree(
    start: u64,
    end: u64,
    size: u64,
) -> Result<Vec<TileCoordinate>, Unprovable> {
    let mut ranges = subtree_proof_ranges(start, end, size)?;
    ranges.push((start, end));
    let nodes = ranges.into_iter().flat_map(|(start, end)| complete_nodes(start, end));
    tiles_for_nodes(nodes, size)
}

/// The tiles that hold the leaf hashes `start..end`, with all that is needed to
/// check them. One level-0 tile for each 256 leaves.
pub fn tiles_for_leaves(
    start: u64,
    end: u64,
    size: u64,
) -> Result<Vec<TileCoordinate>, Unprovable> {
    if start > end || end > size || size > MAX_SIZE {
        return Err(Unprovable::NotInTree { start, end, size });
    }
    let step = u64::from(WIDTH);
    let nodes = (start..end).step_by(step as usize).chain(end.checked_sub(1));
    tiles_for_nodes(nodes.map(|index| Node { level: 0, index }), size)
}

/// The tiles that [`TileSet::inclusions`] needs for the leaves `start..end`.
pub fn tiles_for_inclusions(
    start: u64,
    end: u64,
    size: u64,
) -> Result<Vec<TileCoordinate>, Unprovable> {
    let mut tiles: BTreeSet<_> = tiles_for_leaves(start, end, size)?.into_iter().collect();
    for index in [start, end.saturating_sub(1)] {
        tiles.extend(tiles_for_inclusion(index, size)?);
    }
    Ok(tiles.into_iter().collect())
}

fn tiles_for_nodes(
    nodes: impl Iterator<Item = Node>,
    size: u64,
) -> Result<Vec<TileCoordinate>, Unprovable> {
    let mut tiles: BTreeSet<_> = tile::partial_tiles(size).into_iter().collect();
    for node in nodes {
        let (mut tile, ..) =
            TileCoordinate::of_node(node, size).ok_or(Unprovable::Missing(node))?;
        while tile.is_full() && tiles.insert(tile) {
            let Some((above, _)) = above(tile, size) else { break };
            tile = above;
        }
    }
    Ok(tiles.into_iter().collect())
}

/// The tile that holds the hash of this full tile, and its place there.
fn above(tile: TileCoordinate, size: u64) -> Option<(TileCoordinate, usize)> {
    let step = u64::from(WIDTH);
    let above = tile_at(tile.level + 1, tile.index / step, size)?;
    Some((above, (tile.index % step) as usize))
}

/// Checked tiles of one tree.
#[derive(Clone, Debug)]
pub struct TileSet {
    size: u64,
    root: Hash,
    tiles: BTreeMap<TileCoordinate, Vec<Hash>>,
}

impl TileSet {
    /// Checks every tile against the root of the tree: the partial tiles fold
    /// to it, and the hash of each full tile stands in the tile above it.
    /// A partial tile may come as the full one that replaced it.
    ///
    /// Rule `tile` if a tile is no tile of this tree, has the wrong length, is
    /// missing on the way to the root, or has the wrong hash.
    pub fn verified<B: AsRef<[u8]>>(
        size: u64,
        root: &Hash,
        tiles: impl IntoIterator<Item = (TileCoordinate, B)>,
    ) -> Result<TileSet, Rejection> {
        let mut set = TileSet { size, root: *root, tiles: BTreeMap::new() };
        for (at, bytes) in tiles {
            if tile_at(at.level, at.index, size) != Some(at) {
                return Err(refuse(at, format!("is no tile of a tree of {size}")));
            }
            set.tiles.insert(at, at.hashes(bytes.as_ref())?.to_vec());
        }
        set.check_edge()?;
        set.check_full()?;
        Ok(set)
    }

    fn check_edge(&self) -> Result<(), Rejection> {
        let edge = tile::Edge::restore(self.size, |at| Some(self.tiles.get(&at)?.concat()))?;
        if edge.root() != self.root {
            let message = format!("the partial tiles do not fold to the root of {}", self.size);
            return Err(Rejection::new("tile", message));
        }
        Ok(())
    }

    /// Each full tile is checked by the one above it, itself checked or to be.
    fn check_full(&self) -> Result<(), Rejection> {
        for (at, hashes) in self.tiles.iter().filter(|(at, _)| at.is_full()) {
            let expected = above(*at, self.size)
                .and_then(|(above, place)| self.tiles.get(&above)?.get(place))
                .ok_or_else(|| refuse(*at, "cannot be checked: the tile above it is missing"))?;
            if whole_tree::root(hashes) != *expected {
                return Err(refuse(*at, "has not the hash that the tile above it holds"));
            }
        }
        Ok(())
    }

    /// Leaves of the tree that these are tiles of.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The root of that tree.
    pub fn root(&self) -> Hash {
        self.root
    }

    /// Leaf `index` and its inclusion proof, which `rs_merkle` has checked too:
    /// what is served to others has passed code that is not ours.
    pub fn inclusion(&self, index: u64) -> Result<(Hash, Vec<Hash>), Unprovable> {
        let proof = merkle::inclusion_proof(self, index, self.size)?;
        let node = Node { level: 0, index };
        let leaf = self.node(node).ok_or(Unprovable::Missing(node))?;
        match whole_tree::agrees(index, self.size, &leaf, &proof, &self.root) {
            true => Ok((leaf, proof)),
            false => Err(Unprovable::Unsound { index, size: self.size }),
        }
    }

    /// The inclusion proofs of the leaves `start..end`.
    pub fn inclusions(&self, start: u64, end: u64) -> Result<Vec<Vec<Hash>>, Unprovable> {
        (start..end).map(|index| self.inclusion(index).map(|(_, path)| path)).collect()
    }

    /// The root that the tree had at `old` leaves, and the consistency proof.
    pub fn consistency(&self, old: u64) -> Result<(Hash, Vec<Hash>), Unprovable> {
        let root = merkle::subtree_hash(self, 0, old)?;
        Ok((root, merkle::consistency_proof(self, old, self.size)?))
    }

    /// The hash of leaf `index`, if its tile is in the set.
    pub fn leaf(&self, index: u64) -> Option<Hash> {
        self.node(Node { level: 0, index })
    }
}

impl HashReader for TileSet {
    fn node(&self, node: Node) -> Option<Hash> {
        let (tile, first, count) = TileCoordinate::of_node(node, self.size)?;
        let hashes = self.tiles.get(&tile)?.get(first..first + count)?;
        Some(merkle::root_from_leaves(hashes))
    }
}

fn refuse(at: TileCoordinate, why: impl std::fmt::Display) -> Rejection {
    Rejection::new("tile", format!("{at} {why}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proof::merkle::{leaf_hash, root_from_leaves};

    fn leaves(count: u64) -> Vec<Hash> {
        (0..count).map(|number| leaf_hash(&number.to_be_bytes())).collect()
    }

    fn all_tiles(leaves: &[Hash]) -> BTreeMap<TileCoordinate, Vec<u8>> {
        let (_, tiles) = tile::Edge::new().integrate(leaves);
        tiles.into_iter().map(|tile| (tile.at, tile.bytes)).collect()
    }

    fn pick(
        from: &BTreeMap<TileCoordinate, Vec<u8>>,
        which: &[TileCoordinate],
    ) -> Vec<(TileCoordinate, Vec<u8>)> {
        which.iter().map(|at| (*at, from[at].clone())).collect()
    }

    #[test]
    fn few_tiles_prove_a_leaf_of_a_large_tree() {
        let size = 70_000;
        let leaves = leaves(size);
        let (root, tiles) = (root_from_leaves(&leaves), all_tiles(&leaves));
        for index in [0, 255, 256, 65_535, 65_536, 69_887, 69_888, 69_999] {
            let needed = tiles_for_inclusion(index, size).unwrap();
            assert!(needed.len() <= 5, "{index}: {needed:?}");
            let set = TileSet::verified(size, &root, pick(&tiles, &needed)).unwrap();
            let (leaf, proof) = set.inclusion(index).unwrap();
            assert_eq!(leaf, leaves[index as usize]);
            merkle::verify_inclusion(index, size, &leaf, &proof, &root).unwrap();
        }
        assert!(tiles_for_inclusion(size, size).is_err());
    }

    #[test]
    fn a_set_needs_every_tile_on_the_way_to_the_root() {
        let leaves = leaves(70_000);
        let (root, tiles) = (root_from_leaves(&leaves), all_tiles(&leaves));
        let needed = tiles_for_inclusion(3, 70_000).unwrap();
        for (place, left_out) in needed.iter().enumerate() {
            let mut rest = needed.clone();
            rest.remove(place);
            let set = TileSet::verified(70_000, &root, pick(&tiles, &rest));
            // Without the lowest tile the set is sound, but proves nothing of the leaf.
            match left_out {
                TileCoordinate { level: 0, index: 0, .. } => assert_eq!(set.unwrap().leaf(3), None),
                _ => assert!(set.is_err(), "{left_out}"),
            }
        }
    }

    #[test]
    fn a_partial_tile_may_come_as_the_full_one() {
        let leaves = leaves(512);
        let old_root = root_from_leaves(&leaves[..300]);
        let tiles = all_tiles(&leaves);
        let needed = tiles_for_consistency(256, 300).unwrap();
        let later = all_tiles(&leaves[..300]);
        let given = needed.iter().map(|at| match tiles.get(&at.full()) {
            Some(bytes) => (*at, bytes.clone()),
            None => (*at, later[at].clone()),
        });
        let set = TileSet::verified(300, &old_root, given).unwrap();
        let proof = merkle::consistency_proof(&set, 256, 300).unwrap();
        let before = root_from_leaves(&leaves[..256]);
        merkle::verify_consistency(256, 300, &before, &old_root, &proof).unwrap();
    }

    #[test]
    fn the_empty_tree_has_no_tiles() {
        let none = std::iter::empty::<(TileCoordinate, Vec<u8>)>;
        assert!(TileSet::verified(0, &merkle::empty_root(), none()).is_ok());
        assert!(TileSet::verified(0, &[0; 32], none()).is_err());
        assert!(TileSet::verified(u64::MAX, &[0; 32], none()).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn the_tiles_named_are_enough(size in 1u64..1200, a in any::<u64>(), b in any::<u64>()) {
            let leaves = leaves(size);
            let (root, tiles) = (root_from_leaves(&leaves), all_tiles(&leaves));
            let (index, old) = (a % size, b % (size + 1));
            let needed = tiles_for_inclusion(index, size).unwrap();
            let set = TileSet::verified(size, &root, pick(&tiles, &needed)).unwrap();
            prop_assert_eq!(
                set.inclusion(index).map(|(_, proof)| proof),
                merkle::inclusion_proof(&leaves[..], index, size)
            );
            let needed = tiles_for_consistency(old, size).unwrap();
            let set = TileSet::verified(size, &root, pick(&tiles, &needed)).unwrap();
            prop_assert_eq!(
                merkle::consistency_proof(&set, old, size),
                merkle::consistency_proof(&leaves[..], old, size)
            );
            let needed = tiles_for_leaves(index.min(old), old, size).unwrap();
            let set = TileSet::verified(size, &root, pick(&tiles, &needed)).unwrap();
            for at in index.min(old)..old {
                prop_assert_eq!(set.leaf(at), Some(leaves[at as usize]));
            }
        }

        #[test]
        fn one_changed_bit_is_noticed(
            size in 1u64..700, at in any::<u64>(), which in any::<prop::sample::Index>(), bit in any::<prop::sample::Index>(),
        ) {
            let leaves = leaves(size);
            let root = root_from_leaves(&leaves);
            let needed = tiles_for_inclusion(at % size, size).unwrap();
            let mut given = pick(&all_tiles(&leaves), &needed);
            let place = which.index(given.len());
            let bytes = &mut given[place].1;
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(TileSet::verified(size, &root, given).is_err());
        }
    }
}
