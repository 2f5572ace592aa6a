//! Asks all stores that can hold an answer, and makes one of what they say.
//!
//! A [`ProxyStore`] is itself a [`Store`](storeapi::Store), so queriers stack. Each store's stream is read by a task of its own into a
//! small queue; the merge takes from the queues in label order, so a slow reader slows the stores down and nothing
//! piles up. Whatever a store does wrong ends that store's part of the answer and is said in a warning, or ends the
//! answer where the request says so.
//!
//! Reading order: [`request`](StoreFilter), `input`, `merged`, `proxy`, `labels`, `report`, `awaited`.

mod awaited;
mod filter;
mod input;
mod labels;
mod merged;
mod proxy;
mod report;

pub(crate) use awaited::Awaited;
pub use filter::StoreFilter;
pub(crate) use input::without_name;
pub use merged::{Fanout, FanoutEvent};
pub use proxy::{ProxyOptions, ProxyStore};
pub use report::{FanoutMetrics, Outcome, StoreReport};
