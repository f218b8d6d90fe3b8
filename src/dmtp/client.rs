//! One connection to a DX host: bounded in bytes, lines and time (reference
//! §6.1, §6.4 to §6.8).
//!
//! Commands go out in grammar A; a 500 or 501 is answered by one try in grammar
//! B. Nothing received is believed here: an object is bytes until `dime` has
//! validated it. Left out: which host and address to try.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustls::HandshakeKind;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::address::AddressFilter;
use super::budget::{self, Budget, Held, NoRoom};
use super::hosts::{Hosts, Seat};
use super::kept::{Kept, Place, Resumable};
use super::proxy::{self, Proxy, is_onion};
use super::tls::Roots;
use crate::dime::certificate::{self, Accepted, Facts};
use crate::dime::command::{Command, Grammar};
use crate::dime::record::Record;
use crate::dime::reply::{self, Assembler, Currency, Limits, MAX_OBJECT, MODE, Reply};
use crate::dime::signet::Fingerprint;
use crate::dime::{Address, Dnssec, Name, Rejection, Timestamp};

/// Bytes read from the socket at once.
const CHUNK: usize = 16 * 1024;
/// Longest wait for a polite goodbye.
const FAREWELL: Duration = Duration::from_secs(1);

/// Where to connect. The caller resolved the address. Of an onion host, which
/// has none, only the port counts.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// Host name of the DX, for SNI and the certificate.
    pub host: &'a str,
    pub addr: SocketAddr,
    pub entrance: Entrance,
}

/// How TLS begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Entrance {
    /// With the first byte, with SNI: port 26.
    Tls,
    /// After STARTTLS, without SNI: ports 25 and 587 (§6.6).
    StartTls,
}

/// Bounds of a connection.
#[derive(Clone, Debug)]
pub struct Options {
    /// For the TCP connection, to a proxy too.
    pub connect: Duration,
    /// For the connection through a proxy, in all.
    pub proxied: Duration,
    /// For the TLS handshake.
    pub handshake: Duration,
    /// For one reply, from the sent command to its last byte.
    pub reply: Duration,
    /// For the whole session.
    pub session: Duration,
    /// Bytes of one signet.
    pub object: usize,
    pub limits: Limits,
    /// Asked about the address really connected to; with a proxy, about the one
    /// that it is handed.
    pub filter: AddressFilter,
    pub roots: Roots,
    /// TLS sessions to resume and connections to take up again. Vantages must
    /// not share it: a host knows its client again by a ticket.
    pub kept: Kept,
    /// Through which all connections go; `None`: our own.
    pub proxy: Option<Proxy>,
    /// Whose limits [`reach`](super::reach) keeps; `None`: none.
    pub hosts: Option<Arc<Hosts>>,
    /// What long replies take from, of all sessions with these options and clones
    /// of them.
    pub replies: Arc<Budget>,
}

impl Default for Options {
    /// The times of §6.10, and objects of 1 MiB.
    fn default() -> Options {
        let limits = Limits::default();
        Options {
            connect: Duration::from_secs(5),
            proxied: Duration::from_secs(30),
            handshake: Duration::from_secs(10),
            reply: Duration::from_secs(30),
            session: Duration::from_secs(300),
            object: MAX_OBJECT,
            limits,
            filter: AddressFilter::default(),
            roots: Roots::public(),
            kept: Kept::default(),
            proxy: None,
            hosts: None,
            replies: Budget::new(budget::BYTES, limits.total),
        }
    }
}

/// Why a DX host gave no answer. `Display` never repeats the host's words,
/// which may hold a mailbox name.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("refusing to connect to {addr}: {what}")]
    Forbidden { addr: SocketAddr, what: &'static str },
    #[error("the proxy at {addr}: {what}")]
    Proxy { addr: SocketAddr, what: String },
    #[error("the host name cannot be used for TLS")]
    HostName,
    #[error("connecting to {addr}")]
    Unreachable { addr: SocketAddr, source: io::Error },
    #[error("TLS handshake")]
    Tls(#[source] io::Error),
    #[error("certificate: {0}")]
    Certificate(Rejection),
    #[error("banner: {0}")]
    Banner(Rejection),
    #[error("too slow: {0}")]
    Slow(Phase),
    #[error("reply over the limit: {0}")]
    Oversized(&'static str),
    /// All sessions together hold as much as they may.
    #[error("no room for a long reply now")]
    Crowded,
    #[error("malformed reply: {0}")]
    Malformed(Rejection),
    #[error("the connection ended within a reply")]
    Truncated,
    #[error("signet not found")]
    NotFound,
    /// A mirror that waits out an alarm; the text says where to read on.
    #[error("the name is held")]
    Held { text: String },
    #[error("refused with code {code}")]
    Refused { code: u16, text: String },
}

/// What took too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Connect,
    Handshake,
    Reply,
    Session,
}

/// Whose doing an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// What was asked for cannot or must not be done here.
    Ours,
    /// Between us and the host, or the host is down: worth another try.
    Network,
    /// The host broke a rule.
    Host,
    /// No fault: the host answered, and the answer is no.
    Answer,
}

impl Error {
    /// A short, stable word for records and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Error::Forbidden { .. } => "forbidden-address",
            Error::Proxy { .. } => "proxy",
            Error::HostName => "host-name",
            Error::Unreachable { .. } => "unreachable",
            Error::Tls(_) => "tls",
            Error::Certificate(_) => "certificate",
            Error::Banner(_) => "banner",
            Error::Slow(Phase::Connect) => "connect-timeout",
            Error::Slow(_) => "slow",
            Error::Oversized(_) => "oversized",
            Error::Crowded => "crowded",
            Error::Malformed(_) => "malformed",
            Error::Truncated => "truncated",
            Error::NotFound => "not-found",
            Error::Held { .. } => "held",
            Error::Refused { .. } => "refused",
        }
    }

    pub fn fault(&self) -> Fault {
        match self {
            Error::Forbidden { .. } | Error::Proxy { .. } | Error::HostName | Error::Crowded => {
                Fault::Ours
            }
            Error::Unreachable { .. } | Error::Slow(Phase::Connect) => Fault::Network,
            Error::NotFound | Error::Held { .. } | Error::Refused { .. } => Fault::Answer,
            _ => Fault::Host,
        }
    }
}

impl From<NoRoom> for Error {
    fn from(_: NoRoom) -> Error {
        Error::Crowded
    }
}

impl From<reply::Fault> for Error {
    fn from(fault: reply::Fault) -> Error {
        match fault {
            reply::Fault::Oversized(what) => Error::Oversized(what),
            reply::Fault::Malformed(rejection) => Error::Malformed(rejection),
        }
    }
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Phase::Connect => "connecting",
            Phase::Handshake => "TLS handshake",
            Phase::Reply => "reply",
            Phase::Session => "session",
        })
    }
}

/// TLS stands, and the certificate is known; not a word of DMTP has been said
/// inside TLS. The caller decides about [`Connected::facts`], then opens.
#[derive(Debug)]
pub struct Connected {
    wire: Wire<TlsStream<TcpStream>>,
    facts: Facts,
    place: Place,
    resumed: bool,
}

/// An open DMTP session, for any number of commands one after the other. After
/// any error but an answer ([`Fault::Answer`]) it is of no more use.
#[derive(Debug)]
pub struct Session {
    wire: Wire<TlsStream<TcpStream>>,
    facts: Facts,
    object: usize,
    place: Place,
    /// Opened for somebody else.
    kept: bool,
    /// Counts the connection for as long as it lasts.
    _seat: Option<Seat>,
}

/// Connects, decides about the certificate by the record, and opens a session.
///
/// # Errors
/// Those of [`connect`] and [`Connected::open`], and `Certificate`.
pub async fn open(
    target: Target<'_>,
    options: &Options,
    now: Timestamp,
    record: Option<(&Record, Dnssec)>,
) -> Result<(Session, Accepted), Error> {
    let mut connected = connect(target, options, now).await?;
    let mut decided = certificate::decide(connected.facts(), record);
    if decided.is_err() && connected.is_resumed() {
        connected = connect_anew(target, options, now).await?;
        decided = certificate::decide(connected.facts(), record);
    }
    let accepted = decided.map_err(Error::Certificate)?;
    Ok((connected.open().await?, accepted))
}

/// Connects and makes the TLS handshake, after STARTTLS if so asked; a session
/// that is kept of the host is resumed. `now` is the time by which the
/// certificate's validity is judged.
///
/// # Errors
/// `Forbidden`, `HostName`, `Unreachable`, `Tls`, `Slow`; after STARTTLS also
/// everything a reply can do wrong.
pub async fn connect(
    target: Target<'_>,
    options: &Options,
    now: Timestamp,
) -> Result<Connected, Error> {
    handshake(target, options, now, true).await
}

/// The same with a full handshake: the host shows the certificate that it has
/// now. For whoever finds fault with that of a resumed one.
pub async fn connect_anew(
    target: Target<'_>,
    options: &Options,
    now: Timestamp,
) -> Result<Connected, Error> {
    handshake(target, options, now, false).await
}

async fn handshake(
    target: Target<'_>,
    options: &Options,
    now: Timestamp,
    resume: bool,
) -> Result<Connected, Error> {
    let session_ends = Instant::now() + options.session;
    let host = ServerName::try_from(target.host.to_owned()).map_err(|_| Error::HostName)?;
    let stream = dial(target, options).await?;
    let stream = match target.entrance {
        Entrance::Tls => stream,
        Entrance::StartTls => start_tls(stream, target.host, options, session_ends).await?,
    };
    let (witness, place) = (options.kept.witness(), Place::of(&target));
    let sessions = Resumable::new(&options.kept, &place, resume);
    let config = witness
        .config(target.entrance == Entrance::Tls, sessions)
        .map_err(|error| Error::Tls(io::Error::other(error)))?;
    let handshake = TlsConnector::from(Arc::new(config)).connect(host.clone(), stream);
    let stream = timeout_at(Instant::now() + options.handshake, handshake)
        .await
        .map_err(|_| Error::Slow(Phase::Handshake))?
        .map_err(Error::Tls)?;
    let tls = stream.get_ref().1;
    let resumed = tls.handshake_kind() == Some(HandshakeKind::Resumed);
    let shown = tls.peer_certificates().unwrap_or_default();
    let facts = witness
        .facts(shown, &host, &options.roots, now)
        .ok_or_else(|| Error::Tls(io::Error::other("no certificate")))?;
    let wire = Wire::new(stream, target.host, options, session_ends);
    Ok(Connected { wire, facts, place, resumed })
}

async fn dial(target: Target<'_>, options: &Options) -> Result<TcpStream, Error> {
    let addr = target.addr;
    let forbidden = |what| Error::Forbidden { addr, what };
    let onion = is_onion(target.host);
    if !onion {
        options.filter.check(addr.ip()).map_err(forbidden)?;
    }
    match &options.proxy {
        Some(proxy) if !onion || proxy.reaches_onions() => {
            return through(proxy, target, onion, options).await;
        }
        _ if onion => return Err(forbidden("an onion host, and no proxy for those")),
        _ => {}
    }
    let stream = timeout_at(Instant::now() + options.connect, TcpStream::connect(addr))
        .await
        .map_err(|_| Error::Slow(Phase::Connect))?
        .map_err(|source| Error::Unreachable { addr, source })?;
    let connected = stream.peer_addr().map_err(|source| Error::Unreachable { addr, source })?;
    options.filter.check(connected.ip()).map_err(forbidden)?;
    // Commands are short and wait for their reply. A failure costs only time.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

/// A connection through a proxy. Its operator's word is the configuration's: its
/// own address is not a stranger's choice.
async fn through(
    proxy: &Proxy,
    target: Target<'_>,
    onion: bool,
    options: &Options,
) -> Result<TcpStream, Error> {
    let (addr, at) = (target.addr, proxy.addr());
    let name = onion.then(|| target.host.trim_end_matches('.'));
    let connected = timeout_at(Instant::now() + options.proxied, proxy.connect(addr, name)).await;
    connected.map_err(|_| Error::Slow(Phase::Connect))?.map_err(|fault| match fault {
        proxy::Fault::Io(error) => Error::Proxy { addr: at, what: error.to_string() },
        proxy::Fault::Proxy(what) => Error::Proxy { addr: at, what: what.to_owned() },
        proxy::Fault::Host(what) => Error::Unreachable { addr, source: io::Error::other(what) },
    })
}

/// The lines in the clear (§6.6, steps 1 to 3). Nothing may follow the reply:
/// bytes slipped in before TLS would else be read as if they came inside it.
async fn start_tls(
    stream: TcpStream,
    host: &str,
    options: &Options,
    session_ends: Instant,
) -> Result<TcpStream, Error> {
    let mut wire = Wire::new(stream, host, options, session_ends);
    let banner = wire.receive(false).await?;
    banner.banner().map_err(Error::Banner)?;
    let command = Command::StartTls { host: host.to_owned(), mode: Some(MODE.to_owned()) };
    let reply = wire.exchange(&command, Grammar::A).await?;
    if !reply.is_success() {
        return Err(refused(&reply));
    }
    match wire.assembler.has_leftover() {
        true => Err(Error::Malformed(Rejection::new("reply", "text after STARTTLS, before TLS"))),
        false => Ok(wire.stream),
    }
}

impl Connected {
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Whether the certificate is that of an earlier handshake. What is wrong
    /// with it may have been put right since: [`connect_anew`] tells.
    pub fn is_resumed(&self) -> bool {
        self.resumed
    }

    /// Reads the greeting: the banner, or after STARTTLS the mode.
    pub async fn open(mut self) -> Result<Session, Error> {
        let greeting = self.wire.receive(false).await?;
        match self.place.entrance() {
            Entrance::Tls => greeting.banner().map_err(Error::Banner)?,
            Entrance::StartTls => greeting.mode().map_err(Error::Banner)?,
        }
        let Connected { wire, facts, place, .. } = self;
        Ok(Session { object: wire.object, wire, facts, place, kept: false, _seat: None })
    }
}

impl Session {
    /// Counts as a connection of the host until it ends.
    pub(super) fn seated(self, seat: Option<Seat>) -> Session {
        Session { _seat: seat, ..self }
    }

    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// `SGNT`: the signet of a name as the host serves it, or the one with that
    /// fingerprint.
    ///
    /// # Errors
    /// `NotFound`, `Held`, `Refused`; `Oversized` over `Options::object`; and
    /// everything a reply can do wrong.
    pub async fn signet(
        &mut self,
        name: &Name,
        fingerprint: Option<&Fingerprint>,
    ) -> Result<Vec<u8>, Error> {
        let command = Command::Signet { name: name.clone(), fingerprint: fingerprint.copied() };
        let bytes = self.ask(&command).await?.signet().map_err(Error::Malformed)?;
        self.measured(bytes)
    }

    /// `VRFY`: whether the host says that this is the current signet. An
    /// unauthenticated word (§7.2).
    pub async fn verify(
        &mut self,
        name: &Name,
        fingerprint: &Fingerprint,
    ) -> Result<Currency, Error> {
        let command = Command::Verify { name: name.clone(), fingerprint: *fingerprint };
        self.ask(&command).await?.currency().map_err(Error::Malformed)
    }

    /// `HIST`: the chain from `start` to `stop`, both included, oldest first.
    pub async fn history(
        &mut self,
        address: &Address,
        start: Option<&Fingerprint>,
        stop: Option<&Fingerprint>,
    ) -> Result<Vec<Vec<u8>>, Error> {
        let command = Command::History {
            address: address.clone(),
            start: start.copied(),
            stop: stop.copied(),
        };
        let signets = self.ask(&command).await?.history().map_err(Error::Malformed)?;
        signets.into_iter().map(|bytes| self.measured(bytes)).collect()
    }

    /// What came in the place of signets: how the answer to the last command
    /// began, if `error` came of it, as far as that is the host's doing. A cut
    /// connection is nobody's.
    pub fn spoiled(&self, error: &Error) -> Option<Spoiled> {
        let theirs = match error {
            Error::Malformed(_) | Error::Oversized(_) => true,
            Error::Truncated => self.wire.ended,
            _ => false,
        };
        let bytes = Some(self.wire.assembler.beginning()).filter(|bytes| !bytes.is_empty())?;
        let why = match error {
            Error::Malformed(rejection) => rejection.clone(),
            error => Rejection::new("reply", error.to_string()),
        };
        let is_history = self.wire.multi;
        theirs.then(|| Spoiled { bytes: bytes.into(), is_history, why })
    }

    /// What the last reply has taken of the budget, for whoever keeps its bytes: the
    /// next command gives it back.
    pub fn held(&mut self) -> Held {
        self.wire.held.take()
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Whether it was opened for somebody else and kept since: the host may end
    /// it as one that was used for long enough.
    pub fn is_kept(&self) -> bool {
        self.kept
    }

    /// Whether another may go on with it: nothing is half said, and it has time
    /// left.
    pub(super) fn is_reusable(&self) -> bool {
        let left = self.wire.session_ends.saturating_duration_since(Instant::now());
        !self.wire.assembler.has_leftover() && left > self.wire.reply
    }

    /// Whether the host has said nothing since, not even goodbye; it is then
    /// somebody else's.
    pub(super) fn is_quiet(&mut self) -> bool {
        self.kept = true;
        let said = self.wire.stream.get_ref().0.try_read(&mut [0]);
        said.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// `QUIT`. The host's answer is waited for a second and not judged.
    pub async fn quit(mut self) {
        self.wire.session_ends = self.wire.session_ends.min(Instant::now() + FAREWELL);
        if self.wire.exchange(&Command::Quit, Grammar::A).await.is_ok() {
            let _ = timeout_at(self.wire.session_ends, self.wire.stream.shutdown()).await;
        }
    }

    /// Any command: its successful reply. Grammar A first; on 500 or 501 once
    /// in grammar B, and then the second answer counts.
    ///
    /// # Errors
    /// `NotFound` for 450, `Held` for 450 with the word HELD, `Refused` for any
    /// other code that is not 2xx.
    pub async fn ask(&mut self, command: &Command) -> Result<Reply, Error> {
        let mut reply = self.wire.exchange(command, Grammar::A).await?;
        if matches!(reply.code, 500 | 501) {
            reply = self.wire.exchange(command, Grammar::B).await?;
        }
        if reply.is_success() { Ok(reply) } else { Err(refused(&reply)) }
    }

    fn measured(&self, bytes: Vec<u8>) -> Result<Vec<u8>, Error> {
        if bytes.len() > self.object { Err(Error::Oversized("signet")) } else { Ok(bytes) }
    }
}

/// An answer to `SGNT` or `HIST` that holds no signet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spoiled {
    /// How it began, code included; at most [`reply::MAX_BEGINNING`] bytes.
    pub bytes: Bytes,
    pub is_history: bool,
    pub why: Rejection,
}

fn refused(reply: &Reply) -> Error {
    let text = reply.text().to_owned();
    match reply.code {
        450 if text.starts_with("HELD") => Error::Held { text },
        450 => Error::NotFound,
        code => Error::Refused { code, text },
    }
}

/// Lines out, replies in, never longer than allowed.
#[derive(Debug)]
struct Wire<S> {
    stream: S,
    assembler: Assembler,
    held: Held,
    reply: Duration,
    object: usize,
    session_ends: Instant,
    /// The last command may be answered with several lines.
    multi: bool,
    /// The host said that nothing more comes, which TLS signs.
    ended: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    fn new(stream: S, host: &str, options: &Options, session_ends: Instant) -> Wire<S> {
        Wire {
            stream,
            assembler: Assembler::new(options.limits),
            held: Held::nothing(&options.replies, host),
            reply: options.reply,
            object: options.object,
            session_ends,
            multi: false,
            ended: false,
        }
    }

    /// Sends a command and reads its reply, both within one deadline.
    async fn exchange(&mut self, command: &Command, grammar: Grammar) -> Result<Reply, Error> {
        self.assembler.begin();
        drop(self.held.take());
        self.multi = command.multi_line();
        if self.assembler.has_leftover() {
            let unasked = Rejection::new("reply", "text that nothing asked for");
            return Err(Error::Malformed(unasked));
        }
        let line = command.format(grammar);
        let stream = &mut self.stream;
        let send = async {
            stream.write_all(line.as_bytes()).await?;
            stream.flush().await
        };
        let ends = self.session_ends.min(Instant::now() + self.reply);
        match timeout_at(ends, send).await {
            Err(_) => return Err(self.slow()),
            Ok(Err(_)) => return Err(Error::Truncated),
            Ok(Ok(())) => {}
        }
        self.receive_by(ends, command.multi_line()).await
    }

    /// Reads an unprompted reply.
    async fn receive(&mut self, multi: bool) -> Result<Reply, Error> {
        let ends = self.session_ends.min(Instant::now() + self.reply);
        self.receive_by(ends, multi).await
    }

    async fn receive_by(&mut self, ends: Instant, multi: bool) -> Result<Reply, Error> {
        let mut chunk = vec![0; CHUNK];
        loop {
            if let Some(reply) = self.assembler.next(multi)? {
                return Ok(reply);
            }
            // One deadline for the whole reply: a byte a second gains nothing.
            let read = match timeout_at(ends, self.stream.read(&mut chunk)).await {
                Err(_) => return Err(self.slow()),
                Ok(read) => read.map_err(broken)?,
            };
            match chunk.get(..read) {
                Some(bytes) if !bytes.is_empty() => {
                    let size = self.assembler.size().saturating_add(bytes.len());
                    self.held.grow(size, ends).await?;
                    self.assembler.push(bytes);
                }
                _ => {
                    self.ended = true;
                    return Err(Error::Truncated);
                }
            }
        }
    }

    fn slow(&self) -> Error {
        let over = Instant::now() >= self.session_ends;
        Error::Slow(if over { Phase::Session } else { Phase::Reply })
    }
}

/// A broken TLS record is the host's fault; anything else is a cut connection.
fn broken(error: io::Error) -> Error {
    match error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) {
        true => Error::Tls(error),
        false => Error::Truncated,
    }
}
