//! How many bytes of replies may be in memory at once, whoever sends them.
//!
//! Each reply has limits of its own, but hundreds of hosts may go up to them
//! together. The first [`FREE`] bytes of a reply are not counted: an honest one
//! is seldom longer. What is longer takes from the budget as it grows, and gives
//! it back when whoever keeps its bytes is done with them.
//!
//! A reply that has taken nothing yet waits its turn, within its own time limit.
//! One that has taken some never waits: if there is no more it is refused, to be
//! asked for again later. So no two replies wait for each other. What a visit keeps
//! of replies before may wait with it, but no longer than that one limit; and
//! whoever holds on and says no more is up at the end of it too.
//!
//! All hosts below one registered domain have a share: to use up the whole takes as
//! many domains as to use up the places of slow visits.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{self, Notify};
use tokio::time::{Instant, timeout_at};

use crate::dime::{Domain, suffix};

/// Bytes of all replies together, beyond what is free.
pub const BYTES: usize = 512 << 20;
/// Bytes of one reply that are not counted.
pub const FREE: usize = 64 << 10;
/// Bytes that are taken at once.
const STEP: usize = 64 << 10;
/// The whole is so many shares.
const SHARES: usize = 16;

/// What all sessions share.
#[derive(Debug)]
pub struct Budget {
    bytes: usize,
    share: usize,
    taken: Mutex<Taken>,
    /// For those who have taken nothing yet, one after the other.
    turn: sync::Mutex<()>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct Taken {
    bytes: usize,
    most: usize,
    /// By registered domain; only those that have some.
    hosts: HashMap<String, usize>,
}

/// There is no room for a larger reply now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoRoom;

/// Why something could not be taken.
enum Lack {
    /// The share of the host is used up.
    OfShare,
    OfAll,
}

impl Budget {
    /// `reply`: bytes of the longest reply, for which any share has room.
    pub fn new(bytes: usize, reply: usize) -> Arc<Budget> {
        let share = (bytes / SHARES).max(reply.next_multiple_of(STEP)).min(bytes);
        let (taken, turn, freed) = (Mutex::default(), sync::Mutex::new(()), Notify::new());
        Arc::new(Budget { bytes, share, taken, turn, freed })
    }

    /// Bytes taken now.
    pub fn taken(&self) -> usize {
        self.state().bytes
    }

    /// Most bytes ever taken at once.
    pub fn most(&self) -> usize {
        self.state().most
    }

    fn take(&self, host: &str, more: usize) -> Result<(), Lack> {
        let mut taken = self.state();
        let of_host = taken.hosts.get(host).copied().unwrap_or_default().saturating_add(more);
        if of_host > self.share {
            return Err(Lack::OfShare);
        }
        let all = taken.bytes.saturating_add(more);
        if all > self.bytes {
            return Err(Lack::OfAll);
        }
        (taken.bytes, taken.most) = (all, taken.most.max(all));
        taken.hosts.insert(host.to_owned(), of_host);
        Ok(())
    }

    /// For those who have nothing yet. Each is the only one that waits here.
    async fn wait(&self, host: &str, more: usize) -> Result<(), NoRoom> {
        let _turn = self.turn.lock().await;
        loop {
            match self.take(host, more) {
                Ok(()) => return Ok(()),
                // Its own replies are not waited for: others stand behind.
                Err(Lack::OfShare) => return Err(NoRoom),
                Err(Lack::OfAll) => self.freed.notified().await,
            }
        }
    }

    fn give_back(&self, host: &str, bytes: usize) {
        let mut taken = self.state();
        taken.bytes = taken.bytes.saturating_sub(bytes);
        if let Some(of_host) = taken.hosts.get_mut(host) {
            *of_host = of_host.saturating_sub(bytes);
            if *of_host == 0 {
                taken.hosts.remove(host);
            }
        }
        drop(taken);
        self.freed.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one reply has taken; given back when dropped. Keep it for as long as the
/// reply's bytes.
#[derive(Debug)]
#[must_use]
pub struct Held {
    budget: Arc<Budget>,
    /// As it was named; below the same registered domain all have one share.
    host: Arc<str>,
    share: Option<String>,
    bytes: usize,
}

impl Held {
    pub(super) fn nothing(budget: &Arc<Budget>, host: &str) -> Held {
        Held { budget: Arc::clone(budget), host: host.into(), share: None, bytes: 0 }
    }

    /// All of it; what is left holds nothing.
    pub(super) fn take(&mut self) -> Held {
        let (budget, host) = (Arc::clone(&self.budget), Arc::clone(&self.host));
        std::mem::replace(self, Held { budget, host, share: None, bytes: 0 })
    }

    /// The reply is about to have so many bytes.
    pub(super) async fn grow(&mut self, size: usize, ends: Instant) -> Result<(), NoRoom> {
        let needed = size.saturating_sub(FREE).next_multiple_of(STEP);
        let more = needed.saturating_sub(self.bytes);
        if more == 0 {
            return Ok(());
        }
        let share = self.share.get_or_insert_with(|| registered(&self.host));
        match self.bytes {
            0 => timeout_at(ends, self.budget.wait(share, more)).await.map_err(|_| NoRoom)??,
            _ => self.budget.take(share, more).map_err(|_| NoRoom)?,
        }
        self.bytes = needed;
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(share) = self.share.as_deref().filter(|_| self.bytes > 0) {
            self.budget.give_back(share, self.bytes);
        }
    }
}

/// Names are for nothing, but for the registered one.
fn registered(host: &str) -> String {
    match host.parse::<Domain>() {
        Ok(host) => suffix::registered(&host).to_string(),
        Err(_) => host.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;
    use std::time::Duration;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(30)
    }

    /// A reply of so many steps beyond what is free.
    fn steps(number: usize) -> usize {
        FREE + number * STEP
    }

    #[tokio::test]
    async fn short_replies_take_nothing() {
        let budget = Budget::new(0, 0);
        let mut held = Held::nothing(&budget, "dx.a.example");
        assert_eq!(held.grow(FREE, soon()).await, Ok(()));
        assert_eq!((budget.taken(), budget.most()), (0, 0));
        assert_eq!(held.grow(FREE + 1, Instant::now()).await, Err(NoRoom));
    }

    #[tokio::test]
    async fn what_has_some_is_refused_and_what_has_none_waits() {
        let budget = Budget::new(4 * STEP, 4 * STEP);
        let mut first = Held::nothing(&budget, "dx.a.example");
        let mut second = Held::nothing(&budget, "dx.b.example");
        first.grow(steps(2), soon()).await.unwrap();
        second.grow(steps(2), soon()).await.unwrap();
        // Two that each need what the other has: one of them goes on.
        assert_eq!(first.grow(steps(3), soon()).await, Err(NoRoom));
        let mut third = Held::nothing(&budget, "dx.c.example");
        {
            let waited = third.grow(steps(1), soon());
            tokio::pin!(waited);
            assert!(futures::poll!(waited.as_mut()).is_pending());
            drop(first);
            assert_eq!(waited.await, Ok(()));
        }
        assert_eq!(second.grow(steps(3), soon()).await, Ok(()));
        // Nobody gives back anything: the time of whoever waits is up.
        let mut late = Held::nothing(&budget, "dx.d.example");
        assert_eq!(late.grow(steps(1), Instant::now()).await, Err(NoRoom));
        // Whoever keeps the bytes keeps what they have taken.
        let kept = second.take();
        drop(second);
        assert_eq!(budget.taken(), 4 * STEP);
        drop((kept, third));
        assert_eq!((budget.taken(), budget.most()), (0, 4 * STEP));
        assert!(budget.state().hosts.is_empty());
    }

    #[tokio::test]
    async fn all_hosts_of_a_registered_domain_have_one_share() {
        let budget = Budget::new(SHARES * 2 * STEP, STEP);
        let mut own: Vec<Held> = Vec::new();
        for number in 0..2 {
            let mut held = Held::nothing(&budget, &format!("dx{number}.evil.example"));
            held.grow(steps(1), soon()).await.unwrap();
            own.push(held);
        }
        // It is told so at once, and stands in nobody's way.
        let mut more = Held::nothing(&budget, "another.evil.example");
        let refused = futures::poll!(std::pin::pin!(more.grow(steps(1), soon())));
        assert_eq!(refused, Poll::Ready(Err(NoRoom)));
        let mut other = Held::nothing(&budget, "dx.a.example");
        assert_eq!(other.grow(steps(2), soon()).await, Ok(()));
        own.pop();
        assert_eq!(more.grow(steps(1), soon()).await, Ok(()));
    }

    #[tokio::test]
    async fn who_waited_longest_is_first() {
        let budget = Budget::new(STEP, STEP);
        let mut holder = Held::nothing(&budget, "dx.a.example");
        holder.grow(steps(1), soon()).await.unwrap();
        let mut first = Held::nothing(&budget, "dx.b.example");
        let mut second = Held::nothing(&budget, "dx.c.example");
        let (ends, later) = (soon(), soon() + Duration::from_secs(30));
        {
            let (first, second) = (first.grow(steps(1), ends), second.grow(steps(1), later));
            tokio::pin!(first, second);
            assert!(futures::poll!(first.as_mut()).is_pending());
            assert!(futures::poll!(second.as_mut()).is_pending());
            drop(holder);
            assert!(futures::poll!(second.as_mut()).is_pending());
            assert_eq!(first.await, Ok(()));
            // One that gives up lets the next one try.
            assert!(futures::poll!(second.as_mut()).is_pending());
        }
        drop(first);
        assert_eq!(second.grow(steps(1), later).await, Ok(()));
    }
}
