//! Errors of writing a block.

use std::io;
use std::path::{Path, PathBuf};

use model::{Labels, Timestamp};

/// Why a block cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// A file cannot be written. The block cannot be finished.
    #[error("write {}: {error}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong.
        error: io::Error,
    },
    /// The series does not sort after the last one. Nothing of it was written.
    #[error("series {series} must come before {last}, which was already written")]
    Order {
        /// The series that was rejected.
        series: Labels,
        /// The last series.
        last: Labels,
    },
    /// The series or its chunks are invalid. Nothing of it was written.
    #[error("series {series}: {what}")]
    Series {
        /// The series that was rejected.
        series: Labels,
        /// What is wrong with it.
        what: String,
    },
    /// The block is too large for the format.
    #[error("a block cannot have {0}; write several blocks")]
    TooLarge(&'static str),
    /// Samples are outside of the times that the block covers.
    #[error("the block covers [{min}, {max}), but has samples from {first} to {last}")]
    Times {
        /// First instant of the block.
        min: Timestamp,
        /// First instant after the block.
        max: Timestamp,
        /// First sample.
        first: Timestamp,
        /// Last sample.
        last: Timestamp,
    },
    /// There was no series with samples. The directory was removed.
    #[error("no series was written; a block needs at least one")]
    Empty,
}

/// Adds the path of the file to an error.
pub(super) fn at(path: &Path) -> impl Fn(io::Error) -> WriteError {
    move |error| WriteError::Io { path: path.to_owned(), error }
}
