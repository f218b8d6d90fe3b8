//! Who is due: domains the mirror watches, with their mailboxes, ordered by the
//! time of the next visit. No I/O, and it need not hold all: [`super::Roster`]
//! keeps rows in `State`, restores domains from them and evicts them again.
//!
//! A mailbox is visited with its domain, so domains are what is scheduled, and
//! a domain that is being visited is handed to nobody else.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use sha2::{Digest as _, Sha256};

use crate::dime::{Address, Domain, Name, Timestamp};

/// Names on trial at once, and of one domain: strangers ask for those.
pub const TRIALS: usize = 1024;
pub const TRIALS_OF_A_DOMAIN: usize = 64;
/// Between two visits of a domain for names on trial, milliseconds.
pub const TRIAL_GAP: u64 = 60_000;
/// Names looked at for peers and comparisons, waiting at once, and of one domain.
pub const LOOKS: usize = 4096;
pub const LOOKS_OF_A_DOMAIN: usize = 256;
/// Mailboxes of one domain that its owner asked for and that are looked for.
pub const WANTED: usize = 64;
/// Visits that may fail to find one of those: at least a day's if its host is down.
pub const TRIES: u32 = 32;
/// Domains of peers' logs, waiting at once (threat 20).
pub const DISTANT: usize = 1024;

/// The queue of visits. Who is due of an earlier queue comes first.
#[derive(Debug, Default)]
pub struct Frontier {
    slots: HashMap<Domain, Slot>,
    /// Those that nobody visits, by time: asked for by somebody who waits.
    urgent: BTreeSet<(Timestamp, Domain)>,
    /// With names on trial.
    asked: BTreeSet<(Timestamp, Domain)>,
    /// All that are watched.
    queue: BTreeSet<(Timestamp, Domain)>,
    /// On trial because a peer's log names them: after all others.
    distant: BTreeSet<(Timestamp, Domain)>,
    /// Names on trial.
    trials: usize,
    /// Names to look at.
    looks: usize,
}

#[derive(Debug)]
struct Slot {
    due: Timestamp,
    /// Failed visits since the last good one.
    failures: u32,
    users: BTreeSet<Address>,
    /// Those of them that only peers asked for: until when they are watched.
    expires: BTreeMap<Address, Timestamp>,
    /// Mailboxes that their owner asked for, which are not watched until they are
    /// found: how many more visits may fail to.
    wanted: BTreeMap<Address, u32>,
    /// Those that a client or their owner asked for since they were looked at.
    asked: Insist,
    /// The same of the visit going on.
    insisting: Insist,
    /// The mailbox that the last visit came to before its time was up.
    reached: Option<Address>,
    visiting: bool,
    /// Asked for while it was visited: visit once more.
    again: bool,
    /// Somebody waits for a visit since then.
    urged: Option<Timestamp>,
    /// The domain itself is on trial: it is not watched.
    on_trial: bool,
    /// Names on trial and when each is due: the domain itself, or mailboxes.
    trials: BTreeMap<Name, Timestamp>,
    /// No visit for names on trial before then.
    trials_after: Timestamp,
    /// Names that somebody waits for to be looked at, watched or not.
    looks: BTreeMap<Name, Timestamp>,
    /// A peer's log names the domain.
    distant: Option<Timestamp>,
    /// Those that the visit going on is to settle, which of them are looked at for
    /// somebody who waits, and whether it is for them alone.
    tried: Vec<Name>,
    looked: Vec<Name>,
    partial: bool,
    /// When it is due by its row, if it has one.
    stored: Option<Timestamp>,
    /// It has mailboxes without a row.
    pinned: bool,
}

impl Slot {
    fn new(due: Timestamp) -> Slot {
        Slot {
            due,
            failures: 0,
            users: BTreeSet::new(),
            expires: BTreeMap::new(),
            wanted: BTreeMap::new(),
            asked: Insist::default(),
            insisting: Insist::default(),
            reached: None,
            visiting: false,
            again: false,
            urged: None,
            on_trial: false,
            trials: BTreeMap::new(),
            trials_after: Timestamp::default(),
            looks: BTreeMap::new(),
            distant: None,
            tried: Vec::new(),
            looked: Vec::new(),
            partial: false,
            stored: None,
            pinned: false,
        }
    }

    fn trial_due(&self) -> Option<Timestamp> {
        self.trials.values().min().map(|due| (*due).max(self.trials_after))
    }

    /// Whether each visit of its own looks at the mailbox.
    fn has(&self, address: &Address) -> bool {
        self.users.contains(address) || self.wanted.contains_key(address)
    }

    /// Somebody waits for the domain, or for a name of it.
    fn urgent_since(&self) -> Option<Timestamp> {
        self.urged.into_iter().chain(self.looks.values().copied()).min()
    }
}

/// A domain to visit now, with the mailboxes known at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    pub domain: Domain,
    pub users: Vec<Address>,
    /// Watched until now, and no longer.
    pub lapsed: Vec<Address>,
    /// Those of the users that their owner asked for and that are not watched.
    pub wanted: Vec<Address>,
    pub failures: u32,
    /// Only names on trial are looked at: the domain's next visit stays due
    /// when it was.
    pub partial: bool,
    /// For whom the DX's word is not enough: somebody compares what is served, or
    /// says that it is something else.
    pub insist: Insist,
}

/// Mailboxes whose signet is fetched whatever the DX says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Insist {
    On(BTreeSet<Address>),
    All,
}

impl Default for Insist {
    fn default() -> Insist {
        Insist::On(BTreeSet::new())
    }
}

impl Insist {
    pub fn has(&self, address: &Address) -> bool {
        match self {
            Insist::On(some) => some.contains(address),
            Insist::All => true,
        }
    }

    /// Of many it is all: those who ask for other names must not take the place.
    fn add(&mut self, address: Address) {
        if let Insist::On(some) = self {
            some.insert(address);
            if some.len() > LOOKS_OF_A_DOMAIN {
                *self = Insist::All;
            }
        }
    }

    fn merge(&mut self, other: Insist) {
        match other {
            Insist::On(some) => some.into_iter().for_each(|address| self.add(address)),
            Insist::All => *self = Insist::All,
        }
    }
}

/// What became of names on trial.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// Watched from now on.
    pub kept: Vec<Name>,
    /// Not watched, as before; nothing about them need be remembered.
    pub ended: Vec<Name>,
    /// The domain is one of those, and not in the frontier any more.
    pub dropped: bool,
}

/// What a visit says of a mailbox that its owner asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Search {
    Found,
    /// It is not there, or not to be looked for.
    Over,
    /// It could not be said.
    GoesOn,
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
    /// The longest that a domain waits for its next visit by its own doing.
    pub fn longest(&self) -> u64 {
        let (good, bad) = (self.interval, self.back_off_limit);
        good.saturating_add(good / 10).max(bad.saturating_add(bad / 4))
    }

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

    /// The visit of a domain whose host rests until then, and up to a tenth of a
    /// back-off later: its domains do not all come at once.
    pub fn after_rest(&self, domain: &Domain, until: Timestamp) -> Timestamp {
        until.plus(jitter(domain, until, self.back_off / 10))
    }
}

/// 0 to `most`, spread over names and times; it needs no secret.
pub(super) fn jitter(domain: &Domain, now: Timestamp, most: u64) -> u64 {
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

    /// Takes a domain out of the queues, lets `change` its slot, and puts it
    /// back where it then belongs.
    fn change<T>(&mut self, domain: &Domain, change: impl FnOnce(&mut Slot) -> T) -> Option<T> {
        let slot = self.slots.get_mut(domain)?;
        let key = |due: Timestamp| (due, domain.clone());
        self.queue.remove(&key(slot.due));
        slot.urgent_since().map(|due| self.urgent.remove(&key(due)));
        slot.trial_due().map(|due| self.asked.remove(&key(due)));
        slot.distant.map(|due| self.distant.remove(&key(due)));
        let changed = change(slot);
        if !slot.visiting {
            if !slot.on_trial {
                self.queue.insert(key(slot.due));
            }
            self.urgent.extend(slot.urgent_since().map(key));
            self.asked.extend(slot.trial_due().map(key));
            self.distant.extend(slot.distant.map(key));
        }
        Some(changed)
    }

    /// Watches a name from now on; says whether it is new. A domain that is new
    /// is due at `due`; a new mailbox makes its domain due then at the latest.
    pub fn add(&mut self, name: &Name, due: Timestamp) -> bool {
        let domain = name.domain();
        let is_watched = self.slots.get(domain).is_some_and(|slot| !slot.on_trial);
        self.slots.entry(domain.clone()).or_insert_with(|| Slot::new(due));
        let new_user = self.change(domain, |slot| {
            if slot.on_trial {
                (slot.on_trial, slot.due) = (false, due);
            }
            let new = match name {
                Name::Domain(_) => false,
                Name::Address(address) => {
                    slot.wanted.remove(address);
                    slot.users.insert(address.clone())
                }
            };
            (new, slot.trials.remove(name).is_some())
        });
        let (new_user, was_on_trial) = new_user.unwrap_or_default();
        self.trials -= usize::from(was_on_trial);
        if new_user && is_watched {
            self.hasten(domain, due);
        }
        !is_watched || new_user
    }

    /// Looks at an unknown name at `due`, for strangers: it is watched from then
    /// on only if it [settles](Frontier::settle) well. Says whether there was
    /// room. A name that is watched needs no trial.
    pub fn try_out(&mut self, name: &Name, due: Timestamp) -> bool {
        let domain = name.domain();
        let known = self.slots.get(domain);
        let is_known = known.is_some_and(|slot| match name {
            Name::Domain(_) => !slot.on_trial || slot.distant.is_none(),
            Name::Address(address) => slot.has(address),
        });
        let is_full = self.trials >= TRIALS
            || known.is_some_and(|slot| slot.trials.len() >= TRIALS_OF_A_DOMAIN);
        let is_tried =
            known.is_some_and(|slot| slot.trials.contains_key(name) || slot.tried.contains(name));
        if is_known || is_full || is_tried {
            return false;
        }
        self.on_trial(domain, due);
        self.change(domain, |slot| slot.trials.insert(name.clone(), due));
        self.trials += 1;
        true
    }

    /// Looks at one name at once, and at its domain as far as it takes; watched
    /// or not, somebody waits. One that is not watched is on trial. Says whether
    /// there was room.
    pub fn look(&mut self, name: &Name, now: Timestamp) -> bool {
        let domain = name.domain();
        let known = self.slots.get(domain);
        if known.is_some_and(|slot| slot.looks.contains_key(name)) {
            return true;
        }
        let of_domain = known.map_or(0, |slot| slot.looks.len());
        if self.looks >= LOOKS || of_domain >= LOOKS_OF_A_DOMAIN {
            return false;
        }
        self.on_trial(domain, now);
        self.change(domain, |slot| slot.looks.insert(name.clone(), now));
        self.looks += 1;
        true
    }

    /// Looks at a domain that a peer's log names, when nothing else is to do.
    /// Says whether it is on trial then: there was room, and it is not watched.
    pub fn explore(&mut self, domain: &Domain, now: Timestamp) -> bool {
        let is_watched = self.slots.get(domain).is_some_and(|slot| !slot.on_trial);
        if is_watched || self.distant.len() >= DISTANT {
            return false;
        }
        self.on_trial(domain, now);
        self.change(domain, |slot| slot.distant = slot.distant.or(Some(now)));
        true
    }

    /// A slot, on trial if it is new.
    fn on_trial(&mut self, domain: &Domain, due: Timestamp) {
        let new = || Slot { on_trial: true, ..Slot::new(due) };
        self.slots.entry(domain.clone()).or_insert_with(new);
    }

    /// Looks for a mailbox that its owner asked for at the visits of its domain,
    /// which is watched, until it is [found](Frontier::weigh), or so many have
    /// failed. Says whether it does: there was room, and it is not watched.
    pub fn want(&mut self, address: &Address, tries: u32) -> bool {
        let slot = self.slots.get(address.domain());
        let is_wanted = slot.is_some_and(|slot| {
            let is_room = slot.wanted.len() < WANTED || slot.wanted.contains_key(address);
            !slot.on_trial && !slot.users.contains(address) && is_room
        });
        if is_wanted {
            let name = Name::Address(address.clone());
            let was_on_trial = self.change(address.domain(), |slot| {
                slot.wanted.insert(address.clone(), tries);
                slot.trials.remove(&name).is_some()
            });
            self.trials -= usize::from(was_on_trial.unwrap_or_default());
        }
        is_wanted
    }

    /// How many more visits may fail to find it; 0: it is not looked for.
    pub fn tries(&self, address: &Address) -> u32 {
        let slot = self.slots.get(address.domain());
        slot.and_then(|slot| slot.wanted.get(address)).copied().unwrap_or_default()
    }

    /// What the visit that just ended says of a mailbox that was wanted before it;
    /// says what holds from now on.
    pub fn weigh(&mut self, address: &Address, search: Search) -> Search {
        let Some(slot) = self.slots.get_mut(address.domain()) else { return Search::Over };
        let Some(tries) = slot.wanted.get_mut(address) else { return Search::GoesOn };
        *tries = tries.saturating_sub(1);
        let search = if *tries == 0 && search == Search::GoesOn { Search::Over } else { search };
        if search != Search::GoesOn {
            slot.wanted.remove(address);
        }
        match search {
            Search::Found => _ = slot.users.insert(address.clone()),
            Search::Over => _ = slot.expires.remove(address),
            Search::GoesOn => {}
        }
        search
    }

    /// Watches a mailbox that is in the frontier, or looked for, only until then;
    /// `None`: without an end. Says whether that changes anything.
    pub fn expire(&mut self, address: &Address, until: Option<Timestamp>) -> bool {
        let slot = self.slots.get_mut(address.domain());
        let Some(slot) = slot.filter(|slot| slot.has(address)) else { return false };
        match until {
            Some(until) => slot.expires.insert(address.clone(), until) != Some(until),
            None => slot.expires.remove(address).is_some(),
        }
    }

    /// Until when a mailbox is watched; `None`: it has no end, or is not watched.
    pub fn expiry(&self, address: &Address) -> Option<Timestamp> {
        self.slots.get(address.domain())?.expires.get(address).copied()
    }

    /// Whether a name is watched.
    pub fn is_watched(&self, name: &Name) -> bool {
        self.slots.get(name.domain()).is_some_and(|slot| match name {
            Name::Domain(_) => !slot.on_trial,
            Name::Address(address) => slot.users.contains(address),
        })
    }

    /// Ends the trial of what the visit that just ended looked at, after
    /// [`Frontier::done`]. `keep` says which names are to be watched.
    pub fn settle(&mut self, domain: &Domain, keep: impl Fn(&Name) -> bool) -> Settled {
        let mut settled = Settled::default();
        let is_kept = keep(&Name::Domain(domain.clone()));
        let left = self.change(domain, |slot| {
            slot.looked.clear();
            for name in std::mem::take(&mut slot.tried) {
                let Name::Address(address) = &name else { continue };
                if keep(&name) {
                    slot.wanted.remove(address);
                    if slot.users.insert(address.clone()) {
                        settled.kept.push(name);
                    }
                } else if !slot.has(address) {
                    settled.ended.push(name);
                }
            }
            if slot.on_trial && (is_kept || !slot.users.is_empty()) {
                slot.on_trial = false;
                settled.kept.push(Name::Domain(domain.clone()));
            }
            settled.dropped = slot.on_trial && slot.looks.is_empty();
            slot.trials.len()
        });
        if settled.dropped {
            settled.ended.push(Name::Domain(domain.clone()));
            self.change(domain, |slot| slot.visiting = true);
            self.slots.remove(domain);
            self.trials -= left.unwrap_or_default();
        }
        settled
    }

    /// A domain that is not in it, as read from its rows: when it is due, how often
    /// it failed, and its mailboxes, with the end of those that have one.
    pub fn restore(
        &mut self,
        domain: &Domain,
        due: Timestamp,
        failures: u32,
        mailboxes: impl IntoIterator<Item = (Address, Option<Timestamp>)>,
    ) {
        let mut slot = Slot { failures, ..Slot::new(due) };
        for (address, expires) in mailboxes {
            slot.expires.extend(expires.map(|expires| (address.clone(), expires)));
            slot.users.insert(address);
        }
        if let Entry::Vacant(vacant) = self.slots.entry(domain.clone()) {
            vacant.insert(slot);
            self.queue.insert((due, domain.clone()));
        }
    }

    /// Its row says that it is due then.
    pub fn stored(&mut self, domain: &Domain, due: Timestamp) {
        if let Some(slot) = self.slots.get_mut(domain) {
            slot.stored = Some(due);
        }
    }

    /// It has mailboxes that no row tells of: it is not evicted any more.
    pub fn pin(&mut self, domain: &Domain) {
        if let Some(slot) = self.slots.get_mut(domain) {
            slot.pinned = true;
        }
    }

    /// Takes out a domain whose rows say all there is to say of it, unless it is
    /// due by `horizon`. `Some`: it may be so after that time.
    pub fn evict(
        &mut self,
        domain: &Domain,
        horizon: Timestamp,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let slot = self.slots.get(domain)?;
        let is_asked_for = slot.urgent_since().or(slot.trial_due()).or(slot.distant).is_some();
        let is_busy = slot.visiting || slot.on_trial || !slot.tried.is_empty();
        let is_told = slot.stored == Some(slot.due) && slot.reached.is_none() && !slot.pinned;
        if is_asked_for || is_busy || !is_told || slot.due <= horizon {
            return None;
        }
        if slot.trials_after > now {
            return Some(slot.trials_after);
        }
        self.queue.remove(&(slot.due, domain.clone()));
        self.slots.remove(domain);
        None
    }

    /// The clock was set back by so much: no time that lies ahead is further off
    /// than it was, though some are nearer.
    pub fn set_back(&mut self, now: Timestamp, back: u64) {
        let nearer = |at: &mut Timestamp| {
            if *at > now {
                *at = now.max(Timestamp::from_millis(at.millis().saturating_sub(back)));
            }
        };
        for domain in self.slots.keys().cloned().collect::<Vec<_>>() {
            self.change(&domain, |slot| {
                nearer(&mut slot.due);
                nearer(&mut slot.trials_after);
                let times = slot.trials.values_mut().chain(slot.looks.values_mut());
                times.chain(&mut slot.urged).chain(&mut slot.distant).for_each(nearer);
            });
        }
    }

    /// Whether it has the domain, watched or on trial.
    pub fn contains(&self, domain: &Domain) -> bool {
        self.slots.contains_key(domain)
    }

    /// Whether somebody's turn has come who need not stand back for those that are
    /// due after `horizon` and not in it.
    pub fn is_due(&self, now: Timestamp, horizon: Timestamp) -> bool {
        let by = |queue: &BTreeSet<(Timestamp, Domain)>, time: Timestamp| {
            queue.first().is_some_and(|(due, _)| *due <= time)
        };
        by(&self.urgent, now) || by(&self.asked, now) || by(&self.queue, now.min(horizon))
    }

    /// Makes a domain due at `due` unless it is sooner. While it is visited,
    /// the next visit follows that one.
    pub fn hasten(&mut self, domain: &Domain, due: Timestamp) {
        self.change(domain, |slot| {
            slot.again |= slot.visiting;
            if !slot.visiting {
                slot.due = slot.due.min(due);
            }
        });
    }

    /// The same at once and before all others: somebody waits.
    pub fn urge(&mut self, domain: &Domain, now: Timestamp) {
        self.change(domain, |slot| {
            slot.urged = Some(slot.urged.map_or(now, |urged| urged.min(now)));
        });
    }

    /// The same for a domain's owner: once in [`TRIAL_GAP`]. A name that is not
    /// watched is on trial, since owners may be anybody; one that is on trial
    /// for a stranger does not wait for that any more (threat 21).
    pub fn request(&mut self, name: &Name, now: Timestamp) -> bool {
        let domain = name.domain();
        let hastened = self.change(domain, |slot| {
            slot.trials.get_mut(name).map(|due| *due = now.min(*due)).is_some()
        });
        let is_tried = self.try_out(name, now) || hastened.unwrap_or_default();
        let is_watched = self.slots.get(domain).is_some_and(|slot| !slot.on_trial);
        if is_watched {
            self.change(domain, |slot| {
                slot.urged = slot.urged.or(Some(now.max(slot.trials_after)));
                if let Name::Address(address) = name {
                    slot.asked.add(address.clone());
                }
            });
        }
        is_tried || is_watched
    }

    /// The domain that is due, which is being visited from now on: one that is
    /// waited for, else one with names on trial, else the one due the longest,
    /// else one of a peer's log.
    pub fn next(&mut self, now: Timestamp) -> Option<Job> {
        let queues = self.queues();
        let due = |queue: &&BTreeSet<(Timestamp, Domain)>| {
            queue.first().filter(|(due, _)| *due <= now).map(|(_, domain)| domain.clone())
        };
        let domain = queues.iter().find_map(due)?;
        let (job, tried, looked) = self.change(&domain, |slot| {
            // Whoever waits sees all, but for what is on trial and not due.
            let urged = slot.urged.is_some();
            let looked_at = !slot.looks.is_empty();
            slot.partial = !urged && (slot.on_trial || slot.due > now || looked_at);
            (slot.visiting, slot.again, slot.urged) = (true, false, None);
            // A visit for whoever waits is a visit anyhow.
            let after = if slot.partial { slot.trials_after } else { Timestamp::default() };
            slot.tried = slot
                .trials
                .iter()
                .filter(|(_, due)| (**due).max(after) <= now)
                .map(|(name, _)| name.clone())
                .collect();
            slot.trials.retain(|name, _| !slot.tried.contains(name));
            let tried = slot.tried.len();
            let looks = std::mem::take(&mut slot.looks);
            for name in looks.keys() {
                if !slot.tried.contains(name) {
                    slot.tried.push(name.clone());
                }
            }
            let looked = looks.len();
            if !slot.partial {
                slot.insisting = std::mem::take(&mut slot.asked);
            }
            let mut insist = slot.insisting.clone();
            looks.keys().filter_map(Name::address).for_each(|look| insist.add(look.clone()));
            slot.looked = looks.into_keys().collect();
            slot.distant = None;
            let over = |address: &&Address| slot.expires.get(*address).is_some_and(|at| *at <= now);
            let lapsed: Vec<Address> = slot.users.iter().filter(over).cloned().collect();
            for address in &lapsed {
                slot.users.remove(address);
                slot.expires.remove(address);
            }
            if urged || slot.partial && (tried > 0 || !looked_at) {
                slot.trials_after = now.plus(TRIAL_GAP);
            }
            // Those that the last visit did not come to are first.
            let watched = slot.users.iter().filter(|_| !slot.partial).cloned();
            let (before, after): (Vec<_>, Vec<_>) =
                watched.partition(|user| slot.reached.as_ref() >= Some(user));
            let wanted = slot.wanted.keys().filter(|_| !slot.partial).cloned();
            let wanted: Vec<Address> = wanted.collect();
            let mut users: Vec<Address> =
                wanted.iter().cloned().chain(after).chain(before).collect();
            for name in &slot.tried {
                match name {
                    Name::Address(address) if slot.partial || !slot.has(address) => {
                        users.push(address.clone());
                    }
                    _ => {}
                }
            }
            let job = Job {
                failures: slot.failures,
                domain: domain.clone(),
                users,
                lapsed,
                wanted,
                partial: slot.partial,
                insist,
            };
            (job, tried, looked)
        })?;
        self.trials -= tried;
        self.looks -= looked;
        Some(job)
    }

    /// In the order of their turn.
    fn queues(&self) -> [&BTreeSet<(Timestamp, Domain)>; 4] {
        [&self.urgent, &self.asked, &self.queue, &self.distant]
    }

    /// A visit ended: the domain is due again at `due`, or at `now` if it was
    /// asked for meanwhile; after a partial one when it was due before. Returns
    /// the time that counts.
    pub fn done(
        &mut self,
        domain: &Domain,
        now: Timestamp,
        due: Timestamp,
        failures: u32,
    ) -> Timestamp {
        let counts = self.change(domain, |slot| {
            if !slot.partial || slot.on_trial {
                (slot.due, slot.failures) = (due, failures);
            }
            if slot.again {
                slot.due = now;
            }
            let insisting = std::mem::take(&mut slot.insisting);
            // It did not come to all of them.
            if !slot.partial && (failures > 0 || slot.reached.is_some()) {
                slot.asked.merge(insisting);
            }
            (slot.visiting, slot.again, slot.partial) = (false, false, false);
            slot.due
        });
        counts.unwrap_or(due)
    }

    /// The visit did not take place: whatever it was for is due at `at`.
    pub fn postpone(&mut self, domain: &Domain, at: Timestamp) {
        let (tried, looked) = self
            .change(domain, |slot| {
                let before = (slot.trials.len(), slot.looks.len());
                // A look stays one: its signet is fetched, whatever the DX says.
                let looked = std::mem::take(&mut slot.looked);
                let mut tried = std::mem::take(&mut slot.tried);
                tried.retain(|name| !looked.contains(name));
                slot.trials.extend(tried.into_iter().map(|name| (name, at)));
                for name in looked {
                    slot.looks.entry(name).or_insert(at);
                }
                let insisting = std::mem::take(&mut slot.insisting);
                slot.asked.merge(insisting);
                match slot.partial {
                    true => slot.trials_after = slot.trials_after.min(at),
                    false => slot.due = at,
                }
                (slot.visiting, slot.again, slot.partial) = (false, false, false);
                (slot.trials.len() - before.0, slot.looks.len() - before.1)
            })
            .unwrap_or_default();
        self.trials += tried;
        self.looks += looked;
    }

    /// A visit's time was up after this mailbox; `None`: it came to the end.
    pub fn reached(&mut self, domain: &Domain, user: Option<Address>) {
        if let Some(slot) = self.slots.get_mut(domain).filter(|slot| !slot.partial) {
            slot.reached = user;
        }
    }

    /// When the next domain is due, if any waits.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.queues().iter().filter_map(|queue| queue.first()).map(|(due, _)| *due).min()
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
    fn a_visit_that_is_put_off_is_due_for_all_it_was_for() {
        let mut frontier = Frontier::new();
        let (a, x, y) = (name("a.example"), name("x@a.example"), name("y@a.example"));
        frontier.add(&a, at(10));
        frontier.try_out(&x, at(10));
        let job = frontier.next(at(10)).unwrap();
        assert_eq!(job.users.len(), 1);
        frontier.postpone(a.domain(), at(50));
        assert_eq!(frontier.next(at(49)), None);
        // Its trial goes on with it, and is still the only one of its kind.
        assert!(!frontier.try_out(&x, at(20)));
        assert!(frontier.try_out(&y, at(1_000_000)));
        let job = frontier.next(at(50)).unwrap();
        assert_eq!(job.users.len(), 1);
        frontier.done(a.domain(), at(50), at(500_000), 0);
        assert_eq!(frontier.settle(a.domain(), |name| *name == x).kept, [x]);
    }

    /// Whoever compares what is served still does, and before all others.
    #[test]
    fn a_look_that_is_put_off_stays_a_look() {
        let mut frontier = Frontier::new();
        let (a, x, y) = (name("a.example"), name("x@a.example"), name("y@a.example"));
        frontier.add(&a, at(1000));
        frontier.try_out(&x, at(10));
        for looked in [&x, &y] {
            assert!(frontier.look(looked, at(10)));
        }
        let job = frontier.next(at(10)).unwrap();
        assert_eq!((job.users.len(), job.partial), (2, true));
        assert!([&x, &y].iter().all(|name| job.insist.has(name.address().unwrap())));
        // Somebody asks for one of them meanwhile.
        assert!(frontier.look(&y, at(20)));
        frontier.postpone(a.domain(), at(50));
        assert_eq!((frontier.trials, frontier.looks), (0, 2));
        assert_eq!(frontier.next_due(), Some(at(20)));
        let job = frontier.next(at(50)).unwrap();
        assert_eq!((job.users.len(), job.partial), (2, true));
        assert!([&x, &y].iter().all(|name| job.insist.has(name.address().unwrap())));
        frontier.done(a.domain(), at(50), at(5000), 0);
        assert_eq!(frontier.settle(a.domain(), |name| *name == x).kept, [x]);
        assert_eq!((frontier.trials, frontier.looks, frontier.next_due()), (0, 0, Some(at(1000))));
    }

    /// Until a visit has come to it.
    #[test]
    fn what_was_asked_for_is_insisted_on() {
        let mut frontier = Frontier::new();
        let (x, y) = (name("x@a.example"), name("y@a.example"));
        for name in [&x, &y] {
            frontier.add(name, at(0));
        }
        let a: Domain = "a.example".parse().unwrap();
        let insists = |job: &Job| [&x, &y].map(|name| job.insist.has(name.address().unwrap()));
        let job = frontier.next(at(0)).unwrap();
        assert_eq!(insists(&job), [false, false]);
        frontier.request(&x, at(1));
        frontier.done(&a, at(5), at(900_000), 0);
        // The host is busy, then down, then the visit's time is up.
        let mut now = 100_000;
        for visit in 0..4 {
            let job = frontier.next(at(now)).unwrap();
            assert_eq!(insists(&job), [true, false], "{visit}");
            now += 1000;
            if visit == 0 {
                frontier.postpone(&a, at(now));
                continue;
            }
            frontier.reached(&a, (visit == 2).then(|| y.address().unwrap().clone()));
            frontier.done(&a, at(now), at(now), u32::from(visit == 1));
        }
        assert_eq!(insists(&frontier.next(at(now)).unwrap()), [false, false]);
        frontier.done(&a, at(now), at(now), 0);
        // Many others are no way round it.
        for n in 0..=LOOKS_OF_A_DOMAIN {
            frontier.request(&name(&format!("u{n}@a.example")), at(now));
        }
        now += TRIAL_GAP;
        assert_eq!(insists(&frontier.next(at(now)).unwrap()), [true, true]);
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
        frontier.restore(&"a.example".parse().unwrap(), at(1000), 3, []);
        assert_eq!(frontier.next_due(), Some(at(1000)));
        frontier.add(&name("x@a.example"), at(10));
        assert_eq!(frontier.next_due(), Some(at(10)));
        frontier.hasten(&"a.example".parse().unwrap(), at(500));
        assert_eq!(frontier.next_due(), Some(at(10)));
        assert_eq!(frontier.len(), 1);
    }

    #[test]
    fn only_what_a_row_can_bring_back_is_let_go_of() {
        let mut frontier = Frontier::new();
        let a: Domain = "a.example".parse().unwrap();
        let x: Address = "x@a.example".parse().unwrap();
        let (late, soon) = (at(100_000), at(50_000));
        let is_gone = |frontier: &mut Frontier, now| {
            let until = frontier.evict(&a, soon, now);
            (until, !frontier.contains(&a))
        };
        let restore = |frontier: &mut Frontier, due| {
            frontier.restore(&a, due, 2, [(x.clone(), Some(at(1_000_000)))]);
            frontier.stored(&a, due);
        };
        // Without a row, or due too soon.
        frontier.add(&name("a.example"), late);
        assert_eq!(is_gone(&mut frontier, at(0)), (None, false));
        frontier.stored(&a, late);
        assert_eq!(is_gone(&mut frontier, at(0)), (None, true));
        restore(&mut frontier, soon);
        assert_eq!(is_gone(&mut frontier, at(0)), (None, false));
        // Somebody waits, then it is visited, then due when the row does not say.
        frontier.urge(&a, at(1));
        assert_eq!(is_gone(&mut frontier, at(1)), (None, false));
        let job = frontier.next(at(1)).unwrap();
        assert_eq!((job.users.as_slice(), job.failures), (&[x.clone()][..], 2));
        assert_eq!(is_gone(&mut frontier, at(1)), (None, false));
        frontier.done(&a, at(2), late, 0);
        assert_eq!(is_gone(&mut frontier, at(2)), (None, false));
        frontier.stored(&a, late);
        // Its owner may not have it visited again at once.
        let gap = at(1).plus(TRIAL_GAP);
        assert_eq!(is_gone(&mut frontier, at(2)), (Some(gap), false));
        assert!(frontier.try_out(&name("y@a.example"), at(3)));
        assert_eq!(is_gone(&mut frontier, gap), (None, false));
        frontier.next(gap).unwrap();
        frontier.done(&a, gap, late, 0);
        frontier.settle(&a, |_| false);
        assert_eq!(is_gone(&mut frontier, gap.plus(TRIAL_GAP)), (None, true));
        assert!(frontier.is_empty() && frontier.next_due().is_none());
        restore(&mut frontier, late);
        assert_eq!(frontier.expiry(&x), Some(at(1_000_000)));
        frontier.pin(&a);
        assert_eq!(is_gone(&mut frontier, at(0)), (None, false));
    }

    #[test]
    fn a_clock_that_was_ahead_puts_nobody_off() {
        let mut frontier = Frontier::new();
        let (a, b, c) = (name("a.example"), name("b.example"), name("c.example"));
        frontier.add(&a, at(1_000_070));
        frontier.add(&b, at(1_000_020));
        frontier.try_out(&c, at(1_000_005));
        frontier.urge(b.domain(), at(1_000_000));
        frontier.look(&a, at(1_000_000));
        frontier.set_back(at(50), 999_950);
        let mut turns = Vec::new();
        for now in [50, 54, 55] {
            while let Some(job) = frontier.next(at(now)) {
                frontier.done(&job.domain, at(now), at(1_000_100), 0);
                turns.push((now, job.domain.to_string()));
            }
        }
        let expected = [(50, "a.example"), (50, "b.example"), (55, "c.example")];
        let expected: Vec<_> =
            expected.iter().map(|(at, name)| (*at, (*name).to_owned())).collect();
        assert_eq!(turns, expected);
    }

    #[test]
    fn nobody_is_before_those_who_are_not_in_memory_yet() {
        let mut frontier = Frontier::new();
        frontier.add(&name("a.example"), at(60));
        assert!(!frontier.is_due(at(59), at(1000)));
        assert!(!frontier.is_due(at(90), at(59)));
        assert!(frontier.is_due(at(90), at(60)));
        frontier.urge(&"a.example".parse().unwrap(), at(70));
        assert!(frontier.is_due(at(90), at(0)));
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
    fn whoever_waits_is_first_and_strangers_before_routine() {
        let mut frontier = Frontier::new();
        for domain in ["a.example", "b.example"] {
            frontier.add(&name(domain), at(0));
        }
        assert!(frontier.try_out(&name("c.example"), at(8)));
        frontier.urge(&"b.example".parse().unwrap(), at(9));
        let mut next = || frontier.next(at(10)).map(|job| job.domain.to_string());
        assert_eq!(next().as_deref(), Some("b.example"));
        assert_eq!(next().as_deref(), Some("c.example"));
        assert_eq!(next().as_deref(), Some("a.example"));
        assert_eq!(next(), None);
        let b = "b.example".parse().unwrap();
        frontier.urge(&b, at(11));
        frontier.done(&b, at(12), at(900), 0);
        assert_eq!(frontier.next(at(12)).unwrap().domain, b);
    }

    #[test]
    fn a_trial_looks_at_what_was_asked_for_and_keeps_what_is_there() {
        let mut frontier = Frontier::new();
        let domain: Domain = "a.example".parse().unwrap();
        frontier.add(&name("x@a.example"), at(100_000));
        assert!(!frontier.try_out(&name("x@a.example"), at(5)));
        assert!(!frontier.try_out(&name("a.example"), at(5)));
        assert!(frontier.try_out(&name("y@a.example"), at(5)));
        assert!(!frontier.try_out(&name("y@a.example"), at(5)));
        assert!(frontier.try_out(&name("z@a.example"), at(20)));
        let job = frontier.next(at(10)).unwrap();
        assert_eq!((job.users, job.partial), (vec!["y@a.example".parse().unwrap()], true));
        assert_eq!(frontier.done(&domain, at(11), at(900_000), 3), at(100_000));
        let settled = frontier.settle(&domain, |name| name.as_str() == "y@a.example");
        assert_eq!(settled, Settled { kept: vec![name("y@a.example")], ..Settled::default() });
        // The next names of the domain wait a while, and no longer than its turn.
        assert_eq!(frontier.next(at(60_009)), None);
        let job = frontier.next(at(60_010)).unwrap();
        assert_eq!((job.users.len(), job.failures), (1, 0));
        frontier.done(&domain, at(60_011), at(0), 0);
        let settled = frontier.settle(&domain, |_| false);
        assert_eq!(settled, Settled { ended: vec![name("z@a.example")], ..Settled::default() });
        assert_eq!(frontier.next(at(100_000)).unwrap().users.len(), 2);
        assert_eq!(frontier.trials, 0);
    }

    #[test]
    fn owners_are_served_at_once_and_once_a_minute() {
        let mut frontier = Frontier::new();
        let domain: Domain = "a.example".parse().unwrap();
        frontier.add(&name("x@a.example"), at(900_000));
        assert!(frontier.request(&name("a.example"), at(5)));
        assert!(frontier.request(&name("y@a.example"), at(5)));
        let job = frontier.next(at(5)).unwrap();
        assert_eq!((job.users.len(), job.partial), (2, false));
        frontier.done(&domain, at(6), at(900_000), 0);
        frontier.settle(&domain, |_| false);
        assert!(frontier.request(&name("a.example"), at(7)));
        assert_eq!(frontier.next(at(60_004)), None);
        assert!(frontier.next(at(60_005)).is_some());
        frontier.done(&domain, at(60_006), at(900_000), 0);
        frontier.settle(&domain, |_| false);
        // A stranger's question just before does not put an owner off.
        assert!(frontier.try_out(&name("z@a.example"), at(600_000)));
        assert!(frontier.request(&name("z@a.example"), at(200_000)));
        assert_eq!(frontier.next(at(200_000)).unwrap().users.len(), 2);
    }

    #[test]
    fn what_an_owner_wants_is_looked_for_until_it_is_found() {
        let mut frontier = Frontier::new();
        let domain: Domain = "a.example".parse().unwrap();
        let (x, y): (Address, Address) =
            ("x@a.example".parse().unwrap(), "y@a.example".parse().unwrap());
        assert!(!frontier.want(&x, 3), "the domain is not watched");
        frontier.add(&name("u@a.example"), at(900_000));
        assert!(!frontier.want(&"u@a.example".parse().unwrap(), 3));
        // A stranger asked before, and asks again.
        assert!(frontier.try_out(&name("x@a.example"), at(800_000)));
        for address in [&x, &y] {
            assert!(frontier.want(address, 3));
            assert!(frontier.request(&Name::Address(address.clone()), at(5)));
        }
        assert!(!frontier.try_out(&name("x@a.example"), at(5)));
        assert_eq!(frontier.trials, 0);
        let mut visit = |now: u64, of_x: Search, of_y: Search| {
            let job = frontier.next(at(now)).unwrap();
            frontier.done(&domain, at(now), at(now + 1000), 0);
            assert!(frontier.settle(&domain, |_| false).ended.is_empty());
            let searches = job.wanted.iter().map(|address| {
                let search = if *address == x { of_x } else { of_y };
                frontier.weigh(address, search)
            });
            let searches = searches.collect::<Vec<_>>();
            let users: String = job.users.iter().map(|user| user.local()).collect();
            (users, searches, frontier.tries(&x), frontier.tries(&y))
        };
        use Search::{Found, GoesOn, Over};
        let xyu = || "xyu".to_owned();
        assert_eq!(visit(5, GoesOn, GoesOn), (xyu(), vec![GoesOn, GoesOn], 2, 2));
        assert_eq!(visit(1005, GoesOn, Over), (xyu(), vec![GoesOn, Over], 1, 0));
        assert_eq!(visit(2005, Found, Over), ("xu".to_owned(), vec![Found], 0, 0));
        assert!(frontier.is_watched(&Name::Address(x)) && !frontier.is_watched(&name(y.as_str())));
        // The last try is one.
        assert!(frontier.want(&y, 1));
        assert_eq!(frontier.weigh(&y, GoesOn), Over);
        assert_eq!(frontier.tries(&y), 0);
        let wanted = (0..2 * WANTED)
            .filter(|n| frontier.want(&format!("w{n}@a.example").parse().unwrap(), 1));
        assert_eq!(wanted.count(), WANTED);
    }

    #[test]
    fn a_domain_on_trial_that_is_none_leaves_nothing_behind() {
        let mut frontier = Frontier::new();
        let domain: Domain = "a.example".parse().unwrap();
        assert!(frontier.try_out(&name("x@a.example"), at(5)));
        assert!(frontier.try_out(&name("y@a.example"), at(500)));
        let job = frontier.next(at(5)).unwrap();
        assert_eq!(job.users.len(), 1);
        frontier.done(&domain, at(6), at(7), 1);
        assert!(frontier.settle(&domain, |_| false).dropped);
        assert!(frontier.is_empty() && frontier.next_due().is_none() && frontier.trials == 0);

        assert!(frontier.try_out(&name("a.example"), at(5)));
        frontier.next(at(5)).unwrap();
        frontier.done(&domain, at(6), at(70), 0);
        assert_eq!(frontier.settle(&domain, |_| true).kept, [name("a.example")]);
        assert_eq!(frontier.next_due(), Some(at(70)));
        assert!(!frontier.next(at(70)).unwrap().partial);
    }

    #[test]
    fn a_name_on_trial_may_be_watched_for_other_reasons() {
        let mut frontier = Frontier::new();
        assert!(frontier.try_out(&name("x@a.example"), at(50)));
        assert!(frontier.add(&name("x@a.example"), at(9)));
        assert_eq!((frontier.trials, frontier.next_due()), (0, Some(at(9))));
        assert!(!frontier.next(at(9)).unwrap().partial);
    }

    #[test]
    fn a_look_is_at_one_name_and_before_all_others() {
        let mut frontier = Frontier::new();
        let domain: Domain = "a.example".parse().unwrap();
        for user in ["x@a.example", "y@a.example"] {
            frontier.add(&name(user), at(900_000));
        }
        frontier.add(&name("b.example"), at(0));
        assert!(frontier.look(&name("x@a.example"), at(5)));
        assert!(frontier.look(&name("x@a.example"), at(6)));
        assert!(frontier.look(&name("new@a.example"), at(6)));
        let job = frontier.next(at(7)).unwrap();
        let users: Vec<_> = job.users.iter().map(|user| user.local()).collect();
        assert_eq!((users, job.partial), (vec!["new", "x"], true));
        assert!(job.users.iter().all(|user| job.insist.has(user)));
        // Asked for meanwhile: once more, with no gap between.
        assert!(frontier.look(&name("y@a.example"), at(8)));
        assert_eq!(frontier.done(&domain, at(9), at(5_000_000), 1), at(900_000));
        let settled = frontier.settle(&domain, |name| name.as_str() == "x@a.example");
        let ended = vec![name("new@a.example")];
        assert_eq!(settled, Settled { ended, ..Settled::default() });
        assert_eq!(frontier.next(at(9)).unwrap().users, ["y@a.example".parse().unwrap()]);
        frontier.done(&domain, at(9), at(0), 0);
        frontier.settle(&domain, |_| false);
        assert_eq!((frontier.looks, frontier.trials), (0, 0));
        assert_eq!(frontier.next(at(900_000)).unwrap().domain.as_str(), "b.example");
        assert_eq!(frontier.next(at(900_000)).unwrap().users.len(), 2);
    }

    #[test]
    fn a_look_at_an_unknown_domain_leaves_nothing_behind() {
        let mut frontier = Frontier::new();
        let domain: Domain = "a.example".parse().unwrap();
        assert!(frontier.look(&name("x@a.example"), at(0)));
        frontier.next(at(0)).unwrap();
        assert!(frontier.look(&name("y@a.example"), at(1)));
        frontier.done(&domain, at(1), at(9), 1);
        // Somebody waits for another name of it.
        assert!(!frontier.settle(&domain, |_| false).dropped);
        assert_eq!(frontier.next(at(1)).unwrap().users.len(), 1);
        frontier.done(&domain, at(2), at(9), 1);
        assert!(frontier.settle(&domain, |_| false).dropped);
        assert!(frontier.is_empty() && frontier.next_due().is_none() && frontier.looks == 0);
    }

    #[test]
    fn a_peers_domains_come_last_and_are_bounded() {
        let mut frontier = Frontier::new();
        frontier.add(&name("own.example"), at(50));
        assert!(!frontier.explore(&"own.example".parse().unwrap(), at(0)));
        assert!(frontier.explore(&"far.example".parse().unwrap(), at(0)));
        assert!(frontier.explore(&"far.example".parse().unwrap(), at(1)));
        assert_eq!(frontier.next(at(60)).unwrap().domain.as_str(), "own.example");
        let job = frontier.next(at(60)).unwrap();
        assert_eq!((job.domain.as_str(), job.partial), ("far.example", true));
        frontier.done(&job.domain, at(61), at(500), 0);
        assert!(frontier.settle(&job.domain, |_| false).dropped);
        let fit = (0..2 * DISTANT)
            .filter(|n| frontier.explore(&format!("x{n}.example").parse().unwrap(), at(0)))
            .count();
        assert_eq!(fit, DISTANT);
    }

    #[test]
    fn what_only_peers_asked_for_is_watched_for_a_while() {
        let mut frontier = Frontier::new();
        let (x, y): (Address, Address) =
            ("x@a.example".parse().unwrap(), "y@a.example".parse().unwrap());
        for address in [&x, &y] {
            frontier.add(&Name::Address(address.clone()), at(0));
            assert!(frontier.expire(address, Some(at(100))));
        }
        assert!(!frontier.expire(&"z@a.example".parse().unwrap(), Some(at(100))));
        let job = frontier.next(at(99)).unwrap();
        assert_eq!((job.users.len(), job.lapsed.len()), (2, 0));
        frontier.done(&job.domain, at(99), at(200), 0);
        // Somebody here asks for one of them.
        assert!(frontier.expire(&x, None));
        assert_eq!((frontier.expiry(&x), frontier.expiry(&y)), (None, Some(at(100))));
        let job = frontier.next(at(200)).unwrap();
        assert_eq!((job.users, job.lapsed), (vec![x.clone()], vec![y.clone()]));
        assert!(frontier.is_watched(&Name::Address(x)) && !frontier.is_watched(&Name::Address(y)));
    }

    #[test]
    fn strangers_find_bounded_room() {
        let mut frontier = Frontier::new();
        let added = (0..2 * TRIALS_OF_A_DOMAIN)
            .filter(|n| frontier.try_out(&name(&format!("x{n}@a.example")), at(0)))
            .count();
        assert_eq!(added, TRIALS_OF_A_DOMAIN);
        let more = (0..2 * TRIALS)
            .filter(|n| frontier.try_out(&name(&format!("x{n}.example")), at(0)))
            .count();
        assert_eq!(added + more, TRIALS);
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
