//! Helpers for the tests of this crate: repeatable random numbers, chunks, and short ways to decode.

use model::{Labels, Sample, TimeRange, Timestamp};
use tsdb::{Aggregate, Chunk, XorEncoder};

use crate::{AggrChunk, DecodeError, DecodeOptions, Dedup, Samples, SelectedSeries};

/// A xorshift generator: the same numbers for the same seed on every machine.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn seeded(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
    }
}

/// A chunk of floats.
pub(crate) fn chunk(samples: &[(i64, f64)]) -> Chunk {
    let mut encoder = XorEncoder::new();
    for &(t, value) in samples {
        encoder.append(Sample::new(t, value)).unwrap();
    }
    encoder.finish().unwrap()
}

/// A raw chunk of floats.
pub(crate) fn raw(samples: &[(i64, f64)]) -> AggrChunk {
    AggrChunk::raw(chunk(samples))
}

/// A raw chunk of floats with start timestamps: start, time, value.
pub(crate) fn with_starts(samples: &[(i64, i64, f64)]) -> AggrChunk {
    let mut encoder = tsdb::Xor2Encoder::new();
    for &(start, t, value) in samples {
        encoder.append(Sample::new(t, value), Timestamp::from_millis(start)).unwrap();
    }
    AggrChunk::raw(encoder.finish().unwrap())
}

/// Starts, times and values of decoded replicas.
pub(crate) fn started_floats(replicas: Vec<Vec<AggrChunk>>, options: &DecodeOptions) -> Vec<(i64, i64, f64)> {
    let samples = decode_all(replicas, options).unwrap();
    assert!(samples.starts.is_empty() || samples.starts.len() == samples.values.len());
    let times = samples.timestamps.iter().zip(&samples.values).enumerate();
    times.map(|(index, (&t, &value))| (samples.float_start(index), t, value)).collect()
}

/// Raw chunks of `size` samples each.
pub(crate) fn cut(samples: &[(i64, f64)], size: usize) -> Vec<AggrChunk> {
    samples.chunks(size).map(raw).collect()
}

pub(crate) fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied()).unwrap()
}

pub(crate) fn range(min: i64, max: i64) -> TimeRange {
    TimeRange::new(Timestamp::from_millis(min), Timestamp::from_millis(max))
}

/// Everything, by penalty, no counter.
pub(crate) const OPTIONS: DecodeOptions = DecodeOptions {
    range: TimeRange::ALL,
    dedup: Dedup::Penalty,
    counter: false,
    aggregate: Aggregate::Raw,
    starts: true,
    window: 200_000,
};

/// Decodes replicas of a series `up{job="x"}`.
pub(crate) fn decode_all(
    replicas: Vec<Vec<AggrChunk>>,
    options: &DecodeOptions,
) -> Result<Samples, DecodeError> {
    let series = SelectedSeries { labels: labels(&[("__name__", "up"), ("job", "x")]), replicas };
    // Samples of the series before must not appear in the result.
    let mut out = Samples { timestamps: vec![1], values: vec![1.0], starts: vec![1], ..Samples::new() };
    series.decode(options, &mut out)?;
    Ok(out)
}

/// The floats of decoded replicas.
pub(crate) fn floats(replicas: Vec<Vec<AggrChunk>>, options: &DecodeOptions) -> Vec<(i64, f64)> {
    let samples = decode_all(replicas, options).unwrap();
    samples.timestamps.into_iter().zip(samples.values).collect()
}

/// A counter aggregate of one chunk: window totals, and the last raw value again at the time of the last window.
pub(crate) fn counter_chunk(points: &[(i64, f64)], last_raw: f64) -> AggrChunk {
    // The encoder rejects the repeated timestamp, so it is written one later and put back: the time is a delta of
    // delta, which is -(last spacing).
    let (last, _) = points[points.len() - 1];
    let mut samples = points.to_vec();
    samples.push((last + 1, last_raw));
    let payload = chunk(&samples);
    AggrChunk { counter: Some(repeat_last_time(payload, &samples)), ..AggrChunk::default() }
}

/// Rewrites a chunk of one second spacing so that its last two samples have the same time.
fn repeat_last_time(encoded: Chunk, samples: &[(i64, f64)]) -> Chunk {
    let spacing = 1_000;
    assert!(samples.len() > 2 && samples[1].0 - samples[0].0 == spacing);
    // The delta of delta of the last sample is 1 - 1000 = -999, in 14 bits; it becomes -1000.
    let field = |dod: i64| 0b10u64 << 14 | (dod as u64 & 0x3fff);
    let (from, to) = (field(1 - spacing), field(-spacing));
    let bytes = encoded.data.to_vec();
    for bit in (0..bytes.len() * 8 - 16).rev() {
        let read = (0..16)
            .fold(0u64, |value, n| value << 1 | u64::from(bytes[(bit + n) / 8] >> (7 - (bit + n) % 8) & 1));
        if read == from {
            let mut changed = bytes.clone();
            for n in 0..16 {
                let place = 7 - (bit + n) % 8;
                let byte = &mut changed[(bit + n) / 8];
                *byte = *byte & !(1 << place) | ((to >> (15 - n) & 1) as u8) << place;
            }
            return Chunk { data: changed.into(), ..encoded };
        }
    }
    panic!("the last timestamp was not found");
}
