//! The source of a dashboard: a YAML file in `deploy/grafana/source`.

use std::fs;
use std::path::PathBuf;

use serde::Deserialize;

/// The file of one dashboard.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Dashboard {
    pub(crate) title: String,
    pub(crate) description: String,
    /// A metric that each process of the dashboard has, and no other. The dashboard gets the variables `cluster` and `instance`, and a
    /// row about the processes.
    #[serde(default)]
    pub(crate) process: Option<String>,
    /// Whether the processes use a bucket. The dashboard gets a row about it.
    #[serde(default)]
    pub(crate) bucket: bool,
    #[serde(default)]
    pub(crate) variables: Vec<Variable>,
    pub(crate) rows: Vec<Row>,
}

/// A variable whose values are those of a label of a metric.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Variable {
    pub(crate) name: String,
    pub(crate) label: String,
    pub(crate) metric: String,
    /// The label.
    pub(crate) of: String,
    /// What "All" stands for; without it, for all values.
    #[serde(default)]
    pub(crate) all: Option<String>,
    /// Whether one value is selected, and never several.
    #[serde(default)]
    pub(crate) single: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Row {
    pub(crate) title: String,
    pub(crate) panels: Vec<Panel>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PanelType {
    #[default]
    Timeseries,
    Stat,
    Table,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Panel {
    pub(crate) title: String,
    pub(crate) description: String,
    #[serde(default, rename = "type")]
    pub(crate) kind: PanelType,
    /// A unit of Grafana.
    #[serde(default = "short")]
    pub(crate) unit: String,
    /// Of 24 columns.
    #[serde(default)]
    pub(crate) width: Option<u64>,
    #[serde(default)]
    pub(crate) max: Option<f64>,
    #[serde(default)]
    pub(crate) stack: bool,
    /// `COLOUR` first, then `FROM COLOUR`.
    #[serde(default)]
    pub(crate) thresholds: Vec<String>,
    /// What it means that there is no data. Without it, there is always data.
    #[serde(default)]
    pub(crate) empty: Option<String>,
    /// The alerts whose runbooks explain what to do.
    #[serde(default)]
    pub(crate) alerts: Vec<String>,
    #[serde(default)]
    pub(crate) expr: Option<String>,
    #[serde(default)]
    pub(crate) legend: String,
    /// Instead of `expr` and `legend`.
    #[serde(default)]
    pub(crate) queries: Vec<PanelQuery>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PanelQuery {
    pub(crate) expr: String,
    pub(crate) legend: String,
}

fn short() -> String {
    "short".to_owned()
}

impl Panel {
    pub(crate) fn queries(&self) -> Vec<PanelQuery> {
        let one = self.expr.clone().map(|expr| PanelQuery { expr, legend: self.legend.clone() });
        one.into_iter().chain(self.queries.iter().cloned()).collect()
    }
}

pub(crate) fn folder() -> PathBuf {
    crate::workspace::root().join("deploy/grafana")
}

/// All dashboards with the names of their files, without `.yaml`.
pub(crate) fn all() -> Vec<(String, Dashboard)> {
    let files = fs::read_dir(folder().join("source")).expect("the sources of the dashboards");
    let mut paths: Vec<PathBuf> = files.map(|file| file.expect("a file").path()).collect();
    paths.sort();
    let read = |path: PathBuf| {
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).expect("a source");
        let dashboard =
            serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        (name, dashboard)
    };
    paths.into_iter().map(read).collect()
}

/// The rows that dashboards of processes have in common.
pub(crate) fn common_rows(dashboard: &Dashboard) -> Vec<Row> {
    let parts = [(dashboard.bucket, BUCKET), (dashboard.process.is_some(), PROCESS)];
    let used = parts.iter().filter(|(is_used, _)| *is_used);
    used.map(|(_, text)| serde_saphyr::from_str(text).expect("a row")).collect()
}

const BUCKET: &str = r#"
title: Bucket
panels:
  - title: Operations
    unit: ops
    description: Operations on buckets per second.
    expr: sum by (operation) (rate(thanos_objstore_bucket_operations_total{instance=~"$instance"}[$__rate_interval]))
    legend: "{{operation}}"
  - title: Operations that fail
    unit: percentunit
    description: The share of operations that end with an error. An object that is missing is not an error.
    expr: |
      sum by (operation) (rate(thanos_objstore_bucket_operation_failures_total{instance=~"$instance"}[$__rate_interval]))
      / (sum by (operation) (rate(thanos_objstore_bucket_operations_total{instance=~"$instance"}[$__rate_interval])) > 0)
    legend: "{{operation}}"
    thresholds: [green, 0.01 yellow, 0.05 red]
    alerts: [IsthmusBucketOperationsFail]
  - title: Duration of operations
    unit: s
    description: The 99th percentile by operation.
    expr: histogram_quantile(0.99, sum by (operation, le) (rate(thanos_objstore_bucket_operation_duration_seconds_bucket{instance=~"$instance"}[$__rate_interval])))
    legend: "{{operation}}"
  - title: Bytes from and to buckets
    unit: Bps
    description: Bytes per second by operation.
    expr: sum by (operation) (rate(thanos_objstore_bucket_operation_fetched_bytes_total{instance=~"$instance"}[$__rate_interval]))
    legend: "{{operation}}"
"#;

const PROCESS: &str = r#"
title: Processes
panels:
  - title: Processors
    description: Processors that each process uses.
    expr: max by (instance) (rate(process_cpu_seconds_total{instance=~"$instance"}[$__rate_interval]))
    legend: "{{instance}}"
  - title: Memory
    unit: bytes
    description: Resident memory of each process.
    expr: max by (instance) (process_resident_memory_bytes{instance=~"$instance"})
    legend: "{{instance}}"
  - title: File descriptors
    unit: percentunit
    description: Open file descriptors as a share of how many may be open.
    expr: max by (instance) (process_open_fds{instance=~"$instance"} / process_max_fds{instance=~"$instance"})
    legend: "{{instance}}"
    thresholds: [green, 0.8 yellow, 0.95 red]
  - title: Time since the start
    unit: s
    description: It falls to 0 when a process is started again.
    expr: min by (instance) (time() - process_start_time_seconds{instance=~"$instance"})
    legend: "{{instance}}"
    alerts: [IsthmusProcessDown]
"#;
