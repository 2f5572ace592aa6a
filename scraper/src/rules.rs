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
    /// Whether native histograms are read. Otherwise, they are classic ones.
    pub native_histograms: bool,
    /// Whether it is stored when counters began. Chunks then have encodings that Thanos, and Prometheus before 3.14, cannot read.
    pub start_timestamps: bool,
    /// Whether names other than letters, digits and underscores make a scrape fail.
    pub legacy_names: bool,
    /// Most buckets of a native histogram, which is reduced until it has no more.
    pub bucket_limit: usize,
    /// The greatest resolution of native histograms, which are reduced to it.
    pub max_schema: i32,
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
    /// The defaults of Prometheus, with native histograms.
    fn default() -> Self {
        Self {
            honor_labels: false,
            honor_timestamps: true,
            track_timestamps_staleness: false,
            keep_classic: false,
            native_histograms: true,
            start_timestamps: false,
            legacy_names: false,
            bucket_limit: 0,
            max_schema: 8,
            metric_relabeling: Relabeling::default(),
            sample_limit: 0,
            label_limit: 0,
            label_name_length_limit: 0,
            label_value_length_limit: 0,
        }
    }
}
