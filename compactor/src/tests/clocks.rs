//! Clocks that tests set, and what happens when they jump or differ: nothing is marked or removed, and leases stay safe.

use std::sync::atomic::{AtomicI64, Ordering};

use bucket::clocked::ClockedStore;
use bucket::marks::{self, Mark, MarkKind};
use bytes::Bytes;
use object_store::ObjectStore;

use super::housekeeping::{DAY, minutes_at};
use super::*;
use crate::housekeeping::Chores;
use crate::plan::HOUR;

/// The time of a world, which also counts for leases. The clocks of the bucket and of compactors differ from it.
#[derive(Clone)]
pub(super) struct Clocks {
    world: Arc<AtomicI64>,
    bucket_ahead: Arc<AtomicI64>,
}

impl Clocks {
    pub(super) fn new(now: i64) -> Self {
        Self { world: Arc::new(AtomicI64::new(now)), bucket_ahead: Arc::default() }
    }

    pub(super) fn now(&self) -> i64 {
        self.world.load(Ordering::SeqCst)
    }

    pub(super) fn pass(&self, millis: i64) {
        self.world.fetch_add(millis, Ordering::SeqCst);
    }

    /// Sets how far the clock of the bucket is ahead.
    pub(super) fn set_bucket_ahead(&self, millis: i64) {
        self.bucket_ahead.store(millis, Ordering::SeqCst);
    }

    /// A store that has the clock of the bucket.
    pub(super) fn store(&self, inner: Arc<dyn ObjectStore>) -> Arc<ClockedStore> {
        let clocks = self.clone();
        ClockedStore::new(inner, move || {
            Timestamp::from_millis(clocks.now() + clocks.bucket_ahead.load(Ordering::SeqCst))
        })
    }

    /// The worker with the clock of this world, from which its machine differs by `ahead`.
    pub(super) fn set(&self, mut worker: BucketWorker, ahead: &Arc<AtomicI64>) -> BucketWorker {
        let (clocks, ahead) = (self.clone(), Arc::clone(ahead));
        worker.workshop.clock =
            Clock::of(move || Timestamp::from_millis(clocks.now() + ahead.load(Ordering::SeqCst)));
        let clocks = self.clone();
        let since_boot = move || Duration::from_millis(u64::try_from(clocks.now()).unwrap());
        worker.leases = worker.leases.with_clock(since_boot);
        worker
    }
}

/// How far clocks jump: minutes, hours, years, to 1970.
const JUMPS: [i64; 9] =
    [6 * 60_000, -6 * 60_000, 3 * HOUR, -3 * HOUR, 49 * HOUR, -49 * HOUR, 3650 * DAY, -3650 * DAY, -START];
/// 2023-11-14, at a multiple of 14 days.
const START: i64 = 1_699_488_000_000;
const FLAGS: [&str; 2] = ["--retention.resolution-raw=10d", "--delete-delay=48h"];

/// Names and contents of all objects of blocks, and the deletion marks.
async fn objects(bucket: &Bucket) -> (BTreeMap<String, u64>, Vec<String>) {
    let all = bucket.list_all("").await.unwrap().into_iter().map(|object| object.name);
    let marks = all.filter(|name| name.ends_with("deletion-mark.json")).collect();
    let mut content = content(bucket).await;
    for meta in bucket.list_all("").await.unwrap().into_iter().filter(|o| o.name.ends_with("/meta.json")) {
        content.insert(meta.name, meta.size_bytes);
    }
    (content, marks)
}

/// Does everything that a compactor does.
async fn work(worker: &BucketWorker) -> Result<crate::housekeeping::HousekeepingOutcome, String> {
    assert_eq!(worker.compact().await.unwrap().failed, 0, "{:?}", worker.history.last());
    assert_eq!(worker.downsample().await.unwrap().failed, 0, "{:?}", worker.history.last());
    worker.housekeep(Chores::All, false).await
}

/// A bucket in which everything is due: a raw block that is too old, a marked block, an abandoned upload, and blocks to merge.
async fn everything_is_due(clocks: &Clocks, bucket: &Bucket, worker: &BucketWorker) -> (Ulid, Ulid) {
    minutes_at(bucket, 1, START - 30 * DAY, START - 28 * DAY).await;
    work(worker).await.unwrap();
    let marked = minutes_at(bucket, 2, START - 20 * DAY, START - 20 * DAY + 2 * HOUR).await.ulid;
    marks::create(bucket, &Mark::new(MarkKind::Deletion, marked, Timestamp::from_millis(START)))
        .await
        .unwrap();
    let abandoned = Ulid::from_parts(1_600_000_000_000, 1);
    bucket.put(&layout::block_file(abandoned, "index"), Bytes::from_static(b"x")).await.unwrap();
    for number in 0..5 {
        let from = START - 5 * DAY + number as i64 * 2 * HOUR;
        minutes_at(bucket, 10 + number, from, from + 2 * HOUR).await;
    }
    clocks.pass(49 * HOUR);
    (marked, abandoned)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_clock_is_wrong_nothing_is_marked_or_removed_and_afterwards_everything_is() {
    for jump in JUMPS {
        for is_of_bucket in [false, true] {
            let (clocks, ahead, dir) = (Clocks::new(START), Arc::new(AtomicI64::new(0)), scratch());
            let bucket = Bucket::new(clocks.store(Arc::new(InMemory::new())));
            let worker = clocks.set(worker(&bucket, dir.path(), "a", &FLAGS), &ahead);
            let (marked, abandoned) = everything_is_due(&clocks, &bucket, &worker).await;
            let (before, marks) = objects(&bucket).await;
            if is_of_bucket {
                clocks.set_bucket_ahead(jump);
            } else {
                ahead.store(jump, Ordering::SeqCst);
            }
            for _ in 0..3 {
                let error = work(&worker).await.unwrap_err();
                assert!(error.contains("the clock of bucket"), "{jump}: {error}");
                clocks.pass(HOUR);
            }
            let (after, marks_after) = objects(&bucket).await;
            assert_eq!(marks_after, marks, "{jump}, of the bucket: {is_of_bucket}: something was marked");
            for (name, hash) in &before {
                assert_eq!(after.get(name), Some(hash), "{jump}, of the bucket: {is_of_bucket}: {name}");
            }
            // The clock is corrected.
            clocks.set_bucket_ahead(0);
            ahead.store(0, Ordering::SeqCst);
            let outcome = work(&worker).await.unwrap();
            assert_eq!(outcome.failed, 0, "{:?}", worker.history.last());
            assert_eq!(outcome.removed, 2, "{jump}: {:?}", worker.history.last());
            let (after, marks) = objects(&bucket).await;
            for gone in [marked, abandoned].map(|id| id.to_string()) {
                assert!(after.keys().chain(&marks).all(|name| !name.starts_with(&gone)), "{gone}");
            }
            // The raw block that is too old, and the sources of merges.
            let old = Ulid::from_parts(1_700_000_000_001, 1);
            assert!(
                marks.len() >= 6 && marks.contains(&layout::block_file(old, "deletion-mark.json")),
                "{marks:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mark_of_a_program_whose_clock_was_wrong_is_as_old_as_its_object() {
    let (clocks, ahead, dir) = (Clocks::new(START), Arc::new(AtomicI64::new(0)), scratch());
    let bucket = Bucket::new(clocks.store(Arc::new(InMemory::new())));
    let worker = clocks.set(worker(&bucket, dir.path(), "a", &["--delete-delay=48h"]), &ahead);
    let block = minutes_at(&bucket, 1, START - DAY, START).await.ulid;
    let long_ago = Timestamp::from_millis(START - 3650 * DAY);
    marks::create(&bucket, &Mark::new(MarkKind::Deletion, block, long_ago)).await.unwrap();
    for (hours, removed) in [(0, 0), (47, 0), (2, 1)] {
        clocks.pass(hours * HOUR);
        let outcome = worker.housekeep(Chores::All, false).await.unwrap();
        assert_eq!((outcome.removed, outcome.failed), (removed, 0), "{:?}", worker.history.last());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_jump_of_the_clock_neither_takes_a_lease_nor_loses_it() {
    let (clocks, dir) = (Clocks::new(START), scratch());
    let bucket = Bucket::new(clocks.store(Arc::new(InMemory::new())));
    let aheads = [Arc::new(AtomicI64::new(0)), Arc::new(AtomicI64::new(0))];
    let holder = clocks.set(worker(&bucket, dir.path(), "holder", &[]), &aheads[0]);
    let other = clocks.set(worker(&bucket, dir.path(), "other", &[]), &aheads[1]);
    let bucket::LeaseAttempt::Held(lease) = holder.leases.acquire("housekeeping").await.unwrap() else {
        panic!("it is free")
    };
    for jump in JUMPS {
        for ahead in &aheads {
            ahead.store(jump, Ordering::SeqCst);
            clocks.set_bucket_ahead(-jump);
            assert!(other.housekeep(Chores::All, false).await.unwrap().waiting, "{jump}");
            assert!(lease.is_held(), "{jump}");
            ahead.store(0, Ordering::SeqCst);
        }
    }
    clocks.set_bucket_ahead(0);
    // Time itself ends a lease: first for its holder, then for others.
    clocks.pass(31_000);
    assert!(!lease.is_held());
    assert!(other.housekeep(Chores::All, false).await.unwrap().waiting);
    clocks.pass(31_000);
    assert!(!other.housekeep(Chores::All, false).await.unwrap().waiting);
}
