//! Credentials: a certificate chain and the private key of its leaf.

use std::{fmt, io, path::Path, sync::Arc, time::SystemTime};

use rustls::{
    pki_types::{CertificateDer, PrivateKeyDer},
    sign::CertifiedKey,
};
use rustls_pki_types::PrivatePkcs8KeyDer;

use crate::{
    bundle::{BundleError, TrustBundle},
    files::{read_private, write_private},
    pem::{self, push_pem},
    pem_content::PemContent,
    secret::Secret,
    spiffe::SpiffeId,
    verify::{LeafCertificate, MAX_CHAIN_LEN, PeerIdentity, RefusedCertificate, not_after, verify_peer},
};

const MAX_CREDENTIALS_BYTES: u64 = 256 * 1024;

/// A certificate chain (leaf first, without the root) and the leaf's private key. The key has been checked
/// against the leaf.
///
/// One PEM file contains both the key and the chain, so that a crash cannot leave a key beside another key's
/// chain.
#[derive(Clone)]
pub struct Credentials {
    certified: Arc<CertifiedKey>,
    key: Arc<Secret<PrivateKeyDer<'static>>>,
    identity: PeerIdentity,
}

impl Credentials {
    /// Makes credentials from a chain, leaf first, and the leaf's private key.
    ///
    /// # Errors
    /// When the chain is empty, too long or malformed, when the leaf has no valid SPIFFE id, or when the key
    /// does not belong to the leaf.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, CredentialsError> {
        Self::with_key(chain, Secret::new(key))
    }

    fn with_key(
        chain: Vec<CertificateDer<'static>>,
        key: Secret<PrivateKeyDer<'static>>,
    ) -> Result<Self, CredentialsError> {
        if chain.is_empty() {
            return Err(CredentialsError::NoCertificate);
        }
        if chain.len() > MAX_CHAIN_LEN {
            return Err(CredentialsError::LongChain(chain.len()));
        }
        let identity = LeafCertificate::parse(&chain[0])?.identity(&chain[1..])?;
        // The provider of the crate takes the key itself, and would keep a copy of it in memory.
        let loaded = rustls::crypto::aws_lc_rs::sign::any_supported_type(key.expose());
        let loaded = loaded.map_err(|e| CredentialsError::Key(e.to_string()))?;
        let certified = CertifiedKey::new(chain, loaded);
        certified.keys_match().map_err(|e| match e {
            rustls::Error::InconsistentKeys(_) => CredentialsError::Mismatch(identity.spiffe_id.clone()),
            other => CredentialsError::Key(other.to_string()),
        })?;
        Ok(Self { certified: Arc::new(certified), key: Arc::new(key), identity })
    }

    /// Makes credentials from a chain and a private key in PKCS #8 DER.
    ///
    /// # Errors
    /// Those of [`Credentials::new`].
    pub fn from_pkcs8(chain: Vec<CertificateDer<'static>>, pkcs8: &[u8]) -> Result<Self, CredentialsError> {
        Self::new(chain, PrivatePkcs8KeyDer::from(pkcs8.to_vec()).into())
    }

    /// Parses PEM with exactly one private key and the chain. The key may be before or after the chain.
    ///
    /// # Errors
    /// Those of [`Credentials::new`], and damaged PEM.
    pub fn from_pem(pem: &[u8]) -> Result<Self, CredentialsError> {
        let content = PemContent::read(pem).map_err(|e| CredentialsError::Pem(e.to_string()))?;
        let mut keys = content.keys;
        let key = keys.pop().ok_or(CredentialsError::NoKey)?;
        if !keys.is_empty() {
            return Err(CredentialsError::ManyKeys);
        }
        Self::with_key(content.certificates, key)
    }

    /// Reads a PEM file of at most 256 KiB, as [`Credentials::store`] writes it.
    ///
    /// # Errors
    /// Those of [`Credentials::from_pem`] and of reading; the error names the file.
    pub fn load(path: &Path) -> Result<Self, CredentialsError> {
        let in_file = |e| CredentialsError::File { path: path.display().to_string(), source: Box::new(e) };
        let pem = zeroize::Zeroizing::new(
            read_private(path, MAX_CREDENTIALS_BYTES).map_err(|e| in_file(CredentialsError::Io(e)))?,
        );
        Self::from_pem(&pem).map_err(in_file)
    }

    /// Writes the PEM file with mode 0600, atomically and durably.
    ///
    /// # Errors
    /// Any error of the operating system; the error names the file. An older file is then unchanged.
    pub fn store(&self, path: &Path) -> Result<(), CredentialsError> {
        let key_bytes = self.key.expose().secret_der().len();
        let sizes = self.chain().iter().map(|cert| cert.len()).chain([key_bytes]);
        // A text that grows leaves copies behind.
        let capacity = sizes.map(pem::section_capacity).sum();
        let mut pem = zeroize::Zeroizing::new(String::with_capacity(capacity));
        let label = match self.key.expose() {
            PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
            PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
            _ => "PRIVATE KEY",
        };
        push_pem(&mut pem, label, self.key.expose().secret_der());
        self.chain().iter().for_each(|cert| push_pem(&mut pem, "CERTIFICATE", cert));
        write_private(path, pem.as_bytes()).map_err(|e| CredentialsError::File {
            path: path.display().to_string(),
            source: Box::new(CredentialsError::Io(e)),
        })
    }

    /// The chain, leaf first, without the root.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }

    /// The identity in the leaf. [`Credentials::check`] verifies whether peers will accept it.
    pub fn spiffe_id(&self) -> &SpiffeId {
        &self.identity.spiffe_id
    }

    /// The facts in the leaf: SPIFFE id, serial number, pin of the key, validity.
    pub fn identity(&self) -> &PeerIdentity {
        &self.identity
    }

    /// The end of the leaf's validity, inclusive.
    pub fn not_after(&self) -> SystemTime {
        self.identity.not_after
    }

    /// The earliest end of the validity of the CAs in the chain, such as the issuing CA; `None` if there is none.
    pub fn issuer_not_after(&self) -> Option<SystemTime> {
        self.chain().get(1..)?.iter().filter_map(|certificate| not_after(certificate)).min()
    }

    /// Signs some bytes with the leaf's key, so that [`KeyType::verify`](crate::KeyType::verify) accepts them.
    ///
    /// # Errors
    /// When the key cannot sign.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, CredentialsError> {
        use rustls::SignatureScheme as Scheme;
        let schemes = [Scheme::ECDSA_NISTP256_SHA256, Scheme::ECDSA_NISTP384_SHA384, Scheme::ED25519];
        let failed = |why: &str| CredentialsError::Key(why.to_owned());
        let signer = self.certified.key.choose_scheme(&schemes).ok_or_else(|| failed("of another type"))?;
        signer.sign(message).map_err(|error| failed(&error.to_string()))
    }

    /// Verifies our own chain in the same way as a peer does.
    ///
    /// # Errors
    /// The reason for which a peer would refuse this chain.
    pub fn check(&self, bundle: &TrustBundle, now: SystemTime) -> Result<PeerIdentity, RefusedCertificate> {
        verify_peer(self.chain(), bundle, now, &Default::default())
    }

    pub(crate) fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// Why credentials are rejected.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// No certificate in the PEM.
    #[error("contains no certificate, expected the leaf and the issuing CA")]
    NoCertificate,
    /// No private key in the PEM.
    #[error("contains no private key, expected exactly one")]
    NoKey,
    /// Several private keys in the PEM.
    #[error("contains more than one private key, expected exactly one")]
    ManyKeys,
    /// More certificates than a chain may have.
    #[error("the chain has {0} certificates, at most {MAX_CHAIN_LEN} are allowed")]
    LongChain(usize),
    /// The PEM cannot be decoded.
    #[error("damaged PEM: {0}")]
    Pem(String),
    /// The private key cannot be loaded.
    #[error("the private key cannot be loaded: {0}")]
    Key(String),
    /// The private key belongs to another certificate.
    #[error("the private key does not belong to the certificate of {0}")]
    Mismatch(SpiffeId),
    /// The certificate is not accepted as one of the mesh.
    #[error(transparent)]
    Refused(#[from] RefusedCertificate),
    /// The trust bundle is rejected.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The file cannot be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Any of the errors above, with the file in which it was found.
    #[error("credentials {path}: {source}")]
    File {
        /// Path of the file.
        path: String,
        /// What is wrong with the file.
        source: Box<Self>,
    },
}
