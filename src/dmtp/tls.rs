//! The handshake with a DX host, and the facts about its certificate.
//!
//! TLS 1.2 and 1.3 by rustls with ring. The verifier lets every certificate
//! pass; the signature that proves possession of its key is always checked.
//! What the certificate is, is noted afterwards, of a resumed handshake as of a
//! full one. Whether it will do is decided by `dime::certificate`, since the
//! management record may pin a self-signed one.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{
    ResolvesClientCert, Resumption, verify_server_cert_signed_by_trust_anchor, verify_server_name,
};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, PeerMisbehaved, RootCertStore,
    SignatureScheme,
};

use super::kept::Resumable;
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

    /// For TLS of any kind.
    pub fn store(&self) -> Arc<RootCertStore> {
        Arc::clone(&self.0)
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

/// Lets every certificate pass that is one; the key must still sign.
#[derive(Debug)]
pub(super) struct Witness {
    provider: Arc<CryptoProvider>,
}

impl Default for Witness {
    fn default() -> Witness {
        Witness { provider: Arc::new(rustls::crypto::ring::default_provider()) }
    }
}

impl Witness {
    /// A configuration for one connection, which may resume what is kept of its
    /// host.
    pub(super) fn config(
        self: &Arc<Self>,
        sni: bool,
        sessions: Resumable,
    ) -> Result<ClientConfig, rustls::Error> {
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(self) as Arc<dyn ServerCertVerifier>)
            // Not `with_no_client_auth`: that is another object each time, and a
            // session is resumed only under the objects that it began with.
            .with_client_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesClientCert>);
        config.enable_sni = sni;
        config.resumption = Resumption::store(Arc::new(sessions));
        Ok(config)
    }

    /// What the certificates of a handshake are, or of the one it resumed.
    /// `None` if the first one is none.
    pub(super) fn facts(
        &self,
        certificates: &[CertificateDer<'_>],
        host: &ServerName<'_>,
        roots: &Roots,
        now: Timestamp,
    ) -> Option<Facts> {
        let (end_entity, chain) = certificates.split_first()?;
        let parts = x509::parts(end_entity)?;
        let name = ParsedCertificate::try_from(end_entity)
            .and_then(|parsed| verify_server_name(&parsed, host));
        Some(Facts {
            der: end_entity.to_vec(),
            spki: parts.spki.to_vec(),
            chain: self.chain(end_entity, chain, roots, now),
            name: name.is_ok(),
            self_signed: parts.issuer == parts.subject,
        })
    }

    fn chain(
        &self,
        end_entity: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        roots: &Roots,
        now: Timestamp,
    ) -> ChainVerdict {
        let algorithms = self.provider.signature_verification_algorithms.all;
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now.secs()));
        let verified = ParsedCertificate::try_from(end_entity).and_then(|parsed| {
            verify_server_cert_signed_by_trust_anchor(&parsed, &roots.0, chain, now, algorithms)
        });
        match verified {
            Ok(()) => ChainVerdict::Trusted,
            Err(error) => ChainVerdict::Untrusted(error.to_string()),
        }
    }
}

/// It has no certificate of its own.
impl ResolvesClientCert for Witness {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        x509::parts(end_entity).ok_or(CertificateError::BadEncoding)?;
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

#[cfg(test)]
mod tests {
    use std::io;
    use std::net::SocketAddr;

    use rustls::crypto::ring;
    use rustls::pki_types::PrivateKeyDer;
    use rustls::server::{ClientHello, ResolvesServerCert};
    use rustls::sign::CertifiedKey;
    use rustls::{ClientConnection, ServerConfig, ServerConnection, SupportedProtocolVersion};

    use super::super::client::{Entrance, Target};
    use super::super::kept::{Kept, Place};
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    #[derive(Debug)]
    struct Shows(Arc<CertifiedKey>);

    impl ResolvesServerCert for Shows {
        fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
            Some(Arc::clone(&self.0))
        }
    }

    /// A handshake in memory: the facts, or why there are none.
    fn handshake(
        certificate: &[u8],
        key: &rcgen::KeyPair,
        version: &'static SupportedProtocolVersion,
    ) -> Result<Facts, rustls::Error> {
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let key = ring::sign::any_supported_type(&key).unwrap();
        let shown = CertifiedKey::new(vec![certificate.to_vec().into()], key);
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Shows(Arc::new(shown))));
        let mut server = ServerConnection::new(Arc::new(config)).unwrap();
        let target = Target {
            host: "dx.example.com",
            addr: SocketAddr::from(([192, 0, 2, 1], 26)),
            entrance: Entrance::Tls,
        };
        let kept = Kept::default();
        let sessions = Resumable::new(&kept, &Place::of(&target), true);
        let config = kept.witness().config(true, sessions).unwrap();
        let host = ServerName::try_from("dx.example.com").unwrap();
        let mut client = ClientConnection::new(Arc::new(config), host.clone()).unwrap();
        while client.is_handshaking() {
            let mut wire = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut wire).unwrap();
            }
            server.read_tls(&mut io::Cursor::new(wire)).unwrap();
            server.process_new_packets().unwrap();
            let mut wire = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut wire).unwrap();
            }
            client.read_tls(&mut io::Cursor::new(wire)).unwrap();
            client.process_new_packets()?;
        }
        let shown = client.peer_certificates().unwrap();
        Ok(kept.witness().facts(shown, &host, &Roots::none(), NOW).unwrap())
    }

    fn made(host: &str) -> (Vec<u8>, rcgen::KeyPair) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![host.to_owned()]).unwrap();
        (params.self_signed(&key).unwrap().der().to_vec(), key)
    }

    /// DER with a length of one or two bytes.
    fn value(tag: u8, contents: &[u8]) -> Vec<u8> {
        let length = u16::try_from(contents.len()).unwrap().to_be_bytes();
        let head = match contents.len() {
            0..=0x7f => vec![tag, length[1]],
            _ => vec![tag, 0x82, length[0], length[1]],
        };
        [head, contents.to_vec()].concat()
    }

    /// A version 1 certificate: no version, no extensions. Its own signature
    /// is not looked at, since only the record can vouch for it.
    fn version_1(key: &rcgen::KeyPair) -> Vec<u8> {
        let (modern, _) = made("dx.example.com");
        let name = x509::parts(&modern).unwrap().issuer;
        // ecdsa-with-SHA256.
        let algorithm =
            value(0x30, &value(0x06, &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02]));
        let validity = [value(0x17, b"200101000000Z"), value(0x17, b"400101000000Z")].concat();
        let tbs = [
            value(0x02, &[1]),
            algorithm.clone(),
            name.to_vec(),
            value(0x30, &validity),
            name.to_vec(),
            rcgen::PublicKeyData::subject_public_key_info(key),
        ];
        let signature = value(0x03, &[0, 1, 2, 3]);
        value(0x30, &[value(0x30, &tbs.concat()), algorithm, signature].concat())
    }

    #[test]
    fn facts_are_noted_and_not_judged() {
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let (der, key) = made("dx.example.com");
            let facts = handshake(&der, &key, version).unwrap();
            assert!(facts.name && facts.self_signed);
            assert!(matches!(facts.chain, ChainVerdict::Untrusted(_)));
            assert_eq!(facts.der, der);
            assert_eq!(facts.spki, rcgen::PublicKeyData::subject_public_key_info(&key));
            let (der, key) = made("other.example.com");
            assert!(!handshake(&der, &key, version).unwrap().name);
        }
    }

    #[test]
    fn the_key_must_sign_whatever_the_certificate_s_version() {
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let (modern, key) = made("dx.example.com");
            let old = version_1(&key);
            assert_eq!(x509::parts(&old).unwrap().version, 1);
            let facts = handshake(&old, &key, version).unwrap();
            assert!(facts.self_signed && !facts.name);
            assert!(matches!(facts.chain, ChainVerdict::Untrusted(_)));
            let (_, another) = made("dx.example.com");
            assert!(handshake(&modern, &another, version).is_err());
            assert!(handshake(&old, &another, version).is_err());
        }
    }

    #[test]
    fn what_is_no_certificate_ends_the_handshake() {
        let (der, key) = made("dx.example.com");
        for bad in [&b""[..], b"x", &der[..der.len() - 1]] {
            assert!(handshake(bad, &key, &rustls::version::TLS13).is_err());
        }
    }

    #[test]
    fn roots_come_from_pem() {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["ca.example.com".into()]).unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        assert!(Roots::from_pem(pem.as_bytes()).is_ok());
        assert!(matches!(Roots::from_pem(b""), Err(RootsError::Empty)));
        assert!(Roots::from_pem(b"-----BEGIN CERTIFICATE-----\nAAAA\n").is_err());
    }
}
