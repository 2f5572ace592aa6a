//! A relay in front of a server that delays each request, as a network does.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

/// Starts a relay to `server` on a free port. What a client sends is passed on after `delay`. A client of HTTP/1.1 sends a small
/// request at once and waits for its answer, so each request takes longer by `delay`.
pub(crate) fn start(runtime: &Runtime, server: SocketAddr, delay: Duration) -> SocketAddr {
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    runtime.spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(relay(client, server, delay));
        }
    });
    address
}

/// Passes bytes on until both sides have closed the connection.
async fn relay(client: TcpStream, server: SocketAddr, delay: Duration) {
    let Ok(server) = TcpStream::connect(server).await else { return };
    // Without this, the kernel adds a delay of its own.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let requests = async {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(count @ 1..) = from_client.read(&mut buffer).await {
            tokio::time::sleep(delay).await;
            if to_server.write_all(&buffer[..count]).await.is_err() {
                break;
            }
        }
    };
    let answers = async {
        // A client that is gone ends the copy.
        let _ = tokio::io::copy(&mut from_server, &mut to_client).await;
        let _ = to_client.shutdown().await;
    };
    tokio::join!(requests, answers);
}
