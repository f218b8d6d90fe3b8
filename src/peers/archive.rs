//! What is kept of one peer's log: every entry, tile and blob that was
//! followed, so that a restart goes on there, and so that the peer can be given
//! back its own log (threat 12). A folder of the private store, laid out as a
//! log's public one, with four objects more, `position`, `began`, `cosigned`, `fault`,
//! and one for each other mirror that was seen to cosign it, in `cosigned-by`.
//! `held-against/…` names the trees of forks that were filed, `withdrawn/…` the blobs
//! that the operator lets pass unseen.
//!
//! `memory/…` is what a new cosignature has to continue (`peers::memory`), and
//! `cosigned` what is shown to others of it. Earlier builds had `cosigned` alone:
//! it counts where it is larger.
//!
//! Only what was checked is written. `position` comes last and names what
//! counts; what is beyond it is written again.

use std::collections::HashMap;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::Error;
use crate::client::follow::{Page, Position};
use crate::dime::Timestamp;
use crate::log::reader::MAX_BLOB;
use crate::proof::Hash;
use crate::proof::checkpoint::{Checkpoint, SignedCheckpoint};
use crate::proof::merkle::{
    self, HashReader, Node, Unprovable, complete_nodes, root_from_leaves, subtree_hash,
};
use crate::proof::note::MAX_NOTE;
use crate::proof::tile::{
    BundleCoordinate, MAX_BUNDLE, MAX_TILE, Tile, TileCoordinate, WIDTH, decode_bundle,
    decode_bundle_prefix, encode_bundle, new_bundles, partial_tiles,
};
use crate::proof::tile_set::{TileSet, tiles_for_consistency, tiles_for_inclusions};
use crate::proof::wire::{Malformed, Reader, Writer};
use crate::store::{Blobs, keys};

const POSITION: &str = "position";
/// Leaves of the tree whose end was reached first, in decimal. It outlives `position`.
const BEGAN: &str = "began";
const COSIGNED: &str = "cosigned";
const FAULT: &str = "fault";
/// Longest `position` object, bytes.
const MAX_POSITION: u64 = 256 * 1024;
/// Longest `began` object, bytes.
const MAX_BEGAN: u64 = 32;
/// Longest `fault` object, bytes.
const MAX_FAULT: u64 = 64 * 1024;

/// How far a peer was followed.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    pub position: Position,
    /// The largest checkpoint that was accepted; its tree holds `position`.
    pub signed: Option<SignedCheckpoint>,
    /// Day, counted from 1970, and entries followed on it.
    pub day: u64,
    pub used: u64,
    /// The end was reached once: from then on the daily quota holds.
    pub caught_up: bool,
    /// In its map, to know at the next start what memory that takes.
    pub labels: u64,
    /// Index of the first entry of a format that was unknown, 0 for none. From it
    /// on entries were kept and hashed, and not judged: a version that knows the
    /// format follows the log anew.
    pub unjudged: u64,
    /// Bytes of blobs fetched on `day`.
    pub blob_bytes: u64,
}

/// The folder of one peer. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Archive {
    blobs: Blobs,
}

impl Archive {
    /// `private` is the mirror's own private store.
    pub fn new(private: &Blobs, origin: &str) -> Result<Archive, Error> {
        let folder = keys::peer(&Sha256::digest(origin.as_bytes()).into());
        Ok(Archive { blobs: private.below(&folder)? })
    }

    /// The objects themselves: the layout is that of a public store.
    pub fn blobs(&self) -> &Blobs {
        &self.blobs
    }

    /// How far it was followed; `None` at the first time.
    pub async fn kept(&self) -> Result<Option<Kept>, Error> {
        let Some(bytes) = self.blobs.get(POSITION, MAX_POSITION).await? else { return Ok(None) };
        Kept::decode(&bytes).map(Some).map_err(|fault| Error::Kept { what: fault.to_string() })
    }

    pub async fn keep(&self, kept: &Kept) -> Result<(), Error> {
        Ok(self.blobs.overwrite(POSITION, kept.encode().into()).await?)
    }

    /// Leaves that the log had when its end was reached for the first time; `None` if
    /// that was never. What came later has come since it is followed.
    pub async fn began(&self) -> Result<Option<u64>, Error> {
        let bytes = self.blobs.get(BEGAN, MAX_BEGAN).await?;
        Ok(bytes.and_then(|bytes| std::str::from_utf8(&bytes).ok()?.parse().ok()))
    }

    pub async fn keep_began(&self, size: u64) -> Result<(), Error> {
        Ok(self.blobs.overwrite(BEGAN, size.to_string().into()).await?)
    }

    /// Writes a page behind what is kept. `partial` holds the entries of the
    /// partial bundle before it, and after it those of the new one.
    pub async fn write(&self, page: &Page, partial: &mut Vec<Bytes>) -> Result<(), Error> {
        let width = u64::from(WIDTH);
        let (before, after) = (page.first, page.position.size());
        let start = before - before % width;
        let all: Vec<Bytes> = partial.iter().chain(&page.entries).cloned().collect();
        for at in new_bundles(before, after) {
            let from = (at.index * width - start) as usize;
            let part = all.get(from..from + usize::from(at.width)).unwrap_or_default();
            let bytes =
                encode_bundle(part).map_err(|error| Error::Kept { what: error.to_string() })?;
            self.blobs.overwrite(&at.path(), bytes.into()).await?;
        }
        for tile in &page.tiles {
            self.blobs.overwrite(&tile.at.path(), tile.bytes.clone().into()).await?;
        }
        let rest = (after % width) as usize;
        *partial = all.get(all.len() - rest..).unwrap_or_default().to_vec();
        Ok(())
    }

    /// Deletes partial tiles and bundles of a smaller tree.
    pub async fn prune(&self, before: u64, now: u64) -> Result<(), Error> {
        let kept = partial_tiles(now);
        for at in partial_tiles(before).into_iter().filter(|at| !kept.contains(at)) {
            self.blobs.delete(&at.path()).await?;
            if at.level == 0 {
                let bundle = BundleCoordinate { index: at.index, width: at.width };
                self.blobs.delete(&bundle.path()).await?;
            }
        }
        Ok(())
    }

    /// The entries of a bundle, of a tree of `size` leaves.
    pub async fn bundle(&self, index: u64, size: u64) -> Result<Vec<Bytes>, Error> {
        let first = index.saturating_mul(u64::from(WIDTH));
        let missing = || Error::Kept { what: format!("the entries from {first} on are missing") };
        let (at, _) = BundleCoordinate::of_entry(first, size).ok_or_else(missing)?;
        let full = BundleCoordinate { width: WIDTH, ..at };
        let limit = MAX_BUNDLE as u64;
        let bytes = match self.blobs.get(&at.path(), limit).await? {
            Some(bytes) => bytes,
            None => self.blobs.get(&full.path(), limit).await?.ok_or_else(missing)?,
        };
        let entries = decode_bundle(&bytes, at.width)
            .or_else(|_| decode_bundle_prefix(&bytes, at.width))
            .map_err(|rejection| Error::Kept { what: rejection.message })?;
        Ok(entries.into_iter().map(|entry| bytes.slice_ref(entry)).collect())
    }

    /// One entry of a tree of `size` leaves that was followed.
    pub async fn entry(&self, index: u64, size: u64) -> Result<Bytes, Error> {
        let width = u64::from(WIDTH);
        let bundle = self.bundle(index / width, size).await?;
        let missing = || Error::Kept { what: format!("entry {index} is missing") };
        bundle.get((index % width) as usize).cloned().ok_or_else(missing)
    }

    /// The root that the followed tree of `size` leaves had at `old` leaves.
    pub async fn root_at(&self, old: u64, size: u64) -> Result<Hash, Error> {
        let wrong = damaged::<Unprovable>;
        let mut tiles = Tiles { size, tiles: HashMap::new() };
        for node in complete_nodes(0, old) {
            let (at, ..) =
                TileCoordinate::of_node(node, size).ok_or(wrong(Unprovable::Missing(node)))?;
            if tiles.tiles.contains_key(&at) {
                continue;
            }
            let found = self.tile(at).await?;
            tiles.tiles.insert(at, found.ok_or(wrong(Unprovable::Missing(node)))?);
        }
        subtree_hash(&tiles, 0, old).map_err(wrong)
    }

    /// The same of a signed tree that was followed to its end, with the proof.
    ///
    /// # Errors
    /// [`Error::Kept`] where the tiles do not make the signed root.
    pub async fn consistency(
        &self,
        old: u64,
        tree: &Checkpoint,
    ) -> Result<(Hash, Vec<Hash>), Error> {
        let needed = tiles_for_consistency(old, tree.size).map_err(damaged)?;
        self.tiles(tree, needed, &[]).await?.consistency(old).map_err(damaged)
    }

    /// Proves leaves `start..end` in a signed tree. `new` are tiles that are not
    /// kept yet, of a page that reaches its end.
    ///
    /// # Errors
    /// [`Error::Kept`] where the tiles do not make the signed root.
    pub async fn inclusions(
        &self,
        start: u64,
        end: u64,
        tree: &Checkpoint,
        new: &[Tile],
    ) -> Result<Vec<Vec<Hash>>, Error> {
        let needed = tiles_for_inclusions(start, end, tree.size).map_err(damaged)?;
        self.tiles(tree, needed, new).await?.inclusions(start, end).map_err(damaged)
    }

    async fn tiles(
        &self,
        tree: &Checkpoint,
        needed: Vec<TileCoordinate>,
        new: &[Tile],
    ) -> Result<TileSet, Error> {
        let mut tiles: Vec<(TileCoordinate, Bytes)> = Vec::new();
        for at in needed {
            let fresh = new.iter().find(|tile| tile.at == at);
            let found = match fresh {
                Some(tile) => Some(Bytes::copy_from_slice(&tile.bytes)),
                None => self.tile(at).await?,
            };
            tiles.push((at, found.ok_or_else(|| damaged(format!("{at} is missing")))?));
        }
        TileSet::verified(tree.size, &tree.root, tiles)
            .map_err(|rejection| damaged(rejection.message))
    }

    /// A tile, or the full one in its place.
    async fn tile(&self, at: TileCoordinate) -> Result<Option<Bytes>, Error> {
        let limit = MAX_TILE as u64;
        match self.blobs.get(&at.path(), limit).await? {
            None => Ok(self.blobs.get(&at.full().path(), limit).await?),
            found => Ok(found),
        }
    }

    /// A tile or bundle by its path.
    pub async fn resource(&self, path: &str) -> Result<Option<Bytes>, Error> {
        Ok(self.blobs.get(path, MAX_BUNDLE.max(MAX_TILE) as u64).await?)
    }

    pub async fn blob(&self, sha256: &Hash) -> Result<Option<Bytes>, Error> {
        Ok(self.blobs.get(&keys::blob(sha256), MAX_BLOB).await?)
    }

    /// Keeps a blob whose hash was checked.
    pub async fn keep_blob(&self, sha256: &Hash, bytes: Bytes) -> Result<(), Error> {
        Ok(self.blobs.overwrite(&keys::blob(sha256), bytes).await?)
    }

    /// Whether the operator has said that this blob need not be seen.
    pub async fn is_passed_over(&self, sha256: &Hash) -> Result<bool, Error> {
        Ok(self.blobs.head(&keys::withdrawn(sha256)).await?.is_some())
    }

    /// The operator's word that the log may be followed without this blob, which its
    /// own operator withdrew.
    pub async fn pass_over(&self, sha256: &Hash) -> Result<(), Error> {
        Ok(self.blobs.overwrite(&keys::withdrawn(sha256), Bytes::new()).await?)
    }

    /// The last checkpoint that we cosigned, with both signatures. Of two processes
    /// on one store the slower may have put back an earlier one.
    pub async fn cosigned(&self) -> Result<Option<Bytes>, Error> {
        Ok(self.blobs.get(COSIGNED, MAX_NOTE as u64).await?)
    }

    /// Its size, 0 if there is none.
    pub async fn cosigned_size(&self) -> Result<u64, Error> {
        let note = self.cosigned().await?;
        let note = note.and_then(|note| SignedCheckpoint::parse(&note).ok());
        Ok(note.map_or(0, |note| note.checkpoint().size))
    }

    pub async fn keep_cosigned(&self, note: Bytes) -> Result<(), Error> {
        Ok(self.blobs.overwrite(COSIGNED, note).await?)
    }

    /// The last checkpoint that was seen with the cosignature of the key of this
    /// name: what its owner may have forgotten.
    pub async fn cosigned_by(&self, sha256_of_name: &Hash) -> Result<Option<Bytes>, Error> {
        Ok(self.blobs.get(&by(sha256_of_name), MAX_NOTE as u64).await?)
    }

    pub async fn keep_cosigned_by(&self, name: &str, note: Bytes) -> Result<(), Error> {
        let key = by(&Sha256::digest(name.as_bytes()).into());
        Ok(self.blobs.overwrite(&key, note).await?)
    }

    /// Why it is not cosigned any more, in words.
    pub async fn fault(&self) -> Result<Option<String>, Error> {
        let bytes = self.blobs.get(FAULT, MAX_FAULT).await?;
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    pub async fn keep_fault(&self, words: &str) -> Result<(), Error> {
        Ok(self.blobs.overwrite(FAULT, words.to_owned().into()).await?)
    }

    /// Whether this tree was part of a fork that was filed. When the operator has
    /// cleared that, it is no news that others were shown it.
    pub async fn is_held_against(&self, tree: &Checkpoint) -> Result<bool, Error> {
        Ok(self.blobs.head(&held_against(tree)).await?.is_some())
    }

    pub async fn hold_against(&self, tree: &Checkpoint) -> Result<(), Error> {
        Ok(self.blobs.overwrite(&held_against(tree), Bytes::new()).await?)
    }

    /// The operator's word that it may be followed again. Says whether there
    /// was a fault.
    pub async fn clear_fault(&self) -> Result<bool, Error> {
        let there = self.blobs.head(FAULT).await?.is_some();
        self.blobs.delete(FAULT).await?;
        Ok(there)
    }

    /// Begins anew: the next start follows from the first entry.
    pub async fn forget_position(&self) -> Result<(), Error> {
        Ok(self.blobs.delete(POSITION).await?)
    }
}

fn damaged<E: ToString>(what: E) -> Error {
    Error::Kept { what: what.to_string() }
}

fn held_against(tree: &Checkpoint) -> String {
    format!("held-against/{}-{}", keys::number(tree.size), hex::encode(tree.root))
}

fn by(sha256_of_name: &Hash) -> String {
    format!("cosigned-by/{}", hex::encode(sha256_of_name))
}

impl Kept {
    fn encode(&self) -> Vec<u8> {
        let signed = self.signed.as_ref().map(ToString::to_string).unwrap_or_default();
        let mut writer = Writer::new();
        writer
            .bytes(1, &self.position.encode())
            .bytes(2, signed.as_bytes())
            .uint(3, self.day)
            .uint(4, self.used)
            .uint(5, u64::from(self.caught_up))
            .uint(6, self.labels)
            .uint(7, self.unjudged)
            .uint(8, self.blob_bytes);
        writer.finish()
    }

    fn decode(bytes: &[u8]) -> Result<Kept, Malformed> {
        let mut reader = Reader::new(bytes);
        let position = Position::decode(reader.bytes(1)?)?;
        let signed = match reader.bytes(2)? {
            [] => None,
            note => {
                let signed = SignedCheckpoint::parse(note);
                Some(signed.map_err(|_| Malformed::Value(2, "not a checkpoint"))?)
            }
        };
        let (day, used, caught_up) = (reader.uint(3)?, reader.uint(4)?, reader.uint(5)? == 1);
        let (labels, unjudged, blob_bytes) = (reader.uint(6)?, reader.uint(7)?, reader.uint(8)?);
        reader.end()?;
        Ok(Kept { position, signed, day, used, caught_up, labels, unjudged, blob_bytes })
    }

    /// Entries that may still be followed on the day of `now`.
    pub fn allowance(&self, per_day: u64, now: Timestamp) -> u64 {
        self.left(self.used, per_day, now)
    }

    /// The same in bytes of blobs.
    pub fn blob_allowance(&self, per_day: u64, now: Timestamp) -> u64 {
        self.left(self.blob_bytes, per_day, now)
    }

    fn left(&self, used: u64, per_day: u64, now: Timestamp) -> u64 {
        match (self.caught_up, self.day == now.secs() / 86_400) {
            // The operator chose to follow it; the first time takes what it takes.
            (false, _) => u64::MAX,
            (true, false) => per_day,
            (true, true) => per_day.saturating_sub(used),
        }
    }

    /// Counts entries that were followed.
    pub fn count(&mut self, entries: u64, now: Timestamp) {
        self.turn(now);
        if self.caught_up {
            self.used += entries;
        }
    }

    /// Counts bytes of blobs that were fetched.
    pub fn count_blobs(&mut self, bytes: u64, now: Timestamp) {
        self.turn(now);
        if self.caught_up {
            self.blob_bytes = self.blob_bytes.saturating_add(bytes);
        }
    }

    fn turn(&mut self, now: Timestamp) {
        let day = now.secs() / 86_400;
        if self.day != day {
            (self.day, self.used, self.blob_bytes) = (day, 0, 0);
        }
    }
}

/// Tiles of a followed tree, checked when they were written.
struct Tiles {
    size: u64,
    tiles: HashMap<TileCoordinate, Bytes>,
}

impl HashReader for Tiles {
    fn node(&self, node: Node) -> Option<Hash> {
        let (at, first, count) = TileCoordinate::of_node(node, self.size)?;
        let hashes = at.hashes(self.tiles.get(&at)?).ok()?;
        Some(root_from_leaves(hashes.get(first..first + count)?))
    }
}

/// The empty tree's root, for a peer that was never cosigned.
pub fn nothing() -> (u64, Hash) {
    (0, merkle::empty_root())
}
