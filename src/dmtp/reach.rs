//! The way to a domain's DX: the hosts of reference §6.2 in their order, the
//! addresses of each, until one is there whose certificate the record accepts
//! (§6.3). For the mirror and for whoever checks it.

use std::net::SocketAddr;

use super::client::{self, Entrance, Options, Session, Target};
use crate::clock::Clock;
use crate::dime::certificate::{self, Accepted, Facts};
use crate::dime::record::Record;
use crate::dime::{Dnssec, Domain, Rejection};
use crate::resolver::{self, Resolver};

/// MX hosts tried (§6.2).
const MX_HOSTS: usize = 3;
/// Addresses tried of one host.
const ADDRESSES: usize = 4;

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
    let mut last = Unreached::NoHost;
    for (host, entrance, port) in hosts(resolver, route, ports).await {
        let addresses = match resolver.addresses(&host).await {
            Ok(answer) => answer.records,
            Err(error) => {
                last = Unreached::Dns(error);
                continue;
            }
        };
        for ip in addresses.into_iter().take(ADDRESSES) {
            let target = Target { host: &host, addr: SocketAddr::new(ip, port), entrance };
            match open(target, route, options, clock, mismatches).await {
                Ok(reached) => return Ok(reached),
                Err(error) => last = Unreached::Dx(error),
            }
        }
    }
    Err(last)
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
) -> Result<(Session, Accepted), client::Error> {
    const KEPT: usize = 12;
    let decide = |facts: &Facts| certificate::decide(facts, Some((route.record, route.dnssec)));
    while let Some(session) = options.kept.take(&target) {
        if let Ok(accepted) = decide(session.facts()) {
            return Ok((session, accepted));
        }
    }
    let mut connected = client::connect(target, options, clock.now()).await?;
    let mut decided = decide(connected.facts());
    if decided.is_err() && connected.is_resumed() {
        connected = client::connect_anew(target, options, clock.now()).await?;
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
        let hosts = record.dx_hosts().into_iter();
        return hosts.map(|host| (host.name, Entrance::Tls, ports.dx)).collect();
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
