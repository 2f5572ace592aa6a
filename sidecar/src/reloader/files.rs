//! Computes a digest of the watched files, and the directories to watch.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256, SHA256_OUTPUT_LEN};

/// SHA-256 of paths and contents.
pub(super) type Digest = [u8; SHA256_OUTPUT_LEN];

/// Maximum depth of subdirectories; a deeper tree is a mistake.
const MAX_DEPTH: usize = 32;

/// A file or directory cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub(super) struct FileError {
    path: PathBuf,
    source: io::Error,
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> FileError {
    move |source| FileError { path: path.to_owned(), source }
}

/// The state of the files.
pub(super) struct Scan {
    /// Directories to watch; known even if the digest is not.
    pub(super) directories: BTreeSet<PathBuf>,
    /// Digest of path and content of the configuration and of each file in the rule directories.
    pub(super) digest: Result<Digest, FileError>,
}

impl Scan {
    /// Reads the configuration file and all files in the rule directories.
    ///
    /// Symlinks to files are followed. Symlinks to directories inside a rule directory are not: Kubernetes
    /// has each file twice there, under its name and in `..data`.
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

/// The directory of `path`, and the directory of its symlink target.
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
            source: io::Error::other("directories are nested more than 32 levels deep"),
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

/// Adds a file. 0xff, which no UTF-8 path contains, separates the parts, so that different lists of files
/// give different bytes.
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
