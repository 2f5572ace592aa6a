//! Clients that connect and say nothing.

use axum::Router;
use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

/// Serves `ok` until the shutdown is triggered.
async fn serve(max_connections: usize, first_byte: Duration) -> (SocketAddr, Shutdown, RefusedByServer) {
    let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap()).await.unwrap();
    let (address, shutdown) = (listener.local_addr(), Shutdown::new());
    let service = HttpService::new(
        Router::new()
            .route("/", get(|| async { "ok" }))
            .map_request(|request: Request<Incoming>| request.map(axum::body::Body::new)),
    );
    let refused = RefusedByServer::default();
    let options = ServeOptions {
        refused: refused.clone(),
        grace: Duration::ZERO,
        max_age: None,
        tls: None,
        long_lines: false,
        max_connections,
        first_byte,
    };
    tokio::spawn(listener.serve(server_builder(), service, options, shutdown.clone()));
    (address, shutdown, refused)
}

async fn ask(stream: &mut TcpStream) -> std::io::Result<String> {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[tokio::test]
async fn a_connection_without_a_first_byte_is_closed() {
    let (address, shutdown, refused) = serve(10, Duration::from_millis(50)).await;
    let mut silent = TcpStream::connect(address).await.unwrap();
    let closed = tokio::time::timeout(PATIENCE, silent.read(&mut [0])).await;
    assert_eq!(closed.unwrap().unwrap_or(0), 0);
    assert_eq!((refused.silent.get(), refused.full.get()), (1, 0));
    let mut other = TcpStream::connect(address).await.unwrap();
    assert!(ask(&mut other).await.unwrap().ends_with("ok"));
    shutdown.trigger();
}

#[tokio::test]
async fn connections_above_the_limit_are_closed_and_others_served() {
    let (address, shutdown, refused) = serve(3, PATIENCE).await;
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(TcpStream::connect(address).await.unwrap());
    }
    let mut above = TcpStream::connect(address).await.unwrap();
    let closed = tokio::time::timeout(PATIENCE, above.read(&mut [0])).await;
    assert_eq!(closed.unwrap().unwrap_or(0), 0);
    assert_eq!((refused.silent.get(), refused.full.get()), (0, 1));
    for mut stream in open {
        assert!(ask(&mut stream).await.unwrap().ends_with("ok"));
    }
    // Their places are free.
    let mut again = TcpStream::connect(address).await.unwrap();
    let answered = tokio::time::timeout(PATIENCE, async {
        while !ask(&mut again).await.is_ok_and(|answer| answer.ends_with("ok")) {
            again = TcpStream::connect(address).await.unwrap();
        }
    });
    answered.await.unwrap();
    shutdown.trigger();
}
