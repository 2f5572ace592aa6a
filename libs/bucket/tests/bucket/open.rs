//! Opening blocks where they lie: good ones, and each way in which one can be at fault.

use std::sync::Arc;
use std::time::Duration;

use bucket::fault::{Faults, FaultyStore};
use bucket::{BlockFault, Bucket, OpenBlockError, OpenBlockOptions, RemoteBlock, Retry, layout, publish};
use bytes::Bytes;
use model::TimeRange;
use object_store::memory::InMemory;
use tempfile::TempDir;
use tsdb::{BlockMeta, BlockOptions, IndexMemory, ThanosMeta, Ulid, Workload};

use crate::support::{QUICK, block_id, options, seed};

/// Retries that do not make a test wait, and an index that reads often.
const QUICKLY: OpenBlockOptions = OpenBlockOptions { retry: QUICK, index_memory: IndexMemory::SAMPLED };
/// No retries.
const ONCE: OpenBlockOptions = OpenBlockOptions {
    retry: Retry { attempts: 1, delay: Duration::ZERO },
    index_memory: IndexMemory::WHOLE,
};

/// A bucket with one block of 40 series, seen through its faults and without them.
struct BlockWorld {
    store: Arc<FaultyStore>,
    faulty: Bucket,
    plain: Bucket,
    local: TempDir,
    block: Ulid,
}

impl BlockWorld {
    async fn new() -> Self {
        let local = tempfile::tempdir().unwrap();
        let block = block_id(1);
        let mut options = BlockOptions::new(block);
        options.thanos = Some(ThanosMeta {
            labels: [("cluster".to_owned(), "eu-1".to_owned())].into(),
            ..ThanosMeta::default()
        });
        let workload = Workload { series: 40, ..Workload::default() };
        let meta = workload.write(local.path(), options, &mut |_| {}).unwrap();
        let memory = Arc::new(InMemory::new());
        let store = FaultyStore::new(memory.clone(), 1);
        let world =
            Self { faulty: Bucket::new(store.clone()), plain: Bucket::new(memory), store, local, block };
        publish(&world.plain, &world.dir(), meta, &self::options()).await.unwrap();
        world
    }

    fn dir(&self) -> std::path::PathBuf {
        self.local.path().join(self.block.to_string())
    }

    fn name(&self, file: &str) -> String {
        layout::block_file(self.block, file)
    }

    async fn put(&self, file: &str, content: impl Into<Bytes>) {
        self.plain.put(&self.name(file), content.into()).await.unwrap();
    }

    async fn delete(&self, file: &str) {
        self.plain.delete(&self.name(file)).await.unwrap();
    }

    async fn meta(&self) -> BlockMeta {
        BlockMeta::parse(&self.plain.get(&layout::meta(self.block)).await.unwrap()).unwrap()
    }

    /// Writes `meta.json` without a manifest, as old versions did.
    async fn remove_manifest(&self) {
        let mut meta = self.meta().await;
        meta.thanos.as_mut().unwrap().files.clear();
        self.put("meta.json", meta.to_json()).await;
    }

    /// Changes one byte of an object.
    async fn damage(&self, file: &str, at: usize) {
        let mut content = self.plain.get(&self.name(file)).await.unwrap().to_vec();
        content[at] ^= 0x40;
        self.put(file, content).await;
    }

    async fn open(&self) -> Result<RemoteBlock, OpenBlockError> {
        self.faulty.open_block(self.block, &QUICKLY).await
    }

    /// Checks that the block cannot be opened, which object is at fault, and that the error says `words`.
    async fn check(&self, fault: BlockFault, object: &str, words: &str) {
        let error = self.open().await.expect_err(words);
        let text = error.to_string();
        assert_eq!((error.fault(), error.object()), (fault, object), "{text}");
        assert!(text.contains(words), "{text:?} lacks {words:?}");
        assert!(text.contains(&self.block.to_string()) && !text.contains('\n'), "{text}");
        assert_eq!(error.block(), self.block);
    }
}

/// All series and chunks of a block, as text.
async fn content(opened: RemoteBlock) -> Result<Vec<String>, tsdb::BlockError> {
    let read = move || {
        let block = opened.block();
        let series = block.select(&[], TimeRange::ALL)?.map(|series| {
            let series = series?;
            Ok(format!("{} {:?}", series.labels, block.chunks(&series.chunks)?))
        });
        series.collect()
    };
    tokio::task::spawn_blocking(read).await.unwrap()
}

#[tokio::test]
async fn a_remote_block_has_the_series_and_samples_of_the_local_one() {
    let world = BlockWorld::new().await;
    let opened = world.open().await.unwrap();
    let paths: Vec<&str> = opened.files().iter().map(|file| file.path.as_str()).collect();
    assert_eq!(paths, ["chunks/000001", "index"]);
    assert!(opened.files().iter().all(|file| file.sha256.is_some()));
    let local = tsdb::Block::open(&world.dir()).unwrap();
    let expected: Vec<String> = local
        .select(&[], TimeRange::ALL)
        .unwrap()
        .map(|series| {
            let series = series.unwrap();
            format!("{} {:?}", series.labels, local.chunks(&series.chunks).unwrap())
        })
        .collect();
    assert_eq!(expected.len(), 40);
    assert!(content(opened).await.unwrap() == expected);

    // A block of an old version has no manifest, and other objects may lie beside its files.
    world.remove_manifest().await;
    for stray in ["chunks/000002.tmp", "chunks", "notes", "deletion-mark.json"] {
        world.put(stray, "x").await;
    }
    let opened = world.open().await.unwrap();
    assert!(opened.files().iter().all(|file| file.sha256.is_none()));
    assert!(content(opened).await.unwrap() == expected);
}

#[tokio::test]
async fn a_block_can_be_opened_in_a_task_of_its_own() {
    let world = BlockWorld::new().await;
    let (bucket, block) = (world.faulty.clone(), world.block);
    let opened = tokio::spawn(async move { bucket.open_block(block, &QUICKLY).await });
    assert_eq!(opened.await.unwrap().unwrap().files().len(), 2);
}

#[tokio::test]
async fn a_block_without_meta_is_gone() {
    let world = BlockWorld::new().await;
    world.delete("meta.json").await;
    world.check(BlockFault::Gone, "meta.json", "does not exist: the block was removed").await;
}

#[tokio::test]
async fn a_block_that_is_removed_while_it_is_opened_is_gone_and_not_corrupt() {
    for left in 0..2 {
        let world = BlockWorld::new().await;
        let (plain, block) = (world.plain.clone(), world.block);
        // The first time before the index is looked for, the second time before it is read.
        world.store.after_read(move |_| {
            let plain = plain.clone();
            Box::pin(async move {
                if left == 0 {
                    bucket::delete_block(&plain, block, QUICK).await.unwrap();
                } else {
                    plain.delete(&layout::block_file(block, "index")).await.unwrap();
                    plain.delete(&layout::meta(block)).await.unwrap();
                }
            })
        });
        world.check(BlockFault::Gone, "meta.json", "does not exist: the block was removed").await;
    }
}

#[tokio::test]
async fn a_meta_that_cannot_be_used_is_corrupt() {
    let world = BlockWorld::new().await;
    world.put("meta.json", "{").await;
    world.check(BlockFault::Corrupt, "meta.json", "EOF while parsing").await;
    let mut other = world.meta_of_another_block();
    world.put("meta.json", other.to_json()).await;
    world.check(BlockFault::Corrupt, "meta.json", &format!("is that of block {}", block_id(2))).await;
    other.ulid = world.block;
    other.version = 0;
    world.put("meta.json", other.to_json()).await;
    world.check(BlockFault::Corrupt, "meta.json", "version 0").await;
    world.put("meta.json", vec![b' '; (64 << 20) + 1]).await;
    world.check(BlockFault::Corrupt, "meta.json", "expected at most 67108864").await;
}

impl BlockWorld {
    fn meta_of_another_block(&self) -> BlockMeta {
        crate::support::meta(2)
    }
}

#[tokio::test]
async fn a_newer_version_is_named_and_is_no_damage() {
    let world = BlockWorld::new().await;
    let meta = world.meta().await;
    world.put("meta.json", BlockMeta { version: 2, ..meta.clone() }.to_json()).await;
    world.check(BlockFault::NewerVersion, "meta.json", "upgrade this program").await;
    let thanos = ThanosMeta { version: 2, ..meta.thanos.clone().unwrap() };
    world.put("meta.json", BlockMeta { thanos: Some(thanos), ..meta.clone() }.to_json()).await;
    world.check(BlockFault::NewerVersion, "meta.json", "thanos section").await;
    world.put("meta.json", meta.to_json()).await;
    let mut index = world.plain.get(&world.name("index")).await.unwrap().to_vec();
    index[4] = 9;
    world.put("index", index.clone()).await;
    world.check(BlockFault::NewerVersion, "index", "version is 9, expected 1 to 3").await;
    index[4] = 0;
    world.put("index", index).await;
    world.check(BlockFault::Corrupt, "index", "version is 0, expected 1 to 3").await;
}

#[tokio::test]
async fn files_that_are_missing_or_of_another_size_are_corrupt_and_named() {
    for file in ["index", "chunks/000001"] {
        let world = BlockWorld::new().await;
        let whole = world.plain.get(&world.name(file)).await.unwrap();
        world.put(file, whole.slice(..whole.len() / 2)).await;
        let words = format!("is {} bytes large, its manifest says {}", whole.len() / 2, whole.len());
        world.check(BlockFault::Corrupt, file, &words).await;
        world.delete(file).await;
        world.check(BlockFault::Corrupt, file, "is missing; upload the block again").await;
    }
    // Without a manifest.
    let world = BlockWorld::new().await;
    world.remove_manifest().await;
    world.put("chunks/000003", "x").await;
    world.check(BlockFault::Corrupt, "chunks/000002", "is missing").await;
    world.delete("chunks/000003").await;
    world.delete("index").await;
    world.check(BlockFault::Corrupt, "index", "is missing").await;
}

#[tokio::test]
async fn a_listing_that_lacks_objects_does_not_make_a_block_without_manifest_corrupt() {
    let world = BlockWorld::new().await;
    let expected = content(world.open().await.unwrap()).await.unwrap();
    world.remove_manifest().await;
    // The objects that were written last are those that a stale listing lacks.
    for file in ["index", "chunks/000001"] {
        let whole = world.plain.get(&world.name(file)).await.unwrap();
        world.faulty.put(&world.name(file), whole).await.unwrap();
    }
    world.store.set(Faults { stale_lists: 1.0, ..Faults::default() });
    for _ in 0..20 {
        let opened = world.open().await.unwrap();
        assert_eq!(opened.files().len(), 2);
        assert!(content(opened).await.unwrap() == expected);
    }
    assert!(world.store.injected()["stale listing"] >= 20);
}

#[tokio::test]
async fn a_meta_json_that_is_too_large_is_corrupt_and_the_block_can_be_removed() {
    let world = BlockWorld::new().await;
    world.put("meta.json", vec![b' '; (64 << 20) + 1]).await;
    world.check(BlockFault::Corrupt, "meta.json", "expected at most 67108864").await;
    world.check(BlockFault::Corrupt, "meta.json", "upload the block again, or mark it for deletion").await;
    bucket::delete_block(&world.plain, world.block, QUICK).await.unwrap();
    assert!(world.plain.list_all("").await.unwrap().is_empty());
}

#[tokio::test]
async fn a_damaged_index_is_corrupt_and_the_place_is_named() {
    let world = BlockWorld::new().await;
    let size = world.plain.head(&world.name("index")).await.unwrap().size_bytes as usize;
    for (at, words) in
        [(0, "index, header at byte 0"), (8, "index, symbols"), (size - 8, "index, table of contents")]
    {
        world.damage("index", at).await;
        world.check(BlockFault::Corrupt, "index", words).await;
        world.damage("index", at).await;
    }
    world.remove_manifest().await;
    world.put("index", "").await;
    world.check(BlockFault::Corrupt, "index", "index, header").await;
}

#[tokio::test]
async fn a_store_that_fails_at_any_request_says_nothing_about_the_block() {
    let world = BlockWorld::new().await;
    let before = world.store.requests();
    world.faulty.open_block(world.block, &ONCE).await.unwrap();
    let requests = world.store.requests() - before;
    assert!(requests > 4, "only {requests} requests");
    for left in 0..requests {
        world.store.set(Faults { requests_left: Some(left), ..Faults::default() });
        let error = world.faulty.open_block(world.block, &ONCE).await.expect_err("the store fails");
        assert_eq!(error.fault(), BlockFault::Unavailable, "after {left} requests: {error}");
    }
    for (faults, words) in [
        (Faults { truncated: 1.0, ..Faults::default() }, "the answer has"),
        (Faults { errors: 1.0, ..Faults::default() }, "(faulty"),
    ] {
        world.store.set(faults);
        let error = world.faulty.open_block(world.block, &ONCE).await.expect_err("the store fails");
        assert_eq!(error.fault(), BlockFault::Unavailable, "{words}: {error}");
        assert!(error.store_error().is_some(), "{error}");
    }
}

#[tokio::test]
async fn a_listing_that_lacks_new_objects_does_not_make_a_block_corrupt() {
    let world = BlockWorld::new().await;
    // Written through the store that lists late, so that it knows which objects are new.
    for file in ["index", "chunks/000001"] {
        let content = world.plain.get(&world.name(file)).await.unwrap();
        world.faulty.put(&world.name(file), content).await.unwrap();
    }
    world.store.set(Faults { stale_lists: 1.0, ..Faults::default() });
    for _ in 0..20 {
        world.open().await.unwrap();
    }
    assert!(world.store.injected()["stale listing"] >= 20);
}

#[tokio::test]
async fn reads_of_an_open_block_have_the_same_faults() {
    let world = BlockWorld::new().await;
    let read = async |opened| BlockFault::of_read(&content(opened).await.unwrap_err());
    let opened = world.faulty.open_block(world.block, &ONCE).await.unwrap();
    world.store.set(Faults { requests_left: Some(0), ..Faults::default() });
    assert_eq!(read(opened).await, BlockFault::Unavailable);

    world.store.set(Faults::default());
    let opened = world.faulty.open_block(world.block, &ONCE).await.unwrap();
    world.store.set(Faults { truncated: 1.0, ..Faults::default() });
    assert_eq!(read(opened).await, BlockFault::Unavailable);

    world.store.set(Faults::default());
    let opened = world.open().await.unwrap();
    world.damage("chunks/000001", 4).await;
    assert_eq!(read(opened).await, BlockFault::NewerVersion);
    world.damage("chunks/000001", 4).await;

    let opened = world.open().await.unwrap();
    world.damage("chunks/000001", 40).await;
    assert_eq!(read(opened).await, BlockFault::Corrupt);
    world.damage("chunks/000001", 40).await;

    let opened = world.open().await.unwrap();
    world.delete("chunks/000001").await;
    assert_eq!(read(opened).await, BlockFault::Gone);
}

#[tokio::test]
async fn a_block_is_opened_and_read_while_a_tenth_of_all_requests_fails() {
    let world = BlockWorld::new().await;
    let expected = content(world.open().await.unwrap()).await.unwrap();
    let seed = seed();
    for round in 0..20 {
        let store = FaultyStore::new(Arc::new(InMemory::new()), seed.wrapping_add(round));
        let bucket = Bucket::new(store.clone());
        for object in world.plain.list_all("").await.unwrap() {
            bucket.put(&object.name, world.plain.get(&object.name).await.unwrap()).await.unwrap();
        }
        store.set(Faults::all(0.1));
        let opened = match bucket.open_block(world.block, &QUICKLY).await {
            Ok(opened) => opened,
            Err(error) => {
                assert_eq!(error.fault(), BlockFault::Unavailable, "round {round}: {error}");
                continue;
            }
        };
        match content(opened).await {
            Ok(found) => assert!(found == expected, "round {round}"),
            Err(error) => assert_eq!(BlockFault::of_read(&error), BlockFault::Unavailable, "{error}"),
        }
    }
}
