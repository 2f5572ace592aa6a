//! The engine, its limits and its metrics, which all queries of a process share.

use std::sync::Arc;

use budget::{BudgetLimits, TotalBudget};
use model::Labels;
use promql::{EngineOptions, QUERIES};
use runtime::Registry;

use crate::config::parse_options;
use crate::endpoints::StoreSource;
use crate::fanout::{FanoutMetrics, ProxyOptions, ProxyStore};
use crate::local::args::CheckedLocalQueryArgs;
use crate::memory;
use crate::metrics::QueryMemory;
use crate::query::{Driver, QueryGate, QueryMetrics};

/// Selectors of one query that are read ahead.
const CONCURRENT_SELECTS: usize = 2;

/// What all queries of a process share: limits, memory, metrics. Clones are the same engine.
#[derive(Clone)]
pub struct QueryEngine {
    pub(crate) args: CheckedLocalQueryArgs,
    gate: QueryGate,
    metrics: Arc<QueryMetrics>,
    fanout: FanoutMetrics,
    pub(crate) total: TotalBudget,
}

impl QueryEngine {
    /// An engine with these limits; its metrics are registered.
    pub fn new(args: CheckedLocalQueryArgs, registry: &mut Registry) -> Self {
        let limits = BudgetLimits { samples: args.max_total_samples, bytes: args.max_total_memory };
        let total = TotalBudget::new(&QUERIES, limits);
        registry.register_collector(Box::new(QueryMemory(total.clone())));
        Self {
            gate: QueryGate::new(args.max_concurrency, registry),
            metrics: Arc::new(QueryMetrics::new(registry)),
            fanout: FanoutMetrics::new(registry),
            total,
            args,
        }
    }

    /// The same engine with other places for queries that run, so that these do not wait for others.
    pub(crate) fn with_own_gate(mut self) -> Self {
        self.gate = QueryGate::new(self.args.max_concurrency, &mut Registry::default());
        self
    }

    /// All stores of `source` as one.
    pub(crate) fn stores(&self, source: Arc<dyn StoreSource>) -> ProxyStore {
        let store_bytes = memory::for_one_store(self.args.max_memory);
        let options = ProxyOptions {
            selector_labels: Labels::empty(),
            response_timeout: None,
            sort_bytes: usize::try_from(self.args.max_memory).unwrap_or(usize::MAX),
            store_series: u64::MAX,
            verify_chunks: false,
            store_bytes: usize::try_from(store_bytes).unwrap_or(usize::MAX),
            window_bytes: memory::for_stores_ahead(self.args.max_memory),
            request_bytes: self.args.max_memory,
            total: self.total.clone(),
        };
        ProxyStore::new(source, options, self.fanout.clone())
    }

    /// Answers queries over `stores`. With `is_one_store`, all series of all stores have the labels that they are matched by.
    pub(crate) fn driver(&self, stores: &ProxyStore, is_one_store: bool) -> Driver {
        let args = &self.args;
        let engine = EngineOptions {
            parse: parse_options(&args.features),
            delayed_name_removal: args.has(crate::Feature::DelayedNameRemoval),
            use_start_timestamps: args.has(crate::Feature::StartTimestamps),
            max_samples: args.max_samples,
            max_bytes: args.max_memory,
            total: self.total.clone(),
            propagate_matchers: is_one_store,
            ..EngineOptions::default()
        };
        let metrics = Arc::clone(&self.metrics);
        Driver::new(stores.clone(), engine, !is_one_store, self.gate.clone(), CONCURRENT_SELECTS, metrics)
    }
}
