//! The issuing CA in use: that of the state directory, also after `pki issuer renew` in another process.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use crate::{PkiError, authority::Authority};

/// Holds the issuing CA, and takes the next one when its file is replaced.
pub(super) struct CurrentAuthority {
    path: PathBuf,
    held: Mutex<Held>,
}

struct Held {
    authority: Arc<Authority>,
    version: Option<Version>,
}

/// What tells one file from the one that replaces it: device, inode, size, and time of change with its nanoseconds.
type Version = (u64, u64, u64, i64, i64);

impl CurrentAuthority {
    /// Reads the file.
    pub(super) fn load(path: &Path) -> Result<Self, PkiError> {
        // Looked at before it is read: a file replaced in between is read once more, never missed.
        let version = version(path);
        let authority = Arc::new(Authority::load(path)?);
        Ok(Self { path: path.to_owned(), held: Mutex::new(Held { authority, version }) })
    }

    /// The issuing CA to sign with now. A file that is gone or damaged leaves the one in use; `pki doctor` names it.
    pub(super) fn get(&self) -> Arc<Authority> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let version = version(&self.path);
        if version.is_some() && version != held.version {
            // Noted even if it cannot be read: there is nothing new to read until it is replaced again.
            held.version = version;
            if let Ok(authority) = Authority::load(&self.path) {
                held.authority = Arc::new(authority);
            }
        }
        held.authority.clone()
    }
}

fn version(path: &Path) -> Option<Version> {
    let found = fs::metadata(path).ok()?;
    Some((found.dev(), found.ino(), found.size(), found.ctime(), found.ctime_nsec()))
}
