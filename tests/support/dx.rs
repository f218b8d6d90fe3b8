//! A DX host on loopback with signets, record and certificate of the vectors.
#![allow(dead_code)] // each test binary uses another part

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use syndicate::dime::record::Record;
use syndicate::dime::signet::Signet;
use syndicate::dime::{Domain, Timestamp};
use syndicate::dmtp::{AddressFilter, Entrance, Options, Roots, Target};
use syndicate::serve::dmtp::{self, Server, Signets};
use syndicate::serve::dx::Folder;
use syndicate::serve::identity::Identity;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub const HOST: &str = "dx.public.example";
/// A day on which the certificate of the vectors is valid.
pub const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

pub fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/vectors")
}

pub fn bytes(name: &str) -> Vec<u8> {
    fs::read(vectors().join(name)).unwrap()
}

pub fn signet(name: &str) -> Signet {
    Signet::decode(&bytes(&format!("signets/{name}.bin"))).unwrap()
}

/// The reference's record, with its signature over its certificate.
pub fn record() -> Record {
    let records: serde_json::Value =
        serde_json::from_slice(&bytes("records/records.json")).unwrap();
    let rows = records["records"].as_array().unwrap();
    let typical = rows.iter().find(|row| row["what"] == "typical").unwrap();
    Record::parse(typical["record"].as_str().unwrap().as_bytes()).unwrap()
}

pub fn identity() -> Identity {
    let folder = vectors().join("records");
    Identity::from_files(&folder.join("dx_cert.pem"), &folder.join("dx_key.pem")).unwrap()
}

pub fn certificate() -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let folder = vectors().join("records");
    let chain = vec![CertificateDer::from_pem_file(folder.join("dx_cert.pem")).unwrap()];
    (chain, PrivateKeyDer::from_pem_file(folder.join("dx_key.pem")).unwrap())
}

/// The certificate of the vectors in a server that speaks these versions only.
pub fn only(versions: &[&'static rustls::SupportedProtocolVersion]) -> Arc<ServerConfig> {
    let (chain, key) = certificate();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    Arc::new(config)
}

/// A folder as `syndicate dx` wants it: an org, alice with a chain of six, a
/// bob in armour.
pub fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let alice = folder.path().join("users/alice");
    fs::create_dir_all(&alice).unwrap();
    fs::write(folder.path().join("org.signet"), bytes("signets/org_rich_id.bin")).unwrap();
    for link in 0..6 {
        let bytes = bytes(&format!("signets/chain_{link}.bin"));
        fs::write(alice.join(format!("{}-key.signet", link + 8)), bytes).unwrap();
    }
    fs::write(folder.path().join("users/bob.signet"), bytes("pem/user_rich_id.pem")).unwrap();
    folder
}

pub struct Running {
    pub addr: SocketAddr,
    pub shutdown: CancellationToken,
    pub task: JoinHandle<Result<(), dmtp::Error>>,
}

pub async fn start(
    signets: Arc<dyn Signets>,
    tls: Arc<ServerConfig>,
    options: dmtp::Options,
) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(Server::new(signets, tls, options).run(listener, shutdown.clone()));
    Running { addr, shutdown, task }
}

/// A DX host that serves [`folder`].
pub async fn serve(folder: &Path, tls: Arc<ServerConfig>) -> Running {
    let domain: Domain = "public.example".parse().unwrap();
    start(Arc::new(Folder::new(domain, folder)), tls, dmtp::Options::new(HOST)).await
}

pub fn target(addr: SocketAddr) -> Target<'static> {
    Target { host: HOST, addr, entrance: Entrance::Tls }
}

/// Loopback, no authorities, and short times: no test waits for the long ones.
pub fn options() -> Options {
    Options {
        filter: AddressFilter::with_loopback(),
        roots: Roots::none(),
        reply: Duration::from_secs(10),
        ..Options::default()
    }
}
