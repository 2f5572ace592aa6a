//! What the watched files hold now, as one digest, and which folders tell of a change.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256, SHA256_OUTPUT_LEN};

/// SHA-256 over paths and contents.
pub(super) type Digest = [u8; SHA256_OUTPUT_LEN];

/// Folders below a rule folder are followed this deep; a deeper tree is a mistake.
const MAX_DEPTH: usize = 32;

/// A file or folder that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub(super) struct FileError {
    path: PathBuf,
    source: io::Error,
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> FileError {
    move |source| FileError { path: path.to_owned(), source }
}

/// One look at the files.
pub(super) struct Scan {
    /// Folders in which a change can show; known even where the digest is not.
    pub(super) directories: BTreeSet<PathBuf>,
    /// Path and content of the configuration and of every file in the rule folders.
    pub(super) digest: Result<Digest, FileError>,
}

impl Scan {
    /// Looks at the configuration file and at all files below the rule folders.
    ///
    /// Symlinks to files are followed, symlinks to folders below a rule folder are not: Kubernetes keeps its files
    /// twice there, once by the name that counts and once behind `..data`.
    pub(super) fn of(file: Option<&Path>, rule_dirs: &[PathBuf]) -> Self {
        let mut directories = BTreeSet::new();
        let mut context = Context::new(&SHA256);
        let digest = (|| {
            if let Some(file) = file {
                directories.extend(parents(file));
                add_file(&mut context, file)?;
            }
            for dir in rule_dirs {
                directories.extend(parents(dir));
            }
            for dir in rule_dirs {
                let resolved = fs::canonicalize(dir).map_err(at(dir))?;
                add_folder(&mut context, &resolved, &mut directories, 0)?;
            }
            let mut digest = [0; SHA256_OUTPUT_LEN];
            digest.copy_from_slice(context.clone().finish().as_ref());
            Ok(digest)
        })();
        Self { directories, digest }
    }
}

/// The folder that holds `path`, and the one that holds what it points to.
fn parents(path: &Path) -> impl Iterator<Item = PathBuf> {
    let parent = |path: &Path| match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Some(PathBuf::from(".")),
        parent => parent.map(Path::to_owned),
    };
    let behind = fs::canonicalize(path).ok().and_then(|target| parent(&target));
    parent(path).into_iter().chain(behind)
}

fn add_folder(
    context: &mut Context,
    dir: &Path,
    directories: &mut BTreeSet<PathBuf>,
    depth: usize,
) -> Result<(), FileError> {
    if depth > MAX_DEPTH {
        return Err(FileError {
            path: dir.to_owned(),
            source: io::Error::other("folders too deep in one another"),
        });
    }
    directories.insert(dir.to_owned());
    let entries = fs::read_dir(dir).map_err(at(dir))?;
    let mut entries = entries.collect::<Result<Vec<_>, _>>().map_err(at(dir))?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        if entry.file_type().map_err(at(&path))?.is_dir() {
            add_folder(context, &path, directories, depth + 1)?;
        } else if fs::metadata(&path).map_err(at(&path))?.is_file() {
            add_file(context, &path)?;
        }
    }
    Ok(())
}

/// Adds a file so that no two different lists of files give the same bytes: 0xff occurs in no UTF-8 path.
fn add_file(context: &mut Context, path: &Path) -> Result<(), FileError> {
    let mut file = File::open(path).map_err(at(path))?;
    context.update(&[0xff]);
    context.update(path.as_os_str().as_encoded_bytes());
    context.update(&[0xff]);
    let mut buffer = [0; 16 << 10];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => context.update(&buffer[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(at(path)(error)),
        }
    }
}
