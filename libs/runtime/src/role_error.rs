//! Why a role does not start or does not go on, and the exit code for it.

use std::fmt;
use std::process::ExitCode;

use crate::serve::BindError;

/// An error of any kind.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Exit code of a role that was asked to stop.
pub const EXIT_OK: u8 = 0;
/// Exit code of a role that failed.
pub const EXIT_ERROR: u8 = 1;
/// Exit code for wrong flags, a wrong configuration file or a wrong credential: a restart does not help.
pub const EXIT_USAGE: u8 = 2;

/// The error that ends a role, with the exit code of the process.
///
/// The text is that of the cause. Crates whose errors know their exit code (such as `bucket`) convert them, so that `?`
/// keeps the code.
#[derive(Debug)]
pub struct RoleError {
    cause: BoxError,
    exit_code: u8,
}

impl RoleError {
    /// The role failed: exit code 1.
    pub fn failed(cause: impl Into<BoxError>) -> Self {
        Self::with_exit_code(EXIT_ERROR, cause)
    }

    /// The flags, a configuration file or a credential is wrong, so that a restart does not help: exit code 2.
    pub fn wrong_configuration(cause: impl Into<BoxError>) -> Self {
        Self::with_exit_code(EXIT_USAGE, cause)
    }

    /// An error with the exit code that its cause calls for.
    pub fn with_exit_code(exit_code: u8, cause: impl Into<BoxError>) -> Self {
        Self { cause: cause.into(), exit_code }
    }

    /// The exit code of the process.
    pub fn exit_code(&self) -> u8 {
        self.exit_code
    }

    /// Prints `error: CAUSE` to standard error and returns the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        eprintln!("error: {self}");
        ExitCode::from(self.exit_code)
    }
}

impl fmt::Display for RoleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cause.fmt(f)
    }
}

impl std::error::Error for RoleError {
    /// The source of the cause: the cause itself is what is displayed.
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.source()
    }
}

impl From<BoxError> for RoleError {
    fn from(cause: BoxError) -> Self {
        Self::failed(cause)
    }
}

impl From<BindError> for RoleError {
    fn from(cause: BindError) -> Self {
        Self::failed(cause)
    }
}

impl From<std::io::Error> for RoleError {
    fn from(cause: std::io::Error) -> Self {
        Self::failed(cause)
    }
}

impl From<tokio::task::JoinError> for RoleError {
    fn from(cause: tokio::task::JoinError) -> Self {
        Self::failed(cause)
    }
}

/// What is wrong with the flags and the configuration files of a role: all mistakes, each in one line.
///
/// ```
/// let mut mistakes = runtime::ConfigMistakes::default();
/// let port = mistakes.note("http".parse::<u16>().map_err(|error| format!("--port=http: {error}")));
/// assert!(port.is_none());
/// assert_eq!(mistakes.to_string(), "--port=http: invalid digit found in string");
/// assert!(mistakes.or_ok(()).is_err());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct ConfigMistakes(Vec<String>);

impl ConfigMistakes {
    /// Adds a mistake: which flag or file, what is wrong, what was expected.
    pub fn push(&mut self, mistake: impl Into<String>) {
        self.0.push(mistake.into());
    }

    /// The value, or `None` after its mistake was added.
    pub fn note<T>(&mut self, checked: Result<T, impl Into<Self>>) -> Option<T> {
        checked.map_err(|mistakes| self.0.extend(mistakes.into().0)).ok()
    }

    /// `value` where nothing is wrong.
    ///
    /// # Errors
    /// All mistakes, where there is one.
    pub fn or_ok<T>(self, value: T) -> Result<T, Self> {
        if self.0.is_empty() { Ok(value) } else { Err(self) }
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The mistakes in the order in which they were added.
    pub fn lines(&self) -> &[String] {
        &self.0
    }

    /// Prints `error: MISTAKE` for each mistake to standard error and returns exit code 2.
    pub fn report(&self) -> ExitCode {
        self.0.iter().for_each(|mistake| eprintln!("error: {mistake}"));
        ExitCode::from(EXIT_USAGE)
    }
}

impl From<String> for ConfigMistakes {
    fn from(mistake: String) -> Self {
        Self(vec![mistake])
    }
}

impl FromIterator<String> for ConfigMistakes {
    fn from_iter<I: IntoIterator<Item = String>>(mistakes: I) -> Self {
        Self(mistakes.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_error_reads_like_its_cause_and_keeps_the_exit_code() {
        let error = RoleError::wrong_configuration("bucket b: the key is wrong");
        assert_eq!(
            (error.to_string().as_str(), error.exit_code()),
            ("bucket b: the key is wrong", EXIT_USAGE)
        );
        assert_eq!(RoleError::from(std::io::Error::other("disk is full")).exit_code(), EXIT_ERROR);
    }
}
