//! The gRPC servers of a role, with health and reflection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use compression::ServerCompressionLayer;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::TokioExecutor;
use hyper_util::server::conn::auto;
use tonic::service::{Routes, RoutesBuilder};
use tonic_health::ServingStatus;
use tonic_reflection::server::Builder;
use tower::{Layer, ServiceExt};
use tracing::warn;

use crate::address::ListenAddress;
use crate::args::CommonArgs;
use crate::context::InCallContext;
use crate::deadline::WithDeadline;
use crate::descriptors::connections_of_server;
use crate::http_service::HttpService;
use crate::metrics::GrpcMetrics;
use crate::port_tls::PortTls;
use crate::probes::Probes;
use crate::refused_connections::RefusedByServer;
use crate::request_log::{LoggedCalls, RequestLog};
use crate::role_error::RoleError;
use crate::serve::{BindError, FIRST_BYTE, Listener, ServeOptions, server_builder};
use crate::shutdown::Shutdown;
use crate::trace::Tracer;

/// Largest request message, after it is decompressed: the limit of tonic's services.
const MAX_REQUEST_BYTES: usize = 4 << 20;

/// The service that every gRPC port has.
const HEALTH: &str = "grpc.health.v1.Health";

/// Settings of a gRPC server. The defaults suit long streams of large messages.
#[derive(Clone, Debug)]
pub(crate) struct GrpcOptions {
    /// Bytes that one stream may send ahead of its reader (default 256 KiB). Larger is faster on long links, and is also
    /// the memory that a reader which has stopped occupies.
    pub(crate) stream_window_bytes: u32,
    /// Bytes that all streams of one connection may send ahead of their readers (default 16 MiB). It is far above the
    /// stream window, so that one stopped stream cannot use all of it and block the other streams.
    pub(crate) connection_window_bytes: u32,
    /// Bytes of answers that are buffered for a stream before its writer waits (default 256 KiB).
    pub(crate) send_buffer_bytes: usize,
    /// Calls that one connection may have open (default 1000); further calls wait in the client.
    pub(crate) max_concurrent_streams: u32,
    /// Silence after which the server sends a keep-alive ping (default 30 s).
    pub(crate) keepalive_interval: Duration,
    /// Time that the client has to answer the ping before the connection is closed (default 20 s).
    pub(crate) keepalive_timeout: Duration,
    /// Age at which the client of a connection is asked to reconnect; open calls continue (default: never).
    pub(crate) max_connection_age: Option<Duration>,
    /// How long open calls may take after the signal to stop (default 2 min).
    pub(crate) grace: Duration,
    /// TLS (default: none).
    pub(crate) tls: Option<PortTls>,
    /// Counts connections that are closed before a call (default: not registered).
    pub(crate) refused: RefusedByServer,
    /// Which calls are logged (default: none).
    pub(crate) log: Option<Arc<RequestLog>>,
    /// Records a span for each call (default: none).
    pub(crate) tracer: Option<Tracer>,
}

impl Default for GrpcOptions {
    fn default() -> Self {
        Self {
            stream_window_bytes: 256 << 10,
            connection_window_bytes: 16 << 20,
            send_buffer_bytes: 256 << 10,
            max_concurrent_streams: 1000,
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(20),
            max_connection_age: None,
            grace: Duration::from_secs(120),
            tls: None,
            refused: RefusedByServer::default(),
            log: None,
            tracer: None,
        }
    }
}

impl GrpcOptions {
    fn http2(&self) -> auto::Builder<TokioExecutor> {
        let mut server = server_builder().http2_only();
        server
            .http2()
            .initial_stream_window_size(self.stream_window_bytes)
            .initial_connection_window_size(self.connection_window_bytes)
            .max_send_buf_size(self.send_buffer_bytes)
            .max_concurrent_streams(self.max_concurrent_streams)
            // h2 counts frames that arrive late for finished calls as errors over the whole life of a connection. Any
            // bound would be reached one day, and would cut the connection with all its calls.
            .max_local_error_reset_streams(None)
            .keep_alive_interval(self.keepalive_interval)
            .keep_alive_timeout(self.keepalive_timeout);
        server
    }

    fn times(&self) -> ServeOptions {
        let tls = self.tls.clone();
        ServeOptions {
            grace: self.grace,
            max_age: self.max_connection_age,
            tls,
            long_lines: false,
            max_connections: connections_of_server(),
            first_byte: FIRST_BYTE,
            refused: self.refused.clone(),
        }
    }
}

impl From<&CommonArgs> for GrpcOptions {
    fn from(args: &CommonArgs) -> Self {
        let age = args.grpc_server_max_connection_age;
        Self {
            grace: args.grpc_grace_period,
            max_connection_age: (!age.is_zero()).then_some(age),
            ..Self::default()
        }
    }
}

/// Opens the gRPC ports of a role, which share settings, metrics and probes; clones are the same.
#[derive(Clone, Debug)]
pub struct GrpcPorts {
    options: GrpcOptions,
    descriptors: &'static [&'static [u8]],
    /// The services that reflection lists; without any, there is no reflection.
    services: &'static [&'static str],
    metrics: GrpcMetrics,
    probes: Probes,
}

impl GrpcPorts {
    pub(crate) fn new(
        options: GrpcOptions,
        descriptors: &'static [&'static [u8]],
        metrics: GrpcMetrics,
        probes: Probes,
    ) -> Self {
        Self { options, descriptors, services: &[], metrics, probes }
    }

    /// The same ports, with reflection that lists `services`.
    pub(crate) fn reflecting(&self, services: &'static [&'static str]) -> Self {
        Self { services, ..self.clone() }
    }

    /// Binds an address. Connections wait in the system until [`GrpcServer::serve`] is called.
    ///
    /// # Errors
    /// The address cannot be bound; the error names it.
    pub async fn bind(&self, address: &ListenAddress) -> Result<GrpcServer, BindError> {
        Ok(GrpcServer { listener: Listener::bind(address).await?, ports: self.clone() })
    }
}

/// Adds reflection in both versions, which lists `services`, health and itself.
fn with_reflection(
    routes: Routes,
    descriptors: &'static [&'static [u8]],
    services: &'static [&'static str],
) -> Result<Routes, RoleError> {
    let builder = |version: &str| {
        let builder = descriptors
            .iter()
            .chain([&tonic_health::pb::FILE_DESCRIPTOR_SET])
            .fold(Builder::configure(), |builder, set| builder.register_encoded_file_descriptor_set(set));
        let listed =
            services.iter().chain([&HEALTH]).fold(builder, |builder, name| builder.with_service_name(*name));
        listed.with_service_name(format!("grpc.reflection.{version}.ServerReflection"))
    };
    Ok(routes
        .add_service(builder("v1").build_v1().map_err(RoleError::failed)?)
        .add_service(builder("v1alpha").build_v1alpha().map_err(RoleError::failed)?))
}

/// A bound gRPC port.
///
/// It serves gRPC over HTTP/2, with TLS where `--grpc-server-tls-cert` is given, with `grpc.health.v1` that follows the [`Probes`].
/// The main port of a role has reflection in both versions, which lists the services of the role. A call is cut at the deadline that its caller set in `grpc-timeout`, streams included. Requests may be compressed
/// with gzip, snappy or zstd, and are answered likewise; what a fallback of the services serves is passed on as it is.
#[derive(Debug)]
pub struct GrpcServer {
    listener: Listener,
    ports: GrpcPorts,
}

impl GrpcServer {
    /// The bound address, with the port that the system chose for port 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.listener.local_addr()
    }

    /// Logs that clients without a certificate can reach the port from other hosts, and what it shows them.
    pub fn warn_if_open(&self, shows: &str) {
        let address = self.local_addr();
        let verifies = self.ports.options.tls.as_ref().is_some_and(PortTls::verifies_clients);
        if !verifies && !address.ip().is_loopback() {
            warn!(%address, shows, "gRPC is open to all clients that reach this address; set --grpc-server-tls-cert and --grpc-server-tls-client-ca, or restrict it to 127.0.0.1 or with a firewall");
        }
    }

    /// Serves `services` until `shutdown`, then lets open calls finish for at most the grace period.
    ///
    /// The future fails, before it serves anything, where the descriptors of the role cannot be used for reflection. It
    /// is boxed so that the server is compiled in this crate only.
    pub fn serve(
        self,
        services: RoutesBuilder,
        shutdown: Shutdown,
    ) -> BoxFuture<'static, Result<(), RoleError>> {
        let Self { listener, ports: GrpcPorts { options, descriptors, services: listed, metrics, probes } } =
            self;
        let serve = async move {
            let (reporter, health) = tonic_health::server::health_reporter();
            let routes = services.routes().add_service(health);
            let routes = match listed {
                [] => routes,
                listed => with_reflection(routes, descriptors, listed)?,
            };
            let compression = ServerCompressionLayer::new(MAX_REQUEST_BYTES);
            let routes = Routes::from(routes.into_axum_router().route_layer(compression)).prepare();
            let service = WithDeadline::new(InCallContext::new(routes, options.tracer.clone()));
            let service = LoggedCalls::new(metrics.layer().layer(service), options.log.clone());
            let service = HttpService::new(ServiceExt::<Request<Incoming>>::map_response(
                service,
                |answer: Response<tonic::body::Body>| answer.map(axum::body::Body::new),
            ));
            let follow_probes = async {
                let mut ready = probes.health().is_ready();
                loop {
                    let status = if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
                    reporter.set_service_status("", status).await;
                    ready = probes.wait_until(|health| health.is_ready() != ready).await.is_ready();
                }
            };
            tokio::select! {
                () = listener.serve(options.http2(), service, options.times(), shutdown) => Ok(()),
                never = follow_probes => never,
            }
        };
        serve.boxed()
    }
}
