//! The handshake with a DX host, and the facts about its certificate.
//!
//! TLS 1.2 and 1.3 by rustls with ring. The verifier lets every certificate
//! pass and notes what it is; the signature that proves possession of its key
//! is always checked. Whether the certificate will do is decided afterwards by
//! `dime::certificate`, since the management record may pin a self-signed one.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, PeerMisbehaved, RootCertStore,
    SignatureScheme,
};

use super::x509;
use crate::dime::Timestamp;
use crate::dime::certificate::{ChainVerdict, Facts};

/// The certificate authorities to believe. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Roots(Arc<RootCertStore>);

/// A file of certificates that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    #[error("reading certificates: {0}")]
    Pem(rustls::pki_types::pem::Error),
    #[error("a certificate cannot be a root")]
    Unusable(#[source] rustls::Error),
    #[error("no certificate in it")]
    Empty,
}

impl Roots {
    /// The public authorities that Mozilla's programme includes.
    pub fn public() -> Roots {
        Roots(Arc::new(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() }))
    }

    /// None: then only a pin in a record makes a certificate acceptable.
    pub fn none() -> Roots {
        Roots(Arc::new(RootCertStore::empty()))
    }

    /// Exactly the certificates in a PEM file.
    pub fn from_pem(pem: &[u8]) -> Result<Roots, RootsError> {
        let mut store = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            store.add(certificate.map_err(RootsError::Pem)?).map_err(RootsError::Unusable)?;
        }
        if store.is_empty() { Err(RootsError::Empty) } else { Ok(Roots(Arc::new(store))) }
    }
}

/// Notes what the certificate is, and lets it pass.
#[derive(Debug)]
pub(super) struct Witness {
    provider: Arc<CryptoProvider>,
    roots: Roots,
    now: UnixTime,
    facts: Mutex<Option<Facts>>,
}

impl Witness {
    pub(super) fn new(roots: Roots, now: Timestamp) -> Witness {
        Witness {
            provider: Arc::new(rustls::crypto::ring::default_provider()),
            roots,
            now: UnixTime::since_unix_epoch(Duration::from_secs(now.secs())),
            facts: Mutex::new(None),
        }
    }

    /// The facts, once the handshake is over.
    pub(super) fn facts(&self) -> Option<Facts> {
        self.facts.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    /// A configuration for one connection. Every session is new: a resumed one
    /// shows no certificate.
    pub(super) fn config(self: &Arc<Self>, sni: bool) -> Result<ClientConfig, rustls::Error> {
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(self) as Arc<dyn ServerCertVerifier>)
            .with_no_client_auth();
        config.enable_sni = sni;
        config.resumption = Resumption::disabled();
        Ok(config)
    }

    fn chain(&self, end_entity: &CertificateDer<'_>, chain: &[CertificateDer<'_>]) -> ChainVerdict {
        let algorithms = self.provider.signature_verification_algorithms.all;
        let verified = ParsedCertificate::try_from(end_entity).and_then(|parsed| {
            let roots = &self.roots.0;
            verify_server_cert_signed_by_trust_anchor(&parsed, roots, chain, self.now, algorithms)
        });
        match verified {
            Ok(()) => ChainVerdict::Trusted,
            Err(error) => ChainVerdict::Untrusted(error.to_string()),
        }
    }
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let parts = x509::parts(end_entity).ok_or(CertificateError::BadEncoding)?;
        let name = ParsedCertificate::try_from(end_entity)
            .and_then(|parsed| verify_server_name(&parsed, server_name));
        let facts = Facts {
            der: end_entity.to_vec(),
            spki: parts.spki.to_vec(),
            chain: self.chain(end_entity, intermediates),
            name: name.is_ok(),
            self_signed: parts.issuer == parts.subject,
        };
        *self.facts.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(facts);
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        match x509::parts(certificate) {
            // Older than version 3 it is no certificate to webpki, yet a record
            // may pin it: ring checks the signature under the key itself.
            Some(parts) if parts.version < 3 => {
                let (_, candidates) = algorithms
                    .mapping
                    .iter()
                    .find(|(scheme, _)| *scheme == signed.scheme)
                    .ok_or(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme)?;
                let verifies = candidates.iter().any(|algorithm| {
                    algorithm.public_key_alg_id().as_ref() == parts.key_algorithm
                        && algorithm
                            .verify_signature(parts.key_bits, message, signed.signature())
                            .is_ok()
                });
                match verifies {
                    true => Ok(HandshakeSignatureValid::assertion()),
                    false => Err(CertificateError::BadSignature.into()),
                }
            }
            _ => verify_tls12_signature(message, certificate, signed, algorithms),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        match x509::parts(certificate) {
            Some(parts) if parts.version < 3 => {
                let spki = SubjectPublicKeyInfoDer::from(parts.spki);
                rustls::crypto::verify_tls13_signature_with_raw_key(
                    message, &spki, signed, algorithms,
                )
            }
            _ => verify_tls13_signature(message, certificate, signed, algorithms),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
