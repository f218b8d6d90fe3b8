//! Who is due: every domain the mirror watches, with its mailboxes, ordered by
//! the time of the next visit. No I/O; the room keeps rows of it in `State`.
//!
//! A mailbox is visited with its domain, so domains are what is scheduled, and
//! a domain that is being visited is handed to nobody else.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest as _, Sha256};

use crate::dime::{Address, Domain, Name, Timestamp};

/// The queue of visits.
#[derive(Debug, Default)]
pub struct Frontier {
    slots: BTreeMap<Domain, Slot>,
    /// Those that nobody visits, by time.
    queue: BTreeSet<(Timestamp, Domain)>,
}

#[derive(Debug)]
struct Slot {
    due: Timestamp,
    /// Failed visits since the last good one.
    failures: u32,
    users: BTreeSet<Address>,
    /// The mailbox that the last visit came to before its time was up.
    reached: Option<Address>,
    visiting: bool,
    /// Asked for while it was visited: visit once more.
    again: bool,
}

/// A domain to visit now, with the mailboxes known at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    pub domain: Domain,
    pub users: Vec<Address>,
    pub failures: u32,
}

/// How far apart visits are, milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Most between two visits that went well; DNS may ask for less.
    pub interval: u64,
    /// After the first failure; doubles with each further one.
    pub back_off: u64,
    /// Most after any number of failures.
    pub back_off_limit: u64,
}

impl Default for Pace {
    /// An hour; a minute doubling up to six hours.
    fn default() -> Pace {
        Pace { interval: 3_600_000, back_off: 60_000, back_off_limit: 6 * 3_600_000 }
    }
}

impl Pace {
    /// The visit after a good one: when DNS wants it refreshed, at the latest
    /// after the interval, and up to a tenth later.
    pub fn after_success(&self, domain: &Domain, now: Timestamp, refresh: Timestamp) -> Timestamp {
        let wait = refresh.since(now).min(self.interval);
        now.plus(wait.saturating_add(jitter(domain, now, wait / 10)))
    }

    /// The visit after the `failures`-th failed one in a row, and up to a
    /// quarter later.
    pub fn after_failure(&self, domain: &Domain, now: Timestamp, failures: u32) -> Timestamp {
        let doubled = self.back_off.saturating_mul(1 << failures.saturating_sub(1).min(30));
        let wait = doubled.min(self.back_off_limit);
        now.plus(wait.saturating_add(jitter(domain, now, wait / 4)))
    }
}

/// 0 to `most`, spread over names and times; it needs no secret.
fn jitter(domain: &Domain, now: Timestamp, most: u64) -> u64 {
    let hash = Sha256::new()
        .chain_update(domain.as_str())
        .chain_update(now.millis().to_be_bytes())
        .finalize();
    let number = hash.iter().take(8).fold(0u64, |sum, &byte| sum << 8 | u64::from(byte));
    match most.checked_add(1) {
        Some(values) => number % values,
        None => number,
    }
}

impl Frontier {
    pub fn new() -> Frontier {
        Frontier::default()
    }

    /// Domains in it.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Watches a name from now on; says whether it is new. A domain that is new
    /// is due at `due`; a new mailbox makes its domain due then at the latest.
    pub fn add(&mut self, name: &Name, due: Timestamp) -> bool {
        let domain = name.domain();
        let new_domain = !self.slots.contains_key(domain);
        if new_domain {
            let slot = Slot {
                due,
                failures: 0,
                users: BTreeSet::new(),
                reached: None,
                visiting: false,
                again: false,
            };
            self.slots.insert(domain.clone(), slot);
            self.queue.insert((due, domain.clone()));
        }
        let new_user = match name {
            Name::Domain(_) => false,
            Name::Address(address) => {
                self.slots.get_mut(domain).is_some_and(|slot| slot.users.insert(address.clone()))
            }
        };
        if new_user && !new_domain {
            self.hasten(domain, due);
        }
        new_domain || new_user
    }

    /// Sets when a known domain is due and how often it failed, as read back
    /// from its row.
    pub fn restore(&mut self, domain: &Domain, due: Timestamp, failures: u32) {
        self.add(&Name::Domain(domain.clone()), due);
        let Some(slot) = self.slots.get_mut(domain).filter(|slot| !slot.visiting) else { return };
        self.queue.remove(&(slot.due, domain.clone()));
        slot.due = due;
        slot.failures = failures;
        self.queue.insert((due, domain.clone()));
    }

    /// Makes a domain due at `due` unless it is sooner. While it is visited,
    /// the next visit follows that one.
    pub fn hasten(&mut self, domain: &Domain, due: Timestamp) {
        let Some(slot) = self.slots.get_mut(domain) else { return };
        if slot.visiting {
            slot.again = true;
        } else if due < slot.due {
            self.queue.remove(&(slot.due, domain.clone()));
            slot.due = due;
            self.queue.insert((due, domain.clone()));
        }
    }

    /// The domain that is due the longest, which is being visited from now on.
    pub fn next(&mut self, now: Timestamp) -> Option<Job> {
        let first = self.queue.first().filter(|(due, _)| *due <= now).cloned()?;
        self.queue.remove(&first);
        let (_, domain) = first;
        let slot = self.slots.get_mut(&domain)?;
        slot.visiting = true;
        slot.again = false;
        // Those that the last visit did not come to are first.
        let (before, after): (Vec<_>, Vec<_>) =
            slot.users.iter().cloned().partition(|user| slot.reached.as_ref() >= Some(user));
        let users = after.into_iter().chain(before).collect();
        Some(Job { failures: slot.failures, domain, users })
    }

    /// A visit ended: the domain is due again at `due`, or at `now` if it was
    /// asked for meanwhile. Returns the time that counts.
    pub fn done(
        &mut self,
        domain: &Domain,
        now: Timestamp,
        due: Timestamp,
        failures: u32,
    ) -> Timestamp {
        let Some(slot) = self.slots.get_mut(domain) else { return due };
        let due = if slot.again { now } else { due };
        slot.visiting = false;
        slot.again = false;
        slot.due = due;
        slot.failures = failures;
        self.queue.insert((due, domain.clone()));
        due
    }

    /// A visit's time was up after this mailbox; `None`: it came to the end.
    pub fn reached(&mut self, domain: &Domain, user: Option<Address>) {
        if let Some(slot) = self.slots.get_mut(domain) {
            slot.reached = user;
        }
    }

    /// When the next domain is due, if any waits.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.queue.first().map(|(due, _)| *due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    #[test]
    fn the_longest_due_comes_first_and_once() {
        let mut frontier = Frontier::new();
        assert!(frontier.add(&name("b.example"), at(20)));
        assert!(frontier.add(&name("a.example"), at(30)));
        assert!(frontier.add(&name("x@a.example"), at(30)));
        assert!(!frontier.add(&name("x@a.example"), at(5)));
        assert_eq!(frontier.next(at(10)), None);
        assert_eq!(frontier.next_due(), Some(at(20)));
        assert_eq!(frontier.next(at(40)).unwrap().domain.as_str(), "b.example");
        let job = frontier.next(at(40)).unwrap();
        assert_eq!((job.domain.as_str(), job.users.len()), ("a.example", 1));
        assert_eq!(frontier.next(at(1000)), None);
        assert_eq!(frontier.next_due(), None);
        frontier.done(&job.domain, at(50), at(70), 2);
        assert_eq!(frontier.next(at(69)), None);
        assert_eq!(frontier.next(at(70)).unwrap().failures, 2);
    }

    #[test]
    fn what_is_asked_for_during_a_visit_follows_it() {
        let mut frontier = Frontier::new();
        frontier.add(&name("a.example"), at(0));
        let job = frontier.next(at(0)).unwrap();
        frontier.hasten(&job.domain, at(1));
        assert_eq!(frontier.next(at(1)), None);
        assert_eq!(frontier.done(&job.domain, at(5), at(900), 0), at(5));
        assert!(frontier.next(at(5)).is_some());
    }

    #[test]
    fn a_new_mailbox_hastens_its_domain() {
        let mut frontier = Frontier::new();
        frontier.restore(&"a.example".parse().unwrap(), at(1000), 3);
        assert_eq!(frontier.next_due(), Some(at(1000)));
        frontier.add(&name("x@a.example"), at(10));
        assert_eq!(frontier.next_due(), Some(at(10)));
        frontier.hasten(&"a.example".parse().unwrap(), at(500));
        assert_eq!(frontier.next_due(), Some(at(10)));
        assert_eq!(frontier.len(), 1);
    }

    #[test]
    fn a_visit_cut_short_is_taken_up_where_it_ended() {
        let mut frontier = Frontier::new();
        for user in ["a@a.example", "b@a.example", "c@a.example"] {
            frontier.add(&name(user), at(0));
        }
        let mut users = |reached: Option<&str>| {
            let job = frontier.next(at(0)).unwrap();
            frontier.done(&job.domain, at(0), at(0), 0);
            frontier.reached(&job.domain, reached.map(|user| user.parse().unwrap()));
            job.users.iter().map(|user| user.local().to_owned()).collect::<String>()
        };
        assert_eq!(users(Some("a@a.example")), "abc");
        assert_eq!(users(Some("b@a.example")), "bca");
        assert_eq!(users(None), "cab");
        assert_eq!(users(None), "abc");
    }

    #[test]
    fn waits_are_spread_and_bounded() {
        let pace = Pace { interval: 1000, back_off: 100, back_off_limit: 450 };
        let domain: Domain = "a.example".parse().unwrap();
        let wait = |due: Timestamp| due.since(at(5000));
        let good = |refresh| wait(pace.after_success(&domain, at(5000), at(refresh)));
        assert!((1000..=1100).contains(&good(1_000_000)));
        assert!((200..=220).contains(&good(5200)));
        let bad = |failures| wait(pace.after_failure(&domain, at(5000), failures));
        assert!((100..=125).contains(&bad(1)));
        assert!((200..=250).contains(&bad(2)));
        assert!((450..=562).contains(&bad(4)));
        assert!((450..=562).contains(&bad(u32::MAX)));
        let other: Domain = "b.example".parse().unwrap();
        let spread = Pace { interval: u64::MAX, ..pace };
        let far = at(u64::MAX / 2);
        assert_ne!(
            spread.after_success(&domain, at(0), far),
            spread.after_success(&other, at(0), far)
        );
    }
}
