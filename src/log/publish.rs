//! From a commit to what everybody may read: tiles, bundles, the checkpoint.
//! All of it follows from commits alone, so it may be done again at any time,
//! by anyone with the log key, and gives the same bytes.

use bytes::Bytes;
use futures::stream::{StreamExt, TryStreamExt};

use super::Error;
use super::tip::Grown;
use crate::dime::Timestamp;
use crate::proof::checkpoint::Checkpoint;
use crate::proof::note::SigningKey;
use crate::store::{Blobs, keys};

/// Objects that are written at one time. A round writes a handful.
const AT_ONCE: usize = 16;

/// Writes blobs under their hashes. They must be durable before the commit
/// that names them.
pub async fn write_blobs(
    public: &Blobs,
    blobs: &[(crate::proof::Hash, Bytes)],
) -> Result<(), Error> {
    let writes = blobs.iter().map(|(hash, bytes)| public.put(keys::blob(hash), bytes.clone()));
    write_all(writes).await
}

/// Writes the tiles and bundles that a commit made.
pub async fn write_tiles(public: &Blobs, grown: &Grown) -> Result<(), Error> {
    let tiles = grown.tiles.iter().map(|tile| (tile.at.path(), Bytes::from(tile.bytes.clone())));
    let bundles = grown.bundles.iter().map(|(at, bytes)| (at.path(), bytes.clone()));
    write_all(tiles.chain(bundles).map(|(key, bytes)| public.put(key, bytes))).await
}

async fn write_all<W>(writes: impl Iterator<Item = W>) -> Result<(), Error>
where
    W: Future<Output = Result<(), crate::store::Error>>,
{
    let writes: Vec<W> = writes.collect();
    let mut done = futures::stream::iter(writes).buffer_unordered(AT_ONCE);
    while done.try_next().await?.is_some() {}
    Ok(())
}

/// The signed checkpoint of a tree. Ed25519 signatures are deterministic, so
/// this is the same note whenever and by whomever it is made.
pub fn checkpoint(
    key: &SigningKey,
    origin: &str,
    size: u64,
    root: [u8; 32],
) -> Result<Bytes, Error> {
    let refused = |rejection| Error::Foreign { what: format!("no checkpoint: {rejection}") };
    let signed = Checkpoint::new(origin, size, root)
        .and_then(|checkpoint| checkpoint.sign(key, Timestamp::default()))
        .map_err(refused)?;
    Ok(signed.to_string().into())
}
