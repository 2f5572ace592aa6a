//! Faults of uploads and removals that made other programs lose samples or stop: files that are missing, uploads that are slow or
//! interrupted, metas that are damaged, removals that are interrupted.

use std::collections::BTreeSet;

use bucket::fault::{Faults, FaultyStore};
use bucket::marks::{self, Mark, MarkKind};
use bytes::Bytes;

use super::clocks::Clocks;
use super::faults::expire_leases;
use super::random::assert_same;
use super::*;
use crate::history::Action;
use crate::housekeeping::Chores;
use crate::plan::HOUR;

const FLAGS: [&str; 2] = ["--deduplication.replica-label=replica", "--delete-delay=0s"];
const NOW: i64 = 1_700_000_000_000;

/// The series of a block from hour `from` to hour `to`: a sample every ten minutes, whose value follows from its time.
pub(super) fn hourly(from: i64, to: i64) -> Vec<(Labels, Vec<ChunkSample>)> {
    let sample = |at: i64| ChunkSample {
        at: Timestamp::from_millis(at),
        start: Timestamp::EPOCH,
        value: series::ChunkSampleValue::Float((at / 600_000) as f64),
        encoding: tsdb::Encoding::Xor,
    };
    let samples = (from * 6..to * 6).map(|n| sample(n * 600_000)).collect();
    vec![(labels(&[("__name__", "m")]), samples)]
}

/// Uploads the block of [`hourly`].
pub(super) async fn hours(bucket: &Bucket, number: u64, cluster: &str, from: i64, to: i64) -> Ulid {
    let id = Ulid::from_parts(1_600_000_000_000 + number, 1);
    let external = [("cluster", cluster), ("replica", "0")];
    upload(bucket, id, &external, (from * HOUR, to * HOUR), &hourly(from, to)).await.ulid
}

/// The names of all objects in the folder of a block.
async fn objects_of(bucket: &Bucket, block: Ulid) -> BTreeSet<String> {
    let listed = bucket.list_all(&block.to_string()).await.unwrap();
    listed.into_iter().map(|object| object.name).collect()
}

/// The file of a chunk was never uploaded, or was lost: the block is named, and its neighbours are merged without it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_published_block_without_one_of_its_files_stays_and_stops_no_other_block() {
    for lost in ["chunks/000001", "index"] {
        let (bucket, dir) = (memory_bucket(), scratch());
        let mut blocks = Vec::new();
        for number in 0..5 {
            blocks.push(hours(&bucket, number, "a", number as i64 * 2, number as i64 * 2 + 2).await);
        }
        let victim = blocks[0];
        bucket.delete(&layout::block_file(victim, lost)).await.unwrap();
        let left = objects_of(&bucket, victim).await;
        let worker = worker(&bucket, dir.path(), "a", &FLAGS);
        let outcome = worker.compact().await.unwrap();
        let last = worker.history.last();
        assert_eq!((outcome.made, outcome.failed), (1, 1), "{lost}: {last:?}");
        let quarantined = last.iter().find(|decision| decision.action == Action::Quarantined).unwrap();
        assert_eq!(quarantined.from, [victim]);
        assert!(quarantined.why.contains(lost), "{}", quarantined.why);
        worker.housekeep(Chores::All, false).await.unwrap();
        assert_eq!(objects_of(&bucket, victim).await, left, "{lost}");
        let found = visible_without(&worker, victim).await;
        assert_eq!(found.len(), 1);
        assert_eq!(found.values().map(Vec::len).sum::<usize>(), 4 * 12, "{lost}");
    }
}

/// What readers see without a block that cannot be read.
async fn visible_without(worker: &BucketWorker, block: Ulid) -> BTreeMap<Labels, Vec<ChunkSample>> {
    let mut all: BTreeMap<Labels, Vec<ChunkSample>> = BTreeMap::new();
    for meta in live(worker).await.blocks.iter().filter(|meta| meta.ulid != block) {
        for (labels, samples) in samples_of(&worker.bucket, meta.ulid).await {
            all.entry(labels).or_default().extend(samples);
        }
    }
    all
}

/// An uploader that is killed leaves no block. What it left disturbs no merge, and the next run finishes the block.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_was_interrupted_is_no_block_before_it_is_finished() {
    let dir = scratch();
    let mut writer = BlockWriter::create(dir.path(), {
        let labels = BTreeMap::from([("cluster".to_owned(), "a".to_owned())]);
        let thanos = ThanosMeta { labels, ..ThanosMeta::default() };
        let times = (Timestamp::from_millis(0), Timestamp::from_millis(2 * HOUR));
        BlockOptions { thanos: Some(thanos), times: Some(times), ..BlockOptions::new(Ulid::from_parts(1, 1)) }
    })
    .unwrap();
    for (labels, samples) in hourly(0, 2) {
        writer.add_series(&labels, encode_chunks(&samples).unwrap()).unwrap();
    }
    let meta = writer.finish().unwrap();
    let (folder, options) =
        (dir.path().join(meta.ulid.to_string()), PublishOptions { retry: ONCE, ..PublishOptions::default() });
    let work = scratch();
    for requests in 0.. {
        let memory = Arc::new(InMemory::new());
        let plain = Bucket::new(memory.clone());
        let store = FaultyStore::new(memory, 1);
        store.set(Faults { requests_left: Some(requests), ..Faults::default() });
        let is_published = publish(&Bucket::new(store), &folder, meta.clone(), &options).await.is_ok();
        let worker = worker(&plain, work.path(), "a", &FLAGS);
        assert_eq!(worker.compact().await.unwrap(), Default::default(), "after {requests} requests");
        let outcome = worker.housekeep(Chores::All, false).await.unwrap();
        assert_eq!((outcome.removed, outcome.failed), (0, 0), "after {requests} requests");
        // A block is whole, or there is none: `visible` opens what is listed.
        let seen = visible(&worker).await.values().map(Vec::len).sum::<usize>();
        assert!(seen == 12 || (seen == 0 && !is_published), "after {requests} requests: {seen}");
        publish(&plain, &folder, meta.clone(), &options).await.unwrap();
        assert_eq!(visible(&worker).await.values().map(Vec::len).sum::<usize>(), 12);
        if is_published {
            assert!(requests > 5, "{requests}");
            return;
        }
    }
}

/// The id of a block says when its data began, not when it was uploaded. A store that fails does not make an upload older.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_upload_of_an_old_block_is_kept_whatever_the_store_answers() {
    let clocks = Clocks::new(NOW);
    let memory = clocks.store(Arc::new(InMemory::new()));
    let (plain, dir, old) = (Bucket::new(memory.clone()), scratch(), Ulid::from_parts(1_000, 7));
    let part = |file: &str| layout::block_file(old, file);
    plain.put(&part("chunks/000001"), Bytes::from_static(b"x")).await.unwrap();
    clocks.pass(47 * HOUR);
    // After two days it is still running: the next file is there.
    plain.put(&part("chunks/000002"), Bytes::from_static(b"x")).await.unwrap();
    clocks.pass(2 * HOUR);
    let store = FaultyStore::new(memory, 5);
    let none = Arc::default();
    let flaky = clocks.set(worker(&Bucket::new(store.clone()), dir.path(), "a", &FLAGS), &none);
    let (mut failed, mut passes) = (0, 0);
    for round in 0..200 {
        let left = (round % 2 == 0).then_some(round / 2 % 20);
        let (errors, truncated) = if left.is_none() { (0.2, 0.2) } else { (0.0, 0.0) };
        store.set(Faults { errors, truncated, requests_left: left, ..Faults::default() });
        match flaky.housekeep(Chores::All, false).await {
            Ok(outcome) => (passes, failed) = (passes + 1, failed + outcome.failed),
            Err(_) => failed += 1,
        }
        expire_leases(&plain).await;
        assert_eq!(objects_of(&plain, old).await.len(), 2, "round {round}: a running upload was removed");
    }
    assert!(passes > 10 && failed > 50, "{passes} passes, {failed} failures");
    // An intent keeps an upload that sends one large file for days; then it is abandoned.
    store.set(Faults::default());
    clocks.pass(40 * HOUR);
    plain.put(&layout::intent(old), Bytes::new()).await.unwrap();
    clocks.pass(20 * HOUR);
    assert_eq!(flaky.housekeep(Chores::All, false).await.unwrap().removed, 0);
    clocks.pass(30 * HOUR);
    assert_eq!(flaky.housekeep(Chores::All, false).await.unwrap().removed, 1);
    assert_eq!(objects_of(&plain, old).await.len(), 0);
}

/// One damaged byte of a `meta.json` is no reason to remove weeks of data.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_whose_meta_is_damaged_is_named_and_never_removed() {
    let clocks = Clocks::new(NOW);
    let bucket = Bucket::new(clocks.store(Arc::new(InMemory::new())));
    let (dir, none) = (scratch(), Arc::default());
    let block = hours(&bucket, 1, "a", 0, 2).await;
    let whole = bucket.get(&layout::meta(block)).await.unwrap();
    let objects = objects_of(&bucket, block).await;
    clocks.pass(1000 * HOUR);
    let cut = (0..whole.len()).step_by(61).map(|end| whole.slice(..end));
    let flipped = (0..whole.len()).step_by(17).map(|at| {
        let mut bytes = whole.to_vec();
        bytes[at] ^= 1 << (at % 7);
        Bytes::from(bytes)
    });
    let mut corrupt = 0;
    for damaged in cut.chain(flipped).chain([Bytes::from_static(b"null"), Bytes::from_static(b"{}")]) {
        bucket.put(&layout::meta(block), damaged.clone()).await.unwrap();
        let worker = clocks.set(worker(&bucket, dir.path(), "a", &FLAGS), &none);
        let _ = worker.compact().await.unwrap();
        let outcome = worker.housekeep(Chores::All, false).await.unwrap();
        assert_eq!(outcome.removed, 0, "{damaged:?}");
        assert_eq!(objects_of(&bucket, block).await, objects, "{damaged:?}");
        let (_, troubled, ..) = worker.progress.all();
        corrupt += troubled.iter().filter(|found| found.state == "corrupt").count();
    }
    assert!(corrupt > 20, "{corrupt}");
}

/// Readers never see half a block, the mark is removed last, and the next pass finishes what was begun.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_that_is_killed_at_any_request_is_finished_by_the_next_pass() {
    let dir = scratch();
    for requests in 0.. {
        let memory = Arc::new(InMemory::new());
        let plain = Bucket::new(memory.clone());
        let [gone, other] = [hours(&plain, 1, "a", 0, 2).await, hours(&plain, 2, "a", 2, 4).await];
        marks::create(&plain, &Mark::new(MarkKind::Deletion, gone, Timestamp::EPOCH)).await.unwrap();
        let store = FaultyStore::new(memory, 1);
        let killed = worker(&Bucket::new(store.clone()), dir.path(), "a", &FLAGS);
        store.set(Faults { requests_left: Some(requests), ..Faults::default() });
        let is_done = killed.housekeep(Chores::All, false).await.is_ok_and(|outcome| outcome.failed == 0);
        let left = objects_of(&plain, gone).await;
        let has = |file: &str| left.contains(&layout::block_file(gone, file));
        let is_whole = has("index") && has("chunks/000001");
        assert!(!has("meta.json") || is_whole, "after {requests} requests: {left:?}");
        assert!(left.is_empty() || has("deletion-mark.json"), "after {requests} requests: {left:?}");
        expire_leases(&plain).await;
        let next = worker(&plain, dir.path(), "b", &FLAGS);
        next.housekeep(Chores::All, false).await.unwrap();
        assert_eq!(objects_of(&plain, gone).await.len(), 0, "after {requests} requests");
        assert_eq!(live(&next).await.blocks[0].ulid, other);
        if is_done {
            assert!(requests > 8, "{requests}");
            return;
        }
    }
}

/// Another program marks a block that was removed meanwhile. The mark alone is no block, and does not stay.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mark_that_comes_after_the_removal_is_removed_too() {
    let (bucket, dir) = (memory_bucket(), scratch());
    let block = hours(&bucket, 1, "a", 0, 2).await;
    let mark = Mark::new(MarkKind::Deletion, block, Timestamp::EPOCH);
    marks::create(&bucket, &mark).await.unwrap();
    let workers = ["a", "b", "c"].map(|name| worker(&bucket, dir.path(), name, &FLAGS));
    // Several compactors at once remove a block once, and none fails.
    let passes = workers.iter().map(|worker| worker.housekeep(Chores::All, false));
    let outcomes = futures::future::try_join_all(passes).await.unwrap();
    assert_eq!(outcomes.iter().map(|outcome| outcome.removed + outcome.failed).sum::<usize>(), 1);
    marks::create(&bucket, &mark).await.unwrap();
    assert!(live(&workers[0]).await.blocks.is_empty());
    let outcome = workers[0].housekeep(Chores::All, false).await.unwrap();
    assert_eq!((outcome.failed, outcome.marked), (0, 0));
    assert_eq!(objects_of(&bucket, block).await.len(), 0);
}

/// A store that loses the answer to a write, or refuses a retry because the first attempt was done, costs nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_that_conflict_with_their_own_first_attempt_succeed() {
    for seed in 0..10 {
        let memory = Arc::new(InMemory::new());
        let (plain, dir) = (Bucket::new(memory.clone()), scratch());
        for number in 0..5 {
            hours(&plain, number, "a", number as i64 * 2, number as i64 * 2 + 2).await;
        }
        let reader = worker(&plain, dir.path(), "reader", &FLAGS);
        let expected = visible(&reader).await;
        let store = FaultyStore::new(memory, seed);
        let mut flaky = worker(&Bucket::new(store.clone()), dir.path(), "a", &FLAGS);
        flaky.workshop.retry = Retry { attempts: 20, delay: Duration::from_millis(1) };
        store.set(Faults { lost_answers: 0.4, ..Faults::default() });
        for _ in 0..100 {
            // A lease whose first write was not answered expires.
            flaky.compact().await.unwrap();
            expire_leases(&plain).await;
            if live(&reader).await.blocks.len() == 1 {
                break;
            }
        }
        assert!(store.injected()["lost answer"] > 0);
        assert_eq!(live(&reader).await.blocks.len(), 1, "seed {seed}: {:?}", flaky.history.last());
        assert_same(seed, &visible(&reader).await, &expected);
    }
}

/// On a store that ignores conditions leases do not exclude each other. Two compactors then do the same work, with the same result.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_store_that_ignores_conditions_two_compactors_lose_and_double_nothing() {
    for seed in 1..11 {
        let memory = Arc::new(InMemory::new());
        let world = super::random::world(seed, Bucket::new(memory.clone())).await;
        let (dirs, reader) = ([scratch(), scratch()], scratch());
        let passes = dirs.iter().enumerate().map(|(number, dir)| {
            let store = FaultyStore::new(memory.clone(), seed);
            store.set(Faults { ignores_conditions: true, ..Faults::default() });
            let worker = worker(&Bucket::new(store), dir.path(), &number.to_string(), &FLAGS);
            async move {
                for _ in 0..6 {
                    let _ = worker.compact().await;
                    let _ = worker.housekeep(Chores::All, false).await;
                }
            }
        });
        futures::future::join_all(passes).await;
        expire_leases(&world.bucket).await;
        let last = worker(&world.bucket, reader.path(), "last", &FLAGS);
        assert_eq!(last.compact().await.unwrap().failed, 0, "seed {seed}: {:?}", last.history.last());
        assert_same(seed, &visible(&last).await, &world.samples);
    }
}

/// A listing that is late, or a program that was paused, may bring a removed block back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_that_was_removed_and_is_there_again_is_left_alone() {
    let (bucket, dir) = (memory_bucket(), scratch());
    let worker_of = |dir: &Path| {
        let history = History::new(Some(dir));
        BucketWorker { history, ..worker(&bucket, dir, "a", &["--delete-delay=0s"]) }
    };
    let first = worker_of(dir.path());
    let id = hours(&bucket, 1, "a", 0, 2).await;
    marks::create(&bucket, &Mark::new(MarkKind::Deletion, id, crate::now())).await.unwrap();
    let outcome = first.housekeep(Chores::All, false).await.unwrap();
    assert_eq!((outcome.removed, outcome.failed), (1, 0), "{:?}", first.history.last());
    assert_eq!(hours(&bucket, 1, "a", 0, 2).await, id);
    for number in 2..6 {
        hours(&bucket, number, "a", number as i64 * 2, number as i64 * 2 + 2).await;
    }
    // It is remembered also by the next process.
    for worker in [&first, &worker_of(dir.path())] {
        let view = worker.view().await.unwrap();
        assert!(view.refused[&id].contains("was removed at"), "{:?}", view.refused);
        assert!(view.blocks.iter().all(|meta| meta.ulid != id) && view.blocks.len() == 4);
    }
    assert_eq!(worker_of(scratch().path()).view().await.unwrap().blocks.len(), 5, "another one uses it");
}
