//! Values of samples, and the samples of chunks.

use std::sync::Arc;

use model::{FloatHistogram, Sample, Timestamp};
use tsdb::{AppendError, Chunk, ChunkBuilder, Encoding};

/// A value of either kind.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Float(f64),
    Histogram {
        /// Whether its counts are integers.
        integer: bool,
        histogram: Arc<FloatHistogram>,
    },
}

/// A sample. Times are in milliseconds since the epoch; a start of 0 is unknown.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TimedValue {
    pub(crate) time: i64,
    pub(crate) start: i64,
    pub(crate) value: Value,
}

impl Value {
    /// The encoding of its chunk.
    pub(crate) fn encoding(&self, has_starts: bool) -> Encoding {
        match (self, has_starts) {
            (Self::Float(_), false) => Encoding::Xor,
            (Self::Float(_), true) => Encoding::Xor2,
            (Self::Histogram { integer: true, .. }, false) => Encoding::Histogram,
            (Self::Histogram { integer: false, .. }, false) => Encoding::FloatHistogram,
            (Self::Histogram { integer: true, .. }, true) => Encoding::HistogramSt,
            (Self::Histogram { integer: false, .. }, true) => Encoding::FloatHistogramSt,
        }
    }
}

/// The samples of a chunk, in order of time. None if it cannot be decoded.
pub(crate) fn decoded(chunk: &Chunk) -> Option<Vec<TimedValue>> {
    let mut starts = Vec::new();
    let mut out: Vec<TimedValue> = if chunk.encoding.holds_floats() {
        let (mut times, mut values) = (Vec::new(), Vec::new());
        chunk.decode_floats_with_starts(&mut times, &mut values, &mut starts).ok()?;
        let pairs = times.into_iter().zip(values);
        pairs.map(|(time, value)| TimedValue { time, start: 0, value: Value::Float(value) }).collect()
    } else {
        let integer = matches!(chunk.encoding, Encoding::Histogram | Encoding::HistogramSt);
        let mut histograms = Vec::new();
        chunk.decode_histograms_with_starts(&mut histograms, &mut starts).ok()?;
        let value =
            |(time, histogram)| TimedValue { time, start: 0, value: Value::Histogram { integer, histogram } };
        histograms.into_iter().map(value).collect()
    };
    out.iter_mut().zip(starts).for_each(|(sample, start)| sample.start = start);
    Some(out)
}

/// Chunks of samples in order of time.
///
/// # Errors
/// When a histogram cannot be encoded.
pub(crate) fn encoded<'a>(
    samples: impl IntoIterator<Item = &'a TimedValue> + Clone,
) -> Result<Vec<Chunk>, AppendError> {
    let has_starts = samples.clone().into_iter().any(|sample| sample.start != 0);
    let mut builder = ChunkBuilder::new();
    for sample in samples {
        let (at, start) = (Timestamp::from_millis(sample.time), Timestamp::from_millis(sample.start));
        let encoding = sample.value.encoding(has_starts);
        match &sample.value {
            Value::Float(value) => {
                builder.append_float(encoding, Sample { timestamp: at, value: *value }, start)?;
            }
            Value::Histogram { histogram, .. } => builder.append_histogram(encoding, at, histogram, start)?,
        }
    }
    builder.finish()
}
