//! What was cosigned last of one log: one line of trees for all processes that
//! share a store, whatever each of them has followed.
//!
//! `memory/<n>` in the peer's archive holds the n-th tree, counted from 0:
//!
//! ```text
//! <size> <root, hexadecimal>
//! ```
//!
//! The next one is made by put-if-absent, before the guard is moved and before
//! anything is signed. So of two that build on the same tree one is overtaken, and
//! reads again what its signature would have to continue.
//!
//! Every thousandth stays for ever, others go a thousand trees later. Whoever slept
//! that long may make one that was there before: then the next one that stays is
//! there, which says so.

use super::Error;
use super::archive::{Archive, nothing};
use crate::proof::Hash;
use crate::store::{Blobs, Claim, keys};

const FOLDER: &str = "memory";
/// Trees between two that stay, and the least number that are there.
const KEPT: u64 = 1000;
/// Longest object, bytes.
const MAX_TREE: u64 = 128;

/// The tree that was cosigned last, as far as one process knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Memory {
    /// Entries; 0 if none was cosigned.
    pub size: u64,
    pub root: Hash,
    /// Number of the tree after it.
    next: u64,
}

impl Memory {
    /// What the store says now.
    pub async fn read(archive: &Archive) -> Result<Memory, Error> {
        let blobs = archive.blobs();
        loop {
            let names = blobs.names(FOLDER).await?;
            let listed = names.iter().filter_map(|name| keys::parse_number(name)).max();
            let (size, root) = nothing();
            let mut newest = Memory { size, root, next: listed.unwrap_or(0) };
            // What has come since the listing.
            while let Some((size, root)) = tree(blobs, newest.next).await? {
                newest = Memory { size, root, next: newest.next + 1 };
            }
            // One that was listed may have gone since: then there are newer ones.
            if listed.is_none_or(|listed| newest.next > listed) {
                return Ok(newest);
            }
        }
    }

    /// Makes another tree the last one. `None` if this one is not the last any
    /// more: read again. The caller has checked that the new tree continues it.
    pub async fn followed_by(
        &self,
        archive: &Archive,
        size: u64,
        root: Hash,
    ) -> Result<Option<Memory>, Error> {
        let (blobs, n) = (archive.blobs(), self.next);
        let bytes = format!("{size} {}\n", hex::encode(root));
        let Claim::Won = blobs.claim(&key(n), bytes.into(), MAX_TREE).await? else {
            return Ok(None);
        };
        // Made anew after it had gone? It goes only when this one is there.
        let stays = n.next_multiple_of(KEPT);
        if stays != n && blobs.head(&key(stays)).await?.is_some() {
            return Ok(None);
        }
        if let Some(old) = n.checked_sub(KEPT)
            && old % KEPT != 0
        {
            // Left behind if this fails: small, and in nobody's way.
            let _ = blobs.delete(&key(old)).await;
        }
        Ok(Some(Memory { size, root, next: n + 1 }))
    }
}

fn key(n: u64) -> String {
    format!("{FOLDER}/{}", keys::number(n))
}

async fn tree(blobs: &Blobs, n: u64) -> Result<Option<(u64, Hash)>, Error> {
    let Some(bytes) = blobs.get(&key(n), MAX_TREE).await? else { return Ok(None) };
    let found = parse(&bytes).ok_or_else(|| Error::Kept { what: format!("{} is none", key(n)) });
    found.map(Some)
}

fn parse(bytes: &[u8]) -> Option<(u64, Hash)> {
    let (size, root) = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?.split_once(' ')?;
    let mut hash = [0; 32];
    hex::decode_to_slice(root, &mut hash).ok()?;
    Some((size.parse().ok()?, hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive() -> Archive {
        Archive::new(&Blobs::memory(), "peer.example").unwrap()
    }

    #[tokio::test]
    async fn of_two_that_build_on_one_tree_one_is_overtaken() {
        let archive = archive();
        let (one, other) =
            (Memory::read(&archive).await.unwrap(), Memory::read(&archive).await.unwrap());
        assert_eq!((one.size, one.root), nothing());
        let made = one.followed_by(&archive, 5, [5; 32]).await.unwrap().unwrap();
        assert_eq!(other.followed_by(&archive, 6, [6; 32]).await.unwrap(), None);
        assert_eq!(Memory::read(&archive).await.unwrap(), made);
        // The same tree twice is one tree.
        assert_eq!(other.followed_by(&archive, 5, [5; 32]).await.unwrap(), Some(made));
    }

    #[tokio::test]
    async fn whoever_sleeps_is_overtaken_also_when_the_rest_has_gone() {
        let archive = archive();
        let mut last = Memory::read(&archive).await.unwrap();
        let mut seen = vec![last.clone()];
        for size in 1..=2 * KEPT + 10 {
            last = last.followed_by(&archive, size, [1; 32]).await.unwrap().unwrap();
            seen.push(last.clone());
        }
        let there = archive.blobs().names(FOLDER).await.unwrap();
        assert_eq!(there.len() as u64, KEPT + 2, "and two that stay");
        for sleeper in &seen[..seen.len() - 1] {
            let woken = sleeper.followed_by(&archive, u64::MAX, [2; 32]).await.unwrap();
            assert_eq!(woken, None, "{sleeper:?}");
        }
        // What the sleepers have made misleads nobody, another sleeper neither.
        assert!(archive.blobs().names(FOLDER).await.unwrap().len() > there.len());
        let misled = Memory { size: u64::MAX, root: [2; 32], next: 6 };
        assert_eq!(misled.followed_by(&archive, u64::MAX, [3; 32]).await.unwrap(), None);
        assert_eq!(Memory::read(&archive).await.unwrap(), last);
        assert!(last.followed_by(&archive, 9999, [9; 32]).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn damage_is_not_absence() {
        let archive = archive();
        for damage in ["", "5", "5 00\n", "x 00\n"] {
            archive.blobs().overwrite(&key(0), damage.into()).await.unwrap();
            assert!(Memory::read(&archive).await.is_err(), "{damage:?}");
        }
    }
}
