//! Publishing, fetching and removing blocks while the store has faults.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bucket::fault::{Faults, FaultyStore};
use bucket::marks::{self, Mark, MarkKind};
use bucket::{
    Bucket, DownloadError, DownloadOptions, FetchError, FetchMetrics, FetchOptions, Fetcher, PublishError,
    delete_block, download, layout, publish,
};
use bytes::Bytes;
use model::Timestamp;
use object_store::memory::InMemory;
use tempfile::TempDir;

use crate::support::{
    QUICK, block_id, check_blocks_are_whole, content, noise, options, rounds, seed, write_block,
};

/// A store with faults, and the same store without them.
struct FaultyWorld {
    store: Arc<FaultyStore>,
    faulty: Bucket,
    plain: Bucket,
}

fn world(seed: u64) -> FaultyWorld {
    let memory = Arc::new(InMemory::new());
    let store = FaultyStore::new(memory.clone(), seed);
    FaultyWorld { faulty: Bucket::new(store.clone()), plain: Bucket::new(memory), store }
}

fn download_options() -> DownloadOptions {
    DownloadOptions { retry: QUICK, ..DownloadOptions::default() }
}

fn check_same_files(a: &TempDir, b: &TempDir) {
    for file in ["chunks/000001", "chunks/000002", "index"] {
        assert_eq!(
            std::fs::read(a.path().join(file)).unwrap(),
            std::fs::read(b.path().join(file)).unwrap(),
            "{file}"
        );
    }
}

#[tokio::test]
async fn a_block_is_whole_or_absent_whatever_faults_the_store_has() {
    let seed = seed();
    let mut injected = BTreeSet::new();
    for round in 0..rounds(40) {
        let world = world(seed.wrapping_add(round));
        // Small parts, so that files are written in several.
        let faulty = world.faulty.with_part_bytes(10_000);
        let local = tempfile::tempdir().unwrap();
        let meta = write_block(local.path(), round, 30_000);
        world.store.set(Faults::all(0.1));
        let mut tries = 0;
        let published = loop {
            tries += 1;
            match publish(&faulty, local.path(), meta.clone(), &options()).await {
                Ok(published) => break published,
                Err(error) => assert!(error.is_retryable() && tries < 50, "round {round}: {error}"),
            }
            check_blocks_are_whole(&world.plain).await;
        };
        assert_eq!(check_blocks_are_whole(&world.plain).await, 1, "round {round}");

        let again = publish(&world.plain, local.path(), meta.clone(), &options()).await.unwrap();
        assert_eq!((again.sent_bytes, &again.meta), (0, &published.meta));
        let copy = tempfile::tempdir().unwrap();
        let mut tries = 0;
        while let Err(error) = download(&faulty, meta.ulid, copy.path(), &download_options()).await {
            tries += 1;
            assert!(matches!(error, DownloadError::Bucket(_)) && tries < 50, "round {round}: {error}");
        }
        check_same_files(&local, &copy);
        injected.extend(world.store.injected().into_keys());
    }
    let kinds = ["error", "lost answer", "stale listing", "stall", "truncated"];
    assert_eq!(injected, BTreeSet::from(kinds), "every kind of fault was injected");
}

#[tokio::test]
async fn an_upload_that_fails_at_any_request_is_continued() {
    let local = tempfile::tempdir().unwrap();
    let meta = write_block(local.path(), 1, 30_000);
    let mut steps = 0;
    loop {
        let world = world(steps);
        let faulty = world.faulty.with_part_bytes(10_000);
        world.store.set(Faults { requests_left: Some(steps), ..Faults::default() });
        let once = bucket::Retry { attempts: 1, ..QUICK };
        let first = publish(
            &faulty,
            local.path(),
            meta.clone(),
            &bucket::PublishOptions {
                retry: once,
                // One file after the other, so that requests are in a fixed order.
                concurrency: 1,
                ..options()
            },
        )
        .await;
        check_blocks_are_whole(&world.plain).await;
        let left_behind: BTreeSet<String> = content(&world.plain).await.into_keys().collect();
        world.store.set(Faults::default());
        let second = publish(&faulty, local.path(), meta.clone(), &options()).await.unwrap();
        assert_eq!(check_blocks_are_whole(&world.plain).await, 1);
        // Files that had arrived are not sent again.
        let had_arrived = |path: &str| left_behind.contains(&layout::block_file(meta.ulid, path));
        let missing: u64 = [("chunks/000001", 30_000), ("chunks/000002", 15_000), ("index", 10_000)]
            .iter()
            .filter(|(path, _)| !had_arrived(path))
            .map(|(_, bytes)| bytes)
            .sum();
        assert_eq!(second.sent_bytes, missing, "after {steps} requests");
        // The last request removes the intent; the upload succeeds even if that fails.
        let is_over = first.is_ok() && world.store.requests() > 0 && left_behind.len() == 4;
        if is_over {
            break;
        }
        steps += 1;
    }
    assert!(steps > 15, "only {steps} requests");
}

#[tokio::test]
async fn an_upload_that_is_dropped_at_any_time_is_continued() {
    let seed = seed();
    let local = tempfile::tempdir().unwrap();
    let meta = write_block(local.path(), 1, 30_000);
    for round in 0..rounds(30) {
        let world = world(seed.wrapping_add(round));
        let faulty = world.faulty.with_part_bytes(10_000);
        // Every request takes time, so that the upload is dropped in between.
        world.store.set(Faults { stalls: 1.0, stall: Duration::from_millis(1), ..Faults::default() });
        let options = options();
        let work = publish(&faulty, local.path(), meta.clone(), &options);
        let _dropped = tokio::time::timeout(Duration::from_millis(round % 30), work).await;
        check_blocks_are_whole(&world.plain).await;
        publish(&world.plain, local.path(), meta.clone(), &options).await.unwrap();
        assert_eq!(check_blocks_are_whole(&world.plain).await, 1);
    }
}

#[tokio::test]
async fn two_uploaders_of_one_block_produce_one_block() {
    let seed = seed();
    let local = tempfile::tempdir().unwrap();
    let meta = write_block(local.path(), 1, 3_000);
    for round in 0..rounds(20) {
        let world = world(seed.wrapping_add(round));
        world.store.set(Faults {
            stalls: 0.5,
            stall: Duration::from_millis(1),
            lost_answers: 0.1,
            ..Faults::default()
        });
        let options = options();
        let (a, b) = tokio::join!(
            publish(&world.faulty, local.path(), meta.clone(), &options),
            publish(&world.faulty, local.path(), meta.clone(), &options),
        );
        for result in [a, b] {
            if let Err(error) = result {
                assert!(error.is_retryable(), "{error}");
            }
        }
        publish(&world.plain, local.path(), meta.clone(), &options).await.unwrap();
        assert_eq!(check_blocks_are_whole(&world.plain).await, 1);
    }
}

#[tokio::test]
async fn nothing_is_overwritten_even_if_the_store_ignores_conditions() {
    let local = tempfile::tempdir().unwrap();
    let meta = write_block(local.path(), 1, 3_000);
    for (object, foreign) in [
        ("index", noise(9, 1_000)),
        ("index", noise(9, 10)),
        ("chunks/000001", noise(9, 3_000)),
        ("meta.json", b"{".to_vec()),
        ("meta.json", crate::support::meta(2).to_json()),
    ] {
        let world = world(1);
        world.store.set(Faults { ignores_conditions: true, ..Faults::default() });
        let name = layout::block_file(meta.ulid, object);
        world.plain.put(&name, Bytes::from(foreign.clone())).await.unwrap();
        let error = publish(&world.faulty, local.path(), meta.clone(), &options()).await.unwrap_err();
        assert!(
            matches!(&error, PublishError::Different { object: found, .. } if found == object),
            "{error}"
        );
        assert_eq!(world.plain.get(&name).await.unwrap(), foreign);
        let is_published = world.plain.exists(&layout::meta(meta.ulid)).await.unwrap();
        assert_eq!(is_published, object == "meta.json");
    }
}

#[tokio::test]
async fn blocks_that_must_not_be_published_are_rejected() {
    let local = tempfile::tempdir().unwrap();
    let meta = write_block(local.path(), 1, 300);
    let world = world(1);

    let mut unlabelled = meta.clone();
    unlabelled.thanos.as_mut().unwrap().labels.clear();
    let error = publish(&world.plain, local.path(), unlabelled, &options()).await.unwrap_err();
    assert!(matches!(error, PublishError::NoLabels(_)), "{error}");
    let mut plain_block = crate::support::meta(1);
    plain_block.thanos = None;
    let unlabelled = bucket::PublishOptions { requires_labels: false, ..options() };
    for _ in 0..2 {
        publish(&world.plain, local.path(), plain_block.clone(), &unlabelled).await.unwrap();
        assert_eq!(check_blocks_are_whole(&world.plain).await, 1);
    }
    delete_block(&world.plain, meta.ulid, QUICK).await.unwrap();

    let extra = layout::block_file(meta.ulid, "chunks/000003");
    world.plain.put(&extra, Bytes::from_static(b"x")).await.unwrap();
    let error = publish(&world.plain, local.path(), meta.clone(), &options()).await.unwrap_err();
    assert!(
        matches!(&error, PublishError::Unexpected { object, .. } if object == "chunks/000003"),
        "{error}"
    );
    world.plain.delete(&extra).await.unwrap();

    let mark = Mark::new(MarkKind::Deletion, meta.ulid, Timestamp::from_millis(1_000));
    marks::create(&world.plain, &mark).await.unwrap();
    let error = publish(&world.plain, local.path(), meta.clone(), &options()).await.unwrap_err();
    assert!(matches!(error, PublishError::Marked(_)), "{error}");
    marks::remove(&world.plain, meta.ulid, MarkKind::Deletion).await.unwrap();

    std::fs::remove_file(local.path().join("index")).unwrap();
    let error = publish(&world.plain, local.path(), meta, &options()).await.unwrap_err();
    assert!(matches!(&error, PublishError::Local { .. }) && error.to_string().contains("index"), "{error}");
    assert_eq!(check_blocks_are_whole(&world.plain).await, 0);
}

#[tokio::test]
async fn files_that_a_cleaner_removes_during_the_upload_are_sent_again() {
    let local = tempfile::tempdir().unwrap();
    let meta = write_block(local.path(), 1, 3_000);
    let world = world(1);
    let cleaner = world.plain.clone();
    let index = layout::block_file(meta.ulid, "index");
    world.store.after_write(move |name| {
        let (cleaner, index) = (cleaner.clone(), index.clone());
        Box::pin(async move {
            if name.as_ref().ends_with(layout::META_FILE) {
                cleaner.delete(&index).await.unwrap();
            }
        })
    });
    let published = publish(&world.faulty, local.path(), meta, &options()).await.unwrap();
    assert_eq!(published.sent_bytes, 5_500 + 1_000);
    assert_eq!(check_blocks_are_whole(&world.plain).await, 1);
}

#[tokio::test]
async fn missing_files_of_a_block_with_meta_are_sent_again() {
    let local = tempfile::tempdir().unwrap();
    let meta = write_block(local.path(), 1, 3_000);
    let world = world(1);
    publish(&world.plain, local.path(), meta.clone(), &options()).await.unwrap();
    world.plain.delete(&layout::block_file(meta.ulid, "index")).await.unwrap();
    let healed = publish(&world.plain, local.path(), meta, &options()).await.unwrap();
    assert_eq!(healed.sent_bytes, 1_000);
    assert_eq!(check_blocks_are_whole(&world.plain).await, 1);
}

#[tokio::test]
async fn a_block_without_hashes_of_another_program_is_verified_and_kept() {
    let local = tempfile::tempdir().unwrap();
    let meta = write_block(local.path(), 1, 3_000);
    let world = world(1);
    let published = publish(&world.plain, local.path(), meta.clone(), &options()).await.unwrap();
    let mut foreign = published.meta.clone();
    for file in &mut foreign.thanos.as_mut().unwrap().files {
        file.hash = None;
    }
    let name = layout::meta(meta.ulid);
    world.plain.put(&name, foreign.to_json().into()).await.unwrap();
    let found = publish(&world.plain, local.path(), meta.clone(), &options()).await.unwrap();
    assert_eq!((found.meta, found.sent_bytes), (foreign, 0));

    let index = layout::block_file(meta.ulid, "index");
    world.plain.put(&index, noise(9, 1_000).into()).await.unwrap();
    let error = publish(&world.plain, local.path(), meta, &options()).await.unwrap_err();
    assert!(matches!(&error, PublishError::Different { object, .. } if object == "index"), "{error}");
}

#[tokio::test]
async fn a_removal_that_fails_at_any_request_never_shows_half_a_block() {
    let local = tempfile::tempdir().unwrap();
    let meta = write_block(local.path(), 1, 300);
    for steps in 0.. {
        let world = world(steps);
        publish(&world.plain, local.path(), meta.clone(), &options()).await.unwrap();
        let mark = Mark::new(MarkKind::Deletion, meta.ulid, Timestamp::from_millis(1_000));
        marks::create(&world.plain, &mark).await.unwrap();
        world.store.set(Faults { requests_left: Some(steps), ..Faults::default() });
        let once = bucket::Retry { attempts: 1, ..QUICK };
        let first = delete_block(&world.faulty, meta.ulid, once).await;
        check_blocks_are_whole(&world.plain).await;
        let left = world.plain.list_all(&meta.ulid.to_string()).await.unwrap();
        let is_marked = left.iter().any(|object| object.name.ends_with(layout::DELETION_MARK_FILE));
        assert!(left.is_empty() || is_marked, "the mark went before {left:?}");

        world.store.set(Faults { lost_answers: 0.2, stale_lists: 0.2, errors: 0.1, ..Faults::default() });
        let mut tries = 0;
        while delete_block(&world.faulty, meta.ulid, QUICK).await.is_err() {
            tries += 1;
            assert!(tries < 50);
        }
        // A stale listing may have hidden objects that remain.
        world.store.set(Faults::default());
        delete_block(&world.faulty, meta.ulid, QUICK).await.unwrap();
        assert_eq!(world.plain.list_all(&meta.ulid.to_string()).await.unwrap(), []);
        if first.is_ok() {
            assert!(steps > 5, "only {steps} requests");
            return;
        }
    }
}

#[tokio::test]
async fn a_view_is_complete_or_an_error() {
    let seed = seed();
    for round in 0..rounds(20) {
        let world = world(seed.wrapping_add(round));
        let mut expected = BTreeSet::new();
        for number in 0..12 {
            let local = tempfile::tempdir().unwrap();
            let meta = write_block(local.path(), number, 30);
            publish(&world.plain, local.path(), meta, &options()).await.unwrap();
            expected.insert(block_id(number));
        }
        let corrupt = block_id(3);
        world.plain.put(&layout::meta(corrupt), Bytes::from_static(b"{\"ulid\":")).await.unwrap();
        expected.remove(&corrupt);
        let swapped = block_id(4);
        let other = world.plain.get(&layout::meta(block_id(5))).await.unwrap();
        world.plain.put(&layout::meta(swapped), other).await.unwrap();
        expected.remove(&swapped);
        let partial = block_id(6);
        world.plain.delete(&layout::meta(partial)).await.unwrap();
        expected.remove(&partial);

        let data = tempfile::tempdir().unwrap();
        let fetch_options = FetchOptions {
            data_dir: Some(data.path().to_owned()),
            retry: bucket::Retry { attempts: 2, ..QUICK },
            gather: vec![MarkKind::NoCompact],
            ..FetchOptions::default()
        };
        let fetcher = Fetcher::new(world.faulty.clone(), fetch_options, FetchMetrics::default()).unwrap();
        world.store.set(Faults { errors: 0.1, truncated: 0.1, stalls: 0.1, ..Faults::default() });
        let mut tries = 0;
        let view = loop {
            tries += 1;
            assert!(tries < 100, "round {round}");
            match fetcher.fetch(Timestamp::from_millis(1_800_000_000_000)).await {
                Ok(view) => break view,
                Err(FetchError::Incomplete { view }) => {
                    assert!(!view.failed.is_empty());
                    assert!(view.blocks.keys().all(|block| expected.contains(block)));
                    assert!(view.partial.iter().all(|block| *block == partial));
                    assert!(view.corrupt.keys().all(|block| *block == corrupt || *block == swapped));
                }
                Err(FetchError::Listing(error)) => assert!(error.is_retryable(), "{error}"),
            }
        };
        assert_eq!(view.blocks.keys().copied().collect::<BTreeSet<_>>(), expected);
        assert_eq!(view.partial, BTreeSet::from([partial]));
        assert_eq!(view.corrupt.keys().copied().collect::<Vec<_>>(), [corrupt, swapped]);
    }
}

#[tokio::test]
async fn a_download_compares_every_file_and_continues_after_a_failure() {
    let local = tempfile::tempdir().unwrap();
    let meta = write_block(local.path(), 1, 3_000);
    let world = world(1);
    publish(&world.plain, local.path(), meta.clone(), &options()).await.unwrap();
    let copy = tempfile::tempdir().unwrap();
    // One file after the other, the index last: the segments are downloaded when it fails.
    let download_options = || DownloadOptions { concurrency: 1, ..download_options() };

    let error = download(&world.plain, block_id(2), copy.path(), &download_options()).await.unwrap_err();
    assert!(matches!(error, DownloadError::Absent(_)), "{error}");

    // A different file of the same size, a short file, and a missing file.
    let index = layout::block_file(meta.ulid, "index");
    let good = world.plain.get(&index).await.unwrap();
    for (content, expected) in [
        (Some(noise(9, 1_000)), "SHA-256 differs"),
        (Some(noise(9, 10)), "10 bytes large"),
        (None, "is missing"),
    ] {
        match content {
            Some(content) => _ = world.plain.put(&index, content.into()).await.unwrap(),
            None => world.plain.delete(&index).await.unwrap(),
        }
        let error = download(&world.plain, meta.ulid, copy.path(), &download_options()).await.unwrap_err();
        assert!(error.to_string().contains("index") && error.to_string().contains(expected), "{error}");
        assert!(!copy.path().join("meta.json").exists());
    }
    world.plain.put(&index, good).await.unwrap();
    // Good local files are not downloaded again: the segments no longer exist in the bucket.
    for segment in ["chunks/000001", "chunks/000002"] {
        world.plain.delete(&layout::block_file(meta.ulid, segment)).await.unwrap();
    }
    let fetched = download(&world.plain, meta.ulid, copy.path(), &download_options()).await.unwrap();
    check_same_files(&local, &copy);
    assert_eq!(std::fs::read(copy.path().join("meta.json")).unwrap(), fetched.to_json());
}
