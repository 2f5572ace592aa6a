//! The querier: answers PromQL over all stores.
//!
//! It keeps a list of stores ([`endpoints`](StoreSource)), requests series from those that can have matching
//! ones and merges them ([`ProxyStore`]), evaluates queries ([`query`](run)), and serves the HTTP API of
//! Prometheus. It also serves StoreAPI, so a querier can be a store of another querier. Rules, targets,
//! exemplars and statistics of all stores are gathered and deduplicated (`lists`). Queries are answered over gRPC, too
//! (`query_server`).
//!
//! Other components answer queries over one store of their own with the same API ([`LocalQueries`]), or evaluate queries over all
//! stores ([`GlobalQueries`]).
//!
//! The querier stores nothing and has no certificate. It discovers clusters only through the directory of a
//! gateway.

mod api;
mod component;
mod config;
mod endpoints;
mod fanout;
mod global;
mod grpc_client;
mod lists;
mod local;
mod memory;
mod metrics;
mod query;
mod query_server;
mod unneeded;

pub use api::{ApiFacts, StartPage};
pub use component::run;
pub use config::{Config, Feature, QueryArgs, WebPath, WebPathError, WebPaths, parse_options};
pub use endpoints::{Candidate, StoreLists, StoreSource};
pub use fanout::{
    Fanout, FanoutEvent, FanoutMetrics, ProxyOptions, ProxyStore, Resolutions, StoreFilter, StoreOutcome,
    StoreReport,
};

pub use global::{CheckedGlobalQueryArgs, GlobalAnswer, GlobalQueries, GlobalQueryArgs};
pub use local::{
    CheckedLocalQueryArgs, CheckedRemoteReadArgs, LocalQueries, LocalQueryArgs, LocalWebArgs, LocalWebPaths,
    QueryEngine, RemoteReadArgs, RemoteReadOptions,
};

#[cfg(test)]
mod tests;
