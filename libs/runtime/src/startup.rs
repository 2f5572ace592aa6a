//! The start-up of every role: check, bind, build, serve, drain, exit code.
//!
//! ```no_run
//! use runtime::{CommonArgs, ConfigMistakes, RoleError, RoleInfo, RunningRole, Startup};
//!
//! # struct Args { common: CommonArgs }
//! # struct Config;
//! # impl Args { fn check(self) -> Result<Config, ConfigMistakes> { Ok(Config) } }
//! const ROLE: RoleInfo = RoleInfo { name: "example", ..RoleInfo::DEFAULT };
//!
//! fn run(args: Args) -> std::process::ExitCode {
//!     let common = args.common.clone();
//!     runtime::start(ROLE, &common, args.check(), build)
//! }
//!
//! async fn build(config: Config, mut startup: Startup) -> Result<RunningRole, RoleError> {
//!     let shutdown = startup.shutdown();
//!     startup.spawn("worker", async move { shutdown.triggered().await });
//!     startup.probes().ready();
//!     Ok(startup.serve())
//! }
//! ```

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::middleware::from_fn_with_state;
use futures::future::LocalBoxFuture;
use prometheus_client::registry::Registry;
use tonic::service::RoutesBuilder;
use tracing::{error, info};

use crate::args::CommonArgs;
use crate::descriptors;
use crate::grpc::{GrpcOptions, GrpcPorts, GrpcServer};
use crate::http_server::{HttpServer, admin_routes, reload_route};
use crate::logs::init_logs;
use crate::metrics::{ClosedRegistry, GrpcMetrics};
use crate::probes::Probes;
use crate::refused_connections::RefusedConnections;
use crate::reload::Reload;
use crate::request_log::{RequestLog, log_http};
use crate::role_error::{ConfigMistakes, EXIT_ERROR, EXIT_OK, RoleError};
use crate::security::{ServerSecurity, warn_if_http_is_open};
use crate::shutdown::{Shutdown, ShutdownGate};
use crate::supervisor::{FirstToStop, Signals, Supervisor, TaskOutcome};
use crate::trace::{Exporter, Tracer};
use crate::traced_http;
use crate::version::BuildVersion;

/// What is known about a role before it starts.
#[derive(Clone, Copy, Debug)]
pub struct RoleInfo {
    /// The name in log lines, such as `sidecar`.
    pub name: &'static str,
    /// Encoded `FileDescriptorSet`s of the gRPC services, for metrics by method and for reflection.
    pub descriptors: &'static [&'static [u8]],
    /// Full names of the gRPC services of the main port, which reflection lists; without any, it has no reflection.
    pub services: &'static [&'static str],
    /// What the HTTP server shows, such as `metrics and queries`, for the warning about an open address.
    pub http_shows: &'static str,
    /// What the gRPC server shows, such as `all samples`, for the warning about an open address.
    pub grpc_shows: &'static str,
    /// How many cores there are for each thread; 1 or more. A role that only forwards needs fewer threads: its requests share
    /// connections, each of which does one thing at a time, and a request that changes threads costs system calls.
    pub cores_per_thread: usize,
}

impl RoleInfo {
    /// A role that has only what every role has: metrics and probes over HTTP, health over gRPC.
    pub const DEFAULT: Self = Self {
        name: "",
        descriptors: &[],
        services: &[],
        http_shows: "metrics and probes",
        grpc_shows: "health",
        cores_per_thread: 1,
    };
}

/// Runs a role from its checked flags to the exit code of the process.
///
/// 1. Prints each mistake as `error: MISTAKE`; exit code 2.
/// 2. Starts logging and the Tokio runtime, and binds both addresses.
/// 3. Awaits `build`, which adds the role's metrics, routes, services and tasks and calls [`Startup::serve`]. An error
///    up to here is printed as `error: CAUSE`; its exit code is that of the [`RoleError`].
/// 4. Serves until a signal comes or a task fails, then drains (after a signal, `--drain-delay` later); see [`RunningRole::wait`]. A signal to stop that comes
///    earlier ends the process at once, with exit code 0.
pub fn start<C, F>(
    role: RoleInfo,
    common: &CommonArgs,
    config: Result<C, ConfigMistakes>,
    build: impl FnOnce(C, Startup) -> F,
) -> ExitCode
where
    F: Future<Output = Result<RunningRole, RoleError>>,
{
    match config {
        Ok(config) => start_boxed(role, common, Box::new(|startup| Box::pin(build(config, startup)))),
        Err(mistakes) => mistakes.report(),
    }
}

/// What is wrong with the files that the flags of every role name: TLS and passwords of the servers, tracing, the request log. `role` is
/// the name of the role.
///
/// [`Startup::bind`] reports the same. This serves commands that check a role without starting it.
pub fn mistakes_in_files(role: &str, common: &CommonArgs) -> ConfigMistakes {
    let mut mistakes = ConfigMistakes::default();
    let security = ServerSecurity::load(common, &mut Registry::default(), &Reload::new());
    mistakes.note(security.map_err(|error| error.to_string()));
    mistakes.note(common.request_log.load());
    mistakes.note(common.tracing.load(role));
    mistakes
}

/// What builds a role on a start-up, without its type, so that the rest is compiled once and not for each role.
type BoxedBuild<'a> = Box<dyn FnOnce(Startup) -> LocalBoxFuture<'a, Result<RunningRole, RoleError>> + 'a>;

fn start_boxed(role: RoleInfo, common: &CommonArgs, build: BoxedBuild<'_>) -> ExitCode {
    let run = || {
        init_logs(common.log_level, common.log_format).map_err(RoleError::failed)?;
        descriptors::raise_limit();
        let runtime = runtime_builder(role.cores_per_thread).enable_all().build();
        let runtime = runtime.map_err(|error| RoleError::failed(format!("start the runtime: {error}")))?;
        runtime.block_on(async {
            let signals = Signals::install();
            let mut signals =
                signals.map_err(|error| RoleError::failed(format!("install the signal handlers: {error}")))?;
            let no_hooks = Reload::new();
            let build = async { build(Startup::bind(role, common).await?).await };
            tokio::select! {
                role = build => Ok(role?.supervisor.run(signals).await),
                signal = signals.stop(&no_hooks) => {
                    info!(component = role.name, signal, "received a signal before the start-up was complete, ending");
                    Ok(ExitCode::from(EXIT_OK))
                }
            }
        })
    };
    run().unwrap_or_else(|error: RoleError| error.report())
}

/// The variable with which tokio lets a user set the number of threads.
const THREADS_VARIABLE: &str = "TOKIO_WORKER_THREADS";

/// A runtime with one thread for so many cores, at least one. [`THREADS_VARIABLE`] overrides it.
fn runtime_builder(cores_per_thread: usize) -> tokio::runtime::Builder {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if std::env::var_os(THREADS_VARIABLE).is_none() {
        // Without a number from the system, tokio counts one core, too.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        builder.worker_threads(cores.div_ceil(cores_per_thread));
    }
    builder
}

/// A role whose addresses are bound and which does not serve yet.
///
/// A role adds what it has, in any order, and then calls [`Startup::serve`]. Tests call [`Startup::bind`] with port 0
/// and read the addresses from the [`RunningRole`].
#[derive(Debug)]
pub struct Startup {
    role: RoleInfo,
    registry: Registry,
    supervisor: Supervisor,
    http: HttpServer,
    routes: Router,
    /// The routes of every role are served below this path, too.
    prefix: String,
    tracer: Option<Tracer>,
    http_log: Option<Arc<RequestLog>>,
    http_grace: Duration,
    grpc: GrpcServer,
    services: RoutesBuilder,
    grpc_ports: GrpcPorts,
    http_knows_clients: bool,
    reload_prefix: String,
}

impl Startup {
    /// Binds the HTTP and the gRPC address; the probes answer "not ready: starting" once the role serves.
    ///
    /// # Errors
    /// An address cannot be bound, `--tracing.config` or `--request.logging-config` is wrong, a file of `--grpc-server-tls-*` or `--http.config` cannot be used, or the descriptors of
    /// the role cannot be decoded.
    pub async fn bind(role: RoleInfo, common: &CommonArgs) -> Result<Self, RoleError> {
        let mut registry = Registry::default();
        let metrics = GrpcMetrics::server(&mut registry, role.descriptors).map_err(|error| {
            RoleError::failed(format!("decode the gRPC descriptors of {}: {error}", role.name))
        })?;
        let mut supervisor = Supervisor::new(Probes::new(), common.grace_period());
        supervisor.serve_on_for(common.drain_delay);
        let security = ServerSecurity::load(common, &mut registry, &supervisor.reload())?;
        let http_knows_clients = security.http.knows_clients();
        let logs = common.request_log.load().map_err(RoleError::wrong_configuration)?;
        let tracing = common.tracing.load(role.name).map_err(RoleError::wrong_configuration)?;
        let tracer = tracing.map(|config| {
            let (exporter, tracer) = Exporter::new(config, &mut registry);
            supervisor.spawn("span exporter", exporter.run());
            tracer
        });
        let refused = RefusedConnections::new(&mut registry);
        let options = GrpcOptions {
            tls: security.grpc_tls,
            refused: refused.of("grpc"),
            log: logs.grpc,
            tracer: tracer.clone(),
            ..common.into()
        };
        let grpc_ports = GrpcPorts::new(options, role.descriptors, metrics, supervisor.probes().clone());
        let http = HttpServer::bind(&common.http_address, security.http, refused.of("http")).await;
        let grpc = grpc_ports.reflecting(role.services).bind(&common.grpc_address).await;
        Ok(Self {
            role,
            registry,
            supervisor,
            http: http.map_err(|error| error.of_flag("--http-address"))?,
            routes: Router::new(),
            prefix: String::new(),
            tracer,
            http_log: logs.http,
            http_grace: common.http_grace_period,
            grpc: grpc.map_err(|error| error.of_flag("--grpc-address"))?,
            services: RoutesBuilder::default(),
            grpc_ports,
            http_knows_clients,
            reload_prefix: String::new(),
        })
    }

    /// Where the role's metrics are registered.
    ///
    /// A type that counts something takes `&mut Registry` in its constructor and registers its families there. Register
    /// counters **without** `_total`, which the encoder adds, and write help texts without a full stop.
    pub fn registry(&mut self) -> &mut Registry {
        &mut self.registry
    }

    /// The state that `/-/ready`, `/-/healthy` and gRPC health report.
    pub fn probes(&self) -> Probes {
        self.supervisor.probes().clone()
    }

    /// The signal to stop, for tasks; triggering it stops the role with exit code 0.
    pub fn shutdown(&self) -> Shutdown {
        self.supervisor.shutdown()
    }

    /// What stops before the servers and before [`Startup::shutdown`] is triggered, such as a link to peers whose requests
    /// the servers of the role answer.
    pub fn first_to_stop(&self) -> FirstToStop {
        self.supervisor.first()
    }

    /// The bound address of the gRPC server, with the port that the system chose for port 0.
    pub fn grpc_address(&self) -> SocketAddr {
        self.grpc.local_addr()
    }

    /// The hooks that SIGHUP and `/-/reload` run.
    pub fn reload(&self) -> Reload {
        self.supervisor.reload()
    }

    /// The gate that the shutdown waits for: work that must not be cut enters it.
    pub fn gate(&self) -> ShutdownGate {
        self.supervisor.gate()
    }

    /// Starts a task now. It should return soon after [`Startup::shutdown`] is triggered.
    ///
    /// A task whose output is `()` cannot fail. The first task that returns an error or panics ends the role with the
    /// exit code of the error.
    pub fn spawn<T: TaskOutcome>(
        &mut self,
        name: impl Into<String>,
        task: impl Future<Output = T> + Send + 'static,
    ) {
        self.supervisor.spawn(name, task);
    }

    /// Adds HTTP routes to those that every role has (`/metrics`, `/-/healthy`, `/-/ready`, `/-/reload`).
    pub fn add_routes(&mut self, routes: Router) {
        self.routes = std::mem::take(&mut self.routes).merge(routes);
    }

    /// Serves `/-/reload` below this path, too, such as `/prefix`; empty for the root only.
    pub fn reload_below(&mut self, prefix: &str) {
        self.reload_prefix = prefix.to_owned();
    }

    /// Serves the routes that every role has below a path, too, such as `/a/b`, and not only at the root, where probes expect them.
    pub fn serve_below(&mut self, path: &str) {
        path.clone_into(&mut self.prefix);
    }

    /// The gRPC services, besides health and reflection.
    pub fn services(&mut self) -> &mut RoutesBuilder {
        &mut self.services
    }

    /// Opens further gRPC ports with the settings, metrics and probes of the role, and without reflection.
    pub fn grpc_ports(&self) -> GrpcPorts {
        self.grpc_ports.clone()
    }

    /// Starts both servers.
    pub fn serve(self) -> RunningRole {
        self.serve_and_then(async {})
    }

    /// Starts both servers; `after_last_call` runs when the role stops and its last gRPC call is over, and may take until
    /// the end of the grace period.
    pub fn serve_and_then(
        mut self,
        after_last_call: impl Future<Output = ()> + Send + 'static,
    ) -> RunningRole {
        let (http_address, grpc_address) = (self.http.local_addr(), self.grpc.local_addr());
        let (probes, shutdown) = (self.probes(), self.shutdown());
        let mut routes = admin_routes(ClosedRegistry::new(self.registry), probes, self.supervisor.reload());
        if !self.reload_prefix.is_empty() {
            routes = routes.merge(reload_route(&self.reload_prefix, self.supervisor.reload()));
        }
        if !self.prefix.is_empty() {
            routes = Router::new().nest(&self.prefix, routes.clone()).merge(routes);
        }
        let own = match self.http_log {
            Some(log) => self.routes.layer(from_fn_with_state(log, log_http)),
            None => self.routes,
        };
        let own = own.layer(from_fn_with_state(self.tracer, traced_http::in_context));
        let http = self.http.serve(routes.merge(own), self.http_grace, shutdown.clone());
        self.supervisor.spawn("HTTP server", http);
        info!(
            component = self.role.name,
            http = %http_address,
            grpc = %grpc_address,
            version = BuildVersion::current().version,
            "the servers accept connections"
        );
        if !self.http_knows_clients {
            warn_if_http_is_open(http_address, self.role.http_shows);
        }
        self.grpc.warn_if_open(self.role.grpc_shows);
        let grpc = self.grpc.serve(self.services, shutdown);
        self.supervisor.spawn("gRPC server", async move {
            let served = grpc.await;
            after_last_call.await;
            served
        });
        RunningRole { supervisor: self.supervisor, http_address, grpc_address }
    }
}

/// A role that serves: its tasks run.
#[derive(Debug)]
pub struct RunningRole {
    supervisor: Supervisor,
    http_address: SocketAddr,
    grpc_address: SocketAddr,
}

impl RunningRole {
    /// The address of the HTTP server, with the port that the system chose for port 0.
    pub fn http_address(&self) -> SocketAddr {
        self.http_address
    }

    /// The address of the gRPC server, with the port that the system chose for port 0.
    pub fn grpc_address(&self) -> SocketAddr {
        self.grpc_address
    }

    /// Stops the role, as SIGTERM does.
    pub fn shutdown(&self) -> Shutdown {
        self.supervisor.first().shutdown
    }

    /// Reloads the configuration, as SIGHUP does.
    pub fn reload(&self) -> Reload {
        self.supervisor.reload()
    }

    /// The state that `/-/ready`, `/-/healthy` and gRPC health report.
    pub fn probes(&self) -> Probes {
        self.supervisor.probes().clone()
    }

    /// Waits until the role has ended, and returns the exit code of the process.
    ///
    /// 0 after SIGINT, SIGTERM or [`RunningRole::shutdown`]; the code of its [`RoleError`] after a task failed (1 after a
    /// panic), with one log line that names the task. First the probes answer "not ready" and [`Startup::first_to_stop`] has
    /// the grace period; next the servers close their ports; then open requests, tasks and the [`ShutdownGate`] have their grace periods; what still runs is dropped. A second
    /// signal ends the process at once with code 130. SIGHUP runs the [`Reload`] hooks.
    ///
    /// # Cancel safety
    /// Dropping it aborts all tasks.
    pub async fn wait(self) -> ExitCode {
        match Signals::install() {
            Ok(signals) => self.supervisor.run(signals).await,
            Err(cause) => {
                error!(error = %cause, "signal handlers cannot be installed");
                ExitCode::from(EXIT_ERROR)
            }
        }
    }
}
