//! The exit codes of errors of other layers.

use bucket::deletions::TombstonesError;
use bucket::{BlockFault, BucketError, DownloadError, ErrorKind, FetchError, OpenBlockError, PublishError};
use tsdb::{BlockError, WriteError};

use crate::error::{Cause, ToolError};

impl From<BucketError> for ToolError {
    fn from(error: BucketError) -> Self {
        Self::new(cause_of(error.kind()), error.to_string())
    }
}

fn cause_of(kind: ErrorKind) -> Cause {
    match kind {
        ErrorKind::NotFound | ErrorKind::NoBucket => Cause::Missing,
        ErrorKind::Conflict => Cause::Conflict,
        ErrorKind::Denied => Cause::Refused,
        ErrorKind::Unavailable => Cause::Unreachable,
        ErrorKind::Unsupported | ErrorKind::Config => Cause::Usage,
        ErrorKind::Corrupt | ErrorKind::TooLarge => Cause::Damaged,
        ErrorKind::Local => Cause::Failed,
    }
}

impl From<OpenBlockError> for ToolError {
    fn from(error: OpenBlockError) -> Self {
        let cause = match (error.store_error(), error.fault()) {
            (Some(error), _) => cause_of(error.kind()),
            (None, BlockFault::Gone) => Cause::Missing,
            (None, BlockFault::Corrupt | BlockFault::NewerVersion) => Cause::Damaged,
            (None, BlockFault::Unavailable) => Cause::Unreachable,
            (None, BlockFault::Refused) => Cause::Refused,
        };
        Self::new(cause, error.to_string())
    }
}

impl From<FetchError> for ToolError {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::Listing(error) => error.into(),
            FetchError::Incomplete { .. } => Self::new(Cause::Unreachable, error.to_string()),
        }
    }
}

impl From<TombstonesError> for ToolError {
    fn from(error: TombstonesError) -> Self {
        let cause = match &error {
            TombstonesError::Bucket(error) => cause_of(error.kind()),
            TombstonesError::Unusable { .. } => Cause::Damaged,
            TombstonesError::Full(_) | TombstonesError::Busy(_) => Cause::Conflict,
            TombstonesError::Lock(_) => Cause::Failed,
        };
        Self::new(cause, error.to_string())
    }
}

impl From<PublishError> for ToolError {
    fn from(error: PublishError) -> Self {
        let cause = match &error {
            PublishError::Local { source, .. } => return with_io_cause(source.kind(), &error.to_string()),
            PublishError::NoLabels(_) => Cause::Usage,
            PublishError::Different { .. } | PublishError::Unexpected { .. } | PublishError::Marked(_) => {
                Cause::Conflict
            }
            PublishError::Stopped(_) | PublishError::Bucket(_) => Cause::Failed,
        };
        match error {
            PublishError::Bucket(error) => error.into(),
            other => Self::new(cause, other.to_string()),
        }
    }
}

impl From<DownloadError> for ToolError {
    fn from(error: DownloadError) -> Self {
        let cause = match &error {
            DownloadError::Absent(_) => Cause::Missing,
            DownloadError::Meta { .. } | DownloadError::File { .. } => Cause::Damaged,
            DownloadError::Local { source, .. } => return with_io_cause(source.kind(), &error.to_string()),
            DownloadError::Bucket(_) => Cause::Failed,
        };
        match error {
            DownloadError::Bucket(error) => error.into(),
            other => Self::new(cause, other.to_string()),
        }
    }
}

impl From<BlockError> for ToolError {
    fn from(error: BlockError) -> Self {
        let cause = match (error.is_damage(), error.is_not_found()) {
            (true, _) => Cause::Damaged,
            (_, true) => Cause::Missing,
            _ => Cause::Failed,
        };
        Self::new(cause, error.to_string())
    }
}

impl From<WriteError> for ToolError {
    fn from(error: WriteError) -> Self {
        let cause = match &error {
            WriteError::Io { error: io, .. } if io.kind() == std::io::ErrorKind::AlreadyExists => {
                Cause::Conflict
            }
            WriteError::Io { error: io, .. } => return with_io_cause(io.kind(), &error.to_string()),
            WriteError::Order { .. } | WriteError::Series { .. } | WriteError::Times { .. } => Cause::Damaged,
            WriteError::TooLarge(_) | WriteError::Empty => Cause::Failed,
        };
        Self::new(cause, error.to_string())
    }
}

/// The cause of an error of the system, with a more precise message.
fn with_io_cause(kind: std::io::ErrorKind, message: &str) -> ToolError {
    ToolError::new(ToolError::from(std::io::Error::from(kind)).cause(), message)
}
