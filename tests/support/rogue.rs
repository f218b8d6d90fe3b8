//! A DX host that misbehaves as it is told, over real TLS, and can be told to
//! behave again.
#![allow(dead_code)] // each test binary uses another part

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

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
    /// A banner without an end.
    EndlessBanner,
    /// An honest banner, and this about the org signet.
    Org(Answer),
    /// Honest but for this about mailboxes (`SGNT`).
    User(Answer),
    /// Honest but for this as a chain (`HIST`).
    History(Answer),
}

/// One bad answer.
#[derive(Clone, Debug)]
pub enum Answer {
    /// These words, verbatim.
    Says(String),
    /// This, and the connection is closed.
    Breaks(String),
    /// Nothing.
    Silence,
    /// A byte now and then, without an end.
    Drips,
    /// This again and again, as fast as it is taken.
    Floods(&'static str),
    /// Only so many bytes of the true signet, as a whole answer.
    Cut(usize),
}

/// A domain whose only DX host is a rogue.
pub struct Rogue {
    pub address: Address,
    pub record: String,
    pub ip: Ipv4Addr,
    conduct: Arc<Mutex<Conduct>>,
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
        organization.rotate(&address).unwrap();
        let record = Template {
            poks: vec![organization.pok()],
            tls: vec![organization.pin(identity.der())],
            dx: vec![format!("dx.{domain}")],
            ..Template::default()
        };
        let listener = listen(port).await;
        let SocketAddr::V4(bound) = listener.local_addr().unwrap() else { unreachable!() };
        let conduct = Arc::new(Mutex::new(conduct));
        let host = Host {
            org: organization.signets().last().unwrap().full_split().into_owned(),
            user: organization
                .served(&address)
                .iter()
                .map(|signet| signet.full_split().into_owned())
                .collect(),
            conduct: conduct.clone(),
            tls: TlsAcceptor::from(identity.server_config().unwrap()),
        };
        let task = tokio::spawn(serve(listener, Arc::new(host)));
        Rogue { address, record: record.text(), ip: *bound.ip(), conduct, task }
    }

    pub fn domain(&self) -> &Domain {
        self.address.domain()
    }

    /// From the next connection on.
    pub fn behave(&self, conduct: Conduct) {
        *self.conduct.lock().unwrap_or_else(PoisonError::into_inner) = conduct;
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
    conduct: Arc<Mutex<Conduct>>,
    tls: TlsAcceptor,
}

async fn serve(listener: TcpListener, host: Arc<Host>) {
    while let Ok((socket, _)) = listener.accept().await {
        let host = host.clone();
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
            _ => {}
        }
        let mut stream = BufReader::new(self.tls.accept(socket).await?);
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
                Some(Answer::Silence) => return wait(stream).await,
                Some(Answer::Drips) => loop {
                    say(&mut stream, "2").await?;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                },
                Some(Answer::Floods(words)) => return flood(&mut stream, words).await,
                Some(Answer::Cut(bytes)) => {
                    say(&mut stream, &make::signet(&truth[..*bytes]).concat()).await?
                }
            }
        }
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
