//! The DMTP face: one session, in the roles of a DX host and of a mirror
//! (reference §6.4 to §6.9).
//!
//! TLS from the first byte, or on a listener in dual mode after STARTTLS
//! (§6.6). Both command grammars are heard; replies have the exact forms the
//! reference client parses, each line in a TLS record of its own. What is served
//! comes from a [`Signets`]. Left out: mail, in the clear too.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::budget::{Budget, Client, Unknown};
use crate::dime::command::{self, Command, MAX_LINE, UNKNOWN_VERB};
use crate::dime::reply::MODE;
use crate::dime::reply::make::{self, Lines};
use crate::dime::signet::{Fingerprint, Level, Signet};
use crate::dime::{Address, Domain, Name};

/// How long sessions may go on after the server was told to stop.
const GRACE: Duration = Duration::from_secs(2);
/// Rest after a failed accept: most often there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Commands before STARTTLS.
const CLEAR_COMMANDS: usize = 10;

/// What a server knows of a name.
#[derive(Clone, Debug)]
pub enum Answer<T> {
    Found(T),
    /// The name waits out an alarm; the page says why (threat 25).
    Held {
        url: String,
    },
    NotFound,
    /// We cannot say: our failure.
    Unavailable,
}

/// Where signets come from. With a fingerprint, the one of the name's signets
/// that has it; without, the current one.
#[async_trait]
pub trait Signets: Send + Sync {
    async fn org(&self, domain: &Domain, at: Option<&Fingerprint>) -> Answer<Signet>;

    async fn user(&self, address: &Address, at: Option<&Fingerprint>) -> Answer<Signet>;

    /// The chain from `start` to `stop`, both included, oldest first; without
    /// `start` from the oldest link of the current chain, without `stop` to the
    /// newest. Not found if one is unknown or `stop` lies before `start` (§7.1).
    async fn history(
        &self,
        address: &Address,
        start: Option<&Fingerprint>,
        stop: Option<&Fingerprint>,
    ) -> Answer<Vec<Signet>>;
}

/// Bounds of a server.
#[derive(Clone, Debug)]
pub struct Options {
    /// Host name in the banner.
    pub host: String,
    /// Connections at once.
    pub connections: usize,
    /// Connections at once of one client: an IPv4 address, an IPv6 /64.
    pub connections_per_client: usize,
    /// Commands in one session.
    pub commands: usize,
    /// For the TLS handshake.
    pub handshake: Duration,
    /// For a whole command line to arrive.
    pub idle: Duration,
    /// For a whole reply to be taken.
    pub write: Duration,
    /// For the whole session.
    pub session: Duration,
    /// Unknown names a client may ask for; `None`: any number.
    pub budget: Option<Arc<Budget>>,
    /// Whom to tell of names that are not known; `None`: nobody.
    pub unknown: Option<Arc<dyn Unknown>>,
    /// Counts connections that are served; `Metrics::dmtp_sessions`.
    pub sessions: Option<prometheus::IntCounter>,
}

impl Options {
    pub fn new(host: impl Into<String>) -> Options {
        Options {
            host: host.into(),
            connections: 1024,
            connections_per_client: 32,
            commands: 1000,
            handshake: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            write: Duration::from_secs(30),
            session: Duration::from_secs(300),
            budget: None,
            unknown: None,
            sessions: None,
        }
    }
}

/// What ends a server. Nothing a client does.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the DMTP listener")]
    Listener(#[source] std::io::Error),
}

/// A DMTP server, not yet listening. Clones share their limits.
#[derive(Clone)]
pub struct Server {
    shared: Arc<Shared>,
}

struct Shared {
    signets: Arc<dyn Signets>,
    acceptor: TlsAcceptor,
    options: Options,
    /// Open connections: all, and by client.
    open: Mutex<HashMap<Client, usize>>,
}

impl Server {
    pub fn new(signets: Arc<dyn Signets>, tls: Arc<ServerConfig>, options: Options) -> Server {
        let shared =
            Shared { signets, acceptor: tls.into(), options, open: Mutex::new(HashMap::new()) };
        Server { shared: Arc::new(shared) }
    }

    /// Serves until told to stop; then open sessions get two seconds. A
    /// failed accept is a warning, whatever the reason.
    pub async fn run(
        self,
        listener: TcpListener,
        shutdown: CancellationToken,
    ) -> Result<(), Error> {
        self.listen(listener, Opening::Tls, shutdown).await
    }

    /// The same in dual mode: in the clear until STARTTLS.
    pub async fn run_dual(
        self,
        listener: TcpListener,
        shutdown: CancellationToken,
    ) -> Result<(), Error> {
        self.listen(listener, Opening::Clear, shutdown).await
    }

    async fn listen(
        self,
        listener: TcpListener,
        opening: Opening,
        shutdown: CancellationToken,
    ) -> Result<(), Error> {
        listener.local_addr().map_err(Error::Listener)?;
        let mut sessions = JoinSet::new();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(_) = sessions.join_next(), if !sessions.is_empty() => {}
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => {
                        let client = Client::of(peer.ip());
                        if let Some(seat) = Seat::take(&self.shared, client) {
                            let shutdown = shutdown.clone();
                            sessions.spawn(seat.serve(stream, opening, peer.ip(), shutdown));
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "DMTP: a connection could not be accepted");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        drop(listener);
        let _ = timeout(GRACE, async { while sessions.join_next().await.is_some() {} }).await;
        sessions.shutdown().await;
        Ok(())
    }
}

/// How a connection begins.
#[derive(Clone, Copy)]
enum Opening {
    Tls,
    Clear,
}

/// One of the connections that are allowed at once; given back when dropped.
struct Seat {
    shared: Arc<Shared>,
    client: Client,
}

impl Seat {
    fn take(shared: &Arc<Shared>, client: Client) -> Option<Seat> {
        let mut open = shared.open.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = open.values().sum();
        let own = open.get(&client).copied().unwrap_or(0);
        if all >= shared.options.connections || own >= shared.options.connections_per_client {
            return None;
        }
        open.insert(client, own + 1);
        if let Some(sessions) = &shared.options.sessions {
            sessions.inc();
        }
        Some(Seat { shared: Arc::clone(shared), client })
    }

    async fn serve(
        self,
        stream: TcpStream,
        opening: Opening,
        peer: IpAddr,
        shutdown: CancellationToken,
    ) {
        let options = &self.shared.options;
        let (client, ends) = (Client::of(peer), Instant::now() + options.session);
        // Each reply line must leave at once. A failure costs only time.
        let _ = stream.set_nodelay(true);
        let (stream, greeting) = match opening {
            Opening::Tls => (stream, greeting(options)),
            Opening::Clear => {
                let mut clear = Session::new(&self.shared, stream, client, ends);
                if clear.upgrade(&shutdown).await != Some(Upgrade::Ready) {
                    return;
                }
                (clear.stream, make::mode())
            }
        };
        let handshake = timeout(options.handshake, self.shared.acceptor.accept(stream));
        let stream = tokio::select! {
            () = shutdown.cancelled() => return,
            stream = handshake => match stream {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => return tracing::debug!(%error, "DMTP: handshake failed"),
                Err(_) => return tracing::debug!("DMTP: handshake too slow"),
            },
        };
        let mut session = Session::new(&self.shared, stream, client, ends);
        // Whoever hangs up or is cut off hears no more; there is nobody to tell.
        if session.run(greeting, &shutdown).await.is_some() {
            let _ = timeout(GRACE, session.stream.shutdown()).await;
        }
    }
}

fn greeting(options: &Options) -> Lines {
    make::banner(&options.host, concat!("syndicate/", env!("CARGO_PKG_VERSION")))
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut open = self.shared.open.lock().unwrap_or_else(PoisonError::into_inner);
        match open.get_mut(&self.client) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                open.remove(&self.client);
            }
        }
    }
}

/// What comes in place of a command line.
enum Heard {
    Line(Vec<u8>),
    TooLong,
    /// Nothing in time.
    Silence,
    Stop,
    /// The client hung up, or the connection broke.
    Gone,
}

struct Session<'a, S> {
    shared: &'a Shared,
    stream: S,
    client: Client,
    /// Received, not yet used: at most a line and one read.
    buffer: Vec<u8>,
    ends: Instant,
}

/// How the lines in the clear ended.
#[derive(PartialEq, Eq)]
enum Upgrade {
    /// The next byte is TLS.
    Ready,
    Over,
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin> Session<'a, S> {
    fn new(shared: &'a Shared, stream: S, client: Client, ends: Instant) -> Session<'a, S> {
        Session { shared, stream, client, buffer: Vec::new(), ends }
    }

    /// The lines before TLS; `None` if the client was gone. Nothing is looked up
    /// in the clear, and nothing may follow STARTTLS: bytes slipped in before
    /// TLS would else be read as if they came inside it.
    async fn upgrade(&mut self, shutdown: &CancellationToken) -> Option<Upgrade> {
        let options = &self.shared.options;
        self.say(greeting(options)).await?;
        for _ in 0..options.commands.min(CLEAR_COMMANDS) {
            let line = match self.hear(shutdown).await {
                Heard::Line(line) => line,
                ended => return self.refuse(ended).await.map(|()| Upgrade::Over),
            };
            match command::parse(&line).map(|line| line.command) {
                Ok(Command::StartTls { mode, .. }) if mode.as_deref().is_none_or(is_dmtp) => {
                    self.say(make::line(220, "READY")).await?;
                    let clean = self.buffer.is_empty();
                    return Some(if clean { Upgrade::Ready } else { Upgrade::Over });
                }
                Ok(Command::StartTls { .. }) => self.say(make::line(501, "ONLY DMTPV1")).await?,
                Ok(Command::Mode) => self.say(make::mode()).await?,
                Ok(Command::Quit) => {
                    self.say(make::bye()).await?;
                    return Some(Upgrade::Over);
                }
                _ => self.say(make::line(503, "DMTP COMMAND REQUIRES STARTTLS FIRST")).await?,
            }
        }
        self.say(make::line(421, "TOO MANY COMMANDS, BYE")).await.map(|()| Upgrade::Over)
    }

    /// The whole session; `None` if the client was gone before its end.
    async fn run(&mut self, greeting: Lines, shutdown: &CancellationToken) -> Option<()> {
        let options = &self.shared.options;
        self.say(greeting).await?;
        for _ in 0..options.commands {
            let line = match self.hear(shutdown).await {
                Heard::Line(line) => line,
                ended => return self.refuse(ended).await,
            };
            let (lines, over) = match command::parse(&line) {
                Ok(line) => (self.answer(&line.command).await, line.command == Command::Quit),
                Err(refusal) if refusal.rule == UNKNOWN_VERB => {
                    (make::line(500, "INVALID COMMAND"), false)
                }
                Err(refusal) => (make::line(501, &syntax(refusal.rule)), false),
            };
            self.say(lines).await?;
            if over {
                return Some(());
            }
        }
        self.say(make::line(421, "TOO MANY COMMANDS, BYE")).await
    }

    /// The last words where no line came; `None` if there is nobody to hear.
    async fn refuse(&mut self, heard: Heard) -> Option<()> {
        match heard {
            Heard::TooLong => self.say(make::line(500, "LINE TOO LONG")).await,
            Heard::Silence => self.say(make::line(421, "TOO SLOW, BYE")).await,
            Heard::Stop => self.say(make::line(421, "SHUTTING DOWN, BYE")).await,
            Heard::Gone | Heard::Line(_) => None,
        }
    }

    /// The next line. A deadline for all of it: a byte a second gains nothing.
    async fn hear(&mut self, shutdown: &CancellationToken) -> Heard {
        let until = self.ends.min(Instant::now() + self.shared.options.idle);
        let mut chunk = [0; MAX_LINE];
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                return Heard::Line(self.buffer.drain(..=end).collect());
            }
            if self.buffer.len() >= MAX_LINE {
                return Heard::TooLong;
            }
            let read = tokio::select! {
                () = shutdown.cancelled() => return Heard::Stop,
                read = timeout_at(until, self.stream.read(&mut chunk)) => read,
            };
            match read {
                Err(_) => return Heard::Silence,
                Ok(Ok(read)) if read > 0 => {
                    self.buffer.extend_from_slice(chunk.get(..read).unwrap_or_default());
                }
                Ok(_) => return Heard::Gone,
            }
        }
    }

    /// Sends each line as a TLS record of its own (§6.7), all by one deadline.
    async fn say(&mut self, lines: Lines) -> Option<()> {
        let stream = &mut self.stream;
        let send = async {
            for line in lines {
                stream.write_all(line.as_bytes()).await?;
                stream.flush().await?;
            }
            std::io::Result::Ok(())
        };
        let until = self.ends.max(Instant::now() + GRACE);
        let until = until.min(Instant::now() + self.shared.options.write);
        timeout_at(until, send).await.ok()?.ok()
    }

    async fn answer(&self, command: &Command) -> Lines {
        match command {
            Command::Signet { .. } | Command::Verify { .. } | Command::History { .. } => {
                self.look_up(command).await
            }
            Command::Mode => make::mode(),
            Command::Helo { .. } | Command::Reset | Command::Noop(_) => make::ok(),
            Command::Ehlo { .. } => make::list(250, &["PIPELINING", "SGNT", "VRFY", "HIST"]),
            Command::Help(_) => make::list(
                214,
                &[
                    "SGNT <name> [fingerprint]",
                    "VRFY <name> [fingerprint]",
                    "HIST <address> [start] [stop]",
                    "MODE, EHLO <host>, NOOP, RSET, HELP, QUIT",
                ],
            ),
            Command::Quit => make::bye(),
            Command::StartTls { .. } => make::line(503, "TLS IS ALREADY ACTIVE"),
            Command::Mail { .. }
            | Command::Recipient { .. }
            | Command::Data { .. }
            | Command::Stats { .. }
            | Command::Verbose => make::line(502, "COMMAND DISABLED"),
        }
    }

    /// A lookup, if the client has not used up its unknown names.
    async fn look_up(&self, command: &Command) -> Lines {
        let budget = self.shared.options.budget.as_deref();
        if budget.is_some_and(|budget| !budget.allows(self.client)) {
            return make::line(431, "TOO MANY UNKNOWN NAMES, COME BACK IN AN HOUR");
        }
        let signets = self.shared.signets.as_ref();
        let (known, lines) = match command {
            Command::Signet { name, fingerprint } => {
                let found = one(signets, name, fingerprint.as_ref()).await;
                lines(found, |signet| make::signet(&signet.full_split()))
            }
            Command::Verify { name, fingerprint } => {
                let found = one(signets, name, None).await;
                lines(found, |signet| currency(&signet, fingerprint))
            }
            Command::History { address, start, stop } => {
                let found = signets.history(address, start.as_ref(), stop.as_ref()).await;
                lines(found, |chain| {
                    let served: Vec<_> = chain.iter().map(Signet::full_split).collect();
                    make::history(served.iter().map(|bytes| bytes.as_ref()))
                })
            }
            _ => return make::line(500, "INVALID COMMAND"),
        };
        if !known {
            self.unknown(command);
        }
        lines
    }

    /// Books what is not known on the client's account, and has it looked at.
    fn unknown(&self, command: &Command) {
        if let Some(budget) = &self.shared.options.budget {
            budget.book(self.client);
        }
        let Some(unknown) = &self.shared.options.unknown else { return };
        match command {
            Command::Signet { name, .. } | Command::Verify { name, .. } => unknown.asked(name),
            Command::History { address, .. } => unknown.asked(&Name::Address(address.clone())),
            _ => {}
        }
    }
}

fn is_dmtp(mode: &str) -> bool {
    mode.eq_ignore_ascii_case(MODE) || mode.eq_ignore_ascii_case("DMTP")
}

async fn one(signets: &dyn Signets, name: &Name, at: Option<&Fingerprint>) -> Answer<Signet> {
    match name {
        Name::Domain(domain) => signets.org(domain, at).await,
        Name::Address(address) => signets.user(address, at).await,
    }
}

/// Whether the name is known, and the reply.
fn lines<T>(answer: Answer<T>, found: impl FnOnce(T) -> Lines) -> (bool, Lines) {
    match answer {
        Answer::Found(value) => (true, found(value)),
        Answer::Held { url } => (true, make::held(&url)),
        Answer::NotFound => (false, make::not_found()),
        Answer::Unavailable => (true, make::line(451, "TRY AGAIN LATER")),
    }
}

/// Any level's fingerprint will do in the question (A14); in the answer it is
/// full where field 253 exists, else crypto.
fn currency(signet: &Signet, asked: &Fingerprint) -> Lines {
    if signet.matches(asked) {
        return make::current();
    }
    let print = signet.fingerprint(Level::Full).or_else(|| signet.fingerprint(Level::Crypto));
    print.map_or_else(make::not_found, |print| make::update(&print))
}

fn syntax(rule: &str) -> String {
    format!("SYNTAX ERROR ({})", rule.to_ascii_uppercase())
}
