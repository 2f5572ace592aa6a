//! The key types that the mesh allows.

use std::fmt;

use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use x509_parser::{
    oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_SIG_ED25519},
    prelude::{FromDer, SubjectPublicKeyInfo},
};

/// A key type that a peer may have. There are three; no other type is negotiated in any handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyType {
    /// ECDSA on P-256, signing with SHA-256: the default of leaves and issuing CAs.
    P256,
    /// ECDSA on P-384, signing with SHA-384: the type of the roots.
    P384,
    /// Ed25519.
    Ed25519,
}

impl KeyType {
    /// Returns the type of a SubjectPublicKeyInfo in DER; `None` for another type, or when the bytes are not
    /// a SubjectPublicKeyInfo.
    pub fn of_spki(spki_der: &[u8]) -> Option<Self> {
        let (rest, spki) = SubjectPublicKeyInfo::from_der(spki_der).ok()?;
        let key_bits = spki.subject_public_key.data.len();
        let algorithm = &spki.algorithm;
        if !rest.is_empty() {
            return None;
        }
        if algorithm.algorithm == OID_SIG_ED25519 {
            return (key_bits == 32 && algorithm.parameters.is_none()).then_some(Self::Ed25519);
        }
        if algorithm.algorithm != OID_KEY_TYPE_EC_PUBLIC_KEY {
            return None;
        }
        let curve = algorithm.parameters.as_ref()?.as_oid().ok()?;
        match key_bits {
            // Uncompressed points only: 0x04, x, y.
            65 if curve == OID_EC_P256 => Some(Self::P256),
            97 if curve == OID_NIST_EC_P384 => Some(Self::P384),
            _ => None,
        }
    }

    /// Checks that `signature` over `message` was made with the key in this SubjectPublicKeyInfo.
    pub fn verify(self, spki_der: &[u8], message: &[u8], signature: &[u8]) -> bool {
        let algorithm: &dyn VerificationAlgorithm = match self {
            Self::P256 => &signature::ECDSA_P256_SHA256_ASN1,
            Self::P384 => &signature::ECDSA_P384_SHA384_ASN1,
            Self::Ed25519 => &signature::ED25519,
        };
        let Ok((_, spki)) = SubjectPublicKeyInfo::from_der(spki_der) else { return false };
        UnparsedPublicKey::new(algorithm, &*spki.subject_public_key.data).verify(message, signature).is_ok()
    }
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::P256 => "P-256",
            Self::P384 => "P-384",
            Self::Ed25519 => "Ed25519",
        })
    }
}
