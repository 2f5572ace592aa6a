//! A relay between two clusters. It forwards a port over TCP and UDP, and can block UDP.
//!
//! The clusters of quickstart run on one machine, where nothing blocks UDP. The relay is between them so that
//! the fallback to TCP can be shown: while UDP is blocked, it drops the datagrams of both directions.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::{JoinHandle, JoinSet};

/// The largest datagram that a loopback interface carries.
const DATAGRAM_BYTES: usize = 65_535;

/// A forwarded port. Forwarding stops when it is dropped.
pub(super) struct ClusterLink {
    udp_blocked: Arc<AtomicBool>,
    tasks: [JoinHandle<()>; 2],
}

impl ClusterLink {
    /// Starts to forward TCP connections and UDP datagrams from `listen` to `to`.
    pub(super) async fn open(listen: SocketAddr, to: SocketAddr) -> Result<Self> {
        let tcp = TcpListener::bind(listen).await.with_context(|| format!("listen on tcp {listen}"))?;
        let udp = UdpSocket::bind(listen).await.with_context(|| format!("listen on udp {listen}"))?;
        let udp_blocked = Arc::new(AtomicBool::new(false));
        let tasks = [
            tokio::spawn(forward_tcp(tcp, to)),
            tokio::spawn(forward_udp(Arc::new(udp), to, Arc::clone(&udp_blocked))),
        ];
        Ok(Self { udp_blocked, tasks })
    }

    /// Drops all datagrams from now on, or forwards them again.
    pub(super) fn block_udp(&self, blocked: bool) {
        self.udp_blocked.store(blocked, Ordering::Relaxed);
    }
}

impl Drop for ClusterLink {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn forward_tcp(listener: TcpListener, to: SocketAddr) {
    let mut streams = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((mut near, _)) = accepted else { continue };
                streams.spawn(async move {
                    // If the connection to `to` fails, dropping `near` closes the stream.
                    if let Ok(mut far) = TcpStream::connect(to).await {
                        drop(tokio::io::copy_bidirectional(&mut near, &mut far).await);
                    }
                });
            }
            Some(_) = streams.join_next() => {}
        }
    }
}

/// Forwards datagrams. Each sender gets a socket of its own towards `to`, so that responses return to it.
async fn forward_udp(near: Arc<UdpSocket>, to: SocketAddr, blocked: Arc<AtomicBool>) {
    let mut senders: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut answers = JoinSet::new();
    let mut datagram = vec![0; DATAGRAM_BYTES];
    loop {
        let Ok((length, from)) = near.recv_from(&mut datagram).await else { continue };
        if blocked.load(Ordering::Relaxed) {
            continue;
        }
        let far = match senders.get(&from) {
            Some(far) => Arc::clone(far),
            None => {
                let Ok(far) = connect(to).await else { continue };
                let far = Arc::new(far);
                senders.insert(from, Arc::clone(&far));
                answers.spawn(forward_answers(
                    Arc::clone(&far),
                    Arc::clone(&near),
                    from,
                    Arc::clone(&blocked),
                ));
                far
            }
        };
        // A datagram that cannot be sent is lost, which UDP allows.
        drop(far.send(&datagram[..length]).await);
    }
}

async fn connect(to: SocketAddr) -> std::io::Result<UdpSocket> {
    let any: SocketAddr = if to.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(to).await?;
    Ok(socket)
}

async fn forward_answers(
    far: Arc<UdpSocket>,
    near: Arc<UdpSocket>,
    to: SocketAddr,
    blocked: Arc<AtomicBool>,
) {
    let mut datagram = vec![0; DATAGRAM_BYTES];
    loop {
        match far.recv(&mut datagram).await {
            Ok(length) if !blocked.load(Ordering::Relaxed) => {
                drop(near.send_to(&datagram[..length], to).await);
            }
            Ok(_) => {}
            // There is no listener at `to` at the moment; the next datagram may succeed.
            Err(_) => tokio::task::yield_now().await,
        }
    }
}
