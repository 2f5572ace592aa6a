//! Durable file operations of the shipper.
//!
//! All changes on disk go through this file, so that fault tests can kill the process before and after each
//! of them.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A file operation failed.
#[derive(Debug, thiserror::Error)]
#[error("{action} {}: {}", path.display(), explained(source))]
pub(crate) struct DiskError {
    action: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl DiskError {
    pub(crate) fn new(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self { action, path: path.to_owned(), source }
    }

    pub(crate) fn is_missing(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }

    /// Whether hard links are impossible there, but a copy is possible.
    pub(crate) fn is_link_unsupported(&self) -> bool {
        use io::ErrorKind::{CrossesDevices, PermissionDenied, TooManyLinks, Unsupported};
        matches!(self.source.kind(), CrossesDevices | PermissionDenied | TooManyLinks | Unsupported)
    }
}

/// The message of the system, and advice where the message is not enough.
fn explained(source: &io::Error) -> String {
    let advice = match source.kind() {
        io::ErrorKind::StorageFull => "; free space on this file system, uploads then continue",
        io::ErrorKind::QuotaExceeded => "; raise the quota or free space, uploads then continue",
        io::ErrorKind::ReadOnlyFilesystem => {
            "; mount the data directory of Prometheus writable for the sidecar"
        }
        io::ErrorKind::PermissionDenied => "; run the sidecar as the same user as Prometheus",
        _ => "",
    };
    format!("{source}{advice}")
}

fn at(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DiskError {
    move |source| DiskError::new(action, path, source)
}

/// A point at which a fault test may kill the process.
#[inline]
fn step() {
    #[cfg(test)]
    crate::faults::step();
}

/// Replaces a file atomically: the name always refers to the complete old or new content.
pub(crate) fn replace(path: &Path, content: &[u8]) -> Result<(), DiskError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    let temporary = PathBuf::from(name);
    let written = (|| {
        step();
        let mut file = File::create(&temporary).map_err(at("write", &temporary))?;
        file.write_all(content).map_err(at("write", &temporary))?;
        file.sync_all().map_err(at("flush", &temporary))?;
        step();
        fs::rename(&temporary, path).map_err(at("replace", path))?;
        step();
        sync_parent(path)
    })();
    if written.is_err() {
        // A partial file is useless and takes space on a full disk.
        drop(fs::remove_file(&temporary));
    }
    written
}

/// Creates a directory and its parents.
pub(crate) fn create_folder(path: &Path) -> Result<(), DiskError> {
    step();
    fs::create_dir_all(path).map_err(at("create directory", path))
}

/// Creates a hard link.
pub(crate) fn link(from: &Path, to: &Path) -> Result<(), DiskError> {
    step();
    fs::hard_link(from, to).map_err(at("link", from))
}

/// Copies a file and flushes it to disk.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<(), DiskError> {
    step();
    fs::copy(from, to).map_err(at("copy", from))?;
    File::open(to).and_then(|file| file.sync_all()).map_err(at("flush", to))
}

/// Renames a directory and flushes it to disk.
pub(crate) fn rename_folder(from: &Path, to: &Path) -> Result<(), DiskError> {
    step();
    sync_folder(from)?;
    fs::rename(from, to).map_err(at("rename", from))?;
    step();
    sync_parent(to)
}

/// Removes a directory with its content, if it exists.
pub(crate) fn remove_folder(path: &Path) -> Result<(), DiskError> {
    step();
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(DiskError::new("remove", path, error)),
        _ => Ok(()),
    }
}

/// Names and types of the entries of a directory, sorted by name; empty if the directory does not exist.
pub(crate) fn entries(path: &Path) -> Result<Vec<(String, fs::FileType)>, DiskError> {
    let listing = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listing => listing.map_err(at("list", path))?,
    };
    let mut entries = Vec::new();
    for entry in listing {
        let entry = entry.map_err(at("list", path))?;
        // The shipper only creates names in UTF-8.
        let Ok(name) = entry.file_name().into_string() else { continue };
        match entry.file_type() {
            Ok(kind) => entries.push((name, kind)),
            // The entry was removed since it was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(DiskError::new("read metadata of", &entry.path(), error)),
        }
    }
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(entries)
}

pub(crate) fn sync_folder(path: &Path) -> Result<(), DiskError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(at("flush", path))
}

fn sync_parent(path: &Path) -> Result<(), DiskError> {
    path.parent().map_or(Ok(()), sync_folder)
}
