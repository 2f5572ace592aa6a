//! The fan-out: asks all stores that may have matching series, and merges their answers.
//!
//! A [`ProxyStore`] is itself a [`Store`](storeapi::Store), so a querier can be a store of another querier. A
//! task per store reads its stream into a short queue. The merge takes from the queues in label order, so a
//! slow reader slows down the stores, and all queues share one window, so that memory stays bounded. If a store breaks the protocol, its part of
//! the answer ends with a warning, or the whole answer ends with an error, as the request says.
//!
//! Reading order: [`filter`](StoreFilter), `options`, `read_ahead`, `damage`, `input`, `merged`, `proxy`, `labels`, `lists`,
//! `enforced`, `report`, `awaited`.

mod awaited;
mod damage;
mod enforced;
mod filter;
mod input;
mod labels;
mod lists;
mod merged;
mod options;
mod proxy;
mod read_ahead;
mod report;
mod resolutions;

pub(crate) use awaited::Awaited;
pub use filter::StoreFilter;
pub use merged::{Fanout, FanoutEvent};
pub use options::ProxyOptions;
pub use proxy::ProxyStore;
pub(crate) use read_ahead::ReadAhead;
pub use report::{FanoutMetrics, StoreOutcome, StoreReport};
pub use resolutions::Resolutions;
