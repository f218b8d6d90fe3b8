//! The certificate and key of a DMTP server, from PEM files or made at the first
//! start.
//!
//! The reference client speaks nothing but ECDHE-RSA under TLS 1.2, so a made
//! key is RSA of 2,048 bits, and 0xC030 is the suite this side likes best
//! (reference §6.1). A certificate that a record pins may be self-signed.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rsa::pkcs8::EncodePrivateKey;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// Bits of a made RSA key.
const KEY_BITS: usize = 2048;

/// A certificate chain, end entity first, and its private key.
#[derive(Debug)]
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

/// Why there is no identity to serve with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("reading {path}")]
    Read { path: PathBuf, source: rustls::pki_types::pem::Error },
    #[error("no certificate in {path}")]
    NoCertificate { path: PathBuf },
    #[error("{present} is there, {absent} is not: both or neither")]
    Half { present: PathBuf, absent: PathBuf },
    #[error("writing {path}")]
    Write { path: PathBuf, source: io::Error },
    #[error("making a key: {0}")]
    Key(String),
    #[error("making a certificate for that host name")]
    Certificate(#[source] rcgen::Error),
    #[error("the certificate and the key cannot be used for TLS")]
    Tls(#[source] rustls::Error),
}

impl Identity {
    /// Reads a certificate chain and its key from PEM files.
    pub fn from_files(certificate: &Path, key: &Path) -> Result<Identity, Error> {
        let read = |path: &Path, source| Error::Read { path: path.to_owned(), source };
        let chain = CertificateDer::pem_file_iter(certificate)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|source| read(certificate, source))?;
        if chain.is_empty() {
            return Err(Error::NoCertificate { path: certificate.to_owned() });
        }
        let key = PrivateKeyDer::from_pem_file(key).map_err(|source| read(key, source))?;
        Ok(Identity { chain, key })
    }

    /// Reads both files, or makes and writes them if neither is there. The key
    /// file is readable by its owner only, and is written first: without it
    /// the certificate is of no use.
    ///
    /// Takes seconds when it makes a key: not for an async thread.
    pub fn load_or_make(certificate: &Path, key: &Path, host: &str) -> Result<Identity, Error> {
        match (certificate.exists(), key.exists()) {
            (true, true) => Identity::from_files(certificate, key),
            (true, false) => Err(Error::Half { present: certificate.into(), absent: key.into() }),
            (false, true) => Err(Error::Half { present: key.into(), absent: certificate.into() }),
            (false, false) => {
                let made = Made::new(host)?;
                write_new(key, &made.key_pem, 0o600)?;
                write_new(certificate, &made.certificate_pem, 0o644)?;
                Ok(made.identity)
            }
        }
    }

    /// A new RSA key with a self-signed certificate for that host, kept nowhere.
    pub fn make(host: &str) -> Result<Identity, Error> {
        Made::new(host).map(|made| made.identity)
    }

    /// The end-entity certificate in DER: what a record's `tls` field is about.
    pub fn der(&self) -> &[u8] {
        self.chain.first().map_or(&[], |certificate| certificate.as_ref())
    }

    /// TLS 1.2 with 0xC030 first, and TLS 1.3. No session is ever resumed, so
    /// that nothing is kept per client.
    pub fn server_config(&self) -> Result<Arc<ServerConfig>, Error> {
        let mut provider = ring::default_provider();
        provider.cipher_suites = vec![
            ring::cipher_suite::TLS13_AES_256_GCM_SHA384,
            ring::cipher_suite::TLS13_AES_128_GCM_SHA256,
            ring::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            ring::cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
            ring::cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
            ring::cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
            ring::cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
            ring::cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        ];
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .and_then(|versions| {
                versions
                    .with_no_client_auth()
                    .with_single_cert(self.chain.clone(), self.key.clone_key())
            })
            .map_err(Error::Tls)?;
        config.ignore_client_order = true;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }
}

/// A fresh identity and its two files.
struct Made {
    identity: Identity,
    key_pem: String,
    certificate_pem: String,
}

impl Made {
    fn new(host: &str) -> Result<Made, Error> {
        let key = rsa::PrivateKey::new(&mut getrandom::SysRng, KEY_BITS)
            .map_err(|error| Error::Key(error.to_string()))?;
        let pkcs8 = key.to_pkcs8_der().map_err(|error| Error::Key(error.to_string()))?;
        let der = PrivatePkcs8KeyDer::from(pkcs8.as_bytes().to_vec());
        let pair = rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&der, &rcgen::PKCS_RSA_SHA256)
            .map_err(Error::Certificate)?;
        let mut params =
            rcgen::CertificateParams::new(vec![host.to_owned()]).map_err(Error::Certificate)?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, host);
        let certificate = params.self_signed(&pair).map_err(Error::Certificate)?;
        Ok(Made {
            key_pem: pair.serialize_pem(),
            certificate_pem: certificate.pem(),
            identity: Identity {
                chain: vec![certificate.der().clone()],
                key: PrivateKeyDer::Pkcs8(der),
            },
        })
    }
}

fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), Error> {
    let wrong = |source| Error::Write { path: path.to_owned(), source };
    let mut file =
        fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(wrong)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn makes_once_and_reads_again() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        let made = Identity::load_or_make(&certificate, &key, "dx.example.com").unwrap();
        assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        let read = Identity::load_or_make(&certificate, &key, "dx.example.com").unwrap();
        assert_eq!(made.der(), read.der());
        assert_eq!(made.key, read.key);
        read.server_config().unwrap();

        fs::remove_file(&certificate).unwrap();
        let half = Identity::load_or_make(&certificate, &key, "dx.example.com");
        assert!(matches!(half, Err(Error::Half { .. })));
    }
}
