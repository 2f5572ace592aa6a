//! A trust bundle: the roots of one trust domain, and the signature with which one bundle replaces another.
//!
//! The file of a bundle has the line `isthmus-bundle-signature: DIGITS` before its certificates; other programs
//! ignore this line. A bundle without it was never signed and has sequence 0.

use std::{
    fmt, io,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::{RootCertStore, pki_types::CertificateDer};
use rustls_pki_types::{TrustAnchor, pem::PemObject};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{
    files::read_bounded, hex, key_type::KeyType, pem::certificate_pem, pin::SpkiPin,
    root_signature::RootSignature, spiffe::TrustDomain,
};

/// Upper bound for the roots of a bundle. A bundle has an active and a standby root, and four roots during a
/// rotation.
const MAX_ROOTS: usize = 16;
const MAX_BUNDLE_BYTES: u64 = 256 * 1024;
/// Begins the line of a file with the signature.
const SIGNATURE_LINE: &str = "isthmus-bundle-signature: ";
/// Begins the bytes that a root signs, so that no signature of another kind can be used for a bundle.
const STATEMENT: &[u8] = b"isthmus trust bundle, version 1";

/// The roots of one trust domain: 1 to 16 distinct CA certificates.
#[derive(Clone)]
pub struct TrustBundle {
    trust_domain: TrustDomain,
    roots: Arc<[Root]>,
    signature: Option<Arc<RootSignature>>,
}

#[derive(Clone)]
struct Root {
    der: CertificateDer<'static>,
    anchor: TrustAnchor<'static>,
    pin: SpkiPin,
    /// Seconds since the epoch, both inclusive.
    validity: (i64, i64),
}

impl TrustBundle {
    /// Makes a bundle from the roots of a trust domain. Keeps their order and drops duplicates.
    ///
    /// # Errors
    /// When there are no roots or more than 16, or when one of them is not a CA certificate.
    pub fn new(
        trust_domain: TrustDomain,
        roots: impl IntoIterator<Item = CertificateDer<'static>>,
    ) -> Result<Self, BundleError> {
        let mut kept: Vec<Root> = Vec::new();
        for (index, der) in roots.into_iter().enumerate() {
            let root = Root::parse(der).map_err(|reason| BundleError::Root { number: index + 1, reason })?;
            if kept.iter().all(|other| other.der != root.der) {
                kept.push(root);
            }
            if kept.len() > MAX_ROOTS {
                return Err(BundleError::TooMany);
            }
        }
        if kept.is_empty() {
            return Err(BundleError::Empty);
        }
        Ok(Self { trust_domain, roots: kept.into(), signature: None })
    }

    /// Parses concatenated PEM certificates, after the line with the signature if there is one.
    ///
    /// # Errors
    /// Those of [`TrustBundle::new`], damaged PEM, and a damaged signature.
    pub fn from_pem(trust_domain: TrustDomain, pem: &[u8]) -> Result<Self, BundleError> {
        let mut roots = Vec::new();
        for section in CertificateDer::pem_slice_iter(pem) {
            roots.push(section.map_err(|e| BundleError::Pem(e.to_string()))?);
            if roots.len() > 2 * MAX_ROOTS {
                return Err(BundleError::TooMany);
            }
        }
        let bundle = Self::new(trust_domain, roots)?;
        // The line is before the certificates. Bytes that are not UTF-8 were no PEM.
        let text = std::str::from_utf8(pem).unwrap_or_default();
        match text.lines().find_map(|line| line.strip_prefix(SIGNATURE_LINE)) {
            None => Ok(bundle),
            Some(digits) => {
                let bytes = hex::decode(digits.trim_ascii()).ok_or(BundleError::Signature)?;
                bundle.with_signature_bytes(&bytes)
            }
        }
    }

    /// Reads a PEM file of at most 256 KiB.
    ///
    /// # Errors
    /// Those of [`TrustBundle::from_pem`] and of reading; the error names the file.
    pub fn load(trust_domain: TrustDomain, path: &Path) -> Result<Self, BundleError> {
        let in_file = |e| BundleError::File { path: path.display().to_string(), source: Box::new(e) };
        let pem = read_bounded(path, MAX_BUNDLE_BYTES).map_err(|e| in_file(BundleError::Io(e)))?;
        Self::from_pem(trust_domain, &pem).map_err(in_file)
    }

    /// Returns the line with the signature if there is one, and the roots as concatenated PEM certificates.
    pub fn to_pem(&self) -> String {
        let mut text = match &self.signature {
            Some(signature) => format!("{SIGNATURE_LINE}{}\n", hex::encode(&signature.to_bytes())),
            None => String::new(),
        };
        self.roots.iter().for_each(|root| text.push_str(&certificate_pem(&root.der)));
        text
    }

    /// The number of this bundle: 0 if it was never signed. A bundle is replaced by one with a higher number.
    pub fn sequence(&self) -> u64 {
        self.signature.as_ref().map_or(0, |signature| signature.sequence)
    }

    /// The bytes that a root signs to make this bundle the one with number `sequence`.
    pub fn statement(&self, sequence: u64) -> Vec<u8> {
        let mut bytes = STATEMENT.to_vec();
        bytes.extend(sequence.to_be_bytes());
        for part in
            std::iter::once(self.trust_domain.as_str().as_bytes()).chain(self.roots().map(|der| &**der))
        {
            bytes.extend((part.len() as u64).to_be_bytes());
            bytes.extend(part);
        }
        bytes
    }

    /// Adds the signature of a root over [`TrustBundle::statement`]. [`TrustBundle::successor`] verifies it.
    pub fn signed(mut self, sequence: u64, signer: SpkiPin, signature: Vec<u8>) -> Self {
        self.signature = Some(Arc::new(RootSignature { sequence, signer, signature }));
        self
    }

    /// The signature with its sequence, for [`TrustBundle::with_signature_bytes`]; `None` if it was never signed.
    pub fn signature_bytes(&self) -> Option<Vec<u8>> {
        self.signature.as_ref().map(|signature| signature.to_bytes())
    }

    /// Adds a signature that was received. [`TrustBundle::successor`] verifies it.
    ///
    /// # Errors
    /// When the bytes are not a signature.
    pub fn with_signature_bytes(mut self, bytes: &[u8]) -> Result<Self, BundleError> {
        self.signature = Some(Arc::new(RootSignature::parse(bytes).ok_or(BundleError::Signature)?));
        Ok(self)
    }

    /// Decides whether an offered bundle replaces this one, which is in use: `None` if it is the same one.
    ///
    /// A bundle with other roots must have a higher sequence, and the signature of a root of *this* bundle that is
    /// valid at `now`. So the side that offers bundles cannot add a root; only a root can.
    ///
    /// # Errors
    /// Why the offered bundle must not be used.
    pub fn successor(&self, offered: &Self, now: SystemTime) -> Result<Option<Self>, BundleRefusal> {
        if offered.trust_domain != self.trust_domain {
            return Err(BundleRefusal::ForeignTrustDomain(offered.trust_domain.clone()));
        }
        let (held, new) = (self.sequence(), offered.sequence());
        let decided = match &offered.signature {
            None => Err(BundleRefusal::Unsigned),
            Some(_) if new <= held => Err(BundleRefusal::Old { held, offered: new }),
            Some(signature) => self.check_signature(offered, signature, now),
        };
        match decided {
            Ok(()) => Ok(Some(offered.clone())),
            // With the same roots there is nothing to refuse.
            Err(_) if self == offered => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }

    /// The bundle as a joiner first uses it: without its signature, unless one of its own roots has made it. A joiner
    /// has no older bundle whose roots could vouch for the sequence.
    pub fn as_first(mut self, now: SystemTime) -> Self {
        let verified = self.signature.as_ref().is_some_and(|it| self.check_signature(&self, it, now).is_ok());
        if !verified {
            self.signature = None;
        }
        self
    }

    fn check_signature(
        &self,
        offered: &Self,
        signature: &RootSignature,
        now: SystemTime,
    ) -> Result<(), BundleRefusal> {
        let signer = self.roots.iter().find(|root| root.pin == signature.signer);
        let signer = signer.ok_or(BundleRefusal::UnknownSigner(signature.signer))?;
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs() as i64;
        if !(signer.validity.0..=signer.validity.1).contains(&now) {
            return Err(BundleRefusal::ExpiredSigner(signature.signer));
        }
        if !signer.has_signed(&offered.statement(signature.sequence), &signature.signature) {
            return Err(BundleRefusal::WrongSignature);
        }
        Ok(())
    }

    /// Whether one of the roots that are valid at `now` has signed these bytes; returns its pin.
    pub(crate) fn signer_of(&self, message: &[u8], signature: &[u8], now: i64) -> Option<SpkiPin> {
        let valid = self.roots.iter().filter(|root| (root.validity.0..=root.validity.1).contains(&now));
        valid.into_iter().find(|root| root.has_signed(message, signature)).map(|root| root.pin)
    }

    /// The trust domain that these roots belong to.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The roots in DER, in the order in which they were given.
    pub fn roots(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        self.roots.iter().map(|root| &root.der)
    }

    /// The pins of the roots' public keys, in the same order.
    pub fn pins(&self) -> impl Iterator<Item = SpkiPin> {
        self.roots.iter().map(|root| root.pin)
    }

    /// What a person wants to know about each root, in the same order.
    pub fn root_facts(&self) -> impl Iterator<Item = RootFacts> {
        self.roots.iter().filter_map(|root| {
            let (_, cert) = X509Certificate::from_der(&root.der).ok()?;
            let not_after =
                SystemTime::UNIX_EPOCH + Duration::from_secs(root.validity.1.max(0).unsigned_abs());
            Some(RootFacts { pin: root.pin, subject: cert.subject().to_string(), not_after })
        })
    }

    /// The trust anchors that are valid at `now`, in seconds since the epoch. webpki itself ignores an
    /// anchor's validity.
    pub(crate) fn anchors_at(&self, now: i64) -> RootCertStore {
        let valid = self.roots.iter().filter(|root| (root.validity.0..=root.validity.1).contains(&now));
        RootCertStore { roots: valid.map(|root| root.anchor.clone()).collect() }
    }
}

/// A root as a person knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootFacts {
    /// The pin of its key.
    pub pin: SpkiPin,
    /// Its subject.
    pub subject: String,
    /// End of its validity, inclusive.
    pub not_after: SystemTime,
}

impl Root {
    fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        // The root was parsed before, so this cannot fail.
        let Ok((_, cert)) = X509Certificate::from_der(&self.der) else { return false };
        let spki = cert.public_key().raw;
        KeyType::of_spki(spki).is_some_and(|key| key.verify(spki, message, signature))
    }

    fn parse(der: CertificateDer<'static>) -> Result<Self, String> {
        let (rest, cert) = X509Certificate::from_der(&der).map_err(|_| "not an X.509 certificate")?;
        if !rest.is_empty() {
            return Err("has extra bytes after the certificate".into());
        }
        if !cert.is_ca() {
            return Err(format!("{} is not a CA certificate", cert.subject()));
        }
        let validity = (cert.validity().not_before.timestamp(), cert.validity().not_after.timestamp());
        let pin = SpkiPin::of_spki(cert.public_key().raw);
        let mut store = RootCertStore::empty();
        store.add(der.clone()).map_err(|e| e.to_string())?;
        let anchor = store.roots.pop().ok_or("cannot be used as a trust anchor")?;
        Ok(Self { der, anchor, pin, validity })
    }
}

impl PartialEq for TrustBundle {
    fn eq(&self, other: &Self) -> bool {
        self.trust_domain == other.trust_domain && self.roots().eq(other.roots())
    }
}

impl fmt::Debug for TrustBundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TrustBundle({}", self.trust_domain)?;
        self.pins().try_for_each(|pin| write!(f, ", {pin}"))?;
        f.write_str(")")
    }
}

/// Why a trust bundle is rejected.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// There is no certificate in it.
    #[error("contains no certificate, expected the PEM certificates of the trust domain's roots")]
    Empty,
    /// More than 16 roots.
    #[error("contains more than {MAX_ROOTS} roots; remove the roots that are no longer used")]
    TooMany,
    /// The PEM cannot be decoded.
    #[error("damaged PEM: {0}; copy the bundle again")]
    Pem(String),
    /// The signature is damaged.
    #[error("damaged signature; copy the bundle again")]
    Signature,
    /// One of the certificates is not a root.
    #[error("root number {number}: {reason}")]
    Root {
        /// Counted from 1.
        number: usize,
        /// What is wrong with this certificate.
        reason: String,
    },
    /// The file cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Any of the errors above, with the file in which it was found.
    #[error("trust bundle {path}: {source}")]
    File {
        /// Path of the file.
        path: String,
        /// What is wrong with the file.
        source: Box<Self>,
    },
}

/// Why a trust bundle does not replace the one in use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleRefusal {
    /// It is for another trust domain.
    #[error("it is for trust domain {0}")]
    ForeignTrustDomain(TrustDomain),
    /// It has other roots and no signature.
    #[error("it has other roots than the one in use, and no root has signed it")]
    Unsigned,
    /// Its sequence is not higher.
    #[error("it has sequence {offered}, the one in use has {held}; an older bundle is never used again")]
    Old {
        /// Sequence of the bundle in use.
        held: u64,
        /// Sequence of the offered bundle.
        offered: u64,
    },
    /// The root that signed it is not in use.
    #[error("it is signed by root {0}, which is not in use")]
    UnknownSigner(SpkiPin),
    /// The root that signed it is not valid now.
    #[error("it is signed by root {0}, which is not valid now")]
    ExpiredSigner(SpkiPin),
    /// The signature does not verify.
    #[error("its signature is wrong")]
    WrongSignature,
}

#[cfg(test)]
mod tests;
