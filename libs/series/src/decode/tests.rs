use model::{FloatHistogram, Timestamp};
use tsdb::HistogramEncoder;

use super::*;
use crate::testing::{
    OPTIONS, Random, chunk, counter_chunk, cut, decode_all, floats, range, raw, started_floats, with_starts,
};

fn histogram_chunk(samples: &[(i64, f64)]) -> AggrChunk {
    let mut encoder = HistogramEncoder::float();
    for &(t, count) in samples {
        let histogram =
            FloatHistogram { count, sum: count * 2.0, zero_count: count, ..FloatHistogram::default() };
        encoder.append(Timestamp::from_millis(t), &histogram).unwrap();
    }
    AggrChunk::raw(encoder.finish().unwrap())
}

#[test]
fn both_ends_of_the_range_belong_to_it() {
    let samples: Vec<_> = (0..100).map(|n| (n * 10, n as f64)).collect();
    for (min, max) in [(0, 990), (-5, 5_000), (300, 300), (295, 605), (301, 309), (600, 300), (991, 5_000)] {
        let options = DecodeOptions { range: range(min, max), ..OPTIONS };
        let expected: Vec<_> = samples.iter().copied().filter(|(t, _)| (min..=max).contains(t)).collect();
        assert_eq!(floats(vec![cut(&samples, 7)], &options), expected, "{min}..={max}");
    }
}

#[test]
fn chunks_of_one_producer_that_overlap_are_united() {
    let lane = vec![
        raw(&[(0, 1.0), (10, 1.0), (20, 1.0)]),
        raw(&[(5, 2.0), (20, 2.0), (25, 2.0)]),
        raw(&[(6, 3.0)]),
        raw(&[(40, 4.0)]),
    ];
    let expected = [(0, 1.0), (5, 2.0), (6, 3.0), (10, 1.0), (20, 1.0), (25, 2.0), (40, 4.0)];
    assert_eq!(floats(vec![lane], &OPTIONS), expected);
}

#[test]
fn without_deduplication_all_chunks_are_united() {
    let off = DecodeOptions { dedup: Dedup::Off, ..OPTIONS };
    let replicas = vec![
        vec![raw(&[(50, 1.0), (60, 1.0)])],
        vec![raw(&[(0, 2.0), (10, 2.0)]), raw(&[(55, 2.0), (60, 2.0), (65, 2.0)])],
    ];
    let expected = [(0, 2.0), (10, 2.0), (50, 1.0), (55, 2.0), (60, 1.0), (65, 2.0)];
    assert_eq!(floats(replicas, &off), expected);
    // Interleaved: none of 40 samples is lost.
    let every_second = |from: i64| -> Vec<(i64, f64)> { (0..20).map(|n| (from + 2 * n, 1.0)).collect() };
    let interleaved = vec![vec![raw(&every_second(0))], vec![raw(&every_second(1))]];
    assert_eq!(floats(interleaved, &off).len(), 40);
}

#[test]
fn equal_samples_prove_one_producer_where_stores_do_not_say() {
    let line = |times: std::ops::Range<i64>| raw(&times.map(|t| (t * 1_000, t as f64)).collect::<Vec<_>>());
    for replicas in [vec![vec![line(0..38)], vec![line(30..40)]], vec![vec![line(30..40)], vec![line(0..38)]]]
    {
        let out = floats(replicas, &OPTIONS);
        assert_eq!((out.len(), out.last().copied()), (40, Some((39_000, 39.0))));
    }
    // Late samples between those of a block, and some of the block again.
    let block: Vec<(i64, f64)> = (0..100).map(|n| (n * 30_000, 1.0)).collect();
    let mut late: Vec<(i64, f64)> =
        (40..60).flat_map(|n| [(n * 30_000, 1.0), (n * 30_000 + 9_000, 2.0)]).collect();
    late.truncate(39);
    assert_eq!(floats(vec![cut(&block, 40), cut(&late, 39)], &OPTIONS).len(), 119);
    // Known producers are not one, whatever their samples.
    let of = |number, chunk: AggrChunk| vec![chunk.from_producer(crate::Producer::from_number(number))];
    let known = |number, value| of(number, raw(&[(0, value), (10, value), (20, value)]));
    let known = vec![known(1, 1.0), known(2, 2.0)];
    assert_eq!(floats(known, &OPTIONS), [(0, 1.0), (10, 1.0), (20, 1.0)]);
}

#[test]
fn the_least_and_the_greatest_time_are_samples() {
    let samples = [(i64::MIN, 1.0), (0, 2.0), (i64::MAX, 3.0)];
    for dedup in [Dedup::Off, Dedup::Penalty, Dedup::Chain] {
        let options = DecodeOptions { dedup, ..OPTIONS };
        assert_eq!(floats(vec![cut(&samples, 2)], &options), samples);
        assert_eq!(floats(vec![cut(&samples, 3), cut(&samples, 3)], &options).last(), Some(&(i64::MAX, 3.0)));
    }
}

#[test]
fn a_series_may_change_its_kind() {
    let lane = vec![
        raw(&[(0, 1.0), (10, 2.0)]),
        histogram_chunk(&[(20, 5.0), (30, 6.0)]),
        raw(&[(35, 9.0), (40, 3.0)]),
    ];
    let samples = decode_all(vec![lane], &OPTIONS).unwrap();
    assert_eq!(samples.timestamps, [0, 10, 35, 40]);
    let histograms: Vec<_> = samples.histograms.iter().map(|(t, h)| (*t, h.count)).collect();
    assert_eq!(histograms, [(20, 5.0), (30, 6.0)]);
    assert_eq!(samples.len(), 6);
}

#[test]
fn a_histogram_loses_its_hint_when_the_sample_before_it_is_replaced() {
    let lane = vec![
        histogram_chunk(&[(0, 1.0), (10, 2.0), (20, 3.0)]),
        histogram_chunk(&[(5, 1.0), (20, 3.0), (30, 4.0), (40, 5.0)]),
    ];
    let hints: Vec<_> = decode_all(vec![lane], &OPTIONS)
        .unwrap()
        .histograms
        .iter()
        .map(|(t, h)| (*t, h.counter_reset_hint))
        .collect();
    use CounterResetHint::{NotReset, Unknown};
    let expected = [(0, Unknown), (5, Unknown), (10, Unknown), (20, NotReset), (30, Unknown), (40, NotReset)];
    assert_eq!(hints, expected);
}

fn downsampled() -> AggrChunk {
    AggrChunk {
        count: Some(chunk(&[(10, 4.0), (20, 2.0)])),
        sum: Some(chunk(&[(10, 6.0), (20, 5.0)])),
        min: Some(chunk(&[(10, 0.5), (20, 2.0)])),
        max: Some(chunk(&[(10, 3.0), (20, 3.0)])),
        ..AggrChunk::default()
    }
}

#[test]
fn the_requested_aggregate_is_read_and_raw_samples_are_unchanged() {
    fn check(aggregate: Aggregate, expected: [f64; 3]) {
        let options = DecodeOptions { aggregate, ..OPTIONS };
        let lane = vec![downsampled(), raw(&[(30, 7.0)])];
        let values: Vec<_> = floats(vec![lane], &options).into_iter().map(|(_, value)| value).collect();
        assert_eq!(values, expected, "{aggregate:?}");
    }
    check(Aggregate::Raw, [1.5, 2.5, 7.0]);
    check(Aggregate::Count, [4.0, 2.0, 7.0]);
    check(Aggregate::Sum, [6.0, 5.0, 7.0]);
    check(Aggregate::Min, [0.5, 2.0, 7.0]);
    check(Aggregate::Max, [3.0, 3.0, 7.0]);
}

#[test]
fn averages_of_histograms_are_divided_in_every_count() {
    let sums = AggrChunk {
        sum: histogram_chunk(&[(10, 6.0)]).raw,
        count: Some(chunk(&[(10, 4.0)])),
        ..AggrChunk::default()
    };
    let samples = decode_all(vec![vec![sums]], &OPTIONS).unwrap();
    let average = Arc::clone(&samples.histograms[0].1);
    assert_eq!((average.count, average.sum, average.zero_count), (1.5, 3.0, 1.5));
    assert_eq!(average.counter_reset_hint, CounterResetHint::Gauge);
}

#[test]
fn errors_name_series_chunk_and_problem() {
    fn check(chunk: AggrChunk, aggregate: Aggregate, expected: &str) {
        let options = DecodeOptions { aggregate, ..OPTIONS };
        let error = decode_all(vec![vec![chunk]], &options).unwrap_err().to_string();
        assert_eq!(error, format!(r#"series up{{job="x"}}: chunk from 10 to 20 ms: {expected}"#));
    }
    let missing = |name| format!("the store sent neither raw samples nor the aggregate {name}");
    check(downsampled(), Aggregate::Counter, &missing("counter"));
    check(AggrChunk { sum: None, ..downsampled() }, Aggregate::Raw, &missing("sum"));
    check(AggrChunk { max: None, ..downsampled() }, Aggregate::Max, &missing("max"));
    let unaligned = AggrChunk { sum: Some(chunk(&[(10, 6.0), (21, 5.0)])), ..downsampled() };
    check(unaligned, Aggregate::Raw, "its sums and counts have different timestamps");

    let mut damaged = raw(&[(10, 1.0), (20, 2.5)]);
    let payload = damaged.raw.as_mut().unwrap();
    payload.data = payload.data.slice(..payload.data.len() - 1);
    check(
        damaged,
        Aggregate::Raw,
        "XOR chunk of 15 bytes is damaged near byte 15: it ends before the last of its 2 samples",
    );

    let mut backwards = raw(&[(10, 1.0), (20, 1.0)]);
    let payload = backwards.raw.as_mut().unwrap();
    let mut bytes = payload.data.to_vec();
    // The second sample's distance: ten becomes zero.
    bytes[11] = 0;
    payload.data = bytes.into();
    check(backwards, Aggregate::Raw, "its timestamps do not ascend");
}

#[test]
fn counters_of_downsampled_chunks_are_joined_with_resets_applied() {
    let options = DecodeOptions { aggregate: Aggregate::Counter, counter: true, ..OPTIONS };
    let first = || counter_chunk(&[(1_000, 100.0), (2_000, 120.0), (3_000, 150.0)], 50.0);
    // The last raw value was 50: 60 is a growth of 10, 5 a reset.
    for (next, expected) in [(60.0, 160.0), (5.0, 155.0)] {
        let second = counter_chunk(&[(11_000, next), (12_000, next + 2.0), (13_000, next + 3.0)], next + 3.0);
        let lane = vec![first(), second, raw(&[(20_000, next + 4.0), (21_000, f64::NAN), (22_000, 1.0)])];
        let totals = floats(vec![lane.clone()], &options);
        assert_eq!(
            totals,
            [
                (1_000, 100.0),
                (2_000, 120.0),
                (3_000, 150.0),
                (11_000, expected),
                (12_000, expected + 2.0),
                (13_000, expected + 3.0),
                (20_000, expected + 4.0),
                (22_000, expected + 5.0),
            ]
        );
        // Samples before the range still count for the total.
        let late = DecodeOptions { range: range(12_500, 20_000), ..options };
        assert_eq!(floats(vec![lane], &late), totals[5..7]);
    }
}

#[test]
fn raw_counters_keep_their_resets() {
    let samples = [(0, 5.0), (10, 9.0), (20, 2.0), (30, f64::NAN)];
    let options = DecodeOptions { aggregate: Aggregate::Counter, counter: true, ..OPTIONS };
    let samples_out = floats(vec![vec![raw(&samples)]], &options);
    assert_eq!(samples_out[..3], samples[..3]);
    assert!(samples_out[3].1.is_nan());
}

#[test]
fn a_chain_is_the_union_and_the_first_replica_wins() {
    let chain = DecodeOptions { dedup: Dedup::Chain, ..OPTIONS };
    for seed in 0..200 {
        let random = &mut Random::seeded(seed);
        let replicas: Vec<Vec<(i64, f64)>> = (0..1 + random.below(4))
            .map(|replica| {
                let times: std::collections::BTreeSet<i64> =
                    (0..random.below(50)).map(|_| random.below(100) as i64).collect();
                times.into_iter().map(|t| (t, replica as f64)).collect()
            })
            .collect();
        let mut expected: std::collections::BTreeMap<i64, f64> = std::collections::BTreeMap::new();
        expected.extend(replicas.iter().rev().flatten().copied());
        let size = 1 + random.below(9);
        let chunks = replicas.iter().map(|samples| cut(samples, size)).collect();
        assert_eq!(floats(chunks, &chain), expected.into_iter().collect::<Vec<_>>(), "seed {seed}");
    }
}

#[test]
fn start_timestamps_stay_beside_their_samples() {
    let lane = || {
        vec![
            raw(&[(0, 1.0), (10, 2.0)]),
            with_starts(&[(5, 10, 9.0), (5, 20, 3.0), (25, 30, 1.0)]),
            raw(&[(40, 2.0)]),
        ]
    };
    let all = [(0, 0, 1.0), (0, 10, 2.0), (5, 20, 3.0), (25, 30, 1.0), (0, 40, 2.0)];
    let decode =
        |min, max| started_floats(vec![lane()], &DecodeOptions { range: range(min, max), ..OPTIONS });
    assert_eq!(decode(i64::MIN, i64::MAX), all);
    assert_eq!(decode(15, 35), all[2..4]);
    assert_eq!(decode(40, 40), all[4..]);
    for dedup in [Dedup::Off, Dedup::Penalty, Dedup::Chain] {
        let both = vec![lane(), lane()];
        assert_eq!(started_floats(both, &DecodeOptions { dedup, ..OPTIONS }), all);
    }
    let unasked = decode_all(vec![lane()], &DecodeOptions { starts: false, ..OPTIONS }).unwrap();
    assert_eq!((unasked.values.len(), unasked.starts.len()), (5, 0));
}

#[test]
fn start_timestamps_of_histograms_stay_beside_them() {
    let mut encoder = HistogramEncoder::integer_with_starts();
    for t in [10, 20, 30] {
        let [t, start] = [t, t - 5].map(Timestamp::from_millis);
        encoder.append_with_start(t, &FloatHistogram::default(), start).unwrap();
    }
    let lane = vec![histogram_chunk(&[(5, 1.0), (10, 2.0)]), AggrChunk::raw(encoder.finish().unwrap())];
    for replicas in [vec![lane.clone()], vec![lane.clone(), lane]] {
        let options = DecodeOptions { range: range(6, 20), ..OPTIONS };
        let samples = decode_all(replicas, &options).unwrap();
        assert_eq!(samples.histograms.iter().map(|(t, _)| *t).collect::<Vec<_>>(), [10, 20]);
        assert_eq!(samples.histogram_starts, [0, 15]);
    }
}
