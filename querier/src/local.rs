//! Queries over one store of this process, as a Prometheus answers them: raw data, no replicas, every warning.
//!
//! The API, the engine and the fan-out are those of the querier; the fan-out has one store.

mod args;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use axum::Router;
use budget::{BudgetLimits, TotalBudget};
use model::{Labels, TimeRange};
use promql::{EngineOptions, QUERIES};
use runtime::{HttpMetrics, Registry};
use series::Dedup;
use storeapi::{Apis, MetadataStore, PartialResponse, Store, StoreInfo};

pub use args::{CheckedLocalQueryArgs, LocalQueryArgs};

use crate::api::{self, Api, ApiDefaults, ApiFacts, StartPage};
use crate::config::{WebPaths, parse_options};
use crate::endpoints::{Candidate, StoreLists, StoreSource};
use crate::fanout::{FanoutMetrics, ProxyOptions, ProxyStore};
use crate::lists::Lists;
use crate::memory;
use crate::metrics::QueryMemory;
use crate::query::{Driver, QueryGate, QueryMetrics};

/// Selectors of one query that are read ahead. The store is on a disk of this machine.
const CONCURRENT_SELECTS: usize = 2;

/// What the store is called in warnings.
const STORE_NAME: &str = "storage";

/// The HTTP API of a Prometheus over one store, without external labels.
pub struct LocalQueries<S> {
    /// The store. Its chunks have one producer.
    pub store: Arc<S>,
    /// The checked flags.
    pub args: CheckedLocalQueryArgs,
    /// What the API reports about the program.
    pub facts: Arc<dyn ApiFacts>,
    /// Title of the start page, and what is queried.
    pub page: StartPage,
}

struct OneStore(Candidate);

impl StoreSource for OneStore {
    fn candidates(&self) -> Vec<Candidate> {
        vec![self.0.clone()]
    }
}

impl<S: Store + MetadataStore + StoreLists> LocalQueries<S> {
    /// The routes of the API and of the start page.
    pub fn routes(self, registry: &mut Registry) -> Router {
        let apis = Apis {
            store: true,
            rules: true,
            metadata: true,
            targets: true,
            exemplars: true,
            query: false,
            status: true,
        };
        let info = StoreInfo { apis, ..StoreInfo::new("storage", Vec::new(), TimeRange::ALL) };
        let candidate = Candidate {
            name: STORE_NAME.into(),
            metadata: Some(Arc::clone(&self.store) as Arc<dyn MetadataStore>),
            lists: Some(Arc::clone(&self.store) as Arc<dyn StoreLists>),
            store: self.store,
            info: Some(Arc::new(info)),
            bound: Labels::empty(),
            selected: Vec::new(),
            unavailable: None,
        };
        let metrics = HttpMetrics::new(registry);
        let total = TotalBudget::new(
            &QUERIES,
            BudgetLimits { samples: self.args.max_total_samples, bytes: self.args.max_total_memory },
        );
        let options = proxy_options(&self.args, &total);
        let stores = ProxyStore::new(Arc::new(OneStore(candidate)), options, FanoutMetrics::new(registry));
        let driver = driver(&self.args, &stores, total, registry);
        let api = Api {
            lists: Lists::new(stores.clone(), driver.clone()),
            driver,
            stores,
            endpoints: None,
            defaults: defaults(&self.args),
            facts: self.facts,
            started: SystemTime::now(),
            paths: WebPaths::default(),
            tenancy: None,
        };
        api::routes(api, &metrics, self.page)
    }
}

fn proxy_options(args: &CheckedLocalQueryArgs, total: &TotalBudget) -> ProxyOptions {
    let store_bytes = memory::for_one_store(args.max_memory);
    ProxyOptions {
        selector_labels: Labels::empty(),
        response_timeout: None,
        sort_bytes: usize::try_from(args.max_memory).unwrap_or(usize::MAX),
        store_series: u64::MAX,
        verify_chunks: false,
        store_bytes: usize::try_from(store_bytes).unwrap_or(usize::MAX),
        window_bytes: memory::for_stores_ahead(args.max_memory),
        request_bytes: args.max_memory,
        total: total.clone(),
    }
}

fn driver(
    args: &CheckedLocalQueryArgs,
    stores: &ProxyStore,
    total: TotalBudget,
    registry: &mut Registry,
) -> Driver {
    let gate = QueryGate::new(args.max_concurrency, registry);
    let metrics = QueryMetrics::new(registry);
    registry.register_collector(Box::new(QueryMemory(total.clone())));
    let engine = EngineOptions {
        parse: parse_options(&args.features),
        delayed_name_removal: args.has(crate::Feature::DelayedNameRemoval),
        use_start_timestamps: args.has(crate::Feature::StartTimestamps),
        max_samples: args.max_samples,
        max_bytes: args.max_memory,
        total,
        propagate_matchers: true,
        ..EngineOptions::default()
    };
    Driver::new(stores.clone(), engine, false, gate, CONCURRENT_SELECTS, metrics)
}

fn defaults(args: &CheckedLocalQueryArgs) -> ApiDefaults {
    ApiDefaults {
        replica_labels: Vec::new(),
        dedup: Dedup::Penalty,
        partial_response: PartialResponse::Warn,
        timeout: args.timeout,
        lookback: Some(args.lookback_delta),
        dynamic_lookback: false,
        auto_downsampling: false,
        instant_max_resolution: std::time::Duration::ZERO,
        step: std::time::Duration::from_secs(1),
        metadata_range: std::time::Duration::ZERO,
        max_bytes: args.max_memory,
        cors: true,
    }
}

impl CheckedLocalQueryArgs {
    /// The effective settings, as `/api/v1/status/flags` shows them.
    pub fn flags(&self) -> BTreeMap<String, String> {
        [
            ("query.timeout", runtime::format_duration(self.timeout)),
            ("query.lookback-delta", runtime::format_duration(self.lookback_delta)),
            ("query.max-concurrency", self.max_concurrency.to_string()),
            ("query.max-samples", self.max_samples.to_string()),
            ("query.max-memory", self.max_memory.to_string()),
            ("query.max-total-memory", self.max_total_memory.to_string()),
        ]
        .into_iter()
        .map(|(flag, value)| (flag.to_owned(), value))
        .collect()
    }
}
