//! StoreAPI: how components read series from each other.
//!
//! A component implements [`Store`]. [`StoreServer`] serves it over gRPC, and [`StoreClient`] is a `Store` that calls such
//! a server, so callers use local and remote stores alike. Requests and answers are domain types; only the module `convert`
//! also handles protobuf. This crate does not decode samples, merge streams or choose stores.
//!
//! Lists besides series (rules, targets, exemplars, statistics of TSDBs) have one trait too, [`ListingStore`].
//!
//! Reading order: [`store`](Store), `request`, `info`, `error`, `kept`, `transit`, `answer_limits`, `listing`, `convert`, `client`, `server`, `checked`, then
//! `memory`, a small store for tests, and `acceptance`, the tests that every implementer passes. Both need the feature
//! `test-util`.

#[cfg(any(test, feature = "test-util"))]
pub mod acceptance;
mod answer_limits;
mod checked;
mod client;
mod convert;
mod error;
mod hints;
mod info;
mod kept;
mod limits;
mod listing;
#[cfg(any(test, feature = "test-util"))]
pub mod memory;
mod request;
mod server;
mod store;
mod transit;

pub use answer_limits::AnswerLimits;
pub use checked::{AnswerChecks, check_values, checked};
pub use client::StoreClient;
pub use convert::{WireListing, info_from_wire, info_to_wire, labels_from_wire, labels_to_wire};
pub use error::StoreError;
pub use hints::{AnswerHints, BlockHints, QueryStats};
pub use info::{Apis, StoreInfo, TsdbInfo};
pub use kept::Kept;
pub use limits::{LabelLimits, RequestLimits, WireLimits};
pub use listing::{
    AnswerMemory, ExemplarsRequest, Listed, Listing, ListingStore, RuleKind, RulesRequest, TargetState,
    TargetsRequest, TenantTsdbStatus, TsdbStatusRequest,
};
pub use request::{
    LabelNamesRequest, LabelValuesRequest, MetadataRequest, PartialResponse, QueryHints, SeriesRequest, Shard,
};
pub use server::{ListingServer, MetadataServer, StoreServer};
pub use store::{
    LabelsAnswer, MetadataAnswer, MetadataStore, MetricMetadata, SeriesFrame, SeriesStream, Store,
    collect_series,
};
/// The codes an error can carry: those of gRPC.
pub use tonic::Code;
