//! Listings of a local directory. Files whose names no object can have are skipped: the client of the store would fail the
//! whole listing because of one.

use std::fs::Metadata;
use std::io;
use std::path::Path;

use model::Timestamp;
use object_store::path::Path as ObjectPath;

/// Most nested folders, which bounds a circle of symbolic links.
const MAX_DEPTH: usize = 32;

/// A file or a folder.
#[derive(Debug)]
pub(crate) struct LocalEntry {
    /// Its name as an object, relative to the root.
    pub(crate) name: String,
    pub(crate) is_folder: bool,
    pub(crate) size_bytes: u64,
    pub(crate) last_modified: Timestamp,
}

/// The direct content of folder `dir` below `root`; empty if it does not exist.
///
/// # Errors
/// The folder cannot be read, or `root` does not exist: its disk may not be mounted.
pub(crate) fn children(root: &Path, dir: &str) -> io::Result<Vec<LocalEntry>> {
    let mut found = Vec::new();
    let entries = match std::fs::read_dir(root.join(dir)) {
        Ok(entries) => entries,
        Err(error) if is_missing(&error) => {
            check_root(root)?;
            return Ok(found);
        }
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| is_object_name(name)) else {
            tracing::debug!(file = ?entry.path(), "file has a name that no object can have, it is skipped");
            continue;
        };
        let name = if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") };
        match std::fs::metadata(entry.path()) {
            Ok(metadata) => found.push(LocalEntry::new(name, &metadata)),
            // It was removed meanwhile, or is a symbolic link to nothing.
            Err(error) if is_missing(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// Fails if the folder of a bucket does not exist.
///
/// # Errors
/// It is missing, or cannot be looked up.
pub(crate) fn check_root(root: &Path) -> io::Result<()> {
    match std::fs::metadata(root) {
        Ok(_) => Ok(()),
        Err(error) if is_missing(&error) => {
            let text = "the folder of the bucket does not exist any more: create it, or mount its disk";
            Err(io::Error::new(error.kind(), text))
        }
        Err(error) => Err(error),
    }
}

/// All files below folder `dir` of `root`.
///
/// # Errors
/// A folder cannot be read.
pub(crate) fn descendants(root: &Path, dir: &str) -> io::Result<Vec<LocalEntry>> {
    let mut files = Vec::new();
    let mut folders = vec![(dir.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        for entry in children(root, &folder)? {
            if !entry.is_folder {
                files.push(entry);
            } else if depth < MAX_DEPTH {
                folders.push((entry.name, depth + 1));
            }
        }
    }
    Ok(files)
}

impl LocalEntry {
    fn new(name: String, metadata: &Metadata) -> Self {
        let since = metadata.modified().ok().and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
        let millis = since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX));
        Self {
            name,
            is_folder: metadata.is_dir(),
            size_bytes: metadata.len(),
            last_modified: Timestamp::from_millis(millis),
        }
    }
}

/// A missing folder, or a file in place of one.
fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Whether a file's name is that of an object. `name#1` is a file that is being written.
fn is_object_name(name: &str) -> bool {
    let is_unfinished = name
        .rsplit_once('#')
        .is_some_and(|(_, number)| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()));
    !is_unfinished && ObjectPath::parse(name).is_ok()
}
