//! Reading back what is published: checkpoint, tiles, entries, proofs.
//!
//! Left out: judging any of it. Proofs are made from our own tiles, and whoever
//! gets them checks them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::{Error, Head, Log};
use crate::dime::Rejection;
use crate::proof::Hash;
use crate::proof::merkle::{
    self, HashReader, Node, Unprovable, complete_nodes, subtree_proof_ranges,
};
use crate::proof::tile::{
    BundleCoordinate, MAX_BUNDLE, MAX_TILE, Resource, TileCoordinate, decode_bundle,
    decode_bundle_prefix,
};
use crate::store::{Blobs, keys};

/// Tiles and bundles kept in memory, each; then all are dropped and it begins anew.
const CACHED: usize = 2048;
/// Largest public blob, bytes.
pub const MAX_BLOB: u64 = 4 << 20;

/// Reads what is published. Cheap to clone; all clones share one cache.
#[derive(Clone, Debug)]
pub struct Reader {
    log: Log,
    cache: Arc<Mutex<Cache>>,
}

#[derive(Debug, Default)]
struct Cache {
    tiles: HashMap<TileCoordinate, Bytes>,
    bundles: HashMap<BundleCoordinate, Bytes>,
}

/// A public blob, or why there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublicBlob {
    Here(Bytes),
    /// The operator no longer serves it (HTTP 451).
    Withdrawn,
    Missing,
}

/// Tiles of one tree, of our own and so not checked again.
struct Tiles {
    size: u64,
    tiles: HashMap<TileCoordinate, Bytes>,
}

impl HashReader for Tiles {
    fn node(&self, node: Node) -> Option<Hash> {
        let (at, first, count) = TileCoordinate::of_node(node, self.size)?;
        let hashes = at.hashes(self.tiles.get(&at)?).ok()?;
        Some(merkle::root_from_leaves(hashes.get(first..first + count)?))
    }
}

impl Reader {
    pub(super) fn new(log: Log) -> Reader {
        Reader { log, cache: Arc::default() }
    }

    /// The log that is read.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The published head; `None` before the first.
    pub fn head(&self) -> Option<Head> {
        self.log.0.heads.borrow().published.clone()
    }

    /// The signed checkpoint of the published head.
    pub fn checkpoint(&self) -> Option<Bytes> {
        self.head().and_then(|head| head.checkpoint)
    }

    /// A tile or bundle by its path, such as `tile/0/x001/234.p/12`. `None` if
    /// it does not exist, or is partial and was replaced by the full one.
    pub async fn resource(&self, path: &str) -> Result<Option<Bytes>, Error> {
        let Ok(resource) = path.parse::<Resource>() else { return Ok(None) };
        let limit = match resource {
            Resource::Tile(_) => MAX_TILE as u64,
            Resource::Bundle(_) => MAX_BUNDLE as u64,
        };
        Ok(self.log.store().public.get(path, limit).await?)
    }

    /// Bytes that an entry names by hash.
    pub async fn blob(&self, sha256: &Hash) -> Result<PublicBlob, Error> {
        let public = &self.log.store().public;
        if let Some(bytes) = public.get(&keys::blob(sha256), MAX_BLOB).await? {
            return Ok(PublicBlob::Here(bytes));
        }
        match public.head(&keys::withdrawn(sha256)).await? {
            Some(_) => Ok(PublicBlob::Withdrawn),
            None => Ok(PublicBlob::Missing),
        }
    }

    /// The entry at a leaf of the published tree; `None` past its end.
    pub async fn entry(&self, index: u64) -> Result<Option<Bytes>, Error> {
        let size = self.head().map_or(0, |head| head.size);
        let Some((at, place)) = BundleCoordinate::of_entry(index, size) else { return Ok(None) };
        let missing = || Error::broken(0, format!("bundle {at} is missing"));
        let bytes = self.bundle(at).await?.ok_or_else(missing)?;
        let entries = entries(&bytes, at).map_err(Error::Tiles)?;
        Ok(entries.get(place).map(|entry| bytes.slice_ref(entry)))
    }

    /// Proves leaf `index` in the tree of `size` leaves, which is signed or
    /// smaller than what is.
    pub async fn inclusion(&self, index: u64, size: u64) -> Result<Vec<Hash>, Error> {
        self.subtree(index, index.saturating_add(1), size).await
    }

    /// Proves that the tree of `old` leaves is a prefix of that of `new`, which
    /// is signed or smaller than what is: cosigners see it before it is published.
    pub async fn consistency(&self, old: u64, new: u64) -> Result<Vec<Hash>, Error> {
        self.subtree(0, old, new).await
    }

    async fn subtree(&self, start: u64, end: u64, size: u64) -> Result<Vec<Hash>, Error> {
        let signed = self.log.signed().map_or(0, |head| head.size);
        if size > signed {
            return Err(Error::Proof(Unprovable::NotInTree { start, end, size: signed }));
        }
        let ranges = subtree_proof_ranges(start, end, size).map_err(Error::Proof)?;
        let mut tiles = Tiles { size: signed, tiles: HashMap::new() };
        for node in ranges.into_iter().flat_map(|(start, end)| complete_nodes(start, end)) {
            let unknown = || Error::Proof(Unprovable::Missing(node));
            let (at, ..) = TileCoordinate::of_node(node, signed).ok_or_else(unknown)?;
            if let Entry::Vacant(vacant) = tiles.tiles.entry(at) {
                vacant.insert(self.tile(at).await?.ok_or_else(unknown)?);
            }
        }
        merkle::subtree_proof(&tiles, start, end, size).map_err(Error::Proof)
    }

    async fn tile(&self, at: TileCoordinate) -> Result<Option<Bytes>, Error> {
        if let Some(bytes) = self.cache().tiles.get(&at) {
            return Ok(Some(bytes.clone()));
        }
        let found = tile(&self.log.store().public, at).await?;
        if let Some(bytes) = &found {
            let mut cache = self.cache();
            if cache.tiles.len() >= CACHED {
                cache.tiles.clear();
            }
            cache.tiles.insert(at, bytes.clone());
        }
        Ok(found)
    }

    async fn bundle(&self, at: BundleCoordinate) -> Result<Option<Bytes>, Error> {
        if let Some(bytes) = self.cache().bundles.get(&at) {
            return Ok(Some(bytes.clone()));
        }
        let found = bundle(&self.log.store().public, at).await?;
        if let Some(bytes) = &found {
            let mut cache = self.cache();
            if cache.bundles.len() >= CACHED {
                cache.bundles.clear();
            }
            cache.bundles.insert(at, bytes.clone());
        }
        Ok(found)
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A tile, or the full one in its place.
pub(super) async fn tile(public: &Blobs, at: TileCoordinate) -> Result<Option<Bytes>, Error> {
    let found = public.get(&at.path(), MAX_TILE as u64).await?;
    if found.is_some() || at.is_full() {
        return Ok(found);
    }
    let full = public.get(&at.full().path(), MAX_TILE as u64).await?;
    Ok(full.map(|bytes| bytes.slice(..bytes.len().min(at.len()))))
}

/// A bundle, or the full one in its place.
pub(super) async fn bundle(public: &Blobs, at: BundleCoordinate) -> Result<Option<Bytes>, Error> {
    let found = public.get(&at.path(), MAX_BUNDLE as u64).await?;
    if found.is_some() || at.tile().is_full() {
        return Ok(found);
    }
    let full = BundleCoordinate { width: crate::proof::tile::WIDTH, ..at };
    Ok(public.get(&full.path(), MAX_BUNDLE as u64).await?)
}

/// The entries of a bundle, out of its bytes or those of the full one.
pub(super) fn entries(bytes: &[u8], at: BundleCoordinate) -> Result<Vec<&[u8]>, Rejection> {
    decode_bundle(bytes, at.width).or_else(|_| decode_bundle_prefix(bytes, at.width))
}
