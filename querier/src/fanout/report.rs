//! What became of each store that was asked.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use runtime::Registry;

/// How a store's part of an answer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its stream is not at its end.
    Pending,
    /// It said all that it had.
    Answered,
    /// It said nothing, or not all; and why.
    Failed(String),
}

/// One store's part of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreReport {
    /// The store.
    pub name: Arc<str>,
    /// How its part ended.
    pub outcome: Outcome,
    /// Series it sent; one that came in several pieces counts once a piece.
    pub series: u64,
    /// Chunks it sent.
    pub chunks: u64,
    /// Samples in its chunks.
    pub samples: u64,
    /// Payload of its chunks.
    pub bytes: u64,
    /// Messages with series that it sent.
    pub responses: u64,
    /// From when it was asked until its part ended, waits of the reader included; zero while it has not.
    pub took: Duration,
}

impl StoreReport {
    pub(super) fn new(name: &Arc<str>, outcome: Outcome) -> Self {
        let name = Arc::clone(name);
        let took = Duration::ZERO;
        Self { name, outcome, series: 0, chunks: 0, samples: 0, bytes: 0, responses: 0, took }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

/// Counts what stores do. Clones share the counts.
#[derive(Clone, Debug)]
pub struct FanoutMetrics {
    requests: Family<OutcomeLabels, Counter>,
    series: Counter,
    bytes: Counter,
}

impl FanoutMetrics {
    /// Registers the families.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics =
            Self { requests: Family::default(), series: Counter::default(), bytes: Counter::default() };
        registry.register(
            "isthmus_query_store_requests",
            "Series requests to stores by how they ended",
            metrics.requests.clone(),
        );
        registry.register(
            "isthmus_query_store_series",
            "Series that stores have sent",
            metrics.series.clone(),
        );
        registry.register(
            "isthmus_query_store_chunk_bytes",
            "Payload of the chunks that stores have sent, in bytes",
            metrics.bytes.clone(),
        );
        for outcome in ["answered", "failed", "dropped"] {
            metrics.requests.get_or_create(&OutcomeLabels { outcome }).inc_by(0);
        }
        metrics
    }

    pub(super) fn count(&self, report: &StoreReport) {
        let outcome = match report.outcome {
            Outcome::Answered => "answered",
            Outcome::Failed(_) => "failed",
            Outcome::Pending => "dropped",
        };
        self.requests.get_or_create(&OutcomeLabels { outcome }).inc();
        self.series.inc_by(report.series);
        self.bytes.inc_by(report.bytes);
    }
}
