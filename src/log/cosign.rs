//! Cosignatures of our own checkpoints: added as they come, kept before they
//! are shown, and counted for the publishing quorum.
//!
//! A checkpoint that is signed and not published, and the published one, are
//! open to more; older ones are not. Each writing is one object
//! `checkpoints/<size>.<k>` by put-if-absent, and holds all signatures of the
//! one before it, which goes then. Left out: asking for cosignatures, which is
//! the peers room's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Mutex as AsyncMutex, Notify};

use super::{Error, Head, Log};
use crate::proof::checkpoint::SignedCheckpoint;
use crate::proof::note::{MAX_NOTE, Signature, VerifierKey};
use crate::store::blobs::Created;
use crate::store::{Blobs, keys};

/// Writings of one size that are looked for behind the last one known here.
const TRIES: u32 = 100;

/// A cosignature with the key that it is said to be by.
#[derive(Clone, Debug)]
pub struct Cosignature {
    pub key: VerifierKey,
    pub signature: Signature,
    /// Whether it counts for the publishing quorum: not so for public witnesses.
    pub counts: bool,
}

/// The checkpoints that are open to cosignatures, by size: at most two.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    open: Mutex<BTreeMap<u64, Open>>,
    /// One writing at a time.
    writing: AsyncMutex<()>,
    news: Notify,
}

#[derive(Clone, Debug)]
struct Open {
    note: SignedCheckpoint,
    /// Number of the last writing, 0 for none.
    writing: u32,
    /// Names of the keys that count.
    counted: BTreeSet<String>,
}

impl Gathered {
    fn open(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The note of this size with all that was gathered.
    pub(super) fn note(&self, size: u64) -> Option<Bytes> {
        self.open().get(&size).map(|open| open.note.to_string().into())
    }

    fn counted(&self, size: u64) -> usize {
        self.open().get(&size).map_or(0, |open| open.counted.len())
    }

    /// Drops what is older than the published head.
    pub(super) fn published(&self, size: u64) {
        self.open().retain(|open, _| *open >= size);
    }
}

impl Log {
    /// Opens a signed checkpoint to cosignatures. After a restart, `look` for
    /// those that were written down before: that is a listing.
    pub(super) async fn open_to_cosigners(
        &self,
        size: u64,
        note: &Bytes,
        look: bool,
    ) -> Result<Bytes, Error> {
        let gathered = &self.0.gathered;
        if let Some(known) = gathered.note(size) {
            return Ok(known);
        }
        let parse = |bytes: &Bytes| SignedCheckpoint::parse(bytes);
        let own =
            parse(note).map_err(|rejection| Error::Foreign { what: rejection.to_string() })?;
        let mut open = Open { note: own, writing: 0, counted: BTreeSet::new() };
        if look
            && let Some((k, bytes)) = last_writing(&self.0.store.public, size).await?
            && let Ok(kept) = parse(&bytes)
            && kept.checkpoint() == open.note.checkpoint()
        {
            open = Open { note: kept, writing: k, ..open };
        }
        let bytes = open.note.to_string().into();
        gathered.open().insert(size, open);
        Ok(bytes)
    }

    /// Adds cosignatures to a checkpoint that is published or about to be, and
    /// writes them down before anybody sees them. Those that do not verify are
    /// left out. Gives how many were added; 0 also for a size that is no longer
    /// open.
    pub async fn cosign(&self, size: u64, cosignatures: &[Cosignature]) -> Result<usize, Error> {
        let gathered = &self.0.gathered;
        let _one = gathered.writing.lock().await;
        let Some(mut open) = gathered.open().get(&size).cloned() else { return Ok(0) };
        let mut added = 0;
        for Cosignature { key, signature, counts } in cosignatures {
            if open.note.add(key, signature.clone()).is_err() {
                continue;
            }
            added += 1;
            if *counts {
                open.counted.insert(key.name().to_owned());
            }
        }
        if added == 0 {
            return Ok(0);
        }
        // Killed here or after: the cosigners give theirs again when asked.
        let before = open.writing;
        open.writing = self.write_down(size, before, open.note.to_string().into()).await?;
        if let Some(known) = gathered.open().get_mut(&size) {
            *known = open;
        }
        self.0.heads.send_modify(|heads| {
            for head in [&mut heads.committed, &mut heads.published].into_iter().flatten() {
                if head.size == size && head.checkpoint.is_some() {
                    head.checkpoint = gathered.note(size);
                }
            }
        });
        gathered.news.notify_waiters();
        if before > 0 {
            self.0.store.public.delete(&keys::cosigned(size, before)).await?;
        }
        Ok(added)
    }

    async fn write_down(&self, size: u64, before: u32, note: Bytes) -> Result<u32, Error> {
        for k in before + 1..=before + TRIES {
            let key = keys::cosigned(size, k);
            // A retry that met its own first attempt only skips a number.
            if let Created::Created = self.0.store.public.put_if_absent(&key, note.clone()).await? {
                return Ok(k);
            }
        }
        Err(Error::Foreign { what: format!("somebody else cosigns size {size} without end") })
    }

    /// Waits until a signed checkpoint has as many cosignatures that count, or
    /// the time is up.
    pub(super) async fn gather(&self, size: u64, quorum: usize, deadline: Duration) {
        let gathered = &self.0.gathered;
        let enough = async {
            loop {
                let news = gathered.news.notified();
                tokio::pin!(news);
                news.as_mut().enable();
                if gathered.counted(size) >= quorum {
                    return;
                }
                news.await;
            }
        };
        let _ = tokio::time::timeout(deadline, enough).await;
    }

    /// The newest head that we have signed; it may not be published yet.
    pub fn signed(&self) -> Option<Head> {
        let heads = self.heads();
        heads.committed.filter(|head| head.checkpoint.is_some()).or(heads.published)
    }
}

/// The last writing with cosignatures of a size, and its number.
async fn last_writing(public: &Blobs, size: u64) -> Result<Option<(u32, Bytes)>, Error> {
    let mut last = None;
    for name in public.names("checkpoints").await? {
        if let Some((k, _)) = writing(&name).filter(|(_, of)| *of == size) {
            last = last.max(Some(k));
        }
    }
    let Some(k) = last else { return Ok(None) };
    let bytes = public.get(&keys::cosigned(size, k), MAX_NOTE as u64).await?;
    Ok(bytes.map(|bytes| (k, bytes)))
}

/// Number and size of a writing, from the last part of its key.
pub(super) fn writing(name: &str) -> Option<(u32, u64)> {
    let (size, k) = name.split_once('.')?;
    Some((k.parse().ok()?, keys::parse_number(size)?))
}
