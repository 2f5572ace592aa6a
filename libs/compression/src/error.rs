//! Why a message cannot be decompressed.

use std::io;

/// Why a message cannot be decompressed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DecompressError {
    /// It is larger than the limit.
    #[error("is larger than the limit")]
    TooLarge,
    /// Its bytes are not valid in this encoding.
    #[error("{0}")]
    Damaged(#[from] io::Error),
}
