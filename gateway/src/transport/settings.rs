//! Sizes and times of connections, protocol names, and the choice of a transport.

use std::{io, sync::Arc, time::Duration};

use quinn::{EndpointConfig, MtuDiscoveryConfig, TransportConfig, VarInt, congestion::BbrConfig};

/// ALPN of HTTP/3 between gateways.
pub(super) const ALPN_QUIC: &[u8] = b"h3";
/// ALPN of HTTP/2 between gateways.
pub(super) const ALPN_TCP: &[u8] = b"h2";
/// ALPN of enrolment, the only protocol spoken without a client certificate.
pub(crate) const ALPN_ENROLMENT: &[u8] = b"isthmus-enrol/1";

/// What the window of a connection has beyond those of its streams, so that no number of stalled streams can hold back the
/// control session.
const CONTROL_WINDOW_BYTES: u32 = 4 << 20;
/// Largest window of an HTTP/2 connection.
const MAX_HTTP2_WINDOW_BYTES: u32 = (1 << 31) - 1;
/// Bytes that a QUIC connection keeps until the peer has acknowledged them.
const SEND_WINDOW_BYTES: u64 = 64 << 20;

/// Largest datagram. quinn passes up to ten at once to the kernel, which takes 65,507 bytes at most, and more would be lost.
/// The discovery of the path MTU finds what the path to a peer carries: 1,452 bytes over the internet; networks inside of a
/// cloud often carry 9,000.
pub(super) const MAX_DATAGRAM_BYTES: u16 = 6500;

/// When larger datagrams are tried again after only small ones arrived. That looks as if the path carried them no more, and is also
/// what the full receive buffer of a busy peer does: a batch finds no room where a small datagram does. Trying costs three
/// datagrams of a few sizes; quinn's default is a minute.
const GROW_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Sizes and times of connections. One peer can make us buffer at most `max_streams * stream_window_bytes`.
#[derive(Debug, Clone)]
pub struct TransportSettings {
    /// Requests that may be open at once on a connection; further ones wait at the sender. Default 512: twice as many as a
    /// cluster serves at a time, so that those that stall leave room.
    pub max_streams: u32,
    /// Requests that a peer may cancel within 10 s; with more, its connection is closed. Default 5,000: cancelled queries
    /// come in bursts, attacks come in tens of thousands.
    pub max_cancelled_streams: u32,
    /// Bytes that a stream may send ahead of its reader. Default 1 MiB. It limits a stream's throughput to this many bytes
    /// per round trip, and it is the memory that a stalled reader takes.
    pub stream_window_bytes: u32,
    /// Largest HTTP/2 frame in bytes. Default 256 KiB; smaller frames cost processor time.
    pub frame_bytes: u32,
    /// Bytes that an HTTP/2 stream may buffer before they are written. Default 512 KiB.
    pub send_buffer_bytes: usize,
    /// Largest head of a request or response in bytes. Default 16 KiB.
    pub max_head_bytes: u32,
    /// How often an idle connection is probed. Default 2 s.
    pub keep_alive: Duration,
    /// A connection that is silent for this long counts as lost. Default 6 s. A killed peer sends nothing on QUIC, and its
    /// successor is dialled only after this time.
    pub idle_timeout: Duration,
    /// Time limit of a handshake, and of receiving the head of a request. Default 5 s.
    pub handshake_timeout: Duration,
    /// TCP is tried when QUIC has not answered within this time. Default 1 s.
    pub fallback_after: Duration,
    /// Time for which QUIC is tried again when the peer has answered over TCP, before TCP is used. Default 1 s: three round trips
    /// of a long link.
    pub last_chance: Duration,
    /// Bounds of the wait until QUIC is tried again while TCP is used; it doubles with each attempt. Default 1 s to 4 s. An
    /// attempt is a handshake, and does not affect the TCP connection.
    pub probe_quic: (Duration, Duration),
    /// Bounds of the random wait between attempts to connect. Default 100 ms to 15 s.
    pub backoff: (Duration, Duration),
    /// Handshakes that may run at once on a listener, over QUIC and as many over TCP; further ones are refused. Default 1,024.
    pub max_handshakes: usize,
    /// How many of them may come from one network. Default 64: a handshake takes milliseconds, so that hundreds of clusters
    /// behind one address can connect again within seconds.
    pub max_handshakes_of_network: usize,
    /// Time in which a TCP client must send its first byte. Default 1 s.
    pub first_byte_timeout: Duration,
}

impl Default for TransportSettings {
    fn default() -> Self {
        Self {
            max_streams: 512,
            max_cancelled_streams: 5000,
            stream_window_bytes: 1 << 20,
            frame_bytes: 256 << 10,
            send_buffer_bytes: 512 << 10,
            max_head_bytes: 16 << 10,
            keep_alive: Duration::from_secs(2),
            idle_timeout: Duration::from_secs(6),
            handshake_timeout: Duration::from_secs(5),
            fallback_after: Duration::from_secs(1),
            last_chance: Duration::from_secs(1),
            probe_quic: (Duration::from_secs(1), Duration::from_secs(4)),
            backoff: (Duration::from_millis(100), Duration::from_secs(15)),
            max_handshakes: 1024,
            max_handshakes_of_network: 64,
            first_byte_timeout: Duration::from_secs(1),
        }
    }
}

impl TransportSettings {
    /// Time limit for the answer to a probe of an idle HTTP/2 connection.
    pub(super) fn keep_alive_timeout(&self) -> Duration {
        self.idle_timeout.saturating_sub(self.keep_alive).max(Duration::from_secs(1))
    }

    /// Bytes that all streams of a connection together may send ahead of their readers: the sum of their windows, and the
    /// reserve. With less, stalled streams would block the other ones.
    pub(super) fn connection_window_bytes(&self) -> u32 {
        let streams = self.max_streams.saturating_mul(self.stream_window_bytes);
        streams.saturating_add(CONTROL_WINDOW_BYTES).min(MAX_HTTP2_WINDOW_BYTES)
    }

    pub(super) fn quic(&self) -> Arc<TransportConfig> {
        let mut path = MtuDiscoveryConfig::default();
        path.upper_bound(MAX_DATAGRAM_BYTES).black_hole_cooldown(GROW_AGAIN_AFTER);
        let mut config = TransportConfig::default();
        config
            .mtu_discovery_config(Some(path))
            .max_concurrent_bidi_streams(self.max_streams.into())
            // HTTP/3's control stream and the two streams of QPACK.
            .max_concurrent_uni_streams(3u8.into())
            .stream_receive_window(self.stream_window_bytes.into())
            // quinn's default is unlimited.
            .receive_window(self.connection_window_bytes().into())
            .send_window(SEND_WINDOW_BYTES)
            .datagram_receive_buffer_size(None)
            .keep_alive_interval(Some(self.keep_alive))
            .max_idle_timeout(Some(idle_timeout(self.idle_timeout)))
            // With 0.5 % random loss, Cubic has a twentieth of BBR's throughput.
            .congestion_controller_factory(Arc::new(BbrConfig::default()))
            .enable_segmentation_offload(true);
        Arc::new(config)
    }
}

/// What the sockets of dialers and listeners have in common.
pub(super) fn endpoint() -> EndpointConfig {
    let mut config = EndpointConfig::default();
    config.max_udp_payload_size(MAX_DATAGRAM_BYTES).expect("QUIC allows 1,200 to 65,527 bytes");
    config
}

/// QUIC transmits it in milliseconds, up to 2^62.
fn idle_timeout(timeout: Duration) -> quinn::IdleTimeout {
    quinn::IdleTimeout::try_from(timeout).unwrap_or(VarInt::MAX.into())
}

/// Configures a TCP socket of the mesh: no delay, and BBR if the kernel has it.
pub(super) fn tune_tcp(stream: &tokio::net::TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    #[cfg(target_os = "linux")]
    {
        // Without BBR the kernel's default stays, which is slow only on lossy links.
        if let Err(error) = socket2::SockRef::from(stream).set_tcp_congestion(b"bbr") {
            tracing::debug!(%error, "the kernel has no BBR, TCP connections use its default congestion control");
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
