//! A request on the observability side: find the target, choose a connection, send.
//!
//! Requests arrive over plain HTTP/2. On the gateway's local port, their `:authority` names the target; on the plain port
//! of a target, the `:authority` is ignored. The whole body of a request is read before it is sent: every forwarded
//! method has one small request message, and with the body in memory, a request that a lost connection did not answer
//! can be sent once more on another connection.

use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response, Uri, uri};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use mesh::Authority;
use tonic::{Code, Status, body::Body};

use crate::proxy::{
    grpc,
    relay::{Relay, RelayDirection},
};
use crate::{
    connections::ClusterConnections,
    directory::{Directory, Offer, SessionId},
    metrics::GatewayMetrics,
    policy::MeshMethod,
    transport::{self, StreamErrorKind},
};

/// Largest request in bytes. Matchers and hints take a few kilobytes at most.
const MAX_REQUEST_BYTES: usize = 1 << 20;

/// Sends requests to clusters.
pub(crate) struct OutboundProxy {
    directory: Arc<Directory>,
    connections: Arc<ClusterConnections>,
    metrics: Arc<GatewayMetrics>,
}

impl OutboundProxy {
    pub(crate) fn new(
        directory: Arc<Directory>,
        connections: Arc<ClusterConnections>,
        metrics: Arc<GatewayMetrics>,
    ) -> Self {
        Self { directory, connections, metrics }
    }

    /// Answers a request whose authority names the target.
    pub(crate) async fn serve_named(&self, request: Request<Body>) -> Response<Body> {
        let authority = request.uri().authority().map(uri::Authority::as_str).unwrap_or_default();
        match target_of(authority) {
            Some(target) => self.serve(&target, request).await,
            None => {
                let shown: String = authority.chars().take(100).collect();
                grpc::refusal(
                    Code::NotFound,
                    format!(
                        "authority {shown:?}: is not a target, expected TARGET.CLUSTER such as scraper-0.eu-1"
                    ),
                )
            }
        }
    }

    /// Answers a request for `target` and ignores the request's authority.
    pub(crate) async fn serve(&self, target: &Authority, request: Request<Body>) -> Response<Body> {
        if self.directory.registration(target.cluster()).is_none() {
            // Not counted: the name comes from the client, and a metric per invented name would not be bounded.
            let message = format!("{target}: cluster {} is not registered", target.cluster());
            return grpc::refusal(Code::NotFound, message);
        }
        let method = MeshMethod::of_request(request.uri());
        let metrics = self.metrics.peer(target.cluster());
        let relay = Relay::begin(RelayDirection::Outbound, target.to_string(), method, metrics, &request);
        let Some(method) = method else {
            return relay
                .refuse(Code::Unimplemented, format!("{target}: the gateway does not forward this method"));
        };
        let (parts, body) = request.into_parts();
        let mut headers = parts.headers;
        grpc::strip_hop_headers(&mut headers);
        // Boxed, so that it is not copied at each layer above.
        let call = Box::pin(self.call(target, method, headers, body, relay.request_counter()));
        relay.run(call).await
    }

    /// The sessions that can serve a target.
    fn sessions(&self, target: &Authority) -> Result<Vec<SessionId>, Status> {
        let cluster = target.cluster();
        match self.directory.offer(target) {
            Offer::Sessions(sessions) => Ok(sessions),
            Offer::Nowhere => Ok(Vec::new()),
            Offer::Lost => Err(Status::unavailable(format!(
                "{target}: the gateway of cluster {cluster} that serves it is not connected"
            ))),
            Offer::Unknown => {
                Err(Status::not_found(format!("{target}: cluster {cluster} has no target of this name")))
            }
        }
    }

    /// Sends the request, and once more on another connection if the first one was lost before it answered.
    async fn call(
        &self,
        target: &Authority,
        method: MeshMethod,
        headers: HeaderMap,
        body: Body,
        sent: prometheus_client::metrics::counter::Counter,
    ) -> Result<Response<Body>, Status> {
        let body =
            Limited::new(body, MAX_REQUEST_BYTES).collect().await.map_err(|error| match error
                .downcast_ref::<LengthLimitError>()
            {
                Some(_) => Status::resource_exhausted(format!(
                    "{target}: the request is larger than {MAX_REQUEST_BYTES} bytes"
                )),
                None => {
                    Status::cancelled(format!("{target}: the request was not received completely: {error}"))
                }
            })?;
        let body = body.to_bytes();
        let mut first_failure = None;
        loop {
            let mut lease = self.connections.pick(target.cluster(), &self.sessions(target)?);
            if lease.is_none() {
                // This gateway may just have started.
                self.directory.settled().await;
                lease = self.connections.pick(target.cluster(), &self.sessions(target)?);
            }
            let lease = lease.ok_or_else(|| {
                let why =
                    first_failure.take().unwrap_or_else(|| "none of its gateways is connected".to_owned());
                Status::unavailable(format!("{target}: cluster {} is not connected: {why}", target.cluster()))
            })?;
            let request = request(target, method, &headers, &body)?;
            sent.inc_by(body.len() as u64);
            let connection = lease.connection();
            match connection.handler.handle(request).await {
                Ok(response) => {
                    // The connection stays in use until the response is dropped.
                    return Ok(response.map(|body| Body::new(LeasedBody { body, _lease: lease })));
                }
                Err(error) => {
                    let broken = matches!(error.kind(), StreamErrorKind::Lost | StreamErrorKind::Refused);
                    if !broken || first_failure.is_some() {
                        return Err(with_target(target, error));
                    }
                    // Further requests use another connection, if there is one.
                    connection.drain();
                    first_failure = Some(error.to_string());
                }
            }
        }
    }
}

fn with_target(target: &Authority, error: transport::StreamError) -> Status {
    let status = Status::from(error);
    let code = if status.code() == Code::Internal { Code::Unavailable } else { status.code() };
    Status::new(code, format!("{target}: {}", status.message()))
}

/// The target that an authority names. The authority may contain the port that the client connected to.
fn target_of(authority: &str) -> Option<Authority> {
    let name = match authority.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => authority,
    };
    name.parse().ok()
}

fn request(
    target: &Authority,
    method: MeshMethod,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<Request<transport::Body>, Status> {
    let uri = Uri::builder()
        .scheme(uri::Scheme::HTTPS)
        .authority(target.as_str())
        .path_and_query(method.path())
        .build()
        .map_err(|error| Status::internal(format!("{target}: {error}")))?;
    let mut request = Request::new(transport::Body::full(body.clone()));
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers.clone();
    Ok(request)
}

/// The body of a response. It keeps the lease on its connection until it is dropped.
struct LeasedBody {
    body: transport::Body,
    _lease: crate::connections::ConnectionLease,
}

impl http_body::Body for LeasedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Status>>> {
        std::pin::Pin::new(&mut self.body).poll_frame(context).map_err(Status::from)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

/// The target of a plain port. A reload can change it.
#[derive(Clone)]
pub(crate) struct PortTarget(Arc<RwLock<Authority>>);

impl PortTarget {
    pub(crate) fn new(target: Authority) -> Self {
        Self(Arc::new(RwLock::new(target)))
    }

    pub(crate) fn get(&self) -> Authority {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set(&self, target: Authority) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = target;
    }
}

/// The tower service of a plain HTTP/2 port.
#[derive(Clone)]
pub(crate) struct LocalProxyService {
    outbound: Arc<OutboundProxy>,
    /// The target of a plain port; `None` if requests name their target.
    target: Option<PortTarget>,
}

impl LocalProxyService {
    /// Serves requests that name their target.
    pub(crate) fn named(outbound: Arc<OutboundProxy>) -> Self {
        Self { outbound, target: None }
    }

    /// Sends every request to `target`.
    pub(crate) fn of(outbound: Arc<OutboundProxy>, target: PortTarget) -> Self {
        Self { outbound, target: Some(target) }
    }
}

impl tower::Service<Request<axum::body::Body>> for LocalProxyService {
    type Response = Response<Body>;
    type Error = std::convert::Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, std::convert::Infallible>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<axum::body::Body>) -> Self::Future {
        let Self { outbound, target } = self.clone();
        let request = request.map(Body::new);
        Box::pin(async move {
            Ok(match target {
                Some(target) => outbound.serve(&target.get(), request).await,
                None => outbound.serve_named(request).await,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_names_a_target_with_or_without_a_port() {
        let name: Authority = "scraper-0.eu-1".parse().unwrap();
        for authority in
            ["scraper-0.eu-1", "scraper-0.eu-1:10941", "Scraper-0.EU-1.", "scraper-0.eu-1.:10941"]
        {
            assert_eq!(target_of(authority).as_ref(), Some(&name), "{authority}");
        }
    }

    /// Addresses in all notations, and names with an address hidden in them.
    #[test]
    fn only_two_names_are_a_target() {
        for authority in [
            "",
            ".",
            "localhost",
            "127.0.0.1",
            "127.0.0.1:10901",
            "127.1.1",
            "[::1]:10901",
            "::1",
            "scraper-0",
            "scraper-0.",
            ".eu-1",
            "scraper-0.eu-1.svc",
            "scraper-0.eu-1:",
            "scraper-0.eu-1:x",
            "scraper-0.eu-1:1:2",
            "user@scraper-0.eu-1",
            "scraper-0.eu-1/..",
            "scraper-0.eu-1\r\nx: y",
            "scraper%2d0.eu-1",
            "169.254.169.254",
            "metadata.google.internal",
        ] {
            assert_eq!(target_of(authority), None, "{authority:?}");
        }
        // Two decimal numbers are two valid names. They are only looked up as names, never connected to.
        assert!(target_of("127.1").is_some());
    }
}
