//! The signed head of the issuer's audit log, and its bytes:
//!
//! ```text
//!   size   what
//!   1      version, 1
//!   8      number of the last entry, big endian as all numbers here
//!   32     hash of the last entry, which covers all entries before it
//!   8      when it was signed, in seconds since the epoch
//!   2 + n  trust domain
//!   2 + n  certificate of the issuing CA in DER
//!   2 + n  signature of its key over a fixed text and everything above
//! ```
//!
//! Whoever has two heads and the log can prove that entries were removed or rewritten between them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::{
    bundle::TrustBundle,
    denylist::whole_seconds,
    hex,
    issuer_signature::{SignerRefusal, verify_issuing_ca},
    pin::SpkiPin,
    spiffe::TrustDomain,
    verify::CLOCK_SKEW,
};

const VERSION: u8 = 1;
/// Largest signed head, in bytes.
pub const MAX_AUDIT_HEAD_BYTES: usize = 16 << 10;
/// Begins the bytes that are signed, so that no signature of another kind can be used for a head.
const STATEMENT: &[u8] = b"isthmus audit head, version 1";

/// A head whose signature was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedAuditHead {
    number: u64,
    hash: String,
    signed_at: SystemTime,
    signer: SpkiPin,
    bytes: Vec<u8>,
}

impl SignedAuditHead {
    /// Returns the content of a head, to be signed with the key of the issuing CA with the certificate `signer`. `hash` is 64
    /// hexadecimal digits.
    ///
    /// # Errors
    /// When the hash is not one, or a part is too long.
    pub fn content(
        domain: &TrustDomain,
        number: u64,
        hash: &str,
        signed_at: SystemTime,
        signer: &[u8],
    ) -> Result<Vec<u8>, AuditHeadError> {
        let hash = hex::decode(hash).filter(|hash| hash.len() == 32);
        let hash = hash.ok_or(AuditHeadError::Malformed("has no hash of 64 hexadecimal digits"))?;
        let mut bytes = vec![VERSION];
        bytes.extend(number.to_be_bytes());
        bytes.extend(hash);
        bytes.extend(whole_seconds(signed_at).to_be_bytes());
        push(&mut bytes, domain.as_str().as_bytes())?;
        push(&mut bytes, signer)?;
        Ok(bytes)
    }

    /// The bytes to sign for a content.
    pub fn statement(content: &[u8]) -> Vec<u8> {
        [STATEMENT, content].concat()
    }

    /// Joins a content and its signature.
    ///
    /// # Errors
    /// When the signature or the whole is too large.
    pub fn join(mut content: Vec<u8>, signature: &[u8]) -> Result<Vec<u8>, AuditHeadError> {
        push(&mut content, signature)?;
        if content.len() > MAX_AUDIT_HEAD_BYTES {
            return Err(AuditHeadError::TooLarge);
        }
        Ok(content)
    }

    /// Parses a head after the check of its signature. A head that was received is checked at `received`, the local time; one
    /// that this side has stored (`None`) at the time at which it was signed.
    ///
    /// # Errors
    /// When it is malformed, of another trust domain, from the future, or not signed by an issuing CA of the bundle.
    pub fn parse(
        bytes: &[u8],
        bundle: &TrustBundle,
        received: Option<SystemTime>,
    ) -> Result<Self, AuditHeadError> {
        if bytes.len() > MAX_AUDIT_HEAD_BYTES {
            return Err(AuditHeadError::TooLarge);
        }
        let mut rest = bytes;
        let [version] = fixed(&mut rest)?;
        if version != VERSION {
            return Err(AuditHeadError::Version(version));
        }
        let number = u64::from_be_bytes(fixed(&mut rest)?);
        let hash: [u8; 32] = fixed(&mut rest)?;
        let seconds = u64::from_be_bytes(fixed(&mut rest)?);
        let domain = part(&mut rest)?;
        let signer = part(&mut rest)?;
        let content = &bytes[..bytes.len() - rest.len()];
        let signature = part(&mut rest)?;
        if !rest.is_empty() {
            return Err(AuditHeadError::Malformed("has extra bytes at its end"));
        }
        let signed_at = UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
        let signed_at = signed_at.ok_or(AuditHeadError::Malformed("has an impossible time"))?;
        if received.is_some_and(|now| signed_at > now + CLOCK_SKEW) {
            return Err(AuditHeadError::Future);
        }
        let at = whole_seconds(received.unwrap_or(signed_at)) as i64;
        let signer = verify_issuing_ca(signer, &Self::statement(content), signature, bundle, at);
        let signer = signer.map_err(|refusal| match refusal {
            SignerRefusal::Untrusted(why) => AuditHeadError::Signer(why),
            SignerRefusal::Signature => AuditHeadError::Signature,
        })?;
        if domain != bundle.trust_domain().as_str().as_bytes() {
            return Err(AuditHeadError::ForeignTrustDomain);
        }
        Ok(Self { number, hash: hex::encode(&hash), signed_at, signer, bytes: bytes.to_vec() })
    }

    /// The number of entries of the log.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The hash of the last entry: 64 lower-case hexadecimal digits.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// When it was signed.
    pub fn signed_at(&self) -> SystemTime {
        self.signed_at
    }

    /// The key of the issuing CA that signed it.
    pub fn signer(&self) -> SpkiPin {
        self.signer
    }

    /// Its bytes, with the signature.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

fn push(bytes: &mut Vec<u8>, part: &[u8]) -> Result<(), AuditHeadError> {
    let length = u16::try_from(part.len()).map_err(|_| AuditHeadError::TooLarge)?;
    bytes.extend(length.to_be_bytes());
    bytes.extend(part);
    Ok(())
}

fn fixed<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], AuditHeadError> {
    let (taken, after) = rest.split_first_chunk().ok_or(AuditHeadError::Malformed("is incomplete"))?;
    *rest = after;
    Ok(*taken)
}

fn part<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], AuditHeadError> {
    let length = usize::from(u16::from_be_bytes(fixed(rest)?));
    let (taken, after) = rest.split_at_checked(length).ok_or(AuditHeadError::Malformed("is incomplete"))?;
    *rest = after;
    Ok(taken)
}

/// Why a head is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuditHeadError {
    /// More bytes than a head may have.
    #[error("the audit head has more than {MAX_AUDIT_HEAD_BYTES} bytes")]
    TooLarge,
    /// A newer program signed it.
    #[error("the audit head has version {0}, this program supports version {VERSION}; upgrade the program")]
    Version(u8),
    /// Its bytes are no head.
    #[error("the audit head {0}")]
    Malformed(&'static str),
    /// It is for another trust domain.
    #[error("the audit head is for another trust domain")]
    ForeignTrustDomain,
    /// It was signed later than now.
    #[error("the audit head was signed in the future; check both clocks")]
    Future,
    /// Its signer is not trusted.
    #[error("the certificate of the audit head's signer is refused: {0}")]
    Signer(&'static str),
    /// The signature does not verify.
    #[error("the audit head's signature is wrong")]
    Signature,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{HOUR, TestCa, mutations, now, td};

    fn head(ca: &TestCa, number: u64, at: SystemTime) -> Vec<u8> {
        let content = SignedAuditHead::content(&td(), number, &"ab".repeat(32), at, &ca.issuing).unwrap();
        let signature = ca.issuing_signs(&SignedAuditHead::statement(&content));
        SignedAuditHead::join(content, &signature).unwrap()
    }

    #[test]
    fn a_head_is_read_as_it_was_signed() {
        let ca = TestCa::new("a");
        let bytes = head(&ca, 7, now());
        let parsed = SignedAuditHead::parse(&bytes, &ca.bundle(), Some(now())).unwrap();
        assert_eq!((parsed.number(), parsed.hash(), parsed.as_bytes()), (7, &*"ab".repeat(32), &bytes[..]));
        assert_eq!(parsed.signer(), SpkiPin::of_certificate(&ca.issuing).unwrap());
        let short = SignedAuditHead::content(&td(), 1, "ab", now(), &ca.issuing).unwrap_err();
        assert!(short.to_string().contains("64 hexadecimal digits"));
    }

    #[test]
    fn a_head_of_another_signer_or_another_time_is_refused() {
        let (ca, foreign) = (TestCa::new("a"), TestCa::new("b"));
        let check = |bytes: &[u8], expected: AuditHeadError| {
            assert_eq!(SignedAuditHead::parse(bytes, &ca.bundle(), Some(now())), Err(expected));
        };
        check(&head(&foreign, 1, now()), AuditHeadError::Signer("no root of the trust domain has signed it"));
        check(&head(&ca, 1, now() + HOUR), AuditHeadError::Future);
        // A denylist of the same signer is not a head.
        let content = SignedAuditHead::content(&td(), 1, &"ab".repeat(32), now(), &ca.issuing).unwrap();
        let other = ca.issuing_signs(&[b"isthmus denylist, version 1", &content[..]].concat());
        check(&SignedAuditHead::join(content, &other).unwrap(), AuditHeadError::Signature);
        check(&[2], AuditHeadError::Version(2));
        check(&[], AuditHeadError::Malformed("is incomplete"));
    }

    #[test]
    fn no_mutation_of_a_head_is_accepted_as_another_one_and_none_panics() {
        let ca = TestCa::new("a");
        let bytes = head(&ca, 7, now());
        for changed in mutations(&bytes, 18, 5_000) {
            let parsed = SignedAuditHead::parse(&changed, &ca.bundle(), Some(now()));
            assert!(changed == bytes || parsed.is_err(), "{changed:02x?}");
        }
    }
}
