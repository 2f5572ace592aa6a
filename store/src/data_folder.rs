//! `--data-dir`: checked before anything is written into it, and locked.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// The name of the lock file.
const LOCK_FILE: &str = "isthmus-store.lock";
/// What a data folder of a Prometheus has.
const OF_PROMETHEUS: [&str; 3] = ["wal", "chunks_head", "queries.active"];

/// The data folder of this process. Another store cannot use it until it is dropped.
#[derive(Debug)]
pub(crate) struct DataFolder {
    path: PathBuf,
    _lock: File,
}

/// Why a folder cannot be the data folder, in one line that names it and what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataFolderError {
    #[error("--data-dir={}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error("--data-dir={}: it has {found}, so it belongs to {owner}; give the store a folder of its own", path.display())]
    Foreign { path: PathBuf, found: String, owner: &'static str },
    #[error("--data-dir={}: another store uses it; give each store a folder of its own", path.display())]
    Locked { path: PathBuf },
}

impl DataFolder {
    /// Creates the folder if it does not exist, and locks it.
    ///
    /// # Errors
    /// When it cannot be written, has files of another program, or is in use.
    pub(crate) fn open(path: &Path) -> Result<Self, DataFolderError> {
        let io = |error: io::Error| DataFolderError::Io { path: path.to_owned(), error };
        fs::create_dir_all(path).map_err(io)?;
        for entry in fs::read_dir(path).map_err(io)? {
            let name = entry.map_err(io)?.file_name().to_string_lossy().into_owned();
            let foreign =
                |owner| DataFolderError::Foreign { path: path.to_owned(), found: name.clone(), owner };
            if OF_PROMETHEUS.contains(&name.as_str()) {
                return Err(foreign("a Prometheus"));
            }
            let is_block = tsdb::parse_block_id(&name).is_some();
            if is_block && path.join(&name).join(tsdb::CHUNKS_DIR).exists() {
                return Err(foreign("a bucket or a Prometheus"));
            }
        }
        let lock = File::create(path.join(LOCK_FILE)).map_err(io)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(DataFolderError::Locked { path: path.to_owned() }),
            Err(TryLockError::Error(error)) => Err(io(error)),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_another_program_or_in_use_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("own");
        let held = DataFolder::open(&own).unwrap();
        assert_eq!(held.path(), own);
        let error = DataFolder::open(&own).unwrap_err().to_string();
        assert!(error.contains("another store uses it"), "{error}");
        drop(held);
        fs::create_dir_all(own.join("01HZY3VQ6J0000000000000000")).unwrap();
        assert!(DataFolder::open(&own).is_ok(), "a folder with index headers is used again");

        let foreign = |inside: &str, owner: &str| {
            let path = dir.path().join(inside.replace('/', "-"));
            fs::create_dir_all(path.join(inside)).unwrap();
            let error = DataFolder::open(&path).unwrap_err().to_string();
            assert!(error.contains(owner) && !path.join(LOCK_FILE).exists(), "{error}");
        };
        foreign("wal", "belongs to a Prometheus");
        foreign("01HZY3VQ6J0000000000000000/chunks", "belongs to a bucket or a Prometheus");
        fs::write(dir.path().join("file"), "").unwrap();
        assert!(DataFolder::open(&dir.path().join("file")).is_err());
    }
}
