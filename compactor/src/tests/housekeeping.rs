//! Retention, downsampling of whole blocks, deletion with what replaces a block, the breaker.

use bucket::marks::{self, Mark, MarkKind};
use series::ChunkSampleValue;
use tsdb::Encoding;

use super::*;
use crate::history::Action;
use crate::housekeeping::Chores;
use crate::plan::HOUR;

pub(super) const DAY: i64 = 24 * HOUR;

/// Uploads a block of `up`, one sample a minute, from hour `from` to hour `to` before today.
async fn minutes(bucket: &Bucket, number: u64, from: i64, to: i64) -> BlockMeta {
    let today = crate::now().as_millis() / DAY * DAY;
    minutes_at(bucket, number, today - from * HOUR, today - to * HOUR).await
}

pub(super) async fn minutes_at(bucket: &Bucket, number: u64, from: i64, to: i64) -> BlockMeta {
    let samples: Vec<ChunkSample> = (from / 60_000..to / 60_000)
        .map(|minute| ChunkSample {
            at: Timestamp::from_millis(minute * 60_000),
            start: Timestamp::EPOCH,
            value: ChunkSampleValue::Float((minute % 100) as f64),
            encoding: Encoding::Xor,
        })
        .collect();
    let series = [(labels(&[("__name__", "up")]), samples)];
    upload(bucket, Ulid::from_parts(1_700_000_000_000 + number, 1), &[("cluster", "a")], (from, to), &series)
        .await
}

async fn resolutions(worker: &BucketWorker) -> Vec<i64> {
    let mut found: Vec<i64> = live(worker).await.blocks.iter().map(|meta| resolution(meta)).collect();
    found.sort_unstable();
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn raw_blocks_are_retired_only_after_their_samples_are_downsampled() {
    let bucket = memory_bucket();
    let raw = minutes(&bucket, 1, 24 * 30, 24 * 28).await;
    // This one is too short to be downsampled for its length.
    minutes(&bucket, 2, 24 * 20, 24 * 20 - 2).await;
    let dir = scratch();
    let worker = worker(&bucket, dir.path(), "a", &["--retention.resolution-raw=10d", "--delete-delay=0s"]);
    // Downsampling is behind: nothing is retired.
    assert_eq!(worker.housekeep(Chores::All, false).await.unwrap().marked, 0);
    let outcome = worker.downsample().await.unwrap();
    assert_eq!((outcome.made, outcome.failed), (2, 0), "{:?}", worker.history.last());
    let view = live(&worker).await;
    let coarse =
        view.blocks.iter().find(|meta| resolution(meta) == 300_000 && meta.compaction.sources == [raw.ulid]);
    let coarse = coarse.unwrap();
    // As Thanos: the samples are the windows, but floats and histograms are counted as in the raw block.
    assert_eq!(
        (coarse.stats.samples, coarse.stats.float_samples),
        (raw.stats.samples / 5, raw.stats.samples)
    );
    assert_eq!((coarse.min_time, coarse.max_time), (raw.min_time, raw.max_time));
    let cleaned = worker.housekeep(Chores::All, false).await.unwrap();
    assert_eq!((cleaned.marked, cleaned.failed), (2, 0), "{:?}", worker.history.last());
    assert_eq!(worker.housekeep(Chores::All, false).await.unwrap().removed, 2, "{:?}", worker.history.last());
    assert_eq!(resolutions(&worker).await, [300_000, 300_000]);
    // Nothing is downsampled twice, and nothing is merged with raw blocks.
    assert_eq!(worker.downsample().await.unwrap().made, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_weeks_are_downsampled_to_an_hour() {
    let bucket = memory_bucket();
    let begin = crate::now().as_millis() / (14 * DAY) * 14 * DAY - 56 * DAY;
    for number in 0..7 {
        minutes_at(&bucket, number, begin + number as i64 * 2 * DAY, begin + (number as i64 + 1) * 2 * DAY)
            .await;
    }
    let dir = scratch();
    let worker = worker(&bucket, dir.path(), "a", &[]);
    for _ in 0..4 {
        worker.compact().await.unwrap();
        worker.downsample().await.unwrap();
    }
    let found = resolutions(&worker).await;
    assert!(found.contains(&3_600_000) && found.contains(&300_000), "{found:?}: {:?}", worker.history.last());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_marked_block_stays_while_what_replaces_it_is_missing() {
    let bucket = memory_bucket();
    let block = minutes(&bucket, 1, 24 * 30, 24 * 29).await;
    let dir = scratch();
    let worker = worker(&bucket, dir.path(), "a", &["--delete-delay=0s"]);
    let mut mark = Mark::new(MarkKind::Deletion, block.ulid, crate::now());
    mark.replaced_by = vec![Ulid::from_parts(5, 5)];
    marks::create(&bucket, &mark).await.unwrap();
    assert_eq!(worker.housekeep(Chores::All, false).await.unwrap().removed, 0);
    let last = &worker.history.last()[0];
    assert_eq!((last.action, last.from.as_slice()), (Action::Skipped, [block.ulid].as_slice()));
    assert!(
        last.why.contains(&Ulid::from_parts(5, 5).to_string()) && last.why.contains("it is kept"),
        "{}",
        last.why
    );
    // Without a replacement, as a person marks it, it is removed.
    marks::remove(&bucket, block.ulid, MarkKind::Deletion).await.unwrap();
    marks::create(&bucket, &Mark::new(MarkKind::Deletion, block.ulid, crate::now())).await.unwrap();
    assert_eq!(worker.housekeep(Chores::All, false).await.unwrap().removed, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_that_would_retire_most_of_a_bucket_retires_nothing_before_it_is_approved() {
    let bucket = memory_bucket();
    for number in 0..25 {
        minutes(&bucket, number, 24 * 30 + number as i64 * 2, 24 * 30 + number as i64 * 2 - 2).await;
    }
    let dir = scratch();
    let flags = ["--retention.resolution-raw=2d", "--downsampling.disable"];
    let worker = worker(&bucket, dir.path(), "a", &flags);
    let outcome = worker.housekeep(Chores::All, false).await.unwrap();
    assert_eq!((outcome.marked, outcome.failed), (0, 1));
    let why = &worker.history.last()[0].why;
    assert!(why.contains("would retire 25 of 25 blocks at once, more than 20"), "{why}");
    assert_eq!(worker.housekeep(Chores::All, true).await.unwrap().marked, 25);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changed_retention_settings_act_from_their_second_pass_on() {
    let bucket = memory_bucket();
    for number in 0..3 {
        minutes(&bucket, number, 24 * 30 + number as i64 * 2, 24 * 30 + number as i64 * 2 - 2).await;
    }
    let dir = scratch();
    let with = |flag: &str| worker(&bucket, dir.path(), "a", &["--downsampling.disable", flag]);
    let retire = async |worker: &BucketWorker| {
        let outcome = worker.housekeep(Chores::All, false).await.unwrap();
        assert_eq!(outcome.failed, 0, "{:?}", worker.history.last());
        outcome.marked
    };
    let (usual, typo) = (with("--retention.resolution-raw=60d"), with("--retention.resolution-raw=6d"));
    assert_eq!((retire(&usual).await, retire(&usual).await), (0, 0));
    // A typing error, which is corrected before the next pass.
    assert_eq!(retire(&typo).await, 0);
    let last = &typo.history.last()[0];
    assert_eq!(last.action, Action::Skipped);
    assert!(last.why.contains("would retire 3 of 3 blocks: the next pass retires them"), "{}", last.why);
    assert_eq!((retire(&usual).await, live(&usual).await.marked.len()), (0, 0));
    // Settings that stay. The memory is in the bucket: a restart with an empty folder changes nothing.
    let shorter = with("--retention.resolution-raw=20d");
    assert_eq!(retire(&shorter).await, 0);
    assert_eq!(retire(&with("--retention.resolution-raw=20d")).await, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_retention_settings_that_a_person_approves_act_at_once() {
    let bucket = memory_bucket();
    minutes(&bucket, 1, 24 * 30, 24 * 30 - 2).await;
    let dir = scratch();
    let flags = ["--downsampling.disable", "--retention.resolution-raw=10d"];
    let worker = worker(&bucket, dir.path(), "a", &flags);
    assert_eq!(worker.housekeep(Chores::Retention, false).await.unwrap().marked, 0);
    let fresh = super::worker(&bucket, dir.path(), "a", &[flags[0], "--retention.resolution-raw=11d"]);
    assert_eq!(fresh.housekeep(Chores::Retention, true).await.unwrap().marked, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_memory_of_retention_settings_that_is_garbage_is_named_and_nothing_is_retired() {
    let bucket = memory_bucket();
    minutes(&bucket, 1, 24 * 30, 24 * 30 - 2).await;
    bucket.put(crate::retention_memory::OBJECT, bytes::Bytes::from_static(b"<html>")).await.unwrap();
    let dir = scratch();
    let flags = ["--downsampling.disable", "--retention.resolution-raw=10d"];
    let worker = worker(&bucket, dir.path(), "a", &flags);
    for _ in 0..3 {
        let outcome = worker.housekeep(Chores::All, false).await.unwrap();
        assert_eq!((outcome.marked, outcome.failed), (0, 1));
    }
    let why = worker.history.last().into_iter().find(|d| d.action == Action::Failed).unwrap().why;
    assert!(why.contains("isthmus/retention.json") && why.contains("remove it"), "{why}");
}

/// What dashboards of Thanos ask for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn housekeeping_is_counted_under_the_names_of_thanos() {
    let bucket = memory_bucket();
    minutes(&bucket, 1, 24 * 30, 24 * 28).await;
    let dir = scratch();
    let mut registry = runtime::Registry::default();
    let metrics = CompactorMetrics::new(&mut registry);
    let plain = worker(&bucket, dir.path(), "a", &["--retention.resolution-raw=10d", "--delete-delay=0s"]);
    let worker = BucketWorker { metrics, ..plain };
    worker.housekeep(Chores::All, false).await.unwrap();
    assert_eq!(worker.downsample().await.unwrap().made, 1);
    for _ in 0..2 {
        worker.housekeep(Chores::All, false).await.unwrap();
    }
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    for line in [
        "garbage_collection_total 3",
        "garbage_collection_failures_total 0",
        "garbage_collection_duration_seconds_count 3",
        "blocks_marked_for_deletion_total 1",
        "blocks_cleaned_total 1",
        "downsample_total{resolution=\"300000\"} 1",
        "downsample_total{resolution=\"3600000\"} 0",
        "downsample_failed_total 0",
        "downsample_failures_total 0",
    ] {
        assert!(text.contains(&format!("\nthanos_compact_{line}\n")), "{line} is not in\n{text}");
    }
}
