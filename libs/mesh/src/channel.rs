//! The channel that requests are sent on, however they travel.

use std::{
    error::Error as StdError,
    fmt,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use compression::{ClientCompressionLayer, MessageEncoding};
use http::{Request, Response, uri::Scheme};
use http_body_util::BodyExt;
use tls::ClientTls;
use tonic::{Status, body::Body, transport::Endpoint};
use tower::{Layer, Service, ServiceExt, util::BoxCloneSyncService};

use crate::authority::Authority;
use crate::error::ChannelError;
use crate::peer::{Peer, PeerLayer};
use crate::window::WindowedConnections;
use crate::words::transport_words;

/// How long a TCP connection may take to open before the requests that wait for it fail.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Interval of keep-alive pings, on idle connections too. A connection without an answer for twice as long is closed.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Bytes that all streams of a connection may send ahead of their readers: the most that HTTP/2 permits, 2,047 large windows
/// of streams. With less, streams that are not read block the others.
const CONNECTION_WINDOW_BYTES: u32 = (1 << 31) - 1;
/// Largest head or trailers of a server, whose errors may be long.
const MAX_HEADERS_BYTES: u32 = 1 << 20;
/// Largest message of a compressed answer, after it is decompressed. Plain answers have the limit of their reader.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// How a channel reaches its server.
#[derive(Clone, Debug, Default)]
pub struct ChannelOptions {
    /// The TLS of its connections; `None` for cleartext.
    pub tls: Option<ClientTls>,
    /// The compression of requests, which servers use for their answers too; `None` for plain messages.
    pub compression: Option<MessageEncoding>,
}

/// Sends gRPC requests: a tower service that every generated tonic client accepts.
///
/// Clones are cheap and share the connection. Dropping a response before its end cancels the request at the server, over
/// any number of hops.
#[derive(Clone)]
pub struct Channel {
    service: BoxCloneSyncService<Request<Body>, Response<Body>, ChannelError>,
}

impl Channel {
    /// A channel on any tower service of gRPC requests; its errors begin with `name`.
    pub fn new<S, B>(name: impl Into<Arc<str>>, service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Error: Into<Box<dyn StdError + Send + Sync>>,
        S::Future: Send + 'static,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        let name = name.into();
        let service = service
            .map_err(move |error| ChannelError::of(&name, error))
            .map_response(|response| response.map(Body::new));
        Self { service: BoxCloneSyncService::new(service) }
    }

    /// A channel to a service of this process, which sees [`Peer::local`] as the caller.
    pub fn local<S, B>(name: impl Into<Arc<str>>, service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Error: Into<Box<dyn StdError + Send + Sync>>,
        S::Future: Send + 'static,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        Self::new(name, PeerLayer::new(Peer::local()).layer(service))
    }

    /// The same channel with a tower layer around it, such as [`AuthorityLayer`](crate::AuthorityLayer).
    pub fn layer<L, B>(self, name: impl Into<Arc<str>>, layer: L) -> Self
    where
        L: Layer<Self>,
        L::Service: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
        <L::Service as Service<Request<Body>>>::Error: Into<Box<dyn StdError + Send + Sync>>,
        <L::Service as Service<Request<Body>>>::Future: Send + 'static,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        Self::new(name, layer.layer(self))
    }

    /// The same channel within a tower layer that passes its errors on unchanged.
    pub fn within<L>(self, layer: &L) -> Self
    where
        L: Layer<Self>,
        L::Service: Service<Request<Body>, Response = Response<Body>, Error = ChannelError>
            + Clone
            + Send
            + Sync
            + 'static,
        <L::Service as Service<Request<Body>>>::Future: Send + 'static,
    {
        Self { service: BoxCloneSyncService::new(layer.layer(self)) }
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Channel")
    }
}

impl Service<Request<Body>> for Channel {
    type Response = Response<Body>;
    type Error = ChannelError;
    type Future =
        <BoxCloneSyncService<Request<Body>, Response<Body>, ChannelError> as Service<Request<Body>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ChannelError>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.service.call(request)
    }
}

/// An HTTP/2 channel to `address` (`host:port`), without TLS and compression.
///
/// # Errors
/// `address` is not of the form `host:port`.
pub fn direct(address: &str) -> Result<Channel, ChannelError> {
    direct_with(address, &ChannelOptions::default())
}

/// An HTTP/2 channel to `address` (`host:port`).
///
/// Connects with the first request, and again after each lost connection. While no connection can be opened, requests fail
/// with an error that names the address. The host name is resolved again for each connection. A request whose connection
/// ends before the answer begins is sent once more, so that it must only read. Must be called within a Tokio runtime.
///
/// # Errors
/// `address` is not of the form `host:port`.
pub fn direct_with(address: &str, options: &ChannelOptions) -> Result<Channel, ChannelError> {
    Ok(open(address, endpoint(address, options)?, options))
}

/// A channel to `target` through the gateway whose local gRPC port is at `gateway` (`host:port`), without TLS and
/// compression.
///
/// # Errors
/// `gateway` is not of the form `host:port`.
pub fn via(gateway: &str, target: &Authority) -> Result<Channel, ChannelError> {
    via_with(gateway, target, &ChannelOptions::default())
}

/// A channel to `target` through the gateway whose local gRPC port is at `gateway` (`host:port`).
///
/// As [`direct_with`], except that requests and errors name the target. The compression is between the caller and the
/// target: gateways forward messages as they are. Must be called within a Tokio runtime.
///
/// # Errors
/// `gateway` is not of the form `host:port`.
pub fn via_with(
    gateway: &str,
    target: &Authority,
    options: &ChannelOptions,
) -> Result<Channel, ChannelError> {
    let endpoint = endpoint(gateway, options)?.origin(target.origin(scheme(options)));
    Ok(open(&format!("{target} via {gateway}"), endpoint, options))
}

fn open(name: &str, endpoint: Endpoint, options: &ChannelOptions) -> Channel {
    let compression = ClientCompressionLayer::new(options.compression, MAX_ANSWER_BYTES);
    let connections = WindowedConnections::new(&endpoint, options.tls.as_ref());
    let named = |body: Body| Body::new(body.map_err(|status| interrupted(&status)));
    Channel::new(name, compression.layer(connections.map_response(move |answer| answer.map(named))))
}

/// The error of an answer that ends early.
fn interrupted(status: &Status) -> Status {
    Status::new(status.code(), format!("the answer was interrupted: {}", transport_words(status)))
}

fn scheme(options: &ChannelOptions) -> Scheme {
    if options.tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP }
}

fn endpoint(address: &str, options: &ChannelOptions) -> Result<Endpoint, ChannelError> {
    let refuse = || {
        let shown: String = address.chars().take(140).collect();
        ChannelError::from(tonic::Status::invalid_argument(format!(
            "address {shown:?}: must be host:port, such as 127.0.0.1:10901"
        )))
    };
    let authority: http::uri::Authority = address.parse().map_err(|_| refuse())?;
    if authority.host().is_empty() || authority.port_u16().is_none() || address.contains('@') {
        return Err(refuse());
    }
    let uri = format!("{}://{authority}", scheme(options));
    let endpoint = Endpoint::from_shared(uri).map_err(|_| refuse())?;
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(2 * KEEP_ALIVE)
        .keep_alive_while_idle(true)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_max_header_list_size(MAX_HEADERS_BYTES)
        // h2 counts frames that arrive late for cancelled streams as errors over the whole life of a connection. Any
        // bound would be reached one day.
        .http2_max_local_error_reset_streams(None))
}
