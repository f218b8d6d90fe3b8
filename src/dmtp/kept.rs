//! What outlives one visit to a DX host: TLS sessions that can be resumed, and
//! connections that can be taken up again.
//!
//! Both spare the host a private-key operation, and a connection also the way
//! there. Neither shows a certificate: the one of the handshake behind it
//! counts, whose key the host then proved to have. So a handshake is resumed for
//! a few hours only, and what a record does not accept any more is never judged
//! by an old certificate (`reach`, `client::open`).
//!
//! By a ticket a host knows its client again: vantages that shared one `Kept`
//! would be known to be one.

use std::collections::{HashMap, VecDeque};
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;

use super::client::{Entrance, Session, Target};
use super::hosts;
use super::tls::Witness;

/// Hosts whose TLS sessions are kept, the oldest forgotten first. A session
/// holds a certificate chain, so a few KiB each.
const HOSTS: usize = 4096;
/// Tickets kept of one host; each resumes once.
const TICKETS: usize = 4;
/// For so long after its full handshake a session is resumed.
const RESUMED_FOR: Duration = Duration::from_secs(6 * 3600);
/// Connections kept.
const CONNECTIONS: usize = 256;
/// Connections kept to one host.
const CONNECTIONS_TO_ONE: usize = 4;
/// A connection that nobody took up for so long is closed.
const IDLE: Duration = Duration::from_secs(10);

/// Sessions and connections that are kept. Cheap to clone; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Kept(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Of every handshake: sessions are resumed under the same one only.
    witness: Arc<Witness>,
    tickets: Mutex<Tickets>,
    /// In order of time.
    idle: Mutex<VecDeque<Idle>>,
}

/// A host as it was connected to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    host: String,
    addr: SocketAddr,
    entrance: Entrance,
}

impl Place {
    pub fn of(target: &Target<'_>) -> Place {
        let Target { host, addr, entrance } = *target;
        Place { host: host.to_owned(), addr, entrance }
    }

    pub fn entrance(&self) -> Entrance {
        self.entrance
    }
}

#[derive(Debug)]
struct Idle {
    place: Place,
    since: Instant,
    session: Session,
}

impl Kept {
    pub(super) fn witness(&self) -> &Arc<Witness> {
        &self.0.witness
    }

    /// Keeps an open session for the next who wants to talk to the same host.
    /// One that is of no more use, or one too many, is handed back: say goodbye.
    pub fn put(&self, mut session: Session) -> Option<Session> {
        drop(session.held());
        if !session.is_reusable() {
            return Some(session);
        }
        let mut idle = self.idle();
        let place = session.place().clone();
        let same = idle.iter().filter(|kept| kept.place == place).count();
        if same >= CONNECTIONS_TO_ONE {
            return Some(session);
        }
        idle.push_back(Idle { place, since: Instant::now(), session });
        if idle.len() > CONNECTIONS { idle.pop_front().map(|oldest| oldest.session) } else { None }
    }

    /// An open session with this host at this address, if one is kept.
    pub(super) fn take(&self, target: &Target<'_>) -> Option<Session> {
        let mut idle = self.idle();
        loop {
            let at = idle.iter().rposition(|kept| {
                kept.place.addr == target.addr
                    && kept.place.host == target.host
                    && kept.place.entrance == target.entrance
            })?;
            let Idle { since, mut session, .. } = idle.remove(at)?;
            if since.elapsed() < IDLE && session.is_quiet() {
                return Some(session);
            }
        }
    }

    /// Connections kept to an address.
    pub(super) fn count(&self, ip: IpAddr) -> usize {
        self.idle().iter().filter(|kept| kept.place.addr.ip() == ip).count()
    }

    /// Closes what is kept at an address, whatever its name there, else in its
    /// network: it counts as open. Says whether there was any.
    pub(super) fn make_room(&self, ip: IpAddr) -> bool {
        let network = hosts::network(ip);
        let mut idle = self.idle();
        let before = idle.len();
        idle.retain(|kept| kept.place.addr.ip() != ip);
        if idle.len() == before && network.is_some() {
            idle.retain(|kept| hosts::network(kept.place.addr.ip()) != network);
        }
        idle.len() < before
    }

    /// Connections that nobody took up in time: say goodbye.
    pub fn expired(&self) -> Vec<Session> {
        let mut idle = self.idle();
        let late = idle.iter().take_while(|kept| kept.since.elapsed() >= IDLE).count();
        idle.drain(..late).map(|kept| kept.session).collect()
    }

    fn idle(&self) -> MutexGuard<'_, VecDeque<Idle>> {
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tickets(&self) -> MutexGuard<'_, Tickets> {
        self.0.tickets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the TLS library keeps of each host.
#[derive(Debug, Default)]
struct Tickets {
    hosts: HashMap<Place, Host>,
    order: VecDeque<Place>,
}

#[derive(Debug)]
struct Host {
    /// Of the full handshake behind all that follows.
    since: Instant,
    group: Option<NamedGroup>,
    tls12: Option<Tls12ClientSessionValue>,
    tls13: VecDeque<Tls13ClientSessionValue>,
}

impl Tickets {
    fn host(&mut self, place: &Place, since: Instant) -> &mut Host {
        if !self.hosts.contains_key(place) {
            self.order.push_back(place.clone());
            if self.order.len() > HOSTS
                && let Some(oldest) = self.order.pop_front()
            {
                self.hosts.remove(&oldest);
            }
        }
        let new = || Host { since, group: None, tls12: None, tls13: VecDeque::new() };
        let host = self.hosts.entry(place.clone()).or_insert_with(new);
        // What an older handshake left is of no more use beside a newer one.
        if host.since < since {
            *host = Host { group: host.group, ..new() };
        }
        host
    }
}

/// The part of one connection: it may resume what is kept of its host, and
/// leaves there what can be resumed later.
#[derive(Debug)]
pub(super) struct Resumable {
    kept: Kept,
    place: Place,
    /// Whether it may resume at all.
    resume: bool,
    /// Of the full handshake behind this connection, as far as is known: that
    /// of the session offered, else now.
    since: Mutex<Instant>,
}

impl Resumable {
    pub fn new(kept: &Kept, place: &Place, resume: bool) -> Resumable {
        let (kept, place) = (kept.clone(), place.clone());
        Resumable { kept, place, resume, since: Mutex::new(Instant::now()) }
    }

    /// What `take` finds of the host, if it is fresh enough and wanted.
    fn find<T>(&self, take: impl FnOnce(&mut Host) -> Option<T>) -> Option<T> {
        if !self.resume {
            return None;
        }
        let mut tickets = self.kept.tickets();
        let host = tickets.hosts.get_mut(&self.place)?;
        if host.since.elapsed() >= RESUMED_FOR {
            host.tls12 = None;
            host.tls13.clear();
            return None;
        }
        let found = take(host)?;
        *self.since.lock().unwrap_or_else(PoisonError::into_inner) = host.since;
        Some(found)
    }

    fn leave(&self, leave: impl FnOnce(&mut Host)) {
        let since = *self.since.lock().unwrap_or_else(PoisonError::into_inner);
        let mut tickets = self.kept.tickets();
        let host = tickets.host(&self.place, since);
        if host.since == since {
            leave(host);
        }
    }
}

impl ClientSessionStore for Resumable {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.leave(|host| host.group = Some(group));
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.kept.tickets().hosts.get(&self.place)?.group
    }

    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.leave(|host| host.tls12 = Some(value));
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.find(|host| host.tls12.clone())
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.leave(|host| drop(mem::take(&mut host.tls12)));
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.leave(|host| {
            host.tls13.push_back(value);
            if host.tls13.len() > TICKETS {
                host.tls13.pop_front();
            }
        });
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.find(|host| host.tls13.pop_back())
    }
}
