//! Errors of a head.

use std::io;
use std::path::{Path, PathBuf};

use model::Labels;
use tsdb::{BlockError, WriteError};

/// A head that cannot be opened, written or cut into a block.
#[derive(Debug, thiserror::Error)]
pub enum HeadError {
    /// A file cannot be read or written.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong.
        #[source]
        problem: io::Error,
    },
    /// Another process uses the directory.
    #[error("{}: another process uses this data folder", .0.display())]
    Locked(PathBuf),
    /// The directory has other things and nothing of a data folder. Nothing was written to it.
    #[error("{}: this is not a data folder, it contains {found}; choose an empty folder", dir.display())]
    Foreign {
        /// The directory.
        dir: PathBuf,
        /// Some of what is there.
        found: String,
    },
    /// A later version wrote something that this one cannot read. Nothing was written to the directory.
    #[error("{}: {what} is not known to this version; a later one wrote it, use that one", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// What is not known.
        what: String,
    },
    /// A chunk that crosses the end of a block cannot be decoded. No block is cut, and its samples stay in the head.
    #[error("series {0}: a chunk cannot be decoded, no block is cut; its samples stay in the head")]
    Undecodable(Labels),
    /// A block that was just written cannot be read.
    #[error(transparent)]
    Damaged(Box<BlockError>),
    /// The block cannot be written.
    #[error(transparent)]
    Block(#[from] WriteError),
}

/// Names the file of an error.
pub(crate) fn at(path: &Path) -> impl Fn(io::Error) -> HeadError + '_ {
    move |problem| HeadError::File { path: path.to_owned(), problem }
}
