//! Sizes and times of connections, protocol names, and the choice of a transport.

use std::{io, sync::Arc, time::Duration};

use quinn::{TransportConfig, VarInt, congestion::BbrConfig};

/// ALPN of HTTP/3 between gateways.
pub(super) const ALPN_QUIC: &[u8] = b"h3";
/// ALPN of HTTP/2 between gateways.
pub(super) const ALPN_TCP: &[u8] = b"h2";
/// ALPN of enrolment, the only protocol spoken without a client certificate.
pub(super) const ALPN_ENROLMENT: &[u8] = b"isthmus-enrol/1";

/// Sizes and times of connections. What one peer can make us hold is bounded by `max_streams * stream_window_bytes`.
#[derive(Debug, Clone)]
pub struct TransportSettings {
    /// Requests open at once on a connection; more wait at the sender. Default 256.
    pub max_streams: u32,
    /// Requests that a peer may cut short within 10 s before its connection is closed. Default 5,000: cancelled queries
    /// come in bursts, floods come in tens of thousands.
    pub max_cut_streams: u32,
    /// What a stream may send ahead of its reader. Default 1 MiB: less slows long links (1 MiB per round trip), more
    /// lets a stalled reader hold more.
    pub stream_window_bytes: u32,
    /// What all streams of a connection together may send ahead of their readers. Default 64 MiB: less lets stalled
    /// streams block the others.
    pub connection_window_bytes: u32,
    /// Largest HTTP/2 frame. Default 256 KiB: smaller costs processor time.
    pub frame_bytes: u32,
    /// What an HTTP/2 stream may hold of data not yet written. Default 512 KiB.
    pub send_buffer_bytes: usize,
    /// Largest head of a request or response. Default 16 KiB.
    pub max_head_bytes: u32,
    /// How often an idle connection is probed. Default 2 s.
    pub keep_alive: Duration,
    /// A connection that is silent for so long is lost. Default 6 s: a peer that was killed says nothing on QUIC, and until
    /// then nobody dials its successor.
    pub idle_timeout: Duration,
    /// A handshake, and later a request's head, must be complete within this. Default 5 s.
    pub handshake_timeout: Duration,
    /// TCP is tried when QUIC has not answered for so long. Default 1.5 s.
    pub fallback_after: Duration,
    /// While on TCP, QUIC is tried again this often. Default 60 s.
    pub probe_quic_every: Duration,
    /// Bounds of the random wait between attempts to connect. Default 100 ms to 15 s.
    pub backoff: (Duration, Duration),
    /// Handshakes that may be under way at once on a listener; more are refused. Default 1,024.
    pub max_handshakes: usize,
}

impl Default for TransportSettings {
    fn default() -> Self {
        Self {
            max_streams: 256,
            max_cut_streams: 5000,
            stream_window_bytes: 1 << 20,
            connection_window_bytes: 64 << 20,
            frame_bytes: 256 << 10,
            send_buffer_bytes: 512 << 10,
            max_head_bytes: 16 << 10,
            keep_alive: Duration::from_secs(2),
            idle_timeout: Duration::from_secs(6),
            handshake_timeout: Duration::from_secs(5),
            fallback_after: Duration::from_millis(1500),
            probe_quic_every: Duration::from_secs(60),
            backoff: (Duration::from_millis(100), Duration::from_secs(15)),
            max_handshakes: 1024,
        }
    }
}

impl TransportSettings {
    /// How long a probe of an idle HTTP/2 connection may go unanswered.
    pub(super) fn keep_alive_timeout(&self) -> Duration {
        self.idle_timeout.saturating_sub(self.keep_alive).max(Duration::from_secs(1))
    }

    pub(super) fn quic(&self) -> Arc<TransportConfig> {
        let mut config = TransportConfig::default();
        config
            .max_concurrent_bidi_streams(self.max_streams.into())
            // HTTP/3's control stream and the two of QPACK.
            .max_concurrent_uni_streams(3u8.into())
            .stream_receive_window(self.stream_window_bytes.into())
            // quinn's default is unbounded.
            .receive_window(self.connection_window_bytes.into())
            .send_window(u64::from(self.connection_window_bytes))
            .datagram_receive_buffer_size(None)
            .keep_alive_interval(Some(self.keep_alive))
            .max_idle_timeout(Some(idle_timeout(self.idle_timeout)))
            // Cubic collapses under random loss: a twentieth of BBR's throughput at 0.5 %.
            .congestion_controller_factory(Arc::new(BbrConfig::default()))
            .enable_segmentation_offload(true);
        Arc::new(config)
    }
}

/// QUIC counts it in milliseconds, up to 2^62.
fn idle_timeout(timeout: Duration) -> quinn::IdleTimeout {
    quinn::IdleTimeout::try_from(timeout).unwrap_or(VarInt::MAX.into())
}

/// Prepares a TCP socket of the mesh: no delay, and BBR where the kernel has it.
pub(super) fn tune_tcp(stream: &tokio::net::TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    #[cfg(target_os = "linux")]
    {
        // Without the module the default controller stays, which is slow only on lossy links.
        if let Err(error) = socket2::SockRef::from(stream).set_tcp_congestion(b"bbr") {
            tracing::debug!(%error, "no BBR on TCP connections: the kernel lacks it");
        }
    }
    Ok(())
}

/// Which transports a dialer may use. A listener always accepts both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TransportChoice {
    /// QUIC first; TCP when no UDP answer comes.
    #[default]
    Auto,
    /// Only QUIC.
    Quic,
    /// Only TCP.
    Tcp,
}
