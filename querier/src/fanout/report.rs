//! The result of each store in an answer.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use runtime::Registry;

use crate::fanout::resolutions::Resolutions;

/// How the part of a store ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreOutcome {
    /// Its stream has not ended.
    Pending,
    /// It answered completely.
    Answered,
    /// It failed, with this cause; its part is incomplete.
    Failed(String),
}

/// The part of one store in an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreReport {
    /// The name of the store.
    pub name: Arc<str>,
    /// How its part ended.
    pub outcome: StoreOutcome,
    /// Number of series; a series that was sent in several pieces counts once per piece.
    pub series: u64,
    /// Number of chunks.
    pub chunks: u64,
    /// Number of samples in these chunks.
    pub samples: u64,
    /// Payload of these chunks in bytes.
    pub bytes: u64,
    /// The resolutions of these chunks.
    pub resolutions: Resolutions,
    /// Number of messages with series.
    pub responses: u64,
    /// Time from the request until its part ended, including waits for the reader; zero until then.
    pub took: Duration,
}

impl StoreReport {
    pub(super) fn new(name: &Arc<str>, outcome: StoreOutcome) -> Self {
        let name = Arc::clone(name);
        Self {
            name,
            outcome,
            series: 0,
            chunks: 0,
            samples: 0,
            bytes: 0,
            resolutions: Resolutions::default(),
            responses: 0,
            took: Duration::ZERO,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

/// Metrics of requests to stores. Clones share the counters.
#[derive(Clone, Debug)]
pub struct FanoutMetrics {
    requests: Family<OutcomeLabels, Counter>,
    series: Counter,
    bytes: Counter,
}

impl FanoutMetrics {
    /// Registers the metrics.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics =
            Self { requests: Family::default(), series: Counter::default(), bytes: Counter::default() };
        registry.register(
            "isthmus_query_store_requests",
            "Series requests to stores, by outcome",
            metrics.requests.clone(),
        );
        registry.register(
            "isthmus_query_store_series",
            "Series received from stores",
            metrics.series.clone(),
        );
        registry.register(
            "isthmus_query_store_chunk_bytes",
            "Chunk payload received from stores, in bytes",
            metrics.bytes.clone(),
        );
        for outcome in ["answered", "failed", "dropped"] {
            metrics.requests.get_or_create(&OutcomeLabels { outcome }).inc_by(0);
        }
        metrics
    }

    pub(super) fn count(&self, report: &StoreReport) {
        let outcome = match report.outcome {
            StoreOutcome::Answered => "answered",
            StoreOutcome::Failed(_) => "failed",
            StoreOutcome::Pending => "dropped",
        };
        self.requests.get_or_create(&OutcomeLabels { outcome }).inc();
        self.series.inc_by(report.series);
        self.bytes.inc_by(report.bytes);
    }
}
