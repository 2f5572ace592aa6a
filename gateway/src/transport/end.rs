//! How connections end.

use std::fmt;

use crate::transport::error::ConnectionFailure;

/// Why this side closes a connection. A QUIC peer receives the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// The connection is no longer needed.
    Done,
    /// This gateway stops.
    Shutdown,
    /// The peer's certificate expired.
    Expired,
    /// The peer is not authorised.
    Denied,
    /// The peer violated the protocol or a limit.
    Misbehaved,
    /// The owner of the cluster has paused it.
    Paused,
    /// Another process uses the certificate of the peer.
    Copied,
}

impl CloseReason {
    /// The application error code on QUIC. `Done` is HTTP/3's H3_NO_ERROR; HTTP/3 does not use the other codes.
    pub(super) fn code(self) -> u32 {
        match self {
            Self::Done => 0x100,
            Self::Shutdown => 0x1500,
            Self::Expired => 0x1501,
            Self::Denied => 0x1502,
            Self::Misbehaved => 0x1503,
            Self::Paused => 0x1504,
            Self::Copied => 0x1505,
        }
    }

    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Done => "the connection is no longer needed",
            Self::Shutdown => "shutting down",
            Self::Expired => "the certificate has expired",
            Self::Denied => "the peer is not authorised",
            Self::Misbehaved => "the peer violated the protocol",
            Self::Paused => "the owner of the cluster has paused it",
            Self::Copied => "another process uses the same certificate",
        }
    }
}

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectionEnd {
    /// This side closed it.
    Here(CloseReason),
    /// The peer or the network ended it.
    There {
        /// The class of the failure.
        failure: ConnectionFailure,
        /// The reason in one line, without the peer's name.
        reason: String,
    },
}

impl fmt::Display for ConnectionEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Here(close) => f.write_str(close.reason()),
            Self::There { reason, .. } => f.write_str(reason),
        }
    }
}
