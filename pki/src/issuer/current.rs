//! Files that other processes replace while the issuer runs: the issuing CA and the trust bundle.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use crate::error::PkiError;

/// Keeps what a file contains in memory, and loads it again when the file is replaced.
pub(super) struct ReloadedFile<T> {
    path: PathBuf,
    load: LoadFile<T>,
    loaded: Mutex<LoadedFile<T>>,
}

/// Reads the content of a file.
type LoadFile<T> = Box<dyn Fn(&Path) -> Result<T, PkiError> + Send + Sync>;

struct LoadedFile<T> {
    content: Arc<T>,
    version: Option<FileVersion>,
}

/// Identifies one version of a file: device, inode, size, and change time in seconds and nanoseconds.
pub(crate) type FileVersion = (u64, u64, u64, i64, i64);

impl<T> ReloadedFile<T> {
    /// Loads the file for the first time.
    pub(super) fn load(
        path: &Path,
        load: impl Fn(&Path) -> Result<T, PkiError> + Send + Sync + 'static,
    ) -> Result<Self, PkiError> {
        // Read the version before the content. A file that is replaced in between is then read again and not
        // missed.
        let version = file_version(path);
        let content = Arc::new(load(path)?);
        let loaded = Mutex::new(LoadedFile { content, version });
        Ok(Self { path: path.to_owned(), load: Box::new(load), loaded })
    }

    /// The content now. If the file is missing or damaged, the loaded content stays in use, and `pki doctor` reports the
    /// file.
    pub(super) fn get(&self) -> Arc<T> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let found = file_version(&self.path);
        if found.is_some() && found != loaded.version {
            // Store the version even if the file is damaged: do not read it again until it is replaced again.
            loaded.version = found;
            if let Ok(content) = (self.load)(&self.path) {
                loaded.content = Arc::new(content);
            }
        }
        loaded.content.clone()
    }
}

/// The version of a file, or of the file that a link leads to.
pub(crate) fn file_version(path: &Path) -> Option<FileVersion> {
    let found = fs::metadata(path).ok()?;
    Some((found.dev(), found.ino(), found.size(), found.ctime(), found.ctime_nsec()))
}
