//! A new private key and the request to certify it.

use std::{fmt, time::SystemTime};

use identity::{Credentials, Expectations, Secret, SpiffeId, TrustBundle, verify_peer};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls_pki_types::CertificateDer;

use crate::error::PkiError;

/// A fresh P-256 key with a certificate request that proves its possession and asks for no name.
///
/// Make one for each enrolment and each renewal: the issuer refuses a key that it has certified before.
pub struct KeyAndCsr {
    pkcs8: Secret<Vec<u8>>,
    csr_der: Vec<u8>,
}

impl KeyAndCsr {
    /// Generates the key and the request.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn generate() -> Result<Self, PkiError> {
        let failed = |e: rcgen::Error| PkiError::Failed(format!("generate a key: {e}"));
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
        let request = CertificateParams::default().serialize_request(&key).map_err(failed)?;
        Ok(Self { pkcs8: Secret::new(key.serialize_der()), csr_der: request.der().to_vec() })
    }

    /// The PKCS #10 request in DER; it holds nothing secret.
    pub fn csr_der(&self) -> &[u8] {
        &self.csr_der
    }

    /// Joins the key with the chain issued for it, after verifying it as a peer would.
    ///
    /// # Errors
    /// When the chain is not trusted by the bundle, is for another key, or names somebody else than `expected`.
    pub fn into_credentials(
        self,
        chain: Vec<CertificateDer<'static>>,
        bundle: &TrustBundle,
        expected: &SpiffeId,
        now: SystemTime,
    ) -> Result<Credentials, PkiError> {
        let expectations = Expectations {
            cluster: Some(expected.cluster().clone()),
            component: Some(expected.component().clone()),
            ..Expectations::default()
        };
        let identity = verify_peer(&chain, bundle, now, &expectations)?;
        if identity.spiffe_id != *expected {
            return Err(PkiError::Refused(format!(
                "was issued {} where {expected} was expected",
                identity.spiffe_id
            )));
        }
        Ok(Credentials::from_pkcs8(chain, self.pkcs8.expose())?)
    }
}

impl fmt::Debug for KeyAndCsr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyAndCsr(...)")
    }
}
