//! A data folder as a store: what its head and its blocks have, as StoreAPI, lists, and metadata.
//!
//! [`LocalData`] is a folder that is open or will be. A [`LocalStore`] serves it with external labels, or without, for queries over
//! nothing else. Answers are streamed in steps on blocking threads; between two steps an answer has no thread.
//!
//! Not here: the formats (`head`, `tsdb`); gRPC and HTTP; who appends to the head.
//!
//! Reading order: `data` (the folder), `question`, `lists`, `store` (requests), `answer` (a Series answer), `input` (batches of the head
//! and of a block), `sorted` (answers in another order), `labels`, `listing` (metadata, exemplars, statistics, targets, rules), `thread`; `opening`, `maintenance`, `database_metrics`
//! (what every role with a data folder does with it).

mod answer;
mod data;
mod database_metrics;
mod input;
mod labels;
mod listing;
mod lists;
mod maintenance;
mod opening;
mod question;
mod sorted;
mod store;
mod thread;

pub use data::LocalData;
pub use database_metrics::DatabaseMetrics;
pub use lists::{LocalLists, NoLists};
pub use maintenance::{Maintenance, MaintenanceMetrics};
pub use opening::FolderOpening;
pub use store::{LocalStore, LocalStoreOptions};

#[cfg(test)]
mod tests;
