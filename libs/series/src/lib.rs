//! Series on their way from stores to answers: the merge of sorted streams and replica deduplication.
//!
//! Both are machines that are offered data and give answers: no clock, no I/O, no async. The async fan-out and
//! blocking callers turn the same crank.
//!
//! Sorted streams of [`Series`] enter a [`Merge`], which groups what all inputs have of one label set. A store that
//! stands before others passes it on ([`MergedSeries::into_series`]); a query takes it as the replicas of one series
//! ([`MergedSeries::into_selected`]) and decodes them to [`Samples`] on the worker that evaluates the series
//! ([`SelectedSeries::decode`]).

mod chain;
mod counter;
mod decode;
mod dedup;
mod error;
mod group;
mod join;
mod merge;
mod penalty;
mod samples;
mod selected;
mod sorter;
mod stored;
#[cfg(test)]
mod testing;
mod timeline;
mod types;

pub use error::{DecodeError, DecodeProblem};
pub use join::{JoinError, JoinedChunks, join_chunks};
pub use merge::{Contribution, Merge, MergeError, MergedSeries, Step};
pub use samples::Samples;
pub use selected::{DecodeOptions, Dedup, SelectedSeries};
pub use sorter::{SeriesSorter, SorterFull};
pub use stored::{SampleValue, StoredSample, decode_chunk, encode_chunks};
/// Which aggregate a query reads or a store sends: part of [`AggrChunk`] and [`DecodeOptions`].
pub use tsdb::Aggregate;
pub use types::{AggrChunk, Series};
