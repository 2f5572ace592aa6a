//! A connection to a store: plain HTTP/2, opened when it is needed and again after a loss.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use futures::{FutureExt, TryFutureExt, future::BoxFuture};
use http::{Request, Response};
use hyper::client::conn::http2;
use hyper_util::rt::TokioTimer;
use mesh::ResendLayer;
use model::root_cause;
use tokio::net::TcpStream;
use tonic::{Status, body::Body};
use tower::{Layer, Service, ServiceExt};

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
    /// This lock is not held while connecting; `connecting` is.
    current: Mutex<CurrentConnection>,
    connecting: tokio::sync::Mutex<()>,
}

/// The connection in use, if any.
#[derive(Default)]
struct CurrentConnection {
    sender: Option<Http2Sender>,
    /// How many connections there were before this one.
    number: u64,
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl TargetClient {
    /// A client that connects with its first request.
    pub(crate) fn new(address: DialAddress) -> Self {
        Self { address, current: Mutex::default(), connecting: tokio::sync::Mutex::new(()) }
    }

    /// The address that it connects to.
    pub(crate) fn address(&self) -> &DialAddress {
        &self.address
    }

    /// Sends a request with an absolute URI. If its connection ends before the answer begins, it is sent once more on a new
    /// connection.
    ///
    /// # Errors
    /// `Unavailable` with the cause. The address is left out, because it must not leave this cluster.
    ///
    /// # Cancel safety
    /// Dropping the future or the response resets the stream.
    pub(crate) fn call(
        self: &Arc<Self>,
        request: Request<Body>,
    ) -> BoxFuture<'static, Result<Response<Body>, Status>> {
        let once = ResendLayer.layer(TargetService(Arc::clone(self)));
        once.oneshot(request)
            .map_err(|error: BoxError| match error.downcast::<Status>() {
                Ok(status) => *status,
                Err(error) => {
                    let cause = root_cause(&*error);
                    Status::unavailable(format!("the connection to the store was lost: {cause}"))
                }
            })
            .boxed()
    }

    async fn call_once(&self, request: Request<Body>) -> Result<Response<Body>, BoxError> {
        let request = request.map(|body| Http2RequestBody::new(body.into()));
        let (mut sender, number) = self.connected().await?;
        match sender.send_request(request).await {
            Ok(response) => Ok(response.map(Body::new)),
            Err(error) => {
                self.discard(number);
                Err(error.into())
            }
        }
    }

    fn current(&self) -> Option<(Http2Sender, u64)> {
        let current = self.lock();
        let sender = current.sender.as_ref().filter(|sender| !sender.is_closed()).cloned();
        sender.map(|sender| (sender, current.number))
    }

    /// Uses the connection with this number for no further request.
    fn discard(&self, number: u64) {
        let mut current = self.lock();
        if current.number == number {
            current.sender = None;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, CurrentConnection> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn connected(&self) -> Result<(Http2Sender, u64), Status> {
        if let Some(current) = self.current() {
            return Ok(current);
        }
        let _one_at_a_time = self.connecting.lock().await;
        if let Some(current) = self.current() {
            return Ok(current);
        }
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, self.connect()).await;
        let sender = connecting
            .unwrap_or_else(|_| Err(format!("no answer within {} s", CONNECT_TIMEOUT.as_secs())))
            .map_err(|error| Status::unavailable(format!("connect: {error}")))?;
        let mut current = self.lock();
        *current = CurrentConnection { sender: Some(sender.clone()), number: current.number + 1 };
        Ok((sender, current.number))
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

/// Sends each request once.
#[derive(Clone)]
struct TargetService(Arc<TargetClient>);

impl Service<Request<Body>> for TargetService {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<Body>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let client = Arc::clone(&self.0);
        async move { client.call_once(request).await }.boxed()
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
        let client = Arc::new(TargetClient::new(address.parse().unwrap()));
        let status = client.call(Request::new(Body::empty())).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::Unavailable);
        assert!(
            status.message().starts_with("connect: ") && !status.message().contains("127.0.0.1"),
            "{status}"
        );
    }
}
