//! The store: serves the blocks of buckets as StoreAPI.
//!
//! ```text
//! request → catalog: which blocks → blocks: opened, index headers on disk → cursor: batches of one block → answer: merged
//!                                        ↑ pages: ranges of objects, through the cache, for one request (reading, meter)
//! ```
//!
//! Not here: objects, marks and the view of a bucket (`bucket`); the format of blocks (`tsdb`); the merge (`series`).
//!
//! Reading order: `config`, `memory_pool`, `component`, `sync`, `acknowledge`, `catalog`, `store`, `answer`, `cursor`, `ahead`, `deleted`, `sorted`, `expand`, `labels`, `hints`; then how bytes are
//! read: `blocks`, `header`, `pages`, `page_part`, `flights`, `page_pool`, `page_source`, `cache`, `disk_cache`, `shared_cache`, `page_item`, `hedge`, `reading`, `meter`.

mod acknowledge;
mod ahead;
mod answer;
mod api;
mod blocks;
mod cache;
mod cache_config;
mod cache_metrics;
mod catalog;
mod component;
mod config;
mod cursor;
mod deleted;
mod disk_cache;
mod expand;
mod flights;
mod header;
mod hedge;
mod hints;
mod labels;
mod limits;
mod memory;
mod memory_pool;
mod meter;
mod metrics;
mod page_item;
mod page_part;
mod page_pool;
mod page_source;
mod pages;
mod reading;
mod request_metrics;
mod scraped;
mod shared_cache;
mod sorted;
mod store;
mod sync;
mod unneeded;

#[cfg(test)]
mod tests;

use std::time::{SystemTime, UNIX_EPOCH};

use model::Timestamp;

pub use component::run;
pub use config::StoreArgs;

/// The current time.
fn now() -> Timestamp {
    Timestamp::EPOCH + SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
