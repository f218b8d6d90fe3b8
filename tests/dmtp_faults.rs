//! What a DX host can do wrong, and the error that names it: each server here
//! follows a script over real TLS.

#[path = "support/dx.rs"]
mod dx;

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use dx::{NOW, options, record, target};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use syndicate::dime::reply::Limits;
use syndicate::dime::signet::Fingerprint;
use syndicate::dime::{Dnssec, Name};
use syndicate::dmtp::client::Phase;
use syndicate::dmtp::{Entrance, Error, Fault, Options, Session, Target, open};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

type Tls = BufReader<TlsStream<TcpStream>>;
const BANNER: &str = "220 <dx.public.example> DMTPv1 test\r\n";

/// Serves one connection by a script.
async fn scripted<F>(script: impl FnOnce(Tls) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(dx::identity().server_config().unwrap());
    tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        if let Ok(stream) = acceptor.accept(socket).await {
            script(BufReader::new(stream)).await;
        }
    });
    addr
}

async fn say(stream: &mut Tls, text: &str) {
    // The client may have hung up already: that is what some tests are about.
    let _ = stream.write_all(text.as_bytes()).await;
    let _ = stream.flush().await;
}

async fn hear(stream: &mut Tls) -> String {
    let mut line = String::new();
    let _ = stream.read_line(&mut line).await;
    line
}

async fn try_open(addr: SocketAddr, options: &Options) -> Result<Session, Error> {
    open(target(addr), options, NOW, Some((&record(), Dnssec::Secure))).await.map(|open| open.0)
}

/// The error of opening a session with a server that says this first.
async fn greeted(greeting: &'static str) -> Error {
    let addr = scripted(async move |mut stream: Tls| {
        say(&mut stream, greeting).await;
        let _ = hear(&mut stream).await;
    })
    .await;
    try_open(addr, &options()).await.unwrap_err()
}

fn alice() -> Name {
    "alice@public.example".parse().unwrap()
}

/// The outcome of `SGNT` with a server that answers this and hangs up.
async fn answered(reply: impl Into<String>, options: &Options) -> Result<Vec<u8>, Error> {
    let reply = reply.into();
    let addr = scripted(async move |mut stream: Tls| {
        say(&mut stream, BANNER).await;
        let _ = hear(&mut stream).await;
        say(&mut stream, &reply).await;
        let _ = stream.shutdown().await;
    })
    .await;
    try_open(addr, options).await?.signet(&alice(), None).await
}

fn check(error: &Error, reason: &str, fault: Fault) {
    assert_eq!((error.reason(), error.fault()), (reason, fault), "{error:?}");
    assert!(!format!("{error}").contains("alice"), "no mailbox name in {error}");
}

#[tokio::test]
async fn a_banner_must_offer_dmtp() {
    for greeting in [
        "220 mail.example ESMTP Postfix\r\n",
        "220 <dx.public.example> DSMTP Magma\r\n",
        "220 DMTPv1\r\n",
        "220 host dmtpv1\r\n",
        "554 go away DMTPv1\r\n",
        "221 host DMTPv1\r\n",
    ] {
        check(&greeted(greeting).await, "banner", Fault::Host);
    }
    for greeting in ["220-host DMTPv1\r\n", "220\r\n", "hello\r\n", "220 host DMTPv1\n", "\r\n"] {
        check(&greeted(greeting).await, "malformed", Fault::Host);
    }
}

#[tokio::test]
async fn malformed_replies() {
    for reply in [
        "250 OK\r\n",
        "250 OK [\r\n",
        "250 OK [a]\r\n",
        "250 OK [AAA$]\r\n",
        "250 ok [AAAA]\r\n",
        "250 OK [AAAA] \r\n",
        "250 OK [AAAB=]\r\n",
        "250-OK [AAAA]\r\n250 OK\r\n",
        "25x OK [AAAA]\r\n",
        "0250 OK [AAAA]\r\n",
        "250OK [AAAA]\r\n",
        "999 OK\r\n",
        "250 OK [AAAA]\n",
        "250 OK\0[AAAA]\r\n",
        "250 Ä\r\n",
        "\r\n",
    ] {
        check(&answered(reply, &options()).await.unwrap_err(), "malformed", Fault::Host);
    }
    for reply in ["250 OK [AAAA]\r\n", "270 OK\t [AAA]\r\n", "250 OK[AAAA]\r\n"] {
        assert!(answered(reply, &options()).await.is_ok(), "{reply}");
    }
}

#[tokio::test]
async fn truncated_replies() {
    for reply in ["", "2", "250 OK [AAAA", "250 OK [AAAA]\r"] {
        check(&answered(reply, &options()).await.unwrap_err(), "truncated", Fault::Host);
    }
    // Cut off without the goodbye of TLS.
    let addr = scripted(async |mut stream: Tls| {
        say(&mut stream, BANNER).await;
        let _ = hear(&mut stream).await;
        say(&mut stream, "250 OK [AA").await;
    })
    .await;
    let mut session = try_open(addr, &options()).await.unwrap();
    check(&session.signet(&alice(), None).await.unwrap_err(), "truncated", Fault::Host);
}

#[tokio::test]
async fn oversized_replies() {
    let limits = Limits { line: 200, lines: 4, total: 500 };
    let small = Options { limits, object: 100, ..options() };
    let line = |bytes: usize| format!("250 OK [{}]\r\n", "A".repeat(bytes - 11));
    assert!(answered(line(131), &small).await.is_ok());
    // A signet, then a line, over the limit; and one that never ends.
    check(&answered(line(191), &small).await.unwrap_err(), "oversized", Fault::Host);
    check(&answered(line(203), &small).await.unwrap_err(), "oversized", Fault::Host);
    let endless = "250 OK [".to_owned() + &"A".repeat(100_000);
    check(&answered(endless, &small).await.unwrap_err(), "oversized", Fault::Host);
    // Many lines, and many bytes.
    for line in ["250-[AAAA]\r\n".to_owned(), format!("250-[{}]\r\n", "A".repeat(180))] {
        let addr = scripted(async move |mut stream: Tls| {
            say(&mut stream, BANNER).await;
            let _ = hear(&mut stream).await;
            for _ in 0..5 {
                say(&mut stream, &line).await;
            }
            let _ = hear(&mut stream).await;
        })
        .await;
        let mut session = try_open(addr, &small).await.unwrap();
        let alice = "alice@public.example".parse().unwrap();
        check(&session.history(&alice, None, None).await.unwrap_err(), "oversized", Fault::Host);
    }
}

#[tokio::test]
async fn slow_servers() {
    let hasty = Options { reply: Duration::from_secs(2), ..options() };
    // Says nothing.
    let addr = scripted(async |mut stream: Tls| {
        let _ = hear(&mut stream).await;
    })
    .await;
    check(&try_open(addr, &hasty).await.unwrap_err(), "slow", Fault::Host);
    // Says a byte at a time, and never ends.
    let addr = scripted(async |mut stream: Tls| {
        say(&mut stream, BANNER).await;
        let _ = hear(&mut stream).await;
        say(&mut stream, "250 OK [").await;
        while stream.write_all(b"A").await.is_ok() && stream.flush().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    // On a machine that stops for so long the banner is slow already.
    let error = match try_open(addr, &hasty).await {
        Ok(mut session) => session.signet(&alice(), None).await.unwrap_err(),
        Err(error) => error,
    };
    check(&error, "slow", Fault::Host);
    assert!(matches!(error, Error::Slow(Phase::Reply)));
    // Answers each command in time, but the session has an end.
    let addr = scripted(async |mut stream: Tls| {
        say(&mut stream, BANNER).await;
        while !hear(&mut stream).await.is_empty() {
            say(&mut stream, "250 OK [AAAA]\r\n").await;
        }
    })
    .await;
    let brief = Options { session: Duration::from_secs(2), ..options() };
    let error = match try_open(addr, &brief).await {
        Ok(mut session) => loop {
            if let Err(error) = session.signet(&alice(), None).await {
                break error;
            }
        },
        Err(error) => error,
    };
    assert!(matches!(error, Error::Slow(Phase::Session)), "{error:?}");
    // Never makes the handshake.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hasty = Options { handshake: Duration::from_millis(100), ..options() };
    let error = try_open(listener.local_addr().unwrap(), &hasty).await.unwrap_err();
    assert!(matches!(error, Error::Slow(Phase::Handshake)), "{error:?}");
}

#[tokio::test]
async fn nobody_there_and_no_tls() {
    // Bound, so that nobody else listens there, and not listening.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let addr = socket.local_addr().unwrap();
    check(&try_open(addr, &options()).await.unwrap_err(), "unreachable", Fault::Network);

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let _ = socket.write_all(b"220 mail.example ESMTP\r\n").await;
        let _ = socket.read(&mut [0; 512]).await;
    });
    check(&try_open(addr, &options()).await.unwrap_err(), "tls", Fault::Host);
}

#[tokio::test]
async fn unasked_text_is_not_taken_for_an_answer() {
    let addr = scripted(async |mut stream: Tls| {
        say(&mut stream, BANNER).await;
        let _ = hear(&mut stream).await;
        say(&mut stream, "250 CURRENT\r\n250 CURRENT\r\n").await;
        let _ = hear(&mut stream).await;
    })
    .await;
    let mut session = try_open(addr, &options()).await.unwrap();
    let print = Fingerprint::of(b"x");
    assert!(session.verify(&alice(), &print).await.is_ok());
    check(&session.verify(&alice(), &print).await.unwrap_err(), "malformed", Fault::Host);
}

#[tokio::test]
async fn refusals_and_the_second_grammar() {
    // 500 and 501 get one more try, in grammar B.
    for code in [500, 501] {
        let addr = scripted(async move |mut stream: Tls| {
            say(&mut stream, BANNER).await;
            assert_eq!(hear(&mut stream).await, "SGNT <alice@public.example>\r\n");
            say(&mut stream, &format!("{code} WHAT alice@public.example\r\n")).await;
            assert_eq!(hear(&mut stream).await, "SGNT USER=<alice@public.example>\n");
            say(&mut stream, "250 OK [AAAA]\r\n").await;
            let _ = hear(&mut stream).await;
            say(&mut stream, "501 NO\r\n").await;
            let _ = hear(&mut stream).await;
            say(&mut stream, "500 NO alice@public.example\r\n").await;
        })
        .await;
        let mut session = try_open(addr, &options()).await.unwrap();
        assert_eq!(session.signet(&alice(), None).await.unwrap(), [0, 0, 0]);
        let error = session.signet(&alice(), None).await.unwrap_err();
        check(&error, "refused", Fault::Answer);
        assert!(matches!(error, Error::Refused { code: 500, .. }));
    }
    // Others do not, and the session goes on.
    let addr = scripted(async |mut stream: Tls| {
        say(&mut stream, BANNER).await;
        for reply in ["450 SIGNET NOT FOUND.\r\n", "502 NO\r\n", "421 BYE\r\n", "250 OK [AAAA]\r\n"]
        {
            let _ = hear(&mut stream).await;
            say(&mut stream, reply).await;
        }
    })
    .await;
    let mut session = try_open(addr, &options()).await.unwrap();
    for reason in ["not-found", "refused", "refused"] {
        check(&session.signet(&alice(), None).await.unwrap_err(), reason, Fault::Answer);
    }
    assert!(session.signet(&alice(), None).await.is_ok());
}

#[tokio::test]
async fn other_ways_to_answer_vrfy_and_hist() {
    let print = Fingerprint::of(b"x");
    let addr = scripted(async move |mut stream: Tls| {
        say(&mut stream, BANNER).await;
        for reply in [
            "250 current\r\n".to_owned(),
            format!("291 UPDATE {print}\r\n"),
            format!("250 Update [{print}]\r\n"),
            "250 UPDATE\r\n".to_owned(),
            "250 UPDATE [short]\r\n".to_owned(),
            "250-[AAAA]\r\n250 [BBBB]\r\n".to_owned(),
            "250 OK\r\n".to_owned(),
            "250-[AAAA]\r\n251 OK\r\n".to_owned(),
        ] {
            let _ = hear(&mut stream).await;
            say(&mut stream, &reply).await;
        }
    })
    .await;
    use syndicate::dime::reply::Currency::{Current, Update};
    let mut session = try_open(addr, &options()).await.unwrap();
    assert_eq!(session.verify(&alice(), &print).await.unwrap(), Current);
    assert_eq!(session.verify(&alice(), &print).await.unwrap(), Update(print));
    assert_eq!(session.verify(&alice(), &print).await.unwrap(), Update(print));
    for _ in 0..2 {
        check(&session.verify(&alice(), &print).await.unwrap_err(), "malformed", Fault::Host);
    }
    let alice = "alice@public.example".parse().unwrap();
    assert_eq!(session.history(&alice, None, None).await.unwrap().len(), 2);
    for _ in 0..2 {
        let error = session.history(&alice, None, None).await.unwrap_err();
        check(&error, "malformed", Fault::Host);
    }
}

// ---- a certificate without its key -----------------------------------------

/// Shows the certificate of the vectors and signs with another key.
#[derive(Debug)]
struct Impostor(Arc<CertifiedKey>);

impl ResolvesServerCert for Impostor {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

#[tokio::test]
async fn a_certificate_alone_proves_nothing() {
    let files = tempfile::tempdir().unwrap();
    let (cert, key) = (files.path().join("cert.pem"), files.path().join("key.pem"));
    syndicate::serve::identity::Identity::load_or_make(&cert, &key, dx::HOST).unwrap();
    let stolen = CertificateDer::from_pem_file(dx::vectors().join("records/dx_cert.pem")).unwrap();
    let own = PrivateKeyDer::from_pem_file(&key).unwrap();
    let own = ring::sign::any_supported_type(&own).unwrap();
    let impostor = Impostor(Arc::new(CertifiedKey::new(vec![stolen], own)));
    let impostor = Arc::new(impostor);
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(impostor.clone());
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (socket, _) = listener.accept().await.unwrap();
            let _ = acceptor.accept(socket).await;
        });
        let error = try_open(addr, &options()).await.unwrap_err();
        check(&error, "tls", Fault::Host);
    }
}

// ---- STARTTLS ---------------------------------------------------------------

/// A dual-mode server: what it says in the clear, and first inside TLS.
async fn dual(clear: &'static [&'static str], inside: &'static str) -> Result<Session, Error> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(dx::identity().server_config().unwrap());
    let server = tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        let mut socket = BufReader::new(socket);
        let mut heard = String::new();
        for (index, text) in clear.iter().enumerate() {
            if index > 0 {
                socket.read_line(&mut heard).await.unwrap();
                assert_eq!(heard, "STARTTLS <dx.public.example> MODE=DMTPv1\r\n");
            }
            socket.write_all(text.as_bytes()).await.unwrap();
        }
        let Ok(stream) = acceptor.accept(socket.into_inner()).await else { return };
        assert_eq!(stream.get_ref().1.server_name(), None, "no SNI after STARTTLS");
        let mut stream = BufReader::new(stream);
        say(&mut stream, inside).await;
        let _ = hear(&mut stream).await;
        say(&mut stream, "250 OK [AAAA]\r\n").await;
    });
    let target = Target { entrance: Entrance::StartTls, ..target(addr) };
    let opened = open(target, &options(), NOW, Some((&record(), Dnssec::Secure))).await;
    match opened {
        Ok((mut session, _)) => {
            assert_eq!(session.signet(&alice(), None).await.unwrap(), [0, 0, 0]);
            server.await.unwrap();
            Ok(session)
        }
        Err(error) => Err(error),
    }
}

#[tokio::test]
async fn starttls_as_the_old_server_spoke_it() {
    dual(
        &[
            "220 <dx.public.example> ESMTP DMTPv1 Magma\r\n",
            "220-SENDING CERTIFICATE FOR DOMAIN dx.public.example\r\n220 READY\r\n",
        ],
        "250 OK DMTPv1\r\n",
    )
    .await
    .unwrap();
    dual(&[BANNER, "250 GO\r\n"], "250 OK DMTPv1\r\n").await.unwrap();
}

#[tokio::test]
async fn starttls_gone_wrong() {
    let plain = dual(&["220 mail.example ESMTP\r\n"], "").await.unwrap_err();
    check(&plain, "banner", Fault::Host);
    let refused = dual(&[BANNER, "454 NO TLS TODAY\r\n"], "").await.unwrap_err();
    check(&refused, "refused", Fault::Answer);
    let smtp = dual(&[BANNER, "220 READY\r\n"], "250 OK ESMTP\r\n").await.unwrap_err();
    check(&smtp, "banner", Fault::Host);
    // Bytes in the clear that would be read as if they came inside TLS.
    let injected = dual(&[BANNER, "220 READY\r\n250 OK DMTPv1\r\n"], "").await.unwrap_err();
    check(&injected, "malformed", Fault::Host);
}
