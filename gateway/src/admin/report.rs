//! What the admin socket shows. The JSON has these names; times are RFC 3339, lengths of time are seconds.

use serde::{Deserialize, Serialize};

use crate::serving::ServingState;

/// The gateway as a whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct StatusReport {
    /// `cluster` or `observability`.
    pub(crate) role: String,
    /// Its SPIFFE id.
    pub(crate) identity: String,
    pub(crate) version: String,
    pub(crate) uptime_seconds: f64,
    /// Only in a client cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) serving: Option<ServingState>,
    /// Connections to gateways of the other side.
    pub(crate) connections: usize,
    /// Running requests, over all connections.
    pub(crate) streams: usize,
    pub(crate) targets: usize,
    pub(crate) healthy_targets: usize,
    pub(crate) certificate_not_after: String,
    /// The head of the issuer's audit log, or that the log was altered; absent before there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) audit_log: Option<String>,
}

/// A connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct PeerReport {
    /// The peer's SPIFFE id.
    pub(crate) peer: String,
    /// The address of the other end.
    pub(crate) remote: String,
    /// `quic` or `tcp`.
    pub(crate) transport: String,
    /// Whether this side dialled.
    pub(crate) dialled: bool,
    pub(crate) age_seconds: f64,
    /// As QUIC measures it; absent on TCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) round_trip_seconds: Option<f64>,
    /// How far the peer's clock was ahead of ours when the connection was opened; negative if it was behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) clock_ahead_seconds: Option<f64>,
    /// Bytes of the largest datagram that is known to reach the peer; absent on TCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) datagram_bytes: Option<u16>,
    /// Datagrams of ours that did not reach the peer; absent on TCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) datagrams_lost: Option<u64>,
    /// Running requests.
    pub(crate) streams: usize,
    pub(crate) certificate_not_after: String,
    pub(crate) certificate_serial: String,
}

/// A store that can be read, as this side sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct TargetReport {
    pub(crate) name: String,
    /// Only in the cluster that owns it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) address: Option<String>,
    pub(crate) healthy: bool,
    /// Why it is not healthy; empty otherwise.
    pub(crate) error: String,
    /// The addresses that were tried, each with its error, if no connection could be opened. Only in the cluster that owns it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) tried: String,
    /// Why the observability side does not read it, although it is healthy here; empty otherwise.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) refused: String,
    /// External labels, each set as PromQL writes it.
    pub(crate) labels: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_check: Option<String>,
}

/// A certificate in use, or a root that is trusted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct CertificateReport {
    /// `leaf` or `root`.
    pub(crate) kind: String,
    /// The SPIFFE id of a leaf.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) identity: String,
    /// The serial number of a leaf.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) serial: String,
    /// SHA-256 of the public key, as in tokens.
    pub(crate) key_pin: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) not_before: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) not_after: Option<String>,
}

/// One attempt of a connection test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ConnectReport {
    /// The configured address.
    pub(crate) dial: String,
    /// The address that was tried; absent if the name could not be resolved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) address: Option<String>,
    /// `quic` or `tcp`; empty if nothing was tried.
    pub(crate) transport: String,
    /// Time until the handshake was complete.
    pub(crate) seconds: f64,
    /// Why it failed; empty if it succeeded.
    pub(crate) error: String,
}

/// The answer to a change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ChangeReport {
    pub(crate) serving: ServingState,
    /// Running requests, over all connections.
    pub(crate) streams: usize,
}

/// The answer to a request that cannot be answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ErrorReport {
    pub(crate) error: String,
}
