//! Pins: the SHA-256 of a certificate's public key (its SubjectPublicKeyInfo).

use std::{fmt, str::FromStr};

use aws_lc_rs::digest;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::hex;

/// SHA-256 of a SubjectPublicKeyInfo in DER. It identifies a key, in whichever certificate the key is.
///
/// Its text form is 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpkiPin([u8; 32]);

impl SpkiPin {
    /// Makes a pin from its 32 bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Computes the pin of a SubjectPublicKeyInfo in DER.
    pub fn of_spki(spki_der: &[u8]) -> Self {
        let hash = digest::digest(&digest::SHA256, spki_der);
        let mut bytes = [0; 32];
        bytes.copy_from_slice(hash.as_ref());
        Self(bytes)
    }

    /// Computes the pin of the key in a certificate.
    ///
    /// # Errors
    /// When the bytes are not exactly one X.509 certificate.
    pub fn of_certificate(der: &[u8]) -> Result<Self, PinError> {
        match X509Certificate::from_der(der) {
            Ok(([], cert)) => Ok(Self::of_spki(cert.public_key().raw)),
            _ => Err(PinError("not an X.509 certificate")),
        }
    }

    /// The pin as 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for SpkiPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SpkiPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SpkiPin({self})")
    }
}

impl FromStr for SpkiPin {
    type Err = PinError;

    fn from_str(text: &str) -> Result<Self, PinError> {
        let bytes = hex::decode(text).and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        bytes.map(Self).ok_or(PinError("a pin must be 64 lower-case hexadecimal digits"))
    }
}

/// Why a pin cannot be computed or parsed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PinError(&'static str);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips_and_bad_text_is_rejected() {
        let pin = SpkiPin::of_spki(b"some key");
        assert_eq!(pin.to_string().parse::<SpkiPin>(), Ok(pin));
        for bad in ["", "ab", &"g".repeat(64), &"A".repeat(64), &"é".repeat(32)] {
            assert!(bad.parse::<SpkiPin>().is_err(), "{bad:?} was accepted");
        }
        assert!(SpkiPin::of_certificate(b"\x30\x00").is_err());
    }
}
