//! The sequence of commits as it lies in the private blobs: finding its end,
//! reading it in order.
//!
//! Left out: whether what is read is right, which `log::tip` decides.

use std::collections::VecDeque;

use bytes::Bytes;

use super::Error;
use super::commit::{
    Batch, Commit, Floor, LogRecord, MAX_BATCH, MAX_COMMIT, MAX_PAYLOAD_OBJECT, MAX_SEGMENT,
    MAX_SMALL, Payload, Records, Segment, sha256,
};
use super::ledger::Ledger;
use crate::proof::Hash;
use crate::proof::wire::Malformed;
use crate::store::{Blobs, keys};

/// Commits that are fetched ahead of the one being replayed.
const AHEAD: u64 = 16;

/// A commit with the batch that it names.
#[derive(Clone, Debug)]
pub struct Step {
    pub commit: Commit,
    /// The commit's bytes, and their SHA-256.
    pub bytes: Bytes,
    pub hash: Hash,
    /// The batch's bytes; their SHA-256 is what the commit names.
    pub batch_bytes: Bytes,
    pub batch: Batch,
}

/// Reads the commits of one log.
#[derive(Clone, Debug)]
pub struct Chain {
    private: Blobs,
    ledger: Option<Ledger>,
}

impl Step {
    /// Decodes a commit and its batch, which must belong together.
    pub fn read(n: u64, bytes: Bytes, batch_bytes: Bytes) -> Result<Step, Error> {
        let commit = Commit::decode(&bytes).map_err(broken(n, "the commit"))?;
        let batch = Batch::decode(&batch_bytes).map_err(broken(n, "the batch"))?;
        if sha256(&batch_bytes) != commit.batch {
            return Err(Error::broken(n, "the batch has not the hash that the commit names"));
        }
        if commit.n != n || batch.n != n || batch.previous != commit.previous {
            return Err(Error::broken(n, "commit and batch are meant for another place"));
        }
        let hash = sha256(&bytes);
        Ok(Step { commit, bytes, hash, batch_bytes, batch })
    }
}

impl Chain {
    pub fn new(private: Blobs) -> Chain {
        Chain { private, ledger: None }
    }

    /// The same, with the list of what was erased that backups do not hold.
    pub fn with_ledger(self, ledger: Ledger) -> Chain {
        Chain { ledger: Some(ledger), ..self }
    }

    pub fn ledger(&self) -> Option<&Ledger> {
        self.ledger.as_ref()
    }

    pub fn private(&self) -> &Blobs {
        &self.private
    }

    /// The log's own record with its SHA-256; `None` before the log was made.
    pub async fn record(&self) -> Result<Option<(LogRecord, Hash)>, Error> {
        let Some(bytes) = self.private.get(keys::LOG, MAX_SMALL).await? else { return Ok(None) };
        let record = LogRecord::decode(&bytes)
            .map_err(|fault| Error::broken(0, format!("the log record: {fault}")))?;
        Ok(Some((record, sha256(&bytes))))
    }

    /// Where the commits that are objects of their own begin. One listing.
    pub async fn floor(&self) -> Result<u64, Error> {
        Ok(self.floors().await?.last().copied().unwrap_or(0))
    }

    async fn floors(&self) -> Result<Vec<u64>, Error> {
        let names = self.private.names("floor").await?;
        Ok(names.iter().filter_map(|name| keys::parse_number(name)).collect())
    }

    /// The hash that the commit at a floor must build on.
    pub async fn below_floor(&self, n: u64) -> Result<Option<Hash>, Error> {
        let Some(bytes) = self.private.get(&keys::floor(n), MAX_SMALL).await? else {
            return Ok(None);
        };
        Ok(Some(Floor::decode(&bytes).map_err(broken(n, "the floor"))?.previous))
    }

    /// Whether commit `n` is an object of its own.
    pub async fn exists(&self, n: u64) -> Result<bool, Error> {
        Ok(self.private.head(&keys::commit(n)).await?.is_some())
    }

    /// The last commit, found by doubling and halving from `hint` on; `None` if
    /// there is none. `hint` is any number: a wrong one costs a few looks more.
    pub async fn tail(&self, hint: u64) -> Result<Option<u64>, Error> {
        let floor = self.floor().await?;
        let start = hint.max(floor);
        let mut known = if self.exists(start).await? {
            start
        } else if start > floor && self.exists(floor).await? {
            floor
        } else {
            // At the floor itself nothing may have been committed since.
            return Ok(floor.checked_sub(1));
        };
        let mut step = 1u64;
        let mut missing = loop {
            let next = known.saturating_add(step);
            if !self.exists(next).await? {
                break next;
            }
            known = next;
            step = step.saturating_mul(2);
        };
        while missing - known > 1 {
            let middle = known + (missing - known) / 2;
            if self.exists(middle).await? { known = middle } else { missing = middle }
        }
        Ok(Some(known))
    }

    /// The bytes of commit `n`, if it is an object of its own.
    pub async fn commit_bytes(&self, n: u64) -> Result<Option<Bytes>, Error> {
        Ok(self.private.get(&keys::commit(n), MAX_COMMIT).await?)
    }

    /// Commit `n` with its batch, if it is an object of its own.
    pub async fn step(&self, n: u64) -> Result<Option<Step>, Error> {
        let Some(bytes) = self.commit_bytes(n).await? else { return Ok(None) };
        let commit = Commit::decode(&bytes).map_err(broken(n, "the commit"))?;
        let batch = self.private.get(&keys::batch(&commit.batch), MAX_BATCH).await?;
        match batch {
            Some(batch) => Step::read(n, bytes, batch).map(Some),
            None if self.floor().await? > n => Err(Error::Moved { n }),
            None => Err(Error::broken(n, "the batch is missing")),
        }
    }

    /// First commits of all segments, ascending.
    pub async fn segments(&self) -> Result<Vec<u64>, Error> {
        let names = self.private.names("segment").await?;
        Ok(names.iter().filter_map(|name| keys::parse_number(name)).collect())
    }

    /// The segment that begins with commit `first`.
    pub async fn segment(&self, first: u64) -> Result<Segment, Error> {
        let bytes = self.private.get(&keys::segment(first), MAX_SEGMENT).await?;
        let bytes = bytes.ok_or_else(|| Error::broken(first, "its segment is missing"))?;
        let segment = Segment::decode(&bytes).map_err(broken(first, "the segment"))?;
        if segment.first != first || segment.steps.is_empty() {
            return Err(Error::broken(first, "the segment is meant for another place"));
        }
        Ok(segment)
    }

    /// The commits `from` to `to` (inclusive), to be read in order, from
    /// segments and objects alike. Every one must be there.
    pub async fn steps(&self, from: u64, to: u64) -> Result<Steps<'_>, Error> {
        let floor = self.floor().await?;
        let segments = if from < floor { self.segments_below(floor).await? } else { Vec::new() };
        Ok(Steps { chain: self, next: from, to, floor, segments, ready: VecDeque::new() })
    }

    /// Commit `n`, which must be there.
    pub async fn at(&self, n: u64) -> Result<Step, Error> {
        self.steps(n, n).await?.next().await?.ok_or(Error::Moved { n })
    }

    /// Commit `n` from its own object, at or above the floor.
    async fn needed(&self, n: u64) -> Result<Step, Error> {
        match self.step(n).await? {
            Some(step) => Ok(step),
            None if self.floor().await? > n => Err(Error::Moved { n }),
            None => Err(Error::broken(n, "it is missing")),
        }
    }

    /// Each segment with the number after its last commit.
    async fn segments_below(&self, floor: u64) -> Result<Vec<(u64, u64)>, Error> {
        let firsts: Vec<u64> =
            self.segments().await?.into_iter().filter(|first| *first < floor).collect();
        let ends = firsts.iter().skip(1).copied().chain([floor]);
        Ok(firsts.iter().copied().zip(ends).collect())
    }

    /// The private records of a commit that has some: from its own payload
    /// object, else from its segment's. Each is checked against the commit;
    /// `None` is one that was erased, which a marker must say.
    pub async fn records(&self, commit: &Commit) -> Result<Vec<Option<Bytes>>, Error> {
        if commit.records.is_empty() {
            return Ok(Vec::new());
        }
        let n = commit.n;
        let payload = match self.payload(commit).await? {
            Some(payload) => payload,
            None => Payload { n, records: Vec::new() },
        };
        let mut records = Vec::with_capacity(commit.records.len());
        for (i, expected) in (0u32..).zip(&commit.records) {
            match payload.records.get(i as usize) {
                Some(bytes) if sha256(bytes) == *expected => records.push(Some(bytes.clone())),
                Some(bytes) if !bytes.is_empty() => {
                    return Err(Error::broken(n, format!("private record {i} has another hash")));
                }
                // Empty, or the object is gone: legal only if it was erased.
                _ if self.private.head(&keys::erased(n, i)).await?.is_some() => records.push(None),
                _ => return Err(Error::broken(n, format!("private record {i} is missing"))),
            }
        }
        Ok(records)
    }

    async fn payload(&self, commit: &Commit) -> Result<Option<Payload>, Error> {
        let n = commit.n;
        let own = keys::payload(n, &commit.batch);
        let mut bytes = self.private.get(&own, MAX_PAYLOAD_OBJECT).await?;
        if bytes.is_none()
            && let Some(first) = self.segments().await?.into_iter().rfind(|first| *first <= n)
            && let Some(merged) = self.merged_records(first).await?
        {
            bytes = merged
                .payloads
                .into_iter()
                .find(|bytes| Payload::decode(bytes).is_ok_and(|payload| payload.n == n));
        }
        let Some(bytes) = bytes else { return Ok(None) };
        let payload = Payload::decode(&bytes).map_err(broken(n, "the payload"))?;
        if payload.n != n || payload.records.len() != commit.records.len() {
            return Err(Error::broken(n, "the payload is meant for another place"));
        }
        Ok(Some(payload))
    }

    /// The payloads of the segment that begins with commit `first`.
    pub async fn merged_records(&self, first: u64) -> Result<Option<Records>, Error> {
        let limit = MAX_SEGMENT + MAX_PAYLOAD_OBJECT;
        let Some(bytes) = self.private.get(&keys::records(first), limit).await? else {
            return Ok(None);
        };
        Records::decode(&bytes).map(Some).map_err(broken(first, "the merged payloads"))
    }
}

/// A stretch of the log that is being read.
pub struct Steps<'a> {
    chain: &'a Chain,
    next: u64,
    to: u64,
    floor: u64,
    /// First commit of each segment, and the number after its last.
    segments: Vec<(u64, u64)>,
    ready: VecDeque<Step>,
}

impl Steps<'_> {
    /// The next commit; `None` past the last.
    pub async fn next(&mut self) -> Result<Option<Step>, Error> {
        if self.ready.is_empty() && self.next <= self.to {
            self.load().await?;
        }
        Ok(self.ready.pop_front())
    }

    async fn load(&mut self) -> Result<(), Error> {
        let n = self.next;
        if n >= self.floor {
            let last = self.to.min(n.saturating_add(AHEAD - 1));
            let fetched = (n..=last).map(|n| self.chain.needed(n));
            self.ready.extend(futures::future::try_join_all(fetched).await?);
            self.next = last + 1;
            return Ok(());
        }
        let held = self.segments.iter().find(|(first, end)| *first <= n && n < *end);
        let missing = || Error::broken(n, "it is below the floor and in no segment");
        let (first, end) = held.copied().ok_or_else(missing)?;
        let steps = self.chain.segment(first).await?.steps;
        for (n, (commit, batch)) in (first..end).zip(steps) {
            if n == self.next && n <= self.to {
                self.ready.push_back(Step::read(n, commit, batch)?);
                self.next += 1;
            }
        }
        if self.ready.is_empty() { Err(missing()) } else { Ok(()) }
    }
}

/// Says which part of commit `n` is damaged.
pub(super) fn broken(n: u64, what: &'static str) -> impl FnOnce(Malformed) -> Error {
    move |fault| Error::broken(n, format!("{what}: {fault}"))
}
