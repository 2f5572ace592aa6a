//! Certificates and keys in PEM.

use std::fmt;
use std::path::{Path, PathBuf};

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls_pki_types::pem::PemObject;
use zeroize::Zeroizing;

use crate::watched::read_file;

/// Where PEM comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum PemSource {
    /// A file.
    File(PathBuf),
    /// The text itself, and the name of the setting that contains it.
    Text(&'static str, Zeroizing<String>),
}

impl<P: Into<PathBuf>> From<P> for PemSource {
    fn from(path: P) -> Self {
        Self::File(path.into())
    }
}

impl PemSource {
    /// The file, if it is one.
    pub(crate) fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Text(..) => None,
        }
    }

    fn read(&self) -> Result<Zeroizing<Vec<u8>>, String> {
        match self {
            Self::File(path) => read_file(path),
            Self::Text(_, text) => Ok(Zeroizing::new(text.as_bytes().to_vec())),
        }
    }

    /// All certificates; at least one.
    ///
    /// # Errors
    /// It cannot be read, is damaged, or contains none.
    pub(crate) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, String> {
        let pem = self.read()?;
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        match found {
            Ok(found) if found.is_empty() => {
                Err(format!("{self}: contains no certificate, expected PEM with BEGIN CERTIFICATE"))
            }
            Ok(found) => Ok(found),
            Err(error) => Err(format!("{self}: is damaged PEM: {error}")),
        }
    }

    /// The private key.
    ///
    /// # Errors
    /// It cannot be read, is damaged, or contains none.
    pub(crate) fn private_key(&self) -> Result<PrivateKeyDer<'static>, String> {
        let pem = self.read()?;
        match PrivateKeyDer::pem_slice_iter(&pem).next() {
            Some(Ok(key)) => Ok(key),
            Some(Err(error)) => Err(format!("{self}: is damaged PEM: {error}")),
            None => Err(format!(
                "{self}: contains no private key, expected PEM with BEGIN PRIVATE KEY; an encrypted key cannot be used"
            )),
        }
    }
}

impl fmt::Display for PemSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Text(setting, _) => f.write_str(setting),
        }
    }
}

impl fmt::Debug for PemSource {
    /// The text may be a private key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
