//! Why a request has no response.

use std::{error::Error as StdError, fmt};

use tonic::{Code, Status};

use crate::connection_end::ConnectionEnd;
use crate::words::transport_words;

/// Why a request has no response, in one line that begins with the peer or the target of the request.
///
/// A response with a gRPC error status is a response, not an [`ChannelError`]. A tonic client turns this error into the gRPC
/// status in it, so a caller handles both in the same way.
#[derive(Debug)]
pub struct ChannelError {
    status: Box<Status>,
}

impl fmt::Display for ChannelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.status.message())
    }
}

impl StdError for ChannelError {
    /// tonic searches the sources of an error for a status; that is how the code and the message reach the caller.
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.status)
    }
}

impl ChannelError {
    /// The peer or target cannot be reached now; a retry, now elsewhere or later, can succeed.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::from(Status::unavailable(message))
    }

    /// The error of a transport, about `name` (an address or an authority).
    pub fn of(name: &str, error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        let error = error.into();
        let message = format!("{name}: {}", transport_words(&*error));
        let code = match ConnectionEnd::of(&*error) {
            Some(_) => Code::Unavailable,
            None => Status::try_from_error(error).map_or(Code::Unavailable, |status| status.code()),
        };
        Self::from(Status::new(code, message))
    }

    /// Whether a client made `status` of such an error: the request has no response. Otherwise the server sent the status, or
    /// the client did not accept the response.
    pub fn is_cause_of(status: &Status) -> bool {
        status.source().is_some_and(|cause| cause.is::<Self>())
    }

    /// The gRPC code that a caller sees.
    pub fn code(&self) -> Code {
        self.status.code()
    }

    /// Whether the same request may succeed later or elsewhere.
    pub fn is_retryable(&self) -> bool {
        self.code() == Code::Unavailable
    }
}

impl From<Status> for ChannelError {
    fn from(status: Status) -> Self {
        Self { status: Box::new(status) }
    }
}

impl From<ChannelError> for Status {
    fn from(error: ChannelError) -> Self {
        *error.status
    }
}
