//! A signed denylist, and its bytes:
//!
//! ```text
//!   size   what
//!   1      version, 1
//!   8      number of the list, big endian as all numbers here
//!   8      when it was signed, in seconds since the epoch
//!   2 + n  trust domain
//!   4      number of entries, at most 20,000; then for each:
//!            1      kind: 1 serial number, 2 key, 3 SPIFFE id, 4 cluster, 5 issuing CA
//!            8      last time of issue that is denied, in seconds since the epoch; 0 for no limit
//!            2 + n  serial number, pin, id or name, as text
//!            2 + n  reason
//!   2 + n  certificate of the signer in DER: a root, or an issuing CA that a root has signed
//!   2 + n  signature of its key over a fixed text and everything above
//! ```

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::{
    bundle::TrustBundle,
    denylist::entries::{DenyEntry, DenyIndex, DenySubject, whole_seconds},
    issuer_signature::{SignerRefusal, verify_issuing_ca},
    pin::SpkiPin,
    spiffe::TrustDomain,
    verify::CLOCK_SKEW,
};

const VERSION: u8 = 1;
/// Largest list. It must fit into one control message.
pub const MAX_DENYLIST_BYTES: usize = 3 << 20;
/// Most entries of a list.
const MAX_ENTRIES: usize = 20_000;
const MAX_REASON_BYTES: usize = 200;
/// Begins the bytes that are signed, so that no signature of another kind can be used for a denylist.
const STATEMENT: &[u8] = b"isthmus denylist, version 1";

/// Who signed a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DenylistSigner {
    /// A root of the trust domain. Only it can deny an issuing CA.
    Root(SpkiPin),
    /// An issuing CA.
    Issuer(SpkiPin),
}

/// A denylist whose signature was verified.
#[derive(Debug, Clone)]
pub struct SignedDenylist {
    number: u64,
    signed_at: SystemTime,
    entries: Vec<DenyEntry>,
    pub(crate) signer: DenylistSigner,
    pub(crate) index: DenyIndex,
    bytes: Vec<u8>,
}

impl SignedDenylist {
    /// Returns the content of a list, to be signed with the key of `signer`.
    ///
    /// # Errors
    /// When there are too many entries, or one of them cannot be written.
    pub fn content(
        domain: &TrustDomain,
        number: u64,
        signed_at: SystemTime,
        entries: &[DenyEntry],
        signer: &[u8],
    ) -> Result<Vec<u8>, DenylistError> {
        if entries.len() > MAX_ENTRIES {
            return Err(DenylistError::TooLarge);
        }
        let mut bytes = vec![VERSION];
        bytes.extend(number.to_be_bytes());
        bytes.extend(whole_seconds(signed_at).to_be_bytes());
        push(&mut bytes, domain.as_str().as_bytes())?;
        bytes.extend((entries.len() as u32).to_be_bytes());
        for entry in entries {
            let (kind, value) = match &entry.subject {
                DenySubject::Serial(serial) => (1, serial.clone()),
                DenySubject::Key(pin) => (2, pin.to_string()),
                DenySubject::Id(id) => (3, id.to_string()),
                DenySubject::Cluster(cluster) => (4, cluster.to_string()),
                DenySubject::Issuer(pin) => (5, pin.to_string()),
            };
            bytes.push(kind);
            bytes.extend(entry.issued_until.map_or(0, |until| whole_seconds(until).max(1)).to_be_bytes());
            push(&mut bytes, value.as_bytes())?;
            let end = entry.reason.floor_char_boundary(MAX_REASON_BYTES);
            push(&mut bytes, &entry.reason.as_bytes()[..end])?;
        }
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
    pub fn join(mut content: Vec<u8>, signature: &[u8]) -> Result<Vec<u8>, DenylistError> {
        push(&mut content, signature)?;
        if content.len() > MAX_DENYLIST_BYTES {
            return Err(DenylistError::TooLarge);
        }
        Ok(content)
    }

    /// Parses a list after the check of its signature. A list that was received is checked at `received`, the local
    /// time; one that this side has stored (`None`) at the time at which it was signed.
    ///
    /// # Errors
    /// When it is malformed, of another trust domain, from the future, or not signed by a root or issuing CA of the
    /// bundle.
    pub fn parse(
        bytes: &[u8],
        bundle: &TrustBundle,
        received: Option<SystemTime>,
    ) -> Result<Self, DenylistError> {
        if bytes.len() > MAX_DENYLIST_BYTES {
            return Err(DenylistError::TooLarge);
        }
        let mut reader = Reader(bytes);
        if reader.take(1)? != [VERSION] {
            return Err(DenylistError::Version(bytes[0]));
        }
        let number = reader.number()?;
        let signed_at = reader.number()?;
        let domain = reader.part()?;
        let count = reader.take(4)?.try_into().map_or(usize::MAX, |n| u32::from_be_bytes(n) as usize);
        if count > MAX_ENTRIES {
            return Err(DenylistError::TooLarge);
        }
        let entries = reader.0;
        for _ in 0..count {
            reader.take(9)?;
            reader.part()?;
            reader.part()?;
        }
        let signer = reader.part()?;
        let content = &bytes[..bytes.len() - reader.0.len()];
        let signature = reader.part()?;
        if !reader.0.is_empty() {
            return Err(DenylistError::Malformed("has extra bytes at its end"));
        }
        let signed_at_time = UNIX_EPOCH.checked_add(Duration::from_secs(signed_at));
        let signed_at = signed_at_time.ok_or(DenylistError::Malformed("has an impossible time"))?;
        if received.is_some_and(|now| signed_at > now + CLOCK_SKEW) {
            return Err(DenylistError::Future);
        }
        let at = received.unwrap_or(signed_at);
        let signer = verify_signer(signer, &Self::statement(content), signature, bundle, at)?;
        // Nothing above depends on the content of the entries: their bytes were verified before they are parsed.
        if domain != bundle.trust_domain().as_str().as_bytes() {
            return Err(DenylistError::ForeignTrustDomain);
        }
        let mut reader = Reader(entries);
        let entries = (0..count).map(|_| reader.entry()).collect::<Result<Vec<_>, _>>()?;
        let index = DenyIndex::new(&entries);
        Ok(Self { number, signed_at, entries, signer, index, bytes: bytes.to_vec() })
    }

    /// The number of the list; a later one replaces an earlier one.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// When it was signed.
    pub fn signed_at(&self) -> SystemTime {
        self.signed_at
    }

    /// Its entries, in the order of the signer.
    pub fn entries(&self) -> &[DenyEntry] {
        &self.entries
    }

    /// Who signed it.
    pub fn signer(&self) -> DenylistSigner {
        self.signer
    }

    /// Its bytes, with the signature.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Finds the key of the signer, and verifies the signature with it.
fn verify_signer(
    der: &[u8],
    statement: &[u8],
    signature: &[u8],
    bundle: &TrustBundle,
    at: SystemTime,
) -> Result<DenylistSigner, DenylistError> {
    let at = whole_seconds(at) as i64;
    if bundle.roots().any(|root| **root == *der) {
        return bundle
            .signer_of(statement, signature, at)
            .map(DenylistSigner::Root)
            .ok_or(DenylistError::Signature);
    }
    verify_issuing_ca(der, statement, signature, bundle, at).map(DenylistSigner::Issuer).map_err(|refusal| {
        match refusal {
            SignerRefusal::Untrusted(why) => DenylistError::Signer(why),
            SignerRefusal::Signature => DenylistError::Signature,
        }
    })
}

fn push(bytes: &mut Vec<u8>, part: &[u8]) -> Result<(), DenylistError> {
    let length = u16::try_from(part.len()).map_err(|_| DenylistError::TooLarge)?;
    bytes.extend(length.to_be_bytes());
    bytes.extend(part);
    Ok(())
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], DenylistError> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(DenylistError::Malformed("is incomplete"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self) -> Result<u64, DenylistError> {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(self.take(8)?);
        Ok(u64::from_be_bytes(bytes))
    }

    fn part(&mut self) -> Result<&'a [u8], DenylistError> {
        let length = self.take(2)?;
        self.take(usize::from(length[0]) << 8 | usize::from(length[1]))
    }

    fn text(&mut self) -> Result<&'a str, DenylistError> {
        std::str::from_utf8(self.part()?).map_err(|_| DenylistError::Malformed("has text that is not UTF-8"))
    }

    fn entry(&mut self) -> Result<DenyEntry, DenylistError> {
        let invalid = || DenylistError::Malformed("has an invalid entry");
        let kind = self.take(1)?[0];
        let until = self.number()?;
        let value = self.text()?;
        let subject = match kind {
            1 => DenySubject::Serial(value.to_owned()),
            2 => DenySubject::Key(value.parse().map_err(|_| invalid())?),
            3 => DenySubject::Id(value.parse().map_err(|_| invalid())?),
            4 => DenySubject::Cluster(value.parse().map_err(|_| invalid())?),
            5 => DenySubject::Issuer(value.parse().map_err(|_| invalid())?),
            _ => return Err(invalid()),
        };
        let issued_until = match until {
            0 => None,
            until => Some(UNIX_EPOCH.checked_add(Duration::from_secs(until)).ok_or_else(invalid)?),
        };
        let reason = self.text()?.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        Ok(DenyEntry { subject, issued_until, reason })
    }
}

/// Why a denylist is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DenylistError {
    /// More entries or bytes than a list may have.
    #[error("the denylist has more than {MAX_ENTRIES} entries or {MAX_DENYLIST_BYTES} bytes")]
    TooLarge,
    /// A newer program signed it.
    #[error("the denylist has version {0}, this program supports version {VERSION}; upgrade the program")]
    Version(u8),
    /// Its bytes are no list.
    #[error("the denylist {0}")]
    Malformed(&'static str),
    /// It is for another trust domain.
    #[error("the denylist is for another trust domain")]
    ForeignTrustDomain,
    /// It was signed later than now.
    #[error("the denylist was signed in the future; check both clocks")]
    Future,
    /// Its signer is not trusted.
    #[error("the certificate of the denylist's signer is refused: {0}")]
    Signer(&'static str),
    /// The signature does not verify.
    #[error("the denylist's signature is wrong")]
    Signature,
    /// Its number is not higher than that of the list in use.
    #[error(
        "the denylist has number {offered}, the one in use has {held}; an older list is never used again"
    )]
    Old {
        /// Number of the list in use.
        held: u64,
        /// Number of the offered list.
        offered: u64,
    },
    /// A root has denied its signer.
    #[error("the denylist is signed by an issuing CA that is denied")]
    DeniedSigner,
}
