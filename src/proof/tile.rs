//! Tiles and entry bundles (c2sp.org/tlog-tiles): coordinates, paths, contents.
//!
//! Tile `n` of level `l` holds up to 256 hashes of 32 bytes; hash `i` is that of
//! the complete subtree number `n * 256 + i` of height `8 * l`. A bundle holds
//! the entries below a tile of level 0, each after its length as 2 bytes.
//!
//! What is left out: where tiles are stored, and when they may be deleted.

use std::fmt;
use std::str::FromStr;

use super::merkle::{Frontier, Hash, MAX_SIZE, Node};
use super::whole_tree;
use crate::dime::Rejection;

/// Hashes in a full tile, entries in a full bundle.
pub const WIDTH: u16 = 256;
/// Bytes of a hash in a tile.
pub const HASH_BYTES: usize = 32;
/// Bytes of a full tile.
pub const MAX_TILE: usize = WIDTH as usize * HASH_BYTES;
/// Longest entry a bundle can hold, bytes.
pub const MAX_ENTRY: usize = u16::MAX as usize;
/// Longest bundle, bytes.
pub const MAX_BUNDLE: usize = WIDTH as usize * (2 + MAX_ENTRY);
/// Highest level of a tile in a path.
pub const MAX_LEVEL: u8 = 63;
/// Longest path of a tile or bundle, bytes.
pub const MAX_PATH: usize = 64;

/// Which tile of hashes. Ordered from the leaves up, left to right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TileCoordinate {
    /// 0 to 63; 0 holds leaf hashes.
    pub level: u8,
    /// Number in its level, from 0.
    pub index: u64,
    /// Hashes in it: 1 to 256. Below 256 the tile is partial.
    pub width: u16,
}

/// Which bundle of entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BundleCoordinate {
    /// That of the tile of level 0 above it.
    pub index: u64,
    /// Entries in it: 1 to 256.
    pub width: u16,
}

/// What a path below the log's prefix names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Resource {
    Tile(TileCoordinate),
    Bundle(BundleCoordinate),
}

/// A tile and its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tile {
    pub at: TileCoordinate,
    /// `32 * at.width` bytes.
    pub bytes: Vec<u8>,
}

impl TileCoordinate {
    pub fn is_full(&self) -> bool {
        self.width == WIDTH
    }

    /// The full tile in the same place, to be asked for where the partial one
    /// is gone.
    pub fn full(self) -> TileCoordinate {
        TileCoordinate { width: WIDTH, ..self }
    }

    /// Path below the log's prefix, such as `tile/0/x001/234.p/12`.
    pub fn path(&self) -> String {
        self.to_string()
    }

    /// Bytes of the tile.
    pub fn len(&self) -> usize {
        usize::from(self.width) * HASH_BYTES
    }

    /// Never: tiles without hashes do not exist.
    pub fn is_empty(&self) -> bool {
        self.width == 0
    }

    /// The hashes of this tile out of its bytes, or out of those of the full
    /// tile in its place. Rule `tile` for any other length.
    pub fn hashes<'a>(&self, bytes: &'a [u8]) -> Result<&'a [Hash], Rejection> {
        let (hashes, rest) = bytes.as_chunks::<HASH_BYTES>();
        let fits = bytes.len() == self.len() || bytes.len() == MAX_TILE;
        hashes.get(..usize::from(self.width)).filter(|_| fits && rest.is_empty()).ok_or_else(|| {
            Rejection::new("tile", format!("{self} cannot be {} bytes long", bytes.len()))
        })
    }

    /// The tile of a tree of `size` leaves that holds the parts of this node,
    /// and where in it they are: `first..first + count`.
    /// `None` if the node is not complete in that tree.
    pub fn of_node(node: Node, size: u64) -> Option<(TileCoordinate, usize, usize)> {
        let level = node.level / 8;
        let count = 1u64 << (node.level % 8);
        let first = node.index.checked_mul(count)?;
        let tile = tile_at(level, first / u64::from(WIDTH), size)?;
        let offset = first % u64::from(WIDTH);
        let inside = offset + count <= u64::from(tile.width);
        inside.then_some((tile, offset as usize, count as usize))
    }
}

impl BundleCoordinate {
    pub fn path(&self) -> String {
        self.to_string()
    }

    /// The tile of leaf hashes above this bundle.
    pub fn tile(self) -> TileCoordinate {
        TileCoordinate { level: 0, index: self.index, width: self.width }
    }

    /// The bundle of the tree of `size` leaves that holds entry `index`, and
    /// its place there. `None` past the end.
    pub fn of_entry(index: u64, size: u64) -> Option<(BundleCoordinate, usize)> {
        let (tile, offset, _) = TileCoordinate::of_node(Node { level: 0, index }, size)?;
        Some((BundleCoordinate { index: tile.index, width: tile.width }, offset))
    }
}

/// The tile in this place as a tree of `size` leaves has it, full or partial.
pub fn tile_at(level: u8, index: u64, size: u64) -> Option<TileCoordinate> {
    let hashes = hashes_in_level(level, size);
    let first = index.checked_mul(u64::from(WIDTH))?;
    let width = hashes.checked_sub(first)?.min(u64::from(WIDTH)) as u16;
    (width > 0).then_some(TileCoordinate { level, index, width })
}

/// Number of hashes in the tiles of a level: `floor(size / 256^level)`.
fn hashes_in_level(level: u8, size: u64) -> u64 {
    size.checked_shr(u32::from(level) * 8).unwrap_or(0)
}

/// The tiles of a tree of `new` leaves that a tree of `old` has not, level by
/// level from the leaves, each level left to right, the partial one last.
///
/// Lazy, since a stranger may have named the sizes.
pub fn new_tiles(old: u64, new: u64) -> impl Iterator<Item = TileCoordinate> {
    (0..8).flat_map(move |level| new_in_level(level, old, new))
}

/// The bundles of a tree of `new` leaves that a tree of `old` has not.
pub fn new_bundles(old: u64, new: u64) -> impl Iterator<Item = BundleCoordinate> {
    new_in_level(0, old, new).map(|tile| BundleCoordinate { index: tile.index, width: tile.width })
}

fn new_in_level(level: u8, old: u64, new: u64) -> impl Iterator<Item = TileCoordinate> {
    let (before, after) = (hashes_in_level(level, old), hashes_in_level(level, new));
    let tiles = before / u64::from(WIDTH)..after.div_ceil(u64::from(WIDTH));
    let tiles = if after > before { tiles } else { 0..0 };
    tiles.filter_map(move |index| tile_at(level, index, new))
}

/// All partial tiles of a tree of `size` leaves, from the leaves up.
pub fn partial_tiles(size: u64) -> Vec<TileCoordinate> {
    (0..8)
        .filter_map(|level| tile_at(level, hashes_in_level(level, size) / u64::from(WIDTH), size))
        .collect()
}

/// The partial tiles of a tree: all that is needed to make it grow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edge {
    size: u64,
    /// The hashes of the partial tile of each level, at most 255, from the leaves up.
    levels: Vec<Vec<Hash>>,
}

impl Edge {
    /// Of the empty tree.
    pub fn new() -> Edge {
        Edge::default()
    }

    /// From the bytes of every tile of [`partial_tiles`]; `read` may answer
    /// with the full tile instead. The caller compares [`Edge::root`].
    pub fn restore<B: AsRef<[u8]>>(
        size: u64,
        mut read: impl FnMut(TileCoordinate) -> Option<B>,
    ) -> Result<Edge, Rejection> {
        if size > MAX_SIZE {
            return Err(Rejection::new("tile", format!("no tree has {size} leaves")));
        }
        let mut edge = Edge { size, levels: Vec::new() };
        for tile in partial_tiles(size) {
            let missing = || Rejection::new("tile", format!("{tile} is missing"));
            let bytes = read(tile).ok_or_else(missing)?;
            let hashes = tile.hashes(bytes.as_ref())?.to_vec();
            edge.levels.resize(usize::from(tile.level), Vec::new());
            edge.levels.push(hashes);
        }
        Ok(edge)
    }

    /// Number of leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The complete subtrees along the edge.
    pub fn frontier(&self) -> Frontier {
        let mut hashes = Vec::new();
        for level in self.levels.iter().rev() {
            let mut part = Frontier::new();
            part.extend(level);
            hashes.extend_from_slice(part.hashes());
        }
        Frontier::restore(self.size, hashes).unwrap_or_default()
    }

    /// The root of the tree.
    pub fn root(&self) -> Hash {
        self.frontier().root()
    }

    /// The edge after appending `leaves`, and every tile that is new with them:
    /// those of [`new_tiles`], in that order.
    pub fn integrate(&self, leaves: &[Hash]) -> (Edge, Vec<Tile>) {
        let size = self.size + leaves.len() as u64;
        let mut next = Edge { size, levels: Vec::new() };
        let mut tiles = Vec::new();
        let mut added = leaves.to_vec();
        let mut level = 0;
        while !added.is_empty() || level < self.levels.len() {
            let mut hashes = self.levels.get(level).cloned().unwrap_or_default();
            let first = hashes_in_level(level as u8, self.size) / u64::from(WIDTH);
            let changed = !added.is_empty();
            hashes.append(&mut added);
            for (index, tile) in (first..).zip(hashes.chunks(usize::from(WIDTH))) {
                let at = TileCoordinate { level: level as u8, index, width: tile.len() as u16 };
                if changed {
                    tiles.push(Tile { at, bytes: tile.concat() });
                }
                if at.is_full() {
                    added.push(whole_tree::root(tile));
                }
            }
            let full = hashes.len() - hashes.len() % usize::from(WIDTH);
            next.levels.push(hashes.split_off(full));
            level += 1;
        }
        while next.levels.last().is_some_and(Vec::is_empty) {
            next.levels.pop();
        }
        (next, tiles)
    }

    /// The partial tiles as they are now.
    pub fn tiles(&self) -> impl Iterator<Item = Tile> {
        partial_tiles(self.size)
            .into_iter()
            .zip(self.levels.iter().filter(|l| !l.is_empty()))
            .map(|(at, hashes)| Tile { at, bytes: hashes.concat() })
    }
}

/// An entry that no bundle can hold. Ours to prevent, before sequencing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an entry of {0} bytes does not fit a bundle, which takes 65,535")]
pub struct EntryTooLong(pub usize);

/// The bytes of a bundle: each entry after its length, 2 bytes, big-endian.
pub fn encode_bundle<E: AsRef<[u8]>>(entries: &[E]) -> Result<Vec<u8>, EntryTooLong> {
    let mut bytes = Vec::new();
    for entry in entries {
        let entry = entry.as_ref();
        let length = u16::try_from(entry.len()).map_err(|_| EntryTooLong(entry.len()))?;
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(entry);
    }
    Ok(bytes)
}

/// The entries of a bundle, exactly `width` of them and nothing after.
/// Rule `bundle` otherwise. For a partial bundle served as a full one, see
/// [`decode_bundle_prefix`].
pub fn decode_bundle(bytes: &[u8], width: u16) -> Result<Vec<&[u8]>, Rejection> {
    let (entries, rest) = take_entries(bytes, width)?;
    if !rest.is_empty() {
        let message = format!("{} bytes follow the {width} entries of a bundle", rest.len());
        return Err(Rejection::new("bundle", message));
    }
    Ok(entries)
}

/// The first `width` entries of a full bundle.
pub fn decode_bundle_prefix(bytes: &[u8], width: u16) -> Result<Vec<&[u8]>, Rejection> {
    let mut entries = decode_bundle(bytes, WIDTH)?;
    entries.truncate(usize::from(width));
    Ok(entries)
}

fn take_entries(bytes: &[u8], width: u16) -> Result<(Vec<&[u8]>, &[u8]), Rejection> {
    let short = || Rejection::new("bundle", format!("a bundle ends before entry {width}"));
    let mut entries = Vec::new();
    let mut rest = bytes;
    for _ in 0..width {
        let (length, after) = rest.split_first_chunk::<2>().ok_or_else(short)?;
        let length = usize::from(u16::from_be_bytes(*length));
        let (entry, after) = after.split_at_checked(length).ok_or_else(short)?;
        entries.push(entry);
        rest = after;
    }
    Ok((entries, rest))
}

/// Three digits a group, all but the last behind an `x`; then the width if partial.
fn write_place(f: &mut fmt::Formatter<'_>, index: u64, width: u16) -> fmt::Result {
    let mut groups = Vec::new();
    let mut rest = index;
    while rest >= 1000 || groups.is_empty() {
        groups.push(rest % 1000);
        rest /= 1000;
    }
    if index >= 1000 {
        groups.push(rest);
    }
    let last = groups.remove(0);
    for group in groups.iter().rev() {
        write!(f, "x{group:03}/")?;
    }
    write!(f, "{last:03}")?;
    if width < WIDTH { write!(f, ".p/{width}") } else { Ok(()) }
}

impl fmt::Display for TileCoordinate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tile/{}/", self.level)?;
        write_place(f, self.index, self.width)
    }
}

impl fmt::Display for BundleCoordinate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("tile/entries/")?;
        write_place(f, self.index, self.width)
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Resource::Tile(tile) => tile.fmt(f),
            Resource::Bundle(bundle) => bundle.fmt(f),
        }
    }
}

/// Exactly the paths that printing gives; rule `tile-path` for all others.
impl FromStr for Resource {
    type Err = Rejection;

    fn from_str(path: &str) -> Result<Resource, Rejection> {
        // The longest message about a path is a path.
        let refuse = || {
            let shown: String = path.chars().take(MAX_PATH).collect();
            Rejection::new("tile-path", format!("no path of a tile: {shown:?}"))
        };
        if path.len() > MAX_PATH {
            return Err(refuse());
        }
        let rest = path.strip_prefix("tile/").ok_or_else(refuse)?;
        let (level, place) = rest.split_once('/').ok_or_else(refuse)?;
        let (place, width) = match place.split_once(".p/") {
            Some((place, width)) => (place, width.parse().map_err(|_| refuse())?),
            None => (place, WIDTH),
        };
        let mut index = 0u64;
        for group in place.split('/') {
            let group = group.strip_prefix('x').unwrap_or(group);
            let group: u64 = group.parse().map_err(|_| refuse())?;
            index = index
                .checked_mul(1000)
                .and_then(|index| index.checked_add(group))
                .ok_or_else(refuse)?;
        }
        let resource = if level == "entries" {
            Resource::Bundle(BundleCoordinate { index, width })
        } else {
            let level = level.parse().map_err(|_| refuse())?;
            Resource::Tile(TileCoordinate { level, index, width })
        };
        let level = if let Resource::Tile(tile) = resource { tile.level } else { 0 };
        let legal = level <= MAX_LEVEL && (1..=WIDTH).contains(&width);
        // What reads back otherwise had a sign, a zero or an `x` too many.
        (legal && resource.to_string() == path).then_some(resource).ok_or_else(refuse)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    use super::*;
    use crate::proof::merkle::{leaf_hash, root_from_leaves};

    fn leaves(count: u64) -> Vec<Hash> {
        (0..count).map(|number| leaf_hash(&number.to_be_bytes())).collect()
    }

    fn tile(level: u8, index: u64, width: u16) -> TileCoordinate {
        TileCoordinate { level, index, width }
    }

    #[test]
    fn paths_are_those_of_tlog_tiles() {
        for (at, path) in [
            (tile(0, 0, 256), "tile/0/000"),
            (tile(0, 255, 256), "tile/0/255"),
            (tile(1, 999, 256), "tile/1/999"),
            (tile(0, 1000, 256), "tile/0/x001/000"),
            (tile(63, 1_234_067, 256), "tile/63/x001/x234/067"),
            (tile(0, 1_234_067, 12), "tile/0/x001/x234/067.p/12"),
            (tile(0, 1_000_000, 255), "tile/0/x001/x000/000.p/255"),
        ] {
            assert_eq!(at.path(), path);
            assert_eq!(path.parse(), Ok(Resource::Tile(at)), "{path}");
        }
        let bundle = BundleCoordinate { index: 1234, width: 7 };
        assert_eq!(bundle.path(), "tile/entries/x001/234.p/7");
        assert_eq!("tile/entries/x001/234.p/7".parse(), Ok(Resource::Bundle(bundle)));
        let last = tile(0, u64::MAX, 1);
        assert_eq!(last.path().parse(), Ok(Resource::Tile(last)));
    }

    #[test]
    fn other_paths_are_refused() {
        for path in [
            "",
            "tile/",
            "tile/0",
            "tile/0/",
            "/tile/0/000",
            "tile/00/000",
            "tile/64/000",
            "tile/+1/000",
            "tile/-1/000",
            "tile/0/0",
            "tile/0/0000",
            "tile/0/x000/000",
            "tile/0/001/000",
            "tile/0/x001",
            "tile/0/x001/x000",
            "tile/0/+01",
            "tile/0/000.p/0",
            "tile/0/000.p/256",
            "tile/0/000.p/012",
            "tile/0/000.p/",
            "tile/0/000.p/1/",
            "tile/0/000.p/1.p/1",
            "tile/0/000/",
            "tile/0/../000",
            "tile/data/000",
            "tile/0/x018/x446/x744/x073/x709/x551/616",
            "tile/0/x001/x001/x001/x001/x001/x001/x001/x001/x001/x001/x001/x001/x001/000",
        ] {
            assert!(path.parse::<Resource>().is_err(), "{path}");
        }
    }

    /// The two sizes that tlog-tiles works out.
    #[test]
    fn tiles_of_a_size() {
        let all: Vec<_> = new_tiles(0, 70_000).collect();
        assert_eq!(all.len(), 274 + 2 + 1);
        assert_eq!(all[272..=273], [tile(0, 272, 256), tile(0, 273, 112)]);
        assert_eq!(all[274..], [tile(1, 0, 256), tile(1, 1, 17), tile(2, 0, 1)]);
        assert_eq!(partial_tiles(70_000), [tile(0, 273, 112), tile(1, 1, 17), tile(2, 0, 1)]);
        let all: Vec<_> = new_tiles(0, 256).collect();
        assert_eq!(all, [tile(0, 0, 256), tile(1, 0, 1)]);
        assert_eq!(new_tiles(300, 300).count(), 0);
        assert_eq!(new_tiles(300, 200).count(), 0);
        let next: Vec<_> = new_tiles(300, 301).collect();
        assert_eq!(next, [tile(0, 1, 45)]);
        let bundles: Vec<_> = new_bundles(300, 513).map(|b| (b.index, b.width)).collect();
        assert_eq!(bundles, [(1, 256), (2, 1)]);
        // A stranger's size costs nothing until it is walked.
        assert_eq!(new_tiles(0, MAX_SIZE).next(), Some(tile(0, 0, 256)));
    }

    #[test]
    fn a_tile_is_read_from_its_bytes_or_the_full_ones() {
        let full = leaves(256).concat();
        let part = tile(0, 0, 3);
        assert_eq!(part.hashes(&full).unwrap(), &leaves(3)[..]);
        assert_eq!(part.hashes(&full[..96]).unwrap(), &leaves(3)[..]);
        for wrong in [0, 64, 95, 97, 128, 8191] {
            assert!(part.hashes(&full[..wrong]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn bundles_are_read_strictly() {
        let entries = [&b""[..], b"alpha", b"bravo!"];
        let bytes = encode_bundle(&entries).unwrap();
        assert_eq!(hex::encode(&bytes), "00000005616c7068610006627261766f21");
        assert_eq!(decode_bundle(&bytes, 3).unwrap(), entries);
        assert!(decode_bundle(&bytes, 2).is_err());
        assert!(decode_bundle(&bytes, 4).is_err());
        assert!(decode_bundle(&bytes[..bytes.len() - 1], 3).is_err());
        assert_eq!(encode_bundle(&[vec![0; 65_536]]), Err(EntryTooLong(65_536)));
        let full = encode_bundle(&[b"x"; 256]).unwrap();
        assert_eq!(decode_bundle_prefix(&full, 2).unwrap(), [b"x", b"x"]);
    }

    /// Grows an edge by the given steps, and keeps every tile.
    fn grow(leaves: &[Hash], steps: &[usize]) -> (Edge, BTreeMap<TileCoordinate, Vec<u8>>) {
        let (mut edge, mut kept, mut rest) = (Edge::new(), BTreeMap::new(), leaves);
        for step in steps.iter().chain([&leaves.len()]) {
            let (now, later) = rest.split_at(rest.len().min(*step));
            let (next, tiles) = edge.integrate(now);
            let expected: Vec<_> = new_tiles(edge.size(), next.size()).collect();
            assert_eq!(tiles.iter().map(|tile| tile.at).collect::<Vec<_>>(), expected);
            kept.extend(tiles.into_iter().map(|tile| (tile.at, tile.bytes)));
            (edge, rest) = (next, later);
        }
        (edge, kept)
    }

    #[test]
    fn three_levels_of_tiles() {
        let leaves = leaves(70_000);
        let (edge, tiles) = grow(&leaves, &[65_536]);
        assert_eq!(edge.root(), root_from_leaves(&leaves));
        let level_two = root_from_leaves(&leaves[..65_536]);
        assert_eq!(tiles[&tile(2, 0, 1)], level_two);
        let again = Edge::restore(70_000, |at| tiles.get(&at)).unwrap();
        assert_eq!(again, edge);
        let now: BTreeMap<_, _> = edge.tiles().map(|tile| (tile.at, tile.bytes)).collect();
        assert_eq!(now.keys().copied().collect::<Vec<_>>(), partial_tiles(70_000));
        assert!(now.iter().all(|(at, bytes)| tiles[at] == *bytes));
    }

    #[test]
    fn an_edge_with_a_tile_missing_is_refused() {
        let (_, tiles) = grow(&leaves(300), &[]);
        assert!(Edge::restore(300, |at| tiles.get(&at).filter(|_| at.level == 0)).is_err());
        assert!(Edge::restore(u64::MAX, |_| None::<Vec<u8>>).is_err());
        // The top level may be empty below a full one.
        let (edge, tiles) = grow(&leaves(512), &[]);
        assert_eq!(Edge::restore(512, |at| tiles.get(&at)).unwrap(), edge);
        assert_eq!(edge.tiles().count(), 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn steps_do_not_matter(
            size in 0u64..1500, steps in prop::collection::vec(0usize..600, 0..6),
        ) {
            let leaves = leaves(size);
            let (edge, tiles) = grow(&leaves, &steps);
            let (whole, last) = grow(&leaves, &[]);
            prop_assert_eq!(edge.root(), root_from_leaves(&leaves));
            prop_assert_eq!(&edge, &whole);
            prop_assert_eq!(edge.frontier().root(), edge.root());
            for (at, bytes) in last {
                prop_assert_eq!(&tiles[&at], &bytes);
            }
            prop_assert_eq!(Edge::restore(size, |at| tiles.get(&at)).unwrap(), edge);
        }

        #[test]
        fn every_path_reads_back(level in 0u8..64, index in any::<u64>(), shift in 0u32..64, width in 1u16..=256) {
            let at = TileCoordinate { level, index: index >> shift, width };
            prop_assert_eq!(at.path().parse(), Ok(Resource::Tile(at)));
        }

        #[test]
        fn path_reading_never_panics(path in "(tile/)?(entries|[0-9+x]{1,3})?/?[x0-9./p+é]{0,60}") {
            if let Ok(resource) = path.parse::<Resource>() {
                prop_assert_eq!(resource.to_string(), path);
            }
        }

        #[test]
        fn bundle_reading_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300), width in 0u16..300) {
            if let Ok(entries) = decode_bundle(&bytes, width) {
                prop_assert_eq!(encode_bundle(&entries).unwrap(), bytes);
            }
        }

        #[test]
        fn bundles_read_back(entries in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..256)) {
            let bytes = encode_bundle(&entries).unwrap();
            prop_assert_eq!(decode_bundle(&bytes, entries.len() as u16).unwrap(), entries);
        }
    }
}
