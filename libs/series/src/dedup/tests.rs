use std::path::PathBuf;

use base64::Engine as _;
use bytes::Bytes;
use model::{FloatHistogram, TimeRange, Timestamp};
use tsdb::{Chunk, Encoding, HistogramEncoder};

use crate::dedup::{DedupRules, merge};
use crate::testing::{OPTIONS, Random, cut, decode_all, floats, started_floats, with_starts};
use crate::{AggrChunk, Contribution, DecodeOptions, MergedSeries, Samples};

const COUNTER: DecodeOptions = DecodeOptions { counter: true, ..OPTIONS };

/// The replica can change every 45 s, which is half as much again as the window.
const SHORT: DecodeOptions = DecodeOptions { window: 30_000, ..OPTIONS };
const SHORT_COUNTER: DecodeOptions = DecodeOptions { counter: true, ..SHORT };

type TimedFloats = Vec<(i64, f64)>;

/// Deduplicates replicas of floats, cut into chunks of ten samples.
fn dedup(replicas: &[TimedFloats], options: &DecodeOptions) -> TimedFloats {
    floats(replicas.iter().map(|samples| cut(samples, 10)).collect(), options)
}

/// Scrapes every 15 s from `start` with some jitter; each is missed with a chance of `missed` in a hundred, and after
/// a miss so are up to `run` more.
fn scrapes(random: &mut Random, start: i64, missed: usize, run: usize, value: f64) -> TimedFloats {
    let mut out = Vec::new();
    let mut skip = 0;
    for n in 0..400 {
        let t = start + n * 15_000 + random.below(50) as i64;
        if skip == 0 && random.below(100) < missed {
            skip = 1 + random.below(run);
        }
        if skip > 0 {
            skip -= 1;
        } else {
            out.push((t, value + n as f64));
        }
    }
    out
}

#[test]
fn identical_replicas_are_one_replica() {
    for seed in 0..50 {
        let random = &mut Random::seeded(seed);
        let samples = scrapes(random, 1_700_000_000_000, 5, 30, 0.0);
        for replicas in 1..5 {
            assert_eq!(dedup(&vec![samples.clone(); replicas], &OPTIONS), samples, "seed {seed}");
            assert_eq!(dedup(&vec![samples.clone(); replicas], &COUNTER), samples, "seed {seed}");
        }
    }
}

#[test]
fn replicas_without_gaps_give_the_first_one() {
    for seed in 0..200 {
        let random = &mut Random::seeded(seed);
        let (a, b) = (scrapes(random, 0, 0, 1, 0.0), scrapes(random, random_start(seed) % 15_000, 0, 1, 1e6));
        assert_eq!(dedup(&[a.clone(), b], &OPTIONS), a, "seed {seed}");
    }
}

fn random_start(seed: u64) -> i64 {
    (seed as i64 * 7_919) % 40_000
}

/// The first replica loses its last scrapes, and no later sample shows that it does.
#[test]
fn the_last_scrapes_of_any_replica_are_part_of_the_answer() {
    let replica = |phase: i64, scrapes: i64| -> TimedFloats {
        (0..scrapes).map(|n| (n * 15_000 + phase, (n * 15) as f64)).collect()
    };
    for lost in 1..4 {
        for phase in [1_000, 7_000, 14_000] {
            let out = dedup(&[replica(0, 100 - lost), replica(phase, 100)], &SHORT);
            let last = out.last().map(|(at, _)| *at);
            assert_eq!(last, Some(99 * 15_000 + phase), "{lost} lost, phase {phase}");
        }
    }
}

#[test]
fn replica_gap_is_filled_by_the_other_replica() {
    for seed in 0..200 {
        let random = &mut Random::seeded(seed);
        let (a, b) =
            (scrapes(random, 0, 3, 100, 0.0), scrapes(random, random_start(seed) % 15_000, 0, 1, 1e6));
        for replicas in [[a.clone(), b.clone()], [b, a]] {
            let out = dedup(&replicas, &OPTIONS);
            let longest = out.windows(2).map(|pair| pair[1].0 - pair[0].0).max().unwrap();
            let shortest = out.windows(2).map(|pair| pair[1].0 - pair[0].0).min().unwrap();
            // A change of replica costs no sample, and no sample is used twice.
            assert!(longest <= 15_000 + 100, "seed {seed}: {longest}");
            assert!(shortest >= 10, "seed {seed}: {shortest}");
        }
    }
}

/// Resets, lower values of one replica, and NaNs, on top of scrapes with gaps.
fn counter_scrapes(random: &mut Random, start: i64) -> TimedFloats {
    let (missed, behind) = (random.below(4), random.below(3) as f64 * 3.5);
    let mut samples = scrapes(random, start, missed, 40, 0.0);
    let (reset_at, nan_at) = (random.below(400) as f64, random.below(60));
    for (index, (_, value)) in samples.iter_mut().enumerate() {
        *value -= if *value > reset_at { reset_at } else { behind };
        if nan_at > 0 && index % nan_at == 7 {
            *value = f64::NAN;
        }
    }
    samples
}

#[test]
fn decoding_fewer_chunks_gives_the_same_result() {
    for seed in 0..1_000 {
        let random = &mut Random::seeded(seed);
        let replicas: Vec<TimedFloats> = (0..2 + random.below(3))
            .map(|_| {
                let start = random.below(40_000) as i64;
                let mut samples = counter_scrapes(random, start);
                let lost = [0, 1, 20, 200][random.below(4)];
                samples.truncate(samples.len().saturating_sub(lost).max(1));
                samples
            })
            .collect();
        let max = if random.below(2) == 0 { i64::MAX } else { 3_000_000 + random.below(3_000_000) as i64 };
        let range = crate::testing::range(random.below(2_000_000) as i64, max);
        for options in [DecodeOptions { range, ..OPTIONS }, DecodeOptions { range, ..COUNTER }] {
            let decode = |size| floats(replicas.iter().map(|samples| cut(samples, size)).collect(), &options);
            let bits =
                |samples: TimedFloats| samples.into_iter().map(|(t, v)| (t, v.to_bits())).collect::<Vec<_>>();
            // With one chunk for each replica, everything is decoded.
            assert_eq!(bits(decode(7)), bits(decode(400)), "seed {seed}");
        }
    }
}

#[test]
fn of_a_replica_that_is_not_followed_nothing_is_decoded() {
    let every =
        |start: i64| -> TimedFloats { (0..200).map(|n| (start + n * 15_000, start as f64)).collect() };
    let damaged = |mut lane: Vec<AggrChunk>| {
        for chunk in &mut lane {
            let payload = chunk.raw.as_mut().unwrap();
            payload.data = payload.data.slice(..5);
        }
        lane
    };
    for (followed, other) in [(0, 1_000), (0, 4_000), (9_000, 0)] {
        let (x, y) = (cut(&every(followed), 20), damaged(cut(&every(other), 20)));
        assert_eq!(floats(vec![x.clone(), y.clone()], &COUNTER), every(followed), "{followed} {other}");
        assert_eq!(floats(vec![x, y.clone(), y], &COUNTER), every(followed), "{followed} {other}");
    }
}

/// The same scrapes are counted once, whichever replica has them, also where both lose samples.
#[test]
fn a_gap_is_filled_whenever_any_replica_has_the_sample() {
    let every = |start: i64| -> TimedFloats { (0..300).map(|n| (start + n * 30_000, n as f64)).collect() };
    let lose = |samples: TimedFloats, lost: fn(i64) -> bool| -> TimedFloats {
        samples.into_iter().filter(|(_, n)| !lost(*n as i64)).collect()
    };
    let longest = |samples: &TimedFloats| samples.windows(2).map(|pair| pair[1].0 - pair[0].0).max();
    for start in [10, 5_000, 17_000, 29_000] {
        for lost in [|n: i64| n % 3 == 1, |n: i64| n % 2 == 1, |n: i64| n % 10 == 4] {
            // Beside a whole replica.
            let flaky = lose(every(0), lost);
            for replicas in [[flaky.clone(), every(start)], [every(start), flaky.clone()]] {
                let out = dedup(&replicas, &OPTIONS);
                assert!(longest(&out) <= Some(30_000), "{start}: {:?}", longest(&out));
                assert!((300..=301).contains(&out.len()), "{start}: {}", out.len());
            }
        }
        // Both lose every third one, but not the same.
        let (a, b) = (lose(every(0), |n| n % 3 == 1), lose(every(start), |n| n % 3 == 2));
        let out = dedup(&[a, b], &OPTIONS);
        assert!(longest(&out) <= Some(30_000 + 30_000 / 8 * 5), "{start}: {:?}", longest(&out));
        // Clocks that are about half an interval apart: it cannot be told which scrape of one is that of the other.
        let least = if start == 17_000 { 200 } else { 298 };
        assert!((least..=301).contains(&out.len()), "{start}: {}", out.len());
    }
}

/// A scrape that fails leaves a staleness marker, which is no reason to have a gap.
#[test]
fn a_failed_scrape_of_one_replica_does_not_make_a_series_stale() {
    let every = |start: i64| -> TimedFloats { (0..100).map(|n| (start + n * 15_000, n as f64)).collect() };
    let mut flaky = every(0);
    for failed in [10, 11, 40, 70] {
        flaky[failed].1 = model::stale_nan();
    }
    for replicas in [[flaky.clone(), every(3_000)], [every(3_000), flaky]] {
        let out = dedup(&replicas, &OPTIONS);
        assert!(out.iter().all(|(_, value)| !value.is_nan()));
        assert!(out.windows(2).all(|pair| pair[1].0 - pair[0].0 <= 15_000), "{out:?}");
    }
    // Where both have nothing, the series is stale.
    let gap = |start: i64| -> TimedFloats {
        let mut samples = every(start);
        samples[50].1 = model::stale_nan();
        samples.drain(51..60);
        samples
    };
    let out = dedup(&[gap(0), gap(3_000)], &OPTIONS);
    let stale: Vec<i64> = out.iter().filter(|(_, value)| value.is_nan()).map(|(time, _)| *time).collect();
    assert_eq!((stale, out.len()), (vec![753_000], 91));
}

#[test]
fn one_replica_is_followed_while_it_has_samples() {
    let every = |start: i64| -> TimedFloats { (0..10).map(|n| (start + n * 15_000, start as f64)).collect() };
    let (a, b) = (every(0), every(1_000));
    assert_eq!(dedup(&[a.clone(), b.clone()], &SHORT), a);
    assert_eq!(dedup(&[b.clone(), a.clone()], &SHORT), b);
    // The first one fails after its third sample: the other takes over without a gap.
    let switched: TimedFloats = a[..3].iter().chain(&b[2..]).copied().collect();
    assert_eq!(dedup(&[a[..3].to_vec(), b.clone()], &SHORT), switched);
    // It is used again from the next window on that begins after it came back.
    let comes_back: TimedFloats = a[..3].iter().chain(&a[7..]).copied().collect();
    let again: TimedFloats = a[..3].iter().chain(&b[2..9]).chain(&a[9..]).copied().collect();
    assert_eq!(dedup(&[comes_back, b], &SHORT), again);
}

#[test]
fn a_third_replica_helps_where_two_are_missing() {
    let every = |start: i64, from: i64, to: i64| -> TimedFloats {
        (from..to).map(|n| (start + n * 15_000, start as f64)).collect()
    };
    let out = dedup(&[every(0, 0, 10), every(1_000, 8, 20), every(2_000, 0, 40)], &SHORT);
    assert_eq!(
        out.iter().map(|(_, replica)| *replica as i64).fold(Vec::new(), with_changes),
        [0, 1_000, 2_000]
    );
    assert!(out.windows(2).all(|pair| pair[1].0 - pair[0].0 <= 15_000));
}

/// Appends to a list of values that changed.
fn with_changes(mut list: Vec<i64>, value: i64) -> Vec<i64> {
    if list.last() != Some(&value) {
        list.push(value);
    }
    list
}

#[test]
fn an_outage_of_both_replicas_does_not_delay_the_other_one_for_long() {
    let every = |start: i64, from: i64, to: i64| -> TimedFloats {
        (from..to).map(|n| (start + n * 15_000, start as f64)).collect()
    };
    // Both are down for an hour (240 samples); then the followed one runs for one more minute only.
    let a = [every(0, 0, 10), every(0, 250, 254)].concat();
    let b = [every(1_000, 0, 10), every(1_000, 250, 400)].concat();
    let out = dedup(&[a, b], &OPTIONS);
    let after: Vec<_> = out.iter().filter(|(t, _)| *t >= 250 * 15_000).collect();
    assert!(after.windows(2).all(|pair| pair[1].0 - pair[0].0 <= 15_000 + 1_000), "{after:?}");
    assert_eq!(after.last().map(|(t, _)| *t), Some(1_000 + 399 * 15_000));
}

#[test]
fn a_change_of_replica_is_not_a_counter_reset() {
    // The second replica is a little late: its values are lower at any time.
    let a: TimedFloats = (0..5).map(|n| (n * 10_000, 100.0 + n as f64)).collect();
    let b: TimedFloats = (0..20).map(|n| (n * 10_000 + 1_000, 90.0 + n as f64)).collect();
    let plain = dedup(&[a.clone(), b.clone()], &SHORT);
    assert!(!plain.is_sorted_by(|x, y| x.1 <= y.1));
    let mended = dedup(&[a, b], &SHORT_COUNTER);
    assert!(mended.is_sorted_by(|x, y| x.1 <= y.1), "{mended:?}");
    // It grows as the replica grows, from the last sample of the first one on: 1 s of the scrape that follows it.
    assert_eq!(mended.last().map(|last| last.1), Some(104.0 + 0.1 + 15.0));
}

#[test]
fn a_counter_reset_during_a_change_of_replica_stays_one() {
    let a: TimedFloats = (0..5).map(|n| (n * 10_000, 100.0 + n as f64)).collect();
    let b: TimedFloats =
        (0..20).map(|n| (n * 10_000 + 1_000, if n < 6 { 100.0 } else { 0.0 } + n as f64)).collect();
    let expected: TimedFloats = a.iter().chain(&b[4..]).copied().collect();
    assert_eq!(dedup(&[a, b], &SHORT_COUNTER), expected);
}

#[test]
fn a_correction_ends_with_the_next_reset_of_the_replica() {
    let a: TimedFloats = (0..5).map(|n| (n * 10_000, 100.0 + n as f64)).collect();
    let b: TimedFloats =
        (0..20).map(|n| (n * 10_000 + 1_000, if n < 12 { 90.0 } else { -12.0 } + n as f64)).collect();
    let out = dedup(&[a, b.clone()], &SHORT_COUNTER);
    assert_eq!(
        out.iter().filter(|(t, _)| *t == 111_000).map(|(_, v)| *v).collect::<Vec<_>>(),
        [104.0 + 0.1 + 7.0]
    );
    assert_eq!(out[out.len() - 8..], b[12..]);
}

/// Running totals begin where the chunks of their replica begin: one has counted a reset that the other has not.
#[test]
fn a_change_of_replica_of_running_totals_adds_only_growth() {
    let every = |start: i64, level: f64| -> TimedFloats {
        (0..60).map(|n| (start + n * 10_000, level + (start / 10_000 + n) as f64)).collect()
    };
    let take = |list: &TimedFloats, from: i64, to: i64| -> TimedFloats {
        list.iter().filter(|(time, _)| (from..to).contains(time)).copied().collect()
    };
    let merge = |replicas: [TimedFloats; 2]| -> TimedFloats {
        let samples = replicas.map(|list| {
            let (timestamps, values) = list.into_iter().unzip();
            Samples { timestamps, values, ..Samples::new() }
        });
        let out = merge(&samples, DedupRules { counter: true, totals: true, window: 60_000 });
        out.timestamps.into_iter().zip(out.values).collect()
    };
    let (high, low) = (every(0, 1_000_000.0), every(0, 0.0));
    for (first, second) in [(&high, &low), (&low, &high)] {
        // The first replica ends, or begins late, or has a gap.
        for (from, to, again) in [(0, 300_000, 600_000), (300_000, 600_000, 600_000), (0, 200_000, 400_000)] {
            let part = [take(first, from, to), take(first, again, 600_000)].concat();
            let out = merge([part, second.clone()]);
            assert_eq!(out.len(), 60);
            let growth: Vec<f64> = out.windows(2).map(|pair| pair[1].1 - pair[0].1).collect();
            assert!(growth.iter().all(|growth| (growth - 1.0).abs() < 1e-6), "{from} {to}: {growth:?}");
        }
    }
}

#[test]
fn times_at_the_ends_of_all_times_are_no_problem() {
    let ends = |values: [f64; 3]| -> TimedFloats {
        [i64::MIN + 1, 0, i64::MAX - 1].into_iter().zip(values).collect()
    };
    for (a, b) in [([1.0, 2.0, 3.0], [9.0, 8.0, 7.0]), ([9.0, 1.0, 9.0], [5.0, 9.0, 1.0])] {
        let shifted: TimedFloats =
            ends(b).into_iter().map(|(time, value)| (time.saturating_add(1), value)).collect();
        for replicas in
            [[ends(a), shifted.clone()], [shifted.clone(), ends(a)], [ends(a)[..1].to_vec(), shifted.clone()]]
        {
            assert!(dedup(&replicas, &COUNTER).len() >= 3);
        }
    }
}

#[test]
fn start_timestamps_show_resets_at_a_change_of_replica_and_are_dropped_by_a_correction() {
    // The first replica ends at 60 s with 14; the second is followed from 75 s at values from 3.
    let first: Vec<(i64, i64, f64)> = (0..5).map(|n| (1, n * 15_000, 10.0 + n as f64)).collect();
    let second = |start: i64| -> Vec<(i64, i64, f64)> {
        (0..10).map(|n| (start, 1 + n * 15_000, 3.0 + (n - 5).max(0) as f64)).collect()
    };
    // The replica can change at 75 s.
    let merge = |start: i64, options: &DecodeOptions| {
        let options = &DecodeOptions { window: 50_000, ..*options };
        let replicas = vec![vec![with_starts(&first)], vec![with_starts(&second(start))]];
        started_floats(replicas, options)
            .into_iter()
            .map(|(start, _, value)| (start, value))
            .collect::<Vec<_>>()
    };
    let kept: Vec<(i64, f64)> = first.iter().map(|&(start, _, value)| (start, value)).collect();
    let ends = |merged: Vec<(i64, f64)>| {
        assert_eq!(merged[..5], kept);
        [merged[5], merged[merged.len() - 1]]
    };
    // Its counter began earlier: the lower value is not a reset, and raised samples have no start.
    assert_eq!(ends(merge(2, &COUNTER)), [(0, 14.0), (0, 18.0)]);
    // Its counter began after the change: the lower value is a reset.
    assert_eq!(ends(merge(60_500, &COUNTER)), [(60_500, 3.0), (60_500, 7.0)]);
    // A gauge is not changed.
    assert_eq!(ends(merge(2, &OPTIONS)), [(2, 3.0), (2, 7.0)]);
}

#[test]
fn staleness_markers_are_passed_on_bit_by_bit() {
    let samples = vec![(0, 1.0), (15_000, 2.0), (30_000, model::stale_nan())];
    let shifted: TimedFloats = samples.iter().map(|&(t, value)| (t + 100, value)).collect();
    for options in [OPTIONS, COUNTER] {
        let out = dedup(&[samples.clone(), shifted.clone()], &options);
        assert_eq!(out.len(), 3);
        assert!(model::is_stale_nan(out[2].1));
    }
}

fn histograms(samples: &[(i64, f64)]) -> Vec<AggrChunk> {
    let mut encoder = HistogramEncoder::float();
    for &(t, count) in samples {
        let histogram = FloatHistogram { count, ..FloatHistogram::default() };
        encoder.append(Timestamp::from_millis(t), &histogram).unwrap();
    }
    encoder.finish().map(AggrChunk::raw).into_iter().collect()
}

#[test]
fn histograms_are_deduplicated_like_floats_and_a_change_removes_the_hint() {
    let every = |start: i64, to: i64| -> TimedFloats {
        (0..to).map(|n| (start + n * 15_000, start as f64)).collect()
    };
    let (a, b) = (every(0, 3), every(1_000, 10));
    let expected = dedup(&[a.clone(), b.clone()], &SHORT);
    let out = decode_all(vec![histograms(&a), histograms(&b)], &SHORT_COUNTER).unwrap();
    assert!(out.timestamps.is_empty());
    assert_eq!(out.histograms.iter().map(|(t, h)| (*t, h.count)).collect::<Vec<_>>(), expected);
    use model::CounterResetHint::{NotReset, Unknown};
    let hints: Vec<_> = out.histograms.iter().map(|(_, h)| h.counter_reset_hint).collect();
    assert_eq!(hints[..5], [Unknown, NotReset, NotReset, Unknown, NotReset]);
    // A replica of floats and one of histograms are mixed by the same rules.
    let mixed = decode_all(vec![cut(&a, 9), histograms(&b)], &SHORT).unwrap();
    assert_eq!((mixed.timestamps.len(), mixed.histograms.len()), (3, expected.len() - 3));
}

/// The replicas in a file of recorded Series responses; none when the folder does not exist.
fn recorded(name: &str) -> Option<Vec<Vec<AggrChunk>>> {
    let root = std::env::var_os("ISTHMUS_CONFORMANCE").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/conformance")),
        PathBuf::from,
    );
    let Ok(text) = std::fs::read_to_string(root.join("dedup").join(name)) else {
        println!("skipped: {name} is not in {}", root.display());
        return None;
    };
    let responses = serde_json::Deserializer::from_str(&text).into_iter::<serde_json::Value>();
    let time = |value: &serde_json::Value| Timestamp::from_millis(value.as_str().unwrap().parse().unwrap());
    let chunk = |chunk: &serde_json::Value| {
        let data =
            base64::engine::general_purpose::STANDARD.decode(chunk["raw"]["data"].as_str().unwrap()).unwrap();
        let range = TimeRange::new(time(&chunk["minTime"]), time(&chunk["maxTime"]));
        AggrChunk::raw(Chunk { range, encoding: Encoding::Xor, data: Bytes::from(data) })
    };
    let series = |response: serde_json::Value| {
        response["series"]["chunks"].as_array().unwrap().iter().map(chunk).collect::<Vec<_>>()
    };
    Some(responses.map(|response| series(response.unwrap())).collect())
}

/// The replicas as they come out of the merge of one store for each.
fn merged(replicas: Vec<Vec<AggrChunk>>) -> Vec<Vec<AggrChunk>> {
    let contribution = |(input, chunks)| Contribution { input, chunks };
    let contributions = replicas.into_iter().enumerate().map(contribution).collect();
    MergedSeries { labels: model::Labels::empty(), contributions }.into_selected().replicas
}

/// Thanos issue 2401: a counter of two replicas, with restarts and staleness markers.
#[test]
fn recorded_replicas_of_a_counter_show_no_false_reset() {
    let Some(replicas) = recorded("issue2401-seriesresponses.json") else { return };
    let decoded: Vec<TimedFloats> =
        replicas.iter().map(|lane| floats(vec![lane.clone()], &OPTIONS)).collect();
    let plain = floats(merged(replicas.clone()), &OPTIONS);

    let counter = floats(merged(replicas), &COUNTER);
    assert_eq!(counter.len(), plain.len());
    let values: TimedFloats = counter.into_iter().filter(|(_, value)| !value.is_nan()).collect();
    for pair in values.windows(2).filter(|pair| pair[1].1 < pair[0].1) {
        let own = decoded.iter().any(|replica| {
            let around =
                |(t, value): &&(i64, f64)| *t >= pair[0].0 - 30_000 && *t <= pair[1].0 && !value.is_nan();
            let around: TimedFloats = replica.iter().filter(around).copied().collect();
            around.windows(2).any(|pair| pair[1].1 < pair[0].1)
        });
        assert!(own, "false reset from {:?} to {:?}", pair[0], pair[1]);
    }
}

/// Thanos issue 2890: two replicas that never overlap; with a lookback of 15 minutes no step may be empty.
#[test]
fn recorded_replicas_that_take_turns_leave_no_gap() {
    let Some(replicas) = recorded("issue2890-seriesresponses.json") else { return };
    for replicas in [replicas.clone(), merged(replicas)] {
        let out = floats(replicas, &OPTIONS);
        for step in (1_598_471_700_000..=1_598_472_600_000).step_by(3_000) {
            let seen = out.iter().rev().find(|(t, _)| *t <= step).filter(|(t, _)| step - t < 15 * 60_000);
            assert_eq!(seen.map(|(_, value)| *value), Some(1_596_610_196.0), "at {step}");
        }
    }
}
