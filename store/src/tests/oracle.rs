//! Random blocks and requests, compared with a scan of all samples.

use std::collections::{BTreeMap, BTreeSet};

use model::{MatchOp, Timestamp};
use storeapi::{LabelNamesRequest, LabelValuesRequest, Shard};

use super::*;

/// Numbers from a seed.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % bound
    }

    pub(super) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

const NAMES: [&str; 5] = ["__name__", "job", "pod", "zone", "cluster"];
const VALUES: [&str; 6] = ["a", "b", "ab", "c-1", "c-2", "größe"];
const HOUR: i64 = 3_600_000;

/// All samples of a world: by external labels and own labels.
pub(super) type World = Vec<(Labels, Labels, Vec<Sample>)>;

/// Up to 60 series of two producers, and the blocks that they are written to: cut at random times, some of which overlap.
pub(super) fn random_world(random: &mut Random, dir: &Path) -> World {
    let externals =
        [labels(&[("cluster", "x"), ("replica", "0")]), labels(&[("cluster", "x"), ("replica", "1")])];
    let mut world = World::new();
    let mut number = 1;
    for external in &externals {
        let mut sets: BTreeSet<Labels> = BTreeSet::new();
        for _ in 0..1 + random.below(30) {
            let pairs: BTreeMap<&str, &str> =
                (0..1 + random.below(4)).map(|_| (*random.pick(&NAMES), *random.pick(&VALUES))).collect();
            sets.insert(Labels::from_pairs(pairs).unwrap());
        }
        let series: Vec<(Labels, Vec<Sample>)> = sets
            .into_iter()
            .map(|set| {
                let begin = random.below(5) as i64 * HOUR;
                let step = [15_000, 60_000, 7_000][random.below(3)];
                let samples = (0..1 + random.below(700))
                    .map(|n| Sample::new(begin + n as i64 * step, f64::from(n as u32) / 3.0));
                (set, samples.collect())
            })
            .collect();
        let mut from = 0;
        while from < 8 * HOUR {
            let length = (1 + random.below(4)) as i64 * HOUR / 2;
            // A block may begin before the end of the one before it, with the same samples.
            let start = (from - random.below(2) as i64 * HOUR / 4).max(0);
            let part = |samples: &[Sample]| -> Vec<Sample> {
                samples
                    .iter()
                    .filter(|s| (start..from + length).contains(&s.timestamp.as_millis()))
                    .copied()
                    .collect()
            };
            let of_block: Vec<(Labels, Vec<Sample>)> = series
                .iter()
                .map(|(set, samples)| (set.clone(), part(samples)))
                .filter(|(_, samples)| !samples.is_empty())
                .collect();
            if !of_block.is_empty() {
                write_block(dir, Ulid::from_parts(1_700_000_000_000 + number, 7), external, &of_block);
                number += 1;
            }
            from += length;
        }
        let kept = series.into_iter().map(|(set, samples)| {
            let before = |s: &&Sample| s.timestamp.as_millis() < from;
            let samples = samples.iter().filter(before).copied().collect();
            (external.clone(), set, samples)
        });
        world.extend(kept);
    }
    world
}

pub(super) fn random_matchers(random: &mut Random) -> Vec<Matcher> {
    let ops = [MatchOp::Equal, MatchOp::NotEqual, MatchOp::Regex, MatchOp::NotRegex];
    let values = ["a", "b", "", ".+", ".*", "a|c-.", "c-.*", "x", "0|1", "(a|b)?", "größe"];
    let names = ["__name__", "job", "pod", "zone", "cluster", "replica", "absent"];
    (0..1 + random.below(3))
        .map(|_| {
            let (op, name, value): (_, &&str, &&str) =
                (*random.pick(&ops), random.pick(&names), random.pick(&values));
            Matcher::new(op, name, value).unwrap()
        })
        .collect()
}

pub(super) fn random_range(random: &mut Random) -> TimeRange {
    let start = random.below(9) as i64 * HOUR - HOUR / 2 + random.below(1000) as i64;
    let length = [0, 60_000, HOUR, 10 * HOUR][random.below(4)];
    millis((start, start + length))
}

/// The series of the world as they are sent, with the samples in `range`.
fn expected(world: &World, request: &SeriesRequest) -> BTreeMap<Labels, BTreeSet<(i64, u64)>> {
    let mut out: BTreeMap<Labels, BTreeSet<(i64, u64)>> = BTreeMap::new();
    for (external, set, all) in world {
        let attached = set.extended(external);
        if !request.matchers.iter().all(|m| m.matches_labels(&attached)) {
            continue;
        }
        let sent = attached.without(|name| request.without_replica_labels.iter().any(|r| r == name));
        if request.shard.as_ref().is_some_and(|shard| !shard.keeps(&sent)) {
            continue;
        }
        let within = all.iter().filter(|s| request.range.contains(s.timestamp));
        let within: Vec<(i64, u64)> = within.map(|s| (s.timestamp.as_millis(), s.value.to_bits())).collect();
        if !within.is_empty() {
            out.entry(sent).or_default().extend(within);
        }
    }
    out
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_requests_over_random_blocks_give_what_a_scan_of_all_samples_gives() {
    let seed = std::env::var("ISTHMUS_SEED").ok().and_then(|seed| seed.parse().ok());
    let worlds = if seed.is_some() { 1 } else { 8 };
    for world_seed in (0..worlds).map(|n| seed.unwrap_or(n)) {
        let mut random = Random(world_seed);
        let (bucket_dir, data_dir) = dirs();
        let world = random_world(&mut random, bucket_dir.path());
        // A cache that is too small for anything, and one that has room for all.
        let cache = ["--index-cache-size=1000", "--index-cache-size=50MB"][random.below(2)];
        let served = serve(&local(bucket_dir.path()), data_dir.path(), &[cache]).await;
        for round in 0..60 {
            let case = format!("seed {world_seed}, round {round}");
            let mut request = SeriesRequest::new(random_range(&mut random), random_matchers(&mut random));
            request.without_replica_labels = random
                .pick(&[vec![], vec!["replica".to_owned()], vec!["pod".to_owned(), "replica".to_owned()]])
                .clone();
            if random.below(4) == 0 {
                request.shard =
                    Some(Shard { index: random.below(3) as u64, total: 3, by: false, labels: vec![] });
            }
            check_series(&served.store, &world, request.clone(), &case).await;
            check_labels(&served.store, &world, &request, &case).await;
        }
    }
}

pub(super) async fn check_series(store: &BucketStore, world: &World, request: SeriesRequest, case: &str) {
    let wanted = expected(world, &request);
    let (found, warnings) =
        ask(store, request.clone()).await.unwrap_or_else(|error| panic!("{case}: {error}"));
    assert!(warnings.is_empty(), "{case}: {warnings:?}");
    assert!(found.is_sorted_by(|a, b| a.labels < b.labels), "{case}: the series do not ascend");
    let within = |series: &Series| -> BTreeSet<(i64, u64)> {
        let samples = samples(series).into_iter().filter(|s| request.range.contains(s.timestamp));
        samples.map(|s| (s.timestamp.as_millis(), s.value.to_bits())).collect()
    };
    // A chunk that overlaps the range may have no sample in it.
    let found: BTreeMap<Labels, BTreeSet<(i64, u64)>> = found
        .iter()
        .map(|series| (series.labels.clone(), within(series)))
        .filter(|(_, samples)| !samples.is_empty())
        .collect();
    assert_eq!(found, wanted, "{case}: {request:?}");
}

pub(super) async fn check_labels(store: &BucketStore, world: &World, request: &SeriesRequest, case: &str) {
    // Whole blocks are asked, so that times at which they begin and end do not matter.
    let range = TimeRange::new(Timestamp::MIN, Timestamp::MAX);
    let matches = |(external, set, samples): &&(Labels, Labels, Vec<Sample>)| {
        let attached = set.extended(external);
        !samples.is_empty() && request.matchers.iter().all(|m| m.matches_labels(&attached))
    };
    let attached: Vec<Labels> = world.iter().filter(matches).map(|(e, set, _)| set.extended(e)).collect();
    let names = LabelNamesRequest::new(range, request.matchers.clone());
    let names = store.label_names(names).await.unwrap_or_else(|error| panic!("{case}: {error}"));
    let expected: BTreeSet<String> =
        attached.iter().flat_map(|set| set.iter().map(|label| label.name.to_owned())).collect();
    assert!(names.values.iter().eq(&expected), "{case}: names {:?}, expected {expected:?}", names.values);
    for name in ["job", "cluster", "replica", "pod", "absent"] {
        let values = LabelValuesRequest::new(name, range, request.matchers.clone());
        let values = store.label_values(values).await.unwrap_or_else(|error| panic!("{case}: {error}"));
        let expected: BTreeSet<String> =
            attached.iter().filter_map(|set| set.get(name)).map(str::to_owned).collect();
        assert!(
            values.values.iter().eq(&expected),
            "{case}: {name} {:?}, expected {expected:?}",
            values.values
        );
    }
}
