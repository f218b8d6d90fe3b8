//! A DX host on a loopback address of its own, serving signets from memory,
//! and the private authority that certifies some hosts.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use async_trait::async_trait;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::dime::signet::{Fingerprint, Signet};
use crate::dime::{Address, Domain};
use crate::serve::dmtp::{Answer, Options, Server, Signets};
use crate::serve::dx::{pick, stretch};
use crate::serve::identity::Identity;

/// Connections at once of one client: everything comes from one address here.
const CONNECTIONS: usize = 4096;
/// Commands in one session.
const COMMANDS: usize = 1_000_000;

/// What a host's certificate is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certificate {
    /// ECDSA P-256, signed by itself: good only with a pin in a secure record.
    SelfSigned,
    /// The same, signed by the private authority.
    Certified,
    /// RSA, signed by itself: what libdime can talk to. Takes seconds to make.
    Rsa,
}

/// A certificate with its key.
#[derive(Clone)]
pub struct HostIdentity {
    /// DER: what a record's `tls` field is about.
    pub der: Vec<u8>,
    pub tls: Arc<ServerConfig>,
}

/// The private certificate authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    pub fn new() -> Result<Authority, Error> {
        let key = KeyPair::generate().map_err(certificate)?;
        let mut params = CertificateParams::new(vec![]).map_err(certificate)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "private DIME authority");
        let pem = params.self_signed(&key).map_err(certificate)?.pem();
        Ok(Authority { issuer: Issuer::new(params, key), pem })
    }

    /// Its own certificate, for those who trust it.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A fresh certificate for `host`. [`Certificate::Rsa`] blocks for seconds.
    pub fn identity(&self, host: &str, kind: Certificate) -> Result<HostIdentity, Error> {
        if kind == Certificate::Rsa {
            let identity = Identity::make(host).map_err(|error| Error(error.to_string()))?;
            let tls = identity.server_config().map_err(|error| Error(error.to_string()))?;
            return Ok(HostIdentity { der: identity.der().to_vec(), tls });
        }
        let key = KeyPair::generate().map_err(certificate)?;
        let mut params = CertificateParams::new(vec![host.to_owned()]).map_err(certificate)?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, host);
        let made = match kind {
            Certificate::Certified => params.signed_by(&key, &self.issuer),
            _ => params.self_signed(&key),
        }
        .map_err(certificate)?;
        let secret = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .and_then(|versions| {
                versions.with_no_client_auth().with_single_cert(vec![made.der().clone()], secret)
            })
            .map_err(|error| Error(error.to_string()))?;
        Ok(HostIdentity { der: made.der().to_vec(), tls: Arc::new(tls) })
    }
}

/// Making a certificate failed.
#[derive(Debug, thiserror::Error)]
#[error("making a certificate: {0}")]
pub struct Error(String);

fn certificate(error: rcgen::Error) -> Error {
    Error(error.to_string())
}

/// The signets that a host serves, of any number of domains. Cheap to clone;
/// clones share their contents.
#[derive(Clone, Debug, Default)]
pub struct Shelf(Arc<RwLock<Signed>>);

#[derive(Clone, Debug, Default)]
struct Signed {
    orgs: HashMap<Domain, Vec<Signet>>,
    users: HashMap<Address, Vec<Signet>>,
}

impl Shelf {
    /// Replaces the org signets of a domain, oldest first.
    pub fn put_org(&self, domain: &Domain, signets: &[Signet]) {
        self.write().orgs.insert(domain.clone(), signets.to_vec());
    }

    /// Replaces the signets of a mailbox, oldest first; none removes it.
    pub fn put_user(&self, address: &Address, signets: &[Signet]) {
        if signets.is_empty() {
            self.write().users.remove(address);
        } else {
            self.write().users.insert(address.clone(), signets.to_vec());
        }
    }

    /// Another shelf with the same contents, for now.
    pub fn copy(&self) -> Shelf {
        Shelf(Arc::new(RwLock::new(self.read().clone())))
    }

    fn read(&self) -> RwLockReadGuard<'_, Signed> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Signed> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Signets for Shelf {
    async fn org(&self, domain: &Domain, at: Option<&Fingerprint>) -> Answer<Signet> {
        pick(Ok(self.read().orgs.get(domain).cloned().unwrap_or_default()), at)
    }

    async fn user(&self, address: &Address, at: Option<&Fingerprint>) -> Answer<Signet> {
        pick(Ok(self.read().users.get(address).cloned().unwrap_or_default()), at)
    }

    async fn history(
        &self,
        address: &Address,
        start: Option<&Fingerprint>,
        stop: Option<&Fingerprint>,
    ) -> Answer<Vec<Signet>> {
        let shelf = self.read();
        let signets = shelf.users.get(address).map_or(&[][..], Vec::as_slice);
        stretch(signets, start, stop)
            .map_or(Answer::NotFound, |chain| Answer::Found(chain.to_vec()))
    }
}

/// A DX host. It stops when dropped.
pub struct DxHost {
    name: String,
    address: SocketAddr,
    identity: HostIdentity,
    shelf: Shelf,
    running: JoinSet<()>,
}

impl DxHost {
    /// Serves the shelf on a bound listener.
    pub fn start(
        name: &str,
        listener: TcpListener,
        identity: HostIdentity,
        shelf: Shelf,
    ) -> std::io::Result<DxHost> {
        let address = listener.local_addr()?;
        let mut host =
            DxHost { name: name.to_owned(), address, identity, shelf, running: JoinSet::new() };
        host.serve(listener);
        Ok(host)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its certificate and key, for another host of that name.
    pub fn identity(&self) -> HostIdentity {
        self.identity.clone()
    }

    pub fn certificate_der(&self) -> &[u8] {
        &self.identity.der
    }

    pub fn shelf(&self) -> &Shelf {
        &self.shelf
    }

    /// Refuses connections from now on, and ends those that are open.
    pub async fn stop(&mut self) {
        self.running.shutdown().await;
    }

    /// Serves again, if it was stopped.
    pub async fn resume(&mut self) -> std::io::Result<()> {
        if self.running.is_empty() {
            let listener = TcpListener::bind(self.address).await?;
            self.serve(listener);
        }
        Ok(())
    }

    /// Serves on this listener too, in dual mode: in the clear until STARTTLS.
    pub fn serve_dual(&mut self, listener: TcpListener) {
        let (name, server) = (self.name.clone(), self.server());
        self.running.spawn(async move {
            if let Err(error) = server.run_dual(listener, CancellationToken::new()).await {
                tracing::warn!(host = name, %error, "a DX host of the private internet ended");
            }
        });
    }

    fn server(&self) -> Server {
        let mut options = Options::new(&self.name);
        options.connections = CONNECTIONS;
        options.connections_per_client = CONNECTIONS;
        options.commands = COMMANDS;
        let shelf: Arc<dyn Signets> = Arc::new(self.shelf.clone());
        Server::new(shelf, self.identity.tls.clone(), options)
    }

    fn serve(&mut self, listener: TcpListener) {
        let (name, server) = (self.name.clone(), self.server());
        self.running.spawn(async move {
            if let Err(error) = server.run(listener, CancellationToken::new()).await {
                tracing::warn!(host = name, %error, "a DX host of the private internet ended");
            }
        });
    }
}
