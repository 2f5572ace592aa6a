//! A new private key and its certificate request.

use std::{fmt, time::SystemTime};

use identity::{Credentials, Expectations, Secret, SpiffeId, TrustBundle, verify_peer};
use rcgen::{CertificateParams, PKCS_ECDSA_P256_SHA256};
use rustls_pki_types::CertificateDer;

use crate::{error::PkiError, wiped_key::WipedKey};

/// A new P-256 key with a certificate request that proves possession of the key. The request contains no
/// names.
///
/// Generate one for each enrolment and each renewal: the issuer refuses a key that it has certified before.
pub struct KeyAndCsr {
    pkcs8: Secret<Vec<u8>>,
    csr_der: Vec<u8>,
}

impl KeyAndCsr {
    /// Generates the key and the request.
    ///
    /// # Errors
    /// When the operating system returns no random bytes.
    pub fn generate() -> Result<Self, PkiError> {
        let failed = |e: rcgen::Error| PkiError::Failed(format!("generate a key: {e}"));
        let key = WipedKey::generate(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
        let request = CertificateParams::default().serialize_request(&key).map_err(failed)?;
        Ok(Self { pkcs8: key.pkcs8(), csr_der: request.der().to_vec() })
    }

    /// The PKCS #10 request in DER. It contains no secret.
    pub fn csr_der(&self) -> &[u8] {
        &self.csr_der
    }

    /// Verifies the issued chain in the same way as a peer does, and makes credentials from the chain and the
    /// key.
    ///
    /// # Errors
    /// When the bundle does not trust the chain, or when the chain is for another key or another identity
    /// than `expected`.
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
                "the issuer certified {}, expected {expected}",
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
