//! Manners towards DX hosts, whatever number of domains share one: how many
//! connections at once and how many new ones a second to an address, how many
//! to one IPv6 /64, whose addresses cost nothing, and a breaker for a host that
//! fails again and again. No I/O.
//!
//! Nobody waits here: who comes too early is told when to come back, and is
//! given a time of its own, so that ten thousand domains of one host are spread
//! and hold up nobody else. By these times all names of one registered domain are
//! one visitor, since further names are for nothing. Whoever comes at the right
//! moment gets in; but the turn of one that was told to come back for a minute is
//! kept: a free connection is then for the one that has waited longest. Who was let
//! in stands last again, so each has its turn after those that stood before it,
//! whatever they do.
//!
//! Addresses are counted, names are not, since a stranger's name may lead to
//! anybody's address; the breaker goes by the name and the address, since a
//! stranger's broken name must not shut out others. In memory only: after a restart
//! all hosts are as new.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::clock::Latest;
use crate::dime::{Domain, Timestamp};

/// Addresses, and failing hosts, that are remembered. Beyond it those that are
/// idle are forgotten; if none is, more are not counted.
const REMEMBERED: usize = 1 << 16;
/// Connections at once to one IPv6 /64, or as many as one address may have if
/// those are more.
const OF_A_NETWORK: usize = 16;
/// For whom no connection is free, or while a probe is under way, milliseconds.
const PAUSE: u64 = 1000;
/// Who waits for a host takes its chance with all others for so long, which serves
/// most of them soonest. Then its turn is kept. Milliseconds.
const PATIENCE: u64 = 60_000;
/// A turn is kept for so long before and after the time that was told; who does not
/// come then is passed over, and stands where it stood when it does. Milliseconds.
const GRACE: u64 = 5000;
/// Who does not come for so long stands in no line any more, milliseconds.
const GONE: u64 = 600_000;
/// Registered domains in line at one address or network. More take their chance.
const IN_LINE: usize = 4096;

/// How much of one host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once to one address, at least 1 (reference §6.10).
    pub connections: usize,
    /// New connections a second to one address, at least 1, after the burst.
    pub per_second: u32,
    /// New connections that may come at once.
    pub burst: u32,
    /// Failures in a row after which a host is left alone; 0: never.
    pub failures: u32,
    /// For how long at first, milliseconds; doubles with each probe that fails.
    pub rest: u64,
    /// The longest rest, milliseconds.
    pub rest_limit: u64,
}

impl Default for Limits {
    /// 4 connections, 20 a second after 64; 5 failures, a minute up to an hour.
    fn default() -> Limits {
        Limits {
            connections: 4,
            per_second: 20,
            burst: 64,
            failures: 5,
            rest: 60_000,
            rest_limit: 3_600_000,
        }
    }
}

/// All hosts that are being talked to, or were a moment ago.
#[derive(Debug)]
pub struct Hosts {
    limits: Limits,
    tables: Mutex<Tables>,
}

#[derive(Debug, Default)]
struct Tables {
    addresses: HashMap<Place, Traffic>,
    /// Only hosts that failed last.
    breakers: HashMap<Host, Breaker>,
    latest: Latest,
}

/// What connections are counted by: an address and the network it is in, or an
/// onion host's name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Place {
    Address(IpAddr),
    Network([u8; 8]),
    Onion(String),
}

/// The /64 of an IPv6 address: as a rule one customer has all of it.
pub(super) fn network(ip: IpAddr) -> Option<[u8; 8]> {
    match ip.to_canonical() {
        IpAddr::V4(_) => None,
        IpAddr::V6(ip) => ip.octets().first_chunk().copied(),
    }
}

/// Where a connection counts, the wider place first.
fn places(name: &str, addr: SocketAddr) -> Vec<Place> {
    if addr.ip().is_unspecified() {
        return vec![Place::Onion(name.to_owned())];
    }
    let network = network(addr.ip()).map(Place::Network);
    network.into_iter().chain([Place::Address(addr.ip().to_canonical())]).collect()
}

/// What fails: a name at an address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Host {
    name: String,
    addr: SocketAddr,
}

#[derive(Debug, Default)]
struct Traffic {
    open: usize,
    /// When the next connection would be due if all came evenly.
    even: Timestamp,
    /// Registered domains that were told to come back.
    waiting: HashMap<Domain, Wait>,
    /// Those in line, since when, the longest first.
    line: BTreeSet<(Timestamp, Domain)>,
}

/// A registered domain at a place.
#[derive(Debug, Default)]
struct Wait {
    /// Since when it stands in line; `None` after it was let in.
    since: Option<Timestamp>,
    /// When the first of it comes back.
    due: Timestamp,
    /// The last time that was given to one of it.
    promised: Timestamp,
}

#[derive(Debug, Default)]
struct Breaker {
    failures: u32,
    until: Timestamp,
    probing: bool,
}

/// Why somebody is to come back later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Later {
    /// The host has its hands full with us.
    Busy(Timestamp),
    /// The host failed too often.
    Resting(Timestamp),
}

impl Later {
    pub fn at(self) -> Timestamp {
        match self {
            Later::Busy(at) | Later::Resting(at) => at,
        }
    }

    pub fn words(self) -> &'static str {
        match self {
            Later::Busy(_) => "the host has as many connections of ours as it should",
            Later::Resting(_) => "the host failed again and again, and is left alone for a while",
        }
    }
}

/// One connection to a host; given back when dropped.
#[derive(Debug)]
#[must_use]
pub struct Seat {
    hosts: Arc<Hosts>,
    host: Host,
    /// Where it counts.
    places: Vec<Place>,
    probe: bool,
}

impl Hosts {
    pub fn new(limits: Limits) -> Arc<Hosts> {
        Arc::new(Hosts { limits, tables: Mutex::default() })
    }

    /// A connection to `addr`, which is known as `name`, for a domain that is or is
    /// below the registered domain `who`; of an onion host only the name and the
    /// port count.
    pub(super) fn enter(
        self: &Arc<Self>,
        name: &str,
        addr: SocketAddr,
        who: &Domain,
        now: Timestamp,
    ) -> Result<Seat, Later> {
        let host = Host { name: name.to_owned(), addr };
        let mut tables = self.tables();
        if tables.latest.set_back(now).is_some() {
            tables.begin_anew(now);
        }
        let probe = match tables.breakers.get_mut(&host) {
            Some(breaker) if self.is_open(breaker) => {
                if now < breaker.until {
                    return Err(Later::Resting(breaker.until));
                }
                if breaker.probing {
                    return Err(Later::Resting(now.plus(PAUSE)));
                }
                true
            }
            _ => false,
        };
        let step = self.step();
        let places = places(name, addr);
        for place in &places {
            let Some(traffic) = tables.traffic(place, now) else {
                return Err(Later::Busy(now.plus(PAUSE)));
            };
            let free = self.free(place, traffic, now);
            if free == 0 || traffic.is_kept_for_others(who, free, now) {
                let is_full = traffic.open >= self.connections(place);
                let pause = if is_full { PAUSE / 4 } else { step };
                return Err(Later::Busy(traffic.promise(who, pause, step, now)));
            }
        }
        for place in &places {
            let traffic = tables.addresses.entry(place.clone()).or_default();
            traffic.even = traffic.even.max(now).plus(step);
            traffic.open += 1;
            traffic.served(who, now);
        }
        if probe && let Some(breaker) = tables.breakers.get_mut(&host) {
            breaker.probing = true;
        }
        Ok(Seat { hosts: Arc::clone(self), host, places, probe })
    }

    /// Whether `who` may have one of the connections that are kept there, `kept` of
    /// them, or are free: none whose turn it is stands before it.
    pub(super) fn is_turn_of(
        &self,
        name: &str,
        addr: SocketAddr,
        who: &Domain,
        kept: usize,
        now: Timestamp,
    ) -> bool {
        let tables = self.tables();
        places(name, addr).iter().all(|place| {
            tables.addresses.get(place).is_none_or(|traffic| {
                let free = self.free(place, traffic, now).saturating_add(kept);
                !traffic.is_kept_for_others(who, free, now)
            })
        })
    }

    /// It took a connection that was kept.
    pub(super) fn served(&self, name: &str, addr: SocketAddr, who: &Domain, now: Timestamp) {
        let mut tables = self.tables();
        for place in places(name, addr) {
            if let Some(traffic) = tables.addresses.get_mut(&place) {
                traffic.served(who, now);
            }
        }
    }

    /// Milliseconds between two connections that come evenly.
    fn step(&self) -> u64 {
        1000 / u64::from(self.limits.per_second.max(1)).min(1000)
    }

    /// Connections that may be opened now.
    fn free(&self, place: &Place, traffic: &Traffic, now: Timestamp) -> usize {
        let free = self.connections(place).saturating_sub(traffic.open);
        let burst = u64::from(self.limits.burst.max(1) - 1).saturating_mul(self.step());
        let (even, latest) = (traffic.even.max(now), now.plus(burst));
        match place {
            Place::Network(_) => free,
            _ if even > latest => 0,
            _ => free.min((latest.since(even) / self.step()) as usize + 1),
        }
    }

    fn connections(&self, place: &Place) -> usize {
        let of_one = self.limits.connections.max(1);
        match place {
            Place::Network(_) => of_one.max(OF_A_NETWORK),
            Place::Address(_) | Place::Onion(_) => of_one,
        }
    }

    fn is_open(&self, breaker: &Breaker) -> bool {
        self.limits.failures > 0 && breaker.failures >= self.limits.failures
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tables {
    /// No time that was given stands.
    fn begin_anew(&mut self, now: Timestamp) {
        for traffic in self.addresses.values_mut() {
            traffic.even = now;
            traffic.waiting.clear();
            traffic.line.clear();
        }
        for breaker in self.breakers.values_mut() {
            breaker.until = breaker.until.min(now);
        }
    }

    fn traffic(&mut self, place: &Place, now: Timestamp) -> Option<&mut Traffic> {
        if self.addresses.len() >= REMEMBERED && !self.addresses.contains_key(place) {
            self.addresses.retain(|_, traffic| {
                traffic.forget(now);
                let is_awaited = || traffic.waiting.values().any(|wait| wait.is_kept(now));
                traffic.open > 0 || traffic.even > now || is_awaited()
            });
            if self.addresses.len() >= REMEMBERED {
                return None;
            }
        }
        Some(self.addresses.entry(place.clone()).or_default())
    }
}

impl Traffic {
    /// Whether all of so many free connections are for those who stand before `who`
    /// and whose turn is kept.
    fn is_kept_for_others(&self, who: &Domain, free: usize, now: Timestamp) -> bool {
        let own = self.waiting.get(who).and_then(|wait| wait.since);
        let before = self.line.iter().take_while(|(since, other)| {
            let is_before = own.is_none_or(|own| (*since, other) < (own, who));
            is_before && since.plus(PATIENCE) <= now
        });
        let is_near = |wait: &&Wait| wait.due <= now.plus(GRACE) && now <= wait.due.plus(GRACE);
        let expected = before.filter_map(|(_, other)| self.waiting.get(other)).filter(is_near);
        free > 0 && expected.take(free).count() == free
    }

    /// When one of `who` is to come back, at the earliest after the pause. If its turn
    /// is kept, one of it comes when it may be its turn; all others have times of
    /// their own, evenly among the registered domains.
    fn promise(&mut self, who: &Domain, pause: u64, step: u64, now: Timestamp) -> Timestamp {
        self.forget(now);
        let wait = self.waiting.entry(who.clone()).or_default();
        if wait.since.is_none() && self.line.len() < IN_LINE {
            (wait.since, wait.due) = (Some(now), Timestamp::default());
            self.line.insert((now, who.clone()));
        }
        let kept = wait.since.filter(|since| since.plus(PATIENCE) <= now && wait.due <= now);
        let at = match kept {
            Some(since) => {
                let before = self.line.range(..(since, who.clone())).count() as u64;
                now.plus(pause.saturating_mul(before + 1))
            }
            None => {
                let round = step.saturating_mul(self.line.len().max(1) as u64);
                wait.promised = wait.promised.max(now.plus(pause)).plus(round);
                wait.promised
            }
        };
        wait.due = if wait.due > now { wait.due.min(at) } else { at };
        at
    }

    /// `who` has its turn, and stands in line no more.
    fn served(&mut self, who: &Domain, now: Timestamp) {
        let Some(wait) = self.waiting.get_mut(who) else { return };
        if let Some(since) = wait.since.take() {
            self.line.remove(&(since, who.clone()));
        }
        if !wait.is_kept(now) {
            self.waiting.remove(who);
        }
    }

    /// Those that do not come any more.
    fn forget(&mut self, now: Timestamp) {
        while let Some((_, first)) = self.line.first()
            && self.waiting.get(first).is_none_or(|wait| !wait.is_kept(now))
            && let Some((_, first)) = self.line.pop_first()
        {
            self.waiting.remove(&first);
        }
        if self.waiting.len() > 2 * self.line.len() + 64 {
            self.waiting.retain(|_, wait| wait.since.is_some() || wait.is_kept(now));
        }
    }
}

impl Wait {
    fn is_kept(&self, now: Timestamp) -> bool {
        self.promised > now || self.since.is_some() && self.due.plus(GONE) > now
    }
}

impl Seat {
    /// The host answered: whatever else it does, it is there.
    pub fn answered(&mut self) {
        self.probe = false;
        self.hosts.tables().breakers.remove(&self.host);
    }

    /// The host could not be reached, or made no sense before a word of DMTP.
    pub fn failed(&mut self, now: Timestamp) {
        self.probe = false;
        let limits = self.hosts.limits;
        let mut tables = self.hosts.tables();
        if tables.breakers.len() >= REMEMBERED && !tables.breakers.contains_key(&self.host) {
            tables.breakers.retain(|_, breaker| breaker.until > now);
            if tables.breakers.len() >= REMEMBERED {
                return;
            }
        }
        let breaker = tables.breakers.entry(self.host.clone()).or_default();
        breaker.failures = breaker.failures.saturating_add(1);
        breaker.probing = false;
        if let Some(over) = breaker.failures.checked_sub(limits.failures) {
            let rest = limits.rest.saturating_mul(1 << over.min(30)).min(limits.rest_limit);
            breaker.until = now.plus(rest);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut tables = self.hosts.tables();
        for place in &self.places {
            if let Some(traffic) = tables.addresses.get_mut(place) {
                traffic.open = traffic.open.saturating_sub(1);
            }
        }
        // A probe that came to nothing: another may try.
        if self.probe
            && let Some(breaker) = tables.breakers.get_mut(&self.host)
        {
            breaker.probing = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn hosts(limits: Limits) -> Arc<Hosts> {
        Hosts::new(limits)
    }

    /// For the domain that the host is named like.
    fn enter(
        hosts: &Arc<Hosts>,
        name: &str,
        addr: SocketAddr,
        now: Timestamp,
    ) -> Result<Seat, Later> {
        hosts.enter(name, addr, &name.parse().unwrap(), now)
    }

    fn addr(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 26))
    }

    #[test]
    fn one_address_has_so_many_connections_whatever_its_names() {
        let hosts = hosts(Limits { connections: 2, ..Limits::default() });
        let first = enter(&hosts, "a.example", addr(1), NOW).unwrap();
        let _second = enter(&hosts, "b.example", addr(1), NOW).unwrap();
        assert!(matches!(enter(&hosts, "c.example", addr(1), NOW), Err(Later::Busy(_))));
        assert!(enter(&hosts, "c.example", addr(2), NOW).is_ok());
        drop(first);
        assert!(enter(&hosts, "c.example", addr(1), NOW).is_ok());
    }

    #[test]
    fn all_addresses_of_a_network_share_its_connections() {
        let hosts = hosts(Limits::default());
        let addr = |network: u16, last: u16| {
            let ip = Ipv6Addr::new(0x2001, 0xdb8, 0, network, 0, 0, 0, last);
            SocketAddr::from((ip, 26))
        };
        let enter = |addr| enter(&hosts, "a.example", addr, NOW);
        let mut seats: Vec<Seat> = (0..16).map(|n| enter(addr(1, n)).unwrap()).collect();
        let mut last = NOW;
        for n in 16..1000 {
            let Err(Later::Busy(at)) = enter(addr(1, n)) else { panic!("{n} got in") };
            assert!(at > last, "{at:?} {last:?}");
            last = at;
        }
        let _next = enter(addr(2, 0)).unwrap();
        seats.pop();
        let _free = enter(addr(1, 1000)).unwrap();
        assert!(enter(addr(1, 1001)).is_err());
        // One address has no more of them for that, and IPv4 ones have no network.
        let of_one = (0..8).filter_map(|_| enter(addr(3, 0)).ok());
        assert_eq!(of_one.collect::<Vec<_>>().len(), 4);
        let mapped = |n: u8| SocketAddr::from((Ipv4Addr::new(192, 0, 2, n).to_ipv6_mapped(), 26));
        let all: Vec<Seat> = (0..64).filter_map(|n| enter(mapped(n)).ok()).collect();
        assert_eq!(all.len(), 64);
        drop((all, seats));
        assert!(enter(addr(1, 0)).is_ok());
    }

    #[test]
    fn who_comes_too_early_gets_a_time_of_its_own() {
        let limits = Limits { connections: 9, per_second: 10, burst: 2, ..Limits::default() };
        let hosts = hosts(limits);
        for _ in 0..2 {
            drop(enter(&hosts, "a.example", addr(1), NOW).unwrap());
        }
        let mut last = NOW;
        for _ in 0..50 {
            let Err(Later::Busy(at)) = enter(&hosts, "a.example", addr(1), NOW) else { panic!() };
            assert!(at > last, "{at:?} {last:?}");
            last = at;
        }
        assert!(last.since(NOW) <= 52 * 100 + 100);
        // Whoever comes at its time gets in.
        assert!(enter(&hosts, "a.example", addr(1), NOW.plus(200)).is_ok());
        assert!(enter(&hosts, "a.example", addr(1), NOW.plus(300)).is_ok());
    }

    /// So many registered domains take every connection they can get, for long, and
    /// come again and again; how many turns they have before one that comes only
    /// when it is told to.
    fn turns_before(others: usize, limits: Limits) -> usize {
        const TURN: u64 = 45_000;
        let hosts = hosts(limits);
        let others: Vec<Domain> =
            (0..others).map(|n| format!("evil{n}.example").parse().unwrap()).collect();
        let one: Domain = "a.example".parse().unwrap();
        let enter = |who: &Domain, now| hosts.enter("dx.example", addr(1), who, now);
        let mut seats: Vec<(Timestamp, Seat)> = Vec::new();
        let (mut now, mut turns) = (NOW, 0);
        let mut due = NOW.plus(1000);
        while turns < 1000 {
            seats.retain(|(ends, _)| *ends > now);
            for other in &others {
                if let Ok(seat) = enter(other, now) {
                    seats.push((now.plus(TURN), seat));
                    turns += 1;
                }
            }
            if due <= now {
                match enter(&one, now) {
                    Ok(_) => return turns,
                    Err(later) => due = later.at(),
                }
            }
            now = now.plus(10);
        }
        panic!("it never gets in");
    }

    #[test]
    fn whatever_others_do_everybody_has_a_turn() {
        // Those that are let in before its turn is kept come on top.
        let of_one = Limits { connections: 1, ..Limits::default() };
        assert!(turns_before(1, of_one) <= 4);
        assert!(turns_before(5, of_one) <= 8);
        assert!(turns_before(1, Limits::default()) <= 16);
        // The rate alone can be used up too.
        let slow = Limits { connections: 1000, per_second: 1, burst: 1, ..Limits::default() };
        assert!(turns_before(1, slow) <= 64);
        assert!(turns_before(5, slow) <= 68);
    }

    #[test]
    fn a_turn_is_kept_for_who_comes_and_not_for_long() {
        let hosts = hosts(Limits { connections: 1, ..Limits::default() });
        let [a, b, c] = ["a.example", "b.example", "c.example"].map(|it| it.parse().unwrap());
        let enter = |who: &Domain, now| hosts.enter("dx.example", addr(1), who, now);
        let is_turn_of =
            |who: &Domain, kept, now| hosts.is_turn_of("dx.example", addr(1), who, kept, now);
        let seat = enter(&b, NOW).unwrap();
        enter(&a, NOW).unwrap_err();
        let later = NOW.plus(PATIENCE);
        let due = enter(&a, later).unwrap_err().at();
        assert!(due < later.plus(PAUSE), "it may come in a moment: {due:?}");
        // A connection that is kept for the next is for it too.
        assert!(is_turn_of(&a, 1, later) && !is_turn_of(&b, 1, later) && is_turn_of(&b, 2, later));
        drop(seat);
        assert!(matches!(enter(&b, later), Err(Later::Busy(_))));
        assert!(matches!(enter(&c, later), Err(Later::Busy(_))));
        // It does not come: others do, and it is still the first.
        let seat = enter(&c, due.plus(GRACE + 1)).unwrap();
        let late = due.plus(GRACE + 2);
        enter(&a, late).unwrap_err();
        drop(seat);
        assert!(enter(&b, late).is_err());
        drop(enter(&a, late).unwrap());
        drop(enter(&b, late).unwrap());
        let traffic = |hosts: &Hosts| {
            let tables = hosts.tables();
            let traffic = &tables.addresses[&Place::Address(addr(1).ip())];
            (traffic.line.len(), traffic.waiting.len())
        };
        assert_eq!(traffic(&hosts).0, 0);
        // Whoever is gone for good is forgotten, and no more stand in line than may.
        let seat = enter(&a, late).unwrap();
        for n in 0..2 * IN_LINE {
            enter(&format!("d{n}.example").parse().unwrap(), late).unwrap_err();
        }
        assert_eq!(traffic(&hosts).0, IN_LINE);
        enter(&b, late.plus(24 * GONE)).unwrap_err();
        assert_eq!(traffic(&hosts), (1, 1));
        drop(seat);
    }

    #[test]
    fn a_host_that_fails_rests_for_all_and_is_probed_by_one() {
        let limits = Limits { failures: 3, rest: 1000, rest_limit: 3000, ..Limits::default() };
        let hosts = hosts(limits);
        let fail = |now: Timestamp| {
            let mut seat = enter(&hosts, "a.example", addr(1), now).unwrap();
            seat.failed(now);
        };
        (0..3).for_each(|_| fail(NOW));
        let rests = |now: Timestamp| match enter(&hosts, "a.example", addr(1), now) {
            Err(Later::Resting(until)) => Some(until),
            _ => None,
        };
        assert_eq!(rests(NOW), Some(NOW.plus(1000)));
        // Another name at the address is another host.
        assert!(enter(&hosts, "b.example", addr(1), NOW).is_ok());

        // One probe; a longer rest each time it fails.
        let now = NOW.plus(1000);
        let mut probe = enter(&hosts, "a.example", addr(1), now).unwrap();
        assert!(rests(now).is_some());
        probe.failed(now);
        drop(probe);
        assert_eq!(rests(now), Some(now.plus(2000)));
        let now = now.plus(2000);
        fail(now);
        assert_eq!(rests(now), Some(now.plus(3000)));
        // A probe that was cut short lets another try.
        let now = now.plus(3000);
        drop(enter(&hosts, "a.example", addr(1), now).unwrap());
        let mut probe = enter(&hosts, "a.example", addr(1), now).unwrap();
        probe.answered();
        assert!(enter(&hosts, "a.example", addr(1), now).is_ok());
    }

    #[test]
    fn a_clock_that_was_ahead_leaves_nobody_waiting() {
        let limits = Limits { connections: 9, burst: 2, failures: 1, ..Limits::default() };
        let hosts = hosts(limits);
        let ahead = NOW.plus(3_600_000);
        enter(&hosts, "bad.example", addr(2), ahead).unwrap().failed(ahead);
        let _seats: Vec<Seat> =
            std::iter::from_fn(|| enter(&hosts, "a.example", addr(1), ahead).ok()).collect();
        let _first = enter(&hosts, "a.example", addr(1), NOW).unwrap();
        let _second = enter(&hosts, "a.example", addr(1), NOW).unwrap();
        let Err(Later::Busy(at)) = enter(&hosts, "a.example", addr(1), NOW) else { panic!() };
        assert!(at.since(NOW) < 1000, "{at:?}");
        assert!(enter(&hosts, "bad.example", addr(2), NOW).is_ok());
    }

    #[test]
    fn a_failure_now_and_then_is_none() {
        let hosts = hosts(Limits { failures: 2, ..Limits::default() });
        for _ in 0..10 {
            enter(&hosts, "a.example", addr(1), NOW).unwrap().failed(NOW);
            enter(&hosts, "a.example", addr(1), NOW).unwrap().answered();
        }
        assert!(hosts.tables().breakers.is_empty());
    }
}
