//! What goes wrong, sorted by what a caller can do about it.

use std::{error::Error as StdError, fmt, net::SocketAddr};

use mesh::Transport;
use model::{causes, root_cause};
use rustls::PeerIncompatible;
use tonic::Status;

/// HTTP/3's code for a request that is not wanted any more.
const H3_CANCELLED: u64 = 0x10c;
/// HTTP/3's code for a request that was not looked at.
const H3_REJECTED: u64 = 0x10b;
/// HTTP/3's code for everything else.
const H3_INTERNAL: u64 = 0x102;

/// Why a stream ended before its proper end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamErrorKind {
    /// The other side, or the caller, does not want the rest.
    Cancelled,
    /// The other side did not look at the request; sending it again is safe.
    Refused,
    /// The connection was lost.
    Lost,
    /// The other side gave up, or broke the protocol.
    Reset,
}

/// A stream that ended before its proper end, and why in one line.
///
/// It crosses a gateway as a reset with the code of its kind, so that the far end sees the same kind.
#[derive(Debug)]
pub struct StreamError {
    kind: StreamErrorKind,
    message: String,
    /// hyper looks for the reset code among an error's sources.
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

    /// The caller went away.
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

    pub(super) fn from_hyper(error: &hyper::Error) -> Self {
        let reset = causes(error).find_map(|e| e.downcast_ref::<h2::Error>());
        let kind = match reset.and_then(h2::Error::reason) {
            Some(h2::Reason::CANCEL) => StreamErrorKind::Cancelled,
            Some(h2::Reason::REFUSED_STREAM) => StreamErrorKind::Refused,
            Some(_) if reset.is_some_and(|e| e.is_reset()) => StreamErrorKind::Reset,
            _ => StreamErrorKind::Lost,
        };
        Self::new(kind, root_cause(error).to_string())
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
        Self::new(kind, error.to_string())
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

/// What became of an attempt to connect, or of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionFailure {
    /// Nobody answered in time, or the port is closed: the other transport may fare better.
    NoAnswer,
    /// Somebody answered and one of us did not want the other: certificate, protocol, authorisation. Trying the other
    /// transport instead would hide it.
    Refused,
    /// The connection was there and broke.
    Lost,
}

/// A connection that did not come about: to whom, by what way, and why, in one line.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{address} ({transport}): {reason}")]
pub struct ConnectError {
    /// The address tried.
    pub address: SocketAddr,
    /// The way tried.
    pub transport: Transport,
    /// What a dialer can do about it.
    pub failure: ConnectionFailure,
    /// Why.
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

/// Sorts the end of a QUIC connection.
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
            (ConnectionFailure::Refused, "the peer takes no more connections now".into())
        }
        E::VersionMismatch => (ConnectionFailure::Refused, error.to_string()),
        E::ApplicationClosed(e) => (
            ConnectionFailure::Lost,
            format!("closed by the peer: {}", String::from_utf8_lossy(&e.reason).escape_debug()),
        ),
        _ => (ConnectionFailure::Lost, error.to_string()),
    }
}

/// Our verifier's own words, without what rustls wraps them in; QUIC passes the text only.
fn plain(reason: &str) -> &str {
    let inner = reason.strip_prefix("invalid peer certificate: Other(OtherError(");
    inner.and_then(|inner| inner.strip_suffix("))")).unwrap_or(reason)
}

/// Sorts an error on a TCP connection or in its TLS handshake.
pub(super) fn of_io(error: &std::io::Error) -> (ConnectionFailure, String) {
    use std::io::ErrorKind as K;
    if let Some(tls) = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()) {
        return of_tls(tls);
    }
    match error.kind() {
        K::ConnectionRefused | K::HostUnreachable | K::NetworkUnreachable | K::TimedOut => {
            (ConnectionFailure::NoAnswer, error.to_string())
        }
        // rustls adds a link to its manual where a connection ends without TLS' goodbye, as that of a killed peer does.
        K::UnexpectedEof => (ConnectionFailure::Lost, "the peer is gone without a goodbye".to_owned()),
        _ => (ConnectionFailure::Lost, error.to_string()),
    }
}

fn of_tls(error: &rustls::Error) -> (ConnectionFailure, String) {
    let reason = match (identity::RefusedCertificate::find_in(error), error) {
        (Some(refused), _) => refused.to_string(),
        (None, rustls::Error::InvalidMessage(_)) => "it does not speak TLS".to_owned(),
        (None, rustls::Error::PeerIncompatible(PeerIncompatible::SupportedVersionsExtensionRequired)) => {
            "it does not speak TLS 1.3".to_owned()
        }
        (None, rustls::Error::AlertReceived(alert)) => format!("refused by the peer: {alert:?}"),
        (None, other) => other.to_string(),
    };
    (ConnectionFailure::Refused, reason)
}

/// Sorts the end of an HTTP/2 connection.
pub(super) fn of_hyper(error: &hyper::Error) -> (ConnectionFailure, String) {
    match causes(error).find_map(|e| e.downcast_ref::<std::io::Error>()) {
        Some(io) => of_io(io),
        None => (ConnectionFailure::Lost, root_cause(error).to_string()),
    }
}
