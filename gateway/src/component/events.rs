//! Logs and counts what happens while connections are established.

use std::{sync::Arc, time::Instant};

use mesh::Transport;
use runtime::LogLimit;

use crate::{
    metrics::GatewayMetrics,
    transport::{ConnectError, ConnectionEvent, ConnectionFailure},
};

/// A receiver of connection events that logs and counts them.
pub(super) fn log_and_count(
    metrics: Arc<GatewayMetrics>,
) -> impl Fn(&ConnectionEvent<'_>) + Send + Sync + 'static {
    let handshake_log = LogLimit::new(Instant::now());
    move |event| match event {
        ConnectionEvent::Connected(link) => {
            tracing::info!(peer = %link.peer(), remote = %link.remote(), dialled = link.dialled(), "a connection was established");
        }
        ConnectionEvent::ConnectFailed { error, retry_after } => {
            metrics.handshake_failed(failure_reason(error));
            tracing::warn!(%error, ?retry_after, "connecting failed, retrying");
        }
        ConnectionEvent::NameFailed { reason, retry_after } => {
            metrics.handshake_failed("name");
            tracing::warn!(error = reason, ?retry_after, "connecting failed, retrying");
        }
        ConnectionEvent::FellBack { address } => {
            metrics.fell_back(&address.to_string());
            tracing::warn!(%address, "no UDP answer, using TCP");
        }
        ConnectionEvent::Recovered { address } => {
            tracing::info!(%address, "QUIC works again, replacing the TCP connection")
        }
        ConnectionEvent::Overloaded { remote, transport, reason } => {
            metrics.handshake_failed(match transport {
                Transport::Quic => "inbound_quic_full",
                Transport::Tcp | Transport::Local => "inbound_tcp_full",
            });
            if let Some(suppressed) = handshake_log.admit(Instant::now()) {
                tracing::warn!(%remote, %transport, error = reason, suppressed, "a connection was refused");
            }
        }
        ConnectionEvent::HandshakeFailed { remote, transport, reason } => {
            metrics.handshake_failed(match transport {
                Transport::Quic => "inbound_quic",
                Transport::Tcp | Transport::Local => "inbound_tcp",
            });
            if let Some(suppressed) = handshake_log.admit(Instant::now()) {
                tracing::warn!(%remote, %transport, error = reason, suppressed, "a handshake was rejected");
            }
        }
    }
}

fn failure_reason(error: &ConnectError) -> &'static str {
    match error.failure {
        ConnectionFailure::NoAnswer => "no_answer",
        ConnectionFailure::Refused => "refused",
        ConnectionFailure::Lost => "lost",
    }
}
