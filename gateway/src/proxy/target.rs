//! A connection to a store: plain HTTP/2, made when it is needed and again after a loss.

use std::{
    net::SocketAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use http::{Request, Response};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use model::root_cause;
use tokio::net::TcpStream;
use tonic::{Status, body::Body};

use crate::config::{DialAddress, is_never_a_target};

/// How long connecting may take before the requests that wait for it end with an error.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// An idle connection is probed this often, and given up when there is no answer for as long again.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// What one stream may send ahead of its reader; it is what a stalled reader makes the gateway hold.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// What all streams together may send ahead of their readers: large, so that a stalled one does not block the rest.
const CONNECTION_WINDOW_BYTES: u32 = 64 << 20;
/// Large frames spare system calls and copies.
const FRAME_BYTES: u32 = 256 << 10;

/// Sends requests to one address.
pub(crate) struct TargetClient {
    address: DialAddress,
    /// The connection in use, if any. Never held while connecting is under way: that has its own lock.
    sender: Mutex<Option<SendRequest<Body>>>,
    connecting: tokio::sync::Mutex<()>,
}

impl TargetClient {
    /// A client that connects with its first request.
    pub(crate) fn new(address: DialAddress) -> Self {
        Self { address, sender: Mutex::new(None), connecting: tokio::sync::Mutex::new(()) }
    }

    /// Where it connects to.
    pub(crate) fn address(&self) -> &DialAddress {
        &self.address
    }

    /// Sends a request with an absolute URI. One that a dead connection did not take is sent again on a new one.
    ///
    /// # Errors
    /// `Unavailable`, with the cause but without the address, which is nobody's business outside this cluster.
    ///
    /// # Cancel safety
    /// Dropping the future, or the response that it gives, resets the stream.
    pub(crate) async fn call(&self, request: Request<Body>) -> Result<Response<Body>, Status> {
        let refused = match self.connected().await?.try_send_request(request).await {
            Ok(response) => return Ok(response.map(Body::new)),
            Err(mut error) => match error.take_message() {
                Some(request) => request,
                None => return Err(lost(&error.into_error())),
            },
        };
        self.forget();
        let sent = self.connected().await?.send_request(refused).await;
        sent.map(|response| response.map(Body::new)).map_err(|error| lost(&error))
    }

    fn current(&self) -> Option<SendRequest<Body>> {
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        sender.as_ref().filter(|sender| !sender.is_closed()).cloned()
    }

    fn forget(&self) {
        *self.sender.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    async fn connected(&self) -> Result<SendRequest<Body>, Status> {
        if let Some(sender) = self.current() {
            return Ok(sender);
        }
        let _one_at_a_time = self.connecting.lock().await;
        if let Some(sender) = self.current() {
            return Ok(sender);
        }
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, self.connect()).await;
        let sender = connecting
            .unwrap_or_else(|_| Err(format!("no answer within {} s", CONNECT_TIMEOUT.as_secs())))
            .map_err(|error| Status::unavailable(format!("connect: {error}")))?;
        *self.sender.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender.clone());
        Ok(sender)
    }

    async fn connect(&self) -> Result<SendRequest<Body>, String> {
        let resolved = tokio::net::lookup_host(self.address.as_str()).await;
        // The system's text for a failed lookup does not always say that it is about a name.
        let resolved = resolved.map_err(|error| format!("resolve the host's name: {error}"))?;
        let stream = connect_to_first(resolved).await?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| root_cause(&error).to_string())?;
        // Ends with the last sender, or when the connection is lost; requests on it learn of that themselves.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = %root_cause(&error), "connection to a target ended");
            }
        });
        Ok(sender)
    }
}

/// Connects to the first address that answers and that may be a target at all.
async fn connect_to_first(addresses: impl Iterator<Item = SocketAddr>) -> Result<TcpStream, String> {
    let mut last = "the host's name has no address".to_owned();
    for address in addresses {
        if is_never_a_target(&address.ip()) {
            last =
                "the host's name leads to a link-local, multicast or unspecified address, which is no target"
                    .to_owned();
            continue;
        }
        match TcpStream::connect(address).await {
            Ok(stream) => {
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(error) => last = error.to_string(),
        }
    }
    Err(last)
}

fn lost(error: &hyper::Error) -> Status {
    Status::unavailable(format!("connection lost: {}", root_cause(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_that_leads_to_a_metadata_service_is_not_connected_to() {
        let addresses = ["169.254.169.254:80", "[fe80::1]:80", "0.0.0.0:80", "[::ffff:169.254.169.254]:80"];
        let addresses = addresses.map(|address| address.parse().unwrap());
        let error = connect_to_first(addresses.into_iter()).await.unwrap_err();
        assert!(error.contains("no target"), "{error}");
    }

    #[tokio::test]
    async fn an_unreachable_target_is_unavailable_without_its_address() {
        // Taken and not listened on, so that nobody answers there meanwhile.
        let taken = tokio::net::TcpSocket::new_v4().unwrap();
        taken.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let client = TargetClient::new(address.parse().unwrap());
        let status = client.call(Request::new(Body::empty())).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::Unavailable);
        assert!(
            status.message().starts_with("connect: ") && !status.message().contains("127.0.0.1"),
            "{status}"
        );
    }
}
