//! Random worlds: replicas, late and doubled samples, histograms, staleness, gaps; compared with a list of all samples.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::FloatHistogram;
use series::{Aggregate, ChunkSample, ChunkSampleValue};
use tsdb::Encoding;

use super::answers::{Answers, OF_WINDOWS, QUERIES, assert_equal};
use super::*;
use crate::housekeeping::Chores;
use crate::plan::HOUR;

/// A step that hits no regular time, and the length of a window of aggregates.
const ODD_STEP: Duration = Duration::from_secs(7 * 61);
const WINDOW: Duration = Duration::from_secs(300);

/// Numbers from a seed.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % bound
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// What all producers together have observed, and the blocks that they uploaded.
pub(super) struct World {
    pub(super) bucket: Bucket,
    pub(super) samples: BTreeMap<SeriesKey, Vec<ChunkSample>>,
}

/// The value of a series of this number at this time: the same for all replicas.
fn value(series: usize, at: i64) -> (ChunkSampleValue, Encoding) {
    let step = at / 15_000;
    match series % 4 {
        0 => (ChunkSampleValue::Float((step % 50) as f64), Encoding::Xor),
        1 if step % 17 == 0 => {
            (ChunkSampleValue::Float(f64::from_bits(model::STALE_NAN_BITS)), Encoding::Xor)
        }
        1 => (ChunkSampleValue::Float(1.0 / (1 + step) as f64), Encoding::Xor),
        2 => {
            let count = (step % 40) as f64;
            let histogram = FloatHistogram {
                count,
                sum: count * 0.5,
                zero_count: count,
                zero_threshold: 0.001,
                ..FloatHistogram::default()
            };
            (ChunkSampleValue::Histogram(Arc::new(histogram)), Encoding::Histogram)
        }
        // A series that mixes floats and histograms.
        _ if (step / 30) % 2 == 0 => value(2, at),
        _ => value(0, at),
    }
}

/// A world of this seed in a new bucket: up to three replicas of up to two clusters, with two to twenty hours of data.
pub(super) async fn world(seed: u64, bucket: Bucket) -> World {
    let mut random = Random(seed);
    let mut samples: BTreeMap<SeriesKey, BTreeMap<i64, ChunkSample>> = BTreeMap::new();
    let mut number = 0;
    for cluster in ["a", "b"].into_iter().take(1 + random.below(2)) {
        let hours = 2 + 2 * random.below(10) as i64;
        for replica in ["0", "1", "2"].into_iter().take(1 + random.below(3)) {
            let external = [("cluster", cluster), ("replica", replica)];
            let phase = random.below(15_000) as i64;
            let series: Vec<(usize, Labels)> = (0..1 + random.below(6))
                .map(|n| (n, labels(&[("__name__", "m"), ("n", &n.to_string())])))
                .collect();
            let mut cut: Vec<(i64, i64, usize)> =
                (0..hours / 2).map(|n| (n * 2 * HOUR, (n + 1) * 2 * HOUR, 95)).collect();
            // Late blocks: some samples again, or some that were missing.
            for _ in 0..random.below(3) {
                let from = random.below(hours as usize) as i64 * HOUR;
                cut.push((from, from + (1 + random.below(3)) as i64 * HOUR, 30));
            }
            for (from, to, kept) in cut {
                if random.chance(8) {
                    continue;
                }
                let mut of_block = Vec::new();
                for (n, labels) in &series {
                    let mut own = Vec::new();
                    let mut at = from + phase;
                    while at < to {
                        if random.chance(kept) {
                            let (value, encoding) = value(*n, at);
                            own.push(ChunkSample {
                                at: Timestamp::from_millis(at),
                                start: Timestamp::EPOCH,
                                value,
                                encoding,
                            });
                        }
                        at += 60_000;
                    }
                    if !own.is_empty() {
                        of_block.push((labels.clone(), own));
                    }
                }
                if of_block.is_empty() {
                    continue;
                }
                number += 1;
                let id = Ulid::from_parts(1_700_000_000_000 + number, u128::from(seed));
                let meta = upload(&bucket, id, &external, (from, to), &of_block).await;
                let key = GroupKey::of(&meta, &["replica".to_owned()]);
                for (labels, own) in of_block {
                    let all = samples.entry((key.clone(), labels)).or_default();
                    all.extend(own.into_iter().map(|sample| (sample.at.as_millis(), sample)));
                }
            }
        }
    }
    let samples = samples.into_iter().map(|(key, samples)| (key, samples.into_values().collect())).collect();
    World { bucket, samples }
}

/// Compares what readers see with what was observed.
pub(super) fn assert_same(
    seed: u64,
    found: &BTreeMap<SeriesKey, Vec<ChunkSample>>,
    expected: &BTreeMap<SeriesKey, Vec<ChunkSample>>,
) {
    let keys = |all: &BTreeMap<SeriesKey, Vec<ChunkSample>>| all.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(keys(found), keys(expected), "seed {seed}");
    for (key, expected) in expected {
        let found = &found[key];
        assert_eq!(found.len(), expected.len(), "seed {seed}: {key:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert_eq!(found, expected, "seed {seed}: {key:?}");
        }
    }
}

/// Seeds to try: `ISTHMUS_CASES`, from `ISTHMUS_SEED` on.
pub(super) fn seeds(usual: u64) -> std::ops::Range<u64> {
    let number =
        |name: &str, usual| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual);
    let first = number("ISTHMUS_SEED", 1);
    first..first + number("ISTHMUS_CASES", usual)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_sample_is_there_once_after_merging_replicas_and_late_blocks() {
    let (mut merges, mut blocks, mut answered, range) = (0, 0, 0, seeds(1000));
    for seed in range.clone() {
        let world = world(seed, memory_bucket()).await;
        let dir = scratch();
        let worker = worker(
            &world.bucket,
            dir.path(),
            "a",
            &["--deduplication.replica-label=replica", "--delete-delay=0s"],
        );
        let end = world.samples.values().flatten().map(|sample| sample.at.as_millis()).max().unwrap_or(0);
        let ask = async |worker| Answers::of(worker, 0).await.ask(&QUERIES, end, ODD_STEP).await;
        let before = ask(&worker).await;
        answered += before
            .iter()
            .flatten()
            .map(|series| series.floats.len() + series.histograms.len())
            .sum::<usize>();
        let outcome = worker.compact().await.unwrap();
        assert_eq!((outcome.failed, outcome.waiting), (0, 0), "seed {seed}: {:?}", worker.history.last());
        assert_same(seed, &visible(&worker).await, &world.samples);
        // Nothing is left to do, and no block overlaps another one.
        assert_eq!(worker.compact().await.unwrap().made, 0, "seed {seed}");
        let view = live(&worker).await;
        for group in crate::group::by_group(&view.blocks, &worker.settings.replica_labels).values() {
            assert!(!crate::plan::overlaps(group), "seed {seed}: {group:?}");
        }
        // The sources are removed, and nothing else.
        let cleaned = worker.housekeep(Chores::All, false).await.unwrap();
        assert_eq!(cleaned.failed, 0, "seed {seed}: {:?}", worker.history.last());
        assert_same(seed, &visible(&worker).await, &world.samples);
        assert_eq!(live(&worker).await.marked.len(), 0, "seed {seed}");
        assert_equal(&format!("seed {seed}, merged"), &QUERIES, &before, &ask(&worker).await, 0.0);
        assert_eq!(
            std::fs::read_dir(&worker.workshop.dir).map_or(0, Iterator::count),
            0,
            "seed {seed}: unfinished blocks are left"
        );
        merges += outcome.made;
        blocks += cleaned.removed;
    }
    println!(
        "seeds {range:?}: {merges} merges of {blocks} blocks, every sample once, {answered} equal points"
    );
    assert!(merges > 0 && blocks > merges && answered > merges);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aggregates_of_whole_windows_answer_as_the_raw_samples_do() {
    let (mut points, range) = (0, seeds(200));
    for seed in range.clone() {
        let world = world(seed, memory_bucket()).await;
        // Raw blocks are about to be retired, so that each is downsampled.
        let days = crate::now().as_millis() / (24 * HOUR);
        let (dir, retention) = (scratch(), format!("--retention.resolution-raw={}d", days + 1));
        let flags = ["--deduplication.replica-label=replica", "--delete-delay=0s", &retention];
        let worker = worker(&world.bucket, dir.path(), "a", &flags);
        assert_eq!(worker.compact().await.unwrap().failed, 0, "seed {seed}");
        assert_eq!(worker.downsample().await.unwrap().failed, 0, "seed {seed}: {:?}", worker.history.last());
        let end = world.samples.values().flatten().map(|sample| sample.at.as_millis()).max().unwrap_or(0);
        let ask = async |millis| Answers::of(&worker, millis).await.ask(&OF_WINDOWS, end, WINDOW).await;
        let (raw, coarse) = (ask(0).await, ask(300_000).await);
        assert_equal(&format!("seed {seed}, downsampled"), &OF_WINDOWS, &raw, &coarse, 1e-9);
        // Counts are added up.
        let counted = Answers::of(&worker, 0).await.ask(&["count_over_time(m[1h])"], end, WINDOW).await;
        let mut counts = Answers::of(&worker, 300_000).await;
        counts.as_samples = Some(Aggregate::Count);
        let counts = counts.ask(&["sum_over_time(m[1h])"], end, WINDOW).await;
        assert_equal(&format!("seed {seed}, downsampled"), &["count"], &counted, &counts, 0.0);
        points +=
            raw.iter().flatten().map(|series| series.floats.len() + series.histograms.len()).sum::<usize>();
    }
    println!("seeds {range:?}: {points} points over aggregates equal those over raw samples");
    assert!(points > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_penalty_rule_one_replica_is_left_and_no_gap_is_wider_than_that_of_all() {
    for seed in seeds(200) {
        let world = world(seed, memory_bucket()).await;
        let dir = scratch();
        let flags = ["--deduplication.replica-label=replica", "--deduplication.func=penalty"];
        let worker = worker(&world.bucket, dir.path(), "a", &flags);
        let outcome = worker.compact().await.unwrap();
        assert_eq!(outcome.failed, 0, "seed {seed}: {:?}", worker.history.last());
        for (key, found) in &visible(&worker).await {
            let all = &world.samples[key];
            assert!(
                found.iter().all(|sample| all.contains(sample)),
                "seed {seed}: {key:?}: a sample was made up"
            );
            assert!(found.windows(2).all(|pair| pair[0].at < pair[1].at), "seed {seed}: {key:?}");
        }
    }
}
