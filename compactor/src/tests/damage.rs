//! Damaged and foreign blocks: named, left alone, and no reason to stop.

use bytes::Bytes;
use series::ChunkSampleValue;
use tsdb::Encoding;

use super::random::{seeds, world};
use super::*;
use crate::history::Action;
use crate::housekeeping::Chores;
use crate::plan::HOUR;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_block_is_put_into_quarantine_and_the_rest_goes_on() {
    for seed in seeds(6) {
        let world = world(seed, memory_bucket()).await;
        let dir = scratch();
        let worker = worker(&world.bucket, dir.path(), "a", &["--deduplication.replica-label=replica"]);
        let view = live(&worker).await;
        if view.blocks.len() < 4 {
            continue;
        }
        let victim = view.blocks[view.blocks.len() / 2].ulid;
        let name = layout::block_file(victim, "chunks/000001");
        let mut bytes = world.bucket.get(&name).await.unwrap().to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        world.bucket.put(&name, Bytes::from(bytes)).await.unwrap();
        let outcome = worker.compact().await.unwrap();
        let quarantined: Vec<_> = worker
            .history
            .last()
            .into_iter()
            .filter(|decision| decision.action == Action::Quarantined)
            .collect();
        let live = live(&worker).await;
        let is_alone = live.blocks.iter().any(|meta| meta.ulid == victim);
        assert!(is_alone && !live.marked.contains_key(&victim), "seed {seed}: the damaged block stays");
        if quarantined.is_empty() {
            // It was not due.
            continue;
        }
        assert_eq!((quarantined.len(), outcome.failed), (1, 1), "seed {seed}");
        assert_eq!(quarantined[0].from, [victim]);
        let reason = &quarantined[0].why;
        assert!(reason.contains("checksum") && reason.contains("tools bucket verify"), "{reason}");
        let (_, troubled, backlog, _) = worker.progress.all();
        assert_eq!(
            (troubled[0].ulid.clone(), troubled[0].state, backlog.quarantined),
            (victim.to_string(), "quarantined", 1)
        );
        // It is not tried in each pass.
        assert_eq!(worker.compact().await.unwrap().failed, 0, "seed {seed}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_objects_newer_blocks_and_labels_that_are_not_allowed_are_left_alone() {
    let bucket = memory_bucket();
    let sample = |at: i64| ChunkSample {
        at: Timestamp::from_millis(at),
        start: Timestamp::EPOCH,
        value: series::ChunkSampleValue::Float(1.0),
        encoding: tsdb::Encoding::Xor,
    };
    let up = labels(&[("__name__", "up")]);
    let hour = crate::plan::HOUR;
    for (number, cluster) in [(1, "a"), (2, "a"), (3, "b"), (4, "b")] {
        let from = (number as i64 - 1) % 2 * 2 * hour;
        let series = [(up.clone(), vec![sample(from + 1)])];
        upload(
            &bucket,
            Ulid::from_parts(number, 1),
            &[("cluster", cluster)],
            (from, from + 2 * hour),
            &series,
        )
        .await;
    }
    let newer = Ulid::from_parts(9, 1);
    bucket.put(&layout::meta(newer), Bytes::from_static(br#"{"ulid":"x","version":2}"#)).await.unwrap();
    for name in ["notes.txt", "debug/metas/x.json", "01HZY3VQ6J0000000000000000/index"] {
        bucket.put(name, Bytes::from_static(b"x")).await.unwrap();
    }
    let before = bucket.list_all("").await.unwrap().len();
    let dir = scratch();
    let mut worker = worker(&bucket, dir.path(), "a", &["--delete-delay=0s"]);
    worker.required = labels(&[("cluster", "a")]);
    let outcome = worker.compact().await.unwrap();
    assert_eq!((outcome.made, outcome.failed), (1, 0), "{:?}", worker.history.last());
    worker.housekeep(Chores::All, false).await.unwrap();
    let (_, troubled, ..) = worker.progress.all();
    let states: Vec<&str> = troubled.iter().map(|block| block.state).collect();
    assert_eq!(states, ["corrupt", "refused", "refused"]);
    assert!(
        troubled[1].reason.contains("its label cluster is \"b\", its bucket requires \"a\""),
        "{troubled:?}"
    );
    // Two sources of three objects are gone; a new block, and the clock and the leases of the compactor, are there.
    let left = bucket.list_all("").await.unwrap();
    let foreign = left.iter().filter(|object| !object.name.starts_with("isthmus/")).count();
    assert_eq!(foreign, before - 3, "{left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_object_of_garbage_is_named_and_nothing_is_changed() {
    let world = world(5, memory_bucket()).await;
    let dir = scratch();
    let worker = worker(&world.bucket, dir.path(), "a", &["--deduplication.replica-label=replica"]);
    let view = live(&worker).await;
    for meta in &view.blocks {
        let key = GroupKey::of(meta, &worker.settings.replica_labels).id().replace('@', "-");
        let name = format!("isthmus/lease/compact-{key}.json");
        world.bucket.put(&name, Bytes::from_static(b"<html>")).await.unwrap();
    }
    world.bucket.put("isthmus/lease/housekeeping.json", Bytes::from_static(b"[]")).await.unwrap();
    // The index for readers changes no block, and is written nevertheless.
    let objects = async || {
        let all = world.bucket.list_all("").await.unwrap();
        all.into_iter().filter(|object| object.name != bucket::bucket_index::OBJECT).count()
    };
    let before = objects().await;
    let outcome = worker.compact().await.unwrap();
    assert!(outcome.failed > 0 && outcome.made == 0);
    let why = &worker.history.last()[0].why;
    assert!(why.contains("is not a lease") && why.contains("remove it"), "{why}");
    assert!(
        worker.housekeep(Chores::All, false).await.unwrap_err().contains("isthmus/lease/housekeeping.json")
    );
    assert_eq!(objects().await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_does_not_fit_on_the_disk_is_refused_with_both_sizes() {
    let world = world(1, memory_bucket()).await;
    let dir = scratch();
    let worker = worker(&world.bucket, dir.path(), "a", &[]);
    let meta = live(&worker).await.blocks.remove(0);
    let mut source = crate::source::Source::open(&world.bucket, &meta, 1, ONCE).await.unwrap();
    assert_eq!(source.size_bytes, crate::group::size_bytes(&meta));
    let id = Ulid::from_parts(1, 1);
    assert!(worker.workshop.prepare(id, std::slice::from_ref(&source)).is_ok());
    source.size_bytes = 1 << 60;
    let error = worker.workshop.prepare(id, &[source]).unwrap_err();
    assert!(matches!(error, crate::job::JobError::NoSpace { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("1441151880758558720 bytes") && text.contains("make room"), "{text}");
}

/// Replaces the time from which the second chunk of the first series is: before the end of the first chunk, as other programs wrote
/// it. The longer number fits into the padding after the entry.
fn overlap_chunks(index: &mut [u8], (end, old, new): (i64, i64, i64), until: i64) {
    let uvarint = |mut value: u64| {
        let mut bytes = Vec::new();
        while value >= 0x80 {
            bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        bytes.push(value as u8);
        bytes
    };
    let times = |from: i64| [uvarint(from.wrapping_sub(end) as u64), uvarint((until - from) as u64)].concat();
    let (before, after) = (times(old), times(new));
    let at = index.windows(before.len()).position(|part| part == before).expect("the second chunk");
    // The entry begins at a multiple of 16 with the length of its body.
    let is_entry = |start: &usize| {
        let body = start + 1..start + 1 + index[*start] as usize;
        body.contains(&at) && index[body.end..body.end + 4] == crc32c::crc32c(&index[body]).to_be_bytes()
    };
    let start = (0..at).rev().filter(|start| start % 16 == 0).find(is_entry).expect("an entry");
    let body = &index[start + 1..start + 1 + index[start] as usize];
    let (head, tail) = (&body[..at - start - 1], &body[at - start - 1 + before.len()..]);
    let body = [head, &after, tail].concat();
    let checksum = crc32c::crc32c(&body).to_be_bytes();
    let entry = [&[body.len() as u8][..], &body, &checksum].concat();
    let old_length = 1 + index[start] as usize + 4;
    assert!(entry.len() <= old_length.next_multiple_of(16), "{} bytes", entry.len());
    index[start..start + entry.len()].copy_from_slice(&entry);
}

/// Prometheus and Thanos have written blocks in which chunks of a series overlap, and stopped at them later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_that_overlap_within_a_block_of_another_program_are_united() {
    const MINUTE: i64 = 60_000;
    let chunk = |from: i64, to: i64, claimed: i64, other: i64| {
        let samples: Vec<ChunkSample> = (from..to)
            .map(|minute| ChunkSample {
                at: Timestamp::from_millis(minute * MINUTE),
                start: Timestamp::EPOCH,
                value: ChunkSampleValue::Float(if minute == other { -1.0 } else { minute as f64 }),
                encoding: Encoding::Xor,
            })
            .collect();
        let mut chunks = encode_chunks(&samples).unwrap();
        assert_eq!(chunks.len(), 1);
        let mut chunk = chunks.remove(0);
        chunk.range.min = Timestamp::from_millis(claimed * MINUTE);
        chunk
    };
    let (bucket, dir, scratch_dir) = (memory_bucket(), scratch(), scratch());
    let mut thanos = ThanosMeta { source: "sidecar".to_owned(), ..ThanosMeta::default() };
    thanos.labels = [("cluster", "a"), ("replica", "0")].map(|(n, v)| (n.to_owned(), v.to_owned())).into();
    let options = BlockOptions {
        times: Some((Timestamp::EPOCH, Timestamp::from_millis(3 * HOUR))),
        thanos: Some(thanos),
        ..BlockOptions::new(Ulid::from_parts(1_700_000_000_000, 7))
    };
    let mut writer = BlockWriter::create(scratch_dir.path(), options).unwrap();
    // The second chunk has 60 samples of the first one, one with another value.
    let chunks = [chunk(0, 100, 0, -1), chunk(40, 160, 100, 50)];
    // As many labels as leave room for the longer number.
    let first = [("__name__", "up"), ("a", "b"), ("p", "1"), ("q", "2"), ("r", "3"), ("s", "4")];
    writer.add_series(&labels(&first), chunks).unwrap();
    writer.add_series(&labels(&[("__name__", "up"), ("c", "d")]), [chunk(0, 10, 0, -1)]).unwrap();
    let meta = writer.finish().unwrap();
    let folder = scratch_dir.path().join(meta.ulid.to_string());
    let mut index = std::fs::read(folder.join("index")).unwrap();
    overlap_chunks(&mut index, (99 * MINUTE, 100 * MINUTE, 40 * MINUTE), 159 * MINUTE);
    std::fs::write(folder.join("index"), index).unwrap();
    let options = PublishOptions { retry: ONCE, ..PublishOptions::default() };
    publish(&bucket, &folder, meta, &options).await.unwrap();
    super::uploads::hours(&bucket, 1, "a", 4, 6).await;
    super::uploads::hours(&bucket, 2, "a", 48, 50).await;

    let worker = worker(&bucket, dir.path(), "a", &[]);
    let outcome = worker.compact().await.unwrap();
    assert_eq!((outcome.made, outcome.failed), (1, 0), "{:?}", worker.history.last());
    let account = worker.history.last().into_iter().find_map(|decision| decision.samples).unwrap();
    assert!(account.is_balanced(), "{account}");
    assert_eq!((account.duplicates, account.conflicts), (59, 1), "{account}");
    let found = visible(&worker).await;
    let ((_, _), samples) = found.iter().find(|((_, labels), _)| labels.get("a") == Some("b")).unwrap();
    let times: Vec<i64> = samples.iter().map(|sample| sample.at.as_millis() / MINUTE).collect();
    assert_eq!(times, (0..160).collect::<Vec<_>>());
}
