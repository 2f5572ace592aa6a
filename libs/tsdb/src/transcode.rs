//! Converts chunks for readers that support only the first three encodings.

use bytes::Bytes;
use model::Sample;

use crate::error::{AppendError, ChunkError, ChunkProblem};
use crate::{Chunk, Encoding, XorEncoder, histogram};

impl Chunk {
    /// The same samples without start timestamps, in an encoding that every reader supports: XOR for XOR2, and histograms and
    /// float histograms for those with start timestamps. A chunk that has such an encoding is returned unchanged.
    ///
    /// # Errors
    /// When the payload is damaged, has times that do not ascend, or is a chunk of [aggregates](Chunk::aggregates),
    /// which has no such form.
    pub fn without_starts(&self) -> Result<Self, ChunkError> {
        let (encoding, data) = match self.encoding {
            Encoding::Xor | Encoding::Histogram | Encoding::FloatHistogram => return Ok(self.clone()),
            Encoding::Xor2 => (Encoding::Xor, self.floats_as_xor()?),
            Encoding::HistogramSt => {
                (Encoding::Histogram, histogram::strip_starts(self.encoding, &self.data)?.into())
            }
            Encoding::FloatHistogramSt => {
                (Encoding::FloatHistogram, histogram::strip_starts(self.encoding, &self.data)?.into())
            }
            Encoding::Aggregates => return Err(self.wrong_kind("samples")),
        };
        Ok(Self { range: self.range, encoding, data })
    }

    fn floats_as_xor(&self) -> Result<Bytes, ChunkError> {
        let (mut timestamps, mut values) = (Vec::new(), Vec::new());
        self.decode_floats(&mut timestamps, &mut values)?;
        let mut encoder = XorEncoder::new();
        let appended: Result<(), AppendError> =
            timestamps.iter().zip(&values).try_for_each(|(&t, &value)| encoder.append(Sample::new(t, value)));
        if appended.is_err() {
            // A chunk cannot have more samples than one of the other encoding can count, so only the order can be wrong.
            let problem = ChunkProblem::Order;
            return Err(ChunkError {
                encoding: self.encoding,
                size_bytes: self.data.len(),
                offset: self.data.len(),
                problem,
            });
        }
        // A chunk without samples still has a header.
        Ok(encoder.finish().map_or(Bytes::from_static(&[0, 0]), |chunk| chunk.data))
    }
}

#[cfg(test)]
mod tests {
    use model::{BucketSpan, CounterResetHint, FloatHistogram, TimeRange, Timestamp, stale_nan};

    use super::*;
    use crate::random::Random;
    use crate::{Aggregates, HistogramEncoder, Xor2Encoder};

    fn started(start: i64) -> Timestamp {
        Timestamp::from_millis(start)
    }

    #[test]
    fn floats_keep_their_samples_bit_by_bit() {
        for seed in 0..50 {
            let mut random = Random::seeded(seed);
            let (mut xor2, mut xor) = (Xor2Encoder::new(), XorEncoder::new());
            let mut t = 0;
            for _ in 0..1 + random.below(200) {
                t += 1 + random.below(20_000) as i64;
                let value = if random.below(5) == 0 { stale_nan() } else { random.below(9) as f64 };
                xor2.append(Sample::new(t, value), started(random.below(3) as i64)).unwrap();
                xor.append(Sample::new(t, value)).unwrap();
            }
            let plain = xor2.finish().unwrap().without_starts().unwrap();
            assert_eq!(Some(plain.clone()), xor.finish(), "seed {seed}");
            assert_eq!(plain.without_starts(), Ok(plain));
        }
    }

    /// Counter histograms with a reset hint in the header, and a staleness marker at the end.
    fn histograms() -> Vec<FloatHistogram> {
        let mut all: Vec<FloatHistogram> = (1..40u32)
            .map(|n| FloatHistogram {
                counter_reset_hint: CounterResetHint::NotReset,
                schema: 2,
                count: f64::from(n * n),
                sum: f64::from(n) / 3.0,
                positive_spans: vec![BucketSpan { offset: 1, length: 2 }],
                positive_buckets: vec![f64::from(n), f64::from(n * n - n)],
                ..FloatHistogram::default()
            })
            .collect();
        all[0].counter_reset_hint = CounterResetHint::Reset;
        all.push(FloatHistogram::stale());
        all
    }

    #[test]
    fn histograms_keep_every_bit_but_those_of_the_starts() {
        for kind in 0..4 {
            let (with, without) = [
                (HistogramEncoder::integer_with_starts(), HistogramEncoder::integer()),
                (HistogramEncoder::float_with_starts(), HistogramEncoder::float()),
            ][kind % 2]
                .clone();
            let (mut with, mut without) = (with, without);
            for (t, histogram) in (0..).map(|n| n * 15_000 + n % 2).zip(histograms()) {
                let start = if kind < 2 { started(t - 7) } else { Timestamp::EPOCH };
                with.append_with_start(started(t), &histogram, start).unwrap();
                without.append(started(t), &histogram).unwrap();
            }
            assert_eq!(with.finish().unwrap().without_starts().ok(), without.finish());
        }
    }

    #[test]
    fn aggregates_and_damaged_chunks_are_rejected() {
        let chunk = |encoding, data: &[u8]| Chunk {
            range: TimeRange::ALL,
            encoding,
            data: Bytes::copy_from_slice(data),
        };
        let error = |chunk: Chunk| chunk.without_starts().unwrap_err().to_string();
        // Two samples: the second 2^64 - 1 ms after the first, which is 1 ms before.
        let back = [&[0, 2, 0, 0], [0; 8].as_slice(), &[0xff; 9], &[1, 0]].concat();
        assert_eq!(
            error(chunk(Encoding::Xor2, &back)),
            "XOR2 chunk of 23 bytes is damaged near byte 23: its timestamps do not ascend"
        );
        assert!(
            error(Aggregates::default().encode(TimeRange::ALL))
                .ends_with("it contains aggregates, expected samples")
        );
        assert!(error(chunk(Encoding::HistogramSt, &[0, 1])).ends_with("the header is incomplete"));
        for encoding in [Encoding::Xor2, Encoding::HistogramSt, Encoding::FloatHistogramSt] {
            assert_eq!(chunk(encoding, &[0, 0, 0]).without_starts().unwrap().sample_count(), 0);
        }
    }

    #[test]
    fn damaged_histograms_are_refused_or_read_alike_with_and_without_starts() {
        for encoder in [HistogramEncoder::integer_with_starts(), HistogramEncoder::float_with_starts()] {
            let mut encoder = encoder;
            for (t, histogram) in (0..).map(|n| n * 15_000).zip(histograms()) {
                encoder.append_with_start(started(t), &histogram, started(t - 30_000)).unwrap();
            }
            let whole = encoder.finish().unwrap();
            let mut random = Random::seeded(5);
            for round in 0..5_000 {
                let mut damaged = whole.data.to_vec();
                for _ in 0..1 + random.below(3) {
                    let at = random.below(damaged.len());
                    damaged[at] ^= 1 << random.below(8);
                }
                damaged.truncate(damaged.len() - random.below(4) * random.below(9));
                let damaged = Chunk { data: damaged.into(), ..whole.clone() };
                let mut expected = Vec::new();
                let read = damaged.decode_histograms(&mut expected);
                match damaged.without_starts() {
                    Ok(plain) => {
                        let mut found = Vec::new();
                        plain.decode_histograms(&mut found).unwrap();
                        // Compared as text, where NaN is NaN.
                        assert_eq!(format!("{found:?}"), format!("{expected:?}"), "round {round}");
                    }
                    Err(_) => assert!(read.is_err(), "round {round}"),
                }
            }
        }
    }
}
