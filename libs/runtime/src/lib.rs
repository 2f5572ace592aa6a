//! What every role of the program shares: flags, logs, metrics, probes, servers, start-up and shutdown.
//!
//! A role calls [`start`] with its checked flags and an async function that builds it on a [`Startup`]:
//!
//! 1. flatten [`CommonArgs`] into the role's own flags; check them, and note every mistake in [`ConfigMistakes`];
//! 2. register metrics in [`Startup::registry`], add HTTP routes and gRPC services, spawn tasks;
//! 3. call [`Startup::serve`]; [`start`] waits until the role has ended and returns its exit code.
//!
//! Reading order: `startup`, `role_error`, `args`, `logs`, `metrics`, `probes`, `reload`, `shutdown`, `supervisor`,
//! `serve`, `long_lines`, `http_server`, `grpc`; `arenas` is for roles with a budget of memory.
//!
//! Not here: the TLS of the mesh, code for a single role, pprof endpoints.

mod address;
mod arenas;
mod args;
mod client_tls;
mod config;
mod context;
mod deadline;
mod descriptors;
mod dns;
mod duration;
mod file_lists;
mod grpc;
mod grpc_tls;
mod http_server;
mod http_service;
mod kingpin;
mod log_limit;
mod logs;
mod long_lines;
mod matching_files;
mod memory;
mod metrics;
mod port_tls;
mod probes;
mod refused_connections;
mod reload;
mod request_log;
mod role_error;
mod security;
mod serve;
mod service_manager;
mod shutdown;
mod startup;
mod supervisor;
mod time_arg;
mod trace;
mod traced_http;
mod unneeded;
mod version;
mod web_config;
pub mod yaml;

pub use address::{AddressError, ListenAddress};
pub use arenas::with_few_arenas;
pub use args::CommonArgs;
pub use client_tls::{ClientTlsFields, system_tls};
pub use config::{LoadConfigError, UnsetVariable, config_origin, expand_env, load_config};
pub use context::{CallContext, ContextLayer, WithContext};
#[cfg(any(test, feature = "test-util"))]
pub use dns::testing::DnsServer;
pub use dns::{AddressFamilies, DnsError, DnsResolver, DomainHosts, ServiceHost};
pub use duration::{DurationError, format_duration, parse_duration};
pub use file_lists::{FileListing, FileLists};
pub use grpc::{GrpcPorts, GrpcServer};
pub use grpc_tls::GrpcTlsArgs;
pub use kingpin::kingpin_args;
pub use log_limit::LogLimit;
pub use logs::{LogFormat, LogLevel, LogsError, init_logs};
pub use long_lines::query_string;
pub use matching_files::matching_files;
pub use memory::{available_memory, parse_bytes};
pub use metrics::{GrpcMetrics, GrpcMetricsLayer, HttpMetrics, HttpMetricsLayer};
pub use port_tls::ClientCertificate;
pub use probes::{Health, Probes};
pub use prometheus_client::registry::Registry;
pub use reload::{Reload, ReloadError};
pub use request_log::RequestLogArgs;
pub use role_error::{BoxError, ConfigMistakes, EXIT_ERROR, EXIT_OK, EXIT_USAGE, RoleError};
pub use serve::BindError;
pub use shutdown::{GateGuard, Shutdown, ShutdownGate};
pub use startup::{RoleInfo, RunningRole, Startup, mistakes_in_files, start};
pub use supervisor::{FirstToStop, TaskOutcome};
pub use time_arg::{TimeArg, TimeArgError};
pub use trace::TracingArgs;
pub use unneeded::{UNNEEDED_BY_ALL, UNNEEDED_HEADING, UnneededArgs, UnneededFlag, UnneededFlags};
pub use version::BuildVersion;
