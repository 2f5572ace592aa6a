//! Queries over one store of this process, as a Prometheus answers them: raw data, no replicas, every warning.
//!
//! The API, the engine and the fan-out are those of the querier; the fan-out has one store.

mod args;
mod engine;
mod remote_read;
mod web;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use axum::Router;
use model::{Labels, TimeRange};
use runtime::{HttpMetrics, Registry};
use series::Dedup;
use storeapi::{Apis, MetadataStore, PartialResponse, Store, StoreInfo};

pub use args::{CheckedLocalQueryArgs, LocalQueryArgs};
pub use engine::QueryEngine;
pub use remote_read::{CheckedRemoteReadArgs, RemoteReadArgs, RemoteReadOptions};
pub use web::{LocalWebArgs, LocalWebPaths};

use crate::api::{self, Api, ApiDefaults, ApiFacts, StartPage};
use crate::config::WebPaths;
use crate::endpoints::{Candidate, StoreLists, StoreSource};
use crate::lists::Lists;
use crate::local::remote_read::RemoteRead;

/// What the store is called in warnings.
const STORE_NAME: &str = "storage";

/// The HTTP API of a Prometheus over one store, without external labels.
pub struct LocalQueries<S> {
    /// The store. Its chunks have one producer.
    pub store: Arc<S>,
    /// The engine.
    pub engine: QueryEngine,
    /// What the API reports about the program.
    pub facts: Arc<dyn ApiFacts>,
    /// Title of the start page, and what is queried.
    pub page: StartPage,
    /// Where the API is.
    pub paths: WebPaths,
    /// How remote read is answered; `None` if it is not.
    pub remote_read: Option<RemoteReadOptions>,
    /// Whether web pages of other origins can read answers.
    pub cors: bool,
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
        let store = Arc::clone(&self.store) as Arc<dyn Store>;
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
        let stores = self.engine.stores(Arc::new(OneStore(candidate)));
        let driver = self.engine.driver(&stores, true);
        let more = self.remote_read.map(|options| {
            RemoteRead::new(store, options, &self.engine).route().layer(metrics.layer("remote_read"))
        });
        let mut defaults = defaults(&self.engine.args);
        defaults.cors = self.cors;
        let api = Api {
            lists: Lists::new(stores.clone(), driver.clone()),
            driver,
            stores,
            endpoints: None,
            defaults,
            facts: self.facts,
            started: SystemTime::now(),
            paths: self.paths,
            tenancy: None,
        };
        api::routes(api, more.unwrap_or_default(), &metrics, self.page)
    }
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
