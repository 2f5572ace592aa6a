//! Credentials: a certificate chain and the key that belongs to it.

use std::{fmt, io, path::Path, sync::Arc, time::SystemTime};

use rustls::{
    pki_types::{CertificateDer, PrivateKeyDer},
    sign::CertifiedKey,
};
use rustls_pki_types::{PrivatePkcs8KeyDer, pem::PemObject};

use crate::{
    MAX_CHAIN_LEN, PeerIdentity, RefusedCertificate, SpiffeId, TrustBundle, crypto_provider, read_bounded,
    verify::Leaf, verify_peer, write_private,
};

const MAX_CREDENTIALS_BYTES: u64 = 256 * 1024;

/// A chain (leaf first, root left out) and the leaf's private key; the two are known to belong together.
///
/// Its file holds the key and the chain in one PEM, so that no crash can leave a mixed pair.
#[derive(Clone)]
pub struct Credentials {
    certified: Arc<CertifiedKey>,
    key: Arc<PrivateKeyDer<'static>>,
    identity: PeerIdentity,
}

impl Credentials {
    /// Joins a chain, leaf first, with its private key.
    ///
    /// # Errors
    /// When the chain is empty, too long or unreadable, the leaf names no SPIFFE id, or the key is another's.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, CredentialsError> {
        if chain.is_empty() {
            return Err(CredentialsError::NoCertificate);
        }
        if chain.len() > MAX_CHAIN_LEN {
            return Err(CredentialsError::LongChain(chain.len()));
        }
        let identity = Leaf::parse(&chain[0])?.identity()?;
        let certified =
            CertifiedKey::from_der(chain, key.clone_key(), &crypto_provider()).map_err(|e| match e {
                rustls::Error::InconsistentKeys(_) => CredentialsError::Mismatch(identity.spiffe_id.clone()),
                other => CredentialsError::Key(other.to_string()),
            })?;
        Ok(Self { certified: Arc::new(certified), key: Arc::new(key), identity })
    }

    /// Joins a chain with a private key in PKCS #8 DER.
    ///
    /// # Errors
    /// As [`Credentials::new`].
    pub fn from_pkcs8(chain: Vec<CertificateDer<'static>>, pkcs8: &[u8]) -> Result<Self, CredentialsError> {
        Self::new(chain, PrivatePkcs8KeyDer::from(pkcs8.to_vec()).into())
    }

    /// Reads PEM with one private key and the chain, in any order between the two kinds.
    ///
    /// # Errors
    /// As [`Credentials::new`], and for damaged PEM.
    pub fn from_pem(pem: &[u8]) -> Result<Self, CredentialsError> {
        let damaged = |e: rustls_pki_types::pem::Error| CredentialsError::Pem(e.to_string());
        let mut keys = PrivateKeyDer::pem_slice_iter(pem);
        let key = keys.next().ok_or(CredentialsError::NoKey)?.map_err(damaged)?;
        if keys.next().transpose().map_err(damaged)?.is_some() {
            return Err(CredentialsError::ManyKeys);
        }
        let chain: Vec<_> = CertificateDer::pem_slice_iter(pem)
            .take(MAX_CHAIN_LEN + 1)
            .collect::<Result<_, _>>()
            .map_err(damaged)?;
        Self::new(chain, key)
    }

    /// Reads such a PEM file of at most 256 KiB.
    ///
    /// # Errors
    /// As [`Credentials::from_pem`], naming the file.
    pub fn load(path: &Path) -> Result<Self, CredentialsError> {
        let in_file = |e| CredentialsError::File { path: path.display().to_string(), source: Box::new(e) };
        let pem = zeroize::Zeroizing::new(
            read_bounded(path, MAX_CREDENTIALS_BYTES).map_err(|e| in_file(CredentialsError::Io(e)))?,
        );
        Self::from_pem(&pem).map_err(in_file)
    }

    /// Writes the PEM file with mode 0600, durably and all at once.
    ///
    /// # Errors
    /// As the operating system says, naming the file; what was there before is then untouched.
    pub fn store(&self, path: &Path) -> Result<(), CredentialsError> {
        let mut pem = zeroize::Zeroizing::new(String::new());
        let label = match &*self.key {
            PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
            PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
            _ => "PRIVATE KEY",
        };
        push_pem(&mut pem, label, self.key.secret_der());
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

    /// Who the leaf says we are. Whether others will believe it is what [`Credentials::check`] answers.
    pub fn spiffe_id(&self) -> &SpiffeId {
        &self.identity.spiffe_id
    }

    /// What the leaf says: id, serial, pin of the key, validity.
    pub fn identity(&self) -> &PeerIdentity {
        &self.identity
    }

    /// The leaf's last moment, inclusive.
    pub fn not_after(&self) -> SystemTime {
        self.identity.not_after
    }

    /// Verifies our own chain as any peer would.
    ///
    /// # Errors
    /// What a peer would answer.
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

/// The PEM section of one certificate.
pub(crate) fn certificate_pem(der: &CertificateDer<'_>) -> String {
    let mut pem = String::new();
    push_pem(&mut pem, "CERTIFICATE", der);
    pem
}

fn push_pem(out: &mut String, label: &str, der: &[u8]) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    // Reserved at once, so that growing leaves no copy of a key behind in freed memory.
    out.reserve(der.len() * 3 / 2 + 128);
    out.push_str(&format!("-----BEGIN {label}-----\n"));
    for line in der.chunks(48) {
        for group in line.chunks(3) {
            let bits = group
                .iter()
                .enumerate()
                .fold(0_u32, |bits, (i, byte)| bits | u32::from(*byte) << (16 - 8 * i));
            for i in 0..4 {
                let symbol = ALPHABET[(bits >> (18 - 6 * i) & 63) as usize];
                out.push(if i <= group.len() { char::from(symbol) } else { '=' });
            }
        }
        out.push('\n');
    }
    out.push_str(&format!("-----END {label}-----\n"));
}

/// Why credentials are refused.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// No certificate in the PEM.
    #[error("holds no certificate")]
    NoCertificate,
    /// No private key in the PEM.
    #[error("holds no private key")]
    NoKey,
    /// Several private keys in the PEM.
    #[error("holds more than one private key")]
    ManyKeys,
    /// More certificates than a chain of ours has.
    #[error("the chain has {0} certificates, more than {MAX_CHAIN_LEN}")]
    LongChain(usize),
    /// Damaged PEM.
    #[error("damaged PEM: {0}")]
    Pem(String),
    /// The private key cannot be used.
    #[error("the private key is unusable: {0}")]
    Key(String),
    /// Key and certificate do not belong together.
    #[error("the private key does not belong to the certificate of {0}")]
    Mismatch(SpiffeId),
    /// The certificate is not one of ours.
    #[error(transparent)]
    Refused(#[from] RefusedCertificate),
    /// The trust bundle is refused.
    #[error(transparent)]
    Bundle(#[from] crate::BundleError),
    /// The file cannot be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Any of the above, in a file.
    #[error("credentials {path}: {source}")]
    File {
        /// The file.
        path: String,
        /// What is wrong with it.
        source: Box<Self>,
    },
}
