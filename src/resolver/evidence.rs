//! Collecting the DNSSEC chain of a management record: what the validator of
//! the library saw and does not hand out is asked for again, from the same name
//! servers, with DO (signatures, please) and CD (we judge ourselves).
//!
//! `proof::dnssec` says what is lacking, and judges what came; nothing else is
//! trusted. Here are the questions, within limits of number, bytes and time,
//! and a cache of the keys and DS records that served a chain before, so that
//! the root and the top-level domains are not asked for each domain. Left out:
//! DoT and DoH.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hickory_resolver::system_conf::read_system_conf;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use super::{Error, NameServers, Options};
use crate::dime::{Domain, Rejection, Timestamp};
use crate::proof::dnssec::{
    self, Anchor, DnsName, Lack, Observed, Prover, RecordType, Set, Signature,
};

/// Most questions for one chain.
pub const MAX_QUESTIONS: usize = 64;
/// All signatures of a chain for an entry must hold for so much longer than now,
/// milliseconds: it gets its time later than it was observed, and a chain must hold
/// at that time.
pub const EVIDENCE_MARGIN: u64 = 15 * 60 * 1000;
/// Largest answer that is asked for over UDP, bytes.
const UDP_PAYLOAD: u16 = 1232;
/// Signatures that are read of one RRset.
const SIGNATURES: usize = 8;
/// Answers that are kept, and the longest time, seconds.
const CACHED: usize = 2048;
const CACHED_FOR: u32 = 3600;
/// Records of an answer with more bytes are not kept.
const CACHED_BYTES: usize = 8 * 1024;

/// A chain that holds, and what it proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// See [`dnssec`]: what [`dnssec::verify_observation`] takes.
    pub chain: Bytes,
    pub observed: Observed,
}

impl Evidence {
    /// Whether it holds for [`EVIDENCE_MARGIN`] more.
    pub fn is_lasting(&self, at: Timestamp) -> bool {
        self.observed.until >= at.plus(EVIDENCE_MARGIN)
    }
}

/// Asks for the parts of chains.
pub(super) struct Collector {
    servers: Vec<SocketAddr>,
    anchors: Vec<Anchor>,
    /// Of one request to one server.
    timeout: Duration,
    attempts: usize,
    known: Mutex<Known>,
}

/// What was answered to one question.
#[derive(Clone)]
struct Answered {
    sets: Vec<Set>,
    /// Seconds.
    ttl: u32,
}

type Question = (DnsName, RecordType);

/// A chain under way.
struct Round {
    heard: Vec<(Question, Answered)>,
    from_cache: bool,
}

impl Collector {
    /// [`Error::Setup`] if the system's name servers cannot be read.
    pub fn new(options: &Options) -> Result<Collector, Error> {
        Ok(Collector {
            servers: servers(&options.name_servers)?,
            anchors: options.trust_anchor.of_root(),
            timeout: options.timeout,
            attempts: options.attempts.max(1),
            known: Mutex::default(),
        })
    }

    /// The chain of `domain`'s management record at `at`; `None` if what the
    /// servers say proves nothing. What served once is forgotten if with it nothing
    /// is proved, or not for long: a key may have rolled over, a zone been signed anew.
    pub async fn collect(&self, domain: &Domain, at: Timestamp) -> Result<Option<Evidence>, Error> {
        let mut round = Round { heard: Vec::new(), from_cache: false };
        let mut found = self.round(domain, at, true, &mut round).await?;
        if round.from_cache && !found.as_ref().is_some_and(|found| found.is_lasting(at)) {
            round = Round { heard: Vec::new(), from_cache: false };
            let fresh = self.round(domain, at, false, &mut round).await;
            found = match (fresh, found) {
                (Ok(Some(fresh)), _) => Some(fresh),
                (_, Some(found)) => Some(found),
                (fresh, None) => fresh?,
            };
        }
        if found.is_some() {
            let mut known = self.known();
            for (question, answered) in round.heard {
                known.insert(question, answered, Instant::now());
            }
        }
        Ok(found)
    }

    /// See [`Resolver::unjudged`](super::Resolver::unjudged).
    pub async fn unjudged(&self, domain: &Domain) -> Bytes {
        let mut messages = Vec::new();
        let names = ["_dime", "_dx"].map(|label| DnsName::parse(&format!("{label}.{domain}")));
        for name in names.into_iter().flatten() {
            for server in &self.servers {
                let asked = raw(*server, &name, RecordType::TXT);
                let Ok(Ok(message)) = tokio::time::timeout(self.timeout, asked).await else {
                    continue;
                };
                let length = u16::try_from(message.len()).unwrap_or_default();
                messages.extend(length.to_be_bytes());
                messages.extend(message);
                break;
            }
        }
        messages.into()
    }

    /// Forgets every cached answer.
    pub fn clear(&self) {
        *self.known() = Known::default();
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn round(
        &self,
        domain: &Domain,
        at: Timestamp,
        cached: bool,
        round: &mut Round,
    ) -> Result<Option<Evidence>, Error> {
        let mut prover = Prover::collecting(&self.anchors, at);
        for _ in 0..MAX_QUESTIONS {
            let (name, kind) = match dnssec::observe(&mut prover, domain) {
                Ok(observed) => return Ok(self.finish(&prover, observed, domain, at)),
                Err(Lack::Needs(name, kind)) => (name, kind),
                Err(Lack::Refused(why)) => return Ok(refused(domain, &why)),
            };
            let question = (name, kind);
            let kept = if cached { self.known().find(&question, Instant::now()) } else { None };
            let sets = match kept {
                Some(sets) => {
                    round.from_cache = true;
                    sets
                }
                None => {
                    let answered = self.ask(&question.0, kind).await?;
                    let sets = answered.sets.clone();
                    round.heard.push((question.clone(), answered));
                    sets
                }
            };
            if let Err(why) = prover.tell(question.0, kind, sets) {
                return Ok(refused(domain, &why));
            }
        }
        Ok(refused(domain, &Rejection::new("chain-limit", "too many questions")))
    }

    /// Nothing is handed out that a stranger would not accept.
    fn finish(
        &self,
        prover: &Prover<'_>,
        observed: Observed,
        domain: &Domain,
        at: Timestamp,
    ) -> Option<Evidence> {
        let again = |chain: &[u8]| -> Result<(), Rejection> {
            let twin = dnssec::verify_observation(chain, domain, &self.anchors, at)?;
            if twin != observed {
                return Err(Rejection::new("chain-record", "the chain proves something else"));
            }
            Ok(())
        };
        // What was heard of the names above may have served in place of less.
        let chain = prover
            .chain()
            .and_then(|chain| dnssec::trimmed(&chain, domain, &self.anchors, at))
            .and_then(|chain| again(&chain).map(|()| chain));
        match chain {
            Ok(chain) => Some(Evidence { chain: chain.into(), observed }),
            Err(why) => refused(domain, &why),
        }
    }

    /// Asks the servers in turn; the first usable answer counts.
    async fn ask(&self, name: &DnsName, kind: RecordType) -> Result<Answered, Error> {
        let mut last = Error::Timeout { name: name.to_string() };
        for _ in 0..self.attempts {
            for server in &self.servers {
                match tokio::time::timeout(self.timeout, exchange(*server, name, kind)).await {
                    Ok(Ok(answered)) => return Ok(answered),
                    Ok(Err(reason)) => {
                        last = Error::Network { name: name.to_string(), reason };
                    }
                    Err(_) => last = Error::Timeout { name: name.to_string() },
                }
            }
        }
        Err(last)
    }
}

fn refused(domain: &Domain, why: &Rejection) -> Option<Evidence> {
    tracing::debug!(%domain, %why, "no DNSSEC chain");
    None
}

fn servers(named: &NameServers) -> Result<Vec<SocketAddr>, Error> {
    match named {
        NameServers::Listed(servers) => Ok(servers.clone()),
        NameServers::System => {
            let setup = |error: &dyn std::fmt::Display| Error::Setup { reason: error.to_string() };
            let (config, _) = read_system_conf().map_err(|error| setup(&error))?;
            let address = |server: &hickory_resolver::config::NameServerConfig| {
                let port = server.connections.first().map_or(53, |connection| connection.port);
                SocketAddr::new(server.ip, port)
            };
            Ok(config.name_servers().iter().map(address).collect())
        }
    }
}

/// One question to one server, over TCP if the answer is too long for UDP.
async fn exchange(
    server: SocketAddr,
    name: &DnsName,
    kind: RecordType,
) -> Result<Answered, String> {
    let (question, answer) = ask(server, name, kind).await?;
    read(&answer, &question)?.ok_or_else(|| "truncated over TCP".to_owned())
}

/// The same, the message as it came: at most 65,535 bytes.
async fn raw(server: SocketAddr, name: &DnsName, kind: RecordType) -> Result<Vec<u8>, String> {
    ask(server, name, kind).await.map(|(_, answer)| answer)
}

/// The question, and an answer to it.
async fn ask(
    server: SocketAddr,
    name: &DnsName,
    kind: RecordType,
) -> Result<(Vec<u8>, Vec<u8>), String> {
    let mut id = [0; 2];
    getrandom::fill(&mut id).map_err(|error| error.to_string())?;
    let question = question(id, name, kind);
    let failed = |error: std::io::Error| error.to_string();
    let answer = over_udp(server, &question).await.map_err(failed)?;
    let answer = match is_truncated(&answer) {
        false => answer,
        true => over_tcp(server, &question).await.map_err(failed)?,
    };
    Ok((question, answer))
}

fn is_truncated(answer: &[u8]) -> bool {
    answer.get(2).is_some_and(|flags| flags & 0x02 != 0)
}

/// Header, question and an OPT record (RFC 6891) with DO.
fn question(id: [u8; 2], name: &DnsName, kind: RecordType) -> Vec<u8> {
    let mut message = id.to_vec();
    // RD and CD; one question, one additional record.
    message.extend([0x01, 0x10, 0, 1, 0, 0, 0, 0, 0, 1]);
    message.extend(name.wire());
    message.extend(kind.0.to_be_bytes());
    message.extend([0, 1]);
    message.extend([0, 0, 41]);
    message.extend(UDP_PAYLOAD.to_be_bytes());
    message.extend([0, 0, 0x80, 0, 0, 0]);
    message
}

async fn over_udp(server: SocketAddr, question: &[u8]) -> std::io::Result<Vec<u8>> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        let length = socket.recv(&mut buffer).await?;
        // An answer to something else may be forged; the right one may follow.
        if buffer.get(..2) == question.get(..2) {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

async fn over_tcp(server: SocketAddr, question: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.len()).unwrap_or_default();
    stream.write_all(&[&length.to_be_bytes(), question].concat()).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

/// The signed sets of an answer to `question`; `None` if it is truncated.
fn read(answer: &[u8], question: &[u8]) -> Result<Option<Answered>, String> {
    let mut reader = Reader { message: answer, at: 0 };
    let short = || "a message that is cut off or malformed".to_owned();
    let header = reader.take(12).ok_or_else(short)?;
    let count = |at: usize| {
        let two = header.get(at..at + 2).and_then(|two| two.try_into().ok());
        two.map_or(0, |two| usize::from(u16::from_be_bytes(two)))
    };
    let (flags, code) = (count(2), count(2) & 0x000f);
    if header.get(..2) != question.get(..2) || flags & 0x8000 == 0 || count(4) != 1 {
        return Err("not an answer to the question".into());
    }
    let mut asked = Reader { message: question, at: 12 };
    let asked = (asked.name(), asked.take(4).map(<[u8]>::to_vec));
    if (reader.name(), reader.take(4).map(<[u8]>::to_vec)) != asked {
        return Err("an answer to another question".into());
    }
    if code != 0 && code != 3 {
        return Err(format!("the name server answered with code {code}"));
    }
    if flags & 0x0200 != 0 {
        return Ok(None);
    }
    let mut records = Vec::new();
    for _ in 0..count(6) + count(8) {
        records.extend(reader.record().ok_or_else(short)?);
    }
    Ok(Some(Answered {
        ttl: records.iter().map(|it| it.ttl).min().unwrap_or(0),
        sets: sets(&records),
    }))
}

/// Each RRset with each signature over it.
fn sets(records: &[Record]) -> Vec<Set> {
    let mut sets = Vec::new();
    let mut read: HashMap<(&DnsName, RecordType), usize> = HashMap::new();
    for rrsig in records.iter().filter(|record| record.kind == RecordType::RRSIG) {
        let Some(signature) = Signature::read(&rrsig.data) else { continue };
        let covered = signature.covered;
        let so_far = read.entry((&rrsig.owner, covered)).or_default();
        *so_far += 1;
        if *so_far > SIGNATURES {
            continue;
        }
        let data = records
            .iter()
            .filter(|record| record.kind == covered && record.owner == rrsig.owner)
            .map(|record| record.data.clone());
        sets.extend(Set::new(rrsig.owner.clone(), covered, data.collect(), signature));
    }
    sets
}

/// A record of a message. Names in its data are not compressed any more.
struct Record {
    owner: DnsName,
    kind: RecordType,
    ttl: u32,
    data: Vec<u8>,
}

struct Reader<'a> {
    message: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let taken = self.message.get(self.at..self.at.checked_add(length)?)?;
        self.at += length;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    /// A name, perhaps compressed. A pointer only ever leads back, so this ends.
    fn name(&mut self) -> Option<DnsName> {
        let mut labels: Vec<&[u8]> = Vec::new();
        let mut reader = Reader { message: self.message, at: self.at };
        let mut end = None;
        let mut before = self.at;
        loop {
            let length = usize::from(*reader.take(1)?.first()?);
            match length {
                0 => break,
                1..=63 => labels.push(reader.take(length)?),
                0xc0.. => {
                    let low = usize::from(*reader.take(1)?.first()?);
                    end.get_or_insert(reader.at);
                    let target = (length & 0x3f) << 8 | low;
                    if target >= before {
                        return None;
                    }
                    (reader.at, before) = (target, target);
                }
                _ => return None,
            }
            if labels.len() > 127 {
                return None;
            }
        }
        self.at = end.unwrap_or(reader.at);
        DnsName::from_labels(labels)
    }

    /// `Some(None)` for a record that is no part of a chain.
    fn record(&mut self) -> Option<Option<Record>> {
        let owner = self.name()?;
        let kind = RecordType(self.u16()?);
        let class = self.u16()?;
        let ttl = u32::from_be_bytes(self.take(4)?.try_into().ok()?);
        let length = usize::from(self.u16()?);
        let start = self.at;
        let raw = self.take(length)?;
        if class != 1 || !(kind.is_evidence() || kind == RecordType::RRSIG) {
            return Some(None);
        }
        let data = match kind {
            RecordType::CNAME => {
                Reader { message: self.message, at: start }.name()?.wire().to_vec()
            }
            _ => raw.to_vec(),
        };
        Some(Some(Record { owner, kind, ttl, data }))
    }
}

/// Keys and DS records that served a chain, the oldest dropped first.
#[derive(Default)]
struct Known {
    answers: HashMap<Question, (Instant, Vec<Set>)>,
    order: VecDeque<Question>,
}

impl Known {
    fn find(&self, question: &Question, now: Instant) -> Option<Vec<Set>> {
        let (until, sets) = self.answers.get(question)?;
        (now < *until).then(|| sets.clone())
    }

    fn insert(&mut self, question: Question, answered: Answered, now: Instant) {
        let size: usize = answered.sets.iter().flat_map(|set| &set.data).map(Vec::len).sum();
        let keys = matches!(question.1, RecordType::DS | RecordType::DNSKEY);
        if !keys || answered.ttl == 0 || answered.sets.is_empty() || size > CACHED_BYTES {
            return;
        }
        let until = now + Duration::from_secs(answered.ttl.min(CACHED_FOR).into());
        if self.answers.insert(question.clone(), (until, answered.sets)).is_none() {
            self.order.push_back(question);
        }
        while self.answers.len() > CACHED {
            if let Some(oldest) = self.order.pop_front() {
                self.answers.remove(&oldest);
            }
        }
    }
}
