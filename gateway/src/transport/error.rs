//! Errors of streams and connections, classified by what a caller can do.

use std::{error::Error as StdError, fmt, net::SocketAddr};

use mesh::Transport;
use model::{causes, root_cause};
use rustls::PeerIncompatible;
use tonic::Status;

/// HTTP/3's code for a cancelled request.
const H3_CANCELLED: u64 = 0x10c;
/// HTTP/3's code for a request that was rejected before it was processed.
const H3_REJECTED: u64 = 0x10b;
/// HTTP/3's code for all other errors.
const H3_INTERNAL: u64 = 0x102;

/// Why a stream ended before it was complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamErrorKind {
    /// The peer or the caller cancelled the request.
    Cancelled,
    /// The peer did not process the request; sending it again is safe.
    Refused,
    /// The connection was lost.
    Lost,
    /// The peer reset the stream or violated the protocol.
    Reset,
}

/// The error of a stream that ended before it was complete. Displays as one line.
///
/// A gateway forwards it as a reset with the code of its kind, so that the next hop sees the same kind.
#[derive(Debug)]
pub struct StreamError {
    kind: StreamErrorKind,
    message: String,
    /// hyper takes the reset code from the first h2 error among an error's sources.
    code: h2::Error,
}

impl StreamError {
    /// An error of this kind.
    pub fn new(kind: StreamErrorKind, message: impl Into<String>) -> Self {
        let code = match kind {
            StreamErrorKind::Cancelled => h2::Reason::CANCEL,
            StreamErrorKind::Refused => h2::Reason::REFUSED_STREAM,
            StreamErrorKind::Lost | StreamErrorKind::Reset => h2::Reason::INTERNAL_ERROR,
        };
        Self { kind, message: message.into(), code: code.into() }
    }

    /// The caller cancelled.
    pub(crate) fn cancelled() -> Self {
        Self::new(StreamErrorKind::Cancelled, "cancelled by the caller")
    }

    /// What a caller can do about it.
    pub fn kind(&self) -> StreamErrorKind {
        self.kind
    }

    /// The HTTP/3 code to reset a stream with.
    pub(super) fn h3_code(&self) -> u64 {
        match self.kind {
            StreamErrorKind::Cancelled => H3_CANCELLED,
            StreamErrorKind::Refused => H3_REJECTED,
            StreamErrorKind::Lost | StreamErrorKind::Reset => H3_INTERNAL,
        }
    }

    pub(crate) fn from_hyper(error: &hyper::Error) -> Self {
        let reset = causes(error).find_map(|e| e.downcast_ref::<h2::Error>());
        let kind = match reset.and_then(h2::Error::reason) {
            Some(h2::Reason::CANCEL) => StreamErrorKind::Cancelled,
            Some(h2::Reason::REFUSED_STREAM) => StreamErrorKind::Refused,
            Some(_) if reset.is_some_and(|e| e.is_reset()) => StreamErrorKind::Reset,
            _ => StreamErrorKind::Lost,
        };
        Self::new(kind, of_hyper(error).1)
    }

    pub(super) fn from_h3(error: &::h3::error::StreamError) -> Self {
        use ::h3::error::StreamError as E;
        let kind = match error {
            E::RemoteTerminate { code, .. } => match code.value() {
                H3_CANCELLED => StreamErrorKind::Cancelled,
                H3_REJECTED => StreamErrorKind::Refused,
                _ => StreamErrorKind::Reset,
            },
            E::ConnectionError { .. } => StreamErrorKind::Lost,
            E::RemoteClosing { .. } => StreamErrorKind::Refused,
            _ => StreamErrorKind::Reset,
        };
        Self::new(kind, words_of_stream(error))
    }
}

/// Why a stream of HTTP/3 ended, without the names that the library gives to its states.
fn words_of_stream(error: &::h3::error::StreamError) -> String {
    use ::h3::error::StreamError as E;
    match error {
        E::RemoteTerminate { code, .. } => match code.value() {
            H3_CANCELLED => "the peer cancelled the request".to_owned(),
            H3_REJECTED => "the peer did not process the request".to_owned(),
            code => format!("the peer reset the stream (HTTP/3 error {code:#x})"),
        },
        E::ConnectionError { 0: error, .. } => words_of_connection(error),
        E::RemoteClosing { .. } => "the peer is closing the connection".to_owned(),
        E::HeaderTooBig { actual_size, max_size, .. } => {
            format!("the headers have {actual_size} bytes, the limit is {max_size} bytes")
        }
        E::StreamError { reason, .. } => format!("HTTP/3 was violated: {reason}"),
        E::Undefined { 0: cause, .. } => format!("the stream was interrupted: {}", root_cause(&**cause)),
        _ => "the stream was interrupted".to_owned(),
    }
}

/// Why a connection of HTTP/3 ended.
pub(super) fn words_of_connection(error: &::h3::error::ConnectionError) -> String {
    use ::h3::error::{Code, ConnectionError as E, LocalError};
    match error {
        E::Timeout { .. } => "no answer".to_owned(),
        E::Local { error: LocalError::Application { code, reason, .. }, .. }
            if *code != Code::H3_NO_ERROR =>
        {
            format!("the peer violated HTTP/3: {reason}")
        }
        E::Local { .. } => "this gateway closed the connection".to_owned(),
        E::Remote { 0: cause, .. } => words_of_quic(cause),
        _ => "the connection to the peer was lost".to_owned(),
    }
}

/// What our adapter passed to HTTP/3.
fn words_of_quic(cause: &::h3::quic::ConnectionErrorIncoming) -> String {
    use ::h3::quic::ConnectionErrorIncoming as E;
    match cause {
        E::Timeout => "no answer".to_owned(),
        E::ApplicationClose { .. } => "the peer closed the connection".to_owned(),
        E::InternalError(cause) => format!("the connection to the peer was lost: {cause}"),
        E::Undefined(cause) => match cause.downcast_ref::<quinn::ConnectionError>() {
            Some(cause) => of_quic(cause).1,
            None => format!("the connection to the peer was lost: {cause}"),
        },
    }
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for StreamError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.code)
    }
}

impl From<StreamError> for Status {
    fn from(error: StreamError) -> Self {
        match error.kind {
            StreamErrorKind::Cancelled => Self::cancelled(error.message),
            StreamErrorKind::Refused | StreamErrorKind::Lost => Self::unavailable(error.message),
            StreamErrorKind::Reset => Self::internal(error.message),
        }
    }
}

/// Why an attempt to connect failed, or why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionFailure {
    /// No answer in time, or the port is closed. The other transport may work.
    NoAnswer,
    /// The peer answered, and one side refused the other: certificate, protocol or authorisation. The other transport is
    /// not tried, because that would hide the refusal.
    Refused,
    /// The connection was established and then lost.
    Lost,
}

/// Why a connection could not be established. Displays as one line with address and transport.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{address} ({transport}): {reason}")]
pub struct ConnectError {
    /// The address that was dialled.
    pub address: SocketAddr,
    /// The transport that was tried.
    pub transport: Transport,
    /// The class, which decides what the dialer does next.
    pub failure: ConnectionFailure,
    /// The reason in one line.
    pub reason: String,
}

impl ConnectError {
    pub(super) fn quic(address: SocketAddr, error: &quinn::ConnectionError) -> Self {
        let (failure, reason) = of_quic(error);
        Self { address, transport: Transport::Quic, failure, reason }
    }

    pub(super) fn tcp(address: SocketAddr, error: &std::io::Error) -> Self {
        let (failure, reason) = of_io(error);
        Self { address, transport: Transport::Tcp, failure, reason }
    }
}

/// Classifies the end of a QUIC connection.
pub(super) fn of_quic(error: &quinn::ConnectionError) -> (ConnectionFailure, String) {
    use quinn::ConnectionError as E;
    // A TLS alert travels as 0x100 plus its number.
    let is_tls = |code: quinn::TransportErrorCode| (0x100..0x200).contains(&u64::from(code));
    match error {
        E::TimedOut => (ConnectionFailure::NoAnswer, "no answer".into()),
        E::TransportError(e) if is_tls(e.code) || e.reason.starts_with("TLS error") => {
            (ConnectionFailure::Refused, plain(&e.reason).to_owned())
        }
        E::ConnectionClosed(e) if is_tls(e.error_code) => {
            let reason = String::from_utf8_lossy(&e.reason);
            (ConnectionFailure::Refused, format!("refused by the peer: {}", plain(&reason).escape_debug()))
        }
        E::ConnectionClosed(e) if e.error_code == quinn::TransportErrorCode::CONNECTION_REFUSED => {
            (ConnectionFailure::Refused, "the peer accepts no more connections now".into())
        }
        E::VersionMismatch => {
            (ConnectionFailure::Refused, "the peer speaks another version of QUIC".to_owned())
        }
        E::ApplicationClosed(e) => (
            ConnectionFailure::Lost,
            format!("closed by the peer: {}", String::from_utf8_lossy(&e.reason).escape_debug()),
        ),
        E::LocallyClosed => (ConnectionFailure::Lost, "this gateway closed the connection".to_owned()),
        E::Reset => (ConnectionFailure::Lost, "the peer does not know the connection any more".to_owned()),
        E::CidsExhausted => (ConnectionFailure::Lost, "the connection has no more connection ids".to_owned()),
        E::TransportError(e) => (ConnectionFailure::Lost, format!("QUIC was violated: {}", e.reason)),
        E::ConnectionClosed(e) => (
            ConnectionFailure::Lost,
            format!("the peer closed the connection: {}", String::from_utf8_lossy(&e.reason).escape_debug()),
        ),
    }
}

/// The text of our verifier without the text that rustls puts around it. QUIC passes only the text.
fn plain(reason: &str) -> &str {
    let inner = reason.strip_prefix("invalid peer certificate: Other(OtherError(");
    inner.and_then(|inner| inner.strip_suffix("))")).unwrap_or(reason)
}

/// Classifies an error of a TCP connection or of its TLS handshake.
pub(super) fn of_io(error: &std::io::Error) -> (ConnectionFailure, String) {
    use std::io::ErrorKind as K;
    if let Some(tls) = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()) {
        return of_tls(tls);
    }
    match error.kind() {
        K::ConnectionRefused | K::HostUnreachable | K::NetworkUnreachable | K::TimedOut => {
            (ConnectionFailure::NoAnswer, error.to_string())
        }
        // A killed peer closes its connection without a TLS close_notify. rustls' own text for that links to its manual.
        K::UnexpectedEof => (
            ConnectionFailure::Lost,
            "the connection ended suddenly: the peer was killed, or something between cut it".to_owned(),
        ),
        _ => (ConnectionFailure::Lost, error.to_string()),
    }
}

fn of_tls(error: &rustls::Error) -> (ConnectionFailure, String) {
    let reason = match (identity::RefusedCertificate::find_in(error), error) {
        (Some(refused), _) => refused.to_string(),
        (None, rustls::Error::InvalidMessage(_)) => "the peer does not speak TLS".to_owned(),
        (None, rustls::Error::PeerIncompatible(PeerIncompatible::SupportedVersionsExtensionRequired)) => {
            "the peer does not speak TLS 1.3".to_owned()
        }
        (None, rustls::Error::AlertReceived(alert)) => format!("refused by the peer: {alert:?}"),
        (None, other) => tls::words("peer", other),
    };
    (ConnectionFailure::Refused, reason)
}

/// Classifies the end of an HTTP/2 connection.
pub(super) fn of_hyper(error: &hyper::Error) -> (ConnectionFailure, String) {
    match causes(error).find_map(|e| e.downcast_ref::<std::io::Error>()) {
        Some(io) => of_io(io),
        None => (ConnectionFailure::Lost, mesh::transport_words(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ::h3::quic::ConnectionErrorIncoming;
    use quinn::ConnectionError;

    use super::*;

    #[test]
    fn ends_of_connections_are_reported_in_words() {
        let undefined = |cause: ConnectionError| ConnectionErrorIncoming::Undefined(Arc::new(cause));
        for (cause, words) in [
            (undefined(ConnectionError::LocallyClosed), "this gateway closed the connection"),
            (undefined(ConnectionError::Reset), "the peer does not know the connection any more"),
            (undefined(ConnectionError::TimedOut), "no answer"),
            (ConnectionErrorIncoming::Timeout, "no answer"),
            (
                ConnectionErrorIncoming::ApplicationClose { error_code: 0x100 },
                "the peer closed the connection",
            ),
        ] {
            assert_eq!(words_of_quic(&cause), words);
        }
    }
}
