//! What owners asked for, in the private blobs: their word is written nowhere else,
//! and the index, which has the names too, may be lost with its newest rows (design
//! §5). After some days the copies of [`seen`](super::seen) have what is still looked
//! for.
//!
//! On disk: `registration/<hour>/<id>`, hour and id of the request, mailboxes one a
//! line.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::TryStreamExt as _;

use super::{Blobs, Error, keys};
use crate::dime::{Address, Name, Timestamp};

/// How long they are kept: a day's copy is missed now and then.
const KEPT_HOURS: u64 = 72;
/// Largest object, bytes: 65 names of at most 320.
const MAX: u64 = 32 << 10;

/// Registrations of owners.
#[derive(Debug)]
pub struct Registrations {
    private: Blobs,
    /// Those before this hour were deleted.
    pruned: AtomicU64,
}

impl Registrations {
    pub fn new(private: Blobs) -> Registrations {
        Registrations { private, pruned: AtomicU64::new(0) }
    }

    /// Keeps the mailboxes among the names; they are durable then.
    pub async fn keep(&self, id: &[u8; 32], time: Timestamp, names: &[Name]) -> Result<(), Error> {
        let hour = time.secs() / 3600;
        let lines: String =
            names.iter().filter_map(Name::address).map(|address| format!("{address}\n")).collect();
        if !lines.is_empty() {
            let key = keys::registration(hour, id);
            let _ = self.private.put_if_absent(&key, lines.into()).await?;
        }
        let before = hour.saturating_sub(KEPT_HOURS);
        if self.pruned.fetch_max(before, Ordering::Relaxed) < before {
            let floor = keys::registration(before, &[0; 32]);
            let mut old = self.private.list(keys::REGISTRATIONS);
            while let Some(found) = old.try_next().await? {
                if found.key < floor {
                    self.private.delete(&found.key).await?;
                }
            }
        }
        Ok(())
    }
}

/// The mailboxes of all that are kept.
pub async fn all(private: &Blobs) -> Result<Vec<Address>, Error> {
    let mut all = Vec::new();
    let mut listing = private.list(keys::REGISTRATIONS);
    while let Some(found) = listing.try_next().await? {
        let text = private.get(&found.key, MAX).await?.unwrap_or_default();
        all.extend(lines(&text).filter_map(address));
    }
    all.sort();
    all.dedup();
    Ok(all)
}

/// Takes mailboxes out of all of them.
pub async fn without(
    private: &Blobs,
    gone: &(dyn Fn(&Address) -> bool + Sync),
) -> Result<(), Error> {
    let mut listing = private.list(keys::REGISTRATIONS);
    while let Some(found) = listing.try_next().await? {
        let text = private.get(&found.key, MAX).await?.unwrap_or_default();
        let is_gone = |line: &[u8]| address(line).is_some_and(|address| gone(&address));
        if lines(&text).any(is_gone) {
            let kept: Vec<&[u8]> = lines(&text).filter(|line| !is_gone(line)).collect();
            match kept.is_empty() {
                true => private.delete(&found.key).await?,
                false => private.overwrite(&found.key, kept.join(&b'\n').into()).await?,
            }
        }
    }
    Ok(())
}

fn lines(text: &Bytes) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
}

fn address(line: &[u8]) -> Option<Address> {
    std::str::from_utf8(line).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_owners_asked_for_is_kept_for_days_and_erased_at_once() {
        let private = Blobs::memory();
        let keep = async |hour: u64, id: u8, names: &[&str]| {
            let names: Vec<Name> = names.iter().map(|name| name.parse().unwrap()).collect();
            // Each time as after a restart.
            let registrations = Registrations::new(private.clone());
            let time = Timestamp::from_secs(hour * 3600);
            registrations.keep(&[id; 32], time, &names).await.unwrap();
        };
        let kept = async || {
            let all = all(&private).await.unwrap();
            all.iter().map(Address::to_string).collect::<Vec<_>>()
        };
        keep(1000, 1, &["a.example", "x@a.example", "y@a.example"]).await;
        keep(1000, 2, &["z@b.example"]).await;
        keep(1000, 3, &["c.example"]).await;
        assert_eq!(kept().await, ["x@a.example", "y@a.example", "z@b.example"]);
        let gone = ["x@a.example", "z@b.example"];
        without(&private, &|address| gone.contains(&address.as_str())).await.unwrap();
        assert_eq!(kept().await, ["y@a.example"]);
        assert_eq!(private.list_all(keys::REGISTRATIONS, 9).await.unwrap().len(), 1);
        keep(1000 + KEPT_HOURS, 4, &["v@a.example"]).await;
        assert_eq!(kept().await, ["v@a.example", "y@a.example"]);
        keep(1001 + KEPT_HOURS, 5, &[]).await;
        assert_eq!(kept().await, ["v@a.example"]);
    }
}
