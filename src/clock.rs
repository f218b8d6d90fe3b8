//! Wall time, and a clock that tests set by hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::dime::Timestamp;

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
