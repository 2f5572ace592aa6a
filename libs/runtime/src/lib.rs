//! What every role of the program shares: flags, logs, metrics, probes, servers and an orderly end.
//!
//! A role is built from these pieces in this order:
//!
//! 1. parse [`CommonArgs`] beside the role's own flags, start [`init_logs`];
//! 2. make a [`Registry`], hand `&mut` of it to the constructors of whatever counts something, then close it
//!    into [`Metrics`];
//! 3. make [`Probes`] and a [`Supervisor`], take [`Shutdown`] and [`Reload`] from it;
//! 4. bind an [`HttpServer`] and a [`GrpcServer`], spawn both on the supervisor with the role's own tasks;
//! 5. `run()` the supervisor and return its exit code from `main`.
//!
//! Reading order: [`args`](CommonArgs), [`logs`](init_logs), [`metrics`](Metrics), [`probes`](Probes),
//! [`shutdown`](Shutdown), [`supervisor`](Supervisor), [`serve`](Listener), [`http`](HttpServer),
//! [`grpc`](GrpcServer).
//!
//! Not here: TLS and certificates (the mesh), anything that knows a role, pprof endpoints.

mod address;
mod args;
mod config;
mod deadline;
mod duration;
mod grpc;
mod http_server;
mod kingpin;
mod logs;
mod metrics;
mod probes;
mod reload;
mod serve;
mod shutdown;
mod supervisor;
mod time_arg;
mod version;
pub mod yaml;

pub use address::{AddressError, ListenAddress};
pub use args::CommonArgs;
pub use config::{ConfigError, expand_env, load_config};
pub use duration::{DurationError, format_duration, parse_duration};
pub use grpc::{DEFAULT_MAX_DECODE_BYTES, GrpcOptions, GrpcServer, GrpcServerError};
pub use http_server::{HttpServer, admin_routes};
pub use kingpin::kingpin_args;
pub use logs::{LogFormat, LogLevel, LogsError, init_logs};
pub use metrics::{GrpcMetrics, GrpcMetricsLayer, HttpMetrics, HttpMetricsLayer, Metrics};
pub use probes::{Health, Probes};
pub use prometheus_client::registry::Registry;
pub use reload::{Reload, ReloadError};
pub use serve::{BindError, Listener};
pub use shutdown::{Gate, GateGuard, Shutdown};
pub use supervisor::{EXIT_ERROR, EXIT_OK, EXIT_USAGE, Supervisor};
pub use time_arg::{TimeArg, TimeArgError};
pub use version::Version;

/// An error of any kind, as tasks and hooks return it.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
