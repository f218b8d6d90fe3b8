//! Taking private records out of the truth when a mailbox is forgotten: first a
//! marker for each, then the bytes, wherever they lie. The entries stay, sealed.
//!
//! Markers come first, so that a crash in between leaves a record that is both
//! there and marked, and [`apply_markers`] finishes it at the next start. The
//! same undoes a backup that brought records back: every marker is also in
//! [`super::ledger`], which no backup holds.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::Error;
use super::chain::{Chain, broken};
use super::commit::{Commit, MAX_PAYLOAD_OBJECT, Payload, Records};
use super::ledger::Marks;
use crate::dime::{Address, Name};
use crate::proof::{Label, incident};
use crate::store::keys::{IncidentKey, Whom};
use crate::store::rows::{self, UserRow};
use crate::store::state::{Batch, REWRITE, Range, State, Table};
use crate::store::{Blobs, keys, registrations, seen};

/// Markers that are read at a start.
const MAX_MARKERS: usize = 10_000_000;
/// Largest incident that is looked at, bytes.
const MAX_INCIDENT: u64 = incident::MAX_INCIDENT as u64;
/// Rows of one scan or batch.
const PAGE: usize = 5_000;

/// Which private records: by commit, their numbers in it.
pub type Erased = BTreeMap<u64, BTreeSet<u32>>;

/// What goes with a FORGOTTEN entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gone {
    pub label: Label,
    /// Of the FORGOTTEN entry.
    pub version: u64,
    pub records: Erased,
}

/// Erases private records for good. May be done again.
pub async fn erase(chain: &Chain, gone: &Gone) -> Result<(), Error> {
    if let Some(ledger) = chain.ledger() {
        let labels = [(gone.label.0, gone.version)].into();
        ledger.add(Marks { records: gone.records.clone(), labels }).await?;
    }
    for (n, records) in &gone.records {
        for i in records {
            // Killed after: marked and still there; the next start goes on.
            chain.private().put(keys::erased(*n, *i), Bytes::new()).await?;
        }
        blank(chain, *n, records).await?;
    }
    Ok(())
}

/// Erases again whatever has a marker and is there, and makes store and ledger
/// know the same markers. Gives whether anything was there: then it came from a
/// backup, and the index and all else may hold it too.
pub async fn apply_markers(chain: &Chain, tail: Option<u64>) -> Result<bool, Error> {
    let mut erased = Erased::new();
    for found in chain.private().list_all("erased", MAX_MARKERS).await? {
        let name = found.key.rsplit('/').next().unwrap_or_default();
        let Some((n, i)) = name.split_once('-') else { continue };
        if let (Some(n), Ok(i)) = (keys::parse_number(n), i.parse()) {
            erased.entry(n).or_default().insert(i);
        }
    }
    if let Some(ledger) = chain.ledger() {
        for (n, records) in ledger.read().await?.records {
            for i in records {
                if erased.entry(n).or_default().insert(i) {
                    chain.private().put(keys::erased(n, i), Bytes::new()).await?;
                }
            }
        }
        ledger.add(Marks { records: erased.clone(), ..Marks::default() }).await?;
    }
    let mut found = false;
    for (n, records) in erased {
        if tail.is_some_and(|tail| n <= tail) {
            found |= blank(chain, n, &records).await?;
        }
    }
    Ok(found)
}

/// Deletes, outside the log, what is kept of mailboxes that are gone:
/// incidents, copies of when they were seen, and what batches that never were
/// committed hold.
pub async fn sweep_private(
    private: &Blobs,
    gone: &(dyn Fn(&Address) -> bool + Sync),
) -> Result<(), Error> {
    for found in private.list_all(keys::INCIDENTS, MAX_MARKERS).await? {
        let key = IncidentKey::parse(&found.key);
        if key.is_some_and(|key| !matches!(key.whom, Whom::Mailbox(_))) {
            continue;
        }
        let Some(bytes) = private.get(&found.key, MAX_INCIDENT).await? else { continue };
        let about = serde_json::from_slice::<About>(&bytes).ok().and_then(|about| about.name);
        if about.and_then(|about| about.parse().ok()).is_some_and(|about| gone(&about)) {
            private.delete(&found.key).await?;
        }
    }
    registrations::without(private, gone).await?;
    seen::without(private, gone).await?;
    Ok(())
}

/// Whom an incident is about; the rest of it is not looked at.
#[derive(serde::Deserialize)]
struct About {
    name: Option<String>,
}

/// Deletes what the crawl and comparisons keep of mailboxes that are gone, and have not come
/// back: rows that no entry of the log makes.
pub async fn sweep_rows(
    state: &dyn State,
    gone: &(dyn Fn(&Address) -> bool + Sync),
) -> Result<(), Error> {
    let mut batch = Batch::new();
    for table in [Table::Seen, Table::Frontier, Table::Quotas, Table::Comparisons] {
        let mut range = Range::all();
        loop {
            let page = state.scan(table, range.clone(), PAGE).await?;
            let Some((last, _)) = page.last() else { break };
            range = range.after(last);
            for (key, _) in page {
                let address = match table {
                    Table::Frontier => rows::user_of(&key),
                    _ => address(&key),
                };
                if let Some(address) = address
                    && rows::find::<UserRow>(state, &rows::user_key(&address)).await?.is_none()
                    && gone(&address)
                {
                    batch.delete(table, key);
                }
            }
        }
    }
    if !batch.is_empty() {
        batch.put(Table::Meta, REWRITE, "1");
    }
    for writes in batch.writes.chunks(PAGE) {
        let batch = Batch { writes: writes.to_vec(), ..Batch::new() };
        let _ = state.apply(batch).await?;
    }
    state.clear(Table::Cache).await?;
    Ok(())
}

/// The mailbox that a key is for; of comparisons the name is the first line.
fn address(key: &[u8]) -> Option<Address> {
    let name = key.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let name: Name = std::str::from_utf8(name).ok()?.parse().ok()?;
    name.address().cloned()
}

/// Deletes the payload of every batch that was meant for a commit up to `tail`
/// and lost to another one (threat 9: orphans). Merging would, much later.
pub async fn sweep_orphans(chain: &Chain, tail: u64) -> Result<(), Error> {
    let private = chain.private();
    for found in private.list_all("payload", MAX_MARKERS).await? {
        let name = found.key.rsplit('/').next().unwrap_or_default();
        let number = name.split_once('-').and_then(|(n, _)| keys::parse_number(n));
        let Some(n) = number.filter(|n| *n <= tail) else { continue };
        let batch = match chain.commit_bytes(n).await? {
            Some(bytes) => Commit::decode(&bytes).map_err(broken(n, "the commit"))?.batch,
            None => chain.at(n).await?.commit.batch,
        };
        if found.key != keys::payload(n, &batch) {
            private.delete(&found.key).await?;
        }
    }
    Ok(())
}

/// Empties records in the payload object of a commit, and in that of its
/// segment; `false` if they were empty.
async fn blank(chain: &Chain, n: u64, records: &BTreeSet<u32>) -> Result<bool, Error> {
    let mut found = false;
    let batch = chain.at(n).await?.commit.batch;
    let private = chain.private();
    let own = keys::payload(n, &batch);
    if let Some(bytes) = private.get(&own, MAX_PAYLOAD_OBJECT).await?
        && let Some(emptied) = without(n, &bytes, records)?
    {
        private.overwrite(&own, emptied).await?;
        found = true;
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
            found = true;
        }
    }
    Ok(found)
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
