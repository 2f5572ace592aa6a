//! Series on their way from stores to answers: the merge of sorted streams and replica deduplication.
//!
//! Both are machines that are offered data and give answers: no clock, no I/O, no async. The async fan-out and
//! blocking callers turn the same crank.

mod samples;
mod selected;
mod types;

pub use samples::Samples;
pub use selected::{Aggregate, DecodeOptions, Dedup, SelectedSeries};
pub use types::{AggrChunk, Series};
