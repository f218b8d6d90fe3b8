//! Reads a whole log and checks everything that can be checked: what an
//! operator runs after a fright, and what tests run after every step.
//!
//! It shares as little as it can with the writer: the plain map instead of the
//! directory, one frontier instead of growing tiles. All leaf hashes are in
//! memory, 32 bytes each.

use bytes::Bytes;

use super::Error;
use super::chain::Chain;
use crate::proof::Hash;
use crate::proof::checkpoint::SignedCheckpoint;
use crate::proof::entry::{Blob, Entry, Kind};
use crate::proof::map::PlainMap;
use crate::proof::merkle::{Frontier, leaf_hash};
use crate::proof::note::{MAX_NOTE, VerifierKey};
use crate::proof::replay::{Expected, Replayer, Stop};
use crate::proof::tile::{Edge, MAX_BUNDLE, MAX_TILE, encode_bundle, new_bundles};
use crate::store::{Store, keys};

/// Checkpoints that a listing may show.
const MAX_CHECKPOINTS: usize = 10_000_000;

/// A log in which everything fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Commits.
    pub commits: u64,
    /// Every entry, by index.
    pub entries: Vec<Bytes>,
    /// Root of the tree at the last commit.
    pub root: Hash,
    /// Sizes and roots of all checkpoints that are there, ascending; all are
    /// signed by the log and prefixes of one tree.
    pub checkpoints: Vec<(u64, Hash)>,
}

impl Checked {
    /// Whether this is a log that continues `earlier`: nothing was taken back.
    pub fn continues(&self, earlier: &Checked) -> bool {
        let published = earlier.checkpoints.last().map_or(0, |(size, _)| *size) as usize;
        self.entries.len() >= published && self.entries[..published] == earlier.entries[..published]
    }
}

/// Checks the log in a store: commits, batches and private records; entries by
/// every rule of the replay; all checkpoints; all tiles and bundles of the
/// largest one; every blob that an entry names.
///
/// `key` is the log's; `None` before the log was made.
pub async fn check(store: &Store, key: &VerifierKey) -> Result<Option<Checked>, Error> {
    let chain = Chain::new(store.private.clone());
    let Some((record, record_hash)) = chain.record().await? else { return Ok(None) };
    let Some(tail) = chain.tail(0).await? else { return Ok(None) };
    let log_key = record.log_key;
    let expected = Expected { origin: record.origin.clone(), log_key };
    let mut replayer = Replayer::new(expected);
    let mut map = PlainMap::new();
    let mut frontier = Frontier::new();
    let (mut entries, mut leaves, mut ends) = (Vec::new(), Vec::new(), Vec::new());
    let mut previous = record_hash;
    let mut steps = chain.steps(0, tail).await?;
    while let Some(step) = steps.next().await? {
        let commit = &step.commit;
        let n = commit.n;
        if commit.previous != previous {
            return Err(Error::broken(n, "it does not follow the commit before it"));
        }
        previous = step.hash;
        for entry in &step.batch.entries {
            replayer.push(&mut map, entry.clone()).map_err(|stop| match stop {
                Stop::Fault(fault) => Error::Rule { n, fault },
                Stop::Unknown(unknown) => Error::Unknown { n, unknown },
                Stop::Engine(never) => match never {},
            })?;
            leaves.push(leaf_hash(entry));
            frontier.push(leaf_hash(entry));
            entries.push(entry.clone());
        }
        if (commit.size, commit.root) != (frontier.size(), frontier.root()) {
            return Err(Error::broken(n, "size or root is not that of its entries"));
        }
        if commit.directory_root != map.root() || commit.time != replayer.position().time {
            return Err(Error::broken(n, "directory root or time is not that of its entries"));
        }
        chain.records(commit).await?;
        ends.push((commit.size, commit.root));
    }
    replayer.finish().map_err(|fault| Error::Rule { n: tail, fault })?;
    let checkpoints = check_checkpoints(store, key, &record.origin, &ends).await?;
    if let Some((size, _)) = checkpoints.last() {
        check_public(store, &entries[..*size as usize], &leaves[..*size as usize]).await?;
    }
    Ok(Some(Checked { commits: tail + 1, entries, root: frontier.root(), checkpoints }))
}

/// Every checkpoint is signed by the log and is the tree of some commit.
async fn check_checkpoints(
    store: &Store,
    key: &VerifierKey,
    origin: &str,
    ends: &[(u64, Hash)],
) -> Result<Vec<(u64, Hash)>, Error> {
    let mut found = Vec::new();
    for object in store.public.list_all("checkpoints", MAX_CHECKPOINTS).await? {
        let bytes = store.public.get(&object.key, MAX_NOTE as u64).await?.unwrap_or_default();
        let signed = SignedCheckpoint::parse(&bytes).map_err(Error::Tiles)?;
        signed.verify(std::slice::from_ref(key)).map_err(Error::Tiles)?;
        let checkpoint = signed.checkpoint();
        let tree = (checkpoint.size, checkpoint.root);
        if checkpoint.origin != origin || !ends.contains(&tree) {
            return Err(Error::broken(0, format!("{} is no tree of this log", object.key)));
        }
        if object.key.split('.').next() != Some(&keys::checkpoint(checkpoint.size)) {
            return Err(Error::broken(0, format!("{} is of another size", object.key)));
        }
        found.push(tree);
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// Tiles, bundles and blobs of the published tree.
async fn check_public(store: &Store, entries: &[Bytes], leaves: &[Hash]) -> Result<(), Error> {
    let public = &store.public;
    let wrong = |what: String| Err(Error::broken(0, what));
    for tile in Edge::new().integrate(leaves).1 {
        if public.get(&tile.at.path(), MAX_TILE as u64).await?.as_deref() != Some(&tile.bytes[..]) {
            return wrong(format!("{} is missing or has other bytes", tile.at));
        }
    }
    for at in new_bundles(0, entries.len() as u64) {
        let start = at.index as usize * 256;
        let part = &entries[start..start + usize::from(at.width)];
        let expected = encode_bundle(part).map_err(|e| Error::broken(0, e.to_string()))?;
        if public.get(&at.path(), MAX_BUNDLE as u64).await?.as_deref() != Some(&expected[..]) {
            return wrong(format!("{at} is missing or has other bytes"));
        }
    }
    for entry in entries {
        let Ok(Entry { kind: Kind::Domain(domain), .. }) = Entry::decode(entry) else { continue };
        for blob in [domain.record, domain.org_signet, domain.dnssec_chain].into_iter().flatten() {
            check_blob(store, &blob).await?;
        }
    }
    Ok(())
}

async fn check_blob(store: &Store, blob: &Blob) -> Result<(), Error> {
    let found = store.public.get(&keys::blob(&blob.sha256), blob.length).await?;
    let good = match found {
        Some(bytes) => blob.names(&bytes),
        None => store.public.head(&keys::withdrawn(&blob.sha256)).await?.is_some(),
    };
    if good {
        return Ok(());
    }
    Err(Error::broken(0, format!("blob {} is missing or another", hex::encode(blob.sha256))))
}
