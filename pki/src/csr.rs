//! Parsing a certificate request. Only its public key and the proof of possession are used.

use identity::{KeyType, SpkiPin};
use rcgen::SubjectPublicKeyInfo;
use x509_parser::prelude::{FromDer, X509CertificationRequest};

use crate::error::CsrRefusal;

/// Largest request. Our own requests have about 250 bytes; a larger one is refused before it is parsed.
const MAX_CSR_BYTES: usize = 8 * 1024;

/// Begins the bytes that the key of an expired certificate signs.
const RECOVERY: &[u8] = b"isthmus recovery, version 1";

/// The bytes that the key of an expired certificate signs to get another one for the key in a request.
pub fn recovery_statement(csr_der: &[u8]) -> Vec<u8> {
    [RECOVERY, csr_der].concat()
}

/// The public key of a request whose sender has proved possession of the private key.
///
/// Names, extensions and attributes of the request are dropped, so they cannot get into a certificate.
pub(crate) struct ProvenKey {
    pub(crate) spki: SubjectPublicKeyInfo,
    pub(crate) pin: SpkiPin,
}

impl ProvenKey {
    pub(crate) fn from_csr(der: &[u8]) -> Result<Self, CsrRefusal> {
        if der.len() > MAX_CSR_BYTES {
            return Err(CsrRefusal::TooLarge(der.len()));
        }
        let (rest, csr) = X509CertificationRequest::from_der(der).map_err(|_| CsrRefusal::Unreadable)?;
        if !rest.is_empty() {
            return Err(CsrRefusal::Unreadable);
        }
        let info = &csr.certification_request_info;
        let spki_der = info.subject_pki.raw;
        let key_type = KeyType::of_spki(spki_der).ok_or(CsrRefusal::KeyType)?;
        if !key_type.verify(spki_der, info.raw, &csr.signature_value.data) {
            return Err(CsrRefusal::Signature);
        }
        let spki = SubjectPublicKeyInfo::from_der(spki_der).map_err(|_| CsrRefusal::KeyType)?;
        Ok(Self { spki, pin: SpkiPin::of_spki(spki_der) })
    }
}
