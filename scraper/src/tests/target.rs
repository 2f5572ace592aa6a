//! Targets of tests: servers that answer as they are told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;

/// What a target answers to one request.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    /// Status line and headers, and a body with its length.
    Whole { head: String, body: Vec<u8> },
    /// These bytes, and then the end of the connection.
    Bytes(Vec<u8>),
    /// The first bytes, and then the second ones again and again.
    Endless(Vec<u8>, Vec<u8>),
    /// The first bytes, and then one more each time.
    Slow(Vec<u8>, Duration),
    /// Nothing, while the connection stays open.
    Nothing,
}

/// An exposition in Prometheus' text format.
pub(super) fn text(body: &str) -> Answer {
    Answer::Whole { head: "200 OK\r\nContent-Type: text/plain; version=0.0.4".to_owned(), body: body.into() }
}

/// A request: its first line, and its headers by their names in lower case.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) line: String,
    pub(super) headers: BTreeMap<String, String>,
}

type Handler = Arc<dyn Fn(&Asked) -> Answer + Send + Sync>;

/// A running target; its requests are kept.
pub(super) struct TestTarget {
    pub(super) address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    task: tokio::task::JoinHandle<()>,
}

impl TestTarget {
    pub(super) async fn start(handler: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        Self::start_at("127.0.0.1:0", handler).await
    }

    pub(super) async fn start_at(
        address: &str,
        handler: impl Fn(&Asked) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (all, handler): (_, Handler) = (Arc::clone(&asked), Arc::new(handler));
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, Arc::clone(&handler), Arc::clone(&all)));
            }
        });
        Self { address, asked, task }
    }

    pub(super) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for TestTarget {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Answers the requests on one connection.
pub(super) async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    handler: Handler,
    asked: Arc<Mutex<Vec<Asked>>>,
) {
    while let Some(request) = read_head(&mut stream, &asked).await {
        let done = match handler(&request) {
            Answer::Whole { head, body } => {
                let head = format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\n\r\n", body.len());
                stream.write_all(&[head.as_bytes(), &body].concat()).await
            }
            Answer::Bytes(bytes) => {
                let _ = stream.write_all(&bytes).await;
                return;
            }
            Answer::Endless(first, next) => {
                let mut written = stream.write_all(&first).await;
                while written.is_ok() {
                    written = stream.write_all(&next).await;
                }
                return;
            }
            Answer::Slow(first, wait) => {
                let mut written = stream.write_all(&first).await;
                while written.is_ok() {
                    tokio::time::sleep(wait).await;
                    written = stream.write_all(b"a").await;
                }
                return;
            }
            Answer::Nothing => std::future::pending().await,
        };
        if done.is_err() {
            return;
        }
    }
}

async fn read_head(stream: &mut (impl AsyncRead + Unpin), all: &Mutex<Vec<Asked>>) -> Option<Asked> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.trim_end().lines();
    let line = lines.next().unwrap_or_default().to_owned();
    let headers = lines.filter_map(|line| line.split_once(':'));
    let headers = headers.map(|(name, value)| (name.to_lowercase(), value.trim().to_owned())).collect();
    let mut all = all.lock().unwrap();
    let asked = Asked { line, headers };
    all.push(asked.clone());
    Some(asked)
}
