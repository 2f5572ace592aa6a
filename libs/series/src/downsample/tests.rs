use std::time::Duration;

use model::{CUSTOM_BUCKETS_SCHEMA, CounterResetHint, Timestamp, stale_nan};
use tsdb::{Encoding, HistogramEncoder};

use super::*;
use crate::testing::{OPTIONS, chunk, decode_all, range};
use crate::{AggrChunk, DecodeOptions, encode_chunks};
use crate::{ChunkSample, ChunkSampleValue};

const FIVE_MINUTES: Duration = Duration::from_secs(300);
const HOUR: Duration = Duration::from_secs(3600);

/// Downsamples to windows of 10 ms.
fn to_ten(chunks: &[Chunk]) -> Vec<Chunk> {
    Downsampler::new(Duration::ZERO, Duration::from_millis(10)).series(chunks).unwrap()
}

/// Downsamples windows of 10 ms to windows of 100 ms.
fn to_hundred(chunks: &[Chunk]) -> Vec<Chunk> {
    Downsampler::new(Duration::from_millis(10), Duration::from_millis(100)).series(chunks).unwrap()
}

/// Times and values of one aggregate of floats.
fn floats(chunk: &Chunk, aggregate: Aggregate) -> Vec<(i64, f64)> {
    let (mut times, mut values) = (Vec::new(), Vec::new());
    chunk.aggregates().unwrap().get(aggregate).unwrap().decode_floats(&mut times, &mut values).unwrap();
    times.into_iter().zip(values).collect()
}

fn histograms(chunk: &Chunk, aggregate: Aggregate) -> Vec<(i64, Arc<FloatHistogram>)> {
    let mut out = Vec::new();
    chunk.aggregates().unwrap().get(aggregate).unwrap().decode_histograms(&mut out).unwrap();
    out
}

/// Times and counts of one aggregate of histograms.
fn observations(chunk: &Chunk, aggregate: Aggregate) -> Vec<(i64, f64)> {
    histograms(chunk, aggregate).iter().map(|(t, histogram)| (*t, histogram.count)).collect()
}

/// A counter with two buckets; bucket `i` ends at `bounds[i]`, or at a power of two without bounds.
fn histogram(count: f64, bounds: &[f64]) -> FloatHistogram {
    FloatHistogram {
        schema: if bounds.is_empty() { 0 } else { CUSTOM_BUCKETS_SCHEMA },
        count,
        sum: count * 3.0,
        positive_spans: vec![model::BucketSpan { offset: 0, length: 2 }],
        positive_buckets: vec![count - 1.0, 1.0],
        custom_values: bounds.to_vec(),
        ..FloatHistogram::default()
    }
}

fn gauge(count: f64) -> FloatHistogram {
    FloatHistogram { counter_reset_hint: CounterResetHint::Gauge, ..histogram(count, &[]) }
}

/// Chunks of samples, cut as by Prometheus.
fn chunks(samples: Vec<(i64, ChunkSampleValue)>) -> Vec<Chunk> {
    let samples: Vec<ChunkSample> = samples
        .into_iter()
        .map(|(t, value)| {
            let encoding = match value {
                ChunkSampleValue::Float(_) => Encoding::Xor,
                ChunkSampleValue::Histogram(_) => Encoding::Histogram,
            };
            ChunkSample { at: Timestamp::from_millis(t), start: Timestamp::EPOCH, value, encoding }
        })
        .collect();
    encode_chunks(&samples).unwrap()
}

fn histogram_chunks(samples: Vec<(i64, FloatHistogram)>) -> Vec<Chunk> {
    chunks(samples.into_iter().map(|(t, h)| (t, ChunkSampleValue::Histogram(Arc::new(h)))).collect())
}

fn read(chunks: &[Chunk], aggregate: Aggregate) -> Samples {
    let wanted = match aggregate {
        Aggregate::Raw => vec![Aggregate::Sum, Aggregate::Count],
        one => vec![one],
    };
    let lane = chunks.iter().map(|chunk| AggrChunk::from_block(chunk.clone(), &wanted).unwrap()).collect();
    let options = DecodeOptions { aggregate, counter: aggregate == Aggregate::Counter, ..OPTIONS };
    decode_all(vec![lane], &options).unwrap()
}

#[test]
fn a_window_has_count_sum_least_greatest_and_growth() {
    let samples = [(1, 4.0), (3, 6.0), (10, 1.0), (19, 3.0), (35, 3.0)];
    let out = to_ten(&[chunk(&samples)]);
    assert_eq!(out.len(), 1);
    assert_eq!(out[0].range, range(9, 35));
    assert_eq!(floats(&out[0], Aggregate::Count), [(9, 2.0), (19, 2.0), (35, 1.0)]);
    assert_eq!(floats(&out[0], Aggregate::Sum), [(9, 10.0), (19, 4.0), (35, 3.0)]);
    assert_eq!(floats(&out[0], Aggregate::Min), [(9, 4.0), (19, 1.0), (35, 3.0)]);
    assert_eq!(floats(&out[0], Aggregate::Max), [(9, 6.0), (19, 3.0), (35, 3.0)]);
    let counter = [(1, 4.0), (9, 6.0), (19, 9.0), (35, 9.0), (35, 3.0)];
    assert_eq!(floats(&out[0], Aggregate::Counter), counter);
}

#[test]
fn staleness_markers_and_nan_are_dropped_and_infinity_stays() {
    let samples =
        [(0, f64::NAN), (1, 5.0), (2, stale_nan()), (11, f64::NAN), (22, f64::INFINITY), (24, f64::INFINITY)];
    let out = to_ten(&[chunk(&samples), chunk(&[(30, stale_nan())])]);
    assert_eq!(out.len(), 1);
    assert_eq!(floats(&out[0], Aggregate::Count), [(9, 1.0), (24, 2.0)]);
    assert_eq!(floats(&out[0], Aggregate::Min), [(9, 5.0), (24, f64::INFINITY)]);
    let counter = floats(&out[0], Aggregate::Counter);
    assert_eq!(counter, [(1, 5.0), (9, 5.0), (24, f64::INFINITY), (24, f64::INFINITY)]);
    assert_eq!(to_ten(&[chunk(&[(0, f64::NAN), (5, stale_nan())])]), []);
    assert_eq!(to_ten(&[]), []);
}

#[test]
fn samples_before_1970_have_windows_like_all_others() {
    let out = to_ten(&[chunk(&[(-25, 1.0), (-21, 2.0), (-20, 3.0), (-1, 4.0), (0, 5.0)])]);
    assert_eq!(floats(&out[0], Aggregate::Count), [(-21, 2.0), (-11, 1.0), (-1, 1.0), (0, 1.0)]);
    assert_eq!(out[0].range, range(-21, 0));
}

#[test]
fn resets_between_chunks_are_seen_and_others_are_not_invented() {
    // Two output chunks would need 140 windows; two runs of one kind are two chunks here.
    let downsampled = |samples: &[(i64, f64)]| to_ten(&[chunk(samples)]);
    let first = downsampled(&[(1, 100.0), (5, 150.0), (12, 50.0)]);
    for (next, grown) in [(60.0, 10.0), (5.0, 5.0)] {
        let second = downsampled(&[(21, next), (33, next + 1.0)]);
        let both = [first.clone(), second].concat();
        let totals =
            |samples: Samples| samples.timestamps.into_iter().zip(samples.values).collect::<Vec<_>>();
        let total = 200.0 + grown;
        let expected = [(1, 100.0), (9, 150.0), (12, 200.0), (21, total), (29, total), (33, total + 1.0)];
        assert_eq!(totals(read(&both, Aggregate::Counter)), expected);
        let coarser = to_hundred(&both);
        assert_eq!(coarser.len(), 1);
        let counter = floats(&coarser[0], Aggregate::Counter);
        assert_eq!(counter, [(1, 100.0), (33, total + 1.0), (33, next + 1.0)]);
    }
}

#[test]
fn windows_are_aggregated_to_wider_windows() {
    let samples: Vec<(i64, f64)> = (0..25).map(|n| (n * 7, (n % 5) as f64)).collect();
    let coarser = to_hundred(&to_ten(&[chunk(&samples)]));
    assert_eq!(coarser.len(), 1);
    assert_eq!(coarser[0].range, range(99, 168));
    assert_eq!(floats(&coarser[0], Aggregate::Count), [(99, 15.0), (168, 10.0)]);
    assert_eq!(floats(&coarser[0], Aggregate::Sum), [(99, 30.0), (168, 20.0)]);
    assert_eq!(floats(&coarser[0], Aggregate::Min), [(99, 0.0), (168, 0.0)]);
    assert_eq!(floats(&coarser[0], Aggregate::Max), [(99, 4.0), (168, 4.0)]);
}

#[test]
fn raw_chunks_in_a_downsampled_block_are_downsampled_and_empty_ones_skipped() {
    let aggregates = to_ten(&[chunk(&[(1, 1.0), (2, 2.0)])]);
    let empty = Chunk { data: vec![0, 0].into(), ..chunk(&[(50, 1.0)]) };
    let out = to_hundred(&[aggregates[0].clone(), empty, chunk(&[(60, 4.0), (61, 5.0)])]);
    assert_eq!(out.len(), 2);
    assert_eq!(floats(&out[1], Aggregate::Sum), [(61, 9.0)]);
}

#[test]
fn histograms_keep_raw_counters_and_sums_are_gauges() {
    let samples = [(1, 4.0), (3, 6.0), (12, 7.0), (18, 9.0)].map(|(t, count)| (t, histogram(count, &[])));
    let out = to_ten(&histogram_chunks(samples.to_vec()));
    assert_eq!(out.len(), 1);
    assert_eq!(floats(&out[0], Aggregate::Count), [(9, 2.0), (18, 2.0)]);
    assert_eq!(observations(&out[0], Aggregate::Sum), [(9, 10.0), (18, 16.0)]);
    assert_eq!(observations(&out[0], Aggregate::Counter), [(1, 4.0), (9, 6.0), (18, 9.0)]);
    let sums = histograms(&out[0], Aggregate::Sum);
    assert!(sums.iter().all(|(_, sum)| sum.counter_reset_hint == CounterResetHint::Gauge));
    assert_eq!(sums[1].1.positive_buckets, [14.0, 2.0]);
    let parts = out[0].aggregates().unwrap();
    assert_eq!((&parts.min, &parts.max), (&None, &None));
    let means: Vec<_> = read(&out, Aggregate::Raw).histograms.iter().map(|(t, h)| (*t, h.count)).collect();
    assert_eq!(means, [(9, 5.0), (18, 8.0)]);
}

#[test]
fn a_reset_of_a_histogram_begins_a_chunk() {
    let counts = [(1, 4.0), (3, 6.0), (5, 2.0), (8, 7.0), (12, 8.0)];
    let out = to_ten(&histogram_chunks(counts.map(|(t, count)| (t, histogram(count, &[]))).to_vec()));
    assert_eq!(out.iter().map(|chunk| chunk.range).collect::<Vec<_>>(), [range(3, 3), range(9, 12)]);
    assert_eq!(observations(&out[0], Aggregate::Counter), [(1, 4.0), (3, 6.0)]);
    assert_eq!(observations(&out[1], Aggregate::Counter), [(5, 2.0), (9, 7.0), (12, 8.0)]);
    let read = read(&out, Aggregate::Counter).histograms;
    assert_eq!(
        read.iter().map(|(t, h)| (*t, h.count)).collect::<Vec<_>>(),
        [(1, 4.0), (3, 6.0), (5, 2.0), (9, 7.0), (12, 8.0)]
    );
    assert!(read[2].1.detect_reset(&read[1].1), "readers see the reset");
    assert_eq!(to_hundred(&out).len(), 2, "the reset stays at the border of two chunks");
    assert_eq!(observations(&to_hundred(&out)[1], Aggregate::Counter), [(5, 2.0), (12, 8.0)]);
}

#[test]
fn every_layout_of_histograms_gets_chunks_of_its_own() {
    let finer = FloatHistogram { schema: 2, ..histogram(9.0, &[]) };
    let out = to_ten(&histogram_chunks(vec![
        (1, histogram(2.0, &[1.0])),
        (2, histogram(3.0, &[1.0])),
        (3, histogram(4.0, &[1.5, 2.0])),
        (4, histogram(5.0, &[])),
        (5, gauge(6.0)),
        (6, gauge(3.0)),
        (7, finer),
    ]));
    let counts: Vec<_> = out.iter().map(|chunk| floats(chunk, Aggregate::Count)).collect();
    assert_eq!(counts, [vec![(2, 2.0)], vec![(3, 1.0)], vec![(4, 1.0)], vec![(6, 2.0)], vec![(7, 1.0)]]);
    assert_eq!(histograms(&out[1], Aggregate::Sum)[0].1.custom_values, [1.5, 2.0]);
    assert_eq!(observations(&out[3], Aggregate::Counter), [(5, 6.0), (6, 3.0)]);
    let coarser = to_hundred(&out);
    assert_eq!(coarser.len(), 5);
    assert_eq!(histograms(&coarser[4], Aggregate::Sum)[0].1.schema, 2);
}

#[test]
fn histograms_without_a_valid_sum_are_counted_and_markers_are_not() {
    let nan = FloatHistogram { sum: f64::NAN, ..histogram(5.0, &[]) };
    let out =
        to_ten(&histogram_chunks(vec![(1, histogram(4.0, &[])), (2, nan), (3, FloatHistogram::stale())]));
    assert_eq!(floats(&out[0], Aggregate::Count), [(2, 2.0)]);
    let sums = histograms(&out[0], Aggregate::Sum);
    assert!(sums[0].1.sum.is_nan() && sums[0].1.count == 9.0);
}

#[test]
fn a_series_that_changes_its_kind_has_points_of_both_kinds() {
    let mixed = chunks(vec![
        (1, ChunkSampleValue::Float(1.0)),
        (2, ChunkSampleValue::Histogram(Arc::new(histogram(4.0, &[])))),
        (3, ChunkSampleValue::Float(2.0)),
        (15, ChunkSampleValue::Float(3.0)),
    ]);
    let out = to_ten(&mixed);
    assert_eq!(
        out.iter().map(|chunk| chunk.range).collect::<Vec<_>>(),
        [range(1, 1), range(2, 2), range(9, 15)]
    );
    let means = read(&out, Aggregate::Raw);
    assert_eq!((means.timestamps, means.values), (vec![1, 9, 15], vec![1.0, 2.0, 3.0]));
    assert_eq!(means.histograms.len(), 1);
    let coarser = to_hundred(&out);
    assert_eq!(
        coarser.iter().map(|c| c.range).collect::<Vec<_>>(),
        [range(1, 1), range(2, 2), range(15, 15)]
    );
}

#[test]
fn a_chunk_has_about_140_windows() {
    let two_days: Vec<(i64, f64)> = (0..5_760).map(|n| (n * 30_000, n as f64)).collect();
    let raw: Vec<Chunk> = two_days.chunks(120).map(chunk).collect();
    let out = Downsampler::new(Duration::ZERO, FIVE_MINUTES).series(&raw).unwrap();
    assert_eq!(out.iter().map(Chunk::sample_count).collect::<Vec<_>>(), [116, 116, 116, 116, 112]);
    let hours = Downsampler::new(FIVE_MINUTES, HOUR).series(&out).unwrap();
    assert_eq!(hours.iter().map(Chunk::sample_count).collect::<Vec<_>>(), [48]);
}

#[test]
fn errors_name_the_chunk_and_the_problem() {
    fn check(chunks: &[Chunk], expected: &str) {
        let error = Downsampler::new(Duration::ZERO, FIVE_MINUTES).series(chunks).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
    let good = chunk(&[(1, 1.0), (2, 2.0)]);
    let cut = Chunk { data: good.data.slice(..5), ..good.clone() };
    check(
        &[cut],
        "chunk from 1 to 2 ms: XOR chunk of 5 bytes is damaged near byte 2: it ends before the last of its 2 samples",
    );
    let unsorted = "chunk from 2 to 3 ms: its timestamps do not ascend from those of the chunk before it";
    check(&[good.clone(), chunk(&[(2, 1.0), (3, 1.0)])], unsorted);
    let mut encoder = HistogramEncoder::float();
    encoder.append(Timestamp::from_millis(2), &histogram(1.0, &[])).unwrap();
    let unsorted = "chunk from 2 to 2 ms: its timestamps do not ascend from those of the chunk before it";
    check(&[good.clone(), encoder.finish().unwrap()], unsorted);
    let part = |t| Some(chunk(&[(t, 1.0)]));
    let aggregates =
        Aggregates { count: part(1), sum: part(1), min: part(1), max: part(1), counter: part(1) };
    let whole = range(1, 1);
    let missing = Aggregates { min: None, ..aggregates.clone() };
    check(&[missing.encode(whole)], "chunk from 1 to 1 ms: it has no aggregate min");
    let missing = Aggregates { counter: None, ..aggregates.clone() };
    check(&[missing.encode(whole)], "chunk from 1 to 1 ms: it has no aggregate counter");
    let unaligned = Aggregates { max: part(2), ..aggregates };
    check(&[unaligned.encode(whole)], "chunk from 1 to 1 ms: its aggregates have different timestamps");
}

/// What Thanos (commit e103a81) makes of 40 samples 90 s apart with resets, a NaN and a staleness marker: `DownsampleRaw` with 5
/// minutes, then `downsampleAggr` of its chunk with 1 hour. Range, and bytes in hexadecimal digits.
const THANOS: [(i64, i64, &str); 2] = [
    (
        1_700_000_099_999,
        1_700_003_510_000,
        "1e01000dbebab7fef9624000000000000000e0a712d80c6b0b52405aced19d192c01000dbebab7fef9624000000000000000e0a712d43f\
         d421a45fb491d29413522b6927fe83eac49a9da33a31603201000dbebab7fef9623fe0000000000000e0a712c277ff2800b1a869584fff\
         82800c2fff88017a005ebff220031da33a37fd903001000dbebab7fef9623ff8000000000000e0a712c287fc8a003f1000c20062400c48\
         00604007e801150031768ce8c004e03901000f80a0abfef9623fe00000000000009f8d06d617c61a83850ff916927a6848d6474a134649\
         c111b515e3a05d0edda33a304fdca49fa4b8e6",
    ),
    (
        1_700_002_799_999,
        1_700_003_510_000,
        "16010002fe858181fa62403e000000000000f1aa2bd6278016010002fe858181fa62406f400000000000f1aa2bd4451814010002fe8581\
         81fa623fe0000000000000f1aa2b0014010002fe858181fa624030800000000000f1aa2b002f01000480a0abfef9623fe0000000000000\
         fff2aa01c29ff825fffffffffffe01bf2800237fffffffffffa9547c011cc0",
    ),
];

#[test]
fn floats_are_encoded_as_by_thanos() {
    let value = |n: i64| match n {
        13 => f64::NAN,
        21 => stale_nan(),
        _ => (n * n % 17) as f64 + 0.5,
    };
    let samples: Vec<(i64, f64)> = (0..40).map(|n| (1_700_000_000_000 + n * 90_000, value(n))).collect();
    let fine = Downsampler::new(Duration::ZERO, FIVE_MINUTES).series(&[chunk(&samples)]).unwrap();
    let coarse = Downsampler::new(FIVE_MINUTES, HOUR).series(&fine).unwrap();
    for (chunks, (min, max, hexadecimal)) in [&fine, &coarse].into_iter().zip(THANOS) {
        assert_eq!(chunks.len(), 1);
        assert_eq!(chunks[0].range, range(min, max));
        let digits: String = chunks[0].data.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(digits, hexadecimal);
    }
}
