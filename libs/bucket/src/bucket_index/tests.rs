use object_store::memory::InMemory;
use serde_json::json;
use tsdb::ThanosMeta;

use super::*;
use crate::deletions::Deletion;
use crate::fault::FaultyStore;
use crate::fetch::{FetchMetrics, FetchOptions, Fetcher};
use crate::layout;
use crate::marks;

const VALID: Duration = Duration::from_secs(1200);
const ONCE: Retry = Retry { attempts: 1, delay: Duration::from_millis(1) };

fn now() -> Timestamp {
    Timestamp::EPOCH + std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap()
}

fn id(number: u64) -> Ulid {
    Ulid::from_parts(1_700_000_000_000 + number, u128::from(number))
}

/// A `meta.json` as a compactor writes it, with the files of a block.
fn meta(number: u64) -> BlockMeta {
    let at = |hours: u64| Timestamp::from_millis(hours as i64 * 7_200_000);
    let mut meta = BlockMeta::new(id(number), at(number), at(number + 1));
    let mut thanos = ThanosMeta { source: "compactor".to_owned(), ..ThanosMeta::default() };
    thanos.labels.insert("cluster".to_owned(), format!("c-{}", number % 7));
    for path in ["index", "chunks/000001", "chunks/000002"] {
        let value = crate::derived_id(number, &[path]).to_string().repeat(2);
        let hash = tsdb::FileHash { func: "SHA256".to_owned(), value };
        let rel_path = path.to_owned();
        thanos.files.push(tsdb::FileMeta { rel_path, size_bytes: Some(number * 1000), hash: Some(hash) });
    }
    meta.thanos = Some(thanos);
    meta
}

async fn upload(bucket: &Bucket, number: u64) {
    bucket.put(&layout::block_file(id(number), "index"), "x".into()).await.unwrap();
    bucket.put(&layout::meta(id(number)), meta(number).to_json().into()).await.unwrap();
}

/// Looks at the bucket as a compactor does, and writes the index.
async fn tell(bucket: &Bucket, writer: &mut IndexWriter) {
    let options = FetchOptions {
        discovery: crate::Discovery::Recursive,
        keeps_content: true,
        retry: ONCE,
        ..FetchOptions::default()
    };
    let fetcher = Fetcher::new(bucket.clone(), options, FetchMetrics::default()).unwrap();
    let turn = writer.begin().await.unwrap();
    let view = fetcher.fetch(now()).await.unwrap();
    writer.write(turn, &view.content.unwrap(), now()).await.unwrap();
}

fn reader(bucket: &Bucket) -> Fetcher {
    let filters = crate::Filters {
        ignore_marked_after: Some(Duration::from_secs(3600)),
        deduplicates: true,
        ..crate::Filters::default()
    };
    let options = FetchOptions { uses_index: true, filters, retry: ONCE, ..FetchOptions::default() };
    Fetcher::new(bucket.clone(), options, FetchMetrics::default()).unwrap()
}

async fn filled() -> (Arc<FaultyStore>, Bucket, IndexWriter) {
    let store = FaultyStore::new(Arc::new(InMemory::new()), 1);
    let bucket = Bucket::new(store.clone());
    for number in 0..10 {
        upload(&bucket, number).await;
    }
    // A marked block, a block without a meta, a corrupt one, one whose mark cannot be used, and deletions of series.
    marks::create(&bucket, &Mark::new(MarkKind::Deletion, id(1), now())).await.unwrap();
    bucket.put(&layout::block_file(id(20), "index"), "x".into()).await.unwrap();
    bucket.put(&layout::meta(id(21)), "{}".into()).await.unwrap();
    bucket.put(&layout::block_file(id(2), layout::NO_COMPACT_MARK_FILE), "{}".into()).await.unwrap();
    let deletion = Deletion {
        id: "d".to_owned(),
        matchers: vec![model::Matcher::equal("a", "b")],
        range: model::TimeRange::ALL,
        time: Timestamp::EPOCH,
        details: None,
    };
    crate::deletions::add(&bucket, id(3), &[Arc::new(deletion)], ONCE).await.unwrap();
    let writer = IndexWriter::new(&bucket, "w", VALID, ONCE);
    (store, bucket, writer)
}

#[tokio::test]
async fn a_view_by_the_index_is_the_view_by_a_listing() {
    let (store, bucket, mut writer) = filled().await;
    let listing = reader(&bucket).fetch(now()).await.unwrap();
    tell(&bucket, &mut writer).await;
    let fetcher = reader(&bucket);
    let before = store.requests();
    let by_index = fetcher.fetch(now()).await.unwrap();
    assert_eq!(store.requests() - before, 2, "its description and its content");
    assert!(fetcher.used_index().is_some());
    assert_eq!(format!("{by_index:?}"), format!("{listing:?}"));
    let before = store.requests();
    fetcher.fetch(now()).await.unwrap();
    assert_eq!(store.requests() - before, 1, "nothing has changed");

    upload(&bucket, 30).await;
    tell(&bucket, &mut writer).await;
    assert!(fetcher.fetch(now()).await.unwrap().blocks.contains_key(&id(30)));
}

#[tokio::test]
async fn an_index_that_is_missing_old_damaged_or_lies_is_not_used() {
    let (_, bucket, mut writer) = filled().await;
    let fetcher = reader(&bucket);
    let expected = reader(&bucket).fetch(now()).await.unwrap();
    let used = async || {
        let view = fetcher.fetch(now()).await.unwrap();
        assert_eq!(format!("{view:?}"), format!("{expected:?}"));
        fetcher.used_index().is_some()
    };
    assert!(!used().await, "missing");
    tell(&bucket, &mut writer).await;
    assert!(used().await);
    // Old, by the clock of the store; and from a future that no difference of clocks explains.
    let view = fetcher.fetch(now() + VALID + Duration::from_secs(5)).await.unwrap();
    assert!((view.blocks.len(), fetcher.used_index()) == (expected.blocks.len(), None));
    fetcher.fetch(now() - Duration::from_secs(400)).await.unwrap();
    assert_eq!(fetcher.used_index(), None);
    assert!(used().await);
    // It has told of a block that is gone; a newer one is used again.
    fetcher.distrust_index();
    assert!(!used().await, "distrusted");
    let mut again = IndexWriter::new(&bucket, "w", VALID, ONCE);
    upload(&bucket, 1).await;
    let (content, _) = bucket.get_versioned(OBJECT).await.unwrap();
    bucket.delete(OBJECT).await.unwrap();
    // The numbers of a lost index begin with the time in milliseconds, as those of the first one did.
    tokio::time::sleep(Duration::from_millis(2)).await;
    tell(&bucket, &mut again).await;
    assert!(used().await, "a lost index is written with a larger number");
    let newest = bucket.get(OBJECT).await.unwrap();
    bucket.put(OBJECT, content).await.unwrap();
    assert!(!used().await, "an older one is in its place");
    for damaged in [newest.slice(..newest.len() - 1), newest.slice(1..), "<html>".into(), Bytes::new()] {
        bucket.put(OBJECT, damaged).await.unwrap();
        assert!(!used().await, "damaged");
    }
    bucket.put(OBJECT, newest).await.unwrap();
    assert!(used().await);
}

#[tokio::test]
async fn an_index_is_written_for_changes_and_now_and_then_without_one() {
    let (_, bucket, mut writer) = filled().await;
    let read = async || BucketIndex::parse(&bucket.get(OBJECT).await.unwrap()).unwrap();
    tell(&bucket, &mut writer).await;
    let first = read().await;
    assert_eq!((first.valid, &*first.writer), (VALID, "w"));
    assert_eq!(first.told.keys().copied().collect::<Vec<_>>(), [id(1)]);
    tell(&bucket, &mut writer).await;
    assert_eq!(read().await, first, "nothing has changed");
    marks::create(&bucket, &Mark::new(MarkKind::Deletion, id(4), now())).await.unwrap();
    tell(&bucket, &mut writer).await;
    let second = read().await;
    assert_eq!((second.sequence, second.told.len()), (first.sequence + 1, 2));
    assert_eq!(second.told[&id(1)], first.told[&id(1)], "since the first index that said it");
    assert_eq!((writer.told(id(4)), writer.told(id(5))), (Some(second.told[&id(4)]), None));
    // A quarter of the time for which it is valid.
    let turn = writer.begin().await.unwrap();
    let content = second.content.clone();
    writer.write(turn, &content, now() + VALID / 4).await.unwrap();
    assert_eq!(read().await.sequence, second.sequence + 1);
}

#[tokio::test]
async fn of_two_writers_the_one_that_looked_before_the_other_wrote_writes_nothing() {
    let (_, bucket, mut first) = filled().await;
    let mut second = IndexWriter::new(&bucket, "second", VALID, ONCE);
    tell(&bucket, &mut first).await;
    let content = BucketIndex::parse(&bucket.get(OBJECT).await.unwrap()).unwrap().content;
    let early = first.begin().await.unwrap();
    upload(&bucket, 40).await;
    tell(&bucket, &mut second).await;
    let written = bucket.get(OBJECT).await.unwrap();
    let mut older = content.clone();
    older.partial.insert(id(50));
    first.write(early, &older, now()).await.unwrap();
    assert_eq!(bucket.get(OBJECT).await.unwrap(), written);
    tell(&bucket, &mut first).await;
    assert_eq!(bucket.get(OBJECT).await.unwrap(), written, "it says the same");
    // Without an index at the beginning, both create one.
    bucket.delete(OBJECT).await.unwrap();
    let (a, b) = (first.begin().await.unwrap(), second.begin().await.unwrap());
    first.write(a, &content, now()).await.unwrap();
    second.write(b, &older, now()).await.unwrap();
    assert_eq!(BucketIndex::parse(&bucket.get(OBJECT).await.unwrap()).unwrap().content, content);
}

#[tokio::test]
async fn garbage_in_place_of_the_index_is_replaced() {
    let (_, bucket, mut writer) = filled().await;
    bucket.put(OBJECT, "<html>".into()).await.unwrap();
    tell(&bucket, &mut writer).await;
    assert!(BucketIndex::parse(&bucket.get(OBJECT).await.unwrap()).is_ok());
}

#[test]
fn an_index_that_was_changed_at_random_is_an_error_and_never_a_panic() {
    let mut content = BucketContent::default();
    for number in 0..20 {
        content.blocks.insert(id(number), Arc::new(meta(number)));
    }
    let index = BucketIndex {
        sequence: 1,
        written_at: Timestamp::EPOCH,
        valid: VALID,
        writer: "w".to_owned(),
        content,
        told: BTreeMap::new(),
    };
    let bytes = index.to_bytes().unwrap();
    assert_eq!(BucketIndex::parse(&bytes).as_ref(), Ok(&index));
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap();
    for position in 0..bytes.len() {
        let mut changed = bytes.to_vec();
        changed[position] ^= 0x15;
        let parsed = BucketIndex::parse(&changed);
        assert!(position <= end || parsed.is_err(), "byte {position}");
        assert!(BucketIndex::parse(&bytes[..position]).is_err());
    }
    // Lists that are much larger than the first line says, with a checksum that is right.
    let packed = zstd::bulk::compress(&vec![b' '; 8 << 20], 3).unwrap();
    let bomb = |bytes: u64| {
        let header = json!({"version": 1, "sequence": 1, "written_at": 0, "valid_seconds": 1, "writer": "", "bytes": bytes, "sha256": hex(&packed)});
        [header.to_string().as_bytes(), b"\n", &packed].concat()
    };
    assert!(BucketIndex::parse(&bomb(100)).unwrap_err().contains("100 bytes"));
    assert!(BucketIndex::parse(&bomb(MAX_BODY_BYTES + 1)).unwrap_err().contains("at most"));
}

/// Object requests of a sync, and how long it takes when each request takes 5 ms: `ISTHMUS_BLOCKS=10000 cargo test -p bucket --lib
/// requests_of_a_sync -- --nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_of_a_sync_with_and_without_an_index() {
    let blocks = std::env::var("ISTHMUS_BLOCKS").ok().and_then(|text| text.parse().ok()).unwrap_or(300);
    let memory: Arc<InMemory> = Arc::default();
    let quick = Bucket::new(memory.clone());
    for number in 0..blocks {
        upload(&quick, number).await;
    }
    let mut writer = IndexWriter::new(&quick, "w", VALID, ONCE);
    let slow = FaultyStore::new(memory, 1);
    let stall = Duration::from_millis(5);
    slow.set(crate::fault::Faults { stalls: 1.0, stall, ..crate::fault::Faults::default() });
    let bucket = Bucket::new(slow.clone());
    let mut requests = Vec::new();
    for what in ["listing", "index"] {
        let fetcher = reader(&bucket);
        for look in ["first", "second"] {
            let (before, began) = (slow.requests(), std::time::Instant::now());
            let view = fetcher.fetch(now()).await.unwrap();
            assert_eq!(view.blocks.len() as u64, blocks);
            requests.push(slow.requests() - before);
            println!(
                "{blocks} blocks, {look} sync by {what}: {} requests, {:?}",
                slow.requests() - before,
                began.elapsed()
            );
        }
        tell(&quick, &mut writer).await;
    }
    println!("the index has {} bytes", quick.get(OBJECT).await.unwrap().len());
    assert_eq!(requests[2..], [2, 1]);
    assert!(requests[0] > 3 * blocks && requests[1] > 2 * blocks, "{requests:?}");
}
