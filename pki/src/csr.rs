//! Reading a certificate request: its public key and the proof of possession, and nothing else.

use identity::{KeyType, SpkiPin};
use rcgen::SubjectPublicKeyInfo;
use x509_parser::prelude::{FromDer, X509CertificationRequest};

use crate::error::CsrRefusal;

/// A request of ours has some 250 bytes; more than this is refused unread.
const MAX_CSR_BYTES: usize = 8 * 1024;

/// The public key of a request whose sender has shown to hold the private one.
///
/// Names, extensions and attributes of the request are not kept, so they cannot reach a certificate.
pub(crate) struct ProvenKey {
    pub(crate) spki: SubjectPublicKeyInfo,
    pub(crate) pin: SpkiPin,
}

impl ProvenKey {
    pub(crate) fn from_csr(der: &[u8]) -> Result<Self, CsrRefusal> {
        if der.len() > MAX_CSR_BYTES {
            return Err(CsrRefusal::Unreadable);
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
