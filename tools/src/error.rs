//! Why a command failed, and the exit code that says so.

use std::fmt;
use std::io;
use std::process::ExitCode;

/// What kind of thing went wrong; its number is the exit code, so that scripts can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Cause {
    /// Anything that is none of the others: a full disk, an interrupted read.
    Failed = runtime::EXIT_ERROR,
    /// The flags or a configuration are not what they have to be.
    Usage = runtime::EXIT_USAGE,
    /// A bucket, block, folder or file is not there.
    Missing = 3,
    /// Credentials or permissions do not allow it.
    Refused = 4,
    /// What is there already is not what was to be put there.
    Conflict = 5,
    /// The object store does not answer.
    Unreachable = 6,
    /// Bytes of a block are not what they have to be.
    Damaged = 7,
    /// Nobody reads the output any more, as behind `| head`: the end, but no failure.
    ClosedPipe = runtime::EXIT_OK,
}

/// What a command that ran to its end has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Done, or nothing was found that is wrong.
    Fine,
    /// A check found problems or differences, or a part of the work could not be done; they were reported.
    Found,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Fine => Self::from(runtime::EXIT_OK),
            Outcome::Found => Self::from(runtime::EXIT_ERROR),
        }
    }
}

/// A failure in one line: which object, what is wrong, what to do.
#[derive(Debug)]
pub(crate) struct ToolError {
    cause: Cause,
    message: String,
}

/// What commands give back.
pub(crate) type Result<T, E = ToolError> = std::result::Result<T, E>;

impl ToolError {
    /// A failure of a kind, with its line.
    pub(crate) fn new(cause: Cause, message: impl Into<String>) -> Self {
        // Messages of other layers may have several lines; a failure has one.
        let message = message.into();
        let lines: Vec<&str> = message.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        Self { cause, message: lines.join(" ") }
    }

    /// Flags or a configuration that are wrong.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Cause::Usage, message)
    }

    /// What kind of thing went wrong.
    pub(crate) fn cause(&self) -> Cause {
        self.cause
    }

    /// The code that the process ends with.
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

/// Says what was being done when something failed.
pub(crate) trait Context<T> {
    /// Puts `doing` before the message; the cause stays.
    fn context(self, doing: impl fmt::Display) -> Result<T>;
}

impl<T, E: Into<ToolError>> Context<T> for std::result::Result<T, E> {
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
