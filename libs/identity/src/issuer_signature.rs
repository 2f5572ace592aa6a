//! Signatures of an issuing CA over statements that are no certificates.

use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{bundle::TrustBundle, key_type::KeyType, pin::SpkiPin, verify::CLOCK_SKEW};

/// Why a signature of an issuing CA is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SignerRefusal {
    /// Its certificate is not trusted.
    Untrusted(&'static str),
    /// The signature does not verify.
    Signature,
}

/// Verifies the signature of an issuing CA that a root of the bundle has signed, at `at` in seconds since the epoch. Returns
/// the pin of its key.
pub(crate) fn verify_issuing_ca(
    der: &[u8],
    statement: &[u8],
    signature: &[u8],
    bundle: &TrustBundle,
    at: i64,
) -> Result<SpkiPin, SignerRefusal> {
    let untrusted = |why| Err(SignerRefusal::Untrusted(why));
    let cert = match X509Certificate::from_der(der) {
        Ok(([], cert)) => cert,
        _ => return untrusted("it is not an X.509 certificate"),
    };
    let signs = matches!(cert.key_usage(), Ok(Some(usage)) if usage.value.key_cert_sign());
    if !cert.is_ca() || !signs {
        return untrusted("it is not an issuing CA");
    }
    let skew = CLOCK_SKEW.as_secs() as i64;
    let (from, to) = (cert.validity().not_before.timestamp(), cert.validity().not_after.timestamp());
    if at + skew < from || at > to + skew {
        return untrusted("it is not valid at this time");
    }
    if bundle.signer_of(cert.tbs_certificate.as_ref(), &cert.signature_value.data, at).is_none() {
        return untrusted("no root of the trust domain has signed it");
    }
    let spki = cert.public_key().raw;
    match KeyType::of_spki(spki).is_some_and(|key| key.verify(spki, statement, signature)) {
        true => Ok(SpkiPin::of_spki(spki)),
        false => Err(SignerRefusal::Signature),
    }
}
