//! Tracing: spans of requests, sent to a collector in the OpenTelemetry protocol (OTLP).
//!
//! A request that comes with the header `traceparent` continues the trace of its caller, and so does each request to a
//! store, through every gateway. The header is passed on without `--tracing.config` too. With it, each HTTP request, gRPC
//! call, and call to a store is a span.
//!
//! Reading order: `context` (the header), `config`, `sampler`, `span`, `wire` (OTLP), `observe`, `export`.

mod config;
mod context;
mod export;
mod observe;
mod sampler;
mod span;
mod wire;

pub use config::TracingArgs;
pub(crate) use context::{TRACEPARENT, TraceContext};
pub(crate) use export::Exporter;
pub(crate) use observe::{observe_grpc, observe_http};
pub(crate) use span::{SpanKind, Tracer};
pub(crate) use wire::KeyValue;

#[cfg(test)]
mod tests;
