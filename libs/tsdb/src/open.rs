//! A chunk that grows sample by sample and can be read at any time, as in the head of a database.
//!
//! [`ChunkBuilder`](crate::ChunkBuilder) keeps the histograms of a chunk until all of their buckets are known. Here they are
//! encoded at once. When one has a bucket that the chunk does not have, the chunk is encoded again, as in Prometheus.

use std::sync::Arc;

use model::{CounterResetHint, FloatHistogram, Sample, Timestamp};

use crate::chunk::{Chunk, Encoding};
use crate::error::AppendError;
use crate::histogram::{Continuation, HistogramEncoder, SharedBuckets};
use crate::xor::XorEncoder;
use crate::xor2::Xor2Encoder;

/// A chunk with at least one sample, to which samples are appended.
///
/// Memory: its bytes, the state of the encoder (about a hundred bytes for floats), and for histograms the last one.
pub struct OpenChunk(Encoder);

enum Encoder {
    Xor(XorEncoder),
    Xor2(Xor2Encoder),
    Histogram(Box<OpenHistograms>),
}

struct OpenHistograms {
    encoder: HistogramEncoder,
    encoding: Encoding,
    /// The reset hint of the first one, which is that of the chunk.
    hint: CounterResetHint,
    /// The last one, with the buckets of the chunk.
    last: Arc<FloatHistogram>,
}

impl OpenChunk {
    /// A chunk with one float. `start` is when its counter began, the epoch where that is not known; only XOR2 stores it.
    ///
    /// # Errors
    /// When `encoding` is not one of floats.
    pub fn of_float(encoding: Encoding, sample: Sample, start: Timestamp) -> Result<Self, AppendError> {
        Ok(Self(match encoding {
            Encoding::Xor => {
                let mut encoder = XorEncoder::new();
                encoder.append(sample)?;
                Encoder::Xor(encoder)
            }
            Encoding::Xor2 => {
                let mut encoder = Xor2Encoder::new();
                encoder.append(sample, start)?;
                Encoder::Xor2(encoder)
            }
            _ => return Err(AppendError::Encoding { encoding, sample: "a float" }),
        }))
    }

    /// A chunk with one histogram. `start` is when it began, the epoch where that is not known; only encodings with start
    /// timestamps store it.
    ///
    /// # Errors
    /// When `encoding` is not one of histograms, or the histogram cannot be encoded with it.
    pub fn of_histogram(
        encoding: Encoding,
        at: Timestamp,
        histogram: &Arc<FloatHistogram>,
        start: Timestamp,
    ) -> Result<Self, AppendError> {
        if !encoding.holds_histograms() {
            return Err(AppendError::Encoding { encoding, sample: "a histogram" });
        }
        let mut encoder = HistogramEncoder::with_encoding(encoding);
        encoder.append_with_start(at, histogram, start)?;
        let (hint, last) = (histogram.counter_reset_hint, Arc::clone(histogram));
        Ok(Self(Encoder::Histogram(Box::new(OpenHistograms { encoder, encoding, hint, last }))))
    }

    /// The chunk that follows this one and begins with a histogram: [`OpenChunk::of_histogram`], with the hint
    /// [`CounterResetHint::Reset`] where a count is lower than in the last histogram of this chunk.
    ///
    /// # Errors
    /// As [`OpenChunk::of_histogram`].
    pub fn next_of_histogram(
        &self,
        encoding: Encoding,
        at: Timestamp,
        histogram: &Arc<FloatHistogram>,
        start: Timestamp,
    ) -> Result<Self, AppendError> {
        let mut histogram = Arc::clone(histogram);
        if let Encoder::Histogram(open) = &self.0
            && Continuation::between(&open.last, &histogram) == Continuation::CountsFell
        {
            Arc::make_mut(&mut histogram).counter_reset_hint = CounterResetHint::Reset;
        }
        Self::of_histogram(encoding, at, &histogram, start)
    }

    /// Appends a float, and returns whether it could: with another encoding, it needs a new chunk.
    ///
    /// # Errors
    /// When the chunk is full, or the sample is not later than the last one; the chunk is unchanged.
    pub fn append_float(
        &mut self,
        encoding: Encoding,
        sample: Sample,
        start: Timestamp,
    ) -> Result<bool, AppendError> {
        match (&mut self.0, encoding) {
            (Encoder::Xor(encoder), Encoding::Xor) => encoder.append(sample)?,
            (Encoder::Xor2(encoder), Encoding::Xor2) => encoder.append(sample, start)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Appends a histogram, and returns whether it could: with another encoding, and after a reset, a change of the layout or a
    /// staleness marker, it [needs a new chunk](Self::next_of_histogram).
    ///
    /// # Errors
    /// When the chunk is full, the histogram is not later than the last one, or it cannot be encoded; the chunk is unchanged.
    pub fn append_histogram(
        &mut self,
        encoding: Encoding,
        at: Timestamp,
        histogram: &Arc<FloatHistogram>,
        start: Timestamp,
    ) -> Result<bool, AppendError> {
        match &mut self.0 {
            Encoder::Histogram(open) if open.encoding == encoding => open.append(at, histogram, start),
            _ => Ok(false),
        }
    }

    /// Its encoding.
    pub fn encoding(&self) -> Encoding {
        match &self.0 {
            Encoder::Xor(_) => Encoding::Xor,
            Encoder::Xor2(_) => Encoding::Xor2,
            Encoder::Histogram(open) => open.encoding,
        }
    }

    /// Number of samples, at least one.
    #[expect(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> usize {
        match &self.0 {
            Encoder::Xor(encoder) => encoder.len(),
            Encoder::Xor2(encoder) => encoder.len(),
            Encoder::Histogram(open) => open.encoder.len(),
        }
    }

    /// The time of the last sample.
    pub fn max_time(&self) -> Timestamp {
        match &self.0 {
            Encoder::Xor(encoder) => encoder.last_time(),
            Encoder::Xor2(encoder) => encoder.last_time(),
            Encoder::Histogram(open) => open.encoder.last_time(),
        }
    }

    /// Bytes of the payload so far.
    pub fn size_bytes(&self) -> usize {
        match &self.0 {
            Encoder::Xor(encoder) => encoder.size_bytes(),
            Encoder::Xor2(encoder) => encoder.size_bytes(),
            Encoder::Histogram(open) => open.encoder.size_bytes(),
        }
    }

    /// The chunk with the samples so far.
    pub fn snapshot(&self) -> Option<Chunk> {
        match &self.0 {
            Encoder::Xor(encoder) => encoder.clone().finish(),
            Encoder::Xor2(encoder) => encoder.clone().finish(),
            Encoder::Histogram(open) => open.encoder.clone().finish(),
        }
    }

    /// The chunk with all samples.
    pub fn finish(self) -> Option<Chunk> {
        match self.0 {
            Encoder::Xor(encoder) => encoder.finish(),
            Encoder::Xor2(encoder) => encoder.finish(),
            Encoder::Histogram(open) => open.encoder.finish(),
        }
    }
}

impl OpenHistograms {
    fn append(
        &mut self,
        at: Timestamp,
        histogram: &Arc<FloatHistogram>,
        start: Timestamp,
    ) -> Result<bool, AppendError> {
        if Continuation::between(&self.last, histogram) != Continuation::SameChunk {
            return Ok(false);
        }
        let mut histogram = Arc::clone(histogram);
        if !histogram.is_stale()
            && let Some(shared) = SharedBuckets::of([&*self.last, &*histogram].into_iter())
        {
            shared.apply(Arc::make_mut(&mut histogram))?;
            self.widen(&shared, &histogram)?;
        }
        self.encoder.append_with_start(at, &histogram, start)?;
        if !histogram.is_stale() {
            self.last = histogram;
        } else {
            // What follows a marker needs a new chunk.
            self.last = Arc::new(FloatHistogram::stale());
        }
        Ok(true)
    }

    /// Encodes the chunk again with the buckets of a histogram, if it does not have them.
    fn widen(&mut self, shared: &SharedBuckets, histogram: &FloatHistogram) -> Result<(), AppendError> {
        let has_all = self.last.positive_spans == histogram.positive_spans
            && self.last.negative_spans == histogram.negative_spans;
        let (false, Some(chunk)) = (has_all, self.encoder.clone().finish()) else { return Ok(()) };
        let (mut samples, mut starts) = (Vec::new(), Vec::new());
        let damaged = |_| AppendError::Layout("the chunk cannot be read back");
        chunk.decode_histograms_with_starts(&mut samples, &mut starts).map_err(damaged)?;
        let mut encoder = HistogramEncoder::with_encoding(self.encoding);
        for (index, (at, mut sample)) in samples.into_iter().enumerate() {
            if !sample.is_stale() {
                shared.apply(Arc::make_mut(&mut sample))?;
            }
            if index == 0 {
                Arc::make_mut(&mut sample).counter_reset_hint = self.hint;
            }
            let start = Timestamp::from_millis(starts.get(index).copied().unwrap_or(0));
            encoder.append_with_start(Timestamp::from_millis(at), &sample, start)?;
        }
        let mut last = Arc::clone(&self.last);
        shared.apply(Arc::make_mut(&mut last))?;
        (self.encoder, self.last) = (encoder, last);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use model::BucketSpan;

    use super::*;
    use crate::random::Random;
    use crate::{ChunkBuilder, SAMPLES_PER_CHUNK};

    /// One sample of either kind.
    enum Value {
        Float(f64),
        Histogram(Arc<FloatHistogram>),
    }

    /// A series that has each kind for a while; histograms get and lose buckets, are reset, and become stale.
    fn random_series(random: &mut Random) -> Vec<Value> {
        let mut out = Vec::new();
        for _ in 0..1 + random.below(4) {
            let is_float = random.below(3) == 0;
            let gauge = random.below(4) == 0;
            let mut counts = [0.0f64; 12];
            for _ in 0..random.below(200) {
                if is_float {
                    out.push(Value::Float(random.below(1_000) as f64));
                    continue;
                }
                if random.below(60) == 0 {
                    out.push(Value::Histogram(Arc::new(FloatHistogram::stale())));
                    continue;
                }
                if random.below(50) == 0 {
                    counts.fill(0.0);
                }
                let raised = random.below(counts.len());
                counts[raised] += random.below(5) as f64;
                let cells = counts.iter().enumerate().filter(|(_, count)| **count > 0.0);
                let (spans, buckets) =
                    model::packed_buckets(cells.map(|(number, &count)| (number as i64, count)));
                out.push(Value::Histogram(Arc::new(FloatHistogram {
                    count: counts.iter().sum(),
                    sum: random.below(100) as f64,
                    positive_spans: spans,
                    positive_buckets: buckets,
                    counter_reset_hint: if gauge {
                        CounterResetHint::Gauge
                    } else {
                        CounterResetHint::Unknown
                    },
                    ..FloatHistogram::default()
                })));
            }
        }
        out
    }

    fn append(
        open: &mut Option<OpenChunk>,
        encodings: [Encoding; 2],
        at: Timestamp,
        value: &Value,
    ) -> Option<Chunk> {
        let start = start(at);
        let fits = open.as_mut().filter(|open| open.len() < SAMPLES_PER_CHUNK);
        let appended = fits.is_some_and(|open| match value {
            Value::Float(value) => {
                open.append_float(encodings[0], Sample { timestamp: at, value: *value }, start).unwrap()
            }
            Value::Histogram(value) => open.append_histogram(encodings[1], at, value, start).unwrap(),
        });
        if appended {
            return None;
        }
        let next = match (value, &open) {
            (Value::Float(value), _) => {
                OpenChunk::of_float(encodings[0], Sample { timestamp: at, value: *value }, start)
            }
            (Value::Histogram(value), Some(open)) => open.next_of_histogram(encodings[1], at, value, start),
            (Value::Histogram(value), None) => OpenChunk::of_histogram(encodings[1], at, value, start),
        };
        open.replace(next.unwrap()).and_then(OpenChunk::finish)
    }

    fn start(at: Timestamp) -> Timestamp {
        Timestamp::from_millis(at.as_millis() / 100_000 * 100_000 + 1)
    }

    /// A chunk that grows has the bytes of one that is made of all of its samples.
    #[test]
    fn chunks_that_grow_equal_those_that_are_built_at_once() {
        for seed in 0..300 {
            let random = &mut Random::seeded(seed);
            let floats = [Encoding::Xor, Encoding::Xor2][random.below(2)];
            let histograms = [
                Encoding::Histogram,
                Encoding::FloatHistogram,
                Encoding::HistogramSt,
                Encoding::FloatHistogramSt,
            ][random.below(4)];
            let mut builder = ChunkBuilder::new();
            let (mut open, mut grown) = (None, Vec::new());
            for (index, value) in random_series(random).iter().enumerate() {
                let at = Timestamp::from_millis(1_000_000 + index as i64 * 15_000 + random.below(90) as i64);
                let start = start(at);
                match value {
                    Value::Float(value) => {
                        builder.append_float(floats, Sample { timestamp: at, value: *value }, start).unwrap();
                    }
                    Value::Histogram(value) => {
                        builder.append_histogram(histograms, at, value, start).unwrap()
                    }
                }
                grown.extend(append(&mut open, [floats, histograms], at, value));
            }
            let snapshot = open.as_ref().and_then(OpenChunk::snapshot);
            let last = open.and_then(OpenChunk::finish);
            assert_eq!(snapshot, last, "seed {seed}");
            grown.extend(last);
            assert_eq!(grown, builder.finish().unwrap(), "seed {seed}, {floats:?}, {histograms:?}");
        }
    }

    #[test]
    fn what_does_not_fit_leaves_the_chunk_unchanged() {
        let sample = |t: i64| Sample::new(t, 1.0);
        let start = Timestamp::EPOCH;
        assert!(OpenChunk::of_float(Encoding::Histogram, sample(1), start).is_err());
        let mut open = OpenChunk::of_float(Encoding::Xor, sample(1), start).unwrap();
        let before = open.snapshot();
        assert!(open.append_float(Encoding::Xor, sample(1), start).is_err());
        assert_eq!(open.append_float(Encoding::Xor2, sample(2), start), Ok(false));
        assert_eq!((open.snapshot(), open.len()), (before, 1));
        // Spans that describe more buckets than there are.
        let broken = FloatHistogram {
            positive_spans: vec![BucketSpan { offset: 0, length: 3 }],
            positive_buckets: vec![1.0],
            ..FloatHistogram::default()
        };
        let at = Timestamp::from_millis(5);
        let whole = Arc::new(FloatHistogram::default());
        let mut open = OpenChunk::of_histogram(Encoding::FloatHistogram, at, &whole, start).unwrap();
        let before = open.snapshot();
        let later = Timestamp::from_millis(6);
        assert!(open.append_histogram(Encoding::FloatHistogram, later, &Arc::new(broken), start).is_err());
        assert_eq!(open.snapshot(), before);
    }
}
