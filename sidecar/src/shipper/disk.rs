//! Files that must outlive a power cut, and the few ways in which the shipper changes the disk.
//!
//! Every change goes through here, so that the fault tests can end the process before and after each of them.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// An operation on a file or folder that failed.
#[derive(Debug, thiserror::Error)]
#[error("{action} {}: {}", path.display(), explained(source))]
pub(super) struct DiskError {
    action: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl DiskError {
    pub(super) fn new(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self { action, path: path.to_owned(), source }
    }

    pub(super) fn is_missing(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }

    /// Whether a hard link cannot be made there, but a copy can.
    pub(super) fn is_no_place_for_links(&self) -> bool {
        use io::ErrorKind::{CrossesDevices, PermissionDenied, TooManyLinks, Unsupported};
        matches!(self.source.kind(), CrossesDevices | PermissionDenied | TooManyLinks | Unsupported)
    }
}

/// The system's words, and what to do where they hide it.
fn explained(source: &io::Error) -> String {
    let advice = match source.kind() {
        io::ErrorKind::StorageFull => "; free space on this file system, then it goes on by itself",
        io::ErrorKind::QuotaExceeded => "; raise the quota or free space, then it goes on by itself",
        io::ErrorKind::ReadOnlyFilesystem => "; mount Prometheus' data folder writable for the sidecar",
        io::ErrorKind::PermissionDenied => "; run the sidecar as the user that Prometheus runs as",
        _ => "",
    };
    format!("{source}{advice}")
}

fn at(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DiskError {
    move |source| DiskError::new(action, path, source)
}

/// A moment at which a fault test may end the process.
#[inline]
fn step() {
    #[cfg(test)]
    super::faults::step();
}

/// Replaces a file as a whole. At every moment the name leads to the old content or to the new one.
pub(super) fn replace(path: &Path, content: &[u8]) -> Result<(), DiskError> {
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
        // What is left of it helps nobody, and is in the way on a full disk.
        drop(fs::remove_file(&temporary));
    }
    written
}

/// Creates a folder and those above it.
pub(super) fn create_folder(path: &Path) -> Result<(), DiskError> {
    step();
    fs::create_dir_all(path).map_err(at("create folder", path))
}

/// Gives a file a second name.
pub(super) fn link(from: &Path, to: &Path) -> Result<(), DiskError> {
    step();
    fs::hard_link(from, to).map_err(at("link", from))
}

/// Copies a file, down to the disk.
pub(super) fn copy(from: &Path, to: &Path) -> Result<(), DiskError> {
    step();
    fs::copy(from, to).map_err(at("copy", from))?;
    File::open(to).and_then(|file| file.sync_all()).map_err(at("flush", to))
}

/// Renames a folder whose entries are on disk.
pub(super) fn rename_folder(from: &Path, to: &Path) -> Result<(), DiskError> {
    step();
    sync_folder(from)?;
    fs::rename(from, to).map_err(at("rename", from))?;
    step();
    sync_parent(to)
}

/// Removes a folder and all in it; nothing happens where there is none.
pub(super) fn remove_folder(path: &Path) -> Result<(), DiskError> {
    step();
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(DiskError::new("remove", path, error)),
        _ => Ok(()),
    }
}

/// Names and kinds of what is in a folder, in the order of names; nothing where there is no folder.
pub(super) fn entries(path: &Path) -> Result<Vec<(String, fs::FileType)>, DiskError> {
    let listing = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listing => listing.map_err(at("list", path))?,
    };
    let mut entries = Vec::new();
    for entry in listing {
        let entry = entry.map_err(at("list", path))?;
        // A name that is no text is none of ours.
        let Ok(name) = entry.file_name().into_string() else { continue };
        match entry.file_type() {
            Ok(kind) => entries.push((name, kind)),
            // Gone since it was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(DiskError::new("look at", &entry.path(), error)),
        }
    }
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(entries)
}

pub(super) fn sync_folder(path: &Path) -> Result<(), DiskError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(at("flush", path))
}

fn sync_parent(path: &Path) -> Result<(), DiskError> {
    path.parent().map_or(Ok(()), sync_folder)
}
