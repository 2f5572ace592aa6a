//! Logs and counts what happens while connections are established.

use std::{sync::Arc, time::Instant};

use mesh::Transport;
use runtime::LogLimit;

use crate::{
    metrics::GatewayMetrics,
    transport::{ConnectError, ConnectionEvent, ConnectionFailure, InboundRefusal},
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
        ConnectionEvent::InboundRefused { remote, transport, refusal, reason } => {
            metrics.handshake_failed(inbound_reason(*transport, *refusal));
            if let Some(suppressed) = handshake_log.admit(Instant::now()) {
                let what = match refusal {
                    InboundRefusal::Full | InboundRefusal::NetworkFull => "a connection was refused",
                    _ => "a handshake was rejected",
                };
                tracing::warn!(%remote, %transport, error = reason, suppressed, "{what}");
            }
        }
    }
}

/// The label of the metric.
fn inbound_reason(transport: Transport, refusal: InboundRefusal) -> &'static str {
    use InboundRefusal as R;
    match (transport, refusal) {
        (Transport::Quic, R::Full) => "inbound_quic_full",
        (Transport::Quic, R::NetworkFull) => "inbound_quic_network_full",
        (Transport::Quic, R::Silent | R::Slow) => "inbound_quic_slow",
        (Transport::Quic, R::Rejected) => "inbound_quic",
        (Transport::Tcp | Transport::Local, R::Full) => "inbound_tcp_full",
        (Transport::Tcp | Transport::Local, R::NetworkFull) => "inbound_tcp_network_full",
        (Transport::Tcp | Transport::Local, R::Silent) => "inbound_tcp_silent",
        (Transport::Tcp | Transport::Local, R::Slow) => "inbound_tcp_slow",
        (Transport::Tcp | Transport::Local, R::Rejected) => "inbound_tcp",
    }
}

fn failure_reason(error: &ConnectError) -> &'static str {
    match error.failure {
        ConnectionFailure::NoAnswer => "no_answer",
        ConnectionFailure::Refused => "refused",
        ConnectionFailure::Lost => "lost",
    }
}
