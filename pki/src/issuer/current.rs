//! The issuing CA in use. It is reloaded after `pki issuer renew` in another process.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use crate::{authority::CertificateAuthority, error::PkiError};

/// Keeps the issuing CA in memory, and reloads it when its file is replaced.
pub(super) struct CurrentIssuingCa {
    path: PathBuf,
    loaded: Mutex<LoadedCa>,
}

struct LoadedCa {
    authority: Arc<CertificateAuthority>,
    file_version: Option<FileVersion>,
}

/// Identifies one version of a file: device, inode, size, and change time in seconds and nanoseconds.
type FileVersion = (u64, u64, u64, i64, i64);

impl CurrentIssuingCa {
    /// Loads the issuing CA from its file.
    pub(super) fn load(path: &Path) -> Result<Self, PkiError> {
        // Read the version before the content. A file that is replaced in between is then read again and not
        // missed.
        let file_version = file_version(path);
        let authority = Arc::new(CertificateAuthority::load(path)?);
        Ok(Self { path: path.to_owned(), loaded: Mutex::new(LoadedCa { authority, file_version }) })
    }

    /// The issuing CA to sign with now. If the file is missing or damaged, the loaded CA stays in use, and
    /// `pki doctor` reports the file.
    pub(super) fn get(&self) -> Arc<CertificateAuthority> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let found = file_version(&self.path);
        if found.is_some() && found != loaded.file_version {
            // Store the version even if the file is damaged: do not read it again until it is replaced again.
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
