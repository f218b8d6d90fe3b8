//! A real client against a real server on loopback: every command, both
//! grammars, TLS 1.2 and 1.3, and the limits of the server.

#[path = "support/dx.rs"]
mod dx;

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use dx::{HOST, NOW, bytes, folder, identity, only, options, record, serve, signet, target};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, ServerConfig, SignatureScheme,
};
use syndicate::clock::Clock;
use syndicate::dime::certificate::{By, How, PinMatch};
use syndicate::dime::command::Command;
use syndicate::dime::record::Record;
use syndicate::dime::reply::Currency;
use syndicate::dime::signet::{Fingerprint, Level, Signet};
use syndicate::dime::{Address, Dnssec, Domain, Name, Timestamp};
use syndicate::dmtp::client::connect;
use syndicate::dmtp::{AddressFilter, Error, Fault, Kept, Options, Roots, Session, open};
use syndicate::serve::budget::Budget;
use syndicate::serve::dmtp::{self, Answer, Signets};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn address(text: &str) -> Address {
    text.parse().unwrap()
}

fn crypto(signet: &Signet) -> Fingerprint {
    signet.fingerprint(Level::Crypto).unwrap()
}

fn full(signet: &Signet) -> Fingerprint {
    signet.fingerprint(Level::Full).unwrap()
}

async fn session(addr: SocketAddr) -> Session {
    open(target(addr), &options(), NOW, Some((&record(), Dnssec::Secure))).await.unwrap().0
}

#[tokio::test]
async fn every_command_under_both_versions_of_tls() {
    let folder = folder();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let server = serve(folder.path(), only(&[version])).await;
        let mut session = session(server.addr).await;
        look_up_all(&mut session).await;
        for command in [
            Command::Mode,
            Command::Reset,
            Command::Noop(vec![]),
            Command::Noop(vec!["idle".into()]),
            Command::Help(None),
            Command::Ehlo { host: "client.example".into() },
            Command::Helo { host: "client.example".into() },
        ] {
            session.ask(&command).await.unwrap();
        }
        session.ask(&Command::Mode).await.unwrap().mode().unwrap();
        for command in [
            Command::Data { fingerprint: None },
            Command::Stats { nonce: None },
            Command::Recipient { to: "public.example".into(), fingerprint: Some("x".into()) },
        ] {
            let refused = session.ask(&command).await.unwrap_err();
            assert!(matches!(refused, Error::Refused { code: 502, .. }), "{refused:?}");
        }
        session.quit().await;
    }
}

async fn look_up_all(session: &mut Session) {
    let (alice, domain) = (name("alice@public.example"), name("public.example"));
    let chain: Vec<Signet> = (0..6).map(|link| signet(&format!("chain_{link}"))).collect();
    let org = signet("org_rich_id");

    // SGNT: the full split of the current one, or of the one that is asked for.
    let served = session.signet(&domain, None).await.unwrap();
    assert_eq!(served, *org.full_split());
    assert_eq!(served, bytes("signets/org_rich_full_split.bin"), "the reference cuts it alike");
    assert_eq!(session.signet(&alice, None).await.unwrap(), *chain[5].full_split());
    let third = session.signet(&alice, Some(&crypto(&chain[3]))).await.unwrap();
    assert_eq!(third, *chain[3].full_split());
    let bob = session.signet(&name("bob@public.example"), None).await.unwrap();
    assert_eq!(bob, bytes("signets/user_rich_full_split.bin"));

    // VRFY: any level of the current one is current.
    for level in [Level::Crypto, Level::Full, Level::Id] {
        let print = chain[5].fingerprint(level).unwrap();
        assert_eq!(session.verify(&alice, &print).await.unwrap(), Currency::Current);
    }
    let outdated = session.verify(&alice, &crypto(&chain[0])).await.unwrap();
    assert_eq!(outdated, Currency::Update(full(&chain[5])));
    assert_eq!(session.verify(&domain, &crypto(&org)).await.unwrap(), Currency::Current);

    // HIST: both ends included, oldest first.
    let alice = address("alice@public.example");
    let full_splits = |range: std::ops::RangeInclusive<usize>| -> Vec<Vec<u8>> {
        chain[range].iter().map(|link| link.full_split().to_vec()).collect()
    };
    let (second, fourth) = (crypto(&chain[2]), crypto(&chain[4]));
    assert_eq!(session.history(&alice, None, None).await.unwrap(), full_splits(0..=5));
    assert_eq!(session.history(&alice, Some(&second), None).await.unwrap(), full_splits(2..=5));
    let between = session.history(&alice, Some(&second), Some(&fourth)).await.unwrap();
    assert_eq!(between, full_splits(2..=4));
    assert_eq!(session.history(&alice, None, Some(&second)).await.unwrap(), full_splits(0..=2));

    // Not there.
    let unknown = Fingerprint::of(b"unknown");
    for error in [
        session.signet(&name("nobody@public.example"), None).await.unwrap_err(),
        session.signet(&name("elsewhere.example"), None).await.unwrap_err(),
        session.signet(&name("alice@elsewhere.example"), None).await.unwrap_err(),
        session.signet(&name("alice/8-key@public.example"), None).await.unwrap_err(),
        session.signet(&name("a/b@public.example"), None).await.unwrap_err(),
        session.history(&alice, Some(&fourth), Some(&second)).await.unwrap_err(),
        session.history(&alice, Some(&unknown), None).await.unwrap_err(),
    ] {
        assert!(matches!(error, Error::NotFound), "{error:?}");
        assert_eq!(error.fault(), Fault::Answer);
    }
}

#[tokio::test]
async fn a_rotation_is_served_without_a_restart() {
    let folder = folder();
    let server = serve(folder.path(), identity().server_config().unwrap()).await;
    let mut session = session(server.addr).await;
    let bob = name("bob@public.example");
    assert!(session.signet(&bob, None).await.is_ok());
    // A folder of that name goes before the single file.
    let chain = folder.path().join("users/bob");
    fs::create_dir(&chain).unwrap();
    for (file, link) in [("2-new.signet", 1), ("10-newest.signet", 2), ("1-old.signet", 0)] {
        fs::write(chain.join(file), bytes(&format!("signets/chain_{link}.bin"))).unwrap();
    }
    let newest = signet("chain_2");
    assert_eq!(session.signet(&bob, None).await.unwrap(), *newest.full_split());
    // Half a file and a request are not served.
    let half = &newest.bytes()[..100];
    fs::write(chain.join("11-half.signet"), half).unwrap();
    fs::write(chain.join("12-request.signet"), bytes("signets/ssr_chain_1.bin")).unwrap();
    assert_eq!(session.signet(&bob, None).await.unwrap(), *newest.full_split());
}

#[tokio::test]
async fn history_never_crosses_a_restart() {
    let folder = folder();
    let alice = folder.path().join("users/alice");
    fs::write(alice.join("20-restart.signet"), bytes("signets/user_id.bin")).unwrap();
    let server = serve(folder.path(), identity().server_config().unwrap()).await;
    let mut session = session(server.addr).await;
    let alice = address("alice@public.example");
    let restart = signet("user_id");
    let old: Vec<Signet> = (0..6).map(|link| signet(&format!("chain_{link}"))).collect();
    let current = session.history(&alice, None, None).await.unwrap();
    assert_eq!(current, [restart.full_split().to_vec()]);
    let closed = session.history(&alice, Some(&crypto(&old[4])), None).await.unwrap();
    assert_eq!(closed.len(), 2);
    let across =
        session.history(&alice, Some(&crypto(&old[4])), Some(&crypto(&restart))).await.unwrap_err();
    assert!(matches!(across, Error::NotFound));
}

// ---- the certificate ------------------------------------------------------

#[tokio::test]
async fn the_record_pins_the_certificate() {
    let folder = folder();
    let server = serve(folder.path(), identity().server_config().unwrap()).await;
    let attempt = async |record: Option<(&Record, Dnssec)>, options: &Options| {
        open(target(server.addr), options, NOW, record).await.map(|(_, accepted)| accepted.how)
    };
    let record = record();
    let how = attempt(Some((&record, Dnssec::Secure)), &options()).await.unwrap();
    assert_eq!(how, How::Pin(PinMatch { tls: 0, by: By::Signature { pok: 0 } }));

    // The right key, but a signature over another certificate.
    let other = syndicate::serve::identity::Identity::make(HOST).unwrap();
    let elsewhere = serve(folder.path(), other.server_config().unwrap()).await;
    let pinned = Some((&record, Dnssec::Secure));
    let error = open(target(elsewhere.addr), &options(), NOW, pinned).await.unwrap_err();
    assert!(matches!(&error, Error::Certificate(why) if why.rule == "tls-pin-mismatch"));
    assert_eq!((error.reason(), error.fault()), ("certificate", Fault::Host));

    // Nothing pins it: then self-signed is not enough.
    let error = attempt(None, &options()).await.unwrap_err();
    assert!(matches!(&error, Error::Certificate(why) if why.rule == "tls-self-signed"));
    // An unsigned record does not vouch alone: no authority knows the certificate.
    let error = attempt(Some((&record, Dnssec::Insecure)), &options()).await.unwrap_err();
    assert!(matches!(&error, Error::Certificate(why) if why.rule == "tls-chain"));
}

/// Shows the certificate that it has at the time.
#[derive(Debug)]
struct Changing(Mutex<Arc<CertifiedKey>>);

impl ResolvesServerCert for Changing {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.lock().unwrap().clone())
    }
}

/// What a session was begun with is held against the record of now, and before
/// it is found wanting the host shows what it has now.
#[tokio::test]
async fn tls_sessions_are_resumed() {
    let folder = folder();
    let certified = |chain, key| {
        Arc::new(CertifiedKey::from_der(chain, key, &ring::default_provider()).unwrap())
    };
    let (chain, key) = dx::certificate();
    let pinned = certified(chain, key);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec![HOST.to_owned()]).unwrap();
    let certificate = certificate.self_signed(&key).unwrap().der().clone();
    let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    let stray = certified(vec![certificate.clone()], key);
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let shown = Arc::new(Changing(Mutex::new(stray.clone())));
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(shown.clone());
        let server = serve(folder.path(), Arc::new(config)).await;
        let options = options();
        for resumed in [false, true, true] {
            let connected = connect(target(server.addr), &options, NOW).await.unwrap();
            assert_eq!(connected.is_resumed(), resumed, "{version:?}");
            assert_eq!(connected.facts().der, certificate.as_ref());
            connected.open().await.unwrap().quit().await;
        }
        let other = Options { kept: Kept::default(), ..options.clone() };
        assert!(!connect(target(server.addr), &other, NOW).await.unwrap().is_resumed());

        let record = record();
        let attempt = async || {
            open(target(server.addr), &options, NOW, Some((&record, Dnssec::Secure))).await
        };
        let error = attempt().await.unwrap_err();
        assert!(matches!(&error, Error::Certificate(why) if why.rule == "tls-pin-mismatch"));
        *shown.0.lock().unwrap() = pinned.clone();
        attempt().await.unwrap().0.quit().await;
        let connected = connect(target(server.addr), &options, NOW).await.unwrap();
        assert!(connected.is_resumed() && connected.facts().der != certificate.as_ref());
    }
}

#[tokio::test]
async fn an_authority_vouches_for_name_and_time() {
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::new(vec![]).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_pem = authority.self_signed(&authority_key).unwrap().pem();
    let issuer = rcgen::Issuer::new(authority, &authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let mut leaf = rcgen::CertificateParams::new(vec![HOST.to_owned()]).unwrap();
    leaf.distinguished_name = rcgen::DistinguishedName::new();
    leaf.distinguished_name.push(rcgen::DnType::CommonName, HOST);
    leaf.not_before = rcgen::date_time_ymd(2026, 1, 1);
    leaf.not_after = rcgen::date_time_ymd(2028, 1, 1);
    let certificate = leaf.signed_by(&key, &issuer).unwrap();
    let files = tempfile::tempdir().unwrap();
    let (cert, private) = (files.path().join("cert.pem"), files.path().join("key.pem"));
    fs::write(&cert, certificate.pem()).unwrap();
    fs::write(&private, key.serialize_pem()).unwrap();
    let identity = syndicate::serve::identity::Identity::from_files(&cert, &private).unwrap();

    let folder = folder();
    let server = serve(folder.path(), identity.server_config().unwrap()).await;
    let trusting =
        Options { roots: Roots::from_pem(authority_pem.as_bytes()).unwrap(), ..options() };
    let (_, accepted) = open(target(server.addr), &trusting, NOW, None).await.unwrap();
    assert_eq!(accepted.how, How::Authority);

    let rule = async |host: &str, options: &Options, now: Timestamp| {
        let target = syndicate::dmtp::Target { host, ..target(server.addr) };
        match open(target, options, now, None).await {
            Err(Error::Certificate(why)) => why.rule,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(rule("other.example", &trusting, NOW).await, "tls-host-name");
    let expired = Timestamp::from_secs(1_900_000_000);
    assert_eq!(rule(HOST, &trusting, expired).await, "tls-chain");
    assert_eq!(rule(HOST, &options(), NOW).await, "tls-chain");
}

// ---- the address ----------------------------------------------------------

#[tokio::test]
async fn loopback_is_refused_unless_allowed() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let addr = listener.local_addr().unwrap();
    let strict = Options { filter: AddressFilter::default(), ..options() };
    let error = open(target(addr), &strict, NOW, None).await.unwrap_err();
    assert!(matches!(error, Error::Forbidden { .. }));
    assert_eq!((error.reason(), error.fault()), ("forbidden-address", Fault::Ours));
    let knocked = listener.accept().unwrap_err();
    assert_eq!(knocked.kind(), std::io::ErrorKind::WouldBlock, "nobody connected");
}

// ---- a client as narrow as libdime -----------------------------------------

/// Checks nothing, and offers PKCS #1 signatures only, like libdime.
#[derive(Debug)]
struct Narrow(Arc<CryptoProvider>);

impl ServerCertVerifier for Narrow {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        unreachable!("TLS 1.2 only")
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![
            SignatureScheme::RSA_PKCS1_SHA512,
            SignatureScheme::RSA_PKCS1_SHA384,
            SignatureScheme::RSA_PKCS1_SHA256,
        ]
    }
}

/// TLS 1.2, suite 0xC030, secp256r1 and PKCS #1; counts TLS records it receives.
struct Libdime {
    tls: ClientConnection,
    socket: std::net::TcpStream,
}

impl Libdime {
    fn connect(addr: SocketAddr) -> Libdime {
        let mut provider = ring::default_provider();
        provider.cipher_suites = vec![ring::cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384];
        provider.kx_groups = vec![ring::kx_group::SECP256R1];
        let provider = Arc::new(provider);
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS12])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Narrow(provider)))
            .with_no_client_auth();
        let host = ServerName::try_from(HOST).unwrap();
        let tls = ClientConnection::new(Arc::new(config), host).unwrap();
        let socket = std::net::TcpStream::connect(addr).unwrap();
        let mut client = Libdime { tls, socket };
        loop {
            while client.tls.wants_write() {
                client.tls.write_tls(&mut client.socket).unwrap();
            }
            if !client.tls.is_handshaking() {
                break;
            }
            client.read_record();
        }
        let suite = client.tls.negotiated_cipher_suite().unwrap().suite();
        assert_eq!(suite, rustls::CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384);
        client
    }

    /// Takes exactly one TLS record off the socket: its type and its plaintext.
    fn read_record(&mut self) -> (u8, String) {
        let mut head = [0; 5];
        self.socket.read_exact(&mut head).unwrap();
        let mut record = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
        self.socket.read_exact(&mut record).unwrap();
        let whole = [&head[..], &record[..]].concat();
        let mut rest = &whole[..];
        while !rest.is_empty() {
            self.tls.read_tls(&mut rest).unwrap();
        }
        let state = self.tls.process_new_packets().unwrap();
        let mut plain = vec![0; state.plaintext_bytes_to_read()];
        self.tls.reader().read_exact(&mut plain).unwrap();
        (head[0], String::from_utf8(plain).unwrap())
    }

    fn send(&mut self, line: &str) {
        self.tls.writer().write_all(line.as_bytes()).unwrap();
        self.tls.write_tls(&mut self.socket).unwrap();
    }

    /// The plaintext of the next TLS record.
    fn record(&mut self) -> String {
        let (kind, plain) = self.read_record();
        assert_eq!(kind, 23, "application data");
        plain
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reference_client_is_served_to_the_letter() {
    let folder = folder();
    let server = serve(folder.path(), identity().server_config().unwrap()).await;
    let addr = server.addr;
    let walk = tokio::task::spawn_blocking(move || {
        let mut client = Libdime::connect(addr);
        let banner = client.record();
        assert!(banner.starts_with("220 <dx.public.example> DMTPv1 "), "{banner}");

        client.send("SGNT <public.example>\r\n");
        let reply = client.record();
        assert!(reply.starts_with("250 OK [") && reply.ends_with("]\r\n"), "{reply}");
        assert!(reply.len() <= 4095, "the reference client's buffer");

        let (old, new) = (crypto(&signet("chain_0")), full(&signet("chain_5")));
        client.send(&format!("VRFY <alice@public.example> [{old}]\r\n"));
        assert_eq!(client.record(), format!("250 UPDATE [{new}]\r\n"));
        client.send(&format!("vrfy USER=<alice@public.example> FINGERPRINT=[{new}]\n"));
        assert_eq!(client.record(), "250 CURRENT\r\n");

        // One line a record: 4,096 bytes at once would throw the client off.
        client.send(&format!("HIST <alice@public.example> [{old}]\r\n"));
        for _ in 0..6 {
            let line = client.record();
            assert!(line.starts_with("250-[") && line.ends_with("]\r\n"), "{line}");
            assert_eq!(line.matches('\n').count(), 1);
        }
        assert_eq!(client.record(), "250 OK\r\n");

        for (line, reply) in [
            ("SGNT <nobody@public.example>\r\n", "450 SIGNET NOT FOUND.\r\n"),
            ("MODE\r\n", "250 OK DMTPv1\r\n"),
            ("NOOP\r\n", "250 OK\r\n"),
            ("RSET\n", "250 OK\r\n"),
            ("DATA [x]\r\n", "502 COMMAND DISABLED\r\n"),
            ("STARTTLS <dx.public.example> MODE=DMTPv1\r\n", "503 TLS IS ALREADY ACTIVE\r\n"),
            ("XYZZ\r\n", "500 INVALID COMMAND\r\n"),
            ("SGNT <not an address>\r\n", "501 SYNTAX ERROR (NAME)\r\n"),
            ("SGNT\r\n", "501 SYNTAX ERROR (ARGUMENT)\r\n"),
            ("\r\n", "500 INVALID COMMAND\r\n"),
        ] {
            client.send(line);
            assert_eq!(client.record(), reply, "{line}");
        }
        client.send("EHLO <client.example>\r\n");
        let mut lines = vec![client.record()];
        while lines.last().unwrap().starts_with("250-") {
            lines.push(client.record());
        }
        assert_eq!(lines.last().unwrap(), "250 OK\r\n");

        // Two commands in one packet are two replies.
        client.send("NOOP\r\nQUIT\r\n");
        assert_eq!(client.record(), "250 OK\r\n");
        assert_eq!(client.record(), "221 BYE\r\n");
    });
    walk.await.unwrap();
}

// ---- the mirror's role -----------------------------------------------------

/// Everything is held, and the page is this.
struct Held {
    url: String,
}

#[async_trait]
impl Signets for Held {
    async fn org(&self, _: &Domain, _: Option<&Fingerprint>) -> Answer<Signet> {
        Answer::Held { url: self.url.clone() }
    }

    async fn user(&self, _: &Address, _: Option<&Fingerprint>) -> Answer<Signet> {
        Answer::Held { url: self.url.clone() }
    }

    async fn history(
        &self,
        _: &Address,
        _: Option<&Fingerprint>,
        _: Option<&Fingerprint>,
    ) -> Answer<Vec<Signet>> {
        Answer::Unavailable
    }
}

#[tokio::test]
async fn a_held_name_is_never_current() {
    let tls = identity().server_config().unwrap();
    let held = Held { url: "https://syn.example/n/2".into() };
    let server = dx::start(Arc::new(held), tls, dmtp::Options::new(HOST)).await;
    let mut session = session(server.addr).await;
    let (alice, print) = (name("alice@public.example"), Fingerprint::of(b"forged"));
    for error in [
        session.signet(&alice, None).await.unwrap_err(),
        session.signet(&alice, Some(&print)).await.unwrap_err(),
        session.verify(&alice, &print).await.unwrap_err(),
    ] {
        let Error::Held { text } = &error else { panic!("{error:?}") };
        assert_eq!(text, "HELD, SEE https://syn.example/n/2");
        assert_eq!((error.reason(), error.fault()), ("held", Fault::Answer));
    }
    let error = session.history(&address("alice@public.example"), None, None).await.unwrap_err();
    assert!(matches!(error, Error::Refused { code: 451, .. }), "{error:?}");
}

#[tokio::test]
async fn unknown_names_are_counted_per_client() {
    let folder = folder();
    let clock = Clock::manual(NOW);
    let options = dmtp::Options {
        budget: Some(Arc::new(Budget::new(2, clock.clone()))),
        ..dmtp::Options::new(HOST)
    };
    let server = start_with(folder.path(), options).await;
    let mut session = session(server.addr).await;
    let (known, unknown) = (name("alice@public.example"), name("nobody@public.example"));
    for _ in 0..2 {
        assert!(session.signet(&known, None).await.is_ok());
        assert!(matches!(session.signet(&unknown, None).await, Err(Error::NotFound)));
    }
    // Known and unknown are refused alike, or the refusal would tell them apart.
    for name in [&known, &unknown] {
        let error = session.signet(name, None).await.unwrap_err();
        assert!(matches!(error, Error::Refused { code: 431, .. }), "{error:?}");
    }
    clock.advance(3_600_000);
    assert!(session.signet(&known, None).await.is_ok());
}

// ---- the server's limits ----------------------------------------------------

async fn start_with(folder: &Path, options: dmtp::Options) -> dx::Running {
    let domain: Domain = "public.example".parse().unwrap();
    let folder = Arc::new(syndicate::serve::dx::Folder::new(domain, folder));
    dx::start(folder, identity().server_config().unwrap(), options).await
}

/// TLS without a client behind it.
async fn raw(addr: SocketAddr) -> tokio_rustls::client::TlsStream<TcpStream> {
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Narrow(provider)))
        .with_no_client_auth();
    let socket = TcpStream::connect(addr).await.unwrap();
    let host = ServerName::try_from(HOST).unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(host, socket).await.unwrap()
}

/// Sends, and reads to the end of the session.
async fn converse(addr: SocketAddr, text: &[u8]) -> String {
    let mut stream = raw(addr).await;
    stream.write_all(text).await.unwrap();
    let mut heard = Vec::new();
    let _ = stream.read_to_end(&mut heard).await;
    String::from_utf8(heard).unwrap()
}

#[tokio::test]
async fn a_session_is_bounded() {
    let folder = folder();
    let options = dmtp::Options { commands: 3, ..dmtp::Options::new(HOST) };
    let server = start_with(folder.path(), options).await;
    let heard = converse(server.addr, &vec![b'x'; 5000]).await;
    assert!(heard.ends_with("500 LINE TOO LONG\r\n"), "{heard}");
    let heard = converse(server.addr, b"NOOP\r\nNOOP\r\nNOOP\r\nNOOP\r\n").await;
    assert!(heard.ends_with("250 OK\r\n421 TOO MANY COMMANDS, BYE\r\n"), "{heard}");
    assert_eq!(heard.matches("250 OK").count(), 3);
    let options = dmtp::Options { idle: Duration::from_secs(2), ..dmtp::Options::new(HOST) };
    let server = start_with(folder.path(), options).await;
    let heard = converse(server.addr, b"NOO").await;
    assert!(heard.ends_with("421 TOO SLOW, BYE\r\n"), "{heard}");
    // A byte at a time does not stretch the deadline.
    let mut stream = raw(server.addr).await;
    let (mut read, mut write) = tokio::io::split(&mut stream);
    let drip = async {
        while write.write_all(b"x").await.is_ok() && write.flush().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let mut heard = Vec::new();
    tokio::select! {
        () = drip => {}
        _ = read.read_to_end(&mut heard) => {}
    }
    assert!(String::from_utf8(heard).unwrap().ends_with("421 TOO SLOW, BYE\r\n"));
}

#[tokio::test]
async fn who_asks_and_never_listens_is_cut_off() {
    // 50 MB of answers: more than socket buffers hold.
    let loud = Held { url: "x".repeat(1 << 20) };
    let options = dmtp::Options {
        write: Duration::from_millis(300),
        connections_per_client: 1,
        ..dmtp::Options::new(HOST)
    };
    let server = dx::start(Arc::new(loud), identity().server_config().unwrap(), options).await;
    let mut stream = raw(server.addr).await;
    stream.write_all(&b"SGNT <public.example>\r\n".repeat(50)).await.unwrap();
    // Its seat is free again when it has been cut off.
    until_seated(server.addr).await;
    let mut heard = Vec::new();
    let _ = stream.read_to_end(&mut heard).await;
    let answered = heard.windows(2).filter(|pair| pair == b"\r\n").count();
    assert!(answered < 50, "{answered} answers");
}

#[tokio::test]
async fn connections_are_bounded_per_client() {
    let folder = folder();
    let options = dmtp::Options { connections_per_client: 1, ..dmtp::Options::new(HOST) };
    let server = start_with(folder.path(), options).await;
    let first = session(server.addr).await;
    let pinned = record();
    let second =
        open(target(server.addr), &dx::options(), NOW, Some((&pinned, Dnssec::Secure))).await;
    assert!(matches!(second, Err(Error::Tls(_))), "{second:?}");
    first.quit().await;
    until_seated(server.addr).await;
}

/// Opens a session as soon as the server has a seat.
async fn until_seated(addr: SocketAddr) {
    let pinned = record();
    loop {
        match open(target(addr), &dx::options(), NOW, Some((&pinned, Dnssec::Secure))).await {
            Ok(_) => return,
            Err(Error::Tls(_)) => tokio::time::sleep(Duration::from_millis(10)).await,
            Err(other) => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_handshake_that_fails_harms_nobody() {
    let folder = folder();
    let server = serve(folder.path(), identity().server_config().unwrap()).await;
    for garbage in [&b""[..], b"GET / HTTP/1.1\r\n\r\n", &[0x16, 3, 1, 0xff, 0xff]] {
        let mut socket = TcpStream::connect(server.addr).await.unwrap();
        socket.write_all(garbage).await.unwrap();
    }
    let mut session = session(server.addr).await;
    assert!(session.signet(&name("public.example"), None).await.is_ok());
}

#[tokio::test]
async fn shutdown_says_goodbye_and_ends() {
    let folder = folder();
    let server = serve(folder.path(), identity().server_config().unwrap()).await;
    let mut stream = raw(server.addr).await;
    let mut banner = [0; 4];
    stream.read_exact(&mut banner).await.unwrap();
    server.shutdown.cancel();
    let mut rest = String::new();
    let _ = stream.read_to_string(&mut rest).await;
    assert!(rest.ends_with("421 SHUTTING DOWN, BYE\r\n"), "{rest}");
    server.task.await.unwrap().unwrap();
    assert!(TcpStream::connect(server.addr).await.is_err(), "nobody listens any more");
}
