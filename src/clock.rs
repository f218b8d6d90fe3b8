//! Wall time, and a clock that tests set by hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::dime::Timestamp;

/// A smaller step back leaves nothing that waits for long, milliseconds.
const STEP: u64 = 60_000;

/// Where a room learns the time of day. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Clock {
        Clock(Source::System)
    }

    /// A clock that stands still until [`Clock::set`] or [`Clock::advance`].
    pub fn manual(start: Timestamp) -> Clock {
        Clock(Source::Manual(Arc::new(AtomicU64::new(start.millis()))))
    }

    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System => Timestamp::from_millis(
                SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .map_or(0, |since| since.as_millis() as u64),
            ),
            Source::Manual(now) => Timestamp::from_millis(now.load(Ordering::SeqCst)),
        }
    }

    /// Sets a manual clock; the system's clock is left alone.
    pub fn set(&self, now: Timestamp) {
        if let Source::Manual(cell) = &self.0 {
            cell.store(now.millis(), Ordering::SeqCst);
        }
    }

    /// Moves a manual clock on; the system's clock is left alone.
    pub fn advance(&self, millis: u64) {
        if let Source::Manual(cell) = &self.0 {
            cell.fetch_add(millis, Ordering::SeqCst);
        }
    }
}

/// The latest time that was seen. When the clock is set back, what was noted before
/// may lie as far ahead, and would be waited for.
#[derive(Debug, Default)]
pub struct Latest(Timestamp);

impl Latest {
    /// By how much the clock was set back since the last call, milliseconds.
    pub fn set_back(&mut self, now: Timestamp) -> Option<u64> {
        let back = self.0.since(now);
        self.0 = if back > STEP { now } else { self.0.max(now) };
        (back > STEP).then_some(back)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_back_is_noticed_once() {
        let mut latest = Latest::default();
        let at = Timestamp::from_secs;
        for (now, back) in [(1000, None), (9000, None), (8990, None), (8000, Some(1_000_000))] {
            assert_eq!(latest.set_back(at(now)), back, "{now}");
        }
        assert_eq!(latest.set_back(at(8000)), None);
    }
}
