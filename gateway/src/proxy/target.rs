//! A connection to a store: plain HTTP/2, opened when it is needed and again after a loss.

use std::{
    net::SocketAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use http::{Request, Response};
use hyper::client::conn::http2;
use hyper_util::rt::TokioTimer;
use model::root_cause;
use tokio::net::TcpStream;
use tonic::{Status, body::Body};

use crate::{
    config::{DialAddress, is_never_a_target},
    task::{self, BoxingExecutor},
    transport::h2::{Http2Io, Http2RequestBody, Http2Sender, handshake},
};

/// Time limit for connecting; the requests that wait for the connection then fail.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// An idle connection is probed this often, and closed when the answer takes longer than this.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Bytes that one stream may send ahead of its reader; a stalled reader takes this much of the gateway's memory.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// Bytes that all streams together may send ahead of their readers. Large, so that stalled streams do not block others.
const CONNECTION_WINDOW_BYTES: u32 = 64 << 20;
/// Large frames save system calls and copies.
const FRAME_BYTES: u32 = 256 << 10;

/// Sends requests to one address.
pub(crate) struct TargetClient {
    address: DialAddress,
    /// The connection in use, if any. This lock is not held while connecting; `connecting` is.
    sender: Mutex<Option<Http2Sender>>,
    connecting: tokio::sync::Mutex<()>,
}

impl TargetClient {
    /// A client that connects with its first request.
    pub(crate) fn new(address: DialAddress) -> Self {
        Self { address, sender: Mutex::new(None), connecting: tokio::sync::Mutex::new(()) }
    }

    /// The address that it connects to.
    pub(crate) fn address(&self) -> &DialAddress {
        &self.address
    }

    /// Sends a request with an absolute URI. If a lost connection did not accept the request, it is sent again on a new
    /// connection.
    ///
    /// # Errors
    /// `Unavailable` with the cause. The address is left out, because it must not leave this cluster.
    ///
    /// # Cancel safety
    /// Dropping the future or the response resets the stream.
    pub(crate) async fn call(&self, request: Request<Body>) -> Result<Response<Body>, Status> {
        let request = request.map(|body| Http2RequestBody::new(body.into()));
        let refused = match self.connected().await?.try_send_request(request).await {
            Ok(response) => return Ok(response.map(Body::new)),
            Err(mut error) => match error.take_message() {
                Some(request) => request,
                None => return Err(lost(&error.into_error())),
            },
        };
        self.discard();
        let sent = self.connected().await?.send_request(refused).await;
        sent.map(|response| response.map(Body::new)).map_err(|error| lost(&error))
    }

    fn current(&self) -> Option<Http2Sender> {
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        sender.as_ref().filter(|sender| !sender.is_closed()).cloned()
    }

    fn discard(&self) {
        *self.sender.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    async fn connected(&self) -> Result<Http2Sender, Status> {
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

    async fn connect(&self) -> Result<Http2Sender, String> {
        let resolved = tokio::net::lookup_host(self.address.as_str()).await;
        // The system's text for a failed lookup does not always mention the name.
        let resolved = resolved.map_err(|error| format!("resolving the host name failed: {error}"))?;
        let stream = connect_to_first(resolved).await?;
        let mut builder = http2::Builder::new(BoxingExecutor);
        builder
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES);
        let started = handshake(&builder, Http2Io::plain(stream)).await;
        let (sender, connection) = started.map_err(|error| root_cause(&error).to_string())?;
        // The task ends with the last sender or when the connection is lost. Requests then fail by themselves.
        task::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = %root_cause(&error), "connection to a target was lost");
            }
        });
        Ok(sender)
    }
}

/// Connects to the first address that answers, except addresses that are never a target.
async fn connect_to_first(addresses: impl Iterator<Item = SocketAddr>) -> Result<TcpStream, String> {
    let mut last = "the host name has no address".to_owned();
    for address in addresses {
        if is_never_a_target(&address.ip()) {
            last =
                "the host name resolves to a link-local, multicast or unspecified address, which cannot be a target"
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
    Status::unavailable(format!("the connection to the store was lost: {}", root_cause(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_that_resolves_to_a_metadata_service_is_not_connected_to() {
        let addresses = ["169.254.169.254:80", "[fe80::1]:80", "0.0.0.0:80", "[::ffff:169.254.169.254]:80"];
        let addresses = addresses.map(|address| address.parse().unwrap());
        let error = connect_to_first(addresses.into_iter()).await.unwrap_err();
        assert!(error.contains("cannot be a target"), "{error}");
    }

    #[tokio::test]
    async fn the_error_of_an_unreachable_target_does_not_contain_its_address() {
        // Bound but not listening, so that nothing answers on this port.
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
