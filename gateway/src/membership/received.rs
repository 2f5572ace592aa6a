//! Certificates and roots as they arrive in messages. Nothing is verified here.

use bytes::Bytes;
use identity::{BundleError, TrustBundle, TrustDomain};
use rustls_pki_types::CertificateDer;

/// Certificates in DER.
pub(crate) fn certificates(der: Vec<Bytes>) -> impl Iterator<Item = CertificateDer<'static>> {
    der.into_iter().map(|der| CertificateDer::from(der.to_vec()))
}

/// A trust bundle of a trust domain, with its signature if there is one.
///
/// # Errors
/// When a root is not a CA certificate, when there are too many, or when the signature is damaged.
pub(crate) fn bundle_of(
    domain: &TrustDomain,
    roots: Vec<Bytes>,
    signature: &[u8],
) -> Result<TrustBundle, BundleError> {
    let bundle = TrustBundle::new(domain.clone(), certificates(roots))?;
    if signature.is_empty() { Ok(bundle) } else { bundle.with_signature_bytes(signature) }
}
