//! Kills at every request, failing stores, and several compactors at once.

use bucket::fault::{Faults, FaultyStore};

use super::random::{assert_same, seeds, world};
use super::*;
use crate::housekeeping::Chores;

const FLAGS: [&str; 2] = ["--deduplication.replica-label=replica", "--delete-delay=0s"];

/// A copy of a bucket in memory.
pub(super) async fn copy(from: &Bucket, to: &Bucket) {
    for object in from.list_all("").await.unwrap() {
        to.put(&object.name, from.get(&object.name).await.unwrap()).await.unwrap();
    }
}

/// Removes all leases, as if the time to live of those of killed compactors had passed.
pub(super) async fn expire_leases(bucket: &Bucket) {
    for object in bucket.list_all("isthmus/lease").await.unwrap() {
        bucket.delete(&object.name).await.unwrap();
    }
}

/// The first worlds with data of two clusters.
async fn worlds_of_two_groups(wanted: usize) -> Vec<super::random::World> {
    let (mut worlds, mut seed) = (Vec::new(), 0);
    while worlds.len() < wanted {
        seed += 1;
        let world = world(seed, memory_bucket()).await;
        let groups: std::collections::BTreeSet<_> = world.samples.keys().map(|(group, _)| group).collect();
        if groups.len() == 2 && live_blocks(&world.bucket).await > 12 {
            worlds.push(world);
        }
    }
    worlds
}

async fn live_blocks(bucket: &Bucket) -> usize {
    let dir = scratch();
    live(&worker(bucket, dir.path(), "reader", &FLAGS)).await.blocks.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_kill_at_any_request_the_next_run_ends_with_the_same_blocks() {
    let mut kills = 0;
    for world in worlds_of_two_groups(2).await {
        kills += kill_everywhere(&world).await;
    }
    println!("{kills} kills, one at each request: the same blocks each time");
    assert!(kills >= 300, "{kills}");
}

/// Kills a run after each number of requests, and finishes it with another one. Returns how often.
async fn kill_everywhere(world: &super::random::World) -> u64 {
    let undisturbed = memory_bucket();
    copy(&world.bucket, &undisturbed).await;
    let dir = scratch();
    let first = worker(&undisturbed, dir.path(), "a", &FLAGS);
    let merges = first.compact().await.unwrap().made;
    clean(&first).await;
    let expected = content(&undisturbed).await;
    assert!(merges > 1, "{merges}");

    let mut left = 0;
    loop {
        let memory = Arc::new(InMemory::new());
        let plain = Bucket::new(memory.clone());
        copy(&world.bucket, &plain).await;
        let store = FaultyStore::new(memory, 1);
        let killed = worker(&Bucket::new(store.clone()), dir.path(), "killed", &FLAGS);
        store.set(Faults { requests_left: Some(left), ..Faults::default() });
        let outcome = killed.compact().await;
        let cleaned = if outcome.is_ok() { killed.housekeep(Chores::All, false).await.err() } else { None };
        let is_whole = outcome.is_ok_and(|outcome| outcome.failed == 0) && cleaned.is_none();
        drop(killed);
        assert_same(left, &visible_all(&plain).await, &world.samples);
        // The lease of the killed one is still there, so its name is used again after its time to live; here it is removed.
        for object in plain.list_all("isthmus/lease").await.unwrap() {
            plain.delete(&object.name).await.unwrap();
        }
        let next = worker(&plain, dir.path(), "next", &FLAGS);
        let outcome = next.compact().await.unwrap();
        assert_eq!(outcome.failed, 0, "after {left} requests: {:?}", next.history.last());
        clean(&next).await;
        assert_same(left, &visible(&next).await, &world.samples);
        let found = content(&plain).await;
        let different = |a: &BTreeMap<String, u64>, b: &BTreeMap<String, u64>| {
            a.iter()
                .filter(|(name, hash)| b.get(*name) != Some(hash))
                .map(|(name, _)| name.clone())
                .collect::<Vec<_>>()
        };
        let (more, less) = (different(&found, &expected), different(&expected, &found));
        assert!(
            more.is_empty() && less.is_empty(),
            "after {left} requests: {more:?} instead of {less:?}: {:?}",
            next.history.last()
        );
        if is_whole {
            return left;
        }
        left += 1;
    }
}

/// Retires and removes blocks until nothing is left to do.
async fn clean(worker: &BucketWorker) {
    loop {
        let outcome = worker.housekeep(Chores::All, false).await.unwrap();
        assert_eq!(outcome.failed, 0, "{:?}", worker.history.last());
        if outcome.marked + outcome.removed == 0 {
            return;
        }
    }
}

/// What readers see, with replica labels removed.
async fn visible_all(bucket: &Bucket) -> BTreeMap<SeriesKey, Vec<ChunkSample>> {
    let dir = scratch();
    let reader = worker(bucket, dir.path(), "reader", &FLAGS);
    let mut all = visible(&reader).await;
    // Between publishing and marking, a merged block and its sources are there; readers ignore covered ones. Replicas are still apart.
    all.values_mut().for_each(|samples| samples.dedup_by_key(|sample| sample.at));
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_fails_often_costs_time_and_no_sample() {
    for seed in seeds(20) {
        let memory = Arc::new(InMemory::new());
        let plain = Bucket::new(memory.clone());
        let world = world(seed, plain.clone()).await;
        let store = FaultyStore::new(memory, seed);
        store.set(Faults { stale_lists: 0.0, ..Faults::all(0.05) });
        let dir = scratch();
        let flaky = worker(&Bucket::new(store.clone()), dir.path(), "a", &FLAGS);
        for _ in 0..30 {
            let _ = flaky.compact().await;
            let _ = flaky.housekeep(Chores::All, false).await;
            assert_same(seed, &visible_all(&plain).await, &world.samples);
            // A lease whose release failed expires; here it is removed.
            for object in plain.list_all("isthmus/lease").await.unwrap() {
                plain.delete(&object.name).await.unwrap();
            }
        }
        let last = worker(&plain, dir.path(), "b", &FLAGS);
        assert_eq!(last.compact().await.unwrap().failed, 0);
        assert_eq!(last.housekeep(Chores::All, false).await.unwrap().failed, 0, "{:?}", last.history.last());
        assert_same(seed, &visible(&last).await, &world.samples);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_compactors_share_the_groups_and_make_no_block_twice() {
    for seed in seeds(6) {
        let world = world(seed, memory_bucket()).await;
        // Raw blocks are about to be retired, so that each is downsampled while others are merged.
        let days = crate::now().as_millis() / (24 * crate::plan::HOUR);
        let retention = format!("--retention.resolution-raw={}d", days + 1);
        let downsampling = [&FLAGS[..], &[&retention]].concat();
        let dirs: Vec<_> = (0..3).map(|_| scratch()).collect();
        let workers: Vec<BucketWorker> = dirs
            .iter()
            .enumerate()
            .map(|(number, dir)| worker(&world.bucket, dir.path(), &number.to_string(), &downsampling))
            .collect();
        let runs = workers.iter().map(|worker| async move {
            let mut made = 0;
            loop {
                let outcome = worker.compact().await.unwrap();
                let downsampled = worker.downsample().await.unwrap();
                let failed = outcome.failed + downsampled.failed;
                assert_eq!(failed, 0, "seed {seed}: {:?}", worker.history.last());
                worker.housekeep(Chores::All, false).await.unwrap();
                made += outcome.made;
                if outcome.made + outcome.waiting == 0 {
                    return made;
                }
                tokio::task::yield_now().await;
            }
        });
        let made: usize = futures::future::join_all(runs).await.into_iter().sum();
        assert_same(seed, &visible(&workers[0]).await, &world.samples);
        let compacted: Vec<_> = workers
            .iter()
            .flat_map(|worker| worker.history.last())
            .filter(|decision| decision.action == crate::history::Action::Compacted)
            .flat_map(|decision| decision.to)
            .collect();
        let distinct: std::collections::BTreeSet<_> = compacted.iter().collect();
        assert_eq!((compacted.len(), distinct.len()), (made, made), "seed {seed}: a block was made twice");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compactor_that_lost_its_lease_publishes_nothing() {
    let world = world(3, memory_bucket()).await;
    let dir = scratch();
    let paused = worker(&world.bucket, dir.path(), "paused", &FLAGS);
    let groups = crate::group::by_group(&live(&paused).await.blocks, &paused.settings.replica_labels);
    let (key, blocks) = groups.first_key_value().unwrap();
    let plan = crate::plan::plan(blocks, |_| false, &paused.settings.rules, crate::now()).unwrap();
    let bucket::LeaseAttempt::Held(lease) = paused.leases.acquire("group").await.unwrap() else {
        panic!("it is free")
    };
    // Another compactor took the lease while this one was paused.
    let other = br#"{"version":1,"holder":"other","nonce":"1","epoch":2,"ttl_seconds":60}"#;
    world.bucket.put("isthmus/lease/group.json", bytes::Bytes::from_static(other)).await.unwrap();
    assert!(lease.record(None).await.is_err());
    let result = paused.workshop.compact(key, &plan, &Default::default(), &lease).await;
    assert!(matches!(result, Err(crate::job::JobError::Stopped)), "{result:?}");
    assert_eq!((live(&paused).await.covered.len(), live(&paused).await.marked.len()), (0, 0));
    assert_same(3, &visible(&paused).await, &visible_before(&world).await);
}

/// What readers see of the blocks as they were uploaded.
async fn visible_before(world: &super::random::World) -> BTreeMap<SeriesKey, Vec<ChunkSample>> {
    let dir = scratch();
    visible(&worker(&world.bucket, dir.path(), "reader", &FLAGS)).await
}
