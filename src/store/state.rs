//! The index and queue: what can be rebuilt from [`super::Blobs`], kept where
//! it is found quickly.
//!
//! Drawn so that one PostgreSQL transaction can do each operation. Left out:
//! what rows mean (see [`super::rows`]).

use async_trait::async_trait;

use super::Error;

/// The tables. One byte string is the key, one the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Table {
    /// How far the index has come. Key: a word.
    Meta,
    /// Domain name -> [`super::rows::DomainRow`].
    Domains,
    /// `domain NUL local` -> [`super::rows::UserRow`], so that a domain's users are one scan.
    Users,
    /// Label and version -> [`super::rows::Place`].
    Places,
    /// Label -> [`super::rows::Labelled`].
    Labels,
    /// SHA-256 -> a user's signet as received.
    Signets,
    /// Domain, or `domain NUL local` -> [`super::rows::FrontierRow`], so that a
    /// domain with its mailboxes is one scan.
    Frontier,
    /// Name -> [`super::rows::SeenRow`].
    Seen,
    /// Peers' progress; key and value are the peers room's.
    Peers,
    /// Anything that may vanish at any time.
    Cache,
    /// Name -> [`super::rows::QuotaRow`].
    Quotas,
    /// Name LF a peer's origin -> a comparison that goes on; the peers room's.
    Comparisons,
    /// Label -> [`super::rows::CarriedRow`].
    Carried,
    /// When a watched domain is due, 8 bytes of milliseconds, and its name -> nothing:
    /// who is next is one scan. Made by [`Batch::frontier`](super::state::Batch::frontier).
    Due,
}

impl Table {
    /// All tables, in the order of their declaration.
    pub const ALL: [Table; 14] = [
        Table::Meta,
        Table::Domains,
        Table::Users,
        Table::Places,
        Table::Labels,
        Table::Signets,
        Table::Frontier,
        Table::Seen,
        Table::Peers,
        Table::Cache,
        Table::Quotas,
        Table::Comparisons,
        Table::Carried,
        Table::Due,
    ];

    /// Those that [`rows`](super::rows) of the log are in: emptied before a rebuild.
    pub const OF_THE_LOG: [Table; 7] = [
        Table::Meta,
        Table::Domains,
        Table::Users,
        Table::Places,
        Table::Labels,
        Table::Signets,
        Table::Carried,
    ];

    /// Its name on disk and in SQL.
    pub fn name(self) -> &'static str {
        match self {
            Table::Meta => "meta",
            Table::Domains => "domains",
            Table::Users => "users",
            Table::Places => "places",
            Table::Labels => "labels",
            Table::Signets => "signets",
            Table::Frontier => "frontier",
            Table::Seen => "seen",
            Table::Peers => "peers",
            Table::Cache => "cache",
            Table::Quotas => "quotas",
            Table::Comparisons => "comparisons",
            Table::Carried => "carried",
            Table::Due => "due",
        }
    }
}

/// Row of [`Table::Meta`] that says that rows were erased for good: the engine's
/// files still hold their bytes, and are to be written anew before the next use.
pub const REWRITE: &[u8] = b"rewrite";

/// Longest key, bytes.
pub const MAX_KEY: usize = 512;
/// Largest value, bytes.
pub const MAX_VALUE: usize = 1 << 20;
/// Most rows that one scan returns.
pub const MAX_SCAN: usize = 10_000;
/// Most writes and expectations in one batch.
pub const MAX_BATCH: usize = 20_000;

/// Writes that happen together or not at all, and what must hold for them to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// In order; a later write of the same row wins. `None` deletes.
    pub writes: Vec<(Table, Vec<u8>, Option<Vec<u8>>)>,
    /// Rows as they must be before the first write. `None`: absent.
    pub expectations: Vec<(Table, Vec<u8>, Option<Vec<u8>>)>,
}

impl Batch {
    pub fn new() -> Batch {
        Batch::default()
    }

    pub fn put(&mut self, table: Table, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.writes.push((table, key.into(), Some(value.into())));
    }

    pub fn delete(&mut self, table: Table, key: impl Into<Vec<u8>>) {
        self.writes.push((table, key.into(), None));
    }

    /// Requires that the row is exactly `value`; `None`: that there is none.
    pub fn expect(&mut self, table: Table, key: impl Into<Vec<u8>>, value: Option<Vec<u8>>) {
        self.expectations.push((table, key.into(), value));
    }

    pub fn is_empty(&self) -> bool {
        self.writes.is_empty() && self.expectations.is_empty()
    }
}

/// Whether a batch took place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Applied {
    /// All writes are visible to every later read.
    Applied,
    /// An expectation did not hold; nothing was written.
    Conflict,
}

/// A key range: from `start` (inclusive) to `end` (exclusive; `None`: no end).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    pub start: Vec<u8>,
    pub end: Option<Vec<u8>>,
}

impl Range {
    /// All keys.
    pub fn all() -> Range {
        Range { start: Vec::new(), end: None }
    }

    /// All keys that begin with `prefix`.
    pub fn prefix(prefix: &[u8]) -> Range {
        let mut end = prefix.to_vec();
        while let Some(last) = end.pop() {
            if last < 0xff {
                end.push(last + 1);
                return Range { start: prefix.to_vec(), end: Some(end) };
            }
        }
        Range { start: prefix.to_vec(), end: None }
    }

    /// This range, beginning just after `key`: the next page of a scan.
    pub fn after(mut self, key: &[u8]) -> Range {
        self.start = key.to_vec();
        self.start.push(0);
        self
    }
}

/// One row of a scan: key and value.
pub type Row = (Vec<u8>, Vec<u8>);

/// An engine that keeps the index.
///
/// * Durability: none is promised until [`State::flush`] returned, and none is
///   relied on: whatever is lost is rebuilt from `Blobs`.
/// * Consistency: [`State::apply`] is atomic over all tables and isolated: no
///   read sees half a batch. A read sees every batch that was applied before it began.
/// * Concurrency: any number of tasks; within one process for the embedded
///   engine, from many for PostgreSQL.
///
/// Keys are at most [`MAX_KEY`], values at most [`MAX_VALUE`] bytes.
#[async_trait]
pub trait State: Send + Sync {
    /// The value of one row.
    async fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, Error>;

    /// At most `limit` (at most [`MAX_SCAN`]) rows of the range, ascending by
    /// the bytes of their keys. Ask again with [`Range::after`] for more; two
    /// pages are two reads, not one.
    async fn scan(&self, table: Table, range: Range, limit: usize) -> Result<Vec<Row>, Error>;

    /// Checks the expectations and does the writes, all or none.
    async fn apply(&self, batch: Batch) -> Result<Applied, Error>;

    /// Whether another process may have it open too: only then are leases of
    /// any use.
    fn is_shared(&self) -> bool {
        true
    }

    /// Asks the engine to write out what was applied.
    async fn flush(&self) -> Result<(), Error>;

    /// Deletes all rows of a table, not atomically.
    async fn clear(&self, table: Table) -> Result<(), Error> {
        loop {
            let rows = self.scan(table, Range::all(), 1000).await?;
            if rows.is_empty() {
                return Ok(());
            }
            let mut batch = Batch::new();
            for (key, _) in rows {
                batch.delete(table, key);
            }
            let _ = self.apply(batch).await?;
        }
    }
}

/// Refuses keys, values and batches over the limits, before an engine sees them.
pub(super) fn check_batch(batch: &Batch) -> Result<(), Error> {
    let too_big = |what: &str| Error::State { doing: "write to", source: what.into() };
    if batch.writes.len() + batch.expectations.len() > MAX_BATCH {
        return Err(too_big("a batch has more than 20,000 writes and expectations"));
    }
    for (_, key, value) in batch.writes.iter().chain(&batch.expectations) {
        if key.len() > MAX_KEY {
            return Err(too_big("a key is longer than 512 bytes"));
        }
        if value.as_ref().is_some_and(|value| value.len() > MAX_VALUE) {
            return Err(too_big("a value is larger than 1 MiB"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_where_it_should() {
        assert_eq!(Range::prefix(b"ab").end, Some(b"ac".to_vec()));
        assert_eq!(Range::prefix(&[1, 0xff]).end, Some(vec![2]));
        assert_eq!(Range::prefix(&[0xff]).end, None);
        assert_eq!(Range::prefix(b"").end, None);
        assert_eq!(Range::all().after(b"k").start, b"k\0");
    }
}
