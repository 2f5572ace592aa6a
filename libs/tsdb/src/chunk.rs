//! A chunk: the compressed samples of one series over a stretch of time.

use std::fmt;

use bytes::Bytes;
use model::TimeRange;

/// Samples in a chunk, as Prometheus makes them: its head (`DefaultSamplesPerChunk` in `tsdb/db.go`) and its compaction
/// (`seriesToChunkEncoderSplit` in `storage/series.go`). Limits on samples count each chunk as this many.
pub const SAMPLES_PER_CHUNK: usize = 120;

/// How the bytes of a chunk encode its samples. The discriminants are the bytes in blocks: those of Prometheus
/// (`chunkenc.Encoding`), and one of Thanos.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Encoding {
    /// Gorilla-style XOR of floats.
    Xor = 1,
    /// Native histograms with integer counts.
    Histogram = 2,
    /// Native histograms with float counts.
    FloatHistogram = 3,
    /// Floats by XOR with joint control bits, and optional start timestamps.
    Xor2 = 4,
    /// Native histograms with integer counts and optional start timestamps.
    HistogramSt = 5,
    /// Native histograms with float counts and optional start timestamps.
    FloatHistogramSt = 6,
    /// The aggregates of a downsampled block: up to five chunks in one ([`Chunk::aggregates`]).
    Aggregates = 255,
}

impl Encoding {
    /// Every encoding.
    pub const ALL: [Self; 7] = [
        Self::Xor,
        Self::Histogram,
        Self::FloatHistogram,
        Self::Xor2,
        Self::HistogramSt,
        Self::FloatHistogramSt,
        Self::Aggregates,
    ];

    /// The encoding with this byte in blocks; none when there is no such encoding.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|encoding| encoding.byte() == byte)
    }

    /// The byte of the encoding in blocks.
    pub fn byte(self) -> u8 {
        self as u8
    }

    /// Whether chunks of this encoding contain floats ([`Chunk::decode_floats`]).
    pub fn holds_floats(self) -> bool {
        matches!(self, Self::Xor | Self::Xor2)
    }

    /// Whether chunks of this encoding contain histograms ([`Chunk::decode_histograms`]).
    pub fn holds_histograms(self) -> bool {
        !self.holds_floats() && self != Self::Aggregates
    }

    /// Whether chunks of this encoding contain histograms with integer counts.
    pub fn has_integer_counts(self) -> bool {
        matches!(self, Self::Histogram | Self::HistogramSt)
    }

    /// Whether chunks of this encoding can have start timestamps.
    pub fn may_hold_starts(self) -> bool {
        matches!(self, Self::Xor2 | Self::HistogramSt | Self::FloatHistogramSt)
    }

    /// What chunks of this encoding contain, in words.
    pub(crate) fn content(self) -> &'static str {
        if self.holds_floats() {
            "floats"
        } else if self.holds_histograms() {
            "histograms"
        } else {
            "aggregates"
        }
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Xor => "XOR",
            Self::Histogram => "histogram",
            Self::FloatHistogram => "float histogram",
            Self::Xor2 => "XOR2",
            Self::HistogramSt => "histogram ST",
            Self::FloatHistogramSt => "float histogram ST",
            Self::Aggregates => "aggregate",
        })
    }
}

/// Which samples of a chunk to read: those that were scraped, or one of the aggregates that downsampling makes of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Aggregate {
    /// The samples themselves. A downsampled block does not have them; the mean of each window, its sum divided by its count,
    /// is used instead.
    #[default]
    Raw,
    /// Number of raw samples in each window.
    Count,
    /// Sum of the raw samples in each window.
    Sum,
    /// Least raw sample in each window.
    Min,
    /// Greatest raw sample in each window.
    Max,
    /// The counter with resets applied.
    Counter,
}

impl Aggregate {
    /// The aggregates of a downsampled chunk, in the order in which they are stored.
    pub const STORED: [Self; 5] = [Self::Count, Self::Sum, Self::Min, Self::Max, Self::Counter];

    /// The name in flags and errors.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Count => "count",
            Self::Sum => "sum",
            Self::Min => "min",
            Self::Max => "max",
            Self::Counter => "counter",
        }
    }
}

impl fmt::Display for Aggregate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The compressed samples of one series, still encoded.
///
/// `data` is the payload of the chunk, as in a block or a message: without length, encoding byte and checksum. The range is
/// what the producer of the chunk claims. Samples are cut to the range of a request, never to this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// First and last sample, both included.
    pub range: TimeRange,
    /// How `data` encodes the samples.
    pub encoding: Encoding,
    /// The payload. It is shared, not copied, when the chunk is passed on.
    pub data: Bytes,
}

/// The start timestamp of a sample whose start is unknown.
pub(crate) const UNKNOWN_START: i64 = 0;

/// Number of samples that the header of a payload announces; none when the header is incomplete. Not for aggregates.
pub(crate) fn sample_count(encoding: Encoding, data: &[u8]) -> Option<usize> {
    let count = data.first_chunk().map(|count| usize::from(u16::from_be_bytes(*count)))?;
    Some(match encoding {
        // The top two bits are the kind of counter.
        Encoding::HistogramSt | Encoding::FloatHistogramSt => count & MAX_ST_HISTOGRAMS,
        _ => count,
    })
}

/// The most samples that a chunk of histograms with start timestamps can count.
pub(crate) const MAX_ST_HISTOGRAMS: usize = 0x3fff;
