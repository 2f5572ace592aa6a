//! The gRPC server of a role, with health and reflection.

use std::net::SocketAddr;
use std::time::Duration;

use tonic::service::{Routes, RoutesBuilder};
use tonic_health::ServingStatus;
use tower::Layer;

use crate::deadline::Deadline;
use crate::serve::{ServeOptions, server_builder};
use crate::{BindError, CommonArgs, GrpcMetrics, ListenAddress, Listener, Probes, Shutdown};

/// Largest message that services accept unless told otherwise, in bytes: 16 MiB.
///
/// The limit is part of each generated service: `StoreServer::new(x).max_decoding_message_size(...)`.
/// What is sent is not limited.
pub const DEFAULT_MAX_DECODE_BYTES: usize = 16 << 20;

/// Settings of the gRPC server. The defaults suit long streams of large messages.
#[derive(Clone, Debug)]
pub struct GrpcOptions {
    /// Bytes in flight on one stream before its reader must have read (default 256 KiB). Larger is faster
    /// on long links; it is also the memory that a stopped reader holds.
    pub stream_window_bytes: u32,
    /// Bytes in flight on one connection (default 16 MiB). Kept far above the stream window, because a
    /// stopped stream must not take the whole of it and block the others.
    pub connection_window_bytes: u32,
    /// Bytes of answers buffered for a stream before its writer waits (default 256 KiB).
    pub send_buffer_bytes: usize,
    /// Calls that one connection may have open (default 1000); more wait in the client.
    pub max_concurrent_streams: u32,
    /// Silence after which the server asks for a sign of life (default 30 s).
    pub keepalive_interval: Duration,
    /// Time to answer that, after which the connection is closed (default 20 s).
    pub keepalive_timeout: Duration,
    /// Age after which a connection is asked to reconnect while its calls go on (default: never).
    pub max_connection_age: Option<Duration>,
    /// How long open calls may take after the word to stop (default 2 min).
    pub grace: Duration,
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

/// Why a gRPC server cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum GrpcServerError {
    /// The address cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A descriptor set for reflection cannot be used.
    #[error("gRPC reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// Serves gRPC over cleartext HTTP/2, with `grpc.health.v1` that follows the [`Probes`] and reflection in
/// both versions. Calls are held to the deadline that their caller sets in `grpc-timeout`, as a whole.
#[derive(Debug)]
pub struct GrpcServer {
    listener: Listener,
    options: GrpcOptions,
}

impl GrpcServer {
    /// Binds the address.
    ///
    /// # Errors
    /// Names the address and what is wrong with it.
    pub async fn bind(address: &ListenAddress, options: GrpcOptions) -> Result<Self, BindError> {
        Ok(Self { listener: Listener::bind(address).await?, options })
    }

    /// The address in fact bound.
    pub fn local_addr(&self) -> SocketAddr {
        self.listener.local_addr()
    }

    /// Serves `services` until `shutdown`, then for at most the grace period the calls that are open.
    ///
    /// `descriptors` are encoded `FileDescriptorSet`s for reflection.
    ///
    /// # Errors
    /// A descriptor set that reflection cannot use; nothing was served then.
    pub async fn serve(
        self,
        services: RoutesBuilder,
        descriptors: &[&[u8]],
        metrics: GrpcMetrics,
        probes: Probes,
        shutdown: Shutdown,
    ) -> Result<(), GrpcServerError> {
        let Self { listener, options } = self;
        let (reporter, health) = tonic_health::server::health_reporter();
        let reflection = || {
            descriptors
                .iter()
                .chain([&tonic_health::pb::FILE_DESCRIPTOR_SET])
                .fold(tonic_reflection::server::Builder::configure(), |builder, set| {
                    builder.register_encoded_file_descriptor_set(set)
                })
        };
        let routes: Routes = services
            .routes()
            .add_service(health)
            .add_service(reflection().build_v1()?)
            .add_service(reflection().build_v1alpha()?)
            .prepare();
        let service = metrics.layer().layer(Deadline::new(routes));

        let mut server = server_builder().http2_only();
        server
            .http2()
            .initial_stream_window_size(options.stream_window_bytes)
            .initial_connection_window_size(options.connection_window_bytes)
            .max_send_buf_size(options.send_buffer_bytes)
            .max_concurrent_streams(options.max_concurrent_streams)
            // h2 counts frames that arrive late for finished calls as errors, and for good: over the life of a
            // connection any bound would be met, and the connection and all its calls would end.
            .max_local_error_reset_streams(None)
            .keep_alive_interval(options.keepalive_interval)
            .keep_alive_timeout(options.keepalive_timeout);
        let times = ServeOptions { grace: options.grace, max_age: options.max_connection_age };
        let follow_probes = async {
            let mut ready = probes.health().is_ready();
            loop {
                let status = if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
                reporter.set_service_status("", status).await;
                ready = probes.wait_until(|health| health.is_ready() != ready).await.is_ready();
            }
        };
        tokio::select! {
            () = listener.serve(server, service, times, shutdown) => Ok(()),
            never = follow_probes => never,
        }
    }
}
