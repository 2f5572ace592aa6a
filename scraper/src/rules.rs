//! What a scrape configuration says about samples.

use model::Relabeling;

/// How the samples of a target are treated. A limit of 0 is none.
#[derive(Clone, Debug)]
pub struct ScrapeRules {
    /// Whether labels that the target exposes win over those of the target. Otherwise they get the prefix `exported_`.
    pub honor_labels: bool,
    /// Whether timestamps that the target exposes are used.
    pub honor_timestamps: bool,
    /// Whether series with such timestamps become stale when they vanish.
    pub track_timestamps_staleness: bool,
    /// Whether classic histograms are kept beside native ones.
    pub keep_classic: bool,
    /// Relabelling of metrics.
    pub metric_relabeling: Relabeling,
    /// Most samples of a scrape, after relabelling.
    pub sample_limit: usize,
    /// Most labels of a series.
    pub label_limit: usize,
    /// Most bytes of the name of a label.
    pub label_name_length_limit: usize,
    /// Most bytes of the value of a label.
    pub label_value_length_limit: usize,
}

impl Default for ScrapeRules {
    /// The defaults of Prometheus.
    fn default() -> Self {
        Self {
            honor_labels: false,
            honor_timestamps: true,
            track_timestamps_staleness: false,
            keep_classic: false,
            metric_relabeling: Relabeling::default(),
            sample_limit: 0,
            label_limit: 0,
            label_name_length_limit: 0,
            label_value_length_limit: 0,
        }
    }
}
