//! Questions in flight at once, in all and below one registered domain: name
//! servers that answer at the last moment hold up nobody else's domains.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use crate::dime::{Domain, suffix};

/// Domains that are remembered before those without a question are dropped.
const REMEMBERED: usize = 1024;

pub(super) struct Slots {
    all: Semaphore,
    /// Of one registered domain.
    share: usize,
    shares: Mutex<HashMap<Domain, Arc<Semaphore>>>,
}

/// A question's place; dropped when it is answered.
pub(super) struct Slot<'a> {
    _share: Option<OwnedSemaphorePermit>,
    _one: SemaphorePermit<'a>,
}

impl Slots {
    /// `concurrent`: in all, an eighth of it below one registered domain.
    pub fn new(concurrent: usize) -> Slots {
        let concurrent = concurrent.clamp(1, Semaphore::MAX_PERMITS);
        let all = Semaphore::new(concurrent);
        Slots { all, share: concurrent.div_ceil(8), shares: Mutex::default() }
    }

    /// Waits for a place. `None` only if there are none any more.
    pub async fn take(&self, name: &str) -> Option<Slot<'_>> {
        let share = match self.share_of(name) {
            Some(share) => Some(share.acquire_owned().await.ok()?),
            None => None,
        };
        Some(Slot { _share: share, _one: self.all.acquire().await.ok()? })
    }

    fn share_of(&self, name: &str) -> Option<Arc<Semaphore>> {
        // `_dime.` and `_dx.` are no part of a domain.
        let host = name.split_once('.').filter(|(label, _)| label.starts_with('_'));
        let domain: Domain = host.map_or(name, |(_, rest)| rest).parse().ok()?;
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        if shares.len() >= REMEMBERED {
            shares.retain(|_, share| Arc::strong_count(share) > 1);
        }
        let registered = suffix::registered(&domain);
        let share =
            shares.entry(registered).or_insert_with(|| Arc::new(Semaphore::new(self.share)));
        Some(Arc::clone(share))
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn one_registered_domain_has_its_share() {
        let slots = Slots::new(16);
        let take = |name: &str| slots.take(name).now_or_never().flatten();
        let name = |n: usize| format!("_dime.d{n}.evil.example");
        let held: Vec<_> = (0..100).map_while(|n| take(&name(n))).collect();
        assert_eq!(held.len(), 2);
        let others: Vec<_> =
            (0..100).map_while(|n| take(&format!("d{n}.good{n}.example"))).collect();
        assert_eq!(others.len(), 14, "the rest is everybody's");
        drop(others);
        assert!(take("mx.evil.example").is_none());
        drop(held);
        assert!(take("mx.evil.example").is_some());
    }

    #[test]
    fn domains_without_a_question_are_forgotten() {
        let slots = Slots::new(16);
        let held = slots.take("held.example").now_or_never().flatten();
        for n in 0..REMEMBERED * 2 {
            assert!(slots.take(&format!("d{n}.example")).now_or_never().flatten().is_some());
        }
        assert!(slots.shares.lock().unwrap().len() <= REMEMBERED);
        drop(held);
    }
}
