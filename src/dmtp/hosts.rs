//! Manners towards DX hosts, whatever number of domains share one: how many
//! connections at once and how many new ones a second to an address, how many
//! to one IPv6 /64, whose addresses cost nothing, and a breaker for a host that
//! fails again and again. No I/O.
//!
//! Nobody waits here: who comes too early is told when to come back, and is
//! given a time of its own, so that ten thousand domains of one host are spread
//! and hold up nobody else. Addresses are counted, names are not, since a
//! stranger's name may lead to anybody's address; the breaker goes by the name
//! and the address, since a stranger's broken name must not shut out others.
//! In memory only: after a restart all hosts are as new.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::dime::Timestamp;

/// Addresses, and failing hosts, that are remembered. Beyond it those that are
/// idle are forgotten; if none is, more are not counted.
const REMEMBERED: usize = 1 << 16;
/// Connections at once to one IPv6 /64, or as many as one address may have if
/// those are more.
const OF_A_NETWORK: usize = 16;
/// For whom no connection is free, or while a probe is under way, milliseconds.
const PAUSE: u64 = 1000;

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
    /// The last time that was given to somebody.
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

    /// A connection to `addr`, which is known as `name`; of an onion host only
    /// the name and the port count.
    pub(super) fn enter(
        self: &Arc<Self>,
        name: &str,
        addr: SocketAddr,
        now: Timestamp,
    ) -> Result<Seat, Later> {
        let (place, network) = match addr.ip().is_unspecified() {
            true => (Place::Onion(name.to_owned()), None),
            false => {
                let network = network(addr.ip()).map(Place::Network);
                (Place::Address(addr.ip().to_canonical()), network)
            }
        };
        let host = Host { name: name.to_owned(), addr };
        let mut tables = self.tables();
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
        let step = 1000 / u64::from(self.limits.per_second.max(1)).min(1000);
        let ahead = step.saturating_mul(u64::from(self.limits.burst.max(1) - 1));
        let connections = self.limits.connections.max(1);
        if let Some(network) = &network {
            let Some(traffic) = tables.traffic(network, now) else {
                return Err(Later::Busy(now.plus(PAUSE)));
            };
            if traffic.open >= connections.max(OF_A_NETWORK) {
                return Err(Later::Busy(traffic.promise(now.plus(PAUSE / 4), step)));
            }
        }
        let Some(traffic) = tables.traffic(&place, now) else {
            return Err(Later::Busy(now.plus(PAUSE)));
        };
        let full = traffic.open >= connections;
        if full || traffic.even > now.plus(ahead) {
            let earliest = now.plus(if full { PAUSE / 4 } else { step });
            return Err(Later::Busy(traffic.promise(earliest, step)));
        }
        traffic.even = traffic.even.max(now).plus(step);
        let places: Vec<Place> = std::iter::once(place).chain(network).collect();
        for place in &places {
            tables.addresses.entry(place.clone()).or_default().open += 1;
        }
        if probe && let Some(breaker) = tables.breakers.get_mut(&host) {
            breaker.probing = true;
        }
        Ok(Seat { hosts: Arc::clone(self), host, places, probe })
    }

    fn is_open(&self, breaker: &Breaker) -> bool {
        self.limits.failures > 0 && breaker.failures >= self.limits.failures
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tables {
    fn traffic(&mut self, place: &Place, now: Timestamp) -> Option<&mut Traffic> {
        if self.addresses.len() >= REMEMBERED && !self.addresses.contains_key(place) {
            self.addresses.retain(|_, traffic| {
                traffic.open > 0 || traffic.even > now || traffic.promised > now
            });
            if self.addresses.len() >= REMEMBERED {
                return None;
            }
        }
        Some(self.addresses.entry(place.clone()).or_default())
    }
}

impl Traffic {
    /// A time of one's own, after all that were given.
    fn promise(&mut self, earliest: Timestamp, step: u64) -> Timestamp {
        self.promised = self.promised.max(earliest).plus(step);
        self.promised
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

    fn addr(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 26))
    }

    #[test]
    fn one_address_has_so_many_connections_whatever_its_names() {
        let hosts = hosts(Limits { connections: 2, ..Limits::default() });
        let first = hosts.enter("a.example", addr(1), NOW).unwrap();
        let _second = hosts.enter("b.example", addr(1), NOW).unwrap();
        assert!(matches!(hosts.enter("c.example", addr(1), NOW), Err(Later::Busy(_))));
        assert!(hosts.enter("c.example", addr(2), NOW).is_ok());
        drop(first);
        assert!(hosts.enter("c.example", addr(1), NOW).is_ok());
    }

    #[test]
    fn all_addresses_of_a_network_share_its_connections() {
        let hosts = hosts(Limits::default());
        let addr = |network: u16, last: u16| {
            let ip = Ipv6Addr::new(0x2001, 0xdb8, 0, network, 0, 0, 0, last);
            SocketAddr::from((ip, 26))
        };
        let enter = |addr| hosts.enter("a.example", addr, NOW);
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
            drop(hosts.enter("a.example", addr(1), NOW).unwrap());
        }
        let mut last = NOW;
        for _ in 0..50 {
            let Err(Later::Busy(at)) = hosts.enter("a.example", addr(1), NOW) else { panic!() };
            assert!(at > last, "{at:?} {last:?}");
            last = at;
        }
        assert!(last.since(NOW) <= 52 * 100 + 100);
        // Whoever comes at its time gets in.
        assert!(hosts.enter("a.example", addr(1), NOW.plus(200)).is_ok());
        assert!(hosts.enter("a.example", addr(1), NOW.plus(300)).is_ok());
    }

    #[test]
    fn a_host_that_fails_rests_for_all_and_is_probed_by_one() {
        let limits = Limits { failures: 3, rest: 1000, rest_limit: 3000, ..Limits::default() };
        let hosts = hosts(limits);
        let fail = |now: Timestamp| {
            let mut seat = hosts.enter("a.example", addr(1), now).unwrap();
            seat.failed(now);
        };
        (0..3).for_each(|_| fail(NOW));
        let rests = |now: Timestamp| match hosts.enter("a.example", addr(1), now) {
            Err(Later::Resting(until)) => Some(until),
            _ => None,
        };
        assert_eq!(rests(NOW), Some(NOW.plus(1000)));
        // Another name at the address is another host.
        assert!(hosts.enter("b.example", addr(1), NOW).is_ok());

        // One probe; a longer rest each time it fails.
        let now = NOW.plus(1000);
        let mut probe = hosts.enter("a.example", addr(1), now).unwrap();
        assert!(rests(now).is_some());
        probe.failed(now);
        drop(probe);
        assert_eq!(rests(now), Some(now.plus(2000)));
        let now = now.plus(2000);
        fail(now);
        assert_eq!(rests(now), Some(now.plus(3000)));
        // A probe that was cut short lets another try.
        let now = now.plus(3000);
        drop(hosts.enter("a.example", addr(1), now).unwrap());
        let mut probe = hosts.enter("a.example", addr(1), now).unwrap();
        probe.answered();
        assert!(hosts.enter("a.example", addr(1), now).is_ok());
    }

    #[test]
    fn a_failure_now_and_then_is_none() {
        let hosts = hosts(Limits { failures: 2, ..Limits::default() });
        for _ in 0..10 {
            hosts.enter("a.example", addr(1), NOW).unwrap().failed(NOW);
            hosts.enter("a.example", addr(1), NOW).unwrap().answered();
        }
        assert!(hosts.tables().breakers.is_empty());
    }
}
