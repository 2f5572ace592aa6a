//! Limits concurrent queries, and counts queries.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use runtime::Registry;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::query::answer::QueryCost;

const SECONDS: [f64; 12] = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 6.0, 10.0, 30.0, 60.0, 120.0, 300.0];

/// Limits the number of running queries. Others wait in order of arrival. Clones share the limit.
#[derive(Clone, Debug)]
pub(crate) struct QueryGate {
    turns: Arc<Semaphore>,
    in_flight: Gauge,
    waited: Histogram,
}

/// The slot of a running query; freed when dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    _permit: Option<OwnedSemaphorePermit>,
    in_flight: Gauge,
}

impl QueryGate {
    /// Creates a gate for `max` queries, at least 1, and registers the metrics of Thanos.
    pub(crate) fn new(max: usize, registry: &mut Registry) -> Self {
        let gate = Self {
            turns: Arc::new(Semaphore::new(max.max(1))),
            in_flight: Gauge::default(),
            waited: Histogram::new(SECONDS),
        };
        let limit: Gauge = Gauge::default();
        limit.set(i64::try_from(max).unwrap_or(i64::MAX));
        registry.register(
            "thanos_query_concurrent_gate_queries_max",
            "Maximum number of queries that run at the same time",
            limit,
        );
        registry.register(
            "thanos_query_concurrent_gate_queries_in_flight",
            "Queries that are running",
            gate.in_flight.clone(),
        );
        registry.register(
            "thanos_query_concurrent_gate_duration_seconds",
            "Time that queries waited before they started, in seconds",
            gate.waited.clone(),
        );
        gate
    }

    /// Waits for a free slot.
    pub(crate) async fn enter(&self) -> Turn {
        let began = Instant::now();
        // The semaphore is never closed, so this always returns a permit.
        let permit = Arc::clone(&self.turns).acquire_owned().await.ok();
        self.waited.observe(began.elapsed().as_secs_f64());
        self.in_flight.inc();
        Turn { _permit: permit, in_flight: self.in_flight.clone() }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.in_flight.dec();
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QueryLabels {
    kind: &'static str,
    outcome: &'static str,
}

/// Metrics of queries.
#[derive(Debug)]
pub(crate) struct QueryMetrics {
    seconds: Family<QueryLabels, Histogram>,
    samples: Counter,
    partial: Counter,
}

impl QueryMetrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            seconds: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            samples: Counter::default(),
            partial: Counter::default(),
        };
        registry.register(
            "isthmus_query_duration_seconds",
            "Duration of queries including their wait, by kind and outcome, in seconds",
            metrics.seconds.clone(),
        );
        registry.register("isthmus_query_samples", "Samples decoded by queries", metrics.samples.clone());
        registry.register(
            "isthmus_query_partial_answers",
            "Partial answers, in which a store was missing",
            metrics.partial.clone(),
        );
        metrics
    }

    /// Records a query and its duration; `cost` is `None` if the query failed.
    pub(super) fn observe(&self, kind: &'static str, length: Duration, cost: Option<&QueryCost>) {
        let outcome = match cost {
            Some(cost) => {
                self.samples.inc_by(cost.samples);
                if cost.partial {
                    self.partial.inc();
                    "partial"
                } else {
                    "whole"
                }
            }
            None => "failed",
        };
        self.seconds.get_or_create(&QueryLabels { kind, outcome }).observe(length.as_secs_f64());
    }
}
