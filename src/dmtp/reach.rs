//! The way to a domain's DX: the hosts of reference §6.2 in their order, the
//! addresses of each, until one is there whose certificate the record accepts
//! (§6.3). For the mirror and for whoever checks it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::client::{self, Entrance, Fault, Options, Session, Target};
use super::hosts::{Later, Seat};
use super::proxy::is_onion;
use crate::clock::Clock;
use crate::dime::certificate::{self, Accepted, Facts};
use crate::dime::record::Record;
use crate::dime::{Dnssec, Domain, Rejection, Timestamp, suffix};
use crate::resolver::{self, Resolver};

/// `dx` hosts tried: a record has room for hundreds, and who writes it must not
/// choose how many strangers are called on for it.
const DX_HOSTS: usize = 8;
/// MX hosts tried (§6.2).
const MX_HOSTS: usize = 3;
/// Addresses tried of one host.
const ADDRESSES: usize = 4;
/// Connections tried for one domain.
const CONNECTIONS: usize = 16;

/// Where DX hosts listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ports {
    /// With TLS from the first byte.
    pub dx: u16,
    /// Of MX hosts, with STARTTLS, tried after `dx`.
    pub dual: Vec<u16>,
}

impl Default for Ports {
    fn default() -> Ports {
        Ports { dx: super::PORT, dual: super::DUAL_PORTS.to_vec() }
    }
}

/// Whose DX, by which record.
#[derive(Clone, Copy, Debug)]
pub struct Route<'a> {
    pub domain: &'a Domain,
    pub record: &'a Record,
    /// Of the record.
    pub dnssec: Dnssec,
}

/// A certificate that the record does not accept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    pub why: Rejection,
    /// The certificate, DER.
    pub der: Vec<u8>,
}

/// Why no host was reached: what the last one tried came to.
#[derive(Debug, thiserror::Error)]
pub enum Unreached {
    #[error("no host to ask, or none with an address")]
    NoHost,
    #[error(transparent)]
    Dns(resolver::Error),
    #[error(transparent)]
    Dx(client::Error),
    /// Not asked: by [`Options::hosts`] it is to be asked later.
    #[error("{}", later.words())]
    Later { later: Later },
}

/// Opens a session with the first host that can be had. Certificates that were
/// refused on the way are added to `mismatches`, at most a dozen.
pub async fn reach(
    resolver: &dyn Resolver,
    route: Route<'_>,
    ports: &Ports,
    options: &Options,
    clock: &Clock,
    mismatches: &mut Vec<Mismatch>,
) -> Result<(Session, Accepted), Unreached> {
    let (mut last, mut connections) = (Unreached::NoHost, 0);
    let mut busy = None;
    for (host, entrance, port) in hosts(resolver, route, ports).await {
        let addresses = match is_onion(&host) {
            // It is in no DNS, and nobody there is to hear of it (RFC 7686).
            true => Ok(vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED)]),
            false => resolver.addresses(&host).await.map(|answer| answer.records),
        };
        let addresses = match addresses {
            Ok(addresses) => addresses,
            Err(error) => {
                last = Unreached::Dns(error);
                continue;
            }
        };
        for ip in addresses.into_iter().take(ADDRESSES.min(CONNECTIONS - connections)) {
            connections += 1;
            let target = Target { host: &host, addr: SocketAddr::new(ip, port), entrance };
            match open(target, route, options, clock, mismatches).await {
                Ok(reached) => return Ok(reached),
                Err(Unreached::Later { later: later @ Later::Busy(_) }) => busy = Some(later),
                Err(unreached) => last = unreached,
            }
        }
    }
    // One that has no time now may well have it in a moment.
    Err(busy.map_or(last, |later| Unreached::Later { later }))
}

/// A connection that is kept will do if the record accepts the certificate of
/// its handshake; one that was resumed likewise. Only what a host shows now is
/// held against it.
async fn open(
    target: Target<'_>,
    route: Route<'_>,
    options: &Options,
    clock: &Clock,
    mismatches: &mut Vec<Mismatch>,
) -> Result<(Session, Accepted), Unreached> {
    let now = clock.now();
    let who = suffix::registered(route.domain);
    let (host, addr) = (target.host, target.addr);
    let is_its_turn = options.hosts.as_ref().is_none_or(|hosts| {
        let kept = options.kept.count(addr.ip());
        hosts.is_turn_of(host, addr, &who, kept, now)
    });
    while is_its_turn && let Some(session) = options.kept.take(&target) {
        let decided = certificate::decide(session.facts(), Some((route.record, route.dnssec)));
        if let Ok(accepted) = decided {
            if let Some(hosts) = &options.hosts {
                hosts.served(host, addr, &who, now);
            }
            return Ok((session, accepted));
        }
    }
    let mut seat = match &options.hosts {
        Some(hosts) => {
            let enter = || hosts.enter(host, addr, &who, now);
            let seat = match enter() {
                // Connections that are kept are the first to go.
                Err(Later::Busy(_)) if is_its_turn && options.kept.make_room(addr.ip()) => enter(),
                entered => entered,
            };
            Some(seat.map_err(|later| Unreached::Later { later })?)
        }
        None => None,
    };
    let opened = open_session(target, route, options, now, mismatches).await;
    if let Some(seat) = &mut seat {
        book(seat, opened.as_ref().err(), clock);
    }
    match opened {
        Ok((session, accepted)) => Ok((session.seated(seat), accepted)),
        Err(error) => Err(Unreached::Dx(error)),
    }
}

/// What the outcome says about the host, for all that come after.
fn book(seat: &mut Seat, error: Option<&client::Error>, clock: &Clock) {
    match error {
        None | Some(client::Error::Certificate(_)) => seat.answered(),
        Some(error) => match error.fault() {
            Fault::Network | Fault::Host => seat.failed(clock.now()),
            Fault::Answer => seat.answered(),
            Fault::Ours => {}
        },
    }
}

async fn open_session(
    target: Target<'_>,
    route: Route<'_>,
    options: &Options,
    now: Timestamp,
    mismatches: &mut Vec<Mismatch>,
) -> Result<(Session, Accepted), client::Error> {
    const KEPT: usize = 12;
    let decide = |facts: &Facts| certificate::decide(facts, Some((route.record, route.dnssec)));
    let mut connected = client::connect(target, options, now).await?;
    let mut decided = decide(connected.facts());
    if decided.is_err() && connected.is_resumed() {
        connected = client::connect_anew(target, options, now).await?;
        decided = decide(connected.facts());
    }
    match decided {
        Ok(accepted) => Ok((connected.open().await?, accepted)),
        Err(why) => {
            if mismatches.len() < KEPT {
                let der = connected.facts().der.clone();
                mismatches.push(Mismatch { why: why.clone(), der });
            }
            Err(client::Error::Certificate(why))
        }
    }
}

/// Hosts in the order of §6.2. With `dx` fields nothing else is tried.
async fn hosts(
    resolver: &dyn Resolver,
    route: Route<'_>,
    ports: &Ports,
) -> Vec<(String, Entrance, u16)> {
    let Route { domain, record, .. } = route;
    if !record.dx.is_empty() {
        let mut hosts: Vec<String> = Vec::new();
        for host in record.dx_hosts() {
            if hosts.len() < DX_HOSTS && !hosts.contains(&host.name) {
                hosts.push(host.name);
            }
        }
        return hosts.into_iter().map(|host| (host, Entrance::Tls, ports.dx)).collect();
    }
    // An MX answer that fails or is bogus names nobody.
    let exchangers = match resolver.mx(domain.as_str()).await {
        Ok(answer) => answer.records,
        Err(_) => Vec::new(),
    };
    let mut hosts = Vec::new();
    for mx in exchangers.into_iter().filter(|mx| !mx.host.is_empty()).take(MX_HOSTS) {
        hosts.push((mx.host.clone(), Entrance::Tls, ports.dx));
        let dual = ports.dual.iter();
        hosts.extend(dual.map(|&port| (mx.host.clone(), Entrance::StartTls, port)));
    }
    hosts.push((domain.as_str().to_owned(), Entrance::Tls, ports.dx));
    hosts
}
