//! A connection to a store: HTTP/2, opened when it is needed and again after a loss.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures::{FutureExt, TryFutureExt, future::BoxFuture};
use http::{Request, Response, uri::Scheme};
use hyper::client::conn::http2;
use hyper_util::rt::TokioTimer;
use mesh::ResendLayer;
use model::root_cause;
use tls::{ClientTls, ClientTlsOptions};
use tokio::{net::TcpStream, time::timeout_at};
use tonic::{Status, body::Body};
use tower::{Layer, Service, ServiceExt};

use crate::{
    config::{ClusterTarget, DialAddress, is_never_a_target},
    race::race,
    task::{self, BoxingExecutor},
    transport::h2::{Http2Io, Http2RequestBody, Http2Sender, handshake},
};

/// Time limit for connecting; the requests that wait for the connection then fail.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// An idle connection is probed this often, and closed when the answer takes longer than this.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Bytes that one stream may send ahead of its reader; a stalled reader takes this much of the gateway's memory. Targets are
/// near, so that a stream needs no more.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
/// Bytes that all streams together may send ahead of their readers: the most that HTTP/2 permits, 8,191 windows of streams,
/// so that stalled streams do not block others.
const CONNECTION_WINDOW_BYTES: u32 = (1 << 31) - 1;
/// Large frames save system calls and copies.
const FRAME_BYTES: u32 = 256 << 10;
/// Largest head or trailers of a store, whose errors may be long.
const MAX_HEADERS_BYTES: u32 = 1 << 20;

/// Sends requests to one address.
pub(crate) struct TargetClient {
    address: DialAddress,
    tls: Option<TargetTls>,
    /// Whether the store has answered once.
    answered: AtomicBool,
    /// This lock is not held while connecting; `connecting` is.
    current: Mutex<CurrentConnection>,
    connecting: tokio::sync::Mutex<()>,
}

/// The TLS of a target. Its files are read with the first connection, and again when they change.
struct TargetTls {
    options: ClientTlsOptions,
    loaded: OnceLock<ClientTls>,
}

impl TargetTls {
    fn client(&self) -> Result<&ClientTls, String> {
        if let Some(client) = self.loaded.get() {
            return Ok(client);
        }
        let client = ClientTls::load("targets[].tls", self.options.clone())
            .map_err(|cause| format!("tls: {cause}"))?;
        Ok(self.loaded.get_or_init(|| client))
    }
}

/// The connection in use, if any.
#[derive(Default)]
struct CurrentConnection {
    sender: Option<Http2Sender>,
    /// How many connections there were before this one.
    number: u64,
    /// The last attempt to connect, if it failed.
    failed: Option<FailedAttempt>,
}

#[derive(Clone)]
struct FailedAttempt {
    at: Instant,
    failure: ConnectFailure,
}

/// Why no connection could be opened.
#[derive(Clone, Debug)]
struct ConnectFailure {
    /// Without addresses, which must not leave this cluster.
    why: String,
    /// Each address that was tried, with its error.
    tried: String,
}

impl From<String> for ConnectFailure {
    fn from(why: String) -> Self {
        Self { why, tried: String::new() }
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl TargetClient {
    /// A client that connects with its first request.
    pub(crate) fn new(target: &ClusterTarget) -> Self {
        let tls = target.tls.clone().map(|options| TargetTls { options, loaded: OnceLock::new() });
        Self {
            address: target.address.clone(),
            tls,
            answered: AtomicBool::new(false),
            current: Mutex::default(),
            connecting: tokio::sync::Mutex::new(()),
        }
    }

    /// Whether it reaches a target that is configured like this.
    pub(crate) fn is_for(&self, target: &ClusterTarget) -> bool {
        self.address == target.address && self.tls.as_ref().map(|tls| &tls.options) == target.tls.as_ref()
    }

    /// The scheme of its URIs.
    pub(crate) fn scheme(&self) -> Scheme {
        if self.tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP }
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
        let client = Arc::clone(self);
        once.oneshot(request)
            .map_err(move |error: BoxError| match error.downcast::<Status>() {
                Ok(status) => *status,
                Err(error) => Status::unavailable(client.lost(&*error)),
            })
            .boxed()
    }

    /// Why a request has no answer.
    fn lost(&self, error: &(dyn std::error::Error + 'static)) -> String {
        let cause = mesh::transport_words(error);
        let hint = match (self.answered.load(Ordering::Relaxed), &self.tls) {
            (true, _) => "",
            (false, None) => "; it never answered, check whether it expects TLS",
            (false, Some(_)) => "; it never answered, check whether it serves gRPC there",
        };
        format!("the connection to the store was lost: {cause}{hint}")
    }

    async fn call_once(&self, request: Request<Body>) -> Result<Response<Body>, BoxError> {
        let request = request.map(|body| Http2RequestBody::new(body.into()));
        let (mut sender, number) = self.connected().await?;
        match sender.send_request(request).await {
            Ok(response) => {
                self.answered.store(true, Ordering::Relaxed);
                Ok(response.map(Body::new))
            }
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
        let asked = Instant::now();
        let _one_at_a_time = self.connecting.lock().await;
        if let Some(current) = self.current() {
            return Ok(current);
        }
        // Requests that waited for an attempt share its outcome.
        let unavailable = |failure: &ConnectFailure| Status::unavailable(format!("connect: {}", failure.why));
        if let Some(failed) = self.lock().failed.as_ref().filter(|failed| failed.at >= asked) {
            return Err(unavailable(&failed.failure));
        }
        // A large future, and rarely needed: the future of a request does not contain it.
        let connected = Box::pin(self.connect()).await;
        let mut current = self.lock();
        match connected {
            Ok(sender) => {
                let number = current.number + 1;
                *current = CurrentConnection { sender: Some(sender.clone()), number, failed: None };
                Ok((sender, number))
            }
            Err(failure) => {
                let status = unavailable(&failure);
                current.failed = Some(FailedAttempt { at: Instant::now(), failure });
                Err(status)
            }
        }
    }

    /// The addresses that the last attempt to connect has tried, each with its error, for the owner of the cluster; empty if it
    /// succeeded, or if the name could not be resolved.
    pub(crate) fn tried(&self) -> String {
        self.lock().failed.as_ref().map(|failed| failed.failure.tried.clone()).unwrap_or_default()
    }

    /// Connects within [`CONNECT_TIMEOUT`].
    async fn connect(&self) -> Result<Http2Sender, ConnectFailure> {
        let deadline = tokio::time::Instant::now() + CONNECT_TIMEOUT;
        let resolving = tokio::net::lookup_host(self.address.as_str());
        let resolved = timeout_at(deadline, resolving).await.map_err(|_| late())?;
        // The system's text for a failed lookup does not always mention the name.
        let resolved = resolved.map_err(|error| format!("resolving the host name failed: {error}"))?;
        let stream = connect_to_first(resolved, deadline).await?;
        let address = stream.peer_addr().map(|address| address.to_string()).unwrap_or_default();
        let greeted = timeout_at(deadline, self.greet(stream)).await.unwrap_or_else(|_| Err(late()));
        greeted.map_err(|why| ConnectFailure { tried: format!("{address}: {why}"), why })
    }

    /// Does the handshakes of TLS and HTTP/2.
    async fn greet(&self, stream: TcpStream) -> Result<Http2Sender, String> {
        let mut builder = http2::Builder::new(BoxingExecutor);
        builder
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES)
            .max_header_list_size(MAX_HEADERS_BYTES);
        let io = match &self.tls {
            None => Http2Io::plain(stream),
            Some(tls) => {
                let host = self.address.as_str().rsplit_once(':').map_or("", |(host, _)| host);
                let stream = tls.client()?.connect(host, stream).await.map_err(|error| error.to_string())?;
                Http2Io::tls(Box::new(stream))
            }
        };
        let started = handshake(&builder, io).await;
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

fn late() -> String {
    format!("no answer within {} s", CONNECT_TIMEOUT.as_secs())
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
async fn connect_to_first(
    addresses: impl Iterator<Item = SocketAddr>,
    deadline: tokio::time::Instant,
) -> Result<TcpStream, ConnectFailure> {
    let (never, possible): (Vec<_>, Vec<_>) = addresses.partition(|address| is_never_a_target(&address.ip()));
    // Each address that does not answer is named, so each has the limit for itself.
    let attempt = |address| async move {
        let connected = timeout_at(deadline, TcpStream::connect(address)).await;
        connected.map_or_else(|_| Err(late()), |connected| connected.map_err(|error| error.to_string()))
    };
    let failed = match race(possible, attempt).await {
        Ok(stream) => {
            let _ = stream.set_nodelay(true);
            return Ok(stream);
        }
        Err(failed) => failed,
    };
    let why = match (failed.last(), never.is_empty()) {
        (Some((_, error)), _) => error.clone(),
        (None, true) => "the host name has no address".to_owned(),
        (None, false) => {
            "the host name resolves to a link-local, multicast or unspecified address, which cannot be a target"
                .to_owned()
        }
    };
    let tried = failed.iter().map(|(address, error)| format!("{address}: {error}"));
    Err(ConnectFailure { why, tried: tried.collect::<Vec<_>>().join(", ") })
}

#[cfg(test)]
mod tests;
