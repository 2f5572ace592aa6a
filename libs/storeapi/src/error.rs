//! Why a store did not answer.

use model::causes;
use tonic::{Code, Status};

/// A store's error: a gRPC code for the caller, one line of text, and whether the same request may succeed later.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct StoreError {
    code: Code,
    message: String,
    retryable: bool,
    unanswered: bool,
}

impl StoreError {
    /// An error with this code. Only `Unavailable` is retryable.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retryable: code == Code::Unavailable, unanswered: false }
    }

    /// The request is invalid; repeating it does not help.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, message)
    }

    /// The store cannot be reached or is not ready.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Code::Unavailable, message)
    }

    /// The store did not answer: its connection failed, or the time was over.
    pub fn unanswered(message: impl Into<String>) -> Self {
        Self { unanswered: true, ..Self::unavailable(message) }
    }

    /// A limit was exceeded; the message names it.
    pub fn limit(message: impl Into<String>) -> Self {
        Self::new(Code::ResourceExhausted, message)
    }

    /// The peer violated the protocol; its answer cannot be used.
    pub fn violation(message: impl Into<String>) -> Self {
        Self::new(Code::DataLoss, message)
    }

    /// The answer was aborted because data is missing and `partial_response` does not allow that.
    pub fn aborted(message: impl Into<String>) -> Self {
        Self::new(Code::Aborted, message)
    }

    /// An internal error, which the caller cannot fix.
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

    /// Whether the store did not answer. Otherwise it reported the error itself, or its answer was rejected.
    pub fn is_unanswered(&self) -> bool {
        self.unanswered
    }

    /// The same error, with `context` (such as the name of the store) before its message.
    pub fn within(mut self, context: impl std::fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }
}

impl From<Status> for StoreError {
    fn from(status: Status) -> Self {
        let mut message = status.message().to_owned();
        // The cause of a failed connection is in the chain of sources; the line has to name it.
        for error in causes(&status).skip(1) {
            let text = error.to_string();
            // A status in the chain would print its own message again.
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
        Self { unanswered: mesh::ChannelError::is_cause_of(&status), ..Self::new(status.code(), message) }
    }
}

impl From<StoreError> for Status {
    fn from(error: StoreError) -> Self {
        Self::new(error.code, error.message)
    }
}
