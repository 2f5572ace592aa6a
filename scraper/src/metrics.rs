//! Counters of scrapes, with the names of Prometheus.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use runtime::Registry;

use crate::config::DiscoveryConfig;
use crate::failure::ScrapeFailure;
use crate::report::ScrapeReport;

/// The label of metrics of scrape configurations.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct JobLabel {
    scrape_job: String,
}

/// The labels of metrics of discoveries.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DiscoveryLabels {
    config: String,
    mechanism: &'static str,
}

/// The label of metrics of intervals.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct IntervalLabel {
    interval: String,
}

/// Counters of scrapes. Clones are the same counters.
#[derive(Clone, Debug)]
pub(crate) struct ScrapeMetrics {
    intervals: Family<IntervalLabel, Histogram, fn() -> Histogram>,
    exceeded_samples: Counter,
    exceeded_body: Counter,
    exceeded_buckets: Counter,
    exemplars_out_of_order: Counter,
    exceeded_labels: Counter,
    exceeded_targets: Counter,
    duplicates: Counter,
    out_of_order: Counter,
    out_of_bounds: Counter,
    failed_targets: Family<JobLabel, Counter>,
    targets: Family<JobLabel, Gauge>,
    syncs: Family<JobLabel, Counter>,
    reloads: Counter,
    discovery_failures: Family<DiscoveryLabels, Counter>,
}

impl Default for ScrapeMetrics {
    fn default() -> Self {
        let intervals: fn() -> Histogram =
            || Histogram::new([0.01, 0.1, 1.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0]);
        Self {
            intervals: Family::new_with_constructor(intervals),
            exceeded_samples: Counter::default(),
            exceeded_body: Counter::default(),
            exceeded_buckets: Counter::default(),
            exemplars_out_of_order: Counter::default(),
            exceeded_labels: Counter::default(),
            exceeded_targets: Counter::default(),
            duplicates: Counter::default(),
            out_of_order: Counter::default(),
            out_of_bounds: Counter::default(),
            failed_targets: Family::default(),
            targets: Family::default(),
            syncs: Family::default(),
            reloads: Counter::default(),
            discovery_failures: Family::default(),
        }
    }
}

impl ScrapeMetrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        let mut counter =
            |name: &str, help: &str, counter: &Counter| registry.register(name, help, counter.clone());
        counter(
            "prometheus_target_scrapes_exceeded_sample_limit",
            "Scrapes that failed because they had more samples than the limit",
            &self.exceeded_samples,
        );
        counter(
            "prometheus_target_scrapes_exceeded_body_size_limit",
            "Scrapes that failed because the body was larger than the limit",
            &self.exceeded_body,
        );
        counter(
            "prometheus_target_scrapes_exceeded_native_histogram_bucket_limit",
            "Scrapes that failed because a native histogram had more buckets than the limit",
            &self.exceeded_buckets,
        );
        counter(
            "prometheus_target_scrapes_exemplar_out_of_order",
            "Exemplars that were refused because they are earlier than the last one of their series",
            &self.exemplars_out_of_order,
        );
        counter(
            "prometheus_target_scrape_pool_exceeded_label_limits",
            "Scrapes that failed because the labels of a series exceeded a limit",
            &self.exceeded_labels,
        );
        counter(
            "prometheus_target_scrape_pool_exceeded_target_limit",
            "Times that a scrape configuration had more targets than its limit",
            &self.exceeded_targets,
        );
        counter(
            "prometheus_target_scrapes_sample_duplicate_timestamp",
            "Samples that were refused because their series has another one at the same time",
            &self.duplicates,
        );
        counter(
            "prometheus_target_scrapes_sample_out_of_order",
            "Samples that were refused because they are earlier than the last one of their series",
            &self.out_of_order,
        );
        counter(
            "prometheus_target_scrapes_sample_out_of_bounds",
            "Samples that were refused because they are too old or too far in the future",
            &self.out_of_bounds,
        );
        counter(
            "prometheus_target_scrape_pool_reloads",
            "Scrape configurations that were replaced",
            &self.reloads,
        );
        registry.register(
            "prometheus_target_interval_length_seconds",
            "Time between two scrapes of a target",
            self.intervals.clone(),
        );
        registry.register(
            "prometheus_target_sync_failed",
            "Targets that could not be used after relabelling",
            self.failed_targets.clone(),
        );
        registry.register(
            "prometheus_target_scrape_pool_targets",
            "Targets that are scraped",
            self.targets.clone(),
        );
        registry.register(
            "prometheus_target_scrape_pool_sync",
            "Times that targets were compared with what was discovered",
            self.syncs.clone(),
        );
        registry.register(
            "prometheus_sd_refresh_failures",
            "Discoveries that failed, with the targets that were known before kept",
            self.discovery_failures.clone(),
        );
    }

    /// The counter of failures of a discovery.
    pub(crate) fn discovery_failures(&self, config: &DiscoveryConfig, job: &str) -> Counter {
        let mechanism = match config {
            DiscoveryConfig::Static(_) => "static",
            DiscoveryConfig::File(_) => "file",
            DiscoveryConfig::Dns(_) => "dns",
            DiscoveryConfig::Http(_) => "http",
        };
        let labels = DiscoveryLabels { config: job.to_owned(), mechanism };
        self.discovery_failures.get_or_create(&labels).clone()
    }

    /// Notes that a scrape began so long after the one before.
    pub(crate) fn observe_interval(&self, interval: &str, seconds: f64) {
        self.intervals.get_or_create(&IntervalLabel { interval: interval.to_owned() }).observe(seconds);
    }

    pub(crate) fn count_report(&self, report: &ScrapeReport) {
        self.duplicates.inc_by(report.duplicates as u64);
        self.out_of_order.inc_by(report.out_of_order as u64);
        self.out_of_bounds.inc_by(report.too_old as u64);
        self.exemplars_out_of_order.inc_by(report.exemplars_out_of_order as u64);
        match &report.failure {
            Some(ScrapeFailure::SampleLimit(_)) => drop(self.exceeded_samples.inc()),
            Some(ScrapeFailure::BucketLimit(_)) => drop(self.exceeded_buckets.inc()),
            Some(ScrapeFailure::LabelLimit(_)) => drop(self.exceeded_labels.inc()),
            Some(ScrapeFailure::BodyLimit(_)) => drop(self.exceeded_body.inc()),
            _ => {}
        }
    }

    pub(crate) fn count_exceeded_targets(&self) {
        self.exceeded_targets.inc();
    }

    pub(crate) fn count_reload(&self) {
        self.reloads.inc();
    }

    /// Notes how many targets a scrape configuration has, and how many of those that were discovered cannot be used.
    pub(crate) fn count_sync(&self, job: &str, targets: usize, failed: usize) {
        let label = JobLabel { scrape_job: job.to_owned() };
        self.targets.get_or_create(&label).set(i64::try_from(targets).unwrap_or(i64::MAX));
        self.failed_targets.get_or_create(&label).inc_by(failed as u64);
        self.syncs.get_or_create(&label).inc();
    }

    /// Forgets a scrape configuration.
    pub(crate) fn forget(&self, job: &str) {
        let label = JobLabel { scrape_job: job.to_owned() };
        self.targets.remove(&label);
        self.failed_targets.remove(&label);
        self.syncs.remove(&label);
    }
}
