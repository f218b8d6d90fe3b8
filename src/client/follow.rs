//! A log followed from outside: what it signed is compared with what it signed
//! before, and every new entry is fetched, hashed, and must make the signed
//! root together with the entries before it.
//!
//! A [`LogSource`] fetches; nothing it brings is believed. [`LogSource::relate`]
//! says what one signed checkpoint is to another; [`LogSource::page`] brings the
//! next entries, checked against the signed root before they are given out, so
//! that a long way is gone in bounded steps. Replaying the entries is the
//! caller's (`proof::replay`), as is keeping the [`Position`].
//!
//! What a source serves wrongly without having signed it convicts nobody: that
//! is an [`Error`]. Only two signatures of the log that contradict each other
//! are a [`Fork`]. A smaller checkpoint that is a prefix is older, no more
//! (threat 28).

use std::future::Future;

use bytes::Bytes;
use futures::future::join_all;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};

use super::http::{HttpError, Site};
use crate::dime::Rejection;
use crate::proof::Hash;
use crate::proof::checkpoint::{Checkpoint, SignedCheckpoint};
use crate::proof::entry::{self, Blob};
use crate::proof::merkle::{self, leaf_hash};
use crate::proof::note::{MAX_NOTE, VerifierKey};
use crate::proof::tile::{
    BundleCoordinate, Edge, MAX_TILE, Tile, TileCoordinate, WIDTH, decode_bundle,
    decode_bundle_prefix, new_bundles, tile_at,
};
use crate::proof::tile_set::{TileSet, tiles_for_consistency, tiles_for_inclusions};
use crate::proof::wire::{Malformed, Reader, Writer};

/// Bundles of one [`Page`], at most: 16,384 entries, at most 34 MB.
pub const PAGE_BUNDLES: u64 = 64;
/// Largest blob that is fetched, bytes.
pub const MAX_BLOB: u64 = 4 << 20;
/// Requests to one log at one time.
const AT_ONCE: usize = 8;
/// Longest bundle, bytes: entries of ours are at most 2 KiB each.
const MAX_BUNDLE: usize = WIDTH as usize * (2 + entry::MAX_ENTRY);
/// Longest kept position, bytes.
const MAX_POSITION: usize = 128 * 1024;

/// Why a step was not made. None of these accuses the log.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("{url} answered with {status}")]
    Status { url: String, status: u16, retry_after: Option<u64> },
    /// Not a checkpoint, or not signed by this log.
    #[error("{url} has no checkpoint of this log: {rejection}")]
    Checkpoint { url: String, rejection: Rejection },
    /// Tiles or bundles that do not belong to the signed tree.
    #[error("{url} serves what is not in the tree that was signed: {what}")]
    Served { url: String, what: String },
}

/// What one signed checkpoint is to another one of the same log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Relation {
    /// The same tree.
    Same,
    /// The new one continues the held one.
    Newer,
    /// The new one is a prefix of the held one: no fault.
    Older,
    /// The log signed two histories.
    Fork(Box<Fork>),
}

/// Two signed checkpoints of one log that contradict each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fork {
    /// The one with fewer leaves, or the one that was held.
    pub smaller: SignedCheckpoint,
    pub larger: SignedCheckpoint,
    /// For different sizes: the root that the larger tree has at the smaller
    /// size, which is not that of `smaller`; its own root for equal sizes.
    pub prefix: Hash,
    /// Proves `prefix` in the larger tree. Empty for equal sizes.
    pub proof: Vec<Hash>,
}

impl Fork {
    /// Checks that the log's key signed both and that they cannot both be true.
    /// Rule `fork` if they can, `signature` or `merkle-proof` otherwise.
    pub fn verify(&self, key: &VerifierKey) -> Result<(), Rejection> {
        for signed in [&self.smaller, &self.larger] {
            check_signed(signed, key)?;
        }
        let (small, large) = (self.smaller.checkpoint(), self.larger.checkpoint());
        merkle::verify_consistency(small.size, large.size, &self.prefix, &large.root, &self.proof)?;
        match self.prefix == small.root {
            true => Err(Rejection::new("fork", "the two checkpoints agree")),
            false => Ok(()),
        }
    }
}

/// How far a log was followed: all that is needed to go on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position {
    edge: Edge,
}

impl Position {
    /// Before the first entry.
    pub fn new() -> Position {
        Position::default()
    }

    /// At an edge whose root the caller has checked.
    pub fn at(edge: Edge) -> Position {
        Position { edge }
    }

    /// Entries followed.
    pub fn size(&self) -> u64 {
        self.edge.size()
    }

    /// Root of the tree over them.
    pub fn root(&self) -> Hash {
        self.edge.root()
    }

    pub fn edge(&self) -> &Edge {
        &self.edge
    }

    /// To be kept; at most 128 KiB.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.uint(1, self.edge.size());
        for tile in self.edge.tiles() {
            writer.delimited(2, &tile.bytes);
        }
        writer.finish()
    }

    /// The inverse. Its root is whatever the bytes make: compare it.
    pub fn decode(bytes: &[u8]) -> Result<Position, Malformed> {
        let mut reader = Reader::limited(bytes, MAX_POSITION)?;
        let size = reader.uint(1)?;
        let mut tiles = Vec::new();
        while let Some(tile) = reader.delimited(2)? {
            tiles.push(tile);
        }
        reader.end()?;
        let mut tiles = tiles.into_iter();
        let edge = Edge::restore(size, |_| tiles.next());
        let edge = edge.map_err(|_| Malformed::Value(2, "its tiles do not fit its size"))?;
        Ok(Position { edge })
    }
}

/// Entries that are part of the signed tree.
#[derive(Clone, Debug)]
pub struct Page {
    /// Index of the first one.
    pub first: u64,
    pub entries: Vec<Bytes>,
    /// After them.
    pub position: Position,
    /// The tiles that are new with them.
    pub tiles: Vec<Tile>,
}

/// A blob that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// With the hash and length that were asked for.
    Here(Bytes),
    /// The operator no longer serves it (451).
    Withdrawn,
    /// Not there, or other bytes.
    Missing,
}

/// Where a log is fetched from. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LogSource {
    site: Site,
    key: VerifierKey,
}

impl LogSource {
    /// `url` is the log's prefix; `key` its own key, whose name is the origin.
    pub fn new(url: &str, key: VerifierKey) -> Result<LogSource, Error> {
        Ok(LogSource::at(Site::new(url)?, key))
    }

    /// The same at a place that is being asked already.
    pub fn at(site: Site, key: VerifierKey) -> LogSource {
        LogSource { site, key }
    }

    pub fn key(&self) -> &VerifierKey {
        &self.key
    }

    pub fn origin(&self) -> &str {
        self.key.name()
    }

    pub fn site(&self) -> &Site {
        &self.site
    }

    /// `GET /checkpoint`, with the log's signature checked.
    pub async fn checkpoint(&self) -> Result<SignedCheckpoint, Error> {
        let path = "checkpoint";
        let body = self.need(path, MAX_NOTE).await?;
        self.read_checkpoint(&body)
            .map_err(|rejection| Error::Checkpoint { url: self.site.at(path), rejection })
    }

    /// A checkpoint that came another way, the log's signature checked.
    pub fn read_checkpoint(&self, bytes: &[u8]) -> Result<SignedCheckpoint, Rejection> {
        let signed = SignedCheckpoint::parse(bytes)?;
        check_signed(&signed, &self.key)?;
        Ok(signed)
    }

    /// What `new` is to `held`; both carry the log's signature. Fetches the
    /// tiles that show it, from the larger tree.
    pub async fn relate(
        &self,
        held: &SignedCheckpoint,
        new: &SignedCheckpoint,
    ) -> Result<Relation, Error> {
        let (old, young) = (held.checkpoint(), new.checkpoint());
        if old.size == young.size {
            return Ok(match old.root == young.root {
                true => Relation::Same,
                false => fork(held, new, young.root, Vec::new()),
            });
        }
        let (smaller, larger) = if old.size < young.size { (held, new) } else { (new, held) };
        let (prefix, proof) = self.consistency(smaller.checkpoint(), larger.checkpoint()).await?;
        if prefix != smaller.checkpoint().root {
            return Ok(fork(smaller, larger, prefix, proof));
        }
        Ok(if old.size < young.size { Relation::Newer } else { Relation::Older })
    }

    /// The root that the larger tree has at the smaller size, and its proof.
    async fn consistency(
        &self,
        smaller: &Checkpoint,
        larger: &Checkpoint,
    ) -> Result<(Hash, Vec<Hash>), Error> {
        let needed = tiles_for_consistency(smaller.size, larger.size);
        let set = self.tiles(larger, needed.map_err(|error| self.served(error))?).await?;
        set.consistency(smaller.size).map_err(|error| self.served(error))
    }

    /// Proves leaves `start..end` in a signed tree, for evidence: fetches one
    /// tile for each 256 of them, and a few more.
    pub async fn inclusions(
        &self,
        start: u64,
        end: u64,
        tree: &Checkpoint,
    ) -> Result<Vec<Vec<Hash>>, Error> {
        let needed = tiles_for_inclusions(start, end, tree.size);
        let set = self.tiles(tree, needed.map_err(|error| self.served(error))?).await?;
        set.inclusions(start, end).map_err(|error| self.served(error))
    }

    /// The entry at `index` of a signed tree, for evidence. Not checked: its
    /// inclusion is.
    pub async fn entry(&self, index: u64, tree: &Checkpoint) -> Result<Bytes, Error> {
        let found = BundleCoordinate::of_entry(index, tree.size);
        let (at, place) = found.ok_or_else(|| self.served("too few entries"))?;
        let entries = self.bundle(at).await?;
        entries.into_iter().nth(place).ok_or_else(|| self.served("too few entries"))
    }

    /// The bundle of this number, as a signed tree has it. Not checked.
    pub async fn bundle_of(&self, number: u64, tree: &Checkpoint) -> Result<Vec<Bytes>, Error> {
        let first = number.saturating_mul(u64::from(WIDTH));
        let found = BundleCoordinate::of_entry(first, tree.size);
        let (at, _) = found.ok_or_else(|| self.served("too few entries"))?;
        self.bundle(at).await
    }

    /// Proves leaf `index` in a signed tree, for evidence.
    pub async fn inclusion(&self, index: u64, tree: &Checkpoint) -> Result<Vec<Hash>, Error> {
        let end = index.saturating_add(1);
        let path = self.inclusions(index, end, tree).await?.pop();
        path.ok_or_else(|| self.served("too few entries"))
    }

    /// The next entries from `position` on, at most [`PAGE_BUNDLES`] bundles, up
    /// to the size of `target`. They are in its tree, behind what was followed.
    ///
    /// `position` must be in that tree, which [`LogSource::relate`] said of the
    /// checkpoint that it was checked against.
    pub async fn page(
        &self,
        position: &Position,
        target: &SignedCheckpoint,
    ) -> Result<Page, Error> {
        let (first, target) = (position.size(), target.checkpoint());
        let width = u64::from(WIDTH);
        let end = (first / width).saturating_add(PAGE_BUNDLES).saturating_mul(width);
        let end = end.min(target.size).max(first);
        // As the signed tree has them: the last one is partial at its end only.
        let wanted = new_bundles(first, end).filter_map(|at| {
            let tile = tile_at(0, at.index, target.size)?;
            Some(BundleCoordinate { index: at.index, width: tile.width })
        });
        let fetches: Vec<_> = wanted.map(|at| self.bundle(at)).collect();
        let bundles: Vec<Vec<Bytes>> =
            stream::iter(fetches).buffered(AT_ONCE).try_collect().await?;
        let skip = (first % width) as usize;
        let count = (end - first) as usize;
        let entries: Vec<Bytes> = bundles.into_iter().flatten().skip(skip).take(count).collect();
        if entries.len() != count {
            return Err(self.served("too few entries"));
        }
        let leaves: Vec<Hash> = entries.iter().map(|entry| leaf_hash(entry)).collect();
        let (edge, tiles) = position.edge.integrate(&leaves);
        let expected = if end == target.size {
            target.root
        } else {
            let part = Checkpoint { size: end, ..target.clone() };
            self.consistency(&part, target).await?.0
        };
        if edge.root() != expected {
            return Err(self.served(format!("entries {first} to {end} do not make its root")));
        }
        Ok(Page { first, entries, position: Position { edge }, tiles })
    }

    /// Bytes that an entry names.
    pub async fn blob(&self, blob: &Blob) -> Result<Fetched, Error> {
        if blob.length > MAX_BLOB {
            return Ok(Fetched::Missing);
        }
        let path = format!("v1/blob/{}", hex::encode(blob.sha256));
        let answer = match self.site.get(&path, blob.length as usize).await {
            Err(HttpError::TooLarge { .. }) => return Ok(Fetched::Missing),
            other => other?,
        };
        match answer.status {
            200 if blob.names(&answer.body) => Ok(Fetched::Here(answer.body)),
            200 | 404 | 410 => Ok(Fetched::Missing),
            451 => Ok(Fetched::Withdrawn),
            _ => Err(self.status(&path, answer.status, answer.retry_after)),
        }
    }

    async fn tiles(
        &self,
        tree: &Checkpoint,
        needed: Vec<TileCoordinate>,
    ) -> Result<TileSet, Error> {
        let fetches: Vec<_> = needed.into_iter().map(|at| self.tile(at)).collect();
        let tiles: Vec<(TileCoordinate, Bytes)> =
            stream::iter(fetches).buffered(AT_ONCE).try_collect().await?;
        TileSet::verified(tree.size, &tree.root, tiles).map_err(|rejection| self.served(rejection))
    }

    /// A tile, or the full one in its place.
    async fn tile(&self, at: TileCoordinate) -> Result<(TileCoordinate, Bytes), Error> {
        if let Some(bytes) = self.find(&at.path(), MAX_TILE, at.is_full()).await? {
            return Ok((at, bytes));
        }
        Ok((at, self.need(&at.full().path(), MAX_TILE).await?))
    }

    /// The entries of a bundle, or the first ones of the full one in its place.
    async fn bundle(&self, at: BundleCoordinate) -> Result<Vec<Bytes>, Error> {
        let full = BundleCoordinate { width: WIDTH, ..at };
        let bytes = match self.find(&at.path(), MAX_BUNDLE, at == full).await? {
            Some(bytes) => bytes,
            None => self.need(&full.path(), MAX_BUNDLE).await?,
        };
        let entries = decode_bundle(&bytes, at.width)
            .or_else(|_| decode_bundle_prefix(&bytes, at.width))
            .map_err(|rejection| self.served(rejection))?;
        Ok(entries.into_iter().map(|entry| bytes.slice_ref(entry)).collect())
    }

    /// `None` for 404, unless it `must` be there.
    async fn find(&self, path: &str, limit: usize, must: bool) -> Result<Option<Bytes>, Error> {
        let answer = self.site.get(path, limit).await?;
        match answer.status {
            200 => Ok(Some(answer.body)),
            404 if !must => Ok(None),
            status => Err(self.status(path, status, answer.retry_after)),
        }
    }

    async fn need(&self, path: &str, limit: usize) -> Result<Bytes, Error> {
        let found = self.find(path, limit, true).await?;
        found.ok_or_else(|| self.status(path, 404, None))
    }

    fn status(&self, path: &str, status: u16, retry_after: Option<u64>) -> Error {
        Error::Status { url: self.site.at(path), status, retry_after }
    }

    fn served(&self, what: impl std::fmt::Display) -> Error {
        Error::Served { url: self.site.url().to_owned(), what: what.to_string() }
    }
}

/// The newest entry before `end` that is wanted, and its index, for evidence:
/// reads bundles backwards, at most `most` of them, eight at one time. Whether it
/// is in a tree is for its inclusion to say.
pub async fn newest_before<E, F>(
    end: u64,
    most: u64,
    bundle: impl Fn(u64) -> F,
    wanted: impl Fn(&[u8]) -> bool,
) -> Result<Option<(u64, Bytes)>, E>
where
    F: Future<Output = Result<Vec<Bytes>, E>>,
{
    let width = u64::from(WIDTH);
    let last = end.div_ceil(width);
    let numbers: Vec<u64> = (last.saturating_sub(most)..last).rev().collect();
    for numbers in numbers.chunks(AT_ONCE) {
        let fetches: Vec<F> = numbers.iter().map(|number| bundle(*number)).collect();
        for (number, entries) in numbers.iter().zip(join_all(fetches).await) {
            let entries = (number * width..end).zip(entries?);
            if let Some(found) = entries.filter(|(_, entry)| wanted(entry)).last() {
                return Ok(Some(found));
            }
        }
    }
    Ok(None)
}

fn fork(
    smaller: &SignedCheckpoint,
    larger: &SignedCheckpoint,
    prefix: Hash,
    proof: Vec<Hash>,
) -> Relation {
    Relation::Fork(Box::new(Fork {
        smaller: smaller.clone(),
        larger: larger.clone(),
        prefix,
        proof,
    }))
}

/// Whether the log of this key signed. Rule `unknown-log` for another origin or
/// no signature by it, `signature` for one that fails.
fn check_signed(signed: &SignedCheckpoint, key: &VerifierKey) -> Result<(), Rejection> {
    let origin = &signed.checkpoint().origin;
    let verified = signed.verify([key])?;
    match origin == key.name() && !verified.is_empty() {
        true => Ok(()),
        false => Err(Rejection::new("unknown-log", "this log has not signed it")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_newest_entry_is_found_in_as_many_bundles() {
        fn entry(index: u64) -> Bytes {
            index.to_string().into()
        }
        let found = |end: u64, most: u64, wanted: u64| async move {
            let bundle = |number: u64| async move {
                let first = number * 256;
                if first > 700 {
                    return Err("read for nothing");
                }
                Ok((first..first + 256).map(entry).collect::<Vec<_>>())
            };
            newest_before(end, most, bundle, |bytes| *bytes == entry(wanted)).await
        };
        assert_eq!(found(700, 9, 699).await, Ok(Some((699, entry(699)))));
        assert_eq!(found(700, 9, 0).await, Ok(Some((0, entry(0)))));
        assert_eq!(found(512, 9, 511).await, Ok(Some((511, entry(511)))));
        // Not before it, or too far back.
        assert_eq!(found(700, 9, 700).await, Ok(None));
        assert_eq!(found(700, 2, 255).await, Ok(None));
        assert_eq!(found(700, 2, 256).await, Ok(Some((256, entry(256)))));
        assert_eq!(found(0, 9, 0).await, Ok(None));
        assert_eq!(found(769, 9, 3).await, Err("read for nothing"));
    }

    #[test]
    fn a_position_comes_back_as_it_went() {
        for size in [0u64, 1, 255, 256, 257, 70_000] {
            let leaves: Vec<Hash> = (0..size).map(|n| leaf_hash(&n.to_be_bytes())).collect();
            let (edge, _) = Edge::new().integrate(&leaves);
            let position = Position::at(edge);
            assert_eq!(Position::decode(&position.encode()).unwrap(), position, "{size}");
        }
        assert!(Position::decode(&[8, 3]).is_err());
    }
}
