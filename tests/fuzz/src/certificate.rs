//! Certificates of mail hosts, and the authorities in a PEM file.

use rustls::pki_types::CertificateDer;
use rustls::server::ParsedCertificate;
use syndicate::dime::Dnssec;
use syndicate::dime::certificate::{ChainVerdict, Facts, How, decide};
use syndicate::dime::record::Record;
use syndicate::dmtp::tls::Roots;
use syndicate::dmtp::x509;

use super::stranger;

pub fn certificate(bytes: &[u8]) {
    let _ = Roots::from_pem(bytes);
    let parts = x509::parts(bytes);
    let der = CertificateDer::from(bytes);
    // The key that a record pins is the key that TLS uses. TLS looks into it only when it
    // checks the handshake's signature; what is no key there is no certificate here.
    if let (Ok(parsed), Some(parts)) = (ParsedCertificate::try_from(&der), &parts) {
        assert_eq!(parts.spki, parsed.subject_public_key_info().as_ref());
    }
    let Some(parts) = parts else { return };
    assert!((1..=3).contains(&parts.version));
    assert!(parts.spki.len() > parts.key_bits.len() + parts.key_algorithm.len());

    // A stranger's pin fits no certificate, whatever the authorities say.
    let pin = [stranger(), stranger()].concat();
    let text = format!("ver=1 pok={} tls={}", base64(&stranger()), base64(&pin));
    let record = Record::parse(text.as_bytes()).expect("our own record");
    let mut facts = Facts {
        der: bytes.to_vec(),
        spki: parts.spki.to_vec(),
        chain: ChainVerdict::Trusted,
        name: true,
        self_signed: parts.issuer == parts.subject,
    };
    assert!(decide(&facts, Some((&record, Dnssec::Secure))).is_err());
    let by_authority = decide(&facts, None);
    assert_eq!(by_authority.is_ok_and(|it| it.how == How::Authority), !facts.self_signed);
    facts.name = false;
    assert!(decide(&facts, None).is_err());
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD_NO_PAD.encode(bytes)
}
