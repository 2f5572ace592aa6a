//! Deletions of series: random ones against a list of all samples, deletions that come while blocks are merged, kills, downsampled
//! blocks, tombstones in a file.

use std::collections::BTreeMap;

use bucket::deletions::{self, Deletion};
use bucket::fault::{Faults, FaultyStore};
use bucket::marks::{self, Mark, MarkKind};
use model::{MatchOp, Matcher};
use series::ChunkSampleValue;
use tsdb::{Aggregate, Encoding};

use super::random::{Random, World, assert_same, seeds, world};
use super::*;
use crate::group::external_labels;
use crate::history::Action;
use crate::housekeeping::Chores;
use crate::plan::HOUR;

const FLAGS: [&str; 2] = ["--deduplication.replica-label=replica", "--delete-delay=0s"];
const MINUTE: i64 = 60_000;

fn deletion(id: &str, matchers: Vec<Matcher>, min: i64, max: i64) -> Arc<Deletion> {
    Arc::new(Deletion {
        id: id.to_owned(),
        matchers,
        range: TimeRange::new(Timestamp::from_millis(min), Timestamp::from_millis(max)),
        time: Timestamp::EPOCH,
        details: None,
    })
}

/// Requests a deletion of every block that it concerns, as `tools bucket delete-series` does.
async fn request(worker: &BucketWorker, deletion: &Arc<Deletion>) {
    let view = worker.view().await.unwrap();
    let covered = view.covered.iter().map(|(meta, _)| meta);
    for meta in view.blocks.iter().chain(covered).chain(view.marked_blocks.values()) {
        let external = Labels::from_pairs(external_labels(meta)).unwrap();
        let times = TimeRange::new(meta.min_time, meta.max_time.offset_millis(-1));
        if deletion.matchers_for(&external, times).is_some() {
            deletions::add(&worker.bucket, meta.ulid, std::slice::from_ref(deletion), ONCE).await.unwrap();
        }
    }
}

fn random_deletion(random: &mut Random, id: &str) -> Arc<Deletion> {
    let number = random.below(6).to_string();
    let matcher = match random.below(5) {
        0 => Matcher::equal("n", &number),
        1 => Matcher::new(MatchOp::NotEqual, "n", &number).unwrap(),
        2 => Matcher::new(MatchOp::Regex, "n", "[0-2]").unwrap(),
        3 => Matcher::equal("cluster", "a"),
        _ => Matcher::equal("__name__", "m"),
    };
    let min = random.below(20 * 60) as i64 * MINUTE;
    let length = random.below(8 * 60) as i64 * MINUTE;
    deletion(id, vec![Matcher::equal("__name__", "m"), matcher], min, min + length)
}

/// What is left of the samples of a world.
fn without(
    samples: &BTreeMap<SeriesKey, Vec<ChunkSample>>,
    deletions: &[Arc<Deletion>],
) -> BTreeMap<SeriesKey, Vec<ChunkSample>> {
    let mut left = samples.clone();
    for ((group, labels), samples) in &mut left {
        let external = Labels::from_pairs(&group.labels).unwrap();
        let all = labels.extended(&external);
        for deletion in deletions.iter().filter(|one| one.matchers.iter().all(|m| m.matches_labels(&all))) {
            samples.retain(|sample| !deletion.range.contains(sample.at));
        }
    }
    left.retain(|_, samples| !samples.is_empty());
    left
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_after_random_deletions_is_what_they_do_not_select() {
    let (mut cases, mut deleted, mut rewritten) = (0, 0, 0);
    for seed in seeds(200) {
        cases += 1;
        let World { bucket, samples } = world(seed, memory_bucket()).await;
        let (dir, mut random) = (scratch(), Random(seed ^ 0xde1e7e));
        let worker = worker(&bucket, dir.path(), "a", &FLAGS);
        let mut requested = Vec::new();
        for round in 0..1 + random.below(3) {
            // Some are requested before the blocks are merged, some after that.
            if random.below(2) == 0 {
                assert_eq!(
                    worker.compact().await.unwrap().failed,
                    0,
                    "seed {seed}: {:?}",
                    worker.history.last()
                );
            }
            if random.below(2) == 0 {
                worker.housekeep(Chores::All, false).await.unwrap();
            }
            let one = random_deletion(&mut random, &round.to_string());
            request(&worker, &one).await;
            requested.push(one);
        }
        let expected = without(&samples, &requested);
        assert_eq!(worker.compact().await.unwrap().failed, 0, "seed {seed}: {:?}", worker.history.last());
        assert_same(seed, &visible(&worker).await, &expected);
        assert_eq!(live(&worker).await.deletions.len(), 0, "seed {seed}");
        // Nothing is left to do, and nothing appears again when the old blocks are removed.
        assert_eq!(worker.compact().await.unwrap().made, 0, "seed {seed}");
        for _ in 0..3 {
            assert_eq!(
                worker.housekeep(Chores::All, false).await.unwrap().failed,
                0,
                "{:?}",
                worker.history.last()
            );
        }
        assert_same(seed, &visible(&worker).await, &expected);
        assert_eq!(bucket.list_all(layout::TOMBSTONES_DIR).await.unwrap(), [], "seed {seed}");
        for decision in worker.history.last() {
            deleted += decision.samples.map_or(0, |account| account.deleted);
            rewritten += u64::from(decision.action == Action::Rewritten);
        }
    }
    println!("{cases} cases: {rewritten} blocks written again, {deleted} samples deleted, none more");
    // In a few cases it may be that nothing is selected; in many, something is deleted in every second one.
    assert!(rewritten >= cases / 20 * 10 && deleted >= cases / 20 * 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_that_comes_while_its_blocks_are_merged_is_not_lost() {
    for requests in 1..60 {
        let memory = Arc::new(InMemory::new());
        let World { bucket, samples } = world(3, Bucket::new(memory.clone())).await;
        let store = FaultyStore::new(memory, 1);
        let (dir, other_dir) = (scratch(), scratch());
        let merging = worker(&Bucket::new(store.clone()), dir.path(), "a", &FLAGS);
        let other = worker(&bucket, other_dir.path(), "b", &FLAGS);
        let one = deletion("x", vec![Matcher::equal("__name__", "m"), Matcher::equal("n", "0")], 0, 9 * HOUR);
        // Requested after so many writes of the merges: before, between and after the files, meta.json and marks of new blocks.
        let left = Arc::new(std::sync::atomic::AtomicUsize::new(requests));
        let (hook, asked) = ((other.clone(), one.clone()), left.clone());
        store.after_write(move |_| {
            let ((other, one), asked) = (hook.clone(), asked.clone());
            Box::pin(async move {
                let order = std::sync::atomic::Ordering::SeqCst;
                if asked.fetch_update(order, order, |left| left.checked_sub(1)) == Ok(1) {
                    let handle = tokio::runtime::Handle::current();
                    let asking = move || handle.block_on(request(&other, &one));
                    tokio::task::spawn_blocking(asking).await.unwrap();
                }
            })
        });
        assert_eq!(merging.compact().await.unwrap().failed, 0, "{:?}", merging.history.last());
        if left.load(std::sync::atomic::Ordering::SeqCst) > 0 {
            request(&other, &one).await;
        }
        store.after_write(|_| Box::pin(async {}));
        for _ in 0..3 {
            assert_eq!(
                merging.housekeep(Chores::All, false).await.unwrap().failed,
                0,
                "{:?}",
                merging.history.last()
            );
            assert_eq!(merging.compact().await.unwrap().failed, 0, "{:?}", merging.history.last());
        }
        assert_same(requests as u64, &visible(&other).await, &without(&samples, &[one]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rewrite_that_is_killed_at_any_request_is_finished_by_the_next_one() {
    let one = deletion("x", vec![Matcher::equal("n", "0")], 0, 5 * HOUR);
    let mut kills = 0;
    loop {
        let memory = Arc::new(InMemory::new());
        let World { bucket, samples } = world(5, Bucket::new(memory.clone())).await;
        let dir = scratch();
        let first = worker(&bucket, dir.path(), "first", &FLAGS);
        first.compact().await.unwrap();
        first.housekeep(Chores::All, false).await.unwrap();
        request(&first, &one).await;
        let store = FaultyStore::new(memory, 1);
        let killed = worker(&Bucket::new(store.clone()), dir.path(), "killed", &FLAGS);
        store.set(Faults { requests_left: Some(kills), ..Faults::default() });
        let outcome = killed.compact().await;
        let cleaned = if outcome.is_ok() { killed.housekeep(Chores::All, false).await.err() } else { None };
        let is_whole = outcome.is_ok_and(|outcome| outcome.failed == 0) && cleaned.is_none();
        drop(killed);
        for object in bucket.list_all("isthmus/lease").await.unwrap() {
            bucket.delete(&object.name).await.unwrap();
        }
        let expected = without(&samples, std::slice::from_ref(&one));
        // Readers mask what is not done yet, whatever blocks they find.
        assert_same(kills, &masked(&first).await, &expected);
        let next = worker(&bucket, dir.path(), "next", &FLAGS);
        assert_eq!(next.compact().await.unwrap().failed, 0, "{:?}", next.history.last());
        for _ in 0..3 {
            assert_eq!(
                next.housekeep(Chores::All, false).await.unwrap().failed,
                0,
                "{:?}",
                next.history.last()
            );
        }
        assert_same(kills, &visible(&next).await, &expected);
        assert_eq!(bucket.list_all(layout::TOMBSTONES_DIR).await.unwrap(), [], "after {kills} requests");
        if is_whole {
            break;
        }
        kills += 1;
    }
    println!("{kills} kills, one at each request");
    assert!(kills > 30, "{kills}");
}

/// What readers answer: the samples that are visible and not masked.
async fn masked(worker: &BucketWorker) -> BTreeMap<SeriesKey, Vec<ChunkSample>> {
    let mut all: BTreeMap<SeriesKey, Vec<ChunkSample>> = BTreeMap::new();
    let view = live(worker).await;
    for meta in view.blocks.iter().filter(|meta| resolution(meta) == 0) {
        let key = GroupKey::of(meta, &worker.settings.replica_labels);
        let deleted = view.deletions.get(&meta.ulid).cloned().unwrap_or_default();
        for (labels, mut samples) in samples_of(&worker.bucket, meta.ulid).await {
            samples.retain(|sample| !deleted.of_series(&labels).any(|range| range.contains(sample.at)));
            if !samples.is_empty() {
                all.entry((key.clone(), labels)).or_default().extend(samples);
            }
        }
    }
    all.values_mut().for_each(|samples| samples.sort_by_key(|sample| sample.at));
    all
}

/// A series with a sample each minute for `hours`, of one cluster.
fn minutes(name: &str, hours: i64) -> (Labels, Vec<ChunkSample>) {
    let samples = (0..hours * 60).map(|minute| ChunkSample {
        at: Timestamp::from_millis(minute * MINUTE),
        start: Timestamp::EPOCH,
        value: ChunkSampleValue::Float((minute % 97) as f64),
        encoding: Encoding::Xor,
    });
    (labels(&[("__name__", name)]), samples.collect())
}

/// The sums of the windows of all series of a downsampled block.
async fn windows(bucket: &Bucket, id: Ulid) -> BTreeMap<Labels, Vec<(i64, u64)>> {
    let remote = bucket.open_block(id, &OpenBlockOptions::default()).await.unwrap();
    let read = move || {
        let (block, mut all) = (remote.block(), BTreeMap::new());
        for series in block.select(&[], TimeRange::ALL).unwrap() {
            let series = series.unwrap();
            let (mut times, mut values) = (Vec::new(), Vec::new());
            for chunk in block.chunks(&series.chunks).unwrap() {
                let parts = chunk.aggregates().unwrap();
                parts.get(Aggregate::Sum).unwrap().decode_floats(&mut times, &mut values).unwrap();
            }
            let sums: Vec<(i64, u64)> = times.into_iter().zip(values.into_iter().map(f64::to_bits)).collect();
            all.insert(series.labels, sums);
        }
        all
    };
    tokio::task::spawn_blocking(read).await.unwrap()
}

async fn of_resolution(worker: &BucketWorker, millis: i64) -> Arc<BlockMeta> {
    let view = live(worker).await;
    let found: Vec<_> = view.blocks.iter().filter(|meta| resolution(meta) == millis).cloned().collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn downsampled_blocks_are_those_that_are_made_without_the_deleted_samples() {
    let hours = 10 * 24;
    let all = [minutes("a", hours), minutes("b", hours), minutes("c", hours)];
    // Begins and ends inside of windows of 5 minutes and of an hour.
    let gone = [
        deletion("1", vec![Matcher::equal("__name__", "a")], 50 * HOUR + 7 * MINUTE, 60 * HOUR + 33 * MINUTE),
        deletion("2", vec![Matcher::equal("__name__", "c")], 0, 1000 * HOUR),
    ];
    let id = Ulid::from_parts(1_700_000_000_000, 1);
    let without: Vec<(Labels, Vec<ChunkSample>)> = all
        .iter()
        .map(|(labels, samples)| {
            let selected = |one: &&Arc<Deletion>| one.matchers.iter().all(|m| m.matches_labels(labels));
            let is_left = |sample: &&ChunkSample| {
                !gone.iter().filter(selected).any(|one| one.range.contains(sample.at))
            };
            (labels.clone(), samples.iter().filter(is_left).cloned().collect::<Vec<_>>())
        })
        .filter(|(_, samples)| !samples.is_empty())
        .collect();
    let (bucket, clean) = (memory_bucket(), memory_bucket());
    let dir = scratch();
    let (tested, oracle) =
        (worker(&bucket, dir.path(), "a", &["--delete-delay=0s"]), worker(&clean, dir.path(), "b", &[]));
    for (worker, series) in [(&tested, &all[..]), (&oracle, &without)] {
        upload(&worker.bucket, id, &[("cluster", "a")], (0, hours * HOUR), series).await;
        assert_eq!(worker.downsample().await.unwrap().made, 2, "{:?}", worker.history.last());
    }
    for one in &gone {
        request(&tested, one).await;
    }
    let outcome = tested.compact().await.unwrap();
    assert_eq!((outcome.made, outcome.failed), (3, 0), "{:?}", tested.history.last());
    let why: Vec<String> = tested.history.last().into_iter().map(|decision| decision.why).collect();
    assert!(why.iter().any(|why| why.contains("calculated again from raw blocks")), "{why:?}");
    for resolution in [300_000, 3_600_000] {
        let (found, expected) =
            (of_resolution(&tested, resolution).await, of_resolution(&oracle, resolution).await);
        let (found, expected) = (windows(&bucket, found.ulid).await, windows(&clean, expected.ulid).await);
        assert_eq!(found, expected, "{resolution}");
    }
    // They still count as downsampled.
    assert_eq!((tested.downsample().await.unwrap().made, tested.compact().await.unwrap().made), (0, 0));
    tested.housekeep(Chores::All, false).await.unwrap();
    tested.housekeep(Chores::All, false).await.unwrap();
    assert_eq!(live(&tested).await.blocks.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_finer_samples_windows_that_are_deleted_in_part_are_dropped_and_the_history_says_so() {
    let bucket = memory_bucket();
    let dir = scratch();
    let worker = worker(&bucket, dir.path(), "a", &["--delete-delay=0s"]);
    let id = Ulid::from_parts(1_700_000_000_000, 1);
    upload(&bucket, id, &[("cluster", "a")], (0, 48 * HOUR), &[minutes("a", 48), minutes("b", 48)]).await;
    assert_eq!(worker.downsample().await.unwrap().made, 1);
    let before = windows(&bucket, of_resolution(&worker, 300_000).await.ulid).await;
    marks::create(&bucket, &Mark::new(MarkKind::Deletion, id, crate::now())).await.unwrap();
    worker.housekeep(Chores::All, false).await.unwrap();
    request(&worker, &deletion("x", vec![Matcher::equal("__name__", "a")], HOUR + 1, 2 * HOUR)).await;
    let outcome = worker.compact().await.unwrap();
    assert_eq!((outcome.made, outcome.failed), (1, 0), "{:?}", worker.history.last());
    assert!(
        worker.history.last()[0].why.contains("no finer blocks have all"),
        "{:?}",
        worker.history.last()[0]
    );
    let after = windows(&bucket, of_resolution(&worker, 300_000).await.ulid).await;
    let is_left = |(t, _): &&(i64, u64)| !(HOUR..=2 * HOUR + 299_999).contains(t);
    for (labels, windows) in before {
        let expected: Vec<(i64, u64)> = match labels.get("__name__") {
            Some("a") => windows.iter().filter(is_left).copied().collect(),
            _ => windows,
        };
        assert_eq!(after[&labels], expected, "{labels}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_of_which_everything_is_deleted_is_retired_and_its_other_marks_are_copied_otherwise() {
    let bucket = memory_bucket();
    let dir = scratch();
    let worker = worker(&bucket, dir.path(), "a", &["--delete-delay=0s"]);
    let id = Ulid::from_parts(1_700_000_000_000, 1);
    upload(
        &bucket,
        id,
        &[("cluster", "a"), ("replica", "0")],
        (0, 2 * HOUR),
        &[minutes("a", 2), minutes("b", 2)],
    )
    .await;
    marks::create(&bucket, &Mark::new(MarkKind::NoCompact, id, crate::now())).await.unwrap();
    request(&worker, &deletion("x", vec![Matcher::equal("__name__", "a")], 0, HOUR)).await;
    assert_eq!(worker.compact().await.unwrap().made, 1, "{:?}", worker.history.last());
    let view = live(&worker).await;
    let [new] = view.blocks.as_slice() else { panic!("{:?}", view.blocks) };
    assert!(new.ulid < id && view.no_compact.contains(&new.ulid));
    let thanos = new.thanos.as_ref().unwrap();
    assert_eq!(
        (new.compaction.level, &thanos.labels["replica"], &*thanos.source),
        (1, &"0".to_owned(), "compactor")
    );
    assert_eq!(new.compaction.sources, [id]);
    assert_eq!(deletions::applied(new).into_iter().collect::<Vec<_>>(), ["x"]);
    request(&worker, &deletion("y", vec![Matcher::equal("cluster", "a")], 0, 2 * HOUR)).await;
    assert_eq!(worker.compact().await.unwrap(), Default::default(), "{:?}", worker.history.last());
    assert_eq!(live(&worker).await.blocks, []);
    worker.housekeep(Chores::All, false).await.unwrap();
    assert_eq!(bucket.list_all("isthmus/tombstones").await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_whose_deletions_cannot_be_read_is_left_alone() {
    let bucket = memory_bucket();
    let dir = scratch();
    let worker = worker(&bucket, dir.path(), "a", &FLAGS);
    let id = Ulid::from_parts(1_700_000_000_000, 1);
    upload(&bucket, id, &[("cluster", "a")], (0, 2 * HOUR), &[minutes("a", 2)]).await;
    bucket.put(&layout::tombstones_mark(id), bytes::Bytes::from_static(b"{}")).await.unwrap();
    assert_eq!(worker.compact().await.unwrap().made, 0);
    worker.housekeep(Chores::All, false).await.unwrap();
    let view = live(&worker).await;
    assert!(view.corrupt[&id].contains("isthmus/tombstones"), "{:?}", view.corrupt);
    assert!(bucket.exists(&layout::meta(id)).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_with_many_tombstones_in_a_file_is_written_again() {
    let bucket = memory_bucket();
    let dir = scratch();
    let worker = worker(&bucket, dir.path(), "a", &FLAGS);
    let id = Ulid::from_parts(1_700_000_000_000, 1);
    let all: Vec<_> = (0..30).map(|n| minutes(&format!("m{n:02}"), 2)).collect();
    upload(&bucket, id, &[("cluster", "a")], (0, 2 * HOUR), &all).await;
    let remote = bucket.open_block(id, &OpenBlockOptions::default()).await.unwrap();
    let mut stones = tsdb::Tombstones::default();
    let references = tokio::task::spawn_blocking(move || {
        let selected = remote.block().select(&[], TimeRange::ALL).unwrap();
        selected.take(2).map(|series| series.unwrap().reference).collect::<Vec<_>>()
    });
    for reference in references.await.unwrap() {
        stones.delete(reference, TimeRange::new(Timestamp::EPOCH, Timestamp::from_millis(HOUR - 1)));
    }
    bucket.put(&format!("{id}/tombstones"), stones.to_bytes().into()).await.unwrap();
    let meta = bucket.get(&layout::meta(id)).await.unwrap();
    let mut meta: serde_json::Value = serde_json::from_slice(&meta).unwrap();
    for (tombstones, made) in [(1, 0), (2, 1)] {
        meta["stats"]["numTombstones"] = tombstones.into();
        bucket.put(&layout::meta(id), meta.to_string().into()).await.unwrap();
        // A new one, because metas are cached.
        let worker = super::worker(&bucket, dir.path(), "a", &FLAGS);
        assert_eq!(worker.compact().await.unwrap().made, made, "{:?}", worker.history.last());
    }
    let view = live(&worker).await;
    let [new] = view.blocks.as_slice() else { panic!("{:?}", view.blocks) };
    assert_eq!((new.stats.tombstones, new.stats.samples), (0, 30 * 120 - 2 * 60));
}
