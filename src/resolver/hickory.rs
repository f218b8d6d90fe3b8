//! The resolver of the mirror: a validating stub on `hickory-resolver`.
//!
//! What it adds, because the library does not: only records of the asked name
//! and type count, and every CNAME before them; a denial is secure only with
//! its NSEC or NSEC3 records; denials are cached with their own lifetime; a
//! CNAME loop is not "no record"; and an answer that is bogus only because a
//! key could not be fetched is the failure to fetch it.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use hickory_proto::dnssec::rdata::{DNSKEY, DNSSECRData};
use hickory_proto::dnssec::{Proof, TrustAnchors};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError, NoRecords};
use tokio::sync::RwLock;

use super::evidence::Collector;
use super::slots::Slots;
use super::{
    Answer, Denial, Error, Evidence, MAX_CNAMES, MAX_RECORDS, MAX_TTL, MAX_TXT_BYTES, Mx, Resolver,
    TrustAnchor, ask_name, weaker,
};
use crate::dime::{Dnssec, Domain, Timestamp};

/// Longest time that a denial is taken from a cache, seconds (RFC 2308 §5).
pub const MAX_NEGATIVE_TTL: u32 = 10_800;

/// Whom to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameServers {
    /// As the machine is configured (`/etc/resolv.conf`).
    System,
    /// These, over UDP, and TCP for long answers.
    Listed(Vec<SocketAddr>),
}

/// Settings of a [`HickoryResolver`].
#[derive(Clone, Debug)]
pub struct Options {
    pub name_servers: NameServers,
    pub trust_anchor: TrustAnchor,
    /// Of one request to one server. Default 3 s.
    pub timeout: Duration,
    /// Requests before giving up, at least 1. Default 2.
    pub attempts: usize,
    /// Of a whole question, with every CNAME and key on the way. Default 15 s.
    pub deadline: Duration,
    /// Answers kept, found and denied each. Default 8192.
    pub cache: u64,
    /// Questions in flight at once, at least 1, an eighth of them below one
    /// registered domain; more of them wait, and waiting counts against no limit
    /// of time. Default 256.
    pub concurrent: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            name_servers: NameServers::System,
            trust_anchor: TrustAnchor::iana(),
            timeout: Duration::from_secs(3),
            attempts: 2,
            deadline: Duration::from_secs(15),
            cache: 8192,
            concurrent: 256,
        }
    }
}

/// Asks the name servers and validates what they say.
pub struct HickoryResolver {
    options: Options,
    /// `None` until the first question, so that [`HickoryResolver::new`] needs
    /// no network. Replaced when a fresh one trusts what this one does not.
    current: RwLock<Option<TokioResolver>>,
    denials: Mutex<Denials>,
    collector: Collector,
    slots: Slots,
}

/// What one lookup said, before it is an answer about a type of record.
struct Found {
    records: Vec<Record>,
    dnssec: Dnssec,
    ttl: u32,
    denial: Option<Denial>,
}

impl HickoryResolver {
    /// Starts no task and sends nothing yet. [`Error::Setup`] without a name
    /// server or a trust anchor.
    pub fn new(options: Options) -> Result<HickoryResolver, Error> {
        if options.name_servers == NameServers::Listed(vec![]) {
            return Err(Error::Setup { reason: "no name server is listed".into() });
        }
        if options.trust_anchor.anchors(&[]).is_empty() && options.trust_anchor.digests().is_empty()
        {
            return Err(Error::Setup { reason: "there is no trust anchor for the root".into() });
        }
        build(&options, None)?;
        Ok(HickoryResolver {
            denials: Mutex::new(Denials::new(options.cache as usize)),
            collector: Collector::new(&options)?,
            slots: Slots::new(options.concurrent, options.concurrent.div_ceil(8)),
            options,
            current: RwLock::new(None),
        })
    }

    /// Forgets every cached answer and every validated key.
    pub async fn clear_cache(&self) {
        *self.current.write().await = None;
        self.denials().clear();
        self.collector.clear();
    }

    fn denials(&self) -> std::sync::MutexGuard<'_, Denials> {
        self.denials.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All records of `kind` at `name`, within the limits of time and number.
    async fn ask(&self, name: &str, kind: RecordType) -> Result<Found, Error> {
        let name = ask_name(name)?;
        if let Some(known) = self.denials().find(&name, kind, Instant::now()) {
            return Ok(known);
        }
        let late = || Error::Timeout { name: plain(&name) };
        // Waiting for a slot is our own slowness, and no timeout.
        let _slot = self.slots.take(&plain(&name)).await.ok_or_else(late)?;
        let confirmed = self.confirmed(&name, kind);
        let found =
            tokio::time::timeout(self.options.deadline, confirmed).await.map_err(|_| late())??;
        if found.records.len() > MAX_RECORDS {
            return Err(Error::Excess { name: plain(&name), limit: "64 records of one type" });
        }
        if found.denial.is_some() {
            self.denials().insert(name, kind, &found, Instant::now());
        }
        Ok(found)
    }

    /// One lookup. A bogus outcome is tried once more with nothing cached: the
    /// library remembers for a minute what a lost packet made it believe, and
    /// a key may have rolled over. It stays bogus only if every key and DS
    /// record on the way can be fetched.
    async fn confirmed(&self, name: &Name, kind: RecordType) -> Result<Found, Error> {
        let first = lookup(&self.resolver().await?, name, kind).await;
        let Err(Error::Bogus { .. }) = first else {
            return first;
        };
        let fresh = self.primed().await?;
        let second = lookup(&fresh, name, kind).await;
        match second {
            Err(Error::Bogus { .. }) => match unreachable_key(&fresh, name).await {
                Some(failure) => Err(failure),
                None => second,
            },
            Ok(_) => {
                *self.current.write().await = Some(fresh);
                second
            }
            Err(_) => second,
        }
    }

    async fn resolver(&self) -> Result<TokioResolver, Error> {
        if let Some(resolver) = self.current.read().await.as_ref() {
            return Ok(resolver.clone());
        }
        let mut current = self.current.write().await;
        if let Some(resolver) = current.as_ref() {
            return Ok(resolver.clone());
        }
        let resolver = self.primed().await?;
        *current = Some(resolver.clone());
        Ok(resolver)
    }

    /// A resolver with empty caches. Anchors known by digest are fetched first,
    /// unvalidated: the digest is what is trusted.
    async fn primed(&self) -> Result<TokioResolver, Error> {
        let mut keys = Vec::new();
        let mut owners: Vec<&Name> =
            self.options.trust_anchor.digests().iter().map(|(owner, _)| owner).collect();
        owners.dedup();
        if !owners.is_empty() {
            let plain_resolver = build(&self.options, None)?;
            for owner in owners {
                let answer = plain_resolver.lookup(owner.clone(), RecordType::DNSKEY).await;
                let answer = answer.map_err(|error| failure(owner, error))?;
                keys.extend(answer.answers().iter().filter_map(|record| dnskey(owner, record)));
            }
        }
        build(&self.options, Some(self.options.trust_anchor.anchors(&keys)))
    }
}

#[async_trait]
impl Resolver for HickoryResolver {
    async fn txt(&self, name: &str) -> Result<Answer<Vec<Vec<u8>>>, Error> {
        let found = self.ask(name, RecordType::TXT).await?;
        let texts: Vec<Vec<u8>> = found.records.iter().filter_map(text).collect();
        if texts.iter().map(Vec::len).sum::<usize>() > MAX_TXT_BYTES {
            return Err(Error::Excess { name: name.to_owned(), limit: "64 KiB of TXT data" });
        }
        Ok(found.answer(texts))
    }

    async fn mx(&self, domain: &str) -> Result<Answer<Vec<Mx>>, Error> {
        let found = self.ask(domain, RecordType::MX).await?;
        let mut exchangers: Vec<Mx> = found.records.iter().filter_map(exchanger).collect();
        exchangers.sort_by_key(|mx| mx.preference);
        Ok(found.answer(exchangers))
    }

    async fn addresses(&self, host: &str) -> Result<Answer<Vec<IpAddr>>, Error> {
        let (six, four) =
            tokio::join!(self.ask(host, RecordType::AAAA), self.ask(host, RecordType::A));
        let (six, four) = match (six, four) {
            (Ok(six), Ok(four)) => (six, four),
            // One family is enough, unless the other was tampered with.
            (Ok(one), Err(error)) | (Err(error), Ok(one)) => {
                if one.denial.is_some() || matches!(error, Error::Bogus { .. }) {
                    return Err(error);
                }
                let addresses = one.records.iter().filter_map(address).collect();
                return Ok(one.answer(addresses));
            }
            (Err(error @ Error::Bogus { .. }), Err(_)) | (Err(_), Err(error)) => return Err(error),
        };
        let addresses: Vec<IpAddr> =
            six.records.iter().chain(&four.records).filter_map(address).collect();
        // An absent family bounds neither the lifetime nor the status of the other.
        Ok(match (six.denial, four.denial) {
            (Some(_), None) => four.answer(addresses),
            (None, Some(_)) => six.answer(addresses),
            (denial, _) => Answer {
                records: addresses,
                dnssec: weaker(six.dnssec, four.dnssec),
                ttl: six.ttl.min(four.ttl),
                denial,
            },
        })
    }

    async fn evidence(&self, domain: &Domain, at: Timestamp) -> Result<Option<Evidence>, Error> {
        let late = || Error::Timeout { name: domain.as_str().to_owned() };
        let collected = async {
            let _slot = self.slots.take(domain.as_str()).await.ok_or_else(late)?;
            self.collector.collect(domain, at).await
        };
        tokio::time::timeout(self.options.deadline, collected).await.map_err(|_| late())?
    }

    async fn unjudged(&self, domain: &Domain) -> Bytes {
        let Some(_slot) = self.slots.take(domain.as_str()).await else { return Bytes::new() };
        let asked = tokio::time::timeout(self.options.deadline, self.collector.unjudged(domain));
        asked.await.unwrap_or_default()
    }
}

impl Found {
    fn answer<T>(&self, records: T) -> Answer<T> {
        Answer { records, dnssec: self.dnssec, ttl: self.ttl, denial: self.denial }
    }
}

/// A resolver with empty caches; without anchors, one that does not validate.
fn build(options: &Options, anchors: Option<TrustAnchors>) -> Result<TokioResolver, Error> {
    let setup = |error: NetError| Error::Setup { reason: error.to_string() };
    let mut builder = match &options.name_servers {
        NameServers::System => TokioResolver::builder_tokio().map_err(setup)?,
        NameServers::Listed(servers) => {
            let servers = servers.iter().map(name_server).collect();
            let config = ResolverConfig::from_parts(None, vec![], servers);
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        }
    };
    *builder.options_mut() = tuned(options);
    if let Some(anchors) = anchors {
        builder = builder.with_trust_anchor(Arc::new(anchors));
    }
    builder.build().map_err(setup)
}

fn name_server(address: &SocketAddr) -> NameServerConfig {
    let connection = |mut connection: ConnectionConfig| {
        connection.port = address.port();
        connection
    };
    let connections =
        vec![connection(ConnectionConfig::udp()), connection(ConnectionConfig::tcp())];
    NameServerConfig::new(address.ip(), true, connections)
}

/// Nothing of the system's options is kept but its servers: a search list, a
/// hosts file or another number of dots would change what is asked.
fn tuned(options: &Options) -> ResolverOpts {
    let mut tuned = ResolverOpts::default();
    tuned.timeout = options.timeout;
    // The library counts retries.
    tuned.attempts = options.attempts.saturating_sub(1);
    tuned.cache_size = options.cache;
    tuned.positive_max_ttl = Some(Duration::from_secs(MAX_TTL.into()));
    tuned.use_hosts_file = ResolveHosts::Never;
    tuned.preserve_intermediates = true;
    tuned.case_randomization = true;
    tuned.edns0 = true;
    // Over one TCP connection; a question needs one at a time, two at most.
    tuned.max_active_requests = options.concurrent.clamp(16, 1 << 14).saturating_mul(2);
    tuned
}

/// Asks once, and follows CNAMEs itself where the library lost them.
async fn lookup(resolver: &TokioResolver, name: &Name, kind: RecordType) -> Result<Found, Error> {
    match resolver.lookup(name.clone(), kind).await {
        Ok(answer) => match chain(name, kind, answer.answers())? {
            Some(found) => Ok(found),
            None => behind_aliases(resolver, name, kind).await,
        },
        Err(NetError::Dns(DnsError::NoRecordsFound(none))) => {
            // Without its SOA, or about another name, the denial stands at the
            // end of CNAMEs of which we were not told the status.
            if none.soa.is_some() && none.query.name() == name {
                Ok(denied(&none))
            } else {
                behind_aliases(resolver, name, kind).await
            }
        }
        Err(error) => not_found(name, error),
    }
}

/// The records of `kind` at the end of the CNAMEs from `name`, or `None` if
/// the answer does not hold them.
fn chain(name: &Name, kind: RecordType, answers: &[Record]) -> Result<Option<Found>, Error> {
    let mut owner = name;
    let mut dnssec = Dnssec::Secure;
    let mut ttl = MAX_TTL;
    for _ in 0..=MAX_CNAMES {
        let at_owner = |wanted: RecordType| {
            answers
                .iter()
                .filter(move |record| record.name == *owner && record.record_type() == wanted)
        };
        let records: Vec<Record> = at_owner(kind).cloned().collect();
        let links: Vec<&Record> = at_owner(RecordType::CNAME).collect();
        for record in if records.is_empty() { links.clone() } else { records.iter().collect() } {
            dnssec = weaker(dnssec, status(record.proof));
            ttl = ttl.min(record.ttl);
        }
        if dnssec == Dnssec::Bogus {
            return Err(Error::Bogus { name: plain(name) });
        }
        if !records.is_empty() {
            return Ok(Some(Found { records, dnssec, ttl, denial: None }));
        }
        match links.as_slice() {
            [link] => match &link.data {
                RData::CNAME(target) => owner = &target.0,
                _ => return Ok(None),
            },
            _ => return Ok(None),
        }
    }
    Err(too_long(name))
}

/// Follows the CNAMEs from `name` one question at a time, so that each has its
/// status, and then asks for `kind` where they end.
async fn behind_aliases(
    resolver: &TokioResolver,
    name: &Name,
    kind: RecordType,
) -> Result<Found, Error> {
    let mut owner = name.clone();
    let mut dnssec = Dnssec::Secure;
    let mut ttl = MAX_TTL;
    for _ in 0..=MAX_CNAMES {
        let links = match resolver.lookup(owner.clone(), RecordType::CNAME).await {
            Ok(answer) => chain(&owner, RecordType::CNAME, answer.answers())?,
            Err(NetError::Dns(DnsError::NoRecordsFound(_))) => None,
            Err(error) => Some(not_found(&owner, error)?).filter(|found| found.denial.is_none()),
        };
        let Some(links) = links else {
            let mut last = last_link(resolver, &owner, kind).await?;
            last.dnssec = weaker(last.dnssec, dnssec);
            last.ttl = last.ttl.min(ttl);
            return Ok(last);
        };
        dnssec = weaker(dnssec, links.dnssec);
        ttl = ttl.min(links.ttl);
        match links.records.as_slice() {
            [Record { data: RData::CNAME(target), .. }] => owner = target.0.clone(),
            _ => return Err(too_long(name)),
        }
    }
    Err(too_long(name))
}

/// What is at a name that has no CNAME.
async fn last_link(
    resolver: &TokioResolver,
    name: &Name,
    kind: RecordType,
) -> Result<Found, Error> {
    match resolver.lookup(name.clone(), kind).await {
        Ok(answer) => chain(name, kind, answer.answers())?.ok_or_else(|| Error::Network {
            name: plain(name),
            reason: "the answer has no record of the asked name and type".into(),
        }),
        Err(NetError::Dns(DnsError::NoRecordsFound(none))) => Ok(denied(&none)),
        Err(error) => not_found(name, error),
    }
}

/// A denial and how well it is proved.
fn denied(none: &NoRecords) -> Found {
    let absent = none.response_code == ResponseCode::NXDomain;
    let proofs = none.authorities.as_deref().unwrap_or_default();
    Found {
        records: vec![],
        dnssec: denial_status(none.soa.as_deref().map(|soa| soa.proof), proofs, absent),
        ttl: none
            .soa
            .as_deref()
            .map_or(0, |soa| soa.ttl.min(soa.data.minimum))
            .min(MAX_NEGATIVE_TTL),
        denial: Some(if absent { Denial::NoName } else { Denial::NoData }),
    }
}

/// Secure needs a secure SOA and secure NSEC or NSEC3 records. A name inside an
/// opt-out span may exist unsigned (RFC 5155 §9.2), so that is no proof.
fn denial_status(soa: Option<Proof>, proofs: &[Record], absent: bool) -> Dnssec {
    let mut weakest = match soa {
        Some(proof) => status(proof),
        None => return Dnssec::Indeterminate,
    };
    let mut any = false;
    for record in proofs {
        let opt_out = match &record.data {
            RData::DNSSEC(DNSSECRData::NSEC(_)) => false,
            RData::DNSSEC(DNSSECRData::NSEC3(nsec3)) => nsec3.opt_out(),
            _ => continue,
        };
        any = true;
        weakest = weaker(weakest, status(record.proof));
        if opt_out && absent {
            weakest = weaker(weakest, Dnssec::Insecure);
        }
    }
    if weakest == Dnssec::Secure && !any { Dnssec::Indeterminate } else { weakest }
}

/// An outcome of the library that carries no records: a denial it could not
/// prove, or an error.
fn not_found(name: &Name, error: NetError) -> Result<Found, Error> {
    let NetError::Dns(DnsError::Nsec { response, proof, .. }) = error else {
        return Err(failure(name, error));
    };
    // Insecure: more NSEC3 iterations than the validator is willing to do.
    if proof != Proof::Insecure {
        return Err(Error::Bogus { name: plain(name) });
    }
    let soa = response.soa();
    let absent = response.response_code == ResponseCode::NXDomain;
    Ok(Found {
        records: vec![],
        dnssec: Dnssec::Insecure,
        ttl: soa.map_or(0, |soa| soa.ttl().min(soa.data().minimum)).min(MAX_NEGATIVE_TTL),
        denial: Some(if absent { Denial::NoName } else { Denial::NoData }),
    })
}

/// Our name for an error of the library.
fn failure(name: &Name, error: NetError) -> Error {
    let name = plain(name);
    match error {
        NetError::Timeout => Error::Timeout { name },
        NetError::Dns(DnsError::DnssecBogus | DnsError::Nsec { .. }) => Error::Bogus { name },
        NetError::Dns(DnsError::ResponseCode(code)) => {
            Error::ServFail { name, code: code.to_str().to_owned() }
        }
        error => Error::Network { name, reason: error.to_string() },
    }
}

/// The first failure to fetch a DNSKEY or DS record between the root and
/// `name`. Wrong ones are not failures: they make the answer bogus.
async fn unreachable_key(resolver: &TokioResolver, name: &Name) -> Option<Error> {
    let mut zone = name.clone();
    loop {
        for kind in [RecordType::DNSKEY, RecordType::DS] {
            if zone.is_root() && kind == RecordType::DS {
                continue;
            }
            match resolver.lookup(zone.clone(), kind).await {
                Ok(_) | Err(NetError::Dns(DnsError::NoRecordsFound(_))) => {}
                Err(error) => match failure(name, error) {
                    Error::Bogus { .. } => {}
                    other => return Some(other),
                },
            }
        }
        if zone.is_root() {
            return None;
        }
        zone = zone.base_name();
    }
}

fn status(proof: Proof) -> Dnssec {
    match proof {
        Proof::Secure => Dnssec::Secure,
        Proof::Insecure => Dnssec::Insecure,
        Proof::Bogus => Dnssec::Bogus,
        Proof::Indeterminate => Dnssec::Indeterminate,
    }
}

fn too_long(name: &Name) -> Error {
    Error::Excess { name: plain(name), limit: "a chain of 8 CNAMEs" }
}

/// Presentation form without the trailing dot, lower case.
fn plain(name: &Name) -> String {
    let text = name.to_ascii().to_ascii_lowercase();
    text.strip_suffix('.').unwrap_or(&text).to_owned()
}

fn text(record: &Record) -> Option<Vec<u8>> {
    match &record.data {
        RData::TXT(txt) => Some(txt.txt_data.concat()),
        _ => None,
    }
}

fn exchanger(record: &Record) -> Option<Mx> {
    match &record.data {
        RData::MX(mx) => Some(Mx { preference: mx.preference, host: plain(&mx.exchange) }),
        _ => None,
    }
}

fn address(record: &Record) -> Option<IpAddr> {
    match &record.data {
        RData::A(a) => Some(IpAddr::V4(a.0)),
        RData::AAAA(aaaa) => Some(IpAddr::V6(aaaa.0)),
        _ => None,
    }
}

fn dnskey(owner: &Name, record: &Record) -> Option<(Name, DNSKEY)> {
    match &record.data {
        RData::DNSSEC(DNSSECRData::DNSKEY(key)) if record.name == *owner => {
            Some((owner.clone(), key.clone()))
        }
        _ => None,
    }
}

/// Denials already heard, the oldest dropped first when there are too many.
struct Denials {
    most: usize,
    known: HashMap<(Name, RecordType), Heard>,
    order: VecDeque<(Name, RecordType)>,
}

struct Heard {
    until: Instant,
    dnssec: Dnssec,
    denial: Denial,
}

impl Denials {
    fn new(most: usize) -> Denials {
        Denials { most, known: HashMap::new(), order: VecDeque::new() }
    }

    fn find(&self, name: &Name, kind: RecordType, now: Instant) -> Option<Found> {
        let heard = self.known.get(&(name.to_lowercase(), kind))?;
        let left = heard.until.checked_duration_since(now)?;
        let ttl = u32::try_from(left.as_secs()).unwrap_or(MAX_NEGATIVE_TTL);
        Some(Found { records: vec![], dnssec: heard.dnssec, ttl, denial: Some(heard.denial) })
    }

    fn insert(&mut self, name: Name, kind: RecordType, found: &Found, now: Instant) {
        let (Some(denial), true) = (found.denial, found.ttl > 0 && self.most > 0) else {
            return;
        };
        let key = (name.to_lowercase(), kind);
        let until = now + Duration::from_secs(found.ttl.into());
        let heard = Heard { until, dnssec: found.dnssec, denial };
        if self.known.insert(key.clone(), heard).is_none() {
            self.order.push_back(key);
        }
        while self.known.len() > self.most {
            if let Some(oldest) = self.order.pop_front() {
                self.known.remove(&oldest);
            }
        }
    }

    fn clear(&mut self) {
        self.known.clear();
        self.order.clear();
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::dnssec::rdata::NSEC;
    use hickory_proto::rr::rdata::CNAME;

    use super::*;

    fn name(text: &str) -> Name {
        ask_name(text).unwrap()
    }

    fn record(owner: &str, data: RData, proof: Proof) -> Record {
        let mut record = Record::from_rdata(name(owner), 60, data);
        record.proof = proof;
        record
    }

    fn txt(owner: &str, proof: Proof) -> Record {
        let text = hickory_proto::rr::rdata::TXT::from_bytes(vec![b"x"]);
        record(owner, RData::TXT(text), proof)
    }

    #[test]
    fn counts_only_what_was_asked_for() {
        let alias = RData::CNAME(CNAME(name("c.d")));
        let answers = [
            txt("z.z", Proof::Bogus),
            record("a.b", alias, Proof::Insecure),
            txt("c.d", Proof::Secure),
            txt("e.f", Proof::Insecure),
        ];
        let found = chain(&name("a.b"), RecordType::TXT, &answers).unwrap().unwrap();
        assert_eq!((found.records.len(), found.dnssec), (1, Dnssec::Insecure));
        let found = chain(&name("c.d"), RecordType::TXT, &answers).unwrap().unwrap();
        assert_eq!((found.records.len(), found.dnssec), (1, Dnssec::Secure));
        assert!(chain(&name("g.h"), RecordType::TXT, &answers).unwrap().is_none());
        assert!(chain(&name("c.d"), RecordType::MX, &answers).unwrap().is_none());
        let outcome = chain(&name("z.z"), RecordType::TXT, &answers);
        assert!(matches!(outcome, Err(Error::Bogus { .. })));
    }

    #[test]
    fn a_denial_needs_its_proof() {
        let nsec = RData::DNSSEC(DNSSECRData::NSEC(NSEC::new(name("b"), [RecordType::A])));
        let secure = [record("a", nsec.clone(), Proof::Secure)];
        let insecure = [record("a", nsec, Proof::Insecure)];
        assert_eq!(denial_status(Some(Proof::Secure), &secure, true), Dnssec::Secure);
        assert_eq!(denial_status(Some(Proof::Secure), &[], true), Dnssec::Indeterminate);
        assert_eq!(denial_status(Some(Proof::Secure), &insecure, true), Dnssec::Insecure);
        assert_eq!(denial_status(Some(Proof::Insecure), &[], true), Dnssec::Insecure);
        assert_eq!(denial_status(None, &secure, true), Dnssec::Indeterminate);
    }

    #[test]
    fn denials_are_bounded_in_number_and_time() {
        let mut denials = Denials::new(2);
        let now = Instant::now();
        let heard = |ttl| Found {
            records: vec![],
            dnssec: Dnssec::Secure,
            ttl,
            denial: Some(Denial::NoName),
        };
        for owner in ["a.a", "b.b", "b.b", "c.c"] {
            denials.insert(name(owner), RecordType::TXT, &heard(60), now);
        }
        denials.insert(name("d.d"), RecordType::TXT, &heard(0), now);
        assert!(denials.find(&name("a.a"), RecordType::TXT, now).is_none());
        assert!(denials.find(&name("B.b"), RecordType::TXT, now).is_some());
        assert!(denials.find(&name("c.c"), RecordType::MX, now).is_none());
        assert!(denials.find(&name("d.d"), RecordType::TXT, now).is_none());
        let later = now + Duration::from_secs(61);
        assert!(denials.find(&name("c.c"), RecordType::TXT, later).is_none());
        assert_eq!((denials.known.len(), denials.order.len()), (2, 2));
    }

    #[test]
    fn needs_a_server_and_an_anchor() {
        let listed = NameServers::Listed(vec![]);
        let options = Options { name_servers: listed, ..Options::default() };
        assert!(matches!(HickoryResolver::new(options), Err(Error::Setup { .. })));
        let options = Options {
            name_servers: NameServers::Listed(vec!["127.0.0.1:53".parse().unwrap()]),
            trust_anchor: TrustAnchor::default(),
            ..Options::default()
        };
        assert!(matches!(HickoryResolver::new(options), Err(Error::Setup { .. })));
    }
}
