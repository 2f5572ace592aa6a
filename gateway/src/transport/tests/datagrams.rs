//! The sizes of the datagrams that QUIC sends.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use mesh::Transport;
use tokio::net::UdpSocket;

use crate::transport::settings::MAX_DATAGRAM_BYTES;
use crate::transport::tests::support::*;
use crate::transport::*;

/// Enough for hundreds of full batches.
const BYTES: usize = 32 << 20;

/// Waits until the path is known to carry the largest datagrams.
async fn grown(link: &MeshLink) {
    soon("the largest datagram is known", async {
        while link.datagram_bytes() < Some(MAX_DATAGRAM_BYTES) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

async fn echo(pair: &ConnectedPair, bytes: usize) {
    let answer = pair.client.handle(request("/echo", Body::full(vec![7; bytes]))).await.unwrap();
    let (len, _, end) = soon("an echo", read(answer.into_body())).await;
    assert_eq!((len, end.is_ok()), (bytes, true));
}

/// The loopback interface carries the largest datagram. A batch that is too large for the kernel would be lost, again and again.
#[tokio::test]
async fn full_batches_of_the_largest_datagrams_arrive() {
    let (pair, _) = pair(Transport::Quic, false).await;
    let link = pair.client.link();
    grown(link).await;
    let before = link.datagrams_lost().unwrap();
    echo(&pair, BYTES).await;
    let lost = link.datagrams_lost().unwrap() - before;
    let sent = BYTES as u64 / u64::from(MAX_DATAGRAM_BYTES);
    assert!(lost < sent / 4, "{lost} of {sent} datagrams were lost");
}

/// A path to `to` that drops datagrams of more than `most` bytes. It lasts as long as the runtime.
async fn path(to: SocketAddr, most: Arc<AtomicUsize>) -> SocketAddr {
    let (near, far) = (UdpSocket::bind(LOOPBACK).await.unwrap(), UdpSocket::bind(LOOPBACK).await.unwrap());
    far.connect(to).await.unwrap();
    let address = near.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut peer, mut out, mut back) = (None, vec![0; 1 << 16], vec![0; 1 << 16]);
        loop {
            // An error means that a buffer is full or that the other side has ended: the datagram is lost.
            let _ = tokio::select! {
                received = near.recv_from(&mut out) => {
                    let Ok((len, from)) = received else { continue };
                    peer = Some(from);
                    if len > most.load(Ordering::Relaxed) { continue }
                    far.send(&out[..len]).await
                }
                received = far.recv(&mut back) => {
                    let (Ok(len), Some(peer)) = (received, peer) else { continue };
                    if len > most.load(Ordering::Relaxed) { continue }
                    near.send_to(&back[..len], peer).await
                }
            };
        }
    });
    address
}

#[tokio::test]
async fn datagrams_shrink_with_the_path_and_grow_again_with_it() {
    let most = Arc::new(AtomicUsize::new(usize::MAX));
    let narrow = most.clone();
    let through = async |to| path(to, narrow).await;
    let (pair, _) = pair_through(Transport::Quic, false, TransportSettings::default(), through).await;
    let link = pair.client.link();
    grown(link).await;
    most.store(1_300, Ordering::Relaxed);
    soon("smaller datagrams", async {
        while link.datagram_bytes() >= Some(MAX_DATAGRAM_BYTES) {
            echo(&pair, 100_000).await;
        }
    })
    .await;
    echo(&pair, 1 << 20).await;
    most.store(usize::MAX, Ordering::Relaxed);
    grown(link).await;
}
