//! A connection to a store: HTTP/2, opened when it is needed and again after a loss.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures::{FutureExt, TryFutureExt, future::BoxFuture};
use http::{Request, Response, uri::Scheme};
use hyper::client::conn::http2;
use hyper_util::rt::TokioTimer;
use mesh::ResendLayer;
use model::root_cause;
use tls::{ClientTls, ClientTlsOptions};
use tokio::net::TcpStream;
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
    let (never, possible): (Vec<_>, Vec<_>) = addresses.partition(|address| is_never_a_target(&address.ip()));
    let failed = match race(possible, TcpStream::connect).await {
        Ok(stream) => {
            let _ = stream.set_nodelay(true);
            return Ok(stream);
        }
        Err(failed) => failed,
    };
    Err(match (failed.last(), never.is_empty()) {
        (Some((_, error)), _) => error.to_string(),
        (None, true) => "the host name has no address".to_owned(),
        (None, false) => {
            "the host name resolves to a link-local, multicast or unspecified address, which cannot be a target"
                .to_owned()
        }
    })
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
        let target = ClusterTarget {
            name: "scraper-0".parse().unwrap(),
            address: address.parse().unwrap(),
            tls: None,
        };
        let client = Arc::new(TargetClient::new(&target));
        let status = client.call(Request::new(Body::empty())).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::Unavailable);
        assert!(
            status.message().starts_with("connect: ") && !status.message().contains("127.0.0.1"),
            "{status}"
        );
    }

    /// A server whose answers are empty, with a certificate for `localhost` of the CA in `folder`.
    async fn serve_tls(folder: &std::path::Path) -> u16 {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, folder.display().to_string());
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        std::fs::write(folder.join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        let issuer = rcgen::Issuer::new(params, key);
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        let (cert, private) = (folder.join("server.pem"), folder.join("server.key"));
        std::fs::write(&cert, params.signed_by(&key, &issuer).unwrap().pem()).unwrap();
        std::fs::write(&private, key.serialize_pem()).unwrap();
        let tls =
            tls::ServerTlsOptions::new(cert, private, None, tls::TlsVersion::Tls13).load().unwrap().value;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let tls = tls.clone();
                tokio::spawn(async move {
                    let Ok(stream) = tls.accept(stream).await else { return };
                    let service = hyper::service::service_fn(|_| async {
                        Ok::<_, std::convert::Infallible>(Response::new(Body::empty()))
                    });
                    let server = hyper::server::conn::http2::Builder::new(BoxingExecutor);
                    let _ = server.serve_connection(hyper_util::rt::TokioIo::new(stream), service).await;
                });
            }
        });
        port
    }

    #[tokio::test]
    async fn a_target_with_tls_is_reached_and_refusals_say_why() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let port = serve_tls(folder.path()).await;
        serve_tls(other.path()).await;
        let call = async |ca: Option<std::path::PathBuf>| {
            let tls = ca.map(|ca| ClientTlsOptions {
                ca: Some(ca.into()),
                identity: None,
                server_name: None,
                skip_verify: false,
                min_version: tls::TlsVersion::Tls13,
                alpn: vec![b"h2"],
            });
            let (name, address) =
                ("scraper-0".parse().unwrap(), format!("localhost:{port}").parse().unwrap());
            let client = Arc::new(TargetClient::new(&ClusterTarget { name, address, tls }));
            let uri = format!("{}://localhost/thanos.Store/Series", client.scheme());
            let answer = client.call(Request::post(uri).body(Body::empty()).unwrap()).await;
            answer.map(|answer| answer.status().as_u16()).map_err(|status| status.message().to_owned())
        };
        assert_eq!(call(Some(folder.path().join("ca.pem"))).await, Ok(200));
        let distrusted = call(Some(other.path().join("ca.pem"))).await.unwrap_err();
        assert_eq!(distrusted, "connect: the server's certificate is not signed by a trusted CA");
        let missing = call(Some(folder.path().join("none"))).await.unwrap_err();
        assert!(missing.starts_with("connect: tls: ") && missing.contains("cannot be read"), "{missing}");
        let plain = call(None).await.unwrap_err();
        assert!(plain.ends_with("; it never answered, check whether it expects TLS"), "{plain}");
    }
}
