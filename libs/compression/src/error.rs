//! Why a message cannot be decompressed.

use std::io;

use tonic::Status;

/// Why a message cannot be decompressed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DecompressError {
    /// It is larger than the limit.
    #[error("is larger than the limit")]
    TooLarge,
    /// There is not enough memory for it.
    #[error("{}", .0.message())]
    Refused(Status),
    /// Its bytes are not valid in this encoding.
    #[error("{0}")]
    Damaged(#[from] io::Error),
}
