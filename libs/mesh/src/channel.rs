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
use http::{Request, Response, Uri, uri::Scheme};
use http_body_util::BodyExt;
use tls::ClientTls;
use tonic::{Status, body::Body, transport::Endpoint};
use tower::{Layer, Service, ServiceExt, util::BoxCloneSyncService};

use crate::error::ChannelError;
use crate::peer::{Peer, PeerLayer};
use crate::window::WindowedConnections;
use crate::words::transport_words;

/// Limits of connections.
pub(crate) struct Limits;

impl Limits {
    /// How long a TCP connection may take to open before the requests that wait for it fail.
    pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
    /// Interval of keep-alive pings, on idle connections too. A connection without an answer for twice as long is closed.
    pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(10);
    /// Bytes that all streams of a connection may send ahead of their readers: the most that HTTP/2 permits, 2,047 large windows
    /// of streams. With less, streams that are not read block the others.
    pub(crate) const CONNECTION_WINDOW_BYTES: u32 = (1 << 31) - 1;
    /// Largest head or trailers of a server, whose errors may be long.
    pub(crate) const HEADERS_BYTES: u32 = 1 << 20;
}

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

fn open(name: &str, endpoint: Endpoint, options: &ChannelOptions) -> Channel {
    let connections = WindowedConnections::new(&endpoint, options.tls.as_ref());
    compressed(name, connections, options)
}

/// A channel on these connections, with the compression of the options.
pub(crate) fn compressed<S>(name: &str, connections: S, options: &ChannelOptions) -> Channel
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + Sync + 'static,
    S::Error: Into<Box<dyn StdError + Send + Sync>>,
    S::Future: Send + 'static,
{
    let compression = ClientCompressionLayer::new(options.compression, MAX_ANSWER_BYTES);
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

/// The URI of the server at an address.
pub(crate) fn server_uri(address: &str, options: &ChannelOptions) -> Result<Uri, ChannelError> {
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
    format!("{}://{authority}", scheme(options)).parse().map_err(|_| refuse())
}

fn endpoint(address: &str, options: &ChannelOptions) -> Result<Endpoint, ChannelError> {
    Ok(Endpoint::from(server_uri(address, options)?)
        .connect_timeout(Limits::CONNECT_TIMEOUT)
        .http2_keep_alive_interval(Limits::KEEP_ALIVE)
        .keep_alive_timeout(2 * Limits::KEEP_ALIVE)
        .keep_alive_while_idle(true)
        .initial_connection_window_size(Limits::CONNECTION_WINDOW_BYTES)
        .http2_max_header_list_size(Limits::HEADERS_BYTES)
        // h2 counts frames that arrive late for cancelled streams as errors over the whole life of a connection. Any
        // bound would be reached one day.
        .http2_max_local_error_reset_streams(None))
}
