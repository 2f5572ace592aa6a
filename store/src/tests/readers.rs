//! What the store tells the compactor of a bucket, and how it finds blocks by the index that a compactor keeps.

use std::time::Duration;

use bucket::bucket_index::{self, BucketIndex, IndexWriter};
use bucket::marks::{self, Mark, MarkKind};
use bucket::{FetchMetrics, FetchOptions, Fetcher, readers};
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::path::Path as ObjectPath;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use tonic::async_trait;

use super::blocks::simple_block;
use super::*;

const HOUR: i64 = 3_600_000;
const ONCE: Retry = Retry { attempts: 1, delay: Duration::from_millis(1) };

/// Waits until it is so.
async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    for _ in 0..600 {
        if is_so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it is not so after 30 seconds: {what}");
}

/// Writes the index of a bucket, as a compactor does.
async fn tell(bucket: &Bucket) {
    let options = FetchOptions { keeps_content: true, retry: ONCE, ..FetchOptions::default() };
    let fetcher = Fetcher::new(bucket.clone(), options, FetchMetrics::default()).unwrap();
    let mut writer = IndexWriter::new(bucket, "compactor", Duration::from_secs(1200), ONCE);
    let turn = writer.begin().await.unwrap();
    let view = fetcher.fetch(crate::now()).await.unwrap();
    writer.write(turn, &view.content.unwrap(), crate::now()).await.unwrap();
}

async fn count(store: &BucketStore) -> (usize, Vec<String>) {
    let request = SeriesRequest::new(millis((0, 24 * HOUR)), any());
    let (found, warnings) = ask(store, request).await.unwrap();
    (found.iter().map(|series| samples(series).len()).sum(), warnings)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_marked_blocks_that_a_store_reads_are_acknowledged_after_each_sync() {
    let (bucket_dir, data_dir) = dirs();
    let bucket = local(bucket_dir.path());
    let external = labels(&[("cluster", "c")]);
    let id = simple_block(bucket_dir.path(), 1, &external, (0, 2)).ulid;
    simple_block(bucket_dir.path(), 2, &external, (2, 4));
    let served = serve(&bucket, data_dir.path(), &["--sync-block-duration=100ms"]).await;
    let acks = async || readers::list(&bucket, ONCE).await.unwrap();
    until("known", async || acks().await.len() == 1).await;
    let reader = acks().await.remove(0);
    assert_eq!((reader.ack.in_use, reader.ack.expires), (vec![], Duration::from_secs(900)));
    marks::create(&bucket, &Mark::new(MarkKind::Deletion, id, crate::now())).await.unwrap();
    until("in use", async || acks().await[0].ack.in_use == [id]).await;
    assert_eq!(count(&served.store).await.0, 240);
    drop(served);
    // The same store after a restart, which no longer serves marked blocks.
    let flags = ["--sync-block-duration=100ms", "--ignore-deletion-marks-delay=0s"];
    let _served = serve(&bucket, data_dir.path(), &flags).await;
    until("let go", async || acks().await.iter().all(|reader| reader.ack.in_use.is_empty())).await;
    assert_eq!(acks().await.len(), 1);
}

/// A store that may be read and not written.
#[derive(Debug)]
struct ReadOnly(object_store::local::LocalFileSystem);

impl std::fmt::Display for ReadOnly {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "read-only")
    }
}

fn denied() -> object_store::Error {
    object_store::Error::PermissionDenied { path: "x".to_owned(), source: "403 Forbidden".into() }
}

#[async_trait]
impl ObjectStore for ReadOnly {
    async fn put_opts(&self, _: &ObjectPath, _: PutPayload, _: PutOptions) -> Result<PutResult> {
        Err(denied())
    }

    async fn put_multipart_opts(
        &self,
        _: &ObjectPath,
        _: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        Err(denied())
    }

    async fn get_opts(&self, name: &ObjectPath, options: GetOptions) -> Result<GetResult> {
        self.0.get_opts(name, options).await
    }

    async fn get_ranges(&self, name: &ObjectPath, ranges: &[std::ops::Range<u64>]) -> Result<Vec<Bytes>> {
        self.0.get_ranges(name, ranges).await
    }

    fn delete_stream(
        &self,
        _: BoxStream<'static, Result<ObjectPath>>,
    ) -> BoxStream<'static, Result<ObjectPath>> {
        Box::pin(futures::stream::once(async { Err(denied()) }))
    }

    fn list(&self, prefix: Option<&ObjectPath>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&ObjectPath>) -> Result<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, _: &ObjectPath, _: &ObjectPath, _: CopyOptions) -> Result<()> {
        Err(denied())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_may_not_write_serves_as_well() {
    let (bucket_dir, data_dir) = dirs();
    simple_block(bucket_dir.path(), 1, &labels(&[("cluster", "c")]), (0, 2));
    let files = object_store::local::LocalFileSystem::new_with_prefix(bucket_dir.path()).unwrap();
    let bucket = Bucket::new(Arc::new(ReadOnly(files)));
    let served = serve(&bucket, data_dir.path(), &["--sync-block-duration=100ms"]).await;
    assert_eq!(count(&served.store).await, (120, vec![]));
    simple_block(bucket_dir.path(), 2, &labels(&[("cluster", "c")]), (2, 4));
    until("synced", async || count(&served.store).await == (240, vec![])).await;
    assert!(!bucket_dir.path().join("isthmus").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_that_tells_of_a_block_that_is_gone_costs_one_more_look_and_no_answer() {
    let (bucket_dir, data_dir) = dirs();
    let bucket = local(bucket_dir.path());
    let external = labels(&[("cluster", "c")]);
    let gone = simple_block(bucket_dir.path(), 1, &external, (0, 2)).ulid;
    tell(&bucket).await;
    std::fs::remove_dir_all(bucket_dir.path().join(gone.to_string())).unwrap();
    simple_block(bucket_dir.path(), 2, &external, (0, 2));
    let served = serve(&bucket, data_dir.path(), &[]).await;
    assert!(served.catalog.current().keys().iter().all(|key| key.block == gone), "the index was used");
    assert_eq!(count(&served.store).await, (120, vec![]));
    // A new index is used again.
    tell(&bucket).await;
    simple_block(bucket_dir.path(), 3, &external, (2, 4));
    let _ = served.catalog.refreshed().await;
    assert_eq!(count(&served.store).await.1, [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocks_are_found_by_the_index_or_by_a_listing_as_the_flag_says() {
    let (bucket_dir, data_dir) = dirs();
    let bucket = local(bucket_dir.path());
    let external = labels(&[("cluster", "c")]);
    simple_block(bucket_dir.path(), 1, &external, (0, 2));
    tell(&bucket).await;
    simple_block(bucket_dir.path(), 2, &external, (2, 4));
    for (flags, samples) in [(&[][..], 120), (&["--store.ignore-bucket-index"], 240)] {
        let served = serve(&bucket, data_dir.path(), flags).await;
        assert_eq!(count(&served.store).await, (samples, vec![]), "{flags:?}");
    }
    assert!(BucketIndex::parse(&bucket.get(bucket_index::OBJECT).await.unwrap()).is_ok());
}
