//! Taking private records out of the truth when a mailbox is forgotten: first a
//! marker for each, then the bytes, wherever they lie. The entries stay, sealed.
//!
//! Markers come first, so that a crash in between leaves a record that is both
//! there and marked, and [`apply_markers`] finishes it at the next start. The
//! same undoes a backup that brought records back; for that, keep `erased/` out
//! of the backup.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::Error;
use super::chain::{Chain, broken};
use super::commit::{MAX_PAYLOAD_OBJECT, Payload, Records};
use crate::store::keys;

/// Markers that are read at a start.
const MAX_MARKERS: usize = 10_000_000;

/// Which private records: by commit, their numbers in it.
pub type Erased = BTreeMap<u64, BTreeSet<u32>>;

/// Erases private records for good. May be done again.
pub async fn erase(chain: &Chain, erased: &Erased) -> Result<(), Error> {
    for (n, records) in erased {
        for i in records {
            // Killed after: marked and still there; the next start goes on.
            chain.private().put(keys::erased(*n, *i), Bytes::new()).await?;
        }
        blank(chain, *n, records).await?;
    }
    Ok(())
}

/// Erases again whatever has a marker and is there.
pub async fn apply_markers(chain: &Chain, tail: Option<u64>) -> Result<(), Error> {
    let mut erased = Erased::new();
    for found in chain.private().list_all("erased", MAX_MARKERS).await? {
        let name = found.key.rsplit('/').next().unwrap_or_default();
        let Some((n, i)) = name.split_once('-') else { continue };
        if let (Some(n), Ok(i)) = (keys::parse_number(n), i.parse()) {
            erased.entry(n).or_default().insert(i);
        }
    }
    for (n, records) in erased {
        if tail.is_some_and(|tail| n <= tail) {
            blank(chain, n, &records).await?;
        }
    }
    Ok(())
}

/// Empties records in the payload object of a commit, and in that of its segment.
async fn blank(chain: &Chain, n: u64, records: &BTreeSet<u32>) -> Result<(), Error> {
    let batch = chain.at(n).await?.commit.batch;
    let private = chain.private();
    let own = keys::payload(n, &batch);
    if let Some(bytes) = private.get(&own, MAX_PAYLOAD_OBJECT).await?
        && let Some(emptied) = without(n, &bytes, records)?
    {
        private.overwrite(&own, emptied).await?;
    }
    let first = chain.segments().await?.into_iter().rfind(|first| *first <= n);
    if let Some(first) = first
        && let Some(merged) = chain.merged_records(first).await?
    {
        let mut changed = false;
        let mut payloads = Vec::with_capacity(merged.payloads.len());
        for bytes in merged.payloads {
            let emptied = without(n, &bytes, records)?;
            changed |= emptied.is_some();
            payloads.push(emptied.unwrap_or(bytes));
        }
        if changed {
            let merged = Records { first, payloads };
            private.overwrite(&keys::records(first), merged.encode()).await?;
        }
    }
    Ok(())
}

/// A payload without these records; `None` if it is another commit's, or they
/// are gone already.
fn without(n: u64, bytes: &Bytes, records: &BTreeSet<u32>) -> Result<Option<Bytes>, Error> {
    let mut payload = Payload::decode(bytes).map_err(broken(n, "a payload"))?;
    if payload.n != n {
        return Ok(None);
    }
    let mut changed = false;
    for i in records {
        if let Some(record) = payload.records.get_mut(*i as usize)
            && !record.is_empty()
        {
            *record = Bytes::new();
            changed = true;
        }
    }
    Ok(changed.then(|| payload.encode()))
}
