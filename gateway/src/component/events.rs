//! What is logged and counted on the way to a connection.

use std::{sync::Arc, time::Instant};

use mesh::Transport;

use crate::component::handshake_log::HandshakeLog;
use crate::{
    metrics::GatewayMetrics,
    transport::{ConnectError, ConnectionEvent, ConnectionFailure},
};

/// Logs and counts what happens on the way to connections.
pub(super) fn log_and_count(
    metrics: Arc<GatewayMetrics>,
) -> impl Fn(&ConnectionEvent<'_>) + Send + Sync + 'static {
    let handshake_log = HandshakeLog::new(Instant::now());
    move |event| match event {
        ConnectionEvent::Connected(link) => {
            tracing::info!(peer = %link.peer(), remote = %link.remote(), dialled = link.dialled(), "connected");
        }
        ConnectionEvent::ConnectFailed { error, retry_after } => {
            metrics.handshake_failed(reason(error));
            tracing::warn!(error = %error, ?retry_after, "connect");
        }
        ConnectionEvent::NameFailed { reason, retry_after } => {
            metrics.handshake_failed("name");
            tracing::warn!(err = reason, ?retry_after, "connect");
        }
        ConnectionEvent::FellBack { address } => {
            metrics.fell_back(&address.to_string());
            tracing::warn!(%address, "no UDP answer: falling back to TCP");
        }
        ConnectionEvent::Recovered { address } => tracing::info!(%address, "QUIC works again"),
        ConnectionEvent::HandshakeFailed { remote, transport, reason } => {
            metrics.handshake_failed(match transport {
                Transport::Quic => "inbound_quic",
                Transport::Tcp | Transport::Local => "inbound_tcp",
            });
            if let Some(left_out) = handshake_log.admit(Instant::now()) {
                tracing::warn!(%remote, %transport, reason, left_out, "handshake");
            }
        }
    }
}

fn reason(error: &ConnectError) -> &'static str {
    match error.failure {
        ConnectionFailure::NoAnswer => "no_answer",
        ConnectionFailure::Refused => "refused",
        ConnectionFailure::Lost => "lost",
    }
}
