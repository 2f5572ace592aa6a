//! The flags of `isthmus scrape`, with the names of Prometheus and Thanos, and their validation.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bucket::{BucketConfig, ObjstoreArgs};
use clap::ValueEnum;
use querier::{
    CheckedLocalQueryArgs, CheckedRemoteReadArgs, Feature, LocalQueryArgs, LocalWebArgs, LocalWebPaths,
    RemoteReadArgs,
};
use runtime::{
    CommonArgs, ConfigMistakes, ListenAddress, UnneededArgs, format_duration, parse_bytes, parse_duration,
};
use storeapi::RequestLimits;

use crate::config::PrometheusConfig;
use crate::fixed_labels::{FixedLabel, fix_labels};
use crate::unneeded::UnneededByScraper;

/// How long samples are kept where neither a flag nor the file says it, as in Prometheus.
const DEFAULT_RETENTION: Duration = Duration::from_secs(15 * 24 * 3_600);

/// Features of Prometheus that need no flag here.
const ALWAYS_ENABLED: &[&str] = &[
    "exemplar-storage",
    "native-histograms",
    "metadata-wal-records",
    "memory-snapshot-on-shutdown",
    "concurrent-rule-eval",
    "auto-gomaxprocs",
    "auto-gomemlimit",
    "promql-at-modifier",
    "promql-negative-offset",
    "utf8-names",
    "expand-external-labels",
    "new-service-discovery-manager",
];

/// Flags of `isthmus scrape`.
#[derive(Clone, Debug, clap::Args)]
pub struct ScrapeArgs {
    #[command(flatten)]
    pub(crate) common: CommonArgs,

    /// Serve HTTP on this address: another name of --http-address, as in Prometheus
    #[arg(long = "web.listen-address", value_name = "HOST:PORT", conflicts_with = "http_address")]
    listen_address: Option<ListenAddress>,

    #[command(flatten)]
    web: LocalWebArgs,

    /// Scrape what this file says, a prometheus.yml
    #[arg(long = "config.file", value_name = "FILE", default_value = "prometheus.yml")]
    pub(crate) config_file: PathBuf,

    /// Keep samples in this folder; it may be the data folder of a Prometheus that no longer runs
    #[arg(long, alias = "storage.tsdb.path", value_name = "DIR", default_value = "./data")]
    data_dir: PathBuf,

    /// Keep samples at least this long; 15d if neither this nor --storage.tsdb.retention.size is set. The file may
    /// say it, too, and is stronger
    #[arg(long = "storage.tsdb.retention.time", value_name = "DURATION", value_parser = parse_duration)]
    retention_time: Option<Duration>,

    /// Remove the oldest blocks while the folder has more bytes than this; 0 for no limit
    #[arg(long = "storage.tsdb.retention.size", value_name = "BYTES", value_parser = parse_bytes)]
    retention_size: Option<u64>,

    /// The range of blocks
    #[arg(
        long = "storage.tsdb.min-block-duration",
        value_name = "DURATION",
        default_value = "2h",
        value_parser = parse_duration,
        hide = true
    )]
    block_range: Duration,

    /// Enable features of Prometheus, separated by commas; those about scraping are always enabled
    #[arg(long = "enable-feature", value_name = "FEATURE", value_delimiter = ',')]
    features: Vec<String>,

    #[command(flatten)]
    queries: LocalQueryArgs,

    #[command(flatten)]
    remote_read: RemoteReadArgs,

    /// Limit the series in one answer over gRPC; 0 for no limit
    #[arg(long = "store.limits.request-series", value_name = "N", default_value_t = 0)]
    limit_series: u64,

    /// Limit the samples in one answer over gRPC, counting 120 per chunk; 0 for no limit
    #[arg(long = "store.limits.request-samples", value_name = "N", default_value_t = 0)]
    limit_samples: u64,

    #[command(flatten)]
    objstore: ObjstoreArgs,

    /// Serve data that is in the bucket too, for as long as it is in the data folder; with
    /// --no-store.serve-uploaded, data that the stores of the bucket certainly have is left to them
    #[arg(
        long = "store.serve-uploaded",
        value_name = "BOOL",
        default_value_t = true,
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true,
        action = clap::ArgAction::Set
    )]
    serve_uploaded: bool,

    #[command(flatten)]
    pub(crate) unneeded: UnneededArgs<UnneededByScraper>,
}

/// The checked configuration of the role.
pub struct RoleConfig {
    pub(crate) file: PathBuf,
    /// External labels that the file does not decide, also after a reload.
    pub(crate) fixed: Vec<FixedLabel>,
    /// What the file said at the start.
    pub(crate) prometheus: PrometheusConfig,
    pub(crate) data_dir: PathBuf,
    pub(crate) retention: RetentionFlags,
    pub(crate) block_range: Duration,
    pub(crate) queries: CheckedLocalQueryArgs,
    pub(crate) remote_read: CheckedRemoteReadArgs,
    pub(crate) web: LocalWebPaths,
    pub(crate) limits: RequestLimits,
    /// `None` if nothing is uploaded.
    pub(crate) bucket: Option<BucketConfig>,
    pub(crate) serve_uploaded: bool,
    /// The effective settings by flag.
    pub(crate) shown: BTreeMap<String, String>,
    pub(crate) unneeded: UnneededArgs<UnneededByScraper>,
}

impl RoleConfig {
    /// Replaces the external labels that the file does not decide.
    ///
    /// # Errors
    /// The file has one of them with another value.
    pub fn fix_labels(&mut self, fixed: Vec<FixedLabel>) -> Result<(), ConfigMistakes> {
        fix_labels(&fixed, &mut self.prometheus, &self.file)?;
        self.fixed = fixed;
        Ok(())
    }
}

/// What the flags say about retention.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RetentionFlags {
    time: Option<Duration>,
    bytes: Option<u64>,
}

impl RetentionFlags {
    /// What holds with a file: how long and how many bytes are kept.
    pub(crate) fn with(self, config: &PrometheusConfig) -> (Option<Duration>, Option<u64>) {
        let time = config.storage.retention_time.or(self.time).filter(|time| !time.is_zero());
        let bytes = config.storage.retention_bytes.or(self.bytes).filter(|bytes| *bytes > 0);
        (time.or((bytes.is_none()).then_some(DEFAULT_RETENTION)), bytes)
    }
}

impl ScrapeArgs {
    /// The flags of every role, with the names of Prometheus applied.
    pub fn common(&self) -> CommonArgs {
        let mut common = self.common.clone();
        if let Some(address) = &self.listen_address {
            common.http_address = address.clone();
        }
        common
    }

    /// The folder of the samples.
    pub fn data_dir(&self) -> &std::path::Path {
        &self.data_dir
    }

    /// Validates the flags and the file. `fixed` are external labels that the file does not decide.
    ///
    /// # Errors
    /// All mistakes, one line each.
    pub fn check(self, fixed: Vec<FixedLabel>) -> Result<RoleConfig, ConfigMistakes> {
        let mut mistakes = ConfigMistakes::default();
        let mut prometheus = mistakes.note(PrometheusConfig::load(&self.config_file));
        let features = self.features.iter().filter(|name| !ALWAYS_ENABLED.contains(&name.as_str()));
        let features = features.filter_map(|name| {
            let feature = Feature::from_str(name, false);
            mistakes.note(feature.map_err(|_| {
                format!("--enable-feature={name}: is not known here; take Prometheus with the sidecar if you need it")
            }))
        });
        let features = features.collect();
        let queries = mistakes.note(self.queries.check(features));
        let web = mistakes.note(self.web.check());
        let remote_read = mistakes.note(self.remote_read.clone().check());
        let bucket = mistakes.note(self.objstore.load()).flatten();
        if self.block_range.is_zero() {
            mistakes.push("--storage.tsdb.min-block-duration=0s: must be greater than zero");
        }
        if let Some(prometheus) = &mut prometheus {
            mistakes.note(fix_labels(&fixed, prometheus, &self.config_file));
            mistakes.note(supported(prometheus, bucket.is_some(), &self.config_file));
        }
        let shown = self.shown(queries.as_ref(), web.as_ref(), remote_read.as_ref());
        let (Some(prometheus), Some(queries), Some(web), Some(remote_read)) =
            (prometheus, queries, web, remote_read)
        else {
            return Err(mistakes);
        };
        let some = |limit: u64| Some(limit).filter(|n| *n > 0);
        mistakes.or_ok(RoleConfig {
            file: self.config_file,
            fixed,
            prometheus,
            data_dir: self.data_dir,
            retention: RetentionFlags { time: self.retention_time, bytes: self.retention_size },
            block_range: self.block_range,
            queries,
            remote_read,
            web,
            limits: RequestLimits { series: some(self.limit_series), samples: some(self.limit_samples) },
            bucket,
            serve_uploaded: self.serve_uploaded,
            shown,
            unneeded: self.unneeded,
        })
    }

    /// The settings as `/api/v1/status/flags` shows them.
    fn shown(
        &self,
        queries: Option<&CheckedLocalQueryArgs>,
        web: Option<&LocalWebPaths>,
        remote_read: Option<&CheckedRemoteReadArgs>,
    ) -> BTreeMap<String, String> {
        let own = [
            ("config.file", self.config_file.display().to_string()),
            ("storage.tsdb.path", self.data_dir.display().to_string()),
            ("storage.tsdb.min-block-duration", format_duration(self.block_range)),
            // Blocks are not compacted here.
            ("storage.tsdb.max-block-duration", format_duration(self.block_range)),
            ("storage.tsdb.retention.time", self.retention_time.map_or("0s".to_owned(), format_duration)),
            ("storage.tsdb.retention.size", format!("{}B", self.retention_size.unwrap_or(0))),
            ("web.listen-address", self.common().http_address.to_string()),
            ("web.enable-lifecycle", "true".to_owned()),
            ("enable-feature", self.features.join(",")),
        ];
        let own = own.into_iter().map(|(flag, value)| (flag.to_owned(), value));
        let web = web.map(LocalWebPaths::flags).unwrap_or_default();
        let read = remote_read.map(CheckedRemoteReadArgs::flags).unwrap_or_default();
        own.chain(queries.map(CheckedLocalQueryArgs::flags).unwrap_or_default())
            .chain(web)
            .chain(read)
            .collect()
    }
}

/// Checks what only the role knows about a file.
///
/// # Errors
/// Blocks are uploaded, but the file has no external labels.
pub(crate) fn supported(
    config: &PrometheusConfig,
    uploads: bool,
    file: &std::path::Path,
) -> Result<(), ConfigMistakes> {
    let mut mistakes = ConfigMistakes::default();
    if uploads && config.global.external_labels.is_empty() {
        mistakes.push(format!(
            "{}: global.external_labels: is empty, but blocks are uploaded; set a combination (cluster, replica) that nothing \
             else in the bucket has",
            file.display()
        ));
    }
    mistakes.or_ok(())
}
