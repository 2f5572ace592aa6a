//! The sidecar's flags, with Thanos' names, and what they mean once checked.

use std::path::PathBuf;
use std::time::Duration;

use runtime::{CommonArgs, TimeArg, parse_duration};
use storeapi::RequestLimits;

/// Flags of `isthmus sidecar`.
#[derive(Clone, Debug, clap::Args)]
pub struct SidecarArgs {
    #[command(flatten)]
    pub(crate) common: CommonArgs,

    /// Where the Prometheus beside this sidecar answers; a path is kept as its route prefix
    #[arg(long = "prometheus.url", value_name = "URL", default_value = "http://localhost:9090")]
    pub(crate) prometheus_url: String,

    /// How often Prometheus is asked for its external labels and times
    #[arg(long = "prometheus.get_config_interval", value_name = "DURATION", default_value = "30s", value_parser = parse_duration)]
    pub(crate) get_config_interval: Duration,

    /// How long Prometheus may take to answer that
    #[arg(long = "prometheus.get_config_timeout", value_name = "DURATION", default_value = "30s", value_parser = parse_duration)]
    pub(crate) get_config_timeout: Duration,

    /// Prometheus' data folder
    #[arg(long = "tsdb.path", value_name = "DIR", default_value = "./data")]
    pub(crate) tsdb_path: PathBuf,

    /// Serves nothing older than this: an RFC 3339 time, or a duration before now such as -2w
    #[arg(long, value_name = "TIME", default_value = "0000-01-01T00:00:00Z", allow_hyphen_values = true)]
    pub(crate) min_time: TimeArg,

    /// Most series in one answer; 0 for no limit
    #[arg(long = "store.limits.request-series", value_name = "N", default_value_t = 0)]
    pub(crate) limit_series: u64,

    /// Most samples in one answer, counted as 120 a chunk; 0 for no limit
    #[arg(long = "store.limits.request-samples", value_name = "N", default_value_t = 0)]
    pub(crate) limit_samples: u64,
}

impl SidecarArgs {
    /// The limits of one Series request.
    pub(crate) fn limits(&self) -> RequestLimits {
        let some = |limit: u64| Some(limit).filter(|n| *n > 0);
        RequestLimits { series: some(self.limit_series), samples: some(self.limit_samples) }
    }
}
