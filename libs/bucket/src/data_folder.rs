//! `--data-dir` of a role: checked before anything is written into it, and locked.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// What a data folder of a Prometheus has.
const OF_PROMETHEUS: [&str; 3] = ["wal", "chunks_head", "queries.active"];

/// The data folder of this process. Another process of the same role cannot use it until it is dropped.
#[derive(Debug)]
pub struct DataFolder {
    path: PathBuf,
    _lock: File,
}

/// Why a folder cannot be the data folder, in one line that names it and what to do.
#[derive(Debug, thiserror::Error)]
pub enum DataFolderError {
    /// It cannot be read or written.
    #[error("--data-dir={}: {error}", path.display())]
    Io {
        /// The folder.
        path: PathBuf,
        /// What is wrong.
        error: io::Error,
    },
    /// It is a file.
    #[error("--data-dir={}: it is not a folder; give the {role} a folder of its own", path.display())]
    NotAFolder {
        /// The file.
        path: PathBuf,
        /// The role.
        role: &'static str,
    },
    /// It has files of another program.
    #[error("--data-dir={}: it has {found}, so it belongs to {owner}; give the {role} a folder of its own", path.display())]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// The role that wants it.
        role: &'static str,
        /// What was found in it.
        found: String,
        /// Whose files they are.
        owner: &'static str,
    },
    /// It is in use.
    #[error("--data-dir={}: another {role} uses it; give each {role} a folder of its own", path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
        /// The role.
        role: &'static str,
    },
}

impl DataFolder {
    /// Creates the folder if it does not exist, and locks it for `role`, such as `store`.
    ///
    /// # Errors
    /// When it cannot be written, has files of another program, or is in use.
    pub fn open(path: &Path, role: &'static str) -> Result<Self, DataFolderError> {
        let io = |error: io::Error| DataFolderError::Io { path: path.to_owned(), error };
        if path.exists() && !path.is_dir() {
            return Err(DataFolderError::NotAFolder { path: path.to_owned(), role });
        }
        fs::create_dir_all(path).map_err(io)?;
        for entry in fs::read_dir(path).map_err(io)? {
            let name = entry.map_err(io)?.file_name().to_string_lossy().into_owned();
            let foreign =
                |owner| DataFolderError::Foreign { path: path.to_owned(), role, found: name.clone(), owner };
            if OF_PROMETHEUS.contains(&name.as_str()) {
                return Err(foreign("a Prometheus"));
            }
            let is_block = tsdb::parse_block_id(&name).is_some();
            if is_block && path.join(&name).join(tsdb::CHUNKS_DIR).exists() {
                return Err(foreign("a bucket or a Prometheus"));
            }
        }
        let lock = File::create(path.join(format!("isthmus-{role}.lock"))).map_err(io)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(DataFolderError::Locked { path: path.to_owned(), role }),
            Err(TryLockError::Error(error)) => Err(io(error)),
        }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl From<DataFolderError> for runtime::RoleError {
    fn from(error: DataFolderError) -> Self {
        match error {
            DataFolderError::Io { .. } => Self::failed(error),
            DataFolderError::NotAFolder { .. }
            | DataFolderError::Foreign { .. }
            | DataFolderError::Locked { .. } => Self::wrong_configuration(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_another_program_or_in_use_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("own");
        let held = DataFolder::open(&own, "store").unwrap();
        assert_eq!(held.path(), own);
        let error = DataFolder::open(&own, "store").unwrap_err().to_string();
        assert!(error.contains("another store uses it"), "{error}");
        drop(held);
        fs::create_dir_all(own.join("01HZY3VQ6J0000000000000000")).unwrap();
        assert!(DataFolder::open(&own, "store").is_ok(), "a folder with index headers is used again");

        let foreign = |inside: &str, owner: &str| {
            let path = dir.path().join(inside.replace('/', "-"));
            fs::create_dir_all(path.join(inside)).unwrap();
            let error = DataFolder::open(&path, "store").unwrap_err().to_string();
            assert!(error.contains(owner) && !path.join("isthmus-store.lock").exists(), "{error}");
        };
        foreign("wal", "belongs to a Prometheus");
        foreign("01HZY3VQ6J0000000000000000/chunks", "belongs to a bucket or a Prometheus");
        fs::write(dir.path().join("file"), "").unwrap();
        let error = DataFolder::open(&dir.path().join("file"), "store").unwrap_err().to_string();
        assert!(error.contains("it is not a folder"), "{error}");
    }
}
