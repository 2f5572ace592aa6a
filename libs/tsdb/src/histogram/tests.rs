use std::sync::Arc;

use model::{BucketSpan, CUSTOM_BUCKETS_SCHEMA, CounterResetHint, FloatHistogram, Timestamp};

use super::*;
use crate::random::{Random, survives_damage};
use crate::{AppendError, Chunk, ChunkError, Encoding};

fn span(offset: i32, length: u32) -> BucketSpan {
    BucketSpan { offset, length }
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
        // A chunk may begin with a staleness marker.
        let decoded = decode(&encode(encoder, &samples[2..])).unwrap();
        assert_eq!(
            decoded,
            [(samples[2].0, FloatHistogram::stale()), (samples[3].0, FloatHistogram::stale())]
        );
    }
}

#[test]
fn reserved_schemas_are_read_like_the_finest_known_one() {
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
fn zero_thresholds_of_every_form_come_back() {
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
    check(|h| h.schema = 2, "its buckets differ");
    check(|h| h.zero_threshold = 0.5, "its buckets differ");
    check(|h| h.counter_reset_hint = CounterResetHint::Reset, "its counter reset hint differs");
    check(|h| h.counter_reset_hint = CounterResetHint::Gauge, "its counter reset hint differs");
    check(|h| h.positive_buckets.push(1.0), "as many buckets as it has");

    let fractional = FloatHistogram { count: 0.5, ..FloatHistogram::default() };
    let refused = HistogramEncoder::integer().append(Timestamp::EPOCH, &fractional).unwrap_err();
    assert_eq!(refused, AppendError::Layout("its counts are not whole numbers"));
}

#[test]
fn damaged_chunks_are_read_whole_or_errors_that_name_the_encoding() {
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
fn huge_layouts_are_rejected_before_memory_is_allocated() {
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

/// What an encoder with start timestamps gives for samples with these starts.
fn encode_with_starts(
    mut encoder: HistogramEncoder,
    samples: &[(i64, FloatHistogram)],
    starts: &[i64],
) -> Chunk {
    for ((t, histogram), start) in samples.iter().zip(starts) {
        let (t, start) = (Timestamp::from_millis(*t), Timestamp::from_millis(*start));
        encoder.append_with_start(t, histogram, start).unwrap();
    }
    encoder.finish().unwrap()
}

#[test]
fn start_timestamps_come_back_beside_their_histograms() {
    for seed in 0..60 {
        let mut random = Random::seeded(seed);
        let mut samples = series_of(&[exponential(), custom()][random.below(2)], 1 + random.below(200), seed);
        if random.below(2) == 0 {
            let last = samples.len() - 1;
            samples[last].1 = FloatHistogram::stale();
        }
        let (kind, from) = (random.below(4), random.below(200));
        let starts: Vec<i64> = (0..samples.len())
            .map(|index| match kind {
                0 => 0,
                1 => samples[0].0 - 7,
                2 if index < from => 0,
                2 => samples[from].0,
                _ => samples[index].0 - random.below(40_000) as i64,
            })
            .collect();
        for encoder in [HistogramEncoder::integer_with_starts(), HistogramEncoder::float_with_starts()] {
            let chunk = encode_with_starts(encoder, &samples, &starts);
            assert_eq!(decode(&chunk).as_ref(), Ok(&samples), "seed {seed}");
            assert_eq!(chunk.sample_count(), samples.len());
            let (mut out, mut decoded) = (Vec::new(), Vec::new());
            chunk.decode_histograms_with_starts(&mut out, &mut decoded).unwrap();
            let expected = if starts.iter().all(|start| *start == 0) { &[][..] } else { &starts };
            assert_eq!(decoded, expected, "seed {seed}");
        }
        // An encoder without start timestamps drops them.
        let plain = encode_with_starts(HistogramEncoder::float(), &samples, &starts);
        assert_eq!(plain, encode(HistogramEncoder::float(), &samples));
    }
}

/// Written by Prometheus 3.14.0 (commit d15adb9ad7e5): `chunkenc.NewHistogramSTChunk()` and `NewFloatHistogramSTChunk()`,
/// whose appenders were given these samples by a Go program of a few lines.
#[test]
fn chunks_with_starts_that_prometheus_wrote_are_read_and_written() {
    let at = |n: i64, factor: f64, hint| {
        let histogram = FloatHistogram {
            counter_reset_hint: hint,
            schema: 2,
            zero_threshold: 0.001,
            zero_count: 1.0 * factor,
            count: 10.0 * factor,
            sum: 2.5 * factor,
            positive_spans: vec![span(-2, 2), span(1, 1)],
            positive_buckets: [3.0, 1.0, 2.0].map(|count| count * factor).to_vec(),
            negative_spans: vec![span(4, 1)],
            negative_buckets: vec![3.0 * factor],
            ..FloatHistogram::default()
        };
        (1_700_000_000_000 + n * 15_000 + n % 2, histogram)
    };
    let known = CounterResetHint::NotReset;
    let samples =
        [at(0, 1.0, CounterResetHint::Unknown), at(1, 2.0, known), at(2, 2.0, known), at(3, 7.0, known)];
    let starts = [1_699_999_999_000, 1_699_999_999_000, 1_700_000_020_000, 1_700_000_030_000];
    for (encoder, hex) in [
        (
            HistogramEncoder::integer_with_starts(),
            "000482ff3f50624dd2f1a9fc94a568c631a7f0000c5e7f2b40062a280080000000000013b467a01ff075338a8eb073b4676db5d595ebf7d8f32e1961750f2f1fb6c2e3fe04e1c0",
        ),
        (
            HistogramEncoder::float_with_starts(),
            "000482ff3f50624dd2f1a9fc94a568c631a7f0000c5e7f2b40020120000000000001ff8000000000000200200000000000020040000000000001ff8000000000000200000000000000020040000000000006807fc1d4ceb0784bfffac1eb0784bfffac1eb07601f7d8f32d2465eb0fea1e5ea1add61fd427ea1adf813870",
        ),
    ] {
        let chunk = encode_with_starts(encoder, &samples, &starts);
        assert_eq!(chunk.data.iter().map(|byte| format!("{byte:02x}")).collect::<String>(), hex);
        let (mut out, mut decoded) = (Vec::new(), Vec::new());
        chunk.decode_histograms_with_starts(&mut out, &mut decoded).unwrap();
        assert_eq!(decoded, starts);
        assert_eq!(decode(&chunk).as_deref(), Ok(&samples[..]));
    }
}

#[test]
fn gauges_with_starts_keep_their_kind_beside_the_number_of_samples() {
    let gauge = FloatHistogram { counter_reset_hint: CounterResetHint::Gauge, ..exponential() };
    let mut encoder = HistogramEncoder::float_with_starts();
    for n in 0..16_383 {
        encoder.append(Timestamp::from_millis(n), &gauge).unwrap();
    }
    assert_eq!(encoder.append(Timestamp::from_millis(20_000), &gauge), Err(AppendError::Full));
    let chunk = encoder.finish().unwrap();
    assert_eq!(chunk.data[..2], [0xff, 0xff]);
    let decoded = decode(&chunk).unwrap();
    assert_eq!((decoded.len(), &decoded[16_382]), (16_383, &(16_382, gauge)));
}

#[test]
fn damaged_chunks_with_starts_are_read_whole_or_errors_that_name_the_encoding() {
    let samples = series_of(&exponential(), 40, 9);
    let starts: Vec<i64> = samples.iter().map(|(t, histogram)| t - histogram.sum as i64).collect();
    for encoder in [HistogramEncoder::integer_with_starts(), HistogramEncoder::float_with_starts()] {
        let chunk = encode_with_starts(encoder, &samples, &starts);
        survives_damage(chunk.encoding, &chunk.data, 10_000, 4, |data| {
            let damaged = Chunk { data: data.to_vec().into(), ..chunk.clone() };
            let (mut out, mut starts) = (vec![(0, Arc::default())], vec![5]);
            let result = damaged.decode_histograms_with_starts(&mut out, &mut starts);
            assert_eq!(out.len(), starts.len());
            assert_eq!(starts[0], 5);
            result.map(|()| out.len() - 1)
        });
    }
}

#[test]
fn memory_of_decoding_is_estimated_from_the_header() {
    for start in [exponential(), custom()] {
        let mut encoder = HistogramEncoder::integer();
        for (t, histogram) in series_of(&start, 60, 3) {
            encoder.append(Timestamp::from_millis(t), &histogram).unwrap();
        }
        let chunk = encoder.finish().unwrap();
        let mut out = Vec::new();
        chunk.decode_histograms(&mut out).unwrap();
        let taken: usize =
            out.iter().map(|(_, h)| size_of::<(i64, Arc<FloatHistogram>)>() + h.size_bytes()).sum();
        assert_eq!(chunk.decoded_bytes(), taken);
        // The estimate is bounded by what the payload can contain.
        let mut data = chunk.data.to_vec();
        data[..2].fill(0xff);
        let boasting = Chunk { data: data.into(), ..chunk };
        assert!(boasting.decoded_bytes() < boasting.data.len() * 8 * size_of::<FloatHistogram>());
    }
}

#[test]
fn all_histograms_of_one_chunk_get_the_buckets_of_all() {
    let histogram = |spans: &[BucketSpan], buckets: &[f64]| {
        Arc::new(FloatHistogram {
            schema: 2,
            count: buckets.iter().sum(),
            positive_spans: spans.to_vec(),
            positive_buckets: buckets.to_vec(),
            ..FloatHistogram::default()
        })
    };
    let at = Timestamp::from_millis;
    let samples =
        vec![(at(1), histogram(&[span(1, 1)], &[3.0])), (at(2), histogram(&[span(0, 2)], &[1.0, 4.0]))];
    let chunk = HistogramEncoder::encode_all(samples).unwrap().unwrap();
    assert_eq!(chunk.encoding, Encoding::FloatHistogram);
    let mut decoded = Vec::new();
    chunk.decode_histograms(&mut decoded).unwrap();
    let buckets: Vec<_> = decoded.iter().map(|(_, histogram)| histogram.positive_buckets.clone()).collect();
    assert_eq!(buckets, [[0.0, 3.0], [1.0, 4.0]]);
    assert_eq!(HistogramEncoder::encode_all(Vec::new()), Ok(None));
    let other = Arc::new(FloatHistogram { schema: 1, ..FloatHistogram::default() });
    let error = HistogramEncoder::encode_all(vec![(at(1), histogram(&[], &[])), (at(2), other)]).unwrap_err();
    assert_eq!(error, AppendError::Layout("its buckets differ"));
}
