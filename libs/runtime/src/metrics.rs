//! The metrics of a role as text.

mod grpc;
mod http;
mod observed;
mod process;
mod text;

use std::sync::Arc;

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

pub use grpc::{GrpcMetrics, GrpcMetricsLayer};
pub use http::{HttpMetrics, HttpMetricsLayer};
pub(crate) use observed::{BodyObserver, ObservedBody};

use crate::version::BuildVersion;

/// A complete registry, which can be written as text; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct ClosedRegistry {
    registry: Arc<Registry>,
}

impl ClosedRegistry {
    /// Adds the metrics of the process and the version of the build, and closes the registry.
    pub(crate) fn new(mut registry: Registry) -> Self {
        registry.register_collector(Box::new(process::ProcessCollector));
        register_build_info(&BuildVersion::current(), &mut registry);
        Self { registry: Arc::new(registry) }
    }

    /// The content type and text for a client that sent this `Accept` header.
    ///
    /// OpenMetrics 1.0 where the client accepts it, or else the text format 0.0.4, which every client accepts.
    pub(crate) fn encode(&self, accept: &str) -> (&'static str, String) {
        let mut text = String::with_capacity(16 << 10);
        // Writing to a `String` cannot fail. Where a collector fails, its metrics are missing.
        if let Err(error) = prometheus_client::encoding::text::encode(&mut text, &self.registry) {
            tracing::error!(error = %error, "a collector failed, its metrics are missing in this answer");
        }
        if text::accepts_openmetrics(accept) {
            (text::OPENMETRICS, text::polish_openmetrics(&text))
        } else {
            (text::PROMETHEUS, text::to_prometheus(&text))
        }
    }
}

/// Registers `isthmus_build_info`, and `thanos_build_info` for dashboards of Thanos. The value is always 1; the version is
/// in the labels.
fn register_build_info(version: &BuildVersion, registry: &mut Registry) {
    let BuildVersion { version, revision, branch, rustc, .. } = *version;
    let labels = vec![("version", version), ("revision", revision), ("branch", branch)];
    let gauge = |labels: Vec<(&'static str, &'static str)>| {
        let family = Family::<Vec<(&'static str, &'static str)>, Gauge>::default();
        family.get_or_create(&labels).set(1);
        family
    };
    let ours = [labels.as_slice(), &[("rustversion", rustc)]].concat();
    registry.register("isthmus_build_info", "Version of the program, value is always 1", gauge(ours));
    let help = "Version of the program under the name that dashboards of Thanos use, value is always 1";
    registry.register("thanos_build_info", help, gauge(labels));
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    /// Runs `promtool check metrics`; `None` where it is not installed.
    fn promtool_check(text: &str) -> Option<String> {
        let mut promtool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .ok()?;
        promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = promtool.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        Some(format!("{}{}", output.status, String::from_utf8_lossy(&said)))
    }

    #[tokio::test]
    async fn promtool_accepts_the_metrics_of_a_role() {
        let mut registry = Registry::default();
        let http = HttpMetrics::new(&mut registry);
        let grpc = GrpcMetrics::server(&mut registry, &[tonic_health::pb::FILE_DESCRIPTOR_SET]).unwrap();
        http::tests::ask(&http, "/ok").await;
        grpc::tests::ask(&grpc, "/grpc.health.v1.Health/Check", Some("0")).await;
        let metrics = ClosedRegistry::new(registry);
        let (content_type, text) = metrics.encode("");
        assert_eq!(content_type, "text/plain; version=0.0.4; charset=utf-8");
        for name in [
            "process_resident_memory_bytes",
            "process_cpu_seconds_total",
            "process_open_fds",
            "process_max_fds",
            "process_start_time_seconds",
            "isthmus_build_info{",
            "thanos_build_info{",
            "http_requests_total{",
            "http_request_duration_seconds_bucket{",
            "grpc_server_handled_total{",
        ] {
            assert!(text.contains(&format!("\n{name}")), "{name} is missing in\n{text}");
        }
        match promtool_check(&text) {
            Some(verdict) => assert_eq!(verdict, "exit status: 0", "{text}"),
            None => println!("skipped: promtool is not installed"),
        }
    }
}
