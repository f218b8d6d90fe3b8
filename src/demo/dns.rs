//! A private DNS in one process: a signed root, top-level domains, and zones
//! below them, signed or not, served over UDP and TCP on a loopback port.
//!
//! One server is authoritative for everything and is asked as a resolver would
//! be. Answers are signed when they are first asked for, so thousands of zones
//! start at once and a record can be replaced at any time. A zone can be made
//! to misbehave (see [`Fault`]).
//!
//! Sockets, parsing and truncation are `hickory-server`'s; finding and signing
//! answers is done here, because its catalog does not ask a parent for DS
//! records, takes NS records at a signed cut for a referral, and mixes NSEC3
//! into positive answers. Left out: NSEC3, wildcards, DNAME, zone transfer,
//! and following a CNAME (the client asks again).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hickory_proto::dnssec::crypto::EcdsaSigningKey;
use hickory_proto::dnssec::rdata::{DNSKEY, DNSSECRData, DS, NSEC, RRSIG};
use hickory_proto::dnssec::{Algorithm, DigestType, DnssecSigner, PublicKey, SigningKey};
use hickory_proto::op::{Edns, Header, HeaderCounts, Metadata, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, MX, NS, SOA, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordSet, RecordType};
use hickory_server::Server;
use hickory_server::net::runtime::Time;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use tokio::net::{TcpListener, UdpSocket};

use crate::resolver::{NameServers, Options, TrustAnchor, ask_name};

/// Time to live of every record unless the builder says otherwise, seconds.
/// 0, so that every change is seen at once.
pub const DEFAULT_TTL: u32 = 0;
/// Largest answer over UDP; a longer one is truncated and asked for over TCP.
const MAX_UDP: u16 = 1232;
/// A TCP connection that asks nothing for so long is closed.
const TCP_IDLE: Duration = Duration::from_secs(5);
/// Answers that may wait on one TCP connection.
const TCP_BACKLOG: usize = 32;
/// A signature is valid from an hour ago for a week.
const SIGNED_AGO: Duration = Duration::from_secs(3600);
const SIGNED_FOR: Duration = Duration::from_secs(7 * 86_400);
/// For a resolver that asks here: its server is in this process, and whoever waits
/// waits for a busy machine.
const PATIENCE: Duration = Duration::from_secs(15);
/// So long ago an expired signature was made.
const EXPIRED_AGO: Duration = Duration::from_secs(14 * 86_400);

/// How a zone misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// TXT data is changed after it was signed.
    Tampered,
    /// Every signature ended a week ago.
    Expired,
    /// Signatures and denial proofs are left out.
    Stripped,
    /// Signed with a key that the parent's DS record does not name.
    WrongKey,
    /// Questions are not answered.
    Silent,
    /// Questions for its keys are not answered.
    SilentKeys,
    /// Every question is answered `SERVFAIL`.
    ServFail,
    /// Every answer comes this much later.
    Slow(Duration),
}

/// Why the private DNS did not start or take a change.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("not a name for a zone or record: {0:?}")]
    Name(String),
    #[error("no such zone: {0:?}")]
    NoZone(String),
    #[error("signing in the private DNS failed: {0}")]
    Sign(String),
    #[error("binding the private DNS to {address} failed")]
    Bind { address: IpAddr, source: io::Error },
}

/// A running private DNS. It stops when dropped.
pub struct PrivateDns {
    shared: Arc<Shared>,
    address: SocketAddr,
    anchor: String,
    _server: Server<Handler>,
}

/// What to start with; zones and records can also be added later.
#[derive(Clone, Debug)]
pub struct Builder {
    address: IpAddr,
    ttl: u32,
    zones: Vec<(String, bool)>,
}

impl Builder {
    /// A zone signed with ECDSA P-256. Its top-level domain is made if needed.
    pub fn signed(mut self, zone: &str) -> Builder {
        self.zones.push((zone.to_owned(), true));
        self
    }

    /// A zone without signatures, proved to be so by its parent.
    pub fn unsigned(mut self, zone: &str) -> Builder {
        self.zones.push((zone.to_owned(), false));
        self
    }

    /// Time to live of every record, seconds. Default [`DEFAULT_TTL`].
    pub fn ttl(mut self, seconds: u32) -> Builder {
        self.ttl = seconds;
        self
    }

    /// The address to listen on. Default 127.0.0.1; the port is any free one.
    pub fn listen(mut self, address: IpAddr) -> Builder {
        self.address = address;
        self
    }

    pub async fn start(self) -> Result<PrivateDns, Error> {
        let mut zones = Zones { ttl: self.ttl, all: HashMap::new() };
        zones.create(&Name::root(), true)?;
        for (zone, signed) in &self.zones {
            zones.add(&zone_name(zone)?, *signed)?;
        }
        PrivateDns::serve(zones, self.address).await
    }
}

impl PrivateDns {
    pub fn builder() -> Builder {
        Builder { address: IpAddr::V4(Ipv4Addr::LOCALHOST), ttl: DEFAULT_TTL, zones: vec![] }
    }

    async fn serve(zones: Zones, address: IpAddr) -> Result<PrivateDns, Error> {
        let anchor = zones.anchor()?;
        let shared = Arc::new(Shared { zones: RwLock::new(zones), questions: AtomicU64::new(0) });
        let bind = |source| Error::Bind { address, source };
        let (udp, tcp) = bind_both(address).await.map_err(bind)?;
        let address = udp.local_addr().map_err(bind)?;
        let mut server = Server::new(Handler(shared.clone()));
        server.register_socket(udp);
        server.register_listener(tcp, TCP_IDLE, TCP_BACKLOG);
        Ok(PrivateDns { shared, address, anchor, _server: server })
    }

    /// Another server with the same keys and, for now, the same zones: what a
    /// second vantage is shown. Changes to one are not seen through the other.
    pub async fn second_view(&self) -> Result<PrivateDns, Error> {
        let zones = self.zones().clone();
        PrivateDns::serve(zones, self.address.ip()).await
    }

    /// Where it listens, UDP and TCP.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn name_servers(&self) -> NameServers {
        NameServers::Listed(vec![self.address])
    }

    /// The root key, as one DNSKEY line with a line end.
    pub fn trust_anchor_text(&self) -> &str {
        &self.anchor
    }

    /// The root key, as a resolver takes it.
    pub fn trust_anchor(&self) -> TrustAnchor {
        TrustAnchor::parse(&self.anchor).unwrap_or_default()
    }

    /// Settings of a resolver that asks here and trusts this root only.
    pub fn resolver_options(&self) -> Options {
        Options {
            name_servers: self.name_servers(),
            trust_anchor: self.trust_anchor(),
            timeout: PATIENCE,
            deadline: 4 * PATIENCE,
            ..Options::default()
        }
    }

    /// Questions received so far.
    pub fn questions(&self) -> u64 {
        self.shared.questions.load(Ordering::Relaxed)
    }

    /// Adds a zone, and its top-level domain if that is missing. A zone that
    /// exists stays as it is. Add a zone before the records in it.
    pub fn add_zone(&self, zone: &str, signed: bool) -> Result<(), Error> {
        self.zones_mut().add(&zone_name(zone)?, signed)
    }

    /// Signs a zone with a new key from now on, or leaves it unsigned; its
    /// parent says so.
    pub fn set_signed(&self, zone: &str, signed: bool) -> Result<(), Error> {
        let origin = zone_name(zone)?;
        let key = if signed { Some(Arc::new(Key::generate(&origin)?)) } else { None };
        let digest = key.as_ref().map(|key| key.digest(&origin)).transpose()?;
        let mut zones = self.zones_mut();
        let own = zones.all.get_mut(&origin).ok_or_else(|| Error::NoZone(zone.to_owned()))?;
        own.key = key;
        own.changed();
        if let Some(parent) = zones.enclosing_mut(&origin.base_name()) {
            let digest = digest.map(|digest| RData::DNSSEC(DNSSECRData::DS(digest)));
            parent.set(&origin, RecordType::DS, digest.into_iter().collect());
        }
        Ok(())
    }

    /// Replaces the TXT records at `name`, one text of any length per record.
    pub fn set_txt(&self, name: &str, texts: &[&str]) -> Result<(), Error> {
        let records = texts.iter().map(|text| RData::TXT(txt(text.as_bytes()))).collect();
        self.set(name, RecordType::TXT, records)
    }

    /// Replaces the A and AAAA records at `host`.
    pub fn set_addresses(&self, host: &str, addresses: &[IpAddr]) -> Result<(), Error> {
        let four = addresses.iter().filter_map(|address| match address {
            IpAddr::V4(four) => Some(RData::A(A(*four))),
            IpAddr::V6(_) => None,
        });
        let six = addresses.iter().filter_map(|address| match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(six) => Some(RData::AAAA(AAAA(*six))),
        });
        self.set(host, RecordType::A, four.collect())?;
        self.set(host, RecordType::AAAA, six.collect())
    }

    /// Replaces the MX records at `domain`: preference and host.
    pub fn set_mx(&self, domain: &str, exchangers: &[(u16, &str)]) -> Result<(), Error> {
        let records = exchangers
            .iter()
            .map(|(preference, host)| Ok(RData::MX(MX::new(*preference, zone_name(host)?))))
            .collect::<Result<_, Error>>()?;
        self.set(domain, RecordType::MX, records)
    }

    /// Makes `name` an alias. Other records there are not removed.
    pub fn set_cname(&self, name: &str, target: &str) -> Result<(), Error> {
        let target = RData::CNAME(CNAME(zone_name(target)?));
        self.set(name, RecordType::CNAME, vec![target])
    }

    /// Removes everything at `name`. What is asked there is denied from now
    /// on, with proof if the zone is signed.
    pub fn remove(&self, name: &str) -> Result<(), Error> {
        let owner = zone_name(name)?;
        let mut zones = self.zones_mut();
        let zone = zones.enclosing_mut(&owner).ok_or_else(|| Error::NoZone(name.to_owned()))?;
        if owner != zone.origin {
            zone.nodes.remove(&owner);
        }
        zone.changed();
        Ok(())
    }

    /// Lets a zone misbehave, or behave again.
    pub fn set_fault(&self, zone: &str, fault: Option<Fault>) -> Result<(), Error> {
        let origin = zone_name(zone)?;
        let mut zones = self.zones_mut();
        let zone = zones.all.get_mut(&origin).ok_or_else(|| Error::NoZone(zone.to_owned()))?;
        if fault == Some(Fault::WrongKey) && zone.rogue.is_none() {
            zone.rogue = Some(Arc::new(Key::generate(&origin)?));
        }
        zone.fault = fault;
        zone.changed();
        Ok(())
    }

    /// Time to live of a zone's records from now on, seconds; that of its keys
    /// stays.
    pub fn set_ttl(&self, zone: &str, seconds: u32) -> Result<(), Error> {
        let origin = zone_name(zone)?;
        let mut zones = self.zones_mut();
        let zone = zones.all.get_mut(&origin).ok_or_else(|| Error::NoZone(zone.to_owned()))?;
        zone.ttl = seconds;
        zone.changed();
        Ok(())
    }

    /// Makes the signatures of what is said about TXT records at `name`, and
    /// those over the keys on the way there. Else the first question makes them.
    pub fn sign_answers(&self, name: &str) -> Result<(), Error> {
        let name = zone_name(name)?;
        let zones = self.zones();
        zones.reply(&name, RecordType::TXT)?;
        let mut origin = zones.origin(&name);
        loop {
            zones.reply(&origin, RecordType::DNSKEY)?;
            if origin.is_root() {
                return Ok(());
            }
            zones.reply(&origin, RecordType::DS)?;
            origin = zones.origin(&origin.base_name());
        }
    }

    /// Replaces the records of one type; none removes them.
    fn set(&self, name: &str, kind: RecordType, records: Vec<RData>) -> Result<(), Error> {
        let owner = zone_name(name)?;
        let mut zones = self.zones_mut();
        let zone = zones.enclosing_mut(&owner).ok_or_else(|| Error::NoZone(name.to_owned()))?;
        zone.set(&owner, kind, records);
        Ok(())
    }

    fn zones(&self) -> RwLockReadGuard<'_, Zones> {
        self.shared.zones.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn zones_mut(&self) -> RwLockWriteGuard<'_, Zones> {
        self.shared.zones.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The same free port for UDP and TCP.
async fn bind_both(address: IpAddr) -> io::Result<(UdpSocket, TcpListener)> {
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..32 {
        let udp = UdpSocket::bind((address, 0)).await?;
        match TcpListener::bind(udp.local_addr()?).await {
            Ok(tcp) => return Ok((udp, tcp)),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn zone_name(text: &str) -> Result<Name, Error> {
    let name = ask_name(text).map_err(|_| Error::Name(text.to_owned()))?;
    Ok(name.to_lowercase())
}

/// Split into character-strings of at most 255 bytes.
fn txt(text: &[u8]) -> TXT {
    if text.is_empty() {
        TXT::from_bytes(vec![b""])
    } else {
        TXT::from_bytes(text.chunks(255).collect())
    }
}

/// All zones, by origin. The root is always there.
#[derive(Clone)]
struct Zones {
    ttl: u32,
    all: HashMap<Name, Zone>,
}

impl Zones {
    /// The zone that `name` is in.
    fn enclosing(&self, name: &Name) -> Option<&Zone> {
        self.all.get(&self.origin(name))
    }

    fn enclosing_mut(&mut self, name: &Name) -> Option<&mut Zone> {
        let origin = self.origin(name);
        self.all.get_mut(&origin)
    }

    fn origin(&self, name: &Name) -> Name {
        let mut origin = name.clone();
        while !self.all.contains_key(&origin) && !origin.is_root() {
            origin = origin.base_name();
        }
        origin
    }

    /// The zone that answers for `name` and `kind`: DS is the parent's.
    fn authority(&self, name: &Name, kind: RecordType) -> Option<&Zone> {
        if kind == RecordType::DS && !name.is_root() {
            self.enclosing(&name.base_name())
        } else {
            self.enclosing(name)
        }
    }

    fn add(&mut self, origin: &Name, signed: bool) -> Result<(), Error> {
        let top = origin.trim_to(1);
        if !self.all.contains_key(&top) && top != *origin {
            self.create(&top, true)?;
        }
        if !self.all.contains_key(origin) { self.create(origin, signed) } else { Ok(()) }
    }

    /// A new zone with SOA and NS, delegated from the zone around it.
    fn create(&mut self, origin: &Name, signed: bool) -> Result<(), Error> {
        let key = if signed { Some(Arc::new(Key::generate(origin)?)) } else { None };
        let server = NS(Name::from_ascii("localhost.").map_err(sign_error)?);
        if !origin.is_root() {
            let digest = key.as_ref().map(|key| key.digest(origin)).transpose()?;
            if let Some(parent) = self.enclosing_mut(&origin.base_name()) {
                parent.set(origin, RecordType::NS, vec![RData::NS(server.clone())]);
                let digest = digest.map(|digest| RData::DNSSEC(DNSSECRData::DS(digest)));
                parent.set(origin, RecordType::DS, digest.into_iter().collect());
            }
        }
        let mut zone = Zone {
            origin: origin.clone(),
            ttl: self.ttl,
            key_ttl: self.ttl,
            serial: 1,
            key,
            rogue: None,
            fault: None,
            nodes: BTreeMap::new(),
            signatures: Mutex::default(),
        };
        zone.set(origin, RecordType::NS, vec![RData::NS(server)]);
        self.all.insert(origin.clone(), zone);
        Ok(())
    }

    /// The root key as a DNSKEY line.
    fn anchor(&self) -> Result<String, Error> {
        let root = self.all.get(&Name::root()).and_then(|root| root.key.as_ref());
        let key = root.ok_or_else(|| Error::NoZone(".".into()))?.dnskey();
        Ok(format!(
            ". IN DNSKEY {} 3 {} {}\n",
            key.flags(),
            u8::from(key.public_key().algorithm()),
            STANDARD.encode(key.public_key().public_bytes())
        ))
    }
}

/// One zone. Names are in canonical order, which is the order of its NSEC chain.
struct Zone {
    origin: Name,
    ttl: u32,
    /// Of its keys; DS records are the parent's.
    key_ttl: u32,
    serial: u32,
    /// `None`: the zone is not signed.
    key: Option<Arc<Key>>,
    /// The key used under [`Fault::WrongKey`].
    rogue: Option<Arc<Key>>,
    fault: Option<Fault>,
    nodes: BTreeMap<Name, BTreeMap<RecordType, Vec<RData>>>,
    /// Made when first asked for; emptied by every change.
    signatures: Mutex<HashMap<(Name, RecordType), Record>>,
}

impl Clone for Zone {
    fn clone(&self) -> Zone {
        Zone {
            origin: self.origin.clone(),
            ttl: self.ttl,
            key_ttl: self.key_ttl,
            serial: self.serial,
            key: self.key.clone(),
            rogue: self.rogue.clone(),
            fault: self.fault,
            nodes: self.nodes.clone(),
            signatures: Mutex::default(),
        }
    }
}

impl Zone {
    fn set(&mut self, owner: &Name, kind: RecordType, records: Vec<RData>) {
        let node = self.nodes.entry(owner.clone()).or_default();
        if records.is_empty() {
            node.remove(&kind);
        } else {
            node.insert(kind, records);
        }
        if node.is_empty() {
            self.nodes.remove(owner);
        }
        self.changed();
    }

    fn changed(&mut self) {
        self.serial = self.serial.wrapping_add(1);
        self.signatures.get_mut().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The key that signs now.
    fn signing_key(&self) -> Option<&Key> {
        match self.fault {
            Some(Fault::WrongKey) if self.key.is_some() => self.rogue.as_deref(),
            _ => self.key.as_deref(),
        }
    }

    /// The records of `kind` at `owner`; those of the apex that no one sets are
    /// made here.
    fn records(&self, owner: &Name, kind: RecordType) -> Option<Vec<RData>> {
        let apex = *owner == self.origin;
        match kind {
            RecordType::SOA if apex => Some(vec![RData::SOA(self.soa())]),
            RecordType::DNSKEY if apex => self
                .signing_key()
                .map(|key| vec![RData::DNSSEC(DNSSECRData::DNSKEY(key.dnskey().clone()))]),
            RecordType::NSEC => self.key.as_ref().and(self.nsec(owner)),
            _ => self.nodes.get(owner)?.get(&kind).cloned(),
        }
    }

    fn soa(&self) -> SOA {
        let server = Name::from_ascii("localhost.").unwrap_or_default();
        SOA::new(server, Name::root(), self.serial, 3600, 600, 86_400, self.ttl)
    }

    /// The NSEC record of an owner in the zone.
    fn nsec(&self, owner: &Name) -> Option<Vec<RData>> {
        let node = self.nodes.get(owner)?;
        let after =
            self.nodes.range((std::ops::Bound::Excluded(owner), std::ops::Bound::Unbounded));
        let next = after.map(|(name, _)| name).next().unwrap_or(&self.origin);
        let mut types: BTreeSet<RecordType> = node.keys().copied().collect();
        if *owner == self.origin {
            types.extend([RecordType::SOA, RecordType::DNSKEY]);
        }
        types.extend([RecordType::NSEC, RecordType::RRSIG]);
        Some(vec![RData::DNSSEC(DNSSECRData::NSEC(NSEC::new(next.clone(), types)))])
    }

    /// The records with their signature, and with the fault, as sent.
    fn signed(&self, owner: &Name, kind: RecordType) -> Result<Option<Vec<Record>>, Error> {
        let Some(records) = self.records(owner, kind) else {
            return Ok(None);
        };
        let ttl = if kind == RecordType::DNSKEY { self.key_ttl } else { self.ttl };
        let mut set = RecordSet::with_ttl(owner.clone(), kind, ttl);
        for data in records {
            set.add_rdata(data);
        }
        let delegation = kind == RecordType::NS && *owner != self.origin;
        let signature = if delegation { None } else { self.signature(&set)? };
        let mut sent: Vec<Record> = set.records_without_rrsigs().cloned().collect();
        if self.fault == Some(Fault::Tampered) {
            sent.iter_mut().for_each(tamper);
        }
        sent.extend(signature);
        Ok(Some(sent))
    }

    fn signature(&self, set: &RecordSet) -> Result<Option<Record>, Error> {
        let Some(key) = self.signing_key() else {
            return Ok(None);
        };
        if self.fault == Some(Fault::Stripped) && set.record_type() != RecordType::DNSKEY {
            return Ok(None);
        }
        let place = (set.name().clone(), set.record_type());
        let mut known = self.signatures.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(signature) = known.get(&place) {
            return Ok(Some(signature.clone()));
        }
        let ago = if self.fault == Some(Fault::Expired) { EXPIRED_AGO } else { SIGNED_AGO };
        let signature = key.sign(set, ago)?;
        known.insert(place, signature.clone());
        Ok(Some(signature))
    }

    /// SOA and, in a signed zone, the NSEC records that prove the absence.
    fn denial(&self, name: &Name, exists: bool) -> Result<Vec<Record>, Error> {
        let mut records = self.signed(&self.origin, RecordType::SOA)?.unwrap_or_default();
        if self.key.is_none() || self.fault == Some(Fault::Stripped) {
            return Ok(records);
        }
        let mut owners: BTreeSet<&Name> = self.at_or_before(name).into_iter().collect();
        if !exists {
            let wildcard = self.closest(name).prepend_label("*").map_err(sign_error)?;
            owners.extend(self.at_or_before(&wildcard));
        }
        for owner in owners {
            records.extend(self.signed(owner, RecordType::NSEC)?.unwrap_or_default());
        }
        Ok(records)
    }

    fn at_or_before(&self, name: &Name) -> Option<&Name> {
        self.nodes.range(..=name).next_back().map(|(owner, _)| owner)
    }

    /// Whether `name` has records, or a name below it has (empty non-terminal).
    fn exists(&self, name: &Name) -> bool {
        let next = self.nodes.range(name..).next();
        *name == self.origin || next.is_some_and(|(owner, _)| name.zone_of(owner))
    }

    /// The closest ancestor of `name` that exists.
    fn closest(&self, name: &Name) -> Name {
        let mut closest = name.base_name();
        while !self.exists(&closest) && !closest.is_root() {
            closest = closest.base_name();
        }
        closest
    }
}

/// A zone's only key, for its keys and its records alike.
struct Key(DnssecSigner);

impl Key {
    fn generate(origin: &Name) -> Result<Key, Error> {
        const ALGORITHM: Algorithm = Algorithm::ECDSAP256SHA256;
        let secret = EcdsaSigningKey::generate_pkcs8(ALGORITHM).map_err(sign_error)?;
        let key = EcdsaSigningKey::from_pkcs8(&secret, ALGORITHM).map_err(sign_error)?;
        let public = key.to_public_key().map_err(sign_error)?;
        let dnskey = DNSKEY::from_key(&public);
        Ok(Key(DnssecSigner::new(dnskey, Box::new(key), origin.clone(), SIGNED_FOR)))
    }

    fn dnskey(&self) -> &DNSKEY {
        self.0.dnskey()
    }

    fn digest(&self, origin: &Name) -> Result<DS, Error> {
        DS::from_key(self.dnskey().public_key(), origin, DigestType::SHA256).map_err(sign_error)
    }

    fn sign(&self, set: &RecordSet, ago: Duration) -> Result<Record, Error> {
        let since = (SystemTime::now() - ago).into();
        let signature = RRSIG::from_rrset(set, DNSClass::IN, since, &self.0).map_err(sign_error)?;
        let data = RData::DNSSEC(DNSSECRData::RRSIG(signature));
        Ok(Record::from_rdata(set.name().clone(), set.ttl(), data))
    }
}

fn sign_error(error: impl std::fmt::Display) -> Error {
    Error::Sign(error.to_string())
}

fn tamper(record: &mut Record) {
    if let RData::TXT(text) = &record.data {
        let mut bytes = text.txt_data.concat();
        bytes.push(b' ');
        record.data = RData::TXT(txt(&bytes));
    }
}

/// What is sent back.
#[derive(Default)]
struct Reply {
    code: ResponseCode,
    answers: Vec<Record>,
    authorities: Vec<Record>,
}

impl Zones {
    fn reply(&self, name: &Name, kind: RecordType) -> Result<Reply, Error> {
        let Some(zone) = self.authority(name, kind) else {
            return Ok(Reply { code: ResponseCode::Refused, ..Reply::default() });
        };
        if zone.fault == Some(Fault::ServFail) {
            return Ok(Reply { code: ResponseCode::ServFail, ..Reply::default() });
        }
        let found = match zone.signed(name, kind)? {
            None => zone.signed(name, RecordType::CNAME)?,
            found => found,
        };
        if let Some(answers) = found {
            return Ok(Reply { answers, ..Reply::default() });
        }
        let exists = zone.exists(name);
        let code = if exists { ResponseCode::NoError } else { ResponseCode::NXDomain };
        Ok(Reply { code, answers: vec![], authorities: zone.denial(name, exists)? })
    }

    fn fault(&self, name: &Name, kind: RecordType) -> Option<Fault> {
        self.authority(name, kind).and_then(|zone| zone.fault)
    }
}

struct Shared {
    zones: RwLock<Zones>,
    questions: AtomicU64,
}

struct Handler(Arc<Shared>);

impl Handler {
    fn zones(&self) -> RwLockReadGuard<'_, Zones> {
        self.0.zones.read().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut response: R,
    ) -> ResponseInfo {
        self.0.questions.fetch_add(1, Ordering::Relaxed);
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.authoritative = true;
        let unsent = Header { metadata, counts: HeaderCounts::default() }.into();
        let Ok(question) = request.request_info() else {
            return unsent;
        };
        let name = Name::from(question.query.name().clone()).to_lowercase();
        let kind = question.query.query_type();
        let fault = self.zones().fault(&name, kind);
        match fault {
            Some(Fault::Silent) => return unsent,
            Some(Fault::SilentKeys) if kind == RecordType::DNSKEY => return unsent,
            Some(Fault::Slow(delay)) => tokio::time::sleep(delay).await,
            _ => {}
        }
        let reply = self.zones().reply(&name, kind).unwrap_or_else(|error| {
            tracing::warn!(%error, "private DNS");
            Reply { code: ResponseCode::ServFail, ..Reply::default() }
        });
        metadata.response_code = reply.code;
        let mut edns = Edns::new();
        edns.set_max_payload(request.max_payload().min(MAX_UDP));
        edns.set_dnssec_ok(request.edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok));
        let mut builder = MessageResponseBuilder::from_message_request(request);
        if request.edns.is_some() {
            builder.edns(&edns);
        }
        let nothing: [&Record; 0] = [];
        let message = builder.build(metadata, &reply.answers, &reply.authorities, nothing, nothing);
        response.send_response(message).await.unwrap_or(unsent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dime::Dnssec;
    use crate::resolver::{Denial, Error as Unanswered, HickoryResolver, MAX_RECORDS, Resolver};

    const RECORD: &str = "v=dime1 pok=iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w";

    async fn private() -> PrivateDns {
        let dns = PrivateDns::builder()
            .signed("good.example")
            .signed("deep.good.example")
            .unsigned("plain.example")
            .unsigned("below.plain.example")
            .start()
            .await
            .unwrap();
        for domain in ["good.example", "deep.good.example", "plain.example", "below.plain.example"]
        {
            dns.set_txt(&format!("_dime.{domain}"), &[RECORD]).unwrap();
        }
        dns
    }

    fn asking(dns: &PrivateDns) -> HickoryResolver {
        HickoryResolver::new(dns.resolver_options()).unwrap()
    }

    /// For servers that say nothing.
    fn hasty(dns: &PrivateDns) -> HickoryResolver {
        let timeout = Duration::from_millis(1500);
        HickoryResolver::new(Options { timeout, attempts: 1, ..dns.resolver_options() }).unwrap()
    }

    #[tokio::test]
    async fn signed_and_unsigned_zones() {
        let dns = private().await;
        let resolver = asking(&dns);
        for (domain, dnssec) in [
            ("good.example", Dnssec::Secure),
            ("deep.good.example", Dnssec::Secure),
            ("plain.example", Dnssec::Insecure),
            ("below.plain.example", Dnssec::Insecure),
        ] {
            let answer = resolver.txt(&format!("_DIME.{domain}")).await.unwrap();
            assert_eq!(answer.records, [RECORD.as_bytes().to_vec()], "{domain}");
            assert_eq!((answer.dnssec, answer.denial), (dnssec, None), "{domain}");
        }
    }

    #[tokio::test]
    async fn denials_with_and_without_proof() {
        let dns = private().await;
        dns.set_txt("a.b.good.example", &["x"]).unwrap();
        let resolver = asking(&dns);
        for (name, denial, dnssec) in [
            ("_dx.good.example", Denial::NoName, Dnssec::Secure),
            ("good.example", Denial::NoData, Dnssec::Secure),
            ("b.good.example", Denial::NoData, Dnssec::Secure),
            ("x.y.z.good.example", Denial::NoName, Dnssec::Secure),
            ("zzz.good.example", Denial::NoName, Dnssec::Secure),
            ("_dime.nobody.example", Denial::NoName, Dnssec::Secure),
            ("_dime.nobody.nowhere", Denial::NoName, Dnssec::Secure),
            ("_dx.plain.example", Denial::NoName, Dnssec::Insecure),
            ("plain.example", Denial::NoData, Dnssec::Insecure),
        ] {
            let answer = resolver.txt(name).await.unwrap();
            assert_eq!((answer.denial, answer.dnssec), (Some(denial), dnssec), "{name}");
            assert_eq!(answer.authenticated_denial(), dnssec == Dnssec::Secure);
            assert!(answer.records.is_empty());
        }
    }

    #[tokio::test]
    async fn faults_are_told_apart() {
        let dns = private().await;
        let name = "_dime.good.example";
        for (fault, expected) in [
            (Fault::Tampered, "bogus"),
            (Fault::Expired, "bogus"),
            (Fault::Stripped, "bogus"),
            (Fault::WrongKey, "bogus"),
            (Fault::ServFail, "servfail"),
            (Fault::Silent, "timeout"),
            (Fault::SilentKeys, "timeout"),
        ] {
            dns.set_fault("good.example", Some(fault)).unwrap();
            let is_silent = matches!(fault, Fault::Silent | Fault::SilentKeys);
            let resolver = if is_silent { hasty(&dns) } else { asking(&dns) };
            let outcome = resolver.txt(name).await;
            let told = match &outcome {
                Err(Unanswered::Bogus { .. }) => "bogus",
                Err(Unanswered::ServFail { code, .. }) if code == "Server Failure" => "servfail",
                Err(Unanswered::Timeout { .. }) => "timeout",
                _ => "other",
            };
            assert_eq!(told, expected, "{fault:?}: {outcome:?}");
        }
        dns.set_fault("good.example", Some(Fault::Slow(Duration::from_millis(1)))).unwrap();
        assert_eq!(asking(&dns).txt(name).await.unwrap().dnssec, Dnssec::Secure);
    }

    #[tokio::test]
    async fn a_stripped_or_tampered_denial_is_bogus() {
        let dns = private().await;
        for fault in [Fault::Stripped, Fault::Expired, Fault::WrongKey] {
            dns.set_fault("good.example", Some(fault)).unwrap();
            let outcome = asking(&dns).txt("_dx.good.example").await;
            assert!(matches!(outcome, Err(Unanswered::Bogus { .. })), "{fault:?}: {outcome:?}");
        }
    }

    /// One resolver sees a zone break and heal: what it remembers must not
    /// keep the old outcome alive.
    #[tokio::test]
    async fn a_healed_zone_is_trusted_again() {
        let dns = private().await;
        let (patient, hasty) = (asking(&dns), hasty(&dns));
        let name = "_dime.good.example";
        assert!(patient.txt(name).await.is_ok());
        for fault in [Fault::Tampered, Fault::WrongKey, Fault::SilentKeys, Fault::ServFail] {
            let resolver = if fault == Fault::SilentKeys { &hasty } else { &patient };
            dns.set_fault("good.example", Some(fault)).unwrap();
            assert!(resolver.txt(name).await.is_err(), "{fault:?}");
            dns.set_fault("good.example", None).unwrap();
            // A busy machine may be too slow for the hasty one, and not every time.
            let mut answer = resolver.txt(name).await;
            for _ in 0..3 {
                if matches!(answer, Err(Unanswered::Timeout { .. })) {
                    answer = resolver.txt(name).await;
                }
            }
            assert_eq!(answer.unwrap().dnssec, Dnssec::Secure, "{fault:?}");
        }
    }

    #[tokio::test]
    async fn records_change_while_it_runs() {
        let dns = private().await;
        let resolver = asking(&dns);
        dns.set_txt("_dime.good.example", &["first", "second"]).unwrap();
        let mut texts = resolver.txt("_dime.good.example").await.unwrap().records;
        texts.sort();
        assert_eq!(texts, [b"first".to_vec(), b"second".to_vec()]);
        dns.remove("_dime.good.example").unwrap();
        assert!(resolver.txt("_dime.good.example").await.unwrap().authenticated_denial());
        dns.add_zone("late.other", true).unwrap();
        dns.set_txt("_dime.late.other", &["late"]).unwrap();
        assert_eq!(resolver.txt("_dime.late.other").await.unwrap().dnssec, Dnssec::Secure);
    }

    #[tokio::test]
    async fn long_texts_are_joined_and_too_much_is_refused() {
        let dns = private().await;
        let resolver = asking(&dns);
        // More than a UDP answer holds, and more than one character-string.
        let long = "x".repeat(4000);
        dns.set_txt("long.good.example", &[&long]).unwrap();
        let answer = resolver.txt("long.good.example").await.unwrap();
        assert_eq!((answer.records, answer.dnssec), (vec![long.into_bytes()], Dnssec::Secure));
        let many: Vec<String> = (0..=MAX_RECORDS).map(|n| format!("record {n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        dns.set_txt("many.good.example", &many).unwrap();
        let outcome = resolver.txt("many.good.example").await;
        assert!(matches!(outcome, Err(Unanswered::Excess { .. })), "{outcome:?}");
    }

    #[tokio::test]
    async fn an_alias_is_as_good_as_its_worst_link() {
        let dns = private().await;
        for (alias, target) in [
            ("up.good.example", "_dime.deep.good.example"),
            ("two.good.example", "up.good.example"),
            ("down.good.example", "_dime.plain.example"),
            ("in.plain.example", "_dime.good.example"),
            ("gone.good.example", "nothing.deep.good.example"),
            ("lost.good.example", "nothing.plain.example"),
            ("gone.plain.example", "nothing.good.example"),
        ] {
            dns.set_cname(alias, target).unwrap();
        }
        let resolver = asking(&dns);
        // Twice: the second answer comes from a cache.
        for _ in 0..2 {
            for (alias, dnssec) in [
                ("up.good.example", Dnssec::Secure),
                ("two.good.example", Dnssec::Secure),
                ("down.good.example", Dnssec::Insecure),
                ("in.plain.example", Dnssec::Insecure),
            ] {
                let answer = resolver.txt(alias).await.unwrap();
                assert_eq!(answer.records, [RECORD.as_bytes().to_vec()], "{alias}");
                assert_eq!(answer.dnssec, dnssec, "{alias}");
            }
            for (alias, dnssec) in [
                ("gone.good.example", Dnssec::Secure),
                ("lost.good.example", Dnssec::Insecure),
                ("gone.plain.example", Dnssec::Insecure),
            ] {
                let answer = resolver.txt(alias).await.unwrap();
                assert_eq!(
                    (answer.denial, answer.dnssec),
                    (Some(Denial::NoName), dnssec),
                    "{alias}"
                );
            }
        }
        dns.set_fault("deep.good.example", Some(Fault::Tampered)).unwrap();
        let outcome = resolver.txt("up.good.example").await;
        assert!(matches!(outcome, Err(Unanswered::Bogus { .. })), "{outcome:?}");
    }

    #[tokio::test]
    async fn alias_loops_end() {
        let dns = private().await;
        dns.set_cname("self.good.example", "self.good.example").unwrap();
        dns.set_cname("a.good.example", "b.plain.example").unwrap();
        dns.set_cname("b.plain.example", "a.good.example").unwrap();
        for n in 0..12 {
            dns.set_cname(&format!("c{n}.good.example"), &format!("c{}.good.example", n + 1))
                .unwrap();
        }
        dns.set_txt("c12.good.example", &["far"]).unwrap();
        let resolver = asking(&dns);
        for name in ["self.good.example", "a.good.example", "c0.good.example"] {
            let outcome = resolver.txt(name).await;
            assert!(matches!(outcome, Err(Unanswered::Excess { .. })), "{name}: {outcome:?}");
        }
        assert_eq!(resolver.txt("c6.good.example").await.unwrap().dnssec, Dnssec::Secure);
    }

    #[tokio::test]
    async fn addresses_and_exchangers() {
        let dns = private().await;
        let four: IpAddr = "127.1.2.3".parse().unwrap();
        let six: IpAddr = "::1".parse().unwrap();
        dns.set_addresses("both.good.example", &[four, six]).unwrap();
        dns.set_addresses("four.plain.example", &[four]).unwrap();
        dns.set_mx("good.example", &[(20, "b.good.example"), (10, "A.good.example")]).unwrap();
        let resolver = asking(&dns);
        let both = resolver.addresses("both.good.example").await.unwrap();
        assert_eq!((both.records, both.dnssec), (vec![six, four], Dnssec::Secure));
        let one = resolver.addresses("four.plain.example").await.unwrap();
        assert_eq!((one.records, one.dnssec), (vec![four], Dnssec::Insecure));
        let none = resolver.addresses("none.good.example").await.unwrap();
        assert!(none.authenticated_denial());
        let outcome = resolver.addresses("127.0.0.1").await;
        assert!(matches!(outcome, Err(Unanswered::Name { .. })));
        let mx = resolver.mx("good.example").await.unwrap();
        let hosts: Vec<&str> = mx.records.iter().map(|mx| mx.host.as_str()).collect();
        assert_eq!((hosts, mx.dnssec), (vec!["a.good.example", "b.good.example"], Dnssec::Secure));
        assert_eq!(resolver.mx("deep.good.example").await.unwrap().denial, Some(Denial::NoData));
    }

    #[tokio::test]
    async fn denials_are_cached_for_their_time() {
        let dns = PrivateDns::builder().signed("good.example").ttl(60).start().await.unwrap();
        dns.set_txt("_dime.good.example", &["x"]).unwrap();
        let resolver = asking(&dns);
        let first = resolver.txt("_dx.good.example").await.unwrap();
        assert!(resolver.txt("_dime.good.example").await.unwrap().ttl <= 60);
        // What is asked from now on has no answer.
        dns.set_fault("good.example", Some(Fault::ServFail)).unwrap();
        let again = resolver.txt("_DX.good.example").await.unwrap();
        assert!(first.ttl <= 60 && again.ttl <= first.ttl && again.ttl > 0);
        assert!(again.authenticated_denial());
        assert!(resolver.txt("_dime.good.example").await.is_ok());
        assert!(resolver.txt("_new.good.example").await.is_err());
        resolver.clear_cache().await;
        assert!(resolver.txt("_dx.good.example").await.is_err());
        dns.set_fault("good.example", None).unwrap();
        assert!(resolver.txt("_dx.good.example").await.unwrap().authenticated_denial());
    }

    #[tokio::test]
    async fn another_anchor_and_a_stopped_server() {
        let dns = private().await;
        let other = private().await;
        let mut options = dns.resolver_options();
        options.trust_anchor = other.trust_anchor();
        let stranger = HickoryResolver::new(options).unwrap();
        let outcome = stranger.txt("_dime.good.example").await;
        assert!(matches!(outcome, Err(Unanswered::Bogus { .. })), "{outcome:?}");
        let resolver = hasty(&dns);
        drop(dns);
        let outcome = resolver.txt("_dime.good.example").await;
        assert!(
            matches!(outcome, Err(Unanswered::Timeout { .. } | Unanswered::Network { .. })),
            "{outcome:?}"
        );
    }

    #[tokio::test]
    async fn an_anchor_known_by_digest() {
        let dns = private().await;
        let digest = {
            let zones = dns.zones();
            let root = zones.all[&Name::root()].key.as_ref().unwrap();
            root.digest(&Name::root()).unwrap()
        };
        let line = format!(". IN DS {digest}");
        let mut options = dns.resolver_options();
        options.trust_anchor = TrustAnchor::parse(&line).unwrap();
        let resolver = HickoryResolver::new(options.clone()).unwrap();
        assert_eq!(resolver.txt("_dime.good.example").await.unwrap().dnssec, Dnssec::Secure);
        let other = private().await;
        options.name_servers = other.name_servers();
        let outcome = HickoryResolver::new(options).unwrap().txt("_dime.good.example").await;
        assert!(matches!(outcome, Err(Unanswered::Bogus { .. })), "{outcome:?}");
    }

    #[tokio::test]
    async fn a_second_view_differs_and_is_trusted() {
        let dns = private().await;
        let second = dns.second_view().await.unwrap();
        second.set_txt("_dime.good.example", &["other"]).unwrap();
        let seen = asking(&second).txt("_dime.good.example").await.unwrap();
        assert_eq!((seen.records, seen.dnssec), (vec![b"other".to_vec()], Dnssec::Secure));
        let seen = asking(&dns).txt("_dime.good.example").await.unwrap();
        assert_eq!(seen.records, [RECORD.as_bytes().to_vec()]);
        assert_eq!(dns.trust_anchor_text(), second.trust_anchor_text());
    }

    #[tokio::test]
    async fn thousands_of_zones() {
        let mut builder = PrivateDns::builder();
        for n in 0..2000 {
            builder = builder.signed(&format!("d{n}.example"));
        }
        let dns = builder.start().await.unwrap();
        let resolver = Arc::new(asking(&dns));
        let mut asked = tokio::task::JoinSet::new();
        for n in (0..2000).step_by(20) {
            let name = format!("_dime.d{n}.example");
            dns.set_txt(&name, &["x"]).unwrap();
            let resolver = resolver.clone();
            asked.spawn(async move { resolver.txt(&name).await.unwrap().dnssec });
        }
        while let Some(dnssec) = asked.join_next().await {
            assert_eq!(dnssec.unwrap(), Dnssec::Secure);
        }
    }
}
