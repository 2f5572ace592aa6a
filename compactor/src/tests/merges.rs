//! Blocks that made the merges of other programs stop, double samples or write damaged blocks: late, repeated, overlapping, damaged and
//! downsampled ones, and groups that fail.

use bucket::fault::FaultyStore;
use bytes::Bytes;

use super::random::assert_same;
use super::uploads::{hourly, hours};
use super::*;
use crate::account::ChunkDigest;
use crate::history::Action;
use crate::housekeeping::Chores;
use crate::plan::HOUR;
use crate::verify::{VerifyError, verify};

const FLAGS: [&str; 2] = ["--deduplication.replica-label=replica", "--delete-delay=0s"];

/// Compacts until nothing is left to do, without a failure.
async fn compact_all(worker: &BucketWorker) -> usize {
    let mut made = 0;
    loop {
        let outcome = worker.compact().await.unwrap();
        assert_eq!((outcome.failed, outcome.waiting), (0, 0), "{:?}", worker.history.last());
        worker.housekeep(Chores::All, false).await.unwrap();
        made += outcome.made;
        if outcome.made == 0 {
            return made;
        }
    }
}

/// The number of samples that readers see, and whether each time is there once.
async fn count(worker: &BucketWorker) -> (usize, bool) {
    let found = visible(worker).await;
    let is_once = found.values().all(|samples| samples.windows(2).all(|pair| pair[0].at < pair[1].at));
    (found.values().map(Vec::len).sum(), is_once)
}

/// Uploads come in any order, and late. The planner does not take a gap for the end of the data.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocks_that_come_late_and_in_any_order_are_merged_without_overlaps() {
    let orders = [[0, 1, 2, 3, 4, 5, 6, 7], [7, 6, 5, 4, 3, 2, 1, 0], [4, 0, 7, 2, 6, 1, 3, 5]];
    for order in orders {
        let (bucket, dir) = (memory_bucket(), scratch());
        let worker = worker(&bucket, dir.path(), "a", &FLAGS);
        for (done, number) in order.into_iter().enumerate() {
            let from = number * 2;
            hours(&bucket, number as u64, "a", from, from + 2).await;
            compact_all(&worker).await;
            assert_eq!(count(&worker).await, (12 * (done + 1), true), "{order:?}");
        }
        // A block that is late by days, with samples that are there and samples that are not.
        hours(&bucket, 100, "a", 15, 17).await;
        compact_all(&worker).await;
        assert_eq!(count(&worker).await, (12 * 8 + 6, true), "{order:?}");
        let view = live(&worker).await;
        assert!(!crate::plan::overlaps(
            &view.group(&GroupKey::of(&view.blocks[0], &["replica".to_owned()]), &["replica".to_owned()])
        ));
    }
}

/// The same data in many blocks is there once after a merge, however often it is merged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_that_was_uploaded_many_times_is_there_once() {
    let (bucket, dir) = (memory_bucket(), scratch());
    for number in 0..40 {
        hours(&bucket, number, "a", 0, 2).await;
    }
    hours(&bucket, 100, "a", 48, 50).await;
    let worker = worker(&bucket, dir.path(), "a", &FLAGS);
    let made = compact_all(&worker).await;
    assert!((2..=4).contains(&made), "{made}");
    assert_eq!(count(&worker).await, (2 * 12, true));
    let of_merges = worker.history.last().into_iter().filter_map(|decision| decision.samples);
    for account in of_merges {
        assert!(account.is_balanced() && account.duplicates > 0, "{account}");
    }
}

/// A written block that is not what was to be written is never published.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_with_more_fewer_or_other_chunks_than_were_merged_is_refused() {
    let dir = scratch();
    let written = hourly(0, 8);
    let mut writer = BlockWriter::create(dir.path(), BlockOptions::new(Ulid::from_parts(1, 1))).unwrap();
    let (labels, chunks) = (&written[0].0, encode_chunks(&written[0].1).unwrap());
    writer.add_series(labels, chunks.clone()).unwrap();
    let meta = writer.finish().unwrap();
    let check = |expected: &[(Labels, Vec<tsdb::Chunk>)]| {
        let mut digest = ChunkDigest::default();
        expected.iter().for_each(|(labels, chunks)| digest.add(labels, chunks));
        verify(&dir.path().join(meta.ulid.to_string()), &digest)
    };
    let chunks_of = |from, to| encode_chunks(&hourly(from, to)[0].1).unwrap();
    check(&[(labels.clone(), chunks.clone())]).unwrap();
    let doubled = [chunks.clone(), chunks_of(8, 10)].concat();
    let other = super::labels(&[("__name__", "other")]);
    for different in [
        vec![],
        vec![(labels.clone(), vec![])],
        vec![(labels.clone(), doubled)],
        vec![(labels.clone(), chunks_of(1, 9))],
        vec![(other.clone(), chunks.clone())],
        vec![(labels.clone(), chunks.clone()), (other, chunks_of(0, 2))],
    ] {
        let result = check(&different);
        assert!(matches!(result, Err(VerifyError::Different)), "{different:?}: {result:?}");
    }
}

/// A group in which nothing can be done does not delay the others, downsampling or removal.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_fails_delays_neither_other_groups_nor_housekeeping() {
    let (bucket, dir) = (memory_bucket(), scratch());
    for (cluster, number) in [("a", 0), ("b", 10), ("c", 20)] {
        for block in 0..5 {
            hours(&bucket, number + block, cluster, block as i64 * 2, block as i64 * 2 + 2).await;
        }
    }
    let worker = worker(&bucket, dir.path(), "a", &FLAGS);
    let key = GroupKey::of(&live(&worker).await.blocks[0], &worker.settings.replica_labels);
    let lease = format!("isthmus/lease/compact-{}.json", key.id().replace('@', "-"));
    bucket.put(&lease, Bytes::from_static(b"garbage")).await.unwrap();
    let outcome = worker.compact().await.unwrap();
    assert_eq!((outcome.made, outcome.failed), (2, 1), "{:?}", worker.history.last());
    let outcome = worker.housekeep(Chores::All, false).await.unwrap();
    assert_eq!((outcome.removed, outcome.failed), (10, 0), "{:?}", worker.history.last());
    assert_eq!(count(&worker).await, (3 * 5 * 12, true));
}

/// Another program removes a source while it is read. The job ends without a failure, and the next pass goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_is_removed_during_a_merge_fails_nothing() {
    let memory = Arc::new(InMemory::new());
    let (plain, dir) = (Bucket::new(memory.clone()), scratch());
    let mut blocks = Vec::new();
    for number in 0..5 {
        blocks.push(hours(&plain, number, "a", number as i64 * 2, number as i64 * 2 + 2).await);
    }
    let store = FaultyStore::new(memory, 1);
    let (other, first, last) = (plain.clone(), blocks[0], blocks[3]);
    let opened = layout::block_file(first, "tombstones");
    // When the first source is opened, the last one is removed.
    store.before_read(move |name| {
        let (other, is_it) = (other.clone(), name.to_string() == opened);
        Box::pin(async move {
            if is_it {
                bucket::delete_block(&other, last, ONCE).await.unwrap();
            }
        })
    });
    let worker = worker(&Bucket::new(store), dir.path(), "a", &FLAGS);
    let outcome = worker.compact().await.unwrap();
    assert_eq!((outcome.made, outcome.failed), (0, 0), "{:?}", worker.history.last());
    assert!(worker.history.last().is_empty() && live(&worker).await.marked.is_empty());
    assert_eq!(compact_all(&worker).await, 1);
    assert_eq!(count(&worker).await, (4 * 12, true));
}

/// Aggregates cannot be joined: blocks of them that overlap stay apart, and damaged ones are named.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn downsampled_blocks_that_overlap_or_are_damaged_are_left_alone() {
    let (bucket, dir) = (memory_bucket(), scratch());
    let worker = worker(&bucket, dir.path(), "a", &["--delete-delay=0s"]);
    // Two replicas of two weeks, each downsampled alone.
    hours(&bucket, 1, "a", 0, 14 * 24).await;
    hours(&bucket, 2, "b", 0, 14 * 24).await;
    assert_eq!(worker.downsample().await.unwrap().made, 4, "{:?}", worker.history.last());
    let merging = super::worker(&bucket, dir.path(), "a", &["--deduplication.replica-label=cluster"]);
    let before: Vec<Ulid> = coarse(&merging).await;
    assert_eq!(before.len(), 4);
    compact_all(&merging).await;
    assert_eq!(coarse(&merging).await, before, "aggregates were merged");
    // The 1h block of one replica is lost, and its 5m block damaged: it is not made again from garbage.
    let of = async |millis: i64| {
        let view = live(&worker).await;
        view.blocks
            .iter()
            .find(|meta| resolution(meta) == millis && meta.ulid.timestamp_ms() % 2 == 1)
            .unwrap()
            .ulid
    };
    let (five, hour) = (of(300_000).await, of(3_600_000).await);
    bucket::delete_block(&bucket, hour, ONCE).await.unwrap();
    let name = layout::block_file(five, "chunks/000001");
    let mut bytes = bucket.get(&name).await.unwrap().to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    bucket.put(&name, Bytes::from(bytes)).await.unwrap();
    assert_eq!(worker.downsample().await.unwrap().failed, 1, "{:?}", worker.history.last());
    let decisions = worker.history.last();
    let quarantined = decisions.iter().find(|decision| decision.action == Action::Quarantined).unwrap();
    assert_eq!(quarantined.from, [five], "{}", quarantined.why);
    assert!(!live(&worker).await.blocks.iter().any(|meta| meta.ulid == hour));
}

async fn coarse(worker: &BucketWorker) -> Vec<Ulid> {
    let view = live(worker).await;
    let coarse = view.blocks.iter().filter(|meta| resolution(meta) > 0).map(|meta| meta.ulid);
    let mut coarse: Vec<Ulid> = coarse.chain(view.covered.iter().map(|(meta, _)| meta.ulid)).collect();
    coarse.sort_unstable();
    coarse
}

/// A flipped bit of a source is found before it is copied into a new block.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_flipped_bit_of_a_source_reaches_a_new_block() {
    let (original, dir) = (memory_bucket(), scratch());
    for number in 0..5 {
        hours(&original, number, "a", number as i64 * 2, number as i64 * 2 + 2).await;
    }
    let expected = visible(&worker(&original, dir.path(), "reader", &FLAGS)).await;
    let victim = live(&worker(&original, dir.path(), "reader", &FLAGS)).await.blocks[1].ulid;
    let (mut found, mut harmless) = (0, 0);
    for file in ["chunks/000001", "index"] {
        let name = layout::block_file(victim, file);
        let whole = original.get(&name).await.unwrap();
        for bit in (0..whole.len() * 8).step_by(whole.len() / 5 + 1) {
            let bucket = memory_bucket();
            super::faults::copy(&original, &bucket).await;
            let mut bytes = whole.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            bucket.put(&name, Bytes::from(bytes)).await.unwrap();
            let worker = worker(&bucket, dir.path(), "a", &FLAGS);
            let outcome = worker.compact().await.unwrap();
            if outcome.failed == 0 {
                // A part that a merge does not need, such as the lists of postings.
                assert_same(bit as u64, &visible(&worker).await, &expected);
                harmless += 1;
            } else {
                let marked = live(&worker).await.marked;
                assert!(!marked.contains_key(&victim), "{file}, bit {bit}: {:?}", worker.history.last());
                found += 1;
            }
        }
    }
    println!("{found} flipped bits were found, {harmless} were in parts that are not read");
    assert!(found > 40, "{found}");
}

/// Shards are cut by labels without those of replicas, so that the replicas of a group are in one shard.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_meet_in_one_shard_even_if_the_rules_hash_the_replica_label() {
    let (bucket, dir) = (memory_bucket(), scratch());
    let clusters = 12;
    for cluster in 0..clusters {
        for (replica, number) in [("0", 0), ("1", 100)] {
            let id = Ulid::from_parts(1_600_000_000_000 + number + cluster, 1);
            let cluster = cluster.to_string();
            let external = [("cluster", cluster.as_str()), ("replica", replica)];
            upload(&bucket, id, &external, (0, 2 * HOUR), &hourly(0, 2)).await;
        }
    }
    let mut made = Vec::new();
    for shard in 0..3 {
        let rules = format!(
            "--selector.relabel-config=[{{action: hashmod, source_labels: [cluster, replica], target_label: shard, modulus: 3}}, \
             {{action: keep, source_labels: [shard], regex: '{shard}'}}]"
        );
        let worker = worker(&bucket, dir.path(), "a", &[FLAGS[0], FLAGS[1], &rules]);
        made.push(compact_all(&worker).await);
    }
    assert_eq!(made.iter().sum::<usize>(), clusters as usize, "{made:?}");
    assert!(made.iter().all(|made| *made > 0), "{made:?}");
    let reader = worker(&bucket, dir.path(), "reader", &FLAGS);
    assert_eq!(count(&reader).await, (clusters as usize * 12, true));
}
