//! Removals wait for the stores that still read a block, and for the index of the bucket to have told of its mark.

use std::sync::atomic::AtomicI64;

use bucket::bucket_index::{self, BucketIndex};
use bucket::marks::{self, Mark, MarkKind};
use bucket::readers::{self, ReaderAck};

use super::clocks::Clocks;
use super::housekeeping::{DAY, minutes_at};
use super::*;
use crate::history::Action;
use crate::housekeeping::Chores;
use crate::plan::HOUR;

/// 2023-11-14, at a multiple of 14 days.
const START: i64 = 1_699_488_000_000;
const MINUTE: i64 = 60_000;

/// A bucket with a marked block, and a compactor whose delay of removals is an hour.
struct World {
    clocks: Clocks,
    bucket: Bucket,
    worker: BucketWorker,
    block: Ulid,
    _dir: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let (clocks, dir) = (Clocks::new(START), scratch());
        let bucket = Bucket::new(clocks.store(Arc::new(InMemory::new())));
        let worker = worker(&bucket, dir.path(), "a", &["--delete-delay=1h"]);
        let worker = clocks.set(worker, &Arc::new(AtomicI64::new(0)));
        let block = minutes_at(&bucket, 1, START - 9 * DAY, START - 9 * DAY + 2 * HOUR).await.ulid;
        let world = Self { clocks, bucket, worker, block, _dir: dir };
        world.mark().await;
        world
    }

    async fn mark(&self) {
        let mark = Mark::new(MarkKind::Deletion, self.block, Timestamp::from_millis(self.clocks.now()));
        marks::create(&self.bucket, &mark).await.unwrap();
    }

    async fn acknowledge(&self, id: &str, in_use: &[Ulid]) {
        let ack = ReaderAck {
            id: id.to_owned(),
            name: format!("store-{id}"),
            sync_interval: Duration::from_secs(180),
            expires: Duration::from_secs(900),
            in_use: in_use.to_vec(),
        };
        readers::acknowledge(&self.bucket, &ack).await.unwrap();
    }

    /// The number of blocks that a pass removes.
    async fn removed(&self) -> usize {
        let outcome = self.worker.housekeep(Chores::All, false).await.unwrap();
        assert_eq!(outcome.failed, 0, "{:?}", self.worker.history.last());
        outcome.removed
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_stays_until_every_known_store_has_acknowledged_a_view_without_it() {
    let world = World::new().await;
    world.clocks.pass(2 * HOUR);
    world.acknowledge("1", &[]).await;
    world.acknowledge("2", &[world.block]).await;
    assert_eq!(world.removed().await, 0);
    world.clocks.pass(5 * MINUTE);
    world.acknowledge("2", &[]).await;
    assert_eq!(world.removed().await, 1, "{:?}", world.worker.history.last());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledgement_counts_two_sync_intervals_after_the_mark() {
    let world = World::new().await;
    marks::remove(&world.bucket, world.block, MarkKind::Deletion).await.unwrap();
    world.clocks.pass(HOUR);
    // The delay is over at once, because the mark says that it is old; its object is not.
    world.acknowledge("1", &[]).await;
    world.mark().await;
    world.clocks.pass(HOUR + MINUTE);
    // The store has not synced since.
    assert_eq!(world.removed().await, 1, "its acknowledgement has expired");
    let world = World::new().await;
    world.clocks.pass(59 * MINUTE);
    world.acknowledge("1", &[]).await;
    world.clocks.pass(2 * MINUTE);
    assert_eq!(world.removed().await, 1, "it is much younger than the mark");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_stopped_is_forgotten_and_one_that_never_lets_go_delays_only_for_a_while() {
    let world = World::new().await;
    world.clocks.pass(2 * HOUR);
    world.acknowledge("1", &[world.block]).await;
    world.clocks.pass(14 * MINUTE);
    assert_eq!(world.removed().await, 0);
    world.clocks.pass(2 * MINUTE);
    assert_eq!(world.removed().await, 1, "it has expired");

    let world = World::new().await;
    let mut hours = 0;
    loop {
        world.clocks.pass(HOUR);
        hours += 1;
        world.acknowledge("1", &[world.block]).await;
        if world.removed().await == 1 {
            break;
        }
    }
    assert_eq!(hours, 49, "the delay, and 48 hours more");
    let history = world.worker.history.last();
    let warned = history.iter().find(|decision| decision.action == Action::Skipped).unwrap();
    assert!(
        warned.why.contains("1 stores have not acknowledged") && warned.why.contains("store-1"),
        "{}",
        warned.why
    );
    // What is not a reader delays nothing, and the objects of those that stopped are removed in the end.
    world.bucket.put("isthmus/readers/x.json", "<html>".into()).await.unwrap();
    world.clocks.pass(8 * DAY);
    let block = minutes_at(&world.bucket, 2, START - 9 * DAY, START - 9 * DAY + 2 * HOUR).await.ulid;
    let mark = Mark::new(MarkKind::Deletion, block, Timestamp::from_millis(world.clocks.now() - 2 * HOUR));
    marks::create(&world.bucket, &mark).await.unwrap();
    world.clocks.pass(2 * HOUR);
    assert_eq!(world.removed().await, 1, "{:?}", world.worker.history.last());
    let left = world.bucket.list_all(readers::FOLDER).await.unwrap();
    assert_eq!(left.iter().map(|object| &*object.name).collect::<Vec<_>>(), ["isthmus/readers/x.json"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_delay_of_a_removal_counts_from_when_the_index_told_of_the_mark() {
    let (clocks, dir) = (Clocks::new(START), scratch());
    let bucket = Bucket::new(clocks.store(Arc::new(InMemory::new())));
    let worker = worker(&bucket, dir.path(), "a", &["--delete-delay=1h"]);
    let worker = clocks.set(worker, &Arc::new(AtomicI64::new(0)));
    let block = minutes_at(&bucket, 1, START - 9 * DAY, START - 9 * DAY + 2 * HOUR).await.ulid;
    worker.look().await.unwrap();
    let mark = Mark::new(MarkKind::Deletion, block, Timestamp::from_millis(clocks.now()));
    marks::create(&bucket, &mark).await.unwrap();
    let removed = async || worker.housekeep(Chores::All, false).await.unwrap().removed;
    // Readers use the index, which told of the mark only now.
    clocks.pass(15 * MINUTE);
    assert_eq!(removed().await, 0);
    let index = BucketIndex::parse(&bucket.get(bucket_index::OBJECT).await.unwrap()).unwrap();
    assert_eq!(index.told[&block].as_millis(), START + 15 * MINUTE);
    for minutes in [30, 45, 60, 74] {
        clocks.pass(START + minutes * MINUTE - clocks.now());
        assert_eq!(removed().await, 0, "after {minutes} minutes");
    }
    clocks.pass(MINUTE);
    assert_eq!(removed().await, 1);
    let index = BucketIndex::parse(&bucket.get(bucket_index::OBJECT).await.unwrap()).unwrap();
    assert!(index.content.blocks.is_empty() && index.told.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_writes_no_index_and_a_bucket_whose_index_cannot_be_written_is_worked_on() {
    let world = World::new().await;
    world.worker.view().await.unwrap();
    assert!(!world.bucket.exists(bucket_index::OBJECT).await.unwrap());
    // A store that refuses every condition, and an object that is no index.
    world.bucket.put(bucket_index::OBJECT, "<html>".into()).await.unwrap();
    world.clocks.pass(2 * HOUR);
    assert_eq!(world.removed().await, 1);
    assert!(BucketIndex::parse(&world.bucket.get(bucket_index::OBJECT).await.unwrap()).is_ok());
}
