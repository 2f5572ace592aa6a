//! Why a command failed, and its exit code.

use std::fmt;
use std::io;
use std::process::ExitCode;

/// The kind of a failure. Its number is the exit code, so that scripts can tell kinds apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Cause {
    /// Any other failure, such as a full disk or an interrupted read.
    Failed = runtime::EXIT_ERROR,
    /// The flags or a configuration are wrong.
    Usage = runtime::EXIT_USAGE,
    /// A bucket, block, folder or file does not exist.
    Missing = 3,
    /// Credentials or permissions do not permit the operation.
    Refused = 4,
    /// A different object or file exists already.
    Conflict = 5,
    /// The object store does not answer.
    Unreachable = 6,
    /// Data of a block is damaged.
    Damaged = 7,
    /// The reader of the output has closed the pipe, as `| head` does. The command exits without a failure.
    ClosedPipe = runtime::EXIT_OK,
}

/// The result of a command that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CommandOutcome {
    /// The work is done, or a check found no problem.
    Fine,
    /// A check found problems or differences, or a part of the work failed. They were reported.
    Found,
}

impl From<CommandOutcome> for ExitCode {
    fn from(outcome: CommandOutcome) -> Self {
        match outcome {
            CommandOutcome::Fine => Self::from(runtime::EXIT_OK),
            CommandOutcome::Found => Self::from(runtime::EXIT_ERROR),
        }
    }
}

/// A failure in one line: the object, what is wrong, what to do.
#[derive(Debug)]
pub(crate) struct ToolError {
    cause: Cause,
    message: String,
}

/// The result of a command.
pub(crate) type Result<T, E = ToolError> = std::result::Result<T, E>;

impl ToolError {
    /// A failure of a kind, with its message.
    pub(crate) fn new(cause: Cause, message: impl Into<String>) -> Self {
        // Messages of other layers may have several lines; a failure is printed as one.
        let message = message.into();
        let lines: Vec<&str> = message.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        Self { cause, message: lines.join(" ") }
    }

    /// Flags or a configuration that are wrong.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Cause::Usage, message)
    }

    /// The kind of the failure.
    pub(crate) fn cause(&self) -> Cause {
        self.cause
    }

    /// The exit code of the process.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.cause as u8)
    }
}

impl fmt::Display for ToolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<io::Error> for ToolError {
    fn from(error: io::Error) -> Self {
        let cause = match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Cause::Missing,
            io::ErrorKind::PermissionDenied => Cause::Refused,
            io::ErrorKind::BrokenPipe => Cause::ClosedPipe,
            io::ErrorKind::InvalidData => Cause::Damaged,
            io::ErrorKind::AlreadyExists => Cause::Conflict,
            _ => Cause::Failed,
        };
        Self::new(cause, error.to_string())
    }
}

impl From<serde_json::Error> for ToolError {
    fn from(error: serde_json::Error) -> Self {
        match error.io_error_kind() {
            Some(kind) => io::Error::from(kind).into(),
            None => Self::new(Cause::Failed, error.to_string()),
        }
    }
}

/// Adds to an error what the command was doing.
pub(crate) trait DescribeAction<T> {
    /// Puts `doing` before the message. The cause is kept.
    fn context(self, doing: impl fmt::Display) -> Result<T>;
}

impl<T, E: Into<ToolError>> DescribeAction<T> for std::result::Result<T, E> {
    fn context(self, doing: impl fmt::Display) -> Result<T> {
        self.map_err(|error| {
            let error = error.into();
            ToolError::new(error.cause, format!("{doing}: {}", error.message))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn context_keeps_the_cause_and_the_message_stays_one_line() {
        let error = Err::<(), _>(io::Error::new(io::ErrorKind::NotFound, "no\n  such thing\n"));
        let error = error.context("open /x").unwrap_err();
        assert_eq!((error.to_string().as_str(), error.cause()), ("open /x: no such thing", Cause::Missing));
    }
}
