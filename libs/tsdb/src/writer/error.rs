//! What can go wrong when a block is written.

use std::io;
use std::path::{Path, PathBuf};

use model::{Labels, Timestamp};

/// A block that cannot be written.
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
    /// The series is not behind the last one. Nothing was written of it.
    #[error("series {series} must come before {last}, which was already written")]
    Order {
        /// The series that was refused.
        series: Labels,
        /// The last series.
        last: Labels,
    },
    /// The series or its chunks cannot be in a block. Nothing was written of it.
    #[error("series {series}: {what}")]
    Series {
        /// The series that was refused.
        series: Labels,
        /// What is wrong with it.
        what: String,
    },
    /// The format has no room for so much.
    #[error("a block cannot have {0}; write several blocks")]
    TooLarge(&'static str),
    /// Samples lie outside of the times that the block is to cover.
    #[error("the block covers [{min}, {max}), but has samples from {first} to {last}")]
    Times {
        /// First instant of the block.
        min: Timestamp,
        /// First instant behind the block.
        max: Timestamp,
        /// First sample.
        first: Timestamp,
        /// Last sample.
        last: Timestamp,
    },
    /// There was no series with samples; nothing is left behind.
    #[error("no series was written; a block needs at least one")]
    Empty,
}

/// Says which file an error is of.
pub(super) fn at(path: &Path) -> impl Fn(io::Error) -> WriteError {
    move |error| WriteError::Io { path: path.to_owned(), error }
}
