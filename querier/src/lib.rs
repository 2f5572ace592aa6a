//! The querier: answers PromQL over all stores.
//!
//! It knows its stores ([`endpoints`](StoreSource)), asks those that can hold an answer and merges what they say ([`ProxyStore`]),
//! evaluates ([`query`](run)) and speaks Prometheus' HTTP API. It also serves StoreAPI, so queriers stack.
//!
//! What it is not: it stores nothing, knows no certificate, and learns of clusters only through a gateway's directory.

mod api;
mod component;
mod config;
mod endpoints;
mod fanout;
mod memory;
mod metrics;
mod query;

pub use component::run;
pub use config::{Config, QueryArgs};
pub use endpoints::{Candidate, StoreSource};
pub use fanout::{
    Fanout, FanoutEvent, FanoutMetrics, Outcome, ProxyOptions, ProxyStore, StoreFilter, StoreReport,
};

#[cfg(test)]
mod tests;
