//! What the peers' clocks say of ours (threat 14).
//!
//! A peer's clock is read from the time of its directory root, at the moment
//! when a root comes that was not there at the look before, a minute ago at most:
//! older news, after an outage of either side, says nothing about now. A root from
//! our future says so whenever it comes.
//!
//! One peer can lie, so more than half of the configured ones, and never fewer
//! than two, must be off to the same side, each by what it published in the last
//! 20 minutes. Who has one peer is not stopped by it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::witness::MAX_OFFSET;
use crate::dime::Timestamp;

/// Between the look at which a root was not there yet and the one at which it was.
pub(super) const LOOK: Duration = Duration::from_secs(60);
/// How long a peer's root speaks: two heartbeats.
const FRESH: Duration = Duration::from_secs(1200);

/// By origin: theirs less ours, milliseconds, and when that was seen.
#[derive(Debug)]
pub(super) struct Clocks {
    peers: usize,
    seen: Mutex<BTreeMap<String, (i64, Instant)>>,
}

impl Clocks {
    pub(super) fn new(peers: usize) -> Clocks {
        Clocks { peers, seen: Mutex::default() }
    }

    /// A peer's new root was of `theirs` when this clock said `ours`. Gives what
    /// most of them say now: how far off, and until when.
    pub(super) fn saw(
        &self,
        origin: &str,
        theirs: Timestamp,
        ours: Timestamp,
        at: Instant,
    ) -> Option<(i64, Instant)> {
        let off = theirs.millis() as i64 - ours.millis() as i64;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.insert(origin.to_owned(), (off, at));
        seen.retain(|_, (_, when)| at.duration_since(*when) < FRESH);
        let quorum = (self.peers / 2 + 1).max(2);
        [1, -1].into_iter().find_map(|side| {
            let off = |off: i64| off.saturating_mul(side) > MAX_OFFSET as i64;
            let mut such: Vec<(i64, Instant)> =
                seen.values().copied().filter(|(by, _)| off(*by)).collect();
            such.sort_by_key(|(_, when)| std::cmp::Reverse(*when));
            let (_, last) = *such.get(quorum - 1)?;
            // The least that they all say.
            let by = such.iter().map(|(by, _)| by.saturating_mul(side)).min()?;
            Some((by * side, last + FRESH))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;

    /// Offsets in minutes, one peer after the other, all at once.
    fn said(peers: usize, minutes: &[i64]) -> Option<i64> {
        let (clocks, at) = (Clocks::new(peers), Instant::now());
        let ours = Timestamp::from_secs(1_000_000);
        let mut verdict = None;
        for (number, minutes) in minutes.iter().enumerate() {
            let theirs = (ours.millis() as i64 + minutes * MINUTE) as u64;
            let theirs = Timestamp::from_millis(theirs);
            verdict = clocks.saw(&number.to_string(), theirs, ours, at);
        }
        verdict.map(|(by, _)| by / MINUTE)
    }

    #[test]
    fn it_takes_most_of_them_and_never_one() {
        assert_eq!(said(1, &[90]), None, "the only peer is one peer");
        assert_eq!(said(2, &[90, 0]), None);
        assert_eq!(said(2, &[90, -90]), None, "they contradict each other");
        assert_eq!(said(2, &[90, 6]), Some(6));
        assert_eq!(said(3, &[-7, 0, -20]), Some(-7));
        assert_eq!(said(4, &[-7, 0, -20]), None);
        assert_eq!(said(3, &[5, -5, 4]), None, "five minutes are allowed");
    }

    #[test]
    fn what_is_old_says_nothing() {
        let (clocks, at) = (Clocks::new(3), Instant::now());
        let (ours, theirs) = (Timestamp::from_secs(1_000_000), Timestamp::from_secs(2_000_000));
        assert_eq!(clocks.saw("a", theirs, ours, at), None);
        let later = at + FRESH / 2;
        let (by, until) = clocks.saw("b", theirs, ours, later).unwrap();
        assert_eq!((by, until), (1_000_000_000, at + FRESH));
        assert_eq!(clocks.saw("b", theirs, ours, at + FRESH), None);
        assert_eq!(clocks.saw("b", ours, ours, later), None, "it was set right");
    }
}
