//! Whether a request failed because its connection ended, and what that says about the request.

use std::error::Error;

use h2::Reason;
use model::causes;

/// How the connection of a request that has no answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectionEnd {
    /// The server did not accept the request: it had announced the end of the connection (GOAWAY), refused the stream, or
    /// the request was still queued.
    NotSent,
    /// The connection was lost while the request waited. The server may have received it.
    Lost,
}

impl ConnectionEnd {
    /// The end of the connection that `error` reports; `None` for every other failure, such as a connection that could not be
    /// opened, a timeout, or a stream that the server reset on purpose.
    pub(crate) fn of(error: &(dyn Error + 'static)) -> Option<Self> {
        let mut end = None;
        for cause in causes(error) {
            if cause.is::<tonic::ConnectError>() || cause.is::<tonic::TimeoutExpired>() {
                return None;
            }
            if let Some(error) = cause.downcast_ref::<h2::Error>() {
                return Self::of_http2(error);
            }
            if let Some(error) = cause.downcast_ref::<hyper::Error>() {
                if error.is_canceled() {
                    end = Some(Self::NotSent);
                } else if error.is_closed() || error.is_timeout() || is_io(error) {
                    end = Some(Self::Lost);
                }
            }
        }
        end
    }

    fn of_http2(error: &h2::Error) -> Option<Self> {
        let reason = error.reason();
        if error.is_go_away() {
            let announced = matches!(reason, Some(Reason::NO_ERROR | Reason::ENHANCE_YOUR_CALM));
            let end = if announced { Self::NotSent } else { Self::Lost };
            return error.is_remote().then_some(end);
        }
        if error.is_reset() {
            return (error.is_remote() && reason == Some(Reason::REFUSED_STREAM)).then_some(Self::NotSent);
        }
        error.is_io().then_some(Self::Lost)
    }
}

/// Whether reading or writing the connection failed. hyper takes this cause out of the error of HTTP/2.
fn is_io(error: &hyper::Error) -> bool {
    error.source().is_some_and(|cause| cause.is::<std::io::Error>())
}
