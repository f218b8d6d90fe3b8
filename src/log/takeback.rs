//! Entries that this log has signed, and that its store has lost, come back from
//! those who kept them (threat 12).
//!
//! What comes back is public: a batch at a time, which must close with the very
//! directory root that it closed with before. So the log makes the same commits,
//! trees and signatures again, and nothing new. What was private of mailboxes is
//! lost for good. That is marked in the log, as an erasure is (FORGOTTEN, threat
//! 9), with a marker beside it that nobody asked for it: the mailbox is observed
//! again at once, as a new version.
//!
//! `unmarked` in the private store holds the number of the first commit without
//! its private records, from before it is made until all is marked.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::commit::Commit;
use super::sequencer::Sequencer;
use super::{Error, Log, publish};
use crate::dime::Timestamp;
use crate::proof::entry::{Entry, Forgotten, Kind};
use crate::proof::{Hash, Label};
use crate::store::keys;

/// Marks in one batch.
const MARKS: usize = 2000;
/// Longest object that says what is not marked yet, bytes.
const MAX_UNMARKED: u64 = 32;

impl Log {
    /// The root that the log had at this size; `None` if no commit has it.
    pub async fn root_at(&self, size: u64) -> Result<Option<Hash>, Error> {
        let Some(head) = self.heads().committed else { return Ok(None) };
        let chain = super::chain::Chain::new(self.store().private.clone());
        let (mut low, mut high) = (0, head.n);
        while low <= high {
            let middle = low + (high - low) / 2;
            let Commit { size: found, root, .. } = chain.at(middle).await?.commit;
            match found.cmp(&size) {
                std::cmp::Ordering::Equal => return Ok(Some(root)),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater if middle == 0 => break,
                std::cmp::Ordering::Greater => high = middle - 1,
            }
        }
        Ok(None)
    }
}

impl Sequencer {
    /// What an earlier process left to be marked.
    pub(super) async fn look_for_lost(&mut self) -> Result<(), Error> {
        let found = self.log().store().private.get(keys::LOST, MAX_UNMARKED).await?;
        let number = |bytes: Bytes| keys::parse_number(std::str::from_utf8(&bytes).ok()?);
        self.unmarked = found.and_then(number);
        Ok(())
    }

    /// Takes back one batch, its directory root last, and the public blobs that
    /// its entries name. Everything follows as from any commit: guard, tiles, the
    /// same signature as before.
    ///
    /// The caller has checked that the entries follow the tip in a tree that this
    /// log has signed.
    ///
    /// # Errors
    /// Those of a round; a batch that closes otherwise, or holds entries whose
    /// private records the log cannot be without. Nothing was written then.
    pub async fn take_back(
        &mut self,
        batch: &[Bytes],
        blobs: &[(Hash, Bytes)],
    ) -> Result<(), Error> {
        self.takes_back = true;
        let outcome = self.take_back_one(batch, blobs).await;
        self.takes_back = false;
        outcome
    }

    async fn take_back_one(
        &mut self,
        batch: &[Bytes],
        blobs: &[(Hash, Bytes)],
    ) -> Result<(), Error> {
        self.sign_what_waits().await?;
        let n = self.tip().next;
        let kinds = batch.iter().map(|entry| Entry::decode(entry));
        let kinds: Vec<Entry<'_>> = kinds
            .collect::<Result<_, _>>()
            .map_err(|fault| Error::broken(n, format!("an entry that comes back: {fault}")))?;
        let Some((Entry { time, kind: Kind::Root(_), .. }, before)) = kinds.split_last() else {
            return Err(Error::broken(n, "a batch that comes back has no directory root"));
        };
        if before.iter().any(|entry| matches!(entry.kind, Kind::Genesis(_) | Kind::Carried(_))) {
            return Err(Error::broken(n, "labels carried over cannot come back from peers"));
        }
        let store = self.log().store().clone();
        publish::write_blobs(&store.public, blobs).await?;
        if self.unmarked.is_none() && before.iter().any(|e| matches!(e.kind, Kind::User(_))) {
            // Killed after: some commits from here on lack records, or none do.
            store.private.put(keys::LOST, keys::number(n).into()).await?;
            self.unmarked = Some(n);
        }
        let entries = batch.get(..before.len()).unwrap_or_default().to_vec();
        self.write_as(*time, entries, Vec::new(), |made| made.entries == batch).await
    }

    /// Marks the mailboxes whose private records did not come back. May be cut
    /// off anywhere and done again: a label that is marked has a later version.
    pub(super) async fn mark_lost(&mut self, time: Timestamp) -> Result<(), Error> {
        let Some(first) = self.unmarked else { return Ok(()) };
        let mut lost: BTreeMap<Label, u64> = BTreeMap::new();
        if let Some(last) = self.tip().next.checked_sub(1) {
            let mut steps = self.chain().steps(first, last).await?;
            while let Some(step) = steps.next().await? {
                if !step.commit.records.is_empty() {
                    continue;
                }
                for entry in &step.batch.entries {
                    if let Ok(Entry { kind: Kind::User(user), .. }) = Entry::decode(entry) {
                        lost.insert(user.label, user.version);
                    }
                }
            }
        }
        lost.retain(|label, version| {
            self.tip().map.tip(label).is_some_and(|tip| tip.version == *version)
        });
        tracing::warn!(mailboxes = lost.len(), "what was hidden of mailboxes is lost: marking it");
        let lost: Vec<(Label, u64)> = lost.into_iter().collect();
        for part in lost.chunks(MARKS) {
            let mut entries = Vec::with_capacity(part.len());
            for (label, version) in part {
                let version = version + 1;
                let private = &self.log().store().private;
                private.put(keys::lost(&label.0, version), Bytes::new()).await?;
                let mark = Kind::Forgotten(Forgotten { label: *label, version });
                entries.push(Entry::new(time, mark).encode().into());
            }
            self.write(time, entries, Vec::new()).await?;
        }
        self.log().store().private.delete(keys::LOST).await?;
        self.unmarked = None;
        Ok(())
    }
}
