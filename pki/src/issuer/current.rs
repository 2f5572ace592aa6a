//! The issuing CA in use: that of the state directory, also after `pki issuer renew` in another process.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use crate::{authority::CertificateAuthority, error::PkiError};

/// Holds the issuing CA, and takes the next one when its file is replaced.
pub(super) struct CurrentIssuingCa {
    path: PathBuf,
    loaded: Mutex<LoadedCa>,
}

struct LoadedCa {
    authority: Arc<CertificateAuthority>,
    file_version: Option<FileVersion>,
}

/// What tells one file from the one that replaces it: device, inode, size, and time of change with its nanoseconds.
type FileVersion = (u64, u64, u64, i64, i64);

impl CurrentIssuingCa {
    /// Reads the file.
    pub(super) fn load(path: &Path) -> Result<Self, PkiError> {
        // Looked at before it is read: a file replaced in between is read once more, never missed.
        let file_version = file_version(path);
        let authority = Arc::new(CertificateAuthority::load(path)?);
        Ok(Self { path: path.to_owned(), loaded: Mutex::new(LoadedCa { authority, file_version }) })
    }

    /// The issuing CA to sign with now. A file that is gone or damaged leaves the one in use; `pki doctor` names it.
    pub(super) fn get(&self) -> Arc<CertificateAuthority> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let found = file_version(&self.path);
        if found.is_some() && found != loaded.file_version {
            // Noted even if it cannot be read: there is nothing new to read until it is replaced again.
            loaded.file_version = found;
            if let Ok(authority) = CertificateAuthority::load(&self.path) {
                loaded.authority = Arc::new(authority);
            }
        }
        loaded.authority.clone()
    }
}

fn file_version(path: &Path) -> Option<FileVersion> {
    let found = fs::metadata(path).ok()?;
    Some((found.dev(), found.ino(), found.size(), found.ctime(), found.ctime_nsec()))
}
