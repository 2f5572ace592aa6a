//! The connections of a component to the local port of a gateway, which the channels to all targets share.
//!
//! tonic's channel writes one authority into all its requests, so that each target would have connections of its own: a
//! thousand targets would take thousands of descriptors on both sides. Requests name their target themselves here.

use std::{
    error::Error as StdError,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderValue, Request, Response, Uri, header};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::Instant;
use tonic::{ConnectError, body::Body};
use tower::{Layer, Service};

use crate::authority::{Authority, AuthorityLayer};
use crate::channel::{Channel, ChannelOptions, Limits, compressed};
use crate::connector::Connector;
use crate::error::ChannelError;
use crate::resend::{Resend, ResendLayer};
use crate::window::{StreamWindow, WindowedConnections};
use crate::words::transport_words;

type BoxError = Box<dyn StdError + Send + Sync>;

/// What requests say about their client.
const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("isthmus/", env!("CARGO_PKG_VERSION")));

/// The connections to the local gRPC port of a gateway: one for each [`StreamWindow`], however many targets it has. Clones share
/// them.
#[derive(Clone)]
pub struct Gateway {
    address: Arc<str>,
    options: ChannelOptions,
    connections: WindowedConnections<Resend<SharedConnection>>,
}

impl Gateway {
    /// The gateway whose local gRPC port is at `address` (`host:port`). It is connected to with the first request, and again after
    /// a connection is lost; for `patience` after a loss, requests wait while it cannot be reached, because it may be restarting.
    /// Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// `address` is not of the form `host:port`.
    pub fn new(address: &str, options: &ChannelOptions, patience: Duration) -> Result<Self, ChannelError> {
        let uri = crate::channel::server_uri(address, options)?;
        let connections = WindowedConnections::of(|window, note| {
            let connector = Connector::new(options.tls.clone(), note);
            ResendLayer.layer(SharedConnection::new(uri.clone(), connector, window, patience))
        });
        Ok(Self { address: address.into(), options: options.clone(), connections })
    }

    /// A channel to `target`. Requests and errors name the target.
    pub fn target(&self, target: &Authority) -> Channel {
        let addressed = AuthorityLayer::new(target).layer(self.connections.clone());
        compressed(&format!("{target} via {}", self.address), addressed, &self.options)
    }
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").field("address", &self.address).finish_non_exhaustive()
    }
}

/// A channel to `target` through the gateway whose local gRPC port is at `gateway` (`host:port`), without TLS and
/// compression, over connections of its own. Channels of a [`Gateway`] share connections.
///
/// # Errors
/// `gateway` is not of the form `host:port`.
pub fn via(gateway: &str, target: &Authority) -> Result<Channel, ChannelError> {
    via_with(gateway, target, &ChannelOptions::default())
}

/// A channel to `target` through the gateway whose local gRPC port is at `gateway` (`host:port`).
///
/// As [`direct_with`](crate::direct_with), except that requests and errors name the target. The compression is between the caller and the
/// target: gateways forward messages as they are. Must be called within a Tokio runtime.
///
/// # Errors
/// `gateway` is not of the form `host:port`.
pub fn via_with(
    gateway: &str,
    target: &Authority,
    options: &ChannelOptions,
) -> Result<Channel, ChannelError> {
    Ok(Gateway::new(gateway, options, Duration::ZERO)?.target(target))
}

/// Time between two attempts to reach a gateway that may be restarting.
const RESTART_RETRY: Duration = Duration::from_millis(50);

/// An HTTP/2 connection that is opened when it is needed, and again after a loss. Requests keep their authority. Clones share it.
#[derive(Clone)]
struct SharedConnection(Arc<ConnectionState>);

struct ConnectionState {
    uri: Uri,
    connector: Connector,
    builder: Builder<TokioExecutor>,
    patience: Duration,
    current: Mutex<Current>,
    /// Held while connecting, so that requests that wait share one attempt.
    connecting: tokio::sync::Mutex<()>,
}

/// The last connection, and the last attempt that failed.
#[derive(Default)]
struct Current {
    connection: Option<OpenedConnection>,
    /// When the last attempt to connect failed, and why.
    failed: Option<(Instant, String)>,
}

#[derive(Clone)]
struct OpenedConnection {
    sender: SendRequest<Body>,
    /// When it ended.
    ended: Arc<OnceLock<Instant>>,
}

impl SharedConnection {
    fn new(uri: Uri, connector: Connector, window: StreamWindow, patience: Duration) -> Self {
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(window.bytes())
            .max_frame_size(window.frame_bytes())
            .initial_connection_window_size(Limits::CONNECTION_WINDOW_BYTES)
            .max_header_list_size(Limits::HEADERS_BYTES)
            .keep_alive_interval(Limits::KEEP_ALIVE)
            .keep_alive_timeout(2 * Limits::KEEP_ALIVE)
            .keep_alive_while_idle(true)
            // As for other channels: any bound would be reached one day.
            .max_local_error_reset_streams(None);
        let (current, connecting) = (Mutex::default(), tokio::sync::Mutex::new(()));
        Self(Arc::new(ConnectionState { uri, connector, builder, patience, current, connecting }))
    }

    fn open(&self) -> Option<SendRequest<Body>> {
        let current = self.0.current();
        let sender = current.connection.as_ref().map(|connection| &connection.sender);
        sender.filter(|sender| !sender.is_closed()).cloned()
    }

    async fn sender(&self) -> Result<SendRequest<Body>, BoxError> {
        if let Some(open) = self.open() {
            return Ok(open);
        }
        let asked = Instant::now();
        let _one_at_a_time = self.0.connecting.lock().await;
        if let Some(open) = self.open() {
            return Ok(open);
        }
        let give_up = {
            let current = self.0.current();
            if let Some((at, why)) = &current.failed
                && *at >= asked
            {
                return Err(ConnectError(why.clone().into()).into());
            }
            let last = current.connection.as_ref();
            last.map(|last| last.ended.get().copied().unwrap_or(asked) + self.0.patience)
        };
        loop {
            let error = match tokio::time::timeout(Limits::CONNECT_TIMEOUT, self.connect()).await {
                Ok(Ok(connection)) => {
                    let sender = connection.sender.clone();
                    self.0.current().connection = Some(connection);
                    return Ok(sender);
                }
                Ok(Err(error)) => error,
                Err(_) => timed_out(Limits::CONNECT_TIMEOUT),
            };
            if give_up.is_none_or(|give_up| Instant::now() >= give_up) {
                self.0.current().failed = Some((Instant::now(), transport_words(&*error)));
                return Err(error);
            }
            tokio::time::sleep(RESTART_RETRY).await;
        }
    }

    async fn connect(&self) -> Result<OpenedConnection, BoxError> {
        let mut connector = self.0.connector.clone();
        let io = connector.call(self.0.uri.clone()).await.map_err(ConnectError)?;
        let (sender, connection) =
            self.0.builder.handshake(io).await.map_err(|error| ConnectError(error.into()))?;
        let opened = OpenedConnection { sender, ended: Arc::default() };
        let ended = opened.ended.clone();
        // It ends with the last sender, or when the connection is lost. Requests then fail by themselves.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to a gateway was lost");
            }
            ended.get_or_init(Instant::now);
        });
        Ok(opened)
    }
}

impl ConnectionState {
    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn timed_out(limit: Duration) -> BoxError {
    let error = std::io::Error::new(
        std::io::ErrorKind::TimedOut,
        format!("the connection was not open after {} s", limit.as_secs()),
    );
    ConnectError(error.into()).into()
}

impl Service<Request<Body>> for SharedConnection {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let connection = self.clone();
        request.headers_mut().insert(header::USER_AGENT, USER_AGENT);
        let mut uri = std::mem::take(request.uri_mut()).into_parts();
        uri.scheme = self.0.uri.scheme().cloned();
        match Uri::from_parts(uri) {
            Ok(uri) => *request.uri_mut() = uri,
            Err(error) => return Box::pin(std::future::ready(Err(error.into()))),
        }
        Box::pin(async move {
            let mut sender = connection.sender().await?;
            sender.ready().await?;
            let response = sender.send_request(request).await?;
            Ok(response.map(Body::new))
        })
    }
}
