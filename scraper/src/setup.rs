//! A scrape configuration, ready to be used.

use std::sync::Arc;

use model::{RelabelConfig, Relabeling};

use crate::config::{NameValidation, ScrapeConfig};
use crate::fetch::Fetcher;
use crate::rules::ScrapeRules;
use crate::series::max_schema;

/// A scrape configuration with its client and its compiled rules.
#[derive(Clone, Debug)]
pub(crate) struct JobSetup {
    pub(crate) config: Arc<ScrapeConfig>,
    pub(crate) fetcher: Fetcher,
    /// Relabelling of targets.
    pub(crate) relabeling: Relabeling,
    /// What becomes of samples.
    pub(crate) rules: Arc<ScrapeRules>,
}

impl JobSetup {
    /// # Errors
    /// A file of the TLS settings, or a proxy of the environment, cannot be used.
    pub(crate) fn new(config: Arc<ScrapeConfig>, start_timestamps: bool) -> Result<Self, String> {
        let compile =
            |rules: &[RelabelConfig]| Relabeling::new(rules.to_vec()).map_err(|why| why.to_string());
        let limit = |limit: u64| usize::try_from(limit).unwrap_or(usize::MAX);
        let limits = config.limits;
        let rules = ScrapeRules {
            honor_labels: config.honor_labels,
            honor_timestamps: config.honor_timestamps,
            track_timestamps_staleness: config.track_timestamps_staleness,
            keep_classic: config.always_classic,
            native_histograms: config.native_histograms,
            start_timestamps,
            legacy_names: config.validation == NameValidation::Legacy,
            bucket_limit: limit(config.bucket_limit),
            max_schema: max_schema(config.min_bucket_factor),
            metric_relabeling: compile(&config.metric_relabel_configs)?,
            sample_limit: limit(limits.samples),
            label_limit: limit(limits.labels),
            label_name_length_limit: limit(limits.label_name_bytes),
            label_value_length_limit: limit(limits.label_value_bytes),
        };
        Ok(Self {
            fetcher: Fetcher::new(&config)?,
            relabeling: compile(&config.relabel_configs)?,
            rules: Arc::new(rules),
            config,
        })
    }

    /// Whether a text of a series means the same with another setup, so that what is known of series can be kept.
    pub(crate) fn has_same_series(&self, other: &Self) -> bool {
        let (one, two) = (&self.config, &other.config);
        one.honor_labels == two.honor_labels
            && one.metric_relabel_configs == two.metric_relabel_configs
            && one.validation == two.validation
            && one.limits.labels == two.limits.labels
            && one.limits.label_name_bytes == two.limits.label_name_bytes
            && one.limits.label_value_bytes == two.limits.label_value_bytes
    }
}
