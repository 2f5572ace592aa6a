//! A trust bundle: the roots of one trust domain.

use std::{fmt, io, path::Path, sync::Arc};

use rustls::{RootCertStore, pki_types::CertificateDer};
use rustls_pki_types::{TrustAnchor, pem::PemObject};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{files::read_bounded, pem::certificate_pem, pin::SpkiPin, spiffe::TrustDomain};

/// Upper bound for the roots of a bundle. A bundle has an active and a standby root, and four roots during a
/// rotation.
const MAX_ROOTS: usize = 16;
const MAX_BUNDLE_BYTES: u64 = 256 * 1024;

/// The roots of one trust domain: 1 to 16 distinct CA certificates.
#[derive(Clone)]
pub struct TrustBundle {
    trust_domain: TrustDomain,
    roots: Arc<[Root]>,
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
        Ok(Self { trust_domain, roots: kept.into() })
    }

    /// Parses concatenated PEM certificates.
    ///
    /// # Errors
    /// Those of [`TrustBundle::new`], and damaged PEM.
    pub fn from_pem(trust_domain: TrustDomain, pem: &[u8]) -> Result<Self, BundleError> {
        let mut roots = Vec::new();
        for section in CertificateDer::pem_slice_iter(pem) {
            roots.push(section.map_err(|e| BundleError::Pem(e.to_string()))?);
            if roots.len() > 2 * MAX_ROOTS {
                return Err(BundleError::TooMany);
            }
        }
        Self::new(trust_domain, roots)
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

    /// Returns the roots as concatenated PEM certificates.
    pub fn to_pem(&self) -> String {
        self.roots.iter().map(|root| certificate_pem(&root.der)).collect()
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

    /// The trust anchors that are valid at `now`, in seconds since the epoch. webpki itself ignores an
    /// anchor's validity.
    pub(crate) fn anchors_at(&self, now: i64) -> RootCertStore {
        let valid = self.roots.iter().filter(|root| (root.validity.0..=root.validity.1).contains(&now));
        RootCertStore { roots: valid.map(|root| root.anchor.clone()).collect() }
    }
}

impl Root {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{TestCa, td};

    #[test]
    fn pem_round_trips_with_pins_in_order() {
        let (a, b) = (TestCa::new("a"), TestCa::new("b"));
        let bundle = TrustBundle::new(td(), [a.root_der(), b.root_der(), a.root_der()]).unwrap();
        assert_eq!(bundle.roots().count(), 2);
        let again = TrustBundle::from_pem(td(), bundle.to_pem().as_bytes()).unwrap();
        assert_eq!(again, bundle);
        let pins: Vec<_> = again.pins().collect();
        assert_eq!(pins, [a.root_der(), b.root_der()].map(|der| SpkiPin::of_certificate(&der).unwrap()));
    }

    #[test]
    fn an_invalid_bundle_is_rejected_with_the_reason() {
        let ca = TestCa::new("a");
        let check = |pem: &str, expected: &str| {
            let error = TrustBundle::from_pem(td(), pem.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error:?} does not contain {expected:?}");
        };
        check("", "no certificate");
        check("hello", "no certificate");
        let pem = certificate_pem(&ca.root_der());
        check(&pem[..pem.len() - 40], "damaged PEM");
        check(&certificate_pem(&ca.leaf("gateway").chain()[0]), "is not a CA certificate");
        check(
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "root number 1: not an X.509",
        );
        let many: Vec<_> = (0..17).map(|n| TestCa::new(&n.to_string()).root_der()).collect();
        assert!(matches!(TrustBundle::new(td(), many), Err(BundleError::TooMany)));

        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bundle.pem");
        let error = TrustBundle::load(td(), &path).unwrap_err().to_string();
        assert!(error.contains("bundle.pem") && error.contains("No such file"), "{error}");
    }
}
