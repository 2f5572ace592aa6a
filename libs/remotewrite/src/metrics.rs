//! Metrics, with the names of Prometheus where they mean the same.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use model::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use runtime::Registry;

use crate::item::Counts;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QueueLabels {
    remote_name: String,
    url: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DroppedLabels {
    remote_name: String,
    url: String,
    reason: &'static str,
}

/// Why something is not sent.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Dropped {
    /// Relabelling drops its series.
    Relabelling,
    /// It is too old.
    TooOld,
    /// The log does not name its series.
    UnknownSeries,
    /// A message of version 2.0 has no exemplars without samples.
    WithoutSamples,
}

impl Dropped {
    const ALL: [Self; 4] = [Self::Relabelling, Self::TooOld, Self::UnknownSeries, Self::WithoutSamples];

    fn reason(self) -> &'static str {
        match self {
            Self::Relabelling => "dropped_series",
            Self::TooOld => "too_old",
            Self::UnknownSeries => "unintentionally_dropped_series",
            Self::WithoutSamples => "without_samples",
        }
    }
}

type Counters = Family<QueueLabels, Counter>;
type FloatGauges = Family<QueueLabels, Gauge<f64, AtomicU64>>;

/// Counters of samples, histograms and exemplars.
#[derive(Clone, Default)]
struct ByKind {
    samples: Counters,
    histograms: Counters,
    exemplars: Counters,
}

/// Metrics of all queues. Clones are the same metrics.
#[derive(Clone)]
pub struct RemoteWriteMetrics {
    sent: ByKind,
    failed: ByKind,
    retried: ByKind,
    dropped: [Family<DroppedLabels, Counter>; 3],
    metadata: Counters,
    metadata_failed: Counters,
    bytes: Counters,
    metadata_bytes: Counters,
    shards: Family<QueueLabels, Gauge>,
    max_shards: Family<QueueLabels, Gauge>,
    min_shards: Family<QueueLabels, Gauge>,
    pending: Family<QueueLabels, Gauge>,
    highest: FloatGauges,
    highest_sent: FloatGauges,
    durations: Family<QueueLabels, Histogram, fn() -> Histogram>,
    damaged: Counters,
}

impl RemoteWriteMetrics {
    /// Registers the metrics.
    pub fn new(registry: &mut Registry) -> Self {
        let durations: fn() -> Histogram = || {
            Histogram::new([
                0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0, 120.0, 300.0,
            ])
        };
        let metrics = Self {
            sent: ByKind::default(),
            failed: ByKind::default(),
            retried: ByKind::default(),
            dropped: Default::default(),
            metadata: Family::default(),
            metadata_failed: Family::default(),
            bytes: Family::default(),
            metadata_bytes: Family::default(),
            shards: Family::default(),
            max_shards: Family::default(),
            min_shards: Family::default(),
            pending: Family::default(),
            highest: Family::default(),
            highest_sent: Family::default(),
            durations: Family::new_with_constructor(durations),
            damaged: Family::default(),
        };
        metrics.register_counters(registry);
        metrics.register_gauges(registry);
        metrics
    }

    fn register_counters(&self, registry: &mut Registry) {
        let mut counter = |name: &str, help: &str, counter: &Counters| {
            registry.register(format!("prometheus_remote_storage_{name}"), help, counter.clone());
        };
        for (end, what, kinds) in [
            ("", "that receivers took", &self.sent),
            ("_failed", "that receivers refused for good", &self.failed),
            (
                "_retried",
                "that were sent again, because a receiver did not answer or asked for it",
                &self.retried,
            ),
        ] {
            counter(&format!("samples{end}"), &format!("Samples {what}"), &kinds.samples);
            counter(&format!("histograms{end}"), &format!("Native histograms {what}"), &kinds.histograms);
            counter(&format!("exemplars{end}"), &format!("Exemplars {what}"), &kinds.exemplars);
        }
        counter("metadata", "Metrics whose metadata receivers took", &self.metadata);
        counter("metadata_failed", "Metrics whose metadata could not be sent", &self.metadata_failed);
        counter("bytes", "Bytes of messages that receivers took, compressed, without metadata", &self.bytes);
        counter("metadata_bytes", "Bytes of messages with metadata, compressed", &self.metadata_bytes);
        registry.register(
            "isthmus_remote_write_damaged_log_parts",
            "Parts of the write-ahead log that could not be read, so that their samples were not sent",
            self.damaged.clone(),
        );
        for (kind, dropped) in ["samples", "histograms", "exemplars"].iter().zip(&self.dropped) {
            registry.register(
                format!("prometheus_remote_storage_{kind}_dropped"),
                "What was read from the log and not sent, by reason",
                dropped.clone(),
            );
        }
    }

    fn register_gauges(&self, registry: &mut Registry) {
        let mut gauge = |name: &str, help: &str, gauge: &Family<QueueLabels, Gauge>| {
            registry.register(format!("prometheus_remote_storage_{name}"), help, gauge.clone());
        };
        gauge("shards", "Requests at once", &self.shards);
        gauge("shards_max", "Most requests at once", &self.max_shards);
        gauge("shards_min", "Least requests at once", &self.min_shards);
        gauge("samples_pending", "Samples that were read from the log and are being sent", &self.pending);
        registry.register(
            "prometheus_remote_storage_queue_highest_timestamp_seconds",
            "Time of the newest sample that was read from the log, in seconds since the epoch",
            self.highest.clone(),
        );
        registry.register(
            "prometheus_remote_storage_queue_highest_sent_timestamp_seconds",
            "Time of the newest sample when all before it in the log was sent, in seconds since the epoch",
            self.highest_sent.clone(),
        );
        registry.register(
            "prometheus_remote_storage_sent_batch_duration_seconds",
            "Time to send a message, repetitions included",
            self.durations.clone(),
        );
    }
}

/// Metrics of one queue. They are removed with it.
pub(crate) struct QueueMetrics {
    all: RemoteWriteMetrics,
    labels: QueueLabels,
}

impl QueueMetrics {
    pub(crate) fn new(all: RemoteWriteMetrics, name: &str, url: &str) -> Self {
        let metrics =
            Self { all, labels: QueueLabels { remote_name: name.into(), url: without_secrets(url) } };
        // They are there from the begin on, with 0.
        let none = Counts::default();
        metrics.sent(none, 0);
        metrics.failed(none);
        metrics.retried(none);
        Dropped::ALL.iter().for_each(|why| metrics.dropped(none, *why));
        metrics.metadata(0, 0, true);
        metrics.metadata(0, 0, false);
        metrics.damaged(0);
        metrics.pending(0);
        metrics
    }

    fn count(&self, kinds: &ByKind, counts: Counts) {
        kinds.samples.get_or_create(&self.labels).inc_by(counts.samples);
        kinds.histograms.get_or_create(&self.labels).inc_by(counts.histograms);
        kinds.exemplars.get_or_create(&self.labels).inc_by(counts.exemplars);
    }

    pub(crate) fn sent(&self, counts: Counts, bytes: u64) {
        self.count(&self.all.sent, counts);
        self.all.bytes.get_or_create(&self.labels).inc_by(bytes);
    }

    pub(crate) fn failed(&self, counts: Counts) {
        self.count(&self.all.failed, counts);
    }

    pub(crate) fn retried(&self, counts: Counts) {
        self.count(&self.all.retried, counts);
    }

    fn dropped_labels(&self, why: Dropped) -> DroppedLabels {
        let QueueLabels { remote_name, url } = self.labels.clone();
        DroppedLabels { remote_name, url, reason: why.reason() }
    }

    pub(crate) fn dropped(&self, counts: Counts, why: Dropped) {
        let labels = self.dropped_labels(why);
        for (dropped, count) in
            self.all.dropped.iter().zip([counts.samples, counts.histograms, counts.exemplars])
        {
            dropped.get_or_create(&labels).inc_by(count);
        }
    }

    pub(crate) fn metadata(&self, metrics: u64, bytes: u64, is_sent: bool) {
        let counter = if is_sent { &self.all.metadata } else { &self.all.metadata_failed };
        counter.get_or_create(&self.labels).inc_by(metrics);
        self.all.metadata_bytes.get_or_create(&self.labels).inc_by(bytes);
    }

    pub(crate) fn damaged(&self, parts: u64) {
        self.all.damaged.get_or_create(&self.labels).inc_by(parts);
    }

    pub(crate) fn shards(&self, now: usize, min: usize, max: usize) {
        let set = |family: &Family<QueueLabels, Gauge>, value: usize| {
            family.get_or_create(&self.labels).set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        set(&self.all.shards, now);
        set(&self.all.min_shards, min);
        set(&self.all.max_shards, max);
    }

    pub(crate) fn pending(&self, samples: u64) {
        self.all.pending.get_or_create(&self.labels).set(i64::try_from(samples).unwrap_or(i64::MAX));
    }

    pub(crate) fn highest(&self, newest: Timestamp, is_sent: bool) {
        let gauge = if is_sent { &self.all.highest_sent } else { &self.all.highest };
        gauge.get_or_create(&self.labels).set(newest.as_secs_f64());
    }

    pub(crate) fn took(&self, time: Duration) {
        self.all.durations.get_or_create(&self.labels).observe(time.as_secs_f64());
    }
}

impl Drop for QueueMetrics {
    fn drop(&mut self) {
        let all = &self.all;
        for kinds in [&all.sent, &all.failed, &all.retried] {
            for counters in [&kinds.samples, &kinds.histograms, &kinds.exemplars] {
                counters.remove(&self.labels);
            }
        }
        for counters in [&all.metadata, &all.metadata_failed, &all.bytes, &all.metadata_bytes, &all.damaged] {
            counters.remove(&self.labels);
        }
        for gauges in [&all.shards, &all.min_shards, &all.max_shards, &all.pending] {
            gauges.remove(&self.labels);
        }
        for gauges in [&all.highest, &all.highest_sent] {
            gauges.remove(&self.labels);
        }
        all.durations.remove(&self.labels);
        for why in Dropped::ALL {
            let labels = self.dropped_labels(why);
            for dropped in &all.dropped {
                dropped.remove(&labels);
            }
        }
    }
}

/// A URL without user and password.
pub(crate) fn without_secrets(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (host, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    match host.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://{host}{path}"),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_not_in_labels() {
        let check = |url: &str, expected: &str| assert_eq!(without_secrets(url), expected);
        check("http://a:b@c:1/d@e", "http://c:1/d@e");
        check("https://a@c?x=@", "https://c?x=@");
        check("http://c:1/d", "http://c:1/d");
    }
}
