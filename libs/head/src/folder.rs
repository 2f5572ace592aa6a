//! A data folder: what may be one, and who uses it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use tsdb::parse_block_id;

use crate::error::{HeadError, at};

const LOCK_FILE: &str = "lock";

/// What a Prometheus and we write into a data folder, beside blocks.
const KNOWN: [&str; 7] =
    ["wal", "wbl", "chunks_head", LOCK_FILE, "queries.active", "thanos", "thanos.shipper.json"];

/// What file systems and we put into a folder before there are samples.
const NEUTRAL: [&str; 1] = ["lost+found"];

/// A data folder that no other process uses, until it is dropped.
pub(crate) struct FolderLock {
    file: File,
    path: PathBuf,
    /// Whether the file is removed in the end, because it was created for a folder that is refused.
    is_removed: bool,
}

impl FolderLock {
    /// Locks a data folder for this process. It is created if it is missing.
    ///
    /// # Errors
    /// When another process uses it, or it is not a data folder; when it cannot be created or read.
    pub(crate) fn lock(dir: &Path) -> Result<Self, HeadError> {
        fs::create_dir_all(dir).map_err(at(dir))?;
        if let Some(found) = foreign(dir).map_err(at(dir))? {
            return Err(HeadError::Foreign { dir: dir.to_owned(), found });
        }
        let path = dir.join(LOCK_FILE);
        let is_removed = !path.exists();
        let file =
            OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(at(&path))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { file, path, is_removed }),
            Err(TryLockError::WouldBlock) => Err(HeadError::Locked(dir.to_owned())),
            Err(TryLockError::Error(error)) => Err(at(&path)(error)),
        }
    }

    /// The folder is not refused.
    pub(crate) fn keep(&mut self) {
        self.is_removed = false;
    }
}

impl Drop for FolderLock {
    fn drop(&mut self) {
        if self.is_removed {
            let _ = fs::remove_file(&self.path);
        }
        // A child process that is just being started has the file, too: closing it is not enough.
        let _ = self.file.unlock();
    }
}

/// Some names of what is in a directory, if nothing of it belongs to a data folder.
fn foreign(dir: &Path) -> io::Result<Option<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let stem = name.split('.').next().unwrap_or_default();
        if KNOWN.contains(&&*name) || stem == "chunk_snapshot" || parse_block_id(stem).is_some() {
            return Ok(None);
        }
        if !name.starts_with('.') && !NEUTRAL.contains(&&*name) {
            names.push(name);
        }
    }
    names.sort_unstable();
    let more = if names.len() > 3 { " and more" } else { "" };
    names.truncate(3);
    Ok((!names.is_empty()).then(|| names.join(", ") + more))
}
