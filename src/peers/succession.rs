//! A peer's log that took over from another one (threat 18).
//!
//! The replay has shown that the new log carries over the whole map that its
//! genesis entry promises. What is left is whether that map is the old log's
//! last one, and whether the old log named this successor: seen in what was
//! followed of the old log here. Where that is missing nobody is accused, and
//! nothing is cosigned.

use super::Error;
use super::archive::Archive;
use crate::proof::checkpoint::SignedCheckpoint;
use crate::proof::entry::{Entry, Genesis, Kind};
use crate::store::Blobs;

/// Whether the log of this genesis entry may be vouched for, as far as where it
/// comes from goes; in words why not yet.
///
/// # Errors
/// Our own archive.
pub(super) async fn check(
    private: &Blobs,
    genesis: &Genesis<'_>,
) -> Result<Result<(), String>, Error> {
    let Some(before) = &genesis.predecessor else { return Ok(Ok(())) };
    let no = |why: &str| Ok(Err(format!("it took over from {}, {why}", before.origin)));
    let archive = Archive::new(private, before.origin)?;
    let Some(kept) = archive.kept().await? else { return no("which is not followed here") };
    if archive.fault().await?.is_some() {
        return no("which broke a rule");
    }
    let (size, root) = (kept.position.size(), kept.position.root());
    let Ok(promised) = SignedCheckpoint::parse(before.checkpoint) else {
        return no("whose final checkpoint cannot be read");
    };
    let end = promised.checkpoint();
    if size < end.size {
        return no("which was not followed to its end yet");
    }
    if (size, root) != (end.size, end.root) || size < 2 {
        return no("which ends otherwise");
    }
    let (last, closing) =
        (archive.entry(size - 1, size).await?, archive.entry(size - 2, size).await?);
    let is_last = matches!(
        Entry::decode(&last).map(|entry| entry.kind),
        Ok(Kind::Root(root))
            if (root.root, root.labels) == (before.directory_root, before.labels)
    );
    if !is_last {
        return no("whose last map is another one");
    }
    match Entry::decode(&closing).map(|entry| entry.kind) {
        Ok(Kind::Closing(next))
            if next.origin == genesis.origin
                && next.log_key == genesis.log_key
                && next.vrf_key == genesis.vrf_key =>
        {
            Ok(Ok(()))
        }
        _ => no("which did not name it as its successor"),
    }
}
