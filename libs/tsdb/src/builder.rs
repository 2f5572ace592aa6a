//! Samples into chunks, cut where Prometheus cuts them.
//!
//! ```text
//! a new chunk begins   after 120 samples
//!                      where the encoding changes, and so between floats and histograms
//!                      where a histogram does not continue the one before it: after a counter reset, with another schema,
//!                      zero threshold or custom bounds, between gauges and counters, and after a staleness marker
//! ```
//!
//! Specified by `seriesToChunkEncoder` in `storage/series.go` of Prometheus, which compaction uses, and by the appenders in
//! `tsdb/chunkenc`. All histograms of a chunk have one layout of buckets. Prometheus encodes a chunk again when a histogram
//! has a new bucket; here histograms wait until their chunk is complete, and are encoded once with the buckets of all.

use std::sync::Arc;

use model::{CounterResetHint, FloatHistogram, Sample, Timestamp};

use crate::chunk::{Chunk, Encoding, SAMPLES_PER_CHUNK};
use crate::error::AppendError;
use crate::histogram::{Continuation, HistogramEncoder, SharedBuckets};
use crate::xor::XorEncoder;
use crate::xor2::Xor2Encoder;

/// Makes chunks of the samples of one series, floats and histograms mixed.
///
/// Memory: the finished chunks, and at most 120 histograms, which are shared with the caller.
///
/// ```
/// use model::{Sample, Timestamp};
/// use tsdb::{ChunkBuilder, Encoding};
///
/// let mut builder = ChunkBuilder::new();
/// for minute in 0..200 {
///     builder.append_float(Encoding::Xor, Sample::new(minute * 60_000, 1.5), Timestamp::EPOCH)?;
/// }
/// let chunks = builder.finish()?;
/// assert_eq!(chunks.iter().map(|chunk| chunk.sample_count()).collect::<Vec<_>>(), [120, 80]);
/// # Ok::<(), tsdb::AppendError>(())
/// ```
#[derive(Default)]
pub struct ChunkBuilder {
    finished: Vec<Chunk>,
    open: OpenChunk,
    last: Option<Timestamp>,
}

/// The chunk that samples are added to.
#[derive(Default)]
enum OpenChunk {
    #[default]
    None,
    Xor(XorEncoder),
    Xor2(Xor2Encoder),
    Histograms(HistogramRun),
}

/// Histograms that continue each other.
struct HistogramRun {
    encoding: Encoding,
    /// Time, start and value of each.
    samples: Vec<(Timestamp, Timestamp, Arc<FloatHistogram>)>,
}

impl ChunkBuilder {
    /// A builder without samples.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a float to a chunk with `encoding`. `start` is when its counter began, the epoch where that is not known;
    /// only XOR2 stores it.
    ///
    /// # Errors
    /// When the encoding is not one of floats, or the sample is not later than the one before it. Nothing is appended then.
    pub fn append_float(
        &mut self,
        encoding: Encoding,
        sample: Sample,
        start: Timestamp,
    ) -> Result<(), AppendError> {
        if !encoding.holds_floats() {
            return Err(AppendError::Encoding { encoding, sample: "a float" });
        }
        self.check_order(sample.timestamp)?;
        match (&mut self.open, encoding) {
            (OpenChunk::Xor(encoder), Encoding::Xor) if encoder.len() < SAMPLES_PER_CHUNK => {
                encoder.append(sample)?;
            }
            (OpenChunk::Xor2(encoder), Encoding::Xor2) if encoder.len() < SAMPLES_PER_CHUNK => {
                encoder.append(sample, start)?;
            }
            (_, Encoding::Xor) => {
                let mut encoder = XorEncoder::new();
                encoder.append(sample)?;
                self.begin(OpenChunk::Xor(encoder))?;
            }
            _ => {
                let mut encoder = Xor2Encoder::new();
                encoder.append(sample, start)?;
                self.begin(OpenChunk::Xor2(encoder))?;
            }
        }
        self.last = Some(sample.timestamp);
        Ok(())
    }

    /// Appends a histogram to a chunk with `encoding`. `start` is when it began, the epoch where that is not known; only the
    /// encodings with start timestamps store it.
    ///
    /// The reset hint of a chunk's first histogram is stored, with one exception: where counts fell, it becomes
    /// [`CounterResetHint::Reset`].
    ///
    /// # Errors
    /// When the encoding is not one of histograms, or the sample is not later than the one before it; nothing is appended
    /// then. When a chunk is complete whose histograms cannot be encoded, because an encoding of integer counts got other counts
    /// or spans do not fit their buckets; the chunk is lost.
    pub fn append_histogram(
        &mut self,
        encoding: Encoding,
        at: Timestamp,
        histogram: &Arc<FloatHistogram>,
        start: Timestamp,
    ) -> Result<(), AppendError> {
        if !encoding.holds_histograms() {
            return Err(AppendError::Encoding { encoding, sample: "a histogram" });
        }
        self.check_order(at)?;
        let mut histogram = Arc::clone(histogram);
        let mut continues = false;
        if let OpenChunk::Histograms(run) = &self.open
            && let Some((_, _, before)) = run.samples.last()
        {
            let continuation = Continuation::between(before, &histogram);
            if continuation == Continuation::CountsFell {
                Arc::make_mut(&mut histogram).counter_reset_hint = CounterResetHint::Reset;
            }
            continues = continuation == Continuation::SameChunk
                && run.encoding == encoding
                && run.samples.len() < SAMPLES_PER_CHUNK;
        }
        match &mut self.open {
            OpenChunk::Histograms(run) if continues => run.samples.push((at, start, histogram)),
            _ => {
                let samples = vec![(at, start, histogram)];
                self.begin(OpenChunk::Histograms(HistogramRun { encoding, samples }))?;
            }
        }
        self.last = Some(at);
        Ok(())
    }

    /// All chunks, in the order of time.
    ///
    /// # Errors
    /// When the histograms of the last chunk cannot be encoded: see [`ChunkBuilder::append_histogram`].
    pub fn finish(mut self) -> Result<Vec<Chunk>, AppendError> {
        self.begin(OpenChunk::None)?;
        Ok(self.finished)
    }

    fn check_order(&self, at: Timestamp) -> Result<(), AppendError> {
        match self.last {
            Some(last) if at <= last => Err(AppendError::OutOfOrder { at, last }),
            _ => Ok(()),
        }
    }

    /// Completes the open chunk and continues with `next`.
    fn begin(&mut self, next: OpenChunk) -> Result<(), AppendError> {
        match std::mem::replace(&mut self.open, next) {
            OpenChunk::None => {}
            OpenChunk::Xor(encoder) => self.finished.extend(encoder.finish()),
            OpenChunk::Xor2(encoder) => self.finished.extend(encoder.finish()),
            OpenChunk::Histograms(run) => run.encode(&mut self.finished)?,
        }
        Ok(())
    }
}

impl HistogramRun {
    fn encode(self, out: &mut Vec<Chunk>) -> Result<(), AppendError> {
        let shared = SharedBuckets::of(self.samples.iter().map(|(_, _, histogram)| &**histogram));
        let mut encoder = HistogramEncoder::with_encoding(self.encoding);
        for (at, start, mut histogram) in self.samples {
            if let Some(shared) = &shared
                && !histogram.is_stale()
            {
                shared.apply(Arc::make_mut(&mut histogram))?;
            }
            match encoder.append_with_start(at, &histogram, start) {
                // A marker at the beginning of a chunk has no buckets, so no other histogram fits after it.
                Err(AppendError::Layout(_)) if !encoder.is_empty() => {
                    let full =
                        std::mem::replace(&mut encoder, HistogramEncoder::with_encoding(self.encoding));
                    out.extend(full.finish());
                    encoder.append_with_start(at, &histogram, start)?;
                }
                appended => appended?,
            }
        }
        out.extend(encoder.finish());
        Ok(())
    }
}

#[cfg(test)]
mod tests;
