//! What a selector sees of one series, and how it is to be decoded.

use model::{Labels, TimeRange};
use tsdb::{Aggregate, Chunk};

use crate::AggrChunk;

/// One output series with the chunks of all its replicas, not yet decoded.
///
/// It is cheap to pass between threads; decoding happens on the worker that evaluates the series
/// ([`SelectedSeries::decode`]).
#[derive(Clone, Debug, PartialEq)]
pub struct SelectedSeries {
    /// What identifies the series; replica labels are gone where replicas were joined.
    pub labels: Labels,
    /// The chunks of each replica (or overlap lane), in arrival order: the order of the inputs of the merge.
    /// Within one replica, chunks are sorted by min time and do not claim overlapping ranges.
    pub replicas: Vec<Vec<AggrChunk>>,
}

/// Replicas of one series up to which penalties are worked out, and lanes up to which a gap is looked for.
///
/// Both take time proportional to samples (or chunks) times replicas, so a store that sends a great many chunks of one
/// range could keep a query busy for hours. Nobody runs that many replicas of one Prometheus.
pub(crate) const MAX_REPLICAS: usize = 64;

/// How samples of several replicas become one series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dedup {
    /// Chunks are joined in order of time; of overlapping ones, what lies after the end of the earlier.
    Off,
    /// One replica is followed until it misses about two samples, then the next. A series with more than 64 of them
    /// is joined as by [`Dedup::Chain`].
    #[default]
    Penalty,
    /// All samples of all replicas, one for each timestamp; the first replica wins.
    Chain,
}

/// How to decode a [`SelectedSeries`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeOptions {
    /// Samples outside are left out; both ends belong to it.
    pub range: TimeRange,
    /// How replicas become one.
    pub dedup: Dedup,
    /// Whether the samples feed `rate`, `increase`, `irate` or `resets`: a change of replica must then not look like
    /// a counter reset. Resets that a replica saw itself stay in raw samples.
    pub counter: bool,
    /// Which aggregate of downsampled chunks to read; raw chunks are read as they are. [`Aggregate::Raw`], which they do not
    /// have, means the average of each window: sum divided by count.
    pub aggregate: Aggregate,
    /// Whether to give out start timestamps where chunks have them.
    pub starts: bool,
}

impl SelectedSeries {
    /// Memory that decoding takes, in bytes, as far as the headers of the chunks tell: that of the samples of all replicas,
    /// as some of them lie side by side until they have become one.
    pub fn decoded_bytes(&self, options: &DecodeOptions) -> usize {
        let inside = |chunk: &&AggrChunk| chunk.range().overlaps(&options.range);
        let parts = self.replicas.iter().flatten().filter(inside).flat_map(AggrChunk::parts);
        parts.map(Chunk::decoded_bytes).fold(0, usize::saturating_add)
    }

    /// Bytes that the series takes in memory: labels and encoded samples.
    pub fn size_bytes(&self) -> usize {
        let chunks = self.replicas.iter().flatten();
        self.labels.size_bytes() + chunks.map(|c| size_of::<AggrChunk>() + c.size_bytes()).sum::<usize>()
    }
}
