//! The samples of chunks one by one, whatever their encoding, and chunks made of such samples.
//!
//! [`Samples`](crate::Samples) is what queries read: plain lists, fast, without a trace of how samples were stored. Here each
//! sample knows its encoding, so that a block can be written again without changing what is in it.

use std::sync::Arc;

use model::{FloatHistogram, Sample, Timestamp};
use tsdb::{AppendError, Chunk, ChunkBuilder, ChunkError, Encoding};

/// The value of a sample.
#[derive(Clone, Debug)]
pub enum ChunkSampleValue {
    /// A float; a staleness marker is a NaN.
    Float(f64),
    /// A native histogram.
    Histogram(Arc<FloatHistogram>),
}

/// Bit for bit, so that NaN equals NaN. Hints about counter resets are not compared: they are not part of what was observed.
impl PartialEq for ChunkSampleValue {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Float(a), Self::Float(b)) => a.to_bits() == b.to_bits(),
            (Self::Histogram(a), Self::Histogram(b)) => a.same_observations(b),
            _ => false,
        }
    }
}

/// A sample and how its chunk was encoded.
#[derive(Clone, Debug, PartialEq)]
pub struct ChunkSample {
    /// When it was observed.
    pub at: Timestamp,
    /// When its counter began; the epoch where that is not known.
    pub start: Timestamp,
    /// What was observed.
    pub value: ChunkSampleValue,
    /// The encoding of its chunk.
    pub encoding: Encoding,
}

/// Appends the samples of `chunk` to `out`. Of a downsampled chunk, decode its [aggregates](Chunk::aggregates) one by one.
///
/// # Errors
/// When the chunk is damaged or contains aggregates. Nothing is appended then.
pub fn decode_chunk(chunk: &Chunk, out: &mut Vec<ChunkSample>) -> Result<(), ChunkError> {
    let encoding = chunk.encoding;
    let sample = |millis, start, value| ChunkSample {
        at: Timestamp::from_millis(millis),
        start: Timestamp::from_millis(start),
        value,
        encoding,
    };
    let mut starts = Vec::new();
    if encoding.holds_histograms() {
        let mut histograms = Vec::new();
        chunk.decode_histograms_with_starts(&mut histograms, &mut starts)?;
        let starts = starts.into_iter().chain(std::iter::repeat(0));
        let samples = histograms.into_iter().zip(starts);
        out.extend(
            samples.map(|((t, histogram), start)| sample(t, start, ChunkSampleValue::Histogram(histogram))),
        );
        return Ok(());
    }
    let (mut times, mut values) = (Vec::new(), Vec::new());
    chunk.decode_floats_with_starts(&mut times, &mut values, &mut starts)?;
    let starts = starts.into_iter().chain(std::iter::repeat(0));
    let samples = times.into_iter().zip(values).zip(starts);
    out.extend(samples.map(|((t, value), start)| sample(t, start, ChunkSampleValue::Float(value))));
    Ok(())
}

/// Chunks of samples that ascend in time, each encoded as it was before and cut where Prometheus cuts ([`ChunkBuilder`]).
///
/// # Errors
/// When the samples do not ascend, or one does not fit its encoding.
pub fn encode_chunks(samples: &[ChunkSample]) -> Result<Vec<Chunk>, AppendError> {
    let mut builder = ChunkBuilder::new();
    for ChunkSample { at, start, value, encoding } in samples {
        match value {
            ChunkSampleValue::Float(value) => {
                builder.append_float(*encoding, Sample { timestamp: *at, value: *value }, *start)?;
            }
            ChunkSampleValue::Histogram(histogram) => {
                builder.append_histogram(*encoding, *at, histogram, *start)?;
            }
        }
    }
    builder.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn float(millis: i64, value: f64, encoding: Encoding) -> ChunkSample {
        ChunkSample {
            at: Timestamp::from_millis(millis),
            start: Timestamp::EPOCH,
            value: ChunkSampleValue::Float(value),
            encoding,
        }
    }

    #[test]
    fn samples_survive_a_round_trip_through_chunks_of_their_kinds() {
        let mut samples: Vec<ChunkSample> =
            (0..300).map(|i| float(i * 1000, i as f64, Encoding::Xor)).collect();
        samples.extend((300..310).map(|i| ChunkSample {
            start: Timestamp::from_millis(7),
            ..float(i * 1000, f64::from_bits(model::STALE_NAN_BITS), Encoding::Xor2)
        }));
        samples.extend((310..320).map(|i| ChunkSample {
            value: ChunkSampleValue::Histogram(Arc::new(FloatHistogram {
                count: i as f64,
                sum: 1.5,
                zero_count: i as f64,
                ..FloatHistogram::default()
            })),
            ..float(i * 1000, 0.0, Encoding::Histogram)
        }));
        let chunks = encode_chunks(&samples).unwrap();
        let kinds: Vec<(Encoding, usize)> = chunks.iter().map(|c| (c.encoding, c.sample_count())).collect();
        assert_eq!(
            kinds,
            [
                (Encoding::Xor, 120),
                (Encoding::Xor, 120),
                (Encoding::Xor, 60),
                (Encoding::Xor2, 10),
                (Encoding::Histogram, 10)
            ]
        );
        let mut back = Vec::new();
        chunks.iter().for_each(|chunk| decode_chunk(chunk, &mut back).unwrap());
        assert_eq!(back, samples);
    }

    #[test]
    fn samples_that_go_back_in_time_are_rejected() {
        let samples = [float(2, 1.0, Encoding::Xor), float(1, 1.0, Encoding::Xor)];
        assert!(matches!(encode_chunks(&samples), Err(AppendError::OutOfOrder { .. })));
    }
}
