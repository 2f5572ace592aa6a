//! Why a store did not answer.

use model::causes;
use tonic::{Code, Status};

/// A store's error: a gRPC code for callers, one line for people, and whether the same request may succeed later.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct StoreError {
    code: Code,
    message: String,
    retryable: bool,
}

impl StoreError {
    /// An error with this code. Only `Unavailable` says that trying again may help.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retryable: code == Code::Unavailable }
    }

    /// The request makes no sense; repeating it will not help.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, message)
    }

    /// The store cannot be reached or is not ready.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Code::Unavailable, message)
    }

    /// A limit was passed; the message names it.
    pub fn limit(message: impl Into<String>) -> Self {
        Self::new(Code::ResourceExhausted, message)
    }

    /// The answer is unusable: the peer broke the protocol.
    pub fn violation(message: impl Into<String>) -> Self {
        Self::new(Code::DataLoss, message)
    }

    /// The answer was given up, as `partial_response` asks for.
    pub fn aborted(message: impl Into<String>) -> Self {
        Self::new(Code::Aborted, message)
    }

    /// Something here went wrong that the caller cannot help.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Code::Internal, message)
    }

    /// The gRPC code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The message, without the code.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Whether the same request may succeed later.
    pub fn is_retryable(&self) -> bool {
        self.retryable
    }

    /// The same error with `context` in front, such as the name of the store.
    pub fn within(mut self, context: impl std::fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }
}

impl From<Status> for StoreError {
    fn from(status: Status) -> Self {
        let mut message = status.message().to_owned();
        // A failed connection hides its cause in the chain; one line has to tell it.
        for error in causes(&status).skip(1) {
            let text = error.to_string();
            // A status among the causes prints its own message once more.
            if !text.is_empty()
                && !message.contains(&text)
                && (message.is_empty() || !text.contains(&message))
            {
                if !message.is_empty() {
                    message.push_str(": ");
                }
                message.push_str(&text);
            }
        }
        if message.is_empty() {
            message = status.code().description().to_owned();
        }
        Self::new(status.code(), message)
    }
}

impl From<StoreError> for Status {
    fn from(error: StoreError) -> Self {
        Self::new(error.code, error.message)
    }
}
