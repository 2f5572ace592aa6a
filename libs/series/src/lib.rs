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
mod group;
mod merge;
mod penalty;
mod samples;
mod selected;
mod sorter;
#[cfg(test)]
mod testing;
mod timeline;
mod types;

pub use decode::{DecodeError, DecodeProblem};
pub use merge::{Contribution, Merge, MergeError, MergedSeries, Step};
pub use samples::Samples;
pub use selected::{Aggregate, DecodeOptions, Dedup, SelectedSeries};
pub use sorter::{SeriesSorter, SorterFull};
pub use types::{AggrChunk, Series};
