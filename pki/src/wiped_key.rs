//! A private key that is overwritten in memory when it is dropped.

use identity::Secret;
use rcgen::{KeyPair, PublicKeyData, SignatureAlgorithm, SigningKey};
use rustls_pki_types::PrivateKeyDer;
use zeroize::{Zeroize, Zeroizing};

/// A key pair. `rcgen` keeps the private key as bytes, which it does not overwrite itself.
pub(crate) struct WipedKey(KeyPair);

impl WipedKey {
    /// Generates a key.
    pub(crate) fn generate(algorithm: &'static SignatureAlgorithm) -> Result<Self, rcgen::Error> {
        KeyPair::generate_for(algorithm).map(Self)
    }

    /// Reads a key.
    pub(crate) fn from_der(der: &PrivateKeyDer<'_>) -> Result<Self, rcgen::Error> {
        KeyPair::try_from(der).map(Self)
    }

    /// The private key in PKCS #8 DER.
    pub(crate) fn pkcs8(&self) -> Secret<Vec<u8>> {
        Secret::new(self.0.serialize_der())
    }

    /// The private key as PEM.
    pub(crate) fn pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.0.serialize_pem())
    }
}

impl PublicKeyData for WipedKey {
    fn der_bytes(&self) -> &[u8] {
        self.0.der_bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.0.algorithm()
    }
}

impl SigningKey for WipedKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.0.sign(message)
    }
}

impl Drop for WipedKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}
