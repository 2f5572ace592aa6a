//! One series of a selector, and the options for decoding it.

use model::{Labels, TimeRange, Timestamp};
use tsdb::{Aggregate, Chunk};

use crate::AggrChunk;
use crate::dedup::first_read;

/// A series with the chunks of all its replicas, not yet decoded.
///
/// It is cheap to pass between threads. It is decoded on the thread that evaluates the series
/// ([`SelectedSeries::decode`]).
#[derive(Clone, Debug, PartialEq)]
pub struct SelectedSeries {
    /// The labels, which identify the series. They do not contain replica labels if replicas are deduplicated.
    pub labels: Labels,
    /// The chunks of each replica, in order of preference. Within one replica, chunks are sorted by min time; where they
    /// overlap, their samples are united. Two replicas whose producers are not known may turn out to be one.
    pub replicas: Vec<Vec<AggrChunk>>,
}

/// Most replicas of one series that are deduplicated by penalty, and most lanes that are searched for a gap.
///
/// Both take time proportional to samples (or chunks) times replicas, so a store that sends very many chunks of one range
/// could keep a query busy for hours. Real setups have fewer replicas of one Prometheus.
pub(crate) const MAX_REPLICAS: usize = 64;

/// How samples of several replicas become one series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dedup {
    /// All chunks are those of one producer: the samples of chunks that overlap are united.
    Off,
    /// One replica is used while it misses nothing, then another one, and gaps are filled. A series with more than 64
    /// replicas is deduplicated as by [`Dedup::Chain`].
    #[default]
    Penalty,
    /// The samples of all replicas, one for each timestamp. Where several replicas have one, the first replica wins.
    Chain,
}

/// How to decode a [`SelectedSeries`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeOptions {
    /// Samples outside of this range are dropped. Both ends are included.
    pub range: TimeRange,
    /// How replicas become one.
    pub dedup: Dedup,
    /// Whether the samples are the input of `rate`, `increase`, `irate` or `resets`. A change of replica then does not look
    /// like a counter reset. Real resets stay in raw samples.
    pub counter: bool,
    /// Which aggregate of downsampled chunks to read; raw chunks are read as they are. [`Aggregate::Raw`], which they do not
    /// have, means the average of each window: sum divided by count.
    pub aggregate: Aggregate,
    /// Whether to decode start timestamps, where chunks have them.
    pub starts: bool,
    /// The window of the query, in milliseconds: the range of the selector. Time is cut into pieces that are a little longer,
    /// and one replica is used in each piece. So within a window the replica changes at most once.
    pub window: i64,
}

impl DecodeOptions {
    /// The range whose samples matter: where replicas are deduplicated by [`Dedup::Penalty`], it begins before `range`, so
    /// that the choice of the replica does not depend on where `range` begins.
    pub fn read_range(&self) -> TimeRange {
        let TimeRange { min, max } = self.range;
        match self.dedup {
            Dedup::Penalty => {
                TimeRange { min: Timestamp::from_millis(first_read(min.as_millis(), self.window)), max }
            }
            Dedup::Off | Dedup::Chain => self.range,
        }
    }
}

impl SelectedSeries {
    /// Memory that decoding takes, in bytes, estimated from the headers of the chunks. The samples of all replicas count,
    /// because several replicas are in memory until they are deduplicated.
    pub fn decoded_bytes(&self, options: &DecodeOptions) -> usize {
        let range = if self.replicas.len() > 1 { options.read_range() } else { options.range };
        let inside = |chunk: &&AggrChunk| chunk.range().overlaps(&range);
        let parts = self.replicas.iter().flatten().filter(inside).flat_map(AggrChunk::parts);
        parts.map(Chunk::decoded_bytes).fold(0, usize::saturating_add)
    }

    /// Memory of the series in bytes: labels and encoded samples.
    pub fn size_bytes(&self) -> usize {
        let chunks = self.replicas.iter().flatten();
        self.labels.size_bytes() + chunks.map(|c| size_of::<AggrChunk>() + c.size_bytes()).sum::<usize>()
    }
}
