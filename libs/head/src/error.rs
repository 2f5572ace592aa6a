//! Errors of a head.

use std::io;
use std::path::{Path, PathBuf};

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
