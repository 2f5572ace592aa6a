use std::sync::Arc;

use model::{CUSTOM_BUCKETS_SCHEMA, CounterResetHint, FloatHistogram, Span, Timestamp};

use super::*;
use crate::random::{Random, survives_damage};
use crate::{AppendError, Chunk, ChunkError, Encoding};

fn span(offset: i32, length: u32) -> Span {
    Span { offset, length }
}

/// A counter histogram with whole counts that grows by `random` from `before`.
fn grown(before: &FloatHistogram, random: &mut Random) -> FloatHistogram {
    let mut next = before.clone();
    let grow = |bucket: &mut f64, random: &mut Random| {
        let by = (random.next() >> (40 + random.below(24))) as f64;
        *bucket += by;
        by
    };
    next.count += grow(&mut next.zero_count, random);
    for bucket in next.positive_buckets.iter_mut().chain(&mut next.negative_buckets) {
        next.count += grow(bucket, random);
    }
    next.sum += random.below(1000) as f64 / 7.0;
    next.counter_reset_hint = CounterResetHint::NotReset;
    next
}

fn exponential() -> FloatHistogram {
    FloatHistogram {
        schema: 3,
        zero_threshold: 2f64.powi(-128),
        positive_spans: vec![span(-7, 2), span(3, 1), span(0, 2)],
        positive_buckets: vec![0.0; 5],
        negative_spans: vec![span(100, 3)],
        negative_buckets: vec![0.0; 3],
        ..FloatHistogram::default()
    }
}

fn custom() -> FloatHistogram {
    FloatHistogram {
        schema: CUSTOM_BUCKETS_SCHEMA,
        positive_spans: vec![span(0, 4)],
        positive_buckets: vec![0.0; 4],
        custom_values: vec![-1.5, 0.005, 33_554.43, 1e9],
        ..FloatHistogram::default()
    }
}

fn series_of(start: &FloatHistogram, length: usize, seed: u64) -> Vec<(i64, FloatHistogram)> {
    let mut random = Random::seeded(seed);
    let (mut t, mut histogram) = (1_700_000_000_000, start.clone());
    let mut out = Vec::new();
    for _ in 0..length {
        t += 15_000 + random.below(3) as i64;
        let zero_count = histogram.zero_count;
        histogram = grown(&histogram, &mut random);
        if histogram.uses_custom_buckets() {
            histogram.count -= histogram.zero_count - zero_count;
            histogram.zero_count = 0.0;
        }
        out.push((t, histogram.clone()));
    }
    out[0].1.counter_reset_hint = CounterResetHint::Unknown;
    out
}

fn encode(mut encoder: HistogramEncoder, samples: &[(i64, FloatHistogram)]) -> Chunk {
    for (t, histogram) in samples {
        encoder.append(Timestamp::from_millis(*t), histogram).unwrap();
    }
    encoder.finish().unwrap()
}

fn decode(chunk: &Chunk) -> Result<Vec<(i64, FloatHistogram)>, ChunkError> {
    let mut out = Vec::new();
    chunk.decode_histograms(&mut out)?;
    Ok(out.into_iter().map(|(t, histogram)| (t, Arc::unwrap_or_clone(histogram))).collect())
}

#[test]
fn histograms_come_back_as_they_were_written() {
    for start in [exponential(), custom(), FloatHistogram { schema: -4, ..FloatHistogram::default() }] {
        for seed in 0..20 {
            let samples = series_of(&start, 1 + seed as usize * 7, seed);
            for encoder in [HistogramEncoder::integer(), HistogramEncoder::float()] {
                let decoded = decode(&encode(encoder, &samples)).unwrap();
                assert_eq!(decoded, samples, "seed {seed}");
                decoded.iter().for_each(|(_, histogram)| assert_eq!(histogram.validate(), Ok(())));
            }
        }
    }
}

#[test]
fn gauges_may_fall_and_stay_gauges() {
    let mut samples = series_of(&exponential(), 30, 3);
    samples.iter_mut().for_each(|(_, histogram)| histogram.counter_reset_hint = CounterResetHint::Gauge);
    let times: Vec<i64> = samples.iter().map(|(t, _)| *t).collect();
    samples.reverse();
    samples.iter_mut().zip(times).for_each(|(sample, t)| sample.0 = t);
    for encoder in [HistogramEncoder::integer(), HistogramEncoder::float()] {
        assert_eq!(decode(&encode(encoder, &samples)).unwrap(), samples);
    }
}

#[test]
fn staleness_markers_lose_their_buckets() {
    let mut samples = series_of(&exponential(), 4, 1);
    samples[2].1.sum = model::stale_nan();
    samples[3].1.sum = model::stale_nan();
    for encoder in [HistogramEncoder::integer(), HistogramEncoder::float()] {
        let decoded = decode(&encode(encoder.clone(), &samples)).unwrap();
        assert_eq!(decoded[..2], samples[..2]);
        assert_eq!(decoded[2].1, FloatHistogram::stale());
        assert_eq!(decoded[3], (samples[3].0, FloatHistogram::stale()));
        // A chunk may start with one.
        let decoded = decode(&encode(encoder, &samples[2..])).unwrap();
        assert_eq!(
            decoded,
            [(samples[2].0, FloatHistogram::stale()), (samples[3].0, FloatHistogram::stale())]
        );
    }
}

#[test]
fn a_resolution_of_the_future_is_read_at_the_finest_of_today() {
    let fine = FloatHistogram {
        counter_reset_hint: CounterResetHint::Gauge,
        schema: 10,
        // Buckets -3 to 1, 5 and 13.
        positive_spans: vec![span(-3, 5), span(3, 1), span(7, 1)],
        positive_buckets: vec![1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0],
        count: 127.0,
        ..FloatHistogram::default()
    };
    let coarse = FloatHistogram {
        schema: 8,
        // Bucket 0 takes -3 to 0, 1 takes 1, 2 takes 5, 4 takes 13.
        positive_spans: vec![span(0, 3), span(1, 1)],
        positive_buckets: vec![15.0, 16.0, 32.0, 64.0],
        ..fine.clone()
    };
    for encoder in [HistogramEncoder::integer(), HistogramEncoder::float()] {
        assert_eq!(decode(&encode(encoder, &[(7, fine.clone())])).unwrap(), [(7, coarse.clone())]);
    }
}

#[test]
fn zero_thresholds_of_every_form_survive() {
    let forms = [
        (0.0, 1),
        (2f64.powi(-128), 1),
        (2f64.powi(-243), 1),
        (2f64.powi(10), 1),
        (2f64.powi(-244), 9),
        (2f64.powi(11), 9),
        (0.001, 9),
    ];
    let size = |threshold| {
        let histogram = FloatHistogram { zero_threshold: threshold, ..FloatHistogram::default() };
        let chunk = encode(HistogramEncoder::float(), &[(0, histogram.clone())]);
        assert_eq!(decode(&chunk).unwrap(), [(0, histogram)]);
        if threshold == 2f64.powi(-128) {
            assert_eq!(chunk.data[3], 116);
        }
        chunk.data.len()
    };
    for (threshold, bytes) in forms {
        assert_eq!(size(threshold) - size(0.0), bytes - 1, "{threshold}");
    }
}

#[test]
fn a_histogram_that_does_not_fit_starts_a_new_chunk() {
    fn check(spoil: impl Fn(&mut FloatHistogram), message: &str) {
        for mut encoder in [HistogramEncoder::integer(), HistogramEncoder::float()] {
            let samples = series_of(&exponential(), 2, 5);
            encoder.append(Timestamp::from_millis(0), &samples[0].1).unwrap();
            let mut next = samples[1].1.clone();
            spoil(&mut next);
            let error = encoder.append(Timestamp::from_millis(1), &next).unwrap_err().to_string();
            assert!(error.contains(message), "{error:?} does not say {message:?}");
            encoder.append(Timestamp::from_millis(1), &samples[1].1).expect("a refusal changes nothing");
        }
    }
    check(|h| h.schema = 2, "layout of buckets");
    check(|h| h.zero_threshold = 0.5, "layout of buckets");
    check(|h| h.counter_reset_hint = CounterResetHint::Reset, "counter reset hint");
    check(|h| h.counter_reset_hint = CounterResetHint::Gauge, "counter reset hint");
    check(|h| h.positive_buckets.push(1.0), "number of buckets");

    let fractional = FloatHistogram { count: 0.5, ..FloatHistogram::default() };
    let refused = HistogramEncoder::integer().append(Timestamp::EPOCH, &fractional).unwrap_err();
    assert_eq!(refused, AppendError::Layout("kind of counts (not whole numbers)"));
}

#[test]
fn damaged_chunks_are_refused_by_name_or_read_whole() {
    for (start, seed) in
        [(exponential(), 1), (custom(), 2), (FloatHistogram { schema: 9, ..exponential() }, 3)]
    {
        let samples = series_of(&start, 40, 9);
        for encoder in [HistogramEncoder::integer(), HistogramEncoder::float()] {
            let chunk = encode(encoder, &samples);
            survives_damage(chunk.encoding, &chunk.data, 10_000, seed, |data| {
                let damaged = Chunk { data: data.to_vec().into(), ..chunk.clone() };
                decode(&damaged).map(|samples| samples.len())
            });
        }
    }
}

#[test]
fn huge_layouts_are_refused_before_memory_is_taken() {
    let mut writer = crate::bits::BitWriter::after(&[0, 1, 0, 0]);
    crate::varbit::write_signed(&mut writer, 0);
    crate::varbit::write_unsigned(&mut writer, 1);
    crate::varbit::write_unsigned(&mut writer, u64::from(u32::MAX));
    writer.write(0, 64);
    let mut out = Vec::new();
    let error =
        super::decode(Encoding::Histogram, &writer.finish(&[]), &mut out, None).unwrap_err().to_string();
    assert!(error.contains("the histogram's spans are longer than the chunk"), "{error}");

    let mut writer = crate::bits::BitWriter::after(&[0, 1, 0, 0]);
    crate::varbit::write_signed(&mut writer, 53);
    writer.write(0, 64);
    let error =
        super::decode(Encoding::FloatHistogram, &writer.finish(&[]), &mut out, None).unwrap_err().to_string();
    assert!(error.ends_with("histogram schema 53 is unknown"), "{error}");
}
