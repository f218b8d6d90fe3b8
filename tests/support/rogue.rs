//! A DX host that misbehaves as it is told, over real TLS, and can be told to
//! behave again.
#![allow(dead_code)] // each test binary uses another part

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::pki_types::PrivateKeyDer;
use syndicate::demo::organization::{Habits, Organization};
use syndicate::dime::record::Template;
use syndicate::dime::reply::make;
use syndicate::dime::{Address, Domain};
use syndicate::serve::identity::Identity;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

type Tls = BufReader<TlsStream<TcpStream>>;

const BANNER: &str = "220 <rogue> DMTPv1\r\n";
/// Bytes said in one go by hosts that never end.
const FLOOD: usize = 8192;
/// Between two bytes of hosts that drip.
const DRIP: Duration = Duration::from_millis(100);
/// The largest signet that its header can tell of.
const HUGE: usize = 1 << 24;

/// What the host does.
#[derive(Clone, Debug)]
pub enum Conduct {
    /// As it should.
    Honest,
    /// Takes the connection and never says a word, not even in TLS.
    Mute,
    /// Closes each connection at once.
    HangsUp,
    /// Answers TLS with something else.
    Plaintext(&'static [u8]),
    /// This instead of the banner, after the handshake; nothing if empty.
    Greets(&'static str),
    /// These bytes in place of TLS, again and again.
    Garbage(&'static [u8]),
    /// The head of a TLS record, then a byte of it now and then.
    DripsTls,
    /// A banner without an end.
    EndlessBanner,
    /// A banner of lines without an end.
    EndlessLines,
    /// A banner, a byte now and then.
    DripsBanner,
    /// An honest banner, and this about the org signet.
    Org(Answer),
    /// Honest but for this about mailboxes (`SGNT`).
    User(Answer),
    /// Honest but for this as a chain (`HIST`).
    History(Answer),
    /// Hangs up when a second mailbox is asked for, and from then on shows
    /// another certificate.
    ChangesCertificate,
    /// The same, and from then on its name leads elsewhere: what was set by
    /// [`Rogue::before_hanging_up`] is done first.
    MovesAway,
}

/// One bad answer.
#[derive(Clone, Debug)]
pub enum Answer {
    /// These words, verbatim.
    Says(String),
    /// This, and the connection is closed.
    Breaks(String),
    /// This, and the session is ended in good order.
    Ends(String),
    /// Nothing.
    Silence,
    /// A byte now and then, without an end.
    Drips,
    /// This again and again, as fast as it is taken.
    Floods(&'static str),
    /// So many bytes of an answer, and then nothing.
    Hoards(usize),
    /// Only so many bytes of the true signet, as a whole answer.
    Cut(usize),
    /// A signet that says it has 16 MiB, and has.
    Huge,
    /// Another signet than the true one.
    Gives(Vec<u8>),
    /// The chain so often, over and over, as one history.
    Cycle(usize),
}

type Hook = Box<dyn FnOnce() + Send>;

/// A domain whose only DX host is a rogue.
pub struct Rogue {
    pub address: Address,
    pub record: String,
    pub ip: Ipv4Addr,
    host: Arc<Host>,
    task: JoinHandle<()>,
}

impl Rogue {
    /// Starts the host of a domain with one mailbox, on a loopback address of
    /// its own with that port. Its certificate is the one of the vectors.
    pub async fn start(domain: &Domain, local: &str, port: u16, conduct: Conduct) -> Rogue {
        let records = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/vectors/records");
        let identity =
            Identity::from_files(&records.join("dx_cert.pem"), &records.join("dx_key.pem"));
        let identity = identity.unwrap();
        let mut organization = Organization::new(domain.clone(), Habits::default()).unwrap();
        let address = organization.enroll(local).unwrap();
        for _ in 0..2 {
            organization.rotate(&address).unwrap();
        }
        let record = Template {
            poks: vec![organization.pok()],
            tls: vec![organization.pin(identity.der())],
            dx: vec![format!("dx.{domain}")],
            ..Template::default()
        };
        let listener = listen(port).await;
        let SocketAddr::V4(bound) = listener.local_addr().unwrap() else { unreachable!() };
        let host = Arc::new(Host {
            org: organization.signets().last().unwrap().full_split().into_owned(),
            user: organization
                .served(&address)
                .iter()
                .map(|signet| signet.full_split().into_owned())
                .collect(),
            conduct: Mutex::new(conduct),
            tls: TlsAcceptor::from(identity.server_config().unwrap()),
            asked: Mutex::default(),
            hung_up: AtomicBool::new(false),
            hook: Mutex::new(None),
            connections: AtomicU64::new(0),
        });
        let task = tokio::spawn(serve(listener, host.clone()));
        Rogue { address, record: record.text(), ip: *bound.ip(), host, task }
    }

    pub fn domain(&self) -> &Domain {
        self.address.domain()
    }

    /// From the next connection on.
    pub fn behave(&self, conduct: Conduct) {
        *self.host.conduct.lock().unwrap_or_else(PoisonError::into_inner) = conduct;
        self.host.hung_up.store(false, Ordering::SeqCst);
    }

    /// Done once, when the host hangs up as its conduct says.
    pub fn before_hanging_up(&self, hook: impl FnOnce() + Send + 'static) {
        *self.host.hook.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(hook));
    }

    /// Signets that it has: org and newest of the mailbox.
    pub fn signets(&self) -> (Vec<u8>, Vec<u8>) {
        (self.host.org.clone(), self.host.user.last().cloned().unwrap_or_default())
    }

    /// Connections so far.
    pub fn connections(&self) -> u64 {
        self.host.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Rogue {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The next free address in a part of loopback that the private world leaves alone.
async fn listen(port: u16) -> TcpListener {
    for last in 1..=u8::MAX {
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::new(127, 1, 7, last), port)).await {
            return listener;
        }
    }
    panic!("no loopback address is free");
}

struct Host {
    org: Vec<u8>,
    /// Oldest first.
    user: Vec<Vec<u8>>,
    conduct: Mutex<Conduct>,
    tls: TlsAcceptor,
    /// The mailbox that was asked for first.
    asked: Mutex<Option<String>>,
    hung_up: AtomicBool,
    hook: Mutex<Option<Hook>>,
    connections: AtomicU64,
}

/// Another certificate for the same host.
fn another_certificate() -> TlsAcceptor {
    let made = rcgen::generate_simple_self_signed(vec!["dx.example".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

async fn serve(listener: TcpListener, host: Arc<Host>) {
    while let Ok((socket, _)) = listener.accept().await {
        let host = host.clone();
        host.connections.fetch_add(1, Ordering::SeqCst);
        tokio::spawn(async move {
            let conduct = host.conduct.lock().unwrap_or_else(PoisonError::into_inner).clone();
            // Whatever goes wrong here is the client hanging up.
            let _ = host.meet(socket, conduct).await;
        });
    }
}

impl Host {
    async fn meet(&self, mut socket: TcpStream, conduct: Conduct) -> std::io::Result<()> {
        match conduct {
            Conduct::Mute => return wait(socket).await,
            Conduct::HangsUp => return Ok(()),
            Conduct::Plaintext(bytes) => {
                socket.write_all(bytes).await?;
                return wait(socket).await;
            }
            Conduct::Garbage(bytes) => loop {
                socket.write_all(bytes).await?;
            },
            Conduct::DripsTls => {
                socket.write_all(&[0x16, 0x03, 0x03, 0x40, 0x00, 0x02]).await?;
                loop {
                    socket.write_all(&[0]).await?;
                    tokio::time::sleep(DRIP).await;
                }
            }
            _ => {}
        }
        let changes = matches!(conduct, Conduct::ChangesCertificate);
        let tls = match changes && self.hung_up.load(Ordering::SeqCst) {
            true => another_certificate(),
            false => self.tls.clone(),
        };
        let mut stream = BufReader::new(tls.accept(socket).await?);
        match conduct {
            Conduct::Greets("") => return wait(stream).await,
            Conduct::Greets(words) => {
                say(&mut stream, words).await?;
                return wait(stream).await;
            }
            Conduct::EndlessBanner => {
                say(&mut stream, "220 ").await?;
                return flood(&mut stream, "A").await;
            }
            Conduct::EndlessLines => return flood(&mut stream, "220-MORE\r\n").await,
            Conduct::DripsBanner => return drip(&mut stream, "2").await,
            _ => say(&mut stream, BANNER).await?,
        }
        self.converse(stream, &conduct).await
    }

    async fn converse(&self, mut stream: Tls, conduct: &Conduct) -> std::io::Result<()> {
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            if line.starts_with("QUIT") {
                return say(&mut stream, "221 BYE\r\n").await;
            }
            if self.is_second(&line) && self.hangs_up() {
                return Ok(());
            }
            let newest = self.user.last().map(Vec::as_slice).unwrap_or_default();
            let (bad, truth) = match (conduct, line.starts_with("HIST"), line.contains('@')) {
                (Conduct::History(answer), true, _) => (Some(answer), newest),
                (Conduct::User(answer), false, true) => (Some(answer), newest),
                (Conduct::Org(answer), false, false) => (Some(answer), &*self.org),
                (_, true, _) => {
                    let chain = self.user.iter().map(Vec::as_slice);
                    say(&mut stream, &make::history(chain).concat()).await?;
                    continue;
                }
                (_, _, true) => (None, newest),
                _ => (None, &*self.org),
            };
            match bad {
                None => say(&mut stream, &make::signet(truth).concat()).await?,
                Some(Answer::Says(words)) => say(&mut stream, words).await?,
                Some(Answer::Breaks(words)) => return say(&mut stream, words).await,
                Some(Answer::Ends(words)) => {
                    say(&mut stream, words).await?;
                    return stream.shutdown().await;
                }
                Some(Answer::Silence) => return wait(stream).await,
                Some(Answer::Drips) => return drip(&mut stream, "2").await,
                Some(Answer::Huge) => {
                    let mut huge = vec![0; HUGE];
                    huge[..5].copy_from_slice(&[truth[0], truth[1], 0xff, 0xff, 0xfb]);
                    say(&mut stream, &make::signet(&huge).concat()).await?
                }
                Some(Answer::Gives(other)) => {
                    say(&mut stream, &make::signet(other).concat()).await?
                }
                Some(Answer::Cycle(times)) => {
                    let round = self.user.iter().map(Vec::as_slice);
                    let chain = std::iter::repeat_n(round, *times).flatten();
                    say(&mut stream, &make::history(chain).concat()).await?
                }
                Some(Answer::Hoards(bytes)) => {
                    say(&mut stream, &format!("250 OK [{}", "A".repeat(*bytes))).await?;
                    return wait(stream).await;
                }
                Some(Answer::Floods(words)) => return flood(&mut stream, words).await,
                Some(Answer::Cut(bytes)) => {
                    say(&mut stream, &make::signet(&truth[..*bytes]).concat()).await?
                }
            }
        }
    }
}

impl Host {
    /// Whether another mailbox is asked for than at first.
    fn is_second(&self, line: &str) -> bool {
        let mut words = line.split(['<', '>']);
        let Some(mailbox) = words.nth(1).filter(|word| word.contains('@')) else { return false };
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.get_or_insert_with(|| mailbox.to_owned()) != mailbox
    }

    /// Whether its conduct is to hang up by now, which it does once: the
    /// connection may be an old one.
    fn hangs_up(&self) -> bool {
        let conduct = self.conduct.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let does = matches!(conduct, Conduct::ChangesCertificate | Conduct::MovesAway)
            && !self.hung_up.swap(true, Ordering::SeqCst);
        if does {
            let hook = self.hook.lock().unwrap_or_else(PoisonError::into_inner).take();
            hook.into_iter().for_each(|hook| hook());
        }
        does
    }
}

async fn drip(stream: &mut Tls, words: &str) -> std::io::Result<()> {
    loop {
        say(stream, words).await?;
        tokio::time::sleep(DRIP).await;
    }
}

async fn say(stream: &mut Tls, words: &str) -> std::io::Result<()> {
    stream.write_all(words.as_bytes()).await?;
    stream.flush().await
}

async fn flood(stream: &mut Tls, words: &str) -> std::io::Result<()> {
    let words = words.repeat(FLOOD / words.len());
    loop {
        say(stream, &words).await?;
    }
}

/// Until the client hangs up.
async fn wait(mut stream: impl tokio::io::AsyncRead + Unpin) -> std::io::Result<()> {
    let mut heard = [0; 256];
    while tokio::io::AsyncReadExt::read(&mut stream, &mut heard).await? > 0 {}
    Ok(())
}
