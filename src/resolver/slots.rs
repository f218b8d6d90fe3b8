//! How much goes on at once, in all and below one registered domain: name servers
//! and hosts that answer at the last moment hold up nobody else's domains.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use crate::dime::{Domain, suffix};

/// Domains that are remembered before those with nothing under way are dropped.
const REMEMBERED: usize = 1024;

/// Places for what is under way.
#[derive(Debug)]
pub struct Slots {
    all: Semaphore,
    /// Of one registered domain.
    share: usize,
    shares: Mutex<HashMap<Domain, Arc<Semaphore>>>,
}

/// A place; given back when dropped.
#[derive(Debug)]
#[must_use]
pub struct Slot<'a> {
    _share: Option<OwnedSemaphorePermit>,
    _one: SemaphorePermit<'a>,
}

impl Slots {
    /// `all` places, at least 1, of which `share` below one registered domain.
    pub fn new(all: usize, share: usize) -> Slots {
        let all = Semaphore::new(all.clamp(1, Semaphore::MAX_PERMITS));
        Slots { all, share: share.max(1), shares: Mutex::default() }
    }

    /// Waits for a place, first below the registered domain, so that those who wait
    /// there are in nobody else's way. `None` only if there are none any more.
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
        let slots = Slots::new(16, 2);
        let take = |name: &str| slots.take(name).now_or_never().flatten();
        let name = |n: usize| format!("_dime.d{n}.evil.example");
        let held: Vec<_> = (0..100).map_while(|n| take(&name(n))).collect();
        assert_eq!(held.len(), 2);
        let others: Vec<_> =
            (0..100).map_while(|n| take(&format!("d{n}.good{n}.example"))).collect();
        assert_eq!(others.len(), 14, "the rest is everybody's");
        drop(others);
        // Who waits there is in nobody's way, and has its turn.
        let mut third = std::pin::pin!(slots.take("mx.evil.example"));
        assert!(third.as_mut().now_or_never().is_none());
        assert!(take("a.example").is_some());
        drop(held);
        assert!(third.now_or_never().flatten().is_some());
    }

    #[test]
    fn domains_without_a_question_are_forgotten() {
        let slots = Slots::new(16, 2);
        let held = slots.take("held.example").now_or_never().flatten();
        for n in 0..REMEMBERED * 2 {
            assert!(slots.take(&format!("d{n}.example")).now_or_never().flatten().is_some());
        }
        assert!(slots.shares.lock().unwrap().len() <= REMEMBERED);
        drop(held);
    }
}
