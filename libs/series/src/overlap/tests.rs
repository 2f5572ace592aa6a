use tsdb::Aggregate;

use crate::testing::{OPTIONS, Random, chunk, counter_chunk, decode_all, floats};
use crate::{AggrChunk, DecodeOptions, Dedup};

const WINDOW: i64 = 300_000;
const SCRAPE: i64 = 30_000;

/// A raw sample for each scrape: a counter that is reset now and then.
fn scrapes(count: i64, resets: &[i64]) -> Vec<(i64, f64)> {
    let mut value = 0.0;
    let scrape = |n: i64| {
        value = if resets.contains(&n) { 1.0 } else { value + (n % 7 + 1) as f64 };
        (n * SCRAPE + 5_000, value)
    };
    (0..count).map(scrape).collect()
}

/// Downsamples to windows of five minutes and cuts chunks of so many raw samples, as Thanos does: the last window of a chunk
/// ends with its last sample.
fn downsampled(raw: &[(i64, f64)], cut: usize) -> Vec<AggrChunk> {
    let of_chunk = |batch: &[(i64, f64)]| {
        let last = batch.last().map_or(0, |(time, _)| *time);
        let window = |samples: &[(i64, f64)]| {
            let end = (samples[0].0.div_euclid(WINDOW) + 1) * WINDOW - 1;
            (end.min(last), samples.iter().map(|(_, value)| *value).collect::<Vec<f64>>())
        };
        let windows: Vec<_> =
            batch.chunk_by(|a, b| a.0.div_euclid(WINDOW) == b.0.div_euclid(WINDOW)).map(window).collect();
        let each = |value: fn(&[f64]) -> f64| {
            Some(chunk(&windows.iter().map(|(end, values)| (*end, value(values))).collect::<Vec<_>>()))
        };
        AggrChunk {
            count: each(|values| values.len() as f64),
            sum: each(|values| values.iter().sum()),
            min: each(|values| values.iter().copied().fold(f64::MAX, f64::min)),
            max: each(|values| values.iter().copied().fold(f64::MIN, f64::max)),
            ..AggrChunk::default()
        }
    };
    raw.chunks(cut).map(of_chunk).collect()
}

/// What all windows together have.
fn total(chunks: &[AggrChunk], aggregate: Aggregate, dedup: Dedup) -> f64 {
    let mut lane = chunks.to_vec();
    lane.sort_by_key(|chunk| (chunk.range().min, chunk.range().max));
    let options = DecodeOptions { aggregate, dedup, ..OPTIONS };
    let values = floats(vec![lane], &options).into_iter().map(|(_, value)| value);
    match aggregate {
        Aggregate::Min => values.fold(f64::MAX, f64::min),
        Aggregate::Max => values.fold(f64::MIN, f64::max),
        _ => values.sum(),
    }
}

#[test]
fn each_window_of_overlapping_blocks_counts_once() {
    let raw = scrapes(400, &[]);
    let sum: f64 = raw.iter().map(|(_, value)| *value).sum();
    // Blocks that are cut differently, one that lacks every third sample, and one that begins late.
    let thinned: Vec<_> = raw.iter().enumerate().filter(|(n, _)| n % 3 != 0).map(|(_, s)| *s).collect();
    for other in [&raw[..], &raw[200..], &raw[..130], &thinned] {
        for cut in [140, 77, 25] {
            for dedup in [Dedup::Off, Dedup::Penalty] {
                let chunks = [downsampled(&raw, 140), downsampled(other, cut)].concat();
                assert_eq!(total(&chunks, Aggregate::Count, dedup), 400.0, "cut {cut} of {}", other.len());
                assert_eq!(total(&chunks, Aggregate::Sum, dedup), sum, "cut {cut}");
                assert_eq!(total(&chunks, Aggregate::Min, dedup), 1.0, "cut {cut}");
                assert_eq!(total(&chunks, Aggregate::Max, dedup), raw[399].1, "cut {cut}");
            }
        }
    }
    // Each has windows that the other one lacks.
    let chunks = [downsampled(&raw[..250], 140), downsampled(&raw[150..], 140)].concat();
    assert_eq!(total(&chunks, Aggregate::Count, Dedup::Off), 400.0);
    let holes =
        [downsampled(&raw[..100], 140), downsampled(&raw[300..], 140), downsampled(&raw[50..350], 70)];
    assert_eq!(total(&holes.concat(), Aggregate::Count, Dedup::Off), 400.0);
}

#[test]
fn of_a_window_the_samples_with_the_most_raw_samples_are_taken() {
    let raw = scrapes(40, &[]);
    let fewer = |from: usize| [&raw[..from], &raw[from + 5..]].concat();
    for chunks in [[fewer(2), fewer(20)], [fewer(20), fewer(2)]] {
        let chunks = [downsampled(&chunks[0], 140), downsampled(&chunks[1], 140)].concat();
        let expected = floats(vec![downsampled(&raw, 140)], &OPTIONS);
        let mut lane = chunks;
        lane.sort_by_key(|chunk| (chunk.range().min, chunk.range().max));
        assert_eq!(floats(vec![lane], &OPTIONS), expected);
    }
}

#[test]
fn chunks_of_different_resolutions_are_not_mixed() {
    let raw = scrapes(400, &[]);
    let hours = AggrChunk {
        count: Some(chunk(&[(3_599_999, 120.0), (7_199_999, 120.0), (10_799_999, 120.0)])),
        ..AggrChunk::default()
    };
    let chunks = [downsampled(&raw, 140), vec![hours]].concat();
    assert_eq!(total(&chunks, Aggregate::Count, Dedup::Off), 400.0);
}

/// Whatever chunks a store sends, times ascend and nothing panics.
#[test]
fn random_chunks_of_aggregates_are_decoded_in_order() {
    for seed in 0..300 {
        let random = &mut Random::seeded(seed);
        let mut lane: Vec<AggrChunk> = Vec::new();
        for _ in 0..1 + random.below(90) {
            let mut at = random.below(5_000_000) as i64;
            let samples: Vec<(i64, f64)> = (0..1 + random.below(12))
                .map(|_| {
                    at += 1 + random.below(400_000) as i64;
                    (at, [1.0, -3.0, 0.0, f64::NAN, f64::INFINITY][random.below(5)])
                })
                .collect();
            let part = || Some(chunk(&samples));
            let count = (random.below(3) > 0).then(part).flatten();
            lane.push(AggrChunk { count, sum: part(), min: part(), counter: part(), ..AggrChunk::default() });
        }
        lane.sort_by_key(|chunk| (chunk.range().min, chunk.range().max));
        for aggregate in [Aggregate::Sum, Aggregate::Min, Aggregate::Counter] {
            let samples = decode_all(vec![lane.clone()], &DecodeOptions { aggregate, ..OPTIONS }).unwrap();
            assert!(samples.timestamps.is_sorted_by(|a, b| a < b), "seed {seed}");
        }
    }
}
/// Counter aggregates of raw samples that are a second apart, with a window for each: resets are applied within a chunk.
fn counters(raw: &[(i64, f64)], cut: usize) -> Vec<AggrChunk> {
    let of_chunk = |batch: &[(i64, f64)]| {
        let (mut total, mut before) = (0.0, 0.0);
        let points = batch.iter().map(|&(time, value)| {
            total += if value < before { value } else { value - before };
            before = value;
            (time, total)
        });
        counter_chunk(&points.collect::<Vec<_>>(), batch[batch.len() - 1].1)
    };
    raw.chunks(cut).filter(|batch| batch.len() > 2).map(of_chunk).collect()
}

#[test]
fn counters_of_overlapping_blocks_grow_as_the_true_counter() {
    let resets = [30, 95, 130, 141, 205, 206, 333];
    let raw: Vec<_> =
        scrapes(400, &resets).into_iter().enumerate().map(|(n, s)| (n as i64 * 1_000, s.1)).collect();
    let options = DecodeOptions { aggregate: Aggregate::Counter, counter: true, ..OPTIONS };
    let expected = floats(vec![counters(&raw, 400)], &options);
    let both = |a: &[(i64, f64)], b: &[(i64, f64)]| [counters(a, 140), counters(b, 57)].concat();
    for chunks in [
        both(&raw, &raw),
        both(&raw[..380], &raw[200..]),
        both(&raw[200..], &raw[..300]),
        both(&raw[..140], &raw[100..]),
        // The second one fills the hole of the first one.
        [both(&raw[..100], &raw[90..330]), counters(&raw[300..], 140)].concat(),
    ] {
        let mut lane = chunks;
        lane.sort_by_key(|chunk| (chunk.range().min, chunk.range().max));
        assert_eq!(floats(vec![lane], &options), expected);
    }
}
/// The last window of a chunk ends where the other block has no sample, and that one shows resets of the counter before.
#[test]
fn a_reset_counts_once_where_windows_of_blocks_end_at_different_times() {
    let raw: Vec<_> =
        scrapes(400, &[130, 221]).into_iter().enumerate().map(|(n, s)| (n as i64 * 500, s.1)).collect();
    let half = |odd: usize| -> Vec<_> { raw.iter().skip(odd).step_by(2).copied().collect() };
    let mut lane = [counters(&half(0)[..80], 80), counters(&half(1)[50..150], 100)].concat();
    lane.extend(counters(&half(0)[145..], 200));
    let options = DecodeOptions { aggregate: Aggregate::Counter, counter: true, ..OPTIONS };
    let values = floats(vec![lane], &options);
    let growth = values.last().unwrap().1 - values[0].1;
    let expected = floats(vec![counters(&half(0), 200)], &options);
    let expected = expected.last().unwrap().1 - expected[0].1;
    // A counter grows by at most 14 from one window to the next.
    assert!((growth - expected).abs() <= 2.0 * 14.0, "{growth} instead of {expected}");
}
